"""What PTX instructions compute that touch no memory, for all threads at once.

Integers wrap. Sums, products and quotients of float32 are rounded once, as on the device. A fused multiply-add is
computed in float64, where the product is exact, and rounded to float32 from there: a second rounding, which changes
about one result of 2^29. ``ex2.approx`` and ``rcp.approx`` are exact to their rounding here, and to a unit or two in
the last place on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ptx.parser import PtxError

Function = Callable[..., np.ndarray]

TYPES = {
    **{f"{kind}{bits}": f"uint{bits}" for kind in "ub" for bits in (8, 16, 32, 64)},
    **{f"s{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"f{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "pred": "bool",
}
DTYPES = {name: np.dtype(kind) for name, kind in TYPES.items()}

_COMPARE: dict[str, Function] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}  # fmt: skip
_LOGIC: dict[str, Function] = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
_SIMPLE: dict[str, Function] = {
    **{"add": np.add, "sub": np.subtract, "neg": np.negative, "abs": np.abs, **_LOGIC},
    **{"not": np.invert, "cnot": lambda a: (a == 0).astype(a.dtype), "mov": lambda a: a},
}


def function(op: str) -> tuple[list[str], str, Function]:
    """Return the types of an instruction's operands and of its result, and what it computes.

    Raises
    ------
    PtxError
        If it is not known.
    """
    name, *options = op.split(".")
    kind = options[-1] if options else ""
    if kind not in DTYPES:
        raise PtxError(f"unknown type: {op}")
    # Modifiers that change nothing here; `ftz`, `sat`, `rz`... would.
    rounding = {"rn", "approx", "full", "uni", "volatile"}
    meaning = [option for option in options[:-1] if option not in rounding]
    if name in _SIMPLE and not meaning:
        return [kind] * (2 if name in ("add", "sub", *_LOGIC) else 1), kind, _SIMPLE[name]
    if name in ("min", "max") and not meaning:
        number = {"min": np.fmin, "max": np.fmax}[name]  # of a number and a NaN the number
        return [kind] * 2, kind, number
    if name == "setp":
        return _comparison(options[:-1], kind)
    if name == "selp" and not meaning:
        return [kind, kind, "pred"], kind, lambda a, b, p: np.where(p, a, b)
    if name in ("shl", "shr") and not meaning:
        return [kind, "u32"], kind, _shift(name, DTYPES[kind])
    if name in ("mul", "mad"):
        return _product(name, meaning, kind)
    if name == "fma" and not meaning and kind[0] == "f":
        return [kind] * 3, kind, _fused(DTYPES[kind])
    if name == "div" and not meaning:
        return [kind] * 2, kind, np.divide if kind[0] == "f" else _truncated(lambda a, b: a // b)
    if name == "rem" and not meaning:
        return [kind] * 2, kind, _truncated(lambda a, b: a % b)
    if name == "rcp" and not meaning:
        return [kind], kind, lambda a: DTYPES[kind].type(1) / a
    if name == "sqrt" and not meaning:
        return [kind], kind, np.sqrt
    if name == "ex2" and not meaning:
        return [kind], kind, lambda a: np.exp2(a.astype(np.float64)).astype(a.dtype)
    if name == "cvt":
        return _conversion(options)
    raise PtxError(f"unknown instruction: {op}")


def _comparison(options: list[str], kind: str) -> tuple[list[str], str, Function]:
    compare, *combine = options
    if compare in ("num", "nan"):
        wanted = compare == "nan"
        test: Function = lambda a, b: (np.isnan(a) | np.isnan(b)) == wanted  # noqa: E731
    elif compare in _COMPARE:
        test = _COMPARE[compare]
        if kind[0] == "f" and compare == "ne":  # ordered: false with a NaN, other than in NumPy
            test = lambda a, b: (a < b) | (a > b)  # noqa: E731
    elif compare[:-1] in _COMPARE and compare[-1] == "u" and kind[0] == "f":
        ordered = _COMPARE[compare[:-1]]
        test = lambda a, b: ordered(a, b) | np.isnan(a) | np.isnan(b)  # noqa: E731
    else:
        raise PtxError(f"unknown comparison: {compare}")
    if not combine:
        return [kind] * 2, "pred", test
    if len(combine) == 1 and combine[0] in _LOGIC:
        logic = _LOGIC[combine[0]]
        return [kind, kind, "pred"], "pred", lambda a, b, p: logic(test(a, b), p)
    raise PtxError(f"unknown comparison: {options}")


def _shift(name: str, dtype: np.dtype) -> Function:
    bits = 8 * dtype.itemsize

    def shift(a: np.ndarray, amount: np.ndarray) -> np.ndarray:
        by = np.minimum(amount, bits - 1).astype(dtype)
        moved = a << by if name == "shl" else a >> by
        return moved if dtype.kind == "i" and name == "shr" else np.where(amount < bits, moved, dtype.type(0))

    return shift


def _fused(dtype: np.dtype) -> Function:
    def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        product = np.multiply(a, b, dtype=np.float64)
        product += c
        return product.astype(dtype)

    if dtype == np.float64:
        raise PtxError("fma.f64 is not computed exactly")
    return fma


def _product(name: str, meaning: list[str], kind: str) -> tuple[list[str], str, Function]:
    dtype = DTYPES[kind]
    result, part = kind, meaning[0] if meaning else None
    if dtype.kind == "f" and name == "mul" and not meaning:
        product: Function = np.multiply
    elif part == "lo":
        product = np.multiply
    elif part == "wide":
        result = f"{kind[0]}{2 * int(kind[1:])}"
        product = lambda a, b: a.astype(DTYPES[result]) * b.astype(DTYPES[result])  # noqa: E731
    elif part == "hi":
        product = _high if kind[1:] == "64" else lambda a, b: _wide(a) * _wide(b) >> 8 * dtype.itemsize
    else:
        raise PtxError(f"unknown product: {name}.{'.'.join(meaning)}.{kind}")
    if name == "mul":
        return [kind] * 2, result, product
    return [kind, kind, result], result, lambda a, b, c: (product(a, b) + c).astype(DTYPES[result])


def _wide(a: np.ndarray) -> np.ndarray:
    return a.astype(np.int64 if a.dtype.kind == "i" else np.uint64)


def _high(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The upper 64 of the 128 bits of a product, from products of halves."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    x, y = a.view(np.uint64), b.view(np.uint64)
    x1, x0, y1, y0 = x >> half, x & low, y >> half, y & low
    middle = x1 * y0 + (x0 * y0 >> half)
    upper = x1 * y1 + (middle >> half) + ((middle & low) + x0 * y1 >> half)
    if a.dtype.kind == "i":
        upper = upper - np.where(a < 0, y, np.uint64(0)) - np.where(b < 0, x, np.uint64(0))
    return upper.view(a.dtype)


def _truncated(operation: Function) -> Function:
    """Integer division towards zero; by zero, which threads without a part in it may do, it is 0."""

    def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        safe = np.where(b == 0, b.dtype.type(1), b)
        if a.dtype.kind == "u":
            return operation(a, safe)
        quotient = (np.abs(a) // np.abs(safe)) * np.sign(a) * np.sign(safe)
        return quotient if operation(7, 4) == 1 else a - quotient * safe

    return divide


def _conversion(options: list[str]) -> tuple[list[str], str, Function]:
    *modes, target, source = options
    to, given = DTYPES[target], DTYPES[source]
    if to.kind == "f" and set(modes) <= {"rn"}:
        return [source], target, lambda a: a.astype(to)
    if to.kind != "f" and given.kind != "f" and not modes:
        return [source], target, lambda a: a.astype(to)
    if to.kind != "f" and given.kind == "f" and modes == ["rzi"]:
        return [source], target, lambda a: np.nan_to_num(np.trunc(a)).astype(to)
    raise PtxError(f"unknown conversion: {'.'.join(options)}")


def kind_of(op: str) -> str:
    """What an instruction is counted as."""
    name, *options = op.split(".")
    kind = options[-1] if options else ""
    if "f64" in options:
        return "float64"
    if name == "fma" and kind == "f32":
        return "fma"
    if name in ("ld", "st"):
        space = options[0]
        return {"param": "move", "global": "global", "shared": "shared", "local": "local"}.get(space, "generic")
    if name in ("mov", "cvta"):
        return "move"
    if name == "bar":
        return "barrier"
    if name in ("bra", "ret", "exit"):
        return "branch"
    if kind in ("f32", "f16") or "f16" in options:
        return "float"
    return "wide integer" if kind[1:] == "64" else "integer"


def as_bits(value: Any, dtype: np.dtype) -> np.generic:
    """A constant as a value of this type: integers wrap."""
    if dtype.kind == "f":
        return dtype.type(value)
    return np.array(value & (1 << 8 * dtype.itemsize) - 1, f"u{dtype.itemsize}").view(dtype)[()]
