"""Networks node by node beside other backends, and beside what PyTorch's modules computed."""

import json
import pickle
import zipfile

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import ARCHITECTURES, get_architecture, random_weights
from npmobilenet.checkpoints.fit import namings
from npmobilenet.cli import main
from npmobilenet.comparison import against_backend, against_values
from npmobilenet.engine import Engine
from npmobilenet.graph import Graph, Node
from npmobilenet.model import Model
from npmobilenet.passes import folded_parameters, fuse
from npmobilenet.plan import Program
from npmobilenet.rounding import FACTOR, Rounding
from tests.conftest import DATA, compiled_only, no_kernels, photo
from tests.data.make_module_values import NETWORKS, named_weights
from tests.publishers import Net
from tests.test_dialects import NETWORKS as PUBLISHERS

COFFEE, STORED = str(photo("coffee.png")), str(DATA / "module_values.npz")
SMALL = ("mobilenet_v2", "mobilenet_v3_small", "mixnet_s", "efficientnet_b0")


def seeded(name, backend="reference", width=0.25, seed=1, **weights):
    graph = get_architecture(name).graph(width, 5)
    return Model(graph, random_weights(graph, seed) | weights, architecture=name, width=width, backend=backend)


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal((*shape[:1], 3, *shape[1:])).astype(np.float32)


pytestmark = pytest.mark.filterwarnings("ignore::npmobilenet.AssumptionWarning")


@pytest.fixture(params=NETWORKS)
def saved(request, tmp_path):
    """The path of weights under PyTorch's names, an input, and what modules made of it."""
    weights = npmobilenet.export_weights(named_weights(request.param), tmp_path / "weights.safetensors")
    with np.load(DATA / "module_values.npz") as arrays:
        start = f"{request.param}/"
        values = {name.removeprefix(start): arrays[name] for name in arrays if name.startswith(start)}
    return str(weights), values.pop("input"), values


# Backends --------------------------------------------------------------------------------------------------


@compiled_only
@pytest.mark.parametrize("backend", ["auto", "plain"])
@pytest.mark.parametrize("name", SMALL)
def test_backends_agree_in_every_node(name, backend):
    model = seeded(name, backend)
    found = against_backend(model, images(2, 33, 40), "reference")
    assert [row.node for row in found.rows] == [node.name for node in fuse(model.graph)]
    assert not found.beyond and not found.left_out and not found.without
    assert all(0 <= row.mean <= row.largest and row.relative < row.tolerance / 3 for row in found.rows)
    assert any(row.largest > 0 for row in found.rows)


@compiled_only
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_shipped_networks_are_well_within_their_tolerance(name, request):
    model = request.getfixturevalue(name)
    found = against_backend(model, images(1, 96, 96), "reference")
    assert not found.beyond and found.rows[-1].tolerance < 1e-3


@no_kernels
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if not name.endswith(("b4", "b5", "b6", "b7", "l2"))])
def test_tolerances_do_not_grow_without_bounds(name):
    model = seeded(name)
    x = images(1, 32, 32)
    if get_architecture(name).conventions.pixel_slopes:  # of grey images, and of one size
        x = images(1, 48, 48)[:, :1]
    rows = against_backend(model, x, "reference").rows
    most = 0.25 if name == "selfie_segmentation" else 0.1  # its gates of random weights pass errors on to its end
    assert all(row.largest == 0 and 0 < row.tolerance < most for row in rows)
    assert rows[0].tolerance < 2e-5


