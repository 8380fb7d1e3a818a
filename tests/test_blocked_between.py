"""What stands between convolutions, on blocked tensors: in place where it may be, concatenated without a copy."""

from __future__ import annotations

import numpy as np
import pytest

from npmobilenet.blocked.program import BlockedProgram
from npmobilenet.engine import Engine
from npmobilenet.graph import Graph, Node
from npmobilenet.operations import OPERATIONS
from tests.conftest import compiled_only

pytestmark = compiled_only
SIZE = (13, 17)
STEM = ("stem", "conv2d", "input", {"channels": 32, "kernel": (3, 3), "padding": 1})


def convolution(name, x, channels, kernel=1, **attributes):
    window = {"channels": channels, "kernel": (kernel, kernel), "padding": kernel // 2}
    return name, "pointwise_conv2d" if kernel == 1 else "conv2d", x, window | attributes


def depthwise(name, x, channels, kernel):
    return name, "depthwise_conv2d", x, {"channels": channels, "kernel": (kernel, kernel), "padding": kernel // 2}


def graph_of(*layers, outputs=()):
    """Layers (name, operation, inputs, attributes) after the stem, the last an output, and its weights."""
    nodes, weights, shapes, random = [], {}, {"input": (3, *SIZE)}, np.random.default_rng(5)
    for name, operation, inputs, *rest in (STEM, *layers):
        attributes, inputs = rest[0] if rest else {}, tuple(inputs.split())
        kind = OPERATIONS[operation]
        parameters = kind.parameter_shapes(shapes[inputs[0]][0], attributes, optional=True)
        nodes.append(Node(name, operation, inputs, "body", parameters, attributes))
        shapes[name] = nodes[-1].output_shape(shapes)
        for parameter, shape in nodes[-1].tensors.items():
            values = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
            weights[parameter] = (np.abs(values) + 0.5 if "running_var" in parameter else values).astype(np.float32)
    return Graph(tuple(nodes), outputs={name: name for name in (*outputs, nodes[-1].name)}), weights


def checked(graph, weights):
    """Compare all outputs with the definition, on any number of threads, and after NaN has been everywhere.

    Returns the plan for all of them.
    """
    x = np.random.default_rng(1).standard_normal((2, 3, *SIZE)).astype(np.float32)
    names = list(graph.outputs)
    expected, engine = Engine(graph, weights, "reference").outputs(x, names), Engine(graph, weights)
    assert engine.backend == "blocked" and engine.fallback == ""
    found = engine.outputs(x, names)
    engine.outputs(np.full_like(x, np.nan), names)
    for name in names:
        assert np.abs(found[name] - expected[name]).max() <= 1e-5 * max(1, np.abs(expected[name]).max()), name
        for threads in (1, 2, 3):
            assert np.array_equal(engine.outputs(x, names, threads)[name], found[name])
            assert np.array_equal(engine.run(x, threads, name), found[name])
    return BlockedProgram(graph, weights).plan(SIZE, tuple(names))


def calls(plan):
    """How many calls each group has, by its last node."""
    (lengths,) = plan._idle[0].lengths
    return dict(zip((group[-1].name for group in plan.groups), lengths, strict=True))


def begins(plan, name):
    return plan._offsets[name]


BRANCHES = (convolution("a", "stem", 32), convolution("b", "stem", 16, 3), convolution("c", "stem", 9))


def test_concatenation_without_a_copy():
    graph, weights = graph_of(*BRANCHES, ("concat", "concat", "a b c"), convolution("last", "concat", 16))
    plan = checked(graph, weights)
    pixels, begin = SIZE[0] * SIZE[1], begins(plan, "concat")
    assert calls(plan)["concat"] == 0
    assert [begins(plan, name) - begin for name in "abc"] == [0, 32 * pixels, 48 * pixels]
    # In memory at one time: its blocks once, the stem, and the stem inside a frame.
    blocks = -(-57 // plan.target.lanes) * plan.target.lanes
    assert plan._arena_values <= (blocks + 32) * pixels + 32 * (SIZE[0] + 2) * (SIZE[1] + 2) + 64


def test_concatenation_inside_the_frame_of_a_convolution_that_reads_it():
    graph, weights = graph_of(*BRANCHES, ("concat", "concat", "a b c"), convolution("last", "concat", 16, 5))
    plan = checked(graph, weights)
    assert plan.tensors["concat"].padded
    assert calls(plan)["concat"] == 0


def test_channels_that_are_no_whole_blocks_are_copied():
    graph, weights = graph_of(*BRANCHES, ("concat", "concat", "c a b c"), convolution("last", "concat", 16, 3))
    assert calls(checked(graph, weights))["concat"] == 2  # the frame, and all tensors


@pytest.mark.parametrize(
    ("layers", "copied"),
    [
        pytest.param([("concat", "concat", "a a b")], 1, id="one of them twice"),
        pytest.param([("concat", "concat", "a")], 0, id="alone"),
        pytest.param([("concat", "concat", "a b"), convolution("other", "a", 7)], 0, id="read by others too"),
        pytest.param([("first", "concat", "a b"), ("concat", "concat", "b a")], 2, id="of two concatenations"),
        pytest.param([("first", "concat", "a b"), ("concat", "concat", "first b")], 1, id="of one inside another"),
        pytest.param([("first", "concat", "a b"), ("concat", "concat", "first c")], 0, id="concatenated again"),
        pytest.param([("first", "concat", "b a"), ("concat", "concat", "first first c")], 1, id="again, twice"),
        pytest.param(
            [("r", "activation", "a", {"function": "sigmoid"}), ("concat", "concat", "r b")], 0, id="made in place"
        ),
        pytest.param(
            [("s", "squeeze_excite", "a", {"channels": 32, "reduced": 4}), ("concat", "concat", "s b")], 0, id="scaled"
        ),
        pytest.param([("p", "channel_pad", "c", {"before": 3, "after": 4}), ("concat", "concat", "p b")], 0, id="pad"),
    ],
)
@pytest.mark.parametrize("kernel", [1, 3])
def test_concatenations(layers, copied, kernel):
    """Every tensor is an output as well, in one of two graphs."""
    for outputs in ([name for name, *_ in layers], [name for name, *_ in (*BRANCHES, *layers)]):
        last = convolution("last", "concat", 8, kernel)
        graph, weights = graph_of(*BRANCHES, *layers, last, outputs=outputs)
        plan = checked(graph, weights)
        if kernel == 1:
            assert calls(plan)["concat"] == copied


def test_a_tensor_that_another_layer_needs_in_another_frame_is_copied():
    layers = [depthwise("other", "a", 32, 5), ("concat", "concat", "a b"), convolution("last", "concat", 8, 3)]
    graph, weights = graph_of(*BRANCHES[:2], *layers, outputs=["other"])
    assert calls(checked(graph, weights))["concat"] == 2  # the frame of its part, and the tensor


@pytest.mark.parametrize("kept", ["", "a", "concat"])
def test_what_is_needed_later_is_not_overwritten_in_place(kept):
    """An activation of a concatenation, when a part of it, or all of it, is needed after it."""
    layers = [*BRANCHES[:2], ("concat", "concat", "a b"), ("after", "tanh", "concat")]
    layers += [convolution("kept", kept, 5)] * bool(kept)
    graph, weights = graph_of(*layers, convolution("last", "after", 8), outputs=["kept"] * bool(kept))
    plan = checked(graph, weights)
    assert (begins(plan, "after") == begins(plan, "concat")) == (not kept)
    graph, weights = graph_of(*layers, convolution("last", "after", 8), outputs=[kept] * bool(kept))
    plan = checked(graph, weights)
    assert (begins(plan, "after") == begins(plan, "concat")) == (not kept)


def test_a_chain_of_functions_is_computed_in_place():
    """Inside the frame of the convolution after it, which the one before it has cleared."""
    functions = ("tanh", "elu", "leaky_relu", "batch_norm", "prelu")
    chain = [(name, name, before) for name, before in zip(functions, ("first", *functions), strict=False)]
    graph, weights = graph_of(convolution("first", "stem", 20), *chain, depthwise("last", "prelu", 20, 5))
    plan = checked(graph, weights)
    assert plan.tensors["first"].padded
    assert {begins(plan, name) for name in functions} == {begins(plan, "first")}
    assert [calls(plan)[name] for name in functions] == [1] * 5


@pytest.mark.parametrize("function", ["swish", "hard_swish", "sigmoid", "hard_sigmoid", "relu6"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_residual_after_an_activation(function, kernel):
    """Of a pointwise convolution fused with it, of a dense one added in place."""
    layers = convolution("a", "stem", 32, kernel), ("act", "activation", "a", {"function": function})
    graph, weights = graph_of(*layers, ("sum", "add", "act stem"), depthwise("last", "sum", 32, 3))
    plan = checked(graph, weights)
    if kernel == 3:
        assert begins(plan, "sum") == begins(plan, "a")


@pytest.mark.parametrize("slopes", [None, (1,), (32, *SIZE)])
def test_slopes_of_rectifiers(slopes):
    graph, weights = graph_of(("prelu", "prelu", "stem", {"slopes": slopes}), convolution("last", "prelu", 7, 3))
    checked(graph, weights)


@pytest.mark.parametrize("operation", ["multiply", "broadcast_add"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_operands_of_other_shapes(operation, kernel):
    """A vector, one channel for all, a scalar, a single row and column; what fills up blocks stays zeros."""
    window = {"channels": 32, "padding": 0}
    layers = [
        ("vector", "global_average_pool", "stem"),
        ("few", "linear", "vector", {"channels": 1}),
        convolution("map", "stem", 1),
        ("row", "depthwise_conv2d", "stem", window | {"kernel": (SIZE[0], 1)}),
        ("column", "depthwise_conv2d", "stem", window | {"kernel": (1, SIZE[1])}),
        ("pixel", "depthwise_conv2d", "stem", window | {"kernel": SIZE}),
    ]
    for other in ("vector", "few", "map", "row", "column", "pixel"):
        graph, weights = graph_of(*layers, ("y", operation, f"stem {other}"), convolution("last", "y", 7, kernel))
        checked(graph, weights)


def test_the_lanes_beyond_the_channels_stay_zeros():
    """A sigmoid of 0 is 0.5, which a mean or a sum over channels must not see."""
    layers = [
        convolution("few", "stem", 5),
        ("half", "activation", "few", {"function": "sigmoid"}),
        ("shifted", "broadcast_add", "half one"),
        ("share", "softmax", "shifted"),
        ("pool", "global_average_pool", "share"),
        ("again", "activation", "pool", {"function": "sigmoid"}),
        ("last", "softmax", "again"),
    ]
    graph, weights = graph_of(convolution("one", "stem", 1), *layers, outputs=["share", "half", "shifted"])
    plan = checked(graph, weights)
    work = plan._idle[0]
    plan.run(np.ones((3, *SIZE), np.float32))
    for name in ("last", "share"):
        begin, tensor = plan._offsets[name], plan.tensors[name]
        lanes = tensor.view(work.arena[begin:])[-1, ..., 5 % tensor.lanes :]
        assert tensor.lanes == 4 or not lanes.any()


@pytest.mark.parametrize("layers", [[("pool", "global_average_pool", "stem")], [("pool", "flatten", "stem")]])
def test_a_classifier_of_pixels(layers):
    """The vector's order is PyTorch's, channel after channel."""
    graph, weights = graph_of(*layers, ("last", "linear", "pool", {"channels": 11}))
    checked(graph, weights)


def test_a_pool_of_one_pixel_is_flattened():
    window = {"channels": 32, "kernel": SIZE, "padding": 0}
    layers = [("one", "depthwise_conv2d", "stem", window), ("flat", "flatten", "one")]
    graph, weights = graph_of(*layers, ("last", "linear", "flat", {"channels": 11}))
    checked(graph, weights)
