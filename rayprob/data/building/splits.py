"""Which image is in which split: a pure function of the images and the recipe. N images of a source.

By hash and by lists of names, an image keeps its split whatever is added. By stratification it does not, unless the images that
have a split already are given as `assigned`.
"""

import logging
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil

import numpy as np

from rayprob.arrays import Ints, Rows
from rayprob.data.building.name_lists import place_in_lists
from rayprob.data.building.recipe import HOLDOUT, Divide, Holdout, Recipe
from rayprob.data.building.stratify import stratify
from rayprob.data.building.units import FREE, followed
from rayprob.data.manifest.columns import Ragged
from rayprob.data.sources.image import SourceImages
from rayprob.data.sources.rows import ALONE
from rayprob.errors import SourceError
from rayprob.seeds import derive_all
from rayprob.text import counted, first_of

log = logging.getLogger(__name__)
NOTHING: Mapping[str, Ints] = {}


@dataclass(frozen=True, eq=False)
class Members:
    """The images of a source as far as splits go by them. Images of one unit id stay in one split."""

    ids_N: Ints
    unit_ids_N: Ints
    labels: Callable[[], Ragged]  # read when they are asked for
    label_names: Sequence[str]

    @classmethod
    def of(cls, images: SourceImages, label_names: Sequence[str]) -> "Members":
        """Return the ids of images, and what reads their labels."""
        ids_N, groups_N = images.ids_N, images.groups_N
        unit_ids_N = ids_N if groups_N is None else np.where(groups_N != ALONE, groups_N, ids_N)
        return cls(ids_N, unit_ids_N, lambda: images.labels, label_names)

    def take(self, rows: Rows) -> "Members":
        """Return some of the images."""
        return Members(self.ids_N[rows], self.unit_ids_N[rows], lambda: self.labels().take(rows), self.label_names)


@dataclass(frozen=True)
class Subsets:
    """What images are divided into: named subsets, their fractions, and how."""

    names: Sequence[str]
    fractions: Sequence[float]
    by: str
    salt: str  # of the hash


def split_rows(
    source: str,
    images: SourceImages,
    recipe: Recipe,
    label_names: Sequence[str] = (),
    assigned: Mapping[str, Ints] = NOTHING,
) -> dict[str, Rows]:
    """Return the rows of the images of `source` that are in each split.

    `assigned` has by split the ids of samples and groups that an earlier version of the dataset has there: they stay, and new
    images of the groups follow them. Raises SourceError if a split would be empty, and for lists of names that do not fit.
    """
    divide, holdout = recipe.divide, recipe.holdout
    if not (divide and divide.of == source) and not (holdout and holdout.of == source):
        return {source: np.arange(len(images))}
    members = Members.of(images, label_names)
    pieces = {source: np.arange(len(images))}
    if divide and divide.of == source:
        pieces = _divided(divide, images, members, _before_holdout(assigned, holdout))
    if holdout and (rows := pieces.get(holdout.of)) is not None:
        held = _with_holdout(holdout, members.take(rows), assigned)
        both = {name: rows[places] for name, places in held.items()}
        parts = [both if name == holdout.of else {name: some} for name, some in pieces.items()]
        pieces = dict(ChainMap(*reversed(parts)))
    return pieces


def by_hash(unit_ids_N: Ints, fractions: Sequence[float], salt: str) -> Ints:
    """Return the subset of each unit by a hash of its id alone; a smaller first fraction is a subset of a larger one."""
    # Integers, because comparing an array of them with a float would round them to 53 bits.
    bounds = np.array([ceil(bound * 2**63) for bound in [*accumulate(fractions)][:-1]], np.uint64)
    return np.searchsorted(bounds, derive_all(0, salt, last=unit_ids_N).astype(np.uint64), side="right")


def check_groups(images: Mapping[str, SourceImages], rows: Mapping[str, Mapping[str, Rows]]) -> None:
    """Raise SourceError if two splits have images of one group; `rows` has those of each split by source."""
    pieces = [(split, source, some) for source, splits in rows.items() for split, some in splits.items()]
    groups_of = {source: members.groups_N for source, members in images.items()}
    if all(groups_N is None for groups_N in groups_of.values()):
        return
    groups = [(groups_of[source], some) for _, source, some in pieces]
    groups_M = np.concatenate([np.full(len(some), ALONE) if one_N is None else one_N[some] for one_N, some in groups])
    piece_M = np.repeat(np.arange(len(pieces)), [len(some) for *_, some in pieces])
    row_M = np.concatenate([some for *_, some in pieces])
    order = np.lexsort((piece_M, groups_M))
    before, after = order[:-1], order[1:]
    torn = (groups_M[before] == groups_M[after]) & (piece_M[before] != piece_M[after]) & (groups_M[before] != ALONE)
    examples = [
        " and ".join(f"{images[pieces[piece_M[m]][1]][row_M[m]].file_name} ({pieces[piece_M[m]][0]})" for m in pair)
        for pair in zip(before[torn][:3], after[torn][:3], strict=True)
    ]
    if examples:
        raise SourceError(
            f"{len(np.unique(groups_M[before][torn])):,} groups have images in two splits: {'; '.join(examples)}; give splits "
            "that keep each group whole, let divide make them, or remove `group`"
        )


