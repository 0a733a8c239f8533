"""Conformal risk control: label sets that miss at most a share alpha of an image's labels on average. N samples, L labels.

The risk is the expected share of an image's present labels that its set misses, over images with a present label. A set
contains the labels whose marginal reaches one threshold, so the missed share can only rise with the threshold. Take the highest
threshold with (n * mean share + 1) / (n + 1) <= alpha on n calibration samples with a present label: the risk of the next
sample is then at most alpha, for any model and distribution (Angelopoulos, Bates, Fisch, Lei, Schuster, "Conformal risk
control", ICLR 2024, theorem 1). If no marginals are tied, the expectation is at least alpha - 2 / (n + 1) (theorem 2).

The expectation is over the calibration samples and the next one, which must be exchangeable: the calibration samples must not
be used to choose the model, to stop training early, or to fit a calibrator with parameters per label. One temperature, or one
scale and shift for all labels, may be fitted on them, because it does not change the sets.

**Unknown labels.** Shares can only be computed over stated labels, so in general the guarantee covers these: over images with a
label stated present, the missed share of the labels stated present. If labels are missing at random at a known rate, it can be
extended to all labels. Let each present label be stated with probability r, independently of the label and the image. An image
with n present labels, of which a set misses m, states N ~ Binomial(n, r) of them; given N >= 1 they are a random subset, so the
missed share S of the stated ones has mean m / n. Images with many labels are more likely to state one, 1 - (1 - r)^n, so the
mean of S over images that state one weighs images wrongly. Weigh an image by w(1) = 1 / r and w(N) = 1 for N > 1. An image with
n labels then has the expected weight

    e(n) = n r (1 - r)^(n - 1) / r + 1 - (1 - r)^n - n r (1 - r)^(n - 1) = 1 + (n - 1) (1 - r)^n,

which is between 1 and k = max over n <= L of e(n): 1 for r = 1, 1.25 for r = 0.5, 1.72 for r = 0.3. With E over images that
have a present label, E[m / n] <= E[e(n) m / n] = E[w S], and E[w; N >= 1] = E[e(n)] <= k. So a threshold with
E[w (S - alpha / k)] <= 0 has a risk of at most alpha. This loss rises with the threshold, is at most (1 - alpha / k) / r, and
is 0 for images that state no label, so the theorem holds for it with the images that state one; r = 1 gives the plain rule. The
weights are our own: the exact ones, 1 - (1 - 1 / r)^N, are negative for r < 1 / 2. The bound is conservative rather than tight:
between alpha / k and alpha. If present and absent labels are stated at different rates, r is the rate of present labels.

MAPIE 1.6 implements the method, but on a fixed grid of thresholds, without images that have no labels and without unknown
labels, so this module has its own; a test compares it with MAPIE.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rayprob.arrays import Bools, Floats
from rayprob.errors import BundleError, CalibrationError, SpecError
from rayprob.probability.calibration.holdout import checked_marginals

ROUNDING = 1e-9  # of sums of shares such as 1/3


STATED, EVERY, AT_RANDOM, UNRECORDED = "stated", "every", "missing at random", ""  # which labels a guarantee covers
WORDS = {
    EVERY: "of an image's labels on average, over images like those of the holdout that have a label",
    STATED: "of the labels stated present in an image on average, over images like those of the holdout that have one; "
    "labels of unknown presence are not covered",
    AT_RANDOM: "of an image's labels on average, over images like those of the holdout that have a label, if each label "
    "present is stated with probability {rate:g} at random",
    UNRECORDED: "of an image's labels on average, over images like those of the holdout; of labels stated present only, and an "
    "image without one counts as missing nothing",
}


@dataclass(frozen=True)
class RiskControl:
    """A threshold for all labels, and its guarantee: E[missed share of an image's labels] <= alpha."""

    threshold: float
    alpha: float
    num_samples: int  # with a label stated present
    empirical_risk: float  # mean missed share on the samples it was fitted on; weighted where labels are missing at random
    covers: str = UNRECORDED  # a key of WORDS; bundles of rayprob 0.1 do not record it
    known_rate: float = 1.0  # the probability that a present label is stated; 1 unless labels are missing at random

    @property
    def words(self) -> str:
        """The guarantee in words: which labels and images it covers."""
        return f"misses at most {100 * self.alpha:g} % {WORDS[self.covers].format(rate=self.known_rate)}"

    def decide(self, marginals_NL: ArrayLike) -> Bools:
        """Return the label sets [N, L]: marginal >= threshold, rounded to the marginals' type."""
        marginals_NL = np.asarray(marginals_NL)
        return np.asarray(marginals_NL >= np.asarray(self.threshold, dtype=marginals_NL.dtype))

    def to_dict(self) -> dict[str, float | int | str]:
        """Return plain numbers, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "RiskControl":
        """Rebuild a risk control from `to_dict`. Raises BundleError if a part is missing."""
        try:
            threshold, alpha, risk = (float(value[key]) for key in ("threshold", "alpha", "empirical_risk"))
            covers, known_rate = str(value.get("covers", UNRECORDED)), float(value.get("known_rate", 1.0))
            if covers not in WORDS:
                raise ValueError(f"covers {covers!r}")
            return cls(threshold, alpha, int(value["num_samples"]), risk, covers, known_rate)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"stored risk control cannot be read ({error!r}); write the bundle again") from error


def fit_risk_control(
    marginals_NL: ArrayLike, targets_NL: ArrayLike, known_NL: ArrayLike, alpha: float, *, known_rate: float | None = None
) -> RiskControl:
    """Return the highest threshold that guarantees E[missed share] <= alpha, fitted on the samples with a label stated present.

    The share is over labels stated present: all present labels if every label is known. With `known_rate`, the probability that
    a present label is stated, independently of the label and the image, it is over all labels (see above). Raises SpecError for
    an alpha or rate outside its range, and CalibrationError for too few samples: rate 1 needs at least 1 / alpha - 1.
    """
    marginals_NL, targets_NL, known_NL = checked_marginals(marginals_NL, targets_NL, known_NL)
    _check_shares(alpha, known_rate, known_NL)
    rate = 1.0 if known_rate is None else known_rate
    weight_N = _weights(targets_NL.sum(axis=1), rate)
    largest = _largest_mean_weight(rate, targets_NL.shape[1])
    level = alpha / largest
    missable = level * weight_N.sum() - (1 - level) / rate  # weighted shares that the samples may sum to
    if missable < -ROUNDING:
        raise CalibrationError(_too_few(alpha, weight_N, largest, rate))
    threshold = _highest_threshold(marginals_NL, targets_NL, weight_N, missable)
    risk = np.average(missed_share(marginals_NL >= threshold, targets_NL, known_NL), weights=weight_N)
    covers = AT_RANDOM if known_rate is not None else EVERY if known_NL.all() else STATED
    return RiskControl(threshold, alpha, int(np.count_nonzero(weight_N)), float(risk), covers, rate)


def missed_share(sets_NL: ArrayLike, targets_NL: ArrayLike, known_NL: ArrayLike) -> Floats:
    """Return the share of each sample's labels stated present that its set misses [N]; 0 for samples without one."""
    present_NL = np.asarray(targets_NL, dtype=bool) & np.asarray(known_NL, dtype=bool)
    missed_N = (present_NL & ~np.asarray(sets_NL, dtype=bool)).sum(axis=1)
    return np.asarray(missed_N / np.maximum(present_NL.sum(axis=1), 1))


def mean_missed_share(sets_NL: ArrayLike, targets_NL: ArrayLike, known_NL: ArrayLike) -> float:
    """Return the controlled risk: the mean missed share over samples with a label stated present, nan without such samples."""
    has_label_N = (np.asarray(targets_NL, dtype=bool) & np.asarray(known_NL, dtype=bool)).any(axis=1)
    return float(missed_share(sets_NL, targets_NL, known_NL)[has_label_N].mean()) if has_label_N.any() else float("nan")


def _weights(stated_N: NDArray[np.int64], rate: float) -> Floats:
    """Return the weight of an image by how many labels are stated present: 0, 1 / rate, or 1 for more than one."""
    return np.select([stated_N == 0, stated_N == 1], [0.0, 1.0 / rate], 1.0)


def _largest_mean_weight(rate: float, num_labels: int) -> float:
    """Return the largest expected weight of an image with 1 to `num_labels` labels present."""
    n = np.arange(1, num_labels + 1)
    return float((1 + (n - 1) * (1 - rate) ** n).max())


def _too_few(alpha: float, weight_N: Floats, largest: float, rate: float) -> str:
    num_samples = int(np.count_nonzero(weight_N))
    if not num_samples:
        return f"alpha {alpha:g} needs calibration samples with a label stated present, found none; add samples"
    mean_weight = weight_N.sum() / num_samples
    fewest = int(np.ceil((largest / alpha - 1) / (rate * mean_weight) - ROUNDING))
    lowest_alpha = np.ceil(1e4 * largest / (1 + rate * weight_N.sum())) / 1e4
    instead = f" or take alpha {lowest_alpha} or more" if lowest_alpha < 1 else ""
    return f"alpha {alpha:g} needs {fewest} calibration samples with a label, found {num_samples}; add samples{instead}"


def _check_shares(alpha: float, known_rate: float | None, known_NL: Bools) -> None:
    if not 0 < alpha < 1:
        raise SpecError(f"alpha {alpha:g} is outside (0, 1); it is the share of labels that may be missed, such as 0.1")
    if known_rate is None:
        return
    if not 0 < known_rate <= 1:
        raise SpecError(f"known_rate {known_rate:g} is outside (0, 1]; it is the share of labels that are stated, such as 0.3")
    if known_rate < 1 and known_NL.all():
        raise SpecError(f"known_rate is {known_rate:g}, but every label of the calibration samples is known; leave it out")


def _highest_threshold(marginals_NL: Floats, targets_NL: Bools, weight_N: Floats, missable: float) -> float:
    """Return the highest threshold at which the missed shares sum to at most `missable`; 1 if all may be missed."""
    share_NL = weight_N[:, None] * targets_NL / np.maximum(targets_NL.sum(axis=1, keepdims=True), 1)
    marginals_P, share_P = marginals_NL[targets_NL], share_NL[targets_NL]
    order_P = np.argsort(marginals_P)
    needed_P = np.flatnonzero(np.cumsum(share_P[order_P]) > missable + ROUNDING)
    return float(marginals_P[order_P[needed_P[0]]]) if len(needed_P) else 1.0
