"""Every family of backbones against its own whole network: the maps are what that network's head reads."""

import builtins
import inspect
from typing import Any
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from rayprob.errors import ModelError
from rayprob.models.backbones import build_backbone
from rayprob.models.cut import IMAGENET_MEAN, IMAGENET_STD
from rayprob.models.from_torchvision import torchvision_names

# One small member of each family, the size of the images, and the first layer that reads the maps or their mean.
FAMILIES = [
    ("alexnet", 64, "avgpool"),
    ("convnext_tiny", 64, "avgpool"),
    ("densenet121", 64, "classifier"),
    ("efficientnet_b0", 64, "avgpool"),
    ("efficientnet_v2_s", 64, "avgpool"),
    ("googlenet", 64, "avgpool"),
    ("inception_v3", 96, "avgpool"),
    ("maxvit_t", 224, "classifier"),
    ("mnasnet0_5", 64, "classifier"),
    ("mobilenet_v2", 64, "classifier"),
    ("mobilenet_v3_small", 64, "avgpool"),
    ("regnet_x_400mf", 64, "avgpool"),
    ("resnet18", 64, "avgpool"),
    ("shufflenet_v2_x0_5", 64, "fc"),
    ("squeezenet1_1", 64, "classifier"),
    ("swin_t", 64, "avgpool"),
    ("swin_v2_t", 64, "avgpool"),
    ("vgg11_bn", 64, "avgpool"),
]


def whole_network(name: str) -> nn.Module:
    options = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **options).eval()


def input_of(network: nn.Module, layer: str, images: Tensor) -> Tensor:
    seen: list[Tensor] = []
    network.get_submodule(layer).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    network(images)
    return seen[0]


@pytest.mark.parametrize(("name", "size_px", "reader"), FAMILIES)
@torch.no_grad()
def test_maps_are_what_the_head_of_the_whole_network_reads(name: str, size_px: int, reader: str) -> None:
    network, backbone = whole_network(name), build_backbone(name).eval()
    backbone.source.load_state_dict(network.state_dict(), strict=False)
    images = torch.randint(0, 256, (1, 3, size_px, size_px), dtype=torch.uint8)
    maps = backbone(images)
    expected = input_of(network, reader, (images / 255 - backbone.mean) / backbone.std)
    if name.startswith("convnext"):  # its head begins with a LayerNorm, which stays with the backbone
        expected = network.get_submodule("classifier.0")(expected)
    assert maps.ndim == 4
    assert maps.shape[1] == backbone.num_features
    torch.testing.assert_close(maps if expected.ndim == 4 else maps.mean((2, 3)), expected)


def vit(image_size_px: int) -> nn.Module:
    return torchvision.models.VisionTransformer(image_size_px, 32, 1, 2, 16, 32, num_classes=5)


@torch.no_grad()
def test_maps_of_a_vision_transformer_are_its_patch_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    network = vit(64).eval()
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights, image_size: network)
    backbone = build_backbone("vit_b_32", image_size_px=64).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    seen: list[Tensor] = []
    network.get_submodule("encoder").register_forward_hook(lambda *call: seen.append(call[2]))
    network((images / 255 - backbone.mean) / backbone.std)
    torch.testing.assert_close(backbone(images).flatten(2).transpose(1, 2), seen[0][:, 1:])
    assert backbone(images[:, :, :, :32].repeat(1, 1, 2, 3)).shape == (2, 16, 4, 3)


def test_vision_transformers_are_built_for_the_size_of_their_weights() -> None:
    built = build_with_options("vit_h_14", "IMAGENET1K_SWAG_E2E_V1")
    assert built == {"image_size": 518}
    assert build_with_options("vit_h_14", "IMAGENET1K_SWAG_LINEAR_V1") == {"image_size": 224}


