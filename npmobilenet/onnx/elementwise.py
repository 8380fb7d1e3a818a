"""Operators that compute every value by itself."""

from __future__ import annotations

from functools import reduce
from math import erf as _erf
from typing import Any, Literal

import numpy as np

from npmobilenet.onnx.narrow import NARROW, PowerOfTwo
from npmobilenet.onnx.operator import as_large, of_channels, operator
from npmobilenet.onnx.room import room
from npmobilenet.onnx.tensors import TYPES, type_name

_vector_erf = np.vectorize(_erf, otypes=[np.float64])


def same_type(x: np.ndarray, y: Any) -> np.ndarray:
    """Return what NumPy computed in the type that it was computed from."""
    return np.asarray(y, np.asarray(x).dtype)


def _enter(name: str, function: Any) -> None:
    @operator(name, "elementwise")
    def one(x: np.ndarray) -> np.ndarray:
        return same_type(x, function(x))


for _name, _function in {
    "Relu": lambda x: np.maximum(x, 0),
    "Tanh": np.tanh,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Abs": np.abs,
    "Neg": np.negative,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
    "Reciprocal": lambda x: 1 / x,
    "Sign": np.sign,
    "Sin": np.sin,
    "Cos": np.cos,
    "Sigmoid": lambda x: _sigmoid(x),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Softplus": lambda x: np.logaddexp(np.zeros((), x.dtype), x),
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "Mish": lambda x: x * np.tanh(np.logaddexp(np.zeros((), x.dtype), x)),
    "Erf": lambda x: _vector_erf(x) if x.size else x,
    "Not": np.logical_not,
    "Identity": lambda x: x,
}.items():
    _enter(_name, _function)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(np.zeros((), x.dtype), -x))


@operator("Swish", "elementwise")
def swish(x: np.ndarray, *, alpha: float = 1.0) -> np.ndarray:
    """``x * sigmoid(alpha * x)``."""
    return same_type(x, x * _sigmoid(same_type(x, alpha * x)))


@operator("LeakyRelu", "elementwise")
def leaky_relu(x: np.ndarray, *, alpha: float = 0.01) -> np.ndarray:
    """``alpha * x`` below 0."""
    return same_type(x, np.where(x < 0, alpha * x, x))


@operator("Elu", "elementwise")
def elu(x: np.ndarray, *, alpha: float = 1.0) -> np.ndarray:
    """An exponential below 0."""
    return same_type(x, np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x))


@operator("Celu", "elementwise")
def celu(x: np.ndarray, *, alpha: float = 1.0) -> np.ndarray:
    """An exponential below 0, smooth there for every ``alpha``."""
    return same_type(x, np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(x / alpha)))


@operator("Selu", "elementwise")
def selu(x: np.ndarray, *, alpha: float = 1.6732632, gamma: float = 1.0507009) -> np.ndarray:
    """A scaled exponential linear unit."""
    return same_type(x, gamma * np.where(x <= 0, alpha * np.expm1(np.minimum(x, 0)), x))


@operator("Gelu", "elementwise")
def gelu(x: np.ndarray, *, approximate: Literal["none", "tanh"] = "none") -> np.ndarray:
    """``x`` times the normal distribution's probability below it."""
    if approximate == "tanh":
        return same_type(x, 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))
    return same_type(x, 0.5 * x * (1 + _vector_erf(x / np.sqrt(2)))) if x.size else x


@operator("HardSigmoid", "elementwise")
def hard_sigmoid(x: np.ndarray, *, alpha: float = 0.2, beta: float = 0.5) -> np.ndarray:
    """A line between 0 and 1."""
    return same_type(x, np.clip(alpha * x + beta, 0, 1))


@operator("ThresholdedRelu", "elementwise")
def thresholded_relu(x: np.ndarray, *, alpha: float = 1.0) -> np.ndarray:
    """What is above ``alpha``, else 0."""
    return same_type(x, np.where(x > alpha, x, 0))


@operator("PRelu", "like")
def prelu(x: np.ndarray, slope: np.ndarray, *, opset: int) -> np.ndarray:
    """``slope * x`` below 0; before opset 7 a row of slopes was one for each channel."""
    if opset < 7 and slope.ndim == 1 and slope.size > 1:
        slope = slope.reshape(-1, *[1] * (x.ndim - 2))
    return same_type(x, np.where(x < 0, as_large(slope, x.shape) * x, x))


