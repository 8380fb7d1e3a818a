"""A block as a single operation on NHWC arrays: one after another, split by channels, in a ring of rows.

Twins of :func:`npmobilenet.kernels.reference.inverted_residual`, prepared and run as those of `operations`; the last
two are the kernels of `inverted_residual`. The projection may end with a clamp only. Where the expanded channels do
not fill whole vectors, an infinity may make NaN of the outputs that see it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import depthwise, library
from npmobilenet.kernels.blocked.inverted_residual import BLOCK, SCRATCH_BYTES, Extent
from npmobilenet.kernels.blocked.layout import (
    CLAMPS,
    Frame,
    aligned,
    k_unit,
    pack_channels,
    pack_pointwise,
    pack_tensor,
    panels,
    tiles,
)
from npmobilenet.kernels.blocked.operations import Walk, end_of
from npmobilenet.kernels.blocked.pointwise import POINTWISE
from npmobilenet.kernels.checks import Array, Geometry, Size
from npmobilenet.kernels.geometry import PaddingSpec
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.simd import host


class _Block:
    """What the three have in common: checked arguments, packed weights, and numbers that follow from them."""

    def __init__(
        self,
        x: Array,
        expand_weight: Array,
        expand_bias: Array | None,
        weight: Array,
        bias: Array | None,
        project_weight: Array,
        project_bias: Array | None,
        *,
        stride: Size = 1,
        padding: PaddingSpec = 0,
        residual: bool = False,
        expand_activation: str = "relu6",
        depthwise_activation: str = "relu6",
        project_activation: str = "none",
        threads: int = 1,
    ) -> None:
        self.geometry: Geometry = checks.inverted_residual(
            x, expand_weight, expand_bias, weight, bias, project_weight, project_bias, stride=stride, padding=padding,
            residual=residual, expand_activation=expand_activation, depthwise_activation=depthwise_activation,
            project_activation=project_activation,
        )  # fmt: skip
        if project_activation not in CLAMPS:
            known = ", ".join(CLAMPS)
            raise ValueError(f"project_activation must be one of {known} in this kernel, got {project_activation!r}")
        self.target, self.threads = host(), threads
        (self.c_in, self.expanded), self.c_out = expand_weight.shape, project_weight.shape[1]
        _, self.height, self.width, _ = x.shape
        _, self.rows, self.columns, _ = self.geometry.shape
        self.blocks = -(-self.expanded // self.target.lanes)
        self.images = checks.float32(x)
        self.residual = residual
        self.ends = [end_of(name) for name in (expand_activation, depthwise_activation, project_activation)]
        self.expand = self._pack(pack_pointwise, expand_weight, expand_bias, self.expanded)
        self.filter = self._pack(pack_channels, weight, bias, self.expanded)
        self.project = self._pack(pack_pointwise, project_weight, project_bias, self.c_out)

    def _pack(self, pack: Any, weight: Array, bias: Array | None, channels: int) -> tuple[Array, Array]:
        return pack(self.target, checks.float32(weight)), pack_channels(self.target, checks.bias(bias, channels))

    def wide(self, channels: int) -> int:
        """Panels of the wide tile."""
        return panels(self.target, channels).count(tiles(self.target)[0].blocks)

    def units(self, channels: int) -> int:
        return -(-channels // k_unit(self.target))

    def plane(self, pixels: int) -> int:
        """Bytes of a channel block of so many pixels."""
        return pixels * self.target.bytes

    def tensor(self, channels: int, pixels: int) -> Array:
        return aligned(-(-channels // self.target.lanes) * self.target.lanes * pixels)


class _Fused(Walk):
    """A block that one kernel computes."""

    def __init__(self, block: _Block, split: bool) -> None:
        g, target = block.geometry, block.target
        (window, _), (stride, across), (top, _), (left, right) = g.kernel, g.stride, *g.pads
        if stride != across or stride > window:
            raise ValueError(
                f"stride must be square and at most {window}, as the window, in this kernel, got {g.stride}"
            )
        extent = Extent(target, block.rows, block.columns, left + block.width + right, stride, window, block.blocks)
        cut = extent.by_channels(block.threads, SCRATCH_BYTES) if split else extent.by_rows(SCRATCH_BYTES)
        super().__init__(
            g.shape,
            block.threads,
            library.common(target).address(f"inverted_residual_{'split' if split else 'ring'}"),
            -(-block.rows // cut.strip),
            BLOCK,
            shares=1,
            scratch_bytes=cut.scratch_bytes,
        )
        self.between = self._threads * cut.scratch_bytes
        offsets = Frame((cut.held, block.width), ((0, 0), (left, right))).offsets(target.bytes)
        ends = {
            f"{prefix}_{name}": value
            for prefix, end in zip(("expand", "depthwise"), block.ends, strict=False)
            for name, value in end.items()
        }
        pixels_in, pixels = block.height * block.width, block.rows * block.columns
        for image in block.images:
            packed = pack_tensor(target, image)
            self.add(
                rows=block.rows, columns=block.columns, height=block.height, width=block.width,
                stride=stride, kernel_height=window, top=top, left=left, right=right,
                blocks=block.blocks, chunk=cut.chunk, strip=cut.strip,
                expand_x=packed, expand_x_row=0, expand_x_plane=block.plane(pixels_in),
                expand_weights=block.expand[0], expand_bias=block.expand[1],
                expand_units=block.units(block.c_in), expand_inputs=0, expand_wide=block.wide(block.expanded),
                offsets=offsets,
                depthwise=library.blocks_function(g.kernel, g.stride, target),
                depthwise_weights=block.filter[0], depthwise_bias=block.filter[1],
                project_weights=block.project[0], project_bias=block.project[1],
                project_units=block.units(block.expanded), project_inputs=0, project_wide=block.wide(block.c_out),
                project_panels=len(panels(target, block.c_out)), project_clamp=block.ends[2]["clamp"],
                unlimited=np.array(CLAMPS["none"], np.float32),
                residual=packed if block.residual else 0, residual_plane=block.plane(pixels_in),
                out=block.tensor(block.c_out, pixels), out_plane=block.plane(pixels), out_offsets=0,
                scratch_plane=cut.expanded, scratch_depthwise=cut.chunk * cut.expanded,
                **ends,
            )  # fmt: skip


class _OneAfterAnother:
    """A block as three calls, with the expanded image and the filtered one in memory."""

    def __init__(self, block: _Block) -> None:
        g, target, threads = block.geometry, block.target, block.threads
        frame = Frame((block.height, block.width), g.pads)
        whole, pixels_in, pixels = frame.rows * frame.columns, block.height * block.width, block.rows * block.columns
        common = library.common(target)
        window = library.window(g.kernel, g.stride, target).address(depthwise.window_name(g.kernel, g.stride))
        shape_in = (len(block.images), block.height, block.width, block.expanded)
        expand = Walk(shape_in, threads, common.address("pointwise"), len(panels(target, block.expanded)), POINTWISE)
        middle = Walk((*g.shape[:3], block.expanded), threads, window, block.blocks, depthwise.DEPTHWISE)
        project = Walk(g.shape, threads, common.address("pointwise"), len(panels(target, block.c_out)), POINTWISE)
        self.walks = expand, middle, project
        self.between = 0
        for image in block.images:
            packed = pack_tensor(target, image)
            expanded, filtered = block.tensor(block.expanded, whole), block.tensor(block.expanded, pixels)
            self.between += expanded.nbytes + filtered.nbytes
            expand.add(
                x=packed, x_plane=block.plane(pixels_in), weights=block.expand[0], bias=block.expand[1],
                residual=0, residual_plane=0,
                out=expanded, out_plane=block.plane(whole), offsets=frame.offsets(target.bytes),
                pixels=pixels_in, k_units=block.units(block.c_in), inputs=0, wide=block.wide(block.expanded),
                **block.ends[0],
            )  # fmt: skip
            middle.add(
                x=expanded, x_row=block.plane(frame.columns), x_plane=block.plane(whole),
                weights=block.filter[0], bias=block.filter[1],
                out=filtered, out_row=block.plane(block.columns), out_plane=block.plane(pixels),
                rows=block.rows, columns=block.columns, tap_row=1, tap_column=target.bytes,
                **block.ends[1],
            )  # fmt: skip
            project.add(
                x=filtered, x_plane=block.plane(pixels), weights=block.project[0], bias=block.project[1],
                residual=packed if block.residual else 0, residual_plane=block.plane(pixels_in),
                out=block.tensor(block.c_out, pixels), out_plane=block.plane(pixels), offsets=0,
                pixels=pixels, k_units=block.units(block.expanded), inputs=0, wide=block.wide(block.c_out),
                **block.ends[2],
            )  # fmt: skip

    def run(self) -> None:
        """Compute all images."""
        for walk in self.walks:
            walk.run()

    def result(self) -> np.ndarray:
        """Return the result of the last run."""
        return self.walks[-1].result()


@prepared("inverted_residual")
def one_after_another(*arguments: Any, **options: Any) -> _OneAfterAnother:
    """Inverted residual as three kernels of explicit vectors: (N, H, W, C_in) -> (N, P, Q, C_out)."""
    return _OneAfterAnother(_Block(*arguments, **options))


@prepared("inverted_residual")
def split(*arguments: Any, **options: Any) -> _Fused:
    """Inverted residual, a chunk of expanded channels after the other: (N, H, W, C_in) -> (N, P, Q, C_out)."""
    return _Fused(_Block(*arguments, **options), split=True)


@prepared("inverted_residual")
def ring(*arguments: Any, **options: Any) -> _Fused:
    """Inverted residual, a strip of rows after the other: (N, H, W, C_in) -> (N, P, Q, C_out)."""
    return _Fused(_Block(*arguments, **options), split=False)
