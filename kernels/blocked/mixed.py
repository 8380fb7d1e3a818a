"""Mixed depthwise convolution in one pass (1907.09595): every channel block under the window of its group.

The channels stay where they are: nothing is split or concatenated. A run of blocks of one group is what
`depthwise` computes with that group's window; a block that lies in two groups or more is computed with the
smallest window that holds those of all of them, with zeros where a channel's own window has no tap. A function
with the signature of a depthwise kernel's hands the blocks out, so that whoever calls one can call the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from npmobilenet.kernels.blocked.depthwise import whole
from npmobilenet.kernels.blocked.layout import Fields, pack_channels
from npmobilenet.kernels.geometry import Pads, Pair
from npmobilenet.kernels.simd import Code, Integer, Library, Pointer, Target

# A run of blocks: from `begin` up to `end`, the address of its window's "blocks" function, its weights (less those
# that `begin` blocks would have), where its window begins in the frame, in rows and in bytes, and its dilation.
RUN = Fields("begin end function weights row column tap_row tap_column")


@dataclass(frozen=True)
class Run:
    """Blocks ``begin`` up to ``end``, which have one window."""

    begin: int
    end: int
    offset: Pair
    """Where the window begins, counted from where the widest frame does: rows and columns."""
    dilation: Pair
    weight: np.ndarray
    """(K_h, K_w, channels of these blocks)"""

    @property
    def kernel(self) -> Pair:
        """Taps of the window."""
        return self.weight.shape[:2]

    @property
    def reach(self) -> Pair:
        """Rows and columns from the beginning of the widest frame to the window's end."""
        return tuple(
            at + (taps - 1) * step + 1 for at, taps, step in zip(self.offset, self.kernel, self.dilation, strict=True)
        )

    def packed(self, target: Target) -> np.ndarray:
        """The weights as `depthwise` reads them."""
        return pack_channels(target, self.weight)

    def row(self, function: int, weights: int, target: Target) -> list[int]:
        """The numbers of `RUN`, given the addresses of the function and of the packed weights."""
        return RUN.pack(
            begin=self.begin,
            end=self.end,
            function=function,
            weights=weights - self.begin * self.kernel[0] * self.kernel[1] * target.bytes,
            row=self.offset[0],
            column=self.offset[1] * target.bytes,
            tap_row=self.dilation[0],
            tap_column=self.dilation[1] * target.bytes,
        )


def frame_pads(pads: Sequence[Pads]) -> Pads:
    """The frame of zeros that is wide enough for the windows of all groups."""
    return tuple((max(p[axis][0] for p in pads), max(p[axis][1] for p in pads)) for axis in (0, 1))


def runs(target: Target, weights: Sequence[np.ndarray], pads: Sequence[Pads], dilations: Sequence[Pair]) -> list[Run]:
    """Cut the channel blocks of a mixed convolution into runs.

    Parameters
    ----------
    weights : sequence of (K_h, K_w, C_group)
    pads : sequence of ((top, bottom), (left, right))
        Zeros that each group's window needs.
    dilations : sequence of (vertical, horizontal)
    """
    lanes = target.lanes
    ends = np.cumsum([weight.shape[2] for weight in weights])
    starts = ends - [weight.shape[2] for weight in weights]
    frame = frame_pads(pads)
    offsets = [tuple(frame[axis][0] - p[axis][0] for axis in (0, 1)) for p in pads]

    def groups_of(block: int) -> list[int]:
        return [g for g in range(len(weights)) if starts[g] < (block + 1) * lanes and ends[g] > block * lanes]

    found, begin, blocks = [], 0, -(-int(ends[-1]) // lanes)
    while begin < blocks:
        groups = groups_of(begin)
        end = begin + 1
        while end < blocks and groups_of(end) == groups:
            end += 1
        channels = range(begin * lanes, min(end * lanes, int(ends[-1])))
        if len(groups) == 1:
            (g,) = groups
            weight = weights[g][:, :, channels.start - starts[g] : channels.stop - starts[g]]
            found.append(Run(begin, end, offsets[g], dilations[g], weight))
        else:
            found.append(_shared(begin, end, groups, channels, weights, starts, offsets, dilations))
        begin = end
    return found


def _shared(
    begin: int,
    end: int,
    groups: Sequence[int],
    channels: range,
    weights: Sequence[np.ndarray],
    starts: np.ndarray,
    offsets: Sequence[Pair],
    dilations: Sequence[Pair],
) -> Run:
    """A run whose blocks lie in several groups: one undilated window that holds those of all."""
    extents = {
        g: tuple((taps - 1) * step + 1 for taps, step in zip(weights[g].shape[:2], dilations[g], strict=True))
        for g in groups
    }
    corner = tuple(min(offsets[g][axis] for g in groups) for axis in (0, 1))
    size = tuple(max(offsets[g][axis] + extents[g][axis] for g in groups) - corner[axis] for axis in (0, 1))
    window = np.zeros((*size, len(channels)), np.float32)
    for g in groups:
        first = max(starts[g], channels.start)
        last = min(starts[g] + weights[g].shape[2], channels.stop)
        rows, columns = (
            slice(
                offsets[g][axis] - corner[axis], offsets[g][axis] - corner[axis] + extents[g][axis], dilations[g][axis]
            )
            for axis in (0, 1)
        )
        own = weights[g][:, :, first - starts[g] : last - starts[g]]
        window[rows, columns, first - channels.start : last - channels.start] = own
    return Run(begin, end, corner, (1, 1), window)


def table(rows: Sequence[list[int]]) -> np.ndarray:
    """Put runs (`Run.row`) into the array whose address the kernel takes for the weights."""
    return np.array([len(rows), *(number for row in rows for number in row)], np.int64)


def define(library: Library) -> None:
    """Add the kernels."""
    library.add("mixed_blocks", _blocks)
    library.add("mixed", whole("mixed"))


def _blocks(
    code: Code,
    x: Pointer,
    x_row: Integer,
    x_plane: Integer,
    weights: Pointer,
    bias: Pointer,
    out: Pointer,
    out_row: Integer,
    out_plane: Integer,
    rows: Integer,
    columns: Integer,
    clamp: Pointer,
    activate: Pointer,
    tap_row: Integer,
    tap_column: Integer,
    start: Integer,
    ring: Integer,
    first: Integer,
    last: Integer,
) -> None:
    """Blocks ``first`` up to ``last``; ``weights`` is a `table` of runs, which have dilations of their own."""

    def at_run(number: Integer) -> None:
        run = RUN.read(weights + 8 + number * (8 * len(RUN.names)))
        begin, end = run["begin"].maximum(first), run["end"].minimum(last)
        with code.when(begin < end):
            code.call(
                run.at("function"),
                *(x + run["column"], x_row, x_plane, run.at("weights"), bias, out, out_row, out_plane),
                *(rows, columns, clamp, activate, run["tap_row"], run["tap_column"]),
                *(start + run["row"], ring, begin, end),
            )

    code.loop(weights.integer(), at_run)
