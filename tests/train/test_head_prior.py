"""A run whose head starts from a label prior: trained, refitted, resumed, written down, and refused by name."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import LabelError, SpecError
from rayprob.loader.order import Place
from rayprob.models.heads import HeadSpec
from rayprob.models.heads.mixture import TiltedHead
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.distributions.tilted import TiltedDistribution
from rayprob.probability.families import from_outputs
from rayprob.probability.priors.file import LabelPriorFile
from rayprob.probability.priors.prior import LabelPrior
from rayprob.runs import folder
from rayprob.runs.bundle import Bundle
from rayprob.runs.checkpoints import latest, list_checkpoints
from rayprob.runs.finished import open_bundle
from rayprob.runs.folder import claim, open_run
from rayprob.runs.history_rows import read_history
from rayprob.runs.predictions import Predictions
from rayprob.runs.rules import check
from rayprob.runs.spec import Run, absolute
from rayprob.train.compute import Compute
from rayprob.train.job import build_state, prevalence
from rayprob.train.loop import fit
from rayprob.train.refit import RefitSpec, refit
from tests.train.conftest import NAMES, MakeRun

CPU = torch.device("cpu")
MIXTURE = LabelMixture(np.array([0.6, 0.4]), np.array([[0.7, 0.6, 0.1, 0.4], [0.2, 0.1, 0.6, 0.4]]))


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A label prior in a file: the dataset's labels backwards, and one more."""
    path = str(tmp_path_factory.mktemp("prior") / "colours.safetensors")
    p_KL = np.concatenate([MIXTURE.probabilities_KL[:, ::-1], [[0.5], [0.1]]], axis=1)
    LabelPriorFile((*NAMES[::-1], "dark"), LabelMixture(MIXTURE.mixing_weights_K, p_KL), "a test").save(path)
    return path


def made(make_run: MakeRun, where: Path, prior: str, **head: Any) -> Run:
    model = {"backbone": "squeezenet1_1", "norm": "frozen", "head": {"name": "mixture", "prior": prior, **head}}
    return make_run(where, model=model, loss={"name": "mixture", "usage_weight": 0.0})


def start(run: Run) -> str:
    claim(run, Dataset.open(run.data.root))
    return fit(run, Place(), CPU).ending


def last_tensors(run: Run) -> dict[str, Any]:
    checkpoint = latest(list_checkpoints(run.run_folder))
    assert checkpoint
    return checkpoint.load()


def test_training_starts_from_the_prior_matched_by_name(make_run: MakeRun, tmp_path: Path, prior: str) -> None:
    run = made(make_run, tmp_path, prior)
    dataset = Dataset.open(run.data.root)
    head = build_state(run, dataset, Compute.plan(run.precision, Place(), CPU), is_fresh=True).classifier.head
    assert isinstance(head, TiltedHead)
    expected = LabelPrior.of(MIXTURE)
    np.testing.assert_allclose(head.offsets.detach().view(2, 4), expected.odds_KL, rtol=1e-5)
    np.testing.assert_allclose(torch.sigmoid(head.bias).detach(), prevalence(dataset.split("train")), rtol=1e-5)


def test_a_stopped_run_ends_bit_identical(make_run: MakeRun, tmp_path: Path, prior: str) -> None:
    undisturbed, stopped = (made(make_run, tmp_path / name, prior) for name in ("one", "two"))
    assert start(undisturbed) == "finished"
    claim(stopped, Dataset.open(stopped.data.root))
    folder.ask_to_stop(stopped.run_folder)
    assert fit(stopped, Place(), CPU).ending == "stopped"
    assert start(stopped) == "finished"
    left, right = last_tensors(undisturbed)["classifier"], last_tensors(stopped)["classifier"]
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert "head.bias" in left


def test_the_run_file_and_the_bundle_record_the_prior_and_need_it_no_more(
    make_run: MakeRun, tmp_path: Path, prior: str
) -> None:
    own = str(shutil.copy(prior, tmp_path / "own.safetensors"))
    run = made(make_run, tmp_path / "run", own, strength=0.7)
    start(run)
    Path(own).unlink()
    written = HeadSpec(name="mixture", prior=own, components=2, strength=0.7)
    assert open_run(run.run_folder).model.head == written
    bundle = Bundle.load(f"{run.run_folder}/bundle")
    assert bundle.model_spec.head == written
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with torch.inference_mode():
        assert bundle.distribution(bundle.classifier(images)).num_components == 2


def test_a_refit_starts_as_the_prior_over_the_finished_classifier(make_run: MakeRun, tmp_path: Path, prior: str) -> None:
    base = make_run(tmp_path / "base")
    start(base)
    spec = RefitSpec.parse(
        {
            "head": {"name": "mixture", "prior": prior, "strength": 0.5},
            "epochs": 4,
            "global_batch": 16,
            "optimizer": {"lr": 0.01},
        }
    )
    refitted = refit(base.run_folder, spec)
    assert refitted.folder == str(tmp_path / "tiny-mixture2-prior")
    assert open_run(refitted.folder).loss.usage_weight == 0
    holdout = Predictions.read(f"{base.run_folder}/predictions/holdout.parquet")
    logits_NL = holdout.outputs["logits"].astype(np.float64)
    laid_over = TiltedDistribution(LabelPrior.of(MIXTURE), logits_NL, np.full((len(holdout), 1), 0.5))
    nll = [row["nll_nats"] for row in read_history(refitted.folder) if row["kind"] == "evaluation"]
    assert nll[0] == pytest.approx(-laid_over.log_prob(holdout.targets_NL).mean(), rel=1e-4)
    assert refitted.best["nll_nats"] == min(nll) < nll[0]
    kept = Predictions.read(f"{refitted.folder}/predictions/holdout.parquet")
    assert -from_outputs("mixture", kept.outputs).log_prob(kept.targets_NL).mean() == pytest.approx(min(nll), rel=1e-5)
    assert isinstance(open_bundle(refitted.folder).classifier.head, TiltedHead)


def test_a_prior_that_does_not_fit_is_refused_before_any_work(make_run: MakeRun, tmp_path: Path, prior: str) -> None:
    run = made(make_run, tmp_path, prior, components=7)
    dataset = Dataset.open(run.data.root)
    with pytest.raises(SpecError, match=r"head.components is 7, but the label prior .* has 2; set head.components to 2"):
        check(run, dataset, world_size=1)
    with pytest.raises(LabelError, match="knows 0 of the 4 labels, but needs at least 2"):
        check(made(make_run, tmp_path, "coco"), dataset, world_size=1)


def test_workers_find_a_prior_beside_the_run_file(
    make_run: MakeRun, tmp_path: Path, prior: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(prior, tmp_path / "own.safetensors")
    shutil.copy(prior, tmp_path / "coco")
    monkeypatch.chdir(tmp_path)
    own = absolute(made(make_run, tmp_path / "run", "own.safetensors"))
    assert own.model.head.prior == str(tmp_path / "own.safetensors")
    assert absolute(made(make_run, tmp_path / "run", "coco")).model.head.prior == "coco"


def test_a_head_of_a_plugin_says_which_of_its_options_are_files(tmp_path: Path) -> None:
    class LexiconSpec(HeadSpec):
        lexicon: str = "words.txt"

        @property
        def files(self) -> dict[str, str]:
            return {"lexicon": self.lexicon}

    spec = LexiconSpec.model_construct(name="lexicon", lexicon="words.txt")
    assert getattr(spec.with_absolute_paths(lambda path: f"/shared/{path}"), "lexicon") == "/shared/words.txt"  # noqa: B009
    assert HeadSpec(name="mixture", prior="coco", components=2).files == {}
