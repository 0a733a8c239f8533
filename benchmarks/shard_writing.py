"""Shard writing against `tar` of the same files, side by side: images/s, their ratio, peak memory.

    python benchmarks/shard_writing.py [--source ../shared/coco-sample] [--repeat 8] [--rounds 3]

Goal: half the speed of tar. tar copies; the builder also measures every image, hashes every byte twice, and writes labels
and a manifest (`check: header`), and by default decodes every image too (`check: decode`). All run from the page cache, one
after the other, and sync what they wrote. Reading annotations and committing count; starting Python and Ray do not.
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

TAR = "tar"


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


def run_tar(scratch: str) -> Measured:
    """Time `tar` and a sync of its output."""
    command = "tar --hard-dereference -cf built.tar images && sync built.tar"
    measured = run(["bash", "-c", f"TIMEFORMAT='%R %U %S'; time ({command})"], scratch, stream="stderr")
    (Path(scratch) / "built.tar").unlink()
    return measured


BUILD = """
import sys, time
from rayprob.data.build import build, in_process, on_ray
from rayprob.data.recipe import Recipe
check, ray = sys.argv[1:]
splits = {"train": {"images": "images", "annotations": "instances.json"}}
began_at_s = time.process_time()
recipe = Recipe(name="speed", splits=splits, target="built", check=check)
summary = build(recipe, run_tasks=on_ray() if ray == "True" else in_process)
print(summary.writing_s if ray == "True" else summary.elapsed_s, time.process_time() - began_at_s)
"""


def run_build(scratch: str, check: str, *, ray: bool) -> Measured:
    """Time the builder in a process of its own."""
    measured = run([sys.executable, "-c", BUILD, check, str(ray)], scratch, stream="stdout")
    shutil.rmtree(Path(scratch) / "built")
    return measured


def run(command: list[str], folder: str, *, stream: str) -> Measured:
    """Run a command whose last line in a stream is its seconds, then its CPU seconds; returns them and its peak memory."""
    process = subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    printed = {"stdout": process.stdout.read(), "stderr": process.stderr.read()}
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command[0]} failed: {printed['stderr'][-2000:]}")
    elapsed_s, *cpu_s = map(float, printed[stream].splitlines()[-1].split())
    return Measured(elapsed_s, sum(cpu_s), usage.ru_maxrss / 1024)


def report(rounds: list[dict[str, Measured]], num_images: int) -> None:
    """Print the median speed of each writer, its ratio to tar round by round, its CPU time, and its peak memory."""
    print(f"{'':18} {'images/s':>9} {'of tar':>7} {'least':>6} {'greatest':>9} {'CPU ms/image':>13} {'peak MiB':>9}")
    for name in rounds[0]:
        runs = [measured[name] for measured in rounds]
        speed = statistics.median(num_images / one.elapsed_s for one in runs)
        ratios = sorted(measured[TAR].elapsed_s / measured[name].elapsed_s for measured in rounds)
        cpu_ms = statistics.median(one.cpu_s for one in runs) / num_images * 1000
        peak_mib = max(one.peak_mib for one in runs)
        spread = f"{statistics.median(ratios):7.2f} {ratios[0]:6.2f} {ratios[-1]:9.2f}"
        print(f"{name:18} {speed:9,.0f} {spread} {cpu_ms:13.2f} {peak_mib:9.0f}")
    print("with Ray, CPU time and memory are those of the driver alone")


if __name__ == "__main__":
    main()
