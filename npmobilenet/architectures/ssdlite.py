"""Boxes around things: SSDLite on MobileNetV2 (1801.04381, section 6.2).

Six feature maps, the fourteenth block's expansion, the head and four smaller ones that follow it; on each a depthwise
separable convolution for the boxes and one for the scores, for every anchor of a pixel. The scores count the
background as their first class.
"""

from dataclasses import replace

from npmobilenet.architectures.mobilenet_v2 import MOBILENET_V2

EXTRAS = tuple(f"extra_k3_s2_c{channels}_fixed" for channels in (512, 256, 256, 128))

SSDLITE_MOBILENET_V2 = replace(
    MOBILENET_V2.varied({"pool": (), "classifier": ()}),
    name="ssdlite_mobilenet_v2",
    paper="SSDLite on MobileNetV2, 1801.04381, Table 6",
    resolution=300,
)
SSDLITE_MOBILENET_V2 = replace(
    SSDLITE_MOBILENET_V2, rows=(*SSDLITE_MOBILENET_V2.rows, *EXTRAS, "ssdlite_k3_n3.6.6.6.6.6_from14")
)
