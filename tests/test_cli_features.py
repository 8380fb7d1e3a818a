"""``npmobilenet features``: what is in the files, and that there are no others."""

import csv
import os
import tracemalloc

import numpy as np
import pytest

import npmobilenet
from npmobilenet.cli import main
from npmobilenet.cli.feature_files import feature_file
from npmobilenet.files import replacing


@pytest.fixture
def photos(thumbnails):
    return [str(thumbnails / name) for name in ("coffee.png", "rocket.png", "chelsea.png")]


@pytest.fixture
def features(pets, capsys):
    """Run ``features`` with the small network; return the exit code and the errors."""
    pytest.importorskip("PIL")

    def run(*arguments):
        code = main(["features", *map(str, arguments), "--model", pets, "--backend", "reference"])
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def expected(pets, photos):
    model = npmobilenet.load(pets, backend="reference")
    return np.concatenate([model.features(model.preprocess(name)[None]) for name in photos])


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", *(f"feature{index}" for index in range(len(header) - 1))]
    return [row[0] for row in rows], np.array([row[1:] for row in rows], np.float32)


def test_the_same_in_every_kind_of_file(photos, features, expected, tmp_path):
    for name in ("f.npz", "f.npy", "f.csv"):
        code, errors = features(photos[0], "nowhere.png", *photos[1:], "--out", tmp_path / name)
        assert code == 1 and "nowhere.png" in errors and "1 of 4 images failed" in errors
    with np.load(tmp_path / "f.npz") as file:
        assert set(file) == {"names", "features"}
        assert file["names"].tolist() == photos and file["features"].dtype == np.float32
        np.testing.assert_array_equal(file["features"], expected)
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy", mmap_mode="r"), expected)
    assert (tmp_path / "f.names.txt").read_text(encoding="utf-8").splitlines() == photos
    names, values = read_csv(tmp_path / "f.csv")
    assert names == photos
    np.testing.assert_array_equal(values, expected)
    assert sorted(file.suffix for file in tmp_path.iterdir() if file.name.startswith("f.")) == [
        *(".csv", ".npy", ".npz", ".txt")
    ]


def test_feature_maps_of_a_block(photos, features, pets, tmp_path):
    out = tmp_path / "maps.npy"
    assert features(photos[0], "--out", out, "--block", "block3", "--crop", "40x32") == (0, "")
    model = npmobilenet.load(pets, backend="reference")
    assert np.load(out).shape == (1, model.graph.tensors["block3.project.weight"][0], 10, 8)
    code, errors = features(photos[0], "--out", tmp_path / "maps.csv", "--block", "block3")
    assert (code, "are no line of a table: write .npz or .npy" in errors) == (1, True)
    assert not (tmp_path / "maps.csv").exists()


def test_nothing_is_written_or_lost_if_all_fails(photos, features, tmp_path):
    (tmp_path / "old.npz").write_text("kept")
    for out, images, options, message in (
        ("old.npz", "nowhere.png", [], "not written: there are no features"),
        ("new.npz", "nowhere.png", [], "not written: there are no features"),
        ("new.npy", photos[0], ["--block", "neck"], "no block 'neck'"),
        ("new.txt", photos[0], [], "features are written as .npz, .npy, .csv"),
        ("no/new.npz", photos[0], [], "cannot be written: No such file or directory"),
        (".", photos[0], [], "features are written as"),
    ):
        code, errors = features(images, "--out", tmp_path / out, *options)
        assert code == 1 and message in errors.splitlines()[-1]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["old.npz", "pets.npz"]
    assert (tmp_path / "old.npz").read_text() == "kept"
    (tmp_path / "folder.npy").mkdir()
    assert "is a folder" in features(photos[0], "--out", tmp_path / "folder.npy")[1]


