"""Boxes around things: from a frozen graph and a photograph to what is drawn."""

import json
from dataclasses import replace

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.checkpoints import read_checkpoint
from npmobilenet.checkpoints.fit import naming
from npmobilenet.cli import main
from npmobilenet.counts import count
from npmobilenet.errors import CheckpointError, ImageError
from npmobilenet.image import preprocess, read_image
from npmobilenet.tasks import boxes
from npmobilenet.tasks.boxes import WHOLE
from npmobilenet.tasks.detection import DETECTORS, detections
from tests.conftest import DATA, compiled_only, photo
from tests.tensorflow_graphs import graph_of

PERSON, SSD = "ssdlite_mobilenet_v2_person", DETECTORS["ssdlite_mobilenet_v2"]
MAPS = [(19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]
REFERENCE = json.loads((DATA / "reference/person.json").read_text())


@pytest.fixture(scope="module")
def detector():
    return npmobilenet.load(PERSON)


# --- The network -------------------------------------------------------------------------------------------


def test_as_large_as_the_paper_says():
    """1801.04381, Table 6, with 80 classes and the background at 320: 4.3 M parameters, 0.8 G multiply-adds."""
    counts = count(get_architecture("ssdlite_mobilenet_v2").graph(num_classes=81), (320, 320))
    assert (counts.parameters, round(counts.macs / 1e9, 3)) == (4_337_013, 0.789)


@compiled_only
def test_raw_outputs(detector):
    x = np.random.default_rng(0).standard_normal((2, 3, 300, 300)).astype(np.float32)
    found = detector.run({"input": x})
    assert {name: y.shape for name, y in found.items()} == {"boxes": (2, 1917, 4), "scores": (2, 1917, 2)}
    assert detector.output_names == ("boxes", "scores") and detector.classes == ("background", "person")
    again = detector(x[1:], threads=1)
    assert all(np.array_equal(again[name], y[1:]) for name, y in found.items())
    level = detector.outputs(x, ["ssdlite.scores2"])["ssdlite.scores2"]  # (N, anchors * classes, H, W)
    assert np.array_equal(level.transpose(0, 2, 3, 1).reshape(2, 150, 2), found["scores"][:, 1683:1833])


# --- The answers of TensorFlow -----------------------------------------------------------------------------


@compiled_only
@pytest.mark.parametrize("name", ["astronaut.png", "three_women.jpg"])
def test_as_tensorflow_finds_them(detector, name):
    expected = REFERENCE[name]["detections"]
    found = detector.detect(photo(name), threshold=0.3)
    assert [one.label for one in found] == ["person"] * len(expected)
    for one, right in zip(found, expected, strict=True):
        assert one.score == pytest.approx(right["score"], abs=1e-4)
        assert one.box == pytest.approx(right["box"], abs=0.1)


@compiled_only
def test_lists_arrays_and_thresholds(detector):
    picture = read_image(photo("three_women.jpg"))
    one, none = detector.detect([picture, photo("coffee.png")])
    assert one == detector.detect(photo("three_women.jpg")) and none == []
    assert [each.score > 0.98 for each in one] == [True, True, False]
    assert detector.detect(picture, 0.98) == one[:2] and detector.detect(picture, 1) == []
    everything = detector.detect(np.zeros((1, 1, 3), np.uint8), 0)
    assert 0 < len(everything) <= 100 and all(0 <= edge <= 1 for each in everything for edge in each.box)


def test_bad_input(detector):
    with pytest.raises(CheckpointError, match="mobilenet_v2 finds no boxes; what does: ssdlite_mobilenet_v2"):
        npmobilenet.load().detect(photo("coffee.png"))
    with pytest.raises(CheckpointError, match="no classifier"):
        detector.classify(photo("coffee.png"))
    with pytest.raises(ValueError, match=r"threshold must be a number from 0 to 1, got 1\.5"):
        detector.detect(photo("coffee.png"), 1.5)
    cut = npmobilenet.load(PERSON, preprocessing=replace(detector.preprocessing, resize=340))
    with pytest.raises(ValueError, match=r"boxes are found in whole photographs.*crop=\(300, 300\)"):
        cut.detect(photo("coffee.png"))
    with pytest.raises(ImageError, match=r"nowhere\.jpg"):
        detector.detect("nowhere.jpg")


# --- Anchors, codes, suppression ---------------------------------------------------------------------------


def test_anchors():
    anchors = SSD.anchors(MAPS)
    assert anchors.shape == (1917, 4)
    assert anchors[0] == pytest.approx([0.5 / 19, 0.5 / 19, 0.1, 0.1])
    assert anchors[1][2:] == pytest.approx([0.2 * 2**0.5, 0.2 / 2**0.5])
    assert anchors[3] == pytest.approx([1.5 / 19, 0.5 / 19, 0.1, 0.1])  # the next column
    assert anchors[1083 + 5] == pytest.approx([0.05, 0.05, *[(0.35 * 0.5) ** 0.5] * 2])
    assert anchors[-1] == pytest.approx([0.5, 0.5, *[0.95**0.5] * 2])


def test_codes():
    anchors = np.array([[0.5, 0.25, 0.2, 0.1]], np.float32)
    assert boxes.decoded(np.zeros((1, 4), np.float32), anchors, (10, 5))[0] == pytest.approx([0.4, 0.2, 0.6, 0.3])
    moved = boxes.decoded(np.array([[10, 0, 5, 0]], np.float32), anchors, (10, 5))[0]
    assert moved == pytest.approx([0.7 - 0.1 * np.e, 0.2, 0.7 + 0.1 * np.e, 0.3])


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0


@pytest.mark.parametrize("seed", range(6))
def test_suppression_is_greedy(seed):
    """As the textbook's loop, over more boxes than are compared at once, with equal scores and empty boxes."""
    random = np.random.default_rng(seed)
    corners = random.integers(0, 12, (600, 2, 2)) / 12
    found = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    scores, classes = random.integers(0, 50, 600) / 50, random.integers(0, (3, 60)[seed % 2], 600)
    kept = []
    for at in sorted(range(600), key=lambda at: -scores[at]):
        mine = [other for other in kept if classes[other] == classes[at]]
        if len(mine) < 20 and all(overlap(found[at], found[other]) <= 0.4 for other in mine):
            kept.append(at)
    assert boxes.suppressed(found, scores, classes, 0.4, 20, 45).tolist() == kept[:45]
    assert boxes.suppressed(found[:0], scores[:0], classes[:0], 0.4, 20, 45).tolist() == []


def test_scores_count_each_by_itself():
    """Several classes at one anchor; logits beyond what an exponential holds."""
    outputs = {}
    for number, ((height, width), anchors) in enumerate(zip(MAPS, (3, 6, 6, 6, 6, 6), strict=True)):
        outputs[f"boxes{number}"] = np.zeros((1, 4 * anchors, height, width), np.float32)
        outputs[f"scores{number}"] = np.full((1, 3 * anchors, height, width), -1000, np.float32)
    outputs["scores5"][0, 4:6, 0, 0] = 1000, 0  # of the last map's second anchor, after its background
    (found,) = detections(SSD.find(outputs, 0.4), ("background", "cat", "dog"), [(10, 20)], [WHOLE])
    assert [(one.label, one.score) for one in found] == [("cat", 1.0), ("dog", 0.5)]
    assert (
        found[0].box == found[1].box == pytest.approx((0, (0.5 - 0.475 / 2**0.5) * 10, 20, (0.5 + 0.475 / 2**0.5) * 10))
    )


# --- Files -------------------------------------------------------------------------------------------------


def test_a_frozen_graph_is_read_as_its_weights(tmp_path, detector):
    """Under TensorFlow's names and axes; one value that stands for all; other nodes beside."""
    names = naming("ssdlite_mobilenet_v2", "tensorflow")
    graph = names.architecture.graph(1.0, 3, "same", 1e-3)
    weights = random_weights(graph, 4)
    weights["ssdlite.boxes1.bias"][:] = 0.25
    keys = names.keys(graph)
    path = tmp_path / "frozen.pb"
    path.write_bytes(
        graph_of({keys[name]: value for name, value in weights.items()}, repeated=[keys["ssdlite.boxes1.bias"]])
    )
    read = read_checkpoint(path)
    assert read.container == "TensorFlow's frozen graph"
    assert all(np.array_equal(read.tensors[keys[name]], value) for name, value in weights.items())
    model = npmobilenet.load(path)
    assert (model.architecture, len(model.classes)) == ("ssdlite_mobilenet_v2", 3)
    assert model.graph["stem"]["padding"] == "same" and model.graph["stem.norm"]["eps"] == 1e-3
    assert model.preprocessing == detector.preprocessing


def test_damaged_graphs(tmp_path):
    path, random = tmp_path / "g.pb", np.random.default_rng(0)
    whole = graph_of({"a.weight": random.standard_normal((4, 3, 2, 2)), "a.bias": np.ones(4, np.float32)})
    for number in range(400):
        data = bytearray(whole)
        if number % 2:
            data = data[: random.integers(1, len(data))]
        for _ in range(1 + number % 3):
            data[random.integers(len(data))] = random.integers(256)
        path.write_bytes(data)
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            assert "\n" not in str(error) and str(path) in str(error)
    path.write_bytes(graph_of({}))
    with pytest.raises(CheckpointError, match=r"TensorFlow graph without weights: freeze it"):
        read_checkpoint(path)


# --- The command -------------------------------------------------------------------------------------------


@compiled_only
def test_detect_prints(capsys, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    assert main(["detect", str(photo("three_women.jpg")), str(photo("coffee.png")), str(tmp_path / "bad.jpg")]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[1].split()[:2] == ["0.988", "person"] and len(lines) == 6 and lines[-1] == "  nothing"
    assert "bad.jpg" in err and "1 of 3 images failed" in err
    arguments = ["detect", "--json", "--threshold", "0.98", str(photo("three_women.jpg")), str(tmp_path / "bad.jpg")]
    assert main(arguments) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert set(first) == {"image", "detections"} and set(second) == {"image", "error"}
    assert [set(one) for one in first["detections"]] == [{"label", "score", "box"}] * 2
    assert first["detections"][0]["box"] == pytest.approx(REFERENCE["three_women.jpg"]["detections"][0]["box"], abs=0.1)
    assert main(["detect", "--model", "mobilenet_v2", str(photo("coffee.png"))]) == 1
    assert "mobilenet_v2 finds no boxes" in capsys.readouterr().err


@compiled_only
@pytest.mark.parametrize("name", [PERSON, "selfie_segmentation"])
@pytest.mark.parametrize(
    "command", ["classify PHOTO", "evaluate FOLDER", "study occlusion PHOTO", "study linear-bottleneck"]
)
def test_what_asks_for_classes_says_that_there_are_none(name, command, capsys, tmp_path):
    (tmp_path / "person").mkdir()
    given = {"PHOTO": str(photo("coffee.png")), "FOLDER": str(tmp_path)}
    assert main([*(given.get(word, word) for word in command.split()), "--model", name]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"npmobilenet: {name}: has no classifier") and error.count("\n") == 1


@compiled_only
def test_detect_draws(capsys, tmp_path):
    from PIL import Image

    photographs = tmp_path / "photographs"
    for folder in ("a", "b"):
        (photographs / folder).mkdir(parents=True)
        picture = Image.open(photo("three_women.jpg"))
        picture.resize((320, 213)).save(photographs / folder / "x.png")
    Image.open(photo("coffee.png")).save(photographs / "a" / "x.jpg")
    assert main(["detect", str(photographs), "--draw", str(tmp_path / "out")]) == 0
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.jpg"))
    assert names == ["a/x-2.boxes.jpg", "a/x.boxes.jpg", "b/x.boxes.jpg"]
    drawn = np.asarray(Image.open(tmp_path / "out" / "b" / "x.boxes.jpg"), int)
    yellow = (drawn[..., 0] > 200) & (drawn[..., 1] > 190) & (drawn[..., 2] < 120)
    assert drawn.shape == (213, 320, 3) and yellow.sum() > 500
    assert main(["detect", "-", "--draw", str(tmp_path)]) != 0
    assert "standard input" in capsys.readouterr().err


def test_sampled_pixels():
    """Between the nearest pixels, as PyTorch's interpolate without antialiasing and as TensorFlow 1."""
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    usual = npmobilenet.Preprocessing(None, (2, 3), None, (0.0,) * 3, (1.0,) * 3, filter="sampled_corner")
    found = preprocess(picture, usual) * 255
    rows, columns = np.array([0, 2.5]), np.array([0, 7 / 3, 14 / 3])
    low, right = rows.astype(int), columns.astype(int)
    across = picture[:, right] + (picture[:, right + 1] - picture[:, right].astype(float)) * (columns - right)[:, None]
    expected = across[low] + (across[low + 1] - across[low]) * (rows - low)[:, None, None]
    assert np.abs(found - expected.transpose(2, 0, 1)).max() < 1e-4
    halves = preprocess(picture[:4, :6], replace(usual, filter="sampled"))
    means = picture[:4, :6].reshape(2, 2, 3, 2, 3).mean(axis=(1, 3)) / 255
    assert np.abs(halves - means.transpose(2, 0, 1)).max() < 1e-6
