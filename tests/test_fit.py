"""From tensor names and shapes to a network."""

import json
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.checkpoints.fit import find_network, fit, naming, namings
from npmobilenet.checkpoints.info import WeightsInfo
from npmobilenet.cli import main
from npmobilenet.errors import CheckpointError
from npmobilenet.image import IMAGENET
from tests.conftest import compiled_only, no_kernels, photo

pytestmark = no_kernels


def checkpoint(architecture="mobilenet_v2", source="torchvision", width=1.0, classes=4, seed=0):
    return named(naming(architecture, source), width, classes, seed)


def named(naming, width, classes=4, seed=0):
    """Random weights under the publisher's names, and under ours."""
    graph = naming.architecture.graph(width, classes)
    keys = naming.keys(graph)
    weights = random_weights(graph, seed)
    return {keys[name]: weights[name] for name in weights}, weights


def test_the_landmark_of_a_naming_is_in_its_backbone():
    every = [*namings(), *namings(bare=True)]
    assert [each for each in every if each.landmark not in each.backbone] == []
    assert sum(each.landmark != each.stem for each in every) > 100


def alike(naming):
    """Whether names and shapes are those of a network that differs in outputs alone, and is taken first."""
    return (naming.name, naming.dialect.name) == ("mobilenet_v2_stages", "kuangliu")


@pytest.mark.parametrize("naming", list(namings()), ids=lambda each: f"{each.name}, {each.dialect.name}")
def test_every_naming_is_recognised(naming):
    tensors, weights = named(naming, 0.25)
    fitted = fit(tensors, architecture=naming.name if alike(naming) else None)
    assert (fitted.architecture.name, fitted.source, fitted.width) == (naming.name, naming.dialect.name, 0.25)
    assert fitted.architecture.rows == naming.architecture.rows
    factors = {name: np.float32(naming.dialect.factors.get(name, 1)) for name in weights}
    assert all(np.array_equal(fitted.weights[name], weights[name] * factors[name]) for name in weights)


@pytest.mark.parametrize("prefix", ["encoder.", "model.0.backbone.net."])
def test_every_naming_is_recognised_below_a_prefix(prefix):
    for names in namings():
        graph = names.architecture.graph(0.5, 10)
        keys = names.keys(graph)
        tensors = {keys[name]: np.broadcast_to(np.float32(0), shape) for name, shape in graph.tensors.items()}
        found = find_network(below(prefix, tensors), architecture=names.name if alike(names) else None)
        assert (found.prefix, found.width, found.naming.name) == (prefix, 0.5, names.name)
        assert found.naming.architecture == names.architecture and not found.left_out


@pytest.mark.parametrize(
    "name", ["mixnet_m", "mixnet_l", *(f"efficientnet_{kind}" for kind in ("b1", "b2", "lite1", "lite2"))]
)
def test_networks_of_the_same_names_are_told_apart_by_shapes(name):
    names = naming(name, "timm")
    graph = names.architecture.graph()
    keys = names.keys(graph)
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
    with pytest.raises(CheckpointError, match=r"'conv_head.weight': expected \(1024, 144\), found \(1024, 144, 3, 3\)"):
        fit(stored)


@pytest.mark.parametrize("width", [0.1, 0.25, 0.35, 0.37, 0.5, 0.75, 0.875, 1.0, 1.1, 1.3, 1.4, 2.0])
@pytest.mark.parametrize("architecture", ["mobilenet_v1", "mobilenet_v2"])
def test_width_is_read_off_the_shapes(architecture, width):
    graph = get_architecture(architecture).graph(width, 3)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in graph.tensors.items()}
    fitted = fit(tensors)
    assert fitted.graph.tensors == graph.tensors
    assert fitted.graph["classifier"]["channels"] == 3