def test_errors_carry_on_through_weights_and_padding():
    """A sum of one tap, of nine, and of nine of which the image has one."""
    graph = get_architecture("mobilenet_v2").graph(0.25, 5)
    weights = random_weights(graph)
    fused = fuse(graph)
    for size, taps in (((32, 32), 9), ((1, 1), 1)):
        x = images(1, *size)
        rounding = Rounding(weights, fused.shapes(size), x)
        rounding.follow(fused["stem"], Engine(graph, weights, "reference").run(x, output="stem"))
        rounding.errors["stem"][:] = 1e-6  # far more than depthwise convolutions add
        rounding.follow(fused["block1.depthwise"], np.zeros((1, 8, *fused.shapes(size)["stem"][1:]), np.float32))
        kernels = folded_parameters(fused["block1.depthwise"], weights)[0]
        squares = (kernels**2).reshape(8, 9)
        largest = 1e-6 * (squares.sum(1) if taps == 9 else squares[:, 4]).max()
        allowed = rounding.allowed["block1.depthwise"] ** 2 / FACTOR**2
        assert largest * (0.8 if taps == 9 else 0.999) < allowed < largest * 1.001


@compiled_only
def test_a_wrong_call_of_several_nodes_is_seen(monkeypatch):
    """Blocks that one call computes are compared as this call computes them, their insides by calls of their own."""
    model = seeded("mobilenet_v2", "blocked")
    asked = []

    def outputs(self, x, names, threads=1, usual=Engine.outputs):
        asked.append(list(names))
        return usual(self, x, names, threads)

    monkeypatch.setattr(Engine, "outputs", outputs)
    against_backend(model, images(1, 64, 64), "plain", threads=1)
    ends = [group[-1].name for group in model._engine.plan((64, 64), ("logits",), 1).groups]
    assert ends in asked and len(ends) < len(fuse(model.graph).nodes)
    inside = [node.name for node in fuse(model.graph) if node.name not in ends]
    assert inside in asked


def test_portions_are_small_and_all_there(monkeypatch):
    model, x = seeded("mobilenet_v3_small"), images(2, 32, 33)
    whole = against_backend(model, x, "reference")
    monkeypatch.setattr("npmobilenet.comparison.VALUES_AT_ONCE", 10_000)
    monkeypatch.setattr(Program, "plan", counted := Counted(Program.plan))
    assert against_backend(model, x, "reference") == whole
    assert counted.calls > 4


class Counted:
    """A method, with the number of its calls."""

    def __init__(self, method):
        self.method, self.calls = method, 0

    def __get__(self, instance, owner):
        def call(*arguments, **keywords):
            self.calls += 1
            return self.method(instance, *arguments, **keywords)

        return call


def test_limit_in_place_of_the_tolerance():
    model = seeded("mobilenet_v2", "reference")
    values = {"stem": model.features(images(1, 32, 32), "stem")}
    values["stem"][0, 0, 0, 0] += 0.01 * np.abs(values["stem"]).max()
    row = against_values(model, images(1, 32, 32), values).beyond[0]
    assert row.relative == pytest.approx(0.01, rel=0.02)
    assert not against_values(model, images(1, 32, 32), values, limit=0.02).beyond
    assert against_values(model, images(1, 32, 32), values, limit=0.009).beyond[0].tolerance == pytest.approx(0.009)


# Values of PyTorch's modules -------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["reference", pytest.param("auto", marks=compiled_only)])
def test_values_of_all_modules(saved, backend):
    path, x, values = saved
    model = npmobilenet.load(path, backend=backend)
    found = against_values(model, x, values)
    assert not found.beyond
    assert {row.module for row in found.rows} | set(found.left_out) == set(values)
    leaves = ("drop", "act", "aa", "se", "drop_path", "conv_reduce", "act1", "conv_expand", "gate", "flatten", "pool")
    known = {"classifier.0", "act2", "norm_head"}  # a dropout; what stands behind `conv_head`
    assert all(name in known or name.rpartition(".")[2] in leaves for name in found.left_out)
    notes = {row.module: row.note for row in found.rows}
    if "features.0.1" in notes:
        assert (notes["features.0.0"], notes["features.0.1"]) == ("through batch_norm, relu6", "through relu6")
        assert notes["features.0"] == notes["features.0.2"] == notes["features.3"] == notes["features"] == ""
        assert notes["features.3.conv"] == notes["features.3.conv.3"] == "through add"
    else:
        assert notes["bn1"] == notes["bn1.act"] == notes["blocks.0.0.se"] == notes["blocks.1.1"] == ""
        assert notes["blocks.1.1.bn3"] == "through add"
        assert "blocks.0.0.se.conv_reduce" in found.left_out


