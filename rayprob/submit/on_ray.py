"""The jobs of a cluster, over Ray's job API: submit, follow, stop. Ray's errors become RunErrors with a remedy."""

import asyncio
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rayprob.cluster import ANSWER_S, require_answer
from rayprob.errors import RunError, one_line
from rayprob.submit.log import Log

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
# Ray prefers these to a given address.
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
PATIENCE_S = 600.0
START_S = 60.0
POLL_S = 1.0
NO_AGENT = (
    "no node of the cluster at {address} accepts jobs: it has just started, or the job agent of its head node has not "
    "(/tmp/ray/session_latest/logs/dashboard_agent.log there; a second Ray on one machine needs another "
    "--dashboard-agent-listen-port); try again"
)
NOISY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
SEE_CLUSTER = "`ray dashboard cluster/FILE.yaml` in another terminal connects to a cluster's job server"


@dataclass(frozen=True)
class End:
    """How a job ended: Ray's status (SUCCEEDED, FAILED, STOPPED) and message."""

    status: str
    message: str


class Jobs:
    """The jobs of the cluster at an address; without one, at RAY_API_SERVER_ADDRESS, RAY_ADDRESS or DEFAULT_ADDRESS."""

    def __init__(self, address: str | None = None) -> None:
        named = next((os.environ[name] for name in ADDRESS_VARIABLES if name in os.environ), DEFAULT_ADDRESS)
        self.address = address or named
        with self._reported():
            self._client = _client(self.address, is_given=address is not None)

    def submit(self, entrypoint: str, folder: str, job_id: str, env: Mapping[str, str]) -> None:
        """Upload a folder and run a command in it. Raises RunError, also if the cluster already has a job with this id."""
        runtime_env = {"working_dir": folder, **({"env_vars": dict(env)} if env else {})}
        asked = {"entrypoint": entrypoint, "submission_id": job_id, "runtime_env": runtime_env}
        deadline_s = time.monotonic() + START_S
        with self._reported():
            while not self._is_taken(asked):
                if time.monotonic() > deadline_s:
                    raise RunError(NO_AGENT.format(address=self.address))
                time.sleep(POLL_S)

    def _is_taken(self, asked: Mapping[str, Any]) -> bool:
        """Send a job; return False if the cluster is not ready yet, as just after its start."""
        try:
            self._client.submit_job(**asked)
        except RuntimeError as error:
            if "No available agent" in str(error):
                return False
            if "already exists" not in str(error):
                raise
            job_id = asked["submission_id"]
            raise RunError(
                f"the cluster already has a job {job_id}; give another --id, or follow that one: --attach {job_id}"
            ) from error
        return True

    def follow(self, job_id: str, log: Log, tell: Callable[[str], None], patience_s: float = PATIENCE_S) -> End:
        """Pass on a job's log until the job ends, and return how it ended. A broken connection is reopened.

        Raises RunError if there is no such job, or if the cluster does not answer for `patience_s` (the job continues).
        """
        self._info(job_id)
        contact = _Contact()
        while True:
            try:
                asyncio.run(self._tail(job_id, log, contact))
                info = self._client.get_job_info(job_id)
                if info.status.is_terminal():
                    return End(info.status.value, info.message or "")
                contact.heard()
            except _lost_contact() as error:
                lost_for_s = contact.lost_for_s()
                if lost_for_s > patience_s:
                    raise RunError(
                        f"{self.address} has not answered for {lost_for_s:.0f} s ({error}); the job continues without this "
                        f"terminal; once the cluster answers: rayprob submit --attach {job_id}"
                    ) from error
                if lost_for_s == 0:
                    tell(f"lost contact with {self.address}; the job continues; reconnecting")
            time.sleep(POLL_S)

    def stop(self, job_id: str) -> bool:
        """Ask a job to stop; it saves first. Return whether it was running. Raises RunError if there is no such job."""
        self._info(job_id)
        with self._reported():
            return bool(self._client.stop_job(job_id))

    def _info(self, job_id: str) -> Any:
        with self._reported():
            try:
                return self._client.get_job_info(job_id)
            except RuntimeError as error:
                if "status code 404" not in str(error):
                    raise
                known = ", ".join(job.submission_id for job in self._client.list_jobs() if job.submission_id) or "none"
                raise RunError(f"{self.address} has no job {job_id}; its jobs: {known}") from error

    async def _tail(self, job_id: str, log: Log, contact: "_Contact") -> None:
        log.rewind()
        async for text in self._client.tail_job_logs(job_id):
            contact.heard()
            log.take(text)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Turn errors of the connection and of Ray into a RunError."""
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise RunError(auth_message(self.address, str(error))) from error
        except ConnectionError as error:
            raise RunError(f"no Ray cluster answers at {self.address}; {SEE_CLUSTER}, or set --address") from error
        except (RuntimeError, OSError, ValueError) as error:  # requests' own errors are OSErrors
            said = one_line(error, 400)
            raise RunError(f"{self.address} does not behave like a Ray job server: {said}; {SEE_CLUSTER}") from error


class _Contact:
    """For how long a cluster has not answered. A log without output for hours does not count as lost contact."""

    def __init__(self) -> None:
        self._lost_at_s: float | None = None

    def heard(self) -> None:
        """Record an answer."""
        self._lost_at_s = None

    def lost_for_s(self) -> float:
        """Record that there is no answer; return the seconds since the first one was missed, 0 if this is the first."""
        now_s = time.monotonic()
        if self._lost_at_s is None:
            self._lost_at_s = now_s
        return now_s - self._lost_at_s


def auth_message(address: str, said: str) -> str:
    """Return what to do if a cluster requires a token, from Ray's message: 401 (required), 403 (failed), or none found here."""
    if said.startswith("Authentication failed"):
        return (
            f"{address} refused this token (403); export RAY_AUTH_TOKEN_PATH=FILE, the token that the cluster was started "
            "with, and unset RAY_AUTH_TOKEN, which takes precedence"
        )
    return (
        f"{address} requires a token (401); export RAY_AUTH_MODE=token, and if the token is not in "
        "~/.ray/auth_token, export RAY_AUTH_TOKEN_PATH=FILE too"
    )


def _client(address: str, *, is_given: bool) -> Any:
    _require_answer(address)
    from ray.job_submission import JobSubmissionClient

    for name in NOISY:  # these set themselves to INFO when they are imported
        logging.getLogger(name).setLevel(logging.WARNING)
    hidden = {name: os.environ.pop(name) for name in ADDRESS_VARIABLES if is_given and name in os.environ}
    try:
        return JobSubmissionClient(address)
    finally:
        os.environ.update(hidden)


def _require_answer(address: str) -> None:
    """Check that something answers at an address, because Ray would retry forever. Raises ConnectionError or RunError."""
    if not address.startswith(("http://", "https://")):
        require_answer(address, address, SEE_CLUSTER)
        return
    try:
        urllib.request.urlopen(f"{address.rstrip('/')}/api/version", timeout=ANSWER_S).close()
    except urllib.error.HTTPError:
        return  # it answers; Ray's reaction is reported elsewhere
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ConnectionError(str(error)) from error


def _lost_contact() -> tuple[type[Exception], ...]:
    """Return the errors of a broken connection in aiohttp, requests and Ray."""
    import aiohttp

    return aiohttp.ClientError, asyncio.TimeoutError, OSError, RuntimeError
