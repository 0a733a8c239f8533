"""`rayprob calibrate`: from a run's holdout predictions to a bundle with calibrated marginals, thresholds and guarantees.

Everything is fitted on holdout; val is only reported on. N samples, L labels.

A guarantee assumes that holdout and later images are exchangeable. The run chose its checkpoint on holdout, so strictly
speaking they are not; comparing the missed share on val with the guaranteed one shows what that costs.
"""

import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from rayprob.calibrate.comparison import Comparison, compare
from rayprob.calibrate.crossfit import AUTO, MIN_HOLDOUT, CalibrateSpec, CrossFit, Priors, cross_fit, keeps_order
from rayprob.calibrate.find_priors import find_priors
from rayprob.calibrate.prior_notes import prior_notes
from rayprob.calibrate.screen import worth_trying
from rayprob.errors import CalibrationError, RunError, SpecError
from rayprob.files import storage
from rayprob.probability.calibration.holdout import FEW
from rayprob.probability.calibration.prior import PriorCalibrator
from rayprob.probability.decisions.conformal import RiskControl
from rayprob.probability.decisions.rules import RECALL, Rules
from rayprob.probability.decisions.thresholds import Thresholds
from rayprob.probability.families import FAMILIES, family_of
from rayprob.registry import unknown
from rayprob.runs.bundle import Bundle
from rayprob.runs.card import carded
from rayprob.runs.finished import REPORTED, holdout_split, open_bundle, split_to_report, staleness
from rayprob.runs.paths import RunFolder
from rayprob.runs.predictions import Predictions
from rayprob.text import columns, counted, printable

MOST_WORSE = 0.005  # of ECE: half a percentage point


@dataclass(frozen=True, repr=False)
class CalibrationReport:
    """What was fitted and how good it is: cross-fitted on holdout, and on val if it has predictions."""

    run: str
    method: str
    reason: str
    nll_by_method: dict[str, float]  # cross-validated, nats per image
    holdout: Comparison
    reported: Comparison | None
    thresholds: dict[str, Thresholds]
    guarantees: dict[str, RiskControl]
    notes: tuple[str, ...]
    spec: CalibrateSpec

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {
            **{name: getattr(self, name) for name in ("run", "method", "reason", "nll_by_method")},
            "holdout": asdict(self.holdout),
            "reported": asdict(self.reported) if self.reported else None,
            "thresholds": {name: thresholds.to_dict() for name, thresholds in self.thresholds.items()},
            "guarantees": {alpha: control.to_dict() for alpha, control in self.guarantees.items()},
            "notes": list(self.notes),
            "spec": self.spec.model_dump(mode="json"),
        }

    def __repr__(self) -> str:
        splits = [self.holdout, *([self.reported] if self.reported else [])]
        rows = [("before -> after", *(f"{at.split} ({at.num_samples:,} images)" for at in splits))]
        for title, name in (("ECE", "ECE"), ("Brier", "Brier"), ("NLL per image", "nll_nats")):
            rows.append((title, *(f"{getattr(at.before, name):.4f} -> {getattr(at.after, name):.4f}" for at in splits)))
        rules = ", ".join((*self.thresholds, *(f"{RECALL}{alpha}" for alpha in self.guarantees)))
        notes = "".join(f"\nnote: {note}" for note in self.notes)
        return f"{printable(self.run)}, calibrated by {self.reason}\n{columns(rows)}\nrules: {rules}{notes}"


def calibrate(folder: str, spec: CalibrateSpec) -> CalibrationReport:
    """Fit on a run's holdout predictions, store the result in its bundle with a new card, and write `calibration.json`.

    An already calibrated bundle is calibrated again; equal predictions give equal numbers. Raises as `fit_run`.
    """
    bundle, report = fit_run(folder, spec)
    with carded(folder, bundle):
        bundle.save(RunFolder(folder).bundle)
        storage.write_text(RunFolder(folder).calibration, json.dumps(report.to_dict(), indent=1))
    return report


def fit_run(folder: str, spec: CalibrateSpec) -> tuple[Bundle, CalibrationReport]:
    """Return a run's bundle with everything fitted on its holdout predictions, and a report on it; write nothing.

    Raises RunError for a folder without a bundle or its predictions, CalibrationError if the samples do not allow the fit,
    SpecError for an unknown method.
    """
    bundle, fit, holdout, priors = _fitted(folder, spec)
    return bundle, report_on(folder, bundle, fit, holdout, spec, priors)


