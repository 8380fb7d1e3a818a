"""8-bit operations: the definitions against integers and fractions of Python, and plain kernels bit for bit."""

from __future__ import annotations

from fractions import Fraction

import numba
import numpy as np
import pytest

from npmobilenet.kernels import checks, reference, registry
from npmobilenet.kernels.geometry import resolve_padding
from npmobilenet.kernels.plain import exact, int8

INTERPRETED = bool(numba.config.DISABLE_JIT)
# NumPy's scalars warn where compiled code silently gives what is meant.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
ACTIVATIONS = checks.ACTIVATIONS
SPECIAL = np.float32([np.nan, np.inf, -np.inf, 0, -0.0, 1e-42, -1e-42, 3e38, -3e38, 170, -170, 88.5, -88.5, 0.5, 2.5])


def rounded(value: Fraction) -> np.float32:
    """A fraction as float32: the nearest one, ties to the even one."""
    near = np.float32(float(value))
    candidates = [near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))]
    return min(candidates, key=lambda v: (abs(Fraction(float(v)) - value), int(np.float32(v).view(np.int32)) & 1))


def hard_sums(count: int = 500) -> list[np.ndarray]:
    """``a * b + c`` of which rounding in float64 first would spoil many: the sum ends just beside a half."""
    random = np.random.default_rng(1)
    a = np.float32(1 + random.integers(1, 2**12, count) * 2.0**-23)  # a * b = 1 + k 2^-23 + tiny
    b = np.float32(1 + random.integers(1, 2**12, count) * 2.0**-23)
    c = np.float32(2.0**24 * random.choice([-1, 1], count) * (1 + random.integers(0, 2**23, count) * 2.0**-23))
    return [np.concatenate(pair) for pair in zip((a, b, c), _beside_halves(random, count), strict=True)]


def _beside_halves(random: np.random.Generator, count: int) -> tuple[np.ndarray, ...]:
    """``c + half a unit of it + 2**-60 of it``: in float64 a tie, which it is not."""
    c = np.float32(random.integers(2**23, 2**24, count))
    return np.full(count, np.float32(1 + 2.0**-23)), np.float32(np.full(count, 0.5) * (1 - 2.0**-23)), c


def test_a_fused_multiply_add_is_rounded_once():
    a, b, c = hard_sums()
    expected = [
        rounded(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))) for x, y, z in zip(a, b, c, strict=True)
    ]
    assert reference.fma(a, b, c).tolist() == [float(v) for v in expected]
    twice = (np.float64(a) * b + c).astype(np.float32)
    assert (twice != np.float32(expected)).any()  # these cases tell one rounding from two
    assert [exact.fma(x, y, z) for x, y, z in zip(a, b, c, strict=True)] == expected


