"""The page: facts into HTML. Names of labels, files and runs are untrusted text, so everything is escaped (Jinja2 autoescape).

The Content-Security-Policy allows no script, no network and no style but the one in the page, by its hash.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rayprob.metrics.reliability import ReliabilityCurve
from rayprob.report import charts, curves, takeaways
from rayprob.report.facts import Facts
from rayprob.report.together import CoOccurrence

NONE = "\N{EN DASH}"
TEMPLATES = Path(__file__).with_name("templates")


def render(facts: Facts) -> str:
    """Return the whole page."""
    style = (TEMPLATES / "style.css").read_text()
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"share": share, "number": number, "percent": percent}
    values = {
        "facts": facts,
        "style": Markup(style),
        "policy": policy(style),
        "says": takeaways,
        "family": facts.judged.predictions.family,
        **_performance(facts),
        **_trust(facts),
        **_together(facts.co_occurrence),
        **_training(facts.training),
    }
    return environment.get_template("page.html").render(values)


def policy(style: str) -> str:
    """Return the Content-Security-Policy of a page with this style sheet."""
    sha256 = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{sha256}'; img-src data:; base-uri 'none'; form-action 'none'"


def share(value: float | None, digits: int = 3) -> str:
    """Return a fraction of one with fixed digits, so that columns align; a dash for none."""
    return NONE if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """Return a probability as a percentage that is never rounded to a certainty it has not."""
    if value is None:
        return NONE
    if 0 < value < 0.001:
        return "< 0.1\N{NO-BREAK SPACE}%"
    if 0.999 < value < 1:
        return "> 99.9\N{NO-BREAK SPACE}%"
    return f"{value * 100:.1f}\N{NO-BREAK SPACE}%"


def number(value: float | None) -> str:
    """Return a count with thousands separated; a dash for none."""
    return NONE if value is None else f"{value:,.0f}"


def _performance(facts: Facts) -> dict[str, Any]:
    lines = curves.precision_recall(facts.judged)
    return {
        "pr_lines": lines,
        "pr_chart": charts.precision_recall(
            lines,
            "Precision against recall: " + "; ".join(line.name for line in lines) + ". The numbers are in the table below.",
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


def _training(history: curves.Training | None) -> dict[str, Any]:
    if history is None:
        return {"training_charts": []}
    parts: tuple[tuple[str, curves.Line, str, dict[str, Any]], ...] = (
        ("Loss", history.loss, "loss", {"is_noisy": True}),
        ("Holdout mAP", history.holdout_map, "map", {"mark": history.best_step}),
        ("Learning rate", history.lr, "rate", {}),
        ("Images a second", history.images_per_s, "speed", {"is_noisy": True}),
    )
    return {
        "training_charts": [
            (title, charts.over_steps(line, name, f"{title} over steps, {_range(line)}", **options), line)
            for title, line, name, options in parts
            if line.x
        ]
    }


def _range(line: curves.Line) -> str:
    return f"from {line.y[0]:.4g} to {line.y[-1]:.4g}, least {min(line.y):.4g}, greatest {max(line.y):.4g}"
