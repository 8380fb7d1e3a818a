"""The machine code of the blocked kernels, written in the vocabulary of :mod:`npmobilenet.kernels.vector.simd`.

A module for each operation, whose ``define(library)`` adds its kernels; ``common`` adds all of them. A kernel's
arguments are the `layout.Fields` of the operation's module in the folder above, which also says how its weights lie.
"""
