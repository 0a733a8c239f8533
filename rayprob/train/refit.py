"""`rayprob refit`: trains a new head on the frozen features of a finished run.

`refit` computes the features of both splits once, starts a head from the label sets of the training split and from the run's
own Bernoulli head, trains it on the features, and writes a new run folder that every other command accepts.
"""

import math
import posixpath
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

import torch
from pydantic import PositiveFloat, PositiveInt, SerializeAsAny, model_validator

from rayprob.config.spec import PluginSpec
from rayprob.errors import RunError, SpecError
from rayprob.loader.order import Place
from rayprob.loader.turns import samples_per_epoch
from rayprob.models.auxiliaries import AuxiliarySpec, build_auxiliary, with_auxiliary
from rayprob.models.classifier import Classifier
from rayprob.models.heads import HeadSpec, Start, build_head
from rayprob.models.heads.bernoulli import BernoulliHead
from rayprob.models.heads.mixture import MixtureSpec
from rayprob.models.losses import LossSpec, build_loss
from rayprob.probability.families import family_of
from rayprob.runs.bundle import Bundle
from rayprob.runs.card import carded
from rayprob.runs.finished import open_bundle
from rayprob.runs.folder import claim, open_run
from rayprob.runs.history_rows import read_history
from rayprob.runs.optimizers import OptimizerSpec
from rayprob.runs.paths import RunFolder
from rayprob.runs.predictions import Predictions
from rayprob.runs.rules import check, heads_of
from rayprob.runs.schedules import ScheduleSpec
from rayprob.runs.spec import Duration, Run, described
from rayprob.runs.tracking import Tracking
from rayprob.seeds import derive
from rayprob.train.apart import FittingApart
from rayprob.train.compute import Compute
from rayprob.train.features import FeatureEpochs, FeatureSource, split_features
from rayprob.train.fitting import Fitting, predictions_of
from rayprob.train.job import label_mixture, label_sets, prevalence
from rayprob.train.training import Tell

Metric = Literal["auto", "nll_nats", "mAP"]
StartFrom = Literal["source", "labels"]
SETTINGS = {"metric": "auto", "start": "source"}  # of a refit, in its facts where they differ from these


class RefitSpec(PluginSpec):
    """How to train a new head. The default loss is that of the head's family: bce for bernoulli, mixture for mixture.

    With a prior, the default has no `usage_weight`: components that are rare among label sets should stay rare.

    The evaluation that is best by `metric` on holdout is kept, including the one at the start; `patience` stops after that many
    epochs without a better one. A head without attention takes over that of the source.
    """

    head: SerializeAsAny[HeadSpec] = MixtureSpec(components=16)
    """The new head."""
    loss: SerializeAsAny[LossSpec] | None = None
    """The loss; by default that of the head's family."""
    auxiliary: SerializeAsAny[AuxiliarySpec] | None = None
    """A second term next to the loss; features are frozen, so it must be of the head's outputs."""
    optimizer: SerializeAsAny[OptimizerSpec] = OptimizerSpec(lr=3e-3, weight_decay=1e-2)
    """The optimizer."""
    schedule: SerializeAsAny[ScheduleSpec] = ScheduleSpec()
    """The learning-rate schedule."""
    epochs: PositiveFloat = 20.0
    """Passes over the features of the training split."""
    global_batch: PositiveInt = 64
    """Samples per optimizer step."""
    seed: int = 0
    """Seed of weights, order and dropout."""
    patience: PositiveInt | None = None
    """Stop after this many epochs without a better evaluation; null never stops early."""
    metric: Metric = "auto"
    """The number on holdout that chooses the evaluation to keep: nll_nats or mAP. auto is mAP for losses whose outputs are not
    probabilities before calibration, and else nll_nats.
    """
    tracking: Tracking | None = None
    """Services that get the history of the refit next to TensorBoard; by default those of the source."""
    start: StartFrom = "source"
    """source: take over the head of the run where the new one can; labels: start from the training labels alone."""

    @model_validator(mode="after")
    def _loss_fits_head(self) -> Self:
        if self.loss and self.loss.family != self.head.family:
            raise ValueError(
                f"loss.name {self.loss.name} needs a {self.loss.family} head, but head.name is {self.head.name}; "
                f"set head.name to {' or '.join(heads_of(self.loss.family))}, or leave out loss"
            )
        return self

    @property
    def loss_of_head(self) -> LossSpec:
        """The loss, by default that of the head's family."""
        return self.loss or LossSpec(name=family_of(self.head.family).loss, **self.head.loss_options)


