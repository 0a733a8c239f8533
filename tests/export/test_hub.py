"""A folder for Hugging Face: rayprob reads it as the bundle, timm as its own model where it has the same network."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import rayprob as rp
from rayprob.cli.app import app
from rayprob.errors import BundleError, LabelError, ModelError
from rayprob.export.hub import HubFolder, export_hub
from rayprob.export.timm_layout import timm_layout
from rayprob.loader.augment import TransformSpec
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.models.source_names import SourceNames
from rayprob.runs import bundle as bundle_module
from rayprob.runs.bundle import Bundle
from rayprob.runs.card import read_card
from tests.predict.small import LABELS, SCALE, SHIFT, make_bundle

timm = pytest.importorskip("timm")
NET = "timm/test_resnet.r160_in1k"
EVERY_FILE = ["README.md", "bundle.json", "calibrator.safetensors", "card.json", "config.json", "labels.json"]
EVERY_FILE += ["model.safetensors"]


def of_timm(**keys: object) -> Bundle:
    """A calibrated bundle of timm's smallest network, unless `keys` change it."""
    torch.manual_seed(3)
    spec = ModelSpec.parse({"backbone": NET, "mean": [0.1, 0.25, 0.4], "std": [0.9, 0.31, 0.77], **keys})
    classifier = build_classifier(spec, len(LABELS)).eval()
    classifier.head.requires_grad_(False)
    linear = classifier.head.get_submodule("linear")
    torch.nn.init.normal_(linear.weight, std=0.3)  # type: ignore[arg-type]
    made = make_bundle(1, {"name": "bernoulli"})
    return replace(made, classifier=classifier, model_spec=spec, transform_spec=TransformSpec(size_px=64))


def export(bundle: Bundle, folder: Path) -> HubFolder:
    bundle.save(str(folder / "bundle"))
    return export_hub(str(folder / "bundle"), str(folder / "hub"), with_onnx=False)


