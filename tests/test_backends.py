"""The names of the backends: one table, in the API, on the command line and in the documents."""

import pickle
from pathlib import Path

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.backends import ALIASES, BACKENDS, DEFAULT, checked_backend
from npmobilenet.cli import parser
from npmobilenet.engine import Engine
from npmobilenet.errors import FallbackWarning
from npmobilenet.machine import numba_is_on
from tests.test_operations import with_slow_layers

ON_CPU = [name for name in BACKENDS if name != "cuda"]
FASTEST = "blocked" if numba_is_on() else "plain"  # explicit vectors are machine code


def model(**options) -> npmobilenet.Model:
    graph = get_architecture("mobilenet_v2").graph(0.25, 3)
    return npmobilenet.Model(graph, random_weights(graph, 1), architecture="mobilenet_v2", width=0.25, **options)


@pytest.mark.parametrize(
    ("asked", "told"),
    [("auto", FASTEST), ("cpu", FASTEST), ("plain", "plain"), ("njit", "plain"), ("reference", "reference")],
)
def test_a_model_says_what_computes(asked, told):
    made = model(backend=asked)
    assert made.backend == told and f"backend={told!r}" in repr(made)
    copy = pickle.loads(pickle.dumps(made))
    assert repr(copy) == repr(made)
    if asked == DEFAULT:
        assert model().backend == told


def test_what_the_fastest_kernels_cannot_compute(slow_tanh):
    """Of such layers "auto" has plain loops compute these, and says so; "blocked" says why not."""
    graph = with_slow_layers(get_architecture("mobilenet_v2").graph(0.25, 3))
    weights = random_weights(graph, 1)
    with pytest.warns(FallbackWarning):
        assert npmobilenet.Model(graph, weights, architecture="custom").backend == FASTEST
    with pytest.raises(ValueError, match=r"^the backend 'blocked' cannot compute this network \(.+\); 'auto' has "):
        npmobilenet.Model(graph, weights, architecture="custom", backend="blocked")


def test_a_model_unpickled_elsewhere_takes_the_best_that_is_there(monkeypatch):
    """Where machine code cannot be made, "auto" comes to plain loops, whatever it was where the model was pickled."""
    content = pickle.dumps(model())
    monkeypatch.setattr("npmobilenet.blocked.program.numba_is_on", lambda: False)
    assert pickle.loads(content).backend == "plain"


@pytest.mark.skipif(not numba_is_on(), reason="whole networks take long in Python")
def test_all_compute_the_same():
    x = np.random.default_rng(0).standard_normal((2, 3, 33, 29), np.float32)
    expected = model(backend="reference")(x)
    results = {name: model(backend=name)(x) for name in (*ON_CPU, *ALIASES)}
    for name, result in results.items():
        assert np.abs(result - expected).max() < 1e-4 * np.abs(expected).max(), name
    assert np.array_equal(results["cpu"], results["auto"]) and np.array_equal(results["auto"], results["blocked"])
    assert np.array_equal(results["njit"], results["plain"])


@pytest.mark.parametrize("name", ["gpu", "", "AUTO", None, ["auto"], "x" * 1000])
def test_names_of_none(name):
    with pytest.raises(
        ValueError, match="backend must be one of auto, blocked, plain, cuda, reference, got "
    ) as caught:
        checked_backend(name)
    assert len(str(caught.value)) < 120
    graph = get_architecture("mobilenet_v2").graph(0.25, 3)
    for refusing in (lambda: npmobilenet.load(backend=name), lambda: Engine(graph, random_weights(graph), name)):
        with pytest.raises(ValueError, match="backend must be one of"):
            refusing()


@pytest.mark.parametrize("name", [*BACKENDS, *ALIASES])
def test_the_command_line_knows_them(name):
    options = parser().parse_args(["classify", "photo.png", "--backend", name])
    assert options.backend == checked_backend(name) in BACKENDS
    assert parser().parse_args(["classify", "photo.png"]).backend == DEFAULT


def test_documents_name_them():
    page = (Path(__file__).parents[1] / "docs/architecture.md").read_text(encoding="utf-8")
    for name in (*BACKENDS, *ALIASES):
        assert f"`{name}`" in page and f'"{name}"' in npmobilenet.load.__doc__, name
