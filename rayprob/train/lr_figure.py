"""The figure of a learning-rate range test: loss against learning rate, with the suggested rate marked."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from rayprob.figures import literal, rendered
from rayprob.files import storage
from rayprob.train.lr_range import LrRange

INK, QUIET, RULE = "#1f2933", "#616e7c", "#e4e7eb"
RAW, SMOOTHED, CHOSEN, OTHER = "#b9cfe4", "#2166ac", "#d9902f", "#616e7c"
DPI = 130


def write_figure(found: LrRange, title: str, path: str) -> None:
    """Draw a range test and write it as PNG to a path or URI. Raises StorageError."""
    storage.write_bytes(path, rendered(draw(found, title), format="png", dpi=DPI, facecolor="white"))


@literal()
def draw(found: LrRange, title: str) -> Figure:
    """Return the figure."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(found.lrs, found.losses, color=RAW, linewidth=1, label="loss of each batch")
    axes.plot(found.lrs, found.smoothed, color=SMOOTHED, linewidth=2.2, label="smoothed, relative to the untrained weights")
    _marks(axes, found)
    _frame(axes, found)
    axes.set_title(title, loc="left", color=INK, fontsize=12)
    return figure


def _marks(axes: Axes, found: LrRange) -> None:
    """Mark three learning rates; the suggestion is a tenth of the lowest, where a short test may have no point."""
    levels = np.interp(np.log([found.suggestion, found.steepest, found.lowest]), np.log(found.lrs), found.smoothed)
    axes.axvline(found.suggestion, color=CHOSEN, linewidth=1.4)
    axes.plot(found.suggestion, levels[0], "o", color=CHOSEN, markersize=9, label=f"suggestion {found.suggestion:.2g}")
    axes.plot(found.steepest, levels[1], "v", color=OTHER, markersize=8, label=f"steepest {found.steepest:.2g}")
    axes.plot(found.lowest, levels[2], "s", color=OTHER, markersize=7, label=f"lowest {found.lowest:.2g}")


def _frame(axes: Axes, found: LrRange) -> None:
    """Set the axes to show the fall: a diverged loss leaves the figure at the top."""
    start, bottom = found.smoothed[0], min(found.smoothed)
    early = [loss for lr, loss in zip(found.lrs, found.losses, strict=True) if lr <= found.lowest]
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(LogFormatter())  # the default one writes formulas
    axes.xaxis.set_minor_formatter(LogFormatter())
    axes.set_ylim(min(bottom, *early) - 0.3 * (start - bottom), max(start + 1.5 * (start - bottom), *early))
    axes.set_xlabel("optimizer.lr", color=QUIET)
    axes.set_ylabel("loss", color=QUIET)
    axes.tick_params(colors=QUIET, labelsize=9)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9, labelcolor=INK, loc="upper left", edgecolor="none", framealpha=0.9)
