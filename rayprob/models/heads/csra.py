"""The head `csra`: class-specific residual attention with several heads (Zhu and Wu, ICCV 2021). H heads, P places."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import one_hot

from rayprob.models.heads.head import WEIGHT_STD, ByPlace, FeatureDropout, Head, HeadSpec, Start, prior_log_odds, set_values

Temperature = Literal["max"] | Annotated[float, Field(ge=0)]


class CsraSpec(HeadSpec):
    """Attention to the places where a label scores high, by heads of different temperatures. Needs `pooling: places`."""

    name: str = "csra"
    attention: float = Field(default=0.2, ge=0)
    """Weight of the score under attention, added to the average over places; 0.1 to 0.4 in the paper."""
    temperatures: tuple[Temperature, ...] = Field(default=(1.0, 2.0, 4.0, "max"), min_length=1)
    """One per head: the factor of the scores in the softmax over places; max takes the best place. The paper uses [1],
    [1, max] or [1, 2, 4, max], and 1 to H - 1 and max for H = 6 and 8."""

    @property
    def why_places(self) -> str:
        return f"name {self.name} needs the features of every place"


class CsraHead(Head):
    """Independent labels: head h scores label l at place p by s_hlp = w_hl f_p, and the logit of the label is

        b_l + sum over h of ( mean over p of s_hlp + attention * sum over p of a_hlp s_hlp )

    where a_hlp is the softmax over the places of T_h s_hlp. One head of the temperature
    `max` is the head `bernoulli` with the same attention. Its size is F*H*L + L, and it computes H*L*P scores per image.

    Unlike the reference implementation, it leaves the norm of w_hl free, and has a bias: so a fresh head predicts the
    prevalences, and one head can take over a Bernoulli head.
    """

    def __init__(self, num_features: int, num_labels: int, spec: CsraSpec, start: Start) -> None:
        super().__init__()
        self.attention, self.temperatures = spec.attention, spec.temperatures
        self.dropout = FeatureDropout(spec.dropout)
        self.linear = nn.Linear(num_features, len(spec.temperatures) * num_labels, bias=False)
        nn.init.normal_(self.linear.weight, std=WEIGHT_STD)
        self.bias = nn.Parameter(torch.empty(num_labels))
        set_values(self.bias, prior_log_odds(start, num_labels), "prevalence_L")

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return {"logits": [B, L]} for features [B, F, P]."""
        scores_BHLP = (self.linear.weight @ self.dropout(features)).unflatten(1, (len(self.temperatures), -1))
        logits_BL = scores_BHLP.mean(dim=3).sum(dim=1) + self.bias
        for scores_BLP, temperature in zip(scores_BHLP.unbind(dim=1), self.temperatures, strict=True):
            logits_BL = logits_BL + self.attention * attended(scores_BLP, temperature)
        return {"logits": logits_BL}

    def by_place(self, features_BFP: Tensor) -> ByPlace:
        """Return the scores of each place under the weights of all heads: 1 / P, and those of their attention."""
        all_scores: Tensor = self.linear.weight @ features_BFP
        scores_BHLP = all_scores.reshape(len(all_scores), len(self.temperatures), -1, all_scores.shape[2])
        added_BLP = scores_BHLP.sum(dim=1) / scores_BHLP.shape[3]
        for scores_BLP, temperature in zip(scores_BHLP.unbind(dim=1), self.temperatures, strict=True):
            added_BLP = added_BLP + self.attention * attention_weights(scores_BLP, temperature) * scores_BLP
        return ByPlace(added_BLP, self.bias.expand(len(added_BLP), -1))

    def start_from_bernoulli(self, weight_LF: Tensor, bias_L: Tensor) -> None:
        """Take over a trained Bernoulli head, its weights shared equally by the heads. Raises ModelError for other shapes."""
        heads = len(self.temperatures)
        weight_HLF = (weight_LF / heads).expand(heads, *weight_LF.shape)
        set_values(self.linear.weight, weight_HLF.flatten(0, 1).numpy(), "the weight of the Bernoulli head")
        set_values(self.bias, bias_L.numpy(), "the bias of the Bernoulli head")


def attended(scores_BLP: Tensor, temperature: Temperature) -> Tensor:
    """Return the mean over places of the scores, weighted by their softmax with a temperature [B, L]; `max`: the largest."""
    if temperature == "max":
        return scores_BLP.amax(dim=2)
    return (attention_weights(scores_BLP, temperature) * scores_BLP).sum(dim=2)


def attention_weights(scores_BLP: Tensor, temperature: Temperature) -> Tensor:
    """Return the weights of places under a temperature, which sum to 1 [B, L, P]; `max`: all of it at the best place."""
    if temperature == "max":
        return one_hot(scores_BLP.argmax(dim=2), scores_BLP.shape[2])
    return torch.softmax(temperature * scores_BLP, dim=2)


HEADS = {"csra": CsraHead}
