"""The lists of a JSON mapping, entry by entry: what `json.loads` gives, wherever the window ends."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayprob.data.sources import json_stream
from rayprob.data.sources.json_stream import NotStreamed, stream_json

LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4)
KEYS = st.text(max_size=3)
VALUES = st.recursive(LEAVES, lambda one: st.lists(one, max_size=3) | st.dictionaries(KEYS, one, max_size=3), max_leaves=8)
MAPPINGS = st.dictionaries(KEYS, st.lists(VALUES, max_size=4) | LEAVES, max_size=4)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])


def streamed(path: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    stream_json(str(path), dict, lambda key, entry: found.setdefault(key, []).append(entry))
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MAPPINGS, st.integers(4, 40), ENCODINGS, st.sampled_from([None, 2]), st.booleans())
def test_entries_are_those_of_the_whole_text(
    tmp_path: Path, value: dict[str, Any], window: int, encoding: str, indent: int | None, is_ascii: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii)
    content = text.encode(encoding, "surrogatepass")
    (tmp_path / "a.json").write_bytes(gzip.compress(content) if indent else content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "WINDOW_BYTES", window)
        try:
            found = streamed(tmp_path / "a.json")
        except NotStreamed:
            assert "\ud800" <= max(text) <= "\udfff"  # halves of surrogate pairs are not text
            return
    expected = {key: one for key, one in json.loads(text).items() if isinstance(one, list) and one}
    assert json.dumps(found) == json.dumps(expected)  # NaN is not equal to itself


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        '{"a": [1, 2}',
        '{"a": [1 2]}',
        '{"a": [1,]}',
        '{"a": [1]',
        '{"a": [tru',
        '{"a" [1]}',
        '{"a": [1]} {}',
        '{"a": [1], "a": [2]}',
        '{"a": ["x',
        '{"a": ["\n"]}',
        "{1: [2]}",
        '{"a": [1],}',
        '{"a": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"a": [' + "1" * 5000 + "]}",
    ],
)
@pytest.mark.parametrize("window", [4, 2**20])
def test_a_file_at_fault_is_left_to_the_reader_of_whole_files(
    tmp_path: Path, text: str, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "WINDOW_BYTES", window)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(NotStreamed):
        streamed(tmp_path / "a.json")


def test_a_cut_archive_is_left_to_the_reader_of_whole_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(gzip.compress(b'{"a": [1]}')[:-5])
    with pytest.raises(NotStreamed):
        streamed(tmp_path / "a.json")