def test_known_keys_of_torchvision_and_timm():
    """Spot checks written down by hand, so that a map wrong on both sides is seen."""

    def modules(architecture, source):
        names = naming(architecture, source)
        keys = names.keys(names.architecture.graph())
        return {name.rpartition(".")[0]: key.rpartition(".")[0] for name, key in keys.items()}

    names = modules("mobilenet_v2", "torchvision")
    assert names["stem"] == "features.0.0" and names["stem.norm"] == "features.0.1"
    assert names["block1.depthwise"] == "features.1.conv.0.0" and names["block1.project"] == "features.1.conv.1"
    assert names["block1.project.norm"] == "features.1.conv.2"
    assert names["block17.depthwise.norm"] == "features.17.conv.1.1"
    assert names["block17.project"] == "features.17.conv.2" and names["head"] == "features.18.0"
    assert names["classifier"] == "classifier.1"
    names = modules("mobilenet_v2", "timm")
    assert names["block1.depthwise"] == "blocks.0.0.conv_dw" and names["block1.project"] == "blocks.0.0.conv_pw"
    assert names["block17.project"] == "blocks.6.0.conv_pwl" and names["block17.project.norm"] == "blocks.6.0.bn3"
    names = modules("mobilenet_v1", "timm")
    assert names["block13.pointwise"] == "blocks.4.1.conv_pw" and names["block13.pointwise.norm"] == "blocks.4.1.bn2"
    names = modules("mobilenet_v2", "flat")
    assert names["block1.project"] == "features.1.conv.3" and names["block2.project.norm"] == "features.2.conv.7"


def test_known_keys_of_the_relatives():
    """Likewise."""

    def keys(architecture, source):
        names = naming(architecture, source)
        return names.keys(names.architecture.graph())

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
        "'features.3.conv.1.0.weight' (144, 1, 3, 3)",
        "'features.18.1.bias' (1280,)",
        "1 not part of the network:",
        "'extra.scale' (2, 3)",
        "1 of another shape:",
        "'features.4.conv.2.weight': expected (32, 144, 1, 1), found (32, 144, 3, 3)",
        "1 not floating-point:",
        "'features.5.conv.3.bias': int64",
    ]


def test_long_lists_of_wrong_tensors_share_the_space():
    tensors, _ = checkpoint()
    for number in range(3, 9):
        del tensors[f"features.{number}.conv.0.1.bias"], tensors[f"features.{number}.conv.0.1.weight"]
        tensors |= {f"features.{number}.more.{name}": np.zeros(3, np.float32) for name in "abc"}
    with pytest.raises(CheckpointError) as caught:
        fit(tensors)
    assert [line.strip() for line in str(caught.value).splitlines() if "'" not in line][1:] == [
        "12 missing:",
        "... and 2 more",
        "18 not part of the network:",
        "... and 8 more",
    ]


def test_wrong_width_or_classes_from_the_user():
    tensors, _ = checkpoint(classes=10)
    with pytest.raises(CheckpointError, match=r"'classifier.1.weight': expected \(1000, 1280\), found \(10, 1280\)"):
        fit(tensors, num_classes=1000)
    with pytest.raises(
        CheckpointError, match=r"width 0.5.*\n(.*\n)*.*'features.0.0.weight': expected \(16, 3, 3, 3\), found"
    ):
        fit(tensors, width=0.5)
    with pytest.raises(CheckpointError, match="are not those of mobilenet_v1 in any dialect known here"):
        fit(tensors, architecture="mobilenet_v1")


def test_foreign_tensors():
    with pytest.raises(
        CheckpointError, match=r"x.pth: its tensors \(2: 'layer1.weight', 'fc.weight', ...\) are not those of"
    ):
        fit({"layer1.weight": np.zeros(3), "fc.weight": np.zeros(3)}, where="x.pth")


def test_a_classifier_without_weight():
    tensors, _ = checkpoint()
    del tensors["classifier.1.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing:\n    'classifier.1.weight' "):
        fit(tensors)
    tensors["classifier.1.weight"] = np.zeros(5, np.float32)
    with pytest.raises(CheckpointError, match=r"classifier.1.weight': expected \(1, 1280\), found \(5,\)"):
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
        tensors, _ = checkpoint(architecture, "npmobilenet", width=0.25)
        model = npmobilenet.load(npmobilenet.export_weights(tensors, tmp_path / "w.npz"), backend="reference")
        assert (model.preprocessing.resize, model.preprocessing.crop) == (resize, (crop, crop))


@pytest.mark.parametrize("name", ["vgg19", "face_expression", "tiny_face_detector", "lraspp_mobilenet_v3_large"])
def test_our_own_names_tell_the_network(name):
    about = get_architecture(name)
    weights = {key: np.zeros(shape, np.float32) for key, shape in about.graph(1.0, about.classes).tensors.items()}
    found = fit(weights)
    assert found.architecture.name == name and found.weights.keys() == weights.keys()


