"""A packed network with the methods of a model."""

from __future__ import annotations

import os
import sys
from pickle import loads
from typing import TYPE_CHECKING, Any, NoReturn

from npmobilenet.engine import Engine
from npmobilenet.errors import NpmobilenetError
from npmobilenet.kernels.vector import target
from npmobilenet.provenance import Provenance
from npmobilenet.recorded.program import RecordedProgram
from npmobilenet.recorded.recording import ARRAYS, DESCRIPTION, Description, MappedArrays, RecordedNetwork
from npmobilenet.recorded_model import RecordedModel
from npmobilenet.text import dimensions, printable, quote

if TYPE_CHECKING:
    import numpy as np

    from npmobilenet.face_finder import FaceFinder


class Outline:
    """What a `Model` asks of its graph, of a network that has none any more."""

    def __init__(self, network: RecordedNetwork) -> None:
        self.in_channels, self.main_output = network.channels, network.main_output
        self.output_names = self.outputs = network.output_names
        self.blocks: dict[str, list] = {}


class PackedModel(RecordedModel):
    """A network as `npmobilenet pack` wrote it, most often for images of one size; made by :func:`load`.

    It is called as any :class:`~npmobilenet.model.Model`, and classifies, detects or segments. What needs the network's
    layers (:meth:`features`, :meth:`count`, ``export_weights``, :func:`~npmobilenet.model.quantize`) raises
    ``ValueError``.
    """

    def __init__(
        self,
        network: RecordedNetwork,
        arrays: MappedArrays,
        level: str,
        *,
        threads: int | None = None,
        keep_bytes: int | None = None,
    ) -> None:
        program = RecordedProgram(network, arrays, level)
        super().__init__(network, program, source=network.source, threads=threads, keep_bytes=keep_bytes)
        self.graph = Outline(network)
        self.definition, self.names, self.provenance = None, None, Provenance()
        self._packed = network, (arrays.file, arrays.offset, arrays.size), level

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        network, arrays, level = self._packed
        self._cpus = 1
        self._engine = Engine.of(RecordedProgram(network, MappedArrays(*arrays), level), self.keep_bytes)

    def __repr__(self) -> str:
        size = f"{dimensions(self.size)} " if self.size else ""
        return (
            f"<npmobilenet.PackedModel {self.architecture} width={self.width:g} classes={len(self.classes)} {size}"
            f"dtype={self.dtype!r} threads={self.threads} from {quote(self.source, 500)}>"
        )

    def stored(self, dtype: str | None = None) -> NoReturn:
        raise self._has_no_layers()

    def count(self, height: int | None = None, width: int | None = None) -> NoReturn:
        raise self._has_no_layers()

    def features(self, x: np.ndarray, block: str = "pool", *, threads: int | None = None) -> NoReturn:
        raise self._has_no_layers()

    @property
    def _weights(self) -> NoReturn:
        raise self._has_no_layers()

    def _has_no_layers(self) -> ValueError:
        return ValueError(f"{printable(self.source)}: is packed, and knows its layers no more: load what was packed")


def load(*, threads: int | None = None, keep_bytes: int | None = None) -> PackedModel | FaceFinder:
    """Open the pack that this module is in.

    Parameters
    ----------
    threads, keep_bytes : int, optional
        As for :func:`npmobilenet.load`.

    Returns
    -------
    PackedModel
        Or, of a detector of faces that was packed with a classifier of their expressions, a
        :class:`~npmobilenet.face_finder.FaceFinder`.

    Raises
    ------
    NpmobilenetError
        If there is no pack, or one for other CPUs, or a damaged one.
    """
    description = describe()
    level = target.best_level(description.levels)
    if level is None:
        raise NpmobilenetError(
            f"{printable(root())}: packed for {', '.join(description.levels)}, none of which this machine runs: pack "
            "it there, or with --targets all"
        )
    target.keep_to(level)
    file = root() if description.offset else os.path.join(root(), ARRAYS)  # noqa: PTH118 - before pathlib
    try:
        arrays = MappedArrays(file, description.offset, description.size)
    except (OSError, ValueError) as error:
        raise NpmobilenetError(f"{printable(file)}: cannot be mapped ({error}): copy the pack anew") from None
    models = [
        PackedModel(network, arrays, level, threads=threads, keep_bytes=keep_bytes) for network in description.networks
    ]
    if len(models) == 1:
        return models[0]
    from npmobilenet.face_finder import FaceFinder

    return FaceFinder(*models)


def root() -> str:
    """The folder or archive in which the package is."""
    return os.path.dirname(next(iter(sys.modules["npmobilenet"].__path__)))  # noqa: PTH120


def describe() -> Description:
    """Return what is known of the pack that this module is in.

    Raises
    ------
    NpmobilenetError
        If there is none.
    """
    file = os.path.join(root(), DESCRIPTION)  # noqa: PTH118
    try:
        return loads(sys.modules["npmobilenet"].__spec__.loader.get_data(file))
    except OSError as error:
        reason = error.strerror or "is not there"
        raise NpmobilenetError(f"{printable(file)}: {reason}: `npmobilenet pack` makes packs") from None
