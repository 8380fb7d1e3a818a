"""The ladder of the mixed convolution: its lower rungs; :data:`~npmobilenet.kernels.ladder.LADDERS` has all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npmobilenet.kernels.blocked import mixed as blocked
from npmobilenet.kernels.checks import Array, Geometry
from npmobilenet.kernels.ladder import depthwise
from npmobilenet.kernels.ladder.rung import rung_of
from npmobilenet.kernels.plain.depthwise import depthwise_conv2d
from npmobilenet.kernels.prepared import Prepared, prepared


def _ends(weights: list[Array]) -> np.ndarray:
    """Where one group of channels ends and the next begins."""
    return np.cumsum([weight.shape[2] for weight in weights])[:-1]


@rung_of("mixed_depthwise_conv2d")
def python(x: Array, weights: list[Array], g: Geometry, out: Array) -> None:
    """Nested Python loops for each group: (N, H, W, C) * list of (K_h, K_w, C_group) -> (N, P, Q, C)."""
    ends = _ends(weights)
    parts = np.split(x, ends, axis=3), weights, g.groups, np.split(out, ends, axis=3)  # views, no copies
    for part, weight, group, result in zip(*parts, strict=True):
        depthwise.loops(part, weight, group.stride, group.start, group.dilation, result)


def _split(x: Array, weights: list[Array], g: Geometry, out: Array, convolve: Callable[..., None]) -> None:
    """Copy each group's channels, convolve them, and copy the results together."""
    parts = [np.ascontiguousarray(part) for part in np.split(x, _ends(weights), axis=3)]
    results = [np.empty(group.shape, np.float32) for group in g.groups]
    for each in zip(parts, weights, g.groups, results, strict=True):
        convolve(*each)
    np.concatenate(results, axis=3, out=out)


@rung_of("mixed_depthwise_conv2d")
def numpy_split(x: Array, weights: list[Array], g: Geometry, out: Array) -> None:
    """Split, NumPy, concatenate: (N, H, W, C) * list of (K_h, K_w, C_group) -> (N, P, Q, C)."""
    _split(x, weights, g, out, depthwise.taps)


@rung_of("mixed_depthwise_conv2d")
def njit_split(x: Array, weights: list[Array], g: Geometry, out: Array) -> None:
    """Split, compiled kernels, concatenate: (N, H, W, C) * list of (K_h, K_w, C_group) -> (N, P, Q, C)."""

    def convolve(part: Array, weight: Array, group: Geometry, result: Array) -> None:
        depthwise_conv2d(part, weight, stride=group.stride, padding=group.pads, dilation=group.dilation, out=result)

    _split(x, weights, g, out, convolve)


@prepared("mixed_depthwise_conv2d")
def simd_pixel(*arguments: Any, **options: Any) -> Prepared:
    """Explicit vectors in one pass, a pixel at a time: (N, H, W, C) * list of (K_h, K_w, C_group) -> (N, P, Q, C)."""
    return blocked.mixed_depthwise_conv2d.prepare(*arguments, **options, tiling=depthwise.PIXEL)
