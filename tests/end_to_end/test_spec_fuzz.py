"""Run files, recipes and sweep files with lines and values changed at random: each is read, or refused by an error of ours."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayprob.calibrate.search_spec import ThresholdSearch
from rayprob.config.spec import Spec, override, read_yaml
from rayprob.config.strict_yaml import dump
from rayprob.data.building.recipe import Recipe
from rayprob.errors import RayprobError
from rayprob.runs.spec import Run
from rayprob.sweep.search import Sweep

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "12"))  # a file; with --hypothesis-profile=default they are new ones
REPOSITORY = Path(__file__).resolve().parents[2]
FILES = [*sorted((REPOSITORY / "tune_configs").glob("*.yaml")), *sorted((REPOSITORY / "shards").glob("*.yaml"))]
ODD = (
    *(
        "null",
        "true",
        "yes",
        "no",
        "~",
        "-1",
        "0",
        "1e400",
        ".inf",
        "-.inf",
        ".nan",
        "nan",
        "1e4",
        "0x10",
        "064",
        "1:30",
        "1_000",
    ),
    *(
        "99999999999999999999",
        "'1'",
        '"x"',
        "''",
        "[]",
        "{}",
        "[1, 2]",
        "{a: 1}",
        "[[1]]",
        "{name: x}",
        "2024-01-01",
        "a b",
        "é",
    ),
    *(
        "auto",
        "\U0001f600",
        "x" * 3000,
        "1" * 5000,
        "!!python/object:os.x {}",
        "!!int x",
        "&a [*a]",
        "*a",
        "<<",
        "- x",
        "\t",
        "\0",
    ),
    *(
        '"\\ud800"',
        '"\\0"',
        "[" * 200,
        "{",
        "]",
        ":",
        "? x",
        "# x",
        "| x",
        "--- x",
        "%YAML 1.1",
        "/",
        "..",
        "../",
        "s3://",
        "file://",
    ),
)


def kind_of(path: Path) -> type[Spec]:
    """The spec that reads a file."""
    if path.parent.name == "shards":
        return Recipe
    keys = read_yaml(path).keys()
    return Sweep if "search" in keys else ThresholdSearch if "thresholds" in keys else Run


def lines_of(path: Path) -> list[str]:
    """The file written out with all that it extends, a line for each key, without comments."""
    return dump(read_yaml(path)).splitlines()


def mutated(lines: list[str], draw: st.DrawFn) -> list[str]:
    """Lines deleted, doubled, swapped, moved in or out, cut, or given another value."""
    lines = list(lines)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["delete", "double", "swap", "indent", "cut", *["value"] * 6, "key"])):
            case "delete" if len(lines) > 1:
                del lines[at]
            case "double":
                lines.insert(at, lines[at])
            case "swap":
                other = draw(st.integers(0, len(lines) - 1))
                lines[at], lines[other] = lines[other], lines[at]
            case "indent":
                lines[at] = draw(st.sampled_from(["  ", "\t", ""])) + lines[at].strip()
            case "cut":
                lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
            case "value":
                lines[at] = f"{lines[at].partition(':')[0]}: {draw(st.sampled_from(ODD))}"
            case "key":
                head = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
                lines[at] = f"{head}{draw(st.sampled_from(ODD))}:{lines[at].partition(':')[2]}"
    return lines


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_changed_file_is_read_or_refused(path: Path, tmp_path: Path, data: st.DataObject) -> None:
    kind, file = kind_of(path), tmp_path / "changed.yaml"
    text = "\n".join(data.draw(st.composite(lambda draw: mutated(lines_of(path), draw))()))
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        spec = kind.read(file)
    except RayprobError:
        return
    json.dumps(spec.model_dump(mode="json"), allow_nan=False)
    if not isinstance(spec, Sweep):
        assert kind.read_text(spec.to_yaml(), "as written").fingerprint == spec.fingerprint


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_an_odd_override_is_taken_or_refused(path: Path, data: st.DataObject) -> None:
    kind, value = kind_of(path), read_yaml(path)
    keys = data.draw(st.sampled_from(list(dotted(value))))
    key = data.draw(st.sampled_from([keys, keys + ".x", keys + ".0", keys.rpartition(".")[0] + ".", keys + "x"]))
    assignment = f"{key}={data.draw(st.sampled_from(ODD))}"
    try:
        Sweep.read(path, [assignment]) if kind is Sweep else kind.parse(override(value, [assignment]))
    except RayprobError as error:
        said = str(error)
    else:
        said = ""
    assert len(said) < 20_000


def dotted(value: dict[str, object], prefix: str = "") -> list[str]:
    """Every dotted key of a mapping, those of its parts too."""
    below = [name for key, part in value.items() if isinstance(part, dict) for name in dotted(part, f"{prefix}{key}.")]
    return [f"{prefix}{key}" for key in value] + below
