"""Networks that are ready at once: plans that come with the package, and what is done where they do not serve."""

import copy
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import npmobilenet
from npmobilenet import build_plans, loading
from npmobilenet.errors import CheckpointError, NpmobilenetError
from npmobilenet.image import read_image
from npmobilenet.kernels import fold
from npmobilenet.kernels.vector import shipped as machine_code
from npmobilenet.kernels.vector.target import host
from npmobilenet.model import Model
from npmobilenet.ready import ReadyModel
from npmobilenet.recorded import program, shipped
from tests.conftest import compiled_only, photo

REMEDY = "make them again: python -m npmobilenet.build_plans"
ROOT = Path(__file__).parents[1]
(NAME,) = shipped.NAMES
PLANS = Path(shipped.folder()) / f"{NAME}{shipped.SUFFIX}"
ready_only = pytest.mark.skipif(shipped.find(NAME) is None, reason="no plans serve this CPU, or Numba is switched off")


@pytest.fixture
def image():
    return np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)


@pytest.fixture(scope="module")
def whole():
    return loading.whole(NAME)


def test_plans_are_up_to_date():
    plans = pickle.loads(PLANS.read_bytes())
    other = [module for module, digest in plans.sources.items() if not machine_code.is_source(module, digest)]
    assert not other, REMEDY
    assert {f"npmobilenet.{name}" for name in ("passes", "graph", "blocked.plan", "architectures.mobilenet_v2")} <= {
        *plans.sources
    }
    assert "npmobilenet.kernels.blocked.code.pointwise" in plans.sources


@compiled_only
def test_made_again_they_are_the_same():
    """Of two widths of vectors: what this CPU does not run, is only written down."""
    there = build_plans.plain(pickle.loads(PLANS.read_bytes()))
    levels = ("x86-64-v3", "aarch64")
    made = build_plans.plain(build_plans.build(NAME, levels))
    assert made.levels == {level: there.levels[level] for level in levels}, REMEDY
    assert made.network.levels == {level: there.network.levels[level] for level in levels}, REMEDY
    assert made._replace(levels=None, network=None, sources=None) == there._replace(
        levels=None, network=None, sources=None
    )


def test_folding():
    """Two layers: three channels of two weights in panels of two, and rows of three; one of a single weight."""
    stored = np.float32([9, 1, 2, 3, 4, 5, 6, 7])
    layers = np.array([[1, 2, 0, 0, 3, 2], [7, 1, 3, 12, 1, 1]])
    panels = np.array([[1, 2, 2], [1, 2, 1], [1, 4, 1]])
    into = np.zeros(16, np.float32)
    fold.fold(stored, layers, panels, np.array([1, 10, 0.1, -1]), into)
    expected = np.float32([1, 30, 2, 40, 0, 0, 0.5, 0, 0.6, 0, 0, 0, -7, 0, 0, 0])
    assert np.array_equal(into, expected)


# A model that is ready -----------------------------------------------------------------------------------------------


@ready_only
def test_it_computes_what_the_whole_network_computes(whole, image):
    model = npmobilenet.load()
    for threads in (1, 2):
        assert np.array_equal(model(image, threads=threads), whole(image, threads=threads))
    (logits,) = model.run({"input": image}).values()
    assert np.array_equal(logits, whole(image))
    images = np.repeat(image, 3, axis=0) * np.float32([[[[1]]], [[[2]]], [[[-1]]]])
    assert np.array_equal(model(images), whole(images))
    assert model.classify(photo("coffee.png"))[0].label == "espresso"
    assert (repr(model), model.output_names) == (repr(whole), whole.output_names)
    assert type(model) is ReadyModel and isinstance(model, npmobilenet.Model)  # nobody has asked for a layer


@ready_only
@pytest.mark.parametrize(
    "ask",
    [
        lambda model: model.graph.output_names,
        lambda model: model.definition.name,
        lambda model: model.names,
        lambda model: list(model.provenance.items()),
        lambda model: model.blocks,
        lambda model: model.count().parameters,
        lambda model: sorted(model.stored()[0]),
        lambda model: model._engine.program.graph.nodes,
    ],
)
def test_what_layers_tell_it_tells(ask, whole):
    assert ask(npmobilenet.load()) == ask(whole)


