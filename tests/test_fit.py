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


@pytest.mark.parametrize(
    "name", ["mixnet_m", "mixnet_l", *(f"efficientnet_{kind}" for kind in ("b1", "b2", "lite1", "lite2"))]
)
def test_networks_of_the_same_names_are_told_apart_by_shapes(name):
    definition = get_architecture(name)
    graph = definition.graph()
    keys = Naming(definition, "timm").keys(graph)
    tensors = {keys[key]: np.broadcast_to(np.float32(0), shape) for key, shape in graph.tensors.items()}
    fitted = fit(tensors)
    assert (fitted.architecture.name, fitted.width) == (name, 1)
    del tensors["blocks.2.1.bn1.bias"]
    with pytest.raises(CheckpointError, match=rf"does not fit {name}, width 1, .*\n.*1 missing"):
        fit(tensors)


@pytest.mark.parametrize(
    ("architecture", "source", "padding", "bn_eps"),
    [
        ("mobilenet_v3_small", "torchvision", "symmetric", 1e-3),
        ("mobilenet_v3_small", "timm", "symmetric", 1e-5),
        ("efficientnet_b4", "torchvision", "symmetric", 1e-5),
        ("efficientnet_b5", "torchvision", "symmetric", 1e-3),
        ("efficientnet_lite0", "efficientnet-pytorch", "same", 1e-3),
    ],
)
def test_padding_and_eps_of_a_source(architecture, source, padding, bn_eps):
    tensors, _ = checkpoint(architecture, source, 0.25)
    for options, expected in (({}, (padding, bn_eps)), ({"padding": "same", "bn_eps": 0.01}, ("same", 0.01))):
        graph = fit(tensors, **options).graph
        assert (graph["stem"]["padding"], graph["stem.norm"]["eps"]) == expected


def test_linear_layers_stored_as_convolutions():
    tensors, weights = checkpoint("mobilenet_v3_small", "timm", 0.25)
    stored = {key: tensor[:, :, None, None] if tensor.ndim == 2 else tensor for key, tensor in tensors.items()}
    assert stored["conv_head.weight"].ndim == stored["blocks.0.0.se.conv_reduce.weight"].ndim == 4
    fitted = fit(stored)
    assert fitted.graph["classifier"]["channels"] == 4
    assert all(np.array_equal(fitted.weights[name], weights[name]) for name in weights)
    stored["conv_head.weight"] = np.zeros((1024, 144, 3, 3), np.float32)
    with pytest.raises(CheckpointError, match=r"conv_head.weight: expected \(1024, 144\), found \(1024, 144, 3, 3\)"):
        fit(stored)


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


def test_known_keys_of_the_relatives():
    """Likewise."""

    def keys(architecture, source):
        definition = get_architecture(architecture)
        return Naming(definition, source).keys(definition.graph())

    timm = keys("mixnet_s", "timm")
    assert timm["block2.expand.1.weight"] == "blocks.1.0.conv_pw.1.weight"
    assert timm["block4.depthwise.2.weight"] == "blocks.2.0.conv_dw.2.weight"
    assert timm["block4.squeeze.reduce.bias"] == "blocks.2.0.se.conv_reduce.bias"
    assert timm["block3.project.norm.running_var"] == "blocks.1.1.bn3.running_var"
    timm = keys("mobilenet_v3_large", "timm")
    assert timm["block8.expand.weight"] == "blocks.3.1.conv_pw.weight"
    assert timm["head.weight"] == "blocks.6.0.conv.weight" and timm["head.norm.bias"] == "blocks.6.0.bn1.bias"
    assert timm["hidden.bias"] == "conv_head.bias" and timm["classifier.weight"] == "classifier.weight"
    torchvision = keys("mobilenet_v3_small", "torchvision")
    assert torchvision["block1.depthwise.weight"] == "features.1.block.0.0.weight"
    assert torchvision["block1.squeeze.expand.weight"] == "features.1.block.1.fc2.weight"
    assert torchvision["block11.project.norm.bias"] == "features.11.block.3.1.bias"
    assert torchvision["head.weight"] == "features.12.0.weight"
    assert torchvision["hidden.weight"] == "classifier.0.weight"
    assert torchvision["classifier.weight"] == "classifier.3.weight"
    torchvision = keys("efficientnet_b0", "torchvision")
    assert torchvision["block3.squeeze.reduce.weight"] == "features.2.1.block.2.fc1.weight"
    assert torchvision["block16.project.weight"] == "features.7.0.block.3.0.weight"
    assert torchvision["head.norm.weight"] == "features.8.1.weight"
    torchvision = keys("mnasnet_b1", "torchvision")
    assert torchvision["stem.weight"] == "layers.0.weight"
    assert torchvision["block1.depthwise.norm.weight"] == "layers.4.weight"
    assert torchvision["block1.project.weight"] == "layers.6.weight"
    assert torchvision["block3.depthwise.weight"] == "layers.8.1.layers.3.weight"
    assert torchvision["block17.project.norm.bias"] == "layers.13.0.layers.7.bias"
    assert torchvision["head.weight"] == "layers.14.weight" and torchvision["head.norm.bias"] == "layers.15.bias"
    package = keys("efficientnet_lite0", "efficientnet-pytorch")
    assert package["stem.norm.bias"] == "_bn0.bias" and package["head.norm.bias"] == "_bn1.bias"
    assert package["block2.expand.norm.weight"] == "_blocks.1._bn0.weight"
    assert package["block16.project.weight"] == "_blocks.15._project_conv.weight"
    assert package["classifier.bias"] == "_fc.bias"


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
        ({"bn_eps": "small"}, "metadata 'bn_eps' must be a number from 1e-12 to 0.5, got 'small'"),
        ({"classes": "cat"}, "metadata 'classes' must be a list of at most 1000000 names"),
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


def test_resolution_without_metadata(tmp_path):
    for architecture, resize, crop in (("mobilenet_v2", 256, 224), ("efficientnet_b1", 274, 240)):
        tensors, _ = checkpoint(architecture, "timm", width=0.25)
        model = npmobilenet.load(npmobilenet.export_weights(tensors, tmp_path / "w.npz"), backend="reference")
        assert (model.preprocessing.resize, model.preprocessing.crop) == (resize, (crop, crop))


def test_unknown_name_lists_the_known(monkeypatch, tmp_path):
    monkeypatch.setenv("NPMOBILENET_CACHE_DIR", str(tmp_path))
    with pytest.raises(CheckpointError, match="weights known by name: mobilenet_v2, mobilenet_v1"):
        npmobilenet.load("mobilenet_v3")
    with pytest.raises(CheckpointError, match="not on this machine; run: npmobilenet weights download"):
        npmobilenet.load("mobilenet_v2_imagenet1k_v2")
