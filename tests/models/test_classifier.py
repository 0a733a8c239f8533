"""The whole classifier: what it returns, what stays as it is in training, compiling and exporting."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rayprob.errors import ModelError, SpecError
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.models.classifier import Classifier
from rayprob.models.losses import LossSpec, build_loss

SMALL = {"backbone": "mobilenet_v3_small"}
MIXTURE = {"name": "mixture", "components": 3, "rank": 2}


def small(**keys: object) -> Classifier:
    return build_classifier(ModelSpec.parse({**SMALL, **keys}), 4)


def images(batch: int = 2, size_px: int = 32) -> Tensor:
    return torch.randint(0, 256, (batch, 3, size_px, size_px), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def running_means(classifier: nn.Module) -> list[Tensor]:
    return [buffer.clone() for name, buffer in classifier.named_buffers() if name.endswith("running_mean")]


@torch.no_grad()
def test_outputs_are_the_tensors_of_the_family() -> None:
    paper, joint = small(), small(head=MIXTURE)
    assert {name: tuple(t.shape) for name, t in paper(images()).items()} == {"logits": (2, 4)}
    shapes = {"mixing_logits": (2, 3), "component_logits": (2, 3, 4)}
    assert {name: tuple(t.shape) for name, t in joint(images()).items()} == shapes
    assert (paper.family, joint.family) == ("bernoulli", "mixture")
    assert paper.features(images()).shape == (2, 576)


@torch.no_grad()
def test_outputs_are_float32_under_autocast_and_equal_a_float32_head() -> None:
    classifier = small(pooling="gem").eval()
    with torch.autocast("cpu", torch.bfloat16):
        logits, features = classifier(images())["logits"], classifier.features(images())
    assert logits.dtype == features.dtype == torch.float32
    assert torch.equal(logits, classifier.head(features)["logits"])


def test_a_frozen_backbone_keeps_weights_and_statistics_while_the_head_learns() -> None:
    classifier = small(frozen="backbone").train()
    before, means = copy.deepcopy(classifier.state_dict()), running_means(classifier)
    optimizer = torch.optim.SGD([p for p in classifier.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    loss_B = build_loss(LossSpec())(classifier(images()), torch.ones(2, 4).bool(), torch.ones(2, 4).bool())
    loss_B.mean().backward()
    optimizer.step()
    changed = {name for name, tensor in classifier.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"head.linear.weight", "head.linear.bias"}
    assert all(map(torch.equal, means, running_means(classifier)))


def test_frozen_batch_norm_keeps_its_statistics_but_learns_its_scale() -> None:
    classifier = small(norm="frozen").train()
    means = running_means(classifier)
    classifier(images())["logits"].sum().backward()
    assert all(map(torch.equal, means, running_means(classifier)))
    assert classifier.get_parameter("backbone.body.features.0.1.weight").grad is not None
    assert any(module.training for module in classifier.modules() if isinstance(module, nn.Dropout | nn.Conv2d))
    trained = small().train()
    trained(images())
    assert not all(map(torch.equal, running_means(small()), running_means(trained)))


def test_training_mode_comes_back_after_evaluation() -> None:
    classifier = small(frozen="backbone")
    assert classifier.eval().training is False
    assert classifier.train().training
    assert classifier.head.training
    assert not classifier.backbone.training


def test_synchronised_batch_norm_evaluates_anywhere_but_refuses_to_train_on_a_cpu() -> None:
    classifier = small(norm="sync")
    assert any(isinstance(module, nn.SyncBatchNorm) for module in classifier.modules())
    assert classifier.eval()(images())["logits"].shape == (2, 4)
    with pytest.raises(ModelError, match=r"norm: sync needs GPUs.*set model.norm to train or frozen"):
        classifier.train()(images())


def test_every_parameter_belongs_to_backbone_or_head() -> None:
    classifier = small(pooling="gem", head=MIXTURE)
    backbone, head = dict(classifier.backbone_parameters()), dict(classifier.head_parameters())
    assert backbone | head == dict(classifier.named_parameters())
    assert set(head) == {
        "pooling.power",
        *(f"head.{name}" for name in ("linear.weight", "mixing.weight", "mixing.bias", "offsets", "factors.weight", "basis")),
    }


def test_every_trainable_parameter_gets_a_gradient_so_that_ddp_never_waits() -> None:
    for classifier, loss in ((small(pooling="gem"), "focal"), (small(head=MIXTURE), "mixture")):
        outputs = classifier(images())
        build_loss(LossSpec(name=loss))(outputs, torch.ones(2, 4).bool(), torch.ones(2, 4).bool()).sum().backward()
        assert [name for name, p in classifier.named_parameters() if p.grad is None] == []


def test_heads_start_from_what_is_known_of_the_labels() -> None:
    prevalence_L = np.array([0.1, 0.2, 0.3, 0.4])
    paper = build_classifier(ModelSpec.parse(SMALL), 4, prevalence_L=prevalence_L)
    np.testing.assert_allclose(torch.sigmoid(paper.get_parameter("head.linear.bias")).detach(), prevalence_L, rtol=1e-5)
    spec = ModelSpec.parse({**SMALL, "head": {"name": "mixture", "components": 2}})
    joint = build_classifier(spec, 4, mixture=(np.array([0.9, 0.1]), np.full((2, 4), 0.25)))
    torch.testing.assert_close(torch.sigmoid(joint.get_parameter("head.offsets")), torch.full((8,), 0.25))


def test_normalisation_can_be_given() -> None:
    classifier = small(mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    torch.testing.assert_close(classifier.backbone.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(classifier.backbone.std.flatten(), torch.tensor([0.5, 0.6, 0.7]))


@pytest.mark.parametrize(
    ("head", "pooling"),
    [({}, "gem"), (MIXTURE, "gem"), ({"attention": 0.3}, "places")],
    ids=["bernoulli", "mixture", "attention"],
)
def test_compiled_and_exported_classifiers_equal_the_eager_one(head: dict[str, object], pooling: str) -> None:
    classifier = small(backbone="squeezenet1_1", head=head, pooling=pooling).eval()
    with torch.no_grad():
        expected = classifier(images(3))
        batch = torch.export.Dim("batch", min=1)
        exported = torch.export.export(classifier, (images(2),), dynamic_shapes=({0: batch},)).module()
        compiled = torch.compile(classifier, backend="eager", fullgraph=True)
        for found in (exported(images(3)), compiled(images(3))):
            torch.testing.assert_close(found, expected)


def test_compiling_has_no_graph_break_under_autocast() -> None:
    classifier = small(backbone="squeezenet1_1", pooling="gem")
    compiled = torch.compile(classifier, backend="eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert compiled(images())["logits"].dtype == torch.float32


def test_model_files_are_checked_when_they_are_read() -> None:
    for keys, message in (
        ({"backbone": "resnet110"}, "backbone: unknown backbone 'resnet110'; nearest: resnet101"),
        ({"pooling": "gep"}, "pooling: unknown pooling 'gep'; nearest: gmp, gem, gap"),
        (
            {"head": {"attention": 0.3}},
            "head.attention 0.3 needs the features of every place, but pooling gap removes places; set pooling: places",
        ),
        ({"weights_part": "features"}, "weights_part features needs the path of a file or bundle as weights; got null"),
        (
            {"weights_part": "backbone", "weights": "DEFAULT"},
            "weights_part backbone needs the path of a file or bundle as weights; got DEFAULT",
        ),
    ):
        with pytest.raises(SpecError, match=message):
            ModelSpec.parse(keys)
