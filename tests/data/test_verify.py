"""Verification: a sound dataset has no fault, and nothing that is changed stays unseen."""

import hashlib
import io
import json
import pickle
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayprob.data.building.content import data_fingerprint
from rayprob.data.manifest.dataset import Dataset
from rayprob.data.verify import CheckedShard, Member, ShardCheck, _beside_faults, is_worth_ray, read_members, verify
from rayprob.errors import DatasetError
from tests.data.small_source import Source

SHARD = "train-000001.tar"


@pytest.fixture
def dataset(built_once: Source, tmp_path: Path) -> Path:
    """A copy of the dataset that the test may break."""
    return Path(shutil.copytree(built_once.built, tmp_path / "copy"))


def faults(root: Path) -> list[str]:
    return [str(fault) for fault in verify(str(root))]


def edit_facts(root: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    facts = json.loads((root / "dataset.json").read_text())
    edit(facts)
    (root / "dataset.json").write_text(json.dumps(facts))


def test_a_sound_dataset_has_no_fault_and_progress_reaches_its_end(built_once: Source) -> None:
    seen: list[tuple[int, int]] = []
    assert verify(str(built_once.built), lambda done, total: seen.append((done, total))) == []
    assert seen[-1][0] == seen[-1][1] == sum(path.stat().st_size for path in built_once.built.glob("*.tar"))


def test_what_is_no_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a finished dataset"):
        verify(str(tmp_path))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_every_flipped_bit_of_a_shard_is_found(dataset: Path, data: st.DataObject) -> None:
    path = dataset / SHARD
    sound = path.read_bytes()
    place, bit = data.draw(st.integers(0, len(sound) - 1)), data.draw(st.integers(0, 7))
    damaged = bytearray(sound)
    damaged[place] ^= 1 << bit
    path.write_bytes(damaged)
    found = faults(dataset)
    path.write_bytes(sound)
    assert found
    assert all(fault.startswith(SHARD) for fault in found)


@pytest.mark.parametrize("region", ["header name", "header time", "image", "image padding", "json", "json padding", "end"])
def test_a_flipped_bit_is_located(dataset: Path, region: str) -> None:
    manifest = Dataset.open(str(dataset)).split("train")
    row = int((manifest.shard_N == 1).argmax())
    sample = f"sample {manifest.sample_ids_N[row]} "
    image, size_bytes = int(manifest.offset_bytes_N[row]), int(manifest.size_bytes_N[row])
    after_image = image + size_bytes + -size_bytes % 512
    content = bytearray((dataset / SHARD).read_bytes())
    json_end = content.index(b"}", after_image + 512) + 1
    place, words = {
        "header name": (image - 512, "byte 0 should begin a tar header"),
        "header time": (image - 512 + 140, "byte 0 should begin a tar header"),
        "image": (image + size_bytes // 2, f"{sample}has image bytes with another crc32"),
        "image padding": (image + size_bytes, "the padding after"),
        "json": (after_image + 512 + 3, f"{sample}has a broken"),
        "json padding": (json_end + 1, "the padding after"),
        "end": (len(content) - 100, "no end-of-archive mark"),
    }[region]
    content[place] ^= 1
    (dataset / SHARD).write_bytes(content)
    found = faults(dataset)
    assert any(words in fault for fault in found), found
    assert any("has sha256" in fault for fault in found)


def cut_after_member(content: bytes) -> bytes:
    members, _ = read_members(content)
    return content[: members[6].offset_bytes - 512]


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (cut_after_member, "no end-of-archive mark"),
        (lambda content: cut_after_member(content) + content[:100], "should begin a tar header: truncated header"),
        (lambda content: content[:-1024], "no end-of-archive mark"),
        (lambda content: content[:-512], "no end-of-archive mark"),
        (lambda content: content[:1000], "goes beyond the end"),
        (lambda content: b"", "no end-of-archive mark"),
    ],
    ids=["at a member", "in a header", "without end", "half an end", "in an image", "all of it"],
)
def test_a_cut_tar_is_found(dataset: Path, cut: Callable[[bytes], bytes], words: str) -> None:
    path = dataset / SHARD
    path.write_bytes(cut(path.read_bytes()))
    found = faults(dataset)
    assert any(re.search(r"has [\d,]+ bytes, but [\d,]+ in dataset.json", fault) for fault in found)
    assert any(words in fault for fault in found), found


