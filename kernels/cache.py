"""Where the machine code of kernels is kept, and how it is written and read there.

A file begins with a checksum of all that it depends on: the kernels' sources, what its writer says of it (its stamp)
and its content. So what is damaged, cut short, or in place of another (a backup restored, folders synchronised) is as
good as missing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pkgutil
import re
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from importlib.machinery import ModuleSpec
from operator import attrgetter
from pathlib import Path
from types import CodeType
from typing import NamedTuple

from npmobilenet import __version__
from npmobilenet.kernels.paths import REMEDY, SETTING, NoFolderError, cache_directory, expanded, temporary_directory

CHECKSUM_BYTES = hashlib.sha256().digest_size
FOLDER = re.compile("kernels-[0-9a-f]{16}")
FRAGMENT = re.compile(r".+\.[0-9a-f]{8}")  # what `keep` writes before it has its name
HOUR = 3600.0
DAY = 24 * HOUR


# The folder -----------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where compiled kernels are kept; None if nowhere, and every process compiles anew. With the reason, if odd."""

    folder: Path | None
    why: str = ""


def kernel_cache() -> Path | None:
    """Return the folder of compiled kernels, or None where there can be none."""
    return place().folder


@lru_cache(maxsize=1)
def place() -> Place:
    """Return where compiled kernels are kept, with a warning if that is not where it should be.

    The folder's name holds a hash of every kernel source: Numba itself looks only at the file that defines a function,
    and would go on using machine code into which an older version of another file was inlined.

    A folder that was chosen and cannot be used is not replaced; in place of the usual one there may be one among the
    temporary files. A folder that cannot be written serves if it has kernels, as in an image of a container.
    """
    numba_folder = os.environ.get("NUMBA_CACHE_DIR")
    try:
        base = expanded(numba_folder) / "npmobilenet" if numba_folder else cache_directory()
        folder = base / f"kernels-{sources()[:16]}"
        _make(folder)
        if os.access(folder, os.W_OK | os.X_OK):
            return Place(folder)
        if any(folder.glob("*.o")):
            return Place(folder, "read-only")
        why = f"{folder} cannot be written; {REMEDY}"
    except NoFolderError as error:
        why = str(error)
    except OSError as error:
        why = f"{error.filename} cannot be made: {error.strerror}; {REMEDY}"
    temporary = None if numba_folder or os.environ.get(SETTING) else temporary_directory()
    if temporary:
        with suppress(OSError):
            folder = temporary / f"kernels-{sources()[:16]}"
            _make(folder)
            warnings.warn(f"compiled kernels are kept in {temporary}, since {why}", RuntimeWarning, stacklevel=2)
            return Place(folder, f"temporary, since {why}")
    warnings.warn(f"every process compiles its kernels anew, since {why}", RuntimeWarning, stacklevel=2)
    return Place(None, why)


def _make(folder: Path) -> None:
    """Make the folder if it is not there; what earlier versions left long ago beside it goes then."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if not folder.is_dir():
            raise
        return
    import shutil  # few need it

    with suppress(OSError):
        for other in folder.parent.iterdir():
            if FOLDER.fullmatch(other.name) and not other.is_symlink() and _age(other) > 90 * DAY:
                shutil.rmtree(other, ignore_errors=True)


def _age(path: Path) -> float:
    """Seconds since anything was written in a folder."""
    return time.time() - max(file.stat().st_mtime for file in (path, *path.rglob("*")))


# What kernels are made of ---------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def sources(module: str = __package__) -> str:
    """Return a hash of all sources of kernels, be they files, in an archive, or frozen into a program as bytecode.

    Of another module or package for compiled loops that stand elsewhere.
    """
    digest = hashlib.sha256()
    try:
        for name, content in _modules(importlib.util.find_spec(module)):
            digest.update(name.encode() + hashlib.sha256(content).digest())
    except (AttributeError, ImportError):  # the modules are machine code of a program, which is known by its file then
        status = Path(sys.executable).stat()
        digest.update(repr((__version__, sys.executable, status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()


def _modules(spec: ModuleSpec) -> Iterator[tuple[str, bytes]]:
    """The name of each module and what its code comes from, without importing it."""
    try:
        content = spec.loader.get_data(spec.origin)
    except (AttributeError, OSError):  # there is no such file
        content = describe(spec.loader.get_code(spec.name)).encode()
    yield spec.name, content
    inside = pkgutil.iter_modules(spec.submodule_search_locations or (), f"{spec.name}.")
    for module in sorted(inside, key=attrgetter("name")):
        yield from _modules(module.module_finder.find_spec(module.name))


def describe(code: CodeType) -> str:
    """Return bytecode with all that it names, as text that is the same in every process."""
    names = (code.co_name, code.co_argcount, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return repr((code.co_code, names, [_describe_constant(value) for value in code.co_consts]))


def _describe_constant(value: object) -> str:
    if isinstance(value, CodeType):
        return describe(value)
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)


# Files ----------------------------------------------------------------------------------------------------------


def read(file: Path, stamp: str) -> bytes | None:
    """Return what was kept under this name and stamp, or None if that is not there, or not whole."""
    try:
        kept = file.read_bytes()
    except OSError:
        return None
    checksum, content = kept[:CHECKSUM_BYTES], kept[CHECKSUM_BYTES:]
    return content if _checksum(stamp, content) == checksum else None


def keep(file: Path, stamp: str, content: bytes) -> None:
    """Write a file in one step, so that no process reads half of it; where it cannot be written there will be none."""
    temporary = file.with_name(f"{file.name}.{os.urandom(4).hex()}")
    try:
        temporary.write_bytes(_checksum(stamp, content) + content)
        os.replace(temporary, file)  # noqa: PTH105
        _sweep(file.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise


def _checksum(stamp: str, content: bytes) -> bytes:
    about = hashlib.sha256(repr((sources(), stamp)).encode()).digest()
    return hashlib.sha256(about + content).digest()


def _sweep(folder: Path) -> None:
    """Remove what processes left that were killed while they wrote."""
    for file in folder.iterdir():
        with suppress(OSError):
            if FRAGMENT.fullmatch(file.name) and time.time() - file.stat().st_mtime > HOUR:
                file.unlink()
