"""Where a sliding window lands: padding, output size and multiply-adds of a convolution.

A leaf module without dependencies. The graph (which knows nothing of kernels) and the kernels (which know
nothing of graphs) both take their geometry from here, so that there is one definition of it.

Letters used throughout the project: N batch, H W input height and width, C channels (C_in, C_out),
K kernel size, G groups, P Q output height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]  # ((top, bottom), (left, right))
PaddingSpec = str | int | Sequence[int] | Sequence[Sequence[int]]


def pair(value: int | Sequence[int], name: str = "value", least: int = 1) -> Pair:
    """Return ``value`` as ``(vertical, horizontal)``; a single integer counts for both.

    Raises
    ------
    ValueError
        If it is neither an integer nor two integers, or one of them is below ``least``.
    """
    try:
        values = tuple(value) if isinstance(value, Sequence) else (value, value)
        if len(values) == 2 and all(int(v) == v and v >= least for v in values):
            return int(values[0]), int(values[1])
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{name} must be an integer >= {least} or a pair of them, got {value!r}")


def resolve_padding(
    padding: PaddingSpec, size: Pair, kernel: Pair, stride: Pair = (1, 1), dilation: Pair = (1, 1)
) -> Pads:
    """Return the zeros added around an image as ``((top, bottom), (left, right))``.

    Parameters
    ----------
    padding : {"symmetric", "same"}, int, (vertical, horizontal) or ((top, bottom), (left, right))
        ``"symmetric"`` is PyTorch's custom ``((stride - 1) + dilation * (K - 1)) // 2`` on every side.
        ``"same"`` is TensorFlow's SAME: ``ceil(size / stride)`` outputs, the odd zero after the image.
    size : (H, W)
        Input height and width; ``"same"`` depends on it.
    """
    if padding == "same":
        return tuple(_same(s, (k - 1) * d + 1, st) for s, k, st, d in zip(size, kernel, stride, dilation, strict=True))
    if padding == "symmetric":
        return tuple(
            (p, p) for k, st, d in zip(kernel, stride, dilation, strict=True) for p in [((st - 1) + d * (k - 1)) // 2]
        )
    if isinstance(padding, str):
        raise ValueError(f"padding must be 'symmetric', 'same' or numbers, got {padding!r}")
    if isinstance(padding, Sequence) and len(padding) == 2 and isinstance(padding[0], Sequence):
        return pair(padding[0], "padding", 0), pair(padding[1], "padding", 0)
    vertical, horizontal = pair(padding, "padding", 0)
    return (vertical, vertical), (horizontal, horizontal)


def _same(size: int, extent: int, stride: int) -> Pair:
    total = max((-(-size // stride) - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2


def frame_pads(pads: Sequence[Pads]) -> Pads:
    """The frame of zeros that is wide enough for the windows of all groups."""
    return tuple((max(p[axis][0] for p in pads), max(p[axis][1] for p in pads)) for axis in (0, 1))


def output_size(size: int, kernel: int, stride: int = 1, pads: Pair = (0, 0), dilation: int = 1) -> int:
    """Return the number of window positions along one axis.

    Raises
    ------
    ValueError
        If the window does not fit into the padded input.
    """
    extent = (kernel - 1) * dilation + 1
    padded = size + pads[0] + pads[1]
    if padded < extent:
        raise ValueError(
            f"a window of {extent} (kernel {kernel}, dilation {dilation}) does not fit into "
            f"{size} + padding {pads[0]} + {pads[1]}"
        )
    return (padded - extent) // stride + 1


def transposed_size(size: Pair, kernel: Pair, stride: Pair, padding: PaddingSpec) -> Pair:
    """Return height and width of what a transposed convolution makes: the image whose convolution has this ``size``.

    Raises
    ------
    ValueError
        If the padding is no number, or cuts all of it off.
    """
    if isinstance(padding, str):
        raise ValueError(f"padding of a transposed convolution must be numbers, got {padding!r}")
    pads = resolve_padding(padding, size, kernel)
    axes = zip(size, kernel, stride, pads, strict=True)
    return pair([(length - 1) * step + k - sum(cut) for length, k, step, cut in axes], "the image without its padding")


def equal_partition(channels: int, groups: int) -> list[int]:
    """Cut channels into groups of one width, ``channels // groups``; the remainder goes to the first group.

    How MixNet, Tan and Le 2019, arXiv 1907.09595, divides the channels of a layer among its kernel sizes, and
    those of a 1x1 convolution among its groups.

    Raises
    ------
    ValueError
        If there are more groups than channels.
    """
    _check_groups(channels, groups)
    width = channels // groups
    return [channels - width * (groups - 1)] + [width] * (groups - 1)


def exponential_partition(channels: int, groups: int) -> list[int]:
    """Cut channels into groups of which each takes half of what is left: 32 in 4 groups are 16, 8, 4 and 4.

    Tan and Le 2019, arXiv 1907.09595, section 3.1: group i gets about 2^-i of the channels, and the last group
    as much as the one before it. Halves are rounded up, but one channel at least is left for each later group.

    Raises
    ------
    ValueError
        If there are more groups than channels.
    """
    _check_groups(channels, groups)
    widths = []
    for later in range(groups - 1, 0, -1):
        left = channels - sum(widths)
        widths.append(min((left + 1) // 2, left - later))
    return [*widths, channels - sum(widths)]


def _check_groups(channels: int, groups: int) -> None:
    if not 1 <= groups <= channels:
        raise ValueError(f"groups must be from 1 to the number of channels, {channels}, got {groups}")


def convolution_macs(output: Pair, kernel: Pair, c_in: int, c_out: int, groups: int = 1) -> int:
    """Multiply-adds of one convolution of one image: ``P * Q * K_h * K_w * C_in * C_out / G``."""
    return output[0] * output[1] * kernel[0] * kernel[1] * (c_in // groups) * c_out


Tap = tuple[int, int, float]  # two neighbours, and the weight of the second
COORDINATES = ("half_pixel", "align_corners", "asymmetric")


def resized(
    size: Pair, to: int | Sequence[int] | None, scale: float | Sequence[float] | None, like: Pair | None = None
) -> Pair:
    """Return height and width of a resized image: given, another image's, or the whole pixels of the scaled one.

    Raises
    ------
    ValueError
        If not just one of them is given, or nothing is left.
    """
    if [to, scale, like].count(None) != 2:
        other = "" if like is None else f" and an image of {like[0]}x{like[1]} to be like"
        raise ValueError(f"either size or scale must be given, got size={to!r} and scale={scale!r}{other}")
    if scale is None:
        return like or pair(to, "size")
    factors = tuple(scale) if isinstance(scale, Sequence) else (scale, scale)
    if len(factors) != 2 or not all(isinstance(factor, (int, float)) and 0 < factor < 1e6 for factor in factors):
        raise ValueError(f"scale must be a positive number or a pair of them, got {scale!r}")
    return pair([int(length * factor) for length, factor in zip(size, factors, strict=True)], "the resized image")


def resize_taps(
    size: Pair, to: Pair, scale: float | Sequence[float] | None, mode: str, coordinates: str
) -> tuple[list[Tap], list[Tap]]:
    """Return between which rows, and between which columns, those of a resized image lie.

    Parameters
    ----------
    mode : {"bilinear", "nearest"}
    coordinates : {"half_pixel", "align_corners", "asymmetric"}
        Where a pixel of the result is in the image: pixels are areas (PyTorch without ``align_corners``; its
        "nearest-exact"), the corners' centres stay corners, or the first row and column stay first (PyTorch's
        "nearest", TensorFlow 1).

    Raises
    ------
    ValueError
        If one of both is unknown; the nearest pixel with ``align_corners`` has no agreed meaning.
    """
    if mode not in ("bilinear", "nearest"):
        raise ValueError(f"mode must be 'bilinear' or 'nearest', got {mode!r}")
    allowed = COORDINATES if mode == "bilinear" else ("half_pixel", "asymmetric")
    if coordinates not in allowed:
        raise ValueError(f"coordinates of {mode} must be one of {', '.join(allowed)}, got {coordinates!r}")
    scales = (None, None) if scale is None else scale if isinstance(scale, Sequence) else (scale, scale)
    return tuple(
        [
            _tap(position, length, out, length / out if factor is None else 1 / factor, mode, coordinates)
            for position in range(out)
        ]
        for length, out, factor in zip(size, to, scales, strict=True)
    )


def _tap(position: int, length: int, out: int, step: float, mode: str, coordinates: str) -> Tap:
    if coordinates == "align_corners":
        source = position * (length - 1) / (out - 1) if out > 1 else 0.0
    elif coordinates == "asymmetric":
        source = position * step
    else:
        source = (position + 0.5) * step - (0.5 if mode == "bilinear" else 0.0)
    source = min(max(source, 0.0), length - 1)
    first = int(source)
    return (first, min(first + 1, length - 1), source - first) if mode == "bilinear" else (first, first, 0.0)
