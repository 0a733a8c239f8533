"""Statistics of a dataset: counts, prevalence, label sets and co-occurrences. N samples, L labels."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayprob.data.in_place import TarsInPlace, tars_in_place
from rayprob.data.manifest.dataset import Dataset, Manifest
from rayprob.data.manifest.facts import earlier_versions
from rayprob.data.manifest.label_fingerprint import label_fingerprint

IMAGE_FACTS = ("images", "exif_rotated", "orientation", "window")
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class SplitFacts:
    """One split: its counts, and the sizes of its images (quantiles 0, 1/4, 1/2, 3/4, 1)."""

    split: str
    samples: int
    shards: int
    size_bytes: int
    labels: int  # positives, over all samples
    unknown_labels: int
    short_side_px: tuple[int, ...]
    long_side_px: tuple[int, ...]


@dataclass(frozen=True)
class LabelFacts:
    """One label: the number of samples in each split in which it is present, and its prevalence among those that state it."""

    label: str
    samples: dict[str, int]
    prevalence: dict[str, float]


@dataclass(frozen=True)
class Pair:
    """Two labels that occur together `lift` times as often as if they were independent."""

    first: str
    second: str
    samples: int
    lift: float


@dataclass(frozen=True)
class Version:
    """A version of a dataset, and how many samples it has in each split."""

    fingerprint: str
    splits: dict[str, int]


@dataclass(frozen=True)
class Inspection:
    """The statistics of a dataset; label sets and pairs are counted over all splits."""

    root: str
    fingerprint: str
    splits: list[SplitFacts]
    labels: list[LabelFacts]
    set_sizes: dict[int, int]
    distinct_sets: int
    top_sets: list[tuple[list[str], int]]
    pairs: list[Pair]
    exif_rotated: int | None  # images that EXIF turns; None: not counted by the build
    image_facts: dict[str, Any] = field(default_factory=dict)  # from dataset.json: their kinds, and how they are read
    label_fingerprint: str = ""  # of ids and labels alone, independent of format and shards
    in_place: TarsInPlace | None = None  # None: all images are in the dataset's own shards
    versions: list[Version] = field(default_factory=list)  # newest first: the inspected one and its predecessors

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return asdict(self)


def inspect(root: str, *, top: int = 10) -> Inspection:
    """Return the statistics of the dataset at `root`, with the `top` most frequent label sets and strongest pairs.

    Raises DatasetError.
    """
    dataset = Dataset.open(root)
    manifests = [dataset.split(split) for split in dataset.splits]
    names = dataset.label_space.names
    present_NL = np.concatenate([manifest.targets() for manifest in manifests])
    sets = Counter(tuple(np.flatnonzero(row).tolist()) for row in present_NL)
    return Inspection(
        root=root,
        fingerprint=dataset.fingerprint,
        label_fingerprint=label_fingerprint(dataset),
        splits=[_split_facts(manifest) for manifest in manifests],
        labels=_label_facts(manifests, names),
        set_sizes=dict(sorted(Counter(present_NL.sum(axis=1).tolist()).items())),
        distinct_sets=len(sets),
        top_sets=[([names[column] for column in columns], count) for columns, count in sets.most_common(top)],
        pairs=strongest_pairs(present_NL, names, top),
        exif_rotated=dataset.facts.get("exif_rotated"),
        image_facts={key: dataset.facts[key] for key in IMAGE_FACTS if key in dataset.facts},
        in_place=tars_in_place(root, dataset.facts, dataset.shards),
        versions=versions(root, dataset.facts),
    )


def versions(root: str, facts: dict[str, Any]) -> list[Version]:
    """Return the version of a dataset that has these facts, and those that it grew from."""
    return [Version(one["fingerprint"], one.get("splits", {})) for one in (facts, *earlier_versions(root, facts))]


def strongest_pairs(present_NL: NDArray[np.bool_], names: tuple[str, ...], top: int) -> list[Pair]:
    """Return the most informative pairs of labels, by `n_ab * log(lift)`, the pair's share of the mutual information. The lift
    alone would rank two rare labels that co-occur once above everything else."""
    together_LL = present_NL.T.astype(np.float32) @ present_NL.astype(np.float32)
    samples_L = np.diagonal(together_LL).astype(np.float64)
    first_P, second_P = np.triu_indices(len(names), k=1)
    together_P = together_LL[first_P, second_P].astype(np.float64)
    met_P = together_P > 0
    first_P, second_P, together_P = first_P[met_P], second_P[met_P], together_P[met_P]
    lift_P = together_P * len(present_NL) / (samples_L[first_P] * samples_L[second_P])
    order = np.argsort(-together_P * np.log(lift_P), kind="stable")[:top]
    return [
        Pair(names[first_P[pair]], names[second_P[pair]], int(together_P[pair]), float(lift_P[pair]))
        for pair in order
        if lift_P[pair] > 1
    ]


def _split_facts(manifest: Manifest) -> SplitFacts:
    sides_N2 = np.sort(np.stack([manifest.height_px_N, manifest.width_px_N], axis=1), axis=1)
    short, long = np.quantile(sides_N2, QUANTILES, axis=0, method="nearest").astype(int).T.tolist()
    return SplitFacts(
        split=manifest.split,
        samples=len(manifest),
        shards=len(manifest.shards),
        size_bytes=int(manifest.size_bytes_N.sum()),
        labels=len(manifest.labels.values),
        unknown_labels=manifest.num_unknown(),
        short_side_px=tuple(short),
        long_side_px=tuple(long),
    )


def _label_facts(manifests: list[Manifest], names: tuple[str, ...]) -> list[LabelFacts]:
    present = {manifest.split: manifest.targets().sum(axis=0) for manifest in manifests}
    known = {manifest.split: manifest.known().sum(axis=0) for manifest in manifests}
    return [
        LabelFacts(
            label=name,
            samples={split: int(samples_L[column]) for split, samples_L in present.items()},
            prevalence={split: float(present[split][column] / max(known[split][column], 1)) for split in present},
        )
        for column, name in enumerate(names)
    ]
