"""Images with the same bytes: found across and within splits, listed, dropped where asked for, and never by checksum alone."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rayprob.cli.show_data import show_summary
from rayprob.cli.terminal import out
from rayprob.data.building import duplicates
from rayprob.data.building.build import Summary, build, in_process
from rayprob.data.building.duplicates import evaluated_last
from rayprob.data.building.recipe import Recipe
from rayprob.data.building.shard import BuiltShard, ShardJob
from rayprob.data.manifest.dataset import Dataset
from rayprob.data.manifest.facts import read_facts
from rayprob.data.verify import verify
from rayprob.errors import SourceError
from tests.data.building.test_build import files
from tests.data.small_source import Source

# In the small source, ids 100 to 139 are train and 900 to 911 val; 100 and 900 have no label.
KEPT = {104: 901, 105: 901, 107: 106}


def with_copies(source: Source) -> Source:
    for copy, kept in KEPT.items():
        shutil.copy(source.image(kept), source.image(copy))
    return source


def listed(source: Source) -> dict[int, dict[str, Any]]:
    lines = (source.built / "duplicates.jsonl").read_text().splitlines()
    return {line["sample_id"]: line for line in map(json.loads, lines)}


def ids_in(root: Path) -> set[int]:
    dataset = Dataset.open(str(root))
    return {sample_id for split in dataset.splits for sample_id in dataset.split(split).sample_ids_N.tolist()}


def test_copies_are_reported_with_counts_and_examples_and_stay(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    summary = with_copies(source).build(holdout=None)
    assert summary.facts["duplicates"]["images"] == 3
    assert summary.facts["duplicates"]["dropped"] == 0
    assert summary.facts["duplicates"]["splits"] == [
        {"split": "train", "of": "train", "images": 1},
        {"split": "train", "of": "val", "images": 2},
    ]
    assert {copy: line["kept_id"] for copy, line in listed(source).items()} == KEPT
    assert listed(source)[107]["kept_file_name"] == source.image(106).name
    assert "3 images have the same bytes as another one, 2 of them as one in another split: " in caplog.text
    assert f"{source.image(104).name} (train) = {source.image(901).name} (val)" in caplog.text
    assert KEPT.keys() <= ids_in(source.built)


def test_without_copies_nothing_is_written_or_said(built_once: Source) -> None:
    assert "duplicates" not in Dataset.open(str(built_once.built)).facts
    assert not (built_once.built / "duplicates.jsonl").exists()


def test_dropping_copies_gives_the_shards_of_a_source_without_them(source: Source) -> None:
    summary = with_copies(source).build(holdout=None, duplicates="drop", max_shard_samples=1000)
    assert ids_in(source.built) == {*range(101, 140), *range(901, 912)} - KEPT.keys()
    assert summary.facts["splits"] == {"train": 36, "val": 11}
    assert {copy for copy, line in listed(source).items() if line["dropped"]} == KEPT.keys()
    assert verify(str(source.built)) == []
    tars = {name: content for name, content in files(source.built).items() if name.endswith(".tar")}

    def without(content: dict[str, Any]) -> None:
        content["images"] = [entry for entry in content["images"] if entry["id"] not in KEPT]
        content["annotations"] = [box for box in content["annotations"] if box["image_id"] not in KEPT]

    source.change("train", without)
    shutil.rmtree(source.built)
    clean = source.build(holdout=None, max_shard_samples=1000)
    assert {name: content for name, content in files(source.built).items() if name.endswith(".tar")} == tars
    assert clean.facts["fingerprint"] == summary.facts["fingerprint"]


def test_a_stop_while_copies_are_dropped_is_continued(source: Source) -> None:
    recipe = with_copies(source).recipe(holdout=None, duplicates="drop", max_shard_samples=4)
    undisturbed = build(recipe, run_tasks=in_process).facts
    shutil.rmtree(source.built)
    calls: list[list[str]] = []

    def stopping(write: Callable[[ShardJob], BuiltShard], jobs: Sequence[ShardJob]) -> Iterator[BuiltShard]:
        calls.append([job.plan.name for job in jobs])
        for job in jobs:
            yield write(job)
            if len(calls) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="the same command continues"):
        build(recipe, run_tasks=stopping)
    written: list[str] = []

    def noting(write: Callable[[ShardJob], BuiltShard], jobs: Sequence[ShardJob]) -> Iterator[BuiltShard]:
        written.extend(job.plan.name for job in jobs)
        return map(write, jobs)

    assert build(recipe, run_tasks=noting).facts == undisturbed
    # The first shard with copies was finished before the stop.
    assert sorted(written) == sorted(calls[1][1:])


def test_another_choice_after_a_stop_does_not_take_shards_that_lack_copies(source: Source) -> None:
    recipe = with_copies(source).recipe(holdout=None, duplicates="drop", max_shard_samples=4)
    calls = 0

    def stopping(write: Callable[[ShardJob], BuiltShard], jobs: Sequence[ShardJob]) -> Iterator[BuiltShard]:
        nonlocal calls
        calls += 1
        yield from map(write, jobs)
        if calls == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(recipe, run_tasks=stopping)
    source.build(holdout=None, max_shard_samples=4)
    assert KEPT.keys() <= ids_in(source.built)


def test_copies_may_fail_the_build_which_goes_on_once_they_are_gone(source: Source) -> None:
    with_copies(source)
    with pytest.raises(
        SourceError, match=r"3 images have the same bytes .*; remove them from the source, or write duplicates: d"
    ):
        source.build(holdout=None, duplicates="fail")
    assert listed(source).keys() == KEPT.keys()
    for copy in KEPT:
        source.image(copy).write_bytes(source.image(120 + copy % 10).read_bytes() + b"\xff\xd9")
    summary = source.build(holdout=None, duplicates="fail")
    assert "duplicates" not in summary.facts
    assert not (source.built / "duplicates.jsonl").exists()


def test_copies_that_change_when_encoded_are_found_all_the_same(source: Source) -> None:
    summary = with_copies(source).build(holdout=None, encode={"short_side_px": 16})
    assert summary.facts["duplicates"]["images"] == 3


def test_images_that_agree_in_checksum_and_size_alone_are_no_copies(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_alike(table: pa.Table) -> Any:
        return np.zeros(len(table), dtype=np.uint64)

    monkeypatch.setattr(duplicates, "_keys", all_alike)
    with_copies(source).build(holdout=None)
    assert listed(source).keys() == KEPT.keys()


def test_a_split_of_nothing_but_copies_is_refused(source: Source) -> None:
    for sample_id in range(101, 140):
        shutil.copy(source.image(901 + sample_id % 10), source.image(sample_id))
    with pytest.raises(SourceError, match=r"split train is empty: every image of it was rejected, or dropped as a copy"):
        source.build(holdout=None, duplicates="drop")


def test_the_copy_that_stays_is_in_the_split_that_is_furthest_from_training() -> None:
    split = {"images": "a", "annotations": "b"}

    def order(names: list[str], **changes: Any) -> list[str]:
        return evaluated_last(Recipe.parse({"name": "x", "splits": dict.fromkeys(names, split), **changes}))

    assert order(["val", "train", "test"]) == ["train", "holdout", "val", "test"]
    assert order(["val", "train"], holdout=None) == ["train", "val"]
    assert order(["dev", "all"], holdout={"of": "all"}) == ["all", "holdout", "dev"]
    divide = {"of": "all", "into": {"val": 0.5, "train": 0.5}}
    assert order(["all"], divide=divide) == ["train", "holdout", "val"]


def test_the_summary_says_what_the_splits_were_made_by_and_which_images_are_copies(source: Source) -> None:
    splits = source.recipe().model_dump()["splits"]
    splits["train"]["group_pattern"] = r"_(\d+)\."
    divide = {"of": "val", "into": {"val": 0.5, "test": 0.5}, "by": "stratified"}
    summary = with_copies(source).build(splits=splits, divide=divide, duplicates="drop")
    with out.capture() as printed:
        show_summary(out, summary)
    said = printed.get()
    assert "  val divided into val 0.5, test 0.5, stratified by labels\n" in said
    held, rest = summary.facts["splits"]["holdout"], summary.facts["splits"]["train"]
    assert f"  holdout: {held} of {held + rest} images of train (0.2 asked), by a hash of sample ids or groups, which" in said
    assert r"  groups stay in one split: train by _(\d+)\." in said
    assert "dropped 3 images with the same bytes as another (" in said
    assert f"listed in {source.built}/duplicates.jsonl" in said.replace("\n", "")


def test_the_summary_has_the_share_that_a_holdout_has_if_it_is_far_from_the_one_asked_for(built_once: Source) -> None:
    facts = read_facts(str(built_once.built))
    held, rest = facts["splits"]["holdout"], facts["splits"]["train"]

    def said(**holdout: Any) -> str:
        recipe = {**facts["recipe"], "holdout": {**facts["recipe"]["holdout"], **holdout}}
        with out.capture() as printed:
            show_summary(out, Summary(str(built_once.built), {**facts, "recipe": recipe}))
        return printed.get()

    share = held / (held + rest)
    assert f"  holdout: {share + 0.02:.3g} of train, by a hash of sample ids or groups\n" in said(fraction=share + 0.02)
    actual = f"  holdout: {held} of {held + rest} images of train (0.5 asked), "
    assert f"{actual}by a hash of sample ids or groups, which is uneven for few of them; " in said(fraction=0.5)
    assert f"{actual}stratified by labels\n" in said(fraction=0.5, by="stratified")
