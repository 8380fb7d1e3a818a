"""The NumPy definition of every operation against PyTorch's, stored and live, and a few values by hand."""

from pathlib import Path

import numpy as np
import pytest

from npmobilenet.kernels import reference, registry
from tests.kernels.cases import TORCH_CASES, Case, conv, torch_result
from tests.kernels.tolerance import assert_close

STORED = Path(__file__).parents[1] / "data" / "torch_operations.npz"


@pytest.fixture(scope="module")
def stored():
    with np.load(STORED) as file:
        return dict(file)


def stored_arrays(stored: dict, case: Case) -> dict:
    def load(name, shape):
        if shape is None:
            return None
        if isinstance(shape, list):
            return [stored[f"{case}/{name}{i}"] for i in range(len(shape))]
        return stored[f"{case}/{name}"]

    return {name: load(name, shape) for name, shape in case.shapes.items()}


def run(case: Case, arrays: dict) -> np.ndarray:
    return getattr(reference, case.operation)(**arrays, **case.options)


@pytest.mark.parametrize("case", TORCH_CASES, ids=str)
def test_stored_pytorch(case, stored):
    result = run(case, stored_arrays(stored, case))
    assert result.dtype == np.float64
    assert_close(result, stored[f"{case}/result"], 1e-12, case)


@pytest.mark.torch
@pytest.mark.parametrize("case", TORCH_CASES, ids=str)
def test_live_pytorch(case):
    pytest.importorskip("torch")
    arrays = case.arrays()
    assert_close(run(case, arrays), torch_result(case, arrays), 1e-12, case)


def test_every_operation_is_compared_with_pytorch():
    assert {case.operation for case in TORCH_CASES} == set(registry.OPERATIONS)


def test_by_hand():
    image = np.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    corner = np.zeros((2, 2, 1, 1))
    corner[0, 1] = 1  # takes the value to the right: not flipped
    assert reference.conv2d(image, corner).ravel().tolist() == [2, 3, 5, 6]
    assert reference.average_pool2d(image, 2, padding=1, stride=3).ravel().tolist() == [
        0.25,
        0.75,
        1.75,
        2.25,
    ]
    assert reference.max_pool2d(-image, 2, padding=1, stride=3).ravel().tolist() == [-1, -3, -7, -9]
    assert reference.hard_swish(np.array([-4.0, 0, 3, 5])).tolist() == [0, 0, 3, 5]


def test_far_values_do_not_warn():
    x = np.array([-1000.0, 1000.0, np.inf, -np.inf])
    assert reference.sigmoid(x).tolist() == [0, 1, 1, 0]
    assert reference.softmax(np.array([[1000.0, 1000.0]])).tolist() == [[0.5, 0.5]]


def test_a_convolution_with_as_many_groups_as_channels_is_a_depthwise_convolution():
    case = conv(1, 6, 5, 4, 4, groups=4, padding=1)
    arrays = case.arrays()
    expected = reference.depthwise_conv2d(arrays["x"], arrays["weight"][:, :, 0], arrays["bias"], padding=1)
    assert_close(run(case, arrays), expected, 1e-13, case)
