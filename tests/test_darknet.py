"""Darknet's two files, from their bytes to boxes."""

import math
import pickle
import shutil
import struct

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures.yolo import Head, Yolo
from npmobilenet.checkpoints.darknet import parse
from npmobilenet.cli import main
from npmobilenet.counts import count
from npmobilenet.errors import CheckpointError
from npmobilenet.image import letterboxed, place_of, preprocess
from npmobilenet.tasks.boxes import WHOLE, Place, in_photograph
from npmobilenet.tasks.detection import Detection, UncertainDetection, detections
from npmobilenet.tasks.yolo import YOLO, decoded
from tests.conftest import DATA, compiled_only, photo
from tests.data.make_darknet import CFG, CONVOLUTIONS, OUTPUTS, SIZE, chosen, convolution, image, section, weights

TOLERANCE = 1e-4  # of the largest value
NET = section("net", height=32, width=32)
YOLO_LAYER = section("yolo", "anchors = 4,6,  9,7", mask="0,1", classes=2)
SMALL = "\n".join([NET, convolution(4, stride=2), convolution(14, size=1, norm=False), YOLO_LAYER])
SMALL_WEIGHTS = weights(((3, 4, 3, True), (4, 14, 1, False)))


def written(folder, cfg=CFG, numbers=None, stem="net"):
    """The pair in a folder, and the path of its configuration."""
    path = folder / f"{stem}.cfg"
    path.write_text(cfg)
    path.with_suffix(".weights").write_bytes(weights() if numbers is None else numbers)
    return path


# --- The answers of OpenCV ---------------------------------------------------------------------------------


@compiled_only
def test_every_kind_of_layer(tmp_path):
    model = npmobilenet.load(written(tmp_path))
    assert model.output_names == tuple(OUTPUTS) and len(model.classes) == 2 and not model.plain_layers
    found = model.run({"input": image()})
    with np.load(DATA / "reference/darknet.npz") as stored:
        for head in model._detector.heads:
            expected = stored[head.output]
            assert np.abs(chosen(found[head.output]) - expected).max() <= TOLERANCE * expected[-1]
            boxes, sure, scores, unsure = decoded(head, found[head.output][0])
            right = stored[f"{head.output}/boxes"].reshape(-1, 3, 7).transpose(1, 0, 2).reshape(-1, 7)
            assert np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - right[:, :2]).max() < 1e-5
            assert np.abs(boxes[:, 2:] - boxes[:, :2] - right[:, 2:4]).max() < 1e-4 * right[:, 2:4].max()
            assert np.abs(sure - right[:, 4]).max() < 1e-4 and np.isnan(unsure).all()
            product = sure[:, None] * scores
            shown = right[:, 5:] > 0  # OpenCV leaves low ones out
            assert shown.any() and np.abs(product - right[:, 5:])[shown].max() < 1e-4


def test_counted(tmp_path):
    model = npmobilenet.load(written(tmp_path), backend="reference")
    numbers = (len(weights()) - 20) // 4
    norms = sum(filters for _, filters, _, norm in CONVOLUTIONS if norm)
    assert count(model.graph, SIZE).parameters == numbers - 2 * norms
    assert model.graph.shapes(SIZE)["layer13"] == (8, 16, 24) and model.graph["layer16"].operation == "depthwise_conv2d"
    assert model.preprocessing == letterboxed(SIZE)


