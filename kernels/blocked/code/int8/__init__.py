"""What writes the kernels of 8-bit tensors down; :mod:`npmobilenet.kernels.blocked.int8` has the host's side."""
