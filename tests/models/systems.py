"""A small system for every registered part: a head, a loss or a pooling, with what it needs, on a backbone of one layer.

B images, F features, P places, L labels. A part that a later module registers has its system, and with it all the tests that
read `SYSTEMS`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rayprob.labels import LabelSpace
from rayprob.loader.batch import Batch
from rayprob.loader.order import Cursor, Place
from rayprob.models.backbones import BACKBONES, Cut
from rayprob.models.build import build_classifier
from rayprob.models.classifier import Classifier
from rayprob.models.heads import HEADS, Head, HeadSpec, Start, build_head
from rayprob.models.losses import LOSSES, Loss, LossSpec, build_loss
from rayprob.models.pooling import POOLINGS
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.distributions.mixture import fit_label_mixture
from rayprob.probability.families import family_of, from_outputs
from rayprob.runs.rules import heads_of
from rayprob.runs.spec import Run
from rayprob.train.compute import Compute
from rayprob.train.job import RankJob
from rayprob.train.optimizer import build_optimizer
from rayprob.train.state import Ema, TrainState
from rayprob.train.step import take_step

F, P, L = 12, 4, 6
SIZE_PX, PATCH_PX = 32, 8
LABELS = LabelSpace(("red", "green", "blue", "round", "large", "bright"), (1, 2, 3, 4, 5, 6))
# Options with which a head is more than another one, or of a size that fits six labels; all others have their defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "mixture": {"components": 3},
    "powerset": {"sets": 16},
    "semantic": {"width": 32},
    "srn": {"width": 16, "grid": 2},
    "decoder": {"width": 32, "feedforward": 64},
    "masked": {"width": 16},
    "recurrent": {"embedding": 16, "state": 16},
}
HALF, STEPS = 8, 3  # images of half a global batch; steps of a run


@dataclass(frozen=True)
class Toy:
    """Label sets of two scenes, which see three labels each, and features in which each label adds to one, at one place."""

    targets_NL: NDArray[np.bool_]
    features_NFP: Tensor

    @classmethod
    def draw(cls, num_images: int, seed: int) -> "Toy":
        rng = np.random.default_rng(seed)
        is_first_N1 = rng.random((num_images, 1)) < 0.5
        probable_NL = np.where(is_first_N1, [0.7, 0.6, 0.5, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.4, 0.5, 0.6])
        targets_NL = rng.random((num_images, L)) < probable_NL
        features_NFP = np.abs(rng.normal(0, 0.4, (num_images, F, P)))
        rows, columns = np.nonzero(targets_NL)
        features_NFP[rows, columns, rng.integers(P, size=len(rows))] += 2.5
        return cls(targets_NL, torch.from_numpy(features_NFP))

    @cached_property
    def targets(self) -> Tensor:
        return torch.from_numpy(self.targets_NL)

    def label_sets(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        return self.targets_NL, np.ones_like(self.targets_NL)

    def start(self, spec: HeadSpec) -> Start:
        """What a head starts from when it is trained on these label sets."""
        mixture = None
        if spec.start_components:
            mixture = fit_label_mixture(self.targets_NL, num_components=spec.start_components, seed=0)
        return Start(
            self.targets_NL.mean(axis=0),
            mixture and mixture.mixing_weights_K,
            mixture and mixture.probabilities_KL,
            self.label_sets,
        )


TRAIN = Toy.draw(256, 1)
TEST = Toy.draw(64, 2)


def head_spec(name: str) -> HeadSpec:
    return HeadSpec(name=name, **OPTIONS.get(name, {}))


def loss_of(spec: HeadSpec) -> LossSpec:
    """The default loss of a head."""
    return LossSpec(name=family_of(spec.family).loss, **spec.loss_options)


def term_of(loss: LossSpec) -> Loss:
    """The function of a loss, which may depend on the prevalences of training."""
    return build_loss(loss, Start(TRAIN.targets_NL.mean(axis=0)))


def features_of(spec: HeadSpec, toy: Toy) -> Tensor:
    """Features as the pooling of the head's system returns them: [N, F, P] for a head that needs places, else [N, F]."""
    return toy.features_NFP if spec.why_places else toy.features_NFP.mean(dim=2)


def fresh(spec: HeadSpec) -> Head:
    """A head of `spec` in evaluation mode and float64, as training starts it."""
    torch.manual_seed(0)
    return build_head(spec, F, L, TRAIN.start(spec)).double().eval()


def trained(spec: HeadSpec, loss: LossSpec, *, steps: int = 60) -> Head:
    """A head after some steps of AdamW on the toy problem."""
    torch.manual_seed(1)
    head = build_head(spec, F, L, TRAIN.start(spec)).train()
    optimizer, term = torch.optim.AdamW(head.parameters(), lr=0.02), term_of(loss)
    features = features_of(spec, TRAIN).float()
    for _ in range(steps):
        rows = torch.randint(len(features), (64,))
        term(head(features[rows]), TRAIN.targets[rows], torch.ones(64, L, dtype=torch.bool)).mean().backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return head.eval()


