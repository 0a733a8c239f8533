"""Bundles: what is saved comes back, and every fault of a folder is named."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprob.config.spec import fingerprint
from rayprob.errors import BundleError, QueryError, StorageError
from rayprob.images.reading import READ_AS_STORED, READ_UPRIGHT, ImageReading
from rayprob.labels import LabelSpace
from rayprob.loader.augment import TransformSpec
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.probability.calibration.affine import AffineCalibrator
from rayprob.probability.calibration.mixture import MixtureCalibrator
from rayprob.probability.decisions.conformal import RiskControl
from rayprob.probability.decisions.thresholds import Thresholds
from rayprob.probability.distributions.distribution import BernoulliDistribution, MixtureDistribution
from rayprob.runs import bundle as bundle_module
from rayprob.runs.bundle import Bundle

LABELS = LabelSpace(("cat", "cow", "dog"), (1, 2, 3))


def make(**keys: object) -> Bundle:
    spec = ModelSpec.parse({"backbone": "squeezenet1_1", **keys})
    return Bundle(
        classifier=build_classifier(spec, 3).eval(),
        model_spec=spec,
        label_space=LABELS,
        transform_spec=TransformSpec(size_px=32),
        calibrator=AffineCalibrator("platt", scale_L=np.array([1.0, 2.0, 0.5]), shift_L=np.zeros(3)),
        thresholds={"label_CF1": Thresholds(np.array([0.1, 0.2, 1 / 3]), "CF1", 0.0, 0.75, 40, ("a note",))},
        guarantees={"0.2": RiskControl(0.04, 0.2, 40, 0.15)},
        facts={"run": {"seed": 3}, "map": 0.25},
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    make().save(str(tmp_path / "bundle"))
    return tmp_path / "bundle"


@pytest.mark.parametrize("head", [{}, {"name": "mixture", "components": 2, "rank": 1}], ids=["bernoulli", "mixture"])
@pytest.mark.parametrize("norm", ["train", "sync"])
def test_a_loaded_bundle_gives_the_same_outputs(tmp_path: Path, head: dict[str, object], norm: str) -> None:
    original = make(backbone="shufflenet_v2_x0_5", head=head, norm=norm, pooling="gem")
    bundle_module.Bundle(original.classifier, original.model_spec, LABELS, original.transform_spec).save(str(tmp_path / "b"))
    loaded = Bundle.load(str(tmp_path / "b"))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        ours, theirs = original.classifier(images), loaded.classifier(images)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not loaded.classifier.training
    assert (loaded.calibrator, loaded.thresholds, loaded.guarantees) == (None, {}, {})


def test_everything_beside_the_weights_comes_back(saved: Path) -> None:
    loaded, original = Bundle.load(str(saved)), make()
    assert (loaded.model_spec, loaded.label_space, loaded.transform_spec) == (
        original.model_spec,
        LABELS,
        original.transform_spec,
    )
    assert loaded.facts == original.facts
    assert loaded.guarantees == original.guarantees
    assert loaded.thresholds["label_CF1"].to_dict() == original.thresholds["label_CF1"].to_dict()
    assert isinstance(loaded.calibrator, AffineCalibrator)
    assert loaded.calibrator.name == "platt"
    assert np.array_equal(loaded.calibrator.scale_L, [1.0, 2.0, 0.5])


@pytest.mark.parametrize("reading", [READ_AS_STORED, READ_UPRIGHT, ImageReading("upright", (0, 4095))])
def test_a_bundle_records_how_images_are_read_only_where_that_is_not_as_in_0_1(tmp_path: Path, reading: ImageReading) -> None:
    replace(make(), reading=reading).save(str(tmp_path / "b"))
    described = json.loads((tmp_path / "b" / "bundle.json").read_text())
    assert {"orientation", "window"} & described.keys() == reading.to_dict().keys()
    assert Bundle.load(str(tmp_path / "b")).reading == reading


def test_a_bundle_is_json_and_safetensors_and_nothing_else(saved: Path) -> None:
    assert sorted(os.listdir(saved)) == ["bundle.json", "calibrator.safetensors", "weights.safetensors"]
    assert os.listdir(saved.parent) == ["bundle"]


def test_a_bundle_whose_weights_once_were_downloaded_loads_without_network(tmp_path: Path) -> None:
    original = make()
    spec = original.model_spec.model_copy(update={"weights": "DEFAULT"})
    Bundle(original.classifier, spec, LABELS, original.transform_spec).save(str(tmp_path / "b"))
    assert Bundle.load(str(tmp_path / "b")).model_spec.weights == "DEFAULT"


def test_a_loaded_bundle_with_another_calibrator_is_saved_again_without_training(saved: Path) -> None:
    loaded = Bundle.load(str(saved))
    weights = (saved / "weights.safetensors").read_bytes()
    other = AffineCalibrator("temperature", np.array([0.5]), np.zeros(1))
    replace(loaded, calibrator=other, thresholds={}).save(str(saved))
    again = Bundle.load(str(saved))
    assert again.calibrator is not None
    assert (again.calibrator.name, again.thresholds, again.facts) == ("temperature", {}, loaded.facts)
    assert (saved / "weights.safetensors").read_bytes() == weights


def test_distributions_are_calibrated_where_there_is_a_calibrator() -> None:
    bundle, logits_BL = make(), torch.tensor([[0.0, 1.0, -2.0]], dtype=torch.float64)
    calibrated = bundle.distribution({"logits": logits_BL}).marginals()
    assert calibrated == pytest.approx(1 / (1 + np.exp([[0.0, -2.0, 1.0]])), abs=1e-6)
    raw = replace(bundle, calibrator=None).distribution({"logits": logits_BL.numpy()}).marginals()
    assert raw == pytest.approx(1 / (1 + np.exp([[0.0, -1.0, 2.0]])))


def test_mixtures_are_calibrated_in_their_parameters() -> None:
    calibrator = MixtureCalibrator("platt", 0.0, np.ones(3), np.array([1.0, 0.0, 0.0]))
    bundle = replace(make(head={"name": "mixture", "components": 2}), calibrator=calibrator)
    outputs = {"mixing_logits": torch.tensor([[9.0, 0.0]]), "component_logits": torch.zeros(1, 2, 3)}
    distribution = bundle.distribution(outputs)
    assert isinstance(distribution, MixtureDistribution)
    assert np.exp(distribution.log_mixing_BK) == pytest.approx(0.5)
    assert distribution.marginals() == pytest.approx(np.array([[1 / (1 + np.exp(-1.0)), 0.5, 0.5]]))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("0.5", [True, False, False]),
        ("0.3", [True, True, False]),
        ("0", [True, True, True]),
        ("label_CF1", [True, True, False]),
        ("recall@0.2", [True, True, True]),
        ("top_set", [True, False, False]),
        ("best_F1", [True, True, False]),
    ],
)
def test_label_sets_follow_the_rule(rule: str, expected: list[bool]) -> None:
    marginals_L = np.array([0.9, 0.45, 0.05])
    distribution = BernoulliDistribution(np.log(marginals_L / (1 - marginals_L))[None])
    assert make().label_sets(distribution, rule).tolist() == [expected]


def test_an_unknown_rule_is_answered_with_the_rules_that_there_are() -> None:
    distribution = BernoulliDistribution(np.zeros((1, 3)))
    with pytest.raises(
        QueryError,
        match=r"unknown rule for label sets 'label_cf1'; nearest: label_CF1, best_F1; allowed: label_CF1, recall@0.2, best_F1, "
        r"top_set, or a threshold from 0 to 1$",
    ):
        make().label_sets(distribution, "label_cf1")
    for rule in ("1.5", "recall@0.3", "-0.5", "nan"):
        with pytest.raises(QueryError, match=rf"unknown rule for label sets '{rule}'"):
            make().label_sets(distribution, rule)
    with pytest.raises(QueryError, match=r"`rayprob calibrate RUN` fits thresholds and guarantees"):
        replace(make(), thresholds={}).label_sets(distribution, "label_CF1")


def test_saving_keeps_the_examples_that_were_put_there(saved: Path) -> None:
    (saved / "examples").mkdir()
    (saved / "examples" / "one.jpg").write_bytes(b"an image")
    Bundle.load(str(saved)).save(str(saved))
    assert (saved / "examples" / "one.jpg").read_bytes() == b"an image"


def test_saving_replaces_a_bundle_whole(saved: Path) -> None:
    second = make()
    Bundle(second.classifier, second.model_spec, LABELS, second.transform_spec, facts={"run": 2}).save(str(saved))
    assert sorted(os.listdir(saved)) == ["bundle.json", "weights.safetensors"]
    assert Bundle.load(str(saved)).facts == {"run": 2}
    assert os.listdir(saved.parent) == ["bundle"]


@pytest.mark.parametrize("renames", [0, 1])
def test_a_failed_save_leaves_the_old_bundle(saved: Path, monkeypatch: pytest.MonkeyPatch, renames: int) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    really_replace, calls = os.replace, []

    def replace(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == renames + 1:
            raise OSError("disk is gone")
        really_replace(source, target)

    monkeypatch.setattr(bundle_module.os, "replace", replace)
    with pytest.raises(OSError, match="disk is gone"):
        make().save(str(saved))
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert os.listdir(saved.parent) == ["bundle"]


def edited(key: str, value: object) -> Callable[[Path], None]:
    """Return what writes a description with another value, as another rayprob would: with a fingerprint that matches."""

    def edit(folder: Path) -> None:
        described = {**json.loads((folder / "bundle.json").read_text()), key: value}
        del described["fingerprint"]
        (folder / "bundle.json").write_text(json.dumps({**described, "fingerprint": fingerprint(described)}))

    return edit


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def overwritten(name: str, content: bytes) -> Callable[[Path], None]:
    def overwrite(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return overwrite


def cut(folder: Path) -> None:
    content = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(content[:-1])


FAULTS = [
    (without("bundle.json"), r"no bundle at .*: bundle.json is missing; give the folder that training wrote"),
    (without("weights.safetensors"), r"weights.safetensors is missing from the bundle at .*; copy the whole folder"),
    (without("calibrator.safetensors"), r"calibrator.safetensors is missing from the bundle at .*; copy the whole folder"),
    (cut, r"weights.safetensors has sha256 .*, but bundle.json has .*; the file was changed or cut short"),
    (overwritten("bundle.json", b"{"), r"bundle.json is not JSON"),
    (overwritten("bundle.json", b"[]"), r"bundle.json contains list, not a mapping; use the rayprob that wrote it"),
    (edited("version", 2), r"has version 2, .* 1; use the rayprob that wrote it; or remove the bundle's folder and .*train"),
    (edited("files", {}), r"cannot be rebuilt: KeyError: 'weights.safetensors'"),
    (edited("model", {"backbone": "squeezenet1_1", "colour": 1}), r"cannot be rebuilt: its model has 1 fault.*\n.*'colour'"),
    (
        edited("model", {"backbone": "squeezenet1_0"}),
        r"the weights at weights.safetensors do not fit this model: .* of another shape",
    ),
    (edited("label_space", {"names": ["cat"], "category_ids": [1]}), r"head.linear.weight \[3, 512\] here, \[1, 512\] needed"),
    (edited("transform", {"name": "shrink"}), r"cannot be rebuilt: its transform has 1 fault"),
    (edited("guarantees", {"0.1": {}}), r"stored risk control cannot be read"),
    (edited("calibrator", "magic"), r"unknown calibrator 'magic'"),
    (edited("thresholds", {"label_CF1": {"values": [0.5]}}), r"stored thresholds cannot be read \(KeyError\('smoothing'\)\)"),
    (
        edited("thresholds", {"t": Thresholds(np.ones(2), "OF1", 0.0, 0.0, 9).to_dict()}),
        r"'t' have 2 labels, but the bundle has 3",
    ),
]


@pytest.mark.parametrize(("damage", "message"), FAULTS)
def test_every_fault_of_a_folder_is_named(saved: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(saved)
    with pytest.raises(BundleError, match=message):
        Bundle.load(str(saved))


def test_a_description_that_lacks_a_key_is_named(saved: Path) -> None:
    described = json.loads((saved / "bundle.json").read_text())
    del described["facts"], described["transform"]
    (saved / "bundle.json").write_text(json.dumps(described))
    with pytest.raises(BundleError, match=r"bundle.json: transform: required, but missing; facts: required, but missing"):
        Bundle.load(str(saved))


def test_an_object_store_sees_the_description_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(bundle_module.storage, "write_bytes", lambda uri, _: written.append(uri))
    monkeypatch.setattr(bundle_module.storage, "remove", lambda uri: written.append(f"remove {uri}"))
    make().save("s3://bucket/run/bundle")
    names = ["remove bundle.json", "weights.safetensors", "calibrator.safetensors", "bundle.json"]
    assert [uri.replace("s3://bucket/run/bundle/", "") for uri in written] == names


def test_a_description_changed_after_it_was_written_is_refused_and_an_old_one_without_fingerprint_opens(saved: Path) -> None:
    described = json.loads((saved / "bundle.json").read_text())
    del described["fingerprint"]  # version 0.1 had none
    (saved / "bundle.json").write_text(json.dumps(described))
    assert Bundle.load(str(saved)).facts == described["facts"]
    make().save(str(saved))
    described = json.loads((saved / "bundle.json").read_text())
    (saved / "bundle.json").write_text(json.dumps({**described, "facts": {"run": {"seed": 4}}}))
    with pytest.raises(BundleError, match=r"bundle.json was changed after it was written: .* copy the whole folder again"):
        Bundle.load(str(saved))


@pytest.mark.parametrize("content", [b"[" * 50_000, b"\xff", b"", b"null", b'{"version": 1e999}'], ids=range(5))
def test_a_description_that_is_no_json_object_is_refused(saved: Path, content: bytes) -> None:
    (saved / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError):
        Bundle.load(str(saved))


@pytest.mark.parametrize(
    "key", ["model", "label_space", "transform", "calibrator", "thresholds", "guarantees", "facts", "files"]
)
@pytest.mark.parametrize("value", [3, [["a"]]])
def test_a_part_of_another_kind_is_named(saved: Path, key: str, value: object) -> None:
    edited(key, value)(saved)
    with pytest.raises(BundleError, match=rf"bundle.json: {key}: expected (text|a mapping)"):
        Bundle.load(str(saved))


hits = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3)


@given(hits=hits, cut=st.one_of(st.none(), st.none(), st.integers(0, 10_000)))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_damage_to_a_description_is_refused_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, hits: list[tuple[int, int]], cut: int | None
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    if not folder.exists():
        make().save(str(folder))
        (folder / "copy").write_bytes((folder / "bundle.json").read_bytes())
    original = (folder / "copy").read_bytes()
    content = bytearray(original)
    for at, byte in hits:
        content[at % len(content)] = byte
    (folder / "bundle.json").write_bytes(content if cut is None else content[: cut % len(content)])
    with suppress(BundleError, StorageError):
        loaded = Bundle.load(str(folder))
        assert json.loads(json.dumps(loaded.facts)) == json.loads(original)["facts"]
        assert loaded.label_space == LABELS
