"""Weights of TensorFlow.js and TFLite: read under PyTorch's names, converted as they are stored, and damaged."""

import hashlib
import json

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import random_weights
from npmobilenet.checkpoints import read_checkpoint
from npmobilenet.checkpoints.fit import naming
from npmobilenet.checkpoints.reader import read_encoded
from npmobilenet.cli import main
from npmobilenet.errors import CheckpointError
from npmobilenet.weights import CATALOGUE
from npmobilenet.weights.convert import ABOUT
from tests import tflite_files as tflite
from tests.checkpoint_files import storage, tensor, torch_zip
from tests.tensorflow_graphs import graph_of
from tests.tensorflow_js_files import manifest

RANDOM = np.random.default_rng(0)


def write(folder, weights, nodes=None):
    """Write arrays as TensorFlow.js does; return the manifest's path."""
    for name, content in manifest(weights, nodes).items():
        (folder / name).write_bytes(content)
    return folder / "model.json"


def floats(*shape, dtype=np.float32):
    return RANDOM.standard_normal(shape).astype(dtype)


# --- TensorFlow.js -----------------------------------------------------------------------------------------


def test_names_tell_what_weights_are_for(tmp_path):
    weights = {
        "a/conv0/filters": floats(3, 3, 2, 4, dtype=np.float16),
        "a/conv0/bias": floats(4),
        "a/conv1/depthwise_filter": (np.arange(36, dtype=np.uint8).reshape(3, 3, 4, 1), (0.1, -2.5)),
        "a/conv1/pointwise_filter": (np.full((1, 1, 4, 5), 60_000, np.uint16), (1e-3, 7.0)),
        "fc/weights": floats(5, 6),
        "step": np.int32([3]),
        "Output/extra_dim": floats(1, 9, 4),
    }
    read = read_checkpoint(write(tmp_path, weights))
    assert read.container == "a manifest of TensorFlow.js"
    shapes = {name: array.shape for name, array in read.tensors.items()}
    assert shapes == {
        "a.conv0.weight": (4, 2, 3, 3),
        "a.conv0.bias": (4,),
        "a.conv1.depthwise.weight": (4, 1, 3, 3),
        "a.conv1.weight": (5, 4, 1, 1),
        "fc.weight": (6, 5),
    }
    assert {array.dtype for array in read.tensors.values()} == {np.dtype(np.float32)}
    assert np.array_equal(read.tensors["a.conv0.weight"], weights["a/conv0/filters"].transpose(3, 2, 0, 1))
    integers = np.arange(36).reshape(3, 3, 4, 1).transpose(2, 3, 0, 1)
    assert np.array_equal(read.tensors["a.conv1.depthwise.weight"], np.float32(integers * 0.1 - 2.5))
    assert np.all(read.tensors["a.conv1.weight"] == np.float32(67))
    assert np.array_equal(read.tensors["fc.weight"], weights["fc/weights"].T)


