"""JSON files and JSON lines: what their readers rely on is there, and damage names the file, the key and what to do."""

from pathlib import Path

import pytest

from rayprob.errors import DatasetError, RunError, StorageError
from rayprob.files.documents import Count, Shape, read_json, read_lines

REMEDY = "write it again"


class Point(Shape):
    x: float
    name: str = ""


class Mark(Shape):
    number: Count


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "point.json"


def test_keys_that_the_shape_does_not_name_are_kept_and_nothing_is_added(file: Path) -> None:
    file.write_text('{"x": 1, "more": [1, null]}')
    assert read_json(str(file), Point, remedy=REMEDY) == {"x": 1, "more": [1, None]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"point.json is not JSON \(Expecting property name"),
        (b"\xff", r"point.json is not JSON \('utf-8' codec can't decode"),
        (b"[" * 100_000, r"point.json is not JSON \(.*recursion"),
        (b'{"x": 1, "name": "\\ud800"}', r"point.json is not JSON \('utf-8' codec can't encode"),
        (b'{"x": ' + b"9" * 5000 + b"}", r"point.json is not JSON \(Exceeds the limit"),
        (b"[1]", "point.json contains list, not a mapping"),
        (b"{}", "point.json: x: required, but missing"),
        (b'{"x": true}', r"point.json: x: input should be a valid number \(found true\)"),
        (b'{"x": "1", "name": null}', r"point.json: x: input should be .*; name: expected text \(found null\)"),
    ],
)
def test_a_damaged_file_names_itself_the_key_and_the_remedy(file: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)
    with pytest.raises(DatasetError, match=f"{message}.*; write it again$"):
        read_json(str(file), Point, error=DatasetError, remedy=REMEDY)


def test_a_missing_file_and_a_folder_are_storage_errors(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(StorageError):
            read_json(str(path), remedy=REMEDY)


def test_a_last_line_without_its_newline_is_left_out(file: Path) -> None:
    file.write_text('{"kind": "mark", "number": 1}\n\n{"kind": "mark", "number": 2}\n{"kind": "ma')
    assert [row["number"] for row in read_lines(str(file), {"mark": Mark}, remedy=REMEDY)] == [1, 2]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("null", "point.json, line 2 contains NoneType, not a mapping"),
        ('{"kind": "other"}', "point.json, line 2: kind is 'other'; allowed: mark"),
        ('{"kind": ["mark"]}', r"point.json, line 2: kind is \['mark'\]; allowed: mark"),
        (
            '{"kind": "mark", "number": -1}',
            r"point.json, line 2: number: input should be greater than or equal to 0 \(found -1\)",
        ),
        ('{"kind": "mark", "number": 9007199254740992}', "point.json, line 2: number: input should be less than"),
    ],
)
def test_a_damaged_line_is_named_by_its_number(file: Path, line: str, message: str) -> None:
    file.write_text(f'{{"kind": "mark", "number": 1}}\n{line}\n')
    with pytest.raises(RunError, match=f"{message}.*; write it again$"):
        read_lines(str(file), {"mark": Mark}, remedy=REMEDY)
