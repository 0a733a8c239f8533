"""The family `mixture`: components with independent labels, and the weight of each in an image."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rayprob.probability.calibration import mixture
from rayprob.probability.calibration.candidates import Outputs
from rayprob.probability.distributions.distribution import MixtureDistribution
from rayprob.probability.families.family import Family
from rayprob.probability.graphs import choice


def components_in_use(mixing_logits_BK: Tensor) -> Tensor:
    """Return exp(entropy) of the mean mixing weights, a scalar in 1..K: the effective number of components."""
    log_usage_K = torch.log_softmax(mixing_logits_BK.double(), dim=1).logsumexp(dim=0) - math.log(len(mixing_logits_BK))
    return (-(log_usage_K.exp() * log_usage_K).sum()).exp()


def _usage(outputs: Outputs) -> dict[str, float]:
    """Return the number of components in use, which falls if the mixture collapses."""
    return {"components_in_use": float(components_in_use(torch.from_numpy(outputs["mixing_logits"])))}


def _log_odds(outputs: Mapping[str, Tensor]) -> Tensor:
    """Return the log-odds of the marginals [N, L]. Present and absent are summed apart: 1 - p would round to 0."""
    mixing_N1K = torch.softmax(outputs["mixing_logits"].double(), dim=1).unsqueeze(1)
    logits_NKL = outputs["component_logits"].double()
    present_NL, absent_NL = ((mixing_N1K @ torch.sigmoid(sign * logits_NKL)).squeeze(1) for sign in (1, -1))
    return torch.log(present_NL) - torch.log(absent_NL)


def _describe_mixture(options: Mapping[str, Any]) -> str:
    return f"a joint distribution over label sets, a mixture of {options.get('components', 'some')} components"


MIXTURE = Family(
    name="mixture",
    outputs={"mixing_logits": "NK", "component_logits": "NKL"},
    distribution=MixtureDistribution.of_outputs,
    loss="mixture",
    describe=_describe_mixture,
    has_scenes=True,
    own_candidates=mixture.CANDIDATES,
    graph=choice.mixtures,
    log_odds=_log_odds,
    numbers=_usage,
)
FAMILIES = {"mixture": MIXTURE}
