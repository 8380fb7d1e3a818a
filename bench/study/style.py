"""Style and content of two photographs, layer by layer (Gatys, Ecker and Bethge, 2016, section 2).

Content is what stands where: the difference of two feature maps. Style is what goes with what, wherever it stands: the
difference of their Gram matrices, of which each entry is the product of two channels over all pixels. A photograph's
mirror image has much of its style and little of its content, and so shows what the two measure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npmobilenet.architectures.vgg import CONTENT, STYLE
from npmobilenet.bench.study.features import visible
from npmobilenet.bench.study.study import Table, load_network
from npmobilenet.image import read_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from npmobilenet.model import Model

POOLINGS = {"max": "max_pool2d", "average": "average_pool2d"}
PHOTOGRAPHS = 1.05  # inches of their column


def gram(maps: np.ndarray) -> np.ndarray:
    """Return the Gram matrix of feature maps (C, H, W): the products of channels, summed over the pixels: (C, C)."""
    rows = maps.reshape(len(maps), -1).astype(np.float64)
    return rows @ rows.T


def style_loss(maps: np.ndarray, others: np.ndarray) -> float:
    """The paper's equation 4: squared differences of the Gram matrices, over (2 channels pixels) squared."""
    channels, pixels = len(maps), maps[0].size
    return float(((gram(maps) - gram(others)) ** 2).sum() / (4 * channels**2 * pixels**2))


def content_loss(maps: np.ndarray, others: np.ndarray) -> float:
    """The paper's equation 1: half of the squared differences."""
    return float(((maps.astype(np.float64) - others) ** 2).sum() / 2)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """How far apart two arrays are: 0 if they are equal, 1 at most; comparable from layer to layer."""
    sizes = np.linalg.norm(one) + np.linalg.norm(other)
    return float(np.linalg.norm(one - other) / sizes) if sizes else 0.0


@dataclass(frozen=True)
class Layer:
    """What two photographs have in common in a layer.

    Attributes
    ----------
    name : str
    shape : (C, H, W)
    style_loss, content_loss : float
        Of the paper, whose size depends on the layer's.
    style, content : float
        The same as parts, 0 to 1 (`distance`).
    mirrored_style, mirrored_content : float
        Of the first photograph and its mirror image.
    """

    name: str
    shape: tuple[int, int, int]
    style_loss: float
    content_loss: float
    style: float
    content: float
    mirrored_style: float
    mirrored_content: float

    @classmethod
    def of(cls, name: str, maps: np.ndarray) -> Layer:
        """Compare the maps (3, C, H, W) of the first photograph, the second and the first one's mirror image."""
        one, two, mirrored = maps
        first = gram(one)
        return cls(
            name,
            one.shape,
            style_loss(one, two),
            content_loss(one, two),
            distance(first, gram(two)),
            distance(one.astype(np.float64), two),
            distance(first, gram(mirrored)),
            distance(one.astype(np.float64), mirrored),
        )


