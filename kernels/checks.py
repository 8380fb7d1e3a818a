"""What the arguments of an operation must be, and the shape of its result.

One function per operation, with the operation's name and signature (without ``out`` and ``threads``), shared
by every backend. Each raises ``ValueError`` with one line that names the argument, what was expected and what
was given, and returns a :class:`Geometry`. They look at shapes and types only, never at the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from npmobilenet.kernels.geometry import (
    PaddingSpec,
    Pads,
    Pair,
    Tap,
    output_size,
    pair,
    resize_taps,
    resized,
    resolve_padding,
    transposed_size,
)

# What an operation can end with. Kernels get the position in this tuple.
ACTIVATIONS = ("none", "relu", "relu6", "hard_swish", "swish", "sigmoid", "hard_sigmoid")

LARGEST_HALF = 32767  # of the 16 bits of an image
FLOAT32 = np.dtype(np.float32)
Array = np.ndarray
Size = int | Sequence[int]
Shape = tuple[int, ...]


class Geometry(NamedTuple):
    """The shape of a result and, where a window slides over the image, how it slides.

    In a mixed convolution every group of channels has a geometry of its own, in ``groups``.
    """

    shape: Shape
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    pads: Pads = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: tuple[Geometry, ...] = ()
    taps: tuple[tuple[Tap, ...], ...] = ()
    """Of a resized image: its rows and its columns, each between two."""

    @property
    def start(self) -> Pair:
        """Zeros above and to the left of the image: what a kernel subtracts from an input position."""
        return self.pads[0][0], self.pads[1][0]

    def padded(self, x: np.ndarray, value: float = 0.0) -> np.ndarray:
        """Return ``x`` (N, H, W, C) in its frame of zeros, or of another value."""
        return np.pad(x, ((0, 0), *self.pads, (0, 0)), constant_values=value)

    def tap(self, padded: np.ndarray, i: int, j: int) -> np.ndarray:
        """Return the pixels that kernel position (i, j) meets, one per output: a view of shape (N, P, Q, C)."""
        rows, columns = (
            slice(at * dilation, at * dilation + (count - 1) * stride + 1, stride)
            for at, dilation, stride, count in zip((i, j), self.dilation, self.stride, self.shape[1:3], strict=True)
        )
        return padded[:, rows, columns]


def array(name: str, value: np.ndarray, axes: str = "", dtypes: tuple[str, ...] = (), **sizes: int) -> None:
    """Check that ``value`` is an array with these axes, some of them of a known size.

    Parameters
    ----------
    axes : str
        The axes' letters, such as ``"N H W C"``; only N may be empty. Without letters any shape will do.
    dtypes : tuple of str
        One of which the array must have; any float if empty.
    **sizes
        The size that a letter must have.
    """
    letters = axes.split()
    if isinstance(value, np.ndarray) and (value.dtype.name in dtypes if dtypes else value.dtype.kind == "f"):
        shape = value.shape
        if not letters or (
            len(letters) == len(shape)
            and 0 not in (shape[1:] if letters[0] == "N" else shape)
            and all([shape[letters.index(letter)] == size for letter, size in sizes.items()])
        ):
            return
    wanted = ", ".join(f"{letter}={sizes[letter]}" if letter in sizes else letter for letter in letters)
    of_shape = f" of shape ({wanted})" if letters else ""
    kind = " or ".join(dtypes) or "float"
    raise ValueError(f"{name} must be {'an' if kind[0] == 'i' else 'a'} {kind} array{of_shape}, got {_describe(value)}")


def _describe(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def code(activation: str, name: str = "activation") -> int:
    """Return the number by which kernels know an activation: its position in :data:`ACTIVATIONS`."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"{name} must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    return ACTIVATIONS.index(activation)


def output(out: np.ndarray | None, shape: Shape, dtype: np.dtype = FLOAT32) -> np.ndarray:
    """Return ``out`` if it fits, or a new array where it is None."""
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or out.dtype != dtype or out.shape != shape:
        raise ValueError(f"out must be a {dtype} array of shape {shape}, got {_describe(out)}")
    if not out.flags.carray:
        raise ValueError("out must be C-contiguous, aligned and writeable")
    return out


