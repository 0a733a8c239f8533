"""Training steps to measure without a dataset: of our loop, and of a bare PyTorch loop with the same network and settings."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils import clip_grad_norm_
from torch.utils.flop_counter import FlopCounterMode

from rayprob.loader.batch import Batch
from rayprob.loader.order import Cursor, Place
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.models.heads import HeadSpec
from rayprob.models.losses import LossSpec, build_loss
from rayprob.probability.families import family_of
from rayprob.runs.spec import Run
from rayprob.train.compute import Compute
from rayprob.train.job import RankJob
from rayprob.train.meter import Meter
from rayprob.train.optimizer import build_optimizer
from rayprob.train.state import TrainState
from rayprob.train.step import take_step

NUM_LABELS = 80
PEAK_FLOPS = {"NVIDIA H100": 989e12, "NVIDIA H200": 989e12, "NVIDIA A100": 312e12}  # dense bf16
Step = Callable[[list[Batch]], object]


class OneBatch:
    """Stands in for the stream: the cursor advances, the batch stays the same."""

    micro_batches_per_step = micro_batches_per_share = 1
    shares = (0,)

    def next(self, cursor: Cursor) -> Cursor:
        return Cursor(cursor.epoch, cursor.batch + 1)


def job_of(run: Run, device: torch.device) -> RankJob:
    """Return the job of a run on one rank, without a dataset."""
    compute = Compute.plan(run.precision, Place(), device)
    classifier = build_classifier(run.model, NUM_LABELS)
    compute.place_weights(classifier)
    state = TrainState(classifier, build_optimizer(classifier, run.optimizer, device), compute.grad_scaler(), None)
    parts: dict[str, Any] = {"dataset": None, "stream": OneBatch(), "holdout": None, "history": None}
    return RankJob(
        run=run, compute=compute, state=state, parallel=compute.parallel(classifier), loss=build_loss(run.loss),
        total_steps=10**6, evaluate_every=10**6, **parts,
    )  # fmt: skip


def loss_of(head: HeadSpec) -> LossSpec:
    """Return the default loss of a head."""
    return LossSpec(name=family_of(head.family).loss, **head.loss_options)


def batch_of(run: Run, device: torch.device) -> Batch:
    """Return a random global batch, in pinned memory for a GPU, as from a stream."""
    size, side_px = run.stream.global_batch, run.transforms.train.size_px
    rng = np.random.default_rng(0)
    batch = Batch(
        images_BCHW=torch.from_numpy(rng.integers(0, 256, (size, 3, side_px, side_px), dtype=np.uint8)),
        targets_BL=torch.from_numpy(rng.random((size, NUM_LABELS)) < 0.04),
        known_BL=torch.ones(size, NUM_LABELS, dtype=torch.bool),
        sample_ids_B=torch.arange(size),
        cursor=Cursor(0, 0),
    )
    return batch.pin_memory() if device.type == "cuda" else batch


def ours(job: RankJob) -> Step:
    """Return the step of our loop."""
    meter = Meter(None, log_every=10, global_batch=job.run.stream.global_batch)
    return lambda batches: meter.add(take_step(job, batches))


def bare(job: RankJob) -> Step:
    """Return the step of a hand-written loop over the network and optimizer of a job, for independent labels."""
    compute, classifier, optimizer = job.compute, job.state.classifier, job.state.optimizer
    clip_norm = job.run.optimizer.clip_norm

    def step(batches: list[Batch]) -> None:
        (batch,) = batches
        images = batch.images_BCHW.to(compute.device, non_blocking=True).contiguous(memory_format=compute.memory_format)
        targets = batch.targets_BL.to(compute.device, non_blocking=True)
        with compute.autocast():
            logits = job.parallel(images)["logits"]
        binary_cross_entropy_with_logits(logits, targets.float()).backward()
        if clip_norm is not None:
            clip_grad_norm_(classifier.parameters(), clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


@cache
def training_flops(spec: ModelSpec, size_px: int) -> int:
    """Return the floating-point operations of forward and backward of one image; nothing is computed."""
    with torch.device("meta"):
        classifier = build_classifier(spec, NUM_LABELS, load=False)
        images_BCHW = torch.zeros(1, 3, size_px, size_px)
    with FlopCounterMode(display=False) as counter:
        sum(output.sum() for output in classifier(images_BCHW).values() if output.requires_grad).backward()
    return int(counter.get_total_flops())


def peak_flops(device_name: str) -> float | None:
    """Return the dense bf16 peak of a chip; None if it is not in the table."""
    return next((flops for chip, flops in PEAK_FLOPS.items() if device_name.startswith(chip)), None)
