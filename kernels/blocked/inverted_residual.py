"""A block as one operation: expand, depthwise and project, the expanded tensor never whole (1801.04381, 5.1).

Two ways to keep what is computed in between in the cache:

``ring``    large images: a strip of output rows at a time. The expanded rows stand in a ring of two strips, so
            that the rows which neighbouring strips share are computed once by a thread that computes both. The
            expansion may also be the stem, or nothing but the input's copy into the ring's frame of zeros; and the
            projection may be missing.
``split``   small images with many channels, whose weights outweigh the tensors: the paper's t-way split. A
            chunk of the expanded channels at a time, expanded, filtered and added to the projection's sums; the
            weights are read once.

Where squeeze-and-excitation stands between depthwise and projection, the two before it are computed together:

``pair``    a chunk of the expanded channels at a time, expanded, filtered and averaged; the projection waits until
            all means are known. Without means it serves where a block is not worth computing as a whole.

Sums run in the same order as in three separate kernels, so the result has the same bits either way, whatever
the strips and chunks. As single operations, the projection may end with a clamp only, and where the expanded channels
do not fill whole vectors, an infinity may make NaN of the outputs that see it.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import activation as activations
from npmobilenet.kernels.blocked import depthwise, library, pointwise, stem
from npmobilenet.kernels.blocked.depthwise import Depthwise
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.layout import Fields, Stretch, Value
from npmobilenet.kernels.blocked.pointwise import Pointwise
from npmobilenet.kernels.blocked.pooling import reciprocal
from npmobilenet.kernels.blocked.stem import Stem
from npmobilenet.kernels.blocked.tiles import tiles
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

SCRATCH_BYTES = 256 * 1024  # of a strip or a chunk: with its weights it fits a second-level cache of 512 KiB
UNEVEN = 1 / 16  # of a thread's rows: so many more are no reason for lower strips

# The depthwise: output `rows` x `columns`, stride, K_h, zeros above, left and right, input `height` x `width`;
# `depthwise` is the address of its "blocks" function. `chunk` of `blocks` are computed at a time; `strip` output
# rows are one item, of a pair a chunk. `unlimited` is a clamp that changes nothing.
# `image` is what the stem knows of the image (`stem.IMAGE`), 0 for another expansion.
_BOTH = (
    "rows columns height width stride kernel_height top left right blocks chunk "
    "expand_x expand_x_row expand_x_plane image expand_weights expand_bias expand_k_units expand_inputs expand_wide "
    "expand_halved expand_clamp expand_activate offsets "
    "depthwise depthwise_weights depthwise_bias depthwise_clamp depthwise_activate "
    "out out_plane scratch_plane"
)
BLOCK = Fields(
    f"{_BOTH} strip "
    "project_weights project_bias project_k_units project_inputs project_wide project_halved project_panels "
    "project_clamp unlimited residual residual_plane out_offsets scratch_depthwise"
)
PAIR = Fields(f"{_BOTH} mean reciprocal later later_part")
_SIGNATURE = inspect.signature(checks.inverted_residual)


class Cut(NamedTuple):
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


class Extent(NamedTuple):
    """What decides how a block is cut: the expanded image inside its frame, the result, the depthwise convolution."""

    expanded: Tensor
    out: Tensor
    middle: Depthwise

    def by_rows(self, budget: int, threads: int = 1) -> Cut:
        """For the ring: strips as high as ``budget`` bytes of scratch allow, the same number of them, evenly.

        Lower where a thread would otherwise compute many more rows than its share.
        """
        rows, stride = self.out.height, self.middle.stride[0]
        least = -(-(self.middle.reach - stride) // stride)  # a strip is at least as high as what it shares

        def cut(strip: int) -> Cut:
            return self._cut(strip, self.expanded.blocks, 2 * strip * stride)

        def most(strip: int) -> int:
            """Rows of the thread that has the most."""
            strips = -(-rows // strip)
            return min(rows, -(-strips // threads) * strip)

        fitting = [strip for strip in range(1, rows + 1) if cut(strip).scratch_bytes <= budget]
        strips = range(max(1, least), max([1, least, *fitting]) + 1)
        enough = min(map(most, strips)) * (1 + UNEVEN)
        return cut(min((-(-rows // strip), strip) for strip in strips if most(strip) <= enough)[1])

    def by_channels(self, threads: int, budget: int, parts: int | None = None) -> Cut:
        """For the split: a strip for each thread, and so many channels at a time as fit, or 1 / ``parts`` of them."""
        strip = -(-self.out.height // threads)
        whole = self._cut(strip, 1, self.held(strip))
        chunk = _chunk(self.middle.target, whole.scratch_bytes, budget)
        if parts:
            wide = tiles(self.middle.target).wide.blocks
            chunk = -(-self.expanded.blocks // (wide * parts)) * wide
        return self._cut(strip, min(self.expanded.blocks, chunk), whole.held)

    def by_planes(self, budget: int, threads: int = 1) -> Cut:
        """For the pair: so many channels at a time as fit; what is filtered goes to the result.

        Several threads take a panel at a time: so their parts are as even as can be.
        """
        held = self.held(self.out.height)
        plane = held * self.expanded.row_bytes
        return Cut(self.out.height, _chunk(self.middle.target, plane, budget if threads == 1 else 0), held, plane, 0)

    def held(self, rows: int) -> int:
        """Expanded rows that so many rows of the result depend on."""
        return (rows - 1) * self.middle.stride[0] + self.middle.reach

    def _cut(self, strip: int, chunk: int, held: int) -> Cut:
        filtered = strip * self.out.width * self.expanded.pixel_bytes
        return Cut(strip, chunk, held, held * self.expanded.row_bytes, filtered)


def reads_less_by_rows(
    x: Tensor, expanded: Tensor, out: Tensor, middle: Depthwise, weight_bytes: int, threads: int = 1
) -> bool:
    """Whether the ring reads less again than the split, and no thread has much more to do than another.

    Each strip of a thread after its first reads the weights again, each chunk after the first the input, and the sums,
    which it writes.
    """
    extent = Extent(expanded, out, middle)
    rows, channels = extent.by_rows(SCRATCH_BYTES, threads), extent.by_channels(threads, SCRATCH_BYTES)
    strips, chunks = -(-out.height // rows.strip), -(-expanded.blocks // channels.chunk)
    most = min(out.height, -(-strips // threads) * rows.strip)  # rows of a thread
    again = (strips - threads) * weight_bytes <= (chunks - 1) * (x.bytes + 2 * out.bytes)
    return again and most * threads <= out.height * (1 + UNEVEN)


def _chunk(target: Target, block_bytes: int, budget: int) -> int:
    """How many channel blocks of so many bytes fit: whole panels, one at least."""
    wide = tiles(target).wide.blocks
    return max(wide, budget // block_bytes // wide * wide)


def panel_bytes(expanded: Tensor, out: Tensor, middle: Depthwise) -> int:
    """The least that a pair holds at a time: a panel of expanded channels."""
    return Extent(expanded, out, middle).by_planes(0).scratch_bytes


def call(
    x: Tensor,
    expanded: Tensor,
    out: Tensor,
    weights: tuple[Pointwise | Stem | None, Depthwise, Pointwise | None],
    functions: tuple[str, str, str],
    *,
    residual: Tensor | None = None,
    split: bool = False,
    threads: int = 1,
    parts: int | None = None,
) -> Call:
    """Compute a block: by strips of rows in a ring, or ``split`` by channels.

    Parameters
    ----------
    x, out, residual : Tensor
        ``out`` may have a frame; ``x`` is planar where the expansion is the stem.
    expanded : Tensor
        Without memory; its frame is the depthwise convolution's padding.
    weights : tuple
        In a ring there may be no expansion, or no projection; ``out`` is then what the depthwise convolution computes.
    functions : tuple of str
        The activations.
    threads, parts : int
        What a split is made for; so many chunks, if not as many as fit the cache.
    """
    expand, middle, project = weights
    extent = Extent(expanded, out, middle)
    cut = extent.by_channels(threads, SCRATCH_BYTES, parts) if split else extent.by_rows(SCRATCH_BYTES, threads)
    name = f"inverted_residual_{'split' if split else 'ring'}"
    if isinstance(expand, Stem):
        name = "stem_residual_ring"
    elif not expand:
        name = "depthwise_project_ring"
    elif not project:
        name = "expand_depthwise_ring"
    image, scratch_bytes = None, cut.scratch_bytes
    if isinstance(expand, Stem):
        image, scratch_bytes = stem.image(x, expanded.width, expand, scratch_bytes)
    return BLOCK.call(
        library.common(middle.target).address(name),
        -(-out.height // cut.strip),
        shares=out.height,  # one at a time: what a thread goes on with, it has the beginning of
        scratch_bytes=scratch_bytes,
        keep=(weights, image),
        **_expand_and_filter(x, expanded, out, expand, middle, functions[:2], cut, image),
        strip=cut.strip,
        **_arguments(project, "project_"),
        project_panels=project.panels if project else 0,
        project_clamp=activations.clamp(functions[2]),
        unlimited=activations.clamp(),
        residual=residual,
        out_offsets=out.scattered(),
        scratch_depthwise=cut.chunk * cut.expanded,
    )


def pair(
    x: Tensor,
    expanded: Tensor,
    out: Tensor,
    mean: Tensor | None,
    weights: tuple[Pointwise, Depthwise],
    functions: tuple[str, str],
    threads: int = 1,
    later: Stretch = pointwise.NOTHING,
) -> Call:
    """Compute expansion and depthwise convolution to ``out``, without frame, and the means of its channels, if any.

    ``later`` is what is read after this call, to be asked for meanwhile.
    """
    cut = Extent(expanded, out, weights[1]).by_planes(SCRATCH_BYTES, threads)
    return PAIR.call(
        library.common(weights[1].target).address("expand_depthwise_pair"),
        -(-expanded.blocks // cut.chunk),
        scratch_bytes=cut.scratch_bytes,
        keep=weights,
        **_expand_and_filter(x, expanded, out, *weights, functions, cut),
        mean=mean,
        reciprocal=reciprocal(out),
        **later.shared(weights[0].panels),
    )


def _arguments(weights: Pointwise | Stem | None, prefix: str) -> dict[str, Value]:
    """Those of a pointwise convolution: the stem has fewer, what is missing none."""
    own = weights.arguments() if weights else {}
    every = {**dict.fromkeys(Pointwise.ARGUMENTS, 0), "halved": -1, **own}
    return {f"{prefix}{name}": value for name, value in every.items()}


def _expand_and_filter(
    x: Tensor,
    expanded: Tensor,
    out: Tensor,
    expand: Pointwise | Stem | None,
    middle: Depthwise,
    functions: tuple[str, str],
    cut: Cut,
    image: np.ndarray | None = None,
) -> dict[str, Value]:
    """What all these kernels know of expansion and depthwise convolution."""
    (top, _), (left, right) = expanded.frame
    held = replace(expanded, height=cut.held, frame=((0, 0), (left, right)))
    return {
        "rows": out.height,
        "columns": out.width,
        "height": expanded.height,
        "width": expanded.width,
        "stride": middle.stride[0],
        "kernel_height": middle.reach,
        "top": top,
        "left": left,
        "right": right,
        "blocks": expanded.blocks,
        "chunk": cut.chunk,
        "expand_x": x,
        "image": image,
        **_arguments(expand, "expand_"),
        **activations.ends(middle.target, functions[0], "expand_"),
        "offsets": held.offsets(),
        "depthwise": middle.blocks_function,
        **middle.arguments("depthwise_"),
        **activations.ends(middle.target, functions[1], "depthwise_"),
        "out": out,
        "scratch_plane": cut.expanded,
    }


# Single operations --------------------------------------------------------------------------------------------------


class _Block:
    """What all have in common: checked arguments, packed weights, tensors."""

    def __init__(self, *arguments: Any, threads: int = 1, **options: Any) -> None:
        given = _SIGNATURE.bind(*arguments, **options)
        given.apply_defaults()
        g = checks.inverted_residual(*given.args, **given.kwargs)
        a = SimpleNamespace(**given.arguments)
        self.functions = a.expand_activation, a.depthwise_activation, a.project_activation
        for name, function in zip(("expand_activation", "depthwise_activation"), self.functions, strict=False):
            activations.check(function, name=name)
        activations.check(a.project_activation, tuple(activations.CLAMPS), "project_activation")
        self.geometry, self.residual, self.threads = g, a.residual, threads
        self.images = Images(g.shape, threads)
        target, channels = self.images.target, a.expand_weight.shape[1]
        self.weights = (
            pointwise.pack(target, checks.float32(a.expand_weight), checks.bias(a.expand_bias, channels)),
            depthwise.pack(target, checks.float32(a.weight), checks.bias(a.bias, channels), g.stride),
            pointwise.pack(target, checks.float32(a.project_weight), checks.bias(a.project_bias, g.shape[3])),
        )
        self.inputs = self.images.inputs(a.x)
        self.expanded = Tensor(channels, *a.x.shape[1:3], g.pads, lanes=target.lanes)

    def fused(self, split: bool) -> Images:
        """One call for each image."""
        window, (stride, across) = self.geometry.kernel[0], self.geometry.stride
        if stride != across or stride > window:
            raise ValueError(
                f"stride must be square and at most {window}, as the window, in this kernel, got {(stride, across)}"
            )
        for x in self.inputs:
            tensors, residual = (x, self.expanded, self.images.output()), x if self.residual else None
            cut = {"split": split, "threads": self.threads}
            self.images.add(call(*tensors, self.weights, self.functions, residual=residual, **cut))
        table = self.images.table
        self.images.between = table.threads * table.scratch_bytes
        return self.images


@prepared("inverted_residual")
def one_after_another(*arguments: Any, **options: Any) -> Images:
    """Inverted residual as three kernels of explicit vectors: (N, H, W, C_in) -> (N, P, Q, C_out)."""
    block = _Block(*arguments, **options)
    images, (expand, middle, project), functions = block.images, block.weights, block.functions
    _, rows, columns, _ = block.geometry.shape
    expanded, filtered = images.take(block.expanded), images.tensor(block.expanded.channels, rows, columns)
    images.between = expanded.bytes + filtered.bytes
    for x in block.inputs:
        residual = x if block.residual else None
        images.add(
            pointwise.call(x, expanded, expand, activation=functions[0]),
            depthwise.call(expanded, filtered, middle, activation=functions[1]),
            pointwise.call(filtered, images.output(), project, activation=functions[2], residual=residual),
        )
    return images


@prepared("inverted_residual")
def split(*arguments: Any, **options: Any) -> Images:
    """Inverted residual, a chunk of expanded channels after the other: (N, H, W, C_in) -> (N, P, Q, C_out)."""
    return _Block(*arguments, **options).fused(split=True)


@prepared("inverted_residual")
def ring(*arguments: Any, **options: Any) -> Images:
    """Inverted residual, a strip of rows after the other: (N, H, W, C_in) -> (N, P, Q, C_out)."""
    return _Block(*arguments, **options).fused(split=False)
