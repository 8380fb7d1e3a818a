"""What ``torch.save`` writes: a pickle, and beside it the raw bytes of the tensors' storages.

The pickle holds containers and numbers as usual. A tensor in it is a call of
``torch._utils._rebuild_tensor_v2`` with (storage, offset, shape, strides, …), all counted in elements; the
storage is a *persistent id*, the tuple ``("storage", type, key, device, number of elements)``, and ``key``
says where its bytes are.

Zip format (PyTorch 1.6 and later), a zip archive of uncompressed members in one folder of any name:

    archive/data.pkl     the pickle
    archive/data/<key>   the bytes of each storage
    archive/byteorder    b"little" or b"big"; absent before PyTorch 2.1, then little

A TorchScript archive looks alike but has ``constants.pkl`` and ``code/`` as well: it is a program.

Legacy format (before 1.6, and what torchvision's older weights are still published in), in sequence:

    pickle   0x1950a86a20f9469cfc6c, the magic number
    pickle   1001, the protocol version
    pickle   {"protocol_version": …, "little_endian": …, "type_sizes": …}
    pickle   the object; its persistent ids have a sixth item: None, or for a view of another storage
             (key of the view, offset, number of elements)
    pickle   list of the storages' keys, in the order in which they follow
    storage  8 bytes: number of elements; then the elements. Little-endian on every machine: PyTorch
             swaps on the way out and ignores "little_endian" on the way in, and so do we.

Source: ``torch/serialization.py``, ``torch/_utils.py`` and ``torch/csrc/serialization.cpp`` of PyTorch 1.0 to
2.13; Python's ``pickletools`` for pickles themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from npmobilenet.checkpoints.stored_tensor import (
    BFLOAT16,
    Storage,
    StoredTensor,
    Tensor,
    UnreadableTensor,
)
from npmobilenet.checkpoints.unpickler import OPAQUE, Function, Stranger, Unpickler
from npmobilenet.checkpoints.zip_archive import ZipArchive
from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001

# torch.<name>: (bytes per element, NumPy's code; None where there is no such type here)
DTYPES = {
    "float64": (8, "f8"), "float32": (4, "f4"), "float16": (2, "f2"), "bfloat16": (2, BFLOAT16),
    "int64": (8, "i8"), "int32": (4, "i4"), "int16": (2, "i2"), "int8": (1, "i1"),
    "uint64": (8, "u8"), "uint32": (4, "u4"), "uint16": (2, "u2"), "uint8": (1, "u1"), "bool": (1, "b1"),
    "complex128": (16, None), "complex64": (8, None), "complex32": (4, None),
    "float8_e4m3fn": (1, None), "float8_e4m3fnuz": (1, None), "float8_e5m2": (1, None),
    "float8_e5m2fnuz": (1, None), "float8_e8m0fnu": (1, None), "float4_e2m1fn_x2": (1, None),
    "qint32": (4, None), "qint8": (1, None), "quint8": (1, None), "quint4x2": (1, None),
    "quint2x4": (1, None),
}  # fmt: skip

STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
    "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool", "UntypedStorage": "uint8",
    "ComplexDoubleStorage": "complex128", "ComplexFloatStorage": "complex64", "QInt32Storage": "qint32",
    "QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
}  # fmt: skip

# Objects that stand beside the weights in training checkpoints. Calling one of them yields OPAQUE.
BYSTANDERS = {
    "argparse": ("Namespace",),
    "types": ("SimpleNamespace",),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "pathlib": ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "pathlib._local": ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "builtins": ("bool", "bytearray", "bytes", "complex", "float", "frozenset", "int", "list", "range", "set",
                 "slice", "str", "tuple"),
    "_codecs": ("encode",),  # how pickle protocol 2 spells bytes
    "numpy": ("dtype", "ndarray", "bool_", "float16", "float32", "float64", "int32", "int64", "uint8"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
    "numpy._core.numeric": ("_frombuffer",),
    "torch": ("device", "strided", "per_tensor_affine", "per_channel_affine", "per_tensor_symmetric",
              "per_channel_symmetric", "per_channel_affine_float_qparams"),
    "torch.serialization": ("_get_layout",),
}  # fmt: skip


class DType:
    """A ``torch.dtype`` or, which says the same, the type of a storage."""

    __slots__ = ("code", "itemsize", "name")

    def __init__(self, name: str) -> None:
        self.name = f"torch.{name}"
        self.itemsize, self.code = DTYPES[name]


class TypedStorage:
    """A storage together with the data type that its persistent id gives to it."""

    __slots__ = ("dtype", "storage")

    def __init__(self, storage: Storage, dtype: DType) -> None:
        self.storage = storage
        self.dtype = dtype


def read_torch_zip(data: bytes, archive: ZipArchive, folder: str) -> object:
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

    pickled = bytes(archive.read(f"{folder}data.pkl"))
    return _unpickler(pickled, 0, load_storage, ">" if byte_order == b"big" else "<").load()


def read_torch_legacy(data: bytes) -> object:
    """Return the object in a legacy-format file; its tensors are ``StoredTensor``."""
    try:
        header = Unpickler(data, 0, Stranger, _storage_id)
        magic = header.load()
    except CheckpointError:
        magic = None
    if type(magic) is not int or magic != MAGIC_NUMBER:
        raise CheckpointError(
            "is a pickle, but not one that torch.save wrote; save the weights with torch.save(model.state_dict(), path)"
        )
    header = Unpickler(data, header.position, Stranger, _storage_id)
    if header.load() != PROTOCOL_VERSION:
        raise CheckpointError(f"its protocol version is not {PROTOCOL_VERSION}, the only one there ever was")
    header = Unpickler(data, header.position, Stranger, _storage_id)
    header.load()

    storages: dict[str, tuple[Storage, DType]] = {}
    views: list[tuple[str, Storage, int]] = []

    def load_storage(key: object) -> TypedStorage:
        key, dtype, count, view = _storage_id(key)
        storage, _ = storages.setdefault(key, (Storage(count * dtype.itemsize), dtype))
        _check_storage_size(key, storage.nbytes, count, dtype)
        if view is None:
            return TypedStorage(storage, dtype)
        _, offset, length = view
        part = Storage(length * dtype.itemsize)
        views.append((key, part, offset * dtype.itemsize))
        return TypedStorage(part, dtype)

    body = _unpickler(data, header.position, load_storage, "<")
    result = body.load()
    order = Unpickler(data, body.position, Stranger, _storage_id)
    keys = order.load()
    expected = sorted(storages)
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != expected:
        raise CheckpointError("its list of storages is not the set that its tensors use; the file is damaged")
    _locate_storages(data, order.position, keys, storages)
    for key, part, start in views:
        part.data = storages[key][0].data[start : start + part.nbytes]
        if len(part.data) != part.nbytes:
            raise CheckpointError(f"a view of storage {quote(key)} reaches beyond it; the file is damaged")
    return result


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
    if type(key) is tuple and len(key) == 4 and isinstance(key[1], Stranger):
        raise key[1].refuse(whole_model=True)  # ("module", class, its source file, its source): a whole pickled model
    if type(key) is tuple and len(key) in (5, 6):
        kind, dtype, name, _, count, view = (*key, None)[:6]
        if isinstance(dtype, Stranger):
            raise dtype.refuse()
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


# What stands for the functions and classes that a pickle may name ---------------------------------------


def _unpickler(
    data: bytes, position: int, load_storage: Callable[[object], TypedStorage], byte_order: str
) -> Unpickler:
    """Return an unpickler that knows PyTorch's names."""

    def rebuild_tensor(storage: object, offset: object, shape: object, strides: object, *rest: object) -> Tensor:
        # rest: requires_grad, backward_hooks, and since 2.0 metadata
        return _tensor(storage, None, offset, shape, strides, rest[2:3], byte_order)

    def rebuild_tensor_v3(
        storage: object, offset: object, shape: object, strides: object, grad: object, hooks: object,
        dtype: object, *metadata: object,
    ) -> Tensor:  # fmt: skip
        if type(dtype) is not DType:
            raise TypeError
        return _tensor(storage, dtype, offset, shape, strides, metadata, byte_order)

    def rebuild_subclass(function: object, declared: object, arguments: object, state: object) -> object:
        machine.claim_type(declared)
        if not isinstance(function, Function) or type(arguments) is not tuple:
            raise TypeError
        return function.call(*arguments)

    functions = {
        **_FUNCTIONS,
        "torch._utils._rebuild_tensor": rebuild_tensor,
        "torch._utils._rebuild_tensor_v2": rebuild_tensor,
        "torch._utils._rebuild_tensor_v3": rebuild_tensor_v3,
        "torch._tensor._rebuild_from_type": rebuild_subclass,
        "torch._tensor._rebuild_from_type_v2": rebuild_subclass,
        "torch.tensor._rebuild_from_type": rebuild_subclass,
    }

    def find_global(name: str) -> object:
        name = name.replace("__builtin__.", "builtins.", 1)  # Python 2
        if name in functions:
            return Function(name, functions[name])
        module, _, last = name.rpartition(".")
        if module.partition(".")[0] == "torch" and last in STORAGES:  # also torch.cuda.FloatStorage
            return DType(STORAGES[last])
        if module == "torch" and last in DTYPES:
            return DType(last)
        return Stranger(name)

    machine = Unpickler(data, position, find_global, load_storage)
    return machine


