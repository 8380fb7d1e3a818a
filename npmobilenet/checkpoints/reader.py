"""``read_checkpoint``: weights from a file that nobody vouches for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np

from npmobilenet.checkpoints.affine import AFFINE, with_meanings
from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.checkpoints.file_kinds import EXPECTED, HEAD, recognise, recognise_zip
from npmobilenet.checkpoints.json_text import parse_object
from npmobilenet.checkpoints.model_folder import CONFIG, MAX_JSON, PREPROCESSOR, read_beside, shards, weights_in
from npmobilenet.checkpoints.quantised import Quantisation, QuantisedTensor, split_results
from npmobilenet.checkpoints.safetensors_file import read_safetensors
from npmobilenet.checkpoints.state_dicts import find_state_dict, name_of, raw_tensors
from npmobilenet.checkpoints.stored_tensor import StoredTensor, Tensor
from npmobilenet.errors import CheckpointError
from npmobilenet.text import listed, plural, printable, quote

METADATA_NAME = "npmobilenet"  # our key among a file's metadata
NETWORK = "network"  # in that the key of a whole network (`network_file`)
IN_JSON = {"index": "an index", "manifest": "a manifest"}  # kinds of files that name others beside them
# What whole modules, quantised tensors and arrays refer to: no word is lost on it
FAMILIAR = ("__torch__.", "torch.jit._pickle.", "torch.nn.", "torch.per_", "numpy.ndarray", "builtins.object")


@dataclass(frozen=True)
class Checkpoint:
    """The weights in a file.

    Attributes
    ----------
    tensors
        Name to array, in the file's order. All floating-point types arrive as float32 (float16 and bfloat16
        exactly, float64 rounded to nearest), integers and bool as they are, all in native byte order; quantised
        tensors as the numbers that they stand for.
        The arrays are read-only; where the bytes allow it they are views of one copy of the whole file,
        which lives as long as any of them.
    metadata
        What `export_weights` was given as ``metadata``; empty for every other file.
    path
        The file.
    read_from
        The keys that lead to the state dict that was read, joined by dots: ``"state_dict_ema"``; empty if the file is
        nothing else.
    others
        The same of other state dicts in the file.
    config, preprocessor
        What ``config.json`` and ``preprocessor_config.json`` beside the file say, {} where there are none.
    quantisation
        Of a network that PyTorch quantised: name of a tensor, or of a layer for its result, to `Quantisation`.
    notes
        What is to be known of the file beside that: objects of which nothing was run, a ``config.json`` that could
        not be read. A sentence for each.
    container
        What kind of file it is, in words.
    """

    tensors: dict[str, np.ndarray]
    metadata: dict
    path: Path
    read_from: str = ""
    others: tuple[str, ...] = ()
    config: dict = field(default_factory=dict)
    preprocessor: dict = field(default_factory=dict)
    quantisation: dict[str, Quantisation] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    container: str = ""

    @property
    def holds_network(self) -> bool:
        """Whether the file says which network its weights belong to."""
        return NETWORK in self.metadata


def read_checkpoint(path: str | os.PathLike, *, ema: bool | None = None, mapped: bool = False) -> Checkpoint:
    """Read the weights in a file of PyTorch, safetensors, NumPy or TensorFlow, a pickle, or Hugging Face's folder.

    The format is recognised by content. Nothing in the file is executed or imported, and no more memory and time are
    used than the size of the file justifies (`npmobilenet.checkpoints.allowance`), so a file of unknown origin may be
    read.

    A state dict nested in a training checkpoint is found, objects of other libraries beside it are passed over,
    counters such as ``num_batches_tracked`` are left out, and prefixes that all names share (``module.``,
    ``_orig_mod.``, ``model.``, …) are removed; see `npmobilenet.checkpoints.state_dicts` for the rules.

    Parameters
    ----------
    path : str or os.PathLike
        What ``torch.save`` wrote (``.pth``, ``.pt``, ``.bin``): a state dict, a training checkpoint, a whole module;
        a TorchScript archive; ``.safetensors`` or ``.npz``; a pickled dict of arrays; an index of weights in several
        files; any of these compressed by gzip, bzip2 or xz; or a folder with such a file.
    ema : bool, optional
        Of a file with an averaged copy (moving average) beside the weights: the copy (True), the weights (False), or
        what the training's own tools would take: the copy where it is complete.
    mapped : bool
        Of a file that nobody writes to: its bytes are mapped into memory, where they are read.

    Returns
    -------
    Checkpoint
        Tensors under the names the file holds, after the unwrapping above.

    Raises
    ------
    CheckpointError
        If the file cannot be read, is of another format, is damaged or holds no weights. The message is one line that
        begins with the path.
    """
    return _read_checked(Path(path), ema, mapped=mapped)[0]


Encoded = tuple[dict[str, np.ndarray], dict[str, tuple[float, float]]]


def read_encoded(path: str | os.PathLike) -> tuple[Checkpoint, dict[str, np.ndarray], dict[str, tuple[float, float]]]:
    """Read weights twice: as `read_checkpoint` does, and as the file stores them.

    Returns
    -------
    checkpoint : Checkpoint
    stored : dict of str to array
        Of the types in which the file has them: float16, integers.
    meanings : dict of str to (scale, minimum)
        Of integers: by what they are multiplied, and what is added.

    Raises
    ------
    CheckpointError
        As `read_checkpoint`.
    """
    checkpoint, (stored, meanings) = _read_checked(Path(path), None, encoded=True)
    return checkpoint, stored, meanings


def _read_checked(
    path: Path, ema: bool | None, encoded: bool = False, mapped: bool = False
) -> tuple[Checkpoint, Encoded]:
    """Read a file or a folder; what is wrong is one line that begins with the path."""
    try:
        with file_errors():
            path = weights_in(path) if path.is_dir() else path
        return _read(path, ema, encoded, mapped)
    except CheckpointError as error:
        raise CheckpointError(f"{printable(path)}: {error}") from error.__cause__
    except (MemoryError, RecursionError) as error:
        raise CheckpointError(
            f"{printable(path)}: needs more memory or nesting than this machine has ({type(error).__name__})"
        ) from error


def is_onnx(path: str | os.PathLike) -> bool:
    """Whether a file is an ONNX model, by its first bytes; what cannot be read is none."""
    try:
        path = Path(path)
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return recognise(file.read(HEAD), b"", "") == "onnx"
    except (OSError, ValueError):  # CheckpointError too
        return False


def read_arrays(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read what `numpy.savez` wrote, under the names that the file has; as careful as `read_checkpoint`.

    Returns
    -------
    arrays : dict of str to array
        Floating-point ones as float32, others as they are.
    left_out : dict of str to str
        The names of what are no numbers, and what it is.

    Raises
    ------
    CheckpointError
        If the file cannot be read, is of another format or damaged.
    """
    from npmobilenet.checkpoints.npz_file import read_numbers
    from npmobilenet.checkpoints.zip_archive import ZipArchive

    path = Path(path)
    try:
        data = read_bytes(path)
        allowance = Allowance(len(data))
        kind = recognise(data[:HEAD], data[-8:], path.name)
        archive = ZipArchive(data, allowance) if kind == "zip" else None
        if archive is None or recognise_zip(archive.names())[0] != "npz":
            raise CheckpointError("is no .npz file: save named arrays with numpy.savez")
        tensors, left_out = read_numbers(archive)
        return {name: tensor.to_array(name, allowance) for name, tensor in tensors.items()}, left_out
    except CheckpointError as error:
        raise CheckpointError(f"{printable(path)}: {error}") from error.__cause__
    except MemoryError as error:
        raise CheckpointError(f"{printable(path)}: needs more memory than this machine has") from error


