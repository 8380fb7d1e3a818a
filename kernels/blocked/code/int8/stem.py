"""The first convolution, 16 bits by 16: pairs of taps of a row of the planar image are one product of each lane."""

from __future__ import annotations

from collections.abc import Iterator

from npmobilenet.kernels.blocked.code.int8.ending import (
    either_floats,
    end_floats,
    store_bytes,
    store_floats,
    then_bytes,
    then_floats,
)
from npmobilenet.kernels.blocked.code.int8.pointwise import SMALL
from npmobilenet.kernels.blocked.int8.layout import tiles
from npmobilenet.kernels.blocked.int8.stem import STEM
from npmobilenet.kernels.blocked.library import CLAMP, int8_stem_name
from npmobilenet.kernels.blocked.tiles import Tile
from npmobilenet.kernels.geometry import Pair
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Integers, Pointer
from npmobilenet.kernels.vector.target import Target

HALF = 2  # bytes of a value


def stem_tile(target: Target, kernel: Pair, tile: Tile) -> Tile:
    """Sums, the pairs of a row of the window, and one input value fill the registers."""
    room = (target.registers - 2) // tile.blocks - -(-kernel[1] // 2)
    return Tile(max(1, min(tile.pixels, room)), tile.blocks)


def define(library: Library, kernel: Pair, stride: Pair, end: str = CLAMP) -> None:
    """Add the kernels for one window, whose results end so (`int8.ending`)."""
    own = int8_stem_name(kernel, stride)
    chosen = [stem_tile(library.target, kernel, tile) for tile in tiles(library.target)]
    for tile in dict.fromkeys(chosen):
        for shape in _shapes(tile):
            library.add(_name(own, shape), _row(library, kernel, stride, shape, end))
    library.add(own, _whole(library, own, kernel, stride, *chosen))


def _shapes(tile: Tile) -> list[Tile]:
    return [Tile(pixels, tile.blocks) for pixels in dict.fromkeys((tile.pixels, min(SMALL, tile.pixels), 1))]


def _name(own: str, tile: Tile) -> str:
    return f"{own}_{tile.pixels}x{tile.blocks}"


def _row(library: Library, kernel: Pair, stride: Pair, tile: Tile, ending: str):
    """One row of one panel; at least as many pixels as the tile has."""
    size, lanes, blocks = library.target.bytes, library.target.lanes, tile.blocks
    pairs = -(-kernel[1] // 2)
    # By columns, so that a pair of values is read once for all the windows it begins or goes on in.
    uses: dict[int, list[tuple[int, int]]] = {}
    for m in range(tile.pixels):
        for pair in range(pairs):
            uses.setdefault(m * stride[1] + 2 * pair, []).append((m, pair))

    def write(
        code: Code,
        x: Pointer,
        x_row: Integer,
        x_plane: Integer,
        channels: Integer,
        weights: Pointer,
        scale: Pointer,
        bias: Pointer,
        out: Pointer,
        out_plane: Integer,
        columns: Integer,
        clamp: Pointer,
        out_steps: Pointer,
        out_offset: Pointer,
        floats: Integer,
    ) -> None:
        def step(row: Integer, pixel: Integer, sums: list[Integers]) -> list[Integers]:
            source = x + row // kernel[0] * x_plane + row % kernel[0] * x_row + pixel * (stride[1] * HALF)
            taps = weights + row * (pairs * blocks * size)
            w = [taps.integers(at * size) for at in range(pairs * blocks)]
            for at in sorted(uses):
                value = source.splat_integers(at * HALF)
                for m, pair in uses[at]:
                    for v in range(blocks):
                        sums[m * blocks + v] = sums[m * blocks + v].dot2(value, w[pair * blocks + v])
            return sums

        def at_tile(index: Integer) -> None:
            pixel = (index * tile.pixels).minimum(columns - tile.pixels)
            sums = [code.splat_integers(0)] * (tile.pixels * blocks)
            sums = code.loop(channels * kernel[0], lambda row, *sums: step(row, pixel, list(sums)), sums)

            def each_block() -> Iterator[tuple[int, tuple]]:
                for v in range(blocks):
                    factor = scale.vector(v * size)
                    yield v, (sums[v::blocks], lambda m, factor=factor: factor, bias.vector(v * size))

            def as_bytes() -> None:
                for v, about in each_block():
                    then = then_bytes(code, ending, out_steps + v * size, out_offset + v * size)
                    store_bytes(*about, then, out + out_plane * v + pixel * lanes, bounded=tile.pixels > 1)

            def place(v: int) -> Pointer:
                return out + out_plane * v + pixel * size

            def bare() -> None:
                for v, about in each_block():
                    store_floats(*about, place(v))

            def ended() -> None:
                bare()
                then = then_floats(code, ending, clamp)
                for v in range(blocks):
                    end_floats(code, then, place(v), tile.pixels)

            code.either(floats.equals(0), as_bytes, lambda: either_floats(code, ending, clamp, bare, ended))

        code.loop((columns + (tile.pixels - 1)) // tile.pixels, at_tile)

    return write


def _whole(library: Library, own: str, kernel: Pair, stride: Pair, wide_tile: Tile, narrow_tile: Tile):
    size = library.target.bytes
    taps = kernel[0] * -(-kernel[1] // 2) * size

    def stem(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: rows ``first`` up to ``last`` of the layer (fields `STEM`)."""
        a = STEM.read(arguments)
        columns = a["columns"]

        def panel(row: Integer, block: Integer, tile: Tile) -> None:
            arguments = (
                a.at("x") + a["x_row"] * (row * stride[0]),
                *(a["x_row"], a["x_plane"], a["channels"]),
                a.at("weights") + block * a["channels"] * taps,
                *(a.at(name) + block * size for name in ("scale", "bias")),
                a.at("out") + a["out_row"] * row + a["out_plane"] * block,
                *(a["out_plane"], columns, a.at("clamp")),
                *(a.at(name) + block * size for name in ("steps", "offset")),
                a["floats"],
            )
            # Only the tile of a single pixel bounds what is not known to be below 2**31.
            chosen, above = code.select(a["bounded"] > 0, columns, code.integer(1)), code.integer(1 << 40)
            for shape in _shapes(tile):
                with code.when(code.builder.and_(chosen >= shape.pixels, chosen < above)):
                    code.call(_name(own, shape), *arguments)
                above = code.integer(shape.pixels)

        def at_row(row: Integer) -> None:
            narrow = a["wide"] * wide_tile.blocks
            code.loop(a["wide"], lambda number: panel(row, number * wide_tile.blocks, wide_tile))
            code.loop(a["blocks"], lambda block: panel(row, block, narrow_tile), start=narrow)

        code.loop(last, at_row, start=first)

    return stem
