"""How much memory a graph may take: what a network of the file's size could need, whatever a few numbers in it ask for.

Constants
    What is computed of constants alone may take 16 MiB and four times what stands in the file. One number repeated
    takes nothing, but may become the weights of a layer: 96 KiB for each byte of the file that is no such number, and
    1 GiB in all.
Tensors
    The caller's inputs say how large images are, and a network makes them larger by a factor that is not large: each
    tensor may have 4 Mi values, 512 for each value of the inputs, and four for each number in the file; all of them
    together 16 times as many. Where an operator has to compute to tell the shape of its result, before there is an
    input, 4 Mi values and 32 for each of the inputs' must do: else the shape is known in a call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod
from typing import TYPE_CHECKING

from npmobilenet.text import shown

if TYPE_CHECKING:
    from npmobilenet.onnx.file import OnnxGraph

BYTES_BASE, BYTES_FACTOR = 16 << 20, 4  # of constants: of any graph, and by those that the file has
REPEATED, MOST_REPEATED = 96 << 10, 1 << 30  # bytes of one number for each other byte of the file, and all of these
VALUES_BASE, VALUES_FACTOR, VALUES_OF_CONSTANTS = 4 << 20, 512, 4
TOGETHER, VALUES_FACTOR_OF_SHAPES = 16, 32
MOST_VALUES = 1 << 30  # where no graph is bound
FIXED = 1 << 24  # values of images whose number or size the file, not the caller, chooses

_most = ContextVar("values that one tensor may have", default=MOST_VALUES)


def of_constants(graph: OnnxGraph) -> int:
    """Return how many bytes may be computed of constants alone."""
    return BYTES_BASE + BYTES_FACTOR * sum(array.nbytes for array in graph.constants.values())


def of_repeated(graph: OnnxGraph) -> int:
    """Return how many bytes one number may be repeated to."""
    stored = sum(array.nbytes for array in graph.constants.values())
    return BYTES_BASE + min(REPEATED * max(graph.bytes - stored, 0), MOST_REPEATED)


def of_tensors(graph: OnnxGraph, inputs: Mapping[str, Sequence[int]]) -> int:
    """Return how many values a tensor may have, for inputs of these shapes."""
    stored = sum(array.size for array in graph.constants.values())
    return VALUES_BASE + VALUES_FACTOR * sum(map(prod, inputs.values())) + VALUES_OF_CONSTANTS * stored


def of_shapes(inputs: Mapping[str, Sequence[int]]) -> int:
    """Return how many values may be computed for their shape alone."""
    return VALUES_BASE + VALUES_FACTOR_OF_SHAPES * sum(map(prod, inputs.values()))


class RoomError(ValueError):
    """A tensor would take more memory than it may."""


def check_together(values: int, most: int) -> None:
    """Refuse tensors that have so many values together, where each may have ``most``.

    Raises
    ------
    RoomError
    """
    if values > TOGETHER * most:
        raise RoomError(f"the tensors up to here have {values} values, more than the {TOGETHER * most} that they may")


@contextmanager
def at_most(values: int) -> Iterator[None]:
    """Let no tensor have more values than these, whatever nodes ask for."""
    token = _most.set(max(min(values, MOST_VALUES), 1))
    try:
        yield
    finally:
        _most.reset(token)


def room(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape that a node asks for, if it is none that fills the memory.

    Raises
    ------
    RoomError
        If it is.
    """
    if any(size < 0 for size in shape) or prod(shape) > _most.get():
        raise RoomError(f"asks for a tensor of shape {shown(tuple(shape))}, more than {_most.get()} values")
    return tuple(shape)
