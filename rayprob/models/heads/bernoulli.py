"""The head `bernoulli`: independent labels from a linear layer, with class-specific attention on request."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import one_hot

from rayprob.models.heads.head import (
    WEIGHT_STD,
    ByPlace,
    FeatureDropout,
    Head,
    HeadSpec,
    Start,
    average,
    prior_log_odds,
    set_values,
)


class AttentiveSpec(HeadSpec):
    """A linear head. `attention` is the weight of a label's score at its best place, added to its average over all places.

    This is class-specific residual attention (Zhu and Wu, ICCV 2021) with one head and infinite temperature. It needs
    `pooling: places`.
    """

    as_written: ClassVar[Mapping[str, Any]] = {"name": "", "dropout": 0.0, "components": 1, "rank": 0, "attention": 0.0}

    attention: float = Field(default=0.0, ge=0)
    """Weight of the best place of an image, added to the average over places; needs pooling: places."""

    @property
    def why_places(self) -> str:
        return f"attention {self.attention} needs the features of every place" if self.attention else ""

    def after(self, old: HeadSpec) -> HeadSpec:
        """Take over the attention of the old head, unless this one has its own."""
        before = old.attention if isinstance(old, AttentiveSpec) else 0.0
        return self.model_copy(update={"attention": self.attention or before})


class BernoulliSpec(AttentiveSpec):
    """A linear head, trained jointly; or in a refit, with `apart`, a logistic regression of each label (binary relevance)."""

    later_keys: ClassVar[frozenset[str]] = frozenset({"apart"})

    apart: bool = False
    """In a refit only: fit each label alone, with a penalty of its own that holdout chooses."""

    @model_validator(mode="after")
    def _apart_is_linear(self) -> Self:
        if self.apart and (self.attention or self.dropout):
            raise ValueError(
                f"apart fits linear classifiers without dropout; got attention {self.attention:g} and dropout "
                f"{self.dropout:g}: leave both out, or set apart: false"
            )
        return self

    @property
    def title(self) -> str:
        return f"{self.name}-apart" if self.apart else self.name

    @property
    def needs_refit(self) -> bool:
        return self.apart

    def after(self, old: HeadSpec) -> HeadSpec:
        """Take over the attention of the old head, unless labels are fitted apart, on the mean of the places."""
        return self if self.apart else super().after(old)


class BernoulliHead(Head):
    """Independent labels: one logit per label."""

    def __init__(self, num_features: int, num_labels: int, spec: BernoulliSpec, start: Start) -> None:
        super().__init__()
        self.dropout, self.attention = FeatureDropout(spec.dropout), spec.attention
        self.linear = nn.Linear(num_features, num_labels)
        nn.init.normal_(self.linear.weight, std=WEIGHT_STD)
        set_values(self.linear.bias, prior_log_odds(start, num_labels), "prevalence_L")

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return {"logits": [B, L]} for features [B, F] or [B, F, P]."""
        features = self.dropout(features)
        return {"logits": self.linear(average(features)) + best_place(features, self.linear.weight, self.attention)}

    def by_place(self, features_BFP: Tensor) -> ByPlace:
        """Return the scores of all places, divided by their number, and the attention at the best one."""
        of_mean = ByPlace.of_average(features_BFP, self.linear.weight, self.linear.bias)
        scores_BLP = self.linear.weight @ features_BFP
        is_best_BLP = one_hot(scores_BLP.argmax(dim=2), scores_BLP.shape[2])
        return of_mean._replace(added_BLP=of_mean.added_BLP + self.attention * is_best_BLP * scores_BLP)

    def start_from_bernoulli(self, weight_LF: Tensor, bias_L: Tensor) -> None:
        """Take over the weights of a trained Bernoulli head. Raises ModelError if the shapes differ."""
        set_values(self.linear.weight, weight_LF.numpy(), "the weight of the Bernoulli head")
        set_values(self.linear.bias, bias_L.numpy(), "the bias of the Bernoulli head")


def best_place(features: Tensor, weight_LF: Tensor, attention: float) -> Tensor | float:
    """Return `attention` times each label's score at its best place [B, L]; 0 without attention."""
    if not attention:
        return 0.0
    return attention * (weight_LF @ features).amax(dim=2)


HEADS = {"bernoulli": BernoulliHead}
