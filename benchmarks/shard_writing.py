"""Shard writing compared with `tar` of the same files: images/s, their ratio, peak memory.

    python benchmarks/shard_writing.py [--source ../shared/coco-sample] [--repeat 8] [--rounds 3]

Goal: half the speed of tar. tar copies; the builder also measures every image, hashes every byte twice, and writes labels
and a manifest (`check: header`), and by default decodes every image too (`check: decode`). No writer that decodes can be
faster than `decode alone`: the same files, read and decoded by as many processes as there are cores, without anything else.

All run from the page cache, one after the other, and sync what they wrote. Reading annotations, committing, and the time
in which Ray's workers import rayprob count; starting Python, Ray and the processes of `decode alone` do not.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TAR, DECODE_ALONE = "tar", "decode alone"


@dataclass(frozen=True)
class Measured:
    """One run of one writer."""

    elapsed_s: float
    cpu_s: float
    peak_mib: float


def main() -> None:
    """Measure every writer in turn, several rounds over, and print the medians."""
    options = parse()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        num_images, num_bytes = repeat_source(Path(options.source), Path(scratch), options.repeat)
        print(f"{num_images:,} images, {num_bytes / 1e6:,.0f} MB, {os.cpu_count()} cores, median of {options.rounds} rounds")
        writers: dict[str, Callable[[], Measured]] = {
            TAR: lambda: run_tar(scratch),
            DECODE_ALONE: lambda: run_decode_alone(scratch),
            "header, 1 process": lambda: run_build(scratch, "header", ray=False),
            "decode, 1 process": lambda: run_build(scratch, "decode", ray=False),
            "header, Ray tasks": lambda: run_build(scratch, "header", ray=True),
            "decode, Ray tasks": lambda: run_build(scratch, "decode", ray=True),
        }
        rounds = [{name: write() for name, write in writers.items()} for _ in range(options.rounds)]
    report(rounds, num_images)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="../shared/coco-sample", help="a dataset in COCO-2014 layout")
    parser.add_argument("--repeat", type=int, default=8, help="how many times to list every image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", default=None, help="a folder on the disk to measure")
    return parser.parse_args()


def repeat_source(source: Path, scratch: Path, times: int) -> tuple[int, int]:
    """Lay out every train image `times` over under new ids and names; returns the number of images and their bytes."""
    content = json.loads((source / "annotations" / "instances_train2014.json").read_text())
    (scratch / "images").mkdir()
    images, boxes = [], []
    labelled = {box["image_id"] for box in content["annotations"]}
    for entry in (entry for entry in content["images"] if entry["id"] in labelled):
        first = scratch / "images" / f"0_{entry['file_name']}"
        shutil.copyfile(source / "train2014" / entry["file_name"], first)
        for time in range(times):
            name = f"{time}_{entry['file_name']}"
            if time:
                os.link(first, scratch / "images" / name)
            images.append({**entry, "id": entry["id"] + time * 10**7, "file_name": name})
    for time in range(times):
        boxes += [{**box, "image_id": box["image_id"] + time * 10**7} for box in content["annotations"]]
    (scratch / "instances.json").write_text(json.dumps({**content, "images": images, "annotations": boxes}))
    # Hard links are one file to tar, which would store each image once.
    return len(images), sum((scratch / "images" / entry["file_name"]).stat().st_size for entry in images)


DECODE = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from rayprob.images.check import check_decodes

def decode(paths):
    for path in paths:
        check_decodes(path.read_bytes())
    return time.process_time()

paths, cores = sorted(Path("images").iterdir()), os.cpu_count()
with ProcessPoolExecutor(cores) as pool:
    list(pool.map(decode, [paths[:9]] * cores))
    began_at_s = time.monotonic()
    cpu_s = list(pool.map(decode, [paths[core::cores] for core in range(cores)]))
    print(time.monotonic() - began_at_s, sum(cpu_s))
"""
BUILD = """
import resource, sys, time
from rayprob.cluster import import_ray, start_ray
from rayprob.data.building.build import build, in_process, on_ray
from rayprob.data.building.recipe import Recipe

def usage():
    used = resource.getrusage(resource.RUSAGE_SELF)
    time.sleep(0.2)  # so that each worker answers
    return used.ru_maxrss / 1024

check, with_ray = sys.argv[1], sys.argv[2] == "True"
splits = {"train": {"images": "images", "annotations": "instances.json"}}
recipe = Recipe(name="speed", splits=splits, target="built", check=check)
if with_ray:
    start_ray()
began_at_s = time.process_time()
summary = build(recipe, run_tasks=on_ray() if with_ray else in_process)
cpu_s = time.process_time() - began_at_s
ray = import_ray() if with_ray else None
workers_mib = ray.get([ray.remote(usage).remote() for _ in range(int(ray.cluster_resources()["CPU"]))]) if ray else [0]
print(summary.elapsed_s, cpu_s, max(workers_mib))
"""


def run_tar(scratch: str) -> Measured:
    """Time `tar` and a sync of its output."""
    command = "tar --hard-dereference -cf built.tar images && sync built.tar"
    elapsed_s, user_s, system_s, peak_mib = run(["bash", "-c", f"TIMEFORMAT='%R %U %S'; time ({command}) 2>&1"], scratch)
    (Path(scratch) / "built.tar").unlink()
    return Measured(elapsed_s, user_s + system_s, peak_mib)


def run_decode_alone(scratch: str) -> Measured:
    """Time a check of every image, without writing anything."""
    return Measured(*run([sys.executable, "-c", DECODE], scratch))


def run_build(scratch: str, check: str, *, ray: bool) -> Measured:
    """Time the builder in its own process; with Ray, the peak is that of its largest worker or the driver."""
    elapsed_s, cpu_s, worker_mib, driver_mib = run([sys.executable, "-c", BUILD, check, str(ray)], scratch)
    shutil.rmtree(Path(scratch) / "built")
    return Measured(elapsed_s, cpu_s, max(worker_mib, driver_mib))


def run(command: list[str], folder: str) -> list[float]:
    """Run a command; returns the numbers in its last line, and then its peak memory in MiB."""
    process = subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command[0]} failed: {printed[-2000:]}")
    return [*map(float, printed.splitlines()[-1].split()), usage.ru_maxrss / 1024]


def report(rounds: list[dict[str, Measured]], num_images: int) -> None:
    """Print the median speed of each writer, its ratios to tar and to bare decoding round by round, CPU time and memory."""
    spread = f"{'of tar':>7} {'min':>6} {'max':>9} {'of decoding':>12}"
    print(f"{'':18} {'images/s':>9} {spread} {'CPU ms/image':>13} {'peak MiB':>9}")
    for name in rounds[0]:
        runs = [measured[name] for measured in rounds]
        speed = statistics.median(num_images / one.elapsed_s for one in runs)
        ratios = sorted(measured[TAR].elapsed_s / measured[name].elapsed_s for measured in rounds)
        decoding = statistics.median(measured[DECODE_ALONE].elapsed_s / measured[name].elapsed_s for measured in rounds)
        cpu_ms = statistics.median(one.cpu_s for one in runs) / num_images * 1000
        peak_mib = max(one.peak_mib for one in runs)
        spread = f"{statistics.median(ratios):7.2f} {ratios[0]:6.2f} {ratios[-1]:9.2f} {decoding:12.2f}"
        print(f"{name:18} {speed:9,.0f} {spread} {cpu_ms:13.2f} {peak_mib:9.0f}")
    print("with Ray, CPU time is the driver's alone; memory is that of the largest process")


if __name__ == "__main__":
    main()
