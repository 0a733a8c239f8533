"""Checks whether a run's images can pass through its model, without computing anything.

Tensors on PyTorch's meta device have shapes but no values, so a forward pass takes milliseconds. What fails there fails on
every machine, at every restart: images that shrink to nothing, batch norm with one value per channel.
"""

from typing import TYPE_CHECKING

import torch

from rayprob.errors import RayprobError, SpecError
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.text import counted

if TYPE_CHECKING:
    from rayprob.runs.spec import Run

ENOUGH = 2  # images: a fault that two do not show, a whole micro batch does not show either


def check_shapes(run: "Run", num_labels: int, world_size: int) -> None:
    """Raise SpecError if the forward pass of training or evaluation is impossible."""
    images = min(run.micro_batch(world_size), ENOUGH)
    model = run.model
    if model.norm == "sync":  # the meta device has no other ranks to share batch statistics with
        model, images = model.model_copy(update={"norm": "train"}), min(images * world_size, ENOUGH)
    train_px, evaluate_px = run.transforms.train.size_px, run.transforms.evaluate.size_px
    if fault := fault_of(model, num_labels, images, train_px, training=True):
        raise SpecError(
            f"{model.backbone} cannot take a training step with transforms.train.size_px {train_px} and "
            f"{counted(run.micro_batch(world_size), 'image')} per micro batch: {fault}; {_remedy(fault, 'train')}"
        )
    if fault := fault_of(model, num_labels, 1, evaluate_px, training=False):
        raise SpecError(
            f"{model.backbone} cannot evaluate images of transforms.evaluate.size_px {evaluate_px}: {fault}; "
            f"{_remedy(fault, 'evaluate')}"
        )


def fault_of(model: ModelSpec, num_labels: int, images: int, size_px: int, *, training: bool) -> str:
    """Return why a forward pass of this many images is impossible; empty if it is possible or only computing it would tell."""
    if not _refusal("meta", model, num_labels, images, size_px, training=training):
        return ""
    # The meta device may not support a model; if the CPU does, all is well.
    return _refusal("cpu", model, num_labels, images, size_px, training=training)


def _refusal(device: str, model: ModelSpec, num_labels: int, images: int, size_px: int, *, training: bool) -> str:
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device(device), torch.no_grad():
                classifier = build_classifier(model, num_labels, load=False).train(training)
                classifier(torch.zeros(images, 3, size_px, size_px, dtype=torch.uint8))
        except RayprobError as error:
            if device == "cpu":
                raise
            return str(error)
        except Exception as error:  # whatever a layer raises for a shape that it does not support
            return " ".join(str(error).split()) or type(error).__name__
    return ""


def _remedy(fault: str, transform: str) -> str:
    if "more than 1 value per channel" in fault:
        return (
            "batch norm needs several: raise placement.micro_batch (or stream.global_batch), raise transforms.train.size_px, "
            "or set model.norm: frozen"
        )
    return f"raise transforms.{transform}.size_px, or use another model.backbone"
