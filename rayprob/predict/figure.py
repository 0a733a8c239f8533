"""`--figure DIR`: one PNG per image, with the image on the left and bars for its marginals and answers on the right."""

from collections.abc import Iterable
from pathlib import PurePosixPath

import cv2
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from rayprob.arrays import Pixels
from rayprob.figures import literal, rendered
from rayprob.files import storage
from rayprob.predict.figure_files import MARK, mark_of
from rayprob.predict.figure_maps import draw_maps, maps_height
from rayprob.predict.record import LabelLine, Record
from rayprob.text import cut_names, printable, wrapped

INK, QUIET, RULE = "#1f2933", "#616e7c", "#e4e7eb"
CHOSEN, OTHER, KNOWN, ANSWER = "#2166ac", "#b9cfe4", "#d9902f", "#5b8c5a"
SMALL = 8.5
MOST_LABELS = 12
HEADLINE_CELLS, TEXT_CELLS, QUERY_CELLS, LABEL_CELLS = 105, 88, 27, 30
MOST_LINES = 6  # per text
MOST_SETS = 3
SHOWN_PX = 900
DPI = 130
ROW_INCHES, LEAST_INCHES, WIDTH_INCHES, GAP_INCHES = 0.29, 4.2, 11, 0.3


def write_figure(record: Record, path: str) -> None:
    """Draw an image next to its predictions and write the figure to a path or URI. Raises StorageError."""
    figure = draw(record, _shown(record.image.decode(record.reading).pixels_HWC))
    about = {MARK: mark_of(record.image)}
    storage.write_bytes(path, rendered(figure, format="png", dpi=DPI, facecolor="white", metadata=about))


@literal()
def draw(record: Record, pixels: Pixels) -> Figure:
    """Return the figure of an image and its predictions."""
    num_labels, num_answers = len(_listed(record)), len(record.answers)
    rows = num_labels + (num_answers + 1.6 if num_answers else 0)
    headline = wrapped(_listing(record.label_set) or "no label", HEADLINE_CELLS, MOST_LINES)
    height_inches = max(LEAST_INCHES, rows * ROW_INCHES + 1.2) + 0.3 * len(headline)
    explained = record.explanations or ()
    maps_inches = maps_height(pixels, len(explained), WIDTH_INCHES) if explained else 0.0
    all_inches = height_inches + (GAP_INCHES + maps_inches if explained else 0.0)
    figure = Figure(
        figsize=(WIDTH_INCHES, all_inches),
        layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08, wspace=0.03),
    )
    FigureCanvasAgg(figure)
    left_share = min(1.0, max(0.72, 0.8 * pixels.shape[1] / pixels.shape[0]))
    above: Figure | SubFigure = figure
    if explained:
        ratios = (height_inches, GAP_INCHES, maps_inches)
        above, _, below = figure.subfigures(3, 1, height_ratios=ratios, squeeze=False)[:, 0]
        draw_maps(below, pixels, explained)
    left, right = above.subfigures(1, 2, width_ratios=(left_share, 1.12), squeeze=False)[0]
    _image(left.subplots(), pixels, record)
    if num_answers:
        labels, answers = right.subplots(2, 1, height_ratios=(num_labels, num_answers + 0.3))
        _answers(answers, record)
    else:
        labels = right.subplots()
    _labels(labels, record)
    figure.suptitle("\n".join(headline), x=0.012, ha="left", color=INK, fontsize=14)
    return figure


def _image(axes: Axes, pixels: Pixels, record: Record) -> None:
    axes.imshow(pixels)
    axes.set_axis_off()
    axes.set_anchor("NW")
    name = printable(PurePosixPath(record.image.name).name)
    axes.set_title("\n".join(wrapped(name, TEXT_CELLS, MOST_LINES)), loc="left", fontsize=SMALL, color=QUIET)
    below = [line for text in _facts(record) for line in _indented(text)]
    text = axes.text(0, -0.02, "\n".join(below), transform=axes.transAxes, va="top", fontsize=SMALL, color=QUIET)
    text.set_linespacing(1.45)


