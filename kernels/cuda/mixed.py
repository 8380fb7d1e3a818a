"""Mixed depthwise convolutions: groups of channels, each with a kernel size of its own, in one launch.

A block of threads has channels of one group only, and goes to the tile function of that group's window
(:mod:`npmobilenet.kernels.cuda.depthwise`). The groups with the largest windows come first in the grid, so that no
block of many multiply-adds is left for the end.
"""

# ruff: noqa: ANN001 (in kernels: flat device arrays, and integers)

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.cuda import depthwise, device, launch
from npmobilenet.kernels.cuda.device import cuda
from npmobilenet.kernels.cuda.launch import Call, Launch, divided, stand_in
from npmobilenet.kernels.cuda.registers import quotient
from npmobilenet.kernels.geometry import PaddingSpec
from npmobilenet.kernels.sharing import once


def _group(
    compute: Callable, lanes: int, first: int, width: int, begin: int, start: tuple, key: tuple
) -> Callable[..., None]:
    """Return the device function of a block's threads for one group of channels.

    ``first`` is its first channel, ``begin`` the place of its first weight and ``start`` its padding.
    """
    LANES, FIRST, WIDTH, BEGIN, (TOP, LEFT) = lanes, first, width, begin, start

    def run(x, weights, bias, out, block, n, p, q, height, width, channels, out_height, out_width):
        c = (block * cuda.blockDim.x + cuda.threadIdx.x) * LANES
        if c < WIDTH:
            compute(
                x, weights, BEGIN + c, WIDTH, bias, out, n, p, q, FIRST + c,
                height, width, channels, out_height, out_width, TOP, LEFT,
            )  # fmt: skip

    return device.device_function(run, key)


def _either(head: Callable, tail: Callable, blocks: int, key: tuple) -> Callable[..., None]:
    """Return a device function that goes to ``head`` with the first blocks and to ``tail`` with the others."""
    BLOCKS = blocks

    def run(x, weights, bias, out, block, n, p, q, height, width, channels, out_height, out_width):
        if block < BLOCKS:
            head(x, weights, bias, out, block, n, p, q, height, width, channels, out_height, out_width)
        else:
            tail(x, weights, bias, out, block - BLOCKS, n, p, q, height, width, channels, out_height, out_width)

    return device.device_function(run, key)


@once
def _kernel(groups: tuple, stride: tuple, tile: tuple, lanes: int, activation: int) -> Any:
    ROWS, COLUMNS = tile
    run, key = None, (groups, stride, tile, lanes, activation)
    for kernel, dilation, start, first, width, begin, blocks in reversed(groups):
        compute = depthwise.window_tile(kernel, stride, dilation, tile, lanes, activation)
        group = _group(compute, lanes, first, width, begin, start, key)
        run = group if run is None else _either(group, run, blocks, key)

    def mixed(x, weights, bias, out, height, width, channels, out_height, out_width, blocks):
        # Block x: columns of tiles, and blocks of channels, group by group; block y: rows of tiles; block z: images.
        column = quotient(cuda.blockIdx.x, blocks)
        block = cuda.blockIdx.x - column * blocks
        q = (column * cuda.blockDim.y + cuda.threadIdx.y) * COLUMNS
        p = (cuda.blockIdx.y * cuda.blockDim.z + cuda.threadIdx.z) * ROWS
        if q < out_width and p < out_height:
            run(x, weights, bias, out, block, cuda.blockIdx.z, p, q, height, width, channels, out_height, out_width)

    return device.kernel(mixed, max(depthwise.values(group[0], stride, group[1], tile, lanes) for group in groups))


def pack_weights(weights: Sequence[np.ndarray]) -> np.ndarray:
    """Return all weights, list of (K_h, K_w, C_group), flat, one after the other."""
    return np.concatenate([np.ascontiguousarray(weight).reshape(-1) for weight in weights])


def prepare_mixed_depthwise_conv2d(
    x_shape: Sequence[int],
    weight_shapes: Sequence[Sequence[int]],
    *,
    stride: Size = 1,
    padding: PaddingSpec = "symmetric",
    dilation: Size | list[Size] = 1,
    activation: str = "none",
    dtype: Any = np.float32,
) -> Launch:
    """Return a launcher of ``x, weights, bias, out``, the weights as :func:`pack_weights` returns them."""
    g = checks.mixed_depthwise_conv2d(
        stand_in(x_shape),
        [stand_in(shape) for shape in weight_shapes],
        stride=stride,
        padding=padding,
        dilation=dilation,
        activation=activation,
    )
    (_, height, width, channels), (n, p, q, _) = x_shape, g.shape
    widths = [shape[2] for shape in weight_shapes]
    firsts = list(accumulate(widths, initial=0))
    begins = list(accumulate((prod(shape) for shape in weight_shapes), initial=0))
    # One tile for all: that of the largest window. Vectors of channels must not run from one group into the next.
    tiles = [depthwise.tile_of(group.kernel, group.dilation) for group in g.groups]
    rows, columns = min(tile[0] for tile in tiles), max(tile[1] for tile in tiles)
    most = min(launch.CONFIGURATION["lanes"], *(tile[2] for tile in tiles))
    lanes = launch.lanes(*widths, *begins[:-1], most=most)
    block = launch.block_of(max(widths), lanes, divided(q, columns), divided(p, rows))
    groups = sorted(
        (
            (group.kernel, group.dilation, group.start, first, w, begin, divided(w, lanes * block[0]))
            for group, first, w, begin in zip(g.groups, firsts, widths, begins, strict=False)
        ),
        key=lambda group: -group[0][0] * group[0][1],
    )
    blocks = sum(group[-1] for group in groups)
    return Launch(
        "mixed_depthwise",
        g.shape,
        _kernel(tuple(groups), g.groups[0].stride, (rows, columns), lanes, checks.code(activation)),
        (blocks * divided(q, columns * block[1]), divided(p, rows * block[2]), n),
        block,
        (height, width, channels, p, q, blocks),
        (0, 1, 2, 3),
        launch.storage(dtype),
    )


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
    """Mixed depthwise convolution in one launch: (N, H, W, C) * list of (K_h, K_w, C_group) -> (N, P, Q, C)."""
    call = Call(x)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "activation": activation}
    seen = [call.see(weight) for weight in weights] if isinstance(weights, (list, tuple)) else weights
    checks.mixed_depthwise_conv2d(call.see(x), seen, call.see(bias), **geometry)
    shapes = [weight.shape for weight in weights]
    prepared = prepare_mixed_depthwise_conv2d(x.shape, shapes, **geometry, dtype=call.dtype)
    packed = pack_weights([call.on_host(weight) for weight in weights])
    return call(prepared, out, x, packed, call.bias(bias, x.shape[3]))
