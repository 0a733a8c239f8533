"""The device and arithmetic of one rank: autocast, memory layout, and DDP around the classifier."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rayprob.loader.order import Place
from rayprob.models.classifier import Classifier
from rayprob.runs.spec import PrecisionSpec

AUTOCAST = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """One rank's place, device and arithmetic."""

    place: Place
    device: torch.device
    autocast_dtype: torch.dtype | None
    memory_format: torch.memory_format
    is_compiled: bool
    tf32: bool | None  # None leaves PyTorch's own choice
    cudnn_benchmark: bool

    @classmethod
    def plan(cls, spec: PrecisionSpec, place: Place, device: torch.device) -> "Compute":
        """Resolve every `auto` for this device."""
        is_gpu = device.type == "cuda"
        autocast = ("bf16" if is_gpu else "float32") if spec.autocast == "auto" else spec.autocast
        channels_last = spec.channels_last == "auto" or spec.channels_last
        layout = torch.channels_last if channels_last else torch.contiguous_format
        tf32 = None if spec.tf32 == "auto" else spec.tf32
        return cls(place, device, AUTOCAST[autocast], layout, spec.compile, tf32, spec.cudnn_benchmark)

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Apply what PyTorch sets for a whole process, for GPUs only: TF32 and cuDNN's benchmark. Restore it afterwards."""
        cudnn = torch.backends.cudnn
        with ExitStack() as restored:
            if self.device.type == "cuda" and self.tf32 is not None:
                restored.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
                restored.callback(setattr, cudnn, "allow_tf32", cudnn.allow_tf32)
                torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
                cudnn.allow_tf32 = self.tf32
            if self.device.type == "cuda" and self.cudnn_benchmark:
                restored.callback(setattr, cudnn, "benchmark", cudnn.benchmark)
                cudnn.benchmark = True
            yield

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context for a forward pass."""
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.autocast_dtype)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Return a loss scaler, active for fp16 only: its exponent range is too small for gradients."""
        return torch.amp.GradScaler(self.device.type, enabled=self.autocast_dtype == torch.float16)

    def place_weights(self, module: nn.Module) -> None:
        """Move a module to the device and into the memory layout, in place."""
        module.to(self.device).to(memory_format=self.memory_format)

    def images(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return a batch's images on the device, in the memory layout of the weights."""
        return self.on_device(images_BCHW).contiguous(memory_format=self.memory_format)

    def on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a CPU tensor on the device; pinned memory lets a GPU continue computing during the copy."""
        if self.device.type == "cuda" and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def parallel(self, classifier: Classifier) -> nn.Module:
        """Return what training calls: the classifier, compiled if requested, wrapped in DDP if there are several ranks."""
        module: nn.Module = torch.compile(classifier) if self.is_compiled else classifier  # type: ignore[assignment]
        if self.place.world_size == 1:
            return module
        device_ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=device_ids, gradient_as_bucket_view=True)


def accumulating(module: nn.Module, is_last: bool) -> AbstractContextManager[Any]:
    """Return the context for one micro batch: gradients are exchanged only with the last one."""
    if isinstance(module, DistributedDataParallel) and not is_last:
        return module.no_sync()
    return nullcontext()


def sum_over_ranks(values: torch.Tensor, place: Place) -> torch.Tensor:
    """Add `values` up over all ranks, in place."""
    if place.world_size > 1:
        dist.all_reduce(values)
    return values


def share_buffers(classifier: nn.Module, place: Place) -> None:
    """Give every rank the batch-norm statistics of rank 0, which are those that checkpoints store."""
    if place.world_size > 1:
        for buffer in classifier.buffers():
            dist.broadcast(buffer, src=0)


def wait_for_all(place: Place) -> None:
    """Return when every rank has called this."""
    if place.world_size > 1:
        dist.barrier()


def gather_lists(values: list[int], place: Place) -> list[int]:
    """Return the values of all ranks, sorted."""
    if place.world_size == 1:
        return sorted(values)
    everyone: list[list[int]] = [[] for _ in range(place.world_size)]
    dist.all_gather_object(everyone, values)
    return sorted(value for part in everyone for value in part)


@contextmanager
def evaluating(classifier: Classifier) -> Iterator[Classifier]:
    """Put the classifier into evaluation mode without gradients, and restore its former mode afterwards."""
    was_training = classifier.training
    classifier.eval()
    try:
        with torch.inference_mode():
            yield classifier
    finally:
        classifier.train(was_training)


Report = Callable[[dict[str, Any]], None]
