"""A network with the methods of a model, whose plans were recorded: nothing looks at its layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npmobilenet.engine import Engine
from npmobilenet.machine import available_cpus
from npmobilenet.model import Model

if TYPE_CHECKING:
    from npmobilenet.recorded.program import RecordedProgram
    from npmobilenet.recorded.recording import RecordedNetwork


class RecordedModel(Model):
    """What packs and networks that are ready have in common; neither has a `graph` by this.

    Parameters
    ----------
    network : RecordedNetwork
    program : RecordedProgram
        What computes it.
    source, threads, backend, keep_bytes
        As of every model.
    """

    def __init__(
        self,
        network: RecordedNetwork,
        program: RecordedProgram,
        *,
        source: str,
        threads: int | None = None,
        backend: str = "blocked",
        keep_bytes: int | None = None,
    ) -> None:
        self._in_channels, self._outputs = network.channels, network.output_names
        self.input_name, self.channels_last = network.input_name, network.channels_last
        self.size = None if network.any_size else network.size
        self.architecture, self.width, self.dtype = network.architecture, network.width, network.dtype
        self.classes, self.multi_label = network.classes, network.multi_label
        self.preprocessing = network.preprocessing
        self._has_logits, self._segments, self._detector = network.has_logits, network.segments, network.detector
        self._cpus = available_cpus()
        self.threads = self._cpus if threads is None else self._thread_count(threads)
        self._asked, self.keep_bytes = backend, keep_bytes
        self.source, self.read_from = source, ""
        self._engine = Engine.of(program, keep_bytes)
