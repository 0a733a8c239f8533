"""One run of a system, and one judgement of it: the tasks that a comparison consists of, each in one process."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rayprob import plugins
from rayprob.calibrate.crossfit import NONE, CalibrateSpec
from rayprob.calibrate.fitting import fit_bundle
from rayprob.config.spec import fingerprint
from rayprob.errors import CalibrationError, ModelError, NonFiniteLoss, QueryError, SpecError
from rayprob.files import storage, uris
from rayprob.metrics.bootstrap import Statistic, bootstrap
from rayprob.metrics.drawn import calibration_error_of, count_metric_of, mean_average_precision_of, mean_of
from rayprob.probability.families import family_of
from rayprob.runs.bundle import Bundle
from rayprob.runs.finished import open_bundle, staleness
from rayprob.runs.folder import open_run
from rayprob.runs.history_rows import read_history
from rayprob.runs.paths import RunFolder, SystemsFolder
from rayprob.runs.predictions import Predictions
from rayprob.runs.spec import Run
from rayprob.runs.tracking import of_group
from rayprob.systems.spec import System, SystemsSpec, refit_spec
from rayprob.train.assess import TUNED, kept_predictions
from rayprob.train.features import FeatureSource
from rayprob.train.launch import launch
from rayprob.train.other_labels import GIVEN, ap_of_others
from rayprob.train.refit import predict_from_features, refit

WITH_PRIOR = ", with prior"
Numbers = dict[str, dict[str, Any]]  # name -> value and draws


@dataclass(frozen=True)
class RunJob:
    """A system to train once; `folder` is that of the whole comparison."""

    spec: SystemsSpec
    system: System
    lr: float
    seed: int
    folder: str
    plugin_folders: tuple[str, ...] = ()

    @property
    def run_folder(self) -> str:
        return SystemsFolder(self.folder).run(self.system.name, self.lr, self.seed)

    @property
    def group(self) -> str:
        """What tracking services call the comparison: the name of its folder."""
        return uris.split(self.folder)[1]


@dataclass(frozen=True)
class TrainedSystem:
    """What is known of a finished run before it is judged."""

    system: str
    lr: float
    seed: int
    holdout_mAP: float
    parameters: int
    images_per_s: float

    @property
    def has_diverged(self) -> bool:
        """Whether the loss was not finite."""
        return self.holdout_mAP == -np.inf


@dataclass(frozen=True)
class FailedSystem:
    """A system that cannot be compared, and why."""

    system: str
    why: str


def train_once(job: RunJob) -> TrainedSystem | FailedSystem:
    """Train a system, or return at once if its run is finished.

    A head is trained by one thread, so that runs do not depend on others. A learning rate at which the loss diverges has the
    holdout mAP -inf. Raises KeyboardInterrupt for a run that a signal stopped, which is saved: without this its numbers would
    pass for those of a finished one.
    """
    try:
        return _trained(job)
    except NonFiniteLoss:
        return TrainedSystem(job.system.name, job.lr, job.seed, -np.inf, 0, 0.0)
    except (ModelError, SpecError, CalibrationError) as error:
        return FailedSystem(job.system.name, str(error))


def _trained(job: RunJob) -> TrainedSystem:
    plugins.look_in(job.plugin_folders)
    if job.spec.source is None:
        if launch(end_to_end(job)).ending == "stopped":
            raise KeyboardInterrupt
    else:
        torch.set_num_threads(1)
        refit(
            job.spec.source,
            refit_spec(job.spec, job.system, job.lr, job.seed, job.group),
            name=f"{job.system.name}-{job.seed}",
            folder=job.run_folder,
        )
    return trained(job)


def end_to_end(job: RunJob) -> Run:
    """Return the run file of a system with one learning rate and seed."""
    run = job.system.run
    changes = {"folder": job.run_folder, "seed": job.seed, "optimizer": run.optimizer.model_copy(update={"lr": job.lr})}
    return run.model_copy(update={**changes, "tracking": of_group(run.tracking, job.group)})


def trained(job: RunJob) -> TrainedSystem:
    """Read what a finished run recorded: mAP on holdout, parameters trained, and the median speed of its steps."""
    rows = read_history(job.run_folder)
    best = [row for row in rows if row["kind"] == "evaluation" and row.get("is_best")][-1]
    start = next(row for row in rows if row["kind"] == "start")
    speeds = [row["images_per_s"] for row in rows if row["kind"] == "step"]
    return TrainedSystem(
        job.system.name, job.lr, job.seed, best["mAP"], start.get("trainable_parameters", 0), float(np.median(speeds or [0.0]))
    )


def judge(job: RunJob) -> tuple[str, int, Numbers] | FailedSystem:
    """Return the numbers of a run on the reported split, with their bootstrap draws; computed once for a bundle."""
    try:
        return _judged(job)
    except (ModelError, CalibrationError, QueryError) as error:
        return FailedSystem(job.system.name, str(error))


def _judged(job: RunJob) -> tuple[str, int, Numbers]:
    plugins.look_in(job.plugin_folders)
    if job.spec.source is not None:  # a task among others, on features; end to end, this process has the machine
        torch.set_num_threads(1)
    path = SystemsFolder(job.folder).judged(job.system.name, job.seed)
    made_of = _made_of(job)
    if storage.exists(path):
        known = json.loads(storage.read_bytes(path))
        if known["made_of"] == made_of:
            return job.system.name, job.seed, known["numbers"]
    numbers = _numbers(job)
    storage.write_text(path, json.dumps({"made_of": made_of, "numbers": numbers}))
    return job.system.name, job.seed, numbers


def _made_of(job: RunJob) -> str:
    spec, bundle = job.spec, open_bundle(job.run_folder)
    origin = [bundle.facts["run_fingerprint"], bundle.facts["step"], job.lr]
    return fingerprint([*origin, spec.split, _content_of(spec.prior), spec.draws, spec.seed])


def _content_of(prior: str) -> str:
    """Return the name of a label prior, or what identifies the content of its file."""
    is_file = prior.endswith(".safetensors") and storage.exists(prior)
    return fingerprint(storage.read_bytes(prior).hex()) if is_file else prior


def _numbers(job: RunJob) -> Numbers:
    predictions = _predictions(job)
    bundle = fit_bundle(job.run_folder, CalibrateSpec(prior=NONE))
    statistics = _statistics(bundle, predictions)
    if job.spec.prior != NONE and family_of(bundle.classifier.family).candidates.with_priors is not None:
        with_prior = fit_bundle(job.run_folder, CalibrateSpec(prior=job.spec.prior))
        statistics |= {name + WITH_PRIOR: one for name, one in _statistics(with_prior, predictions).items()}
    return {name: _drawn(statistic, len(predictions), job.spec) for name, statistic in statistics.items()}


def _predictions(job: RunJob) -> Predictions:
    folder, split = job.run_folder, job.spec.split
    if job.spec.source is None:
        return kept_predictions(folder, split, None, lambda done, total: None).predictions
    path = RunFolder(folder).predictions(split)
    if storage.exists(path):
        kept = Predictions.read(path)
        if not staleness(kept, open_bundle(folder)):
            return kept
    source = FeatureSource.open(open_run(job.spec.source), open_bundle(job.spec.source))
    predict_from_features(folder, source, split).write(path)
    return Predictions.read(path)


def _statistics(bundle: Bundle, predictions: Predictions) -> dict[str, Statistic]:
    """Return what is measured: of calibrated probabilities, with the per-label thresholds that holdout chose."""
    targets_NL, known_NL = predictions.targets_NL, predictions.known_NL
    distribution = bundle.distribution(predictions.outputs)
    ranking = distribution if bundle.has_prior else predictions.distribution()
    sets_NL = bundle.label_sets(distribution, TUNED)
    statistics: dict[str, Statistic] = {
        "mAP": mean_average_precision_of(ranking.ranking_scores(), targets_NL, known_NL),
        "OF1": count_metric_of("OF1", sets_NL, targets_NL, known_NL),
        "CF1": count_metric_of("CF1", sets_NL, targets_NL, known_NL),
        "NLL": mean_of(-distribution.log_prob(targets_NL, known_NL)),
        "ECE": calibration_error_of(distribution.marginals(), targets_NL, known_NL),
    }
    others: dict[str, Statistic] = {
        f"AP given {count}": mean_of(ap_of_others(distribution, targets_NL, known_NL, count)) for count in GIVEN
    }
    return statistics | others


def _drawn(statistic: Statistic, num_images: int, spec: SystemsSpec) -> dict[str, Any]:
    found = bootstrap(statistic, num_images, draws=spec.draws, seed=spec.seed)
    return {"value": found.value, "draws": [round(float(value), 7) for value in found.drawn_D]}
