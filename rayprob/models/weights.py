"""Starting weights from files: another program's model, or a rayprob bundle. All but the former's head must match."""

import json
import logging
from collections.abc import Mapping
from typing import Literal, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from rayprob.errors import LabelError, ModelError
from rayprob.files import storage
from rayprob.labels import LabelSpace
from rayprob.models.auxiliaries import EMBEDDING
from rayprob.models.classifier import Classifier
from rayprob.models.heads import Head
from rayprob.models.source_names import HEADER_KEY, SourceNames
from rayprob.models.tensor_files import header_of, read_tensors
from rayprob.models.weight_sets import choose_set, describe_contents, find_sets, flat, unnamed_averages
from rayprob.text import counted, first_of

Part = Literal["all", "features", "backbone", "ema", "model"]
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".pkl", ".th", ".msgpack", ".h5", ".npz", ".onnx")
WEIGHTS_FILE = "weights.safetensors"
HUB_WEIGHTS_FILE = "model.safetensors"  # in a folder for Hugging Face, which expects this name
COUNTER = "num_batches_tracked"
SHOWN = 3
BACKBONE_ONLY = "to take its backbone only, set model.weights_part: backbone"
log = logging.getLogger(__name__)


def is_file(weights: str) -> bool:
    """Return whether `weights` is a path or URI (./bundle) rather than a library's name for weights."""
    return "/" in weights or weights.endswith(SUFFIXES)


def load_file(classifier: Classifier, uri: str, part: Part, label_space: LabelSpace | None) -> None:
    """Load the weights at `uri` into `classifier`: the `part` of a bundle, or the backbone of another program's file.

    If such a file has averaged (EMA) and raw weights, `part` is ema or model; `all` takes the averaged ones and logs that.
    Raises StorageError if nothing can be read, ModelError if names, shapes or types differ or values are not finite,
    LabelError if the labels of a bundle differ from `label_space`.
    """
    in_folder = (storage.join(uri, name) for name in (WEIGHTS_FILE, HUB_WEIGHTS_FILE))
    uri = next(filter(storage.exists, in_folder), uri)
    tensors, labels = read_weights(uri)
    if labels is None:
        _load_backbone_file(classifier, tensors, uri, part)
        return
    if part not in PARTS:
        raise ModelError(f"{uri} is a rayprob bundle, which has one set of weights; set weights_part to {', '.join(PARTS)}")
    if part == "all":
        _require_labels(labels, label_space, uri)
        tensors = _as_head(classifier.head, tensors, uri)
    wanted = tuple(f"{name}." for name in PARTS[part])
    own = {name: tensor for name, tensor in classifier.state_dict().items() if name.startswith(wanted)}
    load_strictly(classifier, {name: t for name, t in tensors.items() if name.startswith(wanted)}, uri, own)


def read_weights(uri: str) -> tuple[dict[str, Tensor], LabelSpace | None]:
    """Return the tensors in a file by their dotted paths, and the labels if rayprob wrote it.

    Unpickles only tensors and plain values. Raises StorageError or ModelError.
    """
    if storage.is_folder(uri):
        raise ModelError(f"{uri} is a folder without {WEIGHTS_FILE}; give a file{_weight_files_in(uri)}")
    content = storage.read_bytes(uri)
    loaded = read_tensors(content, uri)
    tensors = flat(loaded) if isinstance(loaded, Mapping) else {}
    if not tensors:
        raise ModelError(f"{uri} contains {describe_contents(loaded)}, not a state_dict; save only model.state_dict()")
    labels = _labels_in(content, tensors, uri)
    return own_names(content, tensors, uri), labels