def test_yolov3():
    """As many numbers as its published weights have: 248,007,048 bytes."""

    def residuals(filters, number):
        block = convolution(filters // 2, size=1), convolution(filters), section("shortcut", **{"from": -3})
        return [convolution(filters, stride=2), *block * number]

    def head(filters, mask, classes, kind):
        pair = convolution(filters, size=1), convolution(2 * filters)
        last = (5 if kind == "yolo" else 9) + classes
        anchors = "anchors=10,13, 16,30, 33,23, 30,61, 62,45, 59,119, 116,90, 156,198, 373,326"
        layer = section(kind, anchors, mask=mask, classes=classes)
        return [*pair * 3, convolution(3 * last, size=1, norm=False), layer]

    def lower(filters, layer):
        route = section("route", layers=-4), convolution(filters, size=1), section("upsample", stride=2)
        return [*route, section("route", layers=f"-1, {layer}")]

    for kind, classes, size, expected in (("yolo", 80, 416, 62_001_757), ("gaussian_yolo", 10, 512, None)):
        stages = [(64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)]
        layers = [convolution(32), *(layer for stage in stages for layer in residuals(*stage))]
        layers += head(512, "6,7,8", classes, kind) + lower(256, 61) + head(256, "3,4,5", classes, kind)
        layers += lower(128, 36) + head(128, "0,1,2", classes, kind)
        cfg = "\n".join([section("net", height=size, width=size), *layers])
        network = Yolo(parse(cfg.encode()))
        numbers = sum(math.prod(shape) for shape in network.graph.tensors.values())
        assert [head.stride for head in network.heads] == [(32, 32), (16, 16), (8, 8)]
        assert expected in (numbers, None) and all(head.gaussian != (kind == "yolo") for head in network.heads)


# --- Boxes -------------------------------------------------------------------------------------------------


def logistic(x):
    return 1 / (1 + math.exp(-x))


def test_gaussian_boxes():
    """As 1904.04620 and its authors' layer have it, value by value."""
    head = Head("a", ((10, 20), (30, 15)), 3, (8, 16), gaussian=True)
    y = np.random.default_rng(0).standard_normal((2 * 12, 2, 3)).astype(np.float32)
    boxes, sure, scores, unsure = decoded(head, y)
    at = 0
    for anchor in range(2):
        for row in range(2):
            for column in range(3):
                mx, sx, my, sy, mw, sw, mh, sh, thing, *classes = y[12 * anchor : 12 * anchor + 12, row, column]
                x, down = (column + logistic(mx)) / 3, (row + logistic(my)) / 2
                width = math.exp(mw) * head.anchors[anchor][0] / 48
                height = math.exp(mh) * head.anchors[anchor][1] / 16
                expected = (x - width / 2, down - height / 2, x + width / 2, down + height / 2)
                assert boxes[at] == pytest.approx(expected, rel=1e-5, abs=1e-6)
                spread = [logistic(s) for s in (sx, sy, sw, sh)]
                assert unsure[at] == pytest.approx(spread, rel=1e-5)
                assert sure[at] == pytest.approx(logistic(thing) * (1 - sum(spread) / 4), rel=1e-5)
                assert scores[at] == pytest.approx([logistic(each) for each in classes], rel=1e-5)
                at += 1
    (found,) = detections(YOLO((head,)).find({"a": y[None]}, 0.1), ("x", "y", "z"), [(16, 48)], [WHOLE])
    assert found and all(0 < one.score <= 1 and len(one.uncertainty) == 4 for one in found)
    best = (sure[:, None] * scores).max()
    assert found[0].score == pytest.approx(best, rel=1e-6) and found[0].label in "xyz"


def test_a_gaussian_head_beside_a_plain_one():
    """Boxes of the head that tells have uncertainties, the others none."""
    heads = (Head("a", ((20, 20),), 1, (16, 16), gaussian=True), Head("b", ((8, 8),), 1, (8, 8)))
    outputs = {"a": np.zeros((1, 10, 1, 2), np.float32), "b": np.full((1, 6, 2, 4), -9, np.float32)}
    outputs["a"][0, 8:], outputs["b"][0, 4:, 0, 3] = 9, 9
    (found,) = detections(YOLO(heads).find(outputs, 0.4), ("x",), [(16, 32)], [WHOLE])
    assert [one.uncertainty for one in found] == [None, (0.5,) * 4, (0.5,) * 4]


def test_classes_suppress_their_own():
    head = Head("a", ((16, 16),), 2, (16, 16))
    y = np.full((1, 7, 2, 2), -9, np.float32)
    y[0, :4], y[0, 4:6] = 0, 9  # the same squares a pixel apart, of the first class
    y[0, 6, 0, 0] = 9  # and one of the second
    y[0, 2:4] = math.log(8)
    (found,) = detections(YOLO((head,)).find({"a": y}, 0.5), ("cat", "dog"), [(32, 32)], [WHOLE])
    assert [one.label for one in found] == ["cat", "dog"] and all(one.uncertainty is None for one in found)
    assert found[0].box == (0, 0, 32, 32)


def test_boxes_beyond_all_numbers():
    head = Head("a", ((16, 16),), 1, (16, 16))
    y = np.full((1, 6, 1, 1), 1e30, np.float32)
    (found,) = detections(YOLO((head,)).find({"a": y}, 0), ("all",), [(5, 7)], [WHOLE])
    assert found == [Detection("all", 1.0, (0, 0, 7, 5))]


def test_a_detection_is_three_values():
    """What a Gaussian head tells besides stands beside them, in every copy."""
    plain, told = Detection("cat", 0.5, (1, 2, 3, 4)), UncertainDetection("cat", 0.5, (1, 2, 3, 4), (0.1,) * 4)
    label, score, box = told
    assert (label, score, box) == plain and plain.uncertainty is None
    assert repr(plain) == "Detection(label='cat', score=0.5, box=(1, 2, 3, 4))"
    assert repr(told).endswith("box=(1, 2, 3, 4), uncertainty=(0.1, 0.1, 0.1, 0.1))")
    assert pickle.loads(pickle.dumps(told)).uncertainty == told.uncertainty == (0.1,) * 4
    assert told._asdict() == {**plain._asdict(), "uncertainty": (0.1,) * 4} and list(plain._asdict()) == [
        "label",
        "score",
        "box",
    ]


def test_letterboxes():
    preprocessing = letterboxed((64, 96))
    assert preprocessing.whole and place_of(100, 100, preprocessing) == (16 / 96, 0, 64 / 96, 1)
    x = preprocess(np.full((100, 100, 3), 255, np.uint8), preprocessing)
    assert x.shape == (3, 64, 96) and (x[:, :, :16] == 0.5).all() and (x[:, :, 16:80] == 1).all()
    assert place_of(500, 333, letterboxed((416, 416))) == (69 / 416, 0, 277 / 416, 1)  # 277.06 pixels
    assert place_of(333, 502, letterboxed((416, 416))) == (0, 70 / 416, 1, 275 / 416)  # 275.95
    inside = in_photograph(np.array([[1 / 6, 0, 0.5, 0.5], [0, 0, 1, 1]]), Place(1 / 6, 0, 2 / 3, 1), (200, 100))
    assert inside == pytest.approx(np.array([[0, 0, 50, 100], [0, 0, 100, 200]]))
    ramp = np.arange(5, dtype=np.uint8)[:, None, None].repeat(5, 1).repeat(3, 2) * 60
    ends = preprocess(ramp, letterboxed((9, 9)))
    assert ends[0, :, 0] * 255 == pytest.approx(np.arange(9) * 30, abs=1e-4)  # the first and last stay what they are


# --- Two files ---------------------------------------------------------------------------------------------


def test_a_pair_is_found(tmp_path):
    cfg = written(tmp_path, SMALL, SMALL_WEIGHTS)
    numbers = cfg.with_suffix(".weights")
    for path in (cfg, numbers, str(numbers)):
        assert npmobilenet.load(path, backend="reference").architecture == "net"
    (tmp_path / "net.names").write_text("cat\ndog\n")
    shutil.copy(numbers, tmp_path / "net_final.weights")
    shutil.copy(cfg, tmp_path / "other.cfg")
    model = npmobilenet.load(tmp_path / "net_final.weights", backend="reference")
    assert model.classes == ("cat", "dog") and model.provenance["configuration"][0] == str(cfg)
    shutil.copy(numbers, tmp_path / "elsewhere.weights")
    with pytest.raises(
        CheckpointError, match=r"no 'elsewhere\.cfg' beside it; there are 'net\.cfg', 'other\.cfg': say pair"
    ):
        npmobilenet.load(tmp_path / "elsewhere.weights")
    model = npmobilenet.load(tmp_path / "elsewhere.weights", pair=cfg, classes=["a", "b"], backend="reference")
    assert model.classes == ("a", "b") and model.graph["layer0.norm"]["eps"] == 1e-6
    assert npmobilenet.load(cfg, bn_eps=1e-5, backend="reference").graph["layer0.norm"]["eps"] == 1e-5


def test_what_is_not_darknets(tmp_path):
    cfg = written(tmp_path, SMALL, SMALL_WEIGHTS)
    with pytest.raises(ValueError, match="whose width cannot be chosen any more"):
        npmobilenet.load(cfg, width=0.5)
    with pytest.raises(ValueError, match=r"pair is of Darknet's two files, \.cfg and \.weights"):
        npmobilenet.load("mobilenet_v2", pair=cfg)
    with pytest.raises(CheckpointError, match="does not exist"):
        npmobilenet.load(tmp_path / "no.weights")
    other = tmp_path / "w.weights"
    np.savez(tmp_path / "w.npz", a=np.zeros(3, np.float32))
    (tmp_path / "w.npz").rename(other)
    with pytest.raises(CheckpointError, match="are not those of"):  # read as what it is
        npmobilenet.load(other)


def test_lengths(tmp_path):
    for numbers in (SMALL_WEIGHTS[:-4], SMALL_WEIGHTS + bytes(8), SMALL_WEIGHTS[:-1], SMALL_WEIGHTS[:20], b""):
        path = written(tmp_path, SMALL, numbers)
        with pytest.raises(
            CheckpointError, match=r"numbers after its header, and 'net\.cfg' takes 194|Darknet's version"
        ):
            npmobilenet.load(path)
    old = struct.pack("<3ii", 0, 1, 0, 7) + SMALL_WEIGHTS[20:]
    assert npmobilenet.load(written(tmp_path, SMALL, old), backend="reference").architecture == "net"
    damaged = bytearray(SMALL_WEIGHTS)
    damaged[-4:] = struct.pack("<f", math.nan)
    with pytest.raises(CheckpointError, match=r"layer1\.weight has 1 of 56 values that are NaN"):
        npmobilenet.load(written(tmp_path, SMALL, bytes(damaged)))


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ("", r"net\.cfg: is empty, expected \[net\]"),
        ("width=3", r"line 1 is 'width=3', expected \[net\]"),
        ("[net]\nwidth", "line 2 is 'width', expected option=value"),
        (section("convolutional"), r"begins with \[convolutional\] in line 1, expected \[net\]"),
        (section("net", width=32), r"height must be an integer from 1 to 4096, got nothing"),
        (section("net", width="9" * 40, height=32), "width must be an integer from 1 to 4096, got '999"),
        (NET, r"has no \[yolo\] or \[gaussian_yolo\]"),
        (NET + section("connected", output=3), r"layer 0 in line 4 is \[connected\]; known are \[convolutional\]"),
        (NET + section("convolutional", filters=0), "filters must be an integer from 1 to 65536, got '0'"),
        (NET + section("convolutional", filters=2, groups=2), "groups must be a number that divides 3 channels and 2"),
        (NET + section("convolutional", activation="mish"), "activation must be one of linear, leaky, .* got 'mish'"),
        (NET + section("convolutional", binary=1), "binary must be 0, for others are not known here"),
        (NET + section("convolutional", size=64), r"\[convolutional\] in line 4: a window of 64"),
        (NET + section("route", layers="0"), "layers must be numbers of layers before it"),
        (NET + convolution(4) + section("route", layers="-1", groups=2), "groups must be 1, for parts of a layer"),
        (NET + convolution(4) + section("shortcut", **{"from": "-1.5"}), "from must be numbers of layers before it"),
        (NET + convolution(4) + convolution(5) + section("shortcut", **{"from": -2}), "two tensors of one shape"),
        (NET + convolution(4) + YOLO_LAYER, "it reads 4 channels, and 2 anchors of 2 classes take 14"),
        (NET + convolution(14) + section("yolo", "anchors=1,2,3", classes=2), "anchors must be pairs of positive"),
        (NET + convolution(14) + section("yolo", "anchors=1,2", mask="1", classes=2), "mask must be numbers of its"),
        (NET + section("upsample", stride=64) * 2, "is more than any network's|does not"),
        ("\n".join(["[net]"] * 3000), "has more than 2000 sections"),
    ],
)  # fmt: skip
def test_bad_configurations(cfg, message, tmp_path):
    path = written(tmp_path, cfg, SMALL_WEIGHTS)
    with pytest.raises(CheckpointError, match=message) as caught:
        npmobilenet.load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_mutated_files(tmp_path):
    """Whatever is changed: a network, or one line that says what is wrong."""
    random, outcomes = np.random.default_rng(0), [0, 0]
    for number in range(200):
        cfg, numbers = bytearray(CFG.encode()), bytearray(weights())
        data = cfg if number % 3 else numbers
        for _ in range(1 + number % 4):
            at = random.integers(len(data) if data is cfg else 64)
            data[at] = random.integers(32, 127) if number % 2 else random.integers(256)
        if number % 7 == 0:
            del data[random.integers(len(data)) :]
        path = tmp_path / "net.cfg"
        path.write_bytes(cfg)
        path.with_suffix(".weights").write_bytes(numbers)
        try:
            npmobilenet.load(path, backend="reference")
            outcomes[0] += 1
        except CheckpointError as error:
            assert "\n" not in str(error) and "net." in str(error)
            outcomes[1] += 1
    assert min(outcomes) > 30


