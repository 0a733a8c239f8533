"""Exports a bundle to an ONNX file, after checking that onnxruntime gives the same answers as PyTorch."""

import io
import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch
from numpy.typing import NDArray
from torch.export import Dim

from rayprob.arrays import Pixels
from rayprob.errors import ModelError, one_line
from rayprob.export.checking import (
    EXAMPLE_PX,
    Exported,
    Reader,
    drawn_images,
    largest_difference,
    probabilities_of,
    require_agreement,
    require_packages,
)
from rayprob.export.description import METADATA_KEY, described, facts_of
from rayprob.export.network import Graph
from rayprob.export.precisions import FLOAT32, PRECISIONS
from rayprob.files import storage
from rayprob.registry import choose
from rayprob.runs.bundle import Bundle

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT = "images"
OPSET = 18
LARGEST_BYTES = 2**31  # of a protobuf message


def export_onnx(
    bundle: Bundle, path: str, *, fingerprint: str = "", precision: str = FLOAT32, images: Iterable[Pixels] = ()
) -> Exported:
    """Write a bundle as ONNX to a path or URI, and return how much it differs from PyTorch.

    The file is written only if onnxruntime agrees with PyTorch to TOLERANCE for several batches and image sizes. With a smaller
    `precision` it is the graph of the smaller file's origin that must agree; `images` [1, H, W, 3] calibrate int8. Raises
    ModelError if the extra is missing, the model cannot be exported, or the two disagree; SpecError for an unknown precision.
    """
    convert = choose(PRECISIONS, precision, "precision")
    require_packages(PACKAGES, "export to ONNX")
    model = _exported(bundle)
    content = _as_bytes(model, bundle, fingerprint, precision)
    difference = largest_difference(bundle, onnx_reader(content))
    require_agreement(difference, "onnxruntime", "torch, onnxscript and onnxruntime")
    if precision != FLOAT32:
        content = _as_bytes(convert(model, images), bundle, fingerprint, precision)
        difference = largest_difference(bundle, onnx_reader(content))
        if difference != difference:
            raise ModelError(f"in {precision}, onnxruntime computes nan, so nothing was written; export in {FLOAT32}")
    storage.write_bytes(path, content)
    return Exported(path, probabilities_of(bundle).names, len(content), difference)


def onnx_reader(content: bytes, *, threads: int = 0) -> Reader:
    """Return a function that answers for images with onnxruntime on the CPU; `threads` 0 uses all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def read(images_NHWC: Pixels) -> Sequence[NDArray[Any]]:
        found: Sequence[NDArray[Any]] = session.run(None, {INPUT: images_NHWC})
        return found

    return read


def _exported(bundle: Bundle) -> Any:
    """Return the ONNX model of a bundle."""
    batch, height, width = (Dim(name) for name in ("batch", "height", "width"))
    example = torch.from_numpy(drawn_images(3, *EXAMPLE_PX))
    try:
        with quiet():
            program = torch.onnx.export(
                Graph(bundle).eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(probabilities_of(bundle).names),
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


def _as_bytes(model: Any, bundle: Bundle, fingerprint: str, precision: str) -> bytes:
    """Return the model with its description and metadata, checked and as bytes."""
    import onnx

    facts = facts_of(bundle, fingerprint) | ({"precision": precision} if precision != FLOAT32 else {})
    if model.ByteSize() >= LARGEST_BYTES:
        raise ModelError(f"the model has {model.ByteSize():,} bytes; an ONNX file must have fewer than {LARGEST_BYTES:,}")
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(facts)})
    model.doc_string = described(bundle)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@contextmanager
def quiet() -> Iterator[None]:
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
