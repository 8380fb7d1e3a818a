"""A block as one kernel: expand, depthwise and project, the expanded tensor never in the device's memory.

MobileNetV2, Sandler et al. 2018, arXiv 1801.04381, section 5.1. A block of threads computes a tile of output pixels.
It holds the input pixels that the tile sees in shared memory and goes through the expanded channels in chunks: expands
the pixels, filters them, and adds the chunk's part of the projection to sums in registers. Pixels at the borders of a
tile are expanded again by the neighbouring tile, which pays where the expanded tensor is large and its input thin: in
the first blocks of a network.
"""

# ruff: noqa: ANN001 (in kernels: flat device arrays, and integers)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numba import float32

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.cuda import device, launch
from npmobilenet.kernels.cuda.depthwise import prepare_depthwise_conv2d
from npmobilenet.kernels.cuda.device import cuda
from npmobilenet.kernels.cuda.launch import Call, Launch, divided, stand_in
from npmobilenet.kernels.cuda.pointwise import prepare_pointwise_conv2d
from npmobilenet.kernels.cuda.registers import QUAD, activate, add, fill, mask, multiply, read, slide, write
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.sharing import once

SHARED_BYTES = 48 * 1024  # what every device gives to a block without being asked
VECTOR = 4  # expanded channels of a thread
PIXELS = 2  # pixels that a thread expands at a time


@dataclass(frozen=True)
class Tile:
    """Output rows and columns of a block, expanded channels of a chunk; pixels and threads side by side to project."""

    rows: int = 8
    columns: int = 8
    chunk: int = 16
    pixels: int = 4
    across: int = 16


TILES = (Tile(), Tile(chunk=8))
WORTH = 28 * 28  # output pixels from which on it pays: below, the weights outweigh the tensors


@dataclass(frozen=True)
class _Plan:
    """Where everything lies in shared memory, in floats."""

    tile: Tile
    kernel: Pair
    stride: Pair
    c_in: int
    c_out: int

    @property
    def seen(self) -> Pair:
        """Rows and columns of the input that a tile sees."""
        sizes = zip((self.tile.rows, self.tile.columns), self.stride, self.kernel, strict=True)
        return tuple((size - 1) * stride + kernel for size, stride, kernel in sizes)

    @property
    def x_step(self) -> int:
        """Between the input channels of the pixels seen, which stand transposed."""
        return divided(self.seen[0] * self.seen[1], 4) * 4 + 4

    @property
    def filtered_step(self) -> int:
        """Between the channels of the filtered pixels, likewise."""
        return divided(self.tile.rows * self.tile.columns, 4) * 4 + 4

    @property
    def piece(self) -> int:
        """Neighbouring output channels of a thread."""
        return launch.lanes(self.c_out, most=launch.power_of_two(divided(self.c_out, self.tile.across), 4))

    @property
    def columns(self) -> int:
        """Output channels of a thread."""
        return divided(self.c_out, self.tile.across * self.piece) * self.piece

    def sizes(self) -> list[int]:
        """The input, the expanded pixels, the filtered ones, the weights of expansion and projection."""
        chunk = self.tile.chunk
        return [
            self.c_in * self.x_step,
            (self.seen[0] * self.seen[1] + PIXELS) * chunk,
            chunk * self.filtered_step,
            self.c_in * chunk,
            chunk * self.columns * self.tile.across,
        ]


