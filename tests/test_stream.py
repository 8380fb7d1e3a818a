"""Collections of photographs: streams in Python, tables on the command line, and what ends a run before its end."""

import csv
import json
import os
import random as random_module
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import npmobilenet
from npmobilenet.cli import main
from npmobilenet.errors import MissingDependencyError
from npmobilenet.pipelines import Classify, Detect, Features
from npmobilenet.streaming import Collection, Entry, collecting, stream
from npmobilenet.streaming.tables import table_for
from tests.conftest import no_kernels

pytest.importorskip("PIL", reason="these tests read image files")
pytestmark = no_kernels
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
NAMES = ("a.png", "b, c.png", "=1+1.png", "deep/é.png", "deep/two\nlines.png", "z.png")


@pytest.fixture
def photos(tmp_path, thumbnails):
    """A folder of photographs whose names are awkward, and of a file that is none."""
    folder = tmp_path / "photos"
    for index, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(thumbnails / ("coffee.png", "rocket.png", "chelsea.png")[index % 3], folder / name)
    (folder / "broken.png").write_bytes(b"nothing")
    return folder


@pytest.fixture
def model(pets):
    return npmobilenet.load(pets, backend="reference", threads=2)


@pytest.fixture
def run(pets, capsys):
    """Run a command with the small network; return the exit code, what was printed and the errors."""

    def run(command, *arguments):
        code = main([command, *map(str, arguments), "--model", pets, "--backend", "reference"])
        return code, *capsys.readouterr()

    return run


def good_names(folder):
    return [str(folder / name) for name in sorted(NAMES)]


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    return header, rows


# --- In Python ---------------------------------------------------------------------------------------------


def test_batches_have_the_bits_of_single_images(photos, model):
    batches = list(stream(photos, model, batch_size=3))
    assert [len(batch.names) + len(batch.errors) for batch in batches] == [3, 3, 1]
    assert [name for batch in batches for name in batch.names] == good_names(photos)
    for batch in batches:
        expected = np.concatenate([model(model.preprocess(name)[None]) for name in batch.names])
        np.testing.assert_array_equal(batch.outputs, expected)
    ((name, error),) = [error for batch in batches for error in batch.errors]
    assert name == str(photos / "broken.png") and "not an image" in str(error)


def test_tasks(photos, model):
    names = good_names(photos)
    (batch,) = stream(names, model, task="classify", top=1)
    assert batch.outputs == model.classify(names, top=1)
    (batch,) = stream(names, model, task="features", block="block3", workers=1)
    np.testing.assert_array_equal(batch.outputs[2], model.features(model.preprocess(names[2])[None], "block3")[0])
    (batch,) = stream([photos / "broken.png"], model)
    assert batch.names == [] and batch.outputs.shape == (0, 2) and len(batch.errors) == 1
    assert list(stream([], model)) == []
    (batch,) = npmobilenet.stream([Entry("x", lambda: np.zeros((9, 9, 3), np.uint8))], model)
    assert batch.names == ["x"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer >= 1"),
        ({"workers": 0}, "workers must be an integer >= 1"),
        ({"part": (3, 2)}, r"part must be \(which, of how many\)"),
        ({"part": "12"}, r"part must be \(which, of how many\)"),
        ({"task": "paint"}, "task must be one of outputs, classify, features, detect, segment, got 'paint'"),
        ({"task": "features", "top": 3}, "has no option 'top'; it has: block"),
        ({"task": "features", "block": "neck"}, "no block 'neck'"),
        ({"task": "classify", "top": 0}, "top must be an integer >= 1"),
        ({"task": "detect"}, "finds no boxes"),
    ],
)
def test_options_are_checked_before_anything_is_read(options, message, model):
    with pytest.raises(ValueError, match=message):
        stream("nowhere", model, **options)


