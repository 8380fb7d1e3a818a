"""The blocked kernels as single operations: twins of :mod:`npmobilenet.kernels.reference` on NHWC arrays.

Each call packs its operands, runs one row of a table on every image, and unpacks. A network pays for packing
only once: its plan calls the same kernels on tensors that stay blocked. What is said in
:mod:`npmobilenet.kernels.cpu` about arguments, ``out``, threads and NaN holds here too; activations are those of
`layout.CLAMPS`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from npmobilenet.geometry import PaddingSpec
from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import depthwise, library, stem
from npmobilenet.kernels.blocked.layout import (
    CLAMPS,
    COUNTERS,
    Fields,
    aligned,
    k_unit,
    pack_channels,
    pack_pointwise,
    pack_stem,
    pack_tensor,
    panels,
    tiles,
    unpack_tensor,
)
from npmobilenet.kernels.blocked.linear import LINEAR, UNROLL, pack_linear, panel_blocks
from npmobilenet.kernels.blocked.pointwise import POINTWISE
from npmobilenet.kernels.blocked.pooling import POOL
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.simd import host


def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    groups: int = 1,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Dense convolution, without groups and dilation: (N, H, W, C_in) * (K_h, K_w, C_in, C_out) -> (N, P, Q, C_out)."""
    g = checks.conv2d(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups, activation=activation
    )
    if groups != 1 or g.dilation != (1, 1):
        raise ValueError(f"groups and dilation must be 1 in this kernel, got {groups} and {g.dilation}")
    clamp, out = _clamp(activation), checks.output(out, g.shape)
    target, (_, rows, columns, c_out) = host(), g.shape
    kernel = library.stem_window(g.kernel, g.stride, target).address(stem.name(g.kernel, g.stride))
    packed = pack_stem(target, checks.float32(weight)), pack_channels(target, checks.bias(bias, c_out))
    widths = panels(target, c_out)
    for image, result in zip(checks.float32(x), out, strict=True):
        planar = np.ascontiguousarray(np.pad(image, (*g.pads, (0, 0))).transpose(2, 0, 1))
        blocked = aligned(sum(widths) * target.lanes * rows * columns)
        _run(
            threads, kernel, rows, stem.STEM,
            x=planar, x_row=planar.strides[1], x_plane=planar.strides[0], channels=len(planar),
            weights=packed[0], bias=packed[1],
            out=blocked, out_row=columns * target.bytes, out_plane=rows * columns * target.bytes, columns=columns,
            clamp=clamp, wide=widths.count(tiles(target)[0].blocks), blocks=sum(widths),
        )  # fmt: skip
        result[:] = unpack_tensor(target, blocked, result.shape)
    return out


