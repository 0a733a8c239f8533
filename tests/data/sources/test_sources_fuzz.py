"""Whatever the files of any format hold, they are read, or named with their fault: no input ends in a traceback."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayprob.data.building.recipe import Recipe
from rayprob.data.sources.recognise import recognise
from rayprob.data.sources.source import read_source
from rayprob.errors import RayprobError
from tests.data.sources.test_same_labels import NAMES, WRITERS, Pictures, as_coco

JPEG = b"\xff\xd8\xff\xd9"
PICTURES: Pictures = {f"{number:03d}": (JPEG, NAMES[: number % 3 + 1]) for number in range(4)}
ODD = [
    "",
    "\0",
    "../x",
    "\ud800",
    "é",
    "1e400",
    "-1",
    "nan",
    "[",
    "{",
    '"',
    "<",
    "&x;",
    "a\\b",
    "http://a/b.jpg",
    ",",
    "|",
    "9" * 40,
]


def as_lists(folder: Path, pictures: Pictures) -> dict[str, Any]:
    source = WRITERS["csv"](folder, pictures)
    (folder / "labels.csv").write_text(
        "image,tags\n" + "".join(f"{name}.jpg,{'|'.join(some)}\n" for name, (_, some) in pictures.items())
    )
    del source["one_hot"]
    return {**source, "lists": "tags", "separator": "|"}


def as_lines(folder: Path, pictures: Pictures) -> dict[str, Any]:
    source = as_lists(folder, pictures)
    lines = "".join(f'{{"image": "{name}", "tags": ["{some[0]}"]}}\n' for name, (_, some) in pictures.items())
    (folder / "labels.jsonl").write_text(lines)
    return {**source, "annotations": str(folder / "labels.jsonl"), "image": "image"}


LABEL_FILES: dict[str, tuple[Callable[[Path, Pictures], dict[str, Any]], str]] = {
    "coco": (as_coco, "labels.json"),
    "csv": (WRITERS["csv"], "labels.csv"),
    "lists": (as_lists, "labels.csv"),
    "lines": (as_lines, "labels.jsonl"),
    "voc": (WRITERS["voc"], "Annotations/002.xml"),
    "voc set": (WRITERS["voc"], "ImageSets/Main/all.txt"),
    "yolo": (WRITERS["yolo"], "labels/001.txt"),
    "yolo names": (WRITERS["yolo"], "classes.txt"),
    "parquet": (WRITERS["parquet"], "data.parquet"),
    "webdataset": (WRITERS["webdataset"], "000.tar"),
}


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return content with bytes cut, changed or put in, or a word of it that is an odd one."""
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(content) + 1)
        kind = chance.randrange(5)
        if kind == 0:
            content = content[:start]
        elif kind == 1:
            content = content[:start] + chance.randbytes(chance.randint(1, 4)) + content[start + chance.randint(0, 4) :]
        elif kind == 2:
            content = content[:start] + content[start + chance.randint(1, 40) :]
        else:
            word = chance.choice([word for word in content.split() if word] or [b""])
            content = content.replace(word, chance.choice(ODD).encode("utf-8", "surrogatepass"), 1)
    return content


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    folders = {}
    for name, (write, _) in LABEL_FILES.items():
        root = tmp_path_factory.mktemp("fuzz")
        folders[name] = (root, write(root / "data", PICTURES))
    return folders


@pytest.mark.parametrize("name", LABEL_FILES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chance=st.randoms(use_true_random=False))
def test_any_bytes_are_read_or_refused_in_words(
    written: dict[str, tuple[Path, dict[str, Any]]], name: str, chance: random.Random
) -> None:
    root, source = written[name]
    file = root / "data" / LABEL_FILES[name][1]
    original = file.read_bytes()
    recipe = Recipe.parse({"name": "x", "splits": {"train": source}, "holdout": None, "target": str(root / "built")})
    try:
        file.write_bytes(mutated(original, chance))
        for attempt in (lambda: read_source(recipe), lambda: recognise(str(root / "data"))):
            require_words(attempt)
    finally:
        file.write_bytes(original)
        shutil.rmtree(root / "built", ignore_errors=True)


def require_words(attempt: Callable[[], object]) -> None:
    """Assert that something succeeds, or fails with one finished message that can be printed."""
    try:
        attempt()
    except RayprobError as error:
        message = str(error)
        assert message
        assert len(message.encode("utf-8", "surrogateescape")) < 4000
