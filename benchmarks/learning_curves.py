"""The gain of a label prior for few and many training images: learning curves on drawn scenes with 80 labels.

    python benchmarks/learning_curves.py FOLDER [--sizes 100 300 1000 3000 10000] [--seeds 3] [--figure FILE.png]

The features are those of a frozen ImageNet network on scenes of 128 px, whose label sets have COCO's co-occurrence. A seed
draws the training images and a holdout a quarter as large (25 to 500 images); the test images are always the same. Systems:

    independent        a linear head
    trained mixture    the mixture head, which starts from a mixture fitted to the training images' label sets
    prior afterwards   the independent head under a label prior, as with `rayprob calibrate --prior`; no further training
    prior as start     the mixture head with `head.prior`, which starts as that and is trained

the last two with the prior of the training images' label sets (own) and of 82,081 label sets without images (all). Heads,
losses, priors and calibrators are the package's; their training is this benchmark's: independent labels to the optimum with
an L2 penalty, by L-BFGS; mixtures with the same penalty by Adam, batches of 64, where the evaluation with the lowest holdout
NLL is kept, the start included, as `rayprob refit` does. Each system has four settings, of which holdout's NLL chooses one with
seed 0: for independent labels the penalty; for mixtures 8 or 32 components or strengths of 0.5 or 1, a smaller learning rate,
and a start from prevalences instead of the independent head. All are calibrated on holdout by a temperature, fitted together
with the strength of a prior that is applied afterwards.

Printed for each size: nats per image, mAP, and the mean AP of an image's other labels when 1, 2 or 3 of its present labels
are known (drawn at random; images with more present labels than that); mean and standard deviation over seeds, and the
gain over independent, minimum and maximum. Results are stored in FOLDER: a stopped run continues. The network's weights are
those in ../shared/weights.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learning_curves_data import ALL, Material, large_prior, own_prior, prepare
from learning_curves_figure import write_figure
from learning_curves_heads import (
    L2,
    Learning,
    Setting,
    chosen,
    independent_settings,
    mixture_settings,
    outputs_of,
    prior_settings,
    trained,
)
from numpy.typing import NDArray

from rayprob.metrics.ranking import average_precision
from rayprob.models.heads.bernoulli import BernoulliHead
from rayprob.probability.calibration.calibrators import choose_calibrator
from rayprob.probability.calibration.candidates import OutputsCalibrator
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.distributions.evidence import Evidence
from rayprob.probability.priors.file import LabelPriorFile
from rayprob.train.features import Features

MOST_KNOWN = 3
LAST = "prior as start, all"
Numbers = dict[str, float]
Results = dict[tuple[int, int, str], Numbers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 300, 1000, 3000, 10_000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--figure", help="default: FOLDER/learning_curves.png")
    options = parser.parse_args()
    material = prepare(options.folder, tell)
    large = large_prior(options.folder, tell)
    print(
        f"{len(material.test):,} test images; the prior of all label sets has {len(large.mixture.mixing_weights_K)} components"
    )
    store = Store(Path(options.folder) / "results.jsonl")
    for seed in range(options.seeds):
        for size in options.sizes:
            measure(options.folder, material, size, seed, store)
    for size in options.sizes:
        show(size, store.results)
    write_figure(store.results, options.figure or f"{options.folder}/learning_curves.png")


class Store:
    """Numbers by size, seed and system, and the setting chosen by size and system, in a file that a continued run reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results: Results = {}
        self.settings: dict[tuple[int, str], int] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            self._take(json.loads(line))

    def add(self, row: dict[str, Any]) -> None:
        """Keep one row: size, system, and either seed and numbers, or the chosen setting."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self._take(row)

    def _take(self, row: dict[str, Any]) -> None:
        if "setting" in row:
            self.settings[row["size"], row["system"]] = row["setting"]
        else:
            self.results[row["size"], row["seed"], row["system"]] = row["numbers"]


@dataclass(frozen=True)
class Case:
    """The data shared by all systems of one size and seed, and the store of their numbers."""

    material: Material
    train: Features
    holdout: Features
    seed: int
    store: Store

    def keep(self, system: str, calibrator: OutputsCalibrator, outputs: dict[str, Any], more: Numbers) -> None:
        """Evaluate a system's outputs for the test images and store the numbers."""
        distribution = calibrator.as_distribution(calibrator.apply_outputs(outputs))
        numbers = judged(distribution, truth(self.material.test)[0], self.seed) | more
        self.store.add({"size": len(self.train), "seed": self.seed, "system": system, "numbers": numbers})
        told = "  ".join(f"{key} {value:.4f}" for key, value in numbers.items())
        tell(f"{len(self.train):,} images, seed {self.seed}, {system}: {told}")


