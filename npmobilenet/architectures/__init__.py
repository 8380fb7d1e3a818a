"""The networks, one file per family: each is its paper's table (`blocks` explains the rows).

A new network of the family is a new list of rows here, and its names in `checkpoints.dialects`.
"""

from npmobilenet.architectures.architecture import Architecture, random_weights
from npmobilenet.architectures.centernet import CENTERNET_MOBILENET_V3_LARGE
from npmobilenet.architectures.efficientnet import EFFICIENTNET_L2, EFFICIENTNETS, EFFICIENTNETS_LITE
from npmobilenet.architectures.faces import FACE_EXPRESSION, FACERES, SSD_MOBILENET_V1_FACE, TINY_FACE_DETECTOR
from npmobilenet.architectures.mixnet import MIXNET_L, MIXNET_M, MIXNET_S
from npmobilenet.architectures.mnasnet import MNASNET_B1
from npmobilenet.architectures.mobilenet_v1 import MOBILENET_V1, MOBILENET_V1_DENSE, MOBILENET_V1_SHALLOW
from npmobilenet.architectures.mobilenet_v2 import MOBILENET_V2
from npmobilenet.architectures.mobilenet_v3 import MOBILENET_V3_LARGE, MOBILENET_V3_SMALL
from npmobilenet.architectures.seeds import EXPRESSION_MOBILENET_V2, MOBILENET_V2_STAGES
from npmobilenet.architectures.segmentation import (
    DEEPLABV3_MOBILENET_V2,
    DEEPLABV3_MOBILENET_V2_ASPP,
    DEEPLABV3_MOBILENET_V3_LARGE,
    LRASPP_MOBILENET_V3_LARGE,
)
from npmobilenet.architectures.selfie import SELFIE_SEGMENTATION
from npmobilenet.architectures.ssd import SSD_MOBILENET_V2
from npmobilenet.architectures.ssdlite import (
    SSD_MOBILENET_V1,
    SSDLITE_MOBILENET_V1,
    SSDLITE_MOBILENET_V2,
    SSDLITE_MOBILENET_V3_LARGE,
)
from npmobilenet.architectures.vgg import VGG19

__all__ = ["ARCHITECTURES", "Architecture", "get_architecture", "random_weights"]

ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        MOBILENET_V2,
        MOBILENET_V1,
        MOBILENET_V1_SHALLOW,
        MOBILENET_V1_DENSE,
        MOBILENET_V3_LARGE,
        MOBILENET_V3_SMALL,
        MIXNET_S,
        MIXNET_M,
        MIXNET_L,
        MNASNET_B1,
        *EFFICIENTNETS,
        EFFICIENTNET_L2,
        *EFFICIENTNETS_LITE,
        LRASPP_MOBILENET_V3_LARGE,
        DEEPLABV3_MOBILENET_V3_LARGE,
        DEEPLABV3_MOBILENET_V2,
        DEEPLABV3_MOBILENET_V2_ASPP,
        SSDLITE_MOBILENET_V2,
        SSDLITE_MOBILENET_V3_LARGE,
        SSDLITE_MOBILENET_V1,
        SSD_MOBILENET_V1,
        EXPRESSION_MOBILENET_V2,
        MOBILENET_V2_STAGES,
        VGG19,
        SSD_MOBILENET_V1_FACE,
        TINY_FACE_DETECTOR,
        FACE_EXPRESSION,
        SELFIE_SEGMENTATION,
        FACERES,
        SSD_MOBILENET_V2,
        CENTERNET_MOBILENET_V3_LARGE,
    )
}


def get_architecture(name: str) -> Architecture:
    """Return an architecture by name.

    Raises
    ------
    ValueError
        If there is none of that name; the message lists those there are.
    """
    try:
        return ARCHITECTURES[name]
    except (KeyError, TypeError):
        raise ValueError(f"no architecture {name!r}; there are: {', '.join(ARCHITECTURES)}") from None
