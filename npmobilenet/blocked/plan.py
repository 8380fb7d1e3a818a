"""A plan for the blocked CPU kernels: which nodes one call computes, where tensors lie, and how it is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from npmobilenet.blocked import int8
from npmobilenet.blocked.calls import Calls, Group, activation_of, copy_name, is_stem, vector_names
from npmobilenet.blocked.plain_layers import Placed, PlainLayers
from npmobilenet.graph import Graph, Node, Shape
from npmobilenet.idle import Idle
from npmobilenet.kernels.blocked import library, linear
from npmobilenet.kernels.blocked.activation import CLAMPS
from npmobilenet.kernels.blocked.int8.layout import BYTE
from npmobilenet.kernels.blocked.inverted_residual import panel_bytes
from npmobilenet.kernels.blocked.layout import Packed
from npmobilenet.kernels.blocked.mixed import frame_pads
from npmobilenet.kernels.call import Table
from npmobilenet.kernels.geometry import Pads, Pair, resolve_padding
from npmobilenet.kernels.memory import aligned
from npmobilenet.kernels.tensor import FLOAT32, NO_FRAME, Tensor
from npmobilenet.kernels.vector.target import Target
from npmobilenet.plan import Code, Step, arrange

SPLIT_FROM = 96 * 1024  # bytes of weights from which a block is split by channels, not by rows
FUSE_BELOW = 1024 * 1024  # bytes of weights: a block with more gains nothing, and each thread would read them all
INT8_ROWS = 7  # of a strip of a block of 8-bit layers, on several threads
PAIR_BYTES = 512 * 1024  # of a panel of expanded channels: a larger one would be read from farther away anyway

DEPTHWISE = ("depthwise_conv2d", "mixed_depthwise_conv2d", "depthwise_conv2d_int8")


@dataclass
class Workspace:
    """What one image needs while it is computed.

    Attributes
    ----------
    image, arena : float32 array
        The padded image; all other tensors.
    parts : list of Table or PlainLayers
        What is run one after the other.
    lengths : list of list of int
        How many calls of a table each group has; of plain layers each is one.
    source : array
        A view: where an image goes.
    results : list of array
        Views (H, W, C), (blocks, H, W, lanes) or (C,): where its outputs stand.
    """

    image: np.ndarray
    arena: np.ndarray
    parts: list[Table | PlainLayers]
    lengths: list[list[int]]
    source: np.ndarray
    results: list[np.ndarray]

    @property
    def table(self) -> Table:
        """The only table of a network that needs no plain layers."""
        (table,) = self.parts
        return table

    @property
    def bytes(self) -> int:
        """Of all memory."""
        return self.image.nbytes + self.arena.nbytes + sum(part.bytes for part in self.parts)


class BlockedPlan:
    """The calls for images of one size, and where tensors lie.

    Parameters
    ----------
    graph : Graph
        Fused.
    weights : mapping of str to Packed
        By node.
    plain : mapping of str to Step
        The nodes that plain kernels compute.
    codes : mapping of str to Code
        What the results of uint8 stand for, by node.
    target : Target
    size : (H, W)
    threads, fused, split
        As for `program.BlockedProgram.plan`.

    Attributes
    ----------
    groups : list of tuple of Node
        What is computed together, in order.
    tensors : dict of str to Tensor
        By the node that computes each (and the names of `calls`), without address. Of a fused group there are the
        shapes of what never stands in memory, too.
    memory : int
        Bytes of activations while one image is computed: tensors, the padded image, every thread's scratch.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, Packed],
        plain: Mapping[str, Step],
        codes: Mapping[str, Code],
        target: Target,
        size: Pair,
        threads: int,
        fused: bool = True,
        split: int | None = None,
    ) -> None:
        self.graph, self.target, self.threads, self.fused, self.split = graph, target, threads, fused, split
        self.outputs, self.plain = tuple(graph.output_nodes.values()), plain
        self.codes = codes
        self.shapes = graph.shapes(size)
        self.readers: dict[str, list[Node]] = {}
        for node in graph:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.weights = {
            node.name: weights[node.name].fitted(self._part_pads(node)) for node in graph if node.name in weights
        }
        self.tensors = {"input": Tensor(*self.shapes["input"], self._pads(graph.nodes[0]))}  # planar
        self.tensors |= {node.name: self._tensor(node) for node in graph}
        self.groups = self._group()
        self._offsets, self._arena_values = self._place()
        workspace = self._new_workspace()
        self._idle = Idle(workspace.bytes)
        self._idle.append(workspace)
        tables = [part for part in workspace.parts if isinstance(part, Table)]
        arrays = sum(part.bytes for part in workspace.parts if isinstance(part, PlainLayers))
        self.scratch_bytes = sum(table.scratch_bytes for table in tables)
        self.memory = workspace.arena.nbytes + workspace.image.nbytes + arrays + threads * self.scratch_bytes

    @property
    def output_shape(self) -> Shape:
        """``(C, P, Q)`` or ``(C,)`` of the first output."""
        return self.output_shapes[0]

    @property
    def output_shapes(self) -> tuple[Shape, ...]:
        """That of every output."""
        return tuple(self.shapes[name] for name in self.outputs)

    # Grouping ----------------------------------------------------------------------------------------------

    def _group(self) -> list[Group]:
        """Nodes that one call computes, in order of execution."""
        groups: list[Group] = []
        nodes = list(self.graph)
        at = 0
        while at < len(nodes):
            three = tuple(nodes[at : at + 3])
            length = 3 if self.fused and (self._is_block(three) or self._is_pair(three)) else 1
            groups.append(tuple(nodes[at : at + length]))
            at += length
        return groups

    def _is_block(self, nodes: Group) -> bool:
        """Expansion, depthwise and projection that one call computes."""
        if self._is_chain(nodes, "pointwise_conv2d_int8"):
            # On several threads a small image is not worth the rows that two strips both expand.
            return int8.is_block(nodes) and self.tensors[nodes[1].name].height >= INT8_ROWS * (self.threads - 1)
        if not self._is_chain(nodes, "pointwise_conv2d"):
            return False
        expand, middle, project = nodes
        window = expand.attributes.get("kernel"), expand.attributes.get("stride")
        if expand.operation != "pointwise_conv2d" and not (is_stem(expand) and window == library.STEM_WINDOW):
            return False
        if activation_of(project) not in CLAMPS:
            return False
        if self.split:
            return self._is_split(nodes)
        if _weight_bytes(expand, project) >= (FUSE_BELOW if project["groups"] == 1 else SPLIT_FROM):
            return False
        # On several threads a small image is not worth the rows that two strips both expand.
        return self.threads == 1 or self.tensors[middle.name].height >= 4 * self.threads

    def _is_split(self, group: Group) -> bool:
        """Whether a block is computed by chunks of channels rather than strips of rows."""
        expand, project = group[0], group[-1]
        if len(group) < 3 or project.operation != "pointwise_conv2d":
            return False
        if expand.operation == "conv2d" or project["groups"] > 1:  # the groups of a projection cannot be cut
            return False
        return bool(self.split) or _weight_bytes(expand, project) >= SPLIT_FROM

    def _is_pair(self, nodes: Group) -> bool:
        """Expansion and depthwise convolution that one call computes, with the means for squeeze-and-excitation."""
        if not self._is_chain(nodes, "squeeze_excite") or nodes[0].operation != "pointwise_conv2d":
            return False
        expanded, out = (self.tensors[node.name] for node in nodes[:2])
        return panel_bytes(expanded, out, self.weights[nodes[1].name]) <= PAIR_BYTES

    def _is_chain(self, nodes: Group, last: str) -> bool:
        """Whether a depthwise convolution stands between the other two, and nothing else reads what they compute."""
        if len(nodes) < 3 or nodes[1].operation not in DEPTHWISE or nodes[2].operation != last:
            return False
        if any(node.name in self.plain for node in nodes) or any(node.name in self.outputs for node in nodes[:2]):
            return False
        expand, middle, end = nodes
        chained = middle.inputs == (expand.name,) and end.inputs[0] == middle.name
        alone = all(len(self.readers.get(node.name, ())) == 1 for node in (expand, middle))
        square = middle.attributes.get("dilation", (1, 1)) == (1, 1) and middle["stride"][0] == middle["stride"][1]
        plain = not expand.attributes.get("residual")
        return chained and alone and square and plain and middle["stride"][0] <= self.weights[middle.name].reach

    # Tensors -----------------------------------------------------------------------------------------------

    def _part_pads(self, node: Node) -> tuple[Pads, ...]:
        """The zeros that each window of a convolution needs around its input."""
        size = self.shapes[node.inputs[0]][1:]
        return tuple(
            resolve_padding(node["padding"], size, kernel, node["stride"], dilation)
            for kernel, dilation in node.windows
        )

    def _pads(self, node: Node) -> Pads:
        """The zeros that a node needs around its input."""
        return frame_pads(self._part_pads(node)) if node.windows and node.name not in self.plain else NO_FRAME

    def _fast_readers(self, name: str) -> list[Node]:
        """Those of a tensor that blocked kernels compute."""
        return [node for node in self.readers.get(name, ()) if node.name not in self.plain]

    def _tensor(self, node: Node) -> Tensor:
        """What a node computes, inside the frame that all its readers need, if they need the same one."""
        shape = self.shapes[node.name]
        if len(shape) == 1:
            return linear.vector(self.target, *shape)
        pads = {self._pads(reader) for reader in self._fast_readers(node.name)}
        # Squeeze-and-excitation scales planes without a frame, and plain kernels write none.
        without = node.operation == "squeeze_excite" or node.name in self.plain
        frame = pads.pop() if len(pads) == 1 and not without else NO_FRAME
        return Tensor(*shape, frame, self._dtype(node.name), self.target.lanes)

    def _dtype(self, name: str) -> np.dtype:
        return BYTE if name in self.codes else FLOAT32

    def _place(self) -> tuple[dict[str, int], int]:
        """Return where each tensor begins in the arena, and how large that is, in values."""
        lifetimes: dict[str, Pair] = {}
        home: dict[str, str] = {}  # whose memory a tensor takes that is computed in place
        for time, group in enumerate(self.groups):
            first, last = group[0], group[-1]
            source, made = first.inputs[0], []
            if last.name in self.plain:
                made += [last.name] * bool(self._fast_readers(last.name))  # else its array is all that is needed
                self._extend(lifetimes, home, group, made, time)
                continue
            if last.operation == "squeeze_excite":
                made += vector_names(last)
                channels = last["channels"], last["reduced"], last["channels"]
                self.tensors |= zip(made, (linear.vector(self.target, c) for c in channels), strict=True)
            alone = len(self.readers[source]) == 1 and source not in self.outputs
            if first.operation == "squeeze_excite" and alone:
                home[last.name] = home.get(source, source)
            else:
                made.append(last.name)
            if first.windows and self.tensors[source].frame != self._pads(first):
                made.append(copy_name(first))
                self.tensors[copy_name(first)] = self.tensors[source].inside(self._pads(first))
            beside = int8.beside(self.target, group, self.tensors[source])
            self.tensors |= beside
            made += beside
            self._extend(lifetimes, home, group, made, time)
        for name in (home.get(name, name) for name in self.outputs):
            if name in lifetimes:
                lifetimes[name] = lifetimes[name][0], len(self.groups)
        offsets, values = arrange(
            lifetimes, {name: -(-self.tensors[name].bytes // FLOAT32.itemsize) for name in lifetimes}
        )
        return offsets | {name: offsets[owner] for name, owner in home.items()}, values

    @staticmethod
    def _extend(
        lifetimes: dict[str, Pair], home: Mapping[str, str], group: Group, made: Sequence[str], time: int
    ) -> None:
        """What a group makes begins to live, and what it reads lives until it is done."""
        lifetimes |= dict.fromkeys(made, (time, time))
        for name in (home.get(name, name) for node in group for name in node.inputs):
            if name in lifetimes:
                lifetimes[name] = lifetimes[name][0], time

    # Running -----------------------------------------------------------------------------------------------

    def _new_workspace(self) -> Workspace:
        image, arena = aligned(self.tensors["input"].values), aligned(self._arena_values)
        tensors = self.tensors | {"input": self.tensors["input"].at(image.ctypes.data)}
        for name, offset in self._offsets.items():
            tensors[name] = self.tensors[name].at(arena.ctypes.data + offset * arena.itemsize)
        make = Calls(self.target, tensors, self.weights, self.threads, self.split)
        arrays = self._new_arrays()
        places = {
            name: Placed(tensors[name], arena[offset:].view(tensors[name].dtype))
            for name, offset in self._offsets.items()
        }
        places["input"] = Placed(tensors["input"], image)
        parts, lengths = [], []
        for plain, groups in groupby(self.groups, lambda group: group[-1].name in self.plain):
            groups = list(groups)
            if plain:
                nodes = [group[-1] for group in groups]
                made = {node.name for node in nodes}
                read = {name for node in nodes for name in node.inputs if name not in made and name not in self.plain}
                steps = [self.plain[node.name] for node in nodes]
                reads, writes = ({name: places[name] for name in names if name in places} for names in (read, made))
                parts.append(PlainLayers(steps, self.threads, arrays, reads, writes))
                lengths.append([1] * len(nodes))
            else:
                calls = [list(make.of(group, self._is_split(group))) for group in groups]
                flat = [call for group in calls for call in group]
                parts.append(Table(flat, self.threads, keep=(image, arena, self.weights)))
                lengths.append([len(group) for group in calls])
        results = [
            arrays[name][0] if name in self.plain else places[name].tensor.view(places[name].memory)
            for name in self.outputs
        ]
        return Workspace(image, arena, parts, lengths, self.tensors["input"].view(image)[..., 0], results)

    def _new_arrays(self) -> dict[str, np.ndarray]:
        """NHWC arrays of what plain kernels read and compute."""
        names = {name for node in self.graph if node.name in self.plain for name in (node.name, *node.inputs)}
        shapes = {name: (1, *self.shapes[name][1:], self.shapes[name][0]) for name in names}
        return {name: np.empty(shape, self._dtype(name)) for name, shape in shapes.items()}

    def run(self, image: np.ndarray) -> np.ndarray:
        """Compute the first output of one image, ``(C, H, W)`` to ``(C, P, Q)`` or ``(C,)``."""
        return self.run_all(image)[0]

    def run_all(self, image: np.ndarray) -> list[np.ndarray]:
        """Compute all outputs of one image, every node once.

        May be called from several Python threads at once: each takes a workspace of its own.
        """
        work = self._idle.take() or self._new_workspace()
        work.source[...] = image
        for part in work.parts:
            part.run()
        results = [self._result(name, result) for name, result in zip(self.outputs, work.results, strict=True)]
        self._idle.append(work)  # not after an exception: helpers may be at work in it
        return results

    def _result(self, name: str, result: np.ndarray) -> np.ndarray:
        """A copy of an output, in float32."""
        planes = _planar(result, self.shapes[name])
        code = self.codes.get(name)
        return planes if code is None else np.moveaxis(code.real(np.moveaxis(planes, 0, -1)), -1, 0).copy()

    def time_groups(self) -> dict[str, float]:
        """Compute the last image once more and return the seconds of each group, by its last node's name.

        All as always; but a call before each group of a table asks for the time.
        """
        work = self._idle.take() or self._new_workspace()
        seconds = [one for part, lengths in zip(work.parts, work.lengths, strict=True) for one in part.time(lengths)]
        self._idle.append(work)
        return dict(zip((group[-1].name for group in self.groups), seconds, strict=True))


def _planar(result: np.ndarray, shape: Shape) -> np.ndarray:
    """Return a copy, ``(C, P, Q)`` or ``(C,)``, of a result in blocks or of a plain layer's."""
    if result.ndim < 4:
        return np.moveaxis(result, -1, 0).copy()
    planes = result.transpose(0, 3, 1, 2).reshape(-1, *result.shape[1:3])
    return planes[: shape[0]].reshape(shape).copy()


def _weight_bytes(*nodes: Node) -> int:
    return FLOAT32.itemsize * sum(node.weight_count for node in nodes)
