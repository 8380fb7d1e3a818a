"""How tensors, weights and kernel arguments lie in memory."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from npmobilenet.kernels.geometry import Pads, Pair
from npmobilenet.kernels.simd import Integer, Pointer, Target

ALIGNMENT = 64  # bytes: a cache line
MAPPED_FROM = 1 << 20  # bytes: from here on memory is taken from the system itself
HUGE_FROM = 1 << 22  # bytes: from here on in huge pages, as NumPy does
KERNEL, ITEMS, SHARE, ARGUMENTS = 0, 1, 2, 3  # columns of the walker's table
COUNTERS = 16  # int64 per row of the table: items taken, and, a cache line further, items done
UNLIMITED = (-np.inf, np.inf)
CLAMPS = {"none": UNLIMITED, "relu": (0.0, np.inf), "relu6": (0.0, 6.0)}


class Fields:
    """The names of a kernel's arguments, each a 64-bit integer in its row of the table."""

    def __init__(self, names: str) -> None:
        self.names = names.split()

    def pack(self, **values: int) -> list[int]:
        """Return the row of these arguments (addresses, sizes)."""
        if set(values) != set(self.names):
            raise TypeError(f"arguments {sorted(set(values) ^ set(self.names))} are missing or unknown")
        return [int(values[name]) for name in self.names]

    def read(self, row: Pointer) -> Arguments:
        """Give a kernel access to its row."""
        return Arguments(self, row)


class Arguments:
    """A row of arguments as its kernel sees it: ``a["pixels"]`` an integer, ``a.at("x")`` an address."""

    def __init__(self, fields: Fields, row: Pointer) -> None:
        self._fields, self._row = fields, row

    def __getitem__(self, name: str) -> Integer:
        return self._row.integer(8 * self._fields.names.index(name))

    def at(self, name: str) -> Pointer:
        """The argument as an address."""
        return self[name].pointer()


@dataclass(frozen=True)
class Frame:
    """The image of a tensor's channel block in memory: its size and the zeros around it."""

    size: Pair
    pads: Pads = ((0, 0), (0, 0))

    @property
    def rows(self) -> int:
        """Rows with the frame."""
        return self.size[0] + sum(self.pads[0])

    @property
    def columns(self) -> int:
        """Columns with the frame."""
        return self.size[1] + sum(self.pads[1])

    @property
    def padded(self) -> bool:
        """Whether there are zeros around it."""
        return self.pads != ((0, 0), (0, 0))

    def offsets(self, size: int) -> np.ndarray:
        """The distance in bytes of every pixel from the beginning of the plane."""
        rows = np.arange(self.size[0])[:, None] + self.pads[0][0]
        columns = np.arange(self.size[1])[None, :] + self.pads[1][0]
        return ((rows * self.columns + columns) * size).astype(np.int64).ravel()


def _is_neon(target: Target) -> bool:
    return target.lanes == 4 and target.registers == 32


