"""The machine code that the package brings, for every level of CPUs: found, checked, opened.

`npmobilenet.build_kernels` makes it. Each level's folder has a table of contents: of each library its file, with a
hash, and the module that has written it; one table for all levels has the modules that each of these is made of, with
hashes of their sources. What was edited since, or is not whole, does not serve.
"""

from __future__ import annotations

import os
import sys
from json import loads
from typing import NamedTuple

from npmobilenet.kernels.hashing import fingerprint, sha256
from npmobilenet.kernels.sharing import once
from npmobilenet.kernels.vector.functions import Functions
from npmobilenet.kernels.vector.opening import opened
from npmobilenet.kernels.vector.target import Target

SETTING = "NPMOBILENET_SHIPPED_KERNELS"  # 0: compiled all the same
FOLDER, CONTENTS, SOURCES = "shipped", "contents.json", "sources.json"  # below the package of kernels


class Found(NamedTuple):
    """A library, or the reason why there is none."""

    library: Functions | None
    why: str = ""


class Content(NamedTuple):
    """What stands in the file of a library, or the reason why there is nothing."""

    bytes: bytes | None
    file: str = ""
    why: str = ""


def find(name: str, target: Target) -> Found:
    """Open a library that is shipped for a target."""
    found = content(name, target)
    if found.bytes is None:
        return Found(None, found.why)
    try:
        return Found(opened(name, f"shipped for {target.level}", found.bytes, found.file))
    except OSError as error:
        return Found(None, f"{found.file} cannot be opened: {error}")


def content(name: str, target: Target) -> Content:
    """Read a library that is shipped for a target."""
    if os.environ.get(SETTING) == "0":
        return Content(None, why=f"{SETTING} is 0")
    level = target.level
    if level is None:
        return Content(None, why="nothing is shipped for this CPU")
    entry = _table(level, CONTENTS).get("libraries", {}).get(name)
    if entry is None:
        return Content(None, why=f"not among what is shipped for {level}")
    if "writer" in entry:  # there is none in a pack
        table = _table(SOURCES)
        modules = table.get("writers", {}).get(entry["writer"], [entry["writer"]])
        other = [module for module in modules if not is_source(module, table.get("sources", {}).get(module))]
        if other:
            return Content(None, why=f"{other[0]} is not the source of which {level} was made")
    file = _place("npmobilenet.kernels", FOLDER, *entry["file"].split("/"))
    try:
        found = _read("npmobilenet.kernels", file)
    except OSError as error:
        return Content(None, why=f"{entry['file']} cannot be opened: {error}")
    if sha256(found).hexdigest() != entry["sha256"]:
        return Content(None, why=f"{entry['file']} is damaged: it has not the hash that it should have")
    return Content(found, file)


@once
def _table(*file: str) -> dict:
    """What stands in a table; nothing where there is none that can be read."""
    try:
        return loads(_read("npmobilenet.kernels", _place("npmobilenet.kernels", FOLDER, *file)))
    except (OSError, ValueError):
        return {}


@once
def is_source(module: str, digest: str | None) -> bool:
    """Whether a module's source is there, and has this hash."""
    content = source(module)
    return content is not None and fingerprint(content) == digest


def source(module: str) -> bytes | None:
    """The source of a module of ours, which need not be imported; None where there is none."""
    package = max((one for one in ("npmobilenet", "npmobilenet.kernels") if module.startswith(f"{one}.")), key=len)
    *folders, name = module.removeprefix(f"{package}.").split(".")
    try:
        return _read(package, _place(package, *folders, f"{name}.py"))
    except OSError:
        return None


def _place(package: str, *parts: str) -> str:
    return os.path.join(next(iter(sys.modules[package].__path__)), *parts)  # noqa: PTH118 - before pathlib


def _read(package: str, file: str) -> bytes:
    """What stands in a file of a package, which may be in an archive."""
    try:
        return sys.modules[package].__spec__.loader.get_data(file)
    except AttributeError:
        raise OSError(f"{package} has no files") from None
