"""A job followed to its end: logs that come again, lost connections, Ctrl-C, tokens; without Ray, by answers made up here."""

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from rich.console import Console
from typer.testing import CliRunner

from rayprob.cli import show_submit
from rayprob.cli.app import app
from rayprob.errors import RunError
from rayprob.submit import on_ray
from rayprob.submit.log import Log
from rayprob.submit.on_ray import Jobs


class Client:
    """A job server's client whose answers are listed: readings of the log, each broken off or not, and the states between."""

    def __init__(self, readings: list[Any], states: list[str]) -> None:
        self.readings, self.states, self.calls = readings, states, list[tuple[str, Any]]()
        self.starting = 0  # so many submits come too early

    def submit_job(self, **asked: Any) -> None:
        self.calls.append(("submit", asked))
        if asked["submission_id"] == "taken":
            raise RuntimeError("Request failed with status code 500: Job with submission_id taken already exists.")
        if len(self.calls) <= self.starting:
            raise RuntimeError("Request failed with status code 500: No available agent to submit job, please try again later.")

    def get_job_info(self, job_id: str) -> Any:
        if job_id == "none":
            raise RuntimeError("Request failed with status code 404: Job none does not exist.")
        state = self.states.pop(0)
        status = SimpleNamespace(value=state, is_terminal=lambda: state != "RUNNING")
        return SimpleNamespace(status=status, message="why it ended\n")

    def list_jobs(self) -> list[Any]:
        return [SimpleNamespace(submission_id="paper-1"), SimpleNamespace(submission_id=None)]

    def stop_job(self, job_id: str) -> bool:
        self.calls.append(("stop", job_id))
        return True

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        for piece in self.readings.pop(0):
            if isinstance(piece, BaseException):
                raise piece
            yield piece


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "POLL_S", 0.01)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def jobs_of(monkeypatch: pytest.MonkeyPatch, readings: list[Any], states: list[str]) -> tuple[Jobs, Client]:
    client = Client(readings, states)
    monkeypatch.setattr(on_ray, "_client", lambda address, is_given: client)
    return Jobs(), client


def test_a_log_that_comes_again_is_written_once() -> None:
    written: list[str] = []
    log = Log(written.append)
    for reading in (["ab", "cd"], ["abc", "def"], ["a"], ["abcdefg", "h"]):
        log.rewind()
        for piece in reading:
            log.take(piece)
    assert "".join(written) == "abcdefgh"


def test_a_broken_connection_is_made_again_and_nothing_is_shown_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = [["one\n", aiohttp.ClientError("cut")], [ConnectionError("no")], ["one\ntwo\n"], ["one\ntwo\n", "three\n"]]
    jobs, _ = jobs_of(monkeypatch, readings, ["RUNNING", "RUNNING", "SUCCEEDED"])
    written: list[str] = []
    told: list[str] = []
    end = jobs.follow("paper-1", Log(written.append), told.append)
    assert end.status == "SUCCEEDED"
    assert "".join(written) == "one\ntwo\nthree\n"
    assert told == ["lost contact with http://127.0.0.1:8265; the job continues; reconnecting"]


def test_a_cluster_that_stays_away_ends_the_following_and_says_how_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, _ = jobs_of(monkeypatch, [[ConnectionError("no")]] * 3, ["RUNNING"])
    with pytest.raises(
        RunError, match=r"has not answered for 0 s \(no\); the job continues .*: rayprob submit --attach paper-1"
    ):
        jobs.follow("paper-1", Log(print), print, patience_s=0)


def test_patience_counts_from_the_cut_and_not_from_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = ConnectionError("no")
    jobs, _ = jobs_of(monkeypatch, [["a", cut], [cut], ["a", cut], ["a"]], ["RUNNING", "SUCCEEDED"])
    clock_s = [0.0]

    def an_hour_later() -> float:
        clock_s[0] += 3600.0
        return clock_s[0]

    monkeypatch.setattr("rayprob.submit.on_ray.time", SimpleNamespace(monotonic=an_hour_later, sleep=lambda seconds: None))
    told: list[str] = []
    assert jobs.follow("paper-1", Log(lambda text: None), told.append, patience_s=3600.0).status == "SUCCEEDED"
    assert len(told) == 2


def test_unknown_and_double_jobs_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, _ = jobs_of(monkeypatch, [], [])
    for ask in (jobs.stop, lambda job_id: jobs.follow(job_id, Log(print), print)):
        with pytest.raises(RunError, match=r"http://127.0.0.1:8265 has no job none; its jobs: paper-1$"):
            ask("none")
    with pytest.raises(RunError, match="already has a job taken; give another --id, or follow that one: --attach taken"):
        jobs.submit("true", "/tmp", "taken", {})


