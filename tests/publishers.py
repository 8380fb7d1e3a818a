"""Networks as publishers build and name them, in float64 NumPy: one pass makes seeded weights and computes with them.

Nothing here comes from npmobilenet: names, channels, strides, padding and activations are written down as the
publishers' own model files have them, so that a dialect is compared with its publisher and not with itself.
"""

import math
import zlib

import numpy as np

# Expansion, channels, repeats, stride of MobileNetV2's stages; channels and stride of MobileNetV1's layers.
V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
CIFAR_STRIDES = (1, 1, 2, 2, 1, 2, 1)

# Kernel, expanded channels, channels, squeeze, hard swish, stride of MobileNetV3's blocks.
SMALL = (
    (3, 16, 16, 1, 0, 2),
    (3, 72, 24, 0, 0, 2),
    (3, 88, 24, 0, 0, 1),
    (5, 96, 40, 1, 1, 2),
    *[(5, 240, 40, 1, 1, 1)] * 2,
    (5, 120, 48, 1, 1, 1),
    (5, 144, 48, 1, 1, 1),
    (5, 288, 96, 1, 1, 2),
    *[(5, 576, 96, 1, 1, 1)] * 2,
)
LARGE = (
    (3, 16, 16, 0, 0, 1),
    (3, 64, 24, 0, 0, 2),
    (3, 72, 24, 0, 0, 1),
    (5, 72, 40, 1, 0, 2),
    *[(5, 120, 40, 1, 0, 1)] * 2,
    (3, 240, 80, 0, 1, 2),
    (3, 200, 80, 0, 1, 1),
    *[(3, 184, 80, 0, 1, 1)] * 2,
    (3, 480, 112, 1, 1, 1),
    (3, 672, 112, 1, 1, 1),
    (5, 672, 160, 1, 1, 2),
    *[(5, 960, 160, 1, 1, 1)] * 2,
)
FIRST_LARGE = (*LARGE[:12], (5, 672, 160, 1, 1, 1), (5, 672, 160, 1, 1, 2), (5, 960, 160, 1, 1, 1))
FIRST_SMALL = (*SMALL[:3], (5, 96, 40, 1, 1, 1), *SMALL[4:])


def relu(x):
    return np.maximum(x, 0)


def relu6(x):
    return np.clip(x, 0, 6)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hard_sigmoid(x):
    return np.clip(x + 3, 0, 6) / 6


def hard_swish(x):
    return x * hard_sigmoid(x)


