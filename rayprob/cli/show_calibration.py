"""The output of `calibrate`."""

from collections.abc import Sequence

from rich.console import Console

from rayprob.calibrate.comparison import Comparison, SetNumbers
from rayprob.calibrate.fitting import CalibrationReport
from rayprob.cli.table import Table, show_table
from rayprob.cli.terminal import show_line
from rayprob.runs.paths import RunFolder

LEGEND = (
    "missed: the share of an image's annotated labels that its set lacks, averaged over images with such a label; recall@A "
    "keeps it at most A on average; labels: the mean set size. "
    "Numbers on holdout are cross-fitted, val is only reported, and the oracle's thresholds are fitted on the split itself."
)


def show_calibration(console: Console, folder: str, report: CalibrationReport) -> None:
    """Print before -> after on holdout and val, each rule's label sets, notes, and the files written."""
    comparisons = [report.holdout, *([report.reported] if report.reported else [])]
    show_line(console, f"{report.run}, calibrated by {report.reason}")
    show_table(console, _honesty_table(comparisons))
    show_table(console, _rules_table(comparisons))
    show_line(console, LEGEND, "dim")
    for note in report.notes:
        show_line(console, f"note: {note}")
    paths = RunFolder(folder.rstrip("/"))
    show_line(console, f"written: {paths.bundle}    {paths.calibration}")
    show_line(console, f"next: rayprob predict {paths.bundle} IMAGES... --rule label_OF1    rayprob report {paths.folder}")


def _honesty_table(comparisons: list[Comparison]) -> Table:
    table = plain_table("marginals, before -> after", [f"{at.split} ({at.num_samples:,} images)" for at in comparisons])
    for heading, name in (("ECE", "ECE"), ("adaptive ECE", "adaptive_ECE"), ("Brier", "Brier"), ("NLL per image", "nll_nats")):
        numbers = ((getattr(at.before, name), getattr(at.after, name)) for at in comparisons)
        table.row(heading, *(f"{before:.4f} -> {after:.4f}" for before, after in numbers))
    return table


def _rules_table(comparisons: list[Comparison]) -> Table:
    table = plain_table(
        "label sets", [(at.split, heading) for at in comparisons for heading in ("OF1", "CF1", "missed", "labels")]
    )
    _add(table, "0.5, before", [at.before_at_half for at in comparisons])
    rules = dict.fromkeys(rule for at in comparisons for rule in at.sets)
    for rule in rules:
        _add(table, rule, [at.sets.get(rule) for at in comparisons])
    for rule in comparisons[0].oracles:
        _add(table, f"oracle's {rule}", [at.oracles[rule] for at in comparisons], style="dim")
    return table


def _add(table: Table, rule: str, numbers: list[SetNumbers | None], style: str = "") -> None:
    cells: list[str] = []
    for at in numbers:
        cells += [f"{at.OF1:.3f}", f"{at.CF1:.3f}", f"{at.missed_share:.3f}", f"{at.labels_per_image:.1f}"] if at else ["-"] * 4
    table.row(rule, *cells, style=style)


def plain_table(title: str, headings: Sequence[str | tuple[str, ...]]) -> Table:
    """Return a table whose first column contains names and has no heading, and whose other columns contain numbers."""
    table = Table(title, padding=1)
    table.name()
    table.number(*headings)
    return table