def test_a_fused_multiply_add_of_numbers_without_end():
    values = np.float32([np.nan, np.inf, -np.inf, 0, 1, -3e38, 3e38])
    a, b, c = (each.ravel() for each in np.meshgrid(values, values, values))
    with np.errstate(all="ignore"):
        expected = (np.float64(a) * b + c).astype(np.float32)
    np.testing.assert_array_equal(reference.fma(a, b, c), expected)
    np.testing.assert_array_equal([exact.fma(x, y, z) for x, y, z in zip(a, b, c, strict=True)], expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_the_same_bits_and_near_their_definitions(activation):
    x = np.concatenate([SPECIAL, np.linspace(-20, 20, 401, dtype=np.float32)])
    got = reference.activation_float32(x, activation)
    row = x.copy()
    exact.activate(row, checks.code(activation))
    np.testing.assert_array_equal(row, got)  # float32 that are equal are the same bits, but for the sign of zero
    assert np.isnan(got[0])
    if activation != "none":
        expected = getattr(reference, activation)(np.float64(x))
        finite = np.isfinite(x) & (np.abs(x) < 20)
        near = {"rtol": 0, "atol": 0.0005} if activation == "swish" else {"rtol": 3e-6, "atol": 1e-45}
        np.testing.assert_allclose(got[finite], expected[finite], **near)


def arrays(seed: int, c_in: int, c_out: int, weight_shape: tuple[int, ...], high: int = 127, dtype: type = np.int8):
    random = np.random.default_rng(seed)
    weight = random.integers(-high, high + 1, weight_shape).astype(dtype)
    scale = np.float32(random.uniform(0.001, 0.01, c_out) * 127 / high)
    bias = np.float32(random.uniform(-50, 250, c_out))
    zero = random.integers(0, 256, c_in).astype(np.uint8)
    ends = {
        "out_steps": np.float32(random.uniform(0.5, 2, c_out)),
        "out_zero_point": random.integers(0, 40, c_out).astype(np.uint8),
    }
    return random, weight, scale, bias, zero, ends


def image(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.integers(0, 256, shape).astype(np.uint8)


def assert_same_bits(operation: str, *arguments, **options) -> np.ndarray:
    """The reference and the plain kernel, on any threads, and an image alone: the same but for the sign of a zero."""
    expected = getattr(reference, operation)(*arguments, **options)
    kernel = registry.best(operation, "plain").function
    for threads in (1,) if INTERPRETED else (1, 2):
        out = np.empty_like(expected)
        assert kernel(*arguments, **options, out=out, threads=threads) is out
        np.testing.assert_array_equal(out, expected)
    assert registry.output_shape(operation, *arguments, **options) == expected.shape
    written = np.empty_like(expected)
    getattr(reference, operation)(*arguments, **options, out=written)
    np.testing.assert_array_equal(written, expected)
    x, *rest = arguments
    one = {name: v[1:2] if name in ("pixel_scale", "residual") and v is not None else v for name, v in options.items()}
    np.testing.assert_array_equal(kernel(x[1:2], *rest, **one), expected[1:2])
    return expected


ENDS = [("uint8", "none"), *(("float32", name) for name in ACTIVATIONS), *(("uint8", name) for name in ACTIVATIONS[1:])]


@pytest.mark.parametrize(("dtype", "activation"), ENDS)
def test_pointwise(dtype, activation):
    random, weight, scale, bias, zero, ends = arrays(1, 12, 10, (6, 10))
    ended = ends if dtype == "uint8" and activation != "none" else {}
    scale, bias = (scale, bias) if not ended and dtype == "uint8" else (scale / 50, bias / 50)
    x = image(random, 2, 3, 2, 12)
    options = {"groups": 2, "dtype": dtype, "activation": activation, "zero_point": zero, **ended}
    y = assert_same_bits("pointwise_conv2d_int8", x, weight, scale, bias, **options)
    assert y.dtype == dtype
    scaled = np.float32(random.uniform(0.5, 2, (2, 3, 2)))
    assert_same_bits("pointwise_conv2d_int8", x, weight, scale, bias, pixel_scale=scaled, **options)
    if dtype == "float32":
        residual = np.float32(random.standard_normal((2, 3, 2, 10)))
        assert_same_bits("pointwise_conv2d_int8", x, weight, scale, bias, residual=residual, **options)


def test_pointwise_by_hand():
    """One output by integers and fractions, the whole way."""
    random, weight, scale, bias, zero, _ = arrays(2, 7, 5, (7, 5))
    x = image(random, 1, 2, 2, 7)
    y = reference.pointwise_conv2d_int8(x, weight, scale, bias, zero_point=zero)
    floats = reference.pointwise_conv2d_int8(x, weight, scale, bias, zero_point=zero, dtype="float32")
    for (_, h, w, c), value in np.ndenumerate(y):
        acc = sum((int(x[0, h, w, k]) - int(zero[k])) * int(weight[k, c]) for k in range(7))
        real = rounded(rounded(Fraction(acc)).astype(object) * Fraction(float(scale[c])) + Fraction(float(bias[c])))
        assert floats[0, h, w, c] == real
        assert value == min(max(round(float(real)), 0), 255)  # round() takes ties to the even number


def test_sums_beyond_24_bits_are_rounded_to_even():
    weight, x = np.full((1024, 1), 127, np.int8), np.full((2, 1, 1, 1024), 255, np.uint8)
    weight[0], x[..., 0] = 1, 3  # 255 * 127 * 1023 + 3 = 33129858
    one, none = np.ones(1, np.float32), np.zeros(1, np.float32)
    y = assert_same_bits("pointwise_conv2d_int8", x, weight, one, none, dtype="float32")
    assert int(y[0, 0, 0, 0]) == int(np.float32(255 * 127 * 1023 + 3))


@pytest.mark.parametrize("zero_point", [128, 0])
def test_pixels_are_quantised_on_entry(zero_point):
    random, weight, scale, bias, _, _ = arrays(3, 9, 4, (9, 4))
    x = np.float32(random.standard_normal((2, 3, 5, 9)) * 10.0 ** random.integers(-3, 3, (2, 3, 5, 1)))
    x = np.abs(x) if zero_point == 0 else x
    x[0, 0, 0], x[0, 0, 1], x[0, 0, 2] = 0, 1e-42, [np.nan, *range(8)]
    x[0, 0, 3], x[0, 0, 4], x[0, 1, 0] = [np.inf, *range(8)], -np.float32(3e38), [0, 0, 0, 5, 0, 0, 0, 0, 0]
    q, pixel_scale = reference.quantize_pixels(x, zero_point=zero_point)
    plain_q, plain_scale = int8.quantize_pixels(x, zero_point=zero_point)
    np.testing.assert_array_equal(plain_q, q)
    np.testing.assert_array_equal(plain_scale, pixel_scale)
    assert np.isnan(pixel_scale[0, 0, 2:4]).all()
    assert np.isfinite(np.delete(pixel_scale.ravel(), [2, 3])).all()
    near = (np.float64(q) - zero_point) * pixel_scale[..., None]
    finite = np.isfinite(pixel_scale) & ((x >= 0).all(-1) | (zero_point == 128))
    error = np.abs(near - x)[finite] / pixel_scale[finite][:, None]
    assert error.max() < 0.5001
    assert (reference.quantize_pixels(np.zeros((1, 1, 1, 3), np.float32))[0] == 128).all()
    for dtype in ("float32", "uint8"):
        y = assert_same_bits("pointwise_conv2d_int8", x, weight, scale, bias, zero_point=zero_point, dtype=dtype)
        twice = reference.pointwise_conv2d_int8(
            q, weight, scale, bias, zero_point=zero_point, pixel_scale=pixel_scale, dtype=dtype
        )
        np.testing.assert_array_equal(y, twice)
        assert np.isnan(y[0, 0, 2:4]).all() if dtype == "float32" else (y[0, 0, 2:4] == 0).all()
    np.testing.assert_array_equal(
        reference.pointwise_conv2d_int8(x, weight, scale, bias, zero_point=zero_point, dtype="float32")[0, 0, 0], bias
    )


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"padding": 1, "stride": 2},
        {"padding": ((0, 1), (2, 0)), "stride": (2, 1), "dilation": (1, 2)},
        {"padding": "same", "stride": 2, "activation": "swish"},
        {"padding": "symmetric", "dtype": "float32", "activation": "hard_swish"},
    ],
)
def test_depthwise(options, wide):
    high, dtype = (16383, np.int16) if wide else (127, np.int8)
    random, weight, scale, bias, zero, ends = arrays(4, 9, 9, (3, 3, 9), high, dtype)
    ended = ends if options.get("activation") == "swish" else {}
    x = image(random, 2, 6, 7, 9)
    y = assert_same_bits("depthwise_conv2d_int8", x, weight, scale, bias, zero_point=zero, **options, **ended)
    # Padding holds the zero point: the same as a larger image without padding, whose border is that.
    g = checks.depthwise_conv2d_int8(x, weight, scale, bias, zero_point=zero, **options, **ended)
    larger = np.broadcast_to(zero, (2, 6 + sum(g.pads[0]), 7 + sum(g.pads[1]), 9)).copy()
    larger[:, g.pads[0][0] : g.pads[0][0] + 6, g.pads[1][0] : g.pads[1][0] + 7] = x
    unpadded = {**options, "padding": 0}
    np.testing.assert_array_equal(
        reference.depthwise_conv2d_int8(larger, weight, scale, bias, zero_point=zero, **unpadded, **ended), y
    )