def build_with_options(name: str, weights: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def get_model(_: str, weights: None, **options: Any) -> nn.Module:
        seen.update(options)
        return vit(64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.models, "get_model", get_model)
        build_backbone(name, weights, load=False)
    return seen


def test_every_torchvision_classifier_belongs_to_a_tested_family() -> None:
    def network_class(name: str) -> str:
        return str(inspect.signature(torchvision.models.get_model_builder(name)).return_annotation)

    tested = {network_class(name) for name, *_ in FAMILIES} | {network_class("vit_b_16")}
    assert {name for name in torchvision_names() if network_class(name) not in tested} == set()
    assert len(torchvision_names()) >= 80


def test_resnet101_is_cut_before_its_head() -> None:
    with torch.device("meta"):
        backbone = build_backbone("resnet101")
        maps = backbone(torch.empty(1, 3, 448, 448, dtype=torch.uint8))
    assert maps.shape == (1, 2048, 14, 14)
    assert sum(p.numel() for p in backbone.parameters()) == 44_549_160 - 2049 * 1000


TIMM = [
    ("tf_efficientnet_lite0", 64, None),
    ("convnext_atto", 64, None),
    ("mobilenetv3_small_050", 64, None),
    ("swin_tiny_patch4_window7_224", 64, 64),
    ("vit_tiny_patch16_224", 32, 32),
    ("regnetx_002", 64, None),
]


@pytest.mark.parametrize(("name", "size_px", "image_size_px"), TIMM)
@torch.no_grad()
def test_timm_backbones_give_maps(name: str, size_px: int, image_size_px: int | None) -> None:
    backbone = build_backbone(f"timm/{name}", image_size_px=image_size_px).eval()
    maps = backbone(torch.randint(0, 256, (2, 3, size_px, size_px), dtype=torch.uint8))
    positions = (size_px // 16) ** 2 if name.startswith("vit") else (size_px // 32) ** 2
    assert (maps.shape[:2], maps[0, 0].numel()) == ((2, backbone.num_features), positions)


def test_normalisation_is_the_one_of_the_backbone() -> None:
    torch.testing.assert_close(build_backbone("resnet18").mean.flatten(), torch.tensor(IMAGENET_MEAN))
    torch.testing.assert_close(build_backbone("resnet18").std.flatten(), torch.tensor(IMAGENET_STD))
    assert build_backbone("timm/tf_efficientnet_lite0").mean.flatten().tolist() == [0.5, 0.5, 0.5]


def test_normalisation_of_inception_equals_torchvisions_own_input_transform() -> None:
    backbone = build_backbone("googlenet")
    images = torch.rand(1, 3, 8, 8)
    normalised = (images - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    network = torchvision.models.GoogLeNet(aux_logits=False, transform_input=True, init_weights=False)
    torch.testing.assert_close((images - backbone.mean) / backbone.std, network._transform_input(normalised))


@torch.no_grad()
def test_bytes_and_floats_in_0_to_1_give_the_same_maps() -> None:
    backbone = build_backbone("resnet18").eval()
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(backbone(images), backbone(images.float() / 255))


def test_unknown_backbones_name_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"unknown backbone 'resnt101'; nearest: resnet101.*or timm/<name>"):
        build_backbone("resnt101")
    with pytest.raises(ModelError, match=r"unknown timm backbone 'tf_efficientnet_lite9'; nearest: tf_efficientnet_lite"):
        build_backbone("timm/tf_efficientnet_lite9")


def test_unknown_weights_name_the_known_ones() -> None:
    with pytest.raises(
        ModelError,
        match=r"unknown weights of resnet18: 'IMAGENET1K_V3'; nearest: IMAGENET1K_V1; allowed: IMAGENET1K_V1, DEFAULT; or",
    ):
        build_backbone("resnet18", "IMAGENET1K_V3")
    with pytest.raises(ModelError, match=r"unknown weights of timm/resnet18: 'a4_in1k'; nearest: a3_in1k"):
        build_backbone("timm/resnet18", "a4_in1k")


def test_timm_models_that_cannot_be_cut_or_sized_say_so() -> None:
    with pytest.raises(
        ModelError, match="timm/deit_tiny_distilled_patch16_224 cannot be built without its head: The distilled"
    ):
        build_backbone("timm/deit_tiny_distilled_patch16_224")
    with pytest.raises(ModelError, match=r"timm/resnet18 cannot be built without its head at image_size_px 64: .*leave out"):
        build_backbone("timm/resnet18", image_size_px=64)


def test_missing_timm_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_timm(name: str, *rest: Any) -> Any:
        if name == "timm":
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_timm)
    with pytest.raises(ModelError, match=r"pip install 'rayprob\[timm\]'"):
        build_backbone("timm/resnet18")


def offline(*_: Any, **__: Any) -> Any:
    raise URLError("no route to host")


def test_failed_download_names_the_weights_and_the_other_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: "/nonexistent-cache")
    monkeypatch.setattr("os.makedirs", lambda *_, **__: None)
    with pytest.raises(
        ModelError, match=r"cannot fetch the weights 'IMAGENET1K_V1' of resnet18 .*no route.*set weights to its path"
    ):
        build_backbone("resnet18", "DEFAULT")
    create_model = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, pretrained, **k: offline() if pretrained else create_model(*a, **k))
    with pytest.raises(ModelError, match=r"cannot fetch the weights 'DEFAULT' of timm/resnet18 .*no route.*weights: null"):
        build_backbone("timm/resnet18", "DEFAULT")


def test_weights_of_the_library_arrive_in_the_cut_network(monkeypatch: pytest.MonkeyPatch) -> None:
    published = whole_network("resnet18")
    real_get_model = torchvision.models.get_model

    def get_model(name: str, weights: Any, **options: Any) -> nn.Module:
        return published if weights else real_get_model(name, weights=None, **options)

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    loaded, fresh = build_backbone("resnet18", "DEFAULT"), build_backbone("resnet18", "DEFAULT", load=False)
    weight = published.get_parameter("layer4.1.conv2.weight")
    assert torch.equal(loaded.source.get_parameter("layer4.1.conv2.weight"), weight)
    assert not torch.equal(fresh.source.get_parameter("layer4.1.conv2.weight"), weight)


def test_timm_weights_arrive_by_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    create_model, asked = timm.create_model, []

    def published(name: str, pretrained: bool, **options: Any) -> nn.Module:
        asked.append((name, pretrained))
        network = create_model(name, **options)
        if pretrained:
            nn.init.constant_(network.conv1.weight, 0.5)
        return network

    monkeypatch.setattr(timm, "create_model", published)
    assert (build_backbone("timm/resnet18", "a2_in1k").source.get_parameter("conv1.weight") == 0.5).all()
    assert asked == [("resnet18.a2_in1k", False), ("resnet18.a2_in1k", True)]
