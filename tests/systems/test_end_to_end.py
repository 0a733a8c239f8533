"""Systems that are trained end to end, each run file as it is: learning rates, numbers, and a run that is stopped."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rayprob.errors import SpecError
from rayprob.loader.order import Place
from rayprob.runs.folder import claim
from rayprob.runs.spec import Run
from rayprob.systems import work
from rayprob.systems.compare import compare_systems
from rayprob.systems.page import render
from rayprob.systems.spec import SystemsFile, SystemsSpec
from rayprob.train.assess import assess
from rayprob.train.loop import Outcome, finished_outcome, fit


def fitted(run: Run) -> Outcome:
    """Train in this process, which saves the seconds that a new one takes to import torch."""
    if claim(run, run.data.open()).is_finished:
        return finished_outcome(run)
    return fit(run, Place(), torch.device("cpu"))


@pytest.fixture
def file(make_run: Any, tmp_path: Path) -> SystemsFile:
    """Two run files with their own learning rates, and a systems file that trains both end to end."""
    changes = {"model": {"backbone": "timm/test_resnet"}, "ema": None, "duration": {"steps": 6}}
    for name, lr in (("a", 0.001), ("b", 0.01)):
        run = make_run(tmp_path / "unused", **changes, optimizer={"name": "adamw", "lr": lr}).model_dump(mode="json")
        (tmp_path / f"{name}.yaml").write_text(json.dumps({**run, "name": name, "folder": None}))
    systems = {"files": ["a.yaml", "b.yaml"], "source": None, "lr": None, "seeds": 2, "draws": 20}
    (tmp_path / "systems.yaml").write_text(json.dumps({"folder": str(tmp_path / "out"), "systems": systems}))
    return SystemsFile.read(tmp_path / "systems.yaml")


def test_each_run_file_is_trained_at_its_own_rate(file: SystemsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[str, float, int]] = []

    def launch(run: Run) -> Outcome:
        trained.append((run.name, run.optimizer.lr, run.seed))
        return fitted(run)

    monkeypatch.setattr(work, "launch", launch)
    compared = compare_systems(file)
    assert trained == [("a", 0.001, 0), ("b", 0.01, 0), ("a", 0.001, 1), ("b", 0.01, 1)]
    for row in compared.rows:
        run = f"{file.folder_of_all}/{row.name}/lr-{row.lr:g}-seed-1"
        assert assess(run, "val").at_half.mAP == pytest.approx(row.cells["mAP"].by_seed[1], abs=1e-6)
        assert row.parameters > 1000
        assert row.images_per_s > 0
    assert "the learning rate of its run file" in render(compared)


def test_a_stopped_run_ends_the_comparison_and_is_not_taken_for_a_finished_one(
    file: SystemsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "launch", lambda run: Outcome("stopped", 3, 12, None, None))
    with pytest.raises(KeyboardInterrupt):
        compare_systems(file)
    assert not (Path(file.folder_of_all) / "results.json").exists()


def test_the_rate_of_a_run_file_is_not_for_a_head_alone() -> None:
    with pytest.raises(SpecError, match="lr: null needs source: null"):
        SystemsSpec.parse({"files": ["a.yaml"], "source": "runs/a", "lr": None}, where="systems")
