"""What arguments name, and what the bytes of an image become."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from rayprob.errors import DatasetError, StorageError
from rayprob.images.reading import READ_AS_STORED, READ_UPRIGHT, ImageReading
from rayprob.predict.images import find_images
from rayprob.predict.pixels import decoded
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
    with pytest.raises(StorageError, match=r"no images in folder .*empty: there is no .jpg, .* .webp file in it or below it"):
        names(tmp_path / "empty")
    with pytest.raises(StorageError, match=r"no file matches .*\*.png; check the pattern"):
        names(photos / "*.png")
    with pytest.raises(StorageError, match=r"only folders match .*photo\*; check the pattern"):
        names(tmp_path / "photo*")


def test_an_image_that_is_not_read_as_a_user_may_expect_has_a_note() -> None:
    def notes(content: bytes, reading: ImageReading) -> tuple[str, ...]:
        return decoded(content, reading).notes

    image, exif = Pillow.new("RGB", (3, 2)), Pillow.Exif()
    exif[0x0112] = 6
    turned = saved(image, "JPEG", exif=exif)
    assert notes(turned, READ_AS_STORED) == (
        "its EXIF orientation 6 is ignored, as in training: save the image upright for a better prediction",
    )
    assert notes(turned, READ_UPRIGHT) == notes(photo(1), READ_AS_STORED) == ()
    frames = saved(image, "WEBP", save_all=True, append_images=[Pillow.new("RGB", (3, 2), "red")])
    assert notes(frames, READ_UPRIGHT) == ("is an animation, of which the first frame was read",)
    twelve_bits = saved(Pillow.fromarray(np.array([[0, 4095]], dtype=np.uint16)))
    (dark,) = notes(twelve_bits, READ_UPRIGHT)
    assert dark == "its 16 bits of grey come out nearly black; train on a dataset whose recipe sets `window`"
    assert notes(twelve_bits, ImageReading("upright", (0, 4095))) == ()


def saved(image: Pillow.Image, kind: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()
