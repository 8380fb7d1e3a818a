"""PTX as data: the one kernel of a module, its shared memory, its basic blocks.

Only what the compiler makes of this package's kernels is understood. Anything else is a `PtxError`, here or when it is
to be executed: the PTX of another version of the compiler may need a line more.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field


class PtxError(Exception):
    """An instruction or directive that is not understood."""


@dataclass(frozen=True)
class Address:
    """``[base + offset]``; the base is a register's number, a name, or None."""

    base: int | str | None
    offset: int


@dataclass(frozen=True)
class Special:
    """A register that says which thread this is, such as ``tid.x``."""

    name: str


@dataclass(frozen=True)
class Number:
    """A constant: an integer, or a float's value."""

    value: int | float


Operand = int | str | Number | Special | Address | tuple  # registers are numbers, labels and names are text


@dataclass(frozen=True)
class Instruction:
    """``@guard op operands``; the guard is a register and the value that it must have."""

    op: str
    operands: tuple[Operand, ...]
    guard: tuple[int, bool] | None
    text: str


@dataclass
class Block:
    """Instructions without a way in or out in the middle; ``end`` is a branch, a return, a barrier, or None."""

    body: list[Instruction] = field(default_factory=list)
    end: Instruction | None = None
    target: int | None = None  # the block that the branch leads to


@dataclass
class Program:
    """A kernel."""

    name: str
    parameters: dict[str, int]  # the place of each
    registers: list[str]  # the type of each
    shared: dict[str, int]  # where each array begins
    shared_bytes: int
    local_bytes: int
    blocks: list[Block]


_NUMBER = re.compile(r"-?(0x[0-9A-Fa-f]+|\d+)U?")
_FLOATS = {"0f": (">f", 8), "0d": (">d", 16)}
_ENDS = ("bra", "ret", "exit", "bar", "barrier")
_IGNORED = (".pragma", ".loc", ".file", ".section", "//")


def parse(text: str) -> Program:
    """Return the kernel of a module.

    Raises
    ------
    PtxError
        If there is none, or something is not understood.
    """
    text = re.sub(r"/\*.*?\*/", " ", re.sub(r"//[^\n]*", "", text), flags=re.DOTALL)
    entry = re.search(r"\.entry\s+(\S+?)\s*\((.*?)\)([^{]*)\{(.*)\}", text, re.DOTALL)
    if entry is None or len(re.findall(r"\.entry\b", text)) != 1:
        raise PtxError("no kernel, or several")
    if re.search(r"\.func\b", text):
        raise PtxError("a function that is not inlined")
    name, parameters, _, body = entry.groups()
    places = {match: place for place, match in enumerate(re.findall(r"\.param\s+\.u64\s+([\w$]+)", parameters))}
    if len(places) != parameters.count(".param"):
        raise PtxError("a parameter that has not 64 bits")
    shared, shared_bytes = _shared(text)
    local_bytes = sum(map(int, re.findall(r"\.local\s[^;\[]*\[(\d+)\]", text)))
    registers: dict[str, int] = {}
    types: list[str] = []
    for kind, prefix, count in re.findall(r"\.reg\s+\.(\w+)\s+(%\w+?)<(\d+)>", body):
        registers |= {f"{prefix}{number}": len(types) + number for number in range(int(count))}
        types += [kind] * int(count)
    for kind, names in re.findall(r"\.reg\s+\.(\w+)\s+([^<;]+);", body):
        for each in re.split(r"\s*,\s*", names.strip()):
            if each not in registers:
                registers[each] = len(types)
                types.append(kind)
    return Program(name, places, types, shared, shared_bytes, local_bytes, _blocks(body, registers))


def _shared(text: str) -> tuple[dict[str, int], int]:
    """Where each array of shared memory begins, and where the last one ends."""
    places, end = {}, 0
    for align, name, size in re.findall(r"\.shared\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[(\d*)\]", text):
        end = -(-end // int(align)) * int(align)
        places[name] = end
        end += int(size or 0)
    return places, end


def _blocks(body: str, registers: dict[str, int]) -> list[Block]:
    """Cut the instructions into basic blocks."""
    blocks, labels = [Block()], {}
    # Braces around whole instructions, as inline assembly has them, mean nothing; those of vectors hold no semicolon.
    body = re.sub(r"(?m)^\s*\{(?=[^{}]*;)|(?<=;)\s*\}", " ", body)
    for piece in re.split(r"(?<=;)|(?<=:)(?=\s)", body):
        text = " ".join(piece.split())
        if text.endswith(":"):
            if blocks[-1].body or blocks[-1].end:
                blocks.append(Block())
            labels[text[:-1]] = len(blocks) - 1
        elif text.strip("{};") and not text.startswith((".reg", "{.reg", "{ .reg", ".shared", ".local", *_IGNORED)):
            instruction = _instruction(text.rstrip(";"), registers)
            if blocks[-1].end:
                blocks.append(Block())
            if instruction.op.split(".")[0] in _ENDS:
                blocks[-1].end = instruction
            else:
                blocks[-1].body.append(instruction)
    for block in blocks:
        if block.end and block.end.op.startswith("bra"):
            block.target = labels[block.end.operands[0]]
    return blocks


def _instruction(text: str, registers: dict[str, int]) -> Instruction:
    match = re.fullmatch(r"(?:@(!?)(%?\w+)\s+)?([a-z][\w.:]*)\s*(.*)", text)
    if match is None:
        raise PtxError(f"not an instruction: {text}")
    negated, guard, op, rest = match.groups()
    pieces = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+", rest)
    operands = tuple(_operand(piece, registers) for piece in pieces)
    return Instruction(op, operands, (registers[guard], not negated) if guard else None, text)


def _operand(text: str, registers: dict[str, int]) -> Operand:
    if text in registers:
        return registers[text]
    if text.startswith("{"):
        return tuple(_operand(piece.strip(), registers) for piece in text[1:-1].split(","))
    if text.startswith("["):
        base, _, offset = text[1:-1].partition("+")
        if base in registers or not _NUMBER.fullmatch(base):
            return Address(registers.get(base, base), int(offset or "0", 0))
        return Address(None, int(base, 0))
    if text[:2] in _FLOATS:
        form, digits = _FLOATS[text[:2]]
        return Number(struct.unpack(form, bytes.fromhex(text[2:].zfill(digits)))[0])
    if _NUMBER.fullmatch(text):
        return Number(int(text.rstrip("U"), 0))
    if text.startswith("%"):
        return Special(text[1:])
    return text
