"""MobileNet inference with nothing but NumPy and Numba."""

__version__ = "0.1.0"
