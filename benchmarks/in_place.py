"""Tars of others trained on where they lie, compared with shards of the same images: bytes written, seconds, images/s.

    python benchmarks/in_place.py [--rounds 5] [--images-per-run 572] [--no-s3]

The train split of ../shared/coco-sample is sharded. The samples of each shard are then written into a tar of their own, in
the same order, twice: by webdataset's ShardWriter, and in img2dataset's layout (000000000.jpg, .txt, .json, and a Parquet file
per tar). Both are indexed with `copy: false`, from the disk and from an S3 server (moto) on this machine.

Images/s are those of the training stream at 224 px that decodes in its own process, in turns, after a first epoch that reads
everything once; over S3 that epoch fills the cache, so later ones measure what training sees of a dataset that fits there. The
ratio to our own shards in the same place is the median over the rounds, by wall time and by CPU time. Last, a byte of an image
is changed.
"""

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import webdataset

from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.manifest.dataset import Dataset
from rayprob.data.verify import verify
from rayprob.errors import RayprobError
from rayprob.files import storage
from rayprob.loader.augment import TransformSpec, build_transform
from rayprob.loader.reader import SampleReader
from rayprob.loader.shards import RangeReads
from rayprob.loader.streams import Batch, Cursor, Place, StreamSpec, TrainStream

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "coco-sample"
BATCH = 16
OWN, OWN_S3 = "own shards, disk", "own shards, S3"
Sample = tuple[str, bytes, list[str]]  # key, JPEG, labels


def main() -> None:
    """Build, index, compare and print."""
    options = parse()
    if not SAMPLE.is_dir():
        print(f"skipped: no images at {SAMPLE}")
        return
    with tempfile.TemporaryDirectory() as folder, served(is_wanted=options.s3) as bucket:
        datasets = made(Path(folder), bucket)
        print()
        loader = Loader(f"{folder}/cache")
        compare(loader, datasets, options.rounds, options.images_per_run)
        print()
        change_a_byte(loader, datasets["ShardWriter, disk"])


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images-per-run", type=int, default=572)
    parser.add_argument("--no-s3", dest="s3", action="store_false")
    return parser.parse_args()


def made(folder: Path, bucket: str | None) -> dict[str, Dataset]:
    """Return our own shards and what was indexed, after printing what was written for each."""
    annotations = str(SAMPLE / "annotations" / "instances_train2014.json")
    coco = {"images": str(SAMPLE / "train2014"), "annotations": annotations}
    found = {OWN: built(OWN, str(folder / "own"), coco, max_shard_samples=32)}
    if bucket is not None:
        found[OWN_S3] = built(OWN_S3, f"{bucket}/own", coco, max_shard_samples=32)
    names = {name: name for name in found[OWN].label_space.names}
    shards = list(samples_of(found[OWN]))
    for writer, write, keys in (
        ("ShardWriter", by_shard_writer, {"label": "labels"}),
        ("img2dataset", by_img2dataset, {"label": "tags"}),
    ):
        tars = folder / "tars" / writer
        write(tars, shards)
        for where, images in (("disk", str(tars)), ("S3", f"{bucket}/{writer}")):
            if where == "S3" and bucket is None:
                continue
            if where == "S3":
                upload(tars, images)
            source = {"format": "webdataset", "images": images, "copy": False, "names": names, **keys}
            found[f"{writer}, {where}"] = built(f"{writer}, {where}", str(folder / f"{writer}-{where}"), source)
    return found


def built(name: str, target: str, source: dict[str, Any], **keys: Any) -> Dataset:
    """Build a dataset in this process; print the seconds, and the bytes that it wrote, in all and of images."""
    recipe = {"name": "x", "splits": {"train": source}, "holdout": None, "target": target, **keys}
    began_at_s = time.perf_counter()
    build(Recipe.parse(recipe), run_tasks=in_process)
    elapsed_s = time.perf_counter() - began_at_s
    dataset = Dataset.open(target)
    contents = [storage.read_bytes(storage.join(target, name)) for name in storage.list_below(target).size_of]
    reader = SampleReader(dataset.root, RangeReads(dataset.root))
    images = [reader.read(sample) for sample in dataset.split("train").all_samples()]
    of_images = sum(len(image) for image in images if any(image in content for content in contents))
    print(
        f"{name:18} {len(images)} images of {sum(map(len, images)):,} bytes: {elapsed_s:.2f} s, "
        f"{sum(map(len, contents)):,} bytes written, {of_images:,} of them of images",
        flush=True,
    )
    return dataset


def samples_of(dataset: Dataset) -> Iterator[list[Sample]]:
    """Yield the samples of each shard of train."""
    manifest = dataset.split("train")
    reader = SampleReader(dataset.root, RangeReads(dataset.root))
    targets_NL, names = manifest.targets(), manifest.label_space.names
    samples = zip(manifest.all_samples(), targets_NL, strict=True)
    for count in manifest.samples_per_shard().tolist():
        yield [
            (sample.key, reader.read(sample), [names[column] for column in row.nonzero()[0]])
            for sample, row in itertools.islice(samples, count)
        ]


