"""MobileNetV1: depthwise separable convolutions (1704.04861, Table 1)."""

from npmobilenet.architectures.architecture import Architecture

# The table prints stride 2 for the last row, whose output it gives as 7x7: the stride is 1. The released
# weights use ReLU6 where the paper says ReLU.
MOBILENET_V1 = Architecture(
    name="mobilenet_v1",
    paper="MobileNetV1, 1704.04861, Table 1",
    activation="relu6",
    rows=(
        "conv_k3_s2_c32",
        "separable_r1_k3_s1_c64",
        "separable_r2_k3_s2_c128",
        "separable_r2_k3_s2_c256",
        "separable_r6_k3_s2_c512",
        "separable_r2_k3_s2_c1024",
        "pool",
        "linear",
    ),
)

MOBILENET_V1_SHALLOW = Architecture(
    name="mobilenet_v1_shallow",
    paper="MobileNetV1, 1704.04861, Table 5: without the five layers of 14x14x512",
    activation="relu6",
    rows=tuple(row.replace("r6", "r1") for row in MOBILENET_V1.rows),
)

MOBILENET_V1_DENSE = Architecture(
    name="mobilenet_v1_dense",
    paper="MobileNetV1, 1704.04861, Table 4: every separable layer as one dense convolution",
    activation="relu6",
    rows=tuple(row.replace("separable", "conv") for row in MOBILENET_V1.rows),
)
