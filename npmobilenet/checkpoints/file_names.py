"""What a file calls a network's parameters, and what PyTorch calls the values that its modules compute.

A dialect knows the modules that have parameters. From these follows what others compute, whose names begin alike:

- a module that holds others gives what the last of them gives: ``features.0`` what its batch norm ``features.0.1``
  gives, with or without the activation that stands behind it;
- the module of a block gives what the block does, its residual add included, and so do those that hold it; those inside
  it give what is added;
- of the modules of a squeeze-and-excitation the outermost gives its result; what lies inside is no value here;
- in a numbered sequence the activation of a layer has the next number; elsewhere one of a few names, and so has the
  pooling.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from npmobilenet.checkpoints.key_maps import Naming
from npmobilenet.graph import Graph

ACTIVATION_NAMES = ("act", "activ", "activate", "activation")  # timm, pytorchcv, mmcv, transformers
POOL_NAMES = ("avgpool", "global_pool", "pooler")  # torchvision, timm, transformers


class FileNames(NamedTuple):
    """The names of a network's layers in its file.

    Attributes
    ----------
    naming : Naming
    prefix : str
        What those of the features begin with.
    hidden, classifier : str or None
        The modules of the head, if there are any, with their prefix.
    """

    naming: Naming
    prefix: str = ""
    hidden: str | None = None
    classifier: str | None = None

    def keys(self, graph: Graph) -> dict[str, str]:
        """Our parameter name to the file's key, for every parameter of the graph."""
        keys = {name: self.prefix + key for name, key in self.naming.keys(graph).items()}
        for block, module in (("hidden", self.hidden), ("classifier", self.classifier)):
            keys |= {name: f"{module}.{name.rpartition('.')[2]}" for name in keys if name.startswith(f"{block}.")}
        return keys

    def outputs(self, graph: Graph) -> tuple[dict[str, str], dict[str, str]]:
        """What modules compute.

        Parameters
        ----------
        graph : Graph
            Not fused.

        Returns
        -------
        outputs : dict of str to str
            A module to the node that computes the same, or the same but for the activation behind it.
        inside : dict of str to str
            A module to the node that computes its result on the way to its own.
        """
        leaves, inside = self._leaves(graph)
        held: dict[str, list[str]] = {}  # by each module that holds others: their nodes
        for module, node in leaves.items():
            for holder in _above(module):
                held.setdefault(holder, []).append(node)
        whole = {block.name: self.naming.block_module(block) for block in self.naming.architecture.blocks}
        nodes, blocks = {node.name: node for node in graph}, graph.blocks
        outputs = {module: node for module, node in leaves.items() if module not in inside}
        for holder, within in held.items():
            node, above = nodes[within[-1]], holder.rpartition(".")[0]
            block = whole.get(node.block)
            if block and f"{self.prefix}{block}.".startswith(f"{holder}."):
                outputs[holder] = blocks[node.block][-1].name
            elif node.operation == "squeeze_excite" and held.get(above) == within:
                inside[holder] = node.name
            else:
                outputs[holder] = node.name
        if self.prefix:  # what holds the network may hold more of it than has parameters
            outputs = {name: node for name, node in outputs.items() if not self.prefix.startswith(f"{name}.")}
        active = {node.inputs[0] for node in graph if node.operation == "activation"}
        for layer, node in list(outputs.items()):
            if node in active:
                numbered = layer in leaves or nodes[node].operation == "squeeze_excite"
                for name in _activation_names(layer, numbered):
                    if name not in leaves and name not in held:
                        outputs.setdefault(name, node)
        if "pool" in nodes:
            for name in POOL_NAMES:
                outputs.setdefault(self.prefix + name, "pool")
        return outputs, inside

    def _leaves(self, graph: Graph) -> tuple[dict[str, str], dict[str, str]]:
        """The modules that have parameters, with their nodes in order, and those of them that are parts of a node."""
        leaves: dict[str, str] = {}
        inside: dict[str, str] = {}
        keys = self.keys(graph)
        for node in graph:
            for parameter in node.parameters:
                key = keys[f"{node.name}.{parameter}"]
                part, module = key.rpartition(".")[0], key.removesuffix(f".{parameter}")
                if part != module:  # of a mixed convolution; of a squeeze-and-excitation, which has no name of its own
                    inside[part] = node.name
                leaves[part if module == key else module] = node.name
        return leaves, inside


def _above(module: str) -> Iterator[str]:
    """The modules that hold one, the innermost first."""
    while module := module.rpartition(".")[0]:
        yield module


def _activation_names(layer: str, numbered: bool) -> Iterator[str]:
    """What the activation after a layer may be called."""
    above, dot, own = layer.rpartition(".")
    if numbered and own.isdecimal():
        yield f"{above}{dot}{int(own) + 1}"
    yield from (f"{layer}.{name}" for name in ACTIVATION_NAMES)
