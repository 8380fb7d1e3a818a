"""Every pixel's class: heads upon MobileNets whose last stage is dilated, so that their stride is 16, not 32.

A head has scores for each pixel of its features, resized to the image: upon MobileNetV3-Large as torchvision builds
them (1905.02244, section 6.4; 1706.05587, section 3), upon MobileNetV2 as TensorFlow does (1801.04381, section 6.3).
"""

from dataclasses import replace

from npmobilenet.architectures.architecture import Architecture
from npmobilenet.architectures.mobilenet_v2 import MOBILENET_V2
from npmobilenet.architectures.mobilenet_v3 import MOBILENET_V3_LARGE
from npmobilenet.class_lists import VOC


def segmenting(
    name: str, paper: str, backbone: Architecture, head: tuple[str, ...], resolution: int = 520
) -> Architecture:
    """Return a network that ends with these rows in place of its pooling and linear layers."""
    features = backbone.varied({"pool": (), "hidden": (), "classifier": ()})
    rows = (*features.rows, *head)
    return replace(features, name=name, paper=paper, rows=rows, resolution=resolution, classes=len(VOC))


DILATED_V3_LARGE = MOBILENET_V3_LARGE.varied({"c160": "s1_d2"})  # the block that had the stride is dilated too
DILATED_V2 = MOBILENET_V2.varied({"head": ()}, conventions={"coordinates": "align_corners"}).with_output_stride(16)


LRASPP_MOBILENET_V3_LARGE = segmenting(
    "lraspp_mobilenet_v3_large",
    "LR-ASPP on MobileNetV3-Large, 1905.02244, Figure 10",
    DILATED_V3_LARGE,
    ("lraspp_c128_from4_relu_fixed",),
)
DEEPLABV3_MOBILENET_V3_LARGE = segmenting(
    "deeplabv3_mobilenet_v3_large",
    "DeepLabV3 (1706.05587, Figure 5) on MobileNetV3-Large, with a second head on its fourth block",
    DILATED_V3_LARGE,
    ("aspp_d12.24.36_c256_relu_fixed", "segment_k3_c256_relu_fixed", "segment_k3_c10_from4_relu_fixed"),
)
DEEPLABV3_MOBILENET_V2 = segmenting(
    "deeplabv3_mobilenet_v2",
    "DeepLabV3 on MobileNetV2, 1801.04381, Table 7, without atrous convolutions side by side",
    DILATED_V2,
    ("aspp_c256_relu_fixed_meanfirst", "segment"),
    513,
)
DEEPLABV3_MOBILENET_V2_ASPP = segmenting(
    "deeplabv3_mobilenet_v2_aspp",
    "DeepLabV3 on MobileNetV2, 1801.04381, Table 7, with atrous convolutions side by side",
    DILATED_V2,
    ("aspp_d6.12.18_c256_relu_fixed_meanfirst", "segment"),
    513,
)
