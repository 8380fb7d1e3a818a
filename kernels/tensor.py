"""A tensor in memory: the only place that knows strides, frames and bytes.

One layout serves all: the image of each channel block stands inside a frame of zeros, and a pixel of it is as many
values as the block has channels. Blocks of one channel make a planar image, an image of one pixel a vector.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from npmobilenet.kernels.geometry import Pads

FLOAT32 = np.dtype(np.float32)
NO_FRAME: Pads = ((0, 0), (0, 0))


@dataclass(frozen=True)
class Tensor:
    """``[blocks][rows][columns][lanes]``, at an address or anywhere.

    Attributes
    ----------
    channels, height, width : int
        Of the image, less what fills up its last block and its frame.
    frame : ((top, bottom), (left, right))
        Pixels of zeros around the image of each block.
    dtype : dtype
    lanes : int
        Channels of a block.
    room : int
        Memory is for a multiple of so many blocks: a kernel that writes several at once writes whole ones.
    address : int
        0 where the tensor has none yet.
    """

    channels: int
    height: int = 1
    width: int = 1
    frame: Pads = NO_FRAME
    dtype: np.dtype = FLOAT32
    lanes: int = 1
    room: int = 1
    address: int = 0

    def at(self, address: int) -> Tensor:
        """The same tensor at an address."""
        return replace(self, address=address)

    def inside(self, frame: Pads) -> Tensor:
        """The same image inside a frame."""
        return replace(self, frame=frame)

    @property
    def pixels(self) -> int:
        """Of the image."""
        return self.height * self.width

    @property
    def blocks(self) -> int:
        """That hold the channels."""
        return -(-self.channels // self.lanes)

    @property
    def rows(self) -> int:
        """Rows with the frame."""
        return self.height + sum(self.frame[0])

    @property
    def columns(self) -> int:
        """Columns with the frame."""
        return self.width + sum(self.frame[1])

    @property
    def padded(self) -> bool:
        """Whether there are zeros around the image."""
        return self.frame != NO_FRAME

    @property
    def pixel_bytes(self) -> int:
        """From one pixel of a block to the next."""
        return self.lanes * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        """From one row of a block to the next."""
        return self.columns * self.pixel_bytes

    @property
    def plane_bytes(self) -> int:
        """From one block to the next."""
        return self.rows * self.row_bytes

    @property
    def bytes(self) -> int:
        """Of the whole."""
        return -(-self.blocks // self.room) * self.room * self.plane_bytes

    @property
    def values(self) -> int:
        """Numbers that the memory holds."""
        return self.bytes // self.dtype.itemsize

    @property
    def inner(self) -> Tensor:
        """As a kernel sees it that goes on inside the frame: its address is that of the first pixel there."""
        return self.at(self.address + self.frame[0][0] * self.row_bytes + self.frame[1][0] * self.pixel_bytes)

    def offsets(self) -> np.ndarray:
        """The distance in bytes of every pixel of the image from the beginning of its plane."""
        rows = (np.arange(self.height)[:, None] + self.frame[0][0]) * self.row_bytes
        columns = (np.arange(self.width)[None, :] + self.frame[1][0]) * self.pixel_bytes
        return (rows + columns).astype(np.int64).ravel()

    def scattered(self) -> np.ndarray | None:
        """The same, or None where pixels follow one another."""
        return self.offsets() if self.padded else None

    def view(self, memory: np.ndarray) -> np.ndarray:
        """Return the image, ``(blocks, H, W, lanes)``, of memory that begins where the tensor does."""
        whole = self.blocks * self.rows * self.columns * self.lanes
        planes = memory[:whole].reshape(self.blocks, self.rows, self.columns, self.lanes)
        (top, _), (left, _) = self.frame
        return planes[:, top : top + self.height, left : left + self.width]

    def write(self, memory: np.ndarray, image: np.ndarray) -> None:
        """Write an image ``(H, W, C)`` there; what fills up the last block becomes zeros."""
        full = np.zeros((self.height, self.width, self.blocks * self.lanes), self.dtype)
        full[..., : self.channels] = image
        self.view(memory)[...] = np.moveaxis(full.reshape(self.height, self.width, self.blocks, self.lanes), 2, 0)

    def read(self, memory: np.ndarray) -> np.ndarray:
        """Return the image, ``(H, W, C)``, that stands there."""
        pixels = np.moveaxis(self.view(memory), 0, 2).reshape(self.height, self.width, -1)
        return pixels[..., : self.channels]
