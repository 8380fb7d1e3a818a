"""Networks of ONNX files as models, and the commands."""

import json
import pickle
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest

import npmobilenet
from npmobilenet import AssumptionWarning, Preprocessing
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.cli import main
from npmobilenet.errors import CheckpointError
from npmobilenet.model import Model
from npmobilenet.onnx.file import Port
from npmobilenet.onnx.writing import export_onnx
from npmobilenet.onnx_model import OnnxModel
from tests.onnx_files import IMAGE, by_numpy, classifier, run, tensorflow

PHOTOGRAPH = np.random.default_rng(4).integers(0, 256, (40, 50, 3), np.uint8)
TOLD = Preprocessing(40, (32, 32), None, (0.1,) * 3, (0.2,) * 3)


@pytest.mark.parametrize("odd", [False, True])
def test_photographs_are_classified(saved, odd):
    path = saved(classifier(odd=odd))
    with pytest.warns(AssumptionWarning, match="preprocessing 224x224 of 256, .* assumed"):
        model = npmobilenet.load(path, backend="reference")
    assert isinstance(model, OnnxModel) == odd and len(model.classes) == 5
    logits = model(model.preprocess(PHOTOGRAPH)[None])
    best = model.classify(PHOTOGRAPH, top=1)[0]
    assert best.index == logits[0].argmax() and best.label == f"class {best.index}"
    assert np.array_equal(next(iter(model.run({"image": model.preprocess(PHOTOGRAPH)[None]}).values())), logits)
    with pytest.raises(ValueError, match="'image'"):
        model.run({"input": logits})


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("optimised", [False, True])
def test_images_whose_channels_come_last(saved, optimised, scaled, odd):
    graph = tensorflow(optimised, scaled, odd)
    values = (
        "values from 0 to 255, which the network scales itself" if scaled else "values from -1 to 1, as TensorFlow's"
    )
    with pytest.warns(AssumptionWarning, match=f"preprocessing 224x224 of 256, with {values}"):
        model = npmobilenet.load(saved(graph), backend="reference")
    assert isinstance(model, OnnxModel) == odd and model.channels_last and len(model.classes) == 5
    x = np.random.default_rng(1).standard_normal((2, 14, 18, 3)).astype(np.float32) * (255 if scaled else 1)
    wanted = by_numpy(graph, image=x)
    found = model.run({"image": x})["probabilities"]
    np.testing.assert_allclose(found, wanted["probabilities"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        model(x.transpose(0, 3, 1, 2)), wanted["probabilities" if odd else "l"], rtol=1e-4, atol=1e-4
    )
    assert model.classify(PHOTOGRAPH, top=1)[0].index == model(model.preprocess(PHOTOGRAPH)[None]).argmax()
    if not odd:
        with pytest.raises(
            ValueError, match=r"the input 'image' must be a float array \(N, H, W, 3\), got \(2, 3, 14, 18\)"
        ):
            model.run({"image": x.transpose(0, 3, 1, 2)})


def test_a_model_in_parts_is_a_model(saved, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = npmobilenet.load(saved(classifier(odd=True, shape=(1, 3, 32, 32))), backend="reference")
    x = np.random.default_rng(5).standard_normal((3, 3, 32, 32)).astype(np.float32)
    each = np.concatenate([model(one[None]) for one in x])
    assert np.array_equal(model(x), each)  # the file's batch is 1
    assert np.array_equal(pickle.loads(pickle.dumps(model))(x), each)
    assert "OnnxModel" in repr(model) and model.input_names == ("image",)
    with pytest.raises(ValueError, match="is computed in parts"):
        model.features(x)
    with pytest.raises(ValueError, match="is computed in parts"):
        npmobilenet.quantize(model)
    with pytest.raises(ValueError, match="is computed in parts"):
        npmobilenet.export_weights(model, tmp_path / "model.npz")
    model.release()


def test_what_belongs_to_a_network_stands_in_the_file_or_beside_it(saved, tmp_path):
    about = {"preprocessing": TOLD.to_dict(), "classes": list("abcde")}
    told = saved(classifier(metadata={"npmobilenet": json.dumps(about)}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = npmobilenet.load(told, backend="reference")
        assert (model.preprocessing, model.classes) == (TOLD, tuple("abcde"))
        assert model.provenance["preprocessing"][1] == "file"
        (tmp_path / "other.json").write_text(json.dumps(about))
        model = npmobilenet.load(saved(classifier(), "other.onnx"), backend="reference")
        assert (model.preprocessing, model.classes) == (TOLD, tuple("abcde"))
        model = npmobilenet.load(told, backend="reference", classes=list("vwxyz"))
        assert model.classes == tuple("vwxyz")
    (tmp_path / "other.json").write_text(json.dumps({"classes": ["a"], "preprocessing": TOLD.to_dict()}))
    with pytest.warns(AssumptionWarning, match="1 name of classes found for 5 outputs: not used"):
        npmobilenet.load(tmp_path / "other.onnx", backend="reference")


def test_a_softmax_at_the_end_is_not_applied_twice(saved):
    x = np.random.default_rng(6).standard_normal((2, 3, 32, 32)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = npmobilenet.load(saved(classifier()), backend="reference")
        soft = npmobilenet.load(
            saved(classifier([("Softmax", "scores", "p", {"axis": 1})]), "s.onnx"), backend="reference"
        )
    assert np.array_equal(soft(x), plain(x))
    probabilities = soft.run({"image": x})["p"]
    assert soft.top(soft(x), 1)[0][0].probability == pytest.approx(probabilities[0].max(), rel=1e-6)


def test_numbers_of_16_bits_are_computed_in_float32(saved):
    graph, x = classifier(), np.random.default_rng(5).standard_normal((2, 3, 32, 32)).astype(np.float16)
    half = replace(
        graph,
        constants={name: array.astype(np.float16) for name, array in graph.constants.items()},
        inputs=(Port("image", "float16", IMAGE),),
        outputs=(Port("scores", "float16", None),),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, two = (npmobilenet.load(saved(each), backend="reference") for each in (graph, half))
    np.testing.assert_allclose(two.run({"image": x})["scores"], one(x), rtol=0.01, atol=0.01)
    scores = run(half, image=x)["scores"]
    assert scores.dtype == np.float16 and scores.shape == (2, 5)


def test_a_size_that_the_file_fixes(saved):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = npmobilenet.load(saved(classifier(shape=(1, 3, 32, 48))), backend="reference")
    assert model.size == (32, 48) and model.preprocessing.crop == (32, 48)
    assert model(np.zeros((2, 3, 32, 48), np.float32)).shape == (2, 5)
    with pytest.raises(ValueError, match="the file fixes images to 32x48, got 32x32"):
        model(np.zeros((1, 3, 32, 32), np.float32))


def test_options_that_do_not_fit_a_whole_network(saved):
    path = saved(classifier())
    with pytest.raises(ValueError, match="holds a whole network, whose width cannot be chosen any more"):
        npmobilenet.load(path, width=0.5)
    with pytest.raises(ValueError, match="is computed in parts, which only a CPU does, in float32"):
        npmobilenet.load(saved(classifier(odd=True), "odd.onnx"), dtype="int8")


# Commands ----------------------------------------------------------------------------------------------------


def test_a_network_is_exported_and_inspected(tmp_path, capsys):
    path = str(tmp_path / "v1.onnx")
    assert main(["export", "mobilenet_v1", "--width", "0.25", "--num-classes", "7", "--onnx", path]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert main(["inspect", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["inspect", "mobilenet_v1", "--width", "0.25", "--num-classes", "7", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    for what in ("parameters", "macs", "op_by_op_memory"):
        assert found[what] == expected[what]
    assert main(["inspect", path, "--mixed", "3,5"]) == 1
    assert "no table of an architecture" in capsys.readouterr().err


def test_a_network_in_parts_is_inspected(saved, capsys):
    path = str(saved(classifier(odd=True)))
    assert main(["inspect", path, "--resolution", "32"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"node1 +1x4x32x32 +Softplus +NumPy +Softplus has no fast kernel", out)
    assert re.search(r"node4 +1x5 +Gemm +NumPy +no convolution beside it", out)
    assert main(["inspect", path, "--json"]) == 0
    assert [row["computed_by"] for row in json.loads(capsys.readouterr().out)["layers"]][:2] == ["kernels", "NumPy"]


@pytest.mark.parametrize(
    "name", ["ssdlite_mobilenet_v2", "ssd_mobilenet_v1", "tiny_face_detector", "centernet_mobilenet_v3_large"]
)
def test_a_detector_comes_back_a_detector(name, tmp_path):
    graph = get_architecture(name).graph(0.1)
    photo = Preprocessing(None, (64, 64), None, (0.5,) * 3, (0.5,) * 3)
    model = Model(graph, random_weights(graph), architecture=name, backend="reference", preprocessing=photo)
    again = npmobilenet.load(export_onnx(model, tmp_path / "d.onnx"), backend="reference")
    assert again.architecture == model.architecture and again.classes == model.classes
    assert str(again.detect(PHOTOGRAPH, 0.1)) == str(model.detect(PHOTOGRAPH, 0.1))


def test_what_has_no_boxes_is_no_detector(saved):
    with pytest.warns(AssumptionWarning):
        model = npmobilenet.load(saved(classifier(), "ssd_mobilenet_v1.onnx"), backend="reference")
    assert model.architecture == "ssd_mobilenet_v1, without its outputs"


def test_a_network_for_one_size_comes_back_with_it(tmp_path):
    """Its PReLUs have slopes for each pixel."""
    graph = get_architecture("expression_mobilenet_v2").graph(0.1)
    photo = Preprocessing(None, (48, 48), None, (0.5,) * 3, (0.5,) * 3)
    model = Model(graph, random_weights(graph), architecture="", backend="reference", preprocessing=photo)
    again = npmobilenet.load(export_onnx(model, tmp_path / "e.onnx"), backend="reference")
    x = np.random.default_rng(0).standard_normal((1, graph.in_channels, 48, 48), np.float32)
    assert again.size == (48, 48)
    assert np.array_equal(again(x), model(x))


def test_eight_bits_of_a_file_that_fixes_its_size(saved):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = npmobilenet.load(saved(classifier(shape=(1, 3, 32, 48))), backend="reference")
        small = npmobilenet.quantize(model)
    assert (small.input_name, small.size, small.dtype) == ("image", (32, 48), "int8")


def test_what_cannot_be_exported(tmp_path):
    graph = get_architecture("mobilenet_v1").graph(0.25, 3)
    model = Model(graph, random_weights(graph), architecture="mobilenet_v1", backend="reference")
    with pytest.raises(CheckpointError, match="the model is of 8 bits: export the one of float32"):
        export_onnx(npmobilenet.quantize(model), tmp_path / "int8.onnx")
    with pytest.raises(CheckpointError, match="cannot be written"):
        export_onnx(model, tmp_path / "nowhere" / "model.onnx")
    assert not list(tmp_path.iterdir())
