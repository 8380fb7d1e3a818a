"""The CPU as kernels see it: on Linux one of a few levels, elsewhere what LLVM knows of it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from npmobilenet.kernels import compilers
from npmobilenet.kernels.sharing import once


@dataclass(frozen=True)
class Target:
    """A CPU as kernels see it.

    Attributes
    ----------
    cpu, features : str
        In LLVM's words.
    lanes : int
        float32 values in one vector register.
    registers : int
        Vector registers.
    has_fma : bool
    dot : {"vnni", "madd", "usdot", "sdot", "saddlp", "plain"}
        By which instructions small integers are multiplied and added (`lowering.dot4`); plain ones run anywhere.
    integer_bits : int
        Of the widest vector that these take.
    """

    cpu: str
    features: str
    lanes: int
    registers: int
    has_fma: bool
    triple: str = ""
    dot: str = "plain"
    integer_bits: int = 128

    @property
    def bytes(self) -> int:
        """Bytes of a vector."""
        return 4 * self.lanes

    @property
    def level(self) -> str | None:
        """Its name in `LEVELS`; None if it is another CPU."""
        return next((name for name, level in LEVELS.items() if level.target == self), None)

    @property
    def name(self) -> str:
        """What people call it."""
        return self.level or self.cpu

    @property
    def adds_pairs(self) -> bool:
        """Whether an instruction multiplies bytes and adds neighbouring products in 16 bits, saturating."""
        return self.dot == "madd" and self.integer_bits > 128

    @classmethod
    def of(cls, cpu: str, features: str, triple: str = "") -> Target:
        """Describe the CPU that LLVM calls ``cpu``, with features such as ``"+avx2,+fma,-avx512f"``."""
        if not triple:
            llvm = compilers.needed(f"what is for the CPU {cpu}", compilers.LLVM)
            triple = llvm.get_process_triple()
        has = {item[1:] for item in features.split(",") if item.startswith("+")}
        if triple.startswith(("aarch64", "arm64")):
            dot = "usdot" if {"i8mm", "dotprod"} <= has else "sdot" if "dotprod" in has else "saddlp"
            return cls(cpu, features, 4, 32, True, triple, dot)
        bits = 512 if "avx512bw" in has else 256 if "avx2" in has else 128
        dot = "vnni" if "avxvnni" in has or {"avx512vnni", "avx512vl"} <= has else "madd"
        if not triple.startswith(("x86_64", "amd64", "i386", "i686")):
            dot = "plain"
        if "avx512f" in has:
            return cls(cpu, features, 16, 32, True, triple, dot, bits)
        if "avx" in has:
            return cls(cpu, features, 8, 16, "fma" in has, triple, dot, bits)
        return cls(cpu, features, 4, 16, "fma" in has, triple, dot, bits)


class Level(NamedTuple):
    """CPUs that machine code for one target serves best of all that is shipped.

    Attributes
    ----------
    target : Target
    needs : str
        What Linux must say that the CPU has.
    lacks : str
        What it must not have: a CPU in between is better served by code for itself.
    models : tuple of (str, str, range)
        If it is for some CPUs alone: their makers, families and models.
    """

    target: Target
    needs: str
    lacks: str = ""
    models: tuple[tuple[str, str, range], ...] = ()

    def serves(self, cpu: dict[str, str]) -> bool:
        """Whether it does a CPU of which Linux says this."""
        return self.runs_on(cpu) and _has(cpu).isdisjoint(self.lacks.split())

    def runs_on(self, cpu: dict[str, str]) -> bool:
        """Whether such a CPU knows all its instructions."""
        about = cpu.get("vendor_id"), cpu.get("cpu family"), int(cpu.get("model", -1))
        known = not self.models or any(about[:2] == one[:2] and about[2] in one[2] for one in self.models)
        return known and _has(cpu).issuperset(self.needs.split())


def _has(cpu: dict[str, str]) -> set[str]:
    """What a CPU has, in Linux's words."""
    return {*cpu.get("flags", cpu.get("Features", "")).split()}


