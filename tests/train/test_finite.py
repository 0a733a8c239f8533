"""Before each step: where a loss or a gradient is not finite, no weight changes, on no rank."""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from rayprob.errors import NonFiniteLoss
from rayprob.loader.order import Place
from rayprob.loader.streams import Batch
from rayprob.runs.checkpoints import list_checkpoints
from rayprob.runs.spec import Run
from rayprob.train import step as stepping
from rayprob.train.job import RankJob, prepare
from rayprob.train.loop import fit
from rayprob.train.meter import Meter
from rayprob.train.optimizer import clip_gradients
from rayprob.train.step import take_step
from tests.train.test_loop import assert_equal_states, spawn_ranks

CPU = torch.device("cpu")
MakeRun = Callable[..., Run]
OPTIMIZERS = [
    {"name": name, "fused": fused, "clip_norm": clip_norm}
    for name in ("sgd", "adamw")
    for fused, clip_norm in ((False, None), (True, None), (False, 1.0))
]


def micro_batches(job: RankJob) -> Iterator[list[Batch]]:
    with closing(job.stream.iterate(job.state.progress.cursor)) as batches:
        for batch in batches:
            yield [batch]


def learnt(job: RankJob, *parts: str) -> dict[str, Any]:
    """Return a copy of what steps change; the learning rate, which is set before each one, is not among it."""
    tensors = copy.deepcopy(job.state.tensors())
    return {part: tensors[part]["state"] if part == "optimizer" else tensors[part] for part in parts}


def with_nan_in_the_second_sample(loss: Any) -> Any:
    def broken(*arguments: Any) -> Tensor:
        scale_B = torch.ones(16)
        scale_B[1] = float("nan")
        return loss(*arguments) * scale_B

    return broken


def with_nan_gradient(loss: Any) -> Any:
    """A finite loss whose slope is not: that of a root at zero."""

    def broken(outputs: dict[str, Tensor], *rest: Any) -> Tensor:
        return loss(outputs, *rest) + (0 * outputs["logits"].sum(1)).square().sqrt()

    return broken


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_step_whose_loss_is_not_finite_changes_nothing(make_run: MakeRun, tmp_path: Path, optimizer: dict[str, Any]) -> None:
    job = prepare(make_run(tmp_path, optimizer=optimizer), Place(), CPU)
    batches = micro_batches(job)
    take_step(job, next(batches))
    before, progress = learnt(job, "classifier", "optimizer", "ema"), job.state.progress
    job.loss = with_nan_in_the_second_sample(job.loss)
    step = next(batches)
    message = rf"the loss of step 2 is not finite, from 1 sample: {step[0].sample_ids_B[1]}; the loss diverged to nan, and "
    with pytest.raises(NonFiniteLoss, match=message + "this step changed no weight; lower optimizer.lr"):
        take_step(job, step)
    assert_equal_states(learnt(job, "classifier", "optimizer", "ema"), before)
    assert job.state.progress == progress


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_step_whose_gradient_is_not_finite_changes_no_weight(
    make_run: MakeRun, tmp_path: Path, optimizer: dict[str, Any]
) -> None:
    job = prepare(make_run(tmp_path, optimizer=optimizer), Place(), CPU)
    batches, meter = micro_batches(job), Meter(None, log_every=9, global_batch=16)
    take_step(job, next(batches))
    before = learnt(job, "classifier", "optimizer")
    job.loss = with_nan_gradient(job.loss)

    def step_and_read() -> None:
        # A fused optimizer skips the step by itself; its error comes when the step is read.
        meter.add(take_step(job, next(batches)))
        meter.settle()

    with pytest.raises(NonFiniteLoss, match=r"the gradient of step 2 is not finite, although its loss is; .*changed no weight"):
        step_and_read()
    assert_equal_states(learnt(job, "classifier", "optimizer"), before)


def test_the_last_checkpoint_of_a_run_that_diverges_is_the_one_before(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, checkpoint={"every_steps": 2})
    original = stepping.forward
    monkeypatch.setattr(stepping, "forward", lambda job, batch: original(job, batch) / (job.state.progress.step != 5))
    with pytest.raises(NonFiniteLoss, match="the loss of step 6 is not finite"):
        fit(run, Place(), CPU)
    assert list_checkpoints(run.run_folder)[-1].step == 4
    assert all(tensor.isfinite().all() for tensor in list_checkpoints(run.run_folder)[-1].load()["classifier"].values())


def _diverging_rank(rank: int, world_size: int, run: dict[str, Any], meeting: str) -> None:
    dist.init_process_group("gloo", meeting, rank=rank, world_size=world_size)
    job = prepare(Run.model_validate(run), Place(rank, 2, 2), CPU)
    if rank == 1:
        job.loss = lambda outputs, *rest: outputs["logits"].sum(1) * float("inf")
    before = learnt(job, "classifier", "optimizer", "ema")
    with pytest.raises(NonFiniteLoss) as diverged:
        take_step(job, next(micro_batches(job)))
    assert_equal_states(learnt(job, "classifier", "optimizer", "ema"), before)
    Path(job.run.run_folder, f"rank-{rank}.json").write_text(json.dumps(str(diverged.value)))
    dist.destroy_process_group()


def test_all_ranks_refuse_a_step_that_one_of_them_finds_broken(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    spawn_ranks(_diverging_rank, 2, run)
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert "from 8 samples" in first


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize(("value", "expected"), [(1e18, True), (1e30, False), (float("inf"), False), (float("nan"), False)])
def test_gradients_are_finite_where_their_norm_is(value: float, clip_norm: float | None, expected: bool) -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.full((2,), value)
    assert bool(clip_gradients([parameter], clip_norm)) is expected
    if clip_norm is None:
        assert torch.equal(parameter.grad, torch.full((2,), value)) or value != value
