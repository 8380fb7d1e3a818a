"""What LLVM makes of a kernel: its machine code, the inner loop found in it, its instructions counted.

A loop is as fast as its multiply-adds where nothing else keeps the units for them waiting: few loads for each, no
vectors on the stack.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

from npmobilenet.bench.study import machine_code, plain_loops
from npmobilenet.bench.study.machine_code import KINDS, Counts, Loop
from npmobilenet.bench.study.study import Table
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.code import common, depthwise, stem
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.target import Target, host

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINUX, _ARM_LINUX = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
TARGETS = {
    "sse2": ("x86-64", "", _LINUX),
    "avx": ("sandybridge", "+avx", _LINUX),
    "avx2": ("haswell", "+avx,+avx2,+fma", _LINUX),
    "avx512": ("sapphirerapids", "+avx,+avx2,+fma,+avx512f,+avx512bw,+avx512dq,+avx512vl", _LINUX),
    "neon": ("neoverse-n1", "+neon,+fp-armv8", _ARM_LINUX),
}
"""CPU, features and triple, in LLVM's words."""
_WINDOW = re.compile(r"(depthwise|stem)_(\d+)x(\d+)_s(\d+)x(\d+)")


@dataclass(frozen=True)
class Function:
    """A kernel's machine code: lines of assembly, its busiest inner loop, and what both are made of."""

    name: str
    lines: list[str]
    loop: Loop | None
    counts: Counts
    loop_counts: Counts | None

    @classmethod
    def read(cls, name: str, lines: list[str]) -> Function:
        """Look through the lines of a function, without directives."""
        lines = [_spaced(line) for line in lines if machine_code.is_instruction(line) or line.endswith(":")]
        loop = machine_code.busiest_loop(lines)
        inside = lines[loop.start : loop.end + 1] if loop else []
        return cls(name, lines, loop, machine_code.count(lines), machine_code.count(inside) if loop else None)

    def numbers(self) -> dict[str, Any]:
        """Return what JSON holds."""
        loop = self.loop_counts and {**_numbers(self.loop_counts), "lines": [self.loop.start + 1, self.loop.end + 1]}
        return {"name": self.name, "function": _numbers(self.counts), "inner_loop": loop}


