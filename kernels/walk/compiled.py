"""The functions of `walker`, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.kernels.memory import HEADER
from npmobilenet.kernels.sharing import once
from npmobilenet.kernels.vector import lookup
from npmobilenet.kernels.vector.functions import Functions
from npmobilenet.kernels.vector.target import Target, host

if TYPE_CHECKING:
    from npmobilenet.kernels.vector.library import Library

WALKERS = {"run": 2, "join": 2, "wait": 2}  # and their numbers of arguments
RUN_ARRAYS = "run_arrays"


@once
def walker(name: str) -> Callable[..., None]:
    """Return a compiled function."""
    return walkers(host()).callable(name, WALKERS[name])


def run_arrays(block: np.ndarray) -> Callable[..., int] | None:
    """Return what runs the job in an array (`walker.run_arrays`), or None where it is unknown what an array is."""
    return walkers(host()).builtin(RUN_ARRAYS, block) if HEADER else None


@once
def walkers(target: Target) -> Functions:
    """Return all of them, for a CPU."""
    return lookup.library(f"walker-{HEADER}", target, __name__, _define)


def _define(library: Library) -> None:
    from npmobilenet.kernels.walk import walker as functions  # here, for it needs Numba, which loading code does not

    for name, arguments in WALKERS.items():
        function = getattr(functions, name)
        library.add_numba(name, getattr(function, "py_func", function), ["int64"] * arguments)
    library.add_builtin(RUN_ARRAYS, functions.run_arrays)
