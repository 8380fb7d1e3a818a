"""Kernels compiled together, once, with Numba's code generator (llvmlite): kept on disk, found by their names.

Functions that Numba compiles are taken in as well. Neither compiler is imported where what is kept serves.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from npmobilenet.kernels import cache, compilers
from npmobilenet.kernels.sharing import MAKING
from npmobilenet.kernels.vector.functions import Functions
from npmobilenet.kernels.vector.link import LinkError, is_shared_object, shared_object
from npmobilenet.kernels.vector.opening import opened
from npmobilenet.kernels.vector.target import Target

if TYPE_CHECKING:
    import llvmlite.binding as llvm
    from llvmlite import ir

Kernel = Callable[..., None]
DIGEST = hashlib.sha256().digest_size  # of the compilers' versions, before what they made

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
    """Kernels compiled together, once; the machine code is kept in ``folder`` and loaded from there later.

    Parameters
    ----------
    name : str
        Part of the file's name.
    target : Target
    define : callable
        ``define(library)`` adds the kernels, with :meth:`add`.
    folder : Path or None
        Where to keep the machine code, a folder whose name depends on every kernel source
        (`cache.kernel_cache`); None compiles in every process.
    """

    def __init__(self, name: str, target: Target, define: Callable[[Library], None], folder: Path | None) -> None:
        self.name, self.target, self.origin = name, target, f"to be compiled for {target.name}"
        self.functions: dict[str, ir.Function] = {}
        self._define = define
        self._opened: Functions | None = None
        self._compiled = False
        self._stamp = repr((name, target))
        digest = hashlib.sha256(self._stamp.encode()).hexdigest()[:16]
        self.file = folder / f"{name}-{digest}.o" if folder else None

    def add(self, name: str, write: Kernel) -> None:
        """Add a kernel, or a function that kernels call with :meth:`Code.call`.

        ``write(code, ...)`` writes it down; its parameters are annotated as ``Pointer`` or ``Integer``.
        """
        import inspect  # here, as the vocabulary: what is kept need not be written

        from llvmlite import ir

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
        llvm = self._llvm()
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        target = llvm.Target.from_triple(self.target.triple)
        options = {"jit": True, "reloc": "default", **options}
        return target.create_target_machine(cpu=self.target.cpu, features=self.target.features, opt=2, **options)

    def compile(self) -> bytes:
        """Return the machine code: a shared object, or where none can be linked an object that LLVM can load.

        Raises
        ------
        RuntimeError
            If the IR is malformed; LLVM would end the process otherwise.
        NoCompilerError
            If there is no LLVM.
        """
        if "linux" in self.target.triple:
            with suppress(LinkError):
                return self.shared_object()
        return self.machine().emit_object(self._linked())

    def shared_object(self) -> bytes:
        """Return the machine code as a shared object for 64-bit Linux."""
        machine = self.machine(jit=False, reloc="pic", codemodel="small")
        return shared_object(machine.emit_object(self._linked()))

    def assembly(self) -> str:
        """Return the machine code as text."""
        return self.machine().emit_assembly(self._linked())

    def _linked(self) -> llvm.ModuleRef:
        llvm = self._llvm()
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

    def _llvm(self) -> ModuleType:
        return compilers.needed(f"the library {self.name!r} for {self.target.name}", compilers.LLVM)

    def address(self, name: str) -> int:
        """Return the address of a kernel, compiled or loaded when the first is asked for.

        Raises
        ------
        LookupError
            If the library has no such kernel.
        """
        if self._opened is None:
            with MAKING:
                if self._opened is None:
                    self._open(self._kept() or self._compile_and_keep())
        with suppress(LookupError):
            return self._opened.address(name)
        with MAKING:
            if not self._compiled:  # what was kept is of another library of this name
                self._open(self._compile_and_keep())
            return self._opened.address(name)

    def _open(self, code: bytes) -> None:
        if is_shared_object(code):
            self._opened = opened(self.name, self.origin, code)
        else:
            from npmobilenet.kernels.vector.jitted import Jitted  # here, for it imports LLVM

            self._opened = Jitted(self.name, self.origin, code, self.target.triple, self.machine())

    def _kept(self) -> bytes | None:
        """Read the machine code if it is there and this library's, since whatever is given would be run.

        What other compilers made is compiled anew, where there are any.
        """
        kept = cache.read(self.file, self._stamp) if self.file else None
        if not kept or compilers.installed() not in (kept[:DIGEST], b""):
            return None
        self.origin = f"kept in the cache for {self.target.name}"
        return kept[DIGEST:]

    def _compile_and_keep(self) -> bytes:
        code = self.compile()
        self._compiled, self.origin = True, f"compiled for {self.target.name}"
        if self.file:
            cache.keep(self.file, self._stamp, compilers.installed().ljust(DIGEST, b"\0") + code)
        return code


def _for(target: Target, text: str) -> str:
    """LLVM IR that Numba writes for this machine, in the words of the target's."""
    text = re.sub(r"^target (datalayout|triple) = .*\n", "", text, flags=re.MULTILINE)
    if target.triple.startswith("aarch64"):
        text = text.replace("declare void @llvm.x86.sse2.pause()", "declare void @llvm.aarch64.hint(i32)")
        text = text.replace("@llvm.x86.sse2.pause()", "@llvm.aarch64.hint(i32 1)")
    return text
