"""Damaged ONNX files: each is read and run, or refused in one line, in memory and time that its size bounds.

    python -m tests.fuzz_onnx 20000 [FIRST_SEED]

Copy number n is made from seed n alone, so that ``python -m tests.fuzz_onnx 1 n`` makes it again. Half of the copies
have other bytes; of the others the graph is another, with numbers, names, types and operators where they do not belong.
"""

from __future__ import annotations

import collections
import inspect
import random
import signal
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.onnx.file import MICROSOFT, Node, OnnxGraph, Port
from npmobilenet.onnx.operator import OPERATORS
from npmobilenet.onnx.qlinear import EXPANDED
from npmobilenet.onnx.tensors import CODES
from npmobilenet.onnx.writing import onnx_graph, serialised
from npmobilenet.onnx_model import OnnxModel
from tests.data.make_onnx_int8 import STYLES, network
from tests.fuzz_checkpoints import Watch
from tests.onnx_files import block, classifier, graph_of, tensorflow

BASE, FACTOR = 160 << 20, 32  # bytes that reading and running a file may take
SECONDS = 10  # of a CPU that one may take
RUN = 1 << 16  # values of the inputs up to which a network is run
SIDE = 24  # of an image whose size is left open
NAMED = [*OPERATORS, *(f"{MICROSOFT}.{name}" for name in EXPANDED)]

NUMBERS = (0, 1, 2, 3, 4, 7, 16, 255, 1000, 65536, 1 << 24, 1 << 31, 1 << 40, (1 << 63) - 1)
REALS = (0.0, -1.0, 0.5, 1e-30, 1e30, float("inf"), float("nan"))
NAMES = ("", "x", "image", "y", "../x", "\x1b[2J", "a" * 300, "\u202e")
STRINGS = [b"", b"\0" * 8, b"\xff" * 10, b"\x7f" + b"\xff" * 9, b"Conv", b"Loop", b"Resize", b"ConstantOfShape"]
STRINGS += [
    b"\x08\x11",
    b"\x12\x00",
    b"\x0a\x01x",
    b"../../etc/passwd",
    b"location",
    b"\xe2\x80\xae",
    b"axis",
    b"\x3a\x04",
]


CONSTANTS = {
    "scales": np.float32([1, 1, 2, 2]),
    "scale": np.float32(0.1),
    "point": np.uint8(3),
    "two": np.float32([0, 1]),
    "u": np.ones((4, 4, 3, 3), np.float32),
    "t": np.ones((4 * SIDE * SIDE, 3), np.float32),
    "zero": np.int64(0),
    "one0": np.int64(1),
    "depth": np.int64(3),
    "k8": np.int8(np.arange(4 * 3 * 9).reshape(4, 3, 3, 3) % 255 - 127),
    "k8_scale": np.float32([0.1, 0.2, 0.3, 0.4]),
    "m8": np.uint8(np.arange(3 * SIDE * SIDE * 5).reshape(-1, 5) % 251),
    "m8_scale": np.float32([0.01, 0.02, 0.03, 0.04, 0.05]),
    "m8_points": np.uint8([128, 127, 0, 255, 3]),
    "point16": np.int16(-3),
    "blocks": np.float32(np.arange(1, 97).reshape(1, 4, SIDE, 1) / 100),
}
CONSTANTS |= {
    name: np.int64(array)
    for name, array in {
        "shape": [0, 2, 2, SIDE, SIDE],
        "four": [0, -1, SIDE, SIDE],
        "pads": [0, 0, 1, 1, 0, 0, 1, 1],
        "many": [1, 1, 2, 1],
        "half": [2, 2],
        "one": [1],
        "nine": [9],
        "k": [2],
        "large": [2, 4, 8, 8],
        "sizes": [1, 4, 9, 9],
        "places": [1, 0],
        "zero1": [0],
    }.items()
}
CHAINS: list[list[tuple[str, str, str, dict[str, Any]]]] = [
    [
        ("Reshape", "x shape", "a", {}),
        ("Transpose", "a", "b", {"perm": (0, 2, 1, 3, 4)}),
        ("Reshape", "b four", "y", {}),
    ],
    [
        ("Pad", "x pads", "a", {}),
        ("Tile", "a many", "b", {}),
        ("Expand", "b one", "c", {}),
        ("LRN", "c", "y", {"size": 3}),
    ],
    [
        ("Resize", "x - scales", "a", {"mode": "cubic"}),
        ("Resize", "a - - sizes", "b", {"mode": "linear"}),
        ("MaxPool", "b", "c", {"kernel_shape": (3, 3), "ceil_mode": 1, "pads": (1, 1, 1, 1)}),
        ("DepthToSpace", "c", "y", {"blocksize": 2}),
    ],
    [
        ("Split", "x half", "a b", {"axis": 1}),
        ("Concat", "b a", "c", {"axis": 1}),
        ("Slice", "c zero1 nine k", "d", {}),
        ("ConvTranspose", "d u", "e", {"strides": (2, 2), "group": 1}),
        ("ReduceMean", "e", "y", {"axes": (2, 3)}),
    ],
    [
        ("ConstantOfShape", "large", "a", {"value": np.float32([0.5])}),
        ("Shape", "x", "s", {}),
        ("Gather", "s depth", "g", {}),
        ("Range", "zero g one0", "r", {}),
        ("Cast", "r", "f", {"to": 1}),
        ("Add", "x f", "y", {}),
    ],
    [
        ("QuantizeLinear", "x scale point", "a", {}),
        ("DequantizeLinear", "a scale point", "b", {}),
        ("TopK", "b k", "v i", {"axis": 3}),
        ("ArgMax", "v", "m", {"axis": 1}),
        ("Softmax", "v", "y", {"axis": 1}),
    ],
    [
        ("Flatten", "x", "a", {}),
        ("MatMul", "a t", "b", {}),
        ("OneHot", "places depth two", "o", {}),
        ("CumSum", "b zero", "y", {}),
    ],
]


