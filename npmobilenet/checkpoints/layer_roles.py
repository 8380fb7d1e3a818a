"""Which constants of a graph are the weights and biases of its layers, told by the operations that read them.

Where a graph was optimised and saved by TensorFlow.js or TFLite, names tell little: a batch norm has become a constant
that is added somewhere. So a layer is called what its weight is called, and what is added to its result is its bias.
Nothing is computed but what is multiplied into a weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.checkpoints.stored_tensor import Tensor
from npmobilenet.checkpoints.tensorflow_names import VECTOR, Axes, with_axes
from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

ADD, MULTIPLY = "add", "multiply"
TRANSPOSED = ("transposed", "Conv2DBackpropInput")  # layers whose weights have the channels of the result second
MOST_OPERATIONS = 100_000
MOST_STEPS = 16  # between a layer and what is added to its result


class Operation(NamedTuple):
    """One operation of a graph: a kind of layer, `ADD`, `MULTIPLY` or any other; its results, and what it reads."""

    kind: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]


@dataclass(eq=False)
class ScaledTensor(Tensor):
    """A weight whose channels of the result, along ``axis``, are multiplied by a vector."""

    weight: Tensor
    scale: Tensor
    axis: int

    def to_array(self, name: str, allowance: Allowance) -> np.ndarray:
        """Return the products."""
        weight, scale = (each.to_array(name, allowance) for each in (self.weight, self.scale))
        if scale.shape != weight.shape[self.axis : self.axis + 1]:
            raise CheckpointError(
                f"tensor {quote(name)} of shape {weight.shape} is multiplied by one of {scale.shape}; "
                "the file is damaged"
            )
        allowance.take(weight.nbytes, f"tensor {quote(name)}")
        with np.errstate(over="ignore", invalid="ignore"):
            array = weight * scale.reshape(-1, *[1] * (weight.ndim - 1 - self.axis))
        array.flags.writeable = False
        return array


def parameters(
    operations: Sequence[Operation], constants: Mapping[str, Tensor], layers: Mapping[str, dict[int, Axes]]
) -> dict[str, Tensor]:
    """Return the parameters of all layers, by PyTorch's names and in its axes; other constants under their own names.

    Parameters
    ----------
    operations : sequence of Operation
    constants : mapping of str to Tensor
        Of numbers with a fraction, single ones left out.
    layers : mapping of str to axes
        For each kind of layer where PyTorch has the axes of its weight.

    Raises
    ------
    CheckpointError
        If there are too many operations, or a weight has another number of axes.
    """
    if len(operations) > MOST_OPERATIONS:
        raise CheckpointError(f"has more than {MOST_OPERATIONS} operations; the file is damaged")
    made_by = {output: operation for operation in operations for output in operation.outputs}
    found: dict[str, Tensor] = {}
    module_of: dict[str, str] = {}  # by a layer's result
    used: set[str] = set()
    transposed: set[str] = set()
    for kind, outputs, inputs in operations:
        weight = next((name for name in inputs if name in constants), None)
        if kind not in layers or weight is None:
            continue
        module = _module(weight)
        if f"{module}.weight" in found:
            module = weight.replace("/", ".")
        found[f"{module}.weight"] = with_axes(f"{module}.weight", constants[weight], layers[kind])
        used.add(weight)
        for bias in inputs[inputs.index(weight) + 1 :]:
            if _axes(constants.get(bias)) == 1 and f"{module}.bias" not in found:
                found[f"{module}.bias"] = with_axes(f"{module}.bias", constants[bias], {1: VECTOR})
                used.add(bias)
        module_of |= dict.fromkeys(outputs, module)
        transposed |= {module} if kind in TRANSPOSED else set()
    for kind, _, inputs in operations:
        vectors = [name for name in inputs if _axes(constants.get(name)) == 1 and name not in used]
        if kind not in (ADD, MULTIPLY) or len(vectors) != 1:
            continue
        (vector,) = vectors
        others = [name for name in inputs if name != vector]
        behind = (module_of[name] for name in others if name in module_of)
        modules = {
            module
            for module in (behind if kind == MULTIPLY else _behind(others, made_by, module_of))
            if f"{module}.bias" not in found  # else it would be multiplied too
        }
        if len(modules) == 1:
            used.add(vector)
            (module,) = modules
            if kind == ADD:
                found[f"{module}.bias"] = with_axes(f"{module}.bias", constants[vector], {1: VECTOR})
            else:
                axis = 1 if module in transposed else 0
                found[f"{module}.weight"] = ScaledTensor(found[f"{module}.weight"], constants[vector], axis)
    return found | {name.replace("/", "."): tensor for name, tensor in constants.items() if name not in used}


def _axes(tensor: Tensor | None) -> int:
    """How many axes a tensor has; none of one that cannot be read."""
    return len(getattr(getattr(tensor, "integers", tensor), "shape", ()))


def _module(weight: str) -> str:
    """The path of a weight without what it is called there."""
    parts = weight.split("/")
    return ".".join(parts[:-1] or parts)


def _behind(names: Sequence[str], made_by: Mapping[str, Operation], module_of: Mapping[str, str]) -> set[str]:
    """The layers whose results reach these tensors with nothing between but sums and products."""
    modules, seen, ahead = set(), set(), list(names)
    while ahead and len(seen) < MOST_STEPS:
        name = ahead.pop()
        if name in module_of:
            modules.add(module_of[name])
        elif name in made_by and name not in seen and made_by[name].kind in (ADD, MULTIPLY):
            seen.add(name)
            ahead += made_by[name].inputs
    return modules
