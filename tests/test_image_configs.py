"""Preprocessing as timm and Hugging Face write it down, and as nobody should."""

import json
import math

import pytest

from npmobilenet.errors import CheckpointError
from npmobilenet.image import IMAGENET, Preprocessing, has_preprocessing, read_preprocessing

HALF = (0.5,) * 3
TIMM = {
    "input_size": [3, 224, 224],
    "interpolation": "bicubic",
    "crop_pct": 0.95,
    "crop_mode": "center",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "fixed_input_size": False,
    "num_classes": 1000,
    "classifier": "classifier",
}
MOBILENET_V2 = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_normalize": True,
    "do_reduce_labels": False,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "MobileNetV2ImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 256},
}
EFFICIENTNET = MOBILENET_V2 | {
    "do_center_crop": False,
    "image_processor_type": "EfficientNetImageProcessor",
    "include_top": True,
    "resample": 3,
    "rescale_offset": False,
    "size": {"height": 300, "width": 346},
}


def of_timm(**changes):
    return Preprocessing.from_config(TIMM | changes)


def of_hugging_face(base=MOBILENET_V2, **changes):
    return Preprocessing.from_config(base | changes)


def test_timm():
    usual = Preprocessing(235, (224, 224), None, HALF, HALF, filter="bicubic")  # 224 / 0.95 = 235.8
    assert of_timm() == usual
    assert Preprocessing.from_config({"architecture": "mobilenetv3_large_100", "pretrained_cfg": TIMM}) == usual
    assert of_timm(interpolation="bilinear").filter == "bilinear"
    assert of_timm(crop_pct=1.0).resize == 224
    assert of_timm(crop_mode="squash", crop_pct=0.9).resize == (248, 248)
    border = of_timm(crop_mode="border", mean=[0.485, 0.456, 0.406])
    assert (border.resize, border.fit, border.border) == ((235, 235), "contain", (124, 116, 104))
    wide = of_timm(input_size=[3, 192, 256], crop_pct=0.875)
    assert (wide.resize, wide.crop, wide.fit) == ((219, 292), (192, 256), "cover")


def test_timm_has_values_for_what_is_not_there():
    expected = Preprocessing(256, (224, 224), None, IMAGENET.mean, IMAGENET.std, filter="bicubic")
    assert Preprocessing.from_config({"input_size": [3, 224, 224]}) == expected
    assert Preprocessing.from_config({"pretrained_cfg": {}, "input_size": [3, 9, 9]}) == expected
    assert Preprocessing.from_config(dict.fromkeys(TIMM) | {"input_size": [3, 224, 224]}) == expected


def test_hugging_face():
    usual = Preprocessing(256, (224, 224), None, HALF, HALF, crop_rounding="down")
    assert of_hugging_face() == usual
    assert of_hugging_face(size=256, crop_size=224) == usual  # as files were written until 2022
    assert of_hugging_face(size={"height": 256, "width": 300}).resize == (256, 300)
    exact = of_hugging_face(do_center_crop=False, size={"height": 192, "width": 160})
    assert (exact.resize, exact.crop) == (None, (192, 160))
    assert of_hugging_face(do_center_crop=False, size=192).crop == (192, 192)
    filters = [of_hugging_face(resample=number).filter for number in range(6)]
    assert filters == ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
    assert of_hugging_face(image_mean=0.5, image_std=0.5) == usual
    assert Preprocessing.from_config({"crop_size": 224, "size": 256, "image_mean": HALF, "image_std": HALF}) == usual


def value_of(preprocessing, value):
    return (value / 255 - preprocessing.mean[0]) / preprocessing.std[0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, lambda v: (v / 255 - 0.5) / 0.25),
        ({"do_normalize": False, "include_top": False}, lambda v: v / 255),
        ({"do_rescale": False}, lambda v: (v - 0.5) / 0.25),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True}, lambda v: (v / 127.5 - 1 - 0.5) / 0.25),
        (
            {"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False, "include_top": False},
            lambda v: v / 127.5 - 1,
        ),
    ],
)
def test_steps_on_values_become_one(changes, expected):
    preprocessing = of_hugging_face(EFFICIENTNET, **changes)
    assert (preprocessing.resize, preprocessing.crop, preprocessing.filter) == (None, (300, 346), "bicubic")
    for value in (0, 1, 128, 255):
        assert math.isclose(value_of(preprocessing, value), expected(value), abs_tol=1e-12)


