"""The integers and scales of a network that PyTorch quantised, by this package's names: `stored`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from npmobilenet.checkpoints.fit import Fitted
from npmobilenet.checkpoints.quantised import Quantisation
from npmobilenet.errors import CheckpointError
from npmobilenet.graph import INPUT
from npmobilenet.passes import fuse
from npmobilenet.passes_stored import ACTIVATED, JOINED, SUMS, Stored
from npmobilenet.text import quote

IMAGE = "quant"  # the module that quantises the network's input
SMALLEST_STEP, LARGEST_STEP = 1e-12, 1e12
OTHERWISE = "load it as float32 and use npmobilenet.quantize"


def stored(quantisation: Mapping[str, Quantisation], fitted: Fitted) -> Stored | None:
    """Return what a file says of a quantised network; None if it has no scales of results, but of weights alone.

    torchvision's names: beside a layer ``K.0`` its activation is ``K.1`` or ``K.2``; ``skip_add`` and ``skip_mul`` are
    a block's residual and product, ``quant`` is the image.

    Raises
    ------
    CheckpointError
        If a layer has no scale, or is quantised as no layer can be.
    """
    if all(each.values is not None for each in quantisation.values()):
        return None
    keys = fitted.names.keys(fitted.graph)
    file = _File(quantisation)
    weights = {
        name: file.weight(key, fitted.graph.tensors[name]) for name, key in keys.items() if name.endswith("weight")
    }
    results = {INPUT: file.result(f"{fitted.names.prefix}{IMAGE}")}
    for node in fuse(fitted.graph):
        if node.operation == "squeeze_excite":
            for part in (f"{node.name}.reduce", f"{node.name}.expand"):
                results[part] = file.result(_module(keys[f"{part}.weight"]))
            results[f"{node.name}.{JOINED}"] = file.above(_module(keys[f"{node.name}.reduce.weight"]), "skip_mul")
        elif f"{node.name}.weight" in keys:
            module = _module(keys[f"{node.name}.weight"])
            results[f"{node.name}.{SUMS}"] = file.result(module)
            if node.attributes.get("activation", "none") not in ("none", "relu"):
                results[f"{node.name}.{ACTIVATED}"] = file.result_behind(module)
            if node.attributes.get("residual"):
                results[f"{node.name}.{JOINED}"] = file.above(module, "skip_add")
    return Stored(weights, results)


def _module(key: str) -> str:
    return key.rpartition(".")[0]


class _File(NamedTuple):
    """Scales by the file's names."""

    quantisation: Mapping[str, Quantisation]

    def weight(self, key: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Integers, and the scale of each output channel."""
        found = self.quantisation.get(key)
        if found is None or found.values is None:
            raise CheckpointError(f"{quote(key)} is no quantised tensor, though others are; {OTHERWISE}")
        if found.values.dtype != np.int8 or found.zero_point.any() or found.axis not in (None, 0):
            raise CheckpointError(
                f"{quote(key)} must be int8 with a zero point of 0 and scales for output channels; {OTHERWISE}"
            )
        scale = np.broadcast_to(np.float64(found.scale), len(found.values))
        if not np.all(scale > 0):
            raise CheckpointError(f"{quote(key)} has a scale that is not above 0; the file is damaged")
        return found.values.reshape(shape), scale

    def result(self, module: str) -> tuple[float, int]:
        """Scale and zero point of what a module computes."""
        found = self.quantisation.get(module)
        if found is None or found.values is not None:
            raise CheckpointError(f"has no scale of what {quote(module)} computes; {OTHERWISE}")
        scale, zero_point = float(found.scale), int(found.zero_point)
        if not (SMALLEST_STEP < scale < LARGEST_STEP and 0 <= zero_point <= 255):
            raise CheckpointError(
                f"{quote(module)} has a scale or a zero point that no tensor of 8 bits has; the file is damaged"
            )
        return scale, zero_point

    def result_behind(self, module: str) -> tuple[float, int]:
        """That of the activation behind a layer."""
        holder, _, number = module.rpartition(".")
        if number.isdecimal():
            for later in (1, 2):
                if f"{holder}.{int(number) + later}" in self.quantisation:
                    return self.result(f"{holder}.{int(number) + later}")
        raise CheckpointError(f"has no scale of what the activation behind {quote(module)} computes; {OTHERWISE}")

    def above(self, module: str, name: str) -> tuple[float, int]:
        """That of the module of this name in the nearest that hold a module."""
        holder = _module(module)
        while holder and f"{holder}.{name}" not in self.quantisation:
            holder = _module(holder)
        return self.result(f"{holder}.{name}" if holder else f"{_module(module)}.{name}")
