"""A remote store that fails for a while, on loopback: within `patient` nobody notices; what cannot pass is said at once."""

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import tenacity

from rayprob.errors import StorageError
from rayprob.files import patience, storage
from tests.loader.s3 import Proxy, ask_once, serve

ROOT = "s3://shards/data"
OPERATIONS: dict[str, tuple[Callable[[], object], object]] = {
    "read": (lambda: storage.read_bytes(f"{ROOT}/there.txt"), b"here"),
    "read a part": (lambda: storage.read_bytes(f"{ROOT}/there.txt", 1, 2), b"er"),
    "look": (lambda: storage.exists(f"{ROOT}/there.txt"), True),
    "list": (lambda: "there.txt" in storage.list_names(ROOT), True),
    "write": (lambda: storage.write_bytes(f"{ROOT}/new.txt", b"new"), None),
    "remove": (lambda: storage.remove(f"{ROOT}/new.txt"), None),
}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("store")
    (folder / "there.txt").write_bytes(b"here")
    with pytest.MonkeyPatch.context() as monkeypatch, serve(folder, monkeypatch) as server:
        ask_once(server, monkeypatch)
        yield server


@pytest.fixture
def outage(proxy: Proxy) -> Iterator[Callable[[int], None]]:
    """Let the store answer with a status from now on."""
    yield lambda status: setattr(proxy, "outage", status)
    proxy.outage = 0


@dataclass
class Clock:
    """Stands for the time between attempts: a wait is over at once, and `after_waits` more of them end the outage."""

    proxy: Proxy
    now_s: float = 1000.0
    num_waits: int = 0
    after_waits: int = -1

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.num_waits += 1
        self.after_waits -= 1
        if self.after_waits == 0:
            self.proxy.outage = 0


@pytest.fixture
def clock(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(proxy)
    monkeypatch.setattr(patience, "time", clock)
    monkeypatch.setattr(tenacity.nap, "time", clock)
    return clock


@pytest.mark.parametrize("status", [500, 503, 429])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_outage_is_waited_for(
    clock: Clock, outage: Callable[[int], None], caplog: pytest.LogCaptureFixture, name: str, status: int
) -> None:
    operation, wanted = OPERATIONS[name]
    outage(status)
    clock.after_waits = 2
    with patience.patient(30), caplog.at_level(logging.WARNING):
        assert operation() == wanted
    assert clock.num_waits == 2
    assert f"HTTP status {status}" in caplog.text or "SLOW_DOWN" in caplog.text
    assert re.search(r"retrying for another (30|2\d) s", caplog.text)


def test_without_patience_and_after_it_the_error_comes(clock: Clock, outage: Callable[[int], None]) -> None:
    outage(503)
    with pytest.raises(StorageError, match=r"cannot read s3://shards/data/there.txt: .*HTTP status 503"):
        storage.read_bytes(f"{ROOT}/there.txt")
    assert clock.num_waits == 0
    started_at_s = clock.now_s
    with patience.patient(1.0), pytest.raises(StorageError, match="HTTP status 503"):
        storage.read_bytes(f"{ROOT}/there.txt")
    assert clock.now_s - started_at_s >= 1.0


def test_patience_is_for_an_outage_and_not_for_each_request_in_it(clock: Clock, outage: Callable[[int], None]) -> None:
    outage(503)
    with patience.patient(2.0):
        started_at_s = clock.now_s
        with pytest.raises(StorageError, match="HTTP status 503"):
            storage.read_bytes(f"{ROOT}/there.txt")
        ended_at_s = clock.now_s
        assert ended_at_s - started_at_s >= 2.0
        with pytest.raises(StorageError, match="HTTP status 503"):
            storage.read_bytes(f"{ROOT}/there.txt")
        assert clock.now_s == ended_at_s
        outage(0)
        assert storage.read_bytes(f"{ROOT}/there.txt") == b"here"
        outage(503)
        clock.after_waits = 1
        assert storage.read_bytes(f"{ROOT}/there.txt") == b"here"


@pytest.mark.parametrize(("status", "said"), [(403, "ACCESS_DENIED"), (0, "no file at s3://shards/data/nothing.txt")])
def test_what_another_attempt_would_only_meet_again_is_said_at_once(
    proxy: Proxy, outage: Callable[[int], None], caplog: pytest.LogCaptureFixture, status: int, said: str
) -> None:
    outage(status)
    with patience.patient(60), pytest.raises(StorageError, match=said):
        storage.read_bytes(f"{ROOT}/nothing.txt")
    assert "retrying" not in caplog.text
