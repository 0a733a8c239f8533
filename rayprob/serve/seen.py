"""The images that a replica remembers, by the SHA-256 of their bytes, for further questions. Bounded by number and bytes."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rayprob.predict.images import ImageBytes
from rayprob.predict.members import Forecast
from rayprob.predict.reading import Loaded


@dataclass(frozen=True, eq=False)
class SeenImage:
    """An image without its pixels, and its forecast."""

    image: ImageBytes
    loaded: Loaded
    forecast: Forecast

    @property
    def size_bytes(self) -> int:
        """The bytes of the file and of the arrays of the forecast."""
        parts = (self.forecast.distribution, *self.forecast.members)
        return len(self.image.content) + sum(_array_bytes(vars(part)) for part in parts)


class SeenImages:
    """The images that were used last; the one that was not used for longest is forgotten first."""

    def __init__(self, most_images: int, most_bytes: int) -> None:
        self._most_images, self._most_bytes = most_images, most_bytes
        self._seen: OrderedDict[str, tuple[SeenImage, int]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._seen)

    def get(self, sha256: str) -> SeenImage | None:
        """Return an image that is remembered, and remember it for longer."""
        if sha256 not in self._seen:
            return None
        self._seen.move_to_end(sha256)
        return self._seen[sha256][0]

    def put(self, sha256: str, seen: SeenImage) -> None:
        """Remember an image; one that is larger than all that may be remembered is not."""
        self._forget(sha256)
        size_bytes = seen.size_bytes
        if size_bytes > self._most_bytes:
            return
        self._seen[sha256] = (seen, size_bytes)
        self._bytes += size_bytes
        while len(self._seen) > self._most_images or self._bytes > self._most_bytes:
            self._forget(next(iter(self._seen)))

    def _forget(self, sha256: str) -> None:
        _, size_bytes = self._seen.pop(sha256, (None, 0))
        self._bytes -= size_bytes


def _array_bytes(values: dict[str, Any]) -> int:
    """Return the bytes of the arrays and tensors among values, also of those in mappings."""
    total = 0
    for value in values.values():
        if isinstance(value, np.ndarray):
            total += value.nbytes
        elif isinstance(value, torch.Tensor):
            total += value.numel() * value.element_size()
        elif isinstance(value, dict):
            total += _array_bytes(value)
    return total
