"""Graphs, fusion and batch norm folding."""

from dataclasses import replace

import numpy as np
import pytest
from numba import config

from npmobilenet.architectures import ARCHITECTURES, get_architecture, random_weights
from npmobilenet.engine import Engine
from npmobilenet.graph import Graph, Node
from npmobilenet.passes import folded_parameters, fuse, without_norms
from npmobilenet.plan import Program, plan_arena

HEAD = ("conv_k1_c32", "pool", "linear")
CONVOLUTION = {
    "channels": 4,
    "kernel": (1, 1),
    "stride": (1, 1),
    "dilation": (1, 1),
    "groups": 1,
    "padding": "symmetric",
}


def convolution(name, source):
    return Node(name, "pointwise_conv2d", (source,), "b", {"weight": (4, 4, 1, 1)}, CONVOLUTION)


# Their layers have biases in place of norms, and sums and gates stand between them
OTHERS = {"ssd_mobilenet_v1_face", "tiny_face_detector", "face_expression", "selfie_segmentation", "faceres"}
OTHERS |= {"centernet_mobilenet_v3_large"}


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_fusion_keeps_what_stands_between(name):
    graph = get_architecture(name).graph()
    fused = fuse(graph)
    assert "batch_norm" not in {node.operation for node in fused} and fused.tensors == graph.tensors
    assert len(fused.nodes) + len(fused.merged) <= len(graph.nodes)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in OTHERS])
def test_fusion_leaves_only_convolutions_and_the_head(name):
    fused = fuse(get_architecture(name).graph())
    assert not {"batch_norm", "activation", "add"} & {node.operation for node in fused}
    if not get_architecture(name).conventions.norms:
        assert all(node["activation"] == "relu" for node in fused if node.operation == "conv2d")
        return
    of_heads = ("scores", "earlier_scores", "gate", *(f"{what}{n}" for what in ("boxes", "scores") for n in range(6)))
    assert all("norm" in node.attributes for node in fused if node.windows and not node.name.endswith(of_heads))
    assert fused.tensors == get_architecture(name).graph().tensors


def test_fused_mobilenet_v2():
    fused = fuse(get_architecture("mobilenet_v2").graph())
    assert len(fused.nodes) == 1 + 2 + 16 * 3 + 1 + 2  # stem, block 1, blocks 2 to 17, head, pool and classifier
    project = fused["block3.project"]
    assert project.inputs == ("block3.depthwise", "block2.project")
    assert project["residual"] and "activation" not in project.attributes
    assert fused["block3.expand"]["activation"] == "relu6"
    assert "residual" not in fused["block2.project"].attributes


def test_what_two_read_is_not_fused_away():
    """An activation between a convolution and two readers may go; a convolution that both read may not."""
    nodes = (
        convolution("a", "input"),
        Node("act", "activation", ("a",), "b", attributes={"function": "relu"}),
        convolution("b", "a"),
        Node("add", "add", ("b", "act"), "b"),
    )
    fused = fuse(Graph(nodes, 4))
    assert [node.name for node in fused] == ["a", "act", "b"]
    assert fused["b"].inputs == ("a", "act")


def test_an_add_waits_for_its_other_input():
    nodes = (convolution("a", "input"), convolution("b", "input"), Node("add", "add", ("a", "b"), "b"))
    assert [node.name for node in fuse(Graph(nodes, 4))] == ["a", "b", "add"]


def test_a_second_activation_or_norm_is_not_fused():
    norm = Node("n", "batch_norm", ("act",), "b", {}, {"eps": 1e-5})
    nodes = (
        convolution("a", "input"),
        Node("act", "activation", ("a",), "b", attributes={"function": "relu"}),
        norm,
    )
    assert [node.name for node in fuse(Graph(nodes, 4))] == ["a", "n"]


def test_folding_is_batch_norm_after_convolution():
    graph = get_architecture("mobilenet_v2").graph(0.25, 3, bn_eps=1e-3)
    weights = random_weights(graph, 3)
    weight, bias = folded_parameters(fuse(graph)["block2.expand"], weights)
    x = np.random.default_rng(0).standard_normal(weight.shape[1])
    raw = weights["block2.expand.weight"][:, :, 0, 0].astype(np.float64) @ x
    gamma, beta, mean, var = (
        weights[f"block2.expand.norm.{n}"].astype(np.float64) for n in ("weight", "bias", "running_mean", "running_var")
    )
    expected = (raw - mean) / np.sqrt(var + 1e-3) * gamma + beta
    np.testing.assert_allclose(weight[:, :, 0, 0] @ x + bias, expected, rtol=1e-12, atol=1e-12)


