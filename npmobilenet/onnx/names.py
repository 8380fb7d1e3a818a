"""Names for the nodes of a graph: of the modules that an exporter wrote down, else of ONNX's nodes, else of tensors."""

from __future__ import annotations

import re

from npmobilenet.graph import INPUT
from npmobilenet.onnx.file import Node
from npmobilenet.text import printable

LONGEST = 120


class Names:
    """Gives every node a name of its own, and its block."""

    def __init__(self) -> None:
        self._taken = {INPUT}

    def of(self, node: Node) -> tuple[str, str]:
        """Return a name and a block for what a node computes."""
        path = module_path(node.name) or _plain(node.name) or _plain(next(filter(None, node.outputs), "node"))
        name, number = path, 2
        if name in self._taken:
            path = name = f"{path}.{node.operator.lower()}"
        while name in self._taken:
            name, number = f"{path}{number}", number + 1
        self._taken.add(name)
        return name, block_of(path)

    def give_back(self, name: str) -> None:
        """Let another node have a name."""
        self._taken.discard(name)


def module_path(name: str) -> str:
    """Return the module that PyTorch's exporter names a node for; nothing of other names.

    ``/features/features.1/conv/conv.0/conv.0.0/Conv`` is of the module ``features.1.conv.0.0``.
    """
    if not name.startswith("/") or name.count("/") < 2:
        return ""
    parts: list[str] = []
    for part in name.strip("/").split("/")[:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return _plain(".".join(parts))


def block_of(path: str) -> str:
    """Return to which block a module belongs: what stands up to the first number, with it."""
    found = re.match(r"(?:[^.]+\.)*?\d+(?=\.|$)", path)
    return found[0] if found else path.split(".")[0]


def _plain(name: str) -> str:
    return printable(name, LONGEST).strip("/").replace("/", ".")
