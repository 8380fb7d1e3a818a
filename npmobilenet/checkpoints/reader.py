"""``read_checkpoint``: weights from a file that nobody vouches for."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from npmobilenet.checkpoints.file_kinds import EXPECTED, HEAD, recognise, recognise_zip
from npmobilenet.checkpoints.npz_file import read_npz
from npmobilenet.checkpoints.safetensors_file import read_safetensors
from npmobilenet.checkpoints.state_dicts import find_state_dict, weights_only
from npmobilenet.checkpoints.stored_tensor import Allowance, Tensor
from npmobilenet.checkpoints.torch_file import read_torch_legacy, read_torch_zip
from npmobilenet.checkpoints.zip_archive import ZipArchive
from npmobilenet.errors import CheckpointError
from npmobilenet.text import printable

METADATA_NAME = "npmobilenet"  # our key among a file's metadata


@dataclass(frozen=True)
class Checkpoint:
    """The weights in a file.

    Attributes
    ----------
    tensors
        Name to array, in the file's order. All floating-point types arrive as float32 (float16 and bfloat16
        exactly, float64 rounded to nearest), integers and bool as they are, all in native byte order.
        The arrays are read-only; where the bytes allow it they are views of one copy of the whole file,
        which lives as long as any of them.
    metadata
        What `export_weights` was given as ``metadata``; empty for every other file.
    path
        The file.
    read_from
        The keys that lead to the state dict that was read, joined by dots.
    others
        The same of other state dicts in the file.
    config, preprocessor
        What ``config.json`` and ``preprocessor_config.json`` beside the file say.
    quantisation
        Of a network that PyTorch quantised.
    notes
        What was passed over, a sentence for each.
    """

    tensors: dict[str, np.ndarray]
    metadata: dict
    path: Path
    read_from: str = ""
    others: tuple[str, ...] = ()
    config: dict = field(default_factory=dict)
    preprocessor: dict = field(default_factory=dict)
    quantisation: dict = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read the weights in a PyTorch, safetensors or NumPy file.

    The format is recognised by content. Nothing in the file is executed or imported, and no more memory is
    used than the size of the file justifies, so a file of unknown origin may be read.

    A state dict nested in a training checkpoint is found, counters such as ``num_batches_tracked`` are left
    out, and prefixes that all names share (``module.``, ``_orig_mod.``, ``model.``, …) are removed; see
    `npmobilenet.checkpoints.state_dicts` for the rules.

    Parameters
    ----------
    path : str or os.PathLike
        ``.pth`` or ``.pt`` in the zip or the legacy format, ``.safetensors`` or ``.npz``.

    Returns
    -------
    Checkpoint
        Tensors under the names the file holds, after the unwrapping above.

    Raises
    ------
    CheckpointError
        If the file cannot be read, is of another format, is damaged, asks for code to be run, or holds no
        weights. The message is one line that begins with the path.
    """
    path = Path(path)
    try:
        tensors, metadata = _read(_read_bytes(path))
    except CheckpointError as error:
        raise CheckpointError(f"{printable(path)}: {error}") from error.__cause__
    except (MemoryError, RecursionError) as error:
        raise CheckpointError(
            f"{printable(path)}: needs more memory or nesting than this machine has ({type(error).__name__})"
        ) from error
    return Checkpoint(tensors, metadata, path)


def _read_bytes(path: Path) -> bytes:
    # One read into memory rather than a memory map: should somebody truncate a mapped file, the next look
    # at a weight would kill the process (SIGBUS), and reading 14 MB takes only a few milliseconds.
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise CheckpointError("is a directory; name the weights file in it")
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError("is not a regular file")
        with path.open("rb", buffering=0) as file:
            head = file.read(HEAD)
            file.seek(max(status.st_size - 8, 0))
            recognise(head, file.read(8), path.name)  # before a huge file of another format is read
            file.seek(0)
            return file.readall()
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError("does not exist; check the path") from None
    except PermissionError:
        raise CheckpointError("may not be read (permission denied); check its owner and mode") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _read(data: bytes) -> tuple[dict[str, np.ndarray], dict]:
    allowance = Allowance(len(data))
    tensors, metadata = _parse(data, allowance)
    arrays = {name: tensor.to_array(name, allowance) for name, tensor in weights_only(tensors).items()}
    if not arrays:
        raise CheckpointError(f"holds no weights; {EXPECTED}")
    return arrays, metadata


def _parse(data: bytes, allowance: Allowance) -> tuple[dict[str, Tensor], dict]:
    kind = recognise(data[:HEAD], data[-8:], "")
    if kind == "pickle":
        return find_state_dict(read_torch_legacy(data)), {}
    if kind == "safetensors":
        tensors, texts = read_safetensors(data)
        return tensors, _parse_json(texts.get(METADATA_NAME, "{}"))
    archive = ZipArchive(data, allowance)
    kind, folder = recognise_zip(archive.names())
    if kind == "torch":
        return find_state_dict(read_torch_zip(data, archive, folder)), {}
    tensors, text = read_npz(archive)
    return tensors, _checked_dict(_parse_json(text or "{}").get(METADATA_NAME, {}))


def _parse_json(text: str) -> dict:
    try:
        metadata = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError("its metadata is not valid JSON; the file is damaged") from error
    return _checked_dict(metadata)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _checked_dict(metadata: object) -> dict:
    if not isinstance(metadata, dict):
        raise CheckpointError("its metadata is not a JSON object; the file is damaged")
    return metadata
