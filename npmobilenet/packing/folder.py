"""A pack: a folder, or an archive that Python runs. It computes what the model computes, or is not written."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import py_compile
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from npmobilenet.blocked.program import BlockedProgram, UnsupportedGraphError
from npmobilenet.errors import NpmobilenetError
from npmobilenet.image import loops
from npmobilenet.kernels.geometry import Pair
from npmobilenet.kernels.vector import lookup, shipped
from npmobilenet.kernels.vector.target import LEVELS, best_level, host
from npmobilenet.kernels.walk import compiled
from npmobilenet.model import Model
from npmobilenet.packing import layers, modules, texts
from npmobilenet.packing.record import THREADS, Blob, Recorder, described
from npmobilenet.recorded.recording import ARRAYS, DESCRIPTION, Description, RecordedNetwork, Recording, Stored
from npmobilenet.text import printable, quote

ARCHIVE = ".pyz"
PLACE = 1 << 12  # bytes: where the arrays begin in an archive
HEADER_BYTES, ALIGNMENT_FIELD = 30, 0xD935  # of a file in an archive; what fills up to a place (as Android's tools do)
AS_IT_IS = py_compile.PycInvalidationMode.UNCHECKED_HASH
SHIPPED = f"npmobilenet/kernels/{shipped.FOLDER}"
MAIN = '''"""Prints what the packed network makes of photographs: `python {name} PHOTO...`"""

import sys

from npmobilenet.cli.packed import main

sys.exit(main())
'''


@dataclass
class Pack:
    """What is written.

    Attributes
    ----------
    task : str
    models : sequence of Model
    levels : tuple of str
    blob : Blob
    files : dict of str to bytes
        But for the arrays.
    """

    task: str
    models: Sequence[Model]
    levels: tuple[str, ...]
    blob: Blob = field(default_factory=Blob)
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all."""
        return sum(map(len, self.files.values())) + self.blob.size


def pack(models: Sequence[Model], out: str | os.PathLike, targets: str = "host") -> Pack:
    """Write a pack.

    Parameters
    ----------
    models : sequence of Model
        One, or a detector of faces and a classifier of their expressions.
    out : path
        A folder, which is made, or an archive whose name ends with ``.pyz``.
    targets : str
        ``"host"``: this machine's CPU. ``"all"``: every level of CPUs that there is machine code for. Or levels by
        their names, separated by commas.

    Raises
    ------
    NpmobilenetError
        If a network cannot be packed, or computes something else when it is.
    ValueError
        If there is something at this path, or no such target.
    """
    out = Path(out)
    check_place(out)
    levels = checked_levels(targets)
    made = Pack(_task(models), models, levels)
    networks = [_Network(model, made) for model in models]
    used = {level: {name: None for network in networks for name in network.record(level)} for level in levels}
    _add_libraries(made, used)
    described = tuple(network.described() for network in networks)
    description = Description(made.task, 0, made.blob.size, levels, described)
    _add_modules(made, description, out.name)
    _write(made, networks, description, out)
    return made


def checked_levels(targets: str) -> tuple[str, ...]:
    """Return the levels of CPUs that are meant.

    Raises
    ------
    ValueError
        If there is none of such a name, or this machine is of none.
    """
    if targets == "all":
        return tuple(LEVELS)
    if targets == "host":
        level = host().level or best_level(LEVELS)
        if level is None:
            raise ValueError(
                f"there is no machine code for this machine, only for Linux on {', '.join(LEVELS)}: name those it is "
                "for, such as --targets x86-64-v3,aarch64"
            )
        return (level,)
    wanted = [name.strip() for name in targets.split(",")]
    unknown = [name for name in wanted if name not in LEVELS]
    if unknown:
        raise ValueError(f"targets must be host, all, or some of {', '.join(LEVELS)}; got {quote(unknown[0])}")
    return tuple(name for name in LEVELS if name in wanted)


def check_place(out: Path) -> None:
    """Refuse what is not where a pack can be written: a folder that has something in it."""
    if out.suffix == ARCHIVE and out.is_dir():
        raise ValueError(f"{printable(out)}: is a folder, and an archive should be written there")
    if out.suffix == ARCHIVE:
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "a folder that is not empty" if out.is_dir() else "a file"
        raise ValueError(f"{printable(out)}: is {what}; name a new folder, or a file that ends with {ARCHIVE}")


