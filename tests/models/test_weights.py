"""Starting weights from files: what loads, and what each kind of misfit says."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import simplejpeg
import torch
import torchvision

from rayprob.errors import LabelError, ModelError, StorageError
from rayprob.labels import LabelSpace
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.models.classifier import Classifier
from rayprob.models.weights import classifier_bytes, is_file, read_weights

LABELS = LabelSpace(("cat", "cow", "dog"), (1, 2, 3))
OTHERS = LabelSpace(("cat", "cup", "dog"), (1, 2, 3))
SMALL = "mobilenet_v3_small"


def build(weights: object = None, labels: LabelSpace | None = LABELS, **keys: object) -> Classifier:
    spec = ModelSpec.parse({"backbone": SMALL, "weights": None if weights is None else str(weights), **keys})
    return build_classifier(spec, 3, label_space=labels)


def trained(path: Path, **keys: object) -> Classifier:
    classifier = build(**keys)
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    path.write_bytes(classifier_bytes(classifier, LABELS))
    return classifier


def same(ours: Classifier, theirs: Classifier, prefix: str = "") -> bool:
    left, right = ours.state_dict(), theirs.state_dict()
    return all(torch.equal(left[name], right[name]) for name in left if name.startswith(prefix))


@pytest.mark.parametrize("wrapped", ["bare", "state_dict", "model", "module."])
def test_whole_library_models_load_without_their_head(tmp_path: Path, wrapped: str) -> None:
    network = torchvision.models.get_model(SMALL)
    state = network.state_dict()
    content = {"bare": state, "module.": {f"module.{name}": t for name, t in state.items()}}.get(wrapped, {wrapped: state})
    torch.save(content, tmp_path / "whole.pth")
    classifier = build(tmp_path / "whole.pth")
    for name, tensor in classifier.backbone.source.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_safetensors_of_a_library_load_with_and_without_head_and_counters(tmp_path: Path) -> None:
    state = torchvision.models.get_model(SMALL).state_dict()
    for dropped in ("nothing", "classifier.", "num_batches_tracked"):
        kept = {name: tensor for name, tensor in state.items() if dropped not in name}
        safetensors.torch.save_file(kept, tmp_path / "file.safetensors")
        body = build(tmp_path / "file.safetensors").backbone.source
        assert torch.equal(body.get_parameter("features.0.0.weight"), state["features.0.0.weight"])


def test_the_real_weights_give_the_features_of_timms_own_pipeline(shared: Path) -> None:
    timm = pytest.importorskip("timm")
    path = shared / "weights" / "tf_efficientnet_lite0.safetensors"
    classifier = build(path, backbone="timm/tf_efficientnet_lite0", mean=[127 / 255] * 3, std=[128 / 255] * 3).eval()
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(safetensors.torch.load_file(path))
    photo = next((shared / "coco-sample" / "val2014").glob("*.jpg"))
    pixels = simplejpeg.decode_jpeg(photo.read_bytes())[:96, :96]
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = whole.forward_features((image - 127.0) / 128.0).mean((2, 3))
        torch.testing.assert_close(classifier.features(image), expected, rtol=1e-3, atol=1e-5)


def test_weights_of_another_architecture_name_the_first_differences(tmp_path: Path) -> None:
    torch.save(torchvision.models.get_model("shufflenet_v2_x0_5").state_dict(), tmp_path / "other.pt")
    message = (
        r"other.pt do not fit this model: \d+ missing \(features.0.0.weight, .*, \.\.\.\); \d+ unexpected \(conv1.0.weight, "
    )
    with pytest.raises(ModelError, match=message):
        build(tmp_path / "other.pt")
    state = torchvision.models.get_model(SMALL).state_dict()
    state["features.0.0.weight"] = torch.zeros(16, 4, 3, 3)
    torch.save(state, tmp_path / "four.pt")
    with pytest.raises(
        ModelError, match=r"1 of another shape \(features.0.0.weight \[16, 4, 3, 3\] here, \[16, 3, 3, 3\] needed\)"
    ):
        build(tmp_path / "four.pt")


def test_a_bundles_weights_load_whole_or_in_part(tmp_path: Path) -> None:
    theirs = trained(tmp_path / "weights.safetensors", pooling="gem")
    for uri in (tmp_path, tmp_path / "weights.safetensors", f"file://{tmp_path}", f"file://{tmp_path}/weights.safetensors"):
        assert same(build(uri, pooling="gem"), theirs)
    features = build(tmp_path / "weights.safetensors", pooling="gem", weights_part="features", labels=OTHERS)
    assert same(features, theirs, "backbone.")
    assert same(features, theirs, "pooling.")
    assert not same(features, theirs, "head.")
    backbone = build(tmp_path, pooling="gap", weights_part="backbone", labels=OTHERS)
    assert same(backbone, theirs, "backbone.")


def test_weights_of_another_label_space_say_how_to_take_the_backbone(tmp_path: Path) -> None:
    trained(tmp_path / "weights.safetensors")
    message = (
        "the labels of the weights at .* and the dataset differ: column 1 is 'cow'.*'cup'.*set model.weights_part: backbone"
    )
    with pytest.raises(LabelError, match=message):
        build(tmp_path, labels=OTHERS)
    with pytest.raises(ModelError, match=r"head.linear.weight \[3, 576\] here, \[9, 576\] needed"):
        build_classifier(ModelSpec(backbone=SMALL, weights=str(tmp_path)), 9)


def test_a_trained_bernoulli_head_starts_a_mixture_but_not_the_reverse(tmp_path: Path) -> None:
    theirs = trained(tmp_path / "weights.safetensors")
    ours = build(tmp_path, head={"name": "mixture", "components": 1}).eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(ours(images)["component_logits"][:, 0], theirs.eval()(images)["logits"])
    trained(tmp_path / "weights.safetensors", head={"name": "mixture", "components": 2})
    with pytest.raises(
        ModelError, match=r"the head of .*head.mixing.weight.* is not a bernoulli head; to take its backbone only"
    ):
        build(tmp_path)
    with pytest.raises(ModelError, match=r"head.offsets \[6\] here, \[9\] needed"):
        build(tmp_path, head={"name": "mixture", "components": 3})


def test_a_mixture_refuses_a_bernoulli_head_of_another_size(tmp_path: Path) -> None:
    trained(tmp_path / "weights.safetensors")
    spec = ModelSpec.parse({"backbone": SMALL, "weights": str(tmp_path), "head": {"name": "mixture", "components": 2}})
    with pytest.raises(
        ModelError, match=r"the weight of the Bernoulli head has shape \(3, 576\), but the head needs \(9, 576\)"
    ):
        build_classifier(spec, 9)


def test_parts_are_for_bundles_only(tmp_path: Path) -> None:
    torch.save(torchvision.models.get_model(SMALL).state_dict(), tmp_path / "whole.pth")
    with pytest.raises(ModelError, match=r"weights_part features is for rayprob bundles, but .*whole.pth is not one"):
        build(tmp_path / "whole.pth", weights_part="features")


class Trap:
    """Its pickle would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("trapped"),))


