"""The data of the learning curves: frozen features of drawn scenes, and label sets without images.

FOLDER/scenes, shards, backbone    drawn scenes, their shards, and a run whose frozen backbone makes the features
FOLDER/*.prior.safetensors         label priors
N images, L = 80 labels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.manifest.dataset import Dataset
from rayprob.files import storage
from rayprob.labels import LabelSpace
from rayprob.loader.order import Place
from rayprob.probability.priors.file import LabelPriorFile
from rayprob.probability.priors.fit import fit_prior
from rayprob.runs.finished import open_bundle
from rayprob.runs.folder import claim
from rayprob.runs.spec import Run
from rayprob.scenes.generate import ScenesSpec, generate_scenes
from rayprob.scenes.labels import SceneLabels
from rayprob.seeds import derive
from rayprob.train.features import Features, FeatureSource, split_features
from rayprob.train.loop import fit

SCENES = ScenesSpec(num_train=11_200, num_val=3_200, size_px=128)
WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "weights" / "tf_efficientnet_lite0.safetensors"
NUM_LABEL_SETS = 82_081  # as many as COCO train2014 has
COMPONENTS = (10, 20, 30, 50)
ALL = "all.prior.safetensors"
LEAST_HOLDOUT, MOST_HOLDOUT = 25, 500
Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Material:
    """Training images, in random order, and test images."""

    label_space: LabelSpace
    pool: Features
    test: Features

    def drawn(self, num_images: int, seed: int) -> tuple[Features, Features]:
        """Return `num_images` training images, and a holdout a quarter as large (25 to 500 images), disjoint from them."""
        num_holdout = min(max(num_images // 4, LEAST_HOLDOUT), MOST_HOLDOUT)
        if num_images + num_holdout > len(self.pool):
            raise SystemExit(f"--sizes {num_images}: only {len(self.pool) - MOST_HOLDOUT:,} images are available for training")
        order_N = torch.from_numpy(np.random.default_rng(derive(seed, "draw")).permutation(len(self.pool)))
        return _rows(self.pool, order_N[:num_images]), _rows(self.pool, order_N[len(order_N) - num_holdout :])


def prepare(folder: str, tell: Tell) -> Material:
    """Return the material in `folder`; missing parts are drawn, sharded and computed first."""
    tell(f"drawing {SCENES.num_images:,} scenes")
    generate_scenes(f"{folder}/scenes", SCENES)
    tell("building shards")
    build(_recipe(folder), run_tasks=in_process)
    tell("computing features")
    source = _source(folder)
    train, holdout, test = (split_features(source, split, lambda event: None) for split in ("train", "holdout", "val"))
    pool = _joined(train, holdout)
    mean_F = pool.features_NF.mean(dim=0)
    length = (pool.features_NF - mean_F).square().sum(dim=1).mean().sqrt()
    return Material(source.bundle.label_space, *(_centred(split, mean_F, length) for split in (pool, test)))


def large_prior(folder: str, tell: Tell) -> LabelPriorFile:
    """Return the prior of label sets without images, drawn from the scenes' own distribution with another seed."""
    path = f"{folder}/{ALL}"
    if not storage.exists(path):
        tell(f"fitting the prior of {NUM_LABEL_SETS:,} label sets")
        _, drawn_NL = SceneLabels.load().sample(derive(1, "label sets without images"), NUM_LABEL_SETS + 10_000)
        labels_NL = drawn_NL[drawn_NL.any(axis=1)][:NUM_LABEL_SETS]
        fitted = fit_prior(labels_NL, components=COMPONENTS)
        nats = {str(k): value for k, value in fitted.nats_by_components.items()}
        names = SceneLabels.load().label_space.names
        LabelPriorFile(names, fitted.mixture, f"{len(labels_NL):,} drawn label sets", {"nats": nats}).save(path)
    return LabelPriorFile.load(path)


def own_prior(path: str, targets_NL: Tensor, label_space: LabelSpace) -> None:
    """Fit the prior of the training images' label sets alone, as `rayprob prior` does, and write it to `path`."""
    fitted = fit_prior(targets_NL.numpy(), components=(2, 5, 10, 20, 30))
    LabelPriorFile(label_space.names, fitted.mixture, f"{len(targets_NL):,} training images").save(path)


def _recipe(folder: str) -> Recipe:
    splits = {
        split: {
            "images": f"{folder}/scenes/{split}2014",
            "annotations": f"{folder}/scenes/annotations/instances_{split}2014.json",
        }
        for split in ("train", "val")
    }
    value = {"name": "curves", "target": f"{folder}/shards", "splits": splits, "holdout": {"fraction": 0.02}, "check": "header"}
    return Recipe.parse(value)


def _source(folder: str) -> FeatureSource:
    """Return the run whose backbone makes the features: ImageNet's weights, and a head that has taken one step."""
    run = Run.parse(_run(folder))
    if not storage.exists(f"{run.run_folder}/bundle/bundle.json"):
        claim(run, Dataset.open(run.data.root))
        fit(run, Place(), torch.device("cpu"))
    return FeatureSource.open(run, open_bundle(run.run_folder))


def _run(folder: str) -> dict[str, Any]:
    return {
        "name": "backbone",
        "folder": f"{folder}/backbone",
        "data": {"root": f"{folder}/shards"},
        "stream": {"global_batch": 8, "lanes": 1, "loader_workers": 0},
        "transforms": {"train": {"name": "resize", "size_px": 128}, "evaluate": {"name": "resize", "size_px": 128}},
        "model": {
            "backbone": "timm/tf_efficientnet_lite0",
            "weights": str(WEIGHTS),
            "mean": [0.498039] * 3,  # the values these weights were trained with
            "std": [0.501961] * 3,
            "frozen": "backbone",
        },
        "duration": {"steps": 1},
        "evaluation": {"every": {"steps": 1}, "micro_batch": 32},
    }


def _centred(split: Features, mean_F: Tensor, length: Tensor) -> Features:
    """Return features around their mean and of length 1 on average: the same linear heads, with weights easier to find."""
    return replace(split, features_NF=(split.features_NF - mean_F) / length)


def _rows(split: Features, rows: Tensor) -> Features:
    return Features(*(tensor[rows] for tensor in vars(split).values()))


def _joined(*parts: Features) -> Features:
    return Features(*(torch.cat(tensors) for tensors in zip(*(vars(part).values() for part in parts), strict=True)))