def _task(models: Sequence[Model]) -> str:
    """The command that such models are for."""
    if len(models) > 1:
        return "faces"
    (model,) = models
    if model._detector:
        model.require_detector()
        return "detect"
    if model._segments:
        return "segment"
    model.require_classifier()
    return "classify"


class _Network:
    """A network that is packed."""

    def __init__(self, model: Model, made: Pack) -> None:
        self.model, self.made = model, made
        self.size = model.size or model.preprocessing.crop
        self.levels: dict[str, Stored] = {}
        self.layers: dict[str, Stored] = {}

    @property
    def sizes(self) -> list[Pair]:
        """Those that are recorded, or tried: of what scores pixels in their own proportions photographs differ."""
        preprocessing = self.model.preprocessing
        if self.made.task != "segment" or self.model.size or (preprocessing.whole and preprocessing.fit == "fill"):
            return [self.size]
        (height, width), taller = self.size, self.size[0] * 3 // 2
        return [self.size, (taller, width), (height, taller)]

    def record(self, level: str) -> dict[str, None]:
        """Record its plans for a level; return the libraries that they need."""
        model, graph = self.model, self.model.graph
        target = LEVELS[level].target
        where = printable(model.source)
        try:
            programs = [BlockedProgram(graph, model._weights, target, strict=False) for _ in range(2)]
        except UnsupportedGraphError as error:
            raise NpmobilenetError(f"{where}: cannot be packed: {error}") from None
        if programs[0].problems:
            name, problem = next(iter(programs[0].problems.items()))
            raise NpmobilenetError(
                f"{where}: {printable(name)} ({problem}) is computed by loops that a compiler makes on the spot: it "
                "cannot be packed"
            )
        recorder, blob = Recorder(tuple(programs), self.made.blob), self.made.blob
        outputs = dict.fromkeys([(graph.main_output,), graph.output_names])
        own, *others = self.sizes
        try:
            recordings: dict[tuple[tuple[str, ...], int], Recording] = {
                (names, threads): recorder.record(own, names, threads) for names in outputs for threads in THREADS
            }
            for size in others:  # so that their libraries are known
                recorder.record(size, (graph.main_output,), 1)
        except NpmobilenetError as error:
            raise NpmobilenetError(f"{where}: cannot be packed: {error}") from None
        self.levels[level] = blob.add(np.frombuffer(pickle.dumps(recordings), np.uint8))
        used = recorder.used
        if others:
            self.layers[level], more = layers.store(programs[0], blob)
            used |= more
        return used

    def described(self) -> RecordedNetwork:
        """Return what is known of it besides its arrays."""
        return described(self.model, self.size, self.levels, self.layers, any_size=bool(self.layers))


def _add_libraries(made: Pack, used: dict[str, dict[str, None]]) -> None:
    """Machine code: what the plans call, and the walker and the loops that resize photographs."""
    known: dict[str, str] = {}
    for level, names in used.items():
        target = LEVELS[level].target
        for also in (compiled.walkers(target), loops.library(target)):
            names[also.name] = None
        contents = {"libraries": {}}
        for name in names:
            content = lookup.shared_object(name, target)
            digest = sha256(content).hexdigest()
            file = known.setdefault(digest, f"{level}/{name}.so")
            made.files[f"{SHIPPED}/{file}"] = content
            contents["libraries"][name] = {"file": file, "sha256": digest}
        made.files[f"{SHIPPED}/{level}/{shipped.CONTENTS}"] = json.dumps(contents, indent=1).encode()


def _add_modules(made: Pack, description: Description, name: str) -> None:
    """Sources, and what is beside them for people."""
    more = modules.of_layers() if any(network.layers for network in description.networks) else ()
    found = modules.needed(made.task, {*_pickled(description), *more})
    for module, source in found.items():
        made.files[f"{module.replace('.', '/')}{'/__init__' * modules.is_package(module)}.py"] = source.encode()
    made.files["__main__.py"] = MAIN.format(name=name).encode()


def _pickled(description: Description) -> set[str]:
    """The modules of what a description holds."""
    strings, found = [], set()
    for code, argument, _ in pickletools.genops(pickle.dumps(description)):
        if code.name == "STACK_GLOBAL":
            found.add(strings[-2])
        elif isinstance(argument, str):
            strings.append(argument)
    return {name for name in found if name.startswith("npmobilenet.")}


