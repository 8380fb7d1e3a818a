"""Pointwise (1x1) convolution: a matrix product of pixels and channels, in register tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import activation as activations
from npmobilenet.kernels.blocked import elementwise, library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.layout import (
    Fields,
    Packed,
    Stretch,
    halved_panel,
    k_unit,
    pack_channels,
    pack_panels,
    packed_type,
    panels,
    wide_panels,
)
from npmobilenet.kernels.blocked.tiles import Tile, tiles
from npmobilenet.kernels.call import SHARES, Call
from npmobilenet.kernels.memory import ALIGNMENT
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

# Distances are in bytes: x_plane, out_plane and residual_plane from one channel block to the next. `offsets`,
# where it is not 0, holds each pixel's distance from the beginning of a plane of the output, which is then
# padded. `wide` counts the panels of the wide tile; `halved` is the panel that may end with half a
# vector. `inputs`, where it is not 0, tells for each panel of a grouped convolution which inputs it reads (`INPUTS`).
# From `later` on is what will be read after the call, to be asked for meanwhile: `later_part` bytes by each panel.
# A work item is a panel, or one of `parts` of its pixels, of `part_pixels` each.
POINTWISE = Fields(
    "x x_plane weights bias residual residual_plane out out_plane offsets pixels parts part_pixels k_units inputs "
    "wide halved clamp activate later later_part"
)
# The first channel block that a panel reads, how many times `k_unit` channels, and where its weights begin, in bytes.
INPUTS = Fields("first_block units weights_at")

UNEVEN = 1 / 16  # of a thread's work: so much more is no reason for items of a part of the pixels
PART_TILES = 8  # of an item, where there are enough for several of each thread
NARROW = 1.1  # the weights that panels of one block must save where groups do not fill the wide ones
LATER = 8  # cache lines of what is read later that a trip over `k_unit` channels asks for: half of what memory can give
NOTHING = Stretch()


@dataclass(frozen=True)
class Pointwise(Packed):
    """Packed weights."""

    ARGUMENTS = ("weights", "bias", "k_units", "inputs", "wide", "halved")

    target: Target
    tile: Tile | None
    weights: np.ndarray
    bias: np.ndarray
    inputs: np.ndarray | None
    """Rows of `INPUTS`, of a convolution in groups."""
    k_units: int
    wide: int
    halved: int
    panels: int


def pack(target: Target, weight: np.ndarray, bias: np.ndarray, groups: int = 1, tile: Tile | None = None) -> Pointwise:
    """Pack (C_in / G, C_out) as ``[panel][C_in, filled up to `k_unit`][blocks of the panel][L]``."""
    (c_in, c_out), unit, widest = weight.shape, k_unit(target), tile.blocks if tile else 0
    wide = wide_panels(target, c_out, widest)
    if groups == 1:
        whole = np.pad(weight, ((0, -c_in % unit), (0, 0))) if c_in % unit else weight
        weights, inputs = pack_panels(target, whole, widest), None
    else:
        weights, inputs = pack_grouped(target, weight, groups, widest)
        narrow = pack_grouped(target, weight, groups, 1)
        if narrow[0].size * NARROW < weights.size:
            (weights, inputs), widest, wide = narrow, 1, 0
    return Pointwise(
        target,
        tile,
        weights,
        pack_channels(target, bias),
        inputs,
        -(-c_in * groups // unit),
        wide,
        halved_panel(target, c_out, widest),
        len(panels(target, c_out, widest)),
    )


def pack_grouped(
    target: Target,
    weight: np.ndarray,
    groups: int,
    widest: int = 0,
    order: Callable[[np.ndarray], np.ndarray] = np.ravel,
) -> tuple[np.ndarray, np.ndarray]:
    """Pack (..., C_in / G, C_out) as ``[panel][...][C_in of the panel][blocks of the panel][L]``, and rows of `INPUTS`.

    A panel whose channels lie in several groups reads the inputs of all of them, with zeros for weights between
    a channel and the other groups' inputs. ``order`` lays the weights of a panel out.
    """
    unit, lanes = k_unit(target), target.lanes
    *taps, c_in, c_out = *weight.shape[:-1], weight.shape[-1] // groups  # of a group
    full = np.zeros(
        (*taps, -(-c_in * groups // lanes) * lanes, -(-c_out * groups // lanes) * lanes), packed_type(weight)
    )
    for g in range(groups):
        columns = slice(g * c_out, (g + 1) * c_out)
        full[..., g * c_in : (g + 1) * c_in, columns] = weight[..., columns]
    parts, inputs, start, size = [], [], 0, 0
    for width in panels(target, c_out * groups, widest):
        stop = start + width * lanes
        first_group, last_group = start // c_out, (min(stop, c_out * groups) - 1) // c_out
        first = first_group * c_in // lanes
        units = -(-((last_group + 1) * c_in - first * lanes) // unit)
        parts.append(order(full[..., first * lanes : first * lanes + units * unit, start:stop]))
        inputs.append(INPUTS.pack(first_block=first, units=units, weights_at=size))
        size += parts[-1].nbytes
        start = stop
    return np.concatenate(parts), np.array(inputs, np.int64)


def room(pixels: int, weights: Pointwise) -> int:
    """Bytes that a call over so many pixels can ask for without waiting for them."""
    tile = weights.tile or tiles(weights.target).wide
    return weights.panels * max(1, pixels // tile.pixels) * weights.k_units * LATER * ALIGNMENT


def parts_of(pixels: int, weights: Pointwise, threads: int) -> tuple[int, int]:
    """In how many parts the pixels are shared out, and the pixels of each: whole tiles.

    One, unless the panels alone would leave a thread with more than its share.
    """
    tile = weights.tile or tiles(weights.target).wide
    widths = [tile.blocks] * weights.wide + [1] * (weights.panels - weights.wide)
    bounds = [-(-len(widths) * number // threads) for number in range(threads + 1)]
    most = max(sum(widths[start:stop]) for start, stop in pairwise(bounds))
    every = -(-pixels // tile.pixels)
    if most * threads <= sum(widths) * (1 + UNEVEN) or every < threads:
        return 1, pixels
    part = -(-every // (threads * min(SHARES, max(1, every // (threads * PART_TILES)))))
    return -(-every // part), part * tile.pixels


def call(
    x: Tensor,
    out: Tensor,
    weights: Pointwise,
    *,
    activation: str = "none",
    residual: Tensor | None = None,
    threads: int = 1,
    later: Stretch = NOTHING,
) -> Call:
    """Compute ``out``, which may have a frame; a residual is added after a clamp, before any other activation.

    It is cut for so many ``threads``; ``later`` is what is read after this call, to be asked for meanwhile.
    """
    parts, part_pixels = parts_of(out.pixels, weights, threads)
    return POINTWISE.call(
        library.matrix(weights.target, weights.tile).address("pointwise"), weights.panels * parts,
        x=x, residual=residual, out=out, offsets=out.scattered(), pixels=out.pixels, parts=parts,
        part_pixels=part_pixels, **weights.arguments(), **activations.ends(weights.target, activation),
        **later.shared(weights.panels),
    )  # fmt: skip


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
) -> Images:
    """1x1 convolution in register tiles of explicit vectors: (N, H, W, C_in) -> (N, H, W, C_out).

    With groups, an infinity or NaN may make NaN of its pixel in the group beside its own, too.
    """
    g = checks.pointwise_conv2d(x, weight, bias, groups=groups, residual=residual, activation=activation)
    activations.check(activation)
    images = Images(g.shape, threads)
    packed = pack(images.target, checks.float32(weight), checks.bias(bias, g.shape[3]), groups, tile)
    others = [None] * len(x) if residual is None else images.inputs(residual)
    late = residual is not None and activation not in activations.CLAMPS
    for image, other in zip(images.inputs(x), others, strict=True):
        out = images.output()
        early = None if late else other
        images.add(call(image, out, packed, activation=activation, residual=early, threads=threads))
        if late:
            images.add(elementwise.call(elementwise.pack(images.target, "add"), out, out, other))
    return images
