"""The layers of real networks as kernel calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.kernels import registry
from npmobilenet.kernels.registry import Kernel
from npmobilenet.plan import Program


@dataclass(frozen=True)
class Layer:
    """One layer of a network: an operation and the shapes of its arrays."""

    network: str
    name: str
    operation: str
    shape: tuple[int, ...]
    weights: tuple[np.ndarray | list[np.ndarray], ...]
    options: dict[str, Any]

    @property
    def variation(self) -> str:
        """What asks for a kernel of its own: ``k3``, ``mixed-k3.5.7``, ``2groups``; empty for most operations."""
        if "depthwise" in self.operation:
            mixed = isinstance(self.weights[0], list)
            sizes = [str(len(kernel)) for kernel in (self.weights[0] if mixed else self.weights[:1])]
            return "mixed-" * mixed + f"k{'.'.join(sizes)}"
        groups = self.options.get("groups", 1)
        return f"{groups}groups" if groups > 1 else ""

    @property
    def title(self) -> str:
        """Such as ``block2.depthwise-k3-1x112x112x96-s2``."""
        stride = self.options.get("stride", (1, 1))[0]
        shape = "x".join(map(str, self.shape))
        return "-".join(filter(None, (self.name, self.variation, shape, f"s{stride}" * (stride > 1))))

    def arguments(self) -> tuple[np.ndarray, ...]:
        """The arrays; the input is random."""
        return (np.random.default_rng(0).standard_normal(self.shape, np.float32), *self.weights)

    def kernels(self) -> list[Kernel]:
        """Every compiled kernel that can compute it."""
        return [kernel for kernel in registry.kernels(self.operation, "cpu") if kernel.supports(**self.options)]

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return registry.macs(self.operation, *self.arguments(), **self.options)

    @property
    def bytes(self) -> int:
        """Least memory traffic."""
        return registry.bytes_moved(self.operation, *self.arguments(), **self.options)


@cache
def layers(network: str, size: int = 224) -> list[Layer]:
    """Return the different layers of a network: of equal ones the first. Residual adds are left out."""
    return list(_layers(network, size))


def _layers(network: str, size: int) -> Iterator[Layer]:
    graph = get_architecture(network).graph()
    plan = Program(graph, random_weights(graph), "cpu").plan((size, size))
    seen = set()
    for step in plan.steps:
        shape = plan.shapes[step.node.inputs[0]]
        output = plan.shapes[step.node.name]
        layer = Layer(network, step.node.name, step.kernel.operation, shape, step.weights, dict(step.options))
        case = (layer.operation, layer.variation, shape, output, str(step.options))
        if case not in seen:
            seen.add(case)
            yield layer
