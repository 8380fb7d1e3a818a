"""Memory of the device and of a block, with what is checked and what is counted.

Checked as compute-sanitizer does: that an access lies within its array and is aligned, that what is read has been
written, and that no two threads meet at an address without a barrier between them, one of them writing.

Counted as the hardware moves it: a *request* is an instruction of a warp. Of the device's memory it moves *sectors* of
32 bytes, in lines of 128. Shared memory has 32 banks of 4 bytes; a request takes as many passes as words of one bank
are asked for at most, by all 32 threads at 4 bytes each, by 16 at 8 bytes and by 8 at 16 bytes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

SECTOR, LINE, WARP, BANKS = 32, 128, 32, 32
REGION = 40  # bits of an address within an array: all arrays lie far apart
NOBODY, SEVERAL = -1, -2


class Findings:
    """What is wrong, each kind with its first example."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def add(self, kind: str, wrong: np.ndarray, where: str) -> None:
        """Note threads for which ``wrong`` is true."""
        number = int(np.count_nonzero(wrong))
        if number:
            self.counts[kind] += number
            self.first.setdefault(kind, where)

    def __str__(self) -> str:
        return "; ".join(f"{kind}, {count} times, first by {self.first[kind]}" for kind, count in self.counts.items())

    def __bool__(self) -> bool:
        return bool(self.counts)


@dataclass
class Traffic:
    """What warps ask of one kind of memory."""

    requests: int = 0
    threads: int = 0  # that take part in them
    sectors: int = 0  # or passes over shared memory
    least: int = 0  # sectors that hold what is asked for, or passes without conflicts
    lines: int = 0
    bytes: int = 0  # that are asked for, those that several threads ask for at once counted once
    asked: int = 0  # bytes by all threads


@dataclass
class Counts:
    """What a launch did, in warps.

    Attributes
    ----------
    instructions : counter of str
        By kind, each instruction of a warp once.
    loads, stores : Traffic
        The device's memory.
    shared : Traffic
    block_sectors : int
        Sectors of the device's memory that a block reads, each once: what a cache that kept all of them would fetch.
    distinct : dict of str to int
        Bytes of the sectors read, and of those written, by the whole launch.
    """

    instructions: Counter[str] = field(default_factory=Counter)
    loads: Traffic = field(default_factory=Traffic)
    stores: Traffic = field(default_factory=Traffic)
    shared: Traffic = field(default_factory=Traffic)
    block_sectors: int = 0
    distinct: dict[str, int] = field(default_factory=dict)
    threads: int = 0
    blocks: int = 0


def _changes(values: np.ndarray) -> np.ndarray:
    """How many different values there are in each row of a sorted array; negative ones do not count."""
    new = values[:, 1:] != values[:, :-1]
    return (new & (values[:, 1:] >= 0)).sum(axis=1) + (values[:, 0] >= 0)


