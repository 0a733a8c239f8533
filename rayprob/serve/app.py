"""The HTTP interface: a FastAPI application that knows bundles only by name. Ray Serve runs it, and so do tests in process."""

import logging
import time
from collections.abc import Awaitable, Callable, Container, Mapping, MutableMapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from rayprob.errors import RayprobError, one_line
from rayprob.serve.access import is_allowed
from rayprob.serve.faults import ErrorReply, NoToken
from rayprob.serve.gate import Gate
from rayprob.serve.metrics import Metrics
from rayprob.serve.pages import HEADERS, PageFile, page_files, path_of
from rayprob.serve.routes import Answerer, Json, Routes
from rayprob.serve.spec import Limits

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
OPEN = ("/healthz", "/docs", "/openapi.json")  # and the page: without a token, nothing else is answered
UNEXPECTED = ErrorReply(HTTPStatus.INTERNAL_SERVER_ERROR, "ServeError", "the server failed; its log has the reason")


@dataclass(frozen=True, eq=False)
class Front:
    """What an application is made of. `token` is None if requests need none."""

    bundles: Mapping[str, Answerer]
    limits: Limits = field(default_factory=Limits)
    token: str | None = None
    metrics: Metrics = field(default_factory=Metrics)
    page: Mapping[str, PageFile] = field(default_factory=page_files)


def make_app(front: Front) -> FastAPI:
    """Return the application; its `state.gate` counts and drains its requests."""
    from rayprob import __version__

    app = FastAPI(title="rayprob", version=__version__, docs_url=None, redoc_url=None)
    app.state.gate = Gate(front.limits.in_flight)
    Routes(front.bundles, front.limits, front.metrics, app.state.gate).add_to(app, front.page)
    app.add_exception_handler(RayprobError, _refused)
    app.add_exception_handler(HTTPException, _unknown_route)
    open_paths = {*OPEN, *map(path_of, front.page)}
    app.add_middleware(Around, token=front.token, open_paths=open_paths, metrics=front.metrics)
    return app


class Around:
    """Wraps each request: checks the token, counts and times it, adds the headers of `pages`, and answers what fails."""

    def __init__(self, app: Any, token: str | None, open_paths: Container[str], metrics: Metrics) -> None:
        self._app, self._token, self._open_paths, self._metrics = app, token, open_paths, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request as ASGI defines it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s, noted = time.perf_counter(), _Noted(send)
        try:
            await self._answer(scope, receive, noted)
        except Exception as error:  # a library may raise anything; what it was is for the log, not for the client
            log.exception("a request failed: %s", one_line(error))
            if not noted.status:
                await Json(UNEXPECTED.to_dict(), UNEXPECTED.status)(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.request(route, noted.status, time.perf_counter() - started_s)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        header = dict(scope["headers"]).get(b"authorization")
        path = scope["path"].removeprefix(scope.get("root_path", ""))  # a Serve config may put the application below a prefix
        if path in self._open_paths or is_allowed(header and header.decode("latin-1"), self._token):
            await self._app(scope, receive, send)
            return
        how = "send the header `Authorization: Bearer TOKEN`"
        fault = ErrorReply.of(NoToken(f"the token is wrong; {how}" if header else f"this server requires a token; {how}"))
        await Json(fault.to_dict(), fault.status, dict(fault.headers))(scope, receive, send)


class _Noted:
    """Sends messages on, with more headers, and notes the status; 0 before there is one."""

    def __init__(self, send: Send) -> None:
        self._send, self.status = send, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message["headers"] = [*message.get("headers", ()), *extra]
        await self._send(message)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RayprobError)
    fault = ErrorReply.of(error)
    return Json(fault.to_dict(), fault.status, dict(fault.headers))


async def _unknown_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = f"{request.method} {request.url.path!r:.200} is not served ({error.detail}); /docs lists what is"
    fault = ErrorReply(error.status_code, "ServeError", said)
    return Json(fault.to_dict(), fault.status, error.headers)