DYNAMIC = [  # what quantize_dynamic writes
    ("DynamicQuantizeLinear", "image", "q s z", {}),
    ("ConvInteger", "q k8 z", "c", {"pads": (1, 1, 1, 1), "strides": (2, 2)}),
    ("Cast", "c", "cf", {"to": 1}),
    ("Mul", "s scale", "cs", {}),
    ("Mul", "cf cs", "y", {}),
    ("Flatten", "q", "f", {}),
    ("MatMulInteger", "f m8 z m8_points", "m", {}),
    ("Cast", "m", "mf", {"to": 1}),
    ("Mul", "s m8_scale", "ms", {}),
    ("Mul", "mf ms", "rows", {}),
]
OTHER_BITS = [
    ("QuantizeLinear", "x scale point16", "a", {}),
    ("DequantizeLinear", "a scale point16", "b", {}),
    ("QuantizeLinear", "b blocks", "c", {"axis": 3, "block_size": SIDE, "output_dtype": CODES["int4"]}),
    ("DequantizeLinear", "c blocks", "d", {"axis": 3, "block_size": SIDE}),
    ("QuantizeLinear", "d scale point", "e", {}),
    ("DequantizeLinear", "e scale point", "y", {}),
]


def samples() -> dict[str, OnnxGraph]:
    """Small networks, and graphs of a few nodes in which every operator occurs that reads an image or numbers.

    Networks of 8 bits in all ways in which tools write them are among them.
    """
    found = {}
    for name, width in (("mobilenet_v2", 0.1), ("mixnet_s", 0.1), ("lraspp_mobilenet_v3_large", 0.1)):
        graph = get_architecture(name).graph(width, 3)
        found[name] = onnx_graph(graph, random_weights(graph), name)
    found["classifier"] = classifier(metadata={"npmobilenet": '{"classes": ["a", "b", "c", "d", "e"]}'})
    found["in parts"] = classifier(odd=True, shape=(1, 3, SIDE, SIDE))
    found["channels last"] = tensorflow(scaled=True)
    found["transposed"] = tensorflow(optimised=False)
    for number, nodes in enumerate(CHAINS):
        found[f"chain {number}"] = block(nodes, CONSTANTS, opset=13)
    for style in STYLES:
        found[style] = network(style)
    ports = [("y", "float32", None), ("rows", "float32", ("n", 5))]
    found["dynamic"] = graph_of(DYNAMIC, [("image", "float32", ("n", 3, SIDE, SIDE))], ports, CONSTANTS)
    found["other bits"] = block(OTHER_BITS, CONSTANTS, opset=21)
    found["rows"] = graph_of(
        [("Gemm", "a b c", "y", {"transB": 1}), ("LogSoftmax", "y", "z", {}), ("Where", "e z y", "u", {})],
        [("a", "float32", ("n", 4)), ("e", "bool", ("n", 2))],
        [("z", "float32", None), ("u", "float32", ("n", 2))],
        {"b": np.ones((2, 4), np.float32), "c": np.float32([1, 2])},
    )
    return found


