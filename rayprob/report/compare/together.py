"""Aligns tables of predictions on the images and labels that all models have. M images, L labels in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from rayprob.arrays import Bools, Rows
from rayprob.errors import MetricError
from rayprob.labels import columns_by_name
from rayprob.runs.predictions import Predictions
from rayprob.text import first_of

MOST_NAMED = 8  # labels per sentence
MOST_DISAGREEMENT = 0.05  # share of images; above it, equal ids are not the same images


@dataclass(frozen=True, eq=False)
class Together:
    """The positions of the common images and labels in each model's table, the annotations, and notes on what is left out."""

    names: tuple[str, ...]  # of labels, as in the first model
    rows: tuple[Rows, ...]  # [M] of each model
    columns: tuple[Rows, ...]  # [L] of each model
    targets_ML: Bools
    known_ML: Bools
    notes: tuple[str, ...]


def together(tables: Sequence[Predictions], titles: Sequence[str]) -> Together:
    """Match images by sample id and labels by name; `titles` name the models in notes and errors.

    Labels without any annotation are left out. Annotations on which the tables disagree are unknown. Raises MetricError if no
    image or no label is common to all, and if annotations differ so much that the images cannot be the same.
    """
    rows, notes = _rows(tables, titles)
    columns, names, label_notes = _columns(tables, titles)
    targets = [table.targets_NL[np.ix_(*place)] for table, *place in zip(tables, rows, columns, strict=True)]
    known = [table.known_NL[np.ix_(*place)] for table, *place in zip(tables, rows, columns, strict=True)]
    agreed_ML = known[0].copy()
    for title, targets_ML, known_ML in zip(titles[1:], targets[1:], known[1:], strict=True):
        differs_ML = known[0] & known_ML & (targets_ML != targets[0])
        _require_same_images(differs_ML, titles[0], title)
        agreed_ML &= known_ML & ~differs_ML
    num_dropped = int((reduce(np.logical_or, known) & ~agreed_ML).sum())
    if num_dropped:
        notes.append(f"The datasets of the models differ in {num_dropped:,} annotations, which count as unknown.")
    return Together(names, rows, columns, targets[0], agreed_ML, (*notes, *label_notes))


def _rows(tables: Sequence[Predictions], titles: Sequence[str]) -> tuple[tuple[Rows, ...], list[str]]:
    ids_M = reduce(np.intersect1d, [table.sample_ids_N for table in tables])
    if not len(ids_M):
        counted = ", ".join(f"{title} {len(table):,}" for title, table in zip(titles, tables, strict=True))
        raise MetricError(
            f"the models have no image in common (predictions: {counted}); give --data DATASET to evaluate all of them on one "
            "dataset"
        )
    notes = [
        f"Images of {title} left out because another model has no predictions for them: {len(table) - len(ids_M):,} "
        f"of {len(table):,}."
        for title, table in zip(titles, tables, strict=True)
        if len(table) > len(ids_M)
    ]
    orders = [np.argsort(table.sample_ids_N, kind="stable") for table in tables]
    pairs = zip(tables, orders, strict=True)
    return tuple(order[np.searchsorted(table.sample_ids_N, ids_M, sorter=order)] for table, order in pairs), notes


def _columns(tables: Sequence[Predictions], titles: Sequence[str]) -> tuple[tuple[Rows, ...], tuple[str, ...], list[str]]:
    """Return the columns of the common labels in each table, their names, and a note for each model with other labels."""
    spaces = [table.label_space for table in tables]
    matches = [columns_by_name(spaces[0].names, space.names) for space in spaces]
    annotated = [np.asarray(table.known_NL.any(axis=0)) for table in tables]
    common = [
        column
        for column in range(len(spaces[0]))
        if all(column in match and stated_L[match[column]] for match, stated_L in zip(matches, annotated, strict=True))
    ]
    if not common:
        listed = "; ".join(f"{title}: {first_of(space.names, MOST_NAMED)}" for title, space in zip(titles, spaces, strict=True))
        raise MetricError(f"the models have no annotated label in common ({listed}); compare models that share labels")
    columns = tuple(np.array([match[column] for column in common], dtype=np.int64) for match in matches)
    notes = []
    for title, space, kept in zip(titles, spaces, columns, strict=True):
        others = [name for column, name in enumerate(space.names) if column not in set(kept.tolist())]
        if others:
            words = f"Of the {len(space)} labels of {title}, {len(common)} are annotated and known to all models"
            notes.append(f"{words}; left out: {first_of(others, MOST_NAMED)}.")
    return columns, tuple(spaces[0].names[column] for column in common), notes


def _require_same_images(differs_ML: Bools, first: str, other: str) -> None:
    share = float(differs_ML.any(axis=1).mean())
    if share > MOST_DISAGREEMENT:
        raise MetricError(
            f"{share:.0%} of the images that {first} and {other} share by id have different labels: they were evaluated on "
            "different datasets; give --data DATASET to evaluate both on one"
        )
