"""`Answer`: a model's prediction for one image, which answers further questions. L labels.

Everything comes from the forecast of one forward pass: further queries and evidence do not compute the image again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rayprob.api.answer_text import answer_text
from rayprob.api.marginals import Marginals
from rayprob.errors import QueryError
from rayprob.explain.explanation import Explanation
from rayprob.predict.answering import Answering, set_lines
from rayprob.predict.explaining import Explaining, default_labels
from rayprob.predict.members import Forecast, Predictor
from rayprob.predict.question import Question
from rayprob.predict.reading import Loaded
from rayprob.predict.record import Doubt, Record, SetLine, required
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.distributions.evidence import known_labels
from rayprob.probability.queries.answer import Query, parse
from rayprob.probability.queries.explain import Why, explain


@dataclass(frozen=True, eq=False, repr=False)
class Asked:
    """One image, its forecast, and what was asked: all that an answer is computed from.

    `loaded` keeps the pixels of an image that was given as an array, tensor, PIL image or bytes, and the path of a file.
    """

    predictor: Predictor
    question: Question
    loaded: Loaded
    forecast: Forecast

    def record(self) -> Record:
        """Return the record of `rayprob predict`. Raises QueryError if the evidence or rule cannot be applied."""
        (outcome,) = Answering(self.predictor, self.question).outcomes([self.loaded], self.forecast)
        return required(outcome)


class Answer:
    """A model's prediction for one image, returned by `Model.predict`. Its `repr` is a table, in notebooks with bars.

    Example::

        answer = model.predict("photo.jpg")
        answer.label_set                                   # ('person',)
        answer.marginals["book"]                           # 0.141, of examples/quickstart.py
        answer.prob("P(cup | dining table, !person)")      # exact
        answer.given({"dining table": True}).label_set     # ('person', 'dining table', 'book')
    """

    def __init__(self, asked: Asked, record: Record) -> None:
        self._asked = asked
        self._record = record

    @property
    def name(self) -> str:
        """The path of the image; for images in memory, `image` or `images[index]`."""
        return self._record.image.name

    @property
    def label_set(self) -> tuple[str, ...]:
        """The labels that `rule` chooses, in column order; labels given as evidence always follow the evidence."""
        return self._record.label_set

    @property
    def rule(self) -> str:
        """The rule that chose `label_set`, such as `label_OF1`, `recall@0.1` or `0.5`."""
        return self._record.rule

    @property
    def guarantee(self) -> str | None:
        """What the rule guarantees, as a sentence; None without a guarantee, or if it does not hold here (see `notes`)."""
        return self._record.guarantee

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes, such as why a guarantee does not hold."""
        return self._record.notes

    @property
    def marginals(self) -> Marginals:
        """P(label present | image, evidence) for every label by name, in column order: a dictionary.

        Looking up an unknown label raises UnknownLabel, a KeyError, with the nearest labels.
        """
        return Marginals(self._asked.question.label_space, self._record.marginals_L)

    @property
    def marginals_L(self) -> NDArray[np.float64]:
        """The marginals as float64 [L], aligned with `Model.labels`."""
        return self._record.marginals_L.copy()

    @property
    def evidence(self) -> dict[str, bool]:
        """The evidence by label: whether it is present. Everything in this answer takes it into account."""
        return dict(self._record.evidence)

    @property
    def answers(self) -> dict[str, float | None]:
        """The answers to the `queries` of `predict`, by their text; None if there is none, as one of the `notes` explains."""
        return {line.query: line.probability for line in self._record.answers}

    @property
    def entropy(self) -> float:
        """The entropy of the distribution over label sets in nats: exact, or an estimate for a mixture with many labels."""
        return self._record.entropy_nats

    @property
    def uncertainty(self) -> Doubt | None:
        """Total, aleatoric and epistemic uncertainty in nats, summed over labels and per label; None without members.

        A model has members if `load` was given several folders, or `mc_dropout`.
        """
        return self._record.uncertainty

    @property
    def distribution(self) -> LabelDistribution:
        """The distribution over label sets given the evidence, of a batch of 1."""
        return self._given_evidence(self._asked.forecast.distribution)

    def prob(self, query: str) -> float:
        """Return the answer to a query such as `P(fork | dining table, !person)` or `P(count >= 3)`.

        The evidence of this answer is taken into account. Raises QueryError, with a caret under the position, for wrong syntax
        or an unknown label, and if the condition has probability 0.
        """
        return float(self._asked.forecast.distribution.prob(self._query(query))[0])

    def standard_error(self, query: str) -> float:
        """Return the standard error of `prob`: 0, unless the model's answers are estimated from samples.

        Raises QueryError as `prob` does.
        """
        return float(self._asked.forecast.distribution.standard_error(self._query(query))[0])

    def top_sets(self, k: int = 5) -> list[SetLine]:
        """Return the `k` most probable label sets, best first, with `labels` and `probability`; without those of probability 0.

        Raises QueryError for k < 1, and if the sets cannot be found exactly.
        """
        if k < 1:
            raise QueryError(f"k must be at least 1; got {k}")
        return list(set_lines(self.distribution, k, self._names)[0])

    def explain(self, label: str) -> Why:
        """Explain a label's probability: its log-odds before and after the evidence, what each piece of evidence changed,
        and the components of a mixture that are responsible.

        Raises LabelError for an unknown label, QueryError for a label that is itself evidence.
        """
        question = self._asked.question
        column = question.label_space.column(label)
        return explain(self._asked.forecast.distribution, column, question.evidence, question.label_space)

    def maps(self, labels: str | Sequence[str] | None = None, method: str = "auto") -> list[Explanation]:
        """Return maps of where labels are seen in the image, which is read again: those of `Model.explain`.

        By default of the label set and the three most probable labels, at most six. Evidence has no effect on a map.
        Raises what `Model.explain` raises.
        """
        explaining = Explaining.of(self._asked.predictor, [labels] if isinstance(labels, str) else labels, method)
        return explaining.image(self._asked.loaded.image, explaining.labels or default_labels(self._record))

    def given(self, evidence: Mapping[str, bool]) -> "Answer":
        """Return the answer for the same image with more evidence, such as `{"dining table": True, "person": False}`.

        A label stated again takes its new value. Raises LabelError for an unknown label, and QueryError for evidence of
        probability 0.
        """
        question = self._asked.question
        known = {**question.evidence, **known_labels(evidence, question.label_space)}
        asked = replace(self._asked, question=replace(question, evidence=known))
        asked.question.given_evidence()
        return Answer(asked, asked.record())

    def to_dict(self) -> dict[str, object]:
        """Return plain data with the keys and precision of `rayprob predict --json`."""
        return self._record.to_dict()

    def __repr__(self) -> str:
        return answer_text(self, ((line.label, line.marginal) for line in self._record.labels))

    def _repr_html_(self) -> str:
        """Return the answer with bars and the image, for notebooks: one element, no script, no network."""
        from rayprob.api.html import answer_html

        return answer_html(self._record)

    @property
    def _names(self) -> tuple[str, ...]:
        return self._asked.question.label_space.names

    def _query(self, text: str) -> Query:
        question = self._asked.question
        (asked,) = replace(question, queries=(parse(text, question.label_space),)).given_evidence()
        return asked

    def _given_evidence(self, distribution: LabelDistribution) -> LabelDistribution:
        evidence = self._asked.question.evidence
        return distribution.condition(evidence) if evidence else distribution
