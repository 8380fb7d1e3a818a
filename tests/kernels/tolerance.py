"""How far a float32 kernel may be from the float64 reference, and a failure that says where it is too far."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from npmobilenet.kernels import reference

ELEMENTWISE = ("leaky_relu", "elu", "tanh")
UNIT = 2.0**-24  # half the distance from 1 to the next float32: the largest relative error of one rounding


def tolerance(operation: str, arrays: dict[str, Any], options: dict[str, Any], expected: np.ndarray) -> np.ndarray:
    """Return the error allowed to each output.

    A sum of K products in float32 is off by at most K * UNIT * (sum of the products' magnitudes) and, since
    roundings go up as often as down, by about sqrt(K) instead of K (Higham, Accuracy and Stability of
    Numerical Algorithms, 2nd edition, sections 3.1 and 2.8). Allowed are four times that. The activations
    multiply an error by at most 1.5 (hard-swish at x = 3) and add a few roundings of the result. In a
    squeeze-and-excitation three sums follow each other, and their errors add up. So they do in an inverted residual,
    where each is that of its operation, and the later ones carry on what the earlier ones had.
    """
    if operation == "inverted_residual":
        return _block_tolerance(arrays, options, expected)
    if operation in ("max_pool2d", "global_max_pool", "concat", "channel_select", "channel_pad", "flatten"):
        return np.zeros(expected.shape)
    if operation == "softmax":  # exp(x - max) is off by a rounding of x - max, the sum as above
        x = arrays["x"]
        return 4 * UNIT * (np.sqrt(x.shape[-1]) + np.ptp(x, axis=-1, keepdims=True)) * expected
    if operation in ("add", "relu", "relu6", "hard_swish", "swish", "sigmoid", "hard_sigmoid", *ELEMENTWISE):
        terms = 1
        magnitude = sum(np.abs(np.float64(a)) for a in arrays.values())
    elif operation == "resize2d":  # weights are rounded too
        terms, magnitude = 16, np.abs(arrays["x"]).max(initial=0) * np.ones(expected.shape)
        magnitude *= options.get("mode") != "nearest"
    elif operation in ("broadcast_add", "multiply"):
        terms, magnitude = 1, getattr(reference, operation)(np.abs(arrays["x"]), np.abs(arrays["y"]))
    elif operation == "batch_norm":
        terms, magnitude = 1, np.abs(expected - arrays["bias"]) + np.abs(arrays["bias"])
    else:
        positive = {name: [np.abs(w) for w in a] if isinstance(a, list) else np.abs(a) for name, a in arrays.items()}
        linear = {name: value for name, value in options.items() if name not in ("activation", "gate")}
        if operation == "squeeze_excite":
            linear = {"activation": "none", "gate": "none"}
        magnitude = getattr(reference, operation)(**positive, **linear)
        terms = _terms(operation, arrays, options)
    return 1.5 * 4 * np.sqrt(terms + 2) * UNIT * magnitude + 8 * UNIT * np.abs(expected)


def _block_tolerance(arrays: dict[str, Any], options: dict[str, Any], expected: np.ndarray) -> np.ndarray:
    window = {name: options[name] for name in ("stride", "padding") if name in options}
    shortcut = {"residual": arrays["x"]} if options.get("residual") else {}
    y, error = arrays["x"], np.zeros(arrays["x"].shape)
    for operation, prefix, function, extra, others in (
        ("pointwise_conv2d", "expand_", "relu6", {}, {}),
        ("depthwise_conv2d", "", "relu6", {}, window),
        ("pointwise_conv2d", "project_", "none", shortcut, {}),
    ):
        compute, weight = getattr(reference, operation), arrays[f"{prefix}weight"]
        inputs = {"x": y, "weight": weight, **extra}
        if arrays[f"{prefix}bias"] is not None:
            inputs["bias"] = arrays[f"{prefix}bias"]
        geometry = {**others, "activation": options.get(f"{prefix or 'depthwise_'}activation", function)}
        y = compute(**inputs, **geometry)
        carried = 1.5 * compute(error, np.abs(weight), **others)
        error = carried + tolerance(operation, inputs, geometry, y)
    return error


def _terms(operation: str, arrays: dict[str, Any], options: dict[str, Any]) -> int:
    if operation == "global_average_pool":
        return prod(arrays["x"].shape[1:3])
    if operation == "average_pool2d":
        return int(np.prod(options["kernel_size"])) ** (1 if np.ndim(options["kernel_size"]) else 2)
    if operation == "mixed_depthwise_conv2d":
        return max(prod(weight.shape[:2]) for weight in arrays["weights"])
    if operation == "squeeze_excite":
        return prod(arrays["x"].shape[1:3]) + sum(arrays["reduce_weight"].shape)
    shape = arrays["weight"].shape
    return prod(shape[:2]) if operation == "depthwise_conv2d" else prod(shape[:-1])


def assert_close(got: np.ndarray, expected: np.ndarray, allowed: np.ndarray | float, what: object) -> None:
    """Fail with the worst element, its index, both values and the shape; a NaN must meet a NaN."""
    assert got.shape == expected.shape, f"{what}: shape {got.shape} instead of {expected.shape}"
    allowed = np.broadcast_to(allowed, expected.shape)
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        excess = np.where(same, -np.inf, np.abs(got - expected) - allowed)
    excess = np.where(np.isnan(excess), np.inf, excess)
    if excess.size and excess.max() > 0:
        worst = tuple(int(i) for i in np.unravel_index(excess.argmax(), excess.shape))
        raise AssertionError(
            f"{what}: at {worst} of {expected.shape} got {got[worst]!r}, expected {expected[worst]!r}, "
            f"error {abs(got[worst] - expected[worst]):.3g}, allowed {allowed[worst]:.3g}; "
            f"{np.count_nonzero(excess > 0)} of {excess.size} elements differ too much"
        )
