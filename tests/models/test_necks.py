"""Necks against numpy and scipy, and classifiers with them."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import correlate
from torch import Tensor

from rayprob.errors import ModelError, SpecError
from rayprob.labels import LabelSpace
from rayprob.loader.augment import TransformSpec
from rayprob.models import necks
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.models.classifier import Classifier
from rayprob.models.necks import NECKS, build_neck
from rayprob.runs.bundle import Bundle

CHANNELS, SIDES = (2, 3, 4), (8, 4, 2)
SMALL = {"backbone": "timm/test_resnet", "maps": [3, 4, 5]}  # of 48, 192 and 96 channels


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(necks, "WIDTH", 3)


def maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(2, f, s, s, generator=generator, dtype=torch.float64) for f, s in zip(CHANNELS, SIDES, strict=True)]


def images(batch: int = 2) -> Tensor:
    return torch.randint(0, 256, (batch, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def averaged(maps_BFhw: NDArray[np.float64]) -> NDArray[np.float64]:
    """The maps of a stage at the 2 x 2 places of the last one."""
    batch, features, side, _ = maps_BFhw.shape
    return maps_BFhw.reshape(batch, features, 2, side // 2, 2, side // 2).mean((3, 5))


def test_concatenated_stages_are_averaged_to_the_places_of_the_last() -> None:
    neck = build_neck("concatenation", CHANNELS)
    expected = np.concatenate([averaged(stage.numpy()) for stage in maps()], axis=1)
    np.testing.assert_allclose(neck(maps()).numpy(), expected, rtol=1e-12)
    assert neck.num_features == 9


def test_a_top_down_path_adds_the_coarser_stages_to_each() -> None:
    neck = build_neck("top_down", CHANNELS).double()
    values = {name: value.numpy() for name, value in neck.state_dict().items()}
    merged, expected = np.zeros((2, 3, 1, 1)), []
    for s in (2, 1, 0):
        lateral = np.einsum("gf,bfyx->bgyx", values[f"lateral.{s}.weight"][:, :, 0, 0], maps()[s].numpy())
        lateral += values[f"lateral.{s}.bias"][:, None, None]
        merged = lateral + (merged.repeat(2, axis=2).repeat(2, axis=3) if s < 2 else 0)
        weight, bias = values[f"smooth.{s}.weight"], values[f"smooth.{s}.bias"]
        smooth = [
            [bias[g] + sum(correlate(one[f], weight[g, f], "same") for f in range(3)) for g in range(3)] for one in merged
        ]
        expected.insert(0, averaged(np.maximum(smooth, 0)))
    np.testing.assert_allclose(neck(maps()).detach().numpy(), np.concatenate(expected, axis=1), rtol=1e-9)
    assert neck.num_features == 9


@pytest.mark.parametrize("name", NECKS)
def test_gradients_in_float64(name: str) -> None:
    neck = build_neck(name, CHANNELS).double()
    stages = [stage[:1].requires_grad_() for stage in maps()]
    assert torch.autograd.gradcheck(lambda *given: neck(given), stages)


@pytest.mark.parametrize("name", NECKS)
@pytest.mark.parametrize(("pooling", "places"), [("gem", ()), ("places", (4,))])
@torch.no_grad()
def test_a_head_reads_the_features_of_all_stages(name: str, pooling: str, places: tuple[int, ...]) -> None:
    classifier = build_classifier(ModelSpec.parse({**SMALL, "neck": name, "pooling": pooling}), 4)
    num_features = 48 + 192 + 96 if name == "concatenation" else 9
    assert classifier.num_features == classifier.head.get_submodule("linear").in_features == num_features
    assert classifier.features(images()).shape == (2, num_features, *places)
    assert classifier.features(images()).dtype == torch.float32


@torch.no_grad()
def test_an_average_of_concatenated_stages_is_the_average_of_each() -> None:
    classifier = build_classifier(ModelSpec.parse(SMALL), 4).eval()
    means = [stage.mean((2, 3)) for stage in classifier.backbone(images())]
    torch.testing.assert_close(classifier.features(images()), torch.cat(means, dim=1))


def gradients_of(classifier: Classifier) -> set[str]:
    classifier(images())["logits"].sum().backward()
    return {name for name, parameter in classifier.named_parameters() if parameter.grad is not None}


def test_every_parameter_learns_and_a_neck_also_on_a_frozen_backbone() -> None:
    free = build_classifier(ModelSpec.parse({**SMALL, "neck": "top_down"}), 4)
    assert gradients_of(free) == {name for name, _ in free.named_parameters()}
    frozen = build_classifier(ModelSpec.parse({**SMALL, "neck": "top_down", "frozen": "backbone"}), 4)
    assert gradients_of(frozen) == {name for name, _ in frozen.head_parameters()} >= {"pooling.neck.smooth.2.weight"}


@torch.no_grad()
def test_a_bundle_keeps_the_stages_and_its_neck(tmp_path: object) -> None:
    labels = LabelSpace(("a", "b"), (1, 2))
    spec = ModelSpec.parse({**SMALL, "neck": "top_down", "pooling": "places", "head": {"name": "csra"}})
    bundle = Bundle(build_classifier(spec, 2).eval(), spec, labels, TransformSpec(size_px=64))
    bundle.save(f"{tmp_path}/bundle")
    again = Bundle.load(f"{tmp_path}/bundle")
    assert again.model_spec == spec
    assert torch.equal(again.classifier(images())["logits"], bundle.classifier(images())["logits"])


def test_models_without_maps_are_written_as_before() -> None:
    assert not {"maps", "neck"} & ModelSpec().model_dump().keys()
    assert ModelSpec.parse(SMALL).model_dump(mode="json")["maps"] == [3, 4, 5]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"maps": [4, 3]}, r"maps: must be two or more different stages in ascending order, such as \[3, 4, 5\]; got \[4, 3\]"),
        ({"maps": [5]}, r"two or more different stages"),
        ({"maps": [3, 3]}, r"two or more different stages"),
        ({"neck": "top_down"}, r"neck top_down joins maps of several stages; set maps, such as \[3, 4, 5\], or leave out neck"),
        ({"maps": [3, 5], "neck": "pyramid"}, r"unknown neck 'pyramid'"),
    ],
)
def test_maps_and_necks_that_do_not_fit_are_refused(model: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ModelSpec.parse(model)


def test_an_unknown_neck_is_refused() -> None:
    with pytest.raises(ModelError, match="unknown neck 'pyramid'"):
        build_neck("pyramid", CHANNELS)
