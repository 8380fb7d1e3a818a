"""Compile the machine code that the package brings, for every level of CPUs: ``python -m npmobilenet.build_kernels``.

Any machine compiles for all of them, and the same compilers make the same bytes everywhere: with ``--check`` nothing is
written, but compared with what is there.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from npmobilenet import kernels
from npmobilenet.image import loops
from npmobilenet.kernels import fold
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.hashing import fingerprint
from npmobilenet.kernels.vector import lookup, shipped
from npmobilenet.kernels.vector.target import LEVELS, Target
from npmobilenet.kernels.walk import compiled

PINNED = {"llvmlite": "0.50.0", "numba": "0.68.1"}  # the compilers
FOLDER = Path(kernels.__path__[0]) / shipped.FOLDER
COMPILING = "npmobilenet.kernels.vector.library"  # how whatever is written is compiled
# What finds, keeps and opens machine code, and has no part in it.
KEEPING = {
    f"{lookup.OURS}{name}" for name in ("cache", "compilers", "hashing", "memory", "numba_cache", "paths", "sharing")
}
KEEPING |= {
    f"{lookup.OURS}vector.{name}"
    for name in ("foreign", "functions", "jitted", "lookup", "mapped", "opening", "shipped")
}

# What the architectures of the package need beside the common libraries.
DEPTHWISE = (*(((k, k), (s, s)) for k in (5, 7, 9) for s in (1, 2)), ((11, 11), (2, 2)))
STEMS = (((1, 1), (1, 1)), ((3, 3), (1, 1)))
INT8_STEMS = (((3, 3), (1, 1)),)
INT8_DEPTHWISE = tuple(((5, 5), (s, s), False) for s in (1, 2))
BETWEEN = ("channels", "elementwise", "softmax")


def write(target: Target) -> dict[str, lookup.Served]:
    """Return the libraries that are shipped for a CPU, by name, to be compiled."""
    os.environ[shipped.SETTING] = "0"
    for of_all in (compiled.walkers, loops.library, fold.library, library.common, library.convolution):
        of_all(target)
    for also in (library.windows, library.resize2d):
        also(target)
    for window in DEPTHWISE:
        library.window(*window, target)
    for window in STEMS:
        library.stem_window(*window, target)
    library.int8(target)  # whose other ends, of hard swish and swish, would take as much again as all of this
    library.int8_add(target)
    library.int8_unfold(target)
    for window in INT8_STEMS:
        library.int8_stem(*window, target, library.CLAMP)
    for window in INT8_DEPTHWISE:
        library.int8_window(*window, target, library.CLAMP, small=False)
    for module in BETWEEN:
        library.between(target, module)
    return {name: served for (name, of), served in lookup.served.items() if of == target}


def build(level: str, folder: Path) -> None:
    """Compile a level's libraries into a folder, with their table of contents."""
    libraries = {}
    folder.mkdir(parents=True)
    for name, served in sorted(write(LEVELS[level].target).items()):
        content = lookup.shared_object(name, LEVELS[level].target)
        (folder / f"{name}.so").write_bytes(content)
        libraries[name] = {"file": f"{level}/{name}.so", "sha256": sha256(content).hexdigest(), "writer": served.writer}
    _write(folder / shipped.CONTENTS, {"libraries": libraries})


def sources(writers: Iterable[str]) -> dict:
    """Return the table of what these modules, and what compiles for them, are made of."""
    made_of = {writer: sorted(reached(writer) | reached(COMPILING)) for writer in sorted(writers)}
    modules = sorted({module for modules in made_of.values() for module in modules})
    hashes = {module: fingerprint(shipped.source(module)) for module in modules}
    return {"compilers": PINNED, "writers": made_of, "sources": hashes}


def _write(file: Path, table: dict) -> None:
    file.write_text(json.dumps(table, indent=1) + "\n")


@cache
def reached(module: str) -> frozenset[str]:
    """The modules of kernels that one imports, those that they import, and so on, and itself.

    However a kernel is written, it is by these. Packages count for nothing: theirs say what is inside, and no more.
    """
    found, new = set(), {module}
    while new:
        found |= new
        new = {other for one in new for other in _imported(one) if shipped.source(other)} - found
    return frozenset(found)


@cache
def _imported(module: str) -> frozenset[str]:
    """What may be modules of kernels among the names that a module imports, but for annotations."""
    return frozenset(
        name
        for name in imported(ast.parse(shipped.source(module)).body)
        if name.startswith(lookup.OURS) and name not in KEEPING
    )


def imported(statements: Sequence[ast.AST]) -> Iterator[str]:
    for statement in statements:
        if isinstance(statement, ast.If) and getattr(statement.test, "id", "") == "TYPE_CHECKING":
            continue
        if isinstance(statement, ast.ImportFrom):
            yield statement.module
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)
        elif isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        else:
            yield from imported(list(ast.iter_child_nodes(statement)))


def build_all(folder: Path, levels: Sequence[str] = tuple(LEVELS)) -> None:
    """Compile for several levels, each in a process of its own: Numba compiles for one CPU."""
    for level in levels:
        target = LEVELS[level].target
        own = target.triple.startswith(os.uname().machine)
        settings = {
            "NUMBA_CPU_NAME": target.cpu if own else "generic",  # of another kind of CPU it writes what any has
            "NUMBA_CPU_FEATURES": target.features if own else "",
            "NUMBA_DISABLE_JIT": "0",
        }
        command = [sys.executable, "-m", __spec__.name, "--level", level, "--into", str(folder / level)]
        print(f"{level} ...", flush=True)
        subprocess.run(command, check=True, env=os.environ | settings)
    _share(folder)


def _share(folder: Path) -> None:
    """Where two levels have the same bytes, let one refer to the other's file; write what all are made of."""
    first: dict[tuple[str, str], str] = {}
    writers = set()
    for level in LEVELS:
        table = folder / level / shipped.CONTENTS
        if not table.exists():
            continue
        contents = json.loads(table.read_text())
        for name, about in contents["libraries"].items():
            writers.add(about["writer"])
            file = first.setdefault((name, about["sha256"]), about["file"])
            if file != about["file"]:
                (folder / about["file"]).unlink()
                about["file"] = file
        _write(table, contents)
    _write(folder / shipped.SOURCES, sources(writers))


def differences(folder: Path, other: Path) -> list[str]:
    """The files, by their names, that are not the same in both folders."""
    names = {path.relative_to(one).as_posix() for one in (folder, other) for path in one.rglob("*") if path.is_file()}
    return sorted(name for name in names if _content(folder / name) != _content(other / name))


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def other_compilers() -> str:
    """Say which compilers are not those that the bytes are pinned to; nothing if all are."""
    return ", ".join(
        f"{name} {version(name)}, not {pinned}" for name, pinned in PINNED.items() if version(name) != pinned
    )


def main() -> int:
    """Compile, and compare or put in place."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with what is there; exit code 1 if it differs")
    parser.add_argument("--level", choices=LEVELS, help="this one alone, into the folder --into")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="which is made")
    options = parser.parse_args()
    if problem := other_compilers():
        parser.error(f"other compilers make other bytes: {problem}")
    if options.level:
        build(options.level, options.into)
        return 0
    with TemporaryDirectory() as temporary:
        made = Path(temporary) / shipped.FOLDER
        build_all(made)
        changed = differences(made, FOLDER)
        if not options.check:
            shutil.rmtree(FOLDER, ignore_errors=True)
            shutil.copytree(made, FOLDER)
    print("\n".join(changed) or "the same as before")
    return int(options.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
