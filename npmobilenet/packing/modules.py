"""Which modules of this package a pack needs: those that its command imports, and what these import as they begin."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pkgutil import iter_modules

PACKAGE = "npmobilenet"
COMMAND = f"{PACKAGE}.cli.packed"

# What is imported in functions, on the way of every pack.
LATER = (
    *("cli.terminal", "cli.options", "cli.parsing", "cli.defaults", "cli.photographs", "packed", "packed.model"),
    *("image", "image.loops", "kernels.blocked", "kernels.vector.mapped"),
)
OF_TASKS = {
    "classify": ("cli.classify",),
    "detect": ("cli.detect", "tasks.boxes", "tasks.detection"),
    "faces": ("cli.faces", "face_finder", "tasks.boxes", "tasks.detection"),
    "segment": ("cli.segment", "tasks.segmentation"),
}


def needed(task: str, more: Iterable[str] = ()) -> dict[str, str]:
    """Return the sources of the modules of a pack for a task, by their names; ``more`` are in it too."""
    names = [COMMAND, *(f"{PACKAGE}.{name}" for name in (*LATER, *OF_TASKS[task])), *more]
    found: dict[str, str] = {}
    while names:
        name = names.pop()
        source = _source(name)
        if name in found or source is None:
            continue
        found[name] = source
        names += name.rpartition(".")[:1] if "." in name else ()
        names += [other for other in _imported(ast.parse(source).body) if other.partition(".")[0] == PACKAGE]
    return dict(sorted(found.items()))


def of_layers() -> Iterator[str]:
    """Yield the modules that make plans, with all operations' own, which plans import when they meet them."""
    from npmobilenet.kernels import blocked
    from npmobilenet.kernels.blocked import int8

    yield from (f"{PACKAGE}.recorded.layers", f"{PACKAGE}.graph")
    for package in (blocked, int8):
        yield from (
            f"{package.__name__}.{module.name}" for module in iter_modules(package.__path__) if not module.ispkg
        )


def is_package(name: str) -> bool:
    """Whether other modules are in it."""
    return _spec(name).submodule_search_locations is not None


@cache
def _spec(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except ModuleNotFoundError:  # a name inside of a module
        return None


def _source(name: str) -> str | None:
    spec = _spec(name)
    return None if spec is None else spec.loader.get_source(name)


def _imported(statements: Sequence[ast.stmt]) -> Iterator[str]:
    """What may be modules among the names that are imported as a module begins, but for annotations."""
    for statement in statements:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield statement.module
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)
        elif isinstance(statement, ast.If) and getattr(statement.test, "id", "") == "TYPE_CHECKING":
            yield from _imported(statement.orelse)
        elif isinstance(statement, (ast.If, ast.Try)):
            yield from _imported([one for one in ast.iter_child_nodes(statement) if isinstance(one, ast.stmt)])
