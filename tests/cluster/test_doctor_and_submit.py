"""`rayprob doctor --cluster` and `rayprob submit` on a cluster of two nodes, both on this machine."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.submit.on_ray import Jobs
from tests.servers import free_port

# Port 0: any that is free, also beside another Ray on this machine.
SMALL = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "dashboard_agent_listen_port": 0}
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class TwoNodes:
    """Where a cluster is joined, and where its job server listens."""

    address: str
    job_server: str


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[TwoNodes]:
    from ray.cluster_utils import Cluster

    port = free_port()
    cluster = Cluster()
    patch = pytest.MonkeyPatch()
    patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")  # a job's python is the first in PATH
    try:
        cluster.add_node(**SMALL, include_dashboard=True, dashboard_port=port)
        cluster.add_node(**SMALL)
        yield TwoNodes(cluster.address, f"http://127.0.0.1:{port}")
    finally:
        cluster.shutdown()
        patch.undo()


@pytest.mark.slow
@pytest.mark.ray
def test_the_doctor_looks_at_every_node(two_nodes: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", two_nodes.address)
    monkeypatch.setattr("rayprob.doctor.facts.DISK_PROBE_BYTES", 2**20)
    asked = ("--storage", str(tmp_path), "--storage", str(tmp_path / "none"), "--cache-dir", str(tmp_path))
    result = CliRunner().invoke(app, ["doctor", "--cluster", "--json", *asked])
    said = json.loads(result.stdout)
    found = {finding["check"]: finding for finding in said["findings"]}
    assert len(said["facts"]["nodes"]) == 2
    assert {found[check]["where"] for check in ("nodes", "ray", "rayprob", "clocks", "all-reduce")} == {"all 2 nodes"}
    assert {found[check]["level"] for check in ("nodes", "ray", "rayprob", "clocks")} == {"ok"}
    assert "gloo, 2 ranks" in found["all-reduce"]["found"]
    assert found[f"storage {tmp_path}"]["level"] == "ok"
    assert found[f"storage {tmp_path / 'none'}"]["level"] == "fault"
    assert result.exit_code == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_is_submitted_and_its_end_is_the_exit_code(two_nodes: TwoNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    there = ("--set", "folder=/nowhere/run", "--set", "data.root=/nowhere/shards", "--address", two_nodes.job_server)
    result = CliRunner().invoke(app, ["submit", "tune_configs/demo.yaml", *there, "--id", "demo-1"])
    assert "submitted demo-1" in result.stderr
    assert "/nowhere/shards/dataset.json; check the path" in result.stdout
    assert "INFO" not in result.stderr
    assert "demo-1 failed: Job entrypoint command failed with exit code 1" in result.stderr
    assert result.exit_code == 1
    again = CliRunner().invoke(app, ["submit", "--attach", "demo-1", "--address", two_nodes.job_server])
    assert (again.exit_code, again.stdout) == (1, result.stdout)


@pytest.mark.slow
@pytest.mark.ray
def test_a_job_has_its_variables_and_can_be_stopped(two_nodes: TwoNodes, tmp_path: Path) -> None:
    jobs = Jobs(two_nodes.job_server)
    jobs.submit("echo hello $WORD; sleep 600", str(tmp_path), "sleeper", {"WORD": "cluster"})
    stopped = CliRunner().invoke(app, ["submit", "--stop", "sleeper", "--address", two_nodes.job_server])
    assert "sleeper asked to stop" in stopped.stderr
    ended = CliRunner().invoke(app, ["submit", "--attach", "sleeper", "--address", two_nodes.job_server])
    assert ended.exit_code == 130
    assert "sleeper stopped" in ended.stderr
