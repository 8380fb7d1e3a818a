"""Where machine code is kept, and what is refused of what is found there."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import numba
import pytest
from numba.core.caching import FunctionCache

from npmobilenet.cli import doctor
from npmobilenet.kernels import cache
from npmobilenet.kernels.numba_cache import keep_code
from npmobilenet.kernels.paths import NoFolderError, cache_directory, temporary_directory

pwd = pytest.importorskip("pwd", reason="about users as Unix has them")
compiled_only = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="about compiled code")

DAMAGE = {
    "empty": lambda content: b"",
    "checksum alone": lambda content: content[: cache.CHECKSUM_BYTES],
    "truncated by a byte": lambda content: content[:-1],
    "a byte more": lambda content: content + b"\0",
    "garbage": lambda content: bytes(range(256)) * 20,
    "one bit of the checksum": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "one bit": lambda content: content[:-3] + bytes([content[-3] ^ 4]) + content[-2:],
}


# Files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_as_good_as_missing(tmp_path, damage):
    file = tmp_path / "a.o"
    assert cache.read(file, "stamp") is None
    cache.keep(file, "stamp", b"some code")
    assert cache.read(file, "stamp") == b"some code"
    file.write_bytes(damage(file.read_bytes()))
    assert cache.read(file, "stamp") is None


def test_a_file_serves_its_own_stamp_and_sources_only(tmp_path, monkeypatch):
    cache.keep(tmp_path / "a.o", "stamp", b"some code")
    assert cache.read(tmp_path / "a.o", "stamp ") is None
    monkeypatch.setattr(cache, "sources", lambda: "others")
    assert cache.read(tmp_path / "a.o", "stamp") is None


def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "folder.o").mkdir()
    cache.keep(tmp_path / "folder.o", "stamp", b"code")  # there is a folder in its place
    cache.keep(tmp_path / "absent/a.o", "stamp", b"code")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache.keep(tmp_path / "a.o", "stamp", b"code")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.o"]
    assert cache.read(tmp_path / "folder.o", "stamp") is None


def interrupted(*arguments) -> None:
    raise KeyboardInterrupt


def test_fragments_of_killed_processes_go_in_time(tmp_path):
    names = {"a.o.01234567": 2 * cache.HOUR, "b.nbc.89abcdef": 2 * cache.HOUR, "c.o.01234567": 0, "d-0123456789.o": 9e6}
    for name, age in names.items():
        aged(tmp_path / name, age)
    cache.keep(tmp_path / "e.o", "stamp", b"code")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.o.01234567", "d-0123456789.o", "e.o"]


def aged(file: Path, seconds: float) -> None:
    file.parent.mkdir(exist_ok=True)
    file.touch()
    for path in (file, file.parent):
        os.utime(path, (time.time() - seconds,) * 2)


# The folder ------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """No folder is chosen, the temporary files have a folder as on any Linux, and home is not yet there."""
    for name in ("NPMOBILENET_CACHE_DIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cache.sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return monkeypatch


@pytest.fixture
def homeless(settings):
    """A user id without an entry, as in a container."""

    def unknown(user: int) -> None:
        raise KeyError(user)

    settings.delenv("HOME")
    settings.setattr(pwd, "getpwuid", unknown)
    return settings


def place() -> cache.Place:
    return cache.place.__wrapped__()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({}, "home/.cache/npmobilenet"),
        ({"XDG_CACHE_HOME": "relative"}, "home/.cache/npmobilenet"),  # as the XDG specification wants it
        ({"XDG_CACHE_HOME": "{}/xdg"}, "xdg/npmobilenet"),
        ({"XDG_CACHE_HOME": "{}/xdg", "NPMOBILENET_CACHE_DIR": "{}/own"}, "own"),
        ({"NPMOBILENET_CACHE_DIR": "~/own"}, "home/own"),
        ({"NPMOBILENET_CACHE_DIR": "own"}, "own"),
        ({"NPMOBILENET_CACHE_DIR": "{}/own", "NUMBA_CACHE_DIR": "{}/numba"}, "numba/npmobilenet"),
    ],
)
def test_the_folder_that_is_chosen(settings, tmp_path, variables, folder):
    settings.chdir(tmp_path)
    for name, value in variables.items():
        settings.setenv(name, value.format(tmp_path))
    found = place()
    assert (found.folder.parent, found.why) == (tmp_path / folder, "")
    assert cache.FOLDER.fullmatch(found.folder.name) and found.folder.is_dir()


@pytest.mark.parametrize("variable", ["NPMOBILENET_CACHE_DIR", "NUMBA_CACHE_DIR"])
@pytest.mark.parametrize("value", ["{}/file", "{}/file/below", "/dev/null", "/proc/x", "{}/" + "a" * 300])
def test_a_chosen_folder_that_cannot_be_is_not_replaced(settings, tmp_path, variable, value):
    (tmp_path / "file").touch()
    settings.setenv(variable, value.format(tmp_path))
    with pytest.warns(
        RuntimeWarning, match="every process compiles its kernels anew, since .* cannot be made: .*; set NPM"
    ) as said:
        assert place().folder is None
    assert len(said) == 1
    assert not list((tmp_path / "tmp").iterdir())


def test_no_home_folder(homeless, tmp_path):
    with pytest.raises(NoFolderError, match="for this user; set NPMOBILENET_CACHE_DIR"):
        cache_directory()
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="are kept in .*tmp.*, since no home folder is known") as said:
            found = place()
        assert len(said) == 1
        (own,) = (tmp_path / "tmp").iterdir()
        assert found.folder.parent == own and found.folder.is_dir()
        assert doctor._cache(found) == f"{found.folder} (0.0 MB; {found.why})"
        assert found.why.startswith("temporary, since no home folder is known for this user")


def test_no_home_and_no_temporary_folder(homeless, tmp_path):
    (tmp_path / "tmp").chmod(0o777)
    with pytest.warns(RuntimeWarning, match="compiles its kernels anew, since no home folder is known"):
        found = place()
    assert found.folder is None
    assert doctor._cache(found).startswith("none; every process compiles anew, since no home folder is known")


def test_an_unknown_user(settings):
    settings.setenv("NPMOBILENET_CACHE_DIR", "~nosuchuser/x")
    with pytest.raises(NoFolderError, match="for the user 'nosuchuser'; set NPMOBILENET_CACHE_DIR"):
        cache_directory()
    with pytest.warns(RuntimeWarning, match="'nosuchuser'"):
        assert place().folder is None


def test_a_current_folder_that_is_no_more(settings, tmp_path):
    (tmp_path / "gone").mkdir()
    settings.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for name in ("NPMOBILENET_CACHE_DIR", "NUMBA_CACHE_DIR"):
        settings.setenv(name, "relative")
        with pytest.warns(RuntimeWarning, match="anew, since relative: the current folder"):
            assert place().folder is None


def test_a_home_that_cannot_be_written(settings, tmp_path):
    (tmp_path / "home").touch()
    with pytest.warns(RuntimeWarning, match=r"are kept in .*tmp.*, since .*home.* cannot be made"):
        assert place().folder.parent.parent == tmp_path / "tmp"


@pytest.mark.filterwarnings("error:every process")
def test_a_folder_with_kernels_serves_though_it_cannot_be_written(settings):
    """As in an image of a container."""
    settings.setattr(os, "access", lambda path, mode: False)
    with pytest.warns(RuntimeWarning, match=r"are kept in .*tmp.*, since .*kernels-.* cannot be written"):
        place()  # there is nothing in it
    folder = cache_directory() / f"kernels-{cache.sources()[:16]}"
    cache.keep(folder / "a.o", "stamp", b"code")
    assert place() == cache.Place(folder, "read-only")


def test_folders_of_earlier_versions_go_in_time(settings, tmp_path):
    base = cache_directory()
    ages = {"kernels-" + "a" * 16: 100, "kernels-" + "b" * 16: 80, "kernels-x": 100, "weights": 100}
    base.mkdir(parents=True)
    for name, days in ages.items():
        aged(base / name / "file", days * cache.DAY)
    aged(tmp_path / "elsewhere/file", 100 * cache.DAY)
    (base / ("kernels-" + "c" * 16)).symlink_to(tmp_path / "elsewhere")
    folder = place().folder
    left = {path.name for path in base.iterdir()}
    assert left == {*ages, "kernels-" + "c" * 16, folder.name} - {"kernels-" + "a" * 16}
    assert (tmp_path / "elsewhere/file").exists()


# Temporary folders -----------------------------------------------------------------------------------------------


def test_a_temporary_folder_is_found_again(settings, tmp_path):
    own = temporary_directory()
    assert own.parent == tmp_path / "tmp" and own.stat().st_mode & 0o777 == 0o700
    assert temporary_directory() == own


def test_what_others_may_have_made_is_not_used(settings, tmp_path):
    prefix = f"npmobilenet-{os.getuid()}-"
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / f"tmp/{prefix}0").symlink_to(tmp_path / "elsewhere")
    (tmp_path / f"tmp/{prefix}1").touch(mode=0o700)
    (tmp_path / f"tmp/{prefix}2").mkdir()
    (tmp_path / f"tmp/{prefix}2").chmod(0o770)
    foreign = tmp_path / f"tmp/{prefix}3"
    foreign.mkdir(mode=0o700)
    before = set((tmp_path / "tmp").iterdir())
    if os.getuid() == 0:
        os.chown(foreign, 12345, -1)
    else:
        foreign.rmdir()
    own = temporary_directory()
    assert own not in before and own.parent == tmp_path / "tmp"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o775])
def test_no_temporary_folder_where_others_may_exchange_it(settings, tmp_path, mode):
    (tmp_path / "tmp").chmod(mode)
    assert temporary_directory() is None
    (tmp_path / "tmp").chmod(0o755)
    assert temporary_directory() is not None


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_no_temporary_folder_in_that_of_another_user(settings, tmp_path):
    os.chown(tmp_path / "tmp", 12345, -1)
    assert temporary_directory() is None


# Numba's code ----------------------------------------------------------------------------------------------------


def double(x):
    """Return twice the value."""
    return x + x


def negative(x):
    """Return the value with the other sign."""
    return -x


def called(function, folder: Path, value: float, **options) -> tuple[float, int]:
    """The result of a function in a new process, so to speak, and how often its code was found."""
    dispatcher = numba.njit(function, **options)
    keep_code(dispatcher, FunctionCache, folder)
    return dispatcher(value), sum(dispatcher.stats.cache_hits.values())


@compiled_only
def test_code_is_found_again(tmp_path):
    folder = tmp_path / "serial"
    assert [called(double, folder, 3.0) for _ in range(2)] == [(6.0, 0), (6.0, 1)]
    assert [called(double, folder, 3) for _ in range(2)] == [(6, 0), (6, 1)]
    assert len(list(folder.iterdir())) == 2
    assert called(double, tmp_path / "parallel", 3.0) == (6.0, 0)
    again = numba.njit(double)
    keep_code(again, FunctionCache, folder)
    again._cache.flush()
    assert not list(folder.iterdir())


@compiled_only
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_code_is_compiled_again(tmp_path, damage):
    called(double, tmp_path, 3.0)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert [called(double, tmp_path, 3.0) for _ in range(2)] == [(6.0, 0), (6.0, 1)]
    assert list(tmp_path.iterdir()) == [file]


@compiled_only
@pytest.mark.parametrize("other", ["another function", "another type", "compiled in another way"])
def test_code_in_place_of_another_is_not_run(tmp_path, other):
    called(negative, tmp_path / "a", 3.0)
    (file,) = (tmp_path / "a").iterdir()
    if other == "another function":
        called(double, tmp_path / "b", 3.0)
    elif other == "another type":
        called(negative, tmp_path / "b", 3)
    else:
        called(negative, tmp_path / "b", 3.0)
    (wrong,) = (tmp_path / "b").iterdir()
    shutil.copy(wrong, file)
    assert [called(negative, tmp_path / "a", 3.0) for _ in range(2)] == [(-3.0, 0), (-3.0, 1)]


@compiled_only
def test_code_that_cannot_be_read_or_written(tmp_path):
    called(double, tmp_path / "a", 3.0)
    (file,) = (tmp_path / "a").iterdir()
    file.unlink()
    file.mkdir()
    assert called(double, tmp_path / "a", 3.0) == (6.0, 0)
    assert called(double, file / "below/absent", 3.0) == (6.0, 0)
    (tmp_path / "file").touch()
    assert called(double, tmp_path / "file", 3.0) == (6.0, 0)


@compiled_only
def test_processes_that_compile_for_different_types_at_once(tmp_path):
    """Numba's own index would lose one of the two, or give one the other's code."""
    first, second = (numba.njit(double) for _ in range(2))
    for dispatcher in (first, second):
        keep_code(dispatcher, FunctionCache, tmp_path)
    assert (first(3.0), second(3)) == (6.0, 6)
    assert called(double, tmp_path, 3.0) == (6.0, 1)
    assert called(double, tmp_path, 3) == (6, 1)
