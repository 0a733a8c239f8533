"""Explains an image by the bundle that predicts it, or by the members of an ensemble. C labels, H x W the grid of a map."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rayprob import plugins
from rayprob.arrays import Pixels
from rayprob.errors import BundleError
from rayprob.explain.choosing import AUTO, choose_method
from rayprob.explain.explainer import EXPLAINERS, LabelMaps
from rayprob.explain.explanation import Explanation
from rayprob.runs.bundle import Bundle


class Seen(NamedTuple):
    """A bundle, and the image as it takes it: uint8 [size_px, size_px, 3]."""

    bundle: Bundle
    pixels_HWC: Pixels


def explain(members: Sequence[Seen], labels: Sequence[str], method: str = AUTO) -> list[Explanation]:
    """Return a map of each label over the image, by the method `auto`, or one of EXPLAINERS.

    Several members have one method. The maps are means over the members, on the finest of their grids, and explain the mean of
    their logits, which is not the logit of the ensemble's mean probability.

    Raises QueryError as `choose_method`, LabelError for an unknown label, ModelError if captum is missing.
    """
    bundles = [member.bundle for member in members]
    name = method_of(bundles, method)
    space = bundles[0].label_space
    columns = [space.column(label) for label in labels]
    if not columns:
        return []
    found, explainer = _mean([_maps(member, columns, name) for member in members]), EXPLAINERS[name]()
    return [
        Explanation(
            label=space.names[column],
            method=name,
            grid_HW=found.grid_CHW[place].numpy(),
            exact=explainer.exact,
            logit=float(found.logit_C[place]),
            rest=None if found.rest_C is None else float(found.rest_C[place]),
        )
        for place, column in enumerate(columns)
    ]


def method_of(bundles: Sequence[Bundle], method: str = AUTO) -> str:
    """Return the name of the method that explains all of the bundles. Raises QueryError as `choose_method`."""
    for bundle in bundles:
        plugins.load(bundle.plugins, BundleError)  # for methods of its own: they were loaded before the table was
    return choose_method([bundle.classifier for bundle in bundles], method)


def _maps(member: Seen, columns: Sequence[int], method: str) -> LabelMaps:
    classifier = member.bundle.classifier.eval()
    device = classifier.backbone.mean.device
    image_1CHW = torch.from_numpy(member.pixels_HWC).to(device).permute(2, 0, 1).unsqueeze(0).float() / 255
    found = EXPLAINERS[method]().maps(classifier, image_1CHW, torch.tensor(columns, device=device))
    rest_C = None if found.rest_C is None else found.rest_C.cpu()
    return LabelMaps(found.grid_CHW.cpu().double(), found.logit_C.cpu(), rest_C)


def _mean(several: Sequence[LabelMaps]) -> LabelMaps:
    """Return the means over members, on the finest of their grids."""
    if len(several) == 1:
        return several[0]
    rows, columns = (max(found.grid_CHW.shape[axis] for found in several) for axis in (1, 2))
    grid_CHW = torch.stack([resampled(found.grid_CHW, rows, columns) for found in several]).mean(dim=0)
    logit_C = torch.stack([found.logit_C for found in several]).mean(dim=0)
    rests = [found.rest_C for found in several if found.rest_C is not None]
    return LabelMaps(grid_CHW, logit_C, torch.stack(rests).mean(dim=0) if rests else None)


def resampled(grid_CHW: Tensor, rows: int, columns: int) -> Tensor:
    """Return maps on another grid over the same area: each value is shared among the cells that its cell overlaps."""
    height, width = grid_CHW.shape[1:]
    return _shares(rows, height).to(grid_CHW) @ grid_CHW @ _shares(columns, width).to(grid_CHW).T


def _shares(new: int, old: int) -> Tensor:
    """Return the share of each old cell within each new one [new, old], along a line; columns sum to 1."""
    starts_N1, starts_O = torch.arange(new).double().unsqueeze(1) / new, torch.arange(old).double() / old
    ends = torch.minimum(starts_N1 + 1 / new, starts_O + 1 / old)
    return (ends - torch.maximum(starts_N1, starts_O)).clamp(min=0) * old