def float32(x: np.ndarray) -> np.ndarray:
    """Return ``x`` as the one type that compiled kernels take: float32, C-contiguous, aligned, writeable.

    Numba compiles a function again for read-only arrays. So a read-only array (a memory-mapped weight) is
    passed as a writeable view of the same memory; no kernel writes to an input.
    """
    return x if x.dtype == FLOAT32 and x.flags.carray else contiguous(np.asarray(x, FLOAT32))


def contiguous(x: np.ndarray) -> np.ndarray:
    """Return ``x`` as compiled kernels take it, of whatever type; see :func:`float32`."""
    if x.flags.carray:
        return x
    x = np.require(x, None, ("C", "A"))
    return x if x.flags.writeable else np.asarray(_WriteableView(x))


class _WriteableView:
    def __init__(self, x: np.ndarray) -> None:
        self.owner = x
        self.__array_interface__ = {**x.__array_interface__, "data": (x.ctypes.data, False)}


def bias(value: np.ndarray | None, c_out: int) -> np.ndarray:
    """Return the bias as compiled kernels take it: zeros where there is none."""
    return np.zeros(c_out, np.float32) if value is None else float32(value)


def slide(x: np.ndarray, kernel: Size, stride: Size, padding: PaddingSpec, dilation: Size, channels: int) -> Geometry:
    """Return the geometry of a window that slides over ``x`` (N, H, W, C) and gives ``channels`` values."""
    case = (x.shape[:3], kernel, stride, padding, dilation, channels)
    try:
        return _slide_once(*case)
    except TypeError:  # a list cannot be looked up
        return _slide(*case)


def _slide(shape: Shape, kernel: Size, stride: Size, padding: PaddingSpec, dilation: Size, channels: int) -> Geometry:
    n, *size = shape
    kernel, stride, dilation = pair(kernel, "kernel_size"), pair(stride, "stride"), pair(dilation, "dilation")
    pads = resolve_padding(padding, size, kernel, stride, dilation)
    p, q = (output_size(*axis) for axis in zip(size, kernel, stride, pads, dilation, strict=True))
    return Geometry((n, p, q, channels), kernel, stride, pads, dilation)


_slide_once = lru_cache(maxsize=4096)(_slide)  # a network asks for the same few over and over


def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    groups: int = 1,
    activation: str = "none",
) -> Geometry:
    """Check a convolution; see :func:`npmobilenet.kernels.reference.conv2d`."""
    array("x", x, "N H W C_in")
    c_out = _grouped(weight, "K_h K_w", x.shape[3], groups)
    _bias(bias, c_out)
    code(activation)
    return slide(x, weight.shape[:2], stride, padding, dilation, c_out)


def depthwise_conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    activation: str = "none",
) -> Geometry:
    """Check a depthwise convolution; see :func:`npmobilenet.kernels.reference.depthwise_conv2d`."""
    array("x", x, "N H W C")
    array("weight", weight, "K_h K_w C", C=x.shape[3])
    _bias(bias, x.shape[3])
    code(activation)
    return slide(x, weight.shape[:2], stride, padding, dilation, x.shape[3])


def mixed_depthwise_conv2d(
    x: np.ndarray,
    weights: Sequence[np.ndarray],
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = "symmetric",
    dilation: Size | list[Size] = 1,
    activation: str = "none",
) -> Geometry:
    """Check a mixed convolution; see :func:`npmobilenet.kernels.reference.mixed_depthwise_conv2d`."""
    array("x", x, "N H W C")
    geometry = _mixed(x, weights, stride, padding, dilation)
    _bias(bias, x.shape[3])
    code(activation)
    return geometry


