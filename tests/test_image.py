"""Reading pictures: every kind of source, memory and limits, formats, threads, and what is missing."""

import dataclasses
import importlib.machinery
import importlib.util
import io
import struct
import subprocess
import sys
import tracemalloc
import types

import numpy as np
import pytest

from npmobilenet.errors import ImageError, MissingDependencyError
from npmobilenet.image import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    package_for,
    preprocess,
    read_image,
    resize,
    unreadable_suffixes,
)
from tests.checkpoint_files import npy
from tests.pictures import CENTRE, COLOUR, GREY16, PHOTOGRAPHS, ROOT, WHOLE, Image, assert_pixels, encode, noise, png


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
    assert "pip install pillow" in str(caught.value) and "uint8 arrays" in str(caught.value)
    assert unreadable_suffixes() == IMAGE_SUFFIXES


@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00"])
def test_array_files_need_no_pillow(monkeypatch, tmp_path, version):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    image, path = noise(9, 8), tmp_path / "named.jpg"
    path.write_bytes(npy("|u1", image.shape, image.tobytes(), version=version))
    np.testing.assert_array_equal(read_image(path), image)
    np.testing.assert_array_equal(read_image(path.read_bytes()), image)
    path.write_bytes(npy("|u1", image.shape, image.tobytes("F"), order=True))  # columns first
    np.testing.assert_array_equal(read_image(path), image)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (npy("<f4", (2, 2, 3), bytes(48)), "x.npy: expected a uint8 array .* got dtype float32"),
        (npy("|u1", (3, 40, 50), bytes(6000)), "x.npy: .* the channels come first"),
        (npy("|O", (2, 2, 3), b"cos\nsystem\n(S'true'\ntR."), "nothing is unpickled"),
        (npy("|u1", (2, 2, 3), bytes(11)), "larger than the file"),
        (npy("|u1", (1 << 40, 1 << 40, 3), bytes(12)), "larger than the file, or than 89478485 pixels"),
        (npy("|u1", (100_000, 1000, 3), b""), "larger than the file"),
        (npy("|u1", (-1, 2, 3), bytes(12)), "x.npy"),
        (npy("|u1", ("a", 2), bytes(12)), "x.npy"),
        (npy("|u1", "__import__('os')", bytes(12)), "x.npy"),
        (npy("|u1", (2, 2, 3), bytes(12), version=b"\x07\x00"), "an array file of version 7.0"),
        (npy("|u1", (2, 2, 3), bytes(12))[:20], "is it damaged or cut short"),
        (b"\x93NUMPY", "is it damaged or cut short"),
    ],
)
def test_array_files_of_unknown_origin(tmp_path, content, problem):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=problem) as caught:
        read_image(path)
    assert len(str(caught.value).splitlines()) == 1


def test_importing_does_not_import_numba_or_pillow():
    code = "import sys, npmobilenet.image; print([m for m in ('numba', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
