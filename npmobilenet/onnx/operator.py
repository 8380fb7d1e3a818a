"""What an operator is: one function in NumPy whose signature says what its inputs and attributes are.

Positional parameters are inputs; one with a default may be left out, and ``*xs`` are any number. Keyword parameters are
attributes, with the default that ONNX gives them, and of the type that they must have; ``axes_given`` is the attribute
``axes`` of an operator that takes these as an input, too. Besides, a function may ask for ``opset``, the version of the
operators that the file uses, and ``results``, how many outputs the node has.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from npmobilenet.errors import CheckpointError
from npmobilenet.onnx.file import Node, Refused
from npmobilenet.onnx.room import room
from npmobilenet.text import printable, quote, shown

OLDEST_OPSET = 6
LONGEST = 300  # characters of what does not fit: a file's numbers may be among them
OPERATORS: dict[str, Operator] = {}
GIVEN = ("opset", "results")  # keywords that are no attributes

Ints, Floats = tuple[int, ...], tuple[float, ...]
# What an input decides beside values: the shape of the result.
Decides = np.ndarray

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes
    ----------
    name : str
    function : callable
        From arrays to an array, or to a tuple of them.
    kind : {"any", "view", "like", "along", "elementwise", "windows", "joined", "shape", "dynamic"}
        How the shape of a result is found without its values. "like": it is the first input's; "along": the same, and
        one axis alone decides whether the other inputs fit, the attribute ``axis``; "elementwise": that to
        which the inputs broadcast; "windows": the first axis, of the first input, is that of images, and each is
        computed by itself; "joined": of all inputs, unless they are joined along it; "shape": the result is known once
        the inputs' shapes are; "dynamic": the shape depends on values; "view": by computing it, which takes no memory;
        "any": by computing it.
    decides : tuple of int
        The inputs whose values decide on the shape of the result.
    attributes : mapping of str to (parameter, type, default)
    inputs : (int, int or None)
        How many there are at least, and at most.
    given : tuple of str
        What else the function takes, of `GIVEN`.
    """

    name: str
    function: Callable[..., Any]
    kind: str
    decides: tuple[int, ...]
    attributes: Mapping[str, tuple[str, Any, Any]]
    inputs: tuple[int, int | None]
    given: tuple[str, ...]

    def compute(self, node: Node, inputs: list[np.ndarray | None], opset: int) -> tuple[np.ndarray | None, ...]:
        """Return the outputs of a node.

        Raises
        ------
        CheckpointError
            If the inputs do not fit.
        """
        given = {"opset": opset, "results": len(node.outputs)}
        keywords = {
            about[0]: node.attributes[name] for name, about in self.attributes.items() if name in node.attributes
        }
        try:
            if self.kind == "elementwise":
                room(np.broadcast_shapes(*(array.shape for array in inputs if array is not None)))
            with np.errstate(all="ignore"):
                found = self.function(*inputs, **keywords, **{name: given[name] for name in self.given})
        except MemoryError:
            raise CheckpointError(f"{node.title}: needs more memory than this machine has") from None
        except (ValueError, IndexError, TypeError, ArithmeticError) as error:
            text = " ".join(str(error).split())
            raise CheckpointError(f"{node.title}: {printable(text, LONGEST)}") from error
        return tuple(map(np.asarray, found if isinstance(found, tuple) else (found,)))  # not NumPy's scalars


def operator(name: str, kind: str = "any", decides: tuple[int, ...] = ()) -> Callable[[Function], Function]:
    """Enter a function in the table, under its operator's name."""

    def enter(function: Function) -> Function:
        hints = get_type_hints(function)
        least, most, attributes, given = 0, 0, {}, []
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                most = None
            elif parameter.kind is parameter.KEYWORD_ONLY and parameter.name in GIVEN:
                given.append(parameter.name)
            elif parameter.kind is parameter.KEYWORD_ONLY:
                name_of_attribute = parameter.name.removesuffix("_given")
                attributes[name_of_attribute] = parameter.name, hints[parameter.name], parameter.default
            else:
                least += parameter.default is parameter.empty
                most += 1
        OPERATORS[name] = Operator(name, function, kind, decides, attributes, (least, most), tuple(given))
        return function

    return enter


