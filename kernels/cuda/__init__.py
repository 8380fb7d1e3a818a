"""Kernels compiled by Numba for a CUDA device: twins of :mod:`npmobilenet.kernels.reference`.

Names, arguments and axes are those of the reference, and so is the meaning, which is documented there. Images are
NHWC: neighbouring threads take neighbouring channels, which lie next to each other in memory. ``device`` is the one
module that imports ``cuda``; where there is none, or no device, every function here exists and raises
:class:`~npmobilenet.kernels.cuda.device.CudaUnavailable`, one sentence that says what to install.

**Operations**, ``conv2d(x, weight, bias, ...)`` and so on, for single calls:

- Given NumPy arrays they copy in, compute, copy out and return a NumPy array, or fill ``out``.
- Given device arrays, or anything with ``__cuda_array_interface__`` (CuPy arrays, PyTorch tensors), they copy
  nothing, return a device array, and do not wait for the device. NumPy weights beside a device ``x`` are copied in.
- float32, or float16 if ``x`` is float16: then all arrays are stored in float16, and sums are float32 all the same.
- ``threads`` is accepted and ignored. Results are the same bits in every run, and for an image alone or in a batch:
  every output is one chain of additions whose order the source fixes, and there are no atomic additions.

**Launchers**, for an engine that calls the same kernels over and over. ``prepare_conv2d(x_shape, weight_shape, ...)``
and so on choose kernel, grid and block once and return a :class:`~npmobilenet.kernels.cuda.launch.Launch`:

- ``launch(stream, *arrays)`` starts the kernel and returns at once: no allocation, no copy, no synchronisation, no
  argument checks. It may be recorded by stream capture (after one ordinary call, which compiles and loads the kernel).
- ``stream`` is a Numba stream, or 0 for the default one.
- Every array is **one-dimensional**, C-contiguous, on the device, aligned to 16 bytes (offsets in an arena: multiples of
  16 bytes), of the ``dtype`` the launcher was prepared for, and has at least as many elements as its shape says: a flat
  view of the NHWC tensor. Weights have the axes of the reference, flat; ``bias`` is required (zeros where there is
  none). ``out`` must not overlap an input, with one exception: elementwise launchers (``prepare_map``,
  ``prepare_add``, ``prepare_scale``) work in place.
- ``launch.grid``, ``launch.block`` and ``launch.name`` are for reports. ``launch.compile()`` compiles it ahead.

==================================================================================  =====================================
``prepare_`` ... ``(shapes, *, options, dtype=np.float32)``                          ``launch(stream, ...)``
==================================================================================  =====================================
``convolution.prepare_conv2d(x_shape, weight_shape, *, stride=1, padding=0,          ``x, weight, bias, out``
dilation=1, groups=1, activation="none")``
``depthwise.prepare_depthwise_conv2d(x_shape, weight_shape, *, stride=1,             ``x, weight, bias, out``
padding=0, dilation=1, activation="none")``
``mixed.prepare_mixed_depthwise_conv2d(x_shape, weight_shapes, *, stride=1,          ``x, weights, bias, out``; ``weights``:
padding="symmetric", dilation=1, activation="none")``                                all, flat, one after the other
                                                                                     (``mixed.pack_weights(weights)``)
``pointwise.prepare_pointwise_conv2d(x_shape, weight_shape, *, groups=1,             ``x, weight, bias, out`` and then
activation="none", residual=False, scale=False)``                                    ``residual`` if true, ``scale`` if true
``linear.prepare_linear(x_shape, weight_shape, *, activation="none")``               ``x, weight, bias, out``
``linear.prepare_softmax(shape)``                                                    ``x, out``
``pooling.prepare_global_average_pool(x_shape)``                                     ``x, out``
``pooling.prepare_max_pool2d(x_shape, kernel_size, *, stride=None, padding=0)``      ``x, out``
``pooling.prepare_average_pool2d(x_shape, kernel_size, *, stride=None, padding=0,    ``x, out``
count_include_pad=True)``
``squeeze_excite.prepare_gate(n, channels, squeezed, *, activation="relu",           ``means, reduce_weight, reduce_bias,
gate="sigmoid")``: (N, C) means -> (N, C) scales                                     expand_weight, expand_bias, out``
``squeeze_excite.prepare_scale(x_shape)``: every pixel times its image's scales      ``x, scale, out``
``activation.prepare_map(shape, activation)``                                        ``x, out``
``activation.prepare_add(shape, *, activation="none")``                              ``x, y, out``
``inverted_residual.prepare_inverted_residual(x_shape, expanded, window, c_out, *,   ``x, expand_weight, expand_bias,
stride=1, padding=0, expand_activation="none", depthwise_activation="none",          weight, bias, project_weight,
project_activation="none", residual=False)``: a Launch, or None where the block      project_bias, out``
does not fit in shared memory or would be slower than its three kernels
==================================================================================  =====================================

``scale`` of a pointwise convolution, (N, C_in), multiplies every pixel of ``x`` as it is loaded: with it a
squeeze-and-excitation costs ``prepare_global_average_pool``, ``prepare_gate`` and no pass of its own over the tensor.
The residual of an inverted residual is its own ``x``.
"""
