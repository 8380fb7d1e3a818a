"""From tensor names and shapes to a network."""

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.checkpoints.fit import fit
from npmobilenet.checkpoints.info import WeightsInfo
from npmobilenet.checkpoints.key_maps import KEY_MAPS, Naming
from npmobilenet.errors import CheckpointError
from npmobilenet.image import IMAGENET


def checkpoint(architecture="mobilenet_v2", source="torchvision", width=1.0, classes=4, seed=0):
    definition = get_architecture(architecture)
    graph = definition.graph(width, classes)
    keys = Naming(definition, source).keys(graph)
    weights = random_weights(graph, seed)
    return {keys[name]: weights[name] for name in weights}, weights


@pytest.mark.parametrize(("architecture", "source"), [(a, s) for a in KEY_MAPS for s in KEY_MAPS[a]])
def test_every_naming_is_recognised(architecture, source):
    tensors, weights = checkpoint(architecture, source, 0.25)
    fitted = fit(tensors)
    assert (fitted.architecture.name, fitted.source, fitted.width) == (architecture, source, 0.25)
    assert all(np.array_equal(fitted.weights[name], weights[name]) for name in weights)


@pytest.mark.parametrize("width", [0.1, 0.25, 0.35, 0.37, 0.5, 0.75, 0.875, 1.0, 1.1, 1.3, 1.4, 2.0])
@pytest.mark.parametrize("architecture", ["mobilenet_v1", "mobilenet_v2"])
def test_width_is_read_off_the_shapes(architecture, width):
    graph = get_architecture(architecture).graph(width, 3)
    tensors = {name: np.empty(shape, np.float32) for name, shape in graph.tensors.items()}
    fitted = fit(tensors)
    assert fitted.graph.tensors == graph.tensors
    assert fitted.graph["classifier"]["channels"] == 3


def test_known_keys_of_torchvision_and_timm():
    """Spot checks written down by hand, so that a map wrong on both sides is seen."""
    v2 = get_architecture("mobilenet_v2")
    names = KEY_MAPS["mobilenet_v2"]["torchvision"].names(v2)
    assert names["stem"] == "features.0.0" and names["stem.norm"] == "features.0.1"
    assert names["block1.depthwise"] == "features.1.conv.0.0" and names["block1.project"] == "features.1.conv.1"
    assert names["block1.project.norm"] == "features.1.conv.2"
    assert names["block17.depthwise.norm"] == "features.17.conv.1.1"
    assert names["block17.project"] == "features.17.conv.2" and names["head"] == "features.18.0"
    assert names["classifier"] == "classifier.1"
    names = KEY_MAPS["mobilenet_v2"]["timm"].names(v2)
    assert names["block1.depthwise"] == "blocks.0.0.conv_dw" and names["block1.project"] == "blocks.0.0.conv_pw"
    assert names["block17.project"] == "blocks.6.0.conv_pwl" and names["block17.project.norm"] == "blocks.6.0.bn3"
    names = KEY_MAPS["mobilenet_v1"]["timm"].names(get_architecture("mobilenet_v1"))
    assert names["block13.pointwise"] == "blocks.4.1.conv_pw" and names["block13.pointwise.norm"] == "blocks.4.1.bn2"
    names = KEY_MAPS["mobilenet_v2"]["flat"].names(v2)
    assert names["block1.project"] == "features.1.conv.3" and names["block2.project.norm"] == "features.2.conv.7"


def test_every_wrong_tensor_is_listed():
    tensors, _ = checkpoint()
    del tensors["features.3.conv.1.0.weight"], tensors["features.18.1.bias"]
    tensors["features.4.conv.2.weight"] = np.zeros((32, 144, 3, 3), np.float32)
    tensors["features.5.conv.3.bias"] = np.zeros(32, np.int64)
    tensors["extra.scale"] = np.zeros((2, 3), np.float32)
    with pytest.raises(CheckpointError) as caught:
        fit(tensors, where="my.pth")
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines == [
        "my.pth: does not fit mobilenet_v2, width 1, 4 classes, as torchvision names it:",
        "2 missing:",
        "features.3.conv.1.0.weight (144, 1, 3, 3)",
        "features.18.1.bias (1280,)",
        "1 not part of the network:",
        "extra.scale (2, 3)",
        "1 of another shape:",
        "features.4.conv.2.weight: expected (32, 144, 1, 1), found (32, 144, 3, 3)",
        "1 not floating-point:",
        "features.5.conv.3.bias: int64",
    ]


