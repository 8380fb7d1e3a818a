"""ONNX files: read, run as they are, written. Models are made by this package's own writer; ``onnx`` is not needed."""

import json
import pickle
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import npmobilenet
from npmobilenet import AssumptionWarning, Preprocessing
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.checkpoints import read_checkpoint
from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.checkpoints.protobuf import encoded, integers, packed
from npmobilenet.cli import main
from npmobilenet.errors import CheckpointError
from npmobilenet.model import Model
from npmobilenet.onnx.file import Node, OnnxGraph, Port, parse_model
from npmobilenet.onnx.narrow import NARROW
from npmobilenet.onnx.operator import OPERATORS
from npmobilenet.onnx.parts import Part, Session, check, divided, whole
from npmobilenet.onnx.tensors import CODES, Beside, read_tensor
from npmobilenet.onnx.writing import export_onnx, onnx_graph, serialised
from npmobilenet.onnx_model import OnnxModel
from npmobilenet.passes import fuse
from tests.conftest import compiled_only

IMAGE = ("batch", 3, "height", "width")


def graph_of(nodes, inputs, outputs, constants=(), opset=17, metadata=None):
    """A graph: nodes as (operator, inputs, outputs, attributes), ports as (name, dtype, shape); - is no input."""
    made = [
        Node(
            f"node{number}",
            operator,
            tuple(reads.replace("-", "").split(" ")) if reads else (),
            tuple(makes.split()),
            attributes,
        )
        for number, (operator, reads, makes, attributes) in enumerate(nodes)
    ]
    named = {name: np.asarray(array) for name, array in dict(constants).items()}
    ports = [[Port(*port) for port in side] for side in (inputs, outputs)]
    return OnnxGraph("made for a test", opset, tuple(made), named, tuple(ports[0]), tuple(ports[1]), metadata or {})


def parsed(data, folder="."):
    return parse_model(data, Beside(Path(folder), Allowance(len(data))))


def run(graph, backend="reference", **inputs):
    """What a graph computes, read from its bytes."""
    graph = parsed(serialised(graph))
    check(graph)
    return Session(graph, backend).run(inputs)


def one(operator, *inputs, opset=17, results=1, **attributes):
    """What one operator computes; arrays that are no inputs of the file are constants."""
    names = [f"x{number}" if array is not None else "" for number, array in enumerate(inputs)]
    arrays = {name: np.asarray(array) for name, array in zip(names, inputs, strict=True) if name}
    ports = [(name, array.dtype.name, array.shape) for name, array in list(arrays.items())[:1]]
    constants = dict(list(arrays.items())[1:])
    outputs = [f"y{number}" for number in range(results)]
    types = {"y0": arrays["x0"].dtype.name if arrays else "float32"}
    node = Node("only", operator, tuple(names), tuple(outputs), attributes)
    graph = OnnxGraph("", opset, (node,), constants, tuple(Port(*port) for port in ports), ())
    check(graph)
    found = OPERATORS[operator].compute(node, [arrays.get(name) for name in names], opset)
    assert types
    return found[0] if results == 1 else found


# Files -------------------------------------------------------------------------------------------------------


def test_a_graph_comes_back_from_its_bytes():
    graph = graph_of(
        [
            ("Clip", "x low high", "clipped", {}),
            ("Gemm", "clipped w", "y", {"alpha": 0.1, "transB": 1}),
            ("Resize", "x - scales", "unused", {"mode": "linear"}),
            ("Transpose", "y", "z", {"perm": (1, 0)}),
            ("Constant", "", "c", {"value": np.float32([[1, 2]])}),
            ("Constant", "", "d", {"value_floats": (1.5, -2.0)}),
        ],
        [("x", "float32", ("n", 4))],
        [("z", "float32", None), ("y", "float32", (None, 2))],
        {"low": np.float32(0), "high": np.float32(6), "w": np.ones((2, 4), np.float32), "scales": np.float32([1, 1])},
        metadata={"author": "a test"},
    )
    found = parsed(serialised(graph))
    assert found.nodes[:4] == graph.nodes[:4] and found.inputs == graph.inputs and found.outputs == graph.outputs
    assert (found.opset, found.name, found.metadata) == (17, "made for a test", {"author": "a test"})
    assert np.array_equal(found.nodes[4].attributes["value"], [[1, 2]])
    assert found.nodes[5].attributes == {"value_floats": (1.5, -2.0)}
    for name, array in graph.constants.items():
        assert found.constants[name].dtype == array.dtype and np.array_equal(found.constants[name], array)
        assert not found.constants[name].flags.writeable


@pytest.mark.parametrize("dtype", [name for name in CODES if name not in ("bfloat16", *NARROW)])
def test_tensors_of_every_type_in_bytes_and_in_fields(dtype):
    values = np.array([[0, 1, 3], [5, 7, 100]]).astype(dtype)
    about = packed(1, values.shape) + encoded(2, CODES[dtype]) + encoded(8, "t")
    wanted = values.astype(np.float32) if dtype == "float16" else values
    if dtype == "float16":
        fields = packed(5, values.view(np.uint16).ravel().tolist())
    elif dtype.startswith("float"):
        fields = encoded(4 if dtype == "float32" else 10, values.astype(values.dtype.newbyteorder("<")).tobytes())
    else:
        number = {"int64": 7, "uint64": 11, "uint32": 11}.get(dtype, 5)
        numbers = values.ravel().astype(int).tolist()
        fields = packed(number, numbers[:2]) + b"".join(encoded(number, each) for each in numbers[2:])
    for content in (encoded(9, values.tobytes()), fields):
        name, kind, array = read_tensor(memoryview(about + content), Beside(Path(), Allowance(1000)))
        assert (name, kind) == ("t", dtype) and array.dtype == wanted.dtype and np.array_equal(array, wanted)


def test_bfloat16_and_negative_integers():
    about = packed(1, [2]) + encoded(2, CODES["bfloat16"])
    stored = np.uint16([0x3F80, 0xC040])
    for content in (encoded(9, stored.tobytes()), packed(5, stored.tolist())):
        assert read_tensor(memoryview(about + content), Beside(Path(), Allowance(9)), "it")[2].tolist() == [1, -3]
    assert integers([memoryview(packed(1, [-1, 300, -(2**63), 0])[2:])]).tolist() == [-1, 300, -(2**63), 0]


