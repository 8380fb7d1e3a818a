"""Remake reference/random_networks.npz: whole networks under seeded random weights, computed by PyTorch.

    python tests/data/make_random_networks.py

Made with torch 2.13.0 (CPU), torchvision 0.28.0, timm 1.0.31 and NumPy 2.4.6; the weights come from
``npmobilenet.architectures.random_weights`` (NumPy's PCG64), so that only logits need to be stored. timm's
MobileNetV1 is built with its TensorFlow padding ("same") and eps 1e-3 too.
"""

from pathlib import Path

import numpy as np

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.checkpoints.key_maps import KEY_MAPS, Naming

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
        return torchvision.models.mobilenet_v2(width_mult=width, num_classes=classes)
    name = f"{architecture.replace('_', '')}_{round(100 * width):03d}"
    pad = "same" if padding == "same" else ""
    return timm.create_model(name, num_classes=classes, pad_type=pad, bn_eps=eps)


def network_input(size, seed):
    """A batch of two images; shared with the test."""
    return np.random.default_rng(100 + seed).standard_normal((2, 3, *size)).astype(np.float32)


def main():
    import torch

    logits = {}
    for name, (architecture, source, width, classes, size, padding, eps, seed) in NETWORKS.items():
        definition = get_architecture(architecture)
        graph = definition.graph(width, classes, padding, eps)
        keys = Naming(definition, source, KEY_MAPS[architecture][source](definition)).keys(graph)
        weights = {keys[key]: torch.tensor(value) for key, value in random_weights(graph, seed).items()}
        module = torch_module(architecture, source, width, classes, padding, eps).eval()
        missing, unexpected = module.load_state_dict(weights, strict=False)
        assert not unexpected and all(key.endswith("num_batches_tracked") for key in missing), (
            missing,
            unexpected,
        )
        with torch.no_grad():
            logits[name] = module.double()(torch.tensor(network_input(size, seed), dtype=torch.float64)).numpy()
        print(name, logits[name].shape, float(np.abs(logits[name]).max()))
    np.savez_compressed(Path(__file__).parent / "reference/random_networks.npz", **logits)


if __name__ == "__main__":
    main()