@dataclass(frozen=True)
class Refitted:
    """How a refit ended: the new run's folder and length, and the evaluation that was kept, as in metrics.jsonl."""

    folder: str
    total_steps: int
    best: dict[str, Any]
    was_finished: bool


def refit(
    source_folder: str,
    spec: RefitSpec,
    *,
    name: str | None = None,
    folder: str | None = None,
    tell: Tell = lambda event: None,
) -> Refitted:
    """Train a new head on the features of the run in `source_folder`, and write it as a new run.

    The new run is written next to the old one, or to `folder`; if the same refit of the same bundle is already there, it
    returns at once. `tell` gets the rows of the new metrics.jsonl, and events of kind features before them. Raises RunError for
    a run without a bundle and for a folder of another run, SpecError if parts do not fit together.
    """
    source = FeatureSource.open(open_run(source_folder), open_bundle(source_folder))
    run = refit_run(source, spec, name=name, folder=folder)
    check(run, source.dataset, world_size=1, is_refit=True)
    if claim(run, source.dataset).is_finished:
        _require_same_refit(run, _facts(source, spec))
        return _refitted(run, was_finished=True)
    train = split_features(source, run.data.train_split, tell)
    holdout = split_features(source, run.evaluation.split, tell)
    start = head_start(run, source)
    classifier = fresh_classifier(run, source, train.features_NF.shape[1], start, spec.start)
    epochs = FeatureEpochs(source.dataset.split(run.data.train_split), train, run.seed)
    loss = with_auxiliary(build_loss(run.loss, start), classifier.auxiliary, run.auxiliary)
    metric = run.loss.best_by if spec.metric == "auto" else spec.metric
    kind = FittingApart if run.model.head.needs_refit else Fitting
    fitting = kind.start(run, classifier, loss, train, holdout, source.bundle.label_space, tell, epochs, metric)
    ending = "failed"
    try:
        with Compute.plan(run.precision, Place(), fitting.train_split.features_NF.device).settings():
            fitting.train()
        ending = "early" if fitting.progress.is_stopped_early else "finished"
    finally:
        fitting.history.close(ending)
    write(source, fitting, _facts(source, spec))
    return _refitted(run, was_finished=False)


def refit_run(source: FeatureSource, spec: RefitSpec, *, name: str | None, folder: str | None) -> Run:
    """Return the refit as a run: the source's bundle as a frozen backbone, with the head of `spec`."""
    old = source.run
    head = spec.head.after(old.model.head)
    name = name or f"{old.name}-{head.title}"
    num_samples = samples_per_epoch(source.dataset.split(old.data.train_split))
    if spec.global_batch > num_samples:
        raise SpecError(
            f"global_batch {spec.global_batch} is more than the {num_samples} samples of {old.data.train_split}; "
            f"set global_batch to {num_samples} or less"
        )
    # One process trains the head, in whole batches: the way the source split its batches must not matter.
    lanes = math.gcd(old.stream.lanes, spec.global_batch)
    frozen = {"weights": RunFolder(old.run_folder).bundle, "weights_part": "features", "frozen": "backbone"}
    changes = {
        "plugins": tuple(dict.fromkeys((*old.plugins, *spec.plugins))),
        "name": name,
        "folder": folder or posixpath.join(posixpath.dirname(old.run_folder.rstrip("/")), name),
        "seed": spec.seed,
        "stream": {**old.stream.model_dump(), "global_batch": spec.global_batch, "lanes": lanes},
        "placement": {**old.placement.model_dump(), "num_workers": 1, "micro_batch": "auto"},
        "model": {**old.model.model_dump(), **frozen, "head": head.model_dump()},
        "loss": spec.loss_of_head.model_dump(),
        "auxiliary": spec.auxiliary and spec.auxiliary.model_dump(),
        "optimizer": spec.optimizer.model_dump(),
        "schedule": spec.schedule.model_dump(),
        "duration": Duration(epochs=spec.epochs).model_dump(),
        "ema": None,
        "evaluation": {
            **old.evaluation.model_dump(),
            "every": Duration(epochs=1).model_dump(),
            "patience": spec.patience,
            "min_gain": 0.0,
        },
        "tracking": old.tracking if spec.tracking is None else spec.tracking,
    }
    return Run.parse({**old.model_dump(), **changes}, where=f"the refit of {old.run_folder}")


