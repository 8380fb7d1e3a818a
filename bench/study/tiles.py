"""Why kernels keep a tile of sums in registers, and how large it should be: every size, measured.

A multiply-add starts while others are still under way, but not before the sum it adds to is known: too few sums, and
the units wait. Each of its factors comes from memory unless something that was loaded is used again: too flat a tile,
and the units wait for loads. And a tile larger than the registers goes to the stack and back.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from npmobilenet.bench.profile import Timing, noise, time_in_turns
from npmobilenet.bench.study import layer_tiles, machine_code
from npmobilenet.bench.study.layer_tiles import LayerTiles
from npmobilenet.bench.study.study import Table
from npmobilenet.kernels.blocked.tiles import tiles
from npmobilenet.kernels.memory import aligned
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer, Vector
from npmobilenet.kernels.vector.target import Target, host
from npmobilenet.machine import cpu_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INPUTS = 64  # input channels of the tiles: all data stay in the nearest cache
UNROLL = 8  # of them in a trip of the loop, and side by side in memory, as in the engine
MOST_BLOCKS = 4
WORK = 300_000  # multiply-adds of vectors in a measurement
PROBE_WORDS = 1024


@dataclass(frozen=True)
class Size:
    """A tile of a matrix product, or sums without loads.

    Attributes
    ----------
    pixels, blocks : int
        The tile: pixels, and vectors of output channels.
    gflops : float
        Two operations for each multiply-add and lane.
    spills : int
        Vectors that the inner loop moves to or from the stack.
    """

    pixels: int
    blocks: int
    gflops: float
    spills: int

    @property
    def loads(self) -> int:
        """For one input channel: a vector of weights for each block, a value for each pixel."""
        return self.pixels + self.blocks

    @property
    def multiply_adds(self) -> int:
        """For one input channel."""
        return self.pixels * self.blocks


@dataclass(frozen=True)
class Tiles:
    """All sizes.

    Attributes
    ----------
    sums : dict of int to float
        GFLOP/s of so many independent sums, with factors that stay in registers.
    sizes : list of Size
        Tiles of a matrix product, with factors from the nearest cache.
    layers : LayerTiles
        Tiles in the layers of a network: which of them decide what the engine takes.
    """

    cpu: str
    lanes: int
    registers: int
    sums: dict[int, float]
    sizes: list[Size]
    layers: LayerTiles
    warning: str | None

    @property
    def peak(self) -> float:
        """The highest rate of the sums."""
        return max(self.sums.values())

    def numbers(self) -> dict[str, Any]:
        """Return what JSON holds."""
        return asdict(self)

    def tables(self) -> list[Table]:
        """Return the sums, and the tiles."""
        notes = ["multiply-adds whose factors stay in registers; each adds to one of so many sums in turn"]
        notes += [f"warning: {self.warning}"] if self.warning else []
        sums = Table(
            f"Sums under way, {self.lanes} float32 lanes ({self.cpu})",
            ("sums", "GFLOP/s", "of the highest"),
            [(str(number), f"{rate:.1f}", f"{rate / self.peak:.0%}") for number, rate in self.sums.items()],
            notes=notes,
        )
        rows = [
            (
                *(f"{size.pixels} x {size.blocks}", str(size.multiply_adds), str(size.loads)),
                *(f"{size.multiply_adds / size.loads:.2f}", str(size.spills)),
                *(f"{size.gflops:.1f}", f"{size.gflops / self.peak:.0%}", "engine's" if self._is_ours(size) else ""),
            )
            for size in self.sizes
        ]
        header = ("tile", "sums", "loads", "multiply-adds per load", "spills", "GFLOP/s", "of the highest", "")
        notes = (
            f"pixels x vectors of output channels, {INPUTS} input channels, all in the nearest cache; loads: for one "
            f"input channel; spills: vectors on the stack for {UNROLL} of them; {self.registers} registers",
        )
        return [sums, Table("Tiles of a matrix product", header, rows, notes=notes), self.layers.table()]

    def documents(self) -> dict[str, list[str]]:
        """Return the tables of docs/, by the name of their region."""

        def table(header: list[str], rows: list[list[str]]) -> list[str]:
            return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]

        measured = [
            "",
            f"`npmobilenet study tiles` on one core of {cpu_name()}, whose highest rate was {self.peak:.0f} GFLOP/s.",
            *([f"Noisy: {self.warning}."] if self.warning else []),
        ]
        share = [f"{rate / self.peak:.0%}" for rate in self.sums.values()]
        rates = {(size.pixels, size.blocks): size for size in self.sizes}
        widths = sorted({blocks for _, blocks in rates})
        heights = sorted({pixels for pixels, _ in rates})

        def cell(pixels: int, blocks: int) -> str:
            size = rates.get((pixels, blocks))
            if size is None:
                return ""
            text = f"{size.gflops / self.peak:.0%}" + " s" * (size.spills > 0)
            return f"**{text}**" if self._is_ours(size) else text

        tiles_rows = [[str(pixels), *(cell(pixels, blocks) for blocks in widths)] for pixels in heights]
        return {
            "study/tiles.py sums": [
                *table(["independent sums", *map(str, self.sums)], [["of the peak", *share]]), *measured
            ],
            "study/tiles.py tiles": [
                *table(["pixels \\ vectors of output channels", *map(str, widths)], tiles_rows),
                "",
                f"Share of the peak; s: sums go to the stack; bold: the engine's. {INPUTS} input channels.",
                *measured,
            ],
        }  # fmt: skip

    @staticmethod
    def _is_ours(size: Size) -> bool:
        fastest = tiles(host())
        return any((size.pixels, size.blocks) == (t.pixels, t.blocks) for t in (fastest.wide, fastest.narrow))

    def draw(self, figure: Figure) -> None:
        """The sums as a curve, the tiles as a map."""
        from npmobilenet.bench.study.pictures import BLUE, RED, SEQUENTIAL

        left, right = figure.subplots(1, 2, width_ratios=(1, 1.9))
        left.plot(list(self.sums), list(self.sums.values()), "o-", color=BLUE)
        left.axhline(self.peak, color=RED, linewidth=1, linestyle="--")
        left.annotate("peak", (1, self.peak), xytext=(0, -12), textcoords="offset points", color=RED)
        left.set_xlabel("independent sums")
        left.set_ylabel("GFLOP/s of one core")
        left.set_ylim(0, 1.1 * self.peak)
        left.set_title("Sums without loads")
        pixels, blocks = (max(getattr(size, axis) for size in self.sizes) for axis in ("pixels", "blocks"))
        rates = np.full((blocks, pixels), np.nan)
        for size in self.sizes:
            rates[size.blocks - 1, size.pixels - 1] = size.gflops / self.peak
        image = right.pcolormesh(
            np.arange(pixels + 1) + 0.5, np.arange(blocks + 1) + 0.5, rates, cmap=SEQUENTIAL, vmin=0, vmax=1
        )
        for size in self.sizes:
            share = size.gflops / self.peak
            right.text(
                size.pixels, size.blocks, f"{share:.0%}".rstrip("%") + "*" * (size.spills > 0), fontsize=7,
                ha="center", va="center", color="white" if share < 0.6 else "black",
                fontweight="bold" if self._is_ours(size) else "normal",
            )  # fmt: skip
        right.set_xticks(range(1, pixels + 1))
        right.set_yticks(range(1, blocks + 1))
        right.grid(visible=False)
        right.set_xlabel("pixels   (bold: the engine's tile; *: registers do not suffice)")
        right.set_ylabel("vectors of output channels")
        right.set_title("Tiles of a matrix product: % of the peak")
        figure.colorbar(image, ax=right, shrink=0.8)


def study(rounds: int, resolution: int = 224, candidates: Sequence[tuple[int, int]] = ()) -> Tiles:
    """Measure sums, and tiles of a matrix product, of every size around the number of registers.

    Parameters
    ----------
    rounds : int
        Measurements of each, in turns; the shortest counts.
    resolution, candidates : int, sequence of (pixels, blocks)
        For the tiles in the layers of a network: of the image, and which are tried, if not all.
    """
    target = host()
    sizes = [
        (pixels, blocks)
        for blocks in range(1, MOST_BLOCKS + 1)
        for pixels in range(1, target.registers + 1)
        if pixels * blocks <= target.registers
    ]
    counts = range(1, target.registers - 1)  # two registers are the factors

    def define(library: Library) -> None:
        for number in counts:
            library.add(f"sums_{number}", _sums(number))
        for pixels, blocks in sizes:
            library.add(f"tile_{pixels}x{blocks}", _tile(pixels, blocks))

    library = Library("tiles", target, define, None)
    data = aligned(PROBE_WORDS + INPUTS * (target.registers + MOST_BLOCKS * target.lanes))
    data[:] = np.random.default_rng(0).standard_normal(data.size, np.float32) / INPUTS
    sums = {number: (f"sums_{number}", number * UNROLL) for number in counts}
    products = {size: (f"tile_{size[0]}x{size[1]}", size[0] * size[1] * INPUTS) for size in sizes}
    every = {**sums, **products}
    timings = time_in_turns([_call(library, name, each, data) for name, each in every.values()], rounds)
    found = dict(zip(every, timings, strict=True))

    def rate(key: int | tuple[int, int]) -> float:
        return _gflops(found[key], every[key][1], target)

    code = machine_code.functions(library.assembly())
    return Tiles(
        target.cpu, target.lanes, target.registers,
        {number: rate(number) for number in counts},
        [Size(*size, rate(size), _spills(code[products[size][0]])) for size in sizes],
        layer_tiles.measure(resolution, rounds, candidates),
        noise(timings),
    )  # fmt: skip


def _trips(multiply_adds: int) -> int:
    return max(1, WORK // multiply_adds)


def _call(library: Library, name: str, multiply_adds: int, data: np.ndarray) -> Callable[[], None]:
    """A call that does about `WORK` multiply-adds."""
    run = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(library.address(name))
    trips, address = _trips(multiply_adds), data.ctypes.data

    def call(_keep: tuple = (library, data)) -> None:
        run(trips, address)

    return call


def _gflops(timing: Timing, multiply_adds: int, target: Target) -> float:
    return 2e-9 * target.lanes * multiply_adds * _trips(multiply_adds) / timing.best


def _spills(lines: list[str]) -> int:
    loop = machine_code.busiest_loop(lines)
    return machine_code.count(lines[loop.start : loop.end + 1]).spills if loop else 0


def _sums(number: int) -> Callable[..., None]:
    def write(code: Code, trips: Integer, data: Pointer) -> None:
        """Kernel: add products of two registers to so many sums, which end in ``data``."""
        size = code.target.bytes
        x, y = data.vector(), data.vector(size)

        def trip(_: Integer, *sums: Vector) -> list[Vector]:
            for _ in range(UNROLL):
                sums = [total.fma(x, y) for total in sums]
            return list(sums)

        for i, total in enumerate(code.loop(trips, trip, [code.splat(0.0)] * number)):
            data.store(total, i * size)

    return write


def _tile(pixels: int, blocks: int) -> Callable[..., None]:
    def write(code: Code, trips: Integer, data: Pointer) -> None:
        """Kernel: the product of pixels, ``[INPUTS / UNROLL][pixels][UNROLL]``, and weights, again and again."""
        size = code.target.bytes
        x = data + 4 * PROBE_WORDS  # the results lie before it
        weights = x + 4 * INPUTS * code.target.registers

        def step(k: Integer, *sums: Vector) -> list[Vector]:
            sums = list(sums)
            for j in range(UNROLL):
                w = [(weights + k * (blocks * size)).vector((j * blocks + v) * size) for v in range(blocks)]
                for m in range(pixels):
                    value = (x + k * (4 * pixels)).splat(4 * (m * UNROLL + j))
                    for v in range(blocks):
                        sums[m * blocks + v] = sums[m * blocks + v].fma(value, w[v])
            return sums

        def once(_: Integer) -> None:
            sums = code.loop(code.integer(INPUTS), step, [code.splat(0.0)] * (pixels * blocks), step=UNROLL)
            for i, total in enumerate(sums):
                data.store(total, i * size)

        code.loop(trips, once)

    return write
