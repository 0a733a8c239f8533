"""The interface of a calibrator, and the calibrators that a family of distributions offers. N samples, L labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rayprob.arrays import Bools, Floats
from rayprob.errors import BundleError
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.registry import choose

Outputs = Mapping[str, NDArray[Any]]
WITH = " + "  # between a map of outputs and a label prior, in the name of a calibrator
NO_PRIORS: Mapping[str, LabelMixture] = MappingProxyType({})


class OutputsCalibrator(Protocol):
    """A calibrator as stored in a bundle: maps a head's outputs to calibrated outputs, and these to distributions of `family`.

    `family` may differ from the head's: a label prior turns independent labels into mixtures.
    """

    @property
    def name(self) -> str: ...
    @property
    def family(self) -> str: ...
    def apply_outputs(self, outputs: Outputs) -> dict[str, NDArray[Any]]: ...
    def as_distribution(self, outputs: Outputs) -> LabelDistribution: ...
    def to_arrays(self) -> dict[str, NDArray[Any]]: ...


Fit = Callable[[Outputs, Bools, Bools], OutputsCalibrator]  # of checked outputs, targets_NL and known_NL


@dataclass(frozen=True)
class Candidates:
    """The calibrators of a family, and the functions that check, compare and restore them.

    `fits` lists the simplest first; `min_samples` is the number of samples from which each is tried. `check` returns outputs in
    float64 with targets and known [N, L], or raises CalibrationError. `nll` returns the negative log-likelihood [N] in nats of
    each sample's known labels. `rebuild` is the inverse of `to_arrays`. Those in `keep_order` keep the order of an image's
    marginals. `with_priors` returns the fits that combine a map of the outputs with a label prior, if the family supports it.
    """

    fits: Mapping[str, Fit]
    check: Callable[[Mapping[str, ArrayLike], ArrayLike, ArrayLike], tuple[Outputs, Bools, Bools]]
    nll: Callable[[OutputsCalibrator, Outputs, Bools, Bools], Floats]
    rebuild: Callable[[str, Outputs], OutputsCalibrator]
    min_samples: Mapping[str, int]
    keep_order: frozenset[str] = frozenset()
    with_priors: Callable[[Mapping[str, LabelMixture]], Mapping[str, Fit]] | None = None

    def enough(self, num_samples: int) -> tuple[str, ...]:
        """Return the calibrators that may be tried on `num_samples` samples with a known label."""
        return tuple(name for name in self.fits if num_samples >= self.min_samples[name])

    @classmethod
    def of(cls, family: str, distribution: Callable[[Outputs], LabelDistribution]) -> "Candidates":
        """Return the identity as the only candidate, for a family without calibrators of its own."""
        same = AsItIs(family, distribution)

        def rebuild(name: str, arrays: Outputs) -> OutputsCalibrator:
            return choose({same.name: same}, name, f"calibrator of a {family} distribution", BundleError)

        return cls(
            fits={same.name: lambda outputs, targets_NL, known_NL: same},
            check=lambda outputs, targets, known: (
                {name: np.asarray(values) for name, values in outputs.items()},
                np.asarray(targets, dtype=bool) & np.asarray(known, dtype=bool),
                np.asarray(known, dtype=bool),
            ),
            nll=joint_nll,
            rebuild=rebuild,
            min_samples={same.name: 0},
        )


@dataclass(frozen=True)
class AsItIs:
    """The calibrator that changes nothing."""

    family: str
    distribution: Callable[[Outputs], LabelDistribution]
    name: str = "identity"

    def apply_outputs(self, outputs: Outputs) -> dict[str, NDArray[Any]]:
        """Return the outputs."""
        return dict(outputs)

    def as_distribution(self, outputs: Outputs) -> LabelDistribution:
        """Return the distributions that the outputs describe."""
        return self.distribution(outputs)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return no arrays: there are no parameters."""
        return {}


def joint_nll(calibrator: OutputsCalibrator, outputs: Outputs, targets_NL: Bools, known_NL: Bools) -> Floats:
    """Return the negative log-likelihood [N] in nats of the known labels, computed by the distributions."""
    distribution = calibrator.as_distribution(calibrator.apply_outputs(outputs))
    return np.asarray(-distribution.log_prob(targets_NL, known_NL))


def map_of(name: str) -> str:
    """Return the map of outputs in a calibrator's name: `platt` of `platt + coco`."""
    return name.partition(WITH)[0]
