"""The networks are the papers' tables: counts, shapes, and the language they are written in."""

import pytest

from npmobilenet.architectures import ARCHITECTURES, get_architecture, random_weights
from npmobilenet.architectures.blocks import Row, round_channels
from npmobilenet.counts import count, materialised_bytes

V2, V1 = ARCHITECTURES["mobilenet_v2"], ARCHITECTURES["mobilenet_v1"]


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
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_any_input_size(name, size, padding):
    graph = get_architecture(name).graph(0.25, padding=padding)
    halved = size
    for _ in range(5):
        halved = tuple(-(-s // 2) for s in halved)
    assert graph.shapes(size)[graph["pool"].inputs[0]][1:] == halved


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
        ("conv_k3_x2", "'x2' is none of"),
        ("conv_kk", "'kk' is none of"),
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
