"""The HTML page of a comparison of systems."""

import math
from typing import Any

from rayprob.files import storage
from rayprob.report.html import fill
from rayprob.runs.paths import SystemsFolder
from rayprob.systems.compare import SystemsCompared
from rayprob.systems.table import SystemRow
from rayprob.systems.words import CAUTION, LEGEND, OF_RUN_FILES, mark
from rayprob.systems.work import WITH_PRIOR
from rayprob.text import counted, listed


def write_page(compared: SystemsCompared) -> str:
    """Write report.html into the folder of the comparison and return its path. Raises StorageError."""
    path = SystemsFolder(compared.folder).report_page
    storage.write_text(path, render(compared))
    return path


def render(compared: SystemsCompared) -> str:
    """Return the whole page."""
    spec = compared.spec
    names = list(dict.fromkeys(name for row in compared.rows for name in row.cells))
    values: dict[str, Any] = {
        "title": f"{compared.name}: rayprob tune",
        "compared": compared,
        "names": [name for name in names if not name.endswith(WITH_PRIOR)],
        "with_prior": [name for name in names if name.endswith(WITH_PRIOR)],
        "plain": lambda name: name.removesuffix(WITH_PRIOR),
        "mark": mark,
        "lead": lead(compared),
        "legend": LEGEND.format(first=compared.rows[0].name, draws=spec.draws),
        "caution": CAUTION if spec.source else OF_RUN_FILES,
        "tried": tried,
        "command": "rayprob tune",
    }
    return fill("systems.html", values)


def lead(compared: SystemsCompared) -> str:
    """Return which systems have another mAP than the first by more than chance."""
    first, *others = compared.rows
    clear = {sign: [row.name for row in others if mark("mAP", row.cells["mAP"]) == sign] for sign in "+-"}
    better, worse = (listed(clear[sign]) or "no system" for sign in "+-")
    have = "have" if len(clear["+"]) > 1 else "has"
    return (
        f"{len(compared.rows)} systems on {compared.num_images:,} images, {counted(compared.spec.seeds, 'seed')} each. "
        f"By more than chance, {better} {have} a higher mAP than {first.name}, and {worse} a lower one."
    )


def tried(row: SystemRow) -> str:
    """Return the holdout mAP of each learning rate."""
    said = {lr: f"{value:.3f}" if math.isfinite(value) else "diverged" for lr, value in row.tried.items()}
    return ", ".join(f"{lr}: {text}" for lr, text in said.items())
