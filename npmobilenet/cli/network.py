"""The network that a command is about: an architecture, weights known by name, or a checkpoint."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from npmobilenet.cli.options import NETWORK
from npmobilenet.cli.terminal import on_a_line
from npmobilenet.streaming.files import not_a_path
from npmobilenet.text import dimensions, quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from npmobilenet.architectures import Architecture
    from npmobilenet.graph import Graph
    from npmobilenet.kernels.geometry import Pair
    from npmobilenet.model import Model
    from npmobilenet.provenance import Provenance


@dataclass(frozen=True)
class Network:
    """An architecture and its options, from the command line or a checkpoint; or the graph of a file that has one."""

    architecture: Architecture | None
    width: float
    num_classes: int
    padding: str
    title: str
    resolution: Pair
    provenance: Provenance | None = None
    model: Model | None = None

    def name(self, size: Pair) -> str:
        """A name for images of ``(H, W)``, such as ``mobilenet_v2-1.0-224``."""
        image = size[0] if size[0] == size[1] else dimensions(size)
        name = self.model.architecture if self.architecture is None else self.architecture.name
        return f"{name}-{float(self.width)}-{image}"

    @property
    def table(self) -> Architecture:
        """The architecture, which something needs.

        Raises
        ------
        ValueError
            If there is none.
        """
        if self.architecture is None:
            raise ValueError(f"{self.title}: a whole network, and no table of an architecture, which this needs")
        return self.architecture

    def graph(self, architecture: Architecture | None = None) -> Graph:
        """The graph, or that of a variant of the architecture."""
        if architecture is None and self.architecture is None:
            return self.model.graph
        return (architecture or self.table).graph(self.width, self.num_classes, self.padding)

    def with_weights(self) -> tuple[Graph, Mapping[str, np.ndarray]]:
        """The graph and a checkpoint's weights, or an architecture's random ones, always the same."""
        from npmobilenet.architectures import random_weights

        if self.model is None:
            graph = self.graph()
            return graph, random_weights(graph)
        return self.model.graph, self.model.stored()[0]


def find_network(name: str, options: argparse.Namespace, of_bytes: bool = False) -> Network:
    """Return the network of this name, with the options of `options.add_network_options`.

    With ``of_bytes`` it may be one of 8 bits, whose graph is all that there is of it.
    """
    from npmobilenet.architectures import ARCHITECTURES
    from npmobilenet.checkpoints.key_maps import with_layout

    _check_name(name)
    architecture = ARCHITECTURES.get(name)
    if architecture:
        architecture = with_layout(architecture, options.layout)
        if options.output_stride is not None:
            architecture = architecture.with_output_stride(options.output_stride)
        width = options.width if options.width is not None else 1.0
        return Network(
            architecture,
            width,
            getattr(options, "num_classes", None) or architecture.classes,
            options.padding or "symmetric",
            f"{architecture.name}, width {width:g} ({architecture.paper})",
            (architecture.resolution, architecture.resolution),
        )
    model = find_weights(name, options)
    if model.definition is None and model.dtype == "int8" and not of_bytes:
        raise ValueError(f"{quote(name)}: holds a whole network of 8 bits, and no table of an architecture to print")
    return Network(
        model.definition,
        model.width,
        max(len(model.classes), 1),
        model.provenance["padding"][0] if model.definition else "symmetric",
        f"{on_a_line(model.source)}: {model.architecture}, width {model.width:g}",
        model.size or model.preprocessing.crop,
        model.provenance,
        model,
    )


def find_model(name: str, options: argparse.Namespace) -> Model:
    """Return the network of this name with weights, with the options of `add_network_options`, `add_backend_options`.

    A name of both an architecture and weights means the weights, unless options ask for another network; the weights
    of an architecture are random.
    """
    from npmobilenet.architectures import ARCHITECTURES, random_weights
    from npmobilenet.checkpoints.settle import proportional
    from npmobilenet.loading import load
    from npmobilenet.model import Model
    from npmobilenet.weights import CATALOGUE

    _check_name(name)
    where = {"threads": options.threads, "backend": options.backend}
    other = any(getattr(options, option) is not None for option in ("width", "num_classes", "layout", "output_stride"))
    if name not in ARCHITECTURES or (name in CATALOGUE and not other):
        told = {option: getattr(options, option) for option in NETWORK}
        return load(name, **told, num_classes=options.num_classes, **where)
    network = find_network(name, options)
    graph = network.graph()
    return Model(
        graph,
        random_weights(graph),
        architecture=network.table.name,
        width=network.width,
        preprocessing=proportional(network.table),
        source="random weights (seed 0)",
        definition=network.table,
        **where,
    )


def _check_name(name: str) -> None:
    from npmobilenet.architectures import ARCHITECTURES
    from npmobilenet.weights import CATALOGUE

    if problem := not_a_path(name):
        raise ValueError(f"{quote(name)}: {problem}")
    if name not in ARCHITECTURES and name not in CATALOGUE and not Path(name).exists():
        raise ValueError(
            f"{name}: does not exist; architectures: {', '.join(ARCHITECTURES)}; weights known by name: "
            f"{', '.join(CATALOGUE)}; or the path of a checkpoint"
        )


def find_weights(name: str, options: argparse.Namespace, dtype: str | None = None) -> Model:
    """Return the weights of this name, or in this file, as a model that is not for computing."""
    from npmobilenet.architectures import ARCHITECTURES
    from npmobilenet.loading import load
    from npmobilenet.weights import CATALOGUE

    _check_name(name)
    if name in ARCHITECTURES and name not in CATALOGUE and not Path(name).exists():
        raise ValueError(f"{name}: is an architecture, and this needs weights: a checkpoint, or {', '.join(CATALOGUE)}")
    return load(
        name,
        **{option: getattr(options, option) for option in NETWORK},
        num_classes=getattr(options, "num_classes", None),
        backend="reference",
        dtype=dtype,
    )
