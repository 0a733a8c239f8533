"""A network of a library without its head, and what fetching its published weights can raise."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from rayprob.errors import ModelError
from rayprob.registry import unknown

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Cut:
    """A network without its head: `head_names` are the prefixes of the removed parameters, which a file may contain."""

    body: nn.Module
    num_features: int
    head_names: tuple[str, ...]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


def require_weights(name: str, weights: str, published: Iterable[str]) -> None:
    """Raise ModelError unless `weights` are among those that are published for a network."""
    if weights not in published:
        raise ModelError(unknown(weights, published, f"weights of {name}:") + "; or give a path such as ./weights.safetensors")


@contextmanager
def fetching(name: str, weights: str) -> Iterator[None]:
    """Raise ModelError for whatever a library raises when it fetches weights in the block."""
    try:
        yield
    except Exception as error:  # urllib, huggingface_hub, httpx and requests have no common error
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ModelError(
            f"cannot fetch the weights {weights!r} of {name} ({reason}); without internet access, copy the file to this "
            "machine and set weights to its path, or train from scratch with weights: null"
        ) from error
