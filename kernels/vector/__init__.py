"""Vectors for kernels.

``target``      the CPU as kernels see it: how wide its vectors are, how many it holds in registers
``simd``        the vocabulary in which kernels read like their algorithm
``simd_numba``  what Numba itself lacks: atomic operations, calls by address
``library``     kernels compiled together: kept on disk, found by name
"""
