"""Exact mAP at the size of COCO val2014 (40,137 x 80): rayprob compared with scikit-learn, and the other metrics' times.

    python benchmarks/exact_map.py [--repeats 7]

Scores are drawn, prevalences are those of COCO train2014 if ../shared has them. The two alternate in one process, so
that other work on the machine affects both; medians, their ratio and the largest difference of any AP are printed,
with float32 scores and with scores rounded to two decimals (many ties).
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from rayprob.labels import from_label_lists
from rayprob.metrics.counting import best_single_threshold, count_metrics, label_sets, threshold_curve, top_k
from rayprob.metrics.ranking import average_precision
from rayprob.metrics.reliability import adaptive_calibration_error, expected_calibration_error

NUM_SAMPLES, NUM_LABELS = 40_137, 80
LABELS = Path(__file__).resolve().parents[2] / "shared" / "labels" / "coco_train2014_labels.parquet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    targets_NL = targets()
    marginals_NL = marginals(targets_NL)
    print(f"{NUM_SAMPLES:,} x {NUM_LABELS}, {targets_NL.sum(axis=1).mean():.2f} labels per sample, medians of {repeats}, in ms")
    for name, scores_NL in (("float32", marginals_NL), ("two decimals", np.round(marginals_NL, 2))):
        beside_sklearn(name, scores_NL, targets_NL, repeats)
    for name, metric in others(marginals_NL, targets_NL).items():
        print(f"{name:48} {median(timed(metric)[0] for _ in range(repeats)) * 1e3:8.1f}")


def beside_sklearn(name: str, scores_NL: Any, targets_NL: Any, repeats: int) -> None:
    ours, theirs = [], []
    for _ in range(repeats):
        seconds, ap_L = timed(lambda: average_precision(scores_NL, targets_NL))
        ours.append(seconds)
        seconds, expected_L = timed(lambda: average_precision_score(targets_NL, scores_NL, average=None))
        theirs.append(seconds)
    difference = np.abs(ap_L - expected_L).max()
    assert difference < 1e-9
    print(
        f"AP of each label, {name:14} rayprob {median(ours) * 1e3:8.1f}  scikit-learn {median(theirs) * 1e3:8.1f}  "
        f"ratio {median(theirs) / median(ours):5.1f}  largest difference {difference:.1e}  mAP {ap_L.mean():.4f}"
    )


def others(marginals_NL: Any, targets_NL: Any) -> dict[str, Callable[[], Any]]:
    grid_T = np.linspace(0, 1, 101)
    return {
        "OP OR OF1 CP CR CF1 at 0.5": lambda: count_metrics(label_sets(marginals_NL, 0.5), targets_NL),
        "OP OR OF1 CP CR CF1 of the top 3": lambda: count_metrics(top_k(marginals_NL, 3), targets_NL),
        "threshold curve, 101 thresholds": lambda: threshold_curve(marginals_NL, targets_NL, grid_T),
        "best single threshold for OF1, exact": lambda: best_single_threshold(marginals_NL, targets_NL),
        "best single threshold for CF1, exact": lambda: best_single_threshold(marginals_NL, targets_NL, objective="CF1"),
        "ECE, 15 bins": lambda: expected_calibration_error(marginals_NL, targets_NL),
        "adaptive ECE, 15 bins": lambda: adaptive_calibration_error(marginals_NL, targets_NL),
    }


def targets() -> Any:
    rng = np.random.default_rng(0)
    if LABELS.exists():
        import pyarrow.parquet as pq

        lists = pq.read_table(LABELS, columns=["labels"])["labels"].slice(0, NUM_SAMPLES).to_pylist()
        return from_label_lists(lists, NUM_LABELS)
    prevalence_L = np.geomspace(0.55, 0.0016, NUM_LABELS)
    return rng.random((NUM_SAMPLES, NUM_LABELS)) < prevalence_L


def marginals(targets_NL: Any) -> Any:
    rng = np.random.default_rng(1)
    logits_NL = rng.normal(size=targets_NL.shape) * 1.5 + 4.5 * targets_NL - 4
    return (1 / (1 + np.exp(-logits_NL))).astype(np.float32)


def timed(metric: Callable[[], Any]) -> tuple[float, Any]:
    start_s = time.perf_counter()
    value = metric()
    return time.perf_counter() - start_s, value


if __name__ == "__main__":
    main()
