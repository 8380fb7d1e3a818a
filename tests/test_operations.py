"""Graphs of all operations: what their classes say agrees with the kernels, on every backend, thread and output."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.engine import Engine
from npmobilenet.errors import CheckpointError
from npmobilenet.graph import Graph, Node
from npmobilenet.kernels import checks, reference, registry
from npmobilenet.operations import OPERATIONS, REQUIRED
from npmobilenet.passes import fuse, kernel_arguments
from tests.conftest import compiled_only

GRAPHS = range(200)


def window(random, channels):
    kernel = (int(random.integers(1, 4)), int(random.integers(1, 4)))
    stride, dilation = (int(random.integers(1, 3)), 1), (int(random.integers(1, 3)), 1)
    return {"channels": channels, "kernel": kernel, "stride": stride, "dilation": dilation, "padding": "symmetric"}


def width(random):
    """Channels: few and odd ones, or blocks of any CPU's vectors, which are concatenated without a copy."""
    return int(random.choice([1, 6, 9, 16, 32]))


def grouped(attributes, x):
    return attributes | {"groups": 3 if x[0] % 3 == attributes["channels"] % 3 == 0 else 1}


# Attributes that a node must have, and others worth a trial, for an input of a shape.
ATTRIBUTES = {
    "conv2d": lambda random, x: grouped(window(random, width(random)), x),
    "depthwise_conv2d": lambda random, x: window(random, x[0]),
    "mixed_depthwise_conv2d": lambda random, x: {
        "channels": x[0],
        "kernels": ((3, 3), (5, 5))[: x[0]],
        "dilations": ((1, 1), (1, 1))[: x[0]],
        "partition": (x[0] - x[0] // 2, x[0] // 2)[: x[0]],
        "stride": (int(random.integers(1, 3)),) * 2,
    },
    "pointwise_conv2d": lambda random, x: grouped({"channels": width(random)}, x),
    "linear": lambda random, x: {"channels": 7},
    "squeeze_excite": lambda random, x: {"channels": x[0], "reduced": 2, "gate": "hard_sigmoid"},
    "activation": lambda random, x: {"function": str(random.choice(checks.ACTIVATIONS[1:]))},
    "conv_transpose2d": lambda random, x: {"channels": 4, "kernel": (2, 3), "stride": (2, 1), "padding": (0, 1)},
    "average_pool2d": lambda random, x: {
        "kernel": (2, 3),
        "padding": (1, 1),
        "stride": (1, 2),
        "count_include_pad": bool(random.integers(2)),
    },
    "leaky_relu": lambda random, x: {"slope": 0.2},
    "elu": lambda random, x: {"alpha": 0.5},
    "channel_select": lambda random, x: {"indices": tuple(random.integers(x[0], size=random.integers(1, 40)).tolist())},
    "channel_pad": lambda random, x: {"before": 1, "after": int(random.integers(3))},
    "max_pool2d": lambda random, x: {
        "kernel": (3, 2),
        "padding": ((1, 0), (0, 1)),
        "stride": [None, (1, 1), (2, 3)][random.integers(3)],
    },
    "global_average_pool": lambda random, x: {"keepdims": bool(random.integers(2))},
    "resize2d": lambda random, x: [
        {},
        {"size": (7, 6)},
        {"scale": (0.7, 1.5), "mode": "nearest", "coordinates": "asymmetric"},
        {"size": (9, 5), "coordinates": "align_corners"},
        {"scale": 2, "coordinates": "asymmetric"},
    ][random.integers(5)],
    "prelu": lambda random, x: {"slopes": [None, (1,), x[:1], x][random.integers(4)]},
}


def operands(kind):
    """The names of what a node of the kind reads, when nothing is fused."""
    return ["x", "x", "x"] if kind.inputs == ("xs",) else [name for name in kind.inputs if name != "residual"]


def broadcasts(y, x):
    return len(y) in (1, len(x)) and all(mine in (1, length) for mine, length in zip(y, x, strict=False))


def random_graph(seed, kinds=tuple(OPERATIONS), stem=False):
    """Branches, several readers, dead ends, and three outputs anywhere; with its weights."""
    random = np.random.default_rng(seed)
    shapes = {"input": (3, int(random.integers(5, 12)), int(random.integers(5, 12)))}
    image, nodes, weights = shapes["input"], [], {}
    while len(nodes) < 14:
        name, operation = f"n{len(nodes)}", kinds[random.integers(len(kinds))]
        if stem and not nodes:
            operation = "conv2d"
        kind, names = OPERATIONS[operation], list(shapes)
        first = names[random.integers(len(names) // 2, len(names))]
        needed = operands(kind)
        if operation in ("concat", "channel_select"):
            alike = [name for name in names if shapes[name][1:] == shapes[first][1:]]
            needed = needed[: random.integers(1, 4)]
        elif operation in ("broadcast_add", "multiply"):
            alike = [name for name in names if broadcasts(shapes[name], shapes[first])]
            alike = [name for name in alike if shapes[name] != shapes[first]] or alike
        else:
            alike = [name for name in names if shapes[name] == shapes[first]]
        inputs = (first, *(alike[random.integers(len(alike))] for _ in needed[1:]))
        attributes = ATTRIBUTES.get(operation, lambda random, x: {})(random, shapes[first])
        if operation == "resize2d":  # as large as any other image, or as its attributes say
            inputs = (first,) if attributes else (first, names[random.integers(len(names))])
        if stem and not nodes:
            attributes |= {"kernel": (3, 3), "dilation": (1, 1), "groups": 1}
        try:
            parameters = kind.parameter_shapes(shapes[first][0], attributes, optional=bool(random.integers(2)))
            node = Node(name, operation, inputs, "body", parameters, attributes)
            shapes[name] = node.output_shape(shapes)
        except (IndexError, ValueError):  # a vector where it must be an image
            continue
        if stem:
            shapes.pop("input", None)
        nodes.append(node)
        for parameter, shape in node.tensors.items():
            values = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
            weights[parameter] = (np.abs(values) + 0.5 if "running_var" in parameter else values).astype(np.float32)
    chosen = random.choice(len(nodes), 3, replace=False)
    graph = Graph(tuple(nodes), outputs={f"out{number}": nodes[at].name for number, at in enumerate(chosen)})
    return graph, weights, random.standard_normal((2, *image)).astype(np.float32)


def by_definition(graph, weights, x):
    """Every node by itself, in float64: nothing fused, folded or planned."""
    tensors = {"input": np.moveaxis(x.astype(np.float64), 1, -1)}
    for node in graph:
        function = getattr(reference, node.kind.kernel(node))
        operands = node.kind.operands([tensors[name] for name in node.inputs])
        tensors[node.name] = function(**operands, **kernel_arguments(node, weights), **node.kind.keywords(node))
    return {name: np.moveaxis(tensors[node], -1, 1) for name, node in graph.outputs.items()}


def assert_like(found, expected):
    assert list(found) == list(expected)
    for name, one in expected.items():
        assert found[name].dtype == np.float32 and found[name].shape == one.shape
        np.testing.assert_allclose(found[name], one, rtol=0, atol=1e-4 * max(1, np.abs(one).max()), err_msg=name)


@compiled_only
@pytest.mark.parametrize("seed", GRAPHS)
def test_random_graphs(seed):
    graph, weights, x = random_graph(seed)
    expected = by_definition(graph, weights, x)
    assert_like(Engine(graph, weights, "reference").outputs(x, graph.output_names), expected)
    for backend in ("plain", "auto"):
        engine = Engine(graph, weights, backend)
        found = engine.outputs(x, graph.output_names)
        assert_like(found, expected)
        for threads in (1, 2):
            again = engine.outputs(x, graph.output_names[::-1], threads)
            one = engine.outputs(x[1:], graph.output_names, threads)
            for name in graph.output_names:
                assert np.array_equal(again[name], found[name]) and np.array_equal(one[name], found[name][1:])
                assert np.array_equal(engine.run(x, threads, name), found[name])


# After which layers of a MobileNetV2 something stands that the blocked kernels are told not to know (`slow_tanh`)
SLOW = ("stem.activation", "block3.depthwise.norm", "block5.project.norm", "block8.add")


def with_slow_layers(graph):
    """The graph with those layers."""
    nodes, renamed = [], {}
    for node in graph:
        node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
        nodes.append(node)
        if node.name in SLOW:
            nodes.append(Node(f"{node.name}.slow", "tanh", (node.name,), node.block))
            renamed[node.name] = nodes[-1].name
    return Graph(tuple(nodes))


@compiled_only
def test_a_layer_that_only_plain_loops_compute_leaves_the_rest_fast(slow_tanh):
    graph = with_slow_layers(get_architecture("mobilenet_v2").graph(0.5, 9))
    weights = random_weights(graph, 3)
    x = np.random.default_rng(1).standard_normal((3, 3, 61, 47)).astype(np.float32)
    names = ["logits", "block3", "block5", "stem", "block4.project", "block4.depthwise", "block5.project.norm"]
    expected = Engine(graph, weights, "reference").outputs(x, names)
    with pytest.warns(npmobilenet.FallbackWarning, match=r"plain loops compute \d of \d+ layers"):
        network = model(graph, weights)
    assert network.backend == "blocked" and set(network._engine.plain_layers) == {f"{name}.slow" for name in SLOW}
    assert "plain loops: " in repr(network)
    found = network.outputs(x, names)
    for one in names:
        np.testing.assert_allclose(found[one], expected[one], atol=1e-4 * max(1, np.abs(expected[one]).max()))
    for threads in (1, 2, 3):
        again = network._engine.outputs(x, names, threads)
        assert all(np.array_equal(again[one], found[one]) for one in names)
        assert all(np.array_equal(network._engine.run(x, threads, one), found[one]) for one in names)
    plan = network._engine.plan((61, 47), None, 2)
    seconds = plan.time_groups()
    assert list(seconds) == [group[-1].name for group in plan.groups] and all(one > 0 for one in seconds.values())
    with pytest.raises(ValueError, match="the backend 'blocked' cannot compute this network"):
        model(graph, weights, backend="blocked")


@compiled_only
def test_a_tensor_that_is_scaled_is_needed_unscaled_too():
    """Then squeeze-and-excitation cannot scale it in place; nor can an activation, where a part of it is needed."""
    graph = get_architecture("mobilenet_v3_small").graph(0.5, 9)
    squeeze = next(node for node in graph if node.operation == "squeeze_excite")
    both = Node("both", "add", (squeeze.name, squeeze.inputs[0]), squeeze.block)
    after = graph.nodes.index(squeeze) + 1
    rest = [replace(n, inputs=tuple("both" if i == squeeze.name else i for i in n.inputs)) for n in graph.nodes[after:]]
    graph = Graph((*graph.nodes[:after], both, *rest))
    weights = random_weights(graph, 3)
    x = np.random.default_rng(1).standard_normal((3, 3, 61, 47)).astype(np.float32)
    expected = Engine(graph, weights, "reference").run(x)
    engine = Engine(graph, weights, "blocked")
    for threads in (1, 2, 3):
        np.testing.assert_allclose(engine.run(x, threads), expected, atol=1e-4 * np.abs(expected).max())


BLOCKED = ("depthwise_conv2d", "mixed_depthwise_conv2d", *["pointwise_conv2d"] * 2, "global_average_pool", "linear")
BETWEEN = (
    "activation",
    "prelu",
    "leaky_relu",
    "elu",
    "tanh",
    "softmax",
    "batch_norm",
    "add",
    "broadcast_add",
    "multiply",
)
BETWEEN += ("channel_pad", "channel_select", "flatten", *["concat"] * 4)


@compiled_only
@pytest.mark.parametrize(
    "kinds",
    [BLOCKED, (*BLOCKED, "squeeze_excite"), (*BLOCKED, "conv2d", "squeeze_excite", *BETWEEN)],
    ids=["convolutions", "squeezed", "between"],
)
def test_random_graphs_on_the_blocked_kernels(kinds):
    """In one table: nothing is left to plain loops."""
    for seed in range(16):
        graph, weights, x = random_graph(seed, kinds, stem=True)
        engine, expected = Engine(graph, weights), by_definition(graph, weights, x)
        assert engine.backend == "blocked" and engine.fallback == ""
        found = engine.outputs(x, graph.output_names)
        assert_like(found, expected)
        for threads in (1, 2):
            engine.outputs(np.full_like(x, np.nan), graph.output_names[::-1], threads)
            again = engine.outputs(x, graph.output_names[::-1], threads)
            for name in graph.output_names:
                assert np.array_equal(again[name], found[name])
                assert np.array_equal(engine.run(x, threads, name), found[name])


def test_random_graphs_hold_every_operation():
    assert {node.operation for seed in GRAPHS for node in random_graph(seed)[0]} == OPERATIONS.keys()


@pytest.mark.parametrize("name", OPERATIONS)
def test_arguments_are_those_of_the_kernels(name):
    """Inputs, parameters and options by the names in the kernels' signature, with the axes that these check."""
    kind, random, x = OPERATIONS[name], np.random.default_rng(0), (12, 9, 8)
    if name in ("linear",):
        x = x[:1]
    attributes = ATTRIBUTES.get(name, lambda random, x: {})(random, x)
    assert set(attributes) <= {*kind.attributes, "channels"}
    assert all(attribute in attributes for attribute, value in kind.attributes.items() if value is REQUIRED)
    node = Node("n", name, ("a",), "body", kind.parameter_shapes(x[0], attributes, optional=True), attributes)
    weights = {parameter: np.ones(shape, np.float32) for parameter, shape in node.tensors.items()}
    inputs = operands(kind)[: 1 if {"size", "scale"} & set(attributes) else None]
    read = kind.operands([(2, *x[1:], x[0])] * len(inputs))
    arguments = {**read, **kernel_arguments(node, weights), **kind.keywords(node)}
    output = kind.output_shape(node, *[x] * len(inputs))
    assert registry.output_shape(kind.kernel(node), **arguments) == (2, *output[1:], output[0])
    assert node.macs(output) * 2 == registry.macs(kind.kernel(node), **arguments)
    assert isinstance(kind.text(node), str)


def model(graph, weights, **options):
    return npmobilenet.Model(graph, weights, architecture="custom", **options)


def test_unknown_operations_and_missing_attributes():
    with pytest.raises(ValueError, match="no operation 'gelu'; there are conv2d, depthwise_conv2d, "):
        Node("n", "gelu", ("input",), "b")
    with pytest.raises(ValueError, match="the node 'n', conv2d, must have the attribute 'kernel'"):
        Node("n", "conv2d", ("input",), "b", {}, {"channels": 3})
    assert Node("n", "squeeze_excite", ("input",), "b", {}, {"channels": 3, "reduced": 1})["activation"] == "relu"


@pytest.mark.parametrize(
    ("nodes", "outputs", "message"),
    [
        ([("a", ("b",)), ("b", ("input",))], {}, "the node 'a' reads 'b', which is no node before it"),
        ([("a", ("input",)), ("a", ("input",))], {}, "the node 'a' is there twice"),
        ([("a", ("input",))], {"y": "b"}, "the output 'y' is the node 'b', which is not there"),
        ([("a", ("input",))], {"y": "input"}, "the output 'y' is the node 'input', which is not there"),
    ],
)
def test_graphs_that_are_none(nodes, outputs, message):
    with pytest.raises(ValueError, match=message):
        Graph(tuple(Node(name, "tanh", inputs, "b") for name, inputs in nodes), outputs=outputs)


@pytest.mark.parametrize(
    ("operation", "attributes", "parameters", "message"),
    [
        ("linear", {"channels": 2}, {}, r"does not fit n: it takes a vector \(C,\), got \(3, 9, 8\)"),
        ("concat", {}, {}, r"it takes tensors that differ in nothing but channels, got \(3, 9, 8\), \(3,\)"),
        ("add", {}, {}, r"it takes two tensors of one shape, got \(3, 9, 8\) and \(3,\)"),
        ("prelu", {"slopes": (5,)}, {}, r"its slopes must have the shape \(1,\), \(3,\) or \(3, 9, 8\), got \(5,\)"),
        ("prelu", {}, {"weight": (4,)}, r"its weight has shape \(4,\), expected \(3,\)"),
        ("tanh", {}, {"weight": (4,)}, r"its weight has shape \(4,\), expected None"),
    ],
)
def test_nodes_that_do_not_fit(operation, attributes, parameters, message):
    inputs = ("input", "v") if operation in ("add", "concat") else ("input",)
    node = Node("n", operation, inputs, "b", parameters, attributes)
    with pytest.raises(ValueError, match=message):
        Graph((Node("v", "global_average_pool", ("input",), "b"), node)).shapes((9, 8))


def test_an_output_is_what_its_node_gives_though_more_is_computed_after_it():
    """Batch norm and activation are not merged into a convolution whose own result is wanted."""
    graph = get_architecture("mobilenet_v2").graph(0.25, 7)
    named = Graph(graph.nodes, outputs={"raw": "stem", "mid": "block2.expand.norm", "sum": "block3.add"})
    weights, x = random_weights(graph, 5), np.random.default_rng(0).standard_normal((2, 3, 20, 24)).astype(np.float32)
    expected = by_definition(named, weights, x)
    for backend in ("auto", "plain", "reference"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", npmobilenet.FallbackWarning)
            network = model(named, weights, backend=backend)
        found = network.run({"input": x})
        assert network.output_names == ("raw", "mid", "sum")
        assert_like(found, expected)
        logits = Engine(graph, weights, "reference").run(x)
        np.testing.assert_allclose(network(x), logits, atol=1e-4 * np.abs(logits).max())
        np.testing.assert_allclose(network.outputs(x, ["logits"])["logits"], logits, atol=1e-4 * np.abs(logits).max())


@compiled_only
@pytest.mark.parametrize("backend", ["blocked", "plain", "reference"])
def test_outputs_of_a_network(backend):
    graph = get_architecture("mobilenet_v2").graph(0.25, 7)
    network = model(graph, random_weights(graph, 5), backend=backend)
    x = np.random.default_rng(0).standard_normal((3, 3, 33, 40)).astype(np.float32)
    assert network.backend == backend and network.output_names == ("logits",)
    names = ["logits", "block3", "block13.expand", "block3.add", "pool"]
    found = network.outputs(x, names)
    assert list(found) == names
    assert np.array_equal(found["block3"], found["block3.add"])  # by the block's name, and by its last layer's
    for threads in (1, 2):
        for name, one in network.outputs(x, names, threads=threads).items():
            assert one.dtype == np.float32 and np.array_equal(one, found[name])
            assert np.array_equal(network.features(x, name, threads=threads), one)
        assert np.array_equal(network(x, threads=threads), found["logits"])
    assert np.array_equal(network.run({"input": x})["logits"], found["logits"])
    assert network.outputs(x, []) == {} and network.outputs(x[:0], ["pool"])["pool"].shape == (0, 1280)


def test_outputs_that_are_not_there():
    graph = get_architecture("mobilenet_v2").graph(0.25, 7)
    network = model(graph, random_weights(graph, 5), backend="reference")
    x = np.zeros((1, 3, 32, 32), np.float32)
    with pytest.raises(
        ValueError, match=r"no block 'blok13.expand'; there are: stem, .*; the nearest: block13.expand, "
    ):
        network.outputs(x, ["block3", "blok13.expand"])
    with pytest.raises(ValueError, match=r"names must be a list, such as \['block3'\], got 'block3'"):
        network.outputs(x, "block3")
    for inputs, given in (({"image": x}, "'image'"), ({}, "none"), ({"input": x, "mask": x}, "'input', 'mask'")):
        with pytest.raises(ValueError, match=f"the network has one input, 'input', got {given}$"):
            network.run(inputs)


def test_logits_of_a_block_of_another_name():
    """A classifier without a linear layer, beside another output; the softmax does not tell how many classes it has."""
    window = {"channels": 4, "kernel": (3, 3)}
    nodes = (
        Node("c", "conv2d", ("input",), "body", {"weight": (4, 3, 3, 3)}, window),
        Node("pool", "global_max_pool", ("c",), "end"),
        Node("probabilities", "softmax", ("pool",), "end"),
        Node("map", "tanh", ("c",), "other"),
    )
    random = np.random.default_rng(1)
    weights = {"c.weight": random.standard_normal((4, 3, 3, 3)).astype(np.float32)}
    x = random.standard_normal((2, 3, 6, 5)).astype(np.float32)
    for outputs, classes in (({"logits": "pool"}, None), ({"map": "map", "logits": "probabilities"}, list("abcd"))):
        graph = Graph(nodes, outputs=outputs)
        network = model(graph, weights, backend="reference", classes=classes)
        expected = by_definition(graph, weights, x)
        assert_like(network.run({"input": x}), expected)
        assert np.array_equal(network(x), network.run({"input": x})["logits"])
        best = network.top(network(x), 1)[0][0]
        assert best.label == (classes[best.index] if classes else f"class {best.index}")
    only = model(Graph(nodes, outputs={"map": "map"}), weights, backend="reference")
    assert np.array_equal(only(x), only.run({"input": x})["map"])
    with pytest.raises(CheckpointError, match="has no classifier, so that there are no logits"):
        model(Graph(nodes, outputs={"map": "map", "c": "c"}), weights, backend="reference")(x)


def test_an_activation_that_no_kernel_ends_with_stays_a_node():
    graph = Graph((
        Node("c", "pointwise_conv2d", ("input",), "b", {"weight": (4, 3, 1, 1)}, {"channels": 4}),
        Node("t", "activation", ("c",), "b", {}, {"function": "tanh"}),
        Node("r", "activation", ("t",), "b", {}, {"function": "relu"}),
    ))  # fmt: skip
    assert [node.name for node in fuse(graph)] == ["c", "t", "r"]
    weights, x = {"c.weight": np.ones((4, 3, 1, 1), np.float32)}, np.ones((1, 3, 2, 2), np.float32)
    for backend in ("plain", "reference"):
        np.testing.assert_allclose(Engine(graph, weights, backend).run(x), np.tanh(3.0), rtol=1e-6)


def test_features_alone_are_an_output_by_their_blocks_name():
    graph = get_architecture("mobilenet_v2").graph(0.25, 7).up_to("pool")
    network = model(graph, random_weights(graph, 5), backend="reference")
    x = np.ones((1, 3, 32, 32), np.float32)
    assert network.output_names == ("pool",)
    assert np.array_equal(network.run({"input": x})["pool"], network.features(x))


@compiled_only
def test_plain_loops_in_place_of_the_fastest_kernels_are_said():
    graph, weights, x = random_graph(0)
    graph = Graph(tuple(node for node in graph if node.name == "n0"))  # tanh of the image
    with pytest.warns(npmobilenet.FallbackWarning, match="plain loops compute this network, several times") as said:
        network = model(graph, weights)
    assert len(said) == 1 and "\n" not in str(said[0].message)
    assert network.backend == "plain" and "backend='plain'" in repr(network)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copy = pickle.loads(pickle.dumps(network))
        assert copy.backend == "plain" and np.array_equal(
            copy.run({"input": x})["body"], network.run({"input": x})["body"]
        )
        asked = model(graph, weights, backend="plain")
        assert asked.backend == "plain"
