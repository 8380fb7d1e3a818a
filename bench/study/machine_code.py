"""Reading what a compiler wrote: functions, inner loops and kinds of instructions, in assembly or LLVM IR.

Assembly is x86-64's (AT&T syntax) or AArch64's. A loop is what lies between a label and the last branch back to it; one
that holds no other is an inner loop.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_FUNCTION = re.compile(r"^(\w+):.*\n", re.MULTILINE)
_LABEL = re.compile(r"(\.?L\w+):")
_BRANCH = re.compile(r"(?:j\w+|b|b\.\w+|cbn?z|tbn?z)\s+(?:.*[\s,])?(\.?L\w+)$")
_IR_FUNCTION = re.compile(r"^define .*?@\"?([\w.]+)\"?\(.*?^}", re.MULTILINE | re.DOTALL)
_IR_LABEL = re.compile(r"\"?([\w.]+)\"?:$")
_IR_TARGETS = re.compile(r"label %\"?([\w.]+)\"?")
_IR_PRODUCT = re.compile(r"@llvm\.fma\.|@llvm\.fmuladd\.|= fmul ")
_IR_VECTOR = re.compile(r"<\d+ x float>")

_VECTOR = r"(?:%[xyz]mm\d+|\bv\d+\.\d*[bhsd]|\b[qsd]\d+\b)"
_ADDRESS = r"(?:\S*\(.*\)|\[.*\])"
_STACK = re.compile(r"\(%rsp|\[sp\b")  # frames are addressed by the stack pointer alone
_USES_VECTOR, _USES_MEMORY = re.compile(_VECTOR), re.compile(_ADDRESS)
_OF_ACTIVATIONS = re.compile(
    r"\s*(?:%\S+ = )?(?:v?div[ps]|v?cvt|v?round|fdiv|fcvt|frint|fptosi|sitofp)"
)  # swish needs them
_PRODUCT = re.compile(r"v?mulps\s|fmul\s+v")  # of vectors, where a CPU has no multiply-add
_SINGLE = re.compile(r"(?!vbroadcast)[a-z]\w*s[sd]\s|\w+\s+[sd]\d+\b")  # of vector registers but the lowest lane
KINDS: dict[str, re.Pattern] = {  # of instructions: the first that fits
    "multiply-add": re.compile(r"vfn?m(?:add|sub)\w+\s|fml[as]\s|fn?madd\s"),
    "broadcast": re.compile(r"vbroadcast\w*\s|v?shufps\s|vpermilps\s|dup\s|ld1r\s"),
    "vector load": re.compile(rf"v?mov\w+\s+{_ADDRESS},\s*{_VECTOR}|(?:ldu?r|ldp|ld1)\s+\{{?\s*{_VECTOR}"),
    "vector store": re.compile(rf"v?mov\w+\s+{_VECTOR},\s*{_ADDRESS}|(?:stu?r|stp|st1)\s+\{{?\s*{_VECTOR}"),
    "other vector": re.compile(rf"\S+\s.*{_VECTOR}"),
    "branch, compare": re.compile(r"(?:j\w+|cmp\w*|test\w*|b|b\.\w+|cbn?z|tbn?z|ret\w*|call\w*|blr?|tst)\b"),
    "address, counter": re.compile(r"\S"),
}


@dataclass(frozen=True)
class Loop:
    """Lines ``start`` to ``end`` of a function, both included."""

    start: int
    end: int

    def holds(self, other: Loop) -> bool:
        """Whether the other lies inside."""
        return self != other and self.start <= other.start and other.end <= self.end


@dataclass(frozen=True)
class Counts:
    """Instructions of some lines.

    Attributes
    ----------
    kinds : dict of str to int
        By `KINDS`.
    single : int
        Those that work on single floating-point values.
    loads : int
        Vectors or values that come from memory: by loads, broadcasts, and as operands of arithmetic.
    stack : int
        Accesses to the stack.
    spills : int
        Those of them that move a vector: registers were too few.
    products : int
        Multiplications of whole vectors, in multiply-adds or by themselves.
    """

    kinds: dict[str, int]
    single: int
    loads: int
    stack: int
    spills: int
    products: int

    @property
    def instructions(self) -> int:
        """All."""
        return sum(self.kinds.values())

    @property
    def vector(self) -> int:
        """Those that work on whole vectors."""
        others = self.kinds["branch, compare"] + self.kinds["address, counter"]
        return self.instructions - others - self.single


def functions(assembly: str) -> dict[str, list[str]]:
    """Return the lines of every function, stripped: labels and instructions."""
    parts = _FUNCTION.split(assembly)
    return {
        name.removeprefix("_"): [line.strip() for line in body.splitlines()]
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
        if not name.startswith(("L", ".L"))
    }


def ir_functions(text: str) -> dict[str, list[str]]:
    """Return the lines of every function that an IR module defines."""
    return {match[1]: match[0].splitlines() for match in _IR_FUNCTION.finditer(text)}


def is_instruction(line: str) -> bool:
    """Whether a stripped line of assembly is one: no label, comment or directive."""
    return bool(line) and not _LABEL.match(line) and line[0] not in ".#/;"


def loops(lines: Sequence[str]) -> list[Loop]:
    """Return the loops of a function, in assembly or IR."""
    labels, ends = {}, {}
    for at, line in enumerate(lines):
        line = re.split("[#;]", line)[0].strip()
        label = _LABEL.match(line) or _IR_LABEL.match(line)
        if label:
            labels[label[1]] = at
        branch = _BRANCH.match(line)
        targets = [branch[1]] if branch else _IR_TARGETS.findall(line) if line.startswith("br ") else []
        ends.update({labels[target]: at for target in targets if target in labels})
    return [Loop(start, end) for start, end in ends.items()]


def inner_loops(lines: Sequence[str]) -> list[Loop]:
    """Return the loops that hold no other loop."""
    found = loops(lines)
    return [loop for loop in found if not any(loop.holds(other) for other in found)]


def busiest_loop(lines: Sequence[str]) -> Loop | None:
    """Return the inner loop that computes the sums of products: of all that with the most products of vectors.

    What is left of a row beside whole vectors is computed by a loop over single values, unrolled, and an activation's
    exponential is a polynomial: either may have more multiply-adds in its text, but does less.
    """
    found = inner_loops(lines)
    if not found:
        return None
    is_ir = lines[0].startswith("define ")

    def work(loop: Loop) -> tuple[bool, int, int, int]:
        body = lines[loop.start : loop.end + 1]
        sums = not any(map(_OF_ACTIVATIONS.match, body))
        if is_ir:
            products = [line for line in body if _IR_PRODUCT.search(line)]
            return sums, sum(_IR_VECTOR.search(line) is not None for line in products), len(products), len(body)
        counts = count(body)
        sums &= counts.kinds["multiply-add"] + counts.products > 0
        return sums, counts.products, counts.kinds["multiply-add"], counts.vector

    return max(found, key=work)


def count(lines: Sequence[str]) -> Counts:
    """Count the instructions of some lines of assembly."""
    instructions = list(filter(is_instruction, map(str.strip, lines)))
    kinds = Counter(map(kind_of, instructions))
    stack = [line for line in instructions if _STACK.search(line)]
    single = {line for line in instructions if _SINGLE.match(line) and _USES_VECTOR.search(line)}
    return Counts(
        {kind: kinds[kind] for kind in KINDS},
        single=sum(line in single for line in instructions),
        loads=sum(_is_load(line) for line in instructions),
        stack=len(stack),
        spills=sum(_USES_VECTOR.search(line) is not None for line in stack),
        products=sum(
            line not in single and (kind_of(line) == "multiply-add" or _PRODUCT.match(line) is not None)
            for line in instructions
        ),
    )


def kind_of(instruction: str) -> str:
    """Return which of `KINDS` an instruction is."""
    return next(kind for kind, pattern in KINDS.items() if pattern.match(instruction))


def _is_load(instruction: str) -> bool:
    kind = kind_of(instruction)
    arithmetic = kind in ("multiply-add", "broadcast", "other vector")
    return kind == "vector load" or (arithmetic and _USES_MEMORY.search(instruction) is not None)
