"""Workers: what auto resolves to, and that this machine is counted as Ray counts it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray._private import utils as rays

from rayprob.errors import RunError
from rayprob.runs.spec import Run
from rayprob.train.placing import Workers, count_cpus, place_workers

MakeRun = Callable[..., Run]


@pytest.mark.parametrize(
    ("placement", "resources", "workers"),
    [
        ({}, {"CPU": 8.0}, Workers(1, False, 8)),
        ({}, {"CPU": 16.0, "GPU": 4.0}, Workers(4, True, 3)),
        ({"use_gpu": False, "num_workers": 2}, {"CPU": 8.0, "GPU": 4.0}, Workers(2, False, 4)),
        ({"num_workers": 2, "cpus_per_worker": 5}, {"CPU": 16.0, "GPU": 4.0}, Workers(2, True, 5)),
        ({"num_workers": [2, 4]}, {"CPU": 16.0, "GPU": 2.0}, Workers(4, True, 3, least=2)),
    ],
)
def test_auto_placement_takes_every_gpu_or_else_one_worker(
    make_run: MakeRun, tmp_path: Path, placement: dict[str, Any], resources: dict[str, float], workers: Workers
) -> None:
    run = make_run(tmp_path, placement=placement, stream={"global_batch": 16, "lanes": 4, "loader_workers": 2})
    assert place_workers(run, resources) == workers


def test_auto_on_a_cluster_without_gpus_asks_to_be_explicit(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    with pytest.raises(RunError, match=r"no GPU now \(8 CPUs\).*placement.num_workers=N"):
        place_workers(make_run(tmp_path), {"CPU": 8.0})
    with pytest.raises(RunError, match=r"no GPU now \(8 CPUs\)"):
        place_workers(make_run(tmp_path, placement={"use_gpu": True}), {"CPU": 8.0})
    assert place_workers(make_run(tmp_path, placement={"use_gpu": False}), {"CPU": 8.0}).num_workers == 1
    explicit = make_run(tmp_path, placement={"num_workers": 16, "use_gpu": True, "cpus_per_worker": 4})
    assert place_workers(explicit, {"CPU": 8.0}) == Workers(16, True, 4)


def test_this_machine_has_as_many_cores_as_ray_says() -> None:
    assert count_cpus() == rays.get_num_cpus()


@pytest.mark.parametrize(
    "files",
    [
        {"cpu.max": "250000 100000"},
        {"cpu.max": "max 100000"},
        {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000", "cpuset/cpuset.cpus": "0-1"},
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000", "cpuset/cpuset.cpus": "0-3,6,8-9"},
        {},
    ],
)
def test_a_container_has_as_many_cores_as_ray_says(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_USE_MULTIPROCESSING_CPU_COUNT", raising=False)
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text}\n")
    names = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "cpuset/cpuset.cpus", "cpu.max")
    limit = rays._get_docker_cpus(*(str(tmp_path / name) for name in names))
    assert count_cpus(tmp_path) == (int(limit) if limit else count_cpus(tmp_path / "nothing"))
