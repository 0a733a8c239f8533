"""Platt scaling of many labels at once: logit -> scale * logit + shift, rare labels drawn towards the others.

N samples, L labels. A label's parameters are theta = (log scale, shift), so that a scale is positive and keeps the label's
ranking. Labels are exchangeable a priori: theta_l ~ Normal(mean, covariance). Mean and covariance come from the data
(empirical Bayes) by EM with a Laplace approximation of each label's posterior, as in MacKay, "Bayesian interpolation"
(Neural Computation 1992), and Breslow and Clayton, "Approximate inference in generalized linear mixed models" (JASA 1993).
A label with many positives gets its own maximum-likelihood fit (Platt 1999); a label without known targets gets the mean.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy  # loads scipy.optimize on first use; every training process imports this module
from scipy.special import expit

from rayprob.arrays import Bools, Floats

MAX_LOG_SCALE = 3.0  # scales from 1/20 to 20; separable rows have no finite optimum
MAX_SHIFT = 20.0
PRIOR_SD = 0.25  # of theta before any label is seen, with the weight of PRIOR_LABELS labels
PRIOR_LABELS = 2.0
MAX_ROUNDS = 60
TOLERANCE = 1e-4
CHUNK_VALUES = 4_000_000  # logits processed at a time: 32 MB per array


@dataclass(frozen=True)
class PlattPrior:
    """How (log scale, shift) vary from label to label."""

    mean_2: Floats
    covariance_22: Floats


def binary_nll(logits: Floats, targets: Bools) -> Floats:
    """Return the negative log-likelihood in nats of each target under its logit."""
    return np.asarray(np.logaddexp(0.0, np.where(targets, -logits, logits)))


def fit_log_scale(logits_NL: Floats, targets_NL: Bools, known_NL: Bools) -> float:
    """Return the one log scale (minus the log temperature) with the lowest negative log-likelihood, within +-MAX_LOG_SCALE."""
    logits_M, targets_M = logits_NL[known_NL], targets_NL[known_NL]

    def nll(log_scale: float) -> float:
        return float(binary_nll(np.exp(log_scale) * logits_M, targets_M).sum())

    bounds = (-MAX_LOG_SCALE, MAX_LOG_SCALE)
    return float(scipy.optimize.minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)


def fit_shared(logits_NL: Floats, targets_NL: Bools, known_NL: Bools) -> Floats:
    """Return the one (log scale, shift) [2] with the lowest negative log-likelihood over all labels."""
    logits_M, targets_M = logits_NL[known_NL], targets_NL[known_NL]

    def nll_and_slope(theta_2: Floats) -> tuple[float, Floats]:
        scaled_M = np.exp(theta_2[0]) * logits_M
        residual_M = expit(scaled_M + theta_2[1]) - targets_M
        nll = binary_nll(scaled_M + theta_2[1], targets_M).mean()
        return float(nll), np.array([(residual_M * scaled_M).mean(), residual_M.mean()])

    bounds = [(-MAX_LOG_SCALE, MAX_LOG_SCALE), (-MAX_SHIFT, MAX_SHIFT)]
    found = scipy.optimize.minimize(
        nll_and_slope, np.zeros(2), jac=True, bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-14}
    )
    return np.asarray(found.x)


def fit_labels(logits_NL: Floats, targets_NL: Bools, known_NL: Bools) -> tuple[Floats, PlattPrior]:
    """Return theta_L2 = (log scale, shift) of each label, and the fitted prior that the labels share."""
    stated_L = np.asarray(known_NL.any(axis=0))
    stated = logits_NL[:, stated_L], targets_NL[:, stated_L], known_NL[:, stated_L]
    prior = PlattPrior(fit_shared(*stated), np.eye(2) * PRIOR_SD**2)
    found_S2 = np.tile(prior.mean_2, (int(stated_L.sum()), 1))
    for _ in range(MAX_ROUNDS):
        before_S2 = found_S2
        found_S2, covariance_S22 = _improve(found_S2, prior, *stated)
        prior = _shared_prior(found_S2, covariance_S22)
        if np.abs(found_S2 - before_S2).max() < TOLERANCE:
            break
    theta_L2 = np.tile(prior.mean_2, (len(stated_L), 1))
    theta_L2[stated_L] = found_S2
    return theta_L2, prior


def _shared_prior(theta_L2: Floats, covariance_L22: Floats) -> PlattPrior:
    mean_2 = theta_L2.mean(axis=0)
    apart_L2 = theta_L2 - mean_2
    scatter_22 = apart_L2.T @ apart_L2 + covariance_L22.sum(axis=0) + PRIOR_LABELS * PRIOR_SD**2 * np.eye(2)
    return PlattPrior(mean_2, scatter_22 / (len(theta_L2) + PRIOR_LABELS))


def _improve(
    theta_L2: Floats, prior: PlattPrior, logits_NL: Floats, targets_NL: Bools, known_NL: Bools
) -> tuple[Floats, Floats]:
    """Return theta_L2 after one step of Fisher scoring on every label, and the Laplace covariances [L, 2, 2] there."""
    precision_22 = np.asarray(np.linalg.inv(prior.covariance_22), dtype=np.float64)
    better_L2, covariance_L22 = np.empty_like(theta_L2), np.empty((len(theta_L2), 2, 2))
    for part in _chunks(*logits_NL.shape):
        rows = logits_NL[:, part], targets_NL[:, part], known_NL[:, part]
        slope_L2, information_L22 = _slope_and_information(theta_L2[part], *rows)
        slope_L2 = slope_L2 + (theta_L2[part] - prior.mean_2) @ precision_22
        covariance_L22[part] = np.linalg.inv(information_L22 + precision_22)
        step_L2 = np.asarray(-np.einsum("lij,lj->li", covariance_L22[part], slope_L2))
        better_L2[part] = _damped(theta_L2[part], step_L2, prior, precision_22, *rows)
    return better_L2, covariance_L22


def _slope_and_information(theta_L2: Floats, logits_NL: Floats, targets_NL: Bools, known_NL: Bools) -> tuple[Floats, Floats]:
    scaled_NL = np.exp(theta_L2[:, 0]) * logits_NL
    marginals_NL = expit(scaled_NL + theta_L2[:, 1])
    residual_NL = np.where(known_NL, marginals_NL - targets_NL, 0.0)
    weight_NL = np.where(known_NL, marginals_NL * (1.0 - marginals_NL), 0.0)
    slope_L2 = np.stack([(residual_NL * scaled_NL).sum(axis=0), residual_NL.sum(axis=0)], axis=-1)
    cross_L = (weight_NL * scaled_NL).sum(axis=0)
    information_L4 = np.stack([(weight_NL * scaled_NL**2).sum(axis=0), cross_L, cross_L, weight_NL.sum(axis=0)], axis=-1)
    return slope_L2, information_L4.reshape(-1, 2, 2)


def _damped(
    theta_L2: Floats,
    step_L2: Floats,
    prior: PlattPrior,
    precision_22: Floats,
    logits_NL: Floats,
    targets_NL: Bools,
    known_NL: Bools,
) -> Floats:
    """Return theta + step, each label's step halved until its posterior does not fall."""

    def energy(candidate_L2: Floats) -> Floats:
        calibrated_NL = np.exp(candidate_L2[:, 0]) * logits_NL + candidate_L2[:, 1]
        nll_L = np.where(known_NL, binary_nll(calibrated_NL, targets_NL), 0.0).sum(axis=0)
        apart_L2 = candidate_L2 - prior.mean_2
        return np.asarray(nll_L + 0.5 * np.einsum("li,ij,lj->l", apart_L2, precision_22, apart_L2))

    limits_2 = np.array([MAX_LOG_SCALE, MAX_SHIFT])
    before_L = energy(theta_L2)
    for _ in range(12):
        candidate_L2 = np.clip(theta_L2 + step_L2, -limits_2, limits_2)
        worse_L = energy(candidate_L2) > before_L + 1e-9
        if not worse_L.any():
            return candidate_L2
        step_L2 = np.where(worse_L[:, None], 0.5 * step_L2, step_L2)
    return np.where(worse_L[:, None], theta_L2, candidate_L2)


def _chunks(num_samples: int, num_labels: int) -> Iterator[slice]:
    width = max(1, CHUNK_VALUES // num_samples)
    for start in range(0, num_labels, width):
        yield slice(start, start + width)