class Array:
    """One array of the device's memory."""

    def __init__(self, values: np.ndarray, valid: np.ndarray, base: int) -> None:
        self.data, self.valid, self.base = values, valid, base
        self.bytes, self.item = self.data.view(np.uint8), self.data.itemsize
        self.writer = np.full(self.data.size, NOBODY, np.int64)
        sectors = -(-self.bytes.size // SECTOR) + 1
        self.seen = {kind: np.zeros(sectors, bool) for kind in ("loads", "stores")}


class Device:
    """The device's memory: arrays, each followed and preceded by what belongs to nobody."""

    def __init__(self, findings: Findings, counts: Counts, check: bool) -> None:
        self.arrays: list[Array] = []
        self.findings, self.counts, self.check = findings, counts, check
        self._block_sectors: list[np.ndarray] = []

    def add(self, values: np.ndarray, valid: np.ndarray, offset: int) -> int:
        """Take a flat array in, and which of its elements are set; return its address, ``offset`` after a line's."""
        base = (len(self.arrays) + 1 << REGION) + 4096 + offset
        self.arrays.append(Array(values, valid, base))
        return base

    def access(
        self, address: np.ndarray, active: np.ndarray, kind: np.dtype, lanes: int, threads: np.ndarray, where: str,
        values: list[np.ndarray] | None,
    ) -> list[np.ndarray]:  # fmt: skip
        """Load, or store ``values``: ``lanes`` of this kind from the address on, for the active threads."""
        size = kind.itemsize * lanes
        self._count(address, active, size, self.counts.loads if values is None else self.counts.stores)
        results = [np.zeros(address.shape, kind) for _ in range(lanes)] if values is None else []
        self.findings.add("misaligned access", (address % size != 0) & active, where)
        which = (address >> REGION) - 1
        known = active & (which >= 0) & (which < len(self.arrays)) & (address % size == 0)
        self.findings.add("access to no array", active & ~known, where)
        for number in np.unique(which[known]):
            array = self.arrays[number]
            place = address - array.base
            mine = known & (which == number)
            inside = mine & (place >= 0) & (place + size <= array.bytes.size)
            self.findings.add(f"access outside of array {number}", mine & ~inside, where)
            at = place[inside]
            self._seen(array, at, inside, "loads" if values is None else "stores", int(number))
            if self.check:
                self._checked(array, at, threads[inside], size, values is not None, where)
            data = array.bytes.view(kind)
            at = at // kind.itemsize
            for lane in range(lanes):
                if values is None:
                    results[lane][inside] = data[at + lane]
                else:
                    data[at + lane] = values[lane][inside]
        return results

    def _checked(self, array: Array, at: np.ndarray, threads: np.ndarray, size: int, store: bool, where: str) -> None:
        for item in range(0, size, array.item):
            element = (at + item) // array.item
            writer = array.writer[element]
            if store:
                self.findings.add("two threads write one element", (writer != NOBODY) & (writer != threads), where)
                array.writer[element] = threads
                self.findings.add("two threads write one element", array.writer[element] != threads, where)
                array.valid[element] = True
            else:
                self.findings.add("read of what was never written", ~array.valid[element], where)
                other = (writer != NOBODY) & (writer != threads)
                self.findings.add("read of what another thread writes", other, where)

    def _count(self, address: np.ndarray, active: np.ndarray, size: int, traffic: Traffic) -> None:
        asked = np.sort(np.where(active, address, -1).reshape(-1, WARP), axis=1)
        asked = asked[asked[:, -1] >= 0]
        traffic.requests += len(asked)
        traffic.threads += int(np.count_nonzero(active))
        traffic.asked += int(np.count_nonzero(active)) * size
        useful = int(_changes(asked).sum()) * size
        traffic.bytes += useful
        traffic.sectors += int(_changes(asked >> 5).sum())
        traffic.lines += int(_changes(asked >> 7).sum())
        traffic.least += int(-(-_changes(asked) * size // SECTOR).sum())

    def _seen(self, array: Array, at: np.ndarray, inside: np.ndarray, kind: str, number: int) -> None:
        sector = (at + array.base % SECTOR) // SECTOR
        array.seen[kind][sector] = True
        if kind == "loads":
            block = np.flatnonzero(inside) // self.block_threads
            self._block_sectors.append(np.unique(block << 48 | number << 40 | sector))

    block_threads = 1

    def end_of_blocks(self) -> None:
        """Count what the blocks that have ended read, each sector of a block once."""
        if self._block_sectors:
            self.counts.block_sectors += len(np.unique(np.concatenate(self._block_sectors)))
            self._block_sectors.clear()


class Shared:
    """Shared memory of the blocks that run side by side."""

    def __init__(self, size: int, blocks: int, findings: Findings, counts: Counts, check: bool) -> None:
        self.words = -(-size // 4)
        self.size, self.blocks = size, blocks
        self.data = np.full(blocks * self.words, np.nan, np.float32)
        self.findings, self.counts, self.check = findings, counts, check
        self.barriers = 1  # since the last one all accesses count as simultaneous
        self.written, self.read = (np.zeros(blocks * self.words, np.int32) for _ in range(2))  # after which barrier
        self.writer, self.reader = (np.full(blocks * self.words, NOBODY, np.int32) for _ in range(2))

    def access(
        self, address: np.ndarray, active: np.ndarray, kind: np.dtype, lanes: int, threads: np.ndarray,
        block: np.ndarray, where: str, values: list[np.ndarray] | None,
    ) -> list[np.ndarray]:  # fmt: skip
        """Load, or store ``values``, for the active threads."""
        size = kind.itemsize * lanes
        self._count(address, active, lanes)
        results = [np.full(address.shape, 0, kind) for _ in range(lanes)] if values is None else []
        self.findings.add("misaligned access", (address % size != 0) & active, where)
        inside = active & (address >= 0) & (address + size <= self.size)
        self.findings.add("access outside of shared memory", active & ~inside, where)
        data, who = self.data.view(kind), threads[inside]
        first = address[inside] // 4 + block[inside] * self.words
        for lane in range(lanes):
            place = first + lane
            if self.check:
                (self._check_load if values is None else self._check_store)(place, who, where)
            if values is None:
                results[lane][inside] = data[place]
            else:
                data[place] = values[lane][inside]
        return results

    def _check_load(self, place: np.ndarray, who: np.ndarray, where: str) -> None:
        self.findings.add("read of shared memory that was never written", self.written[place] == 0, where)
        meets = (self.written[place] == self.barriers) & (self.writer[place] != who)
        self.findings.add("read of shared memory that another thread writes", meets, where)
        before = np.where(self.read[place] == self.barriers, self.reader[place], who)
        self.reader[place] = who
        self.reader[place[(before != who) | (self.reader[place] != who)]] = SEVERAL
        self.read[place] = self.barriers

    def _check_store(self, place: np.ndarray, who: np.ndarray, where: str) -> None:
        meets = (self.written[place] == self.barriers) & (self.writer[place] != who)
        self.writer[place] = who
        meets |= self.writer[place] != who
        self.findings.add("two threads write one word of shared memory", meets, where)
        meets = (self.read[place] == self.barriers) & (self.reader[place] != who)
        self.findings.add("write to shared memory that another thread reads", meets, where)
        self.written[place] = self.barriers

    def _count(self, address: np.ndarray, active: np.ndarray, lanes: int) -> None:
        """Passes: of the words that a group of threads asks for, those in the fullest bank."""
        words = np.where(active, address // 4, -lanes)[:, None] + np.arange(lanes)
        words = np.sort(words.reshape(-1, WARP), axis=1)  # 32 words: a warp, or a half or a quarter of one
        words = words[words[:, -1] >= 0]
        new = words >= 0
        new[:, 1:] &= words[:, 1:] != words[:, :-1]
        groups, _ = np.nonzero(new)
        banks = np.bincount(groups * BANKS + words[new] % BANKS, minlength=len(words) * BANKS).reshape(-1, BANKS)
        self.counts.shared.requests += int(active.reshape(-1, WARP).any(axis=1).sum())
        self.counts.shared.threads += int(np.count_nonzero(active))
        self.counts.shared.least += len(words)
        self.counts.shared.sectors += int(banks.max(axis=1, initial=0).sum())
        self.counts.shared.bytes += 4 * int(np.count_nonzero(new))
