"""Kernels compiled together, once, with Numba's code generator (llvmlite): kept on disk, found by their names.

Functions that Numba compiles are taken in as well; Numba itself, which takes half a second to start, is needed only
to compile them, not to run them.
"""

from __future__ import annotations

import ctypes
import hashlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import llvmlite.binding as llvm
import numpy as np

from npmobilenet.kernels import cache
from npmobilenet.kernels.sharing import MAKING
from npmobilenet.kernels.vector.target import Target

if TYPE_CHECKING:
    from llvmlite import ir

_loaded: list[llvm.ExecutionEngine] = []  # for ever: plans and threads hold bare addresses of machine code

Kernel = Callable[..., None]

# A function in Python's own convention around one in Numba's, which takes where to put the result and an exception.
BUILTIN = """
declare i32 @{name}_body(ptr, ptr, i64, i64, i64)
declare ptr @PyLong_FromLongLong(i64)

define ptr @{name}(i64 %owner, i64 %arguments, i64 %number) {{
  %result = alloca i64
  %exception = alloca ptr
  %status = call i32 @{name}_body(ptr %result, ptr %exception, i64 %owner, i64 %arguments, i64 %number)
  %value = load i64, ptr %result
  %object = call ptr @PyLong_FromLongLong(i64 %value)
  ret ptr %object
}}
"""
METH_FASTCALL = 0x80
FROM_PYTHON = ("PyEval_SaveThread", "PyEval_RestoreThread", "PyLong_FromLongLong")


class _Method(ctypes.Structure):
    """PyMethodDef."""

    _fields_: ClassVar = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


_methods: dict[int, _Method] = {}  # by the address of the function; for ever, too


def numba_array(array: np.ndarray) -> tuple[int, ...]:
    """Return what Numba's functions take for a C-contiguous array: no owner, sizes, address, shape and strides."""
    return (0, 0, array.size, array.itemsize, array.ctypes.data, *array.shape, *array.strides)


