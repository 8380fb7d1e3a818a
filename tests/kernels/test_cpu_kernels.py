"""Every compiled kernel against the reference: tails, threads, batches, NaN, arguments.

The tests iterate the registry: a new row is tested without a line here.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from importlib import import_module
from inspect import signature

import numba
import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from npmobilenet.kernels import checks, reference, registry
from npmobilenet.kernels.plain import activation as plain_activation
from tests.kernels.cases import (
    ACTIVATIONS,
    BLOCK_TAILS,
    DENSE_TAILS,
    GROUPED_POINTWISE_TAILS,
    MIXED_TAILS,
    NEWER_TAILS,
    SQUEEZE_TAILS,
    TORCH_CASES,
    WINDOW_TAILS,
    Case,
    block,
    conv,
    depthwise,
    linear,
    mixed,
    pointwise,
    pool,
    squeeze,
)
from tests.kernels.tolerance import assert_close, tolerance

INTERPRETED = bool(numba.config.DISABLE_JIT)
# NumPy's scalars warn where compiled code silently gives the infinity that is meant.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
THREADS = (1,) if INTERPRETED else (1, 2)
KERNELS = registry.kernels(backend=registry.ON_CPU)
OPERATIONS = {kernel.operation for kernel in KERNELS}
ELEMENTWISE = ACTIVATIONS[1:]
CHANNELS = (1, 3, 7, 8, 15, 16, 17, 24, 90)
ASYMMETRIC = ((0, 1), (2, 0))

TAILS = [
    # channels, and batches
    *(pointwise(n, 5, 3, c, d) for n, c, d in zip((1, 3) * 5, CHANNELS, CHANNELS[::-1], strict=False)),
    *(depthwise(n, 5, 4, c, padding=1) for n, c in zip((1, 3) * 5, CHANNELS, strict=False)),
    *(conv(n, 5, 6, c, d, padding=1) for n, c, d in zip((1, 3) * 5, CHANNELS, CHANNELS[::-1], strict=False)),
    *(linear(n, c, d) for n, c, d in zip((1, 3, 9) * 3, CHANNELS, CHANNELS[::-1], strict=True)),
    # sizes
    *(
        make(1, h, w, *channels, stride=s, padding=1)
        for make, channels in ((conv, (3, 5)), (depthwise, (7,)))
        for h, w in ((1, 1), (2, 2), (7, 7), (15, 7), (33, 29))
        for s in (1, 2, 3)
    ),
    *(pointwise(1, h, w, 6, 5) for h, w in ((1, 1), (2, 2), (7, 7), (15, 7), (33, 29))),
    *(pool(op, 1, h, w, 3, 2) for op in ("max_pool2d", "average_pool2d") for h, w in ((2, 2), (7, 7), (15, 7))),
    *(Case("global_average_pool", {"x": s}) for s in ((1, 1, 1, 1), (3, 15, 7, 65), (1, 33, 29, 90), (2, 1, 2, 64))),
    *(Case("global_average_pool", {"x": (2, 3, 5, c)}, {"keepdims": True}) for c in (1, 16, 65)),
    linear(1, 3, 257),
    linear(5, 9, 513, activation="relu"),
    # kernel sizes, padding, dilation, groups
    *(depthwise(1, 12, 13, 5, k=(k, k), padding=k // 2) for k in range(1, 12)),
    *(depthwise(1, 13, 9, 3, k=(k, 12 - k), padding="same", stride=(1, 2)) for k in (1, 4, 9)),
    *(make(1, 9, 8, *c, padding=ASYMMETRIC, stride=2) for make, c in ((conv, (3, 5)), (depthwise, (9,)))),
    *(make(2, 9, 11, *c, padding=4, dilation=(2, 3)) for make, c in ((conv, (2, 5)), (depthwise, (9,)))),
    conv(1, 3, 3, 2, 3, padding=5),  # windows that lie in the padding altogether
    depthwise(1, 3, 3, 2, padding=5),
    depthwise(1, 3, 3, 2, k=(5, 5), padding=((7, 8), (9, 10)), stride=3),
    *(conv(1, 6, 13, 12, 18, groups=g, padding=1) for g in (2, 3, 6)),
    conv(2, 5, 9, 6, 6, groups=6, stride=2, padding=ASYMMETRIC, dilation=2, k=(2, 3)),
    conv(1, 7, 12, 8, 10, k=(1, 1), groups=2),
    pool("max_pool2d", 2, 9, 8, 5, (3, 2), stride=(1, 3), padding=ASYMMETRIC[:1] * 2),
    *(
        pool("average_pool2d", 2, 9, 8, 5, 3, stride=2, padding=((1, 2), (0, 1)), count_include_pad=counted)
        for counted in (True, False)
    ),
    # activations, residual, bias
    *(
        make(1, 3, 5, *channels, activation=activation)
        for make, channels in ((conv, (3, 9)), (depthwise, (9,)), (pointwise, (3, 9)))
        for activation in ACTIVATIONS
    ),
    *(linear(2, 3, 9, activation=activation) for activation in ACTIVATIONS),
    *(pointwise(2, 3, 3, 5, 7, residual=True, activation=a) for a in ("none", "relu6")),
    *(make(1, 3, 5, *c, bias=False) for make, c in ((conv, (3, 9)), (depthwise, (9,)), (pointwise, (3, 9)))),
    *(Case("add", {"x": s, "y": s}, {"activation": a}) for s, a in (((2, 3), "none"), ((5000,), "relu6"))),
    *(Case(operation, {"x": shape}) for operation in ELEMENTWISE for shape in ((1,), (3, 7), (2, 2, 2, 3))),
    *(Case("swish", {"x": (n,)}) for n in (0, 4095, 4096, 4097)),
    *(Case("softmax", {"x": shape}) for shape in ((1, 1), (3, 7), (2, 1000))),
    depthwise(0, 4, 4, 3),  # an empty batch
    *DENSE_TAILS,
    *MIXED_TAILS,
    *GROUPED_POINTWISE_TAILS,
    *SQUEEZE_TAILS,
    *BLOCK_TAILS,
    *NEWER_TAILS,
    *WINDOW_TAILS,
]


def small(case: Case) -> bool:
    """Whether Python without Numba can run the case in a fraction of a second."""
    return case.macs <= 20_000 and registry.bytes_moved(case.operation, **case.shapes, **case.options) <= 20_000


CASES = [case for case in TORCH_CASES + TAILS if case.operation in OPERATIONS and (not INTERPRETED or small(case))]


explicit_vectors = pytest.mark.skipif(INTERPRETED, reason="explicit vectors are machine code: Python cannot run them")
NEEDS_COMPILER = defaultdict(
    tuple, {kernel.variant: (explicit_vectors,) for kernel in registry.KERNELS if kernel.variant.startswith("simd")}
)


def others(cases: list[Case]) -> list[Case]:
    """The cases that PyTorch computed of all operations that are not among these."""
    covered = {case.operation for case in cases}
    return [case for case in TORCH_CASES if case.operation in OPERATIONS - covered]


def matching(cases: list[Case]) -> list:
    """Every kernel with every case of its operation."""
    return [
        pytest.param(kernel, case, id=f"{kernel.backend}/{kernel.variant}-{case}", marks=NEEDS_COMPILER[kernel.variant])
        for case in cases
        for kernel in KERNELS
        if kernel.operation == case.operation and kernel.supports(**case.options)
    ]


@pytest.mark.parametrize(("kernel", "case"), matching(CASES))
def test_agrees_with_the_reference(kernel, case):
    arrays = case.arrays()
    expected = getattr(reference, case.operation)(**arrays, **case.options)
    allowed = tolerance(case.operation, arrays, case.options, expected)
    for threads in THREADS:
        result = kernel.function(**arrays, **case.options, threads=threads)
        assert result.dtype == np.float32
        assert_close(result, expected, allowed, f"{kernel.name}, {case}, {threads} threads")


# One or two per operation, large enough for several tiles and blocks, with a remainder in each.
SPLIT = [
    conv(3, 9, 15, 5, 18, padding=1),
    conv(3, 7, 9, 6, 10, groups=2, stride=2, padding=1, activation="swish"),
    depthwise(3, 9, 10, 19, padding=1, activation="hard_swish"),
    depthwise(3, 9, 10, 19, k=(5, 5), padding=2, stride=2),
    mixed(3, 9, 10, (19, 7, 3), (3, 5, 7), activation="swish"),
    mixed(3, 9, 10, (6, 6), (2, 4), padding="same", stride=2, dilation=[2, 1]),
    squeeze(3, 5, 3, 100, 25, activation="swish"),
    block(3, 9, 10, 7, 42, 7, padding=1, residual=True),
    block(3, 9, 10, 7, 42, 5, k=(5, 5), padding="same", stride=2, expand_activation="hard_swish"),
    block(2, 5, 6, 3, 10, 3, padding=1, stride=2),
    pointwise(3, 5, 5, 20, 18, groups=2, activation="relu", residual=True),
    pointwise(3, 3, 5, 21, 18, activation="swish", residual=True),
    pointwise(3, 5, 7, 21, 90, activation="relu6", residual=True),
    linear(11, 21, 300, activation="sigmoid"),
    linear(2, 21, 300, activation="relu"),
    Case("global_average_pool", {"x": (3, 5, 3, 100)}),
    pool("max_pool2d", 3, 9, 9, 5, 3, padding=1),
    pool("average_pool2d", 3, 9, 9, 5, 3, padding=1),
    Case("softmax", {"x": (7, 33)}),
    Case("add", {"x": (3, 3000), "y": (3, 3000)}, {"activation": "swish"}),
    *(Case(operation, {"x": (3, 3000)}) for operation in ELEMENTWISE),
]
SPLIT += others(SPLIT)
SPLIT = [case for case in SPLIT if not INTERPRETED or small(case)]


@pytest.mark.skipif(INTERPRETED, reason="one thread without Numba")
@pytest.mark.parametrize(("kernel", "case"), matching(SPLIT))
def test_result_does_not_depend_on_threads(kernel, case):
    arrays = case.arrays()
    expected = kernel.function(**arrays, **case.options, threads=1)
    for threads in (2, 3, 100):
        assert np.array_equal(kernel.function(**arrays, **case.options, threads=threads), expected)


@pytest.mark.parametrize(("kernel", "case"), matching(SPLIT))
def test_result_does_not_depend_on_the_batch(kernel, case):
    arrays = case.arrays()
    together = kernel.function(**arrays, **case.options)
    for n in range(len(together)):
        alone = {k: v[n : n + 1] if k in ("x", "y", "residual") else v for k, v in arrays.items()}
        if "xs" in arrays:
            alone["xs"] = [x[n : n + 1] for x in arrays["xs"]]
        for threads in THREADS:
            result = kernel.function(**alone, **case.options, threads=threads)
            assert np.array_equal(result[0], together[n]), f"image {n} differs when alone"


WITH_SPECIAL_VALUES = [
    *(conv(1, 5, 7, 3, 5, padding=1, activation=a) for a in ACTIVATIONS),
    conv(1, 5, 7, 4, 6, groups=2, stride=2, padding=1),
    *(depthwise(1, 6, 7, 9, padding=1, activation=a) for a in ACTIVATIONS),
    depthwise(1, 6, 9, 3, k=(5, 5), padding=2, stride=2),
    *(mixed(1, 6, 7, (5, 4), (3, 5), activation=a) for a in ACTIVATIONS),
    mixed(1, 6, 9, (2, 3), (2, 4), padding="same", stride=2),
    *(squeeze(2, 3, 3, 5, 2, gate=gate) for gate in ACTIVATIONS),
    *(block(1, 5, 6, 3, 8, 3, padding=1, expand_activation=a) for a in ACTIVATIONS),
    block(1, 5, 6, 3, 8, 3, k=(5, 5), padding=2, stride=2),
    block(1, 5, 6, 3, 8, 3, padding=1, residual=True),
    *(pointwise(1, 2, 3, 5, 9, activation=a) for a in ACTIVATIONS),
    pointwise(1, 2, 3, 6, 8, groups=2),
    *(linear(5, 6, 9, activation=a) for a in ACTIVATIONS),
    pool("max_pool2d", 1, 5, 7, 3, 3, stride=2, padding=1),
    pool("average_pool2d", 1, 5, 7, 3, 3, stride=2, padding=1),
    Case("global_average_pool", {"x": (2, 2, 3, 9)}),
    Case("softmax", {"x": (3, 9)}),
    *(Case("add", {"x": (3, 9), "y": (3, 9)}, {"activation": a}) for a in ACTIVATIONS),
    *(Case(operation, {"x": (3, 9)}) for operation in ELEMENTWISE),
]


WITH_SPECIAL_VALUES += {case.operation: case for case in reversed(others(WITH_SPECIAL_VALUES))}.values()  # the first


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("kernel", "case"), matching(WITH_SPECIAL_VALUES))
def test_nan_and_infinity_go_where_the_reference_sends_them(kernel, case, value):
    """A NaN reaches every output whose window holds it, and no other.

    Where a vector of channels lies in two groups, it may reach the other one's channels as well: there the window
    is filled up with zeros, and zero times NaN is NaN. So may an infinity in a block whose expanded channels are
    filled up to whole vectors, although a clamp makes it finite.
    """
    arrays = case.arrays()
    x = arrays["x"] if "x" in arrays else arrays["xs"][0]
    x[(0, *(size // 2 for size in x.shape[1:]))] = value
    with np.errstate(invalid="ignore"):
        expected = getattr(reference, case.operation)(**arrays, **case.options)
        result = kernel.function(**arrays, **case.options)
    if np.isnan(value):
        assert np.isnan(expected).any()
        assert case.operation == "softmax" or not np.isnan(expected).all()
    grouped = case.operation == "mixed_depthwise_conv2d" or case.options.get("groups", 1) > 1
    if kernel.variant.startswith("simd") and (grouped or case.operation == "inverted_residual"):
        assert not np.isfinite(result[~np.isfinite(expected)]).any()
        return
    assert_close(np.where(np.isfinite(result), 0, result), np.where(np.isfinite(expected), 0, expected), 0, case)


def test_exp_is_within_two_units_in_the_last_place():
    x = np.linspace(-87.3, 88.7, 300 if INTERPRETED else 1_000_000, dtype=np.float32)
    y = _exp(x)
    exact = np.exp(x.astype(np.float64))
    ulp = np.abs(y - exact) / np.spacing(exact.astype(np.float32))
    assert ulp.max() <= 2, f"{ulp.max()} units at {x[ulp.argmax()]}"
    ends = np.array([-np.inf, -1000, -104, 0, 89, 1000, np.inf, np.nan], np.float32)
    assert_close(_exp(ends), np.array([0, 0, 0, 1, np.inf, np.inf, np.inf, np.nan]), 0, "exp")


@numba.njit
def _exp(x):
    y = np.empty_like(x)
    for i in range(x.size):
        y[i] = plain_activation.exp(x[i])
    return y


@pytest.mark.parametrize(
    ("operation", "units"), [("swish", 2.5), ("sigmoid", 2.5), ("hard_swish", 2), ("hard_sigmoid", 1)]
)
def test_activations_are_accurate_to_so_many_units_in_the_last_place(operation, units):
    count = 100 if INTERPRETED else 300_000
    magnitudes = np.geomspace(1e-30, 90, count, dtype=np.float32)
    x = np.concatenate([np.linspace(-90, 90, count, dtype=np.float32), magnitudes, -magnitudes])
    expected = getattr(reference, operation)(x)
    result = registry.best(operation, "plain").function(x)
    underflow = 89 / np.finfo(np.float32).max  # below x = -88.7, exp(-x) is infinite and the result 0
    assert_close(result, expected, units * np.spacing(np.abs(expected).astype(np.float32)) + underflow, operation)


@explicit_vectors
@pytest.mark.parametrize("operation", ["tanh", "elu"])
def test_an_exponential_less_one_loses_no_digits_near_zero(operation):
    magnitudes = np.geomspace(1e-30, 90, 300_000, dtype=np.float32)
    x = np.concatenate([np.linspace(-20, 20, 300_000, dtype=np.float32), magnitudes, -magnitudes, [0, -np.inf, np.inf]])
    expected = getattr(reference, operation)(x)
    result = registry.best(operation, "blocked").function(x)
    assert_close(result, expected, 6 * np.spacing(np.abs(expected).astype(np.float32)), operation)


@pytest.mark.parametrize(
    ("operation", "ends"),
    [
        ("swish", [np.nan, np.nan, 0, 0, 1e4, 1e38, np.inf]),
        ("sigmoid", [np.nan, 0, 0, 0, 1, 1, 1]),
        ("hard_swish", [np.nan, np.nan, 0, 0, 1e4, np.inf, np.inf]),
        ("hard_sigmoid", [np.nan, 0, 0, 0, 1, 1, 1]),
    ],
)
def test_activations_far_away_are_those_of_pytorch(operation, ends):
    """Minus infinity times a gate of 0 is NaN: the formula's value, not its limit; and 6e38 is no float32."""
    x = np.array([np.nan, -np.inf, -1e38, -1e4, 1e4, 1e38, np.inf], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if INTERPRETED else "error")
        assert_close(registry.best(operation, "plain").function(x), np.array(ends, np.float32), 0, operation)
    with np.errstate(over="raise"):
        reference_ends = getattr(reference, operation)(x)
    if operation != "hard_swish":
        assert_close(reference_ends, np.array(ends, np.float32), 0, operation)


