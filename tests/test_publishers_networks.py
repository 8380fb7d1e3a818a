"""Networks that publishers made of MobileNets, from a file of theirs to what PyTorch computes of it."""

import json
import warnings
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from PIL import Image

import npmobilenet
from npmobilenet.architectures import ARCHITECTURES, get_architecture, random_weights
from npmobilenet.architectures.vgg import CONTENT, STYLE
from npmobilenet.checkpoints.fit import naming
from npmobilenet.checkpoints.key_maps import with_layout
from npmobilenet.checkpoints.publisher_config import PublisherConfig
from npmobilenet.cli import main
from npmobilenet.counts import count
from npmobilenet.errors import AssumptionWarning, CheckpointError, FallbackWarning
from npmobilenet.image import preprocess, read_image
from npmobilenet.labels import detector_classes
from npmobilenet.tasks.boxes import overlaps
from npmobilenet.tasks.detection import DETECTORS
from tests.conftest import DATA, compiled_only, photo
from tests.data.make_architectures import CASES, CLASSES, FOUND, PHOTOGRAPH, Case, chosen
from tests.tensorflow_graphs import graph_of

TOLERANCE = 1e-4  # of the largest value of an output
STORED = DATA / "reference"


@pytest.fixture(autouse=True)
def _without_notes():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        warnings.simplefilter("ignore", AssumptionWarning)
        yield


def loaded(case, folder, **options):
    path = folder / case.file
    np.savez(path, **case.weights())
    return npmobilenet.load(path, architecture=options.pop("architecture", None), **options)


@compiled_only
@pytest.mark.parametrize("name", CASES)
def test_as_pytorch_computes_it(name, tmp_path):
    case = CASES[name]
    own = case.architecture if name == "stages" else None  # whose names and shapes are those of its publisher's other
    model = loaded(case, tmp_path, architecture=own, output_stride=case.output_stride)
    assert model.architecture == case.architecture
    found = model.run({"input": case.image()}, threads=2)
    with np.load(STORED / "architectures.npz") as stored:
        assert set(found) == {key.partition("/")[2] for key in stored.files if key.partition("/")[0] == name}
        for output, y in found.items():
            expected = stored[f"{name}/{output}"]
            assert np.abs(chosen(y) - expected).max() <= TOLERANCE * expected[-1], output


# What papers and sources count: classes, side of the image, learned parameters, millions of multiply-adds.
@pytest.mark.parametrize(
    ("name", "classes", "size", "parameters", "millions"),
    [
        ("ssdlite_mobilenet_v3_large", 91, 320, 3_440_060, 583),  # torchvision: 0.583
        ("ssdlite_mobilenet_v2", 81, 320, 4_337_013, 789),  # 1801.04381, Table 6: 4.3 M, 0.8 B
        ("ssdlite_mobilenet_v1", 81, 320, 5_100_661, 1309),  # ... 5.1 M, 1.3 B
        ("ssd_mobilenet_v1", 91, 300, 6_819_839, 1237),  # 1704.04861, Table 13: 6.8 M, 1.2 B
        ("deeplabv3_mobilenet_v2", 21, 513, 2_113_557, 2741),  # 1801.04381, Table 7: 2.11 M, 2.75 B
        ("deeplabv3_mobilenet_v2_aspp", 21, 513, 4_523_541, 5364),  # ... 4.52 M
        ("expression_mobilenet_v2", 7, 48, 3_120_175, 71),
        ("mobilenet_v2_stages", 10, 32, 2_296_922, 91),  # kuangliu/pytorch-cifar
        ("vgg19", 1, 224, 20_024_384, 19_508),
        ("efficientnet_l2", 1000, 800, 480_309_308, 475_704),  # timm
    ],
)
def test_counts(name, classes, size, parameters, millions):
    counts = count(get_architecture(name).graph(num_classes=classes), (size, size))
    assert (counts.parameters, round(counts.macs / 1e6)) == (parameters, millions)


