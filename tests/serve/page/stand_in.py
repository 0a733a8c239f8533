"""A small server that speaks the interface of `rayprob serve` with the predictors of bundles, without Ray, for the page.

It keeps what it was asked, and can forget its images and change its bundle, as a server does that is restarted.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import torch

import rayprob
from rayprob.api.inputs import ImageBytes
from rayprob.errors import RayprobError
from rayprob.predict.answering import Answering
from rayprob.predict.members import Forecast, Predictor
from rayprob.predict.question import DEFAULT_RULES, Question, guarantee_of
from rayprob.predict.reading import Loaded, load, stacked
from rayprob.predict.record import Record

from pathlib import Path

PAGE = Path(rayprob.__file__).parent / "serve" / "page"
KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}
ASKED_ONLY_BY_THE_SERVER = ("bundle", "marginals", "explain", "explain_method")


class Failed(Exception):
    def __init__(self, status: int, kind: str, message: str, at: int | None = None) -> None:
        super().__init__(message)
        self.answer = {"error": {"status": status, "kind": kind, "message": message, "at": at}}
        self.status = status


@dataclass
class StandIn:
    """Bundles by name, the first one being the default; what it was asked is in `asked`: (path, options)."""

    predictors: Mapping[str, Predictor]
    examples: Mapping[str, bytes] = field(default_factory=dict)
    token: str | None = None
    fingerprint: str = "0123456789abcdef"
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    seen: dict[tuple[str, str], tuple[Loaded, Forecast]] = field(default_factory=dict)

    def get(self, path: str, query: Mapping[str, list[str]]) -> Any:
        name = query.get("bundle", [next(iter(self.predictors))])[0]
        match path:
            case "/v1/labels":
                return self._labels(name, self.predictors[name])
            case "/v1/bundle":
                facts = {"num_labels": len(self.predictors[name].bundle.label_space), "calibrator": None, "trained": {"epochs": 3}}
                return {"name": name, "bundles": list(self.predictors), **facts}
            case "/v1/examples":
                return [{"name": one, "url": f"v1/examples/{one}"} for one in self.examples]
        raise Failed(404, "ServeError", f"there is nothing at {path}")

    def predict(self, image: bytes, options: dict[str, Any]) -> dict[str, Any]:
        predictor = self.predictors[options["bundle"]]
        loaded = load(ImageBytes("image", image), predictor.inputs)
        if loaded.error is not None:
            raise Failed(422, "SampleError", f"image {loaded.error}")
        sha256 = hashlib.sha256(image).hexdigest()
        inputs = [torch.from_numpy(stacked([loaded], place)) for place in range(len(predictor.inputs))]
        self.seen[options["bundle"], sha256] = loaded, predictor.forecast(inputs)
        return self.query(sha256, options)

    def query(self, sha256: str, options: dict[str, Any]) -> dict[str, Any]:
        if (options["bundle"], sha256) not in self.seen:
            raise Failed(404, "UnknownImage", "the server does not know this image; send it again")
        predictor = self.predictors[options["bundle"]]
        loaded, forecast = self.seen[options["bundle"], sha256]
        asked = {name: value for name, value in options.items() if name not in ASKED_ONLY_BY_THE_SERVER}
        try:
            (record,) = Answering(predictor, Question.of(predictor.bundle, **asked)).outcomes([loaded], forecast)
        except RayprobError as error:
            raise Failed(422, type(error).__name__, str(error), _place(str(error))) from error
        if not isinstance(record, Record):
            raise Failed(422, "QueryError", record.error)
        marginals = [float(f"{p:.6g}") for p in record.marginals_L] if options.get("marginals") else None
        maps = [_map(label, sha256) for label in options["explain"]] if options.get("explain") else None
        facts = {"sha256": sha256, "bundle": options["bundle"], "fingerprint": self.fingerprint}
        return record.to_dict() | facts | {"marginals": marginals, "explanations": maps}

    def _labels(self, name: str, predictor: Predictor) -> dict[str, Any]:
        bundle = predictor.bundle
        rules = [{"name": rule, "guarantee": guarantee_of(bundle, rule)} for rule in bundle.rules]
        for rule in rules:
            if found := bundle.thresholds.get(rule["name"] or ""):
                rule["thresholds"] = found.values_L.tolist()  # type: ignore[assignment]
        default = next(rule for rule in DEFAULT_RULES if rule in bundle.rules)
        return {"bundle": name, "labels": list(bundle.label_space.names), "rules": rules, "default_rule": default}


def _place(message: str) -> int | None:
    carets = re.search(r"^  ( *)\^+$", message, re.MULTILINE)
    return len(carets[1]) if carets else None


def _map(label: str, sha256: str) -> dict[str, Any]:
    """Return a made-up map that depends on label and image, with a strongest place."""
    seed = int(hashlib.sha256(f"{label} {sha256}".encode()).hexdigest()[:8], 16)
    y, x = np.mgrid[:7, :7]
    random = np.random.default_rng(seed)
    grid_HW = 2 * np.exp(-((y - random.integers(7)) ** 2 + (x - random.integers(7)) ** 2) / 3) - 0.2
    facts = {"label": label, "method": "contributions", "exact": True, "logit": float(grid_HW.sum() - 0.5), "rest": -0.5}
    return facts | {"height": 7, "width": 7, "box": [0, 0, 1, 1], "values": grid_HW.tolist()}


class Serving:
    """Serves a stand-in on a free port of this machine, in a thread; a context manager that gives the address."""

    def __init__(self, stand_in: StandIn) -> None:
        handler = type("Bound", (_Handler,), {"stand_in": stand_in})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.thread = Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self) -> str:
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}/"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    stand_in: StandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        if not path.startswith("/v1/"):
            file = PAGE / (path.strip("/") or "index.html")
            return self._send(200, file.read_bytes(), KINDS[file.suffix]) if file.is_file() else self._send(404, b"", "text/plain")
        if self._is_refused():
            return None
        if (name := path.removeprefix("/v1/examples/")) in self.stand_in.examples:
            return self._send(200, self.stand_in.examples[name], "image/jpeg")
        return self._answer(lambda: self.stand_in.get(path, parse_qs(address.query)))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._is_refused():
            return
        if self.path == "/v1/query":
            options = json.loads(body)
            self.stand_in.asked.append((self.path, options))
            self._answer(lambda: self.stand_in.query(options.pop("sha256"), options))
        else:
            parts = _parts(self.headers["Content-Type"], body)
            options = json.loads(parts["options"])
            self.stand_in.asked.append((self.path, options))
            self._answer(lambda: self.stand_in.predict(parts["image"], options))

    def _is_refused(self) -> bool:
        token = self.stand_in.token
        if token is None or self.headers.get("Authorization") == f"Bearer {token}":
            return False
        self._answer(lambda: _fail(Failed(401, "ServeError", "this server needs a token")))
        return True

    def _answer(self, make: Any) -> None:
        try:
            status, content = 200, make()
        except Failed as failed:
            status, content = failed.status, failed.answer
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _parts(kind: str, body: bytes) -> dict[str, bytes]:
    whole = message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body, policy=policy.HTTP)
    return {str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True) for part in whole.iter_parts()}  # type: ignore[attr-defined,misc]


def _fail(failed: Failed) -> Any:
    raise failed
