"""The networks are the papers' tables: counts, shapes, and the language they are written in."""

from dataclasses import replace

import pytest

from npmobilenet.architectures import ARCHITECTURES, get_architecture, random_weights
from npmobilenet.architectures.blocks import OF_CLASSES, Row, round_channels
from npmobilenet.counts import count, materialised_bytes

V2, V1 = ARCHITECTURES["mobilenet_v2"], ARCHITECTURES["mobilenet_v1"]
FIXED_SIZE = "expression_mobilenet_v2"  # it has slopes for each pixel
ANY_SIZE = [
    name
    for name in ARCHITECTURES
    if name not in (FIXED_SIZE, "vgg19", "tiny_face_detector")  # a stem without padding
]  # the latter pools, and not with padding


# 1801.04381, Table 2: parameters as PyTorch counts them, weights as TensorFlow does, multiply-adds at 224.
@pytest.mark.parametrize(
    ("width", "parameters", "weights", "macs"),
    [
        (0.25, 1_519_112, None, 37_201_312),
        (0.35, 1_677_128, 1_662_048, 59_285_808),
        (0.5, 1_968_680, 1_949_136, 97_131_840),
        (0.75, 2_636_424, 2_608_784, 209_069_792),
        (1.0, 3_504_872, 3_469_760, 300_774_272),
        (1.3, 5_386_792, 5_341_536, 509_374_560),
        (1.4, 6_108_776, 6_059_840, 582_195_824),
    ],
)
def test_mobilenet_v2_widths(width, parameters, weights, macs):
    counts = count(V2.graph(width), (224, 224))
    assert (counts.parameters, counts.macs) == (parameters, macs)
    assert weights in (None, counts.weights)


@pytest.mark.parametrize(
    ("size", "macs"), [(192, 221_316_608), (160, 154_083_200), (128, 99_074_048), (96, 56_289_152)]
)
def test_mobilenet_v2_resolutions(size, macs):
    assert count(V2.graph(), (size, size)).macs == macs


# MACs in millions, cut, of the 22 checkpoints that TensorFlow publishes (research/slim/nets/mobilenet).
@pytest.mark.parametrize(
    ("width", "millions"),
    [
        (1.0, {224: 300, 192: 221, 160: 154, 128: 99, 96: 56}),
        (0.75, {224: 209, 192: 153, 160: 107, 128: 69, 96: 39}),
        (0.5, {224: 97, 192: 71, 160: 50, 128: 32, 96: 18}),
        (0.35, {224: 59, 192: 43, 160: 30, 128: 20, 96: 11}),
    ],
)
def test_mobilenet_v2_checkpoint_table(width, millions):
    for size, expected in millions.items():
        assert abs(count(V2.graph(width), (size, size)).macs / 1e6 - expected) < 1


def test_mobilenet_v2_multiply_adds_by_kind():
    layers = count(V2.graph(), (224, 224)).layers
    by_kind = {}
    for layer in layers:
        by_kind[layer.operation] = by_kind.get(layer.operation, 0) + layer.macs
    assert by_kind == {
        "conv2d": 10_838_016,
        "pointwise_conv2d": 267_939_840,
        "depthwise_conv2d": 20_716_416,
        "global_average_pool": 0,
        "linear": 1_280_000,
    }


def test_mobilenet_v2_has_the_seventeen_blocks_of_the_table():
    graph = V2.graph()
    assert list(graph.blocks) == ["stem", *(f"block{n}" for n in range(1, 18)), "head", "pool", "classifier"]
    assert sum(node.operation == "add" for node in graph) == 10
    assert "block1.expand" not in {node.name for node in graph}
    shapes = graph.shapes((224, 224))
    depthwise = [
        (shapes[node.inputs[0]][1], node["channels"], node["stride"][0])
        for node in graph
        if node.operation == "depthwise_conv2d"
    ]
    assert depthwise == [
        *[(112, 32, 1), (112, 96, 2), (56, 144, 1), (56, 144, 2), (28, 192, 1), (28, 192, 1), (28, 192, 2)],
        *[(14, 384, 1)] * 4,
        *[(14, 576, 1), (14, 576, 1), (14, 576, 2), (7, 960, 1), (7, 960, 1), (7, 960, 1)],
    ]


