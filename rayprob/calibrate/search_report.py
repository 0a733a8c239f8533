"""What a threshold search found: the winners, what they had to beat, and how fast it went."""

from dataclasses import asdict, dataclass
from typing import Any

from rayprob.calibrate.gains import Gain


@dataclass(frozen=True)
class Winner:
    """The candidate chosen for an objective, how `rayprob calibrate` makes it, and what it is worth on val."""

    objective: str
    calibrator: str
    policy: str
    parameter: float | None
    nested: float  # cross-validated, with the parameter chosen on the other folds
    cross_validated: float  # of the candidate itself: the highest of its family, so it flatters
    rule: str | None  # None where a bundle has no such rule
    command: str | None
    val: dict[str, float] | None
    gains: tuple[Gain, ...]


@dataclass(frozen=True)
class Reference:
    """What a winner has to beat, for an objective: on holdout (nested for the optimum) and on val."""

    name: str
    objective: str
    threshold: float
    holdout: float
    val: dict[str, float] | None


@dataclass(frozen=True)
class Ranked:
    """The nested values of a family, by objective."""

    calibrator: str
    policy: str
    num_candidates: int
    nested: dict[str, float]


@dataclass(frozen=True)
class SearchReport:
    """What was searched, how fast, who won and by how much. A cut is a candidate that needs no fit but the calibrator's."""

    run: str
    folder: str
    num_samples: int
    num_labels: int
    num_reported: int | None
    num_cuts: int
    num_fitted: int
    elapsed_s: float  # of the search on holdout, all fits included
    cuts_elapsed_s: float
    winners: tuple[Winner, ...]
    references: tuple[Reference, ...]
    families: tuple[Ranked, ...]
    notes: tuple[str, ...]

    @property
    def num_candidates(self) -> int:
        """All candidates that were judged."""
        return self.num_cuts + self.num_fitted

    @property
    def candidates_per_s(self) -> float:
        """All candidates by all of the time."""
        return self.num_candidates / self.elapsed_s

    @property
    def fitted_per_s(self) -> float:
        """The candidates that are fitted in each fold, by the time without the cuts: the calibrators' fits count here."""
        return self.num_fitted / (self.elapsed_s - self.cuts_elapsed_s)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        speeds = {"candidates_per_s": self.candidates_per_s, "fitted_per_s": self.fitted_per_s}
        return {**asdict(self), "num_candidates": self.num_candidates, **speeds}