@dataclass(frozen=True)
class Style:
    """All layers, and the pictures that the network saw."""

    photos: tuple[str, str]
    network: str
    layers: list[Layer]
    pictures: tuple[np.ndarray, np.ndarray]
    total: dict[str, float]

    def numbers(self) -> dict[str, Any]:
        """Return what JSON holds."""
        about = {"photos": list(self.photos), "network": self.network, **self.total}
        return {**about, "layers": [asdict(layer) for layer in self.layers]}

    def tables(self) -> list[Table]:
        """Return a line for each layer."""
        one, two = (Path(photo).name for photo in self.photos)
        rows = [
            (
                layer.name,
                "x".join(map(str, layer.shape)),
                f"{layer.style_loss:.3g}",
                f"{layer.style:.3f}",
                f"{layer.mirrored_style:.3f}",
                f"{layer.content_loss:.3g}",
                f"{layer.content:.3f}",
                f"{layer.mirrored_content:.3f}",
            )
            for layer in self.layers
        ]
        header = ("layer", "maps", "style loss", "style", "mirrored", "content loss", "content", "mirrored")
        totals = [f"{name}: {value:.4g}" for name, value in self.total.items()]
        return [
            Table(
                f"{one} and {two} in {self.network}",
                header,
                rows,
                texts=2,
                notes=(
                    *totals,
                    "style, content: how far apart, 0 to 1, in every layer alike; losses: the paper's, which grow with "
                    f"the layer; mirrored: {one} and its mirror image",
                ),
            )
        ]

    def draw(self, figure: Figure) -> None:
        """The photographs, and bars of the distances in every layer."""
        from npmobilenet.bench.study.pictures import as_photograph, grouped_bars

        width = figure.get_size_inches()[0]
        left, right = figure.subfigures(1, 2, width_ratios=(PHOTOGRAPHS, width - PHOTOGRAPHS))
        names = [Path(photo).stem for photo in self.photos]
        for axes, picture, name in zip(left.subplots(2, 1), self.pictures, names, strict=True):
            axes.imshow(picture)
            axes.set_title(name, fontsize=9)
            as_photograph(axes)
        panels = right.subplots(2, 1, sharex=True)
        for axes, what in zip(panels, ("style", "content"), strict=True):
            values = {f"{names[0]} and {names[1]}": [getattr(layer, what) for layer in self.layers]}
            values[f"{names[0]} and its mirror image"] = [getattr(layer, f"mirrored_{what}") for layer in self.layers]
            grouped_bars(axes, [layer.name for layer in self.layers], values)
            axes.set_ylabel(f"{what}: how far apart")
            axes.set_ylim(0, 1)
        panels[0].set_title(f"{self.network}: Gram matrices (above) and feature maps (below)")
        panels[0].legend(ncols=2, loc="upper left")


def study(photo: str, other: str, pooling: str, model: str) -> Style:
    """Compare two photographs in all stages of a network.

    Parameters
    ----------
    photo, other : str
        Files.
    pooling : {"max", "average"}
        Of VGG19, whose authors pool maxima and the paper's means.
    model : str
        Weights known by name or a checkpoint: of VGG19 the layers are the paper's, of others the ends of their stages.

    Raises
    ------
    ImageError
        If a photograph cannot be read.
    ValueError
        If a network without pooling is to pool means.
    """
    network = load_network(model)
    if pooling == "average":
        network = with_average_pooling(network)
    one, two = (network.preprocess(read_image(each)) for each in (photo, other))
    names = layers_of(network)
    maps = network.outputs(np.stack([one, two, np.ascontiguousarray(one[:, :, ::-1])]), list(names.values()))
    layers = [Layer.of(name, maps[node]) for name, node in names.items()]
    pictures = visible(one, network.preprocessing), visible(two, network.preprocessing)
    return Style((photo, other), network.architecture, layers, pictures, _total(layers))


def layers_of(network: Model) -> dict[str, str]:
    """The layers to compare: their names, and which outputs they are.

    Raises
    ------
    ValueError
        If the network has no stages that are known.
    """
    if set(STYLE) <= set(network.output_names):
        return {name: name for name in sorted((*STYLE, CONTENT))}
    if network.definition is None:
        raise ValueError(f"{network.architecture} is a whole network without a table: its stages are not known")
    return {f"stage {block.stage}": block.name for block in network.definition.blocks if block.stage}  # its last block


def with_average_pooling(network: Model) -> Model:
    """Return the network with means in place of the maxima of its windows.

    Raises
    ------
    ValueError
        If it has none.
    """
    from npmobilenet.model import Model

    graph = network.graph
    if not any(node.operation == POOLINGS["max"] for node in graph):
        raise ValueError(f"{network.architecture} does not pool maxima, so that there is no choice of a pooling")
    nodes = tuple(
        replace(node, operation=POOLINGS["average"]) if node.operation == POOLINGS["max"] else node for node in graph
    )
    return Model(
        replace(graph, nodes=nodes),
        network.stored()[0],
        architecture=f"{network.architecture}, average pooling",
        preprocessing=network.preprocessing,
        backend=network.backend,
        definition=network.definition,
    )


def _total(layers: list[Layer]) -> Mapping[str, float]:
    """The paper's losses of the whole, where the layers are its own: the mean over five, and one."""
    by_name = {layer.name: layer for layer in layers}
    if not set(STYLE) <= by_name.keys():
        return {}
    return {
        "style loss": float(np.mean([by_name[name].style_loss for name in STYLE])),
        "content loss": by_name[CONTENT].content_loss,
    }
