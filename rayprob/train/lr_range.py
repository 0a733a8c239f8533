"""Learning-rate range test: a short run with a rising learning rate, whose losses suggest a good rate. S steps.

Smith, "Cyclical learning rates for training neural networks" (WACV 2017), as Gugger presented it in 2018: the learning rate is
multiplied by the same factor after every step until the loss diverges. The rate at which the loss falls steepest works best
for the initial weights; where the loss is lowest, the rate is about to become too high, so a tenth of that is suggested.

The steps are those of training: the run's own data, augmentation, loss, optimizer and arithmetic, on one rank with the
whole global batch. Weight averaging and evaluations are left out, and nothing is written to the run's folder.

A batch of images with many labels has a large loss whatever the weights are, and that noise hides the fall. The smoothed value
is therefore the difference from the loss of the untrained weights on the same batch, plus the mean of the latter: a control
variate.
"""

import math
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from rayprob.arrays import Floats
from rayprob.errors import NonFiniteLoss, RunError, SpecError
from rayprob.loader.order import Place
from rayprob.loader.streams import Batch
from rayprob.models.classifier import Classifier
from rayprob.runs.rules import check_sizes
from rayprob.runs.spec import Run
from rayprob.seeds import derive
from rayprob.text import counted
from rayprob.train.job import RankJob, prepare
from rayprob.train.loop import steps
from rayprob.train.meter import Meter
from rayprob.train.step import take_step

MIN_STEPS = 20
DIVERGED = 4.0  # the test ends when the smoothed loss is this many times its best
WINDOW_SHARE = 20  # the smoothing window is the number of steps divided by this
SAFETY = 10.0  # the rate of the lowest loss divided by the suggestion
SEEN, LEAST_FALL = 2.0, 0.01  # a fall is at least this many times the noise, and this share of the untrained loss


@dataclass(frozen=True)
class LrRange:
    """The losses by learning rate [S], what they suggest, and the rate at which the loss diverged (None: it did not)."""

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    steepest: float
    lowest: float  # the learning rate of the lowest smoothed loss, not the loss
    suggestion: float
    diverged_at: float | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return asdict(self)


def find_lr(
    run: Run,
    *,
    lowest: float = 1e-6,
    highest: float = 10.0,
    num_steps: int = 100,
    device: torch.device | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> LrRange:
    """Train `run` for at most `num_steps` steps while optimizer.lr rises from `lowest` to `highest`.

    The backbone keeps its factor of that rate. On a CPU the same call returns the same numbers. Raises SpecError for an
    invalid range or parts of the run that do not fit together, RunError if the loss never falls.
    """
    _check_range(lowest, highest, num_steps)
    check_sizes(run, run.data.open(), _num_workers(run))
    with tempfile.TemporaryDirectory(prefix="rayprob-lr-find-") as folder:
        rising = _rising(run, folder, lowest, highest, num_steps)
        job = prepare(rising, Place(), device or _device(run))
        try:
            with job.compute.settings():
                measured = _until_it_leaves(job, on_step)
        finally:
            if job.history:
                job.history.close()
    return read_range(measured)


def _check_range(lowest: float, highest: float, num_steps: int) -> None:
    if not 0 < lowest < highest < math.inf:
        raise SpecError(f"--from and --to must satisfy 0 < --from < --to, both finite; got --from {lowest:g} --to {highest:g}")
    if num_steps < MIN_STEPS:
        raise SpecError(
            f"--steps {num_steps} is too few to tell a falling loss from noise; use at least {MIN_STEPS}; 100 is usual"
        )


def _rising(run: Run, folder: str, lowest: float, highest: float, num_steps: int) -> Run:
    """Return the run as a range test; one rank does the work of all, in the same micro batches."""
    changes: dict[str, dict[str, Any]] = {
        "optimizer": {"lr": highest},
        "schedule": {"name": "exponential", "start_factor": lowest / highest},
        "placement": {"micro_batch": run.micro_batch(_num_workers(run)), "num_workers": 1},
    }
    value = run.model_dump()
    value |= {part: {**value[part], **keys} for part, keys in changes.items()}
    value |= {"folder": folder, "ema": None, "duration": {"steps": num_steps}}
    return Run.parse(value, where=f"the range test of {run.name}")


def _num_workers(run: Run) -> int:
    return 1 if run.placement.most_workers == "auto" else run.placement.most_workers


def _device(run: Run) -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() and run.placement.use_gpu else "cpu")


@dataclass(frozen=True)
class Step:
    """One step: its learning rate, its loss, and the loss of the untrained weights on the same batch."""

    lr: float
    loss: float
    untrained: float


@dataclass(frozen=True)
class Measured:
    """The steps of a test, and whether the loss diverged before its end."""

    steps: list[Step]
    num_steps: int
    has_left: bool

    def column(self, name: str) -> Floats:
        """Return one number per step [S]."""
        return np.array([getattr(step, name) for step in self.steps])


def _until_it_leaves(job: RankJob, on_step: Callable[[int, int], None]) -> Measured:
    done: list[Step] = []
    smoothed, best = Smoothed(job.total_steps), np.inf
    with closing(_steps(job)) as running:
        for step in running:
            done.append(step)
            level = smoothed.add(step.loss)
            best = min(best, level)
            on_step(len(done), job.total_steps)
            if level > DIVERGED * best:
                return Measured(done, job.total_steps, has_left=True)
    return Measured(done, job.total_steps, has_left=len(done) < job.total_steps)


