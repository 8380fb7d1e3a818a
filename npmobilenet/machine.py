"""What this machine offers: the CPUs that this process may use."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def available_cpus() -> int:
    """Return how many CPUs this process may use: its affinity mask and its control group's quota."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cpus = os.cpu_count() or 1
    return max(1, min(cpus, _cgroup_quota() or cpus))


def _cgroup_quota(process: Path = Path("/proc/self")) -> int | None:
    """Return the smallest quota of the process's control group and of those it lies in; None if there is none."""
    quotas = []
    for folder, top in _cgroups(process):
        for group in (folder, *folder.parents):
            quotas.append(_quota(group))
            if group == top:
                break
    return min((quota for quota in quotas if quota), default=None)


def _cgroups(process: Path) -> Iterator[tuple[Path, Path]]:
    """The folders of the groups that may limit the process's CPUs, of both versions; where each hierarchy begins."""
    try:
        groups = [line.split(":", 2) for line in _lines(process / "cgroup")]
        mounts = [line.split() for line in _lines(process / "mountinfo")]
    except OSError:  # no Linux
        return
    paths = {
        "cgroup2": next((path for _, controllers, path in groups if not controllers), None),
        "cgroup": next((path for _, controllers, path in groups if "cpu" in controllers.split(",")), None),
    }
    for mount in mounts:
        kind = mount[mount.index("-") + 1]
        path = paths.get(kind)
        if path is None or (kind == "cgroup" and "cpu" not in mount[-1].split(",")):
            continue
        root, top = (Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), text)) for text in mount[3:5])
        # A container may not see the groups around it: the hierarchy then begins with its own.
        visible = Path(path).is_relative_to(root) and ".." not in Path(path).parts
        yield (top / Path(path).relative_to(root) if visible else top), top


def _lines(file: Path) -> list[str]:
    return file.read_text(errors="surrogateescape").splitlines()


def _quota(group: Path) -> int | None:
    """Return a control group's own quota in CPUs, rounded down but at least one."""
    try:
        quota, period = (group / "cpu.max").read_text().split()  # version 2
    except (OSError, ValueError):
        try:
            quota = (group / "cpu.cfs_quota_us").read_text()  # version 1
            period = (group / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        return max(1, int(quota) // int(period)) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max": no quota
        return None


def numba_is_on() -> bool:
    """Return whether Numba compiles; with NUMBA_DISABLE_JIT=1 kernels run as Python, and are not worth timing."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")


def cpu_name() -> str:
    """Return what the CPU calls itself, with LLVM's name for its microarchitecture where there is LLVM."""
    import platform  # few ask, as in what follows

    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    with suppress(ImportError):
        import llvmlite.binding as llvm

        name += f" ({llvm.get_host_cpu_name()})"
    return name


def vector_set() -> str:
    """Return the widest set of float32 vector instructions of this CPU, as Numba will use it."""
    import platform

    import llvmlite.binding as llvm
    import numba

    features = llvm.get_host_cpu_features()
    if numba.config.CPU_FEATURES is not None:
        features = {item[1:]: item[0] == "+" for item in numba.config.CPU_FEATURES.split(",") if item}
    if features.get("avx512f"):
        return "AVX-512"
    if features.get("avx2"):
        return "AVX2 + FMA" if features.get("fma") else "AVX2"
    if features.get("avx"):
        return "AVX"
    if platform.machine().lower() in ("aarch64", "arm64"):
        return "NEON"
    return "SSE2"
