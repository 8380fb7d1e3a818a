"""Numba's cache of machine code, in files that are checked, wherever the source of a function may be.

Numba unpickles what it finds: a file that is damaged ends in whatever ``pickle`` raises, one in place of another in
wrong answers; two processes that compile one function for different types at once may exchange their code in its index.
It caches nothing of a package in an archive, or elsewhere than in the folder it was told. So its own classes get other
files: one for each set of types, under a name and a checksum (`cache`) that hold all that the code depends on.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from pickle import loads
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core.serialize import dumps

from npmobilenet.kernels import cache

VERSIONS = (sys.version, numba.__version__, llvmlite.__version__, np.__version__)


def keep_code(dispatcher: Any, numba_cache: type, folder: Path) -> None:
    """Let a function that Numba compiles find and keep its machine code in ``folder``.

    Parameters
    ----------
    dispatcher : numba.core.dispatcher.Dispatcher, or CUDA's
    numba_cache : type
        The class of Numba's cache for such functions: ``numba.core.caching.FunctionCache`` or CUDA's.
    folder : Path
        One for each way of compiling; made when it is needed.
    """
    function = dispatcher.py_func
    place = {"_locator_classes": [_Place.in_(folder)]}

    class CheckedCache(numba_cache):
        _impl_class = type("Checked", (numba_cache._impl_class,), place)

        def __init__(self) -> None:
            super().__init__(function)
            self._cache_file = _Files(function, folder)

    dispatcher._cache = CheckedCache()


class _Files:
    """What Numba's caches read from and write to: a file for each key, which stands for the types and the CPU."""

    def __init__(self, function: Callable, folder: Path) -> None:
        self._folder = folder
        self._name = re.sub(r"[^\w.]", "", f"{function.__module__}.{function.__qualname__}")
        self._about = (folder.name, self._name, cache.describe(function.__code__), VERSIONS)

    def load(self, key: tuple) -> Any:
        """Return what was saved under this key, or None."""
        content = cache.read(self._file(key), self._stamp(key))
        return None if content is None else loads(content)

    def save(self, key: tuple, data: Any) -> None:
        """Write it to the file of this key."""
        cache.keep(self._file(key), self._stamp(key), dumps(data))

    def flush(self) -> None:
        """Remove what is kept of this function."""
        for file in self._folder.glob(f"{self._name}-*.nbc"):
            with suppress(OSError):
                file.unlink()

    def _stamp(self, key: tuple) -> str:
        return repr((self._about, key))

    def _file(self, key: tuple) -> Path:
        return self._folder / f"{self._name}-{_digest(self._stamp(key))}.nbc"


class _Place:
    """What Numba asks where a function's files are to be; most of it `_Files` know already."""

    folder: Path

    def __init__(self, function: Callable, py_file: str) -> None:
        self._function = function
        self._py_file = py_file  # Numba names it in its warnings

    @classmethod
    def in_(cls, folder: Path) -> type[_Place]:
        """Return the class for a folder: Numba takes classes, and makes the objects itself."""
        return type("_PlaceInFolder", (cls,), {"folder": folder})

    @classmethod
    def from_function(cls, function: Callable, py_file: str) -> _Place:
        """Every function has its place, also one whose source is no file."""
        return cls(function, py_file)

    def get_cache_path(self) -> str:
        return str(self.folder)

    def ensure_cache_path(self) -> None:
        """Called before anything is written; what cannot be made is not written either."""
        with suppress(OSError):
            self.folder.mkdir(exist_ok=True)

    def get_source_stamp(self) -> None:
        """The kernels' sources stand in the checksums."""

    def get_disambiguator(self) -> str:
        """Make the name of a function, to which CUDA's cache adds a file of its own, that of one function only."""
        return _digest(self._function.__module__ + cache.describe(self._function.__code__))


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]
