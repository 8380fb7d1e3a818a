"""The comparison with other runtimes works with whatever is installed; who is faster is not asked here."""

import json
import os

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.bench import depthwise, machine_limits, markers, readme
from npmobilenet.bench.machine import package_version
from npmobilenet.bench.peers import __main__ as command
from npmobilenet.bench.peers.folded import folded_layers
from npmobilenet.bench.peers.measure import OURS, TOLERANCE
from npmobilenet.bench.peers.networks import EXPORTERS, Network
from npmobilenet.bench.peers.workers import PeerError, Worker, cpus_for
from npmobilenet.bench.runtimes import RUNTIMES, Runtime, burst, together
from npmobilenet.engine import Engine
from npmobilenet.graph import Graph, Node
from tests.conftest import compiled_only

TINY = "mobilenet_v2-0.35-32"
PEERS = [name for name in RUNTIMES if name not in (OURS, "torch compiled")]
QUICK = ["--networks", TINY, "--threads", "1", "--rounds", "2", "--seconds", "0.001"]
EXPORTED = [
    "mobilenet_v2-0.35-33",  # symmetric padding
    "mobilenet_v1-1.0-33",  # SAME, with the odd zero after
    "mixnet_s-1.0-33",  # mixed and grouped convolutions
    "efficientnet_b0-1.0-33",  # squeeze-and-excitation, swish
    "mobilenet_v3_small-1.0-33",  # hard swish, hard sigmoid, an activation after a linear layer
    "selfie_segmentation-0.5-64",  # resizing, gates, a transposed convolution
    "tiny_face_detector-1.0-64",  # leaky ReLU, max pooling
    "face_expression-1.0-32",  # sums with activations of their own
    "expression_mobilenet_v2-1.0-48",  # PReLU with a slope for each value; one channel
    "lraspp_mobilenet_v3_large-1.0-65",
    "ssdlite_mobilenet_v3_large-1.0-64",  # twelve outputs
    "faceres-1.0-64",  # a softmax
]