@contextmanager
def file_errors() -> Iterator[None]:
    """Say in one line why the operating system gives no file."""
    try:
        yield
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError("does not exist; check the path") from None
    except PermissionError:
        raise CheckpointError("may not be read (permission denied); check its owner and mode") from None
    except (OSError, ValueError) as error:
        reason = printable(getattr(error, "strerror", None) or str(error))
        raise CheckpointError(f"cannot be read ({reason})") from error


def read_bytes(path: Path, mapped: bool = False) -> bytes | mmap:
    """Return the content of a file of one of the kinds that are read.

    Raises
    ------
    CheckpointError
        If it cannot be read, or is of none of them.
    """
    # One read into memory unless told otherwise: should somebody truncate a mapped file, the next look at a weight
    # would kill the process (SIGBUS). Reading 14 MB takes some ten milliseconds.
    with file_errors():
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError("is not a regular file")
        with path.open("rb", buffering=0) as file:
            head = file.read(HEAD)
            file.seek(max(status.st_size - 8, 0))
            kind = recognise(head, file.read(8), path.name)  # before a huge file of another format is read
            if kind == "index" and status.st_size > MAX_JSON:
                raise CheckpointError(f"is an index of more than {MAX_JSON >> 20} MiB; the file is damaged")
            if mapped:
                return mmap(file.fileno(), 0, access=ACCESS_READ)
            file.seek(0)
            return file.readall()


