"""How long a process retries remote storage that is busy, failing or unreachable."""

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
    """How long to wait during an outage, and when it started; shared by all threads of a process."""

    seconds: float = 0.0
    ill_since_s: float | None = None

    def left_s(self) -> float:
        now_s = time.monotonic()
        return self.seconds - (now_s - (self.ill_since_s or now_s))


_patience = _Patience()


@contextmanager
def patient(seconds: float) -> Iterator[None]:
    """In this context, requests to remote storage that is busy, failing or unreachable are retried, with a warning each time.

    `seconds` count from the first failure since the last success of any request, for all threads of the process. Outside this
    context only pyarrow's own retries of a few seconds apply, so that a mistyped endpoint is reported quickly.
    """
    before, _patience.seconds = _patience.seconds, seconds
    if not before:
        _patience.ill_since_s = None
    try:
        yield
    finally:
        _patience.seconds = before


def patience_s() -> float:
    """Return how long this process waits, to pass on to another process."""
    return _patience.seconds


def wait_for_stores(seconds: float) -> None:
    """Retry for `seconds` from now on, for a worker process whose parent does so."""
    _patience.seconds = seconds


def tried(attempt: Callable[[], T], is_passing: Callable[[BaseException], bool]) -> T:
    """Return the result of `attempt`, retried within the limit of `patient` while it raises an error that `is_passing`."""
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
    log.warning("%s; retrying for another %.0f s", error, _patience.left_s())
