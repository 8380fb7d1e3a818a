"""Builds PyTorch files, honest and hostile ones, without PyTorch."""

import io
import json
import pickle
import struct
import zipfile
from dataclasses import dataclass

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class Name:
    """Becomes a reference to the Python object ``module.name``, whether it exists or not."""

    module: str
    name: str


@dataclass(frozen=True, eq=False)
class Call:
    """Becomes a call of ``function`` with ``arguments`` (opcode REDUCE), then BUILD if there is a state.

    One that stands in several places, or in its own state, is called once.
    """

    function: object
    arguments: object
    state: object = None
    opcode: bytes = pickle.REDUCE


@dataclass(frozen=True, eq=False)
class Persistent:
    """Becomes a persistent id."""

    key: object


class _Pickler(pickle._Pickler):
    """The pickler in pure Python, taught to write the classes above."""

    def save(self, item, save_persistent_id=True):
        if isinstance(item, Name):
            self.write(pickle.GLOBAL + f"{item.module}\n{item.name}\n".encode())
        elif isinstance(item, Call) and id(item) in self.memo:
            self.write(self.get(self.memo[id(item)][0]))
        elif isinstance(item, Call):
            self.save(item.function)
            self.save(item.arguments)
            self.write(item.opcode)
            self.memoize(item)
            if item.state is not None:
                self.save(item.state)
                self.write(pickle.BUILD)
        elif isinstance(item, Persistent):
            self.save(item.key)
            self.write(pickle.BINPERSID)
        else:
            super().save(item, save_persistent_id)


def pickled(item, protocol=2):
    """Return ``item`` pickled; `Name`, `Call` and `Persistent` may stand anywhere in it."""
    stream = io.BytesIO()
    _Pickler(stream, protocol).dump(item)
    return stream.getvalue()


def storage(count, kind="FloatStorage", key="0", device="cpu", module="torch", view=()):
    """Return a reference to a storage; ``view=(None,)`` or a triple is what legacy files add."""
    return Persistent(("storage", Name(module, kind), key, device, count, *view))


def tensor(source, shape, strides, offset=0, function="_rebuild_tensor_v2", rest=(False, {})):
    """Return a tensor as PyTorch pickles it."""
    return Call(Name("torch._utils", function), (source, offset, shape, strides, *rest))


def zip_bytes(members, compression=zipfile.ZIP_STORED):
    """Return a zip archive; ``members`` maps names to contents, or is a list of such pairs."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in dict(members).items() if isinstance(members, dict) else members:
            archive.writestr(name, content)
    return stream.getvalue()


def torch_zip(item, storages=None, **members):
    """Return a zip-format file of ``item``; a pickle is taken as it is."""
    body = item if isinstance(item, bytes) else pickled(item)
    data = {f"archive/data/{key}": content for key, content in (storages or {}).items()}
    extra = {f"archive/{name}": content for name, content in members.items()}
    return zip_bytes({"archive/data.pkl": body, **extra, **data})


def torch_legacy(item, storages=(), keys=None, little_endian=True):
    """Return a legacy-format file; ``storages`` lists (key, number of elements, bytes)."""
    info = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"short": 2}}
    keys = [key for key, _, _ in storages] if keys is None else keys
    body = item if isinstance(item, bytes) else pickled(item)
    head = pickled(MAGIC_NUMBER) + pickled(1001) + pickled(info)
    return head + body + pickled(keys) + b"".join(struct.pack("<q", n) + data for _, n, data in storages)


def npy(descr, shape, data, order=False, version=b"\x01\x00"):
    """Return a ``.npy`` member with any header."""
    header = f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<I", len(header)) + header + data


def safetensors(header, data=b"", length=None):
    """Return a safetensors file with any header (text)."""
    header = header.encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def safetensors_bytes(tensors, metadata=None):
    """Return a safetensors file of arrays of float32, float16 or uint8."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    types = {"float32": "F32", "float16": "F16", "uint8": "U8"}
    for name, array in tensors.items():
        span = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": types[array.dtype.name], "shape": list(array.shape), "data_offsets": span}
        data += array.tobytes()
    return safetensors(json.dumps(header), data)
