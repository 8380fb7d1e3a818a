"""All kernels for one CPU, compiled together once; other windows when they are first needed."""

from __future__ import annotations

from collections.abc import Callable

from npmobilenet.kernels.blocked import (
    activation,
    depthwise,
    inverted_residual,
    linear,
    mixed,
    padding,
    pointwise,
    pooling,
    stem,
)
from npmobilenet.kernels.blocked.layout import Tile
from npmobilenet.kernels.cache import kernel_cache
from npmobilenet.kernels.sharing import once
from npmobilenet.kernels.simd import Library, Target, host

STEM_WINDOW = ((3, 3), (2, 2))
WALKERS = {"walk": 5, "serve": 2, "post": 6}  # and their numbers of arguments
COMMON_WINDOWS = (((3, 3), (1, 1)), ((3, 3), (2, 2)))


def define_common(library: Library) -> None:
    """Add what MobileNets need."""
    activation.define(library)
    padding.define(library)
    pointwise.define(library)
    for window in COMMON_WINDOWS:
        depthwise.define(library, *window)
    mixed.define(library)
    stem.define(library, *STEM_WINDOW)
    pooling.define(library)
    inverted_residual.define(library, STEM_WINDOW)
    linear.define(library)


@once
def walker(name: str = "walk") -> Callable[..., None]:
    """Return a compiled function of `walker`: ``walk`` runs a table of kernel calls."""
    return _walkers().callable(name, WALKERS[name])


@once
def _walkers() -> Library:
    return Library("walker", host(), _define_walkers, kernel_cache())


def _define_walkers(library: Library) -> None:
    # Imported here: it needs Numba, which loading the compiled functions does not.
    from npmobilenet.kernels.blocked import walker as functions

    for name, arguments in WALKERS.items():
        library.add_numba(name, getattr(functions, name), ["int64"] * arguments)


@once
def common(target: Target | None = None) -> Library:
    """Return the library of a MobileNet's kernels."""
    return Library("common", target or host(), define_common, kernel_cache())


@once
def window(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    target: Target | None = None,
    tiling: depthwise.Tiling | None = None,
) -> Library:
    """Return the library that has a depthwise window, in other tiles than the best if so told."""
    if tiling is None and (kernel, stride) in COMMON_WINDOWS:
        return common(target)
    name = depthwise.window_name(kernel, stride)
    if tiling:
        name += f"_in_{'_'.join(map(str, tiling.widths))}{'_reloaded' * (not tiling.weights_stay)}"
    return _other(name, target, lambda library: depthwise.define(library, kernel, stride, tiling))


def blocks_function(
    kernel: tuple[int, int], stride: tuple[int, int], target: Target, tiling: depthwise.Tiling | None = None
) -> int:
    """Return the address of the function that computes channel blocks under a depthwise window."""
    return window(kernel, stride, target, tiling).address(f"{depthwise.window_name(kernel, stride)}_blocks")


@once
def stem_window(
    kernel: tuple[int, int], stride: tuple[int, int], target: Target | None = None, tile: Tile | None = None
) -> Library:
    """Return the library that has a dense convolution's window, in a tile of one block if so told."""
    if tile is None and (kernel, stride) == STEM_WINDOW:
        return common(target)
    name, own = stem.name(kernel, stride), (tile, tile) if tile else None
    return _other(name + _in(tile), target, lambda library: stem.define(library, kernel, stride, own))


@once
def matrix(target: Target | None = None, tile: Tile | None = None) -> Library:
    """Return the library that has the pointwise convolution, in a tile of one block if so told."""
    if tile is None:
        return common(target)
    return _other("pointwise" + _in(tile), target, lambda library: pointwise.define(library, (tile, tile)))


def _in(tile: Tile | None) -> str:
    return f"_in_{tile.pixels}x{tile.blocks}" if tile else ""


def _other(name: str, target: Target | None, define: Callable[[Library], None]) -> Library:
    """A library of what few need."""
    return Library(name, target or host(), define, kernel_cache())
