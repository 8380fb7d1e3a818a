"""The blocked kernels as single operations: twins of :mod:`npmobilenet.kernels.reference` on NHWC arrays.

Each is prepared, run and unpacked (:mod:`npmobilenet.kernels.prepared`): operands are packed, a table with the calls
for each image is run, the result is brought back to NHWC. A network packs only once: its plan makes the same calls on
tensors that stay blocked. What is said in :mod:`npmobilenet.kernels.plain` about arguments, ``out``, threads and NaN
holds here too; activations are those that `activation.check` knows. A ``tile``, or a ``tiling``,
takes the place of the fastest: so the lower rungs of :mod:`npmobilenet.kernels.ladder` are these very kernels, less
what makes them fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import prod

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.call import Call, Table
from npmobilenet.kernels.checks import Shape
from npmobilenet.kernels.geometry import Pads
from npmobilenet.kernels.memory import aligned
from npmobilenet.kernels.tensor import FLOAT32, NO_FRAME, Tensor
from npmobilenet.kernels.vector.target import host


class Images:
    """A prepared operation: calls for each image of a batch, on tensors with memory of their own.

    Parameters
    ----------
    shape : tuple of int
        Of the result.
    threads : int
        That run the calls together: the calling one, and helpers that wait for more as those of a model do.
    dtype : dtype
        Of the result.

    Attributes
    ----------
    outputs : list of Tensor
        The results of the images.
    """

    def __init__(self, shape: Shape, threads: int, dtype: np.dtype = FLOAT32) -> None:
        self.target = host()
        self._shape, self._threads, self._dtype = shape, threads, dtype
        self._calls: list[Call] = []
        self._memory: dict[int, np.ndarray] = {}
        self.outputs: list[Tensor] = []

    def tensor(self, channels: int, height: int = 1, width: int = 1, frame: Pads = NO_FRAME, **about: int) -> Tensor:
        """Return a tensor of zeros; blocked, unless told otherwise (as for `Tensor`)."""
        return self.take(Tensor(channels, height, width, frame, **{"lanes": self.target.lanes, **about}))

    def take(self, tensor: Tensor) -> Tensor:
        """Give a tensor memory."""
        memory = aligned(tensor.values, tensor.dtype)
        self._memory[memory.ctypes.data] = memory
        return tensor.at(memory.ctypes.data)

    def inputs(self, x: np.ndarray, frame: Pads = NO_FRAME, **about: int) -> list[Tensor]:
        """Return a tensor for each image of a batch, (N, ..., C), of float32 or of integers."""
        x = checks.float32(x) if x.dtype.kind == "f" else x
        tensors, about = [], {"dtype": x.dtype, **about}
        for image in x.reshape(_as_images(x.shape)):
            tensors.append(self.tensor(image.shape[2], *image.shape[:2], frame, **about))
            tensors[-1].write(self._memory[tensors[-1].address], image)
        return tensors

    def write(self, parts: Sequence[Tensor], image: np.ndarray) -> None:
        """Write an image, (H, W, C), into tensors that follow one another in memory, some of its channels in each."""
        memory, begin = self._memory[parts[0].address], 0
        for part in parts:
            place = (part.address - parts[0].address) // part.dtype.itemsize
            part.write(memory[place:], image[..., begin : begin + part.channels])
            begin += part.channels

    def output(self, **about: int) -> Tensor:
        """Return a tensor for the result of the next image."""
        _, *size, channels = _as_images(self._shape)
        self.outputs.append(self.tensor(channels, *size, **{"dtype": self._dtype, **about}))
        return self.outputs[-1]

    def add(self, *calls: Call) -> None:
        """Add calls, to be run after those that are there."""
        self._calls += calls

    @cached_property
    def table(self) -> Table:
        """The calls."""
        return Table(self._calls, self._threads, keep=self._memory)

    def run(self) -> None:
        """Compute all images."""
        self.table.run()

    def result(self) -> np.ndarray:
        """Return the result of the last run."""
        result = np.empty(_as_images(self._shape), self._dtype)
        for tensor, image in zip(self.outputs, result, strict=True):
            image[...] = self.read(tensor)
        return result.reshape(self._shape)

    def read(self, tensor: Tensor) -> np.ndarray:
        """Return the image, ``(H, W, C)``, that stands in a tensor."""
        return tensor.read(self._memory[tensor.address])


def _as_images(shape: Shape) -> Shape:
    """(N, H, W, C) of a batch (N, ..., C); a single axis is a batch of one."""
    n, *pixels, channels = (*[1] * (2 - len(shape)), *shape)
    return n, *(pixels if len(pixels) == 2 else (1, prod(pixels))), channels