def test_folding_in_parts():
    """The channels of a norm belong to the parts of a mixed convolution, and to groups, in order."""
    graph = get_architecture("mixnet_s").graph(num_classes=3)
    weights, fused = random_weights(graph, 3), fuse(graph)
    for name, inputs in (("block4.depthwise", None), ("block2.project", 48)):
        weight, bias = folded_parameters(fused[name], weights)
        parts = weight if inputs is None else np.split(weight, 2)
        norm = [
            weights[f"{name}.norm.{n}"].astype(np.float64) for n in ("weight", "bias", "running_mean", "running_var")
        ]
        scale = norm[0] / np.sqrt(norm[3] + 1e-5)
        np.testing.assert_allclose(bias, norm[1] - norm[2] * scale, rtol=1e-12)
        for number, part in enumerate(parts):
            own = weights[f"{name}.{number}.weight"].astype(np.float64)
            part_scale = np.split(scale, len(parts))[number]  # the parts are equal
            np.testing.assert_allclose(part, own * part_scale[:, None, None, None], rtol=1e-12)
        assert inputs is None or weight.shape == (24, inputs, 1, 1)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mixnet_s", "mixnet_m", "mobilenet_v3_small"])
def test_without_norms_a_network_is_the_same(name):
    """With mixed convolutions, and pointwise ones of several groups, too."""
    graph = get_architecture(name).graph(0.35, 5)
    weights = random_weights(graph)
    bare, folded = without_norms(graph, weights)
    assert not [node for node in bare if node.operation == "batch_norm"]
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)
    expected, found = (Engine(*one, "reference").run(x) for one in ((graph, weights), (bare, folded)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_linear_layer_takes_an_activation():
    fused = fuse(get_architecture("mobilenet_v3_small").graph())
    assert fused["hidden"]["activation"] == "hard_swish" and "activation" not in fused["classifier"].attributes
    assert fused["block1.squeeze"].inputs == ("block1.depthwise",)


@pytest.mark.parametrize(
    ("architecture", "blocked"),
    [
        (get_architecture("mobilenet_v2"), True),
        (get_architecture("mobilenet_v2").with_mixed(5, dilated=True), True),
        (get_architecture("mobilenet_v2").with_mixed((3, 5)), True),
        (get_architecture("efficientnet_lite0"), True),
        (get_architecture("efficientnet_b0"), True),
        (get_architecture("mnasnet_b1"), True),
        (get_architecture("mixnet_s"), True),
        (get_architecture("mobilenet_v3_small"), True),
        (replace(get_architecture("mobilenet_v2"), rows=("conv_k3_s2_c16", "inverted_e6_a1.1_c16", *HEAD)), True),
        (replace(get_architecture("mobilenet_v2"), rows=("conv_k3_s2_c16", "pool", "linear_c32", "linear")), True),
        (replace(get_architecture("mobilenet_v2"), rows=("conv_k3_s2_c16", "conv_k3_s2_c16", *HEAD)), True),
        (replace(get_architecture("mobilenet_v2"), rows=("conv_k5_s2_c16", *HEAD)), True),
        (replace(get_architecture("mobilenet_v2"), rows=("separable_k3_s2_c16", *HEAD)), False),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_what_the_blocked_kernels_leave_to_the_plain_ones(architecture, blocked):
    """Depthwise convolutions of the image."""
    graph = architecture.graph(0.25 if architecture.width == 1 else 1.0, 3)
    weights = random_weights(graph, 1)
    x = np.random.default_rng(0).standard_normal((1, 3, 40, 40)).astype(np.float32)
    engine = Engine(graph, weights, "auto")
    if not config.DISABLE_JIT:
        assert engine.backend == "blocked" and (engine.fallback == "") is blocked
        expected = Engine(graph, weights, "reference").run(x)
        np.testing.assert_allclose(engine.run(x), expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))


def test_up_to_a_block():
    graph = fuse(get_architecture("mobilenet_v2").graph())
    part = graph.up_to("block2")
    assert part.nodes[-1].name == "block2.project" and len(part.nodes) == 6
    assert graph.up_to("block2.expand").nodes[-1].name == "block2.expand"
    with pytest.raises(ValueError, match="no block 'block99'; there are: stem, block1, block2"):
        graph.up_to("block99")


def test_lookup_by_name():
    graph = get_architecture("mobilenet_v2").graph()
    assert graph["block5.depthwise"]["kernel"] == (3, 3)
    with pytest.raises(KeyError):
        graph["nothing"]


@pytest.mark.parametrize(("name", "size"), [("mobilenet_v2", (224, 224)), ("mobilenet_v1", (65, 97))])
def test_arena_keeps_living_tensors_apart(name, size):
    graph = fuse(get_architecture(name).graph())
    plan = Program(graph, random_weights(graph), "reference").plan(size)
    order = ["input", *(node.name for node in graph)]
    last = {n: max([order.index(n), *(order.index(m.name) for m in graph if n in m.inputs)]) for n in order}
    ends = {n: plan.offsets[n] + 4 * int(np.prod(plan.shapes[n])) for n in order}
    for i, one in enumerate(order):
        for two in order[i + 1 :]:
            if last[one] >= order.index(two):
                assert ends[one] <= plan.offsets[two] or ends[two] <= plan.offsets[one], (one, two)
    assert max(ends.values()) <= plan.memory


def test_planned_memory_is_the_papers_minimum():
    """1801.04381, section 5.1: op by op, no plan can need less than 1,505,280 values at 224."""
    graph = fuse(get_architecture("mobilenet_v2").graph())
    shapes = {name: (1, *shape[1:], shape[0]) for name, shape in graph.shapes((224, 224)).items()}
    assert plan_arena(graph, {name: 4 * np.prod(shape) for name, shape in shapes.items()})[1] == 4 * 1_505_280
