"""Whole networks of 8 bits: every architecture, the same bits from every backend, files, and what is refused."""

from __future__ import annotations

import json
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import ARCHITECTURES, get_architecture, random_weights
from npmobilenet.bench import agreement
from npmobilenet.checkpoints import read_checkpoint
from npmobilenet.cli import main
from npmobilenet.engine import Engine
from npmobilenet.errors import AssumptionWarning, CheckpointError, FallbackWarning
from npmobilenet.graph import Graph, Node
from npmobilenet.passes import fuse
from npmobilenet.quantisation import layers, made_up_images, quantised, signal_to_noise
from npmobilenet.statistics import Values, promised
from tests.conftest import compiled_only, photo

pytestmark = [compiled_only, pytest.mark.filterwarnings("ignore::npmobilenet.AssumptionWarning")]
SMALL = npmobilenet.Preprocessing(40, (40, 40), None, (0.5,) * 3, (0.5,) * 3)


def model(architecture: str, width: float = 0.25, backend: str = "plain", classes: int = 7) -> npmobilenet.Model:
    """Seeded weights, for small images."""
    graph = get_architecture(architecture).graph(width, classes)
    return npmobilenet.Model(
        graph, random_weights(graph), architecture=architecture, width=width, preprocessing=SMALL, backend=backend
    )


def images(count: int = 3, size: tuple[int, int] = (40, 40)) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (count, 3, *size)).astype(np.float32)


@pytest.fixture(scope="module")
def small() -> npmobilenet.Model:
    return npmobilenet.quantize(model("mobilenet_v2"))


ONE_OF_EACH = (
    "mobilenet_v1", "mobilenet_v1_dense", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "mixnet_s",
    "mnasnet_b1", "efficientnet_b0", "efficientnet_lite0",
)  # fmt: skip


@pytest.mark.parametrize("architecture", ["mobilenet_v1", "mobilenet_v3_small", "mixnet_s", "efficientnet_lite0"])
def test_every_backend_computes_the_same(architecture):
    whole = model(architecture)
    plain, x = npmobilenet.quantize(whole), images(2)
    expected = plain(x, threads=1)
    reference = npmobilenet.Model(
        plain.graph, plain.stored()[0], architecture=architecture, backend="reference", dtype="int8"
    )
    np.testing.assert_array_equal(reference(x[:1]), expected[:1])
    np.testing.assert_array_equal(plain(x, threads=2), expected)
    np.testing.assert_array_equal(plain(x[1:]), expected[1:])
    assert signal_to_noise(expected, whole(x)) > 14
    assert plain._engine.plan((40, 40)).memory <= 0.7 * whole._engine.plan((40, 40)).memory


def test_every_architecture_can_be_quantised():
    """What becomes of graphs that are too large to be computed here."""
    for name, architecture in ARCHITECTURES.items():
        graph = architecture.graph(0.25, 5)
        made = quantised(graph, random_weights(graph), SMALL) if name in ONE_OF_EACH else None
        if made:
            shapes = made.graph.shapes((64, 64))
            assert shapes.items() >= fuse(graph).shapes((64, 64)).items()
            # Nothing is left to floats for which 8 bits have a fast kernel.
            left = {node.operation for node in made.graph}
            assert not left & {"depthwise_conv2d", "pointwise_conv2d", "linear"}, name
            assert "conv2d" not in left or name == "mobilenet_v1_dense"


