"""The family `powerset`: label sets with a probability each, which all images share, and independent labels for all others."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from rayprob.probability.calibration.candidates import Outputs, OutputsCalibrator
from rayprob.probability.distributions.powerset import PowersetDistribution
from rayprob.probability.families.family import Family
from rayprob.probability.graphs.probabilities import Probabilities


class PowersetMarginals(Probabilities):
    """Outputs -> marginals, for ONNX."""

    def forward(self, outputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the marginals: the sets weighted by their probabilities, and the remainder's sigmoids."""
        logits_NK = torch.cat([outputs["set_logits"], outputs["rest_logit"]], dim=1).double()
        weight_NK = torch.softmax(logits_NK, dim=1)
        sets_SL = (outputs["sets"] > 0.5).double()
        return ((weight_NK[:, :-1] @ sets_SL + weight_NK[:, -1:] * torch.sigmoid(outputs["logits"].double())).float(),)


def _graph(calibrator: OutputsCalibrator | None) -> Probabilities:
    return PowersetMarginals()


def _log_odds(outputs: Mapping[str, Tensor]) -> Tensor:
    """Return the log-odds of the marginals [N, L]. Present and absent are summed apart: 1 - p would round to 0."""
    score_NK = torch.cat([outputs["set_logits"], outputs["rest_logit"]], dim=1).double()
    weight_NK, sets_SL, logits_NL = torch.softmax(score_NK, dim=1), outputs["sets"].double(), outputs["logits"].double()
    present_NL, absent_NL = (
        weight_NK[:, :-1] @ has_SL + weight_NK[:, -1:] * torch.sigmoid(sign * logits_NL)
        for sign, has_SL in ((1, sets_SL), (-1, 1 - sets_SL))
    )
    return torch.log(present_NL) - torch.log(absent_NL)


def _remainder(outputs: Outputs) -> dict[str, float]:
    """Return the mean probability of the remainder, the label sets that are not listed."""
    weight_NK = softmax(np.concatenate([outputs["set_logits"], outputs["rest_logit"]], axis=1).astype(np.float64), axis=1)
    return {"other_sets": float(weight_NK[:, -1].mean())}


def _describe(options: Mapping[str, Any]) -> str:
    return f"a joint distribution over label sets: up to {options.get('sets', 'some')} of training, and independent labels"


POWERSET = Family(
    name="powerset",
    outputs={"set_logits": "NK", "rest_logit": "N1", "logits": "NL", "sets": "KL"},
    distribution=PowersetDistribution.of_outputs,
    loss="powerset",
    describe=_describe,
    graph=_graph,
    log_odds=_log_odds,
    numbers=_remainder,
)
FAMILIES = {"powerset": POWERSET}