def photo(folder: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((131, 97), Image.Resampling.BICUBIC).save(folder / "photo.png")
    return str(folder / "photo.png")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle and its export, both of a network that timm has."""
    folder = tmp_path_factory.mktemp("hub")
    written = export(of_timm(), folder)
    assert written.why_not_timm == ""
    return folder


def test_rayprob_answers_from_the_folder_bit_for_bit(hub: Path) -> None:
    ours, theirs = rp.load(hub / "bundle").predict(photo(hub)), rp.load(hub / "hub").predict(photo(hub))
    assert theirs.marginals == ours.marginals
    assert theirs.label_set == ours.label_set
    old, new = Bundle.load(str(hub / "bundle")), Bundle.load(str(hub / "hub"))
    state = old.classifier.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in new.classifier.state_dict().items())
    assert new.classifier.state_dict().keys() == state.keys()
    assert (new.guarantees, new.facts, new.reading) == (old.guarantees, old.facts, old.reading)


def test_timm_loads_the_folder_and_computes_the_same_logits_from_the_same_file(hub: Path) -> None:
    model = timm.create_model(f"local-dir:{hub / 'hub'}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        logits_L = model(transform(Image.open(photo(hub)).convert("RGB"))[None])[0].double().numpy()
    marginals = rp.load(hub / "hub").predict(photo(hub)).marginals
    expected_L = 1 / (1 + np.exp(-(SCALE * logits_L + SHIFT)))
    np.testing.assert_allclose([marginals[name] for name in LABELS.names], expected_L, atol=1e-5)
    assert model.pretrained_cfg["label_names"] == list(LABELS.names)
    assert np.std(expected_L) > 0.05


def test_the_folder_has_every_file_and_its_card_is_that_of_the_bundle(hub: Path) -> None:
    assert sorted(os.listdir(hub / "hub")) == sorted(EVERY_FILE)
    card, source = read_card(str(hub / "hub")), read_card(str(hub / "bundle"))
    assert {**card, "bundle": 0} == {**source, "bundle": 0}
    page = (hub / "hub" / "README.md").read_text()
    assert "library_name: timm" in page
    assert "timm.create_model" in page
    config = json.loads((hub / "hub" / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == ("test_resnet", 6)
    assert config["pretrained_cfg"]["crop_mode"] == "squash"


def test_another_training_starts_from_the_folder(hub: Path) -> None:
    spec = ModelSpec.parse({"backbone": NET, "weights": str(hub / "hub")})
    started = build_classifier(spec, len(LABELS), label_space=LABELS)
    wanted = Bundle.load(str(hub / "bundle")).classifier.state_dict()
    assert all(torch.equal(wanted[name], tensor) for name, tensor in started.state_dict().items())
    fewer = replace(LABELS, names=(*LABELS.names[:5], "spoon"))
    with pytest.raises(LabelError, match="spoon"):
        build_classifier(spec, len(LABELS), label_space=fewer)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"backbone": "squeezenet1_1"}, "timm has no architecture squeezenet1_1"),
        ({"pooling": "gem"}, r"timm's test_resnet does not take the weights \(pooling.power has no name in .*"),
        ({"pooling": "gmp"}, r"timm's test_resnet pools or normalises differently: its logits differ by up to .*"),
        ({"pooling": "places", "head": {"name": "bernoulli", "attention": 0.2}}, "timm has no head bernoulli with attention"),
        ({"head": {"name": "mixture", "components": 2}}, "timm has no head mixture"),
        ({"maps": [4, 5]}, "timm's classifiers do not join the maps of several stages"),
    ],
)
def test_a_network_that_timm_lacks_is_named_and_read_by_rayprob(tmp_path: Path, keys: dict[str, object], why: str) -> None:
    bundle = replace(of_timm(**keys), calibrator=None)
    written = export(bundle, tmp_path)
    assert written.timm_difference is None
    assert re.fullmatch(why, written.why_not_timm)
    assert written.why_not_timm in (tmp_path / "hub" / "README.md").read_text()
    state = bundle.classifier.state_dict()
    loaded = Bundle.load(str(tmp_path / "hub")).classifier.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in loaded.items())


def test_torchvisions_resnet_is_one_that_timm_has_too() -> None:
    layout = timm_layout(of_timm(backbone="resnet18"))
    assert not isinstance(layout, str)
    assert (layout.architecture, layout.names.body, layout.names.classifier) == ("resnet18", "backbone.body.", "fc")


def test_a_folder_with_files_is_refused_and_force_keeps_the_others(hub: Path, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref")
    (tmp_path / "model.onnx").write_text("old")
    with pytest.raises(BundleError, match=r"is not empty \(\.git/HEAD, model.onnx\); give another folder, or --force"):
        export_hub(str(hub / "bundle"), str(tmp_path), with_onnx=False)
    export_hub(str(hub / "bundle"), str(tmp_path), force=True, with_onnx=False)
    assert sorted(os.listdir(tmp_path)) == sorted([".git", *EVERY_FILE])
    with pytest.raises(BundleError, match=r"is not empty \(an earlier export\)"):
        export_hub(str(hub / "bundle"), str(tmp_path), with_onnx=False)


def test_folders_of_rayprob_are_never_written_to(hub: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("name: a")
    (tmp_path / "file").write_text("")
    for folder in (hub / "bundle", tmp_path):
        with pytest.raises(BundleError, match="is a folder of rayprob itself, which export never writes to"):
            export_hub(str(hub / "bundle"), str(folder), force=True, with_onnx=False)
    with pytest.raises(BundleError, match="is a file; give a folder"):
        export_hub(str(hub / "bundle"), str(tmp_path / "file"), force=True, with_onnx=False)


def test_an_export_that_fails_leaves_no_folder(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = bundle_module.storage.write_bytes

    def full(uri: str, content: bytes) -> None:
        if uri.endswith("config.json"):
            raise OSError(28, "No space left on device")
        really(uri, content)

    monkeypatch.setattr(bundle_module.storage, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        export_hub(str(hub / "bundle"), str(tmp_path / "new"), with_onnx=False)
    assert os.listdir(tmp_path) == []


def test_a_changed_file_is_noticed(hub: Path, tmp_path: Path) -> None:
    export_hub(str(hub / "bundle"), str(tmp_path / "hub"), with_onnx=False)
    with (tmp_path / "hub" / "model.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(BundleError, match=r"model.safetensors has sha256 .*copy the whole folder again"):
        Bundle.load(str(tmp_path / "hub"))


def test_damaged_names_are_an_error() -> None:
    with pytest.raises(ModelError, match=r"the names in the header of a.safetensors are damaged .*; copy it again"):
        SourceNames.from_text('{"body": "backbone."}', "a.safetensors")


def test_the_verb_says_what_timm_does(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **keys: object) -> None:
        raise ModelError("export to ONNX needs the packages onnx")

    monkeypatch.setattr("rayprob.export.hub.export_onnx", refuse)
    result = CliRunner().invoke(app, ["export", str(hub / "bundle"), "--hub", str(tmp_path / "hub")])
    assert result.exit_code == 0, result.output
    assert "timm loads it: its logits differ from rayprob's by at most" in result.output
    assert "no ONNX file: export to ONNX needs the packages onnx" in result.output
