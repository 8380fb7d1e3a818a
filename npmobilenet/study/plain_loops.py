"""The text of kernels that Numba compiles: which function a kernel calls, and what LLVM makes of it."""

from __future__ import annotations

from inspect import getclosurevars

import numpy as np

from npmobilenet.kernels import registry
from npmobilenet.machine import numba_is_on
from npmobilenet.study import machine_code

_EXAMPLES = {
    "conv2d": ((1, 9, 9, 16), (3, 3, 16, 16)),
    "depthwise_conv2d": ((1, 9, 9, 16), (3, 3, 16)),
    "pointwise_conv2d": ((1, 9, 9, 16), (16, 16)),
    "linear": ((1, 16), (16, 16)),
}
"""Shapes of a call, for Numba compiles for the types of arguments it sees."""


def names() -> list[str]:
    """Return the kernels with an example, by their names in the registry."""
    return [
        kernel.name
        for operation in _EXAMPLES
        for backend in ("cpu", "ladder")
        for kernel in registry.kernels(operation, backend)
        if kernel.variant.startswith("njit")
    ]


def texts(name: str) -> tuple[list[str], list[str]]:
    """Return the lines of a kernel's machine code, and of its LLVM IR as optimised.

    Raises
    ------
    ValueError
        If Numba is switched off.
    """
    from npmobilenet.kernels import jit

    if not numba_is_on():
        raise ValueError(f"{name} is Python while Numba is switched off (NUMBA_DISABLE_JIT)")
    kernel = next(kernel for kernel in registry.KERNELS if kernel.name == name)
    shapes = _EXAMPLES[kernel.operation]
    kernel.function(*(np.zeros(shape, np.float32) for shape in shapes))
    compiled = _compiled(kernel.function)
    assembly, intermediate = jit.texts(compiled, jit.signatures(compiled)[0])
    return _longest(machine_code.functions(assembly)), _longest(machine_code.ir_functions(intermediate))


def _compiled(function: object) -> object:
    """The compiled function that a kernel calls; a ladder's kernel holds its loops in a closure."""
    loops = getclosurevars(function).nonlocals.get("loops", function)
    found = getclosurevars(loops).globals.values()
    return next(value for value in found if hasattr(value, "serial") or hasattr(value, "py_func"))


def _longest(functions: dict[str, list[str]]) -> list[str]:
    return max(functions.values(), key=len)
