"""Fits rayprob/data/scene_labels.npz: a Bernoulli mixture with 30 components over the label sets of COCO train2014.

    python benchmarks/fit_scene_labels.py LABELS.parquet

LABELS.parquet has one row per image of train2014 with at least one label and a column `labels`, lists of label columns. The 702
images without labels are added as empty label sets. Prints the negative log-likelihood on 17,081 held-out rows (65,000 to fit),
then fits all rows and writes the file.
"""

import argparse

import numpy as np
import pyarrow.parquet as pq

from rayprob.labels import from_label_lists
from rayprob.probability.distributions.mixture import fit_label_mixture
from rayprob.scenes.labels import SHIPPED, SceneLabels

NUM_UNLABELLED = 702
NUM_TO_FIT = 65_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", help="the Parquet file of label lists")
    parser.add_argument("--components", type=int, default=30)
    parser.add_argument("--restarts", type=int, default=10)
    options = parser.parse_args()
    present_NL = from_label_lists(pq.read_table(options.labels)["labels"].to_pylist(), 80)
    fit = {"num_components": options.components, "seed": 0, "restarts": options.restarts}
    report_held_out(present_NL, fit)
    everything_NL = np.concatenate([present_NL, np.zeros((NUM_UNLABELLED, 80), bool)])
    mixture = fit_label_mixture(everything_NL, **fit)
    np.savez(
        SHIPPED,
        weights_K=mixture.mixing_weights_K.astype(np.float32),
        probabilities_KL=mixture.probabilities_KL.astype(np.float32),
    )
    report(SceneLabels.load(), everything_NL)


def report_held_out(present_NL: np.ndarray, fit: dict[str, int]) -> None:
    shuffled_NL = present_NL[np.random.default_rng(0).permutation(len(present_NL))]
    mixture = fit_label_mixture(shuffled_NL[:NUM_TO_FIT], **fit)
    held_out_NL = shuffled_NL[NUM_TO_FIT:]
    print(f"held out: {-mixture.log_prob(held_out_NL).mean():.3f} nats per image over {len(held_out_NL):,} images")


def report(labels: SceneLabels, present_NL: np.ndarray) -> None:
    error = np.abs(labels.marginals_L - present_NL.mean(axis=0)).max()
    print(f"wrote {SHIPPED.name}: {SHIPPED.stat().st_size:,} bytes; largest error of a prevalence {error:.1e}")
    print(f"labels per image {labels.marginals_L.sum():.3f}, COCO {present_NL.sum(axis=1).mean():.3f}")
    print(f"empty label sets {labels.probability_of_empty:.2%}, COCO {(~present_NL.any(axis=1)).mean():.2%}")


if __name__ == "__main__":
    main()