# One small call per operation whose arguments the following tests spoil.
PLAIN = {
    "conv2d": conv(2, 4, 5, 4, 6, padding=1),
    "depthwise_conv2d": depthwise(2, 4, 5, 6, padding=1),
    "pointwise_conv2d": pointwise(2, 3, 3, 5, 6, residual=True),
    "mixed_depthwise_conv2d": mixed(2, 4, 5, (4, 2), (3, 5)),
    "squeeze_excite": squeeze(2, 3, 4, 6, 2),
    "inverted_residual": block(2, 4, 5, 3, 6, 4, padding=1),
    "linear": linear(3, 5, 6),
    "softmax": Case("softmax", {"x": (3, 5)}),
    "global_average_pool": Case("global_average_pool", {"x": (2, 3, 3, 5)}),
    "max_pool2d": pool("max_pool2d", 2, 4, 4, 3, 2),
    "average_pool2d": pool("average_pool2d", 2, 4, 4, 3, 2),
    "add": Case("add", {"x": (3, 5), "y": (3, 5)}),
    **{operation: Case(operation, {"x": (3, 5)}) for operation in ELEMENTWISE},
}
PLAIN = {case.operation: case for case in reversed(TORCH_CASES)} | PLAIN  # of others the first that PyTorch computed
PLAIN_CASES = matching([PLAIN[operation] for operation in OPERATIONS & PLAIN.keys()])


