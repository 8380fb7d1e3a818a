"""Cases shared by the kernel tests: operations, shapes and geometry, their inputs, and PyTorch's answer."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npmobilenet.kernels import registry
from npmobilenet.kernels.geometry import equal_partition, exponential_partition, pair, resolve_padding

ACTIVATIONS = ("none", "relu", "relu6", "hard_swish", "swish", "sigmoid", "hard_sigmoid")


@dataclass(frozen=True)
class Case:
    """An operation, the shapes of its array arguments and its other arguments."""

    operation: str
    shapes: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{k}={v}" for k, v in {**self.shapes, **self.options}.items()]
        return f"{self.operation}({', '.join(parts)})".replace(" ", "")

    def arrays(self) -> dict[str, np.ndarray | list[np.ndarray]]:
        """Float32 inputs that depend on nothing but the case, spread over both sides of 0 and of 6."""
        rng = np.random.default_rng(zlib.crc32(str(self).encode()))

        def make(name: str, shape: Sequence | None) -> np.ndarray | list[np.ndarray] | None:
            if shape is None:
                return None
            if isinstance(shape, list):
                return [make(name, each) for each in shape]
            values = rng.standard_normal(shape).astype(np.float32)
            return np.abs(values) + np.float32(0.1) if name == "variance" else 2 * values

        return {name: make(name, shape) for name, shape in self.shapes.items()}

    @property
    def macs(self) -> int:
        return registry.macs(self.operation, **self.shapes, **self.options)


def conv(n, h, w, c_in, c_out, k=(3, 3), groups=1, bias=True, **options):
    shapes = {"x": (n, h, w, c_in), "weight": (*k, c_in // groups, c_out)}
    if bias:
        shapes["bias"] = (c_out,)
    return Case("conv2d", shapes, {"groups": groups, **options} if groups > 1 else options)


def depthwise(n, h, w, c, k=(3, 3), bias=True, **options):
    shapes = {"x": (n, h, w, c), "weight": (*k, c)}
    if bias:
        shapes["bias"] = (c,)
    return Case("depthwise_conv2d", shapes, options)


def mixed(n, h, w, widths, kernels, bias=True, **options):
    shapes = {"x": (n, h, w, sum(widths)), "weights": [(*pair(k), c) for k, c in zip(kernels, widths, strict=True)]}
    if bias:
        shapes["bias"] = (sum(widths),)
    return Case("mixed_depthwise_conv2d", shapes, options)


def pointwise(n, h, w, c_in, c_out, groups=1, bias=True, residual=False, **options):
    shapes = {"x": (n, h, w, c_in), "weight": (c_in // groups, c_out)}
    if bias:
        shapes["bias"] = (c_out,)
    if residual:
        shapes["residual"] = (n, h, w, c_out)
    return Case("pointwise_conv2d", shapes, {"groups": groups, **options} if groups > 1 else options)


def squeeze(n, h, w, c, r, **options):
    reduce, expand = {"reduce_weight": (c, r), "reduce_bias": (r,)}, {"expand_weight": (r, c), "expand_bias": (c,)}
    return Case("squeeze_excite", {"x": (n, h, w, c), **reduce, **expand}, options)


def block(n, h, w, c_in, expanded, c_out, k=(3, 3), bias=True, **options):
    shapes = {
        "x": (n, h, w, c_in),
        "expand_weight": (c_in, expanded),
        "expand_bias": (expanded,) if bias else None,
        "weight": (*k, expanded),
        "bias": (expanded,) if bias else None,
        "project_weight": (expanded, c_out),
        "project_bias": (c_out,) if bias else None,
    }
    return Case("inverted_residual", shapes, options)


def linear(n, c_in, c_out, bias=True, **options):
    shapes = {"x": (n, c_in), "weight": (c_in, c_out)}
    if bias:
        shapes["bias"] = (c_out,)
    return Case("linear", shapes, options)


def pool(operation, n, h, w, c, k, **options):
    return Case(operation, {"x": (n, h, w, c)}, {"kernel_size": k, **options})


def resize(n, h, w, c, **options):
    return Case("resize2d", {"x": (n, h, w, c)}, options)


# Compared with PyTorch: stored answers in tests/data/torch_operations.npz, and live where it is installed.
TORCH_CASES = [
    conv(1, 5, 6, 3, 4),
    conv(2, 7, 6, 3, 5, stride=2, padding=1, activation="relu6"),
    conv(1, 9, 8, 2, 3, stride=3, padding=((0, 1), (2, 0)), bias=False),
    conv(1, 9, 9, 2, 3, dilation=2, padding=2),
    conv(1, 9, 11, 2, 3, k=(3, 5), stride=(2, 1), padding="symmetric", dilation=(1, 2)),
    conv(1, 8, 7, 3, 2, stride=2, padding="same"),
    conv(1, 6, 5, 6, 9, groups=3, padding=1, activation="swish"),
    conv(2, 5, 4, 4, 4, k=(1, 1), groups=2, stride=2),
    conv(1, 2, 2, 3, 7, padding=1, activation="hard_swish"),
    *(depthwise(1, 9, 8, 3, stride=s, padding=1) for s in (1, 2, 3)),
    depthwise(2, 7, 5, 4, k=(5, 5), padding="symmetric", activation="relu"),
    depthwise(1, 6, 8, 2, k=(2, 4), padding="same", bias=False),
    depthwise(1, 8, 8, 2, padding=((0, 1), (0, 1)), stride=2, activation="relu6"),
    depthwise(1, 11, 9, 2, k=(3, 3), dilation=(3, 2), padding=3, activation="sigmoid"),
    pointwise(2, 3, 4, 5, 7),
    pointwise(1, 3, 3, 4, 4, residual=True, activation="relu6"),
    pointwise(1, 2, 2, 3, 1, bias=False, activation="swish"),
    pointwise(2, 3, 2, 6, 9, groups=3, residual=True, activation="relu"),
    squeeze(2, 4, 3, 7, 3),
    squeeze(1, 3, 3, 5, 2, activation="swish", gate="hard_sigmoid"),
    block(2, 5, 4, 3, 8, 3, padding=1, residual=True),
    block(1, 6, 7, 2, 5, 4, stride=2, padding="same", bias=False),
    block(1, 5, 6, 3, 4, 2, k=(5, 3), stride=(2, 1), padding=((2, 1), (0, 2)), project_activation="relu"),
    block(1, 4, 4, 2, 3, 2, padding="symmetric", expand_activation="swish", depthwise_activation="hard_swish"),
    Case(
        "mixed_depthwise_conv2d",
        {"x": (1, 7, 9, 8), "weights": [(3, 3, 3), (5, 5, 3), (7, 7, 2)], "bias": (8,)},
        {"stride": 2, "activation": "swish"},
    ),
    Case(
        "mixed_depthwise_conv2d",
        {"x": (1, 8, 6, 4), "weights": [(3, 3, 2), (4, 4, 2)]},
        {"stride": 2, "padding": "same"},
    ),
    mixed(1, 9, 8, (3, 2, 2), (3, 3, 3), dilation=[1, 2, (3, 1)]),
    mixed(1, 7, 6, (2, 1), ((3, 2), 5), padding="same", dilation=(2, 1), activation="hard_sigmoid"),
    mixed(1, 8, 9, (2, 2), (3, 5), padding=((0, 1), (2, 0)), stride=(2, 1), dilation=[2, 1]),
    Case(
        "batch_norm",
        {"x": (2, 3, 4, 5), "weight": (5,), "bias": (5,), "mean": (5,), "variance": (5,)},
        {"eps": 1e-3},
    ),
    *(Case(activation, {"x": (3, 40)}) for activation in ACTIVATIONS[1:]),
    Case("global_average_pool", {"x": (2, 3, 5, 4)}),
    pool("max_pool2d", 1, 7, 8, 3, 3, stride=2, padding=1),
    pool("max_pool2d", 2, 6, 6, 2, (2, 3)),
    pool("average_pool2d", 1, 7, 8, 3, 3, stride=2, padding=1),
    pool("average_pool2d", 1, 7, 8, 3, 3, stride=2, padding=1, count_include_pad=False),
    *(Case("prelu", {"x": (2, 4, 3, 5), "weight": slopes}) for slopes in ((5,), (1,), (4, 3, 5))),
    Case("conv_transpose2d", {"x": (2, 4, 5, 3), "weight": (2, 2, 3, 5), "bias": (5,)}, {"stride": 2}),
    Case("conv_transpose2d", {"x": (1, 5, 4, 3), "weight": (3, 4, 3, 2)}, {"stride": (2, 3), "padding": (1, 2)}),
    Case("global_max_pool", {"x": (2, 4, 3, 5)}),
    *(
        Case(operation, {"x": (2, 4, 3, 5), "y": y})
        for operation in ("broadcast_add", "multiply")
        for y in ((2, 5), (2, 4, 3, 1), (2, 1, 3, 5), (2, 4, 3, 5))
    ),
    Case("concat", {"xs": [(2, 4, 3, 5), (2, 4, 3, 1), (2, 4, 3, 9)]}),
    Case("channel_select", {"xs": [(2, 4, 3, 5), (2, 4, 3, 9)]}, {"indices": (13, 0, 2, 2, 7, 9)}),
    Case("channel_pad", {"x": (2, 4, 3, 5)}, {"before": 2, "after": 3}),
    Case("flatten", {"x": (2, 4, 3, 5)}),
    Case("leaky_relu", {"x": (3, 40)}, {"slope": 0.2}),
    Case("elu", {"x": (3, 40)}, {"alpha": 1.5}),
    Case("tanh", {"x": (3, 40)}),
    *(
        resize(2, 4, 5, 3, **to, mode=mode, coordinates=coordinates)
        for to in ({"size": (7, 11)}, {"size": (2, 3)}, {"scale": 2.0}, {"scale": (0.6, 1.7)}, {"size": (1, 1)})
        for mode, coordinates in (
            ("bilinear", "half_pixel"),
            *([("bilinear", "align_corners")] if "size" in to else []),
            ("nearest", "half_pixel"),
            ("nearest", "asymmetric"),
        )
    ),
    linear(3, 5, 4),
    linear(1, 7, 3, bias=False, activation="relu"),
    Case("softmax", {"x": (3, 10)}),
    Case("add", {"x": (2, 3, 4, 5), "y": (2, 3, 4, 5)}, {"activation": "relu"}),
]


# Shapes about tails: group widths of MixNet and others that no vector divides, windows larger than the image.
WIDTHS = (1, 3, 7, 12, 15, 16, 17, 20, 24, 28, 90, 156)
SIZES = ((1, 1), (2, 2), (7, 7), (15, 7))
KERNEL_SIZES = (3, 5, 7, 9)

MIXED_TAILS = [
    *(
        mixed(n, 6, 5, partition(c, min(c, 4)), KERNEL_SIZES[:c], stride=s)
        for partition in (equal_partition, exponential_partition)
        for n, c, s in zip((1, 3) * 6, WIDTHS, (1, 2) * 6, strict=True)
    ),
    *(
        mixed(1, h, w, (4, 3, 1), (3, 7, 5), stride=stride, padding=padding)
        for h, w in SIZES
        for stride in (1, 2, 3)
        for padding in ("symmetric", "same")
    ),
    *(mixed(2, 12, 9, (3, 2), (k, 13 - k), padding="same", stride=(2, 1)) for k in range(2, 7)),
    *(mixed(1, 12, 13, (1, 5), (k, k - 2), stride=s) for k in (4, 8, 10, 11) for s in (1, 2)),
    mixed(1, 7, 8, (17,), (5,)),  # one group
    mixed(1, 7, 8, (1,) * 9, range(3, 21, 2)),  # a group for every channel
    mixed(1, 9, 8, (9, 8, 4), (3, (3, 5), 3), padding=((0, 1), (2, 0)), dilation=[(1, 2), 1, (1, 2)]),
    mixed(1, 11, 12, (12, 4, 3, 1), (3,) * 4, dilation=[1, 2, 3, 4]),  # the dilated variant
    mixed(2, 9, 11, (5, 2), (3, 2), padding="same", stride=2, dilation=(2, 3)),
    mixed(1, 3, 3, (2, 1), (3, 3), padding=5),  # windows that lie in the padding altogether
    *(mixed(1, 3, 5, (9, 2), (3, 5), activation=activation) for activation in ACTIVATIONS),
    mixed(1, 3, 5, (9, 2), (3, 5), bias=False),
    mixed(0, 4, 4, (2, 1), (3, 5)),
]
# Odd channels in and out under windows, strides, dilations and padding of all kinds; rows of several tiles.
DENSE_TAILS = [
    *(
        conv(1, h, w, c_in, c_out, k=k, stride=stride, dilation=dilation, padding=((k[0], 0), (1, k[1] * dilation)))
        for (h, w), c_in, c_out, k, stride, dilation in zip(
            (*SIZES, *SIZES, *SIZES),
            WIDTHS,
            (33, 5, 16, 48, 7, 17, 1, 70, 24, 90, 3, 40),
            ((1, 1), (3, 3), (5, 3), (7, 7)) * 3,
            (1, 1, 2, 1, 3, (2, 1), (1, 3), 2, 2, 1, (3, 2), 1),
            (1, 1, 1, 2, 1, 2, 1, 1, 1, 1, 1, 1),
            strict=True,
        )
        if h > 2 or k[0] == 1 or k == (3, 3)
    ),
    conv(1, 9, 10, 20, 33, dilation=6, padding=6, activation="relu6"),
    conv(1, 5, 33, 17, 20, dilation=(7, 12), padding="same"),  # windows most of which lie outside
    conv(1, 4, 19, 17, 20, stride=(2, 1), dilation=(1, 3), padding=((6, 0), (0, 9))),
    conv(2, 4, 33, 17, 35, padding=1, activation="hard_swish"),
    conv(1, 3, 61, 24, 20, k=(3, 5), stride=(1, 2), padding="same", activation="relu"),
    *(conv(1, 5, 6, c, d, groups=4, padding=1, stride=s) for c, d, s in ((4, 8, 1), (68, 20, 2), (24, 132, 1))),
]

GROUPED_POINTWISE_TAILS = [
    *(
        pointwise(n, 5, 3, g * c, g * d, g)
        for n, g, c, d in ((1, 2, 12, 20), (3, 3, 5, 1), (1, 4, 7, 17), (1, 2, 45, 78))
    ),
    *(pointwise(1, h, w, 6, 10, groups=2) for h, w in SIZES),
    pointwise(2, 3, 3, 15, 15, groups=15),
    pointwise(2, 3, 3, 6, 8, groups=2, residual=True, activation="relu6"),
    pointwise(1, 3, 3, 6, 8, groups=2, bias=False, activation="swish"),
    pointwise(0, 3, 3, 4, 6),
]
BLOCK_TAILS = [
    # channels, of which few are whole vectors; residual and stride as in MobileNetV2
    *(
        block(n, 6, 5, c, e, c, padding=1, residual=True)
        for n, c, e in zip((1, 3) * 5, WIDTHS, (1, 6, 18, 20, 33, 16, 34, 40, 48, 90), strict=False)
    ),
    *(block(1, 7, 6, c, e, d, padding=1, stride=2) for c, e, d in ((5, 30, 7), (16, 96, 24), (24, 90, 17), (3, 3, 3))),
    # sizes: a single pixel, few rows for many threads, several strips
    *(
        block(1, h, w, 3, 10, 3, stride=stride, padding=padding)
        for h, w in (*SIZES, (2, 33), (29, 3))
        for stride in (1, 2)
        for padding in ("symmetric", "same")
    ),
    # windows and padding
    *(block(1, 12, 9, 2, 9, 4, k=(k, k), stride=s, padding=k // 2) for k in (1, 2, 4, 5, 7) for s in (1, 2) if s <= k),
    block(1, 9, 8, 4, 12, 5, k=(5, 3), padding=((0, 1), (2, 0)), stride=2),
    block(1, 8, 9, 4, 12, 5, k=(3, 5), padding="same"),
    block(2, 9, 8, 4, 12, 5, padding=((0, 1), (0, 1)), stride=2),
    block(1, 5, 6, 3, 10, 4),  # without any
    block(1, 3, 3, 2, 9, 3, padding=5),  # windows that lie in the padding altogether
    *(block(1, 9, 7, 4, 10, 3, k=(5, 5), padding=pads, stride=s) for pads in (((7, 8), (9, 10)), 6) for s in (1, 3)),
    # activations, bias
    *(block(1, 4, 5, 3, 9, 4, padding=1, expand_activation=a) for a in ACTIVATIONS),
    *(block(1, 4, 5, 3, 9, 4, padding=1, depthwise_activation=a) for a in ACTIVATIONS),
    *(block(1, 4, 5, 4, 9, 4, padding=1, residual=True, project_activation=a) for a in ACTIVATIONS),
    block(1, 4, 5, 4, 9, 4, padding=1, residual=True, bias=False),
    block(0, 4, 4, 2, 6, 3, padding=1),  # an empty batch
]
SQUEEZE_TAILS = [
    *(squeeze(n, 5, 3, c, r) for n, c, r in zip((1, 3) * 6, WIDTHS, WIDTHS[::-1], strict=True)),
    *(squeeze(2, h, w, 20, 5) for h, w in SIZES),
    *(squeeze(1, 3, 2, 9, 4, activation=activation) for activation in ACTIVATIONS),
    *(squeeze(1, 3, 2, 9, 4, gate=gate) for gate in ACTIVATIONS),
    squeeze(0, 2, 2, 3, 1),
]
# Windows and pixels at the image's ends: rows of several tiles, of one and of none, and windows larger than the image.
WINDOW_TAILS = [
    *(
        pool(operation, n, h, w, c, k, stride=stride, padding=padding)
        for operation in ("max_pool2d", "average_pool2d")
        for n, h, w, c, k, stride, padding in (
            (1, 1, 1, 17, 3, 1, 1),
            (2, 2, 3, 20, 5, 1, 2),
            (1, 3, 2, 16, (3, 7), (2, 1), ((2, 0), (6, 5))),
            (1, 5, 29, 33, 3, 1, "same"),
            (1, 4, 21, 15, (2, 4), 2, ((0, 1), (3, 1))),
            (3, 6, 9, 7, (1, 2), (3, 1), 0),
            (1, 9, 40, 3, 3, (4, 5), ((1, 2), (2, 0))),
        )
    ),
    *(
        pool("average_pool2d", 1, h, w, c, k, stride=1, padding=padding, count_include_pad=False)
        for h, w, c, k, padding in ((1, 1, 5, 3, 1), (3, 2, 17, (3, 7), ((2, 0), (6, 5))), (4, 31, 24, 3, "same"))
    ),
    *(
        resize(1, h, w, c, size=to, mode=mode, coordinates=coordinates)
        for (h, w), c, to in zip(
            ((1, 1), (1, 9), (13, 31), (13, 31), (8, 8)),
            (20, 3, 17, 16, 33),
            ((5, 3), (4, 27), (3, 5), (17, 37), (29, 31)),
            strict=True,
        )
        for mode, coordinates in (("bilinear", "half_pixel"), ("bilinear", "align_corners"), ("nearest", "half_pixel"))
    ),
    *(
        Case(
            "conv_transpose2d",
            {"x": (1, h, w, c), "weight": (*k, c, d), "bias": (d,)},
            {"stride": stride, "padding": padding},
        )
        for h, w, c, d, k, stride, padding in (
            (1, 1, 5, 33, (2, 2), 2, 0),
            (3, 19, 17, 40, (2, 2), 2, 0),
            (4, 5, 20, 3, (3, 3), 2, ((1, 0), (1, 0))),  # with what PyTorch calls output padding
            (3, 2, 9, 17, (5, 4), (3, 2), ((4, 1), (0, 3))),
            (2, 3, 3, 16, (1, 2), (4, 5), 0),  # pixels that nothing meets
            (6, 5, 4, 5, (3, 2), (2, 1), ((3, 4), (2, 2))),
            (2, 2, 3, 4, (7, 6), 1, 3),
        )
    ),
]
# Of operations that their lines in TORCH_CASES and PYTORCH, and these, bring into every test of kernels.
NEWER_TAILS = [
    *(Case("prelu", {"x": (n, 5, 3, c), "weight": (c,)}) for n, c in zip((1, 3) * 6, WIDTHS, strict=True)),
    *(Case("prelu", {"x": (3, h, w, 17), "weight": (h, w, 17)}) for h, w in SIZES),
    *(
        resize(n, h, w, c, size=(p, q), mode=mode, coordinates=coordinates)
        for n, c, (h, w), (p, q) in zip((1, 3) * 2, (1, 17, 8, 90), SIZES, SIZES[::-1], strict=True)
        for mode, coordinates in (("bilinear", "asymmetric"), ("bilinear", "align_corners"), ("nearest", "asymmetric"))
    ),
    Case("resize2d", {"x": (2, 3, 5, 9), "like": (2, 7, 4, 2)}),
    resize(0, 2, 2, 3, scale=2),
    *(
        Case("conv_transpose2d", {"x": (n, 3, 4, c), "weight": (*k, c, d)}, {"stride": s})
        for n, c, d in ((1, 17, 8), (3, 1, 16))
        for k, s in (((2, 2), 2), ((3, 3), 1), ((1, 2), 3), ((4, 3), (2, 1)))
    ),
    *(Case("global_max_pool", {"x": shape}) for shape in ((1, 1, 1, 1), (3, 15, 7, 65), (1, 33, 29, 90))),
    *(Case(operation, {"x": (n, 3), "y": (n, 1)}) for operation in ("broadcast_add", "multiply") for n in (0, 3)),
    *(Case("multiply", {"x": (3, h, w, 17), "y": (3, 17)}) for h, w in SIZES),
    Case("concat", {"xs": [(1, c) for c in WIDTHS]}),
    Case("concat", {"xs": [(3, 2, 1, 7)]}),
    Case("channel_select", {"xs": [(1, c) for c in WIDTHS]}, {"indices": tuple(range(sum(WIDTHS)))[::-1]}),
    Case("channel_select", {"xs": [(3, 29, 37, 48)]}, {"indices": (*range(32, 48), *range(9))}),  # whole blocks
    Case("channel_select", {"xs": [(2, 2, 1, 7)]}, {"indices": (6,)}),
    Case("channel_pad", {"x": (3, 17)}, {"after": 1}),
    *(Case("flatten", {"x": (3, h, w, c)}) for (h, w), c in zip(SIZES, (1, 17, 8, 3), strict=True)),
    *(Case(operation, {"x": (n,)}) for operation in ("leaky_relu", "elu", "tanh") for n in (0, 4095, 4097)),
    Case("softmax", {"x": (2, 5, 3, 17)}),
    *(Case("prelu", {"x": (n, 7), "weight": slopes}) for n, slopes in ((0, (7,)), (3, (1,)), (1, (7,)))),
]


def torch_result(case: Case, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """What PyTorch says in float64: independent of this project but for resolving a padding's name."""
    import torch
    from torch.nn import functional as F

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(array, np.float64))

    def image(array: np.ndarray) -> torch.Tensor:
        return tensor(array).permute(0, 3, 1, 2)

    def convolve(x: torch.Tensor, weight: np.ndarray, bias: np.ndarray | None, groups: int, dilation: Any = 1) -> Any:
        stride, dilation = pair(options.get("stride", 1)), pair(dilation)
        padding = options.get("padding", "symmetric" if "weights" in arrays else 0)
        (top, bottom), (left, right) = resolve_padding(padding, tuple(x.shape[2:]), weight.shape[:2], stride, dilation)
        return F.conv2d(
            F.pad(x, (left, right, top, bottom)),
            tensor(weight).permute(3, 2, 0, 1),
            None if bias is None else tensor(bias),
            stride=stride,
            dilation=dilation,
            groups=groups,
        )

    activations: dict[str, Callable] = {
        "none": lambda x: x,
        "relu": F.relu,
        "relu6": F.relu6,
        "hard_swish": F.hardswish,
        "swish": F.silu,
        "sigmoid": torch.sigmoid,
        "hard_sigmoid": F.hardsigmoid,
    }
    options, operation = case.options, case.operation
    dilation = options.get("dilation", 1)
    activate = activations[options.get("activation", "none")]
    bias = arrays.get("bias")
    if operation in activations:
        return activations[operation](tensor(arrays["x"])).numpy()
    if operation == "softmax":
        return torch.softmax(tensor(arrays["x"]), dim=-1).numpy()
    if operation == "add":
        return activate(tensor(arrays["x"]) + tensor(arrays["y"])).numpy()
    if operation == "linear":
        y = F.linear(tensor(arrays["x"]), tensor(arrays["weight"]).T, None if bias is None else tensor(bias))
        return activate(y).numpy()

    if operation in PYTORCH:
        images = {
            name: [image(each) for each in array]
            if isinstance(array, list)
            else image(array)
            if array.ndim == 4
            else tensor(array)
            for name, array in arrays.items()
        }
        y = PYTORCH[operation](F, **images, **options)
        return (y.permute(0, 2, 3, 1) if y.ndim == 4 else y).contiguous().numpy()
    x = image(arrays["x"])
    if operation == "global_average_pool":
        return F.adaptive_avg_pool2d(x, 1).flatten(1).numpy()
    if operation == "conv2d":
        y = convolve(x, arrays["weight"], bias, options.get("groups", 1), dilation)
    elif operation == "pointwise_conv2d":
        y = convolve(x, arrays["weight"][None, None], bias, options.get("groups", 1))
    elif operation == "squeeze_excite":
        mean = F.adaptive_avg_pool2d(x, 1)
        reduced = F.conv2d(mean, tensor(arrays["reduce_weight"]).T[..., None, None], tensor(arrays["reduce_bias"]))
        reduced = activations[options.get("activation", "relu")](reduced)
        scale = F.conv2d(reduced, tensor(arrays["expand_weight"]).T[..., None, None], tensor(arrays["expand_bias"]))
        return (x * activations[options.get("gate", "sigmoid")](scale)).permute(0, 2, 3, 1).contiguous().numpy()
    elif operation == "depthwise_conv2d":
        y = convolve(x, arrays["weight"][:, :, None], bias, x.shape[1], dilation)
    elif operation == "inverted_residual":
        first, second, third = (
            activations[options.get(f"{part}_activation", default)]
            for part, default in (("expand", "relu6"), ("depthwise", "relu6"), ("project", "none"))
        )
        stride, padding = pair(options.get("stride", 1)), options.get("padding", 0)
        kernel = arrays["weight"].shape[:2]
        (top, bottom), (left, right) = resolve_padding(padding, tuple(x.shape[2:]), kernel, stride)
        biases = [
            None if arrays[f"{name}bias"] is None else tensor(arrays[f"{name}bias"])
            for name in ("expand_", "", "project_")
        ]
        y = first(F.conv2d(x, tensor(arrays["expand_weight"]).T[..., None, None], biases[0]))
        y = F.pad(y, (left, right, top, bottom))
        middle = tensor(arrays["weight"]).permute(2, 0, 1)[:, None]
        y = second(F.conv2d(y, middle, biases[1], stride=stride, groups=y.shape[1]))
        y = third(F.conv2d(y, tensor(arrays["project_weight"]).T[..., None, None], biases[2]))
        y = y + x if options.get("residual") else y
        return y.permute(0, 2, 3, 1).contiguous().numpy()
    elif operation == "mixed_depthwise_conv2d":
        parts = torch.split(x, [w.shape[2] for w in arrays["weights"]], dim=1)
        dilations = dilation if isinstance(dilation, list) else [dilation] * len(parts)
        y = torch.cat(
            [
                convolve(part, w[:, :, None], None, part.shape[1], d)
                for part, w, d in zip(parts, arrays["weights"], dilations, strict=True)
            ],
            dim=1,
        )
        y = y if bias is None else y + tensor(bias)[:, None, None]
    elif operation == "batch_norm":
        mean, variance, weight = (tensor(arrays[name]) for name in ("mean", "variance", "weight"))
        y = F.batch_norm(x, mean, variance, weight, tensor(bias), eps=options["eps"])
    elif operation in ("max_pool2d", "average_pool2d"):
        function = F.max_pool2d if operation == "max_pool2d" else F.avg_pool2d
        y = function(x, **options)
    else:
        raise ValueError(f"no PyTorch counterpart of {operation}")
    y = activate(y)
    if "residual" in arrays:
        y = y + image(arrays["residual"])
    return y.permute(0, 2, 3, 1).contiguous().numpy()


