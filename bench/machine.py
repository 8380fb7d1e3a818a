"""The machine that something was measured on, as a saved run describes it."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import npmobilenet
from npmobilenet.bench import machine_limits
from npmobilenet.bench.runtimes import RUNTIMES
from npmobilenet.machine import available_cpus, cpu_name, vector_set

SAME = ("cpu", "vectors", "cpus")
"""What makes two machines the same."""


def different_machines(old: dict, new: dict) -> list[str]:
    """Return in what the machines of two runs differ; nothing if they are the same."""
    return [f"{name}: {old.get(name)} and {new.get(name)}" for name in SAME if old.get(name) != new.get(name)]


def commit() -> str | None:
    """Return the checkout's commit, with a ``+`` if files were changed since; None outside a checkout."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(
            ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True, timeout=30
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def package_version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    if package == "npmobilenet":
        return npmobilenet.__version__
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine(limits: list[dict]) -> dict:
    """Describe the machine and what is installed on it."""
    packages = {"numpy", "numba", "llvmlite", *(runtime.package for runtime in RUNTIMES.values())}
    return {
        "cpu": cpu_name(),
        "cpus": available_cpus(),
        "vectors": vector_set(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in sorted(packages) if (found := package_version(name))},
        "commit": commit(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "limits": limits,
    }


def heading(about: dict) -> Iterator[str]:
    """The machine in a few lines."""
    yield f"{about['cpu']}, {about['vectors']}, {about['cpus']} CPUs; Python {about['python']}, " + ", ".join(
        f"{name} {about['versions'][name]}" for name in ("numpy", "numba")
    )
    yield from machine_limits.describe(about["limits"])


def measured_on(run: dict) -> str:
    """The machine of a saved run in a sentence."""
    about = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return f"Measured on: {'; '.join(heading(run))}. Versions: {about}."