def test_a_stream_that_nobody_reads_on_ends_its_threads(photos, model):
    import threading

    before = threading.active_count()
    found = stream([photos] * 50, model, batch_size=1)
    next(found)
    found.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_memory_does_not_grow_with_the_number_of_images(photos, model, monkeypatch):
    picture = np.zeros((64, 64, 3), np.uint8)
    peaks = []
    for count in (300, 3000):
        entries = (Entry(f"{index:050}", lambda: picture) for index in range(count))
        monkeypatch.setattr("npmobilenet.streaming.batches.Sources", lambda given, part: given)
        monkeypatch.setattr(type(model), "__call__", lambda self, x, threads: np.zeros((len(x), 2), np.float32))
        monkeypatch.setattr(type(model), "preprocess", lambda self, x: np.zeros((3, 32, 32), np.float32))
        tracemalloc.start()
        assert sum(len(batch.names) for batch in stream(entries, model)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (1 << 20)


# --- Tables ------------------------------------------------------------------------------------------------


def test_classes_in_every_kind_of_file(photos, run, model, tmp_path):
    names = good_names(photos)
    expected = [
        [name, rank, *prediction]
        for name, found in zip(names, model.classify(names), strict=True)
        for rank, prediction in enumerate(found, 1)
    ]
    columns = ["image", "rank", "label", "probability", "index"]
    for suffix in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"o.{suffix}"
        if suffix == "parquet":
            pytest.importorskip("pyarrow", reason="the extra parquet")
        code, printed, errors = run("classify", photos, "--out", out)
        assert (code, printed) == (1, f"written: {out}: 6 images\n")
        assert f"{photos / 'broken.png'}: not an image" in errors and "1 of 7 images failed" in errors
        assert rows_of(tmp_path / f"o.{suffix}.errors.csv")[1] == [
            [str(photos / "broken.png"), "not an image in a format that Pillow can read"]
        ]
        assert not (tmp_path / f"o.{suffix}.parts").exists()
    header, rows = rows_of(tmp_path / "o.csv")
    assert header == columns and [[r[0], int(r[1]), r[2], float(r[3]), int(r[4])] for r in rows] == expected
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [columns] * len(expected)
    assert [list(line.values()) for line in lines] == expected
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(tmp_path / "o.parquet")
    assert table.column_names == columns
    assert [list(row.values()) for row in table.to_pylist()] == expected


def test_features_in_tables(photos, run, model, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra parquet")
    names = good_names(photos)
    expected = np.concatenate([model.features(model.preprocess(name)[None]) for name in names])
    for suffix in ("csv", "jsonl", "parquet", "npz"):
        assert run("features", *names, "--out", tmp_path / f"f.{suffix}")[0] == 0
    header, rows = rows_of(tmp_path / "f.csv")
    assert header[:2] == ["image", "feature0"] and [row[0] for row in rows] == names
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], np.float32), expected)
    lines = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [["image", "features"]] * len(names)
    np.testing.assert_array_equal(np.array([line["features"] for line in lines], np.float32), expected)
    table = pq.read_table(tmp_path / "f.parquet")
    assert table.column_names == ["image", "features"] and table["image"].to_pylist() == names
    np.testing.assert_array_equal(np.array(table["features"].to_pylist(), np.float32), expected)
    with np.load(tmp_path / "f.npz") as file:
        assert file["names"].tolist() == names
        np.testing.assert_array_equal(file["features"], expected)


def test_detections(photos, tmp_path, monkeypatch):
    class Found:
        """What a task asks of a model."""

        backend, threads = "reference", 1
        preprocessing = npmobilenet.Preprocessing(None, (32, 32), None, (0.5,) * 3, (0.5,) * 3)
        stored = staticmethod(lambda: ({}, {}))

        def require_detector(self):
            pass

        def preprocess(self, picture):
            return np.zeros((3, 32, 32), np.float32)

        def detections(self, x, sizes, threshold, threads):
            boxes = [npmobilenet.Detection("cat", 0.75, (1.0, 2.0, size[1] / 3, size[0] / 7)) for size in sizes]
            return [[box, box] if threshold < 0.75 else [] for box in boxes]

    for threshold, count in ((0.5, 2), (0.9, 0)):
        with Collection([photos / "a.png"], Detect(Found(), threshold=threshold), tmp_path / "d.csv") as table:
            assert list(table) == [(str(photos / "a.png"), None)]
        assert rows_of(tmp_path / "d.csv") == (
            ["image", "label", "score", "x0", "y0", "x1", "y1"],
            [[str(photos / "a.png"), "cat", "0.75", "1.0", "2.0", "16.0", str(40 / 7)]] * count,
        )


