"""YAML: the scalars of version 1.2, each key once, every fault in one line with its place, and files written to read back."""

import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rayprob.config.strict_yaml import dump, load, plain
from rayprob.errors import SpecError

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in ("ab", "bc", "cd", "de", "ef", "fg")
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False),
    TEXT,
    st.from_regex(r"[-+]?[0-9ox._:eE]{1,8}", fullmatch=True),
    st.sampled_from(["yes", "off", "Null", "~", "<<", "=", "1e4", "0o17", "064", "1:30", "1_000", "2024-01-01", ".inf", "# x"]),
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("+3", 3),
        ("0o17", 15),
        ("0x1F", 31),
        ("1e4", 1e4),
        ("1e-4", 1e-4),
        ("1.", 1.0),
        (".5", 0.5),
        ("08.5", 8.5),
        ("-.inf", -math.inf),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_a_plain_scalar_is_what_yaml_1_2_reads(text: str, value: Any) -> None:
    found = plain(load(f"a: {text}", "here"))["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text", ["yes", "No", "on", "OFF", "y", "064", "1:30", "1_000", "0b11", "2024-01-01", "inf", "nan", "1,5"]
)
def test_what_only_yaml_1_1_reads_as_something_else_is_text(text: str) -> None:
    assert load(f"a: {text}", "here") == {"a": text}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 1\nb: 2\nlr: 3", r"line 3, column 1: the key 'lr' is given twice, on lines 1 and 3; keep one"),
        ("a:\n  b: {c: 1, c: 2}", r"line 2, column 13: the key 'c' is given twice, on line 2"),
        ("'a': 1\na: 2", "the key 'a' is given twice"),
        ("1: x", r"line 1, column 1: the key '1' is not text; put it in quotes"),
        ("null: x", "the key 'null' is not text"),
        ("[a]: x", "a key must be text, not a list or mapping"),
        ("{lr: 0,1}", r"the key '1' is not text; .*decimals with a point"),
        ("a: &x {b: *x}", r"line 1, column 4: an anchor's value contains its own alias"),
        (LAUGHS, r"expanding the aliases gives more than 100,000 values"),
        ("[" * 3000, r"line 1, column \d+: more than 100 levels of nesting"),
        ("{a: " * 3000, r"line 1, column \d+: more than 100 levels of nesting"),
        ("\n".join(f"a{n}: &a{n} [{f'*a{n - 1}' if n else ''}]" for n in range(200)), r"line 101, .* or 100 levels of nesting"),
        ("a: !!python/object:os.x {}", r"line 1, column 4: the tag '!!python/object:os.x' is not supported"),
        ("a: !!set {x}", "the tag '!!set' is not supported; remove it"),
        ("a: !!int yes", "'yes' is not of the type !!int"),
        ("a: *b", "undefined alias 'b'"),
        ("a: 1\n---\na: 2", "line 2, column 1: expected a single document"),
        ("a:\n\tb: 1", r"line 2, column 1: .*cannot start any token"),
        ("a: 1\nb: \0", r"line 2 contains the character '\\x00', which YAML does not allow"),
        ('a: "\\ud800"', "half of a surrogate pair"),
        ('a: "\\UFFFFFFFF"', "invalid escape in a quoted text"),
        (b"a: 1\n# caf\xe9", "line 2 contains bytes that are not UTF-8; save it as UTF-8"),
        ("<<: 3", "the merge key << needs a mapping or a list of mappings"),
    ],
)
def test_a_fault_is_one_line_that_says_where(text: str | bytes, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        load(text, "here")
    assert str(caught.value).startswith("here is not valid YAML: ")
    assert "\n" not in str(caught.value)


def test_byte_order_marks_and_windows_line_ends_are_read() -> None:
    text = "a: 1\r\nb: é\r\n"
    assert load(b"\xef\xbb\xbf" + text.encode(), "here") == load(text.encode("utf-16"), "here") == {"a": 1, "b": "é"}


def test_merge_keys_and_anchors_mean_what_they_meant() -> None:
    text = "base: &b {lr: 1, wd: 2}\nmine: {<<: *b, lr: 3}\nboth: {<<: [{lr: 4}, *b]}\n"
    assert load(text, "here") == yaml.safe_load(text)


def test_a_comment_on_a_command_line_is_not_cut_off_in_silence() -> None:
    for text in ("/data/a #2", "#2", "[1] # x"):
        with pytest.raises(SpecError, match=r"a # after a space starts a comment; put a value that contains it in quotes"):
            load(text, "--set x: the value", comments=False)
    assert load("'/data/a #2'", "here", comments=False) == "/data/a #2"
    assert load("a#2", "here", comments=False) == "a#2"


@given(
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8)
)
def test_what_is_dumped_reads_back_here_and_in_yaml_1_1(value: Any) -> None:
    text = dump(value)
    assert plain(load(text, "here")) == value
    assert yaml.safe_load(text) == value


@given(st.dictionaries(st.from_regex("[a-z]{1,5}", fullmatch=True), SCALARS))
def test_what_0_1_wrote_reads_back(value: dict[str, Any]) -> None:
    old = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    read = load(old, "here")
    # Text such as 1e4 was written without quotes: it is a number now, which remembers how it was written.
    as_text = {key: getattr(read[key], "text", read[key]) if isinstance(value[key], str) else read[key] for key in value}
    assert as_text == yaml.safe_load(old)


@given(st.text() | st.binary())
def test_any_text_is_a_value_or_one_fault(text: str | bytes) -> None:
    fault = ""
    try:
        load(text, "here")
    except SpecError as error:
        fault = str(error)
    assert "\n" not in fault


def test_integers_may_be_keys_where_a_file_is_of_another_program() -> None:
    text = "names: {0: cat, 1: dog}\nlist: [{2: elk}]"
    assert load(text, "data.yaml", number_keys=True) == {"names": {"0": "cat", "1": "dog"}, "list": [{"2": "elk"}]}
    with pytest.raises(SpecError, match="the key '0' is not text"):
        load(text, "data.yaml")
