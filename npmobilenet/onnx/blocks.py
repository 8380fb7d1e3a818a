"""What layers of a graph are together: squeeze-and-excitation, the pooling before a classifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from itertools import takewhile

import numpy as np

from npmobilenet.graph import INPUT, Graph, Node
from npmobilenet.kernels.checks import ACTIVATIONS

VECTORS = ("linear", "global_average_pool", "global_max_pool", "flatten")


def with_blocks(
    graph: Graph, weights: Mapping[str, np.ndarray], channels: Mapping[str, int]
) -> tuple[Graph, dict[str, np.ndarray]]:
    """Return the graph with one node for each squeeze-and-excitation, and its parts named as a classifier's are.

    ``channels`` are those of every tensor.
    """
    graph, weights = _selected(graph, dict(weights), channels)
    graph, weights = _squeezed(_pooled_vectors(graph), weights)
    return _classifier(graph), weights


def _readers(graph: Graph) -> Counter[str]:
    return Counter([*(name for node in graph for name in node.inputs), *graph.output_nodes.values()])


def _pooled_vectors(graph: Graph) -> Graph:
    """An image of one pixel that is only made a vector is pooled to one."""
    readers, nodes = _readers(graph), {node.name: node for node in graph}
    gives: dict[str, str] = {}
    for node in graph:
        pool = nodes.get(node.inputs[0])
        if node.operation != "flatten" or pool.operation != "global_average_pool" or readers[pool.name] > 1:
            continue
        if pool["keepdims"]:
            nodes[pool.name] = pool.with_attributes(keepdims=False)
            del nodes[node.name]
            gives[node.name] = pool.name
    return _without(graph, nodes, gives)


def _without(graph: Graph, nodes: Mapping[str, Node], gives: Mapping[str, str]) -> Graph:
    """The graph with these nodes alone; what others made, some of these give."""
    kept = tuple(replace(node, inputs=tuple(gives.get(name, name) for name in node.inputs)) for node in nodes.values())
    outputs = {output: gives.get(name, name) for output, name in graph.outputs.items()}
    return replace(graph, nodes=kept, outputs=outputs)


def _selected(
    graph: Graph, weights: dict[str, np.ndarray], channels: Mapping[str, int]
) -> tuple[Graph, dict[str, np.ndarray]]:
    """Channels are taken from the layers that make them, however often they were concatenated and chosen before.

    Those of one tensor in another order, or of the image in any, are as good as weights in that order.
    """
    nodes, gives = {node.name: node for node in graph}, {}
    origins: dict[str, list[tuple[str, int]]] = {}  # of each channel of what only puts channels elsewhere

    def origin(name: str) -> list[tuple[str, int]]:
        return origins.get(name) or [(name, channel) for channel in range(channels[name])]

    dense = () if graph.is_quantised else ("conv2d", "pointwise_conv2d")  # integers stand in the file's order
    for node in graph:
        if node.operation in dense and node["groups"] == 1 and node.inputs[0] in origins:
            source, order = _single(origins[node.inputs[0]])
            if source == INPUT or (source and sorted(order) == list(range(channels[source]))):
                weight = weights[f"{node.name}.weight"]
                moved = np.zeros((len(weight), channels[source], *weight.shape[2:]))
                np.add.at(moved, (slice(None), order), weight)  # a channel may be there twice
                weights[f"{node.name}.weight"] = moved.astype(np.float32)
                shapes = {**node.parameters, "weight": moved.shape}
                operation = "conv2d" if source == INPUT else node.operation
                nodes[node.name] = replace(node, operation=operation, inputs=(source,), parameters=shapes)
        if node.operation not in ("concat", "channel_select"):
            continue
        found = [place for name in node.inputs for place in origin(name)]
        if node.operation == "concat":
            origins[node.name] = found
            continue
        origins[node.name] = found = [found[index] for index in node["indices"]]
        sources = tuple(dict.fromkeys(name for name, _ in found))
        whole = [(name, channel) for name in sources for channel in range(channels[name])]
        if found == whole and len(sources) == 1:
            gives[node.name] = sources[0]
        elif found == whole:
            nodes[node.name] = replace(node, operation="concat", inputs=sources, attributes={})
        else:
            place_of = {place: index for index, place in enumerate(whole)}
            indices = tuple(place_of[place] for place in found)
            nodes[node.name] = replace(node.with_attributes(indices=indices), inputs=sources)
    for name in gives:
        del nodes[name]
    graph = _without(graph, nodes, gives)
    return replace(graph.up_to(*graph.outputs), outputs=graph.outputs), weights


def _single(places: Sequence[tuple[str, int]]) -> tuple[str, list[int]]:
    """The tensor that channels are of, and which of it they are, if it is one."""
    sources = {name for name, _ in places}
    return (sources.pop(), [channel for _, channel in places]) if len(sources) == 1 else ("", [])


def _squeezed(graph: Graph, weights: dict[str, np.ndarray]) -> tuple[Graph, dict[str, np.ndarray]]:
    """``x * gate(expand(activation(reduce(mean(x)))))`` is one node."""
    readers, nodes, gives = _readers(graph), {node.name: node for node in graph}, {}
    for node in graph:
        found = _squeeze(node, nodes, readers)
        if found is None:
            continue
        x, (reduce, expand), (activation, gate), gone = found
        parameters = {}
        for name, layer in (("reduce", reduce), ("expand", expand)):
            weight = weights[f"{layer.name}.weight"].reshape(layer.parameters["weight"][:2])
            bias = weights.get(f"{layer.name}.bias")
            parameters[f"{name}.weight"] = weight
            parameters[f"{name}.bias"] = np.zeros(len(weight), np.float32) if bias is None else bias
        shapes = {name: array.shape for name, array in parameters.items()}
        sizes = {"channels": expand["channels"], "reduced": reduce["channels"]}
        functions = {"activation": activation["function"] if activation else "none", "gate": gate["function"]}
        whole = Node(
            _common_name(reduce, expand, nodes.keys() - {node.name, *(each.name for each in gone)}),
            "squeeze_excite",
            (x,),
            reduce.block,
            shapes,
            {**sizes, **functions},
        )
        for each in gone:
            nodes.pop(each.name)
            for name in each.tensors:
                weights.pop(name, None)
        nodes = {
            (whole.name if name == node.name else name): (whole if name == node.name else each)
            for name, each in nodes.items()
        }
        gives[node.name] = whole.name
        weights |= {f"{whole.name}.{name}": array for name, array in parameters.items()}
    return _without(graph, nodes, gives), weights


def _squeeze(node: Node, nodes: Mapping[str, Node], readers: Mapping[str, int]) -> tuple | None:
    """What scales ``x`` in a product, the layers that make it, and all nodes that are no more then."""

    def inside(name: str, *operations: str) -> Node | None:
        found = nodes.get(name)
        return found if found and found.operation in operations and readers[name] == 1 else None

    if node.operation != "multiply":
        return None
    for x, factor in (node.inputs, node.inputs[::-1]):
        gate = inside(factor, "activation")
        expand = gate and inside(gate.inputs[0], "pointwise_conv2d", "linear")
        activation = expand and inside(expand.inputs[0], "activation")
        reduce = expand and inside((activation or expand).inputs[0], "pointwise_conv2d", "linear")
        mean = reduce and inside(reduce.inputs[0], "global_average_pool")
        if (
            not mean
            or mean.inputs[0] != x
            or reduce.attributes.get("groups", 1) * expand.attributes.get("groups", 1) > 1
        ):
            continue
        if gate["function"] in ACTIVATIONS and (not activation or activation["function"] in ACTIVATIONS):
            gone = [one for one in (mean, reduce, activation, expand, gate) if one]
            return x, (reduce, expand), (activation, gate), gone
    return None


def _common_name(reduce: Node, expand: Node, taken: Set[str]) -> str:
    """What the names of both layers begin with, such as ``block.2`` of ``block.2.fc1`` and ``block.2.fc2``."""
    parts = [
        part
        for part, _ in takewhile(lambda both: both[0] == both[1], zip(*map(_parts, (reduce, expand)), strict=False))
    ]
    name = ".".join(parts)
    return name if name and name not in taken else f"{reduce.name}.squeeze_excite"


def _parts(node: Node) -> list[str]:
    return node.name.split(".")[:-1]


def _classifier(graph: Graph) -> Graph:
    """What the first output's vector comes from, before softmax and rounding, is the classifier; a pooling the pool."""
    nodes = {node.name: node for node in graph}
    last = nodes[next(iter(graph.output_nodes.values()))]
    while last.operation in ("softmax", "quantize", "dequantize") and last.inputs[0] in nodes:
        last = nodes[last.inputs[0]]
    if last.operation not in VECTORS or last.attributes.get("keepdims"):
        return graph
    nodes[last.name] = replace(last, block="classifier")
    pools = [node for node in graph if node.operation == "global_average_pool" and not node["keepdims"]]
    if pools and pools[-1].name != last.name:
        nodes[pools[-1].name] = replace(pools[-1], block="pool")
    return replace(graph, nodes=tuple(nodes.values()))
