"""Images per second of the training stream at 448 px, compared with alternatives, measured in turns in one run.

    python benchmarks/loader_throughput.py DATASET [--images FOLDER --annotations FILE] [--rounds 5] [--images-per-run 1500]

DATASET is a built dataset with a `train` split. Contenders, each with two processes that decode:
    stream      rayprob's TrainStream, transform `paper`, 2 loader workers: order, crc, seeded flip, uint8 batches
    bare        a loop that decodes, resizes and flips with the same functions, from memory: no order, no batches, no transport
    webdataset  WebDataset + Pillow + float tensors normalised on the CPU, in a DataLoader
    coco        torchvision's CocoDetection with the same Pillow transforms, in a DataLoader (needs FOLDER and FILE)

Each run is a separate process; the rounds interleave the contenders, so that a change in the machine's load affects all of
them. Printed: the median over the rounds of images/s and of the ratio to it within a round, images per CPU second of all
its processes, their peak memory (PSS, shared pages counted once), and the memory over epochs of the stream.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SIZE_PX = 448
BATCH = 16
PROCESSES = 2
GOALS = {"bare": 0.9, "webdataset": 2.0}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Run the contenders in turns and print the table."""
    options = parse()
    if not (Path(options.dataset) / "dataset.json").exists():
        print(f"skipped: no built dataset at {options.dataset}; make one with `rayprob shard shards/coco-sample.yaml`")
        return
    if options.contender:
        print(json.dumps(CONTENDERS[options.contender](options)))
        return
    names = [name for name in CONTENDERS if name not in ("coco", "epochs") or (name == "coco" and options.images)]
    if "coco" not in names:
        print("coco: skipped, because --images and --annotations are not given")
    rounds = [one_round(names, number) for number in range(options.rounds)]
    print()
    for name in names:
        print(line(name, rounds))
    memory = run("epochs")
    print(f"stream, memory over {len(memory['pss_mib'])} epochs (MiB): {' '.join(f'{m:.0f}' for m in memory['pss_mib'])}")


def one_round(names: list[str], number: int) -> dict[str, dict[str, float]]:
    """Run each contender once and print its two rates."""
    results: dict[str, dict[str, float]] = {}
    for name in names:
        results[name] = run(name)
        rates = f"{results[name]['images_per_s']:.1f} images/s, {results[name]['images_per_cpu_s']:.1f} images/CPU s"
        print(f"round {number + 1}: {name:11} {rates}", flush=True)
    return results


def line(name: str, rounds: list[dict[str, dict[str, float]]]) -> str:
    """Return one line of the table: medians over the rounds."""
    median = {key: statistics.median(result[name][key] for result in rounds) for key in rounds[0][name]}
    text = (
        f"{name:11} {median['images_per_s']:7.1f} images/s  {median['images_per_cpu_s']:7.1f} images/CPU s  "
        f"{median['peak_mib']:6.0f} MiB"
    )
    if name == "stream":
        return text
    ratios = {
        key: statistics.median(r["stream"][key] / r[name][key] for r in rounds) for key in ("images_per_s", "images_per_cpu_s")
    }
    goal = f", goal {GOALS[name]}" if name in GOALS else ""
    return f"{text}  stream/{name} {ratios['images_per_s']:.2f} (by CPU time {ratios['images_per_cpu_s']:.2f}{goal})"


