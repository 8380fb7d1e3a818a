"""Pictures: the right pixels from every file, Pillow's resampling and torchvision's input bit for bit."""

import dataclasses
import importlib.machinery
import importlib.util
import io
import json
import struct
import subprocess
import sys
import tracemalloc
import types
import zlib
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npmobilenet.errors import CheckpointError, ImageError, MissingDependencyError
from npmobilenet.image import (
    FILTERS,
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    Preprocessing,
    package_for,
    preprocess,
    read_image,
    resize,
    unreadable_suffixes,
)

Image = pytest.importorskip("PIL.Image")

PILLOW = int(Image.__version__.split(".")[0])
ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests/data"
PHOTOGRAPHS = {
    "coffee": ROOT / "examples/coffee.png",
    "chelsea": DATA / "images/chelsea.png",
    "astronaut": DATA / "images/astronaut.png",
    "rocket": DATA / "images/rocket.jpg",
    "grace_hopper": DATA / "images/grace_hopper.jpg",
}
TORCHVISION = Preprocessing(256, (224, 224), None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CENTRE = Preprocessing(None, (224, 224), 0.875, (0.5,) * 3, (0.5,) * 3)
WHOLE = dataclasses.replace(CENTRE, crop_fraction=None)

compiled = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="takes minutes where Numba does not compile")
EXAMPLES, LONGEST = (15, 12) if numba.config.DISABLE_JIT else (250, 90)


