"""The table of kernels: complete, consistent with the reference, and cheap to read."""

import inspect
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from npmobilenet.kernels import checks, reference, registry
from npmobilenet.kernels.geometry import convolution_macs


def test_every_operation_has_one_reference():
    assert [k.operation for k in registry.kernels(backend="reference")] == list(registry.OPERATIONS)
    assert {kernel.operation for kernel in registry.kernels()} == set(registry.OPERATIONS)
    assert {kernel.backend for kernel in registry.kernels()} == set(registry.BACKENDS)


def test_names_are_unique():
    names = [kernel.name for kernel in registry.kernels()]
    assert len(names) == len(set(names))
    assert "pointwise_conv2d/plain/njit_tiled" in names


@pytest.mark.parametrize("kernel", registry.kernels(), ids=lambda kernel: kernel.name)
def test_twins_have_one_signature(kernel):
    twin = inspect.signature(getattr(reference, kernel.operation))
    own = inspect.signature(kernel.function).parameters
    left_out = [p for p in twin.parameters.values() if p.name not in own]
    assert str(inspect.signature(kernel.function)) == str(
        twin.replace(parameters=[p for p in twin.parameters.values() if p.name in own])
    )
    for parameter in left_out:  # only what the row refuses may be missing
        assert not kernel.supports(**{parameter.name: parameter.default + 1})
    check = inspect.signature(getattr(checks, kernel.operation)).parameters.values()
    expected = [p for p in twin.parameters.values() if p.name not in ("out", "threads")]
    assert [(p.name, p.kind, p.default) for p in check] == [(p.name, p.kind, p.default) for p in expected]


@pytest.mark.parametrize("kernel", registry.kernels(), ids=lambda kernel: kernel.name)
def test_summaries_are_one_sentence(kernel):
    assert len(kernel.summary) > 15
    assert kernel.summary.endswith(".")


def test_selecting_rows():
    variants = [kernel.variant for kernel in registry.kernels("pointwise_conv2d", registry.ON_CPU)]
    assert variants == ["njit", "njit_tiled", "simd"]
    assert registry.kernels("no such operation") == []


def test_best_is_the_highest_rank_that_supports_the_case(monkeypatch):
    assert registry.best("pointwise_conv2d", "plain").variant == "njit_tiled"
    assert registry.best("pointwise_conv2d", "reference").variant == "numpy"
    plain = registry.best("pointwise_conv2d", "plain")
    special = replace(plain, variant="special", rank=9, supports=lambda c_out=0, **others: c_out % 8 == 0)
    monkeypatch.setattr(registry, "KERNELS", [*registry.KERNELS, special])
    assert registry.best("pointwise_conv2d", "plain", c_in=3, c_out=16).variant == "special"
    assert registry.best("pointwise_conv2d", "plain", c_in=3, c_out=15) == plain


def test_rows_say_which_cases_they_take():
    stem, dense = registry.kernels("conv2d", "blocked")
    assert (stem.variant, dense.variant) == ("simd", "simd_blocked")
    for kernel in (stem, dense):
        assert kernel.supports(stride=2, padding=1, activation="relu6", groups=1, dilation=(1, 1))
    for refused in ({"groups": 2}, {"dilation": 2}, {"dilation": (1, 2)}):
        assert not stem.supports(**refused), refused
        assert registry.best("conv2d", "blocked", **refused) == dense
    assert registry.best("conv2d", "blocked") == dense
    assert not stem.supports(activation="sigmoid")
    with pytest.raises(LookupError, match="the backend 'blocked' has no kernel for 'conv2d' for "):
        registry.best("conv2d", "blocked", activation="sigmoid")


def test_best_says_what_is_missing():
    with pytest.raises(LookupError, match=r"backend 'ladder' has no kernel for 'batch_norm'$"):
        registry.best("batch_norm", "ladder")
    with pytest.raises(LookupError, match=r"backend 'gpu' has no kernel for 'conv2d' for \{'groups': 2\}"):
        registry.best("conv2d", "gpu", groups=2)


