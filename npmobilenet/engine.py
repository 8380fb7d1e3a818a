"""Running a network: plans per image size, batches, threads."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.backends import DEFAULT, checked_backend
from npmobilenet.idle import KEEP_BYTES, checked_keep_bytes, let_go
from npmobilenet.kernels.geometry import Pair
from npmobilenet.kernels.sharing import MAKING, give_lock
from npmobilenet.kernels.tensor import FLOAT32
from npmobilenet.kernels.walk.threads import share
from npmobilenet.text import listed, plural

if TYPE_CHECKING:
    from npmobilenet.blocked.plan import BlockedPlan
    from npmobilenet.blocked.program import BlockedProgram
    from npmobilenet.cuda.arrays import DeviceArray
    from npmobilenet.cuda.plan import CudaPlan, CudaProgram
    from npmobilenet.graph import Graph
    from npmobilenet.plan import Plan, Program
    from npmobilenet.recorded.program import RecordedPlan, RecordedProgram

    AnyProgram = Program | BlockedProgram | CudaProgram | RecordedProgram
    AnyPlan = Plan | BlockedPlan | CudaPlan | RecordedPlan

Outputs = str | tuple[str, ...] | None
DTYPES = ("float32", "float16", "int8")  # in which weights and activations are stored
NO_INT8_ON_CUDA = "the backend 'cuda' has no 8-bit kernels: dtype 'int8' is for a CPU's backends"
PLANS_KEPT = 16  # image sizes (on a GPU: and batch sizes) whose plan, with its arena, is kept for the next call


class Engine:
    """Computes the outputs of one network on one backend.

    Results are the same bit for bit whatever the number of threads and the batch an image is part of; on a GPU in
    every run of one batch size. Any number of Python threads may call :meth:`run` at once.

    Parameters
    ----------
    graph, weights, backend, dtype
        As for :class:`~npmobilenet.model.Model`.
    keep_bytes : int, optional
        How many bytes of working memory are kept between calls; `idle.KEEP_BYTES` if None, on a GPU all that is not
        needed otherwise.

    Raises
    ------
    ValueError
        If there is no such backend, it cannot store its numbers as `dtype`, one of :data:`DTYPES`, or it is "blocked"
        and cannot compute this network.

    Attributes
    ----------
    backend : str
        What computes: of "auto" the one that it has come to.
    fallback : str
        Which layers, or all, plain loops compute that "auto" would have computed faster, and why; empty if there are
        none.
    plain_layers : dict of str to str
        Such layers of a network that blocked kernels compute but for them, and why.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, np.ndarray],
        backend: str = DEFAULT,
        dtype: str = "float32",
        keep_bytes: int | None = None,
    ) -> None:
        backend = checked_backend(backend)
        _check_dtype(dtype, backend, graph)
        with MAKING:  # imports the compilers
            program, self.backend, self.fallback = _program(graph, weights, backend, dtype)
        self.plain_layers = dict(getattr(program, "problems", {}))
        graph = program.graph
        main = graph.up_to(graph.main_output)
        main_output = None if len(main.nodes) == len(graph.nodes) else graph.main_output  # of no output: all nodes
        self._begin(program, main_output, keep_bytes)

    @classmethod
    def of(cls, program: RecordedProgram, keep_bytes: int | None = None) -> Engine:
        """Return an engine for a network that was lowered before."""
        engine = cls.__new__(cls)
        engine.backend, engine.fallback, engine.plain_layers = "blocked", "", {}
        engine._begin(program, None, keep_bytes)
        return engine

    def _begin(self, program: AnyProgram, main_output: str | None, keep_bytes: int | None) -> None:
        self.program, self._main = program, main_output
        self.on_device = self.backend == "cuda"
        self.keep_bytes = checked_keep_bytes(keep_bytes)
        if self.keep_bytes is None:
            self.keep_bytes = sys.maxsize if self.on_device else KEEP_BYTES
        self._plans: OrderedDict[tuple[Pair, Outputs, int], AnyPlan] = OrderedDict()
        self._last: tuple = (), None, ()  # what was asked for, the plan for it, and the shape of its result
        give_lock(self)

    def plan(self, size: Pair, output: Outputs = None, parallel: int = 1) -> AnyPlan:
        """Return the plan for images of ``(H, W)``, made when it is first asked for.

        ``output`` is as for :meth:`run`; several names make one plan for all of them.

        ``parallel`` is the number of threads that compute an image; on a GPU the number of images.
        """
        key = (size, output, parallel)
        with self._lock:
            plan = self._plans.pop(key, None) or self.program.plan(size, output, parallel)
            self._plans[key] = plan
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
                self._last = (), None, ()
        return plan

    def release(self) -> None:
        """Let all working memory go; the next call takes it anew. A call that is under way keeps its own."""
        with self._lock:
            self._plans.clear()
            self._last = (), None, ()

    def run(self, x: np.ndarray | DeviceArray, threads: int = 1, output: str | None = None) -> np.ndarray | DeviceArray:
        """Compute a batch.

        Parameters
        ----------
        x : float array (N, C, H, W)
        threads : int
            A single image is computed by all of them together; of several images each thread takes its own. A GPU
            computes all images at once.
        output : str, optional
            The block or node whose output is wanted; the logits if None.

        Returns
        -------
        float32 array (N, C, P, Q) or (N, C)
            On the device if ``x`` is, and then of the dtype in which the network is stored.
        """
        # A single image, often of the last one's size: what little is done then, is done while caches are cold.
        key = x.shape, threads, output
        asked, plan, shape = self._last
        if asked != key:
            if self.on_device:
                return self._run_on_device(x, tuple(x.shape[2:]), output or self._main)[0]
            if len(x) != 1:
                return self._run_all(x, threads, output or self._main)[0]
            plan = self.plan(tuple(x.shape[2:]), output or self._main, threads)
            shape = (1, *plan.output_shape)
            self._last = key, plan, shape
        result = np.empty(shape, FLOAT32)
        plan.run_into(x, (result,))
        if len(plan._idle) > plan._idle.settled:
            self._let_go(plan)
        return result

    def _run_all(self, x: np.ndarray, threads: int, output: Outputs) -> list[np.ndarray]:
        """The results, by output, of any number of images."""
        alone, together, rounds = self._plans_for(len(x), tuple(x.shape[2:]), output, threads)
        results = [np.empty((len(x), *shape), np.float32) for shape in (alone or together).output_shapes]

        def compute(index: int) -> None:
            plan = alone if index < rounds else together
            plan.run_into(x[index], [result[index] for result in results])

        self._each(compute, len(x), rounds, threads)
        self._let_go(alone, together)
        return results

    def outputs(
        self, x: np.ndarray | DeviceArray, names: Sequence[str], threads: int = 1
    ) -> dict[str, np.ndarray | DeviceArray]:
        """Compute several outputs of a batch in one run, each with the bits that it has alone.

        Parameters
        ----------
        x, threads
            As for :meth:`run`.
        names : sequence of str
            Each as the ``output`` of :meth:`run`.

        Returns
        -------
        dict of str to array, in the order of the names
        """
        nodes = {name: self.program.graph.node_of(name) for name in names}  # an unknown one before all work
        if len(nodes) < 2:
            return {name: self.run(x, threads, name) for name in nodes}
        if self.on_device:
            return dict(zip(nodes, self._run_on_device(x, tuple(x.shape[2:]), tuple(nodes)), strict=True))
        return dict(zip(nodes, self._run_all(x, threads, tuple(nodes)), strict=True))

    def _plans_for(
        self, images: int, size: Pair, output: Outputs, threads: int
    ) -> tuple[AnyPlan | None, AnyPlan | None, int]:
        """The plan for images that a thread computes alone, that for all threads, and how many images are the former's.

        Those make rounds in which each thread has an image of its own.
        """
        rounds = images // threads * threads if threads > 1 else 0
        alone = self.plan(size, output, 1) if rounds else None
        together = self.plan(size, output, threads) if rounds < images or not rounds else None
        return alone, together, rounds

    @staticmethod
    def _each(compute: Callable[[int], None], images: int, rounds: int, threads: int) -> None:
        if rounds:
            share(compute, rounds, threads)
        for index in range(rounds, images):
            compute(index)

    def _let_go(self, *used: AnyPlan | None) -> None:
        """Keep no more working memory than is allowed, after a call that used these plans."""
        for plan in used:
            if plan is not None and len(plan._idle) > plan._idle.settled:
                let_go((plan._idle for plan in list(self._plans.values())), self.keep_bytes)

    def _run_on_device(
        self, x: np.ndarray | DeviceArray, size: Pair, output: Outputs
    ) -> list[np.ndarray | DeviceArray]:
        """All images at once, or as many at a time as kernels can count the values of; an array for each output."""
        most = self.program.largest_batch(size)
        results = self.plan(size, output, min(max(len(x), 1), most)).empty_results(x)
        for start in range(0, len(x), most):
            part = slice(start, start + most)
            plan = self.plan(size, output, len(x[part]))
            stream = plan.run_all(x[part], [result[part] for result in results])
            if not isinstance(x, np.ndarray):
                for result in results:
                    result.follow(stream)
            self._let_go(plan)
        return results


