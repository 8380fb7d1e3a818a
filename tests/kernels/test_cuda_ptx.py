"""What the compiler makes of the CUDA kernels: needs NVVM, of the CUDA toolkit, and no device.

A thread's sums must stay in registers, and memory must be read 16 bytes at a time: if not, a kernel is many times
slower, and no other test would say so.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from npmobilenet.kernels.cuda import (
    batch_norm,
    channels,
    conv_transpose,
    convolution,
    depthwise,
    device,
    elementwise,
    inverted_residual,
    linear,
    mixed,
    pointwise,
    pooling,
    resize2d,
    squeeze_excite,
)

HOPPER = (9, 0)


def _compiler_missing() -> str | None:
    if device.cuda is None or device.SIMULATED:
        return "the CUDA compiler is not there"
    try:
        device.cuda.compile_ptx(lambda: None, (), cc=HOPPER)
    except Exception as error:  # every version of the compiler has its own way to be missing
        return f"no CUDA compiler: {type(error).__name__}"
    return None


MISSING = _compiler_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture(autouse=True)
def no_device(monkeypatch):
    monkeypatch.setattr(device, "multiprocessors", lambda: 132)
    # Numba asks the device for which processor to compile a device function.
    dispatcher = device.cuda.dispatcher
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=HOPPER))


def compiled(launch) -> str:
    text, _ = device.cuda.compile_ptx(launch.kernel.py_func, launch.signature(), cc=HOPPER)
    return text


def in_registers(ptx: str, tmp_path, limit: int | None = None, spilled: int = 0) -> None:
    """Nothing is kept in memory for want of registers, with the limit that the kernel is compiled with."""
    assert ".local" not in ptx, "an array has left the registers"
    if shutil.which("ptxas"):
        source = tmp_path / "kernel.ptx"
        source.write_text(ptx)
        command = ["ptxas", "-v", "-arch=sm_90", str(source), "-o", str(tmp_path / "kernel.cubin")]
        command += [f"-maxrregcount={limit}"] if limit else []
        done = subprocess.run(command, capture_output=True, text=True)
        report = done.stderr
        if "Unsupported .version" in report:  # this ptxas is older than the compiler
            return
        assert done.returncode == 0, report
        stores, loads = (int(re.search(rf"(\d+) bytes spill {kind}", report)[1]) for kind in ("stores", "loads"))
        assert max(stores, loads) <= spilled, report


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (9, 2), (11, 1)])
def test_depthwise(kernel, stride, tmp_path):
    prepared = depthwise.prepare_depthwise_conv2d(
        (8, 56, 56, 96), (kernel, kernel, 96), stride=stride, padding=kernel // 2, activation="relu6"
    )
    ptx = compiled(prepared)
    in_registers(ptx, tmp_path, 128)
    width = 4 if kernel < 7 else 2
    loads = re.findall(r"ld\.global\.(?:v\d\.)?f32", ptx)
    assert set(loads) == {f"ld.global.v{width}.f32"}


def test_mixed_depthwise(tmp_path):
    weights = [(kernel, kernel, 24) for kernel in (3, 5, 7)]
    ptx = compiled(mixed.prepare_mixed_depthwise_conv2d((8, 28, 28, 72), weights, activation="swish"))
    in_registers(ptx, tmp_path)
    assert ptx.count(".entry") == 1


@pytest.mark.parametrize("tile", pointwise.TILES, ids=str)
def test_pointwise(monkeypatch, tile, tmp_path):
    monkeypatch.setattr(pointwise, "TILES", (tile,))
    ptx = compiled(pointwise.prepare_pointwise_conv2d((8, 56, 56, 96), (96, 96), activation="relu6"))
    # 64 sums and what is multiplied and on its way do not quite fit: the largest tile keeps some 20 values elsewhere.
    in_registers(ptx, tmp_path, 128, 120 if tile.rows * tile.columns == 64 else 0)
    # The multiply-adds of a step, all of them unrolled; activations have none here.
    assert ptx.count("fma.rn.f32") == tile.depth * tile.rows * tile.columns
    assert "ld.global.v4.f32" in ptx
    assert "ld.f32" not in ptx and "ld.v4.f32" not in ptx, "shared memory is read as if it could be any"


def test_float16_travels_eight_bytes_at_a_time(tmp_path):
    prepared = depthwise.prepare_depthwise_conv2d((8, 56, 56, 96), (3, 3, 96), padding=1, dtype=np.float16)
    ptx = compiled(prepared)
    in_registers(ptx, tmp_path)
    assert set(re.findall(r"ld\.global\.\S+", ptx)) == {"ld.global.v2.u32"}
    assert set(re.findall(r"st\.global\.\S+", ptx)) == {"st.global.v4.b16"}


def test_the_others(tmp_path):
    block = inverted_residual.prepare_inverted_residual(
        (8, 56, 56, 24), 144, 3, 24, padding=1, expand_activation="relu6", residual=True
    )
    for prepared in (
        block,
        convolution.prepare_conv2d((8, 224, 224, 3), (3, 3, 3, 32), stride=2, padding=1, activation="relu6"),
        linear.prepare_softmax((8, 1000)),
        pooling.prepare_global_average_pool((8, 7, 7, 1280)),
        pooling.prepare_max_pool2d((8, 56, 56, 64), 3),
        squeeze_excite.prepare_gate(8, 240, 20, activation="swish"),
        pooling.prepare_global_max_pool((8, 7, 7, 1280)),
        elementwise.prepare_add((8, 14, 14, 96)),
        elementwise.prepare_map((8, 14, 14, 96), "swish"),
        elementwise.prepare_tanh((8, 14, 14, 96)),
        elementwise.prepare_elu((8, 14, 14, 96)),
        elementwise.prepare_multiply((8, 14, 14, 240), (8, 240)),
        elementwise.prepare_multiply((8, 14, 14, 240), (8, 14, 14, 1)),
        elementwise.prepare_prelu((8, 14, 14, 96), (14, 14, 96)),
        batch_norm.prepare_batch_norm((8, 14, 14, 96)),
        *channels.prepare_concat([(8, 14, 14, 96), (8, 14, 14, 32)]),
        channels.prepare_channel_pad((8, 14, 14, 32), after=32),
        channels.prepare_flatten((8, 7, 7, 96)),
        conv_transpose.prepare_conv_transpose2d((8, 28, 28, 64), (2, 2, 64, 32), stride=2),
        resize2d.prepare_resize2d((8, 28, 28, 64), scale=2),
    ):
        in_registers(compiled(prepared), tmp_path)
