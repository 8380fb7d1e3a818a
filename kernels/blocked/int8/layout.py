"""How 8-bit weights lie in memory, and the tiles of their kernels."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.blocked.layout import Tile
from npmobilenet.kernels.blocked.layout import tiles as float_tiles
from npmobilenet.kernels.vector.target import Target

BYTE = np.dtype(np.uint8)
QUAD = 4  # bytes that one lane multiplies and adds
WIDENED = 8  # registers that bytes need where they must first become 16-bit integers


def tiles(target: Target) -> tuple[Tile, Tile]:
    """The wide tile, and the one of a single block; smaller where a product takes several instructions."""
    whole = float_tiles(target)
    if target.dot in ("vnni", "usdot", "sdot"):
        return whole
    room = target.registers - WIDENED
    return tuple(Tile(max(1, min(tile.pixels, room // tile.blocks)), tile.blocks) for tile in whole)


def quads(weight: np.ndarray) -> np.ndarray:
    """Return (K, C_out) of 8 bits as 32-bit integers (K / 4, C_out), each the weights of four inputs."""
    k, c_out = weight.shape
    full = np.zeros((-(-k // QUAD) * QUAD, c_out), np.int8)
    full[:k] = weight
    return np.ascontiguousarray(full.reshape(-1, QUAD, c_out).transpose(0, 2, 1)).view(np.int32)[..., 0]


def pairs(weight: np.ndarray) -> np.ndarray:
    """Return (K, C_out) of 16 bits as 32-bit integers (K / 2, C_out), each the weights of two inputs."""
    k, c_out = weight.shape
    full = np.zeros((k + k % 2, c_out), np.int16)
    full[:k] = weight
    return np.ascontiguousarray(full.reshape(-1, 2, c_out).transpose(0, 2, 1)).view(np.int32)[..., 0]


def start(weight: np.ndarray, zero_point: int | np.ndarray) -> np.ndarray:
    """Where the sums over weights (..., C_out) begin, so that they are those of x - zero_point: int32.

    ``zero_point`` is one for all, or as many as fit the weights' last axes.
    """
    shares = np.asarray(zero_point, np.int64) * weight.astype(np.int64)
    return (-shares.sum(axis=tuple(range(weight.ndim - 1)))).astype(np.int32)