def tensor_beside(location, length=8, offset=0):
    entries = {"location": location, "offset": str(offset), "length": str(length)}
    about = packed(1, [2]) + encoded(2, CODES["float32"]) + encoded(8, "t") + encoded(14, 1)
    return about + b"".join(encoded(13, encoded(1, key) + encoded(2, value)) for key, value in entries.items())


def test_tensors_in_a_file_beside(tmp_path):
    inside = tmp_path / "model"
    (inside / "data").mkdir(parents=True)
    (inside / "data" / "w.bin").write_bytes(np.float32([9, 1, 2]).tobytes())
    (tmp_path / "secret").write_bytes(bytes(8))
    (inside / "link").symlink_to(tmp_path / "secret")
    read = lambda *about: read_tensor(memoryview(tensor_beside(*about)), Beside(inside, Allowance(100)))[2]  # noqa: E731
    assert read("data/w.bin", 8, 4).tolist() == [1, 2]
    for location, problem in {
        "../secret": "leads out of its folder",
        "data/../../secret": "leads out of its folder",
        "link": "leads out of its folder",
        str(tmp_path / "secret"): "no name of a file in its folder",
        "C:\\secret": "no name of a file in its folder",
        "..\\secret": "leads out of its folder",
        "": "no name of a file in its folder",
        "a\0b": "no name of a file in its folder",
        "data": "not a regular file",
        "nowhere": "cannot be read",
    }.items():
        with pytest.raises(CheckpointError, match=problem):
            read(location)
    with pytest.raises(CheckpointError, match=r"should be bytes 8 to 16 of 'data/w.bin', which has 12"):
        read("data/w.bin", 8, 8)
    with pytest.raises(CheckpointError, match="should have 8 bytes but has 4"):
        read("data/w.bin", 4)
    with pytest.raises(CheckpointError, match="which is no number"):
        read("data/w.bin", "-4")


