"""What a stream yields: B samples, L labels."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rayprob.loader.order import Cursor


@dataclass(frozen=True)
class Batch:
    """A micro batch: images uint8 [B, 3, H, W], targets and known bool [B, L], and the cursor of its global batch."""

    images_BCHW: Tensor
    targets_BL: Tensor
    known_BL: Tensor
    sample_ids_B: Tensor
    cursor: Cursor

    def __len__(self) -> int:
        return len(self.sample_ids_B)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """Return the batch on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        images, targets, known, ids = map(function, (self.images_BCHW, self.targets_BL, self.known_BL, self.sample_ids_B))
        return Batch(images, targets, known, ids, self.cursor)
