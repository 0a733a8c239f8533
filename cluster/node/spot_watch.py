"""Asks the cloud's metadata service, every two seconds, whether it takes this spot node back; if so, tells Ray, and ends.

    python spot_watch.py aws|gcp|azure

Ray 2.60 has nothing that does. `ray drain-node` marks the node: no new work comes to it, and training saves before it goes.
Only Python's own library is needed. A second one on the same node ends at once, so that `ray up` may start it again.
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
SHORT_NOTICE_S = 30.0  # Google's, and the least that Azure gives
METADATA = {
    "aws": "http://169.254.169.254",
    "gcp": "http://metadata.google.internal",
    "azure": "http://169.254.169.254",
}
# What a service that is away, or says what nobody expects, may raise.
NO_ANSWER = (OSError, http.client.HTTPException, ValueError, KeyError, TypeError)

log = logging.getLogger("spot_watch")


def main() -> None:
    """Watch until the notice came and Ray knows of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cloud", choices=list(CLOUDS))
    parser.add_argument("--metadata", metavar="URL", help="where the service is; for tests")
    parser.add_argument("--lock", default="/tmp/rayprob-spot-watch.lock", help="a file that only one watcher holds")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with open(given.lock, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another one watches this node already")
            return
        log.info("watching for a notice of %s", given.cloud)
        watch(given.cloud, given.metadata or METADATA[given.cloud])


def watch(cloud: str, metadata: str) -> None:
    """Ask until there is a notice, and until Ray has taken it. A service that is away is waited for, and named once."""
    answers = True
    while True:
        try:
            left_s = CLOUDS[cloud](metadata)
        except NO_ANSWER as error:
            if answers:
                log.warning("no answer from %s (%s); asking on", metadata, error)
            answers, left_s = False, None
        else:
            answers = True
        if left_s is not None and drain(cloud, max(0, int(left_s))):
            return
        time.sleep(POLL_S)


def aws_seconds_left(metadata: str) -> float | None:
    """Return the seconds until EC2 takes this instance back, or None. AWS gives two minutes' notice."""
    token = ask(f"{metadata}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT")
    try:
        notice = ask(f"{metadata}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    return seconds_until(datetime.fromisoformat(json.loads(notice)["time"]))


def gcp_seconds_left(metadata: str) -> float | None:
    """Return the seconds until Google takes this instance back, or None. The service names no time: it is 30 s."""
    said = ask(f"{metadata}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return SHORT_NOTICE_S if said.strip() == "TRUE" else None


def azure_seconds_left(metadata: str) -> float | None:
    """Return the seconds until Azure evicts this machine, or None."""
    headers = {"Metadata": "true"}
    said = json.loads(ask(f"{metadata}/metadata/scheduledevents?api-version=2020-07-01", headers))
    evictions = [event for event in said["Events"] if event["EventType"] == "Preempt"]
    if not evictions:
        return None
    # The events of other machines of the same group are told to all of them.
    name = ask(f"{metadata}/metadata/instance/compute/name?api-version=2021-02-01&format=text", headers)
    ours = [event["NotBefore"] for event in evictions if name in event["Resources"]]
    # No time: it has begun.
    return min((seconds_until(parsedate_to_datetime(at)) if at else 0.0 for at in ours), default=None)


CLOUDS: dict[str, Callable[[str], float | None]] = {
    "aws": aws_seconds_left,
    "gcp": gcp_seconds_left,
    "azure": azure_seconds_left,
}


def ask(url: str, headers: dict[str, str], method: str = "GET") -> str:
    """Return what the service answers, never through a proxy. Raises OSError."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(urllib.request.Request(url, headers=headers, method=method), timeout=ANSWER_S) as answer:
        return str(answer.read().decode())


def seconds_until(moment: datetime) -> float:
    """Return the seconds from now to a moment that knows its time zone."""
    return (moment - datetime.now(UTC)).total_seconds()


def drain(cloud: str, left_s: int) -> bool:
    """Tell Ray of every one of its nodes on this machine that it goes in `left_s`; return whether Ray took it."""
    nodes = list(ray_nodes(Path("/proc")))
    log.info("%s takes this machine back in %d s; Ray's nodes here: %s", cloud, left_s, [node for node, _ in nodes] or "none")
    taken = [drain_node(node, address, cloud, left_s) for node, address in nodes]
    return bool(taken) and all(taken)


def ray_nodes(proc: Path) -> Iterator[tuple[str, str]]:
    """Yield the id of each Ray node on this machine and the address of its cluster, as its raylet's command line has them."""
    for path in proc.glob("[0-9]*/cmdline"):
        try:
            program, *arguments = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it has ended meanwhile
        options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
        if program.endswith("/raylet") and {"--node_id", "--gcs-address"} <= options.keys():
            yield options["--node_id"], options["--gcs-address"]


def drain_node(node: str, address: str, cloud: str, left_s: int) -> bool:
    """Drain one node; return whether Ray took it."""
    command = ["ray", "drain-node", "--address", address, "--node-id", node, "--deadline-remaining-seconds", str(left_s)]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", f"{cloud} takes this spot node back"]
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
