"""One optimizer step of a rank: forward and backward of each micro batch, the numbers shared by all ranks, and the update."""

import time
from dataclasses import replace

import torch

from rayprob.files import storage
from rayprob.loader.streams import Batch
from rayprob.runs.folder import stop_is_asked
from rayprob.runs.schedules import lr_factor
from rayprob.seeds import derive
from rayprob.train.compute import accumulating, sum_over_ranks
from rayprob.train.finite import Reading, gradient_fault, require_finite_loss, skip_step_unless
from rayprob.train.job import RankJob
from rayprob.train.meter import StepResult
from rayprob.train.optimizer import clip_gradients, set_lr

HEED_EVERY_S = 5.0


def take_step(job: RankJob, batches: list[Batch]) -> StepResult:
    """Take one optimizer step over the global batch of which `batches` is this rank's part.

    Raises NonFiniteLoss, on every rank and before any weight changes, if the loss is not finite or, unless the optimizer
    skips the step on the device, its gradient.
    """
    run, state = job.run, job.state
    step = state.progress.step
    set_lr(state.optimizer, factor := lr_factor(run.schedule, step, job.total_steps))
    loss_B, reading = gradients(job, batches)
    loss, *wishes = reading.read()
    require_finite_loss(loss, step + 1, loss_B, torch.cat([batch.sample_ids_B for batch in batches]), job.place)
    is_gradient_finite = update(job)
    state.progress = replace(state.progress, step=step + 1, cursor=job.stream.next(batches[0].cursor))
    return StepResult(
        step=step + 1,
        lr=run.optimizer.lr * factor,
        loss=loss,
        wishes=tuple(wish > 0 for wish in wishes),
        is_gradient_finite=is_gradient_finite,
    )


def gradients(job: RankJob, batches: list[Batch]) -> tuple[torch.Tensor, Reading]:
    """Run each micro batch forward and backward; return the losses [B] of this rank, and the step's numbers of all ranks.

    Random numbers depend on the share of the batch, not on the rank that computes it.
    """
    per_share = job.stream.micro_batches_per_share
    parts: list[torch.Tensor] = []
    for index, batch in enumerate(batches):
        is_last = batch is batches[-1]
        if index % per_share == 0:
            torch.manual_seed(derive(job.run.seed, "step", job.state.progress.step, job.stream.shares[index // per_share]))
        with accumulating(job.parallel, is_last):
            loss_B = forward(job, batch)
            parts.append(loss_B.detach())
            if is_last:
                reading = Reading(summed_numbers(job, torch.cat(parts)))
            backward(job, loss_B)
    return torch.cat(parts), reading


def forward(job: RankJob, batch: Batch) -> torch.Tensor:
    """Return the losses [B] of one micro batch."""
    compute = job.compute
    with compute.autocast():
        outputs = job.parallel(compute.images(batch.images_BCHW))
    return job.loss(outputs, compute.on_device(batch.targets_BL), compute.on_device(batch.known_BL))


def backward(job: RankJob, loss_B: torch.Tensor) -> None:
    """Accumulate one micro batch's gradient of the mean loss over the global batch."""
    # DDP averages gradients over ranks; the mean must be over the global batch.
    scaled = loss_B.sum() * (job.place.world_size / job.run.stream.global_batch)
    job.state.scaler.scale(scaled).backward()  # type: ignore[no-untyped-call]


def summed_numbers(job: RankJob, loss_B: torch.Tensor) -> torch.Tensor:
    """Return the mean loss over the global batch, and rank 0's requests to stop, to save and to call `heed`."""
    mean_loss = loss_B.sum() / job.run.stream.global_batch
    look_is_due = _look_is_due(job)
    asked = [_stop_is_asked(job, look_is_due), _minutes_are_over(job), look_is_due]
    wishes = job.compute.on_device(torch.tensor(asked, dtype=mean_loss.dtype))
    return sum_over_ranks(torch.cat([mean_loss[None], wishes]), job.place)


def update(job: RankJob) -> torch.Tensor:
    """Clip, step, clear the gradients, and update the average; return whether the gradients were finite, on the device.

    Raises NonFiniteLoss if they were not and the optimizer cannot skip its step on the device.
    """
    state, clip_norm = job.state, job.run.optimizer.clip_norm
    parameters = [parameter for parameter in state.classifier.parameters() if parameter.grad is not None]
    if state.scaler.is_enabled():
        # The scaler skips a step whose gradients overflow and lowers its scale: with fp16 that is normal.
        if clip_norm is not None:
            state.scaler.unscale_(state.optimizer)
            clip_gradients(parameters, clip_norm)
        is_finite = torch.tensor(True)
    else:
        is_finite = clip_gradients(parameters, clip_norm)
        if not skip_step_unless(is_finite, state.optimizer) and not is_finite:
            raise gradient_fault(state.progress.step + 1)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema:
        state.ema.update(state.classifier)
    return is_finite


def _stop_is_asked(job: RankJob, look_is_due: bool) -> bool:
    folder = job.run.run_folder
    # A remote folder answers slowly.
    return job.place.rank == 0 and (storage.is_local(folder) or look_is_due) and stop_is_asked(folder)


def _minutes_are_over(job: RankJob) -> bool:
    minutes = job.run.checkpoint.every_minutes
    # Clocks differ between ranks, and all must save at the same step: rank 0's clock counts.
    return job.place.rank == 0 and minutes is not None and time.perf_counter() - job.clock.saved_at_s > 60 * minutes


def _look_is_due(job: RankJob) -> bool:
    # `heed` is a barrier of some milliseconds, too slow for every step.
    is_due = job.place.rank == 0 and time.perf_counter() - job.clock.looked_at_s > HEED_EVERY_S
    if is_due:
        job.clock = replace(job.clock, looked_at_s=time.perf_counter())
    return is_due
