"""The scale of the loader: 1 to 512 GPUs and 100 k to 1 G images on simulated nodes, and measured time and memory of a rank.

    python benchmarks/scale.py [--quick] [--only training breaks cache loss measured whole]

The simulation (scale_simulation.py) runs the loader's own order, prefetch plans and evictions against simulated links, requests
and GPUs, so its seconds follow from the rates in the table, not from a real machine. Next to each simulated
value is its closed form (scale_bounds.py). `measured` is not a simulation: processes of this machine build the order of up to
10^9 samples, and open datasets of as many and train on them as rank 0 of 512 (scale_manifest.py), and report their time and
memory growth. A manifest of 10^9 samples would take 56 GB: all files that grow with shards are complete, and of the parts
only those that the rank reads are on disk. `whole`, which runs only on request, writes all parts of 10^8 samples.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script's own folder is on the path, its parent is not

import scale_bounds as bounds
from scale_manifest import Size, first_batch, lookup_us, three_windows, write_dataset
from scale_network import Scenario
from scale_simulation import Training, caches_after

from rayprob.loader.order import Cursor, EpochOrder

DETECTION_S, RESTART_S = 60.0, 30.0  # assumed, not measured
CHECKPOINT_BYTES = 42.7e6 * 4 * 4  # ResNet-101 for 80 labels in float32: weights, two moments of AdamW, average
CHECKPOINT_STEPS = 500
TOLERANCE = 0.03
COUNTED_IMAGES = 10**7  # up to this number, the shards of an epoch are counted


def main() -> None:
    """Print the requested tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="at most 64 GPUs, 10 M images and 10^8 samples")
    parser.add_argument("--only", nargs="+", choices=[*TABLES], default=[*TABLES][:-1])
    options = parser.parse_args()
    for name in options.only:
        TABLES[name](options.quick)
        print(flush=True)


def training(quick: bool) -> None:
    """Print the first epoch of every size, from empty caches."""
    print("first epoch, empty caches; GB/node/epoch is what its GPUs need, hits included: " + rates(Scenario(gpus=8, images=0)))
    training_heading("")
    for gpus in (1, 8, 64) if quick else (1, 8, 64, 512):
        for images in (10**5, 10**7) if quick else (10**5, 10**7, 10**9):
            training_row(Scenario(gpus=gpus, images=images), "")


def breaks(quick: bool) -> None:
    """Print the first bottleneck as one resource after the other becomes scarce."""
    base = Scenario(gpus=16 if quick else 64, images=10**7)
    windows_bytes = base.gpus_of_a_node * base.window_shards * base.shard_bytes
    cases = {
        "as above": base,
        "node link 10 Gbit/s": replace(base, node_bytes_s=1.25e9),
        "node link 5 Gbit/s": replace(base, node_bytes_s=0.625e9),
        "store of 5 GB/s in total": replace(base, store_bytes_s=5e9 * base.gpus / 64),
        "GPUs of 3,000 images/s": replace(base, gpu_images_s=3000.0),
        "cache of 1 window per lane": replace(base, cache_bytes=1.0 * windows_bytes),
        "cache of 3 windows per lane": replace(base, cache_bytes=3.0 * windows_bytes),
        "latency 1 s": replace(base, latency_s=1.0),
        "10 % of requests fail": replace(base, failure_share=0.1),
        "10 MB/s per connection": replace(base, connection_bytes_s=10e6),
    }
    print(f"where it breaks, one change at a time: {base.gpus} GPUs, {base.images:,} images")
    training_heading(f"{'':27}")
    for name, scenario in cases.items():
        training_row(scenario, f"{name:27}")


def training_heading(indent: str) -> None:
    """Print the names of the columns."""
    print(
        f"{indent}{'GPUs':>5} {'images':>13} {'wanted/s':>9} {'reached/s':>9} {'bound/s':>9} {'data wait':>9} {'bound':>6} "
        f"{'GB/node/epoch':>13} {'hits':>6} {'first batch s':>13} {'bound':>6} {'failed':>6}  binds first"
    )


