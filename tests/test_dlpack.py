"""Arrays of other libraries in, device arrays out, by the array API's protocol."""

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.dlpack import host_array, lend
from npmobilenet.model import Model

ROOT = Path(__file__).parent.parent


class Foreign:
    """An array of another library: it knows DLPack and nothing else."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)


class Refusing(Foreign):
    def __dlpack__(self, **options):
        raise RuntimeError("it needs\na gradient " + "x" * 9999)


def test_arrays_of_the_host_are_not_copied():
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert host_array(array) is array
    assert np.shares_memory(host_array(Foreign(array)), array)
    np.testing.assert_array_equal(host_array(Foreign(array.transpose(2, 0, 1))), array.transpose(2, 0, 1))
    np.testing.assert_array_equal(host_array([[1, 2]]), [[1, 2]])


def test_what_is_not_given_away_is_one_clear_error():
    with pytest.raises(ValueError, match=r"Refusing, cannot be read as a NumPy array: .*it needs a gradient") as caught:
        host_array(Refusing(np.zeros(3)))
    assert len(str(caught.value)) < 350 and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"lies on a device \(of DLPack's kind 2\): copy it to the host"):
        host_array(Foreign(np.zeros(3), (2, 0)))


def test_a_model_takes_them():
    graph = get_architecture("mobilenet_v2").graph(width=0.1, num_classes=3)
    model = Model(graph, random_weights(graph), architecture="mobilenet_v2", backend="reference")
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(model(Foreign(x)), model(x))
    with pytest.raises(ValueError, match="got int64"):
        model(Foreign(np.zeros((1, 3, 32, 32), np.int64)))


class Owner:
    pass


class Lender:
    def __init__(self, capsule, device):
        self.capsule, self.device = capsule, device

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **options):
        capsule, self.capsule = self.capsule, None
        return capsule


@pytest.mark.parametrize("taken", [True, False])
def test_memory_that_is_lent_lives_until_it_is_given_back(taken):
    memory, owner = np.arange(6, dtype=np.float32).reshape(2, 3), Owner()
    watched = weakref.ref(owner)
    loan = lend(owner, memory.T.__array_interface__, (1, 0))
    del owner
    if taken:
        loan = np.from_dlpack(Lender(loan, (1, 0)))
        np.testing.assert_array_equal(loan, memory.T)
        assert np.shares_memory(loan, memory)
    gc.collect()
    assert watched() is not None
    del loan
    gc.collect()
    assert watched() is None


def test_a_loan_dropped_by_an_error_disturbs_nothing():
    memory = np.zeros(3, np.float32)
    for _ in range(100):
        with pytest.raises(ValueError, match="is not in list"):
            [lend(memory, memory.__array_interface__, (2, 0))].index(3)


def test_the_device_is_written_where_consumers_read_it():
    """A consumer of CUDA memory reads kind and number behind the address: here it is NumPy, which refuses."""
    memory = np.zeros(3, np.float32)
    with pytest.raises((BufferError, RuntimeError), match=r"(?i)device"):
        np.from_dlpack(Lender(lend(memory, memory.__array_interface__, (2, 5)), (2, 5)))


IN_THE_SIMULATOR = """
import gc, weakref
import numpy as np
from npmobilenet.cuda.arrays import DeviceArray

values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
y = DeviceArray.empty(values.shape, np.float32)
y.flat[:] = values.ravel()
for view, expected in ((y, values), (y.transpose(0, 2, 1), values.transpose(0, 2, 1)), (y[1:], values[1:])):
    lent = np.from_dlpack(view)
    assert (lent == expected).all() and lent.shape == expected.shape
y.flat[:1] = np.float32(7)
assert np.from_dlpack(y)[0, 0, 0] == 7  # the same memory
lent, watched = np.from_dlpack(y), weakref.ref(y)
del y, view
gc.collect()
assert watched() is not None and lent[1, 2, 3] == 23
del lent
gc.collect()
assert watched() is None
half = DeviceArray.empty((2,), np.float16)
assert np.from_dlpack(half).dtype == np.float16 and half.__dlpack__(dl_device=(1, 0), stream=-1)
for options in ({"dl_device": (2, 0)}, {"copy": True}):
    try:
        half.__dlpack__(**options)
    except BufferError:
        continue
    raise AssertionError(options)
print("right")
"""


def test_device_arrays_in_the_simulator():
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, "-X", "dev", "-c", IN_THE_SIMULATOR]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "right", done.stdout + done.stderr