def _binary(name: str, function: Any, of_one_type: bool = True) -> None:
    """Enter an operator of two tensors; before opset 7 the second was broadcast only where ``broadcast`` says so."""

    @operator(name, "elementwise")
    def two(x: np.ndarray, y: np.ndarray, *, axis: int | None = None, broadcast: int = 0) -> np.ndarray:
        if broadcast and axis is not None and y.ndim:
            y = y.reshape(y.shape + (1,) * (x.ndim - axis % x.ndim - y.ndim))
        if of_one_type and x.dtype != y.dtype:
            raise ValueError(f"takes two tensors of one type, got {x.dtype} and {y.dtype}")
        return function(x, y)


def _divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Integers are rounded towards 0."""
    if x.dtype.kind in "iu":
        safe = np.where(y == 0, 1, y).astype(y.dtype)
        quotient = x // safe
        return same_type(x, quotient + ((x % safe != 0) & ((x < 0) != (safe < 0))))
    return same_type(x, x / y)


for _name, _function in {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Equal": np.equal,
    "Greater": np.greater,
    "Less": np.less,
    "GreaterOrEqual": np.greater_equal,
    "LessOrEqual": np.less_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
}.items():
    _binary(_name, _function)
_binary(
    "Pow", lambda x, y: same_type(x, np.power(x, y.astype(np.result_type(x, y)) if y.dtype != x.dtype else y)), False
)


@operator("Mod", "elementwise")
def mod(x: np.ndarray, y: np.ndarray, *, fmod: int = 0) -> np.ndarray:
    """The rest of a division, with the sign of the divisor, or of ``x``."""
    return same_type(x, np.fmod(x, y) if fmod else np.mod(x, y))


@operator("Min", "elementwise")
def minimum(*xs: np.ndarray) -> np.ndarray:
    """The least of several."""
    return reduce(np.minimum, xs)


@operator("Max", "elementwise")
def maximum(*xs: np.ndarray) -> np.ndarray:
    """The largest of several."""
    return reduce(np.maximum, xs)


@operator("Sum", "elementwise")
def total(*xs: np.ndarray) -> np.ndarray:
    """The sum of several."""
    return reduce(np.add, xs)


@operator("Mean", "elementwise")
def mean(*xs: np.ndarray) -> np.ndarray:
    """The mean of several."""
    return same_type(xs[0], reduce(np.add, xs) / len(xs))


@operator("Where", "elementwise")
def where(condition: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``x`` or ``y``."""
    return np.where(condition, x, y)


@operator("Clip", "elementwise")
def clip(
    x: np.ndarray,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    *,
    min: float | None = None,
    max: float | None = None,
) -> np.ndarray:
    """Values within bounds: attributes before opset 11, inputs since."""
    low, high = (given if bound is None else bound for given, bound in ((min, low), (max, high)))
    x = x if low is None else np.maximum(x, same_type(x, low))
    return x if high is None else np.minimum(x, same_type(x, high))


@operator("Cast", "elementwise")
def cast(
    x: np.ndarray, *, to: int | str, saturate: int = 1, round_mode: Literal["up", "down", "nearest"] = "up"
) -> np.ndarray:
    """Another type; 16 bits with a fraction are rounded to, and held in 32."""
    codes = {name.upper(): code for code, name in TYPES.items()} | {"FLOAT": 1, "DOUBLE": 11}
    name = TYPES.get(codes.get(to, 0) if isinstance(to, str) else to)
    if name is None:
        raise ValueError(f"attribute 'to' is {to if isinstance(to, str) else type_name(to)}, which is not supported")
    return converted(x, name, bool(saturate), round_mode)


