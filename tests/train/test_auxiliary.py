"""A run with a term next to its loss: trained, resumed and predicted as any other, by one rank or two."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from rayprob.errors import SpecError
from rayprob.loader.order import Place
from rayprob.runs.bundle import Bundle
from rayprob.runs.history_rows import read_history
from rayprob.runs.predictions import Predictions
from rayprob.runs.spec import Run, identity
from rayprob.train import loop
from rayprob.train.job import prepare
from rayprob.train.refit import RefitSpec, refit
from tests.train.test_loop import CPU, assert_equal_states, last_tensors, losses, spawn_ranks, start
from tests.train.test_loop import _rank as rank_of

MakeRun = Callable[..., Run]
CONTRASTIVE: dict[str, Any] = {"auxiliary": {"name": "contrastive", "weight": 0.5, "width": 8}, "duration": {"steps": 6}}


@pytest.fixture(scope="module")
def contrastive(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run with a contrastive term; tests only read it."""
    run = make_run(tmp_path_factory.mktemp("contrastive") / "base", **CONTRASTIVE, placement={"num_workers": [1, 2]})
    start(run)
    return run


def test_the_module_is_in_checkpoints_and_not_in_bundles(contrastive: Run) -> None:
    in_training = [name for name in last_tensors(contrastive)["classifier"] if name.startswith("auxiliary.")]
    assert len(in_training) == 4
    with safe_open(f"{contrastive.run_folder}/bundle/weights.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "auxiliary" in name]  # noqa: SIM118 - not a dict
    bundle = Bundle.load(f"{contrastive.run_folder}/bundle")
    with torch.inference_mode():
        assert bundle.classifier.train()(torch.zeros(2, 3, 32, 32)).keys() == {"logits"}


def test_a_stopped_run_with_an_auxiliary_ends_bit_identical(contrastive: Run, make_run: MakeRun, tmp_path: Path) -> None:
    stopped = make_run(tmp_path, **CONTRASTIVE, placement={"num_workers": [1, 2]}, checkpoint={"every_steps": 2})
    original = loop.take_step

    class Killed(BaseException):
        pass

    def dying(job: Any, batches: Any) -> Any:
        if job.state.progress.step == 3:
            raise Killed
        return original(job, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "take_step", dying)
        with pytest.raises(Killed):
            start(stopped)
    start(stopped)
    assert_equal_states(last_tensors(contrastive), last_tensors(stopped))
    assert losses(contrastive) == losses(stopped)


@pytest.mark.slow
def test_two_ranks_see_what_one_sees_if_micro_batches_are_the_same(contrastive: Run, make_run: MakeRun, tmp_path: Path) -> None:
    two = make_run(tmp_path, **CONTRASTIVE, placement={"num_workers": [1, 2]})
    spawn_ranks(rank_of, 2, two)
    assert losses(contrastive) == pytest.approx(losses(two), rel=1e-4)
    left, right = (Predictions.read(f"{run.run_folder}/predictions/holdout.parquet") for run in (contrastive, two))
    assert np.allclose(left.outputs["logits"], right.outputs["logits"], atol=2e-3)


def test_a_term_leaves_other_weights_and_files_without_it_unchanged_and_is_noted(make_run: MakeRun, tmp_path: Path) -> None:
    plain, one = make_run(tmp_path / "plain"), make_run(tmp_path / "one", **CONTRASTIVE)
    assert "auxiliary" not in plain.model_dump() and "auxiliary" not in identity(plain)  # noqa: PT018
    jobs = [prepare(run, Place(), CPU) for run in (plain, one)]
    for job in jobs:
        assert job.history is not None
        job.history.close()
    assert (jobs[0].notes, len(jobs[1].notes)) == ((), 1)
    assert "auxiliary contrastive compares the 16 samples of a micro batch, so results depend on" in jobs[1].notes[0]
    ours, theirs = (job.state.classifier.state_dict() for job in jobs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)  # the module draws its weights last


def test_a_refit_takes_a_term_of_the_heads_outputs_only(contrastive: Run, tmp_path: Path) -> None:
    shutil.copytree(contrastive.run_folder, tmp_path / "base")
    source, short = str(tmp_path / "base"), {"epochs": 2, "global_batch": 16, "head": {"name": "bernoulli"}}
    with pytest.raises(SpecError, match=r"auxiliary.compare: features trains features through a projection, but model.frozen"):
        refit(source, RefitSpec.parse({**short, "auxiliary": {"name": "contrastive"}}), name="features")
    with_term = {**short, "auxiliary": {"name": "contrastive", "compare": "outputs"}}
    folders = [refit(source, RefitSpec.parse(spec), name=name).folder for spec, name in ((short, "a"), (with_term, "b"))]
    first, second = ([row["loss"] for row in read_history(folder) if row["kind"] == "step"] for folder in folders)
    assert second[0] > first[0]
    assert Predictions.read(f"{folders[1]}/predictions/holdout.parquet").outputs.keys() == {"logits"}