def _torch_resize(F: Any, x: Any, size: Any = None, scale: Any = None, mode: str = "", coordinates: str = "") -> Any:
    names = {"bilinear": "bilinear", "nearest": "nearest-exact" if coordinates == "half_pixel" else "nearest"}
    corners = {"align_corners": coordinates == "align_corners"} if mode == "bilinear" else {}
    return F.interpolate(x, size, scale, names[mode], **corners)


def _torch_concat(F: Any, xs: list) -> Any:
    import torch

    return torch.cat(xs, 1)


def _torch_select(F: Any, xs: list, indices: Sequence[int]) -> Any:
    return _torch_concat(F, xs)[:, list(indices)]


# What PyTorch does, of images (N, C, H, W), given torch.nn.functional.
PYTORCH: dict[str, Callable] = {
    "resize2d": _torch_resize,
    "conv_transpose2d": lambda F, x, weight, bias=None, **options: F.conv_transpose2d(
        x, weight.permute(3, 1, 0, 2), bias, **options
    ),
    "global_max_pool": lambda F, x: F.adaptive_max_pool2d(x, 1).flatten(1),
    "broadcast_add": lambda F, x, y: x + (y if y.ndim == 4 else y[..., None, None]),
    "multiply": lambda F, x, y: x * (y if y.ndim == 4 else y[..., None, None]),
    "concat": _torch_concat,
    "channel_select": _torch_select,
    "channel_pad": lambda F, x, before, after: F.pad(x, (0, 0, 0, 0, before, after)),
    "flatten": lambda F, x: x.flatten(1),
    "leaky_relu": lambda F, x, slope: F.leaky_relu(x, slope),
    "elu": lambda F, x, alpha: F.elu(x, alpha),
    "tanh": lambda F, x: x.tanh(),
    "prelu": lambda F, x, weight: (
        F.prelu(x, weight) if weight.ndim == 1 else F.relu(x) - weight.permute(2, 0, 1) * F.relu(-x)
    ),
}
