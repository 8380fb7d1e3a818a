"""What compiled kernels ask of memory, counted without a GPU, as a table between the markers of docs/cuda.md.

python -m tests.ptx.counts docs/cuda.md

Needs Numba's CUDA compiler and no driver. These are counts, not times.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from npmobilenet.bench import markers
from npmobilenet.bench.cuda import layers
from npmobilenet.kernels.cuda import depthwise, mixed, pointwise
from npmobilenet.kernels.cuda.launch import Launch
from npmobilenet.kernels.geometry import equal_partition
from tests.ptx.memory import SECTOR
from tests.ptx.pretended import Launched, Resident, compiler_missing, pretended_device, to_device

REGION = "tests/ptx/counts.py"
OUTPUTS = 1024  # those of a full warp in a 3x3 convolution
BLOCKS = 12  # of threads of a pointwise layer that are run: all do the same, but those at the ends
WINDOWS = ((5, 28, 120, 1), (7, 28, 240, 1), (9, 28, 240, 1))  # kernel, height and width, channels, stride


@dataclass
class Row:
    """One layer."""

    title: str
    dtype: str
    launched: Launched
    outputs: int

    @property
    def instructions(self) -> int:
        """Of all warps; a 64-bit integer one takes two of the hardware's."""
        count = self.launched.counts.instructions
        return sum(count.values()) - count["move"] + count["wide integer"]

    @property
    def fma_share(self) -> float:
        """Fused multiply-adds as a part of all instructions."""
        return self.launched.counts.instructions["fma"] / self.instructions

    def cells(self) -> Iterator[str]:
        """The table's columns."""
        counts = self.launched.counts
        item = np.dtype(self.dtype).itemsize
        yield self.title
        yield self.dtype
        loads, stores = counts.loads, counts.stores
        yield f"{(loads.bytes + stores.bytes) / SECTOR / (loads.sectors + stores.sectors):.0%}"
        yield f"{SECTOR * counts.loads.sectors / counts.distinct['loads']:.1f}"
        yield f"{SECTOR * counts.block_sectors / counts.distinct['loads']:.2f}"
        yield f"{counts.loads.asked / item / self.outputs:.2f}"
        yield f"{self.fma_share:.0%}"
        yield f"{self.instructions * OUTPUTS / self.outputs:.0f}"
        shared = counts.shared
        yield f"{shared.sectors / shared.least:.2f}" if shared.least else ""


HEADING = (
    "layer",
    "dtype",
    "of the sectors asked for is used",
    "reads by warps / least",
    "reads by blocks / least",
    "values loaded per output",
    "fma share",
    f"instructions of warps for {OUTPUTS} outputs",
    "passes over shared memory / least",
)


def first_image(launch: Launch) -> Callable[[int], Sequence[int]]:
    """Which blocks of threads compute the first image, where block z is the image."""
    return lambda blocks: range(blocks // launch.grid[2])


def middle(blocks: int) -> Sequence[int]:
    """Some neighbouring blocks in the middle of the grid."""
    start = max(0, blocks // 2 - BLOCKS // 2)
    return range(start, min(blocks, start + BLOCKS))


def measured(
    title: str, prepared: Launch, shapes: Sequence[Sequence[int]], choose: Callable[[int], Sequence[int]], outputs: int
) -> Row:
    """Run some blocks of a launch; the last of the shapes is the result's."""
    with pretended_device(check=False, choose=choose) as device:
        random = np.random.default_rng(0)
        arrays = [to_device(random.standard_normal(prod(shape)).astype(prepared.dtype)) for shape in shapes[:-1]]
        prepared(0, *arrays, Resident.empty(prod(shapes[-1]), prepared.dtype))
        return Row(title, prepared.dtype.name, device.launched[-1], outputs)


def rows(dtype: str, smoke: bool = False) -> Iterator[Row]:
    """The layers; with ``smoke`` one of each kind, small."""
    kind, batch = np.dtype(dtype), 2 if smoke else layers.BATCH
    windows = [(3, *layer) for layer in layers.DEPTHWISE_3X3] + list(WINDOWS)
    for kernel, size, channels, stride in [(3, 6, 8, 1)] if smoke else windows:
        x, weight = (batch, size, size, channels), (kernel, kernel, channels)
        with pretended_device():
            prepared = depthwise.prepare_depthwise_conv2d(
                x, weight, stride=stride, padding="symmetric", activation="relu6", dtype=kind
            )
        shapes = [x, weight, (channels,), prepared.shape]
        title = f"{kernel}x{kernel} stride {stride}, {size}x{size}x{channels}"
        yield measured(title, prepared, shapes, first_image(prepared), prod(prepared.shape[1:]))
    for size, channels, stride in [(6, 8, 1)] if smoke else layers.MIXED[:2]:
        x = (batch, size, size, channels)
        parts = equal_partition(channels, len(layers.MIXED_KERNELS))
        weights = [(kernel, kernel, part) for kernel, part in zip(layers.MIXED_KERNELS, parts, strict=True)]
        with pretended_device():
            prepared = mixed.prepare_mixed_depthwise_conv2d(x, weights, stride=stride, activation="swish", dtype=kind)
        shapes = [x, (sum(map(prod, weights)),), (channels,), prepared.shape]
        title = f"{{3,5,7,9}} stride {stride}, {size}x{size}x{channels}"
        yield measured(title, prepared, shapes, first_image(prepared), prod(prepared.shape[1:]))
    for size, c_in, c_out in [(4, 8, 12)] if smoke else layers.POINTWISE[:-1]:
        x = (batch, size, size, c_in)
        with pretended_device():
            prepared = pointwise.prepare_pointwise_conv2d(x, (c_in, c_out), activation="relu6", dtype=kind)
        shapes = [x, (c_in, c_out), (c_out,), prepared.shape]
        row = measured(f"1x1, {size}x{size}, {c_in} to {c_out}", prepared, shapes, middle, 0)
        row.outputs = row.launched.counts.stores.asked // kind.itemsize
        yield row


def lines(found: Sequence[Row]) -> Iterator[str]:
    """The table."""
    yield "| " + " | ".join(HEADING) + " |"
    yield "|" + " --- |" * len(HEADING)
    for row in found:
        yield "| " + " | ".join(row.cells()) + " |"


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    missing = compiler_missing()
    if missing:
        print(f"npmobilenet: {missing}", file=sys.stderr)
        return 1
    found = []
    for dtype in ("float32", "float16"):
        for row in rows(dtype):
            found.append(row)
            print(" | ".join(row.cells()), flush=True)
    for name in arguments:
        markers.replace(Path(name), REGION, lines(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