def arrays(outputs: dict[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.detach().float().numpy() for name, tensor in outputs.items()}


@torch.no_grad()
def distribution(head: Head, features: Tensor) -> LabelDistribution:
    return from_outputs(head.family, arrays(head(features)))


# Whole classifiers.


def patches(weights: str | None, image_size_px: int | None, load: bool) -> Cut:
    """A backbone of one layer: F features of each patch."""
    return Cut(nn.Sequential(nn.Conv2d(3, F, PATCH_PX, stride=PATCH_PX), nn.ReLU()), num_features=F, head_names=())


@contextmanager
def with_patches() -> Iterator[None]:
    """The table of backbones with `patches`."""
    BACKBONES["patches"] = patches
    try:
        yield
    finally:
        del BACKBONES["patches"]


@dataclass(frozen=True)
class System:
    """A head, a loss and a pooling that fit together."""

    head: HeadSpec
    loss: LossSpec
    pooling: str

    @classmethod
    def of(cls, head: HeadSpec, loss: LossSpec | None = None, pooling: str | None = None) -> "System":
        return cls(head, loss or loss_of(head), pooling or ("places" if head.why_places else "gap"))

    def run(self, folder: str, **changes: Any) -> Run:
        """A run of the system, with dropout and an average of the weights."""
        transform = {"name": "resize", "size_px": SIZE_PX}
        value: dict[str, Any] = {
            "name": "system",
            "folder": folder,
            "data": {"root": folder},
            "stream": {"global_batch": 2 * HALF, "lanes": 2},
            "transforms": {"train": transform, "evaluate": transform},
            "model": {
                "backbone": "patches",
                "pooling": self.pooling,
                "head": {**self.head.model_dump(), "dropout": 0.2},
            },
            "loss": self.loss.model_dump(),
            "optimizer": {"name": "sgd", "lr": 0.5, "clip_norm": 1.0},
            "duration": {"steps": STEPS},
            "ema": {"half_life_samples": 64},
        }
        return Run.parse({**value, **changes})


def _systems() -> dict[str, System]:
    of_heads = {f"head {name}": System.of(head_spec(name)) for name in HEADS}
    of_losses = {}
    for name in LOSSES:
        loss = LossSpec(name=name)
        of_losses[f"loss {name}"] = System.of(head_spec(heads_of(loss.family)[0]), loss)
    of_poolings = {f"pooling {name}": System.of(head_spec("bernoulli"), pooling=name) for name in POOLINGS}
    return of_heads | of_losses | of_poolings


SYSTEMS = _systems()


def classifier_of(run: Run, *, is_fresh: bool = True) -> Classifier:
    """The classifier of a run, with the same weights each time; `is_fresh` as for `build_state`, which builds it in a run."""
    torch.manual_seed(3)
    start = TRAIN.start(run.model.head)
    mixture = None
    if start.mixing_weights_K is not None and start.probabilities_KL is not None:
        mixture = (start.mixing_weights_K, start.probabilities_KL)
    return build_classifier(
        run.model,
        L,
        prevalence_L=start.prevalence_L,
        mixture=mixture if is_fresh else None,
        label_sets=start.label_sets if is_fresh else None,
        load=is_fresh,
    )


class Halves:
    """Stands in for a stream of two shares: a rank has both, or one."""

    micro_batches_per_share = 1

    def __init__(self, place: Place) -> None:
        self.shares = (0, 1) if place.world_size == 1 else (place.rank,)

    def next(self, cursor: Cursor) -> Cursor:
        return Cursor(cursor.epoch, cursor.batch + 1)


def job_of(run: Run, place: Place = Place(), *, is_fresh: bool = True) -> RankJob:  # noqa: B008
    """A rank's job, ready for `take_step`, without a dataset."""
    compute = Compute.plan(run.precision, place, torch.device("cpu"))
    classifier = classifier_of(run, is_fresh=is_fresh).train()
    compute.place_weights(classifier)
    assert run.ema
    state = TrainState(
        classifier,
        build_optimizer(classifier, run.optimizer, compute.device),
        compute.grad_scaler(),
        Ema(classifier, run.ema.half_life_samples, run.stream.global_batch),
    )
    parts: dict[str, Any] = {"dataset": None, "stream": Halves(place), "holdout": None, "history": None}
    return RankJob(
        run=run,
        compute=compute,
        state=state,
        parallel=compute.parallel(classifier),
        loss=term_of(run.loss),
        total_steps=STEPS,
        evaluate_every=STEPS,
        **parts,
    )


def batches_of(job: RankJob) -> list[Batch]:
    """A rank's micro batches of the next step; a fifth of the labels is unknown."""
    step, drawn = job.state.progress.step, []
    for share in job.stream.shares:
        rng = np.random.default_rng([step, share])
        drawn.append(
            Batch(
                images_BCHW=torch.from_numpy(rng.integers(0, 256, (HALF, 3, SIZE_PX, SIZE_PX), dtype=np.uint8)),
                targets_BL=torch.from_numpy(rng.random((HALF, L)) < 0.4),
                known_BL=torch.from_numpy(rng.random((HALF, L)) < 0.8),
                sample_ids_B=torch.arange(HALF) + HALF * share,
                cursor=Cursor(0, step),
            )
        )
    return drawn


def take_steps(job: RankJob, num_steps: int) -> RankJob:
    for _ in range(num_steps):
        take_step(job, batches_of(job))
    return job


def train_ranks(rank: int, folder: str) -> None:
    """Train every system as one of two ranks, in one process group; rank 0 leaves the weights, or the error, in `folder`."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    with with_patches():
        for name, system in SYSTEMS.items():
            try:
                left = take_steps(job_of(system.run(folder), Place(rank, 2, 2)), STEPS).state.classifier.state_dict()
            except RuntimeError as error:  # DDP's own; the other systems are trained all the same
                left = {"error": str(error)}
            if rank == 0:
                torch.save(left, Path(folder) / f"{name}.pt")
    torch.distributed.destroy_process_group()
