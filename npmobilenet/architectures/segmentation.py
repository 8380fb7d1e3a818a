"""Every pixel's class: heads upon MobileNetV3-Large, whose last stage is dilated so that its stride is 16, not 32.

A head has scores for each pixel of its features, resized to the image. As torchvision builds them (1905.02244,
section 6.4; 1706.05587, section 3).
"""

from dataclasses import replace

from npmobilenet.architectures.architecture import Architecture
from npmobilenet.architectures.mobilenet_v3 import MOBILENET_V3_LARGE


def segmenting(name: str, paper: str, backbone: Architecture, head: tuple[str, ...]) -> Architecture:
    """Return a network that ends with these rows in place of its pooling and linear layers."""
    features = backbone.varied({"c160": "s1_d2", "pool": (), "hidden": (), "classifier": ()})
    return replace(features, name=name, paper=paper, rows=(*features.rows, *head), resolution=520)


LRASPP_MOBILENET_V3_LARGE = segmenting(
    "lraspp_mobilenet_v3_large",
    "LR-ASPP on MobileNetV3-Large, 1905.02244, Figure 10",
    MOBILENET_V3_LARGE,
    ("lraspp_c128_from4_relu_fixed",),
)
DEEPLABV3_MOBILENET_V3_LARGE = segmenting(
    "deeplabv3_mobilenet_v3_large",
    "DeepLabV3 (1706.05587, Figure 5) on MobileNetV3-Large, with a second head on its fourth block",
    MOBILENET_V3_LARGE,
    ("aspp_d12.24.36_c256_relu_fixed", "segment_k3_c256_relu_fixed", "segment_k3_c10_from4_relu_fixed"),
)
