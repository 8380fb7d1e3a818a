"""The command line, as a user types it."""

import json
import shutil
import subprocess
import sys

import numba
import numpy as np
import pytest

import npmobilenet
from npmobilenet.cli import OF_PHOTOGRAPHS, main, parser, plain
from tests.conftest import compiled_only, photo

pytest.importorskip("PIL", reason="the command reads image files")


@compiled_only
def test_classify_prints_the_label(capsys):
    assert main(["classify", str(photo("coffee.png"))]) == 0
    name, first, *rest = capsys.readouterr().out.splitlines()
    assert name == str(photo("coffee.png"))
    assert first.strip() == "99.21 %  espresso"
    assert len(rest) == 4


@compiled_only
def test_a_warm_process_classifies_without_numba(capsys):
    """Starting Numba takes longer than all the rest: what it compiled is kept where it is not needed."""
    assert main(["classify", str(photo("coffee.png"))]) == 0  # compiles what is not there
    code = (
        "import sys; from npmobilenet.cli import main; code = main(sys.argv[1:]); "
        "print('numba' in sys.modules); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "classify", str(photo("coffee.png"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "espresso" in done.stdout and done.stdout.splitlines()[-1] == "False"


@compiled_only
def test_classify_json_of_folders_globs_and_bad_files(tmp_path, capsys):
    folder = tmp_path / "photos" / "inner"
    folder.mkdir(parents=True)
    shutil.copy(photo("coffee.png"), folder / "a.PNG")
    shutil.copy(photo("rocket.jpg"), folder / "b.jpg")
    (folder / "broken.jpg").write_text("not an image")
    (folder / "notes.txt").write_text("left alone")
    (tmp_path / "empty").mkdir()
    arguments = ["photos", "photos/inner/*.jpg", "nowhere.png", "empty", "none*.gif"]
    code = main(["classify", *(str(tmp_path / a) for a in arguments), "--json", "--top", "2", "--threads", "2"])
    output = capsys.readouterr()
    items = json.loads(output.out)
    assert code == 1
    good = [
        (item["image"].rpartition("/")[2], item["predictions"][0]["label"]) for item in items if "predictions" in item
    ]
    assert good == [("a.PNG", "espresso"), ("b.jpg", "drilling platform"), ("b.jpg", "drilling platform")]
    assert all(len(item["predictions"]) == 2 for item in items if "predictions" in item)
    failed = sorted(item["image"].rpartition("/")[2] for item in items if "error" in item)
    assert failed == ["broken.jpg", "broken.jpg", "empty", "none*.gif", "nowhere.png"]
    assert "5 of 8 images failed" in output.err
    assert len(output.err.splitlines()) == 6


def test_own_checkpoint_and_class_names(pets, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    arguments = ["classify", str(photo("chelsea.png")), "--model", pets, "--backend", "reference"]
    assert main([*arguments, "--classes", str(names), "--json"]) == 0
    (item,) = json.loads(capsys.readouterr().out)
    assert {p["label"] for p in item["predictions"]} == {"cat", "dog"}
    assert sum(p["probability"] for p in item["predictions"]) == pytest.approx(1)
    names.write_text("cat\ndog\nbird\n")
    assert main([*arguments, "--classes", str(names)]) == 1
    assert "the network has 2 classes, but 3 class names were given" in capsys.readouterr().err
    assert main([*arguments, "--classes", str(tmp_path)]) == 1
    assert "cannot read class names" in capsys.readouterr().err


def test_padding_and_eps_reach_the_network(pets, capsys):
    results = []
    for extra in ([], ["--padding", "same"], ["--bn-eps", "0.1"]):
        main(
            [
                "classify",
                str(photo("chelsea.png")),
                "--model",
                pets,
                "--backend",
                "reference",
                "--json",
                *extra,
            ]
        )
        results.append(json.loads(capsys.readouterr().out)[0]["predictions"][0]["probability"])
    assert len(set(results)) == 3


def test_only_bad_images(capsys):
    assert main(["classify", "nowhere.png", "--json", "--backend", "reference"]) == 1
    output = capsys.readouterr()
    assert [set(item) for item in json.loads(output.out)] == [{"image", "error"}]
    assert output.err.startswith("npmobilenet: nowhere.png: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["classify", "x.png", "--top", "0"], "expected an integer >= 1, got '0'"),
        (["classify", "x.png", "--threads", "two"], "expected an integer >= 1, got 'two'"),
        (["inspect", "mobilenet_v2", "--resolution", "big"], "expected a size such as 224 or 193x225, got 'big'"),
        (["inspect", "mobilenet_v2", "--mixed", "3,x"], "expected an integer >= 1, got 'x'"),
        (["inspect", "mobilenet_v2", "--mixed", "9", "--partition", "odd"], "invalid choice: 'odd'"),
        (["nonsense"], "invalid choice"),
        (["classify", "a.png", "--top", "9" * 5000], "argument --top: expected an integer >= 1"),
        (["classify", "a.png", "--\x1b[2J\n"], "unrecognized arguments: --"),
        (
            ["export", "mobilenet_v2", "--onnx", "a", "--out", "b"],
            "unrecognized arguments: --out b",
        ),  # no --output-stride
        ([], "required: COMMAND"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error and len(error) < 2000 and error.removesuffix("\n").isprintable()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "no_such_network"], "weights known by name: mobilenet_v2"),
        (["inspect", ""], "'': an empty argument is no file"),
        pytest.param(["bench", ""], "'': an empty argument is no file", marks=compiled_only),
        (["study", "occlusion", "https://example.org/a.jpg", "--no-picture"], "a URL is no file"),
        (["study", "linear-bottleneck", "--images", "", "--no-picture"], "'': an empty argument is no file"),
        (["inspect", "a" * 5000], "File name too long"),
        (["inspect", "mobilenet_v2", "--width", "0"], "width must be a number above 0"),
        (["inspect", "mobilenet_v2", "--mixed", "9", "--layers", "neck"], "no block 'neck' with a depthwise"),
        (["inspect", "mobilenet_v2", "--mixed", "9", "--layers", "block2", "--dilated"], "block2 (stride 2)"),
        (["inspect", "mobilenet_v2", "--mixed", "3,5,7,9,11,13,15,17,19", "--width", "0.1"], "channels, 8, got 9"),
        (["inspect", "mobilenet_v2", "--layers", "block2"], "say how to use the kernel sizes of --mixed"),
        (["weights", "download", "mobilenet_v9"], "no weights 'mobilenet_v9'; there are: mobilenet_v2"),
        (["classify", str(photo("coffee.png")), "--model", "no.pth"], "no.pth: does not exist"),
        (["classify", str(photo("coffee.png")), "--width", "inf"], "width must be a number above 0"),
        (["classify", str(photo("coffee.png")), "--preprocessing", "a\nb"], "a\\nb: cannot be read: No such file"),
    ],
)
def test_failures_are_one_line(arguments, message, capsys):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("npmobilenet: ") and message in error and error.count("\n") == 1


