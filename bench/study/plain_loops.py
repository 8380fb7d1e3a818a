"""The text of kernels that Numba compiles: which function a kernel calls, and what LLVM makes of it."""

from __future__ import annotations

from collections.abc import Callable
from inspect import getclosurevars, isfunction

import numpy as np

from npmobilenet.bench.study import machine_code
from npmobilenet.kernels import registry
from npmobilenet.machine import numba_is_on

_EXAMPLES = {
    "conv2d": ((1, 9, 9, 16), (3, 3, 16, 16)),
    "depthwise_conv2d": ((1, 9, 9, 16), (3, 3, 16)),
    "mixed_depthwise_conv2d": ((1, 9, 9, 16), [(3, 3, 8), (5, 5, 8)]),
    "pointwise_conv2d": ((1, 9, 9, 16), (16, 16)),
    "linear": ((1, 16), (16, 16)),
}
"""Shapes of a call, for Numba compiles for the types of arguments it sees."""


def names() -> list[str]:
    """Return the kernels with an example, by their names in the registry."""
    return [
        kernel.name
        for operation in _EXAMPLES
        for kernel in registry.kernels(operation, ("plain", "ladder"))
        if not kernel.target.startswith("blocked.") and _compiled(kernel.function) is not None
    ]


def texts(kernel_name: str) -> tuple[list[str], list[str]]:
    """Return the lines of a kernel's machine code, and of its LLVM IR as optimised.

    Raises
    ------
    ValueError
        If Numba is switched off.
    """
    from npmobilenet.kernels import jit

    if not numba_is_on():
        raise ValueError(f"{kernel_name} is Python while Numba is switched off (NUMBA_DISABLE_JIT)")
    kernel = next(kernel for kernel in registry.KERNELS if kernel.name == kernel_name)
    kernel.function(*map(_zeros, _EXAMPLES[kernel.operation]))
    compiled = _compiled(kernel.function)
    assembly, intermediate = jit.texts(compiled, jit.signatures(compiled)[0])
    name = _python(compiled).__name__
    return _chosen(machine_code.functions(assembly), name), _chosen(machine_code.ir_functions(intermediate), name)


def _zeros(shape: tuple[int, ...] | list) -> np.ndarray | list:
    return list(map(_zeros, shape)) if isinstance(shape, list) else np.zeros(shape, np.float32)


def _compiled(function: Callable) -> object | None:
    """The compiled function that a kernel calls, itself or through a function beside it, if there is one."""
    if not isfunction(function):  # what packs weights and calls vector kernels
        return None
    # A ladder's kernel holds its loops in a closure; around them it calls what is the same in all.
    loops = getclosurevars(function).nonlocals.get("loops", function)
    if not isfunction(loops):
        return None
    found = list(getclosurevars(loops).globals.values())
    for value in tuple(found):
        if isfunction(value) and value.__module__ == loops.__module__:
            found += getclosurevars(value).globals.values()
    return next((value for value in found if getattr(_python(value), "__module__", "") == loops.__module__), None)


def _python(compiled: object) -> Callable | None:
    """What is compiled by Numba, if it is; where that is switched off, only loops that run on threads are known."""
    serial = getattr(compiled, "serial", None)
    return getattr(serial or compiled, "py_func", serial)


def _chosen(functions: dict[str, list[str]], name: str) -> list[str]:
    """The lines of a function, by its name in Python: what it calls may stand beside it, and be longer."""
    marked = f"{len(name)}{name}B"  # in the name that Numba makes, an ABI tag follows
    return max((lines for symbol, lines in functions.items() if marked in symbol), key=len)
