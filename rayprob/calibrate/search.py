"""`rayprob calibrate --search FILE`: finds the calibrator and the rule for label sets that suit a run best.

It trains nothing: it judges thousands of candidates per second on the saved holdout predictions of a run (`candidates.py`). For
each objective, the family with the highest nested value wins, and within it the candidate with the highest cross-validated
value. Only the winners and two references are then reported on val: 0.5, and the global threshold that is best on holdout, both
on uncalibrated marginals.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayprob.calibrate.candidates import GLOBAL, RuleCandidates, global_candidates, judge, policies_of
from rayprob.calibrate.crossfit import AUTO, fold_up
from rayprob.calibrate.fitting import open_holdout, open_reported
from rayprob.calibrate.search_spec import ThresholdSearch, ThresholdSearchSpec
from rayprob.calibrate.winners import Reference, Winner, references_of, winner_of
from rayprob.errors import CalibrationError
from rayprob.files import storage
from rayprob.probability.decisions.cuts import OBJECTIVES
from rayprob.probability.families import family_of
from rayprob.registry import choose
from rayprob.runs.finished import open_bundle
from rayprob.runs.paths import RunFolder
from rayprob.runs.predictions import Predictions
from rayprob.text import counted

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SearchReport:
    """What was searched, how fast, which candidates won and by how much."""

    run: str
    folder: str
    num_samples: int
    num_labels: int
    num_reported: int | None
    num_candidates: int
    elapsed_s: float  # of the search on holdout, including all fits
    winners: tuple[Winner, ...]
    references: tuple[Reference, ...]
    families: tuple[RuleCandidates, ...]  # only those with values
    notes: tuple[str, ...]

    @property
    def candidates_per_s(self) -> float:
        """All candidates divided by the total time."""
        return self.num_candidates / self.elapsed_s

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON; of a family, the number of candidates and the nested values."""
        families = [
            {"calibrator": one.calibrator, "policy": one.policy, "num_candidates": len(one.parameters_C), "nested": one.nested}
            for one in self.families
        ]
        return {**asdict(replace(self, families=())), "families": families, "candidates_per_s": self.candidates_per_s}


def search_thresholds(spec: ThresholdSearch, on_progress: Progress = lambda done, total: None) -> SearchReport:
    """Search a run's holdout predictions, report the winners on val, and write both into the run's folder.

    Equal files give equal winners. Raises RunError for a folder without a bundle or its predictions, CalibrationError if the
    samples do not allow a fit, SpecError for unknown names.
    """
    asked = spec.thresholds
    bundle = open_bundle(asked.run)
    holdout = open_holdout(asked.run, bundle)
    started_at_s = time.perf_counter()
    families = search(asked, holdout, on_progress)
    elapsed_s = time.perf_counter() - started_at_s
    val, missing = open_reported(asked.run, bundle, then="search")
    optimum = global_candidates(holdout, fold_up(holdout, "identity", asked.folding))
    references = {aim: references_of(aim, holdout, optimum, val) for aim in asked.objectives}
    winners = [winner_of(asked, aim, families, references[aim], holdout, val) for aim in asked.objectives]
    report = SearchReport(
        run=str(bundle.facts["run"].get("name", "unnamed")),
        folder=asked.run,
        num_samples=len(holdout),
        num_labels=len(holdout.label_space),
        num_reported=len(val) if val else None,
        num_candidates=sum(len(one.parameters_C) for one in families),
        elapsed_s=elapsed_s,
        winners=tuple(winners),
        references=tuple(one for found in references.values() for one in found),
        families=tuple(family for family in families if family.nested),
        notes=(*notes_on(holdout, families, winners), *missing),
    )
    write(asked.run, families, report)
    return report


