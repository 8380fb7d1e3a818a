"""The fastest CPU kernels: explicit vectors on tensors blocked by channels (NCHWc).

A tensor is stored as ``[C / L][H][W][L]``: channels in blocks of L, one vector of the CPU each (16 lanes with
AVX-512, 8 with AVX2, 4 with SSE or NEON); the last block is filled up with zero channels. Pointwise and
depthwise kernels both find their operands at constant distances from one address in it. A tensor that a
depthwise kernel reads is stored *padded*, with its frame of zeros, so that no kernel tests for borders.

A module for each operation has the host's side: the fields of its kernel's arguments, ``pack`` for its weights,
``call`` from tensors to a :class:`~npmobilenet.kernels.call.Call`, and the single operation on NHWC arrays, which makes
the same calls as a network. None of them imports LLVM; `code` has what writes the machine code. As attributes of this
package they are imported when they are first asked for: a network starts without the kernels that it does not need.

``pointwise``          1x1 convolution: a register tile of pixels x channel blocks
``depthwise``          any kernel size, stride and dilation
``mixed``              depthwise with several kernel sizes, each on its part of the channels, in one pass
``stem``               the first dense convolution, from the planar image
``conv_transpose``     transposed convolution: dense ones that take turns at the pixels of the result
``pooling``            means and maxima, of windows and of the whole image
``resize2d``           feature maps at another size, bilinear or nearest
``linear``             a vector times a matrix: the classifier
``squeeze_excite``     the scaling of channels by what two linear layers make of their means
``elementwise``        functions of every value: activations, slopes, batch norm, sums and products of two tensors
``softmax``            over the channels of each pixel
``channels``           concatenation, channels of zeros, an image as a vector
``inverted_residual``  expand, depthwise, project over strips of rows, the expanded strip in the cache
``activation``         how a kernel ends: a clamp, swish, hard swish, sigmoid, hard sigmoid
``padding``            the frame of zeros around a padded tensor
``planes``             plain arrays (C, H, W), copied in and out
``int8``               the same of 8-bit tensors
``layout``             fields of arguments, packing of weights
``tiles``              register tiles, as measured on each CPU
``images``             single operations: what they have in common
``library``            the compiled kernels, by name
"""

from npmobilenet import lazily

__getattr__ = lazily(__name__)