def noise(height, width, seed=0):
    """Return random pixels, half of them black or white: extremes show rounding and overflow best."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.where(rng.random(image.shape) < 0.5, image, np.where(image < 128, 0, 255)).astype(np.uint8)


def pillow_resize(image, size, box=None, filter="bilinear"):
    """Resize with Pillow, in the order of passes of Pillow 13 whatever the version."""
    pil, filter = Image.fromarray(image), Image.Resampling[filter.upper()]
    height, width = size
    vertical_first = pil.height > height and pil.height - height > 2 * (pil.width - width)
    if PILLOW < 13 and vertical_first and filter != Image.Resampling.NEAREST:
        left, upper, right, lower = box or (0, 0, *pil.size)
        pil = pil.resize((pil.width, height), filter, (0, upper, pil.width, lower))
        box = (left, 0, right, height)
    return np.asarray(pil.resize((width, height), filter, box))


# --- Resizing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filter", FILTERS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_resize_equals_pillow(filter, data):
    sides = st.integers(1, LONGEST)
    height, width, *size = (data.draw(sides) for _ in range(4))
    box = None
    if data.draw(st.booleans()):

        def edges(length):
            return data.draw(st.lists(st.floats(0, length, width=32), min_size=2, max_size=2, unique=True))

        (left, right), (upper, lower) = sorted(edges(width)), sorted(edges(height))
        box = (left, upper, right, lower)
    image = noise(height, width, data.draw(st.integers(0, 9)))
    np.testing.assert_array_equal(resize(image, size, box, filter), pillow_resize(image, size, box, filter))


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize(
    ("shape", "size", "box"),
    [
        ((1, 1), (7, 5), None),
        ((1, 1), (1, 1), None),
        ((5, 7), (5, 7), None),
        ((5, 7), (5, 9), None),
        ((5, 7), (9, 7), None),
        ((60, 20), (30, 19), None),  # the height loses more than twice as much: along y first
        ((60, 20), (20, 40), None),
        ((1, 700), (3, 2), None),
        ((700, 1), (2, 3), None),
        ((9, 8), (4, 4), (2, 3, 6, 7)),
        ((9, 8), (3, 5), (0.25, 0.5, 7.75, 8.875)),
        ((9, 8), (6, 5), (3.9, 4.1, 4.0, 4.2)),
    ],
)
def test_resize_equals_pillow_in_the_corners(shape, size, box, filter):
    image = noise(*shape)
    result = resize(image, size, box, filter)
    np.testing.assert_array_equal(result, pillow_resize(image, size, box, filter))
    assert result.dtype == np.uint8 and not np.shares_memory(result, image)


@compiled
def test_resize_keeps_white_white_where_rounded_weights_add_up_to_more_than_one():
    image = np.full((1, 20001, 3), 255, np.uint8)
    np.testing.assert_array_equal(resize(image, (1, 1)), [[[255, 255, 255]]])
    np.testing.assert_array_equal(resize(image, (1, 1)), pillow_resize(image, (1, 1)))


def test_resize_takes_any_memory_layout():
    base = noise(10, 12)
    read_only = base.copy()
    read_only.flags.writeable = False
    expected = resize(base, (4, 5))
    for same in (read_only, np.asfortranarray(base), np.repeat(base, 2, axis=1)[:, ::2], base[::-1][::-1]):
        np.testing.assert_array_equal(resize(same, (4, 5)), expected)


@pytest.mark.parametrize("box", [(-1, 0, 4, 4), (0, 0, 4, 9), (2, 0, 2, 4), (3, 0, 2, 4), (0, float("nan"), 4, 4)])
def test_resize_refuses_boxes_outside_the_image(box):
    with pytest.raises(ValueError, match=r"box must be .* within \(0, 0, 4, 8\)"):
        resize(noise(8, 4), (2, 2), box)


@pytest.mark.parametrize("size", [(0, 4), (4,), (4, -1), (4.5, 4)])
def test_resize_refuses_impossible_sizes(size):
    with pytest.raises(ValueError, match=r"size must be .*height, width"):
        resize(noise(8, 4), size)


def test_resize_refuses_unknown_filters():
    with pytest.raises(ValueError, match=r"filter must be one of bilinear, bicubic, nearest, .* got 'cubic'"):
        resize(noise(8, 4), (2, 2), filter="cubic")


# --- The network's input -----------------------------------------------------------------------------------


def assert_is_reference(image_name, reference, preprocessing):
    """PNG: the very bits. JPEG: decoders may differ by a grey level, resampling averages it: at most 2."""
    result = preprocess(read_image(PHOTOGRAPHS[image_name]), preprocessing)
    assert result.dtype == np.float32 and result.flags.c_contiguous
    expected = np.load(DATA / f"reference/mobilenet_{reference}_{image_name}.npz")["input"][0]
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


# --- Reading: every mode -----------------------------------------------------------------------------------


def encode(image, file_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, bits, colour_type, rows, *chunks):
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_tiff_tag(tiff, tag, value):
    """Return a little-endian TIFF with one short tag overwritten."""
    assert tiff[:2] == b"II"
    (directory,) = struct.unpack("<I", tiff[4:8])
    (entries,) = struct.unpack("<H", tiff[directory : directory + 2])
    for at in range(directory + 2, directory + 2 + 12 * entries, 12):
        if struct.unpack("<H", tiff[at : at + 2])[0] == tag:
            return tiff[: at + 8] + struct.pack("<H", value) + tiff[at + 10 :]
    raise AssertionError(f"no tag {tag}")


COLOUR = Image.new("RGB", (2, 1), (200, 100, 50))
COLOUR.putpixel((1, 0), (10, 20, 250))
GREY16 = np.array([[0, 1000, 32896, 65535]], np.uint16)
GREY8 = [
    0,
    4,
    128,
    255,
]  # the same, divided by 257 and rounded; Pillow's own conversion gives 0, 255, 255, 255


def assert_pixels(source, expected, tolerance=0):
    """Compare one row of pixels; a number stands for grey."""
    result = read_image(source)
    expected = [[v] * 3 if isinstance(v, int) else list(v) for v in expected]
    assert result.dtype == np.uint8 and result.shape == (1, len(expected), 3) and result.flags.c_contiguous
    np.testing.assert_allclose(result[0].astype(int), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("mode", "tolerance"),
    [("RGB", 0), ("RGBA", 0), ("RGBX", 0), ("RGBa", 0), ("CMYK", 0), ("YCbCr", 2), ("HSV", 3)],
)
def test_colour_modes(mode, tolerance):
    image = COLOUR.convert("RGBA").convert(mode) if mode == "RGBa" else COLOUR.convert(mode)
    assert image.mode == mode
    assert_pixels(image, [(200, 100, 50), (10, 20, 250)], tolerance)


@pytest.mark.skipif(PILLOW < 11, reason="Pillow 9 refuses LAB")
def test_lab():
    cms = pytest.importorskip("PIL.ImageCms")
    profiles = cms.createProfile("sRGB"), cms.createProfile("LAB")
    rgb = [(200, 100, 50), (60, 120, 90)]
    image = Image.frombytes("RGB", (2, 1), bytes(sum(rgb, ())))
    image = cms.applyTransform(image, cms.buildTransform(*profiles, "RGB", "LAB"))
    assert image.mode == "LAB"
    assert_pixels(image, rgb, tolerance=2)
    assert_pixels(encode(image, "TIFF"), rgb, tolerance=2)


def test_grey_and_bilevel():
    grey = Image.frombytes("L", (2, 1), bytes([7, 200]))
    assert_pixels(encode(grey), [7, 200])
    assert_pixels(grey.convert("LA"), [7, 200])
    assert_pixels(grey.convert("LA").convert("La"), [7, 200])
    assert_pixels(encode(grey.convert("1", dither=Image.Dither.NONE)), [0, 255])
    assert_pixels(png(4, 1, 2, 0, b"\0\x1b"), [0, 85, 170, 255])  # 2 bits


def test_palettes():
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    image.putpalette([200, 100, 50, 10, 20, 250, 0, 0, 0])
    opaque = [(200, 100, 50), (10, 20, 250), (0, 0, 0)]
    assert_pixels(encode(image), opaque)
    assert_pixels(encode(image, "GIF"), opaque)
    if PILLOW >= 11:  # Pillow 9 loses the palette on the way to PA
        assert_pixels(image.convert("PA"), opaque)
    one_transparent = [opaque[0], (255, 255, 255), opaque[2]]
    assert_pixels(encode(image, transparency=1), one_transparent)
    assert_pixels(encode(image, "GIF", transparency=1), one_transparent)
    half = [(200, 100, 50), (255, 255, 255), (127, 127, 127)]  # 255 * (1 - 128 / 255)
    assert_pixels(encode(image, transparency=bytes([255, 0, 128])), half)


def test_transparency_lies_over_white():
    rgba = Image.frombytes("RGBA", (3, 1), bytes([200, 100, 50, 255, 200, 100, 50, 0, 200, 100, 50, 51]))
    expected = [(200, 100, 50), (255, 255, 255), (244, 224, 214)]  # 20 % colour, 80 % white
    assert_pixels(encode(rgba), expected)
    assert_pixels(np.asarray(rgba), expected)
    assert_pixels(Image.frombytes("LA", (2, 1), bytes([0, 0, 0, 51])), [255, 204])
    key = chunk(b"tRNS", struct.pack(">HHH", 4, 5, 6))
    assert_pixels(png(2, 1, 8, 2, b"\0" + bytes([1, 2, 3, 4, 5, 6]), key), [(1, 2, 3), 255])


def test_sixteen_bit_grey():
    image = Image.fromarray(GREY16)
    assert_pixels(encode(image), GREY8)
    assert_pixels(encode(image, "TIFF"), GREY8)
    assert_pixels(image, GREY8)
    big_endian = Image.frombytes("I;16B", (4, 1), GREY16.astype(">u2").tobytes())
    assert_pixels(big_endian, GREY8)
    tiff = encode(big_endian, "TIFF")
    assert tiff[:2] == b"MM"
    assert_pixels(tiff, GREY8)
    assert_pixels(b"P5 4 1 65535\n" + GREY16.astype(">u2").tobytes(), GREY8)
    key = chunk(b"tRNS", struct.pack(">H", 1000))
    assert_pixels(png(4, 1, 16, 0, b"\0" + GREY16.astype(">u2").tobytes(), key), [0, 255, 128, 255])


@pytest.mark.skipif(PILLOW < 11, reason="Pillow 9 refuses 16-bit TIFF with white at zero")
def test_sixteen_bit_grey_with_white_at_zero():
    tiff = with_tiff_tag(encode(Image.fromarray(GREY16), "TIFF"), 262, 0)
    assert_pixels(tiff, [255, 251, 127, 0])


def test_twelve_bit_grey_tiff_is_not_dark():
    tiff = with_tiff_tag(encode(Image.fromarray(GREY16), "TIFF"), 258, 12)
    # The eight bytes 00 00 e8 03 80 80 ff ff hold 12-bit numbers now: 0x000 0x0e8 0x038 0x080 ...
    assert_pixels(tiff, [round(v * 255 / 4095) for v in (0x000, 0x0E8, 0x038, 0x080)])


def test_sixteen_bit_colour():
    samples = struct.pack(">6H", 65535, 32896, 257, 0, 0, 40000)
    assert_pixels(png(2, 1, 16, 2, b"\0" + samples), [(255, 128, 1), (0, 0, 156)])
    assert_pixels(png(1, 1, 16, 6, b"\0" + struct.pack(">4H", 0, 0, 65535, 0)), [255])
    assert_pixels(png(1, 1, 16, 4, b"\0" + struct.pack(">2H", 32896, 65535)), [128])


def test_jpeg_colour_spaces():
    image = COLOUR.resize((16, 16), Image.Resampling.NEAREST)
    for mode in ("RGB", "CMYK"):  # Pillow writes CMYK with Adobe's marker and inverted, as Photoshop does
        data = encode(image.convert(mode), "JPEG", quality=95)
        assert (b"Adobe" in data) == (mode == "CMYK")
        assert np.abs(read_image(data)[4, 3].astype(int) - (200, 100, 50)).max() <= 8


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(file_format):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    try:
        options = {"lossless": True} if file_format == "WEBP" else {}
        data = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow cannot write {file_format}")
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert (read_image(data) == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG"])
def test_exif_orientation(tmp_path, orientation, file_format):
    upright = np.kron(np.array([[0, 80, 160], [40, 120, 240]], np.uint8), np.ones((8, 8), np.uint8))
    upright = np.repeat(upright[:, :, None], 3, axis=2)
    # How the camera stores it: the inverse of what ImageOps.exif_transpose does.
    transpose = Image.Transpose
    stored = {
        1: lambda a: a,
        2: lambda a: a.transpose(transpose.FLIP_LEFT_RIGHT),
        3: lambda a: a.transpose(transpose.ROTATE_180),
        4: lambda a: a.transpose(transpose.FLIP_TOP_BOTTOM),
        5: lambda a: a.transpose(transpose.TRANSPOSE),
        6: lambda a: a.transpose(transpose.ROTATE_90),
        7: lambda a: a.transpose(transpose.TRANSVERSE),
        8: lambda a: a.transpose(transpose.ROTATE_270),
    }[orientation](Image.fromarray(upright))
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"picture.{file_format.lower()}"
    stored.save(path, file_format, exif=exif, **({"quality": 100} if file_format == "JPEG" else {}))
    tolerance = 2 if file_format == "JPEG" else 0
    with Image.open(path) as opened:
        for source in (path, opened):
            result = read_image(source)
            assert result.shape == upright.shape and result.flags.c_contiguous
            assert np.abs(result.astype(int) - upright).max() <= tolerance


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_or_unknown_orientation_is_ignored():
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"):
        assert read_image(encode(COLOUR, exif=exif)).shape == (1, 2, 3)
    exif = Image.Exif()
    exif[274] = 77
    assert_pixels(encode(COLOUR, exif=exif), [(200, 100, 50), (10, 20, 250)])


# --- Reading: every kind of source -------------------------------------------------------------------------


def test_sources_agree(tmp_path):
    image = noise(5, 6)
    data = encode(Image.fromarray(image))
    path = tmp_path / "Übung 1.png"
    path.write_bytes(data)
    for source in (path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), image):
        np.testing.assert_array_equal(read_image(source), image)
    np.testing.assert_array_equal(read_image(Image.fromarray(image)), image)
    with path.open("rb") as file:
        np.testing.assert_array_equal(read_image(file), image)
        assert not file.closed
    with Image.open(path) as opened:
        np.testing.assert_array_equal(read_image(opened), image)
        assert opened.size == (6, 5) and opened.getpixel((0, 0)) == tuple(image[0, 0])  # still usable


def test_arrays():
    image = noise(5, 6)
    assert read_image(image) is image
    grey = image[:, :, 0]
    for same in (grey, grey[:, :, None]):
        np.testing.assert_array_equal(read_image(same), np.repeat(grey[:, :, None], 3, axis=2))
    opaque = np.dstack([image, np.full((5, 6), 255, np.uint8)])
    np.testing.assert_array_equal(read_image(opaque), image)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5, 3)), r"got dtype float64: .*\(array \* 255\)"),
        (np.zeros((4, 5, 3), np.uint16), r"got dtype uint16: .*\(array / 257\)"),
        (np.zeros((4, 5, 3), bool), "got dtype bool"),
        (np.zeros((3, 40, 50), np.uint8), r"got shape \(3, 40, 50\): .*transpose\(1, 2, 0\)"),
        (np.zeros((40, 50, 2), np.uint8), r"got shape \(40, 50, 2\)$"),
        (np.zeros((1, 40, 50, 3), np.uint8), "one by one"),
        (np.zeros(9, np.uint8), r"got shape \(9,\)$"),
        (np.zeros((0, 5, 3), np.uint8), r"an empty array of shape \(0, 5, 3\)"),
        (np.zeros((0, 5), np.uint8), "an empty array"),
    ],
)
def test_arrays_that_are_no_image(array, message):
    for function in (read_image, lambda a: preprocess(a, WHOLE), lambda a: resize(a, (2, 2))):
        with pytest.raises(ImageError, match=message) as caught:
            function(array)
        assert "expected a uint8 array (height, width, 3), RGB" in str(caught.value)


def truncated(file_format):
    data = encode(Image.fromarray(noise(64, 64)), file_format)
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"This is a text.\n" * 9, "not an image in a format that Pillow can read"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded|not an image"),
        (truncated("PNG"), "cannot be decoded; is it damaged or cut short"),
        (truncated("JPEG"), "cannot be decoded; is it damaged or cut short"),
        (truncated("GIF"), "cannot be decoded; is it damaged or cut short"),
        (truncated("BMP"), "cannot be decoded; is it damaged or cut short"),
        (truncated("TIFF"), "cannot be decoded|not an image"),
        (png(60000, 60000, 8, 0, b"\0"), "3600000000 pixels.*NPMOBILENET_MAX_PIXELS"),
        (png(0, 1, 8, 0, b"\0"), "not an image|nothing in it"),
        (encode(Image.fromarray(GREY16.astype(np.int32)), "TIFF"), "32-bit or signed integer pixels"),
        (encode(Image.fromarray(GREY16.astype(np.float32)), "TIFF"), "floating-point pixels"),
        (encode(COLOUR, "EPS"), "a vector picture"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, content, message):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    for source, name in ((path, str(path)), (content, "image bytes")):
        with pytest.raises(ImageError, match=message) as caught:
            read_image(source)
        text = str(caught.value)
        assert text.startswith(f"{name}: ") and "\n" not in text and "Traceback" not in text
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_paths_that_cannot_be_opened(tmp_path):
    for path in (tmp_path / "missing.png", tmp_path, tmp_path / "a\0b", tmp_path / "a\nb"):
        with pytest.raises(ImageError, match="cannot be opened") as caught:
            read_image(path)
        assert "\n" not in str(caught.value) and "\0" not in str(caught.value)
        assert tmp_path.name in str(caught.value)


@pytest.mark.parametrize("source", [None, 3, [[1, 2]], object()])
def test_sources_that_are_nothing(source):
    with pytest.raises(ImageError, match=f"expected a path, .* got {type(source).__name__}"):
        read_image(source)


def test_other_useless_sources():
    with pytest.raises(ImageError, match="binary mode"):
        read_image(io.StringIO("text"))
    with pytest.raises(ImageError, match="0x5 pixels"):
        read_image(Image.new("RGB", (0, 5)))
    with pytest.raises(ImageError, match="PIL image: cannot be decoded"):
        read_image(Image.open(io.BytesIO(truncated("PNG"))))


@pytest.mark.filterwarnings("error")
def test_a_suspiciously_large_image_is_one_clear_error_where_warnings_are_errors():
    with pytest.raises(ImageError, match=r"100000000 pixels.*NPMOBILENET_MAX_PIXELS"):
        read_image(png(10000, 10000, 8, 0, b"\0"))


@pytest.mark.filterwarnings("error")
def test_no_file_stays_open(tmp_path):
    """ResourceWarnings are errors here, and pytest reports those of finalisers."""
    import gc

    good, bad = tmp_path / "good.tiff", tmp_path / "bad.png"
    COLOUR.save(good)
    bad.write_bytes(truncated("PNG"))
    read_image(good)
    with pytest.raises(ImageError):
        read_image(bad)
    gc.collect()


# --- As torchvision's datasets read ------------------------------------------------------------------------


def awkward_files():
    """Yield files that a viewer and torchvision show in different colours or another position."""
    rng = np.random.default_rng(3)
    rgba = Image.fromarray(rng.integers(0, 256, (5, 7, 4), dtype=np.uint8), "RGBA")
    yield encode(rgba)
    yield encode(rgba.convert("LA"))
    palette = rgba.convert("RGB").quantize(9)
    yield encode(palette, transparency=bytes([255, 0, 99]))
    yield encode(palette, "GIF", transparency=2)
    yield encode(rgba.convert("L"), transparency=7)
    yield encode(Image.fromarray(rng.integers(0, 1000, (5, 7), dtype=np.uint16)))
    exif = Image.Exif()
    exif[274] = 6
    yield encode(rgba.convert("RGB"), exif=exif)
    yield encode(rgba.convert("CMYK"), "JPEG")


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_decoding_as_torchvision_does():
    for data in awkward_files():
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(read_image(data, decode="torchvision"), expected)
        np.testing.assert_array_equal(read_image(Image.open(io.BytesIO(data)), decode="torchvision"), expected)
    rgba = noise(4, 5, 1)[:, :, [0, 1, 2, 0]]
    np.testing.assert_array_equal(read_image(rgba, decode="torchvision"), rgba[:, :, :3])


def test_decoding_travels_with_the_weights(tmp_path):
    from npmobilenet.architectures import get_architecture, random_weights
    from npmobilenet.model import Model

    graph = get_architecture("mobilenet_v2").graph(width=0.1, num_classes=3)
    path = tmp_path / "hidden.png"
    hidden = np.dstack([noise(40, 40), np.zeros((40, 40), np.uint8)])
    Image.fromarray(hidden, "RGBA").save(path)
    small = dataclasses.replace(WHOLE, crop=(40, 40))
    for decode, colours in (("viewer", np.full((40, 40, 3), 255)), ("torchvision", hidden[:, :, :3])):
        preprocessing = dataclasses.replace(small, decode=decode)
        model = Model(graph, random_weights(graph), architecture="mobilenet_v2", preprocessing=preprocessing)
        np.testing.assert_array_equal(np.rint(model.preprocess(path) * 127.5 + 127.5).transpose(1, 2, 0), colours)


def test_unknown_decodings_are_refused():
    with pytest.raises(ValueError, match="decode must be one of viewer, torchvision, got 'opencv'"):
        read_image(noise(2, 2), decode="opencv")


# --- Memory and limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "P transparent", "L", "I;16", "CMYK", "rotated"])
def test_little_is_in_memory_beside_the_image_and_the_result(mode):
    image = Image.fromarray(noise(1500, 1000))
    if mode == "I;16":
        image = Image.fromarray(np.arange(1_500_000, dtype=np.uint32).astype(np.uint16).reshape(1500, 1000))
    elif mode == "rotated":
        image.getexif()[274] = 6
    else:
        image = image.convert(mode.split()[0])
    if mode == "P transparent":
        image.info["transparency"] = 3
    read_image(image)
    tracemalloc.start()  # sees NumPy's arrays and Python's bytes, not what Pillow keeps
    result = read_image(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.nbytes == 4_500_000 and peak < result.nbytes + 2_500_000


def test_blocks_make_a_whole():
    """Pictures of many blocks, in each direction, are those of one."""
    for shape in ((3, 150_000), (70_000, 2), (300, 301)):
        rgba = np.random.default_rng(0).integers(0, 256, (*shape, 4), dtype=np.uint8)
        alpha = rgba[:, :, 3:].astype(int)
        expected = (rgba[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255
        np.testing.assert_array_equal(read_image(rgba), expected)
        image = Image.fromarray(rgba, "RGBA")
        np.testing.assert_array_equal(read_image(image), expected)
        image.getexif()[274] = 5
        np.testing.assert_array_equal(read_image(image), expected.transpose(1, 0, 2))


def test_the_limit_of_pixels(tmp_path, monkeypatch):
    data = encode(Image.new("RGB", (20, 10)))
    message = r"20x10 = 200 pixels are more than the limit of 199; .* max_pixels=.* NPMOBILENET_MAX_PIXELS"
    path = tmp_path / "large.png"
    path.write_bytes(data)
    for source in (path, data, io.BytesIO(data), Image.open(path), Image.new("L", (20, 10))):
        with pytest.raises(ImageError, match=message):
            read_image(source, max_pixels=199)
    assert read_image(data, max_pixels=200).shape == (10, 20, 3)
    monkeypatch.setenv("NPMOBILENET_MAX_PIXELS", "199")
    with pytest.raises(ImageError, match=message):
        read_image(path)
    assert read_image(path, max_pixels=200).shape == (10, 20, 3)
    assert read_image(np.zeros((10, 20, 3), np.uint8)).shape == (10, 20, 3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_limit_holds_before_anything_is_decoded():
    for colour_type in (0, 2, 3, 6):
        with pytest.raises(ImageError, match="9000x9950 = 89550000 pixels are more than the limit of 89478485"):
            read_image(png(9000, 9950, 8, colour_type, b"\0"))  # of which there is one row only
    assert MAX_PIXELS == 89478485


@pytest.mark.filterwarnings("ignore:Image was not the expected size")
def test_an_icon_may_be_larger_than_it_says():
    inner = encode(Image.new("RGB", (64, 64)))
    entry = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 8, 8, 0, 0, 1, 32, len(inner), 22)
    with pytest.raises(ImageError, match="64x64 = 4096 pixels are more than the limit of 100"):
        read_image(entry + inner, max_pixels=100)


def test_a_higher_limit_is_pillows_too(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    data = encode(Image.new("RGB", (20, 10)))
    with pytest.raises(ImageError, match=r"200 pixels.*NPMOBILENET_MAX_PIXELS"):
        read_image(data)
    assert read_image(data, max_pixels=1000).shape == (10, 20, 3)


@pytest.mark.parametrize("limit", ["", "many", "-1", "0", "1e9", "9" * 5000])
def test_impossible_limits(monkeypatch, limit):
    monkeypatch.setenv("NPMOBILENET_MAX_PIXELS", limit)
    if not limit:
        assert read_image(encode(COLOUR)).shape == (1, 2, 3)
        return
    with pytest.raises(ValueError, match="NPMOBILENET_MAX_PIXELS must be a positive integer") as caught:
        read_image(encode(COLOUR))
    assert len(str(caught.value)) < 200
    with pytest.raises(ValueError, match="max_pixels must be a positive integer, got 0"):
        read_image(encode(COLOUR), max_pixels=0)


# --- Formats -----------------------------------------------------------------------------------------------

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
JPEG_XL = b"\xff\x0a" + bytes(64)
missing_plugins = pytest.mark.skipif(
    any(map(importlib.util.find_spec, ("pillow_heif", "pillow_jxl"))), reason="a plugin is installed"
)


@missing_plugins
def test_what_is_missing_is_named():
    with pytest.raises(ImageError, match="HEIC is read with the package pillow-heif: pip install pillow-heif"):
        read_image(HEIC)
    for data in (JPEG_XL, b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(64)):
        with pytest.raises(ImageError, match="JPEG XL is read with the package pillow-jxl-plugin"):
            read_image(data)
    assert {".heic", ".heif", ".hif", ".jxl"} <= unreadable_suffixes() <= IMAGE_SUFFIXES
    assert not {".png", ".jpg", ".webp", ".tif", ".gif", ".mpo"} & unreadable_suffixes()
    assert package_for(".HEIC") == "pillow-heif" and package_for(".png") == "pillow"


def test_plugins_are_registered_when_their_files_are_met(monkeypatch):
    def opened(file, name):
        return Image.frombytes("L", (2, 1), file.read()[24:26])

    module = types.ModuleType("pillow_heif")
    module.__spec__ = importlib.machinery.ModuleSpec("pillow_heif", None)
    calls = []

    def register():
        calls.append(1)
        Image.register_open("STUB", opened, lambda prefix: prefix[4:12] == b"ftypheic")

    module.register_heif_opener = register
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    assert ".heic" not in unreadable_suffixes()
    read_image(encode(COLOUR, "WEBP"))
    with pytest.raises(ImageError, match="not an image in a format that Pillow can read"):
        read_image(b"something else")
    assert not calls
    assert_pixels(HEIC[:24] + bytes([7, 200]), [7, 200])
    assert calls
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_image(HEIC[:24])
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "STUB"])
    module.register_heif_opener = lambda: None
    with pytest.raises(ImageError, match="not a HEIC image that pillow-heif can read"):
        read_image(HEIC)


# --- First photographs of several threads ------------------------------------------------------------------

FIRST_OF_TWO_THREADS = """
import sys, threading, time
from npmobilenet.image import read_image

