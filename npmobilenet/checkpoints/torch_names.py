"""What the functions and classes of PyTorch, and some of Python's, stand for in a pickle.

A tensor is a call of ``torch._utils._rebuild_tensor_v2`` with (storage, offset, shape, strides, …), all counted in
elements; the functions of the same purpose before and after it, and those of parameters, subclasses and quantised
tensors, take more. The ones here build a `Tensor`, a dict, a list; every other name becomes a `Foreign`.

Source: ``torch/_utils.py``, ``torch/_tensor.py`` and ``torch/storage.py`` of PyTorch 1.0 to 2.13.
"""

from __future__ import annotations

from collections.abc import Callable

from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.checkpoints.foreign import Foreign, ForeignObject
from npmobilenet.checkpoints.numpy_array import numpy_functions
from npmobilenet.checkpoints.quantised import QuantisedTensor
from npmobilenet.checkpoints.stored_tensor import BFLOAT16, Storage, StoredTensor, Tensor, UnreadableTensor
from npmobilenet.checkpoints.unpickler import MAX_ARGUMENTS, Function
from npmobilenet.text import printable

# torch.<name>: (bytes per element, NumPy's code; None where there is no such type here)
DTYPES = {
    "float64": (8, "f8"), "float32": (4, "f4"), "float16": (2, "f2"), "bfloat16": (2, BFLOAT16),
    "int64": (8, "i8"), "int32": (4, "i4"), "int16": (2, "i2"), "int8": (1, "i1"),
    "uint64": (8, "u8"), "uint32": (4, "u4"), "uint16": (2, "u2"), "uint8": (1, "u1"), "bool": (1, "b1"),
    "complex128": (16, None), "complex64": (8, None), "complex32": (4, None),
    "float8_e4m3fn": (1, None), "float8_e4m3fnuz": (1, None), "float8_e5m2": (1, None),
    "float8_e5m2fnuz": (1, None), "float8_e8m0fnu": (1, None), "float4_e2m1fn_x2": (1, None),
    "qint32": (4, "i4"), "qint8": (1, "i1"), "quint8": (1, "u1"), "quint4x2": (1, None), "quint2x4": (1, None),
}  # fmt: skip

STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
    "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool", "UntypedStorage": "uint8",
    "ComplexDoubleStorage": "complex128", "ComplexFloatStorage": "complex64", "QInt32Storage": "qint32",
    "QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
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


