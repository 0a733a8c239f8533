"""A worker that lacks a plugin of the run, as on a node where nobody installed it: the run ends at once, in plain words."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rayprob.errors import SpecError
from rayprob.runs.folder import read_failure
from rayprob.runs.spec import Run
from rayprob.sweep import trials
from rayprob.train import child, worker
from tests.apart import apart

__all__ = ["apart"]
pytestmark = pytest.mark.usefixtures("apart")
MakeRun = Callable[..., Run]
ABSENT = r"the run, as node \S+ reads it, has 1 fault:\n  plugins: there is no module gone_parts, a plugin"


@pytest.fixture
def config(make_run: MakeRun, tmp_path: Path) -> dict[str, Any]:
    """What a worker is given of a run with a plugin that is not there."""
    (tmp_path / "run").mkdir()
    described = {**make_run(tmp_path / "run").model_dump(mode="json"), "plugins": ["gone_parts"]}
    return {"run": described, "plugin_folders": [], "workers": {"use_gpu": False, "cpus_per_worker": 1}, "number": 0}


def of_workers(monkeypatch: pytest.MonkeyPatch, world_size: int) -> None:
    context = SimpleNamespace(
        get_world_rank=lambda: 0, get_world_size=lambda: world_size, get_local_world_size=lambda: world_size
    )
    monkeypatch.setattr(worker.ray.train, "get_context", lambda: context)


def test_a_missing_plugin_ends_a_run_of_one_worker(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    of_workers(monkeypatch, 1)
    failure = worker.work(config)["failure"]
    assert failure["kind"] == "SpecError"
    assert failure["message"].startswith("the run, as node ")
    assert "there is no module gone_parts, a plugin" in failure["message"]


def test_a_missing_plugin_ends_the_other_ranks_too_and_the_next_group_at_once(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_workers(monkeypatch, 2)
    with pytest.raises(SpecError, match=ABSENT):
        worker.work(config)
    assert worker.work(config) == {"failure": read_failure(config["run"]["folder"])}


def test_a_missing_plugin_ends_a_run_on_this_machine(config: dict[str, Any]) -> None:
    failure = child.train(config)["failure"]
    assert failure["kind"] == "SpecError"
    assert "there is no module gone_parts, a plugin" in failure["message"]


def test_a_missing_plugin_ends_its_trial(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(trials.tune, "report", told.append)
    trials.work(config, ("mAP",))
    (said,) = told
    assert said["reason"].startswith("SpecError: the run, as node ")
    assert "there is no module gone_parts, a plugin" in said["reason"]
