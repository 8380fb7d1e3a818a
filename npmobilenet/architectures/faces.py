"""Faces: two detectors and a network that reads expressions, as face-api.js builds them, and one for age and gender.

The larger detector is SSD (1512.02325) on MobileNetV1, with boxes and scores by pointwise convolutions; its scores
count the background as their first class, and a third one that nothing was trained for. Depthwise convolutions have
their batch norms, all others have them folded in. The smaller one is a YOLOv2 of separable convolutions with max
pooling between.
"""

from dataclasses import replace

from npmobilenet.architectures.architecture import Architecture
from npmobilenet.architectures.blocks import Conventions
from npmobilenet.architectures.mobilenet_v1 import MOBILENET_V1

FOLDED = Conventions(norms=False)
EXTRAS = tuple(f"extra_k3_s2_c{channels}_dense_fixed" for channels in (512, 256, 256, 128))
BACKBONE = MOBILENET_V1.varied({"pool": (), "classifier": ()}, {}, {"folded": ("conv2d", "pointwise_conv2d")})

SSD_MOBILENET_V1_FACE = replace(
    BACKBONE,
    name="ssd_mobilenet_v1_face",
    paper="SSD (1512.02325) on MobileNetV1",
    rows=(*BACKBONE.rows, *EXTRAS, "ssd_k1_n3.6.6.6.6.6_from11"),
    resolution=512,
    classes=3,
)

TINY_FACE_DETECTOR = Architecture(
    name="tiny_face_detector",
    paper="Tiny YOLOv2 (1612.08242) of separable convolutions",
    activation="leaky_relu",
    conventions=FOLDED,
    rows=(
        "conv_k3_s1_c16_pad0",
        "pooled_k3_s2_c32",
        "pooled_k3_s2_c64",
        "pooled_k3_s2_c128",
        "pooled_k3_s2_c256",
        "pooled_k3_s2_c512",
        "yolo_n5",
    ),
    resolution=416,
    classes=1,
)

FACE_EXPRESSION = Architecture(
    name="face_expression",
    paper="four blocks of separable convolutions that read sums of all before, after 1608.06993",
    activation="relu",
    conventions=FOLDED,
    rows=(
        "conv_k3_s2_c32",
        "summed_k3_s1_c32",
        "summed_k3_s2_c64",
        "summed_k3_s2_c128",
        "summed_k3_s2_c256",
        "pool",
        "linear",
    ),
    resolution=112,
    classes=7,
)

FACERES = replace(
    MOBILENET_V1.varied({"classifier": ("attributes_c256_fixed",)}, {}, {"norms": False}),
    name="faceres",
    paper="MobileNetV1 with an embedding of faces, gender and age",
    classes=1,
)
