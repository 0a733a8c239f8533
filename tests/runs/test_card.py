"""A bundle's card tells what its run's files hold, keeps up with them, and changes nothing of the bundle."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from rayprob.calibrate.crossfit import CalibrateSpec
from rayprob.calibrate.fitting import calibrate
from rayprob.config import strict_yaml
from rayprob.errors import BundleError, SpecError
from rayprob.labels import LabelSpace
from rayprob.runs.bundle import Bundle, bundle_fingerprint
from rayprob.runs.card import carded, read_card, write_card
from rayprob.runs.card.page import page_of
from rayprob.runs.spec import Run, identity
from tests.calibrate.calibrated_run import bundle, predictions, write_run
from tests.train.conftest import MakeRun

SHARED = CalibrateSpec(method="shared_platt", prior="none")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A calibrated run with predictions of holdout and val."""
    folder = write_run(tmp_path_factory.mktemp("card"), predictions(150, "holdout", seed=1), predictions(120, "val", seed=2))
    calibrate(folder, SHARED)
    return folder


def entry(card: dict[str, Any], split: str) -> dict[str, Any]:
    return next(one for one in card["numbers"] if one["split"] == split)


def values(one: dict[str, Any]) -> dict[str, float]:
    return {name: number["value"] for name, number in one["metrics"].items()}


def test_the_numbers_of_val_are_those_of_the_calibrated_bundle(calibrated: str) -> None:
    card, made, val = read_card(calibrated), Bundle.load(f"{calibrated}/bundle"), predictions(120, "val", seed=2)
    told = entry(card, "val")
    assert (told["num_samples"], told["is_calibrated"], told["rule"]) == (120, True, "label_OF1")
    distribution = made.distribution(val.outputs)
    sets_NL = made.label_sets(distribution, "label_OF1")
    assert values(told)["mAP"] == pytest.approx(average_precision_score(val.targets_NL, val.outputs["logits"], average="macro"))
    assert values(told)["OF1"] == pytest.approx(f1_score(val.targets_NL, sets_NL, average="micro"))
    assert values(told)["NLL"] == pytest.approx(-distribution.log_prob(val.targets_NL, val.known_NL).mean())
    told["metrics"].pop("ECE")  # images drawn twice raise it
    for number in told["metrics"].values():
        assert number["low"] < number["value"] < number["high"]


def test_the_numbers_of_holdout_are_those_before_calibration_which_is_fitted_there(calibrated: str) -> None:
    told = entry(read_card(calibrated), "holdout")
    assert (told["role"], told["is_calibrated"], told["rule"]) == ("the run chose its checkpoint on it", False, "0.5")
    recorded = json.loads(Path(calibrated, "calibration.json").read_text())
    assert values(told)["ECE"] == pytest.approx(recorded["holdout"]["before"]["ECE"])


def test_calibration_and_guarantees_are_told_as_they_were_measured(calibrated: str) -> None:
    card, recorded = read_card(calibrated), json.loads(Path(calibrated, "calibration.json").read_text())
    assert card["calibration"]["method"] == "shared_platt"
    told = {one["split"]: one["ECE"] for one in card["calibration"]["measured"]}
    for split, name in (("holdout", "holdout"), ("val", "reported")):
        assert told[split] == [recorded[name]["before"]["ECE"], recorded[name]["after"]["ECE"]]
    promised = {rule["name"]: rule["guarantee"] for rule in card["rules"]}
    assert promised["recall@0.1"].startswith("misses at most 10 % of an image's labels on average")
    assert promised["label_OF1"] is None
    assert any("exchangeable" in limit for limit in card["limits"])


def test_a_card_changes_neither_the_bundle_nor_its_fingerprint(tmp_path: Path) -> None:
    folder = write_run(tmp_path, predictions(40, "holdout", seed=1))
    before, description = bundle_fingerprint(f"{folder}/bundle"), Path(folder, "bundle/bundle.json").read_bytes()
    write_card(folder, Bundle.load(f"{folder}/bundle"))
    assert sorted(os.listdir(tmp_path / "bundle")) == ["bundle.json", "card.json", "card.md", "weights.safetensors"]
    assert (bundle_fingerprint(f"{folder}/bundle"), Path(folder, "bundle/bundle.json").read_bytes()) == (before, description)


