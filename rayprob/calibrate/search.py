"""`rayprob tune` on a file with `thresholds:`: which calibrator and which rule for label sets suit a run best.

Without training: thousands of candidates a second on the saved predictions of a run's holdout (`candidates.py` says what a
candidate is, and how it is judged). For each objective the family of the highest nested value wins, and in it the candidate of
the highest cross-validated value. The winners alone, and the two references that they have to beat, are then reported on val:

    0.5             a label is present where its marginal, as the network says it, is at least 0.5
    global optimum  the one threshold for all that is best on holdout, on marginals as the network says them
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayprob.calibrate.candidates import GLOBAL, Family, fitted_families, fold_up, global_family, policies_of
from rayprob.calibrate.crossfit import AUTO, CalibrateSpec
from rayprob.calibrate.fitting import open_bundle, open_holdout, open_reported
from rayprob.calibrate.search_report import Ranked, SearchReport
from rayprob.calibrate.search_spec import SearchSpec, ThresholdSearch
from rayprob.calibrate.winners import notes_on, references_of, winner_of
from rayprob.errors import CalibrationError
from rayprob.files import storage
from rayprob.probability.decisions.cuts import OBJECTIVES
from rayprob.probability.families import family_of
from rayprob.registry import choose
from rayprob.runs.bundle import Bundle
from rayprob.runs.predictions import Predictions

__all__ = ["SearchReport", "ThresholdSearch", "search_thresholds"]

TABLE_FILE, REPORT_FILE = "threshold_search.parquet", "threshold_search.json"


@dataclass(frozen=True)
class Searched:
    """The families of a holdout, and the time that they took."""

    families: list[Family]
    optimum: Family  # of the global policy on marginals as they are
    elapsed_s: float
    cuts_elapsed_s: float


def search_thresholds(
    spec: ThresholdSearch, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> SearchReport:
    """Search a run's holdout predictions, report the winners on val, and write both into the run's folder.

    Equal files give equal winners. Raises RunError for a folder without a bundle or predictions of it, CalibrationError for
    samples that cannot carry a fit, SpecError for unknown names.
    """
    asked = spec.thresholds
    bundle = open_bundle(asked.run)
    holdout = open_holdout(asked.run, bundle)
    searched = search(asked, holdout, methods_of(asked, holdout), on_progress)
    report = report_on(asked, bundle, holdout, searched)
    write(asked.run, searched.families, report)
    return report


def methods_of(spec: SearchSpec, holdout: Predictions) -> tuple[str, ...]:
    """Return the calibrators to try, the simplest first; by default those for which the holdout has the samples."""
    candidates = family_of(holdout.family).candidates
    if spec.calibrators == AUTO:
        return candidates.enough(int(holdout.known_NL.any(axis=1).sum()))
    for name in spec.calibrators:
        choose(candidates.fits, name, f"calibrator of a {holdout.family} distribution")
    return tuple(dict.fromkeys(spec.calibrators))


def search(spec: SearchSpec, holdout: Predictions, methods: Sequence[str], on_progress: Callable[[int, int], None]) -> Searched:
    """Judge every candidate by cross-validation on holdout alone."""
    started_at_s, cuts_elapsed_s = time.perf_counter(), 0.0
    policies = policies_of(
        spec.policies,
        objectives=spec.objectives,
        smoothings=spec.smoothings,
        precisions=spec.precisions,
        levels=spec.conformal_levels,
        top_k_sizes=tuple(k for k in spec.top_k if k <= len(holdout.label_space)),
    )
    families: list[Family] = []
    for place, method in enumerate(methods):
        parts = fold_up(holdout, method, folding(spec))
        if GLOBAL in spec.policies:
            cuts_at_s = time.perf_counter()
            families.append(global_family(holdout, parts))
            cuts_elapsed_s += time.perf_counter() - cuts_at_s
        families += fitted_families(parts, policies)
        on_progress(place + 1, len(methods))
    _require_candidates(families)
    elapsed_s = time.perf_counter() - started_at_s
    optimum = global_family(holdout, fold_up(holdout, "identity", folding(spec)))
    return Searched(families, optimum, elapsed_s, cuts_elapsed_s)


def _require_candidates(families: Sequence[Family]) -> None:
    if not any(len(family.parameters_C) for family in families):
        why = next(reason for family in families for reason in family.left_out)
        raise CalibrationError(f"no candidate is left of those asked for; the first: {why}")


def folding(spec: SearchSpec) -> CalibrateSpec:
    """Return the search's folds as calibration knows them."""
    return CalibrateSpec(num_folds=spec.folds, seed=spec.seed)


def report_on(spec: SearchSpec, bundle: Bundle, holdout: Predictions, searched: Searched) -> SearchReport:
    """Return who won, and what the winners and references are worth on val where there are predictions of it."""
    val, notes = open_reported(spec.run, bundle, then="search")
    references = [reference for aim in spec.objectives for reference in references_of(aim, holdout, searched.optimum, val)]
    winners = [winner_of(spec, aim, holdout, searched.families, val, references) for aim in spec.objectives]
    cuts = sum(len(family.parameters_C) for family in searched.families if family.policy == GLOBAL)
    return SearchReport(
        run=str(bundle.facts["run"].get("name", "unnamed")),
        folder=spec.run,
        num_samples=len(holdout),
        num_labels=len(holdout.label_space),
        num_reported=len(val) if val else None,
        num_cuts=cuts,
        num_fitted=sum(len(family.parameters_C) for family in searched.families) - cuts,
        elapsed_s=searched.elapsed_s,
        cuts_elapsed_s=searched.cuts_elapsed_s,
        winners=tuple(winners),
        references=tuple(references),
        families=tuple(
            Ranked(f.calibrator, f.policy, len(f.parameters_C), dict(f.nested)) for f in searched.families if f.nested
        ),
        notes=(*notes_on(spec, holdout, searched.families, winners), *notes),
    )


def write(folder: str, families: Sequence[Family], report: SearchReport) -> None:
    """Write every candidate as a row of `threshold_search.parquet`, and the report as `threshold_search.json`."""
    with storage.atomic_writer(storage.join(folder, TABLE_FILE)) as file:
        pq.write_table(candidates_table(families), file, compression="zstd")
    storage.write_text(storage.join(folder, REPORT_FILE), json.dumps(report.to_dict(), indent=1))


def candidates_table(families: Sequence[Family]) -> pa.Table:
    """Return calibrator, policy, parameter (null for a policy without one) and cross-validated values of every candidate."""
    sizes = [len(family.parameters_C) for family in families]
    columns: dict[str, Any] = {
        name: pa.array(np.repeat([getattr(family, name) for family in families], sizes)).dictionary_encode()
        for name in ("calibrator", "policy")
    }
    parameters = np.concatenate([family.parameters_C for family in families])
    columns["parameter"] = pa.array(parameters, mask=np.isnan(parameters))
    columns |= {name: np.concatenate([family.values[name] for family in families]) for name in OBJECTIVES}
    return pa.table(columns)