def check_node(node: Node, opset: int) -> None:
    """Refuse a node that cannot be computed as it is meant.

    Raises
    ------
    CheckpointError
        The message names the node, its operator, and the attribute if it is one.
    """
    found = OPERATORS.get(node.operator)
    if found is None:
        raise CheckpointError(f"{node.title}: this operator is not supported")
    least, most = found.inputs
    if len(node.inputs) < least or "" in node.inputs[:least]:
        raise CheckpointError(f"{node.title}: has {len(list(filter(None, node.inputs)))} inputs, needs {least}")
    if most is not None and any(node.inputs[most:]):
        raise CheckpointError(f"{node.title}: has {len(node.inputs)} inputs, and {most} are known")
    for name, value in node.attributes.items():
        if isinstance(value, Refused):
            raise CheckpointError(f"{node.title}: attribute {quote(name)} is {value.kind}, which is not supported")
        if name not in found.attributes:
            known = ", ".join(found.attributes) or "none"
            raise CheckpointError(f"{node.title}: attribute {quote(name)} is not known (known: {known})")
        _, wanted, _ = found.attributes[name]
        if not _is(value, wanted):
            raise CheckpointError(
                f"{node.title}: attribute {quote(name)} must be {_described(wanted)}, got {shown(value)}"
            )
    for name, (_, wanted, default) in found.attributes.items():
        if default is inspect.Parameter.empty and name not in node.attributes:
            raise CheckpointError(f"{node.title}: must have the attribute {quote(name)}, {_described(wanted)}")


def _is(value: Any, wanted: Any) -> bool:
    if get_origin(wanted) is Literal:
        return value in get_args(wanted) and type(value) in map(type, get_args(wanted))
    if get_origin(wanted) is tuple:
        return isinstance(value, tuple) and all(_is(one, get_args(wanted)[0]) for one in value)
    if args := get_args(wanted):  # a union
        return any(_is(value, one) for one in args if one is not type(None))
    return type(value) is wanted or (wanted is float and type(value) is int)


def _described(wanted: Any) -> str:
    if get_origin(wanted) is Literal:
        return " or ".join(map(repr, get_args(wanted)))
    if get_origin(wanted) is tuple:
        return {int: "integers", float: "numbers", str: "texts"}[get_args(wanted)[0]]
    if args := get_args(wanted):
        return " or ".join(_described(one) for one in args if one is not type(None))
    return {int: "an integer", float: "a number", str: "a text", np.ndarray: "a tensor"}[wanted]


def as_ints(values: np.ndarray | tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return an input of integers as Python's, which cannot overflow."""
    if values is None:
        return None
    values = np.asarray(values)
    if values.dtype.kind not in "iu" and values.size:
        raise ValueError(f"integers are needed, got {values.dtype}")
    return tuple(int(value) for value in values.reshape(-1))


def as_large(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return what is to be repeated to a shape, if it is no larger than that.

    Raises
    ------
    ValueError
        If it is.
    """
    if np.broadcast_shapes(array.shape, shape) != shape:
        raise ValueError(f"a tensor of shape {array.shape} does not fit one of {shape}")
    return array


def of_channels(x: np.ndarray, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return arrays of a number for each channel of ``x``, (N, C, ...), as they broadcast to it.

    Raises
    ------
    ValueError
        If they have others.
    """
    for array in arrays:
        if x.ndim < 2 or array.shape != x.shape[1:2]:
            raise ValueError(f"a tensor of shape {array.shape} has no number for each channel of {x.shape}")
    return tuple(array.reshape(-1, *[1] * (x.ndim - 2)) for array in arrays)


def axis_of(axis: int, rank: int) -> int:
    """Return an axis that may be counted from the end.

    Raises
    ------
    ValueError
        If there is none.
    """
    if not -rank <= axis < max(rank, 1):
        raise ValueError(f"axis {axis} of {rank}")
    return axis % rank if rank else 0


def axes_of(axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """The same of several, which must differ."""
    found = tuple(axis_of(axis, rank) for axis in axes)
    if len(set(found)) < len(found):
        raise ValueError(f"axes {axes} are not different")
    return found
