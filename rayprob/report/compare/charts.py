"""The charts of a comparison: differences with their intervals, AP of one model against another's, and reliability."""

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, PercentFormatter

from rayprob.metrics.paired import PairedRow
from rayprob.metrics.reliability import ReliabilityCurve
from rayprob.report.charts import MOST_LETTERS, SERIES
from rayprob.report.compare.words import verdict
from rayprob.report.svg import INKS, drawing, to_svg
from rayprob.text import cut_names, printable

MOST_LABELS = 40
SIGNED = FuncFormatter(lambda value, _: f"{value:+.2f}" if value else "0")


def label_differences(rows: Sequence[PairedRow], place: int, letters: Sequence[str]) -> Markup:
    """Return the difference in AP of the given labels with intervals, the largest at the top; pale ones may be chance."""
    shown = sorted(rows[:MOST_LABELS], key=lambda row: row.differences[place].value)
    first, other = letters[0], letters[place + 1]
    titles = {}
    with drawing(460, 62 + 15 * max(len(shown), 6)) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=INKS["muted"], linewidth=1)
        for height, row in enumerate(shown):
            difference = row.differences[place]
            ink = INKS["muted" if not difference.is_clear else "one" if difference.value > 0 else "two"]
            axes.plot([difference.low, difference.high], [height, height], color=ink, linewidth=1.6)
            axes.plot(difference.value, height, "o", color=ink, markersize=5, gid=f"label{height}")
            titles[f"label{height}"] = f"{row.name}: {difference.value:+.3f}, {verdict(row, place, letters)}"
        axes.set_yticks(range(len(shown)), cut_names((printable(row.name) for row in shown), MOST_LETTERS), fontsize=9)
        axes.set_ylim(-0.7, len(shown) - 0.3)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter(SIGNED)
        axes.set_xlabel(f"AP of {other} minus AP of {first}")
        description = f"AP of {other} minus AP of {first} for {len(shown)} labels. The numbers are in the table of labels."
        return to_svg(figure, f"labels{place}", description, titles)


def ap_against_ap(rows: Sequence[PairedRow], place: int, letters: Sequence[str]) -> Markup:
    """Return the AP of each label with one model against that with the first; above the diagonal, the first model is worse."""
    first, other = letters[0], letters[place + 1]
    titles = {}
    with drawing(460, 360) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=INKS["muted"], linewidth=1, linestyle=(0, (2, 3)))
        for number, row in enumerate(rows):
            difference, x, y = row.differences[place], row.values[0].value, row.values[place + 1].value
            ink = INKS["muted" if not difference.is_clear else "one" if difference.value > 0 else "two"]
            axes.plot(x, y, "o", color=ink, markersize=5, alpha=0.75, markeredgewidth=0, gid=f"ap{number}")
            titles[f"ap{number}"] = f"{row.name}: {first} {x:.3f}, {other} {y:.3f}"
        axes.set_xlim(0, 1.03)
        axes.set_ylim(0, 1.03)
        axes.set_xlabel(f"AP of {first}")
        axes.set_ylabel(f"AP of {other}")
        description = f"AP of each label with {other} against that with {first}. The numbers are in the table of labels."
        return to_svg(figure, f"against{place}", description, titles)


def reliability(curves: Sequence[ReliabilityCurve], letters: Sequence[str]) -> Markup:
    """Return reliability curves: the share present against the marginal, one line per model, for the first few models."""
    with drawing(460, 340) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=INKS["muted"], linewidth=1, linestyle=(0, (2, 3)))
        for curve, letter, ink in zip(curves, letters, SERIES, strict=False):
            filled = curve.pairs_B > 0
            points = curve.mean_marginal_B[filled], curve.present_share_B[filled]
            axes.plot(*points, color=INKS[ink], marker="o", markersize=4.5, label=letter)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("marginal: the predicted probability")
        axes.set_ylabel("share actually present")
        axes.legend(loc="upper left", labelcolor=INKS["muted"], handlelength=1.4)
        listed = ", ".join(f"{letter} {curve.calibration_error:.4f}" for curve, letter in zip(curves, letters, strict=True))
        return to_svg(figure, "reliability", f"Share actually present against the marginal; mean error: {listed}.")
