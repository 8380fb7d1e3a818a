"""Packs: networks that run on NumPy alone, in processes that could import nothing else."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.checkpoints import read_checkpoint
from npmobilenet.cli import main
from npmobilenet.errors import FallbackWarning, NpmobilenetError
from npmobilenet.image import read_image
from npmobilenet.kernels.vector.target import LEVELS, host
from npmobilenet.model import Model
from npmobilenet.packing import modules
from npmobilenet.packing.folder import checked_levels, pack
from tests.checkpoint_files import storage, tensor, torch_zip
from tests.conftest import compiled_only, no_kernels, photo

# What a pack may not need; of Pillow only what reads files.
BLOCKED = ("numba", "llvmlite", "PIL")
RUN = """
import os, runpy, sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Nothing())
del sys.argv[0]
sys.path.insert(0, os.path.dirname(sys.argv[0]))  # as Python does it for a program
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*arguments, blocked=BLOCKED, code="", **environment):
    """Run a pack, or code beside it, where these packages cannot be imported, from a folder with nothing in it."""
    command = [sys.executable, "-I", "-c", code or RUN.format(blocked=blocked), *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, cwd=os.sep, env=environment, timeout=120)


def printed(capsys, *arguments):
    """What a command of the package prints."""
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def classifier(folder: Path, dtype=None) -> Path:
    """Weights of a small network, with what belongs to them."""
    preprocessing = npmobilenet.Preprocessing(72, (64, 64), None, (0.5,) * 3, (0.5,) * 3)
    classes = [f"thing {number}" for number in range(12)]
    graph = get_architecture("mobilenet_v2").graph(0.35, len(classes))
    about = {"classes": classes, "preprocessing": preprocessing.to_dict(), "padding": "symmetric", "layout": "imagenet"}
    file = npmobilenet.export_weights(random_weights(graph), folder / "weights.safetensors", metadata=about)
    if dtype:
        file = npmobilenet.export_weights(npmobilenet.load(file, dtype=dtype), folder / "int8.safetensors")
    return Path(file)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The file of a small classifier, and its pack."""
    folder = tmp_path_factory.mktemp("small")
    file = classifier(folder)
    assert main(["pack", str(file), "--out", str(folder / "packed")]) == 0
    return file, folder / "packed"


@pytest.fixture(scope="module")
def array(tmp_path_factory):
    """A photograph as an array file."""
    file = tmp_path_factory.mktemp("arrays") / "coffee.npy"
    np.save(file, read_image(photo("coffee.png")))
    return file


# --- What it prints ------------------------------------------------------------------------------------------


@compiled_only
def test_a_pack_prints_what_the_command_prints(small, array, capsys):
    file, folder = small
    for more in ((), ("--json",), ("--top", 2, "--threads", 1)):
        expected = printed(capsys, "classify", array, "--model", file, *more)
        done = run(folder, array, *more)
        assert (done.stdout, done.stderr, done.returncode) == (expected, "", 0)


@compiled_only
@pytest.mark.parametrize("dtype", [None, "int8"])
def test_an_archive_is_one_file_that_nobody_may_write(dtype, array, tmp_path, capsys):
    file, out = classifier(tmp_path), tmp_path / "network.pyz"
    type_ = ("--dtype", dtype) if dtype else ()
    assert main(["pack", str(file), "--out", str(out), *type_]) == 0
    capsys.readouterr()
    out.chmod(0o555)
    expected = printed(capsys, "classify", array, "--model", file, "--json", *type_)
    assert run(out, array, "--json").stdout == expected
    assert not [*tmp_path.glob(".network*")], "nothing else is left"


@compiled_only
def test_the_shipped_network_names_the_espresso(tmp_path, array):
    pytest.importorskip("PIL.Image")
    out = tmp_path / "mobilenet_v2"
    pack([npmobilenet.load("mobilenet_v2")], out)
    assert sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) < 16e6
    assert run(out / "predict.py", array).stdout == "espresso\n"
    assert "espresso" in run(out, photo("coffee.png"), "--top", 1, blocked=("numba", "llvmlite")).stdout
    without = run(out, photo("coffee.png"))
    assert without.returncode == 1 and "needs Pillow: pip install pillow" in without.stderr
    assert len(without.stderr.splitlines()) == 1


@compiled_only
@pytest.mark.parametrize(
    ("command", "model", "how"),
    [
        ("detect", "tiny_face_detector", ("--threshold", 0.3)),
        ("segment", "selfie_segmentation", ()),
        ("faces", "tiny_face_detector", ("--threshold", 0.3)),
    ],
)
def test_other_tasks(command, model, how, tmp_path, capsys):
    picture = tmp_path / "astronaut.npy"
    np.save(picture, read_image(photo("astronaut.png")))
    expressions = ("--expressions", "face_expression") if command == "faces" else ()
    assert main(["pack", model, "--out", str(tmp_path / "packed"), *expressions]) == 0
    capsys.readouterr()
    expected = printed(capsys, command, picture, "--model", model, "--json", *how)
    assert '"labels"' in expected or '"box"' in expected, "there is something in it"
    assert run(tmp_path / "packed", picture, "--json", *how).stdout == expected
    assert run(tmp_path / "packed/predict.py", picture).returncode == 0


@compiled_only
@pytest.mark.filterwarnings("ignore:.*no batch norm tells")
@pytest.mark.parametrize("name", ["net.onnx", "int8.onnx", "net.pth"])
def test_networks_that_users_made(name, small, array, tmp_path, capsys):
    """ONNX files, one whose bytes end where photographs do, and a checkpoint of PyTorch's: nothing but networks."""
    file, made = small[0], tmp_path / name
    if made.suffix == ".onnx":
        npmobilenet.export_onnx(npmobilenet.load(file), made, dtype="int8" if "int8" in name else "float32")
    else:
        tensors = read_checkpoint(file).tensors
        state = {
            key: tensor(storage(value.size, key=key), value.shape, tuple(step // 4 for step in value.strides))
            for key, value in tensors.items()
        }
        made.write_bytes(torch_zip(state, {key: value.tobytes() for key, value in tensors.items()}))
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(f"thing {number}" for number in range(12)))
    how = ("--classes", classes, "--resize", 72, "--crop", 64, "--mean", "0.5", "--std", "0.5")
    expected = printed(capsys, "classify", array, "--model", made, "--json", *how)
    printed(capsys, "pack", made, "--out", tmp_path / "packed", *how)
    assert run(tmp_path / "packed", array, "--json").stdout == expected
    assert json.loads(expected)[0]["predictions"][0]["label"].startswith("thing ")


@compiled_only
def test_photographs_in_their_own_proportions(tmp_path, capsys):
    """A network that scores pixels has an input as long as the photograph is: a plan for each."""
    graph = get_architecture("deeplabv3_mobilenet_v2").graph(0.35, 3)
    about = {"preprocessing": npmobilenet.Preprocessing(64, (64, 64), None, (0.5,) * 3, (0.5,) * 3).to_dict()}
    file = npmobilenet.export_weights(random_weights(graph), tmp_path / "net.safetensors", metadata=about)
    photographs = []
    for name, shape in (("wide", (40, 80, 3)), ("tall", (90, 40, 3)), ("square", (50, 50, 3))):
        photographs.append(tmp_path / f"{name}.npy")
        np.save(photographs[-1], np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    expected = printed(capsys, "segment", *photographs, "--model", file, "--json")
    printed(capsys, "pack", file, "--out", tmp_path / "packed")
    assert run(tmp_path / "packed", *photographs, "--json").stdout == expected


# --- In Python -----------------------------------------------------------------------------------------------

USE = """
import pickle, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from npmobilenet.packed import load
model, x = load(threads=1), np.load(sys.argv[2])
alone = np.concatenate([model(one[None]) for one in x])
assert np.array_equal(model(x, threads=2), alone), "in a batch, and alone"
assert np.array_equal(pickle.loads(pickle.dumps(model))(x), alone)
assert np.array_equal(model.run({"input": x})["logits"], alone)
assert np.array_equal(model.outputs(x, ["logits"])["logits"], alone)
for wrong in (lambda: model(x[..., 1:]), lambda: model.features(x), lambda: model.count(), lambda: model.stored(),
              lambda: model.outputs(x, ["block3"]), lambda: model.detect(x[0]), lambda: model(x.astype(int))):
    try:
        wrong()
    except ValueError as error:
        print(error)
    else:
        raise AssertionError("no error")
np.save(sys.argv[3], alone)
"""


@compiled_only
def test_a_packed_model_is_a_model(small, tmp_path):
    file, folder = small
    model = npmobilenet.load(file)
    x = np.random.default_rng(0).standard_normal((3, 3, 64, 64), np.float32)
    np.save(tmp_path / "x.npy", x)
    done = run(folder, tmp_path / "x.npy", tmp_path / "y.npy", code=USE)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "y.npy"), model(x))
    lines = done.stdout.splitlines()
    assert len(lines) == 7 and "fixes images to 64x64, got 64x63" in lines[0]
    assert all("is packed, and knows its layers no more" in line for line in lines[1:4])
    assert "no outputs but its own (logits)" in lines[4]


