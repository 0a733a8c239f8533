"""Collects losses and requests one step late, and measures time between log lines."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from rayprob.runs.history import History
from rayprob.train.finite import gradient_fault


@dataclass(frozen=True)
class StepResult:
    """One step: its mean loss over the global batch, and rank 0's requests to stop, to save and to call `heed`.

    `is_gradient_finite` is still on the device.
    """

    step: int
    lr: float
    loss: float
    wishes: tuple[bool, ...]
    is_gradient_finite: torch.Tensor


@dataclass(frozen=True)
class Pending:
    """A step that has not been read yet, when it was launched, and how long the run had waited for data by then."""

    result: StepResult
    at_s: float
    waited_s: float


class Meter:
    """Collects steps into windows of `log_every` and writes one history row for each."""

    def __init__(self, history: History | None, *, log_every: int, global_batch: int, losses: Sequence[float] = ()) -> None:
        """Continue with the `losses` of a window that was open when the run was saved."""
        self._history = history
        self._log_every = log_every
        self._global_batch = global_batch
        self._pending: Pending | None = None
        self._total_waited_s = 0.0
        self.stop_is_asked = False
        self.save_is_asked = False
        self.look_is_asked = False
        self.losses: list[float] = []  # of the open window
        self.restart()
        self.losses += losses

    def restart(self) -> None:
        """Start a new window now."""
        self._begin_window(time.perf_counter(), self._total_waited_s)

    def close_window(self) -> None:
        """Read the pending step and write what is not yet written, before work other than training."""
        self.settle()
        if self.losses:
            self._write()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        started_at_s = time.perf_counter()
        yield
        self._total_waited_s += time.perf_counter() - started_at_s

    def add(self, result: StepResult) -> None:
        """Add a new step's result and read the previous one."""
        self.settle()
        self._pending = Pending(result, time.perf_counter(), self._total_waited_s)

    def settle(self) -> None:
        """Read the pending step. Raises NonFiniteLoss if its gradient was not finite."""
        if self._pending is None:
            return
        self._last, self._pending = self._pending, None
        result = self._last.result
        self.stop_is_asked, self.save_is_asked, self.look_is_asked = result.wishes
        if not result.is_gradient_finite:
            raise gradient_fault(result.step)
        self.losses.append(result.loss)
        self._num_timed += 1
        if result.step % self._log_every == 0:
            self._write()

    def _begin_window(self, at_s: float, waited_s: float) -> None:
        self._window_at_s, self._window_waited_s = at_s, waited_s
        self.losses = []
        self._num_timed = 0

    def _write(self) -> None:
        last = self._last
        elapsed_s = last.at_s - self._window_at_s
        if self._history:
            values = {
                "loss": float(np.mean(self.losses)),
                "lr": last.result.lr,
                "images_per_s": self._num_timed * self._global_batch / elapsed_s,
                "data_wait": (last.waited_s - self._window_waited_s) / elapsed_s,
            }
            self._history.record("step", last.result.step, values)
        self._begin_window(last.at_s, last.waited_s)