def test_mixed_depthwise():
    random, _, scale, bias, zero, ends = arrays(5, 10, 10, (1, 10))
    weights = [random.integers(-127, 128, (k, k, c)).astype(np.int8) for k, c in ((3, 5), (5, 3), (7, 2))]
    x = image(random, 2, 8, 7, 10)
    y = assert_same_bits("mixed_depthwise_conv2d_int8", x, weights, scale, bias, zero_point=zero, stride=2)
    alone = reference.depthwise_conv2d_int8(
        x[..., 5:8], weights[1], scale[5:8], bias[5:8], zero_point=zero[5:8], stride=2,
        padding=resolve_padding("symmetric", (8, 7), (5, 5), (2, 2)),
    )  # fmt: skip
    np.testing.assert_array_equal(y[..., 5:8], alone)
    assert_same_bits(
        "mixed_depthwise_conv2d_int8", x, weights, scale, bias, zero_point=zero, activation="swish", **ends
    )


def test_convolution():
    random, weight, scale, bias, zero, ends = arrays(6, 6, 8, (3, 3, 3, 8))
    x = image(random, 2, 7, 6, 6)
    options = {"groups": 2, "stride": 2, "padding": 1}
    assert_same_bits("conv2d_int8", x, weight, scale, bias, zero_point=zero, **options)
    assert_same_bits("conv2d_int8", x, weight, scale, bias, zero_point=zero, activation="swish", **options, **ends)


