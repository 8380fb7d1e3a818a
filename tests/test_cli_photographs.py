"""How commands find, read and prepare photographs."""

import json
import os
import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import npmobilenet
from npmobilenet.cli import main, parser, photographs
from npmobilenet.cli.options import load_model
from npmobilenet.cli.photographs import Photograph, Run, find_images, prepared_ahead
from npmobilenet.errors import ImageError, MissingDependencyError
from npmobilenet.image import FILTERS, reading, unreadable_suffixes

pytest.importorskip("PIL", reason="the commands read image files")


@pytest.fixture
def classify(pets, capsys):
    """Run ``classify`` with the small network; return the exit code, what was printed and the errors."""

    def run(*arguments):
        code = main(["classify", *map(str, arguments), "--model", pets, "--backend", "reference"])
        return code, *capsys.readouterr()

    return run


def touch(folder, *names):
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


# --- Finding -----------------------------------------------------------------------------------------------


def test_hidden_files_are_no_photographs(tmp_path):
    touch(tmp_path, "b.JPG", "a.png", "in/c.webp", "notes.txt")
    touch(tmp_path, "._a.png", ".thumbs/d.jpg", "in/.e.jpg", "__MACOSX/in/c.webp")
    found = [os.path.relpath(one.name, tmp_path) for one in find_images([str(tmp_path)])]
    assert found == ["a.png", "b.JPG", os.path.join("in", "c.webp")]  # noqa: PTH118
    assert find_images([str(tmp_path / "._a.png")]) == [Photograph(str(tmp_path / "._a.png"))]  # asked for by name
    assert len(find_images([str(tmp_path / ".thumbs")])) == 1


def test_formats_that_need_a_package_are_counted(tmp_path, monkeypatch, capsys, classify, thumbnails):
    monkeypatch.setattr("npmobilenet.image.unreadable_suffixes", lambda: {".heic", ".jxl"})
    touch(tmp_path, "1.HEIC", "in/2.heic", "3.jxl", "._4.heic")
    (only,) = find_images([str(tmp_path)])
    assert only.problem == "no image files that can be read here in this folder"
    capsys.readouterr()
    shutil.copy(thumbnails / "coffee.png", tmp_path / "a.png")
    code, out, err = classify(tmp_path)
    assert code == 0 and out.startswith(str(tmp_path / "a.png"))
    assert err == (
        f"npmobilenet: {tmp_path}: 3 files skipped (.heic 2, .jxl 1): "
        "pip install pillow-heif pillow-jxl-plugin to read them\n"
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_are_waited_for_but_not_for_ever(tmp_path, monkeypatch, thumbnails):
    pipe = tmp_path / "a.png"
    os.mkfifo(pipe)
    (only,) = find_images([str(tmp_path)])
    assert only.problem == "no image files in this folder"
    writer = threading.Timer(0.1, lambda: pipe.write_bytes((thumbnails / "coffee.png").read_bytes()))
    writer.start()
    assert Photograph(str(pipe)).read().ndim == 3
    writer.join()
    monkeypatch.setattr(reading, "PIPE_PATIENCE", 0.01)
    with pytest.raises(ImageError, match=r"a\.png: cannot be opened: a pipe to which nobody writes"):
        Photograph(str(pipe)).read()


def test_globs_of_any_depth_follow_no_links(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "in/b.png", "in/deep/c.png", "in/.hidden/d.png", "[x]/e.png", "in/f.txt")
    (tmp_path / "in" / "back").symlink_to("..")
    (tmp_path / "in" / "again").symlink_to("../in")
    monkeypatch.chdir(tmp_path)

    def names(pattern):
        return [one.name.replace(os.sep, "/") for one in find_images([pattern])]

    everywhere = ["[x]/e.png", "a.png", "in/b.png", "in/deep/c.png"]
    assert names("**/*.png") == names("**/**/*.png") == names("**/**/**/**/**/**/*.png") == everywhere
    assert names("in/**/*.png") == ["in/b.png", "in/deep/c.png"]
    assert names("i*/**") == ["in/b.png", "in/deep/c.png", "in/f.txt"]
    assert names("**/deep/**/*.p?g") == ["in/deep/c.png"]
    assert names(f"{tmp_path}/**/c.png") == [f"{tmp_path}/in/deep/c.png"]
    assert names("in/back/*.png") == ["in/back/a.png"]  # where a name asks for it
    assert names("**.png") == ["a.png"]
    assert find_images(["no/**/x"])[0].problem == "no file matches"


def test_every_kind_that_can_be_read_is_found(tmp_path):
    suffixes = npmobilenet.image.IMAGE_SUFFIXES - unreadable_suffixes()
    touch(tmp_path, *(f"a{suffix}" for suffix in npmobilenet.image.IMAGE_SUFFIXES))
    assert {os.path.splitext(one.name)[1] for one in find_images([str(tmp_path)])} == suffixes  # noqa: PTH122


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "'': an empty argument is no file"),
        ("a" * 5000, "cannot be opened: File name too long"),
        ("a\0b.png", "a\\x00b.png: cannot be opened: "),
        ("nowhere.png", "nowhere.png: cannot be opened: No such file or directory"),
        ("no*.png", "no*.png: no file matches"),
        ("https://example.org/a.jpg", "https://example.org/a.jpg: a URL is no file: download it first"),
        ("S3://bucket/a.jpg", "S3://bucket/a.jpg: a URL is no file"),
        ("a\x1b[2J\nb.png", "a\\x1b[2J"),
    ],
)
def test_what_is_no_photograph_is_one_failure_among_others(name, problem, classify, monkeypatch, tmp_path, thumbnails):
    monkeypatch.chdir(tmp_path)
    code, out, err = classify(name, thumbnails / "coffee.png", "--json")
    bad, good = json.loads(out)
    assert code == 1 and bad["image"] == name and "error" in bad and len(good["predictions"]) == 2
    first, *rest = err.splitlines()
    assert problem in first and len(first) < 2100
    assert rest[-1] == "npmobilenet: 1 of 2 images failed"


