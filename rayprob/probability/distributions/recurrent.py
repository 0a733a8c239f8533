"""Label sets as sequences: exact log probabilities, and all else from samples. B images, L labels, D draws.

`sequences` defines the model. A complete label set has an exact log probability. Anything that sums over label sets (marginals,
queries, evidence, expected F1, entropy) is estimated from NUM_DRAWS label sets of each image, by default with fixed random
numbers, so that equal questions have equal answers. The estimates come with standard errors.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor
from torch.nn.functional import logsigmoid

from rayprob.arrays import Bools, Floats, Ints
from rayprob.probability.distributions import expected_f1, information, sequences, topsets
from rayprob.probability.distributions.arithmetic import log
from rayprob.probability.distributions.distribution import (
    LabelDistribution,
    MixtureDistribution,
    finite_or_certain,
    outputs_named,
)
from rayprob.probability.distributions.drawn import DrawnMixture
from rayprob.probability.distributions.evidence import Evidence
from rayprob.probability.queries import answer
from rayprob.seeds import derive

NUM_DRAWS = 256
BEAM = 16  # partial sequences that a search keeps, or as many as sets are asked for


class RecurrentDistribution(LabelDistribution):
    """Its components are D weighted samples of each image, whose labels are certain; drawn when first asked for."""

    family = "recurrent"
    is_sampled = True

    def __init__(self, images: sequences.SequenceInputs, order_L: Ints) -> None:
        """Column i of `images` is the label order_L[i]."""
        self.images, self.order_L = images, order_L

    @classmethod
    def of_outputs(cls, outputs: Mapping[str, Any]) -> "RecurrentDistribution":
        """Return the distributions that a head's outputs describe. Raises ModelError if one is missing, misshapen or nan."""
        names = ("logits", "context", "order", *sequences.SHARED)
        found = dict(zip(names, outputs_named(names, outputs, cls.family), strict=True))
        for name in ("logits", "context"):
            finite_or_certain(found[name], 2, f"{name} of family {cls.family}")
        order_L = np.argsort(found.pop("order"), kind="stable")
        found |= {name: found[name][:, order_L] for name in ("logits", "embedding")}
        tensors = {name: torch.from_numpy(np.array(values, dtype=np.float64)) for name, values in found.items()}
        nothing_BL = torch.zeros_like(tensors["logits"], dtype=torch.bool)
        network = sequences.LabelNetwork.of_outputs(tensors)
        return cls(sequences.SequenceInputs(network, tensors["logits"], tensors["context"], nothing_BL, nothing_BL), order_L)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice | NDArray[Any] | list[int]) -> "RecurrentDistribution":
        here, rows_R = self.images, torch.from_numpy(np.arange(len(self))[rows])
        parts = (here.logits_BL, here.context_BE, here.values_BL, here.known_BL)
        return RecurrentDistribution(sequences.SequenceInputs(here.network, *(part[rows_R] for part in parts)), self.order_L)

    @property
    def num_labels(self) -> int:
        return len(self.order_L)

    @property
    def num_components(self) -> int:
        return NUM_DRAWS

    @property
    def log_mixing_BK(self) -> Floats:
        return _normalised(self._draws.log_weight_BD.numpy())

    @property
    def component_logits_BKL(self) -> NDArray[Any]:
        return np.where(self._in_columns(self._draws.sets_BDL), np.inf, -np.inf)

    def logits_of(self, columns: Sequence[int]) -> NDArray[Any]:
        return np.where(self._in_columns(self._draws.sets_BDL)[:, :, columns], np.inf, -np.inf)

    def rebuilt(self, log_mixing_BK: Floats, component_logits_BKL: NDArray[Any]) -> MixtureDistribution:
        """Return a mixture, such as one of the samples."""
        return MixtureDistribution(log_mixing_BK, component_logits_BKL)

    @property
    def rules_out_sets(self) -> bool:
        return bool(self.images.known_BL.any())

    # ---- estimates

    def marginals(self) -> Floats:
        return self.estimated_marginals()[0]

    def marginal_logits(self) -> Floats:
        marginal_BL = self.marginals()
        return np.asarray(log(marginal_BL) - log(1 - marginal_BL))

    def estimated_marginals(self) -> tuple[Floats, Floats]:
        """Return P(label present) and its standard error [B, L].

        Of each draw, the probability counts that a label had when it was drawn, which varies less than whether it was drawn.
        It may stand for the label only where nothing later is known; before the last known label, the draws themselves count.
        """
        return self._marginals_and_errors

    def standard_error(self, query: answer.Query) -> Floats:
        """Return the standard error [B] of `prob`, a ratio of sums over weighted samples, to first order.

        Raises QueryError as `prob` does.
        """
        told = self.condition(answer.evidence_of(query))
        parts = [told[rows]._standard_error(query) for rows in told.chunks()]
        return np.concatenate(parts)

    def log_prob(self, label_sets_BL: Bools, known_BL: Bools | None = None) -> Floats:
        """Return log p [B], in nats, of one label set per image: exact without evidence if all of its labels are known.

        Otherwise it is the logarithm of an estimate: of the probability of the labels known here and in the evidence, over that
        of the evidence.
        """
        known_BL = np.ones((1, self.num_labels), dtype=bool) if known_BL is None else known_BL
        evidence = Evidence(*np.broadcast_arrays(label_sets_BL, known_BL))
        told, is_possible_B = self._told(evidence)
        return np.where(is_possible_B, told._log_evidence() - self._log_evidence(), -np.inf)

    def condition(self, evidence: Evidence | Mapping[int, bool]) -> "RecurrentDistribution":
        """Return the distributions given the evidence, whose samples agree with it and are weighted by its probability.

        Raises QueryError if the evidence contradicts what is known already.
        """
        if not isinstance(evidence, Evidence):
            evidence = Evidence.of(evidence, self.num_labels)
        told, is_possible_B = self._told(evidence)
        answer.refuse_impossible(is_possible_B, "the evidence")
        return told

    def answering(self, presence: Mapping[int, bool], columns: Collection[int]) -> "RecurrentDistribution":
        """Return samples that agree with `presence`, rather than those that happen to do so."""
        return self.condition(presence) if presence else self

    # ---- label sets

    def top_sets(self, k: int) -> topsets.TopSets:
        """Return k probable label sets of each image, best first, by beam search: a more probable one may be missed.

        Their log probabilities are those of `log_prob`. Raises QueryError if k < 1.
        """
        topsets.require_some(k)
        k = min(k, 2 ** min(self.num_labels, 62))
        found = [sequences.search(self[rows].images, max(k, BEAM)) for rows in self.chunks(8 * max(k, BEAM) * self.num_labels)]
        sets_BTL = self._in_columns(torch.cat([sets_BWL[:, :k] for sets_BWL, _ in found]))
        log_prob_BT = torch.cat([score_BW[:, :k] for _, score_BW in found]).numpy()
        return topsets.TopSets(sets_BTL, log_prob_BT - self._log_evidence()[:, None])

    def best_f1_sets(self) -> expected_f1.F1Sets:
        """Return the label set of each image with the largest expected F1 over its samples, and that F1."""
        parts = [self[rows] for rows in self.chunks()]
        return expected_f1.joined(
            [part.rebuilt(part.log_mixing_BK, part.component_logits_BKL).best_f1_sets() for part in parts]
        )

    def sample(self, num_sets: int, seed: int) -> Bools:
        """Return label sets [num_sets, B, L]; given evidence, drawn again by weight from at least NUM_DRAWS samples."""
        random = np.random.default_rng(seed)
        is_weighted = bool(self.images.known_BL.any())
        log_uniform_DT = _log_uniform(max(num_sets, NUM_DRAWS) if is_weighted else num_sets, self.num_labels, seed)
        parts = []
        for rows in self.chunks(16 * len(log_uniform_DT) * self.num_labels):
            drawn = sequences.draw(self[rows].images, log_uniform_DT)
            sets_DBL = self._in_columns(drawn.sets_BDL).transpose(1, 0, 2)
            if is_weighted:
                chosen_DB = information.draw_components(_normalised(drawn.log_weight_BD.numpy()), num_sets, random)
                sets_DBL = sets_DBL[chosen_DB, np.arange(sets_DBL.shape[1])]
            parts.append(sets_DBL)
        return np.concatenate(parts, axis=1)

    def entropy(self, *, num_samples: int = 256, seed: int = 0) -> information.Estimate:
        """Return the entropy of each joint distribution in nats: the mean of -log p over `num_samples` draws."""
        log_uniform_DT = _log_uniform(num_samples, self.num_labels, seed)
        chunks = self.chunks(16 * num_samples * self.num_labels)
        drawn = [sequences.draw(self[rows].images, log_uniform_DT) for rows in chunks]
        log_prob_BD = np.concatenate([part.log_prob_BD.numpy() for part in drawn])
        weight_BD = np.exp(_normalised(np.concatenate([part.log_weight_BD.numpy() for part in drawn])))
        value_B, error_B = _weighted_mean(weight_BD, -log_prob_BD)
        return information.Estimate(value_B + self._log_evidence(), error_B)

    # ---- inside

    @cached_property
    def _marginals_and_errors(self) -> tuple[Floats, Floats]:
        parts = [self[rows]._estimated_marginals() for rows in self.chunks()]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    @cached_property
    def _draws(self) -> sequences.Draws:
        return sequences.draw(self.images, _log_uniform(NUM_DRAWS, self.num_labels, 0))

    def _in_columns(self, values_XL: Tensor) -> NDArray[Any]:
        """Return values whose last axis is labels in the order of the sequences, in the order of the columns."""
        return np.asarray(values_XL.numpy()[..., np.argsort(self.order_L)])

    def _told(self, evidence: Evidence) -> tuple["RecurrentDistribution", Bools]:
        """Return the distributions with more labels known, and for which images [B] that is possible."""
        here = self.images
        values_BL, known_BL = (torch.from_numpy(part_BL[:, self.order_L]) for part_BL in self._stated(evidence))
        is_possible_B = ~(here.known_BL & known_BL & (here.values_BL ^ values_BL)).any(dim=1)
        values_BL, known_BL = here.values_BL | (values_BL & known_BL & ~here.known_BL), here.known_BL | known_BL
        told = sequences.SequenceInputs(here.network, here.logits_BL, here.context_BE, values_BL, known_BL)
        return RecurrentDistribution(told, self.order_L), is_possible_B.numpy()

    def _log_evidence(self) -> Floats:
        """Return the log probability [B] of the known labels: 0 without any, exact if all are known, otherwise an estimate."""
        here, log_B = self.images, np.zeros(len(self))
        is_all_B, is_some_B = here.known_BL.all(dim=1).numpy(), here.known_BL.any(dim=1).numpy()
        whole_b, part_b = np.flatnonzero(is_all_B), np.flatnonzero(is_some_B & ~is_all_B)
        if len(whole_b):
            whole, longest = self[whole_b], int(here.values_BL[whole_b].sum(dim=1).max())
            parts = (whole[rows] for rows in whole.chunks(32 * (longest + 1) * self.num_labels))
            log_B[whole_b] = np.concatenate([part._log_of_values() for part in parts])
        if len(part_b):
            estimated = self if len(part_b) == len(self) else self[part_b]
            chunks = [estimated] if len(estimated) == 1 else [estimated[rows] for rows in estimated.chunks()]
            log_weight_bD = np.concatenate([chunk._draws.log_weight_BD.numpy() for chunk in chunks])
            log_B[part_b] = logsumexp(log_weight_bD, axis=1) - np.log(NUM_DRAWS)
        return log_B

    def _log_of_values(self) -> Floats:
        """Return the log probability [B] of images of which all labels are known, before anything was."""
        here = self.images
        logits_BL = sequences.logits_of_sets(here.network, here.logits_BL, here.context_BE, here.values_BL)
        return np.asarray(logsigmoid(torch.where(here.values_BL, logits_BL, -logits_BL)).sum(dim=1).numpy())

    def _estimated_marginals(self) -> tuple[Floats, Floats]:
        columns_L, known_BL = torch.arange(self.num_labels), self.images.known_BL
        last_known_B1 = torch.where(known_BL, columns_L, -1).amax(dim=1, keepdim=True)
        is_chance_BL = columns_L > last_known_B1
        chance_BDL = torch.where(is_chance_BL[:, None], self._draws.chance_BDL, self._draws.sets_BDL.double())
        weight_BD1 = np.exp(self.log_mixing_BK)[:, :, None]
        mean_BL, error_BL = _weighted_mean(weight_BD1, chance_BDL.numpy())
        least_B1 = (weight_BD1**2).sum(axis=1)  # a label that was drawn always, or never, is not certain
        error_BL = np.where(is_chance_BL, error_BL, np.maximum(error_BL, least_B1))
        mean_BL = np.where(known_BL, self.images.values_BL, np.minimum(mean_BL, 1.0))
        order_L = np.argsort(self.order_L)
        return mean_BL[:, order_L], np.where(known_BL, 0.0, error_BL)[:, order_L]

    def _standard_error(self, query: answer.Query) -> Floats:
        """Return sqrt(sum of w^2 given (event - p)^2) / sum of w given, where event and given are 0 or 1 for each sample.

        It is at least 1 over the effective number of samples: an event that was never drawn is not impossible.
        """
        log_weight_BD, logits_BDL = self.log_mixing_BK, self.component_logits_BKL
        log_joint_B, log_whole_B = answer.log_joint_and_whole(query, DrawnMixture(log_weight_BD, logits_BDL))
        log_joint2_B, log_whole2_B = answer.log_joint_and_whole(query, DrawnMixture(2 * log_weight_BD, logits_BDL))
        log_scale_B = logsumexp(2 * log_weight_BD, axis=1) - 2 * log_whole_B  # the mixture has normalised the squared weights
        p_B = np.exp(np.minimum(log_joint_B - log_whole_B, 0))
        joint2_B, whole2_B = np.exp(log_joint2_B + log_scale_B), np.exp(log_whole2_B + log_scale_B)
        return np.asarray(np.maximum(np.sqrt(np.maximum((1 - 2 * p_B) * joint2_B + p_B**2 * whole2_B, 0)), whole2_B))


def _log_uniform(num_draws: int, num_labels: int, seed: int) -> Tensor:
    """Return logarithms of uniform numbers in (0, 1], [D, L + 1]."""
    random = np.random.default_rng(derive(seed, "label sequences"))
    return torch.from_numpy(np.log1p(-random.random((num_draws, num_labels + 1))))


def _normalised(log_weight_BD: Floats) -> Floats:
    return np.asarray(log_weight_BD - logsumexp(log_weight_BD, axis=1, keepdims=True))


def _weighted_mean(weight_BD: Floats, values_BD: Floats) -> tuple[Floats, Floats]:
    """Return the mean over draws, the second axis, and its standard error."""
    mean = (weight_BD * values_BD).sum(axis=1)
    return mean, np.sqrt((weight_BD**2 * (values_BD - np.expand_dims(mean, 1)) ** 2).sum(axis=1))
