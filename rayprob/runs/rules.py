"""All rules between the parts of a run file, checked before the first step."""

import math
from importlib.util import find_spec

from rayprob.config.parts import PartSpec
from rayprob.data.joined.dataset import AnyDataset
from rayprob.errors import SpecError
from rayprob.loader.batch_rules import Sizes
from rayprob.loader.turns import samples_per_epoch
from rayprob.models.head_prior import prior_mixture
from rayprob.models.heads import HEADS, HeadSpec
from rayprob.models.losses import LossSpec
from rayprob.probability.families import family_of
from rayprob.runs.shapes import check_shapes
from rayprob.runs.spec import Run


def check(run: Run, dataset: AnyDataset, world_size: int, *, is_refit: bool = False) -> None:
    """Raise SpecError or DatasetError for parts that do not fit together, and as `prior_mixture` for the head's prior."""
    for one in dataset.datasets:
        one.split(run.data.train_split)  # one without it would be left out of training
    dataset.split(run.evaluation.split)
    _check_val(run, dataset)
    check_sizes(run, dataset, world_size)
    if run.placement.is_elastic:
        _check_elastic(run)
    _check_image_sizes(run)
    _check_loss(run)
    _check_auxiliary(run)
    _check_apart(run, is_refit)
    _check_tracking(run)
    prior_mixture(run.model.head, dataset.label_space)
    check_shapes(run, len(dataset.label_space), world_size)


def _check_tracking(run: Run) -> None:
    for name, spec in run.tracking.items():
        if spec.package and find_spec(spec.package) is None:
            raise SpecError(
                f"tracking.{name} needs the package {spec.package}, which is missing; run pip install 'rayprob[{spec.package}]'"
            )


def _check_loss(run: Run) -> None:
    head, loss = run.model.head, run.loss
    if loss.family != head.family:
        other = _renamed("model.head", HeadSpec, head, heads_of(loss.family)[0])
        own = _renamed("loss", LossSpec, loss, family_of(head.family).loss)
        raise SpecError(
            f"loss.name {loss.name} needs a {loss.family} head, but model.head.name is {head.name}; set {other} or {own}"
        )


def _check_auxiliary(run: Run) -> None:
    why = run.auxiliary.why_features if run.auxiliary else ""
    if why and run.model.frozen == "backbone":
        raise SpecError(
            f"auxiliary.{why}, but model.frozen is backbone, as in a refit, so the head would learn the same without it; set "
            "auxiliary.compare: outputs, or train with model.frozen: none"
        )


def _check_apart(run: Run, is_refit: bool) -> None:
    if not run.model.head.needs_refit:
        return
    if not is_refit:
        raise SpecError(
            "model.head.apart fits each label on frozen features, which only `rayprob refit RUN --set head.apart=true` does; "
            "set model.head.apart: false"
        )
    plain = LossSpec(name=family_of(run.model.head.family).loss)
    if run.loss != plain or run.auxiliary:
        raise SpecError(
            f"head.apart maximises the likelihood of each label, but the loss is {run.loss.name}"
            f"{' with an auxiliary term' if run.auxiliary else ''}; leave out loss and auxiliary, or set head.apart: false"
        )


def heads_of(family: str) -> list[str]:
    """Return the heads of a family."""
    return [name for name in HEADS if HeadSpec.of(name).family == family] or [f"a head of the family {family}"]


def _renamed(key: str, kind: type[PartSpec], part: PartSpec, name: str) -> str:
    """Return how to change the name of a part: with its other keys if they are valid for the name, otherwise without them."""
    try:
        kind.parse({**part.model_dump(), "name": name})
    except SpecError:
        return f"{key} to {{name: {name}}}"
    return f"{key}.name to {name}"


def _check_val(run: Run, dataset: AnyDataset) -> None:
    is_chosen_by_val = run.evaluation.split == "val" and not run.evaluation.spends_val
    if run.data.train_split != "val" and not is_chosen_by_val:
        return
    key = "evaluation.split" if is_chosen_by_val else "data.train_split"
    use = "holdout" if is_chosen_by_val else "train"
    remedy = f"set {key} to {use}" if use in dataset.splits else f"the dataset has no split {use}: build it with one"
    raise SpecError(
        f"{key} is val, which is only for reporting: choosing or stopping weights by it makes its numbers too optimistic; "
        f"{remedy}; after training, `rayprob evaluate RUN --split val` reports on it"
    )


def check_sizes(run: Run, dataset: AnyDataset, world_size: int) -> None:
    """Raise SpecError unless the global batch divides among lanes, workers and micro batches."""
    placement = run.placement
    sizes = Sizes(
        num_samples=samples_per_epoch(dataset.split(run.data.train_split)),
        global_batch=run.stream.global_batch,
        lanes=run.stream.lanes,
        workers=run.shares(world_size),
        micro_batch=None if placement.micro_batch == "auto" else placement.micro_batch,
        least=placement.num_workers[0] if isinstance(placement.num_workers, tuple) else None,
    )
    sizes.check(run.data.train_split)


def _check_elastic(run: Run) -> None:
    placement, checkpoint = run.placement, run.checkpoint
    if run.model.norm == "sync":
        raise SpecError(
            "model.norm sync computes its statistics over all ranks in each forward pass, but in an elastic run some ranks run "
            f"more passes than others; set model.norm to frozen or train, or placement.num_workers to {placement.most_workers}"
        )
    every_s = 60 * checkpoint.every_minutes if checkpoint.every_minutes else None
    if not checkpoint.every_steps and (every_s is None or every_s > placement.resize_every_s):
        cadence = f"every {every_s:.0f} s" if every_s else "with evaluations only"
        raise SpecError(
            f"checkpoints are written {cadence}, but an elastic run restarts from the last one every "
            f"{placement.resize_every_s} s (placement.resize_every_s) to use more workers, and would repeat the same steps; "
            f"set checkpoint.every_minutes to {math.floor(placement.resize_every_s / 0.06) / 1000:g} or less, "
            "or set checkpoint.every_steps"
        )


def _check_image_sizes(run: Run) -> None:
    fixed = run.model.image_size_px
    for name, transform in (("train", run.transforms.train), ("evaluate", run.transforms.evaluate)):
        if fixed is not None and transform.size_px != fixed:
            raise SpecError(
                f"transforms.{name}.size_px {transform.size_px} differs from model.image_size_px {fixed}; "
                f"set transforms.{name}.size_px to {fixed}"
            )
