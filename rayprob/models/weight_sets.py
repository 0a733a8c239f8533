"""Finds the sets of weights in a file of another program, which of them are averaged, and which one to load.

Trainers nest a state_dict as they like (`model`, `state_dict_ema`, `module.`, `_orig_mod.`, `backbone.`, ...), in any order.
So there is no list of such names: a set is wherever all of a model's own names follow one prefix.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rayprob.errors import ModelError
from rayprob.text import first_of

Choice = Literal["all", "ema", "model"]
MAX_DEPTH = 8
SHOWN = 3
# Parts of a prefix that mark averaged weights, in addition to those that begin or end with "ema".
AVERAGED = (
    "teacher",
    "averaged_model",
    "average_model",
    "swa_model",
    "shadow",
    "shadow_params",
    "momentum_encoder",
    "encoder_k",
    "target_encoder",
    "target_network",
)
# (how to recognise it, prefix of the averages, prefix of the raw weights) of trainers that save them in each other's place:
# mmengine's EMAHook, and Lightning's WeightAveraging.
SWAPPED = (
    ("ema_state_dict.steps", "state_dict.", "ema_state_dict."),
    ("averaging_state.n_averaged", "state_dict.", "current_model_state."),
)
# Wrappers to remove from the names of a file in which no set fits, before comparing them.
WRAPPERS = (
    "state_dict",
    "model",
    "model_state_dict",
    "network",
    "net",
    "module",
    "_orig_mod",
    "backbone",
    "encoder",
    "student",
)


@dataclass(frozen=True)
class WeightSet:
    """Tensors by their names in a model; in the file, `prefix` precedes each name."""

    prefix: str
    is_averaged: bool
    tensors: dict[str, Tensor]

    @property
    def name(self) -> str:
        """The name of the set in messages."""
        kind = "EMA weights" if self.is_averaged else "raw weights"
        return f"{kind} ({self.prefix.rstrip('.')})" if self.prefix else kind


def flat(loaded: object) -> dict[str, Tensor]:
    """Return every tensor in nested mappings and lists, by its dotted path; each container is visited once."""
    return dict(_walk(loaded, "", 0, set()))


def _walk(value: object, path: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path.removesuffix("."), value
        return
    if depth > MAX_DEPTH or id(value) in seen or not isinstance(value, Mapping | list | tuple):
        return
    seen.add(id(value))
    for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from _walk(inner, f"{path}{key}.", depth + 1, seen)


def find_sets(tensors: Mapping[str, Tensor], needed: Collection[str]) -> list[WeightSet]:
    """Return the sets with at least half of the names that a model needs; if there are none, the nearest one."""
    found: Counter[str] = Counter()
    for name in tensors:
        found.update(prefix for prefix in _prefixes(name) if name[len(prefix) :] in needed)
    prefixes = [prefix for prefix, count in found.items() if count * 2 >= len(needed)]
    return [_set_at(prefix, tensors, prefixes) for prefix in prefixes or [_outer_prefix(tensors)]]


def choose_set(sets: list[WeightSet], needed: Collection[str], choice: Choice, where: str) -> WeightSet:
    """Return the set that `choice` selects: `all` takes the averaged one if there is one, as trainers evaluate those.

    Raises ModelError if there is no such set, or several.
    """
    averaged, raw = ([one for one in sets if one.is_averaged is is_averaged] for is_averaged in (True, False))
    meant = {"all": averaged or raw, "ema": averaged, "model": raw}[choice]
    if not meant:
        what = "EMA" if choice == "ema" else "raw"
        raise ModelError(
            f"{where} has no {what} weights that fit this model, only {_listed(sets)}; leave out model.weights_part"
        )
    whole = [one for one in meant if all(name in one.tensors for name in needed)] or meant
    if any(not _are_equal(whole[0], other, needed) for other in whole[1:]):
        raise ModelError(f"{where} has several sets of weights that fit this model: {_listed(whole)}; save only one")
    return whole[0]


def unnamed_averages(tensors: Mapping[str, Tensor], sets: list[WeightSet]) -> str | None:
    """Return where averages are that belong to no set, such as a list of tensors without names; None if there are none."""
    for name in tensors:
        *parts, _ = name.split(".")
        path = ".".join(parts)
        is_known = any(name.startswith(one.prefix) for one in sets)
        if not is_known and not path.startswith("optimizer") and any(map(_says_averaged, parts)) and tensors[name].ndim > 1:
            return path
    return None


def _prefixes(name: str) -> Iterator[str]:
    at = 0
    while True:
        yield name[:at]
        at = name.find(".", at) + 1
        if at == 0:
            return


def _set_at(prefix: str, tensors: Mapping[str, Tensor], prefixes: Collection[str]) -> WeightSet:
    inner = tuple(other for other in prefixes if other != prefix and other.startswith(prefix))
    own = {
        name[len(prefix) :]: tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and not (inner and name.startswith(inner))
    }
    return WeightSet(prefix, _is_averaged(prefix, tensors), own)


def _is_averaged(prefix: str, tensors: Mapping[str, Tensor]) -> bool:
    for witness, averaged, raw in SWAPPED:
        if witness in tensors and prefix.startswith((averaged, raw)):
            return prefix.startswith(averaged)
    # torch.optim.swa_utils.AveragedModel stores its update counter next to the module.
    counted = any(f"{outer}n_averaged" in tensors for outer in _prefixes(prefix))
    return counted or any(map(_says_averaged, prefix.split(".")))


def _says_averaged(part: str) -> bool:
    part = part.lower()
    return part in AVERAGED or part.startswith("ema") or part.endswith("ema")


def _outer_prefix(tensors: Mapping[str, Tensor]) -> str:
    prefix = ""
    while True:
        inner = {name[len(prefix) :].split(".")[0] for name in tensors if name.startswith(prefix)}
        wrapper = next((name for name in WRAPPERS if name in inner), None)
        deeper = f"{prefix}{wrapper}."
        if wrapper is None or not any(name.startswith(deeper) for name in tensors):
            return prefix
        prefix = deeper


def _are_equal(one: WeightSet, other: WeightSet, needed: Collection[str]) -> bool:
    pairs = [(one.tensors.get(name), other.tensors.get(name)) for name in needed]
    return all(left is not None and right is not None and torch.equal(left, right) for left, right in pairs)


def _listed(sets: list[WeightSet]) -> str:
    return first_of((one.name for one in sets), SHOWN)


def describe_contents(loaded: Any) -> str:
    """Return the type of a value without named tensors, and the keys of a mapping."""
    if not isinstance(loaded, Mapping):
        return type(loaded).__name__
    keys = [str(key) for key in loaded]
    return f"{type(loaded).__name__} of {', '.join(keys[:SHOWN])}{', ...' if len(keys) > SHOWN else ''}"
