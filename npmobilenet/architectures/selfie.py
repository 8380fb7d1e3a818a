"""Persons, pixel by pixel: MediaPipe's selfie segmentation.

An encoder like MobileNetV3-Small's, a gated head, and three steps back up to the stem's size, each of which joins the
features of an earlier block (1905.02244, section 6.4, has the gate). Its scores are probabilities.
"""

from npmobilenet.architectures.architecture import Architecture
from npmobilenet.architectures.blocks import Conventions, Squeeze

SELFIE_SEGMENTATION = Architecture(
    name="selfie_segmentation",
    paper="MediaPipe's selfie segmentation, after MobileNetV3-Small (1905.02244)",
    activation="hard_swish",
    squeeze=Squeeze(expanded=True, activation="relu"),
    conventions=Conventions(norms=False),
    rows=(
        "conv_k3_s2_c16",
        "inverted_r1_k3_s2_e1_se0.5_c16_relu_expands",
        "inverted_r1_k3_s2_e4.5_c24_relu",
        "inverted_r1_k3_s1_e3.67_c24_relu",
        "inverted_r1_k5_s2_e4_se0.25_c32",
        "inverted_r2_k5_s1_e4_se0.25_c32",
        "inverted_r2_k5_s1_e3_se0.25_c32",
        "gated_c128_relu",
        "join_c24_from3_relu",
        "join_c16_from1_relu",
        "join_c16_from0_relu",
        "mask_k2_s2",
    ),
    resolution=256,
    classes=1,
)
