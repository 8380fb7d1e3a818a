"""Vectors for kernels.

``target``      the CPU as kernels see it: how wide its vectors are, how many it holds in registers; levels of CPUs
``simd``        the vocabulary in which kernels read like their algorithm
``lowering``    what CPUs have in different words, or not at all: products of small integers, one rounding
``simd_numba``  what Numba itself lacks: atomic operations, calls by address
``lookup``      where the machine code of kernels comes from; ``shipped``: what the package brings
``library``     kernels compiled together: kept on disk, found by name; ``link``: as a shared object
``functions``   compiled functions by name, from wherever
``opening``     shared objects opened by the system's loader; ``mapped``, ``jitted``: where that opens no file
``foreign``     functions of other machines, which cannot be run here
"""
