"""One trial without Ray: memory that runs out, and what a history says of it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rayprob.errors import OutOfMemory
from rayprob.loader.order import Place
from rayprob.runs.history_rows import read_history
from rayprob.runs.spec import Run
from rayprob.sweep.work import costs, halved, train_here, train_trial
from rayprob.train import step
from rayprob.train.loop import Outcome, fit
from tests.train.conftest import MakeRun

OUTCOME = Outcome("finished", 12, 12, 12, 0.5)


def test_where_memory_runs_out_the_micro_batch_is_halved_until_it_fits(make_run: MakeRun, tmp_path: Path) -> None:
    tried: list[int] = []

    def train(run: Run, report: Any) -> Outcome:
        tried.append(run.micro_batch(1))
        if tried[-1] > 4:
            raise OutOfMemory("too large")
        return OUTCOME

    assert train_trial(make_run(tmp_path / "run"), train, lambda numbers: None) == OUTCOME
    assert tried == [16, 8, 4]


def test_one_image_that_does_not_fit_fails_the_trial(make_run: MakeRun, tmp_path: Path) -> None:
    def train(run: Run, report: Any) -> Outcome:
        raise OutOfMemory("too large")

    with pytest.raises(OutOfMemory, match="too large"):
        train_trial(make_run(tmp_path / "run"), train, lambda numbers: None)


@pytest.mark.parametrize(("micro_batch", "smaller"), [(16, 8), (6, 3), (3, 1), (1, None)])
def test_half_a_micro_batch_divides_the_whole(make_run: MakeRun, tmp_path: Path, micro_batch: int, smaller: int | None) -> None:
    run = make_run(tmp_path / "run", placement={"micro_batch": micro_batch})
    half = halved(run)
    assert (half and half.placement.micro_batch) == smaller


def test_a_device_without_memory_is_named_with_what_to_lower(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backward(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(step, "backward", backward)
    with pytest.raises(
        OutOfMemory, match=r"16 images of 32 px at a time do not fit .* lower placement\.micro_batch.*2\.00 GiB\.\)$"
    ):
        fit(make_run(tmp_path / "run"), Place(), torch.device("cpu"))


def test_a_trial_that_goes_on_reports_its_earlier_evaluations_first(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    first: list[dict[str, Any]] = []
    assert train_trial(run, train_here, first.append).ending == "finished"
    assert [numbers["epoch"] for numbers in first] == pytest.approx([2 / 3, 4 / 3])
    again: list[dict[str, Any]] = []
    assert train_trial(run, train_here, again.append).step == 12
    assert [(numbers["epoch"], numbers["mAP"]) for numbers in again] == [(n["epoch"], n["mAP"]) for n in first]


def test_costs_are_those_of_training_and_evaluating(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    train_here(run, lambda numbers: None)
    rows = read_history(run.run_folder)
    found = costs(rows, 16)
    evaluating_s = sum(row["elapsed_s"] for row in rows if row["kind"] == "evaluation")
    training_s = sum(16 / row["images_per_s"] for row in rows if row["kind"] == "step")  # a row for every step
    assert found["elapsed_s"] == pytest.approx(training_s + evaluating_s)
    assert found["images_per_s"] == pytest.approx(12 * 16 / training_s)
    assert costs([], 16) == {"images_per_s": 0.0, "elapsed_s": 0.0}
