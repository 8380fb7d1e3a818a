"""Padding and output sizes."""

import pytest

from npmobilenet.kernels.geometry import (
    convolution_macs,
    equal_partition,
    exponential_partition,
    output_size,
    pair,
    resolve_padding,
)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 3, 2, (0, 1)),  # TensorFlow's odd zero comes after the image
        (225, 3, 2, (1, 1)),
        (7, 3, 1, (1, 1)),
        (14, 5, 2, (1, 2)),
        (5, 1, 2, (0, 0)),
        (2, 9, 2, (3, 4)),
    ],
)
def test_same_padding_is_tensorflows(size, kernel, stride, expected):
    pads = resolve_padding("same", (size, size), (kernel, kernel), (stride, stride), (1, 1))
    assert pads == (expected, expected)
    assert output_size(size, kernel, stride, pads[0]) == -(-size // stride)


@pytest.mark.parametrize(("kernel", "stride", "dilation", "expected"), [(3, 2, 1, 1), (5, 1, 1, 2), (3, 1, 3, 3)])
def test_symmetric_padding_is_pytorchs(kernel, stride, dilation, expected):
    pads = resolve_padding("symmetric", (9, 9), (kernel, kernel), (stride, stride), (dilation, dilation))
    assert pads == ((expected, expected),) * 2


def test_explicit_padding():
    assert resolve_padding(2, (9, 9), (3, 3)) == ((2, 2), (2, 2))
    assert resolve_padding((1, 2), (9, 9), (3, 3)) == ((1, 1), (2, 2))
    assert resolve_padding(((0, 1), (2, 3)), (9, 9), (3, 3)) == ((0, 1), (2, 3))


@pytest.mark.parametrize(
    ("padding", "message"),
    [
        ("valid", "'symmetric', 'same' or numbers, got 'valid'"),
        (-1, "integer >= 0"),
        ((1, 2, 3), "pair of them"),
    ],
)
def test_bad_padding(padding, message):
    with pytest.raises(ValueError, match=message):
        resolve_padding(padding, (9, 9), (3, 3))


def test_pair_rejects_what_is_not_one():
    assert pair(3) == (3, 3)
    for bad in (0, 1.5, (1,), None, "ab"):
        with pytest.raises(ValueError, match="stride must be an integer >= 1"):
            pair(bad, "stride")


def test_window_that_does_not_fit():
    with pytest.raises(ValueError, match=r"a window of 7 \(kernel 3, dilation 3\) does not fit into 4"):
        output_size(4, 3, dilation=3)


@pytest.mark.parametrize(
    ("channels", "groups", "equal", "exponential"),
    [
        (32, 4, [8, 8, 8, 8], [16, 8, 4, 4]),  # the example of arXiv 1907.09595, section 3.1
        (600, 4, [150] * 4, [300, 150, 75, 75]),
        (200, 3, [68, 66, 66], [100, 50, 50]),
        (7, 3, [3, 2, 2], [4, 2, 1]),
        (5, 4, [2, 1, 1, 1], [2, 1, 1, 1]),
        (4, 4, [1] * 4, [1] * 4),
        (9, 1, [9], [9]),
    ],
)
def test_partitions_of_channels(channels, groups, equal, exponential):
    assert equal_partition(channels, groups) == equal
    assert exponential_partition(channels, groups) == exponential


def test_partitions_have_no_empty_group_and_lose_no_channel():
    for channels in range(1, 40):
        for groups in range(1, channels + 1):
            for partition in (equal_partition(channels, groups), exponential_partition(channels, groups)):
                assert len(partition) == groups
                assert sum(partition) == channels
                assert min(partition) >= 1
                assert partition == sorted(partition, reverse=True)


@pytest.mark.parametrize("partition", [equal_partition, exponential_partition])
def test_more_groups_than_channels(partition):
    for groups in (6, 0):
        with pytest.raises(ValueError, match=f"groups must be from 1 to the number of channels, 5, got {groups}"):
            partition(5, groups)


def test_macs():
    assert convolution_macs((112, 112), (3, 3), 3, 32) == 10_838_016  # MobileNetV2's stem
    assert convolution_macs((56, 56), (3, 3), 96, 96, groups=96) == 56 * 56 * 9 * 96