def _mixed(
    x: np.ndarray,
    weights: Sequence[np.ndarray],
    stride: Size,
    padding: PaddingSpec,
    dilation: Size | list[Size],
    dtypes: tuple[str, ...] = (),
) -> Geometry:
    """Check the windows of a mixed convolution."""
    if not isinstance(weights, (list, tuple)) or not weights:
        raise ValueError(f"weights must be a list of at least one array, got {_describe(weights)}")
    for group, weight in enumerate(weights):
        array(f"weights[{group}]", weight, "K_h K_w C_group", dtypes)
    total = sum(weight.shape[2] for weight in weights)
    if total != x.shape[3]:
        raise ValueError(f"weights must have C={x.shape[3]} channels together, got {total}")
    if isinstance(dilation, list) and len(dilation) != len(weights):
        raise ValueError(f"dilation must have one entry for each of the {len(weights)} groups, got {dilation}")
    dilations = dilation if isinstance(dilation, list) else [dilation] * len(weights)
    groups = tuple(
        slide(x, weight.shape[:2], stride, padding, each, weight.shape[2])
        for weight, each in zip(weights, dilations, strict=True)
    )
    if len({group.shape[1:3] for group in groups}) > 1:
        sizes = ", ".join(f"{g.shape[1:3]} with kernel {g.kernel} and dilation {g.dilation}" for g in groups)
        raise ValueError(f"padding {padding!r} gives the groups different output sizes: {sizes}")
    return Geometry((*groups[0].shape[:3], x.shape[3]), groups=groups)


def pointwise_conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    groups: int = 1,
    residual: np.ndarray | None = None,
    activation: str = "none",
) -> Geometry:
    """Check a 1x1 convolution; see :func:`npmobilenet.kernels.reference.pointwise_conv2d`."""
    array("x", x, "N H W C_in")
    n, h, w, c_out = shape = (*x.shape[:3], _grouped(weight, "", x.shape[3], groups))
    _bias(bias, c_out)
    if residual is not None:
        array("residual", residual, "N H W C_out", N=n, H=h, W=w, C_out=c_out)
    code(activation)
    return Geometry(shape)


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, *, activation: str = "none") -> Geometry:
    """Check a fully connected layer; see :func:`npmobilenet.kernels.reference.linear`."""
    array("x", x, "N C_in")
    array("weight", weight, "C_in C_out", C_in=x.shape[1])
    _bias(bias, weight.shape[1])
    code(activation)
    return Geometry((x.shape[0], weight.shape[1]))


def squeeze_excite(
    x: np.ndarray,
    reduce_weight: np.ndarray,
    reduce_bias: np.ndarray | None,
    expand_weight: np.ndarray,
    expand_bias: np.ndarray | None,
    *,
    activation: str = "relu",
    gate: str = "sigmoid",
) -> Geometry:
    """Check a squeeze-and-excitation; see :func:`npmobilenet.kernels.reference.squeeze_excite`."""
    array("x", x, "N H W C")
    c = x.shape[3]
    array("reduce_weight", reduce_weight, "C R", C=c)
    r = reduce_weight.shape[1]
    array("expand_weight", expand_weight, "R C", R=r, C=c)
    if reduce_bias is not None:
        array("reduce_bias", reduce_bias, "R", R=r)
    if expand_bias is not None:
        array("expand_bias", expand_bias, "C", C=c)
    code(activation)
    code(gate, "gate")
    return Geometry(x.shape)


def inverted_residual(
    x: np.ndarray,
    expand_weight: np.ndarray,
    expand_bias: np.ndarray | None,
    weight: np.ndarray,
    bias: np.ndarray | None,
    project_weight: np.ndarray,
    project_bias: np.ndarray | None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    residual: bool = False,
    expand_activation: str = "relu6",
    depthwise_activation: str = "relu6",
    project_activation: str = "none",
) -> Geometry:
    """Check an inverted residual; see :func:`npmobilenet.kernels.reference.inverted_residual`."""
    array("x", x, "N H W C_in")
    array("expand_weight", expand_weight, "C_in E", C_in=x.shape[3])
    expanded = expand_weight.shape[1]
    array("weight", weight, "K_h K_w E", E=expanded)
    array("project_weight", project_weight, "E C_out", E=expanded)
    c_out = project_weight.shape[1]
    for name, value in {"expand_bias": expand_bias, "bias": bias}.items():
        if value is not None:
            array(name, value, "E", E=expanded)
    if project_bias is not None:
        array("project_bias", project_bias, "C_out", C_out=c_out)
    code(expand_activation, "expand_activation")
    code(depthwise_activation, "depthwise_activation")
    code(project_activation, "project_activation")
    geometry = slide(x, weight.shape[:2], stride, padding, 1, c_out)
    if residual and geometry.shape != x.shape:
        raise ValueError(f"a residual must have the shape of the result, {geometry.shape}, got {x.shape}")
    return geometry


