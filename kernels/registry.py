"""The table of all kernels: one row per function. Dispatch, tests, benchmarks and documentation iterate it.

A new kernel is a function and a row here. Rows name their function as ``"module:function"`` below
``npmobilenet.kernels``; the module is imported when the function is first asked for, so that this table can
be read, and the reference used, without Numba.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from math import prod
from typing import Any

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.geometry import pair
from npmobilenet.kernels.ladder import LADDERS

# "ladder" holds the versions of an operation from the textbook's to the fastest, to be studied and measured
# beside each other: nothing is dispatched to it.
BACKENDS = ("reference", "plain", "blocked", "cuda", "ladder")
ON_CPU = ("plain", "blocked")


def _everything(**what: Any) -> bool:
    return True


@dataclass(frozen=True)
class Kernel:
    """One implementation of one operation.

    Attributes
    ----------
    operation : str
        What it computes: the name of the function in :mod:`npmobilenet.kernels.reference` that defines it.
    backend : {"reference", "plain", "blocked", "cuda", "ladder"}
    variant : str
        How it computes it; unique among the kernels of one operation and backend.
    target : str
        Where it is: ``"module:function"``.
    rank : int
        The larger, the faster: :func:`best` takes the highest that supports the case. On a ladder, the rung.
    supports : callable
        Takes facts of a case as keywords (``groups=2``, ``c_out=90``, ...) and returns whether the kernel can
        compute it. It must take ``**others``: which facts are known depends on the caller.
    """

    operation: str
    backend: str
    variant: str
    target: str
    rank: int = 0
    supports: Callable[..., bool] = field(default=_everything, repr=False)

    @property
    def name(self) -> str:
        """``operation/backend/variant``."""
        return f"{self.operation}/{self.backend}/{self.variant}"

    @property
    def function(self) -> Callable[..., np.ndarray]:
        """The function; its module is imported on first use."""
        module, _, function = self.target.partition(":")
        return getattr(import_module(f"npmobilenet.kernels.{module}"), function)

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return inspect.getdoc(self.function).partition("\n")[0]


def _vectorised(activation: str = "none", **others: Any) -> bool:
    """What the blocked kernels end with: a clamp, or another activation that keeps zeros."""
    return activation in ("none", "relu", "relu6", "hard_swish", "swish")


def _dense_of_16_bits(groups: int = 1, dilation: int | Sequence[int] = 1, **others: Any) -> bool:
    return groups == 1 and pair(dilation) == (1, 1)


def _dense_of_bytes(groups: int = 1, steps: float | None = None, **others: Any) -> bool:
    return groups == 1 and steps is None


def _vectorised_block(
    expand_activation: str = "relu6",
    depthwise_activation: str = "relu6",
    project_activation: str = "none",
    stride: int | Sequence[int] = 1,
    **others: Any,
) -> bool:
    projected = project_activation in ("none", "relu", "relu6")
    ends = _vectorised(expand_activation) and _vectorised(depthwise_activation)
    return projected and ends and len(set(pair(stride))) == 1


def _ungrouped(groups: int = 1, **others: Any) -> bool:
    return groups == 1


def _vectorised_dense(groups: int = 1, dilation: int | Sequence[int] = 1, **others: Any) -> bool:
    return groups == 1 and pair(dilation) == (1, 1) and _vectorised(**others)


def _row(
    operation: str,
    backend: str,
    variant: str,
    module: str,
    rank: int = 0,
    name: str = "",
    supports: Callable[..., bool] = _everything,
) -> Kernel:
    return Kernel(operation, backend, variant, f"{module}:{name or operation}", rank, supports)


OPERATIONS = (
    "conv2d",
    "depthwise_conv2d",
    "mixed_depthwise_conv2d",
    "pointwise_conv2d",
    "linear",
    "squeeze_excite",
    "inverted_residual",
    "batch_norm",
    "global_average_pool",
    "max_pool2d",
    "average_pool2d",
    "add",
    "prelu",
    "resize2d",
    "conv_transpose2d",
    "global_max_pool",
    "broadcast_add",
    "multiply",
    "concat",
    "channel_select",
    "channel_pad",
    "flatten",
    "leaky_relu",
    "elu",
    "tanh",
    "softmax",
    "relu",
    "relu6",
    "hard_swish",
    "swish",
    "sigmoid",
    "hard_sigmoid",
)

# Of 8 bits: exact, so that every backend has the same bits.
INT8_OPERATIONS = (
    "quantize",
    "dequantize",
    "add_int8",
    "conv2d_int8",
    "depthwise_conv2d_int8",
    "mixed_depthwise_conv2d_int8",
    "pointwise_conv2d_int8",
    "linear_int8",
    "squeeze_excite_int8",
    "global_average_pool_int8",
)

KERNELS: list[Kernel] = [
    *(_row(operation, "reference", "numpy", "reference") for operation in OPERATIONS),
    *(_row(operation, "reference", "numpy", "reference") for operation in INT8_OPERATIONS),
    *(_row(operation, "plain", "njit", "plain.int8") for operation in INT8_OPERATIONS),
    _row("conv2d", "plain", "njit", "plain.convolution"),
    _row("depthwise_conv2d", "plain", "njit", "plain.depthwise"),
    _row("mixed_depthwise_conv2d", "plain", "njit", "plain.mixed"),
    _row("pointwise_conv2d", "plain", "njit", "plain.pointwise", name="pointwise_conv2d_plain"),
    _row("pointwise_conv2d", "plain", "njit_tiled", "plain.pointwise", rank=1),
    _row("linear", "plain", "njit", "plain.linear"),
    _row("squeeze_excite", "plain", "njit", "plain.squeeze_excite"),
    _row("inverted_residual", "plain", "njit", "plain.inverted_residual"),
    _row("batch_norm", "plain", "njit", "plain.batch_norm"),
    _row("softmax", "plain", "njit", "plain.linear"),
    _row("global_average_pool", "plain", "njit", "plain.pooling"),
    _row("max_pool2d", "plain", "njit", "plain.pooling"),
    _row("average_pool2d", "plain", "njit", "plain.pooling"),
    _row("add", "plain", "njit", "plain.activation"),
    _row("prelu", "plain", "njit", "plain.prelu"),
    _row("resize2d", "plain", "njit", "plain.resize2d"),
    _row("conv_transpose2d", "plain", "njit", "plain.conv_transpose"),
    _row("global_max_pool", "plain", "njit", "plain.pooling"),
    _row("broadcast_add", "plain", "njit", "plain.broadcast"),
    _row("multiply", "plain", "njit", "plain.broadcast"),
    _row("concat", "plain", "njit", "plain.channels"),
    _row("channel_select", "plain", "njit", "plain.channels"),
    _row("channel_pad", "plain", "njit", "plain.channels"),
    _row("flatten", "plain", "njit", "plain.channels"),
    _row("leaky_relu", "plain", "njit", "plain.elementwise"),
    _row("elu", "plain", "njit", "plain.elementwise"),
    _row("tanh", "plain", "njit", "plain.elementwise"),
    _row("relu", "plain", "njit", "plain.activation"),
    _row("relu6", "plain", "njit", "plain.activation"),
    _row("hard_swish", "plain", "njit", "plain.activation"),
    _row("swish", "plain", "njit", "plain.activation"),
    _row("sigmoid", "plain", "njit", "plain.activation"),
    _row("hard_sigmoid", "plain", "njit", "plain.activation"),
    # The fastest kernels of all, but as single calls on NHWC arrays they pay for packing, which is more work than
    # a small layer. The engine calls the same kernels on tensors that stay blocked.
    _row("conv2d", "blocked", "simd", "blocked.stem", supports=_vectorised_dense),
    # The stem's kernel is for an image of a few planes; of blocked tensors the engine takes the other.
    _row("conv2d", "blocked", "simd_blocked", "blocked.convolution", rank=1, supports=_vectorised),
    _row("depthwise_conv2d", "blocked", "simd", "blocked.depthwise", supports=_vectorised),
    _row("mixed_depthwise_conv2d", "blocked", "simd", "blocked.mixed", supports=_vectorised),
    _row("pointwise_conv2d", "blocked", "simd", "blocked.pointwise", supports=_vectorised),
    _row("linear", "blocked", "simd", "blocked.linear", supports=_vectorised),
    *(
        _row(operation, "blocked", "simd", "blocked.pooling")
        for operation in ("global_average_pool", "global_max_pool", "max_pool2d", "average_pool2d")
    ),
    _row("resize2d", "blocked", "simd", "blocked.resize2d"),
    _row("conv_transpose2d", "blocked", "simd", "blocked.conv_transpose"),
    *(
        _row(operation, "blocked", "simd", f"blocked.{module}")
        for module, operations in {
            "elementwise": (
                *(*checks.ACTIVATIONS[1:], "tanh", "leaky_relu", "elu"),
                *("prelu", "batch_norm", "add", "broadcast_add", "multiply"),
            ),
            "softmax": ("softmax",),
            "channels": ("concat", "channel_select", "channel_pad", "flatten"),
        }.items()
        for operation in operations
    ),
    _row("quantize", "blocked", "simd", "blocked.int8.entry"),
    _row("dequantize", "blocked", "simd", "blocked.int8.entry"),
    _row("add_int8", "blocked", "simd", "blocked.int8.add"),
    _row("conv2d_int8", "blocked", "simd", "blocked.int8.stem", supports=_dense_of_16_bits),
    _row("conv2d_int8", "blocked", "simd_bytes", "blocked.int8.dense", rank=1, supports=_dense_of_bytes),
    _row("depthwise_conv2d_int8", "blocked", "simd", "blocked.int8.depthwise"),
    _row("mixed_depthwise_conv2d_int8", "blocked", "simd", "blocked.int8.mixed"),
    _row("pointwise_conv2d_int8", "blocked", "simd", "blocked.int8.pointwise"),
    _row("linear_int8", "blocked", "simd", "blocked.int8.linear"),
    _row("squeeze_excite_int8", "blocked", "simd", "blocked.int8.squeeze_excite"),
    _row("global_average_pool_int8", "blocked", "simd", "blocked.int8.pooling"),
    *(
        _row(
            "inverted_residual", "blocked", variant, "blocked.inverted_residual", name=name, supports=_vectorised_block
        )
        for variant, name in (("simd", "one_after_another"), ("simd_split", "split"), ("simd_ring", "ring"))
    ),
    _row("conv2d", "cuda", "numba_cuda", "cuda.convolution"),
    _row("depthwise_conv2d", "cuda", "numba_cuda", "cuda.depthwise"),
    _row("mixed_depthwise_conv2d", "cuda", "numba_cuda", "cuda.mixed"),
    _row("pointwise_conv2d", "cuda", "numba_cuda", "cuda.pointwise"),
    _row("linear", "cuda", "numba_cuda", "cuda.linear"),
    _row("squeeze_excite", "cuda", "numba_cuda", "cuda.squeeze_excite"),
    _row("inverted_residual", "cuda", "numba_cuda", "cuda.inverted_residual"),
    _row("softmax", "cuda", "numba_cuda", "cuda.linear"),
    _row("global_average_pool", "cuda", "numba_cuda", "cuda.pooling"),
    _row("max_pool2d", "cuda", "numba_cuda", "cuda.pooling"),
    _row("average_pool2d", "cuda", "numba_cuda", "cuda.pooling"),
    _row("global_max_pool", "cuda", "numba_cuda", "cuda.pooling"),
    _row("batch_norm", "cuda", "numba_cuda", "cuda.batch_norm"),
    _row("conv_transpose2d", "cuda", "numba_cuda", "cuda.conv_transpose"),
    _row("resize2d", "cuda", "numba_cuda", "cuda.resize2d"),
    *(_row(operation, "cuda", "numba_cuda", "cuda.channels") for operation in ("concat", "channel_pad", "flatten")),
    *(
        _row(operation, "cuda", "numba_cuda", "cuda.elementwise")
        for operation in ("add", "broadcast_add", "multiply", "prelu", "leaky_relu", "elu", "tanh")
    ),
    *(
        _row(operation, "cuda", "numba_cuda", "cuda.elementwise")
        for operation in ("relu", "relu6", "hard_swish", "swish", "sigmoid", "hard_sigmoid")
    ),
]


# A rung that is a kernel of the engine supports what its row above says; so do explicit vectors in other tiles.
_supports = {kernel.target: kernel.supports for kernel in KERNELS}
_supports |= {
    rung.target: kernel.supports
    for kernel in KERNELS
    for rung in LADDERS.get(kernel.operation, ())
    if kernel.backend == "blocked" and kernel.variant == "simd" and rung.name.startswith("simd_")
}
KERNELS += [
    Kernel(operation, "ladder", rung.name, rung.target, height, _supports.get(rung.target, _ungrouped))
    for operation, rungs in LADDERS.items()
    for height, rung in enumerate(rungs)
]


def kernels(
    operation: str | None = None, backend: str | Sequence[str] = BACKENDS, among: Sequence[str] = OPERATIONS
) -> list[Kernel]:
    """Return the rows of one operation or of several (of all that compute in floats), of one backend or of several."""
    backends, operations = (backend,) if isinstance(backend, str) else backend, (operation,) if operation else among
    return [k for k in KERNELS if k.operation in operations and k.backend in backends]


def best(operation: str, backend: str, **what: Any) -> Kernel:
    """Return the kernel of highest rank that supports the case ``what``.

    Raises
    ------
    LookupError
        If the backend has none.
    """
    fitting = [k for k in kernels(operation, backend) if k.supports(**what)]
    if not fitting:
        case = f" for {what}" if what else ""
        raise LookupError(f"the backend {backend!r} has no kernel for {operation!r}{case}")
    return max(fitting, key=lambda kernel: kernel.rank)


def output_shape(operation: str, *arguments: Any, **geometry: Any) -> tuple[int, ...]:
    """Return the shape of an operation's result.

    Parameters
    ----------
    *arguments, **geometry
        As the kernel takes them, with an array or just its shape for each array.
    """
    return getattr(checks, operation)(**_bind(operation, arguments, geometry)).shape


def macs(operation: str, *arguments: Any, **geometry: Any) -> int:
    """Return the multiply-adds of an operation; arguments as for :func:`output_shape`.

    Taps that fall on the padding count too, as papers count them. Operations without weights have none: their
    speed is a matter of :func:`bytes_moved`.
    """
    shape = output_shape(operation, *arguments, **geometry)
    bound = _bind(operation, arguments, geometry)
    operation = operation.removesuffix("_int8")
    if operation in ("conv2d", "pointwise_conv2d", "linear"):
        return prod(shape) * prod(bound["weight"].shape[:-1])
    if operation in ("depthwise_conv2d", "mixed_depthwise_conv2d"):
        weights = bound["weights"] if "weights" in bound else [bound["weight"]]
        return prod(shape[:3]) * sum(weight.size for weight in weights)
    if operation == "conv_transpose2d":
        return prod(bound["x"].shape[:3]) * bound["weight"].size
    if operation == "squeeze_excite":
        return shape[0] * (bound["reduce_weight"].size + bound["expand_weight"].size)
    if operation == "inverted_residual":
        filtered = prod(shape[:3]) * (bound["weight"].size + bound["project_weight"].size)
        return prod(bound["x"].shape[:3]) * bound["expand_weight"].size + filtered
    return 0


def bytes_moved(operation: str, *arguments: Any, **geometry: Any) -> int:
    """Return the least traffic of an operation: every input read once, the result written once.

    In float32, or of 8 bits in the types of its arrays. What a block computes in between counts for nothing: it need
    not leave the cache.
    """
    bound, of_bytes = _bind(operation, arguments, geometry), operation in INT8_OPERATIONS
    size = prod(output_shape(operation, *arguments, **geometry))
    size *= np.dtype(bound.get("dtype", "uint8") if of_bytes else "float32").itemsize
    for value in bound.values():
        arrays = [array for array in (value if isinstance(value, list) else [value]) if isinstance(array, np.ndarray)]
        size += sum(array.size * (array.itemsize if of_bytes else 4) for array in arrays)
    return size


def _bind(operation: str, arguments: tuple, geometry: dict[str, Any]) -> dict[str, Any]:
    """Name the arguments, and put an array that takes no memory in the place of each shape."""

    def stand_in(shape: Any) -> np.ndarray:
        return shape if isinstance(shape, np.ndarray) else np.broadcast_to(np.float32(0), shape)

    signature = inspect.signature(getattr(checks, operation))
    bound = signature.bind(*arguments, **geometry).arguments
    for name in bound:
        annotation = signature.parameters[name].annotation  # a text
        if bound[name] is not None and not isinstance(bound[name], int) and "np.ndarray" in annotation:
            several = annotation.startswith("Sequence")
            bound[name] = [stand_in(one) for one in bound[name]] if several else stand_in(bound[name])
    return bound
