"""The names that other projects give to a network's layers, and which project a checkpoint came from.

A key map takes an architecture to ``{our layer's name: the source's module name}``; the parameter names below a
module (``weight``, ``bias``, ``running_mean``, ``running_var``) are PyTorch's everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from npmobilenet.architectures import ARCHITECTURES, Architecture
from npmobilenet.architectures.blocks import Block
from npmobilenet.graph import Graph

Names = dict[str, str]


def own_names(architecture: Architecture) -> Names:
    """The names of this project's graphs."""
    names = {}
    for block in architecture.blocks:
        for layer in layers(block):
            names |= _pair(layer, layer, f"{layer}.norm")
    return names


def torchvision_names(architecture: Architecture) -> Names:
    """torchvision's MobileNetV2: a block's convolutions but the last are sequences (convolution, norm, activation)."""

    def of_block(module: str, inside: list[str]) -> Names:
        *inner, last = inside
        names = _pair(last, f"{module}.{len(inner)}", f"{module}.{len(inner) + 1}")
        for place, layer in enumerate(inner):
            names |= _pair(layer, f"{module}.{place}.0", f"{module}.{place}.1")
        return names

    return _features_names(architecture, "conv", of_block)


def torchvision_v3_names(architecture: Architecture) -> Names:
    """torchvision's MobileNetV3: every convolution of a block is a sequence; two linear layers at the end."""
    names = _features_names(architecture, "block", _sequences)
    return names | {"hidden": "classifier.0", "classifier": "classifier.3"}


def torchvision_efficientnet_names(architecture: Architecture) -> Names:
    """torchvision's EfficientNet: ``features.S.I`` is place I of stage S, its inside as in MobileNetV3."""
    names = {"classifier": "classifier.1"} | _pair("stem", "features.0.0", "features.0.1")
    for block in _staged(architecture):
        names |= _sequences(f"features.{block.stage}.{block.place}.block", layers(block))
    head = f"features.{_stages(architecture) + 1}"
    return names | _pair("head", f"{head}.0", f"{head}.1")


def torchvision_mnasnet_names(architecture: Architecture) -> Names:
    """torchvision's MnasNet: stem and first block are the beginning of one flat sequence, then come stages."""
    stages = _stages(architecture)
    names = {"classifier": "classifier.1"} | _flat("layers", ["stem", "block1.depthwise", "block1.project"])
    for block in _staged(architecture):
        if block.stage > 1:
            names |= _flat(f"layers.{6 + block.stage}.{block.place}.layers", layers(block))
    return names | _pair("head", f"layers.{7 + stages}", f"layers.{8 + stages}")


def flat_names(architecture: Architecture) -> Names:
    """Early torchvision and many training repositories: a block is one flat sequence, activations counted."""
    return _features_names(architecture, "conv", _flat)


def flat_names_linear(architecture: Architecture) -> Names:
    """The flat sequence with the classifier as one linear layer, not in a sequence with a dropout."""
    return flat_names(architecture) | {"classifier": "classifier"}


def flat_names_conv_head(architecture: Architecture) -> Names:
    """The flat sequence with the last convolution outside of the features."""
    return flat_names_linear(architecture) | _pair("head", "conv.0", "conv.1")


def timm_names(architecture: Architecture) -> Names:
    """timm: ``blocks.S.I`` is place I of stage S, counted from 0, its convolutions named by what they do."""
    names = {"classifier": "classifier"}
    names |= _pair("stem", "conv_stem", "bn1") | _pair("head", "conv_head", "bn2")
    parts = {"expand": "conv_pw", "depthwise": "conv_dw", "pointwise": "conv_pw", "project": "conv_pwl"}
    for block in _staged(architecture):
        module = f"blocks.{block.stage - 1}.{block.place}"
        convolutions = [layer for layer in layers(block) if not layer.endswith("squeeze")]
        for place, layer in enumerate(convolutions, 1):
            part = parts[layer.split(".")[1]]
            if part == "conv_pwl" and len(convolutions) == 2:
                part = "conv_pw"  # without expansion timm calls it a depthwise separable block
            names |= _pair(layer, f"{module}.{part}", f"{module}.bn{place}")
        names |= _squeeze(block, f"{module}.se.conv_reduce", f"{module}.se.conv_expand")
    return names


