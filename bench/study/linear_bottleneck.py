"""What ReLU6 in the bottlenecks would destroy (MobileNetV2, 1801.04381, section 3.2, Figures 6a and 7).

The paper leaves the activation behind the projections out and trains both variants. Here the trained network is
given the activation afterwards: what it cuts off is what the bottlenecks say with negative numbers. Figure 7 asks
the opposite of the layers that have ReLU6: whether enough of their channels are positive to lose nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npmobilenet.bench.study.study import Table, load_network
from npmobilenet.engine import Engine
from npmobilenet.graph import Graph, Node
from npmobilenet.image import Preprocessing, preprocess, read_image, resize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from npmobilenet.model import Model

THRESHOLD = 1 / 6
"""Part of the channels that must be positive where a bottleneck was expanded sixfold (Figure 7)."""


def with_relu6(graph: Graph, blocks: Iterable[str]) -> Graph:
    """Return the graph with ReLU6 behind the projections of these blocks, before a residual is added."""
    blocks = set(blocks)
    nodes: list[Node] = []
    follows = {}  # the name of an activation by that of the batch norm before it
    for node in graph:
        node = replace(node, inputs=tuple(follows.get(name, name) for name in node.inputs))
        nodes.append(node)
        if node.block in blocks and node.name == _projection(node.block):
            follows[node.name] = f"{node.block}.project.activation"
            attributes = {"function": "relu6"}
            nodes.append(Node(follows[node.name], "activation", (node.name,), node.block, attributes=attributes))
    return replace(graph, nodes=tuple(nodes))


def bottlenecks(graph: Graph) -> list[str]:
    """Return the names of the blocks that end in a linear projection."""
    return [block for block, nodes in graph.blocks.items() if _projection(block) in {node.name for node in nodes}]


def _projection(block: str) -> str:
    return f"{block}.project.norm"


def views(photograph: np.ndarray, preprocessing: Preprocessing, number: int) -> list[np.ndarray]:
    """Return inputs of one photograph: the centre, or ten, corners and centre and their mirror images.

    Ten are as in Krizhevsky, Sutskever and Hinton 2012, section 4.1.
    """
    if number == 1:
        return [preprocess(photograph, preprocessing)]
    (rows, columns), (height, width) = preprocessing.crop, photograph.shape[:2]
    scale = max(rows / height, columns / width) * 256 / 224
    photograph = resize(photograph, (max(rows, round(scale * height)), max(columns, round(scale * width))))
    plain = replace(preprocessing, resize=None, crop_fraction=None)
    down, across = photograph.shape[0] - rows, photograph.shape[1] - columns
    found = []
    for top, left in ((down // 2, across // 2), (0, 0), (0, across), (down, 0), (down, across)):
        cut = photograph[top : top + rows, left : left + columns]
        found += [preprocess(np.ascontiguousarray(image), plain) for image in (cut, cut[:, ::-1])]
    return found


@dataclass(frozen=True)
class Active:
    """Figure 7: the part of a layer's channels that is positive at a pixel; over all pixels of all photographs."""

    layer: str
    least: float
    mean: float
    most: float


@dataclass(frozen=True)
class Change:
    """What ReLU6 behind projections does to the trained network.

    Attributes
    ----------
    blocks : str
        One, or all.
    shortcut : bool or None
        Whether the block adds its input to what it projects.
    negative : float
        Part of the projection's values that become 0.
    lost : float
        Part of its energy, the sum of squares, that is cut off; below 0 and above 6.
    logits : float
        Change of the logits relative to their size, both as root mean squares.
    agreement : float
        Part of the inputs whose most probable class stays.
    """

    blocks: str
    shortcut: bool | None
    negative: float | None
    lost: float | None
    logits: float
    agreement: float


