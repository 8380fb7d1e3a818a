"""ONNX files of 8 bits: read with their own scales, and written for other runtimes."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import npmobilenet
from npmobilenet import AssumptionWarning, Preprocessing
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.bench.agreement import agreement_of
from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.cli import main
from npmobilenet.errors import CheckpointError
from npmobilenet.model import Model
from npmobilenet.onnx.file import MICROSOFT, Node, OnnxGraph, Port, parse_model
from npmobilenet.onnx.operator import OPERATORS
from npmobilenet.onnx.parts import Part, check, divided
from npmobilenet.onnx.qlinear import normalised
from npmobilenet.onnx.tensors import CODES, Beside
from npmobilenet.onnx.writing import serialised
from npmobilenet.passes_qdq import lowered
from npmobilenet.passes_rounded import apart
from npmobilenet.quantisation import with_roundings
from tests.conftest import compiled_only
from tests.data.make_onnx_int8 import CLASSES, FILE, STYLES, Builder, images, network

pytestmark = pytest.mark.filterwarnings("ignore::npmobilenet.AssumptionWarning")
IMAGE = Port("x", "float32", ("n", 4, 9, 9))


def stored(graph, folder, name="model"):
    """A graph as a file."""
    path = folder / f"{name}.onnx"
    path.write_bytes(serialised(graph))
    return path


def parsed(graph):
    """A graph as it is read from its bytes."""
    return parse_model(serialised(graph), Beside(Path(), Allowance(1 << 20)))


def values_of(graph, **inputs):
    """Every tensor of a graph, one node after the other in NumPy: what ONNX says, without any pass."""
    values = {**graph.constants, **inputs}
    for node in graph.nodes:
        arrays = [values[name] if name else None for name in node.inputs]
        results = OPERATORS[node.operator].compute(node, arrays, graph.opset)
        values.update(zip(node.outputs, results, strict=False))
    return values


def part_of(graph, shape=(2, 4, 9, 9)):
    """The only part of a graph that is computed in one."""
    graph = normalised(parsed(graph))
    check(graph)
    _, (part,) = divided(graph, {graph.inputs[0].name: shape})
    assert isinstance(part, Part)
    return part


def operations(part):
    return [node.operation for node in part.graph]


class Small(Builder):
    """A graph that begins with four channels."""

    def __init__(self, **style):
        super().__init__(style)
        self.rounded("x", "x", -2.0, 2.0)

    def graph(self, output="y", rank=4, dtype="float32"):
        shape = ("n", "c", "h", "w")[:rank]
        return OnnxGraph("small", 17, tuple(self.nodes), self.constants, (IMAGE,), (Port(output, dtype, shape),))


def numbers(images=2, seed=0):
    return np.random.default_rng(seed).uniform(-2.3, 2.3, (images, 4, 9, 9)).astype(np.float32)


# What other tools write --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answers():
    with np.load(FILE) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("style", STYLES)
def test_networks_are_those_of_onnxruntime(style, answers, tmp_path):
    """All of it in 8 bits, within a step of the last scale, which a sum beside a half may make."""
    model = npmobilenet.load(stored(network(style), tmp_path), backend="reference")
    step = float(network(style).constants["logits.scale"])
    scores = model.run({"image": images()})["scores"]
    off = np.rint((scores - answers[style]) / step)
    assert scores.shape == (3, CLASSES) and np.ptp(answers[style]) > 100 * step
    assert np.abs(off).max() <= 1 and np.mean(off == 0) > 0.7
    assert model.dtype == "int8" and model.provenance["quantisation"] == ("stored", "file")
    layers = {"conv2d_int8", "pointwise_conv2d_int8", "depthwise_conv2d_int8", "add_int8"}
    others = {"quantize", "dequantize", "multiply", "global_average_pool", "flatten"}
    found = [node.operation for node in model.graph]
    assert set(found) == layers | others
    assert [found.count(name) for name in sorted(layers)] == [1, 1, 2, 4]  # the last layer is one of them


@compiled_only
@pytest.mark.parametrize("style", ["qdq_u8", "qdq_s8_symmetric", "operators_s8"])
def test_every_backend_has_the_same_bits(style, tmp_path):
    file = stored(network(style), tmp_path)
    expected = npmobilenet.load(file, backend="reference").run({"image": images()})["scores"]
    for backend in ("auto", "plain"):
        with warnings.catch_warnings():
            warnings.simplefilter("error", npmobilenet.FallbackWarning)
            model = npmobilenet.load(file, backend=backend)
            np.testing.assert_array_equal(model.run({"image": images()})["scores"], expected)
            np.testing.assert_array_equal(model.run({"image": images()[1:2]}, threads=2)["scores"], expected[1:2])


@compiled_only
def test_it_is_stored_again_and_inspected(tmp_path, capsys):
    file = stored(network("qdq_u8"), tmp_path)
    model = npmobilenet.load(file, backend="plain")
    again = npmobilenet.load(npmobilenet.export_weights(model, tmp_path / "small.safetensors"), backend="plain")
    np.testing.assert_array_equal(again._run(images(), None, 1), model._run(images(), None, 1))
    assert model.features(images(), "mean").shape == (3, 20, 1, 1)
    assert main(["inspect", str(file), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["layers"]}
    layers = [row["computed_by"] for row in rows.values() if "conv" in row["text"]]
    assert layers == ["8 bits"] * 7 and rows["square"]["computed_by"] == "kernels"
    assert main(["inspect", str(file)]) == 0
    assert "one image, int8\n" in (shown := capsys.readouterr().out) and "depthwise_conv2d_int8 5x5" in shown


def test_an_image_beyond_its_bytes_is_cut_off(tmp_path):
    model = npmobilenet.load(stored(network("qdq_u8"), tmp_path), backend="reference")
    (stem,) = [node for node in model.graph if node.operation == "conv2d_int8"]
    scale, zero_point = (network("qdq_u8").constants[f"image.{name}"] for name in ("scale", "zero_point"))
    assert stem["limits"] == (-int(zero_point), 255 - int(zero_point))
    ends = np.clip(images(), *(scale * end for end in stem["limits"]))
    assert (ends != images()).any()
    np.testing.assert_array_equal(model._run(images(), None, 1), model._run(ends, None, 1))
    assert (model._run(images(), None, 1) != model._run(images() / 2, None, 1)).any()


# Layers ------------------------------------------------------------------------------------------------------


def assert_same_steps(graph, output, step, most=0.02):
    """The numbers that NumPy's operators make one after the other, but for a step here and there."""
    part, x = part_of(graph), numbers()
    expected = values_of(graph, x=x)[output]
    model = Model(part.graph, part.weights, architecture="small", dtype=part.dtype, backend="reference")
    found = model.outputs(x, [output])[output].reshape(expected.shape)
    off = np.rint((found - expected) / step)
    assert np.abs(off).max() <= 1 and np.mean(off != 0) < most
    assert np.ptp(expected) > 60 * step
    return part


