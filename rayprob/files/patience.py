"""For how long a process waits for a remote store that is busy, ill or out of reach, instead of giving up at once."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass
class _Patience:
    """For how long an outage is waited for, and since when there is one; all threads of a process share it."""

    seconds: float = 0.0
    ill_since_s: float | None = None

    def left_s(self) -> float:
        now_s = time.monotonic()
        return self.seconds - (now_s - (self.ill_since_s or now_s))


_patience = _Patience()


@contextmanager
def patient(seconds: float) -> Iterator[None]:
    """Within, a remote store that is busy, ill or out of reach is asked again, with a warning each time.

    `seconds` count from the first failure that no success follows, whatever is asked meanwhile. It holds for all threads of the
    process. Outside, the few seconds that pyarrow itself tries are all: a mistyped endpoint should be known at once.
    """
    before, _patience.seconds = _patience.seconds, seconds
    if not before:
        _patience.ill_since_s = None
    try:
        yield
    finally:
        _patience.seconds = before


def patience_s() -> float:
    """Return for how long this process waits, so that another one can be told."""
    return _patience.seconds


def wait_for_stores(seconds: float) -> None:
    """Be patient from now on; for a process that is started to work for one that is."""
    _patience.seconds = seconds


def tried(attempt: Callable[[], T], is_passing: Callable[[BaseException], bool]) -> T:
    """Return what `attempt` gives, tried again as `patient` says while it raises an error that `is_passing`."""
    if not _patience.seconds:
        return attempt()
    import tenacity

    def noted() -> T:
        try:
            result = attempt()
        except Exception as error:
            if is_passing(error):
                _patience.ill_since_s = _patience.ill_since_s or time.monotonic()
            raise
        _patience.ill_since_s = None
        return result

    return tenacity.Retrying(
        stop=lambda state: _patience.left_s() <= 0,
        wait=tenacity.wait_random_exponential(max=20),
        retry=tenacity.retry_if_exception(is_passing),
        before_sleep=_warn,
        reraise=True,
    )(noted)


def _warn(state: "RetryCallState") -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("%s; trying again, for %.0f s more", error, _patience.left_s())
