"""What a bundle replies with: plain data, which passes between processes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rayprob.serve.faults import ErrorReply


@dataclass(frozen=True)
class Reply:
    """An answer or a fault.

    `is_new` is whether the image was computed for it; `batch` is the size of its forward pass for the first image of each pass,
    else 0.
    """

    value: Mapping[str, Any] | None = None
    fault: ErrorReply | None = None
    batch: int = 0
    is_new: bool = False
