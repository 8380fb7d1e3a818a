"""``npmobilenet doctor``: what this machine offers, and whether the kernels compute rightly on it."""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from npmobilenet.kernels.cache import Place

from npmobilenet.text import to_json

REQUIRED = ("numpy", "numba", "llvmlite")
OPTIONAL = {
    "pillow": "image files",
    "tqdm": "progress bars",
    "matplotlib": "report, study",
    "numba-cuda": "CUDA kernels",
}
TOLERANCE = 2e-4  # of logits of size 10: compiled kernels against the NumPy definitions in float64


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = commands.add_parser("doctor", help="check this machine: CPU, threads, Numba, cache, CUDA")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def run(options: argparse.Namespace) -> int:
    """Print the report; exit code 1 if compiled kernels are wrong on this machine."""
    report = examine()
    if options.json:
        print(to_json(report, indent=1))
    else:
        for name, value in report.items():
            print(f"{name:<12} {value}")
    return 0 if report["self-test"].startswith("passed") and not report["CUDA test"].startswith("FAILED") else 1


def examine() -> dict[str, str]:
    """Return the report, one line per subject."""
    from npmobilenet import __version__
    from npmobilenet.kernels.cache import place
    from npmobilenet.kernels.vector.target import host
    from npmobilenet.machine import available_cpus, cpu_name

    report = {
        "npmobilenet": f"{__version__}, Python {platform.python_version()}, {platform.platform()}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in REQUIRED),
        "optional": ", ".join(f"{name} {_version(name)} ({use})" for name, use in OPTIONAL.items()),
        "CPU": cpu_name(),
        "vectors": f"{host().lanes} float32 lanes",
        "level": _level(),
        "threads": f"{available_cpus()} by default (CPUs this process may use)",
        "CUDA": _cuda(),
        "self-test": _self_test(),
        "machine code": _machine_code(),
        "CUDA test": _cuda_test(),
        "cache": _cache(place()),
    }
    return report


def _level() -> str:
    """What machine code this system and this CPU get."""
    from npmobilenet.kernels.vector.target import host

    if sys.platform != "linux":
        system = {"darwin": "macOS", "win32": "Windows"}.get(sys.platform, sys.platform)
        here = f"compiled here for {host().name}, and kept"
        return f"{here}: what is shipped is for Linux; on {system} this package was never tested"
    if host().level is None:
        return f"none that machine code is shipped for; compiled here for {host().name}, and kept"
    return f"{host().level}, for which machine code is shipped"


def _cuda() -> str:
    """Whether there is a device."""
    from npmobilenet.kernels.compilers import NoCompilerError

    try:
        from npmobilenet.kernels.cuda import device
    except NoCompilerError as error:
        return f"not available: {error}"
    return device.status()


def _self_test() -> str:
    """Compare the compiled network with the NumPy one, on one thread and on all."""
    from npmobilenet.kernels.compilers import NoCompilerError
    from npmobilenet.machine import available_cpus

    try:
        return _compared("auto", (1, available_cpus()), "numbers of threads")
    except NoCompilerError as error:
        return f"FAILED: {error}"


def _machine_code() -> str:
    """Where that of the self-test came from, and if it is not shipped, why not."""
    from npmobilenet.kernels.vector import lookup

    names: dict[str, list[str]] = {}
    for (name, _), (functions, _, _, why) in lookup.served.items():
        names.setdefault(f"{functions.origin}{f' ({why})' if why else ''}", []).append(name)
    return "; ".join(f"{', '.join(sorted(each))}: {origin}" for origin, each in names.items()) or "none"


def _cuda_test() -> str:
    """The same on the GPU, where there is one."""
    from npmobilenet.kernels.compilers import NoCompilerError

    try:
        from npmobilenet.kernels.cuda import device
    except NoCompilerError:
        return "not run: no compiler"
    if device.SIMULATED or device.problem():
        return "not run: no device"
    try:
        return _compared("cuda", (1, 1, 1), "runs")  # the third time as a CUDA graph
    except Exception as error:  # whatever a driver or compiler raises: the report is to say so
        return f"FAILED: {type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def _compared(backend: str, threads: Sequence[int], between: str) -> str:
    """Compare a backend with the NumPy definitions on random weights, and its runs with each other."""
    import numpy as np

    from npmobilenet.architectures import get_architecture, random_weights
    from npmobilenet.engine import Engine

    graph = get_architecture("mobilenet_v2").graph(width=0.25, num_classes=10)
    weights = random_weights(graph)
    x = np.random.default_rng(0).standard_normal((1, 3, 65, 47)).astype(np.float32)
    expected = Engine(graph, weights, "reference").run(x)
    engine = Engine(graph, weights, backend)
    start = time.perf_counter()
    results = [engine.run(x, number) for number in threads]
    seconds = time.perf_counter() - start
    error = max(float(np.abs(result - expected).max() / max(1, np.abs(expected).max() / 10)) for result in results)
    same = (
        "" if all(np.array_equal(result, results[0]) for result in results) else f"; results differ between {between}"
    )
    verdict = "passed" if error <= TOLERANCE and not same else "FAILED"
    took = f"{seconds:.1f} s, with compiling if anything was"
    return f"{verdict}: largest error {error:.1e} (tolerance {TOLERANCE:.0e}){same}; {took}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _cache(place: Place) -> str:
    if place.folder is None:
        return f"none; every process compiles anew, since {place.why}"
    return f"{place.folder} ({_megabytes(place.folder)}{'; ' * bool(place.why)}{place.why})"


def _megabytes(folder: Path) -> str:
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):  # another process may just be writing it
            total += file.stat().st_size * file.is_file()
    return f"{total / 1e6:.1f} MB"
