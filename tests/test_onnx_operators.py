"""What ONNX's operators compute in NumPy."""

from pathlib import Path

import numpy as np
import pytest

import npmobilenet
from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.checkpoints.protobuf import encoded, packed
from npmobilenet.errors import CheckpointError
from npmobilenet.onnx.narrow import NARROW
from npmobilenet.onnx.tensors import CODES, Beside, read_tensor
from tests.conftest import compiled_only
from tests.onnx_files import graph_of, one, run

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
        ("MaxPool", [np.float32([[[1, 2]]])], {"kernel_shape": (3,), "strides": (2,), "ceil_mode": 1}, [[[2]]]),
        ("Conv", [np.float32([[[1, 2, 3]]]), np.float32([[[1, 10]]])], {"dilations": (2,), "pads": (1, 0)},
         [[[20, 31]]]),
        ("Conv", [np.float32([[[1, 2, 3]]]), np.float32([[[1, 10]]])], {"auto_pad": "SAME_LOWER"}, [[[10, 21, 32]]]),
        ("ConvTranspose", [np.float32([[[1, 2]]]), np.float32([[[1, 10]]])], {"strides": (2,)}, [[[1, 10, 2, 20]]]),
        ("ConvTranspose", [np.float32([[[1, 2]]]), np.float32([[[1, 10]]])], {"output_shape": (2,)}, [[[12, 20]]]),
        ("ConvTranspose", [np.float32([[[1, 2]]]), np.float32([[[1, 10]]])], {"auto_pad": "SAME_LOWER"}, [[[12, 20]]]),
        ("ConvTranspose", [np.float32([[[1, 2]]]), np.float32([[[1, 10]]])], {"auto_pad": "SAME_UPPER"}, [[[1, 12]]]),
        ("ConvTranspose", [np.float32([[[1, 2]]]), np.float32([[[3]]])], {"strides": (2,), "output_shape": (5,)},
         [[[3, 0, 6, 0, 0]]]),
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


def test_sums_of_bytes_that_float32_does_not_hold():
    many = 41 * 9  # products of 255 and 255, an odd sum above 2**24
    x, w = np.full((1, 41, 3, 3), 255, np.uint8), np.full((1, 41, 3, 3), -128, np.int8)
    assert one("ConvInteger", x, w, None, np.int8([127])).item() == -many * 255**2
    assert one("MatMulInteger", x.reshape(1, -1), w.reshape(-1, 1), None, np.int8(127)).item() == -many * 255**2
    assert one("MatMulInteger", x.reshape(-1), w.reshape(-1), None, np.int8(127)).item() == -many * 255**2


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
    path = saved(graph_of(nodes, [("x", "float32", (2,))], [("y", "float32", None)], constants))
    with pytest.raises(CheckpointError, match=r"asks for a tensor of shape|become more than this file may take"):
        npmobilenet.load(path).run({"x": np.float32([1, 2])})


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
def test_the_tests_of_the_package_onnx():
    """Where it is installed: all of them, on the fastest kernels. docs/onnx.md lists which nodes differ, and why."""
    pytest.importorskip("onnx")
    from tests.onnx_suite import FOLDERS, results

    found = results()
    assert {group: found[group].wrong for group in FOLDERS} == {group: {} for group in FOLDERS}
    nodes = found["nodes"]
    assert nodes.right >= 0.98 * (nodes.right + len(nodes.wrong)), nodes.wrong
