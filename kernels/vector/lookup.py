"""Where the machine code of a library comes from: it is shipped, else kept in the cache, else compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from npmobilenet.kernels import compilers
from npmobilenet.kernels.vector import shipped
from npmobilenet.kernels.vector.foreign import Foreign, is_foreign
from npmobilenet.kernels.vector.functions import Functions
from npmobilenet.kernels.vector.target import Target

if TYPE_CHECKING:
    from npmobilenet.kernels.vector.library import Library

OURS = "npmobilenet.kernels."


class Served(NamedTuple):
    """A library, the module that writes it, how, and why it is not shipped, if it is not."""

    functions: Functions
    writer: str
    define: Callable[[Library], None]
    why: str


served: dict[tuple[str, Target], Served] = {}
"""The libraries that this process has asked for."""


def library(name: str, target: Target, writer: str, define: Callable[[Library], None]) -> Functions:
    """Return kernels that are compiled together.

    Parameters
    ----------
    name : str
        Of the library.
    target : Target
    writer : str
        The module in which the kernels are written down.
    define : callable
        ``define(library)`` adds them to a `Library` that is to be compiled.
    """
    found, why = shipped.find(name, target)
    if found is None and is_foreign(target):
        found = Foreign(name)
    if found is None:
        try:  # here, for few processes compile
            from npmobilenet.kernels import cache
            from npmobilenet.kernels.vector.library import Library
        except ModuleNotFoundError:  # in a pack, which has no means to compile
            raise compilers.NoCompilerError(f"the machine code {name!r} cannot be used: {why}") from None
        # The cache's folder stands for the sources of kernels; loops may stand elsewhere.
        version = "" if writer.startswith(OURS) else f"-{cache.sources(writer)[:16]}"
        found = Library(name + version, target, define, cache.kernel_cache())
    served[name, target] = Served(found, writer, define, why)
    return found


def shared_object(name: str, target: Target) -> bytes:
    """Return a library that was asked for as a shared object: as it is shipped, else compiled."""
    shipped_bytes = shipped.content(name, target).bytes
    if shipped_bytes is not None:
        return shipped_bytes
    from npmobilenet.kernels.vector.library import Library

    return Library(name, target, served[name, target].define, None).shared_object()
