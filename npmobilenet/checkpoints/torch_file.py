"""What ``torch.save`` writes: a pickle, and beside it the raw bytes of the tensors' storages.

The pickle holds containers and numbers as usual, and tensors (`torch_names`). The storage of a tensor is a *persistent
id*, the tuple ``("storage", type, key, device, number of elements)``, and ``key`` says where its bytes are.

Zip format (PyTorch 1.6 and later), a zip archive of uncompressed members in one folder of any name:

    archive/data.pkl     the pickle
    archive/data/<key>   the bytes of each storage
    archive/byteorder    b"little" or b"big"; absent before PyTorch 2.1, then little

A TorchScript archive has ``constants.pkl`` and ``code/`` as well: a program, whose object is a module, with parameters
and modules as its attributes. The program is not looked at.

Legacy format (before 1.6, and what torchvision's older weights are still published in), in sequence:

    pickle   0x1950a86a20f9469cfc6c, the magic number
    pickle   1001, the protocol version
    pickle   {"protocol_version": …, "little_endian": …, "type_sizes": …}
    pickle   the object; its persistent ids have a sixth item: None, or for a view of another storage
             (key of the view, offset, number of elements)
    pickle   list of the storages' keys, in the order in which they follow
    storage  8 bytes: number of elements; then the elements. Little-endian on every machine: PyTorch
             swaps on the way out and ignores "little_endian" on the way in, and so do we.

A plain pickle (``pickle.dump``) of tensors has no persistent ids; each storage is a call of
``torch.storage._load_from_bytes`` with a whole legacy file of that storage.

Source: ``torch/serialization.py`` and ``torch/csrc/serialization.cpp`` of PyTorch 1.0 to
2.13; Python's ``pickletools`` for pickles themselves.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.checkpoints.foreign import Foreign
from npmobilenet.checkpoints.stored_tensor import Storage
from npmobilenet.checkpoints.torch_names import DType, Names, TypedStorage
from npmobilenet.checkpoints.unpickler import Unpickler
from npmobilenet.checkpoints.zip_archive import ZipArchive
from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001


class Pickled(NamedTuple):
    """The object in a pickle, the names in it that have no meaning here, and whether torch.save wrote it."""

    value: object
    foreign: tuple[str, ...]
    by_torch: bool = True


def read_torch_zip(archive: ZipArchive, folder: str, allowance: Allowance) -> Pickled:
    """Return the object in a zip-format file; its tensors are ``StoredTensor``."""
    names = set(archive.names())
    byte_order = bytes(archive.read(f"{folder}byteorder")) if f"{folder}byteorder" in names else b"little"
    if byte_order not in (b"little", b"big"):
        raise CheckpointError("its byteorder record is neither 'little' nor 'big'; the file is damaged")
    storages: dict[str, Storage] = {}

    def load_storage(key: object) -> TypedStorage:
        key, dtype, count, _ = _storage_id(key)
        if key not in storages:
            member = f"{folder}data/{key}"
            if member not in names:
                raise CheckpointError(f"zip member {quote(member)} is missing; the file is damaged")
            content = archive.read(member)
            storages[key] = Storage(len(content), content)
        _check_storage_size(key, storages[key].nbytes, count, dtype)
        return TypedStorage(storages[key], dtype)

    known = Names(allowance, ">" if byte_order == b"big" else "<")
    pickled = bytes(archive.read(f"{folder}data.pkl"))
    return Pickled(Unpickler(pickled, 0, known.find, load_storage, allowance).load(), tuple(known.foreign))


def read_pickle(data: bytes | memoryview, allowance: Allowance) -> Pickled:
    """Return the object in a legacy-format file, or in a plain pickle, which has no storages beside it."""

    def storage_of(content: object) -> TypedStorage:
        # A legacy file of its own, in which there is no further one
        if type(content) is not bytes:
            raise TypeError
        found = _read_pickle(content, allowance, Names(allowance)).value
        if type(found) is not TypedStorage:
            raise TypeError
        return found

    return _read_pickle(bytes(data), allowance, Names(allowance, storage_of=storage_of))


def _read_pickle(data: bytes, allowance: Allowance, known: Names) -> Pickled:
    machine = Unpickler(data, 0, known.find, _no_storage, allowance)
    found = machine.load()
    if type(found) is int and found == MAGIC_NUMBER:
        return _read_legacy(data, machine.position, allowance, known)
    return Pickled(found, tuple(known.foreign), by_torch=False)


def _no_storage(key: object) -> TypedStorage:
    raise CheckpointError("is a pickle that refers to objects outside of it, and torch.save did not write it")


def _read_legacy(data: bytes, position: int, allowance: Allowance, known: Names) -> Pickled:
    storages: dict[str, tuple[Storage, DType]] = {}
    views: list[tuple[str, Storage, int]] = []

    def load_storage(key: object) -> TypedStorage | Foreign:
        if type(key) is tuple and len(key) == 4 and key[0] == "module" and isinstance(key[1], Foreign):
            return key[1]  # ("module", class, its source file, its source)
        key, dtype, count, view = _storage_id(key)
        storage, _ = storages.setdefault(key, (Storage(count * dtype.itemsize), dtype))
        _check_storage_size(key, storage.nbytes, count, dtype)
        if view is None:
            return TypedStorage(storage, dtype)
        _, offset, length = view
        part = Storage(length * dtype.itemsize)
        views.append((key, part, offset * dtype.itemsize))
        return TypedStorage(part, dtype)

    machine = Unpickler(data, position, known.find, load_storage, allowance)
    if machine.load() != PROTOCOL_VERSION:
        raise CheckpointError(f"its protocol version is not {PROTOCOL_VERSION}, the only one there ever was")
    parts = []
    for _ in ("the system", "the object", "the storages' keys"):
        machine = Unpickler(data, machine.position, known.find, load_storage, allowance)
        parts.append(machine.load())
    _, result, keys = parts
    expected = sorted(storages)
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != expected:
        raise CheckpointError("its list of storages is not the set that its tensors use; the file is damaged")
    _locate_storages(data, machine.position, keys, storages)
    for key, part, start in views:
        part.data = storages[key][0].data[start : start + part.nbytes]
        if len(part.data) != part.nbytes:
            raise CheckpointError(f"a view of storage {quote(key)} reaches beyond it; the file is damaged")
    return Pickled(result, tuple(known.foreign))


def _locate_storages(data: bytes, position: int, keys: list[str], storages: dict[str, tuple[Storage, DType]]) -> None:
    for key in keys:
        storage, dtype = storages[key]
        start, end = position + 8, position + 8 + storage.nbytes
        if end > len(data):
            raise CheckpointError(
                f"is cut short: storage {quote(key)} ends at byte {end} but the file has {len(data)}; "
                "download or save it again"
            )
        _check_storage_size(key, storage.nbytes, struct.unpack_from("<q", data, position)[0], dtype)
        storage.data = memoryview(data)[start:end]
        position = end


def _storage_id(key: object) -> tuple[str, DType, int, tuple | None]:
    """Take a persistent id apart: (key, data type, number of elements, view of an older file or None)."""
    if type(key) is tuple and len(key) in (5, 6):
        kind, dtype, name, _, count, view = (*key, None)[:6]
        if isinstance(dtype, Foreign):
            raise CheckpointError(f"has a storage of the unknown type {quote(dtype.name)}")
        if kind == "storage" and type(dtype) is DType and type(name) is str and _is_size(count):
            plausible = type(view) is tuple and len(view) == 3 and _is_size(view[1]) and _is_size(view[2])
            if view is None or plausible:
                return name, dtype, count, view
    raise CheckpointError("its pickle has a persistent id that is not a tensor's storage; it is damaged or hostile")


def _is_size(number: object) -> bool:
    return type(number) is int and 0 <= number < 2**63


def _check_storage_size(key: str, nbytes: int, count: int, dtype: DType) -> None:
    if nbytes != count * dtype.itemsize:
        raise CheckpointError(
            f"storage {quote(key)} should have {count} elements of {dtype.name} "
            f"({count * dtype.itemsize} bytes) but has {nbytes} bytes; the file is damaged"
        )
