"""benchmarks/gpu.py without a GPU: what it measures in which order, its limits, its tables, and all of it in a tiny size."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from rayprob.models.build import ModelSpec

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
ROW = {"images_per_s": 100.0, "step_ms": 10.0, "mfu": 0.27, "memory_gib": 30.0, "data_wait": 0.01}


@pytest.fixture(scope="module", autouse=True)
def _beside_the_benchmarks() -> Iterator[None]:
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def test_the_most_important_comes_first_and_everything_is_in_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    from gpu import MICRO_BATCHES, SYSTEMS, plan
    from gpu_measure import SETTINGS

    chosen = plan(tiny=False)
    assert len(set(map(str, chosen))) == len(chosen)
    assert [(one.settings, one.loop) for one in chosen[:2]] == [("default", "rayprob"), ("default", "bare")]
    of_paper = [one for one in chosen if one.name == "paper"]
    assert {one.settings for one in of_paper} == set(SETTINGS)
    assert {one.micro_batch for one in of_paper if one.settings == "together"} == set(MICRO_BATCHES)
    assert {one.loop for one in of_paper} == {"rayprob", "bare", "stream"}
    skipped = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if "is registered" in line]
    assert {one.name for one in chosen} | set(skipped) == set(SYSTEMS)


def test_settings_become_the_keys_of_a_run_file() -> None:
    from gpu_measure import SETTINGS, Conditions, Measurement, System

    from rayprob.runs.spec import Run

    run = Run.read(FOLDER.parent / "tune_configs" / "paper.yaml").model_dump(mode="json")
    conditions, paper = Conditions(run, 64, "data", "folder", 1.0), System("resnet18", {"name": "bernoulli"})

    def keys(settings: str) -> dict[str, Any]:
        made = conditions.run_of(Measurement("paper", paper, settings, 4)).model_dump(mode="json")
        return {**made["precision"], "fused": made["optimizer"]["fused"]}

    assert keys("default") == {**run["precision"], "fused": "auto"}
    assert keys("together") == SETTINGS["together"] | {"compile": False}
    alone = {name: {key for key, value in keys(name).items() if value != keys("off").get(key)} for name in ("bf16", "fused")}
    assert alone == {"bf16": {"autocast"}, "fused": {"fused"}}
    assert (conditions.run_of(Measurement("p", paper, "off", 4)).stream.lanes, run["model"]["weights"]) == (4, "IMAGENET1K_V1")


def test_operations_of_a_network_are_those_of_the_literature() -> None:
    from steps import training_flops

    forward = 4 * 2 * 1.8e9  # 1.8 GMAC of ResNet-18 at 224 px (He et al., CVPR 2016, table 1), four times as many at 448 px
    assert training_flops(ModelSpec(backbone="resnet18"), 448) == pytest.approx(3 * forward, rel=0.03)


def sleepy(connection: Connection, conditions: Any) -> None:
    """A worker that never answers the second question."""
    connection.send({"device": "none"})
    for number in range(2):
        connection.recv()
        if number:
            time.sleep(60)
        connection.send(ROW)


def test_a_measurement_that_hangs_is_ended_and_time_that_is_over_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu
    from gpu_measure import Measurement, System

    monkeypatch.setattr(gpu, "LIMIT_S", 0.2)
    monkeypatch.setattr(gpu, "LEAST_S", 0.0)
    monkeypatch.setattr(gpu.multiprocessing, "get_context", lambda method: gpu.multiprocessing.context.ForkContext())
    paper, told = System("resnet18", {"name": "bernoulli"}), list[dict[str, Any]]()
    chosen = [Measurement("paper", paper, "off", size) for size in (1, 2, 3, 4)]
    chosen.append(Measurement("paper", paper, "compile", 1))  # for which a minute is too short
    found = gpu.measurements(chosen, None, time.monotonic() + 30, sleepy, told.append)
    results = [result for _, result in found]
    late = {"error": "exceeded its time, or its process died"}
    assert results == [ROW, late, ROW, late, {"error": "no time left"}]
    assert told == [{"device": "none"}] * 2


def test_too_little_memory_is_a_result() -> None:
    from gpu_measure import outcome

    def too_large() -> dict[str, Any]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def broken() -> dict[str, Any]:
        raise RuntimeError("no\nkernel")

    assert outcome(too_large) == {"error": "out of memory"}
    assert outcome(broken) == {"error": "RuntimeError: no kernel"}
    assert outcome(lambda: ROW) == ROW


def test_the_tables_say_what_is_fastest_and_what_our_loop_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gpu_measure import Measurement, System
    from gpu_results import Results

    results, paper = Results(tmp_path / "out"), System("resnet101", {"name": "bernoulli"})
    results.machine({"device": "NVIDIA H100", "cuda": None})
    found = {("default", "rayprob"): 480.0, ("default", "bare"): 500.0, ("together", "rayprob"): 600.0}
    for (settings, loop), rate in found.items():
        results.add(Measurement("paper", paper, settings, 128, loop), {**ROW, "images_per_s": rate})
    results.add(Measurement("paper", paper, "together", 256), {"error": "out of memory"})
    results.finish()
    written = (tmp_path / "out" / "gpu.md").read_text()
    assert "| paper | resnet101 | default | 128 | rayprob | 480.0 | 10.0 | 27.0% | 30.0 |  |" in written
    assert "| paper | resnet101 | together | 256 | rayprob | out of memory |  |  |  |  |" in written
    assert "- rayprob / bare, default, micro batch 128: 0.960" in written
    assert "- fastest: together at micro batch 128, 1.25 times the default" in written
    assert len(json.loads((tmp_path / "out" / "gpu.json").read_text())["rows"]) == 4
    assert "device NVIDIA H100\npaper, resnet101, default, micro batch 128, rayprob: 480.0 images/s" in capsys.readouterr().out


@pytest.mark.slow
def test_everything_is_measured_in_a_tiny_size(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--tiny", "--seconds", "0.05", "--minutes", "5", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert not [row for row in found["rows"] if "error" in row]
    assert {row["loop"] for row in found["rows"]} == {"rayprob", "bare", "stream"}
    assert all(row["images_per_s"] > 0 and 0 <= row["data_wait"] < 1 for row in found["rows"])
    assert (tmp_path / "gpu.md").read_text().count("\n| ") == len(found["rows"]) + 2