def damaged(data: bytes, chance: random.Random, numbers: int) -> bytes:
    """Return other bytes, most of them where the graph is: in the first part, less ``numbers`` bytes of tensors."""
    data, graph = bytearray(data), max(len(data) - numbers, 1)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        at = chance.randrange(graph if chance.random() < 0.9 else len(data) + 1)
        size = chance.choice((1, 1, 2, 4, 9, 40))
        kind = chance.randrange(6)
        if kind == 0:
            data[at : at + size] = chance.randbytes(size)
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            data[at:at] = chance.choice(STRINGS)
        elif kind == 3:
            del data[at : at + size]
        elif kind == 4 and at < len(data):
            data[at] = chance.choice((0, 1, 2, 127, 128, 255))  # a varint's byte: another length, number or kind
        else:
            data[at:at] = data[at : at + size] * chance.choice((1, 2, 100))
    return bytes(data)


def altered(graph: OnnxGraph, chance: random.Random) -> OnnxGraph:
    """Return a graph that is another in a few places; it can be written as a file."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        nodes, constants = list(graph.nodes), dict(graph.constants)
        inputs, outputs = list(graph.inputs), list(graph.outputs)
        kind = chance.randrange(10)
        at = chance.randrange(len(nodes))
        node = nodes[at]
        if kind == 0:
            nodes[at] = replace(node, operator=chance.choice(NAMED))
        elif kind == 1:
            nodes[at] = replace(node, attributes=_other_attributes(node, chance))
        elif kind == 2:
            names = [
                *constants,
                *(port.name for port in inputs),
                *(name for one in nodes for name in one.outputs),
                *NAMES,
            ]
            where = chance.randrange(len(node.inputs) + 1)
            nodes[at] = replace(node, inputs=(*node.inputs[:where], chance.choice(names), *node.inputs[where + 1 :]))
        elif kind in (3, 4) and constants:
            name = chance.choice([name for name in constants if constants[name].size < 64] or list(constants))
            constants[name] = _other_array(constants[name], chance)
        elif kind == 5:
            inputs[0] = _other_port(inputs[0], chance)
        elif kind == 6:
            outputs[chance.randrange(len(outputs))] = Port(chance.choice(nodes).outputs[0], "float32", None)
        elif kind == 7:
            del nodes[at]
        elif kind == 8:
            nodes.insert(at, replace(chance.choice(nodes), outputs=(f"new {chance.random()}",)))
        else:
            graph = replace(graph, opset=chance.randrange(1, 40))
        if nodes:
            graph = replace(
                graph, nodes=tuple(nodes), constants=constants, inputs=tuple(inputs), outputs=tuple(outputs)
            )
    return graph


def _number(chance: random.Random) -> int:
    return chance.choice(NUMBERS) * chance.choice((1, 1, 1, -1)) + chance.choice((0, 0, 0, 1))


def _other_attributes(node: Node, chance: random.Random) -> dict[str, Any]:
    attributes = dict(node.attributes)
    known = OPERATORS[node.operator].attributes if node.operator in OPERATORS else {}
    if chance.random() < 0.5 and known:  # one that it may have
        name = chance.choice(list(known))
        default = known[name][2]
        attributes.setdefault(name, 1 if default in (None, (), inspect.Parameter.empty) else default)
    if not attributes:
        return {chance.choice(("axis", "alpha", "pads", "made up")): _number(chance)}
    name = chance.choice(list(attributes))
    value = attributes[name]
    others = [
        _number(chance),
        chance.choice(REALS),
        "SAME_LOWER",
        tuple(_number(chance) for _ in range(chance.randrange(5))),
    ]
    if isinstance(value, tuple) and value and chance.random() < 0.7:
        where = chance.randrange(len(value))
        attributes[name] = (*value[:where], _number(chance), *value[where + 1 :])
    elif isinstance(value, int) and chance.random() < 0.7:
        attributes[name] = _number(chance)
    elif chance.random() < 0.2:
        del attributes[name]
    else:
        attributes[name] = chance.choice(others)
    return {
        name: max(min(value, (1 << 63) - 1), -(1 << 63)) if isinstance(value, int) else value
        for name, value in attributes.items()
    }


def _other_array(array: np.ndarray, chance: random.Random) -> np.ndarray:
    kind = chance.randrange(4)
    array = np.array(array)
    if kind == 0:
        with np.errstate(all="ignore"):
            return array.astype(chance.choice([name for name in CODES if name in np.sctypeDict]))
    if kind == 1:
        return array.reshape(chance.choice(((-1,), (1, -1), (-1, 1, 1), array.shape[::-1])))
    if kind == 2 and array.ndim:
        return array[: chance.randrange(len(array) + 1)]
    with np.errstate(all="ignore"):
        flat = array.reshape(-1)
        if flat.size:
            value = _number(chance) if array.dtype.kind in "iu" else chance.choice(REALS)
            flat[chance.randrange(flat.size)] = np.array(value).astype(array.dtype)
    return array


def _other_port(port: Port, chance: random.Random) -> Port:
    if chance.random() < 0.3:
        return replace(port, dtype=chance.choice(list(CODES)))
    shape = list(port.shape or (1,))
    shape[chance.randrange(len(shape))] = chance.choice((None, "n", "x", 1, 2, 3, 5, 1000, 1 << 20, 1 << 40))
    return replace(port, shape=tuple(shape[: chance.choice((len(shape), len(shape), 3))]))


def content(seed: int, originals: dict[str, OnnxGraph]) -> tuple[str, bytes]:
    """Return the damaged copy of a seed, and what it is a copy of."""
    chance = random.Random(seed)
    name = chance.choice(list(originals))
    graph = originals[name]
    if chance.random() < 0.5:
        return name, damaged(serialised(graph), chance, sum(array.nbytes for array in graph.constants.values()))
    return name, serialised(altered(graph, chance))


@contextmanager
def in_time(seconds: int) -> Iterator[None]:
    """Raise an error in what takes the CPU for longer."""

    def late(number: int, frame: object) -> None:
        raise AssertionError(f"takes more than {seconds} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def trial(path: Path, watch: Watch) -> str:
    """Load a file, run its network, and return "run", "loaded" or the error; AssertionError if that was not all."""
    watch.seen.clear()
    tracemalloc.start()
    watch.on = True
    values = 0
    try:
        with in_time(SECONDS), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            model = npmobilenet.load(path, backend="reference", threads=1)
            result, inputs = "loaded", inputs_of(model)
            values = sum(array.size for array in inputs.values())
            if values <= RUN:
                model.run(inputs)
                result = "run"
    except ValueError as error:  # CheckpointError is one
        result = str(error)
    finally:
        watch.on = False
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    mapped = [event for event in watch.seen if event.startswith("mmap.__new__ (-1, ")]  # memory for large tensors
    assert watch.seen == mapped, watch.seen
    peak += sum(int(event.split()[2].strip(",")) for event in mapped)
    size = path.stat().st_size
    assert peak <= BASE + FACTOR * size, f"{peak >> 20} MiB for a file of {size} bytes and {values} values"
    assert result.isprintable() and len(result) < 2000, result
    return result


def inputs_of(model: Any) -> dict[str, np.ndarray]:
    """Zeros of a shape that the network says it takes."""
    if not isinstance(model, OnnxModel):
        height, width = model.size or (SIDE, SIDE)
        image = (
            (1, height, width, model.graph.in_channels)
            if model.channels_last
            else (1, model.graph.in_channels, height, width)
        )
        return {model.input_name: np.broadcast_to(np.float32(0), image)}
    found = {}
    for port in model._engine.graph.inputs:
        usual = (1, 3, SIDE, SIDE, 1, 1, 1, 1)
        shape = [size if isinstance(size, int) else one for size, one in zip(port.shape or (2,), usual, strict=False)]
        dtype = {"float16": "float32", "bfloat16": "float32"}.get(port.dtype, port.dtype)
        found[port.name] = np.broadcast_to(np.zeros((), dtype if dtype in np.sctypeDict else "float32"), shape)
    return found


def main() -> int:
    """Try as many copies as the command line says."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    watch, originals = Watch(), samples()
    outcomes: collections.Counter[str] = collections.Counter()
    slowest, failures = (0.0, ""), 0
    with tempfile.TemporaryDirectory() as folder:
        for number, graph in enumerate(originals.values()):  # what reading them needs is imported then
            path = Path(folder) / f"{number}.onnx"
            path.write_bytes(serialised(graph))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = npmobilenet.load(path, backend="reference", threads=1)
                model.run(inputs_of(model))
        for seed in range(first, first + count):
            name, data = content(seed, originals)
            path = Path(folder) / f"{seed}.onnx"
            path.write_bytes(data)
            start = time.perf_counter()
            try:
                result = trial(path, watch)
                outcomes[result if result in ("run", "loaded") else "refused"] += 1
            except Exception as error:
                failures += 1
                print(f"seed {seed}, {name}: {type(error).__name__}: {error}", flush=True)
            slowest = max(slowest, (time.perf_counter() - start, f"seed {seed}, {name}"))
            path.unlink()
    print(f"{count} copies: {dict(outcomes)}, {failures} failures; the slowest took {slowest[0]:.2f} s ({slowest[1]})")
    return failures


if __name__ == "__main__":
    sys.exit(bool(main()))