def timm_v3_names(architecture: Architecture) -> Names:
    """timm's MobileNetV3: the last convolution is a stage of its own, ``conv_head`` comes after the pooling."""
    stage = f"blocks.{_stages(architecture)}.0"
    return timm_names(architecture) | _pair("head", f"{stage}.conv", f"{stage}.bn1") | {"hidden": "conv_head"}


def efficientnet_pytorch_names(architecture: Architecture) -> Names:
    """The package efficientnet-pytorch and its relatives: ``_blocks.N`` is the N-th block, counted from 0."""
    names = {"classifier": "_fc"} | _pair("stem", "_conv_stem", "_bn0") | _pair("head", "_conv_head", "_bn1")
    parts = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
    parts["project"] = ("_project_conv", "_bn2")
    for number, block in enumerate(_staged(architecture)):
        for part, (convolution, norm) in parts.items():
            names |= _pair(f"{block.name}.{part}", f"_blocks.{number}.{convolution}", f"_blocks.{number}.{norm}")
        names |= _squeeze(block, f"_blocks.{number}._se_reduce", f"_blocks.{number}._se_expand")
    return names


def _features_names(architecture: Architecture, body: str, of_block: Callable[[str, list[str]], Names]) -> Names:
    """``features.N`` is the N-th block, ``features.N.conv`` or the like what is inside an inverted residual."""
    names = {"classifier": "classifier.1"}
    for number, block in enumerate(architecture.blocks):
        if block.row.kind == "conv":
            names |= _pair(block.name, f"features.{number}.0", f"features.{number}.1")
        elif block.row.kind == "inverted":
            names |= of_block(f"features.{number}.{body}", layers(block))
    return names


def _sequences(module: str, inside: list[str]) -> Names:
    """Every convolution is a sequence (convolution, norm, activation), a squeeze-and-excitation has two ``fc``."""
    names = {}
    for place, layer in enumerate(inside):
        names |= _pair(layer, f"{module}.{place}.0", f"{module}.{place}.1")
        names |= {f"{layer}.reduce": f"{module}.{place}.fc1", f"{layer}.expand": f"{module}.{place}.fc2"}
    return names


def _flat(module: str, inside: list[str]) -> Names:
    """One sequence of convolution, norm, activation, convolution, norm, activation, ..."""
    names = {}
    for place, layer in enumerate(inside):
        names |= _pair(layer, f"{module}.{3 * place}", f"{module}.{3 * place + 1}")
    return names


def _squeeze(block: Block, reduce: str, expand: str) -> Names:
    return {f"{block.name}.squeeze.reduce": reduce, f"{block.name}.squeeze.expand": expand}


def _pair(name: str, convolution: str, norm: str) -> Names:
    return {name: convolution, f"{name}.norm": norm}


def layers(block: Block) -> list[str]:
    """Our names of a block's layers with weights, in order."""
    squeeze = ["squeeze"] if block.row.squeeze else []
    expand = ["expand"] if block.row.expansion != 1 else []
    parts = {
        "separable": ["depthwise", "pointwise"],
        "inverted": [*expand, "depthwise", *squeeze, "project"],
        "pool": [],
    }.get(block.row.kind)
    return [block.name] if parts is None else [f"{block.name}.{part}" for part in parts]


def _endings(block: Block, layer: str) -> list[str]:
    """What may follow a layer's name before that of a parameter."""
    if block.row.kind == "linear":
        return [""]
    _, _, part = layer.partition(".")
    if part == "squeeze":
        return [".reduce", ".expand"]
    row = block.row
    pieces = {"depthwise": len(row.kernels), "expand": row.expand_groups, "project": row.project_groups}.get(part, 1)
    return [".norm", *([""] if pieces == 1 else [f".{piece}" for piece in range(pieces)])]


def _staged(architecture: Architecture) -> Iterator[Block]:
    """The blocks between stem and head."""
    return (block for block in architecture.blocks if block.stage)


def _stages(architecture: Architecture) -> int:
    return max(block.stage for block in architecture.blocks)


@dataclass(frozen=True)
class KeyMap:
    """The names that a source gives, and what else its networks have in common.

    Attributes
    ----------
    names : callable
        Takes an architecture to ``{our layer's name: the source's module name}``.
    padding : {"symmetric", "same"}
    bn_eps : float
        Of networks trained there, where a checkpoint does not say otherwise.
    """

    names: Callable[[Architecture], Names]
    padding: str = "symmetric"
    bn_eps: float = 1e-5


