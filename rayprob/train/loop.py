"""The training loop: plain PyTorch, one process per rank, resumable at any step, without Ray.

The entry point is `fit`: prepare, train, finish. Every rank runs it; only rank 0 writes. All random numbers of a step derive
from the run's seed and the step, so no generator state has to be saved.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import torch

from rayprob.data.joined.dataset import AnyDataset, JoinedDataset
from rayprob.errors import OutOfMemory, RayprobError
from rayprob.files import patience
from rayprob.loader.order import Place
from rayprob.loader.streams import Batch
from rayprob.runs.bundle import Bundle
from rayprob.runs.card import carded
from rayprob.runs.checkpoints import Progress, best_first, latest, list_checkpoints, load_first, prune, save_checkpoint
from rayprob.runs.history import History
from rayprob.runs.paths import RunFolder
from rayprob.runs.spec import Run
from rayprob.train.compute import Report, share_buffers, wait_for_all
from rayprob.train.evaluate import evaluation_numbers, predict_split
from rayprob.train.job import RankJob, prepare
from rayprob.train.meter import Meter
from rayprob.train.step import take_step

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `finished`, `early` (no improvement for too long) or `stopped` (on request, and resumable)."""

    ending: str
    step: int
    total_steps: int
    best_step: int | None
    best_score: float | None


def fit(
    run: Run,
    place: Place,
    device: torch.device,
    report: Report = lambda numbers: None,
    heed: Callable[[], dict[str, Any] | None] = lambda: None,
) -> Outcome:
    """Train to the end of the run, or until a file named `stop` appears in its folder. Resumes from the last checkpoint.

    `report` is called on every rank with the numbers of each evaluation, and `heed` on every rank after the same step, every
    few seconds: if it returns details of an upcoming shutdown, a checkpoint is written at once.
    """
    with patience.patient(run.placement.storage_patience_s):
        job = prepare(run, place, device)
        with job.compute.settings():
            return _fit(job, report, heed)


def _fit(job: RankJob, report: Report, heed: Callable[[], dict[str, Any] | None]) -> Outcome:
    run, ending = job.run, "failed"
    try:
        ending = train(job, report, heed)
        if ending != "stopped":
            finish(job)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"{run.micro_batch(job.place.world_size)} images of {run.transforms.train.size_px} px at a time do not fit into "
            f"the memory of {job.compute.device}; lower placement.micro_batch, which does not change the global batch "
            f"({str(error).splitlines()[0]})"
        ) from error
    except RayprobError:
        raise
    except Exception as error:
        error.add_note(f"after step {job.state.progress.step}")  # so that a repeated error is recognised
        raise
    finally:
        if job.history:
            job.history.close(ending)
    progress = job.state.progress
    return Outcome(ending, progress.step, job.total_steps, progress.best_step, progress.best_score)


def finished_outcome(run: Run) -> Outcome:
    """Return how a finished run ended."""
    checkpoints = list_checkpoints(run.run_folder)
    last, best = latest(checkpoints), best_first(checkpoints)[0]
    assert last is not None
    ending = "early" if last.progress.is_stopped_early else "finished"
    return Outcome(ending, last.step, last.step, best.step, best.score)


def train(job: RankJob, report: Report, heed: Callable[[], dict[str, Any] | None]) -> str:
    """Take steps until the end; return how training ended: "finished", "early" or "stopped"."""
    run = job.run
    if job.history:
        job.history.record("start", job.state.progress.step, start_facts(job))
    meter = Meter(
        job.history,
        log_every=run.log_every_steps,
        global_batch=run.stream.global_batch,
        losses=job.state.progress.open_losses,
    )
    for batches in steps(job, meter):
        meter.add(take_step(job, batches))
        step = job.state.progress.step
        notice = heeded(job, heed) if meter.look_is_asked else None
        evaluation_is_due = step % job.evaluate_every == 0 or step == job.total_steps
        save_is_due = meter.save_is_asked or meter.stop_is_asked or _save_is_due(job)
        # An evaluation ends with a checkpoint, but may take longer than the node will last.
        if notice or (save_is_due and not evaluation_is_due):
            meter.settle()
            keep_open_losses(job, meter)
            save(job, score=None)
        if evaluation_is_due:
            meter.close_window()
            keep_open_losses(job, meter)
            evaluate(job, report)
            meter.restart()
        meter.save_is_asked = meter.look_is_asked = False
        if job.state.progress.is_stopped_early:
            break
        if meter.stop_is_asked and step < job.total_steps:
            return "stopped"
    return "early" if job.state.progress.is_stopped_early else "finished"


def start_facts(job: RankJob) -> dict[str, Any]:
    """Return the facts recorded when a run starts or resumes."""
    parameters = sum(parameter.numel() for parameter in job.state.classifier.parameters() if parameter.requires_grad)
    return {
        "total_steps": job.total_steps,
        "steps_per_epoch": job.stream.batches_per_epoch,
        "train_samples": len(job.dataset.split(job.run.data.train_split)),
        "world_size": job.place.world_size,
        "micro_batch": job.run.micro_batch(job.place.world_size),
        "device": str(job.compute.device),
        "trainable_parameters": parameters,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        **({"datasets": mixed} if (mixed := _mixed(job)) else {}),
        **({"notes": job.notes} if job.notes else {}),
    }


