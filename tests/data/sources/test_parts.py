"""Parts of a source are read side by side, and what comes of them is in the order of the parts."""

import json
import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from rayprob.data.building import build as building
from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.sources import parts
from rayprob.data.sources.parts import in_order, parts_read_by
from rayprob.data.tasks import in_threads
from rayprob.errors import SourceError
from rayprob.files import storage
from tests.data.small_source import draw_jpeg
from tests.data.sources.test_same_labels import write_tar

VOC = "<annotation><object><name>{}</name></object><object><name>cat</name><difficult>1</difficult></object></annotation>"


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    """Nine images in nested folders, with an XML and a YOLO file each; links to some of the folders; and three tars."""
    for number in range(9):
        folder = tmp_path / "data" / "ab"[number % 2] / str(number % 3)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(draw_jpeg(number, 20, 24))
        (folder / f"{number}.xml").write_text(VOC.format(["tram", "dog", "cat"][number % 3]))
        (folder / f"{number}.txt").write_text(f"{number % 2} 0.5 0.5 0.1 0.1\n")
    for number in range(3):
        facts = json.dumps({"labels": ["cat", "dog"][: 1 + number % 2], "clip": number // 2}).encode()
        key = f"{number % 2}"  # of two tars, so that the tar becomes part of it
        write_tar(tmp_path / "data" / f"{number}.tar", [(f"{key}.jpg", draw_jpeg(number, 20, 24)), (f"{key}.json", facts)])
    (tmp_path / "data" / "link").symlink_to(tmp_path / "data" / "a")
    return tmp_path / "data"


def pickled(task: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Any]:
    """Map as a cluster does: all that goes to a task and comes from it is pickled, and the task works in another folder."""
    for job in jobs:
        there, part = pickle.loads(pickle.dumps((task, job)))
        with chdir("/"):
            found = pickle.dumps(there(part))
        yield pickle.loads(found)


def test_results_of_threads_come_in_order() -> None:
    def slowest_first(number: int) -> int:
        time.sleep(0.01 * (number == 0))
        return number

    assert list(in_threads(slowest_first, range(40))) == list(range(40))
    with parts_read_by(pickled):
        assert list(in_order(abs, [-2, 3])) == [2, 3]
    assert list(in_order(abs, [-2, 3])) == [2, 3]


@pytest.mark.parametrize(
    "split", [{"format": "voc"}, {"format": "yolo", "names": ["cat", "dog"]}, {"format": "webdataset", "group": "clip"}]
)
def test_a_source_read_in_parts_gives_the_dataset_of_one_read_at_once(
    annotated: Path, tmp_path: Path, split: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = {"name": "x", "holdout": None, "splits": {"train": {"images": annotated.name, **split}}}
    fingerprints = []
    for number, (chunk, reader) in enumerate(((512, map), (2, in_threads), (1, pickled))):
        monkeypatch.setattr(parts, "CHUNK_FILES", chunk)
        with parts_read_by(reader):  # type: ignore[arg-type]
            target = str(tmp_path / f"built-{number}")
            fingerprints.append(build(Recipe.parse({**recipe, "target": target}), run_tasks=in_process).facts["fingerprint"])
    assert len(set(fingerprints)) == 1


@pytest.mark.parametrize("form", ["one_hot", "lists", "label"])
def test_a_table_in_parts_read_by_tasks_is_the_table_read_by_one_process(
    annotated: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows without an image, one image in two tables, and labels that a later table uses first."""
    monkeypatch.chdir(tmp_path)
    images = sorted(str(path.relative_to(annotated)) for path in annotated.rglob("*.jpg") if "link" not in path.parts)
    header = {"one_hot": "image,who,cat,dog", "lists": "image,who,labels", "label": "image,who,label,value"}[form]
    cells = {"one_hot": ("1,0", "0,1", ",1"), "lists": ("zebra|cat", "dog", "cat"), "label": ("zebra,1", "dog,0", "cat,1")}[
        form
    ]
    for part in range(3):
        rows = [f"{image},{number},{cells[(part + number) % 3]}" for number, image in enumerate(images) if number % 3 == part]
        twice = [f"{images[0]},0,{cells[1]}"] if part and form != "one_hot" else []
        (tmp_path / f"part-{part}.csv").write_text("\n".join([header, *rows, *twice, f",9,{cells[0]}"]) + "\n")
    columns = {
        "one_hot": {"one_hot": "cat.."},
        "lists": {"lists": "labels", "separator": "|"},
        "label": {"label": 3, "value": 4},
    }
    split = {"format": "table", "images": "data", "annotations": "part-*.csv", "group": "who", **columns[form]}
    read: list[str] = []

    def noting(task: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Any]:
        listed = list(jobs)
        read.extend(Path(job).name for job in listed if isinstance(job, str) and job.endswith(".csv"))
        return pickled(task, listed)

    found = []
    for number, reader in enumerate((in_threads, noting)):
        recipe = Recipe.parse({"name": "x", "target": str(tmp_path / f"built-{number}"), "splits": {"train": split}})
        with parts_read_by(reader):
            source = building.read_source(recipe)
        found.append((source.label_space, source.dropped, source.rest, list(source.images["train"])))
    assert found[0] == found[1]
    assert read == ["part-0.csv", "part-1.csv", "part-2.csv"]
    assert found[0][1]["train"]["a row without an image name"] == 3


def test_folders_listed_side_by_side_are_those_of_one_walk(annotated: Path) -> None:
    whole = storage.list_below(str(annotated))
    chunks, unusable, again = storage.walk_below(str(annotated), pickled)
    assert dict(file for chunk in chunks for file in chunk) == dict(whole.size_of)
    assert (dict(unusable), tuple(again)) == (whole.unusable, whole.again) == ({}, ("link",))


def test_the_first_part_at_fault_is_named(annotated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "CHUNK_FILES", 1)
    for name in ("b/1/1.xml", "a/2/2.xml", "2.tar", "1.tar"):
        (annotated / name).write_text("<annotation>")
    for form, message in (("voc", r"a/2/2\.xml is not readable XML"), ("webdataset", r"data/1\.tar cannot be read as a tar")):
        recipe = Recipe.parse({"name": "x", "splits": {"train": {"format": form, "images": str(annotated)}}})
        with pytest.raises(SourceError, match=message):
            building.read_source(recipe)
