"""From nodes of ONNX to graphs: patterns of exporters, parts, networks written and read again."""

from dataclasses import replace

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.model import Model
from npmobilenet.onnx.file import Node, Port
from npmobilenet.onnx.parts import Part, Session, divided, whole
from npmobilenet.onnx.writing import export_onnx, serialised
from npmobilenet.passes import fuse
from tests.conftest import compiled_only
from tests.onnx_files import IMAGE, block, by_numpy, exported, graph_of, parsed, run


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


SHUFFLE = [
    ("Reshape", "x five", "s", {}),
    ("Transpose", "s", "t", {"perm": (0, 2, 1, 3, 4)}),
    ("Reshape", "t four", "y", {}),
]
SHAPES = {
    "five": [0, 2, 2, 8, 10], "four": [0, -1, 8, 10], "pairs": [-1, 2, 80], "halves": [2, -1, 2, 8, 10],
    "one": np.int64(1),
}  # fmt: skip
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
        (SHUFFLE, SHAPES, ["conv2d", "channel_select"]),
        ([("Reshape", "x pairs", "a", {}), ("Transpose", "a", "b", {"perm": (1, 0, 2)}),
          ("Reshape", "b halves", "c", {}), ("Gather", "c one", "y", {})], SHAPES, ["conv2d", "channel_select"]),
        ([("Slice", "x one last axis minus", "y", {})], SHAPES | {"last": [-9], "axis": [1], "minus": [-1], "one": [2]},
         ["conv2d", "channel_select"]),
        ([("Slice", "x zeros ends", "y", {})], {"zeros": [0, 0, 0, 0], "ends": [9, 2, 9, 99]},
         ["conv2d", "channel_select"]),
        ([*SHUFFLE[:2], ("Reshape", "t four", "z", {}), ("Conv", "z v", "y", {"pads": (1, 1, 1, 1)})],
         SHAPES | {"v": np.float32(np.arange(2 * 4 * 9).reshape(2, 4, 3, 3) / 72)}, ["conv2d", "conv2d"]),
        ([("Gather", "x these", "y", {"axis": 1})], {"these": [3, -4, 3]}, ["conv2d", "channel_select"]),
        ([("Split", "x", "a b", {"axis": 1}), ("Add", "a b", "y", {})], {},
         ["conv2d", "channel_select", "channel_select", "add"]),
        ([("Split", "x", "a b", {"axis": 1}), ("Concat", "b a", "c", {"axis": 1}), ("Split", "c", "d e", {"axis": -3}),
          ("Concat", "e d", "y", {"axis": 1})], {}, ["conv2d", *["channel_select"] * 2, "concat"]),
        ([("Split", "x", "a b", {"axis": 1}), ("Conv", "b u", "c", {}), ("Concat", "a c", "x2", {"axis": 1}),
          *[(name, reads.replace("x", "x2"), makes.replace("y", "z"), how) for name, reads, makes, how in SHUFFLE],
          ("Split", "z", "d e", {"axis": 1}), ("Concat", "d e", "y", {"axis": 1})],
         SHAPES | {"u": np.ones((2, 2, 1, 1), np.float32)},
         ["conv2d", "channel_select", "pointwise_conv2d", *["channel_select"] * 2, "concat"]),
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
    values = by_numpy(graph, image=x)
    result = Session(graph, "reference").run({"image": x})["y"]
    assert result.shape == values["y"].shape
    np.testing.assert_allclose(result, values["y"], rtol=1e-4, atol=1e-4)


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


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("order", [[2, 1, 0], [0, 0, 0], [1, 1], [2]])
def test_channels_of_the_image_in_another_order_are_weights_in_that_order(kernel, order):
    weight = np.random.default_rng(0).standard_normal((4, len(order), kernel, kernel)).astype(np.float32)
    nodes = [("Gather", "image order", "bgr", {"axis": 1}), ("Conv", "bgr w", "y", {"auto_pad": "SAME_UPPER"})]
    graph = graph_of(nodes, [("image", "float32", IMAGE)], [("y", "float32", None)], {"order": order, "w": weight})
    found = whole(parsed(serialised(graph)), (32, 32))
    assert [node.operation for node in found.part.graph] == ["conv2d"]
    x = np.random.default_rng(2).standard_normal((2, 3, 9, 8)).astype(np.float32)
    expected = by_numpy(graph, image=x)["y"]
    np.testing.assert_allclose(run(graph, image=x)["y"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "nodes",
    [
        [("Transpose", "x", "y", {"perm": (0, 1, 3, 2)})],
        [
            ("Reshape", "x five", "a", {}),
            ("Transpose", "a", "b", {"perm": (0, 1, 3, 2, 4)}),
            ("Reshape", "b four", "y", {}),
        ],
        [("Slice", "x minus least axis minus", "y", {})],
        [("Slice", "x zero two axis", "y", {})],
    ],
)
def test_values_moved_to_other_pixels_are_numpys(nodes):
    constants = {"five": [0, 2, 2, 10, 10], "four": [0, -1, 10, 10], "axis": [2], "minus": [-1], "least": [-99]}
    graph = parsed(serialised(block(nodes, constants | {"zero": [0], "two": [2]})))
    x = np.random.default_rng(2).standard_normal((1, 3, 10, 10)).astype(np.float32)
    _, parts = divided(graph, {"image": x.shape})
    assert [isinstance(part, Part) for part in parts] == [True, *[False] * len(nodes)]


@pytest.mark.parametrize("size", [(12, 10), (31, 18)])
def test_shuffled_networks_of_any_batch_and_size(size):
    """As ShuffleNet is exported: sizes that follow from the image's, and half of the channels go on as they are."""
    layers = [("Shape", "x", "shape", {}), ("Slice", "shape two nine", "size", {})]
    layers += [("Concat", f"{way} size", f"to_{way}", {"axis": 0}) for way in ("apart", "joined")]
    for number in range(3):
        x, a, b, c, y = (f"{name}{number}" if number or name != "x" else name for name in "xabcy")
        layers += [
            ("Split", x, f"{a} {b}", {"axis": 1}),
            ("Conv", f"{b} u", c, {"group": 2, "pads": (1, 1, 1, 1)}),
            ("Concat", f"{a} {c}", y, {"axis": 1}),
            ("Reshape", f"{y} to_apart", f"{y}r", {}),
            ("Transpose", f"{y}r", f"{y}t", {"perm": (0, 2, 1, 3, 4)}),
            ("Reshape", f"{y}t to_joined", f"x{number + 1}", {}),
        ]
    constants = {"apart": [-1, 2, 2], "joined": [-1, 4], "two": [2], "nine": [9]}
    constants["u"] = np.random.default_rng(1).standard_normal((2, 1, 3, 3)).astype(np.float32)
    graph = parsed(serialised(block(layers, constants, "x3")))
    found = whole(graph, (24, 24))
    kinds = [node.operation for node in found.part.graph]
    assert kinds == ["conv2d", *["channel_select", "depthwise_conv2d"] * 3, "channel_select"]
    x = np.random.default_rng(2).standard_normal((2, 3, *size)).astype(np.float32)
    values = by_numpy(graph, image=x)
    result = Session(graph, "reference").run({"image": x})["x3"]
    np.testing.assert_allclose(result, values["x3"], rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize("how", ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
def test_nearest_pixels_of_doubled_images(how, rounding):
    attributes = {"mode": "nearest", "coordinate_transformation_mode": how, "nearest_mode": rounding}
    graph = parsed(serialised(block([("Resize", "x - - sizes", "y", attributes)], {"sizes": np.int64([1, 4, 12, 15])})))
    x = np.random.default_rng(2).standard_normal((1, 3, 6, 5)).astype(np.float32)
    expected = by_numpy(graph, image=x)["y"]
    np.testing.assert_allclose(Session(graph, "reference").run({"image": x})["y"], expected, rtol=1e-5, atol=1e-5)


def test_another_name_of_an_image_is_an_output():
    nodes = [("Identity", "image", "same", {}), ("Dropout", "same", "again", {}), ("Conv", "again w", "y", {})]
    weight = np.ones((4, 3, 1, 1), np.float32)
    outputs = [("again", "float32", None), ("y", "float32", None)]
    x = np.random.default_rng(2).standard_normal((1, 3, 6, 5)).astype(np.float32)
    found = run(graph_of(nodes, [("image", "float32", IMAGE)], outputs, {"w": weight}), image=x)
    assert np.array_equal(found["again"], x)
    np.testing.assert_allclose(found["y"][:, 2], x.sum(1), rtol=1e-5, atol=1e-5)


@compiled_only
def test_a_file_of_any_batch_that_only_one_fits_is_read(tmp_path):
    nodes = [("Add", "x two", "y", {})]
    constants = {"two": np.random.default_rng(1).standard_normal((2, 4, 8, 8)).astype(np.float32)}
    graph = block(nodes, constants)
    graph = replace(graph, inputs=(Port("image", "float32", ("n", 3, 8, 8)),))
    (tmp_path / "two.onnx").write_bytes(serialised(graph))
    model = npmobilenet.load(tmp_path / "two.onnx")
    x = np.random.default_rng(2).standard_normal((2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(model.run({"image": x})["y"], by_numpy(graph, image=x)["y"], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"node 'node1' \(Add\): shape mismatch"):
        model.run({"image": np.zeros((3, 3, 8, 8), np.float32)})


@compiled_only
@pytest.mark.parametrize("name", ["tiny_face_detector", "ssdlite_mobilenet_v3_large"])
def test_detectors_written_and_read_are_detectors(tmp_path, name):
    graph = get_architecture(name).graph()
    first = Model(graph, random_weights(graph), architecture=name, threads=1)
    export_onnx(first, tmp_path / "model.onnx")
    second = npmobilenet.load(tmp_path / "model.onnx", threads=1)
    x = np.random.default_rng(1).standard_normal((1, 3, 96, 96)).astype(np.float32)
    assert second.architecture == name and second.output_names == first.output_names
    found, expected = second.run({"input": x}), first.run({"input": x})
    assert all(np.array_equal(found[output], expected[output]) for output in expected)
    other = graph_of(
        [("Conv", "input w", "cells", {})],
        [("input", "float32", IMAGE)],
        [("cells", "float32", None)],
        {"w": np.ones((7, 3, 1, 1), np.float32)},
    )
    (tmp_path / "tiny_face_detector.onnx").write_bytes(serialised(other))
    model = npmobilenet.load(tmp_path / "tiny_face_detector.onnx")
    assert model.architecture == "tiny_face_detector, without its outputs" and model(x).shape == (1, 7, 96, 96)


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        (("Softmax", "image", "y", {"axis": 7}), r"\(Softmax\): axis 7 of 4"),
        (("LogSoftmax", "image", "y", {"axis": -5}), r"\(LogSoftmax\): axis -5 of 4"),
        (("QuantizeLinear", "image two", "y", {"axis": 1}), r"\(QuantizeLinear\): 2 scales or zero points do not fit"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_computed(saved, node, problem):
    shape = [("image", "float32", (1, 3, 8, 8))]
    path = saved(graph_of([node], shape, [("y", "float32", None)], {"two": np.float32([1, 2])}))
    with pytest.raises(ValueError, match=problem):
        npmobilenet.load(path)
