"""A network of float32 becomes one of 8 bits: where what must be known of its values comes from.

From the statistics of its batch norms, without an image; where these are folded into the convolutions, or say what is
not so, from photographs or, failing those, from images that are made up.

Ranges of a few images say little of a network without batch norms (a segmenter of persons has channels for persons):
there only those count that activations bound. So it is where the outputs are too far from those of float32 with them;
and if they are too far without, layers stay float32 (`mixed_precision`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from npmobilenet.engine import Engine
from npmobilenet.graph import WINDOWED, Graph, Node
from npmobilenet.image import Preprocessing
from npmobilenet.kernels import reference
from npmobilenet.kernels.geometry import Pair
from npmobilenet.machine import numba_is_on
from npmobilenet.mixed_precision import Judge, layers_kept, signal_to_noise
from npmobilenet.passes import fuse
from npmobilenet.passes_int8 import OF_MEANS, quantized
from npmobilenet.passes_rounded import Rounded, apart, rounded
from npmobilenet.statistics import Values, has_statistics, measured, promised
from npmobilenet.text import plural

OF_PHOTOGRAPHS = 1.25  # by which a range is wider than what was found in them
OF_MADE_UP = {1: 3.0, 12: 2.0}  # likewise, by how many of the images are clouds
DEVIATIONS, BESIDE_NORMS = 8.0, 1.25  # a batch norm's range, and how far one that was found may widen it
LINEAR_DEVIATIONS = 6.0  # of results that are rounded without an activation
NORMS = "batch norms"
BOUNDED = {"relu6": 6.0, "sigmoid": 1.0, "hard_sigmoid": 1.0}
DISAGREEMENT = 0.4  # `_agree`: trained networks have 0.05 to 0.2, seeded weights 0.7
LEAST_DECIBELS = 20.0  # of every output, in every image that is made up to judge by, or photograph that is given
ENOUGH_DECIBELS = 25.0  # where layers stay float32 to have them: other photographs may have less
LEAVES, IN_AN_IMAGE = 8, 60  # images of leaves to judge by, and leaves
LARGEST_JUDGE = 256  # sides that are not halved
WEIGHT_BITS = range(4, 9)


@dataclass(frozen=True)
class Quantised:
    """A quantised network.

    Attributes
    ----------
    graph : Graph
    weights : dict of str to array
    known_from : tuple of str
        Where ranges and means come from, and the reason as `provenance.Provenance` has it.
    """

    graph: Graph
    weights: dict[str, np.ndarray]
    known_from: tuple[str, str]


def quantised(
    graph: Graph,
    weights: Mapping[str, np.ndarray],
    preprocessing: Preprocessing,
    images: Sequence[np.ndarray] | None = None,
    weight_bits: int = 8,
    correct_biases: bool = True,
) -> Quantised:
    """Quantise a network.

    Parameters
    ----------
    graph, weights
        Of float32.
    preprocessing : Preprocessing
        It tells the range of the image.
    images : sequence of float32 array (C, H, W), optional
        From which the means of tensors are taken, and ranges where no batch norm tells them.
    weight_bits : int
        Of what is stored in int8, 4 to 8.
    correct_biases : bool
        Whether what rounded weights add to the means is taken off the biases.

    Raises
    ------
    ValueError
        If the graph is quantised already, there is nothing in it that could be, or an option is out of range.
    """
    if not (isinstance(weight_bits, (int, np.integer)) and weight_bits in WEIGHT_BITS):
        raise ValueError(f"weight_bits must be an integer from 4 to 8, got {weight_bits!r}")
    _check(graph)
    fused = fuse(graph)
    known = _known(fused, weights, preprocessing, images)
    means, largest = known.means if correct_biases else {}, float(np.abs(preprocessing.ends).max())

    def written(ranges: Mapping[str, Values], whole: Collection[str] = ()) -> Quantised:
        made = quantized(graph, weights, ranges, means, largest, int(weight_bits), whole)
        return Quantised(*made, known.known_from)

    if known.are_told:
        return written(known.ranges)
    bounds = _bounds(fused, known.found)
    if all("norm" not in node.attributes for node in fused):  # the publisher folded them
        return written(bounds)
    size, names = preprocessing.crop, [fused.node_of(output) for output in fused.output_names]
    of_places = any(len(fused.shapes(size)[name]) > 1 for name in names)  # a class is one among many, and more robust
    images = _judges(preprocessing, graph.in_channels) if of_places and not known.of_photographs else known.images
    judge = Judge.of(graph, weights, images)
    for ranges in (known.ranges, bounds):
        made = written(ranges)
        if judge.decibels((made.graph, made.weights)) >= LEAST_DECIBELS:
            return made
    if not of_places or weight_bits < max(WEIGHT_BITS):  # who asks for fewer bits wants them everywhere
        return made
    return written(bounds, _kept(fused, made.graph, judge, lambda whole: written(bounds, whole), size))


def _kept(
    fused: Graph, made: Graph, judge: Judge, written: Callable[[Collection[str]], Quantised], size: Pair
) -> frozenset[str]:
    """The layers that stay float32 because the network is too far from that of float32 without them."""
    shapes, rounded_ones = fused.shapes(size), {node.name for node in made if node.operation.endswith("_int8")}
    multiply_adds = {node.name: node.macs(shapes[node.name]) for node in fused if node.name in rounded_ones}

    def network(whole: Collection[str]) -> tuple[Graph, Mapping[str, np.ndarray]]:
        found = written(whole)
        return found.graph, found.weights

    return layers_kept(judge, network, multiply_adds, ENOUGH_DECIBELS)


def with_roundings(
    graph: Graph,
    weights: Mapping[str, np.ndarray],
    preprocessing: Preprocessing,
    images: Sequence[np.ndarray] | None = None,
) -> tuple[Rounded, tuple[str, str]]:
    """Return a network of float32 with its roundings to 8 bits, as other runtimes compute them.

    Parameters and errors are those of :func:`quantised`; with the network comes where ranges and means are from.
    """
    _check(graph)
    fused, tensors = fuse(graph), apart(graph)
    known = _known(tensors, weights, preprocessing, images, clouds=max(OF_MADE_UP))
    means = dict(known.means)
    if known.means is not known.found:  # batch norms do not tell the means of what stands apart
        last = {name: original for original, name in fused.merged.items() if original in known.found}
        means |= {last.get(name, name): values for name, values in promised(fused, weights).items()}
    ranges = _every_range(tensors, weights, known, means)
    return rounded(tensors, weights, ranges, means, preprocessing.ends), known.known_from


def _every_range(
    graph: Graph, weights: Mapping[str, np.ndarray], known: Known, means: Mapping[str, Values]
) -> dict[str, Values]:
    """The range of every tensor, also where batch norms do not tell it."""
    ranges: dict[str, Values] = {}
    deviations: dict[str, np.ndarray] = {}
    for node in graph:
        told, found, source = known.ranges[node.name], known.found[node.name], ranges.get(node.inputs[0])
        if node.operation == "add" and all(name in deviations for name in node.inputs):
            deviations[node.name] = np.sqrt(sum(deviations[name] ** 2 for name in node.inputs))
            told = _around(means[node.name].mean, deviations[node.name], found)
        elif told.low is None and node.operation == "activation":
            told = _activated(source, node["function"])
        elif told.low is None:
            told = found.wider(OF_PHOTOGRAPHS if known.of_photographs else OF_MADE_UP[1])
        elif node.operation in WINDOWED and node.attributes.get("activation", "none") == "none" and known.are_told:
            deviations[node.name] = np.abs(weights[f"{node['norm'].name}.weight"].astype(np.float64))
            told = _around(told.mean, deviations[node.name], found)
        if (
            node.operation == "squeeze_excite"
        ):  # an image may open the gates of other channels: what they scale is known
            scaled = known.found[node.inputs[0]]
            told = Values(np.minimum(told.low, scaled.low), np.maximum(told.high, scaled.high), told.mean)
        if node.operation in OF_MEANS:  # never more than what they are of
            told = Values(np.maximum(told.low, source.low), np.minimum(told.high, source.high), told.mean)
        ranges[node.name] = told
    return ranges


def _around(mean: np.ndarray, deviation: np.ndarray, found: Values) -> Values:
    """The range of a linear result, whose ends are seldom reached: wider where an image had more."""
    usual, most = LINEAR_DEVIATIONS * deviation, DEVIATIONS * deviation
    low, high = np.maximum(found.low, mean - most), np.minimum(found.high, mean + most)
    return Values(np.minimum(mean - usual, low), np.maximum(mean + usual, high), mean)


def _activated(source: Values, function: str) -> Values:
    """The range of what an activation makes of one."""
    made = reference.ACTIVATIONS[function](np.linspace(source.low, source.high, 129))
    return Values(np.minimum(made.min(axis=0), 0), np.maximum(made.max(axis=0), 0))


def _check(graph: Graph) -> None:
    if graph.is_quantised:
        raise ValueError("the network is of 8 bits already; quantise the one of float32 that it was made of")
    if not any(node.operation in WINDOWED for node in graph):
        raise ValueError("the network has no convolutions: there is nothing that 8 bits would make faster")


@dataclass(frozen=True)
class Known:
    """What is known of the values of a network's tensors.

    Attributes
    ----------
    ranges, means : mapping of str to Values
        By node; not of all.
    found : mapping of str to Values
        What images have, all tensors.
    known_from : tuple of str
    images : sequence of array
        Some of those images.
    """

    ranges: Mapping[str, Values]
    means: Mapping[str, Values]
    found: Mapping[str, Values]
    known_from: tuple[str, str]
    images: Sequence[np.ndarray]

    @property
    def are_told(self) -> bool:
        """Whether batch norms tell ranges."""
        return self.known_from[0].startswith(NORMS)

    @property
    def of_photographs(self) -> bool:
        """Whether the images are photographs."""
        return self.known_from[1] == "option"


def _known(
    fused: Graph,
    weights: Mapping[str, np.ndarray],
    preprocessing: Preprocessing,
    images: Sequence[np.ndarray] | None,
    clouds: int = 1,
) -> Known:
    """With ``clouds``, how many of the images that are made up are such."""
    told, limit = promised(fused, weights, DEVIATIONS), promised(fused, weights)
    has_norms = all(has_statistics(node, weights) for node in fused if node.operation in WINDOWED)
    if images is not None:
        found = _measured(fused, weights, images)
        photographs = plural(len(images), "photograph")
        if has_norms and _agree(fused, told, found):
            known_from = (f"{NORMS}, {photographs}", "option")
            return Known(_beside_norms(told, limit, found), found, found, known_from, images)
        return Known(_ranges(fused, found, OF_PHOTOGRAPHS), found, found, (photographs, "option"), images)
    made_up = made_up_images(preprocessing, fused.in_channels, clouds)
    one = _measured(fused, weights, made_up[:1])
    if has_norms and _agree(fused, told, one):
        return Known(_beside_norms(told, limit, one), told, one, (NORMS, "file"), made_up[:1])
    found, known_from = _measured(fused, weights, made_up), ("images made up", "assumed")
    return Known(_ranges(fused, found, OF_MADE_UP[clouds]), found, found, known_from, made_up[:1])


def _measured(graph: Graph, weights: Mapping[str, np.ndarray], images: Sequence[np.ndarray]) -> dict[str, Values]:
    """What every tensor of a fused graph holds, one image after the other."""
    names = [node.name for node in graph]
    whole = replace(graph, outputs={name: name for name in names})  # so that nothing more is fused
    engine = Engine(whole, weights, "auto" if numba_is_on() else "reference")
    found: dict[str, Values] = {}
    for image in images:
        one = measured(engine.outputs(image[None], names))
        found = {name: values.joined(found.get(name)) for name, values in one.items()}
    return {name: values.of_images(len(images)) for name, values in found.items()}


def made_up_images(preprocessing: Preprocessing, channels: int, clouds: int = 1) -> list[np.ndarray]:
    """Images as the network takes them: clouds, with the spectrum 1/f that photographs have, and last random pixels.

    All clouds but the first have a brightness and a contrast of their own.
    """
    random, size = np.random.default_rng(0), preprocessing.crop
    made = [_clouds(random, size, channels, 0.45, 0.22)]
    pixels = random.integers(0, 256, (channels, *size)) / 255
    for seed in range(1, clouds):
        random = np.random.default_rng(seed)
        made.append(_clouds(random, size, channels, random.uniform(0.25, 0.65), random.uniform(0.1, 0.35)))
    return [_normalised(image, preprocessing) for image in (*made, pixels)]


def _judges(preprocessing: Preprocessing, channels: int) -> list[np.ndarray]:
    """Images to judge by, as different as photographs are; no larger than need be, noise is the same in half the size.

    Clouds, random pixels, and leaves that lie upon one another: areas and edges of all sizes (Lee et al. 2001).
    """
    smaller = tuple(side if side <= LARGEST_JUDGE else side // 2 for side in preprocessing.crop)
    made = [_leaves(np.random.default_rng(seed), smaller, channels) for seed in range(LEAVES)]
    preprocessing = replace(preprocessing, crop=smaller)
    return [*(_normalised(image, preprocessing) for image in made), *made_up_images(preprocessing, channels)]


def _normalised(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    mean, std = (np.resize(each, len(image))[:, None, None] for each in (preprocessing.mean, preprocessing.std))
    return ((image - mean) / std).astype(np.float32)


def _leaves(random: np.random.Generator, size: Pair, channels: int) -> np.ndarray:
    """Ellipses, the smaller ones above, each of one colour."""
    image = np.empty((channels, *size))
    image[:] = random.uniform(0, 1, (channels, 1, 1))
    rows, columns = np.ogrid[: size[0], : size[1]]
    for radius in np.sort(min(size) / 2 * random.uniform(0.03, 1, IN_AN_IMAGE) ** 2)[::-1]:
        top, left = random.uniform(0, size[0]), random.uniform(0, size[1])
        longer = random.uniform(0.3, 3)
        inside = ((rows - top) * longer) ** 2 + ((columns - left) / longer) ** 2 < radius**2
        image[:, inside] = np.clip(random.uniform(0, 1) + random.normal(0, 0.15, (channels, 1)), 0, 1)
    return image


def _clouds(random: np.random.Generator, size: Pair, channels: int, level: float, contrast: float) -> np.ndarray:
    """What all channels have in common, and each of its own."""
    frequency = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1]))
    frequency[0, 0] = np.inf
    clouds = np.fft.ifft2(np.fft.fft2(random.standard_normal((channels + 1, *size))) / frequency).real
    clouds /= clouds.std(axis=(1, 2), keepdims=True) + np.finfo(float).tiny  # of one pixel there are none
    return np.clip(level + contrast * (0.9 * clouds[0] + 0.45 * clouds[1:]), 0, 1)


def _beside_norms(
    told: Mapping[str, Values], limit: Mapping[str, Values], found: Mapping[str, Values]
) -> dict[str, Values]:
    """What batch norms tell, and more where even one image had more; as far as they allow."""
    return {
        name: values.including(found[name].wider(BESIDE_NORMS), limit[name]) if name in found else values
        for name, values in told.items()
    }


def _ranges(fused: Graph, found: Mapping[str, Values], allowance: float) -> dict[str, Values]:
    """What was found, with an allowance for other images; what an activation bounds has its bound."""
    return {name: values.wider(allowance) for name, values in found.items()} | _bounds(fused, found)


def _bounds(fused: Graph, found: Mapping[str, Values]) -> dict[str, Values]:
    """The ranges that activations bound, with the means that were found."""
    ranges = {}
    for node in fused:
        if node.attributes.get("activation") in BOUNDED and not node.attributes.get("residual"):
            channels, bound = len(found[node.name].mean), BOUNDED[node["activation"]]
            ranges[node.name] = Values(np.zeros(channels), np.full(channels, bound), found[node.name].mean)
    return ranges


def _agree(fused: Graph, told: Mapping[str, Values], found: Mapping[str, Values]) -> bool:
    """Whether batch norms' statistics are those of the network: weights that were never trained have others.

    The measure is how far the means that were found behind activations lie from those that are told, in the median
    over the layers: 0 is the same, 1 is without relation.
    """
    distances = []
    for node in fused:
        if told[node.name].low is not None and node.attributes.get("activation", "none") != "none":
            mean, other = told[node.name].mean, found[node.name].mean
            distances.append(((mean - other) ** 2).sum() / max((mean**2 + other**2).sum(), np.finfo(float).tiny))
    return bool(distances) and float(np.median(distances)) < DISAGREEMENT


@dataclass(frozen=True)
class Layer:
    """What became of a layer.

    Attributes
    ----------
    name, operation : str
    dtype : str
        Of its result.
    scales : (float, float) or None
        The smallest and the largest scale of a channel of a result in uint8.
    weight_dtype : str
        Empty without weights.
    weight_bytes, result_bytes : int
        Of all its parameters; of its result.
    decibels : float or None
        Its result's signal to noise, against that of the network of float32: infinite where they are equal, None where
        that has no such tensor.
    """

    name: str
    operation: str
    dtype: str
    scales: tuple[float, float] | None
    weight_dtype: str
    weight_bytes: int
    result_bytes: int
    decibels: float | None


def layers(graph: Graph, weights: Mapping[str, np.ndarray], made: Quantised, image: np.ndarray) -> list[Layer]:
    """Return what became of each layer of a network, computed for one image (C, H, W)."""
    backend = "auto" if numba_is_on() else "reference"
    names = [node.name for node in fuse(graph)]
    exact = Engine(graph, weights, backend).outputs(image[None], names)
    engine = Engine(made.graph, made.weights, backend, "int8")
    near = engine.outputs(image[None], [node.name for node in made.graph])
    for node in made.graph:  # what is only converted is compared with what it was before
        if node.name in (f"{node.inputs[0]}.quantized", f"{node.inputs[0]}.dequantized") and node.inputs[0] in exact:
            exact[node.name] = exact[node.inputs[0]]
    return [_layer(node, made.weights, near[node.name], exact.get(node.name)) for node in made.graph]


def _layer(node: Node, weights: Mapping[str, np.ndarray], near: np.ndarray, exact: np.ndarray | None) -> Layer:
    arrays = {name: weights[f"{node.name}.{name}"] for name in node.parameters}
    dtypes = [array.dtype.name for name, array in arrays.items() if name.endswith("weight")]
    scale, dtype = arrays.get("out_scale"), node.kind.result_dtype(node)
    return Layer(
        node.name,
        node.operation,
        dtype,
        None if scale is None else (float(scale.min()), float(scale.max())),
        dtypes[0] if dtypes else "",
        sum(array.nbytes for array in arrays.values()),
        near.size * np.dtype(dtype).itemsize,
        None if exact is None else signal_to_noise(near, exact),
    )
