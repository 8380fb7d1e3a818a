"""What every operation means: NumPy, float64, a few lines each.

The compiled kernels are twins of these functions: same names, arguments and axes. Here everything is computed
and returned in float64, and ``threads`` is accepted and ignored. Images are NHWC; N batch, H W height and
width, C channels (C_in, C_out), K kernel size, G groups, P Q output height and width. ``stride``, ``padding``
and ``dilation`` are what :func:`pair` and :func:`resolve_padding` of :mod:`npmobilenet.kernels.geometry` take.

Every function takes ``out``, a C-contiguous array of the result's shape and type (float64 here, float32 in
compiled kernels) to write into; it must not overlap an input. Arguments that do not fit raise ``ValueError``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import LARGEST_HALF, Size
from npmobilenet.kernels.geometry import PaddingSpec, Pair


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
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Convolution: (N, H, W, C_in) * (K_h, K_w, C_in/G, C_out) -> (N, P, Q, C_out).

    ``y[n, p, q, o] = activation(bias[o] + sum over i, j, c of x[n, p*s + i*d - pad, q*s + j*d - pad, c] *
    weight[i, j, c, o])``, where x is zero outside the image. As in every network library this is a
    cross-correlation: the kernel is not flipped.

    Parameters
    ----------
    bias : (C_out,), optional
    groups : int
        Output channels of group g see only the input channels of group g; channels are grouped in order.
    activation : {"none", "relu", "relu6", "hard_swish", "swish", "sigmoid", "hard_sigmoid"}
    """
    g = checks.conv2d(
        x,
        weight,
        bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        activation=activation,
    )
    x, weight = g.padded(_float64(x)), _float64(weight)
    c_in, c_out = weight.shape[2], weight.shape[3] // groups
    y = np.zeros(g.shape)
    for i, j in np.ndindex(g.kernel):
        tap = g.tap(x, i, j)
        for group in range(groups):
            inputs = slice(group * c_in, (group + 1) * c_in)
            outputs = slice(group * c_out, (group + 1) * c_out)
            y[..., outputs] += tap[..., inputs] @ weight[i, j, :, outputs]
    return _finish(y, bias, activation, out)


def depthwise_conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Depthwise convolution: (N, H, W, C) * (K_h, K_w, C) -> (N, P, Q, C).

    One filter per channel (channel multiplier 1): MobileNets, Howard et al. 2017, arXiv 1704.04861, section
    3.1, equation 3.
    """
    g = checks.depthwise_conv2d(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, activation=activation
    )
    x, weight = g.padded(_float64(x)), _float64(weight)
    y = np.zeros(g.shape)
    for i, j in np.ndindex(g.kernel):
        y += g.tap(x, i, j) * weight[i, j]
    return _finish(y, bias, activation, out)


def mixed_depthwise_conv2d(
    x: np.ndarray,
    weights: Sequence[np.ndarray],
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = "symmetric",
    dilation: Size | list[Size] = 1,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Mixed depthwise convolution: (N, H, W, C) * list of (K_h, K_w, C_group) -> (N, P, Q, C).

    The channels are cut into groups, in order, and each group has its own kernel size: MixConv, Tan and Le
    2019, arXiv 1907.09595, section 3.1. Any widths will do; those of the paper are
    :func:`~npmobilenet.kernels.geometry.equal_partition` and
    :func:`~npmobilenet.kernels.geometry.exponential_partition`.

    Parameters
    ----------
    padding
        Resolved for each group by itself. All groups must give the same P and Q, as they always do with
        ``"same"``, and with ``"symmetric"`` where the windows, dilated, are all odd or all even.
    dilation : int, (vertical, horizontal) or list
        A list has one entry, an integer or a pair, for each group; what is no list counts for all groups. The
        dilated variant of section 3.2 has kernels of 3x3 and ``dilation=[1, 2, 3, ...]``.
    """
    g = checks.mixed_depthwise_conv2d(
        x, weights, bias, stride=stride, padding=padding, dilation=dilation, activation=activation
    )
    ends = np.cumsum([weight.shape[2] for weight in weights])
    groups = [
        depthwise_conv2d(part, weight, stride=stride, padding=group.pads, dilation=group.dilation)
        for part, weight, group in zip(np.split(x, ends[:-1], axis=3), weights, g.groups, strict=True)
    ]
    return _finish(np.concatenate(groups, axis=3), bias, activation, out)


