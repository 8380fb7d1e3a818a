"""``npmobilenet evaluate``: labels in folders and lists, accuracy, two networks compared."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npmobilenet
from npmobilenet.cli import main
from tests.conftest import compiled_only, photo

pytest.importorskip("PIL", reason="the command reads image files")

NAMES = ("coffee.png", "rocket.png", "chelsea.png", "astronaut.png")


@pytest.fixture
def evaluate(pets, capsys):
    """Run ``evaluate`` with the small network; return the exit code, what was printed and the errors."""

    def run(*arguments):
        code = main(["evaluate", *map(str, arguments), "--model", pets, "--backend", "reference"])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def guesses(pets, thumbnails):
    """What the small network takes the photographs for."""
    model = npmobilenet.load(pets, backend="reference")
    return {name: model.classify(thumbnails / name, top=1)[0].label for name in NAMES}


@pytest.fixture
def folders(guesses, tmp_path, thumbnails):
    """All photographs in the folders of what they are taken for, but the first in the other one."""
    root = tmp_path / "photos"
    for name in NAMES:
        label = guesses[name] if name != NAMES[0] else other(guesses[name])
        (root / label.upper()).mkdir(parents=True, exist_ok=True)
        shutil.copy(thumbnails / name, root / label.upper())
    return root


def other(label):
    return "dog" if label == "cat" else "cat"


def test_class_folders(evaluate, folders, guesses):
    code, out, err = evaluate(folders)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].endswith("pets.npz: 4 photographs of 2 classes") or lines[0].endswith("of 1 class")
    assert lines[1] == "  top-1   75.00 %  (30.06 to 95.44)  3 of 4"
    wrong = f"      1  {other(guesses[NAMES[0]])} -> {guesses[NAMES[0]]}"
    assert lines[2:] == ["  most frequent mistakes:", wrong, "in brackets: 95 % confidence intervals"]


def test_json_and_bad_files(evaluate, folders, guesses):
    label = guesses["rocket.png"]
    (folders / label.upper() / "broken.png").write_text("no image")
    (folders / label.upper() / "._a.png").write_text("no image")
    (folders / ".hidden").mkdir()
    code, out, err = evaluate(folders, "--json")
    found = json.loads(out)
    assert code == 1 and "broken.png" in err and "1 of 5 images failed" in err
    (model,) = found["models"]
    assert found["failed"] == 1 and found["comparison"] is None
    assert (model["top1"]["count"], model["top1"]["total"], model["top5"]) == (3, 4, None)
    assert sum(one["images"] for one in model["classes"]) == 4 and sum(one["right"] for one in model["classes"]) == 3
    assert model["mistakes"] == [
        {"label": other(guesses[NAMES[0]]), "prediction": guesses[NAMES[0]], "count": 1},
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ["a.png,{0}", "in/b.jpg,{1}"],
        ["path,label", "a.png,{0}", "", "in/b.jpg,{1}"],
        ["", " ", "a.png;{0}", "in/b.jpg;{1}"],
        ["\ufeffid;Label;x;Filename", "1;{0};;a.png", "2;{1};;in/b.jpg"],
        ["a.png\t{0}", "in/b.jpg\tclass {1.index}"],
        ["a.png {0.index}", "in/b.jpg   {1.index}"],
        ['"a.png","{0}"', '"in/b.jpg","{1}"'],
    ],
)
def test_lists(lines, evaluate, guesses, tmp_path, thumbnails):
    class Label(str):
        index = property(lambda self: ("cat", "dog").index(self))

    labels = [Label(guesses[name]) for name in ("coffee.png", "rocket.png")]
    (tmp_path / "lists/in").mkdir(parents=True)
    shutil.copy(thumbnails / "coffee.png", tmp_path / "lists/a.png")
    shutil.copy(thumbnails / "rocket.png", tmp_path / "lists/in/b.jpg")
    (tmp_path / "lists/list.csv").write_text("\n".join(lines).format(*labels), encoding="utf-8")
    code, out, err = evaluate(tmp_path / "lists/list.csv")
    assert (code, err) == (0, "") and "2 of 2" in out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the list is empty"),
        ("file,label\n", "the list is empty"),
        ("a.png,cat\nb.png\n", "line 2 has no label"),
        ("a.png,bird\nb.png,kat\n", "2 labels are not of this network: 'bird' (there are 2 classes), 'kat' (near"),
        ("\n\na.png,cat\nb.png\n", "line 4 has no label"),
        ("".join(f"a.png,{n}{n}\n" for n in range(9000)), "8999 labels are not of this network: '11' (there are 2"),
        ("a.png,2\n", "1 label is not of this network: '2' (there are 2 classes)"),
        (b"\xff\xfe\x00", "no list of files and labels: "),
        ("a.png,cat\n", "no photograph could be evaluated"),
        ("https://example.org/a.png,cat\n", "no photograph could be evaluated"),
        ("a.png," + "x" * 200_000, "no list of files and labels: field larger than field limit"),
    ],
)  # fmt: skip
def test_lists_that_are_none(content, message, evaluate, tmp_path):
    file = tmp_path / "list.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = evaluate(file)
    assert (code, out) == (1, "") and message in err.splitlines()[-1]


def test_folders_that_have_no_labels(evaluate, tmp_path, folders):
    (tmp_path / "empty").mkdir()
    assert "no class folders in it" in evaluate(tmp_path / "empty")[2]
    (folders / "bird").mkdir()
    code, out, err = evaluate(folders)
    assert (code, out) == (1, "") and "1 label is not of this network: 'bird'" in err
    assert "No such file or directory" in evaluate(tmp_path / "nowhere")[2]
    assert "a URL is no file" in evaluate("https://example.org/photos")[2]
    assert "an empty argument" in evaluate("")[2]
    assert "--against another network" in evaluate(folders, "--unlabelled")[2]


def test_a_list_on_standard_input(pets, guesses, thumbnails):
    arguments = ["evaluate", "-", "--model", pets, "--backend", "reference"]
    text = f"{thumbnails / 'coffee.png'},{guesses['coffee.png']}\n"
    command = [sys.executable, "-m", "npmobilenet", *arguments]
    for given in (text, f"\ufefffile,label\r\n{text}"):
        done = subprocess.run(command, input=given.encode(), capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"") and b"1 of 1" in done.stdout


@pytest.mark.skipif(not Path("/dev/zero").is_char_device(), reason="this system has no file without an end")
def test_files_without_an_end(evaluate, folders, monkeypatch):
    monkeypatch.setattr("npmobilenet.cli.labelled.LARGEST_LIST", 1 << 20)
    for arguments in (["/dev/zero"], [folders, "--classes", "/dev/zero"], [folders, "--preprocessing", "/dev/zero"]):
        code, out, err = evaluate(*arguments)
        assert (code, out, err.count("\n")) == (1, "", 1) and "/dev/zero: " in err and "more than" in err


@pytest.fixture
def contrary(pets, tmp_path):
    """The small network with its classes in the other order, and one weight more in favour of the dog."""
    with np.load(pets) as file:
        tensors = {name: file[name] for name in file if not name.startswith("_")}
    metadata = npmobilenet.checkpoints.read_checkpoint(pets).metadata
    for kind in ("weight", "bias"):
        tensors[f"classifier.{kind}"] = tensors[f"classifier.{kind}"][::-1]
    tensors["classifier.bias"] = tensors["classifier.bias"] + np.float32([1e3, 0])
    metadata = {**metadata, "classes": ["dog", "cat"]}
    return str(npmobilenet.export_weights(tensors, tmp_path / "contrary.npz", metadata=metadata))


def test_two_networks(evaluate, folders, guesses, pets, contrary, thumbnails):
    code, out, err = evaluate(folders, "--against", pets, "--json")
    same = json.loads(out)["comparison"]
    assert (code, err) == (0, "") and same["agreement"]["share"] == 1 and not same["differences"]
    assert same["right"] == {"both": 3, "first": 0, "second": 0, "neither": 1, "chance": 1.0}
    code, out, err = evaluate(folders, "--against", contrary, "--json")
    found = json.loads(out)
    assert code == 0
    cats = sorted(name for name, label in guesses.items() if label == "cat")
    differences = found["comparison"]["differences"]
    assert sorted(one["image"].rpartition("/")[2] for one in differences) == cats
    assert all(one["predictions"] == ["cat", "dog"] for one in differences)
    dogs = sum(one["images"] for one in found["models"][1]["classes"] if one["label"] == "dog")
    assert found["models"][1]["top1"]["count"] == dogs
    assert found["models"][0]["top1"]["count"] == 3
    text = evaluate(folders, "--against", contrary, "--show", "1")[1]
    assert f"  agree  {100 * (4 - len(cats)) / 4:6.2f} %" in text and "McNemar" in text
    text = evaluate(thumbnails / "coffee.png", "--against", contrary, "--unlabelled")[1]
    assert "top-1" not in text and "McNemar" not in text and "of 1\n" in text


def test_networks_without_a_common_class(evaluate, folders, pets, tmp_path):
    metadata = npmobilenet.checkpoints.read_checkpoint(pets).metadata
    with np.load(pets) as file:
        tensors = {name: file[name] for name in file if not name.startswith("_")}
    for classes, message in ((["car", "bus"], "no class in common"), (["cat", "bus"], "has no class 'dog'")):
        bad = npmobilenet.export_weights(tensors, tmp_path / "bad.npz", metadata={**metadata, "classes": classes})
        code, out, err = evaluate(folders, "--against", bad)
        assert (code, out) == (1, "") and message in err


def test_what_is_known_by_name_keeps_what_is_known_of_it(pets):
    from npmobilenet.cli import parser
    from npmobilenet.cli.options import load_models

    options = ["evaluate", "x", "--model", pets, "--backend", "reference", "--crop", "48", "--bn-eps", "0.1"]
    first, second = load_models(parser().parse_args(options), "mobilenet_v2")
    assert first.preprocessing.crop == (48, 48) and second.preprocessing.crop == (224, 224)
    assert len(second.classes) == 1000
    first, second = load_models(parser().parse_args(options), pets)
    assert second.preprocessing.crop == (48, 48)


@compiled_only
def test_shipped_weights_on_synset_folders(tmp_path, capsys):
    (tmp_path / "n07920052").mkdir()
    shutil.copy(photo("coffee.png"), tmp_path / "n07920052")
    assert main(["evaluate", str(tmp_path), "--against", "mobilenet_v1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mobilenet_v2: 1 photograph of 1 class" and lines[1].endswith("1 of 1")
    assert lines[3] == "mobilenet_v1: 1 photograph of 1 class" and lines[4].endswith("1 of 1")
    assert lines[7].startswith("  agree  100.00 %")
