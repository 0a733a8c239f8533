"""Tars of others become a dataset where they lie: nothing is copied, and nothing that changes in them stays unseen."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.data.building import build as building
from rayprob.data.building.build import Summary, build, in_process
from rayprob.data.building.plan import plan
from rayprob.data.building.recipe import Recipe
from rayprob.data.building.shard import BuiltShard, ShardJob
from rayprob.data.inspect import inspect
from rayprob.data.manifest.dataset import Dataset
from rayprob.data.manifest.label_fingerprint import label_fingerprint
from rayprob.data.sources.source import read_source
from rayprob.data.verify import verify
from rayprob.errors import DatasetError, SampleError, SourceError, SpecError, StorageError
from rayprob.files import storage
from rayprob.loader.augment import TransformSpec, build_transform
from rayprob.loader.streams import EvalStream, Place, StreamSpec
from rayprob.predict.images import find_images
from tests.data.small_source import draw_jpeg
from tests.data.sources.test_same_labels import NAMES, Pictures, as_coco, batches, pictures, write_tar
from tests.data.tars import PER_TAR, TARS, by_shard_writer
from tests.loader.s3 import BUCKET, serve
from tests.loader.whole_epoch import all_batches

__all__ = ["pictures"]  # a fixture
RESIZE = build_transform(TransformSpec(name="resize", size_px=16))
SPEC = StreamSpec(global_batch=4, lanes=2, window_shards=2, loader_workers=0)


def index(target: Path | str, splits: dict[str, dict[str, Any]], **changes: Any) -> Summary:
    """Index tars in place."""
    in_place = {split: {**source, "copy": False} for split, source in splits.items()}
    recipe = {"name": "tars", "splits": in_place, "target": str(target), "holdout": {"fraction": 0.3}, **changes}
    return build(Recipe.parse(recipe), run_tasks=in_process)


def build_copies(target: Path, splits: dict[str, dict[str, Any]], **changes: Any) -> None:
    """Build a dataset of copies of the same images."""
    recipe = {"name": "copied", "splits": splits, "target": str(target), "holdout": {"fraction": 0.3}, **changes}
    build(Recipe.parse(recipe), run_tasks=in_process)


def files_in(folder: Path) -> dict[str, tuple[str, int]]:
    """Return the digest and time of change of each file below a folder."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def all_images(dataset: Dataset, split: str, **spec: Any) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Return the image and targets of every sample that evaluation sees."""
    stream = EvalStream(dataset.split(split), SPEC.model_copy(update=spec), RESIZE, place=Place(), micro_batch=4)
    found = {}
    for batch in stream:
        found |= dict(zip(batch.sample_ids_B.tolist(), zip(batch.images_BCHW, batch.targets_BL, strict=True), strict=True))
    return found


def assert_same_images(ours: dict[int, tuple[torch.Tensor, ...]], theirs: dict[int, tuple[torch.Tensor, ...]]) -> None:
    assert ours.keys() == theirs.keys()
    for sample_id, tensors in ours.items():
        assert all(torch.equal(one, other) for one, other in zip(tensors, theirs[sample_id], strict=True))


def jpeg_of(number: int) -> bytes:
    return draw_jpeg(number, 24, 24)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, pictures: dict[str, Pictures]) -> dict[str, dict[str, dict[str, Any]]]:
    """The splits of each writer's tars, which no test changes."""
    folder = tmp_path_factory.mktemp("tars")
    return {
        name: {split: write(folder / name / split, some) for split, some in pictures.items()} for name, write in TARS.items()
    }


@pytest.fixture
def tars(tmp_path: Path, pictures: dict[str, Pictures]) -> dict[str, dict[str, Any]]:
    """The splits of tars that the test may change."""
    return {split: by_shard_writer(tmp_path / "tars" / split, some) for split, some in pictures.items()}


@pytest.mark.parametrize("name", TARS)
def test_tars_of_others_are_trained_on_as_their_copies_are(
    tmp_path: Path, written: dict[str, dict[str, dict[str, Any]]], name: str
) -> None:
    folders = [Path(source["images"]) for source in written[name].values()]
    before = [files_in(folder) for folder in folders]
    index(tmp_path / "index", written[name])
    build_copies(tmp_path / "copied", written[name])
    ours, theirs = Dataset.open(str(tmp_path / "index")), Dataset.open(str(tmp_path / "copied"))
    assert label_fingerprint(ours) == label_fingerprint(theirs)
    for split in ("train", "holdout", "val"):
        assert_same_images(all_images(ours, split), all_images(theirs, split))
    assert len(list(batches(ours))) == len(list(batches(theirs)))
    assert verify(ours.root) == []
    assert [files_in(folder) for folder in folders] == before
    files = files_in(tmp_path / "index")
    assert files.keys() == {"dataset.json", "labels.json", "manifest.parquet", "rejected.jsonl"}


