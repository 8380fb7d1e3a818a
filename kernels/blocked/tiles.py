"""The register tiles of the vector kernels: which is fastest on which CPU.

``npmobilenet study tiles`` measures the candidates in the layers of a network, here and on any other CPU; `MEASURED`
holds what it found. A CPU that nobody has measured takes the largest tile for which its registers have room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from npmobilenet.kernels.geometry import Pair
from npmobilenet.kernels.vector.target import Target


@dataclass(frozen=True)
class Tile:
    """Pixels x channel blocks whose sums a kernel holds in registers.

    Attributes
    ----------
    halves : bool
        Whether half a vector is computed of a last block that holds no more channels: a gain where it takes half the
        time.
    """

    pixels: int
    blocks: int
    halves: bool = False

    @property
    def narrow(self) -> Tile:
        """The one of a single block, for what is left of the channels."""
        return Tile(self.pixels * self.blocks, 1, self.halves)


class Tiles(NamedTuple):
    """What a CPU computes matrix products in.

    Attributes
    ----------
    wide, narrow : Tile
        That of most panels of channels, and the one of a single block for what is left.
    row : Tile
        The wide one of dense convolutions, whose tiles end with a row of the image: they have lower ones besides.
    stem_sums : int
        The most that the first convolution holds; its window's taps take registers, too.
    """

    wide: Tile
    narrow: Tile
    row: Tile
    stem_sums: int

    @classmethod
    def of(cls, wide: Tile, row: Tile, stem_sums: int) -> Tiles:
        """With the narrow tile that has as many sums."""
        return cls(wide, wide.narrow, row, stem_sums)


# By LLVM's name of the CPU and the lanes of its vectors.
MEASURED = {
    # A multiply-add of 16 lanes takes two cycles' halves: few sums hide it, and half a vector takes half the time.
    ("znver4", 16): Tiles.of(Tile(7, 2, halves=True), Tile(14, 2), stem_sums=16),
}


def tiles(target: Target) -> Tiles:
    """The fastest known, or those that fill the registers."""
    return MEASURED.get((target.cpu, target.lanes)) or largest(target)


def largest(target: Target) -> Tiles:
    """With registers left for a vector of weights per block and one of the input; 7 and 14 divide MobileNet's sizes."""
    if target.lanes == 4 and target.registers == 32:  # NEON multiplies by a lane: four inputs of a pixel in a register
        room = target.registers - 5
        return Tiles(Tile(room // 5, 4), Tile(room // 2, 1), Tile(room // 5, 4), target.registers)
    wide = Tile(14, 2) if target.registers >= 32 else Tile(6, 2)
    return Tiles.of(wide, wide, target.registers)


class Tiling(NamedTuple):
    """How many pixels of a row a depthwise kernel computes at once."""

    widths: tuple[int, ...]
    """For wide rows and narrow ones, falling; the last is 1."""
    weights_stay: bool = True
    """Whether a row of the window's weights stays in registers, where both find room."""

    @classmethod
    def of(cls, target: Target, kernel: Pair) -> Tiling:
        """The fastest known; 7 and 14 divide MobileNet's image sizes."""
        wide = cls.fits(target, kernel, 14) or not cls.fits(target, kernel, 7)
        return cls((14, 7, 3, 1) if wide else (7, 3, 1))

    @staticmethod
    def fits(target: Target, kernel: Pair, pixels: int) -> bool:
        """Whether the registers hold the sums, a row of weights and an input vector."""
        return pixels + kernel[1] + 1 <= target.registers
