"""Remake reference/architectures.npz and ssdlite_v3.json: networks under seeded weights, computed by PyTorch.

    python -m tests.data.make_architectures           # all
    python -m tests.data.make_architectures deeplab   # those whose names begin so; the others stay as they are

Made with torch 2.13.0 (CPU), torchvision 0.28.0, timm 1.0.31 and NumPy 2.4.6, in float64. torchvision's and timm's
networks are their own; those of publishers without PyTorch (TensorFlow's SSD and DeepLab, a Keras file) and of single
repositories are written down here in PyTorch's functions, under the names that their files have. Of each output a few
values are stored, at places that follow from its shape, and the largest.
"""

import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from npmobilenet.architectures import random_weights
from npmobilenet.checkpoints.fit import naming

VALUES = 48  # of each output
PHOTOGRAPH, CLASSES, FOUND = "astronaut.png", 91, 40


@dataclass(frozen=True)
class Case:
    """A network: how it is named, its classes, the image, and what a file does not tell."""

    architecture: str
    source: str
    classes: int
    size: tuple[int, int]
    seed: int
    output_stride: int | None = None
    file: str = "weights.npz"

    def weights(self):
        """Seeded weights under the publisher's names."""
        names = naming(self.architecture, self.source)
        graph = names.architecture.graph(1.0, self.classes)
        keys = names.keys(graph)
        return {keys[name]: value for name, value in random_weights(graph, self.seed).items()}

    def image(self):
        channels = naming(self.architecture, self.source).architecture.in_channels
        return np.random.default_rng(self.seed).standard_normal((1, channels, *self.size)).astype(np.float32)


CASES = {
    "ssdlite_v3": Case("ssdlite_mobilenet_v3_large", "torchvision", 7, (96, 129), 1),
    "ssd_v1": Case("ssd_mobilenet_v1", "tensorflow", 5, (95, 128), 2),
    "deeplab_v2": Case("deeplabv3_mobilenet_v2", "tensorflow", 3, (65, 49), 3),
    "deeplab_v2_aspp": Case("deeplabv3_mobilenet_v2_aspp", "tensorflow", 3, (49, 65), 4),
    "deeplab_v2_stride8": Case("deeplabv3_mobilenet_v2_aspp", "tensorflow", 3, (49, 65), 5, output_stride=8),
    "deeplab_v2_transformers": Case("deeplabv3_mobilenet_v2", "transformers", 3, (33, 49), 16, output_stride=8),
    "expression": Case("expression_mobilenet_v2", "keras", 7, (48, 48), 6),
    "stages": Case("mobilenet_v2_stages", "kuangliu", 10, (32, 32), 7),
    "shortcuts": Case("mobilenet_v2", "seominseok", 10, (32, 32), 8),
    "vgg19": Case("vgg19", "torchvision", 1, (33, 48), 9),
    "stride16_v2": Case("mobilenet_v2", "timm", 10, (65, 96), 10, output_stride=16),
    "stride8_v2": Case("mobilenet_v2", "timm", 10, (64, 64), 11, output_stride=8),
    "stride8_mnasnet": Case("mnasnet_b1", "timm", 10, (64, 65), 12, output_stride=8),
    "stride16_mixnet": Case("mixnet_s", "timm", 10, (64, 64), 13, output_stride=16),
    "stride8_efficientnet": Case("efficientnet_b0", "timm", 10, (64, 64), 14, output_stride=8),
    "noisy_student": Case("efficientnet_b0", "timm", 10, (65, 64), 15, file="tf_efficientnet_b0_ns-c0e6a31c.npz"),
}


def chosen(y):
    """The values of an output that are stored, then the largest magnitude."""
    places = np.random.default_rng(y.size).choice(y.size, min(VALUES, y.size), replace=False)
    return np.append(y.reshape(-1)[places], np.abs(y).max())


