"""What exporters write in several nodes, as the one that it is.

hard swish      x * clip(x + 3, 0, 6) / 6, or with a hard sigmoid       HardSwish
hard sigmoid    clip(x + 3, 0, 6) / 6                                   HardSigmoid
swish           x * sigmoid(x)                                          Swish
linear layer    a product with a constant matrix, then a sum            Gemm
padding         zeros around an image before its convolution            the convolution's own
shuffle         axes divided, put in another order and joined again     Gather, of channels
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod

import numpy as np

from npmobilenet.onnx.file import Node
from npmobilenet.onnx.operator import OPERATORS
from npmobilenet.onnx.shapes import Bound
from npmobilenet.onnx.windows import window_pads

SIXTH = 1 / 6
CLOSE = 1e-6  # a sixth in float32, or as exporters once wrote it
MOVES = ("Reshape", "Transpose", "Slice", "Gather", "Split", "Squeeze", "Unsqueeze", "Flatten")  # values as they are


def simplified(bound: Bound) -> Bound:
    """Return the graph with one node for each pattern found."""
    for rewrite in (_identities, _shuffle, _hard_sigmoid, _hard_swish, _swish, _linear, _padding):
        bound = _rewritten(bound, rewrite)
    return bound


def _rewritten(bound: Bound, rewrite: Callable[[Graph, Node], Node | None]) -> Bound:
    graph = Graph(bound)
    nodes, values = list(bound.nodes), dict(bound.values)
    for at, node in enumerate(nodes):
        found = rewrite(graph, node)
        if found is not None:
            nodes[at] = found
            graph.replace(found)
    return bound.with_nodes(nodes, values | graph.added)


class Graph:
    """Which node makes a tensor, and how many read it."""

    def __init__(self, bound: Bound) -> None:
        self.bound = bound
        self.made_by = {name: node for node in bound.nodes for name in node.outputs}
        self.readers = Counter([*(name for node in bound.nodes for name in node.inputs), *bound.outputs])
        self.added: dict[str, np.ndarray] = {}

    def replace(self, node: Node) -> None:
        """Let a node make what another one made."""
        for name in node.outputs:
            self.made_by[name] = node

    def made(self, name: str, *operators: str) -> Node | None:
        """Return the node that makes a tensor, if it is one of these operators."""
        node = self.made_by.get(name)
        return node if node is not None and node.operator in operators else None

    def only_read_once(self, name: str) -> bool:
        """Whether nothing else needs a tensor."""
        return self.readers[name] == 1

    def number(self, name: str) -> float | None:
        """The value of a constant of one number."""
        array = self.bound.constant(name)
        return float(array.reshape(())) if array is not None and array.size == 1 else None

    def of_two(self, node: Node | None, operator: str, number: float) -> str | None:
        """The other input of a node that adds or multiplies this number."""
        if node is None or node.operator != operator or len(node.inputs) != 2:
            return None
        for one, other in (node.inputs, node.inputs[::-1]):
            value = self.number(other)
            if value is not None and abs(value - number) < CLOSE and self.bound.constant(one) is None:
                return one
        return None

    def constant(self, like: str, array: np.ndarray) -> str:
        """Add a constant, with a name of its own."""
        name = f"{like}/npmobilenet/{len(self.added)}"
        self.added[name] = array
        return name

    def clipped(self, name: str) -> tuple[str, float, float] | None:
        """What a Clip reads, and its bounds; a ReLU's are 0 and infinity."""
        node = self.made(name, "Clip", "Relu")
        if node is None:
            return None
        low, high = clip_bounds(self.bound, node)
        return None if low is None or high is None else (node.inputs[0], low, high)


