"""The page of a run: facts into HTML."""

from typing import Any

from rayprob.metrics.reliability import ReliabilityCurve
from rayprob.report import charts
from rayprob.report.html import NONE, fill
from rayprob.report.run import curves, takeaways
from rayprob.report.run.facts import Facts
from rayprob.report.run.together import CoOccurrence


def render(facts: Facts) -> str:
    """Return the whole page."""
    values = {
        "facts": facts,
        "says": takeaways,
        "is_joint": facts.judged.is_joint,
        **_performance(facts),
        **_trust(facts),
        **_together(facts.co_occurrence),
        **_training(facts.training),
    }
    return fill("page.html", values)


def _performance(facts: Facts) -> dict[str, Any]:
    lines = curves.precision_recall(facts.judged)
    return {
        "pr_lines": lines,
        "pr_chart": charts.precision_recall(
            lines,
            "Precision and recall: " + "; ".join(line.name for line in lines) + ". The numbers are in the table below.",
        ),
        "ap_chart": charts.ap_by_prevalence(
            facts.labels.rows, "AP of each label against its number of positives. The numbers are in the table of labels."
        ),
    }


def _trust(facts: Facts) -> dict[str, Any]:
    before, after = curves.reliability(facts.judged)
    f1 = curves.f1_against_threshold(facts.judged)
    bundle = facts.files.bundle
    is_calibrated = bundle is not None and bundle.calibrator is not None
    on_reliability = takeaways.on_reliability(facts.headline, is_calibrated=is_calibrated)
    return {
        "is_calibrated": is_calibrated,
        "on_reliability": on_reliability,
        "reliability_rows": _reliability_rows(before, after),
        "reliability_chart": charts.reliability(before, after, on_reliability),
        "f1": f1,
        "f1_chart": charts.f1_against_threshold(f1, takeaways.on_thresholds(f1)),
    }


def _reliability_rows(before: ReliabilityCurve, after: ReliabilityCurve | None) -> list[tuple[str, list[tuple[int, str, str]]]]:
    rows = []
    for place, (low, high) in enumerate(zip(before.edges[:-1], before.edges[1:], strict=True)):
        cells = []
        for curve in (before, after):
            if curve is not None:
                said, found = float(curve.mean_marginal_B[place]), float(curve.present_share_B[place])
                is_empty = not curve.pairs_B[place]
                cells.append(
                    (int(curve.pairs_B[place]), NONE if is_empty else f"{said:.3f}", NONE if is_empty else f"{found:.3f}")
                )
        rows.append((f"{low:.1f} to {high:.1f}", cells))
    return rows


def _together(pairs: CoOccurrence | None) -> dict[str, Any]:
    if pairs is None:
        return {"heat_maps": []}
    listed = ", ".join(pairs.names)
    parts = (
        ("As annotated", pairs.true_MM, "true", False),
        ("As the model expects", pairs.predicted_MM, "expected", False),
        ("Difference", pairs.difference_MM, "difference", True),
    )
    return {
        "heat_maps": [
            (
                title,
                charts.heat_map(values, pairs.names, name, f"{title}: P(column label | row label) of {listed}", signed=signed),
            )
            for title, values, name, signed in parts
        ]
    }


def _training(history: curves.TrainingCurves | None) -> dict[str, Any]:
    if history is None:
        return {"training_charts": []}
    parts: tuple[tuple[str, curves.Line, str, dict[str, Any]], ...] = (
        ("Loss", history.loss, "loss", {"is_noisy": True}),
        ("Holdout mAP", history.holdout_map, "map", {"mark": history.best_step}),
        ("Learning rate", history.lr, "rate", {}),
        ("Images per second", history.images_per_s, "speed", {"is_noisy": True}),
    )
    return {
        "training_charts": [
            (title, charts.over_steps(line, name, f"{title} over steps, {_range(line)}", **options), line)
            for title, line, name, options in parts
            if line.x
        ]
    }


def _range(line: curves.Line) -> str:
    return f"from {line.y[0]:.4g} to {line.y[-1]:.4g}, minimum {min(line.y):.4g}, maximum {max(line.y):.4g}"
