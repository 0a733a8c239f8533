"""The method `gradcam`: Grad-CAM (Selvaraju et al., ICCV 2017) on the maps that are pooled, through captum.

A channel's weight is the mean over places of the gradient of the label's log-odds; the map is the positive part of the weighted
sum of channels. For average pooling and a linear head this is the positive part of `contributions`. The maps are computed once,
and each label takes a forward and a backward pass of pooling and head only.
"""

from typing import Any

import torch
from torch import Tensor, nn

from rayprob.explain.explainer import Explainer, LabelMaps, import_captum, in_grid, plain_log_odds, why_no_log_odds
from rayprob.models.classifier import Classifier


class _AfterMaps(nn.Module):
    """Pooling and head: maps -> log-odds of the marginals. `seen` is the layer whose output captum explains."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.seen = nn.Identity()
        self._classifier = [classifier]  # not a child, whose mode and parameters stay its own

    def forward(self, maps_BFhw: Tensor) -> Tensor:
        return plain_log_odds(self._classifier[0], self.seen(maps_BFhw))


class GradCam(Explainer):
    """Positive evidence on the grid of the backbone's last maps."""

    def why_not(self, classifier: Classifier) -> str:
        """Return "" for a family whose marginals have gradients."""
        return why_no_log_odds(classifier)

    def maps(self, classifier: Classifier, image_1CHW: Tensor, columns_C: Tensor) -> LabelMaps:
        """Return the maps. Raises ModelError if captum is missing."""
        import_captum()
        from captum.attr import LayerGradCam

        with torch.no_grad():
            maps_1Fhw = classifier.maps(image_1CHW).float()
        after = _AfterMaps(classifier)
        maps_CFhw = maps_1Fhw.expand(len(columns_C), -1, -1, -1).clone().requires_grad_()
        found: Any = LayerGradCam(after, after.seen).attribute(maps_CFhw, target=columns_C, relu_attributions=True)
        with torch.no_grad():
            logit_C = after(maps_1Fhw)[0, columns_C].double()
        return LabelMaps(in_grid(found.detach().double().flatten(1)), logit_C)


EXPLAINERS = {"gradcam": GradCam}
