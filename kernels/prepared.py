"""Operations in two steps: what a network does once for a layer, and what it does for every image.

A kernel function may have an attribute ``prepare``, a function of the same arguments (without ``out``) that
returns a :class:`Prepared` object. The ladders and the benchmarks time its ``run``: the kernel as a network calls
it, which packs its weights once and keeps its tensors in the kernels' own layout all along.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from npmobilenet.kernels import checks, reference


class Prepared(Protocol):
    """An operation on certain arrays: checked, weights packed, the input in the kernel's layout, memory taken."""

    def run(self) -> None:
        """Compute it; as often as one likes."""

    def result(self) -> np.ndarray:
        """Return what the last run computed, as the operation does: a copy, unpacked."""


Prepare = Callable[..., Prepared]


def prepare_of(function: Callable[..., np.ndarray]) -> Prepare | None:
    """Return what prepares an operation, or None of one that is its kernel and nothing else."""
    return getattr(function, "prepare", None)


def prepared(operation: str) -> Callable[[Prepare], Callable[..., np.ndarray]]:
    """Decorate a function that prepares an operation: it becomes the operation itself, in a single call.

    The result has the operation's signature, which the reference defines, and the function as its ``prepare``.
    """
    signature = inspect.signature(getattr(reference, operation))

    def decorate(prepare: Prepare) -> Callable[..., np.ndarray]:
        def call(*arguments: Any, out: np.ndarray | None = None, **options: Any) -> np.ndarray:
            kernel = prepare(*arguments, **options)
            kernel.run()
            result = kernel.result()
            if out is None:
                return result
            out = checks.output(out, result.shape, result.dtype)
            out[...] = result
            return out

        call.__name__, call.__doc__, call.__module__ = prepare.__name__, prepare.__doc__, prepare.__module__
        call.__qualname__, call.__signature__ = call.__name__, signature
        call.prepare = prepare
        return call

    return decorate