@pytest.mark.parametrize(("name", "least"), [("mobilenet_v2", 21.5), ("mobilenet_v1", 23.0)])
def test_trained_networks_stay_what_they_are(name, least, request):
    pytest.importorskip("PIL")
    whole = request.getfixturevalue(name)
    made = npmobilenet.load(name, dtype="int8", backend="plain")
    assert made.provenance["quantisation"] == ("batch norms", "file")
    x = np.stack([whole.preprocess(photo(file)) for file in ("coffee.png", "chelsea.png", "astronaut.png")])
    expected, logits = whole(x), made(x)
    centred = expected - expected.mean(axis=1, keepdims=True)
    assert signal_to_noise(logits - expected + centred, centred) > least
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_batch_norms_tell_what_values_follow():
    weights = {
        "n.weight": np.float32([1, 2, 1]), "n.bias": np.float32([0, 1, -20]), "n.running_mean": np.float32([1, 2, 3]),
        "n.running_var": np.float32([1, 1, 1]), "c.weight": np.ones((3, 3, 1, 1), np.float32),
    }  # fmt: skip
    nodes = (
        Node("c", "pointwise_conv2d", ("input",), "b", {"weight": (3, 3, 1, 1)}, {"channels": 3}),
        Node(
            "n", "batch_norm", ("c",), "b", {name: (3,) for name in ("weight", "bias", "running_mean", "running_var")}
        ),
        Node("a", "activation", ("n",), "b", {}, {"function": "relu"}),
    )
    values = promised(fuse(Graph(nodes)), weights)["c"]
    np.testing.assert_allclose(values.high, [12, 25, 0])
    np.testing.assert_allclose(values.low, [0, 0, 0])
    # The mean of a normal distribution cut off at 0: s * pdf(m / s) + m * cdf(m / s).
    np.testing.assert_allclose(values.mean, [0.39894, 1.39559, 0], atol=1e-3)


def test_one_image_widens_a_range_as_far_as_it_may():
    told, limit = Values(*np.float64([[0, 0], [9, 9], [1, 1]])), Values(*np.float64([[0, 0], [12, 12], [1, 1]]))
    found = Values(*np.float64([[-1, 0], [10, 50], [3, 3]]))
    joined = told.including(found, limit)
    np.testing.assert_array_equal([joined.low, joined.high, joined.mean], [[0, 0], [10, 12], [1, 1]])
    assert Values().including(found, limit) == Values()


