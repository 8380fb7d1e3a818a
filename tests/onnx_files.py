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
