"""Graphs on the blocked kernels: the same bits, however a network is cut into calls, strips, chunks and threads."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.architectures.blocks import Builder, Row
from npmobilenet.blocked import calls
from npmobilenet.blocked import plan as blocked_plan
from npmobilenet.blocked.plan import BlockedPlan
from npmobilenet.blocked.program import BlockedProgram, UnsupportedGraphError
from npmobilenet.engine import Engine
from npmobilenet.graph import Graph, Node
from npmobilenet.kernels.blocked import inverted_residual, library, planes, pointwise
from npmobilenet.kernels.blocked.inverted_residual import PAIR
from npmobilenet.kernels.blocked.layout import Fields, stretch
from npmobilenet.kernels.blocked.pointwise import POINTWISE
from npmobilenet.kernels.blocked.squeeze_excite import SqueezeExcite
from npmobilenet.kernels.blocked.tiles import tiles
from npmobilenet.kernels.call import Table
from npmobilenet.kernels.memory import ALIGNMENT, HEADER, aligned
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.target import host
from npmobilenet.kernels.walk import compiled
from npmobilenet.plan import Program
from tests.conftest import compiled_only

pytestmark = compiled_only
NEVER = 1 << 40


def image(size, seed=0):
    return np.random.default_rng(seed).standard_normal((3, *size), np.float32)


def network(name="mobilenet_v2", width=0.25, padding="symmetric"):
    """A graph of ten classes, and random weights."""
    graph = get_architecture(name).graph(width, 10, padding)
    return graph, random_weights(graph, 2)


FUSED = ("stem_residual_ring", "inverted_residual_ring", "inverted_residual_split")


def fused_calls(plan: BlockedPlan) -> list[str]:
    """The kernels of whole blocks in a plan's table, in order."""
    names = {library.common(plan.target).address(name): name for name in FUSED}
    return [names[call.kernel] for call in plan._idle[0].table.calls if call.kernel in names]


@pytest.fixture
def lower(monkeypatch):
    """Choose how blocks are computed: as three calls ("unfused") or as one ("ring", "split"), in how much scratch."""

    def choose(how: str, scratch_bytes: int = 256 * 1024) -> None:
        monkeypatch.setattr(blocked_plan, "FUSE_BELOW", 0 if how == "unfused" else NEVER)
        monkeypatch.setattr(blocked_plan, "RING_BELOW", NEVER)
        monkeypatch.setattr(blocked_plan, "reads_less_by_rows", lambda *_: how != "split")
        monkeypatch.setattr(inverted_residual, "SCRATCH_BYTES", scratch_bytes)

    return choose


def assert_like_reference(result: np.ndarray, expected: np.ndarray, what: object = "") -> None:
    """Through random layers roundings of float32 grow to 1e-4 of the largest value; a wrong pixel is off by 1."""
    assert result.shape == expected.shape, what
    assert np.abs(result - expected).max() <= 4e-4 * np.abs(expected).max(), what


# Pointwise, depthwise, pointwise after the stem's block: in MobileNetV1 every second layer with the one after it.
BLOCKS = {"mobilenet_v2": 16, "mobilenet_v1": 6, "mobilenet_v1_shallow": 3}
NETWORKS = [
    ("mobilenet_v2", 0.25, "symmetric", (33, 47)),
    ("mobilenet_v2", 0.25, "same", (64, 30)),
    ("mobilenet_v2", 0.5, "same", (45, 31)),
    ("mobilenet_v2", 1.0, "symmetric", (49, 65)),
    ("mobilenet_v2", 0.25, "symmetric", (1, 1)),
    ("mobilenet_v2", 0.25, "same", (2, 97)),
    ("mobilenet_v1", 0.25, "symmetric", (35, 50)),
    ("mobilenet_v1_shallow", 0.5, "same", (51, 33)),
]


