"""Every layout is sharded with the labels that it was written with, or refused with what to do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import SourceError
from tests.data.sources.layouts import LAYOUTS, PICTURES, Layout
from tests.data.sources.test_same_labels import NAMES


def recipe_of(folder: Path, source: dict[str, Any]) -> Recipe:
    return Recipe.parse({"name": "x", "splits": {"train": source}, "holdout": None, "target": str(folder / "built")})


@pytest.mark.parametrize("layout", [one for one in LAYOUTS if not one.refused], ids=lambda one: one.name)
def test_a_layout_is_sharded_with_its_labels(tmp_path: Path, layout: Layout) -> None:
    build(recipe_of(tmp_path, layout.write(tmp_path / "data", PICTURES)), run_tasks=in_process)
    manifest = Dataset.open(str(tmp_path / "built")).split("train")
    names, targets_NL, known_NL = manifest.label_space.names, manifest.targets(), manifest.known()
    assert set(names) == set(NAMES)
    assert len(manifest) == len(PICTURES)
    found = sorted(sorted(names[column] for column in np.flatnonzero(row)) for row in targets_NL)
    assert found == sorted(sorted(labels) for _, labels in PICTURES.values())
    assert np.array_equal(known_NL, targets_NL if layout.unknown else np.ones_like(targets_NL))


@pytest.mark.parametrize("layout", [one for one in LAYOUTS if one.refused], ids=lambda one: one.name)
def test_a_layout_is_refused_with_what_to_do(tmp_path: Path, layout: Layout) -> None:
    with pytest.raises(SourceError) as caught:
        build(recipe_of(tmp_path, layout.write(tmp_path / "data", PICTURES)), run_tasks=in_process)
    assert layout.refused in str(caught.value)


def test_there_are_at_least_thirty_one_layouts_and_twenty_eight_are_read() -> None:
    assert len(LAYOUTS) >= 31
    assert sum(not layout.refused for layout in LAYOUTS) >= 28
