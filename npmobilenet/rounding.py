"""How far two float32 networks may be apart at each node: the errors of roundings, followed from layer to layer."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, prod

import numpy as np

from npmobilenet.graph import INPUT, Node, Shape
from npmobilenet.kernels.geometry import Pair, output_size, resolve_padding
from npmobilenet.passes import folded_parameters

UNIT = 2.0**-24  # half the distance from 1 to the next float32: the largest relative error of one rounding
FACTOR = 32  # of the largest error of a node that is allowed to the size that errors have in its worst channel


class Rounding:
    """How far two float32 networks may be apart, followed from layer to layer.

    A sum of K products is off by about ``sqrt(K) * UNIT`` of its size, since roundings go up as often as down (Higham,
    Accuracy and Stability of Numerical Algorithms, 2nd edition, section 2.8). As independent are the errors that it is
    given: those of a layer's input arrive multiplied by the weights, and their squares add up. So a mean square for
    each channel follows from those of the layer before, and `FACTOR` of its root is allowed.

    Attributes
    ----------
    allowed : dict of str to float
        The largest error of each node.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], shapes: Mapping[str, Shape], x: np.ndarray) -> None:
        self.weights, self.shapes = weights, shapes
        self.allowed: dict[str, float] = {}
        self.values = {INPUT: _mean_squares(x)}  # mean squares of each channel: of values,
        self.errors = {INPUT: np.zeros(x.shape[1])}  # and of errors

    def follow(self, node: Node, values: np.ndarray) -> None:
        """Take the values of a node whose inputs have been followed."""
        made, before = _mean_squares(values), self.values[node.inputs[0]]
        unit = UNIT**2 * (node.kind.terms(node, *(self.shapes[name] for name in node.inputs)) + 2)
        if node.kind.ends:
            weight, bias = folded_parameters(node, self.weights)
            factors = self._squares(node, weight)
            sizes = _through(factors, before) + bias**2
            errors = _through(factors, self.errors[node.inputs[0]]) + unit * np.maximum(sizes, made)
        else:
            relative = max(_ratio(self.errors[name].sum(), self.values[name].sum()) for name in node.inputs)
            errors = (relative + unit) * made
            if node.operation == "squeeze_excite":
                errors = errors + _of_gates(np.sqrt(_ratio(made, before)), self._before_gates(node, unit)) * before
        if node.attributes.get("residual"):
            errors = errors + self.errors[node.inputs[1]]
        self.allowed[node.name] = FACTOR * float(np.sqrt(errors.max(initial=0)))
        if node.attributes.get("activation", "none") != "none" and not node.attributes.get("residual"):
            errors = errors * _slopes(values, node["activation"])
        self.values[node.name], self.errors[node.name] = made, errors

    def _squares(self, node: Node, weight: np.ndarray | list[np.ndarray]) -> np.ndarray:
        """The squares of a layer's weights, (C_out, C_in / G): of taps beside the image as many as there are within."""
        parts = weight if isinstance(weight, list) else [weight]
        if node.windows:
            size = self.shapes[node.inputs[0]][1:]
            parts = [part**2 * _within(node, size, *window) for part, window in zip(parts, node.windows, strict=True)]
            return np.concatenate([part.sum((2, 3)) for part in parts])
        return parts[0] ** 2

    def _before_gates(self, node: Node, unit: float) -> np.ndarray:
        """The errors of what a squeeze-and-excitation takes the sigmoid of."""
        pixels = prod(self.shapes[node.inputs[0]][1:]) ** 0.75  # neighbours have part of their errors in common
        errors, sizes = self.errors[node.inputs[0]] / pixels, self.values[node.inputs[0]]
        for name in ("reduce", "expand"):
            squares = self.weights[f"{node.name}.{name}.weight"].astype(np.float64) ** 2
            sizes = _through(squares, sizes) + self.weights[f"{node.name}.{name}.bias"].astype(np.float64) ** 2
            errors = _through(squares, errors) + unit * sizes
        return errors


def _mean_squares(values: np.ndarray) -> np.ndarray:
    """Of each channel; what is not finite counts as 0."""
    squares = np.square(np.where(np.isfinite(values), values, 0), dtype=np.float64)
    return squares.reshape(*squares.shape[:2], -1).mean((0, 2))


def _through(squares: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Mean squares of a layer's result, from squares of its weights (C_out, C_in / G) and mean squares of its input."""
    groups = len(inputs) // squares.shape[1]
    return (squares.reshape(groups, -1, squares.shape[1]) @ inputs.reshape(groups, -1, 1)).reshape(-1)


def _within(node: Node, size: Pair, kernel: Pair, dilation: Pair) -> np.ndarray:
    """Of each tap of a window, (K_h, K_w), at which part of its positions it lies within the image."""
    parts = []
    pads = resolve_padding(node["padding"], size, kernel, node["stride"], dilation)
    for length, taps, stride, pad, step in zip(size, kernel, node["stride"], pads, dilation, strict=True):
        starts = np.arange(output_size(length, taps, stride, pad, step)) * stride - pad[0]
        places = starts[:, None] + np.arange(taps) * step
        parts.append(((places >= 0) & (places < length)).mean(0))
    return np.outer(*parts)


def _of_gates(gates: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Mean squares of errors of a sigmoid that gave these values, from those of what it was taken of."""
    gates = gates.clip(1e-7, 1 - 1e-7)
    nearest = np.maximum(np.abs(np.log(gates / (1 - gates))) - 4 * np.sqrt(errors), 0)  # to where it is steepest
    return np.minimum(errors * (np.exp(-nearest) / (1 + np.exp(-nearest)) ** 2) ** 2, 1)


def _ratio(part: np.ndarray | float, whole: np.ndarray | float) -> np.ndarray | float:
    """A quotient of what is not negative, 0 of nothing."""
    return part / np.maximum(whole, np.finfo(np.float64).tiny)


def _slopes(values: np.ndarray, function: str) -> np.ndarray:
    """Mean squares, of each channel, of about the slope that an activation has where it gave these values."""
    top = 6.0 if function == "relu6" else inf
    slopes = ((values > 0) & (values < top)) + 0.25 * (values < 0)
    return slopes.reshape(*slopes.shape[:2], -1).mean((0, 2))
