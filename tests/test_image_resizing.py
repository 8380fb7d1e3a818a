"""Resizing: Pillow's resampling bit for bit."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npmobilenet.image import FILTERS, resize
from tests.pictures import compiled, noise, pillow_resize

EXAMPLES, LONGEST = (15, 12) if numba.config.DISABLE_JIT else (250, 90)


@pytest.mark.parametrize("filter", FILTERS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_resize_equals_pillow(filter, data):
    sides = st.integers(1, LONGEST)
    height, width, *size = (data.draw(sides) for _ in range(4))
    box = None
    if data.draw(st.booleans()):

        def edges(length):
            return data.draw(st.lists(st.floats(0, length, width=32), min_size=2, max_size=2, unique=True))

        (left, right), (upper, lower) = sorted(edges(width)), sorted(edges(height))
        box = (left, upper, right, lower)
    image = noise(height, width, data.draw(st.integers(0, 9)))
    np.testing.assert_array_equal(resize(image, size, box, filter), pillow_resize(image, size, box, filter))


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize(
    ("shape", "size", "box"),
    [
        ((1, 1), (7, 5), None),
        ((1, 1), (1, 1), None),
        ((5, 7), (5, 7), None),
        ((5, 7), (5, 9), None),
        ((5, 7), (9, 7), None),
        ((60, 20), (30, 19), None),  # the height loses more than twice as much: along y first
        ((60, 20), (20, 40), None),
        ((1, 700), (3, 2), None),
        ((700, 1), (2, 3), None),
        ((9, 8), (4, 4), (2, 3, 6, 7)),
        ((9, 8), (3, 5), (0.25, 0.5, 7.75, 8.875)),
        ((9, 8), (6, 5), (3.9, 4.1, 4.0, 4.2)),
    ],
)
def test_resize_equals_pillow_in_the_corners(shape, size, box, filter):
    image = noise(*shape)
    result = resize(image, size, box, filter)
    np.testing.assert_array_equal(result, pillow_resize(image, size, box, filter))
    assert result.dtype == np.uint8 and not np.shares_memory(result, image)


@compiled
def test_resize_keeps_white_white_where_rounded_weights_add_up_to_more_than_one():
    image = np.full((1, 20001, 3), 255, np.uint8)
    np.testing.assert_array_equal(resize(image, (1, 1)), [[[255, 255, 255]]])
    np.testing.assert_array_equal(resize(image, (1, 1)), pillow_resize(image, (1, 1)))


def test_resize_takes_any_memory_layout():
    base = noise(10, 12)
    read_only = base.copy()
    read_only.flags.writeable = False
    expected = resize(base, (4, 5))
    for same in (read_only, np.asfortranarray(base), np.repeat(base, 2, axis=1)[:, ::2], base[::-1][::-1]):
        np.testing.assert_array_equal(resize(same, (4, 5)), expected)


@pytest.mark.parametrize("box", [(-1, 0, 4, 4), (0, 0, 4, 9), (2, 0, 2, 4), (3, 0, 2, 4), (0, float("nan"), 4, 4)])
def test_resize_refuses_boxes_outside_the_image(box):
    with pytest.raises(ValueError, match=r"box must be .* within \(0, 0, 4, 8\)"):
        resize(noise(8, 4), (2, 2), box)


@pytest.mark.parametrize("size", [(0, 4), (4,), (4, -1), (4.5, 4)])
def test_resize_refuses_impossible_sizes(size):
    with pytest.raises(ValueError, match=r"size must be .*height, width"):
        resize(noise(8, 4), size)


def test_resize_refuses_unknown_filters():
    with pytest.raises(ValueError, match=r"filter must be one of bilinear, bicubic, nearest, .* got 'cubic'"):
        resize(noise(8, 4), (2, 2), filter="cubic")
