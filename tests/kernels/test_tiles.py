"""Register tiles: every one that some CPU takes, on vectors of every width."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest

from npmobilenet.kernels import reference
from npmobilenet.kernels.blocked import images
from npmobilenet.kernels.blocked.layout import halved_panel, panels
from npmobilenet.kernels.blocked.pointwise import pointwise_conv2d
from npmobilenet.kernels.blocked.stem import conv2d
from npmobilenet.kernels.blocked.tiles import MEASURED, Tile, tiles
from npmobilenet.kernels.vector.target import Target, host
from tests.kernels.cases import pointwise
from tests.kernels.test_targets import TARGETS
from tests.kernels.tolerance import assert_close, tolerance

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="about machine code")

WIDTHS = {"SSE": (4, 16), "NEON": (4, 32), "AVX": (8, 16), "AVX-512": (16, 32)}  # lanes and registers
KNOWN = {tiles(target).wide: None for target in TARGETS.values()} | {own.wide: None for own in MEASURED.values()}
EVERY = [replace(tile, halves=True) for tile in KNOWN]  # these have the kernels without halves, too


@pytest.fixture(params=WIDTHS.values(), ids=WIDTHS)
def target(request, monkeypatch) -> Target:
    """LLVM splits vectors that are too wide: any CPU's tiles can be computed on this one."""
    lanes, registers = request.param
    target = replace(host(), lanes=lanes, registers=registers)
    monkeypatch.setattr(images, "host", lambda: target)
    return target


def channels(target: Target) -> list[int]:
    """That fill half a vector, less, and more, alone, beside one, and beside more than a panel."""
    half = target.lanes // 2
    return [1, half, half + 1, *(blocks * target.lanes + half for blocks in (1, 2, 5)), 3 * target.lanes]


def special(x: np.ndarray) -> np.ndarray:
    """With NaN and infinities in some pixels."""
    x.reshape(-1)[:: x.size // 5 + 1] = np.nan
    x.reshape(-1)[1 :: x.size // 3 + 1] = np.inf
    return x


def test_a_cpu_that_nobody_measured_takes_what_fills_its_registers():
    wide = {name: (tiles(target).wide.pixels, tiles(target).wide.blocks) for name, target in TARGETS.items()}
    assert wide["AVX2"] == wide["SSE2"] == (6, 2)
    assert wide["sapphirerapids"] == (14, 2)
    assert wide["neoverse-n1"] == (5, 4)
    assert all(tiles(target).wide.blocks * tiles(target).wide.pixels < target.registers for target in TARGETS.values())


def test_a_measured_cpu_takes_its_own_only_with_the_vectors_it_was_measured_with():
    znver4 = TARGETS["znver4"]
    assert tiles(znver4) == MEASURED["znver4", 16] != tiles(TARGETS["sapphirerapids"])
    assert tiles(replace(znver4, lanes=8, registers=16)) == tiles(TARGETS["AVX2"])


def test_panels_that_end_with_half_a_vector():
    znver4 = TARGETS["znver4"]
    assert [halved_panel(znver4, count) for count in (8, 24, 40, 1, 16, 32, 25, 9)] == [0, 0, 1, 0, -1, -1, -1, -1]
    assert panels(znver4, 40) == [2, 1]


@pytest.mark.parametrize("tile", EVERY, ids=str)
def test_every_tile_computes_the_same_sums(target, tile):
    for c_out in channels(target):
        for size in ((1, 1), (3, 5), (7, 7)):
            for options in ({}, {"residual": True, "activation": "relu6"}, {"activation": "swish"}):
                case = pointwise(1, *size, 11, c_out, **options)
                arrays = case.arrays()
                expected = reference.pointwise_conv2d(**arrays, **case.options)
                allowed = tolerance(case.operation, arrays, case.options, expected)
                found = pointwise_conv2d(**arrays, **case.options, threads=2, tile=tile)
                assert_close(found, expected, allowed, (case, tile))
                assert np.array_equal(found, pointwise_conv2d(**arrays, **case.options))


@pytest.mark.parametrize("tile", EVERY, ids=str)
def test_what_half_a_vector_lacks_is_zero_whatever_comes_in(target, tile):
    """Later layers read whole vectors: a NaN there would reach all channels of their results."""
    for c_out in channels(target):
        case = pointwise(1, 3, 5, 11, c_out, residual=True)
        arrays = {name: special(array) if name in ("x", "residual") else array for name, array in case.arrays().items()}
        done = pointwise_conv2d.prepare(**arrays, tile=tile)
        done.run()
        (out,) = done.outputs
        memory = done._memory[out.address].reshape(out.blocks, -1, out.lanes)
        filled = c_out % target.lanes
        if 0 < filled <= target.lanes // 2:
            assert not memory[-1, :, target.lanes // 2 :].any()
        np.testing.assert_array_equal(np.isnan(done.result()), np.isnan(pointwise_conv2d(**arrays)))


@pytest.mark.parametrize("tile", [Tile(8, 2), Tile(16, 1), Tile(3, 2)], ids=str)
def test_other_tiles_of_the_first_convolution(target, tile):
    rng = np.random.default_rng(5)
    x, weight = rng.standard_normal((1, 9, 21, 3), np.float32), rng.standard_normal((3, 3, 3, 40), np.float32)
    options = {"stride": 2, "padding": 1, "activation": "relu6"}
    assert np.array_equal(conv2d(x, weight, None, **options, tile=tile), conv2d(x, weight, None, **options))


@pytest.mark.parametrize(("kernel", "stride"), [((3, 3), 1), ((3, 3), 2), ((2, 5), (3, 2))], ids=str)
def test_windows_that_reach_beyond_any_side_of_the_image(target, kernel, stride):
    """Those in the middle of a row read the image where it is: images of a row's ends alone, and wider ones."""
    rng, tile = np.random.default_rng(7), Tile(3, 1)
    weight, bias = rng.standard_normal((*kernel, 3, 21), np.float32), rng.standard_normal(21, np.float32)
    for _ in range(40):
        size = rng.integers(kernel, 30, 2)
        pads = tuple(tuple(rng.integers(0, reach + 2, 2)) for reach in kernel)
        x = rng.standard_normal((1, *size, 3), np.float32)
        options = {"stride": stride, "padding": pads, "activation": "relu"}
        expected = reference.conv2d(x, weight, bias, **options)
        found = [conv2d(x, weight, bias, **options, threads=threads, tile=tile) for threads in (1, 2)]
        np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-5)
        assert np.array_equal(*found)
