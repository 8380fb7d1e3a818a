"""The blocked kernels of 8-bit tensors against their definitions: the same bits, whatever the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numba
import numpy as np
import pytest

from npmobilenet.bench.study import machine_code
from npmobilenet.kernels import reference
from npmobilenet.kernels.blocked import images
from npmobilenet.kernels.blocked.code.int8 import common
from npmobilenet.kernels.blocked.code.int8 import ended as ended_library
from npmobilenet.kernels.blocked.code.int8 import pointwise as pointwise_code
from npmobilenet.kernels.blocked.int8 import dense, depthwise, entry, pointwise
from npmobilenet.kernels.blocked.int8.add import add_int8
from npmobilenet.kernels.blocked.int8.depthwise import depthwise_conv2d_int8
from npmobilenet.kernels.blocked.int8.layout import tiles
from npmobilenet.kernels.blocked.int8.linear import linear_int8
from npmobilenet.kernels.blocked.int8.mixed import mixed_depthwise_conv2d_int8
from npmobilenet.kernels.blocked.int8.pointwise import pointwise_conv2d_int8
from npmobilenet.kernels.blocked.int8.pooling import global_average_pool_int8
from npmobilenet.kernels.blocked.int8.squeeze_excite import squeeze_excite_int8
from npmobilenet.kernels.blocked.int8.stem import conv2d_int8
from npmobilenet.kernels.blocked.layout import k_unit
from npmobilenet.kernels.blocked.library import CLAMP
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.target import LEVELS, Target, host
from tests.kernels.test_integer_vectors import DOTS
from tests.kernels.test_targets import busiest_loop, foreign_calls

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="explicit vectors are machine code")

KERNELS = {
    kernel.__name__: kernel
    for kernel in (
        add_int8,
        conv2d_int8,
        depthwise_conv2d_int8,
        entry.dequantize,
        entry.quantize,
        global_average_pool_int8,
        linear_int8,
        mixed_depthwise_conv2d_int8,
        pointwise_conv2d_int8,
        squeeze_excite_int8,
    )
}
Case = tuple[str, dict[str, Any]]


def layouts() -> dict[str, Target]:
    """Other registers than this CPU's, computed here: by plain arithmetic, or in parts."""
    here = host()
    wide = {"AVX-512 in parts": replace(here, lanes=16, registers=32, dot="madd")} if here.dot != "plain" else {}
    return {
        "NEON": replace(here, lanes=4, registers=32, dot="plain"),
        "SSE2": replace(here, lanes=4, registers=16, dot="plain", has_fma=False),
        "AVX2": replace(here, lanes=8, registers=16, dot="plain"),
        **wide,
    }