@dataclass(frozen=True)
class LinearBottleneck:
    """All of it."""

    network: str
    photographs: list[str]
    inputs: int
    active: list[Active]
    changes: list[Change]

    @property
    def below(self) -> list[str]:
        """Layers of bottleneck blocks of which some pixel falls below the threshold."""
        blocks = {row.blocks for row in self.changes}
        return [row.layer for row in self.active if row.least < THRESHOLD and row.layer.split(".")[0] in blocks]

    def numbers(self) -> dict[str, Any]:
        """Return what JSON holds."""
        return {**asdict(self), "threshold": THRESHOLD, "below_threshold": self.below}

    def tables(self) -> list[Table]:
        """Return both tables."""
        where = f"{self.network} on {self.inputs} inputs from {len(self.photographs)} photographs"
        active = Table(
            f"Channels that are positive at a pixel, behind every ReLU6 (Figure 7): {where}",
            ("layer", "least", "mean", "most"),
            [(row.layer, *(f"{value:.1%}" for value in (row.least, row.mean, row.most))) for row in self.active],
            notes=(
                "with more than 1/6 positive, ReLU6 of a sixfold expansion can be inverted (Lemma 2)",
                f"blocks with less at some pixel: {', '.join(self.below) or 'none'} (the paper has two such layers)",
            ),
        )
        changes = Table(
            f"ReLU6 put behind the projection of a block (section 3.2, Figure 6a); {where}",
            ("blocks", "shortcut", "values below 0", "energy cut off", "change of logits", "top-1 stays"),
            [
                (
                    row.blocks,
                    "yes" if row.shortcut else "no" if row.shortcut is not None else "",
                    "-" if row.negative is None else f"{row.negative:.1%}",
                    "-" if row.lost is None else f"{row.lost:.1%}",
                    f"{row.logits:.1%}",
                    f"{row.agreement:.1%}",
                )
                for row in self.changes
            ],
            texts=2,
            notes=(
                "a block with a shortcut still has its input, so that less is lost (section 3.2)",
                "the network was trained without: this is what its bottlenecks carry in negative numbers, not what a "
                "network trained with ReLU6 would lose (section 3.2: several percent)",
            ),
        )
        return [active, changes]

    def draw(self, figure: Figure) -> None:
        """Figure 7, and what each block's ReLU6 would do."""
        from npmobilenet.bench.study.pictures import BLUE, ORANGE, PURPLE, RED

        figure.set_size_inches(figure.get_size_inches()[0], 7.6)
        above, below = figure.subplots(2, 1)
        at = np.arange(len(self.active))
        least, mean, most = np.array([(row.least, row.mean, row.most) for row in self.active]).T
        above.fill_between(at, least, most, color=BLUE, alpha=0.2, linewidth=0, label="least to most, over the pixels")
        above.plot(at, mean, "o-", color=BLUE, markersize=4, label="mean")
        above.axhline(THRESHOLD, color=RED, linestyle="--", label="1/6: enough for sixfold expansion")
        above.set_xticks(at, [row.layer.replace("block", "") for row in self.active], rotation=90, fontsize=8)
        above.set_ylim(0, 1.15)
        above.set_ylabel("part of the channels that is positive")
        above.set_title(f"Positive channels behind every ReLU6 of the trained {self.network} (Figure 7)")
        above.legend(loc="upper right", ncols=3, fontsize=9)
        at = np.arange(len(self.changes))
        below.bar(at - 0.2, [row.logits for row in self.changes], 0.4, color=ORANGE, label="change of the logits")
        below.bar(
            at + 0.2,
            [1 - row.agreement for row in self.changes],
            0.4,
            color=PURPLE,
            label="inputs with another top-1 class",
        )
        marks = [row.blocks.replace("block", "") + ("\n+ x" if row.shortcut else "") for row in self.changes]
        below.set_xticks(at, marks)
        below.set_xlabel("block whose projection is given a ReLU6 (+ x: the block has a shortcut)")
        below.set_ylabel("part of the logits' size, or of the inputs")
        below.set_title("What ReLU6 behind one projection does to the network trained without (section 3.2)")
        below.set_ylim(0, 1.2 * max(max(row.logits, 1 - row.agreement) for row in self.changes))
        below.legend(loc="upper left", ncols=2)
        for axes in (above, below):
            axes.grid(axis="x", visible=False)


def study(model: str, images: Sequence[str], views: int) -> LinearBottleneck:
    """Look at the signs of activations on photographs, and put ReLU6 where the paper leaves it out.

    Parameters
    ----------
    model : str
        Weights known by name or a checkpoint, of a network with linear bottlenecks.
    images : sequence of str
        Files.
    views : {1, 10}
        Inputs of each photograph.

    Raises
    ------
    ValueError
        If the network has no linear bottlenecks, or another number of views is asked for.
    """
    if views not in (1, 10):
        raise ValueError(f"there are 1 or 10 views of a photograph, got {views}")
    network = load_network(model)
    network.require_classifier()
    blocks = bottlenecks(network.graph)
    if not blocks:
        raise ValueError(f"{network.architecture} has no linear bottlenecks; mobilenet_v2 has")
    x = np.stack([x for name in images for x in _views(read_image(name), network.preprocessing, views)])
    names = [Path(name).name for name in images]
    return LinearBottleneck(
        network.architecture, names, len(x), _active(network, np.split(x, len(names))), _changes(network, blocks, x)
    )


_views = views


def _active(network: Model, photographs: Sequence[np.ndarray]) -> list[Active]:
    found = []
    layers = [node.name.removesuffix(".activation") for node in network.graph if node.operation == "activation"]
    for layer in layers:
        parts = [(network.features(x, layer) > 0).mean(axis=1) for x in photographs]
        if parts[0].ndim == 3:  # not behind the pooling
            least, most = min(part.min() for part in parts), max(part.max() for part in parts)
            found.append(Active(layer, float(least), float(np.mean(parts)), float(most)))
    return found


def _changes(network: Model, blocks: Sequence[str], x: np.ndarray) -> list[Change]:
    plain = network(x)
    found = []
    for chosen in (*([block] for block in blocks), blocks):
        shortcut = negative = lost = None
        if len(chosen) == 1:
            shortcut = any(node.operation == "add" for node in network.graph.blocks[chosen[0]])
            negative, lost = _cut_off(network, _projection(chosen[0]), x)
        logits = _logits(network, with_relu6(network.graph, chosen), x)
        change = float(np.sqrt(((logits - plain) ** 2).mean() / (plain**2).mean()))
        agreement = float((logits.argmax(axis=1) == plain.argmax(axis=1)).mean())
        name = chosen[0] if len(chosen) == 1 else "all"
        found.append(Change(name, shortcut, negative, lost, change, agreement))
    return found


def _logits(network: Model, graph: Graph, x: np.ndarray) -> np.ndarray:
    return Engine(graph, network._weights, network._asked).run(x, network.threads)


def _cut_off(network: Model, projection: str, x: np.ndarray) -> tuple[float, float]:
    """Of what a projection gives, before a residual is added: the part below 0, and the energy outside of 0 to 6."""
    values = _logits(network, network.graph.up_to(projection), x)
    outside = values - np.clip(values, 0, 6)
    return float((values < 0).mean()), float((outside**2).sum() / (values**2).sum())
