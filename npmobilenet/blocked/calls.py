"""From the nodes that are computed together to the calls that compute them: thin, operations know the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from npmobilenet.blocked import int8
from npmobilenet.graph import INPUT, Node
from npmobilenet.kernels.blocked import (
    convolution,
    depthwise,
    inverted_residual,
    linear,
    padding,
    pointwise,
    pooling,
    stem,
)
from npmobilenet.kernels.blocked import squeeze_excite as squeeze
from npmobilenet.kernels.blocked.layout import Packed
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

Group = tuple[Node, ...]


@dataclass(frozen=True)
class Calls:
    """Makes the calls of a plan, for tensors at addresses.

    Attributes
    ----------
    tensors : mapping of str to Tensor
        By the node that computes each, and the names below.
    weights : mapping of str to Packed
        By node, fitted to the padding.
    threads, parts : int
        For which blocks are split by channels, and in how many parts if not as is best.
    """

    target: Target
    tensors: Mapping[str, Tensor]
    weights: Mapping[str, Packed]
    threads: int = 1
    parts: int | None = None

    def of(self, group: Group, split: bool = False) -> Iterator[Call]:
        """The calls for a group: before its own one that clears a result's frame, or makes a padded copy."""
        first, last = group[0], group[-1]
        x, out = self.tensors[first.inputs[0]], self.tensors[last.name]
        if out.padded:
            yield padding.clear(self.target, out)
        if copy_name(first) in self.tensors:
            copy = self.tensors[copy_name(first)]
            yield padding.pad(self.target, x, copy)
            x = copy
        weights, functions = [self.weights.get(node.name) for node in group], [activation_of(node) for node in group]
        if int8.is_int8(last):
            about = self.tensors, self._residual(last), self.threads
            yield from int8.calls(self.target, group, x, out, weights, *about)
        elif last.operation == "squeeze_excite":
            vectors = [self.tensors[name] for name in vector_names(last)]
            if len(group) == 3:
                expanded = self.tensors[first.name]
                yield inverted_residual.pair(x, expanded, out, vectors[0], weights[:2], functions[:2])
            else:
                if x.address != out.address:  # unscaled it is needed too
                    yield padding.pad(self.target, x, out)
                yield pooling.call(self.target, x, vectors[0])
            yield from squeeze.calls(out, *vectors, weights[-1], activation=functions[-1], gated_by=last["gate"])
        elif len(group) == 3:
            yield inverted_residual.call(
                x, self.tensors[first.name], out, weights, functions,
                residual=self._residual(last), split=split, threads=self.threads, parts=self.parts,
            )  # fmt: skip
        elif last.operation == "pointwise_conv2d":
            yield pointwise.call(x, out, *weights, activation=functions[0], residual=self._residual(last))
        elif last.operation == "global_average_pool":
            yield pooling.call(self.target, x, out)
        else:
            dense = stem if is_stem(last) else convolution
            operation = {"conv2d": dense, "linear": linear}.get(last.operation, depthwise)
            yield operation.call(x, out, *weights, activation=functions[0])

    def _residual(self, node: Node) -> Tensor | None:
        return self.tensors[node.inputs[1]] if len(node.inputs) > 1 else None


def activation_of(node: Node) -> str:
    """What a node ends with."""
    return node.attributes.get("activation", node.kind.attributes.get("activation", "none"))


def is_stem(node: Node) -> bool:
    """Whether it is a dense convolution of the image, which stands in planes."""
    return node.operation in ("conv2d", "conv2d_int8") and node.inputs[0] == INPUT


def copy_name(node: Node) -> str:
    """The padded copy that a convolution reads if its input stands without the frame it needs."""
    return f"{node.name}.padded"


def vector_names(node: Node) -> tuple[str, str, str]:
    """What squeeze-and-excitation holds besides its image: means, reduced, gate."""
    return f"{node.name}.mean", f"{node.name}.reduced", f"{node.name}.gate"