def test_last_convolution_is_not_narrowed():
    for width, channels in ((0.35, 1280), (1.0, 1280), (1.4, 1792)):
        assert V2.graph(width)["head"]["channels"] == channels


# 1704.04861, Tables 4 to 7.
@pytest.mark.parametrize(
    ("name", "width", "size", "weights", "macs"),
    [
        ("mobilenet_v1", 1.0, 224, 4_209_088, 568_740_352),
        ("mobilenet_v1", 0.75, 224, 2_568_144, 325_400_448),
        ("mobilenet_v1", 0.5, 224, 1_319_648, 149_497_088),
        ("mobilenet_v1", 0.25, 224, 463_600, 41_030_272),
        ("mobilenet_v1", 1.0, 192, 4_209_088, 418_121_728),
        ("mobilenet_v1", 1.0, 160, 4_209_088, 290_675_200),
        ("mobilenet_v1", 1.0, 128, 4_209_088, 186_400_768),
        ("mobilenet_v1_shallow", 1.0, 224, 2_875_328, 307_323_392),
        ("mobilenet_v1_dense", 1.0, 224, 29_281_120, 4_867_293_184),
    ],
)
def test_mobilenet_v1_tables(name, width, size, weights, macs):
    counts = count(get_architecture(name).graph(width), (size, size))
    assert (counts.weights, counts.macs) == (weights, macs)


def test_mobilenet_v1_parameters():
    assert count(V1.graph(), (224, 224)).parameters == 4_231_976


def test_mobilenet_v1_share_of_layer_types():
    """1704.04861, Table 2 (whose 1.19 % for the first layer is a misprint of 1.91 %)."""
    counts = count(V1.graph(), (224, 224))
    share = {}
    for layer in counts.layers:
        macs, weights = share.get(layer.operation, (0, 0))
        share[layer.operation] = (
            macs + 100 * layer.macs / counts.macs,
            weights + 100 * layer.weights / counts.weights,
        )
    expected = {
        "pointwise_conv2d": (94.86, 74.59),
        "depthwise_conv2d": (3.06, 1.06),
        "conv2d": (1.91, 0.02),
        "linear": (0.18, 24.33),
    }
    for operation, (macs, weights) in expected.items():
        assert share[operation] == (pytest.approx(macs, abs=0.006), pytest.approx(weights, abs=0.006))


# 1907.09595, 1807.11626, 1905.11946: parameters exactly those of the authors' and timm's networks, multiply-adds
# counted from the tables, squeeze-and-excitation included.
@pytest.mark.parametrize(
    ("name", "width", "parameters", "macs"),
    [
        ("mixnet_s", 1.0, 4_134_606, 239_173_360),
        ("mixnet_m", 1.0, 5_014_382, 339_172_672),
        ("mixnet_l", 1.0, 7_329_252, 555_251_792),
        ("mnasnet_b1", 0.5, 2_218_512, 104_455_968),
        ("mnasnet_b1", 0.75, 3_170_208, 215_493_104),
        ("mnasnet_b1", 1.0, 4_383_312, 314_415_872),
        ("mnasnet_b1", 1.4, 7_115_728, 588_799_408),
        ("efficientnet_b0", 1.0, 5_288_548, 385_814_752),
    ],
)
def test_searched_networks(name, width, parameters, macs):
    counts = count(get_architecture(name).graph(width), (224, 224))
    assert (counts.parameters, counts.macs) == (parameters, macs)


