"""The CPU as kernels see it. LLVM is asked about it only when it is first needed."""

from __future__ import annotations

import os
from dataclasses import dataclass

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
    def adds_pairs(self) -> bool:
        """Whether an instruction multiplies bytes and adds neighbouring products in 16 bits, saturating."""
        return self.dot == "madd" and self.integer_bits > 128

    @classmethod
    def of(cls, cpu: str, features: str, triple: str = "") -> Target:
        """Describe the CPU that LLVM calls ``cpu``, with features such as ``"+avx2,+fma,-avx512f"``."""
        if not triple:
            import llvmlite.binding as llvm

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


@once
def host() -> Target:
    """Return this machine's target; Numba's settings NUMBA_CPU_NAME and NUMBA_CPU_FEATURES restrict it."""
    import llvmlite.binding as llvm

    chosen, features = (os.environ.get(f"NUMBA_CPU_{name}") for name in ("NAME", "FEATURES"))
    if features is None:
        features = "" if chosen else llvm.get_host_cpu_features().flatten()
    return Target.of(chosen or llvm.get_host_cpu_name(), features)
