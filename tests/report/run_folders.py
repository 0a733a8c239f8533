"""Run folders without training: a tiny built dataset with nasty names, drawn predictions, and a bundle of random weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import yaml

from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.manifest.dataset import Dataset
from rayprob.loader.augment import TransformSpec
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.runs.bundle import Bundle
from rayprob.runs.predictions import Predictions

# A label may be named anything: markup, quotes, what matplotlib reads as a formula, what the query language reserves.
NAMES = ("cat", "<b>dog</b>", "a & b | c", 'the "owl"', "$x^2$", "never there")
COMPONENTS = 3


def build_dataset(root: Path, *, num_train: int = 60, num_val: int = 48) -> str:
    """Build a dataset of noise images whose last label has no positive, and return its root; without val for 0 images of it."""
    splits = {"train": _write_coco(root, "train", num_train, 1)}
    splits |= {"val": _write_coco(root, "val", num_val, 10_001)} if num_val else {}
    recipe = Recipe.parse(
        {
            "name": "nasty",
            "splits": splits,
            "target": str(root / "built"),
            "holdout": {"fraction": 0.4},
            "max_shard_samples": 40,
        }
    )
    return build(recipe, run_tasks=in_process).root


def write_run(
    folder: Path, root: str, *, family: str = "bernoulli", splits: tuple[str, ...] = ("holdout", "val"), **facts: Any
) -> str:
    """Write a run's folder as training, `evaluate` and no `calibrate` would leave it, and return it."""
    dataset = Dataset.open(root)
    run = {
        "name": "nasty <i>run</i>",
        "data": {"root": root, "train_split": "train"},
        "model": {"backbone": "squeezenet1_1", "head": {"name": family, "components": COMPONENTS}},
        "evaluation": {"split": "holdout"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history()) + '{"kind": "st')
    origin = {"run": run, "run_fingerprint": "f00d", "dataset_fingerprint": dataset.fingerprint, "step": 8}
    for split in splits:
        draw(dataset, split, family, {**origin, "split": split, **facts}).write(
            str(folder / "predictions" / f"{split}.parquet")
        )
    spec = ModelSpec.parse(
        {"backbone": "squeezenet1_1", "head": {"name": family, "components": COMPONENTS} if family == "mixture" else {}}
    )
    classifier = build_classifier(spec, len(NAMES)).eval()
    Bundle(classifier, spec, dataset.label_space, TransformSpec(size_px=32), facts=origin).save(str(folder / "bundle"))
    return str(folder)


def history() -> list[dict[str, Any]]:
    """Return the rows of a short run that was resumed once."""
    start = {"kind": "start", "total_steps": 8, "steps_per_epoch": 4, "train_samples": 64, "world_size": 2, "device": "cpu"}
    steps = [{"kind": "step", "step": n, "loss": 1 / n, "lr": 0.1, "images_per_s": 16.0, "data_wait": 0.1} for n in range(1, 9)]
    evaluations = [{"kind": "evaluation", "step": n, "mAP": score} for n, score in ((4, 0.6), (8, 0.5))]
    return [{**start, "step": 0, "host": "one"}, *steps, {**start, "step": 4, "host": "two"}, *evaluations]


def draw(dataset: Dataset, split: str, family: str, facts: dict[str, Any]) -> Predictions:
    """Return predictions that know something of the truth."""
    manifest = dataset.split(split)
    rows = np.argsort(manifest.sample_ids_N)
    targets_NL = manifest.targets(rows)
    rng = np.random.default_rng(len(targets_NL))
    logits_NL = np.where(targets_NL, 1.0, -1.0) + rng.normal(size=targets_NL.shape)
    outputs = {"logits": logits_NL.astype(np.float32)}
    if family == "mixture":
        shift_KL = rng.normal(size=(COMPONENTS, len(NAMES)))
        component_NKL = logits_NL[:, None] + shift_KL
        mixing_NK = rng.normal(size=(len(rows), COMPONENTS))
        outputs = {"mixing_logits": mixing_NK.astype(np.float32), "component_logits": component_NKL.astype(np.float32)}
    known_NL = manifest.known(rows)
    return Predictions(dataset.label_space, manifest.sample_ids_N[rows], targets_NL, known_NL, family, outputs, facts)


def _write_coco(root: Path, split: str, num_images: int, first_id: int) -> dict[str, str]:
    rng = np.random.default_rng(first_id)
    images, annotations = [], []
    (root / split).mkdir(parents=True)
    for image_id in range(first_id, first_id + num_images):
        name = f"{image_id:012d}.jpg"
        pixels = rng.integers(0, 255, (40, 48, 3)).astype(np.uint8)
        (root / split / name).write_bytes(simplejpeg.encode_jpeg(pixels, quality=80))
        images.append({"id": image_id, "file_name": name, "width": 48, "height": 40})
        present = rng.random(len(NAMES) - 1) < 0.4
        present[rng.integers(len(NAMES) - 1)] = True
        for column in np.flatnonzero(present).tolist():
            side = float(rng.integers(5, 120))
            box = {"bbox": [0, 0, side, side], "area": side**2, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, "category_id": column + 1, **box})
    categories = [{"id": n + 1, "name": name, "supercategory": "x"} for n, name in enumerate(NAMES)]
    (root / f"{split}.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return {"images": str(root / split), "annotations": str(root / f"{split}.json")}
