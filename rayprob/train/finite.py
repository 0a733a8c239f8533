"""The check before each optimizer step: if the loss or a gradient is not finite, no weight changes.

The loss is copied to the host between forward and backward. When the host needs it, a GPU still has the backward pass to
compute, so it never idles. Gradients are known only after the backward pass: a fused optimizer, the default on GPUs, reads
the check on the device and skips its step, and the host reads it one step later.
"""

import torch
from torch import Tensor

from rayprob.errors import NonFiniteLoss
from rayprob.loader.order import Place
from rayprob.text import counted
from rayprob.train.compute import gather_lists

SHOWN = 20


class Reading:
    """Numbers being copied from the device to the host while the device continues computing."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = numbers.to("cpu", non_blocking=True)
        self._copied = torch.cuda.Event() if numbers.is_cuda else None  # type: ignore[no-untyped-call]
        if self._copied:
            self._copied.record()

    def read(self) -> list[float]:
        """Return the numbers; waits only until the device has computed them."""
        if self._copied:
            self._copied.synchronize()
        return [float(number) for number in self._numbers.tolist()]


def require_finite_loss(loss: float, step: int, loss_B: Tensor, sample_ids_B: Tensor, place: Place) -> None:
    """Raise NonFiniteLoss with the samples of all ranks whose loss is not finite, if the mean loss `loss` is not finite."""
    if _is_finite(loss):
        return
    is_bad_B = ~torch.isfinite(loss_B).cpu()
    sample_ids = gather_lists(sample_ids_B[is_bad_B].tolist(), place)
    shown = ", ".join(map(str, sample_ids[:SHOWN])) + (", ..." if len(sample_ids) > SHOWN else "")
    raise NonFiniteLoss(
        f"the loss of step {step} is not finite, from {counted(len(sample_ids), 'sample')}: {shown}; the loss diverged to "
        f"{loss}, and this step changed no weight; lower optimizer.lr, set optimizer.clip_norm, or check these samples"
    )


def gradient_fault(step: int) -> NonFiniteLoss:
    """Return the error for a step whose loss was finite but whose gradient was not."""
    return NonFiniteLoss(
        f"the gradient of step {step} is not finite, although its loss is; training diverged, and this step changed no weight; "
        "lower optimizer.lr, set optimizer.clip_norm, or set precision.autocast: float32"
    )


def skip_step_unless(is_finite: Tensor, optimizer: torch.optim.Optimizer) -> bool:
    """Make the optimizer skip its next step if `is_finite` is false, without reading it; return whether it supports that."""
    is_fused = all(group.get("fused") for group in optimizer.param_groups)
    if is_fused:
        # GradScaler passes this to fused optimizers for the same purpose.
        optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined]
    return is_fused


def _is_finite(loss: float) -> bool:
    return loss - loss == 0
