"""Exports a bundle to a `.pt2` file of torch.export, once the file, read back, gives the same answers."""

import io
import json
from collections.abc import Sequence
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
)
from rayprob.export.description import METADATA_KEY, described, facts_of
from rayprob.export.network import Graph
from rayprob.export.onnx_file import quiet
from rayprob.files import storage
from rayprob.runs.bundle import Bundle

FACTS_FILE = f"{METADATA_KEY}.json"  # in the file: what the metadata of an ONNX file has, and the description


def export_torch(bundle: Bundle, path: str, *, fingerprint: str = "") -> Exported:
    """Write a bundle as a program of torch.export to a path or URI, and return how much it differs from the bundle.

    It takes what the ONNX graph takes, images of any batch and size, and returns the same outputs in order; it is read without
    rayprob: `torch.export.load(path).module()`. Nothing is written unless the file, read back, agrees with the bundle. Raises
    ModelError if the model cannot be exported or the two disagree.
    """
    content = _as_bytes(_program(bundle), bundle, fingerprint)
    difference = largest_difference(bundle, torch_reader(content))
    require_agreement(difference, "torch.export", "torch")
    storage.write_bytes(path, content)
    return Exported(path, probabilities_of(bundle).names, len(content), difference)


def torch_reader(content: bytes) -> Reader:
    """Return a function that answers for images with an exported program."""
    program = torch.export.load(io.BytesIO(content)).module()

    def read(images_NHWC: Pixels) -> Sequence[NDArray[Any]]:
        with torch.inference_mode():
            return [output.numpy() for output in program(torch.from_numpy(images_NHWC))]

    return read


def _program(bundle: Bundle) -> torch.export.ExportedProgram:
    batch, height, width = (Dim(name) for name in ("batch", "height", "width"))
    example = torch.from_numpy(drawn_images(3, *EXAMPLE_PX))
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(Graph(bundle).eval(), (example,), dynamic_shapes=({0: batch, 1: height, 2: width},))
    except ModelError:
        raise
    except Exception as error:  # torch.export's own errors have no common base
        raise ModelError(
            f"{bundle.model_spec.backbone} cannot be exported by torch.export ({type(error).__name__}: {one_line(error)}); "
            "use another backbone, or a newer torch"
        ) from error


def _as_bytes(program: torch.export.ExportedProgram, bundle: Bundle, fingerprint: str) -> bytes:
    facts = {**facts_of(bundle, fingerprint), "outputs": list(probabilities_of(bundle).names), "description": described(bundle)}
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={FACTS_FILE: json.dumps(facts)})
    return content.getvalue()
