"""Shipped code of every level computes whole networks: on this CPU as far as it goes, elsewhere in an emulator.

The emulator is qemu-user; for ARM it needs a folder with Python and NumPy, which ``NPMOBILENET_ARM_SYSROOT`` names
(docs/ahead_of_time.md has the commands that make it). What it runs has no compiler.
"""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.engine import Engine
from npmobilenet.image import IMAGENET
from npmobilenet.kernels.vector import target
from npmobilenet.kernels.vector.target import LEVELS
from npmobilenet.quantisation import quantised
from tests.conftest import compiled_only
from tests.kernels.test_jit import REPOSITORY

SYSROOT = "NPMOBILENET_ARM_SYSROOT"
EMULATED = {"aarch64-dotprod": "max", "aarch64": "cortex-a53", "x86-64-v2": "Nehalem"}  # and by which CPU
NETWORKS = {"mobilenet_v2": (0.35, 96), "mobilenet_v3_small": (1.0, 64), "mixnet_s": (1.0, 64)}
SECONDS = 300

PROGRAM = """
import pickle, sys
sys.modules |= dict.fromkeys(("numba", "llvmlite"))
folder, *sys.path[:0] = sys.argv[1:]
import numpy as np
from npmobilenet.engine import Engine
from npmobilenet.kernels.vector import lookup
from npmobilenet.kernels.vector.target import host
with open(f"{folder}/networks", "rb") as file:
    networks = pickle.load(file)
results = [
    engine.run(x, threads)
    for graph, weights, dtype, x in networks
    for engine in [Engine(graph, weights, dtype=dtype)]
    for threads in (1, 2)
]
with open(f"{folder}/results", "wb") as file:
    pickle.dump(results, file)
print(host().level, *{served.functions.origin for served in lookup.served.values()}, sep=",")
"""


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> tuple[Path, list[np.ndarray]]:
    """A folder with seeded networks of float32 and one of 8 bits, and what the definitions make of an image."""
    folder, cases = tmp_path_factory.mktemp("networks"), []
    for name, (width, size) in NETWORKS.items():
        graph = get_architecture(name).graph(width, 10)
        x = np.random.default_rng(3).standard_normal((1, 3, size, size), np.float32)
        cases.append((graph, random_weights(graph, 4), "float32", x))
    graph, weights, _, x = cases[0]
    eight = quantised(graph, weights, IMAGENET)
    cases.append((eight.graph, eight.weights, "int8", x))
    (folder / "networks").write_bytes(pickle.dumps(cases))
    return folder, [Engine(*case[:2], "reference", case[2]).run(case[3]) for case in cases]


def compare(networks: tuple[Path, list[np.ndarray]], level: str, command: list[str], *paths: str, **settings) -> None:
    """Run the networks with a Python, and compare."""
    folder, expected = networks
    command = [*command, "-W", "ignore", "-c", PROGRAM, str(folder), str(REPOSITORY), *paths]
    settings = {**os.environ, "NPMOBILENET_SHIPPED_KERNELS": "1", "PYTHONDONTWRITEBYTECODE": "1", **settings}
    run = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=SECONDS, cwd=folder)
    assert run.stdout.strip() == f"{level},shipped for {level}", run.stderr
    results = pickle.loads((folder / "results").read_bytes())
    assert len(results) == 2 * len(expected)
    for number, result in enumerate(results):
        right = expected[number // 2]
        exact = number // 2 == len(expected) - 1  # 8 bits
        np.testing.assert_allclose(result, right, rtol=0, atol=0 if exact else 1e-4 * np.abs(right).max())
        assert np.array_equal(result, results[number // 2 * 2]), "two threads, other bits"


@compiled_only
@pytest.mark.parametrize("level", LEVELS)
def test_here(level, networks):
    if not LEVELS[level].runs_on(target._cpu()):
        pytest.skip("this CPU lacks the instructions")
    compare(networks, level, [sys.executable], NUMBA_CPU_NAME=level)


@compiled_only
@pytest.mark.parametrize(("level", "cpu"), EMULATED.items())
def test_emulated(level, cpu, networks):
    """An ARM's level is found by what it is; of x86-64 Linux says the same of every CPU that is emulated."""
    arm = level.startswith("aarch64")
    emulator = shutil.which("qemu-aarch64" if arm else "qemu-x86_64")
    if emulator is None:
        pytest.skip("qemu-user is not installed")
    run = partial(compare, networks, level)
    if not arm:
        if not sys.platform.startswith("linux") or os.uname().machine != "x86_64":
            pytest.skip("there is no Python for x86-64 here")
        run([emulator, "-cpu", cpu, sys.executable], NUMBA_CPU_NAME=level)
        return
    if SYSROOT not in os.environ:
        pytest.skip(f"{SYSROOT} names no folder with Python and NumPy for ARM")
    root = Path(os.environ[SYSROOT])
    (python,) = root.glob("usr/bin/python3.*")
    run([emulator, "-cpu", cpu, "-L", str(root), str(python)], str(root / "site"))