@dataclass(frozen=True)
class Tile:
    """Pixels x channel blocks whose sums a pointwise kernel holds in registers."""

    pixels: int
    blocks: int

    @classmethod
    def of(cls, target: Target, blocks: int) -> Tile:
        """The largest that leaves registers for one vector of weights per block and one of the input."""
        if _is_neon(target):  # multiplies by a lane: four input channels of each pixel take a register
            return cls((target.registers - 5) // (blocks + 1), blocks)
        widest = 28 if target.registers >= 32 else 12
        return cls(max(1, widest // blocks), blocks)


def tiles(target: Target) -> tuple[Tile, Tile]:
    """The wide tile, and the one of a single block for what is left of the channels."""
    return Tile.of(target, 4 if _is_neon(target) else 2), Tile.of(target, 1)


def panels(target: Target, channels: int, widest: int = 0) -> list[int]:
    """Split the blocks of ``channels`` into panels: their widths in blocks, those of the tiles unless told."""
    wide = widest or tiles(target)[0].blocks
    blocks = -(-channels // target.lanes)
    return [wide] * (blocks // wide) + [1] * (blocks % wide)


def k_unit(target: Target) -> int:
    """Input channels that a pointwise kernel takes in one trip."""
    return min(8, target.lanes)


def aligned(values: int, dtype: type = np.float32) -> np.ndarray:
    """Return zeros whose address is a multiple of `ALIGNMENT`; much memory goes back to the system when it is freed."""
    item = np.dtype(dtype).itemsize
    size = values * item
    raw = _mapped(size) if size >= MAPPED_FROM else np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + values * item].view(dtype)


def _mapped(size: int) -> np.ndarray:
    """Return so many bytes in pages of their own: freed, they leave the process; malloc would often keep them."""
    # Private, so that a forked child writes to a copy; Windows has neither forks nor these flags.
    flags = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    try:
        pages = mmap.mmap(-1, size + ALIGNMENT, **flags)
    except (OSError, OverflowError):
        raise MemoryError(f"the system has no {size / 2**20:,.0f} MiB of memory left for a network's tensors") from None
    if size >= HUGE_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)


def pack_pointwise(target: Target, weight: np.ndarray, widest: int = 0) -> np.ndarray:
    """Pack (C_in, C_out) as ``[panel][C_in, filled up to `k_unit`][blocks of the panel][L]``."""
    c_in, c_out = weight.shape
    unit, lanes = k_unit(target), target.lanes
    rows = -(-c_in // unit) * unit
    full = np.zeros((rows, -(-c_out // lanes) * lanes), np.float32)
    full[:c_in, :c_out] = weight
    parts, start = [], 0
    for width in panels(target, c_out, widest):
        stop = start + width * lanes
        parts.append(full[:, start:stop].ravel())
        start = stop
    return np.concatenate(parts)


@dataclass(frozen=True)
class PanelInputs:
    """The input channels that one panel of a grouped pointwise convolution reads."""

    first_block: int
    units: int
    """How many times `k_unit` of them."""
    weights_at: int
    """Where its weights begin, in values."""

    def row(self) -> tuple[int, int, int]:
        """The numbers that the kernel reads, the last in bytes."""
        return self.first_block, self.units, 4 * self.weights_at


def pack_grouped(
    target: Target, weights: Sequence[np.ndarray], widest: int = 0
) -> tuple[np.ndarray, list[PanelInputs]]:
    """Pack the (C_in / G, C_out / G) of each group, for each panel the input channels that it reads.

    A panel whose channels lie in several groups reads the inputs of all of them, with zeros for weights between
    a channel and the other groups' inputs.
    """
    unit, lanes = k_unit(target), target.lanes
    c_in, c_out = weights[0].shape
    block = -(-c_in * len(weights) // lanes) * lanes
    full = np.zeros((block, -(-c_out * len(weights) // lanes) * lanes), np.float32)
    for g, weight in enumerate(weights):
        full[g * c_in : (g + 1) * c_in, g * c_out : (g + 1) * c_out] = weight
    parts, inputs, start, size = [], [], 0, 0
    for width in panels(target, c_out * len(weights), widest):
        stop = start + width * lanes
        groups = start // c_out, (min(stop, c_out * len(weights)) - 1) // c_out
        first = groups[0] * c_in // lanes
        units = -(-((groups[1] + 1) * c_in - first * lanes) // unit)
        parts.append(full[first * lanes : first * lanes + units * unit, start:stop].ravel())
        inputs.append(PanelInputs(first, units, size))
        size += parts[-1].size
        start = stop
    return np.concatenate(parts), inputs


def pack_channels(target: Target, array: np.ndarray) -> np.ndarray:
    """Pack (..., C) as ``[C / L][...][L]``, filled up with zeros."""
    lanes = target.lanes
    channels = array.shape[-1]
    full = np.zeros((*array.shape[:-1], -(-channels // lanes) * lanes), np.float32)
    full[..., :channels] = array
    blocked = full.reshape(*array.shape[:-1], -1, lanes)
    return np.ascontiguousarray(np.moveaxis(blocked, -2, 0)).ravel()


def pack_stem(target: Target, weight: np.ndarray, widest: int = 0) -> np.ndarray:
    """Pack (K_h, K_w, C_in, C_out) as ``[panel][C_in][K_h][K_w][blocks of the panel][L]``."""
    k_h, k_w, c_in, c_out = weight.shape
    lanes = target.lanes
    full = np.zeros((c_in, k_h, k_w, -(-c_out // lanes) * lanes), np.float32)
    full[..., :c_out] = weight.transpose(2, 0, 1, 3)
    parts, start = [], 0
    for width in panels(target, c_out, widest):
        stop = start + width * lanes
        parts.append(full[..., start:stop].ravel())
        start = stop
    return np.concatenate(parts)


def pack_tensor(target: Target, x: np.ndarray, frame: tuple = ((0, 0), (0, 0))) -> np.ndarray:
    """Pack one image (H, W, C) as ``[C / L][H][W][L]`` inside a frame of zeros."""
    padded = np.pad(x, (*frame, (0, 0)))
    out = aligned(padded.shape[0] * padded.shape[1] * -(-x.shape[2] // target.lanes) * target.lanes)
    out[:] = pack_channels(target, padded)
    return out


def unpack_tensor(target: Target, blocked: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Return (H, W, C) of a tensor without frame."""
    height, width, channels = shape
    view = blocked.reshape(-1, height, width, target.lanes)
    return np.moveaxis(view, 0, 2).reshape(height, width, -1)[:, :, :channels]