# As torchvision publishes them (EfficientNet-B, MobileNetV3) and timm builds them (Lite, narrow MobileNetV3).
@pytest.mark.parametrize(
    ("name", "width", "parameters"),
    [
        ("mobilenet_v3_large", 1.0, 5_483_032),
        ("mobilenet_v3_small", 1.0, 2_542_856),
        ("mobilenet_v3_large", 0.75, 3_993_528),
        ("mobilenet_v3_small", 0.5, 1_593_224),
        ("mnasnet_b1", 1.3, 6_282_256),
        ("efficientnet_b1", 1.0, 7_794_184),
        ("efficientnet_b2", 1.0, 9_109_994),
        ("efficientnet_b3", 1.0, 12_233_232),
        ("efficientnet_b4", 1.0, 19_341_616),
        ("efficientnet_b5", 1.0, 30_389_784),
        ("efficientnet_b6", 1.0, 43_040_704),
        ("efficientnet_b7", 1.0, 66_347_960),
        ("efficientnet_lite0", 1.0, 4_652_008),
        ("efficientnet_lite4", 1.0, 13_006_568),
    ],
)
def test_parameters_of_relatives(name, width, parameters):
    assert count(get_architecture(name).graph(width), (224, 224)).parameters == parameters


@pytest.mark.parametrize(
    ("name", "parameters", "macs", "outputs"),
    [  # as torchvision publishes them, with 21 classes
        ("lraspp_mobilenet_v3_large", 3_221_538, 2.086, ("logits",)),
        ("deeplabv3_mobilenet_v3_large", 11_029_328, 10.452, ("logits", "auxiliary")),
    ],
)
def test_networks_that_score_every_pixel(name, parameters, macs, outputs):
    graph = get_architecture(name).graph(num_classes=21)
    counts = count(graph, (520, 520))
    assert (counts.parameters, graph.output_names) == (parameters, outputs)
    assert counts.macs == pytest.approx(macs * 1e9, rel=1e-3)
    assert all(graph.channels_of(node) == 21 for node in graph.output_nodes.values())
    with pytest.raises(ValueError, match=r"segment_k3_s2_from9.*there is no block9 before it"):
        replace(V2, rows=(*V2.rows[:3], "segment_k3_from9_s2_c8")).graph()
    with pytest.raises(ValueError, match="only aspp blocks take several dilations"):
        Row.parse("inverted_d2.4_c8")


def test_mixnet_s_layers():
    graph = get_architecture("mixnet_s").graph()
    counts = count(graph, (224, 224))
    depthwise = sum(layer.macs for layer in counts.layers if layer.name.endswith("depthwise"))
    assert depthwise / counts.macs == pytest.approx(0.163, abs=0.0005)
    assert graph["block4.depthwise"]["partition"] == (48, 48, 48)
    assert graph["block12.depthwise"]["partition"] == (90, 90, 90, 90)
    assert graph["block14.depthwise"]["kernels"] == ((3, 3), (5, 5), (7, 7), (9, 9), (11, 11))
    assert graph["block2.expand"].parameters == {"0.weight": (48, 8, 1, 1), "1.weight": (48, 8, 1, 1)}
    functions = {node.block: node["function"] for node in graph if node.operation == "activation"}
    assert [functions[block] for block in ("stem", "block3", "block4", "block16", "head")] == [
        *("relu", "relu", "swish", "swish", "relu")
    ]


def test_squeeze_of_input_and_of_expanded_channels():
    mixnet = get_architecture("mixnet_s").graph()["block4.squeeze"]
    assert (mixnet["reduced"], mixnet["activation"], mixnet["gate"]) == (12, "swish", "sigmoid")  # half of 24
    v3 = get_architecture("mobilenet_v3_small").graph()["block1.squeeze"]
    assert (v3["reduced"], v3["activation"], v3["gate"]) == (8, "relu", "hard_sigmoid")  # a quarter of 16, rounded
    assert v3.macs((16, 28, 28)) == 2 * 16 * 8 and v3.parameter_count == 2 * 16 * 8 + 16 + 8