def test_folders_that_cannot_be_entered(tmp_path, monkeypatch, classify, thumbnails):
    shutil.copy(thumbnails / "coffee.png", tmp_path / "a.png")
    (tmp_path / "secret").mkdir()
    scandir = os.scandir

    def forbidden(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    code, out, err = classify(tmp_path)
    assert code == 1 and "a.png" in out
    assert err.startswith(f"npmobilenet: {tmp_path / 'secret'}: cannot be opened: Permission denied\n")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
def test_names_that_are_no_text(tmp_path, pets, thumbnails):
    names = ["caf\udce9.png", "clear\x1b[2J.png", "two\n   99.99 %  forged.png", "plain é.png"]
    for name in names:
        shutil.copy(thumbnails / "coffee.png", tmp_path / name)
    command = [sys.executable, "-m", "npmobilenet", "classify", tmp_path, "--model", pets, "--backend", "reference"]
    for encoding in ("utf-8:strict", "ascii:strict"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, capture_output=True, env=environment)
        assert (done.returncode, done.stderr) == (0, b"")
        text = done.stdout.decode(encoding.partition(":")[0])
        assert text.replace("\n", "").isprintable() and len(text.splitlines()) == 3 * len(names)
        done = subprocess.run([*command, "--json"], capture_output=True, env=environment)
        assert {os.path.basename(item["image"]) for item in json.loads(done.stdout)} == set(names)  # noqa: PTH119


def test_class_names_are_shown_safely(classify, tmp_path, thumbnails):
    (tmp_path / "names").write_bytes("cat\x1b]0;title\x07\n\u202egod\n".encode())
    code, out, _ = classify(thumbnails / "coffee.png", "--classes", tmp_path / "names")
    assert code == 0 and out.replace("\n", "").isprintable()


# --- Standard input ----------------------------------------------------------------------------------------


def test_standard_input(pets, thumbnails):
    command = [
        sys.executable,
        "-m",
        "npmobilenet",
        "classify",
        "-",
        "--json",
        "--model",
        pets,
        "--backend",
        "reference",
    ]
    content = (thumbnails / "rocket.png").read_bytes()
    good = subprocess.run(command, input=content, capture_output=True)
    (item,) = json.loads(good.stdout)
    expected = npmobilenet.load(pets, backend="reference").classify(content)
    assert good.returncode == 0 and item["image"] == "-"
    assert [p["probability"] for p in item["predictions"]] == [p.probability for p in expected]
    bad = subprocess.run(command, input=content[:2000], capture_output=True, text=False)
    assert bad.returncode == 1 and bad.stderr.startswith(b"npmobilenet: standard input: ")
    bad = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    assert bad.stderr == b"npmobilenet: standard input: the file is empty\n"


def test_standard_input_is_limited(monkeypatch):
    read, write = os.pipe()
    with open(read) as stdin:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(reading, "LARGEST_STREAM", 100)
        os.write(write, bytes(101))
        with pytest.raises(ImageError, match="standard input: cannot be read: more than"):
            Photograph("-").read()
        os.close(write)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ImageError, match="standard input is closed"):
        Photograph("-").read()


