"""How weights and kernel arguments lie in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from math import prod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from npmobilenet.kernels.blocked.tiles import tiles
from npmobilenet.kernels.call import SHARES, Call
from npmobilenet.kernels.geometry import Pads
from npmobilenet.kernels.memory import ALIGNMENT, aligned
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

if TYPE_CHECKING:
    from npmobilenet.kernels.vector.simd import Integer, Pointer

Value = int | np.ndarray | Tensor | None  # of an argument


class Fields:
    """The names of a kernel's arguments, each a 64-bit integer in its row of the table."""

    def __init__(self, names: str) -> None:
        self.names = names.split()

    def pack(self, **values: Value) -> list[int]:
        """Return the row of these arguments.

        An array is its address, None is 0; a tensor is its address and what else of it the kernel asks for: beside
        ``x`` there may be ``x_row`` and ``x_plane``, the distances in bytes.
        """
        for name in [name for name, value in values.items() if value is None or isinstance(value, Tensor)]:
            x = values[name] or Tensor(0, 0, 0)
            about = {name: x.address, f"{name}_row": x.row_bytes, f"{name}_plane": x.plane_bytes}
            values |= {name: value for name, value in about.items() if name in self.names}
        if set(values) != set(self.names):
            raise TypeError(f"arguments {sorted(set(values) ^ set(self.names))} are missing or unknown")
        row = (values[name] for name in self.names)
        return [value.ctypes.data if isinstance(value, np.ndarray) else int(value) for value in row]

    def call(
        self,
        kernel: int,
        items: int,
        /,
        shares: int = SHARES,
        scratch_bytes: int = 0,
        keep: object = None,
        **values: Value,
    ) -> Call:
        """Return a call of the kernel at an address with these arguments, which keeps the arrays among them."""
        return Call(kernel, items, self.pack(**values), shares, scratch_bytes, (values, keep))

    @property
    def bytes(self) -> int:
        """Of a row."""
        return 8 * len(self.names)

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


def panels(target: Target, channels: int, widest: int = 0) -> list[int]:
    """Split the blocks of ``channels`` into panels: their widths in blocks, those of the tiles unless told."""
    wide = widest or tiles(target).wide.blocks
    blocks = -(-channels // target.lanes)
    return [wide] * (blocks // wide) + [1] * (blocks % wide)


def wide_panels(target: Target, channels: int, widest: int = 0) -> int:
    """How many of the panels are of the wide tile."""
    return panels(target, channels, widest).count(widest or tiles(target).wide.blocks)


def halved_panel(target: Target, channels: int, widest: int = 0) -> int:
    """The panel whose last block holds at most half a vector of channels: the last one, or -1."""
    return len(panels(target, channels, widest)) - 1 if 0 < channels % target.lanes <= target.lanes // 2 else -1


def k_unit(target: Target) -> int:
    """Input channels that a pointwise kernel takes in one trip."""
    return min(8, target.lanes)


def pack_panels(target: Target, weight: np.ndarray, widest: int = 0) -> np.ndarray:
    """Pack (..., C_out) as ``[panel][...][blocks of the panel][L]``, filled up with zeros."""
    *axes, c_out = weight.shape
    packed, start = np.zeros(prod(axes) * -(-c_out // target.lanes) * target.lanes, packed_type(weight)), 0
    for blocks in panels(target, c_out, widest):
        stop = start + blocks * target.lanes
        channels, panel = weight[..., start:stop], packed[prod(axes) * start : prod(axes) * stop]
        panel.reshape(*axes, -1)[..., : channels.shape[-1]] = channels
        start = stop
    return packed


def pack_channels(target: Target, array: np.ndarray) -> np.ndarray:
    """Pack (..., C) as ``[C / L][...][L]``, filled up with zeros."""
    lanes = target.lanes
    channels = array.shape[-1]
    full = np.zeros((*array.shape[:-1], -(-channels // lanes) * lanes), packed_type(array))
    full[..., :channels] = array
    blocked = full.reshape(*array.shape[:-1], -1, lanes)
    return np.ascontiguousarray(np.moveaxis(blocked, -2, 0)).ravel()


def tail_mask(target: Target, channels: int) -> np.ndarray:
    """Return masks (2, L) for any block and for the last one: all bits of its channels, none of the lanes beyond."""
    used = channels - (channels - 1) // target.lanes * target.lanes
    return -(np.arange(target.lanes) < [[target.lanes], [used]]).astype(np.int32)


def packed_type(array: np.ndarray) -> np.dtype:
    """Integers stay what they are, anything else becomes float32."""
    return array.dtype if array.dtype.kind in "iu" else np.dtype(np.float32)


class Packed:
    """The weights of an operation as its kernel reads them: a frozen dataclass of arrays, and what goes with them."""

    ARGUMENTS: ClassVar[tuple[str, ...]] = ("weights", "bias")

    def arguments(self, prefix: str = "") -> dict[str, Value]:
        """What kernels are told of them."""
        return {f"{prefix}{name}": getattr(self, name) for name in self.ARGUMENTS}

    def fitted(self, pads: Sequence[Pads]) -> Packed:
        """What they are for an image with such padding, of each part of the channels."""
        return self

    def moved(self, place: Callable[[np.ndarray], np.ndarray]) -> Packed:
        """The same with every array of weights where ``place`` puts it."""
        new = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Packed):
                new[field.name] = value.moved(place)
            elif isinstance(value, tuple) and any(isinstance(each, Packed) for each in value):
                new[field.name] = tuple(each.moved(place) for each in value)
            elif isinstance(value, np.ndarray) and value.dtype in (np.float32, np.int32):
                new[field.name] = place(value)
        return replace(self, **new)


class Stretch(NamedTuple):
    """Of memory."""

    address: int = 0
    bytes: int = 0

    def last(self, most: int) -> Stretch:
        """The end of it, at most so many bytes."""
        part = min(most, self.bytes)
        return Stretch(self.address + self.bytes - part, part)

    def before(self, other: Stretch) -> Stretch:
        """What lies before the other."""
        return Stretch(self.address, other.address - self.address)

    def shared(self, panels: int) -> dict[str, Value]:
        """The arguments of a call whose panels each ask for their part of it."""
        return {"later": self.address, "later_part": -(-self.bytes // (panels * ALIGNMENT)) * ALIGNMENT}


def stretch(packed: Packed) -> Stretch:
    """Where gathered weights stand."""
    arrays: list[np.ndarray] = []
    packed.moved(lambda array: arrays.append(array) or array)
    begin = min(array.ctypes.data for array in arrays)
    return Stretch(begin, max(array.ctypes.data + array.nbytes for array in arrays) - begin)


def gathered(packed: Iterable[Packed]) -> list[Packed]:
    """Move weights into one piece of memory, in this order, each at the beginning of a cache line: they stream."""
    packed, starts, end = list(packed), [], 0

    def measure(array: np.ndarray) -> np.ndarray:
        nonlocal end
        starts.append(end)
        end += -(-array.nbytes // ALIGNMENT) * ALIGNMENT // array.itemsize
        return array

    for each in packed:
        each.moved(measure)
    memory, places = aligned(end), iter(starts)

    def place(array: np.ndarray) -> np.ndarray:
        start = next(places)
        part = memory[start : start + array.size].view(array.dtype)
        part[...] = array
        return part

    return [each.moved(place) for each in packed]