class SlowDisk:  # the import of Pillow's modules takes a while, as it does after a restart
    def find_spec(self, name, path=None, target=None):
        if name.startswith("PIL.") and "PIL.Image" in sys.modules:
            time.sleep(0.05)

sys.meta_path.insert(0, SlowDisk())
shapes = []
first = threading.Thread(target=lambda: shapes.append(read_image(sys.argv[1]).shape))
first.start()
while first.is_alive() and "PIL.Image" not in sys.modules:
    time.sleep(0.001)
shapes.append(read_image(sys.argv[1]).shape)
first.join()
print(shapes)
"""


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_two_threads_read_their_first_photographs_at_once(tmp_path, file_format):
    path = tmp_path / "photograph"
    COLOUR.save(path, file_format)
    command = [sys.executable, "-c", FIRST_OF_TWO_THREADS, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[(1, 2, 3), (1, 2, 3)]", done.stdout + done.stderr


# --- Without the optional parts ----------------------------------------------------------------------------


def test_arrays_need_no_pillow(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    image = noise(9, 8)
    assert read_image(image) is image
    assert preprocess(image, dataclasses.replace(CENTRE, crop=(4, 4))).shape == (3, 4, 4)
    with pytest.raises(MissingDependencyError) as caught:
        read_image(PHOTOGRAPHS["coffee"])
    assert 'pip install "npmobilenet[image]"' in str(caught.value) and "uint8 arrays" in str(caught.value)
    assert unreadable_suffixes() == IMAGE_SUFFIXES


def test_importing_does_not_import_numba_or_pillow():
    code = "import sys, npmobilenet.image; print([m for m in ('numba', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
