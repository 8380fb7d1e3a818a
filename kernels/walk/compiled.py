"""The functions of `walker`, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from npmobilenet.kernels.sharing import once
from npmobilenet.kernels.vector import lookup
from npmobilenet.kernels.vector.functions import Functions
from npmobilenet.kernels.vector.target import Target, host

if TYPE_CHECKING:
    from npmobilenet.kernels.vector.library import Library

WALKERS = {"run": 2, "join": 1, "wait": 2}  # and their numbers of arguments


@once
def walker(name: str) -> Callable[..., None]:
    """Return a compiled function."""
    return walkers(host()).callable(name, WALKERS[name])


@once
def walkers(target: Target) -> Functions:
    """Return all of them, for a CPU."""
    return lookup.library("walker", target, __name__, _define)


def _define(library: Library) -> None:
    from npmobilenet.kernels.walk import walker as functions  # here, for it needs Numba, which loading code does not

    for name, arguments in WALKERS.items():
        library.add_numba(name, getattr(functions, name), ["int64"] * arguments)
