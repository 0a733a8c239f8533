"""`rayprob scenes`: layout, label sets, the same bytes, second runs, stops, and every message."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import simplejpeg
from pycocotools.coco import COCO
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.errors import RunError, SourceError, SpecError, StorageError
from rayprob.labels import COCO_80
from rayprob.scenes import files as scene_files
from rayprob.scenes import generate
from rayprob.scenes.files import encode
from rayprob.scenes.generate import ScenesSpec, generate_scenes
from tests.data.small_source import read_coco

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = ScenesSpec(num_train=40, num_val=8, size_px=64, num_labels=80, seed=3)


def files(folder: Path) -> dict[str, bytes]:
    """Everything but scenes.json, which tells how long the drawing took."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "scenes.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def annotations(folder: Path, split: str = "train") -> dict[str, Any]:
    return json.loads((folder / "annotations" / f"instances_{split}2014.json").read_text())  # type: ignore[no-any-return]


def load_quietly(folder: Path, split: str, capsys: pytest.CaptureFixture[str]) -> COCO:
    coco = COCO(str(folder / "annotations" / f"instances_{split}2014.json"))
    capsys.readouterr()
    return coco


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "new" / "scenes"
    generate_scenes(folder, SMALL)
    return folder


def test_layout_is_that_of_coco_2014(folder: Path) -> None:
    expected = {"annotations/instances_train2014.json", "annotations/instances_val2014.json", "annotations/scene_truth.parquet"}
    expected |= {f"train2014/COCO_train2014_{image_id:012d}.jpg" for image_id in range(1, 41)}
    expected |= {f"val2014/COCO_val2014_{image_id:012d}.jpg" for image_id in range(41, 49)}
    assert files(folder).keys() == expected
    for split in ("train", "val"):
        for entry in annotations(folder, split)["images"]:
            jpeg = (folder / f"{split}2014" / entry["file_name"]).read_bytes()
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(jpeg)
            assert (height, width) == (entry["height"], entry["width"])
            assert max(height, width) == 64
            assert re.fullmatch(rf"COCO_{split}2014_{entry['id']:012d}\.jpg", entry["file_name"])
            assert colorspace in ("YCbCr", "Gray")


def test_categories_are_cocos_own(folder: Path, shared: Path) -> None:
    real = json.loads((shared / "coco-sample" / "annotations" / "instances_val2014.json").read_text())
    assert annotations(folder)["categories"] == real["categories"]
    assert annotations(folder, "val")["categories"] == real["categories"]


