"""What `calibrate` shows a person."""

from rich.console import Console
from rich.table import Table

from rayprob.calibrate.calibrate import REPORT_FILE, CalibrationReport
from rayprob.calibrate.comparison import Comparison, SetNumbers
from rayprob.probability.rules import RECALL


def show_calibration(console: Console, folder: str, report: CalibrationReport) -> None:
    """Print before -> after on holdout and val, each rule's label sets, what to know, and what was written."""
    comparisons = [report.holdout, *([report.reported] if report.reported else [])]
    _line(console, f"{report.run}: {report.method} ({report.reason})")
    console.print(_honesty_table(comparisons))
    console.print(_rules_table(comparisons))
    for note in report.notes:
        _line(console, f"note: {note}")
    folder = folder.rstrip("/")
    _line(console, f"written: {folder}/bundle    {folder}/{REPORT_FILE}")
    _line(console, f"next: rayprob predict {folder}/bundle IMAGES... --rule label_OF1    rayprob report {folder}")


def _honesty_table(comparisons: list[Comparison]) -> Table:
    table = _table("marginals, before -> after", comparisons)
    for heading, name in (("ECE", "ECE"), ("adaptive ECE", "adaptive_ECE"), ("Brier", "Brier"), ("NLL an image", "nll_nats")):
        numbers = ((getattr(at.before, name), getattr(at.after, name)) for at in comparisons)
        table.add_row(heading, *(f"{before:.4f} -> {after:.4f}" for before, after in numbers))
    return table


def _rules_table(comparisons: list[Comparison]) -> Table:
    table = _table("label sets: OF1  CF1  missed share  labels an image", comparisons)
    table.add_row("0.5, before", *(_sets(at.before_at_half) for at in comparisons))
    rules = dict.fromkeys(rule for at in comparisons for rule in at.sets)
    for rule in rules:
        table.add_row(rule, *(_sets(at.sets.get(rule)) for at in comparisons))
    for rule in comparisons[0].oracles:
        table.add_row(f"oracle's {rule}", *(_sets(at.oracles[rule]) for at in comparisons), style="dim")
    guaranteed = f"; {RECALL}A: missed share at most A on average" if any(rule.startswith(RECALL) for rule in rules) else ""
    table.caption = (
        f"holdout is cross-fitted, val only reported; the oracle's thresholds are fitted on the very split{guaranteed}"
    )
    return table


def _sets(numbers: SetNumbers | None) -> str:
    if numbers is None:
        return "-"
    return f"{numbers.OF1:.4f}  {numbers.CF1:.4f}  {numbers.missed_share:.3f}  {numbers.labels_per_image:5.1f}"


def _table(title: str, comparisons: list[Comparison]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for at in comparisons:
        table.add_column(f"{at.split} ({at.num_samples:,} images)", justify="right", no_wrap=True)
    return table


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