def clip_bounds(bound: Bound, node: Node) -> tuple[float | None, float | None]:
    """Return the bounds of a Clip or ReLU, infinite where it has none; None where they are no constants."""
    if node.operator == "Relu":
        return 0.0, np.inf
    bounds = []
    for at, name, none in ((1, "min", -np.inf), (2, "max", np.inf)):
        if len(node.inputs) > at and node.inputs[at]:
            array = bound.constant(node.inputs[at])
            bounds.append(float(array.reshape(())) if array is not None and array.size == 1 else None)
        else:
            bounds.append(node.attributes.get(name, none))
    return bounds[0], bounds[1]


def _identities(graph: Graph, node: Node) -> Node | None:
    """Read what an identity reads, not the identity."""
    inputs = tuple(_origin(graph, name) for name in node.inputs)
    return replace(node, inputs=inputs) if inputs != node.inputs else None


def _origin(graph: Graph, name: str) -> str:
    while (node := graph.made(name, "Identity", "Dropout")) is not None and node.outputs[0] == name:
        name = node.inputs[0]
    return name


def _shuffle(graph: Graph, node: Node) -> Node | None:
    """Where several nodes do nothing but move values, and only between channels: told by what becomes of places."""
    bound, last = graph.bound, node.outputs[0]
    shape, chain, step = bound.shape(last), [], node
    if node.operator not in MOVES or len(node.outputs) > 1 or shape is None or len(shape) != 4:
        return None
    while step is not None and bound.live(step) == [step.inputs[0]]:
        chain.append((step, step.outputs.index(last)))
        last = step.inputs[0]
        before = bound.shape(last)
        if before is not None and len(before) == 4 and (before[0], *before[2:]) == (shape[0], *shape[2:]):
            break
        step = graph.made(last, *MOVES)
    else:
        return None
    if len(chain) < 2 or not prod(shape):
        return None
    places = moved = np.arange(prod(before), dtype=np.int32).reshape(before)
    for step, output in reversed(chain):
        constants = [bound.constant(name) if name else None for name in step.inputs[1:]]
        moved = OPERATORS[step.operator].compute(step, [moved, *constants], bound.opset)[output]
    channels = moved[0, :, 0, 0].astype(np.int64) // prod(shape[2:])
    if not np.array_equal(moved, places[:, channels]):
        return None
    return Node(node.name, "Gather", (last, graph.constant(last, channels)), node.outputs, {"axis": 1})


def _sixth_of_clip(graph: Graph, node: Node) -> str | None:
    """``x`` of clip(x + 3, 0, 6) / 6."""
    clip = graph.of_two(node, "Mul", SIXTH)
    if clip is None and node.operator == "Div" and graph.number(node.inputs[1]) == 6:
        clip = node.inputs[0]
    found = None if clip is None else graph.clipped(clip)
    if found is None or found[1:] != (0.0, 6.0):
        return None
    return graph.of_two(graph.made(found[0], "Add"), "Add", 3.0)


def _hard_sigmoid(graph: Graph, node: Node) -> Node | None:
    x = _sixth_of_clip(graph, node)
    if x is None:
        return None
    return Node(node.name, "HardSigmoid", (x,), node.outputs, {"alpha": SIXTH, "beta": 0.5})


def is_hard_sigmoid(node: Node) -> bool:
    """Whether a HardSigmoid is clip(x + 3, 0, 6) / 6, and not another line."""
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return node.operator == "HardSigmoid" and abs(alpha - SIXTH) < CLOSE and abs(beta - 0.5) < CLOSE


def _hard_swish(graph: Graph, node: Node) -> Node | None:
    if node.operator == "Mul":
        for x, gate in _ordered(node):
            made = graph.made(gate, "HardSigmoid")
            if made is not None and is_hard_sigmoid(made) and made.inputs[0] == x:
                return Node(node.name, "HardSwish", (x,), node.outputs)
    # x * clip(x + 3, 0, 6), and then a sixth of it
    product = graph.of_two(node, "Mul", SIXTH)
    if product is None and node.operator == "Div" and graph.number(node.inputs[1]) == 6:
        product = node.inputs[0]
    made = None if product is None else graph.made(product, "Mul")
    for x, clip in _ordered(made) if made else ():
        found = graph.clipped(clip)
        shifted = found is not None and found[1:] == (0.0, 6.0) and graph.made(found[0], "Add")
        if shifted and graph.of_two(shifted, "Add", 3.0) == x:
            return Node(node.name, "HardSwish", (x,), node.outputs)
    return None