def batch_norm(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    *,
    eps: float = 1e-5,
) -> Geometry:
    """Check a batch normalisation; see :func:`npmobilenet.kernels.reference.batch_norm`."""
    array("x", x, "N H W C")
    for name, value in {"weight": weight, "bias": bias, "mean": mean, "variance": variance}.items():
        array(name, value, "C", C=x.shape[3])
    if not eps >= 0:
        raise ValueError(f"eps must not be negative, got {eps}")
    return Geometry(x.shape)


def global_average_pool(x: np.ndarray, *, keepdims: bool = False) -> Geometry:
    """Check a mean over all pixels; see :func:`npmobilenet.kernels.reference.global_average_pool`."""
    array("x", x, "N H W C")
    n, _, _, c = x.shape
    return Geometry((n, 1, 1, c) if keepdims else (n, c))


def max_pool2d(x: np.ndarray, kernel_size: Size, *, stride: Size | None = None, padding: PaddingSpec = 0) -> Geometry:
    """Check a pooling; see :func:`npmobilenet.kernels.reference.max_pool2d`."""
    array("x", x, "N H W C")
    stride = kernel_size if stride is None else stride
    geometry = slide(x, kernel_size, stride, padding, 1, x.shape[3])
    pool_pads(geometry.pads, geometry.kernel)
    return geometry


def pool_pads(pads: Pads, kernel: Pair) -> None:
    """Check that no window of a pooling lies in the padding altogether."""
    if any(max(both) >= k for both, k in zip(pads, kernel, strict=True)):
        raise ValueError(f"padding {pads} must be smaller than the window {kernel}")


def average_pool2d(
    x: np.ndarray,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: PaddingSpec = 0,
    count_include_pad: bool = True,
) -> Geometry:
    """Check a pooling; see :func:`npmobilenet.kernels.reference.average_pool2d`."""
    return max_pool2d(x, kernel_size, stride=stride, padding=padding)


def add(x: np.ndarray, y: np.ndarray, *, activation: str = "none") -> Geometry:
    """Check a sum; see :func:`npmobilenet.kernels.reference.add`."""
    array("x", x)
    array("y", y)
    if x.shape != y.shape:
        raise ValueError(f"y must have the shape of x, {x.shape}, got {y.shape}")
    code(activation)
    return Geometry(x.shape)


def prelu(x: np.ndarray, weight: np.ndarray) -> Geometry:
    """Check a rectifier with slopes; see :func:`npmobilenet.kernels.reference.prelu`."""
    array("x", x)
    array("weight", weight)
    if weight.shape not in ((1,), x.shape[-1:], x.shape[1:]):
        raise ValueError(f"weight must have the shape (1,), {x.shape[-1:]} or {x.shape[1:]}, got {weight.shape}")
    return Geometry(x.shape)


def resize2d(
    x: np.ndarray,
    size: Size | None = None,
    *,
    like: np.ndarray | None = None,
    scale: float | Sequence[float] | None = None,
    mode: str = "bilinear",
    coordinates: str = "half_pixel",
) -> Geometry:
    """Check a change of size; see :func:`npmobilenet.kernels.reference.resize2d`."""
    array("x", x, "N H W C")
    n, h, w, c = x.shape
    if like is not None:
        array("like", like, "N P Q C'")
    to = resized((h, w), size, scale, like if like is None else like.shape[1:3])
    rows, columns = resize_taps((h, w), to, scale, mode, coordinates)
    return Geometry((n, *to, c), taps=(tuple(rows), tuple(columns)))