@dataclass(frozen=True)
class Machine:
    """One kernel, or the list of all."""

    target: str
    functions: list[Function]
    listing: list[str]
    marked: Loop | None
    chosen: bool
    ir: bool
    whole: bool

    def numbers(self) -> dict[str, Any]:
        """Return what JSON holds."""
        found = {"target": self.target, "functions": [function.numbers() for function in self.functions]}
        return {**found, "listing": self._shown()} if self.chosen else found

    def tables(self) -> list[Table]:
        """Return the counts; of one kernel its code too."""
        if not self.chosen:
            return [self._list()]
        (function,) = self.functions
        rows = [("whole function", *_cells(function.counts))]
        if function.loop_counts:
            rows.append(("inner loop", *_cells(function.loop_counts)))
        counts = Table(f"{function.name} for {self.target}", ("", *_COLUMNS), rows, notes=_notes(function.loop_counts))
        begin = 0 if self.whole or self.marked is None else self.marked.start
        code = [
            (
                str(begin + at + 1),
                "|" if self.marked and self.marked.start <= begin + at <= self.marked.end else " ",
                line,
            )
            for at, line in enumerate(self._shown())
        ]
        what = "LLVM IR" if self.ir else "machine code"
        part = "" if self.whole or self.marked is None else ": the inner loop; all with --all"
        marks = " (marked: the inner loop)" if self.whole and self.marked else ""
        return [counts, Table(f"{what}{part}{marks}", (), code, texts=3)]

    def _list(self) -> Table:
        rows = []
        for function in self.functions:
            loop = function.loop_counts
            rows.append(
                (function.name, str(function.counts.instructions), *(_cells(loop) if loop else [""] * len(_COLUMNS)))
            )
        return Table(
            f"Kernels for {self.target}, and the busiest inner loop of each",
            ("kernel", "whole", *_COLUMNS),
            rows,
            notes=(
                "whole: instructions of the function; the others count those of its inner loop, if it has one",
                "besides: depthwise_KxK_sSxS, stem_KxK_sSxS for other windows, such as depthwise_5x5_s2x2_row_7",
                f"compiled by Numba: {', '.join(plain_loops.names())}",
            ),
        )

    def _shown(self) -> list[str]:
        if self.whole or self.marked is None:
            return self.listing
        return self.listing[self.marked.start : self.marked.end + 1]

    def draw(self, figure: Figure) -> None:
        """Of one kernel its instructions in order; of all the make-up of their inner loops."""
        if self.chosen:
            self._draw_one(figure)
        else:
            self._draw_all(figure)

    def _draw_one(self, figure: Figure) -> None:
        from npmobilenet.bench.study.pictures import BLACK

        (function,) = self.functions
        above, below = figure.subplots(2, 1, height_ratios=(1, 2.2))
        kinds = [machine_code.kind_of(line) if machine_code.is_instruction(line) else None for line in function.lines]
        for kind, colour in _colours().items():
            at = [place for place, found in enumerate(kinds) if found == kind]
            above.bar(at, [1] * len(at), 1.0, color=colour)
        if function.loop:
            span = (function.loop.start - 0.5, function.loop.end + 0.5)
            above.plot(span, (1.12, 1.12), color=BLACK, linewidth=3, solid_capstyle="butt")
            above.annotate("inner loop", (sum(span) / 2, 1.16), ha="center", va="bottom")
        above.set_xlim(-1, len(kinds))
        above.set_ylim(0, 1.6)
        above.set_yticks([])
        above.spines["left"].set_visible(False)
        above.grid(visible=False)
        above.set_xlabel("line of the machine code")
        above.set_title(f"{function.name} for {self.target}")
        counts = function.loop_counts or function.counts
        names = list(KINDS)[::-1]
        bars = below.barh(names, [counts.kinds[name] for name in names], color=[_colours()[name] for name in names])
        below.bar_label(bars, padding=3)
        below.set_xlabel(f"instructions of the {'inner loop' if function.loop else 'function'}")
        below.grid(axis="y", visible=False)
        below.margins(x=0.08)

    def _draw_all(self, figure: Figure) -> None:
        found = [function for function in self.functions if function.loop_counts and function.loop_counts.vector]
        figure.set_size_inches(figure.get_size_inches()[0], 1.2 + 0.24 * len(found))
        axes = figure.subplots()
        names = [function.name for function in found][::-1]
        left = [0.0] * len(found)
        for kind, colour in _colours().items():
            parts = [
                function.loop_counts.kinds[kind] / function.loop_counts.instructions for function in reversed(found)
            ]
            axes.barh(names, parts, left=left, color=colour, label=kind)
            left = [start + part for start, part in zip(left, parts, strict=True)]
        axes.set_xlim(0, 1)
        axes.set_ylim(-0.6, len(found) - 0.4)
        axes.tick_params(axis="y", labelsize=8)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("part of the instructions of the inner loop")
        axes.set_title(f"What inner loops are made of: {self.target}", pad=36)
        axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.4, 1.0), fontsize=9)


def study(kernel: str | None, target: str, ir: bool, whole: bool) -> Machine:
    """Compile a kernel, or all, to text and look through it.

    Parameters
    ----------
    kernel : str or None
        A function of the vector kernels, or a kernel that Numba compiles by its name in the registry; all are listed
        if None.
    target : str
        "host" or one of `TARGETS`.
    ir : bool
        Show LLVM's intermediate code, as the kernel was written.
    whole : bool
        Show the whole function.

    Raises
    ------
    ValueError
        If there is no such kernel or target.
    """
    chosen = _target(target)
    if kernel is not None and kernel in plain_loops.names():
        if target != "host":
            raise ValueError(f"Numba compiles {kernel} for this CPU only; leave --target out")
        assembly, intermediate = plain_loops.texts(kernel)
        return _machine(_title(target, chosen), {kernel: assembly}, kernel, intermediate if ir else None, whole)
    lib = _library(kernel, chosen)
    names = _names(lib)
    if kernel is not None and kernel not in names:
        every = [*plain_loops.names(), *names]
        near = [name for name in every if kernel in name][:3] or get_close_matches(kernel, every, 3, 0.5)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise ValueError(f"no kernel {kernel!r}{hint} (npmobilenet study asm lists all)")
    try:
        assembly = machine_code.functions(lib.assembly())
    except RuntimeError as error:
        raise ValueError(f"this LLVM cannot compile for {target}: {error}") from None
    chosen_functions = {name: assembly[name] for name in (names if kernel is None else [kernel])}
    intermediate = machine_code.ir_functions(lib.write_ir())[kernel] if ir and kernel is not None else None
    return _machine(_title(target, chosen), chosen_functions, kernel, intermediate, whole)


