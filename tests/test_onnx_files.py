"""What ONNX files hold, read byte by byte; what is damaged or not supported is refused in one line."""

from pathlib import Path

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.checkpoints import read_checkpoint
from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.checkpoints.protobuf import encoded, integers, packed
from npmobilenet.errors import CheckpointError
from npmobilenet.onnx.file import OnnxGraph
from npmobilenet.onnx.narrow import NARROW
from npmobilenet.onnx.parts import check, divided
from npmobilenet.onnx.tensors import CODES, Beside, read_tensor
from npmobilenet.onnx.writing import onnx_graph, serialised
from tests.onnx_files import graph_of, parsed


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
