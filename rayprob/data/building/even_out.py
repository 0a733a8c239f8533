"""Single moves that improve a division of units into subsets. U units, P of them that may move, L labels, K subsets."""

from collections.abc import Callable

import numpy as np

from rayprob.arrays import Bools, Floats, Ints
from rayprob.data.building.units import Division

POOL = 3_000  # units of a subset that are tried at each step, of many
MOST_STEPS = 2_000
PATIENCE = 60  # steps without a better division
REST = 7  # steps for which a unit that was moved stays where it is
GAP = 1e9  # costs more than any unevenness


def even_out(division: Division, free_U: Bools) -> None:
    """Move free units so that labels are missing in as few subsets as possible, and then so that the division is even.

    Unevenness is the sum over subsets, over labels and the samples themselves, of the squared difference from the fraction,
    divided by its square root, so that neither rare nor frequent labels bear all of it. Both are tabu searches (Glover 1989):
    they take the best move even if it makes things worse, and return to the best division seen. The order of the units is
    irrelevant.
    """

    def fills_gaps() -> Ints:
        labels = np.flatnonzero(division.missing_KL.any(axis=0)).tolist()
        entries = np.concatenate([np.zeros(0, np.int64), *map(division.entries_of_label, labels)])
        units: Ints = np.unique(division.units.units_E[entries])
        return units[free_U[units]]

    _search(division, fills_gaps)
    ranked = np.argsort(division.units.ranks_U)
    ranked = ranked[free_U[ranked]]
    pool = np.concatenate([ranked[division.side_U[ranked] == side][:POOL] for side in range(division.num_subsets)])
    _search(division, lambda: pool)


def _search(division: Division, candidates: Callable[[], Ints]) -> None:
    """Move one of the candidates at each step, the one that costs least, and leave the best division seen."""
    rests_until_U = np.zeros(len(division.units), dtype=np.int64)
    gain = best = 0.0
    since_best: list[tuple[Ints, Ints]] = []  # moves to take back
    for step in range(MOST_STEPS):
        units = candidates()
        units = units[rests_until_U[units] <= step]
        if not len(units) or len(since_best) == PATIENCE:
            break
        costs_PK = _costs(division, units)
        place, side = np.unravel_index(costs_PK.argmin(), costs_PK.shape)
        unit = units[[place]]
        since_best.append((unit, division.side_U[unit]))
        division.move(unit, np.array([side]))
        rests_until_U[unit] = step + REST
        gain += costs_PK[place, side]
        if gain < best - 1e-9:
            best = gain
            since_best.clear()
    for unit, before in reversed(since_best):
        division.move(unit, before)


def _costs(division: Division, units: Ints) -> Floats:
    """Return what moving each unit into each subset adds to gaps and unevenness [P, K]; infinite for the one it is in."""
    entries, places = division.entries_of_units(units)
    labels, counts = division.units.labels_E[entries], division.units.counts_E[entries]
    sides, sizes = division.side_U[units], division.units.sizes_U[units]
    here = sides[places]
    # A root is rounded alike on every machine, which a power is not: there must be one result.
    weight_KL, weight_K = (1 / np.sqrt(np.maximum(share, 1)) for share in (division.share_KL, division.share_K))
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