def _tensor(
    typed: object, dtype: DType | None, offset: object, shape: object, strides: object, metadata: tuple,
    byte_order: str,
) -> Tensor:  # fmt: skip
    if type(typed) is not TypedStorage or type(shape) is not tuple or type(strides) is not tuple:
        raise TypeError
    if any(metadata):
        return UnreadableTensor("a lazily conjugated or negated tensor", "save tensor.resolve_neg()")
    dtype = dtype or typed.dtype
    return StoredTensor(typed.storage, dtype.name, dtype.code, shape, strides, offset, byte_order)


def _parameter(data: object, *rest: object) -> Tensor:
    if not isinstance(data, Tensor):
        raise TypeError
    return data


def _mapping(*arguments: object) -> dict:
    # OrderedDict(), defaultdict(factory), Counter({...}), and Python 2's OrderedDict([[key, value], ...]).
    # Arguments are passed on or emptied, never copied: a pickle can repeat a call in five bytes.
    items = arguments[-1] if arguments else None
    if type(items) is dict:
        return items
    result = {}
    if type(items) is list:
        for item in items:
            if type(item) not in (list, tuple) or len(item) != 2:
                raise TypeError
            if type(item[0]) is str:
                result[item[0]] = item[1]
        items.clear()
    return result


def _size(sizes: object = ()) -> object:
    return sizes if type(sizes) is tuple else OPAQUE


def _opaque(*arguments: object) -> object:
    return OPAQUE


def _unreadable(kind: str, advice: str) -> Callable[..., UnreadableTensor]:
    return lambda *arguments: UnreadableTensor(kind, advice)


_FUNCTIONS: dict[str, Callable[..., object]] = {
    **{f"{module}.{name}": _opaque for module, names in BYSTANDERS.items() for name in names},
    "builtins.dict": _mapping,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    "collections.Counter": _mapping,
    "torch.Size": _size,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_sparse_tensor": _unreadable("sparse", "save tensor.to_dense()"),
    "torch._utils._rebuild_sparse_csr_tensor": _unreadable("sparse", "save tensor.to_dense()"),
    "torch._utils._rebuild_nested_tensor": _unreadable("a nested tensor", "save its parts"),
    "torch._utils._rebuild_qtensor": _unreadable("quantised", "save tensor.dequantize()"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unreadable("on the meta device", "it has no data"),
}
