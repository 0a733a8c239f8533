"""Starting processes from any program: a script without `if __name__ == "__main__"`, a notebook, an interactive session."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


class _Main:
    """The program's `__main__`, replaced by an empty module while any thread is in such a block."""

    def __init__(self) -> None:
        self._lock, self._blocks, self._aside = threading.Lock(), 0, ModuleType("__main__")

    def put_aside(self) -> None:
        with self._lock:
            if self._blocks == 0:
                self._aside, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
            self._blocks += 1

    def put_back(self) -> None:
        with self._lock:
            self._blocks -= 1
            if self._blocks == 0:
                sys.modules["__main__"] = self._aside


_main = _Main()


@contextmanager
def without_main() -> Iterator[None]:
    """Keep processes that multiprocessing starts in the block from running the program's `__main__` again.

    With `spawn` and `forkserver`, each would import the program's script and repeat what it does outside of
    `if __name__ == "__main__"`. rayprob's processes use only objects of this package, so they do not need the script; objects
    sent to them must not be defined in `__main__`. Blocks may overlap, also across threads: the last one to end restores it.
    """
    _main.put_aside()
    try:
        yield
    finally:
        _main.put_back()
