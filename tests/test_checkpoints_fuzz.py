"""A seeded sample of `tests.fuzz_checkpoints`, and that it sees what it looks for."""

import contextlib
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest

from npmobilenet.checkpoints import read_checkpoint
from tests import fuzz_checkpoints as fuzz
from tests.conftest import no_kernels

pytestmark = no_kernels

COPIES = 300


@pytest.fixture(scope="module")
def watch():
    return fuzz.Watch()


@pytest.fixture(scope="module")
def originals():
    return fuzz.samples()


def test_undamaged_files_are_read(tmp_path, watch, originals):
    assert len(originals) > 30
    for name, original in originals.items():
        path = fuzz.write(tmp_path / name, original)
        read_checkpoint(path)
        assert fuzz.trial(path, watch) == "read", name


def test_damaged_copies_are_read_or_refused(tmp_path, watch, originals):
    for name, original in originals.items():
        read_checkpoint(fuzz.write(tmp_path / name, original))
    results = [fuzz.trial(fuzz.write_copy(seed, tmp_path, originals), watch) for seed in range(COPIES)]
    assert 10 < results.count("read") < COPIES - 100
    assert len(set(results)) > 100


def test_a_copy_is_made_again_from_its_seed(tmp_path, originals):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for seed in (3, 4, 5):
        first, second = (fuzz.write_copy(seed, tmp_path / folder, originals) for folder in "ab")
        assert first.is_dir() or first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    "act",
    [
        lambda path: pickle.loads(path.read_bytes()),
        lambda path: subprocess.run([sys.executable, "--version"], check=True, capture_output=True),
        lambda path: path.with_name("new").write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: __import__("antigravity_of_no_module", level=0),
        lambda path: eval("1 + 1"),
    ],
)
def test_what_must_not_happen_is_seen(tmp_path, watch, act, monkeypatch):
    def reading(path):
        with contextlib.suppress(ImportError):
            act(path)
        return read_checkpoint(copy)

    path, copy = tmp_path / "file.pkl", tmp_path / "copy.pkl"
    for each in (path, copy):
        each.write_bytes(pickle.dumps({"w": random.Random(0)}, 2))
    monkeypatch.setattr(fuzz, "read_checkpoint", reading)
    with pytest.raises(AssertionError, match=r"\w"):
        fuzz.trial(Path(path), watch)


def test_too_much_memory_is_seen(tmp_path, watch, monkeypatch):
    kept = []
    monkeypatch.setattr(fuzz, "BASE", 1 << 20)
    monkeypatch.setattr(fuzz, "read_checkpoint", lambda path: kept.append(bytes(2 << 20)))
    with pytest.raises(AssertionError, match="MiB for a file of 1 bytes"):
        fuzz.trial(fuzz.write(tmp_path / "file", b"x"), watch)
