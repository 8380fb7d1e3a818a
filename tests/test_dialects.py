"""Checkpoints under their publishers' names against the publishers' networks, computed without npmobilenet."""

import warnings
from functools import partial

import numpy as np
import pytest

import npmobilenet
from npmobilenet.checkpoints.dialects import DIALECTS
from npmobilenet.checkpoints.fit import fit, namings
from tests import publishers as of
from tests.conftest import compiled_only, no_kernels
from tests.publishers import LARGE, SMALL, Net, relu, relu6

pytestmark = no_kernels

TOLERANCE = 1e-5  # of the largest logit; padding, activations and strides change it by per cent
TENSORFLOW = {"same": True, "eps": 1e-3}
V3_EPS = {"eps": 1e-3}


def rounded(width, rounding):
    return lambda channels: rounding(channels * width)


# Name of the dialect: what builds the network, how it computes, the width to be found.
NETWORKS = {
    "torchvision": (partial(of.torchvision_v2, width=0.35), {}, 0.35),
    "torchvision, v3 large 0.75": (partial(of.torchvision_v3, table=LARGE, hidden=1280, width=0.75), V3_EPS, 0.75),
    "torchvision, v3 small 0.5": (partial(of.torchvision_v3, table=SMALL, hidden=1024, width=0.5), V3_EPS, 0.5),
    "torchvision, v3 small 1.3": (partial(of.torchvision_v3, table=SMALL, hidden=1024, width=1.3), V3_EPS, 1.3),
    "tonylins": (partial(of.flat_v2, channels=rounded(0.35, of.up), stem_channels=32, first=16), {}, 0.35),
    "tonylins, 1.4": (
        partial(of.flat_v2, channels=rounded(1.4, of.up), stem_channels=32, first=16, last=1792),
        {},
        1.4,
    ),
    "tonylins, first version": (
        partial(of.flat_v2, channels=rounded(0.5, int), expand_first=True, classifier="classifier.1"),
        {},
        0.5,
    ),
    "qfgaohao": (partial(of.flat_v2, channels=rounded(0.35, int), classifier="classifier.1"), {}, 0.35),
    "flat": (partial(of.flat_v2, channels=rounded(1, int), classifier="classifier.1", classes=3), {}, 1),
    "d-li14": (partial(of.flat_v2, channels=rounded(0.25, of.nearest), head="conv"), {}, 0.25),
    "d-li14, 0.1": (partial(of.flat_v2, channels=lambda c: of.nearest(0.1 * c, 4), head="conv"), {}, 0.1),
    "d-li14, v3 large": (partial(of.d_li14_v3, table=LARGE, hidden=1280), {}, 1),
    "d-li14, v3 small": (partial(of.d_li14_v3, table=SMALL, hidden=1024), {}, 1),
    "d-li14, v3 small 0.75": (partial(of.d_li14_v3, table=SMALL, hidden=1024, width=0.75), {}, 0.75),
    "d-li14, v3 small 0.35": (partial(of.d_li14_v3, table=SMALL, hidden=1024, width=0.35), {}, 0.35),
    "d-li14, v3 large, older classifier": (
        partial(of.d_li14_v3, table=LARGE, hidden=1280, linears=("classifier.1", "classifier.5")),
        {},
        1,
    ),
    "d-li14, first version, large": (partial(of.d_li14_v3_first, table=of.FIRST_LARGE), {}, 1),
    "d-li14, first version, small": (partial(of.d_li14_v3_first, table=of.FIRST_SMALL), {}, 1),
    "kuan-wang, large": (partial(of.kuan_wang_v3, table=LARGE), {}, 1),
    "kuan-wang, small 0.75": (partial(of.kuan_wang_v3, table=SMALL, width=0.75), {}, 0.75),
    "kuan-wang, first version": (of.kuan_wang_v3_first, {}, 1),
    "marvis": (of.marvis_v1, {"act": relu}, 1),
    "marvis, stripped": (partial(of.marvis_v1, root=""), {"act": relu}, 1),
    "mmpretrain": (partial(of.mmpretrain_v2, width=0.5), {}, 0.5),
    "pytorchcv": (partial(of.pytorchcv_v2, width=0.25), {}, 0.25),
    "pytorchcv, v2b": (partial(of.pytorchcv_v2, width=0.5, expand_first=False), {}, 0.5),
    "pytorchcv, v1": (partial(of.pytorchcv_v1, width=0.25), {"act": relu}, 0.25),
    "transformers": (partial(of.transformers_v2, width=0.35), TENSORFLOW, 0.35),
    "transformers, bare": (partial(of.transformers_v2, width=1.4, root=""), TENSORFLOW, 1.4),
    "transformers, v1": (partial(of.transformers_v1, width=0.25), TENSORFLOW, 0.25),
    "ruotianluo": (partial(of.ruotianluo_v2, width=0.35), TENSORFLOW, 0.35),
    "ruotianluo, v1": (partial(of.ruotianluo_v1, width=0.25), TENSORFLOW, 0.25),
    "ruotianluo, first version": (partial(of.ruotianluo_v2_first, width=0.35), TENSORFLOW, 0.35),
    "ruotianluo, first version, v1": (partial(of.ruotianluo_v1, width=0.5, first=True), TENSORFLOW, 0.5),
    "kuangliu": (of.kuangliu_v2, {"act": relu}, 1),
    "seominseok": (partial(of.kuangliu_v2, every=True), {}, 1),
    "weiaicunzai": (of.weiaicunzai_v2, {"bias": True}, 1),
}


