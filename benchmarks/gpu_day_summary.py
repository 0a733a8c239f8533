"""The summary of a GPU day: mean and spread over seeds next to the paper's numbers, intervals, systems, data, and times."""

import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu_day_steps import Ledger

from rayprob.data.manifest.dataset import Dataset
from rayprob.runs.paths import SystemsFolder
from rayprob.train.assess import NUMBERS, PAPER

RULES = {"at_half": "at 0.5", "tuned": "calibrated, one threshold per label"}
OVER_SEEDS = (
    "Mean and standard deviation over seeds, on val. In CP, the precision of a label that is never predicted is 0; in that of "
    "the paper, as its value implies, it is 1."
)
JUDGED = ("mAP", "OF1", "CF1", "NLL", "ECE", "AP given 3")
REHEARSED = "**A rehearsal on drawn scenes with a tiny network: its numbers mean nothing.**"
NOT_A_CARD = (
    "This is a summary, and not a model card: it has data, labels and numbers; what the models are for and where they fail "
    "remains to be written."
)


def write_summary(out: Path, shards: Path, ledger: Ledger, *, is_rehearsal: bool) -> Path:
    """Write summary.json and summary.md into `out` from the results that are there, and return the path of the latter."""
    dataset = Dataset.open(str(shards))
    facts: dict[str, Any] = {
        "is_rehearsal": is_rehearsal,
        "data": {"root": str(shards), "images": dict(dataset.splits), "labels": list(dataset.label_space.names)},
        "paper": asdict(PAPER),
        "recipes": recipes(out / "evaluations"),
        "judged": {part: judged(out / part) for part in ("paper", "systems")},
        "seconds": {name: step["seconds"] for name, step in ledger.done.items()},
        "pages": sorted(str(path.relative_to(out)) for path in out.rglob("*.html")),
    }
    (out / "summary.json").write_text(json.dumps(facts, indent=1))
    path = out / "summary.md"
    path.write_text(markdown(facts))
    return path


def recipes(folder: Path) -> dict[str, Any]:
    """Return for each run file and rule the mean, the spread and the values over seeds, from the evaluations of its runs."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        by_name.setdefault(path.stem.rpartition("-")[0], []).append(json.loads(path.read_text()))
    return {
        name: {rule: {number: over_seeds([run[rule][number] for run in runs]) for number in NUMBERS} for rule in RULES}
        for name, runs in by_name.items()
    }


def over_seeds(values: list[float]) -> dict[str, Any]:
    """Return the mean and the sample standard deviation, None for a single value."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "spread": spread, "values": values}


def judged(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a finished comparison of systems, without what it says of each learning rate."""
    results = Path(SystemsFolder(str(folder)).results)
    if not results.exists():
        return []
    kept = ("name", "description", "lr", "parameters", "images_per_s", "pretrained", "cells")
    return [{key: row[key] for key in kept} for row in json.loads(results.read_text())["rows"]]


def markdown(facts: dict[str, Any]) -> str:
    """Return the summary as a page of Markdown."""
    parts = [
        "# COCO-2014: what was trained",
        REHEARSED if facts["is_rehearsal"] else "",
        NOT_A_CARD,
        *data_lines(facts["data"]),
    ]
    parts += ["## Next to the paper", OVER_SEEDS, paper_table(facts)]
    for part, title in (("paper", "## The two recipes, with intervals"), ("systems", "## Systems, end to end")):
        if rows := facts["judged"][part]:
            words = "Mean over seeds, and in parentheses the 95 % interval over images and seeds; calibrated on holdout."
            parts += [title, words, judged_table(rows)]
    parts += ["## Pages", "\n".join(f"- [{page}]({page})" for page in facts["pages"])]
    times = [(name, f"{seconds / 60:,.1f}") for name, seconds in facts["seconds"].items()]
    return "\n\n".join(part for part in [*parts, "## Minutes per step", table(("step", "minutes"), times)] if part) + "\n"


def data_lines(data: dict[str, Any]) -> list[str]:
    """Return the paragraphs about the dataset."""
    images = ", ".join(f"{split} {count:,}" for split, count in data["images"].items())
    choices = (
        "Checkpoints, thresholds and calibration were chosen on holdout, which is part of COCO's train; val is only reported."
    )
    return ["## Data", f"Images: {images}. {choices}", f"{len(data['labels'])} labels: {', '.join(data['labels'])}."]


def paper_table(facts: dict[str, Any]) -> str:
    """Return the seven numbers of each recipe by both rules, above the paper's."""
    rows = [
        (f"{name}, {words}", *(in_words(numbers[rule][number]) for number in NUMBERS))
        for name, numbers in facts["recipes"].items()
        for rule, words in RULES.items()
    ]
    paper = ("the paper, at 0.5", *(f"{facts['paper'][number]:.3f}" for number in NUMBERS))
    return table(("label sets", *NUMBERS), [*rows, paper])


def in_words(found: dict[str, Any]) -> str:
    """Return a mean with its spread."""
    return f"{found['mean']:.3f}" + (f" ± {found['spread']:.3f}" if found["spread"] is not None else "")


def judged_table(rows: list[dict[str, Any]]) -> str:
    """Return a line per system, with what it was pretrained on."""
    cells = [
        (row["name"], *(interval(row["cells"].get(name)) for name in JUDGED), f"{row['parameters']:,}", row["pretrained"])
        for row in rows
    ]
    return table(("system", *JUDGED, "parameters", "pretrained on"), cells)


def interval(cell: dict[str, Any] | None) -> str:
    """Return a number with its interval; a system may lack a number."""
    return f"{cell['value']:.3f} ({cell['low']:.3f} to {cell['high']:.3f})" if cell else "-"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
