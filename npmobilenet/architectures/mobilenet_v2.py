"""MobileNetV2: inverted residuals and linear bottlenecks (1801.04381, Table 2)."""

from npmobilenet.architectures.architecture import Architecture

# The paper's text counts 19 bottleneck layers; its table, like every implementation, has these 17.
MOBILENET_V2 = Architecture(
    name="mobilenet_v2",
    paper="MobileNetV2, 1801.04381, Table 2",
    activation="relu6",
    rows=(
        "conv_k3_s2_c32",
        "inverted_r1_k3_s1_e1_c16",
        "inverted_r2_k3_s2_e6_c24",
        "inverted_r3_k3_s2_e6_c32",
        "inverted_r4_k3_s2_e6_c64",
        "inverted_r3_k3_s1_e6_c96",
        "inverted_r3_k3_s2_e6_c160",
        "inverted_r1_k3_s1_e6_c320",
        "conv_k1_s1_c1280_wide",
        "pool",
        "linear",
    ),
)
