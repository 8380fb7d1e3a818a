"""``npmobilenet features``: what is in the files, and that there are no others."""

import csv

import numpy as np
import pytest

import npmobilenet
from npmobilenet.cli import main
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
    assert header == ["image", *(f"feature{index}" for index in range(len(header) - 1))]
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
    written = ["f.csv", "f.csv.errors.csv", "f.names.txt", "f.npy", "f.npy.errors.csv", "f.npz", "f.npz.errors.csv"]
    assert sorted(file.name for file in tmp_path.iterdir() if file.name.startswith("f.")) == written


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
        ("new.txt", photos[0], [], "features are written as .npz, .npy, .csv, .parquet, .jsonl"),
        ("no/new.npz", photos[0], [], "cannot be written: No such file or directory"),
        (".", photos[0], [], "features are written as"),
    ):
        code, errors = features(images, "--out", tmp_path / out, *options)
        assert code == 1 and message in errors.splitlines()[-1]
    there = sorted(file.name for file in tmp_path.iterdir())
    assert there == ["new.npz.errors.csv", "old.npz", "old.npz.errors.csv", "pets.npz"]
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


def test_replacing_leaves_links_and_permissions_alone(tmp_path):
    with replacing(tmp_path / "plain") as file:
        file.write(b"1")
    usual = tmp_path / "usual"
    usual.write_bytes(b"")
    assert (tmp_path / "plain").stat().st_mode == usual.stat().st_mode
    target = tmp_path / "target.npy"
    (tmp_path / "link.npy").symlink_to(target)
    with replacing(tmp_path / "link.npy") as file:
        np.save(file, np.zeros(3))
    assert (tmp_path / "link.npy").is_symlink() and np.load(target).shape == (3,)
