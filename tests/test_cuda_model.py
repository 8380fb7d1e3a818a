"""Networks on a CUDA device: a real one (``pytest -m gpu``), or the simulator (``NUMBA_ENABLE_CUDASIM=1``)."""

import pickle
import threading
from math import prod

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import Architecture, get_architecture, random_weights
from npmobilenet.architectures.blocks import Squeeze
from npmobilenet.cli import doctor, main
from npmobilenet.cuda import graphs as cuda_graphs
from npmobilenet.cuda import memory as cuda_memory
from npmobilenet.cuda import plan as cuda_plan
from npmobilenet.cuda.arrays import DeviceArray
from npmobilenet.cuda.lowering import UnsupportedGraphError, lower
from npmobilenet.cuda.plan import CudaProgram, DeviceMemoryError
from npmobilenet.engine import Engine
from npmobilenet.errors import MissingDependencyError
from npmobilenet.graph import Graph, Node
from npmobilenet.kernels.cuda import device, inverted_residual, launch, pointwise
from npmobilenet.operations import OPERATIONS
from tests.conftest import photo, reference
from tests.data.make_random_networks import NETWORKS as STORED
from tests.test_operations import assert_like as assert_outputs_like
from tests.test_operations import by_definition, random_graph

LOGITS = 2e-4  # largest error of logits of size 10 in float32
HALF = 0.4  # in float16, whose roundings add up: 0.05 to 0.3 with the shipped weights and exact sums

needs_device = pytest.mark.skipif(device.problem() is not None, reason="no CUDA device, and no simulator")
real_device = [pytest.mark.gpu, pytest.mark.skipif(device.SIMULATED or device.problem() is not None, reason="no GPU")]
if not device.SIMULATED:
    pytestmark = pytest.mark.gpu


def architecture(*rows, activation="relu6", squeeze=None):
    return Architecture("tiny", "", rows, activation, squeeze or Squeeze())


# Few channels, as the simulator runs every thread as one of Python, and every operation somewhere.
TINY = {
    "least": architecture("conv_k3_s2_c8", "inverted_r1_k3_s1_e1_c8", "pool", "linear"),
    "inverted": architecture(
        *("conv_k3_s2_c8", "inverted_r1_k3_s1_e1_c8", "inverted_r2_k3_s2_e2_c8", "conv_k1_s1_c16", "pool", "linear")
    ),
    "separable": architecture(
        *("conv_k3_s2_c8", "separable_r1_k3_s1_c8", "conv_k3_s2_c8", "separable_r1_k5_s2_c16", "pool", "linear"),
        activation="relu",
    ),
    "mixed": architecture(
        *("conv_k3_s2_c8_relu", "inverted_r1_k3.5.7_s2_e2_a1.1_p1.1_se0.5_c8", "inverted_r1_k3.5_s1_e3_a1.1_se0.5_c8"),
        *("conv_k1_s1_c16", "pool", "linear"),
        activation="swish",
    ),
    "v3": architecture(
        *("conv_k3_s2_c8", "inverted_r1_k5_s1_e2_se0.25_c8_relu", "inverted_r1_k3_s2_e2_se0.5_c16"),
        *("conv_k1_s1_c16", "pool", "linear_c24", "linear"),
        activation="hard_swish",
        squeeze=Squeeze(True, "relu", "hard_sigmoid"),
    ),
    "dilated": architecture("conv_k3_s2_c8", "inverted_r1_k3.5_s1_e2_dilated_c8", "pool", "linear"),
    "variants": architecture(
        *("conv_k1_s1_pad1_c8", "inverted_k3_s1_e1_c8_expands_shortcuts", "inverted_k3_s2_e2_se0.5_c8"),
        *("inverted_k3_s1_e2_se0.5_c16_shortcut", "pool_hardswish", "linear"),
        activation="hard_swish",
        squeeze=Squeeze(True, "relu", "hard_sigmoid", "before"),
    ).varied({}, conventions={"bias": True}),
    "projected": architecture(
        *("conv_k3_s2_c8", "inverted_k3_s1_e2_se0.5_c8", "inverted_k3_s2_e2_se0.5_c16", "pool", "linear"),
        squeeze=Squeeze(True, "relu", "sigmoid", "projected"),
    ).varied({}, conventions={"norms": False}),
}