def test_a_bundle_without_a_card_is_told_from_its_own_facts(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    card = read_card(f"{folder}/bundle")
    assert (card["name"], card["numbers"], card["calibration"]) == ("tiny", [], None)
    assert card["limits"][0] == "Not evaluated: this card has no numbers."
    assert not Path(folder, "bundle", "card.json").exists()


def test_the_card_of_another_bundle_is_not_believed(calibrated: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    (tmp_path / "bundle" / "card.json").write_bytes(Path(calibrated, "bundle", "card.json").read_bytes())
    assert read_card(folder)["numbers"] == []


def test_a_damaged_card_is_replaced(tmp_path: Path) -> None:
    folder = write_run(tmp_path, predictions(40, "holdout", seed=1))
    (tmp_path / "bundle" / "card.json").write_text('{"bundle": 3')
    assert read_card(f"{folder}/bundle")["numbers"] == []
    assert [one["split"] for one in read_card(folder)["numbers"]] == ["holdout"]  # from the run's files
    write_card(folder, Bundle.load(f"{folder}/bundle"))
    assert [one["split"] for one in read_card(folder)["numbers"]] == ["holdout"]


def test_without_a_bundle_there_is_no_card(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle at"):
        read_card(str(tmp_path))


def test_predictions_of_another_bundle_are_left_out_and_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path, predictions(40, "holdout", seed=1), predictions(30, "val", seed=2, step=11))
    write_card(folder, Bundle.load(f"{folder}/bundle"))
    card = read_card(folder)
    assert [one["split"] for one in card["numbers"]] == ["holdout"]
    assert (
        "The predictions of val are not those of this bundle (step 11, the bundle's 12), so they are not judged."
        in card["limits"]
    )


def test_a_split_without_a_positive_has_no_numbers(tmp_path: Path) -> None:
    val = predictions(30, "val", seed=2)
    folder = write_run(tmp_path, replace(val, targets_NL=np.zeros_like(val.targets_NL)))
    write_card(folder, Bundle.load(f"{folder}/bundle"))
    assert entry(read_card(folder), "val")["metrics"] == {}
    assert "## Numbers" not in Path(folder, "bundle", "card.md").read_text()


@pytest.mark.parametrize("spelled", ["Apache-2.0", "our own terms"])
def test_what_people_state_is_told_and_the_rest_is_not_stated(tmp_path: Path, spelled: str) -> None:
    folder = write_run(tmp_path)
    stated = {"weights_license": spelled, "authors": ["Ada", "Bo"], "out_of_scope": "faces | people"}
    (tmp_path / "run.yaml").write_text(strict_yaml.dump({"card": stated}))  # changed after training
    write_card(folder, Bundle.load(f"{folder}/bundle"))
    page = (tmp_path / "bundle" / "card.md").read_text()
    front, shown = strict_yaml.load(page.split("---\n")[1], "the front matter"), page.split("---\n", 2)[2]
    is_known = spelled == "Apache-2.0"
    assert (front["license"], front.get("license_name")) == (("apache-2.0", None) if is_known else ("other", spelled))
    assert "| authors | Ada, Bo |" in shown
    assert r"| out of scope | faces \| people |" in shown
    assert "| license of the data | not stated |" in shown


def test_an_unknown_statement_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    (tmp_path / "run.yaml").write_text("card: {licence: mit}")
    with pytest.raises(SpecError, match=r"run.yaml has 1 fault:\n.*card.licence"):
        write_card(folder, Bundle.load(f"{folder}/bundle"))


def test_the_front_matter_is_what_hugging_face_reads(calibrated: str) -> None:
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard(Path(calibrated, "bundle", "card.md").read_text()).data
    assert (data.license, data.pipeline_tag, data.library_name) == ("unknown", "image-classification", "rayprob")
    found = {(one.dataset_split, one.metric_type): one.metric_value for one in data.eval_results}
    assert found["val", "mAP"] == pytest.approx(values(entry(read_card(calibrated), "val"))["mAP"], abs=1e-4)
    assert len(found) == 10


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    names = ("<b>x</b>", "a|b", "[y](http://z)", "line\nend", "`code`", "pig")
    space = LabelSpace(names, (1, 2, 3, 4, 5, 6))
    folder = write_run(tmp_path, label_space=space)
    page = page_of(read_card(folder))
    assert r"| \<b\>x\</b\> | - | - |" in page
    assert r"| a\|b | - | - |" in page
    assert "http://z" in page
    assert "](http" not in page.replace(r"\]", "")
    assert "line\\\\nend" in page


def test_what_is_known_of_the_dataset_outlives_it(tmp_path: Path) -> None:
    folder, made = write_run(tmp_path), bundle()
    made = replace(made, facts={**made.facts, "dataset_fingerprint": "beef"})
    made.save(f"{folder}/bundle")
    write_card(folder, made)
    path = tmp_path / "bundle" / "card.json"
    card = json.loads(path.read_text())
    card["data"] |= {"name": "pets", "splits": {"train": 5}}
    path.write_text(json.dumps(card))
    with carded(folder, made):
        made.save(f"{folder}/bundle")
    assert read_card(folder)["data"]["name"] == "pets"
    grown = replace(made, facts={**made.facts, "dataset_fingerprint": "cafe"})
    with carded(folder, grown):
        grown.save(f"{folder}/bundle")
    assert read_card(folder)["data"]["name"] is None


def test_statements_change_neither_the_identity_of_a_run_nor_old_run_files(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    stated = Run.parse({**run.model_dump(mode="json"), "card": {"weights_license": "mit"}})
    assert identity(stated) == identity(run)
    assert "card" not in run.model_dump(mode="json")
    assert stated.model_dump(mode="json")["card"]["weights_license"] == "mit"