@pytest.mark.parametrize("activations", [np.uint8, np.int8])
@pytest.mark.parametrize("function", [None, "Relu", "Clip", "HardSwish", "Sigmoid"])
def test_a_layer_ends_with_an_activation(function, activations):
    """A clamp is the saturation of bytes whose zero point is the lowest; else it is computed."""
    for low in (0.0, -1.0) if function else (-1.0,):
        to = Small(activations=activations, spelled=True)
        to.layer("wide", "x", (16, 4, 1, 1), (-1.0, 2.0))
        high = 6.0 if function == "Clip" else 1.0 if function == "Sigmoid" else 3.0
        ends = {"HardSwish": (-0.4, high)}.get(function, (low, high))
        to.layer("filter", "wide", (16, 1, 3, 3), ends, function, 4.0, pads=(1, 1, 1, 1), group=16)
        to.layer("y", "filter", (5, 16, 1, 1), (-2.0, 2.0), None, 2.0)
        graph = to.graph("y.read")
        part = assert_same_steps(graph, "y.read", float(to.constants["y.scale"]))
        assert operations(part)[-4:] == [
            "pointwise_conv2d_int8", "depthwise_conv2d_int8", "pointwise_conv2d_int8", "dequantize",
        ]  # fmt: skip
        (middle,) = [node for node in part.graph if node.operation == "depthwise_conv2d_int8"]
        clamps = function in ("Relu", "Clip") and low == 0
        names = {"Relu": "relu", "Clip": "relu6", "HardSwish": "hard_swish", "Sigmoid": "sigmoid", None: "none"}
        assert middle["activation"] == ("none" if clamps else names[function])


