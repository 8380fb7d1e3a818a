"""Boxes around things: SSD (1512.02325) and SSDLite (1801.04381, section 6.2) upon MobileNets.

Six feature maps, the last one of stride 16, the features and four smaller ones that follow them; on each a convolution
for the boxes and one for the scores, for every anchor of a pixel. SSDLite's are depthwise separable, and so are its
smaller maps. The scores count the background as their first class.
"""

from dataclasses import replace

from npmobilenet.architectures.architecture import Architecture
from npmobilenet.architectures.mobilenet_v1 import MOBILENET_V1
from npmobilenet.architectures.mobilenet_v2 import MOBILENET_V2
from npmobilenet.architectures.mobilenet_v3 import MOBILENET_V3_LARGE
from npmobilenet.class_lists import COCO_BY_NUMBER

EXTRAS = tuple(f"extra_k3_s2_c{channels}_fixed" for channels in (512, 256, 256, 128))


def detecting(
    name: str, paper: str, backbone: Architecture, head: tuple[str, ...], resolution: int, **rows: str
) -> Architecture:
    """Return a network that ends with these rows in place of its pooling and linear layers."""
    features = backbone.varied({"pool": (), "hidden": (), "classifier": (), **rows})
    return replace(
        features,
        name=name,
        paper=paper,
        rows=(*features.rows, *head),
        resolution=resolution,
        classes=len(COCO_BY_NUMBER),
    )


SSD_MOBILENET_V1 = detecting(
    "ssd_mobilenet_v1",
    "SSD 300 on MobileNetV1, 1704.04861, Table 13",
    MOBILENET_V1,
    (*(f"{extra}_dense" for extra in EXTRAS), "ssd_n3.6.6.6.6.6_from11"),
    300,
)
SSDLITE_MOBILENET_V1 = detecting(
    "ssdlite_mobilenet_v1",
    "SSDLite on MobileNetV1, 1801.04381, Table 6",
    MOBILENET_V1,
    (*EXTRAS, "ssdlite_k3_n3.6.6.6.6.6_from11"),
    320,
)
SSDLITE_MOBILENET_V2 = detecting(
    "ssdlite_mobilenet_v2",
    "SSDLite on MobileNetV2, 1801.04381, Table 6",
    MOBILENET_V2,
    (*EXTRAS, "ssdlite_k3_n3.6.6.6.6.6_from14"),
    300,
)
# Behind stride 16 it has half of the backbone's channels (1905.02244, section 6.3).
SSDLITE_MOBILENET_V3_LARGE = detecting(
    "ssdlite_mobilenet_v3_large",
    "SSDLite on MobileNetV3-Large, 1905.02244, Table 6, as torchvision builds it",
    MOBILENET_V3_LARGE,
    (*(f"{extra}_relu6" for extra in EXTRAS), "ssdlite_k3_n6.6.6.6.6.6_from13_relu6"),
    320,
    c160="c80",
    c960="c480",
)
