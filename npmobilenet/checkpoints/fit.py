"""From the tensors of a checkpoint to a network: which one it is, and its weights under our names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from npmobilenet.architectures import ARCHITECTURES, Architecture, get_architecture
from npmobilenet.architectures.blocks import Row
from npmobilenet.checkpoints.key_maps import Naming, identify, layers
from npmobilenet.errors import CheckpointError
from npmobilenet.graph import Graph, Shape

STANDARD_WIDTHS = (1.0, 0.25, 0.35, 0.5, 0.75, 1.3, 1.4)


@dataclass(frozen=True)
class Fitted:
    """A network and its weights.

    Attributes
    ----------
    architecture : Architecture
    source : str
        Whose names the checkpoint used.
    width : float
    graph : Graph
    weights : dict of str to float32 array
        By the graph's parameter names.
    """

    architecture: Architecture
    source: str
    width: float
    graph: Graph
    weights: dict[str, np.ndarray]


def fit(
    tensors: Mapping[str, np.ndarray],
    *,
    architecture: str | None = None,
    width: float | None = None,
    num_classes: int | None = None,
    padding: str | None = None,
    bn_eps: float | None = None,
    where: str = "checkpoint",
) -> Fitted:
    """Find the network that a checkpoint's tensors belong to and give them the graph's names.

    Parameters
    ----------
    tensors : mapping of str to array
        As the checkpoint names them.
    architecture, width, num_classes : optional
        Read off the names and shapes of the tensors where they are None.
    padding, bn_eps : optional
        Of the graph. A checkpoint of tensors alone does not tell them; where they are None, they are what networks
        with its naming have (`KeyMap`).
    where : str
        What to call the checkpoint in an error.

    Raises
    ------
    CheckpointError
        If no known network has such tensors, or if a tensor is missing, left over or misshapen: all of them
        are listed with the shapes expected and found.
    """
    candidates = ARCHITECTURES if architecture is None else (get_architecture(architecture).name,)
    fits = [(each, infer_width(each, tensors) if width is None else width) for each in identify(tensors, candidates)]
    if not fits:
        some = ", ".join(list(tensors)[:3])
        raise CheckpointError(
            f"{where}: its tensors ({len(tensors)}: {some}, ...) are not those of {', '.join(candidates)} "
            f"as torchvision or timm name them"
        )
    naming, width = max(fits, key=lambda fit: _agreement(*fit, tensors))  # the first of equals
    if num_classes is None:
        num_classes = _class_count(naming, tensors, where)
    graph = naming.architecture.graph(
        width,
        num_classes,
        naming.key_map.padding if padding is None else padding,
        naming.key_map.bn_eps if bn_eps is None else bn_eps,
    )
    weights = _matched(naming, graph, tensors, width, where)
    return Fitted(naming.architecture, naming.source, width, graph, weights)


def _agreement(naming: Naming, width: float, tensors: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """How many tensors have the expected shape, then how usual the width is."""
    graph = naming.architecture.graph(width)
    shapes, keys = graph.tensors, naming.keys(graph)
    right = sum(key in tensors and _is_shape(tensors[key].shape, shapes[name]) for name, key in keys.items())
    return right, -STANDARD_WIDTHS.index(width) if width in STANDARD_WIDTHS else -len(STANDARD_WIDTHS)


def _is_shape(found: Shape, expected: Shape) -> bool:
    """Whether a tensor has this shape; the weight of a linear layer may be stored as a 1x1 convolution's."""
    return found == expected or (len(expected) == 2 and found == (*expected, 1, 1))


def infer_width(naming: Naming, tensors: Mapping[str, np.ndarray]) -> float:
    """Return the width multiplier that explains the channels of most blocks, preferring round numbers."""
    own, observed = naming.architecture.width, []
    for block in naming.architecture.blocks:
        if block.row.kind not in ("pool", "linear"):
            module = naming.modules.get(layers(block)[-1])  # the last layer has the block's channels, unless grouped
            tensor = tensors.get(f"{module}.weight")
            if tensor is not None and tensor.ndim == 4:
                observed.append((block.row, tensor.shape[0]))
    best, most = 1.0, -1
    for width in _candidate_widths(observed, own):
        explained = sum(row.scaled_channels(own * width) == channels for row, channels in observed)
        if explained > most:  # the first of equals
            best, most = width, explained
        if most == len(observed):
            break
    return best


def _candidate_widths(observed: list[tuple[Row, int]], own: float) -> Iterator[float]:
    yield from STANDARD_WIDTHS
    for digits in (1, 2, 3):
        ratios = {round(channels / row.channels / own, digits) for row, channels in observed if row.width_from == 0}
        step = 10.0**-digits
        near = {round(ratio + offset * step, digits) for ratio in ratios for offset in range(-25, 26)}
        yield from sorted(width for width in near if width > 0)


def _class_count(naming: Naming, tensors: Mapping[str, np.ndarray], where: str) -> int:
    key = f"{naming.modules['classifier']}.weight"
    shape = tensors[key].shape if key in tensors else ()
    if len(shape) < 2 or not _is_shape(shape, shape[:2]) or not shape[0]:
        found = f"has shape {shape}" if key in tensors else "is missing"
        raise CheckpointError(
            f"{where}: the number of classes cannot be told: {key}, expected (classes, channels), {found}"
        )
    return shape[0]


def _matched(
    naming: Naming, graph: Graph, tensors: Mapping[str, np.ndarray], width: float, where: str
) -> dict[str, np.ndarray]:
    keys, shapes = naming.keys(graph), graph.tensors
    missing = [f"{key} {shapes[name]}" for name, key in keys.items() if key not in tensors]
    extra = [f"{key} {tensors[key].shape}" for key in tensors if key not in set(keys.values())]
    misshapen = [
        f"{key}: expected {shapes[name]}, found {tensors[key].shape}"
        for name, key in keys.items()
        if key in tensors and not _is_shape(tensors[key].shape, shapes[name])
    ]
    not_floats = [
        f"{key}: {tensors[key].dtype}" for key in keys.values() if key in tensors and tensors[key].dtype.kind != "f"
    ]
    problems = {
        "missing": missing,
        "not part of the network": extra,
        "of another shape": misshapen,
        "not floating-point": not_floats,
    }
    if any(problems.values()):
        lines = [
            f"{where}: does not fit {naming.architecture.name}, width {width:g}, "
            f"{shapes['classifier.weight'][0]} classes, as {naming.source} names it:"
        ]
        for title, items in problems.items():
            if items:
                lines += [f"  {len(items)} {title}:", *(f"    {item}" for item in items)]
        raise CheckpointError("\n".join(lines))
    return {name: np.asarray(tensors[key], np.float32).reshape(shapes[name]) for name, key in keys.items()}
