"""The compiled CUDA kernels, executed without a GPU: needs the compiler (``pip install "npmobilenet[test-cuda]"``).

Other tests run the kernels' meaning in Numba's simulator, or look at their PTX. Here the PTX is run, by
`tests.ptx`, with whole tiles and blocks as on a device, and compared with the reference. A launch
fails that reads or writes outside of an array, misaligned, what was never written, or what another thread writes
without a barrier between them.
"""

from __future__ import annotations

import numpy as np
import pytest

from npmobilenet.architectures import ARCHITECTURES, get_architecture, random_weights
from npmobilenet.cuda.arrays import DeviceArray
from npmobilenet.cuda.lowering import lower
from npmobilenet.engine import Engine
from npmobilenet.kernels import reference, registry
from npmobilenet.kernels.cuda import inverted_residual, linear, pointwise, pooling
from npmobilenet.passes import fuse
from tests.kernels import cases
from tests.kernels.cases import ACTIVATIONS, Case
from tests.kernels.tolerance import assert_close, tolerance
from tests.ptx import counts
from tests.ptx.pretended import LIMITS, Resident, compiler_missing, pretended_device, to_device

MISSING = compiler_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture
def device():
    with pretended_device() as pretended:
        yield pretended


def expected_of(case: Case, arrays: dict) -> tuple[np.ndarray, np.ndarray]:
    expected = getattr(reference, case.operation)(**arrays, **case.options)
    return expected, tolerance(case.operation, arrays, case.options, expected)


def clean(device) -> None:
    """What must not be in any kernel: float64, and memory of a thread's own."""
    for launched in device.launched:
        assert not launched.counts.instructions["float64"], launched.name
        assert not launched.program.local_bytes, launched.name