_X86, _ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
_AVX2, _AVX512 = "+avx,+avx2,+fma", "+avx,+avx2,+fma,+avx512f,+avx512bw,+avx512dq,+avx512vl"
_V2 = "cx16 lahf_lm popcnt pni ssse3 sse4_1 sse4_2"
_V3 = f"{_V2} avx avx2 bmi1 bmi2 f16c fma abm movbe"
_V4 = f"{_V3} avx512f avx512bw avx512cd avx512dq avx512vl"
_ZEN4 = "avx512_vnni avx512_bf16 avx512vbmi avx512_vbmi2 avx512_bitalg avx512_vpopcntdq avx512ifma gfni vaes vpclmulqdq"
_ZEN4_MODELS = tuple(("AuthenticAMD", "25", range(first, first + 16)) for first in (16, 96, 112, 160))

LEVELS: dict[str, Level] = {
    # A CPU whose tiles are measured (`blocked.tiles`) has a level of its own.
    "znver4": Level(Target.of("znver4", f"{_AVX512},+avx512vnni", _X86), f"{_V4} {_ZEN4}", models=_ZEN4_MODELS),
    "x86-64-v4-vnni": Level(Target.of("x86-64-v4", f"{_AVX512},+avx512vnni", _X86), f"{_V4} avx512_vnni"),
    "x86-64-v4": Level(Target.of("x86-64-v4", _AVX512, _X86), _V4),
    "x86-64-v3-vnni": Level(Target.of("x86-64-v3", f"{_AVX2},+avxvnni", _X86), f"{_V3} avx_vnni"),
    "x86-64-v3": Level(Target.of("x86-64-v3", _AVX2, _X86), _V3),
    "x86-64-v2": Level(Target.of("x86-64-v2", "", _X86), _V2, lacks="avx"),
    "aarch64-dotprod": Level(Target.of("generic", "+neon,+dotprod", _ARM), "asimd asimddp"),
    "aarch64": Level(Target.of("generic", "+neon", _ARM), "asimd"),
}
"""By name; the first that serves a CPU is its own."""


_kept: list[Target] = []  # the one that was kept to


def best_level(levels: Iterable[str]) -> str | None:
    """The best of these levels that this CPU runs, or, if it is among them, the one that NUMBA_CPU_NAME names."""
    chosen = os.environ.get("NUMBA_CPU_NAME")
    allowed = [name for name in LEVELS if name in levels and LEVELS[name].runs_on(_cpu())]
    return chosen if chosen in allowed else next(iter(allowed), None)


def keep_to(level: str) -> None:
    """Let a level be this machine's target, whatever it is: there is code for no other."""
    _kept[:] = [LEVELS[level].target]


_HWCAP, _HWCAPS = 16, {"asimd": 1, "asimddp": 20}  # AT_HWCAP, and its bits


@once
def host() -> Target:
    """Return this machine's target; Numba's settings NUMBA_CPU_NAME and NUMBA_CPU_FEATURES restrict it.

    A CPU that is better served by code for itself is served by a lower level's where there is no compiler.

    Raises
    ------
    NoCompilerError
        If it has no level, and LLVM, which would know it, cannot be imported.
    """
    if _kept:
        return _kept[0]
    chosen, features = (os.environ.get(f"NUMBA_CPU_{name}") for name in ("NAME", "FEATURES"))
    cpu = _cpu()
    if features is None and cpu and chosen in LEVELS:
        return LEVELS[chosen].target
    levels = [] if chosen or features is not None else [level for level in LEVELS.values() if level.runs_on(cpu)]
    for level in levels:
        if level.serves(cpu):
            return level.target
    try:
        llvm = compilers.needed("what is for this CPU alone", compilers.LLVM)
    except compilers.NoCompilerError:
        if not levels:
            raise
        return levels[0].target
    if features is None:
        features = "" if chosen else llvm.get_host_cpu_features().flatten()
    return Target.of(chosen or llvm.get_host_cpu_name(), features)


@once
def _cpu() -> dict[str, str]:
    """What Linux says of the CPU; nothing elsewhere, and of a process that is not of 64 bits."""
    machine = os.uname().machine if sys.platform == "linux" and sys.maxsize >> 32 else ""
    if machine == "aarch64":  # told to every process: an emulator's /proc/cpuinfo is that of the CPU it runs on
        has = ctypes.CDLL(None).getauxval(_HWCAP)
        return {"Features": " ".join(name for name, bit in _HWCAPS.items() if has >> bit & 1)}
    said: dict[str, str] = {}
    if machine == "x86_64":
        with suppress(OSError), open("/proc/cpuinfo") as lines:  # noqa: PTH123 - before pathlib
            for line in lines:
                if not line.strip():
                    break
                name, _, value = line.partition(":")
                said[name.strip()] = value.strip()
    return said if "flags" in said else {}
