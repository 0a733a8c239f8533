"""Whatever an annotations file holds, it is read, or named with its fault before anything is written."""

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rayprob.data.manifest.columns import SCHEMA, to_array
from rayprob.data.sources import coco, json_stream
from rayprob.data.sources.rows import ImageRow
from rayprob.errors import SourceError
from rayprob.labels import LabelSpace
from tests.data.small_source import read_coco

VALID: dict[str, Any] = {
    "info": {"year": 2014},
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "images": [{"id": 5, "file_name": "a/0.jpg", "height": 4, "width": 5}, {"id": 6, "file_name": "1.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": 2, "area": 4.0, "bbox": [0, 0, 2, 2], "segmentation": [[1, 2]]},
        {"id": 2, "image_id": 6, "category_id": 1, "iscrowd": 1},
    ],
}
ODD_TEXT = [
    "",
    " cat ",
    "cat",
    "\ud800",
    "a\0b",
    "../x",
    "/etc",
    "./1.jpg",
    "dir\\0.jpg",
    "http://a/b",
    "~",
    "e\u0301",
    "2",
    "NaN",
]
ODD_NUMBERS = [0, -1, 1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, 3.0, 0.5, 1e300, float("nan"), float("inf"), -0.0]
SCALARS = st.sampled_from([None, True, False, *ODD_TEXT, *ODD_NUMBERS])
VALUES = st.recursive(
    SCALARS | st.text(max_size=4) | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "name", "x"]), inner, max_size=2),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value inside a value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path] * bool(path) + [found for key in keys for found in places(value[key], (*path, key))]


def put(content: Any, path: tuple[Any, ...], value: Any, how: str) -> Any:
    """Put a value at a place, or beside it; or remove what is there."""
    node = content
    for key in path[:-1]:
        node = node[key]
    if how == "remove":
        del node[path[-1]]
    elif how == "beside" and isinstance(node, list):
        node.insert(path[-1], value)
    else:
        node[path[-1]] = value
    return content


PLACES = places(VALID)
EDITS = st.lists(
    st.tuples(st.sampled_from(PLACES), VALUES, st.sampled_from(["replace", "replace", "remove", "beside"])),
    min_size=1,
    max_size=2,
)


def read_or_fault(folder: Path, content: bytes) -> None:
    """Read an annotations file; its rows can be stored, or a SourceError names it in words that can be printed.

    Read as a stream it gives the same.
    """
    path = folder / "train.json"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco, "STREAMED_BYTES", 0)
        patch.setattr(json_stream, "WINDOW_BYTES", 100)
        streamed = rows_or_message(path)
    found = rows_or_message(path)
    assert streamed == found
    if not isinstance(found, str):
        check_rows(folder, *found)
        return
    message = found
    assert str(path) in message
    assert len(message.encode()) < 2000


def rows_or_message(path: Path) -> tuple[LabelSpace, list[ImageRow]] | str:
    """Return what a file states, or what its fault is."""
    try:
        return read_coco(path)
    except SourceError as error:
        return str(error)


def check_rows(folder: Path, label_space: LabelSpace, images: list[ImageRow]) -> None:
    """Assert that a dataset can be made of the rows."""
    assert len(label_space) >= 1
    assert all(column < len(label_space) for image in images for column in image.labels + image.unknown_labels)
    json.dumps(label_space.to_dict()).encode()
    for name in ("labels", "unknown_labels", "label_areas_px2"):
        to_array([getattr(image, name) for image in images], SCHEMA.field(name).type)
    for image in images:
        assert (folder / image.file_name).parts[: len(folder.parts)] == folder.parts
        assert all(0 <= area < float("inf") for area in image.label_areas_px2)
        image.file_name.encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all examples write into."""
    return tmp_path_factory.mktemp("fuzz")


def test_the_unchanged_file_is_read(folder: Path) -> None:
    read_or_fault(folder, json.dumps(VALID).encode())
    assert len(read_coco(folder / "train.json")[1]) == 2


@settings(max_examples=150, deadline=None)
@given(EDITS)
@example([(("annotations", 0, "area"), None, "replace")])
@example([(("images", 0, "id"), 2**63, "replace")])
def test_annotations_with_any_value_anywhere_are_read_or_refused(folder: Path, edits: list[tuple[Any, Any, str]]) -> None:
    content = copy.deepcopy(VALID)
    for path, value, how in edits:
        try:
            put(content, path, value, how)
        except (KeyError, IndexError, TypeError, AttributeError):  # an edit before this one took the place away
            continue
    read_or_fault(folder, json.dumps(content).encode())


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]))
def test_annotations_with_any_bytes_changed_are_read_or_refused(folder: Path, chance: random.Random, encoding: str) -> None:
    content = bytearray(json.dumps(VALID).encode(encoding))
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(content))
        content[start : start + chance.randint(0, 4)] = chance.randbytes(chance.randint(0, 4))
    read_or_fault(folder, bytes(content[: chance.choice([None, chance.randrange(len(content) + 1)])]))


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=40) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"[" * 3000)
@example(b'{"a":' * 3000)
def test_any_bytes_are_refused_in_words(folder: Path, content: bytes) -> None:
    read_or_fault(folder, content)
