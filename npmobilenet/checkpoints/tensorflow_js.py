"""TensorFlow.js: a manifest of weights in JSON, and files of their bytes beside it.

    [{"paths": [file, …], "weights": [{"name": …, "shape": […], "dtype": …, "quantization": …}, …]}, …]
    {"modelTopology": {"node": [{"name": …, "op": …, "input": [name, …]}, …]}, "weightsManifest": [as above]}

The files of a group are one run of bytes, in which its weights stand one after the other, little-endian and in C
order. A quantised weight is float16, or an integer × ``scale`` + ``min``. Where there is a graph of operations, these
tell what a weight is for (`layer_roles`), else its name does (`tensorflow_names`).

Source: tfjs-core/src/io/{types,io_utils}.ts, tfjs-converter/src/executors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from npmobilenet.checkpoints.affine import affine
from npmobilenet.checkpoints.json_text import parse_json
from npmobilenet.checkpoints.layer_roles import ADD, MULTIPLY, Operation, parameters
from npmobilenet.checkpoints.model_folder import is_file_name
from npmobilenet.checkpoints.numpy_array import place_array
from npmobilenet.checkpoints.stored_tensor import MAX_DIMENSIONS, MAX_ELEMENTS, Tensor
from npmobilenet.checkpoints.tensorflow_names import DEPTHWISE, MATRIX, WINDOW, parameter, with_axes
from npmobilenet.errors import CheckpointError
from npmobilenet.text import plural, quote

MOST_FILES = 1000
NUMBERS = {"float32": "<f4", "int32": "<i4", "bool": "|u1"}
QUANTISED = {"float16": "<f2", "uint8": "|u1", "uint16": "<u2"}

LAYERS = {
    **{name: {4: WINDOW} for name in ("Conv2D", "_FusedConv2D", "Conv2DBackpropInput")},
    **{name: {4: DEPTHWISE} for name in ("DepthwiseConv2dNative", "FusedDepthwiseConv2dNative")},
    **{name: {2: MATRIX} for name in ("MatMul", "_FusedMatMul")},
}
BETWEEN = {**dict.fromkeys(("Add", "AddV2", "AddN", "BiasAdd"), ADD), "Mul": MULTIPLY}

ReadFile = Callable[[str, int], bytes]


def read_manifest(data: bytes, read_file: ReadFile) -> dict[str, Tensor]:
    """Return the weights that a manifest describes, under PyTorch's names and in its axes.

    Parameters
    ----------
    data : bytes
        The JSON file.
    read_file : callable
        Returns the bytes of a file beside it, of which there must be so many at most.

    Raises
    ------
    CheckpointError
        If it is damaged, or no file of the right size is beside it.
    """
    about = parse_json(data, "its manifest")
    groups, topology = about, None
    if isinstance(about, dict):
        groups, topology = about.get("weightsManifest"), about.get("modelTopology")
    if not isinstance(groups, list) or not groups:
        raise CheckpointError("has no weightsManifest, a list of groups of weights; the file is damaged")
    tensors: dict[str, Tensor] = {}
    seen: set[str] = set()

    def read_once(name: str, most: int) -> bytes:
        if not is_file_name(name) or name in seen:
            raise CheckpointError(f"its manifest names the file {quote(name)}, which is no file's name or there twice")
        seen.add(name)
        return read_file(name, most)

    for group in groups:
        for name, tensor in _weights(group, read_once).items():
            if name in tensors:
                raise CheckpointError(f"has the tensor {quote(name)} twice; the file is damaged")
            tensors[name] = tensor
    nodes = topology.get("node") if isinstance(topology, dict) else None
    found = _by_name(tensors) if nodes is None else parameters(_operations(nodes), tensors, LAYERS)
    if not found:
        raise CheckpointError("has no weights whose names tell what they are for")
    return found


def _weights(group: Any, read_file: ReadFile) -> dict[str, Tensor]:
    """The tensors of a group that may be weights: of numbers with a fraction, and more than one."""
    paths, entries = (group.get(what) if isinstance(group, dict) else None for what in ("paths", "weights"))
    if not _are(paths, str) or not _are(entries, dict) or not 0 < len(paths) <= MOST_FILES:
        raise CheckpointError("a group of its manifest has no paths and weights; the file is damaged")
    spans = [_span(entry) for entry in entries]
    total = sum(prod(shape) * int(code[-1]) for _, shape, code, _ in spans)
    parts = [read_file(path, total) for path in paths]
    content = memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
    if len(content) != total:
        files = plural(len(paths), "file")
        raise CheckpointError(f"its {files} of weights should have {total} bytes and has {len(content)}: cut short?")
    found: dict[str, Tensor] = {}
    end = 0
    for name, shape, code, meaning in spans:
        begin, end = end, end + prod(shape) * int(code[-1])
        if not shape or (code not in ("<f4", "<f2") and meaning is None):
            continue
        if name in found:
            raise CheckpointError(f"has the tensor {quote(name)} twice; the file is damaged")
        stored = place_array(f"tensor {quote(name)}", code, False, shape, content[begin:end])
        found[name] = affine(name, stored, *meaning) if meaning else stored
    return found


def _span(entry: dict) -> tuple[str, tuple[int, ...], str, tuple[Any, Any] | None]:
    """Name, shape and element type of a tensor, and what its integers are multiplied by and increased."""
    name, shape, dtype = entry.get("name"), entry.get("shape"), entry.get("dtype")
    if not isinstance(name, str) or not name or not isinstance(dtype, str) or not isinstance(shape, list):
        raise CheckpointError("a weight of its manifest has no name, shape and dtype; the file is damaged")
    if len(shape) > MAX_DIMENSIONS or not all(type(size) is int and 0 <= size <= MAX_ELEMENTS for size in shape):
        raise CheckpointError(f"tensor {quote(name)} has an impossible shape; the file is damaged")
    quantised = entry.get("quantization")
    if quantised is None:
        if dtype not in NUMBERS:
            raise CheckpointError(f"tensor {quote(name)} is of {quote(dtype)}; {', '.join(NUMBERS)} are read")
        return name, tuple(shape), NUMBERS[dtype], None
    code = QUANTISED.get(quantised.get("dtype") if isinstance(quantised, dict) else None)
    if code is None:
        raise CheckpointError(f"tensor {quote(name)} is quantised, but not as {', '.join(QUANTISED)}")
    if code == "<f2" or dtype != "float32":
        return name, tuple(shape), code, None
    return name, tuple(shape), code, (quantised.get("scale"), quantised.get("min"))


def _by_name(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for path, tensor in tensors.items():
        known = parameter(path)
        if known:
            name, axes = known
            found[name] = with_axes(name, tensor, axes)
    return found


def _operations(nodes: Any) -> list[Operation]:
    if not _are(nodes, dict):
        raise CheckpointError("its graph is no list of nodes; the file is damaged")
    found = []
    for node in nodes:
        name, operation, inputs = node.get("name"), node.get("op"), node.get("input", [])
        if not isinstance(name, str) or not isinstance(operation, str) or not _are(inputs, str):
            raise CheckpointError("a node of its graph has no name, op and inputs; the file is damaged")
        found.append(Operation(BETWEEN.get(operation, operation), (name,), tuple(map(_tensor, inputs))))
    return found


def _tensor(name: str) -> str:
    """The node that makes a tensor: its first result may be written ``name:0``."""
    return name.removesuffix(":0")


def _are(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)
