"""What threads share and what a forked process must not inherit: things made once, and locks.

Two threads that ask at the same time for what is made lazily get the same one (:func:`once`). A process that forks
while another of its threads holds a lock would leave it closed for ever in the child, and what it guards half made:

- Machine code is made and loaded under one lock, `MAKING`. Whoever forks takes it first, together with the locks of
  the compilers, and so waits until none of them is in the middle of something.
- A module that another thread imports has a lock too, and stays half made: whoever forks waits for its end.
- Any other lock is replaced in the child by an open one (:func:`give_lock`); what it guards is to be whole at every
  step.
"""

from __future__ import annotations

import _imp
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

Function = TypeVar("Function", bound=Callable[..., Any])

MAKING = threading.RLock()
"""Held while machine code is made or loaded. Nothing may take it while a module is imported: a thread that holds it
may be importing that module."""

LONGEST_WAIT = 120.0  # seconds that a fork waits for machine code; compiling all of it takes a tenth of that
LONGEST_IMPORT = (
    10.0  # seconds that a fork waits for imports; a module may be a program that runs as long as it is imported
)

_owners: WeakKeyDictionary[object, str] = WeakKeyDictionary()
_held = threading.local()  # the locks that a thread took to fork


def once(function: Function) -> Function:
    """Decorate what makes something of its (hashable) arguments: made once, then kept as long as the process lives."""
    made: dict[tuple, Any] = {}

    @wraps(function)
    def get(*arguments: Any, **options: Any) -> Any:
        key = (arguments, tuple(sorted(options.items())))
        try:
            return made[key]
        except KeyError:
            pass
        with MAKING:
            if key not in made:
                made[key] = function(*arguments, **options)
            return made[key]

    return get


def give_lock(owner: object, name: str = "_lock") -> None:
    """Give an object a lock as an attribute: one that in a forked process is a new one, open."""
    setattr(owner, name, threading.Lock())
    _owners[owner] = name


class _ImportLock:
    """Python's lock under which an import begins."""

    def __enter__(self) -> None:
        _imp.acquire_lock()

    def __exit__(self, *_: object) -> None:
        _imp.release_lock()


_imports_begin = _ImportLock()


def _compilers_locks() -> list[Any]:
    """The locks of Numba and llvmlite, where they are loaded, in the order in which they take them."""
    locks = []
    if (numba := sys.modules.get("numba.core.compiler_lock")) is not None:
        locks.append(getattr(numba, "global_compiler_lock", None))
    if (ffi := sys.modules.get("llvmlite.binding.ffi")) is not None:
        locks.append(getattr(getattr(ffi, "lib", None), "_lock", None))
    return [lock for lock in locks if hasattr(lock, "__enter__")]


def _before_fork() -> None:
    if _held.__dict__.setdefault("locks", []):
        return  # registered twice
    if MAKING.acquire(timeout=LONGEST_WAIT):
        _held.locks.append(MAKING)
    mine, end = len(_held.locks), time.monotonic() + LONGEST_IMPORT
    while True:
        for lock in [*_compilers_locks(), _imports_begin]:
            _held.locks.append(lock)
            lock.__enter__()
        if not _another_thread_imports() or time.monotonic() > end:
            return
        _let_go(mine)  # what is imported may compile, and import
        time.sleep(0.001)


def _another_thread_imports() -> bool:
    """Whether one is in the middle of a module: whoever imports that in the child waits for a thread that is not there.

    Python has no public way to know. Where its importer should change, forks are what they are without this module.
    """
    locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", {})
    owners = {getattr(reference(), "owner", None) for reference in list(locks.values())}
    return bool(owners - {None, threading.get_ident()})


def _after_fork() -> None:
    _let_go(0)


def _let_go(kept: int) -> None:
    while len(_held.locks) > kept:
        with suppress(RuntimeError):  # an interrupt came before the last one was taken
            _held.locks.pop().__exit__(None, None, None)


def _after_fork_in_child() -> None:
    for owner, name in list(_owners.items()):
        setattr(owner, name, threading.Lock())
    _after_fork()


def _register() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


def expect_compilers() -> None:
    """Where compilers are imported: see to it that ours are still the first locks that are taken before a fork.

    What was registered last is called first. These modules, which compilers import, take locks before a fork too, and a
    thread that compiles may wait for them.
    """
    import logging  # noqa: F401

    _register()


_register()
