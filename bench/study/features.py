"""The feature maps of a photograph: what a block of a trained network makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npmobilenet.bench.study.study import Table, load_network
from npmobilenet.graph import Graph
from npmobilenet.image import Preprocessing, read_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LISTED = 10  # channels in the table
PHOTOGRAPH = 2.4  # inches
COLUMNS = (8, 14)  # of the picture: for few channels, at most


def visible(x: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Turn a network's input (3, H, W) back into a picture, uint8 (H, W, 3): what the network sees."""
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return (255 * (x * std + mean)).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


@dataclass(frozen=True)
class Features:
    """The feature maps of a block, and the picture the network saw."""

    photo: str
    network: str
    block: str
    maps: np.ndarray
    picture: np.ndarray
    shown: int

    @property
    def strength(self) -> np.ndarray:
        """Of every channel: the root of its mean square over the pixels."""
        return np.sqrt((self.maps.astype(np.float64) ** 2).mean(axis=(1, 2)))

    @property
    def order(self) -> np.ndarray:
        """Channels, the strongest first."""
        return np.argsort(-self.strength, kind="stable")

    def numbers(self) -> dict[str, Any]:
        """Return what JSON holds: of every channel, not of every pixel."""
        channels = {
            "strength": self.strength.tolist(),
            "mean": self.maps.mean(axis=(1, 2)).tolist(),
            "least": self.maps.min(axis=(1, 2)).tolist(),
            "most": self.maps.max(axis=(1, 2)).tolist(),
            "positive": (self.maps > 0).mean(axis=(1, 2)).tolist(),
        }
        about = {"photo": self.photo, "network": self.network, "block": self.block}
        return {**about, "shape": list(self.maps.shape), "channels": channels}

    def tables(self) -> list[Table]:
        """Return the strongest channels, and all together."""
        channels, height, width = self.maps.shape
        rows = [(str(index), *self._cells(self.maps[index])) for index in self.order[:LISTED]]
        return [
            Table(
                f"{self.block} of {self.network} on {Path(self.photo).name}: {channels} maps of {height}x{width}, "
                f"the strongest {len(rows)}",
                ("channel", "strength", "mean", "least", "most", "positive"),
                [*rows, ("all", *self._cells(self.maps))],
                texts=0,
                notes=("strength: root mean square over the pixels; positive: part of the pixels",),
            )
        ]

    @staticmethod
    def _cells(values: np.ndarray) -> tuple[str, ...]:
        strength = float(np.sqrt((values.astype(np.float64) ** 2).mean()))
        numbers = (strength, values.mean(), values.min(), values.max())
        return (*(f"{number:.3f}" for number in numbers), f"{(values > 0).mean():.1%}")

    def draw(self, figure: Figure) -> None:
        """The photograph, and its maps side by side, all in the same colours."""
        from npmobilenet.bench.study.pictures import DIVERGING, SEQUENTIAL, as_photograph

        shown = self.order[: self.shown]
        rows, columns = _grid(len(shown))
        width, height = figure.get_size_inches()[0], self.maps.shape[1] / self.maps.shape[2]
        tile = min((width - PHOTOGRAPH - 1.5) / columns, PHOTOGRAPH)
        figure.set_size_inches(width, max(PHOTOGRAPH + 0.4, rows * (height * tile + 0.22)) + 0.35)
        left, right = figure.subfigures(1, 2, width_ratios=(PHOTOGRAPH, width - PHOTOGRAPH))
        axes = left.subplots()
        axes.imshow(self.picture)
        axes.set_title("what the network sees")
        as_photograph(axes)
        signed = bool((self.maps < 0).any())
        limit = float(np.percentile(np.abs(self.maps[shown]), 99.5)) or 1.0
        colours = {"cmap": DIVERGING if signed else SEQUENTIAL, "vmin": -limit if signed else 0, "vmax": limit}
        grid = right.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            as_photograph(axes)
        for axes, index in zip(grid.flat, shown, strict=False):
            image = axes.imshow(self.maps[index], **colours)
            axes.set_title(str(index), fontsize=8 if columns <= COLUMNS[0] else 6, pad=2)
        right.colorbar(image, ax=grid, label="activation", shrink=0.8, extend="both" if signed else "max")
        channels, height, width = self.maps.shape
        what = "all" if len(shown) == channels else f"the strongest {len(shown)} of"
        right.suptitle(f"{self.block} of {self.network}: {what} {channels} channels, {height}×{width}", fontsize=11)
        right.get_layout_engine().set(hspace=0.02, wspace=0.02)


def study(photo: str, block: str, channels: int, model: str) -> Features:
    """Compute the feature maps of a photograph.

    Parameters
    ----------
    photo : str
        A file.
    block : str
        A block, or a layer such as ``block3.depthwise``.
    channels : int
        How many the picture shows.
    model : str
        Weights known by name or a checkpoint.

    Raises
    ------
    ImageError
        If the photograph cannot be read.
    ValueError
        If there is no such block, or it has no feature maps.
    """
    network = load_network(model)
    photograph = read_image(photo)
    spatial = [name for name, nodes in network.graph.blocks.items() if len(_shape(network.graph, nodes[-1].name)) == 3]
    names = {node.name for node in network.graph}
    if block not in names | network.graph.blocks.keys():
        raise ValueError(f"no block {block!r}; there are: {', '.join(spatial)}, and layers such as block3.depthwise")
    x = network.preprocess(photograph)
    maps = network.features(x[None], block)[0]
    if maps.ndim != 3:
        raise ValueError(f"{block} gives a vector, not feature maps; these blocks do: {', '.join(spatial)}")
    return Features(photo, network.architecture, block, maps, visible(x, network.preprocessing), channels)


def _grid(number: int) -> tuple[int, int]:
    """Rows and columns for so many pictures, wider than high, with as few places empty as can be."""
    few, most = COLUMNS
    widest = few if number <= few * few else min(most, round(np.sqrt(1.5 * number)))
    if number <= widest:
        return 1, number
    columns = min(range(3 * widest // 4, widest + 1), key=lambda columns: (-number % columns, -columns))
    return -(-number // columns), columns


def _shape(graph: Graph, name: str) -> tuple[int, ...]:
    return graph.shapes((224, 224))[name]
