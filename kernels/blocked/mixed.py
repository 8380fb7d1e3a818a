"""Mixed depthwise convolution in one pass (1907.09595): every channel block under the window of its group.

The channels stay where they are: nothing is split or concatenated. A run of blocks of one group is what
`depthwise` computes with that group's window; a block that lies in two groups or more is computed with the
smallest window that holds those of all of them, with zeros where a channel's own window has no tap. A function
with the signature of a depthwise kernel's hands the blocks out, so that whoever calls one can call the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from npmobilenet.geometry import PaddingSpec, Pads, Pair
from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import activation as activations
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.depthwise import Depthwise, call
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.layout import Fields, Packed, Tiling, pack_channels
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.vector.target import Target

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

    def row(self, function: int, weights: np.ndarray, target: Target) -> list[int]:
        """The numbers of `RUN`, given the address of the function and the packed weights."""
        return RUN.pack(
            begin=self.begin,
            end=self.end,
            function=function,
            weights=weights.ctypes.data - self.begin * self.kernel[0] * self.kernel[1] * target.bytes,
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


@dataclass(frozen=True)
class Mixed(Packed):
    """Weights that are packed when the padding is known: how the windows lie in their frame depends on it."""

    target: Target
    stride: Pair
    dilations: tuple[Pair, ...]
    tiling: Tiling | None
    parts: tuple[np.ndarray, ...]
    """(K_h, K_w, C_group) each."""
    bias: np.ndarray
    _fitted: dict[tuple[Pads, ...], Depthwise] = field(default_factory=dict)

    def fitted(self, pads: Sequence[Pads]) -> Depthwise:
        """What they are for an image with such padding, of each part: under TensorFlow's it depends on the size."""
        key = tuple(pads)
        if key not in self._fitted:
            self._fitted[key] = self._fit(key)
        return self._fitted[key]

    def _fit(self, pads: tuple[Pads, ...]) -> Depthwise:
        found = runs(self.target, self.parts, pads, self.dilations)
        packed = [pack_channels(self.target, run.weight) for run in found]
        rows = [
            run.row(library.blocks_function(run.kernel, self.stride, self.target, self.tiling), weights, self.target)
            for run, weights in zip(found, packed, strict=True)
        ]
        table = np.array([len(rows), *(number for row in rows for number in row)], np.int64)
        reach = max(run.reach[0] for run in found)
        functions = library.common(self.target)
        return Depthwise(self.target, functions, "mixed", self.stride, reach, table, self.bias, keep=packed)


def pack(
    target: Target,
    weights: Sequence[np.ndarray],
    bias: np.ndarray,
    stride: Pair,
    dilations: Sequence[Pair],
    tiling: Tiling | None = None,
) -> Mixed:
    """Pack the (K_h, K_w, C_group) of each part."""
    parts = tuple(np.asarray(weight, np.float32) for weight in weights)
    return Mixed(target, stride, tuple(dilations), tiling, parts, pack_channels(target, bias))


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
) -> Images:
    """Mixed depthwise convolution in one pass of vectors: (N, H, W, C) * list of (K_h, K_w, C_group) -> (N, P, Q, C).

    An infinity or NaN makes NaN of its neighbours as far as the largest window of its vector's channels reaches.
    """
    g = checks.mixed_depthwise_conv2d(
        x, weights, bias, stride=stride, padding=padding, dilation=dilation, activation=activation
    )
    activations.check(activation)
    images, parts = Images(g.shape, threads), g.groups
    dilations, pads = [part.dilation for part in parts], [part.pads for part in parts]
    packed = pack(images.target, weights, checks.bias(bias, g.shape[3]), parts[0].stride, dilations, tiling)
    for image in images.inputs(x, frame_pads(pads)):
        images.add(call(image, images.output(), packed.fitted(pads), activation=activation))
    return images
