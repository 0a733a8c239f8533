"""Does conformal risk control hold? Mean missed share of labels over random splits, compared with the guarantee.

    python benchmarks/conformal_risk.py [--predictions predictions.parquet] [--calibration 500] [--splits 200] [--known 0.3]

Predictions are split at random into calibration and test samples, 200 times. On the first a threshold is fitted for each
alpha; on the second the share of an image's labels that its set misses is measured. The guarantee is on the mean over
splits: at most alpha, and at least alpha - 2 / (n + 1) where marginals are not tied. All splits are of one table, so the
standard error is the precision of that mean. `false` is the share of a set's labels that are absent, `size` the
number of its labels; the last row has the same for the labels with a marginal of 0.5 or more.

`also used for` names the other uses of the calibration samples: nothing; one scale and shift for all labels, which
leaves the sets unchanged; one scale and shift per label, which voids the guarantee; or that, on one half of them, the other
half alone being used for the threshold.

With --known R each label of the calibration samples, present or absent, is stated with probability R at random, and the risk
on test samples is of all their labels. Rows: the threshold that counts samples without a label stated present as missing
nothing (rayprob 0.1); the one fitted on samples with a label stated present, whose promise is about labels stated; and the one
told R, whose promise is about all labels.

Without --predictions: 5,000 images of 80 labels, drawn. An image shows one of 12 scenes; label l has the logit
b_l + s_kl + e with b_l = logit(10^U(-3.7, -1.5)), s_kl ~ Normal(0, 2^2) and e ~ Normal(0, 1.5^2); the model predicts
1.4 * logit + 1 + Normal(0, 1), so it is overconfident.
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from rayprob.probability.calibration.calibrators import fit_calibrator
from rayprob.probability.decisions.conformal import RiskControl, fit_risk_control, mean_missed_share
from rayprob.probability.families import from_outputs
from rayprob.runs.predictions import Predictions

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Table = tuple[Floats, Bools, Bools]  # logits of the marginals, targets, known [N, L]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", help="a table written by `rayprob evaluate`; default: drawn predictions")
    parser.add_argument("--calibration", type=int, help="calibration samples per split; default: a tenth, at least 40")
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.05, 0.1, 0.2])
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--known", type=float, help="share of the calibration samples' labels that is annotated, at random")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = read(options.predictions) if options.predictions else drawn(options.seed)
    num_calibration = options.calibration or max(len(table[0]) // 10, 40)
    print(f"{len(table[0]):,} images, {table[0].shape[1]} labels; {options.splits} splits, {num_calibration:,} to calibrate on")
    if options.known is not None:
        hidden_labels(table, num_calibration, options)
        return
    header = f"{'also used for':28} {'alpha':>6} {'at least':>9} {'mean risk':>10} {'s.e.':>7} {'kept':>5} {'false':>6}"
    print(f"{header} {'size':>6}")
    for use, fit_and_control in USES.items():
        rng = np.random.default_rng(options.seed)
        splits = [one_split(table, rng, num_calibration, options.alphas, fit_and_control) for _ in range(options.splits)]
        num_control = len(range(num_calibration)[fit_and_control[2]])
        for alpha, results_S3 in zip(options.alphas, np.moveaxis(np.array(splits), 1, 0), strict=True):
            show(use, alpha, results_S3, num_control)
    risk, false, size = measured(expit(table[0]) >= 0.5, *table[1:])
    print(f"{'(marginals of 0.5 or more)':28} {'':6} {'':9} {risk:10.4f} {'':7} {'':5} {false:6.3f} {size:6.2f}")


EVERY, EVEN, ODD = slice(None), slice(0, None, 2), slice(1, None, 2)
USES: dict[str, tuple[str, slice, slice]] = {  # calibrator, the rows it is fitted on, the rows that risk control sees
    "nothing": ("identity", EVERY, EVERY),
    "shared_platt": ("shared_platt", EVERY, EVERY),
    "platt": ("platt", EVERY, EVERY),
    "platt, on the other half": ("platt", EVEN, ODD),
}


def one_split(
    table: Table, rng: np.random.Generator, num_calibration: int, alphas: list[float], use: tuple[str, slice, slice]
) -> list[tuple[float, float, float]]:
    """Return (missed share, false share, set size) on the test samples of a random split, for each alpha."""
    rows = np.split(rng.permutation(len(table[0])), [num_calibration])
    calibration, test = (tuple(values[part] for values in table) for part in rows)
    name, fit_rows, control_rows = use
    calibrator = fit_calibrator(name, *(values[fit_rows] for values in calibration))
    logits_ML, targets_ML, known_ML = (values[control_rows] for values in calibration)
    controls = [fit_risk_control(expit(calibrator.apply(logits_ML)), targets_ML, known_ML, alpha) for alpha in alphas]
    marginals_NL = expit(calibrator.apply(test[0]))
    return [measured(control.decide(marginals_NL), *test[1:]) for control in controls]


def measured(sets_NL: Bools, targets_NL: Bools, known_NL: Bools) -> tuple[float, float, float]:
    stated_N = known_NL.any(axis=1)
    size_N = (sets_NL & known_NL).sum(axis=1)
    false_N = (sets_NL & known_NL & ~targets_NL).sum(axis=1) / np.maximum(size_N, 1)
    risk = mean_missed_share(sets_NL, targets_NL, known_NL)
    return risk, float(false_N[stated_N].mean()), float(size_N[stated_N].mean())


def hidden_labels(table: Table, num_calibration: int, options: argparse.Namespace) -> None:
    """Print the risk of the full truth of thresholds that were fitted on the labels stated."""
    print(f"each label stated with probability {options.known:g} on calibration samples; risk of all labels on the others")
    print(f"{'threshold fitted':28} {'alpha':>6} {'mean risk':>10} {'s.e.':>7} {'size':>6}")
    for name, fit in FITS_ON_STATED.items():
        rng = np.random.default_rng(options.seed)
        splits = [one_hidden(table, rng, num_calibration, options, fit) for _ in range(options.splits)]
        for alpha, results_S3 in zip(options.alphas, np.moveaxis(np.array(splits), 1, 0), strict=True):
            risk, _, size = results_S3.mean(axis=0)
            standard_error = results_S3[:, 0].std(ddof=1) / np.sqrt(len(results_S3))
            print(f"{name:28} {alpha:6.2f} {risk:10.4f} {standard_error:7.4f} {size:6.2f}")


FitOnStated = Callable[[Table, float, float], RiskControl]


def one_hidden(
    table: Table, rng: np.random.Generator, num_calibration: int, options: argparse.Namespace, fit: FitOnStated
) -> list[tuple[float, float, float]]:
    """Return what `measured` does of a random split whose calibration samples state a share of their labels."""
    fit_rows, test_rows = np.split(rng.permutation(len(table[0])), [num_calibration])
    logits_ML, targets_ML, known_ML = (values[fit_rows] for values in table)
    stated = expit(logits_ML), targets_ML, known_ML & (rng.random(known_ML.shape) < options.known)
    controls = [fit(stated, alpha, options.known) for alpha in options.alphas]
    return [measured(control.decide(expit(table[0][test_rows])), *(t[test_rows] for t in table[1:])) for control in controls]


def counting_unstated_as_missing_nothing(stated: Table, alpha: float, known: float) -> RiskControl:
    """Return the threshold of rayprob 0.1: shares may sum to alpha * (n + 1) - 1 with n of all samples."""
    num_with_label = int((stated[1] & stated[2]).any(axis=1).sum())
    return fit_risk_control(*stated, min(alpha * (len(stated[0]) + 1) / (num_with_label + 1), 1 - 1e-9))


FITS_ON_STATED: dict[str, FitOnStated] = {
    "counting 0 if none is stated": counting_unstated_as_missing_nothing,
    "on labels stated": lambda stated, alpha, known: fit_risk_control(*stated, alpha),
    "for all labels, with the rate": lambda stated, alpha, known: fit_risk_control(*stated, alpha, known_rate=known),
}


def show(use: str, alpha: float, results_S3: Floats, num_control: int) -> None:
    mean, false, size = results_S3.mean(axis=0)
    standard_error = results_S3[:, 0].std(ddof=1) / np.sqrt(len(results_S3))
    lowest = alpha - 2 / (num_control + 1)
    kept = "yes" if lowest - 3 * standard_error <= mean <= alpha + 3 * standard_error else "NO"
    print(f"{use:28} {alpha:6.2f} {lowest:9.4f} {mean:10.4f} {standard_error:7.4f} {kept:>5} {false:6.3f} {size:6.2f}")


def read(uri: str) -> Table:
    predictions = Predictions.read(uri)
    logits_NL = from_outputs(predictions.family, predictions.outputs).marginal_logits()
    return np.asarray(logits_NL, dtype=np.float64), predictions.targets_NL, predictions.known_NL


def drawn(seed: int, num_samples: int = 5_000, num_labels: int = 80, num_scenes: int = 12) -> Table:
    rng = np.random.default_rng(seed)
    base_L = logit(10 ** rng.uniform(-3.7, -1.5, num_labels))
    scene_KL = 2.0 * rng.normal(size=(num_scenes, num_labels))
    logits_NL = base_L + scene_KL[rng.integers(num_scenes, size=num_samples)] + 1.5 * rng.normal(size=(num_samples, num_labels))
    targets_NL = rng.random(logits_NL.shape) < expit(logits_NL)
    return 1.4 * logits_NL + 1.0 + rng.normal(size=logits_NL.shape), targets_NL, np.ones_like(targets_NL)


if __name__ == "__main__":
    main()
