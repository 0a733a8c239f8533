"""Runs the steps of cluster/onprem.yaml as root on one Linux machine: up, firewall, doctor, training, faults, down.

    python benchmarks/rehearsal.py                            # everything, half an hour on two cores
    python benchmarks/rehearsal.py --faults "node lost"       # one fault after the undisturbed run

Three hosts are made of namespaces (see hosts.py): a head and two workers, each behind the firewall from the launcher file's
header; an S3 store (moto) on this machine stores shards and runs. Two hosts train the real sample together
(../shared/coco-sample), undisturbed, and then once for each fault. Losses, evaluations and tensors are compared with those of
the undisturbed run. Everything except the output is removed at the end.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import boto3  # noqa: E402
from faults import verdict  # noqa: E402
from hosts import HERE, Hosts, namespaces  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402
from rehearsal_cluster import Cluster, said, wait_for  # noqa: E402
from rehearsal_ports import check_ports  # noqa: E402

from rayprob.runs.checkpoints import list_checkpoints  # noqa: E402
from rayprob.runs.history_rows import read_history  # noqa: E402
from tests.loader.s3 import Proxy  # noqa: E402

SHARED = ROOT.parent / "shared"
BUCKET = "s3://rehearsal"
EVERY_STEPS = 4
SETTINGS = {
    "data.root": f"{BUCKET}/coco-sample",
    "model.weights": f"{BUCKET}/lite0.safetensors",
    "transforms.train.size_px": 192,
    "transforms.evaluate.size_px": 192,
    "duration": "{epochs: 8}",
    "evaluation.every": "{epochs: 4}",
    "checkpoint.every_steps": EVERY_STEPS,
    "log_every_steps": 1,
    "placement.cpus_per_worker": 2,  # all CPUs of a host, so one worker on each
}
# gloo would resolve the host's own name, which does not work here.
VARIABLES = {"GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"}


@dataclass
class Rehearsal:
    """A cluster with its store, and the runs in it."""

    cluster: Cluster
    store: Proxy
    s3: dict[str, str]

    def folder(self, name: str) -> str:
        return f"{BUCKET}/runs/{name}"

    def train(self, name: str, job: str | None = None, **more: Any) -> str:
        """Submit the training of a run; return its job's name."""
        settings = {"name": name, "folder": self.folder(name), **SETTINGS, **more}
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        job = job or name
        self.cluster.submit(job, ["rayprob", "train", "tune_configs/coco-sample.yaml", *words], {**self.s3, **VARIABLES})
        return job

    def saved(self, name: str) -> int:
        """Return the step of a run's newest checkpoint; -1 without any."""
        return max((checkpoint.step for checkpoint in list_checkpoints(self.folder(name))), default=-1)

    def starts(self, name: str) -> list[tuple[int, int]]:
        """Return (step, world size) of every start that the run's history knows."""
        return [(row["step"], row["world_size"]) for row in read_history(self.folder(name)) if row["kind"] == "start"]

    def start_again(self, name: str, num_starts: int) -> None:
        """Wait until a run with `num_starts` starts has started again and saved since then."""
        wait_for(lambda: len(self.starts(name)) > num_starts, f"another start of {name}", limit_s=600)

    def reach(self, name: str, step: int) -> float:
        """Wait until a run has saved at `step` or after it; return for how many seconds."""
        return wait_for(lambda: self.saved(name) >= step, f"step {step} of {name}", limit_s=600)


def node_lost(here: Rehearsal, name: str) -> str:
    """A host's network is cut until Ray reports it lost, and restored after that."""
    job = here.train(name)
    here.reach(name, 40)
    lost, num_starts = here.cluster.hosts.address(2), len(here.starts(name))
    began_s = time.monotonic()
    here.cluster.hosts.cut(2)
    noticed_s = wait_for(lambda: lost not in here.cluster.workers(), "the loss to be noticed", limit_s=300)
    at = here.saved(name)
    here.cluster.hosts.mend(2)
    here.start_again(name, num_starts)
    on_s = time.monotonic() - began_s
    here.cluster.finish(job)
    return (
        f"noticed after {noticed_s:.0f} s, when the network came back; training after {on_s:.0f} s; {resumed(here, name, at)}"
    )


