"""Whether timm computes a bundle's logits: it is asked, on drawn images. L labels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayprob.errors import ModelError
from rayprob.export.checking import drawn_images
from rayprob.loader.augment import resize
from rayprob.models.from_timm import TIMM
from rayprob.models.heads.bernoulli import BernoulliHead
from rayprob.models.source_names import SourceNames
from rayprob.runs.bundle import Bundle

CHECKED_IMAGES = 2
TOLERANCE = 1e-4  # of a logit


@dataclass(frozen=True)
class TimmLayout:
    """How timm builds the same network: its architecture and arguments, the names of its tensors, and their configuration.

    `largest_difference` is that of a logit between timm and the bundle, on drawn images.
    """

    architecture: str
    model_args: dict[str, Any]
    names: SourceNames
    num_features: int
    first_conv: str | None
    largest_difference: float


def timm_layout(bundle: Bundle) -> TimmLayout | str:
    """Return how timm builds the classifier of a bundle, or in a sentence why it does not."""
    try:
        import timm
    except ImportError:
        return "timm is not installed here, so that it was not tried; run pip install 'rayprob[timm]' and export again"
    spec, head = bundle.model_spec, bundle.classifier.head
    if not isinstance(head, BernoulliHead) or head.attention:
        what = f"{spec.head.name} with attention" if isinstance(head, BernoulliHead) else spec.head.name
        return f"timm has no head {what}"
    if spec.maps:
        return "timm's classifiers do not join the maps of several stages"
    architecture = spec.backbone.removeprefix(TIMM).split(".")[0]
    if not timm.is_model(architecture):
        return f"timm has no architecture {architecture}"
    model_args = {"img_size": spec.image_size_px} if spec.image_size_px and spec.backbone.startswith(TIMM) else {}
    try:
        model = timm.create_model(architecture, pretrained=False, num_classes=len(bundle.label_space), **model_args).eval()
        names = _names(bundle, model)
        model.load_state_dict(names.apply(bundle.classifier.state_dict()))
        difference = _largest_difference(bundle, model)
    except (ModelError, RuntimeError, TypeError, AssertionError, KeyError) as error:  # timm's own errors have no common base
        return f"timm's {architecture} does not take the weights ({str(error).splitlines()[0]:.200})"
    if not difference <= TOLERANCE:
        return f"timm's {architecture} pools or normalises differently: its logits differ by up to {difference:.2g}"
    described = model.pretrained_cfg
    return TimmLayout(architecture, model_args, names, model.num_features, described.get("first_conv"), difference)


def _names(bundle: Bundle, model: Any) -> SourceNames:
    classifier = model.pretrained_cfg.get("classifier")
    if not isinstance(classifier, str):
        raise ModelError(f"it has not one last layer, but {classifier}")
    backbone = bundle.classifier.backbone
    body = "backbone.body.whole." if backbone.source is not backbone.body else "backbone.body."
    mean, std = (tuple(map(float, values.flatten())) for values in (backbone.mean, backbone.std))
    return SourceNames(body, classifier, mean, std)


def _largest_difference(bundle: Bundle, model: Any) -> float:
    """Return the largest difference of a logit over drawn images, at the size of the evaluation transform."""
    size_px = bundle.transform_spec.size_px
    squashed = np.stack([resize(image, size_px) for image in drawn_images(CHECKED_IMAGES)])
    images_BCHW = torch.from_numpy(squashed).permute(0, 3, 1, 2)
    with torch.inference_mode():
        ours: Tensor = bundle.classifier(images_BCHW)["logits"]
        backbone = bundle.classifier.backbone
        theirs: Tensor = model((images_BCHW.float() / 255 - backbone.mean) / backbone.std)
    return float((ours - theirs).abs().max())