def training_row(scenario: Scenario, indent: str) -> None:
    """Simulate some windows and print them next to the closed forms; stop if an exact one is missed.

    If the windows span epochs, caches fill up, which no bound describes; the row shows how full they are at the end. A wait
    that such a row shows is one of filling them: of 64 steps of 512 GPUs on 100,000 images, none after the 39th waited.
    """
    window = scenario.steps_per_window
    result = Training(scenario).run(window, 2 * window)
    windows_ahead = scenario.cache_bytes / scenario.gpus_of_a_node / scenario.shard_bytes / scenario.window_shards
    # Within a first epoch nothing is needed twice but shards that a cut between lanes divides; what is fetched twice is a loss.
    is_one_epoch = (3 + windows_ahead) * window < scenario.batches_per_epoch
    hit_share = 0.0 if is_one_epoch else result.hit_share
    name, supply = bounds.binding(scenario, hit_share)
    least_s = bounds.first_batch_s(scenario)
    needed_bytes = bounds.epoch_bytes_per_node(scenario)
    if scenario.images <= COUNTED_IMAGES:
        # Rates do not change the order, which is counted once for all of them.
        counted_bytes = bounds.counted_bytes_per_node(Scenario(gpus=scenario.gpus, images=scenario.images))
        assert not is_one_epoch or abs(counted_bytes / needed_bytes - 1) < TOLERANCE, (scenario, counted_bytes, needed_bytes)
        needed_bytes = counted_bytes
    reached = result.reached_images_s / scenario.gpus
    assert result.first_batch_s >= 0.999 * least_s, (result, least_s)
    if is_one_epoch and bounds.is_exact(scenario):
        assert abs(reached / supply - 1) < TOLERANCE, (scenario, reached, supply)
    if not is_one_epoch:
        room = scenario.nodes * min(scenario.num_shards, int(scenario.cache_bytes) // scenario.shard_bytes)
        name += f" (caches {sum(map(len, result.caches)) / room:.0%} full)"
    print(
        f"{indent}{scenario.gpus:5} {scenario.images:13,} {scenario.gpus * scenario.gpu_images_s:9,.0f} "
        f"{result.reached_images_s:9,.0f} {supply * scenario.gpus:9,.0f} {1 - reached / scenario.gpu_images_s:9.1%} "
        f"{bounds.data_wait(scenario, hit_share):6.1%} {needed_bytes / 1e9:13,.1f} "
        f"{hit_share:6.1%} {result.first_batch_s:13.2f} {least_s:6.2f} {result.failures:6}  {name}",
        flush=True,
    )


def cache(quick: bool) -> None:
    """Print the share of a third epoch that is in the caches of the nodes, with links that never delay the prefetcher."""
    base = Scenario(gpus=8, images=10**6, node_bytes_s=1e13, store_bytes_s=1e15, connection_bytes_s=1e12, latency_s=1e-4)
    dataset_bytes = base.num_shards * base.shard_bytes
    print(f"third epoch, caches left by two: {base.images:,} images ({dataset_bytes / 1e9:,.0f} GB), LRU by last use")
    print(f"{'nodes':>5} {'cache of a node / dataset':>26} {'hits':>7} {'closed form':>12} {'GB/node/epoch':>14}")
    for nodes in (1, 2) if quick else (1, 2, 8):
        for share in (0.125, 0.25, 0.5, 1.0):
            scenario = replace(base, gpus=8 * nodes, cache_bytes=share * dataset_bytes)
            hits, expected = cache_hits(scenario, share)
            assert abs(hits - expected) < 2 * TOLERANCE, (scenario, hits, expected)
            per_epoch = bounds.counted_bytes_per_node(replace(base, gpus=scenario.gpus)) * (1 - hits) / 1e9
            print(f"{nodes:5} {share:26.1%} {hits:7.1%} {expected:12.1%} {per_epoch:14,.1f}", flush=True)


def cache_hits(scenario: Scenario, share: float) -> tuple[float, float]:
    """Return the hit share of the third epoch and its closed form."""
    # The prefetcher walks 16 micro batches a step ahead; what it has in hand shall stay within the epoch.
    steps = max(1, scenario.batches_per_epoch // 16 - 2)
    result = Training(scenario, cursor=Cursor(2, 0), caches=caches_after(scenario, 2)).run(0, steps)
    progress = min(1.0, result.in_hand / scenario.num_shards)
    return result.hit_share, bounds.with_cuts(scenario, bounds.hit_share(scenario.nodes, share, 2, progress))


def loss(quick: bool) -> None:
    """Print how long a job pauses after it lost a node, which an empty one replaces."""
    print(
        f"a node is lost {CHECKPOINT_STEPS // 2} steps after a checkpoint: {DETECTION_S:.0f} s until it is noticed, "
        f"{RESTART_S:.0f} s to start processes, {CHECKPOINT_BYTES / 1e6:.0f} MB of checkpoint, then the caches of the "
        "others and an empty one"
    )
    print(f"{'GPUs':>5} {'images':>13} {'first batch again s':>20} {'bound':>6} {'recovery s':>11} {'work lost s':>12}")
    for gpus in (8, 64) if quick else (8, 64, 512):
        scenario = Scenario(gpus=gpus, images=10**7)
        before = Training(scenario).run(scenario.steps_per_window, 0)
        caches = [{}, *before.caches[1:]]
        result = Training(scenario, caches=caches).run(0, 0)
        # Data is read again without other traffic on the links.
        least_s = bounds.first_batch_s(replace(scenario, store_bytes_s=scenario.store_bytes_s * scenario.nodes))
        assert result.first_batch_s >= 0.9 * least_s, (result, least_s)
        load_s = scenario.latency_s + CHECKPOINT_BYTES / scenario.connection_bytes_s
        recovery_s = DETECTION_S + RESTART_S + load_s + result.first_batch_s
        lost_s = CHECKPOINT_STEPS / 2 * scenario.global_batch / (gpus * scenario.gpu_images_s)
        print(f"{gpus:5} {scenario.images:13,} {result.first_batch_s:20.2f} {least_s:6.2f} {recovery_s:11.1f} {lost_s:12.1f}")


def rates(scenario: Scenario) -> str:
    """Return the settings shared by all rows."""
    return (
        f"{scenario.gpu_images_s:,.0f} images/s per GPU ({scenario.decode_images_s:,.0f} decoded), {scenario.gpus_per_node} "
        f"per node, {scenario.image_bytes / 1024:.0f} KiB per image,\nshards of {scenario.samples_per_shard}, windows of "
        f"{scenario.window_shards}, micro batch {scenario.micro_batch}; {scenario.node_bytes_s / 1e9:.3f} GB/s per node, "
        f"{scenario.store_bytes_s / 1e9:.0f} in total, {scenario.connection_bytes_s / 1e6:.0f} MB/s per connection, latency "
        f"{scenario.latency_s * 1e3:.0f} ms, {scenario.failure_share:.1%} of requests fail, {scenario.cache_bytes / 1e9:.0f} "
        "GB of cache per node"
    )


def measured(quick: bool) -> None:
    """Print time and memory of the order, and of everything before a first micro batch, each in its own process."""
    print("measured on this machine; memory is the growth of a process at its peak\n")
    print(f"{'samples':>14} {'':51} {'seconds':>8} {'peak MiB':>9}")
    for samples in (10**6, 10**8) if quick else (10**6, 10**8, 10**9):
        show(samples, "order: an epoch's first micro batch", order_first, samples)
    manifest(Size(10**6, 1000), is_whole=True)
    for size in (Size(10**8, 1000),) if quick else (Size(10**8, 1000), Size(10**9, 10_000), Size(10**9, 1000)):
        manifest(size, is_whole=False)
    if quick:
        return
    print("\nthe same with parts of other sizes (16,384 rows is the default)")
    for part_rows in (2**12, 2**14, 2**16, 2**18):
        manifest(Size(10**9, 1000, part_rows), is_whole=False)


def whole(quick: bool) -> None:
    """Print what training takes with every part of a manifest of 10^8 samples on disk: some minutes, and 6 GB of scratch."""
    print(f"{'samples':>14} {'':51} {'seconds':>8} {'peak MiB':>9}")
    manifest(Size(10**7 if quick else 10**8, 1000), is_whole=True)


def manifest(size: Size, *, is_whole: bool) -> None:
    """Write a dataset, train on it as rank 0 of 512, and remove it."""
    with tempfile.TemporaryDirectory() as folder:
        begun_at_s = time.perf_counter()
        size_bytes, parts = write_dataset(Path(folder), size, is_whole=is_whole)
        how = "all" if is_whole else "only those of rank 0"
        print(
            f"{size.samples:14,} in {size.samples // size.samples_per_shard:,} shards, parts of {size.part_rows:,} rows: "
            f"{how}, {parts:,} of {size_bytes / parts / 1e6:.2f} MB, written in {time.perf_counter() - begun_at_s:.0f} s"
        )
        show(size.samples, "dataset, order, rows: rank 0's first micro batch", first_batch, folder)
        if is_whole:
            show(size.samples, "the same with three windows of its lane", three_windows, folder)
            print(f"{'':14} looking up an image and its labels: {lookup_us(folder):.0f} us")


def show(samples: int, what: str, work: Callable[..., object], argument: object) -> None:
    """Do the work in a new process and print its time and memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, grown_mib = pool.apply(measure, (work, argument))
    print(f"{samples:14,} {what:51} {seconds:8.2f} {grown_mib:9,.0f}", flush=True)


def measure(work: Callable[..., object], argument: object) -> tuple[float, float]:
    """Return the seconds that the work took, and the MiB by which this process grew."""
    before_mib = memory_mib("VmRSS")
    begun_at_s = time.perf_counter()
    result = work(argument)
    elapsed_s = time.perf_counter() - begun_at_s
    del result
    return elapsed_s, memory_mib("VmHWM") - before_mib


def memory_mib(field: str) -> float:
    """Return a memory size of this process from Linux; getrusage would also count its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def order_first(samples: int) -> object:
    """Return an epoch's order with what one of 512 ranks needs to have its first micro batch."""
    order = EpochOrder(np.full(samples // 1000, 1000), seed=0, epoch=0, lanes=512, window=8, global_batch=512 * 32)
    batches = order.batches([7])
    return order, batches, next(batches)


TABLES = {"training": training, "breaks": breaks, "cache": cache, "loss": loss, "measured": measured, "whole": whole}

if __name__ == "__main__":
    main()
