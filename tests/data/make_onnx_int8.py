"""Remake onnx_int8.npz: what onnxruntime computes of small networks of 8 bits, as its tools and others write them.

    python -m tests.data.make_onnx_int8

Made with onnxruntime 1.32.0 and NumPy 2.4.6 on a CPU with AVX-512 and VNNI, without optimisations of the graph. The
networks are made here, by this package's own writer; the test reads the same.
"""

from pathlib import Path

import numpy as np

from npmobilenet.onnx.file import Node, OnnxGraph, Port
from npmobilenet.onnx.writing import serialised

FILE = Path(__file__).parent / "onnx_int8.npz"
SIZE, IMAGES, CLASSES = 14, 3, 6
# Each style: the type of activations, whether the weights of a layer have a scale for each channel, how it is written.
STYLES = {
    "qdq_u8": {},
    "qdq_s8": {"activations": np.int8},
    "qdq_s8_symmetric": {"activations": np.int8, "symmetric": True},
    "qdq_whole_tensors": {"per_channel": False},
    "qdq_weights_u8": {"weights": np.uint8, "per_channel": False},
    "qdq_activations_apart": {"spelled": True},
    "operators_u8": {"operators": True},
    "operators_s8": {"operators": True, "activations": np.int8},
}


def images():
    """What the outputs are of; some of it beyond the range of the image's bytes."""
    return np.random.default_rng(3).uniform(-2.4, 2.4, (IMAGES, 3, SIZE, SIZE)).astype(np.float32)


class Builder:
    """Nodes one after the other; every tensor's scale and zero point by its name."""

    def __init__(self, style):
        self.style = {"activations": np.uint8, "weights": np.int8, "per_channel": True, **style}
        self.random = np.random.default_rng(11)
        self.nodes, self.constants, self.steps = [], {}, {}

    def constant(self, name, array):
        self.constants[name] = array
        return name

    def node(self, operator, inputs, makes, **attributes):
        self.nodes.append(Node(makes, operator, tuple(inputs), (makes,), attributes))
        return makes

    def code(self, name, low, high):
        """Scale and zero point of a tensor with these ends."""
        dtype = self.style["activations"]
        if self.style.get("symmetric"):
            scale, zero_point = max(-low, high) / 127, 0
        else:
            scale = (high - low) / 255
            zero_point = np.rint(-low / scale) + np.iinfo(dtype).min
        self.steps[name] = (
            self.constant(f"{name}.scale", np.float32(scale)),
            self.constant(f"{name}.zero_point", dtype(zero_point)),
        )
        return self.steps[name]

    def rounded(self, numbers, name, low, high):
        """A tensor as bytes, and in QDQ the numbers that these stand for."""
        steps = self.code(name, low, high)
        self.node("QuantizeLinear", [numbers, *steps], f"{name}.bytes")
        return self.read(name)

    def read(self, name):
        if self.style.get("operators"):
            return f"{name}.bytes"
        return self.node("DequantizeLinear", [f"{name}.bytes", *self.steps[name]], f"{name}.read")

    def weight(self, name, shape, gain):
        """Bytes, scale and zero point of a layer's weights."""
        dtype, channels = self.style["weights"], shape[0] if self.style["per_channel"] else 1
        whole = self.random.integers(-127, 128, shape)
        zero = 128 if dtype == np.uint8 else 0
        scale = gain * self.random.uniform(0.5, 1.5, channels) / (60 * np.sqrt(np.prod(shape[1:])))
        many = self.style["per_channel"]
        arrays = (
            (whole + zero).astype(dtype),
            np.float32(scale if many else scale[0]),
            np.full(channels, zero, dtype) if many else dtype(zero),
        )
        return [self.constant(f"{name}.{part}", array) for part, array in zip(PARTS, arrays, strict=True)]

    def layer(self, name, source, shape, ends, function=None, gain=1.0, **attributes):
        """A convolution or linear layer; its result has these ends."""
        linear = len(shape) == 2
        parts = self.weight(f"{name}.weight", shape, gain)
        x_scale, scale = (self.constants[each] for each in (self.steps[source][0], parts[1]))
        sums = np.float32(x_scale * scale)
        bias = self.random.normal(0, 0.3, shape[0]) / sums
        bias = self.constant(f"{name}.bias", np.rint(bias).astype(np.int32))
        if self.style.get("operators"):
            low = 0.0 if function and not self.style.get("symmetric") else ends[0]
            steps = self.code(name, low, ends[1])
            inputs = [f"{source}.bytes", *self.steps[source], *parts]
            if linear:
                self.node("com.microsoft.QGemm", [*inputs, bias, *steps], f"{name}.bytes", transB=1)
            else:
                self.node("QLinearConv", [*inputs, *steps, bias], f"{name}.bytes", **attributes)
            return
        axis = {"axis": 0} if self.style["per_channel"] else {}
        self.node("DequantizeLinear", parts, f"{name}.weight.read", **axis)
        self.constant(f"{name}.bias.scale", sums)
        self.node("DequantizeLinear", [bias, f"{name}.bias.scale"], f"{name}.bias.read", **axis)
        inputs = [self.read_once(source), f"{name}.weight.read", f"{name}.bias.read"]
        made = self.node("Gemm" if linear else "Conv", inputs, name, **({"transB": 1} if linear else attributes))
        spelled = self.style.get("spelled") or self.style.get("symmetric")
        low = ends[0] if not function or spelled else 0.0
        if function and spelled:
            bounds = [self.constant("zero", np.float32(0)), self.constant("most", np.float32(6))]
            made = self.node(function, [made, *(bounds if function == "Clip" else ())], f"{name}.activated")
        self.rounded(made, name, low, ends[1])

    def read_once(self, name):
        made = f"{name}.read"
        return made if any(made in node.outputs for node in self.nodes) else self.read(name)

    def operator(self, operator, sources, name, ends, **attributes):
        """A sum, product or mean, rounded."""
        if self.style.get("operators"):
            inputs = [part for source in sources for part in (f"{source}.bytes", *self.steps[source])]
            kind = f"com.microsoft.QLinear{operator}"
            self.node(kind, [*inputs, *self.code(name, *ends)], f"{name}.bytes", **attributes)
        else:
            made = self.node(operator, [self.read_once(source) for source in sources], name, **attributes)
            self.rounded(made, name, *ends)


