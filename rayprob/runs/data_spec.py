"""Which datasets a run reads: a part of run files."""

from collections.abc import Callable
from typing import Annotated, Self

from pydantic import Field, model_validator

from rayprob.config.spec import Spec
from rayprob.data.joined.dataset import AnyDataset, at_versions, open_datasets
from rayprob.data.manifest.versions import at_version
from rayprob.text import counted

Weight = Annotated[float, Field(gt=0, le=1000)]


class DataSpec(Spec):
    """Which dataset to train on, or which datasets together, and which of their splits trains the weights."""

    later_keys = frozenset({"weights"})

    root: str | tuple[str, ...]
    """Folder or URI of a built dataset; a list of them mixes several, whose labels are joined by name."""
    weights: tuple[Weight, ...] | None = None
    """For each dataset of `root`, how often a sample of it is seen in an epoch: 2 is twice, 0.5 in every second epoch; null
    is once each.
    """
    train_split: str = "train"
    """The split that the weights are trained on."""

    @model_validator(mode="after")
    def _one_weight_each(self) -> Self:
        if not self.roots:
            raise ValueError("root is an empty list; give at least one built dataset")
        if self.weights is not None and len(self.weights) != len(self.roots):
            raise ValueError(
                f"weights has {counted(len(self.weights), 'number')} for {counted(len(self.roots), 'dataset')}; give one for "
                "each dataset of root, in the same order"
            )
        return self

    @property
    def roots(self) -> tuple[str, ...]:
        """The root of each dataset."""
        return (self.root,) if isinstance(self.root, str) else self.root

    @property
    def weight_of_each(self) -> tuple[float, ...]:
        """The weight of each dataset."""
        return self.weights or (1.0,) * len(self.roots)

    def open(self) -> AnyDataset:
        """Open the dataset, or all of them as one. Raises DatasetError and LabelError."""
        return open_datasets(self.roots, self.weight_of_each)

    def at(self, fingerprint: object) -> "DataSpec":
        """Return the spec with the version of the dataset that has this fingerprint, if the dataset has grown since.

        Of several datasets it is the one version of each with which all together have it. Raises DatasetError for several if
        one cannot be read.
        """
        if len(self.roots) == 1:
            return self.moved(lambda root: at_version(root, fingerprint))
        return self.model_copy(update={"root": at_versions(self.roots, fingerprint)})

    def moved(self, move: Callable[[str], str]) -> "DataSpec":
        """Return the spec with each root as `move` returns it."""
        root = move(self.root) if isinstance(self.root, str) else tuple(map(move, self.root))
        return self.model_copy(update={"root": root})
