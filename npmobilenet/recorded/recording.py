"""A plan as it is kept in a file: its kernel calls as integers, of which it is known what is an address, and of what.

In a pack everything is in one file of arrays, `ARRAYS`: weights as kernels read them, what else they find by an
address, and the numbers of the calls. What is not an array is in `DESCRIPTION`. A pack is a program with all that
belongs to it, and trusted as such: its description is unpickled.
"""

from __future__ import annotations

import mmap
from pickle import loads
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from npmobilenet.image import Preprocessing
    from npmobilenet.kernels.geometry import Pair
    from npmobilenet.tasks.boxes import Detector

DESCRIPTION, ARRAYS = "network.pickle", "network.bin"

# Whose address is to be added to a number: of nothing; or it is a function, by its number.
NUMBER, ARENA, STORED, TABLES, FUNCTION = range(5)


class Stored(NamedTuple):
    """An array in the file: at which byte, of which type and shape."""

    at: int
    dtype: str
    shape: tuple[int, ...]


class Recording(NamedTuple):
    """A plan for one image size and number of threads.

    Attributes
    ----------
    functions : tuple of (str, str)
        The kernels: library and name.
    calls : Stored
        int64 (calls, 5): which function, items, shares, bytes of scratch, and how many arguments.
    arguments, tables : Stored
        int64: of all calls, one after the other; and of tables to which arguments lead.
    of_arguments, of_tables : Stored
        uint8, for each: what it is, one of the constants above.
    arena_values : int
        float32 values of the memory for all tensors.
    shapes : tuple of tuple of int
        Of every output of one image.
    """

    functions: tuple[tuple[str, str], ...]
    calls: Stored
    arguments: Stored
    tables: Stored
    of_arguments: Stored
    of_tables: Stored
    arena_values: int
    shapes: tuple[tuple[int, ...], ...]


class RecordedNetwork(NamedTuple):
    """What is known of a network besides its arrays.

    Attributes
    ----------
    architecture, width, dtype, source, classes, multi_label, preprocessing
        As of a :class:`~npmobilenet.model.Model`.
    detector : Detector or None
        How its outputs are read as boxes.
    has_logits, segments, quantised : bool
        Whether it classifies, whether it has scores for every pixel, whether it computes with 8 bits.
    channels, size : int, (height, width)
        Of its input.
    main_output, output_names, input_name : str, tuple of str, str
    channels_last : bool
        As of a :class:`~npmobilenet.model.Model`.
    levels : mapping of str to Stored
        By level of CPUs: its pickled `Recording`s, by outputs and numbers of threads.
    layers : mapping of str to Stored
        Of a network whose images differ in size, by level: what plans are made of (`recorded.layers`).
    any_size : bool
        Whether it computes images of other sizes than the one that plans are recorded for.
    """

    architecture: str
    width: float
    dtype: str
    source: str
    classes: tuple[str, ...]
    multi_label: bool
    preprocessing: Preprocessing
    detector: Detector | None
    has_logits: bool
    segments: bool
    quantised: bool
    channels: int
    size: Pair
    main_output: str
    output_names: tuple[str, ...]
    input_name: str
    channels_last: bool
    levels: dict[str, Stored]
    layers: dict[str, Stored]
    any_size: bool


class Description(NamedTuple):
    """All that is known of a pack.

    Attributes
    ----------
    task : {"classify", "detect", "faces", "segment"}
        The command whose results it prints.
    offset : int
        Where its arrays begin in the file that they are in: an archive, or, at 0, one of their own.
    size : int
        Of all arrays, in bytes.
    levels : tuple of str
        Of CPUs, whose machine code it has.
    networks : tuple of RecordedNetwork
        One, or a detector of faces and a classifier of them.
    """

    task: str
    offset: int
    size: int
    levels: tuple[str, ...]
    networks: tuple[RecordedNetwork, ...]


class Arrays:
    """All arrays in memory, one after the other.

    Parameters
    ----------
    content : uint8 array

    Attributes
    ----------
    address : int
        Where its first byte is in memory.
    """

    def __init__(self, content: np.ndarray) -> None:
        self._bytes = content
        self.address = content.ctypes.data

    def __getitem__(self, stored: Stored) -> np.ndarray:
        dtype = np.dtype(stored.dtype)
        count = int(np.prod(stored.shape))
        return np.frombuffer(self._bytes, dtype, count, stored.at).reshape(stored.shape)

    def unpickled(self, stored: Stored) -> Any:
        """Return the object whose pickle is stored."""
        return loads(self[stored])


class MappedArrays(Arrays):
    """The file of arrays in memory, of which the system reads what is needed.

    Attributes
    ----------
    file, offset, size : str, int, int
        Where it is, from which byte on, and how many.

    Raises
    ------
    OSError, ValueError
        If it cannot be mapped, or is shorter.
    """

    def __init__(self, file: str, offset: int, size: int) -> None:
        self.file, self.offset, self.size = file, offset, size
        unit = mmap.ALLOCATIONGRANULARITY
        with open(file, "rb") as opened:  # noqa: PTH123 - before pathlib
            skipped = offset % unit
            pages = mmap.mmap(opened.fileno(), size + skipped, access=mmap.ACCESS_READ, offset=offset - skipped)
        super().__init__(np.frombuffer(pages, np.uint8)[skipped:])