def depthwise_conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Depthwise convolution, one vector of channels at a time: (N, H, W, C) * (K_h, K_w, C) -> (N, P, Q, C)."""
    g = checks.depthwise_conv2d(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, activation=activation
    )
    clamp, out = _clamp(activation), checks.output(out, g.shape)
    target, (_, rows, columns, channels) = host(), g.shape
    kernel = library.window(g.kernel, g.stride, target).address(depthwise.window_name(g.kernel, g.stride))
    packed = pack_channels(target, checks.float32(weight)), pack_channels(target, checks.bias(bias, channels))
    height, width = (size + sum(pads) for size, pads in zip(x.shape[1:3], g.pads, strict=True))
    blocks = -(-channels // target.lanes)
    for image, result in zip(checks.float32(x), out, strict=True):
        blocked = aligned(blocks * target.lanes * rows * columns)
        _run(
            threads, kernel, blocks, depthwise.DEPTHWISE,
            x=pack_tensor(target, image, g.pads), x_row=width * target.bytes, x_plane=height * width * target.bytes,
            weights=packed[0], bias=packed[1],
            out=blocked, out_row=columns * target.bytes, out_plane=rows * columns * target.bytes,
            rows=rows, columns=columns, clamp=clamp, tap_row=g.dilation[0], tap_column=g.dilation[1] * target.bytes,
        )  # fmt: skip
        result[:] = unpack_tensor(target, blocked, result.shape)
    return out


def pointwise_conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    residual: np.ndarray | None = None,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """1x1 convolution in register tiles of explicit vectors: (N, H, W, C_in) -> (N, H, W, C_out)."""
    g = checks.pointwise_conv2d(x, weight, bias, residual=residual, activation=activation)
    clamp, out = _clamp(activation), checks.output(out, g.shape)
    target, (_, rows, columns, c_out) = host(), g.shape
    packed = pack_pointwise(target, checks.float32(weight)), pack_channels(target, checks.bias(bias, c_out))
    widths, plane = panels(target, c_out), rows * columns * target.bytes
    residuals = [None] * len(out) if residual is None else checks.float32(residual)
    for image, other, result in zip(checks.float32(x), residuals, out, strict=True):
        blocked = aligned(sum(widths) * target.lanes * rows * columns)
        _run(
            threads, library.common(target).address("pointwise"), len(widths), POINTWISE,
            x=pack_tensor(target, image), x_plane=plane, weights=packed[0], bias=packed[1],
            residual=0 if other is None else pack_tensor(target, other), residual_plane=plane,
            out=blocked, out_plane=plane, offsets=0, pixels=rows * columns, k_units=-(-x.shape[3] // k_unit(target)),
            wide=widths.count(tiles(target)[0].blocks), clamp=clamp,
        )  # fmt: skip
        result[:] = unpack_tensor(target, blocked, result.shape)
    return out


def global_average_pool(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Mean over all pixels, one vector of channels at a time: (N, H, W, C) -> (N, C)."""
    g = checks.global_average_pool(x)
    out, target = checks.output(out, g.shape), host()
    pixels, channels = x.shape[1] * x.shape[2], x.shape[3]
    blocks = -(-channels // target.lanes)
    for image, result in zip(checks.float32(x), out, strict=True):
        means = aligned(blocks * target.lanes)
        _run(
            threads, library.common(target).address("pool"), blocks, POOL,
            x=pack_tensor(target, image), x_plane=pixels * target.bytes, out=means, pixels=pixels,
            scale=np.array([1 / pixels], np.float32),
        )  # fmt: skip
        result[:] = means[:channels]
    return out


def linear(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Fully connected layer, a vector times a matrix for each row of the batch: (N, C_in) -> (N, C_out)."""
    g = checks.linear(x, weight, bias, activation=activation)
    clamp, out, target = _clamp(activation), checks.output(out, g.shape), host()
    c_in, c_out = weight.shape
    weights, sums = pack_linear(target, checks.float32(weight), checks.bias(bias, c_out))
    k, width = -(-c_in // UNROLL) * UNROLL, panel_blocks(target) * target.lanes
    for row, result in zip(checks.float32(x), out, strict=True):
        full, outputs = np.pad(row, (0, k - c_in)), aligned(sums.size)
        _run(
            threads, library.common(target).address("linear"), sums.size // width, LINEAR,
            x=full, weights=weights, bias=sums, out=outputs, k=k, clamp=clamp,
        )  # fmt: skip
        result[:] = outputs[:c_out]
    return out


def _clamp(activation: str) -> np.ndarray:
    if activation not in CLAMPS:
        raise ValueError(f"activation must be one of {', '.join(CLAMPS)} in this kernel, got {activation!r}")
    return np.array(CLAMPS[activation], np.float32)


def _run(threads: int, kernel: int, items: int, fields: Fields, **values: int | np.ndarray) -> None:
    """Run a table of one row; arrays among the arguments stand for their addresses, and live until it is done."""
    addresses = {name: v.ctypes.data if isinstance(v, np.ndarray) else v for name, v in values.items()}
    threads = min(threads, items)
    table = np.array([kernel, items, max(1, items // (4 * threads)), *fields.pack(**addresses)], np.int64)
    counters = aligned(COUNTERS, np.int64)
    arguments = (table.ctypes.data, table.nbytes, 1, counters.ctypes.data, 0)  # these kernels need no scratch
    if threads == 1:
        library.walker()(*arguments)
        return
    with ThreadPoolExecutor(threads) as pool:
        for walked in [pool.submit(library.walker(), *arguments) for _ in range(threads)]:
            walked.result()
