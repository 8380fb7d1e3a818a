"""What every pixel of a photograph shows: the selfie segmentation, and networks of several classes."""

import json
from dataclasses import replace

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.cli import main
from npmobilenet.counts import count
from npmobilenet.errors import CheckpointError, ImageError
from npmobilenet.image import IMAGENET, read_image
from npmobilenet.tasks.segmentation import segmentation
from tests.conftest import DATA, compiled_only, photo

REFERENCE = json.loads((DATA / "reference/tensorflow_js.json").read_text())
PHOTOGRAPHS = ("astronaut.png", "three_women.jpg")
SELFIE = "selfie_segmentation"


@pytest.fixture(scope="module")
def selfie():
    return npmobilenet.load(SELFIE)


def test_as_large_as_published():
    """As many values as the published file has, without the two constants of each of its hard swishes."""
    assert count(get_architecture(SELFIE).graph(num_classes=1), (256, 256)).parameters == 106_401


@compiled_only
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_as_tensorflow_js_computes(selfie, name):
    x = selfie.preprocess(photo(name))[None]
    found, (expected,) = selfie(x), REFERENCE[name]["selfie"].values()
    assert found.shape == (1, 1, 256, 256) and selfie.backend == "blocked" and not selfie.plain_layers
    assert found.ravel()[::256] == pytest.approx(expected["some"], abs=1e-4)
    assert np.array_equal(selfie.run({"input": x})["scores"], found)


@compiled_only
def test_persons(selfie):
    one, other = selfie.segment([photo("astronaut.png"), read_image(photo("rocket.jpg"))])
    assert one.mask.dtype == np.uint8 and one.mask.shape == (512, 512) and one.labels == ("person",)
    assert one.scores.dtype == np.float32 and one.scores.shape == (1, 512, 512)
    assert np.array_equal(one.mask, one.scores[0] > 0.5)
    assert one.share == {"person": pytest.approx(one.mask.mean())} and 0.5 < one.share["person"] < 0.6
    assert one.mask[250, 220] == 1 and one.mask[20, 20] == 0
    assert other.share["person"] < 0.01 and other.mask.shape == read_image(photo("rocket.jpg")).shape[:2]
    assert np.array_equal(selfie.segment(photo("astronaut.png").read_bytes()).mask, one.mask)
    assert selfie.segment(np.zeros((1, 1, 3), np.uint8)).mask.shape == (1, 1)


@compiled_only
def test_several_classes(tmp_path):
    """A network that scores every pixel of a photograph in its own proportions, of which it was to see the centre."""
    graph = get_architecture("lraspp_mobilenet_v3_large").graph(0.25, 4)
    about = {"classes": list("abcd"), "preprocessing": replace(IMAGENET, resize=64, crop=(64, 64)).to_dict()}
    path = npmobilenet.export_weights(random_weights(graph), tmp_path / "w.npz", metadata=about)
    model = npmobilenet.load(path, width=0.25)
    picture = read_image(photo("rocket.jpg"))[:300, :450]
    found = model.segment(picture)
    assert found.scores.shape == (4, 300, 450) and found.grid.shape == (4, 64, 96)
    assert found.scores.sum(axis=0) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(found.mask, found.scores.argmax(axis=0))
    assert sum(found.share.values()) == pytest.approx(1) and list(found.share) == list("abcd")
    mask, scores, labels = found
    assert mask is found.mask and scores is found.scores and labels == tuple("abcd")
    long = model.segment(np.zeros((2, 1000, 3), np.uint8))
    assert long.mask.shape == (2, 1000) and long.grid.shape == (4, 64, 256)


def test_scores_between_the_pixels_of_the_grid():
    grid = np.float32([[[0, 1], [1, 0.2]]])
    found = segmentation(grid, ("thing",), (2, 4))
    assert found.scores[0, 0] == pytest.approx([0, 0.25, 0.75, 1])
    assert found.mask.tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]
    many = segmentation(np.zeros((300, 1, 1), np.float32), [str(n) for n in range(300)], (1, 1))
    assert many.mask.dtype == np.uint16


def test_bad_input(selfie):
    with pytest.raises(CheckpointError, match="mobilenet_v2 has no scores for every pixel; what has: selfie_segmen"):
        npmobilenet.load().segment(photo("coffee.png"))
    with pytest.raises(CheckpointError, match="no classifier"):
        selfie.classify(photo("coffee.png"))
    with pytest.raises(CheckpointError, match="selfie_segmentation finds no boxes"):
        selfie.detect(photo("coffee.png"))
    with pytest.raises(ImageError, match=r"nowhere\.jpg"):
        selfie.segment("nowhere.jpg")


@compiled_only
def test_command(capsys, tmp_path):
    from PIL import Image

    photographs = tmp_path / "photographs"
    (photographs / "a").mkdir(parents=True)
    Image.open(photo("astronaut.png")).resize((200, 160)).save(photographs / "a" / "x.png")
    (photographs / "bad.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert main(["segment", str(photographs), "--out", str(out), "--overlay"]) == 1
    printed, err = capsys.readouterr()
    assert printed.splitlines()[1].endswith("%  person") and "1 of 2 images failed" in err
    assert sorted(path.name for path in (out / "a").iterdir()) == ["x.mask.png", "x.overlay.jpg"]
    mask = np.asarray(Image.open(out / "a" / "x.mask.png"))
    assert mask.shape == (160, 200) and set(np.unique(mask)) == {0, 1}
    assert Image.open(out / "a" / "x.mask.png").convert("RGB").getpixel((90, 80)) == (255, 255, 255)
    assert main(["segment", str(photographs), "--json"]) == 1
    first, second = json.loads(capsys.readouterr().out)
    good, bad = sorted((first, second), key=lambda each: "error" in each)
    assert set(good) == {"image", "mask", "labels", "share"} and set(bad) == {"image", "error"}
    assert good["mask"] is None and good["share"]["person"] == pytest.approx(mask.mean(), abs=0.01)
    assert main(["segment", str(photographs), "--overlay"]) == 1
    assert "--overlay writes files: say where with --out FOLDER" in capsys.readouterr().err
    assert main(["segment", "--model", "mobilenet_v2", str(photographs)]) == 1
    assert "has no scores for every pixel" in capsys.readouterr().err


@pytest.mark.parametrize("sizes", [[], [(4, 5), (4, 5)], [(0, 5)], [(4, 5, 3)]])
def test_sizes_of_other_photographs_are_refused(sizes):
    model = npmobilenet.load("selfie_segmentation", backend="reference")
    with pytest.raises(ValueError, match=r"sizes must be \(height, width\) of the photographs of all 1 inputs"):
        model.segmentations([np.zeros((3, 32, 32), np.float32)], sizes)
    detector = npmobilenet.load("tiny_face_detector", backend="reference")
    with pytest.raises(ValueError, match="sizes must be"):
        detector.detections(np.zeros((1, 3, 64, 64), np.float32), sizes)