def pointwise_conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    groups: int = 1,
    residual: np.ndarray | None = None,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """1x1 convolution: (N, H, W, C_in) @ (C_in/G, C_out) -> (N, H, W, C_out).

    ``activation(x @ weight + bias) + residual``: the residual is added after the activation. MobileNets,
    Howard et al. 2017, arXiv 1704.04861, section 3.1; the residual: MobileNetV2, Sandler et al. 2018, arXiv
    1801.04381, figure 4d.

    Parameters
    ----------
    groups : int
        Output channels of group g see only the input channels of group g; channels are grouped in order.
    residual : (N, H, W, C_out), optional
    """
    checks.pointwise_conv2d(x, weight, bias, groups=groups, residual=residual, activation=activation)
    inputs, weights = np.split(_float64(x), groups, axis=-1), np.split(_float64(weight), groups, axis=-1)
    products = [part @ columns for part, columns in zip(inputs, weights, strict=True)]
    y = _finish(np.concatenate(products, axis=-1), bias, activation, out)
    if residual is not None:
        y += residual
    return y


def linear(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Fully connected layer: (N, C_in) @ (C_in, C_out) -> (N, C_out)."""
    checks.linear(x, weight, bias, activation=activation)
    return _finish(_float64(x) @ _float64(weight), bias, activation, out)


def squeeze_excite(
    x: np.ndarray,
    reduce_weight: np.ndarray,
    reduce_bias: np.ndarray | None,
    expand_weight: np.ndarray,
    expand_bias: np.ndarray | None,
    *,
    activation: str = "relu",
    gate: str = "sigmoid",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Squeeze-and-excitation, (C, R) and (R, C): (N, H, W, C) -> (N, H, W, C).

    ``x * gate(expand(activation(reduce(mean over all pixels of x))))``, where ``reduce`` and ``expand`` are
    fully connected: Hu et al. 2018, arXiv 1709.01507, section 3; with ``gate="hard_sigmoid"`` MobileNetV3,
    Howard et al. 2019, arXiv 1905.02244, section 5.3.

    Parameters
    ----------
    reduce_bias : (R,), or None
    expand_bias : (C,), or None
    activation, gate : str
        As the ``activation`` of :func:`conv2d`.
    """
    checks.squeeze_excite(x, reduce_weight, reduce_bias, expand_weight, expand_bias, activation=activation, gate=gate)
    squeezed = linear(global_average_pool(x), reduce_weight, reduce_bias, activation=activation)
    scale = linear(squeezed, expand_weight, expand_bias, activation=gate)
    return _finish(_float64(x) * scale[:, None, None], out=out)


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
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Inverted residual, (C_in, E), (K_h, K_w, E) and (E, C_out): (N, H, W, C_in) -> (N, P, Q, C_out).

    A 1x1 convolution expands the C_in channels to E, a depthwise convolution filters them, and a 1x1 convolution
    projects them to C_out; only the first two end with an activation: MobileNetV2, Sandler et al. 2018, arXiv
    1801.04381, section 3.3 and table 1. How little memory it needs between: section 5.1.

    Parameters
    ----------
    expand_bias, bias : (E,), or None
    project_bias : (C_out,), or None
    stride, padding
        Of the depthwise convolution.
    residual : bool
        Whether ``x`` is added to the result, which must then have its shape.
    expand_activation, depthwise_activation, project_activation : str
        As the ``activation`` of :func:`conv2d`.
    """
    checks.inverted_residual(
        x, expand_weight, expand_bias, weight, bias, project_weight, project_bias, stride=stride, padding=padding,
        residual=residual, expand_activation=expand_activation, depthwise_activation=depthwise_activation,
        project_activation=project_activation,
    )  # fmt: skip
    y = pointwise_conv2d(x, expand_weight, expand_bias, activation=expand_activation)
    y = depthwise_conv2d(y, weight, bias, stride=stride, padding=padding, activation=depthwise_activation)
    shortcut = x if residual else None
    return pointwise_conv2d(y, project_weight, project_bias, residual=shortcut, activation=project_activation, out=out)


def batch_norm(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    *,
    eps: float = 1e-5,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Batch normalisation with stored statistics, all (C,): (N, H, W, C) -> (N, H, W, C).

    ``(x - mean) / sqrt(variance + eps) * weight + bias``: Ioffe and Szegedy 2015, arXiv 1502.03167, algorithm
    2.
    """
    checks.batch_norm(x, weight, bias, mean, variance, eps=eps)
    y = (_float64(x) - mean) / np.sqrt(_float64(variance) + eps) * weight + bias
    return _finish(y, out=out)


def global_average_pool(
    x: np.ndarray, *, keepdims: bool = False, out: np.ndarray | None = None, threads: int = 1
) -> np.ndarray:
    """Mean over all pixels: (N, H, W, C) -> (N, C), with ``keepdims`` an image of one pixel, (N, 1, 1, C)."""
    checks.global_average_pool(x, keepdims=keepdims)
    return _finish(_float64(x).mean(axis=(1, 2), keepdims=keepdims), out=out)


def max_pool2d(
    x: np.ndarray,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: PaddingSpec = 0,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Maximum of every window: (N, H, W, C) -> (N, P, Q, C).

    The padding counts as minus infinity; ``stride`` is the window's size unless given.
    """
    g = checks.max_pool2d(x, kernel_size, stride=stride, padding=padding)
    x = g.padded(_float64(x), -np.inf)
    y = np.full(g.shape, -np.inf)
    for i, j in np.ndindex(g.kernel):
        y = np.maximum(y, g.tap(x, i, j))
    return _finish(y, out=out)


def average_pool2d(
    x: np.ndarray,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: PaddingSpec = 0,
    count_include_pad: bool = True,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Mean of every window: (N, H, W, C) -> (N, P, Q, C).

    Parameters
    ----------
    count_include_pad : bool
        Whether the zeros of the padding count as values of the window (PyTorch's default) or the mean is
        taken over the image's own values.
    """
    g = checks.average_pool2d(x, kernel_size, stride=stride, padding=padding, count_include_pad=count_include_pad)
    counted = np.ones((1, *x.shape[1:3], 1))
    x, counted = g.padded(_float64(x)), g.padded(counted, float(count_include_pad))
    total = sum(g.tap(x, i, j) for i, j in np.ndindex(g.kernel))
    count = sum(g.tap(counted, i, j) for i, j in np.ndindex(g.kernel))
    return _finish(total / count, out=out)


def add(
    x: np.ndarray,
    y: np.ndarray,
    *,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Sum of two arrays of one shape: ``activation(x + y)``."""
    checks.add(x, y, activation=activation)
    return _finish(_float64(x) + _float64(y), activation=activation, out=out)


def prelu(x: np.ndarray, weight: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``x`` where it is positive, ``weight * x`` elsewhere: (N, ..., C) -> (N, ..., C).

    A slope for each channel, He et al. 2015, arXiv 1502.01852, section 2.1; or one, (1,), for all; or one for each
    element, of the shape of ``x`` without N.
    """
    checks.prelu(x, weight)
    x = _float64(x)
    return _finish(np.where(x > 0, x, weight * x), out=out)


def resize2d(
    x: np.ndarray,
    size: Size | None = None,
    *,
    like: np.ndarray | None = None,
    scale: float | Sequence[float] | None = None,
    mode: str = "bilinear",
    coordinates: str = "half_pixel",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """The image at another size: (N, H, W, C) -> (N, P, Q, C).

    Every pixel is the mean of the four around its place in the image, weighted by how near they are, or the nearest
    one. It has ``size`` pixels, or those of the image ``like``, or ``floor(H * scale)`` and ``floor(W * scale)``.

    Parameters
    ----------
    mode, coordinates
        As for :func:`npmobilenet.kernels.geometry.resize_taps`.
    """
    g = checks.resize2d(x, size, like=like, scale=scale, mode=mode, coordinates=coordinates)
    y = _float64(x)
    for axis, taps in enumerate(g.taps, 1):
        first, second, weight = (np.array(values) for values in zip(*taps, strict=True))
        near = y.take(first, axis)
        if mode == "bilinear":
            weight = weight.reshape(-1, *[1] * (3 - axis))
            near = near * (1 - weight) + y.take(second, axis) * weight
        y = near
    return _finish(y, out=out)


def global_max_pool(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Maximum of all pixels: (N, H, W, C) -> (N, C)."""
    checks.global_max_pool(x)
    return _finish(_float64(x).max(axis=(1, 2)), out=out)


def conv_transpose2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Transposed convolution: (N, H, W, C_in) * (K_h, K_w, C_in, C_out) -> (N, P, Q, C_out).

    Every pixel, times the weights, is added to the window where it stands, ``stride`` apart from its neighbours';
    ``padding`` is cut off. The gradient of :func:`conv2d` with these numbers: Dumoulin and Visin 2016, arXiv
    1603.07285, chapter 4.
    """
    g = checks.conv_transpose2d(x, weight, bias, stride=stride, padding=padding)
    (top, bottom), (left, right) = g.pads
    n, p, q, c_out = g.shape
    x, weight, y = _float64(x), _float64(weight), np.zeros((n, top + p + bottom, left + q + right, c_out))
    for i, j in np.ndindex(g.kernel):
        rows, columns = (
            slice(at, at + (count - 1) * step + 1, step)
            for at, count, step in zip((i, j), x.shape[1:3], g.stride, strict=True)
        )
        y[:, rows, columns] += x @ weight[i, j]
    return _finish(y[:, top : top + p, left : left + q], bias, out=out)


def broadcast_add(x: np.ndarray, y: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Sum in which ``y`` has length 1 along some axes of ``x``, or no pixels: (N, H, W, C) + (N, C) -> (N, H, W, C)."""
    checks.broadcast_add(x, y)
    return _finish(_float64(x) + _stretched(y, x), out=out)


def multiply(x: np.ndarray, y: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Product in which ``y`` is as in :func:`broadcast_add`: (N, H, W, C) * (N, C) -> (N, H, W, C)."""
    checks.multiply(x, y)
    return _finish(_float64(x) * _stretched(y, x), out=out)


def _stretched(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return _float64(y[:, None, None] if y.ndim < x.ndim else y)


def concat(xs: Sequence[np.ndarray], *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """The channels of several arrays one after the other: list of (N, ..., C_i) -> (N, ..., C)."""
    checks.concat(xs)
    return _finish(np.concatenate(xs, axis=-1), out=out)


def channel_select(
    xs: Sequence[np.ndarray], *, indices: Sequence[int], out: np.ndarray | None = None, threads: int = 1
) -> np.ndarray:
    """Some channels of what :func:`concat` makes, in any order: list of (N, ..., C_i) -> (N, ..., C)."""
    checks.channel_select(xs, indices=indices)
    return _finish(np.concatenate(xs, axis=-1)[..., list(indices)], out=out)


def channel_pad(
    x: np.ndarray, *, before: int = 0, after: int = 0, out: np.ndarray | None = None, threads: int = 1
) -> np.ndarray:
    """Channels of zeros before and after the others: (N, ..., C) -> (N, ..., before + C + after)."""
    checks.channel_pad(x, before=before, after=after)
    return _finish(np.pad(x, (*[(0, 0)] * (x.ndim - 1), (before, after))), out=out)


def flatten(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """The image as a vector, channel after channel as in PyTorch: (N, H, W, C) -> (N, C * H * W)."""
    g = checks.flatten(x)
    return _finish(np.moveaxis(x, 3, 1).reshape(g.shape), out=out)


def leaky_relu(x: np.ndarray, *, slope: float = 0.01, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``x`` where it is positive, ``slope * x`` elsewhere, any shape."""
    checks.leaky_relu(x, slope=slope)
    x = _float64(x)
    return _finish(np.where(x > 0, x, slope * x), out=out)


def elu(x: np.ndarray, *, alpha: float = 1.0, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``x`` where it is positive, ``alpha * (exp(x) - 1)`` elsewhere, any shape: Clevert et al., arXiv 1511.07289."""
    checks.elu(x, alpha=alpha)
    x = _float64(x)
    return _finish(np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))), out=out)


def tanh(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Hyperbolic tangent, any shape."""
    checks.tanh(x)
    return _finish(np.tanh(_float64(x)), out=out)


def softmax(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``exp(x) / sum of exp(x)`` over the last axis: (N, ..., C) -> (N, ..., C)."""
    checks.softmax(x)
    x = _float64(x)
    y = np.exp(x - x.max(axis=-1, keepdims=True))
    return _finish(y / y.sum(axis=-1, keepdims=True), out=out)


def relu(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``max(x, 0)``, any shape."""
    checks.relu(x)
    return _finish(x, activation="relu", out=out)


def relu6(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``min(max(x, 0), 6)``, any shape: MobileNetV2, Sandler et al. 2018, arXiv 1801.04381, section 3.3."""
    checks.relu6(x)
    return _finish(x, activation="relu6", out=out)


def hard_swish(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``x * relu6(x + 3) / 6``, any shape: MobileNetV3, Howard et al. 2019, arXiv 1905.02244, section 5.2."""
    checks.hard_swish(x)
    return _finish(x, activation="hard_swish", out=out)


def swish(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``x * sigmoid(x)``, also called SiLU, any shape: Ramachandran et al. 2017, arXiv 1710.05941."""
    checks.swish(x)
    return _finish(x, activation="swish", out=out)


def sigmoid(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``1 / (1 + exp(-x))``, any shape."""
    checks.sigmoid(x)
    return _finish(x, activation="sigmoid", out=out)


def hard_sigmoid(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``relu6(x + 3) / 6``, any shape: MobileNetV3, Howard et al. 2019, arXiv 1905.02244, section 5.2."""
    checks.hard_sigmoid(x)
    return _finish(x, activation="hard_sigmoid", out=out)


def _logistic(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # exp of a large number is infinity, and 1 / infinity the right answer
        return 1 / (1 + np.exp(-x))


ACTIVATIONS = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "swish": lambda x: x * _logistic(x),
    "sigmoid": _logistic,
    "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
}


def _float64(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float64)


def _finish(
    y: np.ndarray,
    bias: np.ndarray | None = None,
    activation: str = "none",
    out: np.ndarray | None = None,
) -> np.ndarray:
    y = _float64(y) if bias is None else _float64(y) + bias
    y = ACTIVATIONS[activation](y)
    if out is None:
        return y
    checks.output(out, y.shape, y.dtype)[...] = y
    return out


# 8-bit operations ----------------------------------------------------------------------------------------------
#
# These are exact: every kernel on every CPU gives the bits that these functions give. A value q of an array of
# uint8 stands for (q - zero_point) * scale. A sum is one of integers, modulo 2**32 as int32 has it, and becomes a
# result in three steps: it is rounded to float32, one fused multiply-add `acc * scale + bias` rounds once more, and
# a result in uint8 is rounded to the nearest integer, ties to even, and saturated to 0..255 (NaN gives 0). The sign of
# a zero is left open.


def quantize(
    x: np.ndarray,
    steps: np.ndarray,
    zero_point: np.ndarray,
    *,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """8 bits with a step for each channel: float32 (N, ..., C) -> uint8 (N, ..., C).

    ``round(fma(activation(x), steps, zero_point))``, saturated.

    Parameters
    ----------
    steps : float32 (C,)
        How many to a unit: 1 / scale.
    zero_point : uint8 (C,)
        What stands for 0.
    activation : {"none", "relu", "relu6", "hard_swish", "swish", "sigmoid", "hard_sigmoid"}
        In float32, each operation rounded: see :func:`activation_float32`.
    """
    checks.quantize(x, steps, zero_point, activation=activation)
    y = activation_float32(np.float32(x), activation)
    return _store(_saturated(fma(y, np.float32(steps), np.float32(zero_point))), out)


def dequantize(
    x: np.ndarray,
    scale: np.ndarray,
    zero_point: np.ndarray,
    *,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """``(x - zero_point) * scale``, rounded once: uint8 (N, ..., C) -> float32 (N, ..., C)."""
    checks.dequantize(x, scale, zero_point)
    return _store((np.int32(x) - np.int32(zero_point)).astype(np.float32) * np.float32(scale), out)


def add_int8(
    x: np.ndarray,
    y: np.ndarray,
    scale: np.ndarray,
    other_scale: np.ndarray,
    bias: np.ndarray,
    *,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Sum of two of 8 bits, in the steps of the result: uint8 (N, ..., C), twice -> uint8 (N, ..., C).

    ``fma(float32(x), scale, fma(float32(y), other_scale, bias))``, rounded to the nearest integer, saturated.

    Parameters
    ----------
    scale, other_scale : float32 (C,)
        How many steps of the result are a step of ``x``, and of ``y``.
    bias : float32 (C,)
        The zero point of the result, less those of the two in its steps.
    """
    checks.add_int8(x, y, scale, other_scale, bias)
    inner = fma(np.float32(y), np.float32(other_scale), np.float32(bias))
    return _store(_saturated(fma(np.float32(x), np.float32(scale), inner)), out)


def quantize_pixels(x: np.ndarray, *, zero_point: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """8 bits with a scale for each pixel: float32 (N, H, W, C) -> uint8 (N, H, W, C) and float32 (N, H, W).

    With ``m = max(max over c of |x|, 2**-100)`` and ``levels`` 127 around the zero point 128, 255 above the zero point
    0: ``q = round(fma(x, levels / m, zero_point))``, saturated, and the pixel's scale is ``m * (1 / levels)``; the
    quotients are rounded to float32. So a pixel of zeros has a scale too. The maximum is that of the bits without
    the sign, among which NaN is the largest. If it is no finite number, the pixel's scale is NaN, and so is every
    float32 that comes of the pixel.

    Parameters
    ----------
    zero_point : {128, 0}
        0 is for pixels without negative values: these become 0.
    """
    checks.quantize_pixels(x, zero_point=zero_point)
    x, levels = np.float32(x), np.float32(127 if zero_point else 255)
    m = (x.view(np.uint32) & np.uint32(0x7FFFFFFF)).max(axis=-1, initial=0).view(np.float32)
    m = np.maximum(m, np.float32(2.0**-100))  # NaN stays NaN
    with np.errstate(invalid="ignore"):
        q = _saturated(fma(x, (levels / m)[..., None], np.float32(zero_point)))
    return q, np.where(np.isfinite(m), m * (np.float32(1) / levels), np.float32(np.nan))


def quantize_image(x: np.ndarray, steps: float, limits: Pair | None = None) -> np.ndarray:
    """16 bits: float32 (N, H, W, C) -> int16, ``round(x * steps)`` within limits, or -32767..32767; NaN: the lower."""
    checks.quantize_image(x, steps, limits)
    y = np.rint(np.float32(x) * np.float32(steps))
    limits = limits or (-LARGEST_HALF, LARGEST_HALF)
    return np.clip(np.where(np.isnan(y), -np.inf, y), *limits).astype(np.int16)


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
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """1x1 convolution of integers: uint8 (N, H, W, C_in) @ int8 (C_in/G, C_out) -> (N, H, W, C_out).

    ``acc = sum of (x - zero_point) * weight`` and ``y = fma(float32(acc), scale, bias)``.

    Parameters
    ----------
    x : uint8 or float32 array
        Of float32, each pixel is quantised first: :func:`quantize_pixels` with the same ``zero_point``.
    scale, bias : float32 (C_out,)
        A result in uint8 without an activation has its steps in them, and its zero point in the bias: its saturation
        is ReLU, ReLU6 or a bound of each channel.
    zero_point : int or uint8 (C_in,)
        Of ``x``.
    pixel_scale : float32 (N, H, W), optional
        Of each pixel of ``x``; it is multiplied with ``scale``, and the product rounded, before the fused
        multiply-add.
    groups : int
        As in :func:`pointwise_conv2d`.
    activation : {"none", "relu", "relu6", "hard_swish", "swish", "sigmoid", "hard_sigmoid"}
        Of ``y``, in float32: see :func:`activation_float32`.
    residual : float32 (N, H, W, C_out), optional
        Added to a result in float32 after its activation.
    dtype : {"uint8", "float32"}
        Of the result.
    out_steps : float32 (C_out,), optional
    out_zero_point : uint8 (C_out,), optional
        A result in uint8 that ends with an activation is quantised after it, as by :func:`quantize`; without one the
        steps are in ``scale`` and ``bias`` already, and these are not given.
    """
    checks.pointwise_conv2d_int8(
        x, weight, scale, bias, zero_point=zero_point, pixel_scale=pixel_scale, groups=groups, activation=activation,
        residual=residual, dtype=dtype, out_steps=out_steps, out_zero_point=out_zero_point,
    )  # fmt: skip
    if x.dtype.kind == "f":
        x, pixel_scale = quantize_pixels(x, zero_point=zero_point)
    x = _float64(x) - zero_point
    inputs, weights = np.split(x, groups, axis=-1), np.split(_float64(weight), groups, axis=-1)
    acc = np.concatenate([part @ columns for part, columns in zip(inputs, weights, strict=True)], axis=-1)
    return _requantized(acc, scale, bias, activation, dtype, out_steps, out_zero_point, out, pixel_scale, residual)


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
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Depthwise convolution of integers: uint8 (N, H, W, C) * int8 or int16 (K_h, K_w, C) -> (N, P, Q, C).

    The padding holds the zero point, that is, zeros. Weights of int16 have 15 bits, from -16383 to 16383; other
    parameters are those of :func:`pointwise_conv2d_int8`.
    """
    g = checks.depthwise_conv2d_int8(
        x, weight, scale, bias, zero_point=zero_point, stride=stride, padding=padding, dilation=dilation,
        activation=activation, dtype=dtype, out_steps=out_steps, out_zero_point=out_zero_point,
    )  # fmt: skip
    return _requantized(
        _windows(g, _float64(x) - zero_point, weight), scale, bias, activation, dtype, out_steps, out_zero_point, out
    )


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
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Mixed convolution of integers, as :func:`mixed_depthwise_conv2d`: uint8 (N, H, W, C) -> (N, P, Q, C)."""
    g = checks.mixed_depthwise_conv2d_int8(
        x, weights, scale, bias, zero_point=zero_point, stride=stride, padding=padding, dilation=dilation,
        activation=activation, dtype=dtype, out_steps=out_steps, out_zero_point=out_zero_point,
    )  # fmt: skip
    ends = np.cumsum([weight.shape[2] for weight in weights])
    parts = np.split(_float64(x) - zero_point, ends[:-1], axis=3)
    acc = [_windows(group, part, weight) for part, weight, group in zip(parts, weights, g.groups, strict=True)]
    return _requantized(np.concatenate(acc, axis=3), scale, bias, activation, dtype, out_steps, out_zero_point, out)


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
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Convolution of integers: uint8 * int8, or int16 * int16 -> (N, P, Q, C_out).

    Parameters
    ----------
    x : uint8, int16 or float32 (N, H, W, C_in)
        Of float32, it is first made int16: :func:`quantize_image` with these ``steps`` and ``limits``.
    weight : int8 or, where ``x`` is int16, int16 (K_h, K_w, C_in/G, C_out)
        No sum can pass int32 where the magnitudes of the weights of an output channel add up to 65536 at most,
        since those of ``x`` are at most 32767.
    steps : float, optional
        How many of int16 to a unit of ``x``.
    limits : (int, int), optional
        The least and the largest int16 of ``x``.
    scale, bias, zero_point, activation, dtype, out_steps, out_zero_point
        As in :func:`pointwise_conv2d_int8`. The padding holds the zero point; that of int16 is 0.
    """
    g = checks.conv2d_int8(
        x, weight, scale, bias, steps=steps, limits=limits, zero_point=zero_point, stride=stride, padding=padding,
        dilation=dilation, groups=groups, activation=activation, dtype=dtype, out_steps=out_steps,
        out_zero_point=out_zero_point,
    )  # fmt: skip
    x = quantize_image(x, steps, limits) if x.dtype.kind == "f" else x
    acc = conv2d(_float64(x) - zero_point, _float64(weight), stride=stride, padding=g.pads, dilation=dilation,
                 groups=groups)  # fmt: skip
    return _requantized(acc, scale, bias, activation, dtype, out_steps, out_zero_point, out)


def linear_int8(
    x: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    zero_point: int = 128,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Fully connected layer of integers: float32 (N, C_in) @ int8 (C_in, C_out) -> float32 (N, C_out).

    :func:`pointwise_conv2d_int8` of images of one pixel: each row of ``x`` is quantised by :func:`quantize_pixels`.
    """
    checks.linear_int8(x, weight, scale, bias, zero_point=zero_point, activation=activation)
    y = pointwise_conv2d_int8(
        x[:, None, None], weight, scale, bias, zero_point=zero_point, activation=activation, dtype="float32"
    )
    return _store(y[:, 0, 0], out)


def global_average_pool_int8(
    x: np.ndarray,
    scale: np.ndarray,
    *,
    zero_point: int | np.ndarray = 0,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Mean over all pixels: uint8 (N, H, W, C) -> float32 (N, C).

    ``float32(sum of (x - zero_point)) * (scale / float32(H * W))``, the sum exact, the quotient rounded.
    """
    checks.global_average_pool_int8(x, scale, zero_point=zero_point)
    total = (np.int64(x) - zero_point).sum(axis=(1, 2)).astype(np.float32)
    return _store(total * (np.float32(scale) / np.float32(x.shape[1] * x.shape[2])), out)


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
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Squeeze-and-excitation of 8 bits, (C, R) and (R, C) in float32: uint8 (N, H, W, C) -> float32 (N, H, W, C).

    The mean is :func:`global_average_pool_int8`. Both linear layers begin with the bias and add one product after the
    other by fused multiply-adds, in the order of their inputs. The result is
    ``float32(x - zero_point) * (scale * gate)``, the product in brackets rounded.
    """
    checks.squeeze_excite_int8(
        x, scale, reduce_weight, reduce_bias, expand_weight, expand_bias, zero_point=zero_point, activation=activation,
        gate=gate,
    )  # fmt: skip
    y = global_average_pool_int8(x, scale, zero_point=zero_point)
    y = activation_float32(_chained(y, reduce_weight, reduce_bias), activation)
    y = activation_float32(_chained(y, expand_weight, expand_bias), gate)
    factor = (np.float32(scale) * y)[:, None, None]
    return _store((np.int32(x) - np.int32(zero_point)).astype(np.float32) * factor, out)


def _chained(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    y = np.broadcast_to(np.float32(bias), (len(x), len(bias)))
    for column, row in zip(x.T, weight, strict=True):
        y = fma(column[:, None], row, y)
    return y


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """``a * b + c`` of float32 arrays, rounded once.

    The product of two float32 is exact in float64. The sum is rounded there to odd (away from an even last bit, if
    it is inexact), after which rounding to float32 gives what one rounding gives: Boldo and Melquiond 2008, IEEE
    Transactions on Computers 57(4), 462-471.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        a, b, c = np.broadcast_arrays(_float64(a), _float64(b), _float64(c))
        product = a * b
        total = product + c
        part = total - product
        error = (product - (total - part)) + (c - part)
        bits = total.view(np.int64)
        even = (bits & 1) == 0
        step = np.where((error > 0) == (total > 0), 1, -1)
        bits = bits + np.where((error != 0) & np.isfinite(error) & even, step, 0)
        return bits.view(np.float64).astype(np.float32)


def activation_float32(x: np.ndarray, activation: str) -> np.ndarray:
    """An activation in float32 arithmetic, the same on every CPU.

    ``hard_sigmoid(x) = min(max(x + 3, 0), 6) * float32(1 / 6)``, ``hard_swish(x) = x * hard_sigmoid(x)``,
    ``sigmoid(x) = 1 / (1 + exp(-x))``; every operation is rounded, NaN stays NaN. The exponential is ``r * r`` with
    ``r = 2**t``, ``t = -x / (2 ln 2)`` for ``x`` within +-170: with n the integer nearest to t and ``f = t - n``, r is
    ``2**n * (1 + f * p(f))``, the polynomial p by fused multiply-adds.

    ``swish(x) = max(x, 0) - a (e - a)**4 p(a)`` with ``a = min(|x|, e)`` and a polynomial p, without a division and
    within 0.0005 of ``x / (1 + exp(-x))``: a fiftieth of what a byte tells apart.
    """
    x = np.float32(x)
    if activation in ("none", "relu", "relu6"):
        return _clamped(x, activation)
    with np.errstate(over="ignore", invalid="ignore"):
        if activation in ("hard_sigmoid", "hard_swish"):
            gate = _clamped(x + np.float32(3), "relu6") * np.float32(1 / 6)
            return gate if activation == "hard_sigmoid" else x * gate
        if activation == "swish":
            a = np.minimum(np.abs(x), SWISH_END)
            square = (SWISH_END - a) * (SWISH_END - a)
            return fma(-(a * (square * square)), _polynomial(SWISH_POLYNOMIAL, a), np.maximum(x, np.float32(0)))
        clamped = np.clip(x, np.float32(-170), np.float32(170))
        shifted = fma(clamped, EXP_FACTOR, EXP_ROUND)
        f = fma(clamped, EXP_FACTOR, EXP_ROUND - shifted)
        root = fma(_polynomial(EXP_POLYNOMIAL, f), f, np.float32(1))
        exponent = np.where(np.isnan(x), 0, shifted - EXP_ROUND).astype(np.int32)
        root = np.ldexp(root, exponent)  # a normal number: nothing is rounded
        return np.float32(1) / (np.float32(1) + root * root)


def _polynomial(coefficients: np.ndarray, x: np.ndarray) -> np.ndarray:
    y = coefficients[0]
    for coefficient in coefficients[1:]:
        y = fma(y, x, coefficient)
    return y


# Minimax coefficients of 2**f = 1 + f * (...) for |f| <= 1/2, as the blocked kernels have them.
EXP_POLYNOMIAL = np.float32(
    [
        0.00015353258640971035,
        0.001339900423772633,
        0.00961843878030777,
        0.05550331994891167,
        0.24022647738456726,
        0.6931471824645996,
    ]
)
EXP_FACTOR = np.float32(-0.5 / 0.6931471805599453)
EXP_ROUND = np.float32(1.5 * 2**23)  # added to a small number, it leaves the nearest integer in the low bits

# Minimax coefficients of a / (1 + exp(a)) = a (e - a)**4 p(a) for 0 <= a <= e, and 0 beyond; error 0.00042.
SWISH_END = np.float32(10.5)
SWISH_POLYNOMIAL = np.float32(
    [
        1.1880975314682019e-08,
        -2.4725773073441815e-07,
        1.8428678458803915e-06,
        -4.858530246565351e-06,
        -5.075653007224901e-06,
        4.129404987907037e-05,
    ]
)


def _windows(g: checks.Geometry, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    padded = g.padded(x)
    return sum(g.tap(padded, i, j) * _float64(weight[i, j]) for i, j in np.ndindex(g.kernel))


def _requantized(
    acc: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    activation: str,
    dtype: str,
    out_steps: np.ndarray | None,
    out_zero_point: np.ndarray | None,
    out: np.ndarray | None,
    pixel_scale: np.ndarray | None = None,
    residual: np.ndarray | None = None,
) -> np.ndarray:
    """From sums, integers in float64 (exact below 2**53), to the result."""
    scale, bias = np.float32(scale), np.float32(bias)
    with np.errstate(invalid="ignore", over="ignore"):
        scale = scale if pixel_scale is None else scale * np.float32(pixel_scale)[..., None]
        y = fma(acc.astype(np.int64).astype(np.int32).astype(np.float32), scale, bias)
        if dtype == "uint8" and out_steps is None:
            return _store(_saturated(y), out)
        y = activation_float32(y, activation)
        if dtype == "uint8":
            return _store(_saturated(fma(y, np.float32(out_steps), np.float32(out_zero_point))), out)
        return _store(y if residual is None else y + np.float32(residual), out)


def _clamped(y: np.ndarray, activation: str) -> np.ndarray:
    return ACTIVATIONS[activation](y).astype(np.float32)


def _saturated(y: np.ndarray) -> np.ndarray:
    return np.clip(np.where(np.isnan(y), 0, np.rint(y)), 0, 255).astype(np.uint8)


def _store(y: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    if out is None:
        return y
    checks.output(out, y.shape, y.dtype)[...] = y
    return out
