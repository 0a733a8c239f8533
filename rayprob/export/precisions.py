"""Smaller ONNX files: the network in half precision, or its convolutions in 8-bit integers.

The resize and the calibration stay in float64, in which the graph computes them exactly.
"""

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rayprob.arrays import Pixels
from rayprob.errors import ModelError

FLOAT32, FP16, INT8 = "float32", "fp16", "int8"
Convert = Callable[[Any, Iterable[Pixels]], Any]  # an ONNX model and images [1, H, W, 3] -> another model
QUANTISED = ["Conv", "MatMul"]  # the last layer, a Gemm, is small and decides the probabilities
IDENTITY = "Identity"


def _same(model: Any, images: Iterable[Pixels]) -> Any:
    return model


def to_fp16(model: Any, images: Iterable[Pixels]) -> Any:
    """Return the model with its float32 tensors in half precision, and the same inputs and outputs; no image is needed."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    blocked = [*DEFAULT_OP_BLOCK_LIST, IDENTITY]
    converted = convert_float_to_float16(_with_computed_outputs(model), keep_io_types=True, op_block_list=blocked)
    OnnxModel(converted).topological_sort()  # the converter appends nodes behind those that read them
    return converted


def to_int8(model: Any, images: Iterable[Pixels]) -> Any:
    """Return the model with convolutions and matrix products in int8, their ranges those of the activations of `images`.

    Weights have a scale per channel. Raises ModelError without images.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static

    model = _with_computed_outputs(model)
    with tempfile.TemporaryDirectory() as folder, _without_advice():
        written = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            written,
            _ImagesInTurn(model, images),
            op_types_to_quantize=QUANTISED,
            nodes_to_exclude=_in_other_types(model),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(written)


class _ImagesInTurn:
    """The calibration images, as onnxruntime reads them: one dictionary per call, then None."""

    def __init__(self, model: Any, images: Iterable[Pixels]) -> None:
        self.name = model.graph.input[0].name
        self.images = iter(images)
        self.number = 0

    def get_next(self) -> dict[str, Pixels] | None:
        image = next(self.images, None)
        if image is None:
            if not self.number:
                raise ModelError("int8 needs images that calibrate its ranges; give a dataset")
            return None
        self.number += 1
        return {self.name: image}


def _with_computed_outputs(model: Any) -> Any:
    """Return the model with a node for each output that is a constant: converters rename constants."""
    import onnx

    constants = {constant.name: constant for constant in model.graph.initializer}
    for name in [output.name for output in model.graph.output if output.name in constants]:
        constants[name].name = f"{name}_constant"
        for node in model.graph.node:
            node.input[:] = [f"{name}_constant" if one == name else one for one in node.input]
        model.graph.node.append(onnx.helper.make_node(IDENTITY, [f"{name}_constant"], [name], name=f"{name}_output"))
    return model


def _in_other_types(model: Any) -> list[str]:
    """Return the names of the nodes that compute in anything but float32."""
    import onnx

    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    types |= {constant.name: constant.data_type for constant in graph.initializer}
    float32 = onnx.TensorProto.FLOAT
    return [node.name for node in graph.node if any(types.get(name) != float32 for name in (*node.input, *node.output) if name)]


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silence the quantiser's advice to optimise the graph first, which it logs on the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


PRECISIONS: dict[str, Convert] = {FLOAT32: _same, FP16: to_fp16, INT8: to_int8}
