"""Conformal risk control: label sets that miss at most a share alpha of an image's labels on average. N samples, L labels.

The risk is the expected share of an image's labels present that its set lacks, among images that have a label present. Sets
are the labels whose marginal reaches one threshold, so the share missed only rises with it, and the highest threshold at which
n calibration samples with such a label miss (n * mean share + 1) / (n + 1) <= alpha keeps the risk of the next sample at or
below alpha, whatever the model and distribution (Angelopoulos, Bates, Fisch, Lei, Schuster, "Conformal risk control", ICLR
2024, theorem 1). Where marginals are not tied the expectation is at least alpha - 2 / (n + 1) (theorem 2).

The expectation is over calibration samples and the next one, which must be exchangeable: no model choice, no early stopping and
no calibrator with parameters a label may have seen the calibration samples. One temperature, or one scale and shift for all
labels, leaves the sets what they are and may.

**Unknown labels.** Shares can be computed of stated labels only, so without more the promise is about those: among images with
a label stated present, the share of labels stated present that is missed. Where labels are missing at random at a known rate,
it can be carried over to all labels. Let each label be stated with probability r, whatever it is and whatever the image. An
image with n labels present, of which a set misses m, shows N ~ Binomial(n, r) of them; given N >= 1 they are a random subset,
so the share S missed of those shown has the mean m / n. Images with many labels show one more often, 1 - (1 - r)^n, so the mean
of S over images that show one is the risk of the wrong mix of images. Weigh an image by w(1) = 1 / r and w(N) = 1 for N > 1. Of
an image with n labels the expected weight is then

    e(n) = n r (1 - r)^(n - 1) / r + 1 - (1 - r)^n - n r (1 - r)^(n - 1) = 1 + (n - 1) (1 - r)^n,

which lies between 1 and k = max over n <= L of e(n): 1 where r = 1, 1.25 for r = 0.5, 1.72 for r = 0.3. With E over images that
have a label present, E[m / n] <= E[e(n) m / n] = E[w S], and E[w; N >= 1] = E[e(n)] <= k. So a threshold with
E[w (S - alpha / k)] <= 0 has a risk of at most alpha. This loss rises with the threshold, is at most (1 - alpha / k) / r, and
is 0 for images that show no label, so the theorem holds for it with the images that show one; r = 1 gives the plain rule. The
weights are our own: exact ones, 1 - (1 - 1 / r)^N, turn negative for r < 1 / 2. The bound is safe rather than tight: between
alpha / k and alpha. Where present and absent labels are stated at different rates, r is that of labels present.

MAPIE 1.6 has the method but takes a fixed grid of thresholds, refuses images without labels and has no unknown labels, so
these few lines are ours; a test holds them against MAPIE.
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


STATED, EVERY, AT_RANDOM, UNRECORDED = "stated", "every", "missing at random", ""  # which labels a promise covers
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
    """A threshold for all labels, and the guarantee that it carries: E[missed share of an image's labels] <= alpha."""

    threshold: float
    alpha: float
    num_samples: int  # with a label stated present
    empirical_risk: float  # mean missed share on the samples it was fitted on; weighted where labels are missing at random
    covers: str = UNRECORDED  # a key of WORDS; bundles of version 0.1 do not say
    known_rate: float = 1.0  # the probability that a label present is stated; 1 unless labels are missing at random

    @property
    def words(self) -> str:
        """What is promised, of which labels and over which images."""
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
        """Rebuild a risk control from `to_dict`. Raises BundleError where a part is missing."""
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

    The share is of labels stated present, which are all where every label is known. With `known_rate`, the probability with
    which a label present is stated whatever the label and image, it is of all labels: see above. Raises SpecError for an alpha
    or rate outside its range, CalibrationError where the samples are too few: at rate 1, 1 / alpha - 1 at least.
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
    """Return the share of each sample's labels stated present that its set lacks [N], 0 where it has none."""
    present_NL = np.asarray(targets_NL, dtype=bool) & np.asarray(known_NL, dtype=bool)
    missed_N = (present_NL & ~np.asarray(sets_NL, dtype=bool)).sum(axis=1)
    return np.asarray(missed_N / np.maximum(present_NL.sum(axis=1), 1))


def mean_missed_share(sets_NL: ArrayLike, targets_NL: ArrayLike, known_NL: ArrayLike) -> float:
    """Return the mean share over the samples with a label stated present, nan without any: the risk that is promised."""
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
    return (
        f"alpha {alpha:g} needs {fewest} calibration samples with a label at least, found {num_samples}; add samples{instead}"
    )


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
    """Return the highest threshold below which lie labels whose shares sum to no more than `missable`; 1 where all may."""
    share_NL = weight_N[:, None] * targets_NL / np.maximum(targets_NL.sum(axis=1, keepdims=True), 1)
    marginals_P, share_P = marginals_NL[targets_NL], share_NL[targets_NL]
    order_P = np.argsort(marginals_P)
    needed_P = np.flatnonzero(np.cumsum(share_P[order_P]) > missable + ROUNDING)
    return float(marginals_P[order_P[needed_P[0]]]) if len(needed_P) else 1.0
