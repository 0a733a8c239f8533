"""A run folder without training: a tiny bundle, and predictions drawn so that the truth of every marginal is known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from rayprob.labels import LabelSpace
from rayprob.loader.augment import TransformSpec
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.runs.bundle import Bundle
from rayprob.runs.predictions import Predictions

LABELS = LabelSpace(("cat", "cow", "dog", "hen", "owl", "pig"), (1, 2, 3, 4, 5, 6))
FACTS = {"run": {"name": "tiny", "evaluation": {"split": "holdout"}}, "run_fingerprint": "f00d", "step": 12}
# What the drawn model says of a true log-odds z: SCALE * z + SHIFT. It is overconfident, and claims too much.
SCALE, SHIFT = 2.0, 0.8
CENTRES_L = np.array([0.0, -1.0, -2.0, -2.0, -3.0, -3.5])


def bundle(family: str = "bernoulli", **changes: Any) -> Bundle:
    """Return a bundle of random weights, for nothing here looks at images."""
    head = {"name": "mixture", "components": 2} if family == "mixture" else {}
    spec = ModelSpec.parse({"backbone": "squeezenet1_1", "head": head})
    classifier = build_classifier(spec, len(LABELS)).eval()
    return replace(Bundle(classifier, spec, LABELS, TransformSpec(size_px=32), facts=FACTS), **changes)


def true_logits(num_samples: int, seed: int) -> NDArray[np.float64]:
    """Return the log-odds by which labels are drawn [N, L]."""
    return np.asarray(CENTRES_L + 2 * np.random.default_rng(seed).normal(size=(num_samples, len(LABELS))))


def predictions(
    num_samples: int, split: str, *, seed: int, informative: bool = True, scale: float = SCALE, **facts: Any
) -> Predictions:
    """Return predictions of independent labels; uninformative ones know nothing but each label's prevalence."""
    rng = np.random.default_rng(seed + 1)
    logits_NL = true_logits(num_samples, seed)
    targets_NL = rng.random(logits_NL.shape) < expit(logits_NL)
    said_NL = logits_NL if informative else true_logits(num_samples, seed + 2)
    return table(split, seed, targets_NL, "bernoulli", {"logits": scale * said_NL + SHIFT}, **facts)


def mixture_predictions(num_samples: int, split: str, *, seed: int) -> Predictions:
    """Return predictions of a mixture whose component is drawn as it says, and whose labels are not."""
    rng = np.random.default_rng(seed)
    mixing_NK = rng.normal(size=(num_samples, 2))
    component_NKL = true_logits(num_samples, seed)[:, None] + np.array([1.0, -1.0])[:, None] * np.array([1, -1, 1, -1, 1, -1])
    chosen_N = (rng.random(num_samples) > expit(mixing_NK[:, 0] - mixing_NK[:, 1])).astype(int)
    targets_NL = rng.random((num_samples, 6)) < expit(component_NKL[np.arange(num_samples), chosen_N])
    outputs = {"mixing_logits": mixing_NK, "component_logits": SCALE * component_NKL + SHIFT}
    return table(split, seed, targets_NL, "mixture", outputs)


def table(
    split: str, seed: int, targets_NL: NDArray[np.bool_], family: str, outputs: dict[str, NDArray[np.float64]], **facts: Any
) -> Predictions:
    """Return a table with the facts of the bundle."""
    return Predictions(
        label_space=LABELS,
        sample_ids_N=np.arange(len(targets_NL)) + 100_000 * seed,
        targets_NL=targets_NL,
        known_NL=np.ones_like(targets_NL),
        family=family,
        outputs={name: values.astype(np.float32) for name, values in outputs.items()},
        facts={**FACTS, "split": split, **facts},
    )


def write_run(folder: Path, *tables: Predictions, **changes: Any) -> str:
    """Write a run's folder as far as calibration reads it, and return it."""
    bundle(tables[0].family if tables else "bernoulli", **changes).save(str(folder / "bundle"))
    for one in tables:
        one.write(str(folder / "predictions" / f"{one.facts['split']}.parquet"))
    return str(folder)
