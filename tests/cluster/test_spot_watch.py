"""cluster/node/spot_watch.py beside stand-ins: a metadata service on loopback, `ray` first in PATH, a process like a raylet."""

import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cluster.files import CLOUD_FILES, CLUSTER, read_launcher_file

SCRIPT = CLUSTER / "node" / "spot_watch.py"
NODE = secrets.token_hex(28)  # a watcher looks at all of the machine, where another suite may run, too
LIMIT_S = 240
CLOUD_OF_FILE = {"gpu": "aws", "gcp": "gcp", "azure": "azure"}


def load() -> Any:
    spec = importlib.util.spec_from_file_location("spot_watch", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


spot_watch = load()


class Metadata(ThreadingHTTPServer):
    """Answers `answers[path]`, a status and a text, and 404 elsewhere; 401 without the headers that the cloud wants."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, tuple[int, str]] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Metadata

    def do_PUT(self) -> None:
        known = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self._answer(*((200, "the-token") if known else (404, "")))

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        wanted = {
            "/latest": ("X-aws-ec2-metadata-token", "the-token"),
            "/computeMetadata": ("Metadata-Flavor", "Google"),
            "/metadata": ("Metadata", "true"),
        }
        header, value = next(pair for start, pair in wanted.items() if self.path.startswith(start))
        self._answer(*(self.server.answers.get(self.path, (404, "")) if self.headers[header] == value else (401, "")))

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with Metadata() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


AWS_PATH = "/latest/meta-data/spot/instance-action"
GCP_PATH = "/computeMetadata/v1/instance/preempted"
AZURE_PATH = "/metadata/scheduledevents?api-version=2020-07-01"
AZURE_NAME_PATH = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"


def in_(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def azure_event(**values: Any) -> str:
    event = {"EventId": "A", "EventType": "Preempt", "ResourceType": "VirtualMachine", "Resources": ["ray-worker-1"]}
    event |= {"EventStatus": "Scheduled", "NotBefore": f"{in_(7200):%a, %d %b %Y %H:%M:%S} GMT", **values}
    return json.dumps({"DocumentIncarnation": 1, "Events": [event]})


def test_aws_names_the_moment_and_404_is_no_notice(metadata: Metadata) -> None:
    assert spot_watch.aws_seconds_left(metadata.url) is None
    metadata.answers[AWS_PATH] = (200, json.dumps({"action": "terminate", "time": f"{in_(7200):%Y-%m-%dT%H:%M:%SZ}"}))
    assert 6900 < spot_watch.aws_seconds_left(metadata.url) <= 7200
    metadata.answers[AWS_PATH] = (500, "")
    with pytest.raises(spot_watch.NO_ANSWER):
        spot_watch.aws_seconds_left(metadata.url)


def test_google_says_true_and_gives_thirty_seconds(metadata: Metadata) -> None:
    metadata.answers[GCP_PATH] = (200, "FALSE")
    assert spot_watch.gcp_seconds_left(metadata.url) is None
    metadata.answers[GCP_PATH] = (200, "TRUE\n")
    assert spot_watch.gcp_seconds_left(metadata.url) == 30


def test_azure_names_the_machines_and_only_our_own_eviction_counts(metadata: Metadata) -> None:
    metadata.answers = {AZURE_PATH: (200, '{"DocumentIncarnation": 0, "Events": []}'), AZURE_NAME_PATH: (200, "ray-worker-1")}
    assert spot_watch.azure_seconds_left(metadata.url) is None
    assert metadata.asked == [AZURE_PATH]
    metadata.answers[AZURE_PATH] = (200, azure_event())
    assert 6900 < spot_watch.azure_seconds_left(metadata.url) <= 7200
    metadata.answers[AZURE_PATH] = (200, azure_event(EventStatus="Started", NotBefore=""))
    assert spot_watch.azure_seconds_left(metadata.url) == 0
    for other in ({"EventType": "Reboot"}, {"Resources": ["ray-worker-2"]}):
        metadata.answers[AZURE_PATH] = (200, azure_event(**other))
        assert spot_watch.azure_seconds_left(metadata.url) is None


def test_ray_nodes_are_read_from_the_command_lines_of_their_raylets(tmp_path: Path) -> None:
    def process(number: str, *arguments: str) -> None:
        (tmp_path / number).mkdir()
        (tmp_path / number / "cmdline").write_text("\0".join(arguments) + "\0")

    process("7", "/site-packages/ray/core/src/ray/raylet/raylet", "--a", f"--node_id={NODE}", "--gcs-address=10.0.0.1:6379")
    process("8", "/usr/bin/python", "agent.py", f"--node_id={NODE}", "--gcs-address=10.0.0.1:6379")
    process("9", "")
    (tmp_path / "10").mkdir()  # it ended meanwhile
    assert list(spot_watch.ray_nodes(tmp_path)) == [(NODE, "10.0.0.1:6379")]


@dataclass
class Watcher:
    """A running spot_watch.py, and what its `ray` was called with. That `ray` refuses once where there is a file `refuse`."""

    folder: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, cloud: str, url: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-u", str(SCRIPT), cloud, "--metadata", url, "--lock", str(self.folder / "lock")]
        proxies = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
        environment = {**os.environ, **proxies, "PATH": f"{self.folder}:/usr/bin:/bin"}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.processes.append(process)
        return process

    def drained(self) -> list[str]:
        """Return the calls about the raylet of this test; the machine may run other Rays."""
        log = self.folder / "ray.log"
        return [line for line in log.read_text().splitlines() if NODE in line] if log.exists() else []


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator[Watcher]:
    ray = tmp_path / "ray"
    ray.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/ray.log\nrm {tmp_path}/refuse 2> /dev/null && echo no GCS && exit 1\nexit 0\n'
    )
    ray.chmod(0o755)
    arguments = ["/a/ray/core/src/ray/raylet/raylet", "-c", "import time; time.sleep(3600)"]
    arguments += [f"--node_id={NODE}", "--gcs-address=10.0.0.1:6379"]
    raylet = subprocess.Popen(arguments, executable=sys.executable)
    watcher = Watcher(tmp_path)
    try:
        yield watcher
    finally:
        for process in (raylet, *watcher.processes):
            process.kill()
            process.wait()


def wait_until(done: Any) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_notice_drains_the_node_once_and_ends_the_watch(metadata: Metadata, watcher: Watcher) -> None:
    metadata.answers[GCP_PATH] = (200, "FALSE")
    process = watcher.start("gcp", metadata.url)
    wait_until(lambda: metadata.asked)
    assert watcher.drained() == []
    metadata.answers[GCP_PATH] = (200, "TRUE")
    said, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, said
    assert watcher.drained() == [
        f"drain-node --address 10.0.0.1:6379 --node-id {NODE} --deadline-remaining-seconds 30 "
        "--reason DRAIN_NODE_REASON_PREEMPTION --reason-message gcp reclaims this spot node"
    ]
    assert f"Ray drains {NODE}" in said


def test_a_drain_that_ray_refuses_is_tried_again(metadata: Metadata, watcher: Watcher) -> None:
    (watcher.folder / "refuse").touch()
    metadata.answers[GCP_PATH] = (200, "TRUE")
    process = watcher.start("gcp", metadata.url)
    said, _ = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, len(watcher.drained())) == (0, 2)
    assert "ray drain-node: no GCS" in said


def test_a_service_that_is_away_is_named_once_and_asked_on(metadata: Metadata, watcher: Watcher) -> None:
    metadata.answers[GCP_PATH] = (503, "")
    process = watcher.start("gcp", metadata.url)
    wait_until(lambda: len(metadata.asked) >= 3)
    metadata.answers[GCP_PATH] = (200, "TRUE")
    said, _ = process.communicate(timeout=LIMIT_S)
    assert said.count("no answer from") == 1
    assert len(watcher.drained()) == 1


class Enough(Exception):
    """Ends a watch that has no end."""


def test_nobody_at_the_address_is_no_end(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    polls = iter(range(3))

    def sleep(_: float) -> None:
        if next(polls, None) is None:
            raise Enough

    monkeypatch.setattr(spot_watch, "time", SimpleNamespace(sleep=sleep))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Enough):
            spot_watch.watch("aws", url)
    assert caplog.text.count(f"no answer from {url}") == 1


def test_a_node_has_one_watcher(metadata: Metadata, watcher: Watcher) -> None:
    metadata.answers[GCP_PATH] = (200, "FALSE")
    first = watcher.start("gcp", metadata.url)
    wait_until(lambda: metadata.asked)
    second = watcher.start("gcp", metadata.url)
    assert "another watcher already runs on this node" in second.communicate(timeout=LIMIT_S)[0]
    assert second.returncode == 0
    assert first.poll() is None


@pytest.mark.parametrize("name", CLOUD_FILES)
def test_workers_start_a_watcher_that_holds_up_nothing(name: str, tmp_path: Path) -> None:
    (_, command, start) = read_launcher_file(name)["worker_start_ray_commands"]
    assert start.startswith("ulimit")
    script = tmp_path / "rayprob-node" / "spot_watch.py"
    script.parent.mkdir()
    script.write_text("import os, sys, time; print(os.getpid(), 'watches', *sys.argv[1:], flush=True); time.sleep(600)")
    log = tmp_path / "spot.log"
    there = command.replace("~/", f"{tmp_path}/").replace("/tmp/rayprob-spot-watch.log", str(log))
    assert str(log) in there
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "python").symlink_to(sys.executable)
    environment = {**os.environ, "PATH": f"{bin_folder}:/usr/bin:/bin"}
    # As Ray wraps it; the pipe closes only when nothing in the background holds it.
    done = subprocess.run(
        ["bash", "-c", f"({there})"], env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
    number, *said = log.read_text().split()
    os.kill(int(number), signal.SIGKILL)
    assert said == ["watches", CLOUD_OF_FILE[name]]