def test_scales_of_channels():
    """Of activations that a depthwise convolution reads, as NNCF writes them; a pointwise one cannot add those up."""
    to = Small()
    to.layer("wide", "x", (16, 4, 1, 1), (-1.0, 2.0))
    scale = to.constant("scales", np.linspace(0.005, 0.02, 16, dtype=np.float32))
    zero = to.constant("zeros", np.arange(100, 116, dtype=np.uint8))
    to.node("QuantizeLinear", ["wide", scale, zero], "channels.bytes", axis=1)
    to.node("DequantizeLinear", ["channels.bytes", scale, zero], "channels.read", axis=1)
    to.steps["channels"] = scale, zero
    for name, shape, options in (
        ("filter", (16, 1, 3, 3), {"group": 16, "pads": (1, 1, 1, 1)}),
        ("y", (7, 16, 1, 1), {}),
    ):
        weight = to.weight(f"{name}.weight", shape, 3.0)
        to.node("DequantizeLinear", weight, f"{name}.weight.read", axis=0)
        to.node("Conv", ["channels.read", f"{name}.weight.read"], name, **options)
        to.rounded(name, name, -1.5, 1.5)
    nodes = to.nodes
    for name, operation in (("filter", "depthwise_conv2d_int8"), ("y", "pointwise_conv2d")):
        to.nodes = [node for node in nodes if name == "filter" or not node.name.startswith("filter")]
        part = assert_same_steps(to.graph(f"{name}.read"), f"{name}.read", float(to.constants[f"{name}.scale"]))
        assert operation in operations(part)
        assert part.floats == ({} if name == "filter" else {"y": "its input has other scales for other channels"})


def test_what_stays_float_says_why():
    to = Small()
    to.layer("wide", "x", (8, 4, 1, 1), (-1.0, 2.0))
    to.layer("y", "wide", (6, 4, 3, 3), (-2.0, 2.0), None, 2.0, group=2)
    part = assert_same_steps(to.graph("y.read"), "y.read", float(to.constants["y.scale"]))
    assert part.floats == {"y": "8-bit kernels have no groups, but of one channel or one pixel"}
    to = Small(weights=np.uint8, per_channel=False)
    to.layer("wide", "x", (8, 4, 1, 1), (-1.0, 2.0))
    to.layer("filter", "wide", (8, 1, 3, 3), (-2.0, 2.0), None, 2.0, group=8)
    to.layer("y", "filter", (6, 8, 1, 1), (-2.0, 2.0), None, 2.0)
    for name in ("filter", "y"):
        to.constants[f"{name}.weight.zero_point"] = np.uint8(110)  # so that weights reach to 145
    part = assert_same_steps(to.graph("y.read"), "y.read", float(to.constants["y.scale"]))
    assert part.floats == {"y": "its weights reach beyond a byte around their zero point"}
    assert part.weights["filter.weight"].dtype == np.int16
    to = Small()
    to.layer("wide", "x", (8, 4, 1, 1), (-1.0, 2.0))
    to.constants["numbers"] = np.random.default_rng(0).normal(0, 0.5, (6, 8, 1, 1)).astype(np.float32)
    to.node("Conv", [to.read_once("wide"), "numbers"], "y")
    part = part_of(to.graph("y"))
    assert part.floats == {"y": "its weights are no integers"}


