"""A classifier's weights under the names of its backbone's library, so that the library can load them as well."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from rayprob.errors import ModelError

HEADER_KEY = "rayprob_names"  # in the header of a safetensors file
BUFFERS = ("mean", "std")
HEAD = "head.linear"


@dataclass(frozen=True)
class SourceNames:
    """How tensors are renamed: the backbone's lose the prefix `body`, the linear head's are named after `classifier`.

    The library normalises by its own configuration, so `mean` and `std` are no tensors of its file.
    """

    body: str
    classifier: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a classifier under the library's names. Raises ModelError for one without such a name."""
        kept = {name: tensor for name, tensor in tensors.items() if name not in self._buffers()}
        return {self._renamed(name, (self.body, ""), (HEAD, self.classifier)): tensor for name, tensor in kept.items()}

    def undo(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the classifier's tensors, those of its normalisation too, from the library's."""
        own = {self._renamed(name, (self.classifier, HEAD), ("", self.body)): tensor for name, tensor in tensors.items()}
        return own | {name: torch.tensor(values).view(-1, 1, 1) for name, values in self._buffers().items()}

    def to_text(self) -> str:
        """Return the names as JSON, for the header of a file."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str, where: str) -> "SourceNames":
        """Read the names in the header of a file. Raises ModelError that names the file, if they are damaged."""
        try:
            value = json.loads(text)
            mean, std = (tuple(map(float, value[name])) for name in BUFFERS)
            return cls(str(value["body"]), str(value["classifier"]), mean, std)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ModelError(f"the names in the header of {where} are damaged ({error!s:.120}); copy it again") from error

    def _buffers(self) -> dict[str, tuple[float, ...]]:
        return {f"backbone.{name}": getattr(self, name) for name in BUFFERS}

    @staticmethod
    def _renamed(name: str, *prefixes: tuple[str, str]) -> str:
        """Return the name with the first prefix that it has replaced; prefixes without a dot at their end are whole parts."""
        for old, new in prefixes:
            if name.startswith(old if old.endswith(".") or not old else f"{old}."):
                return new + name.removeprefix(old)
        raise ModelError(f"{name} has no name in the backbone's library")
