"""A network's layers written down, to be planned where the size of an image is known."""

from __future__ import annotations

import io
import pickle

import numpy as np

from npmobilenet.blocked.program import BlockedProgram
from npmobilenet.kernels.vector.functions import Functions
from npmobilenet.packing.record import Blob, gathered_memory
from npmobilenet.recorded.recording import Stored


class _Pickler(pickle.Pickler):
    """Puts arrays into the file of arrays, those of gathered weights together, and names libraries."""

    def __init__(self, stream: io.BytesIO, program: BlockedProgram, blob: Blob) -> None:
        super().__init__(stream)
        self.libraries: dict[str, None] = {}
        self._blob, self._gathered = blob, gathered_memory(program)
        self._start = blob.place(self._gathered.bytes())

    def persistent_id(self, value: object) -> tuple | str | None:
        if isinstance(value, Functions):
            self.libraries[value.name] = None
            return value.name
        if not isinstance(value, np.ndarray):
            return None
        distance = value.ctypes.data - self._gathered.address
        if distance >= 0 and distance + value.nbytes <= self._gathered.size and value.flags.c_contiguous:
            return tuple(Stored(self._start + distance, value.dtype.str, value.shape))
        return tuple(self._blob.add(value))


def store(program: BlockedProgram, blob: Blob) -> tuple[Stored, dict[str, None]]:
    """Store a program's graph and weights; return where, and the libraries that these refer to."""
    stream = io.BytesIO()
    pickler = _Pickler(stream, program, blob)
    pickler.dump((program.graph, program.weights, program.codes))
    return blob.add(np.frombuffer(stream.getvalue(), np.uint8)), pickler.libraries