@pytest.mark.parametrize("window", [((3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 2)}), ((1, 1), {"strides": (2, 2)})])
def test_dense_convolutions(window):
    kernel, options = window
    to = Small()
    to.layer("wide", "x", (8, 4, 1, 1), (-1.0, 2.0))
    to.layer("y", "wide", (6, 8, *kernel), (-2.0, 2.0), None, 2.0, **options)
    part = assert_same_steps(to.graph("y.read"), "y.read", float(to.constants["y.scale"]))
    assert operations(part)[-2:] == ["conv2d_int8", "dequantize"] and not part.floats
    assert part.graph.nodes[-2]["steps"] is None


@compiled_only
def test_dense_convolutions_have_the_same_bits_on_every_backend(tmp_path):
    to = Small()
    to.layer("wide", "x", (20, 4, 3, 3), (-1.0, 2.0), pads=(1, 1, 1, 1))
    to.layer("first", "wide", (24, 20, 3, 3), (-2.0, 2.0), None, 2.0, pads=(1, 1, 1, 1))
    to.layer("second", "first", (8, 24, 3, 3), (-2.0, 2.0), "Relu", 2.0, strides=(2, 2), dilations=(2, 2))
    to.layer("y", "second", (6, 8, 2, 2), (-2.0, 2.0), None, 2.0)
    file = stored(to.graph("y.read"), tmp_path)
    run = {"x": numbers()}
    expected = npmobilenet.load(file, backend="reference").run(run)["y.read"]
    model = npmobilenet.load(file, backend="blocked")
    assert [node.operation for node in model.graph].count("conv2d_int8") == 4
    for threads in (1, 2):
        np.testing.assert_array_equal(model.run(run, threads=threads)["y.read"], expected)


def test_a_pair_of_roundings_for_every_reader():
    """As some tools write them: they are one."""
    to = Small()
    to.layer("wide", "x", (8, 4, 1, 1), (-1.0, 2.0))
    for number in (1, 2):
        to.node("QuantizeLinear", ["wide", *to.steps["wide"]], f"again{number}.bytes")
        to.node("DequantizeLinear", [f"again{number}.bytes", *to.steps["wide"]], f"again{number}.read")
        to.steps[f"again{number}"] = to.steps["wide"]
        to.layer(f"side{number}", f"again{number}", (8, 8, 1, 1), (-2.0, 2.0), None, 2.0)
    to.operator("Add", ["side1", "side2"], "y", (-3.0, 3.0))
    part = assert_same_steps(to.graph("y.read"), "y.read", float(to.constants["y.scale"]))
    assert operations(part)[-4:] == ["pointwise_conv2d_int8", "pointwise_conv2d_int8", "add_int8", "dequantize"]


def test_sums_end_with_a_relu():
    for symmetric in (False, True):
        to = Small(**({"activations": np.int8, "symmetric": True} if symmetric else {}))
        to.layer("one", "x", (8, 4, 1, 1), (-1.0, 2.0))
        to.layer("two", "one", (8, 8, 1, 1), (-2.0, 2.0), None, 2.0)
        to.node("Add", [to.read_once("one"), to.read_once("two")], "sum")
        to.node("Relu", ["sum"], "positive")
        to.rounded("positive", "y", 0.0, 3.0)
        part = assert_same_steps(to.graph("y.read"), "y.read", float(to.constants["y.scale"]))
        assert ("add_int8" in operations(part)) == (not symmetric)  # there the lowest byte is below 0


