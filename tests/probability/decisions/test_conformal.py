"""Conformal risk control: the threshold equals brute force, and the guarantee holds over random splits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import binom

from rayprob.errors import BundleError, CalibrationError, SpecError
from rayprob.probability.calibration.calibrators import fit_calibrator
from rayprob.probability.decisions import conformal
from rayprob.probability.decisions.conformal import RiskControl, fit_risk_control, mean_missed_share, missed_share

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def simulate(num_samples: int, *, seed: int = 0, num_labels: int = 20) -> tuple[Floats, Bools, Bools]:
    """Marginals that are too sure of themselves and wrong by noise; all targets known, each sample with a label."""
    rng = np.random.default_rng(seed)
    centre_L = logit(10 ** np.linspace(-2.2, -0.6, num_labels))
    logits_NL = centre_L + 2.0 * rng.normal(size=(num_samples, num_labels))
    targets_NL = rng.random(logits_NL.shape) < expit(logits_NL)
    targets_NL[np.arange(num_samples), logits_NL.argmax(axis=1)] |= ~targets_NL.any(axis=1)
    return expit(1.5 * logits_NL + rng.normal(size=logits_NL.shape)), targets_NL, np.ones_like(targets_NL)


def risk_by_loops(marginals_NL: Floats, targets_NL: Bools, known_NL: Bools, threshold: float) -> float:
    shares = []
    for marginals_L, targets_L, known_L in zip(marginals_NL, targets_NL, known_NL, strict=True):
        present = [m for m, t, k in zip(marginals_L, targets_L, known_L, strict=True) if t and k]
        if present:
            shares.append(sum(m < threshold for m in present) / len(present))
    return float(np.mean(shares))


@given(st.integers(0, 10_000), st.floats(0.1, 0.9))
@settings(max_examples=60, deadline=None)
def test_the_threshold_is_the_highest_that_the_theorem_allows(seed: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    marginals_NL = rng.integers(0, 9, (12, 4)) / 8
    targets_NL, known_NL = rng.random((12, 4)) < 0.4, rng.random((12, 4)) < 0.8
    targets_NL[:9, 0] = known_NL[:9, 0] = True  # 1 / 0.1 - 1 samples with a label
    num_samples = int((targets_NL & known_NL).any(axis=1).sum())
    fitted = fit_risk_control(marginals_NL, targets_NL, known_NL, alpha)
    allowed = [
        threshold
        for threshold in np.arange(9) / 8
        if (num_samples * risk_by_loops(marginals_NL, targets_NL, known_NL, threshold) + 1) / (num_samples + 1) <= alpha + 1e-9
    ]
    assert fitted.threshold == max(allowed)
    assert fitted.empirical_risk == pytest.approx(risk_by_loops(marginals_NL, targets_NL, known_NL, fitted.threshold))
    assert fitted.num_samples == num_samples


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("num_calibration", [40, 300])
def test_the_guarantee_holds_and_is_tight_over_random_splits(alpha: float, num_calibration: int) -> None:
    rows = simulate(1500)
    rng = np.random.default_rng(1)
    risks = []
    for _ in range(200):
        order_N = rng.permutation(1500)
        fit_rows, test_rows = order_N[:num_calibration], order_N[num_calibration:]
        fitted = fit_risk_control(*(values_NL[fit_rows] for values_NL in rows), alpha)
        marginals_NL, targets_NL, known_NL = (values_NL[test_rows] for values_NL in rows)
        risks.append(missed_share(fitted.decide(marginals_NL), targets_NL, known_NL).mean())
    mean, standard_error = np.mean(risks), np.std(risks, ddof=1) / np.sqrt(200)
    assert mean <= alpha + 3 * standard_error
    assert mean >= alpha - 2 / (num_calibration + 1) - 3 * standard_error


def test_without_the_correction_the_guarantee_would_break() -> None:
    # What the theorem adds to "mean risk on the calibration samples <= alpha" matters for few samples.
    rows = simulate(1500)
    rng = np.random.default_rng(1)
    risks = []
    for _ in range(300):
        order_N = rng.permutation(1500)
        fit_on = [values_NL[order_N[:10]] for values_NL in rows]
        candidates = np.unique(fit_on[0][fit_on[1]])
        naive = max(c for c in candidates if missed_share(fit_on[0] >= c, *fit_on[1:]).mean() <= 0.1)
        marginals_NL, targets_NL, known_NL = (values_NL[order_N[10:]] for values_NL in rows)
        risks.append(missed_share(marginals_NL >= naive, targets_NL, known_NL).mean())
    assert np.mean(risks) > 0.1 + 3 * np.std(risks, ddof=1) / np.sqrt(300)


def test_a_shared_calibrator_on_the_same_samples_leaves_the_sets_alone() -> None:
    marginals_NL, *truth = simulate(300)
    calibrator = fit_calibrator("shared_platt", logit(marginals_NL), *truth)
    raw = fit_risk_control(marginals_NL, *truth, 0.1)
    calibrated_NL = expit(calibrator.apply(logit(marginals_NL)))
    calibrated = fit_risk_control(calibrated_NL, *truth, 0.1)
    np.testing.assert_array_equal(raw.decide(marginals_NL), calibrated.decide(calibrated_NL))


def test_a_smaller_alpha_has_larger_sets() -> None:
    rows = simulate(300)
    sets = [fit_risk_control(*rows, alpha).decide(rows[0]) for alpha in (0.02, 0.1, 0.3)]
    assert (sets[0] >= sets[1]).all()
    assert (sets[1] >= sets[2]).all()
    assert sets[0].sum() > sets[1].sum() > sets[2].sum()


def test_values_of_unknown_targets_change_nothing() -> None:
    marginals_NL, targets_NL, _ = simulate(200)
    known_NL = np.random.default_rng(0).random(targets_NL.shape) < 0.7
    fitted = fit_risk_control(marginals_NL, targets_NL, known_NL, 0.1)
    turned_NL = np.where(known_NL, targets_NL, ~targets_NL)
    assert fit_risk_control(marginals_NL, turned_NL, known_NL, 0.1) == fitted


def test_samples_without_a_label_stated_present_are_left_out() -> None:
    marginals_NL, targets_NL, known_NL = simulate(200)
    without = marginals_NL[:90], np.zeros_like(targets_NL[:90]), known_NL[:90]
    hidden = marginals_NL[:90], targets_NL[:90], known_NL[:90] & ~targets_NL[:90]
    fitted = fit_risk_control(marginals_NL, targets_NL, known_NL, 0.1)
    for more in (without, hidden):
        joined = (np.concatenate(pair) for pair in zip((marginals_NL, targets_NL, known_NL), more, strict=True))
        again = fit_risk_control(*joined, 0.1)
        assert (again.threshold, again.num_samples, again.empirical_risk) == (fitted.threshold, 200, fitted.empirical_risk)


def uneven(num_samples: int, rng: np.random.Generator) -> tuple[Floats, Bools]:
    """Half of the samples have one label, which is hard to see, half have eight, which are easy."""
    marginals_NL, targets_NL = rng.random((num_samples, 9)), np.zeros((num_samples, 9), dtype=bool)
    targets_NL[::2, 0], targets_NL[1::2, 1:] = True, True
    marginals_NL[1::2, 1:] = 0.5 + marginals_NL[1::2, 1:] / 2
    return marginals_NL, targets_NL


def mean_risk_of_the_truth(alpha: float, known: float, known_rate: float | None) -> tuple[float, float]:
    """The mean over 150 draws of the share missed of all labels, and its standard error."""
    rng, risks = np.random.default_rng(0), []
    for _ in range(150):
        (fit_on_NL, fit_targets_NL), (new_NL, new_targets_NL) = uneven(300, rng), uneven(300, rng)
        known_NL = rng.random(fit_on_NL.shape) < known
        fitted = fit_risk_control(fit_on_NL, fit_targets_NL, known_NL, alpha, known_rate=known_rate)
        risks.append(mean_missed_share(fitted.decide(new_NL), new_targets_NL, np.ones_like(new_targets_NL)))
    return float(np.mean(risks)), float(np.std(risks, ddof=1) / np.sqrt(150))


@pytest.mark.parametrize("known", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("alpha", [0.1, 0.2])
def test_the_guarantee_covers_all_labels_where_they_are_missing_at_a_known_rate(known: float, alpha: float) -> None:
    stated, at_known_rate = (mean_risk_of_the_truth(alpha, known, rate) for rate in (None, known))
    assert stated[0] > alpha + 3 * stated[1], "the promise about stated labels would have been enough"
    assert at_known_rate[0] <= alpha + 3 * at_known_rate[1]


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5, 0.9, 1.0])
def test_weights_make_every_image_count_at_least_once_and_at_most_as_the_bound_says(rate: float) -> None:
    n, stated = np.arange(1, 81)[:, None], np.arange(81)
    expected_N = (binom.pmf(stated, n, rate) * conformal._weights(stated, rate)).sum(axis=1)
    assert expected_N.min() == pytest.approx(1, abs=1e-12)
    assert expected_N.max() == pytest.approx(conformal._largest_mean_weight(rate, 80), abs=1e-12)


def test_at_a_known_rate_of_one_the_rule_is_the_plain_one() -> None:
    rows = simulate(200)
    plain, at_rate = fit_risk_control(*rows, 0.1), fit_risk_control(*rows, 0.1, known_rate=1.0)
    assert (plain.threshold, plain.empirical_risk) == (at_rate.threshold, at_rate.empirical_risk)


def test_a_guarantee_says_which_labels_it_covers() -> None:
    marginals_NL, targets_NL, known_NL = simulate(200)
    partly_NL = np.random.default_rng(0).random(targets_NL.shape) < 0.7
    fits = (
        fit_risk_control(marginals_NL, targets_NL, known_NL, 0.1),
        fit_risk_control(marginals_NL, targets_NL, partly_NL, 0.1),
        fit_risk_control(marginals_NL, targets_NL, partly_NL, 0.1, known_rate=0.7),
    )
    beginnings = ("of an image's labels on average", "of the labels stated present", "of an image's labels on average")
    for fitted, beginning in zip(fits, beginnings, strict=True):
        assert fitted.words.startswith(f"misses at most 10 % {beginning}")
    assert "unknown presence are not covered" in fits[1].words
    assert "stated with probability 0.7 at random" in fits[2].words


def test_a_guarantee_of_version_0_1_says_how_images_without_labels_counted() -> None:
    old = RiskControl.from_dict({"threshold": 0.5, "alpha": 0.1, "num_samples": 50, "empirical_risk": 0.08})
    assert old.words.startswith("misses at most 10 % of an image's labels on average, over images like those of the holdout;")
    assert old.words.endswith("an image without one counts as missing nothing")


def test_a_known_rate_that_cannot_be_is_refused() -> None:
    marginals_NL, targets_NL, known_NL = simulate(50)
    with pytest.raises(SpecError, match=r"known_rate 30 is outside \(0, 1\]; it is the share of labels that are stated"):
        fit_risk_control(marginals_NL, targets_NL, known_NL, 0.1, known_rate=30)
    with pytest.raises(SpecError, match=r"known_rate is 0\.3, but every label of the .* samples is known; leave it out"):
        fit_risk_control(marginals_NL, targets_NL, known_NL, 0.1, known_rate=0.3)


def test_samples_without_labels_miss_nothing() -> None:
    targets_NL = np.array([[False, False], [True, True], [True, False]])
    risk_N = missed_share(np.zeros_like(targets_NL), targets_NL, np.ones_like(targets_NL))
    assert risk_N.tolist() == [0.0, 1.0, 1.0]
    assert missed_share(targets_NL, targets_NL, np.ones_like(targets_NL)).tolist() == [0.0, 0.0, 0.0]


def test_samples_without_any_label_carry_no_guarantee() -> None:
    with pytest.raises(CalibrationError, match="samples with a label stated present, found none; add samples"):
        fit_risk_control(np.full((9, 2), 0.4), np.zeros((9, 2), dtype=bool), np.ones((9, 2), dtype=bool), 0.1)


def test_the_fewest_samples_put_every_label_in() -> None:
    marginals_NL, targets_NL, known_NL = simulate(9)
    fitted = fit_risk_control(marginals_NL, targets_NL, known_NL, 0.1)  # (0 + 1) / 10 <= 0.1, and no miss is allowed
    assert fitted.threshold == marginals_NL[targets_NL].min()
    assert fitted.empirical_risk == 0


def test_float32_marginals_are_decided_as_they_were_fitted() -> None:
    marginals_NL, targets_NL, known_NL = simulate(200)
    marginals_NL = marginals_NL.astype(np.float32)
    fitted = fit_risk_control(marginals_NL, targets_NL, known_NL, 0.1)
    assert missed_share(fitted.decide(marginals_NL), targets_NL, known_NL).mean() == pytest.approx(fitted.empirical_risk)


def test_the_threshold_equals_that_of_mapie() -> None:
    mapie = pytest.importorskip("mapie.risk_control", reason="the oracle MAPIE is not installed")
    marginals_NL, targets_NL, known_NL = simulate(150, num_labels=5)
    has_labels_N = targets_NL.any(axis=1)  # MAPIE refuses others
    marginals_NL, targets_NL, known_NL = marginals_NL[has_labels_N], targets_NL[has_labels_N], known_NL[has_labels_N]
    grid = np.unique(marginals_NL[targets_NL])
    for alpha in (0.0531, 0.1283, 0.3077):  # where no sum of shares ties with alpha, which MAPIE decides the other way
        oracle = mapie.MultiLabelClassificationController(
            predict_function=lambda values: values,
            risk="recall",
            method="crc",
            target_level=1 - alpha,
            predict_params=grid - 1e-12,
        )
        oracle.calibrate(marginals_NL, targets_NL)
        ours = fit_risk_control(marginals_NL, targets_NL, known_NL, alpha)
        assert ours.threshold == pytest.approx(float(oracle.best_predict_param[0]), abs=1e-9)


def test_stored_risk_control_is_equal() -> None:
    fitted = fit_risk_control(*simulate(50), 0.1)
    assert RiskControl.from_dict(fitted.to_dict()) == fitted
    with pytest.raises(BundleError, match=r"cannot be read \(ValueError\(\"covers 'all'\"\)\)"):
        RiskControl.from_dict({**fitted.to_dict(), "covers": "all"})
    with pytest.raises(
        BundleError, match=r"stored risk control cannot be read \(KeyError\('alpha'\)\); write the bundle again"
    ):
        RiskControl.from_dict({"threshold": 0.5})


def test_too_few_samples_say_how_many_and_which_alpha() -> None:
    rows = simulate(50)
    with pytest.raises(
        CalibrationError, match=r"alpha 0\.01 needs 99 calibration samples with a label, found 50; .* 0\.0197 or more"
    ):
        fit_risk_control(*rows, 0.01)
    fit_risk_control(*rows, 0.0197)
    ninety_nine = simulate(99)
    assert fit_risk_control(*ninety_nine, 0.01).num_samples == 99


@pytest.mark.parametrize("alpha", [0.0, 1.0, 5.0])
def test_an_alpha_that_is_no_share_is_refused(alpha: float) -> None:
    with pytest.raises(SpecError, match=r"is outside \(0, 1\); it is the share of labels that may be missed, such as 0\.1"):
        fit_risk_control(*simulate(50), alpha)


def test_logits_are_refused() -> None:
    with pytest.raises(CalibrationError, match="not within 0 and 1; pass probabilities, not logits"):
        fit_risk_control(np.full((4, 2), -3.0), np.ones((4, 2)), np.ones((4, 2)), 0.5)
