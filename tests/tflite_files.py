"""TFLite models, byte by byte; `npmobilenet.checkpoints.tflite` has the format."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

CONV, DEPTHWISE, DEQUANTIZE, LINEAR, CUSTOM = 3, 4, 6, 9, 32
TYPES = {"float32": 0, "float16": 1, "int32": 2, "int8": 9}


def table(fields: dict[int, bytes | int]) -> list:
    """A table: numbers stand in it, what are bytes elsewhere."""
    return ["table", fields]


def vector(elements: Sequence) -> list:
    """A list of tables, or of int32."""
    return ["vector", list(elements)]


def written(root: list) -> bytes:
    """The file of which this is the first table: what is pointed at stands behind what points."""
    out = bytearray(8)
    out[4:8] = b"TFL3"
    pending = [(0, root)]  # where an offset is to be written, and to what
    while pending:
        place, what = pending.pop(0)
        while len(out) % 4:
            out.append(0)
        if isinstance(what, bytes):
            struct.pack_into("<I", out, place, len(out) - place)
            out += struct.pack("<I", len(what)) + what
        elif what[0] == "vector":
            struct.pack_into("<I", out, place, len(out) - place)
            out += struct.pack("<I", len(what[1]))
            for element in what[1]:
                if isinstance(element, list):
                    pending.append((len(out), element))
                    out += bytes(4)
                else:
                    out += struct.pack("<i", element)
        else:
            fields, last = what[1], max(what[1], default=-1)
            offsets = len(out)
            out += struct.pack("<HH", 4 + 2 * (last + 1), 4 + 4 * len(fields))
            inside = {field: 4 + 4 * at for at, field in enumerate(fields)}
            out += b"".join(struct.pack("<H", inside.get(field, 0)) for field in range(last + 1))
            while len(out) % 4:
                out.append(0)
            at = len(out)
            struct.pack_into("<I", out, place, at - place)
            out += struct.pack("<i", at - offsets)
            for value in fields.values():
                if isinstance(value, int):
                    out += struct.pack("<i", value)
                else:
                    pending.append((len(out), value))
                    out += bytes(4)
    return bytes(out)


def model(tensors: dict[str, np.ndarray | tuple], operators: Sequence[tuple[int, list[str], list[str]]]) -> bytes:
    """A model of constants, and of other tensors by their shapes; operators are (code, inputs, outputs)."""
    codes = list(dict.fromkeys(code for code, *_ in operators))
    buffers, entries = [table({})], []
    for name, values in tensors.items():
        if isinstance(values, tuple):
            entries.append(table({0: vector(values), 2: 0, 3: name.encode()}))
            continue
        entries.append(table({0: vector(values.shape), 1: TYPES[values.dtype.name], 2: len(buffers), 3: name.encode()}))
        buffers.append(table({0: values.tobytes()}))
    names = list(tensors)
    made = [
        table({0: codes.index(code), 1: vector(map(names.index, inputs)), 2: vector(map(names.index, outputs))})
        for code, inputs, outputs in operators
    ]
    graph = table({0: vector(entries), 3: vector(made)})
    kinds = [
        table({0: CUSTOM, 1: b"Convolution2DTransposeBias"} if code == CUSTOM else {0: code, 3: code}) for code in codes
    ]
    return written(table({0: 3, 1: vector(kinds), 2: vector([graph]), 4: vector(buffers)}))


def small_model() -> tuple[dict[str, np.ndarray | tuple], list[tuple[int, list[str], list[str]]]]:
    """Tensors and operators of a model with a layer of every kind."""
    random = np.random.default_rng(2)

    def floats(*shape: int, dtype: type = np.float32) -> np.ndarray:
        return random.standard_normal(shape).astype(dtype)

    tensors = {
        "image": (1, 8, 8, 3),
        "conv/Kernel": floats(4, 3, 3, 3, dtype=np.float16),
        "conv/Kernel_f32": (4, 3, 3, 3),
        "conv/Bias": floats(4),
        "dw/Kernel": floats(1, 3, 3, 4),
        "dw/Bias": floats(4),
        "up/Kernel": floats(2, 2, 2, 4),
        "up/Bias": floats(2),
        "fc/Kernel": floats(5, 4),
        "size": np.int32([4, 4]),
        **{name: (1, 4, 4, 4) for name in "abcd"},
    }
    operators = [
        (DEQUANTIZE, ["conv/Kernel"], ["conv/Kernel_f32"]),
        (CONV, ["image", "conv/Kernel_f32", "conv/Bias"], ["a"]),
        (DEPTHWISE, ["a", "dw/Kernel", "dw/Bias"], ["b"]),
        (CUSTOM, ["b", "up/Kernel", "up/Bias"], ["c"]),
        (LINEAR, ["c", "fc/Kernel"], ["d"]),
    ]
    return tensors, operators
