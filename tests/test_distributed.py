"""Photographs on engines: rows, CPUs, and each example on its real engine with a worker that dies."""

import multiprocessing
import os
import pickle
import runpy
import subprocess
import sys
from itertools import chain

import numpy as np
import pytest

import npmobilenet
from npmobilenet.distributed import Predictor, cpus, granted_cpus, map_batches
from npmobilenet.distributed.predictor import MODELS_KEPT
from npmobilenet.distributed.processes import WorkerDiedError
from npmobilenet.errors import ImageError
from npmobilenet.machine import available_cpus
from npmobilenet.pipelines import Detect, Segment
from npmobilenet.tasks.detection import Detection
from npmobilenet.tasks.segmentation import Segmentation
from tests.conftest import EXAMPLES, compiled_only, no_kernels, photo
from tests.mortal import Mortal

ROOT = EXAMPLES.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 small photographs."""
    image = pytest.importorskip("PIL.Image", reason="these tests read image files")
    folder = tmp_path_factory.mktemp("photographs")
    for at in range(24):
        name = ("coffee.png", "rocket.jpg", "chelsea.png", "astronaut.png")[at % 4]
        picture = image.open(photo(name)).convert("RGB").resize((96, 80)).crop((at // 4, 0, 64 + at // 4, 64))
        picture.save(folder / f"{at:03}.jpg")
    return folder


# Rows ------------------------------------------------------------------------------------------------------


@compiled_only
def test_arrays(pets, thumbnails):
    """Of every photograph a row, in order, and the numbers are those of the model alone."""
    model, names = npmobilenet.load(pets), sorted(map(str, thumbnails.iterdir()))
    alone = [model.classify(name, 2) for name in names]
    rows = Predictor(pets, top=2)({"path": [*names, "nowhere.png"], "id": np.arange(5)})
    assert list(rows) == ["path", "id", "rank", "label", "probability", "index", "error"]
    assert rows["id"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    found = list(zip(rows["label"], rows["probability"], rows["index"], strict=True))
    assert found[:-1] == [tuple(one) for one in chain.from_iterable(alone)]
    assert rows["rank"].tolist() == [1, 2] * 4 + [-1]
    assert rows["label"][-1] == "" and np.isnan(rows["probability"][-1])
    assert rows["error"][:-1].tolist() == [""] * 8
    assert rows["error"][-1] == "nowhere.png: cannot be opened: No such file or directory"


@compiled_only
def test_photographs_in_every_form(pets, thumbnails):
    """Arrays, bytes, what Hugging Face's data sets hold: large columns do not come back, names do."""
    path = thumbnails / "coffee.png"
    picture = npmobilenet.image.read_image(path)
    looks, content = Predictor(pets, "features"), path.read_bytes()
    expected = looks({"path": [str(path)]})["features"]
    for batch in (
        {"image": picture[None]},
        {"image": [picture], "path": ["a"]},
        {"bytes": [content], "path": ["a"]},
        {"content": np.array([content], object)},
        {"image": [{"bytes": content, "path": None}]},
        {"image": [{"bytes": None, "path": str(path)}]},
        {"image": [str(path)]},
    ):
        rows = looks(batch)
        assert rows["features"].dtype == np.float32 and np.array_equal(rows["features"], expected)
        kept = [name for name in batch if name == "path" or isinstance(batch[name][0], str)]
        assert list(rows) == [*kept, "features", "error"]
    rows = looks({"bytes": [b"no picture"], "shape": [(1, 2)]})
    assert rows["features"].shape == expected.shape and np.isnan(rows["features"]).all()
    assert rows["shape"].tolist() == [(1, 2)] and rows["error"][0].startswith("image bytes: not an image")
    assert looks({"path": []})["features"].shape == (0, expected.shape[1])


def test_detections_and_shares():
    assert Detect.rows([Detection("person", 0.9, (1.0, 2.0, 3.0, 4.0))]) == [("person", 0.9, 1.0, 2.0, 3.0, 4.0)]
    assert Segment.rows(Segmentation(np.eye(4, dtype=np.uint8), ("person",), np.ones((1, 1, 1)))) == [("person", 0.25)]