def test_what_keras_counts():
    """Running statistics too; most of the slopes belong to pixels."""
    tensors = get_architecture("expression_mobilenet_v2").graph(num_classes=7).tensors
    assert sum(map(prod, tensors.values())) == 3_152_563
    assert sum(prod(shape) for name, shape in tensors.items() if name.endswith(".activation.weight")) == 834_048


def test_shortcuts_in_every_block():
    """seominseok0429/cifar10-mobilenetv2-pytorch."""
    graph = with_layout(naming("mobilenet_v2", "seominseok").architecture, "cifar").graph(num_classes=10)
    counts = count(graph, (32, 32))
    assert (counts.parameters, round(counts.macs / 1e6, 2)) == (2_383_050, 95.05)


# --- Detectors ---------------------------------------------------------------------------------------------


@compiled_only
def test_boxes_are_torchvisions(tmp_path):
    """Of a photograph, with seeded weights: anchors, codes, suppression, labels and preprocessing."""
    model = loaded(Case("ssdlite_mobilenet_v3_large", "torchvision", CLASSES, (320, 320), 20), tmp_path)
    found = model.detect(photo(PHOTOGRAPH), threshold=0.001)
    expected = json.loads((STORED / "ssdlite_v3.json").read_text())
    assert len(found) == 300 and len(expected["scores"]) == FOUND
    assert model.classes[:3] + model.classes[12:13] + model.classes[-1:] == (
        *("background", "person", "bicycle"),
        *("N/A", "toothbrush"),
    )
    for one, score, label, box in zip(found, expected["scores"], expected["labels"], expected["boxes"], strict=False):
        assert one.label == model.classes[label] and abs(one.score - score) < 1e-3
        assert overlaps(np.array([one.box]), np.array([box]))[0, 0] > 0.99


def test_as_many_boxes_as_torchvision_has():
    maps = [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]
    anchors = DETECTORS["ssdlite_mobilenet_v3_large"].anchors(maps)
    assert anchors.shape == (3234, 4) and anchors[:, 2:].max() == 1
    assert anchors[1][2:] == pytest.approx([(0.2 * 0.35) ** 0.5] * 2)
    assert anchors[2][2:] == pytest.approx([0.2 * 2**0.5, 0.2 / 2**0.5])


def test_few_candidates_of_a_class():
    """Those of the highest scores, of each class by itself."""
    random = np.random.default_rng(0)
    logits = random.standard_normal((50, 4)).astype(np.float32)
    at, label, scores = replace(DETECTORS["ssdlite_mobilenet_v3_large"], candidates=7)._candidates(logits, 0.0)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for of in range(1, 4):
        best = np.sort(np.argsort(-softmax[:, of])[:7])
        assert np.array_equal(at[label == of], best)
        assert scores[label == of] == pytest.approx(softmax[best, of], rel=1e-5)


def test_classes_of_detectors():
    assert len(detector_classes(80)) == 80 and detector_classes(81)[1:] == detector_classes(80)
    numbers = detector_classes(91)
    assert (numbers[1], numbers[13], numbers[90]) == ("person", "stop sign", "toothbrush")
    assert [name for name in numbers[1:] if name != "N/A"] == list(detector_classes(80)) and detector_classes(2) is None


# --- Output strides ----------------------------------------------------------------------------------------


