"""Chooses a recipe and a run for a folder: with few images, train a head on a frozen network; with many, train all of it.

The settings for small sets are those of `tune_configs/coco-sample.yaml`, measured on 263 COCO images, and those for large
ones are `tune_configs/paper.yaml`'s. Everything between is judgement, not measurement.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from rayprob.project.found import Found

SMALL = 5_000  # training images below which the backbone stays frozen
HELD_OUT = 100  # enough images to fit thresholds and a calibrator, if a fifth of the set is that many
LARGEST_PX = 448  # the paper's
# Learning rates of those two files, at their batch; a smaller batch has a smaller rate in proportion (Goyal et al., 2017).
SMALL_LR, SMALL_BATCH = 0.5, 16
LARGE_LR, LARGE_BATCH = 0.8, 128
LARGEST_SMALL_PX = 384  # coco-sample.yaml's, evaluated at 576
STEP_PX = 32
BACKBONE = "resnet50"
BACKBONE_WEIGHTS = "IMAGENET1K_V2"


@dataclass(frozen=True)
class Network:
    """A backbone and its starting weights: the name of torchvision weights, or a file."""

    backbone: str = BACKBONE
    weights: str = BACKBONE_WEIGHTS

    @property
    def is_at_hand(self) -> bool:
        """Whether training can start without the internet: from a file, or from weights that torchvision has cached."""
        home = Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch")
        return "/" in self.weights or any((home / "hub" / "checkpoints").glob(f"{self.backbone}-*.pth"))


@dataclass(frozen=True)
class Fit:
    """The settings that depend on the images; the templates have the rest."""

    is_small: bool
    holdout_fraction: float
    max_shard_samples: int
    size_px: int
    evaluate_px: int
    global_batch: int
    lr: float
    epochs: int
    evaluate_every: int


def fit_to(found: Found) -> Fit:
    """Return settings for a source."""
    num_train = found.num_train
    fraction = min(0.2, max(0.05, math.ceil(100 * HELD_OUT / num_train) / 100))
    kept = max(1, int(num_train * (1 - fraction)))
    is_small = num_train < SMALL
    size_px = _size_px(found.short_side_px, LARGEST_SMALL_PX if is_small else LARGEST_PX)
    batch = _power_of_two(min(kept // 8, SMALL_BATCH if is_small else LARGE_BATCH))
    epochs = min(30, max(5, math.ceil((5_000 if is_small else 2_400_000) / num_train)))
    return Fit(
        is_small=is_small,
        holdout_fraction=fraction,
        max_shard_samples=min(1000, max(8, kept // 16)),
        size_px=size_px,
        # Crops show enlarged objects, so a network trained on them is evaluated at a larger size.
        evaluate_px=_stepped(size_px * 1.5) if is_small else size_px,
        global_batch=batch,
        lr=SMALL_LR * batch / SMALL_BATCH if is_small else LARGE_LR * batch / LARGE_BATCH,
        epochs=epochs,
        evaluate_every=max(1, epochs // 5),
    )


def _size_px(short_side_px: int | None, most_px: int) -> int:
    return min(most_px, _stepped(short_side_px)) if short_side_px else most_px


def _stepped(side_px: float) -> int:
    return max(64, round(side_px / STEP_PX) * STEP_PX)


def _power_of_two(most: int) -> int:
    return 1 << max(1, most.bit_length() - 1)
