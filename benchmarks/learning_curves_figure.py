"""The picture of the learning curves: nats, mAP and AP of the other labels over the number of training images."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rayprob.figures import literal, rendered
from rayprob.files import storage

INK, QUIET, RULE = "#1f2933", "#616e7c", "#e4e7eb"
LOOKS = {
    "independent": (INK, "-", "o"),
    "trained mixture": ("#5b8c5a", "-", "s"),
    "prior afterwards, own": ("#2166ac", "--", "v"),
    "prior afterwards, all": ("#2166ac", "-", "v"),
    "prior as start, own": ("#d9902f", "--", "D"),
    "prior as start, all": ("#d9902f", "-", "D"),
}
PANELS = {"NLL": "nats per image", "mAP": "mAP", "AP|1": "AP of the others, 1 known", "AP|3": "AP of the others, 3 known"}
DPI = 100
Results = dict[tuple[int, int, str], dict[str, float]]


def write_figure(results: Results, path: str) -> None:
    """Draw the curves and write them as PNG to a path or URI. Raises StorageError."""
    storage.write_bytes(path, rendered(draw(results), format="png", dpi=DPI, facecolor="white"))


@literal()
def draw(results: Results) -> Figure:
    """Return the figure: a panel per number, a line per system, bars from the lowest to the highest seed."""
    figure = Figure(figsize=(10.5, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2).ravel()
    for axes, (key, name) in zip(panels, PANELS.items(), strict=True):
        for system in LOOKS:
            _line(axes, results, system, key)
        _frame(axes, name, sorted({size for size, _, _ in results}))
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=9, labelcolor=INK, edgecolor="none")
    figure.suptitle("The gain of a label prior: drawn scenes, 80 labels, frozen features", x=0.012, ha="left", color=INK)
    return figure


def _line(axes: Axes, results: Results, system: str, key: str) -> None:
    sizes = sorted({size for size, _, of_system in results if of_system == system})
    values = [[numbers[key] for (of, _, name), numbers in results.items() if (of, name) == (size, system)] for size in sizes]
    means = np.array([np.mean(of_size) for of_size in values])
    reach = np.array([[mean - min(of_size), max(of_size) - mean] for mean, of_size in zip(means, values, strict=True)]).T
    colour, style, marker = LOOKS[system]
    looks = {"color": colour, "linestyle": style, "marker": marker, "markersize": 4.5, "linewidth": 1.6}
    axes.errorbar(sizes, means, reach, capsize=2, label=system, **looks)


def _frame(axes: Axes, name: str, sizes: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_title(name, loc="left", fontsize=10, color=INK)
    axes.set_xlabel("training images", color=QUIET, fontsize=9)
    axes.tick_params(colors=QUIET, labelsize=9)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