def nearest(value, by=8):
    """A multiple of 8, never more than 10 % down."""
    rounded = max(by, int(value + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * value else rounded


def up(value):
    return math.ceil(value / 8) * 8


def down_from_8(value):
    return max(int(value), 8)


class Net:
    """An image on its way through a network, which makes the weights that it meets.

    ``folded``: convolutions have biases and no batch norms follow. ``values``: what each of its modules computed.
    """

    def __init__(self, x, seed, act=relu6, same=False, eps=1e-5, bias=False, folded=False):
        self.x, self.tensors, self.act, self.same = x.astype(np.float64), {}, act, same
        self.values = {}
        self.eps, self.bias, self.folded = eps, bias, folded
        self.random = np.random.default_rng(zlib.crc32(seed.encode()))

    def _normal(self, key, shape, scale):
        self.tensors[key] = (self.random.standard_normal(shape) * scale).astype(np.float32)
        return self.tensors[key].astype(np.float64)

    def layer(self, conv, norm, out, k=1, stride=1, depthwise=False, act=True, pad=None, eps=None):
        """``act`` True: the network's."""
        inner = 1 if depthwise else len(self.x)
        weight = self._normal(f"{conv}.weight", (out, inner, k, k), math.sqrt((2 if act else 1) / (inner * k * k)))
        x = self._convolve(weight, stride, depthwise, k // 2 if pad is None else pad)
        if self.bias or self.folded:
            x = x + self._normal(f"{conv}.bias", out, 0.2)[:, None, None]
        self.values[conv] = x
        if not self.folded:
            scale = self._normal(f"{norm}.weight", out, 0.1) + 1
            self.tensors[f"{norm}.weight"] = scale.astype(np.float32)
            scale = self.tensors[f"{norm}.weight"].astype(np.float64)
            bias, mean = self._normal(f"{norm}.bias", out, 0.3), self._normal(f"{norm}.running_mean", out, 0.3)
            variance = self.random.uniform(0.01 if eps else 0.5, 1.5, out).astype(np.float32)
            self.tensors[f"{norm}.running_var"] = variance
            self.tensors[f"{norm}.num_batches_tracked"] = np.array(7, np.int64)
            root = np.sqrt(variance.astype(np.float64) + (eps or self.eps))
            x = (x - mean[:, None, None]) / root[:, None, None] * scale[:, None, None] + bias[:, None, None]
            self.values[norm] = x
        self.x = x if not act else self.act(x) if act is True else act(x)

    def _convolve(self, weight, stride, depthwise, pad):
        k = weight.shape[-1]
        pads = []
        for size in self.x.shape[1:]:
            total = max((-(-size // stride) - 1) * stride + k - size, 0) if self.same else 2 * pad
            pads.append((total // 2, total - total // 2))
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(self.x, ((0, 0), *pads)), (k, k), axis=(1, 2))
        windows = windows[:, ::stride, ::stride]
        if depthwise:
            return np.einsum("chwij,cij->chw", windows, weight[:, 0])
        return np.tensordot(weight, windows, ((1, 2, 3), (0, 3, 4)))

    def squeeze(self, first, second, reduced, gate=hard_sigmoid, bias=True):
        mean = self.x.mean((1, 2))
        inner = relu(self._dense(mean, first, reduced, bias))
        self.x = self.x * gate(self._dense(inner, second, len(self.x), bias))[:, None, None]

    def linear(self, key, out, act=None, bias=True, convolution=False):
        self.x = self._dense(self.x, key, out, bias, convolution)
        self.x = act(self.x) if act else self.x

    def _dense(self, x, key, out, bias=True, convolution=False):
        shape = (out, len(x), 1, 1) if convolution else (out, len(x))
        y = self._normal(f"{key}.weight", shape, math.sqrt(2 / len(x))).reshape(out, -1) @ x
        self.values[key] = y + self._normal(f"{key}.bias", out, 0.3) if bias else y
        return self.values[key]

    def pool(self):
        self.x = self.x.mean((1, 2))


# --- MobileNetV2 -------------------------------------------------------------------------------------------


def v2(
    net, stem, block, head, channels, *, first=None, stem_channels=None, last=1280, strides=None, stem_window=(3, 2),
    stem_pad=None, expand_first=False, ends=True, shortcut=None, linear_eps=None,
):  # fmt: skip
    """``block(n, stage, place, part, index)`` names the convolution and norm of a part (0 to 2) of block n.

    ``shortcut(n)`` names a convolution beside a block, ``shortcut.every`` says whether all of stride 1 have one.
    """
    net.layer(*stem, stem_channels or channels(32), *stem_window, act=ends, pad=stem_pad)
    n = 0
    for stage, (t, c, repeats, stride) in enumerate(V2, 1):
        out = first if first and stage == 1 else channels(c)
        for place in range(repeats):
            n += 1
            step = (strides[stage - 1] if strides else stride) if place == 0 else 1
            before, hidden = net.x, len(net.x) * t
            parts = (0, 1, 2) if t > 1 or expand_first else (1, 2)
            for index, part in enumerate(parts):
                names = block(n, stage, place, part, index)
                if part == 0:
                    net.layer(*names, hidden)
                elif part == 1:
                    net.layer(*names, hidden, 3, step, True)
                else:
                    net.layer(*names, out, act=None, eps=linear_eps)
            if step == 1 and shortcut and (shortcut.every or len(before) != out):
                inside, net.x = net.x, before
                net.layer(*shortcut.names(n), out, act=relu if shortcut.every else None)
                net.x = net.x + inside
            elif step == 1 and len(before) == out:
                net.x = net.x + before
    net.layer(*head, last, act=ends)
    net.pool()


class Shortcut:
    def __init__(self, every):
        self.every = every

    def names(self, n):
        return f"layers.{n - 1}.shortcut.0", f"layers.{n - 1}.shortcut.1"


def dotted(inside):
    return f"{inside}.0", f"{inside}.1"


def torchvision_v2(net, width, classes=1000, classifier="classifier.1", cifar=False):
    def block(n, stage, place, part, index):
        inside = f"features.{n}.conv"
        return (f"{inside}.{index}", f"{inside}.{index + 1}") if part == 2 else dotted(f"{inside}.{index}")

    layout = {"strides": CIFAR_STRIDES, "stem_window": (3, 1)} if cifar else {}
    last = nearest(1280 * max(width, 1))
    v2(net, dotted("features.0"), block, dotted("features.18"), lambda c: nearest(c * width), last=last, **layout)
    if classifier:
        net.linear(classifier, classes)


def flat_v2(net, channels, classes=1000, head="features.18", classifier="classifier", **options):
    def block(n, stage, place, part, index):
        return f"features.{n}.conv.{3 * index}", f"features.{n}.conv.{3 * index + 1}"

    v2(net, dotted("features.0"), block, dotted(head), channels, **options)
    net.linear(classifier, classes)


def transformers_v2(net, width, classes=1001, root="mobilenet_v2."):
    def pair(name):
        return f"{root}{name}.convolution", f"{root}{name}.normalization"

    def block(n, stage, place, part, index):
        name = ("expand_1x1", "conv_3x3", "reduce_1x1")[part]
        return pair(f"conv_stem.{name}" if n == 1 else f"layer.{n - 2}.{name}")

    last = nearest(1280 * max(width, 1))
    channels = lambda c: nearest(c * width)  # noqa: E731
    v2(net, pair("conv_stem.first_conv"), block, pair("conv_1x1"), channels, last=last)
    net.linear("classifier", classes)


def ruotianluo_v2(net, width, classes=1001):
    def block(n, stage, place, part, index):
        return dotted(f"features.{n}.conv.{part}")

    stem, head = dotted("features.0.conv"), dotted("features.18.conv")
    v2(net, stem, block, head, lambda c: nearest(c * width), last=nearest(1280 * max(width, 1)))
    net.linear("classifier", classes, convolution=True)


def ruotianluo_v2_first(net, width, classes=1001):
    def block(n, stage, place, part, index):
        return dotted(f"features.layer_{n + 1}.module.{('expand', 'depthwise', 'project')[part]}")

    stem, head = dotted("features.layer_1.conv"), dotted("features.layer_19.conv")
    last = nearest(1280 * max(width, 1))
    v2(net, stem, block, head, lambda c: nearest(c * width), last=last, linear_eps=1e-5)
    net.linear("classifier", classes, convolution=True)


def mmpretrain_v2(net, width, classes=1000):
    def pair(name):
        return f"backbone.{name}.conv", f"backbone.{name}.bn"

    def block(n, stage, place, part, index):
        return pair(f"layer{stage}.{place}.conv.{index}")

    v2(net, pair("conv1"), block, pair("conv2"), lambda c: nearest(c * width), last=int(1280 * max(width, 1)))
    net.linear("head.fc", classes)


def pytorchcv_v2(net, width, classes=1000, expand_first=True):
    units = [(1, 1), *((2, u) for u in (1, 2)), *((3, u) for u in (1, 2, 3)), *((4, u) for u in range(1, 8))]
    units += [(5, u) for u in range(1, 5)]

    def pair(name):
        return f"features.{name}.conv", f"features.{name}.bn"

    def block(n, stage, place, part, index):
        return pair("stage{}.unit{}.conv{}".format(*units[n - 1], part + 1))

    stem, head, last = pair("init_block"), pair("final_block"), int(1280 * max(width, 1))
    v2(net, stem, block, head, lambda c: int(c * width), last=last, expand_first=expand_first)
    net.linear("output", classes, bias=False, convolution=True)


def kuangliu_v2(net, classes=10, every=False):
    def block(n, stage, place, part, index):
        return f"layers.{n - 1}.conv{part + 1}", f"layers.{n - 1}.bn{part + 1}"

    layout = {"strides": CIFAR_STRIDES, "stem_window": (3, 1), "expand_first": True, "shortcut": Shortcut(every)}
    ends = relu if every else True
    v2(net, ("conv1", "bn1"), block, ("conv2", "bn2"), lambda c: c, ends=ends, **layout)
    net.linear("linear", classes)


def weiaicunzai_v2(net, classes=100):
    def block(n, stage, place, part, index):
        inside = f"stage{stage}.residual" if stage in (1, 7) else f"stage{stage}.{place}.residual"
        return f"{inside}.{3 * part}", f"{inside}.{3 * part + 1}"

    layout = {"strides": (1, 2, 2, 2, 1, 1, 1), "stem_window": (1, 1), "stem_pad": 1, "expand_first": True}
    v2(net, dotted("pre"), block, dotted("conv1"), lambda c: c, **layout)
    net.linear("conv2", classes, convolution=True)


# --- MobileNetV1 -------------------------------------------------------------------------------------------


def v1(net, stem, names, channels):
    """``names(n)`` gives the names of both convolutions and norms of layer n, from 1."""
    net.layer(*stem, channels(32), 3, 2)
    for n, (c, stride) in enumerate(V1, 1):
        depthwise, pointwise = names(n)
        net.layer(*depthwise, len(net.x), 3, stride, True)
        net.layer(*pointwise, channels(c))
    net.pool()


def marvis_v1(net, root="model.", classes=1000):
    def names(n):
        return dotted(f"{root}{n}"), (f"{root}{n}.3", f"{root}{n}.4")

    v1(net, dotted(f"{root}0"), names, lambda c: c)
    net.linear("fc", classes)


def transformers_v1(net, width, classes=1001, root="mobilenet_v1."):
    def pair(name):
        return f"{root}{name}.convolution", f"{root}{name}.normalization"

    def names(n):
        return pair(f"layer.{2 * n - 2}"), pair(f"layer.{2 * n - 1}")

    v1(net, pair("conv_stem"), names, lambda c: down_from_8(c * width))
    net.linear("classifier", classes)


def ruotianluo_v1(net, width, classes=1001, first=False):
    def names(n):
        if first:
            return dotted(f"features.Conv2d_{n}.depthwise"), dotted(f"features.Conv2d_{n}.pointwise")
        return dotted(f"features.{n}.conv.0"), dotted(f"features.{n}.conv.1")

    stem = "features.Conv2d_0.conv" if first else "features.0.conv"
    v1(net, dotted(stem), names, lambda c: down_from_8(c * width))
    net.linear("classifier", classes, convolution=True)


def pytorchcv_v1(net, width, classes=1000):
    units = [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), *((4, u) for u in range(1, 7)), (5, 1), (5, 2)]

    def pair(name):
        return f"features.{name}.conv", f"features.{name}.bn"

    def names(n):
        unit = "stage{}.unit{}".format(*units[n - 1])
        return pair(f"{unit}.dw_conv"), pair(f"{unit}.pw_conv")

    v1(net, pair("init_block"), names, lambda c: int(c * width))
    net.linear("output", classes)


# --- MobileNetV3 -------------------------------------------------------------------------------------------


def d_li14_v3(net, table, hidden, classes=1000, width=1.0, linears=("classifier.0", "classifier.3")):
    """With an expansion the squeeze stands before the activation."""
    net.layer(*dotted("features.0"), nearest(16 * width), 3, 2, act=hard_swish)
    factors = {16: 1, 64: 4, 72: 3, 120: 3, 240: 6, 200: 2.5, 184: 2.3, 480: 6, 672: 6, 960: 6}
    factors |= {88: 3.67, 96: 4, 144: 3, 288: 6, 576: 6}
    for n, (k, expanded, c, squeezed, hard, stride) in enumerate(table, 1):
        inside, before, act = f"features.{n}.conv", net.x, hard_swish if hard else relu
        factor = 4.5 if table is SMALL and n == 2 else factors[expanded]
        wide, out = nearest(len(net.x) * factor), nearest(c * width)
        reduced = nearest(wide // 4)
        if wide == len(net.x):
            net.layer(f"{inside}.0", f"{inside}.1", wide, k, stride, True, act)
            if squeezed:
                net.squeeze(f"{inside}.3.fc.0", f"{inside}.3.fc.2", reduced)
            net.layer(f"{inside}.4", f"{inside}.5", out, act=None)
        else:
            net.layer(f"{inside}.0", f"{inside}.1", wide, act=act)
            net.layer(f"{inside}.3", f"{inside}.4", wide, k, stride, True, None)
            if squeezed:
                net.squeeze(f"{inside}.5.fc.0", f"{inside}.5.fc.2", reduced)
            net.x = act(net.x)
            net.layer(f"{inside}.7", f"{inside}.8", out, act=None)
        net.x = net.x + before if stride == 1 and len(before) == out else net.x
    net.layer(*dotted("conv"), wide, act=hard_swish)
    net.pool()
    net.linear(linears[0], hidden, hard_swish)
    net.linear(linears[1], classes)


def d_li14_v3_first(net, table, classes=1000):
    """The squeeze after the activation, hard swish after the pooling."""
    net.layer(*dotted("features.0"), 16, 3, 2, act=hard_swish)
    for n, (k, wide, out, squeezed, hard, stride) in enumerate(table, 1):
        inside, before, act, at = f"features.{n}.conv", net.x, hard_swish if hard else relu, 0
        if wide != len(net.x):
            net.layer(f"{inside}.0", f"{inside}.1", wide, act=act)
            at = 3
        net.layer(f"{inside}.{at}", f"{inside}.{at + 1}", wide, k, stride, True, act)
        if squeezed:
            net.squeeze(f"{inside}.{at + 3}.fc.0", f"{inside}.{at + 3}.fc.2", wide // 4)
        net.layer(f"{inside}.{at + 4}", f"{inside}.{at + 5}", out, act=None)
        net.x = net.x + before if stride == 1 and len(before) == out else net.x
    net.layer(*dotted("conv"), wide, act=hard_swish)
    net.pool()
    net.x = hard_swish(net.x)
    net.linear("classifier.0", 1280, hard_swish)
    net.linear("classifier.2", classes)


def kuan_wang_v3(net, table, classes=1000, width=1.0):
    """Every block expands; squeezes without biases stand before the activation."""
    net.layer(*dotted("features.0"), 16, 3, 2, act=hard_swish)
    for n, (k, expanded, c, squeezed, hard, stride) in enumerate(table, 1):
        inside, before, act = f"features.{n}.conv", net.x, hard_swish if hard else relu
        wide, out = up(expanded * width), up(c * width)
        net.layer(f"{inside}.0", f"{inside}.1", wide, act=act)
        net.layer(f"{inside}.3", f"{inside}.4", wide, k, stride, True, None)
        if squeezed:
            net.squeeze(f"{inside}.5.fc.0", f"{inside}.5.fc.2", wide // 4, bias=False)
        net.x = act(net.x)
        net.layer(f"{inside}.7", f"{inside}.8", out, act=None)
        net.x = net.x + before if stride == 1 and len(before) == out else net.x
    at = len(table) + 1
    net.layer(*dotted(f"features.{at}"), up((960 if len(table) == 15 else 576) * width), act=hard_swish)
    net.pool()
    net.linear(f"features.{at + 2}", up(1280 * max(width, 1)), hard_swish, convolution=True)
    net.linear("classifier.1", classes)


def kuan_wang_v3_first(net, classes=1000):
    """Squeezes after the projection, with a plain sigmoid; hard swish after the pooling."""
    net.layer(*dotted("features.0"), 16, 3, 2, act=hard_swish)
    for n, (k, wide, out, squeezed, hard, stride) in enumerate(FIRST_LARGE, 1):
        inside, before, act = f"features.{n}.conv", net.x, hard_swish if hard else relu
        net.layer(f"{inside}.0", f"{inside}.1", wide, act=act)
        net.layer(f"{inside}.3", f"{inside}.4", wide, k, stride, True, act)
        net.layer(f"{inside}.6", f"{inside}.7", out, act=None)
        if squeezed:
            net.squeeze(f"features.{n}.se.fc.0", f"features.{n}.se.fc.2", out // 4, sigmoid, bias=False)
        net.x = net.x + before if stride == 1 and len(before) == out else net.x
    net.layer(*dotted("features.16"), 960, act=hard_swish)
    net.pool()
    net.x = hard_swish(net.x)
    net.linear("features.19", 1280, hard_swish, convolution=True)
    net.linear("features.21", classes, convolution=True)


def torchvision_v3(net, table, hidden, classes=1000, width=1.0):
    """A width multiplier scales the table's expanded channels, and the last layers too."""
    net.layer(*dotted("features.0"), nearest(16 * width), 3, 2, act=hard_swish)
    for n, (k, expanded, c, squeezed, hard, stride) in enumerate(table, 1):
        inside, before, act, at = f"features.{n}.block", net.x, hard_swish if hard else relu, 0
        wide, out = nearest(expanded * width), nearest(c * width)
        if wide != len(net.x):
            net.layer(*dotted(f"{inside}.0"), wide, act=act)
            at = 1
        net.layer(*dotted(f"{inside}.{at}"), wide, k, stride, True, act)
        if squeezed:
            at += 1
            net.squeeze(f"{inside}.{at}.fc1", f"{inside}.{at}.fc2", nearest(wide // 4))
        net.layer(*dotted(f"{inside}.{at + 1}"), out, act=None)
        net.x = net.x + before if stride == 1 and len(before) == out else net.x
    net.layer(*dotted(f"features.{len(table) + 1}"), 6 * len(net.x), act=hard_swish)
    net.pool()
    net.linear("classifier.0", nearest(hidden * width), hard_swish)
    net.linear("classifier.3", classes)