def head_start(run: Run, source: FeatureSource) -> Start:
    """Return what is known of the training labels; a mixture starts from its prior, or from one fitted to their label sets."""
    train_split = source.dataset.split(run.data.train_split)
    weights_K, p_KL = label_mixture(run, train_split) or (None, None)
    names = source.bundle.label_space.names
    return Start(prevalence(train_split), weights_K, p_KL, partial(label_sets, train_split), names)


def fresh_classifier(
    run: Run, source: FeatureSource, num_features: int, start: Start, start_from: StartFrom = "source"
) -> Classifier:
    """Return the source's backbone and pooling with the new head, which starts from what is already known.

    With `source`, a head that can do so takes over a Bernoulli head of the source. All random numbers derive from the seed.
    """
    torch.manual_seed(derive(run.seed, "weights"))
    old, num_labels = source.bundle.classifier, len(source.bundle.label_space)
    head = build_head(run.model.head, num_features, num_labels, start)
    if start_from == "source" and isinstance(old.head, BernoulliHead):
        head.start_from_bernoulli(old.head.linear.weight.detach(), old.head.linear.bias.detach())
    auxiliary = build_auxiliary(run.auxiliary, num_features, num_labels) if run.auxiliary else None
    return Classifier(old.backbone, old.pooling, head, frozen=run.model.frozen, norm=run.model.norm, auxiliary=auxiliary)


def write(source: FeatureSource, fitting: Fitting, refit_facts: dict[str, Any]) -> None:
    """Write the holdout predictions of the kept head, then the bundle that completes the run."""
    run, classifier = fitting.run, fitting.restore_best()
    facts = {
        **described(run),
        "dataset_fingerprint": source.dataset.fingerprint,
        "step": fitting.progress.best_step,
        "refit": {**refit_facts, **fitting.facts},
    }
    split = run.evaluation.split
    predictions = predictions_of(classifier, fitting.holdout, source.bundle.label_space, {**facts, "split": split})
    predictions.write(RunFolder(run.run_folder).predictions(split))
    bundle = Bundle(
        classifier,
        run.model,
        source.bundle.label_space,
        source.bundle.transform_spec,
        facts=facts,
        plugins=run.plugins,
        reading=source.bundle.reading,
    )
    with carded(run.run_folder, bundle, intervals=False):  # a sweep of refits has hundreds
        bundle.save(RunFolder(run.run_folder).bundle)


def predict_from_features(folder: str, source: FeatureSource, split: str, tell: Tell = lambda event: None) -> Predictions:
    """Return the predictions of the refit in `folder` for a split, from the features of its source.

    They are those of `rayprob evaluate`, which computes the features of the images again.
    """
    bundle = open_bundle(folder)
    facts = {name: bundle.facts[name] for name in ("run_fingerprint", "dataset_fingerprint", "step")} | {"split": split}
    return predictions_of(bundle.classifier, split_features(source, split, tell), bundle.label_space, facts)


def _facts(source: FeatureSource, spec: RefitSpec) -> dict[str, Any]:
    """Return what a refit's bundle records about it besides its run."""
    settings = {name: value for name, default in SETTINGS.items() if (value := getattr(spec, name)) != default}
    return {"source": source.run.run_folder, "source_fingerprint": source.fingerprint, **settings}


def _require_same_refit(run: Run, facts: dict[str, Any]) -> None:
    made = open_bundle(run.run_folder).facts["refit"]
    remedy = "choose another --name, or remove the folder of the refit"
    if made["source_fingerprint"] != facts["source_fingerprint"]:
        raise RunError(
            f"{run.run_folder} is a refit of an earlier bundle of {facts['source']}: that was {made['source_fingerprint']}, "
            f"now it is {facts['source_fingerprint']}; {remedy}"
        )
    for name, default in SETTINGS.items():
        if made.get(name, default) != facts.get(name, default):
            raise RunError(
                f"{run.run_folder} is a refit with {name} {made.get(name, default)}, not {facts.get(name, default)}; {remedy}"
            )


def _refitted(run: Run, *, was_finished: bool) -> Refitted:
    rows = read_history(run.run_folder)
    best = [row for row in rows if row["kind"] == "evaluation" and row.get("is_best")]
    total_steps = [row["total_steps"] for row in rows if row["kind"] == "start" and "total_steps" in row]
    if not best or not total_steps:
        raise RunError(
            f"{RunFolder(run.run_folder).history} lacks the start or the best evaluation of this finished refit; its "
            "bundle is complete: use it as it is, or choose another --name to train it again"
        )
    return Refitted(run.run_folder, total_steps[0], best[-1], was_finished)
