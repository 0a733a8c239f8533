"""A search file, `tune_configs/thresholds.yaml`: what to search on a run's saved predictions."""

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from rayprob.calibrate.crossfit import MIN_HOLDOUT, CalibrateSpec
from rayprob.config.kinds import SEARCH_FILE, FileKind
from rayprob.config.spec import Spec

SMOOTHINGS = (0.0, *(round(float(value), 3) for value in np.geomspace(0.5, 500, 40)))
PRECISIONS = tuple(round(0.02 * step, 2) for step in range(15, 48))
LEVELS = tuple(round(0.02 * step, 2) for step in range(1, 31))

Aim = Literal["OF1", "CF1", "mean_F1"]
PolicyName = Literal["global", "label", "precision", "recall", "best_F1", "top_k"]
Smoothing = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Level = Annotated[float, Field(gt=0, lt=1)]


class ThresholdSearchSpec(Spec):
    """What to search, on which run's predictions, and how to judge it."""

    run: str
    """Folder of a finished run; its saved predictions are searched."""
    objectives: tuple[Aim, ...] = Field(default=("OF1", "CF1", "mean_F1"), min_length=1)
    """The F1 scores to maximise."""
    calibrators: Literal["auto"] | tuple[str, ...] = "auto"
    """Calibrators to try; auto tries all that the holdout is large enough for."""
    policies: tuple[PolicyName, ...] = Field(
        default=("global", "label", "precision", "recall", "best_F1", "top_k"), min_length=1
    )
    """Kinds of rules. `global`: one threshold for all labels; every one that changes a decision is tried. `label`: one per
    label, fitted for an objective, by smoothing. `precision`: the lowest thresholds that reach a precision, for all or per
    label. `recall`: the threshold that misses a bounded share of the labels present. `best_F1`: the set with the largest
    expected F1. `top_k`: the k most probable labels, for comparison with papers; bundles do not have this rule."""
    smoothings: tuple[Smoothing, ...] = Field(default=SMOOTHINGS, min_length=1)
    """Strengths that pull per-label thresholds towards the global one."""
    precisions: tuple[Share, ...] = Field(default=PRECISIONS, min_length=1)
    """Precisions that each label must reach, for the policy `precision`."""
    conformal_levels: tuple[Level, ...] = Field(default=LEVELS, min_length=1)
    """Shares of labels that may be missed, for the policy `recall`."""
    top_k: tuple[PositiveInt, ...] = Field(default=(1, 2, 3, 4, 5), min_length=1)
    """Numbers of labels per image, for the policy `top_k`."""
    folds: int = Field(default=5, ge=2, le=MIN_HOLDOUT // 2)
    """Folds of cross-validation."""
    bootstrap: PositiveInt = 1000
    """Bootstrap resamples for intervals."""
    seed: NonNegativeInt = 0
    """Seed of folds and bootstrap."""

    @property
    def folding(self) -> CalibrateSpec:
        """The folds, as a calibration takes them."""
        return CalibrateSpec(num_folds=self.folds, seed=self.seed)


class ThresholdSearch(Spec):
    """A search file: one part, `thresholds`."""

    file_kind: ClassVar[FileKind | None] = SEARCH_FILE

    thresholds: ThresholdSearchSpec
    """The search."""
