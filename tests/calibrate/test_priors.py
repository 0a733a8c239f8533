"""`rayprob prior` and `calibrate --prior` on made-up runs."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from rayprob.calibrate import find_priors
from rayprob.calibrate.crossfit import Priors
from rayprob.calibrate.prior_notes import prior_notes
from rayprob.cli.app import app
from rayprob.data.sources.label_sets import LabelSets
from rayprob.probability.calibration.affine import AffineCalibrator
from rayprob.probability.calibration.calibrators import Choice, choose_calibrator
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.distributions.tilted import TiltedDistribution
from rayprob.probability.priors.file import SHIPPED, LabelPriorFile
from rayprob.runs.bundle import Bundle
from rayprob.runs.predictions import Predictions
from tests.calibrate.calibrated_run import FACTS, LABELS, predictions, table, write_run
from tests.probability.calibration.test_prior import scenes_and_classifier


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def label_sets(path: Path, names: tuple[str, ...], num_sets: int = 400) -> str:
    """Write label sets of two kinds of scenes over the labels of a run."""
    random = np.random.default_rng(0)
    half = len(names) // 2
    p_KL = np.full((2, len(names)), 0.05)
    p_KL[0, :half], p_KL[1, half:] = 0.7, 0.7
    present_NL = random.random((num_sets, len(names))) < p_KL[random.integers(0, 2, num_sets)]
    lists = [[names[c] for c in np.flatnonzero(present_L)] for present_L in present_NL]
    pq.write_table(pa.table({"labels": lists}), path)
    return str(path)


@pytest.fixture
def run(tmp_path: Path) -> tuple[str, Predictions]:
    holdout = predictions(120, "holdout", seed=1)
    write_run(tmp_path / "run", holdout, predictions(300, "val", seed=2))
    return str(tmp_path / "run"), holdout


def test_a_prior_is_made_shown_and_used(run: tuple[str, Predictions], tmp_path: Path) -> None:
    folder, holdout = run
    source, prior = label_sets(tmp_path / "sets.parquet", holdout.label_space.names), str(tmp_path / "scenes.safetensors")
    said = invoke("prior", source, "-o", prior, "--components", "5")
    assert "400 label sets of " in said
    assert "independent labels" in said
    assert f"next: rayprob calibrate RUN --prior {prior}" in said
    report = json.loads(invoke("calibrate", folder, "--prior", prior, "--json"))
    assert report["method"].endswith(" + scenes.safetensors")
    assert any(note.startswith("the label prior scenes.safetensors has strength 0.") for note in report["notes"])
    bundle = Bundle.load(f"{folder}/bundle")
    distribution = bundle.distribution(holdout.outputs)
    assert isinstance(distribution, TiltedDistribution)
    assert 0 <= distribution.strength_B1[0, 0] < 0.5, "these labels are independent given the image"
    assert np.isfinite(distribution.log_prob(holdout.targets_NL)).all()
    again = json.loads(invoke("calibrate", folder, "--json"))
    assert "+" not in again["method"]


def scenes_run(folder: Path, *, sees_context: bool) -> tuple[str, str]:
    """Write a run on label sets of two kinds of scenes, and their prior, also with labels permuted; return run and prior."""
    mixture, logits_NL, targets_NL, _ = scenes_and_classifier(200, 0, sees_context=sees_context)
    six = np.array([0, 1, 2, 5, 6, 7])  # of its eight labels: three of each kind
    holdout = table("holdout", 1, targets_NL[:, six], "bernoulli", {"logits": logits_NL[:, six]})
    of_six = LabelMixture(mixture.mixing_weights_K, mixture.probabilities_KL[:, six])
    LabelPriorFile(LABELS.names, of_six, "scenes").save(str(folder / "prior.safetensors"))
    permuted = tuple(LABELS.names[place] for place in (0, 5, 1, 4, 2, 3))
    LabelPriorFile(permuted, of_six, "scenes, permuted").save(str(folder / "permuted.safetensors"))
    return write_run(folder / "run", holdout), str(folder / "prior.safetensors")


def notes_of(folder: str, *options: str) -> str:
    return "\n".join(json.loads(invoke("calibrate", folder, *options, "--json"))["notes"])


def test_a_wrong_prior_gets_no_strength_and_the_output_tells(tmp_path: Path) -> None:
    folder, path = scenes_run(tmp_path, sees_context=False)
    assert "the label prior prior.safetensors has strength 0.9" in notes_of(folder, "--prior", path, "--method", "identity")
    wrong = notes_of(folder, "--prior", str(tmp_path / "permuted.safetensors"), "--method", "identity")
    assert "permuted.safetensors has strength 0.00: it does not help on holdout and changes next to nothing" in wrong
    assert "permuted.safetensors knows all 6 labels" in wrong


def test_auto_is_the_default_and_tells_which_prior_it_took_and_which_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = {}
    for sees_context in (False, True):
        folder, path = scenes_run(tmp_path / str(sees_context), sees_context=sees_context)
        monkeypatch.setitem(SHIPPED, "scenes", Path(path))
        notes[sees_context] = notes_of(folder)
    took = r"auto chose the label prior scenes: \d\.\d+ nats .* against \d\.\d+ without one; --prior none leaves it out"
    assert re.search(took, notes[False])
    assert "the label prior scenes has strength 0." in notes[False]
    assert "label priors that do not help on holdout, with their strengths: scenes 0.0" in notes[True]
    assert "label prior" not in notes_of(folder, "--prior", "none")


def test_a_prior_that_is_cross_validated_and_left_out_is_named_with_its_nats() -> None:
    choice = Choice(AffineCalibrator("platt", np.ones(1), np.zeros(1)), {"platt": 2.0, "identity": 2.5, "platt + a": 1.999}, "")
    priors = Priors({"a": LabelMixture(np.ones(1), np.full((1, 2), 0.5))}, weak={"b": 0.012})
    assert prior_notes(choice, priors) == [
        "label priors that do not help on holdout, with their strengths: b 0.01",
        "no label prior: 2.000 nats per image of holdout without one, cross-validated; with one, a 1.999: not clearly better",
    ]


def test_label_sets_of_the_run_that_cannot_be_read_are_told_of(tmp_path: Path) -> None:
    facts = {**FACTS, "run": {**FACTS["run"], "data": {"root": str(tmp_path / "gone"), "train_split": "train"}}}
    holdout = replace(predictions(60, "holdout", seed=1), facts={**facts, "split": "holdout"})
    found = notes_of(write_run(tmp_path / "run", holdout, facts=facts))
    assert re.search(r"the run's own label sets were not tried as a label prior: .*gone", found)


def test_auto_fits_its_own_prior_to_so_many_label_sets_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    targets_NL = np.random.default_rng(0).random((50, 3)) < 0.5
    label_sets = LabelSets(("a", "b", "c"), targets_NL, ~targets_NL)
    assert find_priors._some(label_sets)[0] is targets_NL
    monkeypatch.setattr(find_priors, "OWN_AT_MOST", 20)
    some_NL, known_NL = find_priors._some(label_sets)
    assert some_NL.shape == (20, 3)
    assert known_NL is not None
    np.testing.assert_array_equal(some_NL, ~known_NL, "rows of both tables are the same label sets")


def test_auto_leaves_out_a_prior_that_does_not_help() -> None:
    mixture, logits_NL, targets_NL, known_NL = scenes_and_classifier(300, 0, sees_context=True)
    choice = choose_calibrator("bernoulli", {"logits": logits_NL}, targets_NL, known_NL, priors={"true": mixture})
    assert "identity + true" in choice.nll_by_name
    assert choice.calibrator.name == "identity"


def test_auto_takes_a_prior_that_helps() -> None:
    mixture, logits_NL, targets_NL, known_NL = scenes_and_classifier(300, 0, sees_context=False)
    choice = choose_calibrator("bernoulli", {"logits": logits_NL}, targets_NL, known_NL, priors={"true": mixture})
    assert choice.calibrator.name == "identity + true"


@pytest.mark.parametrize("order", [("true", "rough"), ("rough", "true")])
def test_of_two_priors_that_help_the_better_one_is_taken_whatever_their_order(order: tuple[str, str]) -> None:
    mixture, logits_NL, targets_NL, known_NL = scenes_and_classifier(300, 0, sees_context=False)
    rough = LabelMixture(mixture.mixing_weights_K, 0.5 + 0.85 * (mixture.probabilities_KL - 0.5))
    priors = {name: {"true": mixture, "rough": rough}[name] for name in order}
    choice = choose_calibrator("bernoulli", {"logits": logits_NL}, targets_NL, known_NL, priors=priors)
    nll = choice.nll_by_name
    assert abs(nll["identity + true"] - nll["identity + rough"]) < 0.05, "so near that one standard error does not part them"
    assert choice.calibrator.name == min(("identity + true", "identity + rough"), key=lambda name: nll[name])


def test_which_calibrators_are_tried() -> None:
    mixtures = {"coco": LabelMixture(np.ones(1), np.full((1, 2), 0.5))}
    assert Priors().candidates("auto") is None
    assert Priors(mixtures).candidates("platt") == ("platt", "platt + coco")
    assert Priors(mixtures, is_asked=True).candidates("platt") == ("platt + coco",)
    assert Priors(mixtures).candidates("platt + coco") == ("platt + coco",)
    asked = Priors(mixtures, is_asked=True).candidates("auto")
    assert asked is not None
    assert all(name.endswith(" + coco") for name in asked)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ("cocoo", "unknown label prior 'cocoo'; nearest: coco; allowed: auto, none, coco, or the path of a file"),
        ("./none", "no file at ./none"),
    ],
)
def test_a_prior_that_is_not_there_is_named(run: tuple[str, Predictions], prior: str, message: str) -> None:
    result = CliRunner().invoke(app, ["calibrate", run[0], "--prior", prior])
    assert result.exit_code == 1
    assert message in str(result.exception)
