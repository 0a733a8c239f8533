"""Joint distributions that a network answers from any evidence. B images, L labels; S label sets and C labels asked about.

The network (`masked_network.py`) gives P(label | image, evidence) for any evidence. Its answers are the definition:

- marginals are its answers given the evidence so far, at first none, and `condition` adds evidence to it;
- the probability of some labels' states is the product, by the chain rule, of its answers for each of them given the evidence
  and those before it, in one fixed order, `turns` (Uria, Murray and Larochelle, "A deep and tractable density estimator", ICML
  2014). So it sums to 1 over the 2^C states of any C labels, and all terms come from one pass.

These are answers of one network, trained to be those of one distribution, but nothing makes them so exactly: P(a, b) is
P(a) P(b | a), and differs from P(b) P(a | b); the sum over b of P(a, b) is P(a) if a comes first, and may differ if not.

A question that names up to ENUMERATED labels, not counting its evidence, is answered from all their states; any other from
label sets drawn. Evidence that is a label or its negation is given to the network; Bayes' rule is only for other conditions,
such as `(a | b)`. Top sets are found by a beam search.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import expit, log_expit
from torch import Tensor

from rayprob.arrays import AnyFloats, Bools, Floats
from rayprob.errors import ModelError
from rayprob.probability.distributions import topsets
from rayprob.probability.distributions.bernoulli import entropy_of_logits
from rayprob.probability.distributions.distribution import MixtureDistribution, outputs_named
from rayprob.probability.distributions.drawn import NUM_DRAWN, DrawnDistribution, DrawnSets
from rayprob.probability.distributions.evidence import Evidence
from rayprob.probability.distributions.masked_network import ATTENTION_HEADS, OUTPUTS, label_logits, tokens_seen
from rayprob.probability.queries import answer

ENUMERATED = 6  # labels, of which all 2^6 states are computed
BEAM = 16  # label sets kept per image, or 2 k for the k best


class MaskedDistribution(DrawnDistribution):
    """A network's outputs, and the evidence given to it so far: values_BL counts where known_BL."""

    family = "masked"

    def __init__(self, outputs: Mapping[str, Tensor], values_BL: Bools, known_BL: Bools) -> None:
        """The outputs are in float64; `of_outputs` checks them."""
        self._outputs, self.values_BL, self.known_BL = outputs, values_BL, known_BL
        self._turns_L = outputs["turns"].numpy()
        self._order: list[int] = np.argsort(self._turns_L, kind="stable").tolist()

    @classmethod
    def of_outputs(cls, outputs: Mapping[str, Any]) -> "MaskedDistribution":
        """Return the distributions that a head's outputs describe. Raises ModelError if one is missing, misshapen or nan."""
        arrays = dict(zip(OUTPUTS, outputs_named(tuple(OUTPUTS), outputs, cls.family), strict=True))
        _require_fit(arrays)
        nothing_BL = np.zeros(arrays["logits"].shape, dtype=bool)
        return cls({name: torch.from_numpy(array.astype(np.float64)) for name, array in arrays.items()}, nothing_BL, nothing_BL)

    def __len__(self) -> int:
        return len(self.known_BL)

    def __getitem__(self, rows: slice | np.ndarray[Any, Any] | list[int]) -> "MaskedDistribution":
        chosen = {name: self._outputs[name][rows] for name, shape in OUTPUTS.items() if shape.startswith("N")}
        return MaskedDistribution({**self._outputs, **chosen}, self.values_BL[rows], self.known_BL[rows])

    @property
    def num_labels(self) -> int:
        return int(self.known_BL.shape[1])

    # ---- probabilities

    def marginals(self) -> Floats:
        return np.asarray(expit(self.marginal_logits()))

    def marginal_logits(self) -> Floats:
        logits_BL = self._answers(self.values_BL[:, None], self.known_BL[:, None], range(self.num_labels))
        return np.where(self.known_BL, np.where(self.values_BL, np.inf, -np.inf), logits_BL)

    def log_prob(self, label_sets_BL: Bools, known_BL: Bools | None = None) -> Floats:
        """Return log p [B], in nats, of one label set per image, or of its known labels, by the chain rule over these."""
        known_BL = np.ones((1, self.num_labels), dtype=bool) if known_BL is None else known_BL
        sets_BL, stated_BL = self._stated(Evidence(*np.broadcast_arrays(label_sets_BL, known_BL)))
        # The chain sees L of L labels, for each image.
        parts = [self[rows]._chain(sets_BL[rows, None], stated_BL[rows])[:, 0] for rows in self.chunks(self.num_labels**2)]
        return np.concatenate(parts)

    def condition(self, evidence: Evidence | Mapping[int, bool]) -> "MaskedDistribution":
        """Return the distributions that the network gives for the evidence so far and this.

        Raises QueryError if the two contradict each other.
        """
        if not isinstance(evidence, Evidence):
            evidence = Evidence.of(evidence, self.num_labels)
        values_BL, known_BL = self._stated(evidence)
        is_contradicted_BL = known_BL & self.known_BL & (values_BL != self.values_BL)
        answer.refuse_impossible(~is_contradicted_BL.any(axis=1), "the evidence")
        return MaskedDistribution(self._outputs, np.where(known_BL, values_BL, self.values_BL), known_BL | self.known_BL)

    @property
    def rules_out_sets(self) -> bool:
        return bool(self.known_BL.any())

    def answering(self, presence: Mapping[int, bool], columns: Collection[int]) -> MixtureDistribution:
        """Return the states of the labels in `columns`, or label sets drawn if these are many, given `presence`."""
        told = self.condition(presence)
        others = sorted(set(columns) - presence.keys())
        return told._enumerated(others) if len(others) <= ENUMERATED else told.as_mixture

    def standard_error(self, query: answer.Query) -> Floats:
        """Return the standard error of the answer to a query [B]: 0, unless it is estimated from label sets drawn.

        It is at least 1 over the number of these in which the conditions hold: what was never drawn is not impossible. Raises
        QueryError as `prob` does.
        """
        told = self.condition(answer.evidence_of(query))
        if len(answer.others_of(query)) <= ENUMERATED:
            return np.zeros_like(self.prob(query)) if answer.has_other_conditions(query) else np.zeros(len(self))
        log_joint_B, log_whole_B = answer.log_joint_and_whole(query, told.as_mixture)
        p_B, least_B = np.exp(np.minimum(log_joint_B - log_whole_B, 0)), 1 / (NUM_DRAWN * np.exp(log_whole_B))
        return np.asarray(np.maximum(np.sqrt(p_B * (1 - p_B) * least_B), least_B))

    # ---- label sets

    def draws(self, uniform_BSL: Floats) -> DrawnSets:
        shape_BSL = (len(self), *uniform_BSL.shape[1:])
        present_BSL = np.array(np.broadcast_to(self.values_BL[:, None], shape_BSL))
        entropy_BS = np.zeros(shape_BSL[:2])
        for column in self._order:
            logits_BS = self._next(column, present_BSL)
            open_B1: Bools = ~self.known_BL[:, [column]]
            drawn_BS = np.asarray(uniform_BSL[:, :, column] < expit(logits_BS))
            present_BSL[:, :, column] = np.where(open_B1, drawn_BS, self.values_BL[:, [column]])
            entropy_BS += open_B1 * entropy_of_logits(logits_BS)
        return DrawnSets(present_BSL, entropy_BS)

    def top_sets(self, k: int) -> topsets.TopSets:
        """Return the k most probable label sets that a beam search along the chain finds, with exact log probabilities.

        The beam keeps the max(BEAM, 2 k) most probable states of the labels so far. A set is missed if, at some label, that
        many other states are more probable than its own. With up to log2 BEAM labels, the search is complete.
        """
        topsets.require_some(k)
        return topsets.joined([self[rows]._beam(k) for rows in self.chunks()])

    # ---- inside

    def _next(self, column: int, present_BSL: Bools) -> Floats:
        """Return the logits [B, S] of a label given the evidence, and the labels before it as in each label set."""
        seen_BL = self.known_BL | (self._turns_L < self._turns_L[column])
        return self._answers(present_BSL, seen_BL[:, None], [column] * present_BSL.shape[1])

    def _beam(self, k: int) -> topsets.TopSets:
        width, images_B1 = max(BEAM, 2 * k), np.arange(len(self))[:, None]
        sets_BSL, log_BS = self.values_BL[:, None].copy(), np.zeros((len(self), 1))
        for column in self._order:
            logits_BS, known_B1 = self._next(column, sets_BSL), self.known_BL[:, [column]]
            certain_B1 = np.where(self.values_BL[:, [column]], np.inf, -np.inf)
            logits_BS = np.where(known_B1, certain_B1, logits_BS)
            both_BS = np.concatenate([log_BS + log_expit(logits_BS), log_BS + log_expit(-logits_BS)], axis=1)
            best_BS = np.argsort(-both_BS, axis=1, kind="stable")[:, :width]
            is_present_BS = best_BS < log_BS.shape[1]
            sets_BSL = sets_BSL[images_B1, best_BS % log_BS.shape[1]]
            sets_BSL[:, :, column] = is_present_BS
            log_BS = both_BS[images_B1, best_BS]
        return topsets.TopSets(sets_BSL[:, :k], log_BS[:, :k])

    def _enumerated(self, columns_C: Sequence[int]) -> MixtureDistribution:
        """Return all states of some labels as components, weighted by the chain; the other labels are not to be read."""
        states_SC = np.arange(2 ** len(columns_C))[:, None] >> np.arange(len(columns_C)) & 1
        sets_BSL = np.repeat(self.values_BL[:, None], len(states_SC), axis=1)
        sets_BSL[:, :, columns_C] = np.where(self.known_BL[:, None, columns_C], sets_BSL[:, :, columns_C], states_SC > 0)
        stated_L = np.zeros(self.num_labels, dtype=bool)
        stated_L[columns_C] = True
        certain_BSL = np.where(sets_BSL, np.float32(np.inf), np.float32(-np.inf))
        return MixtureDistribution(self._chain(sets_BSL, stated_L[None]), certain_BSL)

    def _chain(self, sets_BSL: Bools, stated_BL: Bools) -> Floats:
        """Return the log probability [B, S] of the stated labels of label sets, given the evidence."""
        open_BL = stated_BL & ~self.known_BL
        columns_C = np.flatnonzero(open_BL.any(axis=0))
        num_sets = sets_BSL.shape[1]
        before_CL = self._turns_L < self._turns_L[columns_C, None]
        seen_BCL = self.known_BL[:, None] | (open_BL[:, None] & before_CL)
        present_BSL = np.where(self.known_BL[:, None], self.values_BL[:, None], sets_BSL)
        logits_BX = self._answers(
            np.repeat(present_BSL, len(columns_C), axis=1), np.tile(seen_BCL, (1, num_sets, 1)), np.tile(columns_C, num_sets)
        )
        logits_BSC = logits_BX.reshape(len(self), num_sets, len(columns_C))
        log_BSC = log_expit(np.where(sets_BSL[:, :, columns_C], logits_BSC, -logits_BSC))
        is_false_BS = ((stated_BL & self.known_BL)[:, None] & (sets_BSL != self.values_BL[:, None])).any(axis=2)
        return np.where(is_false_BS, -np.inf, log_BSC.sum(axis=2, where=open_BL[:, None, columns_C]))

    @torch.no_grad()
    def _answers(self, present_BQL: Bools, seen_BQL: Bools, columns_Q: Sequence[int] | np.ndarray[Any, Any]) -> Floats:
        """Return logits [B, Q] of labels, each given the labels that it sees; shapes broadcast to [B, Q, L]."""
        if not len(columns_Q):
            return np.zeros((len(self), 0))
        read = np.flatnonzero(seen_BQL.any(axis=(0, 1)))
        present_BQR, seen_BQR = (np.ascontiguousarray(table_BQL[:, :, read]) for table_BQL in (present_BQL, seen_BQL))
        columns, parts = torch.as_tensor(np.asarray(columns_Q)), []
        num_keys = 2 * len(read) + self._outputs["places"].shape[1]
        for rows in self.chunks(8 * ATTENTION_HEADS * len(columns) * num_keys):
            outputs = {**self[rows]._outputs, "states": self._outputs["states"][:, read]}
            tokens = tokens_seen(torch.from_numpy(present_BQR[rows]), torch.from_numpy(seen_BQR[rows])) if len(read) else None
            parts.append(label_logits(outputs, tokens, columns).numpy())
        return np.concatenate(parts)


def _require_fit(arrays: Mapping[str, AnyFloats]) -> None:
    """Raise ModelError unless the outputs have the shapes of OUTPUTS, with one size for each letter, and are numbers."""
    sizes: dict[str, int] = {}
    for name, letters in OUTPUTS.items():
        shape = np.shape(arrays[name])
        expected = [
            int(letter) if letter.isdigit() else sizes.setdefault(letter, size)
            for letter, size in zip(letters, shape, strict=False)
        ]
        if len(shape) != len(letters) or list(shape) != expected or sizes.get("D", 0) % ATTENTION_HEADS:
            raise ModelError(
                f"output {name!r} of the family 'masked' has shape {shape}; it must be {letters}, as the others, with D a "
                f"multiple of {ATTENTION_HEADS}"
            )
        if np.isnan(arrays[name]).any():
            raise ModelError(f"output {name!r} of the family 'masked' contains nan; the model diverged")