def test_standard_input_once(classify):
    code, _, err = classify("-", "-")
    assert (code, err) == (1, "npmobilenet: standard input can be read once: give - once\n")


# --- Reading ahead -----------------------------------------------------------------------------------------


def prepared(names, prepare, threads=2, length=3):
    return prepared_ahead(lambda one: prepare(one.name), [Photograph(name) for name in names], threads, length)


@pytest.mark.parametrize("may_start", [True, False])
def test_prepared_in_order_and_by_the_caller_where_no_thread_may_be_started(may_start, monkeypatch):
    if not may_start:
        monkeypatch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("no thread")))
    begun = []

    def prepare(name):
        begun.append(name)
        if name == "7":
            raise MemoryError("too large")
        return int(name)

    results = []
    for photograph, result in prepared(map(str, range(50)), prepare):
        results.append(result)
        assert photograph.name == str(len(results) - 1)
        assert len(begun) <= len(results) + 4  # three ahead, and the one that is asked for
    error = results.pop(7)
    assert isinstance(error, MemoryError) and results == [n for n in range(50) if n != 7]


def test_a_caller_who_stops_leaves_nothing_running():
    before = set(threading.enumerate())
    results = prepared(map(str, range(50)), int)
    next(results)
    helpers = set(threading.enumerate()) - before
    results.close()
    for helper in helpers:
        helper.join(timeout=10)
    assert helpers and not any(helper.is_alive() for helper in helpers)


def test_a_missing_package_is_told_once():
    def prepare(name):
        raise MissingDependencyError("install it")

    with pytest.raises(MissingDependencyError):
        list(prepared(["a", "b"], prepare))


def test_no_more_threads_than_cpus_and_batches_of_bounded_size(monkeypatch):
    asked = []
    monkeypatch.setattr(photographs, "available_cpus", lambda: 2)
    monkeypatch.setattr(photographs, "prepared_ahead", lambda *arguments: asked.append(arguments[2:]) or iter(()))
    for side in (224, 4096, 16384):
        model = SimpleNamespace(threads=5000, preprocessing=SimpleNamespace(crop=(side, side)))
        list(Run([Photograph("a")], [model], lambda batch: batch))
    assert asked == [(2, 8), (1, 1), (1, 1)]


def test_an_unexpected_error_loses_one_image(monkeypatch, classify, capsys, thumbnails):
    read = Photograph.read

    def fail(self):
        if "rocket" in self.name:
            raise RecursionError("too deep")
        return read(self)

    monkeypatch.setattr(Photograph, "read", fail)
    code, out, err = classify(thumbnails / "rocket.png", thumbnails / "coffee.png")
    assert code == 1 and "coffee.png" in out
    assert err.startswith(f"npmobilenet: {thumbnails / 'rocket.png'}: unexpected RecursionError: too deep")


