"""Pointwise (1x1) convolution of 8-bit tensors, in register tiles: as in float32, four input channels at a time.

A row of the image, or all of it where rows follow one another, is cut into tiles; the last overlaps the one before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from llvmlite import ir

from npmobilenet.kernels.blocked.code.int8.ending import (
    end_floats,
    store_bytes,
    store_floats,
    then_bytes,
    then_floats,
    when_more,
)
from npmobilenet.kernels.blocked.code.pointwise import LINE, PLANE, steps
from npmobilenet.kernels.blocked.int8.ending import ONE
from npmobilenet.kernels.blocked.int8.layout import QUAD, are_widened, is_one_instruction, tiles
from npmobilenet.kernels.blocked.int8.pointwise import POINTWISE
from npmobilenet.kernels.blocked.layout import Arguments, k_unit
from npmobilenet.kernels.blocked.library import CLAMP
from npmobilenet.kernels.blocked.pointwise import INPUTS
from npmobilenet.kernels.blocked.tiles import Tile
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Integers, Pointer, Vector

NAME = "int8_pointwise"
SMALL = 4  # pixels of a lower tile for short rows: as many as a register of bytes holds


def define(library: Library, end: str = CLAMP, small: bool = False) -> None:
    """Add the kernels, whose results end so (`int8.ending`), for any weights or ``small`` ones (`int8.layout`)."""
    for tile in dict.fromkeys(tiles(library.target, small)):
        for shape in shapes(tile):
            for half in (False, True)[: 1 + shape.halves]:
                library.add(_name(shape, half), _tile(library, shape, end, small, half))
    library.add(f"{NAME}_panels", _panels(library, *tiles(library.target, small), small))
    library.add(NAME, pointwise)


def shapes(tile: Tile) -> list[Tile]:
    """The tile, and lower ones: the best for a plane of 7x7, short rows, and a single pixel."""
    lower = [Tile(pixels, tile.blocks) for pixels in range(1, tile.pixels)] or [tile]
    best = min(lower, key=partial(steps, 49))
    return list(dict.fromkeys([tile, best, *(Tile(p, tile.blocks) for p in (SMALL, 1) if p < tile.pixels)]))


def _name(tile: Tile, half: bool = False) -> str:
    return f"{NAME}_{tile.pixels}x{tile.blocks}{'_half' * half}"


def _tile(library: Library, tile: Tile, ending: str, small: bool, half: bool):
    """One panel, as many blocks as the tile has, for rows of at least as many pixels as it has.

    With ``half``, half a vector is computed of the last block, and the rest of it becomes zeros.
    """
    target, size, unit = library.target, library.target.bytes, k_unit(library.target)
    lanes, blocks = target.lanes, tile.blocks
    if not is_one_instruction(target) and target.dot != "madd":  # weights are widened, too, and registers are few
        unit = QUAD
    per_block, widened = lanes // unit, are_widened(target, small)
    parts = 1 + widened
    own = [lanes] * (blocks - half) + [lanes // 2] * half  # of each block
    unit_lines = k_unit(target) // QUAD * parts * blocks * size // LINE  # of the weights for `k_unit` channels
    lines = -(-unit_lines // -(-PLANE // tile.pixels))  # that a tile asks for of these, so that a few ask for all

    def write(
        code: Code,
        x: Pointer,
        x_row: Integer,
        x_plane: Integer,
        weights: Pointer,
        start: Pointer,
        scale: Pointer,
        bias: Pointer,
        pixel_scale: Pointer,
        residual: Pointer,
        residual_row: Integer,
        residual_plane: Integer,
        out: Pointer,
        out_row: Integer,
        out_plane: Integer,
        rows: Integer,
        pixels: Integer,
        k_units: Integer,
        clamp: Pointer,
        out_steps: Pointer,
        out_offset: Pointer,
        floats: Integer,
    ) -> None:
        def step(k: Integer, source: Pointer, ahead: Pointer, sums: list[Integers]) -> list[Integers]:
            for line in range(lines):
                (ahead + k * (lines * LINE)).prefetch(line * LINE)
            source = source + (k // per_block) * x_plane + (k % per_block) * unit
            panel = weights + k * (unit // QUAD * parts * blocks * size)
            for j in range(unit // QUAD):
                at = j * parts * blocks
                w = [panel.integers((at + each) * size, own[each % blocks]) for each in range(parts * blocks)]
                for m in range(tile.pixels):
                    value = source.splat_integers(m * lanes + QUAD * j)
                    pairs = value.even_and_odd() if widened else ()
                    for v in range(blocks - half):
                        at = m * blocks + v
                        sums[at] = sums[at] if widened else sums[at].dot4(value, w[v], small)
                        for part, pair in enumerate(pairs):
                            sums[at] = sums[at].dot2(pair, w[part * blocks + v])
                for at in range(blocks - 1, len(sums), blocks) if half else ():
                    value = (source + apart).splat_integers(at // blocks * lanes + QUAD * j, lanes // 2)
                    sums[at] = sums[at].dot4(value, w[-1])
            return sums

        # 0, but LLVM does not know: halves of vectors follow one another and load their values, which are not to be
        # held in registers for them.
        apart = code.select(k_units < 0, code.integer(LINE), code.integer(0)) if half else 0
        trips = k_units * (k_unit(target) // unit)

        def asked(index: Integer) -> Pointer:
            """From where on a tile asks for a part of the next panel's weights; those of this one need not come."""
            part = index * lines
            place = weights + k_units * LINE * (part.minimum(unit_lines - lines) + unit_lines)
            return code.select(part < unit_lines, place, weights)

        each_row = (pixels + (tile.pixels - 1)) // tile.pixels

        def at_tile(row: Integer, index: Integer) -> None:
            pixel = (index * tile.pixels).minimum(pixels - tile.pixels)
            source, ahead = x + row * x_row + pixel * lanes, asked(row * each_row + index)
            sums = [start.integers(v * size, own[v]) for _ in range(tile.pixels) for v in range(blocks)]
            sums = code.loop(trips, lambda k, *sums: step(k, source, ahead, list(sums)), sums)
            sums = [each.whole() for each in sums]

            def each_block(pixel_scaled: bool) -> Iterator[tuple[int, tuple]]:
                scales = pixel_scale + (row * pixels + pixel) * 4
                for v in range(blocks):
                    channels = scale.vector(v * size)

                    def factor(m: int, channels: Vector = channels) -> Vector:
                        return channels * scales.splat(4 * m) if pixel_scaled else channels

                    yield v, (sums[v::blocks], factor, bias.vector(v * size))

            def as_bytes(pixel_scaled: bool) -> None:
                for v, about in each_block(pixel_scaled):
                    then = then_bytes(code, ending, out_steps + v * size, out_offset + v * size)
                    place = out + row * out_row + out_plane * v + pixel * lanes
                    store_bytes(*about, then, place, bounded=tile.pixels > 1)

            def as_floats(pixel_scaled: bool) -> None:
                def place(v: int) -> Pointer:
                    return out + row * out_row + out_plane * v + pixel * size

                def other(v: int) -> Pointer:
                    return residual + row * residual_row + residual_plane * v + pixel * size

                def bare(added: bool = False) -> None:
                    for v, about in each_block(pixel_scaled):
                        store_floats(*about, place(v), other(v) if added else None)

                def end(added: bool) -> None:
                    then = then_floats(code, ending, clamp)
                    for v in range(blocks):
                        end_floats(code, then, place(v), tile.pixels, other(v) if added else None)

                # A residual is added after what follows.
                alone = residual.is_null()
                if ending == CLAMP:
                    at_once = code.builder.and_(code.builder.not_(alone), clamp.is_null())
                    code.either(at_once, lambda: bare(True), bare)
                else:
                    bare()
                when_more(code, ending, clamp, lambda: code.either(alone, lambda: end(False), lambda: end(True)))

            def ends(pixel_scaled: bool) -> None:
                code.either(floats.equals(0), lambda: as_bytes(pixel_scaled), lambda: as_floats(pixel_scaled))

            code.either(pixel_scale.is_null(), lambda: ends(False), lambda: ends(True))

        code.loop(rows, lambda row: code.loop(each_row, lambda index: at_tile(row, index)))

    return write