def test_numbers_that_only_move_stay_bytes():
    """Roundings around a pooling, a padding and a concatenation change nothing: what reads them reads bytes."""
    for operators in (False, True):
        to = Small(operators=operators)
        to.layer("wide", "x", (8, 4, 1, 1), (-1.0, 2.0))
        pool = {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}
        if operators:
            to.node("MaxPool", ["wide.bytes"], "pooled.bytes", **pool)
            to.node("Concat", ["pooled.bytes", "pooled.bytes"], "both.bytes", axis=1)
            to.steps["both"] = to.steps["wide"]
        else:
            to.node("MaxPool", [to.read_once("wide")], "pooled", **pool)
            to.node("QuantizeLinear", ["pooled", *to.steps["wide"]], "pooled.bytes")
            to.node("DequantizeLinear", ["pooled.bytes", *to.steps["wide"]], "pooled.read")
            to.node("Concat", ["pooled.read", "pooled.read"], "both.moved", axis=1)
            to.node("QuantizeLinear", ["both.moved", *to.steps["wide"]], "both.bytes")
            to.node("DequantizeLinear", ["both.bytes", *to.steps["wide"]], "both.read")
            to.steps["both"] = to.steps["wide"]
        to.layer("y", "both", (6, 16, 1, 1), (-2.0, 2.0), None, 2.0)
        to.node("DequantizeLinear", ["y.bytes", *to.steps["y"]], "out")
        graph = to.graph("out")
        expected = values_of(normalised(graph), x=numbers())["out"]
        part = part_of(graph)
        assert operations(part).count("pointwise_conv2d_int8") == 2 and operations(part).count("quantize") == 2
        model = Model(part.graph, part.weights, architecture="small", dtype="int8", backend="reference")
        off = np.rint((model.outputs(numbers(), ["out"])["out"] - expected) / float(to.constants["y.scale"]))
        assert np.abs(off).max() <= 1 and np.mean(off != 0) < 0.02


def test_bytes_that_are_no_numbers_stay_bytes(tmp_path):
    """What is read as integers, or is an output, is what NumPy makes of it; the rest around it is in 8 bits."""
    to = Small()
    to.layer("wide", "x", (8, 4, 1, 1), (-1.0, 2.0))
    to.layer("y", "wide", (6, 8, 1, 1), (-2.0, 2.0), None, 2.0)
    graph = to.graph("y.bytes", dtype="uint8")
    model = npmobilenet.load(stored(graph, tmp_path), backend="reference")
    found, expected = model.run({"x": numbers()})["y.bytes"], values_of(graph, x=numbers())["y.bytes"]
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - expected).max() <= 1
    parts = model.parts((9, 9)).steps
    assert "pointwise_conv2d_int8" in operations(parts[0]) and parts[1].operator == "QuantizeLinear"
    assert model.dtype == "int8" and npmobilenet.load(stored(graph, tmp_path), dtype="int8").dtype == "int8"


def test_a_transposed_matrix_is_one_of_integers():
    to = Small()
    to.layer("same", "x", (4, 4, 1, 1), (-1.0, 1.0))
    to.operator("GlobalAveragePool", ["same"], "mean", (-0.5, 0.5))
    to.node("Flatten", [to.read_once("mean")], "flat")
    weight = to.weight("w", (5, 4), 4.0)
    to.node("DequantizeLinear", weight, "w.read", axis=0)
    to.node("Transpose", ["w.read"], "w.turned", perm=(1, 0))
    to.node("MatMul", ["flat", "w.turned"], "product")
    to.rounded("product", "y", -0.3, 0.3)
    part = assert_same_steps(to.graph("y.read", 2), "y.read", float(to.constants["y.scale"]), 0.2)
    assert "pointwise_conv2d_int8" in operations(part) and not part.floats


# What cannot be ----------------------------------------------------------------------------------------------


