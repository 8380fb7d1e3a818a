"""Lowering for the blocked CPU kernels: a graph becomes a table of kernel calls that one walk runs.

Like `plan`, a place where graphs and kernels meet. Where a block's expanded tensor would not stay in the
cache, expand, depthwise and project become one call (`kernels.blocked.inverted_residual`).
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np

from npmobilenet import threads
from npmobilenet.geometry import Pads, Pair, resolve_padding
from npmobilenet.graph import WINDOWED, Graph, Node, Shape
from npmobilenet.kernels.blocked import activation, depthwise, library, linear, mixed, stem
from npmobilenet.kernels.blocked.inverted_residual import BLOCK, PAIR
from npmobilenet.kernels.blocked.layout import (
    ARGUMENTS,
    CLAMPS,
    COUNTERS,
    Fields,
    aligned,
    k_unit,
    pack_channels,
    pack_grouped,
    pack_pointwise,
    pack_stem,
    panels,
    tiles,
)
from npmobilenet.kernels.blocked.padding import CLEAR, FRAME, PAD
from npmobilenet.kernels.blocked.pointwise import POINTWISE
from npmobilenet.kernels.blocked.pooling import POOL, SCALE
from npmobilenet.kernels.simd import Target, host
from npmobilenet.passes import folded_parameters, fuse
from npmobilenet.plan import arrange

SCRATCH_BYTES = 256 * 1024  # of a strip or a chunk: with its weights it fits a second-level cache of 512 KiB
SPLIT_FROM = 96 * 1024  # bytes of weights from which a block is split by channels, not by rows
FUSE_BELOW = 1024 * 1024  # bytes of weights: a block with more gains nothing, and each thread would read them all
PAIR_BYTES = 512 * 1024  # of a panel of expanded channels: a larger one would be read from farther away anyway
SHARES = 4  # of each thread's part of a layer: small enough to even out, large enough to keep caches warm


DEPTHWISE = ("depthwise_conv2d", "mixed_depthwise_conv2d")


class UnsupportedGraphError(Exception):
    """The blocked kernels cannot run this graph; the plain ones can."""


class BlockedProgram:
    """A graph lowered for the blocked kernels, for images of any size.

    Parameters
    ----------
    graph : Graph
        As the architecture builds it; fused here.
    weights : mapping of str to float32 array
        By the graph's parameter names, in PyTorch's layout.
    target : Target, optional
        The CPU; this machine's if None.

    Raises
    ------
    UnsupportedGraphError
        If there is an operation that these kernels do not compute.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, np.ndarray], target: Target | None = None) -> None:
        self.graph = fuse(graph)
        self.target = target or host()
        self._check()
        self.panel_inputs: dict[str, np.ndarray] = {}  # of grouped pointwise convolutions
        self.mixed_weights: dict[str, list[np.ndarray]] = {}
        self._mixed: dict[tuple, tuple[np.ndarray, int, list[np.ndarray]]] = {}
        packed = {node.name: self._pack(node, weights) for node in self.graph if node.parameters}
        # One arena in the order of execution, so that weights stream.
        sizes = [array.size for arrays in packed.values() for array in arrays]
        self.weights = aligned(sum(-(-size // 16) * 16 for size in sizes))
        self.addresses: dict[str, tuple[int, ...]] = {}
        start = 0
        for name, arrays in packed.items():
            places = []
            for array in arrays:
                self.weights[start : start + array.size] = array
                places.append(self.weights.ctypes.data + 4 * start)
                start += -(-array.size // 16) * 16
            self.addresses[name] = tuple(places)
        self.clamps = {name: np.array(bounds, np.float32) for name, bounds in CLAMPS.items()}

    def _check(self) -> None:
        if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
            raise UnsupportedGraphError("Numba is switched off")
        readers = Counter(name for node in self.graph for name in node.inputs)
        for number, node in enumerate(self.graph):
            problem = self._problem(node, number, readers)
            if problem:
                raise UnsupportedGraphError(f"{node.name}: {problem}")

    def _problem(self, node: Node, number: int, readers: Mapping[str, int]) -> str | None:
        """What these kernels cannot compute."""
        function = node.attributes.get("activation", "none")
        if node.operation in WINDOWED:
            if function not in (*CLAMPS, *activation.ZERO_PRESERVING):
                return f"a convolution with the activation {function}"
            if function not in CLAMPS and node.attributes.get("residual"):
                return f"the activation {function} before a residual add"
            if node.operation == "conv2d" and (number or (node["kernel"], node["stride"]) != library.STEM_WINDOW):
                return "a dense convolution that is not the stem"
            if node.operation != "conv2d" and node.inputs[0] == "input":
                return f"{node.operation} of the image"
        elif node.operation == "squeeze_excite":
            if readers[node.inputs[0]] != 1:
                return "squeeze-and-excitation of a tensor that is needed unscaled"
        elif node.operation not in ("global_average_pool", "linear"):
            return node.operation
        return None

    def _pack(self, node: Node, weights: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        if node.operation == "squeeze_excite":
            reduce, reduce_bias, expand, expand_bias = (
                weights[f"{node.name}.{name}"].T
                for name in ("reduce.weight", "reduce.bias", "expand.weight", "expand.bias")
            )
            return *linear.pack_linear(self.target, reduce, reduce_bias), *linear.pack_linear(
                self.target, expand, expand_bias
            )
        weight, bias = folded_parameters(node, weights)
        if node.operation == "linear":
            return linear.pack_linear(self.target, weight.T, bias)
        channels = pack_channels(self.target, bias)
        if node.operation == "mixed_depthwise_conv2d":
            self.mixed_weights[node.name] = [part[:, 0].transpose(1, 2, 0).astype(np.float32) for part in weight]
            return (channels,)
        if node.operation == "depthwise_conv2d":
            return pack_channels(self.target, weight[:, 0].transpose(1, 2, 0)), channels
        if node.operation == "pointwise_conv2d":
            matrix = weight[:, :, 0, 0].T
            if node["groups"] == 1:
                return pack_pointwise(self.target, matrix), channels
            packed, inputs = pack_grouped(self.target, np.split(matrix, node["groups"], axis=1))
            self.panel_inputs[node.name] = np.array([panel.row() for panel in inputs], np.int64)
            return packed, channels
        return pack_stem(self.target, weight.transpose(2, 3, 1, 0)), channels

    def mixed_table(self, node: Node, pads: tuple[Pads, ...]) -> tuple[int, int]:
        """Return the address of the runs of a mixed convolution, and the rows that its widest window reaches over.

        ``pads`` are those of each part: under TensorFlow's padding they depend on the size of the image.
        """
        key = (node.name, pads)
        if key not in self._mixed:
            runs = mixed.runs(self.target, self.mixed_weights[node.name], pads, node["dilations"])
            packed = [run.packed(self.target) for run in runs]
            addresses = [library.blocks_function(run.kernel, node["stride"], self.target) for run in runs]
            table = mixed.table([
                run.row(function, weights.ctypes.data, self.target)
                for run, function, weights in zip(runs, addresses, packed, strict=True)
            ])  # fmt: skip
            self._mixed[key] = table, max(run.reach[0] for run in runs), packed
        table, reach, _ = self._mixed[key]
        return table.ctypes.data, reach

    def plan(self, size: Pair, output: str | None = None, threads: int = 1) -> BlockedPlan:
        """Return the plan for images of ``(H, W)`` that computes a block's or node's output, or the logits."""
        return BlockedPlan(self, self.graph if output is None else self.graph.up_to(output), size, threads)


@dataclass(frozen=True)
class Frame:
    """The image of a tensor's channel block in memory: its size and the zeros around it."""

    size: Pair
    pads: Pads = ((0, 0), (0, 0))

    @property
    def rows(self) -> int:
        """Rows with the frame."""
        return self.size[0] + sum(self.pads[0])

    @property
    def columns(self) -> int:
        """Columns with the frame."""
        return self.size[1] + sum(self.pads[1])

    @property
    def padded(self) -> bool:
        """Whether there are zeros around it."""
        return self.pads != ((0, 0), (0, 0))

    def offsets(self, size: int) -> np.ndarray:
        """The distance in bytes of every pixel from the beginning of the plane."""
        rows = np.arange(self.size[0])[:, None] + self.pads[0][0]
        columns = np.arange(self.size[1])[None, :] + self.pads[1][0]
        return ((rows * self.columns + columns) * size).astype(np.int64).ravel()


@dataclass
class Workspace:
    """What one image needs while it is computed."""

    image: np.ndarray
    arena: np.ndarray
    table: np.ndarray
    scratch: list[np.ndarray]
    counters: np.ndarray

    def __post_init__(self) -> None:
        # Asking NumPy for an address takes as long as a small layer.
        self.walk = (self.table.ctypes.data, self.table.strides[0], len(self.table))
        self.counters_address = self.counters.ctypes.data
        self.scratch_addresses = [scratch.ctypes.data for scratch in self.scratch]


class BlockedPlan:
    """The calls for images of one size, and where tensors lie.

    Attributes
    ----------
    memory : int
        Bytes of activations while one image is computed: tensors, the padded image, every thread's scratch.
    """

    def __init__(self, program: BlockedProgram, graph: Graph, size: Pair, threads: int) -> None:
        self.program, self.graph, self.target, self.threads = program, graph, program.target, threads
        self.shapes = graph.shapes(size)
        self.readers: dict[str, list[Node]] = {}
        for node in graph:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.groups = self._group()
        self.frames = {name: self._frame(name) for group in self.groups for name in [group[-1].name]}
        self.home: dict[str, str] = {}  # whose memory a tensor takes that is computed in place
        lifetimes, sizes = {}, {}
        for time, group in enumerate(self.groups):
            name = group[-1].name
            if group[-1].operation == "squeeze_excite":
                for vector, channels in self._squeeze_vectors(group[-1]).items():
                    self.shapes[vector] = (channels,)
                    lifetimes[vector], sizes[vector] = (time, time), self._tensor_values(vector)
            if group[0].operation == "squeeze_excite":
                source = group[0].inputs[0]
                self.home[name], self.frames[name] = self.home.get(source, source), self.frames[source]
            else:
                lifetimes[name] = (time, time)
                sizes[name] = self._tensor_values(name)
            copy = self._padded_copy(group[0])
            if copy:
                self.frames[copy] = Frame(self.shapes[group[0].inputs[0]][1:], self._pads(group[0]))
                self.shapes[copy] = self.shapes[group[0].inputs[0]]
                lifetimes[copy], sizes[copy] = (time, time), self._tensor_values(copy)
            for node in group:
                for source in (self.home.get(name, name) for name in node.inputs):
                    if source in lifetimes:
                        lifetimes[source] = (lifetimes[source][0], time)
        self.offsets, self.arena_values = arrange(lifetimes, sizes)
        self.offsets |= {name: self.offsets[home] for name, home in self.home.items()}
        self.scratch_bytes = 0
        self._constants: list[np.ndarray] = []
        stem_node = graph.nodes[0]
        self.image_pads = self._pads(stem_node)
        self._idle: deque[Workspace] = deque()
        workspace = self._new_workspace()
        self._idle.append(workspace)
        self.memory = workspace.arena.nbytes + workspace.image.nbytes + threads * self.scratch_bytes

    # Grouping ----------------------------------------------------------------------------------------------

    @property
    def output_shape(self) -> Shape:
        """``(C, P, Q)`` or ``(C,)``."""
        return self.shapes[self.groups[-1][-1].name]

    def _group(self) -> list[tuple[Node, ...]]:
        """Nodes that one call computes, in order of execution."""
        groups: list[tuple[Node, ...]] = []
        nodes = list(self.graph)
        at = 0
        while at < len(nodes):
            three = tuple(nodes[at : at + 3])
            length = 3 if self._is_block(three) or self._is_pair(three) else 1
            groups.append(tuple(nodes[at : at + length]))
            at += length
        return groups

    def _is_block(self, nodes: tuple[Node, ...]) -> bool:
        """Expansion, depthwise and projection that one call computes."""
        if not self._is_chain(nodes, "pointwise_conv2d"):
            return False
        expand, middle, project = nodes
        if expand.operation not in ("pointwise_conv2d", "conv2d") or project.attributes.get("activation") not in (
            None,
            *CLAMPS,
        ):
            return False
        if _weight_bytes(expand, project) >= (FUSE_BELOW if project["groups"] == 1 else SPLIT_FROM):
            return False  # groups of the projection cannot be cut into chunks
        # On several threads a small image is not worth the rows that two strips both expand.
        return self.threads == 1 or self.shapes[middle.name][1] >= 4 * self.threads

    def _is_pair(self, nodes: tuple[Node, ...]) -> bool:
        """Expansion and depthwise convolution that one call computes, with the means for squeeze-and-excitation."""
        if not self._is_chain(nodes, "squeeze_excite") or nodes[0].operation != "pointwise_conv2d":
            return False
        return tiles(self.target)[0].blocks * self._expanded_bytes(*nodes[:2]) <= PAIR_BYTES

    def _is_chain(self, nodes: tuple[Node, ...], last: str) -> bool:
        """Whether a depthwise convolution stands between the other two, and nothing else reads what they compute."""
        if len(nodes) < 3 or nodes[1].operation not in DEPTHWISE or nodes[2].operation != last:
            return False
        expand, middle, end = nodes
        chained = middle.inputs == (expand.name,) and end.inputs[0] == middle.name
        alone = all(len(self.readers.get(node.name, ())) == 1 for node in (expand, middle))
        square = middle.attributes.get("dilation", (1, 1)) == (1, 1) and middle["stride"][0] == middle["stride"][1]
        plain = not expand.attributes.get("residual")
        return chained and alone and square and plain and middle["stride"][0] <= self._reach(middle)

    def _expanded_bytes(self, expand: Node, middle: Node) -> int:
        """Of a channel block of an expanded tensor inside the frame that the depthwise convolution needs."""
        _, (left, right) = self._pads(middle)
        (_, _, width), (_, rows, _) = self.shapes[expand.name], self.shapes[middle.name]
        held = (rows - 1) * middle["stride"][0] + self._reach(middle)
        return held * (left + width + right) * self.target.bytes

    def _pads(self, node: Node) -> Pads:
        """The zeros that a convolution needs around its input."""
        return mixed.frame_pads(self._part_pads(node))

    def _part_pads(self, node: Node) -> tuple[Pads, ...]:
        size = self.shapes[node.inputs[0]][1:]
        return tuple(
            resolve_padding(node["padding"], size, kernel, node["stride"], dilation)
            for kernel, dilation in node.windows
        )

    def _reach(self, node: Node) -> int:
        """The rows of its padded input that a row of a depthwise convolution's output depends on."""
        if node.operation == "depthwise_conv2d":
            return (node["kernel"][0] - 1) * node["dilation"][0] + 1
        return self.program.mixed_table(node, self._part_pads(node))[1]

    def _squeeze_vectors(self, node: Node) -> dict[str, int]:
        """What squeeze-and-excitation holds besides its image: names and channels."""
        channels, reduced = node["channels"], node["reduced"]
        return {f"{node.name}.mean": channels, f"{node.name}.reduced": reduced, f"{node.name}.gate": channels}

    def _frame(self, name: str) -> Frame:
        """A tensor that a depthwise call reads has that call's zeros around it."""
        shape = self.shapes[name]
        if len(shape) == 1:
            return Frame((1, 1))
        inside = {node.name for group in self.groups for node in group[1:]}
        pads = {
            self._pads(node)
            for node in self.readers.get(name, ())
            if node.operation in DEPTHWISE and node.name not in inside
        }
        others = any(node.operation not in DEPTHWISE for node in self.readers.get(name, ()))
        return Frame(shape[1:]) if others or len(pads) != 1 else Frame(shape[1:], pads.pop())

    def _padded_copy(self, node: Node) -> str | None:
        """The name of the padded copy that an unfused depthwise call reads, if its input stands without."""
        if node.operation not in DEPTHWISE or self.frames[node.inputs[0]].pads == self._pads(node):
            return None
        return f"{node.name}.padded"

    def _blocks(self, name: str) -> int:
        return -(-self.shapes[name][0] // self.target.lanes)

    def _plane(self, name: str) -> int:
        """Bytes from one channel block of a tensor to the next."""
        frame = self.frames[name]
        return frame.rows * frame.columns * self.target.bytes

    def _tensor_values(self, name: str) -> int:
        if len(self.shapes[name]) == 1:  # a vector; the classifier fills its last panel
            width = linear.panel_blocks(self.target) * self.target.lanes
            return -(-self.shapes[name][0] // width) * width
        return self._blocks(name) * self._plane(name) // 4

    # The table ---------------------------------------------------------------------------------------------

    def _new_workspace(self) -> Workspace:
        channels, height, width = self.shapes["input"]
        (top, bottom), (left, right) = self.image_pads
        image = aligned(channels * (height + top + bottom) * (width + left + right)).reshape(
            channels, height + top + bottom, width + left + right
        )
        arena = aligned(self.arena_values)
        rows = [row for group in self.groups for row in self._calls(group, arena, image)]
        table = aligned(len(rows) * (ARGUMENTS + max(len(row) for row in rows)), np.int64)
        table = table.reshape(len(rows), -1)
        for target, row in zip(table, rows, strict=True):
            target[: len(row)] = row
        scratch = [aligned(self.scratch_bytes // 4 + 16) for _ in range(self.threads)]
        return Workspace(image, arena, table, scratch, aligned(len(rows) * COUNTERS, np.int64))

    def _constant(self, values: np.ndarray) -> int:
        """Keep an array as long as the plan and return its address."""
        self._constants.append(values)
        return values.ctypes.data

    def _calls(self, group: tuple[Node, ...], arena: np.ndarray, image: np.ndarray) -> Iterator[list[int]]:
        """The rows of the table for a group: before its own one that clears the frame of a padded result."""
        at = {name: arena.ctypes.data + 4 * offset for name, offset in self.offsets.items()}
        name = group[-1].name
        if self.frames[name].padded:
            yield self._row("clear", self._blocks(name), CLEAR, **self._out(name, at), **self._frame_numbers(name))
        copy = self._padded_copy(group[0])
        if copy:
            source = group[0].inputs[0]
            yield self._row(
                "pad",
                self._blocks(source),
                PAD,
                x=at[source],
                x_plane=self._plane(source),
                **self._out(copy, at),
                **self._frame_numbers(copy),
            )
        if group[-1].operation == "squeeze_excite":
            (mean, *_) = self._squeeze_vectors(group[-1])
            if len(group) == 3:
                yield self._pair(group, at, image)
            else:
                yield self._mean(group[0].inputs[0], at[group[0].inputs[0]], at[mean])
            yield from self._squeeze_excite(group[-1], at)
            return
        if len(group) == 3:
            yield self._block(group, at, image)
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
        yield make(node, at, image)

    def _out(self, name: str, at: Mapping[str, int]) -> dict[str, int]:
        return {"out": at[name], "out_plane": self._plane(name)}

    def _out_rows(self, name: str, at: Mapping[str, int]) -> dict[str, int]:
        """Of a kernel that writes row by row: it goes on inside the frame."""
        frame, size = self.frames[name], self.target.bytes
        begin = (frame.pads[0][0] * frame.columns + frame.pads[1][0]) * size
        return {"out": at[name] + begin, "out_row": frame.columns * size, "out_plane": self._plane(name)}

    def _frame_numbers(self, name: str) -> dict[str, int]:
        frame = self.frames[name]
        return dict(zip(FRAME.split(), (frame.rows, frame.columns, *frame.pads[0], *frame.pads[1]), strict=True))

    def _row(self, kernel: str | int, items: int, fields: Fields, *, shares: int = SHARES, **values: int) -> list[int]:
        """A row of the table, for a kernel of the common library or one at an address."""
        if isinstance(kernel, str):
            kernel = library.common(self.target).address(kernel)
        return [kernel, items, max(1, items // (self.threads * shares)), *fields.pack(**values)]

    def _end(self, node: Node, prefix: str = "") -> dict[str, int]:
        """How a kernel ends: with a clamp, or another activation after one that changes nothing."""
        function = node.attributes.get("activation", "none")
        clamp = self.program.clamps[function if function in CLAMPS else "none"].ctypes.data
        return {f"{prefix}clamp": clamp, f"{prefix}activate": self._activation(function)}

    def _activation(self, function: str) -> int:
        if function in CLAMPS:
            return 0
        return library.common(self.target).address(activation.function_name(function))

    def _stem(self, node: Node, at: dict[str, int], image: np.ndarray) -> list[int]:
        name = node.name
        weights, bias = self.program.addresses[name]
        widths = panels(self.target, node["channels"])
        return self._row(
            stem.name(*library.STEM_WINDOW),
            self.shapes[name][1],
            stem.STEM,
            x=image.ctypes.data,
            x_row=image.strides[1],
            x_plane=image.strides[0],
            channels=self.shapes["input"][0],
            weights=weights,
            bias=bias,
            **self._out_rows(name, at),
            columns=self.shapes[name][2],
            **self._end(node),
            wide=widths.count(tiles(self.target)[0].blocks),
            blocks=self._blocks(name),
        )

    def _pointwise(self, node: Node, at: dict[str, int], image: np.ndarray) -> list[int]:
        source, name, frame = node.inputs[0], node.name, self.frames[node.name]
        weights, bias = self.program.addresses[name]
        widths = panels(self.target, node["channels"])
        residual = node.inputs[1] if node.attributes.get("residual") else None
        size = self.shapes[source][1:]
        return self._row(
            "pointwise",
            len(widths),
            POINTWISE,
            x=at[source],
            x_plane=self._plane(source),
            weights=weights,
            bias=bias,
            residual=at[residual] if residual else 0,
            residual_plane=self._plane(residual) if residual else 0,
            **self._out(name, at),
            offsets=self._constant(frame.offsets(self.target.bytes)) if frame.padded else 0,
            pixels=size[0] * size[1],
            k_units=-(-self.shapes[source][0] // k_unit(self.target)),
            inputs=self._inputs(node),
            wide=widths.count(tiles(self.target)[0].blocks),
            **self._end(node),
        )

    def _inputs(self, node: Node) -> int:
        """The address of what a grouped pointwise convolution's panels read, or 0."""
        table = self.program.panel_inputs.get(node.name)
        return 0 if table is None else table.ctypes.data

    def _depthwise(self, node: Node, at: dict[str, int], image: np.ndarray) -> list[int]:
        source, name = self._padded_copy(node) or node.inputs[0], node.name
        *weights, bias = self.program.addresses[name]
        if node.operation == "depthwise_conv2d":
            window, dilation = (node["kernel"], node["stride"]), node["dilation"]
            kernel = library.window(*window, self.target).address(depthwise.window_name(*window))
        else:
            kernel, dilation = "mixed", (0, 0)
            weights = [self.program.mixed_table(node, self._part_pads(node))[0]]
        return self._row(
            kernel,
            self._blocks(name),
            depthwise.DEPTHWISE,
            x=at[source],
            x_row=self.frames[source].columns * self.target.bytes,
            x_plane=self._plane(source),
            weights=weights[0],
            bias=bias,
            **self._out_rows(name, at),
            rows=self.shapes[name][1],
            columns=self.shapes[name][2],
            **self._end(node),
            tap_row=dilation[0],
            tap_column=self.target.bytes * dilation[1],
        )

    def _pool(self, node: Node, at: dict[str, int], image: np.ndarray) -> list[int]:
        return self._mean(node.inputs[0], at[node.inputs[0]], at[node.name])

    def _mean(self, source: str, x: int, out: int) -> list[int]:
        pixels = prod(self.shapes[source][1:])
        return self._row(
            "pool",
            self._blocks(source),
            POOL,
            x=x,
            x_plane=self._plane(source),
            out=out,
            pixels=pixels,
            reciprocal=self._reciprocal(pixels),
        )

    def _reciprocal(self, pixels: int) -> int:
        return self._constant(np.array([1 / pixels], np.float32))

    def _linear(self, node: Node, at: dict[str, int], image: np.ndarray) -> list[int]:
        source, end = node.inputs[0], self._end(node)
        return self._product(source, node.name, at, self.program.addresses[node.name], end)

    def _product(
        self, source: str, name: str, at: Mapping[str, int], packed: tuple[int, ...], end: dict[str, int]
    ) -> list[int]:
        """A vector times a matrix."""
        weights, bias = packed
        width = linear.panel_blocks(self.target) * self.target.lanes
        return self._row(
            "linear",
            -(-self.shapes[name][0] // width),
            linear.LINEAR,
            x=at[source],
            weights=weights,
            bias=bias,
            out=at[name],
            k=-(-self.shapes[source][0] // linear.UNROLL) * linear.UNROLL,
            **end,
        )

    def _squeeze_excite(self, node: Node, at: Mapping[str, int]) -> Iterator[list[int]]:
        """Two linear layers on the means, and the product, which takes the place of the image."""
        (mean, reduced, gate), packed = self._squeeze_vectors(node), self.program.addresses[node.name]
        gate_end = {"clamp": self.program.clamps["none"].ctypes.data, "activate": self._activation(node["gate"])}
        yield self._product(mean, reduced, at, packed[:2], self._end(node))
        yield self._product(reduced, gate, at, packed[2:], gate_end)
        yield self._row(
            "scale",
            self._blocks(node.name),
            SCALE,
            x=at[node.name],
            x_plane=self._plane(node.name),
            gate=at[gate],
            pixels=prod(self.shapes[node.name][1:]),
        )

    def _block(self, group: tuple[Node, ...], at: dict[str, int], image: np.ndarray) -> list[int]:
        """A fused block: by strips of rows in a ring, or by chunks of channels (`inverted_residual`)."""
        expand, middle, project = group
        is_stem = expand.operation == "conv2d"
        size = self.target.bytes
        _, (left, right) = self._pads(middle)
        width, (_, rows, columns) = self.shapes[expand.name][2], self.shapes[middle.name]
        blocks = self._blocks(expand.name)
        stride, kernel_height = middle["stride"][0], self._reach(middle)
        split = not is_stem and project["groups"] == 1 and _weight_bytes(expand, project) >= SPLIT_FROM

        def held(strip: int) -> int:
            """Expanded rows."""
            return (strip - 1) * stride + kernel_height if split else 2 * strip * stride

        def scratch(strip: int) -> tuple[int, int]:
            """Bytes of a block's expanded rows and of its filtered ones."""
            return held(strip) * (left + width + right) * size, strip * columns * size

        if split:
            strip = -(-rows // self.threads)
            chunk = min(blocks, self._chunk(sum(scratch(strip))))
        else:
            least = -(-(kernel_height - stride) // stride)  # a strip is at least as high as what it shares
            fitting = [n for n in range(1, rows + 1) if blocks * sum(scratch(n)) <= SCRATCH_BYTES]
            strip = max([1, least, *fitting])
            strip = max(least, -(-rows // (-(-rows // strip))))  # the same number of strips, evenly
            chunk = blocks
        scratch_plane, _ = scratch(strip)
        self.scratch_bytes = max(self.scratch_bytes, chunk * sum(scratch(strip)))
        weights, bias = self.program.addresses[project.name]
        widths = panels(self.target, project["channels"])
        residual = project.inputs[1] if project.attributes.get("residual") else None
        frame = self.frames[project.name]
        return self._row(
            "stem_residual_ring" if is_stem else f"inverted_residual_{'split' if split else 'ring'}",
            -(-rows // strip),
            BLOCK,
            shares=1,
            **self._expand_and_filter(
                expand, middle, at, image, max(held(strip), (strip - 1) * stride + kernel_height)
            ),
            **self._out(project.name, at),
            strip=strip,
            chunk=chunk,
            project_weights=weights,
            project_bias=bias,
            project_units=-(-self.shapes[middle.name][0] // k_unit(self.target)),
            project_inputs=self._inputs(project),
            project_clamp=self._end(project)["clamp"],
            project_wide=widths.count(tiles(self.target)[0].blocks),
            project_panels=len(widths),
            unlimited=self.program.clamps["none"].ctypes.data,
            residual=at[residual] if residual else 0,
            residual_plane=self._plane(residual) if residual else 0,
            out_offsets=self._constant(frame.offsets(size)) if frame.padded else 0,
            scratch_plane=scratch_plane,
            scratch_depthwise=chunk * scratch_plane,
        )

    def _pair(self, group: tuple[Node, ...], at: dict[str, int], image: np.ndarray) -> list[int]:
        """Expansion and depthwise convolution by chunks of channels, with their means (`inverted_residual`)."""
        expand, middle, squeeze = group
        plane = self._expanded_bytes(expand, middle)
        _, (left, right) = self._pads(middle)
        row_bytes = (left + self.shapes[expand.name][2] + right) * self.target.bytes
        chunk = self._chunk(plane)
        self.scratch_bytes = max(self.scratch_bytes, chunk * plane)
        (mean, *_) = self._squeeze_vectors(squeeze)
        return self._row(
            "expand_depthwise_pair",
            -(-self._blocks(expand.name) // chunk),
            PAIR,
            shares=1,
            **self._expand_and_filter(expand, middle, at, image, plane // row_bytes),
            **self._out(squeeze.name, at),
            chunk=chunk,
            scratch_plane=plane,
            mean=at[mean],
            reciprocal=self._reciprocal(prod(self.shapes[middle.name][1:])),
        )

    def _chunk(self, block_bytes: int) -> int:
        """How many channel blocks of so many bytes are computed at a time: whole panels."""
        wide = tiles(self.target)[0].blocks
        return max(wide, SCRATCH_BYTES // block_bytes // wide * wide)

    def _expand_and_filter(
        self, expand: Node, middle: Node, at: Mapping[str, int], image: np.ndarray, held: int
    ) -> dict[str, int]:
        """What the kernels of `inverted_residual` know of expansion and depthwise; ``held`` rows are in the scratch."""
        (top, _), (left, right) = self._pads(middle)
        (_, height, width), (_, rows, columns) = self.shapes[expand.name], self.shapes[middle.name]
        if expand.operation == "conv2d":
            source = {
                "expand_x": image.ctypes.data,
                "expand_x_row": image.strides[1],
                "expand_x_plane": image.strides[0],
            }
            units = self.shapes["input"][0]
        else:
            name = expand.inputs[0]
            source = {"expand_x": at[name], "expand_x_row": 0, "expand_x_plane": self._plane(name)}
            units = -(-self.shapes[name][0] // k_unit(self.target))
        expand_weights, expand_bias = self.program.addresses[expand.name]
        *depthwise_weights, depthwise_bias = self.program.addresses[middle.name]
        if middle.operation == "depthwise_conv2d":
            function = library.blocks_function(middle["kernel"], middle["stride"], self.target)
        else:
            function = library.common(self.target).address("mixed_blocks")
            depthwise_weights = [self.program.mixed_table(middle, self._part_pads(middle))[0]]
        return {
            "rows": rows,
            "columns": columns,
            "height": height,
            "width": width,
            "stride": middle["stride"][0],
            "kernel_height": self._reach(middle),
            "top": top,
            "left": left,
            "right": right,
            "blocks": self._blocks(expand.name),
            **source,
            "expand_weights": expand_weights,
            "expand_bias": expand_bias,
            "expand_units": units,
            "expand_inputs": self._inputs(expand),
            "expand_wide": panels(self.target, expand["channels"]).count(tiles(self.target)[0].blocks),
            **self._end(expand, "expand_"),
            "offsets": self._constant(Frame((held, width), ((0, 0), (left, right))).offsets(self.target.bytes)),
            "depthwise": function,
            "depthwise_weights": depthwise_weights[0],
            "depthwise_bias": depthwise_bias,
            **self._end(middle, "depthwise_"),
        }

    # Running -----------------------------------------------------------------------------------------------

    def run(self, image: np.ndarray) -> np.ndarray:
        """Compute one image, ``(C, H, W)`` to ``(C, P, Q)`` or ``(C,)``.

        May be called from several Python threads at once: each takes a workspace of its own.
        """
        try:
            work = self._idle.pop()
        except IndexError:
            work = self._new_workspace()
        (top, _), (left, _) = self.image_pads
        _, height, width = self.shapes["input"]
        work.image[:, top : top + height, left : left + width] = image
        if self.threads == 1:
            work.counters.fill(0)
            library.walker()(*work.walk, work.counters_address, work.scratch_addresses[0])
        else:
            self._walk_together(work)
        result = self._result(work)
        self._idle.append(work)
        return result

    def _walk_together(self, work: Workspace) -> None:
        # A helper that comes when all is done still looks at the table and the counters: it keeps them.
        counters = aligned(work.counters.size, np.int64)
        arguments = (*work.walk, counters.ctypes.data)
        walk = library.walker()

        def take_part(scratch: int, *keep: object) -> None:
            walk(*arguments, scratch)

        for scratch in work.scratch_addresses[1:]:
            threads.ask(partial(take_part, scratch, counters, work, self), self.threads - 1)
        take_part(work.scratch_addresses[0])

    def _result(self, work: Workspace) -> np.ndarray:
        name = self.groups[-1][-1].name
        shape = self.shapes[name]
        start = self.offsets[name]
        if len(shape) == 1:
            return work.arena[start : start + shape[0]].copy()
        frame = self.frames[name]
        blocked = work.arena[start : start + self._tensor_values(name)]
        blocked = blocked.reshape(-1, frame.rows, frame.columns, self.target.lanes)
        planar = blocked.transpose(0, 3, 1, 2).reshape(-1, frame.rows, frame.columns)
        (top, _), (left, _) = frame.pads
        return planar[: shape[0], top : top + shape[1], left : left + shape[2]].copy()


def _weight_bytes(*nodes: Node) -> int:
    return 4 * sum(node.weight_count for node in nodes)