def test_output_strides():
    v2 = get_architecture("mobilenet_v2")
    for stride, side in ((32, 4), (16, 7), (8, 13), (4, 25), (2, 50)):
        graph = v2.with_output_stride(stride).graph()
        assert graph.shapes((100, 100))["head"][1:] == (side, side) and graph.tensors == v2.graph().tensors
    assert v2.with_output_stride(32).graph() == v2.graph()
    mixed = v2.with_mixed((3, 5), dilated=True).with_output_stride(16).graph()
    assert mixed["block14.depthwise"]["kernels"] == ((3, 3), (5, 5))  # it had the stride
    assert mixed["block15.depthwise"]["dilations"] == ((2, 2), (4, 4))
    deeplab = get_architecture("deeplabv3_mobilenet_v2_aspp").with_output_stride(8).graph()
    assert [deeplab[f"aspp.rate{n}"]["dilation"] for n in (1, 2, 3)] == [(12, 12), (24, 24), (36, 36)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_network_has_output_strides(name):
    definition = get_architecture(name)
    if name in ("vgg19", "tiny_face_detector", "face_expression", "selfie_segmentation"):
        with pytest.raises(ValueError, match=f"{name} passes stride 8 in .*, which cannot be dilated"):
            definition.with_output_stride(8)
        return
    size = (48, 48) if definition.conventions.pixel_slopes else (65, 65)
    plain, dilated = definition.graph(0.25).shapes(size), definition.with_output_stride(8)
    if not definition.conventions.pixel_slopes:  # slopes of pixels are of other shapes
        shapes = dilated.graph(0.25).shapes(size)
        upward = [f"{block.name}." for block in definition.blocks if block.row.kind == "upward"]
        ends = "pool", "aspp.mean", "extra1", "segment", *upward
        end = next(node for node in shapes if node.startswith(ends))
        before = list(shapes)[list(shapes).index(end) - 1]
        assert shapes[before][1] == 9 or plain[before][1] == 17  # but for a network for CIFAR


def test_a_stride_that_is_there_already():
    for name in ("deeplabv3_mobilenet_v2", "lraspp_mobilenet_v3_large"):
        definition = get_architecture(name)
        assert definition.with_output_stride(16) is definition
        with pytest.raises(ValueError, match=f"{name} has features of stride 16 already, got output_stride 32"):
            definition.with_output_stride(32)
    v1 = get_architecture("mobilenet_v1")
    assert v1.graph(0.5, 3, output_stride=8) == v1.with_output_stride(8).graph(0.5, 3)


def test_deeplab_as_hugging_face_has_it(tmp_path):
    """Its files have a layer that the network does not read; its configuration tells the stride."""
    case = CASES["deeplab_v2_transformers"]
    unread = {
        f"mobilenet_v2.conv_1x1.{each}": np.zeros(4, np.float32)
        for each in ("convolution.weight", "normalization.bias")
    }
    np.savez(tmp_path / "model.npz", **case.weights(), **unread)
    names = {"id2label": {"0": "background", "1": "cat", "2": "dog"}}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mobilenet_v2", "output_stride": 8, **names}))
    model = npmobilenet.load(tmp_path / "model.npz", backend="reference")
    assert model.architecture == "deeplabv3_mobilenet_v2" and model.classes[1:] == ("cat", "dog")
    assert set(model.provenance["left out"][0]) == set(unread) and model.provenance["output stride"] == (8, "file")
    assert model.graph.shapes((65, 65))["segmentation.scores"] == (3, 9, 9)
    with pytest.raises(CheckpointError, match="output_stride must be one of"):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "mobilenet_v2", "output_stride": True}))
        npmobilenet.load(tmp_path / "model.npz")


@pytest.mark.parametrize("stride", [3, 0, 64, "8", True, 1])
def test_bad_output_strides(stride):
    with pytest.raises(ValueError, match="output_stride must be"):
        get_architecture("mobilenet_v2").with_output_stride(stride)


# --- What a file's name tells ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "resize", "size"),
    [
        ("tf_efficientnet_b0_ns-c0e6a31c.npz", 256, 224),
        ("tf_efficientnet_b0.ns_jft_in1k.npz", 256, 224),
        ("tf_efficientnet_b0_ap-f262efe1.npz", None, None),
        ("efficientnet_b0_ns.npz", None, None),
    ],
)
def test_noisy_students(file, resize, size, tmp_path):
    model = loaded(replace(CASES["noisy_student"], file=file), tmp_path)
    same = file.startswith("tf_")
    assert model.graph["stem"]["padding"] == ("same" if same else "symmetric")
    assert model.graph["stem.norm"]["eps"] == (1e-3 if same else 1e-5)
    if size:
        assert (model.preprocessing.resize, model.preprocessing.crop) == (resize, (size, size))
        assert model.preprocessing.filter == "bicubic" and model.provenance["padding"] == ("same", "file")


def test_a_config_counts_more_than_a_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "efficientnet_b0"}))
    assert loaded(CASES["noisy_student"], tmp_path).graph["stem"]["padding"] == "symmetric"


