"""From file to network: a dataset of every kind of image, and the pixels that training and prediction see."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayprob.data.manifest.dataset import Dataset
from rayprob.data.verify import verify
from rayprob.images.decode import decode
from rayprob.images.exif import SWAPS_SIDES
from rayprob.images.kinds import kind_of
from rayprob.images.reading import READ_AS_STORED, READ_UPRIGHT, ImageReading
from rayprob.loader.augment import Resize, resize
from rayprob.loader.order import Place
from rayprob.loader.streams import EvalStream, StreamSpec
from tests.images.all_kinds import SIZE_PX, build_dataset, every_file, outcomes
from tests.images.every_kind import KINDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    build_dataset(folder)
    return folder


def facts_of(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "built" / "dataset.json").read_text())
    return facts


def test_every_file_is_stored_byte_for_byte_under_the_suffix_of_its_header(folder: Path) -> None:
    stored = {}
    for path in (folder / "built").glob("*.tar"):
        with tarfile.open(path) as tar:
            stored |= {name: tar.extractfile(name).read() for name in tar.getnames() if not name.endswith(".json")}  # type: ignore[union-attr]
    expected = {f"{number:012d}{kind_of(content).suffix}": content for number, content in enumerate(every_file().values())}
    assert stored == expected
    assert verify(str(folder / "built")) == []


def test_training_and_prediction_see_the_same_pixels(folder: Path) -> None:
    assert Dataset.open(str(folder / "built")).reading == READ_UPRIGHT
    for outcome in outcomes(folder, READ_UPRIGHT):
        assert outcome.is_same, outcome.title
        assert outcome.difference <= 3, outcome.title


def test_a_dataset_of_0_1_is_read_as_it_was(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to(folder / "images")
    (tmp_path / "built").mkdir()
    for path in (folder / "built").iterdir():
        (tmp_path / "built" / path.name).symlink_to(path)
    old = {key: value for key, value in facts_of(folder).items() if key != "orientation"}
    (tmp_path / "built" / "dataset.json").unlink()
    (tmp_path / "built" / "dataset.json").write_text(json.dumps(old))
    contents = every_file()
    for outcome in outcomes(tmp_path, READ_AS_STORED):
        assert outcome.is_same, outcome.title
        assert np.array_equal(outcome.trained, resize(decode(contents[outcome.title], READ_AS_STORED), SIZE_PX)), outcome.title


def test_an_evaluation_may_read_a_dataset_as_its_model_was_trained(folder: Path) -> None:
    manifest = Dataset.open(str(folder / "built")).split("val")
    spec, place = StreamSpec(loader_workers=0), Place()
    stream = EvalStream(manifest, spec, Resize(SIZE_PX), place=place, micro_batch=64, reading=READ_AS_STORED)
    (batch,) = stream
    for number, image in zip(batch.sample_ids_B.tolist(), batch.images_BCHW, strict=True):
        expected = resize(decode([*every_file().values()][number], READ_AS_STORED), SIZE_PX)
        assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_the_manifest_states_upright_sizes(folder: Path) -> None:
    manifest = Dataset.open(str(folder / "built")).split("val")
    sizes = dict(zip(manifest.sample_ids_N.tolist(), zip(manifest.height_px_N, manifest.width_px_N, strict=True), strict=True))
    for number, content in enumerate(every_file().values()):
        assert sizes[number] == decode(content, READ_UPRIGHT).shape[:2]


def test_dataset_json_counts_kinds_and_what_is_notable(folder: Path) -> None:
    facts = facts_of(folder)
    assert facts["orientation"] == "upright"
    assert facts["exif_rotated"] == 3 * 7
    assert facts["format_version"] == 4
    titles = [*every_file()]
    of_kind = {kind: sum(title.startswith(kind) for title in titles) for kind in ("JPEG", "PNG", "WebP")}
    assert facts["images"]["JPEG"] == of_kind["JPEG"] + 1  # the MPO
    assert facts["images"]["PNG"] == of_kind["PNG"] + 1  # the APNG
    assert facts["images"]["WebP"] == of_kind["WebP"] + 8  # those with EXIF, by Pillow's spelling
    for oddity in {oddity for kind in KINDS for oddity in kind.oddities}:
        assert facts["images"][oddity] == sum(oddity in kind.oddities for kind in KINDS), oddity


def test_encoding_turns_images_upright_and_makes_all_of_them_jpegs(folder: Path, tmp_path: Path) -> None:
    facts = build_dataset(tmp_path, encode={"quality": 98, "chroma": "444"}).facts
    assert facts["images"]["converted"] == len(every_file())
    assert facts["format_version"] == 1
    dataset = Dataset.open(str(tmp_path / "built"))
    manifest = dataset.split("val")
    content_of = dict(enumerate(every_file().values()))
    for sample in manifest.all_samples():
        with open(tmp_path / "built" / sample.shard, "rb") as file:
            file.seek(sample.offset_bytes)
            stored = decode(file.read(sample.size_bytes), READ_AS_STORED)
        difference = np.abs(stored.astype(int) - decode(content_of[sample.sample_id], READ_UPRIGHT))
        assert difference.mean() < 3, sample.sample_id
    assert facts["fingerprint"] != facts_of(folder)["fingerprint"]
    assert verify(str(tmp_path / "built")) == []


def test_a_window_is_recorded_and_changes_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    facts = build_dataset(tmp_path, window=[0, 30_000]).facts
    assert facts["window"] == (0, 30_000)
    assert facts["fingerprint"] != facts_of(folder)["fingerprint"]
    assert Dataset.open(str(tmp_path / "built")).reading == ImageReading("upright", (0, 30_000))
    assert all(outcome.is_same for outcome in outcomes(tmp_path, ImageReading("upright", (0, 30_000))))
    assert verify(str(tmp_path / "built")) == []


def test_prediction_with_another_reading_would_see_other_pixels(folder: Path) -> None:
    for outcome in outcomes(folder, READ_AS_STORED):
        turns = [value for value in range(2, 9) if outcome.title.endswith(f"orientation {value}")]
        assert outcome.is_same == (not turns), outcome.title
    assert list(SWAPS_SIDES) == [5, 6, 7, 8]