def test_every_operation_has_a_plain_case():
    assert PLAIN.keys() >= OPERATIONS


@pytest.mark.parametrize(("kernel", "case"), PLAIN_CASES)
def test_out(kernel, case):
    arrays = case.arrays()
    expected = kernel.function(**arrays, **case.options)
    out = np.full(expected.shape, np.nan, np.float32)
    assert kernel.function(**arrays, **case.options, out=out) is out
    assert np.array_equal(out, expected)

    def refused(out, message):
        with pytest.raises(ValueError, match=message):
            kernel.function(**arrays, **case.options, out=out)

    shape = expected.shape
    refused(np.empty((*shape, 1), np.float32), r"out must be a float32 array of shape .* got float32")
    refused(np.empty(shape, np.float64), r"out must be a float32 array of shape .* got float64")
    refused([0.0], "got list")
    refused(np.empty(shape[::-1], np.float32).T.reshape(shape, order="F"), "out must be C-contiguous")
    locked = np.empty(shape, np.float32)
    locked.flags.writeable = False
    refused(locked, "out must be C-contiguous, aligned and writeable")


@pytest.mark.parametrize(("kernel", "case"), PLAIN_CASES)
def test_any_layout_of_the_input_gives_the_same_result_and_compiles_nothing_new(kernel, case):
    arrays = case.arrays()
    expected = kernel.function(**arrays, **case.options)

    def read_only(a):
        a = a.copy()
        a.flags.writeable = False
        return a

    def unaligned(a):
        memory = np.zeros(a.nbytes + 1, np.uint8)
        memory[1:] = a.reshape(-1).view(np.uint8)
        return memory[1:].view(np.float32).reshape(a.shape)

    layouts = {
        "read-only": read_only,
        "column-major": np.asfortranarray,
        "every other of an array": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        "float64": np.float64,
        "big-endian": lambda a: a.astype(">f4"),
        "unaligned": unaligned,
    }
    for layout, change in layouts.items():
        changed = {n: [change(w) for w in a] if isinstance(a, list) else change(a) for n, a in arrays.items()}
        assert np.array_equal(kernel.function(**changed, **case.options), expected), layout
    if not INTERPRETED and not kernel.variant.startswith("simd"):  # one compiled library for all
        module = import_module(f"npmobilenet.kernels.{kernel.target.partition(':')[0]}")
        values = [getattr(value, "serial", value) for value in vars(module).values()]
        compiled = [value for value in values if isinstance(value, Dispatcher)]
        assert any(function.signatures for function in compiled)
        assert all(len(function.signatures) <= 1 for function in compiled)


