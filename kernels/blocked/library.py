"""The compiled kernels, found by name: those of a MobileNet compiled together, others when they are first needed.

The one door between the host's side and `code`, which writes the kernels down. Modules of `code` are named, not
imported: they know the operations, whose host's side knows this library; and kernels that are kept need no writer.
"""

from __future__ import annotations

from importlib import import_module

from npmobilenet.kernels.blocked.tiles import Tile, Tiling
from npmobilenet.kernels.geometry import Pair
from npmobilenet.kernels.sharing import once
from npmobilenet.kernels.vector import lookup
from npmobilenet.kernels.vector.functions import Functions
from npmobilenet.kernels.vector.target import Target

STEM_WINDOW = ((3, 3), (2, 2))
COMMON_WINDOWS = (((3, 3), (1, 1)), ((3, 3), (2, 2)))
CLAMP = "clamp"  # how kernels of 8 bits end, unless with an activation that they are written with
# With weights of 15 bits in the first, whose few weights make most of the noise.
INT8_WINDOWS = (*((*window, False) for window in COMMON_WINDOWS), (*COMMON_WINDOWS[0], True))


@once
def common(target: Target) -> Functions:
    """Return the library of a MobileNet's kernels."""
    return _library("common", target, "common")


def window_name(kernel: Pair, stride: Pair) -> str:
    """A depthwise window's kernel in its library; with "_blocks", the function that computes channel blocks."""
    return f"depthwise_{_window(kernel, stride)}"


def stem_name(kernel: Pair, stride: Pair) -> str:
    """A dense convolution's kernel in its library."""
    return f"stem_{_window(kernel, stride)}"


def _window(kernel: Pair, stride: Pair) -> str:
    return f"{kernel[0]}x{kernel[1]}_s{stride[0]}x{stride[1]}"


@once
def window(kernel: Pair, stride: Pair, target: Target, tiling: Tiling | None = None) -> Functions:
    """Return the library that has a depthwise window, in other tiles than the best if so told."""
    if tiling is None and (kernel, stride) in COMMON_WINDOWS:
        return common(target)
    name = window_name(kernel, stride)
    if tiling:
        name += f"_in_{'_'.join(map(str, tiling.widths))}{'_reloaded' * (not tiling.weights_stay)}"
    return _library(name, target, "depthwise", kernel, stride, tiling)


def blocks_function(kernel: Pair, stride: Pair, target: Target, tiling: Tiling | None = None) -> int:
    """Return the address of the function that computes channel blocks under a depthwise window."""
    return window(kernel, stride, target, tiling).address(f"{window_name(kernel, stride)}_blocks")


@once
def stem_window(kernel: Pair, stride: Pair, target: Target, tile: Tile | None = None) -> Functions:
    """Return the library that has a dense convolution's window, in another tile than the best if so told."""
    if tile is None and (kernel, stride) == STEM_WINDOW:
        return common(target)
    return _library(stem_name(kernel, stride) + _in(tile), target, "stem", kernel, stride, tile and (tile, tile.narrow))


@once
def matrix(target: Target, tile: Tile | None = None) -> Functions:
    """Return the library that has the pointwise convolution, in another tile than the best if so told."""
    if tile is None:
        return common(target)
    return _library("pointwise" + _in(tile), target, "pointwise", (tile, tile.narrow))


def int8(target: Target, end: str = CLAMP, small: bool = False) -> Functions:
    """Return the library of a MobileNet's kernels of 8-bit tensors, or its convolutions with such ends or weights."""
    return _int8(target, end, small)


@once
def _int8(target: Target, end: str, small: bool) -> Functions:
    if end == CLAMP and not small:
        return _library("int8", target, "int8.common")
    return _library(f"int8_{end}{'_small' * small}", target, "int8.ended", end, small)


@once
def int8_squeeze_excite(target: Target) -> Functions:
    """Return the library that has squeeze-and-excitation of 8-bit tensors."""
    return _library("int8_squeeze_excite", target, "int8.squeeze_excite")


@once
def int8_add(target: Target) -> Functions:
    """Return the library that has the sum of 8-bit tensors."""
    return _library("int8_add", target, "int8.add")


@once
def int8_unfold(target: Target) -> Functions:
    """Return the library that writes the pixels under a window of 8-bit tensors as channels."""
    return _library("int8_unfold", target, "int8.unfold")


def int8_window_name(kernel: Pair, stride: Pair, wide: bool) -> str:
    """A depthwise window's kernel of 8-bit tensors; ``wide`` has weights of 15 bits."""
    return f"int8_depthwise_{_window(kernel, stride)}{'_wide' * wide}"


@once
def int8_window(
    kernel: Pair, stride: Pair, wide: bool, target: Target, end: str, small: bool, row_by_row: bool = False
) -> Functions:
    """Return the library that has a depthwise window of 8-bit tensors, with such results and weights.

    ``row_by_row`` is slower: a rung of the ladder.
    """
    if not row_by_row and (kernel, stride, wide) in INT8_WINDOWS:
        return int8(target, end, small)
    name = f"{int8_window_name(kernel, stride, wide)}_{end}{'_small' * small}{'_row_by_row' * row_by_row}"
    return _library(name, target, "int8.depthwise", kernel, stride, wide, end, small, row_by_row)


def int8_stem_name(kernel: Pair, stride: Pair) -> str:
    """A dense convolution's kernel of 16 bits in its library."""
    return f"int8_stem_{_window(kernel, stride)}"


@once
def int8_stem(kernel: Pair, stride: Pair, target: Target, end: str) -> Functions:
    """Return the library that has a dense convolution's window of 16 bits whose results end so."""
    if (kernel, stride) == STEM_WINDOW:
        return int8(target, end)
    return _library(f"{int8_stem_name(kernel, stride)}_{end}", target, "int8.stem", kernel, stride, end)


@once
def convolution(target: Target) -> Functions:
    """Return the library that has the dense convolution of blocked tensors."""
    return _library("convolution", target, "convolution")


@once
def between(target: Target, module: str) -> Functions:
    """Return the library of a module of `code` whose operations stand between convolutions, and take no arguments."""
    return _library(module, target, module)


@once
def windows(target: Target) -> Functions:
    """Return the library that has the maxima and means of windows."""
    return _library("windows", target, "windows")


@once
def resize2d(target: Target) -> Functions:
    """Return the library that has feature maps resized."""
    return _library("resize2d", target, "resize2d")


def _in(tile: Tile | None) -> str:
    return f"_in_{tile.pixels}x{tile.blocks}{'_halves' * tile.halves}" if tile else ""


def _library(name: str, target: Target, module: str, *arguments: object) -> Functions:
    """Return a library that a module of `code` defines, given such arguments."""
    writer = f"{__package__}.code.{module}"
    return lookup.library(name, target, writer, lambda library: import_module(writer).define(library, *arguments))
