"""The rows that a calibrator, a threshold or a guarantee is fitted on, checked once. N samples, L labels."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rayprob.arrays import Bools, Floats, Rows
from rayprob.errors import CalibrationError
from rayprob.seeds import derive

FEW = 100  # samples below which a fit may do worse on new images than the outputs as they are


def checked_logits(logits_NL: ArrayLike, targets_NL: ArrayLike, known_NL: ArrayLike) -> tuple[Floats, Bools, Bools]:
    """Return logits (float64), targets and known of equal shape [N, L]; unknown targets are returned as absent."""
    return _checked(logits_NL, targets_NL, known_NL, "logits")


def checked_marginals(marginals_NL: ArrayLike, targets_NL: ArrayLike, known_NL: ArrayLike) -> tuple[Floats, Bools, Bools]:
    """Return marginals in [0, 1], targets and known of equal shape [N, L]; unknown targets are returned as absent."""
    marginals_NL, targets_NL, known_NL = _checked(marginals_NL, targets_NL, known_NL, "marginals")
    lowest, highest = marginals_NL.min(), marginals_NL.max()
    if lowest < 0 or highest > 1:
        raise CalibrationError(
            f"marginals range from {lowest:.4g} to {highest:.4g}, not within 0 and 1; pass probabilities, not logits"
        )
    return marginals_NL, targets_NL, known_NL


def folds(num_samples: int, num_folds: int, seed: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield (rows to fit on, rows to evaluate on) for each fold: a random partition of the samples."""
    if not 2 <= num_folds <= num_samples:
        raise CalibrationError(f"{num_folds} folds of {num_samples} samples; cross-validation takes 2 to {num_samples} folds")
    order_N = np.random.default_rng(derive(seed, "folds")).permutation(num_samples)
    for fold in range(num_folds):
        yield np.delete(order_N, np.s_[fold::num_folds]), order_N[fold::num_folds]


def require_outputs(outputs: Mapping[str, Any], family: str, *names: str) -> None:
    """Raise CalibrationError unless a head's outputs include those of `family`."""
    missing = sorted(set(names) - outputs.keys())
    if missing:
        found = ", ".join(outputs) or "none"
        raise CalibrationError(f"{family} outputs lack {', '.join(missing)}; found {found}; use the outputs of a {family} head")


def _checked(values: ArrayLike, targets: ArrayLike, known: ArrayLike, what: str) -> tuple[Floats, Bools, Bools]:
    values_NL = np.asarray(values, dtype=np.float64)
    targets_NL, known_NL = np.asarray(targets, dtype=bool), np.asarray(known, dtype=bool)
    if values_NL.ndim != 2 or not values_NL.shape == targets_NL.shape == known_NL.shape:
        raise CalibrationError(
            f"{what} {list(values_NL.shape)}, targets {list(targets_NL.shape)} and known {list(known_NL.shape)} differ in "
            "shape; all three must be [samples, labels] over the same rows and label space"
        )
    if not known_NL.any():
        raise CalibrationError(f"{values_NL.shape[0]} samples without one known target; fit on a split that states its labels")
    if not np.isfinite(values_NL).all():
        row, column = np.argwhere(~np.isfinite(values_NL))[0]
        raise CalibrationError(
            f"{what} contain {values_NL[row, column]} at row {row}, label column {column}; they must be finite: the model "
            "may have diverged"
        )
    return values_NL, targets_NL & known_NL, known_NL
