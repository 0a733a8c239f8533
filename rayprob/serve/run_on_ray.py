"""`rayprob serve`: starts Ray and Serve, or joins a cluster, and serves until it is asked to stop."""

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rayprob.cluster import cluster_address, import_ray, start_ray
from rayprob.errors import RayprobError, ServeError, as_error, one_line
from rayprob.serve.on_ray import application, labels_of
from rayprob.serve.spec import ServeFile

APP = "rayprob"
RAISED = re.compile(r"rayprob\.errors\.(\w+): (.*)")
ONLY_HERE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # Ray's own switch: with 0, its processes listen on 127.0.0.1 only
CHECK_S = 5.0  # between two checks whether the application still runs


def run(file: ServeFile, tell_serving: Callable[[dict[str, int]], None], stopped: threading.Event) -> int:
    """Serve until `stopped` is set, then finish open requests; return how many did not finish in time.

    `tell_serving` gets the number of labels of each bundle when everything is served. Raises ServeError, and the error of a
    bundle that cannot be loaded.
    """
    with _ray_here():
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        _require_no_serve(serve)
        quiet = {"log_level": "WARNING", "enable_access_log": False}
        http = {"host": file.host, "port": file.port, "request_timeout_s": 2 * file.limits.timeout_s}
        serve.start(proxy_location="HeadOnly", http_options=http, logging_config=quiet)
        with _as_ours(serve):
            handle = serve.run(application(file, is_only_here=cluster_address() is None), name=APP, route_prefix="/")
        tell_serving({name: labels_of(name, APP) for name in file.bundles})
        while not stopped.wait(CHECK_S):
            _require_running(serve)
        left = handle.drain.remote(file.drain_s).result(timeout_s=file.drain_s + CHECK_S)
        serve.shutdown()
        return int(left)


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
        raise ServeError(f"Ray Serve did not start the application: {one_line(error, 600)}") from error


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
