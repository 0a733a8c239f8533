"""What joint distributions know of the other labels once some are known, for any runs on the same images.

    python benchmarks/evidence.py RUN... [--split val] [--pairs 200] [--draws 1000]

Each RUN has a bundle and predictions of the split (`rayprob evaluate RUN`); its distributions are the calibrated ones, as it
predicts. Tables over the split's images, which choose nothing: the value, its 95 % interval, and the gain over the first run
with the paired interval (percentile bootstrap over images).

- AP of an image's other labels, given 0, 1, 2 and 3 of those present (`rayprob/train/other_labels.py`).
- NLL of pairs: minus the log probability of the states of two labels, in nats, as the mean over --pairs pairs. A pair is drawn
  as two labels present in an image, so frequent pairs are likelier. First over all images; then over an image's pairs with a
  label present, of which independent labels know least.
- NLL of the image's whole label set, in nats.

To compare the head `masked` with mixtures of 8, 16 and 32 components on the same frozen features:

    rayprob refit RUN --set head.name=masked --set name=masked
    rayprob refit RUN --set head.name=mixture --set head.components=8 --set name=mixture8
    rayprob calibrate runs/masked --prior none, and so on
    python benchmarks/evidence.py runs/mixture8 runs/mixture16 runs/mixture32 runs/masked
"""

import argparse
from collections.abc import Callable
from itertools import combinations

import numpy as np
from label_prior import Variant, nll, others, show

from rayprob.arrays import Bools, Floats
from rayprob.errors import MetricError
from rayprob.metrics.bootstrap import DRAWS, Resampled, bootstrap
from rayprob.metrics.drawn import mean_of
from rayprob.runs.finished import REPORTED, open_bundle
from rayprob.runs.paths import RunFolder
from rayprob.runs.predictions import Predictions
from rayprob.train.other_labels import GIVEN

Pairs = list[tuple[int, int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--split", default=REPORTED)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--draws", type=int, default=DRAWS)
    options = parser.parse_args()
    tables = {run: Predictions.read(RunFolder(run).predictions(options.split)) for run in options.runs}
    first, *_ = tables
    for run, table in tables.items():
        require_same_images(tables[first], table, first, run)
    runs = [variant_of(run, table) for run, table in tables.items()]
    split = tables[first]
    pairs = frequent_pairs(split.targets_NL & split.known_NL, options.pairs)
    print(f"{len(split):,} images of {options.split}, {len(pairs)} pairs of labels, {options.draws} draws")
    for metric, statistic in metrics(pairs).items():
        show(metric, {one.name: statistic(one, split, options.draws) for one in runs}, control=first)


def require_same_images(ours: Predictions, theirs: Predictions, first: str, run: str) -> None:
    """Raise MetricError or LabelError unless two runs have predictions for the same images, in order, with the same labels."""
    ours.label_space.require_same(theirs.label_space, first, run)
    if not np.array_equal(ours.sample_ids_N, theirs.sample_ids_N):
        raise MetricError(f"{first} and {run} have predictions for different images; evaluate both on the same split")


def variant_of(run: str, table: Predictions) -> Variant:
    bundle = open_bundle(run)
    distribution = bundle.distribution(table.outputs)
    return Variant(run, bundle, distribution, distribution.marginals())


def metrics(pairs: Pairs) -> dict[str, Callable[[Variant, Predictions, int], Resampled]]:
    """Return the statistics to show, by name."""
    return {
        **{f"AP of an image's other labels, {m} given": others(m) for m in GIVEN},
        "NLL of pairs, nats": of_pairs(pairs, lambda present_N2: np.ones(len(present_N2), dtype=bool)),
        "NLL of pairs with a label present, nats": of_pairs(pairs, lambda present_N2: present_N2.any(axis=1)),
        "NLL, nats per image": nll,
    }


def frequent_pairs(present_NL: Bools, most: int) -> Pairs:
    """Return up to `most` distinct pairs of labels, each drawn as two that are present in an image."""
    random, found = np.random.default_rng(0), dict[tuple[int, int], None]()
    for image in random.permutation(np.flatnonzero(present_NL.sum(axis=1) >= 2)).tolist():
        together = list(combinations(np.flatnonzero(present_NL[image]).tolist(), 2))
        found[together[random.integers(len(together))]] = None
    return list(found)[:most]


def of_pairs(pairs: Pairs, among: Callable[[Bools], Bools]) -> Callable[[Variant, Predictions, int], Resampled]:
    """Return the statistic of the mean NLL of an image's known pairs `among` those judged, from their labels present [N, 2]."""

    def statistic(one: Variant, split: Predictions, draws: int) -> Resampled:
        return bootstrap(mean_of(nll_of_pairs(one, split, pairs, among)), len(split), draws=draws)

    return statistic


def nll_of_pairs(one: Variant, split: Predictions, pairs: Pairs, among: Callable[[Bools], Bools]) -> Floats:
    """Return the mean NLL of each image's pairs [N]; nan for an image without any."""
    total_N, count_N = np.zeros((2, len(split)))
    for pair in map(list, pairs):
        judged_M = np.flatnonzero(split.known_NL[:, pair].all(axis=1) & among(split.targets_NL[:, pair]))
        stated_1L = np.isin(np.arange(len(split.label_space)), pair)[None]
        total_N[judged_M] -= one.distribution[judged_M].log_prob(split.targets_NL[judged_M], stated_1L)
        count_N[judged_M] += 1
    return np.where(count_N > 0, total_N / np.maximum(count_N, 1), np.nan)


if __name__ == "__main__":
    main()
