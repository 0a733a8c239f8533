"""The run files and recipes that we ship: each can be read, and the paper's takes a step on real images."""

import math
from pathlib import Path

import pytest
import torch
import yaml

from rayprob.calibrate.search_spec import ThresholdSearch
from rayprob.config.spec import Spec, merged, read_chain, read_yaml
from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.loader.order import Place
from rayprob.runs.checkpoints import list_checkpoints
from rayprob.runs.history_rows import read_history
from rayprob.runs.spec import Run
from rayprob.sweep.search import Sweep
from rayprob.systems.spec import SystemsFile, open_systems
from rayprob.train.loop import fit

REPOSITORY = Path(__file__).resolve().parents[2]
SYSTEMS_FILES = [path for path in sorted((REPOSITORY / "tune_configs").glob("*.yaml")) if "systems" in read_yaml(path)]
FILES = sorted({*(REPOSITORY / "tune_configs").glob("*.yaml")} - {*SYSTEMS_FILES})
RUN_FILES = [path for path in FILES if not {"search", "thresholds"} & read_yaml(path).keys()]
RECIPES = sorted((REPOSITORY / "shards").glob("*.yaml"))


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.stem)
def test_every_run_file_is_read_and_says_how_to_run_it(path: Path) -> None:
    run = Run.read(path)
    assert run.name == path.stem
    assert f"rayprob train tune_configs/{path.name}" in path.read_text()
    assert run.stream.global_batch % run.stream.lanes == 0
    assert run.evaluation.split == "holdout"


@pytest.mark.parametrize("path", SYSTEMS_FILES, ids=lambda path: path.stem)
def test_every_systems_file_names_run_files_that_are_there_and_says_how_to_run_it(path: Path) -> None:
    file = SystemsFile.read(path)
    assert file.name == path.stem
    assert f"rayprob tune tune_configs/{path.name}" in path.read_text()
    assert open_systems(file.systems)[0].file == str(REPOSITORY / file.systems.files[0])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_read_and_says_how_to_build_it(path: Path) -> None:
    recipe = Recipe.read(path)
    assert recipe.name == path.stem
    assert f"rayprob shard shards/{path.name}" in path.read_text()
    assert {"train", "val"} <= recipe.splits.keys()


@pytest.mark.parametrize("path", [*FILES, *RECIPES], ids=lambda path: path.stem)
def test_a_file_of_0_1_and_what_0_1_wrote_of_it_keep_their_meaning(path: Path, tmp_path: Path) -> None:
    value: dict[str, object] = {}
    for file in read_chain(path):
        value = merged(yaml.safe_load(file.read_bytes()), value)
    value.pop("extends", None)
    kind: type[Spec] = Sweep if "search" in value else ThresholdSearch if "thresholds" in value else Run
    kind = Recipe if path in RECIPES else kind
    copy = tmp_path / "copy.yaml"
    copy.write_text(yaml.safe_dump(value, sort_keys=False))
    read = kind.read(path)
    assert kind.read(copy).model_dump(exclude={"description"}) == read.model_dump(exclude={"description"})
    if not isinstance(read, Sweep):
        assert kind.model_validate(value).fingerprint == read.fingerprint
        written = yaml.safe_dump(read.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        assert kind.read_text(written, "as 0.1 wrote it").fingerprint == read.fingerprint
        assert yaml.safe_load(read.to_yaml()) == yaml.safe_load(written)


@pytest.mark.slow
@pytest.mark.shared
def test_the_papers_network_takes_an_optimizer_step_on_real_images(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    recipe = Recipe.read(REPOSITORY / "shards" / "coco-sample.yaml", [f"target={tmp_path / 'sample'}", "holdout.fraction=0.02"])
    root = build(recipe, run_tasks=in_process).root
    changes = [
        f"folder={tmp_path / 'run'}",
        f"data.root={root}",
        "model.weights=null",
        "stream={global_batch: 2, lanes: 2, loader_workers: 0}",
        "duration={steps: 1}",
        "evaluation.split=holdout",
        "evaluation.micro_batch=2",
        "transforms.evaluate.size_px=64",
        "log_every_steps=1",
    ]
    run = Run.read(REPOSITORY / "tune_configs" / "paper.yaml", changes)
    assert (run.model.backbone, run.transforms.train.size_px, run.model.pooling, run.loss.name) == (
        "resnet101",
        448,
        "gap",
        "bce",
    )
    fit(run, Place(), torch.device("cpu"))
    (step,) = [row for row in read_history(run.run_folder) if row["kind"] == "step"]
    assert 0 < step["loss"] < math.log(2)
    (checkpoint,) = list_checkpoints(run.run_folder)
    weights = checkpoint.load()["classifier"]
    assert sum(tensor.numel() for name, tensor in weights.items() if name.startswith("backbone")) > 42e6
    assert weights["head.linear.weight"].shape == (80, 2048)
