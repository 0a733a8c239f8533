"""Sums over the label sets of independent labels under a prior, four labels at a time. B images, G groups, K components.

For a given strength, component k multiplies label l by one factor if it is absent and by another if present. Four labels have
T = 16 label sets, and the product over the four of P(absent) x factor + P(present) x factor is

    sum over their label sets t of P(t | image) x (product of the component's factors for t),

a matrix product of [B, T] and [T, K]. So no array over images, components and labels is needed, and no exponential of each of
its entries. All terms are positive, so nothing cancels; factors are scaled to at most 1 in each component.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit

from rayprob.arrays import Floats
from rayprob.probability.distributions.arithmetic import log
from rayprob.probability.distributions.bernoulli import present_and_absent

GROUP = 4  # labels: the fastest of 2 to 6 for 80 labels and 200 components
STATES = 2**GROUP
MOST_REACH = 600.0  # nats by which a product of factors may shrink before its logarithm is taken: e^-745 is 0
STEEPEST = 100.0  # the largest finite logit: the product of four labels is then at least e^-400
IMAGES_AT_ONCE = 64  # their numbers for all components fit in the cache; matrix products of this size gain nothing from threads

PRESENT_TJ = (np.arange(STATES)[:, None] >> np.arange(GROUP) & 1).astype(np.float64)  # label set, place in the group


@dataclass(frozen=True, eq=False)
class LabelGroups:
    """The factors of a prior of one strength, from tilt_KL = strength x odds: 1 and exp(tilt), over the larger of the two."""

    tilt_KL: Floats
    factors_GTK: Floats
    log_scale_K: Floats  # what they were divided by, over all labels
    reach_G: Floats  # the most by which the factors of a group are below 1, in nats

    @classmethod
    def of(cls, tilt_KL: Floats) -> "LabelGroups":
        """Group the labels in their order; the last group is padded with labels that no component changes."""
        tilt_GJK = np.pad(tilt_KL.T, ((0, -tilt_KL.shape[1] % GROUP), (0, 0))).reshape(-1, GROUP, len(tilt_KL))
        log_absent_GJK, log_present_GJK = np.minimum(-tilt_GJK, 0), np.minimum(tilt_GJK, 0)
        factors_GTK = np.exp((1 - PRESENT_TJ) @ log_absent_GJK + PRESENT_TJ @ log_present_GJK)
        log_scale_K = np.maximum(tilt_KL, 0).sum(axis=1)
        return cls(tilt_KL, factors_GTK, log_scale_K, np.abs(tilt_GJK).max(axis=2).sum(axis=1))

    @property
    def is_steep(self) -> bool:
        """Whether a single group may underflow to 0."""
        return bool(self.reach_G.max(initial=0) > MOST_REACH)

    def log_products(self, states_GBT: Floats) -> Floats:
        """Return the logarithm [B, K] of the product over all labels, from the result of `states`."""
        log_BK = np.tile(self.log_scale_K, (states_GBT.shape[1], 1))
        product_BK, reach = np.ones_like(log_BK), 0.0
        for states_BT, factors_TK, more in zip(states_GBT, self.factors_GTK, self.reach_G, strict=True):
            if reach + more > MOST_REACH:
                log_BK += np.log(product_BK)
                product_BK[:], reach = 1.0, 0.0
            product_BK *= states_BT @ factors_TK
            reach += more
        return np.asarray(log_BK + np.log(product_BK))

    def present_and_absent(self, states_GBT: Floats, weight_BK: Floats) -> tuple[Floats, Floats]:
        """Return P(label present) and P(label absent) [B, L], both to full precision, given the mixing weights."""
        sides = np.empty((2, states_GBT.shape[1], len(states_GBT), GROUP))
        for group, (states_BT, factors_TK) in enumerate(zip(states_GBT, self.factors_GTK, strict=True)):
            joint_BT = states_BT * ((weight_BK / (states_BT @ factors_TK)) @ factors_TK.T)
            np.matmul(joint_BT, PRESENT_TJ, out=sides[0, :, group])
            np.matmul(joint_BT, 1 - PRESENT_TJ, out=sides[1, :, group])
        present_BL, absent_BL = sides.reshape(2, states_GBT.shape[1], -1)[:, :, : self.tilt_KL.shape[1]]
        return present_BL, absent_BL

    def log_peaks(self, logits_BL: Floats) -> Floats:
        """Return the logarithm [B, K] of the product over all labels of the larger of the two terms, one label at a time."""
        log_BK: Floats = np.zeros((len(logits_BL), len(self.tilt_KL)))
        term_BK = np.empty_like(log_BK)
        sides_LB1 = (np.ascontiguousarray(log_expit(sign * logits_BL).T)[..., None] for sign in (-1, 1))
        for absent_B1, present_B1, tilt_K in zip(*sides_LB1, np.ascontiguousarray(self.tilt_KL.T), strict=True):
            np.add(present_B1, tilt_K, out=term_BK)
            np.maximum(term_BK, absent_B1, out=term_BK)
            log_BK += term_BK
        return log_BK

    def log_bounds(self, log_peak_BK: Floats, logits_BL: Floats, state_BL: NDArray[np.bool_]) -> Floats:
        """Return an upper bound [B, L] on the log of the sum over components of the peak with each label as stated.

        Stating a label multiplies the peak by min(1, exp(+-(logit + tilt))), at most the exponential: a matrix product.
        """
        scale_B1 = log_peak_BK.max(axis=1, keepdims=True)
        peak_BK = np.exp(log_peak_BK - scale_B1)
        total_B1 = peak_BK.sum(axis=1, keepdims=True)
        signed_BL = np.where(state_BL, logits_BL, -logits_BL)
        present_BL, absent_BL = (peak_BK @ np.exp(sign * self.tilt_KL) for sign in (1, -1))
        return np.asarray(scale_B1 + np.minimum(log(total_B1), signed_BL + np.log(np.where(state_BL, present_BL, absent_BL))))


def states(logits_BL: Floats) -> Floats:
    """Return P(label set of the group) [G, B, T] of independent labels; a logit of plus or minus infinity is certain."""
    num_images, num_labels = logits_BL.shape
    padded_BL = np.pad(logits_BL, ((0, 0), (0, -num_labels % GROUP)), constant_values=-np.inf)
    sides_JGB = [
        side_BL.reshape(num_images, -1, GROUP).transpose(2, 1, 0)[..., None] for side_BL in present_and_absent(padded_BL)
    ]
    states_GBT: Floats = np.ones((padded_BL.shape[1] // GROUP, num_images, 1))
    for present_GB1, absent_GB1 in zip(*sides_JGB, strict=True):
        states_GBT = np.concatenate([states_GBT * absent_GB1, states_GBT * present_GB1], axis=2)
    return states_GBT


def is_steep(logits_BL: Floats) -> NDArray[np.bool_]:
    """Return which images [B] have a finite logit beyond +-STEEPEST, where the product of four labels may underflow."""
    return np.asarray(((np.abs(logits_BL) > STEEPEST) & np.isfinite(logits_BL)).any(axis=1))
