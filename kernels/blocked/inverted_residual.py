"""A block as one operation: expand, depthwise and project, the expanded tensor never whole (1801.04381, 5.1).

Two ways to keep what is computed in between in the cache:

``ring``    large images: a strip of output rows at a time. The expanded rows stand in a ring of two strips, so
            that the rows which neighbouring strips share are computed once. The expansion may also be the stem.
``split``   small images with many channels, whose weights outweigh the tensors: the paper's t-way split. A
            chunk of the expanded channels at a time, expanded, filtered and added to the projection's sums; the
            weights are read once.

Where squeeze-and-excitation stands between depthwise and projection, the two before it are computed together:

``pair``    a chunk of the expanded channels at a time, expanded, filtered and averaged; the projection waits until
            all means are known.

Sums run in the same order as in three separate kernels, so the result has the same bits either way, whatever
the strips and chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

from npmobilenet.kernels.blocked import stem
from npmobilenet.kernels.blocked.depthwise import NO_RING
from npmobilenet.kernels.blocked.layout import Arguments, Fields, k_unit, tiles
from npmobilenet.kernels.simd import Code, Integer, Library, Pointer, Target

SCRATCH_BYTES = 256 * 1024  # of a strip or a chunk: with its weights it fits a second-level cache of 512 KiB

# The depthwise: output `rows` x `columns`, stride, K_h, zeros above, left and right, input `height` x `width`;
# `depthwise` is the address of its "blocks" function. `chunk` of `blocks` are computed at a time; `strip` output
# rows are one item, of a pair a chunk. `unlimited` is a clamp that changes nothing.
_BOTH = (
    "rows columns height width stride kernel_height top left right blocks chunk "
    "expand_x expand_x_row expand_x_plane expand_weights expand_bias expand_units expand_inputs expand_wide "
    "expand_clamp expand_activate offsets "
    "depthwise depthwise_weights depthwise_bias depthwise_clamp depthwise_activate "
    "out out_plane scratch_plane"
)
BLOCK = Fields(
    f"{_BOTH} strip "
    "project_weights project_bias project_units project_inputs project_wide project_panels project_clamp unlimited "
    "residual residual_plane out_offsets scratch_depthwise"
)
PAIR = Fields(f"{_BOTH} mean reciprocal")


@dataclass(frozen=True)
class Cut:
    """How a block is cut, so that what is computed in between stays in the cache.

    Attributes
    ----------
    strip : int
        Output rows of one item.
    chunk : int
        Channel blocks that are computed at a time.
    held : int
        Expanded rows that the scratch has room for.
    expanded, filtered : int
        Bytes of a channel block's expanded rows, and of its filtered ones.
    """

    strip: int
    chunk: int
    held: int
    expanded: int
    filtered: int

    @property
    def scratch_bytes(self) -> int:
        """Of every thread."""
        return self.chunk * (self.expanded + self.filtered)


@dataclass(frozen=True)
class Extent:
    """What decides how a block is cut: output rows and columns, vectors of an expanded row inside its frame.

    ``blocks`` are the channel blocks of the expansion; ``window`` is the height of the depthwise window.
    """

    target: Target
    rows: int
    columns: int
    row_vectors: int
    stride: int
    window: int
    blocks: int

    def by_rows(self, budget: int) -> Cut:
        """For the ring: strips as high as ``budget`` bytes of scratch allow, the same number of them, evenly."""
        least = -(-(self.window - self.stride) // self.stride)  # a strip is at least as high as what it shares

        def cut(strip: int) -> Cut:
            return self._cut(strip, self.blocks, 2 * strip * self.stride)

        fitting = [strip for strip in range(1, self.rows + 1) if cut(strip).scratch_bytes <= budget]
        highest = max([1, least, *fitting])
        return cut(max(least, -(-self.rows // (-(-self.rows // highest)))))

    def by_channels(self, threads: int, budget: int, parts: int | None = None) -> Cut:
        """For the split: a strip for each thread, and so many channels at a time as fit, or 1 / ``parts`` of them."""
        strip = -(-self.rows // threads)
        whole = self._cut(strip, 1, (strip - 1) * self.stride + self.window)
        chunk = chunk_of(self.target, whole.scratch_bytes, budget)
        if parts:
            wide = tiles(self.target)[0].blocks
            chunk = -(-self.blocks // (wide * parts)) * wide
        return self._cut(strip, min(self.blocks, chunk), whole.held)

    def _cut(self, strip: int, chunk: int, held: int) -> Cut:
        size = self.target.bytes
        return Cut(strip, chunk, held, held * self.row_vectors * size, strip * self.columns * size)


def chunk_of(target: Target, block_bytes: int, budget: int) -> int:
    """How many channel blocks of so many bytes fit: whole panels, one at least."""
    wide = tiles(target)[0].blocks
    return max(wide, budget // block_bytes // wide * wide)


def define(library: Library, stem_window: tuple) -> None:
    """Add the kernels."""
    library.add("inverted_residual_ring", _ring(None))
    library.add("inverted_residual_split", _split())
    library.add("stem_residual_ring", _ring(stem_window))
    library.add("expand_depthwise_pair", pair)


class _Block:
    """The steps of a block, as both kernels take them."""

    def __init__(self, code: Code, a: Arguments, scratch: Pointer, stem_window: tuple | None = None) -> None:
        self.code, self.a, self.stem_window = code, a, stem_window
        self.size = code.target.bytes
        self.wide_blocks = tiles(code.target)[0].blocks
        self.row_vectors = a["left"] + a["width"] + a["right"]
        self.expanded = scratch

    def panel_of(self, block: Integer) -> Integer:
        """The panel of the expansion that begins with this block."""
        wide = (block // self.wide_blocks).minimum(self.a["expand_wide"])
        return wide + (block - wide * self.wide_blocks)

    def expand(self, begin: Integer, count: Integer, slot: Integer, first: Integer, last: Integer) -> None:
        """Write ``count`` rows of the padded expanded image, from row ``begin``, to row ``slot`` of the scratch."""
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
            if self.stem_window is None:
                code.call(
                    "pointwise_panels_scattered",
                    *(a.at("expand_x") + (above + skipped) * a["width"] * size, a["expand_x_plane"]),
                    *(a.at("expand_weights"), a.at("expand_bias"), code.integer(0).pointer(), 0),
                    *(place - a["scratch_plane"] * first, a["scratch_plane"], a.at("offsets")),
                    *(
                        present * a["width"],
                        a["expand_units"],
                        a.at("expand_inputs"),
                        a.at("expand_clamp"),
                        a.at("expand_activate"),
                        0,
                    ),
                    *(a["expand_units"] * (k_unit(code.target) * size), a["expand_wide"]),
                    *(self.panel_of(first), self.panel_of(last), 0),
                )
            else:
                kernel, stride = self.stem_window
                code.call(
                    f"{stem.name(kernel, stride)}_rows",
                    a.at("expand_x") + a["expand_x_row"] * ((above + skipped) * stride[0]),
                    *(a["expand_x_row"], a["expand_x_plane"], a["expand_units"]),
                    *(a.at("expand_weights"), a.at("expand_bias")),
                    *(place + a["left"] * size, row_bytes, a["scratch_plane"], a["width"]),
                    *(a.at("expand_clamp"), a.at("expand_activate"), a["expand_wide"], a["blocks"], present),
                )

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
        left = a["project_units"] - units
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
                    a["project_units"] * (unit * size),
                ),
                *(a["project_wide"], 0, a["project_panels"], units * (unit * size)),
            )

        with code.when(a["out_offsets"].equals(0)):
            run("pointwise_panels", a.at("out") + where, nothing)
        with code.when(a["out_offsets"] > 0):
            run("pointwise_panels_scattered", a.at("out"), a.at("out_offsets") + begin * a["columns"] * 8)


def _ring(stem_window: tuple | None):
    def ring(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: strips ``first`` up to ``last`` of a block (fields `BLOCK`)."""
        block = _Block(code, BLOCK.read(arguments), scratch, stem_window)
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

        block.expand(first * fresh, shared, before(first), zero, a["blocks"])

        def at_strip(strip: Integer) -> None:
            begin = strip * a["strip"]
            rows = a["strip"].minimum(a["rows"] - begin)
            block.expand(strip * fresh + shared, rows * a["stride"], slot(strip), zero, a["blocks"])
            block.filter_to_scratch(rows, before(strip), length, zero, a["blocks"])
            block.project(begin, rows, zero, a["blocks"])

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
    block = _Block(code, PAIR.read(arguments), scratch)
    a = block.a
    zero = code.integer(0)
    needed = (a["rows"] - 1) * a["stride"] + a["kernel_height"]
    pixels = a["rows"] * a["columns"]

    def at_chunk(number: Integer) -> None:
        start = number * a["chunk"]
        stop = (start + a["chunk"]).minimum(a["blocks"])
        block.expand(zero, needed, zero, start, stop)
        block.filter(a["rows"], zero, NO_RING, start, stop, a.at("out") + a["out_plane"] * start, a["out_plane"])
        code.call("mean_planes", a.at("out"), a["out_plane"], a.at("mean"), pixels, a.at("reciprocal"), start, stop)

    code.loop(last, at_chunk, start=first)
