"""Who is let in by a head that the command of cluster/onprem.yaml started: what listens where, and what a stranger hears."""

import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.cluster.files import CLUSTER, read_launcher_file
from tests.servers import free_port

TOKEN = "6b" * 32
LIMIT_S = 240
# One method of each service that a node offers over gRPC.
METHODS = {
    "GCS": "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "raylet": "/ray.rpc.NodeManagerService/GetSystemConfig",
    "object manager": "/ray.rpc.ObjectManagerService/Pull",
    "agent": "/ray.rpc.ReporterService/GetTraceback",
    "client": "/ray.rpc.RayletDriver/ClusterInfo",
    "worker": "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
}
JOIN = """
import sys, ray, ray.util.client.worker as worker
worker.INITIAL_TIMEOUT_SEC = worker.MAX_TIMEOUT_SEC = 2
ray.init(sys.argv[1], logging_level="ERROR", log_to_driver=False)
print("joined", len(ray.nodes()))
"""


@dataclass(frozen=True)
class Head:
    """The started head: its folder, its ports by their option of `ray start`, and the environment that it was started in."""

    folder: Path
    ports: dict[str, int]
    environment: dict[str, str]

    def pids(self) -> list[int]:
        """Return its processes, which are those that have a file of its folder open: each has a log."""
        found = Path("/proc").glob("[0-9]*/fd")
        return [int(path.parent.name) for path in found if any(link.startswith(f"{self.folder}/") for link in links(path))]

    def listeners(self) -> set[tuple[str, int]]:
        """Return (address, port) of every socket that these processes listen on."""
        inodes = {
            match[1]
            for pid in self.pids()
            for link in links(Path(f"/proc/{pid}/fd"))
            if (match := re.match(r"socket:\[(\d+)\]", link))
        }
        rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
        return {address_of(row[1]) for row in rows if row[3] == "0A" and row[9] in inodes}  # 0A: listening


def links(folder: Path) -> list[str]:
    try:
        return [os.readlink(path) for path in folder.iterdir()]
    except OSError:  # it has ended, or is another user's
        return []


def address_of(text: str) -> tuple[str, int]:
    """Return what /proc/net/tcp calls 0100007F:1F90, an address in words of the machine's byte order."""
    words, port = text.split(":")
    packed = b"".join(bytes.fromhex(words[place : place + 8])[::-1] for place in range(0, len(words), 8))
    address = socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed)
    return address.removeprefix("::ffff:"), int(port, 16)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="rayprob-", dir="/tmp"))  # a path of a socket may have 107 characters
    head = Head(folder, {}, environment_of(folder))
    try:
        yield start(head)
    finally:
        deadline_s = time.monotonic() + 30
        while (pids := head.pids()) and time.monotonic() < deadline_s:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
        shutil.rmtree(folder, ignore_errors=True)


def environment_of(folder: Path) -> dict[str, str]:
    (folder / ".ray").mkdir(mode=0o700)
    (folder / ".ray" / "auth_token").write_text(TOKEN)
    (folder / ".ray" / "auth_token").chmod(0o600)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return {"HOME": str(folder), "PATH": path, "RAY_worker_niceness": "0"}