def test_samples_lost_in_a_cut_are_named(dataset: Path) -> None:
    path = dataset / SHARD
    path.write_bytes(cut_after_member(path.read_bytes()))
    lost = {fault.split()[2] for fault in faults(dataset) if ".jpg" in fault and "has no" in fault}
    manifest = Dataset.open(str(dataset)).split("train")
    assert lost == {str(sample_id) for sample_id in manifest.sample_ids_N[manifest.shard_N == 1][3:]}


def test_missing_swapped_and_stray_shards_are_found(dataset: Path) -> None:
    (dataset / "val-000001.tar").unlink()
    swapped = (dataset / "train-000000.tar").read_bytes()
    (dataset / "train-000000.tar").write_bytes((dataset / "train-000002.tar").read_bytes())
    (dataset / "train-000002.tar").write_bytes(swapped)
    (dataset / "train-000099.tar").write_bytes(b"")
    found = faults(dataset)
    assert any(fault.startswith("val-000001.tar: cannot be read: no file at") for fault in found)
    assert any(fault.startswith("train-000000.tar: has sha256") for fault in found)
    assert any(fault.startswith("train-000000.tar: member") and "belongs to no row" in fault for fault in found)
    assert "train-000099.tar: is not listed in dataset.json; remove it" in found


def test_parts_of_the_manifest_of_another_plan_are_named(dataset: Path) -> None:
    (dataset / "manifest").mkdir()
    for name in ("manifest/000000.parquet", "shards.parquet"):
        (dataset / name).write_bytes(b"")
    left = "is not listed in dataset.json: a part of another manifest, left by an earlier build; remove it"
    assert faults(dataset) == [f"shards.parquet: {left}", f"manifest/000000.parquet: {left}"]


def test_faults_are_listed_in_one_order_whichever_shard_is_checked_first(dataset: Path) -> None:
    def backwards(check: Callable[[ShardCheck], CheckedShard], checks: Iterable[ShardCheck]) -> Iterator[CheckedShard]:
        return map(check, reversed(pickle.loads(pickle.dumps(list(checks)))))

    for name in ("val-000001.tar", "train-000000.tar", "train-000002.tar"):
        (dataset / name).write_bytes(b"cut")
    seen: list[int] = []
    found = verify(str(dataset), lambda done, _: seen.append(done), run_tasks=backwards)  # type: ignore[arg-type]
    assert found == verify(str(dataset))
    assert seen == sorted(seen)