@cache
def libraries():
    """torchvision and timm, with the two operators that a CPU-only import lacks."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for operator in (
        "nms(Tensor dets, Tensor scores, float t) -> Tensor",
        "qnms(Tensor d, Tensor s, float t) -> Tensor",
    ):
        library.define(operator)
    import timm
    import torchvision

    torchvision.ops.boxes.nms = greedy

    return library, torchvision, timm


def greedy(boxes, scores, most_overlap):
    """Non-maximum suppression."""
    import torch

    kept, areas = [], (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = scores.argsort(descending=True, stable=True)
    while len(order):
        first, order = order[0], order[1:]
        kept.append(first)
        low = torch.maximum(boxes[order, :2], boxes[first, :2])
        shared = (torch.minimum(boxes[order, 2:], boxes[first, 2:]) - low).clamp(min=0).prod(1)
        order = order[~(shared / (areas[order] + areas[first] - shared) > most_overlap)]
    return torch.stack(kept)


def loaded(module, weights):
    """A module with these weights, in float64."""
    import torch

    state = module.state_dict()
    for key, value in weights.items():
        state[key] = torch.tensor(value).reshape(state[key].shape)
    module.load_state_dict(state)
    return module.eval().double()


class Functions:
    """PyTorch's functions over weights by name."""

    def __init__(self, weights, same=False, eps=1e-5, norm="{}"):
        import torch

        self.torch, self.f = torch, torch.nn.functional
        self.weights = {name: torch.tensor(value, dtype=torch.float64) for name, value in weights.items()}
        self.same, self.eps, self.norm = same, eps, norm

    def conv(self, x, name, stride=1, dilation=1, norm=None, act="relu6", eps=None):
        """A convolution, depthwise if its weight says so, with what follows it."""
        weight = self.weights[f"{name}.weight"]
        window = (weight.shape[-1] - 1) * dilation
        if self.same:
            pads = [max(window + 1 - (size % stride or stride), 0) for size in x.shape[2:]]
            x = self.f.pad(x, (pads[1] // 2, pads[1] - pads[1] // 2, pads[0] // 2, pads[0] - pads[0] // 2))
        pad = 0 if self.same else window // 2
        groups = x.shape[1] // weight.shape[1]
        x = self.f.conv2d(x, weight, self.weights.get(f"{name}.bias"), stride, pad, dilation, groups)
        if norm:
            about = (self.weights[f"{norm}.{each}"] for each in ("running_mean", "running_var", "weight", "bias"))
            x = self.f.batch_norm(x, *about, eps=eps or self.eps)
        if act in self.weights:
            return x.clamp(min=0) + self.weights[act] * x.clamp(max=0)
        return getattr(self.f, act)(x) if act else x

    def linear(self, x, name):
        return self.f.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])


SLIM_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
SLIM_V1 = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)  # strides


def ssd_v1(case, weights, x):
    net = Functions(weights, same=True, eps=1e-3)
    scope = "FeatureExtractor.MobilenetV1"

    def layer(x, name, stride=1):
        return net.conv(x, f"{scope}.{name}", stride, norm=f"{scope}.{name}.BatchNorm")

    x, maps = layer(x, "Conv2d_0", 2), []
    for number, stride in enumerate(SLIM_V1, 1):
        x = layer(layer(x, f"Conv2d_{number}_depthwise", stride), f"Conv2d_{number}_pointwise")
        maps += [x] if number in (11, 13) else []
    for number, channels in zip((2, 3, 4, 5), (512, 256, 256, 128), strict=True):
        x = layer(x, f"Conv2d_13_pointwise_1_Conv2d_{number}_1x1_{channels // 2}")
        x = layer(x, f"Conv2d_13_pointwise_2_Conv2d_{number}_3x3_s2_{channels}", 2)
        maps.append(x)
    found = {}
    for what, name, values in (("boxes", "BoxEncodingPredictor", 4), ("scores", "ClassPredictor", case.classes)):
        levels = [net.conv(y, f"BoxPredictor_{at}.{name}", act=None) for at, y in enumerate(maps)]
        found[what] = net.torch.cat([y.permute(0, 2, 3, 1).reshape(1, -1, values) for y in levels], 1)
    return found


