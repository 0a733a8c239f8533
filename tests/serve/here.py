"""The application in this process: bundles that compute one image at a time, behind starlette's client."""

from collections.abc import Awaitable
from typing import Any

from starlette.testclient import TestClient

from rayprob.serve.app import Front, make_app
from rayprob.serve.generation import Computed, Waiting, forecast_together
from rayprob.serve.options import Options
from rayprob.serve.pages import PageFile
from rayprob.serve.reply import Reply
from rayprob.serve.service import BundleService
from rayprob.serve.spec import Limits

PAGE = {"index.html": PageFile(b"<!doctype html><title>page</title>", "text/html; charset=utf-8")}
TOKEN = "a-token-of-twenty-letters"


class Here:
    """A service as the application calls it; `passes` counts forward passes."""

    def __init__(self, service: BundleService) -> None:
        self.service, self.passes = service, 0

    async def predict(self, sha256: str, content: bytes, options: Options) -> Reply:
        return await self.service.predict(sha256, content, options, self.forward)

    async def query(self, sha256: str, options: Options) -> Reply:
        return await self.service.query(sha256, options)

    async def facts(self) -> dict[str, Any]:
        return self.service.facts()

    async def is_ready(self) -> bool:
        return True

    async def example(self, name: str) -> bytes | None:
        return self.service.examples.read(name)

    async def forward(self, decoding: Awaitable[Waiting]) -> Computed:
        return await self.computed(await decoding)

    async def computed(self, waiting: Waiting) -> Computed:
        self.passes += 1
        return forecast_together([waiting])[0]


def client_of(
    *services: BundleService | Here, limits: Limits | None = None, token: str | None = None, root_path: str = ""
) -> TestClient:
    """Return a client of the bundles, by their names."""
    bundles = [service if isinstance(service, Here) else Here(service) for service in services]
    front = Front({one.service.name: one for one in bundles}, limits or Limits(), token, page=PAGE)
    return TestClient(make_app(front), raise_server_exceptions=False, root_path=root_path)
