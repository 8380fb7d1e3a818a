"""The networks that are compared, and their files for each runtime."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.bench.peers.folded import folded_layers, output_tensors
from npmobilenet.checkpoints import export_weights
from npmobilenet.counts import count
from npmobilenet.errors import AssumptionWarning
from npmobilenet.graph import Graph
from npmobilenet.loading import load
from npmobilenet.model import Model
from npmobilenet.passes import without_norms
from npmobilenet.weights import CATALOGUE

DEFAULT = (
    "mobilenet_v2-0.35-96",
    "mobilenet_v2-0.5-160",
    "mobilenet_v2-1.0-224",
    "mobilenet_v2-1.4-224",
    "mobilenet_v1-1.0-224",
    "mobilenet_v3_large-1.0-224",
    "mixnet_s-1.0-224",
    "mnasnet_b1-1.0-224",
    "efficientnet_b0-1.0-224",
)


def onnx_bytes(graph: Graph, weights: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> bytes:
    """What `npmobilenet export --onnx` writes, for images of one shape (N, C, H, W).

    Batch norms are folded in: runtimes do that as well, but not all tools that quantise.
    """
    from npmobilenet.onnx.writing import onnx_graph, serialised

    network = onnx_graph(*without_norms(graph, weights), "npmobilenet", size=shape[2:])
    return serialised(replace(network, inputs=(replace(network.inputs[0], shape=shape),)))


def _onnx(graph: Graph, weights: Mapping[str, np.ndarray], shape: tuple[int, ...], path: Path) -> None:
    path.write_bytes(onnx_bytes(graph, weights, shape))


def _tflite(graph: Graph, weights: Mapping[str, np.ndarray], shape: tuple[int, ...], path: Path) -> None:
    from npmobilenet.bench.peers.tflite_export import tflite_model

    path.write_bytes(tflite_model(folded_layers(graph, weights, shape[2:]), shape, output_tensors(graph)))


def _torch(graph: Graph, weights: Mapping[str, np.ndarray], shape: tuple[int, ...], path: Path) -> None:
    import torch

    def plain(value: object) -> object:
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    described = [{**vars(layer), "outputs": layer.outputs} for layer in folded_layers(graph, weights, shape[2:])]
    layers = [{name: plain(value) for name, value in layer.items()} for layer in described]
    torch.save((layers, output_tensors(graph)), path)


EXPORTERS: dict[str, Callable[[Graph, Mapping[str, np.ndarray], tuple[int, ...], Path], None]] = {
    ".onnx": _onnx,
    ".tflite": _tflite,
    ".pt": _torch,
}


@dataclass(frozen=True)
class Network:
    """An architecture, its width multiplier and its image size, or a checkpoint; ``folder`` takes the files.

    The weights are those shipped with the package where there are any, else random ones, always the same.

    Attributes
    ----------
    architecture : str
        Or weights known by name.
    checkpoint : Path or None
    """

    architecture: str
    width: float
    size: int
    folder: Path
    checkpoint: Path | None = None
    dtype: ClassVar = "float32"

    @classmethod
    def parse(cls, text: str, folder: Path) -> Network:
        """Read such a name as ``mobilenet_v2-1.0-224``, or the path of a checkpoint.

        Raises
        ------
        ValueError
            If it is none.
        """
        if Path(text).is_file():
            model = _loaded(Path(text))
            height, width = model.size or model.preprocessing.crop
            if height != width:
                raise ValueError(f"{text}: images of {height}x{width}, and square ones are compared")
            return cls(Path(text).stem, model.width, height, folder, Path(text))
        try:
            architecture, width, size = text.rsplit("-", 2)
            network = cls(architecture, float(width), int(size), folder)
        except ValueError:
            raise ValueError(
                f"a network is written as architecture-width-size ({DEFAULT[2]}), or is a checkpoint, got {text!r}"
            ) from None
        if not network.shipped:
            get_architecture(architecture).graph(network.width)
        return network

    @property
    def name(self) -> str:
        """As :meth:`parse` reads it."""
        return f"{self.architecture}-{self.width}-{self.size}"

    @property
    def title(self) -> str:
        """What results call it."""
        return self.name

    @property
    def shipped(self) -> bool:
        """Whether the weights are real ones."""
        return self.checkpoint is None and self.width == 1 and self.architecture in CATALOGUE

    @cached_property
    def weights(self) -> Path:
        """The checkpoint that all others are made from."""
        if self.checkpoint:
            return self.checkpoint
        if self.shipped:
            return CATALOGUE[self.architecture].require()
        about = get_architecture(self.architecture)
        weights = random_weights(about.graph(self.width, about.classes))
        return export_weights(weights, self.folder / f"{self.name}.safetensors")

    @cached_property
    def model(self) -> Model:
        """In float32, as this package loads it."""
        return _loaded(self.weights)

    @property
    def macs(self) -> int:
        """Multiply-adds of one image."""
        return count(self.model.graph, (self.size, self.size)).macs

    def input(self, batch: int) -> Path:
        """A file with an input, always the same."""
        path = self.folder / f"{self.name}-{batch}.npy"
        if not path.exists():
            shape = (batch, self.model.graph.in_channels, self.size, self.size)
            np.save(path, np.random.default_rng(0).standard_normal(shape, np.float32))
        return path

    def file(self, suffix: str, batch: int) -> Path:
        """The network as a file of this kind, exported when it is first asked for."""
        if suffix == ".safetensors":
            return self.weights
        path = self.folder / f"{self.name}-{batch}{suffix}"
        if not path.exists():
            graph = self.model.graph
            shape = (batch, graph.in_channels, self.size, self.size)
            EXPORTERS[suffix](graph, self.model.stored()[0], shape, path)
        return path


def _loaded(file: Path) -> Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)
        return load(file)
