"""The page behind the real application, in a thread of this process, without Ray; maps are made up, so that they are known."""

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import uvicorn

from rayprob.serve.app import Front, make_app
from rayprob.serve.options import Options
from rayprob.serve.reply import Reply
from rayprob.serve.seen import SeenImages
from rayprob.serve.service import BundleService
from rayprob.serve.spec import Limits
from tests.serve.here import Here

REST, ROWS, COLUMNS = -0.5, 5, 7
WITHOUT_MAPS = {"explain": False}


class Watched(Here):
    """A bundle that notes what it is asked, answers only while it may, and can forget."""

    def __init__(self, service: BundleService) -> None:
        super().__init__(service)
        self.asked: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    async def predict(self, sha256: str, content: bytes, options: Options) -> Reply:
        self.asked.append("predict")
        return await self._with_maps(options, super().predict(sha256, content, options.model_copy(update=WITHOUT_MAPS)))

    async def query(self, sha256: str, options: Options) -> Reply:
        self.asked.append("query")
        return await self._with_maps(options, super().query(sha256, options.model_copy(update=WITHOUT_MAPS)))

    def forget(self) -> None:
        """Forget all images, as a server does that is started again."""
        self.service.generation = replace(self.service.generation, seen=SeenImages(10, 2**20))

    async def _with_maps(self, options: Options, answer: Coroutine[Any, Any, Reply]) -> Reply:
        await asyncio.get_running_loop().run_in_executor(None, self.may_answer.wait, 60)
        reply = await answer
        if reply.value is not None and not isinstance(options.explain, bool):
            reply.value["explanations"] = [made_up_map(label) for label in options.explain]
        return reply


def made_up_map(label: str) -> dict[str, Any]:
    """Return a map that is positive in its last cell, the bottom right one, and slightly negative elsewhere."""
    grid_HW = np.full((ROWS, COLUMNS), -0.01)
    grid_HW[-1, -1] = 2.0
    facts = {"label": label, "method": "contributions", "exact": True, "logit": float(grid_HW.sum() + REST), "rest": REST}
    return facts | {"height": ROWS, "width": COLUMNS, "box": [0, 0, 1, 1], "values": grid_HW.tolist()}


@dataclass(frozen=True)
class Site:
    """The address of a running application, and its bundles."""

    url: str
    bundles: tuple[Watched, ...]


@contextmanager
def serving(services: Sequence[BundleService], token: str | None = None) -> Iterator[Site]:
    """Serve the page and the bundles on a free port until the end of the block."""
    bundles = tuple(map(Watched, services))
    app = make_app(Front({one.service.name: one for one in bundles}, Limits(), token))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "uvicorn ended instead of starting"
        time.sleep(0.01)
    try:
        yield Site(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/", bundles)
    finally:
        server.should_exit = True
        thread.join(60)
