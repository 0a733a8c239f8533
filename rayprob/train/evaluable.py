"""Models to evaluate: a finished run on its own or another dataset, or a bundle alone. N samples, L labels of the model.

Labels of another dataset are matched by name. Labels that only the model has are unknown there; those that only the dataset
has are left out. Predictions on another dataset are kept apart from those on the run's own.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayprob.data.joined.dataset import AnyDataset
from rayprob.data.manifest.dataset import Dataset
from rayprob.data.manifest.versions import split_version
from rayprob.errors import LabelError, RunError
from rayprob.files import uris
from rayprob.images.reading import ImageReading
from rayprob.labels import LabelSpace, columns_by_name, composed
from rayprob.loader.stream_spec import StreamSpec
from rayprob.runs.bundle import Bundle
from rayprob.runs.finished import open_bundle
from rayprob.runs.folder import open_run
from rayprob.runs.paths import RunFolder, is_bundle
from rayprob.runs.spec import EvaluationSpec, PrecisionSpec, Run
from rayprob.text import first_of

log = logging.getLogger(__name__)
MOST_NAMED = 8  # labels per sentence


@dataclass(frozen=True, eq=False)
class Trained:
    """A run with its bundle, or a bundle alone, and the settings that its predictions are computed with."""

    folder: str
    name: str
    bundle: Bundle
    run: Run | None  # None for a bundle alone
    stream: StreamSpec
    precision: PrecisionSpec
    micro_batch: int

    def dataset(self, data: str | None) -> AnyDataset:
        """Return the dataset at `data`, by default the run's own.

        Raises DatasetError, and LabelError if the labels of the run's own changed.
        """
        if data is not None:
            return Dataset.open(data)
        assert self.run is not None
        return own_dataset(self.run, self.bundle)

    def reading(self, data: str | None) -> ImageReading | None:
        """Return how to read the images of the dataset at `data`; None reads each dataset as it was built, as in training."""
        if self.run is not None and (data is None or _place(data) in map(_place, self.run.data.roots)):
            return own_reading(self.run, self.bundle)
        return self.bundle.reading

    def predictions_path(self, dataset: AnyDataset, split: str, data: str | None) -> str:
        """Return the path of a split's predictions; it is the run's own only if the dataset is the run's own."""
        folder = RunFolder(self.folder)
        is_own = data is None or dataset.fingerprint == self.bundle.facts.get("dataset_fingerprint")
        if self.run is not None and is_own:
            return folder.predictions(split)
        return folder.predictions_on(dataset.fingerprint, split)


def _place(root: str) -> str:
    """Return the folder or URI of a dataset in one spelling, without the version."""
    return uris.absolute(split_version(root)[0]).rstrip("/")


def own_dataset(run: Run, bundle: Bundle) -> AnyDataset:
    """Return the dataset of a run. Raises LabelError if its labels differ from the bundle's."""
    trained_on = bundle.facts.get("dataset_fingerprint")
    dataset = run.data.at(trained_on).open()
    bundle.label_space.require_same(dataset.label_space, f"the bundle of {run.name}", dataset.root)
    if trained_on not in (None, dataset.fingerprint):
        log.warning(
            "%s has other images or labels than those that %s was trained on: its fingerprint is %s, and was %s",
            dataset.root,
            run.name,
            dataset.fingerprint,
            trained_on,
        )
    return dataset


def own_reading(run: Run, bundle: Bundle) -> ImageReading | None:
    """Return how to read the images of a run's dataset; None reads each of several datasets as it was built."""
    return bundle.reading if len(run.data.roots) == 1 else None


def open_trained(folder: str, *, data: str | None = None) -> Trained:
    """Return the run in `folder`, or the bundle, which also needs a dataset.

    Raises RunError for an unfinished run, any other folder, and a bundle without `data`; BundleError for a damaged bundle.
    """
    if is_bundle(folder):
        if data is None:
            raise RunError(f"{folder} is a bundle; give the run's folder, which names its dataset, or a dataset with --data")
        return _bundle_alone(folder)
    run, bundle = open_run(folder), open_bundle(folder)
    return Trained(folder, run.name, bundle, run, run.stream, run.precision, run.evaluation.micro_batch)


