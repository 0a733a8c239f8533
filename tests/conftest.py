"""Shared fixtures: where ../shared lies, one small Ray for tests in a row, and which files share a worker of pytest-xdist."""

import operator
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.environment import isolate

# The workers of pytest-xdist inherit what the process that starts them has made.
RAYS_FOLDER = isolate() if "PYTEST_XDIST_WORKER" not in os.environ else None

# A suite started in the background ignores Ctrl-C, and all that it starts would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Two runs of the suite draw the same examples, on a busy machine too; --hypothesis-profile=default draws new ones.
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")

SHARED = Path(__file__).resolve().parents[2] / "shared"
# What starts Ray, and in which of two queues it waits its turn: these tests wait for Ray more than they compute.
RAY = {
    "train/test_launch.py": "ray-1",
    "sweep/test_tune.py": "ray-2",
    "predict/test_on_ray.py": "ray-1",
    "data/building/test_build_elsewhere.py": "ray-1",
    "cluster/test_doctor_and_submit.py": "ray-2",
    "cluster/test_ports.py": "ray-1",
    "serve/test_on_ray.py": "ray-2",
}
# The files that take longest start first; the short ones fill up the other workers.
FIRST = (*RAY, "train/test_here.py", "train/test_loop.py", "fuzz/test_fuzz.py", "models/test_backbones.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Share a run of whole folders among up to four workers; what is asked for by file runs in this process."""
    is_of_folders = all(Path(argument).is_dir() for argument in config.args)
    return min(4, 2 * (os.cpu_count() or 1)) if is_of_folders else 0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep a file in one worker, which makes its fixtures once, and the files that start Ray in two, each in its turn."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # xdist's own groups have no effect under pytest 9.2, which makes node ids otherwise
        def _split_scope(self, nodeid: str) -> str:
            return RAY.get(_file(nodeid), _file(nodeid))

    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is only for those who ask for it by name, and put the longest files first."""
    for marker in ("rehearsal", "fuzz", "slow"):
        if marker not in config.option.markexpr:
            items[:] = [item for item in items if item.get_closest_marker(marker) is None]
    items.sort(key=lambda item: FIRST.index(_file(item.nodeid)) if _file(item.nodeid) in FIRST else len(FIRST))


def _file(nodeid: str) -> str:
    return nodeid.split("::")[0].removeprefix("tests/")


@pytest.fixture
def ray_here() -> None:
    """One small Ray in this process, for all tests that follow one another and ask for it."""
    import ray

    quiet = {"include_dashboard": False, "logging_level": "ERROR", "log_to_driver": False}
    for attempts_left in (4, 3, 2, 1, 0):
        if ray.is_initialized():
            return
        try:
            ray.init(address="local", num_cpus=2, object_store_memory=200 * 2**20, **quiet)
        except Exception:  # a bare Exception is what Ray raises where the machine is too busy to start it within 30 s
            ray.shutdown()
            if not attempts_left:
                raise


def stop_ray() -> None:
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        sys.modules["ray"].shutdown()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that does not ask for Ray finds none in its process; and random numbers are the same whatever ran before it."""
    if "ray_here" not in getattr(item, "fixturenames", ()):
        stop_ray()
    random.seed(0)
    for name, seed in (("numpy", "random.seed"), ("torch", "manual_seed")):
        if name in sys.modules:
            operator.attrgetter(seed)(sys.modules[name])(0)


def pytest_unconfigure() -> None:
    stop_ray()
    if RAYS_FOLDER:
        shutil.rmtree(RAYS_FOLDER, ignore_errors=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ../shared; tests that need it are skipped where it is absent."""
    if not (SHARED / "coco-sample").is_dir():
        pytest.skip(f"needs the shared material at {SHARED}, which is absent here")
    return SHARED
