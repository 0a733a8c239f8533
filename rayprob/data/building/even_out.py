"""Single moves that mend a division of units into subsets. U units, P of them that may move, L labels, K subsets."""

import numpy as np

from rayprob.arrays import Bools, Floats, Ints
from rayprob.data.building.units import Division

POOL = 3_000  # units of a subset that are tried at each step, of many
MOST_MOVES = 1_000
MOVES_PER_GAP = 50
REST = 7  # steps for which a unit that was moved to fill a gap stays where it is
GAP = 1e9  # costs more than any unevenness


def even_out(division: Division, free: Ints) -> None:
    """Move free units until no label is missing that could be there, then until no move makes the division more even.

    Unevenness is the sum over subsets, labels and the samples themselves of the squared difference from the fraction, over what
    the fraction is: Pearson's statistic. Where no single move fills a gap, moves that open another one are tried as well, a
    bounded number of times. The result depends on the units alone.
    """
    is_free_U = np.zeros(len(division.units), dtype=bool)
    is_free_U[free] = True
    _fill_gaps(division, is_free_U)
    ranked = free[np.argsort(division.units.ranks_U[free])]
    pool = np.concatenate([ranked[division.side_U[ranked] == side][:POOL] for side in range(division.num_subsets)])
    for _ in range(MOST_MOVES if len(pool) else 0):
        costs_PK = _costs(division, pool)
        place, side = np.unravel_index(costs_PK.argmin(), costs_PK.shape)
        if costs_PK[place, side] > -1e-9:
            return
        division.move(pool[[place]], np.array([side]))


def _fill_gaps(division: Division, is_free_U: Bools) -> None:
    """Leave the division in the state with the fewest gaps that a bounded tabu search finds."""
    fewest, best_U = int(division.missing_KL.sum()), division.side_U.copy()
    movable_from_U = np.zeros(len(best_U), dtype=np.int64)
    for step in range(MOVES_PER_GAP * fewest):
        gaps = np.flatnonzero(division.missing_KL.any(axis=0)).tolist()
        entries = [division.entries_of_label(label) for label in gaps]
        units = np.unique(division.units.units_E[np.concatenate(entries)]) if gaps else np.zeros(0, dtype=np.int64)
        units = units[is_free_U[units] & (movable_from_U[units] <= step)]
        if not len(units):
            break
        costs_UK = _costs(division, units)
        place, side = np.unravel_index(costs_UK.argmin(), costs_UK.shape)
        division.move(units[[place]], np.array([side]))
        movable_from_U[units[place]] = step + REST
        if (left := int(division.missing_KL.sum())) < fewest:
            fewest, best_U = left, division.side_U.copy()
    changed = np.flatnonzero(division.side_U != best_U)
    division.move(changed, best_U[changed])


def _costs(division: Division, units: Ints) -> Floats:
    """Return what moving each unit into each subset adds to gaps and unevenness [P, K]; infinite for the one it is in."""
    entries, places = division.entries_of_units(units)
    labels, counts = division.units.labels_E[entries], division.units.counts_E[entries]
    sides, sizes = division.side_U[units], division.units.sizes_U[units]
    here = sides[places]
    weight_KL, weight_K = 1 / np.maximum(division.share_KL, 1), 1 / np.maximum(division.share_K, 1)
    counted_L = division.units_L >= division.num_subsets

    def added(weight: Floats, need: Floats, counts: Ints) -> Floats:
        return weight * counts * (counts - 2 * need)

    left = added(weight_KL[here, labels], -division.need_KL[here, labels], counts)
    left += GAP * (counted_L[labels] & (division.held_KL[here, labels] == 1))
    leaving = np.bincount(places, weights=left, minlength=len(units)) + added(weight_K[sides], -division.need_K[sides], sizes)
    costs_PK = np.empty((len(units), division.num_subsets))
    for side in range(division.num_subsets):
        joined = added(weight_KL[side, labels], division.need_KL[side, labels], counts)
        joined -= GAP * (counted_L[labels] & (division.held_KL[side, labels] == 0))
        joining = np.bincount(places, weights=joined, minlength=len(units)) + added(
            weight_K[side], division.need_K[side], sizes
        )
        costs_PK[:, side] = np.where(sides == side, np.inf, leaving + joining)
    return costs_PK
