"""One image on several threads: what each of them computes when, and where it waits.

The calls of a plan run as always, but each goes through a kernel that notes the time before and after every piece of
work that a thread takes. Between two pieces of one row a thread is asking for the next one; after its last piece it
waits for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.bench.study.study import Table
from npmobilenet.blocked.calls import Group
from npmobilenet.blocked.plan import BlockedPlan
from npmobilenet.blocked.program import BlockedProgram
from npmobilenet.kernels.blocked.layout import Fields
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.call import Table as CallTable
from npmobilenet.kernels.memory import aligned
from npmobilenet.kernels.sharing import once
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.target import host
from npmobilenet.kernels.walk.columns import HEAD, LOG
from npmobilenet.machine import available_cpus
from npmobilenet.text import plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from npmobilenet.kernels.vector.simd import Code, Integer, Pointer

TRACED = Fields("kernel number")  # before a kernel's own arguments: its address, and that of its row
NOTE = Fields("number start stop")  # of a piece of work; times by the CPU's clock
PIECES = 100_000  # that a thread has room to note
RUNS = 4  # at the first one threads are asleep
STRIPS = 3  # of the picture
KINDS = {
    "fused block": "more than one layer",
    "pointwise": "pointwise_conv2d",
    "depthwise": "depthwise",
    "first convolution": "conv2d",
    "linear": "linear",
    "other": "",
}


@dataclass(frozen=True)
class Piece:
    """What a thread computed without asking for more."""

    thread: int
    row: int
    start: float
    """Seconds since the call began."""
    stop: float


@dataclass(frozen=True)
class Row:
    """All that the threads computed of some layers."""

    name: str
    kind: str
    start: float
    stop: float
    work: tuple[float, ...]
    """Seconds of each thread."""

    @property
    def waiting(self) -> float:
        """Part of all threads' time in which none of them computed any of it."""
        return 1 - sum(self.work) / (len(self.work) * (self.stop - self.start))


@dataclass(frozen=True)
class Timeline:
    """One run: of all that were measured a quarter are shorter."""

    network: str
    width: float
    resolution: int
    threads: int
    seconds: float
    rows: list[Row]
    pieces: list[Piece]

    @property
    def title(self) -> str:
        """What was run."""
        size = f"{self.resolution}x{self.resolution}"
        return f"{self.network} {self.width:g}, {size}, one image on {plural(self.threads, 'thread')}"

    @property
    def waiting(self) -> float:
        """Part of all threads' time in which they computed nothing."""
        return 1 - sum(piece.stop - piece.start for piece in self.pieces) / (self.threads * self.seconds)

    def numbers(self) -> dict[str, Any]:
        """Return what JSON holds."""
        return {**asdict(self), "waiting": self.waiting}

    def tables(self) -> list[Table]:
        """Return a line for each call of the plan."""
        header = ("layers", "from, μs", "μs", *(f"thread {n + 1}" for n in range(self.threads)), "waiting")
        rows = [
            (row.name, f"{1e6 * row.start:.0f}", f"{1e6 * (row.stop - row.start):.1f}",
             *(f"{1e6 * one:.1f}" for one in row.work), f"{row.waiting:.0%}")
            for row in self.rows
        ]  # fmt: skip
        note = f"{1e6 * self.seconds:.0f} μs; threads wait or ask for work in {self.waiting:.1%} of their time"
        return [Table(self.title, header, rows, notes=(note,))]

    def draw(self, figure: Figure) -> None:
        """Draw a line for each thread, in strips one below the other; what is white is waiting."""
        from matplotlib.collections import PatchCollection
        from matplotlib.patches import Patch, Rectangle

        from npmobilenet.bench.study.pictures import GREY, SERIES

        figure.set_size_inches(figure.get_size_inches()[0], STRIPS * (0.5 + 0.28 * self.threads) + 0.8)
        colours = dict(zip(KINDS, (*SERIES[: len(KINDS) - 1], GREY), strict=True))
        length = 1e6 * self.seconds / STRIPS
        every = figure.subplots(STRIPS, 1)
        for strip, axes in enumerate(every):
            begin = strip * length
            for kind, colour in colours.items():
                boxes = [
                    Rectangle((1e6 * piece.start, piece.thread - 0.4), 1e6 * (piece.stop - piece.start), 0.8)
                    for piece in self.pieces
                    if self.rows[piece.row].kind == kind
                ]
                axes.add_collection(PatchCollection(boxes, facecolor=colour, edgecolor="white", linewidth=0.3))
            for row in self.rows:
                middle, wide = 5e5 * (row.start + row.stop), 1e6 * (row.stop - row.start)
                if begin <= middle < begin + length and wide > 0.008 * length * len(row.name):
                    axes.text(middle, -0.55, row.name, ha="center", va="bottom", fontsize=7)
            axes.set(xlim=(begin, begin + length), ylim=(self.threads - 0.5, -1.1), yticks=range(self.threads))
            axes.set_yticklabels([f"thread {number + 1}" for number in range(self.threads)])
            axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"μs; {self.waiting:.1%} of the threads' time is not work")
        met = {row.kind for row in self.rows}
        patches = [Patch(color=colour, label=kind) for kind, colour in colours.items() if kind in met]
        every[0].legend(handles=patches, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(patches), fontsize=8)
        every[0].set_title(self.title, loc="left")


