"""Layers of a packed network whose images differ in size: there is no plan until a size is known."""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any

from npmobilenet.blocked.plan import BlockedPlan
from npmobilenet.recorded.libraries import library
from npmobilenet.recorded.recording import Arrays, Stored

if TYPE_CHECKING:
    from npmobilenet.kernels.geometry import Pair
    from npmobilenet.kernels.vector.target import Target


class _Unpickler(pickle.Unpickler):
    """Reads what `packing.layers` wrote: arrays are where they lie in the file, libraries are opened."""

    def __init__(self, content: bytes, arrays: Arrays, target: Target) -> None:
        super().__init__(io.BytesIO(content))
        self._arrays, self._target = arrays, target

    def persistent_load(self, found: Stored | str) -> Any:
        return library(found, self._target) if isinstance(found, str) else self._arrays[Stored(*found)]


class Layers:
    """A fused graph with its packed weights, as a `BlockedProgram` has them."""

    def __init__(self, stored: Stored, arrays: Arrays, target: Target) -> None:
        self.target = target
        self.graph, self.weights, self.codes = _Unpickler(arrays[stored].tobytes(), arrays, target).load()

    def plan(self, size: Pair, outputs: tuple[str, ...], threads: int) -> BlockedPlan:
        """Return the plan for images of ``(H, W)``."""
        graph = self.graph.up_to(*outputs)
        return BlockedPlan(graph, self.weights, {}, self.codes, self.target, size, threads)
