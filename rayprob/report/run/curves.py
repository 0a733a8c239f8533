"""The numbers behind the line charts, thinned to what is visible."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rayprob.arrays import Floats
from rayprob.metrics.counting import threshold_curve
from rayprob.metrics.ranking import Curve, average_precision, micro_average_precision, pooled_curve, precision_recall_curves
from rayprob.metrics.reliability import ReliabilityCurve, reliability_curve
from rayprob.report.run.judged import Judged

MOST_POINTS = 160
BINS = 10
MIN_POSITIVES = 5


@dataclass(frozen=True)
class Line:
    """A named line."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class TrainingCurves:
    """What the run logged; `epochs_per_step` turns steps into epochs."""

    loss: Line
    lr: Line
    images_per_s: Line
    holdout_map: Line
    best_step: int | None
    steps_per_epoch: int | None


@dataclass(frozen=True)
class ThresholdChart:
    """OF1 and CF1 with one threshold for all labels; marks are (name, threshold, OF1 there)."""

    lines: tuple[Line, ...]
    marks: tuple[tuple[str, float, float], ...]
    best_threshold: float
    best_value: float


def training(history: list[dict[str, Any]]) -> TrainingCurves | None:
    """Return the curves of a run's history, or None if it has no curves."""
    if not any(row.get("kind") in ("step", "evaluation") for row in history):
        return None
    starts = [row for row in history if row.get("kind") == "start"]
    evaluations = [row for row in history if row.get("kind") == "evaluation"]
    best = max(evaluations, key=lambda row: float(row.get("mAP", 0)), default=None)
    return TrainingCurves(
        loss=_column(history, "step", "loss"),
        lr=_column(history, "step", "lr"),
        images_per_s=_column(history, "step", "images_per_s"),
        holdout_map=_column(history, "evaluation", "mAP"),
        best_step=int(best["step"]) if best else None,
        steps_per_epoch=int(starts[-1]["steps_per_epoch"]) if starts and "steps_per_epoch" in starts[-1] else None,
    )


def precision_recall(judged: Judged) -> list[Line]:
    """Return the curve of all labels pooled, and the curves of the labels with the best, the median and the worst AP."""
    micro = micro_average_precision(judged.scores_NL, judged.targets_NL, judged.known_NL)
    pooled = pooled_curve(judged.scores_NL, judged.targets_NL, judged.known_NL)
    lines = [_pr_line(f"all labels pooled, AP {micro:.3f}", pooled)]
    ap_L = average_precision(judged.scores_NL, judged.targets_NL, judged.known_NL)
    counted = [c for c in np.argsort(-ap_L, kind="stable").tolist() if judged.positives_L[c] >= MIN_POSITIVES]
    if len(counted) < 3:
        counted = [c for c in np.argsort(-ap_L, kind="stable").tolist() if judged.positives_L[c]]
    chosen = dict.fromkeys(counted[place] for place in (0, len(counted) // 2, -1)) if counted else {}
    curves = precision_recall_curves(judged.scores_NL, judged.targets_NL, judged.known_NL)
    return lines + [_pr_line(f"{judged.names[c]}, AP {ap_L[c]:.3f}", curves[c]) for c in chosen]


def reliability(judged: Judged) -> tuple[ReliabilityCurve, ReliabilityCurve | None]:
    """Return the reliability before calibration and, if there is a calibrator, after it."""
    before = reliability_curve(judged.raw_marginals_NL, judged.targets_NL, judged.known_NL, bins=BINS)
    if judged.after is None:
        return before, None
    return before, reliability_curve(judged.marginals_NL, judged.targets_NL, judged.known_NL, bins=BINS)


def f1_against_threshold(judged: Judged) -> ThresholdChart:
    """Return OF1 and CF1 over thresholds, after calibration if there is a calibrator, with the chosen thresholds marked."""
    marked = {"0.5": 0.5, f"tuned on {judged.tuned_on}": judged.tuned_threshold}
    grid_T = np.unique(np.concatenate([np.linspace(0.01, 0.99, 99), list(marked.values())]))
    curve = threshold_curve(judged.marginals_NL, judged.targets_NL, grid_T, judged.known_NL)
    lines = [_line("OF1", curve.thresholds_T, curve.OF1), _line("CF1", curve.thresholds_T, curve.CF1)]
    if judged.after is not None:
        raw = threshold_curve(judged.raw_marginals_NL, judged.targets_NL, grid_T, judged.known_NL)
        lines.append(_line("OF1 before calibration", raw.thresholds_T, raw.OF1))
    best = int(np.argmax(curve.OF1))
    marks = tuple((name, at, float(np.interp(at, curve.thresholds_T, curve.OF1))) for name, at in marked.items())
    return ThresholdChart(tuple(lines), marks, float(curve.thresholds_T[best]), float(curve.OF1[best]))


def _column(history: list[dict[str, Any]], kind: str, key: str) -> Line:
    rows = [row for row in history if row.get("kind") == kind and isinstance(row.get(key), (int, float))]
    return _line(key, [row["step"] for row in rows], [row[key] for row in rows])


def _pr_line(name: str, curve: Curve) -> Line:
    recall_P, precision_P = curve.recall_P, curve.precision_P
    if len(recall_P) <= MOST_POINTS:
        return _line(name, recall_P, precision_P)
    kept = np.unique(np.searchsorted(recall_P, np.linspace(recall_P[0], 1, MOST_POINTS)).clip(0, len(recall_P) - 1))
    return _line(name, recall_P[kept], precision_P[kept])


def _line(name: str, x: ArrayLike, y: ArrayLike) -> Line:
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    step = max(1, -(-len(xs) // (2 * MOST_POINTS)))
    kept: Floats = np.unique(np.append(np.arange(0, len(xs), step), len(xs) - 1)) if len(xs) else np.empty(0)
    places = kept.astype(int)
    return Line(name, tuple(xs[places].tolist()), tuple(ys[places].tolist()))