@compiled_only
def test_the_command_measures_whatever_is_installed(tmp_path, capsys):
    file = tmp_path / "found.json"
    assert command.main([*QUICK, "--batches", "1,3", "--json", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    found = json.loads(file.read_text())
    assert found["cpu"] and found["versions"]["numpy"] == np.__version__
    assert [(one["network"], one["threads"], one["batch"]) for one in found["comparisons"]] == [
        (TINY, 1, 1),
        (TINY, 1, 3),
    ]
    for one in found["comparisons"]:
        rows = {row["runtime"]: row for row in one["rows"]}
        assert rows[OURS]["ours_over_this"] == 1
        for row in rows.values():
            assert row["difference"] <= TOLERANCE
            assert 0 < row["least_milliseconds"] <= row["milliseconds"]
            assert len(row["round_milliseconds"]) == 2
            assert 0 < row["of_peak"] < 2


def test_what_noise_alone_explains_is_not_printed_as_a_number():
    """The difference of two times may be nothing, or less, where others disturb."""
    row = {"runtime": OURS, "gflops": -4e7, "of_peak": -4e5, "spread": 9.0, "over_ours": 1.0, "microseconds": -1e-3}
    found = {"case": "3-9x8x16", "rows": [row], "over_parts": -123456.78}
    printed = depthwise.line(found, [])
    assert printed.split() == ["3-9x8x16", "?~", "?", "?"]
    assert len(printed) == len(
        depthwise.line({**found, "over_parts": 1, "rows": [{**row, "gflops": 9, "of_peak": 0.1}]}, [])
    )


@compiled_only
def test_single_layers_inside_a_network(tmp_path, capsys):
    """Every runtime that is installed runs them, and is compared before it is timed."""
    file = tmp_path / "found.json"
    names = ["3-9x8x16", "3.5.7-9x8x20"]
    quick = ["--cases", ",".join(names), "--rounds", "2", "--seconds", "0.001", "--json", str(file)]
    assert depthwise.main(quick) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    found = json.loads(file.read_text())
    left_out = {line.partition(" left out")[0] for line in found["left_out"]}
    assert not any("differs" in line for line in found["left_out"])
    for name, layer in zip(names, found["layers"], strict=True):
        assert layer["case"] == name and name in printed
        rows = {row["runtime"]: row for row in layer["rows"]}
        assert {*rows, *left_out} == {OURS, *PEERS}
        assert rows[OURS]["over_ours"] == 1
    plain, mixed = found["layers"]
    assert (plain["macs"], mixed["macs"]) == (9 * 8 * 16 * 9, 9 * 8 * (8 * 9 + 6 * 25 + 6 * 49))
    assert "over_parts" not in plain
    assert np.isfinite(mixed["over_parts"]) and len(mixed["parts_microseconds"]) == 3


def test_a_layer_is_named():
    assert depthwise.Case.parse("3.5-9x8x16").name == "3.5-9x8x16"
    for text in ("3", "3-9x8", "-9x8x16", "3.3-9x8x16"):
        with pytest.raises(ValueError, match="kernels-HxWxC"):
            depthwise.Case.parse(text)


@compiled_only
def test_startup_and_memory_of_fresh_processes(tmp_path, capsys):
    file = tmp_path / "found.json"
    assert (
        command.main([*QUICK, "--rounds", "1", "--runtimes", OURS, "--startup", "--memory", "--json", str(file)]) == 0
    )
    rows = json.loads(file.read_text())["processes"]
    assert [row["runtime"] for row in rows] == [OURS, f"{OURS}, empty cache"]
    assert all(row["startup_seconds"] > 0 for row in rows)
    assert "seconds" in capsys.readouterr().out


def installed(runtime: str) -> Runtime:
    """A runtime of which everything is there, or the test is skipped."""
    about = RUNTIMES[runtime]
    if package_version(about.package) is None:
        pytest.skip(f"{about.package} is not installed")
    return about


@pytest.mark.parametrize("network", EXPORTED)
@pytest.mark.parametrize("runtime", PEERS)
def test_exported_networks_compute_the_same(runtime, network, tmp_path):
    installed(runtime)
    network = Network.parse(network, tmp_path)
    with Worker(runtime, network, 2, 1) as worker:
        model = npmobilenet.load(network.weights, backend="reference")
        expected = model.outputs(np.load(network.input(2)), model.graph.output_names)
        expected = together(list(expected.values()), channels_last=False)
        np.testing.assert_allclose(worker.result, expected, rtol=0, atol=2e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("runtime", PEERS)
def test_exported_dilation(runtime, tmp_path):
    """In parts of unequal width, each with a dilation of its own; none of the networks has any."""
    about = installed(runtime)
    mixed = get_architecture("mobilenet_v2").with_mixed((3, 5, 7), partition="exponential", dilated=True)
    graph = mixed.graph(0.35, 10)
    weights, x = random_weights(graph), np.random.default_rng(0).standard_normal((1, 3, 33, 47), np.float32)
    file = tmp_path / f"network{about.suffix}"
    EXPORTERS[about.suffix](graph, weights, x.shape, file)
    expected = Engine(graph, weights, "reference").run(x)
    (result,) = about.load(str(file), x, 1)()
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@compiled_only
def test_a_runtime_that_disagrees_is_not_measured(monkeypatch, capsys, tmp_path):
    """Where only the same bits will do; the command goes on, and says so once."""
    peer = next((name for name, about in RUNTIMES.items() if name != OURS and package_version(about.package)), None)
    if peer is None:
        pytest.skip("no other runtime is installed")
    file = tmp_path / "found.json"
    monkeypatch.setattr("npmobilenet.bench.peers.measure.TOLERANCE", 0)
    assert command.main([*QUICK, "--batches", "1,2", "--runtimes", peer, "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert all([row["runtime"] for row in one["rows"]] == [OURS] for one in found["comparisons"])
    assert all(line.startswith(peer) and "\n" not in line for line in found["left_out"])
    assert capsys.readouterr().out.count("left out") == len(found["left_out"]) > 0


def test_a_missing_or_failing_runtime_is_a_line(tmp_path, monkeypatch):
    network = Network.parse(TINY, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("npmobilenet.bench.peers.workers.package_version", lambda package: None)
        with pytest.raises(PeerError, match="not installed"):
            Worker("onnxruntime", network, 1, 1)
    network.weights.write_bytes(b"no checkpoint")
    with pytest.raises(PeerError, match="CheckpointError") as error:
        Worker(OURS, network, 1, 1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["mobilenet_v2", "mobilenet_v2-wide-224", "mobilenet_v9-1.0-224"])
def test_networks_are_named(text, tmp_path):
    with pytest.raises(ValueError, match="architecture"):
        Network.parse(text, tmp_path)


def test_a_checkpoint_is_compared_at_its_own_size(tmp_path):
    about = get_architecture("vgg19")
    weights = random_weights(about.graph(0.25))
    file = npmobilenet.export_weights(weights, tmp_path / "style.safetensors")
    network = Network.parse(str(file), tmp_path)
    assert (network.name, network.shipped) == ("style-0.25-224", False)
    assert network.weights == file and len(network.model.graph.output_names) == 6


def test_zeros_that_no_window_reaches_are_left_out():
    """As Darknet pads by one less than the window's size: TensorFlow Lite has SAME or none."""
    node = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 1), (0, 1))}
    graph = Graph((Node("pool", "max_pool2d", ("input",), "block", {}, node),))
    for size, pads in ((8, ((0, 0), (0, 0))), (7, ((0, 1), (0, 1)))):
        (layer,) = folded_layers(graph, {}, (size, size))
        assert layer.pads == pads


def test_a_burst_drops_its_first_calls():
    calls = []
    times = burst(lambda: calls.append(0), 1e-9)
    assert times["calls"] == 3 and len(calls) > 3
    assert 0 <= times["least"] <= times["median"]


def test_cpus_are_those_of_this_process():
    assert len(cpus_for(1)) <= 1 and len(set(cpus_for(1000))) == len(cpus_for(1000))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be kept on CPUs here")
def test_threads_whose_rates_add_up_run_on_cpus_of_their_own():
    before, seen = os.sched_getaffinity(0), {}

    def call(number: int) -> None:
        seen[number] = os.sched_getaffinity(0)

    machine_limits._seconds([lambda: call(0), lambda: call(1)], 1)
    assert [len(cpus) for cpus in seen.values()] == [1, 1]
    assert len(seen[0] | seen[1]) == min(2, len(before))
    machine_limits._seconds([lambda: call(0)], 1)
    assert seen[0] == os.sched_getaffinity(0) == before


def test_machine_limits():
    assert machine_limits.multiply_add_rate(threads=2, trips=1000, repeats=1) > 0
    assert machine_limits.byte_product_rate(threads=2, trips=1000, repeats=1) > 0
    assert set(machine_limits.bandwidth(repeats=1)) == {"read", "copy"}


def test_readme_table(tmp_path):
    """The table of a saved run replaces what stood between the markers, and nothing else."""
    rows = [
        {"runtime": "npmobilenet", "milliseconds": 7.44, "of_peak": 0.8, "spread": 1.01},
        {"runtime": "litert", "milliseconds": 8.45, "of_peak": 0.7, "ours_over_this": 0.88, "spread": 9.0},
    ]
    run = {
        "cpu": "a CPU",
        "vectors": "AVX2",
        "cpus": 2,
        "python": "3.11",
        "versions": {"numpy": "2.0", "numba": "0.68"},
        "limits": [],
        "comparisons": [{"network": "net", "batch": 1, "threads": threads, "rows": rows} for threads in (2, 1)],
    }
    file = tmp_path / "README.md"
    begin, end = (marker.format(readme.REGION) for marker in (markers.BEGIN, markers.END))
    file.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    readme.write([run], file)
    text = file.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| net, batch 1, 1 thread | **7.4** (80% of the CPU's peak) | 8.4 (×1.14) ~ |" in text
    assert text.index("1 thread |") < text.index("2 threads |")
    file.write_text("no markers")
    with pytest.raises(ValueError, match="has no lines"):
        readme.write([run], file)
