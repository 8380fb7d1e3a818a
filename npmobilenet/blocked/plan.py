"""A plan for the blocked CPU kernels: which nodes one call computes, where tensors lie, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import add

import numpy as np

from npmobilenet.blocked import int8
from npmobilenet.blocked.calls import (
    ANY_FRAME,
    IN_PLACE,
    Calls,
    Group,
    activation_of,
    copy_name,
    is_stem,
    vector_names,
)
from npmobilenet.blocked.homes import Homes
from npmobilenet.blocked.plain_layers import Placed, PlainLayers
from npmobilenet.graph import INPUT, Graph, Node, Shape
from npmobilenet.idle import Idle
from npmobilenet.kernels.blocked import conv_transpose, library, linear, planes
from npmobilenet.kernels.blocked.activation import CLAMPS, ENDS
from npmobilenet.kernels.blocked.int8.layout import BYTE
from npmobilenet.kernels.blocked.inverted_residual import panel_bytes
from npmobilenet.kernels.blocked.layout import Packed
from npmobilenet.kernels.blocked.mixed import frame_pads
from npmobilenet.kernels.call import Call, Table
from npmobilenet.kernels.geometry import Pads, Pair, resolve_padding
from npmobilenet.kernels.memory import address, aligned
from npmobilenet.kernels.tensor import FLOAT32, NO_FRAME, Tensor
from npmobilenet.kernels.vector.target import Target
from npmobilenet.plan import Code, Step, arrange

SPLIT_FROM = 96 * 1024  # bytes of weights from which a block is split by channels, not by rows
FUSE_BELOW = 1024 * 1024  # bytes of weights: a block with more gains nothing, and each thread would read them all
INT8_ROWS = 7  # of a strip of a block of 8-bit layers, on several threads
PAIR_BYTES = 512 * 1024  # of a panel of expanded channels: a larger one would be read from farther away anyway

READ_INSIDE = ("global_max_pool", "max_pool2d", "average_pool2d", "resize2d", "dequantize")  # a tensor within any frame
DEPTHWISE = ("depthwise_conv2d", "mixed_depthwise_conv2d", *int8.DEPTHWISE)


@dataclass
class Workspace:
    """What one image needs while it is computed.

    Attributes
    ----------
    image, arena : float32 array
        The padded image, unless that is of 16 bits; all other tensors.
    parts : list of Table or PlainLayers
        What is run one after the other.
    lengths : list of list of int
        How many calls of a table each group has; of plain layers each is one.
    source : array
        A view (C, H, W): where an image goes; of zeros, where a table makes 16 bits of it.
    results : list of callable or None
        For each output that no table copies to where it is wanted: returns it, float32 (H, W, C) or (C,).
    """

    image: np.ndarray
    arena: np.ndarray
    parts: list[Table | PlainLayers]
    lengths: list[list[int]]
    source: np.ndarray
    results: list[Callable[[], np.ndarray] | None]

    def __post_init__(self) -> None:
        first = self.parts[0]
        self._set_image = partial(first.set, 0, planes.ARRAY_IN) if isinstance(first, Table) else None
        tables = [part for part in self.parts if isinstance(part, Table)]
        copied = [number for number, result in enumerate(self.results) if result is None]
        start = len(tables[-1].calls) - len(copied) if copied else 0
        self._set_results = [
            (number, partial(tables[-1].set, call, planes.ARRAY_OUT)) for call, number in enumerate(copied, start)
        ]

    def point_to(self, image: np.ndarray, results: Sequence[np.ndarray]) -> None:
        """Say where tables find the next image, and where they write what they compute."""
        if self._set_image:
            self._set_image(address(image))
        else:
            self.source[...] = image.reshape(self.source.shape)
        for number, set_result in self._set_results:
            set_result(address(results[number]))

    def run(self, image: np.ndarray, results: Sequence[np.ndarray]) -> None:
        """Compute an image."""
        self.point_to(image, results)
        for part in self.parts:
            part.run()
        if len(self._set_results) < len(results):
            for result, read in zip(results, self.results, strict=True):
                if read is not None:
                    result[...] = np.moveaxis(read(), -1, 0).reshape(result.shape)

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
    output_shapes : tuple of shape
        ``(C, P, Q)`` or ``(C,)`` of every output.
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
        self.output_shapes = tuple(self.shapes[name] for name in self.outputs)
        self.readers: dict[str, list[Node]] = {}
        for node in graph:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.weights = {
            node.name: weights[node.name].fitted(self._part_pads(node)) for node in graph if node.name in weights
        }
        image, first = Tensor(*self.shapes[INPUT], self._pads(graph.nodes[0])), graph.nodes[0]  # planar
        self.tensors = {INPUT: image if first.name in plain else int8.image(image, first)}
        for node in reversed(graph.nodes):  # what reads a tensor decides on its frame
            self.tensors[node.name] = self._tensor(node)
        self.groups = self._group()
        self.left = dict(self._left())
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

    # Grouping ----------------------------------------------------------------------------------------------

    def _group(self) -> list[Group]:
        """Nodes that one call computes, in order of execution."""
        groups: list[Group] = []
        nodes = list(self.graph)
        at = 0
        while at < len(nodes):
            length = self._length(tuple(nodes[at : at + 3])) if self.fused else 1
            groups.append(tuple(nodes[at : at + length]))
            at += length
        return groups

    def _length(self, nodes: Group) -> int:
        """How many of these one call computes."""
        if self._is_block(nodes) or self._is_pair(nodes, "squeeze_excite"):
            return 3
        if self._is_pair(nodes, "pointwise_conv2d") or self._is_int8_pair(nodes):
            return 2
        return 1

    def _is_block(self, nodes: Group) -> bool:
        """Expansion, depthwise and projection that one call computes."""
        if self._is_chain(nodes, "pointwise_conv2d_int8"):
            return int8.is_block(nodes) and self._has_strips(nodes[1])
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

    def _has_strips(self, node: Node) -> bool:
        """Whether an image is large enough to be cut: a small one is not worth the rows that two strips both expand."""
        return self.tensors[node.name].height >= INT8_ROWS * (self.threads - 1)

    def _is_int8_pair(self, nodes: Group) -> bool:
        """Two layers of 8 bits that one call computes: the first two of a block, or what quantises what it scales."""
        if int8.scales_input(nodes[:2]):
            scaled = nodes[0].name
            return len(self.readers[scaled]) == 1 and scaled not in self.outputs and scaled not in self.plain
        return self._is_chain(nodes, "squeeze_excite_int8") and int8.is_block(nodes[:2]) and self._has_strips(nodes[1])

    def _is_split(self, group: Group) -> bool:
        """Whether a block is computed by chunks of channels rather than strips of rows."""
        expand, project = group[0], group[-1]
        if len(group) < 3 or project.operation != "pointwise_conv2d":
            return False
        if expand.operation == "conv2d" or project["groups"] > 1:  # the groups of a projection cannot be cut
            return False
        return bool(self.split) or _weight_bytes(expand, project) >= SPLIT_FROM

    def _is_pair(self, nodes: Group, last: str) -> bool:
        """Expansion and depthwise convolution that one call computes, before squeeze-and-excitation with its means."""
        if not self._is_chain(nodes, last) or nodes[0].operation != "pointwise_conv2d":
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
        plain = not expand.attributes.get("residual") and {activation_of(expand), activation_of(middle)} <= {*ENDS}
        return chained and alone and square and plain and middle["stride"][0] <= self.weights[middle.name].reach

    def _left(self) -> Iterator[tuple[str, Node]]:
        """The blocks whose result is quantised at once, by their last node, and what reads it."""
        for group in self.groups:
            name = group[-1].name
            readers = self.readers.get(name, ())
            alone = len(readers) == 1 and name not in self.outputs and readers[0].name not in self.plain
            if alone and int8.leaves(group, readers[0]):
                yield name, readers[0]

    # Tensors -----------------------------------------------------------------------------------------------

    def _part_pads(self, node: Node) -> tuple[Pads, ...]:
        """The zeros that each window of a convolution needs around its input."""
        size = self.shapes[node.inputs[0]][1:]
        return tuple(
            resolve_padding(node["padding"], size, kernel, node["stride"], dilation)
            for kernel, dilation in node.windows
        )

    def _pads(self, node: Node) -> Pads:
        """The zeros that a node needs around its input; without weights it knows where the image ends."""
        if node.name in self.plain:
            return NO_FRAME
        if node.operation == "conv_transpose2d":
            size, out = (self.shapes[name][1:] for name in (node.inputs[0], node.name))
            pads = resolve_padding(node["padding"], size, node["kernel"])
            return conv_transpose.frame(size, out, node["kernel"], node["stride"], pads)
        return frame_pads(self._part_pads(node)) if _is_framed(node) else NO_FRAME

    def _wanted_frame(self, name: str, reader: Node) -> Pads:
        """The zeros that a reader wants around a tensor: what needs none has those of its result, to write there."""
        if reader.kind.kernel(reader) in ANY_FRAME and self.shapes[reader.name][1:] == self.shapes[name][1:]:
            return self.tensors[reader.name].frame
        return self._pads(reader)

    def _fast_readers(self, name: str) -> list[Node]:
        """Those of a tensor that blocked kernels compute."""
        return [node for node in self.readers.get(name, ()) if node.name not in self.plain]

    def _tensor(self, node: Node) -> Tensor:
        """What a node computes, inside the frame that all its readers need, if they need the same one."""
        shape = self.shapes[node.name]
        if len(shape) == 1:
            return linear.vector(self.target, *shape)
        readers = [reader for reader in self._fast_readers(node.name) if reader.operation not in READ_INSIDE]
        pads = {self._wanted_frame(node.name, reader) for reader in readers}
        # Squeeze-and-excitation scales planes without a frame, and plain kernels write none.
        without = node.operation == "squeeze_excite" or node.name in self.plain
        frame = pads.pop() if len(pads) == 1 and not without else NO_FRAME
        return Tensor(*shape, frame, self._dtype(node.name), self.target.lanes)

    def _dtype(self, name: str) -> np.dtype:
        return BYTE if name in self.codes else FLOAT32

    def _place(self) -> tuple[dict[str, int], int]:
        """Return where each tensor begins in the arena, and how large that is, in values."""
        made = [self._made(group) for group in self.groups]
        if self._converts_image:
            made[0].append(INPUT)
        read = [[name for node in group for name in self._read(node)] for group in self.groups]
        placed = {name for names in made for name in names}
        homes = self._homes()
        home = {name: homes.of(name) for name in placed}
        lifetimes: dict[str, Pair] = {}
        for time, names in enumerate([*map(add, made, read), list(self.outputs)]):
            for owner, _ in (home[name] for name in names if name in placed):
                lifetimes[owner] = lifetimes.get(owner, (time, time))[0], time
        offsets, values = arrange(
            lifetimes, {name: -(-self.tensors[name].bytes // FLOAT32.itemsize) for name in lifetimes}
        )
        return {name: offsets[owner] + within for name, (owner, within) in home.items()}, values

    def _read(self, node: Node) -> Sequence[str]:
        """The tensors that a node reads."""
        quantised = node.inputs[0] in self.left
        return [*int8.entered_names(node), *node.inputs[1:]] if quantised else node.inputs

    @property
    def _converts_image(self) -> bool:
        """Whether the first table makes 16 bits of the image: a tensor like others, no longer needed than they are."""
        return self.tensors[INPUT].dtype != FLOAT32

    def _made(self, group: Group) -> list[str]:
        """The tensors that a group writes; of a plain layer that no other reads, its array is all that is needed."""
        first, last = group[0], group[-1]
        if last.name in self.plain:
            return [last.name] * bool(self._fast_readers(last.name))
        if last.name in self.left:
            reader = self.left[last.name]
            self.tensors |= (made := int8.entered(self.target, reader, self.tensors[last.name]))
            made = [*made]
        else:
            made = [last.name]
        if last.operation == "squeeze_excite":
            vectors = vector_names(last)
            sizes = last["channels"], last["reduced"], last["channels"]
            self.tensors |= zip(vectors, (linear.vector(self.target, c) for c in sizes), strict=True)
            made += vectors
        source = first.inputs[0]
        if _is_framed(first) and self.tensors[source].frame != self._pads(first):
            made.append(copy_name(first))
            self.tensors[copy_name(first)] = self.tensors[source].inside(self._pads(first))
        beside = int8.beside(self.target, group, self.tensors[source]) if source not in self.left else {}
        self.tensors |= beside
        return [*made, *beside]

    def _homes(self) -> Homes:
        """In whose memory tensors stand."""
        homes = Homes(self.tensors, self.readers, self.outputs)
        for node, *others in self.groups:
            operation = node.kind.kernel(node)
            if others or node.name in self.plain:
                continue
            if operation in ("squeeze_excite", *IN_PLACE):
                homes.in_place(node.name, node.inputs)
            elif operation == "concat":
                homes.concatenated(node.name, node.inputs)
        return homes

    # Running -----------------------------------------------------------------------------------------------

    def _new_workspace(self) -> Workspace:
        planar = self.tensors[INPUT]
        image, arena = aligned(0 if self._converts_image else planar.values), aligned(self._arena_values)
        tensors = self.tensors | {INPUT: planar.at(image.ctypes.data)}
        for name, offset in self._offsets.items():
            tensors[name] = self.tensors[name].at(arena.ctypes.data + offset * arena.itemsize)
        make = Calls(self.target, tensors, self.weights, self.groups, self.codes, self.left, self.threads, self.split)
        arrays = self._new_arrays()
        places = {
            name: Placed(tensors[name], arena[offset:].view(tensors[name].dtype))
            for name, offset in self._offsets.items()
        }
        places.setdefault(INPUT, Placed(tensors[INPUT], image))
        results = [self._reader(name, arrays, places) for name in self.outputs]
        # What stands between the first layers and the last: plain arrays, copied in and out by all threads.
        runs = [
            (plain, list(groups)) for plain, groups in groupby(self.groups, lambda group: group[-1].name in self.plain)
        ]
        last = max((number for number, (plain, _) in enumerate(runs) if not plain), default=-1)
        parts, lengths = [], []
        for number, (plain, groups) in enumerate(runs):
            if plain:
                nodes = [group[-1] for group in groups]
                made = {node.name for node in nodes}
                read = {name for node in nodes for name in node.inputs if name not in made and name not in self.plain}
                steps = [self.plain[node.name] for node in nodes]
                reads, writes = ({name: places[name] for name in names if name in places} for names in (read, made))
                parts.append(PlainLayers(steps, self.threads, arrays, reads, writes))
                lengths.append([1] * len(nodes))
                continue
            calls = [list(make.of(group, self._is_split(group))) for group in groups]
            if number == 0:
                calls[0].insert(0, self._copy_in(tensors[INPUT]))
            if number == last:
                copied = [name for name, read in zip(self.outputs, results, strict=True) if read is None]
                calls[-1] += [planes.copy_out(self.target, tensors[name]) for name in copied]
            flat = [call for group in calls for call in group]
            parts.append(Table(flat, self.threads, keep=(image, arena, self.weights)))
            lengths.append([len(group) for group in calls])
        empty = np.broadcast_to(np.float32(0), self.shapes[INPUT])
        source = empty if self._converts_image else planar.view(image)[..., 0]
        return Workspace(image, arena, parts, lengths, source, results)

    def _copy_in(self, image: Tensor) -> Call:
        if self._converts_image:
            return int8.copy_in(self.target, image, self.graph.nodes[0])
        return planes.copy_in(self.target, image)

    def _new_arrays(self) -> dict[str, np.ndarray]:
        """NHWC arrays of what plain kernels read and compute."""
        names = {name for node in self.graph if node.name in self.plain for name in (node.name, *node.inputs)}
        shapes = {name: (1, *self.shapes[name][1:], self.shapes[name][0]) for name in names}
        return {name: np.empty(shape, self._dtype(name)) for name, shape in shapes.items()}

    def run(self, image: np.ndarray) -> np.ndarray:
        """Compute the first output of one image, ``(C, H, W)`` to ``(C, P, Q)`` or ``(C,)``."""
        results = self.empty_results()
        self.run_into(image, results)
        return results[0]

    def empty_results(self) -> list[np.ndarray]:
        """Return an array for each output of an image."""
        return [np.empty(shape, np.float32) for shape in self.output_shapes]

    def run_into(self, image: np.ndarray, results: Sequence[np.ndarray]) -> None:
        """Compute all outputs of one image, every node once.

        May be called from several Python threads at once: each takes a workspace of its own.

        Parameters
        ----------
        image : float array (C, H, W), or (1, C, H, W)
        results : sequence of C-contiguous float32 array
            For each output (C, P, Q) or (C,), or with one more axis.
        """
        if self.codes and not np.isfinite(image).all():  # 8 bits have nothing that would say so further on
            for result in results:
                result[...] = np.nan
            return
        work = self._idle.take() or self._new_workspace()
        flags = image.flags
        if image.dtype is not FLOAT32 or not (flags.c_contiguous and flags.aligned):
            image = np.array(image, np.float32, order="C")
        work.run(image, results)
        self._idle.append(work)  # not after an exception: a plain layer may have left it half done

    def _reader(
        self, name: str, arrays: Mapping[str, np.ndarray], places: Mapping[str, Placed]
    ) -> Callable[[], np.ndarray] | None:
        """What returns an output that no table copies: a plain layer's, or one of 8 bits."""
        code = self.codes.get(name)
        if name in self.plain:
            return lambda: arrays[name][0] if code is None else code.real(arrays[name][0])
        return None if code is None else lambda: code.real(places[name].tensor.read(places[name].memory))

    def time_groups(self) -> dict[str, float]:
        """Compute the last image once more and return the seconds of each group, by its last node's name.

        All as always, with the copies of image and results; but a call before each group of a table asks for the time.
        """
        work = self._idle.take() or self._new_workspace()
        image, results = work.source.copy(), self.empty_results()  # those of the last run may be gone
        work.point_to(image, results)
        seconds = [one for part, lengths in zip(work.parts, work.lengths, strict=True) for one in part.time(lengths)]
        self._idle.append(work)
        return dict(zip((group[-1].name for group in self.groups), seconds, strict=True))


def _is_framed(node: Node) -> bool:
    """Whether it reads the zeros around its input."""
    return node.operation == "conv_transpose2d" or bool(node.windows and node.operation not in READ_INSIDE)


def _weight_bytes(*nodes: Node) -> int:
    return FLOAT32.itemsize * sum(node.weight_count for node in nodes)
