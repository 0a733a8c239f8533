"""Run files: durations, what makes a run itself, and rules between its parts."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayprob.config.spec import override
from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import DatasetError, SpecError
from rayprob.loader.batch_rules import KEYS, Sizes
from rayprob.runs.rules import check
from rayprob.runs.spec import Duration, Run, absolute, identity

MakeRun = Callable[..., Run]


@pytest.mark.parametrize(
    ("duration", "steps"),
    [({"steps": 7}, 7), ({"samples": 33}, 3), ({"epochs": 2}, 20), ({"epochs": 0.25}, 2), ({"epochs": 0.001}, 1)],
)
def test_durations_become_steps(duration: dict[str, float], steps: int) -> None:
    assert Duration.parse(duration).in_steps(steps_per_epoch=10, global_batch=16) == steps


@pytest.mark.parametrize("duration", [{}, {"steps": 1, "epochs": 1}])
def test_a_duration_has_one_unit(duration: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="exactly one of epochs, steps and samples"):
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


def test_settings_of_gpus_are_part_of_a_run_only_where_they_are_not_the_default(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    same = make_run(tmp_path, precision={"tf32": "auto", "cudnn_benchmark": False})
    assert run.model_dump(mode="json")["precision"] == {"autocast": "auto", "channels_last": "auto", "compile": False}
    assert (same.fingerprint, identity(same)) == (run.fingerprint, identity(run))
    fast = make_run(tmp_path, precision={"tf32": True, "cudnn_benchmark": True})
    assert Run.read_text(fast.to_yaml(), "here") == fast
    assert identity(fast) != identity(run)


def test_an_elastic_run_keeps_its_micro_batch_and_is_checked_for_the_most_workers(
    make_run: MakeRun, tiny: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path, placement={"num_workers": [1, 4]})
    assert [run.micro_batch(world_size) for world_size in (1, 3, 4)] == [4, 4, 4]
    for world_size in (1, 2, 3, 4):
        check(run, Dataset.open(tiny), world_size)
    with pytest.raises(
        SpecError, match=r"placement.num_workers's largest, 6, does not divide stream.lanes 4; set .*to \[1, 4\]"
    ):
        check(make_run(tmp_path, placement={"num_workers": [1, 6]}), Dataset.open(tiny), 2)
    for wrong in ([4, 2], [0, 2], [2], [1, 2, 3], ["a", 2]):
        with pytest.raises(SpecError, match=r"num_workers: expected an integer or \[min, max\] of integers from 1.*found \["):
            make_run(tmp_path, placement={"num_workers": wrong})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"backbone": "squeezenet1_1", "norm": "sync"}},
            r"model.norm sync .* set model.norm to frozen or train, or placement.num_workers to 2",
        ),
        (
            {"checkpoint": {"every_minutes": 11}},
            r"written every 660 s, but .* every 600 s .*; set checkpoint.every_minutes to 10 or less",
        ),
        (
            {"checkpoint": {"every_minutes": None}},
            r"checkpoints are written with evaluations only, but an elastic run restarts",
        ),
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
        ({}, 3, r"placement.num_workers 3 does not divide stream.lanes 4; set placement.num_workers to 2$"),
        (
            {"stream": {"global_batch": 18, "lanes": 4}},
            1,
            r"stream.global_batch 18 is not a multiple of stream.lanes 4; set stream.lanes to 3 or stream.global_batch to 20",
        ),
        (
            {"placement": {"micro_batch": 5}},
            2,
            r"placement.micro_batch 5 x 2 workers does not divide stream.global_batch 16; set .* placement.micro_batch to 4",
        ),
        (
            {"stream": {"global_batch": 512, "lanes": 4}},
            1,
            r"split train has \d+ samples, fewer than one stream.global_batch of 512; set stream.global_batch to \d+",
        ),
        ({"evaluation": {"split": "val"}}, 1, r"evaluation.split is val, .*; set evaluation.split to holdout"),
        ({"data": {"train_split": "val"}}, 1, r"data.train_split is val, .*; set data.train_split to train"),
        (
            {"loss": {"name": "mixture"}},
            1,
            r"loss.name mixture needs a mixture head, but model.head.name is bernoulli; set model.head.name to mixture",
        ),
        (
            {"model": {"backbone": "squeezenet1_1", "image_size_px": 64}},
            1,
            r"transforms.train.size_px 32 differs from model.image_size_px 64; set transforms.train.size_px to 64",
        ),
    ],
)
def test_parts_that_do_not_fit_are_named_before_the_first_step(
    make_run: MakeRun, tiny: str, tmp_path: Path, changes: dict[str, Any], world_size: int, message: str
) -> None:
    if "data" in changes:
        changes = {"data": {"root": tiny, **changes["data"]}}
    with pytest.raises(SpecError, match=message):
        check(make_run(tmp_path, **changes), Dataset.open(tiny), world_size)


HINT = re.compile(r"([a-z_]+(?:\.[a-z_]+)*) to (\{.*?\}|\[.*?\]|[A-Za-z0-9.]+)")


@pytest.mark.parametrize(
    "changes",
    [
        {"placement": {"num_workers": 3}},
        {"placement": {"num_workers": [2, 6]}},
        {"placement": {"num_workers": [1, 2]}, "stream": {"global_batch": 64, "lanes": 9}},
        {"placement": {"num_workers": 2}, "stream": {"global_batch": 64, "lanes": 9}},
        {"placement": {"num_workers": 3}, "stream": {"global_batch": 17, "lanes": 4}},
        {"placement": {"num_workers": 2, "micro_batch": 5}},
        {"placement": {"num_workers": [1, 4], "micro_batch": 3}},
        {"placement": {"micro_batch": 7}, "stream": {"global_batch": 4096, "lanes": 4}},
        {"stream": {"global_batch": 10**9, "lanes": 10**6}},
        {"stream": {"global_batch": 7, "lanes": 10**6}},
        {"placement": {"num_workers": 1000}, "stream": {"global_batch": 7, "lanes": 3}},
        {"evaluation": {"split": "val"}},
        {"placement": {"num_workers": [1, 2], "resize_every_s": 100}},
        {"placement": {"num_workers": [1, 2], "resize_every_s": 1}},
        {"placement": {"num_workers": [1, 2]}, "model": {"backbone": "squeezenet1_1", "norm": "sync"}},
        {"model": {"backbone": "squeezenet1_1", "image_size_px": 64}},
        {"loss": {"name": "mixture"}},
        {"loss": {"name": "focal", "gamma": 1.0}, "model": {"backbone": "squeezenet1_1", "head": {"name": "mixture"}}},
        {"model": {"backbone": "squeezenet1_1", "head": {"name": "mixture", "components": 3}}},
    ],
)
def test_every_hint_of_the_check_can_be_followed(make_run: MakeRun, tiny: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    run, dataset = make_run(tmp_path, **changes), Dataset.open(tiny)
    for hint in hints(run, dataset):
        followed, seen = run, [hint]
        while hint:  # a hint about the training images may be followed by one about those of the evaluation
            followed = Run.parse(override(followed.model_dump(mode="json"), [f"{key}={value}" for key, value in hint]))
            hint = next(iter(hints(followed, dataset)), [])
            assert hint not in seen
            seen.append(hint)
        assert len(seen) <= (3 if run.model.image_size_px else 2)


def hints(run: Run, dataset: Dataset) -> list[list[tuple[str, str]]]:
    """What the check says to set: each way a list of keys and values, to be set together; nothing where the run passes."""
    workers = 1 if run.placement.most_workers == "auto" else run.placement.most_workers
    try:
        check(run, dataset, workers)
    except SpecError as error:
        said = str(error)
    else:
        return []
    found = [HINT.findall(way) for way in said.partition("; set ")[2].partition(";")[0].split(" or ")]
    assert found[0], said
    return [way for way in found if way]


@given(
    st.integers(0, 60),
    st.integers(1, 70),
    st.integers(1, 20),
    st.integers(1, 12),
    st.none() | st.integers(1, 20),
    st.none() | st.just(1),
)
def test_numbers_that_do_not_go_together_are_refused_with_numbers_that_do(
    num_samples: int, global_batch: int, lanes: int, workers: int, micro_batch: int | None, least: int | None
) -> None:
    sizes = Sizes(num_samples, global_batch, lanes, workers, micro_batch, least)
    if sizes.fits:
        sizes.check("train")
        return
    with pytest.raises(SpecError) as caught:
        sizes.check("train")
    if num_samples == 0:
        assert "has no samples" in str(caught.value)
        return
    names = {key: name for name, key in KEYS.items()}
    for way in str(caught.value).partition("; set ")[2].split(" or "):
        numbers = {names[key]: to for key, to in HINT.findall(way)}
        assert numbers
        changes = {name: None if to == "auto" else int(to.strip("[]").split(", ")[-1]) for name, to in numbers.items()}
        assert replace(sizes, **changes).fits, way


def test_a_missing_split_lists_those_that_exist(make_run: MakeRun, tiny: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, evaluation={"split": "dev"})
    with pytest.raises(DatasetError, match=r"no split 'dev'; it has train \(\d+\), holdout \(\d+\), val \(40\)"):
        check(run, Dataset.open(tiny), 1)


def test_an_unknown_key_in_a_run_file_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: x\noptimiser: {lr: 1}\n")
    with pytest.raises(SpecError, match=r"unknown key 'optimiser'; nearest: optimizer"):
        Run.read(path)


@pytest.mark.parametrize(
    ("changes", "message", "followed"),
    [
        (
            {"optimizer": {"betas": [1, 0.9]}},
            r"optimizer.betas\[0\]: input should be less than 1",
            {"optimizer": {"betas": [0.9, 0.9]}},
        ),
        ({"optimizer": {"betas": [-1, 0.9]}}, r"optimizer.betas\[0\]: .* greater than or equal to 0", {}),
        (
            {"model": {"std": [0, 1, 1]}},
            r"model.std: .* each value must be greater than 0 \(found \[0, 1, 1\]\)",
            {"model": {"std": [1, 1, 1]}},
        ),
        (
            {"duration": {"epochs": 1e308}},
            "duration.epochs: input should be less than or equal to 1000000",
            {"duration": {"epochs": 1}},
        ),
        (
            {"transforms": {"train": {"name": "paper", "size_px": 10**9}, "evaluate": {}}},
            "transforms.train.size_px: input should be less than or equal to 16384",
            {},
        ),
        (
            {"transforms": {"train": {"strong": {"cutout": 0.1}}, "evaluate": {}}},
            "use name: strong, or remove it",
            {"transforms": {"train": {"name": "strong", "strong": {"cutout": 0.1}}, "evaluate": {}}},
        ),
        (
            {"model": {"head": {"attention": 0.4}}},
            "head.attention 0.4 .* set pooling: places, or attention: 0",
            {"model": {"pooling": "places", "head": {"attention": 0.4}}},
        ),
        (
            {"model": {"head": {"components": 4}}},
            "set name: mixture",
            {"model": {"head": {"name": "mixture", "components": 4}}},
        ),
        ({"model": {"weights_part": "features"}}, "got null", {"model": {"weights_part": "all"}}),
        (
            {"loss": {"gamma": 3.0}},
            "gamma is an option of .*focal.*, not of the loss bce, .*; set name: .*focal",
            {"loss": {"name": "focal", "gamma": 3.0}},
        ),
        ({"duration": {}}, "exactly one of epochs, steps and samples, the others null; got none", {"duration": {"samples": 3}}),
        (
            {"placement": {"num_workers": [3, 1]}},
            r"an integer or \[min, max\] .*\(found \[3, 1\]\)",
            {"placement": {"num_workers": [1, 3]}},
        ),
        ({"placement": {"num_workers": [True, 2]}}, r"an integer or \[min, max\]", {}),
        ({"schedule": {"milestones": [0.5, 0.2]}}, "ascending, between 0 and 1", {"schedule": {"milestones": [0.2, 0.5]}}),
    ],
)
def test_what_a_part_cannot_be_is_refused_when_it_is_read_and_its_remedy_is_taken(
    make_run: MakeRun, tmp_path: Path, changes: dict[str, Any], message: str, followed: dict[str, Any]
) -> None:
    with pytest.raises(SpecError, match=message):
        make_run(tmp_path, **changes)
    make_run(tmp_path, **followed)


def test_one_root_is_written_and_identified_as_before(make_run: MakeRun, tmp_path: Path, tiny: str) -> None:
    run = make_run(tmp_path)
    assert run.data.model_dump(mode="json") == {"root": tiny, "train_split": "train"}
    assert identity(run)["data"] == {"train_split": "train"}
    assert identity(make_run(tmp_path, data={"root": [tiny, "other"], "weights": [1, 1]}))["data"] == {"train_split": "train"}
    weighted = make_run(tmp_path, data={"root": [tiny, "other"], "weights": [1, 0.5]})
    assert identity(weighted)["data"] == {"train_split": "train", "weights": [1.0, 0.5]}
    assert Run.parse(weighted.model_dump(mode="json")) == weighted
    assert all(Path(root).is_absolute() for root in absolute(weighted).data.roots)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"root": []}, "root is an empty list; give at least one built dataset"),
        ({"root": ["a", "b"], "weights": [1]}, "weights has 1 number for 2 datasets; give one for each dataset of root"),
        ({"root": "a", "weights": [1, 2]}, "weights has 2 numbers for 1 dataset"),
        ({"root": ["a", "b"], "weights": [1, 0]}, r"data\.weights\[1\]: input should be greater than 0"),
        ({"root": ["a", "b"], "weights": [-1, 1]}, r"data\.weights\[0\]: input should be greater than 0"),
        ({"root": ["a", "b"], "weights": [1, 1001]}, r"data\.weights\[1\]: input should be less than or equal to 1000"),
    ],
)
def test_roots_and_weights_that_do_not_fit_are_refused(
    make_run: MakeRun, tmp_path: Path, data: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        make_run(tmp_path, data=data)
