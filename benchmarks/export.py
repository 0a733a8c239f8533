"""Every format of `rayprob export`: size, images per second on this CPU, and what it costs in quality.

    python benchmarks/export.py RUN [--split val] [--images 500] [--rounds 5] [--batch 8]

RUN is a finished, calibrated run whose dataset is there; `rayprob train tune_configs/voc-sample.yaml` makes one. Each format is
read back as its users do, with one thread and with two, and answers for the images of the split, whose annotations judge it.
Speed is that of whole answers from pixels of the network's size, without decoding; formats take turns, medians are printed.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from rayprob.arrays import Pixels
from rayprob.export.checking import Reader, expected, probabilities_of
from rayprob.export.hub import export_hub
from rayprob.export.measured import ExportImages
from rayprob.export.onnx_file import export_onnx, onnx_reader
from rayprob.export.precisions import FP16, INT8
from rayprob.export.torch_file import export_torch, torch_reader
from rayprob.runs.bundle import Bundle
from rayprob.runs.paths import bundle_folder
from rayprob.text import columns

THREADS = (1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    images = ExportImages.open(options.run, None, options.split)
    bundle = Bundle.load(bundle_folder(options.run))
    with tempfile.TemporaryDirectory() as folder:
        measure(bundle, images, options, Path(folder))


def measure(bundle: Bundle, images: ExportImages, options: argparse.Namespace, folder: Path) -> None:
    """Print a line for each format."""
    sizes, reader_of = written(bundle, images, options.run, folder)
    speeds = {threads: timed(bundle, reader_of, threads, options) for threads in THREADS}
    judged = images.measure({name: make(THREADS[-1]) for name, make in reader_of.items()}, options.split, options.images)
    rows = [("format", "MB", *(f"images/s, {threads} thread(s)" for threads in THREADS), "largest difference", "mAP", "ECE")]
    for name, one in judged.items():
        rates = (f"{speeds[threads][name]:.1f}" for threads in THREADS)
        quality = (f"{one.largest_difference:.1e}", f"{one.mAP[1]:.4f}", f"{one.ECE[1]:.4f}")
        rows.append((name, f"{sizes[name] / 1e6:.1f}", *rates, *quality))
    some = next(iter(judged.values()))
    print(f"{bundle.model_spec.backbone} at {bundle.transform_spec.size_px} px, batches of {options.batch}")
    print(columns(rows))
    print(f"difference of a marginal, mAP and ECE on {some.num_images} of the {some.of_images} images of {options.split}")


def written(
    bundle: Bundle, images: ExportImages, run: str, folder: Path
) -> tuple[dict[str, int], dict[str, Callable[[int], Reader]]]:
    """Write every format; return its size in bytes, and a function that reads it back for a number of threads."""
    onnx = {"ONNX": {}, "ONNX fp16": {"precision": FP16}, "ONNX int8": {"precision": INT8}}
    sizes, readers = {}, {}
    hub = export_hub(run, str(folder / "hub"), with_onnx=False)
    print("timm:", hub.why_not_timm or "loads the folder for Hugging Face")
    sizes["PyTorch, --hub"] = sum(hub.size_of.values())
    hub_bundle = Bundle.load(str(folder / "hub"))
    readers["PyTorch, --hub"] = lambda threads: pytorch(hub_bundle, threads)
    sizes["torch.export"] = export_torch(bundle, str(folder / "b.pt2")).size_bytes
    readers["torch.export"] = lambda threads: with_threads(torch_reader((folder / "b.pt2").read_bytes()), threads)
    for name, keys in onnx.items():
        path = folder / f"{name.split()[-1]}.onnx"
        calibration = images.for_calibration() if INT8 in keys.values() else ()
        sizes[name] = export_onnx(bundle, str(path), images=calibration, **keys).size_bytes
        readers[name] = lambda threads, path=path: onnx_reader(path.read_bytes(), threads=threads)
    return sizes, readers


def pytorch(bundle: Bundle, threads: int) -> Reader:
    """Return a function that answers with the bundle itself."""
    names = probabilities_of(bundle).names
    return with_threads(lambda images_NHWC: [expected(bundle, images_NHWC)[name] for name in names], threads)


def with_threads(read: Reader, threads: int) -> Reader:
    """Return the reader with PyTorch limited to a number of threads."""

    def limited(images_NHWC: Pixels) -> list[np.ndarray]:
        torch.set_num_threads(threads)
        return list(read(images_NHWC))

    return limited


def timed(
    bundle: Bundle, reader_of: dict[str, Callable[[int], Reader]], threads: int, options: argparse.Namespace
) -> dict[str, float]:
    """Return the median images per second of each format, which take turns; the first round only warms up."""
    size_px = bundle.transform_spec.size_px
    images_NHWC = np.random.default_rng(0).integers(0, 256, (options.batch, size_px, size_px, 3), dtype=np.uint8)
    readers = {name: make(threads) for name, make in reader_of.items()}
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for turn in range(options.rounds + 1):
        for name, read in readers.items():
            started_s = time.perf_counter()
            read(images_NHWC)
            seconds[name] += [time.perf_counter() - started_s] if turn else []
    return {name: options.batch / statistics.median(found) for name, found in seconds.items()}


if __name__ == "__main__":
    main()