def test_depth_multiplies_repeats():
    def stages(name):
        blocks = get_architecture(name).blocks
        return [sum(block.stage == stage for block in blocks) for stage in range(1, 8)]

    assert stages("efficientnet_b0") == [1, 2, 2, 3, 3, 4, 1]
    assert stages("efficientnet_b7") == [4, 7, 7, 10, 10, 13, 4]
    assert stages("efficientnet_lite4") == [1, 4, 4, 6, 6, 8, 1]


def test_no_residual_where_the_table_has_none():
    """Not even where a narrow network has as many channels after the block as before it."""
    names = {node.name for node in get_architecture("mnasnet_b1").graph(0.25)}
    assert "block1.add" not in names and "block3.add" in names


def test_memory_table():
    """1801.04381, Table 3: channels and kilobytes per resolution; 7x7x1024 is misprinted as 199 there."""
    table_v2 = {112: (16, 400), 56: (32, 200), 28: (64, 100), 14: (160, 62), 7: (320, 32), 1: (1280, 2)}
    table_v1 = {112: (64, 1600), 56: (128, 800), 28: (256, 400), 14: (512, 200), 1: (1024, 2)}
    for table in (table_v2, table_v1):
        for size, (channels, kilobytes) in table.items():
            assert materialised_bytes(size, channels) / 1000 == pytest.approx(kilobytes, rel=0.03, abs=0.6)
    assert max(materialised_bytes(size, channels) for size, (channels, _) in table_v2.items()) == 401_408
    assert materialised_bytes(112, 64) == 1_605_632


def test_memory_table_channels_are_the_networks():
    """Each row's output channels at its input size, exact at 56, 28 and 14."""
    graph = V2.graph()
    shapes = graph.shapes((224, 224))
    channels = {}
    for block in V2.blocks:
        if block.row.kind == "inverted":
            nodes = graph.blocks[block.name]
            size = shapes[nodes[0].inputs[0]][1]
            channels[size] = max(channels.get(size, 0), block.row.channels)
    assert {size: channels[size] for size in (56, 28, 14, 7)} == {56: 32, 28: 64, 14: 160, 7: 320}


def test_memory_peaks():
    """1801.04381, section 5.1, at 224."""
    counts = count(V2.graph(), (224, 224))
    assert counts.op_by_op_memory == 1_505_280  # the depthwise convolution of block 2
    assert max(counts.layers, key=lambda layer: layer.memory).name == "block2.depthwise"
    assert counts.block_memory == 602_112  # block 1
    assert max(layer.output[0] * layer.output[1] * layer.output[2] for layer in counts.layers[:-2]) == 1_204_224


def test_block_traffic_of_the_bottlenecks():
    graph = V2.graph()
    shapes = graph.shapes((224, 224))
    values = 0
    for name, nodes in graph.blocks.items():
        if name.startswith("block"):
            for shape in (shapes[nodes[0].inputs[0]], shapes[nodes[-1].name]):
                values += shape[0] * shape[1] * shape[2]
    assert 4 * values / 1e6 == pytest.approx(6.1, abs=0.05)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 1), (224, 160), (193, 225)])
