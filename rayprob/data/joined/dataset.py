"""The data of a run: the dataset at its root, or the datasets at several roots as one."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rayprob.data.joined.labels import JoinedLabels
from rayprob.data.joined.split import JoinedSplit
from rayprob.data.manifest.dataset import Dataset, Manifest, SplitMember
from rayprob.data.manifest.facts import read_facts
from rayprob.data.manifest.versions import split_version, versions_kept
from rayprob.errors import DatasetError
from rayprob.files import uris
from rayprob.images.reading import ImageReading
from rayprob.labels import LabelSpace
from rayprob.seeds import derive
from rayprob.text import first_of

MOST_NAMED = 8  # labels per sentence
MOST_COMBINATIONS = 200_000  # of versions, half a second


@dataclass(frozen=True, eq=False)
class JoinedDataset:
    """Several built datasets as one. The first one's columns come first, its sample ids stay, and bundles read as it does."""

    datasets: tuple[Dataset, ...]
    weights: tuple[float, ...]

    @property
    def root(self) -> str:
        """The roots of all datasets, in words."""
        return " and ".join(dataset.root for dataset in self.datasets)

    @property
    def name(self) -> str:
        """The names of all datasets."""
        return " + ".join(dataset.name for dataset in self.datasets)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with any dataset and with their order; a single dataset keeps its own."""
        return joined_fingerprint([dataset.fingerprint for dataset in self.datasets])

    @cached_property
    def labels(self) -> JoinedLabels:
        """The labels of all datasets."""
        return JoinedLabels.of([dataset.label_space for dataset in self.datasets])

    @property
    def label_space(self) -> LabelSpace:
        """The joined label space."""
        return self.labels.label_space

    @property
    def reading(self) -> ImageReading:
        """How a model trained on them reads images: as the first dataset. Streams read each dataset as it was built."""
        return self.datasets[0].reading

    @cached_property
    def splits(self) -> dict[str, int]:
        """The number of samples of each split, summed over the datasets that have it."""
        names = dict.fromkeys(name for dataset in self.datasets for name in dataset.splits)
        return {name: sum(dataset.splits.get(name, 0) for dataset in self.datasets) for name in names}

    def split(self, name: str) -> JoinedSplit:
        """Return a split's samples from the datasets that have it. Raises DatasetError if no dataset has it."""
        members = tuple(
            SplitMember(dataset.split(name), self.labels.columns[place], self.weights[place], _id_mask(place))
            for place, dataset in enumerate(self.datasets)
            if name in dataset.splits
        )
        if not members:
            found = ", ".join(f"{split} ({samples:,})" for split, samples in self.splits.items())
            raise DatasetError(f"none of {self.root} has a split {name!r}; they have {found}")
        return JoinedSplit(name, self.label_space, members, self.fingerprint)

    def sentences(self, train_split: str, evaluation_split: str) -> list[str]:
        """Return sentences on each dataset's share of training and evaluation, and on how its labels and images are read."""
        return [sentence for place in range(len(self.datasets)) for sentence in self._of(place, train_split, evaluation_split)]

    def _of(self, place: int, train_split: str, evaluation_split: str) -> Iterator[str]:
        dataset, label_space, weight = self.datasets[place], self.datasets[place].label_space, self.weights[place]
        member = SplitMember(dataset.split(train_split), self.labels.columns[place], weight)
        known = f"{len(label_space)} of the {len(self.label_space)} labels, the others unknown"
        if len(label_space) == len(self.label_space):
            known = f"all {len(label_space)} labels"
        evaluated = f"{dataset.splits.get(evaluation_split, 0):,} in {evaluation_split}"
        yield (
            f"{dataset.root}: {len(member.manifest):,} samples, weight {weight:g}: {member.samples_per_epoch:,} in each epoch; "
            f"{evaluated}; {known}"
        )
        if renamed := [f"{name} = {joined}" for name, joined in self.labels.renamed(place, label_space).items()]:
            yield f"{dataset.root}: matched under another name: {first_of(renamed, MOST_NAMED)}"
        if place and not np.isin(self.labels.columns[place], np.concatenate(self.labels.columns[:place])).any():
            yield f"{dataset.root}: shares no label with the datasets before it; rename labels in its recipe if it should"
        if dataset.reading != self.reading:
            yield (
                f"{dataset.root}: its images are read as it was built ({_words(dataset.reading)}); the trained model's own "
                f"input is read as in {self.datasets[0].root} ({_words(self.reading)})"
            )


AnyDataset = Dataset | JoinedDataset
AnySplit = Manifest | JoinedSplit


def open_datasets(roots: Sequence[str], weights: Sequence[float]) -> AnyDataset:
    """Open the dataset at one root, or those at several as one.

    Raises as `Dataset.open` does, and a DatasetError if one is given twice.
    """
    datasets = tuple(map(Dataset.open, roots))
    if len(datasets) == 1 and weights[0] == 1:
        return datasets[0]
    first: dict[str, str] = {}
    for dataset in datasets:
        if dataset.fingerprint in first:
            raise DatasetError(
                f"{first[dataset.fingerprint]} and {dataset.root} are the same dataset (fingerprint {dataset.fingerprint}); "
                "give one of them, and set data.weights for how often its samples are seen"
            )
        first[dataset.fingerprint] = dataset.root
    return JoinedDataset(datasets, tuple(weights))


def joined_fingerprint(fingerprints: Sequence[str]) -> str:
    """Return the fingerprint of several datasets with these fingerprints, in this order."""
    return fingerprints[0] if len(fingerprints) == 1 else hashlib.sha256(json.dumps(fingerprints).encode()).hexdigest()[:16]


def at_versions(roots: Sequence[str], fingerprint: object) -> tuple[str, ...]:
    """Return the versions of several datasets that have this fingerprint together, as ROOT@FINGERPRINT where one has grown.

    The roots themselves are returned where the datasets never had it, and where they have too many versions to tell. Raises
    DatasetError if a dataset cannot be read.
    """
    choices = [_versions(root) for root in roots]
    if math.prod(map(len, choices)) <= MOST_COMBINATIONS:
        for found in itertools.product(*choices):
            if joined_fingerprint(found) == fingerprint:
                return tuple(versions[one] for versions, one in zip(choices, found, strict=True))
    return tuple(roots)


def _versions(root: str) -> dict[str, str]:
    """Return the root of each version of a dataset by its fingerprint, the newest first; of the one that `root` asks for."""
    newest = {str(read_facts(root)["fingerprint"]): root}
    folder, version = split_version(root)
    kept = () if version else versions_kept(root)
    return newest | {one: uris.beside(folder, f"@{one}") for one in kept if one not in newest}


def _id_mask(place: int) -> int:
    """Return 63 bits to XOR into the sample ids of the dataset at `place`, so that equal ids become different.

    They depend on the place alone, so ids and augmentation do not change when a dataset grows.
    """
    return derive(0, "joined", place) if place else 0


def _words(reading: ImageReading) -> str:
    return reading.orientation + (f", window {list(reading.window)}" if reading.window else "")
