"""Counts the requests that are in flight, refuses more than fit, and waits until all have finished."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rayprob.serve.faults import Busy

POLL_S = 0.05


class Gate:
    """At most `most` requests at a time; none once it is closed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.in_flight = 0
        self.is_closed = False

    @contextmanager
    def passed(self) -> Iterator[None]:
        """Count a request for as long as the block runs. Raises Busy."""
        if self.is_closed:
            raise Busy("the server is stopping; send the request again later")
        if self.in_flight >= self._most:
            raise Busy(f"{self.in_flight:,} requests are in flight, as many as are allowed; send the request again later")
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    async def drain(self, timeout_s: float) -> int:
        """Refuse new requests, wait until those in flight have finished, and return how many did not in `timeout_s`."""
        self.is_closed = True
        deadline_s = time.monotonic() + timeout_s
        while self.in_flight and time.monotonic() < deadline_s:
            await asyncio.sleep(POLL_S)
        return self.in_flight
