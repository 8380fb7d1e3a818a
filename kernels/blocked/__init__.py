"""The fastest CPU kernels: explicit vectors on tensors blocked by channels (NCHWc).

A tensor is stored as ``[C / L][H][W][L]``: channels in blocks of L, one vector of the CPU each (16 lanes with
AVX-512, 8 with AVX2, 4 with SSE or NEON); the last block is filled up with zero channels. Pointwise and
depthwise kernels both find their operands at constant distances from one address in it. A tensor that a
depthwise kernel reads is stored *padded*, with its frame of zeros, so that no kernel tests for borders.

``layout``             packing of activations and weights
``pointwise``          1x1 convolution: a register tile of pixels x channel blocks
``depthwise``          any kernel size, stride and dilation
``mixed``              depthwise with several kernel sizes, each on its part of the channels, in one pass
``stem``               the first dense convolution, from the planar image
``pooling``            global average, and the scaling of channels by squeeze-and-excitation
``linear``             a vector times a matrix: the classifier
``activation``         swish, hard swish, sigmoid, hard sigmoid
``padding``            the frame of zeros around a padded tensor
``inverted_residual``  expand, depthwise, project over strips of rows, the expanded strip in the cache
``operations``         single operations on NHWC arrays, as the reference defines them
``blocks``             whole blocks likewise, fused and not
``library``            all of them compiled together
``walker``             runs a table of kernel calls on one or several threads
``threads``            helpers that take part in a walk
``mailbox``            how a thread that waits in compiled code is told what to do

Every kernel has the signature ``(arguments, first, last, scratch)``: it computes the work items ``first`` up
to ``last`` of a call whose ``arguments`` are one row of a table of 64-bit integers (:class:`~.layout.Fields`).
"""
