"""Mixed depthwise convolution of an 8-bit tensor: runs of channel blocks, each under the window of its group.

How blocks are cut into runs is what `blocked.mixed` has for float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.int8 import depthwise
from npmobilenet.kernels.blocked.int8 import ending as endings
from npmobilenet.kernels.blocked.int8.depthwise import Depthwise, Run
from npmobilenet.kernels.blocked.int8.ending import NOTHING, Ending
from npmobilenet.kernels.blocked.layout import Packed
from npmobilenet.kernels.blocked.mixed import frame_pads, runs
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.geometry import PaddingSpec, Pads, Pair
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.vector.target import Target


@dataclass(frozen=True)
class Mixed(Packed):
    """Weights that are packed when the padding is known: how the windows lie in their frame depends on it."""

    target: Target
    stride: Pair
    dilations: tuple[Pair, ...]
    parts: tuple[np.ndarray, ...]
    """int8 or int16 (K_h, K_w, C_group) each."""
    start: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    zero_point: np.ndarray
    bounded: bool
    ending: Ending
    _fitted: dict[tuple[Pads, ...], Depthwise] = field(default_factory=dict)

    def fitted(self, pads: Sequence[Pads]) -> Depthwise:
        """What they are for an image with such padding, of each part: under TensorFlow's it depends on the size."""
        key = tuple(pads)
        if key not in self._fitted:
            dtype = np.result_type(*self.parts)
            found = runs(self.target, self.parts, key, self.dilations)
            packed = [
                Run.pack(self.target, run.begin, run.offset, run.weight.astype(dtype), run.dilation) for run in found
            ]
            channels = self.start, self.scale, self.bias, self.zero_point, self.bounded, self.ending
            self._fitted[key] = Depthwise(self.target, self.stride, tuple(packed), *channels)
        return self._fitted[key]


def pack(
    target: Target,
    weights: Sequence[np.ndarray],
    scale: np.ndarray,
    bias: np.ndarray,
    zero_point: int | np.ndarray,
    stride: Pair,
    dilations: Sequence[Pair],
    ending: Ending = NOTHING,
) -> Mixed:
    """Pack the int8 or int16 (K_h, K_w, C_group) of each part."""
    channels = depthwise.pack_ends(target, weights, scale, bias, zero_point, ending)
    return Mixed(target, stride, tuple(dilations), tuple(weights), *channels)


@prepared("mixed_depthwise_conv2d_int8")
def mixed_depthwise_conv2d_int8(
    x: np.ndarray,
    weights: Sequence[np.ndarray],
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    zero_point: int | np.ndarray = 0,
    stride: Size = 1,
    padding: PaddingSpec = "symmetric",
    dilation: Size | list[Size] = 1,
    activation: str = "none",
    dtype: str = "uint8",
    out_steps: np.ndarray | None = None,
    out_zero_point: np.ndarray | None = None,
    threads: int = 1,
) -> Images:
    """Mixed convolution of integers, four taps at once: uint8 (N, H, W, C) * list of (K_h, K_w, C_group)."""
    g = checks.mixed_depthwise_conv2d_int8(
        x, weights, scale, bias, zero_point=zero_point, stride=stride, padding=padding, dilation=dilation,
        activation=activation, dtype=dtype, out_steps=out_steps, out_zero_point=out_zero_point,
    )  # fmt: skip
    images, parts = Images(g.shape, threads, np.dtype(dtype)), g.groups
    ending = endings.pack(images.target, activation, out_steps, out_zero_point)
    dilations, pads = [part.dilation for part in parts], [part.pads for part in parts]
    packed = pack(images.target, weights, scale, bias, zero_point, parts[0].stride, dilations, ending)
    for image in depthwise.framed(images, x, frame_pads(pads), zero_point):
        images.add(*depthwise.calls(image, images.output(), packed.fitted(pads)))
    return images
