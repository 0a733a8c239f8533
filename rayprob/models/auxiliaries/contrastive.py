"""The auxiliary `contrastive`: images that share labels get similar embeddings. B samples, E dimensions, L labels."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from rayprob.models.auxiliaries.auxiliary import Auxiliary, AuxiliarySpec
from rayprob.models.heads import average

ITSELF = -1e30  # as good as -inf in a softmax, but 0 times it is 0


class ContrastiveSpec(AuxiliarySpec):
    """It compares the images of a micro batch, so results depend on `placement.micro_batch` and on which images meet.

    For equal results on 1 to N workers, set `placement.num_workers: [1, N]`.
    """

    compares_samples: ClassVar[bool] = True

    temperature: float = Field(default=0.1, gt=0)
    """Cosine similarities are divided by this."""
    compare: Literal["features", "outputs"] = "features"
    """What to compare: a projection of the features, or the head's own outputs, which a refit can still change."""
    width: int = Field(default=128, ge=1)
    """Dimensions of the projection of the features."""

    @property
    def why_features(self) -> str:
        return "compare: features trains features through a projection" if self.compare == "features" else ""


class Contrastive(Auxiliary):
    """Supervised contrastive learning for several labels per image (MulSupCon: Zhang and Wu, AAAI 2024).

    For each label j of an image i, the images p that share it are its positives; all other images of the micro batch compete:

        term_ij = - mean over p of log exp(s_ip / T) / sum over a != i of exp(s_ia / T)

    with the cosine similarity s, averaged over all (i, j) of the micro batch with a positive. So a pair weighs more, the more
    labels it shares and the rarer they are. A label counts as shared if it is known to be present in both. There is no queue
    of earlier batches as in the paper: gradients flow to both images of a pair, as in SupCon (Khosla et al., NeurIPS 2020).

    The projection is a hidden layer and a linear one, F*F + F*width parameters and as many multiplications per image; the
    similarities take B*B*(width + L). `compare: outputs` has no parameters: it compares the outputs minus their means over the
    micro batch, except those that are infinite, such as the logits of label sets that a powerset does not use.
    """

    def __init__(self, num_features: int, num_labels: int, spec: ContrastiveSpec) -> None:
        super().__init__()
        self.temperature = spec.temperature
        self.projection: nn.Module | None = None
        if spec.compare == "features":
            hidden = nn.Linear(num_features, num_features)
            self.projection = nn.Sequential(hidden, nn.ReLU(), nn.Linear(num_features, spec.width))

    def forward(self, features: Tensor, outputs: dict[str, Tensor]) -> Tensor:
        """Return embeddings [B, E]."""
        if self.projection is not None:
            return self.projection(average(features))  # type: ignore[no-any-return]
        flat_BE = torch.cat([output.flatten(1) for output in outputs.values()], dim=1)
        finite_BE = flat_BE.masked_fill(flat_BE.isinf().any(dim=0), 0)
        return finite_BE - finite_BE.mean(dim=0)

    def term(self, embedding_BE: Tensor, targets_BL: Tensor, known_BL: Tensor) -> Tensor:
        """Return B times each image's part of the mean over (image, label) [B]; 0 without a label that another image shares."""
        present_BL = targets_BL * known_BL
        others_L = present_BL.sum(0) - 1
        shared_BB = (present_BL / others_L.clamp(min=1)) @ present_BL.T
        unit_BE = normalize(embedding_BE, dim=1)
        itself_BB = torch.eye(len(unit_BE), dtype=torch.bool, device=unit_BE.device)
        similarity_BB = (unit_BE @ unit_BE.T / self.temperature).masked_fill(itself_BB, ITSELF)
        log_share_BB = torch.log_softmax(similarity_BB, dim=1)
        sum_B = -(shared_BB.masked_fill(itself_BB, 0) * log_share_BB).sum(1)
        num_terms = (present_BL * (others_L > 0)).sum()
        return len(unit_BE) * sum_B / num_terms.clamp(min=1)


AUXILIARIES = {"contrastive": Contrastive}