def test_operations_tell_what_weights_are_for(tmp_path):
    """A fused layer; a bias added behind a sum; scales and an offset that were batch norms; other constants."""
    weights = {
        "x/merged": floats(1, 1, 3, 2),
        "x_bn/sub": floats(2),
        "y/kernel_in": floats(3, 3, 2, 1),
        "y_bn/mul": floats(2),
        "y_bn/sub": floats(2),
        "z/w": floats(1, 1, 2, 2),
        "z_add/y": floats(2),
        "six": np.float32(6).reshape(()),
        "other/y": floats(2, 2),
        "slopes/alpha": floats(1, 1, 2),
        "up/filter": floats(2, 2, 5, 2),
        "up_bn/mul": floats(5),
        "late/mul": floats(2),
    }
    nodes = [
        ("x", "_FusedConv2D", ["image", "x/merged", "x_bn/sub", "slopes/alpha"]),
        ("relu6", "Minimum", ["x", "six"]),
        ("y", "DepthwiseConv2dNative", ["relu6", "y/kernel_in"]),
        ("y_scaled", "Mul", ["y:0", "y_bn/mul"]),
        ("y_done", "Add", ["y_bn/sub", "y_scaled"]),
        ("z", "Conv2D", ["y_done", "z/w"]),
        ("sum", "AddN", ["z", "y_done"]),
        ("z_done", "AddV2", ["z_add/y", "sum"]),
        ("end", "Mul", ["z_done", "other/y"]),
        ("late", "Mul", ["x", "late/mul"]),
        ("up", "Conv2DBackpropInput", ["size", "up/filter", "end"]),
        ("up_scaled", "Mul", ["up", "up_bn/mul"]),
    ]
    found = read_checkpoint(write(tmp_path, weights, nodes)).tensors
    layers = {"x.weight", "x.bias", "y.weight", "y.bias", "z.weight", "z.bias", "up.weight"}
    assert set(found) == layers | {"other.y", "slopes.alpha", "late.mul"}  # which no network has
    assert np.array_equal(found["x.bias"], weights["x_bn/sub"]) and np.array_equal(found["z.bias"], weights["z_add/y"])
    scaled = weights["y/kernel_in"].transpose(2, 3, 0, 1) * weights["y_bn/mul"].reshape(2, 1, 1, 1)
    upward = weights["up/filter"].transpose(3, 2, 0, 1) * weights["up_bn/mul"].reshape(5, 1, 1)
    assert np.array_equal(found["up.weight"], upward)
    assert np.array_equal(found["y.weight"], scaled) and np.array_equal(found["y.bias"], weights["y_bn/sub"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda group: group.update(paths=["../weights.1.bin"]), "no file's name"),
        (lambda group: group.update(paths=["weights.1.bin", "weights.1.bin"]), "or there twice"),
        (lambda group: group.update(paths=["weights.1.bin", "nowhere.bin"]), r"its file 'nowhere\.bin' does not exist"),
        (lambda group: group.update(paths=["weights.1.bin"]), "should have 40 bytes and has 5"),
        (lambda group: group["weights"][0].update(shape=[10**9, 10**9]), "should have .* bytes and has"),
        (lambda group: group["weights"][0].update(shape=[2]), "is no regular file of at most 8 bytes"),
        (lambda group: group["weights"][0].update(shape=[-1]), "impossible shape"),
        (lambda group: group["weights"][0].update(dtype="string"), "is of 'string'; float32, int32, bool are read"),
        (lambda group: group["weights"][0].update(quantization={"dtype": "int4"}), "quantised, but not as float16"),
        (
            lambda group: group["weights"][0].update(shape=[40], quantization={"dtype": "uint8", "scale": "1"}),
            "impossible scale or minimum",
        ),
        (lambda group: group.update(weights=group["weights"] * 2), "has the tensor 'a/bias' twice|bytes and has"),
        (lambda group: group.pop("weights"), "has no paths and weights"),
    ],
)
def test_bad_manifests(change, message, tmp_path):
    path = write(tmp_path, {"a/bias": floats(10)})
    about = json.loads(path.read_text())
    change(about[0])
    path.write_text(json.dumps(about))
    if not path.read_text().startswith('[{"paths"'):
        path.write_text(json.dumps(about, sort_keys=True))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_published_network_is_found(tmp_path):
    names = naming("tiny_face_detector", "face-api.js")
    graph = names.architecture.graph(1.0, 1, "same")
    weights, keys = random_weights(graph, 3), names.keys(graph)
    theirs = {}
    for name, values in weights.items():
        module, _, last = keys[name].rpartition(".")
        inner = {"bias": "bias", "weight": "filters" if module in ("conv0", "conv8") else "pointwise_filter"}[last]
        if module.endswith(".depthwise"):
            module, inner = module.removesuffix(".depthwise"), "depthwise_filter"
        order = (2, 3, 0, 1) if inner == "depthwise_filter" else (2, 3, 1, 0)
        theirs[f"{module}/{inner}"] = values if values.ndim == 1 else np.ascontiguousarray(values.transpose(order))
    model = npmobilenet.load(write(tmp_path, theirs))
    assert (model.architecture, model.classes) == ("tiny_face_detector", ("face",))
    assert model.preprocessing == npmobilenet.load("tiny_face_detector").preprocessing
    assert all(np.array_equal(model._weights[name], values) for name, values in weights.items())


# --- TFLite ------------------------------------------------------------------------------------------------


def test_tflite(tmp_path):
    tensors, operators = tflite.small_model()
    path = tmp_path / "m.tflite"
    path.write_bytes(tflite.model(tensors, operators))
    read = read_checkpoint(path)
    assert read.container == "TFLite"
    orders = {"conv": (0, 3, 1, 2), "dw": (3, 0, 1, 2), "up": (3, 0, 1, 2), "fc": (0, 1)}
    assert set(read.tensors) == {
        "conv.weight",
        "conv.bias",
        "dw.weight",
        "dw.bias",
        "up.weight",
        "up.bias",
        "fc.weight",
    }
    for module, order in orders.items():
        expected = tensors[f"{module}/Kernel"].astype(np.float32).transpose(order)
        assert np.array_equal(read.tensors[f"{module}.weight"], expected)
    tensors["fc/Kernel"] = tensors["fc/Kernel"].astype(np.int8)
    path.write_bytes(tflite.model(tensors, operators))
    with pytest.raises(CheckpointError, match=r"'fc\.weight' is quantised \(int8\).*float32 and float16 are read"):
        read_checkpoint(path)
    path.write_bytes(tflite.model({"a": (1, 2)}, []))
    with pytest.raises(CheckpointError, match="TFLite model without weights"):
        read_checkpoint(path)