def fit_bundle(folder: str, spec: CalibrateSpec) -> Bundle:
    """Return the bundle of `fit_run` without the report, which takes longer than the fit for some families."""
    return _fitted(folder, spec)[0]


def _fitted(folder: str, spec: CalibrateSpec) -> tuple[Bundle, CrossFit, Predictions, Priors]:
    bundle = open_bundle(folder)  # first, because its plugins may register methods
    check_method(spec)
    holdout = open_holdout(folder, bundle)
    priors = worth_trying(holdout, spec, find_priors(bundle, spec.prior))
    fit = cross_fit(holdout, spec, priors)
    return calibrated(bundle, fit, holdout), fit, holdout, priors


def check_method(spec: CalibrateSpec) -> None:
    """Raise SpecError for a method that no family has."""
    methods = (AUTO, *dict.fromkeys(name for family in FAMILIES.values() for name in family.candidates.fits))
    if spec.method not in methods:
        raise SpecError(unknown(spec.method, methods, "calibration method"))


def open_holdout(folder: str, bundle: Bundle) -> Predictions:
    """Return the holdout predictions of this bundle. Raises RunError if there are none, CalibrationError for too few."""
    split = holdout_split(bundle.facts.get("run"))
    if split is None:
        raise RunError(
            "the bundle does not name the split on which its run chose a checkpoint; calibrate one that `rayprob train` wrote"
        )
    path = RunFolder(folder).predictions(split)
    renew = f"`rayprob evaluate {folder} --split {split}` writes them"
    if not storage.exists(path):
        raise RunError(f"{path} is missing, but calibration is fitted on the predictions of {split}; {renew}")
    holdout = Predictions.read(path)
    stale = staleness(holdout, bundle)
    if stale:
        raise RunError(f"{path} does not come from this bundle ({stale}); {renew}")
    num_stated = int(holdout.known_NL.any(axis=1).sum())
    if num_stated < MIN_HOLDOUT:
        raise CalibrationError(
            f"{path} has {counted(num_stated, 'sample')} with a known label; calibration needs at least {MIN_HOLDOUT}, and "
            "hundreds to be worthwhile; make the holdout larger: holdout.fraction in the recipe"
        )
    return replace(holdout, facts={"split": split, **holdout.facts})


def calibrated(bundle: Bundle, fit: CrossFit, holdout: Predictions) -> Bundle:
    """Return the bundle with everything that was fitted, and its origin."""
    origin: dict[str, Any] = {
        "method": fit.choice.calibrator.name,
        "split": holdout.facts["split"],
        "num_samples": len(holdout),
    }
    if isinstance(fit.choice.calibrator, PriorCalibrator):
        origin["prior"] = {"name": fit.choice.calibrator.prior_name, "strength": fit.choice.calibrator.strength}
    return replace(
        bundle,
        calibrator=fit.choice.calibrator,
        thresholds=fit.fitted.rules.thresholds,
        guarantees=fit.fitted.rules.guarantees,
        facts={**bundle.facts, "calibration": origin},
    )


def report_on(
    folder: str, bundle: Bundle, fit: CrossFit, holdout: Predictions, spec: CalibrateSpec, priors: Priors
) -> CalibrationReport:
    """Return the numbers of the calibrated bundle: cross-fitted on holdout, and on val."""
    reported, stale = compare_reported(folder, bundle)
    only_in_folds = {rule: why for rule, why in fit.left_out.items() if rule not in fit.fitted.impossible}
    unjudged = (f"{rule} has no cross-fitted numbers: on a part of holdout, {why}" for rule, why in only_in_folds.items())
    is_chosen = spec.method == AUTO or bool(fit.choice.nll_by_name)
    judged = compare(holdout, fit.distribution, fit.sets)
    worse = [note for split in (judged, reported) if split for note in worse_notes(split)]
    fitted_notes = (*prior_notes(fit.choice, priors), *worse, *notes_on(fit, holdout, spec))
    return CalibrationReport(
        run=str(bundle.facts["run"].get("name", "unnamed")),
        method=fit.choice.calibrator.name,
        reason=fit.choice.reason if is_chosen else f"{fit.choice.calibrator.name}: named, not chosen",
        nll_by_method=fit.choice.nll_by_name,
        holdout=judged,
        reported=reported,
        thresholds=dict(fit.fitted.rules.thresholds),
        guarantees=dict(fit.fitted.rules.guarantees),
        notes=(*few_notes(holdout), *fitted_notes, *unjudged, *stale),
        spec=spec,
    )


