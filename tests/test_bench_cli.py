"""``npmobilenet bench`` and ``report``: what they say, not how fast anything is."""

import copy
import csv
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from npmobilenet.architectures import ARCHITECTURES
from npmobilenet.bench import compare, documents, ladder, markers, noise, papers, record
from npmobilenet.bench.layers import TOLERANCE, blocks, find_layer, largest_error, layers
from npmobilenet.bench.progress import progress
from npmobilenet.bench.roofline import Roofline
from npmobilenet.cli import main
from npmobilenet.kernels import registry
from npmobilenet.kernels.ladder import LADDERS
from tests.conftest import LEVELS, compiled_only
from tests.test_operations import with_slow_layers

pytestmark = pytest.mark.usefixtures("quick_machine")

TINY = ["mobilenet_v2", "--width", "0.35", "--resolution", "32"]


@pytest.fixture(scope="module")
def saved(quick_machine, tmp_path_factory):
    """Small runs, as saved files."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["bench", *TINY, "--rounds", "3", "--json", str(folder / "network.json")]) == 0
    options = ["--ladder", "depthwise", "--shape", "3-9x9x20", "--rounds", "3"]
    assert main(["bench", *options, "--json", str(folder / "ladder.json")]) == 0
    return folder


@compiled_only
def test_a_network_block_by_block_and_layer_by_layer(tmp_path, capsys):
    files = tmp_path / "run.json", tmp_path / "run.csv"
    options = ["--threads", "2,1", "--rounds", "2", "--unfused", "--batch", "3"]
    assert main(["bench", *TINY, *options, "--json", str(files[0]), "--csv", str(files[1])]) == 0
    output = capsys.readouterr()
    assert max(map(len, output.out.splitlines())) <= 120
    assert "mobilenet_v2-0.35-32, 32x32, batch 3, 2 threads" in output.out
    assert "block1.project" in output.out and "head" in output.out
    assert "rounds" in output.err
    run = json.loads(files[0].read_text())
    assert [found["threads"] for found in run["networks"]] == [1, 2]
    for found in run["networks"]:
        assert found["error"] <= TOLERANCE and found["batch"] == 3
        for part in ("blocks", "layers"):
            rows = found[part]
            assert sum(row["macs"] for row in rows) == found["macs"]
            assert sum(row["share"] for row in rows) == pytest.approx(1)
            assert all(len(row["round_milliseconds"]) == 2 and row["milliseconds"] > 0 for row in rows)
            assert len({row["name"] for row in rows}) == len(rows)
        assert len(found["blocks"]) < len(found["layers"]) == 54
    with files[1].open() as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == sum(1 + len(found["blocks"]) + len(found["layers"]) for found in run["networks"])
    assert {line["part"] for line in lines} == {"", "blocks", "layers"}


@compiled_only
def test_a_network_on_plain_kernels(saved, tmp_path, capsys, monkeypatch, slow_tanh):
    """Layers that the vector kernels cannot run are told."""
    file = tmp_path / "run.json"
    slow = copy.copy(ARCHITECTURES["mobilenet_v2"])
    object.__setattr__(slow, "graph", lambda *about: with_slow_layers(ARCHITECTURES["mobilenet_v2"].graph(*about)))
    monkeypatch.setitem(ARCHITECTURES, "slow", slow)
    assert main(["bench", "slow", "--width", "0.25", "--resolution", "32", "--rounds", "2", "--json", str(file)]) == 0
    output = capsys.readouterr().out
    assert "kernels      plain Numba loops for 4 of 60 layers, which the vector kernels cannot run" in output
    (found,) = json.loads(file.read_text())["networks"]
    assert found["kernels"] == "vector and plain" and found["error"] <= TOLERANCE
    names = [row["name"] for row in found["layers"]]
    assert found["plain_layers"] == [name for name in names if name.endswith(".slow")]
    assert sum(row["macs"] for row in found["layers"]) == found["macs"]
    assert main(["bench", "--compare", str(file), str(file)]) == 0
    parts = 1 + len(found["blocks"]) + len(found["layers"])
    assert f"0 faster, 0 slower, {parts} no difference" in capsys.readouterr().out
    assert any("block13" in line for line in documents.network(json.loads(file.read_text()), found["network"]))
    if importlib.util.find_spec("matplotlib"):
        page = tmp_path / "report.html"
        assert main(["report", str(page), "--from", str(file), str(saved / "ladder.json")]) == 0
        assert page.read_text().count("<svg") == 4


@compiled_only
def test_more_threads_than_cpus_are_warned_of(saved, monkeypatch):
    run = record.Record((1,), ("networks",), {})
    run.about["cpus"] = 0
    assert run.warnings[0] == "1 threads on 0 CPUs wait for each other"


@compiled_only
def test_every_rung_of_a_ladder(saved, capsys):
    run = json.loads((saved / "ladder.json").read_text())
    (found,) = run["ladders"]
    assert [row["rung"] for row in found["rows"]] == [rung.name for rung in LADDERS["depthwise_conv2d"]]
    assert found["rows"][0]["speedup"] == 1
    assert all(row["error"] <= TOLERANCE and row["lesson"] for row in found["rows"])
    assert [row["threads"] for row in found["rows"]] == [rung.threads for rung in LADDERS["depthwise_conv2d"]]
    assert {row["rung"] for row in found["rows"] if row["prepared"]} == {"simd_pixel", "simd_row", "simd"}
    text = "\n".join(ladder.table(found))
    assert text.count("python") == 1 and "packing not counted in simd_pixel, simd_row, simd: a network" in text


@compiled_only
def test_a_slow_rung_is_timed_on_a_part_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(ladder, "PART", 2000)
    monkeypatch.setattr(ladder, "PATIENCE", 0.0)
    monkeypatch.setattr(ladder, "SURE", 0.0)
    assert main(["bench", "--ladder", "mixed", "--shape", "3.5-9x9x20-s2", "--rounds", "1"]) == 0
    output = capsys.readouterr().out
    assert "* python: the least of 3 calls on 4 of 20 output channels, multiplied" in output


@compiled_only
def test_a_layer_of_a_network_has_a_row_inside_it():
    layer = find_layer("conv2d", "mobilenet_v2/stem")
    assert ladder.in_network(layer, 1)()["seconds"] > 0
    assert ladder.in_network(find_layer("conv2d", "3-9x9x3x8"), 1) is None


@pytest.mark.parametrize(
    ("operation", "text", "shape", "weights"),
    [
        ("conv2d", "3-9x8x3x5-s2", (1, 9, 8, 3), (3, 3, 3, 5)),
        ("depthwise_conv2d", "5-9x8x6", (1, 9, 8, 6), (5, 5, 6)),
        ("pointwise_conv2d", "9x8x6x7", (1, 9, 8, 6), (6, 7)),
        ("mixed_depthwise_conv2d", "3.5-9x8x7", (1, 9, 8, 7), [(3, 3, 4), (5, 5, 3)]),
    ],
)
def test_shapes(operation, text, shape, weights):
    layer = find_layer(operation, text)
    first = next(iter(layer.weights.values()))
    assert layer.shape == shape
    assert ([part.shape for part in first] if isinstance(first, list) else first.shape) == weights
    part = layer.narrowed(layer.macs // 2)
    assert 0 < part.channels <= layer.channels // 2 + 1
    assert part.macs / part.channels == pytest.approx(layer.macs / layer.channels, rel=0.35)
    out = registry.best(operation, "reference").function(**part.arguments(), **part.options)
    assert out.shape[3] == part.channels == part.narrowed(part.macs).channels


@compiled_only
def test_the_ladder_of_a_block(tmp_path, capsys):
    files = tmp_path / "run.json", tmp_path / "run.csv"
    options = ["--ladder", "fused", "--shape", "3-12x11x4x24x4", "--rounds", "2", "--threads", "1,2"]
    assert main(["bench", *options, "--json", str(files[0]), "--csv", str(files[1])]) == 0
    output = capsys.readouterr().out
    assert "inverted_residual: layer k3-1x12x11x4x24x4, 0.05 million" in output and "0.03 MB" in output
    for found in json.loads(files[0].read_text())["ladders"]:
        rows = {row["rung"]: row for row in found["rows"]}
        assert [*rows] == [rung.name for rung in LADDERS["inverted_residual"]]
        whole = 4 * 2 * 12 * 11 * 24
        assert rows["python"]["between"] == rows["njit"]["between"] == whole == 2 * rows["njit_split"]["between"]
        assert rows["njit_fused"]["between"] == found["threads"] * 4 * 4 * 11 * 24
        assert rows["simd"]["between"] >= whole
        assert {name for name, row in rows.items() if row["prepared"]} == {"simd", "simd_split", "simd_ring"}
    with files[1].open() as stream:
        assert {line["between"] for line in csv.DictReader(stream) if line["rung"] == "njit"} == {str(whole)}


@compiled_only
def test_a_block_of_a_network_has_a_row_inside_it(monkeypatch):
    layer = find_layer("inverted_residual", "mobilenet_v2/block5")
    assert layer.title == "block5-k3-1x28x28x32x192x32" and layer.options["residual"]
    assert layer.macs == 28 * 28 * 192 * (32 + 9 + 32)
    for threads in (1, 100):  # one call; three, since a strip would be too low for so many threads
        assert ladder.in_network(layer, threads)()["seconds"] > 0
    assert ladder.in_network(find_layer("inverted_residual", "3-9x9x4x8x4"), 1) is None


def test_blocks_and_their_shapes():
    names = [layer.name for layer in blocks("mobilenet_v2")]
    assert names == [f"block{number}" for number in range(2, 18)]  # the first one has no expansion
    assert blocks("mobilenet_v1") == []
    assert {layer.name for layer in blocks("mobilenet_v3_large")} == {
        "block2",
        "block3",
        *map("block{}".format, range(7, 11)),
    }
    first = blocks("mobilenet_v2")[0]
    assert first.title == "block2-k3-1x112x112x16x96x24-s2" and not first.options["residual"]
    layer = find_layer("inverted_residual", "5-9x8x3x10x4-s2")
    assert layer.shape == (1, 9, 8, 3) and layer.title == "k5-1x9x8x3x10x4-s2" and not layer.options["residual"]
    assert find_layer("inverted_residual", "3-9x8x3x10x3").options["residual"]
    part = layer.narrowed(layer.macs // 2)
    assert part.channels == 5 and part.macs == layer.macs // 2
    assert part.reference().shape == layer.reference().shape == (1, 5, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ladder", "sideways"], "no ladder 'sideways'; there are: conv2d, depthwise"),
        (["--ladder", "depthwise", "--shape", "3x3"], "is written as 3-56x56x144"),
        (["--ladder", "pointwise", "--shape", "3-9x9x4x4x4"], "is written as 28x28x192x32"),
        (["--ladder", "depthwise", "--shape", "0-9x9x4"], "is written as"),
        (["--ladder", "depthwise", "--shape", "mobilenet_v2/stem"], "there are: block1.depthwise"),
        (["--ladder", "depthwise", "--shape", "nonet/stem"], "no architecture 'nonet'"),
        (["--ladder", "fused", "--shape", "3-9x9x4x4"], "is written as 3-112x112x16x96x24-s2, or as a network's block"),
        (["--ladder", "fused", "--shape", "3-9x9x4x0x4"], "is written as 3-112x112x16x96x24-s2"),
        (["--ladder", "fused", "--shape", "mobilenet_v2/block1"], "there are: block2, block3"),
        (["--ladder", "depthwise", "mobilenet_v2"], "takes a --shape, no network"),
        (["--shape", "3-9x9x4"], "--ladder"),
        (["no_such_network"], "no_such_network"),
        (["alexnet"], "alexnet: does not exist; architectures: mobilenet_v2, mobilenet_v1,"),
        (["mobilenet_v2", "--resolution", "32", "--json", "no/such/folder/file.json"], "cannot be written"),
        (["--peers", "--resolution", "32x64"], "square"),
        (["--compare", "no.json", "such.json"], "no.json: not a saved run"),
        (["--write-docs", "setup.py"], "setup.py: not a saved run"),
    ],
)
@compiled_only
def test_bad_input_is_one_line(arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    assert main(["bench", *arguments]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]


@pytest.mark.parametrize("option", [["--threads", "0"], ["--threads", "1,x"], ["--rounds", "0"], ["--batch", "-1"]])
def test_bad_options_are_usage(option, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["bench", *option])
    assert ended.value.code == 2
    assert "expected an integer >= 1" in capsys.readouterr().err


def test_without_numba_there_is_nothing_to_measure(monkeypatch, capsys):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert main(["bench"]) == 1
    assert "Numba is switched off" in capsys.readouterr().err


@compiled_only
def test_peers(tmp_path, capsys):
    file = tmp_path / "run.csv"
    assert main(["bench", *TINY, "--peers", "--rounds", "1", "--csv", str(file)]) == 0
    assert "mobilenet_v2-0.35-32" in capsys.readouterr().out
    assert "npmobilenet" in file.read_text()


# Comparison.


def edited(file, target, change=lambda run: None, times=1.0):
    """A copy of a saved run, calm, with other times."""
    run = json.loads(file.read_text())
    run["warnings"] = []
    for found in [*run.get("networks", ()), *run.get("ladders", ())]:
        found["round_peaks"] = [100.0, 100.0, 100.0]
        for row in [found, *found.get("blocks", ()), *found.get("layers", ()), *found.get("rows", ())]:
            if "round_milliseconds" in row:
                middle = float(np.median(row["round_milliseconds"]))
                row["round_milliseconds"] = [0.99 * middle * times, middle * times, 1.01 * middle * times]
    change(run)
    target.write_text(json.dumps(run))
    return str(target)


@compiled_only
@pytest.mark.parametrize("kind", ["network", "ladder"])
@pytest.mark.parametrize(("times", "word"), [(1.0, "no difference within noise"), (1.3, "slower"), (0.7, "faster")])
def test_a_comparison_knows_the_noise(saved, tmp_path, capsys, kind, times, word):
    old = edited(saved / f"{kind}.json", tmp_path / "old.json")
    new = edited(saved / f"{kind}.json", tmp_path / "new.json", times=times)
    assert main(["bench", "--compare", old, new]) == 0
    output = capsys.readouterr().out
    rows = compare.compare(*(record.read(Path(file)) for file in (old, new)))
    assert {row.verdict for row in rows} == {word}
    assert f"median of the ratios {times:.3f}" in output
    assert "?" not in output


@compiled_only
def test_a_comparison_of_doubtful_runs_doubts(saved, tmp_path, capsys):
    file = saved / "ladder.json"
    old = edited(file, tmp_path / "old.json")

    def busy(run):
        run["warnings"] = ["load average 9.0 before the start"]

    assert main(["bench", "--compare", old, edited(file, tmp_path / "busy.json", busy, 1.3)]) == 0
    output = capsys.readouterr().out
    assert "NOISY, the new run: load average 9.0" in output and "slower?" in output

    def slower_machine(run):
        run["ladders"][0]["round_peaks"] = [70.0, 70.0, 70.0]

    assert main(["bench", "--compare", old, edited(file, tmp_path / "slow.json", slower_machine, 1.3)]) == 0
    assert "0 faster, 0 slower" in capsys.readouterr().out


@compiled_only
def test_different_machines_are_not_compared_silently(saved, tmp_path, capsys):
    file = saved / "ladder.json"
    other = edited(file, tmp_path / "other.json", lambda run: run.update(cpu="another CPU"))
    assert main(["bench", "--compare", str(file), other]) == 1
    assert "different machines (cpu: " in capsys.readouterr().err
    assert main(["bench", "--compare", str(file), other, "--across-machines"]) == 0
    assert "DIFFERENT MACHINES" in capsys.readouterr().out
    assert main(["bench", "--compare", str(file), str(saved / "network.json")]) == 1
    assert "nothing in common" in capsys.readouterr().err


def test_noise():
    assert noise.threshold(1.0, 1.0) == noise.LEAST
    assert noise.threshold(1.2, 1.2) == pytest.approx(1.2)
    words = [noise.verdict(ratio, 1.1) for ratio in (0.8, 0.95, 1.05, 1.2)]
    assert words == ["faster", "no difference within noise", "no difference within noise", "slower"]
    assert list(noise.warnings([1.0], 1.0, 0.0)) == []
    assert len(list(noise.warnings([2.0], 2.0, 99.0))) == 3


# What is possible, what is right.


def test_roofline():
    roof = Roofline.of({"gflops": 100.0, "levels": LEVELS})
    assert roof.bandwidth(1) == 100 and roof.bandwidth(1 << 40) == 10
    assert 50 < roof.bandwidth(1 << 16) < 100
    assert roof.possible(1 << 20, 1 << 20) == 100  # two operations for a byte at 50 GB/s
    place = roof.place(1 << 19, 1 << 20, 1e-4)
    assert place["bound"] == "memory" and place["of_possible"] == pytest.approx(place["gbytes"] / 50)
    assert roof.place(10**9, 1 << 20, 0.04)["of_possible"] == pytest.approx(0.5)
    assert roof.place(0, 1 << 20, 1e-4)["gflops"] == 0


def test_nothing_wrong_is_timed():
    x = np.ones((2, 3))
    assert largest_error(x, x) == 0
    for wrong in (x + 1e-3, x * np.nan, x[:1]):
        with pytest.raises(ValueError, match="not measured"):
            largest_error(wrong, x)


@compiled_only
def test_a_wrong_network_is_not_timed(monkeypatch, capsys):
    monkeypatch.setattr("npmobilenet.bench.layers.TOLERANCE", 0.0)
    assert main(["bench", *TINY, "--rounds", "1"]) == 1
    assert "not measured" in capsys.readouterr().err


def test_every_default_layer_is_there():
    for operation, text in ladder.LAYERS.items():
        assert find_layer(operation, text).operation == operation
        assert ladder.find_ladder(operation) == operation
    assert {layer.network for layer in layers("mixnet_s", 64)} == {"mixnet_s"}


def test_progress_is_plain_lines_where_there_is_no_terminal(capsys):
    assert list(progress(range(10), "things")) == list(range(10))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "things: 0 of 10 rounds" and 2 <= len(lines) <= 5


@pytest.mark.parametrize("row", [row for rows in papers.TABLES.values() for row in rows], ids=lambda row: row.row)
def test_counts_reproduce_the_papers(row):
    if row.note:
        return
    assert abs(row.counts.macs / 1e6 - row.macs) < 1.5
    assert abs(row.counts.weights / 1e6 - row.parameters) < 0.1


# Documents.


def test_a_marked_region_is_replaced(tmp_path):
    file = tmp_path / "page.md"
    text = "a\n<!-- begin: one -->\nold\n<!-- end: one -->\nb\n<!-- begin: two -->\n<!-- end: two -->\n"
    file.write_text(text)
    assert markers.regions(file) == ["one", "two"]
    markers.replace(file, "one", ["new"])
    markers.replace(file, "one", ["newer"])
    assert file.read_text() == text.replace("\nold\n", "\n\nnewer\n\n")
    with pytest.raises(ValueError, match="has no lines <!-- begin: three -->"):
        markers.replace(file, "three", [])


@compiled_only
def test_tables_are_written_where_documents_want_them(saved, tmp_path):
    (tmp_path / "docs" / "a").mkdir(parents=True)
    regions = {"README.md": "bench/network.py mobilenet_v2-0.35-32", "docs/a/b.md": "bench/ladder.py depthwise_conv2d"}
    for name, region in regions.items():
        text = f"before\n{markers.BEGIN.format(region)}\n{markers.END.format(region)}\nafter\n"
        (tmp_path / name).write_text(text)
    runs = [record.read(saved / name) for name in ("network.json", "ladder.json")]
    assert documents.write(runs, tmp_path) == [f"{name}: {region}" for name, region in regions.items()]
    page = (tmp_path / "docs/a/b.md").read_text()
    assert "| `njit_loops` |" in page and "`npmobilenet bench --ladder depthwise" in page
    assert "| head |" in (tmp_path / "README.md").read_text()
    with pytest.raises(ValueError, match="no document has a region"):
        documents.write([{**runs[0], "networks": []}], tmp_path)
    with pytest.raises(ValueError, match="no checkout"):
        documents.write(runs, tmp_path / "docs")


@compiled_only
def test_a_ladder_in_a_document_has_columns_for_more_threads(saved, tmp_path):
    run = record.read(saved / "ladder.json")
    (least,) = run["ladders"]
    more = copy.deepcopy(least) | {"threads": 2}
    for row in more["rows"]:
        row["milliseconds"] /= 2
    for row in (least["rows"][0], more["rows"][3]):
        row["channels_timed"] -= 1
    lines = list(documents.ladder({**run, "ladders": [more, least]}, "depthwise_conv2d"))
    header, _, *rows = [line for line in lines if line.startswith("|")]
    assert header == "| version | ms | speed-up | GFLOP/s | of peak | ms, 2 threads | over 1 thread |"
    assert [row.split("|")[1].strip(" `") for row in rows] == [rung.name for rung in LADDERS["depthwise_conv2d"]]
    for row, rung in zip(rows, LADDERS["depthwise_conv2d"], strict=True):
        assert row.endswith("| ×2.00 |" if rung.threads else "| - | - |")
    assert " \\* |" in rows[0] and any(line.startswith("\\* `python`: the least of 3 calls") for line in lines)
    assert any(line.startswith("\\* `njit`: the least of 3 calls") for line in lines)
    assert "\n".join(lines).count("Packing not counted") == 1
    assert any("`npmobilenet bench --ladder depthwise --threads 1,2`" in line for line in lines)


@compiled_only
def test_a_ladder_in_a_document_names_its_layer(saved):
    run = record.read(saved / "ladder.json")
    (found,) = run["ladders"]
    found |= {"network": "mobilenet_v2", "name": "block2.depthwise", "blas_threads": "1"}
    text = "\n".join(documents.ladder(run, "depthwise_conv2d"))
    command = "--ladder depthwise --shape mobilenet_v2/block2.depthwise"
    assert f"`OPENBLAS_NUM_THREADS=1 npmobilenet bench {command}`" in text


# The report.

PEERS = [
    {"runtime": "npmobilenet", "version": "1", "milliseconds": 7.5, "images_per_second": 133.0, "of_peak": 0.8,
     "spread": 1.0, "ours_over_this": 1.0, "difference": 0.0, "round_milliseconds": [7.5]},
    {"runtime": "litert", "version": "2", "milliseconds": 9.0, "images_per_second": 111.0, "of_peak": 0.7,
     "spread": 1.3, "ours_over_this": 0.83, "difference": 1e-6, "round_milliseconds": [9.0]},
]  # fmt: skip


@pytest.fixture
def report(saved, tmp_path):
    """A report of everything."""
    pytest.importorskip("matplotlib", reason="the extra 'report'")
    peers = json.loads((saved / "ladder.json").read_text())
    del peers["ladders"]
    peers["comparisons"] = [{"network": "mobilenet_v2-1.0-224", "batch": 1, "threads": 1, "rows": PEERS}]
    (tmp_path / "peers.json").write_text(json.dumps(peers))
    page = tmp_path / "report.html"
    runs = [saved / "network.json", saved / "ladder.json", tmp_path / "peers.json"]
    assert main(["report", str(page), "--from", *map(str, runs)]) == 0
    return page


@compiled_only
def test_the_report_needs_nothing_but_itself(report):
    from npmobilenet.bench.page import SECTIONS

    text = report.read_text()
    assert not re.search(r"https?:|//[a-z]|<script|<link|<img|@import|url\((?!#)", text)
    for key, title in SECTIONS.items():
        assert f'<section id="{key}">\n<h2>{title}</h2>' in text and f'href="#{key}"' in text
    assert text.count("<svg") == text.count("</svg>") == 2 + 1 + 1 + 1
    assert "currentColor" in text and "Conv MobileNet" in text and "litert 2" in text
    ids = re.findall(r'<clipPath id="([^"]+)"', text)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


@compiled_only
def test_a_report_measures_what_no_run_has(saved, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="the extra 'report'")
    monkeypatch.setattr(ladder, "LAYERS", {"pointwise_conv2d": "5x5x4x3"})
    page, file = tmp_path / "report.html", tmp_path / "measured.json"
    options = ["--rounds", "1", "--json", str(file)]
    assert main(["report", str(page), *options, "--from", str(saved / "network.json")]) == 0
    assert "Pointwise" in page.read_text() and "Not measured in this run" in page.read_text()
    run = json.loads(file.read_text())
    assert len(run["ladders"]) == 1 and "networks" not in run
    other = edited(file, tmp_path / "other.json", lambda run: run.update(cpu="another CPU"))
    assert main(["report", str(page), "--from", str(saved / "network.json"), other]) == 1
    measured = []
    monkeypatch.setattr("npmobilenet.cli.report.measure", lambda *_: measured.append(1))
    assert (
        main(["report", str(tmp_path), "--from", str(saved / "network.json")]) == 1
    )  # found before anything is measured
    assert not measured


def test_a_report_without_matplotlib_is_one_line(tmp_path, monkeypatch, capsys):
    import npmobilenet.bench

    for name in ("plots", "page"):
        monkeypatch.delitem(sys.modules, f"npmobilenet.bench.{name}", raising=False)
        monkeypatch.delattr(npmobilenet.bench, name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", str(tmp_path / "report.html")]) == 1
    assert capsys.readouterr().err == 'npmobilenet: pictures need matplotlib: pip install "npmobilenet[report]"\n'


@compiled_only
def test_a_browser_shows_the_report_on_a_phone(report, tmp_path):
    """Nothing but tables that can be scrolled is wider than the page."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no Chromium")
    script = "<script>document.title = document.documentElement.scrollWidth + ' ' + innerWidth</script>"
    page = tmp_path / "probe.html"
    page.write_text(report.read_text().replace("</body>", f"{script}</body>"))
    quiet = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={tmp_path}/profile"]
    command += ["--window-size=390,2000", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    wide, window = map(int, re.search(r"<title>(\d+) (\d+)</title>", shown).groups())
    assert wide <= window
    assert shown.count("<svg") == 5