def converted(x: np.ndarray, dtype: str, saturate: bool = True, mode: str = "up") -> np.ndarray:
    """Return values as ONNX's type of this name has them."""
    if dtype in NARROW:
        narrow = NARROW[dtype]
        return narrow.rounded(x, saturate, *[mode] * isinstance(narrow, PowerOfTwo))
    if dtype == "float16":
        return x.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":  # to nearest, ties to even
        bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
        bits = np.where(np.isnan(x), bits, (bits + 0x7FFF + ((bits >> 16) & 1)))
        return (bits.astype(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32).reshape(np.shape(x))
    return x.astype(dtype)


@operator("CastLike")
def cast_like(x: np.ndarray, y: np.ndarray, *, saturate: int = 1, round_mode: str = "up") -> np.ndarray:
    """The type of another tensor."""
    return x.astype(y.dtype)


@operator("Dropout")
def dropout(
    x: np.ndarray,
    ratio: np.ndarray | None = None,
    training: np.ndarray | None = None,
    *,
    ratio_given: float = 0.5,
    is_test: int = 1,
    seed: int = 0,
    results: int,
) -> tuple[np.ndarray, ...]:
    """Nothing, outside of training."""
    if training is not None and training.any() and (ratio is None or ratio.any()):
        raise ValueError("is in training mode, which is not supported")
    return (x,) if results < 2 else (x, np.ones(x.shape, bool))


@operator("BatchNormalization", "windows")
def batch_norm(
    x: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: Literal[1] = 1,
    training_mode: Literal[0] = 0,
    is_test: int = 1,
    results: int,
) -> np.ndarray:
    """Normalisation with stored statistics."""
    if results > 1:
        raise ValueError("computes statistics, as in training, which is not supported")
    scale, bias, mean, variance = of_channels(x, scale, bias, mean, variance)
    return same_type(x, (x - mean) * (scale / np.sqrt(variance.astype(np.float64) + epsilon)) + bias)


@operator("InstanceNormalization", "windows")
def instance_norm(x: np.ndarray, scale: np.ndarray, bias: np.ndarray, *, epsilon: float = 1e-5) -> np.ndarray:
    """Normalisation with each channel's own statistics, of each image."""
    (scale, bias), axes = of_channels(x, scale, bias), tuple(range(2, x.ndim))
    x64 = x.astype(np.float64)
    normal = (x64 - x64.mean(axes, keepdims=True)) / np.sqrt(x64.var(axes, keepdims=True) + epsilon)
    return same_type(x, normal * scale + bias)


@operator("LayerNormalization")
def layer_norm(
    x: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    results: int,
) -> tuple[np.ndarray, ...]:
    """Normalisation over the axes from ``axis`` on."""
    axes = tuple(range(axis % x.ndim, x.ndim))
    scale, bias = as_large(scale, x.shape), None if bias is None else as_large(bias, x.shape)
    x64 = x.astype(np.float64)
    mean = x64.mean(axes, keepdims=True)
    deviation = 1 / np.sqrt(x64.var(axes, keepdims=True) + epsilon)
    y = (x64 - mean) * deviation * scale + (0 if bias is None else bias)
    return tuple(same_type(x, each) for each in (y, mean, deviation))[:results]


@operator("GroupNormalization", "windows")
def group_norm(
    x: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    opset: int,
) -> np.ndarray:
    """Normalisation with the statistics of a group of channels, of each image."""
    n, c, *rest = x.shape
    if num_groups < 1 or c % num_groups:
        raise ValueError(f"attribute 'num_groups' is {num_groups}, and there are {c} channels")
    if opset < 21:  # a scale for each group
        scale, bias = (np.repeat(each, c // num_groups) for each in (scale, bias))
    scale, bias = of_channels(x, scale, bias)
    grouped = x.astype(np.float64).reshape(n, num_groups, c // num_groups, *rest)
    axes = tuple(range(2, grouped.ndim))
    normal = (grouped - grouped.mean(axes, keepdims=True)) / np.sqrt(grouped.var(axes, keepdims=True) + epsilon)
    return same_type(x, normal.reshape(x.shape) * scale + bias)


@operator("LRN", "windows")
def lrn(x: np.ndarray, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> np.ndarray:
    """Normalisation by the squares of the channels around each."""
    if size < 1:
        raise ValueError(f"attribute 'size' must be positive, got {size}")
    room((len(x), x.shape[1] + size, *x.shape[2:]))
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    squares = np.pad(x.astype(np.float64) ** 2, [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
    sums = np.cumsum(np.pad(squares, [(0, 0), (1, 0), *[(0, 0)] * (x.ndim - 2)]), axis=1)
    around = sums[:, size:] - sums[:, :-size]
    return same_type(x, x / (bias + alpha / size * around) ** beta)
