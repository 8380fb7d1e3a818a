"""Damaged copies of every kind of checkpoint: each is read, or refused in one line; nothing is imported or run.

    python -m tests.fuzz_checkpoints 10000 [FIRST_SEED]

Copy number n is made from seed n alone, so that ``python -m tests.fuzz_checkpoints 1 n`` makes it again. A copy is
damaged where it counts: inside of its zip members, pickles and compressed streams, with checksums that are right again.
"""

from __future__ import annotations

import bz2
import collections
import gzip
import io
import json
import lzma
import pickle
import random
import re
import sys
import tempfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np

from npmobilenet.checkpoints import read_checkpoint
from npmobilenet.errors import CheckpointError
from tests import tflite_files
from tests.checkpoint_files import Call, Name, pickled, safetensors_bytes, storage, tensor, torch_legacy, torch_zip
from tests.tensorflow_graphs import graph_of
from tests.tensorflow_js_files import manifest

FILES = Path(__file__).parent / "data" / "checkpoints"
BASE, FACTOR = 48 << 20, 24  # bytes that reading a file may take: its allowance, the file and its parts

# What a program does that a file must not make it do. The reader itself opens files and looks at folders.
FORBIDDEN = re.compile(
    r"import|exec|compile|marshal\.|pickle\.|code\.|ctypes\.|mmap\.|subprocess\.|socket\.|shutil\.|tempfile\.|glob\."
    r"|os\.(?!stat|scandir|listdir)|sys\.(?!_getframe)|builtins\.(input|breakpoint)"
)

# Stored files that are refused, or like others
UNUSED = re.compile("dtypes|views|expected|cuda|protocol4|compiled|complex|float8|list|single|no_|sparse")

STRINGS = [b"os\nsystem\n", b"\xff" * 4, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"R", b"b", b"u", b"\x81", b"h\0", b"q\0"]
STRINGS += [b"(", b"t", b"}", b"]", b".", b"99999999", b"-1", b"\x1b[2J", b"../", b'"', b"{", b"NaN", b"\xe2\x80\xae"]
STRINGS += [b"ctorch._utils\n_rebuild_tensor_v2\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cos\nsystem\n"]


def samples() -> dict[str, bytes | dict[str, bytes]]:
    """One small file, or folder, of every kind."""
    array = np.arange(12, dtype="f4").reshape(3, 4)
    arrays = {"w": array, "half": array.astype("f2"), "big": array.astype(">f8"), "t": array.T, "n": np.int64(3)}
    w = tensor(storage(12), (3, 4), (4, 1))
    beside = {
        "history": Call(Name("mmengine.logging", "HistoryBuffer"), (), {"log": array}),
        "function": Call(Name("functools", "partial"), (Name("os", "system"),), (("x",), {})),
    }
    training = {"epoch": 3, "state_dict": {"module.w": w}, "state_dict_ema": {"w": w, "n_averaged": w}, **beside}
    found: dict[str, bytes | dict[str, bytes]] = {
        path.name: path.read_bytes() for path in sorted(FILES.iterdir()) if not UNUSED.match(path.name)
    }
    found |= {f"arrays_{protocol}.pkl": pickle.dumps(arrays, protocol) for protocol in range(6)}
    found["arrays.pth"] = torch_zip(pickled({"state_dict": arrays}))
    found["training.pth"] = torch_zip(training, {"0": array.tobytes()})
    found["training_legacy.pth"] = torch_legacy(
        {"model": {"w": tensor(storage(12, view=(None,)), (3, 4), (4, 1))}, **beside}, [("0", 12, array.tobytes())]
    )
    stream = io.BytesIO()
    np.save(stream, arrays, allow_pickle=True)
    found["arrays.npy"] = stream.getvalue()
    one, two = safetensors_bytes({"a": array}), safetensors_bytes({"b": array})
    index = json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}).encode()
    config = b'{"id2label": {"0": "cat"}, "image_size": 224}'
    found["folder"] = {"1.safetensors": one, "2.safetensors": two, "model.safetensors.index.json": index}
    found["hub"] = {"model.safetensors": one, "config.json": config, "preprocessor_config.json": config}
    found["affine.safetensors"] = safetensors_bytes(
        {"w": np.arange(12, dtype="u1"), "half": array.astype("f2")},
        {"npmobilenet": json.dumps({"affine": {"w": [0.5, -1.0]}, "padding": "same"})},
    )
    found["frozen.pb"] = graph_of(
        {"a.weight": np.ones((4, 3, 2, 2)), "a.bias": np.ones(4), "a.BatchNorm.bias": array[0]}
    )
    found["model.tflite"] = tflite_files.model(*tflite_files.small_model())
    weights = {"a/filters": (np.zeros((3, 3, 1, 2), "u1"), (0.5, 1.0)), "a/bias": array[0], "step": np.int32([1])}
    found["tensorflow_js"] = manifest(weights)
    nodes = [("c", "Conv2D", ["x", "a/filters"]), ("d", "Add", ["c", "a/bias"]), ("e", "Mul", ["d", "six"])]
    found["tensorflow_js_graph"] = manifest(weights, nodes)
    for name, compress in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
        found[f"training.pth.{name}"] = compress(found["training.pth"])
    return found


