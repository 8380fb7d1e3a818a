"""The safetensors format: a JSON header, then the bytes of the tensors.

    8 bytes    N, the length of the header, little-endian
    N bytes    {"name": {"dtype": "F32", "shape": [32, 3, 3, 3], "data_offsets": [0, 3456]}, …,
                "__metadata__": {"key": "value", …}}; begins with "{" and may end in spaces
    the rest   the tensors, little-endian and in C order; the offsets count from the end of the header
               and cover it without gaps or overlaps

Source: https://github.com/huggingface/safetensors (README, "Format").
"""

from __future__ import annotations

import json
import struct
from math import prod

from npmobilenet.checkpoints.stored_tensor import BFLOAT16, Storage, StoredTensor, Tensor
from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

METADATA_KEY = "__metadata__"
MAX_HEADER = 100_000_000  # the limit of the reference implementation

# Data type in the header: NumPy's code
DTYPES = {
    "F64": "f8", "F32": "f4", "F16": "f2", "BF16": BFLOAT16,
    "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
    "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "b1",
}  # fmt: skip
ITEMSIZES = {dtype: 2 if code == BFLOAT16 else int(code[1]) for dtype, code in DTYPES.items()}


def read_safetensors(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the (string to string) metadata of a safetensors file."""
    header, start = _header(data)
    metadata = header.pop(METADATA_KEY, {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise CheckpointError(f"its {METADATA_KEY} is not a mapping of strings; the file is damaged")
    body = memoryview(data)[start:]
    spans = sorted((_span(name, entry), name) for name, entry in header.items())
    end = 0
    for (begin, stop), name in spans:
        if begin != end:
            raise CheckpointError(
                f"tensor {quote(name)} begins at byte {begin} of the data where byte {end} was expected: "
                "tensors overlap or leave a gap; the file is damaged"
            )
        end = stop
    if end != len(body):
        what = "is cut short" if end > len(body) else "has bytes that belong to no tensor"
        raise CheckpointError(f"{what}: its header announces {end} bytes of tensors, the file has {len(body)}")
    return {name: _tensor(name, entry, body) for name, entry in header.items()}, metadata


def _header(data: bytes) -> tuple[dict, int]:
    (length,) = struct.unpack_from("<Q", data)
    if length > min(len(data) - 8, MAX_HEADER):
        raise CheckpointError(
            f"is cut short or damaged: its header should have {length} bytes, but {len(data) - 8} follow"
        )
    try:
        header = json.loads(
            str(data[8 : 8 + length], "utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"its safetensors header is not valid JSON ({quote(str(error))})") from error
    if not isinstance(header, dict):
        raise CheckpointError("its safetensors header is not a JSON object")
    return header, 8 + length


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key occurs twice")
    return entries


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)


def _span(name: str, entry: object) -> tuple[int, int]:
    if isinstance(entry, dict) and isinstance(entry.get("dtype"), str) and _is_sizes(entry.get("shape")):
        offsets = entry.get("data_offsets")
        if _is_sizes(offsets) and len(offsets) == 2 and offsets[0] <= offsets[1]:
            return offsets[0], offsets[1]
    raise CheckpointError(
        f"tensor {quote(name)} is not described by a dtype, a shape and two ascending data_offsets; the file is damaged"
    )


def _tensor(name: str, entry: dict, body: memoryview) -> StoredTensor:
    dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    # More than 32 dimensions are refused later; here they would only make a huge number.
    if dtype in DTYPES and len(shape) <= 32 and prod(shape) * ITEMSIZES[dtype] != end - begin:
        raise CheckpointError(
            f"tensor {quote(name)} of {dtype} and shape {shape} has {end - begin} bytes instead of "
            f"{prod(shape) * ITEMSIZES[dtype]}; the file is damaged"
        )
    return StoredTensor(Storage(end - begin, body[begin:end]), dtype, DTYPES.get(dtype), shape)