_OWN = {"npmobilenet": KeyMap(own_names)}
_TIMM = {"timm": KeyMap(timm_names)}
_V3 = _OWN | {"torchvision": KeyMap(torchvision_v3_names, bn_eps=1e-3), "timm": KeyMap(timm_v3_names)}
_EFFICIENTNET_PYTORCH = {"efficientnet-pytorch": KeyMap(efficientnet_pytorch_names, "same", 1e-3)}


def _efficientnet(bn_eps: float) -> dict[str, KeyMap]:
    torchvision = KeyMap(torchvision_efficientnet_names, bn_eps=bn_eps)
    return _OWN | {"torchvision": torchvision} | _TIMM | _EFFICIENTNET_PYTORCH


KEY_MAPS: dict[str, dict[str, KeyMap]] = {
    "mobilenet_v2": {
        **_OWN,
        "torchvision": KeyMap(torchvision_names),
        **_TIMM,
        "flat": KeyMap(flat_names),
        "flat, linear classifier": KeyMap(flat_names_linear),
        "flat, head outside": KeyMap(flat_names_conv_head),
    },
    "mobilenet_v1": _OWN | _TIMM,
    "mobilenet_v1_shallow": _OWN | _TIMM,
    "mobilenet_v1_dense": _OWN,
    "mobilenet_v3_large": _V3,
    "mobilenet_v3_small": _V3,
    **{f"mixnet_{size}": _OWN | _TIMM for size in "sml"},
    "mnasnet_b1": _OWN | {"torchvision": KeyMap(torchvision_mnasnet_names)} | _TIMM,
    **{f"efficientnet_b{number}": _efficientnet(1e-5 if number < 5 else 1e-3) for number in range(8)},
    **{f"efficientnet_lite{number}": _OWN | _TIMM | _EFFICIENTNET_PYTORCH for number in range(5)},
}


@dataclass(frozen=True)
class Naming:
    """The architecture and the source of names that fit a checkpoint's keys."""

    architecture: Architecture
    source: str

    @property
    def key_map(self) -> KeyMap:
        """What is known of the source."""
        return KEY_MAPS[self.architecture.name][self.source]

    @property
    def names(self) -> Names:
        """Our layers' names to the source's module names."""
        return _names(self)

    @property
    def modules(self) -> Mapping[str, str]:
        """What our parameters' names begin with to the source's module names; none depends on the width."""
        return _modules(self)

    def keys(self, graph: Graph) -> dict[str, str]:
        """Our parameter name to the source's key, for every parameter of the graph."""
        modules, keys = self.modules, {}
        for name in graph.tensors:
            layer, _, parameter = name.rpartition(".")
            keys[name] = f"{modules[layer]}.{parameter}"
        return keys


@cache
def _names(naming: Naming) -> Names:
    return naming.key_map.names(naming.architecture)


@cache
def _modules(naming: Naming) -> Mapping[str, str]:
    names, modules = naming.names, {}
    for block in naming.architecture.blocks:
        for layer in layers(block):
            for ending in _endings(block, layer):
                name = layer + ending
                modules[name] = names[name] if name in names else names[layer] + ending
    return modules


def namings(architectures: Iterable[str] = ARCHITECTURES) -> Iterator[Naming]:
    """Every naming of these architectures."""
    for name in architectures:
        yield from (Naming(ARCHITECTURES[name], source) for source in KEY_MAPS[name])


def identify(keys: Iterable[str], architectures: Iterable[str] = ARCHITECTURES) -> list[Naming]:
    """Return the namings that explain the keys of a checkpoint best, or none if none explains half of them.

    They may be several: networks that differ in nothing but their shapes have the same keys.

    Parameters
    ----------
    keys : iterable of str
        Tensor names of the checkpoint.
    architectures : iterable of str
        The names to choose from.
    """
    found = {key.rpartition(".")[0] for key in keys}
    everything = list(namings(architectures))
    # Whose name the stem has tells most of them apart at once; without a stem all are looked at.
    likely = [naming for naming in everything if naming.names["stem"] in found]
    wrong = {}
    for naming in likely or everything:
        expected = set(naming.modules.values())
        if 2 * len(found & expected) > len(found):
            wrong[naming] = len(found ^ expected)
    return [naming for naming, count in wrong.items() if count == min(wrong.values())]