def head_restarted(here: Rehearsal, name: str) -> str:
    """Ray on the head is killed; `ray up` again, and the same submit again."""
    here.train(name)
    here.reach(name, 40)
    num_starts, began_s = len(here.starts(name)), time.monotonic()
    here.cluster.hosts.run(0, "~/rayprob-venv/bin/ray stop --force")
    at = here.saved(name)
    here.cluster.up()
    up_s = time.monotonic() - began_s
    job = here.train(name, job=f"{name}-again")
    here.start_again(name, num_starts)
    on_s = time.monotonic() - began_s
    here.cluster.finish(job)
    return f"`ray up` again took {up_s:.0f} s, with the submit it training after {on_s:.0f} s; {resumed(here, name, at)}"


def store_ill(here: Rehearsal, name: str) -> str:
    """The store answers every request with 503 for a minute."""
    job = here.train(name)
    here.reach(name, 40)
    at, began_s = here.saved(name), time.monotonic()
    here.store.outage = 503
    time.sleep(60)
    here.store.outage = 0
    here.reach(name, at + EVERY_STEPS)
    on_s = time.monotonic() - began_s
    here.cluster.finish(job)
    return f"training again {on_s - 60:.0f} s after its end; {resumed(here, name, at)}"


def node_preempted(here: Rehearsal, name: str) -> str:
    """A host is drained with a notice of 30 seconds, as cluster/node/spot_watch.py does it, then Ray on it is killed."""
    job = here.train(name)
    here.reach(name, 40)
    address = here.cluster.hosts.address(2)
    wait_for(lambda: address in here.cluster.workers(), "both workers", limit_s=120)
    node = here.cluster.workers()[address]
    began_s = time.monotonic()
    here.cluster.hosts.run(
        0,
        "RAY_AUTH_MODE=token ~/rayprob-venv/bin/ray drain-node --address 198.51.100.1:6379 "
        f"--node-id {node} --reason DRAIN_NODE_REASON_PREEMPTION --reason-message spot --deadline-remaining-seconds 30",
    )
    wait_for(lambda: notices(here, name) != [], "a checkpoint for the notice", limit_s=60)
    saved_s = time.monotonic() - began_s
    time.sleep(max(0.0, 30 - saved_s))
    num_starts, killed_s = len(here.starts(name)), time.monotonic()
    here.cluster.hosts.run(2, "~/rayprob-venv/bin/ray stop --force")
    at = here.saved(name)
    here.start_again(name, num_starts)
    on_s = time.monotonic() - killed_s
    here.cluster.finish(job)
    return f"saved {saved_s:.0f} s after the notice; training {on_s:.0f} s after the host was gone; {resumed(here, name, at)}"


def elastic(here: Rehearsal, name: str) -> str:
    """A host's network is cut; the run continues with one worker until it is back."""
    job = here.train(name, **{"placement.num_workers": "[1, 2]", "placement.resize_every_s": 15, "duration": "{epochs: 24}"})
    here.reach(name, 40)
    at, began_s = here.saved(name), time.monotonic()
    here.cluster.hosts.cut(2)
    here.reach(name, at + EVERY_STEPS)
    shrunk_s = time.monotonic() - began_s
    began_s = time.monotonic()
    here.cluster.hosts.mend(2)
    wait_for(lambda: here.starts(name)[-1][1] == 2 and len(here.starts(name)) > 2, "two workers again", limit_s=600)
    grown_s = time.monotonic() - began_s
    here.cluster.finish(job)
    sizes = " -> ".join(str(size) for _, size in here.starts(name))
    return f"{sizes} workers: training with one after {shrunk_s:.0f} s, with two {grown_s:.0f} s after the network came back"


