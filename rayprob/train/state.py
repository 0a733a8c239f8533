"""The state that training changes: weights, optimizer, averages, loss scale and progress."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch

from rayprob.errors import RunError
from rayprob.models.classifier import Classifier
from rayprob.runs.checkpoints import Progress


class Ema:
    """Exponential moving average of a classifier's parameters and buffers, with a warm-up.

    The decay of update n is min(0.5 ** (global_batch / half_life), (1 + n) / (10 + n)), so that early averages forget the
    initial weights (the rule of TensorFlow's ExponentialMovingAverage). Integer buffers are copied.
    """

    def __init__(self, classifier: Classifier, half_life_samples: int, global_batch: int) -> None:
        self.classifier = copy.deepcopy(classifier).eval().requires_grad_(False)
        self.decay = 0.5 ** (global_batch / half_life_samples)
        self.num_updates = 0

    @torch.no_grad()
    def update(self, classifier: Classifier) -> None:
        """Move the average towards the current weights by one step."""
        weight = 1 - min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        ours, theirs = self.classifier.state_dict(), classifier.state_dict()
        floating = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in floating], [theirs[name] for name in floating], weight)
        for name in ours.keys() - set(floating):
            ours[name].copy_(theirs[name])
        self.num_updates += 1


@dataclass
class TrainState:
    """The parts that training changes: weights, optimizer, averages, loss scale and progress."""

    classifier: Classifier
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: Ema | None
    progress: Progress = field(default_factory=Progress)

    @property
    def evaluated(self) -> Classifier:
        """The classifier that evaluations and bundles use: the average if there is one."""
        return self.ema.classifier if self.ema else self.classifier

    def tensors(self) -> dict[str, Any]:
        """Return all state except the progress, as tensors and plain values."""
        ema = {"weights": self.ema.classifier.state_dict(), "num_updates": self.ema.num_updates} if self.ema else None
        return {
            "classifier": self.classifier.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": ema,
        }

    def restore(self, tensors: dict[str, Any], progress: Progress) -> None:
        """Restore a saved state. Raises RunError if it comes from another run file."""
        try:
            self._restore(tensors)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise RunError(
                f"the checkpoint of step {progress.step} does not fit this run ({type(error).__name__}: {reason}); it comes "
                "from another run file: resume with the run.yaml in its folder, or start over with --fresh"
            ) from error
        self.progress = progress

    def _restore(self, tensors: dict[str, Any]) -> None:
        self.classifier.load_state_dict(tensors["classifier"])
        self.optimizer.load_state_dict(tensors["optimizer"])
        _require_fit(self.optimizer)
        self.scaler.load_state_dict(tensors["scaler"])
        if bool(self.ema) != bool(tensors["ema"]):
            raise ValueError(f"it was saved {'with' if tensors['ema'] else 'without'} an average (ema)")
        if self.ema:
            self.ema.classifier.load_state_dict(tensors["ema"]["weights"])
            self.ema.num_updates = int(tensors["ema"]["num_updates"])


def _require_fit(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError if a loaded state is not of this optimizer, which torch would notice in its next step at best."""
    for group in optimizer.param_groups:
        missing = sorted(optimizer.defaults.keys() - group.keys())
        if missing:
            raise ValueError(f"its optimizer has no {', '.join(missing)}")
        for parameter in group["params"]:
            for name, value in optimizer.state[parameter].items() if parameter in optimizer.state else ():
                if isinstance(value, torch.Tensor) and value.ndim and value.shape != parameter.shape:
                    raise ValueError(f"its optimizer's {name} is {list(value.shape)} for weights of {list(parameter.shape)}")
