"""The family `bernoulli`: independent labels, one logit each."""

from rayprob.probability.calibration import independent
from rayprob.probability.distributions.distribution import BernoulliDistribution
from rayprob.probability.families.family import Family
from rayprob.probability.graphs import choice

BERNOULLI = Family(
    name="bernoulli",
    outputs={"logits": "NL"},
    distribution=BernoulliDistribution.of_outputs,
    loss="bce",
    describe=lambda options: "an independent sigmoid for each label",
    is_joint=False,
    own_candidates=independent.CANDIDATES,
    graph=choice.independent_labels,
    log_odds=lambda outputs: outputs["logits"],
)
FAMILIES = {"bernoulli": BERNOULLI}
