"""The running part of `rayprob serve`: starts it, prints what is served where, and stops by signals."""

import json
import os
import threading
from collections.abc import Iterator
from typing import Any

import typer
from rich.console import Console

from rayprob.cli.terminal import show_line, status
from rayprob.serve.ready import url_of
from rayprob.serve.spec import ServeFile
from rayprob.signals import signals_call
from rayprob.text import counted


def serve_until_stopped(out: Console, err: Console, file: ServeFile, *, as_json: bool) -> None:
    """Serve, print what is served, and return when a signal has stopped it and open requests have finished."""
    from rayprob.serve.run_on_ray import run

    stopping = _Stopping(err)
    starting = "starting Ray Serve and loading the bundles"
    if not err.is_terminal:
        show_line(err, starting)
    with signals_call(stopping.stop), status(err, starting) as change:

        def tell(event: dict[str, Any]) -> None:
            if event["kind"] == "bundle":
                show_line(err, _became(event))
                return
            stopping.is_serving = True
            num_labels = event["labels"]
            change("serving; Ctrl-C stops", is_repeated=False)
            if as_json:
                typer.echo(json.dumps(_facts(file, num_labels)))
            else:
                for line in _lines(file, num_labels):
                    show_line(out, line)

        left = run(file, tell, stopping.asked)
    show_line(err, f"stopped; {counted(left, 'request')} did not finish" if left else "stopped; all requests were answered")


class _Stopping:
    """The first signal sets `asked`; the second one raises KeyboardInterrupt, as one does while nothing is served yet."""

    def __init__(self, err: Console) -> None:
        self._err, self.asked, self.is_serving = err, threading.Event(), False

    def stop(self) -> None:
        """Handle a signal."""
        if self.asked.is_set() or not self.is_serving:
            raise KeyboardInterrupt
        self.asked.set()
        show_line(self._err, "stopping: finishing open requests; Ctrl-C again stops at once")


def _became(event: dict[str, Any]) -> str:
    """Return what became of a bundle whose files changed."""
    if event["fault"]:
        return f"{event['name']} changed, but is not loaded, and the one before answers: {event['fault']}"
    return f"{event['name']} was loaded again; fingerprint {event['fingerprint']}"


def _facts(file: ServeFile, num_labels: dict[str, int]) -> dict[str, Any]:
    return {
        "url": url_of(file.host, file.port),
        "host": file.host,
        "port": file.port,
        "pid": os.getpid(),
        "bundles": {name: {"folder": folder, "labels": num_labels[name]} for name, folder in file.bundles.items()},
        "needs_token": _needs_token(file),
    }


def _lines(file: ServeFile, num_labels: dict[str, int]) -> Iterator[str]:
    url = url_of(file.host, file.port)
    yield f"serving at {url}"
    for place, (name, folder) in enumerate(file.bundles.items()):
        default = ", the default" if not place and len(file.bundles) > 1 else ""
        yield f"  {name:<8}  {folder}: {counted(num_labels[name], 'label')}{default}"
    yield "token     requests must send it: Authorization: Bearer TOKEN" if _needs_token(file) else "token     not required"
    header = ' -H "Authorization: Bearer $(cat TOKEN_FILE)"' if _needs_token(file) else ""
    yield f"page      {url}/    metrics: {url}/metrics    requests: {url}/docs"
    yield f"try       curl{header} --data-binary @photo.jpg {url}/v1/predict"


def _needs_token(file: ServeFile) -> bool:
    return bool(file.token_file or file.token_variable)
