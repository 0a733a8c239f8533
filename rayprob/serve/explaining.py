"""The maps that explain labels of one image, where a request asks for them."""

from typing import Any

from rayprob.predict.images import ImageBytes
from rayprob.predict.record import Record
from rayprob.serve.generation import Generation
from rayprob.serve.options import Options


def explanations(generation: Generation, image: ImageBytes, record: Record, options: Options) -> list[dict[str, Any]] | None:
    """Return a map per label, as plain data; None if none was asked for. The image is decoded and computed again.

    Raises QueryError for a method that the head does not allow, LabelError for an unknown label, ModelError without captum.
    """
    if options.explain is False:
        return None
    from rayprob.predict.explaining import Explaining, default_labels

    named = () if options.explain is True else options.explain
    explaining = Explaining.of(generation.predictor, named, options.explain_method)
    with generation.computing:
        found = explaining.image(image, explaining.labels or default_labels(record))
    return [one.to_dict() for one in found]
