"""``npmobilenet doctor``: what this machine offers, and whether the kernels compute rightly on it."""

from __future__ import annotations

import argparse
import json
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REQUIRED = ("numpy", "numba", "llvmlite")
OPTIONAL = {"pillow": "image files", "tqdm": "progress bars", "numba-cuda": "CUDA kernels"}
TOLERANCE = 2e-4  # of logits of size 10: compiled kernels against the NumPy definitions in float64


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = commands.add_parser("doctor", help="check this machine: CPU, threads, Numba, cache, CUDA")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def run(options: argparse.Namespace) -> int:
    """Print the report; exit code 1 if the compiled kernels are wrong on this machine."""
    report = examine()
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        for name, value in report.items():
            print(f"{name:<12} {value}")
    return 0 if report["self-test"].startswith("passed") else 1


def examine() -> dict[str, str]:
    """Return the report, one line per subject."""
    from npmobilenet import __version__
    from npmobilenet.kernels import simd
    from npmobilenet.kernels.cache import kernel_cache
    from npmobilenet.kernels.cuda import device
    from npmobilenet.machine import available_cpus, cpu_name, vector_set

    cache = kernel_cache()
    report = {
        "npmobilenet": f"{__version__}, Python {platform.python_version()}, {platform.platform()}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in REQUIRED),
        "optional": ", ".join(f"{name} {_version(name)} ({use})" for name, use in OPTIONAL.items()),
        "CPU": cpu_name(),
        "vectors": f"{simd.host().lanes} float32 lanes ({vector_set()})",
        "threads": f"{available_cpus()} by default (CPUs this process may use)",
        "CUDA": device.status(),
        "self-test": _self_test(),
        "cache": f"{cache} ({_megabytes(cache)})" if cache else "no folder can be written; every process compiles anew",
    }
    return report


def _self_test() -> str:
    """Compare the compiled network with the NumPy one on random weights, on one thread and on all."""
    import numpy as np

    from npmobilenet.architectures import get_architecture, random_weights
    from npmobilenet.engine import Engine
    from npmobilenet.machine import available_cpus

    graph = get_architecture("mobilenet_v2").graph(width=0.25, num_classes=10)
    weights = random_weights(graph)
    x = np.random.default_rng(0).standard_normal((1, 3, 65, 47)).astype(np.float32)
    expected = Engine(graph, weights, "reference").run(x)
    engine = Engine(graph, weights, "cpu")
    start = time.perf_counter()
    results = [engine.run(x, threads) for threads in (1, available_cpus())]
    seconds = time.perf_counter() - start
    error = max(float(np.abs(result - expected).max() / max(1, np.abs(expected).max() / 10)) for result in results)
    same = "" if np.array_equal(*results) else "; results differ between numbers of threads"
    verdict = "passed" if error <= TOLERANCE and not same else "FAILED"
    took = f"{seconds:.1f} s with compiling"
    return f"{verdict}: largest error {error:.1e} (tolerance {TOLERANCE:.0e}){same}; {took}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _megabytes(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:.1f} MB"