def test_any_prefix_and_the_order_of_names_do_not_matter(saved):
    path, x, values = saved
    model = npmobilenet.load(path, backend="reference")
    expected = against_values(model, x, values)
    prefixed = {f"module.encoder.{name}" if name else "module.encoder": values[name] for name in reversed(values)}
    found = against_values(model, x, prefixed)
    names = {row.module.removeprefix("module.encoder").removeprefix(".") for row in found.rows}
    assert names == {row.module for row in expected.rows} and len(found.rows) == len(expected.rows)


@pytest.mark.parametrize("root", ["", "net.encoder."])
def test_a_prefix_of_the_weights(root, tmp_path):
    weights = {root + name: value for name, value in named_weights("torchvision").items()}
    model = npmobilenet.load(npmobilenet.export_weights(weights, tmp_path / "w.npz"), backend="reference")
    x = images(1, 8, 9)
    value = model.features(x, "block2.expand")
    for name in ("features.2.conv.0", f"{root}features.2.conv.0", f"module.{root}features.2.conv.0"):
        found = against_values(model, x, {name: value})
        assert [(row.node, row.module, row.beyond) for row in found.rows] == [("block2.expand", name, False)]


def test_activations_in_place_have_overwritten_a_norm(saved):
    """What a hook keeps without a copy: the batch norm's result after the activation that followed."""
    path, x, values = saved
    model = npmobilenet.load(path, backend="reference")
    active = model.features(x, "stem")
    name = "features.0.1" if "features.0.1" in values else "bn1"
    (row,) = against_values(model, x, {name: active}).rows
    assert not row.beyond and row.note == ""


@no_kernels
@pytest.mark.parametrize("name", PUBLISHERS)
def test_every_dialect_knows_its_modules(name, tmp_path):
    network, how, _ = PUBLISHERS[name]
    x = np.random.default_rng(len(name)).standard_normal((3, 33, 40)).astype(np.float32)
    net = Net(x, name, **how)
    network(net)
    path = npmobilenet.export_weights(net.tensors, tmp_path / "weights.npz")
    found = against_values(
        npmobilenet.load(path, backend="reference"), x[None], {key: value[None] for key, value in net.values.items()}
    )
    assert not found.beyond
    assert all(reason == "a part of an operation that is one here" for reason in found.left_out.values())
    assert len(found.rows) == len(net.values) - len(found.left_out) > len(net.values) / 2


@no_kernels
@pytest.mark.parametrize("naming", list(namings()), ids=lambda each: f"{each.name}, {each.dialect.name}")
def test_modules_of_blocks_give_what_the_blocks_do(naming):
    """In every dialect whose names tell blocks apart, the module of a block with a residual add is its last node."""
    from npmobilenet.checkpoints.file_names import FileNames

    graph = naming.architecture.graph(0.5, 10)
    linear = [naming.linear_module(name) if name in graph.blocks else None for name in ("hidden", "classifier")]
    names = FileNames(naming, "", *linear)
    outputs, inside = names.outputs(graph)
    known = {node.name for node in graph}
    assert set(outputs.values()) | set(inside.values()) <= known and not set(outputs) & set(inside)
    for block in naming.architecture.blocks:
        nodes = graph.blocks[block.name]
        if nodes[-1].operation == "add" and block.row.kind == "inverted":
            whole = naming.block_module(block)
            if naming.dialect.name.startswith(("keras", "mediapipe")):  # which count layers
                assert not whole
                continue
            assert outputs[whole] == nodes[-1].name
            inner = [name for name in outputs if name.startswith(f"{whole}.")]
            assert inner and nodes[-1].name not in {outputs[name] for name in inner}
    assert not naming.classifies or outputs[linear[1]] == "classifier"


