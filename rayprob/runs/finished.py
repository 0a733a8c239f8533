"""Reading a finished run: its bundle, the predictions that belong to it, the split it chose on and the split it reports."""

from collections.abc import Mapping
from typing import Any

from rayprob.config import strict_yaml
from rayprob.errors import RayprobError
from rayprob.files import storage
from rayprob.runs.bundle import Bundle
from rayprob.runs.data_spec import DataSpec
from rayprob.runs.kinds import require_finished
from rayprob.runs.paths import RunFolder
from rayprob.runs.predictions import Predictions

REPORTED = "val"  # the split on which nothing is chosen
ORIGIN = ("run_fingerprint", "step")  # facts that predictions share with the bundle that made them


def open_bundle(folder: str) -> Bundle:
    """Return the bundle of the run in `folder`. Raises RunError for an unfinished run and for the folder of a bundle."""
    require_finished(folder)
    return Bundle.load(RunFolder(folder).bundle)


def holdout_split(run: Any) -> str | None:
    """Return the split on which a run was allowed to choose, from its run file as plain data; None if it does not name one."""
    evaluation = run.get("evaluation") if isinstance(run, Mapping) else None
    return str(evaluation["split"]) if isinstance(evaluation, Mapping) and "split" in evaluation else None


def split_to_report(folder: str) -> str:
    """Return the split to report a run on: val, or the one that the run chose on if its dataset has no val.

    A run or dataset that cannot be read is taken to have val.
    """
    uri = RunFolder(folder).run_file
    try:
        run = strict_yaml.plain(strict_yaml.load(storage.read_bytes(uri), uri))
        chosen_on = holdout_split(run)
        splits = DataSpec.parse(run.get("data"), under="data").open().splits if chosen_on else (REPORTED,)
    except RayprobError:
        return REPORTED
    return REPORTED if chosen_on is None or REPORTED in splits else chosen_on


def staleness(predictions: Predictions, bundle: Bundle) -> str:
    """Return how the origin of predictions differs from the bundle's, "" if it does not differ.

    Raises LabelError if their labels differ.
    """
    bundle.label_space.require_same(predictions.label_space, "the bundle", "its predictions")
    keys = [key for key in ORIGIN if predictions.facts.get(key) != bundle.facts.get(key)]
    return ", ".join(f"{key} {predictions.facts.get(key)}, the bundle's {bundle.facts.get(key)}" for key in keys)
