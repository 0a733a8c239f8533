"""One shard: a plain tar with every byte accounted for."""

import hashlib
import io
import json
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from rayprob.data.building.plan import plan
from rayprob.data.building.shard import BuiltShard, ShardJob, read_report, write_shard
from rayprob.data.sources.image import SourceImage
from rayprob.data.sources.source import read_source
from rayprob.data.tasks import read_ahead
from rayprob.errors import StorageError
from tests.data.small_source import Source, draw_jpeg


def job_of(source: Source, number: int = 0, **changes: Any) -> ShardJob:
    recipe = source.recipe(**changes)
    data = read_source(recipe)
    shard = plan(data.images, recipe)[number]
    return ShardJob(shard, recipe.root, recipe.splits[shard.source].images, data.label_space, recipe.check, recipe.encode)


def write(source: Source, **changes: Any) -> tuple[BuiltShard, list[dict[str, Any]]]:
    job = job_of(source, **changes)
    facts = write_shard(job)
    reported, table = read_report(job.report)
    assert reported == facts
    return facts, table.to_pylist()


def test_tarfile_finds_every_member_where_the_manifest_says(source: Source) -> None:
    facts, rows = write(source)
    content = (source.built / facts.name).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (facts.size_bytes, facts.sha256)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = {member.name: member for member in tar.getmembers()}
        assert len(members) == 2 * len(rows) == 2 * facts.samples
        for row in rows:
            image = members[f"{row['key']}.jpg"]
            assert (image.offset_data, image.size) == (row["offset_bytes"], row["size_bytes"])
            original = source.image(row["sample_id"]).read_bytes()
            assert content[row["offset_bytes"] :][: row["size_bytes"]] == original
            assert row["crc32"] == zlib.crc32(original)
            beside = tar.extractfile(f"{row['key']}.json")
            assert beside
            assert json.load(beside)["file_name"] == source.image(row["sample_id"]).name


def test_the_same_job_gives_the_same_bytes(source: Source) -> None:
    write(source)
    first = (source.built / "train-000000.tar").read_bytes()
    (source.built / "train-000000.tar").unlink()
    write(source)
    assert (source.built / "train-000000.tar").read_bytes() == first


def test_members_carry_no_time_and_no_user(source: Source) -> None:
    facts, _ = write(source)
    with tarfile.open(source.built / facts.name) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar.getmembers()} == {(0, 0, 0, "", "", 0o644)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"GIF89a" + bytes(100), "is a GIF, not a JPEG"),
        (draw_jpeg(1, 40, 60)[:-200], "does not decode"),
        (b"", "is empty"),
    ],
)
def test_an_unreadable_image_never_becomes_a_sample(source: Source, content: bytes, reason: str) -> None:
    victim = job_of(source).plan.samples[2]
    source.image(victim.sample_id).write_bytes(content)
    facts, rows = write(source)
    (reject,) = facts.rejected
    assert (reject.sample_id, reject.split, reject.file_name) == (victim.sample_id, "train", victim.file_name)
    assert reason in reject.reason
    assert victim.sample_id not in {row["sample_id"] for row in rows}
    assert f"{victim.sample_id:012d}".encode() not in (source.built / facts.name).read_bytes()


def test_the_manifest_holds_the_real_size_and_counts_false_ones(source: Source) -> None:
    def lie(content: dict[str, Any]) -> None:
        content["images"][5]["width"] += 1
        del content["images"][6]["width"]

    source.change("train", lie)
    facts, rows = write(source, holdout=None, max_shard_samples=100)
    assert facts.sizes_corrected == 1
    truth = {entry["id"]: entry for entry in source.annotations("train")["images"]}
    liar = next(row for row in rows if row["sample_id"] == 105)
    assert liar["width_px"] == truth[105]["width"] - 1


@pytest.mark.parametrize("encode", [None, {"short_side_px": 16}])
def test_images_that_exif_turns_are_counted_and_have_their_upright_size(source: Source, encode: dict[str, int] | None) -> None:
    before, _ = write(source, holdout=None, max_shard_samples=100)
    assert before.exif_rotated == 0
    for sample_id, value in ((105, 6), (106, 1), (107, 3)):
        exif = Pillow.Exif()
        exif[0x0112] = value
        with Pillow.open(source.image(sample_id)) as image:
            image.save(source.image(sample_id), exif=exif)
    truth = {entry["id"]: entry for entry in source.annotations("train")["images"]}
    facts, rows = write(source, holdout=None, max_shard_samples=100, encode=encode)
    assert facts.exif_rotated == 2
    turned = next(row for row in rows if row["sample_id"] == 105)
    assert (turned["height_px"] > turned["width_px"]) == (truth[105]["width"] > truth[105]["height"])
    assert facts.sizes_corrected == 0  # the sizes declared are those as stored


def test_a_report_without_the_count_is_read(source: Source) -> None:
    facts, _ = write(source)
    report = source.built / ".build" / f"{facts.name}.parquet"
    table = pq.read_table(report)
    old = {key: value for key, value in json.loads(table.schema.metadata[b"rayprob"]).items() if key != "exif_rotated"}
    pq.write_table(table.replace_schema_metadata({b"rayprob": json.dumps(old)}), report)
    assert read_report(str(report))[0] == facts


def test_encoding_again_changes_images_and_keeps_areas(source: Source) -> None:
    _, plain = write(source)
    facts, rows = write(source, encode={"short_side_px": 16, "quality": 50})
    assert facts.sizes_corrected == 0
    for before, after in zip(plain, rows, strict=True):
        assert min(after["height_px"], after["width_px"]) == 16
        assert after["size_bytes"] < before["size_bytes"]
        assert after["label_areas_px2"] == before["label_areas_px2"]


def test_an_image_that_vanishes_while_sharding_stops_the_build(source: Source) -> None:
    job = job_of(source)
    source.image(job.plan.samples[0].sample_id).unlink()
    with pytest.raises(
        StorageError, match=r"was there when the build began and cannot be read now: .*all of them share, or a URI"
    ):
        write_shard(job)
    assert not list(source.built.glob("*"))


def test_a_broken_report_is_named(source: Source) -> None:
    job = job_of(source)
    write_shard(job)
    Path(job.report).write_bytes(b"nothing")
    with pytest.raises(StorageError, match=r"train-000000.tar.parquet cannot be read as Parquet .*; remove it and build again"):
        read_report(job.report)


def test_a_job_has_another_fingerprint_when_its_content_would_differ(source: Source) -> None:
    jobs = [
        job_of(source),
        job_of(source, seed=1),
        job_of(source, check="header"),
        job_of(source, encode={"quality": 80}),
        job_of(source, 1),
    ]
    assert len({job.fingerprint for job in jobs}) == len(jobs)
    assert job_of(source).fingerprint == jobs[0].fingerprint
    assert job_of(source, allow_rejects=3).fingerprint == jobs[0].fingerprint


def test_read_ahead_keeps_the_order_and_never_runs_further_ahead_than_asked() -> None:
    started: list[int] = []

    def read(image: SourceImage) -> bytes:
        started.append(image.sample_id)
        return str(image.sample_id).encode()

    images = [SourceImage(number, "x", 1, 1, (), (), ()) for number in range(50)]
    contents = read_ahead(read, images, 4)
    for number in range(50):
        assert next(contents) == str(number).encode()
        assert len(started) <= number + 1 + 4