def measure(folder: str, material: Material, size: int, seed: int, store: Store) -> None:
    """Train and evaluate all systems for one size and seed, unless already done."""
    if (size, seed, LAST) in store.results:
        return
    train, holdout = material.drawn(size, seed)
    paths = {"own": f"{folder}/own-{size}-{seed}.prior.safetensors", "all": f"{folder}/{ALL}"}
    own_prior(paths["own"], train.targets_NL, material.label_space)
    case = Case(material, train, holdout, seed, store)
    independent = judge_head("independent", independent_settings(), None, case)
    assert isinstance(independent, BernoulliHead)
    for name, path in paths.items():
        judge_afterwards(f"prior afterwards, {name}", path, independent, case)
    l2 = L2[store.settings[size, "independent"]]
    judge_head("trained mixture", mixture_settings(l2), independent, case)
    for name, path in paths.items():
        judge_head(f"prior as start, {name}", prior_settings(l2, path), independent, case)


def judge_head(system: str, settings: list[Setting], independent: BernoulliHead | None, case: Case) -> torch.nn.Module:
    """Train a system's head with the setting that seed 0 chooses, calibrate it and judge it; return the head."""
    key = len(case.train), system
    learning = Learning(case.material.label_space, case.train, case.holdout, case.seed, independent)
    if key not in case.store.settings:
        place, head = chosen(settings, learning)
        case.store.add({"size": key[0], "system": system, "setting": place})
        tell(f"{key[0]:,} images, {system}: {settings[place]}")
    else:
        head = trained(settings[case.store.settings[key]], learning)
    family = str(head.family)
    choice = choose_calibrator(family, outputs_of(head, case.holdout), *truth(case.holdout), candidates=["temperature"])
    case.keep(system, choice.calibrator, outputs_of(head, case.material.test), {})
    return head


def judge_afterwards(system: str, path: str, independent: BernoulliHead, case: Case) -> None:
    """Apply a prior to the independent head, with the strength and temperature chosen on holdout, and evaluate that."""
    priors = {"prior": LabelPriorFile.load(path).over(case.material.label_space)}
    outputs = outputs_of(independent, case.holdout)
    choice = choose_calibrator("bernoulli", outputs, *truth(case.holdout), candidates=["temperature + prior"], priors=priors)
    strength = float(choice.calibrator.to_arrays()["strength"][0])
    case.keep(system, choice.calibrator, outputs_of(independent, case.material.test), {"strength": strength})


def judged(distribution: LabelDistribution, targets_NL: NDArray[np.bool_], seed: int) -> Numbers:
    """Return nats per image, mAP, and the AP of the other labels given 1, 2, 3 present ones."""
    ap_L = average_precision(distribution.ranking_scores(), targets_NL)
    numbers = {"NLL": float(-distribution.log_prob(targets_NL).mean()), "mAP": float(np.nanmean(ap_L))}
    for num_known in range(1, MOST_KNOWN + 1):
        numbers[f"AP|{num_known}"] = ap_of_others(distribution, targets_NL, num_known, seed)
    return numbers


def ap_of_others(distribution: LabelDistribution, targets_NL: NDArray[np.bool_], num_known: int, seed: int) -> float:
    """Return the mean AP of the labels that are not given, on the images with more than `num_known` present labels."""
    rows_n = np.flatnonzero(targets_NL.sum(axis=1) > num_known)
    targets_nL = targets_NL[rows_n]
    places_nL = np.random.default_rng([seed, num_known]).random(targets_nL.shape)
    order_nL = np.where(targets_nL, places_nL, np.inf).argsort(axis=1).argsort(axis=1)
    known_nL = order_nL < num_known
    scores_nL = distribution[rows_n].condition(Evidence(targets_nL, known_nL)).ranking_scores()
    ap_L = average_precision(np.where(known_nL, 0.0, scores_nL), targets_nL, ~known_nL)
    return float(np.nanmean(ap_L))


def truth(split: Features) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return split.targets_NL.numpy(), split.known_NL.numpy()


def show(size: int, results: Results) -> None:
    """Print the table of one size."""
    systems = dict.fromkeys(system for of_size, _, system in results if of_size == size)
    seeds = sorted(seed for of_size, seed, system in results if (of_size, system) == (size, LAST))
    print(f"\n{size:,} training images, {len(seeds)} seeds: mean +- standard deviation; (gain over independent: min, max)")
    for system in systems:
        cells = []
        for key in results[size, seeds[0], "independent"]:
            values = np.array([results[size, seed, system][key] for seed in seeds])
            gains = values - np.array([results[size, seed, "independent"][key] for seed in seeds])
            spread = values.std(ddof=1) if len(seeds) > 1 else 0.0
            cells.append(f"{key} {values.mean():.4f} +-{spread:.4f} ({gains.min():+.4f}, {gains.max():+.4f})")
        strengths = [results[size, seed, system].get("strength") for seed in seeds]
        told = "" if None in strengths else "   strength " + ", ".join(f"{strength:.2f}" for strength in strengths)
        print(f"{system:22}" + "   ".join(cells) + told, flush=True)


def tell(text: str) -> None:
    print(f"# {text}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
