"""Faces and their expressions, as face-api.js finds them: from the networks to what is drawn."""

import json
from dataclasses import replace

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture
from npmobilenet.cli import main
from npmobilenet.cli.drawing import Drawings
from npmobilenet.cli.photographs import Photograph
from npmobilenet.counts import count
from npmobilenet.errors import CheckpointError, ImageError
from npmobilenet.face_finder import Face, cut_out
from npmobilenet.image import preprocess, read_image
from npmobilenet.image.sampling import square_around
from npmobilenet.tasks.boxes import decoded
from npmobilenet.tasks.detection import DETECTORS, Detection
from tests.conftest import DATA, compiled_only, photo

REFERENCE = json.loads((DATA / "reference/tensorflow_js.json").read_text())
PHOTOGRAPHS = ("astronaut.png", "three_women.jpg")
SSD, TINY = "ssd_mobilenet_v1_face", "tiny_face_detector"
MAPS = [(side, side) for side in (32, 16, 8, 4, 2, 1)]


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


# --- The networks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "classes", "size", "parameters"),
    # As many as the published files have; that of the detector has 9,920 statistics and 5,118 anchors, too.
    [(SSD, 3, 512, 5_525_127), ("face_expression", 7, 112, 323_687), (TINY, 1, 416, 193_321)],
)
def test_as_large_as_published(name, classes, size, parameters):
    assert count(get_architecture(name).graph(num_classes=classes), (size, size)).parameters == parameters


def test_anchors():
    """Four of the 5,118 that the file of the detector has."""
    anchors = DETECTORS[SSD].anchors(MAPS)
    assert anchors.shape == (5118, 4)
    assert anchors[1] == pytest.approx([0.015625, 0.015625, 0.28284273, 0.14142136])
    assert anchors[3073] == pytest.approx([0.03125, 0.03125, 0.41833, 0.41833])
    assert anchors[3077] == pytest.approx([0.03125, 0.03125, 0.20206249, 0.6062481])
    assert anchors[-1] == pytest.approx([0.5, 0.5, 0.54845536, 1.6455305])


@compiled_only
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_raw_outputs(name):
    expected, ssd = REFERENCE[name], npmobilenet.load(SSD)
    found = ssd(ssd.preprocess(photo(name))[None])
    assert {key: y.shape for key, y in found.items()} == {"boxes": (1, 5118, 4), "scores": (1, 5118, 3)}
    boxes = decoded(found["boxes"][0][:, [1, 0, 3, 2]], DETECTORS[SSD].anchors(MAPS), (10, 5))
    assert boxes[:, [1, 0, 3, 2]].ravel()[::397] == pytest.approx(expected["boxes"], abs=2e-5)
    assert 1 / (1 + np.exp(-found["scores"][0, ::97, 1])) == pytest.approx(expected["scores"], abs=1e-5)
    tiny = npmobilenet.load(TINY)
    found = tiny(tiny.preprocess(photo(name))[None])
    cells = np.concatenate([found["boxes"], found["scores"]], axis=2).ravel()[::61]
    assert cells == pytest.approx(expected["cells"], abs=1e-4 * np.abs(expected["cells"]).max())
    assert ssd.backend == tiny.backend == "blocked" and not ssd.plain_layers and not tiny.plain_layers


# --- The answers of face-api.js ----------------------------------------------------------------------------


@compiled_only
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_faces_and_expressions(name):
    found = npmobilenet.faces(photo(name))
    for face, expected in zip(found, REFERENCE[name]["faces"], strict=True):
        assert face.score == pytest.approx(expected["score"], abs=1e-4)
        assert overlap(face.box, expected["box"]) > 0.999
        assert face.expressions == pytest.approx(expected["expressions"], abs=1e-4)
        assert face.expression == max(face.expressions, key=face.expressions.get)


@compiled_only
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_tiny_detector(name):
    found = npmobilenet.faces(photo(name), model=TINY)
    for face, expected in zip(found, REFERENCE[name]["tiny"], strict=True):
        assert face.score == pytest.approx(expected["score"], abs=1e-4)
        assert overlap(face.box, expected["box"]) > 0.999


@compiled_only
def test_lists_arrays_and_thresholds():
    picture = read_image(photo("astronaut.png"))
    detector = npmobilenet.load(TINY)
    one, none = npmobilenet.faces([picture, photo("coffee.png")], model=detector)
    assert one == npmobilenet.faces(photo("astronaut.png"), model=TINY) and none == []
    assert isinstance(one[0], Face) and len(one) == 1 and sum(one[0].expressions.values()) == pytest.approx(1)
    assert npmobilenet.faces(picture, 1, model=TINY) == []
    everything = npmobilenet.faces(np.zeros((2, 3, 3), np.uint8), 0, model=TINY)
    assert everything and all(0 <= edge <= 3 for face in everything for edge in face.box)


