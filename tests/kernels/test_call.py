"""Tensors in memory, and calls on them: strides, frames, arguments, the table that runs them."""

from __future__ import annotations

import gc
import time
import weakref

import numpy as np
import pytest

from npmobilenet.kernels.blocked import linear, pooling
from npmobilenet.kernels.blocked.layout import Fields
from npmobilenet.kernels.call import Table
from npmobilenet.kernels.memory import aligned
from npmobilenet.kernels.tensor import NO_FRAME, Tensor
from npmobilenet.kernels.vector.target import host
from npmobilenet.kernels.walk.columns import GUESTS
from tests.conftest import compiled_only
from tests.kernels.test_jit import python

FRAME = ((1, 2), (3, 0))
TENSORS = [
    Tensor(channels, height, width, frame, lanes=lanes, room=room)
    for channels in (1, 7, 16, 90)
    for height, width in ((1, 1), (5, 3))
    for frame in (NO_FRAME, FRAME)
    for lanes, room in ((1, 1), (4, 1), (16, 4))
]


@pytest.mark.parametrize("tensor", TENSORS, ids=str)
def test_an_image_is_read_as_it_was_written(tensor):
    image = np.random.default_rng(0).standard_normal((tensor.height, tensor.width, tensor.channels), np.float32)
    memory = aligned(tensor.values)
    tensor.write(memory, image)
    assert np.array_equal(tensor.read(memory), image)
    assert np.count_nonzero(memory) == image.size  # frame, room and what fills up the last block are zeros


@pytest.mark.parametrize("tensor", TENSORS, ids=str)
def test_strides_lead_to_every_value(tensor):
    memory = np.arange(tensor.values, dtype=np.float32)
    tensor = tensor.at(1 << 20)
    image, offsets = tensor.read(memory), tensor.offsets()
    for c in {0, tensor.channels - 1}:
        block, lane = divmod(c, tensor.lanes)
        for y in range(tensor.height):
            for x in range(tensor.width):
                pixel = block * tensor.plane_bytes + y * tensor.row_bytes + x * tensor.pixel_bytes
                at = tensor.inner.address - tensor.address + pixel
                assert at == block * tensor.plane_bytes + offsets[y * tensor.width + x]
                assert image[y, x, c] == at // 4 + lane
    assert tensor.bytes == memory.nbytes
    assert tensor.blocks * tensor.plane_bytes <= tensor.bytes < (tensor.blocks + tensor.room) * tensor.plane_bytes
    assert (tensor.scattered() is None) == (tensor.frame == NO_FRAME)


def test_the_item_size_is_the_dtypes():
    tensor = Tensor(5, 3, 2, FRAME, np.dtype(np.int8), lanes=4)
    assert (tensor.pixel_bytes, tensor.row_bytes, tensor.plane_bytes, tensor.bytes) == (4, 20, 120, 240)
    assert tensor.values == tensor.bytes


def test_arguments_of_a_tensor_are_what_the_kernel_asks_for():
    fields, x = Fields("x x_plane y count y_row"), Tensor(3, 4, 5, FRAME, lanes=8, address=64)
    array = np.zeros(3)
    row = fields.pack(x=x, y=x.inner, count=2)
    assert row == [64, x.plane_bytes, x.inner.address, 2, x.row_bytes]
    assert fields.pack(x=None, y=array, y_row=1, count=np.int64(7)) == [0, 0, array.ctypes.data, 7, 1]
    with pytest.raises(TypeError, match=r"\['count', 'z'\] are missing or unknown"):
        fields.pack(x=x, y=x, z=1)
    with pytest.raises(TypeError, match=r"\['y_row'\] are missing or unknown"):
        fields.pack(x=x, y=1, count=1)


def mean_of(value: float, threads: int = 1, calls: int = 1) -> tuple[Table, Tensor, np.ndarray]:
    """A table of so many calls that average an image of one value, what they write, and its memory."""
    target = host()
    x, out = Tensor(40, 4, 8, lanes=target.lanes), linear.vector(target, 40)
    source, result = aligned(x.values), aligned(out.values)
    x.view(source)[...] = value
    call = pooling.call(target, x.at(source.ctypes.data), out.at(result.ctypes.data))
    return Table([call] * calls, threads, keep=(source, result)), out, result


@compiled_only
@pytest.mark.parametrize("threads", [1, 2, 50])
def test_a_table_can_be_run_again_and_again(threads):
    table, out, result = mean_of(3.0, threads, 3)
    assert table.threads <= min(threads, max(call.items for call in table.calls))
    for _ in range(1200):  # more than there are counters at a time
        result.fill(np.nan)
        table.run()
        assert np.array_equal(out.read(result).ravel(), np.full(40, 3.0, np.float32))


@compiled_only
def test_a_job_in_which_a_helper_stays_is_not_begun_anew():
    """Nor one in which it stays for ever, as in a process that forked meanwhile; others are, again and again."""
    table, out, result = mean_of(4.0, 2, 3)
    table.run()
    first = table._job
    while first.guests:
        time.sleep(0.001)
    first.block[GUESTS] = 1
    for _ in range(50):
        result.fill(np.nan)
        table.run()
        assert np.array_equal(out.read(result).ravel(), np.full(40, 4.0, np.float32))
        assert table._job is not first
    assert first.guests == 1 and len(table._jobs) < 5
    first.block[GUESTS] = 0


@compiled_only
@pytest.mark.parametrize("threads", [1, 2])
def test_the_time_of_groups_of_calls(threads):
    table, out, result = mean_of(2.0, threads, 6)
    assert all(0 < seconds < 10 for seconds in table.time([1, 2, 3]))
    assert np.array_equal(out.read(result).ravel(), np.full(40, 2.0, np.float32))


@compiled_only
def test_an_empty_table():
    table = Table([], 3)
    table.run()
    assert table.threads == 1 and table.time([]) == []


@compiled_only
def test_a_call_keeps_what_it_leads_to():
    """Here an array of one number, which nobody else knows; and lets it go with the last table."""
    table, out, result = mean_of(5.0)
    kept = [value for value in table.calls[0].keep[0].values() if isinstance(value, np.ndarray)]
    assert [array.size for array in kept] == [1]
    gone = weakref.ref(kept.pop())
    gc.collect()
    table.run()
    assert out.read(result).max() == 5.0 and gone() is not None
    del table
    gc.collect()
    assert gone() is None


def test_the_hosts_side_needs_no_llvm():
    """So that machine code may come from elsewhere."""
    modules = (
        "activation depthwise images inverted_residual layout library linear mixed padding planes pointwise pooling"
    )
    program = (
        "import sys\n"
        "sys.modules['llvmlite'] = None\n"
        f"for name in '{modules} squeeze_excite stem'.split():\n"
        "    __import__(f'npmobilenet.kernels.blocked.{name}')\n"
        "import npmobilenet.blocked.program\n"
        "print('imported')"
    )
    assert python(program) == "imported"
