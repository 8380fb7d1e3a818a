"""The CUDA device: the one module that imports Numba's ``cuda``."""

from __future__ import annotations


def status() -> str:
    """Return one line on whether CUDA kernels could run here, and if not, why not."""
    try:
        from numba import cuda
    except ImportError as error:
        return f'not available: {error}; pip install "npmobilenet[cuda]"'
    try:
        if not cuda.is_available():
            return "not available: no NVIDIA driver or device found"
        device = cuda.get_current_device()
        name = device.name.decode() if isinstance(device.name, bytes) else device.name
        major, minor = device.compute_capability
        return f"{name}, compute capability {major}.{minor}"
    except Exception as error:  # a broken driver raises whatever it likes; this line is to say so, not to fail
        return f"not available: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
