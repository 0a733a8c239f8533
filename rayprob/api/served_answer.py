"""`ServedAnswer`: the answer of a server for one image, which asks the server further questions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayprob.api.answer_text import answer_text
from rayprob.api.marginals import Marginals
from rayprob.errors import QueryError
from rayprob.labels import LabelSpace
from rayprob.predict.record import NO_ANSWER, SetLine

OWN = ("sha256", "bundle", "fingerprint", "explanations", "marginals")  # keys that `rayprob predict --json` does not print


@dataclass(frozen=True, eq=False)
class SentImage:
    """The image's name, the labels, and the function that asks the server about the image again."""

    name: str
    label_space: LabelSpace
    ask: Callable[[Mapping[str, Any]], dict[str, Any]]


class ServedAnswer:
    """A server's prediction for one image, returned by `Client.predict`, with the fields of `Answer`.

    `prob`, `standard_error`, `top_sets` and `given` ask the server, which computes the image only once. Numbers have six
    significant digits, except the marginals, which are exact.
    """

    def __init__(self, source: SentImage, options: Mapping[str, Any], said: Mapping[str, Any]) -> None:
        self._sent, self._options, self._said = source, options, said

    @property
    def name(self) -> str:
        """The path of the image; `image` for one in memory."""
        return self._sent.name

    @property
    def label_set(self) -> tuple[str, ...]:
        """The labels that `rule` chooses, in column order."""
        return tuple(self._said["label_set"])

    @property
    def rule(self) -> str:
        """The rule that chose `label_set`."""
        return str(self._said["rule"])

    @property
    def guarantee(self) -> str | None:
        """What the rule guarantees, as a sentence; None without a guarantee, or if it does not hold here (see `notes`)."""
        found: str | None = self._said["guarantee"]
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes, such as why a guarantee does not hold."""
        return tuple(self._said["notes"])

    @property
    def marginals(self) -> Marginals:
        """P(label present | image, evidence) for every label by name, in column order: a dictionary."""
        return Marginals(self._sent.label_space, self.marginals_L)

    @property
    def marginals_L(self) -> NDArray[np.float64]:
        """The marginals as float64 [L], aligned with `Client.labels`."""
        return np.asarray(self._said["marginals"], dtype=np.float64)

    @property
    def evidence(self) -> dict[str, bool]:
        """The evidence by label: whether it is present."""
        return dict(self._said["evidence"])

    @property
    def answers(self) -> dict[str, float | None]:
        """The answers to the `queries` of `predict`, by their text; None if there is none, as one of the `notes` explains."""
        return {line["query"]: line["probability"] for line in self._said["answers"]}

    @property
    def entropy(self) -> float:
        """The entropy of the distribution over label sets in nats."""
        return float(self._said["entropy_nats"])

    @property
    def explanations(self) -> list[dict[str, Any]] | None:
        """A map per label that was to be explained, as plain data; None unless asked for."""
        found: list[dict[str, Any]] | None = self._said["explanations"]
        return found

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the bundle that answered; another one after the server has loaded a changed bundle."""
        return str(self._said["fingerprint"])

    def prob(self, query: str) -> float:
        """Return the answer to a query. Raises QueryError as `Answer.prob` does."""
        return float(self._line(query)["probability"])

    def standard_error(self, query: str) -> float:
        """Return the standard error of `prob`: 0, unless the model's answers are estimated from samples.

        Raises QueryError as `prob` does.
        """
        return float(self._line(query).get("standard_error", 0.0))

    def top_sets(self, k: int = 5) -> list[SetLine]:
        """Return the `k` most probable label sets, best first. Raises QueryError as `Answer.top_sets` does."""
        if k < 1:
            raise QueryError(f"k must be at least 1; got {k}")
        said = self._asked(top=k, queries=[])
        if said["top_sets"] is None:
            raise QueryError("; ".join(said["notes"]))
        return [SetLine(tuple(line["labels"]), line["probability"]) for line in said["top_sets"]]

    def given(self, evidence: Mapping[str, bool]) -> "ServedAnswer":
        """Return the answer for the same image with more evidence. A label stated again takes its new value."""
        options = {**self._options, "evidence": {**self.evidence, **evidence}}
        return ServedAnswer(self._sent, options, self._sent.ask(options))

    def to_dict(self) -> dict[str, object]:
        """Return plain data with the keys and precision of `rayprob predict --json`."""
        return {**{key: value for key, value in self._said.items() if key not in OWN}, "image": self.name}

    def __repr__(self) -> str:
        return answer_text(self, ((line["label"], line["marginal"]) for line in self._said["labels"]))

    def _line(self, query: str) -> dict[str, Any]:
        line: dict[str, Any]
        said = self._asked(top=1, queries=[query])
        (line,) = said["answers"]
        if line["probability"] is None:
            start = NO_ANSWER.format(line["query"], "")
            raise QueryError("; ".join(note for note in said["notes"] if note.startswith(start)))
        return line

    def _asked(self, **more: Any) -> dict[str, Any]:
        return self._sent.ask({**self._options, "marginals": False, "explain": False, **more})
