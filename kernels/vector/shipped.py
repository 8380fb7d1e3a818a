"""The machine code that the package brings, for every level of CPUs: found, checked, opened.

`npmobilenet.build_kernels` makes it. Each level's folder has a table of contents: of each library its file, with a
hash, and the modules that have written it, with hashes of their sources. What was edited since, or is not whole, does
not serve.
"""

from __future__ import annotations

import os
import sys
from hashlib import sha256
from json import loads
from typing import NamedTuple

from npmobilenet.kernels.sharing import once
from npmobilenet.kernels.vector.functions import Functions, opened
from npmobilenet.kernels.vector.target import Target

SETTING = "NPMOBILENET_SHIPPED_KERNELS"  # 0: compiled all the same
FOLDER, CONTENTS = "shipped", "contents.json"  # below the package of kernels


class Found(NamedTuple):
    """A library, or the reason why there is none."""

    library: Functions | None
    why: str = ""


def find(name: str, target: Target) -> Found:
    """Open a library that is shipped for a target."""
    if os.environ.get(SETTING) == "0":
        return Found(None, f"{SETTING} is 0")
    level = target.level
    if level is None:
        return Found(None, "nothing is shipped for this CPU")
    about = _contents(level)
    entry = about.get("libraries", {}).get(name)
    if entry is None:
        return Found(None, f"not among what is shipped for {level}")
    other = [module for module in about["writers"][entry["writer"]] if not _is(module, about["sources"][module])]
    if other:
        return Found(None, f"{other[0]} is not the source of which {level} was made")
    file = _place("npmobilenet.kernels", FOLDER, *entry["file"].split("/"))
    try:
        content = _read("npmobilenet.kernels", file)
        if sha256(content).hexdigest() != entry["sha256"]:
            return Found(None, f"{entry['file']} is damaged: it has not the hash that it should have")
        return Found(opened(name, f"shipped for {level}", content, file))
    except OSError as error:
        return Found(None, f"{entry['file']} cannot be opened: {error}")


@once
def _contents(level: str) -> dict:
    """A level's table of contents; nothing where there is none that can be read."""
    try:
        return loads(_read("npmobilenet.kernels", _place("npmobilenet.kernels", FOLDER, level, CONTENTS)))
    except (OSError, ValueError):
        return {}


@once
def _is(module: str, digest: str) -> bool:
    """Whether a module's source is there, and has this hash."""
    content = source(module)
    return content is not None and sha256(content).hexdigest() == digest


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
