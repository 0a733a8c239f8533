"""A built dataset grows by what its source has gained: new files only, old versions whole, and no split of a sample changes."""

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.data.building import manifest_files
from rayprob.data.building.build import Summary, build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.inspect import inspect
from rayprob.data.manifest.dataset import Dataset
from rayprob.data.manifest.label_fingerprint import label_fingerprint
from rayprob.data.verify import verify
from rayprob.errors import DatasetError, SourceError, StorageError
from rayprob.files import storage
from tests.data.small_source import Source, draw_jpeg
from tests.data.sources.test_same_labels import Pictures, pictures
from tests.data.tars import by_shard_writer

__all__ = ["pictures"]  # a fixture
NEW = range(300, 315)


def gain(source: Source, ids: range = NEW, labels: tuple[int, ...] = (2, 7)) -> None:
    """Add images to the train split of a source, of two labels in turns and together."""

    def edit(content: dict[str, Any]) -> None:
        for place, sample_id in enumerate(ids):
            path = source.image(sample_id)
            path.write_bytes(draw_jpeg(sample_id, 40 + place, 50))
            content["images"].append({"id": sample_id, "file_name": path.name, "height": 40 + place, "width": 50})
            some = labels if place % 3 == 2 else labels[place % 3 : place % 3 + 1]
            box = {"image_id": sample_id, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
            content["annotations"] += [{**box, "id": 1000 * sample_id + one, "category_id": one} for one in some]

    source.change("train", edit)


def grow(source: Source, **changes: Any) -> Summary:
    return build(source.recipe(**changes), run_tasks=in_process, grow=True)


def states(folder: Path) -> dict[str, tuple[str, int]]:
    """Return the digest and time of change of each file below a folder."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def ids_by_split(root: str) -> dict[str, set[int]]:
    dataset = Dataset.open(root)
    return {split: {*dataset.split(split).sample_ids_N.tolist()} for split in dataset.splits}


def rows(root: str) -> dict[int, tuple[Any, ...]]:
    """Return all that a dataset knows of each sample, its bytes included."""
    dataset = Dataset.open(root)
    found = {}
    for split in dataset.splits:
        manifest = dataset.split(split)
        for sample, targets, known in zip(manifest.all_samples(), manifest.targets(), manifest.known(), strict=True):
            content = (Path(root.partition("@")[0]) / sample.shard).read_bytes()
            image = content[sample.offset_bytes : sample.offset_bytes + sample.size_bytes]
            found[sample.sample_id] = (split, sample, targets.tolist(), known.tolist(), image)
    return found


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifests of more than 16 rows are written in parts, of 16 rows or more."""
    monkeypatch.setattr(manifest_files, "ONE_FILE_ROWS", 16)
    monkeypatch.setattr(manifest_files, "PART_ROWS", 16)


def test_only_new_shards_parts_and_dataset_json_are_written(source: Source) -> None:
    source.build()
    old = states(source.built)
    gain(source)
    summary = grow(source)
    new = states(source.built)
    assert {name for name in old if new[name] != old[name]} == {"dataset.json", "rejected.jsonl"}
    assert new["rejected.jsonl"][0] == old["rejected.jsonl"][0]
    parent = json.loads((source.built / "dataset.json").read_text())["parent"]
    assert new[parent["file"]][0] == old["dataset.json"][0]
    added = new.keys() - old.keys() - {parent["file"]}
    assert {name for name in added if name.endswith(".tar")} == {"train-000004.tar", "train-000005.tar", "holdout-000001.tar"}
    assert all(name.startswith("manifest/v2-") for name in added if not name.endswith(".tar"))
    assert (summary.images_written, summary.images_added) == (15, 15)
    assert summary.facts["splits"] == Dataset.open(str(source.built)).splits == {"train": 44, "holdout": 10, "val": 11}
    assert verify(str(source.built)) == []


@pytest.mark.usefixtures("in_parts")
def test_parts_of_versions_before_are_used_as_they_are(source: Source) -> None:
    first = source.build().facts
    assert len(first["manifest"]["sha256"]) > 3
    gain(source)
    old = states(source.built)
    facts = grow(source).facts
    assert {file for file in facts["manifest"]["files"] if file in old} == {*filter(lambda name: "manifest/" in name, old)}
    gain(source, range(400, 420))
    third = grow(source).facts
    assert {*facts["manifest"]["files"]} < {*third["manifest"]["files"]}
    changed = {name for name, state in states(source.built).items() if name in old and state != old[name]}
    assert changed == {"dataset.json", "rejected.jsonl"}
    assert verify(str(source.built)) == []


DIVIDE = {"of": "train", "into": {"train": 0.6, "dev": 0.4}}


@pytest.mark.parametrize(
    "recipe",
    [{}, {"holdout": {"fraction": 0.2, "by": "stratified"}}, {"divide": {**DIVIDE, "by": "stratified"}}, {"divide": DIVIDE}],
    ids=["hash", "stratified holdout", "stratified division", "divided by hash"],
)
def test_no_sample_changes_its_split_row_or_bytes(source: Source, recipe: dict[str, Any]) -> None:
    source.build(**recipe)
    before = rows(str(source.built))
    gain(source)
    grow(source, **recipe)
    after = rows(str(source.built))
    assert {sample_id: after[sample_id] for sample_id in before} == before
    assert after.keys() - before.keys() == {*NEW}


def test_a_grown_dataset_has_the_samples_and_labels_of_a_rebuilt_one(source: Source) -> None:
    source.build()
    gain(source)
    grow(source)
    rebuilt = source.build(target=str(source.folder / "again"))
    ours, theirs = Dataset.open(str(source.built)), Dataset.open(rebuilt.root)
    assert label_fingerprint(ours) == label_fingerprint(theirs)
    assert ours.fingerprint != theirs.fingerprint  # their samples lie in other shards
    for split in ours.splits:
        for counts, others in zip(ours.split(split).label_counts(), theirs.split(split).label_counts(), strict=True):
            assert counts.tolist() == others.tolist()


def test_each_version_opens_by_its_fingerprint(source: Source) -> None:
    fingerprints = [source.build().facts["fingerprint"]]
    versions = [rows(str(source.built))]
    for first in (300, 400):
        gain(source, range(first, first + 12))
        fingerprints.append(grow(source).facts["fingerprint"])
        versions.append(rows(str(source.built)))
    for fingerprint, version in zip(fingerprints, versions, strict=True):
        root = f"{source.built}@{fingerprint}"
        assert Dataset.open(root).fingerprint == fingerprint
        assert rows(root) == version
        assert verify(root) == []
    found = inspect(str(source.built)).versions
    assert [version.fingerprint for version in found] == fingerprints[::-1]
    assert [sum(version.splits.values()) for version in found] == [74, 62, 50]
    with pytest.raises(DatasetError, match=rf"has no version 0{{16}}; it has {', '.join(fingerprints[::-1])}, the newest"):
        Dataset.open(f"{source.built}@{'0' * 16}")
    with pytest.raises(DatasetError, match=r"is a version of a dataset; give .*, whose newest version grows"):
        source.build(target=f"{source.built}@{fingerprints[0]}")


def test_without_new_images_nothing_is_written(source: Source) -> None:
    source.build()
    old = states(source.built)
    summary = grow(source)
    assert states(source.built) == old
    assert (summary.images_added, summary.facts["fingerprint"]) == (0, Dataset.open(str(source.built)).fingerprint)


def test_growing_what_was_never_built_builds_it(source: Source) -> None:
    assert grow(source).grown is None
    assert verify(str(source.built)) == []


def test_what_the_source_states_otherwise_is_counted_named_and_left(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    source.build()
    before = rows(str(source.built))
    gain(source)
    source.image(110).unlink()

    def edit(content: dict[str, Any]) -> None:
        content["images"] = [image for image in content["images"] if image["id"] != 111]
        content["annotations"] = [box for box in content["annotations"] if box["image_id"] != 111]
        content["annotations"] += [{"id": 7, "image_id": 112, "category_id": 90, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0}]

    source.change("train", edit)
    source.image(113).write_bytes(draw_jpeg(1, 20, 20))
    grown = grow(source).grown
    assert grown is not None
    assert vars(grown) == {"vanished": 2, "other_labels": 1, "other_size": 1, "other_split": 0}
    assert "2 images of" in caplog.text
    assert "are no longer in the source, or their files are missing; they stay samples: sample 110, sample 111" in caplog.text
    assert f"1 image of {source.built} have other labels" in caplog.text
    assert source.image(112).name in caplog.text
    assert f"files of another size now; the dataset keeps the old ones: {'build a dataset of its own'}" in caplog.text
    assert {sample_id: row for sample_id, row in rows(str(source.built)).items() if sample_id in before} == before


def test_an_image_that_moved_to_another_split_of_the_source_stays(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    source.build()
    before = ids_by_split(str(source.built))
    content = source.annotations("train")
    moved = [image for image in content["images"] if image["id"] == 120]
    boxes = [box for box in content["annotations"] if box["image_id"] == 120]
    source.change("train", lambda train: train["images"].remove(moved[0]))
    source.change("train", lambda train: [train["annotations"].remove(box) for box in boxes])
    source.change("val", lambda val: val.update(images=val["images"] + moved, annotations=val["annotations"] + boxes))
    shutil.move(source.image(120), source.folder / "val2014" / source.image(120).name)
    summary = grow(source)
    assert summary.grown is not None
    assert (summary.grown.other_split, summary.images_added) == (1, 0)
    assert "1 image" in caplog.text
    assert "another split of the source now; they stay where they are" in caplog.text
    assert ids_by_split(str(source.built)) == before


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"holdout": None}, "holdout: "),
        ({"encode": {"quality": 80}}, "encode: None -> "),
        ({"keep_unlabelled": True}, "keep_unlabelled: False -> True"),
        ({"duplicates": "drop"}, "duplicates: None -> 'drop'"),
    ],
)
def test_a_recipe_that_could_change_old_samples_is_refused_by_its_key(
    built_once: Source, changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(DatasetError, match=f"cannot grow by another recipe: {key}") as refused:
        grow(built_once, **changes)
    assert "undo the change, or give another target" in str(refused.value)


def test_keys_that_leave_old_samples_alone_may_differ(source: Source) -> None:
    source.build()
    gain(source)
    moved = source.folder / "v2.json"
    shutil.move(source.annotations_file("train"), moved)
    splits = source.recipe().model_dump(mode="json")["splits"]
    splits["train"]["annotations"] = str(moved)
    with pytest.raises(DatasetError, match=r"from another recipe: splits.train.annotations: .*; use --grow to add new images"):
        source.build(splits=splits)
    grow(source, splits=splits, max_shard_samples=4, check="header", allow_rejects=3)
    dataset = Dataset.open(str(source.built))
    assert dataset.split("train").samples_per_shard().tolist()[4:] == [3, 3, 3, 4]
    assert verify(dataset.root) == []


def test_a_new_label_is_refused_and_left_out_where_labels_are_listed(source: Source) -> None:
    source.build()
    gain(source)
    source.change("train", lambda content: content["categories"].append({"id": 91, "name": "zebra"}))
    source.change("val", lambda content: content["categories"].append({"id": 91, "name": "zebra"}))
    box = {"id": 5, "image_id": 300, "category_id": 91, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 0}
    source.change("train", lambda content: content["annotations"].append(box))
    with pytest.raises(DatasetError, match=r"cannot grow by other labels .new in the source: zebra.*set labels to the 4 names"):
        grow(source)
    facts = grow(source, labels=["cat", "dog", "tram", "tree"]).facts
    assert facts["dropped"]["train"]["label 'zebra', which the recipe's list leaves out"] == 1
    assert Dataset.open(str(source.built)).label_space.category_ids == (2, 3, 7, 90)
    assert verify(str(source.built)) == []


def test_a_source_of_other_images_is_refused(source: Source, tmp_path: Path) -> None:
    source.build()
    for split, first in (("train", 5000), ("val", 6000)):

        def renumber(content: dict[str, Any], first: int = first) -> None:
            for one in (*content["images"],):
                one["id"] += first
            for box in content["annotations"]:
                box["image_id"] += first

        source.change(split, renumber)
    with pytest.raises(DatasetError, match="the source has none of the 50 images of"):
        grow(source)


def test_an_image_that_was_rejected_becomes_a_sample_once_it_is_mended(source: Source) -> None:
    content = source.image(105).read_bytes()
    source.image(105).write_bytes(content[:200])
    source.build(allow_rejects=1)
    summary = grow(source, allow_rejects=1)
    assert (summary.images_added, summary.facts["rejected"]) == (0, 1)
    assert verify(str(source.built)) == []
    source.image(105).write_bytes(content)
    summary = grow(source, allow_rejects=1)
    assert (summary.images_added, summary.facts["rejected"]) == (1, 0)
    assert verify(str(source.built)) == []


def break_new(source: Source, sample_id: int = 300) -> bytes:
    """Cut the file of an image that the source has gained; return it whole."""
    gain(source, range(sample_id, sample_id + 1))
    content = source.image(sample_id).read_bytes()
    source.image(sample_id).write_bytes(content[:200])
    return content


def test_new_rejects_that_add_nothing_are_listed_apart(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    source.image(105).write_bytes(source.image(105).read_bytes()[:200])
    source.build(allow_rejects=2)
    old = states(source.built)
    content = break_new(source)
    summary = grow(source, allow_rejects=2)
    apart = source.built / "not-added-rejected.jsonl"
    assert states(source.built) == {**old, apart.name: states(source.built)[apart.name]}
    assert (summary.images_added, summary.facts["rejected"]) == (0, 1)
    assert [json.loads(line)["sample_id"] for line in apart.read_text().splitlines()] == [300]
    assert f"1 new image cannot become samples: {source.image(300).name}" in caplog.text
    with pytest.raises(SourceError, match=rf"2 images cannot become samples .*all of them: {apart};"):
        grow(source, allow_rejects=1)
    assert {name: state for name, state in states(source.built).items() if name in old} == old
    assert len(apart.read_text().splitlines()) == 2
    source.image(300).write_bytes(content)
    assert (facts := grow(source, allow_rejects=1).facts)["rejected"] == 1
    assert [json.loads(line)["sample_id"] for line in (source.built / "rejected.jsonl").read_text().splitlines()] == [105]
    assert facts["splits"]["train"] + facts["splits"]["holdout"] == 39
    assert not apart.exists()


def test_copies_that_add_nothing_are_listed_apart(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(source.image(106), source.image(107))
    source.build(holdout=None, duplicates="drop")
    old = states(source.built)
    gain(source, range(300, 301))
    shutil.copy(source.image(120), source.image(300))
    summary = grow(source, holdout=None, duplicates="drop")
    apart = source.built / "not-added-duplicates.jsonl"
    assert (summary.images_added, summary.facts["duplicates"]["images"]) == (0, 1)
    assert states(source.built) == {**old, apart.name: states(source.built)[apart.name]}
    assert {json.loads(line)["sample_id"]: json.loads(line)["kept_id"] for line in apart.read_text().splitlines()} == {300: 120}
    assert "they are left out" in caplog.text


def test_copies_that_fail_a_growth_leave_the_list_of_the_dataset(source: Source) -> None:
    source.build(holdout=None, duplicates="fail")
    old = states(source.built)
    gain(source, range(300, 302))
    shutil.copy(source.image(120), source.image(300))
    with pytest.raises(SourceError, match=r"all of them: .*not-added-duplicates\.jsonl; remove them from the source"):
        grow(source, holdout=None, duplicates="fail")
    assert {name: state for name, state in states(source.built).items() if name in old} == old


def stops(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Yield for each file that a growth writes or removes what makes it stop there, once it is called."""
    for stop_at in range(100):
        calls = iter(range(1000))

        def counted(real: Callable[..., Any], calls: Iterator[int] = calls, stop_at: int = stop_at) -> Callable[..., Any]:
            def one(*args: Any) -> Any:
                if next(calls) == stop_at:
                    raise StorageError("stopped here")
                return real(*args)

            return one

        def begin(counted: Callable[..., Any] = counted) -> None:
            for name in ("atomic_writer", "write_bytes", "write_text", "remove"):
                monkeypatch.setattr(storage, name, counted(getattr(storage, name)))

        yield begin


def test_a_stop_anywhere_leaves_the_old_version_and_the_same_command_continues(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe: dict[str, Any] = {"holdout": None, "max_shard_samples": 100, "check": "header"}
    source.build(**recipe)
    old, old_ids = Dataset.open(str(source.built)).fingerprint, ids_by_split(str(source.built))
    gain(source, range(300, 308))
    shutil.copytree(source.built, tmp_path / "old")
    grow(source, **recipe)
    wanted = {name: digest for name, (digest, _) in states(source.built).items()}
    stopped = 0
    for begin in stops(monkeypatch):
        shutil.rmtree(source.built)
        shutil.copytree(tmp_path / "old", source.built)
        with monkeypatch.context():
            begin()
            try:
                grow(source, **recipe)
                break
            except StorageError:
                stopped += 1
            finally:
                monkeypatch.undo()
        if Dataset.open(str(source.built)).fingerprint == old:
            assert ids_by_split(str(source.built)) == old_ids
            assert ids_by_split(f"{source.built}@{old}") == old_ids
        assert source.build(**recipe).already_built  # and leaves what is needed to continue
        grow(source, **recipe)
        assert {name: digest for name, (digest, _) in states(source.built).items()} == wanted
    assert stopped > 10


def test_reports_that_a_kill_left_after_the_last_step_cost_no_shard(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("rayprob.data.building.commit.remove_reports", lambda root: None)
        source.build()
    assert (source.built / ".build").is_dir()
    gain(source)
    grow(source)
    assert verify(str(source.built)) == []
    assert not (source.built / ".build").exists()


def test_a_new_image_with_the_bytes_of_an_old_one_is_listed(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(source.image(106), source.image(107))
    source.build(holdout=None)
    gain(source)
    shutil.copy(source.image(901), source.image(301))
    shutil.copy(source.image(106), source.image(302))
    caplog.clear()
    facts = grow(source, holdout=None).facts
    lines = [json.loads(line) for line in (source.built / "duplicates.jsonl").read_text().splitlines()]
    assert {line["sample_id"]: line["kept_id"] for line in lines} == {107: 106, 301: 901, 302: 106}
    assert facts["duplicates"]["images"] == 3
    assert "2 images have the same bytes as another one, 1 of them as one in another split" in caplog.text


def test_dropping_copies_drops_new_ones_and_never_an_old_sample(source: Source) -> None:
    source.build(holdout=None, duplicates="drop")
    before = rows(str(source.built))
    gain(source, range(300, 312))
    shutil.copy(source.image(120), source.image(301))
    copy = {"id": 950, "file_name": "copy.jpg", "height": 1, "width": 1}
    source.change("val", lambda content: content["images"].append(copy))
    box = {"id": 1, "image_id": 950, "category_id": 2, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 0}
    source.change("val", lambda content: content["annotations"].append(box))
    shutil.copy(source.image(121), source.folder / "val2014" / "copy.jpg")
    summary = grow(source, holdout=None, duplicates="drop")
    after = rows(str(source.built))
    assert {sample_id: after[sample_id] for sample_id in before} == before
    assert after.keys() - before.keys() == {*range(300, 312)} - {301}
    assert summary.facts["duplicates"]["dropped"] == 2
    assert verify(str(source.built)) == []
    assert grow(source, holdout=None, duplicates="drop").images_added == 0


def test_new_tars_are_appended_in_place_and_changed_ones_refused(tmp_path: Path, pictures: dict[str, Pictures]) -> None:
    tars = {split: by_shard_writer(tmp_path / "tars" / split, some) for split, some in pictures.items()}
    splits = {split: {**source, "copy": False} for split, source in tars.items()}
    recipe = Recipe.parse({"name": "tars", "splits": splits, "target": str(tmp_path / "index"), "holdout": {"fraction": 0.3}})
    old = build(recipe, run_tasks=in_process)
    before = ids_by_split(old.root)
    again = by_shard_writer(tmp_path / "more", {f"9{name}": picture for name, picture in pictures["train"].items()})
    more = sorted(Path(again["images"]).iterdir())
    for number, tar in enumerate(more, start=50):
        shutil.copy(tar, tmp_path / "tars" / "train" / f"{number:06d}.tar")
    summary = build(recipe, run_tasks=in_process, grow=True)
    after = ids_by_split(old.root)
    assert summary.images_added == len(pictures["train"]) == summary.facts["duplicates"]["images"]
    assert all(before[split] <= after[split] for split in before)
    assert summary.facts["in_place"] == old.facts["in_place"]
    assert verify(old.root) == []
    assert verify(f"{old.root}@{old.facts['fingerprint']}") == []
    assert not [*Path(old.root).glob("*.tar")]
    first = tmp_path / "tars" / "train" / "000000.tar"
    with tarfile.open(first, "a") as tar, tarfile.open(more[0]) as extra:
        for member in extra.getmembers()[:2]:
            content = extra.extractfile(member)
            member.name = f"7{member.name}"
            tar.addfile(member, content)
    with pytest.raises(
        DatasetError, match=r"it has images now that are not its samples .*such as 000000.tar/7.*restore the tar"
    ):
        build(recipe, run_tasks=in_process, grow=True)


@pytest.mark.usefixtures("in_parts")
def test_labels_unknown_where_nothing_lists_them_stay_so(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(40):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(draw_jpeg(number, 24, 24))
    table = {"format": "table", "images": str(tmp_path / "images"), "annotations": str(tmp_path / "labels.csv")}
    recipe: dict[str, Any] = {"splits": {"train": {**table, "one_hot": "2..", "rest": "unknown"}}}
    lines = [f"{number}.jpg,{number % 2},{'' if number % 3 else 1}" for number in range(40)]
    source = Source(tmp_path)
    for end in (24, 40):
        (tmp_path / "labels.csv").write_text("\n".join(["file,cat,dog", *lines[:end], ""]))
        facts = grow(source, **recipe).facts
        assert facts["rest"] == {"train": "unknown", "holdout": "unknown"}
    rebuilt = source.build(target=str(tmp_path / "again"), **recipe)
    assert label_fingerprint(Dataset.open(str(source.built))) == label_fingerprint(Dataset.open(rebuilt.root))
    assert facts["label_counts"] == rebuilt.facts["label_counts"]
    assert verify(str(source.built)) == []


def test_a_dataset_of_0_1_which_reads_images_as_stored_is_refused(source: Source) -> None:
    source.build()
    facts = json.loads((source.built / "dataset.json").read_text())
    del facts["orientation"]
    (source.built / "dataset.json").write_text(json.dumps(facts))
    with pytest.raises(DatasetError, match=r"was built by rayprob 0\.1, which does not turn images upright"):
        grow(source)


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"sample_id": 1}'])
@pytest.mark.parametrize("name", ["duplicates.jsonl", "rejected.jsonl"])
def test_a_damaged_list_is_named(built_once: Source, tmp_path: Path, name: str, content: bytes) -> None:
    source = Source(tmp_path)
    shutil.copytree(built_once.folder, tmp_path, dirs_exist_ok=True)
    (source.built / name).write_bytes(content)
    with pytest.raises(DatasetError, match=rf"{name}.*restore it from a copy"):
        grow(source)


def test_a_stray_or_lost_file_of_a_version_is_a_fault(source: Source) -> None:
    first = source.build().facts["fingerprint"]
    gain(source)
    grow(source)
    (source.built / "versions" / f"{'1' * 16}.json").write_text("{}")
    assert [fault.file for fault in verify(str(source.built))] == [f"versions/{'1' * 16}.json"]
    (source.built / "versions" / f"{'1' * 16}.json").unlink()
    (source.built / "versions" / f"{first}.json").unlink()
    assert "names an earlier version that cannot be read" in str(verify(str(source.built))[0])


def test_the_commands_say_how_a_dataset_grew_and_how_it_can(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayprob.data.building.build.on_ray", lambda: in_process)
    recipe = source.folder / "recipe.yaml"
    recipe.write_text(source.recipe().to_yaml())

    def output(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments])
        assert result.exit_code == 0, result.output
        return result.output

    output("shard", str(recipe))
    fingerprint = Dataset.open(str(source.built)).fingerprint
    assert "images that its source has gained since are added by --grow" in output("shard", str(recipe))
    assert "its source has no image to add" in output("shard", str(recipe), "--grow")
    gain(source)
    assert f"grew by 15 images; its version before: {source.built}@{fingerprint}\n" in output("shard", str(recipe), "--grow")
    said = output("inspect", str(source.built))
    assert f"grew from {source.built}@{fingerprint} (train 31, holdout 8, val 11)" in said
    assert "every byte is as it was built" in output("verify", f"{source.built}@{fingerprint}")
