"""Boxes around things by their centres: CenterNet (1904.07850) on MobileNetV3-Large of width 0.75.

From the last features three steps lead up to a quarter of the image's size, each of which concatenates what a block on
the way down has computed. A place whose score is the highest around it is the centre of a thing; four numbers say how
far its edges are.
"""

from dataclasses import replace

from npmobilenet.architectures.mobilenet_v3 import MOBILENET_V3_LARGE

BACKBONE = MOBILENET_V3_LARGE.varied(
    {"c160": "expands", "head": "c480_fixed", "pool": (), "hidden": (), "classifier": ()}, {}, {"norms": False}
)

CENTERNET_MOBILENET_V3_LARGE = replace(
    BACKBONE,
    name="centernet_mobilenet_v3_large",
    paper="CenterNet (1904.07850) on MobileNetV3-Large",
    rows=(
        *BACKBONE.rows,
        "upward_c256_from12_fixed",
        "upward_c192_within6_fixed",
        "upward_c128_within4_fixed",
        "centers",
    ),
    resolution=512,
    classes=80,
)
