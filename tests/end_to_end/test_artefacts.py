"""What rayprob 0.1 wrote, in tests/artefacts/0.1, is opened, continued and asked again: by commands only, as its user would.

`tests/artefacts/make.py` says how the files were made. They lay in another folder then, so what a user does who moves such a
folder is done here: the old place is replaced in the run files.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
ARTEFACTS = REPOSITORY / "tests" / "artefacts" / "0.1"
MADE = json.loads((ARTEFACTS / "made.json").read_text())
ASKED = ("--query", "P(cup | dining table)", "--query", "P(person, !car)", "--rule", "label_OF1", "--top", "6")
UNTUNED = ASKED[:4]  # of a bundle that was not calibrated, which has no thresholds
BUNDLES = {"run": ASKED, "mixture": ASKED, "refitted": UNTUNED, "isotonic": ASKED, "with-prior": ASKED}
REFIT = ("--set", "head.name=mixture", "--set", "head.components=2", "--set", "epochs=3", "--set", "global_batch=18")
PLATT = ("--method", "platt", "--objective", "mean_F1", "--precision", "0.5")
SUMS = ("files", "fingerprint")  # of files whose last bits may differ
SENTENCES = ("notes", "reason")
HERE_AND_NOW = ("_s", "data_wait", "pid", "host")  # endings of keys: seconds, and what is true of one machine


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it wrote."""

    code: int
    output: str
    errors: str


@dataclass(frozen=True)
class Place:
    """A copy of the artefacts, in which commands run."""

    folder: Path

    def rayprob(self, *arguments: str) -> str:
        """Run a command in this process and return what it writes; it must end well."""
        said = run_here(self.folder, arguments)
        assert said.code == 0, said.output + said.errors
        return said.output

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]


