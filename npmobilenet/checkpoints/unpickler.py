"""A pickle interpreter that cannot run anything: it builds lists, tuples, dicts and inert placeholders.

A pickle is a program for a small stack machine (Python's ``Lib/pickletools.py`` describes every opcode).
Two opcodes make it dangerous: GLOBAL imports any object by name and REDUCE calls it. Here GLOBAL looks the
name up in tables of our own functions, and REDUCE calls only those.

Why not ``pickle.Unpickler`` with ``find_class`` overridden? It still builds what the file asks for, and a
file can ask for much: one LONG_BINPUT makes CPython's C machine grow its memo to gigabytes, BINBYTES8
allocates the length it declares before reading, and a deeply nested tuple used as a dict key is hashed
recursively in C until the process crashes (nested *shared* tuples: until the heat death of the universe).
So every length is compared with the bytes left, the memo is a dict, opcodes and the bytes of what they make are
charged to an `Allowance`, and a dict keeps only the entries whose key is a string; the weights are never found under
another one.

A name without a meaning here becomes a `Foreign`, an inert placeholder, and so does all that is made with it
(`ForeignObject`): that a file refers to ``os.system`` is no harm as long as nobody listens.

Opcodes of protocols 0 to 5 as ``pickle`` and ``torch.save`` emit them, in Python 2 too. Sets are built as lists,
bytearrays as bytes.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable

from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.checkpoints.foreign import Foreign, ForeignObject
from npmobilenet.errors import CheckpointError

MAX_NAME = 1000  # characters of a Python object's name: it is put together anew for every opcode that names it
MAX_ARGUMENTS = 16  # of our own functions: Python copies them for every call


class Function:
    """One of our own functions, standing for the Python object ``name`` that the pickle asked for."""

    __slots__ = ("call", "name")

    def __init__(self, name: str, call: Callable[..., object]) -> None:
        self.name = name
        self.call = call


class Unpickler:
    """Interpret one pickle that starts at ``position`` of ``data``; afterwards ``position`` is its end.

    ``find_global(name)`` returns what stands for the Python object ``"module.name"``, and
    ``load_persistent(key)`` what a persistent id stands for (``torch.save`` uses them for storages).
    """

    def __init__(
        self,
        data: bytes | memoryview,
        position: int,
        find_global: Callable[[str], object],
        load_persistent: Callable[[object], object],
        allowance: Allowance,
    ) -> None:
        self.data = data
        self.position = position
        self.find_global = find_global
        self.load_persistent = load_persistent
        self.allowance = allowance
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def load(self) -> object:
        """Return the pickled object."""
        try:
            while True:
                opcode = self.take(1)[0]
                if opcode == STOP:
                    return self.stack.pop()
                if opcode not in _OPERATIONS:
                    raise CheckpointError(
                        f"its pickle has opcode 0x{opcode:02x} at byte {self.position - 1}, which is none that weights "
                        "are saved with; it is damaged or hostile"
                    )
                self.allowance.take_opcode(_COSTS.get(opcode, _COST))
                _OPERATIONS[opcode](self)
        except CheckpointError:
            raise
        except (LookupError, TypeError, ValueError, struct.error) as error:
            raise CheckpointError(
                f"its pickle is damaged at byte {self.position} ({type(error).__name__}); download or save it again"
            ) from error

    def take(self, length: int) -> bytes:
        """Return the next ``length`` bytes."""
        start = self.position
        if not 0 <= length <= len(self.data) - start:
            raise CheckpointError("is cut short: it ends inside its pickle; download or save it again")
        self.position = start + length
        return self.data[start : self.position]

    def take_number(self, format: str) -> int:
        """Return the next number, in ``struct``'s notation."""
        return struct.unpack(format, self.take(struct.calcsize(format)))[0]

    def take_line(self) -> bytes:
        """Return the bytes up to the next newline."""
        end = self.data.find(b"\n", self.position)
        return self.take((len(self.data) if end < 0 else end) + 1 - self.position)[:-1]

    def pop_mark(self) -> list:
        """Return everything pushed since the last MARK."""
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def call(self, function: object, arguments: tuple) -> None:
        """Push what stands for ``function(*arguments)``."""
        if isinstance(function, Foreign):
            self.stack.append(ForeignObject(function.name, arguments))
        elif isinstance(function, ForeignObject):
            self.stack.append(ForeignObject(function.kind))
        elif not isinstance(function, Function):
            raise TypeError
        else:
            try:
                if len(arguments) > MAX_ARGUMENTS:
                    raise TypeError
                self.stack.append(function.call(*arguments))
            except TypeError as error:
                raise CheckpointError(
                    f"its pickle calls {function.name} with {len(arguments)} arguments of unexpected types; "
                    "it is damaged or hostile"
                ) from error


def _global(machine: Unpickler, module: str, name: str) -> None:
    length = len(module) + len(name)
    if length > MAX_NAME:
        raise CheckpointError(f"its pickle names a Python object by {length} characters; it is damaged or hostile")
    machine.stack.append(machine.find_global(f"{module}.{name}"))


