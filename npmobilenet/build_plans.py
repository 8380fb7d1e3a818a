"""Make the plans that the package brings for its networks: ``python -m npmobilenet.build_plans``.

To be run when what makes plans was edited, and after `npmobilenet.build_kernels`. With ``--check`` nothing is written,
but compared with what is there.
"""

from __future__ import annotations

import argparse
import ast
import lzma
import pickle
import sys
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import accumulate, groupby
from math import prod
from pathlib import Path

import numpy as np

from npmobilenet.blocked.program import BlockedProgram
from npmobilenet.build_kernels import imported, reached
from npmobilenet.kernels import fold
from npmobilenet.kernels.blocked.depthwise import Depthwise
from npmobilenet.kernels.blocked.layout import Packed, panels
from npmobilenet.kernels.blocked.linear import Linear
from npmobilenet.kernels.hashing import fingerprint
from npmobilenet.kernels.vector import lookup, shipped
from npmobilenet.kernels.vector.target import LEVELS, host
from npmobilenet.loading import whole
from npmobilenet.model import Model
from npmobilenet.packing.record import THREADS, Blob, Recorder, described, gathered_memory
from npmobilenet.recorded.folding import FLOAT32, Fold, Folding, Panels
from npmobilenet.recorded.recording import Stored
from npmobilenet.recorded.shipped import NAMES, SUFFIX, LevelPlans, ShippedPlans, folder
from npmobilenet.weights import CATALOGUE

MAKING = "npmobilenet.blocked.program"  # by what plans are made
OF_NORM = ("weight", "bias", "running_mean", "running_var")
# What has no part in a plan. Of kernels count those that its machine code is made of.
WITHOUT = {"npmobilenet.idle", "npmobilenet.machine", "npmobilenet.text"}


def build(name: str, levels: Iterable[str] = tuple(LEVELS)) -> ShippedPlans:
    """Make the plans of a network whose weights are shipped."""
    model, entry = whole(name), CATALOGUE[name]
    content = entry.path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    places = _places(model, start)
    stored = np.frombuffer(content, FLOAT32, offset=start)
    made, pickled, modules = {}, {}, _sources(model.architecture)
    for level in levels:
        made[level], pickled[level], writers = _of_level(model, level, places, stored)
        modules |= {module for writer in writers for module in reached(writer)}
    sources = {module: fingerprint(shipped.source(module)) for module in sorted(modules)}
    network = described(model, model.preprocessing.crop, pickled, {}, any_size=True)._replace(classes=())
    return ShippedPlans(
        entry.file, start, len(content), sha256(content[:start]).hexdigest(), sources, network, _shared(made)
    )


def _of_level(
    model: Model, level: str, places: dict[str, int], stored: np.ndarray
) -> tuple[LevelPlans, Stored, set[str]]:
    """What one level computes with, where its recordings are, and what writes its machine code."""
    target = LEVELS[level].target
    programs = tuple(BlockedProgram(model.graph, model._weights, target) for _ in range(2))
    blob, gathered = Blob(), gathered_memory(programs[0])
    blob.place(gathered.bytes())
    recorder, names = Recorder(programs, blob), model.graph.output_names
    recordings = {(names, threads): recorder.record(model.preprocessing.crop, names, threads) for threads in THREADS}
    pickled = blob.add(np.frombuffer(pickle.dumps(recordings), np.uint8))
    weights, *others = blob
    folds = tuple(_folds(programs[0], places, gathered.address))
    into = np.zeros(len(weights) // FLOAT32.itemsize, np.float32)
    Folding(fold.library(host()), stored, folds, into).wait()
    if into[: gathered.size // FLOAT32.itemsize].tobytes() != gathered.bytes():
        raise ValueError(f"{model.source} for {level}: folded and packed to something else than a program has")
    numbers = np.frombuffer(b"".join(others), np.int64)
    writers = {lookup.served[library, target].writer for library in recorder.used}
    return LevelPlans.of(into.size, numbers, folds), pickled, writers


def _folds(program: BlockedProgram, places: dict[str, int], begin: int) -> Iterator[Fold]:
    """How the weights of each layer are folded and packed."""
    for node in program.graph:
        if node.name in program.weights:
            packed, norm = program.weights[node.name], node.attributes.get("norm")
            channels, *window = node.parameters["weight"]
            widths = _widths(packed, channels)
            biased = -1, places.get(f"{node.name}.bias"), -1, -1
            yield Fold(
                places[f"{node.name}.weight"],
                *([places[f"{norm.name}.{name}"] for name in OF_NORM] if norm else biased),
                norm["eps"] if norm else 0.0,
                channels,
                prod(window),
                *((array.ctypes.data - begin) // FLOAT32.itemsize for array in (packed.weights, packed.bias)),
                packed.weights.size // sum(widths),
                tuple(_panels(widths, channels)),
            )


def _widths(packed: Packed, channels: int) -> list[int]:
    """How many channels each panel of a layer has side by side."""
    lanes = packed.target.lanes
    if isinstance(packed, Linear):
        return [packed.bias.size // packed.panels] * packed.panels
    if isinstance(packed, Depthwise):
        return [lanes] * -(-channels // lanes)
    return [blocks * lanes for blocks in panels(packed.target, channels)]


def _panels(widths: Sequence[int], channels: int) -> Iterator[Panels]:
    """Panels of one width that are full, and those that are not, together."""
    ends = accumulate(widths)
    filled = [(width, min(width, channels - end + width)) for width, end in zip(widths, ends, strict=True)]
    for (width, of), same in groupby(filled):
        yield Panels(len(list(same)), width, of)


def _places(model: Model, start: int) -> dict[str, int]:
    """Where the model's parameters begin in the file that they are mapped from, in values."""
    found = {}
    for name, array in model._weights.items():
        owner = array
        while isinstance(owner, np.ndarray):
            owner = owner.base
        first = np.frombuffer(owner, np.uint8).ctypes.data
        found[name] = (array.ctypes.data - first - start) // FLOAT32.itemsize
    return found


def _sources(architecture: str) -> set[str]:
    """The modules that a network's graph and its plans are made by, without kernels."""
    found, new = set(), {MAKING, f"npmobilenet.architectures.{architecture}"}
    while new:
        found |= new
        names = {name for module in new for name in imported(ast.parse(shipped.source(module)).body)}
        new = {name for name in names if _makes_plans(name)} - found
    return found


def _makes_plans(name: str) -> bool:
    others = (*WITHOUT, lookup.OURS)
    return name.startswith("npmobilenet.") and not name.startswith(others) and bool(shipped.source(name))


def _shared(made: dict[str, LevelPlans]) -> dict[str, LevelPlans]:
    """The same, where what levels have in common is there once."""
    known: dict[LevelPlans, LevelPlans] = {}
    return {level: known.setdefault(plans, plans) for level, plans in made.items()}


def plain(plans: ShippedPlans) -> ShippedPlans:
    """The same with nothing compressed, which every version of a library does in its own way."""
    levels = {level: each._replace(content=lzma.decompress(each.content)) for level, each in plans.levels.items()}
    return plans._replace(levels=levels)


def main() -> int:
    """Make the plans, and compare them or put them in place."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with what is there; exit code 1 if it differs")
    options = parser.parse_args()
    changed = []
    for name in NAMES:
        file, made = Path(folder()) / f"{name}{SUFFIX}", build(name)
        if not file.exists() or plain(pickle.loads(file.read_bytes())) != plain(made):
            changed.append(file.name)
            if not options.check:
                file.write_bytes(pickle.dumps(made))
    print("\n".join(changed) or "the same as before")
    return int(options.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
