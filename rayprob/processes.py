"""Starting processes from any program: a script without `if __name__ == "__main__"`, a notebook, an interactive session."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def without_main() -> Iterator[None]:
    """Let processes that multiprocessing starts in the block not run the program's `__main__` again.

    By `spawn` and `forkserver` each would import the script that was started, and repeat whatever it does outside of
    `if __name__ == "__main__"`. Ours work on objects of this package only, so they need none of it; what is sent to them must
    not be defined in `__main__`.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
