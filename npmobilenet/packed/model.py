"""A packed network with the methods of a model."""

from __future__ import annotations

import os
import sys
from pickle import loads
from typing import TYPE_CHECKING, Any, NoReturn

from npmobilenet.engine import Engine
from npmobilenet.errors import NpmobilenetError
from npmobilenet.kernels.vector import target
from npmobilenet.machine import available_cpus
from npmobilenet.model import Model
from npmobilenet.packed.program import PackedProgram
from npmobilenet.packed.recording import ARRAYS, BEGINNING, DESCRIPTION, Arrays, Description, PackedNetwork
from npmobilenet.provenance import Provenance
from npmobilenet.text import printable, quote

if TYPE_CHECKING:
    import numpy as np

    from npmobilenet.face_finder import FaceFinder


class Outline:
    """What a `Model` asks of its graph, of a network that has none any more."""

    def __init__(self, network: PackedNetwork) -> None:
        self.in_channels, self.main_output = network.channels, network.main_output
        self.output_names = self.outputs = network.output_names
        self.blocks: dict[str, list] = {}


class PackedModel(Model):
    """A network as `npmobilenet pack` wrote it, for images of one size; made by :func:`load`.

    It is called as any :class:`~npmobilenet.model.Model`, and classifies, detects or segments. What needs the network's
    layers (:meth:`features`, :meth:`count`, ``export_weights``, :func:`~npmobilenet.model.quantize`) raises
    ``ValueError``.
    """

    def __init__(
        self,
        network: PackedNetwork,
        arrays: Arrays,
        level: str,
        *,
        threads: int | None = None,
        keep_bytes: int | None = None,
    ) -> None:
        self.graph = Outline(network)
        self.input_name, self.size = network.input_name, network.size
        self.architecture, self.width, self.dtype = network.architecture, network.width, network.dtype
        self.classes, self.multi_label = network.classes, network.multi_label
        self.preprocessing = network.preprocessing
        self._has_logits, self._segments, self._detector = network.has_logits, network.segments, network.detector
        self._cpus = available_cpus()
        self.threads = self._cpus if threads is None else self._thread_count(threads)
        self._asked, self.keep_bytes = "blocked", keep_bytes
        self.source, self.read_from, self.definition, self.names = network.source, "", None, None
        self.provenance = Provenance()
        self._packed = network, arrays.file, arrays.offset, level
        self._engine = Engine.of(PackedProgram(network, arrays, level), keep_bytes)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        network, file, offset, level = self._packed
        self._cpus = 1
        self._engine = Engine.of(PackedProgram(network, Arrays(file, offset), level), self.keep_bytes)

    def __repr__(self) -> str:
        height, width = self.size
        return (
            f"<npmobilenet.PackedModel {self.architecture} width={self.width:g} classes={len(self.classes)} "
            f"{height}x{width} dtype={self.dtype!r} threads={self.threads} from {quote(self.source, 500)}>"
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


def load(
    folder: str | os.PathLike | None = None, *, threads: int | None = None, keep_bytes: int | None = None
) -> PackedModel | FaceFinder:
    """Open a pack.

    Parameters
    ----------
    folder : path, optional
        The folder or file that `npmobilenet pack` wrote; that which this very module is in if None.
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
        If this is no pack, or one for other CPUs.
    """
    root = os.fspath(folder) if folder is not None else own_root()
    description = describe(root)
    level = target.best_level(description.levels)
    if level is None:
        raise NpmobilenetError(
            f"{printable(root)}: packed for {', '.join(description.levels)}, none of which this machine runs: pack it "
            "there, or with --targets all"
        )
    if root == own_root():
        target.keep_to(level)
    file = os.path.join(root, ARRAYS) if os.path.isdir(root) else root  # noqa: PTH112, PTH118 - before pathlib
    arrays = Arrays(file, description.offset)
    models = [
        PackedModel(network, arrays, level, threads=threads, keep_bytes=keep_bytes) for network in description.networks
    ]
    if len(models) == 1:
        return models[0]
    from npmobilenet.face_finder import FaceFinder

    return FaceFinder(*models)


def own_root() -> str:
    """The folder or archive in which the package is."""
    return os.path.dirname(next(iter(sys.modules["npmobilenet"].__path__)))  # noqa: PTH120


def describe(root: str | None = None) -> Description:
    """Return what is known of a pack; without an argument of that which this module is in.

    Raises
    ------
    NpmobilenetError
        If this is no pack.
    """
    root = root or own_root()
    try:
        if os.path.isfile(root):  # noqa: PTH113
            from zipimport import zipimporter

            content = zipimporter(root).get_data(DESCRIPTION)
        else:
            with open(os.path.join(root, DESCRIPTION), "rb") as file:  # noqa: PTH118, PTH123
                content = file.read()
    except (OSError, ImportError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NpmobilenetError(
            f"{printable(root)}: no pack, which `npmobilenet pack` makes: {DESCRIPTION}: {reason}"
        ) from None
    if not content.startswith(BEGINNING):
        raise NpmobilenetError(f"{printable(root)}: packed by another version of npmobilenet: pack it again")
    return loads(content[len(BEGINNING) :])
