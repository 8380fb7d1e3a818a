"""Where the noise of 8 bits comes from: layer by layer, one scale for a layer against one for each channel, bits, bias.

Weights alone are rounded in a network of float32 whose batch norms are folded in, layer after layer and all at once;
and whole networks are quantised. The noise is that of the logits, over crops of photographs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npmobilenet.bench.agreement import Agreement, agreement_of, crops
from npmobilenet.bench.study.study import Table, load_network
from npmobilenet.engine import Engine
from npmobilenet.graph import Graph, Node
from npmobilenet.image import preprocess
from npmobilenet.machine import numba_is_on
from npmobilenet.passes import folded_parameters, fuse
from npmobilenet.quantisation import WEIGHT_BITS, quantised

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from npmobilenet.model import Model

NOISIEST = 8  # layers in the table
SILENT = 60.0  # decibels that the picture shows of a layer whose rounding changes next to nothing


@dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Attributes
    ----------
    name, operation : str
    spread : float
        How many times the largest weight of a channel is that of the median channel, at most.
    channels, tensor : float
        Signal to noise of the logits, in decibels, when nothing but this layer's weights is rounded to 8 bits: with
        a scale for each channel, and with one for all.
    """

    name: str
    operation: str
    spread: float
    channels: float
    tensor: float


@dataclass(frozen=True)
class Noise:
    """What rounding does to a network; `Agreement` of a variant has its name."""

    network: str
    crops: int
    layers: list[Layer]
    weights: list[Agreement]
    bits: list[Agreement]
    uncorrected: list[Agreement]

    def numbers(self) -> dict[str, Any]:
        """Return all of it."""
        return asdict(self)

    def tables(self) -> list[Table]:
        """The noisiest layers; weights alone; whole networks over bits."""
        several = [layer for layer in self.layers if np.isfinite(layer.tensor)]
        noisiest = sorted(several, key=lambda layer: layer.tensor)[:NOISIEST]
        rows = [(one.name, f"{one.spread:.1f}", f"{one.channels:.1f}", f"{one.tensor:.1f}") for one in noisiest]
        layers = Table(
            f"{self.network}, weights of one layer alone in 8 bits: dB of the logits, {self.crops} crops",
            ("layer", "spread", "a scale for each channel", "one for all"),
            rows,
            notes=("spread: largest weight of a channel over that of the median channel",),
        )
        found = [*self.weights, *self.bits, *self.uncorrected]
        return [layers, Table("All weights, and whole networks", _HEADER, [_cells(one) for one in found])]

    def draw(self, figure: Figure) -> None:
        """Noise of each layer's weights above, over the bits below."""
        from npmobilenet.bench.study.pictures import BLUE, GREY, RED

        figure.set_size_inches(figure.get_size_inches()[0], 6.4)
        above, below = figure.subplots(2, 1, height_ratios=(1.25, 1))
        places = np.arange(len(self.layers))
        for values, colour, label in (
            ([layer.channels for layer in self.layers], BLUE, "a scale for each channel"),
            ([layer.tensor for layer in self.layers], RED, "one scale for the layer"),
        ):
            above.plot(places, np.minimum(values, SILENT), "o", color=colour, label=label, markersize=4)
        above.vlines(
            places,
            np.minimum([layer.tensor for layer in self.layers], SILENT),
            np.minimum([layer.channels for layer in self.layers], SILENT),
            color=GREY,
            linewidth=0.8,
        )
        above.set_xticks(places, [layer.name for layer in self.layers], rotation=90, fontsize=6)
        above.set_xlim(-1, len(places))
        above.set_ylabel("dB of the logits")
        above.set_title(f"{self.network}: weights of one layer alone in 8 bits (higher is better)")
        above.set_ylim(top=SILENT + 8)
        above.legend(loc="upper right", ncols=2)
        bits = list(WEIGHT_BITS)
        for found, colour, label in (
            (self.bits, BLUE, "whole network"),
            (self.uncorrected, RED, "without correcting biases"),
        ):
            below.plot(bits, [one.decibels for one in found], "o-", color=colour, label=f"{label}: dB")
        shares = below.twinx()
        shares.plot(bits, [100 * one.same for one in self.bits], "x--", color=BLUE, label="same class: %")
        shares.plot(bits, [100 * one.same for one in self.uncorrected], "x--", color=RED)
        shares.set_ylim(0, 105)
        shares.set_ylabel("same class as float32, %  (×)")
        shares.grid(visible=False)
        shares.spines["right"].set_visible(True)
        below.set_xticks(bits)
        below.set_xlabel("bits of a weight; activations have 8")
        below.set_ylabel("dB of the logits  (•)")
        below.legend(loc="upper left")


_HEADER = ("what", "dB", "same class", "where float32 is sure")


def _cells(one: Agreement) -> tuple[str, ...]:
    return (one.model, f"{one.decibels:.1f}", f"{one.same:.0%}", f"{one.same_where_sure:.0%}")


