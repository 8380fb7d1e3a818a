"""What this machine offers: the CPUs that this process may use."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def available_cpus() -> int:
    """Return how many CPUs this process may use: its affinity mask and its control group's quota."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cpus = os.cpu_count() or 1
    return max(1, min(cpus, _cgroup_quota() or cpus))


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    try:
        quota, period = (root / "cpu.max").read_text().split()  # version 2
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text()  # version 1
            period = (root / "cpu/cpu.cfs_period_us").read_text()
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
    """Return what the CPU calls itself, with LLVM's name for its microarchitecture."""
    import llvmlite.binding as llvm

    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name} ({llvm.get_host_cpu_name()})"


def vector_set() -> str:
    """Return the widest set of float32 vector instructions of this CPU, as Numba will use it."""
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