def test_large_datasets_and_clusters_are_worth_ray(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert not is_worth_ray(str(dataset))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert is_worth_ray(str(dataset))
    monkeypatch.delenv("RAY_ADDRESS")
    edit_facts(dataset, lambda facts: facts["shards"][0].update(size_bytes=2**33))
    assert is_worth_ray(str(dataset))


def test_a_member_twice_and_a_link_are_found(dataset: Path) -> None:
    path = dataset / SHARD
    content = path.read_bytes()
    members, _ = read_members(content)
    first = content[: members[1].offset_bytes - 512]
    path.write_bytes(first + content)
    assert any("has 1 members with the name of another" in fault for fault in faults(dataset))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("000000000107.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    path.write_bytes(buffer.getvalue())
    assert any("member 000000000107.jpg has type b'2'" in fault for fault in faults(dataset))


EDITS: dict[str, tuple[str, Callable[[list[Any]], list[Any]], str]] = {
    "labels": ("labels", lambda values: [[3], *values[1:]], "in its json, but ['tree'] in the manifest"),
    "unknown labels": ("unknown_labels", lambda values: [[1], *values[1:]], "has unknown_labels [] in its json, but ['dog']"),
    "column beyond": ("labels", lambda values: [[77], *values[1:]], "['column 77'] in the manifest"),
    "height": ("height_px", lambda values: [values[0] + 1, *values[1:]], "has height_px"),
    "crc32": ("crc32", lambda values: [values[0] ^ 1, *values[1:]], "has image bytes with another crc32"),
    "offset": ("offset_bytes", lambda values: [values[0] + 1, *values[1:]], "has its image at (byte, bytes)"),
    "key": ("key", lambda values: ["x", *values[1:]], "has no x.jpg"),
    "split": ("split", lambda values: ["val", *values[1:]], "do not match, shard by shard"),
    "double id": ("sample_id", lambda values: [values[1], *values[1:]], "has 1 sample ids more than once"),
    "area": ("label_areas_px2", lambda values: [[0.5] * len(values[0]), *values[1:]], "has fingerprint"),
}


@pytest.mark.parametrize(("column", "edit", "words"), EDITS.values(), ids=EDITS.keys())
def test_an_edited_manifest_is_found_even_where_its_hash_was_made_to_fit(
    dataset: Path, column: str, edit: Callable[[list[Any]], list[Any]], words: str
) -> None:
    path = dataset / "manifest.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index(column)
    values = pa.array(edit(table[column].to_pylist()), type=table.schema.field(column).type)
    pq.write_table(table.set_column(place, table.schema.field(column), values), path)
    assert any(fault.startswith("manifest.parquet: has sha256") for fault in faults(dataset))
    edit_facts(dataset, lambda facts: facts.update(manifest_sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    found = faults(dataset)
    assert found
    assert not any("manifest.parquet: has sha256" in fault for fault in found)
    assert any(words in fault for fault in found), found


def test_a_manifest_that_cannot_be_read_is_one_fault_and_shards_are_still_checked(dataset: Path) -> None:
    (dataset / "manifest.parquet").write_bytes(b"PAR1 no PAR1")
    (dataset / SHARD).write_bytes((dataset / SHARD).read_bytes()[:-1])
    found = faults(dataset)
    assert any(fault.startswith("manifest.parquet: cannot be read") for fault in found)
    assert any(fault.startswith(f"{SHARD}: has sha256") for fault in found)


def test_a_manifest_with_other_columns_is_found(dataset: Path) -> None:
    table = pq.read_table(dataset / "manifest.parquet").drop_columns(["crc32"])
    pq.write_table(table, dataset / "manifest.parquet")
    assert any(fault.startswith("manifest.parquet: has columns") for fault in faults(dataset))


def test_edited_labels_are_found(dataset: Path) -> None:
    path = dataset / "labels.json"
    sound = path.read_text()
    path.write_text(sound.replace('"cat"', '"lynx"'))
    found = faults(dataset)
    assert any(fault.startswith("labels.json: has fingerprint") for fault in found)
    assert any("has labels" in fault for fault in found)
    path.write_text("{}")
    assert any(fault.startswith("labels.json: a label space needs lists") for fault in faults(dataset))
    path.unlink()
    assert any(fault.startswith("labels.json: ") and "no file at" in fault for fault in faults(dataset))


def test_json_beside_an_image_that_is_nested_too_deeply_is_a_fault(dataset: Path) -> None:
    path = dataset / SHARD
    content = path.read_bytes()
    beside = next(member for member in read_members(content)[0] if member.name.endswith(".json"))
    nested = content[: beside.offset_bytes] + b"[" * 100_000 + content[beside.offset_bytes + beside.size_bytes :]
    row = {"sample_id": 1}
    member = Member(beside.name, beside.offset_bytes, 100_000)
    (fault,) = _beside_faults(nested, member, row, None)
    assert fault.startswith(f"has a broken {beside.name}: {beside.name} is not JSON")


def test_edited_counts_are_found(dataset: Path) -> None:
    edit_facts(dataset, lambda facts: facts["splits"].update(val=12))
    assert any("dataset.json counts {" in fault for fault in faults(dataset))
    edit_facts(dataset, lambda facts: facts["splits"].update(val=11))
    assert faults(dataset) == []
    edit_facts(dataset, lambda facts: facts["shards"][0].update(samples=6))
    assert any("do not match, shard by shard, the 49 samples in dataset.json" in fault for fault in faults(dataset))


def test_the_fingerprint_changes_with_labels_shards_and_areas(dataset: Path) -> None:
    opened = Dataset.open(str(dataset))
    hashes = [shard["sha256"] for shard in opened.facts["shards"]]
    space = opened.label_space.fingerprint
    table = pq.read_table(dataset / "manifest.parquet")
    whole = data_fingerprint(space, hashes, [table])
    assert whole == opened.fingerprint == data_fingerprint(space, hashes, [table.slice(0, 7), table.slice(7)])
    others = {data_fingerprint("x", hashes, [table]), data_fingerprint(space, hashes[1:], [table])}
    others.add(data_fingerprint(space, hashes, [table.slice(1)]))
    assert len(others | {whole}) == 4