def test_work_of_mobilenets_first_convolution():
    stem = {"x": (2, 224, 224, 3), "weight": (3, 3, 3, 32), "stride": 2, "padding": 1}
    assert registry.output_shape("conv2d", **stem) == (2, 112, 112, 32)
    assert registry.macs("conv2d", **stem) == 2 * convolution_macs((112, 112), (3, 3), 3, 32)
    moved = 2 * 224 * 224 * 3 + 3 * 3 * 3 * 32 + 2 * 112 * 112 * 32
    assert registry.bytes_moved("conv2d", **stem) == 4 * moved
    assert registry.bytes_moved("conv2d", **stem, bias=(32,)) == 4 * (moved + 32)


@pytest.mark.parametrize(
    ("operation", "arguments", "geometry", "macs"),
    [
        ("conv2d", [(1, 5, 5, 4), (1, 1, 2, 6)], {"groups": 2}, 5 * 5 * 2 * 6),
        ("depthwise_conv2d", [(1, 5, 5, 4), (3, 3, 4)], {}, 3 * 3 * 4 * 9),
        ("mixed_depthwise_conv2d", [(1, 5, 5, 4), [(3, 3, 3), (5, 5, 1)]], {}, 25 * (27 + 25)),
        ("pointwise_conv2d", [(3, 5, 5, 4), (4, 6), None], {"residual": (3, 5, 5, 6)}, 3 * 25 * 24),
        ("pointwise_conv2d", [(3, 5, 5, 4), (2, 6)], {"groups": 2}, 3 * 25 * 12),
        ("squeeze_excite", [(3, 5, 5, 4), (4, 2), (2,), (2, 4), None], {"gate": "hard_sigmoid"}, 3 * 16),
        (
            "inverted_residual",
            [(3, 5, 5, 4), (4, 8), (8,), (3, 3, 8), None, (8, 4), (4,)],
            {"padding": 1, "stride": 2},
            3 * (25 * 4 * 8 + 9 * (9 * 8 + 8 * 4)),
        ),
        (
            "inverted_residual",
            [(1, 5, 5, 4), (4, 8), None, (3, 3, 8), None, (8, 4), None],
            {"padding": 1, "residual": True},
            25 * 8 * (4 + 9 + 4),
        ),
        ("linear", [(3, 4), (4, 6)], {"activation": "relu"}, 72),
        ("global_average_pool", [(3, 4, 4, 6)], {}, 0),
    ],
)
def test_macs(operation, arguments, geometry, macs):
    assert registry.macs(operation, *arguments, **geometry) == macs
    count = sum(np.prod(s) for a in arguments if a for s in (a if isinstance(a, list) else [a]))
    count += np.prod(geometry.get("residual", 0)) * (operation != "inverted_residual") + np.prod(
        registry.output_shape(operation, *arguments, **geometry)
    )
    assert registry.bytes_moved(operation, *arguments, **geometry) == 4 * count


def test_shapes_may_be_arrays():
    x, weight = np.zeros((1, 5, 5, 4)), np.zeros((4, 6))
    assert registry.macs("pointwise_conv2d", x, weight) == registry.macs("pointwise_conv2d", x.shape, (4, 6)) == 600


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"weight must be a float array of shape \(C_in/G=4, C_out\)"):
        registry.macs("pointwise_conv2d", (1, 5, 5, 4), (5, 6))


def test_the_reference_needs_no_numba():
    program = (
        "import sys; sys.modules['numba'] = None\n"  # importing it now raises ImportError
        "import numpy as np\n"
        "from npmobilenet.kernels import registry\n"
        "print(registry.best('relu', 'reference').function(np.array([-1.0, 2.0])))\n"
        "try: registry.best('relu', 'plain').function\n"
        "except ImportError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[0] == "[0. 2.]"
    assert "numba" in run.stdout.splitlines()[1]