# --- What else a model can -----------------------------------------------------------------------------------


@compiled_only
def test_stored_and_quantised(tmp_path):
    gaussian = CFG.replace("[yolo]", "[gaussian_yolo]").replace("filters=21", "filters=33")
    wider = [(c, 33 if f == 21 else f, k, norm) for c, f, k, norm in CONVOLUTIONS]
    model = npmobilenet.load(written(tmp_path, gaussian, weights(wider)))
    found = model.detect(photo("chelsea.png"), 0.1)
    assert found and all(len(one.uncertainty) == 4 for one in found)
    path = npmobilenet.export_weights(model, tmp_path / "stored.safetensors")
    assert npmobilenet.load(path).detect(photo("chelsea.png"), 0.1) == found
    small = npmobilenet.quantize(model)
    assert small.dtype == "int8" and small.output_names == model.output_names
    assert small.detect(photo("chelsea.png"), 0.1)[0].uncertainty is not None


@compiled_only
def test_commands(tmp_path, capsys):
    path = written(tmp_path)
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "net, width 1, input 64x96" in out and "layer13" in out and "configuration" in out
    assert main(["detect", "--model", str(path), "--threshold", "0.3", "--json", str(photo("chelsea.png"))]) == 0
    assert '"uncertainty"' not in capsys.readouterr().out
    assert main(["inspect", str(path), "--mixed", "3,5"]) == 1
    assert "a whole network, and no table of an architecture" in capsys.readouterr().err
