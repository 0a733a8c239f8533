"""Systems on the features of a tiny run: the table, its page, and what a second start does."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rayprob.data.manifest.dataset import Dataset
from rayprob.data.tasks import in_process
from rayprob.errors import NonFiniteLoss, RunError, SpecError
from rayprob.loader.order import Place
from rayprob.runs.folder import claim
from rayprob.runs.paths import RunFolder, SystemsFolder
from rayprob.runs.predictions import Predictions
from rayprob.systems import compare, work
from rayprob.systems.compare import compare_systems
from rayprob.systems.page import render, tried
from rayprob.systems.spec import SystemsFile, open_systems, refit_spec
from rayprob.systems.table import SystemRow, cells_of, chosen_lr, holm
from rayprob.systems.words import CAUTION
from rayprob.systems.work import TrainedSystem
from rayprob.train.assess import assess
from rayprob.train.loop import fit
from rayprob.train.refit import refit


@pytest.fixture(scope="module")
def source(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("trained") / "base"
    model = {"backbone": "timm/test_resnet", "pooling": "places7"}
    run = make_run(folder, model=model, duration={"steps": 20}, evaluation={"every": {"steps": 20}, "micro_batch": 20})
    claim(run, Dataset.open(run.data.root))
    fit(run, Place(), torch.device("cpu"))
    return str(folder)


def files(folder: Path, make_run: Any) -> Path:
    """A systems file and three run files in a folder."""
    base = make_run(folder / "unused", model={"backbone": "timm/test_resnet", "pooling": "places7"}).to_yaml()
    (folder / "base.yaml").write_text(re.sub(r"(?m)^(name|folder): .*$", "", base) + "\nname: base\n")
    (folder / "focal.yaml").write_text("# The focal loss. More of it.\nextends: base.yaml\nname: focal\nloss: {name: focal}\n")
    mixture = "extends: base.yaml\nname: joint\nmodel: {head: {name: mixture, components: 3}}\nloss: {name: mixture}\n"
    (folder / "joint.yaml").write_text(mixture)
    (folder / "other.yaml").write_text("extends: base.yaml\nname: other\nmodel: {backbone: resnet18}\n")
    systems = {"files": ["base.yaml", "*.yaml"], "seeds": 2, "lr": [0.003, 0.03], "draws": 50, "refit": {"epochs": 2}}
    written = folder / "of" / "systems.yaml"
    written.parent.mkdir()
    systems["files"] = [f"../{file}" for file in systems["files"]]  # type: ignore[attr-defined]
    written.write_text(json.dumps({"name": "tiny", "folder": str(folder / "out"), "systems": systems}))
    return written


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "as_ray_tasks", lambda wording: in_process)


@pytest.mark.usefixtures("here")
def test_a_table_of_systems_is_made_once(source: str, make_run: Any, tmp_path: Path) -> None:
    file = SystemsFile.read(files(tmp_path, make_run), [f"systems.source={source}"])
    events: list[dict[str, Any]] = []
    compared = compare_systems(file, events.append)
    assert [row.name for row in compared.rows] == ["base", "focal", "joint"]
    assert [one.name for one in compared.left_out] == ["other"]
    assert [event for event in events if event["kind"] == "plan"] == [{"kind": "plan", "systems": 3, "tasks": 15}]
    assert sum(event["kind"] == "done" for event in events) == 15
    base, focal, joint = compared.rows
    assert (base.cells["mAP"].difference, base.cells["mAP"].p_value) == (None, None)
    assert focal.description == "The focal loss"
    assert set(joint.tried) == {"0.003", "0.03"}
    for row in compared.rows:
        cell = row.cells["mAP"]
        assert len(cell.by_seed) == 2
        assert cell.low <= cell.high
        assert cell.value == pytest.approx(np.mean(cell.by_seed))
        run = f"{tmp_path}/out/{row.name}/lr-{row.lr:g}-seed-1"
        # Raw scores, as no prior was asked for.
        assert assess(run, "val").at_half.mAP == pytest.approx(cell.by_seed[1], abs=1e-6)
    page = render(compared)
    assert "left out" in page
    assert CAUTION in page
    assert not re.search(r"\{\w*\}", CAUTION)
    assert all(row.name in page for row in compared.rows)
    assert compare_systems(file).rows == compared.rows


@pytest.mark.usefixtures("here")
def test_a_folder_keeps_to_one_way_of_training(source: str, make_run: Any, tmp_path: Path) -> None:
    path, few = files(tmp_path, make_run), [f"systems.source={source}", "systems.files=[../base.yaml]", "systems.lr=[0.01]"]
    compare_systems(SystemsFile.read(path, few))
    with pytest.raises(RunError, match="trained otherwise"):
        compare_systems(SystemsFile.read(path, [*few, "systems.refit.epochs=1"]))
    for split, what in (("holdout", "chosen"), ("train", "trained")):
        with pytest.raises(SpecError, match=f"systems.split {split} is what .* is {what} on, .* such as val"):
            compare_systems(SystemsFile.read(path, [*few, f"systems.split={split}", f"folder={tmp_path}/{split}"]))
    identity = Path(SystemsFolder(str(tmp_path / "out")).identity_file)
    identity.write_text(json.dumps(json.loads(identity.read_text()) | {"source_fingerprint": "of an earlier training"}))
    with pytest.raises(RunError, match=r"on the features of an earlier bundle of .*; choose another folder, or start"):
        compare_systems(SystemsFile.read(path, few))


def test_a_rate_at_which_the_loss_diverged_is_said_and_is_no_number_in_json() -> None:
    row = SystemRow("base", "base.yaml", "", 0.01, {"0.01": 0.5, "1": -math.inf}, 1, 1.0, "", {})
    assert tried(row) == "0.01: 0.500, 1: diverged"
    assert row.to_dict()["tried"] == {"0.01": 0.5, "1": None}


@pytest.mark.usefixtures("here")
def test_predictions_of_another_bundle_are_computed_again(source: str, make_run: Any, tmp_path: Path) -> None:
    few = [f"systems.source={source}", "systems.files=[../base.yaml]", "systems.lr=[0.01]", "systems.seeds=1"]
    file = SystemsFile.read(files(tmp_path, make_run), few)
    rows, folder = compare_systems(file).rows, SystemsFolder(str(tmp_path / "out"))
    path = RunFolder(folder.run("base", 0.01, 0)).predictions("val")
    found = Predictions.read(path)
    replace(found, outputs={"logits": -found.outputs["logits"]}, facts=found.facts | {"step": 1}).write(path)
    Path(folder.judged("base", 0)).unlink()
    assert compare_systems(file).rows == rows


@pytest.mark.usefixtures("here")
def test_a_system_that_fails_is_left_out_and_the_first_ends_all(
    source: str, make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_rate = [
        f"systems.source={source}",
        "systems.files=[../base.yaml, ../focal.yaml]",
        "systems.lr=[0.01]",
        "systems.seeds=1",
    ]
    file = SystemsFile.read(files(tmp_path, make_run), one_rate)

    def fails(name: str) -> Any:
        def run(source: str, spec: Any, **where: Any) -> None:
            if where["name"] == f"{name}-0":
                raise NonFiniteLoss("the loss is nan")
            refit(source, spec, **where)

        return run

    monkeypatch.setattr(work, "refit", fails("focal"))
    compared = compare_systems(file)
    assert [row.name for row in compared.rows] == ["base"]
    assert [(one.name, one.left_out) for one in compared.left_out] == [("focal", "its loss diverged with lr 0.01 and seed 0")]
    monkeypatch.setattr(work, "refit", fails("base"))
    with pytest.raises(SpecError, match=r"base\.yaml, with which the others are compared, cannot be: its loss diverged"):
        compare_systems(file, fresh=True)


def test_every_shipped_system_is_compared_on_features_or_left_out_with_a_reason() -> None:
    spec = SystemsFile.read(Path(__file__).parents[2] / "tune_configs" / "systems.yaml").systems
    systems = {one.name: one for one in open_systems(spec)}
    left_out = {name for name, one in systems.items() if one.left_out}
    assert left_out == {"contrastive", "convnext", "efficientnet", "mobilenet", "multi_scale", "vit"}
    assert next(iter(systems)) == "bernoulli"
    for name in systems.keys() - left_out:
        assert refit_spec(spec, systems[name], 0.01, 0, "all").loss_of_head.family == systems[name].run.model.head.family


def test_files_that_do_not_fit_are_named(make_run: Any, tmp_path: Path) -> None:
    path = files(tmp_path, make_run)
    with pytest.raises(SpecError, match=r"no file matches .*nothing\*\.yaml"):
        open_systems(SystemsFile.read(path, ["systems.files=[nothing*.yaml]"]).systems)
    (tmp_path / "twice.yaml").write_text("extends: base.yaml\n")
    with pytest.raises(SpecError, match=r"twice\.yaml and .*base\.yaml have the name base"):
        open_systems(SystemsFile.read(path).systems)


def numbers(values: Sequence[float], drawn_D: np.ndarray) -> list[dict[str, Any]]:
    """One number per seed; its draws of images are the value plus noise that all systems share."""
    return [{"mAP": {"value": value, "draws": list(value + drawn_D)}} for value in values]


def test_differences_are_paired_over_images_and_not_over_seeds() -> None:
    drawn_D = np.random.default_rng(0).normal(scale=0.05, size=200)
    judged = {"a": [0.50, 0.51, 0.52], "b": [0.60, 0.61, 0.62], "c": [0.44, 0.52, 0.60]}
    cells = cells_of({name: numbers(values, drawn_D) for name, values in judged.items()})
    clear, unclear = cells["b"]["mAP"], cells["c"]["mAP"]
    assert (clear.is_clear, unclear.is_clear) == (True, False)
    # The noise of images cancels. Student's quantile for 2 + 2 degrees of freedom, and the variance of two means of 3 seeds:
    assert clear.difference is not None
    assert clear.difference.high - clear.difference.value == pytest.approx(2.776 * (2 * 1e-4 / 3) ** 0.5, rel=1e-3)
    # Without the noise of seeds a mean has that of images.
    alone = cells_of({"a": numbers([0.5], drawn_D)})["a"]["mAP"]
    assert alone.high - alone.value == pytest.approx(1.972 * drawn_D.std(), rel=1e-3)


def test_an_interval_stays_within_what_its_number_can_be() -> None:
    by_seed = [[{name: {"value": value, "draws": [value] * 3} for name in ("mAP", "NLL")}] for value in (0.05, 0.95)]
    cells = cells_of({"a": by_seed[0] + by_seed[1]})["a"]
    assert (cells["mAP"].low, cells["mAP"].high, cells["NLL"].low) == (0.0, 1.0, 0.0)
    assert cells["NLL"].high > 1


def test_equal_systems_rarely_differ_by_more_than_chance() -> None:
    """At a level of .05 for all systems together; more than 8 % of 400 comparisons would have a probability below .007."""
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        drawn_D = rng.normal(scale=0.01, size=50)
        cells = cells_of({name: numbers(0.5 + rng.normal(scale=0.02, size=3), drawn_D) for name in "abcdef"})
        found += any(one["mAP"].is_clear for one in cells.values())
    assert found <= 32


def test_p_values_are_adjusted_for_their_number() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_the_smaller_of_equally_good_learning_rates_is_chosen() -> None:
    runs = [TrainedSystem("a", lr, 0, value, 1, 1.0) for lr, value in ((0.1, 0.7), (0.01, 0.7), (0.001, 0.6))]
    assert chosen_lr(runs) == 0.01