def _read_part(path: Path, most: int, allowance: Allowance) -> bytes:
    """The bytes of a file that another one names, of so many at most."""
    with file_errors():
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            raise CheckpointError(f"is no regular file of at most {most} bytes")
        allowance.grow(status.st_size)
        with path.open("rb", buffering=0) as file:
            return file.read(status.st_size)


@dataclass(frozen=True)
class _Content:
    """What a file holds before its weights are looked for."""

    container: str
    value: object  # a dict of tensors, or whatever was pickled
    metadata: dict = field(default_factory=dict)
    foreign: tuple[str, ...] = ()


def _read(path: Path, ema: bool | None, encoded: bool, mapped: bool) -> tuple[Checkpoint, Encoded]:
    data = read_bytes(path, mapped)
    allowance = Allowance(len(data))
    content = _parse(data, path, allowance)
    found = find_state_dict(content.value, allowance, ema, content.foreign)
    arrays = {name: tensor.to_array(name, allowance) for name, tensor in found.tensors.items()}
    both = {name: tensor.encoded(name, allowance) for name, tensor in found.tensors.items()} if encoded else {}
    quantisation = {
        name: tensor.quantisation(name, allowance)
        for name, tensor in found.tensors.items()
        if isinstance(tensor, QuantisedTensor)
    }
    if quantisation:
        arrays, results = split_results(arrays)
        quantisation |= results
    if not arrays:
        raise CheckpointError(f"holds no weights; {EXPECTED}")
    config, notes = read_beside(path, CONFIG)
    preprocessor, more = read_beside(path, PREPROCESSOR)
    strange = [name for name in content.foreign if not name.startswith(FAMILIAR)]
    if strange:
        notes = (f"refers to Python objects, none of them imported or run: {', '.join(listed(strange, 5))}", *notes)
    checkpoint = Checkpoint(
        tensors=arrays,
        metadata=content.metadata,
        path=path,
        read_from=name_of(found.path),
        others=found.others,
        config=config,
        preprocessor=preprocessor,
        quantisation=quantisation,
        notes=(*notes, *more),
        container=content.container,
    )
    stored = {name: array for name, (array, _) in both.items()}
    return checkpoint, (stored, {name: meaning for name, (_, meaning) in both.items() if meaning})