def rounding_of(dtype, code=None, block=0):
    """A graph that rounds an image in a way of its own."""
    nodes = [Node("round", "QuantizeLinear", ("x", "scale"), ("bytes",), {"output_dtype": CODES[code or dtype]})]
    read = {"block_size": block, "axis": 1} if block else {}
    nodes.append(Node("read", "DequantizeLinear", ("bytes", "scale"), ("y",), read))
    if block:
        nodes[0] = replace(nodes[0], attributes={**nodes[0].attributes, **read})
    scale = np.full((2, 2, 9, 9) if block else (), 0.1, np.float32)
    ports = Port("x", "float32", (2, 4, 9, 9)), Port("y", "float32", (2, 4, 9, 9))
    return OnnxGraph("", 23, tuple(nodes), {"scale": scale}, ports[:1], ports[1:])


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint4", "int4", "float8e4m3fn"])
def test_other_roundings_are_computed_but_are_none_of_8_bits(dtype, tmp_path):
    file = stored(rounding_of(dtype), tmp_path)
    model = npmobilenet.load(file)
    assert model.dtype == "float32" and model.run({"x": numbers()})["y"].shape == (2, 4, 9, 9)
    with pytest.raises(
        ValueError, match=rf"\(QuantizeLinear\): is of {dtype}, and 8-bit kernels are of uint8"
    ) as error:
        npmobilenet.load(file, dtype="int8")
    assert "\n" not in str(error.value) and str(error.value).startswith(str(file))


def test_scales_of_blocks_are_none_of_channels(tmp_path):
    file = stored(rounding_of("uint16", block=2), tmp_path)
    with pytest.raises(ValueError, match="has scales for blocks, and 8-bit kernels have them for channels"):
        npmobilenet.load(file, dtype="int8")


def test_a_network_of_8_bits_is_no_other(tmp_path):
    file = stored(network("qdq_u8"), tmp_path)
    for options, says in (
        ({"dtype": "float32"}, "is a network of 8 bits, which cannot be loaded as 'float32'"),
        ({"backend": "cuda"}, "the backend 'cuda' has no 8-bit kernels"),
    ):
        with pytest.raises(ValueError, match=says):
            npmobilenet.load(file, **options)
    assert npmobilenet.load(file, dtype="int8", backend="plain").dtype == "int8"
    with pytest.raises(CheckpointError, match="is of 8 bits: export the one of float32"):
        npmobilenet.export_onnx(npmobilenet.load(file, backend="plain"), tmp_path / "again.onnx")


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes", "says"),
    [
        ("FusedConv", "x", {}, r"\(com.microsoft.FusedConv\): this operator is not supported"),
        ("QLinearAdd", "x s z x s", {}, r"\(com.microsoft.QLinearAdd\): has 5 inputs, needs 7"),
        ("QLinearGlobalAveragePool", "x s z s z", {"channels_last": 1}, "attribute 'channels_last' must be 0"),
        ("QLinearConcat", "s z x s z x", {}, "has 6 inputs, needs two, and three for each tensor"),
        ("QLinearSoftmax", "x s z s z", {"opset": 9}, "attribute 'opset' must be that of the file, 17"),
        ("QLinearSigmoid", "x s z s z", {"alpha": 2.0}, "attribute 'alpha' is not known"),
    ],
)
def test_onnxruntime_s_operators_are_checked(operator, inputs, attributes, says, tmp_path):
    constants = {"s": np.float32(0.1), "z": np.uint8(3)}
    node = Node("it", f"{MICROSOFT}.{operator}", tuple(inputs.split()), ("y",), attributes)
    ports = Port("x", "uint8", (1, 2, 3, 3)), Port("y", "uint8", None)
    file = stored(OnnxGraph("", 17, (node,), constants, ports[:1], ports[1:]), tmp_path)
    with pytest.raises(CheckpointError, match=says) as error:
        npmobilenet.load(file)
    assert "\n" not in str(error.value)


