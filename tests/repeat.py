"""Runs the suite again and again, some of the times beside busy loops, and says how often each test failed.

    python tests/repeat.py --times 10 --busy 5 [ARGUMENT OF PYTEST...]

The busy runs come first: each has `--loops` processes beside it that only count. Every run has a hash seed of its own, which
shows what depends on the order of a set. The exit code is 1 where any run failed.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A loop ends by itself when the process that started it is gone.
LOOP = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(1_000_000))"


@dataclass(frozen=True)
class Outcome:
    """How one run of the suite ended."""

    is_busy: bool
    seconds: float
    summary: str
    failures: list[str]
    code: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10, help="how often the suite runs")
    parser.add_argument("--busy", type=int, default=5, help="how many of them beside busy loops")
    parser.add_argument("--loops", type=int, default=2, help="how many busy loops")
    parser.add_argument("--limit", type=float, default=3600, metavar="S", help="seconds after which a run has failed")
    given, pytest_arguments = parser.parse_known_args()
    outcomes = []
    for number in range(given.times):
        outcome = run_suite(pytest_arguments, given.loops if number < given.busy else 0, given.limit)
        outcomes.append(outcome)
        beside = "busy " if outcome.is_busy else "quiet"
        print(
            f"{number + 1:3d}  {beside}  {outcome.seconds:6.0f} s  {outcome.summary}",
            *outcome.failures,
            sep="\n       ",
            flush=True,
        )
    counts = Counter(name for outcome in outcomes for name in outcome.failures)
    print(f"{sum(outcome.code == 0 for outcome in outcomes)} of {len(outcomes)} runs passed")
    for name, count in counts.most_common():
        print(f"{count:3d} x {name}")
    return int(any(outcome.code for outcome in outcomes))


def run_suite(pytest_arguments: list[str], num_loops: int, limit_s: float) -> Outcome:
    """Run the suite once, beside `num_loops` busy loops."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *pytest_arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    started_at_s = time.monotonic()
    with busy_loops(num_loops):
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit_s
            )
            text, code = done.stdout, done.returncode
        except subprocess.TimeoutExpired:
            text, code = f"not over after {limit_s:.0f} s", 1
    failures = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", text, re.M)
    return Outcome(num_loops > 0, time.monotonic() - started_at_s, (text.strip().splitlines() or [""])[-1], failures, code)


@contextmanager
def busy_loops(number: int) -> Iterator[None]:
    """Keep `number` cores busy within the block."""
    loops = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


if __name__ == "__main__":
    sys.exit(main())