def uint8(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """With many at both ends."""
    return np.clip(rng.integers(-60, 316, shape), 0, 255).astype(np.uint8)


def weights(rng: np.random.Generator, *shape: int, bits: int = 8) -> np.ndarray:
    most = 2 ** (bits - 1) - 1
    return np.clip(rng.integers(-most * 5 // 4, most * 5 // 4, shape), -most, most).astype(
        f"int{8 if bits <= 8 else 16}"
    )


def ended(rng: np.random.Generator, channels: int, products: int, one: float = 9000) -> dict[str, np.ndarray]:
    """Scale and bias that spread sums of so many products, each about ``one``, over the bytes and beyond."""
    scale = (rng.random(channels) + 0.5) * 70 / (one * products**0.5)
    return {"scale": scale.astype(np.float32), "bias": rng.normal(120, 30, channels).astype(np.float32)}


def pointwise_cases(rng: np.random.Generator) -> Iterator[Case]:
    sizes = [(1, 1, 1, 3, 5), (2, 3, 5, 16, 24), (1, 7, 7, 24, 33), (3, 13, 9, 40, 16), (1, 1, 17, 4, 90)]
    for number, (n, h, w, c_in, c_out) in enumerate([*sizes, (1, 20, 20, 64, 65), (1, 4, 4, 320, 520)]):
        for zero_point in (0, 128, uint8(rng, c_in)):
            for dtype in ("uint8", "float32"):
                options = {"zero_point": zero_point, "dtype": dtype}
                if dtype == "float32":
                    options["activation"] = ("none", "relu", "relu6")[number % 3]
                if (number + len(dtype)) % 2:
                    options["pixel_scale"] = rng.random((n, h, w)).astype(np.float32) * 3
                if dtype == "float32" and number % 4 < 2:
                    options["residual"] = rng.standard_normal((n, h, w, c_out)).astype(np.float32) * 50
                arrays = {"x": uint8(rng, n, h, w, c_in), "weight": weights(rng, c_in, c_out)}
                yield "pointwise_conv2d_int8", {**arrays, **ended(rng, c_out, c_in), **options}
    for groups, c_in, c_out in ((2, 12, 18), (3, 48, 96), (5, 15, 10)):
        arrays = {"x": uint8(rng, 2, 3, 3, c_in), "weight": weights(rng, c_in // groups, c_out)}
        options = {"groups": groups, "zero_point": uint8(rng, c_in)}
        yield "pointwise_conv2d_int8", {**arrays, **ended(rng, c_out, c_in), **options}
    for zero_point in (0, 128):  # of float32, which is quantised
        x = rng.standard_normal((2, 5, 7, 19)).astype(np.float32) * 5
        x[0, 0, 0] = 0
        x[1, 1, 1, 1], x[1, 2, 3, 4], x[1, 3, 3, 3] = np.inf, np.nan, -np.inf
        arrays = {"x": x, "weight": weights(rng, 19, 21), "zero_point": zero_point, "dtype": "float32"}
        yield "pointwise_conv2d_int8", {**arrays, **ended(rng, 21, 19)}
        yield "pointwise_conv2d_int8", {**arrays, **ended(rng, 21, 19), "dtype": "uint8"}


def depthwise_cases(rng: np.random.Generator) -> Iterator[Case]:
    shapes = [(1, 1, 1, 1), (2, 2, 3, 5), (1, 7, 7, 24), (1, 15, 9, 33), (1, 13, 31, 16)]
    windows = [
        {"stride": 1, "padding": 1},
        {"stride": 2, "padding": "same"},
        {"stride": (1, 3), "padding": ((1, 1), (2, 0))},
        {"padding": 2, "dilation": 2},
        {"padding": 5, "dilation": (2, 3)},
    ]
    for number, (n, h, w, c) in enumerate(shapes):
        for options in windows:
            for bits in (8, 15):
                yield depthwise_case(rng, (n, h, w, c), (3, 3), bits, number, options)
    for kernel, bits in (((1, 4), 8), ((5, 5), 8), ((5, 5), 15), ((2, 9), 15), ((11, 6), 8)):
        options = {"padding": kernel[0] // 2, "stride": 1 + kernel[0] % 2}
        yield depthwise_case(rng, (1, 12, 13, 5), kernel, bits, kernel[0], options)
        yield depthwise_case(rng, (1, 9, 11, 17), kernel, bits, kernel[1], {"padding": "same"})
    yield depthwise_case(rng, (1, 14, 23, 3), (5, 5), 8, 0, {"padding": 8, "dilation": 4})


def depthwise_case(rng, shape, kernel, bits, number, options) -> Case:
    channels = shape[3]
    zero_point = (0, 128, uint8(rng, channels))[number % 3]
    arrays = {"x": uint8(rng, *shape), "weight": weights(rng, *kernel, channels, bits=bits)}
    end = ended(rng, channels, kernel[0] * kernel[1], 9000 * 2 ** (bits - 8))
    more = {"dtype": "float32", "activation": "relu"} if number % 4 == 2 else {}
    return "depthwise_conv2d_int8", {**arrays, **end, **more, "zero_point": zero_point, **options}


def stem_cases(rng: np.random.Generator) -> Iterator[Case]:
    geometries = [((3, 3), {"stride": 2, "padding": 1}), ((3, 3), {"stride": 2, "padding": "same"})]
    geometries += [((2, 5), {"padding": ((1, 0), (2, 3))}), ((1, 1), {"stride": (1, 2)})]
    sizes = [(1, 1, 1, 3, 5), (2, 7, 9, 3, 32), (1, 33, 29, 1, 24), (1, 15, 62, 4, 40)]
    for number, (kernel, options) in enumerate(geometries):
        for n, h, w, c_in, c_out in sizes:
            if (h, w) == (1, 1) and number > 1:
                h = w = 4
            weight = weights(rng, *kernel, c_in, c_out, bits=13)
            end = ended(rng, c_out, kernel[0] * kernel[1] * c_in, 2000 * 2100)
            if (n + h + number) % 2:
                x = np.clip(rng.integers(-5000, 5000, (n, h, w, c_in)), -4095, 4095).astype(np.int16)
                yield "conv2d_int8", {"x": x, "weight": weight, **end, **options}
            else:
                x = rng.standard_normal((n, h, w, c_in)).astype(np.float32) * 2
                x.flat[0], x.flat[1 % x.size] = np.nan, np.inf
                more = {"dtype": "float32", "activation": "relu6"} if w == 29 else {}
                given = {"x": x, "weight": weight, **end, **options, **more, "steps": 1000.3}
                yield "conv2d_int8", given
                yield "conv2d_int8", {**given, "limits": (-1203, 1107)}


def dense_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Dense convolutions of bytes; one of so many rows and channels that it is computed in strips."""
    sizes = [(1, 1, 1, 3, 5), (2, 7, 9, 16, 32), (1, 13, 11, 24, 17), (1, 30, 29, 72, 9)]
    windows = [
        ((3, 3), {"padding": 1}),
        ((3, 3), {"stride": 2, "padding": "same"}),
        ((1, 1), {"stride": (2, 3)}),
        ((2, 5), {"padding": ((1, 0), (2, 3))}),
        ((3, 3), {"padding": 2, "dilation": 2}),
    ]
    for number, (n, h, w, c_in, c_out) in enumerate(sizes):
        for kernel, options in windows:
            more = {"dtype": "float32", "activation": "relu"} if (number + kernel[1]) % 3 == 0 else {}
            arrays = {"x": uint8(rng, n, h, w, c_in), "weight": weights(rng, *kernel, c_in, c_out)}
            end = ended(rng, c_out, kernel[0] * kernel[1] * c_in)
            zero_point = (0, 128, uint8(rng, c_in))[number % 3]
            yield "conv2d_int8", {**arrays, **end, **more, "zero_point": zero_point, **options}
    arrays = {"x": uint8(rng, 1, 6, 5, 9), "weight": weights(rng, 3, 3, 9, 20)}
    yield "conv2d_int8", {**arrays, **activated(rng, 20, 81, 9000, "hard_swish"), "zero_point": 77, "padding": 1}


def other_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, (n, h, w, c) in enumerate([(1, 1, 1, 3), (2, 7, 7, 40), (1, 5, 3, 16), (3, 2, 1, 65)]):
        scale = rng.random(c).astype(np.float32)
        x = uint8(rng, n, h, w, c)
        yield "global_average_pool_int8", {"x": x, "scale": scale, "zero_point": (7, 128, uint8(rng, c))[number % 3]}
        zero_points = uint8(rng, c)
        yield "dequantize", {"x": x, "scale": scale, "zero_point": zero_points}
        floats = rng.standard_normal((n, h, w, c)).astype(np.float32) * 2
        floats.flat[0], floats.flat[-1] = np.nan, np.inf
        steps = (rng.random(c) * 80).astype(np.float32)
        ends = {"steps": steps, "zero_point": zero_points, "activation": ("none", "relu", "relu6")[number % 3]}
        yield "quantize", {"x": floats, **ends}
        yield "quantize", {"x": floats[:, 0, 0], **ends}
        factors = {name: rng.uniform(0.2, 0.9, c).astype(np.float32) for name in ("scale", "other_scale")}
        given = {"x": x, "y": uint8(rng, n, h, w, c), **factors, "bias": rng.normal(0, 30, c).astype(np.float32)}
        yield "add_int8", given
        yield "add_int8", {**given, "x": x[:, 0, 0], "y": given["y"][:, 0, 0]}
    for n, c_in, c_out in ((1, 3, 5), (3, 40, 33), (2, 129, 1000)):
        for zero_point in (0, 128):
            x = rng.standard_normal((n, c_in)).astype(np.float32)
            arrays = {"x": x, "weight": weights(rng, c_in, c_out), **ended(rng, c_out, c_in, 100)}
            yield "linear_int8", {**arrays, "zero_point": zero_point, "activation": ("none", "relu")[c_in % 2]}


def activated(
    rng: np.random.Generator, channels: int, products: int, one: float, activation: str, dtype: str = "uint8"
):
    """Ends that spread sums over what an activation makes of them, and that over the bytes."""
    scale, bias = (rng.random(channels) + 0.5) * 3 / (one * products**0.5), rng.normal(1, 2, channels)
    ends = {"scale": scale.astype(np.float32), "bias": bias.astype(np.float32), "activation": activation}
    if dtype == "float32":
        return {**ends, "dtype": dtype}
    steps = (rng.random(channels) + 1).astype(np.float32) * 20
    return {**ends, "out_steps": steps, "out_zero_point": rng.integers(0, 60, channels).astype(np.uint8)}


def activated_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Convolutions that end with an activation that is more than a clamp, of tensors with a zero point."""
    for number, (n, h, w, c_in, c_out) in enumerate([(1, 1, 1, 3, 5), (2, 5, 7, 16, 40), (1, 13, 9, 40, 17)]):
        x, weight = uint8(rng, n, h, w, c_in), weights(rng, c_in, c_out)
        for dtype in ("uint8", "float32"):
            given = {"x": x, "weight": weight, **activated(rng, c_out, c_in, 9000, "hard_swish", dtype)}
            if (number + len(dtype)) % 2:
                given["pixel_scale"] = rng.random((n, h, w)).astype(np.float32) * 3
            if dtype == "float32" and number:
                given["residual"] = rng.standard_normal((n, h, w, c_out)).astype(np.float32)
            yield "pointwise_conv2d_int8", {**given, "zero_point": (128, uint8(rng, c_in))[number % 2]}
        window, ends = weights(rng, 3, 3, c_in, bits=(8, 15)[number % 2]), (9000, 9000 * 128)[number % 2]
        given = {
            "x": x,
            "weight": window,
            **activated(rng, c_in, 9, ends, "hard_swish"),
            "zero_point": uint8(rng, c_in),
        }
        yield "depthwise_conv2d_int8", {**given, "padding": 1, "stride": 1 + number % 2}
        image = np.clip(rng.integers(-5000, 5000, (n, h, w, 3)), -4095, 4095).astype(np.int16)
        given = {"x": image, "weight": weights(rng, 3, 3, 3, c_out, bits=13)}
        ends = activated(rng, c_out, 27, 2000 * 2100, "hard_swish", ("uint8", "float32")[number == 1])
        yield "conv2d_int8", {**given, **ends, "stride": 2, "padding": 1}
        floats = rng.standard_normal((n, h, w, c_in)).astype(np.float32) * 4
        steps = (rng.random(c_in) + 1).astype(np.float32) * 20
        ends = {"steps": steps, "zero_point": uint8(rng, c_in), "activation": "hard_swish"}
        yield "quantize", {"x": floats, **ends}
    x = rng.standard_normal((2, 40)).astype(np.float32)
    ends = activated(rng, 33, 40, 100, "hard_swish", "float32")
    del ends["dtype"]
    yield "linear_int8", {"x": x, "weight": weights(rng, 40, 33), **ends}
    x = rng.standard_normal((1, 3, 3, 19)).astype(np.float32)  # some of it no number
    x[0, 1, 1, 1], x[0, 2, 2, 2] = np.inf, np.nan
    for dtype in ("uint8", "float32"):
        given = {"x": x, "weight": weights(rng, 19, 21), "zero_point": 128}
        yield "pointwise_conv2d_int8", {**given, **activated(rng, 21, 19, 100, "hard_swish", dtype)}


def mixed_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Groups that share blocks and that do not, even windows and odd ones, under every padding."""
    for number, (size, groups, kernels) in enumerate([
        ((2, 6, 7), (3, 2), ((5, 5), (7, 7))),
        ((1, 12, 19), (16, 20, 12), ((5, 5), (7, 7), (9, 9))),
        ((1, 9, 9), (17, 9), ((1, 3), (5, 5))),
    ]):  # fmt: skip
        channels, taps = sum(groups), max(a * b for a, b in kernels)
        x = uint8(rng, *size, channels)
        for stride, padding in ((1, "symmetric"), (2, "same"), (2, "symmetric")):
            parts = [weights(rng, *kernel, count) for kernel, count in zip(kernels, groups, strict=True)]
            options = {"stride": stride, "padding": padding, "zero_point": (0, uint8(rng, channels))[stride - 1]}
            ends = activated(rng, channels, taps, 6000, "swish") if number else ended(rng, channels, taps, 6000)
            yield "mixed_depthwise_conv2d_int8", {"x": x, "weights": parts, **ends, **options}
    parts = [weights(rng, 5, 5, 20, bits=15), weights(rng, 5, 5, 5, bits=15)]
    dilated = {"dilation": [1, 2], "zero_point": 77, "padding": "symmetric"}
    ends = ended(rng, 25, 25, 9000 * 128)
    yield "mixed_depthwise_conv2d_int8", {"x": uint8(rng, 1, 11, 12, 25), "weights": parts, **ends, **dilated}


def squeeze_cases(rng: np.random.Generator) -> Iterator[Case]:
    functions = [("relu", "sigmoid"), ("swish", "hard_sigmoid"), ("hard_swish", "none"), ("relu6", "swish")]
    shapes = [(1, 1, 1, 3, 1), (2, 7, 7, 40, 9), (1, 5, 3, 16, 16), (1, 3, 2, 65, 4)]
    for (n, h, w, c, reduced), (activation, gate) in zip(shapes, functions, strict=True):
        layers = {
            "reduce_weight": rng.standard_normal((c, reduced)),
            "reduce_bias": rng.standard_normal(reduced),
            "expand_weight": rng.standard_normal((reduced, c)),
            "expand_bias": rng.standard_normal(c) * 2,
        }
        layers = {name: array.astype(np.float32) for name, array in layers.items()}
        arrays = {"x": uint8(rng, n, h, w, c), "scale": rng.random(c).astype(np.float32) / 50, **layers}
        options = {"zero_point": uint8(rng, c) if n > 1 else 7, "activation": activation, "gate": gate}
        yield "squeeze_excite_int8", {**arrays, **options}


CASES = [
    case
    for make in (
        pointwise_cases,
        depthwise_cases,
        stem_cases,
        dense_cases,
        other_cases,
        activated_cases,
        mixed_cases,
        squeeze_cases,
    )
    for case in make(np.random.default_rng(17))
]


@cache
def expected_of(number: int) -> np.ndarray:
    """What the definition makes of a case: the same for all registers and threads."""
    operation, given = CASES[number]
    return getattr(reference, operation)(**given)


def compare(threads: int, tallest: int = 99) -> None:
    """The bits of a kernel and of its definition are the same; of windows of so many rows at most."""
    for number, (operation, given) in enumerate(CASES):
        if operation != "depthwise_conv2d_int8" or given["weight"].shape[0] <= tallest:
            compare_one(operation, given, expected_of(number), threads)


def compare_one(operation: str, given: dict[str, Any], expected: np.ndarray | None = None, threads: int = 1) -> None:
    """The same of one case, whose definition is computed here if it is not given."""
    if expected is None:
        expected = getattr(reference, operation)(**given)
    of_bytes = operation == "conv2d_int8" and given["x"].dtype == np.uint8
    result = (dense.conv2d_int8 if of_bytes else KERNELS[operation])(**given, threads=threads)
    about = {name: value.shape if isinstance(value, np.ndarray) else value for name, value in given.items()}
    assert result.dtype == expected.dtype
    assert np.array_equal(result, expected, equal_nan=result.dtype.kind == "f"), (operation, about)


@pytest.mark.parametrize("threads", [1, 2])
def test_bits_are_those_of_the_definition(threads):
    compare(threads)


@pytest.mark.parametrize("name", layouts())
def test_bits_with_the_registers_of_other_cpus(monkeypatch, name):
    monkeypatch.setattr(images, "host", lambda: layouts()[name])
    compare(1, tallest=10)
    test_pixels_are_quantised(0)


def test_results_tell_cases_apart():
    """Saturated bytes are in the minority: a wrong sum would be seen."""
    for operation in KERNELS:
        results = [expected_of(number) for number, (name, _) in enumerate(CASES) if name == operation]
        results = np.concatenate([np.uint8([]), *(each.ravel() for each in results if each.dtype == np.uint8)])
        assert not results.size or np.mean((results > 0) & (results < 255)) > 0.5, operation


@pytest.mark.parametrize("zero_point", [0, 128])
def test_pixels_are_quantised(zero_point):
    rng = np.random.default_rng(zero_point)
    for shape in ((1, 1, 1, 1), (2, 3, 5, 3), (1, 4, 4, 16), (1, 17, 23, 40)):
        x = rng.standard_normal(shape).astype(np.float32) * np.float32(10) ** rng.integers(-3, 4, (*shape[:3], 1))
        x = x.astype(np.float32)
        x[0, -1, -1] = 0
        x.flat[0] = np.inf if zero_point else np.nan
        expected = reference.quantize_pixels(x, zero_point=zero_point)
        for threads in (1, 2):
            found = entry.quantize_pixels(x, zero_point=zero_point, threads=threads)
            assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found[1:], expected[1:], strict=True))
            assert np.array_equal(found[0], expected[0])


def test_results_that_no_integer_holds():
    """Bytes are packed without a bound where all are known to be below 2**31; others are bounded, and NaN becomes 0."""
    rng = np.random.default_rng(23)
    x, window, image = uint8(rng, 1, 6, 9, 20), weights(rng, 3, 3, 20), np.full((1, 9, 9, 3), 3000, np.int16)
    given = {
        "pointwise_conv2d_int8": {"x": x, "weight": weights(rng, 20, 40)},
        "depthwise_conv2d_int8": {"x": x, "weight": window, "padding": 1},
        "conv2d_int8": {"x": image, "weight": weights(rng, 3, 3, 3, 40, bits=13), "padding": 1},
    }
    for operation, arrays in given.items():
        channels = arrays["weight"].shape[-1]
        ends = ended(rng, channels, 9)
        for name, at, value in (
            ("scale", 3, 1e8), ("scale", 17, -1e8), ("scale", 2, np.inf), ("scale", 5, 0), ("scale", 1, np.nan),
            ("bias", 0, 3e9), ("bias", 19, -3e9), ("bias", 4, np.inf), ("bias", 18, np.nan),
        ):  # fmt: skip
            array = ends[name].copy()
            array[at] = value
            compare_one(operation, {**arrays, **ends, name: array})
    arrays = given["pointwise_conv2d_int8"]
    for largest in (1.0, 1e9, 1e38, np.inf, np.nan):
        scales = rng.random((1, 6, 9)).astype(np.float32)
        scales[0, rng.integers(6), rng.integers(9)] = largest
        for dtype in ("uint8", "float32"):
            compare_one("pointwise_conv2d_int8", {**arrays, **ends, "pixel_scale": scales, "dtype": dtype})


@pytest.mark.parametrize("activation", ["swish", "sigmoid", "hard_sigmoid", "relu6"])
def test_any_activation(activation):
    rng = np.random.default_rng(5)
    for dtype in ("uint8", "float32"):
        given = {"x": uint8(rng, 1, 2, 9, 20), "weight": weights(rng, 1, 5, 20), "zero_point": 9}
        compare_one("depthwise_conv2d_int8", {**given, **activated(rng, 20, 5, 3000, activation, dtype)})


@pytest.mark.parametrize("bits", [256, 512])
def test_small_weights_take_a_shorter_way(monkeypatch, bits):
    """Pairs of products that fit 16 bits, up to the largest: the same bits, from another instruction."""
    here = host()
    if here.dot == "plain" or here.integer_bits < bits:
        pytest.skip("this CPU has no such instruction")
    target = replace(here, lanes=bits // 32, registers=16, dot="madd", integer_bits=bits)
    monkeypatch.setattr(images, "host", lambda: target)
    rng, sides = np.random.default_rng(3), np.int8([-64, 64])
    x = rng.choice(np.uint8([0, 255, 255]), (1, 5, 7, 20))
    for weight, ends in (
        (np.repeat(sides, 9)[None].repeat(20, 0), {}),
        (rng.choice(sides, (20, 9)), {"zero_point": 128}),
    ):
        given = {"x": x, "weight": weight, **ended(rng, weight.shape[1], 20, 12000), **ends}
        compare_one("pointwise_conv2d_int8", given)
        assert pointwise.pack(target, weight, given["scale"], given["bias"]).small
    window = rng.choice(sides, (3, 3, 20))
    given = {"x": x, "weight": window, **ended(rng, 20, 9, 12000), "padding": 1, "zero_point": 255}
    compare_one("depthwise_conv2d_int8", given)
    window[1, 1, 3] = -65
    assert not depthwise.pack(target, window, given["scale"], given["bias"]).runs[0].small


def test_half_a_vector_is_computed_where_that_is_half_the_time():
    """As many products of eight lanes as of sixteen, in registers."""
    target = LEVELS["znver4"].target
    wide, narrow = tiles(target)
    assert wide.halves
    assert narrow.halves
    library = Library("inspected", target, pointwise_code.define, None)
    functions = machine_code.functions(library.assembly())
    for lanes in ("zmm", "ymm"):
        count, stack = busiest_loop(
            functions[f"int8_pointwise_{wide.pixels}x{wide.blocks}_half"], rf"vpdpbusd.*%{lanes}"
        )
        assert count == wide.pixels * k_unit(target) // 4
        assert stack <= 2
    assert not tiles(LEVELS["x86-64-v4-vnni"].target)[0].halves


@pytest.mark.parametrize("cpu", ["x86-64", "haswell", "alderlake", "cascadelake", "neoverse-n1"])
def test_machine_code_of_other_cpus(cpu):
    """Products of bytes are computed in registers, and no mathematics library is called."""
    about = next(about for about in DOTS if about[0] == cpu)
    target = Target.of(*about)
    try:
        text = Library("inspected", target, common.define, None).assembly()
    except RuntimeError as error:
        pytest.skip(f"this LLVM has no such target: {error}")
    functions = machine_code.functions(text)
    assert foreign_calls(functions) <= {"memset"}
    if target.adds_pairs:
        small = Library("inspected", target, partial(ended_library.define, end=CLAMP, small=True), None)
        assert "vpmaddubsw" in small.assembly()
        assert "vpmaddubsw" not in text
    if target.dot in ("vnni", "sdot"):
        wide, _ = tiles(target)
        instruction = {"vnni": r".*vpdpbusd\s", "sdot": r"sdot\s"}[target.dot]
        count, stack = busiest_loop(functions[f"int8_pointwise_{wide.pixels}x{wide.blocks}"], instruction)
        assert count >= wide.pixels * wide.blocks * (k_unit(target) // 4)
        assert stack <= 2  # of 28 sums LLVM may keep one on the stack
