"""Sources of streams: folders, globs, lists, archives; and archives made to do harm."""

import gzip
import io
import os
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest

from npmobilenet.cli.photographs import find_images
from npmobilenet.image import read_image
from npmobilenet.streaming import Sources, entries, tar, zips
from npmobilenet.streaming.collecting import describe
from npmobilenet.streaming.files import chosen
from tests.conftest import no_kernels

pytest.importorskip("PIL", reason="these tests read image files")
pytestmark = no_kernels


@pytest.fixture(scope="module")
def pictures(thumbnails):
    return {name: (thumbnails / f"{name}.png").read_bytes() for name in ("coffee", "rocket", "chelsea")}


def read(*given):
    """What a stream would make of some sources: names, and pictures or what is wrong."""
    found = []
    for entry in Sources([os.fspath(one) for one in given]):
        try:
            found.append((entry.name, read_image(entry.content())))
        except Exception as error:
            found.append((entry.name, describe(entry.name, error)))
    return found


def names_of(found):
    return [name for name, what in found if not isinstance(what, str)]


def problems_of(found):
    return [(name, what) for name, what in found if isinstance(what, str)]


def tar_of(path, *members, mode="w", format=tarfile.PAX_FORMAT, **options):
    """Write an archive of (name, bytes or the fields of something else)."""
    with tarfile.open(path, mode, format=format, **options) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, dict):
                for field, value in content.items():
                    setattr(member, field, value)
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


# --- Files -------------------------------------------------------------------------------------------------


def test_folders_are_in_the_order_of_their_paths(tmp_path, pictures):
    for name in ("b/z.png", "b/a.png", "b-1.png", "a.png", "b/c/d.png", "b/c-.png", ".hidden.png", "b/__MACOSX/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(pictures["coffee"])
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "b" / "loop").symlink_to("..")
    names = names_of(read(tmp_path))
    assert names == sorted(names) and len(names) == 6
    assert names == [photograph.name for photograph in find_images([str(tmp_path)])]


