"""Builds that leave the process: object stores, Ray."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from rayprob.data.building.build import build, in_process, on_ray
from rayprob.data.building.recipe import Recipe
from rayprob.data.manifest.dataset import Dataset
from rayprob.data.verify import on_ray as check_on_ray
from rayprob.data.verify import verify
from rayprob.errors import StorageError
from rayprob.files import storage
from tests.data.small_source import FIRST_ID, Source, draw_jpeg, run_script
from tests.data.tars import by_shard_writer


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of an empty bucket in an S3 server of its own on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for key, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(key, value)
    fs.S3FileSystem(endpoint_override=f"{host}:{port}", scheme="http", allow_bucket_creation=True).create_dir("data")
    yield "s3://data"
    server.stop()


def upload(source: Source, bucket: str) -> dict[str, dict[str, str]]:
    """Copy a source into the bucket; returns the splits of a recipe that reads it there."""
    for path in source.folder.rglob("*.*"):
        storage.write_bytes(f"{bucket}/source/{path.relative_to(source.folder)}", path.read_bytes())
    return {
        split: {"images": f"{bucket}/source/{split}2014", "annotations": f"{bucket}/source/instances_{split}.json"}
        for split in FIRST_ID
    }


def test_source_and_target_may_lie_in_an_object_store(source: Source, bucket: str) -> None:
    splits = upload(source, bucket)
    source.build()
    target = f"{bucket}/built/small"
    facts = source.build(splits=splits, target=target).facts
    local = Dataset.open(str(source.built))
    assert facts["fingerprint"] == local.fingerprint
    for shard in facts["shards"]:
        assert storage.read_bytes(f"{target}/{shard['name']}") == (source.built / shard["name"]).read_bytes()
    assert verify(target) == []
    assert source.build(splits=splits, target=target).already_built
    left = {name for name in storage.list_names(target) if not name.endswith(".tar")}
    assert left == {"dataset.json", "labels.json", "manifest.parquet", "rejected.jsonl"}
    assert storage.list_names(f"{target}/.build") == []


def test_a_dataset_in_an_object_store_grows(source: Source, bucket: str) -> None:
    content = source.annotations("train")
    images, late = content["images"][:-12], {image["id"] for image in content["images"][-12:]}
    boxes = [box for box in content["annotations"] if box["image_id"] not in late]
    source.change("train", lambda train: train.update(images=images, annotations=boxes))
    splits, target = upload(source, bucket), f"{bucket}/built/grown"
    recipe = source.recipe(splits=splits, target=target, max_shard_samples=100)
    first = build(recipe, run_tasks=in_process).facts
    assert build(recipe, run_tasks=in_process, grow=True).images_added == 0
    storage.write_text(splits["train"]["annotations"], json.dumps(content))
    assert build(recipe, run_tasks=in_process, grow=True).images_added == 12
    version = f"{target}@{first['fingerprint']}"
    assert Dataset.open(version).splits == first["splits"]
    assert verify(target) == verify(version) == []
    assert storage.list_names(f"{target}/.build") == []


@pytest.mark.ray
@pytest.mark.usefixtures("ray_here")
def test_a_build_on_ray_is_the_build_in_one_process_and_passes_its_errors_on(source: Source, tmp_path: Path) -> None:
    source.build()
    target = tmp_path / "by-ray"
    in_the_way = target / "train-000002.tar" / "something"
    in_the_way.mkdir(parents=True)
    with pytest.raises(StorageError, match=r"cannot write .*train-000002.tar: .*Is a directory"):
        build(source.recipe(target=str(target)), run_tasks=on_ray())
    in_the_way.rmdir()
    in_the_way.parent.rmdir()
    summary = build(source.recipe(target=str(target)), run_tasks=on_ray())
    for shard in summary.facts["shards"]:
        assert (target / shard["name"]).read_bytes() == (source.built / shard["name"]).read_bytes()
    assert summary.facts["manifest_sha256"] == Dataset.open(str(source.built)).facts["manifest_sha256"]
    assert verify(str(target), run_tasks=check_on_ray()) == []
    (target / "val-000000.tar").write_bytes(b"cut")
    assert verify(str(target), run_tasks=check_on_ray()) == verify(str(target)) != []


@pytest.mark.ray
@pytest.mark.usefixtures("ray_here")
def test_tars_are_indexed_by_ray_tasks_as_in_one_process(tmp_path: Path) -> None:
    pictures = {f"{number:03d}": (draw_jpeg(number, 24, 24), ["cat", "dog"][number % 2 :]) for number in range(1, 25)}
    train = {**by_shard_writer(tmp_path / "tars", pictures), "copy": False}
    recipe = {"name": "tars", "splits": {"train": train}, "holdout": {"fraction": 0.3}}
    found = [
        build(Recipe.parse({**recipe, "target": str(tmp_path / name)}), run_tasks=run_tasks).facts
        for name, run_tasks in (("here", in_process), ("by-ray", on_ray()))
    ]
    assert found[0]["manifest_sha256"] == found[1]["manifest_sha256"]
    assert found[0]["fingerprint"] == found[1]["fingerprint"]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_here")
def test_a_dataset_grows_by_ray_tasks_as_in_one_process(tmp_path: Path) -> None:
    pictures = {f"{number:03d}": (draw_jpeg(number, 24, 24), ["cat", "dog"][number % 2 :]) for number in range(1, 25)}
    train = by_shard_writer(tmp_path / "tars", pictures)
    late = Path(train["images"], "000002.tar")
    found = []
    for name, run_tasks in (("here", in_process), ("by-ray", on_ray())):
        target = tmp_path / name
        recipe = Recipe.parse({"name": "tars", "splits": {"train": train}, "target": str(target), "max_shard_samples": 3})
        late.rename(tmp_path / "late.tar")
        build(recipe, run_tasks=in_process)
        (tmp_path / "late.tar").rename(late)
        summary = build(recipe, run_tasks=run_tasks, grow=True)
        assert summary.images_added == 4
        facts = {**summary.facts, "recipe": None}  # which has the target
        files = {
            path.relative_to(target): path.read_bytes() for path in target.rglob("*") if path.suffix in (".tar", ".parquet")
        }
        found.append((facts, files))
    assert found[0] == found[1]


STOPPED = """
import os, time
from rayprob.data.building.build import build, in_process, on_ray
from rayprob.data.building.recipe import Recipe
def slowly(progress):
    print(progress.shards, flush=True)
    if progress.shards >= 3:
        time.sleep(3600)
try:
    tasks = on_ray(num_cpus=2, object_store_memory=200 * 2**20)
    build(source.recipe(max_shard_samples=1), run_tasks=tasks, on_progress=slowly)
except KeyboardInterrupt as stopped:
    print(stopped)
"""


@pytest.mark.slow
@pytest.mark.ray
def test_ctrl_c_stops_a_build_on_a_ray_of_its_own(source: Source) -> None:
    process = run_script(STOPPED, source)
    assert process.stdout
    while process.stdout.readline() not in ("3\n", ""):
        pass
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the driver and to all that Ray started
    printed, errors = process.communicate(timeout=240)
    assert "of 50 shards are done; the same command continues" in printed, errors
    assert source.build(max_shard_samples=1).shards_continued >= 3
