"""Plans that come with the package, for networks whose weights do: found, and compared with what they were made of.

`npmobilenet.build_plans` makes them. A network's file says of which sources they were made, and of which file of
weights; what was edited since does not serve.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
from collections.abc import Sequence
from pickle import dumps, loads
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from npmobilenet.errors import NpmobilenetError
from npmobilenet.kernels.fold import NAME
from npmobilenet.kernels.hashing import sha256
from npmobilenet.kernels.memory import aligned
from npmobilenet.kernels.vector import shipped
from npmobilenet.kernels.vector.target import host
from npmobilenet.machine import numba_is_on
from npmobilenet.recorded.folding import FLOAT32, Fold, Folding
from npmobilenet.recorded.libraries import library
from npmobilenet.recorded.recording import Arrays, RecordedNetwork

if TYPE_CHECKING:
    from npmobilenet.kernels.vector.functions import Functions

NAMES = ("mobilenet_v2",)
"""The weights whose plans come with the package: no other file is opened, for plans are programs, and unpickled."""
SUFFIX = ".plans"
POPULATE = getattr(mmap, "MAP_POPULATE", 0)  # all of it is needed at once


class LevelPlans(NamedTuple):
    """What one level of CPUs computes with.

    Attributes
    ----------
    values : int
        Of all weights, which come first of the arrays.
    numbers : int
        int64, of the arrays that follow.
    content : bytes
        These, each number as the difference from the one before; then the pickled `Fold`s of the weights. Compressed.
    """

    values: int
    numbers: int
    content: bytes

    @classmethod
    def of(cls, values: int, others: np.ndarray, folds: Sequence[Fold]) -> LevelPlans:
        """Compress such arrays and such a way to fold weights."""
        import lzma  # of which the smallest Pythons are without

        content = np.diff(others, prepend=0).tobytes() + dumps(folds)
        return cls(values, others.size, lzma.compress(content, preset=9))

    def arrays(self, stored: np.ndarray, functions: Functions) -> tuple[Arrays, Folding]:
        """Return weights and what follows them; the former are being folded and packed, of all values of their file."""
        import lzma

        content = lzma.decompress(self.content)
        steps = np.frombuffer(content, np.int64, self.numbers)
        memory = aligned(FLOAT32.itemsize * self.values + steps.nbytes, np.uint8)
        weights, others = memory[: -steps.nbytes].view(FLOAT32), memory[-steps.nbytes :].view(np.int64)
        folding = Folding(functions, stored, loads(content[steps.nbytes :]), weights)
        np.cumsum(steps, out=others)
        return Arrays(memory), folding


class ShippedPlans(NamedTuple):
    """The plans of a network.

    Attributes
    ----------
    weights : str
        The file beside this one.
    start, size : int
        Where its values begin, and how long it is, in bytes.
    header : str
        The hash of what stands before.
    sources : dict of str to str
        The modules that graph, plans and machine code are made by, with hashes.
    network : RecordedNetwork
        Without the names of classes, which that file has.
    levels : dict of str to LevelPlans
    """

    weights: str
    start: int
    size: int
    header: str
    sources: dict[str, str]
    network: RecordedNetwork
    levels: dict[str, LevelPlans]

    def stored(self) -> tuple[np.ndarray, tuple[str, ...]] | None:
        """Return the values of the file of weights and the names of classes, if it is the one that it was."""
        with open(os.path.join(folder(), self.weights), "rb") as file:  # noqa: PTH118, PTH123 - before pathlib
            if os.fstat(file.fileno()).st_size != self.size:
                return None
            content = mmap.mmap(file.fileno(), self.size, flags=mmap.MAP_SHARED | POPULATE, prot=mmap.PROT_READ)
        header = content[: self.start]
        if sha256(header).hexdigest() != self.header:
            return None
        about = json.loads(json.loads(header[8:])["__metadata__"]["npmobilenet"])
        return np.frombuffer(content, FLOAT32, offset=self.start), tuple(about["classes"])


def folder() -> str:
    """Where weights and plans are."""
    return os.path.join(next(iter(sys.modules["npmobilenet"].__path__)), "weights")  # noqa: PTH118 - before pathlib


class Found(NamedTuple):
    """A network with its arrays, whose weights are being folded, and the level of this machine's CPU."""

    network: RecordedNetwork
    arrays: Arrays
    level: str
    folding: Folding


def find(name: str) -> Found | None:
    """Return a network whose plans are shipped; None where nothing serves."""
    if name not in NAMES or not numba_is_on():
        return None
    level = host().level
    try:
        with open(os.path.join(folder(), name + SUFFIX), "rb") as file:  # noqa: PTH118, PTH123 - before pathlib
            plans: ShippedPlans = loads(file.read())
        if level not in plans.levels:
            return None
        found = plans.stored()
        if found is None:
            return None
        stored, classes = found
        arrays, folding = plans.levels[level].arrays(stored, library(NAME, host()))
        if all(shipped.is_source(*each) for each in plans.sources.items()):  # meanwhile
            return Found(plans.network._replace(classes=classes), arrays, level, folding)
        folding.wait()
        return None
    # The package is in an archive; this Python reads nothing that is compressed so; there is no machine code.
    except (OSError, ImportError, NpmobilenetError):
        return None
