"""MixNet: mixed depthwise convolutions, squeeze-and-excitation, grouped pointwise ones (1907.09595, section 4)."""

from dataclasses import replace

from npmobilenet.architectures.architecture import Architecture

# The rows are those of the authors' code (tensorflow/tpu, mixnet_builder.py): ReLU up to the second stage and in
# the last convolution, swish between.
MIXNET_S = Architecture(
    name="mixnet_s",
    paper="MixNet-S, 1907.09595, section 4",
    activation="relu",
    rows=(
        "conv_k3_s2_c16",
        "inverted_r1_k3_s1_e1_c16",
        "inverted_r1_k3_s2_e6_a1.1_p1.1_c24",
        "inverted_r1_k3_s1_e3_a1.1_p1.1_c24",
        "inverted_r1_k3.5.7_s2_e6_se0.5_c40_swish",
        "inverted_r3_k3.5_s1_e6_a1.1_p1.1_se0.5_c40_swish",
        "inverted_r1_k3.5.7_s2_e6_p1.1_se0.25_c80_swish",
        "inverted_r2_k3.5_s1_e6_p1.1_se0.25_c80_swish",
        "inverted_r1_k3.5.7_s1_e6_a1.1_p1.1_se0.5_c120_swish",
        "inverted_r2_k3.5.7.9_s1_e3_a1.1_p1.1_se0.5_c120_swish",
        "inverted_r1_k3.5.7.9.11_s2_e6_se0.5_c200_swish",
        "inverted_r2_k3.5.7.9_s1_e6_p1.1_se0.5_c200_swish",
        "conv_k1_s1_c1536_fixed",
        "pool",
        "linear",
    ),
)

MIXNET_M = Architecture(
    name="mixnet_m",
    paper="MixNet-M, 1907.09595, section 4",
    activation="relu",
    rows=(
        "conv_k3_s2_c24",
        "inverted_r1_k3_s1_e1_c24",
        "inverted_r1_k3.5.7_s2_e6_a1.1_p1.1_c32",
        "inverted_r1_k3_s1_e3_a1.1_p1.1_c32",
        "inverted_r1_k3.5.7.9_s2_e6_se0.5_c40_swish",
        "inverted_r3_k3.5_s1_e6_a1.1_p1.1_se0.5_c40_swish",
        "inverted_r1_k3.5.7_s2_e6_se0.25_c80_swish",
        "inverted_r3_k3.5.7.9_s1_e6_a1.1_p1.1_se0.25_c80_swish",
        "inverted_r1_k3_s1_e6_se0.5_c120_swish",
        "inverted_r3_k3.5.7.9_s1_e3_a1.1_p1.1_se0.5_c120_swish",
        "inverted_r1_k3.5.7.9_s2_e6_se0.5_c200_swish",
        "inverted_r3_k3.5.7.9_s1_e6_p1.1_se0.5_c200_swish",
        "conv_k1_s1_c1536_fixed",
        "pool",
        "linear",
    ),
)

MIXNET_L = replace(
    MIXNET_M,
    name="mixnet_l",
    paper="MixNet-L, 1907.09595, section 4: MixNet-M of width 1.3",
    width=1.3,
)
