"""Checks access to the hosts: open ports, which of them answer from outside, and the answers without the token."""

import socket
from typing import Any

from hosts import Hosts
from rehearsal_cluster import Cluster

PYTHON = "~/rayprob-venv/bin/python"
CLIENT = 'import ray; ray.init("ray://198.51.100.1:10001"); print("nodes", len(ray.nodes()))'
GCS = 'import ray; ray.init(address="198.51.100.1:6379", log_to_driver=False); print("nodes", len(ray.nodes()))'


def check_ports(cluster: Cluster) -> None:
    """Print requests and answers. Raises AssertionError if a request without the token succeeds."""
    for number in range(cluster.hosts.count):
        listening = ports(cluster.hosts, number)
        outside = [port for port in listening if answers(cluster.hosts.address(number), port)]
        print(f"    {cluster.hosts.address(number)}: {len(listening)} ports beyond 127.0.0.1; from outside answers {outside}")
        assert outside == [22], outside
    print("    through the tunnel    without token / wrong token / token")
    for path, body in (("/api/version", None), ("/nodes?view=summary", None), ("/api/jobs/", None), ("/api/jobs/", JOB)):
        found = [cluster.get(path, token=token, body=body)[0] for token in ("", "0" * 64, cluster.token)]
        print(f"    {'POST' if body else 'GET ':4} {path:20} {found}")
        assert found == [401, 403, 200], found
    print("    from another host     without token / token")
    for name, code in (("GCS, port 6379", GCS), ("client, port 10001", CLIENT)):
        refused, allowed = inside(cluster.hosts, code, "disabled"), inside(cluster.hosts, code, "token")
        if "nodes" not in allowed:  # Ray gives its client's server 30 s to start, too few on a busy machine
            allowed = inside(cluster.hosts, code, "token")
        print(f"    {name:24}  {refused} / {allowed}")
        assert "nodes" not in refused, refused
        assert "nodes 3" in allowed, allowed


JOB: dict[str, Any] = {"entrypoint": "true", "submission_id": "somebody"}


def ports(hosts: Hosts, number: int) -> list[int]:
    """Return the TCP ports of a host that listen on more than the loopback address."""
    lines = [line.split() for line in hosts.run(number, "ss -ltnH").splitlines()]
    found = [line[3].rsplit(":", 1) for line in lines]
    return sorted({int(port) for address, port in found if not address.startswith(("127.", "[::1]"))})


def answers(address: str, port: int) -> bool:
    """Return whether a connection from this machine, which is outside the hosts' network, is accepted."""
    try:
        with socket.create_connection((address, port), timeout=2):
            return True
    except OSError:
        return False


def inside(hosts: Hosts, code: str, mode: str) -> str:
    """Run Python on a worker, with or without authentication; return the last line of its output."""
    said = hosts.run(1, f"cd /mnt; RAY_AUTH_MODE={mode} timeout 60 {PYTHON} -c '{code}' 2>&1; true")
    return (said.strip().splitlines() or ["nothing"])[-1][:160]
