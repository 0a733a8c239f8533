"""Trains one trial: in this process with one worker, under Ray Train with several. This module does not use Ray."""

import logging
from collections.abc import Callable
from typing import Any

import torch

from rayprob.errors import OutOfMemory
from rayprob.loader.order import Place
from rayprob.runs import folder
from rayprob.runs.history_rows import read_history
from rayprob.runs.rules import check
from rayprob.runs.spec import Run, absolute
from rayprob.sweep.space import shrunk
from rayprob.train.loop import Outcome, finished_outcome, fit

log = logging.getLogger(__name__)

Report = Callable[[dict[str, Any]], None]
Train = Callable[[Run, Report], Outcome]


def train_trial(run: Run, train: Train, report: Report) -> Outcome:
    """Train a trial or continue it; `report` gets its evaluations (`epoch` and numbers), those of an earlier attempt first.

    When memory runs out, the micro batch is halved, repeatedly if needed. Raises OutOfMemory if one image does not fit.
    """
    for numbers in evaluations_of(read_history(run.run_folder)):
        report(numbers)
    while True:
        try:
            return train(run, report)
        except OutOfMemory as error:
            smaller = halved(run)
            if smaller is None:
                raise
            log.warning("%s: %s; continuing with micro batches of %s", run.name, error, smaller.placement.micro_batch)
            run = smaller
        # Outside the except clause the tensors of the failed step are no longer referenced.
        torch.cuda.empty_cache()


def halved(run: Run) -> Run | None:
    """Return the run with at most half the micro batch, a divisor of it; or None if it is already one image."""
    world_size = 1 if run.placement.most_workers == "auto" else run.placement.most_workers
    micro_batch = run.micro_batch(world_size)
    if micro_batch == 1:
        return None
    placement = run.placement.model_copy(update={"micro_batch": shrunk(micro_batch, 2)})
    return run.model_copy(update={"placement": placement})


def train_here(run: Run, report: Report) -> Outcome:
    """Train a run of one worker in this process, on the first visible GPU if it uses one."""
    run = absolute(run)
    dataset = folder.recorded_data(run).open()
    if folder.claim(run, dataset).is_finished:
        return finished_outcome(run)
    check(run, dataset, world_size=1)
    device = torch.device("cuda", 0) if run.placement.use_gpu is True else torch.device("cpu")
    return fit(run, Place(0, 1, 1), device, report=report)


def evaluations_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the reports of the evaluations in a run's history."""
    per_epoch = next((row["steps_per_epoch"] for row in rows if row["kind"] == "start" and "steps_per_epoch" in row), None)
    return [as_report(row, per_epoch) for row in rows if row["kind"] == "evaluation" and per_epoch]


def as_report(row: dict[str, Any], steps_per_epoch: int) -> dict[str, Any]:
    """Return a history's evaluation row as a report: its step, epoch and numbers."""
    numbers = {key: float(value) for key, value in row.items() if type(value) in (int, float)}
    return {**numbers, "step": row["step"], "epoch": row["step"] / steps_per_epoch}


def costs(rows: list[dict[str, Any]], global_batch: int) -> dict[str, float]:
    """Return a run's cost from its history: `images_per_s` while training, and `elapsed_s` with its evaluations."""
    steps = [row for row in rows if row["kind"] == "step" and "images_per_s" in row]
    before = [0, *(row["step"] for row in steps)]
    training_s = sum(
        (row["step"] - last) * global_batch / row["images_per_s"] for row, last in zip(steps, before, strict=False)
    )
    evaluating_s = sum(row.get("elapsed_s", 0.0) for row in rows if row["kind"] == "evaluation")
    images_per_s = steps[-1]["step"] * global_batch / training_s if steps else 0.0
    return {"images_per_s": images_per_s, "elapsed_s": training_s + evaluating_s}
