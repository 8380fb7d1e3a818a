"""A seeded sample of `tests.fuzz_onnx`, and that it sees what it looks for."""

import time
import warnings

import numpy as np
import pytest

import npmobilenet
from npmobilenet.onnx.writing import serialised
from tests import fuzz_onnx as fuzz
from tests.conftest import no_kernels
from tests.fuzz_checkpoints import Watch

pytestmark = no_kernels

COPIES = 60
SMALL = ("classifier", "in parts", "channels last", "transposed", "rows")


@pytest.fixture(scope="module")
def watch():
    return Watch()


@pytest.fixture(scope="module")
def originals():
    return {name: graph for name, graph in fuzz.samples().items() if name in SMALL or name.startswith("chain")}


def write(folder, data):
    path = folder / "copy.onnx"
    path.write_bytes(data)
    return path


def test_undamaged_files_are_run(tmp_path, watch, originals):
    for name, graph in originals.items():
        path = write(tmp_path, serialised(graph))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = npmobilenet.load(path, backend="reference")  # what reading needs is imported then
            model.run(fuzz.inputs_of(model))
        assert fuzz.trial(path, watch) == "run", name


def test_damaged_copies_are_run_or_refused(tmp_path, watch, originals):
    results = [fuzz.trial(write(tmp_path, fuzz.content(seed, originals)[1]), watch) for seed in range(COPIES)]
    assert COPIES / 10 < results.count("run") < COPIES * 0.7
    assert len(set(results)) > COPIES / 4


def test_a_copy_is_made_again_from_its_seed(originals):
    for seed in range(8):
        assert fuzz.content(seed, originals) == fuzz.content(seed, originals)


@pytest.mark.parametrize(
    ("reading", "problem"),
    [
        (lambda: bytes(2 << 20), "MiB for a file of 1 bytes"),
        (lambda: sum(time.process_time() < 0 for _ in range(10**9)), "takes more than 1 s"),
        (lambda: exec("1 + 1"), "exec"),
    ],
)
def test_what_must_not_happen_is_seen(tmp_path, watch, monkeypatch, reading, problem):
    class Loaded:
        size, channels_last, input_name = (1, 1), False, "x"
        graph = type("Graph", (), {"in_channels": 1})

        def run(self, inputs):
            assert np.shape(inputs["x"]) == (1, 1, 1, 1)

    kept = []
    monkeypatch.setattr(fuzz, "BASE", 1 << 20)
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    monkeypatch.setattr(npmobilenet, "load", lambda path, **_: kept.append(reading()) or Loaded())
    with pytest.raises(AssertionError, match=problem):
        fuzz.trial(write(tmp_path, b"x"), watch)
