"""A block of 8-bit layers as one call: quantise, expand, depthwise, project over strips of rows; or all but the last.

What is in between stands in each thread's scratch, a strip at a time. Each layer is the call that it is alone: the
block has their arguments, made for strips, and puts in them where the strip is. Rows that strips share are
computed once by a thread that computes both. The expansion may also be the convolution of the image, or read what is
quantised already; and what is projected may leave the block quantised, as the next one reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.int8 import depthwise, entry, pointwise, stem
from npmobilenet.kernels.blocked.int8.depthwise import DEPTHWISE, Depthwise
from npmobilenet.kernels.blocked.int8.layout import BYTE
from npmobilenet.kernels.blocked.int8.pointwise import Pointwise
from npmobilenet.kernels.blocked.int8.stem import Stem
from npmobilenet.kernels.blocked.layout import Fields
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.memory import ALIGNMENT
from npmobilenet.kernels.tensor import Tensor

# The arguments of the layers and the addresses of their kernels, 0 where there is no such layer: none that enters where
# `image` is 1 (the expansion is the stem) or what is read is quantised, none that projects or leaves. The depthwise
# convolution has as many rows (`RUN`) as runs. `strip` of `rows` of the result are an item; the rest is the depthwise
# convolution's: stride, rows that a window reaches over, what stands around each block of its input, pixels above, left
# and right, the `height` and `columns` (with those) of its input. `_at` are places in the scratch.
BLOCK = Fields(
    "enter expand project leave enter_kernel expand_kernel project_kernel leave_kernel image run_count runs "
    "rows strip stride reach pixel top left right height width columns blocks plane row "
    "quantized_at scales_at expanded_at filtered_at projected_at"
)
RUN = Fields(f"kernel blocks {' '.join(DEPTHWISE.names)}")
SCRATCH_BYTES = 192 * 1024  # of a strip: with its weights it fits a second-level cache of 256 KiB
ROWS_BYTES = 5 * 256  # of the arguments that are put together for a strip


@dataclass(frozen=True)
class Leaving:
    """Where a block's result goes, quantised pixel by pixel around a zero point."""

    values: Tensor
    scales: Tensor
    zero_point: int


def call(
    x: Tensor,
    expanded: Tensor,
    out: Tensor,
    weights: tuple[Pointwise | Stem, Depthwise, Pointwise] | tuple[Pointwise | Stem, Depthwise],
    *,
    zero_point: int = 128,
    scales: Tensor | None = None,
    residual: Tensor | None = None,
    leaves: Leaving | None = None,
    threads: int = 1,
) -> Call:
    """Compute a block, or without the weights of a projection what that would read.

    Parameters
    ----------
    x : Tensor
        Of float32; planar and of 16 bits where the expansion is the stem; of bytes where there are ``scales``.
    expanded : Tensor
        Of bytes, without memory; its frame is the depthwise convolution's padding.
    zero_point : int
        Of the pixels of ``x``, quantised.
    scales : Tensor, optional
        Of the pixels of ``x``, if they are quantised.
    leaves : Leaving, optional
        Where the pixels of ``out`` go, quantised; then ``out`` is without memory.
    threads : int
        At least so many strips are made.
    """
    expand, middle, *projection = weights
    target = middle.target
    (top, _), (left, right) = expanded.frame
    strip = _strip(x, expanded, out, middle, leaves is not None, threads)
    held = (strip - 1) * middle.stride[0] + middle.reach
    inner = replace(expanded, height=held, frame=((0, 0), (left, right)))
    filtered = Tensor(expanded.channels, strip, out.width, dtype=BYTE, lanes=target.lanes)
    nothing = Call(0, 0, ())
    calls = {"enter": nothing, "leave": nothing}
    scratch = {"expanded": inner.bytes, "filtered": filtered.bytes if projection else 0}
    if isinstance(expand, Stem):
        calls["expand"] = stem.call(x, inner, expand)
    elif scales:
        calls["expand"] = pointwise.call(x, inner, expand, pixel_scale=scales)
    else:
        quantized, own = entry.quantized(target, replace(x, height=held, address=0))
        scratch |= {"quantized": quantized.bytes, "scales": own.bytes}
        calls["enter"] = entry.quantize_call(target, x, quantized, own, zero_point)
        calls["expand"] = pointwise.call(quantized, inner, expand, pixel_scale=own)
    place = out
    if leaves:
        place = replace(out, height=strip, address=0)
        scratch["projected"] = place.bytes
        calls["leave"] = entry.quantize_call(target, place, leaves.values, leaves.scales, leaves.zero_point)
    calls["project"] = pointwise.call(filtered, place, *projection, residual=residual) if projection else nothing
    filters = list(depthwise.calls(inner, filtered if projection else out, middle))
    runs = [(each.kernel, run.end - run.begin, *each.arguments) for each, run in zip(filters, middle.runs, strict=True)]
    places, end = dict.fromkeys(("quantized_at", "scales_at", "projected_at"), 0), ROWS_BYTES
    for name, size in scratch.items():
        places[f"{name}_at"] = end
        end += -(-size // ALIGNMENT) * ALIGNMENT + ALIGNMENT  # kernels read beyond the end
    return BLOCK.call(
        library.int8(target).address("int8_block"), -(-out.height // strip), shares=1, scratch_bytes=end,
        keep=(weights, calls, filters),
        **{name: np.array(each.arguments, np.int64) if each.items else 0 for name, each in calls.items()},
        **{f"{name}_kernel": each.kernel for name, each in calls.items()},
        image=isinstance(expand, Stem), run_count=len(runs), runs=np.array(runs, np.int64),
        rows=out.height, strip=strip, stride=middle.stride[0], reach=middle.reach, pixel=middle.zero_point,
        top=top, left=left, right=right, height=expanded.height, width=expanded.width, columns=inner.columns,
        blocks=expanded.blocks, plane=inner.plane_bytes, row=inner.row_bytes, **places,
    )  # fmt: skip


def _strip(x: Tensor, expanded: Tensor, out: Tensor, middle: Depthwise, leaves: bool, threads: int) -> int:
    """Rows of an item: as many as fit the scratch, the same number in each, and work for every thread."""
    of_input = expanded.blocks * expanded.row_bytes + x.blocks * x.width * middle.target.lanes
    of_output = expanded.blocks * out.width * middle.target.lanes + leaves * out.blocks * out.row_bytes
    fitting = (SCRATCH_BYTES - middle.reach * of_input) // (middle.stride[0] * of_input + of_output)
    strips = -(-out.height // max(1, min(fitting, -(-out.height // threads))))
    return -(-out.height // (-(-strips // threads) * threads))
