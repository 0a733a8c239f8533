"""How often `rayprob compare` finds a difference between two models: if no difference exists, and if one is planted.

    python benchmarks/compare_calibration.py [--seeds 300] [--images 400 1600] [--planted 0.2 0.4]

A population of images is drawn, and of each seed a split of it, with the logits of two models: the truth's logit + what both
have in common ~ Normal(0, 1) + their own noise ~ Normal(0, 0.7^2). So both are equally good, and no number differs but by
chance: whatever is found is a false finding. With a planted difference the second model's own noise is larger by that share,
and its true differences are those on 200,000 images. Prints the share of seeds in which something is found, with its 95 %
interval (Clopper and Pearson, 1934). The function is the one that `rayprob compare` calls, with its settings.

The truth: logit = b_l + a_kl + e, of a scene k ~ uniform over 12, b_l = logit(10^u) with u ~ U(-2.3, -0.5),
a_kl ~ Normal(0, 1) and e ~ Normal(0, 1.5^2).
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_expit, logit
from scipy.stats import binomtest

from rayprob.arrays import Bools, Floats
from rayprob.metrics.paired import ModelTables, PairedComparison, PairedRow, compare_models

SHARED_SD, OWN_SD, NUM_SCENES = 1.0, 0.7, 12
THRESHOLDS = {"at 0.5": 0.5, "tuned": 0.35}
MANY = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=300, help="of two equal models; a fifth of them with a planted difference")
    parser.add_argument("--images", type=int, nargs="+", default=[400, 1600])
    parser.add_argument("--labels", type=int, default=20)
    parser.add_argument("--planted", type=float, nargs="*", default=[0.2, 0.4], help="own noise of the second model, larger by")
    options = parser.parse_args()
    population = Population.of(options.labels)
    for planted in (0.0, *options.planted):
        num_seeds = options.seeds // 5 if planted else options.seeds
        told = f"own noise larger by {planted:.0%}: {true_differences(population, planted)}" if planted else "two equal models"
        print(f"{told}; {num_seeds} seeds", flush=True)
        for num_images in options.images:
            show(num_images, list(comparisons(population, num_images, planted, num_seeds)), is_null=not planted)


@dataclass(frozen=True, eq=False)
class Population:
    """The logit of each label in each scene."""

    scene_KL: Floats

    @classmethod
    def of(cls, num_labels: int) -> "Population":
        rng = np.random.default_rng(0)
        base_L = logit(10 ** rng.uniform(-2.3, -0.5, num_labels))
        return cls(base_L + rng.normal(size=(NUM_SCENES, num_labels)))

    def drawn(self, num_images: int, planted: float, seed: int) -> tuple[list[ModelTables], Bools]:
        """Return the tables of both models on images of this seed, and the targets."""
        rng = np.random.default_rng((num_images, seed))
        truth_NL = self.scene_KL[rng.integers(NUM_SCENES, size=num_images)]
        truth_NL = truth_NL + 1.5 * rng.normal(size=truth_NL.shape)
        targets_NL = rng.random(truth_NL.shape) < expit(truth_NL)
        shared_NL = truth_NL + SHARED_SD * rng.normal(size=truth_NL.shape)
        own = (OWN_SD, OWN_SD * (1 + planted))
        return [tables(shared_NL + sd * rng.normal(size=truth_NL.shape), targets_NL) for sd in own], targets_NL


def tables(logits_NL: Floats, targets_NL: Bools) -> ModelTables:
    marginals_NL = expit(logits_NL)
    log_prob_N = log_expit(np.where(targets_NL, logits_NL, -logits_NL)).sum(axis=1)
    return ModelTables(logits_NL, marginals_NL, log_prob_N, {name: marginals_NL >= at for name, at in THRESHOLDS.items()})


def comparisons(population: Population, num_images: int, planted: float, num_seeds: int) -> Iterator[PairedComparison]:
    names = [f"label {column}" for column in range(population.scene_KL.shape[1])]
    for seed in range(num_seeds):
        models, targets_NL = population.drawn(num_images, planted, seed)
        yield compare_models(models, names, targets_NL, np.ones_like(targets_NL), seed=seed)


def true_differences(population: Population, planted: float) -> str:
    models, targets_NL = population.drawn(MANY, planted, 0)
    found = compare_models(models, ["x"] * targets_NL.shape[1], targets_NL, np.ones_like(targets_NL), draws=1)
    return ", ".join(f"{row.name} {row.differences[0].value:+.4f}" for row in found.numbers)


def show(num_images: int, found: list[PairedComparison], *, is_null: bool) -> None:
    tested = np.mean([sum(row.differences[0].p_value is not None for row in one.labels) for one in found])
    print(f"  {num_images:,} images ({tested:.1f} labels with enough positives on average)")
    told = {
        "any difference": [any(map(is_clear, (*one.numbers, *one.labels))) for one in found],
        "any number": [any(map(is_clear, one.numbers)) for one in found],
        "the AP of any label": [any(map(is_clear, one.labels)) for one in found],
        **{row.name: [is_clear(one.numbers[place]) for one in found] for place, row in enumerate(found[0].numbers)},
    }
    for name, is_found in told.items():
        interval = binomtest(sum(is_found), len(is_found)).proportion_ci(method="exact")
        print(f"    {name:20} {np.mean(is_found):6.1%}  ({interval.low:.1%} to {interval.high:.1%})")
    if not is_null:
        return
    covered = np.mean([row.differences[0].low <= 0 <= row.differences[0].high for one in found for row in one.numbers])
    print(f"    {'intervals of numbers that include 0':35} {covered:6.1%}", flush=True)


def is_clear(row: PairedRow) -> bool:
    return row.differences[0].is_clear


if __name__ == "__main__":
    main()
