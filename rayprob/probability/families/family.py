"""Families: kinds of distribution over label sets, with everything that differs between them. N images, K components, L labels.

A head names its family. All code after the head asks the family which outputs the head has, which distributions they
describe, and how they are calibrated, exported, summarised and named.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from numpy.typing import NDArray
from torch import Tensor

from rayprob.arrays import Bools, Rows
from rayprob.errors import ModelError
from rayprob.probability.calibration.candidates import Candidates, Outputs, OutputsCalibrator
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.graphs.probabilities import Probabilities
from rayprob.registry import PartTable, choose

T = TypeVar("T")


def _no_numbers(outputs: Outputs) -> dict[str, float]:
    return {}


@dataclass(frozen=True)
class Family:
    """A kind of distribution over label sets.

    `outputs` has the shape of each output of the head in letters: "NL" is a value per image and label. One without N, such as
    "KL", is the same for all images: a parameter of the distributions. `distribution` turns them into one distribution per
    image.
    """

    name: str
    outputs: Mapping[str, str]
    distribution: Callable[[Outputs], LabelDistribution]
    loss: str  # the default loss for heads of this family
    describe: Callable[[Mapping[str, Any]], str]  # the head's options -> what it is, for the report
    is_joint: bool = True  # labels may depend on each other, so evidence about one is informative about others
    is_sampled: bool = False  # answers to queries are estimated from label sets drawn from it, and have standard errors
    has_scenes: bool = False  # its components are shared by all images, so each can be named and shown
    own_candidates: Candidates | None = None  # without them, the only calibrator leaves outputs unchanged
    # The calibrator (or None) -> the module that exports its probabilities; without it, there is no ONNX.
    graph: Callable[[OutputsCalibrator | None], Probabilities] | None = None
    numbers: Callable[[Outputs], dict[str, float]] = _no_numbers  # additional numbers that an evaluation records
    # The outputs as tensors -> log-odds of the marginals [N, L], with gradients, for maps of where a label is seen.
    log_odds: Callable[[Mapping[str, Tensor]], Tensor] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the head's outputs."""
        return tuple(self.outputs)

    @property
    def per_label(self) -> frozenset[str]:
        """The outputs whose last axis is the labels."""
        return frozenset(name for name, shape in self.outputs.items() if shape.endswith("L"))

    @property
    def shared(self) -> frozenset[str]:
        """The outputs that are the same for all images."""
        return frozenset(name for name, shape in self.outputs.items() if not shape.startswith("N"))

    def of_images(self, outputs: Mapping[str, T]) -> dict[str, T]:
        """Return the outputs that differ between images."""
        return {name: values for name, values in outputs.items() if name not in self.shared}

    def joined(self, parts: Sequence[Mapping[str, T]], join: Callable[[list[T]], T]) -> dict[str, T]:
        """Return the outputs of several batches as one; those that are the same for all images are of the first."""
        of_images = self.of_images(parts[0])
        return {**parts[0], **{name: join([part[name] for part in parts]) for name in of_images}}

    def rows(self, outputs: Mapping[str, NDArray[Any]], rows: Rows | Bools) -> dict[str, NDArray[Any]]:
        """Return the outputs of some images, in the order of `rows`."""
        return {name: values if name in self.shared else values[rows] for name, values in outputs.items()}

    @cached_property
    def candidates(self) -> Candidates:
        """The calibrators to choose from."""
        return self.own_candidates or Candidates.of(self.name, self.distribution)

    def build_graph(self, calibrator: OutputsCalibrator | None) -> Probabilities:
        """Return the module that maps the head's outputs to the exported ones. Raises ModelError without a `graph`."""
        if self.graph is None:
            raise ModelError(
                f"heads of the family {self.name} cannot be exported: the family defines no graph; use another head"
            )
        return self.graph(calibrator)


def family_of(name: str) -> Family:
    """Return the family `name`. Raises ModelError for an unknown one."""
    return choose(FAMILIES, name, "family", ModelError)


def from_outputs(family: str, outputs: Mapping[str, Any]) -> LabelDistribution:
    """Return the distributions that a head's outputs describe; outputs are tensors of any device and precision, or arrays.

    Raises ModelError for an unknown family, and if an output is missing, has the wrong shape or contains nan.
    """
    return family_of(family).distribution(outputs)


FAMILIES: PartTable[Family] = PartTable("FAMILIES", {})  # each module of this package adds its own
