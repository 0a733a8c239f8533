"""Results per label: AP, F1 and calibration error; by prevalence and object size; and confused labels. N samples, L labels."""

from dataclasses import dataclass

import numpy as np

from rayprob.arrays import Floats
from rayprob.data.manifest.areas import largest_areas
from rayprob.metrics.counting import count
from rayprob.metrics.ranking import SIZE_LIMITS_PX2, average_precision, mean_average_precision_by_size
from rayprob.metrics.reliability import calibration_error_of_labels
from rayprob.report.run.files import RunFiles
from rayprob.report.run.judged import Judged

MOST_LABELS = 200
MOST_MIXED_UP = 10
GROUPS = ("rarest third", "middle third", "most frequent third")


@dataclass(frozen=True)
class LabelRow:
    """One label; AP and F1 are None if it has no positive in the split."""

    name: str
    positives: int
    train_positives: int | None
    ap: float | None
    precision: float | None  # None if it is never predicted
    recall: float | None
    f1: float | None
    ece: float | None


@dataclass(frozen=True)
class GroupRow:
    """Means over some labels, or over positives of one object size."""

    name: str
    words: str
    num_labels: int | None
    mean_ap: float | None
    mean_f1: float | None
    mean_ece: float | None


@dataclass(frozen=True)
class MixUp:
    """In `images` images `missed` was present but not predicted while `instead` was predicted but not present."""

    missed: str
    instead: str
    images: int
    share: float  # of the images in which `missed` was missed


@dataclass(frozen=True)
class Labels:
    """The results per label; `rows` by prevalence, most frequent first."""

    rows: tuple[LabelRow, ...]
    left_out: int
    groups: tuple[GroupRow, ...]
    sizes: tuple[GroupRow, ...]
    mixed_up: tuple[MixUp, ...]
    without_positives: tuple[str, ...]


def labels(files: RunFiles, judged: Judged) -> Labels:
    """Return the results per label."""
    ap_L = average_precision(judged.scores_NL, judged.targets_NL, judged.known_NL)
    ece_L = calibration_error_of_labels(judged.marginals_NL, judged.targets_NL, judged.known_NL)
    train_L = train_positives(files)
    order_L = judged.by_frequency if train_L is None else np.argsort(-train_L, kind="stable")
    rows = _rows(judged, ap_L, ece_L, train_L)
    ordered = [rows[column] for column in order_L]
    return Labels(
        rows=tuple(ordered[:MOST_LABELS]),
        left_out=max(0, len(ordered) - MOST_LABELS),
        groups=tuple(_groups(ordered)),
        sizes=tuple(_sizes(files, judged)),
        mixed_up=tuple(_mixed_up(judged)),
        without_positives=tuple(row.name for row in ordered if row.ap is None),
    )


def train_positives(files: RunFiles) -> np.ndarray | None:
    """Return the positives of each label in the training split [L], None without the dataset."""
    split = str(files.run.get("data", {}).get("train_split", "train"))
    if files.dataset is None or split not in files.dataset.splits:
        return None
    return files.dataset.split(split).label_counts()[0]


def _rows(judged: Judged, ap_L: Floats, ece_L: Floats, train_L: np.ndarray | None) -> list[LabelRow]:
    counts = count(judged.sets_NL, judged.targets_NL, judged.known_NL)
    rows = []
    for column, name in enumerate(judged.names):
        hits, predicted, positives = (int(n[column]) for n in (counts.true_positives_L, counts.predicted_L, counts.positives_L))
        rows.append(
            LabelRow(
                name=name,
                positives=positives,
                train_positives=None if train_L is None else int(train_L[column]),
                ap=_finite(ap_L[column]),
                precision=hits / predicted if predicted else None,
                recall=hits / positives if positives else None,
                f1=2 * hits / (predicted + positives) if positives else None,
                ece=_finite(ece_L[column]),
            )
        )
    return rows


def _groups(ordered: list[LabelRow]) -> list[GroupRow]:
    counted = [row for row in ordered if row.ap is not None][::-1]
    parts = [part.tolist() for part in np.array_split(np.arange(len(counted)), 3)]
    groups = []
    for name, part in zip(GROUPS, parts, strict=True):
        members = [counted[place] for place in part]
        if members:
            seen = [row.positives if row.train_positives is None else row.train_positives for row in members]
            where = "this split" if members[0].train_positives is None else "training"
            words = f"{min(seen):,} to {max(seen):,} positives in {where}"
            means = (_mean([getattr(row, key) for row in members]) for key in ("ap", "f1", "ece"))
            groups.append(GroupRow(name, words, len(members), *means))
    return groups


def _sizes(files: RunFiles, judged: Judged) -> list[GroupRow]:
    areas_NL = areas(files, judged)
    if areas_NL is None or np.isnan(areas_NL[judged.targets_NL]).any():
        return []
    means = mean_average_precision_by_size(judged.scores_NL, judged.targets_NL, areas_NL, judged.known_NL)
    small, large = (round(limit**0.5) for limit in SIZE_LIMITS_PX2)
    words = (f"largest object below {small} x {small} px", f"up to {large} x {large} px", f"{large} x {large} px and larger")
    return [
        GroupRow(size, text, mean.labels_counted if mean else 0, mean.value if mean else None, None, None)
        for (size, mean), text in zip(means.items(), words, strict=True)
    ]


def areas(files: RunFiles, judged: Judged) -> Floats | None:
    """Return the area in px2 of each label's largest object per sample [N, L], nan without one; None without the dataset."""
    if files.dataset is None or files.split not in files.dataset.splits:
        return None
    return largest_areas(files.dataset.split(files.split), judged.predictions.sample_ids_N)


def _mixed_up(judged: Judged) -> list[MixUp]:
    missed_NL = judged.targets_NL & judged.known_NL & ~judged.sets_NL
    extra_NL = judged.sets_NL & judged.known_NL & ~judged.targets_NL
    pairs_LL = missed_NL.T.astype(np.float32) @ extra_NL.astype(np.float32)
    missed_L = missed_NL.sum(axis=0)
    expected_LL = np.outer(missed_L, extra_NL.sum(axis=0)) / len(missed_NL)
    # As for co-occurrences: a pair's share of the mutual information, so that two labels that are often wrong do not lead.
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise_LL = np.where(pairs_LL > 1, pairs_LL * np.log(pairs_LL / expected_LL), 0)
    found = np.argsort(-surprise_LL, axis=None, kind="stable")[:MOST_MIXED_UP]
    mixed = []
    for missed, instead in zip(*np.unravel_index(found, pairs_LL.shape), strict=True):
        if surprise_LL[missed, instead] > 0:
            images = int(pairs_LL[missed, instead])
            mixed.append(MixUp(judged.names[missed], judged.names[instead], images, images / int(missed_L[missed])))
    return mixed


def _mean(values: list[float | None]) -> float | None:
    counted = [value for value in values if value is not None]
    return sum(counted) / len(counted) if counted else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