def test_only_the_command_that_is_given_is_imported():
    names = "{'npmobilenet.cli.features', 'npmobilenet.cli.bench', 'npmobilenet.cli.study'}"
    code = "import sys; from npmobilenet.cli import main\ntry: main(['features', '--help'])\nexcept SystemExit: pass\n"
    code += f"print(sorted({names} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("['npmobilenet.cli.features']\n")


def test_inspect_table(capsys):
    assert main(["inspect", "mobilenet_v2"]) == 0
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert lines[0] == "mobilenet_v2, width 1 (MobileNetV2, 1801.04381, Table 2), input 224x224, one image, float32"
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert rows["block2.depthwise"] == ["96x56x56", "3x3", "2", "1,056", "2,709,504", "6.02", "MB"]
    assert rows["total"] == ["3,504,872", "300,774,272"]
    assert "6.02 MB peak" in output and "2.41 MB peak" in output


def test_inspect_mixed_kernels_beside_plain_ones(pets, capsys):
    assert main(["inspect", "mobilenet_v2", "--mixed", "3,5,7,9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    costs = 8  # columns; measured times follow where the vector kernels run
    assert rows["block2.depthwise"][:costs] == [
        *("96x56x56", "3x3", "3x3+5x5+7x7+9x9", "1,056", "4,128", "2,709,504", "12,343,296", "4.56")
    ]
    assert rows["block2.project"][: costs - 1] == [
        "24x56x56",
        "1x1",
        "2,352",
        "2,352",
        "7,225,344",
        "7,225,344",
        "1.00",
    ]
    if not numba.config.DISABLE_JIT:
        plain, with_mixed = map(float, rows["block3.depthwise"][costs : costs + 2])
        assert 0 < plain < with_mixed
        assert rows["time"][1:3] == ["ms", "->"]
    added = 7136 // 4 * (16 + 40 + 72)  # the depthwise layers have 7136 channels in all
    assert rows["parameters"][:3] == ["3,504,872", "->", f"{3_504_872 + added:,}"]
    assert rows["multiply-adds"][0] == "300,774,272"
    assert main(["inspect", "mobilenet_v2", "--mixed", "9", "--layers", "all", "--dilated"]) == 0
    assert "3x3d4" in capsys.readouterr().out
    arguments = ["--mixed", "3,5", "--layers", "block3,block5", "--partition", "exponential", "--json"]
    assert main(["inspect", pets, *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    mixed = report["mixed"]
    assert mixed["kernels"] == [3, 5] and mixed["blocks"] == ["block3", "block5"] and not mixed["dilated"]
    pairs = zip(report["layers"], mixed["layers"], strict=True)
    assert [one["name"] for one, two in pairs if one != two] == ["block3.depthwise", "block5.depthwise"]
    assert mixed["parameters"] > report["parameters"]
    if not numba.config.DISABLE_JIT:
        assert mixed["seconds"]["layers"].keys() == {layer["name"] for layer in mixed["layers"]}
        assert report["seconds"]["network"] > 0


def test_inspect_other_networks(capsys):
    assert main(["inspect", "efficientnet_b1"]) == 0
    assert "input 240x240" in capsys.readouterr().out
    assert main(["inspect", "mixnet_s"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line}
    assert rows["block4.depthwise"][:4] == ["144x28x28", "3x3+5x5+7x7", "2", "4,272"]
    assert rows["block4.squeeze"][:3] == ["144x28x28", "3,612", "3,456"]
    assert rows["total"] == ["4,134,606", "239,173,360"]


def test_inspect_options_and_checkpoints(pets, capsys):
    assert (
        main(
            [
                "inspect",
                "mobilenet_v1",
                "--width",
                "0.5",
                "--resolution",
                "160x128",
                "--num-classes",
                "7",
                "--json",
            ]
        )
        == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert report["resolution"] == [160, 128]
    assert report["layers"][-1]["output"] == [7] and report["layers"][0]["output"] == [16, 80, 64]
    assert main(["inspect", pets]) == 0
    assert "pets.npz: mobilenet_v2, width 0.25, input 32x32" in capsys.readouterr().out


def test_weights_list(capsys):
    assert main(["weights"]) == 0
    text = capsys.readouterr().out
    assert text.count("(verified)") >= 2 and "BSD-3-Clause" in text and "Apache-2.0" in text
    assert main(["weights", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["mobilenet_v2"]["top1"] == 71.878 and rows["mobilenet_v2"]["verified"] is True
    assert rows["mobilenet_v2_imagenet1k_v2"]["sha256"] == "7ebf99e0..."


@compiled_only
def test_doctor(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["self-test"].startswith("passed: largest error")
    assert "numba" in report["packages"] and "float32 lanes" in report["vectors"] and report["CUDA"]


def test_as_a_module_and_into_a_closed_pipe():
    command = [sys.executable, "-m", "npmobilenet", "inspect", "mobilenet_v2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert error == b"" and process.returncode == 1


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"npmobilenet {npmobilenet.__version__}\n"


def test_arrays_need_no_pillow(monkeypatch, pets):
    monkeypatch.setitem(sys.modules, "PIL", None)
    model = npmobilenet.load(pets, backend="reference")
    assert len(model.classify(np.zeros((40, 50, 3), np.uint8), top=1)) == 1
    with pytest.raises(ImportError, match="pip install pillow"):
        model.classify(photo("coffee.png"))


@pytest.mark.parametrize("command", OF_PHOTOGRAPHS)
def test_photographs_alone_need_no_parser(command):
    given = [command, "a.jpg", "-", "folder/b c.png"]
    assert vars(plain(given)) == vars(parser([command]).parse_args(given))
    assert plain([command, "a.jpg", "--json"]) is plain([command]) is plain([]) is plain(["inspect", "a"]) is None
