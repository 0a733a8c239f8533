"""The running part of `rayprob serve`: starts it, prints what is served where, and stops by signals."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer
from rich.console import Console

from rayprob.cli.terminal import show_line, status
from rayprob.serve.ready import url_of
from rayprob.serve.spec import ServeFile
from rayprob.text import counted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve_until_stopped(out: Console, err: Console, file: ServeFile, *, as_json: bool) -> None:
    """Serve, print what is served, and return when a signal has stopped it and open requests have finished."""
    with _stopped_by_signals(err) as stopped, status(err, "starting Ray Serve and loading the bundles") as change:
        from rayprob.serve.on_ray import run

        def tell(event: dict[str, Any]) -> None:
            change("serving; Ctrl-C stops")
            if as_json:
                typer.echo(json.dumps(_facts(file)))
            else:
                for line in _lines(file):
                    show_line(out, line)

        left = run(file, tell, stopped)
    show_line(err, f"stopped; {counted(left, 'request')} did not finish" if left else "stopped; all requests were answered")


@contextmanager
def _stopped_by_signals(err: Console) -> Iterator[threading.Event]:
    """Yield an event that the first SIGINT or SIGTERM sets; the second one raises KeyboardInterrupt."""
    stopped = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()
        show_line(err, "stopping: finishing open requests; Ctrl-C again stops at once")

    before = [signal.signal(number, stop) for number in SIGNALS]
    try:
        yield stopped
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def _facts(file: ServeFile) -> dict[str, Any]:
    return {
        "url": url_of(file.host, file.port),
        "host": file.host,
        "port": file.port,
        "pid": os.getpid(),
        "bundles": dict(file.bundles),
        "needs_token": _needs_token(file),
    }


def _lines(file: ServeFile) -> Iterator[str]:
    url = url_of(file.host, file.port)
    yield f"serving at {url}"
    for place, (name, folder) in enumerate(file.bundles.items()):
        yield f"  {name}: {folder}{' (the default)' if not place and len(file.bundles) > 1 else ''}"
    yield "token     requests must send it: Authorization: Bearer TOKEN" if _needs_token(file) else "token     not required"
    header = ' -H "Authorization: Bearer $(cat TOKEN_FILE)"' if _needs_token(file) else ""
    yield f"page      {url}/    metrics: {url}/metrics    requests: {url}/docs"
    yield f"try       curl{header} --data-binary @photo.jpg {url}/v1/predict"


def _needs_token(file: ServeFile) -> bool:
    return bool(file.token_file or file.token_variable)
