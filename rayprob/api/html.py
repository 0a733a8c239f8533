"""An answer as HTML for notebooks: bars next to the image. Names are untrusted, so everything is escaped (Jinja2 autoescape).

One element with its own styles, no script, no network. Text and lines use the notebook's colour, so dark themes work.
"""

from functools import cache
from pathlib import Path, PurePosixPath

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from rayprob.errors import RayprobError
from rayprob.predict.record import LabelLine, Record
from rayprob.report.run.thumbnails import shrunk
from rayprob.text import printable

CHOSEN, OTHER, KNOWN = "#3f8fd2", "#8a97a6", "#d9902f"  # at least 3:1 against white and against a dark notebook
MOST_SETS = 3


def answer_html(record: Record) -> str:
    """Return one element that shows an answer."""
    lines = [(line, _colour(line, record), _mark(line, record)) for line in record.labels]
    name = printable(PurePosixPath(record.image.name).name)
    sets = (record.top_sets or ())[:MOST_SETS]
    return _template().render(record=record, name=name, lines=lines, sets=sets, picture=_picture(record))


@cache
def _template() -> Template:
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("answer.html")


def _picture(record: Record) -> str | None:
    """Return the image of a prediction as a small data URI; None if it no longer exists."""
    try:
        return shrunk(record.image.decode(record.reading).pixels_HWC)
    except RayprobError:
        return None


def _colour(line: LabelLine, record: Record) -> str:
    if line.label in record.evidence:
        return KNOWN
    return CHOSEN if line.label in record.label_set else OTHER


def _mark(line: LabelLine, record: Record) -> str:
    if line.label in record.evidence:
        return "known" if record.evidence[line.label] else "known to be absent"
    return "in the set" if line.label in record.label_set else ""