def softmax(x: np.ndarray) -> Geometry:
    """Check a softmax; see :func:`npmobilenet.kernels.reference.softmax`."""
    array("x", x, "N H W C" if np.ndim(x) == 4 else "N C")
    return Geometry(x.shape)


def global_max_pool(x: np.ndarray) -> Geometry:
    """Check a maximum of all pixels; see :func:`npmobilenet.kernels.reference.global_max_pool`."""
    return global_average_pool(x)


def conv_transpose2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
) -> Geometry:
    """Check a transposed convolution; see :func:`npmobilenet.kernels.reference.conv_transpose2d`."""
    array("x", x, "N H W C_in")
    array("weight", weight, "K_h K_w C_in C_out", C_in=x.shape[3])
    _bias(bias, weight.shape[3])
    kernel, stride = weight.shape[:2], pair(stride, "stride")
    size = transposed_size(x.shape[1:3], kernel, stride, padding)
    return Geometry((x.shape[0], *size, weight.shape[3]), kernel, stride, resolve_padding(padding, size, kernel))


def broadcast_add(x: np.ndarray, y: np.ndarray) -> Geometry:
    """Check a sum of arrays of two shapes; see :func:`npmobilenet.kernels.reference.broadcast_add`."""
    array("x", x, "N H W C" if np.ndim(x) == 4 else "N C")
    array("y", y, "N H W C" if np.ndim(y) == 4 else "N C", N=x.shape[0])
    wanted = (x.shape[0], x.shape[-1]) if y.ndim < x.ndim else x.shape
    if y.ndim > x.ndim or not all(mine in (1, length) for mine, length in zip(y.shape[1:], wanted[1:], strict=True)):
        raise ValueError(f"y must broadcast to the shape of x, {x.shape}, got {y.shape}")
    return Geometry(x.shape)


multiply = broadcast_add


def concat(xs: Sequence[np.ndarray]) -> Geometry:
    """Check a concatenation; see :func:`npmobilenet.kernels.reference.concat`."""
    if not isinstance(xs, (list, tuple)) or not xs:
        raise ValueError(f"xs must be a list of at least one array, got {_describe(xs)}")
    for number, x in enumerate(xs):
        array(f"xs[{number}]", x, "N H W C" if np.ndim(x) == 4 else "N C")
        if x.shape[:-1] != xs[0].shape[:-1]:
            raise ValueError(f"xs must differ in nothing but channels, got {xs[0].shape} and {x.shape}")
    return Geometry((*xs[0].shape[:-1], sum(x.shape[-1] for x in xs)))


def channel_select(xs: Sequence[np.ndarray], *, indices: Sequence[int]) -> Geometry:
    """Check a choice of channels; see :func:`npmobilenet.kernels.reference.channel_select`."""
    *pixels, channels = concat(xs).shape
    strange = [c for c in indices if not (isinstance(c, (int, np.integer)) and 0 <= c < channels)]
    if strange or not len(indices):
        which = repr(strange[0]) if strange else "none"
        raise ValueError(f"indices must be at least one integer, each from 0 to {channels - 1}, got {which:.40}")
    return Geometry((*pixels, len(indices)))


def channel_pad(x: np.ndarray, *, before: int = 0, after: int = 0) -> Geometry:
    """Check added channels; see :func:`npmobilenet.kernels.reference.channel_pad`."""
    array("x", x, "N H W C" if np.ndim(x) == 4 else "N C")
    pair((before, after), "channels before and after", 0)
    return Geometry((*x.shape[:-1], before + x.shape[-1] + after))


def flatten(x: np.ndarray) -> Geometry:
    """Check an image to be made a vector; see :func:`npmobilenet.kernels.reference.flatten`."""
    array("x", x, "N H W C")
    n, h, w, c = x.shape
    return Geometry((n, c * h * w))


def leaky_relu(x: np.ndarray, *, slope: float = 0.01) -> Geometry:
    """Check a rectifier with one slope; see :func:`npmobilenet.kernels.reference.leaky_relu`."""
    return elementwise(x)


def elu(x: np.ndarray, *, alpha: float = 1.0) -> Geometry:
    """Check an exponential linear unit; see :func:`npmobilenet.kernels.reference.elu`."""
    return elementwise(x)


