"""Adds maps of where labels are seen to predictions: `rayprob predict --explain`, `Model.explain` and `Answer.maps`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rayprob.explain.choosing import AUTO
from rayprob.explain.explanation import Explanation
from rayprob.explain.members import Seen, explain, method_of
from rayprob.predict.images import Image
from rayprob.predict.members import Predictor, input_of
from rayprob.predict.reading import Loaded, load
from rayprob.predict.record import Outcome, Record, rejection

PROBABLE, MOST = 3, 6  # the most probable labels, and all that are explained unless labels are asked for


@dataclass(frozen=True)
class Explaining:
    """The labels to explain, or () for those of `default_labels`, and the method."""

    predictor: Predictor
    labels: tuple[str, ...]
    method: str

    @classmethod
    def of(cls, predictor: Predictor, labels: Sequence[str] | None = None, method: str = AUTO) -> "Explaining":
        """Choose the method before any image is read. Raises QueryError for the method, LabelError for an unknown label."""
        space = predictor.bundle.label_space
        named = tuple(dict.fromkeys(space.names[space.column(label)] for label in labels or ()))
        return cls(predictor, named, method_of(predictor.bundles, method))

    def added(self, outcome: Outcome, loaded: Loaded) -> Outcome:
        """Return a prediction with its maps; a rejected image as it is."""
        if not isinstance(outcome, Record):
            return outcome
        return replace(outcome, explanations=self.maps(loaded, self.labels or default_labels(outcome)))

    def image(self, image: Image, labels: Sequence[str] = ()) -> list[Explanation]:
        """Read an image and return its maps. Raises SampleError or StorageError if it cannot be read, and as `maps`."""
        loaded = load(image, self.predictor.inputs)
        if loaded.error is not None:
            raise type(loaded.error)(rejection(image.name, str(loaded.error))) from loaded.error
        return list(self.maps(loaded, labels or self.labels))

    def maps(self, loaded: Loaded, labels: Sequence[str]) -> tuple[Explanation, ...]:
        """Return the maps of an image whose pixels are loaded. Raises ModelError if the method needs a missing package."""
        inputs = self.predictor.inputs
        members = [Seen(bundle, loaded.squashed_S[inputs.index(input_of(bundle))]) for bundle in self.predictor.bundles]
        return tuple(explain(members, labels, self.method))


def default_labels(record: Record) -> tuple[str, ...]:
    """Return the chosen label set and the PROBABLE most probable labels: at most MOST, in the order of their probability."""
    listed = [line.label for line in record.labels]
    return tuple(label for label in listed if label in record.label_set or label in listed[:PROBABLE])[:MOST]