def test_a_cluster_that_is_starting_is_waited_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, client = jobs_of(monkeypatch, [], [])
    client.starting = 2
    jobs.submit("true", "/tmp", "paper-2", {"A": "b"})
    assert [asked["runtime_env"] for _, asked in client.calls] == [{"working_dir": "/tmp", "env_vars": {"A": "b"}}] * 3
    monkeypatch.setattr(on_ray, "START_S", 0.0)
    client.starting = 9
    with pytest.raises(RunError, match=r"no node of the cluster at http://127.0.0.1:8265 accepts jobs: .*dashboard_agent.log"):
        jobs.submit("true", "/tmp", "paper-3", {})


@pytest.mark.parametrize("address", ["http://127.0.0.1:abc", "http://127.0.0.1:1:2", "http://", "http://[::1", "https://a b"])
def test_an_address_that_is_none_is_an_error_in_words(address: str) -> None:
    with pytest.raises(RunError, match=r"no Ray cluster answers at http.*, or set --address"):
        Jobs(address)


def test_a_server_that_does_not_speak_http_is_no_cluster() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=lambda: server.accept()[0].sendall(b"SSH-2.0-OpenSSH_9.6\r\n"), daemon=True)
        answering.start()
        with pytest.raises(RunError, match="no Ray cluster answers at http"):
            Jobs(f"http://127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("STOPPED", 130)])
def test_the_exit_code_is_that_of_the_jobs_end(monkeypatch: pytest.MonkeyPatch, state: str, code: int) -> None:
    jobs_of(monkeypatch, [["step 1\n"]], ["RUNNING", state])
    result = CliRunner().invoke(app, ["submit", "--attach", "paper-1"])
    assert (result.exit_code, result.stdout) == (code, "step 1\n")
    assert f"paper-1 {state.lower()}{'' if code == 0 else ': why it ended'}" in result.stderr


def watched(monkeypatch: pytest.MonkeyPatch, answers: list[bool]) -> tuple[int, str, Client]:
    """Return the exit code, what was said, and the client, where Ctrl-C comes twice and a person answers."""
    readings = [["a\n", KeyboardInterrupt()], ["a\n", "b\n", KeyboardInterrupt()], ["a\nb\nsaved\n"]]
    jobs, client = jobs_of(monkeypatch, readings, ["RUNNING"] * 4)
    client.states = ["RUNNING", "RUNNING", "RUNNING", "STOPPED"]
    monkeypatch.setattr(show_submit, "wants_to_stop", lambda job_id: answers.pop(0))
    console = Console(record=True, width=200)
    return show_submit.watch(console, jobs, "paper-1"), console.export_text(), client


def test_ctrl_c_leaves_the_job_alone_unless_a_person_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    code, said, client = watched(monkeypatch, [False])
    assert (code, client.calls) == (130, [])
    assert "paper-1 continues without this terminal" in said
    assert "follow: rayprob submit --attach paper-1    stop: rayprob submit --stop paper-1" in said


def test_a_stop_is_asked_for_once_and_a_second_ctrl_c_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    code, said, client = watched(monkeypatch, [True])
    assert (code, client.calls) == (130, [("stop", "paper-1")])
    assert "asked paper-1 to stop; it saves first" in said
    assert "continues without this terminal" in said


@pytest.mark.parametrize(("answer", "is_stopped"), [("y\n", True), ("\n", False), ("", False)])
def test_a_person_is_asked_before_a_stop(monkeypatch: pytest.MonkeyPatch, answer: str, is_stopped: bool) -> None:
    with CliRunner().isolation(input=answer):
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        assert show_submit.wants_to_stop("paper-1") is is_stopped


def test_nobody_is_asked_without_a_terminal() -> None:
    with CliRunner().isolation(input="y\n"):
        assert not show_submit.wants_to_stop("paper-1")


def test_a_job_is_stopped_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    _, client = jobs_of(monkeypatch, [], ["RUNNING"])
    result = CliRunner().invoke(app, ["submit", "--stop", "paper-1"])
    assert (result.exit_code, client.calls) == (0, [("stop", "paper-1")])
    assert "paper-1 asked to stop; it saves first" in result.stderr


@pytest.mark.parametrize("arguments", [(), ("a.yaml", "--attach", "x"), ("--attach", "x", "--stop", "x")])
def test_one_thing_is_asked_at_a_time(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["submit", *arguments])
    assert result.exit_code == 2
    assert "expected exactly one of RUN_OR_SWEEP.yaml, --attach ID and --stop ID" in result.stderr


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A server that answers everything with a status; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"Missing or invalid token")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"requires a token \(401\); export RAY_AUTH_MODE=token"),
        (403, r"refused this token \(403\); export RAY_AUTH_TOKEN_PATH=FILE"),
        (404, r"does not behave like a Ray job server: .*404.*`ray dashboard cluster/FILE.yaml`"),
        (500, r"does not behave like a Ray job server: 500 Server Error"),
    ],
)
def test_a_refusal_says_what_to_export(status: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")  # an address that is given comes first
    with answering(status) as address, pytest.raises(RunError, match=rf"^{address} {message}"):
        Jobs(address)


def test_no_cluster_at_the_address_says_how_to_get_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    with pytest.raises(RunError, match=r"no Ray cluster answers at http://127.0.0.1:1; `ray dashboard .*, or set --address"):
        Jobs()
