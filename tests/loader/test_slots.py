"""Slots of shared memory: free when nothing shows them, copied when they run out."""

import gc

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprob.loader.slots import Slots


def test_a_slot_is_free_when_the_last_view_of_it_is_gone() -> None:
    slots = Slots(2, 4, 2)
    slot = slots.take()
    images = slots.images(slot, 3)
    assert images.shape == (3, 2, 2, 3)
    assert images.data_ptr() == slots.block_SBHWC[slot].data_ptr()
    array = images.permute(0, 3, 1, 2)[1:].numpy()
    del images
    gc.collect()
    assert slot not in slots._free
    del array
    assert slot in slots._free


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_what_is_held_never_changes_and_slots_never_run_out(dropped: list[int], num_slots: int) -> None:
    slots, held = Slots(num_slots, 1, 1), []
    filled = [slots.take() for _ in range(num_slots - 1)]
    for number, drop in enumerate(dropped):
        filled.append(slots.take())  # as DataLoader does: the next task is handed out before a result is taken
        slot = filled.pop(0)
        slots.block_SBHWC[slot] = number % 256
        held.append((number % 256, slots.images(slot, 1)))
        del held[drop : drop + 1]
        while len(slots._free) == 0 and held:
            held.pop(0)
    for value, images in held:
        assert (np.asarray(images) == value).all()
        assert isinstance(images, torch.Tensor)
