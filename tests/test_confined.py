"""Where nothing can be written, nothing that was written can be executed, and no file here may be run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.target import host
from tests.conftest import compiled_only, photo
from tests.kernels.test_jit import REPOSITORY
from tests.kernels.test_simd import WITHOUT, adders

pytestmark = [
    compiled_only,
    pytest.mark.skipif(host().level is None, reason="nothing is shipped for this CPU"),
]

NAMESPACE = ["unshare", *["--map-root-user"] * (hasattr(os, "getuid") and os.getuid() != 0), "--mount"]

CLASSIFY = """
import ctypes, sys
sys.modules |= dict.fromkeys(("numba", "llvmlite"))
mdwe = ctypes.CDLL(None).prctl(65, *map(ctypes.c_ulong, (1, 0, 0, 0))) if sys.argv[2] == "strict" else 0
from hashlib import sha256
import npmobilenet
from npmobilenet.kernels.vector import lookup
model = npmobilenet.load(sys.argv[1])
x = model.preprocess(sys.argv[3])[None]
digest = sha256(model(x, threads=1).tobytes() + model(x, threads=2).tobytes()).hexdigest()
maps = [line.split() for line in open("/proc/self/maps")]
print(
    digest,
    " ".join({served.functions.origin for served in lookup.served.values()}),
    {type(served.functions).__name__ for served in lookup.served.values()},
    sum("x" in entry[1] and len(entry) < 6 for entry in maps),  # without a file
    sum("w" in entry[1] and "x" in entry[1] for entry in maps),
    sep="|",
)
"""


@cache
def no_namespace() -> str:
    """Why there can be none; empty if there can."""
    try:
        done = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


def confined(mounts: str, program: str, *arguments: str, packages: Path = REPOSITORY) -> str:
    """Run a Python after such commands of the shell, in a namespace of its own; return what it prints."""
    if problem := no_namespace():
        pytest.skip(f"no mount namespace can be made here: {problem}")
    shell = [*NAMESPACE, "sh", "-c", f'set -e\n{mounts}\nexec "$@"', "sh"]
    run = subprocess.run(
        [*shell, sys.executable, "-B", "-W", "error", "-c", program, *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(packages), "HOME": "/nonexistent"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def classified(mounts: str, weights: str, *, strict: bool = False, packages: Path = REPOSITORY) -> tuple[str, str, int]:
    """Classify there; return a hash of it, how code was opened, and how much is executed that is in no file."""
    mode = "strict" if strict else "lax"
    printed = confined(mounts, CLASSIFY, weights, mode, str(photo("coffee.png")), packages=packages)
    digest, origins, classes, anonymous, both = printed.split("|")
    assert origins == f"shipped for {host().level}" and both == "0"
    return digest, classes, int(anonymous)


READ_ONLY = """
cut -d ' ' -f 2 /proc/mounts | while read -r mount; do mount -o remount,bind,ro "$mount" 2>/dev/null || true; done
for folder in / /tmp /var/tmp /dev/shm "$PWD" {here}; do
    if [ -d "$folder" ] && touch "$folder/written" 2>/dev/null; then echo "$folder can be written" >&2; exit 1; fi
done
"""
NOEXEC = "mount --bind {here} {here}\nmount -o remount,bind,noexec {here}"


def test_no_place_to_write_and_no_home(pets, tmp_path):
    """All files are read only; and nothing that was written to memory may be executed, where the system can say so."""
    expected = classified("", pets)
    assert expected[1:] == ("{'Loaded'}", 0)
    assert classified(READ_ONLY.format(here=tmp_path), pets, strict=True) == expected


def test_no_file_may_be_run(pets, tmp_path):
    """The package's own neither: its code is mapped, and computes the same bits."""
    for package in ("npmobilenet", "kernels"):
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=ignored)
    expected = classified("", pets, packages=tmp_path)
    mounts = NOEXEC.format(here=tmp_path) + "\n" + READ_ONLY.format(here=tmp_path)
    digest, classes, anonymous = classified(mounts, pets, packages=tmp_path)
    assert (digest, classes) == (expected[0], "{'Mapped'}") and anonymous > 0


def test_what_is_kept_may_be_in_such_a_place(tmp_path):
    Library("test", host(), adders, tmp_path).address("add")
    mounts = NOEXEC.format(here=tmp_path) + "\n" + READ_ONLY.format(here=tmp_path)
    loaded, missing = confined(mounts, WITHOUT.format(level=host().level, folder=str(tmp_path))).splitlines()
    assert loaded == f"True kept in the cache for {host().level}" and "must be compiled" in missing
