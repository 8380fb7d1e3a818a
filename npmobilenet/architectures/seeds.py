"""Networks of single repositories, after MobileNetV2: for expressions of faces, and for networks that teach others.

Their names of layers stand in `checkpoints.dialects`. MobileNetV2 for CIFAR with convolutions around its blocks is a
variant of MobileNetV2 there ("kuangliu", "seominseok").
"""

from dataclasses import replace

from npmobilenet.architectures.architecture import Architecture
from npmobilenet.architectures.blocks import Conventions
from npmobilenet.architectures.mobilenet_v2 import MOBILENET_V2

# liminze/Real-time-Facial-Expression-Recognition-and-Fast-Face-Detection, mul_ksize_cnn.py: Keras, grey faces of 48x48.
EXPRESSION_MOBILENET_V2 = Architecture(
    name="expression_mobilenet_v2",
    paper="MobileNetV2 with windows of three sizes side by side, for expressions of faces",
    activation="prelu",
    conventions=Conventions(rounding="down", bias=True, pixel_slopes=True),
    rows=(
        "parallel_k3.7.11_s2_e3_c48",
        "inverted_r1_k3_s1_e1_c32_expands",
        "inverted_r3_k3_s2_e6_c64",
        "inverted_r4_k3_s2_e6_c96",
        "inverted_r3_k3_s2_e6_c160",
        "inverted_r1_k3_s1_e6_c320",
        "conv_k1_s1_c1280",
        "pool",
        "linear",
    ),
    resolution=48,
    in_channels=1,
)

# For CIFAR, as kuangliu/pytorch-cifar has it; its stages are outputs beside the logits, to teach other networks by.
MOBILENET_V2_STAGES = replace(
    MOBILENET_V2.varied({"stem": "s1", "c24": "s1", "first": "expands", "inverted": "shortcut"}, activation="relu"),
    name="mobilenet_v2_stages",
    paper="MobileNetV2 for CIFAR, with a convolution around blocks that change channels at stride 1",
    resolution=32,
    outputs={
        **{f"stage{block.stage}": block.name for block in MOBILENET_V2.blocks if block.stage},  # its last block
        "logits": "classifier",
    },
)
