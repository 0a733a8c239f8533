"""Every registered part on two ranks, and every head in a whole run and as an ONNX file: too slow for tests/models."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rayprob as rp
from rayprob.calibrate.crossfit import CalibrateSpec
from rayprob.calibrate.fitting import calibrate
from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import ModelError
from rayprob.export.checking import TOLERANCE
from rayprob.export.onnx_file import export_onnx
from rayprob.loader.order import Place
from rayprob.models.heads import HEADS
from rayprob.probability.families import family_of
from rayprob.report.run.write import report
from rayprob.runs.bundle import Bundle
from rayprob.runs.checkpoints import latest, list_checkpoints
from rayprob.runs.folder import claim
from rayprob.runs.spec import Run
from rayprob.train.assess import assess
from rayprob.train.loop import fit
from rayprob.train.refit import RefitSpec, refit
from tests.models.systems import STEPS as STEPS_OF_RANKS
from tests.models.systems import SYSTEMS, classifier_of, job_of, take_steps, train_ranks, with_patches
from tests.ranks import run_ranks
from tests.train.conftest import MakeRun, make_run, tiny

__all__ = ["make_run", "tiny"]
pytestmark = pytest.mark.slow
STEPS, STOP_AT = 18, 6


@pytest.fixture(autouse=True)
def _patches() -> Any:
    with with_patches():
        yield


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of every system, trained by two ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(train_ranks, 2, str(folder))
    return folder


@pytest.mark.parametrize("name", SYSTEMS)
def test_two_data_parallel_ranks_train_as_one(name: str, two_ranks: Path) -> None:
    run = SYSTEMS[name].run(str(two_ranks))
    one = take_steps(job_of(run), STEPS_OF_RANKS).state.classifier.state_dict()
    two = torch.load(two_ranks / f"{name}.pt", weights_only=True)
    assert "error" not in two, two["error"]
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)
    assert not torch.equal(one["backbone.body.0.weight"], classifier_of(run).state_dict()["backbone.body.0.weight"])


def start(run: Run, until: int = STEPS) -> None:
    """Train a run, as far as its evaluation at step `until`."""
    claim(run, Dataset.open(run.data.root))
    folder = Path(run.run_folder)

    def ask_to_stop(numbers: dict[str, Any]) -> None:
        if numbers["step"] == until < STEPS:
            (folder / "stop").touch()

    fit(run, Place(), torch.device("cpu"), ask_to_stop)
    (folder / "stop").unlink(missing_ok=True)


def run_of(name: str, make_run: MakeRun, folder: Path) -> Run:
    system = SYSTEMS[f"head {name}"]
    model = {"backbone": "patches", "pooling": system.pooling, "head": {**system.head.model_dump(), "dropout": 0.2}}
    return make_run(
        folder, model=model, loss=system.loss.model_dump(), optimizer={"name": "adamw", "lr": 0.02}, duration={"steps": STEPS}
    )


@pytest.fixture(scope="module", params=HEADS)
def finished(request: pytest.FixtureRequest, make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of each head; tests that add to its folder copy it."""
    with with_patches():
        run = run_of(request.param, make_run, tmp_path_factory.mktemp("finished") / "run")
        start(run)
    return run


def test_a_stopped_run_ends_bit_identical(finished: Run, make_run: MakeRun, tmp_path: Path) -> None:
    stopped = run_of(finished.model.head.name, make_run, tmp_path / "run")
    start(stopped, until=STOP_AT)
    assert not (tmp_path / "run" / "bundle").exists()
    start(stopped)
    one, other = (latest(list_checkpoints(run.run_folder)) for run in (finished, stopped))
    assert one
    assert other
    assert (one.step, other.step) == (STEPS, STEPS)
    torch.testing.assert_close(one.load(), other.load(), rtol=0, atol=0)


def test_a_finished_run_goes_through_every_verb(finished: Run, tmp_path: Path) -> None:
    folder = str(shutil.copytree(finished.run_folder, tmp_path / "run"))
    prevalence = Dataset.open(finished.data.root).split("val").targets().mean()
    assert assess(folder, "val").at_half.mAP > prevalence
    fitted = calibrate(folder, CalibrateSpec(alphas=(0.2,), prior="none"))
    has_choice = len(family_of(finished.model.head.family).candidates.fits) > 1
    assert bool(fitted.nll_by_method) == has_choice
    assert has_choice or "the only calibrator of" in fitted.reason
    image = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    answer = rp.load(folder).predict(image, evidence={"blue": True}, queries="P(red | !green)")
    assert 0 <= answer.answers["P(red | !green)"] <= 1
    assert Path(report(folder, "val").path).is_file()
    spec = RefitSpec.parse({"head": finished.model.head.model_dump(), "epochs": 2, "global_batch": 16})
    refitted = refit(folder, spec, name="again")
    assert refitted.best["nll_nats"] < 4 * np.log(2)  # of four labels at one half each


def test_an_onnx_file_answers_as_pytorch_or_is_refused_by_name(finished: Run, tmp_path: Path) -> None:
    bundle, path = Bundle.load(f"{finished.run_folder}/bundle"), tmp_path / "out.onnx"
    try:
        assert export_onnx(bundle, str(path)).largest_difference < TOLERANCE
    except ModelError as error:
        assert f"heads of the family {bundle.classifier.family} cannot be exported: " in str(error)  # noqa: PT017
        assert not path.exists()