def test_features_that_are_not_finite_are_failures(photos, features, pets, tmp_path, capsys):
    with np.load(pets) as file:
        tensors = dict(file)
    name = "block2.project.norm.weight"
    tensors[name] = np.full_like(tensors[name], 3e38)  # finite, but not what follows
    np.savez(tmp_path / "broken.npz", **tensors)
    out = tmp_path / "f.npz"
    arguments = [
        "--model",
        str(tmp_path / "broken.npz"),
        "--backend",
        "reference",
        "--block",
        "block2",
        "--out",
        str(out),
    ]
    assert main(["features", photos[0], *arguments]) == 1
    assert f"{photos[0]}: its features are not finite" in capsys.readouterr().err and not out.exists()


def test_odd_names(tmp_path):
    names = ["caf\udce9.png", "two\nlines.png", "quote\"d, and 'so'.png", "é" * 100, "", "a"]
    for kind in ("npz", "npy", "csv"):
        with feature_file(tmp_path / f"f.{kind}") as rows:
            for index, name in enumerate(names):
                rows.append(name, np.full(3, index, np.float32))
    with np.load(tmp_path / "f.npz") as file:
        assert file["names"].tolist() == names
        assert file["features"][:, 0].tolist() == list(range(len(names)))
    shown = ["caf\\udce9.png", "two\\nlines.png", *names[2:]]
    assert (tmp_path / "f.names.txt").read_text(encoding="utf-8") == "".join(f"{name}\n" for name in shown)
    assert read_csv(tmp_path / "f.csv")[0] == shown


@pytest.mark.parametrize("shape", [(1,), (16384, 1, 1), (1, 123, 4567)])
def test_headers_of_all_lengths(shape, tmp_path):
    row = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    with feature_file(tmp_path / "f.npy") as rows:
        for _ in range(3):
            rows.append("a", row[:, ::-1] if len(shape) > 1 else row)
    stored = np.load(tmp_path / "f.npy")
    assert stored.shape == (3, *shape) and stored.flags.c_contiguous
    np.testing.assert_array_equal(stored[2], row[:, ::-1] if len(shape) > 1 else row)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    row = np.zeros(5000, np.float32)
    peaks = []
    for count in (100, 2000):
        tracemalloc.start()
        with feature_file(tmp_path / "f.npz") as rows:
            for index in range(count):
                rows.append(f"folder/{index:050}.png", row)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (4 << 20)  # 2000 rows are 40 MB
    with np.load(tmp_path / "f.npz") as file:
        assert file["features"].shape == (2000, 5000) and file["names"][-1] == f"folder/{1999:050}.png"


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("npmobilenet.cli.feature_files._ArrayFile.append", lambda self, row: full(self, row))
    with (
        pytest.raises(ValueError, match=r"f\.npz: cannot be written: No space left on device"),
        feature_file(tmp_path / "f.npz") as rows,
    ):
        rows.append("a", np.zeros(3, np.float32))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "link.npz").symlink_to("pipe.csv")
    (tmp_path / "circle.npz").symlink_to("circle.npz")
    (tmp_path / "folder.npy").mkdir()
    before = sorted(tmp_path.iterdir())
    problems = {"pipe.csv": "a pipe", "link.npz": "a pipe", "circle.npz": "", "folder.npy": ""}
    for name, problem in problems.items():
        message = f"{name}: (cannot be written|is a folder).*{problem}"
        with pytest.raises(ValueError, match=message), feature_file(tmp_path / name) as file:
            file.append("a", np.zeros(3, np.float32))
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "pipe.csv").is_fifo()


def test_replacing_leaves_links_and_permissions_alone(tmp_path):
    with replacing(tmp_path / "plain") as file:
        file.write(b"1")
    usual = tmp_path / "usual"
    usual.write_bytes(b"")
    assert (tmp_path / "plain").stat().st_mode == usual.stat().st_mode
    target = tmp_path / "target.npy"
    (tmp_path / "link.npy").symlink_to(target)
    with feature_file(tmp_path / "link.npy") as rows:
        rows.append("a", np.zeros(3, np.float32))
    assert (tmp_path / "link.npy").is_symlink() and np.load(target).shape == (1, 3)