class Names:
    """What stands for the Python objects that the pickles of one file name.

    ``byte_order`` is that of the storages; ``storage_of`` reads the file that a plain pickle holds for each of them.

    Attributes
    ----------
    foreign : dict of str to Foreign
        What has no meaning here.
    """

    def __init__(
        self, allowance: Allowance, byte_order: str = "<", storage_of: Callable[[bytes], TypedStorage] | None = None
    ) -> None:
        self.foreign: dict[str, Foreign] = {}
        self._allowance = allowance
        self._byte_order = byte_order
        functions = {
            **_FUNCTIONS,
            **numpy_functions(allowance),
            "torch._utils._rebuild_tensor": self._rebuild_tensor,
            "torch._utils._rebuild_tensor_v2": self._rebuild_tensor,
            "torch._utils._rebuild_tensor_v3": self._rebuild_tensor_v3,
            "torch._utils._rebuild_qtensor": self._rebuild_quantised,
        }
        if storage_of is not None:
            functions["torch.storage._load_from_bytes"] = storage_of
        self._functions = {name: Function(name, call) for name, call in functions.items()}

    def find(self, name: str) -> object:
        """Return what stands for ``name`` ("module.name")."""
        for old, new in _PYTHON_2.items():
            if name.startswith(old):
                name = new + name.removeprefix(old)
        module, _, last = name.rpartition(".")
        if name in self._functions:
            return self._functions[name]
        if module.partition(".")[0] == "torch" and last in STORAGES:  # also torch.cuda.FloatStorage
            return DType(STORAGES[last])
        if module == "torch" and last in DTYPES:
            return DType(last)
        if name not in self.foreign:
            self._allowance.take(200 + len(name), "its pickle")
            self.foreign[name] = Foreign(name)
        return self.foreign[name]

    def _rebuild_tensor(self, storage: object, offset: object, shape: object, strides: object, *rest: object) -> Tensor:
        # rest: requires_grad, backward_hooks, and since 2.0 metadata
        return _tensor(storage, None, offset, shape, strides, rest[2:3], self._byte_order)

    def _rebuild_tensor_v3(
        self, storage: object, offset: object, shape: object, strides: object, grad: object, hooks: object,
        dtype: object, *metadata: object,
    ) -> Tensor:  # fmt: skip
        if type(dtype) is not DType:
            raise TypeError
        return _tensor(storage, dtype, offset, shape, strides, metadata, self._byte_order)

    def _rebuild_quantised(
        self, storage: object, offset: object, shape: object, strides: object, scheme: object, *rest: object
    ) -> Tensor:
        integers = _tensor(storage, None, offset, shape, strides, (), self._byte_order)
        if type(scheme) is not tuple or not scheme or not isinstance(scheme[0], Foreign):
            raise TypeError
        name, numbers = scheme[0].name, scheme[1:]
        if name == "torch.per_tensor_affine" and [type(number) for number in numbers] == [float, int]:
            return QuantisedTensor(integers, *numbers)
        tensors = [isinstance(number, StoredTensor) for number in numbers]
        if name == "torch.per_channel_affine" and tensors == [True, True, False] and type(numbers[2]) is int:
            return QuantisedTensor(integers, *numbers)
        return UnreadableTensor(f"quantised by {printable(name, 80)}", "save tensor.dequantize()")


_PYTHON_2 = {"__builtin__.": "builtins.", "copy_reg.": "copyreg."}


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
    # A parameter, or what XLA and other devices save of a tensor (a NumPy array): the tensor in it.
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


def _size(sizes: object = ()) -> tuple:
    if type(sizes) is not tuple:
        raise TypeError
    return sizes


def _items(items: object = ()) -> object:
    return items  # of a set, as a list


def _subclass(function: object, declared: object, arguments: object, state: object) -> object:
    # A subclass of Tensor: read as the tensor that it is.
    if isinstance(function, Foreign):
        return ForeignObject(function.name)
    if not isinstance(function, Function) or type(arguments) is not tuple or len(arguments) > MAX_ARGUMENTS:
        raise TypeError
    return function.call(*arguments)


def _reconstructed(kind: object, base: object, state: object) -> ForeignObject:
    # copyreg._reconstructor: how protocols 0 and 1 make an object
    if not isinstance(kind, Foreign):
        raise TypeError
    return ForeignObject(kind.name, (state,))


def _unreadable(kind: str, advice: str) -> Callable[..., UnreadableTensor]:
    return lambda *arguments: UnreadableTensor(kind, advice)


_FUNCTIONS: dict[str, Callable[..., object]] = {
    "builtins.dict": _mapping,
    "builtins.set": _items,
    "builtins.frozenset": _items,
    "builtins.list": _items,
    "builtins.tuple": _items,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    "collections.Counter": _mapping,
    "copyreg._reconstructor": _reconstructed,
    "torch.Size": _size,
    "torch._tensor._rebuild_from_type": _subclass,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch.tensor._rebuild_from_type": _subclass,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_device_tensor_from_numpy": _parameter,
    "torch._utils._rebuild_xla_tensor": _parameter,
    "torch._utils._rebuild_sparse_tensor": _unreadable("sparse", "save tensor.to_dense()"),
    "torch._utils._rebuild_sparse_csr_tensor": _unreadable("sparse", "save tensor.to_dense()"),
    "torch._utils._rebuild_nested_tensor": _unreadable("a nested tensor", "save its parts"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unreadable("on the meta device", "it has no data"),
}