def _steps(job: RankJob) -> Generator[Step, None, None]:
    """Yield each step, until the loss or its gradient is not finite."""
    meter = Meter(None, log_every=1, global_batch=job.run.stream.global_batch)
    untrained = deepcopy(job.state.classifier)
    for batches in steps(job, meter):
        before = _mean_loss(job, untrained, batches)
        try:
            result = take_step(job, batches)
            meter.add(result)
            meter.settle()
        except NonFiniteLoss:
            return
        yield Step(result.lr, result.loss, before)


@torch.no_grad()
def _mean_loss(job: RankJob, classifier: Classifier, batches: list[Batch]) -> float:
    """Return the loss that a step would have with other weights and the same dropout."""
    compute = job.compute
    torch.manual_seed(derive(job.run.seed, "step", job.state.progress.step, job.place.rank))
    total = 0.0
    for batch in batches:
        with compute.autocast():
            outputs = classifier(compute.images(batch.images_BCHW))
        total += float(job.loss(outputs, compute.on_device(batch.targets_BL), compute.on_device(batch.known_BL)).sum())
    return total / job.run.stream.global_batch


class Smoothed:
    """The exponential mean of a sequence, corrected for the bias of its start."""

    def __init__(self, num_steps: int) -> None:
        self._keep = 1 - 1 / window_of(num_steps)
        self._sum = self._weight = 0.0

    def add(self, value: float) -> float:
        """Add the next value; return the mean."""
        self._sum = self._keep * self._sum + (1 - self._keep) * value
        self._weight = self._keep * self._weight + (1 - self._keep)
        return self._sum / self._weight


def smooth(values_S: Floats, num_steps: int) -> Floats:
    """Return the mean of the exponential means from both ends, which lags behind neither."""
    ends = []
    for ordered_S in (values_S, values_S[::-1]):
        mean = Smoothed(num_steps)
        ends.append(np.array([mean.add(value) for value in ordered_S]))
    return np.asarray((ends[0] + ends[1][::-1]) / 2)


def window_of(num_steps: int) -> int:
    """Return the number of steps over which the losses of a test are smoothed."""
    return max(2, num_steps // WINDOW_SHARE)


def read_range(measured: Measured) -> LrRange:
    """Return what the losses of a test suggest. Raises RunError if they never fall."""
    _require_length(measured)
    lrs_S, losses_S, untrained_S = (measured.column(name) for name in ("lr", "loss", "untrained"))
    # The last jump is capped, because the backward mean would spread it far ahead.
    compared_S = np.minimum(losses_S, DIVERGED * untrained_S.mean()) - untrained_S + untrained_S.mean()
    smoothed_S = smooth(compared_S, measured.num_steps)
    bottom = int(np.argmin(smoothed_S))
    _require_fall(measured, compared_S, smoothed_S)
    steepest = int(np.argmin(np.gradient(smoothed_S)[: bottom + 1]))
    return LrRange(
        lrs=tuple(lrs_S.tolist()),
        losses=tuple(losses_S.tolist()),
        smoothed=tuple(smoothed_S.tolist()),
        steepest=float(lrs_S[steepest]),
        lowest=float(lrs_S[bottom]),
        suggestion=float(lrs_S[bottom]) / SAFETY,
        diverged_at=float(lrs_S[-1]) if measured.has_left else None,
        notes=tuple(_notes(measured, bottom)),
    )


def _notes(measured: Measured, bottom: int) -> list[str]:
    first, last, lowest = measured.steps[0].lr, measured.steps[-1].lr, measured.steps[bottom].lr
    notes = []
    if not measured.has_left:
        notes.append(
            f"the loss had not diverged by {last:.2g}, so its minimum may be at a higher rate; a higher --to would show it"
        )
    if lowest / SAFETY < first:
        notes.append(
            f"the loss was lowest near the beginning of the range, {first:.2g}; a lower --from would show the whole fall"
        )
    return notes


def _require_length(measured: Measured) -> None:
    fewest = 2 * window_of(measured.num_steps)
    if len(measured.steps) < fewest:
        at = f", at a learning rate of {measured.steps[-1].lr:.2g}" if measured.steps else ""
        raise RunError(
            f"the loss diverged after {counted(len(measured.steps), 'step')}{at}, before it could fall; set --from to a "
            "hundredth of that, and check the data if this persists"
        )


def _require_fall(measured: Measured, compared_S: Floats, smoothed_S: Floats) -> None:
    """Raise RunError unless the loss falls by more than its noise, and by more than a minimal share."""
    window, bottom = window_of(measured.num_steps), int(np.argmin(smoothed_S))
    untrained = float(measured.column("untrained").mean())
    noise = float(np.std((compared_S - smoothed_S)[: max(bottom, window) + 1])) / np.sqrt(window)
    fall = untrained - float(smoothed_S[bottom])
    if fall > max(SEEN * noise, LEAST_FALL * untrained):
        return
    first, last = measured.steps[0].lr, measured.steps[-1].lr
    remedy = (
        "give a lower --from, or more --steps"
        if measured.has_left
        else "give a higher --to, or more --steps for the same range"
    )
    raise RunError(
        f"the loss never falls between learning rates of {first:.2g} and {last:.2g}: {untrained:.4f} untrained, "
        f"{smoothed_S[bottom]:.4f} at its lowest, with noise of {noise:.4f}; {remedy}"
    )
