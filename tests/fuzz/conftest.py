"""The world that is fuzzed, made once, and verbs that stop where Ray or a cluster would begin."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from rayprob.data.building.build import in_process
from rayprob.errors import RunError
from rayprob.loader.order import Place
from rayprob.runs.spec import Run
from rayprob.train import launch
from rayprob.train.job import prepare
from rayprob.train.loop import Outcome
from tests.fuzz.world import World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Everything that verbs read."""
    return make_world(tmp_path_factory.mktemp("fuzz") / "world")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Shards are written here, a run is only made ready, a sweep trains nothing, no address answers, and home is elsewhere."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("rayprob.data.building.build.on_ray", lambda: in_process)
    monkeypatch.setattr(launch, "ray_cluster", _four_cpus)
    monkeypatch.setattr(launch, "_follow", _made_ready)
    monkeypatch.setattr("rayprob.sweep.tune.ray_cluster", _none)
    monkeypatch.setattr("socket.getaddrinfo", _no_host)
    monkeypatch.setattr("rayprob.cluster.ANSWER_S", 0.0)


@contextmanager
def _four_cpus(*_: Any, **__: Any) -> Iterator[dict[str, float]]:
    yield {"CPU": 4.0}


def _made_ready(run: Run, *_: Any) -> Outcome:
    """Do what a worker does before its first step: build every part, and take over the last checkpoint."""
    job = prepare(run, Place(), torch.device("cpu"))
    if job.history:
        job.history.close()
    return Outcome("stopped", job.state.progress.step, job.total_steps, None, None)


def _no_host(*_: Any, **__: Any) -> Any:
    raise socket.gaierror("there is no network in these tests")


def _none(*_: Any, **__: Any) -> Any:
    raise RunError("there is no cluster in these tests")