def test_globs_and_what_is_none(tmp_path, pictures, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.png", "in/b.png", "c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(pictures["coffee"])
    tar_of(tmp_path / "in" / "s.tar", ("d.png", pictures["rocket"]))
    tar_of(tmp_path / "no.tar", ("a.txt", b""))
    (tmp_path / "list.txt").write_bytes(b"\n")
    assert names_of(read("**/*.png")) == ["c.png", "in/a.png", "in/b.png"]
    assert names_of(read("in/*")) == ["in/a.png", "in/b.png", "in/s.tar/d.png"]
    (tmp_path / "empty").mkdir()
    given = ["no*.png", "nowhere.png", "", "empty", "s3://bucket/a.tar", "no.tar", "@list.txt", "a.tar.xz"]
    (tmp_path / "a.tar.xz").write_bytes(b"\xfd7zXZ")
    assert problems_of(read(*given)) == [
        ("no*.png", "no file matches"),
        ("nowhere.png", "cannot be opened: No such file or directory"),
        ("", "an empty argument is no file"),
        ("empty", "no image files in this folder"),
        ("s3://bucket/a.tar", "a URL is no file: download it first, nothing is fetched from a network here"),
        ("no.tar", "no image files in this archive"),
        ("list.txt", "no names in this list"),
        ("a.tar.xz", "archives are read as .tar, .tar.gz, .tgz, .zip: pack it as one"),
    ]
    problems = {photograph.problem for photograph in find_images(["no.tar", "@list.txt", "a.tar.xz"])}
    assert problems == {f"{what} is read by classify, features and detect with --out FILE" for what in
                        ("an archive", "a list of names")}  # fmt: skip


def test_numbered_shards(tmp_path, pictures, monkeypatch):
    """As WebDataset writes them; one that is missing is told, and what is there under that very name is taken."""
    monkeypatch.chdir(tmp_path)
    for number in (8, 9, 11):
        tar_of(tmp_path / f"s-{number:03}.tar", ("same.png", pictures["coffee"]))
    (tmp_path / "{1,2}.png").write_bytes(pictures["coffee"])
    found = read("s-{008..011}.tar", "{1,2}.png")
    assert names_of(found) == ["s-008.tar/same.png", "s-009.tar/same.png", "s-011.tar/same.png", "{1,2}.png"]
    assert problems_of(found) == [("s-010.tar", "cannot be opened: No such file or directory")]
    for path, expected in (
        ("a", ["a"]),
        ("{a,b}{9..10}", ["a9", "a10", "b9", "b10"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{09..10}x{a}{}", ["09x{a}{}", "10x{a}{}"]),
    ):
        assert list(chosen(path)) == expected
    assert next(chosen("{000000000..999999999}" * 9)) == "000000000" * 9


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_lists(separator, tmp_path, pictures, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["a.png", "b [1].png", "*.png", "c d.png", *(["two\nlines.png"] if separator == b"\0" else [])]
    for name in names:
        (tmp_path / name).write_bytes(pictures["coffee"])
    for ending in (b"", separator):
        (tmp_path / "list.txt").write_bytes(separator.join(map(os.fsencode, [*names, "gone.png"])) + ending)
        found = read("@list.txt")
        assert names_of(found) == names
        assert problems_of(found) == [("gone.png", "cannot be opened: No such file or directory")]
    (tmp_path / "list.txt").write_bytes(b"x" * 200_000)
    assert "there is a line of more than 64 KB" in read("@list.txt")[0][1]
    assert read("@none.txt") == [("none.txt", "as a list of files: No such file or directory")]
    (tmp_path / "list.txt").write_bytes(b"")
    assert problems_of(read("@list.txt")) == [("list.txt", "no names in this list")]
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa.png" + separator)
    assert names_of(read("@list.txt")) == ["a.png"]


def test_how_many_there_are(tmp_path, pictures):
    for index in range(5):
        (tmp_path / f"{index}.png").write_bytes(pictures["coffee"])
    assert Sources(tmp_path).counter()() == 5
    path = tar_of(tmp_path / "s.tar", *((f"{index}.png", pictures["coffee"]) for index in range(40)))
    sources = Sources([tmp_path / "0.png", path])
    total = sources.counter()
    assert total() is None
    guesses = [total() for _ in sources]
    assert all(guess is None or 20 < guess < 60 for guess in guesses) and 38 <= total() <= 44


# --- Tar ---------------------------------------------------------------------------------------------------

LONG = "folder/" * 40 + "é" * 60 + ".png"


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_tar_archives_of_every_format(format, suffix, tmp_path, pictures):
    names = ["a.png", "sub/b.PNG", "sample.input.png", "é.png", "x" * 90 + "/" + "y" * 90 + ".png"]
    names += [] if format == tarfile.USTAR_FORMAT else [LONG, "two\nlines.png"]
    members = [(name, pictures["coffee" if index % 2 else "rocket"]) for index, name in enumerate(names)]
    others = [("a.cls", b"7"), ("a.json", b"{}"), ("._a.png", b"sidecar"), (".d/a.png", b""), ("README", b"")]
    path = tar_of(tmp_path / f"s{suffix}", *members, *others, mode="w:gz" if suffix != ".tar" else "w", format=format)
    found = read(path)
    assert [name for name, _ in found] == [f"{path}/{name}" for name in names]
    for (_, picture), (_, content) in zip(found, members, strict=True):
        np.testing.assert_array_equal(picture, read_image(content))


def test_tar_from_a_pipe_and_passed_over(tmp_path, pictures):
    path = tar_of(tmp_path / "s.tar", *((f"{index}.png", pictures["coffee"]) for index in range(9)))
    found = [entry for index, entry in enumerate(Sources(path)) if index < 5 or read_image(entry.content()) is not None]
    assert [entry.name for entry in found] == [f"{path}/{index}.png" for index in range(9)]
    if hasattr(os, "mkfifo"):
        import threading

        pipe = tmp_path / "p.tar"
        os.mkfifo(pipe)
        writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
        writer.start()
        assert len(names_of(read(pipe))) == 9
        writer.join()


def test_names_in_archives_lead_nowhere(tmp_path, pictures):
    outside = tmp_path / "outside.png"
    outside.write_bytes(pictures["coffee"])
    path = tar_of(
        tmp_path / "s.tar",
        (str(outside), pictures["rocket"]),
        ("../../up.png", pictures["rocket"]),
        ("same.png", pictures["rocket"]),
        ("same.png", pictures["chelsea"]),
        ("soft.png", {"type": tarfile.SYMTYPE, "linkname": str(outside)}),
        ("hard.png", {"type": tarfile.LNKTYPE, "linkname": "same.png"}),
        ("null.png", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
        ("disk.png", {"type": tarfile.BLKTYPE}),
        ("pipe.png", {"type": tarfile.FIFOTYPE}),
        ("odd.png", {"type": b"Q"}),
        ("folder.png", {"type": tarfile.DIRTYPE}),
        ("last.png", pictures["coffee"]),
    )
    before = sorted(tmp_path.rglob("*"))
    found = read(path)
    good = [f"{path}/{name}" for name in (outside, "../../up.png", "same.png", "same.png", "last.png")]
    assert names_of(found) == good
    np.testing.assert_array_equal(found[0][1], read_image(pictures["rocket"]))
    assert (
        problems_of(found)
        == [
            (f"{path}/{name}.png", f"{kind}, and no file in the archive")
            for name, kind in (
                *(
                    ("soft", "a link"),
                    ("hard", "a link"),
                    ("null", "a device"),
                    ("disk", "a device"),
                    ("pipe", "a pipe"),
                ),
                ("odd", "of the unknown kind b'Q'"),
            )
        ]
        + []
    )
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("compressed", [False, True])
def test_tar_cut_short_anywhere(compressed, tmp_path, pictures):
    """What is whole is there, and that something is missing is one failure."""
    members = [("1.png", pictures["coffee"]), ("1.txt", b"x" * 700), ("2.png", pictures["rocket"])]
    path = tar_of(tmp_path / "s.tar", *members)
    whole = path.read_bytes()
    if compressed:
        path = tmp_path / "s.tar.gz"
        whole = gzip.compress(whole, 1)
    path.write_bytes(whole)
    ends = range(0, len(whole), 211) if not compressed else range(0, len(whole) - 1, 211)
    for end in ends:
        path.write_bytes(whole[:end])
        found = read(path)
        passed = [entry.name for entry in Sources(path)]  # nothing of it read
        assert passed == [name for name, _ in found]
        if compressed or end < len(tar_bytes(members)):
            assert len(problems_of(found)) == 1, end
        assert names_of(found) == [f"{path}/{n}.png" for n in range(1, len(names_of(found)) + 1)]
    path.write_bytes(whole)
    assert len(names_of(read(path))) == 2 and not problems_of(read(path))


def tar_bytes(members):
    """The archive without the mark of its end."""
    return b"".join(bytes(512 + len(content) + -len(content) % 512) for _, content in members)


def test_damaged_tar_archives(tmp_path, pictures):
    good = tar_of(tmp_path / "good.tar", ("1.png", pictures["coffee"]), ("2.png", pictures["rocket"])).read_bytes()
    random = np.random.default_rng(0)
    second = 512 + len(pictures["coffee"]) + -len(pictures["coffee"]) % 512
    for trial in range(300):
        damaged = bytearray(good)
        for _ in range(random.integers(1, 4)):
            at = random.integers(0, 512) + random.choice([0, second])
            damaged[at] = random.integers(256)
        if trial % 3 == 0:  # a header that says anything, with a right checksum
            header = damaged[second : second + 512]
            header[148:156] = b" " * 8
            damaged[second + 148 : second + 156] = b"%06o\0 " % sum(header)
        (tmp_path / "bad.tar").write_bytes(damaged)
        for name, what in read(tmp_path / "bad.tar"):
            assert name and (not isinstance(what, str) or "unexpected" not in what)
    for content, problem in (
        (b"", "as a tar archive: is empty"),
        (b"x" * 5000, "as a tar archive: no tar archive"),
        (good[:100], "as a tar archive: no tar archive"),
        (b"\x1f\x8b" + b"x" * 600, "as a tar archive: is damaged: Unknown compression method"),
        (gzip.compress(b"x" * 600), "as a tar archive: no tar archive"),
    ):
        (tmp_path / "bad.tar").write_bytes(content)
        assert read(tmp_path / "bad.tar") == [(str(tmp_path / "bad.tar"), problem)]


def header(name, size, kind=b"0"):
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136] = b"\x80" + size.to_bytes(11, "big") if size >= 8**11 else b"%011o\0" % size
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (header(b"a.png", 1 << 60), "images in archives may have 256 MB"),
        (header(b"a.png", 1 << 27) + b"x" * 1000, "in the middle of it the archive ends"),
        (header(b"long", 1 << 33, b"L"), "a header of 8589934592 bytes"),
        (header(b"pax", 1 << 33, b"x"), "a header of 8589934592 bytes"),
        (header(b"pax", 512, b"x") + b"999999 path=a.png\n".ljust(512, b"\0"), "a pax header is damaged"),
        (header(b"pax", 512, b"x") + b"18 size=-99999999\n".ljust(512, b"\0") + header(b"a", 9), "a size is no number"),
        (header(b"pax", 512, b"x") + b"\xff" * 512 + header(b"a.png", 5), "a pax header is damaged"),
    ],
)
def test_headers_that_lie_cost_neither_memory_nor_time(content, problem, tmp_path):
    (tmp_path / "s.tar").write_bytes(content)
    tracemalloc.start()
    found = read(tmp_path / "s.tar")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert any(problem in what for _, what in found), found
    assert peak < (300 if "middle" in problem else 64) << 20


def test_bombs(tmp_path, monkeypatch, pictures):
    monkeypatch.setattr(tar, "FREE_EXPANSION", 1 << 20)
    monkeypatch.setattr(zips, "FREE_EXPANSION", 1 << 16)
    with gzip.open(tmp_path / "s.tar.gz", "wb", 9) as file:
        file.write(header(b"zeros.bin", 1 << 29))
        for _ in range(1 << 5):
            file.write(bytes(1 << 20))
    ((_, problem),) = read(tmp_path / "s.tar.gz")
    assert "expands to more than 200 times its size: a bomb?" in problem
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.png", bytes(1 << 22))
        archive.writestr("good.png", pictures["coffee"])
    (_, problem), (name, _) = read(tmp_path / "s.zip")
    assert "a bomb?" in problem and name.endswith("good.png")
    monkeypatch.setattr(entries, "LARGEST_MEMBER", 1000)
    monkeypatch.setattr(zips, "LARGEST_MEMBER", 1000)
    assert "images in archives may have" in read(tmp_path / "s.zip")[0][1]


# --- Zip ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_archives(compression, tmp_path, pictures):
    path = tmp_path / "s.zip"
    names = ["a.png", "in/é.png", "same.png", "/abs.png", "two\nlines.png"]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name in names:
            archive.writestr(name, pictures["coffee"])
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("same.png", pictures["rocket"])
        archive.writestr("notes.txt", b"")
        archive.writestr("folder.png/", b"")
        archive.writestr("broken.png", b"nothing")
    found = read(path)
    assert names_of(found) == [f"{path}/{name}" for name in [*names, "same.png"]]
    np.testing.assert_array_equal(found[5][1], read_image(pictures["rocket"]))
    assert problems_of(found) == [(f"{path}/broken.png", "not an image in a format that Pillow can read")]
    content = path.read_bytes().replace("é".encode(), b"\xc3\x28")  # no UTF-8, though marked as such
    path.write_bytes(content)
    assert all(isinstance(what, (str, np.ndarray)) for _, what in read(path))


def test_damaged_zip_archives(tmp_path, pictures):
    path = tmp_path / "s.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(3):
            archive.writestr(f"{index}.png", pictures["coffee"])
    good = path.read_bytes()
    random = np.random.default_rng(0)
    for trial in range(300):
        damaged = bytearray(good)
        where = len(good) - 300 if trial % 2 else 0
        for _ in range(random.integers(1, 4)):
            damaged[random.integers(where, len(good))] = random.integers(256)
        path.write_bytes(damaged[: len(good) if trial % 5 else random.integers(len(good))])
        for name, what in read(path):
            assert name and (not isinstance(what, str) or "unexpected" not in what)
    path.write_bytes(b"x" * 100)
    assert read(path) == [(str(path), "as a zip archive: no zip archive: File is not a zip file")]
    # Two entries of the directory that are the same bytes, and together more than the file.
    end = good.rindex(b"PK\5\6")
    at = good.index(b"PK\1\2")
    size = struct.pack("<L", len(good))
    entry = good[at : good.index(b"PK\1\2", at + 1)]
    entry = entry[:20] + size + entry[24:]
    directory = entry * 3
    path.write_bytes(good[:at] + directory + good[end : end + 12] + struct.pack("<LL", len(directory), at) + b"\0\0")
    assert "its members overlap: a bomb?" in read(path)[0][1]
    encrypted = bytearray(good)
    encrypted[at + 8] |= 1
    path.write_bytes(encrypted)
    assert problems_of(read(path))[0][1] == "is encrypted"