@no_kernels
def test_without_a_pack_there_is_nothing_to_open():
    with pytest.raises(NpmobilenetError, match="`npmobilenet pack` makes packs"):
        npmobilenet.packed.load()


# --- For other machines --------------------------------------------------------------------------------------


@compiled_only
def test_packs_for_other_cpus(small, array, tmp_path):
    """Whatever the level, the same labels; arrays that two levels have in common are there once."""
    levels = [name for name in LEVELS if LEVELS[name].target.triple.startswith("x86_64")]
    if not host().triple.startswith("x86_64"):
        pytest.skip("the levels that are run here are those of x86-64")
    made = pack([npmobilenet.load(small[0])], tmp_path / "all", "all")
    assert made.levels == tuple(LEVELS)
    assert made.blob.size < len(LEVELS) * (small[1] / "network.bin").stat().st_size * 0.7
    expected = json.loads(run(small[1], array, "--json").stdout)[0]["predictions"]
    for level in levels:
        found = json.loads(run(tmp_path / "all", array, "--json", NUMBA_CPU_NAME=level).stdout)[0]["predictions"]
        assert [one["label"] for one in found] == [one["label"] for one in expected]
        assert [one["probability"] for one in found] == pytest.approx([one["probability"] for one in expected], 1e-4)


@compiled_only
def test_a_pack_for_another_machine_says_so(small, array, tmp_path, capsys):
    arm = host().triple.startswith("x86_64")
    level = "aarch64" if arm else "x86-64-v2"
    first, *others = printed(capsys, "pack", small[0], "--out", tmp_path / "packed", "--targets", level).splitlines()
    assert f"for {level}" in first
    sizes = [float(line.split()[0]) for line in others]  # with NumPy, and with what is read of it
    assert len(sizes) == 2 and 0 < sizes[1] < sizes[0]
    done = run(tmp_path / "packed", array)
    assert done.returncode == 1 and f"packed for {level}, none of which this machine runs" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@no_kernels