def by_shard_writer(folder: Path, shards: list[list[Sample]]) -> None:
    """Write each shard as a tar of webdataset's own writer."""
    folder.mkdir(parents=True)
    with webdataset.ShardWriter(str(folder / "%06d.tar"), maxcount=10**6, verbose=0) as writer:
        for number, shard in enumerate(shards):
            if number:
                writer.next_stream()
            for key, jpeg, labels in shard:
                writer.write({"__key__": key, "jpg": jpeg, "json": {"labels": labels}})


def by_img2dataset(folder: Path, shards: list[list[Sample]]) -> None:
    """Write each shard as img2dataset does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    for number, shard in enumerate(shards):
        facts = [{"key": f"{number:05d}{place:04d}", "status": "success", "tags": one[2]} for place, one in enumerate(shard)]
        with webdataset.TarWriter(str(folder / f"{number:05d}.tar")) as writer:
            for fact, (_, jpeg, _) in zip(facts, shard, strict=True):
                content = json.dumps(fact).encode()
                writer.write({"__key__": fact["key"], "jpg": jpeg, "txt": b"a caption", "json": content})
        pq.write_table(pa.Table.from_pylist(facts), folder / f"{number:05d}.parquet")
        (folder / f"{number:05d}_stats.json").write_text("{}")


def compare(loader: "Loader", datasets: dict[str, Dataset], rounds: int, num_images: int) -> None:
    """Print whether batches are equal to those of our own shards, and images/s compared with theirs."""
    own = list(itertools.islice(loader.batches(datasets[OWN], "resize"), 40))
    equal = {name: equality(own, itertools.islice(loader.batches(one, "resize"), 40)) for name, one in datasets.items()}
    rates: list[dict[str, tuple[float, float]]] = [
        {name: loader.rate(dataset, num_images) for name, dataset in datasets.items()} for _ in range(rounds)
    ]
    print(f"{'':18} {'images/s':>9} {'of own':>7} {'by CPU time':>12}  40 batches against those of our own shards")
    for name in datasets:
        per_s = statistics.median(one[name][0] for one in rates)
        base = OWN_S3 if name.endswith("S3") else OWN
        wall, cpu = (statistics.median(one[name][kind] / one[base][kind] for one in rates) for kind in (0, 1))
        print(f"{name:18} {per_s:9.1f} {wall:7.2f} {cpu:12.2f}  {equal[name]}")


def equality(own: list[Batch], others: Iterator[Batch]) -> str:
    """Return which tensors of the batches are equal, bit for bit."""
    pairs = list(zip(own, others, strict=True))
    names = {"images": "images_BCHW", "targets": "targets_BL", "known": "known_BL", "sample ids": "sample_ids_B"}
    same = [words for words, name in names.items() if all(torch.equal(getattr(a, name), getattr(b, name)) for a, b in pairs)]
    return f"equal: {', '.join(same)}"


@dataclass(frozen=True)
class Loader:
    """Training streams; shards in an object store are cached in a folder."""

    cache: str

    def batches(self, dataset: Dataset, transform: str) -> Iterator[Batch]:
        """Yield what training sees."""
        spec = StreamSpec(global_batch=BATCH, lanes=2, loader_workers=0, cache_dir=self.cache)
        look = build_transform(TransformSpec(name=transform, size_px=224))
        stream = TrainStream(dataset.split("train"), spec, look, seed=0, place=Place(), micro_batch=BATCH)
        return stream.iterate(Cursor(0, 0))

    def rate(self, dataset: Dataset, num_images: int) -> tuple[float, float]:
        """Return images per second of wall time and of CPU time, after an epoch."""
        stream = self.batches(dataset, "paper")
        for _ in itertools.islice(stream, len(dataset.split("train")) // BATCH):
            pass
        began_at_s, cpu_s = time.perf_counter(), time.process_time()
        count = sum(len(batch.sample_ids_B) for batch in itertools.islice(stream, num_images // BATCH))
        return count / (time.perf_counter() - began_at_s), count / (time.process_time() - cpu_s)


def change_a_byte(loader: "Loader", dataset: Dataset) -> None:
    """Change a byte of an image, and print what verify and training say."""
    sample = dataset.split("train").sample(7)
    with open(sample.shard, "r+b") as file:
        file.seek(sample.offset_bytes + sample.size_bytes // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    for fault in verify(dataset.root):
        print(f"verify: {fault}")
    try:
        for _ in itertools.islice(loader.batches(dataset, "resize"), len(dataset.split("train")) // BATCH):
            pass
    except RayprobError as error:
        print(f"training: {error}")


@contextmanager
def served(*, is_wanted: bool) -> Iterator[str | None]:
    """Yield the URI of a bucket in an S3 server on this machine; None where it is not wanted, or moto is not installed."""
    try:
        from moto.server import ThreadedMotoServer
    except ImportError:
        print("S3: skipped, because moto is not installed")
        is_wanted = False
    if not is_wanted:
        yield None
        return
    from pyarrow import fs

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_EC2_METADATA_DISABLED": "true", **keys}
    fs.S3FileSystem(endpoint_override=f"{host}:{port}", scheme="http", allow_bucket_creation=True).create_dir("tars")
    try:
        yield "s3://tars"
    finally:
        server.stop()


def upload(folder: Path, uri: str) -> None:
    """Copy the files of a folder to a URI."""
    for path in folder.iterdir():
        storage.write_bytes(storage.join(uri, path.name), path.read_bytes())


if __name__ == "__main__":
    main()