def _global_line(machine: Unpickler) -> None:
    _global(machine, str(machine.take_line(), "utf-8"), str(machine.take_line(), "utf-8"))


def _stack_global(machine: Unpickler) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise TypeError
    _global(machine, module, name)


def _reduce(machine: Unpickler) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    if type(arguments) is not tuple:
        raise TypeError
    machine.call(function, arguments)


def _new_object_with_keywords(machine: Unpickler) -> None:
    machine.stack.pop()  # no function in our tables takes keywords
    _reduce(machine)


def _instance(machine: Unpickler) -> None:  # protocol 0: the class by name, its arguments behind a mark
    _global_line(machine)
    function = machine.stack.pop()
    machine.call(function, tuple(machine.pop_mark()))


def _object(machine: Unpickler) -> None:  # protocol 1: the class and its arguments behind a mark
    function, *arguments = machine.pop_mark()
    machine.call(function, tuple(arguments))


def _build(machine: Unpickler) -> None:
    # Of a state dict `_metadata`, of a tensor what its author attached to it: not read.
    state = machine.stack.pop()
    build = getattr(machine.stack[-1], "build", None)
    if build is not None:
        build(state)


def _append(target: object, items: list) -> None:
    if type(target) is list:
        target.extend(items)
    elif not isinstance(target, ForeignObject):
        raise TypeError


def _set_items(machine: Unpickler, target: object, keys: list, values: list) -> None:
    if type(target) is not dict and not isinstance(target, ForeignObject):
        raise TypeError
    machine.allowance.take(DICT_ENTRY * len(keys), "its pickle")
    target.update({key: value for key, value in zip(keys, values, strict=True) if type(key) is str})


def _append_one(machine: Unpickler) -> None:
    item = machine.stack.pop()
    _append(machine.stack[-1], [item])


def _append_many(machine: Unpickler) -> None:
    items = machine.pop_mark()
    _append(machine.stack[-1], items)


def _set_one(machine: Unpickler) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _set_items(machine, machine.stack[-1], [key], [value])


def _set_many(machine: Unpickler) -> None:
    items = machine.pop_mark()
    _set_items(machine, machine.stack[-1], items[::2], items[1::2])


def _dict(machine: Unpickler) -> None:
    items = machine.pop_mark()
    target: dict = {}
    _set_items(machine, target, items[::2], items[1::2])
    machine.stack.append(target)


def _tuple_of(length: int) -> Callable[[Unpickler], None]:
    def operation(machine: Unpickler) -> None:
        if len(machine.stack) < length:
            raise IndexError
        items = tuple(machine.stack[-length:])
        del machine.stack[-length:]
        machine.stack.append(items)

    return operation


def _push(make: Callable[[Unpickler], object]) -> Callable[[Unpickler], None]:
    def operation(machine: Unpickler) -> None:
        machine.stack.append(make(machine))

    return operation


def _counted(length_format: str, decode: Callable[[bytes], object]) -> Callable[[Unpickler], None]:
    """Push an object that is written as its length and that many bytes."""

    def operation(machine: Unpickler) -> None:
        made = decode(machine.take(machine.take_number(length_format)))
        machine.allowance.take(sys.getsizeof(made), "its pickle")
        machine.stack.append(made)

    return operation


def _line(decode: Callable[[bytes], object]) -> Callable[[Unpickler], None]:
    """Push an object that is written as a line of text, as protocol 0 does."""

    def operation(machine: Unpickler) -> None:
        made = decode(machine.take_line())
        machine.allowance.take(sys.getsizeof(made), "its pickle")
        machine.stack.append(made)

    return operation


def _memoize(machine: Unpickler, index: int) -> None:
    machine.memo[index] = machine.stack[-1]


def _text(data: bytes) -> str:
    return str(data, "utf-8", "surrogatepass")


def _python2_string(data: bytes) -> str:
    return str(data, "latin-1")


def _quoted_string(line: bytes) -> str:
    line = line.strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError
    return str(_ESCAPE.sub(_unescaped, line[1:-1]), "latin-1")


_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)  # all that Python 2 writes
_SIMPLE_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def _unescaped(match: re.Match[bytes]) -> bytes:
    digits, character = match.groups()
    return bytes([int(digits, 16)]) if digits else _SIMPLE_ESCAPES.get(character, character)


def _raw_text(line: bytes) -> str:
    return str(line, "raw-unicode-escape")


