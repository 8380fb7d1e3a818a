"""A block as one operation: how it is cut into strips and chunks is decided in `blocked.inverted_residual`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from npmobilenet.kernels.blocked.code.depthwise import NO_RING
from npmobilenet.kernels.blocked.inverted_residual import BLOCK, PAIR
from npmobilenet.kernels.blocked.layout import Arguments, k_unit
from npmobilenet.kernels.blocked.library import stem_name
from npmobilenet.kernels.blocked.tiles import tiles
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer
from npmobilenet.kernels.walk.columns import NEXT

Rows = Callable[..., None]  # writes rows of the expanded image: of a block, from which row on, how many, where


def define(library: Library, stem_window: tuple) -> None:
    """Add the kernels."""
    library.add("inverted_residual_ring", _ring(_Block.expand_rows))
    library.add("inverted_residual_split", _split())
    library.add("stem_residual_ring", _ring(partial(_Block.stem_rows, window=stem_window)))
    library.add("depthwise_project_ring", _ring(_Block.copy_rows))
    library.add("expand_depthwise_ring", _ring(_Block.expand_rows, projects=False))
    library.add("expand_depthwise_pair", pair)


class _Block:
    """The steps of a block, as all these kernels take them."""

    def __init__(
        self, code: Code, a: Arguments, scratch: Pointer, later: tuple[Pointer, Integer] | None = None
    ) -> None:
        self.code, self.a = code, a
        self.size = code.target.bytes
        self.wide_blocks = tiles(code.target).wide.blocks
        self.row_vectors = a["left"] + a["width"] + a["right"]
        self.expanded = scratch
        self.later = later or (code.integer(0).pointer(), code.integer(0))

    def panel_of(self, block: Integer) -> Integer:
        """The panel of the expansion that begins with this block."""
        wide = (block // self.wide_blocks).minimum(self.a["expand_wide"])
        return wide + (block - wide * self.wide_blocks)

    def expand(
        self, begin: Integer, count: Integer, slot: Integer, first: Integer, last: Integer, rows_of: Rows | None = None
    ) -> None:
        """Write ``count`` rows of the padded expanded image, from row ``begin``, to row ``slot`` of the scratch.

        ``rows_of`` makes them: one of the three below.
        """
        code, a, size = self.code, self.a, self.size
        row_bytes = self.row_vectors * size
        above = begin - a["top"]
        skipped = (0 - above).maximum(0).minimum(count)
        present = ((above + count).minimum(a["height"]) - (above + skipped)).maximum(0)
        rows = self.expanded + slot * row_bytes

        def clear(block: Integer) -> None:
            frame = (count, self.row_vectors, skipped, count - skipped - present, a["left"], a["right"])
            code.call("zero_frame", rows + a["scratch_plane"] * (block - first), *frame)

        code.loop(last, clear, start=first)
        place = rows + skipped * row_bytes
        with code.when(present > 0):
            (rows_of or _Block.expand_rows)(self, above + skipped, present, place, first, last)

    def expand_rows(self, row: Integer, count: Integer, place: Pointer, first: Integer, last: Integer) -> None:
        """A pointwise convolution of ``count`` rows of the input, from ``row`` on."""
        code, a, size = self.code, self.a, self.size
        code.call(
            "pointwise_panels_scattered",
            *(a.at("expand_x") + row * a["width"] * size, a["expand_x_plane"]),
            *(a.at("expand_weights"), a.at("expand_bias"), code.integer(0).pointer(), 0),
            *(place - a["scratch_plane"] * first, a["scratch_plane"], a.at("offsets")),
            *(count * a["width"], a["expand_k_units"], a.at("expand_inputs"), a.at("expand_clamp")),
            *(a.at("expand_activate"), 0, a["expand_k_units"] * (k_unit(code.target) * size)),
            *(a["expand_wide"], a["expand_halved"], self.panel_of(first), self.panel_of(last), 0, 0, *self.later),
        )

    def stem_rows(
        self, row: Integer, count: Integer, place: Pointer, first: Integer, last: Integer, window: tuple
    ) -> None:
        """The first convolution, of the planar image."""
        a, (kernel, stride) = self.a, window
        self.code.call(
            f"{stem_name(kernel, stride)}_rows",
            *(a.at("expand_x"), a["expand_x_row"], a["expand_x_plane"]),
            *(a.at("image"), self.expanded, row, a["expand_k_units"]),
            *(a.at("expand_weights"), a.at("expand_bias")),
            *(place + a["left"] * self.size, self.row_vectors * self.size, a["scratch_plane"], a["width"]),
            *(a.at("expand_clamp"), a.at("expand_activate"), a["expand_wide"], a["blocks"], count),
        )

    def copy_rows(self, row: Integer, count: Integer, place: Pointer, first: Integer, last: Integer) -> None:
        """The input itself, into the frame."""
        code, a, size = self.code, self.a, self.size

        def at_block(block: Integer) -> None:
            source = a.at("expand_x") + a["expand_x_plane"] * block + row * a["width"] * size
            target = place + a["scratch_plane"] * (block - first) + a["left"] * size

            def at_row(number: Integer) -> None:
                line, to = source + number * a["width"] * size, target + number * self.row_vectors * size
                code.loop(a["width"], lambda at: (to + at * size).store((line + at * size).vector()))

            code.loop(count, at_row)

        code.loop(last, at_block, start=first)

    def filter(
        self,
        rows: Integer,
        start: Integer,
        ring: Integer | int,
        first: Integer,
        last: Integer,
        out: Pointer,
        plane: Integer,
    ) -> None:
        """Depthwise convolution of what was expanded, for ``rows`` output rows; ``out`` is block ``first``'s."""
        code, a, size = self.code, self.a, self.size
        code.call(
            a.at("depthwise"),
            *(self.expanded - a["scratch_plane"] * first, self.row_vectors * size, a["scratch_plane"]),
            *(a.at("depthwise_weights"), a.at("depthwise_bias")),
            *(out - plane * first, a["columns"] * size, plane, rows, a["columns"], a.at("depthwise_clamp")),
            *(a.at("depthwise_activate"), code.integer(1), code.integer(size), start, code.integer(ring), first, last),
        )

    def filter_to_scratch(
        self, rows: Integer, start: Integer, ring: Integer | int, first: Integer, last: Integer
    ) -> None:
        """The same, for the projection to read."""
        self.filtered = self.expanded + self.a["scratch_depthwise"]
        self.filter(rows, start, ring, first, last, self.filtered, rows * self.a["columns"] * self.size)

    def project(self, begin: Integer, rows: Integer, first: Integer, last: Integer) -> None:
        """Add the projection of blocks ``first`` up to ``last``; the last ones complete it."""
        code, a, size = self.code, self.a, self.size
        unit, pixels = k_unit(code.target), rows * a["columns"]
        where = begin * a["columns"] * size
        complete = last >= a["blocks"]
        nothing = code.integer(0).pointer()
        residual = code.select(a["residual"].equals(0), nothing, a.at("residual") + where)
        units = first * (code.target.lanes // unit)
        left = a["project_k_units"] - units
        here = code.select(complete, left, (last - first) * (code.target.lanes // unit))
        clamp = code.select(complete, a.at("project_clamp"), a.at("unlimited"))

        def run(name: str, out: Pointer, offsets: Pointer) -> None:
            code.call(
                name,
                *(self.filtered, pixels * size, a.at("project_weights"), a.at("project_bias")),
                *(
                    code.select(complete, residual, nothing),
                    a["residual_plane"],
                    out,
                    a["out_plane"],
                    offsets,
                ),
                *(
                    pixels,
                    here,
                    a.at("project_inputs"),
                    clamp,
                    nothing,
                    first.minimum(1),
                    a["project_k_units"] * (unit * size),
                ),
                *(a["project_wide"], a["project_halved"], 0, a["project_panels"], units * (unit * size), 0, nothing, 0),
            )

        with code.when(a["out_offsets"].equals(0)):
            run("pointwise_panels", a.at("out") + where, nothing)
        with code.when(a["out_offsets"] > 0):
            run("pointwise_panels_scattered", a.at("out"), a.at("out_offsets") + begin * a["columns"] * 8)


def _ring(rows_of: Rows, projects: bool = True):
    def ring(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: strips ``first`` up to ``last`` of a block (fields `BLOCK`)."""
        block = _Block(code, BLOCK.read(arguments), scratch)
        a = block.a
        shared = a["kernel_height"] - a["stride"]  # rows that a strip and the next one both read
        fresh = a["strip"] * a["stride"]
        length = fresh * 2
        zero = code.integer(0)

        def slot(strip: Integer) -> Integer:
            return (strip % 2) * fresh

        def before(strip: Integer) -> Integer:
            """Where the shared rows stand: at the end of the half before."""
            return slot(strip + 1) + fresh - shared

        continued = scratch.integer(NEXT).equals(
            first
        )  # what this thread has computed ends here: they still stand there
        with code.when(code.builder.not_(continued)):
            block.expand(first * fresh, shared, before(first), zero, a["blocks"], rows_of)

        def at_strip(strip: Integer) -> None:
            begin = strip * a["strip"]
            rows = a["strip"].minimum(a["rows"] - begin)
            block.expand(strip * fresh + shared, rows * a["stride"], slot(strip), zero, a["blocks"], rows_of)
            if projects:
                block.filter_to_scratch(rows, before(strip), length, zero, a["blocks"])
                block.project(begin, rows, zero, a["blocks"])
            else:
                out = a.at("out") + begin * a["columns"] * block.size
                block.filter(rows, before(strip), length, zero, a["blocks"], out, a["out_plane"])

        code.loop(last, at_strip, start=first)

    return ring


def _split():
    def split(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: strips ``first`` up to ``last`` of a block, chunk by chunk (fields `BLOCK`)."""
        block = _Block(code, BLOCK.read(arguments), scratch)
        a = block.a

        def at_strip(strip: Integer) -> None:
            begin = strip * a["strip"]
            rows = a["strip"].minimum(a["rows"] - begin)
            needed = (rows - 1) * a["stride"] + a["kernel_height"]

            def at_chunk(start: Integer) -> None:
                stop = (start + a["chunk"]).minimum(a["blocks"])
                block.expand(begin * a["stride"], needed, code.integer(0), start, stop)
                block.filter_to_scratch(rows, code.integer(0), NO_RING, start, stop)
                block.project(begin, rows, start, stop)

            code.loop(a["blocks"], at_chunk, step=a["chunk"])

        code.loop(last, at_strip, start=first)

    return split


def pair(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: chunks ``first`` up to ``last`` of an expansion, its depthwise convolution and means (fields `PAIR`)."""
    a = PAIR.read(arguments)
    block = _Block(code, a, scratch, later=(a.at("later"), a["later_part"]))
    zero = code.integer(0)
    needed = (a["rows"] - 1) * a["stride"] + a["kernel_height"]
    pixels = a["rows"] * a["columns"]

    def at_chunk(number: Integer) -> None:
        start = number * a["chunk"]
        stop = (start + a["chunk"]).minimum(a["blocks"])
        block.expand(zero, needed, zero, start, stop)
        block.filter(a["rows"], zero, NO_RING, start, stop, a.at("out") + a["out_plane"] * start, a["out_plane"])
        with code.when(a["mean"] > 0):
            means = a.at("mean"), code.integer(code.target.bytes)
            code.call("mean_planes", a.at("out"), a["out_plane"], *means, pixels, a.at("reciprocal"), start, stop)

    code.loop(last, at_chunk, start=first)
