"""Distributions over label sets, one per image. B images, L labels, K components; log_mixing_BK, component_logits_BKL.

Most are independent labels, or the conditional Bernoulli mixture p(y|x) = sum_k pi_k(x) prod_l Bernoulli(y_l; p_kl(x)) of Li,
Wang, Pavlu & Aslam (ICML 2016). Independent labels are the case K = 1, so every answer is implemented once, for components with
independent labels, in float64 and over chunks of images that fit in the cache. Other families replace what differs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_expit, log_softmax, logsumexp

from rayprob.arrays import Bools, Floats
from rayprob.errors import ModelError, QueryError
from rayprob.probability.distributions import expected_f1, information, topsets
from rayprob.probability.distributions.arithmetic import NUMBERS, Arithmetic, log, log_odds_of
from rayprob.probability.distributions.bernoulli import entropy_of_logits, present_and_absent
from rayprob.probability.distributions.components import Components
from rayprob.probability.distributions.evidence import Evidence
from rayprob.probability.queries import answer

LABELS_MULTIPLIED = 32  # whose factors, each at least 1e-8, are multiplied before a logarithm is taken
CHUNK_BYTES = 16 * 2**20  # arrays above 32 MiB are mapped for each allocation, which costs more than computing them


class LabelDistribution(ABC):
    """A batch of B distributions over the 2^L label sets. A logit of plus or minus infinity is a label known for certain."""

    family: str
    is_sampled: ClassVar[bool] = False  # its components are label sets drawn from it, which estimate what is asked of them
    notes: ClassVar[tuple[str, ...]] = ()  # which answers are estimates, for those who read them

    @property
    @abstractmethod
    def log_mixing_BK(self) -> Floats:
        """Log mixing weights, normalised."""

    @property
    @abstractmethod
    def component_logits_BKL(self) -> NDArray[Any]:
        """Logit of each label in each component, in the precision of the input."""

    @abstractmethod
    def rebuilt(self, log_mixing_BK: Floats, component_logits_BKL: NDArray[Any]) -> "LabelDistribution":
        """Return a distribution of this family with other parameters."""

    def __len__(self) -> int:
        return len(self.component_logits_BKL)

    @property
    def num_labels(self) -> int:
        """L."""
        return int(self.component_logits_BKL.shape[2])

    def logits_of(self, columns: Sequence[int]) -> NDArray[Any]:
        """Return the logits [B, K, C] of some columns."""
        return self.component_logits_BKL[:, :, columns]

    def logits_at(self, columns_BC: NDArray[np.int64]) -> NDArray[Any]:
        """Return the logits [B, K, C] of columns that differ between images."""
        return np.take_along_axis(self.component_logits_BKL, columns_BC[:, None], axis=2)

    @property
    def num_components(self) -> int:
        """K."""
        return int(self.log_mixing_BK.shape[1])

    def __getitem__(self, rows: slice | NDArray[Any] | list[int]) -> "LabelDistribution":
        """Return the distributions of some images."""
        return self.rebuilt(self.log_mixing_BK[rows], self.component_logits_BKL[rows])

    @property
    def bytes_per_image(self) -> int:
        """Size of one image's component logits in float64."""
        return 8 * self.num_components * self.num_labels

    def chunks(self, bytes_per_image: int | None = None) -> Iterator[slice]:
        """Yield slices of images that fit into CHUNK_BYTES, at `bytes_per_image` each (default: the property)."""
        step = max(1, CHUNK_BYTES // max(bytes_per_image or self.bytes_per_image, 1))
        yield from (slice(start, start + step) for start in range(0, max(len(self), 1), step))

    # ---- probabilities

    def marginals(self) -> Floats:
        """Return P(label present) [B, L]."""
        # Weights may sum to a little more than 1, and a probability must not.
        return self._by_chunk(lambda part: np.minimum(_mix(part.log_mixing_BK, present_and_absent(_float64(part))[0]), 1.0))

    def estimated_marginals(self) -> tuple[Floats, Floats]:
        """Return the marginals and their standard errors [B, L], which are 0 unless they are estimated from samples."""
        marginal_BL = self.marginals()
        return marginal_BL, np.zeros_like(marginal_BL)

    def marginal_logits(self) -> Floats:
        """Return the log-odds of each label [B, L]; they keep their order where marginals round to 0 or 1."""

        def log_odds(part: LabelDistribution) -> Floats:
            logits_BKL = _float64(part)
            present_BL, absent_BL = (_mix(part.log_mixing_BK, state_BKL) for state_BKL in present_and_absent(logits_BKL))
            return log_odds_of(present_BL, absent_BL, lambda b, c: (part.log_mixing_BK[b], logits_BKL[b, :, c]))

        return self._by_chunk(log_odds)

    def ranking_scores(self) -> NDArray[Any]:
        """Return scores [B, L] to rank by, in the order of the marginals; unlike those they never saturate at 0 or 1.

        They are finite: infinite log-odds become the largest finite number of that sign.
        """
        return np.nan_to_num(self.marginal_logits(), copy=False, nan=np.nan)

    def log_prob(self, label_sets_BL: Bools, known_BL: Bools | None = None) -> Floats:
        """Return log p [B], in nats, of one label set per image; unknown labels drop out of the product."""
        known_BL = np.ones((1, self.num_labels), dtype=bool) if known_BL is None else known_BL
        joint_BK = self.joint_log_prob(Evidence(*np.broadcast_arrays(label_sets_BL, known_BL)))
        return np.asarray(logsumexp(joint_BK, axis=1))

    def joint_log_prob(self, evidence: Evidence) -> Floats:
        """Return log p(component, evidence) [B, K]."""
        values_BL, known_BL = self._stated(evidence)
        parts = []
        for rows in self.chunks():
            logits_BKL = _float64(self[rows])
            log_BKL = log_expit(np.where(values_BL[rows, None], logits_BKL, -logits_BKL))
            parts.append(np.sum(log_BKL, axis=2, where=known_BL[rows, None]))
        return np.asarray(self.log_mixing_BK + np.concatenate(parts))

    def log_bounds(self, state_BL: Bools) -> Floats:
        """Return, for each label [B, L], an upper bound on the log probability of every label set in which it is as stated.

        The bound is the logarithm of the sum over components of the largest probability of such a set in the component.
        """

        def bounds(part: LabelDistribution, stated_BL: Bools) -> Floats:
            logits_BKL = _float64(part)
            log_peak_BK = part.log_mixing_BK + log_expit(np.abs(logits_BKL)).sum(axis=2)
            log_scale_B1 = np.nan_to_num(log_peak_BK.max(axis=1, keepdims=True), neginf=0.0)
            factor_BKL = np.exp(np.minimum(np.where(stated_BL[:, None], logits_BKL, -logits_BKL), 0))
            return np.asarray(log_scale_B1 + log(_mix(log_peak_BK - log_scale_B1, factor_BKL)))

        return np.concatenate([bounds(self[rows], state_BL[rows]) for rows in self.chunks()])

    def prob(self, query: answer.Query) -> Floats:
        """Return the answer to a query [B], exactly. Raises QueryError if its evidence is impossible."""
        return answer.probability(query, self)

    def standard_error(self, query: answer.Query) -> Floats:
        """Return the standard error of the answer to a query [B]: 0, unless it is estimated from samples.

        Raises QueryError as `prob` does.
        """
        return np.zeros_like(self.prob(query))

    def condition(self, evidence: Evidence | Mapping[int, bool]) -> "LabelDistribution":
        """Return the exact distributions given the evidence: mixing weights follow Bayes' rule, known labels are certain.

        Raises QueryError if the evidence has probability 0 for an image.
        """
        evidence, log_mixing_BK = self._given(evidence)
        logits_BKL = self.component_logits_BKL
        certain_BL = np.where(evidence.values_BL, np.inf, -np.inf).astype(logits_BKL.dtype)
        return self.rebuilt(log_mixing_BK, np.where(evidence.known_BL[:, None], certain_BL[:, None], logits_BKL))

    def answering(self, presence: Mapping[int, bool], columns: Collection[int]) -> "LabelDistribution":
        """Return what answers questions about some columns, given that some of them are present or absent as in `presence`.

        A mixture does so itself, since Bayes' rule then gives every answer. A distribution that is defined by its answers given
        evidence returns a mixture that has them.
        """
        return self

    @property
    def rules_out_sets(self) -> bool:
        """Whether some label set may have probability 0, because a label is certain."""
        return not np.isfinite(self.component_logits_BKL).all()

    def components(self, columns: Iterable[int], arithmetic: Arithmetic = NUMBERS) -> Iterator[Components]:
        """Yield all components, with the probabilities of some labels, in one or several parts; answers are sums over them."""
        chosen = sorted(columns)
        yield Components.of(self.log_mixing_BK, chosen, self.logits_of(chosen), arithmetic)

    def count_distribution(self) -> Floats:
        """Return P(number of labels present = n) [B, L + 1]: a Poisson-binomial distribution in each component."""

        def counts(part: LabelDistribution) -> Floats:
            labels = range(self.num_labels)
            (components,) = part.components(labels)
            return np.asarray((components.counts(labels, self.num_labels) * components.weight_KB).sum(axis=1).T)

        return self._by_chunk(counts)

    def pair_probabilities(self) -> Floats:
        """Return P(both labels present) [B, L, L]; the diagonal holds the marginals."""
        return self._by_chunk(lambda part: information.pair_probabilities(part.log_mixing_BK, _float64(part)), self._pair_bytes)

    # ---- label sets

    def top_sets(self, k: int) -> topsets.TopSets:
        """Return the k most probable label sets of each image, best first, exactly (up to ties within rounding)."""
        chunks = self.chunks(self._search_bytes)
        return topsets.joined([topsets.top_sets(self[rows], k, first_image=rows.start) for rows in chunks])

    def best_f1_sets(self) -> expected_f1.F1Sets:
        """Return the label set of each image with the largest expected F1, and that F1, exactly."""
        return expected_f1.joined([expected_f1.best_f1_sets(self[rows]) for rows in self.chunks(self._search_bytes)])

    def weighed_by_count(self, t_Q: Floats) -> tuple[Floats, Floats]:
        """Return log E[t^n] [Q, B] and E[y_l t^n] / E[t^n] [Q, B, L], for n labels present and each t > 0.

        The latter are the marginals once each label set has t^n times its probability.
        """
        log_mean_QB, marginals_QBL = np.empty((len(t_Q), len(self))), np.empty((len(t_Q), len(self), self.num_labels))
        blocks = np.arange(0, self.num_labels, LABELS_MULTIPLIED)
        for rows in self.chunks(16 * self.bytes_per_image):
            part = self[rows]
            present_bKL, absent_bKL = present_and_absent(_float64(part))
            for q, t in enumerate(t_Q):
                raised_bKL = present_bKL * t
                factor_bKL = absent_bKL + raised_bKL
                log_weight_bK = part.log_mixing_BK + np.log(np.multiply.reduceat(factor_bKL, blocks, axis=2)).sum(axis=2)
                log_mean_QB[q, rows] = np.logaddexp.reduce(log_weight_bK, axis=1)  # SciPy's is slow for few
                raised_bKL /= factor_bKL
                marginals_QBL[q, rows] = _mix(log_weight_bK - log_mean_QB[q, rows, None], raised_bKL)
        return log_mean_QB, marginals_QBL

    def sample(self, num_sets: int, seed: int) -> Bools:
        """Return label sets [num_sets, B, L] drawn from each distribution; equal for equal seeds."""
        random = np.random.default_rng(seed)
        parts = [information.draw(self[c].log_mixing_BK, _float64(self[c]), num_sets, random) for c in self.chunks()]
        return np.concatenate(parts, axis=1)

    # ---- information

    def entropy(self, *, num_samples: int = 256, seed: int = 0) -> information.Estimate:
        """Return the entropy of each joint distribution in nats, with its standard error [B].

        Exact (standard error 0) for independent labels, and for a mixture of at most `information.ENUMERATED_LABELS` labels.
        A larger mixture has no closed form: see `information.mixture_entropy` for the estimate from `num_samples` draws.
        """
        random = np.random.default_rng(seed)
        chunks = self.chunks(8 * num_samples * (self.num_components + self.num_labels))
        parts = [
            information.mixture_entropy(self[rows].log_mixing_BK, _float64(self[rows]), num_samples, random) for rows in chunks
        ]
        value_B, error_B = (np.concatenate([getattr(part, name) for part in parts]) for name in ("value_B", "standard_error_B"))
        return information.Estimate(value_B, error_B)

    def mutual_information(self) -> Floats:
        """Return the mutual information of each pair of labels given the image, in nats [B, L, L]; an entropy where i = j."""
        return self._by_chunk(lambda part: information.mutual_information(part.log_mixing_BK, _float64(part)), self._pair_bytes)

    # ---- inside

    def query_bytes(self, num_columns: int) -> int:
        """The memory in bytes to budget per image for queries about `num_columns` labels."""
        return self.bytes_per_image

    @property
    def _search_bytes(self) -> int:
        return self.bytes_per_image

    @property
    def _pair_bytes(self) -> int:
        return 8 * self.num_labels * (self.num_labels + self.num_components)

    def _by_chunk(self, function: "Callable[[LabelDistribution], Floats]", bytes_per_image: int | None = None) -> Floats:
        return np.concatenate([function(self[rows]) for rows in self.chunks(bytes_per_image)])

    def _given(self, evidence: Evidence | Mapping[int, bool]) -> tuple[Evidence, Floats]:
        """Return the evidence and the log mixing weights [B, K] given it. Raises QueryError if it is impossible."""
        if not isinstance(evidence, Evidence):
            evidence = Evidence.of(evidence, self.num_labels)
        joint_BK = self.joint_log_prob(evidence)
        log_prob_B1 = logsumexp(joint_BK, axis=1, keepdims=True)
        answer.refuse_impossible(log_prob_B1[:, 0] > -np.inf, "the evidence")
        return evidence, np.asarray(joint_BK - log_prob_B1)

    def _stated(self, evidence: Evidence) -> tuple[Bools, Bools]:
        """Return the values and known flags [B, L] of each image. Raises QueryError if the evidence has another shape."""
        if evidence.values_BL.shape[1] != self.num_labels or len(evidence.values_BL) not in (1, len(self)):
            raise QueryError(
                f"evidence or label sets have shape {evidence.values_BL.shape}; "
                f"these distributions have {len(self)} images and {self.num_labels} labels"
            )
        shape = (len(self), self.num_labels)
        return np.broadcast_to(evidence.values_BL, shape), np.broadcast_to(evidence.known_BL, shape)


class BernoulliDistribution(LabelDistribution):
    """Independent labels: a sigmoid per label, which is a mixture of one component."""

    family = "bernoulli"

    def __init__(self, logits_BL: ArrayLike) -> None:
        self.logits_BL = finite_or_certain(logits_BL, 2, "logits [B, L]")

    @classmethod
    def of_outputs(cls, outputs: Mapping[str, Any]) -> "BernoulliDistribution":
        """Return the distributions that a head's outputs describe. Raises ModelError if one is missing, misshapen or nan."""
        return cls(*outputs_named(("logits",), outputs, cls.family))

    @property
    def log_mixing_BK(self) -> Floats:
        return np.zeros((len(self.logits_BL), 1))

    @property
    def component_logits_BKL(self) -> NDArray[Any]:
        return self.logits_BL[:, None]

    def rebuilt(self, log_mixing_BK: Floats, component_logits_BKL: NDArray[Any]) -> "BernoulliDistribution":
        return BernoulliDistribution(component_logits_BKL[:, 0])

    def marginal_logits(self) -> Floats:
        return np.asarray(self.logits_BL, dtype=np.float64)

    def ranking_scores(self) -> NDArray[Any]:
        return self.logits_BL

    def entropy(self, *, num_samples: int = 256, seed: int = 0) -> information.Estimate:
        entropy_B = entropy_of_logits(np.asarray(self.logits_BL, dtype=np.float64)).sum(axis=1)
        return information.Estimate(entropy_B, np.zeros_like(entropy_B))


class MixtureDistribution(LabelDistribution):
    """The conditional Bernoulli mixture: mixing_logits_BK, component_logits_BKL."""

    family = "mixture"

    def __init__(self, mixing_logits_BK: ArrayLike, component_logits_BKL: ArrayLike) -> None:
        mixing_BK = finite_or_certain(mixing_logits_BK, 2, "mixing logits [B, K]")
        self._component_logits_BKL = finite_or_certain(component_logits_BKL, 3, "component logits [B, K, L]")
        if mixing_BK.shape != self._component_logits_BKL.shape[:2]:
            raise ModelError(
                f"mixing logits {mixing_BK.shape} and component logits {self._component_logits_BKL.shape} do not fit; "
                "a mixture needs [B, K] and [B, K, L]"
            )
        largest_B = mixing_BK.max(axis=1, initial=-np.inf)
        if np.isinf(largest_B).any():
            image = int(np.flatnonzero(np.isinf(largest_B))[0])
            raise ModelError(
                f"mixing logits of image {image} are {mixing_BK[image].tolist()}; at least one must be finite, none inf"
            )
        self._log_mixing_BK = np.asarray(log_softmax(mixing_BK.astype(np.float64), axis=1))

    @classmethod
    def of_outputs(cls, outputs: Mapping[str, Any]) -> "MixtureDistribution":
        """Return the distributions that a head's outputs describe. Raises ModelError if one is missing, misshapen or nan."""
        return cls(*outputs_named(("mixing_logits", "component_logits"), outputs, cls.family))

    @property
    def log_mixing_BK(self) -> Floats:
        return self._log_mixing_BK

    @property
    def component_logits_BKL(self) -> NDArray[Any]:
        return self._component_logits_BKL

    def rebuilt(self, log_mixing_BK: Floats, component_logits_BKL: NDArray[Any]) -> "MixtureDistribution":
        return MixtureDistribution(log_mixing_BK, component_logits_BKL)


def outputs_named(names: Sequence[str], outputs: Mapping[str, Any], family: str) -> list[NDArray[Any]]:
    """Return the outputs `names` as arrays; tensors may be on any device. Raises ModelError if one is missing."""
    missing = [name for name in names if name not in outputs]
    if missing:
        raise ModelError(f"family {family!r} needs outputs {', '.join(names)}; found {', '.join(outputs) or 'none'}")
    return [_to_array(outputs[name]) for name in names]


def _to_array(value: Any) -> NDArray[Any]:
    return np.asarray(value.detach().cpu().float().numpy() if hasattr(value, "detach") else value)


def finite_or_certain(values: ArrayLike, ndim: int, what: str) -> NDArray[Any]:
    """Return values as floats, which may be infinite. Raises ModelError for another number of axes, and for nan."""
    array = np.asarray(values)
    array = array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
    if array.ndim != ndim:
        raise ModelError(f"{what} expected, found shape {array.shape}")
    if np.isnan(array).any():
        raise ModelError(f"{what} contain nan, first in image {int(np.argwhere(np.isnan(array))[0, 0])}; the model diverged")
    return array


def _float64(part: LabelDistribution) -> Floats:
    return np.asarray(part.component_logits_BKL, dtype=np.float64)


def _mix(log_mixing_BK: Floats, values_BKL: Floats) -> Floats:
    return np.asarray(np.matmul(np.exp(log_mixing_BK)[:, None], values_BKL)[:, 0])
