"""The blocked kernels as single operations: twins of :mod:`npmobilenet.kernels.reference` on NHWC arrays.

Each is prepared, run and unpacked (:mod:`npmobilenet.kernels.prepared`): operands are packed, a table of one row
for each image is walked, the result is brought back to NHWC. A network packs only once: its plan calls the same
kernels on tensors that stay blocked. What is said in :mod:`npmobilenet.kernels.plain` about arguments, ``out``,
threads and NaN holds here too; activations are those that are clamps (`layout.CLAMPS`) and those of
`activation.ZERO_PRESERVING`. A ``tile`` of one channel block, or a ``tiling``, takes the place of the fastest: so
the lower rungs of :mod:`npmobilenet.kernels.ladder` are these very kernels, less what makes them fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import activation as activations
from npmobilenet.kernels.blocked import depthwise, library, mixed, stem
from npmobilenet.kernels.blocked import threads as helpers
from npmobilenet.kernels.blocked.depthwise import Tiling
from npmobilenet.kernels.blocked.layout import (
    CLAMPS,
    COUNTERS,
    Fields,
    Tile,
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
from npmobilenet.kernels.checks import Shape, Size
from npmobilenet.kernels.geometry import PaddingSpec, Pads
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.simd import host

WALKS = 64  # for which counters are taken at once


class Walk:
    """A prepared operation: a table with a row for each image, and the arrays that its rows point to.

    Parameters
    ----------
    shape : tuple of int
        Of the result.
    threads : int
        That walk the table together: the calling one, and helpers that wait for more as those of a model do.
    kernel : int
        The kernel's address.
    items : int
        Work items of an image.
    fields : Fields
        The kernel's arguments.
    shares : int
        How often a thread takes items: of an image as many at a time as make so many shares of its part.
    scratch_bytes : int
        Memory that the kernel needs for each thread.
    """

    def __init__(
        self,
        shape: Shape,
        threads: int,
        kernel: int,
        items: int,
        fields: Fields,
        shares: int = 4,
        scratch_bytes: int = 0,
    ) -> None:
        self._shape, self._threads, self._fields = shape, min(threads, items), fields
        self._start = [kernel, items, max(1, items // (shares * self._threads))]
        self._rows: list[list[int]] = []
        self._outputs: list[np.ndarray] = []
        self._late: list[tuple[np.ndarray, np.ndarray]] = []
        self._kept: list[object] = []
        self._counters: list[tuple[np.ndarray, int]] = []
        self._scratch = [aligned(scratch_bytes // 4 + 16) for _ in range(self._threads)]
        self._scratch_addresses = [scratch.ctypes.data for scratch in self._scratch]

    def add(self, *, out: np.ndarray, late: np.ndarray | None = None, **values: int | np.ndarray) -> None:
        """Add an image; arrays among the arguments stand for their addresses.

        Parameters
        ----------
        out : array
            Where the kernel writes its result, blocked.
        late : array, optional
            Blocked too; is added to the result afterwards.
        """
        self.keep(values)
        self._outputs.append(out)
        if late is not None:
            self._late.append((out, late))
        addresses = {name: v.ctypes.data if isinstance(v, np.ndarray) else v for name, v in values.items()}
        self._rows.append([*self._start, *self._fields.pack(out=out.ctypes.data, **addresses)])

    def keep(self, arrays: object) -> None:
        """Keep what the kernel finds by an address."""
        self._kept.append(arrays)

    @cached_property
    def _table(self) -> tuple[np.ndarray, int, int, int]:
        """The table, and what a walk is told of it; asking NumPy for an address takes as long as a small layer."""
        table = np.array(self._rows, np.int64)
        return table, table.ctypes.data, table.strides[0], len(table)

    def _new_counters(self) -> tuple[np.ndarray, int]:
        """Zeros for a walk, and their address: a helper that comes late still looks at those of an earlier one."""
        if not self._counters:
            size = len(self._rows) * COUNTERS
            counters = aligned(size * WALKS, np.int64)
            start = counters.ctypes.data
            self._counters = [(counters, start + number * size * counters.itemsize) for number in range(WALKS)]
        return self._counters.pop()

    def run(self) -> None:
        """Compute all images."""
        if not self._rows:
            return
        _, *about = self._table
        counters, address = self._new_counters()
        mine, *theirs = ((*about, address, scratch) for scratch in self._scratch_addresses)
        if theirs:
            helpers.ask(theirs, (self, counters))
        library.walker()(*mine)
        for out, late in self._late:
            out += late

    def result(self) -> np.ndarray:
        """Return the result of the last run."""
        result = np.empty(self._shape, np.float32)
        for blocked, image in zip(self._outputs, result, strict=True):
            shape = image.shape if image.ndim == 3 else (1, 1, image.size)
            image[...] = unpack_tensor(host(), blocked, shape).reshape(image.shape)
        return result


@prepared("conv2d")
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
    threads: int = 1,
    tile: Tile | None = None,
) -> Walk:
    """Dense convolution, without groups and dilation: (N, H, W, C_in) * (K_h, K_w, C_in, C_out) -> (N, P, Q, C_out)."""
    g = checks.conv2d(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups, activation=activation
    )
    if groups != 1 or g.dilation != (1, 1):
        raise ValueError(f"groups and dilation must be 1 in this kernel, got {groups} and {g.dilation}")
    end, target, (_, rows, columns, c_out) = end_of(activation), host(), g.shape
    kernel = library.stem_window(g.kernel, g.stride, target, tile).address(stem.name(g.kernel, g.stride))
    widest = (tile or tiles(target)[0]).blocks
    weights, sums = pack_stem(target, checks.float32(weight), widest), pack_channels(target, checks.bias(bias, c_out))
    widths = panels(target, c_out, widest)
    walk = Walk(g.shape, threads, kernel, rows, stem.STEM)
    for image in checks.float32(x):
        planar = np.ascontiguousarray(np.pad(image, (*g.pads, (0, 0))).transpose(2, 0, 1))
        walk.add(
            x=planar, x_row=planar.strides[1], x_plane=planar.strides[0], channels=len(planar),
            weights=weights, bias=sums,
            out=aligned(sum(widths) * target.lanes * rows * columns),
            out_row=columns * target.bytes, out_plane=rows * columns * target.bytes, columns=columns,
            **end, wide=widths.count(widest), blocks=sum(widths),
        )  # fmt: skip
    return walk


@prepared("depthwise_conv2d")
def depthwise_conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    activation: str = "none",
    threads: int = 1,
    tiling: Tiling | None = None,
) -> Walk:
    """Depthwise convolution, one vector of channels at a time: (N, H, W, C) * (K_h, K_w, C) -> (N, P, Q, C)."""
    g = checks.depthwise_conv2d(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, activation=activation
    )
    end, target = end_of(activation), host()
    kernel = library.window(g.kernel, g.stride, target, tiling).address(depthwise.window_name(g.kernel, g.stride))
    weights = pack_channels(target, checks.float32(weight))
    steps = {"tap_row": g.dilation[0], "tap_column": g.dilation[1] * target.bytes}
    return _slide(x, bias, g.shape, g.pads, threads, kernel, weights=weights, **end, **steps)


@prepared("mixed_depthwise_conv2d")
def mixed_depthwise_conv2d(
    x: np.ndarray,
    weights: Sequence[np.ndarray],
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = "symmetric",
    dilation: Size | list[Size] = 1,
    activation: str = "none",
    threads: int = 1,
    tiling: Tiling | None = None,
) -> Walk:
    """Mixed depthwise convolution in one pass of vectors: (N, H, W, C) * list of (K_h, K_w, C_group) -> (N, P, Q, C).

    An infinity or NaN makes NaN of its neighbours as far as the largest window of its vector's channels reaches.
    """
    g = checks.mixed_depthwise_conv2d(
        x, weights, bias, stride=stride, padding=padding, dilation=dilation, activation=activation
    )
    end, target, pads = end_of(activation), host(), [group.pads for group in g.groups]
    runs = mixed.runs(target, [checks.float32(w) for w in weights], pads, [group.dilation for group in g.groups])
    packed = [run.packed(target) for run in runs]
    table = mixed.table([
        run.row(library.blocks_function(run.kernel, g.groups[0].stride, target, tiling), weight.ctypes.data, target)
        for run, weight in zip(runs, packed, strict=True)
    ])  # fmt: skip
    kernel, frame = library.common(target).address("mixed"), mixed.frame_pads(pads)
    walk = _slide(x, bias, g.shape, frame, threads, kernel, weights=table, **end, tap_row=0, tap_column=0)
    walk.keep(packed)
    return walk


def _slide(
    x: np.ndarray,
    bias: np.ndarray | None,
    shape: Shape,
    frame: Pads,
    threads: int,
    kernel: int,
    **values: int | np.ndarray,
) -> Walk:
    """What the two depthwise operations have in common: a window slides over every channel block in its frame."""
    target, (_, rows, columns, channels) = host(), shape
    sums, blocks = pack_channels(target, checks.bias(bias, channels)), -(-channels // target.lanes)
    height, width = (size + sum(pads) for size, pads in zip(x.shape[1:3], frame, strict=True))
    walk = Walk(shape, threads, kernel, blocks, depthwise.DEPTHWISE)
    for image in checks.float32(x):
        walk.add(
            x=pack_tensor(target, image, frame), x_row=width * target.bytes, x_plane=height * width * target.bytes,
            bias=sums, out=aligned(blocks * target.lanes * rows * columns),
            out_row=columns * target.bytes, out_plane=rows * columns * target.bytes, rows=rows, columns=columns,
            **values,
        )  # fmt: skip
    return walk


@prepared("pointwise_conv2d")
def pointwise_conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    groups: int = 1,
    residual: np.ndarray | None = None,
    activation: str = "none",
    threads: int = 1,
    tile: Tile | None = None,
) -> Walk:
    """1x1 convolution in register tiles of explicit vectors: (N, H, W, C_in) -> (N, H, W, C_out).

    With groups, an infinity or NaN may make NaN of its pixel in the group beside its own, too.
    """
    g = checks.pointwise_conv2d(x, weight, bias, groups=groups, residual=residual, activation=activation)
    end, target, (_, rows, columns, c_out) = end_of(activation), host(), g.shape
    weight, widest = checks.float32(weight), (tile or tiles(target)[0]).blocks
    if groups == 1:
        weights, inputs = pack_pointwise(target, weight, widest), 0
    else:
        weights, reads = pack_grouped(target, np.split(weight, groups, axis=1), widest)
        inputs = np.array([panel.row() for panel in reads], np.int64)
    sums, widths = pack_channels(target, checks.bias(bias, c_out)), panels(target, c_out, widest)
    plane = rows * columns
    late = activation not in CLAMPS  # the kernel adds a residual before an activation that is a pass of its own
    residuals = [None] * len(x) if residual is None else checks.float32(residual)
    walk = Walk(g.shape, threads, library.matrix(target, tile).address("pointwise"), len(widths), POINTWISE)
    for image, other in zip(checks.float32(x), residuals, strict=True):
        other = None if other is None else pack_tensor(target, other)
        walk.add(
            x=pack_tensor(target, image), x_plane=plane * target.bytes, weights=weights, bias=sums,
            residual=0 if other is None or late else other, residual_plane=plane * target.bytes,
            out=aligned(sum(widths) * target.lanes * plane), out_plane=plane * target.bytes, offsets=0, pixels=plane,
            k_units=-(-x.shape[3] // k_unit(target)), inputs=inputs,
            wide=widths.count(widest), **end, late=other if late else None,
        )  # fmt: skip
    return walk


@prepared("global_average_pool")
def global_average_pool(x: np.ndarray, *, threads: int = 1) -> Walk:
    """Mean over all pixels, one vector of channels at a time: (N, H, W, C) -> (N, C)."""
    g, target = checks.global_average_pool(x), host()
    pixels, blocks = x.shape[1] * x.shape[2], -(-x.shape[3] // target.lanes)
    reciprocal = np.array([1 / pixels], np.float32)
    walk = Walk(g.shape, threads, library.common(target).address("pool"), blocks, POOL)
    for image in checks.float32(x):
        walk.add(
            x=pack_tensor(target, image), x_plane=pixels * target.bytes, out=aligned(blocks * target.lanes),
            pixels=pixels, reciprocal=reciprocal,
        )  # fmt: skip
    return walk


@prepared("linear")
def linear(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    activation: str = "none",
    threads: int = 1,
) -> Walk:
    """Fully connected layer, a vector times a matrix for each row of the batch: (N, C_in) -> (N, C_out)."""
    g = checks.linear(x, weight, bias, activation=activation)
    end, target, (c_in, c_out) = end_of(activation), host(), weight.shape
    weights, sums = pack_linear(target, checks.float32(weight), checks.bias(bias, c_out))
    k, width = -(-c_in // UNROLL) * UNROLL, panel_blocks(target) * target.lanes
    walk = Walk(g.shape, threads, library.common(target).address("linear"), sums.size // width, LINEAR)
    for row in checks.float32(x):
        walk.add(x=np.pad(row, (0, k - c_in)), weights=weights, bias=sums, out=aligned(sums.size), k=k, **end)
    return walk


def end_of(activation: str) -> dict[str, int | np.ndarray]:
    """How a kernel ends: with a clamp, or another activation after one that changes nothing."""
    known = (*CLAMPS, *activations.ZERO_PRESERVING)
    if activation not in known:
        raise ValueError(f"activation must be one of {', '.join(known)} in this kernel, got {activation!r}")
    if activation in CLAMPS:
        return {"clamp": np.array(CLAMPS[activation], np.float32), "activate": 0}
    function = library.common(host()).address(activations.function_name(activation))
    return {"clamp": np.array(CLAMPS["none"], np.float32), "activate": function}
