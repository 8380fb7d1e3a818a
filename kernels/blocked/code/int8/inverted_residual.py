"""A block of 8-bit layers, strip by strip: the calls of its layers, on the scratch."""

from __future__ import annotations

from collections.abc import Mapping

from npmobilenet.kernels.blocked.int8.depthwise import DEPTHWISE
from npmobilenet.kernels.blocked.int8.entry import PIXELS
from npmobilenet.kernels.blocked.int8.inverted_residual import BLOCK, ROWS_BYTES, RUN
from npmobilenet.kernels.blocked.int8.pointwise import POINTWISE
from npmobilenet.kernels.blocked.int8.stem import STEM
from npmobilenet.kernels.blocked.layout import Fields
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer

EACH = ROWS_BYTES // 5


def define(library: Library) -> None:
    """Add the kernel."""
    library.add("int8_block", block)


def _put(
    place: Pointer,
    fields: Fields,
    arguments: Pointer,
    moved: Mapping[str, Integer | Pointer],
    **given: Integer | int,
) -> None:
    """Write arguments down again: some moved by a distance or to a base address, some given."""
    for at, name in enumerate(fields.names):
        value = arguments.integer(8 * at)
        if name in given:
            value = place.code.integer(given[name])
        elif name in moved:
            by = moved[name]
            value = value + (by.address() if isinstance(by, Pointer) else by)
        place.store(value, 8 * at)


def block(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: strips ``first`` up to ``last`` of a block (fields `BLOCK`)."""
    a = BLOCK.read(arguments)
    rows = [scratch + EACH * at for at in range(5)]
    expanded, filtered = scratch + a["expanded_at"], scratch + a["filtered_at"]

    # Rows that the strip before has expanded, where the same thread computes it: they stand at its end.
    shared = (a["reach"] - a["stride"]).maximum(0)

    def keep() -> list[Integer]:
        end = (a["strip"] - 1) * a["stride"] + a["reach"]

        def at_block(number: Integer) -> None:
            place = expanded + a["plane"] * number
            source = place + (end - shared) * a["row"]

            def copy(at: Integer) -> None:
                (place + at).fill_bytes(source + at)

            code.loop(shared * a["row"], copy, step=code.target.lanes)

        code.loop(a["blocks"], at_block)
        return [shared]

    def at_strip(item: Integer) -> None:
        begin = item * a["strip"]
        count = a["strip"].minimum(a["rows"] - begin)
        (kept,) = code.branch(item > first, keep, [code.integer(0)])
        above = begin * a["stride"] - a["top"] + kept
        new = (count - 1) * a["stride"] + a["reach"] - kept
        skipped = (0 - above).maximum(0).minimum(new)
        source = above + skipped
        present = ((above + new).minimum(a["height"]) - source).maximum(0)
        below = new - skipped - present

        def clear(number: Integer) -> None:
            frame = (new, a["columns"], skipped, below, a["left"], a["right"])
            pixel = a.at("pixel") + number * code.target.lanes
            code.call("int8_fill_frame", expanded + a["plane"] * number + kept * a["row"], pixel, *frame)

        # What stands left and right of the first strip's rows is there for all others, that have no more of them.
        with code.when(code.builder.or_(item.equals(first), skipped + below > 0)):
            code.loop(a["blocks"], clear)
        place = expanded + (kept + skipped) * a["row"]
        with code.when(present > 0):
            code.either(
                a["image"].equals(0),
                lambda: of_pixels(source, present, place),
                lambda: of_image(source, present, place),
            )

        projects = code.builder.not_(a["project"].equals(0))

        def at_run(number: Integer) -> None:
            row = a.at("runs") + number * RUN.bytes
            run, arguments = RUN.read(row), row + (RUN.bytes - DEPTHWISE.bytes)
            place = code.select(projects, filtered.address(), begin * run["out_row"])
            _put(rows[2], DEPTHWISE, arguments, {"x": expanded, "out": place}, rows=count, strip=count, strips=1)
            code.call(run.at("kernel"), rows[2], 0, run["blocks"], scratch)

        code.loop(a["run_count"], at_run)
        with code.when(projects):
            project(begin, count)

    def project(begin: Integer, count: Integer) -> None:
        arguments = a.at("project")
        row = POINTWISE.read(arguments)
        leaves = code.builder.not_(a["leave"].equals(0))
        projected = scratch + a["projected_at"]
        place = code.select(leaves, projected.address(), begin * row["out_row"])
        residual = code.select(
            row["residual"].equals(0), row["residual"], row["residual"] + begin * row["residual_row"]
        )
        whole = {"rows": count, "strip": count, "parts": 1, "panels_each": row["panels"]}
        _put(rows[3], POINTWISE, arguments, {"x": filtered, "out": place}, residual=residual, **whole)
        code.call(a.at("project_kernel"), rows[3], 0, 1, scratch)
        with code.when(leaves):
            pixels, first = count * row["columns"], begin * row["columns"]
            moved = {"x": projected, "out": first * code.target.lanes, "scale": first * 4}
            _put(rows[4], PIXELS, a.at("leave"), moved, pixels=pixels, strip=pixels)
            code.call(a.at("leave_kernel"), rows[4], 0, 1, scratch)

    def of_image(source: Integer, present: Integer, place: Pointer) -> None:
        _put(rows[1], STEM, a.at("expand"), {"out": place}, first=source)
        code.call(a.at("expand_kernel"), rows[1], 0, present, scratch)

    def of_pixels(source: Integer, present: Integer, place: Pointer) -> None:
        enters, first = code.builder.not_(a["enter"].equals(0)), source * a["width"]
        quantized, scales = scratch + a["quantized_at"], scratch + a["scales_at"]
        with code.when(enters):
            pixels = present * a["width"]
            moved = {"x": first * code.target.bytes, "out": quantized, "scale": scales}
            _put(rows[0], PIXELS, a.at("enter"), moved, pixels=pixels, strip=pixels)
            code.call(a.at("enter_kernel"), rows[0], 0, 1, scratch)
        row = POINTWISE.read(a.at("expand"))
        moved = {
            "x": code.select(enters, quantized.address(), first * code.target.lanes),
            "out": place,
            "pixel_scale": code.select(enters, scales.address(), first * 4),
        }
        whole = {"rows": present, "strip": present, "parts": 1, "panels_each": row["panels"]}
        _put(rows[1], POINTWISE, a.at("expand"), moved, **whole)
        code.call(a.at("expand_kernel"), rows[1], 0, 1, scratch)

    code.loop(last, at_strip, start=first)
