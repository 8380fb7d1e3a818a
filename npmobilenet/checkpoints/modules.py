"""The weights of a whole pickled module: ``torch.save(model)`` and TorchScript.

An object of ``torch.nn.Module`` keeps its parameters, buffers and modules in dicts among its attributes
(``_parameters``, ``_buffers``, ``_modules``), one of TorchScript has them as attributes of their own. Walked from the
outside in, with names joined by dots, they are the module's ``state_dict()``. A layer that PyTorch quantised is pickled
in a form of its own, of which nothing is known here.
"""

from __future__ import annotations

from collections.abc import Iterator

from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.checkpoints.foreign import ForeignObject
from npmobilenet.checkpoints.stored_tensor import Tensor
from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

_COMPILED = ("__torch__.torch.classes.", "torch.ScriptObject")  # objects of C++: the weights of quantised layers


def is_module(value: object) -> bool:
    """Whether this is the placeholder of a module."""
    return isinstance(value, ForeignObject) and (
        _is_script(value) or ("_parameters" in value.attributes and "_modules" in value.attributes)
    )


def state_dict(module: ForeignObject, allowance: Allowance) -> dict[str, Tensor]:
    """Return the tensors of a module under the names that ``module.state_dict()`` gives them.

    Raises
    ------
    CheckpointError
        If a part of it cannot be read.
    """
    found: dict[str, Tensor] = {}
    pending: list[tuple[str, ForeignObject]] = [("", module)]
    while pending:
        prefix, module = pending.pop()
        inner = []
        for name, value in _parts(module):
            # Modules may be shared, without end if hostile: every name costs what it holds.
            allowance.take(200 + len(prefix) + len(name), "the names of its modules")
            if isinstance(value, Tensor):
                found[prefix + name] = value
            elif is_module(value):
                inner.append((f"{prefix}{name}.", value))
            elif isinstance(value, ForeignObject) and (_is_compiled(value) or not _is_script(module)):
                raise CheckpointError(
                    f"holds a whole module, and its part {quote(prefix + name)} is of the class {quote(value.kind)}, "
                    "whose weights are not where a module has them (as in quantised layers); save model.state_dict()"
                )
        pending += reversed(inner)
    return found


def _is_script(module: ForeignObject) -> bool:
    return module.kind.startswith("__torch__.") and not _is_compiled(module)


def _is_compiled(value: object) -> bool:
    return isinstance(value, ForeignObject) and value.kind.startswith(_COMPILED)


def _parts(module: ForeignObject) -> Iterator[tuple[str, object]]:
    """The named parameters, buffers and modules of a module, and objects of C++ that it keeps beside them."""
    if _is_script(module):
        yield from module.attributes.items()
        return
    passing = module.attributes.get("_non_persistent_buffers_set")
    for kind in ("_parameters", "_buffers", "_modules"):
        entries = module.attributes.get(kind)
        for name, value in entries.items() if type(entries) is dict else ():
            if not (kind == "_buffers" and type(passing) is list and name in passing):
                yield name, value
    yield from ((name, value) for name, value in module.attributes.items() if _is_compiled(value))