def computed(network, seed, size=(33, 40), **how):
    """Return the tensors, an input, and the logits."""
    x = np.random.default_rng(len(seed)).standard_normal((3, *size)).astype(np.float32)
    net = Net(x, seed, **how)
    network(net)
    return net.tensors, x[None], net.x


def written(tensors, path):
    return npmobilenet.export_weights(tensors, path)


def close(actual, expected):
    return np.abs(actual - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_the_publishers(name, tmp_path):
    network, how, width = NETWORKS[name]
    tensors, x, expected = computed(network, name, **how)
    path = written(tensors, tmp_path / "weights.safetensors")
    model = npmobilenet.load(path, backend="reference")
    assert any(
        dialect.name == model.provenance["dialect"][0]
        and name.startswith(dialect.name)
        and model.architecture in dialect.architectures
        for dialect in DIALECTS
    )
    assert (model.width, len(model.classes)) == (width, len(expected))
    assert close(model(x)[0], expected)


@compiled_only
@pytest.mark.parametrize(
    "name", ["tonylins, first version", "d-li14, 0.1", "d-li14, v3 small", "kuan-wang, small 0.75", "kuangliu"]
)
@pytest.mark.parametrize("backend", ["auto", "plain"])
def test_compiled_kernels_compute_the_variants(name, backend, tmp_path):
    network, how, _ = NETWORKS[name]
    tensors, x, expected = computed(network, name, **how)
    model = npmobilenet.load(written(tensors, tmp_path / "w.npz"), backend=backend)
    assert close(model(x)[0], expected)


@pytest.mark.parametrize("naming", list(namings()), ids=lambda each: f"{each.name}, {each.dialect.name}")
def test_every_layer_has_a_name_of_its_own(naming):
    graph = naming.architecture.graph(0.5, 10)
    keys = naming.keys(graph)
    assert set(keys) == set(graph.tensors)
    assert len(set(keys.values())) == len(keys)
    assert keys[next(iter(graph.tensors))] == f"{naming.stem}.weight"


def test_the_first_of_those_that_fit_alike_is_taken():
    """Names and shapes of width 1 are those of several dialects, which then must mean the same network."""
    tensors, *_ = computed(NETWORKS["flat"][0], "flat", (32, 32))
    tensors = {key: value for key, value in tensors.items() if value.ndim}
    assert fit(tensors).source == "flat"
    tensors["classifier.weight"], tensors["classifier.bias"] = (
        tensors.pop(f"classifier.1.{name}") for name in ("weight", "bias")
    )
    assert fit(tensors).source == "tonylins"


@pytest.mark.parametrize("activation", [relu6, relu])
@pytest.mark.parametrize("name", ["torchvision", "mmpretrain", "marvis"])
def test_folded_batch_norms(name, activation, tmp_path):
    network, how, width = NETWORKS[name]
    usual = how.get("act", relu6)
    tensors, x, expected = computed(network, name, folded=True, act=activation)
    assert not any("running" in key for key in tensors)
    path = written(tensors, tmp_path / "w.npz")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = npmobilenet.load(path, backend="reference")
    assert close(model(x)[0], expected) == (activation is usual)
    assert model.provenance["batch norms"] == ("folded", "file") and model.width == width
    assert [("folded" in str(note.message)) for note in said] == ([True] if usual is relu6 else [])
    model = npmobilenet.load(path, backend="reference", activation=activation.__name__)
    assert close(model(x)[0], expected)
    assert model.provenance["activation"] == (activation.__name__, "option")
