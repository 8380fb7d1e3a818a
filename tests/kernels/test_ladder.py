"""Every rung of every ladder against the reference, on shapes that Python loops can take."""

import numpy as np
import pytest

from npmobilenet.kernels import reference, registry
from npmobilenet.kernels.blocked import inverted_residual as blocks
from npmobilenet.kernels.ladder import LADDERS
from tests.kernels.cases import BLOCK_TAILS, MIXED_TAILS, TORCH_CASES, block, depthwise, pointwise
from tests.kernels.test_cpu_kernels import NEEDS_COMPILER, explicit_vectors, small
from tests.kernels.tolerance import assert_close, tolerance

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")
RUNGS = registry.kernels(backend="ladder")
TAILS = [
    pointwise(2, 3, 5, 17, 15, residual=True, activation="relu"),
    *(depthwise(2, 5, w, 9, padding=((0, 1), (left, 1))) for w, left in ((6, 0), (7, 1), (11, 2), (16, 1))),
    depthwise(1, 7, 16, 9, padding=1, stride=(2, 1), activation="swish"),
]
BLOCKS = [
    block(2, 23, 19, 5, 70, 5, padding=1, residual=True),
    block(1, 22, 17, 7, 33, 20, k=(5, 5), padding="same", stride=2, depthwise_activation="swish"),
    block(1, 9, 31, 17, 90, 3, k=(3, 7), padding=((0, 2), (5, 1))),
    block(1, 13, 8, 3, 40, 4, k=(7, 2), padding=((4, 3), (0, 1)), stride=2),
]
CASES = [
    case for case in [*TORCH_CASES, *MIXED_TAILS, *BLOCK_TAILS, *TAILS] if case.operation in LADDERS and small(case)
]


@pytest.mark.parametrize(
    ("rung", "case"),
    [
        pytest.param(rung, case, id=f"{rung.variant}-{case}", marks=NEEDS_COMPILER[rung.variant])
        for case in CASES
        for rung in RUNGS
        if rung.operation == case.operation and rung.supports(**case.options)
    ],
)
def test_agrees_with_the_reference(rung, case):
    arrays = case.arrays()
    expected = getattr(reference, case.operation)(**arrays, **case.options)
    out = np.full(expected.shape, np.nan, np.float32)
    assert rung.function(**arrays, **case.options, out=out, threads=2) is out
    assert_close(out, expected, tolerance(case.operation, arrays, case.options, expected), f"{rung.name}, {case}")


@pytest.mark.parametrize(
    ("rung", "case"),
    [
        pytest.param(rung, case, id=f"{rung.variant}-{case}", marks=NEEDS_COMPILER[rung.variant])
        for case in CASES
        for rung in RUNGS
        if rung.operation == case.operation and rung.variant.startswith("simd_") and rung.supports(**case.options)
    ],
)
def test_other_tiles_add_up_in_the_same_order(rung, case):
    """So that nothing but speed tells explicit vectors in lower tiles from the engine's."""
    arrays = case.arrays()
    engine = registry.best(case.operation, "ladder", **case.options)
    assert np.array_equal(
        rung.function(**arrays, **case.options), engine.function(**arrays, **case.options), equal_nan=True
    )


@explicit_vectors
@pytest.mark.parametrize("case", BLOCKS, ids=str)
def test_a_block_has_the_same_bits_however_it_is_cut(monkeypatch, case):
    arrays = case.arrays()
    expected = blocks.one_after_another(**arrays, **case.options)
    for scratch_bytes in (1, 20_000, 1 << 40):
        monkeypatch.setattr(blocks, "SCRATCH_BYTES", scratch_bytes)
        for threads in (1, 2, 3):
            for kernel in (blocks.split, blocks.ring):
                assert np.array_equal(kernel(**arrays, **case.options, threads=threads), expected)


def test_what_the_vector_kernels_of_a_block_refuse():
    arrays = block(1, 5, 6, 3, 10, 3, padding=1).arrays()
    for kernel in (blocks.one_after_another, blocks.split, blocks.ring):
        with pytest.raises(ValueError, match="project_activation must be one of none, relu, relu6 in this kernel"):
            kernel(**arrays, project_activation="swish")
    for kernel in (blocks.split, blocks.ring):
        for stride in ((1, 2), 4):
            with pytest.raises(ValueError, match="stride must be square and at most 3, as the window, in this kernel"):
                kernel(**arrays, padding=1, stride=stride)


def test_rungs_are_rows_of_the_registry_in_order():
    for operation, rungs in LADDERS.items():
        rows = registry.kernels(operation, "ladder")
        assert [(row.variant, row.target) for row in rows] == [(rung.name, rung.target) for rung in rungs]
        assert registry.best(operation, "ladder", groups=1, activation="relu") == rows[-1]


# The ladder of dense convolutions is about the first layer, whose image stands in planes; this reads channel blocks.
OF_OTHER_LAYERS = {"blocked.convolution:conv2d"}


def test_the_upper_rungs_are_the_engines_kernels():
    for operation, rungs in LADDERS.items():
        engine = {kernel.target for kernel in registry.kernels(operation, registry.ON_CPU)}
        assert engine - OF_OTHER_LAYERS <= {rung.target for rung in rungs}
        assert rungs[-1].target in engine


def test_lessons_are_sentences():
    """That also say what threads share, if a rung computes on several."""
    for rungs in LADDERS.values():
        for rung in rungs:
            assert len(rung.lesson) > 50, rung.name
            assert rung.lesson.endswith("."), rung.name
            assert ("Threads" in rung.lesson) == rung.threads, rung.name


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_bad_arguments(rung):
    case = next(case for case in CASES if case.operation == rung.operation)
    with pytest.raises(ValueError, match=r"bias must be a float array of shape .* got float64 \(99,\)"):
        rung.function(**{**case.arrays(), **case.options, "bias": np.zeros(99)})