def test_unknown_name_lists_the_known(monkeypatch, tmp_path):
    monkeypatch.setenv("NPMOBILENET_CACHE_DIR", str(tmp_path))
    with pytest.raises(CheckpointError, match="weights known by name: mobilenet_v2, mobilenet_v1"):
        npmobilenet.load("mobilenet_v3")
    with pytest.raises(CheckpointError, match="File name too long"):
        npmobilenet.load("x" * 5000)
    with pytest.raises(CheckpointError, match="not on this machine; run: npmobilenet weights download"):
        npmobilenet.load("mobilenet_v2_imagenet1k_v2")


# --- Prefixes, company, heads ------------------------------------------------------------------------------


def small(classes=4, source="torchvision", architecture="mobilenet_v2", width=0.25, seed=0):
    return checkpoint(architecture, source, width, classes, seed)[0]


def below(prefix, tensors):
    return {prefix + key: tensor for key, tensor in tensors.items()}


def loaded(tensors, folder, expected_notes=(), **options):
    """The model, and see to it that the notes are these (regular expressions), each once."""
    path = npmobilenet.export_weights(tensors, folder / "w.safetensors")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = npmobilenet.load(path, backend="reference", **options)
    texts = [str(each.message) for each in said]
    assert all(each.category is npmobilenet.AssumptionWarning and each.filename == __file__ for each in said)
    assert len(texts) == len(expected_notes), texts
    for text, pattern in zip(texts, expected_notes, strict=True):
        assert re.search(pattern, text) and text.isprintable()
    return model


def test_company_is_named_and_left_out(tmp_path):
    tensors = below("model.", small(1000)) | {
        "criterion.weight": np.ones(1000, np.float32),
        "train_metric.confusion": np.zeros((4, 4), np.float32),
    }
    model = loaded(tensors, tmp_path, [r"left out 2 tensors that are not the network's: 'criterion.weight', 'train_m"])
    assert model.provenance["prefix"] == ("model.", "file")
    assert model.provenance["left out"] == (("criterion.weight", "train_metric.confusion"), "file")


def test_two_networks_are_listed_and_one_chosen(tmp_path):
    first, second = small(1000, seed=1), small(1000, seed=2)
    both = below("student.net.", first) | below("teacher.", second)
    with pytest.raises(CheckpointError, match=r"networks, below 'student.net.' and 'teacher.'; choose .*prefix="):
        loaded(both, tmp_path)
    for prefix, tensors in (("student.net.", first), ("student.net", first), ("teacher.", second)):
        model = loaded(both, tmp_path, ["left out 26. tensors"], prefix=prefix)
        assert np.array_equal(model._weights["stem.weight"], tensors["features.0.0.weight"])
        assert model.provenance["prefix"] == (prefix, "option")
    with_root = first | below("teacher.", second)
    with pytest.raises(CheckpointError, match=r"several networks, below '' and 'teacher.'"):
        loaded(with_root, tmp_path)
    model = loaded(with_root, tmp_path, ["left out 26. tensors"], prefix="")
    assert np.array_equal(model._weights["stem.weight"], first["features.0.0.weight"])
    with pytest.raises(CheckpointError, match=r"below 'nobody.' it has no tensors of mobilenet_v2, "):
        loaded(both, tmp_path, prefix="nobody.")


def renamed(tensors, old, new):
    return {key.replace(old, new, 1) if key.startswith(old) else key: tensor for key, tensor in tensors.items()}


@pytest.mark.parametrize("name", ["fc", "classifier", "head.fc", "classifier.1.1", "classifier.3", "last.linear.0"])
@pytest.mark.parametrize(("prefix", "inside"), [("", True), ("encoder.", True), ("encoder.", False)])
def test_a_single_linear_layer_is_the_classifier(name, prefix, inside, tmp_path):
    tensors = small(1000)
    network = renamed(tensors, "classifier.1", name)
    network = {(prefix if inside or not key.startswith(name) else "") + key: value for key, value in network.items()}
    assert len(network) == len(tensors)
    model = loaded(network, tmp_path)
    assert model.provenance["classifier"] == ((prefix if inside else "") + name, "file")
    assert np.array_equal(model._weights["classifier.weight"], tensors["classifier.1.weight"])