def test_the_first_convolution_reads_floats_as_16_bits():
    random, weight, scale, bias, _, _ = arrays(7, 3, 8, (3, 3, 3, 8), 4095, np.int16)
    x = np.float32(random.standard_normal((2, 7, 6, 3)))
    x[0, 0, 0], x[0, 0, 1] = [np.nan, np.inf, -np.inf], [100, -100, 0]
    steps = 4095 / 2.65
    q = reference.quantize_image(x, steps)
    np.testing.assert_array_equal(int8.quantize_image(x, steps), q)
    assert q[0, 0, 0].tolist() == [-32767, 32767, -32767]
    assert q[0, 0, 1].tolist() == [32767, -32767, 0]
    options = {"stride": 2, "padding": 1}
    y = assert_same_bits("conv2d_int8", x, weight, scale / 100, bias, steps=steps, **options)
    np.testing.assert_array_equal(reference.conv2d_int8(q, weight, scale / 100, bias, **options), y)
    limits = (-2000, 1500)
    cut = reference.quantize_image(x, steps, limits)
    np.testing.assert_array_equal(cut, np.clip(q, *limits))
    np.testing.assert_array_equal(int8.quantize_image(x, steps, limits), cut)
    y = assert_same_bits("conv2d_int8", x, weight, scale / 100, bias, steps=steps, limits=limits, **options)
    np.testing.assert_array_equal(reference.conv2d_int8(cut, weight, scale / 100, bias, **options), y)


def test_sums_of_the_first_convolution_fit_where_weights_add_up_to_65536():
    x = np.full((2, 1, 1, 17), -32767, np.int16)
    weight = np.full((1, 1, 17, 1), 4095, np.int16)
    weight[0, 0, 16] = 65536 - 16 * 4095
    y = assert_same_bits(
        "conv2d_int8", x, weight, np.float32([2.0**-31]), np.zeros(1, np.float32), dtype="float32", activation="none"
    )
    assert y[0, 0, 0, 0] == np.float32(-32767 * 65536 * 2.0**-31)


