"""Running a network on a CUDA device: weights and activations stay there, all images of a batch at once.

`lowering` says which kernels; here is where their tensors lie, and how they are started: the launches of a plan
are prepared once, put on a stream one after the other, and from the second call on started together (`graphs`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any
from weakref import WeakSet

import numpy as np

from npmobilenet.cuda import graphs as cuda_graphs
from npmobilenet.cuda import memory as cuda_memory
from npmobilenet.cuda.arrays import DeviceArray
from npmobilenet.cuda.layout import channels_last
from npmobilenet.cuda.lowering import lower, packed_weights
from npmobilenet.errors import MissingDependencyError, NpmobilenetError
from npmobilenet.graph import Graph
from npmobilenet.idle import Idle
from npmobilenet.kernels.cuda import device
from npmobilenet.kernels.geometry import Pair
from npmobilenet.passes import fuse
from npmobilenet.plan import ARENA_ALIGNMENT, arrange

LARGEST_BATCH = 512
LARGEST_TENSOR = 2**31 - 1  # values: kernels count in 32 bits
HEAD_START = 30  # runs of a network for which the device is busy while the host puts launches and events on its stream
UNIT = 16  # bytes: what `arrange` counts in, so that tensors start at multiples of 16 * ARENA_ALIGNMENT


class DeviceMemoryError(NpmobilenetError, MemoryError):
    """The device has too little free memory."""


class CudaProgram:
    """A graph lowered for a CUDA device, for images of any size.

    Parameters
    ----------
    graph : Graph
        As the architecture builds it; fused here.
    weights : mapping of str to float32 array
        By the graph's parameter names, in PyTorch's layout. Copied to the device, once.
    dtype : {"float32", "float16"}
        In which weights and activations are stored. Sums are float32 either way.

    Raises
    ------
    MissingDependencyError
        If there is no device, or a package is missing.
    DeviceMemoryError
        If the weights do not fit.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, np.ndarray], dtype: str = "float32") -> None:
        missing = device.problem()
        if missing:
            raise MissingDependencyError(f"the backend 'cuda' cannot run here: CUDA is {missing}")
        self.graph = fuse(graph)
        self.dtype = np.dtype(dtype)
        self.weights = self._upload(packed_weights(self.graph, weights))
        self._largest_tensors: dict[Pair, int] = {}  # of one image, by its size

    def _upload(self, packed: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """In one piece of memory, by one transfer."""
        if not packed:
            return {}
        sizes = {name: -(-array.size // ARENA_ALIGNMENT) * ARENA_ALIGNMENT for name, array in packed.items()}
        ends = dict(zip(sizes, np.cumsum(list(sizes.values())).tolist(), strict=True))
        host = np.zeros(sum(sizes.values()), self.dtype)
        places = {name: slice(ends[name] - sizes[name], ends[name] - sizes[name] + packed[name].size) for name in sizes}
        for name, place in places.items():
            host[place] = packed[name]
        memory = allocate(host.nbytes, "the weights").view(self.dtype)
        memory.copy_to_device(host)
        return {name: memory[place] for name, place in places.items()}

    def plan(
        self, size: Pair, output: str | tuple[str, ...] | None = None, batch: int = 1, fused: bool = True
    ) -> CudaPlan:
        """Return the plan for so many images of ``(H, W)`` that computes one or more outputs (`Graph.node_of`).

        Without a name that is the network's main output, without ``fused`` every layer is a launch of its own.

        Raises
        ------
        ValueError
            If the image is too small or there is no output of that name.
        """
        output = output or self.graph.main_output
        return CudaPlan(self, (output,) if isinstance(output, str) else output, size, batch, fused)

    def largest_batch(self, size: Pair) -> int:
        """How many images of ``(H, W)`` are computed at once at most."""
        if size not in self._largest_tensors:
            self._largest_tensors[size] = max(map(prod, self.graph.shapes(size).values()))
        return max(1, min(LARGEST_BATCH, LARGEST_TENSOR // self._largest_tensors[size]))


class CudaPlan:
    """Launches in order, and where each tensor of a batch lies in the arena.

    Attributes
    ----------
    batch : int
    outputs : tuple of str
        The nodes whose tensors are wanted.
    steps : list of Step
    shapes : dict of str to shape
        ``(N, H, W, C)`` or ``(N, C)`` of every tensor; ``"upload"`` is the batch as it comes from the host, float32
        (N, C, H, W).
    offsets : dict of str to int
        Where a tensor starts in the arena, in bytes.
    memory : int
        Bytes of the arena.
    """

    def __init__(self, program: CudaProgram, outputs: tuple[str, ...], size: Pair, batch: int, fused: bool) -> None:
        self.program, self.batch = program, batch
        graph = program.graph.up_to(*outputs)
        self.outputs = tuple(graph.outputs.values())
        shapes = {name: (batch, *shape[1:], shape[0]) for name, shape in graph.shapes(size).items()}
        self.steps, self.shapes = lower(graph, shapes, program.dtype, fused, program.graph)
        self.shapes["upload"] = (batch, graph.in_channels, *size)
        lifetimes = {"upload": (0, 0), "input": (0, 0)}
        for time, step in enumerate(self.steps, 1):
            for name in step.tensors:
                lifetimes[name] = (lifetimes.get(name, (time, time))[0], time)
        for name in self.outputs:
            lifetimes[name] = (lifetimes[name][0], len(self.steps))
        offsets, units = arrange(lifetimes, {name: -(-self._bytes(name) // UNIT) for name in lifetimes})
        self.offsets = {name: UNIT * offset for name, offset in offsets.items()}
        self.memory = UNIT * units
        self._idle = Idle(self.memory)
        _PLANS.add(self)

    def dtype(self, name: str) -> np.dtype:
        """The dtype of a tensor."""
        return np.dtype(np.float32) if name == "upload" else self.program.dtype

    def _bytes(self, name: str) -> int:
        return prod(self.shapes[name]) * self.dtype(name).itemsize

    @property
    def output_shape(self) -> tuple[int, ...]:
        """``(C, P, Q)`` or ``(C,)`` of the first output."""
        return self.output_shapes[0]

    @property
    def output_shapes(self) -> tuple[tuple[int, ...], ...]:
        """That of every output."""
        shapes = [self.shapes[name] for name in self.outputs]
        return tuple((shape[-1], *shape[1:-1]) for shape in shapes)

    def empty_result(self, x: np.ndarray | DeviceArray) -> np.ndarray | DeviceArray:
        """Return a place for the first output of the images ``x``, (N, C, P, Q) or (N, C), where these are."""
        return self.empty_results(x)[0]

    def empty_results(self, x: np.ndarray | DeviceArray) -> list[np.ndarray | DeviceArray]:
        """Return such a place for every output."""
        if isinstance(x, np.ndarray):
            return [np.empty((len(x), *shape), np.float32) for shape in self.output_shapes]
        results = []
        for channels, *size in self.output_shapes:
            shape, dtype = (len(x), *size, channels), self.program.dtype
            memory = allocate(prod(shape) * dtype.itemsize, "the result", ask=False)
            y = DeviceArray(cuda_memory.pointer(memory), shape, None, dtype, memory)
            results.append(y.transpose(0, 3, 1, 2) if size else y)
        return results

    # Running -----------------------------------------------------------------------------------------------

    def run(self, x: np.ndarray | DeviceArray, out: np.ndarray | DeviceArray) -> Any:
        """Compute the first output of a batch, as :meth:`run_all` does."""
        return self.run_all(x, [out])

    def run_all(self, x: np.ndarray | DeviceArray, outs: Sequence[np.ndarray | DeviceArray]) -> Any:
        """Compute a batch, (N, C, H, W), into what :meth:`empty_results` made, or a part of that, in one run.

        May be called from several Python threads at once: each takes a workspace of its own.

        Returns
        -------
        stream
            On which it is computed. On the host the results are complete now; on the device when that stream is done.
        """
        with cuda_memory.LAUNCHING:
            return self._run(self._idle.take() or Workspace(self), x, outs)

    def _run(self, work: Workspace, x: np.ndarray | DeviceArray, outs: Sequence[np.ndarray | DeviceArray]) -> Any:
        if isinstance(x, np.ndarray):
            upload = work.tensors["upload"]
            upload.copy_to_device(np.ascontiguousarray(x, np.float32).reshape(-1), stream=work.stream)
            places = [work.tensors[name] for name in self.outputs]
            work.run(DeviceArray(cuda_memory.pointer(upload), x.shape, None, np.float32, upload), places)
            results = [place.copy_to_host(stream=work.stream) for place in places]
            work.stream.synchronize()
            for name, result, out in zip(self.outputs, results, outs, strict=True):
                result = result.reshape(self.shapes[name])
                out[...] = result.transpose(0, 3, 1, 2) if result.ndim == 4 else result
        else:
            work.run(x, [out.flat for out in outs])
        self._idle.append(work)
        return work.stream

    def time_steps(self, repeats: int = 10) -> dict[str, float]:
        """Return the seconds of the launches, medians of some, by the tensor they write. The input is not set."""
        work = self._idle.take() or Workspace(self)
        work.time_launches()  # compiles
        work.graph = work.graph or work.recorded()
        times = [work.time_launches() for _ in range(repeats)]
        self._idle.append(work)
        seconds = dict.fromkeys((step.output for step in self.steps), 0.0)
        for step, one in zip(self.steps, np.median(times, axis=0).tolist(), strict=True):
            seconds[step.output] += one
        return seconds


class Workspace:
    """What one call at a time needs: a stream, an arena with its tensors, launches with their arrays."""

    def __init__(self, plan: CudaPlan) -> None:
        n, _, h, w = plan.shapes["upload"]
        self.arena = allocate(plan.memory, f"a batch of {n} ({h}x{w})")
        self.stream = cuda_memory.stream()
        self.tensors = {
            name: self.arena[start : start + plan._bytes(name)].view(plan.dtype(name))
            for name, start in plan.offsets.items()
        }
        arrays = {**plan.program.weights, **self.tensors}
        self.channels_last = channels_last(plan.shapes["input"])
        self.launches = [(step.launch, [arrays[name] for name in step.operands]) for step in plan.steps]
        self.outputs, self.last = plan.outputs, plan.steps[-1].output
        self.between = [
            launch for launch, step in zip(self.launches, plan.steps, strict=True) if step.output != self.last
        ]
        self.end = [
            (*launch, step.operands.index(self.last))
            for launch, step in zip(self.launches, plan.steps, strict=True)
            if step.output == self.last
        ]
        self.graph: cuda_graphs.Graph | None = None
        self.calls = 0

    def run(self, x: DeviceArray, outs: Sequence[Any]) -> None:
        """Put a batch on the stream; the outputs go to the flat arrays ``outs``.

        The first launch reads what the caller gave, and those of the last tensor, which none reads after them, write
        to where the caller wants it. Those between have the same arrays in every call, and are recorded; what they make
        of the outputs is copied.
        """
        stream = self.stream
        self.channels_last(stream, x, self.tensors["input"])
        if self.calls == 1 and not self.graph:
            self.graph = self.recorded()
        if self.graph and cuda_graphs.switched_on():
            self.graph.launch(cuda_memory.handle(stream))
        else:
            self._between(stream)
        made = {**self.tensors, self.last: outs[self.outputs.index(self.last)]}
        for launch, arrays, place in self.end:
            launch(stream, *arrays[:place], made[self.last], *arrays[place + 1 :])
        for name, out in zip(self.outputs, outs, strict=True):
            if out is not made[name]:
                out.copy_to_device(made[name], stream=stream)
        self.calls += 1

    def _between(self, stream: Any) -> None:
        for launch, arrays in self.between:
            launch(stream, *arrays)

    def recorded(self) -> cuda_graphs.Graph | None:
        """The launches that are the same in every call, if there are enough of them and they can be recorded."""
        if len(self.between) < 2:
            return None
        return cuda_graphs.record(lambda handle: self._between(cuda_memory.external_stream(handle)))

    def time_launches(self) -> list[float]:
        """Launch everything between events; return the seconds of each launch."""
        events = [cuda_memory.event() for _ in range(len(self.launches) + 1)]
        for _ in range(HEAD_START if self.graph else 0):  # so that the device never waits for the host
            self.graph.launch(cuda_memory.handle(self.stream))
        events[0].record(self.stream)
        for (launch, arrays), event in zip(self.launches, events[1:], strict=True):
            launch(self.stream, *arrays)
            event.record(self.stream)
        self.stream.synchronize()
        return [1e-3 * start.elapsed_time(end) for start, end in pairwise(events)]


_PLANS: WeakSet[CudaPlan] = WeakSet()  # of all programs: what they keep for the next call can be given up


def allocate(size: int, what: str, ask: bool = True) -> Any:
    """Return so many bytes on the device, giving up idle workspaces for them where it must be.

    Without ``ask`` the device is asked what is free only when there is too little, since that takes a while.

    Raises
    ------
    DeviceMemoryError
        If they are not free.
    """
    for asked in (ask, True):
        if not asked or size <= cuda_memory.free_memory():
            try:
                return cuda_memory.empty(max(size, UNIT), np.uint8)
            except cuda_memory.OutOfMemory:  # in no one piece
                pass
        for plan in list(_PLANS):
            plan._idle.clear()
    needed, free = size / 2**20, cuda_memory.free_memory() / 2**20
    raise DeviceMemoryError(
        f"too little memory on the GPU for {what}: {needed:,.1f} MiB needed, {free:,.1f} MiB free; take smaller "
        "batches or images, or dtype='float16', or end what else uses the GPU (PyTorch keeps what it once took)"
    )