def test_a_kind_of_file_by_its_beginning(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(serialised(graph_of([("Relu", "x", "y", {})], [("x", "float32", (1,))], [("y", "float32", None)])))
    with pytest.raises(CheckpointError, match=r"model.bin: is an ONNX model, .*npmobilenet.load"):
        read_checkpoint(path)
    assert npmobilenet.load(path).run({"x": np.float32([-1])})["y"].tolist() == [0]


RELU = [("Relu", "x", "y", {})]
X, Y = [("x", "float32", (2,))], [("y", "float32", None)]


@pytest.mark.parametrize(
    ("graph", "problem"),
    [
        (graph_of([("Wavelet", "x", "y", {})], X, Y), r"node 'node0' \(Wavelet\): this operator is not supported"),
        (graph_of([("Loop", "x x x", "y", {})], X, Y), r"node 'node0' \(Loop\): this operator is not supported"),
        (graph_of([("Relu", "x", "y", {"slope": 1.0})], X, Y), r"\(Relu\): attribute 'slope' is not known"),
        (graph_of([("Elu", "x", "y", {"alpha": "1"})], X, Y), r"\(Elu\): attribute 'alpha' must be a number, got '1'"),
        (graph_of([("Relu", "x x", "y", {})], X, Y), r"\(Relu\): has 2 inputs, and 1 are known"),
        (graph_of([("Add", "x", "y", {})], X, Y), r"\(Add\): has 1 inputs, needs 2"),
        (graph_of([("MaxPool", "x", "y", {})], X, Y), r"\(MaxPool\): must have the attribute 'kernel_shape', integers"),
        (graph_of([("Gelu", "x", "y", {"approximate": "erf"})], X, Y), "'approximate' must be 'none' or 'tanh'"),
        (graph_of([("Relu", "z", "y", {})], X, Y), "reads 'z', which nothing before it makes"),
        (graph_of([("Relu", "x", "x", {})], X, Y), "makes 'x', which is there already"),
        (graph_of(RELU, X, [("z", "float32", None)]), "the output 'z', which nothing makes"),
        (graph_of(RELU, X, []), "has no outputs"),
        (graph_of(RELU, X, Y, opset=5), "operators of version 5, and 6 is the oldest known"),
    ],
)
def test_what_is_not_supported_is_refused_before_anything_runs(tmp_path, graph, problem):
    path = tmp_path / "model.onnx"
    path.write_bytes(serialised(graph))
    with pytest.raises(CheckpointError, match=rf"^{path}: .*{problem}"):
        npmobilenet.load(path)


def test_parts_of_files_that_are_not_supported():
    body = encoded(1, encoded(1, "x") + encoded(2, "y") + encoded(4, "Relu"))
    opset = encoded(8, encoded(2, 17))
    for data, problem in {
        encoded(1, 8) + encoded(7, body + encoded(15, b"")) + opset: "has sparse tensors",
        encoded(1, 8) + encoded(7, body) + opset + encoded(25, encoded(1, "f")): "has functions of its own .'f'.",
        encoded(1, 8) + encoded(7, body): "of which version its operators are",
        encoded(1, 8) + opset: "has no graph",
        encoded(1, 8) + encoded(7, encoded(1, encoded(4, "F") + encoded(7, "com.x"))) + opset: "the domain 'com.x'",
        encoded(1, 8) + encoded(7, encoded(11, encoded(1, "x") + encoded(2, encoded(4, b"")))) + opset: "a sequence",
    }.items():
        with pytest.raises(CheckpointError, match=problem):
            parsed(data)
    graph = encoded(5, encoded(1, "body") + encoded(6, b"") + encoded(20, 5))
    data = encoded(1, 8) + encoded(7, encoded(11, encoded(1, "x")) + encoded(12, encoded(1, "y")) + encoded(
        1, encoded(1, "x") + encoded(2, "y") + encoded(4, "Relu") + graph)) + opset  # fmt: skip
    with pytest.raises(CheckpointError, match=r"\(Relu\): attribute 'body' is a graph, which is not supported"):
        check(parsed(data))


def test_damaged_files_are_one_line(tmp_path):
    """A few bytes of a file changed, cut out or repeated: read, or refused in one line."""
    random = np.random.default_rng(7)
    graph = onnx_graph(tiny := get_architecture("mobilenet_v3_small").graph(0.25, 4), random_weights(tiny), "tiny")
    small = {name: array for name, array in graph.constants.items()}
    whole_file = serialised(OnnxGraph("", 17, graph.nodes, small, graph.inputs, graph.outputs))
    start = whole_file.index(b"Conv")
    for _ in range(60):
        data = bytearray(whole_file)
        for _ in range(int(random.integers(1, 5))):
            at = int(random.integers(start + 6000))
            data[at : at + int(random.integers(3))] = random.bytes(int(random.integers(3)))
        try:
            found = parsed(bytes(data))
            check(found)
            divided(found, {port.name: (1, 3, 32, 32) for port in found.inputs})
        except CheckpointError as error:
            assert "\n" not in str(error)


@pytest.fixture
def saved(tmp_path):
    def save(graph, name="model.onnx"):
        path = tmp_path / name
        path.write_bytes(serialised(graph))
        return path

    return save


# Operators ---------------------------------------------------------------------------------------------------

RAMP = np.arange(-4, 4, dtype=np.float32).reshape(1, 2, 2, 2)


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes", "expected"),
    [
        ("HardSigmoid", [np.float32([-9, 0, 1])], {"alpha": 0.25}, [0, 0.5, 0.75]),
        ("Selu", [np.float32([1.0])], {}, [1.0507009]),
        ("Softsign", [np.float32([-1, 3])], {}, [-0.5, 0.75]),
        ("Softplus", [np.float32([0, 1000])], {}, [np.log(2), 1000]),
        ("Mish", [np.float32([0])], {}, [0]),
        ("Swish", [np.float32([0, 100])], {"alpha": 2.0}, [0, 100]),
        ("Div", [np.int64([-7, 7]), np.int64([2, -2])], {}, [-3, -3]),
        ("Pow", [np.float32([2, 3]), np.int64([3, 2])], {}, [8, 9]),
        ("Clip", [np.float32([-1, 9]), None, np.float32(6)], {}, [-1, 6]),
        ("Mean", [np.float32([1, 2]), np.float32([3, 4])], {}, [2, 3]),
        ("PRelu", [RAMP, np.float32([[[0.5]], [[2]]])], {}, np.where(RAMP < 0, RAMP * [[[0.5]], [[2]]], RAMP)),
        ("LRN", [np.float32([[[3]], [[4]]]).transpose(1, 0, 2)], {"size": 1, "alpha": 1.0, "beta": 1.0, "bias": 0.0},
         [[[1 / 3], [1 / 4]]]),
        ("InstanceNormalization", [RAMP, np.ones(2, np.float32), np.float32([0, 1])], {"epsilon": 0.0},
         (RAMP - RAMP.mean((2, 3), keepdims=True)) / RAMP.std((2, 3), keepdims=True) + [[[[0]], [[1]]]]),
        ("GlobalMaxPool", [RAMP], {}, [[[[-1]], [[3]]]]),
        ("AveragePool", [RAMP], {"kernel_shape": (2, 2), "pads": (1, 1, 0, 0)},
         [[[[-4, -3.5], [-3, -2.5]], [[0, 0.5], [1, 1.5]]]]),
        ("AveragePool", [RAMP], {"kernel_shape": (2, 2), "pads": (1, 1, 0, 0), "count_include_pad": 1},
         [[[[-1, -1.75], [-1.5, -2.5]], [[0, 0.25], [0.5, 1.5]]]]),
        ("MaxPool", [np.float32([[[1, 2, 3, 4, 5]]])], {"kernel_shape": (2,), "strides": (2,), "ceil_mode": 1},
         [[[2, 4, 5]]]),
        ("Conv", [np.float32([[[1, 2, 3]]]), np.float32([[[1, 10]]])], {"dilations": (2,), "pads": (1, 0)},
         [[[20, 31]]]),
        ("Conv", [np.float32([[[1, 2, 3]]]), np.float32([[[1, 10]]])], {"auto_pad": "SAME_LOWER"}, [[[10, 21, 32]]]),
        ("ConvTranspose", [np.float32([[[1, 2]]]), np.float32([[[1, 10]]])], {"strides": (2,)}, [[[1, 10, 2, 20]]]),
        ("ConvTranspose", [np.float32([[[1, 2]]]), np.float32([[[1, 10]]])], {"output_shape": (2,)}, [[[12, 20]]]),
        ("Gemm", [np.float32([[1, 2]]), np.float32([[3, 4]]), np.float32(1)], {"transB": 1, "alpha": 2.0, "beta": 0.5},
         [[22.5]]),
        ("Slice", [np.arange(5), np.int64([-1]), np.int64([-9]), np.int64([0]), np.int64([-2])], {}, [4, 2, 0]),
        ("Gather", [np.float32([1, 2, 3]), np.int64([[-1, 0]])], {}, [[3, 1]]),
        ("Pad", [np.float32([1, 2, 3]), np.int64([2, -1])], {"mode": "reflect"}, [1, 2, 1, 2]),
        ("Pad", [np.float32([1, 2]), np.int64([1, 0]), np.float32(7)], {}, [7, 1, 2]),
        ("DepthToSpace", [np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)], {"blocksize": 2}, [[[[0, 1], [2, 3]]]]),
        ("SpaceToDepth", [np.float32([[[[0, 1], [2, 3]]]])], {"blocksize": 2}, np.arange(4.0).reshape(1, 4, 1, 1)),
        ("Reshape", [np.arange(6), np.int64([0, -1])], {}, np.arange(6).reshape(6, 1)),
        ("Expand", [np.float32([[1], [2]]), np.int64([2])], {}, [[1, 1], [2, 2]]),
        ("Tile", [np.float32([1, 2]), np.int64([2])], {}, [1, 2, 1, 2]),
        ("ConstantOfShape", [np.int64([2])], {"value": np.int64([7])}, [7, 7]),
        ("ReduceL2", [np.float32([[3, 4]])], {"axes": (1,), "keepdims": 0}, [5]),
        ("ReduceMax", [np.float32([[3, 4]])], {"axes": (0,)}, [[3, 4]]),
        ("ArgMax", [np.float32([[3, 4, 4]])], {"axis": 1, "select_last_index": 1, "keepdims": 0}, [2]),
        ("Softmax", [np.float32([[1000, 1000]])], {}, [[0.5, 0.5]]),
        ("LogSoftmax", [np.float32([[0, 0]])], {}, [[-np.log(2)] * 2]),
        ("QuantizeLinear", [np.float32([-1, 1, 3, 900]), np.float32(2), np.uint8(1)], {}, [1, 1, 3, 255]),
        ("DequantizeLinear", [np.int8([[-1], [1]]), np.float32([2, 3]), np.int8([0, 1])], {"axis": 0}, [[-2], [0]]),
        ("Cast", [np.float32([1.00048828125, 2.5])], {"to": 10}, [1.0, 2.5]),
        ("Resize", [np.float32([[[[1, 2]]]]), None, np.float32([1, 1, 1, 2])], {"mode": "linear"},
         [[[[1, 1.25, 1.75, 2]]]]),
        ("Resize", [np.float32([[[[1, 2]]]]), None, None, np.int64([1, 1, 1, 3])],
         {"mode": "linear", "coordinate_transformation_mode": "align_corners"}, [[[[1, 1.5, 2]]]]),
        ("Upsample", [np.float32([[[[1, 2]]]]), np.float32([1, 1, 1, 2])], {}, [[[[1, 1, 2, 2]]]]),
    ],
)  # fmt: skip
def test_operators(operator, inputs, attributes, expected):
    found = one(operator, *inputs, opset=9 if operator == "Upsample" else 14, **attributes)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_operators_with_several_outputs():
    values, places = one("TopK", np.float32([1, 3, 3, 2]), np.int64([3]), results=2)
    assert values.tolist() == [3, 3, 2] and places.tolist() == [1, 2, 3]
    first, second = one("Split", np.arange(5), results=2, opset=18, num_outputs=2)
    assert first.tolist() == [0, 1, 2] and second.tolist() == [3, 4]
    largest, place = one("MaxPool", RAMP, results=2, kernel_shape=(2, 2))
    assert largest.ravel().tolist() == [-1, 3] and place.ravel().tolist() == [3, 7]