def test_means_and_what_is_read_from_them():
    random, weight, scale, bias, zero, _ = arrays(8, 12, 5, (12, 5))
    x, channels = image(random, 2, 9, 5, 12), np.float32(random.uniform(0.01, 0.03, 12))
    mean = assert_same_bits("global_average_pool_int8", x, channels, zero_point=zero)
    np.testing.assert_allclose(mean, ((np.float64(x) - zero) * channels).mean(axis=(1, 2)), rtol=1e-6, atol=1e-9)
    y = assert_same_bits("linear_int8", mean, weight, scale, bias, activation="hard_swish")
    np.testing.assert_allclose(
        y, reference.linear(mean, weight * np.float64(scale), bias, activation="hard_swish"), rtol=0.05, atol=0.5
    )
    matrices = {
        "reduce_weight": np.float32(random.standard_normal((12, 4))),
        "reduce_bias": np.float32(random.standard_normal(4)),
        "expand_weight": np.float32(random.standard_normal((4, 12))),
        "expand_bias": np.float32(random.standard_normal(12)),
    }
    for gate in ("sigmoid", "hard_sigmoid"):
        options = {"zero_point": zero, "activation": "swish", "gate": gate}
        y = assert_same_bits("squeeze_excite_int8", x, channels, *matrices.values(), **options)
        real = (np.float64(x) - zero) * channels
        np.testing.assert_allclose(
            y, reference.squeeze_excite(real, **matrices, activation="swish", gate=gate), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_there_and_back(activation):
    random = np.random.default_rng(9)
    x = np.float32(random.standard_normal((2, 3, 4, 5)) * 3)
    x[0, 0, :3, 0] = [np.nan, np.inf, -np.inf]
    scale, zero = np.float32(random.uniform(0.02, 0.05, 5)), random.integers(100, 156, 5).astype(np.uint8)
    q = assert_same_bits("quantize", x, np.float32(1) / scale, zero, activation=activation)
    assert q[0, 0, 0, 0] == 0
    back = assert_same_bits("dequantize", q, scale, zero)
    real = reference.activation_float32(x, activation)
    inside = (q > 0) & (q < 255)
    assert (np.abs(back - real) <= 0.5001 * scale)[inside].all()
    assert inside.mean() > 0.5
    assert_same_bits("quantize", x[:, 0, 0], np.float32(1) / scale, zero, activation=activation)


def test_a_sum_of_two_in_steps_of_the_result():
    """Against fractions: what the two stand for, added, in the result's scale; it saturates at both ends."""
    random = np.random.default_rng(10)
    x, y = image(random, 2, 3, 4, 5), image(random, 2, 3, 4, 5)
    scale, other = (np.float32(random.uniform(0.2, 0.9, 5)) for _ in range(2))
    bias = np.float32(random.uniform(-120, 20, 5))
    q = assert_same_bits_of_two("add_int8", x, y, scale, other, bias)
    for place in ((0, 0, 0, 0), (1, 2, 3, 4), (0, 1, 2, 3)):
        c = place[-1]
        inner = rounded(Fraction(int(y[place])) * Fraction(float(other[c])) + Fraction(float(bias[c])))
        total = rounded(Fraction(int(x[place])) * Fraction(float(scale[c])) + Fraction(float(inner)))
        assert q[place] == min(max(round(Fraction(float(total))), 0), 255)
    assert q.min() == 0 and q.max() == 255
    assert_same_bits_of_two("add_int8", x[:, 0, 0], y[:, 0, 0], scale, other, bias)


def assert_same_bits_of_two(operation: str, x: np.ndarray, y: np.ndarray, *arrays: np.ndarray) -> np.ndarray:
    """As `assert_same_bits`; an image alone is two arrays'."""
    expected = getattr(reference, operation)(x, y, *arrays)
    for backend in ("reference", "plain"):
        kernel = registry.best(operation, backend).function
        for threads in (1,) if INTERPRETED else (1, 2):
            out = np.empty_like(expected)
            assert kernel(x, y, *arrays, out=out, threads=threads) is out
            np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(kernel(x[1:], y[1:], *arrays), expected[1:])
    return expected


def test_an_empty_batch():
    _, weight, scale, bias, _, _ = arrays(10, 4, 6, (4, 6))
    for backend in ("reference", "plain"):
        kernel = registry.best("pointwise_conv2d_int8", backend).function
        assert kernel(np.empty((0, 2, 2, 4), np.uint8), weight, scale, bias).shape == (0, 2, 2, 6)


X, W, S, B = np.zeros((1, 4, 4, 3), np.uint8), np.zeros((3, 5), np.int8), np.ones(5, np.float32), np.ones(5, np.float32)
FLOATS = np.zeros((1, 4, 4, 3), np.float32)


@pytest.mark.parametrize(
    ("operation", "arguments", "options", "message"),
    [
        ("pointwise_conv2d_int8", (X.astype(np.int8), W, S, B), {}, "x must be a uint8 or float32 array of shape"),
        ("pointwise_conv2d_int8", (X, FLOATS[0, 0], S, B), {}, r"weight must be an int8 array of shape \(C_in/G=3"),
        ("pointwise_conv2d_int8", (X, W, S[1:], B), {}, r"scale must be a float array of shape \(C_out=5\)"),
        ("pointwise_conv2d_int8", (X, W, S, B), {"zero_point": 256}, "zero_point must be an integer from 0 to 255"),
        ("pointwise_conv2d_int8", (X, W, S, B), {"zero_point": B}, r"zero_point must be a uint8 array of shape"),
        ("pointwise_conv2d_int8", (FLOATS, W, S, B), {"zero_point": 7}, "zero_point of pixels .* must be 128 or 0"),
        ("pointwise_conv2d_int8", (X, W, S, B), {"dtype": "int8"}, "dtype must be uint8 or float32"),
        ("pointwise_conv2d_int8", (X, W, S, B), {"activation": "relu"}, "out_steps is for a result in uint8"),
        ("pointwise_conv2d_int8", (X, W, S, B), {"out_steps": S}, "out_steps is for a result in uint8"),
        ("pointwise_conv2d_int8", (X, W, S, B), {"residual": FLOATS}, "residual must be a float array of shape"),
        (
            "pointwise_conv2d_int8",
            (X, W[:, :3], S[:3], B[:3]),
            {"residual": FLOATS},
            "a residual can be added to a result of float32 alone",
        ),
        ("depthwise_conv2d_int8", (X, FLOATS[0], S[:3], B[:3]), {}, "weight must be an int8 or int16 array"),
        ("conv2d_int8", (FLOATS, np.zeros((3, 3, 3, 5), np.int16), S, B), {}, "steps are those of an x of float32"),
        (
            "conv2d_int8",
            (FLOATS, np.zeros((3, 3, 3, 5), np.int16), S, B),
            {"steps": -1.0},
            "steps must be a positive number, got -1.0",
        ),
        ("conv2d_int8", (X, np.zeros((3, 3, 3, 5), np.int16), S, B), {}, "weight must be an int8 array"),
        ("linear_int8", (X, W, S, B), {}, r"x must be a float array of shape \(N, C_in\)"),
        ("global_average_pool_int8", (X, S), {}, r"scale must be a float array of shape \(C=3\)"),
        ("quantize", (FLOATS, S[:3], S[:3]), {}, "zero_point must be a uint8 array"),
        ("dequantize", (FLOATS, S[:3], X[0, 0, 0]), {}, "x must be a uint8 array"),
        ("add_int8", (X, FLOATS, S[:3], S[:3], S[:3]), {}, "y must be a uint8 array"),
        ("add_int8", (X, X[:, 1:], S[:3], S[:3], S[:3]), {}, "y must have the shape of x"),
        ("add_int8", (X, X, S[:3], S, S[:3]), {}, r"other_scale must be a float array of shape \(C=3\)"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_by_all(operation, arguments, options, message):
    for backend in ("reference", "plain"):
        with pytest.raises(ValueError, match=message):
            registry.best(operation, backend).function(*arguments, **options)


def test_every_operation_has_both_backends_and_one_signature():
    import inspect

    for operation in registry.INT8_OPERATIONS:
        rows = registry.kernels(operation)
        assert {kernel.backend for kernel in rows} >= {"reference", "plain"}
        twin = inspect.signature(getattr(reference, operation))
        expected = [p for p in twin.parameters.values() if p.name not in ("out", "threads")]
        check = inspect.signature(getattr(checks, operation)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in check] == [(p.name, p.kind, p.default) for p in expected]
        for kernel in rows:
            assert str(inspect.signature(kernel.function)) == str(twin), kernel.name
            assert kernel.summary.endswith("."), kernel.name
