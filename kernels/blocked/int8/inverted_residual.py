"""A block of 8-bit layers as one call: quantise, expand, depthwise, project over strips of rows; or all but the last.

What is in between stands in each thread's scratch, a strip at a time. Each layer is the call that it is alone: the
block has their arguments, made for strips, and puts in them where the strip is. Rows that strips share are
computed once by a thread that computes both. The expansion may also be the convolution of the image.
"""

from __future__ import annotations

from dataclasses import replace

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

# The arguments of the layers, `enter` 0 where the expansion is the stem and `project` 0 where the depthwise convolution
# is the last, and the addresses of their kernels; of the depthwise one as many rows (`RUN`) as it has runs. `strip` of
# `rows` of the result are an item; the rest is the depthwise convolution's: stride, rows that a window reaches over,
# what stands around each block of its input, pixels above, left and right, the `height` and `columns` (with those) of
# its input. `_at` are places in the scratch.
BLOCK = Fields(
    "enter expand project enter_kernel expand_kernel project_kernel run_count runs "
    "rows strip stride reach pixel top left right height width columns blocks plane row "
    "quantized_at scales_at expanded_at filtered_at"
)
RUN = Fields(f"kernel blocks {' '.join(DEPTHWISE.names)}")
SCRATCH_BYTES = 192 * 1024  # of a strip: with its weights it fits a second-level cache of 256 KiB
ROWS_BYTES = 4 * 256  # of the arguments that are put together for a strip


def call(
    x: Tensor,
    expanded: Tensor,
    out: Tensor,
    weights: tuple[Pointwise | Stem, Depthwise, Pointwise] | tuple[Pointwise | Stem, Depthwise],
    *,
    zero_point: int = 128,
    residual: Tensor | None = None,
    threads: int = 1,
) -> Call:
    """Compute a block, or without the weights of a projection what that would read.

    Parameters
    ----------
    x : Tensor
        Of float32; planar and of 16 bits where the expansion is the stem.
    expanded : Tensor
        Of bytes, without memory; its frame is the depthwise convolution's padding.
    zero_point : int
        Of the pixels of ``x``, quantised.
    threads : int
        At least so many strips are made.
    """
    expand, middle, *projection = weights
    target = middle.target
    (top, _), (left, right) = expanded.frame
    strip = _strip(x, expanded, out, middle, threads)
    held = (strip - 1) * middle.stride[0] + middle.reach
    inner = replace(expanded, height=held, frame=((0, 0), (left, right)))
    filtered = Tensor(expanded.channels, strip, out.width, dtype=BYTE, lanes=target.lanes)
    nothing = Call(0, 0, ())
    if isinstance(expand, Stem):
        scratch, enter = {}, nothing
        first = stem.call(x, inner, expand)
    else:
        quantized, scales = entry.quantized(target, replace(x, height=held, address=0))
        scratch = {"quantized": quantized.bytes, "scales": scales.bytes}
        enter = entry.quantize_call(target, x, quantized, scales, zero_point)
        first = pointwise.call(quantized, inner, expand, pixel_scale=scales)
    last = pointwise.call(filtered, out, *projection, residual=residual) if projection else nothing
    calls = {"enter": enter, "expand": first, "project": last}
    filters = list(depthwise.calls(inner, filtered if projection else out, middle))
    runs = [(each.kernel, run.end - run.begin, *each.arguments) for each, run in zip(filters, middle.runs, strict=True)]
    scratch |= {"expanded": inner.bytes, "filtered": filtered.bytes if projection else 0}
    places, end = {"quantized_at": 0, "scales_at": 0}, ROWS_BYTES
    for name, size in scratch.items():
        places[f"{name}_at"] = end
        end += -(-size // ALIGNMENT) * ALIGNMENT + ALIGNMENT  # kernels read beyond the end
    return BLOCK.call(
        library.int8(target).address("int8_block"), -(-out.height // strip), shares=1, scratch_bytes=end,
        keep=(weights, calls, filters),
        **{name: np.array(each.arguments, np.int64) if each.items else 0 for name, each in calls.items()},
        **{f"{name}_kernel": each.kernel for name, each in calls.items()},
        run_count=len(runs), runs=np.array(runs, np.int64),
        rows=out.height, strip=strip, stride=middle.stride[0], reach=middle.reach, pixel=middle.zero_point,
        top=top, left=left, right=right, height=expanded.height, width=expanded.width, columns=inner.columns,
        blocks=expanded.blocks, plane=inner.plane_bytes, row=inner.row_bytes, **places,
    )  # fmt: skip


def _strip(x: Tensor, expanded: Tensor, out: Tensor, middle: Depthwise, threads: int) -> int:
    """Rows of an item: as many as fit the scratch, the same number in each, and work for every thread."""
    of_input = expanded.blocks * expanded.row_bytes + x.blocks * x.width * middle.target.lanes
    of_output = expanded.blocks * out.width * middle.target.lanes
    fitting = (SCRATCH_BYTES - middle.reach * of_input) // (middle.stride[0] * of_input + of_output)
    strips = -(-out.height // max(1, min(fitting, -(-out.height // threads))))
    return -(-out.height // (-(-strips // threads) * threads))
