"""Mixed depthwise convolution in one pass (1907.09595): every channel block under the window of its group.

The channels stay where they are: nothing is split or concatenated. A run of blocks of one group is what
`depthwise` computes with that group's window; a block that lies in two groups or more is computed with the
smallest window that holds those of all of them, with zeros where a channel's own window has no tap. A function
with the signature of a depthwise kernel's hands the blocks out, so that whoever calls one can call the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import activation as activations
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.depthwise import Depthwise, call
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.layout import Fields, Packed, pack_channels
from npmobilenet.kernels.blocked.tiles import Tiling
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.geometry import PaddingSpec, Pads, Pair, frame_pads
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


def runs(target: Target, weights: Sequence[np.ndarray], pads: Sequence[Pads], dilations: Sequence[Pair]) -> list[Run]:
    """Cut the channel blocks of a mixed convolution into runs.

    Parameters
    ----------
    weights : sequence of (K_h, K_w, C_group)
    pads : sequence of ((top, bottom), (left, right))
        Zeros that each group's window needs.
    dilations : sequence of (vertical, horizontal)
    """
    frame, axes = frame_pads(pads), (0, 1)
    starts = [tuple(frame[axis][0] - own[axis][0] for axis in axes) for own in pads]
    stops = [
        tuple(start[axis] + (weight.shape[axis] - 1) * step[axis] + 1 for axis in axes)
        for start, weight, step in zip(starts, weights, dilations, strict=True)
    ]
    group_of = np.repeat(np.arange(len(weights)), [weight.shape[2] for weight in weights])  # of each channel
    every = np.zeros((*np.max(stops, 0), len(group_of)), np.float32)  # channels' windows in the widest frame
    for g, weight in enumerate(weights):
        rows, columns = (slice(*about) for about in zip(starts[g], stops[g], dilations[g], strict=True))
        every[rows, columns, group_of == g] = weight
    found, lanes = [], target.lanes
    blocks = [sorted({*group_of[first : first + lanes].tolist()}) for first in range(0, len(group_of), lanes)]
    for groups, members in groupby(range(len(blocks)), blocks.__getitem__):
        begin, end = (members := list(members))[0], members[-1] + 1
        corner = tuple(min(starts[g][axis] for g in groups) for axis in axes)
        stop = tuple(max(stops[g][axis] for g in groups) for axis in axes)
        step = dilations[groups[0]] if len(groups) == 1 else (1, 1)
        rows, columns = (slice(*about) for about in zip(corner, stop, step, strict=True))
        found.append(Run(begin, end, corner, step, every[rows, columns, begin * lanes : end * lanes]))
    return found


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
