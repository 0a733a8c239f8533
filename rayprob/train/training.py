"""A run in progress in other processes, as its driver sees it: `on_ray.py` and `here.py` are the two kinds."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from rayprob.train.loop import Outcome
from rayprob.train.placing import Workers

Tell = Callable[[dict[str, Any]], None]


class Training(threading.Thread, ABC):
    """Trains a run in a thread of the driver, while the main thread follows the run and handles Ctrl-C."""

    def __init__(self, workers: Workers) -> None:
        super().__init__(name="rayprob-training", daemon=True)
        self.workers = workers
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Train, and keep the result for `outcome`."""
        try:
            self._outcome = self.train()
        except BaseException as error:  # carried to the main thread, whatever it is
            self._error = error

    def outcome(self) -> Outcome:
        """Return how the run ended, once the thread has. Raises what ended it."""
        if self._error is not None:
            raise self._error
        assert self._outcome is not None
        return self._outcome

    @abstractmethod
    def train(self) -> Outcome:
        """Train to the end of the run. Raises RunError and related errors."""

    @abstractmethod
    def waits_for(self) -> dict[str, Any]:
        """Return what explains why there is no step yet: the `resources` to place workers on, or the `log` of the worker."""

    @abstractmethod
    def abandon(self) -> None:
        """End the workers at once; does nothing if they have ended."""
