"""The measurements on a GPU run through, with tiny sizes; what they say is not asked here."""

import json

import numpy as np
import pytest

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.bench.cuda import __main__ as command
from npmobilenet.bench.cuda import correctness, report, torch_networks
from npmobilenet.bench.peers.folded import folded_layers
from npmobilenet.engine import Engine
from npmobilenet.kernels.cuda import device
from tests.test_cuda_model import few_threads, needs_device  # noqa: F401 - a fixture for all tests here


@needs_device
def test_everything_runs_and_is_written(tmp_path, capsys):
    assert command.main(["--smoke", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "cuda.json").read_text())
    assert not found["notes"]
    for part in (
        "kernels",
        "right_networks",
        "copy",
        "depthwise",
        "mixed",
        "pointwise",
        "blocks",
        "networks",
        "launches",
    ):
        assert found[part], part
    assert all(row["right"] for row in found["kernels"])
    assert {row["runtime"] for row in found["networks"]} >= {"npmobilenet", "npmobilenet, from and to the host"}
    text = (tmp_path / "cuda.md").read_text()
    assert "kernel cases right" in text and "### Depthwise layers" in text and "WRONG" not in text


@needs_device
def test_a_part_that_fails_is_a_line(monkeypatch, tmp_path, capsys):
    def broken(smoke):
        yield {"what": "first", "dtype": "float32", "error": 1.0, "allowed": 0.1, "right": False}
        raise OSError("out of luck")

    def missing(*arguments, **options):
        raise ImportError("no such package")

    monkeypatch.setattr(correctness, "kernels", broken)
    monkeypatch.setattr(correctness, "networks", missing)
    assert command.main(["--smoke", "--out", str(tmp_path), "--parts", "kernels,right_networks"]) == 1
    found = json.loads((tmp_path / "cuda.json").read_text())
    assert len(found["kernels"]) == 1
    assert "FAILED, OSError: out of luck" in found["notes"][0] and "left out, no such package" in found["notes"][1]
    assert "WRONG: first" in (tmp_path / "cuda.md").read_text()


@needs_device
def test_sanitizer_runs_every_kernel(monkeypatch, capsys):
    monkeypatch.setattr(correctness, "networks", lambda smoke: ())
    assert command.main(["--sanitizer"]) == 0
    said = capsys.readouterr().out
    assert all(operation in said for operation in ("depthwise_conv2d/cuda", "squeeze_excite/cuda", "softmax/cuda"))


def test_errors_that_are_no_numbers_are_infinite():
    assert correctness.error(np.array([1.0, np.nan]), np.ones(2)) == float("inf")
    assert correctness.error(np.array([1.5, 2.0]), np.array([1.0, 2.0])) == 0.25


def test_without_a_device(monkeypatch, capsys):
    monkeypatch.setattr(device, "problem", lambda: "not available: no driver")
    assert command.main([]) == 1
    assert capsys.readouterr().err == "npmobilenet: CUDA is not available: no driver\n"


def test_the_document_takes_the_tables(tmp_path):
    run = {
        "machine": {"device": "a GPU", "system": "Linux", "versions": {}, "commit": None, "date": "2026-01-01"},
        "notes": ["torch left out"],
        "copy_gbytes": 4200.0,
        "depthwise": [{"layer": "3x3", "dtype": "float32", "microseconds": 1.25, "gbytes": 3000.4, "of_copy": 0.7}],
    }
    file = tmp_path / "cuda.md"
    file.write_text(f"before\n{report.BEGIN}\nnot yet measured\n{report.END}\nafter\n")
    report.write_into(file, list(report.markdown(run)))
    text = file.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "not yet" not in text
    assert "| 3x3 | float32 | 1.2 | 3000 | 70% |  |" in text and "- torch left out" in text
    file.write_text("no markers")
    with pytest.raises(ValueError, match="has no lines"):
        report.write_into(file, [])


@pytest.mark.torch
@pytest.mark.parametrize("name", ["mobilenet_v2", "mixnet_s", "mobilenet_v3_small"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_same_network_in_pytorch(name, channels_last):
    """On the CPU, so that it is right when there is a GPU."""
    torch = pytest.importorskip("torch")
    graph = get_architecture(name).graph(1.0, 7, "same")
    weights, size = random_weights(graph, 2), (33, 40)
    x = np.random.default_rng(0).standard_normal((2, 3, *size)).astype(np.float32)
    layers = folded_layers(graph, weights, size)
    with torch.inference_mode():
        logits = torch_networks.network(layers, "float32", channels_last, "cpu")(torch.from_numpy(x)).numpy()
    assert correctness.error(logits, Engine(graph, weights, "reference").run(x)) < 5e-5