@pytest.mark.parametrize("name", ANY_SIZE)
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_any_input_size(name, size, padding):
    definition = get_architecture(name)
    graph = definition.graph(0.25, padding=padding)
    shapes, halved = graph.shapes(size), size
    for block in definition.blocks:
        if block.stride == 2 and not block.name.startswith(("extra", "mask")):
            halved = tuple(-(-s // 2) for s in halved)
    blocks = list(graph.blocks)
    heads = (
        "pool",
        "aspp",
        "segmentation",
        "extra1",
        *(block.name for block in definition.blocks if block.row.kind in ("join", "upward")),
    )
    behind = next(number for number, block in enumerate(blocks) if block in heads)
    last = "head.conv" if "mask" in blocks else graph.blocks[blocks[behind - 1]][-1].name
    assert shapes[last][1:] == halved
    if graph.main_output == "logits":  # of every pixel, or of the image
        every = "segmentation" in blocks
        named = [node for output, node in graph.output_nodes.items() if not output.startswith("stage")]
        assert {shapes[node] for node in named} == {(1000, *size) if every else (1000,)}


def test_round_channels_is_the_reference_rule():
    # 12 rounds up (a tie), 11.2 up because 8 would be more than 10 % less, 3 to the divisor itself
    assert [round_channels(c) for c in (3, 8, 11.2, 12, 16 * 0.35, 24 * 1.4, 320 * 1.3)] == [
        8,
        8,
        16,
        16,
        8,
        32,
        416,
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("bottleneck_r1", "unknown kind 'bottleneck'; there are conv, separable, inverted"),
        ("conv_k3_y2", "'y2' is none of"),
        ("conv_kk", "'kk' is none of"),
        ("inverted_a1.3", "'a1.3' is none of"),
        ("conv_k3.5_c8", "only separable and inverted blocks take several kernel sizes"),
    ],
)
def test_bad_rows(row, message):
    with pytest.raises(ValueError, match=message):
        Row.parse(row)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be a number above 0"),
        ({"width": float("nan")}, "width must be a number above 0"),
        ({"num_classes": 0}, "num_classes must be an integer >= 1"),
        ({"num_classes": 2.5}, "num_classes must be an integer >= 1"),
        ({"padding": "valid"}, "'symmetric' .PyTorch. or 'same'"),
        ({"bn_eps": 0}, "bn_eps must be a number between 0 and 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        V2.graph(**options)


def test_unknown_architecture():
    with pytest.raises(ValueError, match="no architecture 'resnet'; there are: mobilenet_v2, mobilenet_v1"):
        get_architecture("resnet")


def test_random_weights_are_reproducible():
    graph = V2.graph(0.25, 3)
    one, two, other = random_weights(graph, 1), random_weights(graph, 1), random_weights(graph, 2)
    assert set(one) == set(graph.tensors)
    assert all((one[name] == two[name]).all() for name in one)
    assert (one["stem.weight"] != other["stem.weight"]).any()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_are_written_as_they_are_read(name):
    for block in get_architecture(name).blocks:
        assert Row.parse(str(block.row)) == block.row
    row = "inverted_k3.5_g24.8_s2_e4.5_a1.1_p1.1_se0.25_c24_dilated_wide_hardswish_noskip"
    assert str(Row.parse(row)) == row


def added_weights(architecture, size=(224, 224)):
    """By how many values each layer is larger than in MobileNetV2."""
    pairs = zip(count(architecture.graph(), size).layers, count(V2.graph(), size).layers, strict=True)
    return {mixed.name: mixed.weights - plain.weights for mixed, plain in pairs if mixed.weights != plain.weights}


def test_larger_kernels_in_all_layers_or_one():
    """The substitutions of 1907.09595, section 3."""
    everywhere = added_weights(V2.with_mixed(9))
    assert len(everywhere) == 17 and everywhere["block3.depthwise"] == 144 * (81 - 9)
    assert added_weights(V2.with_mixed(9, ["block3"])) == {"block3.depthwise": 144 * 72}
    assert added_weights(V2.with_mixed((3, 5, 7, 9), ["block3"])) == {"block3.depthwise": 36 * (16 + 40 + 72)}
    graph = V2.with_mixed((3, 5, 7, 9), ["block3"]).graph()
    assert graph["block3.depthwise"]["kernels"] == ((3, 3), (5, 5), (7, 7), (9, 9))
    assert graph["block3.depthwise"].parameters["3.weight"] == (36, 1, 9, 9)
    assert [node.name for node in graph] == [node.name for node in V2.graph()]
    assert V1.with_mixed(5).graph()["block13.depthwise"]["kernel"] == (5, 5)


@pytest.mark.parametrize(
    ("partition", "expected"), [("equal", (12, 10, 10)), ("exponential", (16, 8, 8)), ((1, 30, 1), (1, 30, 1))]
)
def test_partitions(partition, expected):
    graph = V2.with_mixed((3, 5, 7), ["block1"], partition).graph()
    assert graph["block1.depthwise"]["partition"] == expected
    assert count(graph, (64, 64)).layers[1].weights == sum(c * k * k for c, k in zip(expected, (3, 5, 7), strict=True))


def test_dilated_kernels_only_at_stride_one():
    graph = V2.with_mixed((3, 5, 9), dilated=True).graph()
    assert graph["block1.depthwise"]["kernels"] == ((3, 3),) * 3
    assert graph["block1.depthwise"]["dilations"] == ((1, 1), (2, 2), (4, 4))
    assert graph["block2.depthwise"]["kernels"] == ((3, 3), (5, 5), (9, 9))  # stride 2
    assert graph["block2.depthwise"]["dilations"] == ((1, 1),) * 3
    single = V2.with_mixed(9, dilated=True).graph()["block1.depthwise"]
    assert (single.operation, single["kernel"], single["dilation"]) == ("depthwise_conv2d", (3, 3), (4, 4))
    for padding in ("symmetric", "same"):
        assert V2.with_mixed((3, 9), dilated=True).graph(padding=padding).shapes((65, 64))["head"] == (1280, 3, 2)


def test_a_mixed_network_keeps_its_depth():
    graph = get_architecture("efficientnet_b3").with_mixed((3, 5)).graph()
    assert len(graph.blocks) == len(get_architecture("efficientnet_b3").blocks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((),), r"kernels must be sizes, integers >= 1, got \(\)"),
        (((3, 0),), r"integers >= 1, got \(3, 0\)"),
        (((3, 5), ["block1", "block99"]), "no block 'block99' with a depthwise convolution; there are: block1, block2"),
        (((3, 5), ["stem"]), "no block 'stem' with a depthwise convolution"),
        (((3, 5), None, "half"), "partition must be 'equal' or 'exponential' or numbers, got 'half'"),
        (
            ((3, 5), ["block1"], (16, 15)),
            r"block1 .*each of 2 kernels its part of 32 channels, got 16.15 \(31 channels",
        ),
        (((3, 5), ["block1"], (8, 8, 16)), "each of 2 kernels its part of 32 channels, got 8.8.16"),
        (((3, 5), ["block1", "block2"], "equal", True), r"has stride 1, and cannot be in block2 \(stride 2\)"),
        (((3, 4), None, "equal", True), "the dilated variant needs odd kernel sizes from 3, got 3.4"),
        ((tuple(range(3, 36)),), r"block1 .*to the number of channels, 32, got 33"),
    ],
)
def test_bad_mixtures(arguments, message):
    with pytest.raises(ValueError, match=message):
        V2.with_mixed(*arguments).graph()


