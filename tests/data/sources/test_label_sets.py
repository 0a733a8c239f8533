"""Label sets without images: from tables and datasets, and several together."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayprob.data.manifest.dataset import Dataset
from rayprob.data.sources.label_sets import LabelSets, joined, label_names, read_label_sets
from rayprob.errors import DataError
from tests.loader.tiny import write_dataset


def write(path: Path, **columns: object) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_a_column_of_names_is_a_label_set_per_row(tmp_path: Path) -> None:
    source = write(tmp_path / "t.parquet", tags=[["cat", "dog"], [], ["dog"], None])
    found = read_label_sets(source, column="tags")
    assert found.names == ("cat", "dog")
    assert found.targets_NL.tolist() == [[True, True], [False, False], [False, True], [False, False]]
    assert found.known_NL is None


def test_a_column_of_places_needs_names(tmp_path: Path) -> None:
    source = write(tmp_path / "t.parquet", labels=[[0, 2], [1]])
    assert read_label_sets(source, names=["a", "b", "c"]).targets_NL.tolist() == [[True, False, True], [False, True, False]]
    with pytest.raises(DataError, match=r"'labels' contains numbers; name their labels with --names"):
        read_label_sets(source)
    with pytest.raises(DataError, match=r"row 0: label 2 is not a position in the 2 names \(0 to 1\)"):
        read_label_sets(source, names=["a", "b"])
    with pytest.raises(DataError, match=r"has no column 'tags', but labels; set --column"):
        read_label_sets(source, column="tags")


def test_columns_of_zero_and_one_are_labels_and_empty_cells_unknown(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("image,cat,dog,age\na.jpg,1,0,41\nb.jpg,0,,12\nc.jpg,,1,7\n")
    found = read_label_sets(str(file))
    assert found.names == ("cat", "dog")
    assert found.targets_NL.tolist() == [[True, False], [False, False], [False, True]]
    assert found.known_NL is not None
    assert found.known_NL.tolist() == [[True, True], [True, False], [False, True]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,age\na.jpg,41\n", "has no column of 0 and 1; its columns: image, age"),
        ("a,b\n1,0\n1\n", "row 3: 1 cells under a header of 2"),
        ("", "has no column of 0 and 1"),
    ],
)
def test_what_is_no_table_of_labels_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_label_sets(str(tmp_path / "t.csv"))


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("cat")
    with pytest.raises(DataError, match=r"is not a source of label sets; give a built dataset, a .parquet table"):
        read_label_sets(str(tmp_path / "t.txt"))


def test_sources_are_joined_by_the_names_of_labels() -> None:
    first = LabelSets(("cat", "dog"), np.array([[True, False]]))
    second = LabelSets(("dog", "cow"), np.array([[True, True]]), np.array([[True, False]]))
    both = joined([first, second])
    assert both.names == ("cat", "dog", "cow")
    assert both.targets_NL.tolist() == [[True, False, False], [False, True, True]]
    assert both.known_NL is not None
    assert both.known_NL.tolist() == [[True, True, False], [False, True, False]]
    assert joined([first]).known_NL is None


def test_a_dataset_gives_the_label_sets_of_a_split(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, [4, 3]).root
    found = read_label_sets(root, split="train")
    manifest = Dataset.open(root).split("train")
    assert found.names == manifest.label_space.names
    assert len(found) == len(manifest)
    assert np.array_equal(found.targets_NL, manifest.targets() & manifest.known())


def test_coco_has_names_and_so_has_a_file(tmp_path: Path) -> None:
    assert label_names("coco")[:2] == ("person", "bicycle")
    (tmp_path / "names.txt").write_text("cat\n\ndog\n")
    assert label_names(str(tmp_path / "names.txt")) == ("cat", "dog")
