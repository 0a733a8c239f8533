"""Systems on the features of a tiny run: the table, its page, and what a second start does."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rayprob.data.manifest.dataset import Dataset
from rayprob.data.tasks import in_process
from rayprob.errors import RunError, SpecError
from rayprob.loader.order import Place
from rayprob.runs.folder import claim
from rayprob.systems import compare
from rayprob.systems.compare import compare_systems
from rayprob.systems.page import render
from rayprob.systems.spec import SystemsFile, open_systems
from rayprob.systems.table import cells_of, chosen_lr
from rayprob.systems.work import TrainedSystem
from rayprob.train.assess import assess
from rayprob.train.loop import fit


@pytest.fixture(scope="module")
def source(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("trained") / "base"
    model = {"backbone": "timm/test_resnet", "pooling": "places7"}
    run = make_run(folder, model=model, duration={"steps": 20}, evaluation={"every": {"steps": 20}, "micro_batch": 20})
    claim(run, Dataset.open(run.data.root))
    fit(run, Place(), torch.device("cpu"))
    return str(folder)


def files(folder: Path, make_run: Any) -> Path:
    """A systems file and three run files in a folder."""
    base = make_run(folder / "unused", model={"backbone": "timm/test_resnet", "pooling": "places7"}).to_yaml()
    (folder / "base.yaml").write_text(re.sub(r"(?m)^(name|folder): .*$", "", base) + "\nname: base\n")
    (folder / "focal.yaml").write_text("# The focal loss. More of it.\nextends: base.yaml\nname: focal\nloss: {name: focal}\n")
    mixture = "extends: base.yaml\nname: joint\nmodel: {head: {name: mixture, components: 3}}\nloss: {name: mixture}\n"
    (folder / "joint.yaml").write_text(mixture)
    (folder / "other.yaml").write_text("extends: base.yaml\nname: other\nmodel: {backbone: resnet18}\n")
    systems = {"files": ["base.yaml", "*.yaml"], "seeds": 2, "lr": [0.003, 0.03], "draws": 50, "refit": {"epochs": 2}}
    written = folder / "of" / "systems.yaml"
    written.parent.mkdir()
    systems["files"] = [f"../{file}" for file in systems["files"]]  # type: ignore[attr-defined]
    written.write_text(json.dumps({"name": "tiny", "folder": str(folder / "out"), "systems": systems}))
    return written


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "as_ray_tasks", lambda wording: in_process)


@pytest.mark.usefixtures("here")
def test_a_table_of_systems_is_made_once(source: str, make_run: Any, tmp_path: Path) -> None:
    file = SystemsFile.read(files(tmp_path, make_run), [f"systems.source={source}"])
    events: list[dict[str, Any]] = []
    compared = compare_systems(file, events.append)
    assert [row.name for row in compared.rows] == ["base", "focal", "joint"]
    assert [one.name for one in compared.left_out] == ["other"]
    assert [event for event in events if event["kind"] == "plan"] == [{"kind": "plan", "systems": 3, "tasks": 15}]
    assert sum(event["kind"] == "done" for event in events) == 15
    base, focal, joint = compared.rows
    assert (base.cells["mAP"].difference, base.cells["mAP"].p_value) == (None, None)
    assert focal.description == "The focal loss"
    assert set(joint.tried) == {"0.003", "0.03"}
    for row in compared.rows:
        cell = row.cells["mAP"]
        assert len(cell.by_seed) == 2
        assert cell.low <= cell.high
        assert cell.value == pytest.approx(np.mean(cell.by_seed))
        run = f"{tmp_path}/out/{row.name}/lr-{row.lr:g}-seed-1"
        # Raw scores, as no prior was asked for.
        assert assess(run, "val").at_half.mAP == pytest.approx(cell.by_seed[1], abs=1e-6)
    page = render(compared)
    assert "left out" in page
    assert all(row.name in page for row in compared.rows)
    assert compare_systems(file).rows == compared.rows


@pytest.mark.usefixtures("here")
def test_a_folder_keeps_to_one_way_of_training(source: str, make_run: Any, tmp_path: Path) -> None:
    path, few = files(tmp_path, make_run), [f"systems.source={source}", "systems.files=[../base.yaml]", "systems.lr=[0.01]"]
    compare_systems(SystemsFile.read(path, few))
    with pytest.raises(RunError, match="trained otherwise"):
        compare_systems(SystemsFile.read(path, [*few, "systems.refit.epochs=1"]))


def test_files_that_do_not_fit_are_named(make_run: Any, tmp_path: Path) -> None:
    path = files(tmp_path, make_run)
    with pytest.raises(SpecError, match=r"no file matches .*nothing\*\.yaml"):
        open_systems(SystemsFile.read(path, ["systems.files=[nothing*.yaml]"]).systems)
    (tmp_path / "twice.yaml").write_text("extends: base.yaml\n")
    with pytest.raises(SpecError, match=r"twice\.yaml and .*base\.yaml have the name base"):
        open_systems(SystemsFile.read(path).systems)


def numbers(*values: float, noise: float = 0.0) -> list[dict[str, Any]]:
    """One number per seed; its draws are the value plus the same noise for all systems."""
    drawn = np.random.default_rng(0).normal(scale=noise, size=200)
    return [{"mAP": {"value": value, "draws": list(value + drawn)}} for value in values]


def test_differences_are_paired_over_images_and_not_over_seeds() -> None:
    judged = {"a": numbers(0.50, 0.52, noise=0.05), "b": numbers(0.60, 0.62, noise=0.05), "c": numbers(0.44, 0.59, noise=0.05)}
    cells = cells_of(judged, num_images=10, seed=0)
    clear, unclear = cells["b"]["mAP"], cells["c"]["mAP"]
    assert clear.difference is not None
    assert unclear.difference is not None
    # The noise of images cancels, that of seeds does not: b is above a for any choice of seeds, c is not.
    assert clear.difference.low == pytest.approx(0.08)
    assert clear.difference.high == pytest.approx(0.12)
    assert (clear.is_clear, unclear.is_clear) == (True, False)


def test_the_smaller_of_equally_good_learning_rates_is_chosen() -> None:
    runs = [TrainedSystem("a", lr, 0, value, 1, 1.0) for lr, value in ((0.1, 0.7), (0.01, 0.7), (0.001, 0.6))]
    assert chosen_lr(runs) == 0.01
