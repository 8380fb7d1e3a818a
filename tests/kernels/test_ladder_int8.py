"""Every rung of the ladders of 8 bits: the reference's bits, on shapes that Python loops can take."""

import numpy as np
import pytest

from npmobilenet.kernels import reference, registry
from npmobilenet.kernels.ladder import LADDERS
from npmobilenet.kernels.ladder.int8 import without_dot_products
from npmobilenet.kernels.vector.target import Target
from tests.kernels.test_cpu_kernels import NEEDS_COMPILER
from tests.kernels.test_targets import TARGETS

OPERATIONS = ("pointwise_conv2d_int8", "depthwise_conv2d_int8")
# Those of the engine are compared elsewhere (`test_int8`, `test_int8_blocked`).
RUNGS = [
    rung for each in OPERATIONS for rung in registry.kernels(each, "ladder") if rung.target.startswith("ladder.int8:")
]


def arrays(c_in: int, c_out: int, shape: tuple[int, ...], floats: bool = False) -> dict[str, np.ndarray]:
    random = np.random.default_rng(c_in + 7 * c_out)
    x = random.integers(0, 256, (2, 4, 5, c_in)).astype(np.uint8)
    return {
        "x": np.float32(x) - 90 if floats else x,
        "weight": random.integers(-127, 128, shape).astype(np.int8),
        "scale": np.float32(random.uniform(1e-3, 3e-3, c_out)),
        "bias": np.float32(random.uniform(0, 200, c_out)),
    }


RESIDUAL = np.random.default_rng(3).standard_normal((2, 4, 5, 18)).astype(np.float32)
POINTWISE = [
    ({"c_in": 9, "c_out": 18, "shape": (9, 18)}, {}),
    ({"c_in": 9, "c_out": 18, "shape": (9, 18)}, {"zero_point": np.arange(9, dtype=np.uint8) * 20}),
    ({"c_in": 9, "c_out": 18, "shape": (9, 18), "floats": True}, {"zero_point": 128, "dtype": "float32"}),
    ({"c_in": 9, "c_out": 18, "shape": (9, 18)}, {"dtype": "float32", "activation": "relu6", "residual": RESIDUAL}),
]
DEPTHWISE = [
    ({"c_in": 18, "c_out": 18, "shape": (3, 3, 18)}, {"padding": 1}),
    ({"c_in": 18, "c_out": 18, "shape": (5, 3, 18)}, {"padding": "same", "stride": 2, "zero_point": 77}),
    ({"c_in": 18, "c_out": 18, "shape": (3, 3, 18)}, {"padding": 2, "dilation": 2, "dtype": "float32"}),
]


@pytest.mark.parametrize(
    ("rung", "made", "options"),
    [
        pytest.param(rung, made, options, id=f"{rung.name}-{number}", marks=NEEDS_COMPILER[rung.variant])
        for rung in RUNGS
        for number, (made, options) in enumerate(POINTWISE if "pointwise" in rung.operation else DEPTHWISE)
        if rung.supports(**options)
    ],
)
def test_same_bits_as_the_reference(rung, made, options):
    given = arrays(**made)
    expected = getattr(reference, rung.operation)(**given, **options)
    out = np.ones_like(expected)
    assert rung.function(**given, **options, out=out, threads=2) is out
    np.testing.assert_array_equal(out, expected)


def test_wide_weights_and_endings():
    """15 bits, and what follows an activation, on the loops of the textbook."""
    given = arrays(6, 6, (3, 3, 6))
    given["weight"] = (given["weight"].astype(np.int16) * 128 + 5).clip(-16383, 16383)
    ends = {"out_steps": np.full(6, 0.5, np.float32), "out_zero_point": np.full(6, 9, np.uint8), "activation": "swish"}
    expected = reference.depthwise_conv2d_int8(**given, padding=1, **ends)
    for rung in registry.kernels("depthwise_conv2d_int8", "ladder")[:3]:
        np.testing.assert_array_equal(rung.function(**given, padding=1, **ends), expected)


def test_a_cpu_without_dot_products():
    """By its features alone; its vectors stay as wide."""
    for target in TARGETS.values():
        less = without_dot_products(target)
        assert less.dot in ("madd", "saddlp", target.dot) and less.lanes == target.lanes
        assert less.dot not in ("vnni", "usdot", "sdot")
        assert "vnni" not in "".join(item for item in less.features.split(",") if item.startswith("+"))
    arm = Target.of("generic", "+neon,+dotprod,+i8mm", "aarch64-unknown-linux-gnu")
    assert (arm.dot, without_dot_products(arm).dot) == ("usdot", "saddlp")


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_bad_arguments(rung):
    made, options = (POINTWISE if "pointwise" in rung.operation else DEPTHWISE)[0]
    with pytest.raises(ValueError, match=r"bias must be a float array of shape .* got float64 \(99,\)"):
        rung.function(**{**arrays(**made), **options, "bias": np.zeros(99)})


def test_groups_are_refused_by_the_lower_rungs():
    given = arrays(8, 18, (4, 18))
    for rung in registry.kernels("pointwise_conv2d_int8", "ladder"):
        assert rung.supports(groups=2) == (rung.variant not in ("python", "njit_loops", "numpy")), rung.name
    with pytest.raises(ValueError, match="groups must be 1 in this kernel, got 2"):
        registry.kernels("pointwise_conv2d_int8", "ladder")[0].function(**given, groups=2)


def test_lessons_and_engines():
    assert {operation for operation in LADDERS if operation.endswith("int8")} == set(OPERATIONS)
    for operation in OPERATIONS:
        names = [rung.name for rung in LADDERS[operation]]
        assert names[:3] == ["python", "njit_loops", "numpy"] and names[-1] == "simd"