def test_no_depthwise_convolution_to_mix():
    with pytest.raises(ValueError, match="mobilenet_v1_dense has no depthwise convolutions"):
        get_architecture("mobilenet_v1_dense").with_mixed(9)


def test_kernels_that_give_different_sizes():
    with pytest.raises(ValueError, match=r"block1\.depthwise: kernels 3x3, 4x4 give images of different sizes"):
        V2.with_mixed((3, 4)).graph().shapes((32, 32))
    assert V2.with_mixed((3, 4)).graph(padding="same").shapes((32, 32))["block1.depthwise"] == (32, 16, 16)


def test_groups_that_do_not_divide():
    with pytest.raises(ValueError, match=r"block1 .*3 groups must divide its 16 channels"):
        replace(V2, rows=("conv_k3_s2_c16", "inverted_e6_a1.1.1_c16")).graph()


def test_a_variant_is_its_rows_with_words_appended():
    v2 = get_architecture("mobilenet_v2")
    varied = v2.varied({"stem": "s1", "c24": "s1", "first": "expands", "inverted": "shortcut", "classifier": ()})
    assert varied.rows[:3] == (
        "conv_k3_s2_c32_s1",
        "inverted_r1_k3_s1_e1_c16_shortcut_expands",
        "inverted_r2_k3_s2_e6_c24_shortcut_s1",
    )
    graph = varied.graph()
    assert graph.shapes((32, 32))["head"] == (1280, 4, 4) and list(graph.blocks)[-1] == "pool"
    assert graph["block1.expand"]["channels"] == 32
    shortcuts = [node.name for node in graph if node.name.endswith(".shortcut")]
    assert shortcuts == [f"block{n}.shortcut" for n in (1, 2, 11, 17)]
    assert graph["block2.add"].inputs == ("block2.project.norm", "block2.shortcut.norm")
    assert graph["block3.add"].inputs == ("block3.project.norm", "block2.add")
    assert v2.rows[0] == "conv_k3_s2_c32"  # the architecture itself is as it was
    instead = v2.varied({"c320": ("inverted_k5_s1_e3_c64", "inverted_k3_s1_e3_c64")})
    assert len(instead.rows) == len(v2.rows) + 1 and len(instead.blocks) == len(v2.blocks) + 1