def elementwise(x: np.ndarray) -> Geometry:
    """Check the argument of a function of every element."""
    array("x", x)
    return Geometry(x.shape)


tanh = relu = relu6 = hard_swish = swish = sigmoid = hard_sigmoid = elementwise


# 8-bit operations ----------------------------------------------------------------------------------------------


def quantize(x: np.ndarray, steps: np.ndarray, zero_point: np.ndarray, *, activation: str = "none") -> Geometry:
    """Check a conversion to 8 bits; see :func:`npmobilenet.kernels.reference.quantize`."""
    array("x", x, _IMAGE_OR_VECTOR[np.ndim(x) == 4])
    array("steps", steps, "C", C=x.shape[-1])
    array("zero_point", zero_point, "C", ("uint8",), C=x.shape[-1])
    code(activation)
    return Geometry(x.shape)


def dequantize(x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray) -> Geometry:
    """Check a conversion from 8 bits; see :func:`npmobilenet.kernels.reference.dequantize`."""
    array("x", x, _IMAGE_OR_VECTOR[np.ndim(x) == 4], ("uint8",))
    array("scale", scale, "C", C=x.shape[-1])
    array("zero_point", zero_point, "C", ("uint8",), C=x.shape[-1])
    return Geometry(x.shape)


def add_int8(x: np.ndarray, y: np.ndarray, scale: np.ndarray, other_scale: np.ndarray, bias: np.ndarray) -> Geometry:
    """Check a sum of two of 8 bits; see :func:`npmobilenet.kernels.reference.add_int8`."""
    for name, each in (("x", x), ("y", y)):
        array(name, each, _IMAGE_OR_VECTOR[np.ndim(x) == 4], ("uint8",))
    if x.shape != y.shape:
        raise ValueError(f"y must have the shape of x, {x.shape}, got {y.shape}")
    for name, each in (("scale", scale), ("other_scale", other_scale), ("bias", bias)):
        array(name, each, "C", C=x.shape[-1])
    return Geometry(x.shape)


def quantize_pixels(x: np.ndarray, *, zero_point: int = 128) -> Geometry:
    """Check a conversion to 8 bits; see :func:`npmobilenet.kernels.reference.quantize_pixels`."""
    array("x", x, "N H W C")
    _entry(zero_point)
    return Geometry(x.shape)


def quantize_image(x: np.ndarray, steps: float, limits: Pair | None = None) -> Geometry:
    """Check a conversion to 16 bits; see :func:`npmobilenet.kernels.reference.quantize_image`."""
    array("x", x, "N H W C")
    _steps(steps, limits)
    return Geometry(x.shape)


def pointwise_conv2d_int8(
    x: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    zero_point: int | np.ndarray = 0,
    pixel_scale: np.ndarray | None = None,
    groups: int = 1,
    activation: str = "none",
    residual: np.ndarray | None = None,
    dtype: str = "uint8",
    out_steps: np.ndarray | None = None,
    out_zero_point: np.ndarray | None = None,
) -> Geometry:
    """Check a 1x1 convolution of integers; see :func:`npmobilenet.kernels.reference.pointwise_conv2d_int8`."""
    array("x", x, "N H W C_in", ("uint8", "float32"))
    n, h, w, c_in = x.shape
    c_out = _grouped(weight, "", c_in, groups, ("int8",))
    if x.dtype.kind == "f":
        _entry(zero_point)
        if pixel_scale is not None:
            raise ValueError("pixel_scale is that of an x of uint8; of one of float32 it is found")
    _zero_point(zero_point, c_in)
    if pixel_scale is not None:
        array("pixel_scale", pixel_scale, "N H W", N=n, H=h, W=w)
    if residual is not None:
        array("residual", residual, "N H W C_out", N=n, H=h, W=w, C_out=c_out)
        if dtype == "uint8":
            raise ValueError("a residual can be added to a result of float32 alone, got dtype='uint8'")
    _ended(scale, bias, c_out, activation, dtype, out_steps, out_zero_point)
    return Geometry((n, h, w, c_out))


