"""What `make bench` runs: every benchmark is in its table, and what a machine cannot run is skipped with its reason."""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
TABLE = (FOLDER / "every.py").read_text()


def test_every_benchmark_is_in_the_table_or_measures_nothing() -> None:
    scripts = {path.name for path in FOLDER.glob("*.py") if '__name__ == "__main__"' in path.read_text()}
    assert set(re.findall(r'"(\w+\.py)"', TABLE)) == scripts


def test_what_takes_long_is_skipped_unless_it_is_asked_for() -> None:
    command = [sys.executable, "benchmarks/every.py", "--only", "rehearsal.py", "faults.py"]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert re.findall(r"^(\w+\.py) +skipped +(.*)$", done.stdout, re.M) == [
        ("faults.py", "takes long; run with --long"),
        ("rehearsal.py", "takes long; run with --long"),
    ]


def test_a_machine_without_data_is_told_what_each_needs(tmp_path: Path) -> None:
    (tmp_path / "checkout" / "benchmarks").mkdir(parents=True)
    (tmp_path / "checkout" / "benchmarks" / "every.py").write_text(TABLE)
    skipped = ("label_mixture.py", "shard_writing.py", "calibration.py", "uncertainty.py", "sweep_savings.py")
    command = [sys.executable, "benchmarks/every.py", "--long", "--only", *skipped]
    done = subprocess.run(command, cwd=tmp_path / "checkout", capture_output=True, text=True, check=False)
    reasons = dict(re.findall(r"^(\w+\.py) +skipped +(.*)$", done.stdout, re.M))
    assert reasons == {
        "label_mixture.py": "needs ../shared/labels",
        "shard_writing.py": "needs ../shared/coco-sample",
        "calibration.py": "needs the run of `make demo`",
        "uncertainty.py": "needs `rayprob train tune_configs/coco-sample.yaml`",
        "sweep_savings.py": "needs the run of `make demo`",
    }


def test_a_benchmark_that_fails_is_named_and_the_others_still_run(tmp_path: Path) -> None:
    folder = tmp_path / "checkout" / "benchmarks"
    folder.mkdir(parents=True)
    (folder / "every.py").write_text(TABLE)
    (folder / "exact_map.py").write_text("raise SystemExit(3)")
    (folder / "startup.py").write_text("print('measured')")
    command = [sys.executable, "benchmarks/every.py", "--only", "exact_map.py", "startup.py"]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(r"^exact_map.py +failed +exit code 3 after \d+ s$", done.stdout, re.M)
    assert re.search(r"^startup.py +ran +\d+ s$", done.stdout, re.M)