def _bundle_alone(folder: str) -> Trained:
    """Return a bundle with the settings of its run, as far as it records them."""
    bundle = Bundle.load(folder)
    stated = bundle.facts.get("run")
    run: Mapping[str, Any] = stated if isinstance(stated, dict) else {}
    parts = {key: run.get(key) or {} for key in ("stream", "precision", "evaluation")}
    where = f"the run that the bundle at {folder} records"
    return Trained(
        folder=folder,
        name=str(run.get("name") or folder),
        bundle=bundle,
        run=None,
        stream=StreamSpec.parse(parts["stream"], where),
        precision=PrecisionSpec.parse(parts["precision"], where),
        micro_batch=EvaluationSpec.parse(parts["evaluation"], where).micro_batch,
    )


@dataclass(frozen=True)
class LabelMatch:
    """The match of a model's labels with a dataset's; `columns` maps the model's columns of common labels to the dataset's."""

    model: LabelSpace
    data: LabelSpace
    columns: Mapping[int, int]

    @classmethod
    def of(cls, model: LabelSpace, data: LabelSpace, root: str) -> "LabelMatch":
        """Match labels by name, those of PASCAL VOC and COCO in either spelling. Raises LabelError if no label is in both."""
        columns = columns_by_name(model.names, data.names)
        if not columns:
            raise LabelError(
                f"no label of {root} ({first_of(data.names, MOST_NAMED)}) is one of the model's "
                f"({first_of(model.names, MOST_NAMED)}); give a dataset with some of these labels, or rename them in its recipe"
            )
        return cls(model, data, columns)

    @property
    def only_model(self) -> tuple[str, ...]:
        """The labels that the dataset lacks."""
        return tuple(name for column, name in enumerate(self.model.names) if column not in self.columns)

    @property
    def only_data(self) -> tuple[str, ...]:
        """The labels that the model lacks."""
        matched = set(self.columns.values())
        return tuple(name for column, name in enumerate(self.data.names) if column not in matched)

    @property
    def renamed(self) -> dict[str, str]:
        """The dataset's name of each of the model's labels that has another name there."""
        pairs = ((self.model.names[column], self.data.names[other]) for column, other in self.columns.items())
        return {name: other for name, other in pairs if composed(name) != composed(other)}

    def of_model(self, table_ND: NDArray[Any], missing: Any) -> NDArray[Any]:
        """Map a table with the dataset's columns [N, D] to the model's [N, L]; columns that the dataset lacks are `missing`."""
        table_NL = np.full((len(table_ND), len(self.model)), missing, dtype=table_ND.dtype)
        table_NL[:, list(self.columns)] = table_ND[:, list(self.columns.values())]
        return table_NL

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {
            "matched": len(self.columns),
            "renamed": self.renamed,
            "only_model": list(self.only_model),
            "only_data": list(self.only_data),
        }

    def sentences(self) -> list[str]:
        """Return sentences on how the labels differ; an empty list if they do not."""
        renamed = [f"{name} = {other}" for name, other in self.renamed.items()]
        told = [f"matched under another name: {first_of(renamed, MOST_NAMED)}"] if renamed else []
        if names := self.only_model:
            told.append(
                f"of the model's {len(self.model)} labels, the dataset lacks {len(names)}, which count as unknown: "
                f"{first_of(names, MOST_NAMED)}"
            )
        return [*told, self.left_out] if self.left_out else told

    @property
    def left_out(self) -> str:
        """The dataset's labels that the model lacks, in words; "" if it lacks none."""
        names = self.only_data
        words = f"of the dataset's {len(self.data)} labels, the model lacks {len(names)}, which are left out: "
        return words + first_of(names, MOST_NAMED) if names else ""
