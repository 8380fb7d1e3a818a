"""The ladders of 8 bits, pointwise and depthwise: lower rungs; :data:`~npmobilenet.kernels.ladder.LADDERS` has all.

Sums of integers are exact in any order, so all rungs have the same bits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from npmobilenet.kernels import checks, reference
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.int8 import depthwise, ending, entry, pointwise
from npmobilenet.kernels.checks import Array, Geometry
from npmobilenet.kernels.geometry import Pair
from npmobilenet.kernels.jit import jit
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import NO_FRAME
from npmobilenet.kernels.vector.target import Target

DOT_PRODUCTS = ("avxvnni", "avx512vnni", "avxvnniint8", "dotprod", "i8mm")  # of four bytes, in LLVM's words


def rung_of(operation: str) -> Callable[[Callable], Callable[..., np.ndarray]]:
    """Decorate loops ``(x, weight, geometry, sums)``, integers that write the bare sums, as an operation.

    What a sum becomes is passes of NumPy over all of them, as the definition has it. ``threads`` is accepted and
    ignored, groups of channels are refused.
    """
    signature = inspect.signature(getattr(reference, operation))
    check = getattr(checks, operation)

    def decorate(loops: Callable) -> Callable[..., np.ndarray]:
        def kernel(*arguments: Any, **options: Any) -> np.ndarray:
            bound = signature.bind(*arguments, **options)
            bound.apply_defaults()
            given = dict(bound.arguments)
            given.pop("threads")
            out = given.pop("out")
            g = check(**given)
            if given.get("groups", 1) != 1:
                raise ValueError(f"groups must be 1 in this kernel, got {given['groups']}")
            x, pixel_scale = given["x"], given.get("pixel_scale")
            if x.dtype.kind == "f":
                x, pixel_scale = reference.quantize_pixels(x, zero_point=given["zero_point"])
            sums = np.empty(g.shape, np.int32)
            loops(np.int32(x) - np.int32(given["zero_point"]), given["weight"].astype(np.int32), g, sums)
            return _ended(sums, given, pixel_scale, checks.output(out, g.shape, np.dtype(given["dtype"])))

        kernel.__name__, kernel.__doc__, kernel.__module__ = loops.__name__, loops.__doc__, loops.__module__
        kernel.__signature__ = signature
        return kernel

    return decorate


def _ended(sums: Array, given: dict[str, Any], pixel_scale: Array | None, out: Array) -> Array:
    scale = np.float32(given["scale"])
    if pixel_scale is not None:
        scale = scale * np.float32(pixel_scale)[..., None]
    y = reference.fma(sums.astype(np.float32), scale, np.float32(given["bias"]))
    if out.dtype == np.uint8 and given["out_steps"] is None:
        out[...] = np.clip(np.rint(y), 0, 255)
    elif out.dtype == np.uint8:
        y = reference.activation_float32(y, given["activation"])
        reference.quantize(y, given["out_steps"], given["out_zero_point"], out=out)
    else:
        out[...] = reference.activation_float32(y, given["activation"])
        if given.get("residual") is not None:
            out += np.float32(given["residual"])
    return out


# Pointwise ---------------------------------------------------------------------------------------------------


def _pointwise(x: Array, weight: Array, out: Array) -> None:
    n_out, h_out, w_out, channels = out.shape
    for n in range(n_out):
        for h in range(h_out):
            for w in range(w_out):
                for o in range(channels):
                    total = np.int32(0)
                    for c in range(weight.shape[0]):
                        total += x[n, h, w, c] * weight[c, o]
                    out[n, h, w, o] = total


_compiled_pointwise = jit(_pointwise)


@rung_of("pointwise_conv2d_int8")
def pointwise_python(x: Array, weight: Array, g: Geometry, sums: Array) -> None:
    """Five nested Python loops: uint8 (N, H, W, C_in) @ int8 (C_in, C_out) -> (N, H, W, C_out)."""
    _pointwise(x, weight, sums)


@rung_of("pointwise_conv2d_int8")
def pointwise_njit_loops(x: Array, weight: Array, g: Geometry, sums: Array) -> None:
    """The five nested loops, compiled: uint8 (N, H, W, C_in) @ int8 (C_in, C_out) -> (N, H, W, C_out)."""
    _compiled_pointwise(x, weight, sums)


@rung_of("pointwise_conv2d_int8")
def pointwise_matmul(x: Array, weight: Array, g: Geometry, sums: Array) -> None:
    """NumPy's matrix product in float64: uint8 (N, H, W, C_in) @ int8 (C_in, C_out) -> (N, H, W, C_out)."""
    pixels = np.float64(x.reshape(-1, weight.shape[0]))
    sums.reshape(-1, weight.shape[1])[...] = pixels @ np.float64(weight)