def test_wrong_width_or_classes_from_the_user():
    tensors, _ = checkpoint(classes=10)
    with pytest.raises(CheckpointError, match=r"classifier.1.weight: expected \(1000, 1280\), found \(10, 1280\)"):
        fit(tensors, num_classes=1000)
    with pytest.raises(
        CheckpointError, match=r"width 0.5.*\n(.*\n)*.*features.0.0.weight: expected \(16, 3, 3, 3\), found"
    ):
        fit(tensors, width=0.5)
    with pytest.raises(CheckpointError, match="are not those of mobilenet_v1 as torchvision or timm name them"):
        fit(tensors, architecture="mobilenet_v1")


def test_foreign_tensors():
    with pytest.raises(
        CheckpointError, match=r"x.pth: its tensors \(2: layer1.weight, fc.weight, ...\) are not those of"
    ):
        fit({"layer1.weight": np.zeros(3), "fc.weight": np.zeros(3)}, where="x.pth")


def test_class_count_needs_a_classifier():
    tensors, _ = checkpoint()
    del tensors["classifier.1.weight"]
    with pytest.raises(CheckpointError, match=r"number of classes cannot be told: classifier.1.weight, .*is missing"):
        fit(tensors)
    tensors["classifier.1.weight"] = np.zeros(5, np.float32)
    with pytest.raises(CheckpointError, match=r"expected \(classes, channels\), has shape \(5,\)"):
        fit(tensors)


def test_metadata_travels_with_weights(tmp_path):
    tensors, _ = checkpoint(width=0.25, classes=2)
    about = WeightsInfo(padding="same", bn_eps=1e-3, preprocessing=IMAGENET, classes=("cat", "dog"), licence="MIT")
    for suffix in (".safetensors", ".npz"):
        path = npmobilenet.export_weights(tensors, tmp_path / f"pets{suffix}", metadata=about.to_dict())
        model = npmobilenet.load(path, backend="reference")
        assert model.classes == ("cat", "dog") and model.preprocessing == IMAGENET
        assert model.graph["stem"]["padding"] == "same" and model.graph["stem.norm"]["eps"] == 1e-3
        other = npmobilenet.load(path, padding="symmetric", classes=["chat", "chien"], backend="reference")
        assert other.classes == ("chat", "chien") and other.graph["stem"]["padding"] == "symmetric"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"padding": "valid"}, "metadata 'padding' must be 'symmetric' or 'same', got 'valid'"),
        ({"bn_eps": "small"}, "metadata 'bn_eps' must be a number between 0 and 1, got 'small'"),
        ({"classes": "cat"}, "metadata 'classes' must be a list of names"),
        (
            {"preprocessing": {"resize": 3}},
            "metadata 'preprocessing': preprocessing must have exactly the fields",
        ),
        ({"classes": ["cat"]}, "the network has 4 classes, but 1 class names were given"),
    ],
)
def test_bad_metadata(metadata, message, tmp_path):
    tensors, _ = checkpoint(width=0.25)
    path = npmobilenet.export_weights(tensors, tmp_path / "w.npz", metadata=metadata)
    with pytest.raises(ValueError, match=message):
        npmobilenet.load(path, backend="reference")


def test_names_of_classes_without_metadata(tmp_path):
    for classes, first, last in (
        (1000, "tench", "toilet tissue"),
        (1001, "background", "toilet tissue"),
        (3, "class 0", "class 2"),
    ):
        tensors, _ = checkpoint(width=0.25, classes=classes)
        model = npmobilenet.load(npmobilenet.export_weights(tensors, tmp_path / "w.npz"), backend="reference")
        assert (model.classes[0], model.classes[-1]) == (first, last)


def test_unknown_name_lists_the_known(monkeypatch, tmp_path):
    monkeypatch.setenv("NPMOBILENET_CACHE_DIR", str(tmp_path))
    with pytest.raises(CheckpointError, match="weights known by name: mobilenet_v2, mobilenet_v1"):
        npmobilenet.load("mobilenet_v3")
    with pytest.raises(CheckpointError, match="not on this machine; run: npmobilenet weights download"):
        npmobilenet.load("mobilenet_v2_imagenet1k_v2")
