"""What a recorded network computes with: its plans, made to fit where things are in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.idle import Idle
from npmobilenet.kernels.call import Call, Table
from npmobilenet.kernels.geometry import Pair
from npmobilenet.kernels.memory import aligned
from npmobilenet.kernels.tensor import FLOAT32
from npmobilenet.kernels.vector.target import LEVELS, Target
from npmobilenet.recorded.libraries import library
from npmobilenet.recorded.recording import FUNCTION, Arrays, RecordedNetwork, Recording, Stored
from npmobilenet.text import listed

if TYPE_CHECKING:
    from npmobilenet.blocked.plan import BlockedPlan
    from npmobilenet.recorded.layers import Layers


class RecordedProgram:
    """A recorded network, in place of a `BlockedProgram`.

    Parameters
    ----------
    network : RecordedNetwork
    arrays : Arrays
    level : str
        Of the CPU.
    """

    def __init__(self, network: RecordedNetwork, arrays: Arrays, level: str) -> None:
        self.network, self.arrays, self.target = network, arrays, LEVELS[level].target
        self.recordings: dict[tuple[tuple[str, ...], int], Recording] = arrays.unpickled(network.levels[level])
        self._layers: Layers | Stored | None = network.layers.get(level)

    @property
    def graph(self) -> RecordedProgram:
        """What has the outputs."""
        return self

    def node_of(self, output: str) -> str:
        """Return the name of an output.

        Raises
        ------
        ValueError
            If there is none of this name.
        """
        if output not in (self.network.main_output, *self.network.output_names):
            there = ", ".join(listed(self.network.output_names))
            raise ValueError(f"a packed network has no outputs but its own ({there}), got {output!r:.80}")
        return output

    def plan(
        self, size: Pair, output: str | tuple[str, ...] | None = None, threads: int = 1
    ) -> RecordedPlan | BlockedPlan:
        """Return the plan for images of ``(H, W)`` that computes one or more outputs, or the main one.

        Of the plans that were recorded it is that for the next lower number of threads, run by as many as are wanted.
        """
        names = (output,) if isinstance(output, str) else output or (self.network.main_output,)
        names = tuple(map(self.node_of, names))
        if self._layers and size != self.network.size:
            from npmobilenet.recorded.layers import Layers  # few networks have some

            if isinstance(self._layers, Stored):
                self._layers = Layers(self._layers, self.arrays, self.target)
            return self._layers.plan(size, names, threads)
        recorded = [number for outputs, number in self.recordings if outputs == names]
        if not recorded:
            raise ValueError("a packed network computes its main output or all outputs")
        recording = self.recordings[names, max(number for number in recorded if number <= threads)]
        return RecordedPlan(recording, self.arrays, self.target, threads, self.network.quantised)


class RecordedPlan:
    """A recorded plan in this process."""

    def __init__(self, recording: Recording, arrays: Arrays, target: Target, threads: int, quantised: bool) -> None:
        self.recording, self.arrays, self.threads, self.quantised = recording, arrays, threads, quantised
        addresses = [library(where, target).address(name) for where, name in recording.functions]
        self.functions = np.array(addresses, np.int64)
        self.output_shapes = recording.shapes
        table = self._new_table()
        memory = table.keep[0].nbytes
        self.memory = memory + table.scratch_bytes * threads
        self._idle = Idle(memory + table.bytes)
        self._idle.append(table)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """That of the first output, of one image."""
        return self.output_shapes[0]

    def run_into(self, image: np.ndarray, results: Sequence[np.ndarray]) -> None:
        """Compute all outputs of one image: as a `BlockedPlan` does it."""
        if self.quantised and not np.isfinite(image).all():  # 8 bits have nothing that would say so further on
            for result in results:
                result[...] = np.nan
            return
        table = self._idle.take() or self._new_table()
        table.run(np.require(image, FLOAT32, ("C", "A")), *results)
        self._idle.append(table)

    def _new_table(self) -> Table:
        """The calls, in memory of their own."""
        recording = self.recording
        arena, tables = aligned(recording.arena_values), aligned(len(self.arrays[recording.tables]), np.int64)
        bases = np.array([0, arena.ctypes.data, self.arrays.address, tables.ctypes.data, 0])
        tables[...] = self._located(recording.tables, recording.of_tables, bases)
        arguments = self._located(recording.arguments, recording.of_arguments, bases).tolist()
        calls, start = [], 0
        for function, items, shares, scratch_bytes, count in self.arrays[recording.calls].tolist():
            kernel = int(self.functions[function])
            calls.append(Call(kernel, items, arguments[start : start + count], shares, scratch_bytes))
            start += count
        return Table(calls, self.threads, (arena, tables, self.arrays))

    def _located(self, numbers: Stored, of: Stored, bases: np.ndarray) -> np.ndarray:
        """Numbers, and addresses as they are in this process."""
        kinds = self.arrays[of]
        located = self.arrays[numbers] + bases[kinds]
        functions = kinds == FUNCTION
        located[functions] = self.functions[located[functions]]
        return located
