"""The output of `compare`: what is compared, the numbers with their differences, and the labels that differ most."""

from collections.abc import Sequence

from rich.console import Console

from rayprob.cli.table import Table, show_table
from rayprob.cli.terminal import show_line, status
from rayprob.metrics.paired import PairedRow
from rayprob.report.compare.comparison import ModelComparison, compare, open_models
from rayprob.report.compare.page import WrittenComparison, write_page
from rayprob.report.compare.words import CAUTION, LEGEND, by_clearness, labels_clear, p_words, verdict

LEAST_LABELS, MOST_LABELS = 3, 10


def show_comparison(console: Console, comparison: ModelComparison) -> None:
    """Print each model's numbers compared with those of the first, and the labels with the clearest differences."""
    of = f" of {comparison.data}" if comparison.data else ""
    paired = comparison.paired
    show_line(console, f"{comparison.split}{of}: {paired.num_images:,} images, {comparison.num_labels:,} labels", "italic")
    for model in comparison.models:
        calibrated = f"calibrated ({model.calibration})" if model.calibration else "not calibrated"
        show_line(console, f"{model.letter}: {model.folder}, {calibrated}")
    for note in comparison.notes:
        show_line(console, f"note: {note}")
    letters = [model.letter for model in comparison.models]
    for place in range(len(letters) - 1):
        title = f"{letters[place + 1]} compared with {letters[0]}"
        show_table(console, _table(title, paired.numbers, place, letters))
        ranked = by_clearness(paired.labels, place)
        num_clear = sum(row.differences[place].is_clear for row in ranked)
        is_tested = bool(ranked) and ranked[0].differences[place].p_value is not None
        first = "the clearest" if is_tested else "the largest differences"
        show_line(console, f"{labels_clear(comparison, place)}; {first}:")
        show_table(console, _table("", ranked[: max(LEAST_LABELS, min(num_clear, MOST_LABELS))], place, letters))
    show_line(console, LEGEND.format(draws=paired.draws), "dim")
    show_line(console, CAUTION, "dim")


def _table(title: str, rows: Sequence[PairedRow], place: int, letters: Sequence[str]) -> Table:
    first, other = letters[0], letters[place + 1]
    table = Table(title, padding=1)
    table.name()
    table.number(first, other, f"{other} - {first}", "from", "to", "p")
    table.word()
    for row in rows:
        difference = row.differences[place]
        values = (f"{row.values[at].value:.4f}" for at in (0, place + 1))
        ends = (f"{end:+.4f}" for end in (difference.value, difference.low, difference.high))
        style = "" if difference.is_clear else "dim"
        table.row(row.name, *values, *ends, p_words(difference.p_value), verdict(row, place, letters), style=style)
    return table


def compared(
    console: Console, folders: Sequence[str], split: str, data: str | None, page: str | None, *, draws: int, seed: int
) -> tuple[ModelComparison, WrittenComparison | None]:
    """Compare runs while the console shows what is done; return the comparison, and its page if there is a path for one."""
    with status(console, "opening the runs") as say:
        opened = open_models(
            folders, split, data, lambda folder, done, total: say(f"predicting {split} with {folder}: {done:,} of {total:,}")
        )
        say(f"drawing {draws:,} times from the images")
        comparison = compare(opened, split, data, draws=draws, seed=seed)
        say("drawing the page")
        return comparison, write_page(comparison, page) if page else None


def show_written(console: Console, written: WrittenComparison) -> None:
    """Print the path of a comparison's page."""
    show_line(console, f"{written.path}: {written.size_bytes / 1e6:.1f} MB")
