"""Kernels that can be prepared: run as often as one likes, they compute what a single call does."""

import numpy as np
import pytest

from npmobilenet.kernels import registry
from npmobilenet.kernels.prepared import prepare_of
from tests.kernels.cases import Case, block, conv, depthwise, linear, mixed, pointwise
from tests.kernels.test_cpu_kernels import explicit_vectors

PREPARED = [kernel for kernel in registry.KERNELS if kernel.backend != "cuda" and prepare_of(kernel.function)]
CASES = [
    conv(2, 9, 8, 3, 21, stride=2, padding=1, activation="relu6"),
    depthwise(2, 9, 8, 21, padding=1, activation="swish"),
    mixed(2, 9, 8, (11, 10), (3, 5)),
    pointwise(2, 5, 3, 21, 19, residual=True, activation="relu"),
    pointwise(2, 5, 3, 21, 19, residual=True, activation="swish"),
    block(2, 9, 8, 3, 21, 3, padding=1, residual=True),
    linear(2, 21, 19),
    Case("global_average_pool", {"x": (2, 5, 3, 21)}),
]
OPERATIONS = {case.operation for case in CASES}


def test_the_vector_kernels_can_be_prepared():
    vectors = {kernel.name for kernel in registry.KERNELS if kernel.variant.startswith("simd")}
    assert vectors <= {kernel.name for kernel in PREPARED}


@explicit_vectors
@pytest.mark.parametrize("threads", [1, 2, 100])
@pytest.mark.parametrize(
    ("kernel", "case"),
    [
        pytest.param(kernel, case, id=f"{kernel.backend}/{kernel.variant}-{case}")
        for case in CASES
        for kernel in PREPARED
        if kernel.operation == case.operation
    ],
)
def test_every_run_computes_the_same(kernel, case, threads):
    arrays = case.arrays()
    expected = kernel.function(**arrays, **case.options)
    prepared = prepare_of(kernel.function)(**arrays, **case.options, threads=threads)
    for _ in range(3):
        assert prepared.run() is None
        result = prepared.result()
        assert np.array_equal(result, expected)
        result.fill(np.nan)  # a copy: nothing that the next run or result depends on


@explicit_vectors
@pytest.mark.parametrize(
    "kernel", [kernel for kernel in PREPARED if kernel.operation in OPERATIONS], ids=lambda kernel: kernel.name
)
def test_an_empty_batch(kernel):
    case = next(case for case in CASES if case.operation == kernel.operation)
    arrays = {name: a[:0] if name in ("x", "residual") else a for name, a in case.arrays().items()}
    prepared = prepare_of(kernel.function)(**arrays, **case.options)
    prepared.run()
    assert prepared.result().shape == (0, *kernel.function(**case.arrays(), **case.options).shape[1:])


@pytest.mark.parametrize(
    "kernel", [kernel for kernel in PREPARED if kernel.operation in OPERATIONS], ids=lambda kernel: kernel.name
)
def test_bad_arguments_are_told_when_it_is_prepared(kernel):
    case = next(case for case in CASES if case.operation == kernel.operation)
    with pytest.raises(ValueError, match="x must be a float array"):
        prepare_of(kernel.function)(**{**case.arrays(), **case.options, "x": 1.0})