@pytest.mark.parametrize("layer", ["stem", "block2.expand", "block3.depthwise", "block3.project", "classifier"])
def test_the_first_node_beyond_is_the_one_with_the_wrong_weight(layer, tmp_path):
    weights = named_weights("torchvision")
    right = npmobilenet.load(npmobilenet.export_weights(weights, tmp_path / "right.npz"), backend="reference")
    x = images(2, 16, 17)
    values = right.outputs(x, [node.name for node in right._engine.program.graph])
    key = right.names.keys(right.graph)[f"{layer}.weight"]
    changed = weights[key].copy()
    # Not one that is multiplied by 0
    read = values["pool"][0].argmax() if layer == "classifier" else changed.size // 2
    changed.flat[read] += np.abs(changed).max()
    wrong = npmobilenet.export_weights(weights | {key: changed}, tmp_path / "wrong.npz")
    found = against_values(npmobilenet.load(wrong, backend="reference"), x, values)
    assert found.beyond[0].node == layer
    assert not against_values(right, x, values).beyond


def test_another_activation_is_blamed_on_the_layer_that_has_it(tmp_path):
    """ReLU where the network has ReLU6: values above 6 were through an activation, of another kind."""
    weights = npmobilenet.export_weights(named_weights("torchvision"), tmp_path / "weights.npz")
    x = 4 * images(1, 32, 32)
    relu = npmobilenet.load(weights, backend="reference", activation="relu")
    blocks = {f"features.{n}": relu.features(x, f"block{n}" if n else "stem") for n in range(5)}
    found = against_values(npmobilenet.load(weights, backend="reference"), x, blocks)
    assert found.beyond[0].module == "features.0"


def test_own_names():
    model, x = seeded("mobilenet_v2"), images(1, 32, 32)
    names = ["stem", "block3.expand", "block3.add", "block3", "block4.project", "pool", "logits", "classifier"]
    found = against_values(model, x, {**model.outputs(x, names), "block9.expand.norm": np.zeros((1, 96, 2, 2))})
    assert {row.module for row in found.rows} == {*names, "block9.expand.norm"}
    assert [row.module for row in found.beyond] == ["block9.expand.norm"]


def test_names_that_mean_other_things_elsewhere(tmp_path):
    """What mmpretrain calls "head" is not our block of that name: what most names are decides."""
    network, how, _ = PUBLISHERS["mmpretrain"]
    x = images(1, 33, 40)
    net = Net(x[0], "mmpretrain", **how)
    network(net)
    model = npmobilenet.load(npmobilenet.export_weights(net.tensors, tmp_path / "w.npz"), backend="reference")
    logits, head = model(x), model.features(x, "head")
    found = against_values(model, x, {"head": logits, "conv1": model.features(x, "stem")})
    assert [row.node for row in found.rows] == ["stem", "classifier"] and not found.beyond
    found = against_values(model, x, {"head": head, "stem": model.features(x, "stem"), "block1": net.values["head.fc"]})
    assert [row.node for row in found.rows] == ["stem", "block1.project", "head"]
    assert [row.note for row in found.beyond] == ["of shape 1000, not 1x8x17x20"]


def test_values_that_are_not_finite():
    model, x = seeded("mobilenet_v2"), images(1, 32, 32)
    stem = model.features(x, "stem")
    stem[0, 1, 2, 3] = np.nan
    (row,) = against_values(model, x, {"stem": stem}).rows
    assert row.beyond and row.largest == np.inf
    x[0, 1, 5, 5] = np.nan
    same = model.features(x, "stem")
    assert np.isnan(same).any()
    assert not against_values(model, x, {"stem": same}).beyond
    same[np.isnan(same)] = np.inf
    assert against_values(model, x, {"stem": same}).beyond
    broken = seeded("mobilenet_v2", **{"stem.weight": np.full((8, 3, 3, 3), np.nan, np.float32)})
    x = images(1, 32, 32)
    assert against_values(broken, x, {"stem": model.features(x, "stem")}).beyond
    assert not against_backend(broken, x, "reference").beyond


