"""The maps that explain labels of one image."""

from collections.abc import Sequence
from typing import Any

from rayprob.errors import QueryError
from rayprob.predict.images import ImageBytes
from rayprob.predict.members import Predictor


def explanations(predictor: Predictor, image: ImageBytes, labels: Sequence[str], method: str) -> list[dict[str, Any]]:
    """Return a map per label, as plain data. Raises QueryError."""
    raise QueryError("explain is not available in this version; leave it out")
