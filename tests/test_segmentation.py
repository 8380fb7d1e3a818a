"""Networks that score every pixel, from a file to their outputs."""

import warnings

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import random_weights
from npmobilenet.checkpoints.fit import naming
from npmobilenet.errors import CheckpointError, FallbackWarning
from tests.conftest import compiled_only, photo

DEEPLAB = "deeplabv3_mobilenet_v3_large"


@pytest.fixture(autouse=True)
def _any_backend():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        yield


def saved(path, architecture=DEEPLAB, classes=3, without="", source="torchvision"):
    """A file of a publisher's names, less those that begin so."""
    names = naming(architecture, source)
    graph = names.architecture.graph(1.0, classes, bn_eps=1e-3)
    keys = names.keys(graph)
    weights = {keys[name]: value for name, value in random_weights(graph, 1).items()}
    return npmobilenet.export_weights({k: v for k, v in weights.items() if not without or k.find(without)}, path)


@compiled_only
def test_two_outputs_at_once(tmp_path):
    model = npmobilenet.load(saved(tmp_path / "w.safetensors"))
    x = np.random.default_rng(0).standard_normal((2, 3, 33, 40)).astype(np.float32)
    assert model.output_names == ("logits", "auxiliary") and len(model.classes) == 3
    found = model.run({"input": x}, threads=2)
    assert {name: y.shape for name, y in found.items()} == {"logits": (2, 3, 33, 40), "auxiliary": (2, 3, 33, 40)}
    assert np.array_equal(model(x, threads=1), found["logits"])
    assert np.array_equal(model.features(x, "auxiliary"), found["auxiliary"])
    layers = model.outputs(x, ["block4", "auxiliary.scores", "aspp", "segmentation.scores"])
    assert [y.shape[1:] for y in layers.values()] == [(40, 5, 5), (3, 5, 5), (256, 3, 3), (3, 3, 3)]


@pytest.mark.parametrize("source", ["torchvision", "npmobilenet"])
def test_a_file_without_the_auxiliary_head(source, tmp_path):
    """torchvision's ``aux_loss=False``."""
    model = npmobilenet.load(saved(tmp_path / "w.safetensors", without="aux", source=source))
    assert model.output_names == ("logits",)
    with pytest.raises(ValueError, match="no block 'auxiliary'"):
        model.features(np.zeros((1, 3, 32, 32), np.float32), "auxiliary")


@compiled_only
def test_what_does_not_fit(tmp_path):
    path = saved(tmp_path / "w.npz", without="classifier.4")
    with pytest.raises(CheckpointError, match=r"(?s)deeplabv3.*2 missing:.*classifier\.4\.weight"):
        npmobilenet.load(path)
    path = saved(tmp_path / "w.npz")
    with pytest.raises(ValueError, match=r"num_classes=0 is for networks with a classifier .* deeplabv3"):
        npmobilenet.load(path, num_classes=0)
    with pytest.raises(CheckpointError, match=r"(?s)4 of another shape.*expected \(5, 256, 1, 1\), found \(3, 256"):
        npmobilenet.load(path, num_classes=5)
    with pytest.raises(CheckpointError, match=r"scores every pixel, and no class of .*; segment\(photo\)"):
        npmobilenet.load(saved(tmp_path / "l.npz", "lraspp_mobilenet_v3_large")).classify(photo("coffee.png"))
