"""Convolution kernels: one NumPy definition of every operation, and compiled twins of it.

``reference``  what every operation means (NumPy, float64)
``plain``      readable loops compiled by Numba
``blocked``    the fastest: explicit vectors on channel-blocked tensors
``vector``     the vocabulary that they are written in, and how they are compiled
``tensor``     a tensor in memory; ``call``: calls of kernels on tensors, and the table that runs them
``walk``       how threads run a table; ``memory``: where all of it lies
``ladder``     every operation from the textbook's loops to the fastest kernel, to be studied and measured
``cuda``       the CUDA device
``registry``   the table of all kernels: dispatch, tests and benchmarks iterate it
``prepared``   an operation in two steps: packed once, run as often as one likes
``jit``        how Numba compiles functions; ``compilers``: imported where something must be compiled
``cache``      where machine code is kept, with ``numba_cache`` and ``paths``
``geometry``   padding, output sizes, multiply-adds; ``checks``: what arguments must be
``sharing``    what threads share and a forked process must not inherit

Nothing in here imports the rest of npmobilenet.
"""
