"""How 8-bit weights lie in memory, and the tiles of their kernels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from npmobilenet.kernels.blocked.tiles import Tile, largest
from npmobilenet.kernels.blocked.tiles import tiles as best
from npmobilenet.kernels.vector.target import Target

BYTE = np.dtype(np.uint8)
QUAD = 4  # bytes that one lane multiplies and adds
WIDENED = 8  # registers that bytes need where they must first become 16-bit integers
PAIRED = 6  # where they need not
SMALL = 64  # magnitude of weights of which two products with bytes fit 16 bits


def is_one_instruction(target: Target) -> bool:
    """Whether four products of bytes are, or nearly."""
    return target.dot in ("vnni", "usdot", "sdot")


def are_small(target: Target, weight: np.ndarray) -> bool:
    """Whether there is a shorter way to multiply such weights."""
    fit = weight.dtype.itemsize == 1 and weight.size and np.abs(weight.astype(np.int16)).max() <= SMALL
    return bool(fit) and target.adds_pairs


def tiles(target: Target, small: bool = False) -> tuple[Tile, Tile]:
    """The wide tile, and the one of a single block; smaller where a product takes several instructions."""
    whole = largest(target)
    if is_one_instruction(target):
        halves = best(target).wide.halves
        return replace(whole.wide, halves=halves), replace(whole.narrow, halves=halves)
    room = target.registers - (PAIRED if small else WIDENED)
    return tuple(
        Tile(max(1, min(tile.pixels, room // tile.blocks)), tile.blocks) for tile in (whole.wide, whole.narrow)
    )


def words(weight: np.ndarray) -> np.ndarray:
    """Return (..., K, C_out) of 8 or 16 bits as integers of 32 (..., K / 4 or 2, C_out): of inputs that go together."""
    *axes, k, c_out = weight.shape
    together = 4 // weight.dtype.itemsize
    full = np.zeros((*axes, -(-k // together) * together, c_out), weight.dtype)
    full[..., :k, :] = weight
    groups = full.reshape(*axes, full.shape[-2] // together, together, c_out)
    return np.ascontiguousarray(np.moveaxis(groups, -2, -1)).view(np.int32)[..., 0]


def are_widened(target: Target, small: bool) -> bool:
    """Whether a product multiplies 16-bit integers: weights can be that before they are met."""
    return target.dot == "madd" and not small


def quads(target: Target, weight: np.ndarray) -> np.ndarray:
    """Return int8 (..., K, C_out), K a multiple of four, as what products of four inputs read: (..., words, C_out).

    That is one word for four inputs; where bytes are widened (`are_widened`) two, of the even inputs and of the odd.
    """
    if not are_widened(target, are_small(target, weight)):
        return words(weight)
    *axes, k, c_out = weight.shape
    pairs = weight.astype(np.int16).reshape(*axes, k // QUAD, 2, 2, c_out)  # of each quad 0 1, 2 3
    return words(np.moveaxis(pairs, -2, -3).reshape(*axes, k, c_out))


def start(weight: np.ndarray, zero_point: int | np.ndarray) -> np.ndarray:
    """Where the sums over weights (..., C_out) begin, so that they are those of x - zero_point: int32.

    ``zero_point`` is one for all, or as many as fit the weights' last axes.
    """
    shares = np.asarray(zero_point, np.int64) * weight.astype(np.int64)
    return (-shares.sum(axis=tuple(range(weight.ndim - 1)))).astype(np.int32)


def magnitudes(weight: np.ndarray) -> np.ndarray:
    """Those of weights (..., C_out), added up for each channel."""
    return np.abs(weight.astype(np.int64)).sum(axis=tuple(range(weight.ndim - 1)))