def test_a_graph_of_another_kind():
    """Operations without weights, several inputs, vectors; nothing of it is known to a dialect."""
    norm = ("weight", "bias", "running_mean", "running_var")
    nodes = (
        Node("conv", "conv2d", ("input",), "a", {"weight": (4, 3, 3, 3)}, {"channels": 4, "kernel": (3, 3)}),
        Node("norm", "batch_norm", ("conv",), "a", dict.fromkeys(norm, (4,))),
        Node("tanh", "tanh", ("norm",), "b"),
        Node("both", "concat", ("tanh", "norm"), "b"),
        Node("mean", "average_pool2d", ("both",), "b", {}, {"kernel": (2, 2)}),
        Node("flat", "flatten", ("mean",), "c"),
        Node("odds", "softmax", ("flat",), "c"),
    )
    graph = Graph(nodes)
    model = Model(graph, random_weights(graph), architecture="mine", backend="reference")
    x = images(3, 9, 8)
    found = against_backend(model, x, "plain" if not _interpreted() else "reference")
    assert len(found.rows) == len(fuse(graph).nodes) and not found.beyond
    assert all(0 < row.tolerance < 1e-4 for row in found.rows)
    found = against_values(model, x, {"odds": model.features(x, "odds"), "conv": np.float64(0) * np.ones((3, 4, 7, 6))})
    assert [row.module for row in found.beyond] == ["conv"]


def _interpreted():
    import numba

    return numba.config.DISABLE_JIT


def test_a_model_keeps_its_names_when_pickled(saved):
    path, x, values = saved
    model = pickle.loads(pickle.dumps(npmobilenet.load(path, backend="reference")))
    assert not against_values(model, x, values).beyond


# The command -----------------------------------------------------------------------------------------------


