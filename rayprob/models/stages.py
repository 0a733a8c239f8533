"""Stages of a backbone: maps of several resolutions from one network. Stage n has 1/2^n of an image's rows and columns.

So stages 2 to 5 are what detection calls C2 to C5: 1/4, 1/8, 1/16 and 1/32. The maps of a stage are those of its last module.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rayprob.errors import ModelError

PROBE_PX = 224  # of the image that finds the stages of a network which takes any size


@dataclass(frozen=True)
class Stage:
    """Where the maps of a stage are read: after which module of a network, their channels, and whether those come last."""

    position: int
    channels: int
    are_channels_last: bool = False


class Staged(nn.Module):
    """A network that is not a chain of modules, but knows its stages."""

    def stages(self) -> dict[int, Stage]:
        """Return the stages by number, the finest first; the last one is the network's output."""
        raise NotImplementedError

    def read(self, images_BCHW: Tensor, stages: Sequence[Stage]) -> tuple[Tensor, ...]:
        """Return the maps [B, F, h, w] of these stages, which are in order and end with the last one."""
        raise NotImplementedError


def choose_stages(network: nn.Module, numbers: Sequence[int], name: str, image_size_px: int | None) -> tuple[Stage, ...]:
    """Return the stages of a network with these numbers, which ascend.

    Raises ModelError if the network lacks one, or if its last stage is not among them.
    """
    found = _stages_of(network, image_size_px or PROBE_PX)
    has = f"{name} has the stages {', '.join(map(str, found))}" if found else f"the maps of {name} have one resolution only"
    missing = [number for number in numbers if number not in found]
    if missing:
        raise ModelError(
            f"maps: there is no stage {missing[0]}, because {has} (stage n: 1/2^n of an image's rows and columns); "
            f"set model.maps to {'some of these' if len(found) > 1 else 'null'}, or use another backbone"
        )
    if numbers[-1] != max(found):  # the layers after it would get no gradient, which DistributedDataParallel does not allow
        raise ModelError(f"maps must end with the last stage of the backbone, but ends with {numbers[-1]}, and {has}")
    return tuple(found[number] for number in numbers)


def read_stages(network: nn.Module, images_BCHW: Tensor, stages: Sequence[Stage]) -> tuple[Tensor, ...]:
    """Return the maps [B, F, h, w] of these stages, which are in order and end with the last one."""
    if isinstance(network, Staged):
        return network.read(images_BCHW, stages)
    wanted, found, maps = {stage.position: stage for stage in stages}, [], images_BCHW
    for position, module in enumerate(_modules(network)):
        maps = module(maps)
        if position in wanted:
            found.append(maps.permute(0, 3, 1, 2) if wanted[position].are_channels_last else maps)
    return tuple(found)


def _stages_of(network: nn.Module, size_px: int) -> dict[int, Stage]:
    """Return the stages of a network by number; empty for one that shows only its last maps."""
    if isinstance(network, Staged):
        return network.stages()
    return _stages_of_chain(network, size_px) if isinstance(network, nn.Sequential) else {}


@torch.no_grad()
def _stages_of_chain(network: nn.Module, size_px: int) -> dict[int, Stage]:
    """Follow the shapes of an image's maps, without values, which takes no time."""
    found: dict[int, Stage] = {}
    maps = torch.empty(1, 3, size_px, size_px, device="meta")
    for position, module in enumerate(_modules(network)):
        tensors = chain(module.named_parameters(), module.named_buffers())
        maps = functional_call(module, {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}, (maps,))
        if maps.ndim != 4:  # not maps, but tokens on their way to some
            continue
        _, first, second, third = maps.shape
        are_last = first == second != third
        rows, channels = (first, third) if are_last else (second, first)
        found[round(math.log2(size_px / rows))] = Stage(position, channels, are_last)
    return {number: stage for number, stage in found.items() if number > 0}


def _modules(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules of nested chains in order."""
    if type(network).forward is not nn.Sequential.forward:
        yield network
        return
    for child in network.children():
        yield from _modules(child)
