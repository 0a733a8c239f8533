"""The learning-rate range test: what it suggests trains well, it leaves nothing behind, and every fault is named."""

import json
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.cli.show_lr import train_command
from rayprob.errors import RayprobError, RunError, SpecError
from rayprob.loader.order import Place
from rayprob.runs.history_rows import read_history
from rayprob.runs.spec import Run
from rayprob.train import loop, lr_range
from rayprob.train.loop import fit
from rayprob.train.lr_range import LrRange, Measured, Step, find_lr, read_range

CPU = torch.device("cpu")
MakeRun = Callable[..., Run]


@pytest.fixture(scope="module")
def found(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> LrRange:
    """A range test of the tiny run, on the CPU; tests only read it."""
    return find_lr(make_run(tmp_path_factory.mktemp("found")), num_steps=60, device=CPU)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which temporary folders are made."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def loss_after(make_run: MakeRun, folder: Path, lr: float) -> float:
    """Return the mean loss of the last 10 of 40 steps at a constant learning rate; infinite where it left."""
    run = make_run(
        folder,
        optimizer={"name": "adamw", "lr": lr},
        schedule={"name": "constant", "warmup": 0.0},
        duration={"steps": 40},
        evaluation={"every": {"steps": 40}, "micro_batch": 20},
    )
    try:
        fit(run, Place(), CPU)
    except RayprobError:
        return float("inf")
    return float(np.mean([row["loss"] for row in read_history(run.run_folder) if row["kind"] == "step"][-10:]))


@pytest.mark.slow
def test_the_suggestion_trains_better_than_both_ends_of_the_range(found: LrRange, make_run: MakeRun, tmp_path: Path) -> None:
    low, suggested, high = (
        loss_after(make_run, tmp_path / str(place), lr)
        for place, lr in enumerate((found.lrs[0], found.suggestion, found.lrs[-1]))
    )
    assert suggested < 0.8 * low
    assert suggested < 0.8 * high


def test_the_learning_rate_rises_by_one_factor_until_the_loss_has_left(found: LrRange) -> None:
    ratios = np.diff(np.log10(found.lrs))
    assert found.lrs[0] == pytest.approx(1e-6)
    assert ratios == pytest.approx(np.full(len(ratios), 7 / 59))
    assert found.diverged_at == found.lrs[-1] < 10
    assert found.lrs[0] < found.steepest <= found.lowest < found.diverged_at
    assert found.suggestion == pytest.approx(found.lowest / 10)


def test_the_same_test_returns_the_same_numbers_and_leaves_nothing(
    found: LrRange, make_run: MakeRun, tmp_path: Path, scratch: Path
) -> None:
    run = make_run(tmp_path / "run")
    assert find_lr(run, num_steps=60, device=CPU) == found
    assert not (tmp_path / "run").exists()
    assert not list(scratch.iterdir())


def test_the_first_step_is_that_of_training(found: LrRange, make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path, duration={"steps": 1}, evaluation={"every": {"steps": 1}, "micro_batch": 20})
    fit(run, Place(), CPU)
    assert found.losses[0] == next(row["loss"] for row in read_history(run.run_folder) if row["kind"] == "step")


def test_one_rank_takes_the_work_of_several_in_their_micro_batches(make_run: MakeRun, tmp_path: Path) -> None:
    def micro_batch(**placement: Any) -> int:
        return lr_range._rising(make_run(tmp_path, placement=placement), "x", 1e-6, 1.0, 50).micro_batch(1)

    assert micro_batch() == 16
    assert micro_batch(num_workers=4) == 4
    assert micro_batch(num_workers=2, micro_batch=2) == 2


def test_the_backbone_keeps_its_factor(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path, optimizer={"name": "sgd", "lr": 5.0, "backbone_lr_factor": 0.01})
    rising = lr_range._rising(run, "x", 1e-6, 1.0, 50)
    assert (rising.optimizer.lr, rising.optimizer.backbone_lr_factor) == (1.0, 0.01)


def simulated(losses: np.ndarray, untrained: np.ndarray, *, has_left: bool = False) -> Measured:
    lrs = np.geomspace(1e-6, 1.0, len(losses))
    steps = [Step(*values) for values in zip(lrs.tolist(), losses.tolist(), untrained.tolist(), strict=True)]
    return Measured(steps, len(steps), has_left)


def test_noise_of_the_batches_hides_neither_the_fall_nor_the_lowest_loss() -> None:
    rng = np.random.default_rng(0)
    shape = np.where(np.arange(100) < 70, -0.1 / (1 + np.exp(-(np.arange(100) - 50) / 5)), 0.01 * (np.arange(100) - 80))
    noise = rng.normal(0, 0.3, 100)
    found = read_range(simulated(1 + noise + shape, 1 + noise))
    place = found.lrs.index(found.lowest)
    assert abs(place - 69) <= 5
    assert abs(found.lrs.index(found.steepest) - 50) <= 4


def test_weights_that_only_get_worse_are_no_fall_however_noisily() -> None:
    rng = np.random.default_rng(1)
    moved = np.geomspace(1e-5, 1, 100)
    for _ in range(50):
        untrained = 1 + rng.normal(0, 0.05, 100)
        losses = untrained + moved * (0.2 + rng.normal(0, 0.1, 100))
        with pytest.raises(RunError, match="the loss never falls between learning rates of 1e-06 and 1"):
            read_range(simulated(losses, untrained))


def test_a_range_that_ends_too_early_or_begins_too_late_is_noted() -> None:
    falling = 1 - 0.3 * np.linspace(0, 1, 100) ** 2
    assert (
        "had not diverged by 1, so its minimum may be at a higher rate" in read_range(simulated(falling, np.ones(100))).notes[0]
    )
    early = np.concatenate([np.linspace(1, 0.5, 10), np.linspace(0.5, 3, 90)])
    (note,) = read_range(simulated(early, np.ones(100), has_left=True)).notes
    assert "near the beginning of the range, 1e-06; a lower --from" in note


@pytest.mark.parametrize(
    ("options", "changes", "error", "message"),
    [
        (
            {"lowest": 1.0, "highest": 0.1},
            {},
            SpecError,
            r"must satisfy 0 < --from < --to, both finite; got --from 1 --to 0\.1",
        ),
        ({"lowest": 0.0}, {}, SpecError, r"got --from 0 --to 10"),
        (
            {"num_steps": 19},
            {},
            SpecError,
            r"--steps 19 is too few to tell a falling loss from noise; use at least 20",
        ),
        (
            {"lowest": 1e-12, "highest": 1e-10, "num_steps": 20},
            {},
            RunError,
            r"never falls between learning rates of 1e-12 and 1e-10: .* untrained, .*; give a higher --to, or more --steps",
        ),
        (
            {"lowest": 1e4, "highest": 1e6, "num_steps": 80},
            {"optimizer": {"name": "sgd"}},
            RunError,
            r"the loss diverged after \d steps?.*before it could fall; set --from to a hundredth",
        ),
        ({}, {"stream": {"global_batch": 512, "lanes": 4}}, SpecError, r"one stream.global_batch of 512; set .* to 152"),
    ],
)
def test_what_cannot_be_tested_is_named(
    make_run: MakeRun,
    tmp_path: Path,
    scratch: Path,
    options: dict[str, Any],
    changes: dict[str, Any],
    error: type[RayprobError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        find_lr(make_run(tmp_path / "run", **changes), device=CPU, **options)
    assert not list(scratch.iterdir())


def test_a_loss_that_left_without_falling_asks_for_a_lower_start() -> None:
    rising = np.concatenate([np.ones(60), np.linspace(1, 5, 40)])
    with pytest.raises(RunError, match=r"never falls .*give a lower --from, or more --steps"):
        read_range(simulated(rising, np.ones(100), has_left=True))


def test_a_loss_that_is_not_finite_from_the_start_is_named() -> None:
    with pytest.raises(RunError, match=r"the loss diverged after 0 steps, before"):
        read_range(Measured([], 100, has_left=True))


def test_ctrl_c_leaves_nothing_behind(
    make_run: MakeRun, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lr_range, "take_step", interrupted)
    assert loop.take_step is not interrupted
    with pytest.raises(KeyboardInterrupt):
        find_lr(make_run(tmp_path / "run"), device=CPU)
    assert not list(scratch.iterdir())
    assert not (tmp_path / "run").exists()


def test_the_verb_prints_a_command_that_can_be_run_and_draws(
    found: LrRange, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lr_range, "find_lr", lambda *_, **__: replace(found, notes=("so and so",)))
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(make_run(tmp_path / "run").to_yaml())
    asked = ["lr-find", "run.yaml", "--set", "seed=3", "--set", "optimizer.lr=7"]
    text = CliRunner().invoke(app, asked).output
    command = f"rayprob train run.yaml --set seed=3 --set optimizer.lr={found.suggestion:.2g}"
    assert f"next: {command}\n" in text
    assert "note: so and so" in text
    assert float(shlex.split(command)[-1].partition("=")[2]) == pytest.approx(found.suggestion, rel=0.06)
    picture = cv2.imread("lr-find-tiny.png")
    assert picture is not None
    assert picture.std() > 10
    as_json = CliRunner().invoke(app, [*asked, "--json", "--figure", "other/picture.png"])
    assert json.loads(as_json.output)["suggestion"] == found.suggestion
    assert Path("other/picture.png").exists()


def test_names_with_spaces_are_quoted_in_the_command() -> None:
    assert train_command("my run.yaml", [], 1.234e-5) == "rayprob train 'my run.yaml' --set optimizer.lr=1.2e-05"
