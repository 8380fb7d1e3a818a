"""MobileNet inference with nothing but NumPy and Numba."""

from pathlib import Path

__version__ = "0.1.0"

_here = Path(__file__).parent
if not (_here / "kernels").is_dir():
    # In a checkout `kernels/` and `bench/` stand beside this folder; installed, they are inside it.
    __path__.append(str(_here.parent))
