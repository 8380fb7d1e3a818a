"""The compiled kernels, found by name: those of a MobileNet compiled together, others when they are first needed.

The one door between the host's side and `code`, which writes the kernels down: what is behind it needs LLVM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from npmobilenet.geometry import Pair
from npmobilenet.kernels.blocked.layout import Tile, Tiling
from npmobilenet.kernels.cache import kernel_cache
from npmobilenet.kernels.sharing import once
from npmobilenet.kernels.vector.target import Target, host

if TYPE_CHECKING:
    from npmobilenet.kernels.vector.library import Library

STEM_WINDOW = ((3, 3), (2, 2))
WALKERS = {"walk": 5, "serve": 2, "post": 6}  # and their numbers of arguments
COMMON_WINDOWS = (((3, 3), (1, 1)), ((3, 3), (2, 2)))


@once
def walker(name: str = "walk") -> Callable[..., None]:
    """Return a compiled function of `walker`: ``walk`` runs a table of kernel calls."""
    return _walkers().callable(name, WALKERS[name])


@once
def _walkers() -> Library:
    return _library("walker", host(), _define_walkers)


def _define_walkers(library: Library) -> None:
    # Imported here: it needs Numba, which loading the compiled functions does not.
    from npmobilenet.kernels.blocked import walker as functions

    for name, arguments in WALKERS.items():
        library.add_numba(name, getattr(functions, name), ["int64"] * arguments)


@once
def common(target: Target) -> Library:
    """Return the library of a MobileNet's kernels."""
    from npmobilenet.kernels.blocked.code import common

    return _library("common", target, common.define)


def window_name(kernel: Pair, stride: Pair) -> str:
    """A depthwise window's kernel in its library; with "_blocks", the function that computes channel blocks."""
    return f"depthwise_{_window(kernel, stride)}"


def stem_name(kernel: Pair, stride: Pair) -> str:
    """A dense convolution's kernel in its library."""
    return f"stem_{_window(kernel, stride)}"


def _window(kernel: Pair, stride: Pair) -> str:
    return f"{kernel[0]}x{kernel[1]}_s{stride[0]}x{stride[1]}"


@once
def window(kernel: Pair, stride: Pair, target: Target, tiling: Tiling | None = None) -> Library:
    """Return the library that has a depthwise window, in other tiles than the best if so told."""
    if tiling is None and (kernel, stride) in COMMON_WINDOWS:
        return common(target)
    from npmobilenet.kernels.blocked.code import depthwise

    name = window_name(kernel, stride)
    if tiling:
        name += f"_in_{'_'.join(map(str, tiling.widths))}{'_reloaded' * (not tiling.weights_stay)}"
    return _library(name, target, lambda library: depthwise.define(library, kernel, stride, tiling))


def blocks_function(kernel: Pair, stride: Pair, target: Target, tiling: Tiling | None = None) -> int:
    """Return the address of the function that computes channel blocks under a depthwise window."""
    return window(kernel, stride, target, tiling).address(f"{window_name(kernel, stride)}_blocks")


@once
def stem_window(kernel: Pair, stride: Pair, target: Target, tile: Tile | None = None) -> Library:
    """Return the library that has a dense convolution's window, in a tile of one block if so told."""
    if tile is None and (kernel, stride) == STEM_WINDOW:
        return common(target)
    from npmobilenet.kernels.blocked.code import stem

    own = (tile, tile) if tile else None
    name = stem_name(kernel, stride) + _in(tile)
    return _library(name, target, lambda library: stem.define(library, kernel, stride, own))


@once
def matrix(target: Target, tile: Tile | None = None) -> Library:
    """Return the library that has the pointwise convolution, in a tile of one block if so told."""
    if tile is None:
        return common(target)
    from npmobilenet.kernels.blocked.code import pointwise

    return _library("pointwise" + _in(tile), target, lambda library: pointwise.define(library, (tile, tile)))


def _in(tile: Tile | None) -> str:
    return f"_in_{tile.pixels}x{tile.blocks}" if tile else ""


def _library(name: str, target: Target, define: Callable[[Library], None]) -> Library:
    from npmobilenet.kernels.vector.library import Library

    return Library(name, target, define, kernel_cache())
