"""A label prior file: a mixture over named labels, as safetensors with its source in the metadata. Safe to open."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from rayprob.errors import LabelError, ModelError, RayprobError, one_line
from rayprob.files import storage
from rayprob.labels import LabelSpace, columns_by_name, composed
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.priors.fit import scene_names
from rayprob.registry import unknown
from rayprob.text import first_of

VERSION = 1
KEY = "rayprob_prior"
# rayprob prior ../shared/labels/coco_train2014_labels.parquet --names coco -o coco.prior.safetensors --source "COCO ..."
SHIPPED = {"coco": Path(__file__).with_name("coco.prior.safetensors")}
LEAST_IN_COMMON = 2  # labels; one alone has no label to depend on
ROUNDED = 1e-4  # tolerance of the sum of weights that are stored in float32
REMEDY = "write one with `rayprob prior`"


@dataclass(frozen=True, eq=False)
class LabelPriorFile:
    """A mixture over the labels `names`, a description of its source, and facts of its fit as plain data."""

    names: tuple[str, ...]
    mixture: LabelMixture
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scenes(self) -> list[str]:
        """A name for each component, from its typical labels."""
        return scene_names(self.mixture, self.names)

    def columns(self, label_space: LabelSpace) -> dict[int, int]:
        """Return which label of the prior each column of a label space is, of those that it knows (`columns_by_name`)."""
        return columns_by_name(label_space.names, self.names)

    def matching(self, label_space: LabelSpace) -> str:
        """Describe which labels the prior knows: all or how many, which under another name, and which not."""
        columns, names = self.columns(label_space), label_space.names
        renamed = [
            f"{names[column]} as {self.names[own]}"
            for column, own in columns.items()
            if composed(names[column]) != composed(self.names[own])
        ]
        unknown_names = [name for column, name in enumerate(names) if column not in columns]
        known = f"{len(columns)} of the {len(names)} labels" if unknown_names else f"all {len(names)} labels"
        apart = f"; treated as independent of the others: {first_of(unknown_names, 8)}" if unknown_names else ""
        return f"knows {known}{f', {first_of(renamed, 8)}' if renamed else ''}{apart}"

    def over(self, label_space: LabelSpace) -> LabelMixture:
        """Return the mixture over the labels of a label space, in their order; exact, since all others are summed out.

        A label that the prior does not know has probability 0.5 in every component, which carries no information. Raises
        LabelError if fewer than two labels match.
        """
        columns = self.columns(label_space)
        if len(columns) < LEAST_IN_COMMON:
            raise LabelError(
                f"the label prior from {self.source} knows {len(columns)} of the {len(label_space)} labels, but needs at "
                f"least 2 to model which labels co-occur; its labels: {', '.join(self.names[:8])}, ..."
            )
        p_KL = np.full((len(self.mixture.mixing_weights_K), len(label_space)), 0.5)
        p_KL[:, list(columns)] = self.mixture.probabilities_KL[:, list(columns.values())]
        return LabelMixture(self.mixture.mixing_weights_K, p_KL)

    def save(self, uri: str) -> None:
        """Write the prior to a path or URI. Raises StorageError."""
        # safetensors writes raw memory, which would scramble an array that is not in row order.
        arrays = {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in self.mixture.to_arrays().items()}
        told = {"version": VERSION, "names": list(self.names), "source": self.source, "facts": dict(self.facts)}
        storage.write_bytes(uri, safetensors.numpy.save(arrays, {KEY: json.dumps(told)}))

    @classmethod
    def load(cls, name: str, *, also: Sequence[str] = ()) -> "LabelPriorFile":
        """Return the prior of that name that ships with rayprob, or the one in a file. Raises StorageError, ModelError.

        `also` are further names that the caller allows, for the error of an unknown one.
        """
        require_prior(name, also)
        path = str(SHIPPED.get(name, name))
        content = storage.read_bytes(path)
        try:
            arrays = safetensors.numpy.load(content)
            header_bytes = int.from_bytes(content[:8], "little")
            told = json.loads(json.loads(content[8 : 8 + header_bytes])["__metadata__"][KEY])
            if told["version"] != VERSION:
                raise ModelError(f"it has version {told['version']!r}, this rayprob reads {VERSION}")
            mixture = _mixture(arrays)
            return cls(_names(told["names"], mixture), mixture, str(told["source"]), dict(told["facts"]))
        except (RayprobError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(f"{path} is not a label prior ({one_line(error)}); {REMEDY}") from error


def require_prior(name: str, also: Sequence[str] = ()) -> None:
    """Raise ModelError for a name that is neither one of `also`, nor of a prior that ships with rayprob, nor of a file."""
    names = (*also, *SHIPPED)
    if name not in names and "/" not in name and not storage.exists(name):
        raise ModelError(f"{unknown(name, names, 'label prior')}, or the path of a file: {REMEDY}")


def _names(told: Any, mixture: LabelMixture) -> tuple[str, ...]:
    num_labels = mixture.probabilities_KL.shape[1]
    if not isinstance(told, list) or not all(isinstance(name, str) for name in told) or len(told) != num_labels:
        raise ModelError(f"its names must be a list of {num_labels} texts, one for each label of the mixture")
    first: dict[str, str] = {}
    for name in told:
        if (same := first.setdefault(composed(name), name)) is not name:
            raise ModelError(f"its labels {same!r} and {name!r} have the same name")
    return tuple(told)


def _mixture(arrays: Mapping[str, Any]) -> LabelMixture:
    weights_K, p_KL = (np.asarray(arrays[name], dtype=np.float64) for name in ("mixing_weights_K", "probabilities_KL"))
    if not abs(weights_K.sum() - 1) <= ROUNDED or weights_K.ndim != 1:
        raise ModelError(f"its mixing weights, of shape {list(weights_K.shape)}, sum to {weights_K.sum():.6g}, not to 1")
    return LabelMixture(weights_K / weights_K.sum(), p_KL)