FAULTS: dict[str, Callable[[Rehearsal, str], str]] = {
    "node lost": node_lost,
    "store ill": store_ill,
    "node preempted": node_preempted,
    "head restarted": head_restarted,
    "elastic": elastic,
}


def main() -> None:
    """Rehearse everything and print a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), choices=list(FAULTS))
    arguments = parser.parse_args()
    if not (SHARED / "coco-sample").is_dir():
        raise SystemExit(f"needs the real sample at {SHARED / 'coco-sample'}, which is missing here")
    for number in (signal.SIGINT, signal.SIGTERM):  # also in the background, where shells ignore SIGINT
        signal.signal(number, signal.default_int_handler)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with (
        tempfile.TemporaryDirectory(prefix="rayprob-rehearsal-", dir="/var/tmp") as folder,
        namespaces(3, Path(folder)) as hosts,
        store() as (proxy, s3),
    ):
        rehearse(hosts, proxy, s3, arguments.faults)


def rehearse(hosts: Hosts, proxy: Proxy, s3: dict[str, str], faults: list[str]) -> None:
    """Start the cluster, use it, disturb it, and stop it."""
    os.environ.update(s3)
    with said("shards: rayprob shard shards/coco-sample.yaml --set target=s3://..."):
        shard()
    cluster = Cluster.prepare(hosts, s3)
    here = Rehearsal(cluster, proxy, s3)
    try:
        with said("ray up cluster/onprem.yaml: a head and two workers"):
            cluster.up()
        with said("open ports"):
            check_ports(cluster)
        with said("rayprob doctor --cluster"):
            cluster.submit("doctor", ["rayprob", "doctor", "--cluster", "--storage", BUCKET], {**s3, **VARIABLES})
            print(cluster.finish("doctor"))
        with said("ray job submit -- rayprob train: two hosts, undisturbed"):
            print(cluster.finish(here.train("undisturbed")))
        for name in faults:
            with said(name):
                print(f"    {FAULTS[name](here, name.replace(' ', '-'))}", flush=True)
        with said("ray down"):
            cluster.down()
    finally:
        cluster.close_tunnel()


def resumed(here: Rehearsal, name: str, at: int) -> str:
    """Return where a run resumed after a fault when its newest checkpoint was of step `at`, and its verdict."""
    starts = here.starts(name)
    assert len(starts) < 2 or starts[-1][0] >= at, (starts, at)
    again = f"resumed at step {starts[-1][0]}, last saved at {at}" if len(starts) > 1 else "no restart"
    return f"{again}; {verdict(here.folder(name), here.folder('undisturbed'))}"


def notices(here: Rehearsal, name: str) -> list[dict[str, Any]]:
    """Return the notices a run received about nodes to be removed."""
    return [row for row in read_history(here.folder(name)) if row["kind"] == "notice"]


def shard() -> None:
    """Build the sample into the store, and copy the initial weights next to it."""
    target = f"{BUCKET}/coco-sample"
    command = [sys.executable, "-m", "rayprob", "shard", "shards/coco-sample.yaml", "--set", f"target={target}"]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    weights = SHARED / "weights" / "tf_efficientnet_lite0.safetensors"
    boto3.client("s3").upload_file(str(weights), BUCKET.removeprefix("s3://"), "lite0.safetensors")


@contextmanager
def store() -> Iterator[tuple[Proxy, dict[str, str]]]:
    """Serve an S3 store for the hosts; yield it, and the environment variables that point to it."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    proxy = Proxy(moto.get_host_and_port(), HERE)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    s3 = {
        "AWS_ENDPOINT_URL": f"http://{HERE}:{proxy.server_port}",
        "AWS_ACCESS_KEY_ID": "rehearsal",
        "AWS_SECRET_ACCESS_KEY": "rehearsal",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        os.environ.update(s3)
        boto3.client("s3").create_bucket(Bucket=BUCKET.removeprefix("s3://"))
        yield proxy, s3
    finally:
        proxy.shutdown()
        proxy.server_close()
        moto.stop()


if __name__ == "__main__":
    main()