def test_boxes_without_those_that_overlap():
    boxes = np.float32([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [2, 2, 3, 3]]])
    scores = np.float32([[[0.8, 0.9, 0.7]]])
    kept = one("NonMaxSuppression", boxes, scores, np.int64([5]), np.float32([0.5]), np.float32([0.1]))
    assert kept.tolist() == [[0, 0, 1], [0, 0, 2]]


def test_integer_convolutions_are_exact():
    random = np.random.default_rng(0)
    x, w = random.integers(0, 256, (1, 2, 4, 4), np.uint8), random.integers(-128, 128, (3, 2, 3, 3), np.int8)
    sums = one("ConvInteger", x, w, np.uint8(7), pads=(1, 1, 1, 1))
    exact = one("Conv", x.astype(np.float64) - 7, w.astype(np.float64), pads=(1, 1, 1, 1))
    assert sums.dtype == np.int32 and np.array_equal(sums, exact)
    scales = np.float32([0.01, 0.02, 0.03])
    given = (x, np.float32(0.5), np.uint8(7), w, scales, np.int8([0, 0, 0]), np.float32(8), np.uint8(100))
    found = one("QLinearConv", *given, pads=(1, 1, 1, 1))
    real = sums * (0.5 * scales.astype(np.float64) / 8).reshape(-1, 1, 1)
    assert np.array_equal(found, np.clip(np.rint(real) + 100, 0, 255))


def test_shapes_that_do_not_fit_name_the_node():
    graph = graph_of(
        [("Add", "x y", "z", {})], [("x", "float32", None), ("y", "float32", None)], [("z", "float32", None)]
    )
    with pytest.raises(CheckpointError, match=r"node 'node0' \(Add\): shape mismatch"):
        run(graph, x=np.zeros((2, 3), np.float32), y=np.zeros((2, 4), np.float32))


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([("ConstantOfShape", "huge", "y", {})], {"huge": np.int64([1 << 20, 1 << 20])}),
        ([("ConstantOfShape", "large", "c", {}), ("Relu", "c", "y", {})], {"large": np.int64([1 << 25])}),
        ([("Expand", "x huge", "y", {})], {"huge": np.int64([1 << 40, 2])}),
        ([("Tile", "x many", "y", {})], {"many": np.int64([1 << 40])}),
        ([("Pad", "x pads", "y", {})], {"pads": np.int64([1 << 40, 0])}),
        ([("Range", "zero many one", "y", {})], {"zero": np.int64(0), "many": np.int64(1 << 40), "one": np.int64(1)}),
        ([("MatMul", "column row", "y", {})], {"column": np.ones((5000, 1)), "row": np.ones((1, 5000))}),
        ([("Add", "column row", "y", {})], {"column": np.ones((5000, 1)), "row": np.ones((1, 5000))}),
        ([("Gather", "row many", "y", {"axis": 0})], {"row": np.ones((1, 5000)), "many": np.zeros(5000, np.int64)}),
        ([("Unsqueeze", "x a", "u", {}), ("AveragePool", "u", "y", {"kernel_shape": (9,), "pads": (1 << 40, 0)})],
         {"a": np.int64([0, 1])}),
        ([("Unsqueeze", "x a", "u", {}), ("Resize", "u - - s", "y", {})],
         {"a": np.int64([0, 1]), "s": np.int64([1, 1, 1 << 40])}),
    ],
)  # fmt: skip
def test_a_few_numbers_do_not_fill_the_memory(saved, nodes, constants):
    path = saved(graph_of(nodes, X, [("y", "float32", None)], constants))
    with pytest.raises(CheckpointError, match=r"asks for a tensor of shape|become more than this file may take"):
        npmobilenet.load(path).run({"x": np.float32([1, 2])})


# Graphs ------------------------------------------------------------------------------------------------------


