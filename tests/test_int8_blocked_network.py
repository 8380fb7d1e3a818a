"""Quantised networks on the blocked kernels: the bits of the plain ones, layer by layer or strip by strip."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numba
import numpy as np
import pytest

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.blocked.program import BlockedProgram, UnsupportedGraphError
from npmobilenet.cli import warmup
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.int8 import inverted_residual
from npmobilenet.kernels.vector.target import host
from npmobilenet.passes import fuse
from npmobilenet.passes_int8 import quantized
from npmobilenet.plan import Program
from npmobilenet.statistics import promised

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="explicit vectors are machine code")
SIZE = (47, 81)


def network(name: str, width: float):
    """A quantised network with few classes, of random weights, and an image."""
    graph = get_architecture(name).graph(width, 7)
    weights = random_weights(graph, 3)
    known = promised(fuse(graph), weights)
    return *quantized(graph, weights, known, known, 2.65), np.random.default_rng(8).standard_normal(
        (3, *SIZE), np.float32
    )


NETWORKS = {  # how wide, and as far as which output: MixNet's later blocks have many more windows to compile
    "mobilenet_v2": (0.75, "logits"),
    "mobilenet_v1": (0.5, "logits"),
    "mobilenet_v3_small": (1.0, "logits"),
    "mixnet_s": (1.0, "block5"),
}


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    width, last = NETWORKS[request.param]
    graph, weights, image = network(request.param, width)
    outputs = (last, *list(graph.blocks)[1:4])
    return graph, weights, image, outputs, run_all(Program(graph, weights, "plain").plan(SIZE, outputs), image)


def run_all(plan, image):
    """All outputs of an image."""
    results = [np.empty(shape, np.float32) for shape in plan.output_shapes]
    plan.run_into(image, results)
    return results


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("fused", [True, False])
def test_bits_are_those_of_plain_kernels(case, threads, fused):
    graph, weights, image, outputs, expected = case
    program = BlockedProgram(graph, weights)
    for wanted in (outputs, outputs[:1]):
        plan = program.plan(SIZE, wanted, threads=threads, fused=fused)
        for _ in range(2):
            results = run_all(plan, image)
            assert all(np.array_equal(a, b) for a, b in zip(results, expected, strict=False))
            image_of_zeros = run_all(plan, np.zeros_like(image))  # nothing of the image before is left
        assert not np.array_equal(image_of_zeros[0], results[0])


@pytest.mark.parametrize("scratch", [1, 9000, 40000])
@pytest.mark.parametrize("threads", [1, 2])
def test_strips_of_any_height(case, monkeypatch, scratch, threads):
    graph, weights, image, outputs, expected = case
    monkeypatch.setattr(inverted_residual, "SCRATCH_BYTES", scratch)
    plan = BlockedProgram(graph, weights).plan(SIZE, outputs[0], threads=threads)
    assert np.array_equal(plan.run(image), expected[0])


def test_blocks_are_one_call_each():
    graph, weights, _ = network("mobilenet_v2", 0.75)
    program = BlockedProgram(graph, weights)
    plan, layers = (program.plan((224, 224), fused=fused) for fused in (True, False))
    assert [len(group) for group in plan.groups] == [3] * 17 + [1] * 3
    assert {len(group) for group in layers.groups} == {1}
    assert plan.memory < layers.memory / 2
    # What the next block alone reads leaves a block quantised, and is float32 nowhere.
    assert {"block1.project", "block3.project", "block6.project"} <= set(plan.left)
    assert not set(plan.left) & {"block2.project", "block4.project", *plan._offsets}


def test_layers_between_conversions():
    """The first residual of so narrow a network is of the stem's bytes."""
    graph, weights, image = network("mobilenet_v2", 0.25)
    assert "stem.dequantized" in {node.name for node in graph}
    expected = Program(graph, weights, "plain").plan(SIZE).run(image)
    assert np.array_equal(BlockedProgram(graph, weights).plan(SIZE, threads=2).run(image), expected)


def test_squeeze_and_excitation_is_two_calls():
    """What it scales stands nowhere in float32, and what is expanded nowhere in bytes but in the scratch."""
    graph, weights, _ = network("mobilenet_v3_small", 1.0)
    groups = [[node.operation for node in group] for group in BlockedProgram(graph, weights).plan((224, 224)).groups]
    assert groups[:2] == [
        ["conv2d_int8", "depthwise_conv2d_int8"],
        ["squeeze_excite_int8", "pointwise_conv2d_int8"],
    ]
    assert ["squeeze_excite_int8"] not in groups


def test_warmup_compiles_all_that_other_networks_need(monkeypatch):
    """Nothing is compiled here: a plan is made, and which libraries it asks for is written down."""
    asked: set[str] = set()
    functions = SimpleNamespace(address=lambda name: 64)
    monkeypatch.setattr(library, "_library", lambda name, *_: asked.add(name) or functions)

    def libraries(*names: str) -> set[str]:
        asked.clear()
        for name in names:
            graph, weights, _ = network(name, 0.25)
            target = replace(host(), features=f"{host().features},+of-{names[0]}")  # for which nothing is made yet
            BlockedProgram(graph, weights, target, strict=False).plan((96, 96))
        return set(asked)

    warm = libraries(*warmup.networks("int8"))
    assert {"int8", "int8_squeeze_excite", "int8_swish", "int8_stem_3x3_s1x1_clamp"} <= warm
    for name in ("mobilenet_v3_large", "efficientnet_b0", "lraspp_mobilenet_v3_large", "mobilenet_v2_stages"):
        assert not {each for each in libraries(name) if each.startswith("int8")} - warm, name


def test_what_these_kernels_cannot_compute():
    graph, weights, image = network("mobilenet_v1", 0.125)
    dilated = [node.with_attributes(dilation=(2, 2)) if node.name == "stem" else node for node in graph.nodes]
    graph = replace(graph, nodes=tuple(dilated))
    with pytest.raises(UnsupportedGraphError, match="with dilation or groups"):
        BlockedProgram(graph, weights)
    program = BlockedProgram(graph, weights, strict=False)
    assert 0 < len(program.problems) < len(graph.nodes)
    expected = Program(graph, weights, "plain").plan(SIZE).run(image)
    assert np.array_equal(program.plan(SIZE, threads=2).run(image), expected)
