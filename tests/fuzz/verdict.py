"""One verb with one odd input, and whether it ended as a verb may end."""

import contextlib
import enum
import io
import logging
import resource
import shutil
import signal
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.cli.terminal import err
from rayprob.errors import RayprobError
from tests.fuzz.world import World

ENDS = (0, 1, 2, 130)  # done; an error in words; a wrong call; Ctrl-C
MOST_CPU_S = 60
MOST_BYTES = 6 * 2**30


class State(enum.Enum):
    """What may stand where a file should be."""

    MISSING = "missing"
    FOLDER = "a folder"
    DANGLING = "a link to nothing"


@dataclass(frozen=True)
class Case:
    """Files of the world that are other ones, and the verb that meets them."""

    arguments: tuple[str, ...]
    files: Mapping[str, bytes | State] = field(default_factory=dict)

    def __str__(self) -> str:
        files = ", ".join(f"{name} = {_shown(content)}" for name, content in self.files.items())
        return f"rayprob {' '.join(map(repr, self.arguments))}" + (f" with {files}" if files else "")


class TooLong(BaseException):
    """A verb computes for longer than anything so small can take."""


@dataclass(frozen=True)
class End:
    """How a verb ended: what it said, and where the fault lies and how it looks, both empty where there is none."""

    said: str
    fault: str = ""
    look: str = ""


def end_of(case: Case, world: World, folder: Path) -> End:
    """Run a case in a copy of the world."""
    with world.copy(folder, tuple(case.files)):
        for name, content in case.files.items():
            _replace(folder / name, content)
        try:
            with _limits():
                result = CliRunner().invoke(app, list(case.arguments))
        except TooLong as error:
            return End("", _place(error), "".join(traceback.format_exception(error)[-12:]))
    error = result.exception
    if isinstance(error, RayprobError):
        _print(error)
        return End(str(error), "" if str(error).strip() else f"an empty {type(error).__name__}")
    if error is None or (isinstance(error, SystemExit) and result.exit_code in ENDS):
        return End(result.output)
    return End(result.output, _place(error), "".join(traceback.format_exception(error)[-8:]))


def _print(error: RayprobError) -> None:
    with contextlib.redirect_stderr(io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")):
        err.print(f"error: {error}", style="red", markup=False, soft_wrap=True)


def _place(error: BaseException) -> str:
    """Return the kind of an error and the innermost line of the package that it came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/rayprob/" in frame.filename]
    where = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at rayprob/{where.filename.rpartition('/rayprob/')[2]}:{where.lineno}"


def _replace(path: Path, content: bytes | State) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)  # and not written over: it is a link to the world's own
    if content is State.FOLDER:
        path.mkdir()
    elif content is State.DANGLING:
        path.symlink_to("nothing")
    elif isinstance(content, bytes):
        path.write_bytes(content)


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Bound the time and memory of a call, which an odd number may ask for, and keep its warnings out of the tests' output."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong(f"more than {MOST_CPU_S} s of computing")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGVTALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (_used_bytes() + MOST_BYTES, hard))
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_CPU_S)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _used_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _shown(content: bytes | State) -> str:
    return content.value if isinstance(content, State) else f"{content[:400]!r}{' ...' if len(content) > 400 else ''}"
