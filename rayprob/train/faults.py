"""Describes errors that are not rayprob's own, so that repeated errors can be recognised."""

import re
import traceback

import torch.distributed as dist

ADDRESS = re.compile(r"0x[0-9a-fA-F]+")
COLLECTIVES = re.compile(r"\b(ProcessGroup)?(gloo|nccl)\b", re.IGNORECASE)


def fault_text(error: BaseException) -> str:
    """Return type and message of an exception and where in the run it occurred; equal if the same error occurs again."""
    message = " ".join(str(error).split()) or "no message"
    notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
    # Addresses of objects differ between two processes.
    return ADDRESS.sub("0x...", f"{type(error).__name__}: {message}{notes}")


def comes_from_another_rank(error: BaseException) -> bool:
    """Return whether an exception only means that another rank was lost, which a restart fixes."""
    if isinstance(error, dist.DistError):
        return True
    # gloo and NCCL also raise plain RuntimeErrors; other exceptions may contain these names in a path.
    return type(error) is RuntimeError and bool(COLLECTIVES.search(str(error)))


def last_frame(error: BaseException) -> str:
    """Return the file and line that raised an exception."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"


def repeated(fault: str) -> str:
    """Return the message of a run that ends because a restart would fail with the same error."""
    return f"the same error occurred twice, so another restart would not help: {fault}"