CASES = [
    *(cases.depthwise(2, 13, 11, 12, k=(k, k), stride=s, padding=k // 2) for k in (3, 5, 7, 9, 11) for s in (1, 2)),
    *(cases.depthwise(1, 9, 10, c, padding="same", stride=2, activation="relu6") for c in (1, 6)),
    cases.depthwise(3, 37, 29, 36, padding=1, activation="relu6"),
    cases.depthwise(1, 12, 11, 4, dilation=(3, 2), padding=3, activation="sigmoid"),
    cases.depthwise(1, 6, 8, 2, k=(2, 4), padding=((0, 1), (2, 0)), bias=False),
    cases.mixed(1, 13, 12, (8, 4, 4), (3, 5, 9), activation="relu6"),
    cases.mixed(2, 12, 9, (3, 2), (4, 5), padding="same", stride=2),
    cases.mixed(1, 8, 9, (2, 2), (3, 5), padding=((0, 1), (2, 0)), stride=(2, 1), dilation=[2, 1]),
    cases.pointwise(1, 7, 5, 6, 10, groups=2, residual=True, activation="swish"),
    cases.pointwise(1, 19, 17, 33, 130, activation="relu"),
    cases.conv(2, 21, 19, 3, 36, stride=2, padding=1, activation="relu6"),
    cases.conv(1, 9, 11, 2, 3, k=(3, 5), stride=(2, 1), padding="symmetric", dilation=(1, 2)),
    cases.conv(1, 6, 5, 6, 9, groups=3, padding=1, activation="hard_swish"),
    cases.squeeze(2, 5, 4, 12, 3, activation="swish"),
    cases.squeeze(2, 3, 3, 30, 260, gate="hard_sigmoid"),
    cases.linear(1, 70, 40),
    cases.linear(9, 33, 50, bias=False, activation="relu"),
    cases.pool("max_pool2d", 1, 7, 8, 3, 3, stride=2, padding=1),
    cases.pool("average_pool2d", 1, 7, 8, 3, 3, stride=2, padding=1),
    cases.pool("average_pool2d", 1, 7, 8, 3, 3, stride=2, padding=1, count_include_pad=False),
    Case("global_average_pool", {"x": (2, 7, 7, 140)}),
    Case("global_average_pool", {"x": (3, 2, 5, 3)}),
    Case("softmax", {"x": (3, 10)}),
    Case("softmax", {"x": (2, 1000)}),
    Case("add", {"x": (2, 3, 4, 5), "y": (2, 3, 4, 5)}, {"activation": "relu"}),
    *(Case(activation, {"x": (3, 401)}) for activation in ACTIVATIONS[1:]),
    *(Case(function, {"x": (3, 404)}) for function in ("leaky_relu", "elu", "tanh")),
    *(Case("prelu", {"x": (2, 9, 7, 12), "weight": slopes}) for slopes in ((12,), (1,), (9, 7, 12))),
    *(
        Case(operation, {"x": (2, 9, 37, 12), "y": y})
        for operation in ("broadcast_add", "multiply")
        for y in ((2, 12), (2, 9, 37, 1), (2, 1, 37, 12), (2, 9, 1, 1), (2, 9, 37, 12))
    ),
    Case("multiply", {"x": (2, 9), "y": (2, 1)}),
    Case("batch_norm", {"x": (2, 9, 7, 12), **{name: (12,) for name in ("weight", "bias", "mean", "variance")}}),
    Case("global_max_pool", {"x": (2, 7, 7, 140)}),
    Case("global_max_pool", {"x": (3, 2, 5, 3)}),
    Case("concat", {"xs": [(2, 9, 7, 12), (2, 9, 7, 3), (2, 9, 7, 64)]}),
    Case("channel_pad", {"x": (2, 9, 7, 12)}, {"before": 4, "after": 40}),
    Case("channel_pad", {"x": (3, 17)}, {"after": 1}),
    Case("flatten", {"x": (2, 7, 7, 36)}),
    Case("flatten", {"x": (2, 1, 19, 3)}),
    Case("conv_transpose2d", {"x": (2, 9, 7, 12), "weight": (2, 2, 12, 36), "bias": (36,)}, {"stride": 2}),
    Case("conv_transpose2d", {"x": (1, 5, 14, 6), "weight": (4, 5, 6, 3)}, {"stride": (3, 2), "padding": (1, 2)}),
    *(cases.resize(2, 9, 7, 12, size=(17, 40), mode=mode) for mode in ("bilinear", "nearest")),
    cases.resize(1, 9, 7, 3, size=(5, 6), coordinates="align_corners"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_compiled_kernels_agree_with_the_reference(device, case):
    arrays = case.arrays()
    expected, allowed = expected_of(case, arrays)
    result = registry.best(case.operation, "cuda").function(**arrays, **case.options)
    assert_close(result, expected, allowed, case)
    clean(device)
    assert device.launched


HALVES = [
    cases.conv(1, 9, 8, 3, 8, stride=2, padding=1, activation="relu6"),
    cases.depthwise(2, 9, 10, 8, padding=1, activation="relu6"),
    cases.depthwise(1, 5, 6, 3, k=(5, 5), padding=2, stride=2),
    cases.mixed(1, 9, 6, (4, 4), (3, 9), activation="swish"),
    cases.pointwise(1, 9, 9, 12, 20, residual=True, activation="hard_swish"),
    cases.pointwise(1, 3, 3, 5, 7),
    cases.squeeze(2, 3, 3, 8, 4),
    Case("max_pool2d", {"x": (1, 7, 6, 4)}, {"kernel_size": 3, "stride": 2}),
    Case("softmax", {"x": (2, 40)}),
    Case("add", {"x": (2, 3, 4, 5), "y": (2, 3, 4, 5)}),
    *(Case(function, {"x": (3, 404)}) for function in ("leaky_relu", "elu", "tanh")),
    Case("prelu", {"x": (2, 3, 4, 8), "weight": (8,)}),
    Case("multiply", {"x": (2, 3, 4, 8), "y": (2, 8)}),
    Case("batch_norm", {"x": (2, 3, 7, 8), **{name: (8,) for name in ("weight", "bias", "mean", "variance")}}),
    Case("global_max_pool", {"x": (2, 7, 7, 12)}),
    Case("concat", {"xs": [(2, 3, 7, 8), (2, 3, 7, 3)]}),
    Case("channel_pad", {"x": (2, 3, 7, 8)}, {"after": 8}),
    Case("flatten", {"x": (2, 7, 7, 12)}),
    Case("conv_transpose2d", {"x": (2, 5, 7, 8), "weight": (2, 2, 8, 12), "bias": (12,)}, {"stride": 2}),
    cases.resize(2, 5, 7, 8, size=(9, 9)),
]


@pytest.mark.parametrize("case", HALVES, ids=str)
def test_compiled_kernels_on_float16(device, case):
    def half(value):
        return [half(each) for each in value] if isinstance(value, list) else value.astype(np.float16)

    arrays = {name: half(array) for name, array in case.arrays().items()}
    expected, allowed = expected_of(case, arrays)
    result = registry.best(case.operation, "cuda").function(**arrays, **case.options)
    assert result.dtype == np.float16
    assert_close(result, expected, allowed + np.abs(expected) * 2.0**-10 + 2.0**-24, case)
    clean(device)


def started(prepared, *arrays, extras=()):
    """The result of a launcher, with what memory holds where nobody wrote."""
    out = Resident.empty(int(np.prod(prepared.shape)), prepared.dtype)
    prepared.compile()
    prepared(0, *(to_device(np.ravel(a)) for a in arrays), out, *(to_device(np.ravel(a)) for a in extras))
    assert out.valid.all(), "a part of the result is not written"
    return out.copy_to_host().reshape(prepared.shape)


@pytest.mark.parametrize("tile", pointwise.TILES, ids=str)
@pytest.mark.parametrize("c_in", [20, 7])
def test_every_tile_of_a_product(device, monkeypatch, tile, c_in):
    monkeypatch.setattr(pointwise, "TILES", (tile,))
    case = cases.pointwise(2, 9, 8, c_in, 36, residual=True, activation="relu6")
    arrays = case.arrays()
    expected, allowed = expected_of(case, arrays)
    prepared = pointwise.prepare_pointwise_conv2d((2, 9, 8, c_in), (c_in, 36), activation="relu6", residual=True)
    operands = (arrays["x"], arrays["weight"], arrays["bias"])
    assert_close(started(prepared, *operands, extras=[arrays["residual"]]), expected, allowed, case)
    clean(device)
    shared = device.launched[-1].counts.shared
    assert shared.sectors <= 1.1 * shared.least, "threads of a warp meet in banks of shared memory"


@pytest.mark.parametrize("tile", [pointwise.TILES[0], pointwise.TILES[-1]], ids=str)
def test_a_product_scales_what_it_loads(device, monkeypatch, tile):
    monkeypatch.setattr(pointwise, "TILES", (tile,))
    case = cases.pointwise(3, 5, 4, 24, 12)
    arrays = case.arrays()
    factors = np.random.default_rng(1).uniform(0, 1, (3, 24)).astype(np.float32)
    expected, allowed = expected_of(case, {**arrays, "x": arrays["x"] * factors[:, None, None]})
    prepared = pointwise.prepare_pointwise_conv2d((3, 5, 4, 24), (24, 12), scale=True)
    result = started(prepared, arrays["x"], arrays["weight"], arrays["bias"], extras=[factors])
    assert_close(result, expected, 2 * allowed, case)


@pytest.mark.parametrize("tile", inverted_residual.TILES, ids=str)
@pytest.mark.parametrize(
    ("size", "c_in", "expanded", "c_out", "kernel", "stride", "residual"),
    [((17, 10), 8, 24, 8, 3, 1, True), ((12, 19), 3, 20, 10, 3, 2, False), ((9, 9), 16, 16, 24, 5, 1, False)],
)
def test_an_inverted_residual_is_its_three_parts(
    device, monkeypatch, tile, size, c_in, expanded, c_out, kernel, stride, residual
):
    monkeypatch.setattr(inverted_residual, "TILES", (tile,))
    monkeypatch.setattr(inverted_residual, "WORTH", 1)
    rng = np.random.default_rng(3)
    shapes = ((c_in, expanded), expanded, (kernel, kernel, expanded), expanded, (expanded, c_out), c_out)
    x, *weights = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, *size, c_in), *shapes))
    y = reference.pointwise_conv2d(x, *weights[:2], activation="relu6")
    y = reference.depthwise_conv2d(y, *weights[2:4], stride=stride, padding=kernel // 2, activation="swish")
    y = reference.pointwise_conv2d(y, *weights[4:], residual=x if residual else None)
    prepared = inverted_residual.prepare_inverted_residual(
        x.shape, expanded, kernel, c_out, stride=stride, padding=kernel // 2, expand_activation="relu6",
        depthwise_activation="swish", residual=residual,
    )  # fmt: skip
    assert_close(started(prepared, x, *weights), y, 1e-5 * np.abs(y).max(), prepared.name)
    clean(device)


@pytest.mark.parametrize(("name", "dtype"), [("mixed", "float32"), ("v3", "float32"), ("inverted", "float16")])
def test_networks_run_on_compiled_kernels(device, monkeypatch, name, dtype):
    """With the host's code too: one arena, tensors that take turns in it, results that stay on the device."""
    from tests.test_cuda_model import TINY, Tensor

    monkeypatch.setattr(inverted_residual, "WORTH", 0)
    graph = TINY[name].graph(1.0, 5)
    weights = random_weights(graph, 3)
    x = np.random.default_rng(0).standard_normal((2, 3, 19, 18)).astype(np.float32)
    expected = Engine(graph, weights, "reference").run(x)
    engine = Engine(graph, weights, "cuda", dtype)
    error = (2e-4 if dtype == "float32" else 2e-2) * max(1, np.abs(expected).max() / 10)
    for again in range(2):
        assert np.abs(engine.run(x) - expected).max() < error, again
    resident = engine.run(DeviceArray.of(Tensor(x, permuted=(0, 2, 3, 1))))
    assert np.abs(np.asarray(resident, np.float32) - expected).max() < error
    squeezed = [node.name for node in graph if node.operation == "squeeze_excite"]
    names = ["block2.expand", "block2", "logits", *squeezed[:1]]
    images = DeviceArray.of(Tensor(x))
    for output, found in engine.outputs(images, names).items():
        assert np.array_equal(np.asarray(found), np.asarray(engine.run(images, output=output)))
    clean(device)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_random_graph_of_all_kinds_of_operations(device, dtype):
    from tests.test_operations import by_definition, random_graph

    graph, weights, x = random_graph(22)
    engine = Engine(graph, weights, "cuda", dtype)
    expected = by_definition(graph, weights, x)
    for name, found in engine.outputs(x, graph.output_names).items():
        error = (1e-4 if dtype == "float32" else 2e-2) * max(1, np.abs(expected[name]).max())
        assert np.abs(found - expected[name]).max() < error
        assert np.array_equal(engine.run(x, output=name), found)
    clean(device)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("batch", "size"), [(512, (224, 224)), (1, (224, 224)), (1, (1500, 4000))])
def test_grids_that_a_device_takes(device, name, batch, size):
    definition = get_architecture(name)
    graph = fuse(definition.graph())
    if definition.conventions.pixel_slopes:  # it takes images of one size
        size = (definition.resolution, definition.resolution)
    shapes = {name: (batch, *shape[1:], shape[0]) for name, shape in graph.shapes(size).items()}
    for fused in (False, True):
        for step in lower(graph, shapes, np.dtype(np.float32), fused)[0]:
            launch = step.launch
            for sizes, limits in ((launch.grid, LIMITS["grid"]), (launch.block, LIMITS["block"])):
                assert all(0 < here <= most for here, most in zip(sizes, limits, strict=True)), launch
            assert np.prod(launch.block) <= 256, launch


def test_more_images_than_a_grid_takes(device):
    with pytest.raises(ValueError, match="at most 65535"):
        pooling.prepare_global_average_pool((70_000, 2, 2, 8))
    assert linear.prepare_linear((70_000, 8), (8, 4)).grid[1:] == (1, 1)


def test_what_the_table_says(device):
    rows = list(counts.rows("float32", smoke=True))
    assert len(list(counts.lines(rows))) == 2 + len(rows) == 5
    for row in rows:
        assert 0 < row.fma_share < 1 and row.outputs > 0


@pytest.mark.parametrize(("size", "channels"), [(56, 144), (14, 384)])
def test_depthwise_kernels_ask_for_whole_sectors_and_little_else(size, channels):
    """What made the kernels fast to begin with must stay, as far as it can be counted."""
    from npmobilenet.kernels.cuda import depthwise

    x = (2, size, size, channels)
    with pretended_device():
        prepared = depthwise.prepare_depthwise_conv2d(x, (3, 3, channels), padding=1, activation="relu6")
    shapes = [x, (3, 3, channels), (channels,), prepared.shape]
    row = counts.measured("", prepared, shapes, counts.first_image(prepared), size * size * channels)
    found = row.launched.counts
    assert found.loads.sectors == found.loads.least and found.stores.sectors == found.stores.least
    assert found.loads.asked / 4 / row.outputs < 6
    assert row.fma_share > 0.25
