"""The method `integrated_gradients` (Sundararajan, Taly, Yan, ICML 2017) on pixels, through captum. S the image's side.

From an image of the mean colour to the image itself, in STEPS steps: the map sums to about what the image adds to the label's
log-odds, and `rest` is the log-odds of the mean colour. It takes STEPS forward and backward passes of the whole network per
label, the most of all methods, and is the only one that is finer than the network's maps.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayprob.explain.explainer import Explainer, LabelMaps, import_captum, log_odds, why_no_log_odds
from rayprob.models.classifier import Classifier

STEPS = 32
AT_ONCE = 8  # images per pass
MOST_CELLS = 56  # rows and columns of a map, whose cells are sums over pixels


class IntegratedGradients(Explainer):
    """What each part of the image adds to the label's log-odds, compared with the mean colour."""

    def why_not(self, classifier: Classifier) -> str:
        """Return "" for a family whose marginals have gradients."""
        return why_no_log_odds(classifier)

    def maps(self, classifier: Classifier, image_1CHW: Tensor, columns_C: Tensor) -> LabelMaps:
        """Return the maps. Raises ModelError if captum is missing."""
        import_captum()
        import captum.attr

        def compute(images_BCHW: Tensor) -> Tensor:
            return log_odds(classifier, classifier.features(images_BCHW))

        mean_1CHW = classifier.backbone.mean.expand_as(image_1CHW)
        images_CCHW = image_1CHW.expand(len(columns_C), -1, -1, -1)
        found: Any = captum.attr.IntegratedGradients(compute).attribute(
            images_CCHW,
            baselines=mean_1CHW.expand_as(images_CCHW),
            target=columns_C,
            n_steps=STEPS,
            internal_batch_size=max(AT_ONCE, len(columns_C)),
        )
        with torch.no_grad():
            logit_C, rest_C = (compute(image)[0, columns_C].double() for image in (image_1CHW, mean_1CHW))
        return LabelMaps(in_cells(found.detach().double().sum(dim=1)), logit_C, rest_C)


def in_cells(values_CHW: Tensor, most: int = MOST_CELLS) -> Tensor:
    """Return the sums of values in at most `most` rows and columns of nearly equal cells."""
    array = values_CHW.cpu().numpy()
    for axis in (1, 2):
        cells = min(most, array.shape[axis])
        array = np.add.reduceat(array, np.arange(cells) * array.shape[axis] // cells, axis=axis)
    return torch.from_numpy(array)


EXPLAINERS = {"integrated_gradients": IntegratedGradients}