def _check_dtype(dtype: str, backend: str, graph: Graph) -> None:
    if dtype not in DTYPES or (dtype == "float16" and backend != "cuda"):
        raise ValueError(
            f"dtype must be float32, int8, or float16 with the backend 'cuda'; got {dtype!r:.40} with {backend!r}"
        )
    if graph.is_quantised and backend == "cuda":
        raise ValueError(NO_INT8_ON_CUDA)
    if graph.is_quantised != (dtype == "int8"):
        raise ValueError(
            "dtype 'int8' is that of a quantised graph and of no other: npmobilenet.quantize(model) makes one"
        )


def _program(graph: Graph, weights: Mapping[str, np.ndarray], backend: str, dtype: str) -> tuple[AnyProgram, str, str]:
    """The graph lowered for a backend, and which that is; of "auto" also what plain loops compute of it, and why."""
    if backend == "cuda":
        from npmobilenet.cuda.plan import CudaProgram

        return CudaProgram(graph, weights, dtype), backend, ""
    from npmobilenet.plan import Program

    if backend not in ("auto", "blocked"):
        return Program(graph, weights, backend), backend, ""
    from npmobilenet.blocked.program import BlockedProgram, UnsupportedGraphError

    try:
        program = BlockedProgram(graph, weights, strict=backend == "blocked")
    except UnsupportedGraphError as error:
        if backend == "blocked":
            raise ValueError(
                f"the backend 'blocked' cannot compute this network ({error}); 'auto' has plain loops compute the rest"
            ) from None
        slower = "plain loops compute this network, several times slower than the fastest kernels, which cannot"
        return Program(graph, weights, "plain"), "plain", f"{slower}: {error}"
    if not program.problems:
        return program, "blocked", ""
    layers = [f"{name}: {problem}" for name, problem in program.problems.items()]
    which = "; ".join(listed(layers, 3))
    total = plural(len(program.graph.nodes), "layer")
    why = f"plain loops compute {len(layers)} of {total}, which the fastest kernels cannot ({which})"
    return program, "blocked", why
