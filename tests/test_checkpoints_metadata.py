"""Metadata of a checkpoint is as untrusted as its tensors: every number and every name in it is bounded."""

import json

import numpy as np
import pytest

from npmobilenet.checkpoints import export_weights, read_checkpoint
from npmobilenet.checkpoints.info import WeightsInfo
from npmobilenet.errors import CheckpointError
from npmobilenet.image import IMAGENET, Preprocessing
from tests.checkpoint_files import safetensors
from tests.conftest import no_kernels

pytestmark = no_kernels

HUGE = 10**400  # more than a float can be
TENSOR = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}


def metadata_of(tmp_path, text):
    """Read a file whose metadata are ``text``."""
    path = tmp_path / "file.safetensors"
    path.write_bytes(safetensors(json.dumps(TENSOR | {"__metadata__": {"npmobilenet": text}}), bytes(4)))
    return WeightsInfo.from_dict(read_checkpoint(path).metadata, "file")


def changed(**fields):
    return {"preprocessing": IMAGENET.to_dict() | fields}


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (changed(mean=[HUGE, 0, 0]), "mean must be three finite numbers up to 1,000,000, got"),
        (changed(mean=[0, 0, 1e300]), "mean must be"),
        (changed(mean=[-HUGE, 0, 0]), "mean must be"),
        (changed(std=[HUGE, 1, 1]), "std must be three positive numbers, 1e-06 or more, got"),
        (changed(std=[1e-300, 1, 1]), "std must be"),
        (changed(std=[1e-7, 1, 1]), "std must be"),
        (changed(std=[-1, 1, 1]), "std must be"),
        (changed(std=["1", 1, 1]), "std must be"),
        (
            changed(resize=HUGE),
            "resize must be a positive integer up to 16384, two of them (height, width), or None, got 1000",
        ),
        (changed(resize=10**9), "resize must be"),
        (changed(resize=16385), "resize must be"),
        (
            changed(crop=[30000, 30000]),
            "crop must be (height, width), two positive integers up to 16384 and 16,777,216 pixels in all, got (30000",
        ),
        (changed(crop=[16384, 16384]), "16,777,216 pixels in all, got (16384, 16384)"),
        (changed(crop=[HUGE, 224]), "crop must be"),
        (changed(crop=[224] * 10**5), "crop must be"),
        (changed(resize=None, crop_fraction=HUGE), "crop_fraction must be"),
        (changed(resize=None, crop_fraction=-HUGE), "crop_fraction must be"),
        (changed(**{"x\x1b[2J" * 9999: 1}), "preprocessing must have exactly the fields"),
        ({"preprocessing": [[1] * 10**5]}, "'preprocessing' must be an object, got a list of 1"),
        ({"bn_eps": HUGE}, "'bn_eps' must be a number from 1e-12 to 0.5, got 1000"),
        ({"bn_eps": 1e-320}, "'bn_eps' must be"),
        ({"bn_eps": True}, "'bn_eps' must be"),
        ({"top1": HUGE}, "'top1' must be a number from 0 to 100"),
        ({"top1": -HUGE}, "'top1' must be"),
        ({"top5": 100.5}, "'top5' must be"),
        ({"top5": {str(i): i for i in range(10**5)}}, "'top5' must be a number from 0 to 100, got an object of 100000"),
        ({"classes": ["x" * 1001]}, "'classes' must be a list of at most 1000000 names of at most 1000 characters"),
        ({"classes": ["x"] * 1_000_001}, "'classes' must be"),
        ({"classes": [["x"]]}, "'classes' must be"),
        ({"title": "x" * 100_001}, "'title' must be text of at most 100000 characters"),
        ({"padding": "\x1b[2J" * 9999}, r"'padding' must be 'symmetric' or 'same', got '\x1b[2J"),
    ],
)
def test_impossible_metadata_is_one_short_line(tmp_path, metadata, expected):
    with pytest.raises(CheckpointError) as caught:
        metadata_of(tmp_path, json.dumps(metadata))
    text = str(caught.value)
    assert expected in text and text.isprintable() and len(text) < 500


@pytest.mark.parametrize("digits", [1001, 5000, 10**6])
@pytest.mark.parametrize("name", ["bn_eps", "unknown"])
def test_integers_of_very_many_digits_are_no_numbers(tmp_path, digits, name):
    with pytest.raises(CheckpointError, match=r"its metadata is not valid JSON .*an integer of"):
        metadata_of(tmp_path, f'{{"{name}": {"9" * digits}}}')


def test_the_largest_that_is_possible_is_read(tmp_path):
    largest = changed(resize=16384, crop=[16384, 1024], mean=[-1e6, 0, 1e6], std=[1e-6, 1, 1e6])
    info = metadata_of(tmp_path, json.dumps({**largest, "top1": 100, "top5": 0, "bn_eps": 1e-12}))
    assert info.preprocessing.crop == (16384, 1024) and (info.top1, info.top5, info.bn_eps) == (100, 0, 1e-12)


def test_class_names_arrive_as_they_are(tmp_path):
    names = ["\x1b]0;owned\x07cat\n 99 %", "caf\ud800", "猫"]
    assert metadata_of(tmp_path, json.dumps({"classes": names})).classes == tuple(names)


def test_metadata_of_the_largest_numbers_survive_export(tmp_path):
    info = WeightsInfo(preprocessing=Preprocessing(None, (4096, 4096), 1.0, (0.0,) * 3, (1.0,) * 3), top1=70.5)
    path = export_weights({"w": np.ones(1, "f4")}, tmp_path / "w.npz", metadata=info.to_dict())
    assert WeightsInfo.from_dict(read_checkpoint(path).metadata) == info
