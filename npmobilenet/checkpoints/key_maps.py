"""The names that other projects give to a network's layers, and which project a checkpoint came from.

A key map takes an architecture to ``{our node name: the source's module name}``; the parameter names below a
module (``weight``, ``bias``, ``running_mean``, ``running_var``) are PyTorch's everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from npmobilenet.architectures import ARCHITECTURES, Architecture
from npmobilenet.architectures.blocks import Block
from npmobilenet.graph import Graph

KeyMap = Callable[[Architecture], dict[str, str]]


def own_names(architecture: Architecture) -> dict[str, str]:
    """The names of this project's graphs."""
    return {name: name for block in architecture.blocks for name in _modules(block)}


def torchvision_names(architecture: Architecture) -> dict[str, str]:
    """torchvision: the convolutions of a block but the last are sequences of (convolution, norm, activation)."""

    def of_block(module: str, convolutions: list[str]) -> dict[str, str]:
        *inner, last = convolutions
        names = _pair(last, f"{module}.{len(inner)}", f"{module}.{len(inner) + 1}")
        for place, name in enumerate(inner):
            names |= _pair(name, f"{module}.{place}.0", f"{module}.{place}.1")
        return names

    return _features_names(architecture, of_block)


def flat_names(architecture: Architecture) -> dict[str, str]:
    """Early torchvision and many training repositories: a block is one flat sequence, activations counted."""

    def of_block(module: str, convolutions: list[str]) -> dict[str, str]:
        names = {}
        for place, name in enumerate(convolutions):
            names |= _pair(name, f"{module}.{3 * place}", f"{module}.{3 * place + 1}")
        return names

    return _features_names(architecture, of_block)


def _features_names(architecture: Architecture, of_block: Callable[[str, list[str]], dict[str, str]]) -> dict[str, str]:
    """``features.N`` is the N-th block, ``features.N.conv`` what is inside an inverted residual."""
    names = {"classifier": "classifier.1"}
    for number, block in enumerate(architecture.blocks):
        if block.row.kind == "conv":
            names |= _pair(block.name, f"features.{number}.0", f"features.{number}.1")
        elif block.row.kind == "inverted":
            names |= of_block(f"features.{number}.conv", list(_convolutions(block)))
    return names


def flat_names_linear(architecture: Architecture) -> dict[str, str]:
    """The flat sequence with the classifier as one linear layer, not in a sequence with a dropout."""
    return flat_names(architecture) | {"classifier": "classifier"}


def flat_names_conv_head(architecture: Architecture) -> dict[str, str]:
    """The flat sequence with the last convolution outside of the features."""
    return flat_names_linear(architecture) | _pair("head", "conv.0", "conv.1")


def timm_names(architecture: Architecture) -> dict[str, str]:
    """timm: ``blocks.S.I`` is repeat I of row S, its convolutions named by what they do."""
    names = {"classifier": "classifier"}
    parts = {
        "expand": "conv_pw",
        "depthwise": "conv_dw",
        "pointwise": "conv_pw",
        "project": "conv_pwl",
    }
    for block in architecture.blocks:
        if block.name == "stem":
            names |= _pair("stem", "conv_stem", "bn1")
        elif block.name == "head":
            names |= _pair("head", "conv_head", "bn2")
        elif block.row.kind in ("separable", "inverted"):
            module = f"blocks.{block.row_index - 1}.{block.repeat}"
            convolutions = list(_convolutions(block))
            for place, name in enumerate(convolutions, 1):
                part = parts[name.split(".")[1]]
                if part == "conv_pwl" and len(convolutions) == 2:
                    part = "conv_pw"  # without expansion timm calls it a depthwise separable block
                names |= _pair(name, f"{module}.{part}", f"{module}.bn{place}")
    return names


def _convolutions(block: Block) -> Iterator[str]:
    """Our names of the convolutions of a block, in order."""
    if block.row.kind == "conv":
        yield block.name
    elif block.row.kind == "separable":
        yield from (f"{block.name}.depthwise", f"{block.name}.pointwise")
    elif block.row.kind == "inverted":
        if block.row.expansion != 1:
            yield f"{block.name}.expand"
        yield from (f"{block.name}.depthwise", f"{block.name}.project")


def _modules(block: Block) -> Iterator[str]:
    if block.row.kind == "linear":
        yield block.name
    for name in _convolutions(block):
        yield from (name, f"{name}.norm")


def _pair(name: str, convolution: str, norm: str) -> dict[str, str]:
    return {name: convolution, f"{name}.norm": norm}


KEY_MAPS: dict[str, dict[str, KeyMap]] = {
    "mobilenet_v2": {
        "npmobilenet": own_names,
        "torchvision": torchvision_names,
        "timm": timm_names,
        "flat": flat_names,
        "flat, linear classifier": flat_names_linear,
        "flat, head outside": flat_names_conv_head,
    },
    "mobilenet_v1": {"npmobilenet": own_names, "timm": timm_names},
    "mobilenet_v1_shallow": {"npmobilenet": own_names, "timm": timm_names},
    "mobilenet_v1_dense": {"npmobilenet": own_names},
}


@dataclass(frozen=True)
class Naming:
    """The architecture and the naming that fit a checkpoint's keys."""

    architecture: Architecture
    source: str
    modules: Mapping[str, str]
    """Our node name to the source's module name."""

    def keys(self, graph: Graph) -> dict[str, str]:
        """Our parameter name to the source's key, for every parameter of the graph."""
        keys = {}
        for name in graph.tensors:
            module, _, parameter = name.rpartition(".")
            keys[name] = f"{self.modules[module]}.{parameter}"
        return keys


def identify(keys: Iterable[str], architectures: Iterable[str] = ARCHITECTURES) -> Naming | None:
    """Return the naming that explains the keys of a checkpoint best, or None if none explains half of them.

    Parameters
    ----------
    keys : iterable of str
        Tensor names of the checkpoint.
    architectures : iterable of str
        The names to choose from.
    """
    found = set(keys)
    best, best_score = None, (len(found) // 2, 0)
    for name in architectures:
        architecture = ARCHITECTURES[name]
        tensors = architecture.graph()
        for source, key_map in KEY_MAPS[name].items():
            naming = Naming(architecture, source, key_map(architecture))
            expected = set(naming.keys(tensors).values())
            score = (len(found & expected), -len(found ^ expected))
            if score > best_score:
                best, best_score = naming, score
    return best
