"""What a card tells, section by section, as plain data. A value that is not known is null."""

import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rayprob import __version__
from rayprob.data.joined.dataset import AnyDataset
from rayprob.errors import RayprobError
from rayprob.files import storage
from rayprob.models.weights import is_file
from rayprob.probability.families import family_of
from rayprob.runs.bundle import Bundle
from rayprob.runs.card_spec import CardSpec
from rayprob.runs.data_spec import DataSpec
from rayprob.runs.finished import holdout_split


def run_of(bundle: Bundle) -> dict[str, Any]:
    """Return the run file that a bundle records, as plain data; empty if it records none."""
    return part_of(bundle.facts, "run")


def part_of(whole: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a part of a run file as plain data; empty if it is missing, as bundles of other programs may have it."""
    part = whole.get(key)
    return part if isinstance(part, dict) else {}


def data_of(bundle: Bundle) -> dict[str, Any]:
    """Return what the model was trained on, from its dataset if it can be opened, otherwise from the bundle alone."""
    run = run_of(bundle)
    fingerprint = bundle.facts.get("dataset_fingerprint")
    train_split = str(part_of(run, "data").get("train_split", "train"))
    found: dict[str, Any] = {
        "name": None,
        "fingerprint": fingerprint,
        "splits": {},
        "rest": {},
        "train_split": train_split,
        "num_labels": len(bundle.label_space),
        "labels": [{"name": name, "positives": None, "prevalence": None} for name in bundle.label_space.names],
    }
    try:
        dataset = DataSpec.parse(run.get("data"), under="data").at(fingerprint).open()
        bundle.label_space.require_same(dataset.label_space, "the bundle", dataset.root)
        return found | _of_dataset(dataset, train_split) if dataset.fingerprint == fingerprint else found
    except RayprobError:  # the bundle may be on another machine than its dataset
        return found


def _of_dataset(dataset: AnyDataset, train_split: str) -> dict[str, Any]:
    counts_2L = np.zeros((2, len(dataset.label_space)), dtype=np.int64)
    for member in dataset.split(train_split).members:
        counts_2L[:, member.columns] += np.stack(member.manifest.label_counts())
    counted = zip(dataset.label_space.names, *counts_2L.tolist(), strict=True)
    rest = {split: state for one in dataset.datasets for split, state in one.facts.get("rest", {}).items()}
    return {
        "name": dataset.name,
        "splits": dict(dataset.splits),
        "rest": {split: rest.get(split, "absent") for split in dataset.splits},
        "labels": [
            {"name": name, "positives": present, "prevalence": present / known if known else None}
            for name, present, known in counted
        ],
    }


def model_of(bundle: Bundle) -> dict[str, Any]:
    """Return the network and how an image becomes its input."""
    spec, backbone = bundle.model_spec, bundle.classifier.backbone
    return {
        "backbone": spec.backbone,
        "pooling": spec.pooling,
        "maps": list(spec.maps) if spec.maps else None,
        "head": spec.head.name,
        "family": bundle.classifier.family,
        "describes": family_of(bundle.classifier.family).describe(spec.head.model_dump(mode="json")),
        "num_parameters": sum(parameter.numel() for parameter in bundle.classifier.parameters()),
        "pretraining": pretraining_of(bundle),
        "size_px": bundle.transform_spec.size_px,
        "transform": bundle.transform_spec.name,
        "mean": [round(float(value), 6) for value in backbone.mean.flatten()],
        "std": [round(float(value), 6) for value in backbone.std.flatten()],
        "orientation": bundle.reading.orientation,
    }


def pretraining_of(bundle: Bundle) -> dict[str, Any] | None:
    """Return where the starting weights came from: {name, source}; None for a training from scratch."""
    weights, backbone = bundle.model_spec.weights, bundle.model_spec.backbone
    if not weights:
        return None
    if not is_file(weights):
        return {"name": weights, "source": "timm" if backbone.startswith("timm/") else "torchvision"}
    name = posixpath.basename(weights.rstrip("/")) if storage.is_local(weights) else weights
    return {"name": name, "source": "a file", "part": bundle.model_spec.weights_part}


def training_of(bundle: Bundle, history: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the settings of the training, from the run file that the bundle records, and what its history adds."""
    run = run_of(bundle)
    starts = [row for row in history if row.get("kind") == "start"]
    kept = ("world_size", "device", "train_samples", "total_steps")
    return {
        "seed": run.get("seed"),
        "duration": {unit: number for unit, number in part_of(run, "duration").items() if number is not None},
        "step": bundle.facts.get("step"),
        "global_batch": part_of(run, "stream").get("global_batch"),
        "optimizer": run.get("optimizer"),
        "schedule": run.get("schedule"),
        "loss": run.get("loss"),
        "train_transform": part_of(part_of(run, "transforms"), "train").get("name"),
        "frozen": bundle.model_spec.frozen,
        "ema": run.get("ema"),
        "checkpoint_chosen_on": holdout_split(run),
        "is_refit": "refit" in bundle.facts,
        **({key: starts[-1].get(key) for key in kept} if starts else {}),
    }


def stated_in(run: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return what people state in the part `card` of a run file, from plain data. Raises SpecError, which names `where`."""
    return CardSpec.parse(run.get("card") or {}, where, under="card").model_dump(mode="json")


def versions() -> dict[str, str]:
    """Return the versions of rayprob, and of the library that computed the numbers."""
    return {"rayprob": __version__, "torch": str(torch.__version__)}
