"""Sweep files: what is read, what is refused and with which words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rayprob.errors import ModelError, SpecError
from rayprob.models.heads.mixture import MixtureSpec
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.priors.file import LabelPriorFile
from rayprob.runs.spec import absolute
from rayprob.sweep.search import Sweep
from tests.sweep.conftest import MakeSweep


def space(**values: Any) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in values.items()}


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"space": {"optimizer.lrr": {"uniform": [0, 1]}}}, r"optimizer\.lrr: unknown key under optimizer: 'lrr'; nearest: lr"),
        ({"space": {"optimiser.lr": {"uniform": [0, 1]}}}, r"unknown key of the run file 'optimiser'; nearest: optimizer"),
        ({"space": {"optimizer.lr": {"uniform": [1, 0]}}}, "uniform from 1 to 0 is empty; put the lower end first"),
        ({"space": {}}, "space is empty; name at least one key"),
        ({"space": {"loss.name": {"choice": ["bce", "bec"]}}}, "trial 0 .*loss.name=bec.* has 1 fault"),
        ({"space": {"name": {"choice": ["a"]}}}, "name sets where a trial is stored and cannot be searched"),
        ({"metric": "map"}, "unknown metric 'map'; nearest: .*mAP"),
        ({"metric": ["mAP", "images_per_s", "OF1"]}, "takes one metric, or two for a Pareto front"),
        (
            {"metric": ["mAP", "images_per_s"], "scheduler": {"name": "asha"}},
            "stops trials by one metric, but two are given",
        ),
        ({"trials": None}, "trials is missing; set how many to draw"),
        ({"sampler": "grid"}, r"sampler grid needs listed values, but optimizer\.lr is a range"),
        ({"scheduler": {"name": "hyperband"}}, "hyperband allocates epochs: set duration.epochs"),
        ({"scheduler": {"name": "pbt"}}, r"search\.scheduler\.name: input should be 'none', 'asha' or 'hyperband'"),
        ({"metric": 3}, "search.metric: unknown metric '3'"),
        ({"metric": [["mAP"]]}, "search.metric: unknown metric .*; nearest: mAP"),
        ({"space": {"optimizer.lr": 3}}, r"search\.space\.optimizer\.lr: expected a mapping with keys of choice, grid"),
        ({"space": {"resolution_px": {"choice": ["a"]}}}, "resolution_px must be a whole number of pixels .found 'a'"),
        ({"space": {"resolution_px": {"choice": [None]}}}, "resolution_px must be a whole number of pixels .found None"),
        (
            {"space": {"seed": {"choice": ["a"]}}},
            r"space\.seed: trial 0 .seed=a. has 1 fault:\n  seed: expected an integer",
        ),
        ({"space": {"stream.global_batch": {"uniform": [16, 32]}}}, r"stream\.global_batch: input should be a valid integer"),
        ({"space": {"a": {"choice": {"x": {"folder": "y"}}}}}, r"search\.space\.a: folder sets where a trial is stored"),
        ({"space": {"optimizer.lr": {"uniform": [0.1, 1], "when": {"lr": 3}}}}, r"optimizer\.lr\.when\.lr: unknown key"),
        (
            {"space": {"optimizer.lr": {"uniform": [0.1, 1], "when": {"model.pooling": "gop"}}}},
            r"optimizer\.lr\.when\.model\.pooling never holds: model\.pooling is never 'gop'; allowed: gap",
        ),
        (
            {"space": {"head": {"choice": {"a": {}}}, "optimizer.lr": {"uniform": [0.1, 1], "when": {"head": "b"}}}},
            r"optimizer\.lr\.when\.head never holds: head is never 'b'; allowed: a",
        ),
        (
            {"sampler": "grid", "space": {key: {"quniform": [0.1, 0.9, 0.001]} for key in ("optimizer.lr", "schedule.warmup")}},
            "space has 641,601 combinations, one trial each; allowed: at most 100,000",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused_when_its_file_is_read(
    make_sweep: MakeSweep, search: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        make_sweep(**search)


def test_a_search_without_an_objective_is_told_what_there_is(make_sweep: MakeSweep) -> None:
    with pytest.raises(SpecError, match=r"search has no metric, so trials cannot be ranked; add search\.metric, one of mAP"):
        make_sweep(metric=None)


def test_a_run_file_is_no_sweep_file(make_sweep: MakeSweep, tmp_path: Path) -> None:
    make_sweep()
    value = yaml.safe_load((tmp_path / "sweep.yaml").read_text())
    del value["search"]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(value))
    with pytest.raises(SpecError, match=r"is a run file, not a sweep file; use `rayprob train"):
        Sweep.read(tmp_path / "run.yaml")


def test_a_resolution_that_cuts_patches_is_refused(make_sweep: MakeSweep) -> None:
    vit = {"model": {"backbone": "vit_b_16"}}
    with pytest.raises(ModelError, match=r"72 px is not a multiple of 16 px, the patch size of vit_b_16.*nearest multiple: 64"):
        make_sweep(vit, space={"resolution_px": {"choice": [64, 72]}})
    make_sweep(vit, space={"resolution_px": {"choice": [64, 80]}})
    make_sweep(space={"resolution_px": {"choice": [63, 72]}})  # to convolutions it does not matter


def test_half_a_gpu_is_refused_with_a_reason(make_sweep: MakeSweep) -> None:
    with pytest.raises(SpecError, match=r"a worker uses a whole GPU, .* use 1 and smaller batches \(found 0\.5\)"):
        make_sweep({"placement": {"num_workers": 0.5}})


def test_a_trial_is_the_run_file_after_its_parameters(make_sweep: MakeSweep) -> None:
    sweep = make_sweep()
    run = sweep.trial_run(7, {"optimizer.lr": 0.05}, seed=3)
    assert (run.optimizer.lr, run.seed, run.name) == (0.05, 3, "tiny-007")
    assert run.run_folder == f"{sweep.folder}/trials/007"
    same = run.model_copy(update={"optimizer": sweep.run.optimizer, "seed": 0, "name": "tiny", "folder": sweep.run.folder})
    assert same == sweep.run


def test_val_is_searched_only_where_the_file_says_so(make_sweep: MakeSweep) -> None:
    assert make_sweep().run.evaluation.split == "holdout"
    spent = make_sweep(split="val").run.evaluation
    assert (spent.split, spent.spends_val) == ("val", True)


def test_a_sweep_file_that_was_written_reads_back_the_same(make_sweep: MakeSweep, tmp_path: Path) -> None:
    sweep = make_sweep(scheduler={"name": "asha"}, metric="nll_nats")
    (tmp_path / "again.yaml").write_text(sweep.to_yaml())
    assert Sweep.read(tmp_path / "again.yaml") == sweep.model_copy(update={"description": ""})


def test_a_file_lies_over_the_one_that_it_extends(tmp_path: Path, make_sweep: MakeSweep) -> None:
    make_sweep()
    (tmp_path / "over.yaml").write_text("# Over it.\nextends: sweep.yaml\nname: over\noptimizer: {weight_decay: 0.5}\n")
    over = Sweep.read(tmp_path / "over.yaml", ["search.trials=9"])
    assert (over.run.name, over.run.optimizer.weight_decay, over.run.optimizer.lr) == ("over", 0.5, 1e-3)
    assert (over.search.trials, over.description) == (9, "Over it.")
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(SpecError, match=r"b\.yaml extends a\.yaml, which extends it in turn"):
        Sweep.read(tmp_path / "a.yaml")


HEADS_BEFORE = [{"name": "bernoulli"}, {"name": "mixture", "components": 5}, {"name": "mixture", "prior": "./two"}]


@pytest.mark.parametrize("head", HEADS_BEFORE)
def test_a_searched_prior_brings_its_number_of_components(
    make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, components in (("./two", 2), ("./three", 3)):
        mixture = LabelMixture(np.full(components, 1 / components), np.full((components, 2), 0.5))
        LabelPriorFile(("red", "green"), mixture, "a test").save(name)
    parts = {name: {"model.head.name": "mixture", "model.head.prior": f"./{name}"} for name in ("two", "three")}
    model = {"backbone": "squeezenet1_1", "head": head}
    sweep = make_sweep(run={"model": model}, sampler="grid", space={"start": {"choice": parts}})
    runs = [absolute(sweep.trial_run(1, {"start": name})) for name in parts]
    found = [(spec.prior, spec.components) for spec in (run.model.head for run in runs) if isinstance(spec, MixtureSpec)]
    assert found == [(str(tmp_path / "two"), 2), (str(tmp_path / "three"), 3)]
    asked = sweep.trial_run(1, {"start": "two", "model.head.components": 7})  # refused if the prior would be applied to labels
    assert asked.model.head.model_dump()["components"] == 7


def test_a_prior_is_searched_by_its_key_where_the_run_file_has_one(make_sweep: MakeSweep, tmp_path: Path) -> None:
    own = str(tmp_path / "own")
    LabelPriorFile(("red", "green"), LabelMixture(np.full(3, 1 / 3), np.full((3, 2), 0.5)), "a test").save(own)
    model = {"backbone": "squeezenet1_1", "head": {"name": "mixture", "prior": "coco"}}
    sweep = make_sweep(run={"model": model}, space={"model.head.prior": {"choice": ["coco", own]}})
    heads = [sweep.trial_run(1, {"model.head.prior": prior}).model.head.model_dump() for prior in ("coco", own)]
    assert heads[0] == sweep.run.model.head.model_dump()
    assert heads[1]["components"] == 3