def study(
    network: str = "mobilenet_v2",
    width: float = 1.0,
    resolution: int = 224,
    threads: int | None = None,
    rounds: int = 50,
) -> Timeline:
    """Run a network with random weights, and note who computes what.

    Raises
    ------
    ValueError
        If plain loops compute a part of the network.
    """
    graph = get_architecture(network).graph(width)
    program = BlockedProgram(graph, random_weights(graph))
    threads = threads or available_cpus()
    plan = program.plan((resolution, resolution), threads=threads)
    trace = _Trace(plan)
    image = np.random.default_rng(0).standard_normal((graph.in_channels, resolution, resolution), np.float32)
    runs = sorted((trace.run(image) for _ in range(rounds)), key=lambda pieces: _span(pieces)[1] - _span(pieces)[0])
    pieces = runs[len(runs) // 4]
    first, last = _span(pieces)
    pieces = [Piece(p.thread, p.row, p.start - first, p.stop - first) for p in pieces]
    rows = [_row(plan.groups[n], [p for p in pieces if p.row == n], trace.threads) for n in range(len(plan.groups))]
    return Timeline(network, width, resolution, trace.threads, last - first, rows, pieces)


class _Trace:
    """The table of a plan, with a note of each piece of work."""

    def __init__(self, plan: BlockedPlan) -> None:
        work = plan._idle[-1]
        if len(work.parts) > 1 or plan.plain:
            raise ValueError("plain loops compute a part of this network: it has no single table that threads walk")
        (table,), (lengths,) = work.parts, work.lengths
        group_of = np.repeat(np.arange(len(lengths)), lengths)
        traced = _library().address("traced")
        calls = [
            Call(traced, call.items, (call.kernel, group, *call.arguments), call.shares, call.scratch_bytes, call)
            for call, group in zip(table.calls, group_of, strict=True)
        ]
        self._plan, self._keep = plan, work
        self._table = CallTable(calls, plan.threads, work)
        self.threads = self._table.threads
        self._notes = [aligned(PIECES * len(NOTE.names), np.int64) for _ in range(self.threads)]

    def run(self, image: np.ndarray) -> list[Piece]:
        """Compute an image some times, one after the other, and return the last run; seconds from anywhere on."""
        cursors = [scratch[HEAD + LOG : HEAD + LOG + 8].view(np.int64) for scratch in self._table.scratch]
        starts, results = [notes.ctypes.data for notes in self._notes], self._plan.empty_results()
        for _ in range(RUNS):
            for cursor, start in zip(cursors, starts, strict=True):
                cursor[0] = start
            self._table.run(image, *results)
        pieces = []
        for thread, (cursor, notes) in enumerate(zip(cursors, self._notes, strict=True)):
            used = (int(cursor[0]) - notes.ctypes.data) // 8
            for number, start, stop in notes[:used].reshape(-1, len(NOTE.names)).tolist():
                pieces.append(Piece(thread, number, start * _tick(), stop * _tick()))
        return pieces


def _span(pieces: Sequence[Piece]) -> tuple[float, float]:
    """When the first one begins, and the last one ends."""
    return min(piece.start for piece in pieces), max(piece.stop for piece in pieces)


def _row(group: Group, pieces: Sequence[Piece], threads: int) -> Row:
    work = tuple(sum(p.stop - p.start for p in pieces if p.thread == thread) for thread in range(threads))
    blocks = dict.fromkeys(node.block for node in group)
    name = "+".join(blocks) if len(group) > 1 or group[0].name in blocks else group[0].name
    return Row(name, _kind(group), *_span(pieces), work)


def _kind(group: Group) -> str:
    if len(group) > 1:
        return "fused block"
    return next(kind for kind, part in KINDS.items() if part in group[0].operation)


@once
def _library() -> Library:
    return Library("timeline", host(), _define, None)


def _define(library: Library) -> None:
    def traced(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: another one, and a note of it."""
        a, note = TRACED.read(arguments), scratch.pointer(LOG)
        note.store_integer(a["number"])
        note.store_integer(code.clock(), 8)
        code.call(a.at("kernel"), arguments + TRACED.bytes, first, last, scratch)
        note.store_integer(code.clock(), 16)
        scratch.store_integer((note + NOTE.bytes).address(), LOG)

    def clock(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: what the CPU's clock says."""
        arguments.store_integer(code.clock())

    library.add("traced", traced)
    library.add("clock", clock)


@once
def _tick() -> float:
    """Seconds from one count of the CPU's clock to the next."""
    table = CallTable([Call(_library().address("clock"), 1, (0,))])
    counts, seconds = [], []
    for wait in (0.0, 0.05):
        until = perf_counter() + wait
        while perf_counter() < until:
            pass
        table.run()
        seconds.append(perf_counter())
        counts.append(int(table._rows[0, -1]))
    return (seconds[1] - seconds[0]) / (counts[1] - counts[0])
