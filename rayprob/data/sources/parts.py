"""Reads the parts of a source in parallel: folders, files of labels, or tars. Results are in the order of the parts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from rayprob.data.tasks import InOrder, in_threads

P = TypeVar("P")
R = TypeVar("R")
CHUNK_FILES = 512  # small files that one task reads
_reader: ContextVar[InOrder] = ContextVar("reader", default=in_threads)


@contextmanager
def parts_read_by(reader: InOrder) -> Iterator[None]:
    """Let `in_order` map with `reader` instead of threads while the block runs."""
    token = _reader.set(reader)
    try:
        yield
    finally:
        _reader.reset(token)


def reads_elsewhere() -> bool:
    """Return whether `in_order` maps with other processes, such as those of a cluster."""
    return _reader.get() is not in_threads


def in_order(read: Callable[[P], R], parts: Iterable[P]) -> Iterator[R]:
    """Yield `read(part)` for each part, in order. Both may be pickled for another process, which works in another folder:
    neither contains images, and paths in them are absolute.
    """
    return _reader.get()(read, parts)


def chunks_of(names: Sequence[P]) -> list[Sequence[P]]:
    """Return names in chunks, each large enough for a task."""
    return [names[start : start + CHUNK_FILES] for start in range(0, len(names), CHUNK_FILES)]