@pytest.fixture(autouse=True)
def few_threads(monkeypatch):
    if device.SIMULATED:
        for name, value in {"threads": 8, "segment": 8}.items():
            monkeypatch.setitem(launch.CONFIGURATION, name, value)
        monkeypatch.setattr(pointwise, "TILES", (pointwise.Tile(8, 8, 4, 2, 4),))
        monkeypatch.setattr(inverted_residual, "TILES", (inverted_residual.Tile(2, 2, 8, 1, 2),))


@pytest.fixture
def whole_blocks(monkeypatch):
    """Blocks are one launch in small images too."""
    monkeypatch.setattr(inverted_residual, "WORTH", 0)


def network(name="inverted", classes=5, padding="symmetric"):
    graph = TINY[name].graph(1.0, classes, padding)
    return graph, random_weights(graph, 3)


def tiny_model(name="least", **options):
    graph, weights = network(name)
    return npmobilenet.Model(graph, weights, architecture="tiny", **{"backend": "cuda", **options})


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_like(result, expected, tolerance=LOGITS):
    result = np.asarray(result, np.float64)
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() <= tolerance * max(1, np.abs(expected).max() / 10)


class Tensor:
    """What another library shows of its array on the device."""

    def __init__(self, array, stream=None, permuted=None):
        """``permuted``: the order in which the axes lie in memory."""
        order = permuted or tuple(range(array.ndim))
        self.memory = DeviceArray.empty([array.shape[axis] for axis in order], array.dtype)
        if array.size:
            self.memory.flat.copy_to_device(np.ascontiguousarray(array.transpose(order)).reshape(-1))
        view = self.memory.transpose(*np.argsort(order))
        self.pointer, self.stream = view.pointer, stream
        self.__cuda_array_interface__ = {**view.__cuda_array_interface__, "stream": stream}
        if permuted:
            self.__cuda_array_interface__["strides"] = view.strides


CASES = [
    ("inverted", "symmetric", (3, 3, 11, 8)),
    ("inverted", "same", (1, 3, 17, 10)),
    ("inverted", "symmetric", (2, 3, 1, 3)),
    ("separable", "same", (2, 3, 9, 8)),
    ("mixed", "symmetric", (2, 3, 9, 8)),
    ("mixed", "same", (1, 3, 10, 13)),
    ("v3", "symmetric", (2, 3, 8, 9)),
    ("dilated", "same", (1, 3, 9, 8)),
    ("variants", "same", (2, 3, 6, 5)),
    ("projected", "symmetric", (1, 3, 9, 8)),
]


@needs_device
@pytest.mark.parametrize(("name", "padding", "shape"), CASES)
def test_networks_compute_what_the_reference_does(name, padding, shape):
    graph, weights = network(name, padding=padding)
    x = images(*shape)
    expected = Engine(graph, weights, "reference").run(x)
    engine = Engine(graph, weights, "cuda")
    result = engine.run(x)
    assert result.dtype == np.float32
    assert_like(result, expected)
    assert np.array_equal(engine.run(x), result), "not the same bits in the second run"
    if len(x) > 1:
        assert_like(engine.run(x[-1:]), expected[-1:])


@needs_device
def test_whole_blocks_give_what_their_layers_give(whole_blocks):
    graph, weights = network()
    program, x = CudaProgram(graph, weights), images(2, 3, 9, 11)
    results = []
    for fused in (True, False):
        plan = program.plan(x.shape[2:], None, len(x), fused)
        results.append(plan.empty_result(x))
        plan.run(x, results[-1])
        assert [step.launch.name for step in plan.steps].count("inverted_residual") == 2 * fused
    assert_like(*results)


@needs_device
@pytest.mark.parametrize("name", ["inverted", "mixed"])
def test_features_of_every_block_and_of_what_is_fused(name):
    """The output of a squeeze-and-excitation is asked for, though no one computes it for the logits."""
    graph, weights = network(name)
    x = images(2, 3, 5, 6)
    engine, right = Engine(graph, weights, "cuda"), Engine(graph, weights, "reference")
    squeezed = [node.name for node in graph if node.operation == "squeeze_excite"]
    for output in [*graph.blocks, *squeezed[:1]]:
        assert_like(engine.run(x, output=output), right.run(x, output=output))


