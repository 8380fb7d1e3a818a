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
- ``threads`` is accepted and ignored. Results are the same bits in every run: the order of additions is fixed, and
  there are no atomic ones. It is fixed for a shape: a 1x1 convolution of few pixels cuts its sums into more parts, so
  that an image alone may differ in the last bits from the same one in a batch.

**Launchers**, for an engine that calls the same kernels over and over. ``prepare_conv2d(x_shape, weight_shape, ...)``
and so on choose kernel, grid and block once and return a :class:`~npmobilenet.kernels.cuda.launch.Launch`:

- ``launch(stream, *arrays)`` starts the kernel and returns at once: no allocation, no copy, no synchronisation, no
  checks. It may be recorded by stream capture, after one ordinary call, which compiles and loads the kernel.
- ``stream`` is a Numba stream, or 0 for the default one.
- Every array is **one-dimensional**, C-contiguous, on the device, aligned to 16 bytes (in an arena: at a multiple of
  16 bytes), of the ``dtype`` the launcher was prepared for, and has at least as many elements as its shape says: a
  flat view of the NHWC tensor. Weights have the axes of the reference, flat; ``bias`` is required (zeros where there
  is none). ``out`` must not overlap an input, except where an element is made of that in its place (``elementwise``).
- ``launch.shape`` is the result's; ``launch.grid``, ``launch.block`` and ``launch.name`` are for reports;
  ``launch.compile()`` compiles the kernel ahead.

All take ``dtype=np.float32`` besides what stands here, and the options of the operation:

``convolution.prepare_conv2d(x_shape, weight_shape)``
    ``x, weight, bias, out``; likewise ``conv_transpose.prepare_conv_transpose2d``
``depthwise.prepare_depthwise_conv2d(x_shape, weight_shape)``
    ``x, weight, bias, out``
``mixed.prepare_mixed_depthwise_conv2d(x_shape, weight_shapes)``
    ``x, weights, bias, out``, all weights in one array: ``mixed.pack_weights(weights)``
``pointwise.prepare_pointwise_conv2d(x_shape, weight_shape, residual=False, scale=False)``
    ``x, weight, bias, out``, then the residual and the scale that are asked for. The scale, (N, C_in), multiplies
    every pixel of ``x`` as it is loaded: with it a squeeze-and-excitation needs no pass of its own over the tensor
``linear.prepare_linear(x_shape, weight_shape)``
    ``x, weight, bias, out``
``linear.prepare_softmax(shape)``
    ``x, out``
``pooling.prepare_global_average_pool(x_shape)``, ``prepare_global_max_pool``; ``prepare_max_pool2d(x_shape, size)``,
``prepare_average_pool2d``
    ``x, out``
``squeeze_excite.prepare_gate(n, channels, squeezed)``
    ``means, reduce_weight, reduce_bias, expand_weight, expand_bias, out``: (N, C) means -> (N, C) scales
``elementwise.prepare_map(shape, activation)``, ``prepare_leaky_relu(shape)``, ``prepare_elu``, ``prepare_tanh``
    ``x, out``, in place or not
``elementwise.prepare_add(shape)``
    ``x, y, out``, which may be either
``elementwise.prepare_broadcast_add(x_shape, y_shape)``, ``prepare_multiply``
    ``x, y, out``, in place or not
``elementwise.prepare_prelu(x_shape, weight_shape)``
    ``x, weight, out``, in place or not
``batch_norm.prepare_batch_norm(x_shape)``
    ``x, weight, bias, mean, variance, out``
``channels.prepare_concat(x_shapes)``
    a list of launchers, of one ``x`` and ``out`` each: together they fill ``out``
``channels.prepare_channel_pad(x_shape)``, ``prepare_flatten``, ``resize2d.prepare_resize2d(x_shape, size)``
    ``x, out``. A launcher that resizes has tables of its own, which its first start copies to the device
``inverted_residual.prepare_inverted_residual(x_shape, expanded, window, c_out)``
    ``x, expand_weight, expand_bias, weight, bias, project_weight, project_bias, out``; the residual is ``x``. It
    returns None for a block that does not fit in shared memory or is better left to its three kernels
"""

from npmobilenet.kernels import compilers

compilers.needed("CUDA kernels", compilers.NUMBA)
