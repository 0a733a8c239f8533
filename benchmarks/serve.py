"""`rayprob serve` under load from this machine, against the bare forward pass and a plain server without batches.

    python benchmarks/serve.py [--backbone resnet50] [--size 224] [--requests 300] [--soak 20000] [--seconds 20]

Weights and images are random: JPEGs of 480 x 640 px. In turn, with 1, 8 and 32 clients: requests per second and latencies of
`rayprob serve` and of `benchmarks/serve_plain.py`, each on its own process and idle otherwise, next to the images per second of
the bare forward pass at batches of as many images. Then the memory of all processes of the server during `--soak` requests;
and, for `--seconds` each with 4 clients, a replica of two that is killed, and a bundle that is replaced.
Remembered images are turned off, so that each request computes its image.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from predict_overhead import make_bundle, timed, write_images  # noqa: E402
from serve_load import HEADING, Load, Outcomes  # noqa: E402

from rayprob.predict.images import ImageBytes  # noqa: E402
from rayprob.predict.job import load_predictor, tensors_of  # noqa: E402
from rayprob.predict.members import Predictor  # noqa: E402
from rayprob.predict.reading import load  # noqa: E402
from tests.serve.listeners import descendants  # noqa: E402
from tests.servers import free_port, wait_for_server  # noqa: E402

CLIENTS = (1, 8, 32)
DISRUPTED = 4  # clients while a replica is killed, or a bundle replaced
NO_MEMORY = ("--set", "limits.seen_images=1", "--set", "reload_s=0.5")


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--requests", type=int, default=300, help="per number of clients and server; 0 skips it")
    parser.add_argument("--soak", type=int, default=20_000, help="requests while memory is measured; 0 skips it")
    parser.add_argument("--soak-size", type=int, default=32, help="pixels of a side of the network's input in that time")
    parser.add_argument("--seconds", type=float, default=20.0, help="of load around a kill and a new bundle; 0 skips it")
    options = parser.parse_args()
    options.components = 8
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "images").mkdir()
        write_images(Path(folder, "images"), options.images)
        images = [path.read_bytes() for path in sorted(Path(folder, "images").iterdir())]
        bundle = str(Path(folder, "bundle"))
        make_bundle({"name": "bernoulli"}, options).save(bundle)
        compare(bundle, images, options)
        soak(bundle, images, options)
        disrupt(bundle, images, options)


def compare(bundle: str, images: Sequence[bytes], options: argparse.Namespace) -> None:
    """Print requests per second and latencies of both servers, and of the bare forward pass."""
    if not options.requests:
        return
    threads = os.cpu_count() or 1
    torch.set_num_threads(threads)
    bare = bare_per_s(bundle, images)
    with served(bundle) as (url, _):
        ours = {clients: loaded(url, images, clients, options.requests) for clients in CLIENTS}
    with plain(bundle, threads) as url:
        theirs = {clients: loaded(url, images, clients, options.requests) for clients in CLIENTS}
    print(f"{options.backbone} at {options.size} px, {options.requests} requests each, {threads} cores")
    print(f"{'clients':>7}  {'server':<13} {HEADING}  of the bare forward pass")
    for clients in CLIENTS:
        for name, outcomes in (("rayprob serve", ours[clients]), ("plain", theirs[clients])):
            print(f"{clients:7d}  {name:<13} {outcomes}  {outcomes.per_s / bare[clients]:.2f} of {bare[clients]:.1f} images/s")
        print(f"{'':7}  rayprob serve / plain: {ours[clients].per_s / theirs[clients].per_s:.2f} of the requests per second")


def bare_per_s(bundle: str, images: Sequence[bytes]) -> dict[int, float]:
    """Return the images per second of the forward pass alone, at a batch of one image per client, at most 16."""
    predictor = load_predictor([bundle])
    sizes = {clients: min(clients, 16) for clients in CLIENTS}
    batches = {clients: _batch(predictor, images[:size]) for clients, size in sizes.items()}
    medians = timed({str(clients): lambda batch=batch: predictor.forecast(batch) for clients, batch in batches.items()}, 5)
    return {clients: sizes[clients] / medians[str(clients)] for clients in CLIENTS}


def soak(bundle: str, images: Sequence[bytes], options: argparse.Namespace) -> None:
    """Print the memory of the server's processes before, during and after many requests to a small network."""
    if not options.soak:
        return
    small = argparse.Namespace(**{**vars(options), "backbone": "squeezenet1_1", "size": options.soak_size})
    make_bundle({"name": "bernoulli"}, small).save(bundle)
    with served(bundle) as (url, pid):
        loaded(url, images, 8, 200)
        found = [(0, memory_mib(pid))]
        failed, per_part = 0, options.soak // 4
        for part in range(4):
            failed += loaded(url, images, 8, per_part).failed
            found.append(((part + 1) * per_part, memory_mib(pid)))
    print("\nmemory of all processes (PSS): " + ", ".join(f"{mib:.0f} MiB after {count:,}" for count, mib in found))
    print(f"errors in {found[-1][0]:,} requests: {failed}")


