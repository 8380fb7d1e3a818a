"""The ladder of the inverted residual: its lower rungs; :data:`~npmobilenet.kernels.ladder.LADDERS` has all.

They compute one operation after the other, each by the same rung of three other ladders. What lies between is
allocated when a rung is prepared, so that none is measured on how the system hands out memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import pairwise
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np

from npmobilenet.kernels import checks, reference
from npmobilenet.kernels.ladder import depthwise, pointwise
from npmobilenet.kernels.plain import depthwise as plain_depthwise
from npmobilenet.kernels.plain import pointwise as plain_pointwise
from npmobilenet.kernels.plain.activation import activate
from npmobilenet.kernels.prepared import prepared

PARTS = 2  # of the expanded channels; the paper finds two to five best

Operation = Callable[..., np.ndarray]
_SIGNATURE = inspect.signature(reference.inverted_residual)


class _Parts:
    """A block whose expanded channels are computed in so many parts, each by three operations.

    The weights of the parts are cut beforehand, but not packed: these operations take them as they are.

    Attributes
    ----------
    between : int
        Bytes of what lies between the three operations.
    """

    packs = False  # only memory is taken beforehand

    def __init__(self, pointwise_conv2d: Operation, depthwise_conv2d: Operation, parts: int, given: SimpleNamespace):
        self.pointwise_conv2d, self.depthwise_conv2d, self.given = pointwise_conv2d, depthwise_conv2d, given
        given.x = checks.float32(given.x)
        n, height, width, _ = given.x.shape
        expanded = given.weight.shape[2]
        ends = [expanded * part // parts for part in range(parts + 1)]
        self.channels = [slice(*each) for each in pairwise(ends)]
        self.weights = [
            [
                None if array is None else checks.float32(array)
                for array in (
                    given.expand_weight[:, part],
                    given.expand_bias if given.expand_bias is None else given.expand_bias[part],
                    given.weight[..., part],
                    given.bias if given.bias is None else given.bias[part],
                    given.project_weight[part],
                )
            ]
            for part in self.channels
        ]
        widest = -(-expanded // parts)
        shape = given.geometry.shape
        self.expanded = np.empty(n * height * width * widest, np.float32)
        self.filtered = np.empty(n * shape[1] * shape[2] * widest, np.float32)
        self.between = self.expanded.nbytes + self.filtered.nbytes
        self.sums = [np.empty(shape, np.float32) for _ in range(min(parts, 2))]
        self.shapes = (n, height, width), shape[:3]

    def run(self) -> None:
        """Compute it; the parts of the projection are added up in turn in one array and the other."""
        b = self.given
        window = {"stride": b.stride, "padding": b.padding, "activation": b.depthwise_activation}
        whole = len(self.channels) == 1
        so_far = b.x if b.residual and whole else None
        for number, (expand_weight, expand_bias, weight, bias, project_weight) in enumerate(self.weights):
            expanded, filtered = (
                memory[: prod(shape) * weight.shape[2]].reshape(*shape, weight.shape[2])
                for memory, shape in zip((self.expanded, self.filtered), self.shapes, strict=True)
            )
            self.pointwise_conv2d(
                b.x, expand_weight, expand_bias, activation=b.expand_activation, out=expanded, threads=b.threads
            )
            self.depthwise_conv2d(expanded, weight, bias, **window, out=filtered, threads=b.threads)
            so_far = self.pointwise_conv2d(
                filtered,
                project_weight,
                None if number else b.project_bias,
                residual=so_far,
                activation=b.project_activation if whole else "none",
                out=self.sums[number % 2],
                threads=b.threads,
            )
        if not whole:
            activate(so_far.reshape(-1), checks.code(b.project_activation))
            if b.residual:
                so_far += b.x
        self.last = so_far

    def result(self) -> np.ndarray:
        """Return the result of the last run."""
        return self.last.copy()


def _given(arguments: tuple, options: dict[str, Any]) -> SimpleNamespace:
    """The arguments by name, checked."""
    bound = _SIGNATURE.bind(*arguments, **options)
    bound.apply_defaults()
    given = {name: value for name, value in bound.arguments.items() if name not in ("out", "threads")}
    return SimpleNamespace(**given, geometry=checks.inverted_residual(**given), threads=bound.arguments["threads"])


@prepared("inverted_residual")
def python(*arguments: Any, **options: Any) -> _Parts:
    """Nested Python loops, three times: (N, H, W, C_in) -> (N, P, Q, C_out)."""
    return _Parts(pointwise.python, depthwise.python, 1, _given(arguments, options))


@prepared("inverted_residual")
def numpy_operations(*arguments: Any, **options: Any) -> _Parts:
    """A matrix product, taps, a matrix product: (N, H, W, C_in) -> (N, P, Q, C_out)."""
    return _Parts(pointwise.matmul, depthwise.numpy_taps, 1, _given(arguments, options))


@prepared("inverted_residual")
def njit_operations(*arguments: Any, **options: Any) -> _Parts:
    """Three compiled kernels, each on the whole image: (N, H, W, C_in) -> (N, P, Q, C_out)."""
    return _Parts(plain_pointwise.pointwise_conv2d, plain_depthwise.depthwise_conv2d, 1, _given(arguments, options))


@prepared("inverted_residual")
def njit_split(*arguments: Any, **options: Any) -> _Parts:
    """Three compiled kernels on a part of the expanded channels at a time: (N, H, W, C_in) -> (N, P, Q, C_out).

    ``F(x) = sum over the parts of (A_i o N o B_i)(x)``: 1801.04381, section 5.1.
    """
    given = _given(arguments, options)
    parts = min(PARTS, given.weight.shape[2])
    return _Parts(plain_pointwise.pointwise_conv2d, plain_depthwise.depthwise_conv2d, parts, given)
