"""Which of many differences are more than chance: jointly adjusted p-values. M differences, D draws.

The step-down maxT procedure (Westfall and Young, Resampling-Based Multiple Testing, 1993; Romano and Wolf, JASA 2005): a
difference over its standard error is compared with the largest of the same ratios, centred, in each draw. The probability of
one false finding or more among all M is then at most the level, for any dependence between them: labels that occur together
are drawn together, so they cost less than with Bonferroni's or Holm's correction.
"""

import numpy as np

from rayprob.arrays import Floats


def adjusted_p_values(differences_M: Floats, drawn_DM: Floats) -> Floats:
    """Return the adjusted two-sided p-value of each difference from 0 [M], from its bootstrap draws; nan draws count as 0.

    The smallest possible p-value is 1 / (D + 1). It is 1 for a difference that is the same in all draws, as for equal tables.
    """
    if not len(differences_M):
        return np.ones(0)
    error_M = _standard_errors(drawn_DM)
    safe_M = np.where(error_M > 0, error_M, np.inf)
    ratio_M = np.nan_to_num(np.abs(differences_M)) / safe_M
    noise_DM = np.nan_to_num(np.abs(drawn_DM - differences_M) / safe_M)
    falling_M = np.argsort(-ratio_M, kind="stable")
    # For each difference, the largest noise among those that are not larger, from the smallest up.
    largest_DM = np.maximum.accumulate(noise_DM[:, falling_M[::-1]], axis=1)[:, ::-1]
    exceeded_M = (largest_DM >= ratio_M[falling_M]).sum(axis=0)
    p_M = np.empty(len(falling_M))
    p_M[falling_M] = np.maximum.accumulate((1 + exceeded_M) / (1 + len(drawn_DM)))
    return p_M


def _standard_errors(drawn_DM: Floats) -> Floats:
    """Return the standard deviation over the finite draws [M]; 0 without any."""
    is_defined_DM = ~np.isnan(drawn_DM)
    number_M = np.maximum(is_defined_DM.sum(axis=0), 1)
    values_DM = np.nan_to_num(drawn_DM)
    from_mean_DM = np.where(is_defined_DM, values_DM - values_DM.sum(axis=0) / number_M, 0)
    return np.asarray(np.sqrt((from_mean_DM**2).sum(axis=0) / number_M))
