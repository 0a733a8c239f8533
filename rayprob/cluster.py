"""Imports Ray quietly, joins the cluster that RAY_ADDRESS names, or starts Ray on this machine.

Checks that the cluster answers before Ray tries to join it: Ray's own attempts take minutes, print pages of warnings, and
respond to neither Ctrl-C nor SIGTERM.
"""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rayprob.errors import RunError
from rayprob.signals import handlers_kept

log = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 100 * 2**20  # Ray requires at least 75 MiB; nothing large is stored there
ANSWER_S = 15.0  # how long to wait for an answer: the cluster's head may be starting
ATTEMPT_S = 5.0
RETRY_S = 1.0
LONG_S = 120.0  # after this long, a warning states what is being waited for
RAY_CLIENT_PORT = "10001"


def cluster_address() -> str | None:
    """Return the address in RAY_ADDRESS; None if it is unset, empty or `local`: then Ray starts on this machine."""
    address = os.environ.get("RAY_ADDRESS", "").strip()
    return None if address in ("", "local") else address


def is_running() -> bool:
    """Return whether this process has already joined or started Ray."""
    return "ray" in sys.modules and bool(import_ray().is_initialized())


def import_ray() -> Any:
    """Return the module ray, imported with the settings that it reads only on import; a user's own settings take precedence."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if cluster_address() is None:
        # Ray listens on all interfaces; with a token, only this user's processes can talk to it.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    return ray


def start_ray(**init: Any) -> None:
    """Join the cluster that RAY_ADDRESS names, or start a quiet Ray on this machine with the arguments `init`.

    Raises RunError if no cluster answers, if joining fails, or if Ray does not start on this machine.
    """
    if cluster_address() is not None:
        _join()
        return
    ray = import_ray()
    quiet = {"include_dashboard": False, "logging_level": "ERROR", "log_to_driver": False}
    # address: without it, init would join any cluster recorded in Ray's temporary folder, even a dead one.
    try:
        with handlers_kept():
            ray.init(**{"address": "local", "object_store_memory": OBJECT_STORE_BYTES, **quiet, **init})
    except Exception as error:  # OSError for a long RAY_TMPDIR, AuthenticationError, ValueError for arguments, Exception
        raise RunError(f"Ray did not start on this machine ({' '.join(str(error).split())}); {_remedy(error)}") from error


def _remedy(error: Exception) -> str:
    """Return what to do about an error of starting Ray here."""
    if type(error) is Exception:  # Ray raises this if its processes are not up within 30 s
        return "if the machine is only busy, run the same command again a little later"
    return "correct what the message names; Ray reads its settings from RAY_... environment variables, such as RAY_TMPDIR"


def require_cluster() -> None:
    """Return once the cluster that RAY_ADDRESS names answers; at once without one, or if this process has joined Ray.

    Call it before anything is written for work that needs Ray. Raises RunError.
    """
    address = cluster_address()
    if address is not None and not is_running():
        require_answer(address, f"RAY_ADDRESS={address}", "or unset RAY_ADDRESS to use this machine")


def require_answer(address: str, named: str, otherwise: str) -> None:
    """Return once a Ray head answers at `address`. Raises RunError, which calls it `named`, after ANSWER_S at most.

    The error advises to start a cluster or to correct the address, or what `otherwise` suggests.
    """
    try:
        host, port, is_head = _place_of(address)
    except ValueError as error:
        raise RunError(f"{named} {error}; correct the address, {otherwise}") from None
    deadline_s = time.monotonic() + ANSWER_S
    is_told = False
    while fault := _fault_of(host, port, is_head=is_head, timeout_s=min(ATTEMPT_S, deadline_s - time.monotonic())):
        if time.monotonic() + RETRY_S >= deadline_s or fault.startswith("unknown host"):
            raise RunError(f"no cluster answers at {named} ({fault}); start one, correct the address, {otherwise}")
        if not is_told:
            log.warning("no cluster answers yet at %s (%s); trying for %.0f s", named, fault, deadline_s - time.monotonic())
            is_told = True
        time.sleep(RETRY_S)


@contextmanager
def told_when_long(what: str, after_s: float = LONG_S) -> Iterator[None]:
    """Log `what` is being waited for, once, if the block takes longer than `after_s`."""
    timer = threading.Timer(after_s, lambda: log.warning("still waiting for %s; Ctrl-C stops", what))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _join() -> None:
    require_cluster()
    address = cluster_address()
    try:
        with handlers_kept():
            import_ray().init(logging_level="ERROR", log_to_driver=False)
    except Exception as error:  # Ray raises all kinds: ConnectionError, ValueError, AuthenticationError, Exception
        raise RunError(
            f"cannot join the Ray cluster at RAY_ADDRESS={address}: {' '.join(str(error).split())}; check "
            "that it runs, and that RAY_AUTH_MODE (and RAY_AUTH_TOKEN_PATH) are the same here and there"
        ) from error


def _place_of(address: str) -> tuple[str, int, bool]:
    """Return host, port, and whether a head listens there rather than Ray's client server. Raises ValueError."""
    if address == "auto":
        address = _started_here()
    scheme, _, rest = address.rpartition("://")
    if scheme in ("http", "https"):
        raise ValueError("is the address of a job server, for `rayprob submit`; the cluster's address is host:6379")
    host, _, port = rest.rpartition(":")
    if scheme == "ray" and not host:
        host, port = rest, RAY_CLIENT_PORT
    is_port = port.isascii() and port.isdigit() and 0 < int(port) < 2**16
    if scheme not in ("", "ray") or not host or not is_port:
        raise ValueError("is not the address of a cluster; allowed: host:port, ray://host:port, auto")
    return host.strip("[]"), int(port), scheme == ""


def _started_here() -> str:
    """Return the address of the cluster that `ray start` made on this machine. Raises ValueError if there is none."""
    import_ray()
    from ray._private.services import canonicalize_bootstrap_address

    try:
        found = canonicalize_bootstrap_address("auto")
    except ConnectionError:
        found = None
    if found is None:
        raise ValueError("finds no cluster that was started on this machine")
    return str(found)


def _fault_of(host: str, port: int, *, is_head: bool, timeout_s: float) -> str:
    """Return why no head answers; empty if one does."""
    try:
        socket.create_connection((host, port), timeout=max(0.1, timeout_s)).close()
    except (socket.gaierror, UnicodeError):
        return f"unknown host {host}"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    # With TLS, only Ray itself has the certificates to continue.
    return _silence_of(host, port, timeout_s) if is_head and not os.environ.get("RAY_USE_TLS") else ""


def _silence_of(host: str, port: int, timeout_s: float) -> str:
    """Return what is wrong if something listens but does not answer like a Ray head, which speaks gRPC."""
    import grpc

    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    # Ray does not use a proxy either.
    with grpc.insecure_channel(where, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=max(0.1, timeout_s))
        except grpc.RpcError as error:
            # Any other code is an answer, such as a missing token.
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                return "something listens there, but it does not answer like a Ray head"
    return ""
