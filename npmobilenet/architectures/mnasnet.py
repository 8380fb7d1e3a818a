"""MnasNet-B1: found by search on a phone, without squeeze-and-excitation (1807.11626, section 4)."""

from npmobilenet.architectures.architecture import Architecture

MNASNET_B1 = Architecture(
    name="mnasnet_b1",
    paper="MnasNet-B1, 1807.11626",
    activation="relu",
    rows=(
        "conv_k3_s2_c32",
        "inverted_r1_k3_s1_e1_c16_noskip",
        "inverted_r3_k3_s2_e3_c24",
        "inverted_r3_k5_s2_e3_c40",
        "inverted_r3_k5_s2_e6_c80",
        "inverted_r2_k3_s1_e6_c96",
        "inverted_r4_k5_s2_e6_c192",
        "inverted_r1_k3_s1_e6_c320_noskip",
        "conv_k1_s1_c1280_fixed",
        "pool",
        "linear",
    ),
)
