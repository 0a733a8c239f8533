"""The family `masked`: a network that answers given any evidence. Its weights are outputs that all images share."""

from collections.abc import Mapping
from typing import Any

from rayprob.probability.distributions.masked import MaskedDistribution
from rayprob.probability.distributions.masked_network import OUTPUTS, label_logits
from rayprob.probability.families.family import Family
from rayprob.probability.graphs.masked import masked_marginals


def _describe(options: Mapping[str, Any]) -> str:
    return "a transformer that predicts labels given the image and any known labels, and label sets by the chain rule"


MASKED = Family(
    name="masked",
    outputs=OUTPUTS,
    distribution=MaskedDistribution.of_outputs,
    loss="masked",
    is_sampled=True,
    describe=_describe,
    graph=masked_marginals,
    log_odds=label_logits,
)
FAMILIES = {"masked": MASKED}
