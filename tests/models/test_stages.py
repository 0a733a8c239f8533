"""Stages of backbones against the feature extraction of their own libraries."""

import pytest
import timm
import torch
import torchvision
from torch import Tensor
from torchvision.models.feature_extraction import create_feature_extractor

from rayprob.errors import ModelError
from rayprob.models.backbones import Backbone, build_backbone

NODES = {
    "resnet18": ["layer2", "layer3", "layer4"],
    "mobilenet_v3_small": ["features.1", "features.3", "features.8", "features.12"],
}
TIMM = ["test_resnet", "regnetx_002"]


def images(size_px: int = 64) -> Tensor:
    return torch.randint(0, 256, (1, 3, size_px, size_px), dtype=torch.uint8)


def normalised(backbone: Backbone, images_BCHW: Tensor) -> Tensor:
    return (images_BCHW / 255 - backbone.mean) / backbone.std


@pytest.mark.parametrize("name", NODES)
@torch.no_grad()
def test_stages_are_those_of_torchvisions_feature_extraction(name: str) -> None:
    numbers = range(6 - len(NODES[name]), 6)
    backbone = build_backbone(name, maps=tuple(numbers)).eval()
    whole = torchvision.models.get_model(name, weights=None).eval()
    whole.load_state_dict(backbone.source.state_dict(), strict=False)
    image = images()
    expected = list(create_feature_extractor(whole, NODES[name])(normalised(backbone, image)).values())
    found = backbone(image)
    torch.testing.assert_close(list(found), expected)
    assert [maps.shape[1] for maps in found] == [stage.channels for stage in backbone.stages]
    assert [maps.shape[2] for maps in found] == [64 // 2**number for number in numbers]


def test_channels_that_come_last_are_moved() -> None:
    with torch.device("meta"):
        maps = build_backbone("swin_t", maps=(2, 3, 4, 5))(torch.empty(1, 3, 64, 64, dtype=torch.uint8))
    assert [stage.shape[1:] for stage in maps] == [(96, 16, 16), (192, 8, 8), (384, 4, 4), (768, 2, 2)]


@pytest.mark.parametrize("name", TIMM)
@torch.no_grad()
def test_stages_are_those_of_timms_features(name: str) -> None:
    backbone = build_backbone(f"timm/{name}", maps=(2, 4, 5)).eval()
    extractor = timm.create_model(name, pretrained=False, features_only=True, out_indices=(1, 3, 4)).eval()
    extractor.load_state_dict(backbone.source.state_dict(), strict=False)
    image = images()
    torch.testing.assert_close(list(backbone(image)), extractor(normalised(backbone, image)))


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "timm/tf_efficientnet_lite0", "timm/convnext_atto"])
@torch.no_grad()
def test_the_last_stage_is_what_the_backbone_returns_without_stages(name: str) -> None:
    backbone = build_backbone(name, maps=(3, 5)).eval()
    image, stages = images(), backbone.stages
    maps = backbone(image)
    backbone.stages = ()
    assert torch.equal(maps[1], backbone(image))
    assert [one.shape[1:] for one in maps] == [(stage.channels, side, side) for stage, side in zip(stages, (8, 2), strict=True)]


def test_parameters_have_the_names_that_they_have_without_stages() -> None:
    with torch.device("meta"):
        plain, staged = build_backbone("resnet18"), build_backbone("resnet18", maps=(4, 5))
    assert plain.state_dict().keys() == staged.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "maps", "message"),
    [
        (
            "resnet18",
            (5, 6),
            r"no stage 6, because resnet18 has the stages 1, 2, 3, 4, 5 .* set model.maps to some of",
        ),
        (
            "resnet18",
            (3, 4),
            "maps must end with the last stage of the backbone, but ends with 4, and resnet18 has",
        ),
        ("squeezenet1_1", (4, 5), "no stage 5, because squeezenet1_1 has the stages 1, 2, 3, 4"),
        ("vit_b_32", (4, 5), "no stage 4, because the maps of vit_b_32 have one resolution only .* set model.maps to null"),
        ("timm/vit_tiny_patch16_224", (3, 4), "no stage 3, because timm/vit_tiny_patch16_224 has the stages 4 .* to null"),
    ],
)
def test_stages_that_a_backbone_lacks_are_refused(name: str, maps: tuple[int, ...], message: str) -> None:
    with torch.device("meta"), pytest.raises(ModelError, match=message):
        build_backbone(name, maps=maps)
