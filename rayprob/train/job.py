"""One rank's part of a run, ready to go: every part built, checked, and restored from the last checkpoint."""

import logging
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayprob.data.joined.dataset import AnyDataset, AnySplit
from rayprob.loader.augment import build_transform
from rayprob.loader.order import Place
from rayprob.loader.streams import EvalStream, TrainStream
from rayprob.models.auxiliaries import with_auxiliary
from rayprob.models.build import build_classifier
from rayprob.models.head_prior import prior_mixture
from rayprob.models.heads import Start
from rayprob.models.losses import Loss, build_loss
from rayprob.probability.distributions.mixture import fit_label_mixture
from rayprob.runs.checkpoints import list_checkpoints, load_first, newest_first
from rayprob.runs.folder import recorded_data
from rayprob.runs.history import History
from rayprob.runs.rules import check
from rayprob.runs.spec import Run, described
from rayprob.seeds import derive
from rayprob.train.compute import Compute, wait_for_all
from rayprob.train.notes import noted_warnings
from rayprob.train.optimizer import build_optimizer
from rayprob.train.state import Ema, TrainState

log = logging.getLogger(__name__)
MIXTURE_SAMPLES = 2**20  # more would only cost memory, L bytes per sample


@dataclass(frozen=True)
class Clock:
    """When time was last added to the progress, when a checkpoint was last written, and when `heed` was last called."""

    elapsed_since_s: float
    saved_at_s: float
    looked_at_s: float

    @classmethod
    def start(cls) -> "Clock":
        now_s = time.perf_counter()
        return cls(now_s, now_s, now_s)


@dataclass
class RankJob:
    """One rank's part of a run, ready to go."""

    run: Run
    compute: Compute
    dataset: AnyDataset
    stream: TrainStream
    holdout: EvalStream
    state: TrainState
    parallel: torch.nn.Module
    loss: Loss
    history: History | None
    total_steps: int
    evaluate_every: int
    clock: Clock = field(default_factory=Clock.start)
    notes: tuple[str, ...] = ()  # warnings from its preparation

    @property
    def place(self) -> Place:
        return self.compute.place

    @property
    def facts(self) -> dict[str, Any]:
        """What every table and bundle of this run records about its origin."""
        return {
            **described(self.run),
            "dataset_fingerprint": self.dataset.fingerprint,
            "step": self.state.progress.step,
        }


def prepare(run: Run, place: Place, device: torch.device) -> RankJob:
    """Build every part, check that the parts fit, and restore the last checkpoint if there is one."""
    with noted_warnings() as notes:
        job = _prepare(run, place, device)
    return replace(job, notes=tuple(notes))


def _prepare(run: Run, place: Place, device: torch.device) -> RankJob:
    dataset = recorded_data(run).open()
    check(run, dataset, place.world_size)
    compute = Compute.plan(run.precision, place, device)
    train_split, holdout_split = dataset.split(run.data.train_split), dataset.split(run.evaluation.split)
    micro_batch = run.micro_batch(place.world_size)
    stream = TrainStream(
        train_split,
        run.stream,
        build_transform(run.transforms.train),
        seed=run.seed,
        place=place,
        micro_batch=micro_batch,
        shares=run.shares(place.world_size),
    )
    holdout = EvalStream(
        holdout_split, run.stream, build_transform(run.transforms.evaluate), place=place, micro_batch=run.evaluation.micro_batch
    )
    found = load_first(newest_first(list_checkpoints(run.run_folder)))
    state = build_state(run, dataset, compute, is_fresh=found is None)
    loss = build_loss(run.loss, Start(prevalence(train_split)))
    if found:
        checkpoint, tensors = found
        state.restore(tensors, checkpoint.progress)
    _note_what_compares_samples(run, micro_batch)
    wait_for_all(place)
    per_epoch = stream.batches_per_epoch
    return RankJob(
        run=run,
        compute=compute,
        dataset=dataset,
        stream=stream,
        holdout=holdout,
        state=state,
        parallel=compute.parallel(state.classifier),
        loss=with_auxiliary(loss, state.classifier.auxiliary, run.auxiliary),
        history=History(run.run_folder, state.progress.step, run) if place.rank == 0 else None,
        total_steps=run.duration.in_steps(per_epoch, run.stream.global_batch),
        evaluate_every=run.evaluation.every.in_steps(per_epoch, run.stream.global_batch),
    )


def _note_what_compares_samples(run: Run, micro_batch: int) -> None:
    """Warn that results depend on the number of workers, unless the run fixes its micro batches for any number of them."""
    for part in (run.loss, run.auxiliary):
        if part is not None and part.compares_samples and not run.placement.is_elastic:
            log.warning(
                "%s %s compares the %d samples of a micro batch, so results depend on the number of workers and on "
                "micro_batch; placement.num_workers: [1, N] gives the same ones on 1 to N workers",
                *(part.kind, part.name, micro_batch),
            )


def build_state(run: Run, dataset: AnyDataset, compute: Compute, *, is_fresh: bool) -> TrainState:
    """Return the state of step 0, equal on every rank; without starting weights if a checkpoint will replace them."""
    torch.manual_seed(derive(run.seed, "weights"))
    train_split = dataset.split(run.data.train_split)
    classifier = build_classifier(
        run.model,
        len(dataset.label_space),
        prevalence_L=prevalence(train_split),
        mixture=label_mixture(run, train_split) if is_fresh else None,
        label_sets=partial(label_sets, train_split) if is_fresh else None,
        label_space=dataset.label_space,
        auxiliary=run.auxiliary,
        load=is_fresh,
    )
    compute.place_weights(classifier)
    ema = Ema(classifier, run.ema.half_life_samples, run.stream.global_batch) if run.ema else None
    return TrainState(
        classifier=classifier.train(),
        optimizer=build_optimizer(classifier, run.optimizer, compute.device),
        scaler=compute.grad_scaler(),
        ema=ema,
    )


def prevalence(manifest: AnySplit) -> NDArray[np.float64]:
    """Return the prevalence of each label among the samples for which it is known [L], each counted by its weight."""
    present_L, known_L = np.zeros((2, len(manifest.label_space)))
    for member in manifest.members:
        present, known = member.manifest.label_counts()
        present_L[member.columns] += member.weight * present
        known_L[member.columns] += member.weight * known
    return present_L / np.where(known_L > 0, known_L, 1)


def label_mixture(run: Run, manifest: AnySplit) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the mixture from which the head starts: its prior, or one fitted to label sets of the training split.

    None if the head does not need one. Raises as `prior_mixture`.
    """
    head = run.model.head
    if not head.start_components:
        return None
    mixture = prior_mixture(head, manifest.label_space)
    if mixture is None:
        seed = derive(run.seed, "label mixture")
        mixture = fit_label_mixture(*label_sets(manifest), num_components=head.start_components, seed=seed)
    return mixture.mixing_weights_K, mixture.probabilities_KL


def label_sets(manifest: AnySplit) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return targets and known [N, L] of the samples of a split, or of a subset of a very large split."""
    rows = manifest.spread(MIXTURE_SAMPLES)
    return manifest.targets(rows), manifest.known(rows)
