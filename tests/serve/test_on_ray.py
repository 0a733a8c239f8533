"""`rayprob serve` as a process of its own, on Ray Serve: answers, where it listens, a bundle that changes, and how it stops."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import rayprob as rp
from tests.loader.tiny import photo
from tests.predict.small import make_bundle
from tests.serve.listeners import addresses, descendants
from tests.servers import free_port

LIMIT_S = 240
ATTEMPTS = 5


class Started(NamedTuple):
    """A server's process, and what it printed when everything was served."""

    process: "subprocess.Popen[str]"
    printed: dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    path = str(tmp_path / "birds" / "bundle")
    make_bundle(1, {"name": "mixture", "components": 3}).save(path)
    return path


@pytest.fixture
def server(folder: str) -> Iterator["Started"]:
    """A server that answers. On a machine so busy that Ray gives up starting, it is started again."""
    for _ in range(ATTEMPTS):
        port = str(free_port())
        command = [sys.executable, "-m", "rayprob", "serve", folder, "--port", port, "--json", "--set", "reload_s=0.1"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout
        if line := process.stdout.readline():
            break
        _, said = process.communicate(timeout=LIMIT_S)
        assert "if the machine is only busy" in said, said
    else:
        pytest.fail(f"Ray did not start in {ATTEMPTS} attempts: {said}")
    yield Started(process, json.loads(line))
    process.kill()
    process.wait()


@pytest.mark.ray
def test_serve_answers_reloads_and_stops(server: Started, folder: str) -> None:
    process, started = server
    assert process.stderr
    assert started["bundles"] == {"birds": {"folder": folder, "labels": 6}}
    client = rp.Client(started["url"])
    ours, theirs = rp.load(folder).predict(photo(1)), client.predict(photo(1))
    assert theirs.marginals_L == pytest.approx(ours.marginals_L, abs=1e-6)
    assert theirs.given({"cat": False}).label_set == ours.given({"cat": False}).label_set

    listening = addresses(descendants(process.pid))
    assert listening
    assert {host for host, _ in listening} == {"127.0.0.1"}

    stop, seen = threading.Event(), [theirs.fingerprint]

    def ask() -> None:
        while not stop.is_set():
            seen.append(client.predict(photo(len(seen))).fingerprint)

    asking = threading.Thread(target=ask)
    asking.start()
    make_bundle(2, {"name": "bernoulli"}).save(folder)
    while len(set(seen)) < 2:
        assert asking.is_alive(), "a request failed while the bundle changed"
        stop.wait(0.05)
    stop.set()
    asking.join()
    assert client.predict(photo(1)).marginals_L == pytest.approx(rp.load(folder).predict(photo(1)).marginals_L, abs=1e-6)

    later = (line for line in process.stderr if not line.startswith("starting Ray Serve and loading the bundles"))
    assert next(later) == f"birds was loaded again; fingerprint {seen[-1]}\n"
    os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, said
    assert "stopping: finishing open requests" in said
    assert said.rstrip().endswith("stopped; all requests were answered")
