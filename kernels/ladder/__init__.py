"""Ladders: one operation, written again and again from the textbook's loops to the fastest kernel.

Every rung can be run, is tested against the reference, and says what changed below it and why that helps. The
uppermost rungs are the engine's own kernels. A new rung is a line here and, unless the function exists already,
a function in the operation's file; the registry lists it under the backend "ladder".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rung:
    """One version of an operation.

    Attributes
    ----------
    name : str
        Unique on its ladder.
    target : str
        The function, ``"module:function"`` below ``npmobilenet.kernels``.
    lesson : str
        What changed from the rung below, and why it helps.
    """

    name: str
    target: str
    lesson: str


LADDERS: dict[str, tuple[Rung, ...]] = {
    "conv2d": (
        Rung(
            "python",
            "ladder.convolution:python",
            "The formula as it stands, seven nested loops: the interpreter spends hundreds of instructions on every "
            "multiply-add.",
        ),
        Rung(
            "njit_loops",
            "ladder.convolution:njit_loops",
            "The same loops, compiled: but each addition of a sum waits for the one before, there are no vectors, "
            "and every tap is tested against the border.",
        ),
        Rung(
            "numpy",
            "ladder.convolution:numpy_taps",
            "For each tap of the window one matrix product of all pixels, which NumPy hands to its BLAS library: "
            "vectors and registers are used well, but the output goes through memory once for every tap.",
        ),
        Rung(
            "im2col",
            "ladder.convolution:im2col",
            "The taps are copied beside each other first: a single matrix product, which writes each output once, "
            "for K_h * K_w times the input in memory.",
        ),
        Rung(
            "njit",
            "cpu.convolution:conv2d",
            "No copy: the input is read where it is; output channels are innermost and become vectors, four pixels "
            "share each weight that is loaded, and the border is cut off before the loops.",
        ),
        Rung(
            "simd",
            "blocked.operations:conv2d",
            "Explicit vectors: a tile of sums stays in registers over the whole window. A call of its own, as here, "
            "also pays for packing weights and image, which a network does once.",
        ),
    ),
    "depthwise_conv2d": (
        Rung(
            "python",
            "ladder.depthwise:python",
            "The formula as it stands, six nested loops: the interpreter spends hundreds of instructions on every "
            "multiply-add.",
        ),
        Rung(
            "njit_loops",
            "ladder.depthwise:njit_loops",
            "The same loops, compiled: but one channel is computed at a time, whose taps are far apart in memory, "
            "and every tap is tested against the border.",
        ),
        Rung(
            "numpy",
            "ladder.depthwise:numpy_taps",
            "All pixels and channels at once for each tap of the window: channels, which lie side by side, become "
            "vectors, but the whole image goes through memory several times for every tap.",
        ),
        Rung(
            "njit",
            "cpu.depthwise:depthwise_conv2d",
            "Pixel by pixel again with channels innermost: an output stays in the nearest cache until it is done, "
            "and taps outside of the image are left out before the loops.",
        ),
        Rung(
            "simd",
            "blocked.operations:depthwise_conv2d",
            "Explicit vectors: the sums of neighbouring pixels stay in registers, and a value is loaded once for all "
            "their windows. A call of its own, as here, also pays for packing, which a network does once.",
        ),
    ),
    "mixed_depthwise_conv2d": (
        Rung(
            "python",
            "ladder.mixed:python",
            "The formula as it stands, group by group: the interpreter spends hundreds of instructions on every "
            "multiply-add.",
        ),
        Rung(
            "numpy_split",
            "ladder.mixed:numpy_split",
            "As frameworks run it: split, one convolution for each group, concatenate; whole arrays instead of "
            "single values, but two copies besides, and every group goes through memory for each of its taps.",
        ),
        Rung(
            "njit_split",
            "ladder.mixed:njit_split",
            "The same with a compiled depthwise kernel for each group, which goes through memory once: what is left "
            "are the two copies.",
        ),
        Rung(
            "njit",
            "cpu.mixed:mixed_depthwise_conv2d",
            "One pass: every group reads its channels where they are and writes them where they belong, so that "
            "nothing is copied, and all groups of a line are computed while it is in the cache.",
        ),
        Rung(
            "simd",
            "blocked.operations:mixed_depthwise_conv2d",
            "Explicit vectors: each vector of channels under the window of its group, sums in registers; a vector "
            "that two groups share takes the larger window. A call of its own, as here, also pays for packing.",
        ),
    ),
    "inverted_residual": (
        Rung(
            "python",
            "ladder.inverted_residual:python",
            "The three formulas as they stand, one operation after the other: the interpreter spends hundreds of "
            "instructions on every multiply-add.",
        ),
        Rung(
            "numpy",
            "ladder.inverted_residual:numpy_operations",
            "Two matrix products by NumPy's BLAS library, and one product of whole images for each tap between: the "
            "expanded image, the largest of all, goes through memory dozens of times.",
        ),
        Rung(
            "njit",
            "ladder.inverted_residual:njit_operations",
            "Three compiled kernels: the expanded image, and the filtered one, is written once and read once, but "
            "each is larger than the caches.",
        ),
        Rung(
            "njit_split",
            "ladder.inverted_residual:njit_split",
            "The same kernels on one half of the expanded channels, then on the other, as filtering looks at each by "
            "itself (the paper's t-way split): half the memory between, for shorter inner loops and a second pass over "
            "the result, so that it need not be faster.",
        ),
        Rung(
            "njit_fused",
            "cpu.inverted_residual:inverted_residual",
            "Row by row through all three: of the expanded image a ring of K_h rows is kept in the cache, all channels "
            "at once, and the result is written once.",
        ),
        Rung(
            "simd",
            "blocked.blocks:one_after_another",
            "Explicit vectors in blocks of channels, sums in registers, the engine's kernels one after another: the "
            "arithmetic is fast enough now that reading and writing the expanded image is most of what can be saved.",
        ),
        Rung(
            "simd_split",
            "blocked.blocks:split",
            "One kernel, a chunk of expanded channels at a time: each weight is read once, which is best for small "
            "images with many channels; a large image goes through the projection's sums once for every chunk.",
        ),
        Rung(
            "simd_ring",
            "blocked.blocks:ring",
            "One kernel, a strip of rows at a time, the rows that two strips share kept in a ring: all channels at "
            "once, each sum finished in registers, which is best for large images whose weights stay in the cache.",
        ),
    ),
    "pointwise_conv2d": (
        Rung(
            "python",
            "ladder.pointwise:python",
            "The formula as it stands, a sum over input channels for each pixel and output channel: the interpreter "
            "spends hundreds of instructions on every multiply-add.",
        ),
        Rung(
            "njit_loops",
            "ladder.pointwise:njit_loops",
            "The same loops, compiled: but every sum reads a column of the weights, one value from each cache line, "
            "and each addition waits for the one before.",
        ),
        Rung(
            "njit",
            "cpu.pointwise:pointwise_conv2d_plain",
            "Output channels innermost: multiples of rows of the weights are added to the pixel, all of which lie "
            "in order and become vectors.",
        ),
        Rung(
            "njit_tiled",
            "cpu.pointwise:pointwise_conv2d",
            "Tiles of four pixels and four input channels: a weight is loaded once for four pixels, and an output "
            "once for four weights.",
        ),
        Rung(
            "numpy",
            "ladder.pointwise:matmul",
            "NumPy hands the matrix product to its BLAS library: tiles whose sums stay in registers, written in "
            "assembly by others; bias and activation are further passes over the output.",
        ),
        Rung(
            "simd",
            "blocked.operations:pointwise_conv2d",
            "Explicit vectors, such tiles in our own code: bias, activation and residual end a tile before it is "
            "stored. A call of its own, as here, also pays for packing, which a network does once.",
        ),
    ),
}