@pytest.mark.parametrize(("name", "width", "padding", "size"), NETWORKS)
def test_every_lowering_gives_the_same_bits(lower, name, width, padding, size):
    graph, weights = network(name, width, padding)
    program, x = BlockedProgram(graph, weights), image(size)
    lower("unfused")
    plan = program.plan(size)
    assert not fused_calls(plan)
    expected = plan.run(x)
    assert_like_reference(expected, Engine(graph, weights, "reference").run(x[None])[0])
    for how in ("ring", "split"):
        for scratch_bytes in (1, 20_000, 256 * 1024, NEVER):
            lower(how, scratch_bytes)
            for threads in (1, 2, 3):
                plan = program.plan(size, threads=threads)
                if threads == 1:
                    assert fused_calls(plan).count(f"inverted_residual_{how}") == BLOCKS[name]
                assert np.array_equal(plan.run(x), expected), (how, scratch_bytes, threads)


def kernels_of(plan: BlockedPlan, *names: str) -> list[str]:
    """Which of these kernels of the common library a plan calls, in order."""
    known = {kernel_address(plan, name): name for name in names}
    return [known[call.kernel] for call in plan._idle[0].table.calls if call.kernel in known]


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mixnet_s", "efficientnet_b0"])
def test_rings_without_expansion_or_without_projection_give_the_same_bits(name, monkeypatch):
    """The first blocks of networks, with their residual, and what comes before squeeze-and-excitation."""
    graph, weights = network(name, 1.0)
    program, x = BlockedProgram(graph, weights), image((75, 58))
    outputs = ("block1", "block2", *graph.output_names)
    unfused = program.plan((75, 58), outputs, fused=False)
    expected = unfused.empty_results()
    unfused.run_into(x, expected)
    monkeypatch.setattr(calls, "PAIR_BYTES", 0)
    for threads, scratch_bytes in ((1, 1), (1, NEVER), (2, 20_000), (3, 256 * 1024)):
        monkeypatch.setattr(inverted_residual, "SCRATCH_BYTES", scratch_bytes)
        plan = program.plan((75, 58), outputs, threads)
        rings = kernels_of(plan, "depthwise_project_ring", "expand_depthwise_ring")
        assert rings.count("depthwise_project_ring") == (name != "efficientnet_b0")
        assert rings.count("expand_depthwise_ring") >= (5 if threads == 1 else 1)
        results = plan.empty_results()
        plan.run_into(x, results)
        for result, right in zip(results, expected, strict=True):
            assert np.array_equal(result, right), (threads, scratch_bytes)


