"""ONNX files made by this package's own writer, for tests: graphs of a few nodes, and small networks."""

from pathlib import Path

import numpy as np

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.onnx.file import Node, OnnxGraph, Port, parse_model
from npmobilenet.onnx.operator import OPERATORS
from npmobilenet.onnx.parts import Session, check
from npmobilenet.onnx.tensors import Beside
from npmobilenet.onnx.writing import onnx_graph, serialised

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
    """What one operator computes."""
    names = [f"x{number}" if array is not None else "" for number, array in enumerate(inputs)]
    arrays = {name: np.asarray(array) for name, array in zip(names, inputs, strict=True) if name}
    node = Node("only", operator, tuple(names), tuple(f"y{number}" for number in range(results)), attributes)
    check(OnnxGraph("", opset, (node,), {}, (), ()))
    found = OPERATORS[operator].compute(node, [arrays.get(name) for name in names], opset)
    return found[0] if results == 1 else found


def by_numpy(graph, **inputs):
    """Every tensor of a graph, node by node as NumPy computes it."""
    values = {**inputs, **graph.constants}
    for node in graph.nodes:
        arrays = [values[name] if name else None for name in node.inputs]
        values |= dict(zip(node.outputs, OPERATORS[node.operator].compute(node, arrays, graph.opset), strict=True))
    return values


def exported(name, width=0.25, classes=5, padding="symmetric"):
    """A small network and what is written of it."""
    graph = get_architecture(name).graph(width, classes, padding)
    weights = random_weights(graph)
    return graph, weights, onnx_graph(graph, weights, name)


def block(nodes, constants, out="y", **more):
    """An image under a convolution to 4 channels, and what follows."""
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [("Conv", "image w", "x", {"pads": (1, 1, 1, 1)}), *nodes]
    image = [("image", "float32", IMAGE)]
    return graph_of(nodes, image, [(out, "float32", None)], {"w": weight, **constants}, **more)


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


def tensorflow(optimised=True, scaled=False, odd=False, size=("h", "w")):
    """A classifier of images with channels last, as tf2onnx writes it: transposed once, or for each convolution."""
    random, shapes = np.random.default_rng(7), {"w": (4, 3, 3, 3), "v": (4, 1, 3, 3), "b": 4, "k": (4, 5), "kb": (1, 5)}
    constants = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    constants |= {"part": np.float32(1 / 255), "one": np.float32([1, 0.5, 2])}
    constants |= {"pads": np.int64([0, 0, 0, 0, 0, 1, 1, 0]), "rows": np.int64([-1, 4])}
    first, last = {"perm": (0, 3, 1, 2)}, {"perm": (0, 2, 3, 1)}
    x = "image"
    nodes = []
    if scaled:
        nodes += [("Mul", "image part", "scaled", {}), ("Sub", "scaled one", "image1", {})]
        x = "image1"
    nodes += [("Pad", f"{x} pads", "padded", {}), ("Transpose", "padded", "p", first)]
    nodes += [("Conv", "p w", "c", {"strides": (2, 2)})]
    if optimised:
        constants["b4"] = constants["b"].reshape(1, 4, 1, 1)
        nodes += [("Add", "c b4", "d", {}), ("Relu", "d", "e", {})]
        nodes += [("Conv", "e v", "f", {"group": 4, "auto_pad": "SAME_UPPER"}), ("Add", "e f", "g", {})]
        nodes += [("Softplus", "g", "g1", {})] * odd
        nodes += [("GlobalAveragePool", "g1" if odd else "g", "m", {}), ("Squeeze", "m", "r", {"axes": (2, 3)})]
    else:
        nodes += [("Transpose", "c", "cl", last), ("Add", "cl b", "d", {}), ("Relu", "d", "e", {})]
        nodes += [("Transpose", "e", "ef", first), ("Conv", "ef v", "f", {"group": 4, "auto_pad": "SAME_UPPER"})]
        nodes += [("Transpose", "f", "fl", last), ("Add", "fl e", "g", {})]
        nodes += [("Softplus", "g", "g1", {})] * odd
        nodes += [("ReduceMean", "g1" if odd else "g", "m", {"axes": (1, 2)}), ("Reshape", "m rows", "r", {})]
    nodes += [("MatMul", "r k", "n", {}), ("Add", "n kb", "l", {}), ("Softmax", "l", "probabilities", {"axis": -1})]
    image = [("image", "float32", ("n", *size, 3))]
    return graph_of(nodes, image, [("probabilities", "float32", ("n", 5))], constants, 12)
