"""The verb `predict`, as a person runs it, and its figures."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image as Pillow
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.errors import BundleError, ModelError, RayprobError, SpecError, StorageError

QUERY = "P(fork | dining table, !person)"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_one_image_is_shown_with_bars_and_answers(bundle_path: str, photos: Path) -> None:
    asked = ("--query", QUERY, "--evidence", "knife=1", "--rule", "label_OF1")
    result = run(bundle_path, photos / "photo-2.jpg", *asked)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == str(photos / "photo-2.jpg")
    assert any(line.startswith("knife") and "█" * 24 in line and line.endswith("known") for line in map(str.rstrip, lines))
    for beginning in ("label set by label_OF1: ", "most probable sets: ", "entropy ", f"{QUERY} = 0."):
        assert any(line.startswith(beginning) for line in lines), beginning


def test_several_images_take_a_few_lines_each(bundle_path: str, photos: Path) -> None:
    result = run(bundle_path, photos, "--rule", "recall@0.1", "--top", 2, "--mc-dropout", 3)
    assert result.exit_code == 0, result.output
    assert result.output.count("  label set by recall@0.1: ") == 5
    assert result.output.count("  this rule misses at most 10 % of an image's labels on average") == 5
    assert result.output.count("; 3 members, summed over labels: total ") == 5


def test_json_is_one_object_a_line_and_nothing_else(bundle_path: str, photos: Path) -> None:
    result = run(bundle_path, photos, "--json", "-q", QUERY, "-q", "P(count >= 2)")
    said = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(one["image"]).name for one in said] == [f"photo-{place}.jpg" for place in range(5)]
    assert all([answer["query"] for answer in one["answers"]] == [QUERY, "P(count >= 2)"] for one in said)


def test_a_run_folder_stands_for_its_bundle(bundle_path: str, photos: Path) -> None:
    said = [run(path, photos / "photo-0.jpg", "--json").stdout for path in (bundle_path, Path(bundle_path).parent)]
    assert said[0] == said[1] != ""


def test_bad_images_are_named_and_the_others_predicted(bundle_path: str, photos: Path) -> None:
    (photos / "photo-1b.jpg").write_text("hello")
    message = "photo-1b.jpg is a file that begins b'hell', not a JPEG, PNG or WebP; convert it"
    result = run(bundle_path, photos, "--json")
    assert result.exit_code == 1
    said = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["error"] is None for one in said] == [True, True, False, True, True, True]
    assert list(said[2]) == ["image", "sample_id", "error"]
    assert message in result.stderr
    assert "1 of 6 images could not be read; --skip-bad ignores them" in result.stderr
    skipping = run(bundle_path, photos, "--skip-bad")
    assert (skipping.exit_code, message in skipping.stderr) == (0, True)
    alone = run(bundle_path, photos / "photo-1b.jpg", "--skip-bad")
    assert (alone.exit_code, "1 of 1 images could not be read" in alone.stderr) == (1, True)


def test_parquet_names_rejects_and_is_there_the_second_time(bundle_path: str, photos: Path, tmp_path: Path) -> None:
    (photos / "photo-1b.jpg").write_text("hello")
    table = tmp_path / "t.parquet"
    first = run(bundle_path, photos, "--parquet", table)
    assert (first.exit_code, first.stdout) == (1, f"{table}: 6 rows\n")
    assert "photo-1b.jpg is a file that begins" in first.stderr
    second = run(bundle_path, photos, "--parquet", table, "--skip-bad")
    assert (second.exit_code, second.stdout) == (0, f"already there: {table}: 6 rows\n")
    assert "photo-1b.jpg is a file that begins" in second.stderr
    both = run(bundle_path, photos, "--parquet", table, "--json")
    assert (both.exit_code, "--parquet cannot be combined with --json" in both.stderr) == (2, True)


def test_a_figure_is_sampled_for_each_image(bundle_path: str, photos: Path, tmp_path: Path) -> None:
    (photos / "below").mkdir()
    shutil.copy(photos / "photo-0.jpg", photos / "below" / "photo-0.jpg")
    images = [photos / "photo-0.jpg", photos / "below"]
    asked = ("-q", QUERY, "-e", "knife=1", "--mc-dropout", 3, "--top", 6)
    result = run(bundle_path, *images, "--figure", tmp_path / "figures", *asked)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["photo-0-2.png", "photo-0.png"]
    with Pillow.open(tmp_path / "figures" / "photo-0.png") as figure:
        assert figure.width == 11 * 130
        colours = {colour for _, colour in figure.convert("RGB").getcolors(2**24) or []}
    assert {(0xD9, 0x90, 0x2F), (0x21, 0x66, 0xAC)} <= colours  # the bars of what is known and of what is chosen


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["{bundle}", "{photos}/gone.jpg"], StorageError, "no file or folder at"),
        (["{photos}", "{photos}"], BundleError, "no bundle at .*photos: bundle.json is missing"),
        (["{old}", "{photos}"], BundleError, "has version 0, but this rayprob reads 1"),
        (["{bundle}", "{photos}", "--batch", "0"], SpecError, "--batch must be at least 1; got 0"),
        (["{bundle}", "{photos}", "--ensemble", "{bundle}", "--mc-dropout", "3"], ModelError, "use one of them"),
    ],
)
def test_what_a_person_gets_wrong_has_a_message(
    bundle_path: str, photos: Path, tmp_path: Path, arguments: list[str], error: type[RayprobError], message: str
) -> None:
    old = tmp_path / "old"
    shutil.copytree(bundle_path, old)
    described = json.loads((old / "bundle.json").read_text())
    (old / "bundle.json").write_text(json.dumps(described | {"version": 0}))
    result = run(*(argument.format(bundle=bundle_path, photos=photos, old=old) for argument in arguments))
    with pytest.raises(error, match=message):
        raise result.exception or AssertionError(result.output)
