"""The scale of planning: seconds and memory of the driver, from a file of labels to a committed manifest, without any image.

    python benchmarks/scale_planning.py [--rows 100000 1000000 10000000] [--kinds parquet csv coco] [--most-s 360]

A made-up source has three labels of 80 per image. Its folder of images is made up too: names and sizes come from a generator
in place of the disk, so listing is the only step that costs less here than on a real disk. `plan` is the time from the recipe
to the plan of all shards; `commit` that from their reports, which are written as the shards would, to dataset.json. Peak
memory is beyond that of a process that only imported rayprob, and includes the buffers that do not grow with rows; the slope
between the two largest sizes leaves these out. A size that is likely to take longer than `--most-s` is not run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

LABELS, PER_IMAGE, CHUNK = 80, 3, 2**16
MEASURE = """
import json, resource, sys, time
import numpy as np
import pyarrow.csv, pyarrow.parquet
from rayprob.data.building.commit import commit
from rayprob.data.building.plan import plan
from rayprob.data.building.shard_jobs import ShardJobs
from rayprob.data.building.recipe import Recipe
from rayprob.data.building.shard import BuiltShard, _write_report
from rayprob.data.sources.source import read_source
from rayprob.files import storage

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def names():
    for start in range(0, num_rows, 2**14):
        yield [(f"{row:09d}.jpg", 100_000 + row % 1000) for row in range(start, min(start + 2**14, num_rows))]

def report(job):
    rows = [
        {"sample_id": one.sample_id, "key": str(one.sample_id), "split": job.plan.split, "shard": job.plan.name, "crc32": 0,
         "offset_bytes": 512, "size_bytes": one.size_bytes, "height_px": 480, "width_px": 640, "labels": one.labels,
         "unknown_labels": one.unknown_labels, "label_areas_px2": one.label_areas_px2}
        for one in job.plan.samples
    ]
    facts = BuiltShard(job.plan.name, job.plan.split, job.fingerprint, len(rows), 10**8, "0" * 64, 0, [])
    _write_report(job.report, facts, rows, job.rest)

num_rows, with_commit, recipe = int(sys.argv[1]), sys.argv[2] == "True", Recipe.parse(json.loads(sys.argv[3]))
storage.walk_below = lambda uri, in_order: (names(), {}, ())
before_mib, began_at_s = peak_mib(), time.monotonic()
source = read_source(recipe)
jobs = ShardJobs(recipe, source, plan(source.images, recipe))
plan_s, plan_mib = time.monotonic() - began_at_s, peak_mib() - before_mib
commit_s = commit_mib = float("nan")
if with_commit:
    for job in jobs:
        report(job)
    began_at_s = time.monotonic()
    commit(recipe, source, jobs.outlines)
    commit_s, commit_mib = time.monotonic() - began_at_s, peak_mib() - before_mib
print(plan_s, plan_mib, commit_s, commit_mib)
"""


def main() -> None:
    """Measure every kind at every size, each in a process of its own, and print a row for each."""
    options = parse()
    print(f"{'kind':8} {'rows':>11} {'file MB':>8} {'plan s':>8} {'rows/s':>8} {'peak MiB':>9} {'commit s':>9} {'peak MiB':>9}")
    for kind in options.kinds:
        peaks: dict[int, tuple[float, float]] = {}
        for num_rows in options.rows:
            if peaks and (last := max(peaks)) and peaks[last][0] * num_rows / last > options.most_s:
                print(f"{kind:8} {num_rows:11,} not run: likely more than {options.most_s} s")
                continue
            plan_s, plan_mib = measure(kind, num_rows, options.scratch, with_commit=num_rows <= options.commit_rows)
            peaks[num_rows] = plan_s, plan_mib
        if len(peaks) > 1:
            smaller, larger = sorted(peaks)[-2:]
            rates = [(peaks[larger][place] - peaks[smaller][place]) / (larger - smaller) for place in (0, 1)]
            print(f"{kind:8} from {smaller:,} to {larger:,}: {rates[0] * 1e6:.2f} us and {rates[1] * 2**20:.0f} bytes per row; "
                  f"10^9 rows: {rates[0] * 1e9 / 3600:.1f} h and {rates[1] * 1e9 / 1024:.0f} GiB")  # fmt: skip


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--kinds", nargs="+", choices=[*WRITERS], default=[*WRITERS])
    parser.add_argument("--most-s", type=float, default=360.0, help="leave out sizes that are likely to take longer to plan")
    parser.add_argument("--commit-rows", type=int, default=10**6, help="commit up to this many rows")
    parser.add_argument("--scratch", default=None, help="a folder for files of up to 4 GB")
    return parser.parse_args()


def measure(kind: str, num_rows: int, scratch: str | None, *, with_commit: bool) -> tuple[float, float]:
    """Print a row; returns the seconds and MiB of planning."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        Path(folder, "images").mkdir()
        split = {"images": f"{folder}/images", **WRITERS[kind](Path(folder), num_rows)}
        size_bytes = os.stat(split["annotations"]).st_size
        recipe = {"name": "scale", "splits": {"train": split}, "target": f"{folder}/built"}
        command = [sys.executable, "-c", MEASURE, str(num_rows), str(with_commit), json.dumps(recipe)]
        done = subprocess.run(command, text=True, capture_output=True, cwd=Path(__file__).resolve().parents[1])
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    plan_s, plan_mib, commit_s, commit_mib = map(float, done.stdout.split())
    print(f"{kind:8} {num_rows:11,} {size_bytes / 1e6:8,.0f} {plan_s:8.1f} {num_rows / plan_s:8,.0f} {plan_mib:9.0f} "
          f"{commit_s:9.1f} {commit_mib:9.0f}", flush=True)  # fmt: skip
    return plan_s, plan_mib


