"""Threads that execute a kernel: all of some blocks at once, each instruction for all that have come to it.

Threads that have taken different ways are at different basic blocks. Those at the first of them go on, so that they
meet again where the ways do. Blocks of threads run side by side; a barrier is passed when no thread can go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from tests.ptx import arithmetic
from tests.ptx.arithmetic import DTYPES, as_bits
from tests.ptx.memory import WARP, Counts, Device, Findings, Shared
from tests.ptx.parser import Address, Block, Instruction, Number, Operand, Program, PtxError, Special

THREADS = 4096  # that run side by side, about
_REGISTERS = {"pred": np.bool_, **{f"b{bits}": f"u{bits // 8}" for bits in (8, 16, 32, 64)}}
_REGISTERS |= {f"f{bits}": f"f{bits // 8}" for bits in (16, 32, 64)}


class Machine:
    """A kernel with its arguments.

    Parameters
    ----------
    program : Program
    arguments : sequence of int
        The parameters' values, addresses among them.
    grid, block : (x, y, z)
    device : Device
    check : bool
        Whether to look for races and for reads of what was never written, which takes longer than to run.
    """

    def __init__(
        self,
        program: Program,
        arguments: Sequence[int],
        grid: Sequence[int],
        block: Sequence[int],
        device: Device,
        check: bool = True,
    ) -> None:
        self.program, self.grid, self.block_shape = program, tuple(grid), tuple(block)
        self.arguments = dict(zip(program.parameters, arguments, strict=True))
        self.device, self.findings, self.counts, self.check = device, device.findings, device.counts, check
        self.lanes = int(np.prod(block))
        self.block_threads = -(-self.lanes // WARP) * WARP  # whole warps: what is missing takes no part
        device.block_threads = self.block_threads
        self._compiled: dict[int, list[Callable[[], None]]] = {}

    def run(self, only: Sequence[int] | None = None) -> None:
        """Run the blocks of threads, all of them or those with these numbers."""
        numbers = np.arange(int(np.prod(self.grid))) if only is None else np.asarray(only)
        together = max(1, THREADS // self.block_threads)
        with np.errstate(all="ignore"):
            for start in range(0, len(numbers), together):
                self._run(numbers[start : start + together])
        self.counts.blocks += len(numbers)
        self.counts.threads += len(numbers) * self.lanes

    def _run(self, numbers: np.ndarray) -> None:
        count = len(numbers) * self.block_threads
        lane = np.tile(np.arange(self.block_threads), len(numbers))
        self.which = np.repeat(np.arange(len(numbers)), self.block_threads)
        self._special = self._place(lane, np.repeat(numbers, self.block_threads))
        self.threads = lane + np.repeat(numbers, self.block_threads) * self.block_threads
        self.shared = Shared(self.program.shared_bytes, len(numbers), self.findings, self.counts, self.check)
        self.registers: list[np.ndarray] = [np.zeros(count, _REGISTERS[kind]) for kind in self.program.registers]
        end = len(self.program.blocks)
        at = np.where(lane < self.lanes, 0, end)
        waiting = np.zeros(count, bool)
        while True:
            ready = ~waiting & (at < end)
            if ready.any():
                number = int(at[ready].min())
                self.active = ready & (at == number)
                self._block(number, at, waiting)
            elif waiting.any():
                self._barrier(at, waiting)
            else:
                break
        self.device.end_of_blocks()

    def _place(self, lane: np.ndarray, block: np.ndarray) -> dict[str, np.ndarray]:
        special = {}
        for name, flat, shape in (("tid", lane, self.block_shape), ("ctaid", block, self.grid)):
            for axis, size in zip("xyz", shape, strict=True):
                special[f"{name}.{axis}"] = (flat % size).astype(np.uint32)
                special[f"n{name}.{axis}"] = np.full(flat.shape, size, np.uint32)
                flat = flat // size
        return special

    def _barrier(self, at: np.ndarray, waiting: np.ndarray) -> None:
        """All that have not ended must wait, at one place."""
        real = self.threads % self.block_threads < self.lanes
        rows = np.where(real & waiting, at, -1).reshape(-1, self.block_threads)
        there = real.reshape(rows.shape)
        some = (rows >= 0).any(axis=1)
        first = rows.max(axis=1, keepdims=True)
        self.findings.add(
            "barrier that not all threads of a block come to", some & ((rows != first) & there).any(1), ""
        )
        waiting[:] = False
        self.shared.barriers += 1

    def _block(self, number: int, at: np.ndarray, waiting: np.ndarray) -> None:
        block = self.program.blocks[number]
        warps = int(self.active.reshape(-1, WARP).any(axis=1).sum())
        for kind, count in self._mix[number].items():
            self.counts.instructions[kind] += count * warps
        everyone = bool(self.active.all())
        for instruction, step in zip(block.body, self._steps(number), strict=True):
            step(self._guarded(instruction), everyone and instruction.guard is None)
        at[self.active] = number + 1
        if block.end is None:
            return
        kind = block.end.op.split(".")[0]
        goes = self._guarded(block.end)
        if kind == "bra":
            at[goes] = block.target
        elif kind in ("ret", "exit"):
            at[goes] = len(self.program.blocks)
        else:
            waiting[goes] = True

    def _guarded(self, instruction: Instruction) -> np.ndarray:
        if instruction.guard is None:
            return self.active
        register, wanted = instruction.guard
        return self.active & (self.registers[register] == wanted)

    @cached_property
    def _mix(self) -> list[dict[str, int]]:
        mixes = []
        for block in self.program.blocks:
            mix: dict[str, int] = {}
            for instruction in (*block.body, *([block.end] if block.end else ())):
                kind = arithmetic.kind_of(instruction.op)
                if instruction.op.startswith("mov") and isinstance(instruction.operands[1], Number):
                    kind = "constant"  # other moves need no instruction of the hardware's
                mix[kind] = mix.get(kind, 0) + 1
            mixes.append(mix)
        return mixes

    def _steps(self, number: int) -> list[Callable[[np.ndarray, bool], None]]:
        """The instructions of a block as functions of the threads that take part."""
        if number not in self._compiled:
            self._compiled[number] = [self._step(each) for each in self.program.blocks[number].body]
        return self._compiled[number]

    def _step(self, instruction: Instruction) -> Callable[[np.ndarray, bool], None]:
        name, *options = instruction.op.split(".")
        if name in ("ld", "st"):
            return self._memory(instruction, options)
        if name == "cvta":  # addresses of the device's memory are the same in both ways of speaking
            if "shared" in options or "local" in options:
                raise PtxError(f"an address that is not the device's memory: {instruction.text}")
            return self._computed(instruction, ["u64"], "u64", lambda a: a)
        target, *sources = instruction.operands
        if name == "mov" and isinstance(target, tuple):
            return self._split(instruction, options[0])
        if name == "mov" and isinstance(sources[0], tuple):
            return self._joined(instruction, options[0])
        return self._computed(instruction, *arithmetic.function(instruction.op))

    def _computed(
        self, instruction: Instruction, kinds: list[str], result: str, function: Callable[..., np.ndarray]
    ) -> Callable[[np.ndarray, bool], None]:
        target, *sources = instruction.operands
        if len(sources) != len(kinds) or not isinstance(target, int):
            raise PtxError(f"unknown operands: {instruction.text}")
        read = [self._reader(source, DTYPES[kind]) for source, kind in zip(sources, kinds, strict=True)]
        dtype = DTYPES[result]

        def step(active: np.ndarray, everyone: bool) -> None:
            value = function(*(each() for each in read))
            self._write(target, np.asarray(value, dtype), active, everyone)

        return step

    def _reader(self, operand: Operand, dtype: np.dtype) -> Callable[[], np.ndarray]:
        if isinstance(operand, int):
            own = np.dtype(_REGISTERS[self.program.registers[operand]])
            if own == dtype:
                return lambda: self.registers[operand]
            if own.itemsize == dtype.itemsize:
                return lambda: self.registers[operand].view(dtype)
            if own.itemsize > dtype.itemsize:
                raise PtxError(f"a register of {own} as {dtype}")
            return lambda: self.registers[operand].astype(dtype)
        if isinstance(operand, Number):
            value = as_bits(operand.value, dtype)
            return lambda: value
        if isinstance(operand, Special):
            return lambda: self._special[operand.name].astype(dtype)
        if isinstance(operand, str) and operand in self.program.shared:
            place = dtype.type(self.program.shared[operand])
            return lambda: place
        raise PtxError(f"unknown operand: {operand}")

    def _write(self, register: int, value: np.ndarray, active: np.ndarray, everyone: bool) -> None:
        old = self.registers[register]
        if value.dtype.itemsize != old.dtype.itemsize:
            value = value.astype(f"{value.dtype.kind}{old.dtype.itemsize}")  # a register may be wider
        value = value.view(old.dtype)
        if everyone and value.shape == old.shape:
            # Values are never changed in place, so that registers may share them.
            self.registers[register] = value
        else:
            self.registers[register] = np.where(active, value, old)

    def _split(self, instruction: Instruction, kind: str) -> Callable[[np.ndarray, bool], None]:
        """``mov.b32 {low, high}, x``."""
        targets, source = instruction.operands
        read, size = self._reader(source, DTYPES[kind]), DTYPES[kind].itemsize // len(targets)

        def step(active: np.ndarray, everyone: bool) -> None:
            parts = np.ascontiguousarray(read()).view(f"u{size}").reshape(-1, len(targets))
            for place, target in enumerate(targets):
                self._write(target, np.ascontiguousarray(parts[:, place]), active, everyone)

        return step

    def _joined(self, instruction: Instruction, kind: str) -> Callable[[np.ndarray, bool], None]:
        """``mov.b32 x, {low, high}``."""
        target, sources = instruction.operands
        part = np.dtype(f"u{DTYPES[kind].itemsize // len(sources)}")
        read = [self._reader(source, part) for source in sources]

        def step(active: np.ndarray, everyone: bool) -> None:
            parts = np.stack(np.broadcast_arrays(*(each() for each in read)), axis=-1)
            self._write(target, np.ascontiguousarray(parts).view(DTYPES[kind]).reshape(-1), active, everyone)

        return step

    def _memory(self, instruction: Instruction, options: list[str]) -> Callable[[np.ndarray, bool], None]:
        load = instruction.op.startswith("ld")
        space, kind = options[0], options[-1]
        known = {"nc", "v2", "v4", "volatile", kind}
        if kind not in DTYPES or not set(options[1:]) <= known:
            raise PtxError(f"unknown access: {instruction.text}")
        value, place = instruction.operands if load else instruction.operands[::-1]
        if space == "param":
            given = np.uint64(self.arguments[place.base] & (1 << 64) - 1)
            return lambda active, everyone: self._write(value, np.full(active.shape, given), active, everyone)
        if space not in ("global", "shared"):
            raise PtxError(f"memory of an unknown kind: {instruction.text}")
        vector = value if isinstance(value, tuple) else (value,)
        dtype = DTYPES[kind]
        sources = None if load else [self._reader(each, dtype) for each in vector]

        def step(active: np.ndarray, everyone: bool) -> None:
            address = self._address(place)
            values = None
            if sources is not None:
                values = [np.broadcast_to(read(), active.shape) for read in sources]
            if space == "global":
                found = self.device.access(address, active, dtype, len(vector), self.threads, instruction.text, values)
            else:
                found = self.shared.access(
                    address, active, dtype, len(vector), self.threads, self.which, instruction.text, values
                )
            for target, result in zip(vector, found, strict=False):
                self._write(target, result, active, everyone)

        return step

    def _address(self, place: Address) -> np.ndarray:
        if isinstance(place.base, int):
            register = self.registers[place.base]
            wide = register.view(np.int64) if register.itemsize == 8 else register.astype(np.int64)
            return wide + place.offset
        if place.base in self.program.shared:
            return np.full(self.threads.shape, self.program.shared[place.base] + place.offset, np.int64)
        raise PtxError(f"unknown address: {place}")


__all__ = ["Block", "Counts", "Device", "Findings", "Machine"]
