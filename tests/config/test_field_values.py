"""Values by the type of their field: the same in a file and in --set, and nothing taken for something else."""

from typing import Any, Literal

import pytest
from pydantic import Field, PositiveInt

from rayprob.config.spec import Spec, override
from rayprob.errors import SpecError


class Inner(Spec):
    lr: float = 0.1


class Fields(Spec):
    name: str = "x"
    steps: int = 1
    lr: float = 0.1
    least: float | None = None
    is_on: bool = False
    gpu: bool | Literal["auto"] = "auto"
    chroma: Literal["444", "420"] = "420"
    workers: PositiveInt | Literal["auto"] | tuple[PositiveInt, PositiveInt] = "auto"
    betas: tuple[float, float] = (0.9, 0.99)
    counts: tuple[int, ...] = ()
    anything: Any = None
    inner: Inner = Inner()
    parts: dict[str, Inner] = Field(default={})


def both(key: str, text: str) -> tuple[Fields, Fields]:
    """The same value in a file and in --set."""
    return Fields.read_text(f"{key}: {text}", "file"), Fields.parse(override({}, [f"{key}={text}"]), "set")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("steps", "1e4", 10_000),
        ("steps", "5.0", 5),
        ("steps", "0x10", 16),
        ("lr", "1e-4", 1e-4),
        ("lr", "3", 3.0),
        ("lr", "'0.5'", 0.5),
        ("least", "null", None),
        ("is_on", "true", True),
        ("is_on", "'False'", False),
        ("gpu", "auto", "auto"),
        ("name", "2024", "2024"),
        ("name", "1e5", "1e5"),
        ("name", "1.10", "1.10"),
        ("name", "007", "007"),
        ("name", "on", "on"),
        ("name", "2024-01-01", "2024-01-01"),
        ("name", "'2024'", "2024"),
        ("name", '"true"', "true"),
        ("chroma", "444", "444"),
        ("workers", "3.0", 3),
        ("workers", "[1, 2.0]", (1, 2)),
        ("betas", "[1, 5e-1]", (1.0, 0.5)),
        ("counts", "[1e2, 3]", (100, 3)),
        ("anything", "[1e4, 0x10, {a: 1.50}]", [1e4, 16, {"a": 1.5}]),
    ],
)
def test_a_value_is_read_by_the_type_of_its_field(key: str, text: str, value: Any) -> None:
    for fields in both(key, text):
        found = getattr(fields, key)
        assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("lr", "yes", r"lr: expected a number \(found 'yes'\)"),
        ("lr", "true", r"lr: expected a number, not a boolean \(found true\)"),
        ("steps", "on", r"steps: expected an integer \(found 'on'\)"),
        ("steps", "true", r"steps: expected an integer, not a boolean"),
        ("steps", "064", r"steps: expected an integer; a leading zero .*: write 64, or 52 \(0o64\) for octal"),
        ("steps", "09", r"is ambiguous in YAML: write 9 \(found '09'\)"),
        ("steps", "1_000", r"write it without underscores: 1000"),
        ("steps", "1.5", r"steps: input should be a valid integer, got a number with a fractional part \(found 1.5\)"),
        ("steps", "1e300", r"steps: expected an integer of at most 64 bits"),
        ("lr", "1:30", r"lr: expected a number \(found '1:30'\)"),
        ("lr", ".inf", r"lr: expected a finite number"),
        ("lr", "1e999", r"lr: expected a finite number"),
        ("lr", "NaN", r"lr: expected a number; it must be finite \(found 'NaN'\)"),
        ("steps", ".nan", r"steps: expected a finite number"),
        ("betas", "[0.9, .inf]", r"betas\[1\]: expected a finite number"),
        ("betas", "[0.9, on]", r"betas: expected a number \(found \[0.9, 'on'\]\)"),
        ("betas", "[0.9]", r"betas\[1\]: required, but missing"),
        ("betas", "0.9", r"betas: expected a list \(found 0.9\)"),
        ("least", "off", r"least: expected a number or null"),
        ("is_on", "yes", r"is_on: expected true or false \(found 'yes'\)"),
        ("is_on", "1", r"is_on: expected true or false, not a number \(found 1\)"),
        ("gpu", "1", r"gpu: expected true, false or auto, not a number"),
        ("gpu", "on", r"gpu: expected true, false or auto \(found 'on'\)"),
        ("chroma", "true", r"chroma: expected 444 or 420, not a boolean"),
        ("name", "true", r"name: expected text, not a boolean; put text in quotes \(found true\)"),
        ("name", "null", r"name: expected text \(found null\)"),
        ("name", "[a]", r"name: expected text \(found \['a'\]\)"),
        ("workers", "many", r"workers: expected an integer, auto or a list \(found 'many'\)"),
        ("workers", "0", r"workers: input should be greater than 0 or input should be 'auto' or expected a list \(found 0\)"),
        ("workers", "[0, 2]", r"workers: .*or input should be greater than 0|workers\[0\]: input should be greater than 0"),
        ("inner", "3", r"inner: expected a mapping with keys of lr \(found 3\)"),
        ("inner", "{lrr: 3}", r"unknown key under inner: 'lrr'; nearest: lr; allowed: lr"),
        ("parts", "{a: {lr: x}}", r"parts.a.lr: expected a number \(found 'x'\)"),
        ("parts", "{a: {lrr: 1}}", r"unknown key under parts.a: 'lrr'; nearest: lr; allowed: lr"),
        ("parts", "{a: 3}", r"parts.a: expected a mapping with keys of lr"),
    ],
)
def test_a_value_of_another_type_is_refused_in_a_file_and_in_set(key: str, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Fields.read_text(f"{key}: {text}", "file")
    with pytest.raises(SpecError, match=message):
        Fields.parse(override({}, [f"{key}={text}"]), "set")


def test_a_part_of_a_file_is_named_with_the_key_where_it_lies() -> None:
    with pytest.raises(
        SpecError, match=r"run.yaml has 2 faults:\n  search.lr: .*\n  unknown key under search: 'x'; allowed: lr"
    ):
        Inner.parse({"lr": "a", "x": 1}, "run.yaml", under="search")


@pytest.mark.parametrize("assignment", ["=1", "a..b=1", ".a=1", "a.=1", " =1", "a", ""])
def test_an_override_needs_a_key(assignment: str) -> None:
    with pytest.raises(SpecError, match=r"--set needs KEY=VALUE, such as optimizer.lr=0.1; found"):
        override({}, [assignment])


def test_of_two_overrides_of_a_key_the_last_counts_and_a_part_that_is_null_is_begun() -> None:
    assert override({"ema": None}, ["ema.a=1", "ema.a=2", "ema.b=3"]) == {"ema": {"a": 2, "b": 3}}


def test_a_list_is_set_whole() -> None:
    with pytest.raises(SpecError, match=r"--set a.betas.0=1: 'betas' is a list; set all of it, such as betas=\[...\]"):
        override({"a": {"betas": [1, 2]}}, ["a.betas.0=1"])


@pytest.mark.parametrize("extends", ["3", "[a]", "''", '"a\\0b"', "true"])
def test_extends_takes_a_path(tmp_path: Any, extends: str) -> None:
    (tmp_path / "run.yaml").write_text(f"extends: {extends}\n")
    with pytest.raises(SpecError, match=r"run.yaml: extends must be the path of a YAML file, relative to this one \(found"):
        Fields.read(tmp_path / "run.yaml")


def test_a_folder_and_an_empty_file_are_no_run_file(tmp_path: Any) -> None:
    with pytest.raises(SpecError, match=r"cannot read .*: Is a directory; give the path of a YAML file"):
        Fields.read(tmp_path)
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    with pytest.raises(SpecError, match="is empty; write `key: value` lines"):
        Fields.read(tmp_path / "empty.yaml")


def test_a_key_that_an_option_gives_is_named_by_its_option() -> None:
    options = {"steps": "--steps", "counts": "--count"}
    with pytest.raises(
        SpecError, match=r"verb has 2 faults:\n  --steps: expected an integer.*\n  --count: input should be .*integer"
    ):
        Fields.parse({"steps": "x", "counts": [1, 2.5]}, "verb", options=options)
