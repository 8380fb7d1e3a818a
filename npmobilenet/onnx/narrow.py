"""Types that NumPy does not have: numbers of 8 and 4 bits with a fraction, integers of 4 and 2 bits.

They are held as the float32, int8 or uint8 numbers that they stand for; rounded to, where a node makes them.

Source: https://onnx.ai/onnx/technical/float8.html, float4.html, int4.html
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class NarrowFloat:
    """A sign, an exponent and a mantissa.

    Attributes
    ----------
    exponent, mantissa : int
        Bits of each.
    bias : int
    special : {"ieee", "all ones", "minus zero", "none"}
        Which codes are no numbers: those of the largest exponent, infinity among them; that of ones alone; that of
        minus zero; none.
    """

    exponent: int
    mantissa: int
    bias: int
    special: str

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    @cached_property
    def magnitudes(self) -> np.ndarray:
        """The finite values without a sign, in the order of their codes, which is that of their sizes."""
        codes = np.arange(1 << (self.exponent + self.mantissa))
        exponent, fraction = codes >> self.mantissa, (codes & ((1 << self.mantissa) - 1)) / (1 << self.mantissa)
        values = np.where(
            exponent == 0, np.ldexp(fraction, 1 - self.bias), np.ldexp(1 + fraction, exponent - self.bias)
        )
        none = {"ieee": 1 << self.mantissa, "all ones": 1}.get(self.special, 0)
        return values[: len(values) - none]

    def decoded(self, codes: np.ndarray) -> np.ndarray:
        """Return what codes stand for."""
        half = 1 << (self.bits - 1)
        positive = np.full(half, np.nan)
        positive[: len(self.magnitudes)] = self.magnitudes
        if self.special == "ieee":
            positive[len(self.magnitudes)] = np.inf
        values = np.concatenate([positive, -positive])
        if self.special == "minus zero":
            values[half] = np.nan
        return values[codes].astype(np.float32)

    def rounded(self, x: np.ndarray, saturate: bool = True) -> np.ndarray:
        """Return the nearest values, of two as near the one with an even code; beyond the largest that one, or none."""
        x = np.asarray(x, np.float64)
        size, known = np.abs(x), self.magnitudes
        step = known[-1] - known[-2]
        middles = (known + np.append(known[1:], known[-1] + step)) / 2
        code = np.searchsorted(middles, size)
        at_middle = size == middles[np.minimum(code, len(middles) - 1)]
        code = code + (at_middle & (code % 2 == 1))
        beyond = code >= len(known)
        found = known[np.minimum(code, len(known) - 1)]
        if not saturate and self.special != "none":
            found = np.where(beyond, np.inf if self.special == "ieee" else np.nan, found)
        found = np.where(np.isnan(x), np.nan if self.special != "none" else 0.0, np.copysign(found, x))
        found = np.where((found == 0) & (self.special == "minus zero"), 0.0, found)
        return found.astype(np.float32)


@dataclass(frozen=True)
class PowerOfTwo:
    """Eight bits of an exponent, and nothing else; the last code is no number."""

    bits = 8

    def decoded(self, codes: np.ndarray) -> np.ndarray:
        """Return what codes stand for."""
        return np.where(codes == 255, np.nan, np.ldexp(1.0, codes.astype(np.int64) - 127)).astype(np.float32)

    def rounded(self, x: np.ndarray, saturate: bool = True, mode: str = "up") -> np.ndarray:
        """Return the power of two above, below, or nearest."""
        exponent = np.log2(np.abs(np.asarray(x, np.float64)))
        whole = {"up": np.ceil, "down": np.floor, "nearest": _nearest_exponent}[mode](exponent)
        if not saturate:
            whole = np.where((whole > 127) | (whole < -127), np.nan, whole)
        return np.exp2(np.clip(whole, -127, 127)).astype(np.float32)


def _nearest_exponent(exponent: np.ndarray) -> np.ndarray:
    """Of the nearer power, the larger one of two as near."""
    below = np.floor(exponent)
    return below + (np.exp2(exponent - below) >= 1.5)


@dataclass(frozen=True)
class NarrowInteger:
    """An integer of so many bits."""

    bits: int
    signed: bool

    @property
    def held_in(self) -> str:
        """The type of NumPy that holds it."""
        return "int8" if self.signed else "uint8"

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the largest."""
        return (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1) if self.signed else (0, (1 << self.bits) - 1)

    def decoded(self, codes: np.ndarray) -> np.ndarray:
        """Return what codes stand for."""
        values = codes.astype(np.int16)
        if self.signed:
            values = np.where(values > self.limits[1], values - (1 << self.bits), values)
        return values.astype(self.held_in)

    def rounded(self, x: np.ndarray, saturate: bool = True) -> np.ndarray:
        """Return integers without a fraction; of those beyond the limits the lowest bits, as casts do."""
        return self.decoded((np.trunc(x).astype(np.int64) & ((1 << self.bits) - 1)).astype(np.uint8))


NARROW: dict[str, NarrowFloat | PowerOfTwo | NarrowInteger] = {
    "float8e4m3fn": NarrowFloat(4, 3, 7, "all ones"),
    "float8e4m3fnuz": NarrowFloat(4, 3, 8, "minus zero"),
    "float8e5m2": NarrowFloat(5, 2, 15, "ieee"),
    "float8e5m2fnuz": NarrowFloat(5, 2, 16, "minus zero"),
    "float4e2m1": NarrowFloat(2, 1, 1, "none"),
    "float8e8m0": PowerOfTwo(),
    "uint4": NarrowInteger(4, False),
    "int4": NarrowInteger(4, True),
    "uint2": NarrowInteger(2, False),
    "int2": NarrowInteger(2, True),
}


def held_in(name: str) -> str:
    """Return the type of NumPy that holds a narrow one."""
    kind = NARROW[name]
    return kind.held_in if isinstance(kind, NarrowInteger) else "float32"


def unpacked(name: str, data: np.ndarray, size: int) -> np.ndarray:
    """Return the codes in bytes, of which each holds as many as it has room for, the first in its lowest bits."""
    bits = NARROW[name].bits
    parts = [(data >> np.uint8(shift)) & np.uint8((1 << bits) - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1).reshape(-1)[:size]


def bytes_of(name: str, size: int) -> int:
    """Return how many bytes so many values take."""
    return -(-size * NARROW[name].bits // 8)