def test_a_classifier_without_bias_or_as_a_convolution(tmp_path):
    tensors = small(1000)
    tensors["classifier.1.weight"] = tensors["classifier.1.weight"][:, :, None, None]
    del tensors["classifier.1.bias"]
    assert not loaded(tensors, tmp_path)._weights["classifier.bias"].any()


def test_without_a_classifier_there_are_features(tmp_path):
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    tensors = small(1000)
    whole = loaded(tensors, tmp_path)
    bare = {key: tensor for key, tensor in tensors.items() if not key.startswith("classifier")}
    for model in (loaded(bare, tmp_path), loaded(tensors, tmp_path, ["left out 2 tensors"], num_classes=0)):
        assert np.array_equal(model.features(x), whole.features(x))
        assert model.classes == ()
        for call in (model, lambda x, model=model: model.classify(np.zeros((40, 40, 3), np.uint8))):
            with pytest.raises(CheckpointError, match=r"has no classifier.*features\(x\)"):
                call(x)


def test_names_of_classes_go_with_their_head(tmp_path):
    names = [f"kind {number}" for number in range(10)]
    path = npmobilenet.export_weights(small(10), tmp_path / "named.npz", metadata={"classes": names})
    (tmp_path / "config.json").write_text(json.dumps({"id2label": dict(enumerate("abc"))}))
    for source in (path, "mobilenet_v2"):
        with pytest.warns(npmobilenet.AssumptionWarning, match="left out 2 tensors"):
            model = npmobilenet.load(source, num_classes=0, backend="reference")
        assert model.classes == () and model.provenance["classes"] == ("0 classes", "assumed")
    with pytest.raises(ValueError, match="the network has 0 classes, but 2 class names were given"):
        npmobilenet.load(path, num_classes=0, classes=["a", "b"])


def test_heads_of_networks_with_a_hidden_layer(tmp_path):
    tensors = small(1000, architecture="mobilenet_v3_small", source="timm")
    padding = [r"padding 'symmetric' and eps 1e-05 assumed: timm's networks from TensorFlow"]
    assert [block for block in loaded(tensors, tmp_path, padding).blocks[-2:]] == ["hidden", "classifier"]
    bare = {key: tensor for key, tensor in tensors.items() if not key.startswith("classifier")}
    assert loaded(bare, tmp_path, padding).blocks[-1] == "hidden"
    tensors = small(1000, architecture="mobilenet_v3_small")
    fine = renamed(tensors, "classifier.3", "classifier.3.1")
    assert loaded(fine, tmp_path).provenance["classifier"][0] == "classifier.3.1"
    own = renamed(renamed(tensors, "classifier.0", "fc.0"), "classifier.3", "fc.2")
    assert loaded(own, tmp_path, ["'hard_swish' assumed after 'fc.0'"]).blocks[-2:] == ["hidden", "classifier"]
    none = {key: tensor for key, tensor in tensors.items() if not key.startswith("classifier")}
    assert loaded(none, tmp_path).blocks[-1] == "pool"
    single = none | {"classifier.weight": np.zeros((5, 144), np.float32), "classifier.bias": np.zeros(5, np.float32)}
    model = loaded(single, tmp_path)
    assert model.blocks[-2:] == ["pool", "classifier"] and len(model.classes) == 5


def test_heads_that_a_file_does_not_explain(tmp_path):
    tensors = small(256)
    chain = tensors | {"classifier.4.weight": np.zeros((10, 256), np.float32)}
    with pytest.raises(CheckpointError, match=r"'classifier.1' \(1280 to 256\) and 'classifier.4' \(256 to 10\)"):
        loaded(chain, tmp_path)
    twice = renamed(tensors, "classifier.1", "age") | {"kind.weight": np.zeros((10, 1280), np.float32)}
    with pytest.raises(CheckpointError, match=r"several linear layers of 1280 inputs .*'age' and 'kind'"):
        loaded(twice, tmp_path)
    assert loaded(twice, tmp_path, num_classes=0, prefix="", expected_notes=["left out 3"]).classes == ()
    wrong = renamed(tensors, "classifier.1", "fc") | {"fc.weight": np.zeros((10, 640), np.float32)}
    with pytest.raises(CheckpointError, match=r"'fc.weight': expected \(10, 1280\), found \(10, 640\)"):
        loaded(wrong, tmp_path)