def _labels(axes: Axes, record: Record) -> None:
    lines = _listed(record)
    places = range(len(lines))
    axes.barh(places, [line.marginal for line in lines], color=[_colour(line.label, record) for line in lines], height=0.72)
    ranges = {doubt.label: doubt for doubt in record.uncertainty.labels} if record.uncertainty else {}
    for place, line in enumerate(lines):
        known, end = line.label in record.evidence, line.marginal
        if line.without_evidence is not None and not known:
            end = max(end, line.without_evidence)
            axes.plot([line.without_evidence] * 2, [place - 0.36, place + 0.36], color=INK, linewidth=1.6)
        if line.label in ranges and not known:
            doubt = ranges[line.label]
            axes.plot([doubt.lowest, doubt.highest], [place] * 2, color=INK, linewidth=1.1, alpha=0.75)
            end = max(end, doubt.highest)
        _value(axes, place, end, f"{line.marginal:.2f}" + ("  known" if known else ""))
    _rows(axes, cut_names([printable(line.label) for line in lines], LABEL_CELLS))
    axes.set_title(_caption(record), loc="left", fontsize=SMALL, color=QUIET, linespacing=1.4)


def _listed(record: Record) -> list[LabelLine]:
    """Return the lines of the labels to draw: the most probable ones and the evidence."""
    spare = MOST_LABELS - len(record.evidence)
    others = [line.label for line in record.labels if line.label not in record.evidence][: max(spare, 1)]
    return [line for line in record.labels if line.label in record.evidence or line.label in others]


def _answers(axes: Axes, record: Record) -> None:
    places = range(len(record.answers))
    axes.barh(places, [answer.probability or 0.0 for answer in record.answers], color=ANSWER, height=0.72)
    for place, answer in enumerate(record.answers):
        text = "no answer" if answer.probability is None else f"{answer.probability:.3g}"
        _value(axes, place, answer.probability or 0.0, text)
    _rows(axes, ["\n".join(wrapped(printable(answer.query), QUERY_CELLS, 2)) for answer in record.answers])
    known = f", given {_evidence(record)}" if record.evidence else ""
    title = wrapped(f"answers{known}", TEXT_CELLS, MOST_LINES)
    axes.set_title("\n".join(title), loc="left", fontsize=SMALL, color=QUIET)


def _rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=9.5, color=INK)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.set_xlim(0, 1.13)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"], fontsize=8, color=QUIET)
    axes.tick_params(length=0)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _value(axes: Axes, place: int, probability: float, text: str) -> None:
    axes.text(probability + 0.012, place, text, va="center", fontsize=SMALL, color=QUIET)


def _colour(label: str, record: Record) -> str:
    if label in record.evidence:
        return KNOWN
    return CHOSEN if label in record.label_set else OTHER


def _facts(record: Record) -> list[str]:
    """Return the text below the image: the rule and its guarantee, the most probable sets and the uncertainty."""
    lines = [f"label set by {record.rule}" + (f": {record.guarantee}" if record.guarantee else "")]
    if record.top_sets:
        lines.append("most probable label sets:")
        lines += [f"{line.probability:.3f}  {{{_listing(line.labels)}}}" for line in record.top_sets[:MOST_SETS]]
    lines.append(f"entropy {record.entropy_nats:.2f} nats")
    if record.uncertainty:
        doubt = record.uncertainty
        lines.append(f"{doubt.members} members: {doubt.epistemic_nats:.2f} of {doubt.total_nats:.2f} nats are disagreement")
    return lines


def _caption(record: Record) -> str:
    marks = ["tick: without the evidence"] if record.evidence else []
    marks += [f"line: range of {record.uncertainty.members} members"] if record.uncertainty else []
    return "\n".join(["P(label present); dark: in the label set", *marks])


def _evidence(record: Record) -> str:
    return _listing(label if is_present else f"!{label}" for label, is_present in record.evidence.items())


def _listing(labels: Iterable[str]) -> str:
    return ", ".join(cut_names(map(printable, labels), HEADLINE_CELLS))


def _indented(text: str) -> list[str]:
    first, *others = wrapped(text, TEXT_CELLS, MOST_LINES)
    return [first, *(f"    {line}" for line in others)]


def _shown(pixels: Pixels) -> Pixels:
    scale = SHOWN_PX / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    height_px, width_px = (max(1, round(side * scale)) for side in pixels.shape[:2])
    shrunk: Pixels = cv2.resize(pixels, (width_px, height_px), interpolation=cv2.INTER_AREA)
    return shrunk
