"""`npmobilenet study`: every topic's numbers against the papers', and its command on tiny settings."""

from __future__ import annotations

import json
import sys
from ctypes import CFUNCTYPE, c_int64, c_void_p
from dataclasses import replace
from functools import wraps
from importlib import import_module
from itertools import pairwise
from math import comb, sqrt
from pathlib import Path

import numba
import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.bench import markers
from npmobilenet.bench.profile import Timing, noise, time_in_turns
from npmobilenet.bench.study import (
    cost,
    linear_bottleneck,
    machine_code,
    memory,
    mixed,
    multipliers,
    peak,
    relu_manifold,
    scale,
    style,
    tiles,
    timeline,
)
from npmobilenet.bench.study.features import visible
from npmobilenet.bench.study.layer_tiles import KINDS
from npmobilenet.blocked.program import BlockedProgram
from npmobilenet.checkpoints.fit import naming
from npmobilenet.cli import main
from npmobilenet.cli import study as study_command
from npmobilenet.cli.study import TOPICS, Topic
from npmobilenet.engine import Engine
from npmobilenet.image import IMAGENET, preprocess, read_image
from npmobilenet.kernels.blocked.tiles import Tile
from npmobilenet.kernels.memory import aligned
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.target import host
from tests.conftest import compiled_only, photo
from tests.test_operations import with_slow_layers

