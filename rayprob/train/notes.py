"""Keeps rank 0's warnings from preparing a run for the run's history: a worker's own output stays in Ray's logs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Notes(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Yield a list that collects each warning that rayprob logs inside the block; they are still logged as usual."""
    notes, logger = _Notes(), logging.getLogger("rayprob")
    logger.addHandler(notes)
    try:
        yield notes.texts
    finally:
        logger.removeHandler(notes)