def label_chunks(num_rows: int) -> Iterator[tuple[range, list[list[int]]]]:
    """Yield rows, and the labels of each."""
    random = np.random.default_rng(0)
    for start in range(0, num_rows, CHUNK):
        rows = range(start, min(start + CHUNK, num_rows))
        yield rows, random.integers(0, LABELS, (len(rows), PER_IMAGE)).tolist()


def write_parquet(folder: Path, num_rows: int) -> dict[str, str]:
    """Write a table with lists of labels; returns the keys of its split."""
    path = folder / "labels.parquet"
    schema = pa.schema([("image", pa.string()), ("labels", pa.list_(pa.string()))])
    with pq.ParquetWriter(path, schema) as writer:
        for rows, labels in label_chunks(num_rows):
            cells = [[f"label{label}" for label in some] for some in labels]
            writer.write_table(pa.table({"image": [f"{row:09d}.jpg" for row in rows], "labels": cells}, schema=schema))
    return {"format": "table", "annotations": str(path), "image": "image", "lists": "labels"}


def write_csv(folder: Path, num_rows: int) -> dict[str, str]:
    """Write a table with labels between bars; returns the keys of its split."""
    path = folder / "labels.csv"
    with path.open("w") as file:
        file.write("image,labels\n")
        for rows, labels in label_chunks(num_rows):
            lines = (
                f"{row:09d}.jpg,{'|'.join(f'label{label}' for label in some)}\n" for row, some in zip(rows, labels, strict=True)
            )
            file.write("".join(lines))
    return {"format": "table", "annotations": str(path), "image": "image", "lists": "labels", "separator": "|"}


def write_coco(folder: Path, num_rows: int) -> dict[str, str]:
    """Write annotations with a box for each label; returns the keys of its split."""
    path = folder / "instances.json"
    with path.open("w") as file:
        file.write('{"images": [')
        for start in range(0, num_rows, CHUNK):
            entries = (
                f'{{"id": {row}, "file_name": "{row:09d}.jpg", "height": 480, "width": 640}}'
                for row in range(start, min(start + CHUNK, num_rows))
            )
            file.write((", " if start else "") + ", ".join(entries))
        file.write('], "annotations": [')
        for rows, labels in label_chunks(num_rows):
            boxes = (
                f'{{"image_id": {row}, "category_id": {label + 1}, "bbox": [1.5, 2.5, 30.0, 40.0], "area": 1200.0}}'
                for row, some in zip(rows, labels, strict=True)
                for label in some
            )
            file.write((", " if rows[0] else "") + ", ".join(boxes))
        categories = [{"id": label + 1, "name": f"label{label}"} for label in range(LABELS)]
        file.write(f'], "categories": {json.dumps(categories)}}}')
    return {"annotations": str(path)}


WRITERS: dict[str, Callable[[Path, int], dict[str, str]]] = {"parquet": write_parquet, "csv": write_csv, "coco": write_coco}

if __name__ == "__main__":
    main()