def _parse(data: bytes, path: Path, allowance: Allowance, inside: str = "") -> _Content:
    kind = recognise(data[:HEAD], data[-8:], "")
    if kind in ("gzip", "bzip2", "xz"):
        if inside:
            raise CheckpointError(f"is compressed twice, with {inside} and {kind}; decompress it first")
        from npmobilenet.checkpoints.compressed import decompress

        content = _parse(decompress(data, kind, allowance), path, allowance, kind)
        return replace(content, container=f"{content.container}, compressed with {kind}")
    if kind in IN_JSON:
        if inside:
            raise CheckpointError(f"is {IN_JSON[kind]} compressed with {inside}; decompress it first")
        return (_parse_shards if kind == "index" else _parse_manifest)(data, path, allowance)
    if kind == "safetensors":
        tensors, texts = read_safetensors(data)
        metadata = parse_object(texts.get(METADATA_NAME, "{}"), "its metadata")
        return _Content("safetensors", with_meanings(tensors, metadata.pop(AFFINE, {})), metadata)
    if kind == "onnx":
        raise CheckpointError("is an ONNX model, more than weights: npmobilenet.load runs it as it is")
    if kind == "graph":
        from npmobilenet.checkpoints.tensorflow_graph import read_graph

        return _Content("TensorFlow's frozen graph", read_graph(data, allowance))

    if kind == "tflite":
        from npmobilenet.checkpoints.tflite import read_tflite

        return _Content("TFLite", read_tflite(data))

    # Not where they cost every start of a program that reads its own weights
    from npmobilenet.checkpoints.npz_file import read_npy, read_npz
    from npmobilenet.checkpoints.torch_file import read_pickle, read_torch_zip
    from npmobilenet.checkpoints.zip_archive import ZipArchive

    if kind == "pickle":
        found = read_pickle(data, allowance)
        return _Content("PyTorch's legacy format" if found.by_torch else "a pickle", found.value, {}, found.foreign)
    foreign: tuple[str, ...] = ()

    def unpickle(objects: memoryview) -> object:
        nonlocal foreign
        found = read_pickle(objects, allowance)
        foreign += found.foreign
        return found.value

    if kind == "npy":
        value = read_npy("", memoryview(data), unpickle)
        if value is None or type(value) is StoredTensor:
            raise CheckpointError("is a single NumPy array (.npy); save named arrays with numpy.savez")
        return _Content("NumPy's format for an array of objects (.npy)", value, {}, foreign)
    archive = ZipArchive(data, allowance)
    kind, folder = recognise_zip(archive.names())
    if kind != "npz":
        found = read_torch_zip(archive, folder, allowance)
        return _Content("TorchScript" if kind == "script" else "PyTorch's zip format", found.value, {}, found.foreign)
    tensors, text = read_npz(archive, unpickle)
    metadata = parse_object(text or "{}", "its metadata").get(METADATA_NAME, {})
    if not isinstance(metadata, dict):
        raise CheckpointError("its metadata is not a JSON object; the file is damaged")
    return _Content("NumPy's .npz", tensors, metadata, foreign)


def _parse_manifest(manifest: bytes, path: Path, allowance: Allowance) -> _Content:
    """The weights of TensorFlow.js, whose bytes stand in files beside their manifest."""
    from npmobilenet.checkpoints.tensorflow_js import read_manifest

    def read_file(name: str, most: int) -> bytes:
        try:
            return _read_part(path.with_name(name), most, allowance)
        except CheckpointError as error:
            raise CheckpointError(f"its file {quote(name)} {error}") from error.__cause__

    return _Content("a manifest of TensorFlow.js", read_manifest(manifest, read_file))


def _parse_shards(index: bytes, path: Path, allowance: Allowance) -> _Content:
    """Put the tensors together that an index finds in several files of its folder."""
    tensors: dict[str, Tensor] = {}
    foreign: dict[str, None] = {}
    files = shards(index)
    for name, wanted in files.items():
        try:
            data = read_bytes(path.with_name(name))
            if recognise(data[:HEAD], data[-8:], "") == "index":
                raise CheckpointError("is an index itself")
            allowance.grow(len(data))
            content = _parse(data, path.with_name(name), allowance)
            found = raw_tensors(content.value, allowance)
        except CheckpointError as error:
            raise CheckpointError(f"its file {quote(name)} {error}") from error.__cause__
        missing = wanted - found.keys()
        if missing:
            some = ", ".join(listed(sorted(missing), 5))
            raise CheckpointError(f"its file {quote(name)} lacks {plural(len(missing), 'tensor')}: {some}")
        tensors |= {key: tensor for key, tensor in found.items() if key in wanted}
        foreign |= dict.fromkeys(content.foreign)
    return _Content(f"an index of {plural(len(files), 'file')}", tensors, {}, tuple(foreign))