def test_annotated_label_sets_are_exactly_the_drawn_ones(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = pq.read_table(folder / "annotations" / "scene_truth.parquet").to_pylist()
    assert [row["image_id"] for row in truth] == list(range(1, 49))
    for split in ("train", "val"):
        coco = load_quietly(folder, split, capsys)
        for row in (row for row in truth if row["split"] == split):
            boxes = coco.loadAnns(coco.getAnnIds(row["image_id"]))
            assert sorted({box["category_id"] for box in boxes}) == [COCO_80.category_ids[column] for column in row["labels"]]
            assert all(box["iscrowd"] == 0 and 0 < box["area"] <= box["bbox"][2] * box["bbox"][3] for box in boxes)
        assert len(coco.getImgIds()) == (40 if split == "train" else 8)
    ids = [box["id"] for split in ("train", "val") for box in annotations(folder, split)["annotations"]]
    assert ids == list(range(1, len(ids) + 1))


def test_the_reader_of_recipes_reads_them(folder: Path) -> None:
    label_space, images = read_coco(folder / "annotations" / "instances_train2014.json")
    assert label_space == COCO_80
    assert len(images) == 40


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_processes(folder: Path, tmp_path: Path) -> None:
    done: list[int] = []
    generate_scenes(tmp_path, SMALL, num_processes=2, on_progress=done.append)
    assert sum(done) == 48
    assert files(tmp_path) == files(folder)


def test_another_seed_gives_other_pictures(folder: Path, tmp_path: Path) -> None:
    generate_scenes(tmp_path, SMALL.model_copy(update={"seed": 4, "num_train": 5, "num_val": 0}))
    name = "train2014/COCO_train2014_000000000001.jpg"
    assert files(tmp_path)[name] != files(folder)[name]
    assert annotations(tmp_path, "val")["images"] == []


def test_more_images_begin_with_the_same_ones(folder: Path, tmp_path: Path) -> None:
    generate_scenes(tmp_path, SMALL.model_copy(update={"num_train": 6, "num_val": 0}))
    assert all(files(folder)[name] == jpeg for name, jpeg in files(tmp_path).items() if name.startswith("train2014/"))


def test_fewer_labels_keep_their_ids_and_make_a_smaller_label_space(tmp_path: Path) -> None:
    summary = generate_scenes(tmp_path, ScenesSpec(num_train=60, num_val=0, size_px=64, num_labels=3))
    content = annotations(tmp_path)
    assert [(category["id"], category["name"]) for category in content["categories"]] == [
        (1, "person"),
        (3, "car"),
        (62, "chair"),
    ]
    assert {box["category_id"] for box in content["annotations"]} == {1, 3, 62}
    assert summary.empty_images == 60 - len({box["image_id"] for box in content["annotations"]})


def test_label_noise_changes_annotations_and_nothing_that_is_sampled(folder: Path, tmp_path: Path) -> None:
    generate_scenes(tmp_path, SMALL.model_copy(update={"label_noise": 0.3}))
    truth = pq.read_table(tmp_path / "annotations" / "scene_truth.parquet")
    assert truth == pq.read_table(folder / "annotations" / "scene_truth.parquet")
    assert all(files(folder)[name] == jpeg for name, jpeg in files(tmp_path).items() if name.endswith(".jpg"))
    drawn = {(row["image_id"], COCO_80.category_ids[column]) for row in truth.to_pylist() for column in row["labels"]}
    boxes = annotations(tmp_path)["annotations"] + annotations(tmp_path, "val")["annotations"]
    stated = {(box["image_id"], box["category_id"]) for box in boxes}
    # Binomial with about 140 drawn labels: five sigma are 0.19.
    assert abs(len(drawn - stated) / len(drawn) - 0.3) < 0.19
    assert abs(len(stated - drawn) / len(stated) - 0.3) < 0.19


def test_grey_pictures_have_one_channel() -> None:
    picture_HW3 = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    assert simplejpeg.decode_jpeg_header(encode(picture_HW3, is_grey=True))[:3] == (20, 30, "Gray")
    assert simplejpeg.decode_jpeg_header(encode(picture_HW3, is_grey=False))[:3] == (20, 30, "YCbCr")


def test_a_second_run_leaves_a_finished_folder_alone(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    done: list[int] = []
    summary = generate_scenes(folder, SMALL, on_progress=done.append)
    assert (summary.images, summary.drawn_images, done) == (48, 0, [48])
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_stopped_run_leaves_whole_files_and_goes_on(folder: Path, tmp_path: Path) -> None:
    def stop(num_images: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_scenes(tmp_path, SMALL, on_progress=stop)
    assert {name.split("/")[0] for name in files(tmp_path)} == {"train2014"}
    pictures = sorted((tmp_path / "train2014").iterdir())
    pictures[0].write_bytes(pictures[0].read_bytes()[:-100])  # what a power cut may leave
    pictures[1].write_bytes(b"")
    (tmp_path / "train2014" / "COCO_train2014_000000000009.jpg.77.tmp").write_bytes(b"half")
    summary = generate_scenes(tmp_path, SMALL)
    assert summary.drawn_images == 48 - len(pictures) + 2
    assert files(tmp_path) == files(folder)


def test_ctrl_c_stops_all_processes_and_the_same_command_goes_on(tmp_path: Path) -> None:
    arguments = ["scenes", str(tmp_path / "s"), "--train", "160", "--val", "0", "--size", "64"]
    gated = [sys.executable, "-m", "tests.scenes.gated_scenes", str(tmp_path / "gate"), *arguments, "--processes", "2"]
    process = subprocess.Popen(gated, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=REPOSITORY)
    deadline_s = time.monotonic() + 240
    while len(list(tmp_path.glob("s/train2014/*.jpg"))) < 32 and time.monotonic() < deadline_s:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    (tmp_path / "gate").touch()
    _, complaint = process.communicate(timeout=240)
    assert process.returncode == 130, complaint
    assert "stopped; the same command continues from there" in complaint
    assert "Traceback" not in complaint
    drawn = len(list(tmp_path.glob("s/train2014/*.jpg")))
    assert 32 <= drawn < 160
    assert not list(tmp_path.glob("s/*/*.tmp"))
    assert not (tmp_path / "s" / "annotations").exists()
    result = CliRunner().invoke(app, [*arguments, "--processes", "1"])
    assert result.exit_code == 0, result.output
    assert f"drew {160 - drawn:,} images" in result.output


def test_the_verb_says_what_it_made_and_what_comes_next(tmp_path: Path) -> None:
    command = ["scenes", str(tmp_path), "--train", "3", "--val", "2", "--size", "64", "--labels", "20", "--processes", "1"]
    first, second = CliRunner().invoke(app, command), CliRunner().invoke(app, command)
    assert first.exit_code == second.exit_code == 0
    assert "5 images, " in first.output
    assert "drew 5 images in " in first.output
    assert f"next: rayprob shard shards/scenes.yaml    (its paths must point to {tmp_path}" in first.output
    assert "already drawn" in second.output


def test_the_recipe_points_to_the_scenes_of_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["--train", "3", "--val", "2", "--size", "64", "--labels", "20", "--processes", "1"]
    assert CliRunner().invoke(app, ["scenes", "demo/scenes/", *few]).output.endswith("next: rayprob shard shards/scenes.yaml\n")


def test_a_folder_with_other_scenes_names_the_differing_options(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"different options \(num_train: 40 -> 50; seed: 3 -> 1\); use the same options"):
        generate_scenes(folder, SMALL.model_copy(update={"num_train": 50, "seed": 1}))


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    for name in "abcdefg":
        (tmp_path / name).write_text("mine")
    with pytest.raises(SourceError, match=r"is not empty and has no scenes.json: a, b, c, d, e, \.\.\. \(7 in all\); give"):
        generate_scenes(tmp_path, SMALL)
    with pytest.raises(SourceError, match=r"a is a file; use a new or empty folder"):
        generate_scenes(tmp_path / "a", SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == list("abcdefg")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "contains list, not a mapping"),
        ("[" * 100_000, "is not JSON"),
        ('{"spec": {}}', "format_version: required, but missing"),
        ('{"format_version": 1, "spec": "abc", "summary": null}', "spec: expected a mapping"),
        ('{"format_version": 1, "spec": {}, "summary": {}}', "summary.images: required, but missing"),
    ],
)
def test_a_broken_state_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "scenes.json").write_text(text)
    with pytest.raises(SourceError, match=rf"scenes\.json:? {message}.*; delete .* or give another folder"):
        generate_scenes(tmp_path, SMALL)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("num_train", 0, "greater than or equal to 1"),
        ("num_val", -1, "greater than or equal to 0"),
        ("size_px", 63, "greater than or equal to 64"),
        ("size_px", 1025, "less than or equal to 1024"),
        ("num_labels", 81, "less than or equal to 80"),
        ("seed", -1, "greater than or equal to 0"),
        ("label_noise", 0.6, "less than or equal to 0.5"),
    ],
)
def test_bad_options_name_what_is_allowed(option: str, value: float, message: str) -> None:
    with pytest.raises(SpecError, match=rf"{option}: input should be {message} \(found {value}\)"):
        ScenesSpec.parse({option: value})


def test_no_process_is_no_drawing(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="num_processes is 0; allowed: 1 or more"):
        generate_scenes(tmp_path, SMALL, num_processes=0)


def test_a_full_disk_names_the_file_and_leaves_no_half_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scene_files.Path, "write_bytes", fill)
    with pytest.raises(StorageError, match=r"cannot write .*000001\.jpg: No space left on device; fix that and run the same"):
        generate_scenes(tmp_path, SMALL)
    assert list((tmp_path / "train2014").iterdir()) == []


def test_a_killed_process_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "draw_job", os._exit)
    with pytest.raises(
        RunError, match="a drawing process was killed, possibly out of memory; run the command again to continue"
    ):
        list(generate._run([9], num_processes=2))  # type: ignore[list-item]
