"""A network as an ONNX file, for onnxruntime and OpenVINO. Needs the package ``onnx``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.bench.peers.folded import Layer

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8  # old enough for every runtime in use


def onnx_model(layers: list[Layer], shape: tuple[int, int, int, int]) -> onnx.ModelProto:
    """Write layers as ONNX, node by node; input ``"input"``, of this shape, and output ``"output"``.

    The result is checked by ``onnx`` itself.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {"zero": np.float32(0), "six": np.float32(6)}
    nodes = []

    def add(operator: str, inputs: list[str], output: str, **attributes: object) -> None:
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))

    for layer in layers:
        # The last node of a layer is called as the layer; those before it have suffixes.
        steps = ["sum"] + ["activation"] * bool(layer.activation) + ["residual"] * bool(layer.residual)
        names = [*(f"{layer.name}.{step}" for step in steps[:-1]), layer.name]
        if layer.kind == "pool":
            add("GlobalAveragePool", [layer.input], f"{layer.name}.mean")
            add("Flatten", [f"{layer.name}.mean"], layer.name)
            continue
        weight, bias = f"{layer.name}.weight", f"{layer.name}.bias"
        constants |= {weight: layer.weight, bias: layer.bias}
        name = names.pop(0)
        if layer.kind == "linear":
            add("Gemm", [layer.input, weight, bias], name, transB=1)
        else:
            (top, bottom), (left, right) = layer.pads
            add(
                "Conv",
                [layer.input, weight, bias],
                name,
                kernel_shape=layer.weight.shape[2:],
                strides=layer.stride,
                dilations=layer.dilation,
                pads=[top, left, bottom, right],
                group=layer.groups,
            )
        if layer.activation:
            previous, name = name, names.pop(0)
            if layer.activation == "relu":
                add("Relu", [previous], name)
            else:
                add("Clip", [previous, "zero", "six"], name)
        if layer.residual:
            add("Add", [name, layer.residual], names.pop(0))
    add("Identity", [layers[-1].name], "output")

    graph = helper.make_graph(
        nodes,
        "npmobilenet",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, (shape[0], len(layers[-1].bias)))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model
