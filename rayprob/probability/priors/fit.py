"""Fit a label prior to label sets without images; held-out label sets choose the number of components. N samples, L labels."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import Bools
from rayprob.errors import DataError
from rayprob.probability.distributions.mixture import LabelMixture, fit_label_mixture
from rayprob.probability.priors.chow_liu import ChowLiuTree
from rayprob.seeds import derive

COMPONENTS = (1, 2, 5, 10, 20, 50, 100, 200)
HELD_OUT = 0.2
LEAST_SAMPLES = 20
WORSE_IN_A_ROW = 2  # numbers of components; larger ones are then not tried
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PriorFit:
    """A mixture fitted to all label sets, and the held-out NLL in nats per label set, by number of components.

    `chow_liu_nats` is None if labels are unknown, because the tree then has no closed form.
    """

    mixture: LabelMixture
    num_samples: int
    nats_by_components: dict[int, float]
    chow_liu_nats: float | None

    @property
    def num_components(self) -> int:
        """The number of components with the lowest held-out NLL."""
        return min(self.nats_by_components, key=lambda k: self.nats_by_components[k])

    @property
    def independent_nats(self) -> float:
        """Held-out nats of independent labels: a mixture of one component."""
        return self.nats_by_components[1]


def fit_prior(
    targets_NL: Bools,
    known_NL: Bools | None = None,
    *,
    components: Sequence[int] = COMPONENTS,
    seed: int = 0,
    on_fit: Callable[[int], None] = lambda k: None,
) -> PriorFit:
    """Fit mixtures to four fifths of the label sets, evaluate them on the rest, and refit the best number of components to all.

    `on_fit` is called with each number of components before its fit. Larger numbers are skipped once two in a row are worse
    than the best so far. Raises DataError for fewer than LEAST_SAMPLES label sets.
    """
    if len(targets_NL) < LEAST_SAMPLES:
        raise DataError(f"{len(targets_NL)} label sets are too few for a label prior; give at least {LEAST_SAMPLES}")
    order_N = np.random.default_rng(derive(seed, "prior")).permutation(len(targets_NL))
    num_judged = round(HELD_OUT * len(order_N))
    judged, fitted = (_rows(targets_NL, known_NL, rows) for rows in (order_N[:num_judged], order_N[num_judged:]))
    nats = _nats_by_components(fitted, judged, sorted({1, *components}), seed, on_fit)
    best = min(nats, key=lambda k: nats[k])
    on_fit(best)
    tree_nats = None if known_NL is not None else float(-ChowLiuTree.fit(fitted[0]).log_prob(judged[0]).mean())
    mixture = fit_label_mixture(targets_NL, known_NL, num_components=best, seed=seed)
    return PriorFit(mixture, len(targets_NL), nats, tree_nats)


def _nats_by_components(
    fitted: tuple[Bools, Bools | None],
    judged: tuple[Bools, Bools | None],
    components: Sequence[int],
    seed: int,
    on_fit: Callable[[int], None],
) -> dict[int, float]:
    nats: dict[int, float] = {}
    num_worse = 0
    for k in components:
        if num_worse == WORSE_IN_A_ROW or k > max(1, len(fitted[0]) // 2):
            break
        on_fit(k)
        mixture = fit_label_mixture(*fitted, num_components=k, seed=seed)
        found = float(-mixture.log_prob(*judged).mean())
        num_worse = num_worse + 1 if nats and found >= min(nats.values()) else 0
        nats[k] = found
        log.info("label prior of %d components: %.4f nats per held-out label set", k, found)
    return nats


def _rows(targets_NL: Bools, known_NL: Bools | None, rows: NDArray[np.int64]) -> tuple[Bools, Bools | None]:
    return targets_NL[rows], None if known_NL is None else known_NL[rows]


def scene_names(mixture: LabelMixture, names: Sequence[str], most: int = 3) -> list[str]:
    """Return the most characteristic labels of each component, such as `fork, dining table, cup`.

    They are those with the largest p_kl log(p_kl / p_l): present often, and more often than elsewhere.
    """
    p_KL, p_L = mixture.probabilities_KL, mixture.marginals_L
    typical_KL = p_KL * np.log(p_KL / p_L)
    described = []
    for typical_L, p_Lk in zip(typical_KL, p_KL, strict=True):
        columns = [int(c) for c in np.argsort(-typical_L, kind="stable")[:most] if typical_L[c] > 0 and p_Lk[c] >= 0.1]
        described.append(", ".join(names[c] for c in columns) or "few labels")
    return described