def run_here(folder: Path, arguments: tuple[str, ...]) -> Said:
    """Run `python -m rayprob` in this process, which saves the seconds that a new one takes to import torch."""
    output, errors, before, code = io.StringIO(), io.StringIO(), (sys.argv, os.getcwd()), 0
    sys.argv = ["rayprob", *arguments]
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            runpy.run_module("rayprob", run_name="__main__")
    except SystemExit as ending:
        code = int(ending.code or 0)
    finally:
        sys.argv, _ = before
        os.chdir(before[1])
    return Said(code, output.getvalue(), errors.getvalue())


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artefacts as they lay in their user's folder, the archive unpacked and the old place replaced."""
    folder = tmp_path_factory.mktemp("moved") / "rayprob"
    shutil.copytree(ARTEFACTS, folder)
    with tarfile.open(folder / "large.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    for path in [*folder.rglob("run.yaml"), *folder.rglob("sweep.yaml")]:
        path.write_text(path.read_text().replace(MADE["made_in"], "."))
    return folder


@pytest.fixture
def place(unpacked: Path, tmp_path: Path) -> Place:
    """A copy of all artefacts that a test may change."""
    return Place(Path(shutil.copytree(unpacked, tmp_path / "copy")))


@pytest.fixture(scope="module")
def kept(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A copy of all artefacts for tests that change nothing."""
    return Place(Path(shutil.copytree(unpacked, tmp_path_factory.mktemp("kept") / "copy")))


def lasting(value: Any, *left_out: str) -> Any:
    """Return a JSON value without the keys that differ each time, and without those left out, at any depth."""
    if isinstance(value, dict):
        kept = {key: part for key, part in value.items() if not key.endswith(HERE_AND_NOW) and key not in left_out}
        return {key: lasting(part, *left_out) for key, part in kept.items()}
    return [lasting(part, *left_out) for part in value] if isinstance(value, list) else value


def require_same(found: Any, recorded: Any, *, within: float = 1e-6, where: str = "") -> None:
    """Assert that a JSON value holds all that was recorded, numbers to a relative or absolute difference.

    Later versions may say more: objects may have more keys.
    """
    assert type(found) is type(recorded) or {type(found), type(recorded)} <= {int, float}, f"{where}: {found} for {recorded}"
    if isinstance(recorded, dict):
        assert recorded.keys() <= found.keys(), f"{where} lacks {recorded.keys() - found.keys()}"
        for key in recorded:
            require_same(found[key], recorded[key], within=within, where=f"{where}.{key}")
    elif isinstance(recorded, list):
        assert len(found) == len(recorded), where
        for place, (ours, theirs) in enumerate(zip(found, recorded, strict=True)):
            require_same(ours, theirs, within=within, where=f"{where}[{place}]")
    elif isinstance(recorded, float) and not math.isnan(recorded):
        assert found == pytest.approx(recorded, rel=within, abs=within), where
    else:
        assert found == recorded or recorded != recorded, where


def require_same_tables(found: Path, recorded: Path) -> None:
    ours, theirs = pq.read_table(found), pq.read_table(recorded)
    types, recorded_types = ({field.name: str(field.type) for field in table.schema} for table in (ours, theirs))
    require_same(types, recorded_types)
    require_same(lasting(ours.to_pylist()), lasting(theirs.to_pylist()))


def processor() -> str:
    """Return 16 hex digits of the processor's model and instructions, on which the last bits of a float depend."""
    path = Path("/proc/cpuinfo")
    first = path.read_text().split("\n\n")[0] if path.exists() else ""
    stated = sorted(re.findall(r"^((?:vendor_id|cpu family|model|model name|stepping|flags)\s*:.*)$", first, re.M))
    return hashlib.sha256("\n".join(stated).encode()).hexdigest()[:16]


def drift() -> float:
    """Return how far the losses of a run may drift from those recorded: not at all on the processor that recorded them."""
    return 0.0 if (version("torch"), processor()) == (MADE["torch"], MADE["processor"]) else 0.01


@pytest.mark.parametrize(
    ("recipe", "target"), [("recipe", "shards"), ("recipe-every-key", "shards"), ("recipe", "shards-in-parts")]
)
def test_a_dataset_is_found_built_and_holds_what_it_held(kept: Place, recipe: str, target: str) -> None:
    said = kept.rayprob("shard", f"{recipe}.yaml", "--set", f"target={target}")
    assert said.startswith(f"already built: {target}")
    assert "every byte is as it was built" in kept.rayprob("verify", target)
    found, recorded = json.loads(kept.rayprob("inspect", target, "--json")), kept.json("answers/inspect.json")
    assert len(found.pop("label_fingerprint")) == 16  # which 0.1 did not print
    require_same({**found, "root": ""}, {**recorded, "root": ""})


def test_the_datasets_differ_in_their_manifests_only(kept: Place) -> None:
    assert (kept.folder / "shards/manifest.parquet").is_file()
    assert len(list((kept.folder / "shards-in-parts/manifest").glob("*.parquet"))) > 2
    assert kept.json("shards/dataset.json")["fingerprint"] == kept.json("shards-in-parts/dataset.json")["fingerprint"]


@pytest.mark.slow
def test_the_scenes_make_the_same_dataset_again(place: Place) -> None:
    size = ("--train", "150", "--val", "50", "--size", "64", "--labels", "6", "--processes", "1")
    place.rayprob("scenes", "drawn", *size)
    for recorded in [*(place.folder / "scenes").rglob("*.jpg"), *(place.folder / "scenes/annotations").glob("*.json")]:
        drawn = place.folder / "drawn" / recorded.relative_to(place.folder / "scenes")
        assert drawn.read_bytes() == recorded.read_bytes()
    place.rayprob("shard", "recipe.yaml", "--set", "target=again")
    require_same_shards(place, "again")


@pytest.mark.slow
def test_a_stopped_build_is_finished(place: Place) -> None:
    assert len(list((place.folder / "shards-stopped").glob("*.tar"))) == 3
    place.rayprob("shard", "recipe.yaml", "--set", "target=shards-stopped")
    require_same_shards(place, "shards-stopped")


def require_same_shards(place: Place, dataset: str) -> None:
    """Assert that a dataset has the fingerprint and the bytes of the recorded one."""
    assert place.json(f"{dataset}/dataset.json")["fingerprint"] == place.json("shards/dataset.json")["fingerprint"]
    recorded = {path.name: path.read_bytes() for path in (place.folder / "shards").glob("*.tar")}
    assert {path.name: path.read_bytes() for path in (place.folder / dataset).glob("*.tar")} == recorded


@pytest.mark.parametrize("file", ["run", "run-every-key", "mixture"])
def test_a_run_file_finds_its_finished_run(kept: Place, file: str) -> None:
    assert "finished at step 24" in kept.rayprob("train", f"{file}.yaml")


@pytest.mark.parametrize("run", ["run", "mixture", "refitted"])
def test_evaluate_gives_the_recorded_numbers_and_predictions(place: Place, unpacked: Path, run: str) -> None:
    require_same(json.loads(place.rayprob("evaluate", run, "--json")), place.json(f"answers/evaluate-{run}.json"))
    require_same_tables(place.folder / run / "predictions/val.parquet", unpacked / run / "predictions/val.parquet")


@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_bundle_gives_the_recorded_answers(kept: Place, bundle: str) -> None:
    recorded = kept.rows(f"answers/predict-{bundle}.jsonl")
    said = kept.rayprob("predict", bundle, *(one["image"] for one in recorded), "--json", *BUNDLES[bundle])
    require_same([json.loads(line) for line in said.splitlines()], recorded)


def test_a_table_of_answers_is_found_there_and_is_written_again_the_same(place: Place) -> None:
    assert "already there" in place.rayprob("predict", "run", "shards", "--parquet", "answers/predict.parquet")
    place.rayprob("predict", "run", "shards", "--parquet", "again.parquet")
    require_same_tables(place.folder / "again.parquet", place.folder / "answers/predict.parquet")


@pytest.mark.parametrize(("run", "options"), [("run", PLATT), ("mixture", ())])
def test_calibrate_fits_again_what_it_fitted(place: Place, unpacked: Path, run: str, options: tuple[str, ...]) -> None:
    place.rayprob("calibrate", run, "--prior", "none", *options)  # 0.1's default
    for file in (f"{run}/calibration.json", f"{run}/bundle/bundle.json"):
        found, recorded = (json.loads((root / file).read_text()) for root in (place.folder, unpacked))
        require_same(lasting(found, *SUMS, *SENTENCES), lasting(recorded, *SUMS, *SENTENCES), within=1e-4)


@pytest.mark.parametrize(
    ("bundle", "options"), [("isotonic", ("--method", "isotonic")), ("with-prior", ("--prior", "prior.safetensors"))]
)
def test_calibrate_makes_the_other_bundles_again(place: Place, bundle: str, options: tuple[str, ...]) -> None:
    place.rayprob("calibrate", "run", *options)
    found, recorded = place.json("run/bundle/bundle.json"), place.json(f"{bundle}/bundle.json")
    assert found["calibrator"] == recorded["calibrator"]
    require_same(lasting(found, *SUMS), lasting(recorded, *SUMS), within=1e-4)


def test_prior_learns_the_same_from_the_same_labels(place: Place) -> None:
    again = json.loads(place.rayprob("prior", "labels.csv", "--output", "again.safetensors", "--components", "2", "--json"))
    require_same(lasting(again, "path"), lasting(place.json("answers/prior.json"), "path"))


def test_a_search_of_thresholds_finds_the_same_winners(place: Place, unpacked: Path) -> None:
    place.rayprob("tune", "thresholds.yaml")
    found, recorded = place.json("run/threshold_search.json"), json.loads((unpacked / "run/threshold_search.json").read_text())
    other = (
        "num_cuts",
        "num_fitted",
        "cuts_elapsed_s",
        "fitted_per_s",
        "command",
        *SENTENCES,
    )  # no longer written, or reworded
    require_same(lasting(found, *other), lasting(recorded, *other), within=1e-4)


@pytest.mark.parametrize("folder", ["run", "mixture", "sweep"])
def test_report_writes_a_page(place: Place, folder: str) -> None:
    place.rayprob("report", folder)
    assert (place.folder / folder / "report.html").read_text().rstrip().endswith("</html>")


def test_refit_finds_itself_and_trains_the_same_head_again(place: Place) -> None:
    assert "already finished" in place.rayprob("refit", "run", "--folder", "refitted", *REFIT)
    place.rayprob("refit", "run", "--folder", "again", *REFIT)
    found, recorded = (place.rows(f"{folder}/metrics.jsonl") for folder in ("again", "refitted"))
    require_same([lasting(row) for row in found], [lasting(row) for row in recorded], within=drift() or 1e-9)


def test_tune_shows_a_finished_sweep_and_changes_nothing(place: Place, unpacked: Path) -> None:
    said = place.rayprob("tune", "sweep.yaml")
    summary = json.loads((unpacked / "sweep/summary.json").read_text())
    best = next(row for row in summary["trials"] if row["number"] == summary["best"])
    assert f"{best['values']['mAP']:.4f}" in said
    assert (place.folder / "sweep/ledger.jsonl").read_bytes() == (unpacked / "sweep/ledger.jsonl").read_bytes()
    require_same_tables(place.folder / "sweep/results.parquet", unpacked / "sweep/results.parquet")
    found, recorded = (yaml.safe_load((root / "sweep/best.yaml").read_text()) for root in (place.folder, unpacked))
    assert lasting(found, "root") == lasting(recorded, "root")


@pytest.mark.slow
def test_a_lost_bundle_is_written_again_from_the_checkpoint(place: Place) -> None:
    recorded = place.json("run/bundle/bundle.json")
    shutil.rmtree(place.folder / "run/bundle")
    assert "finished at step 24" in place.rayprob("train", "run.yaml")
    found = place.json("run/bundle/bundle.json")
    assert found["files"]["weights.safetensors"] == recorded["files"]["weights.safetensors"]
    assert found["label_space"] == recorded["label_space"]


@pytest.mark.slow
@pytest.mark.parametrize("run", ["stopped", "stopped-mixture"])
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(place: Place, run: str) -> None:
    (checkpoint,) = (place.folder / run / "checkpoints").glob("*.json")
    stopped_at = json.loads(checkpoint.read_text())["progress"]
    before = place.rows(f"{run}/metrics.jsonl")
    assert stopped_at["cursor"]["batch"] > 0  # within an epoch
    assert f"finished at step {before[0]['total_steps']}" in place.rayprob("train", f"{run}.yaml")
    rows = place.rows(f"{run}/metrics.jsonl")
    assert rows[: len(before)] == before
    assert rows[len(before)]["kind"] == "start"
    assert rows[len(before)]["step"] == stopped_at["step"]
    undisturbed = place.rows(f"{run}-undisturbed/metrics.jsonl")
    found, recorded = ([lasting(row) for row in part if row["kind"] != "start"] for part in (rows, undisturbed))
    require_same(found, recorded, within=drift())
    require_same_ends(place.folder / run, place.folder / f"{run}-undisturbed")


def require_same_ends(found: Path, recorded: Path) -> None:
    """Assert that two runs ended at the same place of the stream, with predictions of the same samples."""
    last = "checkpoints/step-00000060.json"
    ours, theirs = (json.loads((folder / last).read_text())["progress"] for folder in (found, recorded))
    assert ours["cursor"] == theirs["cursor"]
    ours, theirs = (pq.read_table(folder / "predictions/holdout.parquet").to_pydict() for folder in (found, recorded))
    for column in ("sample_id", "labels", "unknown_labels"):
        assert ours.get(column) == theirs.get(column)


@pytest.mark.slow
def test_export_writes_the_graph_that_it_wrote(place: Place) -> None:
    import onnxruntime

    place.rayprob("export", "run", "--onnx", "again.onnx")
    images = np.random.default_rng(0).integers(0, 256, (2, 80, 60, 3), dtype=np.uint8)
    found, recorded = (
        onnxruntime.InferenceSession(str(place.folder / name), providers=["CPUExecutionProvider"])
        for name in ("again.onnx", "run.onnx")
    )
    inputs = [one.name for one in recorded.get_inputs()]
    assert [one.name for one in found.get_inputs()] == inputs
    names = [one.name for one in recorded.get_outputs()]
    assert [one.name for one in found.get_outputs()] == names
    for ours, theirs in zip(found.run(names, {inputs[0]: images}), recorded.run(names, {inputs[0]: images}), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_with_the_trial_that_was_under_way(place: Place) -> None:
    before = place.rows("stopped-sweep/ledger.jsonl")
    (checkpoint,) = (place.folder / "stopped-sweep/trials/001/checkpoints").glob("*.json")
    command = [sys.executable, "-m", "rayprob", "tune", "stopped-sweep.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=place.folder, env=environment, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert place.rows("stopped-sweep/ledger.jsonl")[: len(before)] == before
    table = pq.read_table(place.folder / "stopped-sweep/results.parquet").to_pylist()
    assert [(row["set.optimizer.lr"], row["state"]) for row in table] == [(lr, "finished") for lr in (0.01, 0.03, 0.1)]
    starts = [row["step"] for row in place.rows("stopped-sweep/trials/001/metrics.jsonl") if row["kind"] == "start"]
    assert starts == [0, json.loads(checkpoint.read_text())["step"]]
    assert len([row for row in place.rows("stopped-sweep/trials/000/metrics.jsonl") if row["kind"] == "start"]) == 1
