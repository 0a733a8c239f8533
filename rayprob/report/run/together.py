"""Label co-occurrence: as annotated and as the model expects, and the mixture's components as named scenes."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from rayprob.arrays import Floats
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.queries.explain import component_names
from rayprob.report.run.judged import Judged

MOST_LABELS = 12
MOST_SCENES = 12
IMAGES_A_SCENE = 4
LABELS_A_SCENE = 6
PAIR_BYTES = 256 * 2**20  # logits of all components and the most frequent labels, for some images at a time


@dataclass(frozen=True, eq=False)
class CoOccurrence:
    """P(column label | row label) over the split, of M frequent labels: as annotated, and as the model expects."""

    names: tuple[str, ...]
    true_MM: Floats  # nan on the diagonal
    predicted_MM: Floats

    @property
    def difference_MM(self) -> Floats:
        """What the model expects too much (positive) or too little."""
        return self.predicted_MM - self.true_MM

    @property
    def mean_gap(self) -> float:
        """Mean absolute difference off the diagonal."""
        return float(np.nanmean(np.abs(self.difference_MM)))

    @property
    def worst(self) -> tuple[str, str, float, float]:
        """The pair (row, column) with the largest difference, with the true and the expected share."""
        row, column = np.unravel_index(int(np.nanargmax(np.abs(self.difference_MM))), self.true_MM.shape)
        place = row, column
        return self.names[row], self.names[column], float(self.true_MM[place]), float(self.predicted_MM[place])


@dataclass(frozen=True)
class SceneLabel:
    """A label of a scene: its probability there, and over all images."""

    name: str
    probability: float
    overall: float


@dataclass(frozen=True)
class SceneRow:
    """One component of the mixture, averaged over the split; `rows` are the images that it explains best."""

    number: int
    name: str
    weight: float
    labels: tuple[SceneLabel, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Scenes:
    """The components in use, heaviest first."""

    scenes: tuple[SceneRow, ...]
    num_components: int
    effective: float  # exp of the entropy of the mean mixing weights


def co_occurrence(judged: Judged) -> CoOccurrence | None:
    """Return co-occurrences of the most frequent labels, or None if fewer than two labels have a positive."""
    columns = [int(column) for column in judged.by_frequency[:MOST_LABELS] if judged.positives_L[column]]
    if len(columns) < 2:
        return None
    known_N = np.asarray(judged.known_NL[:, columns].all(axis=1))
    present_NM = (judged.targets_NL[:, columns] & known_N[:, None]).astype(np.float64)
    if not present_NM.any():
        return None
    true_MM = present_NM.T @ present_NM
    expected_MM = expected_pairs(judged.best, np.flatnonzero(known_N), columns)
    names = tuple(judged.names[column] for column in columns)
    return CoOccurrence(names, _conditional(true_MM), _conditional(expected_MM))


def expected_pairs(distribution: LabelDistribution, rows: np.ndarray, columns: list[int]) -> Floats:
    """Return the expected number of images with both labels [M, M]; the diagonal holds the expected positives."""
    total_MM = np.zeros((len(columns), len(columns)))
    step = max(1, min(4096, PAIR_BYTES // (8 * distribution.num_components * len(columns))))
    for start in range(0, len(rows), step):
        part = distribution[rows[start : start + step]]
        # Labels that are not asked about drop out of a product, so their columns can be omitted.
        total_MM += part.rebuilt(part.log_mixing_BK, part.logits_of(columns)).pair_probabilities().sum(axis=0)
    return total_MM


def scenes(judged: Judged) -> Scenes | None:
    """Return the components as scenes, None for a family without any that images share."""
    if not judged.family.has_scenes:
        return None
    mixing_NK = np.exp(judged.best.log_mixing_BK)
    weight_K = mixing_NK.mean(axis=0)
    probability_KL = _mean_probabilities(judged.best, mixing_NK)
    names_K = component_names(probability_KL, weight_K, judged.predictions.label_space)
    overall_L = weight_K @ probability_KL
    found = []
    for k in np.argsort(-weight_K, kind="stable")[:MOST_SCENES].tolist():
        top = np.argsort(-probability_KL[k], kind="stable")[:LABELS_A_SCENE].tolist()
        described = tuple(SceneLabel(judged.names[c], float(probability_KL[k, c]), float(overall_L[c])) for c in top)
        rows = np.argsort(-mixing_NK[:, k], kind="stable")[:IMAGES_A_SCENE].tolist()
        found.append(SceneRow(k, names_K[k], float(weight_K[k]), described, tuple(rows)))
    positive_K = weight_K[weight_K > 0]
    return Scenes(tuple(found), len(weight_K), float(np.exp(-(positive_K * np.log(positive_K)).sum())))


def _mean_probabilities(distribution: LabelDistribution, mixing_NK: Floats) -> Floats:
    """Return P(label | component) [K, L]: the mean over images, weighted by how much each image uses the component."""
    total_KL = np.zeros(distribution.component_logits_BKL.shape[1:])
    for rows in distribution.chunks():
        probability_BKL = expit(distribution.component_logits_BKL[rows].astype(np.float64))
        total_KL += np.einsum("bk,bkl->kl", mixing_NK[rows], probability_BKL)
    return np.asarray(total_KL / np.maximum(mixing_NK.sum(axis=0), np.finfo(float).tiny)[:, None])


def _conditional(pairs_MM: Floats) -> Floats:
    share_MM = pairs_MM / np.maximum(np.diagonal(pairs_MM), np.finfo(float).tiny)[:, None]
    np.fill_diagonal(share_MM, np.nan)
    return share_MM