def test_what_cannot_be_written_is_said_first(photos, run, tmp_path, monkeypatch):
    (tmp_path / "folder.csv").mkdir()
    for arguments, message in (
        (["--out", tmp_path / "o.txt"], "o.txt: classes are written as .csv, .parquet, .jsonl"),
        (["--out", tmp_path / "o.npz"], "o.npz: classes are written as .csv, .parquet, .jsonl"),
        (["--out", tmp_path / "no/o.csv"], "cannot be written: No such file or directory"),
        (["--out", tmp_path / "folder.csv"], "is a folder; name a file in it"),
    ):
        code, printed, errors = run("classify", photos, *arguments)
        assert (code, printed) == (1, "") and message in errors and errors.count("\n") == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder.csv", "pets.npz", "photos"]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, errors = run("classify", photos, "--out", tmp_path / "o.parquet")
    assert code == 1 and 'pip install "npmobilenet[parquet]"' in errors
    with pytest.raises(MissingDependencyError):
        table_for(Path("o.parquet"), Classify)


def test_files_of_another_kind_stay_as_they_are(photos, model, tmp_path):
    for name in ("notes.txt", "000001.part"):
        (tmp_path / "o.csv.parts").mkdir()
        (tmp_path / "o.csv.parts" / "diary.txt").write_text("mine")
        with pytest.raises(ValueError, match="is in the way"):
            Collection(photos, Classify(model), tmp_path / "o.csv")
        assert (tmp_path / "o.csv.parts" / "diary.txt").read_text() == "mine"
        shutil.rmtree(tmp_path / "o.csv.parts")
        del name
    (tmp_path / "real").mkdir()
    (tmp_path / "link.csv").symlink_to("real/o.csv")
    with Collection([photos / "a.png"], Classify(model), tmp_path / "link.csv") as table:
        list(table)
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "real/o.csv").is_file()
    assert [file.name for file in (tmp_path / "real").iterdir()] == ["o.csv"]


def test_parts_of_the_images_are_all_of_them(photos, run, model, tmp_path):
    names = []
    for which in (1, 2, 3):
        run("classify", photos, "--out", tmp_path / f"{which}.csv", "--part", f"{which}/3", "--top", "1")
        names += [row[0] for row in rows_of(tmp_path / f"{which}.csv")[1]]
        (batch,) = stream(photos, model, part=(which, 3))
        assert batch.names == names[-len(batch.names) :]
    assert sorted(names) == good_names(photos)
    with pytest.raises(SystemExit):
        run("classify", photos, "--out", tmp_path / "o.csv", "--part", "4/3")


def test_errors_of_an_earlier_run_go(photos, run, tmp_path):
    out = tmp_path / "o.csv"
    assert run("classify", photos, "--out", out)[0] == 1
    assert (tmp_path / "o.csv.errors.csv").exists()
    assert run("classify", photos / "a.png", "--out", out)[0] == 0
    assert not (tmp_path / "o.csv.errors.csv").exists() and len(rows_of(out)[1]) == 2