def test_roundings():
    channels = {
        rounding: v2.graph(0.1, 10)["block1.project"]["channels"]
        for rounding in ("nearest", "nearest, by 4 at width 0.1", "up", "down", "down, at least 8")
        for v2 in [get_architecture("mobilenet_v2").varied({}, conventions={"rounding": rounding})]
    }
    assert channels == {
        "nearest": 8,
        "nearest, by 4 at width 0.1": 4,
        "up": 8,
        "down": 1,
        "down, at least 8": 8,
    }


def test_expansions_of_the_table_or_of_the_block():
    v3 = get_architecture("mobilenet_v3_large")
    of_table = v3.varied({}, conventions={"expansion_of": "table"})
    assert of_table.graph(1.0).tensors == v3.graph(1.0).tensors
    assert v3.graph(0.35)["block9.expand"]["channels"] == 72  # 2.3 times 32
    assert of_table.graph(0.35)["block9.expand"]["channels"] == 64  # 0.35 times 184


def test_places_of_squeeze_and_excitation():
    v3 = get_architecture("mobilenet_v3_small")

    def inside(block, place):
        graph = v3.varied({}, squeeze={"place": place}).graph()
        return [node.name.removeprefix(f"{block}.") for node in graph.blocks[block]]

    squeezed = ["squeeze", "squeeze.activation"]
    assert inside("block1", "before") == inside("block1", "after")  # where nothing is expanded
    assert inside("block5", "before")[3:7] == ["depthwise", "depthwise.norm", *squeezed]
    assert inside("block5", "projected")[-3:] == ["project.norm", "squeeze", "add"]


def test_folded_norms_biases_and_an_eps_of_linear_layers():
    v2 = get_architecture("mobilenet_v2")
    folded = v2.varied({}, conventions={"norms": False}).graph()
    assert not any(node.operation == "batch_norm" for node in folded)
    assert folded["block2.expand"].parameters == {"weight": (96, 16, 1, 1), "bias": (96,)}
    mixed = get_architecture("mixnet_s").varied({}, conventions={"norms": False}).graph()
    assert mixed["block4.depthwise"].parameters["1.bias"] == mixed["block4.depthwise"].parameters["1.weight"][:1]
    biased = v2.varied({}, conventions={"bias": True, "linear_eps": 1e-4}).graph(bn_eps=1e-3)
    assert biased["stem"].parameters["bias"] == (32,)
    assert (biased["block2.expand.norm"]["eps"], biased["block2.project.norm"]["eps"]) == (1e-3, 1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_channels_are_those_of_the_graph(name):
    definition = get_architecture(name)
    channels, graph = definition.channels(0.5), definition.graph(0.5)
    shapes = graph.shapes((48, 48) if name == FIXED_SIZE else (64, 64))
    assert channels == {block: shapes[nodes[-1].name][0] for block, nodes in graph.blocks.items() if block in channels}
    assert set(graph.blocks) - set(channels) <= set(OF_CLASSES)
