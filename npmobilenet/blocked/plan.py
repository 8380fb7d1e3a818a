"""A plan for the blocked CPU kernels: which nodes one call computes, where tensors lie, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import add

import numpy as np

from npmobilenet.blocked import int8
from npmobilenet.blocked.calls import (
    ANY_FRAME,
    DEPTHWISE,
    IN_PLACE,
    PAIR_BYTES,
    Calls,
    Group,
    activation_of,
    copy_name,
    is_filtered,
    is_stem,
    vector_names,
)
from npmobilenet.blocked.homes import Homes
from npmobilenet.blocked.plain_layers import Placed, PlainLayers
from npmobilenet.graph import INPUT, Graph, Node, Shape
from npmobilenet.idle import Idle
from npmobilenet.kernels import blocked
from npmobilenet.kernels.blocked import library, linear, planes
from npmobilenet.kernels.blocked.activation import CLAMPS, ENDS
from npmobilenet.kernels.blocked.int8.layout import BYTE
from npmobilenet.kernels.blocked.inverted_residual import panel_bytes, reads_less_by_rows
from npmobilenet.kernels.blocked.layout import Packed
from npmobilenet.kernels.call import GIVEN, Call, Table
from npmobilenet.kernels.geometry import Pads, Pair, frame_pads, resolve_padding
from npmobilenet.kernels.memory import aligned
from npmobilenet.kernels.tensor import FLOAT32, NO_FRAME, Tensor
from npmobilenet.kernels.vector.target import Target
from npmobilenet.plan import Code, Step, arrange

FUSE_BELOW = 1024 * 1024  # bytes of weights: a block with more gains nothing, and each thread would read them all
RING_BELOW = 96 * 1024  # of a block that cannot be split, since its projection has groups
INT8_ROWS = 7  # of a strip of a block of 8-bit layers, on several threads

PLAIN = 0x101  # of an array's `flags.num`: C-contiguous and aligned

# A tensor within any frame.
READ_INSIDE = ("global_max_pool", "max_pool2d", "average_pool2d", "resize2d", "channel_select", "dequantize")


@dataclass
class Workspace:
    """What one image needs while it is computed.

    Attributes
    ----------
    image, arena : float32 array
        The image, where plain layers read it; all other tensors.
    parts : list of Table or PlainLayers
        What is run one after the other.
    given : list of list of int
        Which arrays each table is run on: the image is 0, from 1 on are the results.
    lengths : list of list of int
        How many calls of a table each group has; of plain layers each is one.
    source : array
        A view (C, H, W): where an image goes; of zeros, where a table reads it from where it is.
    results : list of callable or None
        For each output that no table copies to where it is wanted: returns it, float32 (H, W, C) or (C,).
    """

    image: np.ndarray
    arena: np.ndarray
    parts: list[Table | PlainLayers]
    given: list[list[int]]
    lengths: list[list[int]]
    source: np.ndarray
    results: list[Callable[[], np.ndarray] | None]

    def __post_init__(self) -> None:
        alone = len(self.parts) == 1 and len(self.given[0]) == 1 + len(self.results)
        self._alone = self.parts[0].run if alone else None

    def run(self, image: np.ndarray, results: Sequence[np.ndarray]) -> None:
        """Compute an image."""
        if self._alone:
            self._alone(image, *results)
            return
        for part, arrays in zip(self.parts, self._arrays(image, results), strict=True):
            part.run(*arrays)
        for result, read in zip(results, self.results, strict=True):
            if read is not None:
                result[...] = np.moveaxis(read(), -1, 0).reshape(result.shape)

    def time(self, image: np.ndarray, results: Sequence[np.ndarray]) -> list[float]:
        """Compute an image and return the seconds of each group."""
        parts = zip(self.parts, self.lengths, self._arrays(image, results), strict=True)
        return [seconds for part, lengths, arrays in parts for seconds in part.time(lengths, *arrays)]

    def _arrays(self, image: np.ndarray, results: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """What each part is run on; plain layers that come first find the image in the memory of a tensor."""
        if not self.given[0]:
            self.source[...] = image.reshape(self.source.shape)
        return [[[image, *results][number] for number in numbers] for numbers in self.given]

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
        two = self._is_pair(nodes, "pointwise_conv2d") or self._is_int8_pair(nodes) or self._is_filtered(nodes)
        return 2 if two else 1

    def _is_block(self, nodes: Group) -> bool:
        """Expansion, depthwise and projection that one call computes."""
        if self._is_chain(nodes, "pointwise_conv2d_int8"):
            return int8.is_block(nodes) and self._has_strips(nodes[1])
        if not self._is_chain(nodes, "pointwise_conv2d") or any(map(int8.is_int8, nodes)):
            return False
        expand, middle, project = nodes
        window = expand.attributes.get("kernel"), expand.attributes.get("stride")
        if expand.operation != "pointwise_conv2d" and not (is_stem(expand) and window == library.STEM_WINDOW):
            return False
        if activation_of(project) not in CLAMPS:
            return False
        if self.split:
            return self._is_split(nodes)
        if _weight_bytes(expand, project) >= (FUSE_BELOW if project["groups"] == 1 else RING_BELOW):
            return False
        return self._has_strips(middle)

    def _has_strips(self, middle: Node) -> bool:
        """Whether a depthwise convolution has rows enough: small images are not worth those that two threads expand."""
        needed = INT8_ROWS * (self.threads - 1) if int8.is_int8(middle) else 4 * self.threads
        return self.threads == 1 or self.tensors[middle.name].height >= needed

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
        if self.split:
            return True
        x, expanded, out = (self.tensors[name] for name in (expand.inputs[0], expand.name, project.name))
        about = self.weights[group[1].name], _weight_bytes(expand, project), self.threads
        return not reads_less_by_rows(x, expanded, out, *about)

    def _is_pair(self, nodes: Group, last: str) -> bool:
        """Expansion and depthwise convolution that one call computes, before squeeze-and-excitation with its means."""
        if not self._is_chain(nodes, last) or nodes[0].operation != "pointwise_conv2d":
            return False
        expanded, out = (self.tensors[node.name] for node in nodes[:2])
        by_channels = panel_bytes(expanded, out, self.weights[nodes[1].name]) <= PAIR_BYTES
        return by_channels or self._has_strips(nodes[1])

    def _is_filtered(self, nodes: Group) -> bool:
        """A depthwise convolution that would need a padded copy of its input, and its projection."""
        if len(nodes) < 2 or nodes[0].operation not in DEPTHWISE or nodes[1].operation != "pointwise_conv2d":
            return False
        middle, project = nodes[:2]
        source = middle.inputs[0]
        needs_copy = source != INPUT and not self.tensors[source].padded and self._pads(middle) != NO_FRAME
        ends = activation_of(middle) in ENDS and activation_of(project) in CLAMPS
        small = _weight_bytes(project) < FUSE_BELOW and not self.split
        alone = self._are_alone(nodes[:2]) and self._is_even(middle)
        return needs_copy and ends and small and alone and self._has_strips(middle)

    def _is_chain(self, nodes: Group, last: str) -> bool:
        """Whether a depthwise convolution stands between the other two, and nothing else reads what they compute."""
        if len(nodes) < 3 or nodes[1].operation not in (*DEPTHWISE, *int8.DEPTHWISE) or nodes[2].operation != last:
            return False
        expand, middle, _ = nodes
        if not self._are_alone(nodes) or middle.inputs != (expand.name,) or not self._is_even(middle):
            return False
        return not expand.attributes.get("residual") and {activation_of(expand), activation_of(middle)} <= {*ENDS}

    def _are_alone(self, nodes: Group) -> bool:
        """Whether blocked kernels compute them, each reads the one before, and nothing else reads that."""
        if any(node.name in self.plain for node in nodes) or any(node.name in self.outputs for node in nodes[:-1]):
            return False
        return all(
            after.inputs[0] == node.name and len(self.readers.get(node.name, ())) == 1
            for node, after in pairwise(nodes)
        )

    def _is_even(self, middle: Node) -> bool:
        """Whether a window slides as far along both axes, without dilation, and no farther than it reaches."""
        stride, dilation = middle["stride"], middle.attributes.get("dilation", (1, 1))
        return dilation == (1, 1) and stride[0] == stride[1] and stride[0] <= self.weights[middle.name].reach

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
            return blocked.conv_transpose.frame(size, out, node["kernel"], node["stride"], pads)
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

    @property
    def _holds_image(self) -> bool:
        """Whether it needs a copy of the image: where a plain layer reads that, or more than the first layer."""
        readers = self.readers[INPUT]
        several = sum(node.inputs[0] == INPUT for node in readers) > 1  # of the others' second input only the size
        return (several or any(node.name in self.plain for node in readers)) and not self._converts_image

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
            made += [copy_name(first)] * (not is_filtered(group))
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
        image, arena = aligned(planar.values * self._holds_image), aligned(self._arena_values)
        tensors = self.tensors | {INPUT: planar.at(image.ctypes.data if self._holds_image else GIVEN)}
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
        parts, given, lengths = [], [], []
        for number, (plain, groups) in enumerate(runs):
            if plain:
                nodes = [group[-1] for group in groups]
                made = {node.name for node in nodes}
                read = {name for node in nodes for name in node.inputs if name not in made and name not in self.plain}
                steps = [self.plain[node.name] for node in nodes]
                reads, writes = ({name: places[name] for name in names if name in places} for names in (read, made))
                parts.append(PlainLayers(steps, self.threads, arrays, reads, writes))
                given.append([])
                lengths.append([1] * len(nodes))
                continue
            calls = [list(make.of(group, self._is_split(group))) for group in groups]
            numbers = []
            if number == 0:
                calls[0] = [*self._copies_in(tensors[INPUT]), *calls[0]]
                numbers = [0]
            if number == last:
                copied = [place for place, read in enumerate(results) if read is None]
                calls[-1] += [planes.copy_out(self.target, tensors[self.outputs[place]]) for place in copied]
                numbers += [1 + place for place in copied]
            flat = [call for group in calls for call in group]
            parts.append(Table(flat, self.threads, keep=(image, arena, self.weights)))
            given.append(numbers)
            lengths.append([len(group) for group in calls])
        empty = np.broadcast_to(np.float32(0), self.shapes[INPUT])
        source = planar.view(image)[..., 0] if self._holds_image else empty
        return Workspace(image, arena, parts, given, lengths, source, results)

    def _copies_in(self, image: Tensor) -> list[Call]:
        """What comes before the first layer: nothing where that is all that reads the image, whatever array it is."""
        if self._converts_image:
            return [int8.copy_in(self.target, image, self.graph.nodes[0])]
        return [planes.copy_in(self.target, image)] * self._holds_image

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
        if image.dtype is not FLOAT32 or image.flags.num & PLAIN != PLAIN:
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
        seconds = work.time(image, results)
        self._idle.append(work)
        return dict(zip((group[-1].name for group in self.groups), seconds, strict=True))


def _is_framed(node: Node) -> bool:
    """Whether it reads the zeros around its input; the stem of float32 has its own."""
    if is_stem(node) and not int8.is_int8(node):
        return False
    return node.operation == "conv_transpose2d" or bool(node.windows and node.operation not in READ_INSIDE)


def _weight_bytes(*nodes: Node) -> int:
    return FLOAT32.itemsize * sum(node.weight_count for node in nodes)