def test_tars_in_our_order_give_bit_equal_training(tmp_path: Path, pictures: dict[str, Pictures]) -> None:
    splits = {split: as_coco(tmp_path / split, some) for split, some in pictures.items()}
    recipe = {"name": "own", "splits": splits, "target": str(tmp_path / "own"), "holdout": None, "max_shard_samples": 7}
    build(Recipe.parse(recipe), run_tasks=in_process)
    names = {name: name for name in NAMES}
    of_own = {
        split: {"format": "webdataset", "images": str(tmp_path / f"own/{split}-*.tar"), "names": names} for split in splits
    }
    index(tmp_path / "index", of_own, holdout=None)
    ours, theirs = (batches(Dataset.open(str(tmp_path / name))) for name in ("index", "own"))
    for batch, other in zip(ours, theirs, strict=True):
        for tensor in ("images_BCHW", "targets_BL", "known_BL", "sample_ids_B"):
            assert torch.equal(getattr(batch, tensor), getattr(other, tensor))


@pytest.fixture(scope="module")
def stored(written: dict[str, dict[str, dict[str, Any]]]) -> Iterator[Path]:
    """All tars in an object store."""
    folder = Path(written["ShardWriter"]["train"]["images"]).parents[1]
    with pytest.MonkeyPatch.context() as patch, serve(folder, patch):
        yield folder


@pytest.mark.parametrize(("name", "target"), [("ShardWriter", "local"), ("img2dataset", "stored")])
def test_tars_in_an_object_store_give_the_batches_of_those_on_a_disk(
    tmp_path: Path,
    written: dict[str, dict[str, dict[str, Any]]],
    stored: Path,
    name: str,
    target: str,
) -> None:
    bucket = f"s3://{BUCKET}/data"
    local = written[name] if target == "local" else {"val": written[name]["val"]}
    holdout = {"fraction": 0.3} if target == "local" else None
    remote = {split: {**source, "images": source["images"].replace(str(stored), bucket)} for split, source in local.items()}
    root = str(tmp_path / "remote") if target == "local" else f"{bucket}/{name}"
    index(root, remote, holdout=holdout)
    index(tmp_path / "index", local, holdout=holdout)
    ours, theirs = Dataset.open(root), Dataset.open(str(tmp_path / "index"))
    assert ours.fingerprint == theirs.fingerprint
    # Below the dataset's root a tar has a relative name, so that both can be moved.
    assert all(shard.startswith("s3://" if target == "local" else "val/") for shard in ours.shards)
    for split in ours.splits:
        assert_same_images(all_images(ours, split, cache_dir=str(tmp_path / "cache")), all_images(theirs, split))
    assert len([*(tmp_path / "cache").glob("*.tar")]) == len({*ours.shards})  # one copy for all splits of a tar
    assert verify(root) == []
    assert len(find_images([root], split="val")) == ours.splits["val"]


