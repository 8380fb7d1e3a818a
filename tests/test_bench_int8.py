"""Networks of 8 bits beside other runtimes, layer by layer, and how near they come to float32."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from npmobilenet.bench import agreement, readme
from npmobilenet.bench.machine import package_version
from npmobilenet.bench.peers import __main__ as command
from npmobilenet.bench.peers.int8 import LEAST_DECIBELS, MAKERS, PHOTOGRAPHS, Int8Network
from npmobilenet.bench.peers.measure import OURS
from npmobilenet.bench.peers.workers import PeerError, Worker
from npmobilenet.bench.runtimes import RUNTIMES
from npmobilenet.cli import main
from tests.conftest import compiled_only

pytestmark = pytest.mark.usefixtures("quick_machine")

TINY = "mobilenet_v2-0.35-32"
PEERS = [name for name, about in RUNTIMES.items() if name != OURS and about.int8]


@compiled_only
def test_the_command_measures_whatever_is_installed(tmp_path, capsys):
    file = tmp_path / "found.json"
    arguments = ["--dtype", "int8", "--networks", TINY, "--threads", "1", "--rounds", "1", "--seconds", "0.001"]
    assert command.main([*arguments, "--batches", "1,2", "--runtimes", f"{OURS},torch", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    assert f"{TINY} int8" in printed and "Gop/s" in printed
    found = json.loads(file.read_text())
    for one in found["comparisons"]:
        (row,) = one["rows"]
        assert one["dtype"] == "int8" and row["runtime"] == OURS
        assert row["decibels"] > LEAST_DECIBELS and row["same"] is None  # of random weights
        assert row["of_peak"] == pytest.approx(row["gflops"] / one["peak_gflops"]) and row["of_peak"] > 0
    assert [line.partition(" left out")[0] for line in found["left_out"]] == ["torch"]
    assert readme.comparisons([found]) == [] and len(readme.comparisons([found], "int8")) == 2


@pytest.mark.parametrize("runtime", PEERS)
def test_every_runtime_s_own_tools_quantise(runtime, tmp_path):
    """On whatever is installed; a batch of two has the bits of the two images alone where runtimes promise that."""
    if package_version(RUNTIMES[runtime].package) is None:
        pytest.skip(f"{RUNTIMES[runtime].package} is not installed")
    if runtime == "onnxruntime":
        pytest.importorskip("onnx")
    if runtime == "openvino":
        pytest.importorskip("nncf")
        pytest.importorskip("onnx")
    network = Int8Network.parse("mobilenet_v3_small-1.0-32", tmp_path)
    for batch in (1, 2):
        with Worker(runtime, network, batch, 1) as worker:
            assert network.agreement(worker.result, batch)["decibels"] > 8


def test_tflite_files_of_networks_with_every_operator(tmp_path):
    """Splits and joins of channels keep one scale; what comes out is near float32."""
    pytest.importorskip("ai_edge_litert")
    network = Int8Network.parse("mixnet_s-1.0-33", tmp_path)
    with Worker("litert", network, 1, 1) as worker:
        assert network.agreement(worker.result, 1)["decibels"] > 10


def test_another_result_is_not_measured(tmp_path):
    network = Int8Network.parse(TINY, tmp_path)
    exact = np.random.default_rng(0).standard_normal((1, 1000))
    vars(network)["model"] = SimpleNamespace(
        outputs=lambda x, names: {"logits": exact}, graph=SimpleNamespace(output_names=("logits",)), classes=("a",)
    )
    np.save(tmp_path / f"{network.name}-1.npy", np.zeros((1, 3, 32, 32), np.float32))
    near = exact + 0.1 * np.random.default_rng(1).standard_normal(exact.shape)
    assert network.agreement(near, 1)["decibels"] == pytest.approx(20, abs=1)
    for other, says in ((exact[:, ::-1], "dB against float32"), (exact + np.nan, "dB"), (exact[:, :9], "shape")):
        with pytest.raises(PeerError, match=says):
            network.agreement(other, 1)


def test_what_is_made_is_for_runtimes_that_exist():
    assert {about.int8 for about in RUNTIMES.values() if about.int8} == MAKERS.keys()


def test_photographs_are_asked_for_before_anything_is_measured(tmp_path, capsys):
    for arguments, says in (
        (["--dtype", "int8", "--photographs", str(tmp_path)], "has no photographs"),
        (["--photographs", str(tmp_path)], "--dtype int8"),
    ):
        with pytest.raises(SystemExit):
            command.main(["--networks", TINY, *arguments])
        assert says in capsys.readouterr().err
    for arguments in (["--photographs", "x"], ["--photographs", "x", "--peers"], ["--ladder", "pointwise"]):
        given = [*arguments, "--dtype", "int8"] if "--ladder" in arguments else arguments
        assert main(["bench", *given]) == 1
        error = capsys.readouterr().err
        assert "int8" in error and error.count("\n") == 1


def test_crops_are_the_same_for_the_same_seed():
    paths = agreement.photographs_in(PHOTOGRAPHS)
    first, again, other = (list(agreement.crops(paths, 3, seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(a.shape != b.shape for a, b in zip(first, other, strict=True))
    with pytest.raises(ValueError, match="has no photographs"):
        agreement.photographs_in(Path("nowhere"))


@compiled_only
def test_layers_of_a_network_of_8_bits(tmp_path, capsys):
    file = tmp_path / "run.json"
    arguments = ["bench", "mobilenet_v2", "--width", "0.35", "--resolution", "32", "--rounds", "1", "--dtype", "int8"]
    assert main([*arguments, "--json", str(file)]) == 0
    assert "Gop/s" in capsys.readouterr().out
    (found,) = json.loads(file.read_text())["networks"]
    assert found["network"] == "mobilenet_v2-0.35-32 int8" and found["dtype"] == "int8"
    assert found["error"] == 0  # the reference's bits
    rows = {row["name"]: row for row in found["layers"]}
    pointwise = rows["block2.expand"]  # float32 is read, and bytes written
    values, results = (int(np.prod(pointwise[shape])) for shape in ("input", "output"))
    channels, out = pointwise["input"][0], pointwise["output"][0]
    parameters = channels * out + out * (4 + 4 + 4 + 1)  # weights; scale, bias, the result's scale and zero point
    assert pointwise["bytes"] == 4 * values + results + parameters
