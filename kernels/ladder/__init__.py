"""Ladders: one operation, written again and again from the textbook's loops to the fastest kernel.

Every rung can be run, is tested against the reference, and says what changed below it and why that helps. The
uppermost rungs are the engine's own kernels, and the rungs of explicit vectors below them are these kernels with
other tiles. A new rung is a line here and, unless the function exists already, a function in the operation's file;
the registry lists it under the backend "ladder".
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
    threads : bool
        Whether it computes on as many threads as it is told; the lesson says what they share.
    """

    name: str
    target: str
    lesson: str
    threads: bool = False


LADDERS: dict[str, tuple[Rung, ...]] = {
    "conv2d": (
        Rung(
            "python",
            "ladder.convolution:python",
            "The formula as it stands, seven nested loops: the interpreter spends thousands of instructions on every "
            "multiply-add.",
        ),
        Rung(
            "njit_loops",
            "ladder.convolution:njit_loops",
            "The same loops, compiled: but each addition of a sum waits for the one before, there are no vectors, and "
            "every tap is tested against the border.",
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
            "The taps are copied beside each other first: a single matrix product, which writes each output once, for "
            "K_h * K_w times the input in memory.",
        ),
        Rung(
            "njit",
            "plain.convolution:conv2d",
            "No copy: the input is read where it is; output channels are innermost and become vectors, four pixels "
            "share each weight that is loaded, and the border is cut off before the loops. Threads share the lines "
            "(`prange`).",
            threads=True,
        ),
        Rung(
            "simd_vector",
            "ladder.convolution:simd_vector",
            "Explicit vectors, on an image inside its frame of zeros and weights packed in the order in which they "
            "are read: a vector of output channels stays in a register over the whole window. But every addition "
            "waits for the one before. Threads take lines as work items.",
            threads=True,
        ),
        Rung(
            "simd",
            "blocked.stem:conv2d",
            "A tile of sums in registers, pixels times vectors of output channels: additions need not wait for one "
            "another, a weight is loaded once for all the tile's pixels, and an input value once for all windows it "
            "is in. Threads take lines as work items.",
            threads=True,
        ),
    ),
    "depthwise_conv2d": (
        Rung(
            "python",
            "ladder.depthwise:python",
            "The formula as it stands, six nested loops: the interpreter spends thousands of instructions on every "
            "multiply-add.",
        ),
        Rung(
            "njit_loops",
            "ladder.depthwise:njit_loops",
            "The same loops, compiled: but one channel is computed at a time, whose taps are far apart in memory, and "
            "every tap is tested against the border.",
        ),
        Rung(
            "numpy",
            "ladder.depthwise:numpy_taps",
            "All pixels and channels at once for each tap of the window: channels, which lie side by side, become "
            "vectors, but the whole image goes through memory several times for every tap.",
        ),
        Rung(
            "njit",
            "plain.depthwise:depthwise_conv2d",
            "Pixel by pixel again with channels innermost: an output stays in the nearest cache until it is done, and "
            "taps outside of the image are left out before the loops. Threads share the lines (`prange`).",
            threads=True,
        ),
        Rung(
            "njit_tiled",
            "ladder.depthwise:njit_tiled",
            "Four pixels of a row at once: each weight is loaded once for the four, each value once for all their "
            "windows in its row, and the sums stay in registers until they are done. Threads share the lines "
            "(`prange`).",
            threads=True,
        ),
        Rung(
            "simd_pixel",
            "ladder.depthwise:simd_pixel",
            "Explicit vectors, on a tensor in blocks of one vector of channels inside a frame of zeros, so that "
            "nothing is tested or computed with indices. One pixel at a time all the same: each of its taps loads a "
            "value and a weight, and each addition waits for the one before. Threads take channel blocks as work "
            "items.",
            threads=True,
        ),
        Rung(
            "simd_row",
            "ladder.depthwise:simd_row",
            "Seven pixels of a row at a time, their sums in registers: a weight is loaded once for them, and seven "
            "additions are under way at once instead of one. Threads take channel blocks as work items.",
            threads=True,
        ),
        Rung(
            "simd",
            "blocked.depthwise:depthwise_conv2d",
            "A row of the window's weights stays in registers, too, so that a value is loaded once for all the "
            "windows it is in, and a tile is as wide as the registers allow. Threads take channel blocks as work "
            "items.",
            threads=True,
        ),
    ),
    "mixed_depthwise_conv2d": (
        Rung(
            "python",
            "ladder.mixed:python",
            "The formula as it stands, group by group: the interpreter spends thousands of instructions on every "
            "multiply-add.",
        ),
        Rung(
            "numpy_split",
            "ladder.mixed:numpy_split",
            "As frameworks run it: split, one convolution for each group, concatenate; whole arrays instead of single "
            "values, but two copies besides, and every group goes through memory for each of its taps.",
        ),
        Rung(
            "njit_split",
            "ladder.mixed:njit_split",
            "The same with a compiled depthwise kernel for each group, which goes through memory once: what is left "
            "are the two copies.",
        ),
        Rung(
            "njit",
            "plain.mixed:mixed_depthwise_conv2d",
            "One pass: every group reads its channels where they are and writes them where they belong, so that "
            "nothing is copied, and all groups of a line are computed while it is in the cache. Threads share the "
            "lines (`prange`).",
            threads=True,
        ),
        Rung(
            "simd_pixel",
            "ladder.mixed:simd_pixel",
            "Explicit vectors, each vector of channels under the window of its group; one that two groups share takes "
            "the larger window. One pixel at a time: each of its taps loads a value and a weight, and each addition "
            "waits for the one before. Threads take channel blocks as work items.",
            threads=True,
        ),
        Rung(
            "simd",
            "blocked.mixed:mixed_depthwise_conv2d",
            "Several pixels of a row at a time, their sums in registers: additions need not wait for one another, and "
            "a weight is loaded once for all of them. Threads take channel blocks as work items.",
            threads=True,
        ),
    ),
    "inverted_residual": (
        Rung(
            "python",
            "ladder.inverted_residual:python",
            "The three formulas as they stand, one operation after the other: the interpreter spends thousands of "
            "instructions on every multiply-add.",
        ),
        Rung(
            "numpy",
            "ladder.inverted_residual:numpy_operations",
            "Two matrix products by NumPy's BLAS library, and between them one product of whole images for each tap: "
            "the expanded image, the largest of all, goes through memory dozens of times.",
        ),
        Rung(
            "njit",
            "ladder.inverted_residual:njit_operations",
            "Three compiled kernels: the expanded image is written once and read once, and so is the filtered one, but "
            "they are larger than the nearer caches. Threads share the pixels and rows of one kernel after the other.",
            threads=True,
        ),
        Rung(
            "njit_split",
            "ladder.inverted_residual:njit_split",
            "The same kernels on one half of the expanded channels, then on the other, as filtering looks at each by "
            "itself (the paper's t-way split): half the memory between, for shorter inner loops and a second pass over "
            "the result, so that it need not be faster. Threads share each kernel as before.",
            threads=True,
        ),
        Rung(
            "njit_fused",
            "plain.inverted_residual:inverted_residual",
            "Row by row through all three: of the expanded image a ring of K_h rows is kept, which stays in the cache "
            "with all its channels, and the result is written once. Threads take a strip of rows each, and expand anew "
            "the rows that two strips share.",
            threads=True,
        ),
        Rung(
            "simd",
            "blocked.inverted_residual:one_after_another",
            "Explicit vectors in blocks of channels, with sums in registers: the engine's three kernels one after "
            "another, so fast that the way of the expanded image to a farther cache and back begins to count. Threads "
            "share the channels of one kernel after the other.",
            threads=True,
        ),
        Rung(
            "simd_split",
            "blocked.inverted_residual:split",
            "One kernel, a chunk of expanded channels at a time, which stays in the cache: each weight is read once, "
            "which is best for small images with many channels, but every chunk goes once more through the sums of the "
            "projection. Threads take a strip of rows each.",
            threads=True,
        ),
        Rung(
            "simd_ring",
            "blocked.inverted_residual:ring",
            "One kernel, a strip of rows at a time with all channels, and the rows that two strips share kept in a "
            "ring: every sum is finished in registers, which is best for large images whose weights stay in the cache. "
            "Threads take several strips in a row.",
            threads=True,
        ),
    ),
    "pointwise_conv2d": (
        Rung(
            "python",
            "ladder.pointwise:python",
            "The formula as it stands, a sum over input channels for each pixel and output channel: the interpreter "
            "spends thousands of instructions on every multiply-add.",
        ),
        Rung(
            "njit_loops",
            "ladder.pointwise:njit_loops",
            "The same loops, compiled: but every sum reads a column of the weights, one value from each cache line, "
            "and each addition waits for the one before.",
        ),
        Rung(
            "njit",
            "plain.pointwise:pointwise_conv2d_plain",
            "Output channels innermost: multiples of rows of the weights are added to the pixel, all of which lie in "
            "order and become vectors. Threads share the pixels (`prange`).",
            threads=True,
        ),
        Rung(
            "njit_tiled",
            "plain.pointwise:pointwise_conv2d",
            "Tiles of four pixels and four input channels: a weight is loaded once for four pixels, and an output "
            "once for four weights. Threads share the tiles (`prange`).",
            threads=True,
        ),
        Rung(
            "numpy",
            "ladder.pointwise:matmul",
            "NumPy hands the matrix product to its BLAS library: tiles whose sums stay in registers, written in "
            "assembly by others; bias and activation are further passes over the output.",
        ),
        Rung(
            "simd_vector",
            "ladder.pointwise:simd_vector",
            "Explicit vectors in our own code, which ends a sum with bias, activation and residual before it is "
            "stored. But only one vector of output channels of one pixel at a time: each addition waits for the one "
            "before, some four cycles in which the CPU could make eight. Threads take vectors of output channels as "
            "work items.",
            threads=True,
        ),
        Rung(
            "simd_pixels",
            "ladder.pointwise:simd_pixels",
            "As many pixels at a time as registers hold sums: additions need not wait for one another, and a vector "
            "of weights is loaded once for all of them. An input value is still loaded for a single multiply-add. "
            "Threads take vectors of output channels as work items.",
            threads=True,
        ),
        Rung(
            "simd",
            "blocked.pointwise:pointwise_conv2d",
            "Tiles of pixels times vectors of output channels: an input value is loaded once for all the tile's "
            "vectors, a vector of weights once for all its pixels, and the multiply-adds themselves are the limit. "
            "Threads take panels of output channels as work items.",
            threads=True,
        ),
    ),
    "pointwise_conv2d_int8": (
        Rung(
            "python",
            "ladder.int8:pointwise_python",
            "The formula as it stands, integers for floats: the interpreter spends thousands of instructions on every "
            "multiply-add, whatever its type. What a sum becomes (scale, bias, rounding) is passes of NumPy.",
        ),
        Rung(
            "njit_loops",
            "ladder.int8:pointwise_njit_loops",
            "The same loops, compiled: integers may be added in any order, so that sums become vectors, but a column "
            "of the weights lies one value to a cache line.",
        ),
        Rung(
            "numpy",
            "ladder.int8:pointwise_matmul",
            "NumPy has no fast product of integers: as float64, in which all sums are exact, its BLAS library does it, "
            "on eight bytes for each one.",
        ),
        Rung(
            "njit",
            "plain.int8:pointwise_conv2d_int8",
            "Output channels innermost, 32-bit sums in a row of the nearest cache, and each pixel is ended while it is "
            "there. Threads share the pixels (`prange`).",
            threads=True,
        ),
        Rung(
            "simd_madd",
            "ladder.int8:pointwise_simd_madd",
            "Explicit vectors without an instruction for four bytes: they are widened to 16 bits, of which one "
            "instruction (vpmaddwd) multiplies and adds pairs. Nine instructions for four products leave few registers "
            "for a tile. Threads take strips of rows as work items.",
            threads=True,
        ),
        Rung(
            "simd_pixel",
            "ladder.int8:pointwise_simd_pixel",
            "Four products in a lane by one instruction (vpdpbusd, sdot). But one pixel at a time: each sum waits for "
            "its own before, and every register of weights is loaded for a single product. Threads take strips of "
            "pixels as work items.",
            threads=True,
        ),
        Rung(
            "simd",
            "blocked.int8.pointwise:pointwise_conv2d_int8",
            "Tiles of pixels times vectors of output channels, as in float32: the products themselves are the limit, "
            "and with few input channels what a sum becomes, which is done four pixels at a time. Threads take strips "
            "of rows as work items.",
            threads=True,
        ),
    ),
    "depthwise_conv2d_int8": (
        Rung(
            "python",
            "ladder.int8:depthwise_python",
            "The formula as it stands, integers for floats: the interpreter spends thousands of instructions on every "
            "multiply-add. What a sum becomes (scale, bias, rounding) is passes of NumPy.",
        ),
        Rung(
            "njit_loops",
            "ladder.int8:depthwise_njit_loops",
            "The same loops, compiled: but one channel is computed at a time, whose taps are far apart in memory, and "
            "every tap is tested against the border.",
        ),
        Rung(
            "numpy",
            "ladder.int8:depthwise_numpy_taps",
            "All pixels and channels at once for each tap of the window, in 32 bits: the image, four times as large as "
            "its bytes, goes through memory several times for every tap.",
        ),
        Rung(
            "njit",
            "plain.int8:depthwise_conv2d_int8",
            "Pixel by pixel with channels innermost: bytes are read, sums stay in the nearest cache, and each pixel is "
            "ended while it is there. Threads share the lines (`prange`).",
            threads=True,
        ),
        Rung(
            "simd_madd",
            "ladder.int8:depthwise_simd_madd",
            "Explicit vectors on blocks of channels inside a frame. One shuffle brings four taps of a channel into a "
            "lane; without an instruction for four bytes they are widened to 16 bits and multiplied in pairs "
            "(vpmaddwd). Threads take strips of rows of a block as work items.",
            threads=True,
        ),
        Rung(
            "simd_row",
            "ladder.int8:depthwise_simd_row",
            "Four taps in a lane by one instruction (vpdpbusd, sdot): a row of a 3x3 window is one product. But every "
            "row of the image is loaded and shuffled again for each row of the result that it is in. Threads take "
            "strips of rows of a block as work items.",
            threads=True,
        ),
        Rung(
            "simd",
            "blocked.int8.depthwise:depthwise_conv2d_int8",
            "A tile rolls down the image: each row of it is loaded and shuffled once, and multiplied into all rows of "
            "the result that have begun. Threads take strips of rows of a block as work items.",
            threads=True,
        ),
    ),
}