def write(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_command_with_values(saved, tmp_path, capsys):
    path, x, values = saved
    values |= {"mine": np.zeros(3), "number": np.arange(3), "text": np.array("abc")}
    file = write(tmp_path / "values.npz", input=x, **values)
    assert main(["inspect", path, "--against", file, "--backend", "reference"]) == 0
    shown = capsys.readouterr().out
    assert "all within their tolerance" in shown and "input the file's: 1x3x5x7" in shown
    assert "not compared, no name of a value here: " in shown and "'mine'" in shown
    assert "not compared, int64, not floating-point: 'number'" in shown
    assert "not compared, an array of <U3, not of numbers: 'text'" in shown
    assert main(["inspect", path, "--against", file, "--backend", "reference", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["first_beyond"] is None and report["beyond"] == 0
    compared = {row["module"] for row in report["nodes"]}
    assert compared | set(report["not_compared"]) == set(values) and not compared & set(report["not_compared"])


def test_command_marks_the_first_node_beyond(saved, tmp_path, capsys):
    path, x, values = saved
    name = next(name for name in values if name in ("features.2.conv.1.1", "blocks.1.0.bn2"))
    values[name] = values[name] + np.float32(0.01)
    file = write(tmp_path / "values.npz", input=x, **values)
    arguments = ["inspect", path, "--against", file, "--backend", "reference"]
    assert main(arguments) == 1
    (marked,) = [line for line in capsys.readouterr().out.splitlines() if line.endswith("<- first beyond")]
    assert marked.split()[:3] == ["block2.depthwise", "depthwise_conv2d", name]
    assert main([*arguments, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["first_beyond"]["module"] == name and report["beyond"] == 1
    assert main([*arguments, "--tolerance", "0.5"]) == 0
    assert main([*arguments, "--tolerance", "0"]) == 1
    capsys.readouterr()


@pytest.mark.parametrize("place", ["before", "behind"])
def test_command_with_a_photograph(pets, place, thumbnails, capsys):
    image = str(thumbnails / "coffee.png")
    words = [image, "--against", "reference"] if place == "before" else ["--against", "reference", image]
    assert main(["inspect", pets, *words, "--backend", "reference", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert f"reference on 1 thread against reference, input {image}, prepared as the weights say: 1x3x32x32" in shown


def test_command_without_weights_and_photograph(capsys):
    arguments = ["--width", "0.25", "--num-classes", "3", "--resolution", "32x33", "--backend", "reference"]
    assert main(["inspect", "--against", "reference", "mobilenet_v2", *arguments]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("random weights (seed 0): mobilenet_v2, width 0.25\n")
    assert "input random numbers (seed 0): 1x3x32x33" in shown and "54 nodes compared\n" in shown


@compiled_only
def test_command_takes_the_weights_of_a_name_that_has_some(capsys):
    assert main(["inspect", "mobilenet_v2", "--against", "plain", "--resolution", "64", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["network"] == "mobilenet_v2: mobilenet_v2, width 1" and report["nodes"][-1]["shape"] == [1000]
    assert (report["backend"], report["against"]) == ("blocked", "plain")
    assert {row["module"] for row in report["nodes"]} >= {"features.0", "features.3", "features", "classifier"}


def array_of(descr, shape, data):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


def test_files_that_cannot_be_compared_are_one_line(saved, tmp_path, capsys):
    path, x, values = saved
    some = {"classifier": values["classifier"]}
    files = {
        "no input": (some, "holds no 'input', but 'classifier'; expected the batch (N, C, H, W)"),
        "nothing else": ({"input": x}, "holds no values to compare beside its 'input'"),
        "unknown": ({"input": x, "a": x, "b": x}, "no value to compare ('a': no name of a value here; 'b': "),
        "bytes": ({"input": x.astype(np.uint8), **some}, "its 'input' as x: x must be a float array (N, 3, H, W)"),
        "grey": ({"input": x[:, :1], **some}, "its 'input' as x: x must be a float array (N, 3, H, W), got (1, 1, "),
        "last": ({"input": x.transpose(0, 2, 3, 1), **some}, "channels come first"),
        "single": ({"input": x[0], **some}, "a single image is a batch of one"),
        "empty": ({"input": x[:0], **some}, "x holds no image"),
        "flat": ({"input": x[:, :, :0], **some}, "x must be a float array (N, 3, H, W), got (1, 3, 0, 7)"),
        "whole": ({"input": x, "classifier": np.arange(3)}, "no value to compare ('classifier': int64, not floating-p"),
        "objects": ({"input": x, "a": np.array([{}, 1])}, "beside its 'input': 'a' is an array of |O, not of numbers"),
        "words": ({"input": np.array("a"), **some}, "its 'input' is an array of <U1, not of numbers"),
        "complex": ({"input": x, "a": x.astype(np.complex64)}, "'a' has dtype '<c8', which is not supported"),
    }
    for name, (arrays, message) in files.items():
        file = tmp_path / f"{name}.npz"
        np.savez(file, **arrays)
        assert main(["inspect", path, "--against", str(file), "--backend", "reference"]) == 1
        check(capsys, f"{file}: ", message)
    hostile = {
        "huge": (array_of("<f4", "(1000000, 1000000)", bytes(8)), "should have 4000000000000 bytes but has 8"),
        "code": (array_of("<f4", "(__import__('os'),)", b""), "a header that is no plain array's"),
    }
    for name, (content, message) in hostile.items():
        file = tmp_path / f"{name}.npz"
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("input.npy", content)
        assert main(["inspect", path, "--against", str(file), "--backend", "reference"]) == 1
        check(capsys, f"{file}: ", message)
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "none.npz").touch()
    for file, message in (
        ("text.npz", "is a text file that begins with 'hello'"),
        ("none.npz", "is empty"),
        ("", "is not a regular file"),
        ("missing.npz", "neither a backend (auto, blocked, plain, cuda, reference) nor an .npz file that exists"),
        ("weights.safetensors", "is no .npz file: save named arrays with numpy.savez"),
    ):
        assert main(["inspect", path, "--against", str(tmp_path / file), "--backend", "reference"]) == 1
        check(capsys, "", message)


def check(capsys, start, message):
    *notes, error = capsys.readouterr().err.splitlines()
    assert error.startswith(f"npmobilenet: {start}") and message in error
    assert all(note.startswith("npmobilenet: note: ") for note in notes)


def test_values_of_another_shape_are_beyond(saved, tmp_path, capsys):
    path, x, values = saved
    file = write(tmp_path / "values.npz", input=np.concatenate([x, x]), classifier=values["classifier"])
    assert main(["inspect", path, "--against", file, "--backend", "reference"]) == 1
    assert (
        "first beyond its tolerance: classifier (classifier), of shape 1x3, not 2x3; 1 in all"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: MODEL"),
        (["--against", "reference"], "required: MODEL"),
        (["mobilenet_v2", "--tolerance", "1"], "--tolerance is for --against REFERENCE"),
        (["mobilenet_v2", "a.png"], "a photograph is for --against REFERENCE"),
        (["mobilenet_v2", "--backend", "plain"], "--backend is for --against REFERENCE"),
        (["mobilenet_v2", "--against", "plain", "a.png", "b.png"], "unrecognized arguments: b.png"),
        (["mobilenet_v2", "--against", "plain", "--mixed", "3"], "--mixed is not for --against"),
        (["mobilenet_v2", "--against", "plain", "--tolerance", "nan"], "expected a number >= 0 such as 1e-4"),
        (["mobilenet_v2", "--against", "plain", "--tolerance=-1"], "expected a number >= 0 such as 1e-4"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["inspect", *arguments])
    assert stopped.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "nowhere"], "nowhere: neither a backend"),
        (["--against", ""], "an empty argument is no file"),
        (["--against", "reference", "nowhere.png"], "nowhere.png: cannot be opened: No such file"),
        (["--against", "reference", "", "--width", "1"], "'': an empty argument is no file"),
        (
            ["--against", "reference", str(photo("coffee.png")), "--resolution", "32"],
            "--resolution is for random numbers",
        ),
        (
            ["--against", str(DATA / "module_values.npz"), str(photo("coffee.png"))],
            "so that there can be no photograph",
        ),
        (["--against", str(DATA / "module_values.npz"), "--resolution", "9"], "so that there can be no --resolution"),
    ],
)
def test_failures_are_one_line(arguments, message, capsys):
    assert main(["inspect", "mobilenet_v1", "--backend", "reference", *arguments]) == 1
    check(capsys, "", message)


def test_no_device_is_one_line(capsys):
    from npmobilenet.kernels.cuda import device

    if not device.problem():
        pytest.skip("there is a device")
    assert main(["inspect", "mobilenet_v1", "--backend", "reference", "--against", "cuda"]) == 1
    check(capsys, "the backend 'cuda' cannot run here", "CUDA is")


def test_layers_that_plain_loops_compute_are_named(tmp_path, capsys):
    network, how, _ = PUBLISHERS["d-li14, v3 small 0.35"]
    net = Net(images(1, 33, 40)[0], "slow", **how)
    network(net)
    path = str(npmobilenet.export_weights(net.tensors, tmp_path / "w.npz"))
    assert main(["inspect", path, "--json"]) == 0
    slow = json.loads(capsys.readouterr().out)["plain_loops"]
    assert main(["inspect", path]) == 0
    shown = capsys.readouterr().out
    note = [line for line in shown.splitlines() if line.startswith("plain loops ")]
    assert bool(slow) == bool(note) and all(f"{name} ({slow[name]})" in note[0] for name in list(slow)[:5])
    model = npmobilenet.load(path)
    if model.backend == "blocked":
        assert model.plain_layers == slow
    assert main(["inspect", "mobilenet_v2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plain_loops"] == {}
