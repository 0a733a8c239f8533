"""Forward passes that several requests share: while one is computed, the images of further requests wait for the next one.

`ray.serve.batch` closes a batch `wait_ms` after its first image even if the forward pass before it takes longer, so that a
busy server computes its images one by one (measured with Serve 2.60: batches of 1 for 8 clients of a ResNet-50 on a CPU).
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from rayprob.serve.generation import Computed, Waiting
from rayprob.serve.spec import BatchSpec

Compute = Callable[[Sequence[Waiting]], Sequence[Computed]]


@dataclass(frozen=True, eq=False)
class _Queued:
    """An image, where its forecast is expected, and when it came."""

    waiting: Waiting
    computed: "asyncio.Future[Computed]"
    since_s: float = field(default_factory=time.monotonic)


class Batches:
    """Computes images by `compute`, in a thread, one batch at a time; for one event loop."""

    def __init__(self, spec: BatchSpec, compute: Compute) -> None:
        self._spec, self._compute = spec, compute
        self._queue: deque[_Queued] = deque()
        self._decoding = 0
        self._changed = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def forward(self, decoding: Awaitable[Waiting]) -> Computed:
        """Return the forecast of an image that is being decoded. Raises what decoding it, or computing its batch, raises."""
        self._decoding += 1
        try:
            waiting = await decoding
        finally:
            self._decoding -= 1
            self._changed.set()
        queued = _Queued(waiting, asyncio.get_running_loop().create_future())
        self._queue.append(queued)
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await queued.computed

    async def _run(self) -> None:
        """Compute until nothing waits."""
        try:
            while self._queue:
                await self._fill()
                count = min(len(self._queue), self._spec.images)
                batch = [one for one in (self._queue.popleft() for _ in range(count)) if not one.computed.done()]
                if batch:
                    await self._answer(batch)
        finally:
            self._running = None

    async def _fill(self) -> None:
        """Wait until the batch is full, or no other image is being decoded, or the first one has waited for long enough."""
        until_s = self._queue[0].since_s + self._spec.wait_ms / 1000
        while len(self._queue) < self._spec.images and self._decoding and (left_s := until_s - time.monotonic()) > 0:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left_s)
            except TimeoutError:
                return

    async def _answer(self, batch: Sequence[_Queued]) -> None:
        try:
            found = await asyncio.to_thread(self._compute, [one.waiting for one in batch])
        except Exception as error:  # whatever a forward pass raises: each request of the batch gets it
            for one in batch:
                if not one.computed.done():
                    one.computed.set_exception(error)
            return
        for one, computed in zip(batch, found, strict=True):
            if not one.computed.done():  # its request may have ended by now
                one.computed.set_result(computed)
