"""The compilers, Numba and llvmlite: imported where something must be compiled, and what is said where they are not."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType

from npmobilenet.kernels.hashing import sha256
from npmobilenet.kernels.sharing import expect_compilers, once

NAMES = ("llvmlite", "numba")
LLVM, NUMBA = "llvmlite.binding", "numba"


_expected: set[str] = set()


class NoCompilerError(ImportError):
    """Something must be compiled, and there is no compiler; the text says what, and what to install."""


def needed(what: str, module: str) -> ModuleType:
    """Import a compiler, by which ``what`` is to be compiled.

    Raises
    ------
    NoCompilerError
        If it cannot be imported.
    """
    if module not in _expected:
        expect_compilers()  # whose import takes locks of modules that they import, too
    try:
        found = import_module(module)
    except ImportError as error:
        reason = " ".join(str(error).split())
        remedy = f"the compiler cannot be imported ({reason}): pip install numba"
        raise NoCompilerError(f"{what} must be compiled, and {remedy}") from None
    if module not in _expected:
        _expected.add(module)
        expect_compilers()
    return found


@once
def installed() -> bytes:
    """Return what stands for the versions of the compilers that are on the path; they are not imported for it.

    Empty where there are none, or they cannot be looked at, as in a program that was frozen.
    """
    digest = sha256()
    for name in NAMES:
        files = (os.path.join(folder, name, "_version.py") for folder in sys.path)  # noqa: PTH118 - before pathlib
        content = next(filter(None, map(_content, files)), None)
        if content is None:
            return b""
        digest.update(content)
    return digest.digest()


def _content(file: str) -> bytes | None:
    try:
        with open(file, "rb") as opened:  # noqa: PTH123
            return opened.read()
    except (OSError, ValueError):
        return None