def depthwise_conv2d_int8(
    x: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    zero_point: int | np.ndarray = 0,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    activation: str = "none",
    dtype: str = "uint8",
    out_steps: np.ndarray | None = None,
    out_zero_point: np.ndarray | None = None,
) -> Geometry:
    """Check a depthwise convolution of integers; see :func:`npmobilenet.kernels.reference.depthwise_conv2d_int8`."""
    array("x", x, "N H W C", ("uint8",))
    c = x.shape[3]
    array("weight", weight, "K_h K_w C", ("int8", "int16"), C=c)
    _zero_point(zero_point, c)
    _ended(scale, bias, c, activation, dtype, out_steps, out_zero_point)
    return slide(x, weight.shape[:2], stride, padding, dilation, c)


def mixed_depthwise_conv2d_int8(
    x: np.ndarray,
    weights: Sequence[np.ndarray],
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    zero_point: int | np.ndarray = 0,
    stride: Size = 1,
    padding: PaddingSpec = "symmetric",
    dilation: Size | list[Size] = 1,
    activation: str = "none",
    dtype: str = "uint8",
    out_steps: np.ndarray | None = None,
    out_zero_point: np.ndarray | None = None,
) -> Geometry:
    """Check a mixed convolution of integers; see :func:`npmobilenet.kernels.reference.mixed_depthwise_conv2d_int8`."""
    array("x", x, "N H W C", ("uint8",))
    _zero_point(zero_point, x.shape[3])
    _ended(scale, bias, x.shape[3], activation, dtype, out_steps, out_zero_point)
    return _mixed(x, weights, stride, padding, dilation, ("int8", "int16"))


def conv2d_int8(
    x: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    steps: float | None = None,
    limits: Pair | None = None,
    zero_point: int | np.ndarray = 0,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    groups: int = 1,
    activation: str = "none",
    dtype: str = "uint8",
    out_steps: np.ndarray | None = None,
    out_zero_point: np.ndarray | None = None,
) -> Geometry:
    """Check a convolution of integers; see :func:`npmobilenet.kernels.reference.conv2d_int8`."""
    array("x", x, "N H W C_in", ("uint8", "int16", "float32"))
    wide = x.dtype != np.uint8
    if (x.dtype.kind == "f") != (steps is not None):
        raise ValueError(f"steps are those of an x of float32, got {steps!r} and {x.dtype}")
    if steps is not None:
        _steps(steps, limits)
    elif limits is not None:
        raise ValueError(f"limits are those of an x of float32, got {limits!r} and {x.dtype}")
    _zero_point(zero_point, x.shape[3])
    if wide and not (isinstance(zero_point, int) and zero_point == 0):
        raise ValueError(f"the zero point of {x.dtype} is 0")
    c_out = _grouped(weight, "K_h K_w", x.shape[3], groups, ("int16",) if wide else ("int8",))
    _ended(scale, bias, c_out, activation, dtype, out_steps, out_zero_point)
    return slide(x, weight.shape[:2], stride, padding, dilation, c_out)


def linear_int8(
    x: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    zero_point: int = 128,
    activation: str = "none",
) -> Geometry:
    """Check a fully connected layer of integers; see :func:`npmobilenet.kernels.reference.linear_int8`."""
    array("x", x, "N C_in")
    array("weight", weight, "C_in C_out", ("int8",), C_in=x.shape[1])
    _entry(zero_point)
    _ended(scale, bias, weight.shape[1], activation, "float32")
    return Geometry((x.shape[0], weight.shape[1]))


def global_average_pool_int8(x: np.ndarray, scale: np.ndarray, *, zero_point: int | np.ndarray = 0) -> Geometry:
    """Check a mean over all pixels; see :func:`npmobilenet.kernels.reference.global_average_pool_int8`."""
    array("x", x, "N H W C", ("uint8",))
    array("scale", scale, "C", C=x.shape[3])
    _zero_point(zero_point, x.shape[3])
    return Geometry((x.shape[0], x.shape[3]))