def test_onnxruntime_s_operators():
    """Each of them is its operator between roundings, in the order of inputs that onnxruntime has."""
    random = np.random.default_rng(0)
    a, b = (random.integers(0, 256, (2, 4, 3, 3)).astype(np.uint8) for _ in range(2))
    real = {"a": (a.astype(np.float32) - 120) * np.float32(0.02), "b": (b.astype(np.float32) - 7) * np.float32(0.01)}
    constants = {
        "as": np.float32(0.02), "az": np.uint8(120), "bs": np.float32(0.01), "bz": np.uint8(7), "ys": np.float32(0.03),
        "yz": np.uint8(100), "c": np.array([True, False]).reshape(2, 1, 1, 1),
    }  # fmt: skip
    half = np.float32(0.5)
    cases = {
        "QLinearAdd": ("a as az b bs bz ys yz", {}, real["a"] + real["b"]),
        "QLinearMul": ("a as az b bs bz ys yz", {}, real["a"] * real["b"]),
        "QLinearSigmoid": ("a as az ys yz", {}, 1 / (1 + np.exp(-real["a"]))),
        "QLinearLeakyRelu": ("a as az ys yz", {"alpha": 0.5}, np.where(real["a"] < 0, half * real["a"], real["a"])),
        "QLinearGlobalAveragePool": (
            "a as az ys yz", {"channels_last": 0}, real["a"].mean(axis=(2, 3), keepdims=True)
        ),
        "QLinearReduceMean": ("a as az ys yz", {"axes": (1,), "keepdims": 1}, real["a"].mean(axis=1, keepdims=True)),
        "QLinearConcat": ("ys yz a as az b bs bz", {"axis": 1}, np.concatenate([real["a"], real["b"]], axis=1)),
        "QLinearWhere": ("c a as az b bs bz ys yz", {}, np.where(constants["c"], real["a"], real["b"])),
        "DequantizeLinear": ("a as az", {}, real["a"]),
    }  # fmt: skip
    for opset in (17, 18):
        for operator, (inputs, attributes, expected) in cases.items():
            node = Node("it", f"{MICROSOFT}.{operator}", tuple(inputs.split()), ("y",), attributes)
            ports = [Port(name, "uint8", a.shape) for name in "ab"], [Port("y", "uint8", None)]
            graph = OnnxGraph("", opset, (node,), constants, *map(tuple, ports))
            graph = parsed(graph)  # the domain is read again
            assert graph.nodes == (node,)
            found = values_of(normalised(graph), a=a, b=b)["y"]
            if operator == "DequantizeLinear":
                np.testing.assert_allclose(found, expected, rtol=1e-6)
                continue
            assert found.dtype == np.uint8
            np.testing.assert_allclose(found, np.clip(np.rint(expected / 0.03) + 100, 0, 255), atol=1.001)


# Written -----------------------------------------------------------------------------------------------------


def seeded(name, width, **options):
    graph = get_architecture(name).graph(width, 10)
    preprocessing = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3, resize=(40, 40), crop=(40, 40), crop_fraction=None)
    return Model(graph, random_weights(graph), architecture=name, preprocessing=preprocessing, **options)


@compiled_only
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small"])
def test_what_is_exported_is_what_is_read(name, tmp_path):
    """The file's network has the bits of the one that was rounded, but for the bias, which it has as an integer."""
    model = seeded(name, 0.35)
    file = npmobilenet.export_onnx(model, tmp_path / "int8.onnx", dtype="int8")
    low = lowered(*with_roundings(model.graph, model.stored()[0], model.preprocessing)[0])
    read = npmobilenet.load(file)
    x = np.random.default_rng(0).uniform(-2, 2, (3, 3, 40, 40)).astype(np.float32)
    assert read.dtype == "int8" and read.preprocessing == model.preprocessing
    assert [node.operation for node in read.graph] == [node.operation for node in low.graph]
    of_file = read.stored()[0]
    for one, two in zip(read.graph, low.graph, strict=True):
        for key in one.parameters:
            array, expected = of_file[f"{one.name}.{key}"], low.weights[f"{two.name}.{key}"]
            if key == "bias":  # in the file half a step of the sums is lost
                step = of_file[f"{one.name}.scale"] if "int8" in one.operation else 0
                assert np.all(np.abs(array - expected) <= 0.51 * np.abs(step) + 1e-5 * np.abs(expected).max())
            elif array.dtype.kind == "f":
                np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-9)
            else:
                np.testing.assert_array_equal(array, expected)
    assert agreement_of(name, model(x), read(x)).decibels > 14