@once
def _kernel(plan: _Plan, expanded: int, activations: tuple[int, int, int], residual: bool) -> Any:
    tile = plan.tile
    TILE_ROWS, TILE_COLUMNS, CHUNK = tile.rows, tile.columns, tile.chunk
    (KERNEL_H, KERNEL_W), (STRIDE_H, STRIDE_W) = plan.kernel, plan.stride
    C_IN, C_OUT, EXPANDED, RESIDUAL = plan.c_in, plan.c_out, expanded, residual
    EXPAND, FILTER, PROJECT = activations
    SEEN_COLUMNS, SEEN = plan.seen[1], plan.seen[0] * plan.seen[1]
    X_STEP, F_STEP = plan.x_step, plan.filtered_step
    QUADS = divided(sum(plan.sizes()), 4)
    SIZES = plan.sizes()
    E_BEGIN, F_BEGIN, EW_BEGIN, PW_BEGIN = (sum(SIZES[:i]) for i in (1, 2, 3, 4))
    IN = launch.lanes(C_IN)
    X_ACROSS, E_ACROSS = C_IN // IN, CHUNK // VECTOR
    TAPS, PRODUCTS = KERNEL_W * VECTOR, PIXELS * VECTOR
    PIECE, COLUMNS, ROWS, ACROSS = plan.piece, plan.columns, tile.pixels, tile.across
    PIECES, GAP, SUMS = COLUMNS // PIECE, ACROSS * PIECE, ROWS * COLUMNS
    WIDTH, W_ACROSS = ACROSS * COLUMNS, ACROSS * COLUMNS // PIECE
    THREADS = TILE_ROWS * TILE_COLUMNS // ROWS * ACROSS
    V = VECTOR

    def inverted_residual(
        x, expand_weight, expand_bias, weight, bias, project_weight, project_bias, out,
        height, width, out_height, out_width, top, left,
    ):  # fmt: skip
        # Block x: columns of tiles; block y: rows of tiles; block z: images.
        shared = cuda.shared.array(QUADS, QUAD)
        vector = cuda.local.array(V, float32)
        row = cuda.local.array(TAPS, float32)
        taps = cuda.local.array(TAPS, float32)
        inputs = cuda.local.array(IN, float32)
        piece = cuda.local.array(PIECE, float32)
        products = cuda.local.array(PRODUCTS, float32)
        sums = cuda.local.array(SUMS, float32)
        other = cuda.local.array(SUMS, float32)
        thread, n = cuda.threadIdx.x, cuda.blockIdx.z
        p, q = cuda.blockIdx.y * TILE_ROWS, cuda.blockIdx.x * TILE_COLUMNS
        h0, w0 = p * STRIDE_H - top, q * STRIDE_W - left

        # All that is expanded together is set, be there one pixel more than the tile sees.
        for task in range(thread, (SEEN + PIXELS - 1) // PIXELS * PIXELS * X_ACROSS, THREADS):
            pixel, k = task // X_ACROSS, task % X_ACROSS * IN
            h, w = h0 + pixel // SEEN_COLUMNS, w0 + pixel % SEEN_COLUMNS
            read(inputs, x, ((n * height + h) * width + w) * C_IN + k, 1, 0, h, height, 1, 0, w, 0, width, IN)
            write(shared, k * X_STEP + pixel, 1, 0, 0, 1, 1, 0, X_STEP, 0, 0, 1, inputs, IN)

        # The tile's pixels and output channels that this thread projects.
        pixel, channel = thread // ACROSS * ROWS, thread % ACROSS * PIECE
        read(other, project_bias, channel, 1, 0, 0, 1, PIECES, GAP, channel, GAP, C_OUT, PIECE)
        fill(sums, SUMS, other, COLUMNS)
        for begin in range(0, EXPANDED, CHUNK):
            for task in range(thread, C_IN * E_ACROSS, THREADS):
                k, e = task // E_ACROSS, task % E_ACROSS * V
                read(vector, expand_weight, k * EXPANDED + begin + e, 1, 0, 0, 1, 1, 0, begin + e, 0, EXPANDED, V)
                write(shared, EW_BEGIN + k * CHUNK + e, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1, vector, V)
            for task in range(thread, CHUNK * W_ACROSS, THREADS):
                k, c = task // W_ACROSS, task % W_ACROSS * PIECE
                place = (begin + k) * C_OUT + c
                read(piece, project_weight, place, 1, 0, begin + k, EXPANDED, 1, 0, c, 0, C_OUT, PIECE)
                write(shared, PW_BEGIN + k * WIDTH + c, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1, piece, PIECE)
            cuda.syncthreads()

            for task in range(thread, (SEEN + PIXELS - 1) // PIXELS * E_ACROSS, THREADS):
                seen, e = task // E_ACROSS * PIXELS, task % E_ACROSS * V
                read(vector, expand_bias, begin + e, 1, 0, 0, 1, 1, 0, begin + e, 0, EXPANDED, V)
                fill(products, PRODUCTS, vector, V)
                multiply(products, shared, seen, X_STEP, shared, EW_BEGIN + e, CHUNK, 0, C_IN, PIXELS, V, V)
                activate(products, PRODUCTS, EXPAND)
                h, w = h0 + seen // SEEN_COLUMNS, w0 + seen % SEEN_COLUMNS
                mask(products, 0, V, 0 <= h < height and 0 <= w < width)  # the filter's padding is not expanded
                h, w = h0 + (seen + 1) // SEEN_COLUMNS, w0 + (seen + 1) % SEEN_COLUMNS
                mask(products, V, V, 0 <= h < height and 0 <= w < width)
                write(shared, E_BEGIN + seen * CHUNK + e, 1, 0, 0, 1, PIXELS, CHUNK, 1, 0, 0, 1, products, V)
            cuda.syncthreads()

            for task in range(thread, TILE_ROWS * TILE_COLUMNS * E_ACROSS, THREADS):
                position, e = task // E_ACROSS, task % E_ACROSS * V
                read(vector, bias, begin + e, 1, 0, 0, 1, 1, 0, begin + e, 0, EXPANDED, V)
                first = position // TILE_COLUMNS * STRIDE_H * SEEN_COLUMNS + position % TILE_COLUMNS * STRIDE_W
                for i in range(KERNEL_H):
                    place = E_BEGIN + (first + i * SEEN_COLUMNS) * CHUNK + e
                    read(row, shared, place, 1, 0, 0, 1, KERNEL_W, CHUNK, 0, 0, 1, V)
                    place = i * KERNEL_W * EXPANDED + begin + e
                    read(taps, weight, place, 1, 0, 0, 1, KERNEL_W, EXPANDED, begin + e, 0, EXPANDED, V)
                    slide(vector, 0, row, taps, KERNEL_W, 1, 1, 1, V)
                activate(vector, V, FILTER)
                write(shared, F_BEGIN + e * F_STEP + position, 1, 0, 0, 1, 1, 0, F_STEP, 0, 0, 1, vector, V)
            cuda.syncthreads()

            multiply(
                sums, shared, F_BEGIN + pixel, F_STEP, shared, PW_BEGIN + channel, WIDTH, GAP,
                CHUNK, ROWS, COLUMNS, PIECE,
            )  # fmt: skip
            cuda.syncthreads()

        p += pixel // TILE_COLUMNS
        q += pixel % TILE_COLUMNS
        limit = out_width if p < out_height else 0
        place = ((n * out_height + p) * out_width + q) * C_OUT + channel
        activate(sums, SUMS, PROJECT)
        if RESIDUAL:
            read(other, x, place, ROWS, C_OUT, q, limit, PIECES, GAP, channel, GAP, C_OUT, PIECE)
            add(sums, other, SUMS)
        write(out, place, ROWS, C_OUT, q, limit, PIECES, GAP, 1, channel, GAP, C_OUT, sums, PIECE)

    return device.kernel(inverted_residual, 64)


def prepare_inverted_residual(
    x_shape: Sequence[int],
    expanded: int,
    window: Size,
    c_out: int,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    expand_activation: str = "relu6",
    depthwise_activation: str = "relu6",
    project_activation: str = "none",
    residual: bool = False,
    dtype: Any = np.float32,
) -> Launch | None:
    """Return a launcher: (N, H, W, C_in) -> (N, P, Q, C_out), or None where the three kernels are to be used.

    Its arrays are ``x, expand_weight, expand_bias, weight, bias, project_weight, project_bias, out``, the weights
    (C_in, E), (K_h, K_w, E) and (E, C_out) for ``expanded`` channels E. The residual is ``x``.

    Raises
    ------
    ValueError
        If there is a residual and the result has not the shape of ``x``.
    """
    n, height, width, c_in = x_shape
    kernel = checks.pair(window, "window")
    g = checks.depthwise_conv2d(
        stand_in((n, height, width, expanded)), stand_in((*kernel, expanded)), stride=stride, padding=padding
    )
    shape = (*g.shape[:3], c_out)
    if residual and shape != tuple(x_shape):
        raise ValueError(f"a residual must have the shape of the result, {shape}, got {tuple(x_shape)}")
    plans = [_Plan(tile, g.kernel, g.stride, c_in, c_out) for tile in TILES]
    fitting = [plan for plan in plans if 4 * sum(plan.sizes()) <= SHARED_BYTES and plan.columns <= 8]
    if not fitting or expanded % VECTOR or shape[1] * shape[2] < WORTH:
        return None
    plan = fitting[0]
    codes = tuple(checks.code(name) for name in (expand_activation, depthwise_activation, project_activation))
    tile = plan.tile
    return Launch(
        "inverted_residual",
        shape,
        _kernel(plan, expanded, codes, residual),
        (divided(shape[2], tile.columns), divided(shape[1], tile.rows), n),
        (tile.rows * tile.columns // tile.pixels * tile.across, 1, 1),
        (height, width, *shape[1:3], *g.start),
        tuple(range(8)),
        launch.storage(dtype),
    )


def inverted_residual(
    x: np.ndarray,
    expand_weight: np.ndarray,
    expand_bias: np.ndarray | None,
    weight: np.ndarray,
    bias: np.ndarray | None,
    project_weight: np.ndarray,
    project_bias: np.ndarray | None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    residual: bool = False,
    expand_activation: str = "relu6",
    depthwise_activation: str = "relu6",
    project_activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Inverted residual in tiles of pixels, or where that does not pay in three kernels: -> (N, P, Q, C_out)."""
    call = Call(x)
    weights = (expand_weight, expand_bias, weight, bias, project_weight, project_bias)
    window = {"stride": stride, "padding": padding}
    activations = {
        "expand_activation": expand_activation,
        "depthwise_activation": depthwise_activation,
        "project_activation": project_activation,
    }
    checks.inverted_residual(call.see(x), *map(call.see, weights), **window, residual=residual, **activations)
    (_, expanded), c_out = expand_weight.shape, project_weight.shape[1]
    x_shape, x = tuple(x.shape), call.flat(x)
    biases = call.bias(expand_bias, expanded), call.bias(bias, expanded), call.bias(project_bias, c_out)
    one = prepare_inverted_residual(
        x_shape, expanded, weight.shape[:2], c_out, **window, **activations, residual=residual, dtype=call.dtype
    )
    if one:
        return call(one, out, x, expand_weight, biases[0], weight, biases[1], project_weight, biases[2])
    expand = prepare_pointwise_conv2d(x_shape, expand_weight.shape, activation=expand_activation, dtype=call.dtype)
    middle = prepare_depthwise_conv2d(
        expand.shape, weight.shape, **window, activation=depthwise_activation, dtype=call.dtype
    )
    project = prepare_pointwise_conv2d(
        middle.shape, project_weight.shape, activation=project_activation, residual=residual, dtype=call.dtype
    )
    between = [cuda.device_array(prod(each.shape), call.dtype) for each in (expand, middle)]
    expand(0, x, call.flat(expand_weight), call.flat(biases[0]), between[0])
    middle(0, between[0], call.flat(weight), call.flat(biases[1]), between[1])
    return call(project, out, between[1], project_weight, biases[2], extras=(x,) if residual else ())