def search(spec: ThresholdSearchSpec, holdout: Predictions, on_progress: Progress) -> list[RuleCandidates]:
    """Judge every candidate by cross-validation on holdout alone. Raises CalibrationError if none is left."""
    families: list[RuleCandidates] = []
    methods = methods_of(spec, holdout)
    for place, method in enumerate(methods):
        folds = fold_up(holdout, method, spec.folding)
        families += [global_candidates(holdout, folds)] if GLOBAL in spec.policies else []
        families += [judge(policy, folds) for policy in policies_of(spec)]
        on_progress(place + 1, len(methods))
    if not any(family.nested for family in families):
        why = next(reason for family in families for reason in family.left_out)
        raise CalibrationError(f"no requested candidate can be fitted; the first: {why}")
    return families


def methods_of(spec: ThresholdSearchSpec, holdout: Predictions) -> tuple[str, ...]:
    """Return the calibrators to try, the simplest first; by default those for which the holdout has enough samples."""
    candidates = family_of(holdout.family).candidates
    if spec.calibrators == AUTO:
        return candidates.enough(int(holdout.known_NL.any(axis=1).sum()))
    for name in spec.calibrators:
        choose(candidates.fits, name, f"calibrator of a {holdout.family} distribution")
    return tuple(dict.fromkeys(spec.calibrators))


def notes_on(holdout: Predictions, families: Sequence[RuleCandidates], winners: Sequence[Winner]) -> Iterator[str]:
    """Yield notes on the search for its user: what lost and why, what could not be tried, which gains may be chance."""
    for winner in winners:
        yield from _labels_against_global(winner.objective, holdout, families)
    for policy in dict.fromkeys(family.policy for family in families):
        if why := [reason for family in families if family.policy == policy for reason in family.left_out]:
            yield f"{policy}: {counted(len(why), 'candidate')} left out, such as: {why[0]}"
    for winner in winners:
        if winner.rule is None:
            remedy = "leave it out of thresholds.policies to search only rules that bundles have"
            yield f"{winner.objective}: bundles have no rule {winner.policy}; {remedy}"
        for gain in winner.gains:
            if gain.metric == winner.objective and gain.low < gain.high and not gain.is_clear:
                interval = f"the interval over images is [{gain.low:+.4f}, {gain.high:+.4f}]"
                yield f"{winner.objective}: the gain over {gain.over} on val, {gain.value:+.4f}, may be chance: {interval}"


def _labels_against_global(objective: str, holdout: Predictions, families: Sequence[RuleCandidates]) -> Iterator[str]:
    nested = [(family.policy, family.nested[objective]) for family in families if family.nested]
    for_all = max((value for policy, value in nested if policy == GLOBAL), default=None)
    by_label = max((value for policy, value in nested if policy.startswith("label_")), default=None)
    if by_label is not None and for_all is not None and by_label <= for_all:
        positives_L = (holdout.targets_NL & holdout.known_NL).sum(axis=0)
        yield (
            f"{objective}: one threshold per label does not beat a global one, {by_label:.4f} against {for_all:.4f} "
            f"cross-validated: {len(holdout):,} images have {np.median(positives_L):g} positives of the median label and none "
            f"of {np.count_nonzero(positives_L == 0)} labels; a larger holdout may change this"
        )


def write(folder: str, families: Sequence[RuleCandidates], report: SearchReport) -> None:
    """Write every candidate as a row of `threshold_search.parquet`, and the report as `threshold_search.json`.

    A row has calibrator, policy, parameter (null for a policy without one) and cross-validated values.
    """
    sizes = [len(family.parameters_C) for family in families]
    columns: dict[str, Any] = {
        name: pa.array(np.repeat([getattr(family, name) for family in families], sizes)).dictionary_encode()
        for name in ("calibrator", "policy")
    }
    parameters = np.concatenate([family.parameters_C for family in families])
    columns["parameter"] = pa.array(parameters, mask=np.isnan(parameters))
    columns |= {name: np.concatenate([family.values[name] for family in families]) for name in OBJECTIVES}
    with storage.atomic_writer(RunFolder(folder).threshold_candidates) as file:
        pq.write_table(pa.table(columns), file, compression="zstd")
    storage.write_text(RunFolder(folder).threshold_search, json.dumps(report.to_dict(), indent=1))
