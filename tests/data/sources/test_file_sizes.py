"""Files are found by a hash of their names, also where hashes collide."""

from pathlib import Path

import pytest

from rayprob.data.sources import sample_ids
from rayprob.data.sources.file_sizes import NOT_THERE, FileSizes
from rayprob.data.sources.image_files import ImageFiles


def test_sizes_are_those_of_the_names() -> None:
    files = FileSizes([[("b/é.jpg", 7), ("a.jpg", 0)], [("c.jpg", 5)]])
    assert files.of(["c.jpg", "x.jpg", "a.jpg", "b/é.jpg", ""]).tolist() == [5, NOT_THERE, 0, 7, NOT_THERE]
    assert (files.get("a.jpg"), files.get("A.jpg"), "c.jpg" in files, "C.jpg" in files) == (0, None, True, False)
    assert (len(files), sorted(files), dict(files.items())["c.jpg"]) == (3, ["a.jpg", "b/é.jpg", "c.jpg"], 5)


def test_no_file_is_in_an_empty_folder() -> None:
    assert FileSizes([]).of(["a", "b"]).tolist() == [NOT_THERE, NOT_THERE]


def test_names_of_one_hash_keep_their_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}.jpg" for number in range(50)]
    monkeypatch.setattr("rayprob.data.sources.file_sizes.hash", len, raising=False)
    monkeypatch.setattr(sample_ids, "hash", len, raising=False)
    files = FileSizes([[(name, place) for place, name in enumerate(names)]])
    assert files.of(names).tolist() == list(range(50))


def test_a_name_without_suffix_is_that_of_the_only_image_that_has_it(tmp_path: Path) -> None:
    for name in ("one.JPG", "two.jpg", "two.png", "three.txt", "deep/four.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    names = ["one", "two", "three", "deep/four", "two.png", "five"]
    files = ImageFiles(str(tmp_path))
    sizes, renamed = files.find_all(names, [()] * 5 + [("three.txt",)])
    assert sizes.tolist() == [7, NOT_THERE, NOT_THERE, 14, 7, 9]
    assert renamed == {0: "one.JPG", 3: "deep/four.webp", 5: "three.txt"}
    assert files.why_absent("two") == f"{tmp_path} has two.jpg, two.png of that name; give the name with its suffix"
