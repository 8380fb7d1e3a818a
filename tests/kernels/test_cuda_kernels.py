"""The CUDA kernels against the reference: in the simulator over tiny shapes, and on a device where there is one.

The simulator is there with ``NUMBA_ENABLE_CUDASIM=1``. On a device, ``pytest -m gpu`` runs these tests alone. In a
process with neither only those run that need neither.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from npmobilenet.kernels import reference, registry
from npmobilenet.kernels.cuda import (
    convolution,
    depthwise,
    device,
    elementwise,
    inverted_residual,
    launch,
    linear,
    mixed,
    pointwise,
    pooling,
    squeeze_excite,
)
from npmobilenet.kernels.cuda.device import cuda
from tests.kernels import cases
from tests.kernels.cases import ACTIVATIONS, Case
from tests.kernels.test_cpu_kernels import PLAIN, TAILS, WITH_SPECIAL_VALUES
from tests.kernels.tolerance import assert_close, tolerance

KERNELS = registry.kernels(backend="cuda")
OPERATIONS = [kernel.operation for kernel in KERNELS]
MISSING = device.problem()


def on_device(test):
    """Mark a test that needs a device or the simulator."""
    if not device.SIMULATED:
        test = pytest.mark.gpu(test)
    return pytest.mark.skipif(MISSING is not None, reason=f"CUDA is {MISSING}")(test)


# Tiles that the simulator, for which every thread is one of Python, gets through in a moment: without and with slices.
TINY_TILES = (pointwise.Tile(16, 4, 4, 8, 2), pointwise.Tile(4, 4, 4, 1, 2, 2))
REAL_TILES = pointwise.TILES


@pytest.fixture(autouse=True)
def few_threads(monkeypatch):
    if device.SIMULATED:
        monkeypatch.setitem(launch.CONFIGURATION, "threads", 8)
        monkeypatch.setitem(launch.CONFIGURATION, "segment", 4)
        monkeypatch.setattr(pointwise, "TILES", TINY_TILES)
        monkeypatch.setattr(inverted_residual, "TILES", (inverted_residual.Tile(2, 2, 4, 2, 2),))
        monkeypatch.setattr(inverted_residual, "WORTH", 1)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # the simulator asks in a loop whether its threads have come to a barrier
    yield
    sys.setswitchinterval(interval)


def small(case: Case) -> bool:
    if not device.SIMULATED:
        return True
    return case.macs <= 2000 and registry.bytes_moved(case.operation, **case.shapes, **case.options) <= 4000


def matching(chosen: list[Case], every: bool = False) -> list:
    return [
        pytest.param(kernel, case, id=str(case))
        for case in chosen
        for kernel in KERNELS
        if kernel.operation == case.operation and (every or small(case))
    ]


def expected_of(case: Case, arrays: dict) -> tuple[np.ndarray, np.ndarray]:
    expected = getattr(reference, case.operation)(**arrays, **case.options)
    return expected, tolerance(case.operation, arrays, case.options, expected)


# Larger than a tile of any kind, with a remainder; in the simulator the tiles are tiny.
LARGE = [
    cases.conv(2, 37, 41, 3, 36, stride=2, padding=1, activation="relu6"),
    *(cases.depthwise(2, 61, 53, 40, k=(k, k), stride=s, padding=k // 2) for k in (3, 5, 7, 9, 11) for s in (1, 2)),
    cases.mixed(2, 31, 29, (40, 28, 20, 12), (3, 5, 7, 9), activation="swish"),
    *(cases.pointwise(2, 23, 19, c, d) for c, d in ((96, 24), (24, 144), (384, 96), (130, 257), (1000, 20))),
    cases.pointwise(3, 23, 19, 60, 90, groups=2, residual=True, activation="relu6"),
    *(cases.linear(n, 1280, 1000) for n in (1, 8, 130)),
    cases.squeeze(3, 14, 14, 240, 20, activation="swish"),
    cases.block(2, 56, 53, 24, 144, 24, padding=1, residual=True),
    cases.block(2, 14, 14, 64, 384, 96, padding=1),  # three kernels
    Case("global_average_pool", {"x": (3, 14, 14, 200)}),
    Case("softmax", {"x": (3, 1000)}),
    Case("swish", {"x": (3, 100_003)}),
]


@on_device
@pytest.mark.parametrize(("kernel", "case"), matching(cases.TORCH_CASES + TAILS + ([] if device.SIMULATED else LARGE)))
def test_agrees_with_the_reference(kernel, case):
    arrays = case.arrays()
    expected, allowed = expected_of(case, arrays)
    result = kernel.function(**arrays, **case.options)
    assert isinstance(result, np.ndarray)
    assert result.dtype == np.float32
    assert_close(result, expected, allowed, case)
    if not device.SIMULATED:
        again = kernel.function(**arrays, **case.options, threads=3)
        assert result.tobytes() == again.tobytes(), "two runs differ"


@on_device
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("kernel", "case"), matching(WITH_SPECIAL_VALUES))
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_nan_and_infinity_go_where_the_reference_sends_them(kernel, case, value):
    arrays = case.arrays()
    x = arrays["x"] if "x" in arrays else arrays["xs"][0]
    x[(0, *(size // 2 for size in x.shape[1:]))] = value
    with np.errstate(invalid="ignore"):
        expected = getattr(reference, case.operation)(**arrays, **case.options)
        result = kernel.function(**arrays, **case.options)
    assert_close(np.where(np.isfinite(result), 0, result), np.where(np.isfinite(expected), 0, expected), 0, case)


PLAIN_CASES = matching([PLAIN[operation] for operation in OPERATIONS], every=True)


@on_device
@pytest.mark.parametrize(("kernel", "case"), PLAIN_CASES)
def test_out(kernel, case):
    arrays = case.arrays()
    expected = kernel.function(**arrays, **case.options)
    out = np.full(expected.shape, np.nan, np.float32)
    assert kernel.function(**arrays, **case.options, out=out) is out
    assert np.array_equal(out, expected)
    with pytest.raises(ValueError, match=r"out must be a float32 array of shape .* got float64"):
        kernel.function(**arrays, **case.options, out=np.empty(expected.shape))


def upload(value):
    """A device array, or a list of them."""
    return [upload(each) for each in value] if isinstance(value, list) else cuda.to_device(np.ascontiguousarray(value))


@on_device
@pytest.mark.parametrize(("kernel", "case"), PLAIN_CASES)
def test_device_arrays_stay_on_the_device(kernel, case):
    arrays = case.arrays()
    expected = kernel.function(**arrays, **case.options)
    resident = {name: upload(array) for name, array in arrays.items()}
    result = kernel.function(**resident, **case.options)
    assert not isinstance(result, np.ndarray)
    assert tuple(result.shape) == expected.shape
    assert np.array_equal(result.copy_to_host(), expected)
    out = cuda.to_device(np.full(expected.shape, np.nan, np.float32))
    assert kernel.function(**resident, **case.options, out=out) is out
    assert np.array_equal(out.copy_to_host(), expected)
    first = next(iter(arrays))
    beside = {**arrays, first: resident[first]}  # weights on the host
    assert np.array_equal(kernel.function(**beside, **case.options).copy_to_host(), expected)


@on_device
def test_device_arrays_that_do_not_fit():
    add = registry.best("add", "cuda").function
    x = np.zeros((4, 6), np.float32)
    resident = cuda.to_device(x)
    with pytest.raises(ValueError, match="must be float32 as x is, got float16"):
        add(resident, cuda.to_device(x.astype(np.float16)))
    with pytest.raises(ValueError, match="dtype must be float32 or float16, got float64"):
        add(cuda.to_device(x.astype(np.float64)), resident)
    with pytest.raises(ValueError, match=r"out must be a float32 array of shape \(4, 6\), got float32 \(6, 4\)"):
        add(resident, resident, out=cuda.to_device(x.reshape(6, 4)))
    with pytest.raises(ValueError, match="must be C-contiguous"):
        add(resident[:, ::2], resident[:, ::2])
    with pytest.raises(ValueError, match=r"y must have the shape of x, \(4, 6\), got \(6, 4\)"):
        add(resident, cuda.to_device(x.reshape(6, 4)))


HALVES = [
    PLAIN["conv2d"],
    cases.depthwise(2, 5, 6, 8, padding=1, activation="relu6"),
    cases.depthwise(1, 5, 6, 3, padding=1),
    cases.mixed(1, 5, 6, (4, 4), (3, 5), activation="swish"),
    cases.pointwise(1, 3, 3, 8, 8, residual=True, activation="hard_swish"),
    cases.pointwise(1, 3, 3, 5, 7),
    cases.linear(2, 12, 8),
    cases.squeeze(2, 3, 3, 8, 4),
    PLAIN["max_pool2d"],
    PLAIN["softmax"],
    PLAIN["add"],
    *(
        PLAIN[operation]
        for operation in ("batch_norm", "conv_transpose2d", "global_max_pool", "resize2d", "tanh", "elu")
    ),
    *(PLAIN[operation] for operation in ("prelu", "broadcast_add", "multiply", "concat", "channel_pad", "flatten")),
    cases.resize(1, 3, 4, 8, size=(5, 3)),
]


@on_device
@pytest.mark.parametrize(("kernel", "case"), matching(HALVES, every=True))
def test_float16_is_storage_and_sums_are_float32(kernel, case):
    def half(value):
        return [half(each) for each in value] if isinstance(value, list) else value.astype(np.float16)

    arrays = {name: half(array) for name, array in case.arrays().items()}
    expected, allowed = expected_of(case, arrays)
    result = kernel.function(**arrays, **case.options)
    assert result.dtype == np.float16
    rounded = np.abs(expected) * 2.0**-10  # the result, and what lies between the launches of squeeze and excite
    assert_close(result, expected, allowed + rounded + 2.0**-24, case)


def flat(array, dtype=np.float32):
    return cuda.to_device(np.ascontiguousarray(array, dtype).reshape(-1))


def started(prepared, *arrays, extras=()):
    """The result of a launcher, with room around it that must stay as it is."""
    size = int(np.prod(prepared.shape))
    arena = cuda.to_device(np.full(size + 8, 7, prepared.dtype))
    prepared.compile()
    prepared(0, *(flat(a, prepared.dtype) for a in arrays), arena[4 : size + 4], *(flat(a) for a in extras))
    result = arena.copy_to_host()
    assert (result[:4] == 7).all() and (result[size + 4 :] == 7).all()
    return result[4:-4].reshape(prepared.shape)


TILES = [
    pointwise.Tile(4, 4, 4, 2, 2),
    pointwise.Tile(4, 4, 4, 1, 1),
    pointwise.Tile(8, 4, 4, 4, 2),
    pointwise.Tile(4, 8, 4, 2, 2),
    pointwise.Tile(4, 4, 4, 2, 2, 2),
    pointwise.Tile(4, 4, 4, 1, 4, 4),
]


@on_device
@pytest.mark.parametrize("tile", TILES if device.SIMULATED else REAL_TILES, ids=str)
@pytest.mark.parametrize(("c_in", "c_out", "groups"), [(8, 8, 1), (7, 5, 1), (12, 4, 2), (6, 6, 3), (18, 10, 1)])
def test_every_tile_of_a_product(monkeypatch, tile, c_in, c_out, groups):
    monkeypatch.setattr(pointwise, "TILES", (tile,))
    case = cases.pointwise(2, 3, 3, c_in, c_out, groups, residual=True, activation="relu6")
    arrays = case.arrays()
    expected, allowed = expected_of(case, arrays)
    prepared = pointwise.prepare_pointwise_conv2d(
        (2, 3, 3, c_in), (c_in // groups, c_out), **case.options, residual=True
    )
    result = started(prepared, arrays["x"], arrays["weight"], arrays["bias"], extras=[arrays["residual"]])
    assert_close(result, expected, allowed, case)


def test_tiles_fit_a_block():
    for tile in REAL_TILES:
        assert tile.threads * tile.slices <= 256
        assert tile.threads % 32 == 0
        assert max(tile.channels, tile.depth) <= tile.threads
        floats = 2 * tile.slices * tile.depth * (tile.pixels + 4 + tile.channels)
        assert 4 * floats <= 48 * 1024


def test_large_products_get_large_tiles_and_small_ones_slices(monkeypatch):
    monkeypatch.setattr(pointwise, "TILES", REAL_TILES)
    assert pointwise.choose(256 * 56 * 56, 64, 128, 1, 132) == pointwise.TILES[0]
    assert pointwise.choose(256 * 112 * 112, 96, 24, 1, 132).channels == 32
    assert pointwise.choose(49, 960, 160, 1, 132).slices > 1
    assert pointwise.choose(1, 1280, 1000, 1, 132).pixels == 4


@on_device
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("c_in", "c_out", "groups"), [(8, 4, 1), (6, 10, 2)])
def test_a_product_scales_what_it_loads(c_in, c_out, groups, residual):
    case = cases.pointwise(3, 3, 2, c_in, c_out, groups, residual=True)
    arrays = case.arrays()
    factors = np.random.default_rng(1).uniform(0, 1, (3, c_in)).astype(np.float32)
    scaled = {**arrays, "x": arrays["x"] * factors[:, None, None]}
    if not residual:
        del scaled["residual"]
    expected, allowed = expected_of(case, scaled)
    prepared = pointwise.prepare_pointwise_conv2d(
        (3, 3, 2, c_in), (c_in // groups, c_out), **case.options, residual=residual, scale=True
    )
    extras = [arrays["residual"], factors] if residual else [factors]
    result = started(prepared, arrays["x"], arrays["weight"], arrays["bias"], extras=extras)
    assert_close(result, expected, 2 * allowed, case)


@on_device
@pytest.mark.parametrize("tile", [(1, 1, 1), (1, 3, 2), (2, 2, 4), (2, 5, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_every_tile_of_a_window(monkeypatch, tile, stride):
    monkeypatch.setattr(depthwise, "TILES", {99: tile})
    for case in (
        cases.depthwise(2, 7, 6, 8, padding=1, stride=stride, activation="relu"),
        cases.depthwise(1, 6, 5, 4, k=(5, 4), padding=2, stride=(stride, 1)),
        cases.mixed(1, 5, 6, (4, 2, 2), (3, 5, 3), stride=stride),
    ):
        arrays = case.arrays()
        expected, allowed = expected_of(case, arrays)
        result = registry.best(case.operation, "cuda").function(**arrays, **case.options)
        assert_close(result, expected, allowed, case)


@on_device
@pytest.mark.parametrize(
    ("size", "c_in", "expanded", "c_out", "kernel", "options"),
    [
        ((5, 4), 4, 8, 4, 3, {"padding": 1, "residual": True, "expand_activation": "relu6"}),
        ((6, 5), 3, 12, 6, 3, {"padding": 1, "stride": 2, "depthwise_activation": "swish"}),
        ((4, 4), 8, 4, 5, 5, {"padding": 2, "project_activation": "relu"}),
        ((6, 6), 4, 8, 8, 3, {"padding": ((0, 1), (0, 1)), "stride": 2, "expand_activation": "hard_swish"}),
    ],
)
@pytest.mark.parametrize("tile", [(2, 2, 4, 2, 2), (2, 4, 8, 2, 2)] if device.SIMULATED else [(8, 8, 16), (8, 8, 8)])
def test_an_inverted_residual_is_its_three_parts(monkeypatch, tile, size, c_in, expanded, c_out, kernel, options):
    monkeypatch.setattr(inverted_residual, "TILES", (inverted_residual.Tile(*tile),))
    monkeypatch.setattr(inverted_residual, "WORTH", 1)
    rng = np.random.default_rng(3)
    x, expand, expand_bias, weight, bias, project, project_bias = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in (
            (2, *size, c_in), (c_in, expanded), expanded, (kernel, kernel, expanded), expanded,
            (expanded, c_out), c_out,
        )
    )  # fmt: skip
    names = ("expand_activation", "depthwise_activation", "project_activation")
    first, second, third = (
        options.get(name, default) for name, default in zip(names, ("relu6", "relu6", "none"), strict=True)
    )
    y = reference.pointwise_conv2d(x, expand, expand_bias, activation=first)
    geometry = {"stride": options.get("stride", 1), "padding": options["padding"]}
    y = reference.depthwise_conv2d(y, weight, bias, **geometry, activation=second)
    residual = x if options.get("residual") else None
    y = reference.pointwise_conv2d(y, project, project_bias, activation=third, residual=residual)
    prepared = inverted_residual.prepare_inverted_residual(x.shape, expanded, kernel, c_out, **options)
    result = started(prepared, x, expand, expand_bias, weight, bias, project, project_bias)
    assert_close(result, y, 1e-5 * np.abs(y).max(), options)


def test_blocks_that_are_better_left_to_three_kernels(monkeypatch):
    prepare = inverted_residual.prepare_inverted_residual
    monkeypatch.setattr(inverted_residual, "WORTH", 28 * 28)
    monkeypatch.setattr(inverted_residual, "TILES", (inverted_residual.Tile(),))
    assert prepare((1, 14, 14, 64), 384, 3, 64, padding=1) is None  # few pixels
    assert prepare((1, 56, 56, 160), 960, 3, 64, padding=1) is None  # more than shared memory holds
    assert prepare((1, 56, 56, 24), 90, 3, 24, padding=1) is None  # no whole vectors
    with pytest.raises(ValueError, match=r"residual must have the shape of the result, \(1, 56, 56, 32\)"):
        prepare((1, 56, 56, 24), 144, 3, 32, padding=1, residual=True)


@on_device
def test_launchers_of_single_passes():
    rng = np.random.default_rng(5)
    x, y, factors = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 3, 6), (2, 3, 3, 6), (2, 6)))
    every = factors[:, None, None]
    for prepared, operands, expected in (
        (elementwise.prepare_add(x.shape), (x, y), x + y),
        (elementwise.prepare_add(x.shape, activation="relu"), (x, y), np.maximum(x + y, 0)),
        (elementwise.prepare_map(x.shape, "relu6"), (x,), np.clip(x, 0, 6)),
        (elementwise.prepare_leaky_relu(x.shape, slope=0.5), (x,), np.where(x > 0, x, x / 2)),
        (elementwise.prepare_multiply(x.shape, factors.shape), (x, factors), x * every),
        (elementwise.prepare_broadcast_add(x.shape, factors.shape), (x, factors), x + every),
        (elementwise.prepare_prelu(x.shape, (6,)), (x, factors[0]), np.where(x > 0, x, x * factors[0])),
    ):
        assert_close(started(prepared, *operands), expected, 0, prepared.name)
        place = flat(operands[0])
        prepared(0, place, *map(flat, operands[1:]), place)
        assert_close(place.copy_to_host().reshape(x.shape), expected, 0, prepared.name)


@on_device
@pytest.mark.parametrize("gate", ACTIVATIONS)
def test_the_gate_of_squeeze_and_excitation(gate):
    rng = np.random.default_rng(6)
    shapes = (3, 10), (10, 5), (5,), (5, 10), (10,)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    means, reduce, reduce_bias, expand, expand_bias = arrays
    squeezed = reference.linear(means, reduce, reduce_bias, activation="swish")
    expected = reference.linear(squeezed, expand, expand_bias, activation=gate)
    prepared = squeeze_excite.prepare_gate(3, 10, 5, activation="swish", gate=gate)
    assert_close(started(prepared, *arrays), expected, 1e-5, gate)


@on_device
def test_launchers_say_what_they_are():
    launchers = [
        convolution.prepare_conv2d((1, 4, 4, 3), (3, 3, 3, 4), padding=1),
        depthwise.prepare_depthwise_conv2d((1, 4, 4, 4), (3, 3, 4)),
        mixed.prepare_mixed_depthwise_conv2d((1, 4, 4, 4), [(3, 3, 2), (5, 5, 2)]),
        pointwise.prepare_pointwise_conv2d((1, 4, 4, 4), (4, 8)),
        linear.prepare_linear((1, 4), (4, 8)),
        linear.prepare_softmax((1, 4)),
        pooling.prepare_global_average_pool((1, 4, 4, 8)),
        pooling.prepare_max_pool2d((1, 4, 4, 8), 2),
        pooling.prepare_average_pool2d((1, 4, 4, 8), 2),
    ]
    names = "convolution3x3 depthwise3x3 mixed_depthwise pointwise linear softmax global_average_pool max_pool2d"
    assert [each.name for each in launchers] == [*names.split(), "average_pool2d"]
    assert [each.shape for each in launchers[:5]] == [(1, 4, 4, 4), (1, 2, 2, 4), (1, 4, 4, 4), (1, 4, 4, 8), (1, 8)]
    for each in launchers:
        assert len(each.signature()) == len(each.order) + len(each.scalars)
        assert np.prod(each.block) <= 256
    with pytest.raises(ValueError, match="dtype must be float32 or float16, got float64"):
        linear.prepare_softmax((1, 4), dtype=np.float64)
    with pytest.raises(ValueError, match=r"weight must be a float array of shape \(C_in/G=4, C_out\)"):
        pointwise.prepare_pointwise_conv2d((1, 4, 4, 4), (5, 8))


def test_blocks_of_threads(monkeypatch):
    monkeypatch.setitem(launch.CONFIGURATION, "threads", 256)
    monkeypatch.setitem(launch.CONFIGURATION, "segment", 32)
    assert launch.block_of(96, 4, columns=28, rows=56) == (8, 8, 4)
    assert launch.block_of(960, 4, columns=2, rows=4) == (32, 2, 4)
    assert launch.block_of(3, 1, columns=28, rows=56) == (4, 8, 8)
    assert launch.lanes(96) == 4 and launch.lanes(90, 6) == 2 and launch.lanes(7) == 1
    assert launch.lanes(96, most=2) == 2


@pytest.mark.skipif(MISSING is None, reason="there is a device, or the simulator")
def test_without_a_device_every_operation_says_so():
    for operation in OPERATIONS:
        case = PLAIN[operation]
        with pytest.raises(
            device.CudaUnavailable, match=r"^CUDA is not available: .*pip install \"npmobilenet\[cuda\]\""
        ):
            registry.best(operation, "cuda").function(**case.arrays(), **case.options)


def test_without_the_package_the_functions_exist_and_say_what_to_install():
    program = (
        "import sys; sys.modules['numba.cuda'] = None\n"  # importing it now raises ImportError
        "import numpy as np\n"
        "from npmobilenet.kernels import registry\n"
        "for kernel in registry.kernels(backend='cuda'): kernel.function\n"
        "try: registry.best('relu', 'cuda').function(np.zeros(3))\n"
        "except RuntimeError as error: print(error)\n"
        "from npmobilenet.kernels.cuda import device, linear\n"
        "try: linear.prepare_softmax((3, 4))\n"
        "except device.CudaUnavailable as error: print(error)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    for line in run.stdout.splitlines():
        assert line.startswith("CUDA is not available: ")
        assert line.endswith('pip install "npmobilenet[cuda]"')
    assert len(run.stdout.splitlines()) == 2


def test_a_numba_cuda_that_does_not_fit_this_numba_is_told():
    """Older ones fail with an AttributeError as they are imported, which must not take the package with them."""
    program = (
        "import sys\n"
        "class Broken:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'numba.cuda': raise AttributeError('no NPDatetime')\n"
        "sys.meta_path.insert(0, Broken())\n"
        "from npmobilenet.kernels.cuda import device, linear\n"
        "print(device.problem())\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert run.stdout == 'not available: no NPDatetime; pip install "npmobilenet[cuda]"\n', run.stderr


@pytest.mark.skipif(MISSING is None, reason="the simulator runs here, or there is a device")
def test_one_case_of_each_operation_in_the_simulator():
    """The rest runs where the whole suite is run in the simulator."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}::test_out"]
    root = Path(__file__).parents[2]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root)
    assert run.returncode == 0, run.stdout[-3000:]
    assert f"{len(PLAIN_CASES)} passed" in run.stdout


@pytest.mark.skipif(not device.SIMULATED, reason="about the simulator")
def test_threads_of_the_simulator_share_one_array(monkeypatch):
    """Its own way to hand them out gives an array each to two threads that come at once."""
    threads, empty = 8, np.empty

    def slow(*arguments, **options):
        time.sleep(0.01)  # the others come meanwhile
        return empty(*arguments, **options)

    def own_numbers(out):
        numbers = cuda.shared.array(threads, np.float32)
        numbers[cuda.threadIdx.x] = cuda.threadIdx.x
        cuda.syncthreads()
        out[cuda.threadIdx.x] = numbers[threads - 1 - cuda.threadIdx.x]

    out = np.zeros(threads, np.float32)
    monkeypatch.setattr(np, "empty", slow)
    cuda.jit(own_numbers)[1, threads](out)
    np.testing.assert_array_equal(out, np.arange(threads)[::-1])
