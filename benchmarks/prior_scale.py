"""Time and memory of answers under a label prior: 40,137 images of 80 labels, and 10,000 labels.

    python benchmarks/prior_scale.py [--sizes 40137x80x200 100x10000x64] [--tasks marginals ...] [--separation 1.6]

Sizes are images x labels x components. For up to 80 labels the prior is COCO's, its components repeated with a little noise;
for more it is drawn. Label sets are drawn from the prior, and logits from a classifier that sees each label separately: its log
likelihood ratio is normal with a standard deviation of `--separation`, which by default leaves images about as unclear as those
of the COCO sample (6 nats). Each task runs in its own process, so that its peak memory is its own. CPU seconds (all
threads) depend less than wall seconds on other work on the machine. With OMP_NUM_THREADS=1 one core is used.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from rayprob.labels import LabelSpace
from rayprob.probability.decisions.rules import Rules
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.distributions.tilted import TiltedDistribution
from rayprob.probability.priors.file import LabelPriorFile
from rayprob.probability.priors.prior import LabelPrior
from rayprob.probability.queries.answer import parse, probabilities

STRENGTH = 0.6
QUERIES = ("P(l0 & l1)", "P(l2 | l0, !l3)", "P(l4 & (l5 | l6 & !l7))")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["40137x80x200", "100x10000x64"])
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--separation", type=float, default=1.6)
    options = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for size in options.sizes:
            num_images, num_labels, num_components = map(int, size.split("x"))
            print(f"{num_images:,} images x {num_labels:,} labels, K = {num_components}, strength {STRENGTH}")
            print(f"{'':36}{'wall s':>9}{'CPU s':>9}{'peak MiB':>10}{'of answer':>11}")
            for task in options.tasks:
                measured = pool.apply(measure, (task, num_images, num_labels, num_components, options.separation))
                print(f"{task:36}{measured[0]:>9.2f}{measured[1]:>9.2f}{measured[2]:>10.0f}{measured[3]:>11.0f}", flush=True)


def measure(task: str, num_images: int, num_labels: int, num_components: int, separation: float) -> tuple[float, ...]:
    """Return wall and CPU seconds, by how many MiB memory grew at its peak, and how many of these the answer takes."""
    prior, logits_BL, strength_B1 = drawn(num_images, num_labels, num_components, separation)
    given = TiltedDistribution(prior, logits_BL, strength_B1)
    TASKS[task](given[:2])  # loads all code
    before_kib, wall_s, cpu_s = peak_kib(), time.perf_counter(), time.process_time()
    answer = TASKS[task](given)
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return wall_s, cpu_s, (peak_kib() - before_kib) / 1024, np.asarray(answer).nbytes / 2**20


def drawn(num_images: int, num_labels: int, num_components: int, separation: float) -> tuple[Any, ...]:
    """Return a prior, logits and the strength."""
    random = np.random.default_rng(0)
    mixture = coco(random, num_labels, num_components) if num_labels <= 80 else scenes(random, num_labels, num_components)
    present_BL = mixture.sample(num_images, 1)
    p_L = mixture.marginals_L
    ratio_BL = separation * random.normal(size=present_BL.shape) + separation**2 * (present_BL - 0.5)
    logits_BL = (np.log(p_L) - np.log1p(-p_L) + ratio_BL).astype(np.float32)
    return LabelPrior.of(mixture), logits_BL, np.full((num_images, 1), STRENGTH)


def coco(random: np.random.Generator, num_labels: int, num_components: int) -> LabelMixture:
    """Return COCO's prior over its first labels, with `num_components` components."""
    mixture = LabelPriorFile.load("coco").mixture
    rows = np.arange(num_components) % len(mixture.mixing_weights_K)
    logits_KL = mixture.component_logits_KL[rows, :num_labels] + random.normal(0, 0.3, (num_components, num_labels))
    weights_K = mixture.mixing_weights_K[rows]
    return LabelMixture(weights_K / weights_K.sum(), 1 / (1 + np.exp(-logits_KL)))


def scenes(random: np.random.Generator, num_labels: int, num_components: int) -> LabelMixture:
    """Return components of eight typical labels each, among labels that are rare everywhere."""
    p_KL = np.full((num_components, num_labels), 1.0) * random.uniform(0.5, 2, num_labels) / num_labels
    for p_L in p_KL:
        p_L[random.choice(num_labels, 8, replace=False)] = random.uniform(0.2, 0.8, 8)
    return LabelMixture(random.dirichlet(np.ones(num_components)), p_KL)


def asked(given: TiltedDistribution) -> Any:
    labels = LabelSpace(tuple(f"l{column}" for column in range(given.num_labels)), tuple(range(given.num_labels)))
    return probabilities([parse(text, labels) for text in QUERIES], given)


TASKS: dict[str, Callable[[TiltedDistribution], Any]] = {
    "mixing weights": lambda given: TiltedDistribution(given.prior, given.logits_BL, given.strength_B1).log_mixing_BK,
    "marginals": lambda given: given.marginals(),
    "their log-odds": lambda given: given.marginal_logits(),
    "label sets by a threshold": lambda given: Rules().label_sets(given, "0.5"),
    "label sets: top_set": lambda given: Rules().label_sets(given, "top_set"),
    "label sets: best_F1": lambda given: Rules().label_sets(given, "best_F1"),
    "top 3 label sets": lambda given: given.top_sets(3).sets_BTL,
    "top 10 label sets": lambda given: given.top_sets(10).sets_BTL,
    "log probability of a label set": lambda given: given.log_prob(given.logits_BL > 0),
    "3 queries": asked,
    "given two labels": lambda given: given.condition({0: True, 1: False}).log_mixing_BK,
    "count distribution": lambda given: given.count_distribution(),
    "entropy (256 draws)": lambda given: given.entropy().value_B,
}


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