def without_dot_products(target: Target) -> Target:
    """The same CPU without an instruction that multiplies four bytes and adds the products."""
    kept = [item for item in target.features.split(",") if item and item[1:] not in DOT_PRODUCTS]
    without = [f"-{name}" for name in DOT_PRODUCTS if f"+{name}" in target.features.split(",")]
    return Target.of(target.cpu, ",".join(kept + without), target.triple)


@prepared("pointwise_conv2d_int8")
def pointwise_simd_madd(
    x: Array, weight: Array, scale: Array, bias: Array, *, threads: int = 1, **options: Any
) -> Images:
    """Explicit vectors, products of 16-bit integers: uint8 (N, H, W, C_in) @ int8 -> (N, H, W, C_out)."""
    return _pointwise_images(x, weight, scale, bias, threads, options, by_pixel=False)


@prepared("pointwise_conv2d_int8")
def pointwise_simd_pixel(
    x: Array, weight: Array, scale: Array, bias: Array, *, threads: int = 1, **options: Any
) -> Images:
    """Explicit vectors, four products in a lane, a pixel at a time: uint8 (N, H, W, C_in) @ int8."""
    return _pointwise_images(x, weight, scale, bias, threads, options, by_pixel=True)


def _pointwise_images(
    x: Array, weight: Array, scale: Array, bias: Array, threads: int, options: dict[str, Any], by_pixel: bool
) -> Images:
    """The engine's kernel without dot products, or on images that are a pixel wide, for which its tile is, too."""
    shape = checks.pointwise_conv2d_int8(x, weight, scale, bias, **options).shape
    column = (len(x), x.shape[1] * x.shape[2], 1) if by_pixel else x.shape[:3]
    apart = ((0, 0), (0, 1)) if by_pixel else NO_FRAME  # rows that do not follow one another are computed one by one
    images = Images((*column, shape[3]), threads, np.dtype(options.get("dtype", "uint8")))
    if not by_pixel:
        images.target = without_dot_products(images.target)
    zero_point = options.get("zero_point", 0)
    end = _ending(images.target, options)
    packed = pointwise.pack(images.target, weight, scale, bias, zero_point, options.get("groups", 1), end)
    inputs, scales = images.inputs(x.reshape(*column, -1)), [None] * len(x)
    if options.get("pixel_scale") is not None:
        scales = images.inputs(options["pixel_scale"].reshape(*column, 1), lanes=1)
    elif x.dtype.kind == "f":
        inputs, scales = entry.pixels(images, inputs, zero_point)
    residual = options.get("residual")
    others = [None] * len(x) if residual is None else images.inputs(residual.reshape(*column, -1))
    for image, each, other in zip(inputs, scales, others, strict=True):
        out = images.output(frame=apart)
        images.add(pointwise.call(image, out, packed, pixel_scale=each, residual=other))
    return _Reshaped(images, shape)


def _ending(target: Target, options: dict[str, Any]) -> ending.Ending:
    return ending.pack(
        target, options.get("activation", "none"), options.get("out_steps"), options.get("out_zero_point")
    )


