"""EfficientNet: one table, scaled in width, depth and resolution (1905.11946, Table 1 and section 3.3)."""

from npmobilenet.architectures.architecture import Architecture

ROWS = (
    "conv_k3_s2_c32",
    "inverted_r1_k3_s1_e1_se0.25_c16",
    "inverted_r2_k3_s2_e6_se0.25_c24",
    "inverted_r2_k5_s2_e6_se0.25_c40",
    "inverted_r3_k3_s2_e6_se0.25_c80",
    "inverted_r3_k5_s1_e6_se0.25_c112",
    "inverted_r4_k5_s2_e6_se0.25_c192",
    "inverted_r1_k3_s1_e6_se0.25_c320",
    "conv_k1_s1_c1280",
    "pool",
    "linear",
)

# Lite (tensorflow/tpu, models/official/efficientnet/lite) has no squeeze-and-excitation, and ReLU6 for swish; its
# first and last block and its first and last convolution are not scaled.
ROWS_LITE = (
    "conv_k3_s2_c32_fixed",
    "inverted_k3_s1_e1_c16",
    "inverted_r2_k3_s2_e6_c24",
    "inverted_r2_k5_s2_e6_c40",
    "inverted_r3_k3_s2_e6_c80",
    "inverted_r3_k5_s1_e6_c112",
    "inverted_r4_k5_s2_e6_c192",
    "inverted_k3_s1_e6_c320",
    "conv_k1_s1_c1280_fixed",
    "pool",
    "linear",
)

# Width, depth, resolution.
EFFICIENTNETS = tuple(
    Architecture(
        name=f"efficientnet_b{number}",
        paper=f"EfficientNet-B{number}, 1905.11946, Table 1",
        activation="swish",
        rows=ROWS,
        width=width,
        depth=depth,
        resolution=resolution,
    )
    for number, (width, depth, resolution) in enumerate(
        (
            (1.0, 1.0, 224),
            (1.0, 1.1, 240),
            (1.1, 1.2, 260),
            (1.2, 1.4, 300),
            (1.4, 1.8, 380),
            (1.6, 2.2, 456),
            (1.8, 2.6, 528),
            (2.0, 3.1, 600),
        )
    )
)

EFFICIENTNET_L2 = Architecture(
    name="efficientnet_l2",
    paper="EfficientNet-L2, 1911.04252, Table 7",
    activation="swish",
    rows=ROWS,
    width=4.3,
    depth=5.3,
    resolution=800,
)

EFFICIENTNETS_LITE = tuple(
    Architecture(
        name=f"efficientnet_lite{number}",
        paper=f"EfficientNet-Lite{number}, after 1905.11946, Table 1",
        activation="relu6",
        rows=ROWS_LITE,
        width=width,
        depth=depth,
        resolution=resolution,
    )
    for number, (width, depth, resolution) in enumerate(
        (
            (1.0, 1.0, 224),
            (1.0, 1.1, 240),
            (1.1, 1.2, 260),
            (1.2, 1.4, 280),
            (1.4, 1.8, 300),
        )
    )
)