# --- Errors ------------------------------------------------------------------------------------------------


def test_lists_in_errors_are_bounded_and_fit_to_be_shown():
    tensors = small() | {f"features.99.\x1b[2J\n{number}": np.zeros(3, np.float32) for number in range(500)}
    with pytest.raises(CheckpointError) as caught:
        fit(tensors, where="my.pth")
    lines = str(caught.value).splitlines()
    assert lines[1] == "  500 not part of the network:" and lines[-1] == "    ... and 480 more"
    assert len(lines) == 23 and all(line.isprintable() for line in lines)


@pytest.mark.parametrize("keys", ["a" * 100_000, ".".join("x" * 50_000), "features.0.0." * 20_000])
def test_long_names_cost_little(keys):
    with pytest.raises(CheckpointError) as caught:
        fit({f"{keys}.weight": np.zeros(3, np.float32), **below(f"{keys}.", {"features.0.0.weight": np.zeros(3)})})
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("architecture", ["mobilenet_v1", "mobilenet_v3_small", "mobilenet_v3_large"])
def test_unknown_names_are_never_told_to_be_another_network(architecture):
    """With the numbers that MobileNetV2's dialects use, but in no dialect."""
    names = naming(architecture, "npmobilenet")
    graph = names.architecture.graph(1.0, 10)
    numbers = {"expand": "0", "depthwise": "3", "squeeze": "4", "project": "6", "pointwise": "6", "norm": "1"}
    tensors = {}
    for name, shape in graph.tensors.items():
        block, *parts = name.split(".")
        inside = ".".join(numbers.get(part, part) for part in parts)
        number = int(block.removeprefix("block")) if block.startswith("block") else {"stem": 0, "head": 18}.get(block)
        key = f"{block}.{inside}" if number is None else f"features.{number}.conv.{inside}"
        tensors[key] = np.broadcast_to(np.float32(0), shape)
    with pytest.raises(CheckpointError) as caught:
        fit(tensors)
    assert f"it is like {architecture}" in str(caught.value) or f"does not fit {architecture}" in str(caught.value)
    assert "fit mobilenet_v2" not in str(caught.value) and "nearest: mobilenet_v2" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("features.3.conv.1.0.weight", np.nan, r"'features.3.conv.1.0.weight' has 1 of \d+ values that are NaN or inf"),
        ("classifier.1.bias", np.inf, r"'classifier.1.bias' has 1 of 1000 values"),
        ("features.0.1.running_var", -1, r"'features.0.1.running_var' has variances below 0, such as -1"),
    ],
)
def test_values_that_no_network_has(key, value, message, tmp_path):
    tensors = small(1000)
    tensors[key] = tensors[key].copy()
    tensors[key].reshape(-1)[-1] = value
    with pytest.raises(CheckpointError, match=message):
        loaded(tensors, tmp_path)


def test_huge_but_finite_weights_load(tmp_path):
    tensors = small(1000)
    tensors["classifier.1.bias"] = np.full(1000, 3e38, np.float32)  # whose sum overflows
    loaded(tensors, tmp_path)


# --- Assumptions and provenance ----------------------------------------------------------------------------


