"""Floor 0: labels, specs, storage, choose, seeds."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayprob import errors
from rayprob.config.spec import Spec, differing_keys, override
from rayprob.errors import LabelError, SpecError, StorageError
from rayprob.files import storage
from rayprob.labels import COCO_80, LabelSpace, from_label_lists
from rayprob.registry import choose, unknown
from rayprob.seeds import derive


class Inner(Spec):
    lr: float = 0.1
    name: Literal["sgd", "adam"] = "sgd"


class Outer(Spec):
    optimizer: Inner = Inner()
    steps: int
    placement: Inner | None = None


def test_coco_has_the_80_official_labels_in_id_order() -> None:
    assert len(COCO_80) == 80
    assert COCO_80.column("person") == 0
    assert COCO_80.category_ids[COCO_80.column("toothbrush")] == 90
    assert COCO_80.category_ids[COCO_80.column("bottle")] == 44


def test_unknown_label_names_the_nearest() -> None:
    with pytest.raises(LabelError, match=r"unknown label 'dinning table'; nearest: dining table"):
        COCO_80.column("dinning table")


def test_label_space_rejects_doubles_and_disorder() -> None:
    with pytest.raises(LabelError, match="label name cat occurs more than once"):
        LabelSpace(("cat", "cat"), (1, 2))
    with pytest.raises(LabelError, match="not in ascending order"):
        LabelSpace(("cat", "dog"), (2, 1))
    with pytest.raises(LabelError, match="2 label names but 1 category ids"):
        LabelSpace(("cat", "dog"), (2,))


def test_different_label_spaces_name_the_first_difference() -> None:
    ours, theirs = LabelSpace(("cat", "dog"), (1, 2)), LabelSpace(("cat", "cow"), (1, 2))
    with pytest.raises(LabelError, match=r"column 1 is 'dog' \(id 2\) against 'cow' \(id 2\)"):
        ours.require_same(theirs, "the weights", "the dataset")
    ours.require_same(LabelSpace.from_dict(ours.to_dict()), "the weights", "the dataset")


@pytest.mark.parametrize("ids", ["[1e999]", "[NaN]", '["one"]', "3", "null"])
def test_category_ids_that_are_no_integers_are_named(ids: str) -> None:
    with pytest.raises(LabelError, match="a label space needs lists 'names' and 'category_ids'; got"):
        LabelSpace.from_dict({"names": ["cat"], "category_ids": json.loads(ids)})


@given(st.lists(st.sets(st.integers(0, 6)), max_size=8))
def test_label_lists_are_rows_of_a_table(label_sets: list[set[int]]) -> None:
    lists = [sorted(columns) for columns in label_sets]
    assert [np.flatnonzero(row).tolist() for row in from_label_lists(lists, 7)] == lists


def test_label_set_and_names_are_inverse() -> None:
    present_L = COCO_80.label_set(["fork", "person"])
    assert present_L.sum() == 2
    assert COCO_80.names_of(present_L) == ["person", "fork"]


def test_spec_reads_overrides_and_writes_back(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("steps: 5\n")
    spec = Outer.read(path, ["optimizer.lr=1e-4", "steps=7"])
    assert (spec.steps, spec.optimizer.lr) == (7, 1e-4)
    path.write_text(spec.to_yaml())
    assert Outer.read(path) == spec
    assert Outer.read(path).fingerprint == spec.fingerprint != Outer(steps=8).fingerprint


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("steps: 1\nstesp: 2", [], r"unknown key 'stesp'; nearest: steps; allowed: optimizer, steps"),
        ("steps: 1\noptimizer: {lrr: 2}", [], r"unknown key under optimizer: 'lrr'; nearest: lr"),
        ("optimizer: {}", [], r"steps: required, but missing"),
        ("steps: many", [], r"steps: expected an integer \(found 'many'\)"),
        ("steps: 1\noptimizer: {name: bgd}", [], r"optimizer.name: input should be 'sgd' or 'adam' \(found 'bgd'\)"),
        ("- steps", [], "contains list, not a mapping"),
        ("a: [", [], "is not valid YAML: line 1, column"),
        ("steps: 1", ["steps"], "--set needs KEY=VALUE"),
        ("steps: 1", ["steps.x=1"], "'steps' is 1, which has no keys below it"),
        ("steps: 1", ["steps=["], "the value is not valid YAML"),
    ],
)
def test_spec_faults_name_key_and_remedy(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        Outer.read(path, overrides)


def test_missing_spec_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cannot read .*nothing\.yaml: No such file"):
        Outer.read(tmp_path / "nothing.yaml")


def test_override_leaves_its_input_alone() -> None:
    value = {"a": {"b": 1}}
    assert override(value, ["a.b=2", "c.d=[1, 2]"]) == {"a": {"b": 2}, "c": {"d": [1, 2]}}
    assert value == {"a": {"b": 1}}


def test_differing_keys_are_dotted() -> None:
    assert differing_keys({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == ["a.b: 1 -> 3"]


def test_choose_names_the_nearest_and_the_rest() -> None:
    assert choose({"bce": 1}, "bce", "loss") == 1
    with pytest.raises(SpecError, match="unknown loss 'bec'; nearest: bce; allowed: bce, focal"):
        choose({"bce": 1, "focal": 2}, "bec", "loss")


def test_of_many_names_a_message_lists_the_nearest_five_alone() -> None:
    names = [f"resnet{number}" for number in range(1000)]
    assert unknown("resnt18", names, "backbone").count("resnet") == 5
    assert unknown("resnt18", names, "backbone").endswith("; 1,000 are allowed")
    assert unknown("vgg", names, "backbone").endswith("resnet18, resnet19, ... (1,000 in all)")


def test_seeds_depend_on_every_part_and_its_type() -> None:
    seeds = {derive(0), derive(1), derive(0, "a"), derive(0, "a", 1), derive(0, "a1"), derive(0, "a", "1"), derive(0, 1, "a")}
    assert len(seeds) == 7
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(3, "order", 5) == derive(3, "order", 5)


def test_an_error_takes_one_line_and_one_without_words_is_named_by_its_type() -> None:
    assert errors.one_line(OSError("first\n  second\n")) == "first second"
    assert errors.one_line(NotImplementedError()) == "NotImplementedError"
    assert errors.one_line(ValueError("x" * 999), 20) == "x" * 20


def test_errors_survive_pickling() -> None:
    import pickle

    for kind in vars(errors).values():
        if isinstance(kind, type):
            assert str(pickle.loads(pickle.dumps(kind("message")))) == "message"


def test_atomic_writer_leaves_nothing_behind_on_error(tmp_path: Path) -> None:
    target = str(tmp_path / "sub" / "file")
    storage.write_bytes(target, b"old")

    def write_half() -> None:
        with storage.atomic_writer(target) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert storage.read_bytes(target) == b"old"
    assert storage.list_names(str(tmp_path / "sub")) == ["file"]


def test_a_folder_is_listed_with_all_below_it_and_removed_whole(tmp_path: Path) -> None:
    for name in ("b.txt", "a/c.txt", "a/b/d.txt"):
        storage.write_bytes(str(tmp_path / "folder" / name), b"x")
    folder = str(tmp_path / "folder")
    assert [*storage.list_below(folder).size_of] == ["a/b/d.txt", "a/c.txt", "b.txt"]
    assert storage.list_below(folder + "/") == storage.list_below(f"file://{folder}")
    assert [storage.is_folder(path) for path in (folder, f"{folder}/b.txt", f"{folder}/gone")] == [True, False, False]
    storage.remove_folder(folder)
    storage.remove_folder(folder)
    assert not storage.list_below(folder).size_of
    assert not storage.exists(folder)


def test_storage_reads_ranges_and_reports_short_files(tmp_path: Path) -> None:
    target = str(tmp_path / "file")
    storage.write_bytes(target, b"0123456789")
    assert storage.read_bytes(target, 2, 3) == b"234"
    assert storage.size_bytes(f"file://{target}") == 10
    with pytest.raises(StorageError, match="expected 5 bytes at 8, found 2"):
        storage.read_bytes(target, 8, 5)
    with pytest.raises(StorageError, match="no file at"):
        storage.read_bytes(str(tmp_path / "nothing"))
    with pytest.raises(StorageError, match="unknown scheme 'ftp'"):
        storage.exists("ftp://host/file")
    with pytest.raises(StorageError, match=r"without '\.\.'"):
        storage.join(str(tmp_path), "../out")
    storage.remove(target)
    storage.remove(target)
    assert not storage.exists(target)


def test_seeds_look_random() -> None:
    bits = np.array([[derive(0, i) >> b & 1 for b in range(63)] for i in range(2000)])
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.06


def test_a_very_long_unknown_name_is_cut_and_compared_with_nothing() -> None:
    message = unknown("x" * 1_000_000, ["x" * 100_000, "y"], "label")
    assert message.startswith("unknown label 'xxx")
    assert "nearest" not in message
    assert len(message) < 101_000
