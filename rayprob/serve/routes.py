"""What is served at which path. An answer is computed elsewhere: by whatever an `Answerer` stands for."""

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from html import escape
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from starlette.responses import JSONResponse

from rayprob.errors import SpecError
from rayprob.images.kinds import kind_of
from rayprob.registry import unknown
from rayprob.serve.body import read_body, read_image
from rayprob.serve.describing import BODIES, SUMMARIES
from rayprob.serve.faults import ErrorReply, Late, NotServed
from rayprob.serve.gate import Gate
from rayprob.serve.metrics import CONTENT_TYPE, Metrics
from rayprob.serve.options import MOST_BYTES, WHERE, Options, read_object
from rayprob.serve.pages import KINDS, PageFile, path_of
from rayprob.serve.reply import Reply
from rayprob.serve.spec import Limits

T = TypeVar("T")
SHA256 = re.compile("[0-9a-f]{64}")
FACTS_S = 10.0  # how long a bundle may take to describe itself


class Answerer(Protocol):
    """One bundle that answers, wherever it runs."""

    async def predict(self, sha256: str, content: bytes, options: Options) -> Reply: ...
    async def query(self, sha256: str, options: Options) -> Reply: ...
    async def facts(self) -> dict[str, Any]: ...
    async def is_ready(self) -> bool: ...
    async def example(self, name: str) -> bytes | None: ...


class Json(JSONResponse):
    """JSON in ASCII, so that any name can be sent, and no cache keeps it."""

    def __init__(self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, status_code, {"cache-control": "no-store", **(headers or {})})

    def render(self, content: Any) -> bytes:
        """Return the text of plain data."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class Routes:
    """The handlers of an application."""

    def __init__(self, bundles: Mapping[str, Answerer], limits: Limits, metrics: Metrics, gate: Gate) -> None:
        self._bundles, self._limits, self._metrics, self._gate = bundles, limits, metrics, gate

    def add_to(self, app: FastAPI, page: Mapping[str, PageFile]) -> None:
        """Add all routes to an application, and the files of the page."""
        handlers: dict[tuple[str, str], Callable[..., Awaitable[Response]]] = {
            ("POST", "/v1/predict"): self._predict,
            ("POST", "/v1/query"): self._query,
            ("GET", "/v1/labels"): self._labels,
            ("GET", "/v1/bundle"): self._bundle,
            ("GET", "/v1/examples"): self._examples,
            ("GET", "/v1/examples/{name}"): self._example,
            ("GET", "/healthz"): self._healthz,
            ("GET", "/metrics"): self._metrics_text,
        }
        for (method, path), handler in handlers.items():
            extra = BODIES.get(path)
            app.add_api_route(path, handler, methods=[method], summary=SUMMARIES[path], openapi_extra=extra, name=path)
        app.add_api_route("/docs", _sender(_docs()), include_in_schema=False, name="docs")
        for name, file in page.items():
            app.add_api_route(path_of(name), _sender(file), include_in_schema=False, name=name)

    async def _predict(self, request: Request) -> Response:
        async def answer() -> Response:
            content, options = await read_image(request, self._limits.upload_bytes)
            name = self._chosen(options.bundle)
            sha256 = hashlib.sha256(content).hexdigest()
            return self._sent(name, await self._bundles[name].predict(sha256, content, options))

        return await self._in_time(answer())

    async def _query(self, request: Request) -> Response:
        async def answer() -> Response:
            asked = read_object(await read_body(request, MOST_BYTES), WHERE)
            sha256, options = asked.pop("sha256", None), Options.parse(asked, WHERE)
            if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
                raise SpecError("sha256 must be the 64 hex digits that the answer for the image had")
            name = self._chosen(options.bundle)
            return self._sent(name, await self._bundles[name].query(sha256, options))

        return await self._in_time(answer())

    async def _labels(self, request: Request) -> Response:
        name, facts = await self._facts(request)
        return Json({"bundle": name, **facts["labels"]})

    async def _bundle(self, request: Request) -> Response:
        name, facts = await self._facts(request)
        return Json({**facts["card"], "bundle": name, "bundles": list(self._bundles)})

    async def _examples(self, request: Request) -> Response:
        name, facts = await self._facts(request)
        found = [{"name": file, "url": f"v1/examples/{quote(file, safe='')}?bundle={name}"} for file in facts["examples"]]
        return Json(found)

    async def _example(self, request: Request, name: str) -> Response:
        content = await self._waited(self._bundles[self._named(request)].example(name))
        if content is None:
            raise NotServed(f"there is no example {name!r:.80}; /v1/examples lists them")
        return Response(content, media_type=f"image/{kind_of(content).title.lower()}")

    async def _healthz(self) -> Response:
        await asyncio.gather(*(self._waited(answerer.is_ready()) for answerer in self._bundles.values()))
        return Json({"status": "ok"})

    async def _metrics_text(self) -> Response:
        self._metrics.in_flight.set(self._gate.in_flight)
        return Response(self._metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def _facts(self, request: Request) -> tuple[str, dict[str, Any]]:
        name = self._named(request)
        return name, await self._waited(self._bundles[name].facts())

    def _named(self, request: Request) -> str:
        unknown_keys = set(request.query_params) - {"bundle"}
        if unknown_keys:
            raise SpecError(unknown(sorted(unknown_keys)[0], ["bundle"], "parameter"))
        return self._chosen(request.query_params.get("bundle"))

    def _chosen(self, name: str | None) -> str:
        if name is None:
            return next(iter(self._bundles))
        if name not in self._bundles:
            raise NotServed(unknown(name, self._bundles, "bundle"))
        return name

    def _sent(self, bundle: str, reply: Reply) -> Response:
        if reply.fault is not None:
            return _sent_fault(reply.fault)
        self._metrics.answer(bundle, batch=reply.batch, is_new=reply.is_new)
        return Json(reply.value)

    async def _in_time(self, answer: Awaitable[Response]) -> Response:
        """Return an answer that counts as in flight. Raises Busy and Late."""
        try:
            with self._gate.passed():
                async with asyncio.timeout(self._limits.timeout_s):
                    return await answer
        except TimeoutError:
            raise Late(f"no answer within {self._limits.timeout_s:g} s; send the request again later") from None
        finally:
            if asyncio.iscoroutine(answer):
                answer.close()  # one that was never awaited

    async def _waited(self, found: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(found, FACTS_S)
        except TimeoutError:
            raise Late(f"a bundle did not answer within {FACTS_S:g} s") from None


def _sent_fault(fault: ErrorReply) -> Response:
    return Json(fault.to_dict(), fault.status, fault.headers)


def _sender(file: PageFile) -> Callable[[], Awaitable[Response]]:
    async def send() -> Response:
        return Response(file.content, headers={"content-type": file.kind, "cache-control": "no-cache"})

    return send


def _docs() -> PageFile:
    """Return a page with all requests, which loads nothing from elsewhere."""
    rows = "".join(f"<dt><code>{escape(path)}</code></dt><dd>{escape(text)}</dd>" for path, text in SUMMARIES.items())
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>rayprob serve</title><h1>rayprob serve</h1>'
    more = '<p>Requests and answers in detail: <a href="openapi.json">openapi.json</a>.</p></html>'
    return PageFile(f"{head}<dl>{rows}</dl>{more}".encode(), KINDS[".html"])
