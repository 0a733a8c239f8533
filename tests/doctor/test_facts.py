"""One machine looked at: its GPUs, memory, disk, the storage that it reaches, and the verb that shows them."""

import json
import os
import platform
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from rich.console import Console
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.doctor.all_reduce import all_reduce, free_address
from rayprob.doctor.facts import available_memory_bytes, code_fingerprint, measure_disk, read_gpus
from rayprob.doctor.storage_probe import probe_folder, read_probe, remove_probe, write_probe
from rayprob.errors import RunError


def test_gpus_are_what_nvidia_smi_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '580.65.06, NVIDIA A10G\\n580.65.06, NVIDIA A10G\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert read_gpus() == ("580.65.06", ("NVIDIA A10G", "NVIDIA A10G"))
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    assert read_gpus() == (None, ())


def test_a_containers_limit_bounds_the_free_memory(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable:    800 kB\nHugePages_Total:       0\n")
    (tmp_path / "max").write_text("500000\n")
    (tmp_path / "current").write_text("300000\n")
    (tmp_path / "stat").write_text("anon 1000\ninactive_file 50000\n")
    limit = tuple(str(tmp_path / name) for name in ("max", "current", "stat"))
    meminfo = str(tmp_path / "meminfo")
    assert available_memory_bytes(meminfo, ((limit[0], limit[1], limit[2]),)) == 250_000
    (tmp_path / "max").write_text("max\n")
    assert available_memory_bytes(meminfo, ((limit[0], limit[1], limit[2]),)) == 819_200
    assert available_memory_bytes(meminfo, (("/none", "/none", "/none"),)) == 819_200


def test_a_disk_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    disk = measure_disk(str(tmp_path / "cache"), 2**20)
    assert disk.free_bytes > 0
    assert disk.write_bytes_per_s > 0
    assert not disk.error
    assert not list((tmp_path / "cache").iterdir())
    (tmp_path / "file").touch()
    assert "exists" in measure_disk(str(tmp_path / "file"), 2**20).error


def test_another_source_file_is_another_code(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    before = code_fingerprint(tmp_path)
    (tmp_path / "notes.txt").touch()
    assert code_fingerprint(tmp_path) == before
    (tmp_path / "a.py").write_text("x = 2\n")
    assert code_fingerprint(tmp_path) != before


def test_nodes_with_one_folder_read_what_each_wrote_and_leave_nothing(tmp_path: Path) -> None:
    uri = str(tmp_path)
    assert [write_probe(uri, "p", node)[0] for node in ("a", "b")] == ["", ""]
    assert read_probe(uri, "p", ["a", "b"]) == {"a": "", "b": ""}
    assert "no file at" in read_probe(uri, "p", ["a", "c"], patience_s=0)["c"]
    Path(probe_folder(uri, "p"), "b").write_text("something else")
    assert "instead of what b wrote" in read_probe(uri, "p", ["b"], patience_s=0)["b"]
    remove_probe(uri, "p")
    assert not list(tmp_path.iterdir())


def test_a_file_that_appears_late_is_waited_for(tmp_path: Path) -> None:
    timer = threading.Timer(0.3, write_probe, (str(tmp_path), "p", "slow"))
    timer.start()
    assert read_probe(str(tmp_path), "p", ["slow"], patience_s=20) == {"slow": ""}
    timer.join()


def test_a_folder_that_is_missing_is_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "mnt" / "shared"
    assert write_probe(str(missing), "p", "a")[0] == f"the folder {missing} does not exist"
    remove_probe(str(missing), "p")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An S3 server on loopback with one bucket, runs."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"ENDPOINT_URL": f"http://{host}:{port}", "ACCESS_KEY_ID": "t", "SECRET_ACCESS_KEY": "t"}
    for name, value in {**settings, "DEFAULT_REGION": "us-east-1", "EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    boto3.client("s3").create_bucket(Bucket="runs")
    yield
    server.stop()


def test_an_s3_store_is_probed_and_a_missing_bucket_is_said(s3: None) -> None:
    assert write_probe("s3://runs/mine", "p", "a")[0] == ""
    assert read_probe("s3://runs/mine", "p", ["a"]) == {"a": ""}
    remove_probe("s3://runs/mine", "p")
    assert "no file at" in read_probe("s3://runs/mine", "p", ["a"], patience_s=0)["a"]
    assert "Bucket 'none' not found" in write_probe("s3://none/mine", "p", "a")[0]


def test_a_rank_that_nobody_meets_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayprob.doctor.all_reduce.TIMEOUT_S", 1)
    fault, elapsed_s = all_reduce(free_address("127.0.0.1"), 0, 2, "gloo")
    assert "1/2 clients joined" in fault
    assert elapsed_s == 0.0


@pytest.fixture(autouse=True)
def _wide_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayprob.doctor.facts.DISK_PROBE_BYTES", 2**20)
    monkeypatch.setattr("rayprob.cli.cluster.out", Console(highlight=False, width=200))


def doctor(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_this_machine_is_looked_at_without_ray(tmp_path: Path) -> None:
    code, said = doctor("--storage", str(tmp_path), "--cache-dir", str(tmp_path / "cache"))
    assert f"{platform.node()}: written and read by all" in " ".join(said.split())
    assert code == ("fix the faults" in said)


def test_json_has_findings_and_facts_and_a_fault_is_exit_code_1(tmp_path: Path) -> None:
    code, said = doctor("--json", "--storage", str(tmp_path / "none"), "--cache-dir", str(tmp_path))
    found = json.loads(said)
    assert code == 1
    assert not found["is_fit"]
    (fault,) = [one for one in found["findings"] if one["check"] == f"storage {tmp_path / 'none'}"]
    assert fault["found"] == f"the folder {tmp_path / 'none'} does not exist"
    (facts,) = found["facts"]["nodes"].values()
    assert facts["cache"]["folder"] == str(tmp_path)


def test_a_cluster_that_is_not_named_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(RunError, match="set RAY_ADDRESS=auto; from outside: ray job submit"):
        doctor("--cluster")
