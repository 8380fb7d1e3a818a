"""Kernels of 8-bit tensors: explicit vectors on tensors blocked by channels, as those of float32 beside them.

A tensor of bytes has as many channels to a block as one of float32, so that four channels of a pixel are what a
pointwise kernel broadcasts, and four pixels of a block one register. Sums are 32-bit integers, exact on every CPU; one
fused multiply-add makes float32 of them, and rounding and saturation bytes (:mod:`npmobilenet.kernels.reference`).

``layout``     four bytes as one integer, tiles, what a result in bytes or float32 needs
``entry``      float32 to bytes, with a scale for each pixel or steps for each channel; an image to 16 bits
``pointwise``  1x1 convolution
``depthwise``  any window, weights of 8 or 15 bits
``stem``       the first dense convolution, 16 bits by 16
``dense``      any other: the pixels under its window as channels of a pointwise one
``pooling``    global average, in float32
``linear``     the classifier: a pixel's scale, and the pointwise kernel

``inverted_residual``  a block as one call, strip by strip
"""
