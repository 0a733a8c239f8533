"""What the page reads from a run's folder. What is missing becomes a note with the command that creates it."""

from dataclasses import dataclass
from typing import Any

from pydantic import Field

from rayprob.config import strict_yaml
from rayprob.data.joined.dataset import AnyDataset
from rayprob.errors import LabelError, RayprobError, RunError, SpecError
from rayprob.files import storage
from rayprob.files.documents import Shape, read_json, require_shape
from rayprob.runs.bundle import Bundle
from rayprob.runs.data_spec import DataSpec
from rayprob.runs.finished import REPORTED, holdout_split, split_to_report, staleness
from rayprob.runs.history_rows import read_history
from rayprob.runs.kinds import require_run
from rayprob.runs.paths import TABLE, RunFolder
from rayprob.runs.predictions import Predictions

NO_SPLIT = "holdout"  # what a run file without `evaluation.split` chooses on


@dataclass(frozen=True)
class Note:
    """Something that a reader of the page should know, and the command that changes it ("" if there is no such command)."""

    text: str
    command: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.command}".rstrip()


@dataclass(frozen=True)
class RunFiles:
    """A run as read from its folder; `predictions` is the split that the page is about."""

    folder: str
    run: dict[str, Any]
    history: list[dict[str, Any]]
    split: str
    predictions: Predictions
    holdout: Predictions | None
    bundle: Bundle | None  # None unless this bundle made the predictions
    calibration: dict[str, Any] | None
    dataset: AnyDataset | None
    notes: tuple[Note, ...]

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.run.get("name", "unnamed"))

    @property
    def chosen_on(self) -> str:
        """The split on which the run was allowed to choose."""
        return chosen_on(self.run)


def open_run_files(folder: str, split: str | None) -> RunFiles:
    """Read a run's folder. `split` None means val, or holdout if there are no predictions of val.

    Raises RunError if the folder is not a run's, or has no predictions of the split.
    """
    run = read_run(folder)
    holdout_name = chosen_on(run)
    chosen = choose_split(folder, holdout_name, split)
    predictions = read_predictions(folder, chosen)
    notes = [] if split or chosen == REPORTED else [_without_val(folder, chosen)]
    bundle, bundle_notes = open_own_bundle(folder, predictions)
    dataset, dataset_notes = open_dataset(run, predictions)
    holdout = read_predictions(folder, holdout_name) if has_predictions(folder, holdout_name) else None
    return RunFiles(
        folder=folder,
        run=run,
        history=read_history(folder),
        calibration=_read_calibration(folder),
        split=chosen,
        predictions=predictions,
        holdout=holdout,
        bundle=bundle,
        dataset=dataset,
        notes=(*notes, *bundle_notes, *dataset_notes),
    )


class _ModelShape(Shape):
    head: dict[str, Any] = Field(default={})


class _RunShape(Shape):
    """The parts of a run file that the page reads."""

    data: dict[str, Any] = Field(default={})
    model: _ModelShape = Field(default=_ModelShape())
    evaluation: dict[str, Any] = Field(default={})


class _CalibrationShape(Shape):
    """The parts of calibration.json that the page reads."""

    method: str = ""
    reason: str = ""
    notes: list[str] = Field(default=[])


def read_run(folder: str) -> dict[str, Any]:
    """Return run.yaml as plain values. Raises RunError if it is missing or not a mapping."""
    require_run(folder)
    uri = RunFolder(folder).run_file
    try:
        run = strict_yaml.plain(strict_yaml.load(storage.read_bytes(uri), uri))
    except SpecError as error:
        raise RunError(f"{error}; `rayprob train` writes it again") from error
    return require_shape(run, _RunShape, uri, error=RunError, remedy="`rayprob train` writes it again")


def chosen_on(run: dict[str, Any]) -> str:
    """Return the split on which a run may choose."""
    return holdout_split(run) or NO_SPLIT


def choose_split(folder: str, holdout: str, split: str | None) -> str:
    """Return the split to report on: the requested one, else val, else holdout. Raises RunError that lists the splits found."""
    wanted = [split] if split else [REPORTED, holdout]
    found = next((name for name in wanted if has_predictions(folder, name)), None)
    if found is not None:
        return found
    names = storage.list_names(RunFolder(folder).all_predictions)
    there = ", ".join(name.removesuffix(TABLE) for name in names if name.endswith(TABLE)) or "none"
    missing = " or ".join(wanted)
    raise RunError(
        f"{folder} has no predictions of {missing} (found: {there}); once the run has finished, "
        f"`rayprob evaluate {folder} --split {split or split_to_report(folder)}` writes them"
    )


def has_predictions(folder: str, split: str) -> bool:
    """Return whether the folder has predictions of a split."""
    return storage.exists(RunFolder(folder).predictions(split))


def read_predictions(folder: str, split: str) -> Predictions:
    """Return the predictions of a split. Raises MetricError for a damaged table."""
    return Predictions.read(RunFolder(folder).predictions(split))


def open_own_bundle(folder: str, predictions: Predictions) -> tuple[Bundle | None, list[Note]]:
    """Return the bundle that made the predictions, and notes on what is missing."""
    paths = RunFolder(folder)
    if not paths.has_bundle:
        return None, [Note("The run is not finished and has no bundle yet, so nothing on this page is calibrated.")]
    bundle = Bundle.load(paths.bundle)
    if staleness(predictions, bundle):
        renew = f"rayprob evaluate {folder} --split {predictions.facts.get('split', REPORTED)}"
        return None, [Note("The predictions are older than the bundle, so its calibration is not applied.", renew)]
    if bundle.calibrator is None and not bundle.thresholds:
        return bundle, [Note("Not calibrated yet: no calibrator, thresholds or guarantees.", f"rayprob calibrate {folder}")]
    return bundle, []


def open_dataset(run: dict[str, Any], predictions: Predictions) -> tuple[AnyDataset | None, list[Note]]:
    """Return the run's dataset, and a note if it is missing or has changed."""
    try:
        data = DataSpec.parse(run.get("data"), under="data")
        dataset = data.at(predictions.facts.get("dataset_fingerprint")).open()
        predictions.label_space.require_same(dataset.label_space, "the predictions", dataset.root)
    except (RayprobError, LabelError) as error:
        return None, [Note(f"The dataset cannot be opened, so the page has no images and no object sizes: {error}")]
    stated = predictions.facts.get("dataset_fingerprint", dataset.fingerprint)
    if stated != dataset.fingerprint:
        return None, [Note(f"The dataset at {dataset.root} was rebuilt after the run, so the page shows no images.")]
    return dataset, []


def _read_calibration(folder: str) -> dict[str, Any] | None:
    uri, remedy = RunFolder(folder).calibration, f"`rayprob calibrate {folder}` writes it again"
    return read_json(uri, _CalibrationShape, error=RunError, remedy=remedy) if storage.exists(uri) else None


def _without_val(folder: str, chosen: str) -> Note:
    shown = f"so this page shows {chosen}, on which the run chose its checkpoint: these numbers are optimistic."
    if split_to_report(folder) != REPORTED:
        return Note(f"The dataset has no split {REPORTED}, {shown}")
    return Note(f"There are no predictions of {REPORTED}, {shown}", f"rayprob evaluate {folder}")
