"""Remake quantised/: small networks of torchvision that PyTorch quantised, and the logits that its own engine computes.

    python -m tests.data.make_quantised

Made with torch 2.13.0 (CPU), torchvision 0.28.0 and NumPy 2.4.6 on a CPU with AVX-512. Weights from PyTorch's seed,
batch norms that do something, ranges found in seeded images; ``state_dict()`` as ``torch.save`` writes it, in xz. The
engine "qnnpack" has one scale for a layer's weights, "x86" one for each channel.
"""

import lzma
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "quantised"
CLASSES, SIZE, IMAGES = 10, 64, 6
# (architecture, engine): width
NETWORKS = {
    ("mobilenet_v2", "qnnpack"): 0.1,
    ("mobilenet_v2", "x86"): 0.1,
    ("mobilenet_v3_large", "x86"): 0.15,
}


def images(seed=5):
    """What the logits are of; shared with the test."""
    return np.random.default_rng(seed).uniform(-2, 2, (IMAGES, 3, SIZE, SIZE)).astype(np.float32)


def quantised_network(architecture, engine, width):
    """A network of torchvision after PyTorch's quantisation."""
    import torch
    from torch.ao import quantization
    from torchvision.models import quantization as networks

    torch.manual_seed(0)
    torch.backends.quantized.engine = engine
    model = getattr(networks, architecture)(quantize=False, width_mult=width, num_classes=CLASSES)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    model.eval().fuse_model(is_qat=False)
    model.qconfig = quantization.get_default_qconfig(engine)
    quantization.prepare(model, inplace=True)
    with torch.no_grad():
        for seed in range(4):
            model(torch.tensor(images(seed)))
    return quantization.convert(model, inplace=True)


def main():
    import torch

    operators = torch.library.Library("torchvision", "DEF")  # which a build for CUDA beside a CPU's torch lacks
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    warnings.simplefilter("ignore")
    logits = {}
    for (architecture, engine), width in NETWORKS.items():
        model = quantised_network(architecture, engine, width)
        file = BytesIO()
        torch.save(model.state_dict(), file)
        name = f"{architecture}_{engine}"
        (FOLDER / f"{name}.pth.xz").write_bytes(lzma.compress(file.getvalue(), preset=9))
        logits[name] = model(torch.tensor(images())).numpy()
        logits[f"{name}_step"] = np.float32(model.classifier[-1].scale)
    np.savez_compressed(FOLDER / "logits.npz", **logits)


if __name__ == "__main__":
    main()
