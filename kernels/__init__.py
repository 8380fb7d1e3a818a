"""Convolution kernels: one NumPy definition of every operation, and compiled twins of it.

``reference``  what every operation means (NumPy, float64)
``cpu``        kernels compiled by Numba for the CPU
``registry``   the table of all kernels: dispatch, tests and benchmarks iterate it
``jit``        how kernels are compiled, cached and run on several threads
"""
