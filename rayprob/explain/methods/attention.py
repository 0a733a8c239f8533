"""The method `attention`: how much a label's query attends to each place, for heads with attention (`decoder`, `srn`).

Attention shows where the head reads, not what it concludes: a map may look the same for a label that is absent (Jain and
Wallace, NAACL 2019).
"""

import torch
from torch import Tensor

from rayprob.explain.explainer import Explainer, LabelMaps, in_grid, plain_log_odds, why_no_log_odds
from rayprob.models.classifier import Classifier


class AttentionWeights(Explainer):
    """The head's own weights of places, at least 0: those that `Head.attention_to_places` states."""

    def why_not(self, classifier: Classifier) -> str:
        """Return "" for a head with attention."""
        return why_no_log_odds(classifier) if classifier.head.has_attention else "needs a head with attention (decoder, srn)"

    @torch.no_grad()
    def maps(self, classifier: Classifier, image_1CHW: Tensor, columns_C: Tensor) -> LabelMaps:
        """Return the weights of places."""
        maps_1Fhw = classifier.maps(image_1CHW)
        features_1FP = classifier.pooling.plain(maps_1Fhw)
        weights_CP = classifier.head.attention_to_places(features_1FP)[0, columns_C].double()
        logit_C = plain_log_odds(classifier, maps_1Fhw)[0, columns_C].double()
        return LabelMaps(in_grid(weights_CP), logit_C)


EXPLAINERS = {"attention": AttentionWeights}