def start(head: Head) -> Head:
    """Start Ray as the file says, but with free ports and without the autoscaler, which would look for the workers by SSH."""
    command = read_launcher_file("onprem")["head_start_ray_commands"][-1]
    command, count = re.subn(r" --autoscaling-config=\S+", "", command)
    assert count == 1
    named = ("port", "object-manager-port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")
    head.ports.update({name: free_port() for name in named})
    command = re.sub(r" --(object-manager-)?port=\d+", "", command)
    command += "".join(f" --{name}={port}" for name, port in head.ports.items()) + f" --temp-dir={head.folder}/ray"
    done = subprocess.run(
        ["bash", "-c", command], env=head.environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    deadline_s = time.monotonic() + LIMIT_S
    wanted = {head.ports["ray-client-server-port"], head.ports["dashboard-agent-listen-port"]}  # the last ones to come
    while not wanted <= {port for _, port in head.listeners()}:
        assert time.monotonic() < deadline_s, head.listeners()
        time.sleep(0.2)
    return head


def status(
    port: int, path: str, *, host: str = "127.0.0.1", method: str = "GET", token: str | None = None, body: str | None = None
) -> int | None:
    """Return the status of an answer in HTTP, or None where the port does not speak it."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().status
    except (http.client.HTTPException, OSError):
        return None
    finally:
        connection.close()


def call(host: str, port: int, method: str, token: str | None = None) -> str:
    """Return the gRPC status of an empty call."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(f"{host}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
        try:
            ask(b"", timeout=60, metadata=metadata)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


@pytest.mark.slow
@pytest.mark.ray
def test_the_dashboard_listens_on_this_machine_alone(head: Head) -> None:
    found = head.listeners()
    assert {address for address, port in found if port == head.ports["dashboard-port"]} == {"127.0.0.1"}
    assert set(head.ports.values()) <= {port for _, port in found}


@pytest.mark.slow
@pytest.mark.ray
def test_no_service_that_is_reached_from_outside_takes_a_call_without_the_token(head: Head) -> None:
    services = set()
    for address, port in head.listeners():
        if address == "127.0.0.1":
            continue
        host = "127.0.0.1" if address in ("0.0.0.0", "::") else address
        if (answer := status(port, "/", host=host)) is not None:
            services.add("metrics" if answer == 200 else f"HTTP {answer}")
            continue
        heard = {name: call(host, port, method) for name, method in METHODS.items()}
        offered = {name: said for name, said in heard.items() if said not in ("UNIMPLEMENTED", "UNAVAILABLE")}
        assert set(offered.values()) == {"UNAUTHENTICATED"}, (port, heard)
        (name,) = offered
        assert call(host, port, METHODS[name], "6c" * 32) == "UNAUTHENTICATED", name
        assert call(host, port, METHODS[name], TOKEN) != "UNAUTHENTICATED", name
        services.add(name)
    # Metrics: numbers that Prometheus reads. HTTP 401: the agents for jobs and for runtime environments. Workers come and go.
    assert services - {"worker"} == {*METHODS, "metrics", "HTTP 401"} - {"worker"}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("path", ["/api/version", "/api/jobs/", "/nodes?view=summary", "/api/cluster_status", "/logs"])
def test_the_dashboard_answers_with_the_token_only(head: Head, path: str) -> None:
    port = head.ports["dashboard-port"]
    assert status(port, path) == 401
    assert status(port, path, token="6c" * 32) == 403
    assert status(port, path, token=TOKEN) not in (401, 403, None)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("name", ["dashboard-port", "dashboard-agent-listen-port"])
def test_a_job_without_the_token_is_not_run(head: Head, name: str) -> None:
    made = head.folder / f"by-{name}"
    path = "/api/jobs/" if name == "dashboard-port" else "/api/job_agent/jobs/"
    body = json.dumps({"entrypoint": f"touch {made}"})
    assert status(head.ports[name], path, method="POST", body=body) == 401
    assert status(head.ports[name], path, method="POST", body=body, token="6c" * 32) == 403
    assert not made.exists()
    assert status(head.ports[name], path, method="POST", body=body, token=TOKEN) == 200
    deadline_s = time.monotonic() + LIMIT_S
    while not made.exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.ray
def test_joining_takes_the_token(head: Head) -> None:
    def join(address: str, mode: str) -> tuple[int, str]:
        given = {**head.environment, "RAY_AUTH_MODE": mode}
        command = [sys.executable, "-c", JOIN, address]
        done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        return done.returncode, done.stdout + done.stderr

    client = f"ray://127.0.0.1:{head.ports['ray-client-server-port']}"
    # A client gets a process of its own, for which Ray waits 30 s; a busy machine may need more.
    assert (0, "joined 1\n") in (join(client, "token") for _ in range(3))
    assert join(f"127.0.0.1:{head.ports['port']}", "token") == (0, "joined 1\n")
    code, said = join(client, "disabled")
    assert (code, "joined" in said) == (1, False)
    assert "ConnectionError: ray client connection timeout" in said


@pytest.mark.slow
@pytest.mark.ray
def test_ray_drains_the_node_that_the_spot_watcher_finds(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("spot_watch", CLUSTER / "node" / "spot_watch.py")
    assert spec
    assert spec.loader
    spot_watch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(spot_watch)
    (node,) = [node for node, address in spot_watch.ray_nodes(Path("/proc")) if address.endswith(f":{head.ports['port']}")]
    for name in os.environ:
        monkeypatch.delenv(name)
    for name, value in {**head.environment, "RAY_AUTH_MODE": "token"}.items():
        monkeypatch.setenv(name, value)
    assert spot_watch.drain_node(node, f"127.0.0.1:{head.ports['port']}", "aws", 120)
    deadline_s = time.monotonic() + LIMIT_S
    while any(node in found for found, _ in spot_watch.ray_nodes(Path("/proc"))):  # an idle node goes as soon as it is drained
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