def _panels(library: Library, wide_tile: Tile, narrow_tile: Tile, small: bool):
    """Panels ``first`` up to ``last`` of some rows of a layer, whose arguments stand at ``row``."""
    target, size = library.target, library.target.bytes
    lanes, parts = target.lanes, 1 + are_widened(target, small)

    def write(code: Code, arguments: Pointer, top: Integer, rows: Integer, first: Integer, last: Integer) -> None:
        a = POINTWISE.read(arguments)
        columns, floats, wide = a["columns"], a["floats"], a["wide"]
        out_pixel = code.select(floats > 0, code.integer(size), code.integer(lanes))
        residual, pixel_scale, inputs = a.at("residual"), a.at("pixel_scale"), a.at("inputs")
        no_residual = residual.is_null()
        merged = code.builder.and_(a["x_row"].equals(columns * lanes), a["out_row"].equals(columns * out_pixel))
        saturates = saturating(code, a, top, rows)
        same = code.builder.or_(no_residual, a["residual_row"].equals(columns * size))
        merged = code.builder.and_(merged, same)
        pixels = code.select(merged, columns * rows, columns)
        runs = code.select(merged, code.integer(1), rows)

        def choose(tile: Tile) -> Integer:
            """The pixels of the best shape for these runs."""
            best, least = code.integer(0), code.integer(1 << 40)
            for shape in shapes(tile):
                needed = code.select(pixels >= shape.pixels, steps(pixels, shape), code.integer(1 << 41))
                better = needed < least
                best = code.select(better, code.integer(shape.pixels), best)
                least = code.select(better, needed, least)
            return code.select(saturates, code.integer(1), best)

        def panel(number: Integer, tile: Tile) -> None:
            chosen = choose(tile)
            narrow_before = (number - wide).maximum(0)
            block = (number - narrow_before) * wide_tile.blocks + narrow_before
            own = INPUTS.read(inputs + number * INPUTS.bytes)
            block_weights = a["k_units"] * (k_unit(target) // QUAD * parts * size)
            first_block, units, weights_at = code.branch(
                code.builder.not_(inputs.is_null()),
                lambda: [own[name] for name in INPUTS.names],
                [code.integer(0), a["k_units"], block * block_weights],
            )

            residual_at = residual + a["residual_row"] * top + a["residual_plane"] * block
            arguments = (
                a.at("x") + a["x_row"] * top + first_block * a["x_plane"],
                *(a["x_row"], a["x_plane"]),
                a.at("weights") + weights_at,
                *(a.at(name) + block * size for name in ("start", "scale", "bias")),
                code.select(pixel_scale.is_null(), pixel_scale, pixel_scale + top * columns * 4),
                code.select(no_residual, residual, residual_at),
                *(a["residual_row"], a["residual_plane"]),
                a.at("out") + a["out_row"] * top + a["out_plane"] * block,
                *(a["out_row"], a["out_plane"], runs, pixels, units, a.at("clamp")),
                *(a.at(name) + block * size for name in ("steps", "offset")),
                floats,
            )
            for shape in shapes(tile):
                with code.when(chosen.equals(shape.pixels)):
                    call = [partial(code.call, _name(shape, half), *arguments) for half in (False, True)]
                    if shape.halves:
                        code.either(number.equals(a["halved"]), call[True], call[False])
                    else:
                        call[False]()

        code.loop(last.minimum(wide), lambda number: panel(number, wide_tile), start=first)
        code.loop(last, lambda number: panel(number, narrow_tile), start=first.maximum(wide))

    return write


def saturating(code: Code, a: Arguments, top: Integer, rows: Integer) -> ir.Value:
    """Whether results of some rows may pass 2**31, which only the tile of a single pixel bounds before saturating."""
    lanes, scales = code.target.lanes, a.at("pixel_scale") + top * a["columns"] * 4
    count = code.select(a.at("pixel_scale").is_null(), code.integer(0), rows * a["columns"])
    whole, one = count // lanes * lanes, [code.splat_integers(ONE)]
    most = code.loop(
        whole, lambda at, most: [most.maximum((scales + at * 4).vector().magnitude_bits())], one, step=lanes
    )
    most = code.loop(
        count, lambda at, most: [most.maximum((scales + at * 4).splat().magnitude_bits())], most, start=whole
    )
    return code.lane_maxima(most).first() > a["limit"]


def pointwise(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: items ``first`` up to ``last`` of a layer (fields `POINTWISE`)."""
    a = POINTWISE.read(arguments)

    def at_item(item: Integer) -> None:
        top = item // a["parts"] * a["strip"]
        panel = item % a["parts"] * a["panels_each"]
        rows = a["strip"].minimum(a["rows"] - top)
        code.call(f"{NAME}_panels", arguments, top, rows, panel, (panel + a["panels_each"]).minimum(a["panels"]))

    code.loop(last, at_item, start=first)