def test_inputs_and_outputs_by_name_and_shapes_bound_in_a_call():
    graph = graph_of(
        [
            ("Shape", "a", "shape", {}),
            ("Gather", "shape one", "columns", {"axis": 0}),
            ("Concat", "minus columns", "wanted", {"axis": 0}),
            ("Reshape", "b wanted", "rows", {}),
            ("MatMul", "a rows", "product", {}),
            ("ArgMax", "product", "best", {"axis": 1, "keepdims": 0}),
        ],
        [("a", "float32", ("n", "k")), ("b", "float32", ("all",))],
        [("product", "float32", None), ("best", "int64", ("n",))],
        {"one": np.int64([1]), "minus": np.int64([-1])},
    )
    for n, k in ((2, 3), (4, 2)):
        a, b = np.arange(n * k, dtype=np.float32).reshape(n, k), np.arange(k * k, dtype=np.float32)
        found = run(graph, a=a, b=b)
        assert list(found) == ["product", "best"] and np.array_equal(found["product"], a @ b.reshape(k, k))
        assert found["best"].dtype == np.int64
    for inputs, problem in (
        ({"a": a}, r"no input 'b' was given; the network's inputs: 'a', float32 \(n, k\); 'b', float32 \(all\)"),
        ({"a": a, "b": b, "c": b}, "an input 'c' that it does not have was given"),
        ({"a": a[0], "b": b}, r"the input 'a', float32 \(n, k\) is needed, got float32 \(2,\)"),
        ({"a": a.astype(int), "b": b}, r"is needed, got int64 \(4, 2\)"),
        ({"a": a[None], "b": b}, r"is needed, got float32 \(1, 4, 2\)"),
    ):
        with pytest.raises(ValueError, match=problem):
            run(graph, **inputs)


def exported(name, width=0.25, classes=5, padding="symmetric"):
    """A small network and what is written of it."""
    graph = get_architecture(name).graph(width, classes, padding)
    weights = random_weights(graph)
    return graph, weights, onnx_graph(graph, weights, name)


def structure(graph):
    """What a fused graph computes, without names."""
    order = {name: number for number, name in enumerate(["input", *(node.name for node in graph)])}
    functions = ("activation", "function", "gate", "stride", "kernel", "kernels", "partition", "residual")
    return [
        (node.operation, [order[name] for name in node.inputs], [node.attributes.get(name) for name in functions])
        for node in graph
    ]


CLASSIFIERS = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mixnet_s", "mnasnet_b1", "efficientnet_b0")


