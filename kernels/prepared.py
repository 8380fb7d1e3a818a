"""Operations in two steps: what a network does once for a layer, and what it does for every image.

A kernel function may have an attribute ``prepare``, a function of the same arguments (without ``out``) that
returns a :class:`Prepared` object. The ladders and the benchmarks time its ``run``: the kernel as a network calls
it, which packs its weights once and keeps its tensors in the kernels' own layout all along.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from inspect import Signature, signature
from typing import Any, Protocol

import numpy as np

from npmobilenet.kernels import checks


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


class Operation:
    """The operation that a function prepares, in a single call; with the function as its ``prepare``."""

    def __init__(self, name: str, prepare: Prepare) -> None:
        update_wrapper(self, prepare)
        self.name, self.prepare = name, prepare

    @property
    def __signature__(self) -> Signature:
        """That of the operation's definition."""
        from npmobilenet.kernels import reference  # here: what only packs and calls kernels asks for no signature

        return signature(getattr(reference, self.name))

    def __call__(self, *arguments: Any, out: np.ndarray | None = None, **options: Any) -> np.ndarray:
        kernel = self.prepare(*arguments, **options)
        kernel.run()
        result = kernel.result()
        if out is None:
            return result
        out = checks.output(out, result.shape, result.dtype)
        out[...] = result
        return out


def prepared(name: str) -> Callable[[Prepare], Operation]:
    """Decorate a function that prepares the operation of this name: it becomes the operation itself."""
    return partial(Operation, name)
