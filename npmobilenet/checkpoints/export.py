"""``export_weights``: write named arrays as ``.safetensors`` or ``.npz``, whole or not at all."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from npmobilenet.checkpoints import npz_file, safetensors_file
from npmobilenet.checkpoints.reader import METADATA_NAME
from npmobilenet.checkpoints.stored_tensor import BFLOAT16
from npmobilenet.errors import CheckpointError
from npmobilenet.files import replacing
from npmobilenet.text import printable, quote

ALIGNMENT = 64  # of the first tensor in a safetensors file: a cache line, and what PyTorch uses

FLOATS = {"float32": "<f4", "float16": "<f2"}
_SAFETENSORS_NAMES = {code: name for name, code in safetensors_file.DTYPES.items()}

Entries = dict[str, tuple[np.ndarray, str]]  # name: (C-ordered little-endian array, data type code)


def export_weights(
    state_dict: Any, path: str | os.PathLike, *, dtype: str | None = None, metadata: dict | None = None
) -> Path:
    """Write a model, or named tensors, to a file that `read_checkpoint` and other libraries read.

    The file appears complete or not at all: it is written under a temporary name in the same folder, synced
    to disk and renamed. An existing file is replaced.

    Parameters
    ----------
    state_dict : Model, or mapping of str to array-like
        A model is written with its graph, so that nothing has to be guessed when it is loaded, and with its classes
        and preprocessing. Else anything with ``.items()``: PyTorch tensors (on any device, PyTorch is not imported),
        NumPy arrays, lists of numbers. bfloat16 is kept in ``.safetensors`` and becomes float32 in ``.npz``, which has
        no such type; everything else keeps its type.
    path : str or os.PathLike
        The suffix, ``.safetensors`` or ``.npz``, decides the format.
    dtype : {"float32", "float16", "int8"}, optional
        In which numbers with a fraction are stored; as they are if None. "int8" needs a model, and quantises it unless
        it is quantised already: a file of a quarter of the size.
    metadata : dict, optional
        Anything JSON can hold, in addition to what a model says of itself; comes back as ``Checkpoint.metadata``.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    CheckpointError
        Before anything is written if the suffix, a name, a tensor or the metadata cannot be stored; later if
        the disk refuses. The message is one line and names the tensor.
    """
    path = Path(path)
    writers = {".safetensors": _write_safetensors, ".npz": _write_npz}
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise CheckpointError(f"{printable(path)}: cannot export to {quote(path.suffix)}; use .safetensors or .npz")
    if dtype not in (None, *FLOATS, "int8"):
        raise CheckpointError(f"{printable(path)}: dtype must be one of float32, float16, int8, got {dtype!r:.40}")
    if hasattr(state_dict, "stored"):
        state_dict, about = state_dict.stored(dtype)
        metadata = about if metadata is None else about | _checked(metadata, path)
    elif dtype == "int8":
        problem = "int8 needs a model, such as npmobilenet.load(...): named tensors do not tell what follows what"
        raise CheckpointError(f"{printable(path)}: {problem}")
    try:
        entries = _entries(state_dict)
        if dtype in FLOATS:
            entries = {name: _stored_as(dtype, *entry) for name, entry in entries.items()}
        text = None if metadata is None else _to_json(metadata)
        with replacing(path) as file:
            writer(file, entries, text)
    except CheckpointError as error:
        raise CheckpointError(f"{printable(path)}: {error}") from error.__cause__
    except OSError as error:
        raise CheckpointError(f"{printable(path)}: cannot be written ({error.strerror or error})") from error
    return path


def _checked(metadata: Any, path: Path) -> dict:
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{printable(path)}: metadata must be a dict, got a {type(metadata).__name__}")
    return metadata


def _stored_as(dtype: str, array: np.ndarray, code: str) -> tuple[np.ndarray, str]:
    """An entry in another type, if it has one for numbers with a fraction."""
    if code == BFLOAT16 or array.dtype.kind == "f":
        array = _without_bfloat16(array, code).astype(dtype).astype(FLOATS[dtype], copy=False)
        return array, FLOATS[dtype][1:]
    return array, code


def _entries(state_dict: Any) -> Entries:
    if not hasattr(state_dict, "items"):
        raise CheckpointError(f"expected a mapping of names to tensors, got a {type(state_dict).__name__}")
    entries: Entries = {}
    for name, value in state_dict.items():
        _check_name(name)
        if name in entries:
            raise CheckpointError(f"tensor {quote(name)} occurs twice")
        entries[name] = _to_array(name, value)
    if not entries:
        raise CheckpointError("there are no tensors to write")
    return entries


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise CheckpointError(f"tensor names must be text, got a {type(name).__name__}: {quote(ascii(name))}")
    # Control characters and lone surrogates do not survive in both formats (a zip name ends at a NUL).
    if not 0 < len(name) <= 1000 or not name.isprintable() or name == safetensors_file.METADATA_KEY:
        raise CheckpointError(
            f"tensor name {quote(name)} cannot be stored; use 1 to 1000 printable characters, "
            f"and not {safetensors_file.METADATA_KEY!r}"
        )


def _to_array(name: str, value: Any) -> tuple[np.ndarray, str]:
    try:
        array, code = _to_numpy(value)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"tensor {quote(name)} is not an array of numbers ({reason})") from error
    code = code or f"{array.dtype.kind}{array.dtype.itemsize}"
    if code not in _SAFETENSORS_NAMES:
        raise CheckpointError(
            f"tensor {quote(name)} has dtype {array.dtype}, which cannot be stored; "
            "floats up to 64 bits, integers and bool can"
        )
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C"), code


def _to_numpy(value: Any) -> tuple[np.ndarray, str | None]:
    """Return ``value`` as an array; bfloat16 as its bits (uint16) and the code that says so."""
    if hasattr(value, "detach"):  # a PyTorch tensor
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # NumPy has no such type; float32 holds it exactly
            return (value.float().numpy().view(np.uint32) >> np.uint32(16)).astype(np.uint16), BFLOAT16
        return value.numpy(), None
    array = np.asarray(value)
    if array.dtype.name == "bfloat16":  # the ml_dtypes library's
        return array.view(np.uint16), BFLOAT16
    return array, None


def _to_json(metadata: dict) -> str:
    if not isinstance(metadata, dict):
        raise CheckpointError(f"metadata must be a dict, got a {type(metadata).__name__}")
    try:
        return json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"metadata cannot be stored as JSON ({error})") from error


def _write_safetensors(file: IO[bytes], entries: Entries, metadata: str | None) -> None:
    # Without gaps between tensors, the widest types have to come first for all of them to be aligned.
    order = sorted(entries, key=lambda name: -entries[name][0].itemsize)
    spans, end = {}, 0
    for name in order:
        begin, end = end, end + entries[name][0].nbytes
        spans[name] = [begin, end]
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": {METADATA_NAME: metadata}}
    for name, (array, code) in entries.items():
        header[name] = {
            "dtype": _SAFETENSORS_NAMES[code],
            "shape": list(array.shape),
            "data_offsets": spans[name],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    file.write(struct.pack("<Q", len(text)) + text)
    for name in order:
        file.write(entries[name][0].data)


def _write_npz(file: IO[bytes], entries: Entries, metadata: str | None) -> None:
    arrays = {name: _without_bfloat16(*entry) for name, entry in entries.items()}
    if metadata is not None:
        arrays[npz_file.METADATA_KEY] = np.array(f'{{"{METADATA_NAME}": {metadata}}}')
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            # A ZipInfo of our own has a fixed date, so that equal weights make equal files.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _without_bfloat16(array: np.ndarray, code: str) -> np.ndarray:
    if code != BFLOAT16:
        return array
    return np.asarray(array.astype(np.uint32) << np.uint32(16)).view(np.float32)