# --- Ends before the end -----------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def test_whatever_step_is_the_last_one(photos, model, tmp_path, monkeypatch):
    """Every rename, sync and deletion in turn is where the process ends; nothing after it is done."""
    task = Features(model)
    with Collection(photos, task, tmp_path / "whole.csv") as table:
        whole = list(table)
    expected = (tmp_path / "whole.csv").read_bytes(), (tmp_path / "whole.csv.errors.csv").read_bytes()
    monkeypatch.setattr(collecting, "PART_SECONDS", 0)
    out = tmp_path / "o.csv"
    steps, last = 0, 0

    def counted(function):
        def call(*arguments, **options):
            nonlocal steps
            steps += 1
            if last and steps > last:
                raise Killed
            return function(*arguments, **options)

        return call

    for name in ("replace", "fsync"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    for name in ("unlink", "rmdir", "mkdir"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    killed = 0
    while True:
        killed, steps, last = killed + 1, 0, killed + 1
        try:
            with Collection(photos, task, out) as table:
                list(table)
            break
        except Killed:
            pass
        steps, last = 0, 0
        with Collection(photos, task, out) as table:
            before = table.progress.images
            assert [name for name, _ in table] == [name for name, _ in whole[before:]]
        assert (out.read_bytes(), Path(f"{out}.errors.csv").read_bytes()) == expected
        assert not Path(f"{out}.parts").exists()
        if killed % 3 == 0:
            out.unlink()
    assert killed > 20


def test_an_interrupt_between_any_two_instructions(photos, model, tmp_path, monkeypatch):
    """Of what keeps the rows; what is done afterwards, where the context ends, is done."""
    from npmobilenet.streaming import parts

    task, out = Classify(model), tmp_path / "o.csv"
    with Collection(photos, task, tmp_path / "whole.csv") as table:
        list(table)
    expected = (tmp_path / "whole.csv").read_bytes(), (tmp_path / "whole.csv.errors.csv").read_bytes()
    monkeypatch.setattr(collecting, "PART_SECONDS", 0)
    traced = {collecting.__file__, parts.__file__}
    left = 0

    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename not in traced:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    def work():
        with Collection(photos, task, out) as table:
            before = sys.gettrace()
            sys.settrace(trace)
            try:
                list(table)
            finally:
                sys.settrace(before)

    left = 1 << 30
    work()
    instructions, random = (1 << 30) - left, random_module.Random(0)
    assert instructions > 1000
    for moment in random.sample(range(1, instructions), 12):
        out.unlink(missing_ok=True)
        left = moment
        with suppress(KeyboardInterrupt):
            work()
        left = 0
        with Collection(photos, task, out) as table:
            list(table)
        assert (out.read_bytes(), Path(f"{out}.errors.csv").read_bytes()) == expected, moment


KILLED = """
import sys
from npmobilenet.cli import main
from npmobilenet.streaming import collecting
collecting.PART_SECONDS = 0.02
sys.exit(main(sys.argv[1:]))
"""


@posix_only
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_random_moments(number, photos, pets, run, tmp_path):
    """Every image once, in the order of the source, whatever the moments."""
    names = tmp_path / "list.txt"
    names.write_text("".join(f"{name}\n" for name in good_names(photos) if "\n" not in name) * 40)
    arguments = ["classify", f"@{names}", "--model", pets, "--backend", "reference", "--out"]
    out, moments = tmp_path / "o.csv", random_module.Random(int(number))
    for _ in range(3 if number == signal.SIGKILL else 2):
        wanted = moments.randrange(1, 6)
        command = [sys.executable, "-c", KILLED, *arguments, str(out)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            parts = Path(f"{out}.parts")
            had = len(list(parts.glob("*.part"))) if parts.exists() else 0
            while process.poll() is None and len(list(parts.glob("*.part"))) < had + wanted:
                time.sleep(0.002)
            time.sleep(moments.random() * 0.02)
            process.send_signal(number)
            error = process.stderr.read()
        assert process.returncode in (0, -signal.SIGKILL, 130), error
        assert "Traceback" not in error and (number == signal.SIGKILL or process.returncode == 0 or "kept" in error)
    code, _, errors = run(*arguments[:2], "--out", out)
    assert code == 0 and "going on after" in errors
    assert run(*arguments[:2], "--out", tmp_path / "whole.csv")[0] == 0
    assert len(rows_of(out)[1]) == 2 * 5 * 40
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.fixture
def begun(photos, model, tmp_path, monkeypatch):
    """The parts of a run that ended early."""
    monkeypatch.setattr(collecting, "PART_SECONDS", 0)
    with Collection(photos, Classify(model), tmp_path / "o.csv") as table:
        for _ in zip(range(3), table, strict=False):
            pass
    assert Path(f"{table.out}.parts").exists() and not table.out.exists()
    return table.out


def test_parts_of_another_command_are_refused(begun, photos, model, run, tmp_path):
    with pytest.raises(ValueError, match=r"holds part of what another command began \(command 'classify', now"):
        Collection(photos, Features(model), begun)
    with pytest.raises(ValueError, match=r"\(top '5', now '3'\): start that one again to go on, or delete the folder"):
        Collection(photos, Classify(model, top=3), begun)
    with pytest.raises(ValueError, match="sources"):
        Collection([photos / "deep"], Classify(model), begun)
    other = npmobilenet.load(model.source, backend="reference")
    other.preprocessing = npmobilenet.Preprocessing(None, (32, 32), None, (0.1,) * 3, (0.5,) * 3)
    with pytest.raises(ValueError, match="another model"):
        Collection(photos, Classify(other), begun)
    code, _, errors = run("classify", photos, "--out", begun, "--top", "1")
    assert code == 1 and errors.count("\n") == 1 and "top '5', now '1'" in errors
    assert run("classify", photos, "--out", begun)[0] == 1  # of the broken one: it goes on
    assert len(rows_of(begun)[1]) == 12


def test_sources_that_have_changed_are_noticed(begun, photos, model):
    (photos / "A first one.png").write_bytes(b"")
    with (
        pytest.raises(ValueError, match="the sources have changed since it was begun"),
        Collection(photos, Classify(model), begun) as table,
    ):
        list(table)


def test_a_damaged_part_is_noticed(begun, photos, model):
    part = Path(f"{begun}.parts") / "000000.part"
    part.write_bytes(part.read_bytes()[:-30])
    with (
        pytest.raises(ValueError, match=r"000000\.part: is damaged"),
        Collection(photos, Classify(model), begun) as table,
    ):
        list(table)


def test_one_process_at_a_time(begun, photos, model):
    pytest.importorskip("fcntl", reason="this system has other locks")
    with Collection(photos, Classify(model), begun), pytest.raises(ValueError, match="another process is at it"):
        Collection(photos, Classify(model), begun)
    Collection(photos, Classify(model), begun).__exit__()


def test_a_full_disk_is_one_line_and_no_end(photos, run, tmp_path, monkeypatch):
    monkeypatch.setattr(collecting, "PART_SECONDS", 0)
    fsync, calls = os.fsync, []

    def full(number):
        calls.append(number)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        fsync(number)

    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "o.csv"
    code, printed, errors = run("classify", photos, "--out", out)
    last = (
        f"npmobilenet: {out}: cannot be written: No space left on device; 2 images are kept: the same command goes on"
    )
    assert (code, printed) == (1, "") and errors.splitlines()[-1].startswith(last)
    monkeypatch.setattr(os, "fsync", fsync)
    code, _, errors = run("classify", photos, "--out", out)
    assert code == 1 and "going on after 2 images" in errors
    assert [row[0] for row in rows_of(out)[1]][::2] == good_names(photos)


def test_standard_input_and_few_images_use_no_more_than_there_is(pets, thumbnails, tmp_path):
    command = [sys.executable, "-m", "npmobilenet", "features", "-", "--model", pets, "--backend", "reference"]
    content = (thumbnails / "rocket.png").read_bytes()
    done = subprocess.run([*command, "--out", tmp_path / "f.npy"], input=content, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    model = npmobilenet.load(pets, backend="reference")
    expected = model.features(model.preprocess(content)[None])
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), expected)
    assert (tmp_path / "f.names.txt").read_text() == "-\n"
