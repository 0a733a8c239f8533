"""Runs every benchmark that this machine can, one after the other, and prints the time of each, or why it was skipped.

    python benchmarks/every.py [--long] [--only NAME...]

Without --long, those that take more than about ten minutes on two cores are skipped. Each prints its own results; a summary
follows. The exit code is 1 if one failed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
SAMPLE = SHARED / "coco-sample"


def needs_sample() -> str | None:
    """Return why the real images cannot be used, if they cannot."""
    return None if SAMPLE.is_dir() else "needs ../shared/coco-sample"


def needs_label_sets() -> str | None:
    """Return why COCO's label table cannot be used, if it cannot."""
    return None if (SHARED / "labels").is_dir() else "needs ../shared/labels"


def needs_labels_and_voc() -> str | None:
    """Return why COCO's label table and the sample of Pascal VOC cannot be used, if they cannot."""
    return needs_label_sets() if (SHARED / "voc-sample").is_dir() else "needs ../shared/voc-sample"


def needs_weights() -> str | None:
    """Return why the ImageNet weights and label sets cannot be used, if they cannot."""
    return needs_label_sets() if (SHARED / "weights").is_dir() else "needs ../shared/weights"


def needs_demo() -> str | None:
    """Return what is missing for the demo's run, if anything."""
    return None if (ROOT / "demo" / "run" / "predictions" / "val.parquet").is_file() else "needs the run of `make demo`"


def needs_sample_run() -> str | None:
    """Return what is missing for the run on real images, if anything."""
    run = ROOT / "runs" / "coco-sample" / "bundle"
    return None if run.is_dir() else "needs `rayprob train tune_configs/coco-sample.yaml`"


def needs_hosts() -> str | None:
    """Return why test hosts cannot be created from namespaces, if they cannot."""
    if sys.platform != "linux" or os.geteuid():
        return "needs root on Linux"
    missing = [tool for tool in ("ip", "sshd", "rsync", "ufw", "unshare") if not shutil.which(tool)]
    return f"needs {', '.join(missing)}" if missing else needs_sample()


def needs_gpu() -> str | None:
    """Return why a GPU cannot be measured, if it cannot."""
    return None if shutil.which("nvidia-smi") else "needs an NVIDIA GPU; python benchmarks/gpu.py --tiny tests it on a CPU"


def nothing() -> str | None:
    """Return None: the benchmark has no requirements."""
    return None


@dataclass(frozen=True)
class Benchmark:
    """A script and its arguments, what it needs, and whether it takes more than about ten minutes."""

    script: str
    arguments: tuple[str, ...] = ()
    missing: Callable[[], str | None] = nothing
    is_long: bool = False

    def reason_to_skip(self, *, long: bool) -> str | None:
        """Return why it cannot run here, or None."""
        return "takes long; run with --long" if self.is_long and not long else self.missing()


COCO_SAMPLE = ("--images", str(SAMPLE / "train2014"), "--annotations", str(SAMPLE / "annotations/instances_train2014.json"))
BENCHMARKS = (
    Benchmark("exact_map.py"),
    Benchmark("training_step.py"),
    Benchmark("gpu.py", missing=needs_gpu),
    Benchmark("label_layouts.py"),
    Benchmark("image_kinds.py"),
    Benchmark("label_mixture.py", missing=needs_label_sets),
    Benchmark("holdouts.py", missing=needs_labels_and_voc),
    Benchmark("startup.py"),
    Benchmark("queries_speed.py"),
    Benchmark("conformal_risk.py"),
    Benchmark("predict_overhead.py", ("--backbone", "resnet50", "--size", "224")),
    Benchmark("serve.py", ("--requests", "100", "--soak", "2000", "--seconds", "10")),
    Benchmark("large_label_space.py"),
    Benchmark("graph_stability.py"),
    Benchmark("scale.py", ("--quick",)),
    Benchmark("scale_planning.py", ("--rows", "100000", "1000000")),
    Benchmark("shard_writing.py", missing=needs_sample),
    Benchmark("loader_throughput.py", ("shards/coco-sample", *COCO_SAMPLE), needs_sample),
    Benchmark("in_place.py", missing=needs_sample),
    Benchmark("grow.py"),
    Benchmark("calibration.py", ("demo/run",), needs_demo),
    Benchmark("uncertainty.py", ("runs/coco-sample", "--images", str(SAMPLE / "val2014")), needs_sample_run),
    Benchmark("label_prior.py", ("runs/coco-sample", "--wrong"), needs_sample_run),
    Benchmark("export.py", ("runs/coco-sample",), needs_sample_run),
    Benchmark("prior_scale.py", is_long=True),
    Benchmark("label_prior_variants.py", ("runs/coco-sample",), needs_sample_run, is_long=True),
    Benchmark("learning_curves.py", ("runs/learning-curves",), needs_weights, is_long=True),
    Benchmark("compare_calibration.py", is_long=True),
    Benchmark("evidence.py", ("demo/run",), needs_demo),
    Benchmark(
        "explain.py",
        ("demo/run", "--images", "demo/scenes/val2014", "--boxes", "demo/scenes/annotations/instances_val2014.json"),
        needs_demo,
    ),
    Benchmark("joint_model.py", ("demo/run",), needs_demo, is_long=True),
    Benchmark("sweep_savings.py", missing=needs_demo, is_long=True),
    Benchmark("faults.py", missing=needs_demo, is_long=True),
    Benchmark("elastic.py", missing=needs_demo, is_long=True),
    Benchmark("rehearsal.py", missing=needs_hosts, is_long=True),
)
# These create files, or train for days, and are not part of the list.
NOT_MEASURING = ("fit_scene_labels.py", "gpu_day.py", "every.py")


def main() -> None:
    """Run them and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="also those that take more than about ten minutes")
    parser.add_argument("--only", nargs="+", choices=[benchmark.script for benchmark in BENCHMARKS])
    options = parser.parse_args()
    chosen = [benchmark for benchmark in BENCHMARKS if not options.only or benchmark.script in options.only]
    rows = [(benchmark.script, *outcome(benchmark, long=options.long)) for benchmark in chosen]
    print(f"\n{'benchmark':<24}{'result':<10}seconds, or the reason")
    for script, result, note in rows:
        print(f"{script:<24}{result:<10}{note}")
    sys.exit(any(result == "failed" for _, result, _ in rows))


def outcome(benchmark: Benchmark, *, long: bool) -> tuple[str, str]:
    """Run a benchmark that can run here; return how it ended, and its time or why it did not run."""
    reason = benchmark.reason_to_skip(long=long)
    if reason:
        return "skipped", reason
    if benchmark.script == "loader_throughput.py":
        run(["-m", "rayprob", "shard", "shards/coco-sample.yaml"])
    print(f"\n$ python benchmarks/{benchmark.script} {' '.join(benchmark.arguments)}", flush=True)
    started = time.monotonic()
    code = run([f"benchmarks/{benchmark.script}", *benchmark.arguments])
    seconds = f"{time.monotonic() - started:.0f} s"
    return ("ran", seconds) if code == 0 else ("failed", f"exit code {code} after {seconds}")


def run(arguments: list[str]) -> int:
    """Run this Python at the top of the repository and return its exit code."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    main()
