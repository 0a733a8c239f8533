"""Iterative stratification: samples divided so that every subset holds its fraction of every label.

The method is that of Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data" (ECML PKDD 2011): the label
that the fewest undivided units have is dealt out first, and each of its units goes where that label is needed most. Then single
moves bring in labels that a subset lacks, and even out what is left. N samples, U units, L labels, K subsets.
"""

from collections.abc import Sequence

import numpy as np

from rayprob.arrays import Bools, Floats, Ints
from rayprob.data.building.even_out import even_out
from rayprob.data.building.units import FREE, Division, Units, sides_of_units
from rayprob.data.manifest.columns import Ragged


def stratify(
    unit_ids_N: Ints, labels: Ragged, fractions: Sequence[float], assigned_N: Ints | None = None, seed: int = 0
) -> Ints:
    """Return the number of the subset of each sample [N].

    Samples of one unit id stay together. Every subset holds its fraction of each label, as closely as whole units allow; a
    label that at least K units have is in each subset, unless no division does that for all labels. The order of the samples
    is irrelevant. Samples whose subset is given in `assigned_N`, which has FREE for the others, keep it, and the rest of their
    units join them; without it, more samples may change the subset of every one. Time and memory grow with the number of labels
    present, not with N times L.
    """
    units, unit_N = Units.of(unit_ids_N, labels, seed)
    division = Division(units, fractions)
    if assigned_N is not None:
        side_U = sides_of_units(unit_N, len(units), assigned_N)
        given = np.flatnonzero(side_U != FREE)
        division.put(given, side_U[given])
    free_U = division.side_U == FREE
    _deal_out(division)
    even_out(division, free_U)
    side_N = division.side_U[unit_N]
    return side_N if assigned_N is None else np.where(assigned_N == FREE, side_N, assigned_N)


def _deal_out(division: Division) -> None:
    """Put each free unit where its rarest label is needed most."""
    units = division.units
    left_L = np.bincount(units.labels_E[division.side_U[units.units_E] == FREE], minlength=units.num_labels)
    while left_L.any():
        label = int(np.where(left_L > 0, left_L, np.iinfo(np.int64).max).argmin())
        entries = division.entries_of_label(label)
        entries = entries[division.side_U[units.units_E[entries]] == FREE]
        # The largest units first, so that small ones fill what these leave.
        entries = entries[np.lexsort((units.ranks_U[units.units_E[entries]], -units.counts_E[entries]))]
        chosen = units.units_E[entries]
        held_K = division.held_KL[:, label] > 0
        division.put(chosen, _sides(division, division.need_KL[:, label], units.counts_E[entries], chosen, held_K))
        left_L -= np.bincount(units.labels_E[division.entries_of_units(chosen)[0]], minlength=units.num_labels)
    bare = np.flatnonzero(division.side_U == FREE)
    bare = bare[np.lexsort((units.ranks_U[bare], -units.sizes_U[bare]))]
    division.put(bare, _sides(division, division.need_K, units.sizes_U[bare], bare, division.need_K < division.share_K))


def _sides(division: Division, need_K: Floats, counts: Ints, units: Ints, held_K: Bools) -> Ints:
    """Return a subset for each unit in turn: the one that needs most; the last units go to subsets that would get none."""
    need, samples, is_held = need_K.tolist(), division.need_K.tolist(), held_K.tolist()
    subsets = range(division.num_subsets)
    sides = []
    for left, count, size in zip(
        range(len(units), 0, -1), counts.tolist(), division.units.sizes_U[units].tolist(), strict=True
    ):
        lacking = [subset for subset in subsets if not is_held[subset]] if not all(is_held) else []
        side = max(lacking if left <= len(lacking) else subsets, key=lambda subset: (need[subset], samples[subset]))
        need[side] -= count
        samples[side] -= size
        is_held[side] = True
        sides.append(side)
    return np.array(sides, dtype=np.int64)
