"""The page without a browser: what it says, that nothing escapes, and what it does with half a run."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import average_precision_score, f1_score
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.errors import MetricError, RunError
from rayprob.report.run.facts import gather
from rayprob.report.run.files import open_run_files
from rayprob.report.run.write import report
from rayprob.runs.predictions import Predictions
from tests.report.page_checks import Page
from tests.report.run_folders import NAMES, write_run


@pytest.fixture(scope="module")
def sigmoid_run(root: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run with sigmoids, evaluated and not calibrated."""
    return write_run(tmp_path_factory.mktemp("runs") / "sigmoid", root)


def notes_of(folder: str) -> str:
    return " ".join(f"{note.text} {note.command}" for note in gather(open_run_files(folder, None)).notes)


def page_of(folder: str, tmp_path: Path, split: str | None = None) -> Page:
    written = report(folder, split, str(tmp_path / "page.html"))
    return Page(Path(written.path).read_text())


def test_links_ids_alternatives_and_policy_hold(mixture_page: str) -> None:
    page = Page(mixture_page)
    assert page.faults() == []
    assert sum(tag == "img" for tag, _ in page.tags) > 20
    assert sum("aria-label" in attributes for tag, attributes in page.tags if tag == "svg") == 11


def test_the_page_names_no_address_and_allows_nothing(mixture_page: str) -> None:
    assert re.findall(r"https?://[^\"' <]+", mixture_page) == []
    policies = [attributes["content"] for _, attributes in Page(mixture_page).tags if "http-equiv" in attributes]
    assert [policy.split(";")[0] for policy in policies] == ["default-src 'none'"]
    assert "unsafe" not in policies[0]
    assert len(mixture_page) < 5_000_000


def test_names_are_text_everywhere(mixture_page: str) -> None:
    page = Page(mixture_page)
    assert "<b>dog</b>" not in mixture_page
    assert "<i>run</i>" not in mixture_page
    for name in NAMES:
        assert name in page.text
    assert not any(tag == "i" for tag, _ in page.tags)
    assert "mathdefault" not in mixture_page


def test_key_numbers_equal_scikit_learn(sigmoid_run: str) -> None:
    facts = gather(open_run_files(sigmoid_run, None))
    predictions = Predictions.read(f"{sigmoid_run}/predictions/val.parquet")
    targets, marginals = predictions.targets_NL, expit(predictions.outputs["logits"])
    row = facts.headline.at_half.numbers
    assert row.mAP == pytest.approx(average_precision_score(targets[:, :-1], marginals[:, :-1], average="macro"), abs=1e-9)
    assert pytest.approx(f1_score(targets.ravel(), marginals.ravel() >= 0.5), abs=1e-9) == row.OF1
    assert [label.name for label in facts.labels.rows if label.ap is None] == ["never there"]
    by_protocol = {row.published.protocol: row.ours for row in facts.headline.published}
    assert by_protocol["ML-GCN"] == pytest.approx(row.mAP, abs=1e-9)
    assert by_protocol["Query2Label"] > row.mAP


def test_the_threshold_is_chosen_on_holdout_and_val_decides_nothing(sigmoid_run: str, root: str, tmp_path: Path) -> None:
    shutil.copytree(sigmoid_run, tmp_path / "other")
    path = tmp_path / "other" / "predictions" / "val.parquet"
    val = Predictions.read(str(path))
    Predictions(
        val.label_space,
        val.sample_ids_N,
        val.targets_NL,
        val.known_NL,
        val.family,
        {"logits": -val.outputs["logits"]},
        val.facts,
    ).write(str(path))
    first, second = (gather(open_run_files(str(folder), None)).judged for folder in (sigmoid_run, tmp_path / "other"))
    assert first.tuned_on == "holdout"
    assert first.tuned_threshold == second.tuned_threshold


def test_expected_co_occurrence_of_the_mixture_equals_a_plain_sum(mixture_run: str) -> None:
    facts = gather(open_run_files(mixture_run, None))
    pairs = facts.co_occurrence
    assert pairs is not None
    assert facts.judged.after is not None
    mixing = softmax(facts.judged.best.log_mixing_BK, axis=1)
    present = expit(facts.judged.best.component_logits_BKL.astype(np.float64))
    a, b = (facts.judged.names.index(name) for name in pairs.names[:2])
    both = (mixing * present[:, :, a] * present[:, :, b]).sum()
    assert pairs.predicted_MM[0, 1] == pytest.approx(both / (mixing * present[:, :, a]).sum(), rel=1e-9)
    truth = facts.judged.targets_NL
    assert pairs.true_MM[0, 1] == pytest.approx((truth[:, a] & truth[:, b]).sum() / truth[:, a].sum())


def test_suspects_are_the_least_probable_annotations(mixture_run: str) -> None:
    facts = gather(open_run_files(mixture_run, None))
    judged, first = facts.judged, facts.images.suspects[0]
    of_truth = np.where(judged.targets_NL, judged.marginals_NL, 1 - judged.marginals_NL)
    row, column = np.unravel_index(of_truth.argmin(), of_truth.shape)
    assert (first.row, first.label) == (row, judged.names[int(column)])
    with_it, without = judged.targets_NL[[row]].copy(), judged.targets_NL[[row]].copy()
    with_it[0, column], without[0, column] = True, False
    both = [float(np.exp(judged.best[[int(row)]].log_prob(sets)[0])) for sets in (with_it, without)]
    assert first.given_rest == pytest.approx(both[0] / sum(both))


