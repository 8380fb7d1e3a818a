"""Which format a file has, judged by its first bytes and not by its name; and what else it may be."""

from __future__ import annotations

import re
import struct

from npmobilenet.checkpoints.tensorflow_graph import looks_like_a_graph
from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

HEAD = 4096  # bytes that decide

EXPECTED = (
    "expected weights from torch.save (.pth, .pt), .safetensors, .npz, a pickle, a frozen graph (.pb), "
    "TFLite (.tflite), TensorFlow.js (.json) or .onnx"
)

# (where, magic bytes, what it is and what to do)
_FOREIGN = [
    (0, b"version https://git-lfs", "a git-lfs pointer, not the file itself; run 'git lfs pull'"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras .h5); convert it to .npz where h5py is installed"),
    (0, b"GGUF", "a GGUF file; convert it to .safetensors"),
    (257, b"ustar", "a tar archive: PyTorch's oldest format (before 0.1.10) or a packed folder; unpack it, "
                    "or load it in PyTorch and save model.state_dict()"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd; decompress it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it first"),
    (0, b"Rar!", "a RAR archive; unpack it first"),
    (0, b"PK\x05\x06", "an empty zip archive; it holds no weights"),
]  # fmt: skip

_TABLE_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)  # ends TensorFlow's .index and V1 .ckpt files


# How the formats that are read begin
_KINDS = [
    (b"PK\x03\x04", "zip"),
    (b"\x93NUMPY", "npy"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
]

# A manifest of TensorFlow.js: a list of groups, or an object that says what it is.
_MANIFEST = re.compile(
    rb"\s*(?:\[\s*\{\s*\"(?:weights|paths)\"|\{(?=.*\"(?:weightsManifest|modelTopology|(?:graph|layers)-model)\"))",
    re.DOTALL,
)

# A pickle says its protocol from 2 on. Before, it begins with what it holds: a mark and a dict or list, an empty dict
# and its number in the memo, a class or function.
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\((?:[dl]p\d+\n|[dl]q.)|\}q.|c[A-Za-z_][\w.]*\n[A-Za-z_]\w*\n", re.DOTALL)


# An ONNX model begins with the version of its format, then says who made it, or has its graph
_ONNX = re.compile(rb"\x08[\x03-\x20][\x12\x1a\x22\x28\x32\x3a\x42\x72]")


def recognise(head: bytes, tail: bytes, name: str) -> str:
    """Return which of the formats that are read a file has, or say what it is instead.

    They are "zip", "pickle", "safetensors", "index", "npy", "graph", "manifest", "tflite", "onnx", "gzip", "bzip2" and
    "xz".

    ``head`` and ``tail`` are the first 4096 and the last 8 bytes; ``name`` only helps to word an error.
    """
    for magic, kind in _KINDS:
        if head.startswith(magic):
            return kind
    for offset, magic, what in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            raise CheckpointError(f"is {what}; {EXPECTED}")
    if _PICKLE.match(head):
        return "pickle"
    if head[8:9] == b"{" and struct.unpack_from("<Q", head)[0] < 2**40:
        return "safetensors"
    if head.lstrip()[:1] == b"{" and b'"weight_map"' in head:
        return "index"
    if _MANIFEST.match(head):
        return "manifest"
    if head[4:8] == b"TFL3":
        return "tflite"
    if looks_like_a_graph(head):
        return "graph"
    if _ONNX.match(head):
        return "onnx"
    raise CheckpointError(f"is {_guess(head, tail, name)}; {EXPECTED}")


def _guess(head: bytes, tail: bytes, name: str) -> str:
    if not head:
        return "empty (0 bytes): an interrupted download or a full disk; get it again"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:200].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "an HTML page: a failed download saved a web page instead; download the file itself"
    if tail == _TABLE_MAGIC or re.search(r"\.data-\d+-of-\d+$", name):
        return "a TensorFlow checkpoint; export its variables to .npz where TensorFlow is installed"
    if re.match(rb"\x0a.{1,3}\x0a", head, re.DOTALL) or re.match(rb"\x08\x01\x12", head):
        return "probably a TensorFlow graph (.pb); export its variables to .npz where TensorFlow is installed"
    if head.isascii() and not re.search(rb"[\x00-\x08\x0e-\x1f]", head):
        return f"a text file that begins with {quote(str(start[:40], 'ascii'))}"
    return f"of an unknown format (it begins with bytes {head[:8].hex(' ')}) or cut short"


def recognise_zip(names: list[str]) -> tuple[str, str]:
    """Return ``("torch" or "script", folder)`` or ``("npz", "")`` for the members of a zip archive, or what it is."""
    folders = [name[: -len("data.pkl")] for name in names if re.fullmatch(r"([^/]*/)?data\.pkl", name)]
    if len(folders) == 1:
        folder = folders[0]
        script = f"{folder}constants.pkl" in names or any(name.startswith(f"{folder}code/") for name in names)
        return "script" if script else "torch", folder
    if any(name.endswith(".npy") for name in names):
        return "npz", ""
    if any(name.endswith((".weights.h5", "keras_metadata.pb")) for name in names):
        raise CheckpointError(f"is a Keras model (.keras); export its weights to .npz with Keras; {EXPECTED}")
    inside = next((name for name in names if name.endswith((".pth", ".pt", ".safetensors", ".npz"))), None)
    if inside is not None:
        raise CheckpointError(f"is a zip archive around {quote(inside)}; unpack it first")
    shown = ", ".join(quote(name, 40) for name in names[:4]) or "nothing"
    raise CheckpointError(f"is a zip archive that is no checkpoint (it holds {shown}); {EXPECTED}")
