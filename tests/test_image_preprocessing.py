"""The network's input from a picture: torchvision's and timm's, bit for bit."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from npmobilenet.errors import CheckpointError
from npmobilenet.image import FILTERS, Preprocessing, preprocess, read_image
from tests.pictures import CENTRE, PHOTOGRAPHS, PILLOW, ROOT, TORCHVISION, WHOLE, Image, compiled, noise, pillow_resize


def assert_is_reference(image_name, reference, preprocessing):
    """PNG: the very bits. JPEG: decoders may differ by a grey level, resampling averages it: at most 2."""
    result = preprocess(read_image(PHOTOGRAPHS[image_name]), preprocessing)
    assert result.dtype == np.float32 and result.flags.c_contiguous
    expected = np.load(ROOT / f"tests/data/reference/mobilenet_{reference}_{image_name}.npz")["input"][0]
    if PHOTOGRAPHS[image_name].suffix == ".png":
        np.testing.assert_array_equal(result, expected)
    else:
        levels = np.abs(result - expected) * 255 * np.reshape(preprocessing.std, (3, 1, 1))
        assert levels.max() < 2.01


@compiled
@pytest.mark.parametrize("image_name", PHOTOGRAPHS)
@pytest.mark.parametrize(
    ("reference", "preprocessing"), [("v1_imagenet", CENTRE), ("v2_imagenet", TORCHVISION)], ids=["v1", "v2"]
)
def test_input_is_that_of_the_references(image_name, reference, preprocessing):
    assert_is_reference(image_name, reference, preprocessing)


@pytest.mark.parametrize(
    ("image_name", "suffix", "preprocessing"),
    [
        (
            "chelsea",
            "_128x128",
            dataclasses.replace(TORCHVISION, resize=None, crop_fraction=1.0, crop=(128, 128)),
        ),
        pytest.param(
            "rocket",
            "_193x225",
            dataclasses.replace(TORCHVISION, resize=None, crop=(193, 225)),
            marks=compiled,
        ),
    ],
)
def test_input_of_other_sizes_is_that_of_the_references(image_name, suffix, preprocessing, monkeypatch):
    monkeypatch.setitem(PHOTOGRAPHS, image_name + suffix, PHOTOGRAPHS[image_name])
    assert_is_reference(image_name + suffix, "v2_imagenet", preprocessing)


def slow_preprocess(image, preprocessing):
    """Do everything in full with Pillow: resize all of it, pad, then crop."""
    resize, (height, width) = preprocessing.resize, preprocessing.crop
    h, w = image.shape[:2]
    if isinstance(resize, int):
        size = (int(resize * h / w), resize) if w <= h else (resize, int(resize * w / h))
    elif preprocessing.fit == "fill":
        size = resize
    else:
        ratio = {"cover": min, "contain": max}[preprocessing.fit](h / resize[0], w / resize[1])
        size = (max(round(h / ratio), 1), max(round(w / ratio), 1))
    resized = pillow_resize(image, size, filter=preprocessing.filter)
    pads = [max(height - size[0], 0), max(width - size[1], 0)]
    canvas = np.full((size[0] + pads[0], size[1] + pads[1], 3), preprocessing.border, np.uint8)
    canvas[pads[0] // 2 :, pads[1] // 2 :][: size[0], : size[1]] = resized
    cut = round if preprocessing.crop_rounding == "even" else int
    top, left = (cut((s - c) / 2.0) for s, c in zip(canvas.shape, (height, width), strict=False))
    resized = canvas
    pixels = resized[top : top + height, left : left + width].transpose(2, 0, 1).astype(np.float32)
    mean, std = (np.float32(v).reshape(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    return (pixels / np.float32(255) - mean) / std


SHAPES = [(9, 9), (9, 14), (15, 8), (7, 30), (40, 9), (1, 1), (1, 20), (33, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("short", "crop"), [(8, (6, 6)), (8, (5, 7)), (9, (4, 4)), (6, (8, 8)), (6, (3, 11)), (5, (9, 4))]
)
def test_only_the_crop_is_computed_and_nothing_changes(shape, short, crop):
    preprocessing = dataclasses.replace(TORCHVISION, resize=short, crop=crop)
    image = noise(*shape)
    np.testing.assert_array_equal(preprocess(image, preprocessing), slow_preprocess(image, preprocessing))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fit", ["fill", "cover", "contain"])
@pytest.mark.parametrize(("resize", "crop"), [((8, 9), (6, 6)), ((6, 5), (6, 5)), ((6, 11), (8, 9))])
def test_sizes_and_borders_of_other_kinds(shape, fit, resize, crop):
    image = noise(*shape)
    for filter, rounding in (("bicubic", "even"), ("nearest", "down")):
        preprocessing = dataclasses.replace(
            TORCHVISION, resize=resize, crop=crop, filter=filter, fit=fit, border=(9, 99, 200), crop_rounding=rounding
        )
        np.testing.assert_array_equal(preprocess(image, preprocessing), slow_preprocess(image, preprocessing))


def test_a_long_thin_picture_needs_no_memory_for_all_of_its_resized_length():
    thin = np.full((1, 70_000, 3), 255, np.uint8)
    for filter in FILTERS:  # resized to 500 x 35,000,000
        preprocessing = dataclasses.replace(TORCHVISION, resize=500, crop=(3, 4), filter=filter)
        result = preprocess(thin, preprocessing)
        assert result.shape == (3, 3, 4) and (result == result[:, :1, :1]).all() and result[0, 0, 0] > 2


@pytest.fixture(scope="module")
def transforms():
    """torchvision.transforms; without its compiled operators, two must be declared before the import."""
    torch = pytest.importorskip("torch")
    try:
        return pytest.importorskip("torchvision.transforms")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[module]
        return pytest.importorskip("torchvision.transforms")


@pytest.mark.torch
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("short", "crop"), [(8, (6, 6)), (8, (5, 7)), (6, (8, 8)), (6, (3, 11)), (5, (9, 4))])
def test_input_is_that_of_torchvision(transforms, shape, short, crop):
    if PILLOW < 13 and max(shape) > 2 * min(shape):
        pytest.skip("Pillow before 13 resizes tall pictures along x first")
    image = noise(*shape)
    expected = transforms.Compose(
        [
            transforms.Resize(short),
            transforms.CenterCrop(crop),
            transforms.ToTensor(),
            transforms.Normalize(TORCHVISION.mean, TORCHVISION.std),
        ]
    )(Image.fromarray(image)).numpy()
    result = preprocess(image, dataclasses.replace(TORCHVISION, resize=short, crop=crop))
    np.testing.assert_array_equal(result, expected)


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("filter", FILTERS)
def test_input_is_that_of_timm(transforms, filter, mode):
    factory = pytest.importorskip("timm.data.transforms_factory")
    for shape, size in (((40, 30), (16, 16)), ((9, 31), (16, 16)), ((33, 20), (14, 22)), ((7, 8), (21, 12))):
        if PILLOW < 13 and 2 * shape[1] < shape[0]:
            continue  # Pillow before 13 resizes tall pictures along x first
        config = {"input_size": [3, *size], "interpolation": filter, "crop_pct": 0.9, "crop_mode": mode}
        image = noise(*shape)
        transform = factory.transforms_imagenet_eval(size, 0.9, mode, interpolation=filter)
        expected = transform(Image.fromarray(image)).numpy()
        np.testing.assert_array_equal(preprocess(image, Preprocessing.from_config(config)), expected)


def test_all_256_values_are_normalised_as_documented():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    result = preprocess(image, dataclasses.replace(WHOLE, crop=(16, 16)))
    exact = (np.arange(256) / 127.5 - 1).reshape(16, 16)
    np.testing.assert_allclose(result, np.broadcast_to(exact, (3, 16, 16)), rtol=0, atol=1.2e-7)


def test_whole_picture_and_centre_square():
    image = noise(11, 16)
    whole = preprocess(image, dataclasses.replace(WHOLE, crop=(6, 5)))
    np.testing.assert_array_equal(np.rint(whole * 127.5 + 127.5).transpose(1, 2, 0), pillow_resize(image, (6, 5)))
    centre = preprocess(image, dataclasses.replace(CENTRE, crop=(6, 6)))  # int(0.875 * 11) = 9
    square = np.ascontiguousarray(image[1:10, 3:12])
    np.testing.assert_array_equal(np.rint(centre * 127.5 + 127.5).transpose(1, 2, 0), pillow_resize(square, (6, 6)))
    assert preprocess(noise(1, 1), dataclasses.replace(CENTRE, crop=(2, 2))).shape == (3, 2, 2)


def test_preprocessing_survives_json():
    for preprocessing in (TORCHVISION, CENTRE, WHOLE):
        values = preprocessing.to_dict()
        assert json.loads(json.dumps(values)) == values
        assert Preprocessing.from_dict(json.loads(json.dumps(values))) == preprocessing
        assert hash(Preprocessing.from_dict(values)) == hash(preprocessing)
    assert set(TORCHVISION.to_dict()) == {"resize", "crop", "crop_fraction", "mean", "std"}  # as it was before


def test_fields_that_are_not_usual_are_written():
    told = {
        "filter": "bicubic",
        "fit": "contain",
        "border": [1, 2, 3],
        "crop_rounding": "down",
        "decode": "torchvision",
    }
    preprocessing = Preprocessing.from_dict(TORCHVISION.to_dict() | told | {"resize": [256, 300]})
    assert preprocessing.resize == (256, 300) and preprocessing.border == (1, 2, 3)
    assert preprocessing.to_dict() == TORCHVISION.to_dict() | told | {"resize": [256, 300]}
    assert hash(Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict())))) == hash(preprocessing)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resize": 0}, "resize must be a positive integer up to 16384, .* or None, got 0"),
        ({"resize": True}, "resize must be"),
        ({"resize": "256"}, "resize must be"),
        ({"crop": [224]}, "crop must be .height, width."),
        ({"crop": 224}, "crop must be"),
        ({"crop": [224, 0]}, "crop must be"),
        ({"crop_fraction": 0}, "crop_fraction must be a number above 0"),
        ({"crop_fraction": 1.5}, "crop_fraction must be"),
        ({"crop_fraction": 0.5}, "exclude each other"),
        ({"mean": [0.5, 0.5]}, "mean must be three finite numbers"),
        ({"mean": [0, 0, float("nan")]}, "mean must be"),
        ({"std": [0.5, 0, 0.5]}, "std must be three positive numbers"),
        ({"std": [0.5, 0.5, 1e-9]}, "std must be three positive numbers, 1e-06 or more"),
        ({"resize": 10**400}, "resize must be a positive integer up to 16384"),
        ({"resize": 10**5000}, "resize must be"),
        ({"resize": [256, 0]}, "resize must be"),
        ({"resize": [256, 256, 256]}, "resize must be"),
        ({"crop": [20000, 1]}, "crop must be .height, width., two positive integers up to 16384"),
        ({"crop": [16000, 16000]}, "16,777,216 pixels in all"),
        ({"crop_fraction": 10**400, "resize": None}, "crop_fraction must be"),
        ({"mean": [10**400, 0, 0]}, "mean must be three finite numbers"),
        ({"mean": [10**5000, 0, 0]}, "mean must be three finite numbers"),
        ({"std": [10**400, 1, 1]}, "std must be"),
        ({"std": [1e300, 1, 1]}, "std must be"),
        ({"mean": ["0"] * 100_000}, "mean must be"),
        ({"filter": "cubic"}, "filter must be one of bilinear, .*, sampled_ends, got 'cubic'"),
        ({"filter": ["bilinear"]}, "filter must be one of"),
        ({"fit": None}, "fit must be one of fill, cover, contain"),
        ({"border": [0, 0, 256]}, "border must be three integers from 0 to 255"),
        ({"crop_rounding": "up"}, "crop_rounding must be one of even, down"),
        ({"decode": "opencv"}, "decode must be one of viewer, torchvision"),
        ({"a" * 100_000: 1}, "exactly the fields"),
        ({"colour": "BGR"}, "exactly the fields resize, crop, crop_fraction, mean, std"),
    ],
)
def test_impossible_preprocessing_is_refused(change, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        Preprocessing.from_dict(TORCHVISION.to_dict() | change)
    assert len(str(caught.value)) < 320 and str(caught.value).isprintable()


@pytest.mark.parametrize("values", [None, [], {"resize": 256}])
def test_metadata_that_is_no_preprocessing_is_refused(values):
    with pytest.raises(CheckpointError, match="exactly the fields"):
        Preprocessing.from_dict(values)