@compiled_only
def test_a_photograph_in_which_nothing_is_found_has_a_row_too():
    looks = Predictor("ssdlite_mobilenet_v2_person", "detect", threshold=0.99)
    rows = looks({"image": [np.zeros((32, 32, 3), np.uint8)], "number": [7]})
    assert rows["label"].tolist() == rows["error"].tolist() == [""] and rows["number"].tolist() == [7]
    assert all(np.isnan(rows[name]).all() for name in list(Detect.columns)[1:])


@compiled_only
def test_frames(pets, thumbnails):
    """Of pandas: the index stays, and an empty one says of which types the columns are."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    names = sorted(map(str, thumbnails.iterdir()))
    frame = pandas.DataFrame({"path": [*names, "nowhere"], "label": "mine"}, index=[5, 6, 7, 8, 9])
    looks = Predictor(pets, top=2, prefix="found_")
    rows, arrays = looks(frame), looks({"path": frame["path"]})
    assert rows.index.tolist() == [5, 5, 6, 6, 7, 7, 8, 8, 9] and set(rows["label"]) == {"mine"}
    assert rows["found_probability"].tolist()[:-1] == arrays["found_probability"].tolist()[:-1]
    assert (rows["found_error"] == "").tolist() == [True] * 8 + [False]
    nothing = looks.meta(frame)
    assert len(nothing) == 0 and nothing.dtypes.equals(rows.dtypes)
    assert [len(part) for part in looks.frames(iter([frame[:1], frame[1:]]))] == [2, 7]
    features = Predictor(pets, "features")(frame)
    assert np.isnan(features["features"][9]).all() and features["features"][5].dtype == np.float32
    assert {len(vector) for vector in features["features"]} == {1280}
    assert Predictor(pets, "features").schema("path string") == ("path string, `features` array<float>, `error` string")


@no_kernels
def test_what_cannot_be_done(pets, tmp_path):
    model = npmobilenet.load(pets)
    for wrong, message in (
        (lambda: Predictor(task="paint"), "task must be one of classify, features, detect, segment, got 'paint'"),
        (lambda: Predictor(3), "model must be a name, a path or a Model, got a int"),
        (lambda: Predictor(model, dtype="int8"), "the model is loaded already: dtype cannot be chosen any more"),
        (lambda: Predictor(top=0), "top must be an integer >= 1, got 0"),
        (lambda: Predictor(threads=0), "threads must be an integer >= 1, got 0"),
        (
            lambda: Predictor(pets)({"file": []}),
            r"a batch needs a column with photographs \(.*\), its columns are: file",
        ),
        (lambda: Predictor(pets)({"path": [], "label": []}), "has a column 'label' already: give a prefix"),
        (lambda: Predictor(pets)(["a.png"]), "a batch must be a dict of arrays or a pandas DataFrame, got a list"),
        (lambda: Predictor(pets, "detect")({"path": ["a"]}), "finds no boxes"),
        (lambda: Predictor(str(tmp_path / "none.npz"))({"path": ["a"]}), "none.npz"),
        (lambda: map_batches(len, [], processes=0), "processes must be an integer >= 1, got 0"),
        (lambda: map_batches(len, [], start="begin"), "start must be one of .*spawn.*, got 'begin'"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()


@compiled_only
def test_a_missing_package_is_no_matter_of_a_photograph(pets, monkeypatch):
    """Rows of errors would be a job that has done nothing, and says it is done."""

    def prepare(*_):
        raise npmobilenet.errors.MissingDependencyError("reading needs Pillow")

    monkeypatch.setattr(npmobilenet.pipelines.Pipeline, "prepare", prepare)
    with pytest.raises(npmobilenet.errors.MissingDependencyError):
        Predictor(pets)({"path": ["a.png"]})


@compiled_only
def test_pickled(pets, thumbnails, monkeypatch):
    """A name is small and loaded once in a process; a model goes with it, and is one again where it arrives."""
    loaded = []
    monkeypatch.setattr(npmobilenet.distributed.predictor, "load", lambda *a, **b: loaded.append(a) or load(*a, **b))
    load, batch = npmobilenet.load, {"path": [str(thumbnails / "coffee.png")]}
    looks = Predictor(pets, width=0.25)
    content = pickle.dumps(looks)
    assert len(content) < 500 + len(pets)
    rows = [pickle.loads(content)(batch)["probability"] for _ in range(3)]
    assert len(loaded) == 1 and rows[0] == rows[1] == rows[2]
    assert Predictor(npmobilenet.load(pets))(batch)["probability"] == rows[0]
    content = pickle.dumps(Predictor(npmobilenet.load(pets)))
    assert [pickle.loads(content)(batch)["probability"] for _ in range(2)] == rows[:2] and len(loaded) == 1
    os.utime(pets, (1, 1))  # another file of the same name
    looks(batch)
    assert len(loaded) == 2
    for bn_eps in range(1, 6):  # a process that sees many models does not keep them all
        Predictor(pets, bn_eps=bn_eps / 1000)(batch)
    assert _models_loaded() == MODELS_KEPT


# CPUs ------------------------------------------------------------------------------------------------------


def _granted(_=None):
    return granted_cpus()


def test_cpus(monkeypatch):
    """This process has all; its children have what they are told, and one if they are told nothing."""
    assert granted_cpus() == available_cpus()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        assert pool.apply(_granted) == 1
    assert list(map_batches(_granted, [0], processes=1, start="fork")) == [available_cpus()]
    assert list(map_batches(_granted, [0], processes=available_cpus(), start="fork")) == [1]
    monkeypatch.setattr(cpus, "_granted", 1000)
    assert granted_cpus() == available_cpus()


# Processes -------------------------------------------------------------------------------------------------


def _fails(batch):
    if batch == 3:
        raise ImageError("no picture")
    return -batch


def _dies(_):
    os._exit(9)


@no_kernels
def test_batches_in_processes():
    """In order, read when they are needed; what a batch raises comes in its turn."""
    read = []
    results = map_batches(_fails, (read.append(at) or at for at in range(50)), processes=2, start="fork")
    assert [next(results) for _ in range(3)] == [0, -1, -2] and len(read) < 10
    with pytest.raises(ImageError, match="no picture"):
        next(results)
    assert list(map_batches(_fails, [], processes=2)) == []
    with pytest.raises(WorkerDiedError, match=r"processes died 3 times in a row .* memory for 2 processes\?"):
        list(map_batches(_dies, [1, 2], processes=2, start="fork", retries=2))


# Engines ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected(folder):
    """The rows of one process, by name."""
    rows = Predictor("mobilenet_v2")({"path": sorted(map(str, folder.iterdir()))})
    return _by_name(rows["path"], rows["label"], rows["probability"])


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Workers find `tests`, and this Python."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)


def _by_name(names, *columns):
    return sorted((str(name).rpartition("/")[2], *row) for name, *row in zip(names, *columns, strict=True))


def check(frame, expected, grave, threads=1):
    """One has died, and nothing is missing, twice or different; no process had more threads than it should have."""
    dead = int(grave.read_text())
    assert _by_name(frame["path"], frame["label"], frame["probability"]) == expected
    assert len({dead, *frame["process"]}) >= 2 and os.getpid() not in {dead, *frame["process"]}
    assert set(frame["looking"]) == {threads} and max(frame["helping"]) < threads


def classify_of(name):
    return runpy.run_path(str(EXAMPLES / name))["classify"]


@compiled_only
@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_processes(folder, expected, tmp_path, start):
    grave = tmp_path / "grave"
    batches = [{"path": [str(folder / f"{at:03}.jpg") for at in range(first, first + 3)]} for first in range(0, 24, 3)]
    results = list(map_batches(Mortal(grave=grave), batches, processes=2, start=start))
    assert [result["path"].tolist() for result in results] == [batch["path"] for batch in batches]
    check(
        {name: np.concatenate([one[name] for one in results]) for name in results[0]},
        expected,
        grave,
        max(1, available_cpus() // 2),
    )


@compiled_only
def test_example_in_processes(folder, expected, tmp_path):
    """As a script, from the beginning to the file."""
    out = tmp_path / "out.csv"
    subprocess.run([sys.executable, EXAMPLES / "in_processes.py", folder, out], check=True)
    header, *lines = out.read_text().splitlines()
    rows = [line.split(",") for line in lines]
    assert header == "path,label,probability,error"
    assert _by_name(*zip(*((row[0], row[1], float(row[2])) for row in rows), strict=True)) == expected


@compiled_only
def test_joblib(folder, expected, tmp_path):
    pytest.importorskip("joblib", reason="joblib is not installed")
    pytest.importorskip("pandas", reason="pandas is not installed")
    grave = tmp_path / "grave"
    rows = classify_of("on_joblib.py")(folder, batch=3, looks=Mortal(grave=grave))
    check(rows, expected, grave, max(1, available_cpus() // 2))
    assert rows["path"].tolist() == sorted(map(str, folder.iterdir()))


@compiled_only
def test_dask(folder, expected, tmp_path):
    distributed = pytest.importorskip("distributed", reason="dask[distributed] is not installed")
    pytest.importorskip("dask.dataframe", reason="dask[dataframe] is not installed")
    classify, grave = classify_of("on_dask.py"), tmp_path / "grave"
    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        rows = classify(client, folder, batch=3, predictor=Mortal, grave=grave).compute()
        check(rows, expected, grave)
        assert set(client.run(_models_loaded).values()) == {1}
        rows = classify(client, folder, predictor=_Features)
        rows.to_parquet(tmp_path / "features", write_index=False)
        pandas, names = pytest.importorskip("pandas"), sorted(map(str, folder.iterdir()))
        features = Predictor("mobilenet_v2", "features")({"path": names})["features"]
        assert np.array_equal(np.stack(pandas.read_parquet(tmp_path / "features")["features"]), features)
    with distributed.Client(n_workers=1, threads_per_worker=2, dashboard_address=None) as client:
        rows = classify(client, folder, batch=3, predictor=Mortal, grave=grave).compute()
        assert _by_name(rows["path"], rows["label"], rows["probability"]) == expected
        assert set(rows["looking"]) == {min(2, available_cpus())} and max(rows["helping"]) < 2


class _Features(Predictor):
    def __init__(self, model):
        super().__init__(model, "features")


def _models_loaded():
    return len(npmobilenet.distributed.predictor._process._models)


@compiled_only
def test_ray(folder, expected, tmp_path):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    pytest.importorskip("ray.data", reason="ray[data] is not installed")
    grave = tmp_path / "grave"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        check(
            classify_of("on_ray.py")(str(folder), batch=3, predictor=Mortal, grave=grave).to_pandas(), expected, grave
        )
        for asked in (2, 1, 0.5, 0):
            granted = ray.get(ray.remote(num_cpus=asked)(_granted).remote())
            assert granted == min(max(1, int(asked)), available_cpus())
        assert granted_cpus() == available_cpus()  # the program that asks is no worker
    finally:
        ray.shutdown()


@compiled_only
def test_spark(folder, expected, tmp_path):
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed")
    pytest.importorskip("pandas", reason="pandas is not installed")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    model, grave = tmp_path / "model.npz", tmp_path / "grave"
    npmobilenet.export_weights(npmobilenet.load("mobilenet_v2"), model)
    for task_cpus in (1, 2):
        builder = sql.SparkSession.builder.master("local[2,4]").config("spark.ui.enabled", "false")
        try:
            spark = builder.config("spark.task.cpus", task_cpus).getOrCreate()
        except Exception as error:
            pytest.skip(f"Spark does not start, has it a Java? {error}"[:200])
        try:
            rows = classify_of("on_spark.py")(spark, str(folder), str(model), Mortal, grave=str(grave)).collect()
        finally:
            spark.stop()
        frame = {name: [row[name] for row in rows] for name in rows[0].asDict()}
        if task_cpus == 1:
            check(frame, expected, grave)
        else:
            assert _by_name(frame["path"], frame["label"], frame["probability"]) == expected
            assert set(frame["looking"]) == {min(2, available_cpus())} and max(frame["helping"]) < 2
