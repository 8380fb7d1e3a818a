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
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.geometry import PaddingSpec


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


_ACTIVATIONS = {
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
    y = _ACTIVATIONS[activation](y)
    if out is None:
        return y
    checks.output(out, y.shape, y.dtype)[...] = y
    return out
