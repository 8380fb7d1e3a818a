"""Activations in vectors: their accuracy against float64, in units of the last place, and their ends."""

import numpy as np
import pytest

from npmobilenet.kernels import reference
from npmobilenet.kernels.blocked.activation import ZERO_PRESERVING, function_name
from npmobilenet.kernels.blocked.code.activation import ACTIVATIONS, define
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.target import host
from tests.kernels.test_simd import call

# Up to which |x|, and how many units of the last place. The exponent is a multiple of x by a rounded factor: the
# error grows with x. Without fused multiply-add the multiple is rounded as well.
ULP = {1: 3, 10: 6, 20: 9, 87: 23} if host().has_fma else {1: 4, 10: 16, 20: 30, 87: 130}
LIBRARY = Library("activation", host(), define, None)


def activate(name: str, x: np.ndarray) -> np.ndarray:
    y = np.resize(x, -(-x.size // host().lanes) * host().lanes).astype(np.float32)
    call(LIBRARY, function_name(name), y, y.size // host().lanes)
    return y[: x.size]


def ulps(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    return np.abs(y - exact) / np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)


@pytest.mark.parametrize("reach", ULP)
@pytest.mark.parametrize("name", ["swish", "sigmoid"])
def test_accuracy_of_the_exponential(name, reach):
    x = np.linspace(-reach, reach, 300_001, dtype=np.float32)
    x = x[x != 0]
    assert ulps(activate(name, x), getattr(reference, name)(x)).max() <= ULP[reach]


@pytest.mark.parametrize(("name", "allowed"), [("hard_swish", 3), ("hard_sigmoid", 2)])
def test_accuracy_of_the_hard_ones(name, allowed):
    x = np.linspace(-2.99, 8, 300_001, dtype=np.float32)
    assert ulps(activate(name, x), getattr(reference, name)(x)).max() <= allowed
    assert not activate(name, np.linspace(-100, -3, 99, dtype=np.float32)).any()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_ends(name):
    x = np.array([np.nan, np.inf, 1e30, 500, 0, -500, -1e30], np.float32)
    with np.errstate(all="ignore"):
        expected = getattr(reference, name)(x).astype(np.float32)
    assert np.array_equal(activate(name, x), expected, equal_nan=True)


@pytest.mark.parametrize("name", ZERO_PRESERVING)
def test_zeros_of_a_frame_stay_zeros(name):
    assert not activate(name, np.zeros(64, np.float32)).any()
