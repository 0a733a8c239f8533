"""The HTML page of a comparison."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from rayprob.files import storage
from rayprob.metrics.paired import PairedRow
from rayprob.report.compare import charts, words
from rayprob.report.compare.comparison import ModelComparison
from rayprob.report.compare.words import by_clearness, verdict
from rayprob.report.html import fill
from rayprob.runs.finished import REPORTED
from rayprob.runs.paths import RunFolder

MOST_IN_TILES = 4  # models
NO_PAGES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class WrittenComparison:
    """The path and size of a comparison's page."""

    path: str
    size_bytes: int


@dataclass(frozen=True)
class Versus:
    """One model compared with the first: the summary, label rows with the clearest first, and the charts."""

    place: int
    letter: str
    summary: str
    labels_clear: str
    labels: tuple[PairedRow, ...]
    differences: Markup
    against: Markup


def write_page(comparison: ModelComparison, path: str) -> WrittenComparison:
    """Write the page of a comparison to a path or URI, with links to the models' own pages. Raises StorageError."""
    html = render(comparison, {model.folder: own_page(model.folder, path) for model in comparison.models}).encode()
    storage.write_bytes(path, html)
    return WrittenComparison(path, len(html))


def own_page(folder: str, path: str) -> str:
    """Return the link from a page at `path` to that of the run in a folder; "" if it has none, or is not on the same disk."""
    own = RunFolder(folder).report_page
    if not (storage.is_local(own) and storage.is_local(path) and storage.exists(own)):
        return ""
    return quote(os.path.relpath(storage.local_path(own), storage.local_path(path).parent))


def render(comparison: ModelComparison, own_pages: Mapping[str, str] = NO_PAGES) -> str:
    """Return the whole page; `own_pages` has the links to the models' own pages, by their folders."""
    letters = [model.letter for model in comparison.models]
    values: dict[str, Any] = {
        "comparison": comparison,
        "models": comparison.models,
        "own_pages": own_pages,
        "title": f"{words.heading(comparison)}: rayprob compare",
        "heading": words.heading(comparison),
        "lead": words.lead(comparison),
        "tiles": _tiles(comparison) if len(letters) <= MOST_IN_TILES else [],
        "versus": [_versus(comparison, place, letters) for place in range(len(letters) - 1)],
        "verdict": lambda row, place: verdict(row, place, letters),
        "figure": figure,
        "signed": lambda value: f"{value:+.4f}",
        "p_words": words.p_words,
        "reliability": charts.reliability(comparison.reliability, letters),
        "capitalized": words.capitalized,
        "legend": words.LEGEND.format(draws=comparison.paired.draws),
        "caution": words.CAUTION,
        "most_labels": charts.MOST_LABELS,
        "command": command(comparison),
    }
    return fill("compare.html", values)


def command(comparison: ModelComparison) -> str:
    """Return the command that repeats this comparison."""
    folders = [shlex.quote(model.folder) for model in comparison.models]
    split = ["--split", shlex.quote(comparison.split)] if comparison.split != REPORTED else []
    data = ["--data", shlex.quote(comparison.data)] if comparison.data else []
    return " ".join(["rayprob compare", *folders, *split, *data])


def figure(value: float) -> str:
    """Return a number with enough digits to show small differences."""
    return f"{value:.4f}"


def _tiles(comparison: ModelComparison) -> list[PairedRow]:
    rows = {row.name: row for row in comparison.paired.numbers}
    of1 = rows.get("OF1 tuned", rows["OF1 at 0.5"])
    return [rows["mAP"], of1, rows["ECE"], rows["NLL"]]


def _versus(comparison: ModelComparison, place: int, letters: list[str]) -> Versus:
    ranked = by_clearness(comparison.paired.labels, place)
    return Versus(
        place=place,
        letter=letters[place + 1],
        summary=words.summary(comparison, place),
        labels_clear=words.labels_clear(comparison, place),
        labels=tuple(ranked),
        differences=charts.label_differences(ranked, place, letters),
        against=charts.ap_against_ap(ranked, place, letters),
    )