ROOT = Path(__file__).parents[1]
SIGNATURES = {".png": b"\x89PNG\r\n\x1a\n", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint of ten classes for images of 48x48."""
    graph = get_architecture("mobilenet_v2").graph(0.25, 10)
    about = {"preprocessing": replace(IMAGENET, resize=56, crop=(48, 48)).to_dict()}
    path = tmp_path_factory.mktemp("study") / "tiny.npz"
    return str(npmobilenet.export_weights(random_weights(graph), path, metadata=about))


def topic_arguments(topic: str, tiny: str) -> list[str]:
    """The smallest settings of a topic."""
    picture = str(photo("rocket.jpg"))
    return {
        "cost": ["--width", "0.25", "--resolution", "32", "--rounds", "2"],
        "relu-manifold": ["--dimensions", "2,5", "--samples", "200"],
        "linear-bottleneck": ["--model", tiny, "--images", picture, "--views", "1"],
        "memory": ["--width", "0.25", "--resolution", "64", "--splits", "2", "--rounds", "2"],
        "multipliers": ["--widths", "0.35,0.25", "--resolutions", "96,64", "--rounds", "2"],
        "mixed": ["--width", "0.25", "--resolution", "48", "--kernels", "3,5", "--rounds", "2"],
        "features": [picture, "--model", tiny, "--block", "block2", "--channels", "5"],
        "occlusion": [picture, "--model", tiny, "--patch", "16", "--step", "16"],
        "style": [picture, str(photo("chelsea.png")), "--model", tiny],
        "int8": ["--images", picture, "--model", tiny, "--crops", "2"],
        "tiles": ["--rounds", "2", "--resolution", "32", "--candidates", "4x2"],
        "timeline": ["--width", "0.25", "--resolution", "64", "--threads", "2", "--rounds", "3"],
        "scale": ["--images", "1e6", "--cores", "8", "--milliseconds", "1,0.5,6", "--bytes", "50000"],
        "asm": ["depthwise_3x3_s1x1_row_3"],
    }[topic]


# The command -----------------------------------------------------------------------------------------------------


def test_without_a_topic_all_are_listed(capsys):
    assert main(["study"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: 2 * len(TOPICS) : 2]] == list(TOPICS)
    assert max(map(len, lines)) <= 110 and all(topic.paper in "".join(lines) for topic in TOPICS.values())


@pytest.fixture(scope="module")
def found() -> dict:
    """What each topic found with its smallest settings."""
    return {}


@pytest.fixture
def made_once(topic, found, monkeypatch):
    """A topic is computed once, whether its tables, its picture or its numbers are asked for."""
    module = import_module(Topic.module(topic))

    @wraps(make := module.study)
    def study(**settings):
        if topic not in found:
            found[topic] = make(**settings)
        return found[topic]

    monkeypatch.setattr(module, "study", study)


# What LLVM makes of kernels does not depend on whether Numba is on: once is enough.
EVERY = [
    pytest.param(topic, marks=compiled_only) if topic in ("tiles", "timeline", "asm", "int8") else topic
    for topic in TOPICS
]


@pytest.mark.usefixtures("made_once")
@pytest.mark.parametrize("topic", EVERY)
def test_every_topic_prints_tables_and_draws_a_picture(topic, tiny, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("PIL")
    suffix = {"cost": ".svg", "asm": ".pdf"}.get(topic, ".png")
    out = tmp_path / f"picture{suffix}"
    assert main(["study", topic, *topic_arguments(topic, tiny), "--out", str(out)]) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"{topic}: {TOPICS[topic].summary}\n{TOPICS[topic].paper}\n")
    assert output.err.strip() == f"picture: {out}"
    assert out.read_bytes().startswith(SIGNATURES[suffix])
    if suffix == ".png":
        pixels = read_image(out)
        assert min(pixels.shape[:2]) > 300 and pixels.std() > 10
    if topic in ("cost", "memory", "multipliers", "mixed"):
        assert ("not measured" in output.out) == bool(numba.config.DISABLE_JIT)


def test_the_gallery_shows_every_topic():
    gallery = Path(npmobilenet.__file__).parents[1] / "docs/study.md"
    if not gallery.is_file():
        pytest.skip("no checkout")
    text = gallery.read_text(encoding="utf-8")
    for topic in TOPICS:
        assert f"\nnpmobilenet study {topic}" in text and f"](pictures/{topic}.png)" in text
    pictures = list((gallery.parent / "pictures").glob("*.png"))
    assert {picture.stem for picture in pictures} == set(TOPICS)
    assert sum(picture.stat().st_size for picture in pictures) < 1.5e6


@pytest.mark.usefixtures("made_once")
@pytest.mark.parametrize("topic", EVERY)
def test_every_topic_has_json(topic, tiny, capsys):
    pytest.importorskip("PIL")
    assert main(["study", topic, *topic_arguments(topic, tiny), "--json", "--no-picture"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["topic"] == topic and report["paper"] == TOPICS[topic].paper and len(report) > 2


@compiled_only
def test_the_list_of_kernels_is_a_topic_too(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["study", "asm", "--target", "avx2", "--out", str(tmp_path / "all.png")]) == 0
    assert "pointwise_6x2 " in capsys.readouterr().out


def test_without_matplotlib_the_numbers_remain(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.chdir(tmp_path)
    arguments = ["study", "relu-manifold", "--samples", "10"]
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert "Theorem 1" in output.out
    assert 'pip install "npmobilenet[study]"' in output.err and output.err.count("\n") == 1
    assert main([*arguments, "--out", "picture.png"]) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["features", "PHOTO", "--model", "TINY", "--block", "neck"], "no block 'neck'; there are: stem, block1,"),
        (["features", "PHOTO", "--model", "TINY", "--block", "pool"], "pool gives a vector, not feature maps"),
        (["features", "nowhere.png", "--model", "TINY"], "nowhere.png"),
        (["occlusion", "nowhere.png", "--model", "TINY"], "nowhere.png"),
        (["occlusion", "PHOTO", "--model", "TINY", "--patch", "49"], "must fit the network's input, 48x48"),
        (["occlusion", "PHOTO", "--model", "TINY", "--label", "dog"], "no class 'dog'; give a name"),
        (["style", "PHOTO", "nowhere.png", "--model", "TINY"], "nowhere.png"),
        (["style", "PHOTO", "PHOTO", "--model", "TINY", "--pooling", "average"], "mobilenet_v2 does not pool maxima"),
        (["linear-bottleneck", "--images", "nowhere.png"], "nowhere.png"),
        (["linear-bottleneck", "--images", "PHOTO", "--views", "3"], "there are 1 or 10 views"),
        (["linear-bottleneck", "--images", "FOLDER"], "no image files in this folder"),
        (["memory", "--network", "alexnet"], "no architecture 'alexnet'"),
        (["mixed", "--network", "mobilenet_v1_dense"], "has no depthwise convolutions"),
        (["multipliers", "--resolutions", "100"], "nothing was published for images of 100"),
        (["relu-manifold", "--dimensions", "1"], "a spiral needs 2 dimensions"),
        (["asm", "pointwise_6x3", "--target", "avx2"], "no kernel 'pointwise_6x3'; near: pointwise_6x2"),
        (["asm", "mixed_depthwise"], "no kernel 'mixed_depthwise'; near: mixed_depthwise_conv2d/plain/njit"),
        (["asm", "--target", "z80"], "no target 'z80'; there are: host, sse2"),
        (["cost", "--out", "picture.txt"], "picture.txt: a picture's name must end in .png, .svg, .pdf"),
        (["cost", "--out", "no/such/folder.png"], "there is no folder no/such"),
    ],
)
def test_failures_are_one_line(arguments, message, tiny, tmp_path, capsys):
    pytest.importorskip("PIL")
    places = {"PHOTO": str(photo("rocket.jpg")), "TINY": tiny, "FOLDER": str(tmp_path)}
    arguments = [places.get(argument, argument) for argument in arguments]
    wanted = [] if "--out" in arguments else ["--no-picture"]
    assert main(["study", *arguments, *wanted]) == 1
    output = capsys.readouterr()
    assert message in output.err and output.err.startswith("npmobilenet: ") and output.err.count("\n") == 1
    assert output.out == ""


def test_photographs_are_the_projects_own_or_must_be_named(monkeypatch, tmp_path):
    found = study_command._photographs(None)
    assert {"coffee.png", "rocket.jpg"} <= {Path(name).name for name in found}
    monkeypatch.setattr(npmobilenet, "__file__", str(tmp_path / "site-packages/npmobilenet/__init__.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="name some of yours with --images"):
        study_command._photographs(None)


def test_an_unknown_topic_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["study", "nonsense"])
    assert stopped.value.code == 2 and "invalid choice: 'nonsense'" in capsys.readouterr().err


def test_options_are_the_parameters_of_the_study(tiny):
    """The command hands over what a topic's function asks for by name."""
    import argparse
    from inspect import signature

    for name, topic in TOPICS.items():
        parser = argparse.ArgumentParser()
        topic.add_options(parser)
        options = set(vars(parser.parse_args(topic_arguments(name, tiny))))
        assert options == set(signature(import_module(Topic.module(name)).study).parameters)


# style: Gatys, Ecker and Bethge, CVPR 2016, section 2 ------------------------------------------------------------


def test_gram_matrices_and_losses():
    """Sum by sum, as equations 1 to 4 have them."""
    random = np.random.default_rng(0)
    one, two = random.standard_normal((2, 3, 2, 4)).astype(np.float32)
    matrices = [[[float((maps[i] * maps[j]).sum()) for j in range(3)] for i in range(3)] for maps in (one, two)]
    assert np.allclose(style.gram(one), matrices[0], rtol=1e-5)
    squares = sum((matrices[0][i][j] - matrices[1][i][j]) ** 2 for i in range(3) for j in range(3))
    assert style.style_loss(one, two) == pytest.approx(squares / (4 * 3**2 * 8**2), rel=1e-5)
    assert style.content_loss(one, two) == pytest.approx(float(((one - two) ** 2).sum()) / 2, rel=1e-5)
    assert style.style_loss(one, one[:, :, ::-1]) == pytest.approx(0, abs=1e-10)  # wherever it stands
    assert style.distance(one, one) == style.distance(one[:0], one[:0]) == 0
    assert style.distance(one, -one) == pytest.approx(1)


def test_style_of_stages(tiny):
    picture, other = str(photo("rocket.jpg")), str(photo("chelsea.png"))
    found = style.study(picture, other, "max", tiny)
    assert [layer.name for layer in found.layers] == [f"stage {number}" for number in range(1, 8)]
    assert found.total == {} and found.layers[3].shape == (16, 3, 3)
    same = style.study(picture, picture, "max", tiny)
    assert all(layer.style_loss == layer.content_loss == layer.style == layer.content == 0 for layer in same.layers)
    assert all(0 < layer.mirrored_style < layer.mirrored_content < 1 for layer in found.layers[:4])
    back = style.study(other, picture, "max", tiny)
    assert [layer.style_loss for layer in back.layers] == pytest.approx([layer.style_loss for layer in found.layers])


@compiled_only
def test_style_as_vgg19_sees_it(tmp_path):
    """The paper's layers and losses; means in place of maxima."""
    names = naming("vgg19", "torchvision")
    graph = names.architecture.graph(0.25, 1)
    keys, about = names.keys(graph), {"preprocessing": replace(IMAGENET, resize=36, crop=(32, 32)).to_dict()}
    weights = {keys[name]: values for name, values in random_weights(graph).items()}
    path = npmobilenet.export_weights(weights, tmp_path / "vgg.npz", metadata=about)
    pictures = str(photo("rocket.jpg")), str(photo("chelsea.png"))
    found, means = (style.study(*pictures, pooling, str(path)) for pooling in ("max", "average"))
    assert [layer.name for layer in found.layers] == [
        *("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1"),
    ]
    losses = [layer.style_loss for layer in found.layers if layer.name != "relu4_2"]
    assert found.total == pytest.approx({"style loss": sum(losses) / 5, "content loss": found.layers[4].content_loss})
    assert means.layers[0] == found.layers[0] and means.layers[1].style_loss != found.layers[1].style_loss
    assert means.network == "vgg19, average pooling"


# Measuring -------------------------------------------------------------------------------------------------------


def test_noise_is_told():
    assert noise([]) is None
    assert noise([Timing.of([1.0, 1.0, 1.1])]) is None
    assert "took 50 % longer than the shortest" in noise([Timing.of([1.0, 1.5, 2.0])])
    assert "had the CPU for 25 % of the time" in noise([Timing.of([1.0, 1.0], running=1.5)])


def test_rounds_take_turns():
    calls = []
    timings = time_in_turns([lambda: calls.append("a"), lambda: calls.append("b")], 3)
    assert calls == ["a", "b", "a", "b", "b", "a", "a", "b"]  # the first of a round is another each time
    assert all(0 <= timing.best <= timing.typical for timing in timings)


# cost: 1704.04861, section 3.1 and Table 3 -----------------------------------------------------------------------


def test_cost_of_the_papers_layer():
    table = cost.table_3()
    assert table["macs"] == (462_422_016, 52_283_392)  # printed: 462 and 52.3 million
    assert table["weights"] == (2_359_296, 266_752)  # printed: 2.36 and 0.27 million
    assert table["macs"][1] / table["macs"][0] == pytest.approx(cost.separable_part(512, 3))
    assert cost.separable_part(512, 3) == 1 / 512 + 1 / 9


def test_cost_of_every_layer_is_the_formula(monkeypatch):
    monkeypatch.setattr(cost, "numba_is_on", lambda: False)
    found = cost.study(1.0, 224, 1)
    assert sum(layer.times for layer in found.layers) == 13
    for layer in found.layers:
        assert layer.macs_ratio == pytest.approx(1 / cost.separable_part(layer.c_out, 3))
        assert layer.c_out == 64 or 8 < layer.macs_ratio < 9  # "between 8 to 9 times"
    stem, classifier = 10_838_016, 1_024_000
    assert found.total(lambda layer: layer.macs) == (
        4_867_293_184 - stem - classifier,
        568_740_352 - stem - classifier,
    )


@compiled_only
def test_cost_is_measured_with_both_classes_of_kernels():
    found = cost.study(0.25, 32, 1)
    assert found.measured == list(cost.KERNELS) == ["plain", "vector"]
    assert all(time > 0 for layer in found.layers for pair in layer.seconds.values() for time in pair)


# relu-manifold: 1801.04381, Figure 1 and appendix A ---------------------------------------------------------------


def test_theorem_1():
    assert relu_manifold.kept_part(2, 2) == 1 / 4  # both of two signs
    assert relu_manifold.kept_part(2, 3) == 1 / 2
    assert relu_manifold.kept_part(1, 5) == 1 - 1 / 2**5
    for n, m in relu_manifold.THEOREM_CASES:  # at least n of m fair coins
        assert relu_manifold.kept_part(n, m) == pytest.approx(sum(comb(m, k) for k in range(n, m + 1)) / 2**m)


@pytest.mark.parametrize(("n", "m"), [(2, 3), (2, 5), (8, 16), (16, 32)])
def test_theorem_1_by_simulation(n, m):
    samples = 4000
    expected = relu_manifold.kept_part(n, m)
    found = relu_manifold.simulate_kept_part(n, m, samples, np.random.default_rng(1))
    assert abs(found - expected) < 4 * sqrt(expected * (1 - expected) / samples)


def test_the_spiral_comes_back_better_from_more_dimensions():
    found = relu_manifold.study((2, 5, 30), 10, 0)
    errors = [row.error for row in found.embeddings]
    assert errors == sorted(errors, reverse=True)
    assert [row.expected for row in found.embeddings] == pytest.approx([3 / 4, 6 / 32, 31 / 2**30])
    for row in found.embeddings:  # points of one spiral are no independent samples: a wide tolerance
        assert row.collapsed == pytest.approx(row.expected, abs=0.08)


def test_without_relu_the_spiral_comes_back():
    x = relu_manifold.spiral(50)
    matrix = np.random.default_rng(0).standard_normal((5, 2))
    np.testing.assert_allclose(np.linalg.pinv(matrix) @ (matrix @ x), x, atol=1e-12)


# linear-bottleneck: 1801.04381, section 3.2 ----------------------------------------------------------------------


def test_relu6_goes_behind_the_projection():
    graph = get_architecture("mobilenet_v2").graph(0.25, 10)
    changed = linear_bottleneck.with_relu6(graph, ["block3"])
    assert len(changed.nodes) == len(graph.nodes) + 1
    added = changed["block3.project.activation"]
    assert added.inputs == ("block3.project.norm",) and added["function"] == "relu6"
    assert changed["block3.add"].inputs == ("block3.project.activation", graph["block3.add"].inputs[1])
    assert linear_bottleneck.bottlenecks(graph) == [f"block{number}" for number in range(1, 18)]
    assert linear_bottleneck.bottlenecks(get_architecture("mobilenet_v1").graph()) == []


def test_relu6_behind_a_projection_clamps_its_output():
    graph = get_architecture("mobilenet_v2").graph(0.25, 10)
    weights, x = random_weights(graph), np.random.default_rng(0).standard_normal((1, 3, 32, 32))
    projected = Engine(graph, weights, "reference").run(x, output="block2")
    clamped = Engine(linear_bottleneck.with_relu6(graph, ["block2"]), weights, "reference").run(x, output="block2")
    np.testing.assert_allclose(clamped, np.clip(projected, 0, 6), atol=1e-5)


@compiled_only
def test_the_shipped_network_needs_its_linear_bottlenecks():
    pytest.importorskip("PIL")
    found = linear_bottleneck.study("mobilenet_v2", [str(photo("coffee.png"))], 1)
    assert len(found.active) == 35 and len(found.changes) == 18
    assert np.median([row.mean for row in found.active]) > linear_bottleneck.THRESHOLD
    assert all(0.3 < row.negative < 0.7 and 0.3 < row.lost < 0.7 for row in found.changes[:-1])
    assert found.changes[-1].blocks == "all" and found.changes[-1].agreement == 0
    with_shortcut = [row.logits for row in found.changes[:-1] if row.shortcut]
    without = [row.logits for row in found.changes[:-1] if not row.shortcut]
    assert len(with_shortcut) == 10 and np.mean(with_shortcut) < np.mean(without)


def test_ten_views_begin_with_the_centre():
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    wanted = replace(IMAGENET, resize=64, crop=(56, 56))
    ten = linear_bottleneck.views(image, wanted, 10)
    assert len(ten) == 10
    np.testing.assert_array_equal(ten[0], preprocess(image, wanted))
    np.testing.assert_array_equal(ten[1], ten[0][:, :, ::-1])


# memory: 1801.04381, section 5.1 and Table 3 ---------------------------------------------------------------------


def test_memory_table_is_the_papers(monkeypatch):
    monkeypatch.setattr(memory, "numba_is_on", lambda: False)
    found = memory.study("mobilenet_v2", 1.0, 224, 1, 1)
    table = found.numbers()["table_3"]
    by_network = {name: [row for row in table if row["network"] == name] for name in memory.PAPER}
    assert max(row["bytes"] for row in by_network["MobileNetV2"]) == 401_408
    assert max(row["bytes"] for row in by_network["MobileNetV1"]) == 1_605_632
    for row in table:
        misprint = row["network"] == "MobileNetV1" and row["size"] == 7
        assert misprint or row["paper_kilobytes"] == pytest.approx(row["bytes"] / 1e3, rel=0.05, abs=1)
    planned = {peak.name: peak.planned for peak in found.peaks}
    assert planned["op by op, formula"] == planned["plain kernels, layer by layer"] == 6_021_120
    assert planned["block as one, formula"] == 2_408_448


@compiled_only
def test_splitting_changes_memory_but_not_the_result():
    from npmobilenet.blocked.program import BlockedProgram

    graph = get_architecture("mobilenet_v2").graph(1.0, 10)  # whose 96 channels are three pairs of the widest vectors
    program = BlockedProgram(graph, random_weights(graph))
    image = np.random.default_rng(0).standard_normal((3, 64, 64), np.float32)
    expected = program.plan((64, 64)).run(image)
    scratch = []
    for parts in range(1, 7):
        plan = program.plan((64, 64), split=parts)
        np.testing.assert_array_equal(plan.run(image), expected)
        scratch.append(plan.scratch_bytes)
    assert scratch == sorted(scratch, reverse=True) and scratch[-1] <= scratch[0] / 3


@compiled_only
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_a_process_grows_as_planned():
    graph = get_architecture("mobilenet_v2").graph(1.0)
    planned = memory.Program(graph, random_weights(graph), "plain").plan((192, 192)).memory
    measured = peak.measure("mobilenet_v2", 1.0, 192, "plain")
    if measured is None:
        pytest.skip("this system does not let a process reset its peak")
    assert 0.8 * planned < measured < 1.5 * planned


# multipliers: the authors' 22 checkpoints ------------------------------------------------------------------------


def test_published_multiply_adds_are_ours(monkeypatch):
    monkeypatch.setattr(multipliers, "numba_is_on", lambda: False)
    found = multipliers.study(None, (224, 192, 160, 128, 96), 1)
    assert len(found.networks) == len(multipliers.PUBLISHED) == 22 and not found.measured
    for network in found.networks:
        assert network.macs // 1_000_000 == network.published.macs  # printed cut, not rounded
    parameters = {network.width: network.parameters for network in found.networks}
    assert parameters[1.0] == 3_504_872 and parameters[1.4] == 6_108_776 and parameters[0.35] == 1_677_128


# mixed: 1907.09595, section 3 ------------------------------------------------------------------------------------


def test_receptive_field():
    """Known from "Computing Receptive Fields of Convolutional Neural Networks" (Araujo et al. 2019): 315 and 491."""
    assert mixed.receptive_field(get_architecture("mobilenet_v1").graph()) == 315
    v2 = get_architecture("mobilenet_v2")
    assert mixed.receptive_field(v2.graph()) == 491
    plain, several = v2.with_mixed(9).graph(), v2.with_mixed((3, 5, 9)).graph()
    assert mixed.receptive_field(plain) == mixed.receptive_field(several) == 3 + 8 / 2 * (491 - 3)
    dilated = v2.with_mixed(9, ["block3"], dilated=True).graph()
    assert mixed.receptive_field(dilated) == mixed.receptive_field(v2.with_mixed(9, ["block3"]).graph())


def test_costs_of_kernel_sizes(monkeypatch):
    def refuse(*arguments):
        raise mixed.UnsupportedGraphError

    monkeypatch.setattr(mixed, "_measure", refuse)
    found = mixed.study("mobilenet_v2", 1.0, 224, (3, 5, 7, 9), 1)
    macs = {variant.kernels: variant.depthwise_macs for variant in found.variants}
    assert macs[(3,)] == 20_716_416 and macs[(9,)] == 9 * macs[(3,)]
    assert macs[(3, 5, 7, 9)] == (9 + 25 + 49 + 81) / 36 * macs[(3,)]  # all channels are multiples of 4
    assert [variant.name for variant in found.variants] == [
        *("3x3", "5x5", "7x7", "9x9", "3,5", "3,5,7", "3,5,7,9")
    ]  # fmt: skip


# features, occlusion ---------------------------------------------------------------------------------------------


def test_the_picture_is_what_the_network_sees():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    plain = replace(IMAGENET, resize=None, crop=(20, 20))
    np.testing.assert_array_equal(visible(preprocess(pixels, plain), plain), pixels)


def test_features_are_the_models(tiny):
    pytest.importorskip("PIL")
    from npmobilenet.bench.study import features

    found = features.study(str(photo("rocket.jpg")), "block4.depthwise", 3, tiny)
    model = npmobilenet.load(tiny, backend="reference")
    expected = model.features(model.preprocess(photo("rocket.jpg"))[None], "block4.depthwise")[0]
    np.testing.assert_allclose(found.maps, expected, atol=1e-3)
    assert found.strength[found.order[0]] == found.strength.max()


@compiled_only
def test_espresso_rests_on_the_coffee():
    pytest.importorskip("PIL")
    from npmobilenet.bench.study import occlusion

    found = occlusion.study(str(photo("coffee.png")), 64, 40, None, "mobilenet_v2")
    assert found.label == "espresso" and found.probability == pytest.approx(0.992, abs=2e-3)
    assert [(place.row, place.column) for place in found.places[:6]] == [
        *((0, 0), (0, 40), (0, 80), (0, 120), (0, 160), (40, 0))
    ]
    row, column = np.unravel_index(found.heat.argmax(), found.heat.shape)
    assert 30 < row < 130 and 50 < column < 170  # the coffee in the cup
    named = occlusion.study(str(photo("coffee.png")), 64, 160, "espresso", "mobilenet_v2")
    assert named.probability == found.probability


# Noise -----------------------------------------------------------------------------------------------------------


def test_layers_whose_waiting_is_unknown_do_not_hide_that_of_others():
    busy, unknown = Timing(1.0, 1.0, 0.4), Timing(1.0, 1.0)
    assert "40 % of the time" in noise([busy, *[unknown] * 20])
    assert noise([unknown] * 3) is None


# asm -------------------------------------------------------------------------------------------------------------

AXPY = """\
axpy:
	.cfi_startproc
	testq	%rdx, %rdx
	jle	.LBB0_3
	vbroadcastss	(%rcx), %ymm0
.LBB0_1:
	movq	%rdx, -8(%rsp)
.LBB0_2:
	vmovups	(%rdi,%rax), %ymm1
	vmovups	-40(%rsp), %ymm2
	vfmadd213ps	(%rsi,%rax), %ymm0, %ymm1
	vaddps	%ymm1, %ymm2, %ymm1
	vmovups	%ymm1, (%rsi,%rax)
	addq	$32, %rax
	cmpq	%rax, %rdx
	jne	.LBB0_2
	decq	%rcx
	jne	.LBB0_1
.LBB0_3:
	retq
"""


def test_the_inner_loop_is_found_and_counted():
    lines = machine_code.functions(AXPY)["axpy"]
    loop = machine_code.busiest_loop(lines)
    assert lines[loop.start] == ".LBB0_2:" and lines[loop.end] == "jne\t.LBB0_2"
    assert len(machine_code.loops(lines)) == 2 and machine_code.inner_loops(lines) == [loop]
    counts = machine_code.count(lines[loop.start : loop.end + 1])
    assert counts.kinds == {
        "multiply-add": 1,
        "broadcast": 0,
        "vector load": 2,
        "vector store": 1,
        "other vector": 1,
        "branch, compare": 2,
        "address, counter": 1,
    }
    assert (counts.instructions, counts.vector, counts.loads, counts.stack, counts.spills) == (8, 5, 3, 1, 1)
    assert machine_code.count(lines).stack == 2


@pytest.mark.parametrize(
    ("instruction", "kind"),
    [
        ("fmla\tv0.4s, v1.4s, v2.s[0]", "multiply-add"),
        ("vfmadd231ps\t(%rax), %zmm0, %zmm1", "multiply-add"),
        ("ld1r\t{ v0.4s }, [x1]", "broadcast"),
        ("vbroadcastss\t4(%rax), %ymm1", "broadcast"),
        ("ldp\tq0, q1, [x2]", "vector load"),
        ("movups\t(%rdi), %xmm0", "vector load"),
        ("vmovups\t%ymm1, -32(%rsp)", "vector store"),
        ("stp\tq0, q1, [sp, #16]", "vector store"),
        ("vmaxps\t%ymm0, %ymm1, %ymm2", "other vector"),
        ("b.lt\t.LBB0_1", "branch, compare"),
        ("cmpq\t%rax, %rdx", "branch, compare"),
        ("ldr\tx0, [x1]", "address, counter"),
        ("leaq\t(%rax,%rax,2), %rax", "address, counter"),
    ],
)
def test_kinds_of_instructions(instruction, kind):
    assert machine_code.kind_of(instruction) == kind


@compiled_only
@pytest.mark.parametrize(("target", "multiply_adds"), [("avx2", 96), ("avx512", 224)])
def test_the_pointwise_kernel_has_a_multiply_add_for_every_product(target, multiply_adds):
    """Of a tile of pixels x 2 vectors and 8 input channels; 6 pixels with 16 registers, 14 with 32."""
    from npmobilenet.bench.study import asm

    name = {"avx2": "pointwise_6x2", "avx512": "pointwise_14x2"}[target]
    (function,) = asm.study(name, target, False, False).functions
    assert function.loop_counts.kinds["multiply-add"] == multiply_adds and function.loop_counts.spills == 0


def test_single_values_are_no_vectors():
    counts = machine_code.count(
        ["vfmadd231ss\t(%rax), %xmm0, %xmm1", "fmadd\ts0, s1, s2, s0", "vbroadcastss\t(%rax), %ymm0"]
    )
    assert counts.kinds["multiply-add"] == counts.single == 2 and counts.vector == 1


@compiled_only
def test_ir_and_other_windows(capsys):
    assert main(["study", "asm", "depthwise_5x5_s2x2_row_7", "--target", "avx2", "--ir", "--no-picture"]) == 0
    output = capsys.readouterr().out
    assert "LLVM IR: the inner loop" in output and "llvm.fma" in output
    assert main(["study", "asm", "mixed", "--all", "--no-picture"]) == 0
    assert "no loop of its own" in capsys.readouterr().out


def test_the_loop_of_the_sums_is_marked():
    """Not what is left beside whole vectors, unrolled, nor an exponential; a loop ends with its last branch back."""
    sums = [".L1:", "vfmadd231ps\t(%rax), %ymm0, %ymm1", "jne\t.L2", "incq\t%rcx", "jne\t.L1"]
    single = [".L3:", *["vfmadd231ss\t(%rax), %xmm0, %xmm1"] * 2, "jne\t.L3"]
    swish = [".L4:", *["vfmadd213ps\t%ymm2, %ymm0, %ymm1"] * 9, "vdivps\t%ymm1, %ymm0, %ymm0", "jne\t.L4"]
    early = [".L5:", "incq\t%rax", "je\t.L5", "vfmadd231ps\t(%rax), %ymm0, %ymm1", "jne\t.L5"]
    lines = [*single, *swish, *sums]
    assert machine_code.busiest_loop(lines) == machine_code.Loop(len(lines) - len(sums), len(lines) - 1)
    assert machine_code.busiest_loop(lines[:-5]) == machine_code.Loop(0, len(single) - 1)
    assert machine_code.loops(early) == [machine_code.Loop(0, 4)]


def test_the_loop_of_optimised_ir_is_found():
    """Its labels and branches have remarks behind them, and a product is a multiplication."""
    lines = """\
define i32 @f(ptr %x) {
entry:
  br label %scalar
scalar:                                  ; preds = %entry, %scalar
  %a = fmul contract float %b, %c
  br i1 %d, label %vector.body, label %scalar, !llvm.loop !1
vector.body:                             ; preds = %scalar, %vector.body
  %e = fmul contract <8 x float> %f, %g
  br i1 %h, label %end, label %vector.body, !llvm.loop !2
end:                                     ; preds = %vector.body
  ret i32 0
}""".splitlines()
    assert machine_code.busiest_loop(lines) == machine_code.Loop(6, 8)


@compiled_only
def test_without_multiply_adds_products_are_counted(capsys):
    assert main(["study", "asm", "pointwise_6x2", "--target", "sse2", "--no-picture"]) == 0
    assert "without multiply-adds: 48 products of vectors" in capsys.readouterr().out


@compiled_only
@pytest.mark.parametrize(
    "kernel",
    [f"{operation}/plain/njit" for operation in ("depthwise_conv2d", "mixed_depthwise_conv2d", "linear", "conv2d")],
)
def test_the_marked_loop_of_a_plain_kernel_is_made_of_vectors(kernel):
    from npmobilenet.bench.study import asm

    (function,) = asm.study(kernel, "host", False, False).functions
    loop = function.loop_counts
    least = 0.2 if host().has_fma else 0.1  # where a product and its sum are two instructions, and loads are more
    assert loop.products >= 2 and loop.single == 0 and loop.products / loop.instructions > least


@compiled_only
@pytest.mark.parametrize("kernel", ["depthwise_conv2d/plain/njit", "pointwise_conv2d/ladder/njit_loops"])
def test_machine_code_of_plain_loops(kernel, capsys):
    assert main(["study", "asm", kernel, "--no-picture"]) == 0
    output = capsys.readouterr().out
    assert kernel in output and "machine code: the inner loop" in output
    assert main(["study", "asm", kernel, "--no-picture", "--ir"]) == 0
    assert "LLVM IR: the inner loop" in capsys.readouterr().out
    assert main(["study", "asm", kernel, "--no-picture", "--target", "neon"]) == 1
    assert "for this CPU only" in capsys.readouterr().err


@compiled_only
def test_every_plain_kernel_has_an_example():
    from npmobilenet.bench.study import plain_loops

    names = set(plain_loops.names())
    assert {"conv2d/plain/njit", "linear/plain/njit", "conv2d/ladder/njit_loops"} <= names
    assert {"mixed_depthwise_conv2d/plain/njit", "depthwise_conv2d/ladder/njit"} <= names
    assert not any(part in name for name in names for part in ("simd", "numpy", "python"))


def test_a_target_that_llvm_lacks_is_one_line(monkeypatch, capsys):
    def fail(self):
        raise RuntimeError("no such target")

    monkeypatch.setattr(Library, "assembly", fail)
    assert main(["study", "asm", "linear", "--target", "neon", "--no-picture"]) == 1
    assert capsys.readouterr().err == "npmobilenet: this LLVM cannot compile for neon: no such target\n"


# timeline --------------------------------------------------------------------------------------------------------


@compiled_only
@pytest.mark.parametrize(("network", "threads"), [("mobilenet_v2", 1), ("mobilenet_v3_small", 3)])
def test_a_timeline_has_every_layer_and_no_thread_is_at_two_places(network, threads):
    found = timeline.study(network, 0.35, 64, threads, 3)
    assert found.threads == threads and [row.start for row in found.rows] == sorted(row.start for row in found.rows)
    assert {piece.row for piece in found.pieces} == set(range(len(found.rows)))
    for thread in range(threads):
        mine = sorted((piece.start, piece.stop, piece.row) for piece in found.pieces if piece.thread == thread)
        assert [row for *_, row in mine] == sorted(row for *_, row in mine)
        assert all(before[1] <= after[0] for before, after in pairwise(mine))
    # Nobody begins before all are done.
    assert all(row.stop <= after.start + 1e-9 for row, after in pairwise(found.rows))
    assert 0 <= found.waiting < 1 and 0 < found.seconds < 10
    assert sum(sum(row.work) for row in found.rows) == pytest.approx((1 - found.waiting) * threads * found.seconds)


@compiled_only
def test_a_network_that_needs_plain_loops_has_no_timeline(slow_tanh):
    graph = with_slow_layers(get_architecture("mobilenet_v2").graph(0.25, 3))
    plan = BlockedProgram(graph, random_weights(graph), strict=False).plan((33, 33))
    with pytest.raises(ValueError, match="plain loops compute a part"):
        timeline._Trace(plan)


# tiles -----------------------------------------------------------------------------------------------------------


def test_a_tile_computes_a_matrix_product():
    target, pixels, blocks = host(), 3, 2
    library = Library("tested", target, lambda library: library.add("tile", tiles._tile(pixels, blocks)), None)
    data = aligned(tiles.PROBE_WORDS + tiles.INPUTS * (target.registers + blocks * target.lanes))
    data[:] = np.random.default_rng(0).standard_normal(data.size, np.float32)
    x, weights = np.split(data[tiles.PROBE_WORDS :], [tiles.INPUTS * target.registers])
    x = x[: tiles.INPUTS * pixels].reshape(-1, pixels, tiles.UNROLL)  # [INPUTS / UNROLL][pixels][UNROLL]
    expected = x.swapaxes(0, 1).reshape(pixels, -1) @ weights.reshape(tiles.INPUTS, -1)
    CFUNCTYPE(None, c_int64, c_void_p)(library.address("tile"))(2, data.ctypes.data)
    np.testing.assert_allclose(data[: expected.size].reshape(pixels, -1), expected, atol=1e-4)


# scale: docs/scale.md ---------------------------------------------------------------------------------------------


def test_a_million_images_are_divided_among_cores_storage_and_network(capsys):
    def found(**options):
        usual = {"number": 1e6, "cores": 10, "milliseconds": (1, 2, 6), "size": 10_000}
        usual |= {"storage": 100, "link": 1, "requests": 50, "model": ""}
        (kind,) = (result := scale.study(**usual | options)).numbers()["photographs"]
        assert "as given" in str(result.tables())
        return kind

    few = found()  # 0.9 of 10 cores, 9 ms each: 1000 a second
    assert few["bottleneck"] == "computing" and few["images_per_second"] == pytest.approx(1000)
    assert few["hours"] == pytest.approx(1e6 / 1000 / 3600) and few["core_hours"] == pytest.approx(10 * few["hours"])
    assert few["limits"]["storage"] == 10_000 and few["limits"]["network"] == 12_500
    assert few["limits"]["requests, a file each"] == 50 and few["terabytes"] == pytest.approx(0.01)
    many = found(cores=1000)
    assert (many["bottleneck"], many["images_per_second"]) == ("storage", 10_000) and many["processes"] > few[
        "processes"
    ]
    assert found(cores=1000, storage=1e5)["bottleneck"] == "network"
    assert found(cores=10_000, requests=1, storage=1e5, link=100)["bottleneck"] == "requests, 1000 in a shard"
    for arguments, problem in (
        (["--bytes", "100"], "describe a photograph together"),
        (["--bytes", "100", "--milliseconds", "1,2"], "takes three numbers"),
    ):
        assert main(["study", "scale", "--no-picture", *arguments]) == 1 and problem in capsys.readouterr().err


@pytest.mark.parametrize("text", ["7", "7x2,", "0x2", "7x2x1", "axb"])
def test_tiles_that_are_none(text, capsys):
    with pytest.raises(SystemExit):
        main(["study", "tiles", "--candidates", text])
    assert f"expected pixels x vectors, such as 7x2,14x2, got {text!r}" in capsys.readouterr().err


@compiled_only
def test_tiles_that_fit_the_registers_do_not_spill():
    with pytest.raises(ValueError, match="a tile of 40x4 has more sums than the"):
        tiles.study(1, 32, [(40, 4)])
    found = tiles.study(1, 32, [(4, 2)])
    assert {(each.kind, each.tile) for each in found.layers.found} >= {(kind, Tile(4, 2)) for kind in KINDS}
    assert {each.kind for each in found.layers.found if each.ours} == set(KINDS)
    assert str(found.tables()[2].rows).count("engine's") == 2
    assert len(found.sums) == found.registers - 2
    size = {(size.pixels, size.blocks): size for size in found.sizes}
    assert (size[6, 2].multiply_adds, size[6, 2].loads) == (12, 8)
    assert size[2, 2].spills == 0
    assert size[found.registers, 1].spills > 0
    assert f"{found.sums[2]:.1f}" in str(found.tables()[0].rows[1])
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    for region, lines in found.documents().items():
        assert markers.BEGIN.format(region) in pages
        assert f"{found.peak:.0f} GFLOP/s" in lines[-1] or lines[-1].startswith("Noisy: ")
