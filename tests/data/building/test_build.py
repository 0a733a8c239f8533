"""From a recipe to a committed dataset: round trips, stops, rejects, full disks."""

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import webdataset

from rayprob.data.building import build as building
from rayprob.data.building.build import BuildProgress, Summary, build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.building.shard import BuiltShard, ShardJob
from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import DatasetError, RunError, SourceError, StorageError
from tests.data.small_source import FIRST_ID, Source, run_script


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read_with_webdataset(folder: Path, facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    urls = [str(folder / shard["name"]) for shard in facts["shards"]]
    samples = {}
    for sample in webdataset.WebDataset(urls, shardshuffle=False, empty_check=False):
        assert sample["__key__"] not in samples
        samples[sample["__key__"]] = sample
    return samples


def test_webdataset_alone_reads_every_key_label_and_byte_of_the_real_sample(shared: Path, tmp_path: Path) -> None:
    shipped = Recipe.read(Path(__file__).resolve().parents[3] / "shards" / "coco-sample.yaml")
    splits = {split: {"images": str(shared / "coco-sample" / f"{split}2014")} for split in shipped.splits}
    for split, source in splits.items():
        source["annotations"] = str(shared / "coco-sample" / "annotations" / f"instances_{split}2014.json")
    recipe = Recipe.parse({**shipped.model_dump(exclude={"splits"}), "splits": splits, "target": str(tmp_path)})
    summary = build(recipe, run_tasks=in_process)
    found = read_with_webdataset(tmp_path, summary.facts)
    expected = 0
    for split, source in splits.items():
        content = json.loads(Path(source["annotations"]).read_text())
        name_of = {category["id"]: category["name"] for category in content["categories"]}
        labels_of: dict[int, set[int]] = {}
        for box in content["annotations"]:
            labels_of.setdefault(box["image_id"], set()).add(box["category_id"])
        for entry in content["images"]:
            key = f"{entry['id']:012d}"
            if entry["id"] not in labels_of:
                assert key not in found
                continue
            expected += 1
            assert found[key]["jpg"] == (Path(source["images"]) / entry["file_name"]).read_bytes()
            beside = json.loads(found[key]["json"])
            assert beside["labels"] == [name_of[category] for category in sorted(labels_of[entry["id"]])]
            assert (beside["height_px"], beside["width_px"]) == (entry["height"], entry["width"])
            assert beside["sample_id"] == entry["id"]
            assert beside["unknown_labels"] == []
        assert split in summary.facts["splits"]
    assert len(found) == expected == 414


def test_the_manifest_states_what_the_annotations_state(source: Source) -> None:
    def unsure(content: dict[str, Any]) -> None:
        content["images"][1]["unknown_category_ids"] = [90]

    source.change("val", unsure)
    source.build()
    dataset = Dataset.open(str(source.built))
    assert dataset.splits == dataset.facts["splits"]
    assert list(dataset.splits) == ["train", "holdout", "val"]
    for split in dataset.splits:
        manifest = dataset.split(split)
        truth = source.annotations("val" if split == "val" else "train")
        targets_NL, known_NL = manifest.targets(), manifest.known()
        for row, sample_id in enumerate(manifest.sample_ids_N.tolist()):
            boxes = [box for box in truth["annotations"] if box["image_id"] == sample_id]
            present = {box["category_id"] for box in boxes}
            assert targets_NL[row].tolist() == [category in present for category in dataset.label_space.category_ids]
            largest = {c: max(box["area"] for box in boxes if box["category_id"] == c) for c in sorted(present)}
            assert manifest.label_areas_px2[row].tolist() == list(largest.values())
            assert known_NL[row].tolist() == [True, True, True, sample_id != 901]
    assert set(dataset.split("val").sample_ids_N.tolist()) == set(range(901, 912))


def test_the_same_recipe_gives_the_same_files_in_any_order_of_tasks(source: Source) -> None:
    def backwards(write: Callable[[ShardJob], BuiltShard], jobs: Sequence[ShardJob]) -> Iterator[BuiltShard]:
        return map(write, reversed(jobs))

    source.build()
    first = files(source.built)
    for name in first:
        (source.built / name).unlink()
    build(source.recipe(), run_tasks=backwards)
    assert files(source.built) == first


def test_progress_counts_up_to_all_images(source: Source) -> None:
    seen: list[BuildProgress] = []
    build(source.recipe(), run_tasks=in_process, on_progress=seen.append)
    assert [at.shards for at in seen] == list(range(seen[-1].num_shards + 1))
    assert seen[-1].images == seen[-1].num_images == 50


def test_nothing_temporary_stays(source: Source) -> None:
    summary = source.build()
    shards = {shard["name"] for shard in summary.facts["shards"]}
    assert set(files(source.built)) == shards | {"manifest.parquet", "labels.json", "rejected.jsonl", "dataset.json"}
    assert not (source.built / ".build").exists()


def test_a_second_build_does_nothing(source: Source) -> None:
    first = source.build()
    before = files(source.built)
    second = build(source.recipe(), run_tasks=forbidden)
    assert second.already_built
    assert second.facts == first.facts
    assert files(source.built) == before


def test_a_cluster_that_does_not_answer_is_noticed_before_the_source_is_read(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "require_cluster", lambda: (_ for _ in ()).throw(RunError("no cluster answers")))
    monkeypatch.setattr(building, "read_source", lambda recipe: pytest.fail("read"))
    with pytest.raises(RunError, match="no cluster answers"):
        build(source.recipe(), run_tasks=forbidden)
    monkeypatch.undo()
    source.build()
    monkeypatch.setattr(building, "require_cluster", lambda: pytest.fail("asked for"))
    assert build(source.recipe(), run_tasks=forbidden).already_built


def forbidden(write: Callable[[ShardJob], BuiltShard], jobs: Sequence[ShardJob]) -> Iterator[BuiltShard]:
    raise AssertionError("no task should run")


def test_another_recipe_in_the_same_place_is_refused_by_its_keys(source: Source) -> None:
    source.build()
    with pytest.raises(
        DatasetError, match=r"was built from another recipe: holdout.fraction: 0.2 -> 0.5; seed: 0 -> 3; remove"
    ):
        source.build(seed=3, holdout={"fraction": 0.5})


class Stop(Exception):
    """What interrupts a build in a test."""


def stopping_after(shards: int, how: BaseException) -> building.RunTasks:
    def run_tasks(write: Callable[[ShardJob], BuiltShard], jobs: Sequence[ShardJob]) -> Iterator[BuiltShard]:
        for job in jobs[:shards]:
            yield write(job)
        raise how

    return run_tasks


def test_a_stopped_build_says_how_to_go_on_and_does(source: Source) -> None:
    source.build()
    undisturbed = files(source.built)
    for name in undisturbed:
        (source.built / name).unlink()
    with pytest.raises(KeyboardInterrupt, match="stopped; 3 of 7 shards are done; the same command continues"):
        build(source.recipe(), run_tasks=stopping_after(3, KeyboardInterrupt()))
    with pytest.raises(DatasetError, match=r"is not a finished dataset: .*to finish a stopped build"):
        Dataset.open(str(source.built))
    summary = source.build()
    assert summary.shards_continued == 3
    assert summary.images_written < 50
    assert files(source.built) == undisturbed


def test_a_changed_recipe_starts_an_unfinished_build_anew(source: Source) -> None:
    with pytest.raises(Stop):
        build(source.recipe(max_shard_samples=4), run_tasks=stopping_after(9, Stop()))
    summary = source.build()
    assert summary.shards_continued == 0
    assert {path.name for path in source.built.glob("*.tar")} == {shard["name"] for shard in summary.facts["shards"]}


def test_a_shard_that_was_touched_while_stopped_is_written_again(source: Source) -> None:
    with pytest.raises(Stop):
        build(source.recipe(), run_tasks=stopping_after(4, Stop()))
    (source.built / "train-000000.tar").write_bytes(b"cut")
    (source.built / "train-000001.tar").unlink()
    assert source.build().shards_continued == 2


def test_leftovers_of_a_killed_build_are_removed(source: Source) -> None:
    for name in ("train-000000.tar.0123abcd.tmp", "dataset.json.0123abcd.tmp", ".build/val-000000.tar.parquet.0123abcd.tmp"):
        path = source.built / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    (source.built / "notes.tmp").write_bytes(b"somebody's")
    source.build()
    assert [name for name in files(source.built) if name.endswith(".tmp")] == ["notes.tmp"]


SLOW = """
import time
from rayprob.data.building.build import build
def slow(write, jobs):
    for place, job in enumerate(jobs):
        print("next", flush=True)
        if place == 2:
            time.sleep(3600)
        yield write(job)
try:
    build(source.recipe(), run_tasks=slow)
except KeyboardInterrupt as stopped:
    print(stopped)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_build_goes_on_after_a_signal(source: Source, how: signal.Signals) -> None:
    process = run_script(SLOW, source)
    assert process.stdout
    for _ in range(3):
        assert process.stdout.readline() == "next\n"
    process.send_signal(how)
    rest, errors = process.communicate(timeout=240)
    if how == signal.SIGINT:
        assert "of 7 shards are done; the same command continues" in rest, errors
    assert source.build().shards_continued == 2
    stopped = files(source.built)
    for name in stopped:
        (source.built / name).unlink()
    source.build()
    assert files(source.built) == stopped


LIMITED = """
import resource
from rayprob.data.building.build import build, in_process
from rayprob.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    build(source.recipe(), run_tasks=in_process)
except StorageError as error:
    print(error)
"""


def test_a_file_that_cannot_be_written_whole_is_not_written_at_all(source: Source) -> None:
    printed, errors = run_script(LIMITED, source).communicate(timeout=240)
    assert "train-000000.tar: File too large; make room or choose another target, then the same command continues" in printed, (
        errors
    )
    assert files(source.built) == {}
    assert source.build().facts["splits"] == {"train": 31, "holdout": 8, "val": 11}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds open files by Linux's /proc")
@pytest.mark.parametrize("name", ["train-000002.tar", "train-000002.tar.parquet", "manifest.parquet", "dataset.json"])
def test_a_full_disk_is_named_and_leaves_nothing_half_written(
    source: Source, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def no_room(descriptor: int) -> None:
        if f"/{name}." in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_room)
        with pytest.raises(StorageError, match=rf"cannot write .*{name}: No space left on device; make room or choose another"):
            source.build()
    assert not [path for path in files(source.built) if path.endswith((".tmp", "dataset.json", name))]
    assert source.build().shards_continued >= 2


def test_too_little_room_is_found_before_anything_is_written(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr(building.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match=r"built needs 0.0 GB more and its disk has 0.0 GB free; make room or choose"):
        build(source.recipe(), run_tasks=forbidden)


def spoil(source: Source, *sample_ids: int) -> None:
    for sample_id in sample_ids:
        source.image(sample_id).write_bytes(source.image(sample_id).read_bytes()[:-50])


def test_rejects_beyond_the_allowance_fail_with_count_reasons_and_list(source: Source) -> None:
    spoil(source, 105, 106, 902, 903)
    source.image(904).unlink()
    with pytest.raises(SourceError) as caught:
        source.build(allow_rejects=4)
    message = str(caught.value)
    assert message.startswith("5 images cannot become samples and allow_rejects is 4: COCO_val2014_000000000904.jpg missing")
    assert "does not decode" in message
    assert "built/rejected.jsonl; repair them, or set allow_rejects, and run the same command again" in message
    listed = [json.loads(line) for line in (source.built / "rejected.jsonl").read_text().splitlines()]
    assert {(reject["sample_id"], reject["split"] == "val") for reject in listed} == {
        (105, False),
        (106, False),
        (902, True),
        (903, True),
        (904, True),
    }
    assert not (source.built / "dataset.json").exists()


def test_missing_images_fail_before_anything_is_written(source: Source) -> None:
    source.image(904).unlink()
    with pytest.raises(
        SourceError, match=r"1 image cannot become samples and allow_rejects is 0: COCO_val2014_000000000904.jpg missing"
    ):
        build(source.recipe(), run_tasks=forbidden)
    assert set(files(source.built)) == {"rejected.jsonl"}


def test_mended_images_are_taken_by_the_same_command(source: Source) -> None:
    whole = source.image(105).read_bytes()
    source.image(105).write_bytes(whole[:-50] + bytes(50))  # of the same size, so that nothing but the bytes tells
    with pytest.raises(SourceError, match="1 image cannot become samples"):
        source.build()
    source.image(105).write_bytes(whole)
    summary = source.build()
    assert summary.shards_continued == 6
    assert summary.facts["rejected"] == 0
    assert (source.built / "rejected.jsonl").read_text() == ""


def test_allowed_rejects_are_counted_and_left_out(source: Source) -> None:
    spoil(source, 105, 902)
    facts = source.build(allow_rejects=2).facts
    assert facts["rejected"] == 2
    assert sum(facts["splits"].values()) == 48
    dataset = Dataset.open(str(source.built))
    ids = {sample_id for split in dataset.splits for sample_id in dataset.split(split).sample_ids_N.tolist()}
    assert not ids & {105, 902}


def test_a_shard_of_nothing_but_rejects_is_left_out(source: Source) -> None:
    spoil(source, 905)
    facts = source.build(allow_rejects=1, max_shard_samples=1).facts
    assert sum(facts["splits"].values()) == 49
    assert all(shard["samples"] == 1 for shard in facts["shards"])
    assert len(list(source.built.glob("*.tar"))) == 49


def test_a_split_of_nothing_but_rejects_is_refused(source: Source) -> None:
    spoil(source, *range(FIRST_ID["val"], FIRST_ID["val"] + 12))
    with pytest.raises(SourceError, match="split val is empty: every image of it was rejected"):
        source.build(allow_rejects=20)
    assert len((source.built / "rejected.jsonl").read_text().splitlines()) == 11


def test_shards_written_to_another_machines_disk_are_noticed(source: Source) -> None:
    def elsewhere(write: Callable[[ShardJob], BuiltShard], jobs: Sequence[ShardJob]) -> Iterator[BuiltShard]:
        for job in jobs:
            facts = write(job)
            Path(job.report).unlink()
            yield facts

    with pytest.raises(DatasetError, match=r"7 of 7 shards were written, but not into .*built as this machine sees it"):
        build(source.recipe(), run_tasks=elsewhere)


def test_relative_paths_count_from_the_working_folder(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.folder)
    splits = {split: {"images": f"{split}2014", "annotations": f"instances_{split}.json"} for split in FIRST_ID}
    summary: Summary = source.build(splits=splits, target=None)
    assert summary.root == "shards/small"
    assert (source.folder / "shards" / "small" / "dataset.json").is_file()


def test_a_build_does_not_import_pandas(source: Source) -> None:
    process = run_script("import sys\nsource.build()\nprint('pandas' in sys.modules)\n", source)
    printed, errors = process.communicate(timeout=240)
    # pyarrow imports it with the first pa.array, pa.scalar or read_table: half a second in each process that writes shards.
    assert printed == "False\n", errors
