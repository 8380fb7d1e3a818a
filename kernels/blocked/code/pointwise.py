"""Pointwise (1x1) convolution: a matrix product of pixels and channels, in register tiles.

A tile is MR pixels x NB channel blocks whose sums stay in registers while k runs over the input channels: each
step loads NB vectors of weights and, for each pixel, one input value into all lanes, and does MR * NB fused
multiply-adds. Bias comes first, activation and residual last, all without another pass over memory.

Weights that are not in the second-level cache come too late when they are needed, so each tile asks for its part of the
next panel's while it computes; and for its part of what the call names as read after it (`later`).

The last tile of a run overlaps the one before it instead of being narrower, and keeps only its new pixels: there
are a few kernels instead of MR, and each run takes the one that wastes least on it.

Where the last block of a panel has at most half a vector of channels, some CPUs compute just that half in half the
time (`Tile.halves`). The other half becomes zeros whatever the input, for what comes next reads whole vectors.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from npmobilenet.kernels.blocked.code import activation
from npmobilenet.kernels.blocked.layout import k_unit
from npmobilenet.kernels.blocked.pointwise import INPUTS, LATER, POINTWISE
from npmobilenet.kernels.blocked.tiles import Tile, tiles
from npmobilenet.kernels.memory import ALIGNMENT as LINE
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer, Vector

# Beyond the arguments of a layer, the functions below know `more`, 1 if the output holds sums over earlier input
# channels already, `block_weights`, from the weights of a block to the next one's, `skip`, the bytes of each
# block's weights that belong to those earlier channels, and `before`, the pixels, or tiles, of the parts before.
HIDDEN = 8  # sums that must be under way for the multiply-adds not to wait for one another
PLANE = 49  # pixels of the smallest image in a MobileNet: there the weights are most, and the tiles fewest


def define(library: Library, own: tuple[Tile, Tile] | None = None) -> None:
    """Add the kernels; ``own`` are other tiles than `layout.tiles`."""
    fastest = tiles(library.target)
    wide, narrow = own or (fastest.wide, fastest.narrow)
    for scattered in (False, True):
        for tile in dict.fromkeys((wide, narrow)):
            for shape in _shapes(tile):
                for half in (False, True)[: 1 + tile.halves]:
                    library.add(_name(shape, scattered, half), _tile(library, shape, scattered, half))
        library.add(f"pointwise_panels{'_scattered' * scattered}", _panels(library, wide, narrow, scattered))
    library.add("pointwise", pointwise)


def steps(pixels: int | Integer, tile: Tile) -> int | Integer:
    """How long a run of pixels takes: tiles times the sums of each, or as many as hide the latency of adding."""
    return (pixels + (tile.pixels - 1)) // tile.pixels * max(tile.pixels * tile.blocks, HIDDEN)


def _shapes(tile: Tile) -> list[Tile]:
    """The tile, and lower ones: the best for a plane of 7x7, and a single pixel. Each costs time to compile."""
    lower = [replace(tile, pixels=pixels) for pixels in range(1, tile.pixels)] or [tile]
    return list(dict.fromkeys([tile, min(lower, key=partial(steps, PLANE)), replace(tile, pixels=1)]))


def _name(tile: Tile, scattered: bool, half: bool = False) -> str:
    return f"pointwise_{tile.pixels}x{tile.blocks}{'_half' * half}{'_scattered' * scattered}"


def _tile(library: Library, tile: Tile, scattered: bool, half: bool):
    """One panel, as many blocks as the tile has, for at least as many pixels as it has.

    With ``half``, half a vector is computed of the last block, and the rest of it becomes zeros.
    """
    target, size, unit = library.target, library.target.bytes, k_unit(library.target)
    per_block = target.lanes // unit
    lanes = [target.lanes] * (tile.blocks - half) + [target.lanes // 2] * half  # of each block
    unit_lines = max(1, unit * tile.blocks * size // LINE)  # of the weights for one trip
    lines = -(-unit_lines // -(-PLANE // tile.pixels))  # that a trip asks for, so that all tiles together ask for all

    def write(
        code: Code,
        x: Pointer,
        x_plane: Integer,
        weights: Pointer,
        ahead: Pointer,
        bias: Pointer,
        residual: Pointer,
        residual_plane: Integer,
        out: Pointer,
        out_plane: Integer,
        offsets: Pointer,
        pixels: Integer,
        k_units: Integer,
        clamp: Pointer,
        more: Integer,
        before: Integer,
        later: Pointer,
        later_end: Integer,
    ) -> None:
        def step(k: Integer, pixel: Integer, next_weights: Pointer, later: Pointer, sums: list[Vector]) -> list[Vector]:
            for line in range(lines):
                (next_weights + k * (lines * LINE)).prefetch(line * LINE)
            far = later + k * (LATER * LINE)
            with code.when(far.address() < later_end):
                for line in range(LATER):
                    far.prefetch(line * LINE, level=2)
            source = x + (k // per_block) * x_plane + (k % per_block) * (4 * unit) + pixel * size
            panel = weights + k * (unit * tile.blocks * size)
            for j in range(unit):
                w = [panel.vector((j * tile.blocks + v) * size, lanes[v]) for v in range(tile.blocks)]
                for m in range(tile.pixels):
                    at = m * size + 4 * j
                    values = {target.lanes: source.splat(at), lanes[-1]: (source + apart).splat(at, lanes[-1])}
                    for v in range(tile.blocks):
                        sums[m * tile.blocks + v] = sums[m * tile.blocks + v].fma(values[lanes[v]], w[v])
            return sums

        def add_residual(pixel: Integer, sums: list[Vector]) -> list[Vector]:
            planes = [residual + residual_plane * v + pixel * size for v in range(tile.blocks)]
            return [
                sums[m * tile.blocks + v] + planes[v].vector(m * size, lanes[v])
                for m in range(tile.pixels)
                for v in range(tile.blocks)
            ]

        # 0, but LLVM does not know: half a vector is to load its value with its multiply-add, as a whole one does, and
        # not to be cut out of the other's.
        apart = code.select(k_units < 0, code.integer(LINE), code.integer(0)) if half else 0
        limits = [(clamp.splat(0, lanes[v]), clamp.splat(4, lanes[v])) for v in range(tile.blocks)] * tile.pixels
        has_residual = code.builder.not_(residual.is_null())

        def at_tile(index: Integer) -> None:
            pixel = (index * tile.pixels).minimum(pixels - tile.pixels)
            sums = [bias.vector(v * size, lanes[v]) for _ in range(tile.pixels) for v in range(tile.blocks)]
            sums = code.branch(more > 0, lambda: unfinished(pixel), sums)
            asked = (index + before) * lines  # for so many lines of each trip, by the tiles before
            mine = ahead + asked.minimum(unit_lines - lines) * (k_units * LINE)
            next_weights = code.select(asked < unit_lines, mine, weights)  # these are near: nothing has to be fetched
            far = later + (index + before) * (k_units * (LATER * LINE))
            sums = code.loop(k_units, lambda k, *sums: step(k, pixel, next_weights, far, list(sums)), sums)
            sums = [y.clamp(low, high) for y, (low, high) in zip(sums, limits, strict=True)]
            sums = code.branch(has_residual, lambda: add_residual(pixel, sums), sums)
            done = index * tile.pixels - pixel  # pixels of the tile before: sums may be added to them only once
            for m, place in enumerate(places(pixel)):
                with code.when(done <= m):
                    for v in range(tile.blocks):
                        place.store(sums[m * tile.blocks + v].whole(), out_plane * v)

        def places(pixel: Integer) -> list[Pointer]:
            if scattered:
                return [out + offsets.integer((pixel + m) * 8) for m in range(tile.pixels)]
            return [out + (pixel + m) * size for m in range(tile.pixels)]

        def unfinished(pixel: Integer) -> list[Vector]:
            return [place.vector(out_plane * v, lanes[v]) for place in places(pixel) for v in range(tile.blocks)]

        code.loop((pixels + (tile.pixels - 1)) // tile.pixels, at_tile)

    return write


def _panels(library: Library, wide_tile: Tile, narrow_tile: Tile, scattered: bool):
    """Panels ``first`` up to ``last`` for a run of pixels; those from ``wide`` on have one block each."""
    size = library.target.bytes

    def write(
        code: Code,
        x: Pointer,
        x_plane: Integer,
        weights: Pointer,
        bias: Pointer,
        residual: Pointer,
        residual_plane: Integer,
        out: Pointer,
        out_plane: Integer,
        offsets: Pointer,
        pixels: Integer,
        k_units: Integer,
        inputs: Pointer,
        clamp: Pointer,
        activate: Pointer,
        more: Integer,
        block_weights: Integer,
        wide: Integer,
        halved: Integer,
        first: Integer,
        last: Integer,
        skip: Integer,
        before: Integer,
        later: Pointer,
        later_part: Integer,
    ) -> None:
        def choose(shapes: list[Tile]) -> Integer:
            """The pixels of the best shape for this run."""
            best, least = code.integer(0), code.integer(1 << 40)
            for shape in shapes:
                needed = code.select(pixels >= shape.pixels, steps(pixels, shape), code.integer(1 << 41))
                better = needed < least
                best = code.select(better, code.integer(shape.pixels), best)
                least = code.select(better, needed, least)
            return best

        chosen = {tile: choose(_shapes(tile)) for tile in (wide_tile, narrow_tile)}

        begin = offsets.integer() if scattered else code.integer(0)
        vectors = (offsets.integer((pixels - 1) * 8) - begin) // size + 1 if scattered else pixels

        grouped = code.builder.not_(inputs.is_null())

        def panel(number: Integer, tile: Tile) -> None:
            narrow_before = (number - wide).maximum(0)
            block = (number - narrow_before) * wide_tile.blocks + narrow_before
            own = INPUTS.read(inputs + number * INPUTS.bytes)
            first_block, units, weights_at = code.branch(
                grouped,
                lambda: [own[name] for name in INPUTS.names],
                [code.integer(0), k_units, block * block_weights + skip * tile.blocks],
            )
            own_later = later + number * later_part
            past = code.select(grouped, units * (k_unit(code.target) * size), block_weights) * tile.blocks
            arguments = (
                x + first_block * x_plane,
                x_plane,
                weights + weights_at,
                weights + (weights_at + past),
                bias + block * size,
                code.select(residual.is_null(), residual, residual + residual_plane * block),
                residual_plane,
                out + out_plane * block,
                out_plane,
                offsets,
                pixels,
                units,
                clamp,
                more,
                before // tile.pixels,
                own_later,
                (own_later + later_part).address(),
            )
            half = number.equals(halved)
            for shape in _shapes(tile):
                with code.when(chosen[tile].equals(shape.pixels)):
                    if tile.halves:
                        with code.when(half):
                            code.call(_name(shape, scattered, True), *arguments)
                        with code.when(code.builder.not_(half)):
                            code.call(_name(shape, scattered), *arguments)
                    else:
                        code.call(_name(shape, scattered), *arguments)
            for v in range(tile.blocks):
                activation.apply(code, activate, out + out_plane * (block + v) + begin, vectors)

        code.loop(last.minimum(wide), lambda number: panel(number, wide_tile), start=first)
        code.loop(last, lambda number: panel(number, narrow_tile), start=first.maximum(wide))

    return write


def pointwise(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: items ``first`` up to ``last`` of a layer (fields `POINTWISE`)."""
    a, size = POINTWISE.read(arguments), code.target.bytes

    def run(panel: Integer, end: Integer, begin: Integer, pixels: Integer) -> None:
        at = begin * size
        residual = code.select(a["residual"].equals(0), a.at("residual"), a.at("residual") + at)

        def over(name: str, out: Pointer, offsets: Pointer) -> None:
            code.call(
                name,
                *(a.at("x") + at, a["x_plane"], a.at("weights"), a.at("bias"), residual, a["residual_plane"]),
                *(out, a["out_plane"], offsets, pixels, a["k_units"], a.at("inputs"), a.at("clamp")),
                *(a.at("activate"), 0, a["k_units"] * (k_unit(code.target) * size), a["wide"], a["halved"]),
                *(panel, end, 0, begin, a.at("later"), a["later_part"]),
            )

        with code.when(a["offsets"].equals(0)):
            over("pointwise_panels", a.at("out") + at, a.at("offsets"))
        with code.when(a["offsets"] > 0):
            over("pointwise_panels_scattered", a.at("out"), a.at("offsets") + begin * 8)

    def at_item(item: Integer) -> None:
        panel, begin = item // a["parts"], item % a["parts"] * a["part_pixels"]
        run(panel, panel + 1, begin, a["part_pixels"].minimum(a["pixels"] - begin))

    with code.when(a["parts"].equals(1)):
        run(first, last, code.integer(0), a["pixels"])
    with code.when(a["parts"] > 1):
        code.loop(last, at_item, start=first)