def test_worst_images_have_the_least_likelihood_and_answers(mixture_run: str) -> None:
    facts = gather(open_run_files(mixture_run, None))
    assert facts.images.worst[0].nll_nats == facts.judged.nll_N.max()
    queries = [answer.query for answer in facts.images.worst[0].answers]
    assert any(query.startswith("P(count >= ") for query in queries)
    assert any(" | " in query for query in queries)
    assert all(0 <= answer.probability <= 1 for answer in facts.images.worst[0].answers)


def test_a_mixture_has_its_scenes(mixture_page: str) -> None:
    assert 'id="scenes"' in mixture_page


def test_an_uncalibrated_run_says_how_to_calibrate(sigmoid_run: str) -> None:
    assert f"rayprob calibrate {sigmoid_run}" in notes_of(sigmoid_run)


def test_without_val_the_page_is_about_holdout_and_says_so(root: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", root, splits=("holdout",))
    text = notes_of(folder)
    assert "There are no predictions of val, so this page shows holdout" in text
    assert f"rayprob evaluate {folder}" in text


def test_a_moved_dataset_leaves_a_page_without_images(root: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", root)
    path = Path(folder) / "run.yaml"
    path.write_text(path.read_text().replace(root, str(tmp_path / "gone")))
    page = page_of(folder, tmp_path)
    assert page.faults() == []
    assert "no images and no object sizes" in page.text
    assert not any(tag == "img" for tag, _ in page.tags)


def test_a_dataset_built_anew_is_not_shown(root: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", root, dataset_fingerprint="another")
    assert "was rebuilt after the run" in notes_of(folder)


def test_a_damaged_image_costs_its_thumbnail_only(root: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", root)
    shutil.copytree(root, tmp_path / "damaged")
    for shard in (tmp_path / "damaged").glob("val-*.tar"):
        shard.unlink()
    path = Path(folder) / "run.yaml"
    path.write_text(path.read_text().replace(root, str(tmp_path / "damaged")))
    assert "cannot be shown; the first error: cannot open shard" in notes_of(folder)


def test_predictions_of_another_step_are_not_calibrated_by_the_bundle(root: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", root, step=4)
    assert "older than the bundle" in notes_of(folder)


def test_a_run_without_bundle_or_history_still_has_a_page(root: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", root)
    shutil.rmtree(tmp_path / "run" / "bundle")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    page = page_of(folder, tmp_path)
    assert page.faults() == []
    assert "has no bundle yet" in page.text
    assert "no training curves" in page.text


def test_one_sample_is_enough(root: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", root)
    path = f"{folder}/predictions/val.parquet"
    Predictions.read(path).rows(np.arange(1)).write(path)
    assert page_of(folder, tmp_path).faults() == []


def test_a_split_without_positives_has_no_page(root: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", root)
    path = f"{folder}/predictions/val.parquet"
    val = Predictions.read(path)
    Predictions(
        val.label_space, val.sample_ids_N, val.targets_NL & False, val.known_NL, val.family, val.outputs, val.facts
    ).write(path)
    with pytest.raises(MetricError, match=r"none of the 6 labels has a known positive"):
        report(folder)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run folder: it has no run\.yaml"):
        report(str(tmp_path))
    (tmp_path / "run.yaml").write_text("[1, 2")
    with pytest.raises(RunError, match="is not valid YAML: line 1, column 6"):
        report(str(tmp_path))
    (tmp_path / "run.yaml").write_text("- 1")
    with pytest.raises(RunError, match="contains list, not a mapping"):
        report(str(tmp_path))


def test_a_run_without_predictions_is_refused_with_the_command(root: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", root, splits=())
    with pytest.raises(RunError, match=r"no predictions of val or holdout \(found: none\); .*`rayprob evaluate"):
        report(folder)
    folder = write_run(tmp_path / "run", root, splits=("holdout",))
    with pytest.raises(RunError, match=r"no predictions of test \(found: holdout\); .*--split test`"):
        report(folder, "test")


def test_the_verb_writes_beside_the_run_what_the_run_wrote_down(sigmoid_run: str) -> None:
    result = CliRunner().invoke(app, ["report", sigmoid_run])
    assert result.exit_code == 0, result.output
    assert f"{sigmoid_run}/report.html: 48 images of val" in result.output
    page = Page((Path(sigmoid_run) / "report.html").read_text())
    assert page.faults() == []
    assert not any(attributes.get("id") == "scenes" for _, attributes in page.tags)
    text = page.text
    assert "2, resumed at step 4" in text
    assert "The best holdout mAP is 0.600, at step 4; it ended at 0.500." in text
    # 8 steps of 16 images at 16 images a second
    assert "time in training steps 8 s" in text


def test_calibration_notes_are_shown(mixture_run: str) -> None:
    notes = json.loads((Path(mixture_run) / "calibration.json").read_text())["notes"]
    text = Page((Path(mixture_run) / "report.html").read_text()).text
    assert all(" ".join(note.split()) in text for note in notes)


def test_only_a_joint_distribution_has_its_suspects_judged_by_the_other_annotations(
    mixture_page: str, sigmoid_run: str
) -> None:
    assert "given the other annotations" in mixture_page
    assert "given the other annotations" not in Path(report(sigmoid_run, None).path).read_text()
