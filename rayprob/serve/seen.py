"""The images that a replica remembers, by the SHA-256 of their bytes, for further questions. Bounded by number and bytes."""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayprob.predict.images import ImageBytes
from rayprob.predict.members import Forecast
from rayprob.predict.reading import Loaded

Content = NDArray[Any] | torch.Tensor | bytes
Held = dict[int, Content]  # by id, so that what several images share is found


@dataclass(frozen=True, eq=False)
class SeenImage:
    """An image without its pixels, and its forecast."""

    image: ImageBytes
    loaded: Loaded
    forecast: Forecast

    @property
    def held(self) -> Held:
        """The bytes of the file and the arrays of the forecast, to which answers add what they compute and keep."""
        return _held((self.image.content, self.forecast.distribution, *self.forecast.members))


class SeenImages:
    """The images that were used last; the one that was not used for longest is forgotten first.

    An array that several images hold, such as the label sets of a head, counts once.
    """

    def __init__(self, most_images: int, most_bytes: int) -> None:
        self._most_images, self._most_bytes = most_images, most_bytes
        self._seen: OrderedDict[str, tuple[SeenImage, Held]] = OrderedDict()
        self._holders: Counter[int] = Counter()  # the number of images that hold an array, by its id
        self.size_bytes = 0

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
        held = seen.held
        if sum(map(_size_bytes, held.values())) > self._most_bytes:
            return
        self._seen[sha256] = (seen, held)
        for key, value in held.items():
            self.size_bytes += 0 if self._holders[key] else _size_bytes(value)
            self._holders[key] += 1
        while len(self._seen) > self._most_images or self.size_bytes > self._most_bytes:
            self._forget(next(iter(self._seen)))

    def measure(self, sha256: str) -> None:
        """Count again what an image holds, if it is remembered: an answer may have added to it."""
        if sha256 in self._seen:
            self.put(sha256, self._seen[sha256][0])

    def _forget(self, sha256: str) -> None:
        _, held = self._seen.pop(sha256, (None, {}))
        for key, value in held.items():
            self._holders[key] -= 1
            if not self._holders[key]:
                del self._holders[key]
                self.size_bytes -= _size_bytes(value)


def _held(roots: Iterable[object]) -> Held:
    """Return the arrays, tensors and bytes that objects and their parts hold, each once."""
    found: Held = {}
    rest, met = list(roots), set()
    while rest:
        value = rest.pop()
        if id(value) in met:
            continue
        met.add(id(value))
        if isinstance(value, np.ndarray | torch.Tensor | bytes):
            found[id(value)] = value
        else:
            rest += _parts_of(value)
    return found


def _parts_of(value: object) -> list[object]:
    """Return what a container has, or the attributes of an object; as a list, because another thread may add to them."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, tuple | list | set | frozenset):
        return list(value)
    return [] if isinstance(value, type | ModuleType) else list(getattr(value, "__dict__", {}).values())


def _size_bytes(value: Content) -> int:
    return len(value) if isinstance(value, bytes) else value.nbytes