@needs_device
@pytest.mark.parametrize("name", ["inverted", "mixed"])
def test_half_precision_storage(name):
    graph, weights = network(name)
    x = images(2, 3, 7, 6)
    expected = Engine(graph, weights, "reference").run(x)
    engine = Engine(graph, weights, "cuda", "float16")
    assert engine.program.plan((99, 98)).memory < 0.8 * CudaProgram(graph, weights).plan((99, 98)).memory
    result = engine.run(x)
    assert result.dtype == np.float32
    assert_like(result, expected, HALF)
    assert engine.run(DeviceArray.of(Tensor(x))).dtype == np.float16


def quick_graphs():
    """Seeds of random graphs that hold every operation together, with few values, as the simulator takes its time."""
    operations, values = {}, {}
    for seed in range(100):
        graph, _, x = random_graph(seed)
        graph = graph.up_to(*graph.output_names)
        shapes = graph.shapes(x.shape[2:])
        operations[seed] = {node.operation for node in graph}
        values[seed] = sum(prod(shapes[node.name]) + node.macs(shapes[node.name]) // 4 for node in graph)
    missing, chosen = set().union(*operations.values()), []
    while missing:
        chosen.append(max(operations, key=lambda seed: len(operations[seed] & missing) / values[seed]))
        missing -= operations[chosen[-1]]
    return chosen


GRAPHS = quick_graphs()


@needs_device
@pytest.mark.parametrize("seed", GRAPHS)
def test_random_graphs_of_all_operations(seed):
    graph, weights, x = random_graph(seed)
    if any(node.operation == "channel_select" for node in graph.up_to(*graph.output_names)):
        with pytest.raises(UnsupportedGraphError, match=r"has no kernel for .*channel_select; backend='auto' has"):
            Engine(graph, weights, "cuda").outputs(x, graph.output_names)
        return
    engine, names = Engine(graph, weights, "cuda"), graph.output_names
    found = engine.outputs(x, names)
    assert_outputs_like(found, by_definition(graph, weights, x))
    resident = engine.outputs(DeviceArray.of(Tensor(x)), names[::-1])
    assert list(resident) == list(names[::-1])
    for name in names:
        assert np.array_equal(np.asarray(resident[name]), found[name])
        assert np.array_equal(engine.run(x, output=name), found[name])


def test_those_graphs_hold_every_operation():
    graphs = [random_graph(seed)[0] for seed in GRAPHS]
    computed = {node.operation for graph in graphs for node in graph.up_to(*graph.output_names)}
    assert computed == OPERATIONS.keys()


INSIDE = {  # blocks, and what is inside of them
    "inverted": ["block2.expand", "block2.depthwise", "block3", "block3.depthwise", "block2"],
    "mixed": ["block1", "block1.squeeze", "block2.expand", "stem"],
}


@needs_device
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", INSIDE)
def test_several_outputs_have_the_bits_that_each_has_alone(whole_blocks, name, dtype):
    """Blocks stay one launch for the others, though an output lies inside, which is computed beside them."""
    graph, weights = network(name)
    engine, x = Engine(graph, weights, "cuda", dtype), images(2, 3, 9, 8)
    names = [*INSIDE[name], "logits"]
    found = engine.outputs(x, names)
    assert list(found) == names
    assert all(np.array_equal(engine.run(x, output=one), found[one]) for one in names)
    assert all(np.array_equal(one, found[name]) for name, one in engine.outputs(x, names[::-1]).items())
    (plan,) = (plan for (_, output, _), plan in engine._plans.items() if output == tuple(names))
    written = [step.output for step in plan.steps]
    assert len(written) == len(set(written)) and set(plan.outputs) <= set(written)
    launches = [step.launch.name for step in engine.plan((9, 8), None, 2).steps]
    assert launches.count("inverted_residual") == 2 * (name == "inverted")
    assert [step.launch.name for step in plan.steps].count("inverted_residual") == launches.count("inverted_residual")


@needs_device
def test_a_block_is_cut_where_the_network_itself_has_an_output(whole_blocks):
    graph, weights = network()
    graph = Graph(graph.nodes, outputs={"inside": "block2.expand.activation", "logits": graph.nodes[-1].name})
    engine, x = Engine(graph, weights, "cuda"), images(1, 3, 9, 8)
    found = engine.outputs(x, graph.output_names)
    right = Engine(graph, weights, "reference").outputs(x, graph.output_names)
    for name, one in right.items():
        assert_like(found[name], one)
        assert np.array_equal(engine.run(x, output=name), found[name])
    launches = [step.launch.name for step in engine.plan((9, 8), "logits").steps]
    assert launches.count("inverted_residual") == 1


@needs_device
def test_several_outputs_stay_on_the_device(monkeypatch):
    model, x = tiny_model(), images(3, 3, 12, 9)
    names = ["block1", "logits", "pool", "classifier"]  # two names of one tensor among them
    expected = model.outputs(x, names)
    tensor = Tensor(x)
    for most in (512, 2):
        monkeypatch.setattr(cuda_plan, "LARGEST_BATCH", most)
        with monkeypatch.context() as patch:
            patch.setattr(type(tensor.memory.owner), "copy_to_host", lambda *a, **k: pytest.fail("a copy to the host"))
            found = model.outputs(tensor, names)
        assert all(isinstance(one, DeviceArray) and one.shape == expected[name].shape for name, one in found.items())
        assert len({one.pointer for one in found.values()}) == len(names)
        for name, one in found.items():
            assert_like(one, np.float64(expected[name]))
            if most > 3:
                assert np.array_equal(one, expected[name])
    assert {name: one.shape for name, one in model.outputs(Tensor(x[:0]), names).items()}["logits"] == (0, 5)


@needs_device
def test_a_graph_without_weights():
    graph = Graph((Node("t", "tanh", ("input",), "b"), Node("both", "concat", ("t", "input"), "b")))
    x = images(2, 3, 4, 5)
    expected = np.concatenate([np.tanh(np.float64(x)), x], 1)
    engine = Engine(graph, {}, "cuda")
    assert_like(engine.run(x), expected)
    assert_like(engine.run(DeviceArray.of(Tensor(x))), expected)
    assert list(engine.plan((4, 5), None, 2).time_steps(1)) == ["t", "both"]


@needs_device
def test_arrays_on_the_device_stay_there(monkeypatch):
    """Nothing is copied between host and device, and of the input nothing at all: the first launch reads it."""
    model, x = tiny_model(), images(2, 3, 12, 9)
    expected = model(x)
    tensor = Tensor(x)
    seen = []
    flat_view = cuda_memory.flat_view
    monkeypatch.setattr(cuda_memory, "flat_view", lambda *a: (seen.append(a[0]), flat_view(*a))[1])
    with monkeypatch.context() as patch:
        kind = type(tensor.memory.owner)
        for name in ("copy_to_host", "copy_to_device"):
            patch.setattr(kind, name, lambda *a, **k: pytest.fail("a copy"))
        logits = model(tensor)
        features = model.features(tensor, "block1")
    assert isinstance(logits, DeviceArray)
    assert tensor.pointer in seen and logits.pointer in seen
    interface = logits.__cuda_array_interface__
    assert (interface["shape"], interface["typestr"], interface["strides"]) == ((2, 5), "<f4", None)
    assert interface["version"] == 3 and interface["data"] == (logits.pointer, False)
    assert np.array_equal(logits.copy_to_host(), expected)
    assert np.array_equal(np.asarray(logits), expected)
    assert model.top(logits) == model.top(expected)
    assert features.shape == model.features(x, "block1").shape
    assert features.strides[1] == 4, "channels are not next to each other"
    assert np.array_equal(np.asarray(features), model.features(x, "block1"))
    assert np.array_equal(np.asarray(model(logits_source := DeviceArray.of(tensor))), expected), logits_source


@needs_device
def test_device_arrays_of_any_strides_and_type():
    model, x = tiny_model(), images(2, 3, 12, 9)
    expected = model(x)
    assert np.array_equal(model(Tensor(x, permuted=(0, 2, 3, 1))), expected)
    assert np.array_equal(model(Tensor(x, permuted=(3, 1, 0, 2))), expected)
    assert np.array_equal(model(Tensor(x.astype(np.float64))), expected)
    assert np.array_equal(model(Tensor(x.astype(np.float16))), model(x.astype(np.float16)))
    assert np.array_equal(model(Tensor(x, stream=1)), expected)
    assert np.array_equal(model(Tensor(x, stream=2)), expected)
    assert np.array_equal(np.asarray(DeviceArray.of(Tensor(x))[1:]), x[1:])


@needs_device
def test_what_device_arrays_cannot_be():
    model, x = tiny_model(), images(1, 3, 8, 8)
    with pytest.raises(ValueError, match="got int32"):
        model(Tensor(x.astype(np.int32)))
    with pytest.raises(ValueError, match=r"channels come first"):
        model(Tensor(x.transpose(0, 2, 3, 1)))
    backwards = Tensor(x)
    backwards.__cuda_array_interface__["strides"] = (-768, 256, 32, 4)
    with pytest.raises(ValueError, match="negative strides"):
        model(backwards)
    masked = Tensor(x)
    masked.__cuda_array_interface__["mask"] = backwards
    with pytest.raises(ValueError, match="mask"):
        model(masked)
    with pytest.raises(ValueError, match="x lies on a GPU and the model runs on the backend 'reference'"):
        tiny_model(backend="reference")(Tensor(x))


@needs_device
def test_batches_of_every_size(monkeypatch):
    model, x = tiny_model(), images(5, 3, 8, 8)
    expected = model(x)
    assert model(x[:0]).shape == (0, 5)
    assert model(Tensor(x[:0])).shape == (0, 5)
    monkeypatch.setattr(cuda_plan, "LARGEST_BATCH", 2)
    assert_like(model(x), expected)
    assert_like(model(Tensor(x)), expected)
    assert np.array_equal(model.features(Tensor(x), "block1"), model.features(x, "block1"))
    assert model._engine.program.largest_batch((8, 8)) == 2
    assert model._engine.program.largest_batch((30_000, 30_000)) == 1


@needs_device
def test_two_models_and_many_threads():
    models = [tiny_model("least"), tiny_model("least", threads=2, dtype="float16")]
    inputs = [images(2, 3, 9, 8, seed=1), images(1, 3, 8, 12, seed=2)]
    expected = [[model(x) for x in inputs] for model in models]
    wrong = []

    def work(number):
        for trip in range(2):
            model, x = (number + trip) % 2, number // 2
            if not np.array_equal(models[model](inputs[x]), expected[model][x]):
                wrong.append((number, trip))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@needs_device
def test_a_workspace_leaves_nothing_behind():
    model, x = tiny_model(), images(2, 3, 9, 8)
    expected = model(x)
    assert np.isnan(model(np.full_like(x, np.nan))).all()
    assert np.array_equal(model(x), expected)


@pytest.mark.skipif(not device.SIMULATED, reason="a device has its own")
def test_from_the_second_call_on_launches_are_recorded(monkeypatch):
    """All but the first, which reads the caller's array, and the last, which writes the result."""

    class Recorded:
        def __init__(self, launch_all):
            self.launch_all, self.launched = launch_all, 0

        def launch(self, handle):
            self.launched += 1
            self.launch_all(handle)

    monkeypatch.setattr(cuda_graphs, "record", Recorded)
    monkeypatch.setattr(cuda_memory, "external_stream", lambda number: cuda_memory.stream())
    model, x = tiny_model(), images(1, 3, 8, 8)
    (expected, *others) = [model(x) for _ in range(3)]
    (work,) = model._engine.plan((8, 8))._idle
    assert work.graph.launched == 2
    monkeypatch.setenv(cuda_graphs.SWITCH, "0")
    others.append(model(x))
    assert work.graph.launched == 2
    assert all(np.array_equal(logits, expected) for logits in others)
    assert np.array_equal(model(Tensor(2 * x)), model(2 * x))
    monkeypatch.delenv(cuda_graphs.SWITCH)
    names = ("block1", "logits", "stem")
    for factor in (1, 2, 3):
        found, resident = (model.outputs(one, names) for one in (factor * x, Tensor(factor * x)))
        for name in names:
            assert np.array_equal(found[name], model.features(factor * x, name))
            assert np.array_equal(resident[name], found[name])
    (work,) = model._engine.plan((8, 8), names)._idle
    assert work.graph.launched == 5


@needs_device
def test_pickles():
    model = tiny_model(dtype="float16")
    copy = pickle.loads(pickle.dumps(model))
    x = images(1, 3, 8, 8)
    assert np.array_equal(copy(x), model(x))
    assert repr(copy) == repr(model) and "backend='cuda' dtype='float16'" in repr(model)


@needs_device
def test_plans_and_their_memory():
    graph, weights = network()
    program = CudaProgram(graph, weights)
    one, two = program.plan((32, 32), None, 1), program.plan((32, 32), None, 2)
    assert one.memory < two.memory <= 2.1 * one.memory
    live = sum(one._bytes(name) for name in one.shapes)
    assert one.memory < live, "nothing shares memory"
    assert all(offset % 256 == 0 for offset in two.offsets.values())
    engine = Engine(graph, weights, "cuda")
    assert engine.plan((8, 8)) is engine.plan((8, 8)) is not engine.plan((8, 8), None, 2)
    seconds = engine.plan((8, 8)).time_steps(1)
    assert list(seconds) == [step.output for step in one.steps]


@needs_device
@pytest.mark.parametrize("name", ["mobilenet_v2", "mixnet_s", "mobilenet_v3_small"])
def test_launches_of_real_networks_fit_a_device(name, monkeypatch):
    """Nothing is run: blocks and grids within CUDA's limits, from one small image to many and to one large one."""
    monkeypatch.undo()  # as many threads as on a device
    graph = get_architecture(name).graph()
    program = CudaProgram(graph, random_weights(graph))
    for size, batch in (((32, 32), 1), ((224, 224), 1), ((224, 224), 32), ((224, 224), 512), ((2000, 3000), 1)):
        for step in program.plan(size, None, batch).steps:
            (x, y, z), (blocks_x, blocks_y, blocks_z) = step.launch.block, step.launch.grid
            assert x * y * z <= 1024 and z <= 64, step
            assert 0 < blocks_x < 2**31 and 0 < blocks_y < 2**16 and 0 < blocks_z < 2**16, step


@needs_device
def test_too_little_memory(monkeypatch):
    model = tiny_model()
    model(images(1, 3, 8, 8))  # its workspace is idle now
    plan = model._engine.plan((8, 8))
    asked = []

    def free():
        asked.append(len(plan._idle))
        return 1000 if plan._idle else 1 << 40

    monkeypatch.setattr(cuda_memory, "free_memory", free)
    model(images(2, 3, 8, 8))
    assert asked == [1, 0], "an idle workspace was not given up"
    monkeypatch.setattr(cuda_memory, "free_memory", lambda: 2**20)
    with pytest.raises(DeviceMemoryError, match=r"for a batch of 64 \(96x90\): [\d.,]+ MiB needed, 1\.0 MiB free"):
        model(images(64, 3, 96, 90))
    monkeypatch.setattr(cuda_memory, "free_memory", lambda: 100)
    with pytest.raises(MemoryError, match="for the weights"):
        tiny_model()


@needs_device
def test_memory_in_no_one_piece(monkeypatch):
    def refuse(*arguments):
        raise cuda_memory.OutOfMemory

    model, x = tiny_model(), images(1, 3, 8, 8)
    tensor = Tensor(x)
    monkeypatch.setattr(cuda_memory, "empty", refuse)
    with pytest.raises(DeviceMemoryError, match=r"for a batch of 1 \(8x8\): .* take smaller batches"):
        model(x)
    with pytest.raises(DeviceMemoryError, match="for the result"):
        model(tensor)


@needs_device
def test_an_operation_without_a_kernel():
    graph = Graph((Node("odd", "activation", ("input",), "stem", {}, {"function": "gelu"}),))
    with pytest.raises(UnsupportedGraphError, match=r"'cuda' has no kernel for odd, gelu; backend='auto' has$"):
        lower(graph, {"input": (1, 4, 4, 3), "odd": (1, 4, 4, 3)}, np.dtype(np.float32))


def test_without_a_device(monkeypatch):
    monkeypatch.setattr(device, "problem", lambda: "not available: no driver; pip install 'npmobilenet[cuda]'")
    with pytest.raises(MissingDependencyError, match=r"'cuda' cannot run here: .* no driver; pip install") as error:
        tiny_model()
    assert "\n" not in str(error.value)


def test_the_command_line_without_a_device(monkeypatch, capsys):
    monkeypatch.setattr(device, "problem", lambda: "not available: no driver")
    assert main(["classify", str(photo("coffee.png")), "--backend", "cuda"]) == 1
    assert (
        capsys.readouterr().err == "npmobilenet: the backend 'cuda' cannot run here: CUDA is not available: no driver\n"
    )
    assert doctor._cuda_test() == "not run: no device"


def test_types_of_storage():
    for options in ({"dtype": "float16", "backend": "reference"}, {"dtype": "int4"}):
        with pytest.raises(ValueError, match="dtype must be float32, int8, or float16 with the backend 'cuda'"):
            tiny_model(**options)


class TestOnAGpu:
    """Whole networks of full size."""

    pytestmark = real_device

    @pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v1"])
    @pytest.mark.parametrize("image", ["astronaut", "chelsea", "coffee", "grace_hopper", "rocket"])
    def test_stored_logits_of_real_weights(self, name, image):
        stored = reference(f"{name}_imagenet_{image}")
        assert_like(npmobilenet.load(name, backend="cuda")(stored["input"]), stored["logits_f64"])
        half = npmobilenet.load(name, backend="cuda", dtype="float16")(stored["input"])
        assert_like(half, stored["logits_f64"], HALF)
        assert half.argmax() == stored["logits_f64"].argmax()

    @pytest.mark.parametrize("name", STORED)
    def test_stored_logits_of_random_weights(self, name):
        from tests.data.make_random_networks import network_input

        architecture, _, width, classes, size, padding, eps, seed = STORED[name]
        graph = get_architecture(architecture).graph(width, classes, padding, eps)
        engine = Engine(graph, random_weights(graph, seed), "cuda")
        expected = reference("random_networks")[name]
        for _ in range(3):  # the third time as a graph
            assert_like(engine.run(network_input(size, seed)), expected)

    def test_recorded_launches_give_the_same_bits(self, monkeypatch):
        model, x = npmobilenet.load(backend="cuda"), images(4, 3, 96, 96)
        expected = model(x)
        for _ in range(3):
            assert np.array_equal(model(x), expected)
        (work,) = model._engine.plan((96, 96), None, 4)._idle
        assert work.graph is not None and work.graph.nodes == len(work.launches) - 1
        monkeypatch.setenv("NPMOBILENET_CUDA_GRAPHS", "0")
        assert np.array_equal(model(x), expected)

    def test_tensors_of_pytorch(self):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("PyTorch sees no GPU")
        model, x = npmobilenet.load(backend="cuda"), images(8, 3, 64, 64)
        expected = model(x)
        tensor = torch.from_numpy(x).cuda()
        for source in (tensor, tensor.contiguous(memory_format=torch.channels_last)):
            logits = model(source)
            result = torch.as_tensor(logits, device="cuda")
            assert result.data_ptr() == logits.pointer
            assert np.array_equal(result.cpu().numpy(), expected)
        with pytest.raises(ValueError, match="x lies on a GPU"):
            npmobilenet.load()(tensor)

    def test_arrays_of_cupy(self):
        cupy = pytest.importorskip("cupy")
        model, x = npmobilenet.load(backend="cuda"), images(3, 3, 64, 64)
        logits = model(cupy.asarray(x))
        result = cupy.asarray(logits)
        assert result.data.ptr == logits.pointer
        assert np.array_equal(cupy.asnumpy(result), model(x))

    def test_memory_runs_out(self):
        """Of an image of 10 gigapixels, which is not there; nothing is launched."""
        model = npmobilenet.load(backend="cuda")
        with pytest.raises(DeviceMemoryError, match="smaller"):
            model(DeviceArray(256, (1, 3, 100_000, 100_000), None, np.dtype(np.float32), None))
