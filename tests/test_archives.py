"""The package without a folder of its own: in an archive on the path, as bytecode alone, frozen into a program."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import pytest

from tests.conftest import compiled_only
from tests.kernels.test_jit import REPOSITORY

FOLDERS = {"npmobilenet": "npmobilenet", "npmobilenet/kernels": "kernels"}
NOTHING = "e3b0c44298fc1c14"  # how the hash of no sources at all begins

PROGRAM = """
import sys
import numpy as np
import npmobilenet
from npmobilenet.kernels.cache import kernel_cache
assert sys.argv[1] in npmobilenet.__file__, npmobilenet.__file__
if sys.argv[2] != "name":
    from npmobilenet.kernels.plain import activation
    assert activation.relu(np.array([-1.0, 2.0])).tolist() == [0, 2]
if sys.argv[2] == "all":
    from npmobilenet.weights import CATALOGUE
    assert CATALOGUE["mobilenet_v2"].verify()
    model = npmobilenet.load("mobilenet_v2", threads=1)
    print(model(np.linspace(-2, 2, 3 * 64 * 96, dtype=np.float32).reshape(1, 3, 64, 96)).tobytes().hex(), end=" ")
print(kernel_cache().name)
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """A cache folder for all of them."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def installed(tmp_path) -> Callable[..., Path]:
    """Copies the package as it is installed, with or without its weights."""

    def install(weights: bool) -> Path:
        ignored = shutil.ignore_patterns(
            "__pycache__", "mobilenet_v1.safetensors", *([] if weights else ["*.safetensors"])
        )
        for inside, folder in FOLDERS.items():
            shutil.copytree(REPOSITORY / folder, tmp_path / "installed" / inside, ignore=ignored, dirs_exist_ok=True)
        return tmp_path / "installed"

    return install


def packed(folder: Path, archive: Path) -> Path:
    """Pack a folder, as it is."""
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(folder.rglob("*")):
            packed.write(file, file.relative_to(folder))
    return archive


def as_bytecode(folder: Path) -> Path:
    """Leave no sources."""
    assert compileall.compile_dir(folder, quiet=1, legacy=True)
    for file in folder.rglob("*.py"):
        file.unlink()
    return folder


def run(path: Path, cache: Path, what: str = "all", program: str = PROGRAM) -> list[str]:
    """Run the program with the package from ``path``, anywhere but in the checkout."""
    settings = {"PYTHONPATH": str(path), "NPMOBILENET_CACHE_DIR": str(cache), "NUMBA_CACHE_DIR": ""}
    command = [sys.executable, "-c", program, str(path), what]
    done = subprocess.run(
        command, cwd=path.parent, env={**os.environ, **settings}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert not done.stderr
    return done.stdout.split()


@compiled_only
@pytest.mark.parametrize("name", ["package.zip", "package.pyz"])
@pytest.mark.parametrize("sources", [True, False], ids=["sources", "bytecode"])
def test_an_archive_on_the_path(installed, mobilenet_v2, cache, tmp_path, name, sources):
    folder = installed(weights=True)
    archive = packed(folder if sources else as_bytecode(folder), tmp_path / name)
    shutil.rmtree(folder)
    logits, kernels = run(archive, cache)
    x = np.linspace(-2, 2, 3 * 64 * 96, dtype=np.float32).reshape(1, 3, 64, 96)
    assert np.array_equal(np.frombuffer(bytes.fromhex(logits), np.float32), mobilenet_v2(x, threads=1)[0])
    assert NOTHING not in kernels
    kept = {file.suffix for file in (cache / kernels).rglob("*") if file.is_file()}
    assert kept == ({".nbc"} if sources else {".o", ".nbc"})  # vector kernels are shipped, for sources that are there


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="one way of keeping code is enough")
@pytest.mark.parametrize("form", ["archive", "bytecode", "archive of bytecode", "frozen", "machine code"])
def test_an_edited_kernel_has_a_folder_of_its_own(installed, cache, tmp_path, form):
    """So that no version runs the machine code of another; the same sources have the same folder in every process."""
    folders = []
    for edited in (False, True):
        folder = installed(weights=False)
        if edited:
            reference = folder / "npmobilenet/kernels/reference.py"
            reference.write_text(reference.read_text().replace("np.float64", "np.float32"))
        if "bytecode" in form or form == "frozen":
            as_bytecode(folder)
        if "archive" in form:
            packed(folder, tmp_path / "package.zip")
            shutil.rmtree(folder)
            folder = tmp_path / "package.zip"
        path, program = folder, PROGRAM
        if form in ("frozen", "machine code"):
            path = folder / "frozen"
            program = FROZEN.format(folder=str(folder), code=form == "frozen") + PROGRAM
        folders += [run(path, cache, what, program)[0] for what in ("name" if edited else "kernels", "name")]
        shutil.rmtree(folder, ignore_errors=True)
    assert folders[0] == folders[1] != NOTHING
    assert folders[2] == folders[3] != NOTHING
    assert (folders[0] == folders[2]) == (form == "machine code")  # which is known by its program


FROZEN = """
import marshal, sys
from importlib.machinery import ModuleSpec
from pathlib import Path

class Frozen:
    '''Imports as from a program: modules have names and code, but no files; a path entry of their own lists them.'''
    TOP = {folder!r} + "/frozen"

    def __init__(self, path):
        if not path.startswith(self.TOP):
            raise ImportError
        self.path = path
        self.folder = Path(path.replace(self.TOP, {folder!r}))

    def find_spec(self, name, target=None):
        at = self.folder / name.rpartition(".")[2]
        package = at.is_dir()
        file = at / "__init__" if package else at
        for suffix in (".py", ".pyc"):
            if file.with_suffix(suffix).is_file():
                origin = str(Path(self.path) / file.relative_to(self.folder).with_suffix(".pyc"))
                spec = ModuleSpec(name, Loader(file.with_suffix(suffix)), origin=origin, is_package=package)
                spec.has_location = True
                spec.submodule_search_locations = [self.path + "/" + at.name] if package else None
                return spec
        return None

    def iter_modules(self, prefix=""):
        for name in sorted({{path.name.partition(".")[0] for path in self.folder.iterdir()}} - {{"__init__"}}):
            if self.find_spec(name):
                yield prefix + name, (self.folder / name).is_dir()

class Loader:
    def __init__(self, file):
        self.file = file

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(self._code(), module.__dict__)

    def _code(self):
        content = self.file.read_bytes()
        return marshal.loads(content[16:]) if self.file.suffix == ".pyc" else compile(content, self.file, "exec")

    if {code}:
        def get_code(self, name):
            return self._code()

sys.path_hooks.insert(0, Frozen)
sys.path_importer_cache.clear()
sys.path.insert(0, Frozen.TOP)
"""
