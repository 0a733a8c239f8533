"""The cluster of a rehearsal: cluster/onprem.yaml on test hosts, driven by the commands of its own header."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hosts import Hosts

ROOT = Path(__file__).resolve().parents[1]
FIREWALL = ("sudo ufw allow", "sudo ufw --force enable")  # lines of the header, run on every host


@dataclass
class Cluster:
    """A started cluster as its user sees it: a launcher file, a token, a tunnel to the dashboard, and commands."""

    hosts: Hosts
    environment: dict[str, str]
    file: Path
    token: str
    port: int
    tunnel: subprocess.Popen[bytes] | None = None

    @classmethod
    def prepare(cls, hosts: Hosts, job_environment: dict[str, str]) -> "Cluster":
        """Edit the launcher file as its header describes, create a token, and set up the firewalls of the header."""
        folder = hosts.folder
        home = folder / "home"
        (home / ".ray" / "auth").mkdir(parents=True)
        token = secrets.token_hex(32)
        for path in (home / ".ray" / "auth_token", home / ".ray" / "auth" / "auth_token"):
            path.touch(mode=0o600)
            path.write_text(token)
        text = (ROOT / "cluster" / "onprem.yaml").read_text()
        for old, new in (("ssh_user: rayprob", "ssh_user: root"), ("~/.ssh/rayprob", str(hosts.key))):
            assert text.count(f"{old}  # EDIT") == 1, old
            text = text.replace(f"{old}  # EDIT", new)
        file = folder / "onprem.yaml"
        file.write_text(text)
        for number in range(hosts.count):
            for line in text.splitlines():
                command = line.lstrip("# ")
                if command.startswith(FIREWALL):
                    hosts.run(number, command.removeprefix("sudo "))
        own = {"HOME": str(home), "RAY_AUTH_MODE": "token", "RAY_UP_enable_autoscaler_v2": "0", "RAY_USAGE_STATS_ENABLED": "0"}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        return cls(hosts, {**kept, **own, **job_environment, "PATH": path}, file, token, port)

    def ray(self, *arguments: str, timeout_s: float = 600) -> str:
        """Run a `ray` command as the user would; return its output. Raises RuntimeError with the output if it fails."""
        done = subprocess.run(
            ["ray", *arguments],
            cwd=ROOT,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"ray {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
        return done.stdout

    def up(self) -> None:
        """Start Ray everywhere, and wait for all workers."""
        self.ray("up", "-y", "--no-config-cache", str(self.file))
        self.open_tunnel()
        wait_for(lambda: len(self.workers()) == self.hosts.count - 1, "all workers", limit_s=300)

    def open_tunnel(self) -> None:
        """Reach the dashboard by SSH, as `ray dashboard` does."""
        self.close_tunnel()
        self.tunnel = subprocess.Popen(
            ["ray", "dashboard", str(self.file), "--port", str(self.port)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(lambda: self.get("/api/version")[0] == 200, "the dashboard", limit_s=120)

    def close_tunnel(self) -> None:
        if self.tunnel:
            os.killpg(self.tunnel.pid, signal.SIGTERM)
            self.tunnel.wait()
            self.tunnel = None

    def down(self) -> None:
        """`ray down`, which stops Ray on the head; on the workers it stops by itself."""
        self.close_tunnel()
        self.ray("down", "-y", str(self.file))

    def get(self, path: str, *, token: str | None = None, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Return status and JSON of a request to the dashboard through the tunnel; 0 if nothing answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode() if body else None)
        if token := self.token if token is None else token:
            request.add_header("Authorization", f"Bearer {token}")
        if body:
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, None
        except (OSError, ValueError):
            return 0, None

    def workers(self) -> dict[str, str]:
        """Return the node ids of the living workers by their addresses."""
        status, answer = self.get("/api/v0/nodes?limit=100")
        if status != 200:
            return {}
        nodes = answer["data"]["result"]["result"]
        return {node["node_ip"]: node["node_id"] for node in nodes if node["state"] == "ALIVE" and not node["is_head_node"]}

    def submit(self, name: str, command: list[str], variables: dict[str, str]) -> None:
        """`ray job submit`, as in the header."""
        address = f"http://127.0.0.1:{self.port}"
        environment = json.dumps({"env_vars": variables})
        head = ["job", "submit", "--address", address, "--working-dir", ".", "--submission-id", name, "--no-wait"]
        self.ray(*head, "--runtime-env-json", environment, "--", *command)

    def state(self, name: str) -> str:
        """Return a job's status, such as RUNNING; empty while nothing answers."""
        status, answer = self.get(f"/api/jobs/{name}")
        return str(answer["status"]) if status == 200 else ""

    def log(self, name: str) -> str:
        """Return the output of a job."""
        status, answer = self.get(f"/api/jobs/{name}/logs")
        return str(answer["logs"]) if status == 200 else ""

    def finish(self, name: str, limit_s: float = 900) -> str:
        """Wait for a job's end; return its log. Raises RuntimeError with it if the job failed."""
        wait_for(lambda: self.state(name) in ("SUCCEEDED", "FAILED", "STOPPED"), f"the end of {name}", limit_s=limit_s)
        log = self.log(name)
        if self.state(name) != "SUCCEEDED":
            raise RuntimeError(f"{name} {self.state(name)}:\n{log[-4000:]}")
        return log


def wait_for(is_so: Callable[[], bool], what: str, *, limit_s: float) -> float:
    """Wait; return the seconds waited. Raises RuntimeError after `limit_s`."""
    began_s = time.monotonic()
    while not is_so():
        if time.monotonic() - began_s > limit_s:
            raise RuntimeError(f"waited {limit_s:.0f} s for {what}")
        time.sleep(0.5)
    return time.monotonic() - began_s


@contextmanager
def said(what: str) -> Iterator[None]:
    """Print a step and how long it took."""
    print(f"{what} ...", flush=True)
    began_s = time.monotonic()
    yield
    print(f"    {time.monotonic() - began_s:.0f} s", flush=True)
