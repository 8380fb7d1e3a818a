"""Shared by all tests: the stored photographs and references, and what to skip where something is missing."""

import copy
import gc
from pathlib import Path

import numba
import numpy as np
import pytest

DATA = Path(__file__).parent / "data"
EXAMPLES = DATA.parents[1] / "examples"

# With NUMBA_DISABLE_JIT=1 every line of every kernel runs as Python, thousands of times slower: tests of
# whole networks are left out then, and kernel tests take tiny shapes.
compiled_only = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="a whole network is too slow without Numba")

# What reads files, gives names or speaks to people comes upon no kernel, and is the same with Numba and without.
no_kernels = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="runs no kernel: done where Numba is on")


def photo(name: str) -> Path:
    """The path of a photograph; coffee.png is the one that the README uses."""
    return EXAMPLES / name if name == "coffee.png" else DATA / "images" / name


def reference(name: str) -> dict[str, np.ndarray]:
    """A stored reference output."""
    with np.load(DATA / "reference" / f"{name}.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def mobilenet_v2():
    """The shipped MobileNetV2 on compiled kernels."""
    import npmobilenet

    return npmobilenet.load("mobilenet_v2")


@pytest.fixture(scope="session")
def mobilenet_v1():
    """The shipped MobileNetV1 on compiled kernels."""
    import npmobilenet

    return npmobilenet.load("mobilenet_v1")


@pytest.fixture(scope="module", autouse=True)
def earlier_objects_are_no_garbage():
    """Collections look at what a file of tests makes, not again at all that those before left: seconds each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def slow_tanh(monkeypatch):
    """The blocked kernels do not know the hyperbolic tangent, so that plain loops compute it."""
    from npmobilenet.blocked import program

    monkeypatch.setattr(program, "BETWEEN", tuple(name for name in program.BETWEEN if name != "tanh"))


@pytest.fixture
def pets(tmp_path):
    """A small checkpoint with two classes, which takes images of 32x32 in next to no time."""
    import npmobilenet
    from npmobilenet.architectures import get_architecture, random_weights

    preprocessing = npmobilenet.Preprocessing(32, (32, 32), None, (0.5,) * 3, (0.5,) * 3)
    metadata = {"classes": ["cat", "dog"], "preprocessing": preprocessing.to_dict()}
    graph = get_architecture("mobilenet_v2").graph(0.25, 2)
    return str(npmobilenet.export_weights(random_weights(graph), tmp_path / "pets.npz", metadata=metadata))


@pytest.fixture
def saved(tmp_path):
    """What writes an ONNX graph to a file."""
    from npmobilenet.onnx.writing import serialised

    def save(graph, name="model.onnx"):
        path = tmp_path / name
        path.write_bytes(serialised(graph))
        return path

    return save


@pytest.fixture(scope="session")
def thumbnails(tmp_path_factory):
    """A folder of the photographs as small PNG files, which take no time to resize even without Numba."""
    image = pytest.importorskip("PIL.Image", reason="these tests read image files")
    folder = tmp_path_factory.mktemp("thumbnails")
    for name in ("coffee.png", "rocket.jpg", "chelsea.png", "astronaut.png"):
        image.open(photo(name)).convert("RGB").resize((48, 40)).save(folder / f"{name[:-4]}.png")
    return folder


LEVELS = [{"bytes": 1 << 14, "gbytes": 100.0}, {"bytes": 1 << 20, "gbytes": 50.0}, {"bytes": 1 << 28, "gbytes": 10.0}]


@pytest.fixture(scope="module")
def quick_machine():
    """A machine whose bandwidths are known without probing, and whose peak is probed in no time."""
    from npmobilenet.bench import machine_limits

    rate = machine_limits.multiply_add_rate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine_limits, "levels", lambda threads: copy.deepcopy(LEVELS))
        patch.setattr(machine_limits, "bandwidth", lambda threads: {"read": 2e10, "copy": 1e10})
        patch.setattr(machine_limits, "multiply_add_rate", lambda threads, **_: rate(threads, 1000, 1))
        patch.setattr(machine_limits, "byte_product_rate", lambda threads, **_: rate(threads, 1000, 1))
        yield
