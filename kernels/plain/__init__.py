"""Kernels compiled by Numba for the CPU: float32 twins of :mod:`npmobilenet.kernels.reference`.

Names, arguments and axes are those of the reference, and so is the meaning, which is documented there. Common
to all public functions here:

- Inputs are float arrays in any layout. C-contiguous float32 is used as it is, anything else converted first.
- The result is a new C-contiguous float32 array, or ``out``, which must be one of the right shape and must
  not overlap an input.
- ``threads`` is how many threads may work; 1 enters no parallel region. The result is the same bit for bit
  for any number of threads, and for an image alone or in a batch: every output is one chain of additions
  whose order the source fixes.
- A NaN in the input gives a NaN in every output that depends on it.
- Arguments that do not fit raise ``ValueError``, see :mod:`npmobilenet.kernels.checks`.

The loops are plain Python loops over channels, innermost, which LLVM vectorises.
"""

from npmobilenet.kernels import compilers

compilers.needed("plain loops", compilers.NUMBA)
