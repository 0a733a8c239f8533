"""What arguments name, and what the bytes of an image become."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from rayprob.errors import DatasetError, SampleError, StorageError
from rayprob.loader.augment import decode
from rayprob.predict.images import find_images
from rayprob.predict.pixels import orientation_note, read_pixels
from tests.loader.tiny import photo, write_dataset


def names(*arguments: object, split: str = "val") -> list[str]:
    return [image.name for image in find_images([str(argument) for argument in arguments], split)]


def test_files_folders_and_globs_name_each_image_once_in_order(photos: Path) -> None:
    below = photos / "holiday" / "beach.PNG"
    below.parent.mkdir()
    below.write_bytes(b"")
    (photos / "notes.txt").write_text("no image")
    expected = [str(photos / "photo-3.jpg"), str(below), *(str(photos / f"photo-{place}.jpg") for place in (0, 1, 2, 4))]
    assert names(photos / "photo-3.jpg", photos) == expected
    assert names(photos / "photo-[01].jpg", photos / "**" / "*.PNG") == [expected[2], expected[3], expected[1]]
    assert names(f"file://{photos}/photo-1.jpg") == [f"file://{photos}/photo-1.jpg"]


def test_a_name_with_brackets_is_a_file_before_it_is_a_glob(photos: Path) -> None:
    odd = photos / "photo[1].jpg"
    odd.write_bytes(photo(9))
    assert names(odd) == [str(odd)]


def test_a_folder_that_links_lead_back_into_gives_each_image_once(photos: Path) -> None:
    (photos / "sub").mkdir()
    for link in ("l1", "l2"):
        (photos / "sub" / link).symlink_to("..")
    expected = [str(photos / f"photo-{place}.jpg") for place in range(5)]
    assert names(photos) == expected
    assert names(photos / "**" / "*.jpg") == expected
    assert names(photos / "**") == expected


def test_clutter_and_names_that_are_not_utf8_are_skipped_and_said(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = names(photos)
    assert not caplog.records
    for name in ("._photo-0.JPG", "__MACOSX/x.jpg", "@eaDir/photo-0.jpg/thumb.jpg", "Thumbs.db", ".ipynb_checkpoints/a.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(photo(1))
    Path(os.fsdecode(os.fsencode(photos) + b"/caf\xe9.jpg")).write_bytes(photo(1))
    (photos / "gone.jpg").symlink_to("nowhere")
    assert names(photos) == expected
    assert caplog.messages == [
        f"{photos}: skipped 5 hidden or system files (._photo-0.JPG, ...); "
        "skipped gone.jpg: a link to a file that does not exist; "
        "skipped caf\\xe9.jpg: a name that is not UTF-8"
    ]
    caplog.clear()
    assert names(photos / "[pc]*.jpg") == expected
    assert f"skipped {photos}/caf\\xe9.jpg: a name that is not UTF-8" in caplog.text
    assert names(photos / "*.jpg") == expected
    assert f"skipped {photos}/gone.jpg: a link to a file that does not exist" in caplog.text


def test_a_name_that_is_not_utf8_is_refused_by_name(photos: Path) -> None:
    with pytest.raises(StorageError, match=r"the name .*caf\\xe9.jpg is not UTF-8; rename the file"):
        names(f"{photos}/caf\udce9.jpg")


def test_hidden_files_are_taken_where_they_are_asked_for(photos: Path) -> None:
    hidden = photos / ".cache" / ".x.jpg"
    hidden.parent.mkdir()
    hidden.write_bytes(photo(1))
    assert names(hidden) == names(hidden.parent / ".*.jpg") == names(f"{photos}/.cache/**/.x.jpg") == [str(hidden)]


def test_a_tilde_in_a_name_is_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("~$photo.jpg", "home/x.jpg"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(photo(1))
    assert names(".") == ["./home/x.jpg", "./~$photo.jpg"]
    assert names("*.jpg") == names("./~*") == ["./~$photo.jpg"]
    assert [image.read() for image in find_images(["~$photo.jpg", "*.jpg", "~/x.jpg"])] == [photo(1)] * 3
    assert names("~/*.jpg") == [str(tmp_path / "home" / "x.jpg")]


def test_the_root_of_a_dataset_names_the_samples_of_a_split(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path, [3, 2], split="val")
    images = find_images([dataset.root])
    assert [image.sample_id for image in images] == [1000, 1001, 1002, 1003, 1004]
    assert images[3].name == f"{dataset.root}/000000001003"
    assert [image.read() for image in images] == [photo(sample_id) for sample_id in range(1000, 1005)]
    with pytest.raises(DatasetError, match="train"):
        find_images([dataset.root], "train")


def test_what_names_no_image_is_refused(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(StorageError, match=r"no file or folder at .*gone.jpg; check the path"):
        names(photos / "gone.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        StorageError, match=r"no images in folder .*empty: there is no .jpg, .jpeg, .png file in it or below it"
    ):
        names(tmp_path / "empty")
    with pytest.raises(StorageError, match=r"no file matches .*\*.png; check the pattern"):
        names(photos / "*.png")
    with pytest.raises(StorageError, match=r"only folders match .*photo\*; check the pattern"):
        names(tmp_path / "photo*")


def test_a_jpeg_has_the_pixels_of_training() -> None:
    assert np.array_equal(read_pixels(photo(1)), decode(photo(1)))


def saved(image: Pillow.Image, kind: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


RED_GREEN = np.array([[[255, 0, 0], [0, 255, 0]], [[9, 8, 7], [1, 2, 3]]], dtype=np.uint8)
WHITE = [255, 255, 255]


def test_a_png_has_the_pixels_that_were_saved() -> None:
    image = Pillow.fromarray(RED_GREEN)
    assert np.array_equal(read_pixels(saved(image)), RED_GREEN)
    assert np.array_equal(read_pixels(saved(image.quantize(8))), RED_GREEN)
    assert np.array_equal(read_pixels(saved(Pillow.fromarray(RED_GREEN[:, :, 0]))), RED_GREEN[:, :, [0, 0, 0]])


def test_what_is_transparent_in_a_png_becomes_white() -> None:
    alpha = np.array([[0, 255], [255, 0]], dtype=np.uint8)
    layered = np.concatenate([RED_GREEN, alpha[:, :, None]], axis=2)
    assert read_pixels(saved(Pillow.fromarray(layered))).tolist() == [[WHITE, [0, 255, 0]], [[9, 8, 7], WHITE]]


def test_sixteen_bits_of_grey_keep_their_upper_eight() -> None:
    grey = np.array([[0, 256 * 7 + 200], [65535, 256]], dtype=np.uint16)
    assert read_pixels(saved(Pillow.fromarray(grey)))[:, :, 0].tolist() == [[0, 7], [255, 1]]


def bomb() -> bytes:
    """A PNG of a few bytes whose header states 10,000 x 10,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def test_what_is_no_image_says_what_it_is() -> None:
    for content, message in (
        (b"hello", r"is a file that begins b'hell', not a JPEG; convert it"),
        (b"", r"is empty, not a JPEG"),
        (saved(Pillow.fromarray(RED_GREEN), "GIF"), r"is a GIF, not a JPEG; convert it"),
        (saved(Pillow.fromarray(decode(photo(1))))[:-300], r"is a PNG that does not decode \(.*\); replace the file"),
        (b"\x89PNG but no more", r"is a PNG that does not decode \(its header is broken\)"),
        (bomb(), r"its header states 10,000 x 10,000 pixels, more than 67,108,864; shrink it"),
        (photo(1)[:-300], r"does not decode"),
    ):
        with pytest.raises(SampleError, match=message):
            read_pixels(content)


def test_an_image_that_is_stored_turned_is_remarked_on() -> None:
    exif = Pillow.Exif()
    assert orientation_note(photo(1)) is None
    for orientation, message in ((1, None), (6, "its EXIF orientation 6 is ignored, as in training")):
        exif[0x0112] = orientation
        note = orientation_note(saved(Pillow.fromarray(RED_GREEN), "JPEG", exif=exif))
        assert note is None if message is None else note is not None and note.startswith(message)
