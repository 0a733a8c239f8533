"""Starting weights from files: a library's model, or a rayprob bundle. Strict about everything but the head of the former."""

import io
import json
import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from rayprob import storage
from rayprob.errors import LabelError, ModelError
from rayprob.labels import LabelSpace
from rayprob.models.heads import MixtureHead

if TYPE_CHECKING:
    from rayprob.models.classifier import Classifier

Part = Literal["all", "features", "backbone"]
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
WEIGHTS_FILE = "weights.safetensors"
WRAPPERS = ("state_dict", "model")
WRAPPING = ("module.", "_orig_mod.")
SHOWN = 3
BACKBONE_ONLY = "to take its backbone only, set model.weights_part: backbone"


def is_file(weights: str) -> bool:
    """Return whether `weights` is written as a path or URI (./bundle) rather than as a library's name for weights."""
    return "/" in weights or weights.endswith(SUFFIXES)


def load_file(classifier: "Classifier", uri: str, part: Part, label_space: LabelSpace | None) -> None:
    """Load the weights at `uri` into `classifier`: a whole bundle as far as `part` says, or a library's backbone.

    Raises StorageError where nothing can be read, ModelError where names or shapes differ, LabelError where a bundle has other
    labels than `label_space`.
    """
    if storage.exists(storage.join(uri, WEIGHTS_FILE)):
        uri = storage.join(uri, WEIGHTS_FILE)
    tensors, labels = read_weights(uri)
    if labels is None:
        _load_backbone_file(classifier, tensors, uri, part)
        return
    if part == "all":
        _require_labels(labels, label_space, uri)
        tensors = _as_head(classifier.head, tensors, uri)
    wanted = tuple(f"{name}." for name in PARTS[part])
    own = {name: tensor for name, tensor in classifier.state_dict().items() if name.startswith(wanted)}
    load_strictly(classifier, {name: t for name, t in tensors.items() if name.startswith(wanted)}, uri, own)


def read_weights(uri: str) -> tuple[dict[str, Tensor], LabelSpace | None]:
    """Return the tensors in a file, and the labels where rayprob wrote it. Never unpickles anything but tensors.

    Raises StorageError or ModelError.
    """
    content = storage.read_bytes(uri)
    try:
        if uri.endswith(".safetensors"):
            return safetensors.torch.load(content), _labels_in(content)
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(
            f"{uri} holds no tensors that can be read safely ({type(error).__name__}); give a .safetensors file, or one "
            "that torch.save wrote of a state_dict"
        ) from error
    return _tensors_in(loaded, uri), None


def classifier_bytes(classifier: nn.Module, label_space: LabelSpace) -> bytes:
    """Return a safetensors file of all weights that carries the label space, so that `load_file` can compare it."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in classifier.state_dict().items()}
    return cast(bytes, safetensors.torch.save(tensors, {"rayprob_labels": json.dumps(label_space.to_dict())}))


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], where: str, own: Mapping[str, Tensor]) -> None:
    """Load `tensors` into `module`, all of `own` and nothing else. Raises ModelError with the first names that differ."""
    # Files converted from elsewhere often lack this counter, which nothing reads unless momentum is None.
    missing = [name for name in own if name not in tensors and not name.endswith("num_batches_tracked")]
    unexpected = sorted(name for name in tensors if name not in own)
    reshaped = [
        f"{name} {list(tensor.shape)} here, {list(own[name].shape)} needed"
        for name, tensor in tensors.items()
        if name in own and tensor.shape != own[name].shape
    ]
    faults = [
        _first(f"{len(names)} {what}", names)
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if names
    ]
    if faults:
        raise ModelError(
            f"the weights at {where} do not fit this model: {'; '.join(faults)}. Use weights of the same architecture, "
            "or set the backbone, pooling and head that they were made with"
        )
    module.load_state_dict(dict(tensors), strict=False)


def _load_backbone_file(classifier: "Classifier", tensors: dict[str, Tensor], uri: str, part: Part) -> None:
    if part != "all":
        raise ModelError(f"weights_part {part} is for rayprob's own bundles, and {uri} is none; leave weights_part out")
    source = classifier.backbone.source
    own = source.state_dict()
    heads = tuple(f"{name}." for name in classifier.backbone.head_names)
    body = {name: tensor for name, tensor in tensors.items() if name in own or not name.startswith(heads)}
    load_strictly(source, body, uri, own)


def _require_labels(labels: LabelSpace, label_space: LabelSpace | None, uri: str) -> None:
    if label_space is None:
        return
    try:
        labels.require_same(label_space, f"the weights at {uri}", "the dataset")
    except LabelError as error:
        raise LabelError(f"{error}, or {BACKBONE_ONLY}") from error


def _as_head(head: nn.Module, tensors: dict[str, Tensor], uri: str) -> dict[str, Tensor]:
    """Return `tensors` with the head's part as `head` has it: a Bernoulli head may start a mixture, not the reverse."""
    found = "mixture" if "head.offsets" in tensors else "bernoulli"
    if found == head.family:
        return tensors
    if not isinstance(head, MixtureHead):
        raise ModelError(f"the weights at {uri} have a {found} head, not a {head.family} one; {BACKBONE_ONLY}")
    head.start_from_bernoulli(tensors["head.linear.weight"], tensors["head.linear.bias"])
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    return body | {f"head.{name}": tensor for name, tensor in head.state_dict().items()}


def _labels_in(content: bytes) -> LabelSpace | None:
    header_bytes = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + header_bytes]).get("__metadata__", {})
    return LabelSpace.from_dict(json.loads(metadata["rayprob_labels"])) if "rayprob_labels" in metadata else None


def _tensors_in(loaded: object, uri: str) -> dict[str, Tensor]:
    """Return the state_dict in what torch.load gave, without the names that DDP and torch.compile put before it."""
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ModelError(f"{uri} holds no state_dict, but {type(loaded).__name__}; save model.state_dict() alone")
    tensors = dict(loaded)
    for prefix in WRAPPING:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _first(what: str, names: list[str]) -> str:
    more = ", ..." if len(names) > SHOWN else ""
    return f"{what} ({', '.join(names[:SHOWN])}{more})"


PARTS: dict[Part, tuple[str, ...]] = {
    "all": ("backbone", "pooling", "head"),
    "features": ("backbone", "pooling"),
    "backbone": ("backbone",),
}
