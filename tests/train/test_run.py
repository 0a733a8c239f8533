"""Run files: durations, what makes a run itself, and rules between its parts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rayprob.data.manifest import Dataset
from rayprob.errors import DatasetError, SpecError
from rayprob.train.run import Duration, Run, absolute, check, identity

MakeRun = Callable[..., Run]


@pytest.mark.parametrize(
    ("duration", "steps"),
    [({"steps": 7}, 7), ({"samples": 33}, 3), ({"epochs": 2}, 20), ({"epochs": 0.25}, 2), ({"epochs": 0.001}, 1)],
)
def test_durations_become_steps(duration: dict[str, float], steps: int) -> None:
    assert Duration.parse(duration).in_steps(steps_per_epoch=10, global_batch=16) == steps


@pytest.mark.parametrize("duration", [{}, {"steps": 1, "epochs": 1}])
def test_a_duration_has_one_unit(duration: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="exactly one of epochs, steps, samples"):
        Duration.parse(duration)


def test_placement_and_cadence_do_not_change_a_runs_identity(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    moved = make_run(
        tmp_path / "elsewhere",
        placement={"num_workers": 2, "use_gpu": False},
        checkpoint={"every_steps": 3},
        stream={**run.stream.model_dump(), "loader_workers": 3},
    )
    assert identity(run) == identity(moved)
    assert identity(run) != identity(make_run(tmp_path, seed=1))


def test_an_elastic_run_keeps_its_micro_batch_and_is_checked_for_the_most_workers(
    make_run: MakeRun, tiny: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path, placement={"num_workers": [1, 4]})
    assert [run.micro_batch(world_size) for world_size in (1, 3, 4)] == [4, 4, 4]
    for world_size in (1, 2, 3, 4):
        check(run, Dataset.open(tiny), world_size)
    with pytest.raises(SpecError, match=r"placement.num_workers asks for 6 workers at most, .*lanes 4; set stream.lanes to 6"):
        check(make_run(tmp_path, placement={"num_workers": [1, 6]}), Dataset.open(tiny), 2)
    for wrong in ([4, 2], [0, 2], [2], [1, 2, 3], ["a", 2]):
        with pytest.raises(SpecError, match=r"num_workers: a list is \[least, most\], two whole numbers from 1 on.*found \["):
            make_run(tmp_path, placement={"num_workers": wrong})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"backbone": "squeezenet1_1", "norm": "sync"}}, r"model.norm sync .* use model.norm: frozen or train"),
        ({"checkpoint": {"every_minutes": 11}}, r"grows every 600 s .* come every 660 s: .* set checkpoint.every_steps"),
        ({"checkpoint": {"every_minutes": None}}, r"checkpoints come with evaluations alone: it might never get on"),
    ],
)
def test_what_an_elastic_run_cannot_have_is_refused_before_it_starts(
    make_run: MakeRun, tiny: str, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    check(make_run(tmp_path, placement={"num_workers": 2}, **changes), Dataset.open(tiny), 2)
    with pytest.raises(SpecError, match=message):
        check(make_run(tmp_path, placement={"num_workers": [1, 2]}, **changes), Dataset.open(tiny), 2)


def test_storage_is_not_waited_for_longer_than_the_other_ranks_wait(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="storage_patience_s 900 must be less than collective_timeout_s 60"):
        make_run(tmp_path, placement={"collective_timeout_s": 60})


def test_absolute_paths_let_workers_run_anywhere(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    run = absolute(make_run(Path("runs/x"), data={"root": "data/tiny"}))
    assert run.data.root == str(tmp_path / "data/tiny")
    assert run.run_folder == str(tmp_path / "runs/x")


@pytest.mark.parametrize(
    ("changes", "world_size", "message"),
    [
        ({}, 3, r"world_size 3 does not divide lanes 4; allowed: 1, 2, 4"),
        ({"stream": {"global_batch": 18, "lanes": 4}}, 1, r"global_batch 18 is not a multiple of lanes 4; nearest that is: 20"),
        (
            {"placement": {"micro_batch": 5}},
            2,
            r"micro_batch 5 x 2 ranks does not divide global_batch 16; nearest that does: 4",
        ),
        ({"stream": {"global_batch": 512, "lanes": 4}}, 1, r"fewer than one global_batch of 512"),
        ({"evaluation": {"split": "val"}}, 1, r"val is only for reporting"),
        (
            {"loss": {"name": "mixture"}},
            1,
            r"loss.name mixture reads the outputs of a mixture head, but model.head.name is bernoulli",
        ),
        ({"model": {"backbone": "squeezenet1_1", "image_size_px": 64}}, 1, r"transforms.train.size_px 32 differs from .* 64"),
    ],
)
def test_parts_that_do_not_fit_are_named_before_the_first_step(
    make_run: MakeRun, tiny: str, tmp_path: Path, changes: dict[str, Any], world_size: int, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        check(make_run(tmp_path, **changes), Dataset.open(tiny), world_size)


def test_a_missing_split_lists_those_that_exist(make_run: MakeRun, tiny: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, evaluation={"split": "dev"})
    with pytest.raises(DatasetError, match=r"no split 'dev'; it has train \(\d+\), holdout \(\d+\), val \(40\)"):
        check(run, Dataset.open(tiny), 1)


def test_an_unknown_key_in_a_run_file_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: x\noptimiser: {lr: 1}\n")
    with pytest.raises(SpecError, match=r"unknown key 'optimiser'; nearest: optimizer"):
        Run.read(path)
