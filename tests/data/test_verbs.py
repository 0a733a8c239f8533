"""The verbs shard, verify and inspect, as a person runs them."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.data.building import build as building
from rayprob.data.building.shard import BuiltShard, ShardJob
from rayprob.errors import DatasetError, SourceError
from tests.data.small_source import Source


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verbs build in this process."""
    monkeypatch.setattr(building, "on_ray", lambda: building.in_process)


def recipe_file(source: Source) -> str:
    path = source.folder / "small.yaml"
    path.write_text(source.recipe().to_yaml())
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_shard_says_what_was_built_where_and_what_is_next(source: Source) -> None:
    result = run("shard", recipe_file(source))
    assert result.exit_code == 0
    assert "50 images (train 31, holdout 8, val 11) in 7 shards" in result.output
    assert "wrote 50 images in" in result.output
    assert f"next: rayprob inspect {source.built}    rayprob verify {source.built}" in result.output
    again = run("shard", recipe_file(source))
    assert f"already built: {source.built}" in again.output
    assert "wrote" not in again.output


def test_shard_says_what_was_rejected_corrected_and_continued(source: Source) -> None:
    source.image(905).write_bytes(b"GIF89a")
    source.change("val", lambda content: content["images"][6].update(width=1))
    recipe = source.recipe(allow_rejects=1)

    def stopping(write: Callable[[ShardJob], BuiltShard], jobs: Sequence[ShardJob]) -> Iterator[BuiltShard]:
        yield write(jobs[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        building.build(recipe, run_tasks=stopping)
    result = run("shard", recipe_file(source), "--set", "allow_rejects=1")
    assert "1 shards were already done" in result.output
    assert f"rejected 1 image, listed in {source.built}/rejected.jsonl" in result.output
    assert "1 image with a wrong declared size" in result.output


def test_images_that_exif_turns_are_counted_by_shard_and_inspect(source: Source) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(source.image(905)) as image:
        image.save(source.image(905), exif=exif)
    line = "  1 image is turned upright, as its EXIF states\n"
    assert line in run("shard", recipe_file(source)).output
    assert line in run("inspect", str(source.built)).output
    facts_file = source.built / "dataset.json"
    facts = json.loads(facts_file.read_text())
    assert facts.pop("exif_rotated") == json.loads(run("inspect", str(source.built), "--json").output)["exif_rotated"] == 1
    assert facts.pop("orientation") == "upright"
    facts_file.write_text(json.dumps(facts | {"exif_rotated": 1}))  # as 0.1 wrote it
    assert "  1 image is turned by EXIF but read as stored; build the dataset again to read it upright\n" in (
        run("inspect", str(source.built)).output
    )
    facts_file.write_text(json.dumps(facts))  # as the first builds of 0.1 wrote it
    for verb in ("shard", "inspect"):
        argument = recipe_file(source) if verb == "shard" else str(source.built)
        result = run(verb, argument)
        assert (result.exit_code, "EXIF" in result.output) == (0, False)


def test_a_stopped_shard_exits_with_130_and_says_how_to_go_on(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(write: Callable[[ShardJob], BuiltShard], jobs: Sequence[ShardJob]) -> Iterator[BuiltShard]:
        yield write(jobs[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "on_ray", lambda: stopped)
    result = run("shard", recipe_file(source))
    assert result.exit_code == 130
    assert "stopped; 1 of 7 shards are done; the same command continues" in result.output


def test_shard_leaves_a_fault_of_the_source_to_the_front_door(source: Source) -> None:
    source.image(905).unlink()
    assert isinstance(run("shard", recipe_file(source)).exception, SourceError)


def test_a_dataset_that_does_not_count_its_rejects_is_shown_and_a_count_that_is_text_is_named(source: Source) -> None:
    source.build()
    path = source.built / "dataset.json"
    facts = json.loads(path.read_text())
    counts = ("rejected", "sizes_corrected", "exif_rotated")
    path.write_text(json.dumps({key: value for key, value in facts.items() if key not in counts}))
    assert "already built" in run("shard", recipe_file(source)).output
    for key in counts:
        path.write_text(json.dumps(facts | {key: "many"}))
        with pytest.raises(DatasetError, match=rf"dataset.json: {key}: .*found 'many'"):
            CliRunner().invoke(app, ["inspect", str(source.built)], catch_exceptions=False)


def test_verify_passes_a_sound_dataset_and_fails_a_damaged_one(source: Source) -> None:
    source.build()
    sound = run("verify", str(source.built))
    assert (sound.exit_code, f"{source.built}: every byte is as it was built" in sound.output) == (0, True)
    shard: Path = source.built / "val-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1024])
    damaged = run("verify", str(source.built))
    assert damaged.exit_code == 1
    assert "val-000000.tar: has " in damaged.output
    assert f"3 faults in {source.built}" in damaged.output


def test_inspect_prints_tables_or_json(built_once: Source) -> None:
    tables = run("inspect", str(built_once.built))
    for words in ("holdout", "labels, most frequent first", "tram", "labels per image", "label sets", "co-occurrences"):
        assert words in tables.output
    found = json.loads(run("inspect", str(built_once.built), "--json", "--top", "2").output)
    assert [split["samples"] for split in found["splits"]] == [31, 8, 11]
    assert len(found["top_sets"]) == 2
