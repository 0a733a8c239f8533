"""Reusable shared memory for images. S slots of B samples.

New shared memory for each micro batch costs 0.4 ms per image at 448 px in page faults, a tenth of all work on it; copying
an image out of a slot costs 0.15 ms.
"""

import shutil
import weakref
from collections import deque
from pathlib import Path

import torch
from torch import Tensor

from rayprob.errors import RunError

SHARED_MEMORY = Path("/dev/shm")


class Slots:
    """A block of shared memory, uint8 [S, B, H, W, 3]; loader workers fill its slots, the training process reads them."""

    def __init__(self, num_slots: int, max_samples: int, size_px: int) -> None:
        """Raise RunError if the system has too little shared memory."""
        self.block_SBHWC = _shared_block(num_slots, max_samples, size_px)
        self._free = deque(range(num_slots))

    def take(self) -> int:
        """Return a free slot, to be filled."""
        return self._free.popleft()

    def images(self, slot: int, num_samples: int) -> Tensor:
        """Return the images in a filled slot [num_samples, H, W, 3]; they do not change while they are referenced.

        They are views of the slot, which is free again once nothing refers to it. If free slots run out, or a GPU will read
        them from page-locked memory, they are copied.
        """
        if torch.cuda.is_available() or not self._free:
            return self._copied(slot, num_samples)
        shown = self.block_SBHWC[slot, :num_samples].numpy()
        # A tensor and all its views keep the array that it was made from alive.
        weakref.finalize(shown, self._free.append, slot)
        return torch.from_numpy(shown)

    def _copied(self, slot: int, num_samples: int) -> Tensor:
        shown_BHWC = self.block_SBHWC[slot, :num_samples]
        images_BHWC = torch.empty(shown_BHWC.shape, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
        # With numpy, because torch copies with all its threads, which then spin and take time from the loader workers.
        images_BHWC.numpy()[...] = shown_BHWC.numpy()
        self._free.append(slot)
        return images_BHWC


def _shared_block(num_slots: int, max_samples: int, size_px: int) -> Tensor:
    shape = (num_slots, max_samples, size_px, size_px, 3)
    wanted_bytes = num_slots * max_samples * size_px * size_px * 3
    # The system kills a loader worker that finds no space, so check first.
    if SHARED_MEMORY.is_dir() and (free_bytes := shutil.disk_usage(SHARED_MEMORY).free) < wanted_bytes:
        raise RunError(
            f"loader workers need {wanted_bytes:,} bytes of shared memory, but {SHARED_MEMORY} has {free_bytes:,} free; "
            f"lower loader_workers, prefetch or micro_batch, or start the container with a larger --shm-size"
        )
    storage = torch.UntypedStorage._new_shared(wanted_bytes)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape)  # type: ignore[call-overload, no-any-return]
