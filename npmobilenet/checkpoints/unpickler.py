"""A pickle interpreter that cannot run anything: it builds lists, tuples, dicts and inert markers.

A pickle is a program for a small stack machine (Python's ``Lib/pickletools.py`` describes every opcode).
Two opcodes make it dangerous: GLOBAL imports any object by name and REDUCE calls it. Here GLOBAL looks the
name up in a table of our own functions, and REDUCE calls only those.

Why not ``pickle.Unpickler`` with ``find_class`` overridden? It still builds what the file asks for, and a
file can ask for much: one LONG_BINPUT makes CPython's C machine grow its memo to gigabytes, BINBYTES8
allocates the length it declares before reading, and a deeply nested tuple used as a dict key is hashed
recursively in C until the process crashes (nested *shared* tuples: until the heat death of the universe).
So every length is compared with the bytes left, the memo is a dict, opcodes are counted, and a dict keeps
only the entries whose key is a string; the weights are never found under another one.

Opcodes of protocols 2 to 5 as ``torch.save`` can emit them, including what Python 2 emitted. Sets are built
as lists; nothing in a checkpoint that we read is one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

# A MobileNet with its optimizer needs about 50 000; a list of a million losses still passes.
MAX_OPCODES = 4_000_000


class Opaque:
    """Stands for an object that is not a weight; whatever it was given is forgotten."""

    __slots__ = ()


OPAQUE = Opaque()


class Function:
    """One of our own functions, standing for the Python object ``name`` that the pickle asked for."""

    __slots__ = ("call", "name")

    def __init__(self, name: str, call: Callable[..., object]) -> None:
        self.name = name
        self.call = call


class Stranger:
    """A Python object that has no meaning here. It may be the declared type of a tensor, nothing else."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def refuse(self, whole_model: bool = False) -> CheckpointError:
        """Say which object the file asked for and what to do."""
        name = quote(self.name)
        if whole_model or self.name.startswith("torch.nn.modules."):
            return CheckpointError(
                f"is a whole pickled model (it refers to {name}), and nothing of it was imported or run; "
                "load it where its classes are installed and save model.state_dict() instead"
            )
        return CheckpointError(
            f"refers to the Python object {name}, which is not part of plain weights, and nothing of it was "
            "imported or run; if this is a whole pickled model or holds objects of your own classes, load it "
            "where they are installed and save model.state_dict() instead"
        )


class Unpickler:
    """Interpret one pickle that starts at ``position`` of ``data``; afterwards ``position`` is its end.

    ``find_global(name)`` returns what stands for the Python object ``"module.name"``, and
    ``load_persistent(key)`` what a persistent id stands for (``torch.save`` uses them for storages).
    """

    def __init__(
        self,
        data: bytes,
        position: int,
        find_global: Callable[[str], object],
        load_persistent: Callable[[object], object],
    ) -> None:
        self.data = data
        self.position = position
        self.find_global = find_global
        self.load_persistent = load_persistent
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.strangers: dict[str, Stranger] = {}

    def load(self) -> object:
        """Return the pickled object."""
        try:
            for _ in range(MAX_OPCODES):
                opcode = self.take(1)[0]
                if opcode == STOP:
                    result = self.stack.pop()
                    break
                if opcode not in _OPERATIONS:
                    raise CheckpointError(
                        f"its pickle has opcode 0x{opcode:02x} at byte {self.position - 1}, which torch.save "
                        "never writes; it is damaged or hostile"
                    )
                _OPERATIONS[opcode](self)
            else:
                raise CheckpointError(f"its pickle has more than {MAX_OPCODES} opcodes; save the weights alone")
        except CheckpointError:
            raise
        except (LookupError, TypeError, ValueError, struct.error) as error:
            raise CheckpointError(
                f"its pickle is damaged at byte {self.position} ({type(error).__name__}); download or save it again"
            ) from error
        for stranger in self.strangers.values():
            raise stranger.refuse()
        return result

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

    def take_line(self) -> str:
        """Return the text up to the next newline."""
        end = self.data.find(b"\n", self.position)
        return str(self.take((len(self.data) if end < 0 else end) + 1 - self.position)[:-1], "utf-8")

    def pop_mark(self) -> list:
        """Return everything pushed since the last MARK."""
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def claim_type(self, declared: object) -> None:
        """Let ``declared`` pass as the type of a tensor: a subclass we have no need to know."""
        if isinstance(declared, Stranger):
            self.strangers.pop(declared.name, None)


