"""The prediction for one image. The keys of `Record.to_dict`, which `rayprob predict --json` prints line by line, are stable:

    image, sample_id    the file, or dataset and key; sample_id is null for files
    error               null; or why there is no prediction, and then no key follows
    notes               notes, such as why there is no guarantee
    labels              [{label, marginal, without_evidence}] the most probable ones and the whole label set; calibrated
    label_set, rule     the chosen labels, and the rule that chose them
    guarantee           null, or what the rule guarantees
    top_sets            [{labels, probability}] best first; null if they cannot be found exactly
    entropy_nats        of the distribution of label sets, with its entropy_standard_error (0: exact)
    evidence            {label: true or false}; all other keys take it into account
    answers             [{query, probability}] in the order asked; null if there is none, as a note explains; with
                        standard_error where the probability is estimated from samples
    why                 [{label, log_odds_before, log_odds, pieces, scenes}] of the labels that the evidence changed most
    uncertainty         null, or {members, total_nats, aleatoric_nats, epistemic_nats, labels}: sums over all labels, and
                        labels: [{label, total_nats, aleatoric_nats, epistemic_nats, lowest, highest}] of those in `labels`,
                        with lowest and highest the range of the members' marginals
    explanations        only with --explain: [{label, method, exact, logit, rest, height, width, box, values}] where each label
                        is seen (`Explanation`); values has the rows of the grid, box the part of the image that it covers

Numbers have six significant digits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rayprob.arrays import Floats
from rayprob.errors import QueryError, RayprobError
from rayprob.explain.explanation import Explanation
from rayprob.files.documents import json_values
from rayprob.images.reading import READ_AS_STORED, ImageReading
from rayprob.predict.images import Image
from rayprob.probability.queries.explain import Why

NO_ANSWER = "no answer to {}: {}"  # the note of a query, and why


@dataclass(frozen=True)
class Rejected:
    """An image that could not be predicted, and why."""

    image: Image
    fault: RayprobError

    @property
    def error(self) -> str:
        """Why there is no prediction."""
        return str(self.fault)

    def __str__(self) -> str:
        return rejection(self.image.name, self.error)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {"image": self.image.name, "sample_id": self.image.sample_id, "error": self.error}


@dataclass(frozen=True)
class LabelLine:
    """A label with its marginal, and its marginal without the evidence (None: there is no evidence)."""

    label: str
    marginal: float
    without_evidence: float | None


@dataclass(frozen=True)
class SetLine:
    """A label set and its probability."""

    labels: tuple[str, ...]
    probability: float


@dataclass(frozen=True)
class AnswerLine:
    """A query as it was asked, and its answer; None if there is none."""

    query: str
    probability: float | None


@dataclass(frozen=True)
class EstimatedAnswer(AnswerLine):
    """An answer that is estimated from samples of label sets."""

    standard_error: float


@dataclass(frozen=True)
class DoubtLine:
    """The uncertainty of a label: in total, within members, and between members; and the range of the members' marginals."""

    label: str
    total_nats: float
    aleatoric_nats: float
    epistemic_nats: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Doubt:
    """The uncertainty of one image over `members`, summed over all labels, and per listed label."""

    members: int
    total_nats: float
    aleatoric_nats: float
    epistemic_nats: float
    labels: tuple[DoubtLine, ...]


@dataclass(frozen=True, eq=False)
class Record:
    """The prediction for one image; `marginals_L` has every label."""

    image: Image
    notes: tuple[str, ...]
    marginals_L: Floats
    labels: tuple[LabelLine, ...]
    label_set: tuple[str, ...]
    rule: str
    guarantee: str | None
    top_sets: tuple[SetLine, ...] | None
    entropy_nats: float
    entropy_standard_error: float
    evidence: Mapping[str, bool]
    answers: tuple[AnswerLine, ...]
    why: tuple[Why, ...]
    uncertainty: Doubt | None
    reading: ImageReading = READ_AS_STORED  # how the image was read
    explanations: tuple[Explanation, ...] | None = None  # only if they were asked for

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        said = {name: getattr(self, name) for name in KEYS}
        head = {"image": self.image.name, "sample_id": self.image.sample_id, "error": None}
        maps = {} if self.explanations is None else {"explanations": [one.to_dict() for one in self.explanations]}
        return head | {name: json_values(value) for name, value in said.items()} | maps


KEYS = (
    "notes",
    "labels",
    "label_set",
    "rule",
    "guarantee",
    "top_sets",
    "entropy_nats",
    "entropy_standard_error",
    "evidence",
    "answers",
    "why",
    "uncertainty",
)
Outcome = Record | Rejected


def required(outcome: Record | Rejected) -> Record:
    """Return a record. Raises the error of an image that was rejected, with the image's name in its message."""
    if isinstance(outcome, Record):
        return outcome
    is_sentence = isinstance(outcome.fault, QueryError)
    raise type(outcome.fault)(f"{outcome.image.name}: {outcome.error}" if is_sentence else str(outcome)) from outcome.fault


def rejection(name: str, error: str) -> str:
    """Return one sentence that names the image and explains why it could not be predicted."""
    return error if name in error else f"{name} {error}"