def test_targets():
    assert checked_levels("all") == tuple(LEVELS)
    assert checked_levels("aarch64, x86-64-v3") == ("x86-64-v3", "aarch64")
    with pytest.raises(ValueError, match=r"some of znver4, .*; got 'x86'"):
        checked_levels("x86,aarch64")


# --- What is wrong -------------------------------------------------------------------------------------------


@no_kernels
def test_what_cannot_be_packed(tmp_path, capsys):
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    (full / "mine.txt").touch()
    file.touch()
    for arguments, problem in [
        (("mobilenet_v9",), "mobilenet_v9: does not exist"),
        (("mobilenet_v2", "--out", full), "is a folder that is not empty"),
        (("mobilenet_v2", "--out", file), "is a file"),
        (("mobilenet_v2", "--targets", "i386"), "targets must be host, all, or some of"),
        (("mobilenet_v2", "--expressions", "face_expression"), "finds no boxes"),
        (("https://example.org/net.pth",), "a URL is no file"),
    ]:
        out = () if "--out" in arguments else ("--out", tmp_path / "packed")
        assert main(["pack", *map(str, (*arguments, *out))]) == 1
        said = capsys.readouterr()
        assert problem in said.err and len(said.err.splitlines()) == 1 and not said.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"], "nothing is left"