def test_bad_input():
    with pytest.raises(CheckpointError, match=r"mobilenet_v2 finds no boxes; what does: .*tiny_face_detector"):
        npmobilenet.faces(photo("coffee.png"), model="mobilenet_v2")
    with pytest.raises(CheckpointError, match="finds background, person and no class 'face'"):
        npmobilenet.faces(photo("coffee.png"), model="ssdlite_mobilenet_v2_person")
    with pytest.raises(CheckpointError, match=r"no such thing.*weights known by name: .*face_expression"):
        npmobilenet.faces(photo("coffee.png"), model="no such thing")
    with pytest.raises(ValueError, match="threshold must be a number from 0 to 1, got -1"):
        npmobilenet.faces(photo("coffee.png"), -1)
    with pytest.raises(ImageError, match=r"nowhere\.jpg"):
        npmobilenet.faces("nowhere.jpg")


# --- Photographs in squares --------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["corner", "middle"])
@pytest.mark.parametrize("size", [(4, 9), (9, 4), (7, 7), (1, 30)])
def test_squares(place, size):
    """The same as sampling a square that the photograph was laid into."""
    picture = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    how = replace(npmobilenet.load(TINY).preprocessing, fit=place, resize=(12, 12), crop=(12, 12), border=(9, 8, 7))
    side, top, left = square_around(*size, place)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = how.border
    square[top : top + size[0], left : left + size[1]] = picture
    assert np.array_equal(preprocess(picture, how), preprocess(square, replace(how, fit="fill")))


def test_places_in_squares():
    how = npmobilenet.load(SSD).preprocessing
    assert how.whole and how.shown(300, 300) == (300, 300)
    assert how.shown(1280, 1920) == pytest.approx((1280 * 512 / 341, 1920))  # 341.33 rounded, as face-api.js does
    assert how.shown(1, 10_000) == (512, 10_000)
    assert not replace(how, fit="middle").whole
    with pytest.raises(ValueError, match="fit 'corner' needs a resize of two numbers and one of the filters sampled"):
        replace(how, filter="bilinear")


def test_faces_are_cut_out_of_whole_pixels():
    picture = np.arange(20 * 10 * 3, dtype=np.uint8).reshape(20, 10, 3)
    assert np.array_equal(cut_out(picture, (1.9, 2.1, 4.8, 9.0)), picture[2:8, 1:3])
    assert cut_out(picture, (9.9, 19.9, 10, 20)).shape == (1, 1, 3)  # smaller than a pixel
    assert cut_out(picture, (10, 20, 10, 20)).shape == (1, 1, 3)


# --- The command -------------------------------------------------------------------------------------------


@compiled_only
def test_command(capsys, tmp_path):
    from PIL import Image

    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    arguments = ["faces", str(photo("astronaut.png")), str(photo("coffee.png")), str(tmp_path / "bad.jpg")]
    assert main([*arguments, "--draw", str(tmp_path / "out")]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[1].split()[:3] == ["0.965", "happy", "100%"] and lines[-1] == "  no face"
    assert "bad.jpg" in err and "1 of 3 images failed" in err
    drawn = np.asarray(Image.open(tmp_path / "out" / "astronaut.boxes.jpg"), int)
    yellow = (drawn[..., 0] > 200) & (drawn[..., 1] > 190) & (drawn[..., 2] < 120)
    assert drawn.shape == (512, 512, 3) and yellow.sum() > 500
    assert main([*arguments, "--json", "--model", TINY]) == 1
    first, second, third = json.loads(capsys.readouterr().out)
    assert set(first) == {"image", "faces"} and second["faces"] == [] and set(third) == {"image", "error"}
    assert set(first["faces"][0]) == {"box", "score", "expression", "expressions"}
    assert overlap(first["faces"][0]["box"], REFERENCE["astronaut.png"]["tiny"][0]["box"]) > 0.999
    assert main(["faces", "--model", "selfie_segmentation", str(photo("coffee.png"))]) == 1
    assert "finds no boxes" in capsys.readouterr().err


def test_a_label_has_one_colour_in_all_photographs(tmp_path):
    image = pytest.importorskip("PIL.Image")
    drawings, frames = Drawings(tmp_path / "out", [str(tmp_path)]), []
    for name, labels in (("a", ("happy", "sad")), ("b", ("sad",))):
        image.new("RGB", (90, 200)).save(tmp_path / f"{name}.png")
        boxes = [Detection(label, 0.9, (10, 40 + 80 * at, 80, 80 + 80 * at)) for at, label in enumerate(labels)]
        drawings.boxes(Photograph(str(tmp_path / f"{name}.png")), boxes)
        picture = np.asarray(image.open(tmp_path / "out" / f"{name}.boxes.jpg"), int)
        frames += [picture[top : top + 40, 10:80] for top in (40, 120)[: len(labels)]]
    happy, sad, again = frames
    assert np.abs(sad - again).mean() < 2 < np.abs(happy - again).mean()
