"""A block as one operation: expand, depthwise and project over strips of rows (1801.04381, section 5.1).

The expanded tensor, by far the largest of the block, never exists: of a strip of output rows the expanded
input rows and the depthwise result stand in a scratch buffer that stays in the cache. Neighbouring strips
compute the rows that both need twice. The expansion may also be the stem's dense convolution.

Sums run in the same order as in three separate kernels, so the result has the same bits, whatever the strip.
"""

from __future__ import annotations

from npmobilenet.kernels.blocked import stem
from npmobilenet.kernels.blocked.layout import Fields
from npmobilenet.kernels.simd import Code, Integer, Library, Pointer

# The strip: `strip` output rows of `rows`; an item is a strip. The depthwise: stride, K_h, its zeros above, left
# and right, input `height` x `width`, output columns; `depthwise` is the address of its "blocks" function.
STRIPS = Fields(
    "rows columns strip height width stride kernel_height top left right blocks "
    "expand_x expand_x_row expand_x_plane expand_weights expand_bias expand_units expand_clamp expand_wide "
    "expand_panels offsets "
    "depthwise depthwise_weights depthwise_bias depthwise_clamp "
    "project_weights project_bias project_units project_clamp project_wide project_panels "
    "residual residual_plane out out_plane out_offsets "
    "scratch_plane scratch_depthwise"
)


def define(library: Library, stem_window: tuple) -> None:
    """Add the kernels: one whose expansion is pointwise, one whose expansion is the stem."""
    library.add("inverted_residual", _strips(None))
    library.add("stem_residual", _strips(stem_window))


def _strips(stem_window: tuple | None):  # noqa: ANN202
    def strips(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: strips ``first`` up to ``last`` of a block (fields `STRIPS`)."""
        a = STRIPS.read(arguments)
        size = code.target.bytes
        row_vectors = a["left"] + a["width"] + a["right"]
        row_bytes = row_vectors * size
        expanded, filtered = scratch, scratch + a["scratch_depthwise"]

        def at_strip(number: Integer) -> None:
            begin = number * a["strip"]
            rows = a["strip"].minimum(a["rows"] - begin)
            above = begin * a["stride"] - a["top"]  # the input row of the first tap; may lie above the image
            needed = (rows - 1) * a["stride"] + a["kernel_height"]
            skipped = (code.integer(0) - above).maximum(0)
            present = (above + needed).minimum(a["height"]) - (above + skipped)
            missing = needed - skipped - present

            def clear(block: Integer) -> None:
                plane = expanded + a["scratch_plane"] * block
                code.call("zero_frame", plane, needed, row_vectors, skipped, missing, a["left"], a["right"])

            code.loop(a["blocks"], clear)
            place = expanded + skipped * row_bytes
            if stem_window is None:
                code.call(
                    "pointwise_panels_scattered",
                    *(a.at("expand_x") + (above + skipped) * a["width"] * size, a["expand_x_plane"]),
                    *(a.at("expand_weights"), a.at("expand_bias"), code.integer(0).pointer(), 0),
                    *(place, a["scratch_plane"], a.at("offsets"), present * a["width"], a["expand_units"]),
                    *(a.at("expand_clamp"), a["expand_wide"], 0, a["expand_panels"]),
                )
            else:
                kernel, stride = stem_window
                code.call(
                    f"{stem.name(kernel, stride)}_rows",
                    a.at("expand_x") + a["expand_x_row"] * ((above + skipped) * stride[0]),
                    *(a["expand_x_row"], a["expand_x_plane"], a["expand_units"]),
                    *(a.at("expand_weights"), a.at("expand_bias")),
                    *(place + a["left"] * size, row_bytes, a["scratch_plane"], a["width"]),
                    *(a.at("expand_clamp"), a["expand_wide"], a["blocks"], present),
                )
            code.call(
                a.at("depthwise"),
                *(expanded, row_bytes, a["scratch_plane"], a.at("depthwise_weights"), a.at("depthwise_bias")),
                *(filtered, rows * a["columns"] * size, rows, a["columns"], a.at("depthwise_clamp")),
                *(row_bytes, code.integer(size), code.integer(0), a["blocks"]),
            )
            where = begin * a["columns"] * size
            no_residual = a["residual"].equals(0)
            residual = code.select(no_residual, a.at("residual"), a.at("residual") + where)

            def project(name: str, out: Pointer, offsets: Pointer) -> None:
                code.call(
                    name,
                    *(filtered, rows * a["columns"] * size, a.at("project_weights"), a.at("project_bias")),
                    *(residual, a["residual_plane"], out, a["out_plane"], offsets),
                    *(rows * a["columns"], a["project_units"], a.at("project_clamp")),
                    *(a["project_wide"], 0, a["project_panels"]),
                )

            with code.when(a["out_offsets"].equals(0)):
                project("pointwise_panels", a.at("out") + where, code.integer(0).pointer())
            with code.when(a["out_offsets"] > 0):
                offsets = a.at("out_offsets") + begin * a["columns"] * 8
                project("pointwise_panels_scattered", a.at("out"), offsets)

        code.loop(last, at_strip, start=first)

    return strips
