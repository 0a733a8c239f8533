"""`rayprob report`: a run's folder becomes one page. Read, judge, draw, write."""

from dataclasses import dataclass

from rayprob.files import storage
from rayprob.report.run.facts import gather
from rayprob.report.run.files import Note, open_run_files
from rayprob.report.run.page import render
from rayprob.runs.paths import RunFolder


@dataclass(frozen=True)
class WrittenPage:
    """The path of the page, its split, and notes on what is missing."""

    path: str
    split: str
    num_samples: int
    size_bytes: int
    notes: tuple[Note, ...]


def report(folder: str, split: str | None = None, out: str | None = None) -> WrittenPage:
    """Write the page of a run's folder, by default to report.html in it.

    `split` None means val, or holdout if there are no predictions of val. Raises RunError if the folder is not a
    run's or has no predictions, MetricError if no label of the split has a positive.
    """
    facts = gather(open_run_files(folder, split))
    html = render(facts).encode()
    path = out or RunFolder(folder).report_page
    storage.write_bytes(path, html)
    return WrittenPage(path, facts.files.split, len(facts.files.predictions), len(html), facts.notes)
