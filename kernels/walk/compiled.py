"""The functions of `walker`, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from npmobilenet.kernels.cache import kernel_cache
from npmobilenet.kernels.sharing import once
from npmobilenet.kernels.vector.target import host

if TYPE_CHECKING:
    from npmobilenet.kernels.vector.library import Library

WALKERS = {"walk": 5, "serve": 2, "post": 6}  # and their numbers of arguments


@once
def walker(name: str = "walk") -> Callable[..., None]:
    """Return a compiled function: ``walk`` runs a table of kernel calls."""
    return _walkers().callable(name, WALKERS[name])


@once
def _walkers() -> Library:
    from npmobilenet.kernels.vector.library import Library  # here, for it loads LLVM

    return Library("walker", host(), _define, kernel_cache())


def _define(library: Library) -> None:
    from npmobilenet.kernels.walk import walker as functions  # here, for it needs Numba, which loading code does not

    for name, arguments in WALKERS.items():
        library.add_numba(name, getattr(functions, name), ["int64"] * arguments)