# --- Damage ------------------------------------------------------------------------------------------------


def mutated(whole, number, random):
    data = bytearray(whole)
    if number % 4 == 3:
        data = data[: random.integers(1, len(data))]
    for _ in range(1 + number % 3):
        data[random.integers(len(data))] = random.integers(256)
    return bytes(data)


@pytest.mark.parametrize("kind", ["manifest", "tflite", "affine"])
def test_damaged_copies(kind, tmp_path):
    """Read, or refused in one line; `tests.fuzz_checkpoints` tries more."""
    if kind == "tflite":
        path = tmp_path / "m.tflite"
        path.write_bytes(tflite.model(*tflite.small_model()))
    else:
        weights = {"a/filters": (np.zeros((3, 3, 1, 2), np.uint8), (0.5, 1.0)), "a/bias": floats(2)}
        path = write(tmp_path, weights, [("c", "Conv2D", ["x", "a/filters"])])
        if kind == "affine":
            metadata = {"affine": {"a": [0.5, 1.0]}, "padding": "same"}
            path = npmobilenet.export_weights(
                {"a": np.zeros(9, np.uint8)}, tmp_path / "a.safetensors", metadata=metadata
            )
            assert read_checkpoint(path).tensors["a"].tolist() == [1.0] * 9
    whole, random = path.read_bytes(), np.random.default_rng(1)
    for number in range(200):
        path.write_bytes(mutated(whole, number, random))
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            assert "\n" not in str(error) and str(path) in str(error)


# --- Converting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["face_expression", "tiny_face_detector", "selfie_segmentation", "mobilenet_v1"])
def test_a_shipped_file_made_of_itself_is_the_same(name, tmp_path):
    """What its numbers are stored as, and all that belongs to them."""
    made = tmp_path / "made.safetensors"
    assert main(["weights", "convert", str(CATALOGUE[name].path), "--as", name, "--out", str(made)]) == 0
    assert hashlib.sha256(made.read_bytes()).hexdigest() == CATALOGUE[name].sha256


def tensorflow_js(tensors, meanings, folder):
    theirs = {}
    for name, values in tensors.items():
        module, _, last = name.rpartition(".")
        if values.ndim == 2:
            last, values = "weights", values.T
        elif values.ndim == 4:
            last = "depthwise_filter" if module.endswith(".depthwise") else "filters"
            values = values.transpose((2, 3, 0, 1) if last == "depthwise_filter" else (2, 3, 1, 0))
        values = np.ascontiguousarray(values)
        path = f"{module.removesuffix('.depthwise')}.{last}".replace(".", "/")
        theirs[path] = (values, meanings[name]) if name in meanings else values
    return write(folder, theirs)


def frozen_graph(tensors, meanings, folder):
    assert not meanings
    path = folder / "frozen_inference_graph.pb"
    path.write_bytes(graph_of(tensors))
    return path


def torch_file(tensors, meanings, folder):
    assert not meanings
    arrays = {str(at): np.ascontiguousarray(values) for at, values in enumerate(tensors.values())}
    state = {}
    for (key, values), name in zip(arrays.items(), tensors, strict=True):
        strides = tuple(stride // values.itemsize for stride in values.strides)
        state[name] = tensor(storage(values.size, key=key), values.shape, strides)
    path = folder / "weights.pth"
    path.write_bytes(torch_zip(state, {key: values.tobytes() for key, values in arrays.items()}))
    return path


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("face_expression", tensorflow_js),
        ("tiny_face_detector", tensorflow_js),
        ("ssdlite_mobilenet_v2_person", frozen_graph),
        ("mobilenet_v2", torch_file),
    ],
)
def test_a_shipped_file_made_of_its_publishers_format_is_the_same(name, published, tmp_path):
    """Its tensors, written under the names, with the axes and the integers of that format."""
    _, tensors, meanings = read_encoded(CATALOGUE[name].path)
    made = tmp_path / "made.safetensors"
    source = published(tensors, meanings, tmp_path)
    assert main(["weights", "convert", str(source), "--as", name, "--out", str(made)]) == 0
    assert hashlib.sha256(made.read_bytes()).hexdigest() == CATALOGUE[name].sha256


def test_converting_another_file_is_refused(tmp_path, capsys):
    other, out = str(CATALOGUE["tiny_face_detector"].path), tmp_path / "x.safetensors"
    assert main(["weights", "convert", other, "--as", "face_expression", "--out", str(out)]) == 1
    assert "are not those of face_expression" in capsys.readouterr().err
    assert main(["weights", "convert", other, "--as", "nothing", "--out", str(out)]) == 1
    assert "no weights 'nothing' are made here; those that are: mobilenet_v2" in capsys.readouterr().err
    assert not out.exists()
    assert set(ABOUT) == {name for name, entry in CATALOGUE.items() if not entry.url}