def call(operation, **changes):
    """The plain call of an operation with some arguments changed."""
    case = PLAIN[operation]
    return {**case.arrays(), **case.options, **changes}


ZEROS = np.zeros
BAD_CALLS = [
    (
        "conv2d",
        {"x": ZEROS((4, 5, 4))},
        r"x must be a float array of shape \(N, H, W, C_in\), got float64 \(4, 5, 4\)",
    ),
    ("conv2d", {"x": ZEROS((2, 4, 5, 4), np.int32)}, r"x must be a float array .* got int32 \(2, 4, 5, 4\)"),
    ("conv2d", {"x": [1.0]}, "x must be a float array .* got list"),
    ("conv2d", {"x": ZEROS((2, 4, 0, 4))}, r"x must be a float array .* got float64 \(2, 4, 0, 4\)"),
    (
        "conv2d",
        {"weight": ZEROS((3, 3, 5, 6))},
        r"weight .* \(K_h, K_w, C_in/G=4, C_out\), got .* \(3, 3, 5, 6\)",
    ),
    ("conv2d", {"bias": ZEROS(5)}, r"bias must be a float array of shape \(C_out=6\), got float64 \(5,\)"),
    ("conv2d", {"groups": 3}, "groups must be an integer >= 1 that divides C_in=4, got 3"),
    (
        "conv2d",
        {"groups": 4, "weight": ZEROS((3, 3, 1, 6))},
        "groups must be an integer .* that divides C_out=6, got 4",
    ),
    ("conv2d", {"stride": 0}, "stride must be an integer >= 1 or a pair of them, got 0"),
    ("conv2d", {"padding": "valid"}, "padding must be 'symmetric', 'same' or numbers, got 'valid'"),
    ("conv2d", {"padding": [0, 1, 2]}, r"padding must be an integer .* got \[0, 1, 2\]"),
    (
        "conv2d",
        {"dilation": 9},
        r"a window of 19 \(kernel 3, dilation 9\) does not fit into 4 \+ padding 1 \+ 1",
    ),
    ("conv2d", {"activation": "gelu"}, "activation must be one of none, relu, .*, got 'gelu'"),
    (
        "depthwise_conv2d",
        {"weight": ZEROS((3, 3, 5))},
        r"weight .* \(K_h, K_w, C=6\), got float64 \(3, 3, 5\)",
    ),
    ("depthwise_conv2d", {"bias": ZEROS((6, 1))}, r"bias .* \(C_out=6\), got float64 \(6, 1\)"),
    ("pointwise_conv2d", {"weight": ZEROS((4, 6))}, r"weight .* \(C_in/G=5, C_out\), got float64 \(4, 6\)"),
    ("pointwise_conv2d", {"groups": 2}, "groups must be an integer >= 1 that divides C_in=5, got 2"),
    ("pointwise_conv2d", {"groups": 5, "weight": ZEROS((1, 6))}, "that divides C_out=6, got 5"),
    ("mixed_depthwise_conv2d", {"weights": ZEROS((3, 3, 6))}, r"weights must be a list .* got float64 \(3, 3, 6\)"),
    ("mixed_depthwise_conv2d", {"weights": []}, "weights must be a list of at least one array, got list"),
    (
        "mixed_depthwise_conv2d",
        {"weights": [ZEROS((3, 3, 2)), ZEROS((5, 5, 3))]},
        "weights must have C=6 channels together, got 5",
    ),
    (
        "mixed_depthwise_conv2d",
        {"weights": [ZEROS((3, 3, 2)), ZEROS((5, 5))]},
        r"weights\[1\] must be a float array of shape \(K_h, K_w, C_group\)",
    ),
    ("mixed_depthwise_conv2d", {"weights": [ZEROS((3, 3, 6)), ZEROS((3, 3, 0))]}, r"weights\[1\] must be"),
    (
        "mixed_depthwise_conv2d",
        {"padding": 1},
        r"padding 1 gives .* output sizes: \(4, 5\) with kernel \(3, 3\) .*, \(2, 3\) with kernel \(5, 5\)",
    ),
    (
        "mixed_depthwise_conv2d",
        {"weights": [ZEROS((3, 3, 2)), ZEROS((4, 4, 4))]},
        r"padding 'symmetric' gives the groups different output sizes: \(4, 5\) .*, \(3, 4\) with kernel \(4, 4\)",
    ),
    ("mixed_depthwise_conv2d", {"dilation": [1, 2, 3]}, r"one entry for each of the 2 groups, got \[1, 2, 3\]"),
    ("mixed_depthwise_conv2d", {"dilation": (1, 2, 3)}, r"dilation must be an integer .* got \(1, 2, 3\)"),
    ("mixed_depthwise_conv2d", {"bias": ZEROS(5)}, r"bias .* \(C_out=6\), got float64 \(5,\)"),
    ("squeeze_excite", {"reduce_weight": ZEROS((5, 2))}, r"reduce_weight .* \(C=6, R\), got float64 \(5, 2\)"),
    ("squeeze_excite", {"expand_weight": ZEROS((6, 2))}, r"expand_weight .* \(R=2, C=6\), got float64 \(6, 2\)"),
    ("squeeze_excite", {"reduce_bias": ZEROS(6)}, r"reduce_bias .* \(R=2\), got float64 \(6,\)"),
    ("squeeze_excite", {"expand_bias": ZEROS(2)}, r"expand_bias .* \(C=6\), got float64 \(2,\)"),
    ("squeeze_excite", {"gate": "tanh"}, "gate must be one of none, relu, .*, got 'tanh'"),
    ("pointwise_conv2d", {"residual": ZEROS((2, 3, 3, 5))}, r"residual .* \(N=2, H=3, W=3, C_out=6\), got"),
    ("inverted_residual", {"expand_weight": ZEROS((4, 6))}, r"expand_weight .* \(C_in=3, E\), got float64 \(4, 6\)"),
    ("inverted_residual", {"weight": ZEROS((3, 3, 5))}, r"weight .* \(K_h, K_w, E=6\), got float64 \(3, 3, 5\)"),
    ("inverted_residual", {"project_weight": ZEROS((5, 4))}, r"project_weight .* \(E=6, C_out\), got float64 \(5, 4\)"),
    ("inverted_residual", {"expand_bias": ZEROS(5)}, r"expand_bias .* \(E=6\), got float64 \(5,\)"),
    ("inverted_residual", {"bias": ZEROS(5)}, r"bias .* \(E=6\), got float64 \(5,\)"),
    ("inverted_residual", {"project_bias": ZEROS(5)}, r"project_bias .* \(C_out=4\), got float64 \(5,\)"),
    ("inverted_residual", {"residual": True}, r"residual must have the shape of the result, \(2, 4, 5, 4\), got"),
    ("inverted_residual", {"expand_activation": "gelu"}, "expand_activation must be one of none, .*, got 'gelu'"),
    ("linear", {"x": ZEROS(5)}, r"x must be a float array of shape \(N, C_in\), got float64 \(5,\)"),
    ("linear", {"weight": ZEROS((6, 5))}, r"weight .* \(C_in=5, C_out\), got float64 \(6, 5\)"),
    ("prelu", {"weight": ZEROS(4)}, r"weight must have the shape \(1,\), \(5,\) or \(4, 3, 5\), got \(4,\)"),
    ("resize2d", {"size": None}, "either size or scale must be given, got size=None and scale=None"),
    ("resize2d", {"size": (3, 0)}, r"size must be an integer >= 1 or a pair of them, got \(3, 0\)"),
    ("resize2d", {"size": None, "scale": 0.1}, r"the resized image must be an integer >= 1 or a pair .* got \[0, 0\]"),
    ("resize2d", {"size": None, "scale": -1}, "scale must be a positive number or a pair of them, got -1"),
    ("resize2d", {"mode": "cubic"}, "mode must be 'bilinear' or 'nearest', got 'cubic'"),
    (
        "resize2d",
        {"mode": "nearest", "coordinates": "align_corners"},
        "coordinates of nearest must be one of half_pixel, asymmetric, got 'align_corners'",
    ),
    ("conv_transpose2d", {"weight": ZEROS((2, 2, 4, 5))}, r"weight .* \(K_h, K_w, C_in=3, C_out\), got"),
    ("conv_transpose2d", {"padding": "same"}, "padding of a transposed convolution must be numbers, got 'same'"),
    ("conv_transpose2d", {"padding": 9}, "the image without its padding must be an integer >= 1 or a pair of them"),
    ("multiply", {"y": ZEROS((2, 3))}, r"y must broadcast to the shape of x, \(2, 4, 3, 5\), got \(2, 3\)"),
    ("broadcast_add", {"y": ZEROS((3, 5))}, r"y must be a float array of shape \(N=2, C\), got float64 \(3, 5\)"),
    ("concat", {"xs": []}, "xs must be a list of at least one array, got list"),
    ("concat", {"xs": [ZEROS((1, 2)), ZEROS((2, 2))]}, r"xs must differ in nothing but channels, got \(1, 2\) and"),
    ("channel_select", {"indices": (14,)}, "indices must be at least one integer, each from 0 to 13, got 14"),
    ("channel_select", {"indices": ()}, "indices must be at least one integer, each from 0 to 13, got none"),
    ("channel_pad", {"before": -1}, r"channels before and after must be an integer >= 0 .* got \(-1, 3\)"),
    ("flatten", {"x": ZEROS((2, 3))}, r"x .* \(N, H, W, C\), got float64 \(2, 3\)"),
    ("softmax", {"x": ZEROS(5)}, r"x .* \(N, C\), got float64 \(5,\)"),
    ("global_average_pool", {"x": ZEROS((2, 3))}, r"x .* \(N, H, W, C\), got float64 \(2, 3\)"),
    ("max_pool2d", {"kernel_size": 5}, r"a window of 5 .* does not fit into 4"),
    (
        "max_pool2d",
        {"padding": 2},
        r"padding \(\(2, 2\), \(2, 2\)\) must be smaller than the window \(2, 2\)",
    ),
    ("average_pool2d", {"padding": ((0, 2), (0, 0))}, "must be smaller than the window"),
    ("add", {"y": ZEROS((5, 3))}, r"y must have the shape of x, \(3, 5\), got \(5, 3\)"),
    ("add", {"y": ZEROS((3, 5), bool)}, r"y must be a float array, got bool \(3, 5\)"),
    *((operation, {"x": 1.0}, "x must be a float array, got float") for operation in ELEMENTWISE),
]