PARTS = ("bytes", "scale", "zero_point")


def network(style):
    """A small inverted residual network with everything that MobileNets have, in one of `STYLES`."""
    to = Builder(STYLES[style])
    to.rounded("image", "image", -2.0, 2.0)
    to.layer("stem", "image", (8, 3, 3, 3), (-1.0, 2.5), "Relu", strides=(2, 2), pads=(1, 1, 1, 1))
    to.layer("expand", "stem", (24, 8, 1, 1), (-0.5, 2.0), "Clip")
    to.layer("depthwise", "expand", (24, 1, 3, 3), (-0.7, 2.2), "Relu", 1.5, pads=(1, 1, 1, 1), group=24)
    to.layer("project", "depthwise", (8, 24, 1, 1), (-2.0, 2.3))
    to.operator("Add", ["project", "stem"], "sum", (-2.0, 3.0))
    to.layer("wide", "sum", (20, 8, 1, 1), (-2.0, 2.0))
    to.operator("Mul", ["wide", "wide"], "square", (0.0, 3.0))
    to.layer("filter", "square", (20, 1, 5, 5), (-1.5, 2.0), None, 1.5, pads=(2, 2, 2, 2), strides=(2, 2), group=20)
    to.operator("GlobalAveragePool", ["filter"], "mean", (-1.0, 1.0))
    last = "mean.bytes" if to.style.get("operators") else to.read_once("mean")
    flat = to.node("Flatten", [last], "flat.bytes" if to.style.get("operators") else "flat", axis=1)
    if to.style.get("operators"):
        to.steps["flat"] = to.steps["mean"]
    else:
        to.rounded(flat, "flat", -1.0, 1.0)
    to.layer("logits", "flat", (CLASSES, 20), (-2.0, 2.0), gain=2.0)
    steps = to.steps["logits"]
    to.node("DequantizeLinear", ["logits.bytes", *steps], "scores")
    ports = Port("image", "float32", ("n", 3, SIZE, SIZE)), Port("scores", "float32", ("n", CLASSES))
    return OnnxGraph(style, 17, tuple(to.nodes), to.constants, ports[:1], ports[1:])


def main():
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    found = {}
    for style in STYLES:
        session = onnxruntime.InferenceSession(serialised(network(style)), options, providers=["CPUExecutionProvider"])
        (found[style],) = session.run(None, {"image": images()})
    np.savez_compressed(FILE, **found)


if __name__ == "__main__":
    main()
