"""Held-out negative log-likelihood of COCO's label sets without looking at the image: the label mixture and two baselines.

    python benchmarks/label_mixture.py [--split-seed 0] [--components 8 20 50]

The 82,081 label sets of train2014 (../shared/labels) are permuted by the split seed; 65,000 are fitted, 17,081 tested. Rows:
independent labels, the Chow-Liu tree (the best tree of pairwise dependences), mixtures.

Then the same with missing labels, always tested on the full label sets:
  labels_40      lists about 40 % of the positives (in truth floor(n / 5) + 1 of an image's n); absent labels are not marked.
                 absent       unlisted labels count as absent
                 unknown      present but unlisted labels are unknown, the others are known to be absent
                 retention    listed = present and kept with the probability `retention`, fitted through that noise
  at random      each label of each image is known with probability 0.4, whether present or absent; absent, unknown as above
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rayprob.labels import from_label_lists
from rayprob.probability.distributions.mixture import fit_label_mixture
from rayprob.probability.priors.chow_liu import ChowLiuTree

LABELS = Path(__file__).resolve().parents[2] / "shared" / "labels" / "coco_train2014_labels.parquet"
NUM_TO_FIT = 65_000
SMOOTHING = 0.5

Bools = NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split-seed", type=int, default=0)
    parser.add_argument("--components", type=int, nargs="+", default=[8, 20, 50])
    parser.add_argument("--restarts", type=int, default=1)
    options = parser.parse_args()
    table = pq.read_table(LABELS)
    order_N = np.random.default_rng(options.split_seed).permutation(table.num_rows)
    full_NL, listed_NL = (from_label_lists(table[name].to_pylist(), 80)[order_N] for name in ("labels", "labels_40"))
    fit_NL, test_NL = full_NL[:NUM_TO_FIT], full_NL[NUM_TO_FIT:]
    print(f"{len(fit_NL):,} label sets to fit, {len(test_NL):,} to test; split seed {options.split_seed}")
    print(f"{'nats per image':32} {'held out':>9} {'fitted':>9} {'wall s':>9} {'CPU s':>9} {'labels':>7}")
    shown("independent", lambda: Independent(fit_NL), fit_NL, test_NL)
    shown("Chow-Liu tree", lambda: ChowLiuTree.fit(fit_NL), fit_NL, test_NL)

    def mixtures(name: str, *data: Any, components: list[int], **settings: Any) -> None:
        for k in components:
            fit = {"num_components": k, "seed": 0, "restarts": options.restarts, **settings}
            shown(f"{name}, K = {k}", lambda fit=fit: fit_label_mixture(*data, **fit), fit_NL, test_NL)

    mixtures("mixture", fit_NL, components=options.components)
    partial(fit_NL, listed_NL[:NUM_TO_FIT], [1, *options.components], mixtures)


def partial(fit_NL: Bools, listed_NL: Bools, components: list[int], mixtures: Callable[..., None]) -> None:
    """Print the rows for the two kinds of missing labels."""
    retention = float(listed_NL.sum() / fit_NL.sum())
    print(f"labels_40: {retention:.3f} of the positives are listed")
    mixtures("labels_40, absent", listed_NL, components=components)
    mixtures("labels_40, unknown", listed_NL, ~(fit_NL & ~listed_NL), components=components)
    mixtures("labels_40, retention", listed_NL, components=components, retention=retention)
    known_NL = np.random.default_rng(1).random(fit_NL.shape) < 0.4
    print(f"known at random: {known_NL.mean():.3f} of all labels")
    mixtures("at random, absent", fit_NL & known_NL, components=components)
    mixtures("at random, unknown", fit_NL, known_NL, components=components)


def shown(name: str, fit: Callable[[], Any], fit_NL: Bools, test_NL: Bools) -> None:
    """Fit, and print held-out and fitted nats per image, wall and CPU seconds, and the expected number of labels per image."""
    started_cpu_s, started_at_s = time.process_time(), time.perf_counter()
    model = fit()
    cpu_s, wall_s = time.process_time() - started_cpu_s, time.perf_counter() - started_at_s
    nats = [-model.log_prob(targets_NL).mean() for targets_NL in (test_NL, fit_NL)]
    print(f"{name:32} {nats[0]:9.3f} {nats[1]:9.3f} {wall_s:9.1f} {cpu_s:9.1f} {model.marginals_L.sum():7.2f}", flush=True)


class Independent:
    """Every label by its smoothed prevalence."""

    def __init__(self, targets_NL: Bools) -> None:
        self.marginals_L = (targets_NL.sum(axis=0) + SMOOTHING) / (len(targets_NL) + 2 * SMOOTHING)

    def log_prob(self, targets_NL: Bools) -> NDArray[np.float64]:
        return np.log(np.where(targets_NL, self.marginals_L, 1 - self.marginals_L)).sum(axis=1)


if __name__ == "__main__":
    main()
