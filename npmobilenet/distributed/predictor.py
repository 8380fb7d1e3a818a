"""Batches of photographs, as engines pass them around, to rows of results."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from npmobilenet.distributed.cpus import granted_cpus
from npmobilenet.errors import ImageError
from npmobilenet.kernels.sharing import give_lock
from npmobilenet.loading import load
from npmobilenet.model import Model
from npmobilenet.pipelines import Pipeline, get_pipeline
from npmobilenet.text import listed, printable, quote
from npmobilenet.workers import Workers

if TYPE_CHECKING:
    from pandas import DataFrame

    from npmobilenet.image import ImageSource

MODELS_KEPT = 4  # in a process, which may see many jobs

PICTURES = ("image", "bytes", "content", "path")
"""Columns that photographs are looked for in, in this order: arrays (Ray's ``read_images``), the bytes of files (Ray's
``read_binary_files``; Spark's ``binaryFile``), paths."""

SPARK_TYPES = {int: "bigint", str: "string", float: "double", list: "array<float>"}
PANDAS_TYPES = {int: "int64", str: "string", float: "float64", list: object}
MISSING = {int: -1, str: "", float: float("nan"), list: None}
"""In the row of a photograph that cannot be read. Engines put batches together: no column may be without a type."""


class Predictor:
    """Looks at batches of photographs: for ``map_batches``, ``map_partitions``, ``mapInPandas``, ``Pool.map``.

    Made where the work is planned, pickled, and used where it is done: small while the model is a name or a path, for
    the network is loaded when the first batch comes, once in each process however many predictors of it there are. All
    that computes in a process shares as many threads as the engine gave it CPUs (:func:`granted_cpus`).

    Parameters
    ----------
    model : str, path or Model
        The name of shipped or downloaded weights; a file, where workers find it under this path; or a model, which is
        then part of what is pickled.
    task : {"classify", "features", "detect", "segment"}
    top : int
        Classes of each photograph, a row for each.
    threshold : float
        Of detections, a row for each.
    block : str
        Whose output the features are.
    max_pixels : int, optional
        Larger photographs are refused, as by :func:`npmobilenet.image.read_image`.
    threads : int, optional
        How many to use, in place of what the engine says.
    prefix : str
        Of the names of the columns that are added, such as "predicted_" where there is a column "label" already.
    **options
        As for :func:`npmobilenet.load`.

    Raises
    ------
    ValueError
        If there is no such task, or an option is out of range.
    """

    def __init__(
        self,
        model: str | os.PathLike | Model = "mobilenet_v2",
        task: str = "classify",
        *,
        top: int = 1,
        threshold: float = 0.5,
        block: str = "pool",
        max_pixels: int | None = None,
        threads: int | None = None,
        prefix: str = "",
        **options: Any,
    ) -> None:
        self._kind = get_pipeline(task)
        if isinstance(model, Model):
            if options:
                raise ValueError(f"the model is loaded already: {next(iter(options))} cannot be chosen any more")
        elif not isinstance(model, (str, os.PathLike)):
            raise ValueError(f"model must be a name, a path or a Model, got {quote(model)}")
        if not (isinstance(top, (int, np.integer)) and top >= 1):
            raise ValueError(f"top must be an integer >= 1, got {top!r}")
        if threads is not None and not (isinstance(threads, (int, np.integer)) and threads >= 1):
            raise ValueError(f"threads must be an integer >= 1, got {threads!r}")
        self._model = model if isinstance(model, Model) else os.fspath(model)
        self._options, self._threads, self.prefix = options, threads, prefix
        chosen = {"classify": {"top": int(top)}, "features": {"block": block}, "detect": {"threshold": threshold}}
        self._chosen = {"max_pixels": max_pixels, **chosen.get(task, {})}
        self._key = (uuid4().hex if isinstance(model, Model) else self._model, repr(sorted(options.items())))

    def __repr__(self) -> str:
        model = self._model if isinstance(self._model, Model) else quote(self._model, 500)
        return f"<npmobilenet.Predictor {self.task} by {model}>"

    @property
    def task(self) -> str:
        return self._kind.task

    @property
    def columns(self) -> dict[str, type]:
        """The columns that are added: names and types; ``list`` is a vector of float32."""
        return {self.prefix + name: kind for name, kind in (*self._kind.columns.items(), ("error", str))}

    @property
    def threads(self) -> int:
        """How many threads this process computes on."""
        return self._threads or granted_cpus()

    def __call__(self, batch: Mapping[str, Sequence] | DataFrame) -> dict[str, np.ndarray] | DataFrame:
        """Look at a batch.

        Parameters
        ----------
        batch : dict of sequences, or pandas DataFrame
            With a column that has photographs: of :data:`PICTURES` the first that there is.

        Returns
        -------
        dict of arrays, or DataFrame
            The other columns, and :attr:`columns`: of each photograph a row at least, in their order. One that cannot
            be read has a row with an ``error``, and so does the one without a class because its logits are not finite.
            Where there is none of it a text is empty, an integer -1, and a float, or those of a vector, not a number.

        Raises
        ------
        ValueError
            If there is no such column, or one is there already that would be added.
        """
        if not hasattr(batch, "iloc"):
            return self._of_arrays(batch)
        source = self._source(list(batch.columns))
        repeated, added = self._looked_at(batch[source])
        import pandas  # there is a frame of it

        result = batch.drop(columns=_dropped(batch)).iloc[repeated].copy()
        for name, values in added.items():
            kind = self.columns[name]
            vectors = kind is list and len(values)
            result[name] = _objects(self._matrix(values)) if vectors else pandas.array(values, PANDAS_TYPES[kind])
        return result

    def frames(self, batches: Iterable[DataFrame]) -> Iterator[DataFrame]:
        """Look at many: a function for Spark's ``mapInPandas``, with :meth:`schema`."""
        return map(self, batches)

    def schema(self, kept: str = "") -> str:
        """Return what Spark wants to be told of the result.

        Parameters
        ----------
        kept : str
            The columns that stay, such as "path string", as Spark writes them.
        """
        added = [f"`{name}` {SPARK_TYPES[kind]}" for name, kind in self.columns.items()]
        return ", ".join([kept] * bool(kept) + added)

    def meta(self, frame: DataFrame) -> DataFrame:
        """Return what Dask wants to be told of the result (``meta``): its columns, without a row, for such a frame."""
        nothing = self(frame.iloc[:0])
        for name, kind in self.columns.items():
            if kind is list:  # which to write to Parquet it would have to guess
                import pandas
                import pyarrow

                nothing[name] = pandas.array([], pandas.ArrowDtype(pyarrow.list_(pyarrow.float32())))
        return nothing

    def _of_arrays(self, batch: Mapping[str, Sequence]) -> dict[str, np.ndarray]:
        if not isinstance(batch, Mapping):
            raise ValueError(f"a batch must be a dict of arrays or a pandas DataFrame, got {quote(batch)}")
        source = self._source(list(batch))
        repeated, added = self._looked_at(batch[source])
        dropped = _dropped(batch)
        result = {name: _array(values)[repeated] for name, values in batch.items() if name not in dropped}
        for name, values in added.items():
            kind = self.columns[name]
            result[name] = self._matrix(values) if kind is list else np.array(values, kind)
        return result

    def _matrix(self, vectors: list[np.ndarray | None]) -> np.ndarray:
        """Vectors as the rows of an array; not numbers where there is none."""
        matrix = np.full((len(vectors), self._pipeline().length), np.nan, np.float32)
        for row, vector in zip(matrix, vectors, strict=True):
            if vector is not None:
                row[:] = vector
        return matrix

    def _source(self, names: list) -> str:
        source = next((name for name in PICTURES if name in names), None)
        if source is None:
            there = ", ".join(listed([str(name) for name in names])) or "none"
            raise ValueError(
                f"a batch needs a column with photographs ({', '.join(PICTURES)}), its columns are: {there}"
            )
        twice = [name for name in self.columns if name in names]
        if twice:
            raise ValueError(
                f"the batch has a column {quote(twice[0])} already: give a prefix for those that are added"
            )
        return source

    def _looked_at(self, photographs: Sequence[Any]) -> tuple[np.ndarray, dict[str, list]]:
        """Rows of results: of which photograph each is, and its values by column."""
        repeated: list[int] = []
        rows: list[tuple] = []
        nothing = [MISSING[kind] for kind in self._kind.columns.values()]
        for at, result in enumerate(self._results(photographs) if len(photographs) else ()):
            if isinstance(result, (ImageError, ValueError)):
                found = [(*nothing, printable(str(result), 1000))]
            elif isinstance(result, Exception):  # no matter of this photograph: a package that is missing, memory
                raise result
            else:  # one at least, so that it can be told from a photograph that got lost
                found = [(*row, "") for row in self._kind.rows(result)] or [(*nothing, "")]
            repeated += [at] * len(found)
            rows += found
        columns = zip(*rows, strict=True) if rows else ((),) * len(self.columns)
        return np.array(repeated, np.intp), dict(zip(self.columns, map(list, columns), strict=True))

    def _results(self, photographs: Iterable[Any]) -> Iterator[Any]:
        workers = _process.workers(self.threads)
        return (result for _, result in workers.map(self._pipeline(), map(_picture, photographs)))

    def _pipeline(self) -> Pipeline:
        return self._kind(_process.model(self._key, self._load), **self._chosen)

    def _load(self) -> Model:
        return self._model if isinstance(self._model, Model) else load(self._model, **self._options)


class _Process:
    """What predictors share in a process."""

    def __init__(self) -> None:
        self._models: OrderedDict[tuple, Model] = OrderedDict()
        self._workers: dict[tuple[int, int], Workers] = {}
        give_lock(self)

    def model(self, key: tuple, make: Callable[[], Model]) -> Model:
        """Return the model of this key, made when it is first asked for, and again where its file is another one."""
        with suppress(OSError, ValueError):  # a name of weights is no path
            state = os.stat(key[0])  # noqa: PTH116
            key = (*key, state.st_mtime_ns, state.st_size)
        with self._lock:
            model = self._models.pop(key, None) or make()
            self._models[key] = model
            while len(self._models) > MODELS_KEPT:
                self._models.popitem(last=False)
            return model

    def workers(self, threads: int) -> Workers:
        """Return this process's so many threads; a child that was forked has none of its parent's."""
        key = os.getpid(), threads
        with self._lock:
            if key not in self._workers:
                self._workers[key] = Workers(threads)
            return self._workers[key]


_process = _Process()


def _picture(value: Any) -> ImageSource:
    """What there is of a photograph, as `read_image` takes it: Hugging Face's data sets have bytes and a path of it."""
    return (value.get("bytes") or value.get("path")) if isinstance(value, Mapping) else value


def _dropped(batch: Mapping[str, Any] | DataFrame) -> list[str]:
    """Columns that hold pictures, which would make results large; those with their names stay."""
    return [name for name in PICTURES if name in batch and not _are_names(name, batch[name])]


def _are_names(column: str, values: Sequence) -> bool:
    if len(values):
        return isinstance(next(iter(values)), str)
    return column == "path" or str(getattr(values, "dtype", "")).startswith("str")


def _array(values: Sequence) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    plain = all(isinstance(value, (str, int, float, np.generic)) for value in values)
    return np.array(values) if plain else _objects(values)


def _objects(values: Sequence) -> np.ndarray:
    column = np.empty(len(values), object)
    for at, value in enumerate(values):
        column[at] = value
    return column
