"""Exports a bundle to an ONNX file, after checking that onnxruntime gives the same answers as PyTorch."""

import importlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import Dim

from rayprob.arrays import Pixels
from rayprob.errors import ModelError, one_line
from rayprob.export.network import Graph
from rayprob.files import storage
from rayprob.loader.augment import resize
from rayprob.probability.families import family_of
from rayprob.probability.graphs.probabilities import Probabilities
from rayprob.runs.bundle import Bundle
from rayprob.seeds import derive

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT = "images"
METADATA_KEY = "rayprob"
TOLERANCE = 1e-4
CHECKED_BATCHES = (1, 2, 5)
EXAMPLE_PX = (97, 131)  # distinct from each other and from the batch, so that no two dimensions are confused
OPSET = 18
LARGEST_BYTES = 2**31  # of a protobuf message

DESCRIPTION = """\
Calibrated probabilities of labels. Input `images`: uint8 [N, H, W, 3], RGB, all of one size, {turned}. The graph
resizes images to size_px squares as the model's evaluation does, normalises, classifies, calibrates.
Output `marginals` [N, L]: P(label present), labels in the order of the metadata. A mixture also has `mixing_weights` [N, K] and
`component_probabilities` [N, K, L], which give the probability of a whole label set; under a label prior these are
sigmoid(`logits` [N, 1, L] + `component_offsets` [K, L]), and the graph outputs both. Metadata `rayprob` is JSON: labels,
thresholds and guarantees (a label is chosen if its marginal >= the value), size_px, calibrator, bundle."""
TURNED = {"stored": "decoded without their EXIF rotation", "upright": "turned upright as their EXIF states"}


@dataclass(frozen=True)
class Exported:
    """The written file: its outputs, its size, and the largest difference between onnxruntime and PyTorch over `batches`."""

    path: str
    outputs: tuple[str, ...]
    size_bytes: int
    largest_difference: float
    batches: tuple[int, ...]


def export_onnx(bundle: Bundle, path: str, *, fingerprint: str = "") -> Exported:
    """Write a bundle as ONNX to a path or URI, and return how much it differs from PyTorch.

    The file is written only if onnxruntime agrees with PyTorch to TOLERANCE for several batches and image sizes. Raises
    ModelError if the extra is missing, the model cannot be exported, or the two disagree.
    """
    _require_packages()
    content = _described(_exported(bundle), bundle, fingerprint)
    difference = largest_difference(bundle, content)
    if not difference <= TOLERANCE:  # nan also counts as disagreement
        raise ModelError(
            f"onnxruntime differs from PyTorch by {difference:.2g}, more than {TOLERANCE:g}, so nothing was written; "
            "this model cannot be exported faithfully with these versions of torch, onnxscript and onnxruntime"
        )
    storage.write_bytes(path, content)
    return Exported(path, _probabilities(bundle).names, len(content), difference, CHECKED_BATCHES)


def largest_difference(bundle: Bundle, content: bytes) -> float:
    """Return the largest difference of any output between onnxruntime and the bundle, over several batches and image sizes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    differences = []
    for batch in CHECKED_BATCHES:
        images_NHWC = _drawn(batch)
        found = dict(zip(_probabilities(bundle).names, session.run(None, {INPUT: images_NHWC}), strict=True))
        wanted = expected(bundle, images_NHWC)
        differences += [float(np.abs(found[name] - wanted[name]).max()) for name in wanted]
    return max(differences)


def expected(bundle: Bundle, images_NHWC: Pixels) -> dict[str, NDArray[Any]]:
    """Return the reference outputs, from the evaluation transform, PyTorch and the bundle's own calibration."""
    squashed = np.stack([resize(image_HWC, bundle.transform_spec.size_px) for image_HWC in images_NHWC])
    with torch.inference_mode():
        outputs = bundle.classifier(torch.from_numpy(squashed).permute(0, 3, 1, 2))
    return _probabilities(bundle).expected(bundle.distribution(outputs))


def _probabilities(bundle: Bundle) -> Probabilities:
    return family_of(bundle.classifier.family).build_graph(bundle.calibrator)


def _exported(bundle: Bundle) -> Any:
    """Return the ONNX model of a bundle."""
    batch, height, width = (Dim(name) for name in ("batch", "height", "width"))
    example = torch.from_numpy(_drawn(3, *EXAMPLE_PX))
    try:
        with _quiet():
            program = torch.onnx.export(
                Graph(bundle).eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(_probabilities(bundle).names),
                dynamic_shapes=({0: batch, 1: height, 2: width},),
                verbose=False,
            )
    except ModelError:
        raise
    except Exception as error:  # the exporter's own errors have no common base
        raise ModelError(
            f"{bundle.model_spec.backbone} cannot be exported to ONNX ({type(error).__name__}: {one_line(error)}); "
            "use another backbone, or a newer torch and onnxscript"
        ) from error
    assert program is not None
    return program.model_proto


def _described(model: Any, bundle: Bundle, fingerprint: str) -> bytes:
    """Return the model with its description and metadata, checked and as bytes."""
    import onnx

    facts = {
        "labels": list(bundle.label_space.names),
        "category_ids": list(bundle.label_space.category_ids),
        "family": bundle.classifier.family,
        "size_px": bundle.transform_spec.size_px,
        "calibrator": bundle.calibrator.name if bundle.calibrator else None,
        "thresholds": {name: thresholds.values_L.tolist() for name, thresholds in bundle.thresholds.items()},
        "guarantees": {alpha: control.to_dict() for alpha, control in bundle.guarantees.items()},
        "backbone": bundle.model_spec.backbone,
        "bundle": fingerprint,
    }
    if model.ByteSize() >= LARGEST_BYTES:
        raise ModelError(f"the model has {model.ByteSize():,} bytes; an ONNX file must have fewer than {LARGEST_BYTES:,}")
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(facts)})
    model.doc_string = DESCRIPTION.format(turned=TURNED[bundle.reading.orientation])
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _drawn(batch: int, height_px: int | None = None, width_px: int | None = None) -> Pixels:
    """Return smooth random images of one size, which differs from batch to batch in the check."""
    random = np.random.default_rng(derive(0, "export", batch))
    height_px, width_px = height_px or int(random.integers(40, 700)), width_px or int(random.integers(40, 700))
    coarse = random.integers(0, 256, (batch, 9, 12, 3), dtype=np.uint8)
    return np.stack([cv2.resize(image, (width_px, height_px), interpolation=cv2.INTER_CUBIC) for image in coarse])


def _require_packages() -> None:
    missing = []
    for package in PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError:
            missing.append(package)
    if missing:
        raise ModelError(f"export needs the packages {', '.join(missing)}, which are missing; run pip install 'rayprob[onnx]'")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress and advice: problems arrive as exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