# --- Writing -------------------------------------------------------------------------------------------------


def _write(made: Pack, networks: Sequence[_Network], description: Description, out: Path) -> None:
    """Write everything beside its place, see that it computes what it should, and put it there."""
    out = out.absolute()
    archive = out.suffix == ARCHIVE
    description = description._replace(offset=PLACE if archive else 0)
    made.files[DESCRIPTION] = pickle.dumps(description)
    made.files |= _compiled(made.files, archive)
    made.files |= texts.files(made, out.name, archive)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        written = Path(temporary) / out.name
        (_write_archive if archive else _write_folder)(made, written)
        _check(made, networks, written)
        if out.is_dir():  # an empty one
            out.rmdir()
        written.replace(out)


def _write_folder(made: Pack, folder: Path) -> None:
    for name, content in made.files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    with (folder / ARRAYS).open("wb") as file:
        file.writelines(made.blob)


def _write_archive(made: Pack, file: Path) -> None:
    """Nothing in it is compressed, so that its arrays are mapped as they lie there."""
    begin = b"#!/usr/bin/env python3\n"
    first = ZipInfo(ARRAYS)
    unused = PLACE - len(begin) - HEADER_BYTES - len(ARRAYS)
    first.extra = struct.pack("<HH", ALIGNMENT_FIELD, unused - 4).ljust(unused, b"\0")
    with file.open("wb") as opened:
        opened.write(begin)
        with ZipFile(opened, "w", ZIP_STORED) as archive:
            with archive.open(first, "w") as arrays:
                for part in made.blob:
                    arrays.write(part)
            for name, content in made.files.items():
                archive.writestr(ZipInfo(name), content)
    file.chmod(file.stat().st_mode | (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH))


def _compiled(files: dict[str, bytes], archive: bool) -> dict[str, bytes]:
    """Bytecode of the modules, where Python looks for it; good whatever the time of the source is."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "module.py", Path(folder) / "module.pyc"
        for name, content in files.items():
            if name.endswith(".py"):
                source.write_bytes(content)
                py_compile.compile(str(source), str(target), name, True, invalidation_mode=AS_IT_IS)
                package, _, stem = name.removesuffix(".py").rpartition("/")
                kept = f"{stem}.pyc" if archive else f"__pycache__/{stem}.{sys.implementation.cache_tag}.pyc"
                found[f"{package}/{kept}".removeprefix("/")] = target.read_bytes()
    return found


# What the pack computes is compared in a process of its own, in which nothing of this one is.
COMPUTE = """
import sys
sys.path.insert(0, sys.argv[1])
from npmobilenet.packed.model import load
import numpy as np
found = load()
x = np.load(sys.argv[2])
models = [found] if hasattr(found, "run") else [found.detector, found.expressions]
for name, image in x.items():
    model = models[int(name[0])]
    for threads in (1, 2):
        outputs = model.run({model.input_name: image}, threads=threads)
        np.savez(f"{sys.argv[2]}.{name}.{threads}.npz", **outputs)
"""


def _check(made: Pack, networks: Sequence[_Network], written: Path) -> None:
    """Compare what the pack computes here, if it is for this machine, with what the models compute, bit for bit."""
    if best_level(made.levels) is None:
        return
    inputs = {
        f"{at}.{n}": _noise(network, size)
        for at, network in enumerate(networks)
        for n, size in enumerate(network.sizes)
    }
    with tempfile.TemporaryDirectory() as folder:
        x = Path(folder) / "x.npz"
        np.savez(x, **inputs)
        command = [sys.executable, "-I", "-c", COMPUTE, str(written), str(x)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
            raise NpmobilenetError(f"the pack does not run here, and is not written: {printable(reason)}")
        for name, image in inputs.items():
            model = networks[int(name[0])].model
            expected = model.run({model.input_name: image})
            for threads in (1, 2):
                with np.load(f"{x}.{name}.{threads}.npz") as found:
                    if any(not np.array_equal(found[key], y) for key, y in expected.items()):
                        raise NpmobilenetError("the pack computes something else than the model, and is not written")


def _noise(network: _Network, size: Pair) -> np.ndarray:
    image = np.random.default_rng(0).standard_normal((1, network.model.graph.in_channels, *size), np.float32)
    return np.moveaxis(image, 1, 3) if network.model.channels_last else image
