"""What TensorFlow calls the parameters of a layer, by the last part of a tensor's name, and the axes it gives them.

``FeatureExtractor/MobilenetV2/Conv/weights`` becomes ``FeatureExtractor.MobilenetV2.Conv.weight``, with the axes of
PyTorch. A depthwise and a pointwise filter of one module are two layers, the first of which is ``depthwise`` in it.
"""

from __future__ import annotations

from math import prod

from npmobilenet.checkpoints.affine import AffineTensor
from npmobilenet.checkpoints.stored_tensor import StoredTensor, Tensor, UnreadableTensor
from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

Axes = tuple[int, ...]

WINDOW, DEPTHWISE, MATRIX, VECTOR = (3, 2, 0, 1), (2, 3, 0, 1), (1, 0), (0,)
"""Where PyTorch has the axes of a dense and a depthwise convolution, of a linear layer, and of a value per channel."""

# By the last part of a name: PyTorch's name, and where PyTorch has its axes, for each number of axes.
PARAMETERS: dict[str, tuple[str, dict[int, Axes]]] = {
    **dict.fromkeys(("weights", "filters", "pointwise_filter"), ("weight", {4: WINDOW, 2: MATRIX, 1: VECTOR})),
    "depthwise_weights": ("weight", {4: DEPTHWISE}),
    "depthwise_filter": ("depthwise.weight", {4: DEPTHWISE}),
    **dict.fromkeys(("biases", "bias", "convolution_bn_offset"), ("bias", {1: VECTOR})),
    "gamma": ("weight", {1: VECTOR}),
    "beta": ("bias", {1: VECTOR}),
    "moving_mean": ("running_mean", {1: VECTOR}),
    "moving_variance": ("running_var", {1: VECTOR}),
}


def parameter(path: str) -> tuple[str, dict[int, Axes]] | None:
    """Return PyTorch's name of a tensor, and where PyTorch has its axes; None if it is no weight."""
    module, _, last = path.replace("/", ".").rpartition(".")
    if last not in PARAMETERS:
        return None
    name, axes = PARAMETERS[last]
    return (f"{module}.{name}" if module else name), axes


def with_axes(name: str, tensor: Tensor, axes: dict[int, Axes]) -> Tensor:
    """Return a tensor that lies in C order as PyTorch has it: a view of the same bytes.

    Raises
    ------
    CheckpointError
        If it has another number of axes.
    """
    if isinstance(tensor, UnreadableTensor):
        return tensor
    if isinstance(tensor, AffineTensor):
        return AffineTensor(with_axes(name, tensor.integers, axes), tensor.scale, tensor.minimum)
    shape = tensor.shape
    order = axes.get(len(shape))
    if order is None:
        known = " or ".join(map(str, axes))
        raise CheckpointError(f"tensor {quote(name)} has {len(shape)} axes, expected {known}; the file is damaged")
    strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return StoredTensor(
        tensor.storage,
        tensor.dtype,
        tensor.code,
        tuple(shape[axis] for axis in order),
        tuple(strides[axis] for axis in order),
        tensor.offset,
        tensor.byte_order,
    )
