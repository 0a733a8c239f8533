"""Checks of every metric's inputs. N samples, L labels; scores_NL float, targets_NL bool, known_NL bool."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import AnyFloats, Bools
from rayprob.errors import MetricError

LABELS_AT_ONCE = 64


def check_scores(scores_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None) -> None:
    """Raise MetricError unless N > 0, scores are finite floats [N, L], and targets and known (if given) are bool [N, L]."""
    check_targets(targets_NL, known_NL)
    if not np.issubdtype(scores_NL.dtype, np.floating):
        raise MetricError(f"scores_NL is {scores_NL.dtype}, not floating point; give logits or marginals as float32")
    _require_shape("scores_NL", scores_NL, targets_NL)
    finite_NL = np.isfinite(scores_NL)
    if not finite_NL.all():
        rows, columns = np.nonzero(~finite_NL)
        raise MetricError(
            f"{len(rows):,} of {scores_NL.size:,} scores are nan or inf, in rows {listed(rows)} and label columns "
            f"{listed(columns)}; find their cause, because a metric that skips them is too optimistic"
        )


def check_marginals(marginals_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None) -> None:
    """Raise MetricError unless `check_scores` passes and every marginal is in [0, 1]."""
    check_scores(marginals_NL, targets_NL, known_NL)
    low, high = float(marginals_NL.min()), float(marginals_NL.max())
    if low < 0 or high > 1:
        raise MetricError(
            f"marginals_NL ranges from {low:.6g} to {high:.6g}, outside [0, 1]; convert logits to marginals first"
        )


def check_targets(targets_NL: Bools, known_NL: Bools | None) -> None:
    """Raise MetricError unless targets are bool [N, L] with N, L > 0 and `known_NL`, if given, is bool [N, L]."""
    for name, values in (("targets_NL", targets_NL), ("known_NL", known_NL)):
        if values is not None and values.dtype != np.bool_:
            raise MetricError(f"{name} is {values.dtype}; give booleans, and mark what is unknown in known_NL")
    if targets_NL.ndim != 2 or targets_NL.size == 0:
        raise MetricError(f"targets_NL has shape {list(targets_NL.shape)}; give at least one row and one label, as [N, L]")
    if known_NL is not None:
        _require_shape("known_NL", known_NL, targets_NL)


def label_columns(scores_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None) -> Iterator[tuple[AnyFloats, Bools]]:
    """Yield (scores_N, targets_N) of each label in column order, over its known rows only."""
    for start in range(0, targets_NL.shape[1], LABELS_AT_ONCE):
        # A block at a time: a strided column touches every cache line of the table, and transposing it all doubles the memory.
        block = slice(start, start + LABELS_AT_ONCE)
        scores_LN, targets_LN = (np.ascontiguousarray(values[:, block].T) for values in (scores_NL, targets_NL))
        if known_NL is None:
            yield from zip(scores_LN, targets_LN, strict=True)
        else:
            known_LN = known_NL[:, block].T
            yield from (
                (scores[known], targets[known]) for scores, targets, known in zip(scores_LN, targets_LN, known_LN, strict=True)
            )


def pooled(scores_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None) -> tuple[AnyFloats, Bools]:
    """Return the known scores and targets of all labels as two flat arrays."""
    if known_NL is None:
        return scores_NL.ravel(), targets_NL.ravel()
    return scores_NL[known_NL], targets_NL[known_NL]


def listed(numbers: NDArray[Any], most: int = 8) -> str:
    """Return the distinct numbers in ascending order, at most `most` of them, then the number of others."""
    distinct = np.unique(numbers)
    more = f" and {len(distinct) - most:,} more" if len(distinct) > most else ""
    return ", ".join(str(number) for number in distinct[:most]) + more


def _require_shape(name: str, values: NDArray[Any], targets_NL: Bools) -> None:
    if values.shape != targets_NL.shape:
        raise MetricError(f"{name} has shape {list(values.shape)} but targets_NL {list(targets_NL.shape)}; they must be equal")
