"""Trains a head on features in memory: plain steps in one process, deterministic for a given seed.

N samples, F features, G = global_batch.
"""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from rayprob.labels import LabelSpace
from rayprob.loader.order import Place
from rayprob.models.classifier import Classifier
from rayprob.models.losses import Loss
from rayprob.probability.families import family_of
from rayprob.runs.checkpoints import Progress
from rayprob.runs.history import History
from rayprob.runs.predictions import Predictions
from rayprob.runs.schedules import lr_factor
from rayprob.runs.spec import Run
from rayprob.seeds import derive
from rayprob.train.evaluate import evaluation_numbers
from rayprob.train.features import FeatureEpochs, Features
from rayprob.train.finite import gradient_fault, require_finite_loss
from rayprob.train.loop import judged
from rayprob.train.optimizer import build_optimizer, clip_gradients, set_lr
from rayprob.train.training import Tell

ROWS_AT_ONCE = 4096


@dataclass
class Fitting:
    """A refit in progress: the classifier whose head learns, its features, and the best head so far on holdout."""

    run: Run
    classifier: Classifier
    train_split: Features
    epochs: FeatureEpochs
    holdout: Features
    label_space: LabelSpace
    history: History
    tell: Tell
    loss: Loss
    optimizer: torch.optim.Optimizer
    metric: str = "nll_nats"  # on holdout, by which the best head is kept: this or mAP
    progress: Progress = field(default_factory=Progress)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)  # what the bundle records besides

    @classmethod
    def start(
        cls,
        run: Run,
        classifier: Classifier,
        loss: Loss,
        train: Features,
        holdout: Features,
        label_space: LabelSpace,
        tell: Tell,
        epochs: FeatureEpochs,
        metric: str = "nll_nats",
    ) -> Self:
        """Build what training needs; the history of an earlier attempt in the run's folder is removed."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        for part in (classifier.head, classifier.auxiliary):
            if part is not None:
                part.to(device)
        return cls(
            run=run,
            classifier=classifier,
            train_split=train.to(device),
            epochs=epochs,
            holdout=holdout.to(device),
            label_space=label_space,
            history=History(run.run_folder, step=-1, run=run),
            tell=tell,
            loss=loss,
            optimizer=build_optimizer(classifier, run.optimizer, device),
            metric=metric,
        )

    @property
    def steps_per_epoch(self) -> int:
        return self.epochs.num_rows // self.run.stream.global_batch

    @property
    def total_steps(self) -> int:
        return self.run.duration.in_steps(self.steps_per_epoch, self.run.stream.global_batch)

    def train(self) -> None:
        """Take all steps, or as many as patience allows; evaluate before the first step and after each epoch."""
        self.record("start", self.start_facts())
        self.evaluate()
        losses: list[float] = []
        began_s = time.perf_counter()
        for rows_G in self._batches():
            losses.append(self.take_step(rows_G))
            step = self.progress.step
            if step % self.run.log_every_steps == 0 or step == self.total_steps:
                self.record("step", self._step_facts(losses, time.perf_counter() - began_s))
                losses, began_s = [], time.perf_counter()
            if step % self.steps_per_epoch == 0 or step == self.total_steps:
                self.evaluate()
                began_s = time.perf_counter()
            if self.progress.is_stopped_early:
                return

    def take_step(self, rows_G: Tensor) -> float:
        """Take one optimizer step over the samples of a global batch; return its mean loss.

        Raises NonFiniteLoss, before any weight changes, if the loss or its gradient is not finite.
        """
        run, step, split = self.run, self.progress.step, self.train_split
        set_lr(self.optimizer, lr_factor(run.schedule, step, self.total_steps))
        torch.manual_seed(derive(run.seed, "step", step))
        outputs = self.classifier.train().outputs(split.features_NF[rows_G])
        loss_G = self.loss(outputs, split.targets_NL[rows_G], split.known_NL[rows_G])
        loss = loss_G.mean()
        value = loss.item()
        require_finite_loss(value, step + 1, loss_G, split.sample_ids_N[rows_G], Place())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [parameter for _, parameter in self.classifier.head_parameters()]
        if not clip_gradients(parameters, run.optimizer.clip_norm):
            raise gradient_fault(step + 1)
        self.optimizer.step()
        self.progress = replace(self.progress, step=step + 1)
        return value

    def evaluate(self) -> None:
        """Evaluate on holdout, and keep the head if it is the best so far: by the lowest NLL, or by the highest mAP."""
        started_at_s = time.perf_counter()
        numbers = evaluation_numbers(predictions_of(self.classifier, self.holdout, self.label_space, {}))
        score = numbers["mAP"] if self.metric == "mAP" else -numbers["nll_nats"]
        self.progress = judged(self.progress, score, self.run)
        is_best = self.progress.best_step == self.progress.step
        if is_best:
            self.best_weights = deepcopy(self.classifier.head.state_dict())
        self.record("evaluation", {**numbers, "is_best": is_best, "elapsed_s": time.perf_counter() - started_at_s})

    def restore_best(self) -> Classifier:
        """Return the classifier with the best head, in evaluation mode."""
        self.classifier.head.load_state_dict(self.best_weights)
        return self.classifier.eval()

    def _batches(self) -> Iterator[Tensor]:
        """Yield the rows of each step; the seed determines the order of an epoch, and its last incomplete batch is dropped."""
        size = self.run.stream.global_batch
        for step in range(self.total_steps):
            epoch, batch = divmod(step, self.steps_per_epoch)
            if batch == 0:
                rows_N = self.epochs.rows(epoch)
                order_N = rows_N[np.random.default_rng(derive(self.run.seed, "order", epoch)).permutation(len(rows_N))]
            yield torch.from_numpy(order_N[batch * size : (batch + 1) * size])

    def start_facts(self) -> dict[str, Any]:
        """Return the facts recorded when the refit starts."""
        return {
            "total_steps": self.total_steps,
            "steps_per_epoch": self.steps_per_epoch,
            "train_samples": len(self.train_split),
            "world_size": 1,
            "device": str(self.train_split.features_NF.device),
            "trainable_parameters": sum(
                parameter.numel() for parameter in self.classifier.head.parameters() if parameter.requires_grad
            ),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }

    def _step_facts(self, losses: list[float], elapsed_s: float) -> dict[str, Any]:
        lr = self.run.optimizer.lr * lr_factor(self.run.schedule, self.progress.step - 1, self.total_steps)
        images_per_s = len(losses) * self.run.stream.global_batch / elapsed_s
        return {"loss": float(np.mean(losses)), "lr": lr, "images_per_s": images_per_s, "data_wait": 0.0}

    def record(self, kind: str, values: Mapping[str, Any]) -> None:
        """Add a row to the history, and tell it."""
        self.history.record(kind, self.progress.step, values)
        self.tell({"kind": kind, "step": self.progress.step, **values})


@torch.inference_mode()
def predictions_of(classifier: Classifier, split: Features, label_space: LabelSpace, facts: dict[str, Any]) -> Predictions:
    """Return the predictions of the classifier's head for a split's features."""
    head = classifier.head.eval()
    parts = [head(features_BF) for features_BF in torch.split(split.features_NF, ROWS_AT_ONCE)]
    outputs = family_of(classifier.family).joined(parts, torch.cat)
    return Predictions(
        label_space=label_space,
        sample_ids_N=split.sample_ids_N.cpu().numpy(),
        targets_NL=split.targets_NL.cpu().numpy(),
        known_NL=split.known_NL.cpu().numpy(),
        family=classifier.family,
        outputs={name: values.float().cpu().numpy() for name, values in outputs.items()},
        facts=facts,
    )