def _long(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _decimal(line: bytes) -> object:
    if line in (b"00", b"01"):  # how protocols 0 and 1 spell a bool
        return line == b"01"
    return int(_short(line).removesuffix(b"L"))


def _fraction(line: bytes) -> float:
    return float(_short(line))


def _short(line: bytes) -> bytes:
    if len(line) > 40:
        raise ValueError
    return line


STOP = ord(".")

_OPERATIONS: dict[int, Callable[[Unpickler], object]] = {
    opcode[0]: operation
    for opcode, operation in {
        b"\x80": lambda m: m.take(1),  # PROTO
        b"\x95": lambda m: m.take_number("<Q"),  # FRAME: only a hint for buffering
        # The stack
        b"(": lambda m: m.marks.append(len(m.stack)),  # MARK
        b"0": lambda m: m.stack.pop(),  # POP
        b"1": lambda m: m.pop_mark(),  # POP_MARK
        b"2": lambda m: m.stack.append(m.stack[-1]),  # DUP
        # The memo
        b"q": lambda m: _memoize(m, m.take(1)[0]),  # BINPUT
        b"r": lambda m: _memoize(m, m.take_number("<I")),  # LONG_BINPUT
        b"\x94": lambda m: _memoize(m, len(m.memo)),  # MEMOIZE
        b"p": lambda m: _memoize(m, int(_short(m.take_line()))),  # PUT
        b"g": _push(lambda m: m.memo[int(_short(m.take_line()))]),  # GET
        b"h": _push(lambda m: m.memo[m.take(1)[0]]),  # BINGET
        b"j": _push(lambda m: m.memo[m.take_number("<I")]),  # LONG_BINGET
        # Constants, numbers and strings
        b"N": _push(lambda m: None),  # NONE
        b"\x88": _push(lambda m: True),  # NEWTRUE
        b"\x89": _push(lambda m: False),  # NEWFALSE
        b"I": _line(_decimal),  # INT: Python 2 beyond 32 bits, protocol 0
        b"L": _line(_decimal),  # LONG
        b"F": _line(_fraction),  # FLOAT
        b"S": _line(_quoted_string),  # STRING
        b"V": _line(_raw_text),  # UNICODE
        b"J": _push(lambda m: m.take_number("<i")),  # BININT
        b"K": _push(lambda m: m.take(1)[0]),  # BININT1
        b"M": _push(lambda m: m.take_number("<H")),  # BININT2
        b"\x8a": _counted("<B", _long),  # LONG1
        b"G": _push(lambda m: m.take_number(">d")),  # BINFLOAT
        b"U": _counted("<B", _python2_string),  # SHORT_BINSTRING
        b"T": _counted("<i", _python2_string),  # BINSTRING
        b"\x8c": _counted("<B", _text),  # SHORT_BINUNICODE
        b"X": _counted("<I", _text),  # BINUNICODE
        b"\x8d": _counted("<Q", _text),  # BINUNICODE8
        b"C": _counted("<B", bytes),  # SHORT_BINBYTES
        b"B": _counted("<I", bytes),  # BINBYTES
        b"\x8e": _counted("<Q", bytes),  # BINBYTES8
        b"\x96": _counted("<Q", bytes),  # BYTEARRAY8
        b"\x98": lambda m: None,  # READONLY_BUFFER: no bytes are written to here
        # Containers
        b")": _push(lambda m: ()),  # EMPTY_TUPLE
        b"\x85": _tuple_of(1),  # TUPLE1
        b"\x86": _tuple_of(2),  # TUPLE2
        b"\x87": _tuple_of(3),  # TUPLE3
        b"t": _push(lambda m: tuple(m.pop_mark())),  # TUPLE
        b"]": _push(lambda m: []),  # EMPTY_LIST
        b"l": _push(lambda m: m.pop_mark()),  # LIST
        b"a": _append_one,  # APPEND
        b"e": _append_many,  # APPENDS
        b"}": _push(lambda m: {}),  # EMPTY_DICT
        b"d": _dict,  # DICT
        b"s": _set_one,  # SETITEM
        b"u": _set_many,  # SETITEMS
        b"\x8f": _push(lambda m: []),  # EMPTY_SET
        b"\x90": _append_many,  # ADDITEMS
        b"\x91": _push(lambda m: m.pop_mark()),  # FROZENSET
        # Objects
        b"c": _global_line,  # GLOBAL
        b"\x93": _stack_global,  # STACK_GLOBAL
        b"R": _reduce,  # REDUCE
        b"\x81": _reduce,  # NEWOBJ: the class takes the function's place
        b"\x92": _new_object_with_keywords,  # NEWOBJ_EX
        b"i": _instance,  # INST
        b"o": _object,  # OBJ
        b"b": _build,  # BUILD
        b"Q": _push(lambda m: m.load_persistent(m.stack.pop())),  # BINPERSID
    }.items()
}

# Bytes of what an opcode makes, in CPython, about; strings are charged as they are
_COST = 48  # a place on the stack, a number
DICT_ENTRY = 100
_COSTS = {
    opcode: cost
    for opcodes, cost in {
        b"}d]l\x8f\x91": 96,  # a dict, a list
        b"\x85\x86\x87t": 96,  # a tuple
        b"qrp\x94": 128,  # an entry of the memo
        b"R\x81\x92iob": 400,  # an object, a tensor
        b"Q": 400,  # a storage
    }.items()
    for opcode in opcodes
}
