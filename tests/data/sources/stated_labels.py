"""What a source states, by the names of labels, as the notes of ../shared/formats have it."""

from typing import Any, NamedTuple

from rayprob.data.building.recipe import Recipe
from rayprob.data.sources import formats
from rayprob.data.sources.rows import Stated, rows_of


class Labels(NamedTuple):
    """The labels of one image: present, absent where the source says so, unknown where it says so."""

    present: set[str]
    absent: set[str]
    unknown: set[str]


def read(**source: Any) -> Stated:
    """Read a split as a recipe gives it."""
    recipe = Recipe.parse({"name": "x", "splits": {"train": source}, "holdout": None})
    return formats.read(recipe.splits["train"])


def labels_of(stated: Stated) -> dict[str, Labels]:
    """Return the labels of each image by its key."""
    names = stated.label_space.names
    return {
        row.key: Labels(*({names[column] for column in some} for some in (row.labels, row.absent_labels, row.unknown_labels)))
        for row in rows_of(stated.batches)
    }


def present_in(**source: Any) -> dict[str, set[str]]:
    """Return the labels present in each image by its key."""
    return {key: labels.present for key, labels in labels_of(read(**source)).items()}