def test_layout(tmp_path):
    tensors = small(10)
    model = loaded(tensors, tmp_path, ["strides of networks for ImageNet assumed; with 10 classes .* layout='cifar'"])
    assert model.provenance["layout"] == ("imagenet", "assumed") and model.graph["stem"]["stride"] == (2, 2)
    model = loaded(tensors, tmp_path, layout="imagenet")
    assert model.provenance["layout"] == ("imagenet", "option")
    model = loaded(tensors, tmp_path, layout="cifar")
    assert model.provenance["layout"] == ("cifar", "option") and model.preprocessing.crop == (32, 32)
    assert (model.graph["stem"]["stride"], model.graph["block2.depthwise"]["stride"]) == ((1, 1), (1, 1))
    assert model.graph["block4.depthwise"]["stride"] == (2, 2)
    with pytest.raises(ValueError, match="layout must be 'imagenet' or 'cifar', got 'mnist'"):
        loaded(tensors, tmp_path, layout="mnist")
    with pytest.raises(ValueError, match="known of mobilenet_v2 only, and this is mobilenet_v1"):
        loaded(small(10, "timm", "mobilenet_v1"), tmp_path, layout="cifar")
    with pytest.raises(ValueError, match="the names are kuangliu's, whose networks have the layout 'cifar'"):
        loaded(small(10, "kuangliu", width=1), tmp_path, layout="imagenet")


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v1"])
def test_shipped_weights_need_no_assumption(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = npmobilenet.load(name, backend="reference")
    assert {name: model.provenance[name][1] for name in ("padding", "bn_eps", "preprocessing", "classes")} == {
        "padding": "file",
        "bn_eps": "file",
        "preprocessing": "file",
        "classes": "file",
    }


@pytest.mark.parametrize(
    ("architecture", "source", "notes"),
    [
        ("mobilenet_v2", "torchvision", []),
        ("mobilenet_v3_large", "torchvision", []),
        ("efficientnet_b0", "torchvision", []),
        ("mobilenet_v1", "timm", []),
        ("mobilenet_v2", "timm", []),
        (
            "mobilenet_v3_large",
            "timm",
            ["padding 'symmetric'", "preprocessing 224 of 256, bicubic, mean 0.485 assumed"],
        ),
        (
            "efficientnet_lite1",
            "timm",
            ["padding 'same' and eps 0.001 assumed: timm publishes such weights from Tensor"],
        ),
    ],
)
def test_only_real_doubts_are_said(architecture, source, notes, tmp_path):
    tensors = small(1000, source, architecture)
    model = loaded(tensors, tmp_path, notes)
    assert model.provenance["dialect"] == (source, "file")
    assert (model.provenance["padding"][1] == "assumed") == bool(notes)
    loaded(tensors, tmp_path, padding="same", preprocessing=IMAGENET)


@pytest.mark.parametrize(
    ("architecture", "source", "expected"),
    [
        ("efficientnet_b1", "torchvision", (256, 240, "bicubic", 0.485)),
        ("efficientnet_b5", "torchvision", (456, 456, "bicubic", 0.485)),
        ("mobilenet_v1", "timm", (256, 224, "bicubic", 0.5)),
        ("mobilenet_v2", "timm", (256, 224, "bicubic", 0.485)),
        ("mobilenet_v2", "transformers", (256, 224, "bilinear", 0.5)),
        ("mobilenet_v1", "transformers", (256, 224, "bilinear", 0.5)),
        ("mobilenet_v2", "tonylins", (256, 224, "bilinear", 0.485)),
        ("mobilenet_v1", "ruotianluo", (None, 224, "bilinear", 0.5)),
        ("mobilenet_v2", "kuangliu", (None, 32, "bilinear", 0.4914)),
    ],
)
def test_preprocessing_of_a_source(architecture, source, expected, tmp_path):
    p = loaded(small(10, source, architecture, 1.0), tmp_path).preprocessing
    assert (p.resize, p.crop[0], p.filter, p.mean[0]) == expected


def beside(monkeypatch, config=None, preprocessor=None):
    """As if these lay beside the file."""
    read = npmobilenet.checkpoints.read_checkpoint
    monkeypatch.setattr(
        npmobilenet.checkpoints,
        "read_checkpoint",
        lambda *args, **options: replace(read(*args, **options), config=config or {}, preprocessor=preprocessor or {}),
    )


def test_config_of_transformers_is_obeyed(monkeypatch, tmp_path):
    config = {
        "model_type": "mobilenet_v2",
        "tf_padding": False,
        "layer_norm_eps": 0.002,
        "hidden_act": "relu",
        "id2label": {"1": "dog", "0": "cat", "2": "bird"},
        "problem_type": "multi_label_classification",
    }
    preprocessor = {
        "size": {"shortest_edge": 300},
        "crop_size": {"height": 280, "width": 260},
        "resample": 3,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
        "do_center_crop": True,
    }
    tensors = small(3, "transformers")
    beside(monkeypatch, config, preprocessor)
    model = loaded(tensors, tmp_path)
    assert model.classes == ("cat", "dog", "bird") and model.multi_label
    assert model.graph["stem"]["padding"] == "symmetric" and model.graph["stem.norm"]["eps"] == 0.002
    assert model.graph["stem.activation"]["function"] == "relu"
    p = model.preprocessing
    assert (p.resize, p.crop, p.filter, p.mean, p.std) == (300, (280, 260), "bicubic", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    names = ("padding", "bn_eps", "activation", "preprocessing", "classes", "multi_label")
    assert {model.provenance[name][1] for name in names} == {"file"}
    for change, message in (
        ({"tf_padding": "yes"}, "tf_padding must be true or false, got 'yes'"),
        ({"layer_norm_eps": 0}, "layer_norm_eps must be a number between 0 and 1, got 0"),
        ({"hidden_act": "gelu"}, "hidden_act must be one of relu, .*, got 'gelu'"),
        ({"output_stride": 12}, "output_stride must be one of 1, 2, 4, 8, 16, 32, got 12"),
    ):
        beside(monkeypatch, config | change)
        with pytest.raises(CheckpointError, match=f"config.json beside it: {message}"):
            loaded(tensors, tmp_path)
    beside(monkeypatch, config | {"id2label": {"0": "cat"}})
    assert loaded(tensors, tmp_path, ["config.json names 1 class and there are 3: not used"]).classes[0] == "class 0"


def test_config_of_timm_is_obeyed(monkeypatch, tmp_path):
    cfg = {
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    config = {"architecture": "tf_mobilenetv3_large_100", "pretrained_cfg": cfg, "label_names": ["a", "b", "c"]}
    tensors = small(3, "timm", "mobilenet_v3_large")
    beside(monkeypatch, config)
    model = loaded(tensors, tmp_path)
    assert (model.preprocessing.resize, model.preprocessing.filter, model.preprocessing.mean) == (
        235,
        "bicubic",
        (0.5,) * 3,
    )
    assert (model.graph["stem"]["padding"], model.graph["stem.norm"]["eps"]) == ("same", 1e-3)
    assert model.classes == ("a", "b", "c")
    beside(monkeypatch, config | {"architecture": "mobilenetv3_large_100"})
    assert loaded(tensors, tmp_path).graph["stem"]["padding"] == "symmetric"
    beside(monkeypatch, config | {"pretrained_cfg": cfg | {"crop_pct": "much"}})
    with pytest.raises(CheckpointError, match=r"config.json beside it: preprocessing: crop_pct must be"):
        loaded(tensors, tmp_path)


def test_one_output_and_several_labels(tmp_path):
    logits = np.array([[-2.0, 800.0, 0.5]])
    model = loaded(small(3), tmp_path, multi_label=True, layout="imagenet")
    best = model.top(logits, 3)[0]
    assert [p.index for p in best] == [1, 2, 0]
    assert [p.probability for p in best] == pytest.approx([1, 1 / (1 + np.exp(-0.5)), 1 / (1 + np.exp(2))])
    model = loaded(small(1), tmp_path, layout="imagenet")
    ((only,),) = model.top(np.array([[-0.837]]))
    assert (only.index, only.label) == (0, "class 0") and only.probability == pytest.approx(0.302, abs=1e-3)
    about = WeightsInfo(multi_label=True, layout="cifar")
    path = npmobilenet.export_weights(small(3), tmp_path / "w.npz", metadata=about.to_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = npmobilenet.load(path, backend="reference")
    assert model.multi_label and model.provenance["layout"] == ("cifar", "file")
    assert model.graph["stem"]["stride"] == (1, 1)


def test_provenance_is_text_and_json(tmp_path):
    provenance = loaded(small(3, "transformers"), tmp_path, bn_eps=0.01).provenance
    assert provenance["bn_eps"] == (0.01, "option") and provenance["padding"] == ("same", "source")
    shown = {name: (value, reason) for name, value, reason in provenance.shown()}
    assert shown["bn_eps"] == ("0.01", "option") and shown["width"] == ("0.25", "file")
    assert shown["preprocessing"][0] == "224x224 of 256, bilinear, mean 0.5/0.5/0.5, std 0.5/0.5/0.5"
    assert json.loads(json.dumps(provenance.to_dict()))["classes"] == {"value": "3 classes", "reason": "assumed"}
    assert {reason for _, reason in provenance.values()} <= {"option", "file", "source", "assumed"}


def test_convolutions_of_a_detector_are_no_classifier(tmp_path):
    base = {key: tensor for key, tensor in small(10).items() if not key.startswith("classifier")}
    extras = {
        "extras.0.0.weight": np.zeros((256, 1280, 1, 1), np.float32),
        "extras.0.2.weight": np.zeros((512, 256, 3, 3), np.float32),
    }
    model = loaded(below("base_net.", base) | extras, tmp_path, ["left out 2 tensors"])
    assert model.classes == () and model.provenance["classifier"] == ("none", "file")


def test_commands_say_assumptions_in_a_line(tmp_path, capsys):
    path = npmobilenet.export_weights(below("encoder.", small(10)), tmp_path / "w.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a command shows its notes whatever filters are set
        assert main(["inspect", str(path), "--resolution", "32"]) == 0
        out, err = capsys.readouterr()
        assert err.startswith(f"npmobilenet: note: {path}: strides of networks for ImageNet assumed")
        assert err.count("\n") == 1 and "warn" not in err
        assert re.search(r"^padding +symmetric +source$", out, re.M) and re.search(
            r"^prefix +encoder\. +file$", out, re.M
        )
        assert main(["inspect", str(path), "--layout", "cifar", "--prefix", "encoder.", "--json"]) == 0
        out, err = capsys.readouterr()
    report = json.loads(out)
    assert not err and report["resolution"] == [32, 32] and report["provenance"]["layout"]["value"] == "cifar"
    assert report["provenance"]["prefix"] == {"value": "encoder.", "reason": "option"}
    assert report["layers"][0]["stride"] == [1, 1]


@compiled_only
def test_commands_classify_with_a_probability_for_every_label(tmp_path, capsys):
    path = npmobilenet.export_weights(small(3), tmp_path / "w.safetensors")
    picture = photo("chelsea.png")
    options = ["--model", str(path), "--backend", "reference", "--layout", "cifar", "--json"]
    assert main(["classify", str(picture), *options, "--multi-label"]) == 0
    several = json.loads(capsys.readouterr().out)[0]["predictions"]
    assert main(["classify", str(picture), *options]) == 0
    one = json.loads(capsys.readouterr().out)[0]["predictions"]
    assert [p["index"] for p in several] == [p["index"] for p in one]
    assert sum(p["probability"] for p in one) == pytest.approx(1)
    assert sum(p["probability"] for p in several) != pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("architecture", "source"),
    [("mobilenet_v2", "torchvision"), ("mobilenet_v3_small", "torchvision"), ("mobilenet_v2", "pytorchcv")],
)
@pytest.mark.parametrize("name", ["", "backbone.", "0.", "features.module."])
def test_features_under_another_name(architecture, source, name, tmp_path):
    """`torchvision.models.mobilenet_v2().features`, alone or as a part of something else."""
    tensors = small(1000, source, architecture)
    inside = {key.replace("features.", name, 1): value for key, value in tensors.items() if key.startswith("features.")}
    model = loaded(inside, tmp_path)
    assert model.blocks[-1] == "pool" and model.provenance["dialect"] == (source, "file")
    assert np.array_equal(model._weights["stem.weight"], next(iter(tensors.values())))
    head = {key: value for key, value in tensors.items() if not key.startswith("features.")}
    if name:
        assert loaded(inside | head, tmp_path).blocks[-1] == "classifier"


def test_options_that_no_network_has(tmp_path):
    tensors = small(1000)
    for option, message in (
        ({"activation": "tanh"}, "activation must be one of hard_swish, relu, relu6, swish, got 'tanh'"),
        ({"prefix": 3}, "prefix must be text such as 'encoder.', got 3"),
        ({"padding": "valid"}, "padding must be 'symmetric'"),
        ({"num_classes": -1}, "num_classes must be an integer >= 1"),
        ({"width": "1"}, "width must be a number above 0"),
        ({"layout": ["cifar"]}, "layout must be 'imagenet' or 'cifar'"),
        ({"preprocessing": 3}, "preprocessing must be a Preprocessing, got 3"),
        ({"classes": 3}, "names of classes must be a list of texts, got 3"),
        ({"classes": "a" * 1000}, "names of classes must be a list of texts"),
    ):
        with pytest.raises(ValueError, match=message):
            loaded(tensors, tmp_path, **option)


def test_many_networks_and_stems_cost_no_square_of_their_number():
    weight = np.zeros((32, 3, 3, 3), np.float32)
    stems = {f"net{number}.features.0.0.weight": weight for number in range(20_000)}
    with pytest.raises(CheckpointError, match="are not those of"):
        fit(stems)