def damaged(content: bytes, chance: random.Random, donors: list[bytes], depth: int = 0) -> bytes:
    """Return a damaged copy, whose containers are whole more often than not."""
    if depth < 3 and chance.random() < 0.85:
        for magic, unpack, pack in (
            (b"\x1f\x8b", gzip.decompress, gzip.compress),
            (b"BZh", bz2.decompress, bz2.compress),
            (b"\xfd7zXZ", lzma.decompress, lzma.compress),
        ):
            if content.startswith(magic):
                return pack(damaged(unpack(content), chance, donors, depth + 1))
        if content.startswith(b"PK\x03\x04"):
            return _damaged_zip(content, chance, donors, depth)
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        at, size = chance.randrange(len(data) + 1), min(chance.choice((1, 1, 2, 4, 9, 40)), len(data))
        if chance.random() < 0.7:
            at = min(at, chance.randrange(600))  # headers and pickles stand in front
        kind = chance.randrange(6)
        if kind == 0:
            data[at : at + size] = chance.randbytes(size)
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            data[at:at] = chance.choice(STRINGS)
        elif kind == 3:
            del data[at : at + size]
        elif kind == 4:
            donor = chance.choice(donors)
            start = chance.randrange(len(donor) + 1)
            data[at : at + size] = donor[start : start + size]
        else:
            data[at:at] = data[at : at + size] * chance.choice((1, 2, 100))
    return bytes(data)


def _damaged_zip(content: bytes, chance: random.Random, donors: list[bytes], depth: int) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = [name for name in members if name.endswith((".pkl", ".npy"))] or list(members)
    name = chance.choice(names if chance.random() < 0.8 else list(members))
    members[name] = damaged(members[name], chance, donors, depth + 1)
    if chance.random() < 0.1:
        members[chance.choice(STRINGS).decode("latin-1") + name] = members.pop(name)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member, archive.compression)
    return stream.getvalue()


class Watch:
    """Sees what Python does while a file is read; one for a process, for an audit hook stays."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        writes = event == "open" and arguments[1] not in (None, "r", "rb")
        if writes or FORBIDDEN.match(event):
            self.seen.append(f"{event} {arguments!r:.100}")


def trial(path: Path, watch: Watch) -> str:
    """Read a file, or folder, and return "read" or the error; raise AssertionError if that was not all."""
    files = [path] if path.is_file() else list(path.iterdir())
    size = sum(file.stat().st_size for file in files)
    watch.seen.clear()
    tracemalloc.start()
    watch.on = True
    try:
        found = read_checkpoint(path)
        result = "read"
    except CheckpointError as error:
        found, result = None, str(error)
    finally:
        watch.on = False
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert not watch.seen, watch.seen
    assert peak <= BASE + FACTOR * size, f"{peak >> 20} MiB for a file of {size} bytes"
    if found is None:
        assert result.startswith(str(path.parent)) and result.isprintable() and len(result) < 2000, result
    else:
        assert found.tensors and all(array.dtype.kind in "fiub" for array in found.tensors.values())
        assert all(note.isprintable() and len(note) < 2000 for note in found.notes), found.notes
    return result


def write_copy(seed: int, folder: Path, originals: dict[str, bytes | dict[str, bytes]]) -> Path:
    """Write the damaged copy of this seed into a folder and return its path."""
    chance = random.Random(seed)
    name = chance.choice(list(originals))
    original = originals[name]
    donors = [content for content in originals.values() if isinstance(content, bytes)]
    if isinstance(original, bytes):
        return write(folder / f"{seed}-{name}", damaged(original, chance, donors))
    victim = chance.choice(list(original))
    return write(folder / f"{seed}-{name}", original | {victim: damaged(original[victim], chance, donors)})


def write(path: Path, content: bytes | dict[str, bytes]) -> Path:
    """Write a file, or a folder of files."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.mkdir()
        for name, inner in content.items():
            (path / name).write_bytes(inner)
    return path


def main() -> int:
    """Try as many copies as the command line says."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    watch, originals = Watch(), samples()
    outcomes: collections.Counter[str] = collections.Counter()
    slowest, failures = (0.0, ""), 0
    with tempfile.TemporaryDirectory() as folder:
        for name, original in originals.items():  # what reading them needs is imported then
            read_checkpoint(write(Path(folder) / name, original))
        for seed in range(first, first + count):
            path = write_copy(seed, Path(folder), originals)
            start = time.perf_counter()
            try:
                result = trial(path, watch)
                outcomes["read" if result == "read" else "refused"] += 1
            except Exception as error:
                failures += 1
                print(f"seed {seed}, {path.name}: {type(error).__name__}: {error}")
            slowest = max(slowest, (time.perf_counter() - start, path.name))
            if path.is_file():
                path.unlink()
    print(f"{count} copies: {dict(outcomes)}, {failures} failures; the slowest took {slowest[0]:.2f} s ({slowest[1]})")
    return failures


if __name__ == "__main__":
    sys.exit(bool(main()))