@compiled_only
def test_networks_that_cannot_be_packed(tmp_path):
    """One whose layers loops compute, and one that names nothing."""
    graph = get_architecture("mobilenet_v1").graph(0.25, 4)
    stem, *others = graph.nodes
    graph = replace(graph, nodes=(stem.with_attributes(dilation=(2, 2)), *others))
    with pytest.warns(FallbackWarning, match="plain loops compute 1 of 29 layers"):
        made = Model(graph, random_weights(graph), architecture="dilated")
    with pytest.raises(NpmobilenetError, match=r"stem .* is computed by loops that a compiler makes"):
        pack([made], tmp_path / "packed")
    graph = get_architecture("mobilenet_v2").graph(0.35).up_to("pool")
    with pytest.raises(NpmobilenetError, match=r"net.pth: has no classifier"):
        pack([Model(graph, random_weights(graph), architecture="mobilenet_v2", source="net.pth")], tmp_path / "packed")
    assert not [*tmp_path.iterdir()]


@compiled_only
def test_what_is_wrong_with_photographs_and_packs(small, array, tmp_path):
    _, folder = small
    np.save(tmp_path / "float.npy", np.zeros((4, 4, 3), np.float32))
    np.save(tmp_path / "object.npy", np.array([None]), allow_pickle=True)
    for arguments, problem, code in [
        ((tmp_path / "float.npy",), "float.npy: expected a uint8 array (height, width, 3), RGB, got dtype float32", 1),
        ((tmp_path / "object.npy",), "nothing is unpickled here", 1),
        ((tmp_path / "none.npy",), "none.npy: cannot be opened: No such file", 1),
        ((array, "--top", "0"), "expected an integer >= 1", 2),
        ((array, "--threshold", "0.5"), "unrecognized arguments: --threshold", 2),
        ((), "the following arguments are required: IMAGE", 2),
    ]:
        done = run(folder, *arguments)
        assert problem in done.stderr and done.returncode == code and len(done.stderr.splitlines()) == 1
    (code,) = (file.relative_to(folder) for file in folder.rglob("common.so"))
    for name, problem in [("network.bin", "cannot be mapped"), (code, "has not the hash that it should have")]:
        damaged = Path(shutil.copytree(folder, tmp_path / problem))
        (damaged / name).write_bytes(b"short")
        done = run(damaged, array)
        assert problem in done.stderr and done.returncode == 1 and len(done.stderr.splitlines()) == 1


@no_kernels
def test_a_pack_has_no_modules_but_those_it_needs():
    """Nothing that reads checkpoints, plans, or writes kernels."""
    found = modules.needed("classify")
    assert "npmobilenet.engine" in found and "npmobilenet.kernels.walk.job" in found
    assert not [
        name
        for name in found
        if name.startswith(("npmobilenet.checkpoints", "npmobilenet.architectures", "npmobilenet.graph"))
        or name.startswith(("npmobilenet.kernels.blocked.", "npmobilenet.kernels.vector.simd", "npmobilenet.tasks"))
    ]
