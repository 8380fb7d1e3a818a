"""MobileNetV3: hard swish, squeeze-and-excitation, a last layer after the pooling (1905.02244, Tables 1 and 2)."""

from npmobilenet.architectures.architecture import Architecture
from npmobilenet.architectures.blocks import Squeeze

# The tables list expanded channels, here a multiple of the input channels as in the authors' code, so that a width
# multiplier scales both alike; at width 1 rounding gives the tables' numbers (3.67 x 24 is 88). Widths other than 1
# are the authors' and timm's; torchvision scales the tables' numbers, and the last layer too.
SQUEEZE = Squeeze(expanded=True, activation="relu", gate="hard_sigmoid")

MOBILENET_V3_LARGE = Architecture(
    name="mobilenet_v3_large",
    paper="MobileNetV3-Large, 1905.02244, Table 1",
    activation="hard_swish",
    squeeze=SQUEEZE,
    rows=(
        "conv_k3_s2_c16_wide",
        "inverted_r1_k3_s1_e1_c16_relu",
        "inverted_r1_k3_s2_e4_c24_relu",
        "inverted_r1_k3_s1_e3_c24_relu",
        "inverted_r3_k5_s2_e3_se0.25_c40_relu",
        "inverted_r1_k3_s2_e6_c80",
        "inverted_r1_k3_s1_e2.5_c80",
        "inverted_r2_k3_s1_e2.3_c80",
        "inverted_r2_k3_s1_e6_se0.25_c112",
        "inverted_r3_k5_s2_e6_se0.25_c160",
        "conv_k1_s1_c960",
        "pool",
        "linear_c1280_wide",
        "linear",
    ),
)

MOBILENET_V3_SMALL = Architecture(
    name="mobilenet_v3_small",
    paper="MobileNetV3-Small, 1905.02244, Table 2",
    activation="hard_swish",
    squeeze=SQUEEZE,
    rows=(
        "conv_k3_s2_c16_wide",
        "inverted_r1_k3_s2_e1_se0.25_c16_relu",
        "inverted_r1_k3_s2_e4.5_c24_relu",
        "inverted_r1_k3_s1_e3.67_c24_relu",
        "inverted_r1_k5_s2_e4_se0.25_c40",
        "inverted_r2_k5_s1_e6_se0.25_c40",
        "inverted_r2_k5_s1_e3_se0.25_c48",
        "inverted_r3_k5_s2_e6_se0.25_c96",
        "conv_k1_s1_c576",
        "pool",
        "linear_c1024_wide",
        "linear",
    ),
)
