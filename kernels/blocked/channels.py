"""Channels put elsewhere: those of several tensors one after the other, some of them, between zeros, or as a vector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import elementwise, library, padding
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.layout import Fields
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

# Each thread lays the channels of some pixels one after the other in its scratch, a line of `line` bytes for each, and
# reads them back in blocks. A work item is one row.
GATHER = Fields("sources count out out_row out_plane blocks columns line")
SOURCE = Fields("x x_row x_plane blocks start end")  # of each tensor; where its channels begin and end, in bytes
# What every channel of the result is a copy of: a channel of a tensor, at `x` in the first pixel. A work item is one
# row of one block.
SELECT = Fields("sources channels out out_row out_plane rows columns")
CHANNEL = Fields("x x_row")
FLATTEN = Fields("x x_row x_plane channels rows columns out end")  # `end` in bytes; a work item is one channel
PIXELS = 8  # at a time: as many as let no load wait for a store just before it
NEAR = 128  # pixels of a block: what they take, and what is copied there, fits into the nearest cache


def part(out: Tensor, channels: int, start: int) -> Tensor:
    """Return so many channels of a tensor, from channel ``start`` on, where a block begins."""
    return replace(out, channels=channels, room=1, address=out.address + start // out.lanes * out.plane_bytes)


def starts(channels: Sequence[int]) -> list[int]:
    """Return where each tensor's channels begin when they follow one another."""
    return [0, *accumulate(channels[:-1])]


def aligned(channels: Sequence[int], lanes: int) -> bool:
    """Whether each tensor's channels begin where a block does."""
    return all(start % lanes == 0 for start in starts(channels))


def concatenate(target: Target, xs: Sequence[Tensor], out: Tensor) -> Iterator[Call]:
    """Concatenate, frames and all: nothing is copied that stands where it belongs."""
    channels = [x.channels for x in xs]
    if not aligned(channels, out.lanes):
        yield from gather(target, xs, starts(channels), out)
        return
    copy = elementwise.pack(target, "copy")
    for x, start in zip(xs, starts(channels), strict=True):
        place = part(out, x.channels, start)
        if x.address == place.address:
            continue
        if place.padded:
            yield padding.clear(target, place)
        yield elementwise.call(copy, x, place)


def gather(target: Target, xs: Sequence[Tensor], starts: Sequence[int], out: Tensor) -> Iterator[Call]:
    """Write tensors to where their channels begin, in order, and zeros to all other channels."""
    line = (out.blocks + 1) * target.bytes  # what fills up a tensor's last block may reach beyond
    sources = [
        SOURCE.pack(x=x.inner, blocks=x.blocks, start=4 * start, end=4 * (start + x.channels))
        for x, start in zip(xs, starts, strict=True)
    ]
    if out.padded:
        yield padding.clear(target, out)
    yield GATHER.call(
        library.between(target, "channels").address("gather"), out.height, scratch_bytes=PIXELS * line,
        sources=np.array(sources, np.int64), count=len(xs), out=out.inner, blocks=out.blocks,
        columns=out.width, line=line,
    )  # fmt: skip


def select(target: Target, xs: Sequence[Tensor], indices: Sequence[int], out: Tensor) -> Iterator[Call]:
    """Write some channels of tensors, counted one tensor after the other, in any order; all may have frames."""
    if out.padded:
        yield padding.clear(target, out)
    widths = [x.channels for x in xs]
    places = [(x, channel) for x, width in zip(xs, widths, strict=True) for channel in range(width)]
    runs = list(_runs([places[index] for index in indices]))
    if aligned([count for *_, count in runs], out.lanes) and all(first % out.lanes == 0 for _, first, _ in runs):
        copy, begins = elementwise.pack(target, "copy"), starts([count for *_, count in runs])
        for (x, first, count), begin in zip(runs, begins, strict=True):
            yield elementwise.call(copy, part(x, count, first), part(out, count, begin))
        return
    inner = {id(x): x.inner for x in xs}
    sources = []
    for x, channel in (places[index] for index in indices):
        block, lane = divmod(channel, x.lanes)
        address = inner[id(x)].address + block * x.plane_bytes + lane * x.dtype.itemsize
        sources.append(CHANNEL.pack(x=address, x_row=x.row_bytes))
    rows, columns = out.height, out.width
    if out.pixels <= elementwise.RUN and not any(tensor.padded for tensor in (*xs, out)):
        rows, columns = 1, out.pixels
    yield SELECT.call(
        library.between(target, "channels").address("select"), out.blocks * rows,
        sources=np.array(sources, np.int64), channels=out.channels, out=out.inner, rows=rows, columns=columns,
    )  # fmt: skip


def _runs(places: Sequence[tuple[Tensor, int]]) -> Iterator[tuple[Tensor, int, int]]:
    """Channels of one tensor that follow one another: the tensor, the first of them, and how many."""
    begin = 0
    for end in range(1, len(places) + 1):
        x, first = places[begin]
        if end == len(places) or places[end][0] is not x or places[end][1] != first + end - begin:
            yield x, first, end - begin
            begin = end


def to_vector(target: Target, x: Tensor, out: Tensor) -> Call:
    """Write a vector, the pixels of one channel after those of another; ``x`` may have a frame."""
    return FLATTEN.call(
        library.between(target, "channels").address("flatten"), x.channels,
        x=x.inner, channels=x.channels, rows=x.height, columns=x.width,
        out=out, end=out.blocks * target.bytes,
    )  # fmt: skip


# Single operations --------------------------------------------------------------------------------------------------


@prepared("concat")
def concat(xs: Sequence[np.ndarray], *, threads: int = 1) -> Images:
    """The channels of several arrays one after the other, in vectors: list of (N, ..., C_i) -> (N, ..., C)."""
    images = Images(checks.concat(xs).shape, threads)
    for inputs in zip(*(images.inputs(x) for x in xs), strict=True):
        images.add(*concatenate(images.target, inputs, images.output()))
    return images


@prepared("channel_select")
def channel_select(xs: Sequence[np.ndarray], *, indices: Sequence[int], threads: int = 1) -> Images:
    """Some channels of several arrays that follow one another, in any order: list of (N, ..., C_i) -> (N, ..., C)."""
    images = Images(checks.channel_select(xs, indices=indices).shape, threads)
    for inputs in zip(*(images.inputs(x) for x in xs), strict=True):
        images.add(*select(images.target, inputs, indices, images.output()))
    return images


@prepared("channel_pad")
def channel_pad(x: np.ndarray, *, before: int = 0, after: int = 0, threads: int = 1) -> Images:
    """Channels of zeros before and after the others, in vectors: (N, ..., C) -> (N, ..., before + C + after)."""
    images = Images(checks.channel_pad(x, before=before, after=after).shape, threads)
    for image in images.inputs(x):
        images.add(*gather(images.target, [image], [before], images.output()))
    return images


@prepared("flatten")
def flatten(x: np.ndarray, *, threads: int = 1) -> Images:
    """The image as a vector, channel after channel as in PyTorch: (N, H, W, C) -> (N, C * H * W)."""
    images = Images(checks.flatten(x).shape, threads)
    for image in images.inputs(x):
        images.add(to_vector(images.target, image, images.output()))
    return images
