"""An elastic run of 4 Ray workers loses a node with two of them, continues with 2, and grows to 4 again when a node comes back.

    make demo
    python benchmarks/elastic.py

Two Ray nodes of two CPUs each are started on this machine. The run is compared with an undisturbed one: the samples of
every global batch and of every micro batch, as seen by the workers, and the loss of every step.
"""

import argparse
import itertools
import json
import os
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0", OMP_NUM_THREADS="1")
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "30")  # the run's own setting is 60

import numpy as np
import ray
from ray.cluster_utils import Cluster

from rayprob.runs.history_rows import read_history
from rayprob.runs.spec import Run
from rayprob.train.launch import launch

ROOT = Path(__file__).resolve().parents[1]
NODE = {"num_cpus": 2, "object_store_memory": 150 * 2**20, "dashboard_agent_listen_port": 0}
LIMIT_S = 300


def note_samples() -> None:
    """Make a worker record the samples of each of its micro batches."""
    from rayprob.train import loop
    from rayprob.train.step import take_step

    def noting(job: Any, batches: Any) -> Any:
        row = [job.state.progress.step, *(batch.sample_ids_B.tolist() for batch in batches)]
        with open(f"{job.run.run_folder}/samples-{os.getpid()}.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")
        return take_step(job, batches)

    vars(loop)["take_step"] = noting


def main() -> None:
    """Train twice, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo/shards")
    parser.add_argument("--steps", type=int, default=1000)
    arguments = parser.parse_args()
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    second = cluster.add_node(**NODE)
    ray.init(
        address=cluster.address,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"worker_process_setup_hook": note_samples},
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            constant, elastic = (new_run(Path(folder) / name, arguments) for name in ("constant", "elastic"))
            launch(constant)
            disturb(elastic, cluster, second)
            compare(constant, elastic)
    finally:
        ray.shutdown()
        cluster.shutdown()


def new_run(folder: Path, arguments: argparse.Namespace) -> Run:
    """Return the demo's run, small and elastic."""
    changes = {
        "name": "elastic",
        "folder": str(folder),
        "data.root": str(Path(arguments.data).absolute()),
        "stream.loader_workers": 0,
        "transforms.train.size_px": 64,
        "transforms.evaluate.size_px": 64,
        "duration": f"{{steps: {arguments.steps}}}",
        "evaluation.every": f"{{steps: {arguments.steps // 2}}}",
        "checkpoint.every_steps": 10,
        "log_every_steps": 1,
        "placement.num_workers": "[2, 4]",
        "placement.cpus_per_worker": 1,
        "placement.resize_every_s": 10,
    }
    return Run.read(str(ROOT / "tune_configs" / "demo.yaml"), [f"{key}={value}" for key, value in changes.items()])


def disturb(run: Run, cluster: Cluster, second: Any) -> None:
    """Train while a node is removed and another one added, both from the main thread, as Ray requires."""
    training = threading.Thread(target=launch, args=(run,))
    training.start()
    wait_for(run, 4, at_least=60)
    began_s = time.monotonic()
    cluster.remove_node(second, allow_graceful=False)
    wait_for(run, 2)
    print(f"4 -> 2 workers: training again {time.monotonic() - began_s:.0f} s after the node was killed", flush=True)
    wait_for(run, 2, at_least=last_start(run)["step"] + 60)
    began_s = time.monotonic()
    cluster.add_node(**NODE)
    wait_for(run, 4)
    print(f"2 -> 4 workers: training again {time.monotonic() - began_s:.0f} s after a node was added", flush=True)
    training.join()


def wait_for(run: Run, world_size: int, at_least: int = 0) -> None:
    """Wait until the newest start has `world_size` workers and a step is reached. Raises RuntimeError after five minutes."""
    until_s = time.monotonic() + LIMIT_S
    while True:
        rows = read_history(run.run_folder)
        starts = [row for row in rows if row["kind"] == "start"]
        if starts and starts[-1]["world_size"] == world_size and rows[-1]["step"] >= at_least:
            return
        if time.monotonic() > until_s:
            raise RuntimeError(f"waited {LIMIT_S} s for {world_size} workers and step {at_least}: {starts[-1:]}, {rows[-1:]}")
        time.sleep(0.2)


def last_start(run: Run) -> dict[str, Any]:
    return [row for row in read_history(run.run_folder) if row["kind"] == "start"][-1]


def compare(constant: Run, elastic: Run) -> None:
    """Print the comparison."""
    sizes = [(row["step"], row["world_size"]) for row in read_history(elastic.run_folder) if row["kind"] == "start"]
    print("starts (step, workers):", ", ".join(map(str, sizes)))
    left, right = samples_of(constant), samples_of(elastic)
    of_steps = [{step: sorted(itertools.chain(*batches)) for step, batches in run.items()} for run in (left, right)]
    print(f"global batches: {len(left)} steps, equal by sample_id: {of_steps[0] == of_steps[1]}")
    print(f"micro batches:  equal by sample_id, {len(next(iter(left.values())))} per step: {left == right}")
    losses = [[row["loss"] for row in read_history(run.run_folder) if row["kind"] == "step"] for run in (constant, elastic)]
    differences, change = np.abs(np.subtract(*losses)) / np.array(losses[0]), sizes[1][0]
    spans = {"before the first change": slice(0, change), "50 steps after it": slice(change, change + 50), "all": slice(None)}
    found = ", ".join(f"{name} {differences[span].max():.1e}" for name, span in spans.items())
    print(f"losses: from {losses[0][0]:.3f} to {losses[0][-1]:.3f}; largest relative difference: {found}")
    scores = [
        [row["mAP"] for row in read_history(run.run_folder) if row["kind"] == "evaluation"] for run in (constant, elastic)
    ]
    print(
        f"holdout mAP: constant {', '.join(f'{s:.4f}' for s in scores[0])}; elastic {', '.join(f'{s:.4f}' for s in scores[1])}"
    )


def samples_of(run: Run) -> dict[int, set[tuple[int, ...]]]:
    """Return the micro batches of each step over all ranks; those of a step that was taken twice must be the same."""
    found: dict[int, set[tuple[int, ...]]] = defaultdict(set)
    for path in Path(run.run_folder).glob("samples-*.jsonl"):
        for line in path.read_text().splitlines():
            step, *batches = json.loads(line)
            found[step] |= {tuple(batch) for batch in batches}
    return dict(found)


if __name__ == "__main__":
    main()
