"""A network over labels in an exported graph: its answers without evidence."""

import torch
from torch import Tensor

from rayprob.probability.calibration.candidates import OutputsCalibrator
from rayprob.probability.distributions.masked_network import OUTPUTS, label_logits
from rayprob.probability.graphs.probabilities import Probabilities


class MaskedMarginals(Probabilities):
    """The marginals. Evidence and label sets need the network itself, which the graph does not offer."""

    def forward(self, outputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the marginals."""
        return (torch.sigmoid(label_logits({name: outputs[name].double() for name in OUTPUTS})).float(),)


def masked_marginals(calibrator: OutputsCalibrator | None) -> Probabilities:
    """Return the module that maps the outputs to marginals."""
    return MaskedMarginals()