class Library:
    """Kernels compiled together, once; the object code is kept in ``folder`` and loaded from there later.

    Parameters
    ----------
    name : str
        Part of the file's name.
    target : Target
    define : callable
        ``define(library)`` adds the kernels, with :meth:`add`.
    folder : Path or None
        Where to keep the object code, a folder whose name depends on every kernel source
        (`cache.kernel_cache`); None compiles in every process.
    """

    def __init__(self, name: str, target: Target, define: Callable[[Library], None], folder: Path | None) -> None:
        self.name, self.target = name, target
        self.functions: dict[str, ir.Function] = {}
        self._define = define
        self._engine: llvm.ExecutionEngine | None = None
        self._compiled = False
        self._stamp = repr((name, target, llvm.llvm_version_info))
        digest = hashlib.sha256(self._stamp.encode()).hexdigest()[:16]
        self.file = folder / f"{name}-{digest}.o" if folder else None

    def add(self, name: str, write: Kernel) -> None:
        """Add a kernel, or a function that kernels call with :meth:`Code.call`.

        ``write(code, ...)`` writes it down; its parameters are annotated as ``Pointer`` or ``Integer``.
        """
        from llvmlite import ir  # here, as the vocabulary: what is kept need not be written

        from npmobilenet.kernels.vector.simd import ADDRESS, I64, Code, Integer, Pointer

        parameters = list(inspect.signature(write).parameters.values())[1:]
        kinds = [{"Pointer": Pointer, "Integer": Integer}[parameter.annotation] for parameter in parameters]
        types_ = [ADDRESS if kind is Pointer else I64 for kind in kinds]
        function = ir.Function(self._module, ir.FunctionType(ir.VoidType(), types_), name)
        code = Code(self.target, ir.IRBuilder(function.append_basic_block("entry")), self.functions)
        write(code, *(kind(code, value) for kind, value in zip(kinds, function.args, strict=True)))
        code.builder.ret_void()
        self.functions[name] = function

    def add_numba(self, name: str, function: Callable[..., None], arguments: Sequence[str]) -> None:
        """Add a Python function that Numba compiles for such arguments; call it with :meth:`callable`.

        ``int64``, or C-contiguous arrays by type and number of axes: ``uint8[3]``.
        """
        self._numba[name] = (function, arguments)

    def add_builtin(self, name: str, function: Callable[[int, int, int], int]) -> None:
        """Add a Python function that Numba compiles for `METH_FASTCALL`; call it with :meth:`builtin`.

        It is given the address of the object that the builtin belongs to, that of a list of the arguments' addresses,
        and their number.
        """
        self._builtins[name] = function

    def write_ir(self) -> str:
        """Return the LLVM IR of all kernels."""
        from llvmlite import ir

        self._module, self.functions, self._numba, self._builtins = ir.Module("npmobilenet"), {}, {}, {}
        self._module.triple = self.target.triple
        self._define(self)
        return str(self._module)

    def machine(self) -> llvm.TargetMachine:
        """LLVM's code generator for the target."""
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        target = llvm.Target.from_triple(self.target.triple)
        return target.create_target_machine(
            cpu=self.target.cpu, features=self.target.features, opt=2, jit=True, reloc="default"
        )

    def compile(self) -> bytes:
        """Return the object code.

        Raises
        ------
        RuntimeError
            If the IR is malformed; LLVM would end the process otherwise.
        """
        return self.machine().emit_object(self._linked())

    def assembly(self) -> str:
        """Return the machine code as text."""
        return self.machine().emit_assembly(self._linked())

    def _linked(self) -> llvm.ModuleRef:
        module = llvm.parse_assembly(self.write_ir())
        module.verify()
        if self._numba or self._builtins:
            from npmobilenet.kernels.jit import llvm_ir  # here, for it imports Numba
        for name, (function, arguments) in self._numba.items():
            module.link_in(llvm.parse_assembly(llvm_ir(name, function, arguments)))
        for name, function in self._builtins.items():
            module.link_in(llvm.parse_assembly(llvm_ir(f"{name}_body", function, ["int64"] * 3, "int64")))
            module.link_in(llvm.parse_assembly(BUILTIN.format(name=name)))
        return module

    def address(self, name: str) -> int:
        """Return the address of a kernel, compiled or loaded when the first is asked for.

        Raises
        ------
        LookupError
            If the library has no such kernel.
        """
        if self._engine is None:
            with MAKING:
                if self._engine is None:
                    self._load(self._kept() or self._compile_and_keep())
        address = self._engine.get_function_address(name)
        if not address:
            with MAKING:
                if not self._compiled:  # what was kept is of another library of this name
                    self._load(self._compile_and_keep())
                address = self._engine.get_function_address(name)
        if not address:
            raise LookupError(f"the library {self.name!r} has no kernel {name!r}")
        return address

    def callable(self, name: str, arguments: int) -> Callable[..., None]:
        """Return a function that Numba compiled, for Python; other Python threads run while it does.

        Its arguments are so many integers; an array is the integers of :func:`numba_array`.
        """
        # Numba's convention: where to put the result, where to put an exception, the arguments.
        signature = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * arguments)
        function = signature(self.address(name))
        nowhere = ctypes.create_string_buffer(16)
        where = ctypes.addressof(nowhere)

        def run(*integers: int, _keep: object = nowhere) -> None:
            function(where, where + 8, *integers)

        return run

    def builtin(self, name: str, owner: object) -> Callable[..., int]:
        """Return a function that :meth:`add_builtin` added, as Python calls its own: `ctypes` alone takes longer.

        It keeps ``owner``. Whether other Python threads run meanwhile is up to the function.
        """
        function = self.address(name)
        method = _methods.setdefault(function, _Method(name.encode(), function, METH_FASTCALL, None))
        new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
        return new(("PyCFunction_NewEx", ctypes.pythonapi))(ctypes.addressof(method), owner, None)

    def _load(self, code: bytes) -> None:
        for name in FROM_PYTHON:
            llvm.add_symbol(name, ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value)
        backing = llvm.parse_assembly("")
        backing.triple = self.target.triple
        engine = llvm.create_mcjit_compiler(backing, self.machine())
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        _loaded.append(engine)
        self._engine = engine

    def _kept(self) -> bytes | None:
        """Read the object code if it is there and this library's: LLVM would run or trip over whatever it is given."""
        return cache.read(self.file, self._stamp) if self.file else None

    def _compile_and_keep(self) -> bytes:
        code = self.compile()
        self._compiled = True
        if self.file:
            cache.keep(self.file, self._stamp, code)
        return code
