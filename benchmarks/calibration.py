"""The effect of calibration on a run: ECE before and after, F1 at 0.5, tuned and the oracle's, and whether guarantees hold.

    python benchmarks/calibration.py RUN [--splits 200] [--crossed-splits 40]

RUN is the folder of a trained run with predictions of val (`rayprob evaluate RUN`); the folder is not changed. Everything is
fitted on holdout. Numbers of holdout are cross-fitted, those of val are only reported; the oracle's thresholds are
fitted on val itself, so they are an upper bound.

Then the guarantees: the run's val predictions are split at random into calibration and test samples, and each alpha's mean
missed share on the test samples is next to it, as `conformal_risk.py` explains. Its rows name other uses of the calibration
samples; "platt, cross-fitted" is what `rayprob calibrate` does if it chooses one scale and shift per label.
"""

import argparse
import dataclasses

import numpy as np
from conformal_risk import USES, measured, one_split, read, show

from rayprob.calibrate.comparison import Comparison
from rayprob.calibrate.crossfit import CalibrateSpec, Fold, fitted_rules
from rayprob.calibrate.fitting import CalibrationReport, fit_run
from rayprob.files import storage
from rayprob.runs.finished import REPORTED
from rayprob.runs.predictions import Predictions

CROSS_FITTED = "platt, cross-fitted"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run's folder with a bundle and predictions of holdout and val")
    parser.add_argument("--calibration", type=int, help="calibration samples per split; default: half of val, at most 500")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--crossed-splits", type=int, default=40, help="splits of the slowest row")
    options = parser.parse_args()
    _, report = fit_run(options.run, CalibrateSpec())
    show_report(report)
    show_guarantees(storage.join(options.run, "predictions", f"{REPORTED}.parquet"), options)


def show_report(report: CalibrationReport) -> None:
    print(f"{report.run}: {report.reason}")
    for at in filter(None, (report.holdout, report.reported)):
        show_comparison(at)


def show_comparison(at: Comparison) -> None:
    print(f"\n{at.split}, {at.num_samples:,} images{'' if at.split == REPORTED else ' (cross-fitted)'}")
    for name, before in dataclasses.asdict(at.before).items():
        print(f"  {name:24} {before:9.4f} -> {getattr(at.after, name):.4f}")
    rows = {"0.5, before": at.before_at_half, **at.sets, **{f"oracle's {rule}": sets for rule, sets in at.oracles.items()}}
    for rule, sets in rows.items():
        print(f"  {rule:24} OF1 {sets.OF1:.4f}  CF1 {sets.CF1:.4f}  missed share {sets.missed_share:.4f}")


def show_guarantees(uri: str, options: argparse.Namespace) -> None:
    predictions, table, alphas = Predictions.read(uri), read(uri), CalibrateSpec().alphas
    num_calibration = options.calibration or min(len(predictions) // 2, 500)
    print(f"\nguarantees: {options.splits} splits of {REPORTED}, {num_calibration:,} samples to calibrate on")
    print(
        f"{'also used for':28} {'alpha':>6} {'at least':>9} {'mean risk':>10} {'s.e.':>7} {'kept':>5} {'false':>6} {'size':>6}"
    )
    for use, fit_and_control in USES.items():
        rng = np.random.default_rng(0)
        splits = [one_split(table, rng, num_calibration, list(alphas), fit_and_control) for _ in range(options.splits)]
        show_row(use, alphas, splits, len(range(num_calibration)[fit_and_control[2]]))
    rng = np.random.default_rng(0)
    crossed = [one_crossed_split(predictions, rng, num_calibration) for _ in range(options.crossed_splits)]
    show_row(f"{CROSS_FITTED} ({options.crossed_splits})", alphas, crossed, num_calibration)


def one_crossed_split(
    predictions: Predictions, rng: np.random.Generator, num_calibration: int
) -> list[tuple[float, float, float]]:
    """Return (missed share, false share, set size) for each alpha, by the procedure of `rayprob calibrate`."""
    fit_rows, test_rows = np.split(rng.permutation(len(predictions)), [num_calibration])
    fold = Fold.of(predictions.rows(fit_rows), predictions, test_rows, "platt", CalibrateSpec())
    controls = fitted_rules(fold.fitted_on, CalibrateSpec()).rules.guarantees.values()
    return [measured(control.decide(fold.marginals_NL), fold.judged.targets_NL, fold.judged.known_NL) for control in controls]


def show_row(use: str, alphas: tuple[float, ...], splits: list[list[tuple[float, float, float]]], num_control: int) -> None:
    for alpha, results_S3 in zip(alphas, np.moveaxis(np.array(splits), 1, 0), strict=True):
        show(use, alpha, results_S3, num_control)


if __name__ == "__main__":
    main()
