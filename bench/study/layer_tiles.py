"""Which tile is fastest in the layers of a network: what `kernels/blocked/tiles.py` says of a CPU comes from here.

In the nearest cache one tile is like another. Between layers, weights come from farther away, runs of pixels have ends,
and channels do not fill the last vector: so all layers of MobileNetV2 of a kind are computed one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from npmobilenet.architectures import get_architecture
from npmobilenet.bench.profile import noise, time_in_turns
from npmobilenet.bench.study.study import Table
from npmobilenet.blocked.calls import activation_of, is_stem
from npmobilenet.graph import Graph
from npmobilenet.kernels.blocked.code.stem import stem_tile
from npmobilenet.kernels.blocked.pointwise import pointwise_conv2d
from npmobilenet.kernels.blocked.stem import conv2d
from npmobilenet.kernels.blocked.tiles import Tile, tiles
from npmobilenet.kernels.prepared import Prepared
from npmobilenet.kernels.vector.target import Target, host
from npmobilenet.passes import fuse

NETWORK = "mobilenet_v2"
KINDS = {"pointwise": "pointwise convolutions", "stem": "first convolution"}
LEAST_SUMS = 8  # fewer wait for one another everywhere


@dataclass(frozen=True)
class LayerTile:
    """A tile in the layers of one kind: seconds of all, the shortest round, and whether the engine takes it."""

    kind: str
    tile: Tile
    seconds: float
    ours: bool


@dataclass(frozen=True)
class LayerTiles:
    """All that were tried."""

    about: str
    found: list[LayerTile]
    warning: str | None

    def table(self) -> Table:
        """Return them, the fastest of each kind first."""
        rows = []
        for kind, name in KINDS.items():
            of_kind = sorted((each for each in self.found if each.kind == kind), key=lambda each: each.seconds)
            rows += [
                (
                    *(name, f"{each.tile.pixels} x {each.tile.blocks}", "yes" if each.tile.halves else ""),
                    *(f"{1e6 * each.seconds:.0f}", f"{each.seconds / of_kind[0].seconds:.3f}"),
                    "engine's" if each.ours else "",
                )
                for each in of_kind
            ]
        notes = [
            f"all different layers one after the other, {self.about}; tile: pixels x vectors of output channels; "
            "halves: half a vector for a last block that is at most half full"
        ]
        notes += [f"warning: {self.warning}"] if self.warning else []
        header = ("layers", "tile", "halves", "us", "ratio", "")
        return Table(f"Tiles in the layers of {NETWORK}", header, rows, notes=notes)


def candidates(target: Target, kind: str) -> list[Tile]:
    """Tiles with enough sums, for which there are registers."""
    if kind == "stem":
        most = (target.registers - 1 - 3 * 2) // 2  # beside two taps' vectors for each column of the window
        return [Tile(pixels, 2) for pixels in range(LEAST_SUMS // 2, most + 1, 2)]
    sizes = [(pixels, blocks) for blocks in (2, 3, 4) for pixels in (2, 3, 4, 5, 6, 7, 8, 10, 12, 14)]
    fitting = [(p, b) for p, b in sizes if p * b >= LEAST_SUMS and p * b + b + 1 <= target.registers]
    return [Tile(*size, halves) for size in fitting for halves in (False, True)[: 1 + (size[1] == 2)]]


def measure(resolution: int, rounds: int, chosen: Sequence[tuple[int, int]] = ()) -> LayerTiles:
    """Measure the candidates in turns, on one thread.

    Parameters
    ----------
    resolution : int
        Of the image.
    rounds : int
        Measurements of each; the shortest counts.
    chosen : sequence of (pixels, blocks), optional
        These and the engine's, not all.

    Raises
    ------
    ValueError
        If one of those chosen has more sums than there are registers.
    """
    target = host()
    for pixels, blocks in chosen:
        if pixels * blocks > target.registers:
            raise ValueError(f"a tile of {pixels}x{blocks} has more sums than the {target.registers} registers here")
    ours = {"pointwise": tiles(target).wide, "stem": stem_tile(target, (3, 3), tiles(target).wide.blocks)}
    every = []
    for kind in KINDS:
        tried = [Tile(*size) for size in chosen] or candidates(target, kind)
        every += [(kind, tile) for tile in dict.fromkeys((ours[kind], *tried))]
    graph = fuse(get_architecture(NETWORK).graph(1.0))
    timings = time_in_turns([_run(_layers(graph, kind, resolution, tile)) for kind, tile in every], rounds)
    found = [
        LayerTile(kind, tile, timing.best, tile == ours[kind])
        for (kind, tile), timing in zip(every, timings, strict=True)
    ]
    return LayerTiles(f"{target.cpu}, an image of {resolution} x {resolution}, one thread", found, noise(timings))


def _run(layers: Sequence[Prepared]) -> Callable[[], None]:
    def run() -> None:
        for layer in layers:
            layer.run()

    return run


def _layers(graph: Graph, kind: str, resolution: int, tile: Tile) -> list[Prepared]:
    """All different layers of a kind, in a tile, with random numbers."""
    shapes, random, prepare = graph.shapes((resolution, resolution)), np.random.default_rng(0), {}
    for node in graph:
        stem = is_stem(node)
        if not (stem if kind == "stem" else node.operation == "pointwise_conv2d"):
            continue
        (c_in, *size), c_out = shapes[node.inputs[0]], shapes[node.name][0]
        options = {name: node[name] for name in ("stride", "padding")} if stem else {}
        arrays = {"x": (1, *size, c_in), "weight": (*node["kernel"], c_in, c_out) if stem else (c_in, c_out)}
        if node.attributes.get("residual"):
            arrays["residual"] = (1, *size, c_out)
        about = (tuple(arrays.items()), activation_of(node))
        prepare[about] = partial(
            (conv2d if stem else pointwise_conv2d).prepare, activation=activation_of(node), tile=tile, **options
        )
    return [
        make(**{name: random.standard_normal(shape, np.float32) for name, shape in arrays})
        for (arrays, _), make in prepare.items()
    ]