@ready_only
@pytest.mark.parametrize("more", [copy.deepcopy, copy.copy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_models(more, whole, image):
    model = npmobilenet.load(threads=1)
    made = more(model)
    assert type(made) is Model and made.threads == 1
    assert np.array_equal(made(image), whole(image))


@ready_only
def test_other_sizes_and_outputs(whole, image):
    model, small = npmobilenet.load(), image[..., :96, :64]
    assert np.array_equal(model(small), whole(small))
    assert np.array_equal(model.features(image, "block3"), whole.features(image, "block3"))
    assert np.array_equal(model(image), whole(image))
    for wrong in (lambda model: model.features(image, "block99"), lambda model: model.nothing):
        messages = []
        for each in (model, whole):
            with pytest.raises((ValueError, AttributeError)) as error:
                wrong(each)
            messages.append(str(error.value))
        assert messages[0] == messages[1]


@ready_only
def test_what_was_changed_stays():
    model = npmobilenet.load()
    model.threads, model.classes = 1, ("thing",) * 1000
    assert model.graph and type(model) is Model
    assert model.threads == 1 and model.classes == ("thing",) * 1000


@ready_only
def test_several_threads_ask_at_once(image):
    model, found = npmobilenet.load(), []
    asks = [lambda: model.graph, lambda: model(image[..., :64, :64]), lambda: model(image), lambda: model.blocks] * 2
    threads = [threading.Thread(target=lambda ask=ask: found.append(ask())) for ask in asks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(asks)


# Where it is not -----------------------------------------------------------------------------------------------------


@ready_only
@pytest.mark.parametrize(
    "options",
    [
        {"width": 1.0},
        {"threads": 1, "multi_label": False},
        {"backend": "reference"},
        {"ema": False},
        {"classes": ["a"] * 1000},
    ],
)
def test_options_have_it_loaded_as_any_other(options):
    assert type(npmobilenet.load(NAME, **options)) is Model


@ready_only
def test_an_edited_source_does_not_serve(monkeypatch):
    monkeypatch.setattr(machine_code, "is_source", lambda module, digest: module != "npmobilenet.passes")
    assert shipped.find(NAME) is None and type(npmobilenet.load()) is Model


@ready_only
@pytest.mark.parametrize("change", ["other weights", "cut short", "no weights", "no plans"])
def test_other_files_do_not_serve(change, tmp_path, monkeypatch):
    weights = PLANS.with_suffix(".safetensors")
    content = bytearray(weights.read_bytes())
    if change == "other weights":
        content[100] ^= 1
    elif change == "cut short":
        del content[-4:]
    (tmp_path / weights.name).write_bytes(content)
    shutil.copy(PLANS, tmp_path)
    if change.startswith("no "):
        (tmp_path / (weights if change == "no weights" else PLANS).name).unlink()
    monkeypatch.setattr(shipped, "folder", lambda: str(tmp_path))
    assert shipped.find(NAME) is None and type(npmobilenet.load()) is Model


class Executed:
    def __reduce__(self):
        return pytest.fail, ("a file of somebody else's was unpickled",)


def test_no_other_plans_are_opened(tmp_path):
    (tmp_path / "net.plans").write_bytes(pickle.dumps(Executed()))
    for name in ("net", "net.pth"):
        with pytest.raises(CheckpointError, match="does not exist"):
            npmobilenet.load(str(tmp_path / name))


START = """
import sys, npmobilenet, numpy
model = npmobilenet.load()
print(model.classify(numpy.load(sys.argv[1]))[0].label)
heavy = ("architectures", "checkpoints", "blocked", "passes", "graph", "operations", "plan", "weights", "cli")
print(sorted({name.split(".")[1] for name in sys.modules if name.startswith("npmobilenet.")} & {*heavy}))
print({"numba", "llvmlite", "argparse", "hashlib"} & {*sys.modules})
"""


@ready_only
def test_a_start_imports_nothing_that_tells_networks_apart(tmp_path):
    np.save(tmp_path / "x.npy", read_image(photo("coffee.png")))
    command = [sys.executable, "-c", START, str(tmp_path / "x.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines() == ["espresso", "[]", "set()"]


@ready_only
def test_without_shipped_machine_code_plans_are_made(whole, image, monkeypatch):
    def nothing(name, target):
        raise NpmobilenetError(f"{name} is not there")

    monkeypatch.setattr(program, "library", nothing)
    assert np.array_equal(npmobilenet.load()(image), whole(image))


def test_switched_off_nothing_is_ready(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert shipped.find(NAME) is None


def test_a_cpu_without_a_level_has_no_plans(monkeypatch):
    monkeypatch.setattr(shipped, "host", lambda: host().__class__("other", "", 4, 16, False))
    assert shipped.find(NAME) is None