@pytest.mark.parametrize("backend", ["reference", "plain", "blocked"])
@pytest.mark.parametrize(("operation", "changes", "message"), BAD_CALLS)
def test_bad_arguments(backend, operation, changes, message):
    for kernel in registry.kernels(operation, backend):
        if not changes.keys() <= signature(kernel.function).parameters.keys():
            continue
        with pytest.raises(ValueError, match=message) as caught:
            kernel.function(**call(operation, **changes))
        assert "\n" not in str(caught.value)


UNSUPPORTED = [
    *(
        (operation, {"activation": "sigmoid"})
        for operation in ("conv2d", "depthwise_conv2d", "pointwise_conv2d", "linear")
    ),
    ("conv2d", {"groups": 2, "weight": ZEROS((3, 3, 2, 6))}),
    ("conv2d", {"dilation": (1, 2)}),
]


@pytest.mark.parametrize(("operation", "changes"), UNSUPPORTED)
def test_what_a_kernel_does_not_support_it_refuses(operation, changes):
    options = {name: value for name, value in changes.items() if name != "weight"}
    refusing = [kernel for kernel in registry.kernels(operation) if not kernel.supports(**options)]
    assert refusing
    for kernel in refusing:
        with pytest.raises(ValueError, match=r"must be .* in this kernel, got"):
            kernel.function(**call(operation, **changes))


