"""Running a network: plans per image size, batches, threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.geometry import Pair
from npmobilenet.graph import Graph
from npmobilenet.plan import Plan, Program

if TYPE_CHECKING:
    from npmobilenet.blocked_plan import BlockedPlan
    from npmobilenet.blocked_program import BlockedProgram

BACKENDS = ("cpu", "njit", "reference")
PLANS_KEPT = 16  # image sizes whose plan, with its arena, is kept for the next call


class Engine:
    """Computes the outputs of one network on one backend.

    Results are the same bit for bit whatever the number of threads and the batch an image is part of. Any
    number of Python threads may call :meth:`run` at once.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, np.ndarray], backend: str = "cpu") -> None:
        self.program = _program(graph, weights, backend)
        self._plans: OrderedDict[tuple[Pair, str | None, int], Plan | BlockedPlan] = OrderedDict()
        self._lock = threading.Lock()

    def plan(self, size: Pair, output: str | None = None, threads: int = 1) -> Plan | BlockedPlan:
        """Return the plan for images of ``(H, W)``, made when it is first asked for."""
        key = (size, output, threads)
        with self._lock:
            plan = self._plans.pop(key, None) or self.program.plan(size, output, threads)
            self._plans[key] = plan
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
        return plan

    def run(self, x: np.ndarray, threads: int = 1, output: str | None = None) -> np.ndarray:
        """Compute a batch.

        Parameters
        ----------
        x : float array (N, C, H, W)
        threads : int
            A single image is computed by all of them together; of several images each thread takes its own.
        output : str, optional
            The block or node whose output is wanted; the logits if None.

        Returns
        -------
        float32 array (N, C, P, Q) or (N, C)
        """
        size = x.shape[2:]
        rounds = len(x) // threads * threads if threads > 1 else 0  # in which each thread has an image of its own
        alone = self.plan(size, output, 1) if rounds else None
        together = self.plan(size, output, threads) if rounds < len(x) or not rounds else None
        result = np.empty((len(x), *(alone or together).output_shape), np.float32)

        def compute(index: int) -> None:
            result[index] = (alone if index < rounds else together).run(x[index])

        if rounds:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(compute, range(rounds)))
        for index in range(rounds, len(x)):
            compute(index)
        return result


def _program(graph: Graph, weights: Mapping[str, np.ndarray], backend: str) -> Program | BlockedProgram:
    """The blocked kernels for the CPU; plain ones for a graph that these cannot compute, or where asked for."""
    if backend == "cpu":
        from npmobilenet.blocked_program import BlockedProgram, UnsupportedGraphError

        try:
            return BlockedProgram(graph, weights)
        except UnsupportedGraphError:
            pass
    return Program(graph, weights, "reference" if backend == "reference" else "cpu")
