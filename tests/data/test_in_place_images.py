"""Images in place are of every kind and in groups, as images that are copied are."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from rayprob.data.inspect import inspect
from rayprob.data.manifest.dataset import Dataset
from rayprob.data.verify import verify
from rayprob.errors import SourceError
from tests.data.sources.test_same_labels import write_tar
from tests.data.test_in_place import all_images, assert_same_images, build_copies, index, jpeg_of


def png(jpeg: bytes) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).save(file, "PNG")
    return file.getvalue()


def turned(jpeg: bytes) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.open(io.BytesIO(jpeg)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def videos(folder: Path, num_images: int = 24) -> dict[str, dict[str, str]]:
    """Write two tars of frames: frame n is of video n // 4; frame 1 is a PNG, and EXIF turns frame 2."""
    folder.mkdir()
    for number in range(2):
        members = []
        for frame in range(number, num_images, 2):
            content = {1: png, 2: turned}.get(frame, bytes)(jpeg_of(frame))
            beside = {"labels": ["cat"] if frame % 3 else ["dog"], "meta": {"video": frame // 4}}
            members += [
                (f"{frame:03d}.{'png' if frame == 1 else 'jpg'}", content),
                (f"{frame:03d}.json", json.dumps(beside).encode()),
            ]
        write_tar(folder / f"{number}.tar", members)
    return {"all": {"format": "webdataset", "images": str(folder), "group": "meta.video"}}


@pytest.mark.parametrize("by", ["hash", "stratified"])
def test_frames_in_place_are_divided_by_their_video_as_copied_ones_are(tmp_path: Path, by: str) -> None:
    splits = videos(tmp_path / "tars")
    divide = {"of": "all", "into": {"train": 0.5, "val": 0.5}, "by": by}
    facts = index(tmp_path / "index", splits, divide=divide, holdout=None).facts
    build_copies(tmp_path / "copied", splits, divide=divide, holdout=None)
    ours, theirs = Dataset.open(str(tmp_path / "index")), Dataset.open(str(tmp_path / "copied"))
    for split in ("train", "val"):
        manifest = ours.split(split)
        assert set(manifest.sample_ids_N.tolist()) == set(theirs.split(split).sample_ids_N.tolist())
        assert_same_images(all_images(ours, split), all_images(theirs, split))
    videos_of = [{sample_id // 4 for sample_id in ours.split(split).sample_ids_N.tolist()} for split in ("train", "val")]
    assert not set.intersection(*videos_of)
    assert [shard["sha256"] for shard in facts["shards"][:2]] == [shard["sha256"] for shard in facts["shards"][2:]]
    assert verify(str(tmp_path / "index")) == []


def test_splits_that_tear_a_video_in_place_are_refused(tmp_path: Path) -> None:
    splits = videos(tmp_path / "tars")
    both = {split: {**splits["all"], "images": str(tmp_path / "tars" / f"{number}.tar")} for number, split in enumerate("ab")}
    with pytest.raises(SourceError, match="6 groups have images in two splits"):
        index(tmp_path / "index", both, holdout=None)


def test_kinds_of_images_in_place_are_counted_and_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    facts = index(tmp_path / "index", videos(tmp_path / "tars"), holdout=None).facts
    assert (facts["format_version"], facts["orientation"], facts["exif_rotated"]) == (5, "upright", 1)
    assert (facts["images"]["JPEG"], facts["images"]["PNG"]) == (23, 1)
    assert inspect(str(tmp_path / "index")).image_facts["images"] == facts["images"]
    facts_file = tmp_path / "index" / "dataset.json"
    facts_file.write_text(json.dumps({key: value for key, value in facts.items() if key != "orientation"}))
    assert "has fingerprint" in str(verify(str(tmp_path / "index"))[0])