@compiled_only
def test_shipped_weights_lose_little(tmp_path):
    """Without a photograph, in one scale for each tensor: the marks are 20 dB, measured here on a smaller image."""
    model = npmobilenet.load("mobilenet_v2")
    file = npmobilenet.export_onnx(model, tmp_path / "int8.onnx", dtype="int8")
    read = npmobilenet.load(file)
    photographs = sorted((Path(__file__).parent / "data" / "images").glob("*.png"))[:3]
    x = np.stack([model.preprocess(path) for path in photographs])
    assert agreement_of("", model(x), read(x)).decibels > 19
    assert file.stat().st_size < 4.1e6 and read.classes == model.classes


def test_units_change_nothing_but_the_roundings():
    """In the graph with roundings, weights and biases in units of their own compute what the network did."""
    model = seeded("mobilenet_v2", 0.35, backend="reference")
    weights, graph = model.stored()[0], apart(model.graph)
    made, _ = with_roundings(model.graph, weights, replace(model.preprocessing, crop=(17, 17), resize=(17, 17)))
    (first,) = [node for node in made.graph if node.name == graph.nodes[0].name]
    scales = made.weights[f"{first.name}.rounded.out_scale"]
    assert np.all(scales == scales[0]) and first.attributes.get("activation", "none") == "none"
    integers, scale = made.integers[first.name]
    real = made.weights[f"{first.name}.weight"]
    np.testing.assert_allclose(integers * scale.reshape(-1, 1, 1, 1), real, rtol=1e-6)
    assert np.abs(integers).max() == 127 and integers.dtype == np.int8
    rounded_sums = np.abs((integers * scale.reshape(-1, 1, 1, 1) - real).sum(axis=(2, 3)))
    assert rounded_sums.max() < 1e-3


@pytest.mark.filterwarnings("default::npmobilenet.AssumptionWarning")
def test_what_ranges_are_from_is_said(tmp_path):
    model = seeded("mobilenet_v1", 0.25, backend="reference")
    small = replace(model.preprocessing, crop=(33, 33), resize=(33, 33))
    model = Model(model.graph, model.stored()[0], architecture="v1", preprocessing=small, backend="reference")
    with pytest.warns(AssumptionWarning, match="found in images made up; npmobilenet.export_onnx"):
        npmobilenet.export_onnx(model, tmp_path / "made_up.onnx", dtype="int8")
    photograph = np.random.default_rng(0).integers(0, 256, (33, 33, 3)).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AssumptionWarning)
        npmobilenet.export_onnx(model, tmp_path / "found.onnx", dtype="int8", images=[photograph])
    for options, says in (
        ({"dtype": "int4"}, "dtype must be float32 or int8, got 'int4'"),
        ({"images": [photograph]}, "images are for dtype='int8'"),
        ({"dtype": "int8", "images": []}, "images must be a list of at least one photograph"),
    ):
        with pytest.raises(ValueError, match=says):
            npmobilenet.export_onnx(model, tmp_path / "none.onnx", **options)
    assert not (tmp_path / "none.onnx").exists()


def test_the_command(tmp_path, capsys):
    file = tmp_path / "v1.onnx"
    arguments = ["export", "mobilenet_v1", "--width", "0.25", "--num-classes", "5", "--onnx", str(file)]
    assert main([*arguments, "--dtype", "int8"]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    assert npmobilenet.load(file, backend="reference").dtype == "int8"


@compiled_only
def test_others_take_it(tmp_path):
    """The package onnx checks it, onnxruntime computes it."""
    onnx, onnxruntime = (pytest.importorskip(name) for name in ("onnx", "onnxruntime"))
    for name in ("mobilenet_v2", "mobilenet_v3_small", "mixnet_s"):
        model = seeded(name, 0.35)
        file = npmobilenet.export_onnx(model, tmp_path / f"{name}.onnx", dtype="int8")
        onnx.checker.check_model(str(file), full_check=True)
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        x = np.random.default_rng(0).uniform(-2, 2, (2, 3, 40, 40)).astype(np.float32)
        (found,) = session.run(None, {"input": x})
        assert agreement_of(name, model(x), found).decibels > 12
