"""From the nodes that are computed together to the calls that compute them: thin, operations know the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from npmobilenet.blocked import int8
from npmobilenet.graph import INPUT, Node
from npmobilenet.kernels import blocked
from npmobilenet.kernels.blocked import (
    depthwise,
    elementwise,
    inverted_residual,
    linear,
    padding,
    pointwise,
    pooling,
    stem,
)
from npmobilenet.kernels.blocked.activation import CLAMPS, ENDS
from npmobilenet.kernels.blocked.layout import Packed, Stretch, stretch
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.geometry import resize_taps, resolve_padding
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target
from npmobilenet.plan import Code

Group = tuple[Node, ...]

PAIR_BYTES = 512 * 1024  # of a panel of expanded channels: a larger one would be read from farther away anyway

DEPTHWISE = ("depthwise_conv2d", "mixed_depthwise_conv2d")
IN_PLACE = (*elementwise.OPERATIONS, "softmax")  # may write to what they read
ANY_FRAME = (*IN_PLACE, "concat", "channel_pad")  # read and write images inside any frame
BETWEEN = (*ANY_FRAME, "channel_select", "flatten")  # what stands between layers with weights


@dataclass(frozen=True)
class Calls:
    """Makes the calls of a plan, for tensors at addresses.

    Attributes
    ----------
    tensors : mapping of str to Tensor
        By the node that computes each, and the names below.
    weights : mapping of str to Packed
        By node, fitted to the padding.
    groups : sequence of tuple of Node
        All of the plan: what is read after a call is asked for while it computes.
    codes : mapping of str to Code
        What the tensors of uint8 stand for, by node.
    left : mapping of str to Node
        What reads the results of blocks that quantise them at once, by the last node of each.
    threads, parts : int
        For which blocks are split by channels, and in how many parts if not as is best.
    """

    target: Target
    tensors: Mapping[str, Tensor]
    weights: Mapping[str, Packed]
    groups: Sequence[Group]
    codes: Mapping[str, Code]
    left: Mapping[str, Node]
    threads: int = 1
    parts: int | None = None

    def of(self, group: Group, split: bool = False) -> Iterator[Call]:
        """The calls for a group: before its own one that clears a result's frame, or makes a padded copy."""
        first, last = group[0], group[-1]
        x, out = self.tensors[first.inputs[0]], self.tensors[last.name]
        if last.kind.kernel(last) in BETWEEN:
            yield from self._between(last, [self.tensors[name] for name in last.inputs], out)
            return
        if out.padded:
            yield padding.clear(self.target, out, self._zero_point(last.name))
        copy = self.tensors.get(copy_name(first))
        if copy and not is_filtered(group):
            yield padding.pad(self.target, x, copy, self._zero_point(first.inputs[0]))
            x = copy
        weights, functions = [self.weights.get(node.name) for node in group], [activation_of(node) for node in group]
        if int8.is_int8(last):
            about = self.tensors, self._residual(last), self.left, self.threads
            yield from int8.calls(self.target, group, x, out, weights, *about)
        elif last.operation == "squeeze_excite":
            vectors = [self.tensors[name] for name in vector_names(last)]
            if len(group) == 3:
                yield from self._expanded(group[:2], x, out, vectors[0], stretch(weights[-1]))
            else:
                if x.address != out.address:  # unscaled it is needed too
                    yield padding.pad(self.target, x, out)
                yield pooling.call(self.target, x, vectors[0])
            yield from blocked.squeeze_excite.calls(
                out, *vectors, weights[-1], activation=functions[-1], gated_by=last["gate"]
            )
        elif is_filtered(group):
            yield inverted_residual.call(
                x, copy, out, (None, *weights), ("none", *functions),
                residual=self._residual(last), threads=self.threads,
            )  # fmt: skip
        elif len(group) == 2:
            yield from self._expanded(group, x, out, None)
        elif len(group) == 3:
            yield inverted_residual.call(
                x, self.tensors[first.name], out, weights, functions,
                residual=self._residual(last), split=split, threads=self.threads, parts=self.parts,
            )  # fmt: skip
        elif last.operation == "global_average_pool":
            yield pooling.call(self.target, x, out)
        elif last.operation == "global_max_pool":
            yield pooling.global_max(self.target, x, out)
        elif last.operation in ("max_pool2d", "average_pool2d"):
            yield self._pooling(last, x, out)
        elif last.operation == "resize2d":
            to, scale, how = (out.height, out.width), last["scale"], (last["mode"], last["coordinates"])
            taps = resize_taps((x.height, x.width), to, scale, *how)
            yield blocked.resize2d.call(self.target, x, out, taps, last["mode"])
        elif last.operation == "conv_transpose2d":
            yield from blocked.conv_transpose.calls(x, out, *weights)
        else:
            yield from self._ended(last, x, out, *weights)

    def _expanded(
        self, group: Group, x: Tensor, out: Tensor, mean: Tensor | None, later: Stretch = pointwise.NOTHING
    ) -> Iterator[Call]:
        """Expansion and depthwise convolution, with its means: by channels, or by rows where images are large."""
        expanded, weights = self.tensors[group[0].name], [self.weights[node.name] for node in group]
        functions = [activation_of(node) for node in group]
        if inverted_residual.panel_bytes(expanded, out, weights[1]) <= PAIR_BYTES:
            about = {"threads": self.threads, "later": later}
            yield inverted_residual.pair(x, expanded, out, mean, tuple(weights), tuple(functions), **about)
            return
        ends = *functions, "none"
        yield inverted_residual.call(x, expanded, out, (*weights, None), ends, threads=self.threads)
        if mean:
            yield pooling.call(self.target, out, mean)

    def _ended(self, node: Node, x: Tensor, out: Tensor, weights: Packed) -> Iterator[Call]:
        """A convolution or linear layer; what its kernel cannot end with follows in place."""
        function, residual = activation_of(node), self._residual(node)
        inside, late = function if function in ENDS else "none", residual is not None and function not in CLAMPS
        if node.operation == "pointwise_conv2d":
            early, later = None if late else residual, self._later.get(node.name, pointwise.NOTHING)
            about = {"residual": early, "threads": self.threads, "later": later}
            yield pointwise.call(x, out, weights, activation=inside, **about)
        else:
            if node.operation == "conv2d":
                operation = stem if is_stem(node) else blocked.convolution
            else:
                operation = linear if node.operation == "linear" else depthwise
            yield operation.call(x, out, weights, activation=inside)
        if inside != function:
            yield elementwise.call(elementwise.pack(self.target, function), out, out)
        if late:
            yield elementwise.call(elementwise.pack(self.target, "add"), out, out, residual)

    def _between(self, node: Node, xs: Sequence[Tensor], out: Tensor) -> Iterator[Call]:
        operation, options = node.kind.kernel(node), node.kind.keywords(node)
        if operation == "concat":
            yield from blocked.channels.concatenate(self.target, xs, out)
        elif operation == "channel_select":
            yield from blocked.channels.select(self.target, xs, options["indices"], out)
        elif operation == "channel_pad":
            yield from blocked.channels.gather(self.target, xs, [options["before"]], out)
        elif operation == "flatten":
            yield blocked.channels.to_vector(self.target, *xs, out)
        else:
            if out.padded and out.address not in [x.address for x in xs]:  # else there are zeros around it
                yield padding.clear(self.target, out)
            if operation == "softmax":
                yield blocked.softmax.call(self.target, *xs, out)
            else:
                x, *others = xs
                function = self.weights.get(node.name) or elementwise.pack(self.target, operation, **options)
                yield elementwise.call(function, x, out, *others)

    @cached_property
    def _later(self) -> dict[str, Stretch]:
        """What each pointwise convolution asks for while it computes: by node.

        A vector times a matrix computes so little with each weight that the memory decides how long it takes: so the
        convolutions before it ask for its weights, the last ones first, each for as many as it has time for.
        """
        found: dict[str, Stretch] = {}
        free: list[Node] = []
        for group in self.groups:
            node = group[-1]
            if node.operation == "pointwise_conv2d" and len(group) == 1 and node.name in self.weights:
                free.append(node)
            elif node.operation == "linear" and node.name in self.weights:
                left = stretch(self.weights[node.name])
                while free and left.bytes:
                    asking = free.pop()
                    room = pointwise.room(self.tensors[asking.name].pixels, self.weights[asking.name])
                    found[asking.name] = left.last(room)
                    left = left.before(found[asking.name])
        return found

    def _pooling(self, node: Node, x: Tensor, out: Tensor) -> Call:
        kernel, stride = node["kernel"], node["stride"] or node["kernel"]
        window = kernel, stride, resolve_padding(node["padding"], (x.height, x.width), kernel, stride)
        if node.operation == "max_pool2d":
            return pooling.maxima(self.target, x, out, *window)
        return pooling.means(self.target, x, out, *window, node["count_include_pad"])

    def _zero_point(self, name: str) -> np.ndarray | None:
        """What zeros are in a tensor of uint8."""
        return self.codes[name].zero_point if name in self.codes else None

    def _residual(self, node: Node) -> Tensor | None:
        return self.tensors[node.inputs[1]] if len(node.inputs) > 1 else None


def activation_of(node: Node) -> str:
    """What a node ends with."""
    return node.attributes.get("activation", node.kind.attributes.get("activation", "none"))


def is_filtered(group: Group) -> bool:
    """Whether it is a depthwise convolution with its projection, whose input is copied row by row."""
    return len(group) == 2 and group[0].operation in DEPTHWISE


def is_stem(node: Node) -> bool:
    """Whether it is a dense convolution of the image, which stands in planes."""
    return node.operation in ("conv2d", "conv2d_int8") and node.inputs[0] == INPUT


def copy_name(node: Node) -> str:
    """The padded copy that a convolution reads if its input stands without the frame it needs."""
    return f"{node.name}.padded"


def vector_names(node: Node) -> tuple[str, str, str]:
    """What squeeze-and-excitation holds besides its image: means, reduced, gate."""
    return f"{node.name}.mean", f"{node.name}.reduced", f"{node.name}.gate"