def _machine(
    title: str, functions: dict[str, list[str]], kernel: str | None, intermediate: list[str] | None, whole: bool
) -> Machine:
    found = [Function.read(name, lines) for name, lines in functions.items()]
    listing, marked = found[0].lines, found[0].loop
    if intermediate is not None:
        listing, marked = intermediate, machine_code.busiest_loop(intermediate)
    return Machine(title, found, listing, marked, kernel is not None, intermediate is not None, whole)


def _target(name: str) -> Target:
    if name == "host":
        return host()
    if name not in TARGETS:
        raise ValueError(f"no target {name!r}; there are: host, {', '.join(TARGETS)}")
    return Target.of(*TARGETS[name])


def _title(name: str, target: Target) -> str:
    return f"{name} ({target.cpu}, {target.lanes} float32 lanes, {target.registers} registers)"


def _library(kernel: str | None, target: Target) -> Library:
    """The library that has a kernel: the common one, or that of a window."""
    window = _WINDOW.match(kernel or "")
    define: Callable[[Library], None] = common.define
    if window:
        size, stride = tuple(map(int, window.group(2, 3))), tuple(map(int, window.group(4, 5)))
        windows = library.COMMON_WINDOWS if window[1] == "depthwise" else (library.STEM_WINDOW,)
        if (size, stride) not in windows and min(*size, *stride) > 0:
            module = depthwise if window[1] == "depthwise" else stem
            define = partial(module.define, kernel=size, stride=stride)
    return Library("studied", target, define, None)


def _names(lib: Library) -> list[str]:
    lib.write_ir()
    return list(lib.functions)


_COLUMNS = ("instructions", "vector", "multiply-adds", "loads", "stores", "spills", "multiply-adds per load")


def _spaced(line: str) -> str:
    """An instruction with its operands in a column."""
    name, tab, operands = line.partition("\t")
    return f"{name:<13} {operands}" if tab else name


def _cells(counts: Counts) -> tuple[str, ...]:
    multiply_adds = counts.kinds["multiply-add"]
    numbers = (
        *(counts.instructions, counts.vector, multiply_adds),
        *(counts.loads, counts.kinds["vector store"], counts.spills),
    )
    return (*map(str, numbers), f"{multiply_adds / counts.loads:.2f}" if counts.loads and multiply_adds else "")


def _numbers(counts: Counts) -> dict[str, Any]:
    return {"instructions": counts.instructions, "vector": counts.vector, **asdict(counts)}


def _notes(loop: Counts | None) -> list[str]:
    if loop is None:
        return ["no loop of its own: it calls other kernels"]
    notes = [
        "vector: on whole registers, not on single values; loads: vectors and values from memory, also as operands of "
        "arithmetic; spills: vectors on the stack"
    ]
    multiply_adds = loop.kinds["multiply-add"]
    if multiply_adds:
        notes.append(f"{multiply_adds / loop.instructions:.0%} of the loop's instructions are multiply-adds")
    elif loop.products:
        notes.append(f"without multiply-adds: {loop.products} products of vectors, and a sum for each")
    elif not loop.vector:
        notes.append("the loop computes nothing itself: it calls other kernels, or moves single values")
    return notes


def _colours() -> dict[str, str]:
    from npmobilenet.bench.study.pictures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY

    return dict(zip(KINDS, (BLUE, SKY, GREEN, ORANGE, PURPLE, RED, GREY), strict=True))