def test_pickles_of_code_and_broken_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Trap()}, "trap.pt")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "cut.safetensors").write_bytes(safetensors.torch.save({"a": torch.zeros(9)})[:-4])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "half.pt").write_bytes((tmp_path / "trap.pt").read_bytes()[:100])
    unsafe = dict.fromkeys(("trap.pt", "cut.safetensors", "half.pt"), "cannot be read safely")
    for name, fault in {**unsafe, "text.pth": "is a text file, not weights", "empty.safetensors": "is empty"}.items():
        with pytest.raises(ModelError, match=f"{name} {fault}"):
            read_weights(name)
    assert not (tmp_path / "trapped").exists()


def test_files_without_a_state_dict_and_missing_files_are_named(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(ModelError, match=r"list.pt contains list, not a state_dict; save only model.state_dict\(\)"):
        read_weights(str(tmp_path / "list.pt"))
    with pytest.raises(StorageError, match=r"no file at .*nothing.pt"):
        build(tmp_path / "nothing.pt")


def test_paths_and_names_of_the_library_are_told_apart() -> None:
    assert all(map(is_file, ("x.pth", "./bundle", "s3://bucket/bundle", "runs/a/bundle")))
    assert not any(map(is_file, ("DEFAULT", "IMAGENET1K_V2", "a1_in1k")))


def test_saved_weights_carry_their_labels_and_lose_nothing(tmp_path: Path) -> None:
    classifier = trained(tmp_path / "weights.safetensors")
    tensors, labels = read_weights(str(tmp_path / "weights.safetensors"))
    assert labels == LABELS
    assert tensors.keys() == classifier.state_dict().keys()
    content = (tmp_path / "weights.safetensors").read_bytes()
    assert json.loads(content[8 : 8 + int(np.frombuffer(content[:8], "<u8")[0])])["__metadata__"].keys() == {"rayprob_labels"}


def test_weights_in_channels_last_are_saved_as_they_are(tmp_path: Path) -> None:
    classifier = build().to(memory_format=torch.channels_last)
    (tmp_path / "weights.safetensors").write_bytes(classifier_bytes(classifier, LABELS))
    assert same(build(tmp_path), classifier)
