"""A plan for the blocked CPU kernels: which nodes one call computes, where tensors lie, and how it is run.

A plan becomes a table of kernel calls (`calls`) that one walk runs (`kernels.blocked.walker`).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.blocked.calls import Calls
from npmobilenet.graph import Graph, Node, Shape
from npmobilenet.idle import Idle
from npmobilenet.kernels.blocked import library, linear, mixed, threads
from npmobilenet.kernels.blocked.layout import ARGUMENTS, CLAMPS, COUNTERS, ITEMS, KERNEL, SHARE, Frame, aligned, tiles
from npmobilenet.kernels.geometry import Pads, Pair, resolve_padding
from npmobilenet.plan import arrange

if TYPE_CHECKING:
    from npmobilenet.blocked.program import BlockedProgram

SPLIT_FROM = 96 * 1024  # bytes of weights from which a block is split by channels, not by rows
FUSE_BELOW = 1024 * 1024  # bytes of weights: a block with more gains nothing, and each thread would read them all
PAIR_BYTES = 512 * 1024  # of a panel of expanded channels: a larger one would be read from farther away anyway

DEPTHWISE = ("depthwise_conv2d", "mixed_depthwise_conv2d")

_CLOCK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)  # as a kernel


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
        arrays = (self.image, self.arena, self.table, self.counters, *self.scratch)
        self.bytes = sum(array.nbytes for array in arrays)
        self.counters_address = self.counters.ctypes.data
        self.scratch_addresses = [scratch.ctypes.data for scratch in self.scratch]


class BlockedPlan:
    """The calls for images of one size, and where tensors lie.

    Attributes
    ----------
    memory : int
        Bytes of activations while one image is computed: tensors, the padded image, every thread's scratch.
    """

    def __init__(
        self,
        program: BlockedProgram,
        graph: Graph,
        size: Pair,
        threads: int,
        fused: bool = True,
        split: int | None = None,
    ) -> None:
        self.program, self.graph, self.target, self.threads = program, graph, program.target, threads
        self.fused, self.split = fused, split
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
                for vector, channels in self.squeeze_vectors(group[-1]).items():
                    self.shapes[vector] = (channels,)
                    lifetimes[vector], sizes[vector] = (time, time), self._tensor_values(vector)
            if group[0].operation == "squeeze_excite":
                source = group[0].inputs[0]
                self.home[name], self.frames[name] = self.home.get(source, source), self.frames[source]
            else:
                lifetimes[name] = (time, time)
                sizes[name] = self._tensor_values(name)
            copy = self.padded_copy(group[0])
            if copy:
                self.frames[copy] = Frame(self.shapes[group[0].inputs[0]][1:], self.pads(group[0]))
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
        self.image_pads = self.pads(stem_node)
        self._walk = library.walker()
        workspace = self._new_workspace()
        self._idle = Idle(workspace.bytes)
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
            length = 3 if self.fused and (self._is_block(three) or self._is_pair(three)) else 1
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
        if self.split:
            return self.is_split(expand, project)
        if _weight_bytes(expand, project) >= (FUSE_BELOW if project["groups"] == 1 else SPLIT_FROM):
            return False
        # On several threads a small image is not worth the rows that two strips both expand.
        return self.threads == 1 or self.shapes[middle.name][1] >= 4 * self.threads

    def is_split(self, expand: Node, project: Node) -> bool:
        """Whether a block is computed by chunks of channels rather than strips of rows."""
        if expand.operation == "conv2d" or project["groups"] > 1:  # the groups of a projection cannot be cut
            return False
        return bool(self.split) or _weight_bytes(expand, project) >= SPLIT_FROM

    def _is_pair(self, nodes: tuple[Node, ...]) -> bool:
        """Expansion and depthwise convolution that one call computes, with the means for squeeze-and-excitation."""
        if not self._is_chain(nodes, "squeeze_excite") or nodes[0].operation != "pointwise_conv2d":
            return False
        return tiles(self.target)[0].blocks * self.expanded_bytes(*nodes[:2]) <= PAIR_BYTES

    def _is_chain(self, nodes: tuple[Node, ...], last: str) -> bool:
        """Whether a depthwise convolution stands between the other two, and nothing else reads what they compute."""
        if len(nodes) < 3 or nodes[1].operation not in DEPTHWISE or nodes[2].operation != last:
            return False
        expand, middle, end = nodes
        chained = middle.inputs == (expand.name,) and end.inputs[0] == middle.name
        alone = all(len(self.readers.get(node.name, ())) == 1 for node in (expand, middle))
        square = middle.attributes.get("dilation", (1, 1)) == (1, 1) and middle["stride"][0] == middle["stride"][1]
        plain = not expand.attributes.get("residual")
        return chained and alone and square and plain and middle["stride"][0] <= self.reach(middle)

    def expanded_bytes(self, expand: Node, middle: Node) -> int:
        """Of a channel block of an expanded tensor inside the frame that the depthwise convolution needs."""
        _, (left, right) = self.pads(middle)
        (_, _, width), (_, rows, _) = self.shapes[expand.name], self.shapes[middle.name]
        held = (rows - 1) * middle["stride"][0] + self.reach(middle)
        return held * (left + width + right) * self.target.bytes

    def pads(self, node: Node) -> Pads:
        """The zeros that a convolution needs around its input."""
        return mixed.frame_pads(self.part_pads(node))

    def part_pads(self, node: Node) -> tuple[Pads, ...]:
        size = self.shapes[node.inputs[0]][1:]
        return tuple(
            resolve_padding(node["padding"], size, kernel, node["stride"], dilation)
            for kernel, dilation in node.windows
        )

    def reach(self, node: Node) -> int:
        """The rows of its padded input that a row of a depthwise convolution's output depends on."""
        if node.operation == "depthwise_conv2d":
            return (node["kernel"][0] - 1) * node["dilation"][0] + 1
        return self.program.mixed_table(node, self.part_pads(node))[1]

    def squeeze_vectors(self, node: Node) -> dict[str, int]:
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
            self.pads(node)
            for node in self.readers.get(name, ())
            if node.operation in DEPTHWISE and node.name not in inside
        }
        others = any(node.operation not in DEPTHWISE for node in self.readers.get(name, ()))
        return Frame(shape[1:]) if others or len(pads) != 1 else Frame(shape[1:], pads.pop())

    def padded_copy(self, node: Node) -> str | None:
        """The name of the padded copy that an unfused depthwise call reads, if its input stands without."""
        if node.operation not in DEPTHWISE or self.frames[node.inputs[0]].pads == self.pads(node):
            return None
        return f"{node.name}.padded"

    def blocks(self, name: str) -> int:
        return -(-self.shapes[name][0] // self.target.lanes)

    def plane(self, name: str) -> int:
        """Bytes from one channel block of a tensor to the next."""
        frame = self.frames[name]
        return frame.rows * frame.columns * self.target.bytes

    def _tensor_values(self, name: str) -> int:
        if len(self.shapes[name]) == 1:  # a vector; the classifier fills its last panel
            width = linear.panel_blocks(self.target) * self.target.lanes
            return -(-self.shapes[name][0] // width) * width
        return self.blocks(name) * self.plane(name) // 4

    # The table ---------------------------------------------------------------------------------------------

    def _new_workspace(self) -> Workspace:
        channels, height, width = self.shapes["input"]
        (top, bottom), (left, right) = self.image_pads
        image = aligned(channels * (height + top + bottom) * (width + left + right)).reshape(
            channels, height + top + bottom, width + left + right
        )
        arena = aligned(self.arena_values)
        calls = Calls(self, arena, image)
        of_groups = [list(calls.of(group)) for group in self.groups]
        self.row_counts = [len(rows) for rows in of_groups]
        rows = [row for rows in of_groups for row in rows]
        table = aligned(len(rows) * (ARGUMENTS + max(len(row) for row in rows)), np.int64)
        table = table.reshape(len(rows), -1)
        for target, row in zip(table, rows, strict=True):
            target[: len(row)] = row
        scratch = [aligned(self.scratch_bytes // 4 + 16) for _ in range(self.threads)]
        return Workspace(image, arena, table, scratch, aligned(len(rows) * COUNTERS, np.int64))

    def constant(self, values: np.ndarray) -> int:
        """Keep an array as long as the plan and return its address."""
        self._constants.append(values)
        return values.ctypes.data

    # Running -----------------------------------------------------------------------------------------------

    def run(self, image: np.ndarray) -> np.ndarray:
        """Compute one image, ``(C, H, W)`` to ``(C, P, Q)`` or ``(C,)``.

        May be called from several Python threads at once: each takes a workspace of its own.
        """
        work = self._idle.take() or self._new_workspace()
        (top, _), (left, _) = self.image_pads
        _, height, width = self.shapes["input"]
        work.image[:, top : top + height, left : left + width] = image
        if self.threads == 1:
            work.counters.fill(0)
            self._walk(*work.walk, work.counters_address, work.scratch_addresses[0])
        else:
            counters = aligned(work.counters.size, np.int64)
            self._walk_together(work, (*work.walk, counters.ctypes.data), counters)
        result = self._result(work)
        self._idle.append(work)  # not after an exception: helpers may be at work in it
        return result

    def time_groups(self) -> dict[str, float]:
        """Compute the last image once more and return the seconds of each group, by its last node's name.

        All in one walk, on all threads, as always; but a row before each group asks for the time.
        """
        work = self._idle.take() or self._new_workspace()
        times: list[float] = []
        ask = _CLOCK(lambda *_: times.append(perf_counter()))
        clock = np.zeros((1, work.table.shape[1]), np.int64)
        clock[0, [KERNEL, ITEMS, SHARE]] = ctypes.cast(ask, ctypes.c_void_p).value, 1, 1
        groups = np.split(work.table, np.cumsum(self.row_counts))  # the last one is empty: the time of the end
        table = np.concatenate([part for group in groups for part in (clock, group)])
        counters = aligned(len(table) * COUNTERS, np.int64)
        walk = (table.ctypes.data, table.strides[0], len(table), counters.ctypes.data)
        self._walk_together(work, walk, ask, table, counters)
        self._idle.append(work)
        return dict(zip((group[-1].name for group in self.groups), np.diff(times).tolist(), strict=True))

    def _walk_together(self, work: Workspace, arguments: tuple[int, ...], *keep: object) -> None:
        """Walk a table on all threads; ``keep`` is what it leads to beside the plan and the workspace.

        Helpers keep all of it as long as they may look at it. They may come when all is done, or go on alone when an
        interrupt has ended this call.
        """
        mine, *theirs = ((*arguments, scratch) for scratch in work.scratch_addresses)
        threads.ask(theirs, (self, work, *keep))
        self._walk(*mine)

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
