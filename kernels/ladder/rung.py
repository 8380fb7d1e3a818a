"""What all rungs have in common, so that each is nothing but its loops."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from npmobilenet.kernels import checks, reference
from npmobilenet.kernels.plain.activation import activate


def rung_of(operation: str) -> Callable[[Callable], Callable[..., np.ndarray]]:
    """Decorate loops ``(x, weight, geometry, out)``, which write the bare sums to ``out``, as an operation.

    The result has the operation's signature. Arguments are checked and converted before the loops; bias,
    activation and residual come after them, each a pass of its own. ``threads`` is accepted and ignored, groups
    of channels are refused.
    """
    signature = inspect.signature(getattr(reference, operation))
    check = getattr(checks, operation)

    def decorate(loops: Callable) -> Callable[..., np.ndarray]:
        def kernel(*arguments: Any, **options: Any) -> np.ndarray:
            given = dict(signature.bind(*arguments, **options).arguments)
            given.pop("threads", None)
            out = given.pop("out", None)
            g = check(**given)
            if given.get("groups", 1) != 1:
                raise ValueError(f"groups must be 1 in this kernel, got {given['groups']}")
            out = checks.output(out, g.shape)
            x, weight, bias, residual = (given.get(name) for name in ("x", "weight", "bias", "residual"))
            weight = [checks.float32(w) for w in given["weights"]] if weight is None else checks.float32(weight)
            loops(checks.float32(x), weight, g, out)
            out += checks.bias(bias, out.shape[3])
            activate(out.reshape(-1), checks.code(given.get("activation", "none")))
            if residual is not None:
                out += residual
            return out

        kernel.__name__, kernel.__doc__, kernel.__module__ = loops.__name__, loops.__doc__, loops.__module__
        kernel.__signature__ = signature
        return kernel

    return decorate
