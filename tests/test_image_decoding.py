"""The right pixels from files of every mode, as a viewer shows them or as torchvision's datasets read them."""

import dataclasses
import io
import struct

import numpy as np
import pytest

from npmobilenet.image import preprocess, read_image
from npmobilenet.image.pixels import rgb_of
from tests.pictures import CENTRE, COLOUR, GREY16, PILLOW, WHOLE, Image, assert_pixels, chunk, encode, noise, png


def with_tiff_tag(tiff, tag, value):
    """Return a little-endian TIFF with one short tag overwritten."""
    assert tiff[:2] == b"II"
    (directory,) = struct.unpack("<I", tiff[4:8])
    (entries,) = struct.unpack("<H", tiff[directory : directory + 2])
    for at in range(directory + 2, directory + 2 + 12 * entries, 12):
        if struct.unpack("<H", tiff[at : at + 2])[0] == tag:
            return tiff[: at + 8] + struct.pack("<H", value) + tiff[at + 10 :]
    raise AssertionError(f"no tag {tag}")


GREY8 = [0, 4, 128, 255]  # GREY16 divided by 257 and rounded; Pillow's own conversion gives 0, 255, 255, 255


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


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (40, 33)])
def test_pixels_that_are_lent_are_the_same(shape, monkeypatch):
    pixels = noise(*shape)
    image = Image.fromarray(pixels)
    files = [encode(image), encode(image, "JPEG"), encode(Image.fromarray(pixels[..., 0]))]
    for file in files:
        own, lent = read_image(file), read_image(file, lend=True)
        np.testing.assert_array_equal(own, lent)
        assert own.flags.c_contiguous and own.flags.writeable
    if hasattr(Image.Image, "__arrow_c_array__"):
        lent = read_image(files[0], lend=True)
        assert lent.strides == (4 * shape[1], 4, 1) and not lent.flags.writeable
        for preprocessing in (WHOLE, dataclasses.replace(WHOLE, resize=8, crop=(8, 6)), CENTRE):
            np.testing.assert_array_equal(preprocess(lent, preprocessing), preprocess(pixels, preprocessing))
        lent = rgb_of(image, "it", "viewer", lend=True)
        del image  # what is lent outlives it
        np.testing.assert_array_equal(lent, pixels)
    monkeypatch.setattr(Image.Image, "__arrow_c_array__", refused, raising=False)
    np.testing.assert_array_equal(read_image(files[0], lend=True), pixels)


def refused(image):
    raise ValueError("Image rows are not contiguous in memory.")
