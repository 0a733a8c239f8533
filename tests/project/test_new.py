"""Projects as they are written: they read, fit what was found, say what to run, and overwrite nothing."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.errors import SpecError, StorageError
from rayprob.loader.batch_rules import Sizes
from rayprob.project.fitting import SMALL, Network, fit_to
from rayprob.project.found import Found, FoundSplit
from rayprob.project.new import new_from, new_like
from rayprob.project.write import commands_in, files_for, name_for
from rayprob.runs.spec import Run
from rayprob.scenes.generate import ScenesSpec, generate_scenes
from rayprob.sweep.search import Sweep
from tests.commands import fault_of, rayprob_commands


def found_of(num_train: int, *, side_px: int | None = 480, splits: tuple[str, ...] = ("train", "val")) -> Found:
    sides = (side_px,) if side_px else ()
    split = FoundSplit({"images": "/data/it's: here", "annotations": "/data/a #1.json"}, num_train, 0, sides)
    return Found("/data", dict.fromkeys(splits, split), ("cat", "dog"))


def read_all(folder: Path, name: str) -> tuple[Recipe, Run, Sweep]:
    configs = folder / "tune_configs"
    recipe = Recipe.read(folder / "shards" / f"{name}.yaml")
    return recipe, Run.read(configs / f"{name}.yaml"), Sweep.read(configs / f"{name}-sweep.yaml")


@settings(max_examples=25)
@given(st.integers(1, 2_000_000), st.none() | st.integers(1, 10_000), st.booleans())
def test_a_project_reads_and_its_batches_fit_for_any_number_and_size_of_images(
    num_train: int, side_px: int | None, has_val: bool
) -> None:
    found = found_of(num_train, side_px=side_px, splits=("train", "val") if has_val else ("train",))
    fit = fit_to(found)
    files = files_for("mine", found, fit, Network())
    recipe = Recipe.read_text(files["shards/mine.yaml"], "recipe")
    run = Run.read_text(files["tune_configs/mine.yaml"], "run")
    assert (recipe.root, recipe.splits["train"].images) == (run.data.root, "/data/it's: here")
    assert recipe.holdout is not None
    assert 0.05 <= recipe.holdout.fraction <= 0.2
    if num_train >= 40:
        kept = num_train - round(1.2 * recipe.holdout.fraction * num_train)  # a hash holds out more or fewer than the share
        Sizes(kept, run.stream.global_batch, run.stream.lanes, 1, run.micro_batch(1)).check("train")
    assert run.model.frozen == ("backbone" if num_train < SMALL else "none")
    assert 64 <= run.transforms.train.size_px <= 448
    assert 5 <= run.duration.epochs <= 30  # type: ignore[operator]


def test_fewer_images_than_a_network_needs_freeze_it_and_more_train_it_all() -> None:
    small, large = fit_to(found_of(286)), fit_to(found_of(82_081))
    assert (small.is_small, small.size_px, small.evaluate_px, small.global_batch, small.epochs) == (True, 384, 576, 16, 18)
    assert (small.lr, large.lr, fit_to(found_of(36)).global_batch, fit_to(found_of(36)).lr) == (0.5, 0.8, 2, 0.0625)
    assert (large.is_small, large.size_px, large.evaluate_px, large.global_batch, large.epochs) == (False, 448, 448, 128, 30)


def test_a_project_from_a_folder_builds_and_its_files_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate_scenes(str(tmp_path / "photos"), ScenesSpec(num_train=60, num_val=12, size_px=64, num_labels=4), num_processes=1)
    written, found, _ = new_from(str(tmp_path / "My Birds"), str(tmp_path / "photos"))
    assert written.files == (
        "shards/my-birds.yaml",
        "tune_configs/my-birds.yaml",
        "tune_configs/my-birds-sweep.yaml",
        "README.md",
    )
    recipe, run, sweep = read_all(written.folder, "my-birds")
    assert (recipe.name, run.name, sweep.run.name) == ("my-birds", "my-birds", "my-birds-sweep")
    assert found.num_train == recipe.splits["train"].expect.labelled  # type: ignore[union-attr]
    monkeypatch.chdir(written.folder)
    assert build(recipe, run_tasks=in_process).root == run.data.root


def test_the_readme_of_a_project_lists_commands_that_are_known(tmp_path: Path) -> None:
    written = new_like(str(tmp_path / "demo"), "demo-sweep")
    page = (tmp_path / "demo" / "README.md").read_text()
    commands = [" ".join(command) for command in rayprob_commands(page)]
    assert commands[0] == "scenes demo/scenes --train 4000 --val 1000 --size 128 --labels 20"
    assert [command.split()[0] for command in commands] == [
        "scenes",
        "shard",
        "train",
        "evaluate",
        "calibrate",
        "report",
        "tune",
        "train",
    ]
    assert [fault for command in rayprob_commands(page) if (fault := fault_of(command))] == []
    assert written.next_commands[:2] == tuple(f"rayprob {command}" for command in commands[:2])


def test_a_network_of_timm_names_the_extra_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install = "pip install 'rayprob[timm]'"
    new_like(str(tmp_path / "demo"), "demo")
    assert "\npip install CHECKOUT " in (tmp_path / "demo" / "README.md").read_text().partition(install)[0]
    assert f"```\n{install}\n\n# tune_configs/demo.yaml\n" in (tmp_path / "demo" / "README.md").read_text()
    monkeypatch.setattr("rayprob.project.write.find_spec", lambda name: None)
    assert new_like(str(tmp_path / "again"), "demo").next_commands[0] == install
    assert install not in new_like(str(tmp_path / "paper"), "paper").next_commands
    assert install not in (tmp_path / "paper" / "README.md").read_text()


def test_a_continued_command_is_one_command() -> None:
    assert commands_in("#   rayprob tune a.yaml --set x=1 \\\n#     --set y=2\n# prose\n#   rayprob train b.yaml\n") == (
        "rayprob tune a.yaml --set x=1 --set y=2",
        "rayprob train b.yaml",
    )


def test_nothing_is_overwritten_and_nothing_is_written_beside_what_exists(tmp_path: Path) -> None:
    kept = tmp_path / "demo" / "tune_configs" / "demo.yaml"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    with pytest.raises(StorageError, match=r"already has tune_configs/demo.yaml; `rayprob new` never overwrites files"):
        new_like(str(tmp_path / "demo"), "demo")
    assert kept.read_text() == "mine"
    assert [path for path in (tmp_path / "demo").rglob("*") if path.is_file()] == [kept]


def test_a_folder_that_is_a_file_and_one_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*file.*; give a folder you can write to"):
        new_like(str(tmp_path / "file"), "demo")


@pytest.mark.parametrize(
    ("folder", "name"), [("Birds of 2026", "birds-of-2026"), ("__x__", "x"), ("äöü", "mine"), ("a.b", "a-b")]
)
def test_the_name_of_a_project_is_one_that_a_recipe_takes(folder: str, name: str) -> None:
    assert name_for(folder) == name


def test_weights_need_a_backbone_and_a_file_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"--weights w.pth also needs --backbone"):
        new_from(str(tmp_path / "x"), str(tmp_path), weights="w.pth")
    with pytest.raises(SpecError, match=r"there is no file w.pth"):
        new_from(str(tmp_path / "x"), str(tmp_path), backbone="resnet18", weights="w.pth")


def test_weights_that_torchvision_has_fetched_are_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert not Network().is_at_hand
    assert Network("timm/resnet18", "/weights/resnet18.safetensors").is_at_hand
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "resnet50-11ad3fa6.pth").write_bytes(b"")
    assert Network().is_at_hand


def test_the_verb_says_what_it_found_wrote_and_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generate_scenes("photos", ScenesSpec(num_train=20, num_val=5, size_px=64, num_labels=4), num_processes=1)
    said = CliRunner().invoke(app, ["new", "birds", "--from", "photos"]).output
    assert "4 labels: person, car, chair" in said
    assert re.search(r"prevalence in train: (\S.* \d+\.\d%(, )?){4}\n  a label that an image does not list is absent\n", said)
    assert "wrote birds/: shards/birds.yaml, tune_configs/birds.yaml, tune_configs/birds-sweep.yaml, README.md" in said
    assert "next:\n  cd birds\n  rayprob shard shards/birds.yaml\n  rayprob train tune_configs/birds.yaml\n" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--weights", "w.pth"), "--backbone and --weights need --from FOLDER"),
        (("--from", "x", "--like", "paper"), "--like and --from cannot be combined"),
    ],
)
def test_options_that_do_not_go_together_are_usage_errors(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["new", str(tmp_path / "x"), *options])
    assert (result.exit_code, said in " ".join(result.output.split())) == (2, True)
    assert not (tmp_path / "x").exists()
