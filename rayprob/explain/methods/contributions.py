"""The method `contributions`: a logit is the sum of what every place adds to it, exactly, where the head is such a sum.

For average pooling and a linear head this is a class activation map (Zhou et al., CVPR 2016). Maximum and generalised-mean
pooling share each feature among the places that make it (`Pooling.parts`), and heads state their own sums (`Head.by_place`).
"""

import torch
from torch import Tensor

from rayprob.errors import ModelError
from rayprob.explain.explainer import Explainer, LabelMaps, in_grid, plain_log_odds
from rayprob.models.classifier import Classifier

TOLERANCE = 1e-3  # of a logit, relative to the sizes of its parts: float32, and tensor cores on GPUs


class Contributions(Explainer):
    """What each place adds to the logit, in its unit; a negative value speaks against the label."""

    exact = True

    def why_not(self, classifier: Classifier) -> str:
        """Return "" for a head that is a sum over places, with a pooling that shares its features among them."""
        if not classifier.head.is_sum_over_places:
            return "needs a head whose logits are sums over places (bernoulli, csra, graph, compressed)"
        if not classifier.pooling.plain.has_parts:
            return "needs a pooling that states the `parts` of its features (gap, gmp, gem, places, places7)"
        return ""

    @torch.no_grad()
    def maps(self, classifier: Classifier, image_1CHW: Tensor, columns_C: Tensor) -> LabelMaps:
        """Return the contributions and the rest. Raises ModelError if they do not sum to the logit that the head returns."""
        maps_1Fhw = classifier.maps(image_1CHW)
        found = classifier.head.by_place(classifier.pooling.plain.parts(maps_1Fhw))
        added_CP, rest_C = found.added_BLP[0, columns_C].double(), found.rest_BL[0, columns_C].double()
        logit_C = plain_log_odds(classifier, maps_1Fhw)[0, columns_C].double()
        size_C = 1 + added_CP.abs().sum(dim=1) + rest_C.abs()
        if bool(((added_CP.sum(dim=1) + rest_C - logit_C).abs() > TOLERANCE * size_C).any()):
            head = type(classifier.head).__name__
            raise ModelError(f"the contributions that {head} states do not sum to its logits; correct its method by_place")
        return LabelMaps(in_grid(added_CP), logit_C, rest_C)


EXPLAINERS = {"contributions": Contributions}
