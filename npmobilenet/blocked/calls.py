"""The calls of the blocked kernels: what stands in each row of a plan's table.

Where a block's expanded tensor would not stay in the cache, expand, depthwise and project are one call
(`kernels.blocked.inverted_residual`); how high its strips are, and how many channels it takes at a time, is decided
here.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.graph import Node
from npmobilenet.kernels.blocked import activation, depthwise, library, linear, stem
from npmobilenet.kernels.blocked.inverted_residual import BLOCK, PAIR, SCRATCH_BYTES, Extent, chunk_of
from npmobilenet.kernels.blocked.layout import CLAMPS, Fields, Frame, k_unit, panels, tiles
from npmobilenet.kernels.blocked.padding import CLEAR, FRAME, PAD
from npmobilenet.kernels.blocked.pointwise import POINTWISE
from npmobilenet.kernels.blocked.pooling import POOL, SCALE

if TYPE_CHECKING:
    from npmobilenet.blocked.plan import BlockedPlan

SHARES = 4  # of each thread's part of a layer: small enough to even out, large enough to keep caches warm


class Calls:
    """Makes the rows of one table: for tensors in one arena, and one image.

    Parameters
    ----------
    plan : BlockedPlan
        Its ``scratch_bytes`` grow to what the calls need.
    arena : float32 array
    image : float32 array (C, H, W)
        Inside its frame of zeros.
    """

    def __init__(self, plan: BlockedPlan, arena: np.ndarray, image: np.ndarray) -> None:
        self.plan, self.target, self.image = plan, plan.target, image
        self.at = {name: arena.ctypes.data + 4 * offset for name, offset in plan.offsets.items()}

    def of(self, group: tuple[Node, ...]) -> Iterator[list[int]]:
        """The rows for a group: before its own one that clears the frame of a padded result, or makes a padded copy."""
        name = group[-1].name
        if self.plan.frames[name].padded:
            yield self._row("clear", self.plan.blocks(name), CLEAR, **self._out(name), **self._frame_numbers(name))
        copy = self.plan.padded_copy(group[0])
        if copy:
            source = group[0].inputs[0]
            yield self._row(
                "pad",
                self.plan.blocks(source),
                PAD,
                x=self.at[source],
                x_plane=self.plan.plane(source),
                **self._out(copy),
                **self._frame_numbers(copy),
            )
        yield from self._own(group)

    def _own(self, group: tuple[Node, ...]) -> Iterator[list[int]]:
        if group[-1].operation == "squeeze_excite":
            (mean, *_) = self.plan.squeeze_vectors(group[-1])
            if len(group) == 3:
                yield self._pair(group)
            else:
                yield self._mean(group[0].inputs[0], self.at[group[0].inputs[0]], self.at[mean])
            yield from self._squeeze_excite(group[-1])
            return
        if len(group) == 3:
            yield self._block(group)
            return
        (node,) = group
        make = {
            "conv2d": self._stem,
            "pointwise_conv2d": self._pointwise,
            "depthwise_conv2d": self._depthwise,
            "mixed_depthwise_conv2d": self._depthwise,
            "global_average_pool": self._pool,
            "linear": self._linear,
        }[node.operation]
        yield make(node)

    def _out(self, name: str) -> dict[str, int]:
        return {"out": self.at[name], "out_plane": self.plan.plane(name)}

    def _out_rows(self, name: str) -> dict[str, int]:
        """Of a kernel that writes row by row: it goes on inside the frame."""
        frame, size = self.plan.frames[name], self.target.bytes
        begin = (frame.pads[0][0] * frame.columns + frame.pads[1][0]) * size
        return {"out": self.at[name] + begin, "out_row": frame.columns * size, "out_plane": self.plan.plane(name)}

    def _frame_numbers(self, name: str) -> dict[str, int]:
        frame = self.plan.frames[name]
        return dict(zip(FRAME.split(), (frame.rows, frame.columns, *frame.pads[0], *frame.pads[1]), strict=True))

    def _row(self, kernel: str | int, items: int, fields: Fields, *, shares: int = SHARES, **values: int) -> list[int]:
        """A row of the table, for a kernel of the common library or one at an address."""
        if isinstance(kernel, str):
            kernel = library.common(self.target).address(kernel)
        return [kernel, items, max(1, items // (self.plan.threads * shares)), *fields.pack(**values)]

    def _end(self, node: Node, prefix: str = "") -> dict[str, int]:
        """How a kernel ends: with a clamp, or another activation after one that changes nothing."""
        function = node.attributes.get("activation", "none")
        clamp = self.plan.program.clamps[function if function in CLAMPS else "none"].ctypes.data
        return {f"{prefix}clamp": clamp, f"{prefix}activate": self._activation(function)}

    def _activation(self, function: str) -> int:
        if function in CLAMPS:
            return 0
        return library.common(self.target).address(activation.function_name(function))

    def _stem(self, node: Node) -> list[int]:
        name = node.name
        weights, bias = self.plan.program.addresses[name]
        widths = panels(self.target, node["channels"])
        return self._row(
            stem.name(*library.STEM_WINDOW),
            self.plan.shapes[name][1],
            stem.STEM,
            x=self.image.ctypes.data,
            x_row=self.image.strides[1],
            x_plane=self.image.strides[0],
            channels=self.plan.shapes["input"][0],
            weights=weights,
            bias=bias,
            **self._out_rows(name),
            columns=self.plan.shapes[name][2],
            **self._end(node),
            wide=widths.count(tiles(self.target)[0].blocks),
            blocks=self.plan.blocks(name),
        )

    def _pointwise(self, node: Node) -> list[int]:
        source, name, frame = node.inputs[0], node.name, self.plan.frames[node.name]
        weights, bias = self.plan.program.addresses[name]
        widths = panels(self.target, node["channels"])
        residual = node.inputs[1] if node.attributes.get("residual") else None
        size = self.plan.shapes[source][1:]
        return self._row(
            "pointwise",
            len(widths),
            POINTWISE,
            x=self.at[source],
            x_plane=self.plan.plane(source),
            weights=weights,
            bias=bias,
            residual=self.at[residual] if residual else 0,
            residual_plane=self.plan.plane(residual) if residual else 0,
            **self._out(name),
            offsets=self.plan.constant(frame.offsets(self.target.bytes)) if frame.padded else 0,
            pixels=size[0] * size[1],
            k_units=-(-self.plan.shapes[source][0] // k_unit(self.target)),
            inputs=self._inputs(node),
            wide=widths.count(tiles(self.target)[0].blocks),
            **self._end(node),
        )

    def _inputs(self, node: Node) -> int:
        """The address of what a grouped pointwise convolution's panels read, or 0."""
        table = self.plan.program.panel_inputs.get(node.name)
        return 0 if table is None else table.ctypes.data

    def _depthwise(self, node: Node) -> list[int]:
        source, name = self.plan.padded_copy(node) or node.inputs[0], node.name
        *weights, bias = self.plan.program.addresses[name]
        if node.operation == "depthwise_conv2d":
            window, dilation = (node["kernel"], node["stride"]), node["dilation"]
            kernel = library.window(*window, self.target).address(depthwise.window_name(*window))
        else:
            kernel, dilation = "mixed", (0, 0)
            weights = [self.plan.program.mixed_table(node, self.plan.part_pads(node))[0]]
        return self._row(
            kernel,
            self.plan.blocks(name),
            depthwise.DEPTHWISE,
            x=self.at[source],
            x_row=self.plan.frames[source].columns * self.target.bytes,
            x_plane=self.plan.plane(source),
            weights=weights[0],
            bias=bias,
            **self._out_rows(name),
            rows=self.plan.shapes[name][1],
            columns=self.plan.shapes[name][2],
            **self._end(node),
            tap_row=dilation[0],
            tap_column=self.target.bytes * dilation[1],
        )

    def _pool(self, node: Node) -> list[int]:
        return self._mean(node.inputs[0], self.at[node.inputs[0]], self.at[node.name])

    def _mean(self, source: str, x: int, out: int) -> list[int]:
        pixels = prod(self.plan.shapes[source][1:])
        return self._row(
            "pool",
            self.plan.blocks(source),
            POOL,
            x=x,
            x_plane=self.plan.plane(source),
            out=out,
            pixels=pixels,
            reciprocal=self._reciprocal(pixels),
        )

    def _reciprocal(self, pixels: int) -> int:
        return self.plan.constant(np.array([1 / pixels], np.float32))

    def _linear(self, node: Node) -> list[int]:
        source, end = node.inputs[0], self._end(node)
        return self._product(source, node.name, self.plan.program.addresses[node.name], end)

    def _product(self, source: str, name: str, packed: tuple[int, ...], end: dict[str, int]) -> list[int]:
        """A vector times a matrix."""
        weights, bias = packed
        width = linear.panel_blocks(self.target) * self.target.lanes
        return self._row(
            "linear",
            -(-self.plan.shapes[name][0] // width),
            linear.LINEAR,
            x=self.at[source],
            weights=weights,
            bias=bias,
            out=self.at[name],
            k=-(-self.plan.shapes[source][0] // linear.UNROLL) * linear.UNROLL,
            **end,
        )

    def _squeeze_excite(self, node: Node) -> Iterator[list[int]]:
        """Two linear layers on the means, and the product, which takes the place of the image."""
        (mean, reduced, gate), packed = self.plan.squeeze_vectors(node), self.plan.program.addresses[node.name]
        gate_end = {"clamp": self.plan.program.clamps["none"].ctypes.data, "activate": self._activation(node["gate"])}
        yield self._product(mean, reduced, packed[:2], self._end(node))
        yield self._product(reduced, gate, packed[2:], gate_end)
        yield self._row(
            "scale",
            self.plan.blocks(node.name),
            SCALE,
            x=self.at[node.name],
            x_plane=self.plan.plane(node.name),
            gate=self.at[gate],
            pixels=prod(self.plan.shapes[node.name][1:]),
        )

    def _block(self, group: tuple[Node, ...]) -> list[int]:
        """A fused block: by strips of rows in a ring, or by chunks of channels (`inverted_residual`)."""
        expand, middle, project = group
        is_stem = expand.operation == "conv2d"
        _, (left, right) = self.plan.pads(middle)
        width, (_, rows, columns) = self.plan.shapes[expand.name][2], self.plan.shapes[middle.name]
        stride, window = middle["stride"][0], self.plan.reach(middle)
        blocks = self.plan.blocks(expand.name)
        extent = Extent(self.target, rows, columns, left + width + right, stride, window, blocks)
        split = self.plan.is_split(expand, project)
        if split:
            cut = extent.by_channels(self.plan.threads, SCRATCH_BYTES, self.plan.split)
        else:
            cut = extent.by_rows(SCRATCH_BYTES)
        self.plan.scratch_bytes = max(self.plan.scratch_bytes, cut.scratch_bytes)
        weights, bias = self.plan.program.addresses[project.name]
        widths = panels(self.target, project["channels"])
        residual = project.inputs[1] if project.attributes.get("residual") else None
        frame = self.plan.frames[project.name]
        return self._row(
            "stem_residual_ring" if is_stem else f"inverted_residual_{'split' if split else 'ring'}",
            -(-rows // cut.strip),
            BLOCK,
            shares=1,
            **self._expand_and_filter(expand, middle, cut.held),
            **self._out(project.name),
            strip=cut.strip,
            chunk=cut.chunk,
            project_weights=weights,
            project_bias=bias,
            project_units=-(-self.plan.shapes[middle.name][0] // k_unit(self.target)),
            project_inputs=self._inputs(project),
            project_clamp=self._end(project)["clamp"],
            project_wide=widths.count(tiles(self.target)[0].blocks),
            project_panels=len(widths),
            unlimited=self.plan.program.clamps["none"].ctypes.data,
            residual=self.at[residual] if residual else 0,
            residual_plane=self.plan.plane(residual) if residual else 0,
            out_offsets=self.plan.constant(frame.offsets(self.target.bytes)) if frame.padded else 0,
            scratch_plane=cut.expanded,
            scratch_depthwise=cut.chunk * cut.expanded,
        )

    def _pair(self, group: tuple[Node, ...]) -> list[int]:
        """Expansion and depthwise convolution by chunks of channels, with their means (`inverted_residual`)."""
        expand, middle, squeeze = group
        plane = self.plan.expanded_bytes(expand, middle)
        _, (left, right) = self.plan.pads(middle)
        row_bytes = (left + self.plan.shapes[expand.name][2] + right) * self.target.bytes
        chunk = chunk_of(self.target, plane, SCRATCH_BYTES)
        self.plan.scratch_bytes = max(self.plan.scratch_bytes, chunk * plane)
        (mean, *_) = self.plan.squeeze_vectors(squeeze)
        return self._row(
            "expand_depthwise_pair",
            -(-self.plan.blocks(expand.name) // chunk),
            PAIR,
            shares=1,
            **self._expand_and_filter(expand, middle, plane // row_bytes),
            **self._out(squeeze.name),
            chunk=chunk,
            scratch_plane=plane,
            mean=self.at[mean],
            reciprocal=self._reciprocal(prod(self.plan.shapes[middle.name][1:])),
        )

    def _expand_and_filter(self, expand: Node, middle: Node, held: int) -> dict[str, int]:
        """What the kernels of `inverted_residual` know of expansion and depthwise; ``held`` rows are in the scratch."""
        (top, _), (left, right) = self.plan.pads(middle)
        (_, height, width), (_, rows, columns) = self.plan.shapes[expand.name], self.plan.shapes[middle.name]
        if expand.operation == "conv2d":
            source = {
                "expand_x": self.image.ctypes.data,
                "expand_x_row": self.image.strides[1],
                "expand_x_plane": self.image.strides[0],
            }
            units = self.plan.shapes["input"][0]
        else:
            name = expand.inputs[0]
            source = {"expand_x": self.at[name], "expand_x_row": 0, "expand_x_plane": self.plan.plane(name)}
            units = -(-self.plan.shapes[name][0] // k_unit(self.target))
        expand_weights, expand_bias = self.plan.program.addresses[expand.name]
        *depthwise_weights, depthwise_bias = self.plan.program.addresses[middle.name]
        if middle.operation == "depthwise_conv2d":
            function = library.blocks_function(middle["kernel"], middle["stride"], self.target)
        else:
            function = library.common(self.target).address("mixed_blocks")
            depthwise_weights = [self.plan.program.mixed_table(middle, self.plan.part_pads(middle))[0]]
        return {
            "rows": rows,
            "columns": columns,
            "height": height,
            "width": width,
            "stride": middle["stride"][0],
            "kernel_height": self.plan.reach(middle),
            "top": top,
            "left": left,
            "right": right,
            "blocks": self.plan.blocks(expand.name),
            **source,
            "expand_weights": expand_weights,
            "expand_bias": expand_bias,
            "expand_units": units,
            "expand_inputs": self._inputs(expand),
            "expand_wide": panels(self.target, expand["channels"]).count(tiles(self.target)[0].blocks),
            **self._end(expand, "expand_"),
            "offsets": self.plan.constant(Frame((held, width), ((0, 0), (left, right))).offsets(self.target.bytes)),
            "depthwise": function,
            "depthwise_weights": depthwise_weights[0],
            "depthwise_bias": depthwise_bias,
            **self._end(middle, "depthwise_"),
        }
