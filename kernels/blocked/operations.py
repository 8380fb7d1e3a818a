"""The blocked kernels as single operations: twins of :mod:`npmobilenet.kernels.reference` on NHWC arrays.

Each call packs its operands, runs one row of a table on every image, and unpacks. A network pays for packing
only once: its plan calls the same kernels on tensors that stay blocked. What is said in
:mod:`npmobilenet.kernels.cpu` about arguments, ``out``, threads and NaN holds here too; activations are those
that are clamps (`layout.CLAMPS`) and those of `activation.ZERO_PRESERVING`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from npmobilenet.geometry import PaddingSpec
from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import activation as activations
from npmobilenet.kernels.blocked import depthwise, library, mixed, stem
from npmobilenet.kernels.blocked.layout import (
    CLAMPS,
    COUNTERS,
    Fields,
    aligned,
    k_unit,
    pack_channels,
    pack_grouped,
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
    end, out = _end(activation), checks.output(out, g.shape)
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
            **end, wide=widths.count(tiles(target)[0].blocks), blocks=sum(widths),
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
    end, out = _end(activation), checks.output(out, g.shape)
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
            rows=rows, columns=columns, **end, tap_row=g.dilation[0], tap_column=g.dilation[1] * target.bytes,
        )  # fmt: skip
        result[:] = unpack_tensor(target, blocked, result.shape)
    return out


def mixed_depthwise_conv2d(
    x: np.ndarray,
    weights: Sequence[np.ndarray],
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = "symmetric",
    dilation: Size | list[Size] = 1,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Mixed depthwise convolution in one pass of vectors: (N, H, W, C) * list of (K_h, K_w, C_group) -> (N, P, Q, C).

    An infinity or NaN makes NaN of its neighbours as far as the largest window of its vector's channels reaches.
    """
    g = checks.mixed_depthwise_conv2d(
        x, weights, bias, stride=stride, padding=padding, dilation=dilation, activation=activation
    )
    end, out = _end(activation), checks.output(out, g.shape)
    target, (_, rows, columns, channels) = host(), g.shape
    pads = [group.pads for group in g.groups]
    runs = mixed.runs(target, [checks.float32(w) for w in weights], pads, [group.dilation for group in g.groups])
    packed = [run.packed(target) for run in runs]
    table = mixed.table([
        run.row(library.blocks_function(run.kernel, g.groups[0].stride, target), weight.ctypes.data, target)
        for run, weight in zip(runs, packed, strict=True)
    ])  # fmt: skip
    sums, frame = pack_channels(target, checks.bias(bias, channels)), mixed.frame_pads(pads)
    height, width = (size + sum(p) for size, p in zip(x.shape[1:3], frame, strict=True))
    blocks = -(-channels // target.lanes)
    for image, result in zip(checks.float32(x), out, strict=True):
        blocked = aligned(blocks * target.lanes * rows * columns)
        _run(
            threads, library.common(target).address("mixed"), blocks, depthwise.DEPTHWISE,
            x=pack_tensor(target, image, frame), x_row=width * target.bytes, x_plane=height * width * target.bytes,
            weights=table, bias=sums,
            out=blocked, out_row=columns * target.bytes, out_plane=rows * columns * target.bytes,
            rows=rows, columns=columns, **end, tap_row=0, tap_column=0,
        )  # fmt: skip
        result[:] = unpack_tensor(target, blocked, result.shape)
    return out


def pointwise_conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    groups: int = 1,
    residual: np.ndarray | None = None,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """1x1 convolution in register tiles of explicit vectors: (N, H, W, C_in) -> (N, H, W, C_out).

    With groups, an infinity or NaN may make NaN of its pixel in the group beside its own, too.
    """
    g = checks.pointwise_conv2d(x, weight, bias, groups=groups, residual=residual, activation=activation)
    end, out = _end(activation), checks.output(out, g.shape)
    target, (_, rows, columns, c_out) = host(), g.shape
    weight = checks.float32(weight)
    if groups == 1:
        packed, inputs = pack_pointwise(target, weight), 0
    else:
        packed, reads = pack_grouped(target, np.split(weight, groups, axis=1))
        inputs = np.array([panel.row() for panel in reads], np.int64)
    sums, widths, plane = pack_channels(target, checks.bias(bias, c_out)), panels(target, c_out), rows * columns
    late = activation not in CLAMPS  # the kernel adds a residual before an activation that is a pass of its own
    residuals = [None] * len(out) if residual is None else checks.float32(residual)
    for image, other, result in zip(checks.float32(x), residuals, out, strict=True):
        blocked = aligned(sum(widths) * target.lanes * plane)
        _run(
            threads, library.common(target).address("pointwise"), len(widths), POINTWISE,
            x=pack_tensor(target, image), x_plane=plane * target.bytes, weights=packed, bias=sums,
            residual=0 if other is None or late else pack_tensor(target, other), residual_plane=plane * target.bytes,
            out=blocked, out_plane=plane * target.bytes, offsets=0, pixels=plane,
            k_units=-(-x.shape[3] // k_unit(target)), inputs=inputs,
            wide=widths.count(tiles(target)[0].blocks), **end,
        )  # fmt: skip
        result[:] = unpack_tensor(target, blocked, result.shape)
        if other is not None and late:
            result += other
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
            reciprocal=np.array([1 / pixels], np.float32),
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
    end, out, target = _end(activation), checks.output(out, g.shape), host()
    c_in, c_out = weight.shape
    weights, sums = pack_linear(target, checks.float32(weight), checks.bias(bias, c_out))
    k, width = -(-c_in // UNROLL) * UNROLL, panel_blocks(target) * target.lanes
    for row, result in zip(checks.float32(x), out, strict=True):
        full, outputs = np.pad(row, (0, k - c_in)), aligned(sums.size)
        _run(
            threads, library.common(target).address("linear"), sums.size // width, LINEAR,
            x=full, weights=weights, bias=sums, out=outputs, k=k, **end,
        )  # fmt: skip
        result[:] = outputs[:c_out]
    return out


def _end(activation: str) -> dict[str, int | np.ndarray]:
    """How a kernel ends: with a clamp, or another activation after one that changes nothing."""
    known = (*CLAMPS, *activations.ZERO_PRESERVING)
    if activation not in known:
        raise ValueError(f"activation must be one of {', '.join(known)} in this kernel, got {activation!r}")
    if activation in CLAMPS:
        return {"clamp": np.array(CLAMPS[activation], np.float32), "activate": 0}
    function = library.common(host()).address(activations.function_name(activation))
    return {"clamp": np.array(CLAMPS["none"], np.float32), "activate": function}


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
