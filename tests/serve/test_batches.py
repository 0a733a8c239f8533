"""Which images share a forward pass, by a forward pass that waits until a test lets it go. No network is computed."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from rayprob.serve.batches import Batches
from rayprob.serve.spec import BatchSpec

LONG_MS = 60_000.0


class Passes:
    """Forward passes that note their images; each waits for a `release`, unless they are `free`."""

    def __init__(self, *, free: bool = False) -> None:
        self.batches: list[list[Any]] = []
        self.begun, self.released, self.free = threading.Semaphore(0), threading.Semaphore(0), free

    def compute(self, waiting: Sequence[Any]) -> list[Any]:
        self.batches.append(list(waiting))
        self.begun.release()
        if not self.free:
            self.released.acquire()
        if "broken" in waiting:
            raise RuntimeError("out of memory")
        return [f"forecast of {one}" for one in waiting]


async def begun(passes: Passes) -> None:
    await asyncio.to_thread(passes.begun.acquire)


async def image(name: str) -> Any:
    return name


def of(passes: Passes, images: int = 16, wait_ms: float = LONG_MS) -> Batches:
    return Batches(BatchSpec(images=images, wait_ms=wait_ms), passes.compute)


def sent(batches: Batches, *names: str) -> list["asyncio.Task[Any]"]:
    return [asyncio.create_task(batches.forward(image(name))) for name in names]


def played(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 60))  # type: ignore[arg-type]


def test_images_that_come_during_a_forward_pass_share_the_next_one() -> None:
    async def scene() -> None:
        passes = Passes()
        batches = of(passes, images=3, wait_ms=0.0)
        first = sent(batches, "a")
        await begun(passes)
        rest = sent(batches, "b", "c", "d", "e")
        await asyncio.sleep(0)
        passes.released.release(3)
        assert await asyncio.gather(*first, *rest) == [f"forecast of {name}" for name in "abcde"]
        assert passes.batches == [["a"], ["b", "c", "d"], ["e"]]

    played(scene)


def test_an_image_alone_does_not_wait() -> None:
    async def scene() -> None:
        passes = Passes(free=True)
        batches = of(passes)
        for name in "ab":
            await asyncio.gather(*sent(batches, name))
        assert passes.batches == [["a"], ["b"]]

    played(scene)


def test_an_image_waits_for_one_that_is_being_decoded() -> None:
    async def scene() -> None:
        passes = Passes(free=True)
        batches = of(passes)
        decoded: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        slow = asyncio.create_task(batches.forward(decoded))
        await asyncio.sleep(0)
        quick = sent(batches, "a")
        for _ in range(20):
            await asyncio.sleep(0)
        assert not passes.batches
        decoded.set_result("b")
        await asyncio.gather(*quick, slow)
        assert passes.batches == [["a", "b"]]

    played(scene)


def test_an_image_waits_for_no_longer_than_it_may() -> None:
    async def scene() -> None:
        passes = Passes(free=True)
        batches = of(passes, wait_ms=1.0)
        decoded: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        slow = asyncio.create_task(batches.forward(decoded))
        await asyncio.sleep(0)
        await asyncio.gather(*sent(batches, "a"))
        assert passes.batches == [["a"]]
        decoded.set_result("b")
        await slow

    played(scene)


def test_an_image_that_cannot_be_decoded_fails_alone() -> None:
    async def scene() -> None:
        async def broken() -> Any:
            raise ValueError("not an image")

        passes = Passes(free=True)
        batches = of(passes)
        found = await asyncio.gather(batches.forward(broken()), *sent(batches, "a"), return_exceptions=True)
        assert str(found[0]) == "not an image"
        assert found[1] == "forecast of a"

    played(scene)


def test_each_request_of_a_failed_forward_pass_fails_and_the_next_pass_answers() -> None:
    async def scene() -> None:
        passes = Passes(free=True)
        batches = of(passes)
        found = await asyncio.gather(*sent(batches, "a", "broken"), return_exceptions=True)
        assert [str(error) for error in found] == ["out of memory"] * 2
        assert await asyncio.gather(*sent(batches, "c")) == ["forecast of c"]

    played(scene)


@pytest.mark.parametrize("is_running", [False, True])
def test_a_request_that_ended_meanwhile_harms_no_other(is_running: bool) -> None:
    async def scene() -> None:
        passes = Passes()
        batches = of(passes, wait_ms=0.0)
        first = sent(batches, "a")
        await begun(passes)
        gone, stays = sent(batches, "b", "c")
        await asyncio.sleep(0)
        if is_running:
            passes.released.release()
            await begun(passes)
        gone.cancel()
        passes.released.release(2)
        assert await asyncio.gather(*first, stays) == ["forecast of a", "forecast of c"]
        assert passes.batches[1] == (["b", "c"] if is_running else ["c"])

    played(scene)