def test_a_changed_byte_of_an_image_is_named_by_verify_and_by_training(tmp_path: Path, tars: dict[str, dict[str, Any]]) -> None:
    index(tmp_path / "index", tars)
    dataset = Dataset.open(str(tmp_path / "index"))
    sample = dataset.split("holdout").sample(1)
    flip(Path(sample.shard), sample.offset_bytes + sample.size_bytes // 2)
    faults = [str(fault) for fault in verify(dataset.root)]
    assert faults[0].startswith(f"{sample.shard}: has sha256")  # as a shard of train
    assert faults[1] == (
        f"{sample.shard}: sample {sample.sample_id} ({sample.key!r}) has image bytes with another crc32 than in the manifest"
    )
    with pytest.raises(SampleError, match=f"sample {sample.sample_id} .*its bytes have crc32"):
        all_images(dataset, "holdout", check_shards=False)


def test_a_changed_byte_beside_the_images_fails_the_first_epoch(tmp_path: Path, tars: dict[str, dict[str, Any]]) -> None:
    index(tmp_path / "index", tars)
    dataset = Dataset.open(str(tmp_path / "index"))
    tar = Path(tars["val"]["images"]) / "000000.tar"
    flip(tar, tar.read_bytes().index(b'"labels"') + 1)
    with pytest.raises(DatasetError, match=rf"shard {tar} has sha256 .* it changed after it was built"):
        all_images(dataset, "val")
    assert [fault.file for fault in verify(dataset.root)] == [str(tar)]


def test_a_tar_that_grew_or_went_is_an_error_before_the_first_batch(tmp_path: Path, tars: dict[str, dict[str, Any]]) -> None:
    index(tmp_path / "index", tars)
    dataset = Dataset.open(str(tmp_path / "index"))
    tar = Path(tars["val"]["images"]) / "000000.tar"
    with open(tar, "ab") as file:
        file.write(bytes(512))
    with pytest.raises(DatasetError, match=rf"shard {tar} has [\d,]+ bytes, but [\d,]+ in dataset.json"):
        all_images(dataset, "val")
    tar.unlink()
    with pytest.raises(
        DatasetError, match=f"cannot open shard {tar}: .*if its tars were moved, shard the recipe with their new"
    ):
        all_images(dataset, "val")
    assert "cannot be read: no file at" in str(verify(dataset.root)[0])


def test_a_changed_object_is_not_trained_on(
    tmp_path: Path, tars: dict[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    with pytest.MonkeyPatch.context() as patch, serve(tmp_path / "tars", patch):
        index(tmp_path / "index", {split: {**tars[split], "images": f"s3://{BUCKET}/data/{split}"} for split in tars})
        dataset = Dataset.open(str(tmp_path / "index"))
        sample = dataset.split("val").sample(0)
        tar = tmp_path / "tars/val/000000.tar"
        flip(tar, sample.offset_bytes + 100)
        storage.write_bytes(sample.shard, tar.read_bytes())
        assert "another crc32" in str(verify(dataset.root)[0])
        with pytest.raises(StorageError, match=r"val/000000.tar: 1 attempts failed; the last error: its body has sha256"):
            all_images(dataset, "val", cache_dir=str(tmp_path / "cache"), retries=0)


def test_two_splits_share_a_tar_that_one_job_reads(tmp_path: Path, tars: dict[str, dict[str, Any]]) -> None:
    index(tmp_path / "index", tars)
    dataset = Dataset.open(str(tmp_path / "index"))
    train, holdout = dataset.split("train"), dataset.split("holdout")
    assert {*holdout.shards} <= {*train.shards}
    assert {*train.sample_ids_N.tolist()} & {*holdout.sample_ids_N.tolist()} == set()
    assert len(train) + len(holdout) == 24
    for split in (train, holdout):
        for place, name in enumerate(split.shards):
            assert split.shards.sha256(place) == hashlib.sha256(Path(name).read_bytes()).hexdigest()
        for sample in split.all_samples():
            assert Path(sample.shard).read_bytes()[sample.offset_bytes :][:2] == b"\xff\xd8"


def test_tars_below_the_dataset_move_with_it_and_give_the_same_fingerprint(
    tmp_path: Path, tars: dict[str, dict[str, Any]]
) -> None:
    elsewhere = index(tmp_path / "index", tars).facts["fingerprint"]
    assert index(tmp_path / "tars", tars).facts["fingerprint"] == elsewhere
    shutil.move(tmp_path / "tars", tmp_path / "moved")
    dataset = Dataset.open(str(tmp_path / "moved"))
    assert dataset.split("val").shards[0] == "val/000000.tar"
    assert len(all_images(dataset, "val")) == 8
    assert verify(dataset.root) == []


def test_the_fingerprint_changes_with_the_labels_that_are_read(tmp_path: Path) -> None:
    members = [
        (f"{number}.{suffix}", content)
        for number in range(1, 7)
        for suffix, content in (("jpg", jpeg_of(number)), ("json", json.dumps({"a": number % 2, "b": number % 3 % 2}).encode()))
    ]
    write_tar(tmp_path / "0.tar", members)
    splits = [{"train": {"format": "webdataset", "images": str(tmp_path / "0.tar"), "label": label}} for label in "ab"]
    found = [index(tmp_path / f"index{number}", some, holdout=None).facts for number, some in enumerate(splits)]
    assert found[0]["label_space_fingerprint"] == found[1]["label_space_fingerprint"]
    assert found[0]["fingerprint"] != found[1]["fingerprint"]


def test_samples_without_an_image_or_a_label_are_counted_and_broken_ones_rejected(tmp_path: Path) -> None:
    members = [
        ("1.jpg", jpeg_of(1)),
        ("1.cls", b"cat"),
        ("2.json", b"{}"),
        ("3.jpg", jpeg_of(3)),
        ("4.jpg", jpeg_of(4)[:-300]),
        ("4.cls", b"dog"),
    ]
    write_tar(tmp_path / "0.tar", members)
    splits = {"train": {"format": "webdataset", "images": str(tmp_path / "0.tar")}}
    with pytest.raises(SourceError, match=r"1 image cannot become samples .* 0.tar/4.jpg does not decode"):
        index(tmp_path / "index", splits, holdout=None)
    facts = index(tmp_path / "index", splits, holdout=None, allow_rejects=1).facts
    assert facts["splits"] == {"train": 1}
    assert facts["dropped"] == {"train": {"a sample without an image": 1, "no label is stated, present or absent": 1}}
    assert facts["rejected"] == 1
    assert verify(str(tmp_path / "index")) == []


def test_a_stopped_index_is_continued_and_a_tar_that_changed_is_read_again(
    tmp_path: Path, tars: dict[str, dict[str, Any]]
) -> None:
    def stop_after_two(write: Callable[[ShardJob], BuiltShard], jobs: Sequence[ShardJob]) -> Iterator[BuiltShard]:
        yield from map(write, jobs[:2])
        raise KeyboardInterrupt

    whole = index(tmp_path / "whole", tars).facts
    recipe = Recipe.parse({**whole["recipe"], "target": str(tmp_path / "stopped")})
    with pytest.raises(KeyboardInterrupt):
        build(recipe, run_tasks=stop_after_two)
    with open(Path(tars["train"]["images"]) / "000001.tar", "ab") as file:
        file.write(bytes(512))
    summary = build(recipe, run_tasks=in_process)
    assert summary.shards_continued == 1
    assert summary.facts["splits"] == whole["splits"]
    assert verify(str(tmp_path / "stopped")) == []


def test_a_report_without_a_sha256_is_not_taken_for_one_that_must_have_it(
    tmp_path: Path, tars: dict[str, dict[str, Any]]
) -> None:
    recipe = Recipe.parse({"name": "x", "splits": {"train": {**tars["train"], "copy": False}}, "target": str(tmp_path)})
    source = read_source(recipe)
    shard = plan(source.images, recipe)[0]
    assert shard.takes_sha256
    job = ShardJob(shard, recipe.root, recipe.splits["train"].images, source.label_space, recipe.check, recipe.encode)
    assert replace(job, plan=replace(shard, takes_sha256=False)).fingerprint != job.fingerprint


def test_no_tar_of_others_is_ever_written_over_or_removed(tmp_path: Path, pictures: dict[str, Pictures]) -> None:
    source = by_shard_writer(tmp_path / "here", pictures["train"])
    for number in range(3):
        (tmp_path / f"here/{number:06d}.tar").rename(tmp_path / f"here/train-{number:06d}.tar")
    before = files_in(tmp_path / "here")

    def stop_at_once(write: Callable[[ShardJob], BuiltShard], jobs: Sequence[ShardJob]) -> Iterator[BuiltShard]:
        yield write(jobs[0])
        raise KeyboardInterrupt

    recipe = {"name": "x", "splits": {"train": {**source, "copy": False}}, "target": str(tmp_path / "here")}
    with pytest.raises(KeyboardInterrupt):
        build(Recipe.parse({**recipe, "holdout": {"fraction": 0.5}}), run_tasks=stop_at_once)
    build(Recipe.parse({**recipe, "holdout": None}), run_tasks=in_process)
    after = files_in(tmp_path / "here")
    assert {name: after[name] for name in before} == before
    assert verify(str(tmp_path / "here")) == []
    with pytest.raises(DatasetError, match=r"remove its dataset.json to build it again, or give another target"):
        build(Recipe.parse({**recipe, "holdout": {"fraction": 0.5}}), run_tasks=in_process)


def test_encode_and_in_place_exclude_one_another(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"splits.train has copy: false, which leaves images as they are, and encode writes"):
        index(tmp_path, {"train": {"format": "webdataset", "images": "x"}}, encode={"quality": 80})


def test_a_packed_tar_beside_others_is_named_and_not_left_out(tmp_path: Path, tars: dict[str, dict[str, Any]]) -> None:
    (Path(tars["train"]["images"]) / "000009.tar.gz").write_bytes(b"\x1f\x8b" + bytes(100))
    with pytest.raises(SourceError, match=r"000009.tar.gz is packed with gzip, .*; unpack it and give the .tar"):
        index(tmp_path / "index", tars)


def test_splits_copied_and_in_place_make_one_dataset(tmp_path: Path, tars: dict[str, dict[str, Any]]) -> None:
    splits = {"train": {**tars["train"], "copy": False}, "val": tars["val"]}
    recipe = {"name": "mixed", "splits": splits, "target": str(tmp_path / "mixed"), "holdout": None, "keep_unlabelled": True}
    facts = build(Recipe.parse(recipe), run_tasks=in_process).facts
    assert facts["in_place"] == ["train"]
    assert [shard["name"] for shard in facts["shards"] if shard["split"] == "val"] == ["val-000000.tar"]
    dataset = Dataset.open(str(tmp_path / "mixed"))
    assert len(all_images(dataset, "train")) == 24
    assert len(all_images(dataset, "val")) == 8
    assert verify(dataset.root) == []


def test_the_same_keys_in_tars_of_the_same_name_are_different_samples(tmp_path: Path, pictures: dict[str, Pictures]) -> None:
    for folder in ("a", "b"):
        by_shard_writer(tmp_path / "tars" / folder, pictures["val"])
    index(tmp_path / "index", {"train": {"format": "webdataset", "images": str(tmp_path / "tars")}}, holdout=None)
    manifest = Dataset.open(str(tmp_path / "index")).split("train")
    assert len(manifest) == len({*manifest.keys}) == 16
    assert manifest.keys[0] == "a/000000.tar/000101"
    images = find_images([manifest.root], split="train")
    assert len({image.name for image in images}) == 16


def test_tars_of_any_size_are_visited_once_each(tmp_path: Path) -> None:
    for tar, count in enumerate((40, 1, 1, 3)):
        members = [
            member
            for number in range(count)
            for member in ((f"{tar}{number:03d}.jpg", jpeg_of(number)), (f"{tar}{number:03d}.cls", b"cat"))
        ]
        write_tar(tmp_path / f"{tar}.tar", members)
    index(tmp_path / "index", {"train": {"format": "webdataset", "images": str(tmp_path / "*.tar")}}, holdout=None)
    dataset = Dataset.open(str(tmp_path / "index"))
    assert dataset.split("train").samples_per_shard().tolist() == [40, 1, 1, 3]
    rows = all_batches(dataset.split("train").samples_per_shard(), seed=0, epoch=0, lanes=3, window=2, global_batch=9)
    assert sorted(rows.ravel().tolist()) == list(range(45))
    assert np.array_equal(np.sort(dataset.split("train").sample_ids_N), np.sort([*all_images(dataset, "train")]))


def test_shard_and_inspect_say_where_the_images_lie(
    tmp_path: Path, tars: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "on_ray", lambda: building.in_process)
    recipe = {"name": "x", "splits": {s: {**tars[s], "copy": False} for s in tars}, "target": str(tmp_path / "index")}
    (tmp_path / "x.yaml").write_text(Recipe.parse(recipe).to_yaml())
    size_mb = sum(path.stat().st_size for path in (tmp_path / "tars").rglob("*.tar")) / 1e6
    folders = f"{tmp_path}/tars/train, {tmp_path}/tars/val"
    line = f"images of train, holdout, val are read in place, not copied: 4 tars, {size_mb:.1f} MB, in {folders}"
    runner = CliRunner()
    shown = runner.invoke(app, ["shard", str(tmp_path / "x.yaml")], env={"COLUMNS": "400"}).output
    assert "32 images (train 2" in shown
    assert "shards" not in shown.split("images of train")[0]
    assert "checked 32 images in" in shown
    assert line in shown
    assert line in runner.invoke(app, ["inspect", str(tmp_path / "index")], env={"COLUMNS": "400"}).output
    found = inspect(str(tmp_path / "index")).in_place
    assert found is not None
    assert (found.tars, found.folders) == (-(-24 // PER_TAR) + 1, folders.split(", "))