def test_statistics_that_are_not_the_networks_are_not_believed():
    """Seeded weights have batch norms that know nothing of them; folded ones have none at all."""
    whole = model("mobilenet_v2")
    with pytest.warns(AssumptionWarning, match=r"no batch norm tells what values .*: found in images made up; "):
        made = npmobilenet.quantize(whole)
    assert made.provenance["quantisation"] == ("images made up", "assumed")
    photographs = [np.random.default_rng(k).integers(0, 256, (50, 44, 3)).astype(np.uint8) for k in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = npmobilenet.quantize(whole, images=photographs)
    assert seen.provenance["quantisation"] == ("2 photographs", "option")
    x = np.stack([whole.preprocess(image) for image in photographs])
    assert signal_to_noise(seen(x), whole(x)) > 15


def test_fewer_bits_are_less_right():
    whole, x = model("mobilenet_v1"), images()
    expected = whole(x)
    ratios = [signal_to_noise(npmobilenet.quantize(whole, weight_bits=bits)(x), expected) for bits in (8, 6, 4)]
    assert ratios[0] > ratios[1] + 2 > ratios[2] + 6


def test_any_tensor_is_an_output(small):
    x = images(2)
    names = ["stem", "block2", "block2.expand", "block3.depthwise", "pool", "logits"]
    found = small.outputs(x, names)
    whole = model("mobilenet_v2").outputs(x, names)
    for name in names:
        assert found[name].dtype == np.float32
        assert found[name].shape == whole[name].shape
        assert signal_to_noise(found[name], whole[name]) > 15, name
    np.testing.assert_array_equal(found["logits"], small(x))


def test_other_sizes_and_images_that_are_no_numbers(small):
    x = images(3, (33, 57))
    x[1, 2, 3, 4] = np.nan
    y = small(x)
    assert np.isnan(y[1]).all()
    assert np.isfinite(y[[0, 2]]).all()
    x[1, 2, 3, 4] = -np.inf
    assert np.isnan(small(x[1:2])).all()
    assert np.isfinite(small(np.zeros((1, 3, 40, 40), np.float32))).all()
    np.testing.assert_array_equal(small(1e30 * np.ones((1, 3, 40, 40), np.float32)).shape, (1, 7))


def test_a_model_is_pickled_and_shown(small):
    again = pickle.loads(pickle.dumps(small))
    np.testing.assert_array_equal(again(images()), small(images()))
    assert "dtype='int8'" in repr(small)
    assert small.dtype == "int8"
    assert small.count(40).macs == model("mobilenet_v2").count(40).macs


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("architecture", ["mobilenet_v2", "mixnet_s", "mobilenet_v3_small"])
def test_a_file_holds_the_whole_network(architecture, suffix, tmp_path):
    whole = model(architecture)
    made = npmobilenet.quantize(whole)
    path = npmobilenet.export_weights(made, tmp_path / f"made{suffix}", metadata={"title": "small"})
    again = npmobilenet.load(path, backend="plain")
    x = images()
    np.testing.assert_array_equal(again(x), made(x))
    np.testing.assert_array_equal(again.features(x, "block1"), made.features(x, "block1"))
    assert (again.architecture, again.width, again.dtype) == (architecture, 0.25, "int8")
    assert again.preprocessing == whole.preprocessing
    assert again.classes == whole.classes
    assert again.provenance["quantisation"] == ("stored", "file")
    assert read_checkpoint(path).metadata["title"] == "small"
    assert list(again.stored()[0]) and npmobilenet.export_weights(again, tmp_path / f"twice{suffix}").exists()


def test_a_quarter_of_the_size(tmp_path, mobilenet_v2):
    whole = npmobilenet.export_weights(mobilenet_v2, tmp_path / "whole.safetensors")
    made = npmobilenet.export_weights(mobilenet_v2, tmp_path / "made.safetensors", dtype="int8")
    assert made.stat().st_size < 0.28 * whole.stat().st_size
    half = npmobilenet.export_weights(mobilenet_v2, tmp_path / "half.safetensors", dtype="float16")
    assert half.stat().st_size < 0.51 * whole.stat().st_size


def test_a_model_of_floats_is_stored_too(tmp_path):
    whole = model("mobilenet_v3_small")
    again = npmobilenet.load(npmobilenet.export_weights(whole, tmp_path / "whole.safetensors"), backend="plain")
    np.testing.assert_array_equal(again(images()), whole(images()))
    assert again.dtype == "float32"
    made = npmobilenet.load(tmp_path / "whole.safetensors", backend="plain", dtype="int8")
    np.testing.assert_array_equal(made(images()), npmobilenet.quantize(whole)(images()))


def test_named_tensors_in_another_type(tmp_path):
    tensors = {"a": np.float64([1.5, 2.5]), "b": np.int64([1, 2])}
    path = npmobilenet.export_weights(tensors, tmp_path / "t.npz", dtype="float16")
    with np.load(path) as stored:
        assert (stored["a"].dtype, stored["b"].dtype) == (np.float16, np.int64)
    with pytest.raises(CheckpointError, match="int8 needs a model"):
        npmobilenet.export_weights(tensors, tmp_path / "u.npz", dtype="int8")
    with pytest.raises(CheckpointError, match="dtype must be one of float32, float16, int8, got 'int4'"):
        npmobilenet.export_weights(tensors, tmp_path / "u.npz", dtype="int4")
    assert not (tmp_path / "u.npz").exists()


def test_what_cannot_be_is_one_clear_line(small, tmp_path):
    whole = model("mobilenet_v2")
    path = npmobilenet.export_weights(small, tmp_path / "small.safetensors")
    with pytest.raises(ValueError, match="of 8 bits already"):
        npmobilenet.quantize(small)
    with pytest.raises(ValueError, match="weight_bits must be an integer from 4 to 8, got 3"):
        npmobilenet.quantize(whole, weight_bits=3)
    with pytest.raises(ValueError, match="images must be a list of at least one photograph"):
        npmobilenet.quantize(whole, images=[])
    with pytest.raises(ValueError, match="model must be a Model, such as"):
        npmobilenet.quantize({"a": 1})
    with pytest.raises(ValueError, match="'cuda' has no 8-bit kernels"):
        npmobilenet.load("mobilenet_v2", dtype="int8", backend="cuda")
    with pytest.raises(ValueError, match="'cuda' has no 8-bit kernels"):
        npmobilenet.load(path, backend="cuda")
    with pytest.raises(ValueError, match="is a network of 8 bits, which cannot be loaded as 'float32'"):
        npmobilenet.load(path, dtype="float32")
    with pytest.raises(ValueError, match="holds a whole network, whose width cannot be chosen any more"):
        npmobilenet.load(path, width=0.5)
    with pytest.raises(ValueError, match="the model is of 8 bits, and cannot be stored as 'float16'"):
        npmobilenet.export_weights(small, tmp_path / "other.safetensors", dtype="float16")
    with pytest.raises(ValueError, match=r"dtype 'int8' is that of a quantised graph and of no other"):
        npmobilenet.Model(whole.graph, whole.stored()[0], architecture="x", dtype="int8")
    with pytest.raises(
        ValueError, match=r"dtype must be float32, int8, or float16 with the backend 'cuda'; got 'int4'"
    ):
        npmobilenet.load("mobilenet_v2", dtype="int4")
    pooled = Graph((Node("pool", "global_average_pool", ("input",), "pool"),))
    with pytest.raises(ValueError, match="no convolutions: there is nothing that 8 bits would make faster"):
        npmobilenet.quantize(npmobilenet.Model(pooled, {}, architecture="x", backend="plain"))


def damages(about: dict, tensors: dict) -> dict:
    """Changes of the description of a network, or of its tensors, by what they are."""
    network, nodes = about["network"], about["network"]["nodes"]
    stem = next(node for node in nodes if node[0] == "stem")
    return {
        "version": lambda: network.update(version=2),
        "no nodes": lambda: network.update(nodes=[]),
        "nodes are text": lambda: network.update(nodes="x" * 50),
        "a node is a number": lambda: nodes.append(5),
        "a node is short": lambda: nodes[0].pop(),
        "twice": lambda: nodes.append(nodes[0]),
        "operation": lambda: stem.__setitem__(1, "eval"),
        "operation is a list": lambda: stem.__setitem__(1, ["conv2d"]),
        "other operation": lambda: stem.__setitem__(1, "conv2d"),
        "inputs": lambda: nodes[2].__setitem__(2, ["nowhere"]),
        "no inputs": lambda: nodes[2].__setitem__(2, []),
        "floats for bytes": lambda: nodes[1].__setitem__(2, ["input"]),
        "attribute": lambda: stem[4].update(evil=1),
        "huge image": lambda: stem[4].update(padding=60_000),
        "huge attribute": lambda: stem[4].update(padding=10**9),
        "deep attribute": lambda: stem[4].update(padding=[[[[1]]]]),
        "stride 0": lambda: stem[4].update(stride=[0, 0]),
        "stride is text": lambda: stem[4].update(stride="two"),
        "activation": lambda: stem[4].update(activation="gelu"),
        "dtype": lambda: stem[4].update(dtype="float64"),
        "steps": lambda: stem[4].update(steps=-1.0),
        "entry": lambda: nodes[-1][4].update(zero_point=7),
        "groups": lambda: stem[4].update(groups=2),
        "channels": lambda: stem[4].update(channels=9),
        "width": lambda: network.update(width="wide"),
        "in_channels": lambda: network.update(in_channels=-3),
        "outputs": lambda: network.update(outputs={"logits": "nowhere"}),
        "outputs is a list": lambda: network.update(outputs=[1]),
        "architecture": lambda: network.update(architecture="\x1b[31m"),
        "a scale is missing": lambda: tensors.pop("stem.scale"),
        "a code is missing": lambda: tensors.pop("stem.out_scale"),
        "a tensor too many": lambda: tensors.update({"other.weight": np.zeros(3, np.int8)}),
        "a parameter too many": lambda: tensors.update({"stem.slope": np.zeros(3, np.float32)}),
        "scale in bytes": lambda: tensors.update({"stem.scale": np.zeros(8, np.uint8)}),
        "weight in floats": lambda: tensors.update({"stem.weight": tensors["stem.weight"].astype(np.float32)}),
        "weight in bytes": lambda: tensors.update({"stem.weight": tensors["stem.weight"].astype(np.int8)}),
        "scale is NaN": lambda: tensors.update({"stem.scale": np.full_like(tensors["stem.scale"], np.nan)}),
        "scale is short": lambda: tensors.update({"stem.scale": tensors["stem.scale"][1:]}),
        "sums too large": lambda: tensors.update({"stem.weight": np.full_like(tensors["stem.weight"], 32767)}),
        "16 bits": lambda: tensors.update(
            {"block1.depthwise.weight": np.full_like(tensors["block1.depthwise.weight"], 16384)}
        ),
    }


HOW = tuple(damages({"network": {"nodes": [["stem"]]}}, {}))


@pytest.mark.parametrize("how", HOW)
def test_damaged_files_are_refused(how, small, tmp_path):
    tensors, about = small.stored()
    about = json.loads(json.dumps(about))
    damages(about, tensors)[how]()
    path = npmobilenet.export_weights(tensors, tmp_path / "bad.safetensors", metadata=about)
    with pytest.raises(CheckpointError) as error:
        npmobilenet.load(path, backend="plain")
    assert str(error.value).startswith(f"{path}: its network: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    assert "\x1b" not in str(error.value)


def test_every_layer_is_shown(small, tmp_path, capsys, pets):
    whole = model("mobilenet_v2")
    image = made_up_images(SMALL, 3)[0]
    found = layers(whole.graph, whole.stored()[0], quantised(whole.graph, whole.stored()[0], SMALL), image)
    by_name = {layer.name: layer for layer in found}
    stem = by_name["stem"]
    assert (stem.dtype, stem.weight_dtype, stem.result_bytes) == ("uint8", "int16", 8 * 20 * 20)
    assert by_name["block1.depthwise"].weight_dtype == "int16"
    assert by_name["block2.depthwise"].weight_dtype == "int8"
    assert by_name["block2.project"].dtype == "float32"
    assert all(layer.decibels > 3 for layer in found), [layer for layer in found if not layer.decibels > 3]
    assert stem.decibels > 35
    assert main(["inspect", pets, "--dtype", "int8", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {layer["name"] for layer in report["layers"]} >= {"stem", "block3.expand", "classifier"}
    assert main(["inspect", pets, "--dtype", "int8"]) == 0
    text = capsys.readouterr().out
    assert "pointwise_conv2d_int8" in text
    assert "weights " in text
    path = str(npmobilenet.export_weights(small, tmp_path / "small.safetensors"))
    assert main(["inspect", path]) == 0
    assert "conv2d_int8 3x3  " in capsys.readouterr().out
    for arguments, message in (
        ([path, "--dtype", "int8"], "is of 8 bits already"),
        (["mnasnet_b1", "--dtype", "int8"], "is an architecture, and this needs weights"),
        ([pets, "--dtype", "int8", "--mixed", "3,5"], "--mixed compares networks of float32"),
    ):
        assert main(["inspect", *arguments]) == 1, arguments
        assert message in capsys.readouterr().err


def test_the_command_line(pets, thumbnails, capsys):
    files = sorted(map(str, thumbnails.iterdir()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        assert main(["classify", "--model", pets, "--dtype", "int8", "--backend", "plain", *files]) == 0
    assert capsys.readouterr().out.count("cat") == len(files)
    assert main(["classify", "--model", pets, "--dtype", "int8", "--backend", "cuda", *files]) == 1
    assert "'cuda' has no 8-bit kernels" in capsys.readouterr().err


def test_agreement_of_names(pets, thumbnails, tmp_path, capsys):
    command = ["--model", pets, "--crops", "6", "--backend", "plain"]
    assert agreement.main([str(thumbnails), *command, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["crops"] == 6
    assert found["sure"] <= 6
    assert 0 <= found["same"] <= 1
    assert found["decibels"] > 0
    assert agreement.main([str(thumbnails), *command]) == 0
    assert "where sure" in capsys.readouterr().out
    first, again = (list(agreement.crops(sorted(thumbnails.iterdir()), 3, seed=2)) for _ in range(2))
    assert all((one == two).all() and one.shape[0] == one.shape[1] for one, two in zip(first, again, strict=True))
    with pytest.raises(SystemExit):
        agreement.main([str(tmp_path), *command])
    assert "has no photographs" in capsys.readouterr().err


def test_plain_loops_compute_what_the_fastest_kernels_do_not():
    def dilated(backend: str) -> npmobilenet.Model:
        about = model("mobilenet_v1", backend=backend)
        nodes = tuple(
            node.with_attributes(dilation=(2, 2)) if node.name == "stem" else node for node in about.graph.nodes
        )
        return npmobilenet.Model(
            replace(about.graph, nodes=nodes), about.stored()[0], architecture="mobilenet_v1", width=0.25,
            preprocessing=SMALL, backend=backend,
        )  # fmt: skip

    with pytest.warns(FallbackWarning, match="with dilation or groups"):
        made = npmobilenet.quantize(dilated("auto"))
    np.testing.assert_array_equal(made(images()), npmobilenet.quantize(dilated("plain"))(images()))


def test_dense_convolutions_stay_float32():
    """All but the image's; files that bring integers for them have them in 8 bits (`tests/test_onnx_int8.py`)."""
    made = npmobilenet.quantize(model("mobilenet_v1_dense", backend="auto"))
    assert not made.plain_layers
    assert [node.name for node in made.graph if node.operation == "conv2d_int8"] == ["stem"]


@pytest.mark.parametrize("name", ["selfie_segmentation", "tiny_face_detector", "face_expression"])
def test_ranges_that_nothing_tells_are_not_made_up(name):
    """Without batch norms pointwise convolutions quantise pixel by pixel; gates of a whole image stay float32."""
    with pytest.warns(AssumptionWarning, match="no batch norm tells"):
        made = npmobilenet.load(name, dtype="int8")
    whole = npmobilenet.load(name)
    x = np.stack([whole.preprocess(photo(file)) for file in ("chelsea.png", "three_women.jpg")])
    names = whole.graph.output_names
    for output, exact in whole.outputs(x, names).items():
        near = made.outputs(x, names)[output]
        assert signal_to_noise(near - exact.mean(), exact - exact.mean()) > 20
    if name == "selfie_segmentation":
        assert {made.graph[f"block10.{part}"].operation for part in ("reduce", "gate")} == {"pointwise_conv2d"}


def test_layers_that_make_too_much_noise_stay_float32():
    """Of networks that say where something is: of these weights any rounding to 8 bits makes much."""
    graph = get_architecture("ssdlite_mobilenet_v3_large").graph(0.25, 3)
    weights, preprocessing = random_weights(graph, 1), replace(SMALL, crop=(96, 96))
    made, x = quantised(graph, weights, preprocessing), made_up_images(replace(preprocessing, crop=(80, 112)), 3)[0]
    fewer = quantised(graph, weights, preprocessing, weight_bits=6)  # then there are 6 everywhere
    floats, none = (sum(node.operation == "pointwise_conv2d" for node in each.graph) for each in (made, fewer))
    assert floats > none and any(node.operation == "pointwise_conv2d_int8" for node in made.graph)
    names = graph.output_names
    exact = Engine(graph, weights).outputs(x[None], names)
    near = Engine(made.graph, made.weights, dtype="int8").outputs(x[None], names)
    assert min(signal_to_noise(near[name], exact[name]) for name in names) > 20


def test_the_range_of_the_image_is_that_of_its_preprocessing():
    """Values far outside are clipped, eight times as far as the preprocessing goes."""
    whole = model("mobilenet_v1")
    made = npmobilenet.quantize(whole)
    stem = made.graph["stem"]
    assert stem["steps"] == pytest.approx(4095)
    wider = replace(SMALL, std=(0.25,) * 3)
    graph = quantised(whole.graph, whole.stored()[0], wider).graph
    assert graph["stem"]["steps"] == pytest.approx(4095 / 2)