def test_bad_arguments_of_batch_norm():
    x, norm = ZEROS((1, 4, 4, 6)), reference.batch_norm
    with pytest.raises(ValueError, match=r"mean must be a float array of shape \(C=6\), got float64 \(5,\)"):
        norm(x, ZEROS(6), ZEROS(6), ZEROS(5), ZEROS(6))
    with pytest.raises(ValueError, match="eps must not be negative, got -1"):
        norm(x, ZEROS(6), ZEROS(6), ZEROS(6), ZEROS(6), eps=-1)


def test_lists_do_as_well_as_tuples():
    case = depthwise(1, 7, 6, 3)
    arrays = case.arrays()
    function = registry.best("depthwise_conv2d", "plain").function
    lists = function(**arrays, stride=[1, 2], padding=[[0, 1], [1, 1]], dilation=[2, 1])
    tuples = function(**arrays, stride=(1, 2), padding=((0, 1), (1, 1)), dilation=(2, 1))
    assert np.array_equal(lists, tuples)


def test_dilation_of_a_mixed_convolution_is_a_list_by_groups_or_a_pair():
    arrays = mixed(1, 9, 8, (3, 2), (3, 3)).arrays()
    for backend in ("reference", "plain"):
        function = registry.best("mixed_depthwise_conv2d", backend).function
        pair = function(**arrays, padding="same", dilation=(1, 2))
        assert np.array_equal(function(**arrays, padding="same", dilation=[(1, 2), (1, 2)]), pair)
        by_group = function(**arrays, padding="same", dilation=[1, 2])
        assert not np.array_equal(by_group, pair)
        parts = np.split(arrays["x"], [3], axis=3), arrays["weights"], np.split(arrays["bias"], [3]), (1, 2)
        single = registry.best("depthwise_conv2d", backend).function
        each = [single(x, weight, b, padding="same", dilation=d) for x, weight, b, d in zip(*parts, strict=True)]
        assert np.array_equal(by_group, np.concatenate(each, axis=3))


def test_squeeze_and_excitation_without_biases():
    arrays = squeeze(2, 3, 4, 6, 2).arrays()
    x, reduce, expand = (arrays[name] for name in ("x", "reduce_weight", "expand_weight"))
    for backend in ("reference", "plain"):
        function = registry.best("squeeze_excite", backend).function
        zeros = function(x, reduce, np.zeros(2, np.float32), expand, np.zeros(6, np.float32))
        assert np.array_equal(function(x, reduce, None, expand, None), zeros)


def test_a_view_of_read_only_memory_keeps_it_alive():
    x = np.arange(3, dtype=np.float32)
    x.flags.writeable = False
    view = checks.float32(x)
    assert view.ctypes.data == x.ctypes.data
    del x
    assert view.tolist() == [0, 1, 2]
