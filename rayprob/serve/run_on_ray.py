"""`rayprob serve`: starts Ray and Serve, or joins a cluster, and serves until it is asked to stop."""

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rayprob.cluster import cluster_address, import_ray, start_ray
from rayprob.errors import RayprobError, ServeError, as_error, one_line
from rayprob.serve.on_ray import application, state_of
from rayprob.serve.spec import ServeFile

APP = "rayprob"
RAISED = re.compile(r"rayprob\.errors\.(\w+): (.*)")
ONLY_HERE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # Ray's own switch: with 0, its processes listen on 127.0.0.1 only
CHECK_S = 5.0  # between two checks whether the application still runs
DELIVERY_S = 0.5  # for the last answers to pass Serve's proxy

Tell = Callable[[dict[str, Any]], None]


def run(file: ServeFile, tell: Tell, stopped: threading.Event) -> int:
    """Serve until `stopped` is set, then finish open requests; return how many did not finish in time.

    `tell` gets an event of kind `serving` when everything is served, with the number of `labels` of each bundle; and one of
    kind `bundle` when one was loaded again, or could not be: then `fault` has the reason. Raises ServeError, and the error of a
    bundle that cannot be loaded.
    """
    with _ray_here():
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.ERROR)  # its warnings concern this process, not the server
        _require_no_serve(serve)
        quiet = {"log_level": "WARNING", "enable_access_log": False}
        http = {"host": file.host, "port": file.port, "request_timeout_s": 2 * file.limits.timeout_s}
        serve.start(proxy_location="HeadOnly", http_options=http, logging_config=quiet)
        try:
            with _as_ours(serve):
                handle = serve.run(application(file), name=APP, route_prefix="/")
            _watch(serve, file, tell, stopped)
            left = int(handle.drain.remote(file.drain_s).result(timeout_s=file.drain_s + CHECK_S))
            time.sleep(DELIVERY_S)
        finally:
            if cluster_address() is not None:  # Ray on this machine ends with this process, and Serve with it
                serve.shutdown()
        return left


def _watch(serve: Any, file: ServeFile, tell: Tell, stopped: threading.Event) -> None:
    """Tell that everything is served, and what becomes of the bundles, until `stopped` is set."""
    found = {name: state_of(name, APP) for name in file.bundles}
    tell({"kind": "serving", "labels": {name: state["labels"] for name, state in found.items()}})
    told = {(name, *state.values()) for name, state in found.items()}
    while not stopped.wait(CHECK_S):
        _require_running(serve)
        for name in file.bundles:
            state = _state_of(name)
            if state and (name, *state.values()) not in told:  # replicas do not load a bundle at the same instant
                told.add((name, *state.values()))
                tell({"kind": "bundle", "name": name, **state})


def _state_of(name: str) -> dict[str, Any] | None:
    """Return the state of a bundle; None if the replica that is asked ends, or does not answer."""
    try:
        return state_of(name, APP)
    except (import_ray().exceptions.RayError, TimeoutError):
        return None


@contextmanager
def _ray_here() -> Iterator[None]:
    if cluster_address() is None:
        os.environ.setdefault(ONLY_HERE, "0")
    ray = import_ray()
    start_ray()
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _as_ours(serve: Any) -> Iterator[None]:
    """Raise the error of rayprob that a replica ended with, which Serve reports as text in the status of its deployment."""
    try:
        yield
    except RayprobError:
        raise
    except Exception as error:  # Serve raises RuntimeError, ValueError, RayServeException...
        states = serve.status().applications.get(APP)
        said = [deployment.message for deployment in states.deployments.values()] if states else []
        found = RAISED.findall("\n".join([str(error), *said]))
        if found:
            kind, message = found[-1]
            raise as_error({"kind": kind, "message": message.strip()}) from error
        why = [text.strip().splitlines()[-1] for text in [str(error), *said] if text.strip()]
        raise ServeError(f"Ray Serve did not start the application: {one_line('; '.join(why), 600)}") from error


def _require_no_serve(serve: Any) -> None:
    """Refuse a cluster that serves already: its address, and its limits, would not be those that were asked for."""
    if cluster_address() is not None and (running := serve.status().applications):
        names = ", ".join(running)
        raise ServeError(f"this cluster serves already ({names}); use `serve deploy`, or `serve shutdown` first")


def _require_running(serve: Any) -> None:
    status = serve.status().applications.get(APP)
    if status is None or status.status in ("DEPLOY_FAILED", "DELETING", "NOT_STARTED"):
        said = f": {one_line(status.message)}" if status and status.message else ""
        raise ServeError(f"Ray Serve no longer runs the application{said}; start it again")
