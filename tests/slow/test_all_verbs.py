"""Every verb by the command line on tiny data, each on what the one before left."""

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from tests.end_to_end.verbs import here, write_files

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Place:
    """The folder that all verbs work in."""

    folder: Path

    def rayprob(self, *arguments: str) -> str:
        """Return what a command writes to standard output; it must succeed, and write no traceback anywhere."""
        done = subprocess.run(
            [sys.executable, "-m", "rayprob", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout

    def image(self, number: int) -> str:
        return f"scenes/val2014/COCO_val2014_{number:012d}.jpg"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder with the four files of a user, and nothing built."""
    place = Place(tmp_path_factory.mktemp("verbs"))
    write_files(place.folder)
    return place


@pytest.fixture(scope="module")
def drawn(place: Place) -> str:
    return place.rayprob(
        "scenes", "scenes", "--train", "120", "--val", "40", "--size", "64", "--labels", "6", "--processes", "1"
    )


@pytest.fixture(scope="module")
def built(place: Place, drawn: str) -> str:
    return place.rayprob("shard", "recipe.yaml")


@pytest.fixture(scope="module")
def trained(place: Place, built: str) -> str:
    return place.rayprob("train", "run.yaml")


@pytest.fixture(scope="module")
def calibrated(place: Place, trained: str) -> str:
    return place.rayprob("calibrate", "run")


def numbers(value: Any) -> list[float]:
    """Return every number below a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for one in value for number in numbers(one)]
    return [value] if isinstance(value, (int, float)) else []


def test_scenes(place: Place, drawn: str) -> None:
    assert "drew 160 images" in drawn
    assert len(list((place.folder / "scenes").glob("*2014/*.jpg"))) == 160


def test_shard(place: Place, built: str) -> None:
    assert "122 images (train 64, holdout 30, val 28) in 8 shards" in built
    assert "already built" in place.rayprob("shard", "recipe.yaml")


def test_verify_and_inspect(place: Place, built: str) -> None:
    place.rayprob("verify", "shards")
    facts = json.loads(place.rayprob("inspect", "shards", "--json"))
    assert {split["split"]: split["samples"] for split in facts["splits"]} == {"train": 64, "holdout": 30, "val": 28}
    assert len(facts["labels"]) == 6


def test_train(place: Place, trained: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "finished at step 8" in trained
    rows = [json.loads(line) for line in (place.folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "evaluation"] == [4, 8]
    assert all(map(math.isfinite, numbers([row["loss"] for row in rows if row["kind"] == "step"])))
    assert (place.folder / "run" / "bundle" / "bundle.json").is_file()
    said = here(place.folder, monkeypatch, capsys, "train", "run.yaml")
    assert (said.code, "finished" in said.output) == (0, True)


def test_evaluate(place: Place, trained: str) -> None:
    said = json.loads(place.rayprob("evaluate", "run", "--json"))
    assert (said["split"], said["num_samples"]) == ("val", 28)
    assert 0 < said["at_half"]["mAP"] <= 1
    assert all(map(math.isfinite, numbers(said)))


def test_calibrate(place: Place, calibrated: str) -> None:
    assert "written:" in calibrated
    assert numbers(json.loads((place.folder / "run" / "calibration.json").read_text()))


def test_predict_as_json_with_a_figure_for_each_image(place: Place, calibrated: str) -> None:
    asked = ("--json", "--figure", "figures", "--query", "P(cup | dining table)", "--rule", "label_OF1")
    said = [json.loads(line) for line in place.rayprob("predict", "run", *map(place.image, (125, 126)), *asked).splitlines()]
    assert [one["image"] for one in said] == [place.image(125), place.image(126)]
    assert all(0 < label["marginal"] < 1 for one in said for label in one["labels"])
    assert all(set(one["label_set"]) <= {"person", "car", "bottle", "cup", "chair", "dining table"} for one in said)
    figures = sorted((place.folder / "figures").iterdir())
    assert len(figures) == 2
    assert all(Image.open(path).width > 100 for path in figures)


def test_predict_as_a_table(
    place: Place, calibrated: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.rayprob("predict", "run", "shards", "--parquet", "val.parquet")
    table = pq.read_table(place.folder / "val.parquet")
    assert table.num_rows == 28
    marginals = [number for row in table["marginals"].to_pylist() for number in numbers(row)]
    assert len(marginals) == 28 * 6
    assert all(0 <= number <= 1 for number in marginals)
    said = here(place.folder, monkeypatch, capsys, "predict", "run", "shards", "--parquet", "val.parquet")
    assert (said.code, "already there" in said.output) == (0, True)


def test_export(place: Place, calibrated: str) -> None:
    import onnxruntime

    place.rayprob("export", "run", "--onnx", "run.onnx")
    session = onnxruntime.InferenceSession(str(place.folder / "run.onnx"), providers=["CPUExecutionProvider"])
    assert "marginals" in [output.name for output in session.get_outputs()]


def test_report(place: Place, calibrated: str) -> None:
    place.rayprob("report", "run")
    page = (place.folder / "run" / "report.html").read_text()
    assert page.rstrip().endswith("</html>")
    assert "dining table" in page


def test_refit(place: Place, calibrated: str) -> None:
    options = ("head.name=mixture", "head.components=2", "epochs=2")
    place.rayprob("refit", "run", "--folder", "refitted", *(part for option in options for part in ("--set", option)))
    bundle = json.loads((place.folder / "refitted" / "bundle" / "bundle.json").read_text())
    assert "mixture" in json.dumps(bundle)


def test_tune_searches_and_says_that_it_has_finished(
    place: Place, built: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.rayprob("tune", "sweep.yaml")
    table = pq.read_table(place.folder / "sweep" / "results.parquet").to_pylist()
    assert [row["state"] for row in table] == ["finished"] * 2
    assert all(0 < row["mAP"] <= 1 for row in table)
    assert yaml.safe_load((place.folder / "sweep" / "best.yaml").read_text())["optimizer"]["lr"] in (1e-3, 1e-2)
    assert (place.folder / "sweep" / "report.html").is_file()
    ledger = (place.folder / "sweep" / "ledger.jsonl").read_bytes()
    assert here(place.folder, monkeypatch, capsys, "tune", "sweep.yaml").code == 0
    assert (place.folder / "sweep" / "ledger.jsonl").read_bytes() == ledger


def test_tune_of_thresholds(place: Place, trained: str) -> None:
    place.rayprob("tune", "thresholds.yaml")
    assert numbers(json.loads((place.folder / "run" / "threshold_search.json").read_text()))
    assert pq.read_table(place.folder / "run" / "threshold_search.parquet").num_rows > 10


def test_lr_find(place: Place, built: str) -> None:
    said = json.loads(place.rayprob("lr-find", "run.yaml", "--steps", "20", "--json"))
    assert all(map(math.isfinite, numbers(said)))
    assert Image.open(place.folder / "lr-find-tiny.png").width > 100


def test_doctor(place: Place) -> None:
    said = json.loads(place.rayprob("doctor", "--json"))
    assert said["is_fit"]
    assert {"python", "ray"} <= {finding["check"] for finding in said["findings"]}