def _swish(graph: Graph, node: Node) -> Node | None:
    if node.operator == "Mul":
        for x, gate in _ordered(node):
            made = graph.made(gate, "Sigmoid")
            if made is not None and made.inputs[0] == x:
                return Node(node.name, "Swish", (x,), node.outputs)
    return None


def _ordered(node: Node) -> Iterator[tuple[str, str]]:
    """The two inputs of a node, and the other way round."""
    if len(node.inputs) == 2:
        yield node.inputs
        yield node.inputs[::-1]


def _linear(graph: Graph, node: Node) -> Node | None:
    """A product of rows with a constant matrix, and the sum with a constant row."""
    bound = graph.bound
    if node.operator == "MatMul" and len(bound.shape(node.inputs[0]) or ()) == 2:
        weight = bound.constant(node.inputs[1])
        if weight is not None and weight.ndim == 2:
            return Node(node.name, "Gemm", node.inputs, node.outputs)
    if node.operator != "Add":
        return None
    for product, bias in _ordered(node):
        made, array = graph.made(product, "Gemm"), bound.constant(bias)
        if made is None or array is None or len(made.inputs) > 2 or not graph.only_read_once(product):
            continue
        weight = bound.constant(made.inputs[1])
        if weight is not None and array.size in (1, bound.shape(product)[1]) and array.ndim <= 2:
            row = np.broadcast_to(array.reshape(-1), bound.shape(product)[1:])
            inputs = (*made.inputs, graph.constant(bias, np.ascontiguousarray(row)))
            return Node(node.name, "Gemm", inputs, node.outputs, made.attributes)
    return None


def _padding(graph: Graph, node: Node) -> Node | None:
    """A Pad of zeros around the pixels disappears into the convolution after it."""
    if node.operator != "Conv" or node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    pad, bound = graph.made(node.inputs[0], "Pad"), graph.bound
    if pad is None:
        return None
    edges = pad_edges(bound, pad)
    rank = len(bound.shape(pad.inputs[0]) or ())
    if edges is None or rank != 4 or edges[0] != (0, 0) or edges[1] != (0, 0):
        return None
    own = node.attributes.get("pads", ()) if node.attributes.get("auto_pad", "NOTSET") == "NOTSET" else ()
    added = window_pads("NOTSET", own, (0, 0), (), (), ())
    (top, bottom), (left, right) = (
        (a + before, b + after) for (a, b), (before, after) in zip(edges[2:], added, strict=True)
    )
    attributes = {name: value for name, value in node.attributes.items() if name != "auto_pad"}
    attributes["pads"] = (top, left, bottom, right)
    return replace(node, inputs=(pad.inputs[0], *node.inputs[1:]), attributes=attributes)


def pad_edges(bound: Bound, node: Node) -> list[tuple[int, int]] | None:
    """Return what a Pad adds before and after every axis, if it adds zeros, and constant numbers of them."""
    if node.attributes.get("mode", "constant") != "constant":
        return None
    arrays = [bound.constant(name) if name else None for name in node.inputs[1:]]
    if any(name and array is None for name, array in zip(node.inputs[1:], arrays, strict=True)) or len(arrays) > 2:
        return None
    pads = node.attributes.get("pads") if not arrays else tuple(arrays[0].reshape(-1).tolist())
    value = arrays[1] if len(arrays) > 1 else None
    filled = node.attributes.get("value", 0.0) if value is None else float(value.reshape(()))
    rank = len(bound.shape(node.inputs[0]) or ())
    if pads is None or filled != 0 or min(pads, default=0) < 0 or len(pads) != 2 * rank:
        return None
    return list(zip(pads[:rank], pads[rank:], strict=True))