def deeplab(case, weights, x):
    net = Functions(weights, same=True, eps=1e-3)
    size, stride = x.shape[2:], case.output_stride or 16

    def layer(x, name, *window, act="relu6"):
        return net.conv(x, name, *window, norm=f"{name}.BatchNorm", act=act)

    x, number, reached, rate = layer(x, "MobilenetV2.Conv", 2), 0, 2, 1
    for expansion, channels, repeats, first in SLIM_V2:
        for repeat in range(repeats):
            name = "MobilenetV2.expanded_conv" + (f"_{number}" if number else "")
            own, number, before, following = first if repeat == 0 else 1, number + 1, x, rate
            if reached * own > stride:
                own, following = 1, rate * own
            reached *= own
            y = layer(x, f"{name}.expand") if expansion > 1 else x
            y = layer(y, f"{name}.depthwise", own, rate)
            x = layer(y, f"{name}.project", act=None)
            x = x + before if own == 1 and before.shape == x.shape else x
            assert x.shape[1] == channels
            rate = following

    def head(x, name, dilation=1):
        return net.conv(x, name, 1, dilation, norm=f"{name}.BatchNorm", act="relu", eps=1e-5)

    pooled = head(x.mean((2, 3), keepdim=True), "image_pooling").expand(-1, -1, *x.shape[2:])
    branches = [pooled, head(x, "aspp0")]
    if "aspp1.weight" in weights:
        branches += [head(x, f"aspp{at}", at * 6 * 16 // stride) for at in (1, 2, 3)]
    x = head(net.torch.cat(branches, 1), "concat_projection")
    x = net.conv(x, "logits.semantic", act=None)
    return {"logits": net.f.interpolate(x, size, mode="bilinear", align_corners=True)}


def transformers_to_slim(weights):
    """What Hugging Face calls TensorFlow's layers."""
    heads = {"aspp0": "conv_aspp", "image_pooling": "conv_pool", "concat_projection": "conv_projection"}
    names = {f"segmentation_head.{theirs}": ours for ours, theirs in heads.items()}
    backbone, scope = "mobilenet_v2", "MobilenetV2.expanded_conv"
    names |= {f"{backbone}.conv_stem.first_conv": "MobilenetV2.Conv"}
    names |= {f"{backbone}.conv_stem.conv_3x3": f"{scope}.depthwise"}
    names |= {f"{backbone}.conv_stem.reduce_1x1": f"{scope}.project"}
    for number in range(16):
        for theirs, ours in (("expand_1x1", "expand"), ("conv_3x3", "depthwise"), ("reduce_1x1", "project")):
            names[f"{backbone}.layer.{number}.{theirs}"] = f"{scope}_{number + 1}.{ours}"
    found = {"logits.semantic.weight": "weight", "logits.semantic.bias": "bias"}
    found = {ours: weights[f"segmentation_head.classifier.convolution.{theirs}"] for ours, theirs in found.items()}
    for key, values in weights.items():
        module, _, parameter = key.rpartition(".")
        layer, _, what = module.rpartition(".")
        if layer in names:
            found[f"{names[layer]}{'.BatchNorm' if what == 'normalization' else ''}.{parameter}"] = values
    return found


def deeplab_transformers(case, weights, x):
    return deeplab(case, transformers_to_slim(weights), x)


def expression(case, weights, x):
    net = Functions(weights, same=True, eps=1e-3)
    made = dict.fromkeys(("conv2d", "depthwise_conv2d", "batch_normalization", "p_re_lu"), 0)

    def layer(x, kind, stride=1, act=True):
        for each in (kind, "batch_normalization", "p_re_lu")[: 3 if act else 2]:
            made[each] += 1
        slopes = f"p_re_lu_{made['p_re_lu']}.weight" if act else None
        return net.conv(
            x, f"{kind}_{made[kind]}", stride, norm=f"batch_normalization_{made['batch_normalization']}", act=slopes
        )

    def bottleneck(x, stride=1):
        x = layer(layer(x, "conv2d"), "depthwise_conv2d", stride)
        return layer(x, "conv2d", act=False)

    x = net.torch.cat([bottleneck(x, 2) for _ in range(3)], 1)
    for repeats, stride in ((1, 1), (3, 2), (4, 2), (3, 2), (1, 1)):
        x = bottleneck(x, stride)
        for _ in range(repeats - 1):
            x = x + bottleneck(x)
    x = net.f.avg_pool2d(layer(x, "conv2d"), 3)
    return {"logits": net.linear(x[:, :, 0, 0], "conv2d_32")}


def cifar(case, weights, x):
    net = Functions(weights)
    every = case.source == "seominseok"
    act = "relu6" if every else "relu"
    x, number, found = net.conv(x, "conv1", norm="bn1", act="relu"), 0, {}
    for stage, (_, channels, repeats, stride) in enumerate(SLIM_V2, 1):
        for repeat in range(repeats):
            own, name = (1 if stage == 2 or repeat else stride), f"layers.{number}"
            y, number = x, number + 1
            for at, step, function in ((1, 1, act), (2, own, act), (3, 1, None)):
                y = net.conv(y, f"{name}.conv{at}", step, norm=f"{name}.bn{at}", act=function)
            if own == 1:
                around = every or x.shape[1] != channels
                convolved = (f"{name}.shortcut.0", 1, 1, f"{name}.shortcut.1", "relu" if every else None)
                y = y + (net.conv(x, *convolved) if around else x)
            x = y
        found[f"stage{stage}"] = x
    x = net.conv(x, "conv2", norm="bn2", act="relu").mean((2, 3))
    logits = net.linear(x, "linear")
    return {"logits": logits} if every else {**found, "logits": logits}


def vgg(case, weights, x):
    _, torchvision, _ = libraries()
    features = loaded(torchvision.models.vgg19(weights=None).features, {k[9:]: v for k, v in weights.items()})
    found, names = {}, {1: "relu1_1", 6: "relu2_1", 11: "relu3_1", 20: "relu4_1", 22: "relu4_2", 29: "relu5_1"}
    for number, layer in enumerate(features):
        x = layer(x)
        if number in names:
            found[names[number]] = x.clone()
    return found


def ssdlite(case, weights, x):
    _, torchvision, _ = libraries()
    build = torchvision.models.detection.ssdlite320_mobilenet_v3_large
    module = loaded(build(weights=None, weights_backbone=None, num_classes=case.classes), weights)
    found = module.head(list(module.backbone(x).values()))
    return {"boxes": found["bbox_regression"], "scores": found["cls_logits"]}


TIMM = {
    "mobilenet_v2": "mobilenetv2_100",
    "mnasnet_b1": "mnasnet_100",
}


def of_timm(case, weights, x):
    _, _, timm = libraries()
    name = (
        "tf_efficientnet_b0.ns_jft_in1k"
        if case.file.startswith("tf_")
        else TIMM.get(case.architecture, case.architecture)
    )
    options = {"output_stride": case.output_stride} if case.output_stride else {}
    return {"logits": loaded(timm.create_model(name, num_classes=case.classes, **options), weights)(x)}


COMPUTED = {
    "ssdlite_v3": ssdlite,
    "ssd_v1": ssd_v1,
    "deeplab_v2": deeplab,
    "deeplab_v2_aspp": deeplab,
    "deeplab_v2_stride8": deeplab,
    "deeplab_v2_transformers": deeplab_transformers,
    "expression": expression,
    "stages": cifar,
    "shortcuts": cifar,
    "vgg19": vgg,
}


def detections():
    """What torchvision's own detector finds in a photograph, with seeded weights."""
    import torch
    from PIL import Image

    _, torchvision, _ = libraries()
    build = torchvision.models.detection.ssdlite320_mobilenet_v3_large
    case = Case("ssdlite_mobilenet_v3_large", "torchvision", CLASSES, (320, 320), 20)
    module = loaded(build(weights=None, weights_backbone=None, num_classes=CLASSES), case.weights())
    picture = np.asarray(Image.open(Path(__file__).parent / "images" / PHOTOGRAPH).convert("RGB")) / 255
    with torch.no_grad():
        (found,) = module([torch.tensor(picture.transpose(2, 0, 1), dtype=torch.float64)])
    return {name: np.round(values.numpy()[:FOUND], 5).tolist() for name, values in found.items()}


def main(*beginnings):
    import torch

    folder = Path(__file__).parent / "reference"
    stored = dict(np.load(folder / "architectures.npz")) if beginnings else {}
    for name, case in CASES.items():
        if name.startswith(beginnings or ""):
            with torch.no_grad():
                x = torch.tensor(case.image(), dtype=torch.float64)
                found = COMPUTED.get(name, of_timm)(case, case.weights(), x)
            stored |= {f"{name}/{output}": chosen(y.numpy()) for output, y in found.items()}
            print(name, {output: (tuple(y.shape), float(y.abs().max())) for output, y in found.items()})
    np.savez_compressed(folder / "architectures.npz", **stored)
    if not beginnings or "detections".startswith(beginnings):
        (folder / "ssdlite_v3.json").write_text(json.dumps(detections()))


if __name__ == "__main__":
    main(*sys.argv[1:])