def compare_reported(folder: str, bundle: Bundle) -> tuple[Comparison | None, list[str]]:
    """Return the numbers of the bundle on val if it has predictions, otherwise a note."""
    predictions, notes = open_reported(folder, bundle, then="calibrate")
    if predictions is None:
        return None, notes
    distribution = bundle.distribution(predictions.outputs)
    marginals_NL = distribution.marginals()
    rules = Rules(bundle.thresholds, bundle.guarantees)
    return compare(predictions, distribution, {rule: rules.decide(marginals_NL, rule) for rule in ("0.5", *rules.fitted)}), []


def open_reported(folder: str, bundle: Bundle, *, then: str) -> tuple[Predictions | None, list[str]]:
    """Return the predictions of val, or why there are none; `then` is the command to repeat once there are.

    Of a dataset without val there never are any, so there is no note.
    """
    path = RunFolder(folder).predictions(REPORTED)
    renew = f"`rayprob evaluate {folder} --split {REPORTED}` writes them, then {then} again"
    if not storage.exists(path):
        has_val = split_to_report(folder) == REPORTED
        return None, [f"no predictions of {REPORTED} to report on: {renew}"] if has_val else []
    predictions = Predictions.read(path)
    if stale := staleness(predictions, bundle):
        return None, [f"the predictions of {REPORTED} do not come from this bundle ({stale}): {renew}"]
    return predictions, []


def few_notes(holdout: Predictions) -> list[str]:
    """Return a warning where fewer than FEW samples state a label: everything is fitted on those."""
    num_stated = int(holdout.known_NL.any(axis=1).sum())
    if num_stated >= FEW:
        return []
    return [
        f"{num_stated} images with a known label are few: what is fitted on less than {FEW} may do worse on new images than "
        "the outputs as they are; make the holdout larger (holdout.fraction in the recipe)"
    ]


def worse_notes(judged: Comparison) -> list[str]:
    """Return a warning where calibration makes the ECE clearly worse, as may happen while the likelihood improves."""
    before, after = judged.before.ECE, judged.after.ECE
    if after <= before + MOST_WORSE:
        return []
    return [
        f"calibration raises ECE from {before:.4f} to {after:.4f} on {judged.split}: it is chosen by "
        "likelihood on holdout; method identity and prior none leave the marginals as they are"
    ]


def notes_on(fit: CrossFit, holdout: Predictions, spec: CalibrateSpec) -> list[str]:
    """Return notes on the fit for its user, with labels by name."""
    num_stated = int(holdout.known_NL.any(axis=1).sum())
    candidates = family_of(holdout.family).candidates
    tried = candidates.enough(num_stated)
    untried = [f"{name} ({candidates.min_samples[name]:,})" for name in candidates.fits if name not in tried]
    notes = [f"{num_stated:,} samples are too few to try {', '.join(untried)}"] if untried and spec.method == AUTO else []
    if fit.fitted.rules.guarantees and not keeps_order(holdout, fit.choice.calibrator):
        notes.append("guarantees are fitted on cross-fitted marginals: they hold up to the error of the calibrator's own fit")
    if fit.fitted.rules.guarantees:
        notes += _coverage_notes(holdout, spec)
    notes += [f"{rule} is not possible: {why}" for rule, why in fit.fitted.impossible.items()]
    for rule, thresholds in fit.fitted.rules.thresholds.items():
        notes += [f"{rule}: {note}" for note in thresholds.notes]
    return [re.sub(r"label column (\d+)", lambda found: holdout.label_space.names[int(found[1])], note) for note in notes]


def _coverage_notes(holdout: Predictions, spec: CalibrateSpec) -> list[str]:
    """Return which labels guarantees cover, if some are unknown."""
    if holdout.known_NL.all():
        return []
    share = f"{1 - float(holdout.known_NL.mean()):.1%} of the labels of {holdout.facts['split']} are unknown"
    if spec.known_rate is None:
        return [
            f"{share}: guarantees cover the labels stated present, not the unknown ones; if labels are missing at random, "
            "pass --known-rate R (the share of present labels that are stated) to cover all labels"
        ]
    return [
        f"{share}: guarantees cover all labels, provided that each present label is stated with probability "
        f"{spec.known_rate:g}, whatever the label and image; `missed` is measured on stated labels only"
    ]