def squeeze_excite_int8(
    x: np.ndarray,
    scale: np.ndarray,
    reduce_weight: np.ndarray,
    reduce_bias: np.ndarray,
    expand_weight: np.ndarray,
    expand_bias: np.ndarray,
    *,
    zero_point: int | np.ndarray = 0,
    activation: str = "relu",
    gate: str = "sigmoid",
) -> Geometry:
    """Check a squeeze-and-excitation of 8 bits; see :func:`npmobilenet.kernels.reference.squeeze_excite_int8`."""
    array("x", x, "N H W C", ("uint8",))
    c = x.shape[3]
    array("scale", scale, "C", C=c)
    _zero_point(zero_point, c)
    array("reduce_weight", reduce_weight, "C R", C=c)
    r = reduce_weight.shape[1]
    array("reduce_bias", reduce_bias, "R", R=r)
    array("expand_weight", expand_weight, "R C", R=r, C=c)
    array("expand_bias", expand_bias, "C", C=c)
    code(activation)
    code(gate, "gate")
    return Geometry(x.shape)


_IMAGE_OR_VECTOR = ("N C", "N H W C")


def _ended(
    scale: np.ndarray,
    bias: np.ndarray,
    c_out: int,
    activation: str,
    dtype: str,
    out_steps: np.ndarray | None = None,
    out_zero_point: np.ndarray | None = None,
) -> None:
    """Check what becomes of the sums."""
    array("scale", scale, "C_out", C_out=c_out)
    array("bias", bias, "C_out", C_out=c_out)
    code(activation)
    if dtype not in ("uint8", "float32"):
        raise ValueError(f"dtype must be uint8 or float32, got {dtype!r}")
    given = {"out_steps": out_steps, "out_zero_point": out_zero_point}
    ended = dtype == "uint8" and activation != "none"
    for name, value in given.items():
        if (value is not None) != ended:
            raise ValueError(
                f"{name} is for a result in uint8 that ends with an activation, got {_describe(value)} with "
                f"dtype={dtype!r} and activation={activation!r}"
            )
    if ended:
        array("out_steps", out_steps, "C_out", C_out=c_out)
        array("out_zero_point", out_zero_point, "C_out", ("uint8",), C_out=c_out)


def _zero_point(value: int | np.ndarray, channels: int) -> None:
    if isinstance(value, np.ndarray):
        array("zero_point", value, "C_in", ("uint8",), C_in=channels)
    elif not (isinstance(value, int) and 0 <= value <= 255):
        raise ValueError(f"zero_point must be an integer from 0 to 255, or one for each channel, got {value!r}")


def _entry(zero_point: int | np.ndarray) -> None:
    if not (isinstance(zero_point, int) and zero_point in (0, 128)):
        raise ValueError(f"zero_point of pixels that are quantised must be 128 or 0, got {zero_point!r}")


def _steps(steps: float, limits: Pair | None) -> None:
    if not (isinstance(steps, (float, np.floating)) and 0 < steps < np.inf):
        raise ValueError(f"steps must be a positive number, got {steps!r}")
    if limits is not None:
        pair = isinstance(limits, tuple) and len(limits) == 2 and all(type(end) is int for end in limits)
        if not (pair and -LARGEST_HALF <= limits[0] <= 0 <= limits[1] <= LARGEST_HALF):
            raise ValueError(f"limits must be integers of 16 bits with 0 between them, got {limits!r}")


def _grouped(weight: np.ndarray, window: str, c_in: int, groups: int, dtypes: tuple[str, ...] = ()) -> int:
    """Check a weight with axes ``window``, C_in/G and C_out; return C_out."""

    def divides(name: str, channels: int) -> None:
        if not isinstance(groups, int) or groups < 1 or channels % groups:
            raise ValueError(f"groups must be an integer >= 1 that divides {name}={channels}, got {groups!r}")

    divides("C_in", c_in)
    array("weight", weight, f"{window} C_in/G C_out", dtypes, **{"C_in/G": c_in // groups})
    divides("C_out", weight.shape[-1])
    return weight.shape[-1]


def _bias(bias: np.ndarray | None, c_out: int) -> None:
    if bias is not None:
        array("bias", bias, "C_out", C_out=c_out)