def disrupt(bundle: str, images: Sequence[bytes], options: argparse.Namespace) -> None:
    """Print what clients see when a replica of two is killed, and when the bundle is replaced."""
    if not options.seconds:
        return
    with served(bundle, "--replicas", "2") as (url, pid):
        load = Load(url, images, DISRUPTED)
        load.start()
        time.sleep(options.seconds / 2)
        os.kill(replica_of(pid), signal.SIGKILL)
        time.sleep(options.seconds / 2)
        killed = load.stop()
        load = Load(url, images, DISRUPTED)
        load.start()
        time.sleep(options.seconds / 2)
        make_bundle({"name": "mixture", "components": 8}, options).save(bundle)
        time.sleep(options.seconds / 2)
        swapped = load.stop()
    print(f"\n{'':24}{HEADING}")
    for name, outcomes in (("a replica of 2 killed", killed), ("the bundle replaced", swapped)):
        count, bundles = sum(outcomes.statuses.values()), len(outcomes.fingerprints)
        print(f"{name:<24}{outcomes}  of {count:,} requests, by {bundles} versions; statuses {dict(outcomes.statuses)}")


def loaded(url: str, images: Sequence[bytes], clients: int, requests: int) -> Outcomes:
    """Return what `clients` see, after a few requests that warm up."""
    Load(url, images, clients, 2 * clients).run()
    return Load(url, images, clients, requests).run()


@contextlib.contextmanager
def served(bundle: str, *more: str) -> Iterator[tuple[str, int]]:
    """Run `rayprob serve` and yield its URL and process id."""
    command = [sys.executable, "-m", "rayprob", "serve", bundle, "--port", str(free_port()), "--json", *NO_MEMORY, *more]
    started_s = time.perf_counter()
    with _ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)) as process:
        assert process.stdout
        url = json.loads(process.stdout.readline())["url"]
        print(f"rayprob serve {' '.join(more)} listens after {time.perf_counter() - started_s:.1f} s", flush=True)
        yield url, process.pid


@contextlib.contextmanager
def plain(bundle: str, threads: int) -> Iterator[str]:
    """Run the plain server and yield its URL."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.serve_plain:make", "--factory", "--port", str(port)]
    environment = {**os.environ, "BUNDLE": bundle, "THREADS": str(threads)}
    with _ended(subprocess.Popen([*command, "--log-level", "warning"], env=environment, cwd=ROOT)) as process:
        wait_for_server(process, port)
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def replica_of(pid: int) -> int:
    """Return the process of a replica that computes."""
    titles = {child: Path(f"/proc/{child}/cmdline").read_text() for child in descendants(pid)}
    return next(child for child, title in titles.items() if title.startswith("ray::ServeReplica") and ":bundle-" in title)


def memory_mib(pid: int) -> float:
    """Return the proportional set size of a process and its descendants."""
    rollups = [Path(f"/proc/{child}/smaps_rollup").read_text().splitlines() for child in descendants(pid)]
    return sum(int(line.split()[1]) for lines in rollups for line in lines if line.startswith("Pss:")) / 1024


def _batch(predictor: Predictor, images: Sequence[bytes]) -> list[torch.Tensor]:
    loaded_images = [load(ImageBytes("image", content), predictor.inputs) for content in images]
    return tensors_of(loaded_images, predictor)


if __name__ == "__main__":
    main()