def check_new_of_groups(split: str, images: SourceImages, rows: Rows, assigned: Mapping[str, Ints]) -> None:
    """Raise SourceError if some images that become samples of a split are of groups that have samples in another split.

    `assigned` is that of `split_rows`: it also has the groups of samples that the source has lost.
    """
    if images.groups_N is None:
        return
    rows = rows[images.groups_N[rows] != ALONE]
    for other in (name for name in assigned if name != split):
        torn = rows[np.isin(images.groups_N[rows], assigned[other])]
        if len(torn):
            raise SourceError(
                f"{counted(len(torn), 'new image')} of {split}, such as {images[int(torn[0])].file_name}, are of groups with "
                f"samples in {other}; put them into that split, or leave them out"
            )


def _before_holdout(assigned: Mapping[str, Ints], holdout: Holdout | None) -> Mapping[str, Ints]:
    """Return the samples of each split as it was before holdout was taken from one."""
    if not holdout or HOLDOUT not in assigned:
        return assigned
    both = [assigned[name] for name in (holdout.of, HOLDOUT) if name in assigned]
    return {**assigned, holdout.of: np.concatenate(both)}


def _divided(divide: Divide, images: SourceImages, members: Members, assigned: Mapping[str, Ints]) -> dict[str, Rows]:
    places_N = _given(members.ids_N, list(divide.into), assigned)
    lists = {place: into for place, into in enumerate(divide.into.values()) if isinstance(into, str)}
    if lists:
        places_N = np.where(places_N == FREE, place_in_lists(lists, images, divide.of), places_N)
    fractions = {name: into for name, into in divide.into.items() if not isinstance(into, str)}
    unlisted = np.flatnonzero(~np.isin(places_N, list(lists)))
    pieces = {name: np.flatnonzero(places_N == place) for place, name in enumerate(divide.into)}
    if fractions:
        subsets = Subsets(list(fractions), list(fractions.values()), divide.by, "divide")
        pieces |= {name: unlisted[rows] for name, rows in _dealt(subsets, members.take(unlisted), assigned).items()}
    if empty := [name for name, rows in pieces.items() if not len(rows) and name not in assigned]:
        raise SourceError(
            f"divide leaves no image of {divide.of} in {empty[0]}: "
            f"{', '.join(f'{name} {len(rows):,}' for name, rows in pieces.items())}; change divide.into"
        )
    return pieces


def _with_holdout(holdout: Holdout, members: Members, assigned: Mapping[str, Ints]) -> dict[str, Rows]:
    subsets = Subsets([HOLDOUT, holdout.of], [holdout.fraction, 1 - holdout.fraction], holdout.by, HOLDOUT)
    dealt = _dealt(subsets, members, assigned)
    held, rest = dealt[HOLDOUT], dealt[holdout.of]
    if (not len(held) or not len(rest)) and HOLDOUT not in assigned:
        raise SourceError(
            f"a holdout of {holdout.fraction:.3g} leaves {len(rest)} of the {len(members.ids_N)} images in {holdout.of} and "
            f"{len(held)} in holdout; change holdout.fraction or write holdout: null"
        )
    return {holdout.of: rest, HOLDOUT: held}


def _dealt(subsets: Subsets, members: Members, assigned: Mapping[str, Ints]) -> dict[str, Rows]:
    """Return the rows of each subset."""
    given_N = _given(members.ids_N, subsets.names, assigned)
    given_N = np.where(given_N == FREE, _given(members.unit_ids_N, subsets.names, assigned), given_N)
    if subsets.by == "stratified":
        labels = members.labels()
        side_N = stratify(members.unit_ids_N, labels, subsets.fractions, given_N)
        _warn_of_gaps(subsets.names, labels, side_N, members.label_names)
    else:
        side_N = by_hash(members.unit_ids_N, subsets.fractions, subsets.salt)
        followed_N = followed(members.unit_ids_N, given_N)
        side_N = np.where(followed_N == FREE, side_N, followed_N)
    return {name: np.flatnonzero(side_N == place) for place, name in enumerate(subsets.names)}


def _given(ids_N: Ints, names: Sequence[str], assigned: Mapping[str, Ints]) -> Ints:
    """Return the place in `names` of the split that each sample or unit has already; FREE without one [N]."""
    place_N = np.full(len(ids_N), FREE)
    for place, name in enumerate(names):
        if name in assigned:
            place_N[np.isin(ids_N, assigned[name])] = place
    return place_N


def _warn_of_gaps(names: Sequence[str], labels: Ragged, side_N: Ints, label_names: Sequence[str]) -> None:
    """Log each split without labels that enough images have: the groups, or labels that come together, do not allow it."""
    num_labels = max(int(labels.values.max(initial=-1)) + 1, len(label_names))
    cells = np.repeat(side_N, np.diff(labels.starts)) * num_labels + labels.values
    images_KL = np.bincount(cells, minlength=len(names) * num_labels).reshape(len(names), num_labels)
    for name, gaps in zip(names, (images_KL == 0) & (images_KL.sum(axis=0) >= len(names)), strict=True):
        if gaps.any():
            found = [label_names[column] if label_names else f"label {column}" for column in np.flatnonzero(gaps).tolist()]
            log.warning(
                "%s has no image with %s labels, such as %s, that at least %s images have: they share a group, or also have "
                "other rare labels",
                name,
                f"{len(found):,}",
                first_of(found, 3),
                len(names),
            )
