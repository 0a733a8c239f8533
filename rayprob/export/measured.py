"""What an exported file costs in quality: a split of a dataset through the file and through PyTorch. N images, L labels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from rayprob.arrays import Bools, Floats, Pixels
from rayprob.data.joined.dataset import AnySplit
from rayprob.export.checking import Reader
from rayprob.loader.augment import build_transform
from rayprob.loader.batch import Batch
from rayprob.loader.order import Place
from rayprob.loader.streams import EvalStream
from rayprob.metrics.ranking import mean_average_precision
from rayprob.metrics.reliability import expected_calibration_error
from rayprob.runs.finished import holdout_split
from rayprob.train.evaluable import LabelMatch, Trained, open_trained

BATCH = 8
CALIBRATION_IMAGES = 64
HOLDOUT = "holdout"  # what a bundle that does not name its split chose on


@dataclass(frozen=True)
class ExportLoss:
    """mAP and ECE of the marginals by PyTorch, then by the file, and the largest difference of a marginal between the two."""

    split: str
    num_images: int  # judged
    of_images: int  # in the split
    mAP: tuple[float, float]
    ECE: tuple[float, float]
    largest_difference: float


@dataclass(frozen=True, eq=False)
class ExportImages:
    """The images of a bundle's own dataset, or of another one, as the bundle's network sees them."""

    trained: Trained
    data: str | None

    @classmethod
    def open(cls, path: str, data: str | None, split: str) -> "ExportImages":
        """Open the dataset at `data`, by default that of the run at `path`, which has `split`.

        Raises as `open_trained`, and DatasetError for an unknown split.
        """
        trained = open_trained(path, data=data)
        trained.dataset(data).split(split)
        return cls(trained, data)

    def for_calibration(self) -> Iterator[Pixels]:
        """Yield images [1, S, S, 3] of the split on which the run chose, evenly spaced."""
        manifest = self.trained.dataset(self.data).split(holdout_split(self.trained.bundle.facts.get("run")) or HOLDOUT)
        for batch in self._batches(manifest, CALIBRATION_IMAGES):
            yield from (image[None] for image in _pixels(batch))

    def measure(self, readers: Mapping[str, Reader], split: str, num_images: int) -> dict[str, ExportLoss]:
        """Judge files by name, whose answers the `readers` return, on at most `num_images` images of a split, evenly spaced.

        Raises DatasetError for an unknown split, LabelError for a dataset without common labels, MetricError for a split
        without a positive.
        """
        dataset, bundle = self.trained.dataset(self.data), self.trained.bundle
        manifest = dataset.split(split)
        labels = LabelMatch.of(bundle.label_space, dataset.label_space, dataset.root) if self.data is not None else None
        ours: list[Floats] = []
        theirs: dict[str, list[Floats]] = {name: [] for name in readers}
        stated: list[Bools] = []  # targets and known [2, B, labels of the dataset]
        for batch in self._batches(manifest, num_images):
            with torch.inference_mode():
                outputs = bundle.classifier(batch.images_BCHW)
            ours.append(bundle.distribution(outputs).marginals())
            for name, read in readers.items():
                theirs[name].append(np.asarray(read(_pixels(batch))[0], dtype=np.float64))
            stated.append(np.stack([batch.targets_BL.numpy(), batch.known_BL.numpy()]).astype(bool))
        tables = np.concatenate(stated, axis=1)
        targets_NL, known_NL = tables if labels is None else (labels.of_model(table, missing=False) for table in tables)
        rows = np.concatenate(ours), targets_NL, known_NL
        return {name: _judged(split, len(manifest), np.concatenate(found), *rows) for name, found in theirs.items()}

    def _batches(self, manifest: AnySplit, num_images: int) -> Iterator[Batch]:
        rows = np.unique(np.linspace(0, len(manifest) - 1, min(num_images, len(manifest))).astype(np.int64))
        transform, reading = build_transform(self.trained.bundle.transform_spec), self.trained.reading(self.data)
        spec = self.trained.stream
        yield from EvalStream(manifest, spec, transform, place=Place(), micro_batch=BATCH, reading=reading, rows=rows)


def _judged(split: str, of_images: int, theirs_NL: Floats, ours_NL: Floats, targets_NL: Bools, known_NL: Bools) -> ExportLoss:
    both = ours_NL, theirs_NL
    mean = [mean_average_precision(marginals_NL, targets_NL, known_NL).value for marginals_NL in both]
    error = [expected_calibration_error(marginals_NL, targets_NL, known_NL) for marginals_NL in both]
    difference = float(np.abs(ours_NL - theirs_NL).max())
    return ExportLoss(split, len(ours_NL), of_images, (mean[0], mean[1]), (error[0], error[1]), difference)


def _pixels(batch: Batch) -> Pixels:
    """Return the images of a batch as a file takes them; its resize leaves images of the right size as they are."""
    pixels: Pixels = batch.images_BCHW.permute(0, 2, 3, 1).contiguous().numpy()
    return pixels