@pytest.mark.parametrize("channels", [8, 20, 40, 72, 160])
@pytest.mark.parametrize("pixels", [1, 9, 49, 196, 3001])
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads_have_even_parts_of_a_pointwise_convolution(channels, pixels, threads):
    target = host()
    weights = pointwise.pack(target, np.zeros((16, channels), np.float32), np.zeros(channels, np.float32))
    parts, each = pointwise.parts_of(pixels, weights, threads)
    assert (parts - 1) * each < pixels <= parts * each
    tile = tiles(target).wide.pixels
    assert parts == 1 or (each % tile == 0 and parts >= min(threads, -(-pixels // tile)) // 2)
    if threads == 1 or (weights.wide == weights.panels and weights.panels % threads == 0):
        assert parts == 1
    elif weights.panels == 1 and pixels >= 100 * threads:
        assert parts >= threads


def test_the_lowering_that_is_chosen(lower):
    """Strips of rows where the image is large, chunks of channels where the weights are."""
    program, x = BlockedProgram(*network(width=1.0)), image((97, 129))
    plan = program.plan((97, 129))
    calls = fused_calls(plan)
    assert calls[0] == "stem_residual_ring"
    assert calls[1:] == sorted(calls[1:])  # rings first
    assert {*calls} == {*FUSED}
    result = plan.run(x)
    lower("unfused")
    assert np.array_equal(program.plan((97, 129)).run(x), result)


@pytest.mark.parametrize("how", ["unfused", "ring", "split"])
def test_features_are_those_of_the_reference(lower, how):
    """Block by block, so that a wrong one shows."""
    graph, weights = network()
    lower(how)
    engine, right, x = Engine(graph, weights), Engine(graph, weights, "reference"), image((39, 54))
    for block in ("stem", "block1", "block2", "block3", "block7", "block17", "head"):
        expected = right.run(x[None], output=block)
        for threads in (1, 2):
            assert_like_reference(engine.run(x[None], threads, block), expected, (block, threads))


def test_a_residual_is_read_from_a_padded_tensor():
    """At width 0.25 the first block has as many channels as the stem, which a depthwise convolution reads as well."""
    graph, weights = network()
    program = BlockedProgram(graph, weights)
    block1 = next(node for node in program.graph if node.attributes.get("residual"))
    assert block1.name.startswith("block1."), block1.name
    stem = block1.inputs[1]
    readers = {node.operation for node in program.graph if stem in node.inputs}
    assert readers == {"depthwise_conv2d", "pointwise_conv2d"}
    x = image((21, 26))
    expected = Engine(graph, weights, "reference").run(x[None], output="block1")[0]
    for threads in (1, 2, 3):
        assert_like_reference(program.plan((21, 26), "block1", threads).run(x), expected, threads)


@pytest.mark.parametrize("seed", range(60))
def test_layers_in_any_order(seed):
    """Depthwise after depthwise, two readers of one tensor, shortcuts from anywhere: what no MobileNet has."""
    random = np.random.default_rng(seed)
    builder = Builder(1.0, 5, "relu6", random.choice(["symmetric", "same"]), 1e-5)
    builder.channels, builder.last, builder.block, builder.function = 3, "input", "all", "relu6"
    builder._dense("stem", 16, 3, 2)
    before = [builder.last]  # tensors of the present size and channels
    for number in range(random.integers(3, 9)):
        name = f"layer{number}"
        kind = random.choice(["depthwise", "pointwise", "residual", "squeeze", "dense"])
        builder.function = str(random.choice(["relu6", "swish", "hard_swish", "relu"]))
        if kind == "depthwise":
            stride = int(random.integers(1, 3))
            kernels = tuple(random.choice([3, 5, 7, 9], random.integers(1, 4), replace=False).tolist())
            builder._depthwise(name, Row("inverted", kernels=kernels, dilated=bool(random.integers(2))), stride)
            before = before if stride == 1 else []
        elif kind == "pointwise":
            channels = int(random.choice([8, 16, 20, 36]))
            groups = 2 if builder.channels % 2 == 0 and random.integers(2) else 1
            builder._pointwise(name, channels, groups, active=bool(random.integers(2)))
            before = []
        elif kind == "dense":
            stride = int(random.integers(1, 3))
            builder._dense(name, int(random.choice([8, 20, 36])), int(random.choice([1, 3, 5])), stride)
            before = []
        elif kind == "residual":
            builder._pointwise(name, builder.channels, active=False)
            if before:
                builder._add(f"{name}.add", "add", (builder.last, random.choice(before)))
        elif builder.last not in before:
            builder.block = f"squeeze{number}"
            builder._squeeze_excite(Row("inverted", squeeze=0.25), builder.channels)
        before.append(builder.last)
    builder.block = "classifier"
    builder._pool(Row("pool"), 0, 1)
    builder._linear(Row("linear"), 0, 1)
    graph = Graph(tuple(builder.nodes))
    weights, x = random_weights(graph, seed), image((29, 41), seed)
    program = BlockedProgram(graph, weights)
    expected = Program(graph, weights, "reference").plan((29, 41)).run(x)
    for threads in (1, 2):
        assert_like_reference(program.plan((29, 41), None, threads).run(x), expected, [node.name for node in graph])


def later(plan: BlockedPlan, kernel: str, fields: Fields) -> list[tuple[int, int]]:
    """The memory that calls of a kernel ask for, where they ask for any: where it begins, and each panel's bytes."""
    rows = [call.arguments for call in plan._idle[0].table.calls if call.kernel == kernel_address(plan, kernel)]
    found = [tuple(row[fields.names.index(name)] for name in ("later", "later_part")) for row in rows]
    return [each for each in found if each != (0, 0)]


def kernel_address(plan: BlockedPlan, kernel: str) -> int:
    return library.common(plan.target).address(kernel)


def test_weights_of_matrices_are_asked_for_while_the_layer_before_is_computed():
    graph, weights = network()
    program = BlockedProgram(graph, weights)
    plan = program.plan((224, 224))
    classifier = program.weights["classifier"]
    ((begin, part),) = later(plan, "pointwise", POINTWISE)
    panels = program.weights["head"].panels
    assert begin == classifier.weights.ctypes.data
    end = classifier.bias.ctypes.data + classifier.bias.nbytes
    assert 0 <= begin + panels * part - end < panels * ALIGNMENT


def test_what_one_layer_has_no_time_to_ask_for_those_before_it_do():
    graph = get_architecture("mobilenet_v3_large").graph(1.0)
    program = BlockedProgram(graph, random_weights(graph))
    plan = program.plan((64, 64))
    asked = later(plan, "pointwise", POINTWISE)
    hidden, classifier = (stretch(program.weights[name]) for name in ("hidden", "classifier"))
    end = classifier.address + classifier.bytes
    assert len(asked) > 2
    assert all(hidden.address <= begin < end and part > 0 for begin, part in asked)
    room = pointwise.room(plan.tensors["head"].pixels, program.weights["head"])
    assert asked[-1][0] == hidden.address + hidden.bytes - min(hidden.bytes, room)


def test_a_network_without_a_classifier_asks_for_nothing():
    graph, weights = network()
    program = BlockedProgram(graph, weights)
    assert not later(program.plan((64, 64), "head"), "pointwise", POINTWISE)  # there is no classifier


def test_weights_of_squeeze_and_excitation_are_asked_for_too():
    graph, weights = network("efficientnet_b0", 1.0)
    program = BlockedProgram(graph, weights)
    asked = later(program.plan((64, 64)), "expand_depthwise_pair", PAIR)
    packed = [each for each in program.weights.values() if isinstance(each, SqueezeExcite)]
    assert len(asked) >= 8
    assert {begin for begin, _ in asked} <= {each.reduce.weights.ctypes.data for each in packed}
    assert all(part > 0 and part % ALIGNMENT == 0 for _, part in asked)


@pytest.mark.parametrize("fused", [True, False])
def test_a_depthwise_convolution_of_what_was_squeezed_and_excited(fused):
    """It needs a frame of zeros, which what scales whole planes cannot write around them."""
    builder = Builder(1.0, 5, "relu6", "symmetric", 1e-5)
    builder.channels, builder.last, builder.block, builder.function = 3, "input", "all", "relu6"
    builder._dense("stem", 16, 3, 2)
    builder._pointwise("expand", 36, 1)
    builder._depthwise("first", Row("inverted", kernels=(3,)), 1)
    builder._squeeze_excite(Row("inverted", squeeze=0.25), builder.channels)
    builder._depthwise("second", Row("inverted", kernels=(5,)), 1)
    graph = Graph(tuple(builder.nodes))
    weights, x = random_weights(graph, 1), image((29, 41))
    plan = BlockedProgram(graph, weights).plan((29, 41), fused=fused)
    assert sorted({len(group) for group in plan.groups}) == ([1, 3] if fused else [1])
    assert_like_reference(plan.run(x), Program(graph, weights, "reference").plan((29, 41)).run(x))


@pytest.mark.parametrize(
    ("attributes", "kernel", "problem"),
    [
        ({"dilation": (2, 2)}, 3, "dilation or groups"),
        ({"groups": 3}, 3, "dilation or groups"),
        ({}, 12, "more than 121 taps"),
    ],
)
def test_a_stem_that_the_kernels_cannot_compute(attributes, kernel, problem):
    builder = Builder(1.0, 5, "relu6", "symmetric", 1e-5)
    builder.channels, builder.last, builder.block, builder.function = 3, "input", "all", "relu6"
    builder._dense("stem", 12, kernel, 2)
    stem, *others = builder.nodes
    graph = Graph((stem.with_attributes(**attributes), *others))
    with pytest.raises(UnsupportedGraphError, match=f"stem: a convolution of the image with {problem}"):
        BlockedProgram(graph, random_weights(graph))


@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (1, 1), (4, 4)])
@pytest.mark.parametrize("size", [(29, 41), (4, 5)])
def test_stems_of_other_windows(kernel, stride, size):
    """Before a depthwise convolution and a projection, too: only the usual one is computed with them in one call."""
    builder = Builder(1.0, 5, "relu6", "symmetric", 1e-5)
    builder.channels, builder.last, builder.block, builder.function = 3, "input", "all", "relu6"
    builder._dense("stem", 20, kernel, stride)
    builder._depthwise("depthwise", Row("inverted", kernels=(3,)), 1)
    builder._pointwise("project", 8, active=False)
    graph = Graph(tuple(builder.nodes))
    weights, x = random_weights(graph, 1), image(size)
    expected = Program(graph, weights, "reference").plan(size).run(x)
    results = [BlockedProgram(graph, weights).plan(size, threads=threads).run(x) for threads in (1, 2)]
    assert_like_reference(results[0], expected)
    assert np.array_equal(*results)


@pytest.mark.parametrize("size", [(33, 40), (1, 1), (70, 19)])
def test_dense_layers_give_the_same_bits_on_any_number_of_threads(size):
    graph, weights = network("mobilenet_v1_dense", 0.25)
    program, x = BlockedProgram(graph, weights), image(size)
    one, two, three = (program.plan(size, threads=threads).run(x) for threads in (1, 2, 3))
    assert_like_reference(one, Engine(graph, weights, "reference").run(x[None])[0])
    assert np.array_equal(one, two) and np.array_equal(one, three)


def test_branches_of_other_dilations_read_one_tensor():
    """As in ASPP: each needs a frame of its own, and the tensor has none."""
    builder = Builder(1.0, 5, "relu6", "symmetric", 1e-5)
    builder.channels, builder.last, builder.block, builder.function = 3, "input", "all", "relu6"
    builder._dense("stem", 20, 3, 2)
    read = builder.last
    branches = []
    for rate in (1, 6, 12, 18):
        builder.channels, builder.last = 20, read
        before = len(builder.nodes)
        builder._dense(f"rate{rate}", 36, 3, 1)
        builder.nodes[before] = builder.nodes[before].with_attributes(dilation=(rate, rate))
        branches.append(builder.last)
    outputs = dict(zip("abcd", branches, strict=True))
    graph = Graph(tuple(builder.nodes), outputs=outputs)
    weights, x = random_weights(graph, 1), image((33, 41))
    expected = Engine(graph, weights, "reference").outputs(x[None], list(outputs))
    engine = Engine(graph, weights, "blocked")
    for threads in (1, 2):
        found = engine.outputs(x[None], list(outputs), threads)
        for name in outputs:
            assert_like_reference(found[name], expected[name], (name, threads))


@pytest.mark.parametrize("operation", ["global_average_pool", "pointwise_conv2d"])
def test_only_the_stem_reads_the_image(operation):
    builder = Builder(1.0, 5, "relu6", "symmetric", 1e-5)
    builder.channels, builder.last, builder.block, builder.function = 3, "input", "all", "relu6"
    builder._pool(Row("pool"), 0, 1) if operation == "global_average_pool" else builder._pointwise("first", 8, 1)
    graph = Graph(tuple(builder.nodes))
    with pytest.raises(UnsupportedGraphError, match=f"{operation} of the image"):
        BlockedProgram(graph, random_weights(graph))


def test_memory_of_activations():
    """At 224 less than half of the 6.02 MB that the largest step takes op by op (1801.04381, section 5.1)."""
    program = BlockedProgram(*network(width=1.0))
    plan = program.plan((224, 224))
    work = plan._idle[0]
    assert plan.memory >= work.arena.nbytes + work.image.nbytes + work.table.scratch_bytes
    assert plan.memory < 2.5e6
    assert program.plan((224, 224), threads=2).memory < 5e6


@pytest.mark.parametrize("function", ["sigmoid", "hard_sigmoid", "swish"])
def test_activations_that_no_kernel_ends_with_follow_it_in_place(function):
    """And a residual after them."""
    for name in ("mobilenet_v1_dense", "mobilenet_v2"):
        graph = replace(get_architecture(name), activation=function).graph(0.25, 10)
        graph = Graph(tuple(n.with_attributes(function=function) if n.operation == "activation" else n for n in graph))
        weights, x = random_weights(graph, 2), image((33, 40))
        engine = Engine(graph, weights, "blocked")
        expected = Engine(graph, weights, "reference").run(x[None])
        found = engine.run(x[None])
        assert_like_reference(found, expected)
        assert np.array_equal(engine.run(x[None], 2), found)


def test_a_new_image_size_compiles_nothing(monkeypatch):
    program = BlockedProgram(*network())
    program.plan((40, 40), threads=2).run(image((40, 40)))

    def compiled(library):
        raise AssertionError("compiled for a new image size")

    monkeypatch.setattr(Library, "compile", compiled)
    monkeypatch.setattr(Library, "_open", lambda *_: compiled(None))
    for size in ((41, 40), (96, 31), (7, 300)):
        for threads in (1, 2):
            assert np.isfinite(program.plan(size, threads=threads).run(image(size))).all()


def test_python_threads_with_images_of_different_sizes():
    engine = Engine(*network())
    sizes = [(20 + 9 * i, 61 - 7 * i) for i in range(6)]
    images = [image(size, seed) for seed, size in enumerate(sizes)]
    expected = [engine.run(x[None]) for x in images]
    start, wrong = threading.Barrier(8), []

    def work(number: int) -> None:
        start.wait()
        for trip in range(12):
            which = (number + trip) % len(images)
            if not np.array_equal(engine.run(images[which][None], 1 + trip % 3), expected[which]):
                wrong.append((number, trip))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_starts_helper_threads_of_its_own():
    engine, x = Engine(*network()), image((80, 60))
    expected = engine.run(x[None], 3)  # the parent's helpers run now
    assert threading.active_count() >= 3
    child = os.fork()
    if child == 0:
        alone = threading.active_count() == 1
        same = np.array_equal(engine.run(x[None], 3), expected)
        os._exit(0 if alone and same and threading.active_count() == 3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(engine.run(x[None], 3), expected)


def test_the_image_of_a_call_leaves_nothing_behind():
    """A workspace is used again: the frame of zeros must still be zeros, and NaN gone."""
    engine = Engine(*network())
    x = image((37, 41))
    expected = engine.run(x[None])
    assert np.isnan(engine.run(np.full_like(x, np.nan)[None])).all()
    assert np.array_equal(engine.run(x[None]), expected)


def test_an_image_in_any_layout():
    """The first row of a plan reads it where it stands, if it can."""
    engine, x = Engine(*network()), image((37, 41))[None]
    expected = engine.run(x, 2)
    unaligned = np.empty(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    unaligned[...] = x
    constant = x.copy()
    constant.flags.writeable = False
    pixels = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    wide = np.repeat(x, 2, axis=3)[..., ::2]
    for other in (constant, unaligned, pixels, wide, x[..., ::-1].copy()[..., ::-1], x.astype(">f4"), x.astype("f8")):
        assert np.array_equal(engine.run(other, 2), expected)
    flat = np.broadcast_to(np.float32(0.5), x.shape)
    assert np.array_equal(engine.run(flat), engine.run(flat.copy()))


def test_calls_that_ask_for_something_else_than_the_last_one():
    engine, images = Engine(*network()), [image(size)[None] for size in ((33, 40), (40, 33))]
    asked = [(x, threads, output) for x in images for threads in (1, 2) for output in (None, "pool", "block2")]
    expected = [Engine(*network()).run(*each) for each in asked]
    order = np.random.default_rng(0).integers(0, len(asked), 60)
    for number in order:
        assert np.array_equal(engine.run(*asked[number]), expected[number])
        if number % 5 == 0:
            engine.release()
            assert not engine._plans


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (40, 3), (16, 15), (17, 16)])
@pytest.mark.parametrize("frame", [((0, 0), (0, 0)), ((1, 2), (3, 0))])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("header", [HEADER, 0])
def test_plain_arrays_are_copied_in_and_out(size, frame, threads, header, monkeypatch):
    monkeypatch.setattr(compiled, "HEADER", header)  # 0: where nobody knows how an array begins
    target = host()
    arrays = [np.random.default_rng(0).standard_normal((channels, *size), np.float32) for channels in (3, 21)]
    planar, blocked = Tensor(3, *size, frame), Tensor(21, *size, frame, lanes=target.lanes)
    memory = [aligned(planar.values), aligned(blocked.values)]
    blocked.write(memory[1], np.moveaxis(arrays[1], 0, -1))
    result = np.full(arrays[1].size + 1, np.nan, np.float32)
    calls = [
        planes.copy_in(target, planar.at(memory[0].ctypes.data)),
        planes.copy_out(target, blocked.at(memory[1].ctypes.data)),
    ]
    table = Table(calls, threads, keep=memory)
    held = [sys.getrefcount(one) for one in (*arrays, result)]
    for _ in range(20):
        table.run(arrays[0], result)
    with pytest.raises(TypeError, match="2 slots for arrays was given 1"):
        table.run(arrays[0])
    assert [sys.getrefcount(one) for one in (*arrays, result)] == held
    assert np.array_equal(np.moveaxis(planar.read(memory[0]), -1, 0), arrays[0])
    assert np.count_nonzero(memory[0]) == arrays[0].size  # the frame is zeros
    assert np.array_equal(result[:-1].reshape(arrays[1].shape), arrays[1]) and np.isnan(result[-1])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_time_of_every_call(threads, fused):
    """Taken in a walk like any other, which leaves a plan as it was."""
    graph, weights = network("mixnet_s")
    plan = BlockedProgram(graph, weights).plan((65, 47), threads=threads, fused=fused)
    x = image((65, 47))
    expected = plan.run(x)
    seconds = plan.time_groups()
    assert list(seconds) == [group[-1].name for group in plan.groups]
    assert all(0 < one < 10 for one in seconds.values())
    assert np.array_equal(plan.run(x), expected)


def _windows_and_sizes() -> tuple[Graph, dict[str, np.ndarray]]:
    """Pooling, resizing and transposed convolutions between layers that need frames, one reading another's frame."""
    shapes = {
        "stem": (20, 3, 3, 3),
        "filter": (20, 1, 5, 5),
        "up": (20, 17, 3, 2),
        "tail": (6, 17, 3, 3),
    }
    same, operation = {"padding": (1, 1)}, {"stem": "conv2d", "tail": "conv2d", "filter": "depthwise_conv2d"}
    attributes = {
        "stem": {"channels": 20, "kernel": (3, 3), "stride": (2, 2), **same},
        "filter": {"channels": 20, "kernel": (5, 5), "padding": (2, 2)},
        "up": {"channels": 17, "kernel": (3, 2), "stride": (2, 2), "padding": ((1, 0), (0, 0))},
        "tail": {"channels": 6, "kernel": (3, 3), "dilation": (2, 2), "padding": (2, 2)},
        "largest": {"kernel": (3, 3), "stride": (1, 1), **same},
        "mean": {"kernel": (3, 2), "stride": (2, 1), "padding": ((1, 0), (0, 1)), "count_include_pad": False},
        "larger": {"size": (19, 23), "coordinates": "align_corners"},
        "nearest": {"scale": 1.5, "mode": "nearest"},
    }
    operation |= {"up": "conv_transpose2d", "largest": "max_pool2d", "mean": "average_pool2d"}
    operation |= {"larger": "resize2d", "nearest": "resize2d", "end": "global_max_pool"}
    inputs = {"stem": "input", "filter": "stem", "largest": "stem", "up": "largest", "mean": "filter"}
    inputs |= {"larger": "up", "tail": "larger", "nearest": "tail", "end": "nearest"}
    rng, nodes, weights = np.random.default_rng(5), [], {}
    for name in ("stem", "filter", "largest", "up", "mean", "larger", "tail", "nearest", "end"):
        parameters = {"weight": shapes[name]} if name in shapes else {}
        nodes.append(Node(name, operation[name], (inputs[name],), name, parameters, attributes.get(name, {})))
        weights |= {f"{name}.weight": rng.standard_normal(shape, np.float32) for shape in parameters.values()}
    return Graph(tuple(nodes), outputs={"mean": "mean", "tail": "tail", "end": "end"}), weights


@pytest.mark.parametrize("size", [(3, 1), (4, 7), (33, 46)])
def test_windows_and_sizes_between_layers_with_frames(size):
    graph, weights = _windows_and_sizes()
    program, x = BlockedProgram(graph, weights), image(size)
    expected = Engine(graph, weights, "reference").outputs(x[None], graph.output_names)
    for threads in (1, 2, 3):
        plan = program.plan(size, graph.output_names, threads)
        results = plan.empty_results()
        plan.run_into(x, results)
        for name, result in zip(graph.output_names, results, strict=True):
            assert_like_reference(result, expected[name][0], (name, threads))


def test_pooling_of_padding_alone_is_refused():
    graph, weights = _windows_and_sizes()
    nodes = [n.with_attributes(padding=(3, 3)) if n.name == "largest" else n for n in graph]
    with pytest.raises(ValueError, match="must be smaller than the window"):
        BlockedProgram(Graph(tuple(nodes), outputs={"largest": "largest"}), weights).plan((9, 9))