@pytest.mark.parametrize("name", [*CLASSIFIERS, "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_networks_written_and_read_are_the_same_layers(name):
    graph, _, written = exported(name)
    found = whole(parsed(serialised(written)), (128, 128))
    one, two = fuse(graph), fuse(found.part.graph)
    assert structure(one) == structure(two) and list(found.part.graph.outputs) == list(graph.output_nodes)
    if name in CLASSIFIERS:
        assert two.main_output == "logits" and "pool" in two.blocks


@compiled_only
@pytest.mark.parametrize(
    ("name", "padding"),
    [("mobilenet_v2", "same"), ("mobilenet_v3_small", "symmetric"), ("mixnet_s", "same"), ("efficientnet_b0", "same")],
)
def test_networks_written_and_read_have_the_same_bits(tmp_path, name, padding):
    graph, weights, _ = exported(name, 0.35, padding=padding)
    first = Model(graph, weights, architecture=name, threads=1)
    export_onnx(first, tmp_path / "model.onnx")
    second = npmobilenet.load(tmp_path / "model.onnx", threads=1)
    x = np.random.default_rng(1).standard_normal((2, 3, 64, 96)).astype(np.float32)
    assert np.array_equal(first(x), second(x)) and not second.plain_layers
    assert np.array_equal(second.run({"input": x})["logits"], first(x))
    assert len(second._engine.plan((64, 96)).groups) == len(first._engine.plan((64, 96)).groups)
    assert np.array_equal(second.features(x), first.features(x))
    assert second.classes == first.classes and second.preprocessing == first.preprocessing


def block(nodes, constants, out="y", **more):
    """An image under a convolution to 4 channels, and what follows."""
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [("Conv", "image w", "x", {"pads": (1, 1, 1, 1)}), *nodes]
    image = [("image", "float32", IMAGE)]
    return graph_of(nodes, image, [(out, "float32", None)], {"w": weight, **constants}, **more)


HALF = {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6), "sixth": np.float32(1 / 6)}
SQUEEZE = {
    "r": np.float32(np.linspace(-1, 1, 8).reshape(2, 4, 1, 1)), "rb": np.float32([0.1, 0.2]),
    "e": np.float32(np.linspace(-1, 1, 8).reshape(4, 2, 1, 1)), "eb": np.float32([0.1, 0.2, 0.3, 0.4]),
    "rows": np.float32(np.linspace(-1, 1, 8).reshape(2, 4)), "shape": np.int64([0, -1, 1, 1]),
    "columns": np.float32(np.linspace(-1, 1, 8).reshape(4, 2)), "flat": np.int64([0, -1]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("nodes", "constants", "operations"),
    [
        ([("Clip", "x zero six", "y", {})], HALF, ["conv2d relu6"]),
        ([("Clip", "x", "y", {"min": 0.0, "max": 6.0})], {}, ["conv2d relu6"]),
        ([("Sigmoid", "x", "s", {}), ("Mul", "s x", "y", {})], {}, ["conv2d swish"]),
        ([("HardSigmoid", "x", "s", {"alpha": 1 / 6}), ("Mul", "x s", "y", {})], {}, ["conv2d hard_swish"]),
        ([("Add", "x three", "a", {}), ("Clip", "a zero six", "c", {}), ("Mul", "x c", "m", {}),
          ("Div", "m six", "y", {})], HALF, ["conv2d hard_swish"]),
        ([("Add", "three x", "a", {}), ("Clip", "a zero six", "c", {}), ("Mul", "c sixth", "m", {}),
          ("Mul", "x m", "y", {})], HALF, ["conv2d hard_swish"]),
        ([("Add", "x three", "a", {}), ("Clip", "a zero six", "c", {}), ("Div", "c six", "y", {})], HALF,
         ["conv2d hard_sigmoid"]),
        ([("Mul", "x six", "m", {}), ("Add", "m three", "y", {})], HALF, ["conv2d", "batch_norm"]),
        ([("Sub", "x three", "y", {})], HALF, ["conv2d"]),
        ([("Pad", "x pads", "p", {}), ("Conv", "p v", "y", {"group": 4, "strides": (2, 2)})],
         {"pads": np.int64([0, 0, 1, 1, 0, 0, 2, 0]), "v": np.ones((4, 1, 3, 3), np.float32)},
         ["conv2d", "depthwise_conv2d"]),
        ([("GlobalAveragePool", "x", "m", {}), ("Conv", "m r rb", "a", {}), ("Relu", "a", "b", {}),
          ("Conv", "b e eb", "c", {}), ("Sigmoid", "c", "g", {}), ("Mul", "g x", "y", {})], SQUEEZE,
         ["conv2d", "squeeze_excite"]),
        ([("ReduceMean", "x", "m", {"axes": (2, 3), "keepdims": 0}), ("Gemm", "m rows rb", "a", {"transB": 1}),
          ("Relu", "a", "b", {}), ("MatMul", "b rows", "c", {}), ("Add", "c eb", "d", {}), ("HardSigmoid", "d", "g",
          {"alpha": 1 / 6}), ("Reshape", "g shape", "s", {}), ("Mul", "x s", "y", {})], SQUEEZE,
         ["conv2d", "squeeze_excite"]),
        ([("GlobalAveragePool", "x", "m", {}), ("Reshape", "m flat", "f", {}), ("MatMul", "f columns", "p", {}),
          ("Add", "p rb", "y", {})], SQUEEZE, ["conv2d", "global_average_pool", "linear"]),
        ([("Dropout", "x", "d", {}), ("Identity", "d", "i", {}), ("Relu", "i", "y", {})], {}, ["conv2d relu"]),
        ([("Split", "x halves", "a b", {"axis": 1}), ("Conv", "a u", "c", {"group": 2, "pads": (1,) * 4}),
          ("Conv", "b v", "d", {"group": 2, "pads": (2,) * 4}), ("Concat", "c d", "y", {"axis": 1})],
         {"halves": np.int64([2, 2]), "u": np.ones((2, 1, 3, 3), np.float32), "v": np.ones((2, 1, 5, 5), np.float32)},
         ["conv2d", "mixed_depthwise_conv2d"]),
        ([("Split", "x halves", "a b", {"axis": 1}), ("Conv", "a u", "c", {"group": 2, "pads": (1,) * 4}),
          ("Conv", "b v", "d", {"group": 2, "pads": (2,) * 4}), ("Sigmoid", "c", "e", {}), ("Mul", "c e", "f", {}),
          ("Sigmoid", "d", "g", {}), ("Mul", "d g", "h", {}), ("Concat", "f h", "y", {"axis": 1})],
         {"halves": np.int64([2, 2]), "u": np.ones((2, 1, 3, 3), np.float32), "v": np.ones((2, 1, 5, 5), np.float32)},
         ["conv2d", "mixed_depthwise_conv2d"]),
        ([("Split", "x", "a b", {"axis": 1}), ("Conv", "a u", "c", {}), ("Conv", "b v", "d", {}),
          ("Concat", "c d", "y", {"axis": 1})],
         {"u": np.ones((3, 2, 1, 1), np.float32), "v": np.full((3, 2, 1, 1), 2, np.float32)},
         ["conv2d", "pointwise_conv2d"]),
        ([("Conv", "x v", "c", {}), ("Add", "x c", "y", {})], {"v": np.ones((4, 4, 1, 1), np.float32)},
         ["conv2d", "pointwise_conv2d"]),
        ([("MaxPool", "x", "y", {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1})], {},
         ["conv2d", "max_pool2d"]),
        ([("Resize", "x - - sizes", "y", {"mode": "linear"})], {"sizes": np.int64([1, 4, 20, 11])},
         ["conv2d", "resize2d"]),
    ],
)  # fmt: skip
def test_patterns_of_exporters_are_the_layers_that_they_were(nodes, constants, operations):
    graph = parsed(serialised(block(nodes, constants, opset=10 if nodes[0][3].get("max") else 13)))
    x = np.random.default_rng(2).standard_normal((1, 3, 8, 10)).astype(np.float32) * 4
    parts = divided(graph, {"image": x.shape})[1]
    assert len(parts) == 1 and isinstance(parts[0], Part), parts
    layers = [
        " ".join(filter(None, (node.operation, node.attributes.get("activation")))) if node.operation == "conv2d"
        else node.operation
        for node in fuse(parts[0].graph)
    ]  # fmt: skip
    assert layers == operations
    values = {"image": x, **graph.constants}
    for node in graph.nodes:  # as NumPy computes them
        found = OPERATORS[node.operator].compute(node, [values[n] if n else None for n in node.inputs], graph.opset)
        values |= dict(zip(node.outputs, found, strict=True))
    result = Session(graph, "reference").run({"image": x})["y"]
    assert result.shape == values["y"].shape
    np.testing.assert_allclose(result, values["y"], rtol=1e-4, atol=1e-4)


def test_the_tests_of_the_package_onnx():
    """Where it is installed: what PyTorch's operators become; `tests.onnx_suite` has all others."""
    pytest.importorskip("onnx")
    from tests.onnx_suite import folder_cases
    from tests.onnx_suite import run as run_case

    for case in folder_cases("pytorch-operator"):
        run_case(case, "reference")


@pytest.mark.parametrize(
    ("dtype", "values", "kept", "cut"),
    [
        ("float8e4m3fn", [0.3, -1000, 17, 1e-4], [0.3125, -448, 16, 0], [0.3125, np.nan, 16, 0]),
        ("float8e5m2", [0.3, -1e6, 17, 1.25], [0.3125, -57344, 16, 1.25], [0.3125, -np.inf, 16, 1.25]),
        ("float8e4m3fnuz", [0.3, -1000, -1e-9], [0.3125, -240, 0], [0.3125, np.nan, 0]),
        ("float4e2m1", [0.3, -1000, 2.5, 5], [0.5, -6, 2, 4], [0.5, -6, 2, 4]),
        ("int4", [-8.9, 3, 8], [-8, 3, -8], [-8, 3, -8]),
        ("uint2", [1.5, 3, 5], [1, 3, 1], [1, 3, 1]),
    ],
)
def test_types_that_numpy_does_not_have(dtype, values, kept, cut):
    for saturate, expected in ((1, kept), (0, cut)):
        found = one("Cast", np.float32(values), opset=21, to=CODES[dtype], saturate=saturate)
        np.testing.assert_array_equal(found, expected)
    codes = np.arange(1 << NARROW[dtype].bits, dtype=np.uint8)
    numbers = NARROW[dtype].decoded(codes)
    finite = np.isfinite(numbers)
    np.testing.assert_array_equal(NARROW[dtype].rounded(numbers[finite]), numbers[finite])
    bits = NARROW[dtype].bits
    stored = sum((codes[part :: 8 // bits].astype(int) << (bits * part)) for part in range(8 // bits)).astype(np.uint8)
    about = packed(1, codes.shape) + encoded(2, CODES[dtype]) + encoded(9, stored.tobytes())
    name, kind, array = read_tensor(memoryview(about), Beside(Path(), Allowance(999)), "it")
    assert kind == dtype and not name
    np.testing.assert_array_equal(array, numbers)


@compiled_only
def test_what_the_kernels_do_not_compute_is_numpys_between_them():
    nodes = [
        ("LRN", "x", "l", {"size": 3}),
        ("Conv", "l v", "c", {"pads": (1, 1, 1, 1)}),
        ("Add", "x c", "a", {}),
        ("Conv", "a v", "d", {"pads": (1, 1, 1, 1)}),
        ("Softplus", "d", "y", {}),
    ]
    constants = {"v": np.random.default_rng(1).standard_normal((4, 4, 3, 3)).astype(np.float32)}
    graph = parsed(serialised(block(nodes, constants)))
    x = np.random.default_rng(2).standard_normal((3, 3, 8, 10)).astype(np.float32)
    _, parts = divided(graph, {"image": x.shape})
    assert [part.operator if isinstance(part, Node) else "part" for part in parts] == [
        "part", "LRN", "part", "Add", "part", "Softplus",
    ]  # fmt: skip
    fast, exact = (Session(graph, backend).run({"image": x}, 2)["y"] for backend in ("auto", "reference"))
    np.testing.assert_allclose(fast, exact, rtol=1e-4, atol=1e-4)


def test_sizes_that_follow_from_shapes_make_one_graph_of_all_sizes():
    nodes = [
        ("Conv", "x v", "half", {"strides": (2, 2), "pads": (1, 1, 1, 1)}),
        ("Shape", "x", "shape", {}),
        ("Slice", "shape two four", "size", {}),
        ("Shape", "half", "other", {}),
        ("Slice", "other zero two", "first", {}),
        ("Concat", "first size", "sizes", {"axis": 0}),
        ("Resize", "half - - sizes", "y", {"mode": "linear"}),
    ]
    constants = {"v": np.ones((4, 4, 3, 3), np.float32), "zero": np.int64([0]), "two": np.int64([2]), "four": [4]}
    found = whole(parsed(serialised(block(nodes, constants))), (32, 32))
    assert found.size is None and found.part.graph.nodes[-1].inputs == ("node1", "node0")
    fixed = block([("Resize", "x - - sizes", "y", {"mode": "linear"})], {"sizes": np.int64([1, 4, 20, 11])})
    assert whole(parsed(serialised(fixed)), (32, 32)) is None  # of one image alone
    fixed = replace(fixed, inputs=(Port("image", "float32", (1, *IMAGE[1:])),))
    assert whole(parsed(serialised(fixed)), (32, 32)).part.graph.nodes[-1]["size"] == (20, 11)
    assert whole(parsed(serialised(block([("LRN", "x", "y", {"size": 3})], {}))), (32, 32)) is None


# Models ------------------------------------------------------------------------------------------------------


def classifier(ends=(), metadata=None, shape=IMAGE, odd=False):
    """A network with 5 classes; ``odd``: with a node that only NumPy computes."""
    head = [("GlobalAveragePool", "x", "m", {}), ("Flatten", "m", "f", {}), ("Gemm", "f k kb", "scores", {})]
    if odd:
        head.insert(0, ("Softplus", "node0", "x", {}))
    nodes = [*head, *ends]
    k = {"k": np.random.default_rng(3).standard_normal((4, 5)).astype(np.float32), "kb": np.zeros(5, np.float32)}
    out = nodes[-1][2]
    graph = block(nodes, k, out, metadata=metadata)
    first = [("Conv", "image w", "node0" if odd else "x", {"pads": (1, 1, 1, 1)})]
    return graph_of(
        [*first, *nodes],
        [("image", "float32", shape)],
        [(out, "float32", (shape[0], 5))],
        graph.constants,
        17,
        metadata,
    )


PHOTOGRAPH = np.random.default_rng(4).integers(0, 256, (40, 50, 3), np.uint8)
TOLD = Preprocessing(40, (32, 32), None, (0.1,) * 3, (0.2,) * 3)


@pytest.mark.parametrize("odd", [False, True])
def test_photographs_are_classified(saved, odd):
    path = saved(classifier(odd=odd))
    with pytest.warns(AssumptionWarning, match="preprocessing 224x224 of 256, .* assumed"):
        model = npmobilenet.load(path, backend="reference")
    assert isinstance(model, OnnxModel) == odd and len(model.classes) == 5
    logits = model(model.preprocess(PHOTOGRAPH)[None])
    best = model.classify(PHOTOGRAPH, top=1)[0]
    assert best.index == logits[0].argmax() and best.label == f"class {best.index}"
    assert np.array_equal(next(iter(model.run({"image": model.preprocess(PHOTOGRAPH)[None]}).values())), logits)
    with pytest.raises(ValueError, match="'image'"):
        model.run({"input": logits})


def test_a_model_in_parts_is_a_model(saved, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = npmobilenet.load(saved(classifier(odd=True, shape=(1, 3, 32, 32))), backend="reference")
    x = np.random.default_rng(5).standard_normal((3, 3, 32, 32)).astype(np.float32)
    each = np.concatenate([model(one[None]) for one in x])
    assert np.array_equal(model(x), each)  # the file's batch is 1
    assert np.array_equal(pickle.loads(pickle.dumps(model))(x), each)
    assert "OnnxModel" in repr(model) and model.input_names == ("image",)
    with pytest.raises(ValueError, match="is computed in parts"):
        model.features(x)
    with pytest.raises(ValueError, match="is computed in parts"):
        npmobilenet.quantize(model)
    with pytest.raises(ValueError, match="is computed in parts"):
        npmobilenet.export_weights(model, tmp_path / "model.npz")
    model.release()


def test_what_belongs_to_a_network_stands_in_the_file_or_beside_it(saved, tmp_path):
    about = {"preprocessing": TOLD.to_dict(), "classes": list("abcde")}
    told = saved(classifier(metadata={"npmobilenet": json.dumps(about)}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = npmobilenet.load(told, backend="reference")
        assert (model.preprocessing, model.classes) == (TOLD, tuple("abcde"))
        assert model.provenance["preprocessing"][1] == "file"
        (tmp_path / "other.json").write_text(json.dumps(about))
        model = npmobilenet.load(saved(classifier(), "other.onnx"), backend="reference")
        assert (model.preprocessing, model.classes) == (TOLD, tuple("abcde"))
        model = npmobilenet.load(told, backend="reference", classes=list("vwxyz"))
        assert model.classes == tuple("vwxyz")
    (tmp_path / "other.json").write_text(json.dumps({"classes": ["a"], "preprocessing": TOLD.to_dict()}))
    with pytest.warns(AssumptionWarning, match="1 name of classes found for 5 outputs: not used"):
        npmobilenet.load(tmp_path / "other.onnx", backend="reference")


def test_a_softmax_at_the_end_is_not_applied_twice(saved):
    x = np.random.default_rng(6).standard_normal((2, 3, 32, 32)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = npmobilenet.load(saved(classifier()), backend="reference")
        soft = npmobilenet.load(
            saved(classifier([("Softmax", "scores", "p", {"axis": 1})]), "s.onnx"), backend="reference"
        )
    assert np.array_equal(soft(x), plain(x))
    probabilities = soft.run({"image": x})["p"]
    assert soft.top(soft(x), 1)[0][0].probability == pytest.approx(probabilities[0].max(), rel=1e-6)


def test_numbers_of_16_bits_are_computed_in_float32(saved):
    graph, x = classifier(), np.random.default_rng(5).standard_normal((2, 3, 32, 32)).astype(np.float16)
    half = replace(
        graph,
        constants={name: array.astype(np.float16) for name, array in graph.constants.items()},
        inputs=(Port("image", "float16", IMAGE),),
        outputs=(Port("scores", "float16", None),),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, two = (npmobilenet.load(saved(each), backend="reference") for each in (graph, half))
    np.testing.assert_allclose(two.run({"image": x})["scores"], one(x), rtol=0.01, atol=0.01)
    scores = run(half, image=x)["scores"]
    assert scores.dtype == np.float16 and scores.shape == (2, 5)


def test_a_size_that_the_file_fixes(saved):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = npmobilenet.load(saved(classifier(shape=(1, 3, 32, 48))), backend="reference")
    assert model.size == (32, 48) and model.preprocessing.crop == (32, 48)
    assert model(np.zeros((2, 3, 32, 48), np.float32)).shape == (2, 5)
    with pytest.raises(ValueError, match="the file fixes images to 32x48, got 32x32"):
        model(np.zeros((1, 3, 32, 32), np.float32))


def test_options_that_do_not_fit_a_whole_network(saved):
    path = saved(classifier())
    with pytest.raises(ValueError, match="holds a whole network, whose width cannot be chosen any more"):
        npmobilenet.load(path, width=0.5)
    with pytest.raises(ValueError, match="is computed in parts, which only a CPU does, in float32"):
        npmobilenet.load(saved(classifier(odd=True), "odd.onnx"), dtype="int8")


# Commands ----------------------------------------------------------------------------------------------------


def test_a_network_is_exported_and_inspected(tmp_path, capsys):
    path = str(tmp_path / "v1.onnx")
    assert main(["export", "mobilenet_v1", "--width", "0.25", "--num-classes", "7", "--onnx", path]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert main(["inspect", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["inspect", "mobilenet_v1", "--width", "0.25", "--num-classes", "7", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    for what in ("parameters", "macs", "op_by_op_memory"):
        assert found[what] == expected[what]
    assert main(["inspect", path, "--mixed", "3,5"]) == 1
    assert "no table of an architecture" in capsys.readouterr().err


def test_a_network_in_parts_is_inspected(saved, capsys):
    path = str(saved(classifier(odd=True)))
    assert main(["inspect", path, "--resolution", "32"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"node1 +1x4x32x32 +Softplus +NumPy", out)
    assert main(["inspect", path, "--json"]) == 0
    assert [row["computed_by"] for row in json.loads(capsys.readouterr().out)["layers"]][:2] == ["kernels", "NumPy"]


def test_a_detector_comes_back_a_detector(tmp_path):
    graph = get_architecture("ssdlite_mobilenet_v2").graph(0.1, 3)
    photo = Preprocessing(None, (64, 64), None, (0.5,) * 3, (0.5,) * 3)
    model = Model(
        graph, random_weights(graph), architecture="ssdlite_mobilenet_v2", backend="reference", preprocessing=photo
    )
    again = npmobilenet.load(export_onnx(model, tmp_path / "d.onnx"), backend="reference")
    assert again.architecture == model.architecture and again.classes == model.classes
    assert str(again.detect(PHOTOGRAPH, 0.1)) == str(model.detect(PHOTOGRAPH, 0.1))


def test_eight_bits_of_a_file_that_fixes_its_size(saved):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = npmobilenet.load(saved(classifier(shape=(1, 3, 32, 48))), backend="reference")
        small = npmobilenet.quantize(model)
    assert (small.input_name, small.size, small.dtype) == ("image", (32, 48), "int8")


def test_what_cannot_be_exported(tmp_path):
    graph = get_architecture("mobilenet_v1").graph(0.25, 3)
    model = Model(graph, random_weights(graph), architecture="mobilenet_v1", backend="reference")
    with pytest.raises(CheckpointError, match="has no operator in ONNX"):
        export_onnx(npmobilenet.quantize(model), tmp_path / "int8.onnx")
    with pytest.raises(CheckpointError, match="cannot be written"):
        export_onnx(model, tmp_path / "nowhere" / "model.onnx")
    assert not list(tmp_path.iterdir())
