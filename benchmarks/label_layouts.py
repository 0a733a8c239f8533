"""Which layouts of labels can be sharded: each is written small, built and read back, or refused with its message.

python benchmarks/label_layouts.py      # a table in Markdown: layout, split of the recipe, labels or message
"""

import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.inspect import inspect
from rayprob.errors import RayprobError
from tests.data.sources.layouts import LAYOUTS, PICTURES, Layout


def main() -> None:
    """Print the table, and how many layouts were read."""
    logging.disable(logging.WARNING)
    print("| layout | the split in a recipe | result |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        results = [tried(Path(folder) / str(place), layout) for place, layout in enumerate(LAYOUTS)]
    print(f"\n{sum(results)} of {len(results)} layouts are read, the others refused.")


def tried(folder: Path, layout: Layout) -> bool:
    """Print the line of a layout; return whether it was read."""
    data = folder / "data"
    source = layout.write(data, PICTURES)
    recipe = {"name": "x", "splits": {"train": source}, "holdout": None, "target": str(folder / "built")}
    try:
        build(Recipe.parse(recipe), run_tasks=in_process)
    except RayprobError as error:
        result = f"refused: {error}"
    else:
        (split,) = inspect(str(folder / "built")).splits
        unknown = f", {split.unknown_labels} unknown" if split.unknown_labels else ""
        result = f"{split.samples} images, {split.labels} labels present{unknown}"
    print("|", " | ".join(_short(cell, data).replace("|", "\\|") for cell in (layout.name, f"`{_flow(source)}`", result)), "|")
    return not result.startswith("refused")


def _flow(value: Any) -> str:
    """Return plain data as YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    text = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else str(value)
    return f'"{text}"' if set(text) & set("|;,{}[]") or text in ("", "-1") else text


def _short(text: str, folder: Path) -> str:
    return text.replace(f"{folder}/", "data/").replace(str(folder), "data").replace(str(folder.parent), "shards/x")


if __name__ == "__main__":
    main()
