"""Joining Ray: a cluster that is not there is named within seconds, and a Ray that does not start says what to do."""

import logging
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rayprob import cluster
from rayprob.errors import RunError


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give an answer a second instead of twenty, and no Ray of another test."""
    monkeypatch.setattr(cluster, "ANSWER_S", 1.0)
    monkeypatch.setattr(cluster, "RETRY_S", 0.1)
    monkeypatch.setattr(cluster, "is_running", lambda: False)


@pytest.fixture
def listening() -> Iterator[str]:
    """The address of something that listens and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed() -> Iterator[str]:
    """An address that nobody listens at, and nobody else can take meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_closed_port_is_named_with_what_to_do(
    scheme: str, closed: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", scheme + closed)
    named = f"RAY_ADDRESS={scheme}{closed}"
    with caplog.at_level(logging.WARNING), pytest.raises(RunError) as raised:
        cluster.start_ray()
    assert str(raised.value) == (
        f"no cluster answers at {named} (connection refused); start one, correct the address, or unset RAY_ADDRESS to use this "
        "machine"
    )
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [f"no cluster answers yet at {named}"]


def test_what_listens_and_is_no_head_is_told_from_one(listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", listening)
    with pytest.raises(RunError, match=r"\(something listens there, but it does not answer like a Ray head\); start one"):
        cluster.require_cluster()


def test_anything_that_speaks_grpc_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    import grpc

    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    cluster.require_cluster()
    server.stop(None)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "no.such.host.invalid:6379",
            r"^no cluster answers at RAY_ADDRESS=.* \(unknown host no.such.host.invalid\); start one",
        ),
        ("http://127.0.0.1:8265", "is the address of a job server, for `rayprob submit`"),
        (
            "127.0.0.1",
            "is not the address of a cluster; allowed: host:port, ray://host:port, auto; correct the address, or",
        ),
        ("127.0.0.1:99999", "is not the address"),
        ("127.0.0.1:port", "is not the address"),
        (":6379", "is not the address"),
        ("ftp://host:1", "is not the address"),
    ],
)
def test_an_address_that_cannot_be_is_refused_at_once(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("nothing to wait for"))
    with pytest.raises(RunError, match=message):
        cluster.require_cluster()


def test_auto_without_a_cluster_on_this_machine_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray._private.services as services

    def nothing(_: str) -> str:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(services, "canonicalize_bootstrap_address", nothing)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(RunError, match="RAY_ADDRESS=auto finds no cluster that was started on this machine"):
        cluster.require_cluster()


@pytest.mark.parametrize("address", [None, "", "local"])
def test_no_address_is_this_machine(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, Any] = {}

    class Ray:
        @staticmethod
        def init(**given: Any) -> None:
            started.update(given)

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(cluster, "import_ray", lambda: Ray)
    cluster.start_ray()
    assert started["address"] == "local"


def test_a_ray_that_does_not_come_up_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ray:
        @staticmethod
        def init(**_: Any) -> None:
            raise Exception("The current node timed out during startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "import_ray", lambda: Ray)
    with pytest.raises(RunError, match=r"Ray did not start on this machine \(The current node timed out .* a little later"):
        cluster.start_ray()


@pytest.mark.parametrize("error", [OSError("AF_UNIX path length cannot exceed 107 bytes"), ValueError("num_cpus\n= -1")])
def test_whatever_keeps_ray_from_starting_here_is_an_error_that_names_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ray:
        @staticmethod
        def init(**_: Any) -> None:
            raise error

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "import_ray", lambda: Ray)
    with pytest.raises(RunError, match=r"did not start on this machine \((AF_UNIX path .*|num_cpus = -1)\); correct what"):
        cluster.start_ray()


def test_a_cluster_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ray:
        @staticmethod
        def init(**_: Any) -> None:
            raise ValueError("no node of this cluster\nruns here")

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    monkeypatch.setattr(cluster, "import_ray", lambda: Ray)
    monkeypatch.setattr(cluster, "require_cluster", lambda: None)
    with pytest.raises(
        RunError, match=r"cannot join the Ray cluster at RAY_ADDRESS=127.0.0.1:6379: no node of this cluster runs"
    ):
        cluster.start_ray()


def test_a_long_wait_says_what_it_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), cluster.told_when_long("a free CPU", after_s=0.0):
        deadline_s = time.monotonic() + 10
        while not caplog.records and time.monotonic() < deadline_s:
            time.sleep(0.001)
    assert [record.getMessage() for record in caplog.records] == ["still waiting for a free CPU; Ctrl-C stops"]
