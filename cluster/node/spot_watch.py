"""Asks the cloud's metadata service every two seconds whether it reclaims this spot node; if so, tells Ray and exits.

    python spot_watch.py aws|gcp|azure

Ray 2.60 does not do this itself. `ray drain-node` marks the node: it gets no new work, and training saves before it is removed.
Only the standard library is needed. A second watcher on the same node exits immediately, so that `ray up` can start it again.
"""

import argparse
import fcntl
import http.client
import json
import logging
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

POLL_S = 2.0
ANSWER_S = 2.0
DRAIN_S = 60.0  # `ray` needs seconds to start on a busy node
SHORT_NOTICE_S = 30.0  # Google's notice, and Azure's minimum
METADATA = {
    "aws": "http://169.254.169.254",
    "gcp": "http://metadata.google.internal",
    "azure": "http://169.254.169.254",
}
# Errors of a service that is unreachable or gives an unexpected answer.
NO_ANSWER = (OSError, http.client.HTTPException, ValueError, KeyError, TypeError)

log = logging.getLogger("spot_watch")


def main() -> None:
    """Watch until there is a notice and Ray has accepted it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cloud", choices=list(CLOUDS))
    parser.add_argument("--metadata", metavar="URL", help="address of the service; for tests")
    parser.add_argument("--lock", default="/tmp/rayprob-spot-watch.lock", help="lock file that allows only one watcher")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with open(given.lock, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another watcher already runs on this node")
            return
        log.info("watching for a notice from %s", given.cloud)
        watch(given.cloud, given.metadata or METADATA[given.cloud])


def watch(cloud: str, metadata: str) -> None:
    """Ask until there is a notice and Ray has accepted it. Keeps asking an unreachable service, with a single warning."""
    answers = True
    while True:
        try:
            left_s = CLOUDS[cloud](metadata)
        except NO_ANSWER as error:
            if answers:
                log.warning("no answer from %s (%s); still asking", metadata, error)
            answers, left_s = False, None
        else:
            answers = True
        if left_s is not None and drain(cloud, max(0, int(left_s))):
            return
        time.sleep(POLL_S)


def aws_seconds_left(metadata: str) -> float | None:
    """Return the seconds until EC2 reclaims this instance, or None. AWS gives two minutes' notice."""
    token = ask(f"{metadata}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT")
    try:
        notice = ask(f"{metadata}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    return seconds_until(datetime.fromisoformat(json.loads(notice)["time"]))


def gcp_seconds_left(metadata: str) -> float | None:
    """Return the seconds until Google reclaims this instance, or None. The service gives no time; it is 30 s."""
    said = ask(f"{metadata}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return SHORT_NOTICE_S if said.strip() == "TRUE" else None


def azure_seconds_left(metadata: str) -> float | None:
    """Return the seconds until Azure evicts this machine, or None."""
    headers = {"Metadata": "true"}
    said = json.loads(ask(f"{metadata}/metadata/scheduledevents?api-version=2020-07-01", headers))
    evictions = [event for event in said["Events"] if event["EventType"] == "Preempt"]
    if not evictions:
        return None
    # All machines of a group receive the events of every machine.
    name = ask(f"{metadata}/metadata/instance/compute/name?api-version=2021-02-01&format=text", headers)
    ours = [event["NotBefore"] for event in evictions if name in event["Resources"]]
    # No time means that the eviction has started.
    return min((seconds_until(parsedate_to_datetime(at)) if at else 0.0 for at in ours), default=None)


CLOUDS: dict[str, Callable[[str], float | None]] = {
    "aws": aws_seconds_left,
    "gcp": gcp_seconds_left,
    "azure": azure_seconds_left,
}


def ask(url: str, headers: dict[str, str], method: str = "GET") -> str:
    """Return the service's answer, without using a proxy. Raises OSError."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(urllib.request.Request(url, headers=headers, method=method), timeout=ANSWER_S) as answer:
        return str(answer.read().decode())


def seconds_until(moment: datetime) -> float:
    """Return the seconds from now to a moment with a time zone."""
    return (moment - datetime.now(UTC)).total_seconds()


def drain(cloud: str, left_s: int) -> bool:
    """Tell Ray that each of its nodes on this machine is removed in `left_s`; return whether Ray accepted it."""
    nodes = list(ray_nodes(Path("/proc")))
    log.info("%s reclaims this machine in %d s; Ray nodes here: %s", cloud, left_s, [node for node, _ in nodes] or "none")
    taken = [drain_node(node, address, cloud, left_s) for node, address in nodes]
    return bool(taken) and all(taken)


def ray_nodes(proc: Path) -> Iterator[tuple[str, str]]:
    """Yield the id of each Ray node on this machine and the address of its cluster, from the command line of its raylet."""
    for path in proc.glob("[0-9]*/cmdline"):
        try:
            program, *arguments = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it has ended since
        options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
        if program.endswith("/raylet") and {"--node_id", "--gcs-address"} <= options.keys():
            yield options["--node_id"], options["--gcs-address"]


def drain_node(node: str, address: str, cloud: str, left_s: int) -> bool:
    """Drain one node; return whether Ray accepted it."""
    command = ["ray", "drain-node", "--address", address, "--node-id", node, "--deadline-remaining-seconds", str(left_s)]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", f"{cloud} reclaims this spot node"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DRAIN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("ray drain-node: %s", error)
        return False
    if done.returncode:
        log.warning("ray drain-node: %s", (done.stderr + done.stdout).strip()[-500:])
        return False
    log.info("Ray drains %s", node)
    return True


if __name__ == "__main__":
    main()
