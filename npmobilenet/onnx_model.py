"""A network of an ONNX file that is computed in parts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from npmobilenet.backends import DEFAULT
from npmobilenet.dlpack import host_array
from npmobilenet.errors import FallbackWarning
from npmobilenet.graph import Graph
from npmobilenet.labels import class_names
from npmobilenet.machine import available_cpus
from npmobilenet.model import Model
from npmobilenet.text import plural, printable, quote

if TYPE_CHECKING:
    from npmobilenet.kernels.geometry import Pair
    from npmobilenet.onnx.file import Node as OnnxNode
    from npmobilenet.onnx.loading import OnnxNetwork
    from npmobilenet.onnx.parts import Part


class Division(NamedTuple):
    """How a network is computed in parts.

    Attributes
    ----------
    steps : list of Part or Node
        One after the other; nodes are NumPy's.
    shapes : mapping of str to tuple of int
        Of every tensor whose shape is known before a call.
    reasons : mapping of str to str
        Why NumPy computes a node, by its first output.
    """

    steps: list[Part | OnnxNode]
    shapes: Mapping[str, tuple[int, ...]]
    reasons: Mapping[str, str]


class OnnxModel(Model):
    """A network of an ONNX file that is no single graph of this package's.

    The fast kernels compute the parts that are, and NumPy the nodes between them. Made by :func:`load`;
    ``isinstance(model, Model)`` holds, and :meth:`run`, :meth:`classify`, :meth:`preprocess` and :meth:`top` are a
    model's. What needs a single graph (:meth:`features`, :meth:`count`, :func:`quantize`, ``export_weights``) raises
    ``ValueError``.
    """

    def __init__(
        self,
        network: OnnxNetwork,
        *,
        threads: int | None = None,
        backend: str = DEFAULT,
        keep_bytes: int | None = None,
        source: str = "",
    ) -> None:
        from npmobilenet.onnx.parts import Session, has_channels_last

        self.architecture, self.width, self.dtype = printable(Path(source).stem), 1.0, network.dtype
        self._has_logits, self._detector, self._segments = network.outputs > 0, None, False
        self.classes = class_names(network.outputs, network.classes) if network.outputs else ()
        self.multi_label, self.preprocessing = network.multi_label, network.preprocessing
        self._cpus = available_cpus()
        self.threads = self._cpus if threads is None else self._thread_count(threads)
        self._asked, self.keep_bytes = backend, keep_bytes
        self.source, self.read_from, self.definition, self.names = source, "", None, None
        self.provenance = network.provenance
        self.input_names = tuple(port.name for port in network.graph.inputs)
        self.input_name, self.size = next(iter(self.input_names), ""), None
        self.channels_last = has_channels_last(network.graph)
        self._engine = Session(network.graph, backend, keep_bytes)
        self._said = False  # that some layers are slower than others

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cpus = 1

    @property
    def graph(self) -> Graph:
        raise self._not_one_graph()

    _in_channels = _outputs = graph  # what is asked of one

    def stored(self, dtype: str | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        raise self._not_one_graph()

    def _not_one_graph(self) -> ValueError:
        return ValueError(
            f"{printable(self.source)}: is computed in parts, of which `npmobilenet inspect` shows each; this needs a "
            "network that is one graph"
        )

    @property
    def backend(self) -> str:
        return self._asked

    @property
    def plain_layers(self) -> dict[str, str]:
        return {}

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(port.name for port in self._engine.graph.outputs)

    def __repr__(self) -> str:
        inputs = "; ".join(map(str, self._engine.graph.inputs))
        return (
            f"<npmobilenet.OnnxModel {self.architecture} of {plural(len(self._engine.graph.nodes), 'node')}, inputs: "
            f"{inputs or 'none'}; backend={self._asked!r} threads={self.threads} from {quote(self.source, 500)}>"
        )

    def __call__(self, x: np.ndarray | Any, *, threads: int | None = None) -> np.ndarray:
        """Compute the first output of a network with one input.

        Parameters
        ----------
        x : array
            As the file says; images as (N, C, H, W) even where it has channels last. Where it fixes a batch to one,
            several are computed one after the other.
        threads : int, optional

        Raises
        ------
        ValueError
            If the array is not of that kind, or there are several inputs.
        """
        if len(self.input_names) != 1:
            raise ValueError(f"the network has {len(self.input_names)} inputs: give them by name to run()")
        x = host_array(x)
        if self.channels_last and x.ndim == 4:
            x = x.transpose(0, 2, 3, 1)
        (port,), first = self._engine.graph.inputs, self.output_names[0]
        if port.shape and port.shape[0] == 1 and x.ndim == len(port.shape) and len(x) > 1:
            return np.concatenate([self.run({port.name: one[None]}, threads=threads)[first] for one in x])
        return self.run({port.name: x}, threads=threads)[first]

    def run(self, inputs: Mapping[str, np.ndarray | Any], *, threads: int | None = None) -> dict[str, np.ndarray]:
        """Compute all outputs.

        Parameters
        ----------
        inputs : mapping of str to array
            By the names in the file; of the types and shapes that it says.
        threads : int, optional

        Returns
        -------
        dict of str to array
            By :attr:`output_names`, in that order.

        Raises
        ------
        ValueError
            If an input is missing, unknown, or does not fit.
        """
        threads = self._thread_count(self.threads if threads is None else threads)
        outputs = self._engine.run({name: host_array(array) for name, array in inputs.items()}, threads)
        slower = self._engine.fallback
        if slower and not self._said:
            self._said = True
            more = f"; likewise in {plural(len(slower) - 1, 'other part')}" if len(slower) > 1 else ""
            warnings.warn(f"{printable(self.source)}: in a part of it {slower[0]}{more}", FallbackWarning, stacklevel=2)
        return outputs

    def parts(self, size: Pair) -> Division:
        """Return how one image of ``(H, W)`` is computed; other lengths that the file leaves open are 1."""
        from npmobilenet.onnx.parts import divided

        shapes = {}
        for port in self._engine.graph.inputs:
            known = port.shape or ()
            usual = [1] * len(known)
            if len(known) == 4:
                usual = [1, *size, 1] if self.channels_last else [1, 1, *size]
            shapes[port.name] = tuple(
                length if isinstance(length, int) else other for length, other in zip(known, usual, strict=True)
            )
        bound, parts = divided(self._engine.graph, shapes)
        shapes = {name: value.shape for name, value in bound.values.items() if value is not None}
        return Division(parts, shapes, bound.reasons)