def study(images: Sequence[str], count: int, model: str) -> Noise:
    """Measure it.

    Parameters
    ----------
    images : sequence of str
        Photographs, of which crops are taken.
    count : int
        How many crops.
    model : str
        Weights known by name or a checkpoint.

    Raises
    ------
    ValueError
        If the network is of 8 bits already.
    """
    network = load_network(model)
    if network.graph.is_quantised:
        raise ValueError(f"{model}: is of 8 bits already; the study rounds weights of float32")
    size = network.preprocessing.crop
    preprocessing = replace(network.preprocessing, resize=size, crop_fraction=None)
    x = np.stack([preprocess(crop, preprocessing) for crop in crops([Path(image) for image in images], count)])
    graph, weights = folded(network)
    exact = _logits(graph, weights, x)

    def found(name: str, changed: Mapping[str, np.ndarray]) -> Agreement:
        return agreement_of(name, exact, _logits(graph, {**weights, **changed}, x))

    layers, all_rounded = [], {True: {}, False: {}}
    for node in graph:
        own = {name: array for name, array in _weights(node, weights)}
        if not own:
            continue
        rounded = {each: {name: round_weights(array, each) for name, array in own.items()} for each in (True, False)}
        noise = {each: found(node.name, changed).decibels for each, changed in rounded.items()}
        layers.append(Layer(node.name, node.operation, _spread(own.values()), noise[True], noise[False]))
        for each, changed in rounded.items():
            all_rounded[each] |= changed
    alone = [
        found("weights alone, a scale for each channel", all_rounded[True]),
        found("weights alone, one scale for a layer", all_rounded[False]),
    ]
    whole = {
        corrected: [_quantised(network, exact, x, bits, corrected) for bits in WEIGHT_BITS]
        for corrected in (True, False)
    }
    return Noise(network.architecture, count, layers, alone, whole[True], whole[False])


def folded(network: Model) -> tuple[Graph, dict[str, np.ndarray]]:
    """The fused graph with its batch norms folded in, and its weights."""
    given, _ = network.stored()
    fused, nodes, weights = fuse(network.graph), [], {}
    for node in fused:
        arrays = {name: given[f"{node.name}.{name}"] for name in node.parameters}
        if "norm" in node.attributes:
            parts, bias = folded_parameters(node, given)
            names = [name for name in arrays if name.endswith("weight")]
            parts = parts if isinstance(parts, list) else np.split(parts, len(names))
            ends = np.cumsum([len(part) for part in parts])
            biases = [f"{name.removesuffix('weight')}bias" for name in names]
            arrays = dict(zip(names, parts, strict=True))
            arrays |= dict(zip(biases, np.split(bias, ends[:-1]), strict=True))
        arrays = {name: np.float32(array) for name, array in arrays.items()}
        attributes = {name: value for name, value in node.attributes.items() if name != "norm"}
        shapes = {name: array.shape for name, array in arrays.items()}
        nodes.append(Node(node.name, node.operation, node.inputs, node.block, shapes, attributes))
        weights |= {f"{node.name}.{name}": array for name, array in arrays.items()}
    return replace(fused, nodes=tuple(nodes)), weights


def round_weights(weight: np.ndarray, each_channel: bool, bits: int = 8) -> np.ndarray:
    """Return the nearest of so many steps on either side of 0; a scale for each output channel (the first axis)."""
    over = tuple(range(1, weight.ndim)) if each_channel else None
    largest = np.abs(weight).max(axis=over, keepdims=True)
    scale = np.maximum(largest, np.finfo(np.float32).tiny) / (2 ** (bits - 1) - 1)
    return (np.rint(weight / scale) * scale).astype(np.float32)


def _weights(node: Node, weights: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    for name in node.parameters:
        if name.endswith("weight") and node.kind.parameter(name).multiplied:
            yield f"{node.name}.{name}", weights[f"{node.name}.{name}"]


def _spread(weights: Sequence[np.ndarray]) -> float:
    spreads = []
    for weight in weights:
        largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
        spreads.append(float(largest.max() / max(np.median(largest), np.finfo(np.float32).tiny)))
    return max(spreads)


def _logits(graph: Graph, weights: Mapping[str, np.ndarray], x: np.ndarray, dtype: str = "float32") -> np.ndarray:
    return Engine(graph, weights, "auto" if numba_is_on() else "reference", dtype).run(x)


def _quantised(network: Model, exact: np.ndarray, x: np.ndarray, bits: int, corrected: bool) -> Agreement:
    """The whole network in 8 bits, weights in fewer."""
    weights, _ = network.stored()
    name = f"{bits} bits" + ("" if corrected else ", biases not corrected")
    made = quantised(network.graph, weights, network.preprocessing, weight_bits=bits, correct_biases=corrected)
    return agreement_of(name, exact, _logits(made.graph, made.weights, x, "int8"))
