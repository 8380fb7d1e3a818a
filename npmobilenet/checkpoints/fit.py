"""From the tensors of a checkpoint to a network: which one it is, and its weights under our names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from npmobilenet.architectures import ARCHITECTURES, Architecture, get_architecture
from npmobilenet.checkpoints.key_maps import Naming, identify
from npmobilenet.errors import CheckpointError
from npmobilenet.graph import CONVOLUTIONS, Graph

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
    padding: str = "symmetric",
    bn_eps: float = 1e-5,
    where: str = "checkpoint",
) -> Fitted:
    """Find the network that a checkpoint's tensors belong to and give them the graph's names.

    Parameters
    ----------
    tensors : mapping of str to array
        As the checkpoint names them.
    architecture, width, num_classes : optional
        Read off the names and shapes of the tensors where they are None.
    padding, bn_eps
        Of the graph; a checkpoint of tensors alone does not tell them.
    where : str
        What to call the checkpoint in an error.

    Raises
    ------
    CheckpointError
        If no known network has such tensors, or if a tensor is missing, left over or misshapen: all of them
        are listed with the shapes expected and found.
    """
    candidates = ARCHITECTURES if architecture is None else (get_architecture(architecture).name,)
    naming = identify(tensors, candidates)
    if naming is None:
        some = ", ".join(list(tensors)[:3])
        raise CheckpointError(
            f"{where}: its tensors ({len(tensors)}: {some}, ...) are not those of {' or '.join(candidates)} "
            f"as torchvision or timm name them"
        )
    if width is None:
        width = infer_width(naming, tensors)
    if num_classes is None:
        num_classes = _class_count(naming, tensors, where)
    graph = naming.architecture.graph(width, num_classes, padding, bn_eps)
    return Fitted(naming.architecture, naming.source, width, graph, _matched(naming, graph, tensors, width, where))


def infer_width(naming: Naming, tensors: Mapping[str, np.ndarray]) -> float:
    """Return the width multiplier that explains the channels of most blocks, preferring round numbers."""
    nodes = naming.architecture.graph().blocks
    observed = []
    for block in naming.architecture.blocks:
        convolutions = [node.name for node in nodes[block.name] if node.operation in CONVOLUTIONS]
        if convolutions:  # the last one has the block's channels
            tensor = tensors.get(f"{naming.modules[convolutions[-1]]}.weight")
            if tensor is not None and tensor.ndim == 4:
                observed.append((block.row, tensor.shape[0]))

    def explained(width: float) -> int:
        return sum(row.scaled_channels(width) == channels for row, channels in observed)

    return max(_candidate_widths(observed), key=explained)  # the first of equals


def _candidate_widths(observed: list[tuple]) -> Iterator[float]:
    yield from STANDARD_WIDTHS
    for digits in (1, 2, 3):
        ratios = {round(channels / row.channels, digits) for row, channels in observed if not row.wide}
        step = 10.0**-digits
        near = {round(ratio + offset * step, digits) for ratio in ratios for offset in range(-25, 26)}
        yield from sorted(width for width in near if width > 0)


def _class_count(naming: Naming, tensors: Mapping[str, np.ndarray], where: str) -> int:
    key = f"{naming.modules['classifier']}.weight"
    if key not in tensors or tensors[key].ndim != 2 or not len(tensors[key]):
        found = f"has shape {tensors[key].shape}" if key in tensors else "is missing"
        raise CheckpointError(
            f"{where}: the number of classes cannot be told: {key}, expected (classes, channels), {found}"
        )
    return len(tensors[key])


def _matched(
    naming: Naming, graph: Graph, tensors: Mapping[str, np.ndarray], width: float, where: str
) -> dict[str, np.ndarray]:
    keys, shapes = naming.keys(graph), graph.tensors
    missing = [f"{key} {shapes[name]}" for name, key in keys.items() if key not in tensors]
    extra = [f"{key} {tensors[key].shape}" for key in tensors if key not in set(keys.values())]
    misshapen = [
        f"{key}: expected {shapes[name]}, found {tensors[key].shape}"
        for name, key in keys.items()
        if key in tensors and tensors[key].shape != shapes[name]
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
    return {name: np.asarray(tensors[key], np.float32) for name, key in keys.items()}