# --- Logits that are no numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_class_is_named_by_logits_that_are_not_finite(bad, pets):
    model = npmobilenet.load(pets, backend="reference")
    with pytest.raises(ValueError, match=f"largest logit of row 1 is {bad}"):
        model.top(np.array([[0.0, 1.0], [bad, 0.0]]))
    assert model.top(np.array([[-np.inf, 1.0]]))[0][0].probability == 1  # a class that is ruled out


def test_damaged_weights_are_failures_not_answers(tmp_path, capsys, pets, thumbnails):
    with np.load(pets) as file:
        tensors = dict(file)
    tensors["classifier.weight"] = np.full_like(tensors["classifier.weight"], 3e38)  # finite, but not the logits
    broken = tmp_path / "broken.npz"
    np.savez(broken, **tensors)
    for options in ([], ["--json"]):
        code = main(
            ["classify", str(thumbnails / "coffee.png"), "--model", str(broken), "--backend", "reference", *options]
        )
        out, err = capsys.readouterr()
        assert code == 1 and "%" not in out and "probability" not in out
        assert f"npmobilenet: {thumbnails / 'coffee.png'}: no class can be named: the largest logit is inf" in err
    assert "error" in json.loads(out)[0]


# --- Preprocessing -----------------------------------------------------------------------------------------


def preprocessing(pets, *options):
    arguments = parser().parse_args(["classify", "a.png", "--model", pets, "--backend", "reference", *options])
    return load_model(arguments).preprocessing


def test_each_option_is_in_place_of_what_the_weights_say(pets, tmp_path):
    own = npmobilenet.Preprocessing(32, (32, 32), None, (0.5,) * 3, (0.5,) * 3)
    assert preprocessing(pets) == own
    changed = preprocessing(
        *(pets, "--resize", "40x50", "--crop", "24x36", "--filter", "bicubic"),
        *("--mean", "0.485,0.456,0.406", "--std", "0.25"),
    )
    expected = ((40, 50), (24, 36), None, (0.485, 0.456, 0.406), (0.25,) * 3, "bicubic")
    assert changed == npmobilenet.Preprocessing(*expected)
    assert preprocessing(pets, "--resize", "none").resize is None
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"size": {"shortest_edge": 64}, "crop_size": {"height": 48, "width": 48}, "resample": 3,
                                "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "do_resize": True,
                                "do_center_crop": True, "do_normalize": True}))  # fmt: skip
    read = preprocessing(pets, "--preprocessing", str(file), "--crop", "40")
    assert (read.resize, read.crop, read.std, read.filter) == (64, (40, 40), (0.25,) * 3, "bicubic")


def test_resize_uses_the_whole_picture():
    arguments = parser().parse_args(["classify", "a.png", "--model", "mobilenet_v1", "--resize", "256"])
    made = load_model(arguments).preprocessing
    assert (made.resize, made.crop_fraction) == (256, None)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--mean", "123.7,116.3,103.5"], 2, "numbers for values from 0 to 1"),
        (["--mean", "0.5,0.5"], 2, "expected three numbers"),
        (["--resize", "big"], 2, "expected a size such as 224"),
        (["--crop", "0"], 2, "expected a size such as 224"),
        (["--std", "0"], 1, "std must be"),
        (["--filter", "sharp"], 1, "filter must be one of bilinear"),
        (["--preprocessing", "nowhere.json"], 1, "nowhere.json: cannot be read"),
        (["--model", "https://example.org/a.pth"], 1, "a URL is no file: download it first"),
        (["--model", ""], 1, "an empty argument is no file"),
    ],
)
def test_impossible_options(options, code, message, pets, capsys):
    arguments = ["classify", "a.png", "--model", pets, "--backend", "reference", *options]
    if code == 2:
        with pytest.raises(SystemExit):
            main(arguments)
    else:
        assert main(arguments) == code
    assert message in capsys.readouterr().err


def test_help_names_every_filter(capsys):
    with pytest.raises(SystemExit):
        main(["classify", "--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in FILTERS)
