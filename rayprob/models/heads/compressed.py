"""The head `compressed`: labels through a fixed random projection. B images, F features, M codes, L labels."""

import math
from typing import Any

import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from rayprob.models.heads.head import (
    WEIGHT_STD,
    ByPlace,
    FeatureDropout,
    Head,
    HeadSpec,
    Start,
    average,
    constant,
    log_odds,
    set_values,
)


class CompressedSpec(HeadSpec):
    """A linear layer from features to codes, which a fixed random projection relates to the labels."""

    name: str = "compressed"
    codes: int = Field(default=256, ge=1)
    """Number of codes M, at most the number of labels."""


class CompressedHead(Head):
    """Bayesian compressed sensing of label sets (Kapoor, Viswanathan, Jain, NeurIPS 2012), one logit per label.

    The label set y has the code z = Phi y + e, with a fixed random Phi [M, L] and Gaussian noise e of learned variances. An
    image states its code, m(x) = W f + c + Phi p, where p are the prevalences of the training labels, the prior of y. As seen
    from label l, the other labels are Gaussian noise with their prior mean and variance d = p (1 - p), so the code is Gaussian
    with and without the label: the means are Phi_l apart, and both have the covariance

        C_l = diag(exp(log_noise)) + sum over j != l of d_j Phi_j Phi_j^T

    Bayes' rule gives the log-odds, by the formula of Sherman and Morrison from the C of all labels:

        logit_l = b_l + (Phi_l^T C^-1 (W f + c) + (p_l - 1/2) q_l) / (1 - d_l q_l)      q_l = Phi_l^T C^-1 Phi_l

    Phi is rotated such that Phi diag(d) Phi^T, and so C, is diagonal; it stays a random projection. b_l is learned; it is the
    log-odds of the prior, up to a constant with which a fresh head answers with the prevalences.

    Its family is bernoulli: the distribution has these marginals, and any loss of the family trains them. The paper, too, fits
    regression and decoding together. It infers a precision per label and image as the prior, by iterations, and a
    posterior of W; here the prior is the prevalence, so decoding is one product, and W is a point estimate.

    It trains F M + 2 M + L numbers and keeps M L constants. An image costs F M + M L multiplications, where the Bernoulli head
    takes F L, and a batch another 2 M L for q.
    """

    def __init__(self, num_features: int, num_labels: int, spec: CompressedSpec, start: Start) -> None:
        super().__init__()
        num_codes = min(spec.codes, num_labels)
        prior_L = start.prior(num_labels)
        self.dropout = FeatureDropout(spec.dropout)
        self.codes = nn.Linear(num_features, num_codes)
        nn.init.normal_(self.codes.weight, std=WEIGHT_STD)
        nn.init.zeros_(self.codes.bias)
        self.log_noise = nn.Parameter(torch.zeros(num_codes))
        self.projection = constant(torch.empty(num_codes, num_labels))
        self.spread = constant(torch.empty(num_codes))  # the diagonal of Phi diag(d) Phi^T
        self.prevalence = constant(torch.empty(num_labels))
        self.bias = nn.Parameter(torch.empty(num_labels))
        set_values(self.bias, log_odds(prior_L), "prevalence_L")
        with torch.no_grad():
            set_values(self.prevalence, prior_L, "prevalence_L")
            self._draw_projection(prior_L)
            self.bias.sub_(self._decoding()[2])

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return {"logits": [B, L]} for features [B, F] or [B, F, P]."""
        weight_M, scale_L, offset_L = self._decoding()
        stated_BM = self.codes(average(self.dropout(features)))
        return {"logits": ((weight_M * stated_BM) @ self.projection) * scale_L + (offset_L + self.bias)}

    def by_place(self, features_BFP: Tensor) -> ByPlace:
        """Return the scores of each place by the linear map from features to logits that codes and decoding make together."""
        weight_M, scale_L, offset_L = self._decoding()
        decoding_LM = (weight_M[:, None] * self.projection * scale_L).T
        bias_L = decoding_LM @ self.codes.bias + offset_L + self.bias
        return ByPlace.of_average(features_BFP, decoding_LM @ self.codes.weight, bias_L)

    def start_from_bernoulli(self, weight_LF: Tensor, bias_L: Tensor) -> None:
        """Take over a trained Bernoulli head: exactly with as many codes as labels, else the nearest weights (least squares).

        Raises ModelError if the shapes differ.
        """
        with torch.no_grad():
            weight_M, scale_L, offset_L = self._decoding()
            decoding_LM = (weight_M[:, None] * self.projection * scale_L).double().T
            nearest_MF = torch.linalg.lstsq(decoding_LM, weight_LF.to(decoding_LM)).solution
            set_values(self.codes.weight, nearest_MF.cpu().numpy(), "the weight of the Bernoulli head")
            set_values(self.bias, (bias_L.to(offset_L) - offset_L).cpu().numpy(), "the bias of the Bernoulli head")

    def _decoding(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the diagonal of C^-1 [M], and each label's 1 / (1 - d q) and (p - 1/2) q / (1 - d q) [L]."""
        weight_M = 1 / (self.spread + torch.exp(self.log_noise))
        q_L = weight_M @ self.projection.square()
        scale_L = 1 / (1 - self.prevalence * (1 - self.prevalence) * q_L)
        return weight_M, scale_L, (self.prevalence - 0.5) * q_L * scale_L

    def _draw_projection(self, prior_L: NDArray[Any]) -> None:
        """Draw Phi with columns of about length 1, and rotate it."""
        # On the CPU even where a run's shapes are checked on the meta device, which has no eigenvalues.
        drawn_ML = torch.randn(self.projection.shape, device="cpu", dtype=torch.float32) / math.sqrt(len(self.projection))
        variance_L = torch.from_numpy(prior_L * (1 - prior_L)).float()
        spread_M, axes_MM = torch.linalg.eigh(((drawn_ML * variance_L) @ drawn_ML.T).double())
        self.projection.copy_(axes_MM.T.float() @ drawn_ML)
        self.spread.copy_(spread_M.clamp(min=0))


HEADS = {"compressed": CompressedHead}
