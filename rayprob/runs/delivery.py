"""Passes the rows of a run to a sink, so that a sink that fails or is slow neither ends the run nor delays its steps."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayprob.errors import one_line
from rayprob.runs.tracking import Sink
from rayprob.runs.tracking.sink import Notes

MOST_WAITING = 10_000  # rows, kept until the service can be reached
CLOSE_WAIT_S = 60.0  # at the end of a run
MOST_LETTERS = 160  # of the error of a library
Call = Callable[[], None]
log = logging.getLogger(__name__)


class Delivery:
    """A sink and its thread, if it is a remote one. The first error of the sink is a warning; rows that fail are left out.

    A service that cannot be reached gets the rows as soon as it can be. `keep` is called with the notes that the sink returns
    when it opens, and `warn` with the warning, both perhaps by another thread.
    """

    def __init__(
        self, name: str, sink: Sink, known: Notes, keep: Callable[[str, Notes], None], warn: Callable[[str], None]
    ) -> None:
        self._name, self._sink, self._warn = name, sink, warn
        self._start: Call = lambda: keep(name, sink.open(known))
        self._is_open = self._has_warned = False
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        if sink.is_remote:
            self._thread = threading.Thread(target=self._work, name=f"rayprob-{name}", daemon=True)
            self._thread.start()
        else:
            self._is_open = self._tried(self._start)

    @property
    def is_remote(self) -> bool:
        """Whether the sink gets the rows of earlier starts, too."""
        return self._sink.is_remote

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Pass on a row."""
        self._do(partial(self._sink.record, kind, step, values))

    def show_images(self, step: int, images_BCHW: NDArray[np.uint8], captions: Sequence[str]) -> None:
        """Pass on example images with their label names."""
        self._do(partial(self._sink.show_images, step, images_BCHW, captions))

    def flush(self) -> None:
        """Ask the sink to make what it has visible; does not wait for a remote one."""
        self._do(self._sink.flush)

    def close(self, ending: str) -> None:
        """Close the sink, after all rows; waits at most CLOSE_WAIT_S for a remote one."""
        self._do(partial(self._sink.close, ending))
        if self._thread is not None:
            self._calls.put(None)
            self._thread.join(CLOSE_WAIT_S)
            if self._thread.is_alive():
                self._tell(f"did not answer within {CLOSE_WAIT_S:.0f} s")

    def _do(self, call: Call) -> None:
        if self._thread is not None:
            self._calls.put(call)
        elif self._is_open:
            self._tried(call)

    def _work(self) -> None:
        """Carry out the calls in their order, from the moment at which the sink can be opened."""
        waiting: deque[Call] = deque(maxlen=MOST_WAITING)
        while (call := self._calls.get()) is not None:
            waiting.append(call)
            self._is_open = self._is_open or self._tried(self._start)
            while self._is_open and waiting:
                self._tried(waiting.popleft())

    def _tried(self, call: Call) -> bool:
        try:
            call()
        except Exception as error:  # whatever a service's library raises
            self._tell(one_line(error, MOST_LETTERS))
            return False
        return True

    def _tell(self, why: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            text = f"tracking.{self._name}: {why}; the run continues without it, and metrics.jsonl has every row"
            log.warning("%s", text)
            self._warn(text)
