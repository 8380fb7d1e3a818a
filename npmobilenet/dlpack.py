"""Arrays exchanged with other libraries by DLPack, without a copy and without importing the other library.

The protocol is the array API standard's; the structure in a capsule is ``DLManagedTensor`` of DLPack's ``dlpack.h``.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from npmobilenet.text import shown

CPU, CUDA, CUDA_HOST = 1, 2, 3  # kinds of devices


class _Beginning(ctypes.Structure):
    """The first fields of the structure."""

    _fields_ = (("data", ctypes.c_void_p), ("device_kind", ctypes.c_int32), ("device_number", ctypes.c_int32))


class _Described:
    """What NumPy takes for an array: it keeps this, and this the owner of the memory."""

    def __init__(self, owner: object, interface: dict[str, Any]) -> None:
        self.owner, self.__array_interface__ = owner, interface


_content = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def lend(owner: object, interface: dict[str, Any], device: tuple[int, int]) -> Any:
    """Return a capsule that describes memory on any device; ``owner`` lives until its consumer is done.

    NumPy makes the capsule, and frees it, as if the address were the host's; nothing is read there.

    Parameters
    ----------
    interface : dict
        As in ``__array_interface__`` and ``__cuda_array_interface__``.
    device : (kind, number)

    Raises
    ------
    BufferError
        If DLPack does not know such arrays.
    """
    about = {name: interface[name] for name in ("shape", "strides", "typestr", "data")}
    capsule = np.asarray(_Described(owner, {**about, "version": 3})).__dlpack__()
    tensor = _Beginning.from_address(_content(capsule, b"dltensor"))
    tensor.device_kind, tensor.device_number = device
    return capsule


def host_array(x: Any) -> np.ndarray:
    """Return any array that lies in the host's memory as NumPy's; those that know DLPack, without a copy.

    Raises
    ------
    ValueError
        If it lies elsewhere, or its owner does not give it away.
    """
    if isinstance(x, np.ndarray) or not (hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__")):
        return np.asarray(x)
    try:
        kind = int(x.__dlpack_device__()[0])
        if kind in (CPU, CUDA_HOST):
            return np.from_dlpack(x)
    except Exception as error:  # whatever the other library raises
        reason = " ".join(str(error).split())
        raise ValueError(
            f"x, a {type(x).__module__}.{type(x).__qualname__}, cannot be read as a NumPy array: {shown(reason, 200)}"
        ) from None
    raise ValueError(f"x lies on a device (of DLPack's kind {kind}): copy it to the host")
