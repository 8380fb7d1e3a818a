"""Plans written down, to be run in another process: numbers, and for each address what it is the address of.

A plan is made twice, with everything it leads to in two places of memory. What differs between the two is an address;
what it belongs to lies as far from it in both.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from npmobilenet.blocked.plan import BlockedPlan
from npmobilenet.blocked.program import BlockedProgram
from npmobilenet.errors import NpmobilenetError
from npmobilenet.kernels.blocked import activation, mixed
from npmobilenet.kernels.blocked.depthwise import Depthwise
from npmobilenet.kernels.memory import ALIGNMENT
from npmobilenet.kernels.vector import lookup
from npmobilenet.kernels.vector.mapped import names
from npmobilenet.kernels.vector.target import Target
from npmobilenet.recorded.recording import ARENA, FUNCTION, NUMBER, STORED, TABLES, RecordedNetwork, Recording, Stored

if TYPE_CHECKING:
    from npmobilenet.model import Model

THREADS = (1, 2, 4, 8, 16)
"""Numbers of threads for which plans are recorded."""


class Blob:
    """The arrays of a pack, each at the beginning of a cache line; the same bytes are there once."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._known: dict[bytes, int] = {}
        self.size = 0

    def add(self, array: np.ndarray) -> Stored:
        """Store an array and say where it is."""
        return Stored(self.place(array.tobytes()), array.dtype.str, array.shape)

    def place(self, content: bytes) -> int:
        """Store bytes and return where they begin."""
        if content not in self._known:
            self._known[content] = self.size
            self._parts.append(content + bytes(-len(content) % ALIGNMENT + ALIGNMENT))  # kernels may read a line more
            self.size += len(self._parts[-1])
        return self._known[content]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._parts)


class Functions:
    """The functions of all libraries that were asked for, for one CPU, by their addresses."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._names: dict[int, tuple[str, str]] = {}
        self._read: set[str] = set()

    def update(self) -> None:
        """Look at what has been asked for since."""
        for (library, of), served in list(lookup.served.items()):
            if of == self.target and library not in self._read:
                self._read.add(library)
                for name in names(lookup.shared_object(library, of)):
                    self._names[served.functions.address(name)] = library, name

    def get(self, address: int) -> tuple[str, str] | None:
        """Return a function's library and name, if it is one."""
        return self._names.get(address)

    def among(self, numbers: np.ndarray) -> np.ndarray:
        """Say which numbers are functions' addresses."""
        return np.isin(numbers, np.fromiter(self._names, np.int64, len(self._names)))


class Gathered(NamedTuple):
    """Where the gathered weights of a program are, which belong together: they stream."""

    address: int
    size: int

    def bytes(self) -> bytes:
        """What stands there."""
        return ctypes.string_at(self.address, self.size)


def gathered_memory(program: BlockedProgram) -> Gathered:
    """Return where a program's weights are; nowhere if it has none."""
    arrays: list[np.ndarray] = []
    for packed in program.weights.values():
        packed.moved(lambda array: arrays.append(array) or array)
    begin = min((array.ctypes.data for array in arrays), default=0)
    return Gathered(begin, max((array.ctypes.data + array.nbytes for array in arrays), default=0) - begin)


def described(
    model: Model, size: tuple[int, int], levels: dict[str, Stored], layers: dict[str, Stored], any_size: bool
) -> RecordedNetwork:
    """Return what is known of a network besides its arrays, with plans for images of this size."""
    graph = model.graph
    return RecordedNetwork(
        model.architecture,
        model.width,
        model.dtype,
        model.source,
        model.classes,
        model.multi_label,
        model.preprocessing,
        model._detector,
        model._has_logits,
        model._segments,
        graph.is_quantised,
        graph.in_channels,
        size,
        graph.main_output,
        graph.output_names,
        model.input_name,
        model.channels_last,
        levels,
        layers,
        any_size,
    )


class Memory(NamedTuple):
    """Where something is in both plans, its size in bytes, and as what it is recorded."""

    starts: tuple[int, int]
    size: int
    kind: int
    table: np.ndarray | None = None  # of int64, which may hold addresses itself
    twin: np.ndarray | None = None
    owner: object = None


class Recorder:
    """Records the plans of a network for one CPU.

    Parameters
    ----------
    programs : (BlockedProgram, BlockedProgram)
        Of the same network, made one after the other.
    blob : Blob
        Where arrays go.
    """

    def __init__(self, programs: tuple[BlockedProgram, BlockedProgram], blob: Blob) -> None:
        self.programs, self.blob, self.target = programs, blob, programs[0].target
        self.functions = Functions(self.target)
        self.used: dict[str, None] = {}
        """The libraries of all functions that were recorded."""

    def record(self, size: tuple[int, int], output: str | tuple[str, ...], threads: int) -> Recording:
        """Record a plan.

        Raises
        ------
        NpmobilenetError
            If it has layers that plain kernels compute, or something that cannot be written down.
        """
        plans = [program.plan(size, output, threads) for program in self.programs]
        self.functions.update()
        return _Recording(self, plans).recorded()