def _mixed(job: RankJob) -> list[str]:
    """Return what each of several datasets adds, in words; nothing for one dataset."""
    data, evaluation = job.run.data, job.run.evaluation
    return job.dataset.sentences(data.train_split, evaluation.split) if isinstance(job.dataset, JoinedDataset) else []


def steps(job: RankJob, meter: Meter) -> Iterator[list[Batch]]:
    """Yield the micro batches of each remaining step."""
    progress = job.state.progress
    if progress.is_stopped_early:
        return
    with closing(job.stream.iterate(progress.cursor)) as batches:
        for _ in range(progress.step, job.total_steps):
            with meter.waiting():
                micro_batches = [next(batches) for _ in range(job.stream.micro_batches_per_step)]
            if job.history and progress.step == 0 and job.state.progress.step == 0:
                show_examples(job.history, micro_batches[0], job.dataset)
            yield micro_batches


def show_examples(history: History, batch: Batch, dataset: AnyDataset) -> None:
    """Write the first images of the run to TensorBoard, as the classifier sees them."""
    names = [", ".join(dataset.label_space.names_of(targets_L.numpy())) for targets_L in batch.targets_BL[:16]]
    history.show_images(0, batch.images_BCHW[:16].numpy(), names)


def keep_open_losses(job: RankJob, meter: Meter) -> None:
    """Store the losses of the open log window in the next checkpoint, so that a resumed run logs the same means."""
    job.state.progress = replace(job.state.progress, open_losses=tuple(meter.losses))


def heeded(job: RankJob, heed: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
    """Check for an upcoming shutdown, and record what is known of it."""
    notice = heed()
    if notice and job.history:
        job.history.record("notice", job.state.progress.step, notice)
    return notice


def evaluate(job: RankJob, report: Report) -> None:
    """Evaluate on holdout, record whether it is the best so far, save a checkpoint, and report."""
    started_at_s = time.perf_counter()
    share_buffers(job.state.classifier, job.place)
    share_buffers(job.state.evaluated, job.place)
    manifest = job.dataset.split(job.run.evaluation.split)
    numbers = evaluation_numbers(predict_split(job.state.evaluated, manifest, job.holdout, job.compute, job.facts))
    job.state.progress = judged(job.state.progress, numbers["mAP"], job.run)
    if job.history:
        elapsed_s = time.perf_counter() - started_at_s
        is_best = job.state.progress.best_step == job.state.progress.step
        job.history.record("evaluation", job.state.progress.step, {**numbers, "is_best": is_best, "elapsed_s": elapsed_s})
    save(job, score=numbers["mAP"])
    step = job.state.progress.step
    epoch = step / job.stream.batches_per_epoch
    report({"step": step, "epoch": epoch, **{k: v for k, v in numbers.items() if isinstance(v, float)}})


def judged(progress: Progress, score: float, run: Run) -> Progress:
    """Return the progress after an evaluation: the best one so far, and whether patience has run out."""
    if progress.best_score is None or score > progress.best_score + run.evaluation.min_gain:
        return replace(progress, best_score=score, best_step=progress.step, stale_evaluations=0)
    stale = progress.stale_evaluations + 1
    patience = run.evaluation.patience
    return replace(progress, stale_evaluations=stale, is_stopped_early=patience is not None and stale >= patience)


def save(job: RankJob, score: float | None) -> None:
    """Write a checkpoint from rank 0 while the others wait."""
    now_s = time.perf_counter()
    elapsed_s = job.state.progress.elapsed_s + now_s - job.clock.elapsed_since_s
    job.state.progress = replace(job.state.progress, elapsed_s=elapsed_s)
    if job.history:
        job.history.flush()  # first: a run that resumes from this checkpoint does not write the rows before it again
    if job.place.rank == 0:
        save_checkpoint(job.run.run_folder, job.state.tensors(), job.state.progress, score)
        prune(job.run.run_folder, job.run.checkpoint.keep_best)
    wait_for_all(job.place)
    job.clock = replace(job.clock, elapsed_since_s=now_s, saved_at_s=time.perf_counter())


def finish(job: RankJob) -> None:
    """Load the best checkpoint, write its holdout predictions and its bundle."""
    folder = job.run.run_folder
    found = load_first(best_first(list_checkpoints(folder)))
    assert found is not None
    best, tensors = found
    progress = job.state.progress
    job.state.restore(tensors, best.progress)
    manifest = job.dataset.split(job.run.evaluation.split)
    predictions = predict_split(job.state.evaluated, manifest, job.holdout, job.compute, job.facts)
    if job.place.rank == 0:
        predictions.write(RunFolder(folder).predictions(manifest.split))
        bundle = bundle_of(job)
        with carded(folder, bundle, intervals=False):  # other ranks wait
            bundle.save(RunFolder(folder).bundle)
    job.state.progress = progress
    wait_for_all(job.place)


def bundle_of(job: RankJob) -> Bundle:
    """Return everything needed to predict with the evaluated weights."""
    return Bundle(
        classifier=job.state.evaluated,
        model_spec=job.run.model,
        label_space=job.dataset.label_space,
        transform_spec=job.run.transforms.evaluate,
        facts=job.facts,
        plugins=job.run.plugins,
        reading=job.dataset.reading,
    )


def _save_is_due(job: RankJob) -> bool:
    every_steps = job.run.checkpoint.every_steps
    return every_steps is not None and job.state.progress.step % every_steps == 0
