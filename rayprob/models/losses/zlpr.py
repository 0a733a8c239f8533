"""The loss `zlpr`: present labels above zero and absent ones below, the hardest first."""

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import softplus

from rayprob.models.losses.loss import BestBy, LossSpec
from rayprob.models.losses.soft_extremes import highest_absent, lowest_present


class ZlprSpec(LossSpec):
    """No options. The threshold of a label set is logit 0."""

    best_by: ClassVar[BestBy] = "mAP"


def zlpr(spec: ZlprSpec, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return log(1 + sum of exp(-z) over present labels) + log(1 + sum of exp(z) over absent ones).

    This is the zero-bounded log-sum-exp and pairwise rank-based loss (Su et al., 2022, arXiv 2208.02955). Each
    label's gradient is shared with the other labels of its image, so a sigmoid of a logit is not a probability: calibrate it.
    """
    logits_BL = outputs["logits"]
    present_B = softplus(lowest_present(logits_BL, targets_BL, known_BL))
    return present_B + softplus(highest_absent(logits_BL, targets_BL, known_BL))


LOSSES = {"zlpr": zlpr}