class _Recording:
    """The recording of one plan."""

    def __init__(self, recorder: Recorder, plans: Sequence[BlockedPlan]) -> None:
        self.recorder, self.plans = recorder, plans
        works = [plan._idle[0] for plan in plans]
        if len(works[0].parts) != 1 or any(read is not None for read in works[0].results):
            raise NpmobilenetError("it has layers that loops compute, for which there must be a compiler")
        self.tables = [work.table for work in works]
        self.numbers: dict[tuple[str, str], int] = {}
        self.places: dict[int, tuple[int, int]] = {}  # what was stored, by its first address: what it is, and where
        self.rows: list[int] = []  # of all tables that calls lead to
        self.of_rows: list[int] = []
        self.memory = [
            Memory((works[0].arena.ctypes.data, works[1].arena.ctypes.data), works[0].arena.nbytes, ARENA),
            *self._weights(),
            *self._arrays(),
        ]
        self.common = {memory.starts[0]: memory for memory in self.memory if len({*memory.starts}) == 1}
        self.arena_values = works[0].arena.size

    def recorded(self) -> Recording:
        """Return it."""
        calls, arguments, kinds = [], [], []
        for first, second in zip(*(table.calls for table in self.tables), strict=True):
            kernel = self._function(first.kernel)
            calls.append((kernel, first.items, first.shares, first.scratch_bytes, len(first.arguments)))
            for pair in zip(first.arguments, second.arguments, strict=True):
                kind, number = self._told(*pair)
                kinds.append(kind)
                arguments.append(number)
        add = self.recorder.blob.add
        return Recording(
            tuple(self.numbers),
            add(np.array(calls, np.int64)),
            add(np.array(arguments, np.int64)),
            add(np.array(self.rows, np.int64)),
            add(np.array(kinds, np.uint8)),
            add(np.array(self.of_rows, np.uint8)),
            self.arena_values,
            self.plans[0].output_shapes,
        )

    # What addresses there may be ---------------------------------------------------------------------------

    def _weights(self) -> Iterator[Memory]:
        """The memory of all gathered weights."""
        first, second = map(gathered_memory, self.recorder.programs)
        yield Memory((first.address, second.address), first.size, STORED)

    def _arrays(self) -> Iterator[Memory]:
        """What calls find besides; what stands within another array, as part of that."""
        pairs = zip(*(_arrays_of([call.keep for call in table.calls]) for table in self.tables), strict=True)
        found: dict[tuple[int, int], Memory] = {}
        for (first, owner), (second, _) in pairs:
            if first.flags.c_contiguous:
                place = first.ctypes.data, first.nbytes
                table = (first, second) if first.dtype == np.int64 else (None, None)
                if place not in found or owner is not None:
                    found[place] = Memory((place[0], second.ctypes.data), first.nbytes, STORED, *table, owner)
        yield from found.values()
        for name, bounds in activation.CLAMPS.items():
            address = activation.clamp(name)
            yield Memory((address, address), len(bounds) * np.dtype(np.float32).itemsize, STORED)

    # What numbers are --------------------------------------------------------------------------------------

    def _told(self, first: int, second: int) -> tuple[int, int]:
        """What a number is, and how it is written down."""
        if self.recorder.functions.get(first):
            return FUNCTION, self._function(first)
        if first == second:  # a number, or what both plans have in common
            common = self.common.get(first)
            return self._place(common, 0) if common else (NUMBER, first)
        found = [memory for memory in self.memory if _is_within(memory, first, second)]
        if not found:
            raise NpmobilenetError("a number in it differs from process to process, and is no known address")
        # Of what begins where another ends the former; of an array that is part of another the latter.
        best = min(found, key=lambda memory: (first == memory.starts[0] + memory.size, -memory.size))
        return self._place(best, first - best.starts[0])

    def _function(self, address: int) -> int:
        """The number of a function."""
        found = self.recorder.functions.get(address)
        if found is None:
            raise NpmobilenetError("it calls a function that is in no known library")
        self.recorder.used[found[0]] = None
        return self.numbers.setdefault(found, len(self.numbers))

    def _place(self, memory: Memory, distance: int) -> tuple[int, int]:
        """Where something is that has been, or is now, stored: its kind, and its address as a distance."""
        if memory.kind != STORED:
            return memory.kind, distance
        start = memory.starts[0]
        if start not in self.places:
            if memory.table is not None and self._has_addresses(memory):
                self.places[start] = TABLES, self._table(memory)
            else:
                self.places[start] = STORED, self.recorder.blob.place(ctypes.string_at(start, memory.size))
        kind, place = self.places[start]
        return kind, place + distance

    def _has_addresses(self, memory: Memory) -> bool:
        return bool((memory.table != memory.twin).any() or self.recorder.functions.among(memory.table).any())

    def _table(self, memory: Memory) -> int:
        """Record a table of numbers to which arguments lead, and return where it begins, in bytes."""
        begin = len(self.rows)
        told = [self._told_in(memory, at) for at in range(memory.table.size)]
        self.of_rows += [kind for kind, _ in told]
        self.rows += [number for _, number in told]
        return 8 * begin

    def _told_in(self, memory: Memory, at: int) -> tuple[int, int]:
        """What a number of a table is. Of a mixed convolution's windows weights begin before their array."""
        first, second = int(memory.table.flat[at]), int(memory.twin.flat[at])
        run, field = divmod(at - 1, len(mixed.RUN.names))
        if isinstance(memory.owner, Depthwise) and mixed.RUN.names[field] == "weights" and at:
            array = memory.owner.keep[run]
            (weights,) = (one for one in self.memory if one.starts[0] == array.ctypes.data)
            return self._place(weights, first - weights.starts[0])
        return self._told(first, second)


def _is_within(memory: Memory, first: int, second: int) -> bool:
    """Whether two addresses are of the same place in it; the one after the last is part of it."""
    distance = first - memory.starts[0]
    return 0 <= distance <= memory.size and distance == second - memory.starts[1]


def _arrays_of(value: object, owner: object = None) -> Iterator[tuple[np.ndarray, object]]:
    """All arrays of an object, in the same order for the same network, each with what it is the weights of."""
    if isinstance(value, np.ndarray):
        yield value, owner
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _arrays_of(each, owner)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _arrays_of(each, owner)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _arrays_of(getattr(value, field.name), value)