class _Reshaped:
    """A prepared operation whose result has another shape."""

    def __init__(self, images: Images, shape: tuple[int, ...]) -> None:
        self.images, self.shape = images, shape
        self.run = images.run

    def result(self) -> np.ndarray:
        return self.images.result().reshape(self.shape)


# Depthwise ---------------------------------------------------------------------------------------------------


def _depthwise(x: Array, weight: Array, stride: Pair, start: Pair, dilation: Pair, out: Array) -> None:
    n_out, p_out, q_out, channels = out.shape
    for n in range(n_out):
        for p in range(p_out):
            for q in range(q_out):
                for c in range(channels):
                    total = np.int32(0)
                    for i in range(weight.shape[0]):
                        for j in range(weight.shape[1]):
                            h = p * stride[0] + i * dilation[0] - start[0]
                            w = q * stride[1] + j * dilation[1] - start[1]
                            if 0 <= h < x.shape[1] and 0 <= w < x.shape[2]:
                                total += x[n, h, w, c] * weight[i, j, c]
                    out[n, p, q, c] = total


_compiled_depthwise = jit(_depthwise)


@rung_of("depthwise_conv2d_int8")
def depthwise_python(x: Array, weight: Array, g: Geometry, sums: Array) -> None:
    """Six nested Python loops: uint8 (N, H, W, C) * int8 (K_h, K_w, C) -> (N, P, Q, C)."""
    _depthwise(x, weight, g.stride, g.start, g.dilation, sums)


@rung_of("depthwise_conv2d_int8")
def depthwise_njit_loops(x: Array, weight: Array, g: Geometry, sums: Array) -> None:
    """The six nested loops, compiled: uint8 (N, H, W, C) * int8 (K_h, K_w, C) -> (N, P, Q, C)."""
    _compiled_depthwise(x, weight, g.stride, g.start, g.dilation, sums)


@rung_of("depthwise_conv2d_int8")
def depthwise_numpy_taps(x: Array, weight: Array, g: Geometry, sums: Array) -> None:
    """One NumPy product of the shifted image for each tap: uint8 (N, H, W, C) * int8 -> (N, P, Q, C)."""
    padded = g.padded(x)
    sums[:] = 0
    for i, j in np.ndindex(g.kernel):
        sums += g.tap(padded, i, j) * weight[i, j]


@prepared("depthwise_conv2d_int8")
def depthwise_simd_madd(
    x: Array, weight: Array, scale: Array, bias: Array, *, threads: int = 1, **options: Any
) -> Images:
    """Explicit vectors, products of 16-bit integers: uint8 (N, H, W, C) * (K_h, K_w, C) -> (N, P, Q, C)."""
    return _depthwise_images(x, weight, scale, bias, threads, options, row_by_row=False)


@prepared("depthwise_conv2d_int8")
def depthwise_simd_row(
    x: Array, weight: Array, scale: Array, bias: Array, *, threads: int = 1, **options: Any
) -> Images:
    """Explicit vectors, four taps in a lane, row by row: uint8 (N, H, W, C) * (K_h, K_w, C) -> (N, P, Q, C)."""
    return _depthwise_images(x, weight, scale, bias, threads, options, row_by_row=True)


def _depthwise_images(
    x: Array, weight: Array, scale: Array, bias: Array, threads: int, options: dict[str, Any], row_by_row: bool
) -> Images:
    """The engine's kernel without dot products, or with them but no row of the image shared."""
    g = checks.depthwise_conv2d_int8(x, weight, scale, bias, **options)
    images = Images(g.shape, threads, np.dtype(options.get("dtype", "uint8")))
    if not row_by_row:
        images.target = without_dot_products(images.target)
    zero_point = options.get("zero_point", 0)
    end = _ending(images.target, options)
    packed = depthwise.pack(images.target, weight, scale, bias, zero_point, g.stride, g.dilation, end)
    packed = replace(packed, runs=tuple(replace(run, row_by_row=row_by_row) for run in packed.runs))
    for image in depthwise.framed(images, x, g.pads, zero_point):
        images.add(*depthwise.calls(image, images.output(), packed))
    return images