def test_efficientnet_is_divided_twice_unless_it_says_not():
    silent = {name: value for name, value in EFFICIENTNET.items() if name != "include_top"}
    assert Preprocessing.from_config(silent).std == (0.25,) * 3
    assert of_hugging_face(EFFICIENTNET, include_top=False).std == HALF
    assert of_hugging_face().std == HALF


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": [1, 224, 224]}, r"input_size must be \[3, height, width\], got \[1, 224, 224\]"),
        ({"input_size": [3, 10**400, 224]}, "input_size must be"),
        ({"input_size": 224}, "input_size must be"),
        ({"interpolation": "random"}, "interpolation must be one of bilinear, .* got 'random'"),
        ({"interpolation": ["bicubic"]}, "interpolation must be"),
        ({"crop_pct": -1}, "crop_pct must be a positive number"),
        ({"crop_pct": 1e-9}, "crop_pct 1e-09 of 224x224 is no possible size"),
        ({"crop_pct": 1e6}, "crop_pct"),
        ({"crop_pct": float("nan")}, "crop_pct must be"),
        ({"crop_mode": "five"}, "crop_mode must be one of center, squash, border, got 'five'"),
        ({"mean": [0.5]}, "mean must be three numbers"),
        ({"mean": "x" * 100_000}, "mean must be three numbers"),
        ({"std": [0, 1, 1]}, "std must be three positive numbers"),
        ({"std": [10**5000, 1, 1]}, "std must be three numbers"),
    ],
)
def test_impossible_fields_of_timm(changes, message):
    assert_refused(TIMM | changes, message)
    assert_refused({"pretrained_cfg": TIMM | changes}, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": {"shortest_edge": 10**400}}, "size must be"),
        ({"size": {"longest_edge": 256}}, "size must be a number, .* got {'longest_edge': 256}"),
        ({"size": {"shortest_edge": 256, "longest_edge": 300}}, "size must be"),
        ({"size": None}, "size must be"),
        ({"crop_size": [224, 224]}, "crop_size must be"),
        ({"do_center_crop": False}, "size gives the shorter side only and do_center_crop is false"),
        ({"do_resize": False}, "do_resize must be true"),
        ({"do_center_crop": "yes"}, "do_center_crop must be true or false"),
        ({"do_pad": True}, "do_pad must be false"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order must be false"),
        ({"do_sharpen": 1}, "do_sharpen must be false"),
        ({"crop_pct": 0.9}, "crop_pct must be null"),
        ({"resample": 6}, "resample must be one of Pillow's numbers 0 to 5, got 6"),
        ({"resample": True}, "resample must be"),
        ({"rescale_factor": 0}, "rescale_factor must be a positive number"),
        ({"rescale_factor": 1e6}, "std must be three positive numbers"),
        ({"image_mean": None}, "image_mean must be three numbers"),
        ({"image_std": [0.5, 0.5, float("inf")]}, "image_std must be three numbers"),
        ({"image_std": [0.5, 0.5, 0]}, "std must be three positive numbers"),
    ],
)
def test_impossible_fields_of_hugging_face(changes, message):
    assert_refused(MOBILENET_V2 | changes, message)


def assert_refused(config, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        Preprocessing.from_config(config)
    assert len(str(caught.value)) < 300 and str(caught.value).isprintable()


@pytest.mark.parametrize("config", [{}, [], None, "x", {"model_type": "mobilenet_v2", "image_size": 224}])
def test_what_says_nothing_about_preprocessing(config):
    assert not has_preprocessing(config)
    assert_refused(config, "no preprocessing: expected timm's fields .* or Hugging Face's")


def test_what_says_something():
    for config in (TIMM, {"pretrained_cfg": TIMM}, MOBILENET_V2, EFFICIENTNET, TIMM | {"crop_pct": "?"}):
        assert has_preprocessing(config)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (IMAGENET.to_dict(), IMAGENET),
        ({"preprocessing": IMAGENET.to_dict(), "licence": "MIT"}, IMAGENET),
        (TIMM, of_timm()),
        (MOBILENET_V2, of_hugging_face()),
    ],
)
def test_files_of_each_kind(tmp_path, values, expected):
    path = tmp_path / "preprocessing.json"
    path.write_text(json.dumps(values))
    assert read_preprocessing(path) == read_preprocessing(str(path)) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe{", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b'{"crop": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[1, 2]", "no preprocessing"),
        (b'{"crop": [224, 224]}', "exactly the fields"),
        (b'{"input_size": [3, 1e999, 1]}', "input_size must be"),
        (b" " * (16 << 20) + b"{}", "more than 16 MB"),
    ],
)
def test_files_that_are_none(tmp_path, content, message):
    path = tmp_path / "preprocessing.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_preprocessing(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and len(text) < 400 + len(str(path))


def test_files_that_cannot_be_opened(tmp_path):
    for path in (tmp_path, tmp_path / "missing.json", tmp_path / "a\0b"):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_preprocessing(path)