def run(name: str) -> dict[str, Any]:
    """Run a contender in its own process and return its measurements, with the peak memory of its processes."""
    process = subprocess.Popen([sys.executable, *sys.argv, "--contender", name], stdout=subprocess.PIPE, text=True)
    peak_mib, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            peak_mib[0] = max(peak_mib[0], pss_mib(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{name} failed")
    return {**json.loads(output.splitlines()[-1]), "peak_mib": peak_mib[0]}


def measure(batches: Iterator[Any], num_images: int) -> dict[str, float]:
    """Return images per second of wall time and of CPU time, after a warm-up that fills the queues."""
    for _ in itertools.islice(batches, 8):
        pass
    cpu_s, started_at_s, count = tree_cpu_s(), time.perf_counter(), -(-num_images // BATCH)
    for _ in itertools.islice(batches, count):
        pass
    elapsed_s, used_s = time.perf_counter() - started_at_s, tree_cpu_s() - cpu_s
    return {"images_per_s": count * BATCH / elapsed_s, "images_per_cpu_s": count * BATCH / used_s}


def stream(options: argparse.Namespace) -> dict[str, float]:
    """Measure rayprob's training stream."""
    from rayprob.loader.streams import Cursor

    return measure(train_stream(options).iterate(Cursor(0, 0)), options.images_per_run)


def train_stream(options: argparse.Namespace) -> Any:
    """Return the stream that is measured."""
    from rayprob.data.manifest.dataset import Dataset
    from rayprob.loader.augment import TransformSpec, build_transform
    from rayprob.loader.streams import Place, StreamSpec, TrainStream

    transform = build_transform(TransformSpec(name="paper", size_px=SIZE_PX))
    spec = StreamSpec(global_batch=BATCH, lanes=2, loader_workers=PROCESSES)
    manifest = Dataset.open(options.dataset).split("train")
    return TrainStream(manifest, spec, transform, seed=0, place=Place(), micro_batch=BATCH)


def epochs(options: argparse.Namespace) -> dict[str, list[float]]:
    """Measure the memory of the stream's processes at the end of each epoch."""
    from rayprob.loader.streams import Cursor

    train, seen = train_stream(options), []
    for batch in train.iterate(Cursor(0, 0)):
        if batch.cursor.batch == train.batches_per_epoch - 1:
            seen.append(pss_mib(os.getpid()))
        if len(seen) == options.epochs:
            break
    return {"pss_mib": seen}


def bare(options: argparse.Namespace) -> dict[str, float]:
    """Measure a loop over JPEGs in memory, in two processes that share nothing."""
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(PROCESSES), context.Queue()
    jpegs = train_jpegs(options.dataset)
    loops = [
        context.Process(target=bare_loop, args=(jpegs[part::PROCESSES], options.images_per_run // PROCESSES, barrier, results))
        for part in range(PROCESSES)
    ]
    for loop in loops:
        loop.start()
    rates = [results.get() for _ in loops]
    for loop in loops:
        loop.join()
    return {key: sum(rate[key] for rate in rates) for key in ("images_per_s",)} | {
        "images_per_cpu_s": statistics.mean(rate["images_per_cpu_s"] for rate in rates)
    }


def bare_loop(jpegs: list[bytes], count: int, barrier: Any, results: Any) -> None:
    """Decode, resize and flip `count` images."""
    import torch

    from rayprob.images.decode import EncodedImage
    from rayprob.images.reading import READ_UPRIGHT
    from rayprob.loader.augment import TransformSpec, build_transform

    torch.set_num_threads(1)
    transform = build_transform(TransformSpec(name="paper", size_px=SIZE_PX))
    for jpeg in jpegs[:30]:
        transform(EncodedImage(jpeg, READ_UPRIGHT), 0)
    barrier.wait()
    cpu_s, started_at_s = time.process_time(), time.perf_counter()
    for seed, jpeg in enumerate(itertools.islice(itertools.cycle(jpegs), count)):
        transform(EncodedImage(jpeg, READ_UPRIGHT), seed)
    elapsed_s, used_s = time.perf_counter() - started_at_s, time.process_time() - cpu_s
    results.put({"images_per_s": count / elapsed_s, "images_per_cpu_s": count / used_s})


def train_jpegs(dataset: str) -> list[bytes]:
    """Return the JPEG bytes of the train split."""
    from rayprob.data.manifest.dataset import Dataset
    from rayprob.loader.reader import SampleReader
    from rayprob.loader.shards import LocalShards

    reader = SampleReader(dataset, LocalShards(dataset))
    return [reader.read(sample) for sample in Dataset.open(dataset).split("train").all_samples()]


def webdataset(options: argparse.Namespace) -> dict[str, float]:
    """Measure the pipeline of webdataset's own documentation."""
    import webdataset as wds
    from torch.utils.data import DataLoader

    shards = sorted(map(str, Path(options.dataset).glob("train-*.tar")))
    pipeline = (
        wds.WebDataset(shards, resampled=True, shardshuffle=False)
        .shuffle(100)
        .decode("pil")
        .to_tuple("jpg", "json")
        .map_tuple(pillow_transform(), lambda facts: len(facts["labels"]))
        .batched(BATCH)
    )
    return measure(iter(DataLoader(pipeline, batch_size=None, num_workers=PROCESSES)), options.images_per_run)


def coco(options: argparse.Namespace) -> dict[str, float]:
    """Measure torchvision's CocoDetection."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import CocoDetection

    dataset = CocoDetection(options.images, options.annotations, transform=pillow_transform(), target_transform=len)
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True, num_workers=PROCESSES, persistent_workers=True)
    return measure(itertools.chain.from_iterable(loader for _ in itertools.count()), options.images_per_run)


def pillow_transform() -> Callable[[Any], Any]:
    """Return the equivalent of `paper` in torchvision on Pillow images."""
    from torchvision import transforms

    return transforms.Compose(
        [
            lambda image: image.convert("RGB"),
            transforms.Resize((SIZE_PX, SIZE_PX)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def processes(root: int) -> list[int]:
    """Return a process and its descendants."""
    found = [root]
    for process in found:
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue
    return found


def pss_mib(root: int) -> float:
    """Return the memory of a process and its descendants, shared pages counted once."""
    return sum(_pss_kib(process) for process in processes(root)) / 1024


def _pss_kib(process: int) -> int:
    try:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


def tree_cpu_s() -> float:
    """Return the CPU time that this process and its living descendants have used."""
    ticks = 0
    for process in processes(os.getpid()):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--images")
    parser.add_argument("--annotations")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images-per-run", type=int, default=1500)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--contender", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    return parser.parse_args()


CONTENDERS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "stream": stream,
    "bare": bare,
    "webdataset": webdataset,
    "coco": coco,
    "epochs": epochs,
}

if __name__ == "__main__":
    main()
