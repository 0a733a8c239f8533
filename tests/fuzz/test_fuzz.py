"""No input of a user ends in a traceback: each verb ends with a result, an error in words, a usage error or Ctrl-C.

A few inputs of each target are tried in every run of the suite, always the same ones. `pytest -m fuzz tests/fuzz` tries many
new ones; RAYPROB_FUZZ_INPUTS says how many for each target, and RAYPROB_FUZZ_SEED, which is printed, makes the same ones again.
"""

import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.kinds import Target
from tests.fuzz.targets import TARGETS
from tests.fuzz.verdict import Case, end_of
from tests.fuzz.world import World

INPUTS = int(os.environ.get("RAYPROB_FUZZ_INPUTS", "200"))
SEED = int(os.environ.get("RAYPROB_FUZZ_SEED", random.SystemRandom().randrange(2**32)))


def faults_among(target: Target, world: World, folder: Path, *, inputs: int, seed_of_inputs: int) -> tuple[int, dict[str, str]]:
    """Return how many inputs were tried, and for each place of a fault the shortest input that leads there."""
    tried, faults = 0, dict[str, str]()

    @seed(seed_of_inputs)
    @settings(
        max_examples=inputs,
        phases=[Phase.generate],
        derandomize=False,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.cases(world.root))
    def meet(case: Case) -> None:
        nonlocal tried
        tried += 1
        end = end_of(case, world, folder)
        if end.fault:
            said = f"{end.fault}\n{case}\n{end.look}"
            faults[end.fault] = min(faults.get(end.fault, said), said, key=len)

    meet()
    return tried, faults


def shown(faults: dict[str, str]) -> str:
    return f"{len(faults)} fault(s)\n\n" + "\n".join(faults.values())


@pytest.mark.parametrize("target", [target for target in TARGETS if target.share], ids=lambda target: target.name)
def test_no_odd_input_ends_in_a_traceback(target: Target, world: World, tmp_path: Path) -> None:
    tried, faults = faults_among(target, world, tmp_path / "copy", inputs=target.share, seed_of_inputs=0)
    assert not faults, shown(faults)
    assert tried


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_new_input_ends_in_a_traceback(
    target: Target, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began_at_s = time.monotonic()
    tried, faults = faults_among(target, world, tmp_path / "copy", inputs=INPUTS, seed_of_inputs=SEED)
    with capsys.disabled():
        print(f"\n{target.name}: {tried:,} inputs of seed {SEED}, {len(faults)} faults, {time.monotonic() - began_at_s:.0f} s")
        print(*faults.values(), sep="\n")
    assert not faults, shown(faults)
