"""Kernels compiled together, once, with Numba's code generator (llvmlite): kept on disk, found by their names.

Functions that Numba compiles are taken in as well; Numba itself, which takes half a second to start, is needed only
to compile them, not to run them.
"""

from __future__ import annotations

import ctypes
import hashlib
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import llvmlite.binding as llvm

from npmobilenet.kernels import cache
from npmobilenet.kernels.sharing import MAKING, expect_compilers
from npmobilenet.kernels.vector.functions import Functions
from npmobilenet.kernels.vector.link import FROM_PYTHON, shared_object
from npmobilenet.kernels.vector.target import Target

if TYPE_CHECKING:
    from llvmlite import ir

expect_compilers()

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


class Library(Functions):
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

    origin = "compiled"

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

    def machine(self, **options: object) -> llvm.TargetMachine:
        """LLVM's code generator for the target."""
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        target = llvm.Target.from_triple(self.target.triple)
        options = {"jit": True, "reloc": "default", **options}
        return target.create_target_machine(cpu=self.target.cpu, features=self.target.features, opt=2, **options)

    def compile(self) -> bytes:
        """Return the object code.

        Raises
        ------
        RuntimeError
            If the IR is malformed; LLVM would end the process otherwise.
        """
        return self.machine().emit_object(self._linked())

    def shared_object(self) -> bytes:
        """Return the same code as a shared object for 64-bit Linux."""
        machine = self.machine(jit=False, reloc="pic", codemodel="small")
        return shared_object(machine.emit_object(self._linked()))

    def assembly(self) -> str:
        """Return the machine code as text."""
        return self.machine().emit_assembly(self._linked())

    def _linked(self) -> llvm.ModuleRef:
        module = llvm.parse_assembly(self.write_ir())
        module.verify()
        if self._numba or self._builtins:
            from npmobilenet.kernels.jit import llvm_ir  # here, for it imports Numba
        for name, (function, arguments) in self._numba.items():
            module.link_in(llvm.parse_assembly(_for(self.target, llvm_ir(name, function, arguments))))
        for name, function in self._builtins.items():
            body = llvm_ir(f"{name}_body", function, ["int64"] * 3, "int64")
            module.link_in(llvm.parse_assembly(_for(self.target, body)))
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

    def _load(self, code: bytes) -> None:
        for name in FROM_PYTHON:  # which not every system's loader finds in this process
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
        kept = cache.read(self.file, self._stamp) if self.file else None
        if kept:
            self.origin = "compiled before"
        return kept

    def _compile_and_keep(self) -> bytes:
        code = self.compile()
        self._compiled, self.origin = True, "compiled"
        if self.file:
            cache.keep(self.file, self._stamp, code)
        return code


def _for(target: Target, text: str) -> str:
    """LLVM IR that Numba writes for this machine, in the words of the target's."""
    text = re.sub(r"^target (datalayout|triple) = .*\n", "", text, flags=re.MULTILINE)
    if target.triple.startswith("aarch64"):
        text = text.replace("declare void @llvm.x86.sse2.pause()", "declare void @llvm.aarch64.hint(i32)")
        text = text.replace("@llvm.x86.sse2.pause()", "@llvm.aarch64.hint(i32 1)")
    return text