def test_noisy_students_of_all_sizes():
    """timm 1.0.31: side, and the shorter side of the picture before."""
    expected = {"b1": (240, 272), "b4": (380, 412), "b7": (600, 632), "l2": (800, 833), "l2_475": (475, 507)}
    for name, (size, resize) in expected.items():
        number, _, small = name.partition("_")
        file = f"tf_efficientnet_{number}_ns{'_475' if small else ''}-0123abcd.pth"
        photo = PublisherConfig.read({}, {}, "here", file).preprocessing
        assert (photo.crop, photo.resize) == ((size, size), resize)


# --- The rest of what they are -----------------------------------------------------------------------------


@compiled_only
def test_faces_are_grey(tmp_path):
    model = loaded(CASES["expression"], tmp_path)
    picture = read_image(photo(PHOTOGRAPH))
    grey = np.asarray(Image.fromarray(picture).convert("L"))
    assert np.array_equal(
        preprocess(grey.repeat(3).reshape(picture.shape), model.preprocessing), model.preprocess(picture)
    )
    assert model.preprocess(picture).shape == (1, 48, 48) and model.classes[::6] == ("angry", "neutral")
    stored = npmobilenet.load(npmobilenet.export_weights(model, tmp_path / "stored.safetensors"))
    assert stored.classify(picture) == model.classify(picture)
    with pytest.raises(ValueError, match="slopes must have the shape"):
        model(np.zeros((1, 1, 64, 64), np.float32))


def test_vgg19_has_no_linear_layers_here(tmp_path):
    """torchvision's file has; a sequence of its features alone does without their name."""
    names = naming("vgg19", "torchvision")
    graph = names.architecture.graph(0.25)
    keys = names.keys(graph)
    weights = {keys[name]: values for name, values in random_weights(graph).items()}
    whole = weights | {"classifier.0.weight": np.zeros((4, 25088), np.float32), "classifier.0.bias": np.zeros(4)}
    np.savez(tmp_path / "whole.npz", **whole)
    model = npmobilenet.load(tmp_path / "whole.npz")
    assert model.provenance["left out"][0] == ("classifier.0.weight", "classifier.0.bias")
    assert model.output_names == (*STYLE, CONTENT) and model.graph.node_of("relu3_1") == "block4.activation"
    with pytest.raises(CheckpointError, match="has no classifier"):
        model.classify(photo(PHOTOGRAPH))
    np.savez(tmp_path / "bare.npz", **{name.removeprefix("features."): values for name, values in weights.items()})
    assert npmobilenet.load(tmp_path / "bare.npz").architecture == "vgg19"
    np.savez(tmp_path / "more.npz", **weights, **{"features.37.weight": np.zeros((1, 128, 1, 1), np.float32)})
    with pytest.raises(CheckpointError, match=r"(?s)not part of the network.*features\.37\.weight"):
        npmobilenet.load(tmp_path / "more.npz")


def test_a_frozen_graph_of_a_publisher(tmp_path):
    """TensorFlow's own names and axes."""
    for name in ("ssd_v1", "deeplab_v2_aspp"):
        names = naming(CASES[name].architecture, "tensorflow")
        graph = names.architecture.graph(0.5, 3)
        keys = names.keys(graph)
        weights = {keys[key]: values for key, values in random_weights(graph).items()}
        (tmp_path / "frozen.pb").write_bytes(graph_of(weights))
        model = npmobilenet.load(tmp_path / "frozen.pb", backend="reference")
        assert model.architecture == CASES[name].architecture and model.graph["stem"]["padding"] == "same"
        keys = model.names.keys(model.graph)
        assert all(np.array_equal(values, weights[keys[key]]) for key, values in model.stored()[0].items())


@pytest.mark.parametrize("name", ["ssd_v1", "deeplab_v2_aspp", "expression", "stages", "ssdlite_v3"])
def test_inspected(name, tmp_path, capsys):
    path = tmp_path / CASES[name].file
    np.savez(path, **CASES[name].weights())
    assert main(["inspect", str(path)]) == 0
    assert "parameters" in capsys.readouterr().out
