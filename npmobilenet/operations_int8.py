"""The operations of a quantised graph: what `passes_int8` makes of others. Letters as in `operations`.

A tensor is float32, or uint8 with a scale and a zero point for each channel: `result_dtype` of the node that makes it
says which. Weights are integers. All that kernels need beside them is parameters or attributes, so that a graph and its
parameters are the whole of a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from npmobilenet.operations import (
    INT8_OPERATIONS,
    Add,
    Conv2d,
    DepthwiseConv2d,
    GlobalAveragePool,
    Linear,
    MixedDepthwiseConv2d,
    Operation,
    Parameter,
    PointwiseConv2d,
    SqueezeExcite,
)

if TYPE_CHECKING:
    from npmobilenet.graph import Node

Shape = tuple[int, ...]


class Int8(Operation):
    """What all of them have in common."""

    ends: ClassVar = ()
    table: ClassVar = INT8_OPERATIONS

    def result_dtype(self, node: Node) -> str:
        return node.attributes.get("dtype", "float32")

    def parameter_shapes(
        self, channels: int, attributes: Mapping[str, Any], optional: bool = False
    ) -> dict[str, Shape]:
        """As of other operations; the parts of a mixed convolution share all but the weight."""
        attributes = {**self.attributes, **attributes}
        sizes, parts = self._sizes(channels, attributes), self.parts(attributes)
        shapes: dict[str, Shape] = {}
        for name, parameter in self.parameters.items():
            if name == "weight" and len(parts) > 1:
                shapes |= {
                    f"{number}.weight": parameter.shape(self._sizes(channels, part))
                    for number, part in enumerate(parts)
                }
            elif optional or not parameter.optional:
                shapes[name] = parameter.shape(sizes)
        return shapes


class Int8Convolution(Int8):
    """Sums of integers, times ``scale``, plus ``bias``.

    ``out_scale`` and ``out_zero_point`` say what a result in uint8 stands for. Kernels need them only if it ends with
    an ``activation``; without one they are in ``scale`` and ``bias``. ``zero_point`` is the input's, a parameter where
    that is of uint8 and has one, an attribute where that is float32 and quantised on entry.
    """

    ending: ClassVar = {
        "scale": Parameter("C_out", "C_out", learned=False),
        "bias": Parameter("C_out", "C_out"),
        "zero_point": Parameter("C_in", "C_in", learned=False, optional=True),
        "out_scale": Parameter("C_out", "C_out", learned=False, optional=True),
        "out_zero_point": Parameter("C_out", "C_out", learned=False, optional=True),
    }
    ended: ClassVar = {"activation": "none", "dtype": "uint8"}

    def arguments(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        weights = [self.parameters["weight"].of_kernel(array) for name, array in arrays.items() if _is_weight(name)]
        given = {name: array for name, array in arrays.items() if not _is_weight(name)}
        if "out_scale" in given:
            given["out_steps"] = steps_of(given.pop("out_scale"))
        return given | ({"weight": weights[0]} if self.parameters["weight"].argument == "" else {"weights": weights})

    def keywords(self, node: Node) -> dict[str, Any]:
        entry = {"zero_point": node["zero_point"]} if node.attributes.get("zero_point") is not None else {}
        return super().keywords(node) | {"dtype": node["dtype"]} | entry

    def unread(self, node: Node) -> tuple[str, ...]:
        """What a result stands for, where nothing follows the sums."""
        ended = node["dtype"] == "uint8" and node["activation"] != "none"
        return () if ended else ("out_scale", "out_zero_point")


def _is_weight(name: str) -> bool:
    return name.endswith("weight")


def steps_of(scale: np.ndarray) -> np.ndarray:
    """How many steps are a unit."""
    return (1 / np.float64(scale)).astype(np.float32)


class PointwiseConv2dInt8(Int8Convolution, PointwiseConv2d, name="pointwise_conv2d_int8"):
    """A window of one pixel, of uint8 or of float32 that is quantised pixel by pixel."""

    parameters: ClassVar = {
        "weight": Parameter("C_out C_in/G 1 1", "C_in/G C_out", multiplied=True),
        **Int8Convolution.ending,
    }
    attributes: ClassVar = {**PointwiseConv2d.attributes, **Int8Convolution.ended, "zero_point": None}

    def parts(self, attributes: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        return [attributes]


class DepthwiseConv2dInt8(Int8Convolution, DepthwiseConv2d, name="depthwise_conv2d_int8"):
    """One filter for each channel, of 8 or 15 bits."""

    parameters: ClassVar = {
        "weight": Parameter("C 1 K_h K_w", "K_h K_w C", multiplied=True),
        **Int8Convolution.ending,
    }
    attributes: ClassVar = {**DepthwiseConv2d.attributes, **Int8Convolution.ended}


class MixedDepthwiseConv2dInt8(Int8Convolution, MixedDepthwiseConv2d, name="mixed_depthwise_conv2d_int8"):
    """Depthwise with windows of several sizes."""

    parameters: ClassVar = {
        "weight": MixedDepthwiseConv2d.parameters["weight"],
        **Int8Convolution.ending,
    }
    attributes: ClassVar = {**MixedDepthwiseConv2d.attributes, **Int8Convolution.ended}


class Conv2dInt8(Int8Convolution, Conv2d, name="conv2d_int8"):
    """Dense convolution; of the image, ``steps`` to a unit in 16 bits, from the first to the second of ``limits``."""

    parameters: ClassVar = {
        "weight": Parameter("C_out C_in/G K_h K_w", "K_h K_w C_in/G C_out", multiplied=True),
        **Int8Convolution.ending,
    }
    attributes: ClassVar = {**Conv2d.attributes, **Int8Convolution.ended, "steps": None, "limits": None}
    options = (*Conv2d.options, "steps", "limits")


class LinearInt8(Int8, Linear, name="linear_int8"):
    """Fully connected layer, each vector quantised on entry."""

    parameters: ClassVar = {
        "weight": Parameter("C_out C_in", "C_in C_out", multiplied=True),
        "scale": Parameter("C_out", "C_out", learned=False),
        "bias": Parameter("C_out", "C_out"),
    }
    attributes: ClassVar = {**Linear.attributes, "activation": "none", "zero_point": 128}
    options = ("zero_point",)


class SqueezeExciteInt8(Int8, SqueezeExcite, name="squeeze_excite_int8"):
    """Of uint8 makes float32; the vectors are float32."""

    parameters: ClassVar = {
        "scale": Parameter("C", "C", learned=False),
        "zero_point": Parameter("C", "C", learned=False, optional=True),
        **SqueezeExcite.parameters,
    }


class GlobalAveragePoolInt8(Int8, GlobalAveragePool, name="global_average_pool_int8"):
    """Of uint8 makes float32."""

    options = ()
    parameters: ClassVar = {
        "scale": Parameter("C", "C", learned=False),
        "zero_point": Parameter("C", "C", learned=False, optional=True),
    }


class AddInt8(Int8, Add, name="add_int8"):
    """Sum of two tensors of uint8, each with its own scale and zero point, in that of the result.

    ``scale`` and ``other_scale`` are steps of the result to a step of each, ``bias`` has the three zero points.
    """

    parameters: ClassVar = {
        "scale": Parameter("C", "C", learned=False),
        "other_scale": Parameter("C", "C", learned=False),
        "bias": Parameter("C", "C", learned=False),
        "out_scale": Parameter("C", "C", learned=False),
        "out_zero_point": Parameter("C", "C", learned=False),
    }
    attributes: ClassVar = {"dtype": "uint8"}

    def unread(self, node: Node) -> tuple[str, ...]:
        """What the result stands for."""
        return ("out_scale", "out_zero_point")


class Quantize(Int8, name="quantize"):
    """From float32 to uint8, ``out_scale`` and ``out_zero_point`` for each channel."""

    parameters: ClassVar = {
        "out_scale": Parameter("C", "C", learned=False),
        "out_zero_point": Parameter("C", "C", learned=False),
    }
    attributes: ClassVar = {"dtype": "uint8"}

    def arguments(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"steps": steps_of(arrays["out_scale"]), "zero_point": arrays["out_zero_point"]}


class Dequantize(Int8, name="dequantize"):
    """From uint8 to float32."""

    parameters: ClassVar = {
        "scale": Parameter("C", "C", learned=False),
        "zero_point": Parameter("C", "C", learned=False),
    }


def input_dtype(node: Node, number: int = 0) -> str:
    """Return in which type a node of any graph takes one of its inputs."""
    if number:
        return "uint8" if node.operation == "add_int8" else "float32"
    if node.operation in ("pointwise_conv2d_int8", "conv2d_int8"):
        quantised_on_entry = node["zero_point" if node.operation == "pointwise_conv2d_int8" else "steps"] is not None
        return "float32" if quantised_on_entry else "uint8"
    of_floats = node.operation not in INT8_OPERATIONS or node.operation in ("linear_int8", "quantize")
    return "float32" if of_floats else "uint8"
