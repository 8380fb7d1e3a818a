"""The dialects of public checkpoints, one entry each, in the language of `key_maps`: pure data.

A file is compared with all of them, and the one whose names and shapes agree best is taken, the first of equals.
Where two publishers name everything alike and differ only in how they round channels, shapes decide.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import numpy as np

from npmobilenet.architectures import ARCHITECTURES
from npmobilenet.architectures.blocks import OUTPUTS
from npmobilenet.checkpoints.class_lists import COCO, COCO_BY_NUMBER, EXPRESSIONS, FACES, VOC
from npmobilenet.checkpoints.key_maps import FEATURES, LINEAR_BLOCKS, Dialect
from npmobilenet.image import IMAGENET, Preprocessing

Colour = tuple[float, float, float]

V2 = ("mobilenet_v2",)
V1 = ("mobilenet_v1",)
V3 = ("mobilenet_v3_large", "mobilenet_v3_small")
MIXNETS = ("mixnet_s", "mixnet_m", "mixnet_l")
HALF = replace(IMAGENET, mean=(0.5,) * 3, std=(0.5,) * 3)
TENSORFLOW = Preprocessing(None, (224, 224), 0.875, HALF.mean, HALF.std)


def efficientnets(*numbers: int) -> tuple[str, ...]:
    """EfficientNets by number."""
    return tuple(f"efficientnet_b{number}" for number in numbers)


def lites(*numbers: int) -> tuple[str, ...]:
    """EfficientNet-Lites by number."""
    return tuple(f"efficientnet_lite{number}" for number in numbers)


def _within(modules: dict[str, str], name: str) -> dict[str, str]:
    """The features of a classifier as a part of that name in another network."""
    return {
        kind: template.replace(FEATURES, f"{name}.") for kind, template in modules.items() if kind not in LINEAR_BLOCKS
    }


def photo(crop: int, resize: int, filter: str = "bicubic", like: Preprocessing = IMAGENET) -> Preprocessing:
    """A square of so many pixels from a photograph whose shorter side is resized to so many."""
    return replace(like, resize=resize, crop=(crop, crop), filter=filter)


def in_square(size: int, mean: Colour, std: Colour, place: str = "corner") -> Preprocessing:
    """The whole photograph in a square of so many pixels, sampled."""
    return Preprocessing((size, size), (size, size), None, mean, std, filter="sampled_corner", fit=place)


def levels_of(size: int) -> Preprocessing:
    """The whole photograph at this size, as numbers from 0 to 255."""
    return Preprocessing(None, (size, size), None, (0.0,) * 3, (1 / 255,) * 3)


def levels(*values: float) -> Colour:
    """A colour whose channels go from 0 to 255."""
    return tuple(value / 255 for value in values)


USUAL = {"": IMAGENET}
EXTRAS, EXTRA = range(1, 5), ("reduce", "depthwise", "pointwise", "conv")
SSD = tuple(f"{what}{number}" for what in ("boxes", "scores") for number in range(6))
CENTERS = ("reduce", "gate", *(f"{what}{inner}" for what in ("boxes", "scores") for inner in ("", ".depthwise")))
ATTRIBUTES = ("hidden", "gender", "age")
ASPP = ("point", "rate1", "rate2", "rate3", "pooled", "project")
CIFAR_PHOTOS = {  # by the number of classes
    10: Preprocessing(None, (32, 32), None, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    100: Preprocessing(None, (32, 32), None, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
USUAL_BICUBIC = {"": photo(224, 256)}

# --- This project, torchvision, timm, efficientnet-pytorch -------------------------------------------------

OWN = {
    "stem": "(stem|stem.norm)",
    "conv": "(block{n}|block{n}.norm)",
    **{
        part: f"block{{n}}.({part}|{part}.norm)" for part in ("expand", "depthwise", "project", "pointwise", "shortcut")
    },
    "squeeze": "block{n}.squeeze.(reduce|expand)",
    "head": "(head|head.norm)",
    "hidden": "hidden",
    "classifier": "classifier",
    **{f"aspp.{part}": f"aspp.({part}|{part}.norm)" for part in ASPP},
    **{f"{block}.conv": f"{block}.(conv|conv.norm)" for block in OUTPUTS},
    **{f"{block}.scores": f"{block}.scores" for block in OUTPUTS},
    **{f"segmentation.{part}": f"segmentation.{part}" for part in ("gate", "earlier_scores")},
    **{f"extra{n}.{part}": f"extra{n}.({part}|{part}.norm)" for n in EXTRAS for part in EXTRA},
    **{f"ssdlite.{part}": f"ssdlite.{part}" for part in SSD},
    **{f"ssdlite.{part}.depthwise": f"ssdlite.{part}.(depthwise|depthwise.norm)" for part in SSD},
    **{f"ssd.{part}": f"ssd.{part}" for part in SSD},
    **{part: f"block{{n}}.{part}" for number in range(6) for part in (f"depthwise{number}", f"pointwise{number}")},
    **{part: f"block{{n}}.{part}" for part in ("up", "reduce", "gate", "refine")},
    **{f"head.{part}": f"head.{part}" for part in ("conv", "gate")},
    "yolo.cells": "yolo.cells",
    **{f"centers.{part}": f"centers.{part}" for part in CENTERS},
    **{f"attributes.{part}": f"attributes.{part}" for part in ATTRIBUTES},
    "mask": "mask",
}

TORCHVISION_V2 = {
    "stem": "features.0.(0|1)",
    "*": "features.{n}.conv.{j}.(0|1)",
    "project": "features.{n}.conv.({j}|{j+1})",
    "head": "features.{n}.(0|1)",
    "classifier": "classifier.1",
}

TORCHVISION_V3 = {
    "stem": "features.0.(0|1)",
    "*": "features.{n}.block.{j}.(0|1)",
    "squeeze": "features.{n}.block.{j}.(fc1|fc2)",
    "head": "features.{n}.(0|1)",
    "hidden": "classifier.0",
    "classifier": "classifier.3",
}

TORCHVISION_LRASPP = {
    **_within(TORCHVISION_V3, "backbone"),
    "segmentation.conv": "classifier.cbr.(0|1)",
    "segmentation.gate": "classifier.scale.1",
    "segmentation.scores": "classifier.high_classifier",
    "segmentation.earlier_scores": "classifier.low_classifier",
}

TORCHVISION_DEEPLAB = {
    **_within(TORCHVISION_V3, "backbone"),
    "aspp.point": "classifier.0.convs.0.(0|1)",
    **{f"aspp.rate{number}": f"classifier.0.convs.{number}.(0|1)" for number in (1, 2, 3)},
    "aspp.pooled": "classifier.0.convs.4.(1|2)",
    "aspp.project": "classifier.0.project.(0|1)",
    "segmentation.conv": "classifier.(1|2)",
    "segmentation.scores": "classifier.4",
    "auxiliary.conv": "aux_classifier.(0|1)",
    "auxiliary.scores": "aux_classifier.4",
}

TORCHVISION_EFFICIENTNET = {
    "stem": "features.0.(0|1)",
    "*": "features.{s}.{p}.block.{j}.(0|1)",
    "squeeze": "features.{s}.{p}.block.{j}.(fc1|fc2)",
    "head": "features.{s+1}.(0|1)",
    "classifier": "classifier.1",
}

TORCHVISION_MNASNET = {
    "stem": "layers.(0|1)",
    "block1.depthwise": "layers.(3|4)",
    "block1.project": "layers.(6|7)",
    "*": "layers.{s+6}.{p}.layers.({3i}|{3i+1})",
    "head": "layers.(14|15)",
    "classifier": "classifier.1",
}

TIMM = {
    "stem": "(conv_stem|bn1)",
    "expand": "blocks.{s-1}.{p}.(conv_pw|bn{i+1})",
    "depthwise": "blocks.{s-1}.{p}.(conv_dw|bn{i+1})",
    "squeeze": "blocks.{s-1}.{p}.se.(conv_reduce|conv_expand)",
    "pointwise": "blocks.{s-1}.{p}.(conv_pw|bn{i+1})",
    "project": "blocks.{s-1}.{p}.(conv_pwl|bn{i+1})",
    "unexpanded.project": "blocks.{s-1}.{p}.(conv_pw|bn{i+1})",
    "head": "(conv_head|bn2)",
    "classifier": "classifier",
}
TIMM_V3 = TIMM | {"head": "blocks.{s}.0.(conv|bn1)", "hidden": "conv_head"}
TF_PADDING = "timm's networks from TensorFlow (tf_...) have these names too, but padding 'same' and eps 1e-3"
TF_ONLY = "timm publishes such weights from TensorFlow only (tf_...); networks of another origin: padding 'symmetric'"

EFFICIENTNET_PYTORCH = {
    "stem": "(_conv_stem|_bn0)",
    "expand": "_blocks.{n-1}.(_expand_conv|_bn0)",
    "depthwise": "_blocks.{n-1}.(_depthwise_conv|_bn1)",
    "squeeze": "_blocks.{n-1}.(_se_reduce|_se_expand)",
    "project": "_blocks.{n-1}.(_project_conv|_bn2)",
    "head": "(_conv_head|_bn1)",
    "classifier": "_fc",
}

# --- TensorFlow's object detection, as `tensorflow_graph` reads its names ----------------------------------

SLIM = "FeatureExtractor.MobilenetV2"
PREDICTORS = {"boxes": "BoxEncodingPredictor", "scores": "ClassPredictor"}


def _slim(module: str) -> str:
    """A convolution, and its batch norm within."""
    return f"({module}|{module}.BatchNorm)"


TENSORFLOW_SSDLITE = {
    "stem": f"{SLIM}.{_slim('Conv')}",
    **{f"block1.{part}": f"{SLIM}.expanded_conv.{_slim(part)}" for part in ("depthwise", "project")},
    **{part: f"{SLIM}.expanded_conv_{{n-1}}.{_slim(part)}" for part in ("expand", "depthwise", "project")},
    "head": f"{SLIM}.{_slim('Conv_1')}",
    **{
        f"extra{n}.{part}": f"{SLIM}.{_slim(name)}"
        for n, channels in zip(EXTRAS, (512, 256, 256, 128), strict=True)
        for part, name in zip(
            EXTRA[:3],
            (
                f"layer_19_1_Conv2d_{n + 1}_1x1_{channels // 2}",
                f"layer_19_2_Conv2d_{n + 1}_3x3_s2_{channels}_depthwise",
                f"layer_19_2_Conv2d_{n + 1}_3x3_s2_{channels}",
            ),
            strict=True,
        )
    },
    **{f"ssdlite.{part}": f"BoxPredictor_{part[-1]}.{PREDICTORS[part[:-1]]}" for part in SSD},
    **{
        f"ssdlite.{part}.depthwise": f"BoxPredictor_{part[-1]}." + _slim(f"{PREDICTORS[part[:-1]]}_depthwise")
        for part in SSD
    },
}

TENSORFLOW_SSD = TENSORFLOW_SSDLITE | {
    f"ssd.{part}": f"BoxPredictor_{part[-1]}.{PREDICTORS[part[:-1]]}" for part in SSD
}

# --- TensorFlow.js ------------------------------------------------------------------------------------------

FACE_API_SSD = {
    "stem": "MobilenetV1.Conv2d_0_pointwise",
    "depthwise": _slim("MobilenetV1.Conv2d_{n}_depthwise"),
    "pointwise": "MobilenetV1.Conv2d_{n}_pointwise",
    **{f"extra{n}.reduce": f"Prediction.Conv2d_{2 * n - 2}_pointwise" for n in EXTRAS},
    **{f"extra{n}.conv": f"Prediction.Conv2d_{2 * n - 1}_pointwise" for n in EXTRAS},
    **{f"ssd.{part}": f"Prediction.BoxPredictor_{part[-1]}.{PREDICTORS[part[:-1]]}" for part in SSD},
}

FACE_API_TINY = {
    "stem": "conv0",
    "depthwise": "conv{n}.depthwise",
    "pointwise": "conv{n}",
    "yolo.cells": "conv8",
}

FACE_API_EXPRESSION = {
    "stem": "dense0.conv0",
    **{f"depthwise{number}": f"dense{{n-1}}.conv{number}.depthwise" for number in range(4)},
    **{f"pointwise{number}": f"dense{{n-1}}.conv{number}" for number in range(4)},
    "classifier": "fc",
}


FACERES = {
    "stem": "conv1.convolution",
    "depthwise": "conv_dw_{n}",
    "pointwise": "conv_pw_{n}.convolution",
    "attributes.hidden": "feats",
    **{f"attributes.{part}": f"{part}_pred" for part in ("gender", "age")},
}

TOWER, HEAD = "tower_0.MobilenetV3", "CenternetHead"
UPWARD = {"block17": ("c5", "c4"), "block18": ("c4", "c3"), "block19": ("c3", "c2")}
CENTERNET = {
    "stem": f"{TOWER}.Conv",
    **{f"block1.{part}": f"{TOWER}.expanded_conv.{part}" for part in ("depthwise", "project")},
    **{part: f"{TOWER}.expanded_conv_{{n-1}}.{part}" for part in ("expand", "depthwise", "project")},
    "squeeze": "MobilenetV3.expanded_conv_{n-1}.squeeze_excite.(Conv|Conv_1)",
    "head": "tower_0.extern1",
    **{
        f"{block}.{part}{size}": f"{of}{HEAD}.{here}_upsample.branch_{branch}_upsample_resize"
        for block, (here, _) in UPWARD.items()
        for part, of in (("depthwise", ""), ("pointwise", "tower_0."))
        for size, branch in ((3, "x"), (5, "y"))
    },
    **{f"{block}.reduce": f"tower_0.{HEAD}.{there}_reverse.1x1" for block, (_, there) in UPWARD.items()},
    **{f"{block}.depthwise": f"{HEAD}.{there}_reverse.3x3" for block, (_, there) in UPWARD.items()},
    **{f"{block}.pointwise": f"tower_0.{HEAD}.{there}_reverse.3x3" for block, (_, there) in UPWARD.items()},
    "centers.reduce": f"tower_0.{HEAD}.conv1x1_se_a",
    "centers.gate": f"{HEAD}.conv1x1_se_b",
    **{
        f"centers.{what}{inner}": f"{HEAD}.centernet_{name}_output{module}"
        for what, name in (("boxes", "wh"), ("scores", "cls"))
        for inner, module in ((".depthwise", ""), ("", ".pointwise_weights"))
    },
}


def _numbered(name: str, number: int, first: int = 1) -> str:
    """The module of one name with this number, of which the first has none, and the second this one."""
    return f"{name}_{number - 1 + first}" if number else name


def _selfie(window: str, depthwise: str, first: int) -> dict[str, str]:
    """The selfie segmentation, whose convolutions are numbered in the order of execution."""
    squeezed = ("expand", "depthwise", "squeeze", "project")
    parts = [
        "stem",
        *(f"block{n}.{part}" for n in range(1, 9) for part in squeezed if part != "squeeze" or n not in (2, 3)),
        *("head.conv", "head.gate"),
        *(f"block{n}.{part}" for n in (10, 11, 12) for part in ("up", "reduce", "gate", "refine", "depthwise")),
    ]
    windows, depthwises = count(), count()
    names = {"mask": "segment"}
    for part in parts:
        if part.endswith("depthwise"):
            names[part] = _numbered(depthwise, next(depthwises))
        elif part.endswith("squeeze"):
            both = [_numbered(window, next(windows), first) for _ in range(2)]
            names[part] = f"({'|'.join(both)})"
        else:
            names[part] = _numbered(window, next(windows), first)
    return names


MEDIAPIPE_SELFIE = _selfie("conv2d", "depthwise_conv2d", 1)
# Converted to TensorFlow.js, hard swishes and hard sigmoids have a sixth that was rounded to float16. What that makes
# of their results, the layers behind them take; where the stem's is added to another one, this is divided by it before.
SIXTH = float(np.float16(1 / 6)) * 6
SELFIE_FACTORS = {
    "block1.expand.weight": SIXTH,
    **{
        f"block{number}.{part}.weight": SIXTH
        for number in range(4, 9)
        for part in ("depthwise", "squeeze.reduce", "project")
    },
    **{f"block12.up.{part}": 1 / SIXTH for part in ("weight", "bias")},
    **{f"block12.{part}.weight": SIXTH for part in ("reduce", "refine")},
}
CENTERNET_FACTORS = {
    "block1.depthwise.weight": SIXTH,
    **{f"block1.project.{part}": 1 / SIXTH for part in ("weight", "bias")},
    "block2.expand.weight": SIXTH,
    **{f"block{number}.project.weight": SIXTH for number in range(4, 11)},
    **{f"block{number}.depthwise.weight": SIXTH for number in range(7, 16)},
    **{f"block{number}.squeeze.reduce.weight": SIXTH for number in range(11, 16)},
    **{f"block{number}.project.weight": SIXTH**2 for number in range(11, 16)},
    **{f"block17.depthwise{size}.weight": SIXTH for size in (3, 5)},
    **{f"centers.boxes.{part}": 16 for part in ("weight", "bias")},  # its last operation
}

# --- Training repositories ---------------------------------------------------------------------------------

FLAT = {
    "stem": "features.0.(0|1)",
    "*": "features.{n}.conv.({3i}|{3i+1})",
    "head": "features.{n}.(0|1)",
    "classifier": "classifier.1",
}

D_LI14_V3 = {
    "stem": "features.0.(0|1)",
    "*": "features.{n}.conv.({3i}|{3i+1})",
    "squeeze": "features.{n}.conv.5.fc.(0|2)",
    "project": "features.{n}.conv.(7|8)",
    "unexpanded.squeeze": "features.{n}.conv.3.fc.(0|2)",
    "unexpanded.project": "features.{n}.conv.(4|5)",
    "head": "conv.(0|1)",
    "hidden": "classifier.0",
    "classifier": "classifier.3",
}
# Both repositories of MobileNetV3 began with the table of the paper's first version, which has 160 channels, and a
# ratio of the 672 expanded ones, before the last stride.
FIRST_LARGE = {
    "c160": (
        "inverted_r1_k5_s1_e6_se0.25_c160",
        "inverted_r1_k5_s2_e4.2_se0.25_c160",
        "inverted_r1_k5_s1_e6_se0.25_c160",
    ),
    "pool": "hardswish",
}

PYTORCHCV_V2 = {
    "stem": "features.init_block.(conv|bn)",
    "expand": "features.stage{d}.unit{u+1}.conv1.(conv|bn)",
    "depthwise": "features.stage{d}.unit{u+1}.conv2.(conv|bn)",
    "project": "features.stage{d}.unit{u+1}.conv3.(conv|bn)",
    "head": "features.final_block.(conv|bn)",
    "classifier": "output",
}

KUANGLIU = {
    "stem": "(conv1|bn1)",
    "*": "layers.{n-1}.(conv{i+1}|bn{i+1})",
    "shortcut": "layers.{n-1}.shortcut.(0|1)",
    "head": "(conv2|bn2)",
    "classifier": "linear",
}

DIALECTS = (
    Dialect("npmobilenet", tuple(ARCHITECTURES), OWN),
    Dialect("npmobilenet", ("deeplabv3_mobilenet_v3_large",), OWN, rows={"auxiliary": ()}),
    Dialect("torchvision", V2, TORCHVISION_V2, preprocessing=USUAL),
    Dialect(
        "torchvision",
        V3,
        TORCHVISION_V3,
        rows={"stem": "scaled", "head": "x6", "hidden": "scaled"},
        conventions={"expansion_of": "table"},
        bn_eps=1e-3,
        preprocessing=USUAL,
    ),
    *(
        Dialect(
            "torchvision",
            (f"{head}_mobilenet_v3_large",),
            modules,
            rows={"stem": "scaled", "head": "x6", **without},
            conventions={"expansion_of": "table", "head_eps": 1e-5},
            bn_eps=1e-3,
            classes=VOC,
            preprocessing={"": photo(520, 520, "bilinear")},
        )
        for head, modules, without in (
            ("lraspp", TORCHVISION_LRASPP, {}),
            ("deeplabv3", TORCHVISION_DEEPLAB, {}),
            ("deeplabv3", TORCHVISION_DEEPLAB, {"auxiliary": ()}),
        )
    ),
    Dialect(
        "torchvision",
        efficientnets(0, 1, 2, 3, 4),
        TORCHVISION_EFFICIENTNET,
        preprocessing={
            "efficientnet_b0": photo(224, 256),
            "efficientnet_b1": photo(240, 256),
            "efficientnet_b2": photo(288, 288),
            "efficientnet_b3": photo(300, 320),
            "efficientnet_b4": photo(380, 384),
        },
    ),
    Dialect(
        "torchvision",
        efficientnets(5, 6, 7),
        TORCHVISION_EFFICIENTNET,
        bn_eps=1e-3,
        preprocessing={
            "efficientnet_b5": photo(456, 456),
            "efficientnet_b6": photo(528, 528),
            "efficientnet_b7": photo(600, 600),
        },
    ),
    Dialect("torchvision", ("mnasnet_b1",), TORCHVISION_MNASNET, preprocessing=USUAL),
    Dialect(
        "timm",
        (*V1, "mobilenet_v1_shallow"),
        TIMM,
        preprocessing={"": photo(224, 256, like=HALF), "mobilenet_v1@1.25": photo(224, 248, like=HALF)},
    ),
    Dialect("timm", (*V2, "mnasnet_b1"), TIMM, preprocessing=USUAL_BICUBIC),
    Dialect(
        "timm",
        ("mobilenet_v3_large",),
        TIMM_V3,
        preprocessing=USUAL_BICUBIC,
        doubts={
            "padding": TF_PADDING,
            "preprocessing": "timm has three recipes for these names, which differ in filter, crop, mean and std",
        },
    ),
    Dialect("timm", ("mobilenet_v3_small",), TIMM_V3, preprocessing=USUAL_BICUBIC, doubts={"padding": TF_PADDING}),
    Dialect(
        "timm",
        (*MIXNETS, *efficientnets(0, 1, 2, 3, 4, 5), *lites(0)),
        TIMM,
        preprocessing={
            "": photo(224, 256),
            "efficientnet_b2": photo(256, 292),
            "efficientnet_b3": photo(288, 329),
            "efficientnet_b4": photo(320, 365),
            "efficientnet_b5": replace(IMAGENET, resize=None, crop=(448, 448), filter="bicubic"),
        },
        doubts={"padding": TF_PADDING},
    ),
    Dialect(
        "timm",
        (*efficientnets(6, 7), *lites(1, 2, 3, 4)),
        TIMM,
        padding="same",
        bn_eps=1e-3,
        preprocessing={
            "efficientnet_b6": photo(528, 560),
            "efficientnet_b7": photo(600, 632),
            "efficientnet_lite1": photo(240, 272, like=HALF),
            "efficientnet_lite2": photo(260, 292, like=HALF),
            "efficientnet_lite3": photo(300, 331, "bilinear", HALF),
            "efficientnet_lite4": photo(380, 413, "bilinear", HALF),
        },
        doubts={"padding": TF_ONLY},
    ),
    Dialect(
        "efficientnet-pytorch",
        (*efficientnets(*range(8)), *lites(*range(5))),
        EFFICIENTNET_PYTORCH,
        padding="same",
        bn_eps=1e-3,
    ),
    # Early torchvision, and at width 1 qfgaohao's pytorch-ssd, some of whose networks have ReLU.
    Dialect("flat", V2, FLAT, preprocessing=USUAL),
    Dialect(
        "tonylins",
        V2,
        FLAT | {"classifier": "classifier"},
        rows={"stem": "fixed", "first": "fixed"},
        conventions={"rounding": "up"},
        preprocessing=USUAL,
    ),
    Dialect(
        "tonylins, first version",
        V2,
        FLAT,
        rows={"first": "expands"},
        conventions={"rounding": "down"},
        preprocessing=USUAL,
    ),
    Dialect("qfgaohao", V2, FLAT, conventions={"rounding": "down"}, preprocessing=USUAL),
    Dialect(
        "d-li14",
        V2,
        FLAT | {"head": "conv.(0|1)", "classifier": "classifier"},
        conventions={"rounding": "nearest, by 4 at width 0.1"},
        preprocessing=USUAL,
    ),
    Dialect(
        "d-li14",
        V3,
        D_LI14_V3,
        rows={"stem": "scaled", "head": "x6"},
        squeeze={"place": "before"},
        preprocessing=USUAL,
    ),
    Dialect(
        "d-li14, first version",
        ("mobilenet_v3_large",),
        D_LI14_V3 | {"squeeze": "features.{n}.conv.6.fc.(0|2)", "classifier": "classifier.2"},
        rows=FIRST_LARGE | {"stem": "scaled"},
        squeeze={"rounding": "down"},
        preprocessing=USUAL,
    ),
    Dialect(
        "d-li14, first version",
        ("mobilenet_v3_small",),
        D_LI14_V3 | {"squeeze": "features.{n}.conv.6.fc.(0|2)", "classifier": "classifier.2"},
        rows={"stem": "scaled", "c40": "s1", "pool": "hardswish", "hidden": "c1280"},
        squeeze={"rounding": "down"},
        preprocessing=USUAL,
    ),
    Dialect(
        "kuan-wang",
        V3,
        {
            "stem": "features.0.(0|1)",
            "*": "features.{n}.conv.({3i}|{3i+1})",
            "squeeze": "features.{n}.conv.5.fc.(0|2)",
            "project": "features.{n}.conv.(7|8)",
            "head": "features.{n}.(0|1)",
            "hidden": "features.{n+2}",
            "classifier": "classifier.1",
        },
        rows={"stem": "fixed", "first": "expands", "hidden": "c1280"},
        squeeze={"place": "before", "rounding": "down"},
        conventions={"rounding": "up", "expansion_of": "table"},
        preprocessing=USUAL,
    ),
    Dialect(
        "kuan-wang, first version",
        ("mobilenet_v3_large",),
        FLAT | {"squeeze": "features.{n}.se.fc.(0|2)", "hidden": "features.{n+3}", "classifier": "features.{n+5}"},
        rows=FIRST_LARGE | {"stem": "fixed", "first": "expands"},
        squeeze={"place": "projected", "rounding": "down", "gate": "sigmoid"},
        conventions={"rounding": "up"},
        preprocessing=USUAL,
    ),
    # marvis, qfgaohao: found with and without the "model." before the numbers.
    Dialect(
        "marvis",
        V1,
        {
            "stem": "0.(0|1)",
            "depthwise": "{n}.(0|1)",
            "pointwise": "{n}.(3|4)",
            "classifier": "fc",
        },
        activation="relu",
        preprocessing=USUAL,
    ),
    Dialect(
        "mmpretrain",
        V2,
        {
            "stem": "conv1.(conv|bn)",
            "*": "layer{s}.{p}.conv.{i}.(conv|bn)",
            "head": "conv2.(conv|bn)",
            "classifier": "head.fc",
        },
        preprocessing=USUAL,
    ),
    Dialect(
        "pytorchcv",
        V2,
        PYTORCHCV_V2,
        rows={"first": "expands"},
        conventions={"rounding": "down"},
        preprocessing=USUAL,
    ),
    Dialect("pytorchcv", V2, PYTORCHCV_V2, conventions={"rounding": "down"}, preprocessing=USUAL),
    Dialect(
        "pytorchcv",
        V1,
        {
            "stem": "features.init_block.(conv|bn)",
            "depthwise": "features.stage{d}.unit{u+1}.dw_conv.(conv|bn)",
            "pointwise": "features.stage{d}.unit{u+1}.pw_conv.(conv|bn)",
            "classifier": "output",
        },
        activation="relu",
        conventions={"rounding": "down"},
        preprocessing=USUAL,
    ),
    Dialect(
        "tensorflow",
        ("ssdlite_mobilenet_v2",),
        TENSORFLOW_SSDLITE,
        padding="same",
        bn_eps=1e-3,
        classes=COCO_BY_NUMBER,
        preprocessing={"": Preprocessing(None, (300, 300), None, HALF.mean, HALF.std, filter="sampled_corner")},
    ),
    Dialect(
        "tensorflow",
        ("ssd_mobilenet_v2",),
        TENSORFLOW_SSD,
        padding="same",
        bn_eps=1e-3,
        classes=COCO_BY_NUMBER,
        preprocessing={"": Preprocessing(None, (300, 300), None, HALF.mean, HALF.std, filter="sampled_corner")},
    ),
    *(
        Dialect(
            "face-api.js",
            (name,),
            modules,
            padding="same",
            bn_eps=1e-3,
            classes=classes,
            preprocessing={"": photographs},
        )
        for name, modules, classes, photographs in (
            ("ssd_mobilenet_v1_face", FACE_API_SSD, FACES, in_square(512, HALF.mean, HALF.std)),
            (
                "tiny_face_detector",
                FACE_API_TINY,
                FACES[1:2],
                in_square(416, levels(117.001, 114.697, 97.404), (1.0,) * 3),
            ),
            (
                "face_expression",
                FACE_API_EXPRESSION,
                EXPRESSIONS,
                in_square(112, levels(122.782, 117.001, 104.298), (1.0,) * 3, "middle"),
            ),
        )
    ),
    *(
        Dialect(
            name,
            ("selfie_segmentation",),
            modules,
            padding="same",
            classes=("person",),
            factors=factors,
            preprocessing={"": Preprocessing(None, size, None, (0.0,) * 3, (1.0,) * 3)},
        )
        for name, modules, size, factors in (
            ("mediapipe", MEDIAPIPE_SELFIE, (256, 256), {}),
            ("mediapipe, landscape", MEDIAPIPE_SELFIE | {"mask": "conv2d_transpose"}, (144, 256), {}),
            ("mediapipe, in TensorFlow.js", _selfie("Conv2D", "depthwise", 2), (256, 256), SELFIE_FACTORS),
        )
    ),
    Dialect("human-models", ("faceres",), FACERES, padding="same", preprocessing={"": levels_of(224)}),
    Dialect(
        "human-models",
        ("centernet_mobilenet_v3_large",),
        CENTERNET,
        padding="same",
        classes=COCO,
        factors=CENTERNET_FACTORS,
        preprocessing={"": levels_of(512)},
    ),
    # --- Ported from TensorFlow ----------------------------------------------------------------------------
    Dialect(
        "transformers",
        V2,
        {
            "stem": "conv_stem.first_conv.(convolution|normalization)",
            "block1.depthwise": "conv_stem.conv_3x3.(convolution|normalization)",
            "block1.project": "conv_stem.reduce_1x1.(convolution|normalization)",
            "expand": "layer.{n-2}.expand_1x1.(convolution|normalization)",
            "depthwise": "layer.{n-2}.conv_3x3.(convolution|normalization)",
            "project": "layer.{n-2}.reduce_1x1.(convolution|normalization)",
            "head": "conv_1x1.(convolution|normalization)",
            "classifier": "classifier",
        },
        padding="same",
        bn_eps=1e-3,
        preprocessing={"": replace(HALF, crop_rounding="down")},
    ),
    Dialect(
        "transformers",
        V1,
        {
            "stem": "conv_stem.(convolution|normalization)",
            "depthwise": "layer.{2n-2}.(convolution|normalization)",
            "pointwise": "layer.{2n-1}.(convolution|normalization)",
            "classifier": "classifier",
        },
        conventions={"rounding": "down, at least 8"},
        padding="same",
        bn_eps=1e-3,
        preprocessing={"": replace(HALF, crop_rounding="down")},
    ),
    Dialect(
        "ruotianluo",
        V2,
        {
            "stem": "features.0.conv.(0|1)",
            "expand": "features.{n}.conv.0.(0|1)",
            "depthwise": "features.{n}.conv.1.(0|1)",
            "project": "features.{n}.conv.2.(0|1)",
            "head": "features.{n}.conv.(0|1)",
            "classifier": "classifier",
        },
        padding="same",
        bn_eps=1e-3,
        preprocessing={"": TENSORFLOW},
    ),
    Dialect(
        "ruotianluo",
        V1,
        {
            "stem": "features.0.conv.(0|1)",
            "depthwise": "features.{n}.conv.0.(0|1)",
            "pointwise": "features.{n}.conv.1.(0|1)",
            "classifier": "classifier",
        },
        conventions={"rounding": "down, at least 8"},
        padding="same",
        bn_eps=1e-3,
        preprocessing={"": TENSORFLOW},
    ),
    Dialect(
        "ruotianluo, first version",
        V2,
        {
            "stem": "features.layer_1.conv.(0|1)",
            "expand": "features.layer_{n+1}.module.expand.(0|1)",
            "depthwise": "features.layer_{n+1}.module.depthwise.(0|1)",
            "project": "features.layer_{n+1}.module.project.(0|1)",
            "head": "features.layer_{n+1}.conv.(0|1)",
            "classifier": "classifier",
        },
        conventions={"linear_eps": 1e-5},
        padding="same",
        bn_eps=1e-3,
        preprocessing={"": TENSORFLOW},
    ),
    Dialect(
        "ruotianluo, first version",
        V1,
        {
            "stem": "features.Conv2d_0.conv.(0|1)",
            "depthwise": "features.Conv2d_{n}.depthwise.(0|1)",
            "pointwise": "features.Conv2d_{n}.pointwise.(0|1)",
            "classifier": "classifier",
        },
        conventions={"rounding": "down, at least 8"},
        padding="same",
        bn_eps=1e-3,
        preprocessing={"": TENSORFLOW},
    ),
    # --- For CIFAR's images of 32x32 -----------------------------------------------------------------------
    Dialect(
        "kuangliu",
        V2,
        KUANGLIU,
        rows={"first": "expands", "inverted": "shortcut"},
        activation="relu",
        layout="cifar",
    ),
    Dialect(
        "seominseok",
        V2,
        KUANGLIU,
        rows={"first": "expands", "inverted": "shortcuts", "stem": "relu", "head": "relu"},
        layout="cifar",
    ),
    Dialect(
        "weiaicunzai",
        V2,
        {
            "stem": "pre.(0|1)",
            "block1.*": "stage1.residual.({3i}|{3i+1})",
            "block17.*": "stage7.residual.({3i}|{3i+1})",
            "*": "stage{s}.{p}.residual.({3i}|{3i+1})",
            "head": "conv1.(0|1)",
            "classifier": "conv2",
        },
        rows={"stem": "k1_pad1", "first": "expands", "c24": "s2", "c160": "s1"},
        conventions={"bias": True},
        layout="cifar",
    ),
)