def own_names(content: bytes, tensors: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return tensors under a classifier's names: a file for the backbone's library has other ones, and states them."""
    text = header_of(content).get(HEADER_KEY)
    return tensors if text is None else SourceNames.from_text(text, where).undo(tensors)


def classifier_bytes(classifier: nn.Module, label_space: LabelSpace, names: SourceNames | None = None) -> bytes:
    """Return a safetensors file of all weights that predictions need, with the label space in its header.

    `load_file` compares the latter. With `names`, tensors have the names of the backbone's library.
    """
    tensors: dict[str, Tensor] = {}
    stored: set[int] = set()
    for name, tensor in classifier.state_dict().items():
        if name.startswith(f"{EMBEDDING}."):  # only training has it
            continue
        tensor = tensor.detach().cpu().contiguous()
        address = tensor.untyped_storage().data_ptr()
        # safetensors rejects tensors that share memory, as tied weights do.
        tensors[name] = tensor.clone() if address in stored else tensor
        stored.add(address)
    header = {"rayprob_labels": json.dumps(label_space.to_dict())}
    if names is not None:
        tensors, header = names.apply(tensors), header | {"format": "pt", HEADER_KEY: names.to_text()}
    return cast(bytes, safetensors.torch.save(tensors, header))


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], where: str, own: Mapping[str, Tensor]) -> None:
    """Load `tensors` into `module`: all of `own` and nothing else.

    Raises ModelError with the first names that differ, that have another kind of numbers, or that contain NaN or inf.
    """
    # Files converted from elsewhere often lack this counter, which nothing reads unless momentum is None.
    missing = [name for name in own if name not in tensors and not name.endswith(COUNTER)]
    unexpected = sorted(name for name in tensors if name not in own)
    reshaped = [
        f"{name} {list(tensor.shape)} here, {list(own[name].shape)} needed"
        for name in own
        if (tensor := tensors.get(name)) is not None and tensor.shape != own[name].shape
    ]
    faults = [
        _first(f"{len(names)} {what}", names)
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if names
    ]
    if faults:
        raise ModelError(
            f"the weights at {where} do not fit this model: {'; '.join(faults)}. Use weights of the same architecture, "
            "or set the backbone, pooling and head with which they were trained"
        )
    _require_usable(tensors, own, where)
    module.load_state_dict(dict(tensors), strict=False)


def _require_usable(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str) -> None:
    """Raise ModelError for values that a copy would change or that training cannot start from."""
    pairs = {name: (tensors[name], tensor) for name, tensor in own.items() if name in tensors}
    strange = [f"{name} {str(t.dtype).removeprefix('torch.')}" for name, (t, ours) in pairs.items() if not _is_alike(t, ours)]
    if strange:
        raise ModelError(
            f"the weights at {where} are not plain floating-point numbers: {_first(f'{len(strange)} differ', strange)}; "
            "use the weights before quantization or packing"
        )
    broken = [name for name, (t, ours) in pairs.items() if not _is_finite(t.to(ours.dtype)) and _is_finite(ours)]
    if broken:
        raise ModelError(
            f"the weights at {where} contain NaN or inf: {_first(counted(len(broken), 'tensor'), broken)}; the training that "
            "wrote them diverged, or the file is damaged; use an earlier checkpoint"
        )


def _is_alike(tensor: Tensor, own: Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.is_floating_point() == own.is_floating_point() and not tensor.is_complex()


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _load_backbone_file(classifier: Classifier, tensors: dict[str, Tensor], uri: str, part: Part) -> None:
    if part == "features" or part == "backbone":
        raise ModelError(
            f"weights_part {part} is for rayprob bundles, but {uri} is not one; leave it out, or set it to "
            "ema or model if the file has both"
        )
    source = classifier.backbone.source
    own = source.state_dict()
    needed = {name for name in own if not name.endswith(COUNTER)}
    sets = find_sets(tensors, needed)
    taken = choose_set(sets, needed, part, uri)
    unnamed = unnamed_averages(tensors, sets)
    if unnamed and part == "all" and not taken.is_averaged:
        raise ModelError(
            f"{uri} has EMA weights ({unnamed}) that cannot be matched to this model; set model.weights_part: model to use "
            f"its {taken.name}, or save the EMA weights as a state_dict"
        )
    others = [one.name for one in sets if one.is_averaged != taken.is_averaged]
    if part == "all" and others:
        log.warning(
            "%s has two sets of weights: using its %s, not its %s; set model.weights_part to ema or model to choose",
            *(uri, taken.name, others[0]),
        )
    else:
        log.info("using the %s of %s", taken.name, uri)
    heads = tuple(f"{name}." for name in classifier.backbone.head_names)
    body = {name: tensor for name, tensor in taken.tensors.items() if name in own or not name.startswith(heads)}
    load_strictly(source, body, f"{uri} ({taken.name})" if others else uri, own)


def _require_labels(labels: LabelSpace, label_space: LabelSpace | None, uri: str) -> None:
    if label_space is None:
        return
    try:
        labels.require_same(label_space, f"the weights at {uri}", "the dataset")
    except LabelError as error:
        raise LabelError(f"{error}, or {BACKBONE_ONLY}") from error


def _as_head(head: Head, tensors: dict[str, Tensor], uri: str) -> dict[str, Tensor]:
    """Return `tensors` with those of the head converted for `head`: a Bernoulli head can start another, not the reverse."""
    own = {f"head.{name}" for name in head.state_dict()}
    found = {name for name in tensors if name.startswith("head.")}
    if found & own == found or own & found == own:  # the same head, perhaps with other options, which shows in the shapes
        return tensors
    weight, bias = "head.linear.weight", "head.linear.bias"
    if found != {weight, bias} or type(head).start_from_bernoulli is Head.start_from_bernoulli:
        parameters = first_of(sorted(found), 4)
        raise ModelError(
            f"the head of the weights at {uri} (its parameters: {parameters}) is not a {head.family} head; {BACKBONE_ONLY}"
        )
    head.start_from_bernoulli(tensors[weight], tensors[bias])
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    return body | {f"head.{name}": tensor for name, tensor in head.state_dict().items()}


def _labels_in(content: bytes, tensors: Mapping[str, Tensor], uri: str) -> LabelSpace | None:
    text = header_of(content).get("rayprob_labels")
    try:
        if text is not None:
            return LabelSpace.from_dict(json.loads(text))
    except (LabelError, ValueError, RecursionError) as error:
        raise ModelError(f"the labels in the header of {uri} are damaged ({error!s:.120}); copy it again") from error
    if {"backbone.mean", "backbone.std"} <= tensors.keys():
        raise ModelError(f"{uri} is a rayprob file without labels in its header; copy it again")
    return None


def _weight_files_in(folder: str) -> str:
    names = [name for name in storage.list_names(folder) if name.endswith(SUFFIXES)]
    return f": {first_of(names, SHOWN)}" if names else "; there is no weight file in it"


def _first(what: str, names: list[str]) -> str:
    return f"{what} ({first_of(names, SHOWN)})"


PARTS: dict[str, tuple[str, ...]] = {
    "all": ("backbone", "pooling", "head"),
    "features": ("backbone", "pooling"),
    "backbone": ("backbone",),
}
