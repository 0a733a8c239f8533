"""A file of another kind is recognised, and an error that `--set` causes names it."""

from collections.abc import Callable
from pathlib import Path

import pytest

import rayprob as rp
from rayprob.calibrate.search_spec import ThresholdSearch
from rayprob.config.kinds import KINDS, RUN_FILE, RUN_KEYS, SWEEP_FILE
from rayprob.config.spec import check_file, read_yaml
from rayprob.errors import SpecError

ROOT = Path(__file__).resolve().parents[2]
DEMO, SWEEP, RECIPE = (
    str(ROOT / name) for name in ("tune_configs/demo.yaml", "tune_configs/demo-sweep.yaml", "shards/scenes.yaml")
)
SEARCH = str(ROOT / "tune_configs/thresholds.yaml")


@pytest.mark.parametrize(
    ("read", "path", "message"),
    [
        (rp.Run.read, RECIPE, f"is a recipe, not a run file; use `rayprob shard {RECIPE}`"),
        (rp.Run.read, SWEEP, f"is a sweep file, not a run file; use `rayprob tune {SWEEP}`"),
        (rp.Run.read, SEARCH, f"is a threshold search, not a run file; use `rayprob calibrate --search {SEARCH}`"),
        (rp.Recipe.read, DEMO, f"is a run file, not a recipe; use `rayprob train {DEMO}`"),
        (rp.Sweep.read, DEMO, f"is a run file, not a sweep file; use `rayprob train {DEMO}`, or add `search:`"),
        (rp.Sweep.read, RECIPE, f"is a recipe, not a sweep file; use `rayprob shard {RECIPE}`"),
        (ThresholdSearch.read, DEMO, f"is a run file, not a threshold search; use `rayprob train {DEMO}`"),
    ],
)
def test_a_file_of_another_kind_is_named_with_the_command_that_takes_it(
    read: Callable[[str], object], path: str, message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        read(path)
    assert str(caught.value) == f"{path} {message}"


@pytest.mark.parametrize("path", sorted([*(ROOT / "tune_configs").glob("*.yaml"), *(ROOT / "shards").glob("*.yaml")]))
def test_every_file_of_ours_is_of_one_kind(path: Path) -> None:
    value = read_yaml(path)
    kinds = [kind for kind in KINDS if kind.describes(value)]
    assert kinds[0] is SWEEP_FILE if "search" in value else len(kinds) == 1
    assert (kinds[0].command == "rayprob shard") == (path.parent.name == "shards")


def test_the_keys_that_are_checked_early_are_those_of_a_run() -> None:
    assert set(RUN_KEYS) == set(rp.Run.model_fields)
    assert set(RUN_FILE.marks) < set(RUN_KEYS)


def test_a_key_that_is_checked_early_is_refused_as_the_whole_file_refuses_it() -> None:
    messages = []
    for read in (rp.Run.read, lambda path, given: check_file(path, given, RUN_FILE)):
        with pytest.raises(SpecError) as caught:
            read(DEMO, ["optimizr.lr=0.1", "optimizer.lr=0.2"])
        messages.append(str(caught.value))
    assert messages[0].startswith(
        f"with --set optimizr.lr=0.1, {DEMO} has 1 fault:\n  unknown key 'optimizr'; nearest: optimizer;"
    )
    assert set(messages[0].split()) == set(messages[1].split())  # the keys themselves are listed in another order


@pytest.mark.parametrize(
    ("given", "causes"),
    [
        (["optimizer.lr=abc", "seed=3"], "with --set optimizer.lr=abc, "),
        (["seed=x", "optimizer.lr=abc"], "with --set seed=x, --set optimizer.lr=abc, "),
        (["loss.gamma=3"], "with --set loss.gamma=3, "),  # no option of the loss that the file has
        (["seed=3"], ""),
    ],
)
def test_an_error_names_the_overrides_that_cause_it_and_no_others(tmp_path: Path, given: list[str], causes: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text((ROOT / "tune_configs/demo.yaml").read_text() + ("" if causes else "ema: 3\n"))
    with pytest.raises(SpecError) as caught:
        rp.Run.read(path, given)
    assert str(caught.value).startswith(f"{causes}{path} has {max(1, causes.count('--set'))} fault")


def test_what_set_itself_refuses_is_not_named_twice() -> None:
    with pytest.raises(SpecError, match=r"^--set needs KEY=VALUE"):
        rp.Run.read(DEMO, ["optimizer.lr"])
