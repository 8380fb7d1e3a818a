"""Kernels compiled by Numba for CUDA. ``device`` is the one module that imports ``cuda``."""
