"""Objects of LLVM in memory, put there by its own loader: on systems for which `link` makes no shared objects."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from npmobilenet.kernels.vector.functions import Functions
from npmobilenet.kernels.vector.link import FROM_PYTHON

if TYPE_CHECKING:
    import llvmlite.binding as llvm

_loaded: list[llvm.ExecutionEngine] = []  # for ever: plans and threads hold bare addresses of machine code


class Jitted(Functions):
    """Functions of an object.

    Parameters
    ----------
    name, origin : str
        As of all `Functions`.
    content : bytes
        Of the object, whose hash was compared: LLVM would run or trip over whatever it is given.
    triple : str
        The target's, in LLVM's words.
    machine : llvmlite.binding.TargetMachine
    """

    def __init__(self, name: str, origin: str, content: bytes, triple: str, machine: llvm.TargetMachine) -> None:
        import llvmlite.binding as llvm

        self.name, self.origin = name, origin
        for function in FROM_PYTHON:  # which not every system's loader finds in this process
            llvm.add_symbol(function, ctypes.cast(getattr(ctypes.pythonapi, function), ctypes.c_void_p).value)
        backing = llvm.parse_assembly("")
        backing.triple = triple
        self._engine = llvm.create_mcjit_compiler(backing, machine)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(content))
        self._engine.finalize_object()
        _loaded.append(self._engine)

    def address(self, name: str) -> int:
        address = self._engine.get_function_address(name)
        if not address:
            raise self.lacks(name)
        return address
