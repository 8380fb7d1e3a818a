"""Boxes around things: SSD (1512.02325) on MobileNetV2, whose heads are dense convolutions.

As TensorFlow builds it: the feature maps are those of SSDLite (`ssdlite`).
"""

from dataclasses import replace

from npmobilenet.architectures.mobilenet_v2 import MOBILENET_V2
from npmobilenet.architectures.ssdlite import EXTRAS

BACKBONE = MOBILENET_V2.varied({"pool": (), "classifier": ()})

SSD_MOBILENET_V2 = replace(
    BACKBONE,
    name="ssd_mobilenet_v2",
    paper="SSD (1512.02325) on MobileNetV2",
    rows=(*BACKBONE.rows, *EXTRAS, "ssd_k3_n3.6.6.6.6.6_from14"),
    resolution=300,
    classes=91,
)
