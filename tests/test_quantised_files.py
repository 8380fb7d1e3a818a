"""Networks that PyTorch quantised run in 8 bits with the scales of their files, as PyTorch's own engine does."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

import npmobilenet
from npmobilenet.checkpoints import read_checkpoint
from npmobilenet.cli import main
from npmobilenet.errors import AssumptionWarning, CheckpointError, FallbackWarning
from tests.conftest import compiled_only
from tests.data.make_quantised import FOLDER, NETWORKS, images

pytestmark = [compiled_only, pytest.mark.filterwarnings("ignore::npmobilenet.AssumptionWarning")]
NAMES = [f"{architecture}_{engine}" for architecture, engine in NETWORKS]
FILES = {name: FOLDER / f"{name}.pth.xz" for name in NAMES}
WIDTHS = dict(zip(NAMES, NETWORKS.values(), strict=True))


def quantised(name: str, **options) -> npmobilenet.Model:
    """A stored network in 8 bits."""
    return npmobilenet.load(FILES[name], **{"dtype": "int8", "backend": "plain", "width": WIDTHS[name], **options})


@pytest.fixture(scope="module")
def logits():
    with np.load(FOLDER / "logits.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_pytorch_s_engine(name, logits):
    """Within two steps of the last scale: qnnpack rounds sums in its own way; the other is met to the bit."""
    model = quantised(name)
    assert model.dtype == "int8" and model.graph.is_quantised
    assert model.provenance["quantisation"] == ("stored", "file")
    found, expected, step = model(images()), logits[name], logits[f"{name}_step"]
    assert np.ptp(expected) > 100 * step
    steps = np.abs(found - expected) / step
    assert steps.max() < (2.01 if "qnnpack" in name else 0.01)
    assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1)) or "qnnpack" in name
    np.testing.assert_allclose(found / step, np.rint(found / step), atol=1e-3)  # as the last scale has it


def test_every_backend_has_the_same_bits():
    name = "mobilenet_v3_large_x86"  # with every operation that the other has
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        models = [quantised(name, backend=each) for each in ("auto", "plain")]
    x = images()[:2, :, :40, :40]
    expected = quantised(name, backend="reference")(x[:1])
    for model in models:
        np.testing.assert_array_equal(model(x)[:1], expected)
        np.testing.assert_array_equal(model(x[1:], threads=2), models[0](x)[1:])


def test_as_float32_it_stays_what_it_was(logits):
    name = "mobilenet_v2_x86"
    model = npmobilenet.load(FILES[name], backend="plain")
    assert model.dtype == "float32" and not model.graph.is_quantised
    assert np.abs(model(images()) - logits[name]).max() < 4 * logits[f"{name}_step"]


def test_an_image_beyond_the_range_of_the_file_is_cut_off():
    """The image's kernel of 16 bits ends where the bytes of the file would."""
    model = quantised("mobilenet_v2_x86")
    quantisation = read_checkpoint(FILES["mobilenet_v2_x86"]).quantisation["quant"]
    scale, zero_point = float(quantisation.scale), int(quantisation.zero_point)
    stem = model.graph.nodes[0]
    assert stem.operation == "conv2d_int8" and stem["limits"] == (-zero_point, 255 - zero_point)
    x = 2 * images()
    cut = np.clip(x, *np.float32([scale * end for end in stem["limits"]]))
    assert (cut != x).any()
    np.testing.assert_array_equal(model(x), model(cut))
    assert (model(x) != model(x / 2)).any()


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_it_is_stored_and_inspected(suffix, tmp_path):
    model = quantised("mobilenet_v2_qnnpack")
    file = npmobilenet.export_weights(model, tmp_path / f"network{suffix}")
    again = npmobilenet.load(file, backend="plain")
    assert again.dtype == "int8"
    x = images()[:1]
    np.testing.assert_array_equal(again(x), model(x))
    block = model.outputs(x, ["block3", "pool"])
    assert block["block3"].dtype == np.float32 and block["block3"].shape == (1, 8, 16, 16)
    assert block["pool"].shape == (1, 1280)
    with pytest.raises(ValueError, match="8 bits already"):
        npmobilenet.quantize(model)


def test_its_layers_are_shown(capsys):
    assert main(["inspect", str(FILES["mobilenet_v2_x86"]), "--dtype", "int8", "--resolution", "64"]) == 0
    shown = capsys.readouterr()
    assert "scales as in the file" in shown.out and "add_int8" in shown.out
    assert shown.err.count("\n") == 1  # classes as few as CIFAR's


def changed(monkeypatch, **edits):
    """Read the file as if it said something else of some layers; None: nothing."""

    real = npmobilenet.checkpoints.read_checkpoint

    def read(*arguments, **options):
        checkpoint = real(*arguments, **options)
        quantisation = {**checkpoint.quantisation, **{key.replace("__", "."): value for key, value in edits.items()}}
        return replace(checkpoint, quantisation={key: value for key, value in quantisation.items() if value})

    monkeypatch.setattr(npmobilenet.checkpoints, "read_checkpoint", read)


@pytest.mark.parametrize(
    ("layer", "change", "says"),
    [
        ("quant", None, "has no scale of what 'quant' computes"),
        ("features.3.skip_add", None, "skip_add"),
        ("features.18.0", None, "has no scale of what 'features.18.0' computes"),
        ("features.18.0", {"scale": np.float32(0)}, "no tensor of 8 bits has"),
        ("features.18.0", {"scale": np.float32("nan")}, "no tensor of 8 bits has"),
        ("features.18.0", {"zero_point": np.int32(256)}, "no tensor of 8 bits has"),
        ("features.18.0.weight", None, "is no quantised tensor, though others are"),
        ("features.18.0.weight", {"zero_point": np.int32(3)}, "zero point of 0"),
        ("features.18.0.weight", {"axis": 1}, "scales for output channels"),
        ("features.18.0.weight", {"scale": np.float32(-1)}, "not above 0"),
    ],
)
def test_what_cannot_be_is_one_line(layer, change, says, monkeypatch):
    file = FILES["mobilenet_v2_qnnpack"]
    value = change and read_checkpoint(file).quantisation[layer]._replace(**change)
    changed(monkeypatch, **{layer.replace(".", "__"): value})
    with pytest.raises(CheckpointError, match=says) as error:
        npmobilenet.load(file, dtype="int8", backend="plain")
    assert "\n" not in str(error.value) and str(error.value).startswith(str(file))


def test_weights_alone_are_quantised_anew(monkeypatch):
    """A file without scales of results, or an activation that is not the file's."""
    file = FILES["mobilenet_v2_qnnpack"]
    results = {key: None for key, value in read_checkpoint(file).quantisation.items() if value.values is None}
    changed(monkeypatch, **{key.replace(".", "__"): value for key, value in results.items()})
    with pytest.warns(AssumptionWarning, match="images made up"):
        model = npmobilenet.load(file, dtype="int8", backend="plain")
    assert model.provenance["quantisation"][1] == "assumed"
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"activation behind 'features\.0\.0'"):
        npmobilenet.load(file, dtype="int8", backend="plain", activation="relu6")
