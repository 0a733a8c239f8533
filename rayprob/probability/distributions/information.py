"""Entropy, mutual information and sampling. B images, L labels, K components; log_mixing_BK, logits_BKL in float64; nats."""

from dataclasses import dataclass

import numpy as np
from scipy.special import entr, log_expit, log_softmax, rel_entr

from rayprob.arrays import Bools, Floats, Ints
from rayprob.probability.distributions.arithmetic import SAFE
from rayprob.probability.distributions.bernoulli import entropy_of_logits, present_and_absent

ENUMERATED_LABELS = 12
STEEPEST = 1e5  # replaces infinite logits: a sampled set's labels have at least e^-40 in its component, so e^-1e5 counts as 0


@dataclass(frozen=True, eq=False)
class Estimate:
    """A value for each image and its standard error, which is 0 where the value is exact."""

    value_B: Floats
    standard_error_B: Floats


def mixture_entropy(log_mixing_BK: Floats, logits_BKL: Floats, num_samples: int, random: np.random.Generator) -> Estimate:
    """Return the entropy of the label sets: exact by enumeration for few labels, otherwise an estimate.

    With Z the component, H(Y) = H(Z) + H(Y|Z) - H(Z|Y). The first two are exact sums; only H(Z|Y), which is between 0 and
    H(Z), is averaged over samples, so the error is limited by the entropy of the component.
    """
    if logits_BKL.shape[2] <= ENUMERATED_LABELS:
        return Estimate(_enumerated_entropy(log_mixing_BK, logits_BKL), np.zeros(len(logits_BKL)))
    weight_BK = np.exp(log_mixing_BK)
    exact_B = entr(weight_BK).sum(axis=1) + (weight_BK * entropy_of_logits(logits_BKL).sum(axis=2)).sum(axis=1)
    sets_SBL = draw(log_mixing_BK, logits_BKL, num_samples, random)
    left_SB = entr(_responsibilities(log_mixing_BK, logits_BKL, sets_SBL)).sum(axis=2)
    spread_B = left_SB.std(axis=0, ddof=1) if num_samples > 1 else np.full(len(exact_B), np.nan)
    return Estimate(exact_B - left_SB.mean(axis=0), spread_B / np.sqrt(num_samples))


def pair_probabilities(log_mixing_BK: Floats, logits_BKL: Floats) -> Floats:
    """Return P(both labels present) [B, L, L]; the diagonal holds the marginals."""
    present_BKL, _ = present_and_absent(logits_BKL)
    both_BLL = _pairs(np.exp(log_mixing_BK), present_BKL, present_BKL)
    diagonal = np.arange(logits_BKL.shape[2])
    both_BLL[:, diagonal, diagonal] = np.einsum("bk,bkl->bl", np.exp(log_mixing_BK), present_BKL)
    return both_BLL


def mutual_information(log_mixing_BK: Floats, logits_BKL: Floats) -> Floats:
    """Return I(label i; label j) [B, L, L]; the diagonal is the entropy of each label."""
    weight_BK = np.exp(log_mixing_BK)
    states_BKL = present_and_absent(logits_BKL)
    information_BLL = np.zeros((len(logits_BKL), logits_BKL.shape[2], logits_BKL.shape[2]))
    marginal_BL = [np.einsum("bk,bkl->bl", weight_BK, state_BKL) for state_BKL in states_BKL]
    for state_BKL, first_BL in zip(states_BKL, marginal_BL, strict=True):
        for other_BKL, second_BL in zip(states_BKL, marginal_BL, strict=True):
            information_BLL += _divergence(_pairs(weight_BK, state_BKL, other_BKL), first_BL, second_BL)
    diagonal = np.arange(logits_BKL.shape[2])
    information_BLL[:, diagonal, diagonal] = entr(marginal_BL[0]) + entr(marginal_BL[1])
    return np.maximum(information_BLL, 0)


def draw(log_mixing_BK: Floats, logits_BKL: Floats, num_samples: int, random: np.random.Generator) -> Bools:
    """Return sampled label sets [S, B, L]: a component is drawn by its weight, then its labels."""
    num_images, _, num_labels = logits_BKL.shape
    component_SB = draw_components(log_mixing_BK, num_samples, random)
    present_BKL, _ = present_and_absent(logits_BKL)
    sets_SBL = np.empty((num_samples, num_images, num_labels), dtype=bool)
    for sample, component_B in enumerate(component_SB):
        sets_SBL[sample] = random.random((num_images, num_labels)) < present_BKL[np.arange(num_images), component_B]
    return sets_SBL


def draw_components(log_mixing_BK: Floats, num_samples: int, random: np.random.Generator) -> Ints:
    """Return components drawn by their weights [S, B]."""
    edges_BK = np.cumsum(np.exp(log_mixing_BK), axis=1)
    uniform_SB = random.random((num_samples, len(edges_BK))) * edges_BK[:, -1]
    return np.asarray(np.minimum((uniform_SB[:, :, None] >= edges_BK).sum(axis=2), edges_BK.shape[1] - 1))


def _pairs(weight_BK: Floats, first_BKL: Floats, second_BKL: Floats) -> Floats:
    return np.asarray(np.matmul((weight_BK[:, :, None] * first_BKL).transpose(0, 2, 1), second_BKL))


def _divergence(pair_BLL: Floats, first_BL: Floats, second_BL: Floats) -> Floats:
    """Return p log(p / (q r)) [B, L, L] of pairs p and marginals q and r, also where q r underflows."""
    independent_BLL = first_BL[:, :, None] * second_BL[:, None]
    faint = None
    if first_BL.min(initial=1) * second_BL.min(initial=1) <= SAFE:
        faint = np.nonzero((independent_BLL <= SAFE) & (pair_BLL > 0))
    part_BLL: Floats = rel_entr(pair_BLL, independent_BLL, out=independent_BLL)
    if faint is not None:
        (image_E, i_E, j_E), pair_E = faint, pair_BLL[faint]
        part_BLL[faint] = pair_E * (np.log(pair_E) - np.log(first_BL[image_E, i_E]) - np.log(second_BL[image_E, j_E]))
    return part_BLL


def _enumerated_entropy(log_mixing_BK: Floats, logits_BKL: Floats) -> Floats:
    """Return the entropy [B] over all 2^L label sets, one image at a time: K 2^L numbers each."""
    entropy_B = np.empty(len(logits_BKL))
    for image, (log_mixing_K, logits_KL) in enumerate(zip(log_mixing_BK, logits_BKL, strict=True)):
        joint_KS = np.exp(log_mixing_K)[:, None]
        for present_K, absent_K in zip(*present_and_absent(logits_KL.T), strict=True):
            joint_KS = np.concatenate([joint_KS * absent_K[:, None], joint_KS * present_K[:, None]], axis=1)
        entropy_B[image] = entr(joint_KS.sum(axis=0)).sum()
    return entropy_B


def _responsibilities(log_mixing_BK: Floats, logits_BKL: Floats, sets_SBL: Bools) -> Floats:
    """Return P(component | label set) [S, B, K] by matrix products; infinite logits are replaced by +-STEEPEST."""
    logits_BKL = np.clip(logits_BKL, -STEEPEST, STEEPEST)
    log_none_BK = log_expit(-logits_BKL).sum(axis=2)
    sets_BSL = sets_SBL.transpose(1, 0, 2).astype(np.float64)
    log_BSK = np.matmul(sets_BSL, logits_BKL.transpose(0, 2, 1)) + (log_none_BK + log_mixing_BK)[:, None]
    return np.asarray(np.exp(log_softmax(log_BSK, axis=2)).transpose(1, 0, 2))