def _global(machine: Unpickler, name: str) -> None:
    found = machine.find_global(name)
    if isinstance(found, Stranger):
        machine.strangers[name] = found
    machine.stack.append(found)


def _global_line(machine: Unpickler) -> None:
    _global(machine, f"{machine.take_line()}.{machine.take_line()}")


def _stack_global(machine: Unpickler) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise TypeError
    _global(machine, f"{module}.{name}")


def _reduce(machine: Unpickler) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    if isinstance(function, Stranger):
        raise function.refuse()
    if not isinstance(function, Function) or type(arguments) is not tuple:
        raise TypeError
    try:
        machine.stack.append(function.call(*arguments))
    except TypeError as error:
        raise CheckpointError(
            f"its pickle calls {function.name} with {len(arguments)} arguments of unexpected types; "
            "it is damaged or hostile"
        ) from error


def _new_object_with_keywords(machine: Unpickler) -> None:
    machine.stack.pop()  # no function in our table takes keywords
    _reduce(machine)


def _build(machine: Unpickler) -> None:
    # Attributes: of a state dict its `_metadata`, of anything else what we do not read.
    machine.stack.pop()
    if isinstance(machine.stack[-1], Stranger):
        raise machine.stack[-1].refuse()


def _append(target: object, items: list) -> None:
    if type(target) is list:
        target.extend(items)
    elif target is not OPAQUE:
        raise TypeError


def _set_items(target: object, keys: list, values: list) -> None:
    if type(target) is dict:
        target.update((key, value) for key, value in zip(keys, values, strict=True) if type(key) is str)
    elif target is not OPAQUE:
        raise TypeError


def _append_one(machine: Unpickler) -> None:
    item = machine.stack.pop()
    _append(machine.stack[-1], [item])


def _append_many(machine: Unpickler) -> None:
    items = machine.pop_mark()
    _append(machine.stack[-1], items)


def _set_one(machine: Unpickler) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _set_items(machine.stack[-1], [key], [value])


def _set_many(machine: Unpickler) -> None:
    items = machine.pop_mark()
    _set_items(machine.stack[-1], items[::2], items[1::2])


def _dict(machine: Unpickler) -> None:
    items = machine.pop_mark()
    target: dict = {}
    _set_items(target, items[::2], items[1::2])
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
    return _push(lambda machine: decode(machine.take(machine.take_number(length_format))))


def _memoize(machine: Unpickler, index: int) -> None:
    machine.memo[index] = machine.stack[-1]


def _text(data: bytes) -> str:
    return str(data, "utf-8", "surrogatepass")


def _python2_string(data: bytes) -> str:
    return str(data, "latin-1")


def _long(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _decimal(line: str) -> object:
    if line in ("00", "01"):  # how protocols 0 and 1 spell a bool
        return line == "01"
    if len(line) > 24:
        raise ValueError
    return int(line.removesuffix("L"))


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
        b"h": _push(lambda m: m.memo[m.take(1)[0]]),  # BINGET
        b"j": _push(lambda m: m.memo[m.take_number("<I")]),  # LONG_BINGET
        # Constants, numbers and strings
        b"N": _push(lambda m: None),  # NONE
        b"\x88": _push(lambda m: True),  # NEWTRUE
        b"\x89": _push(lambda m: False),  # NEWFALSE
        b"I": _push(lambda m: _decimal(m.take_line())),  # INT: Python 2, beyond 32 bits
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
        b"b": _build,  # BUILD
        b"Q": _push(lambda m: m.load_persistent(m.stack.pop())),  # BINPERSID
    }.items()
}
