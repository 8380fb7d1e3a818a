"""The names that a publisher gives to a network's layers: the language of `dialects`, and what is made of it.

A dialect says for each kind of layer what its modules are called; the parameter names below a module (``weight``,
``bias``, ``running_mean``, ``running_var``) are PyTorch's everywhere. The kinds: ``stem``, ``head``, ``hidden`` and
``classifier``; in blocks ``expand``, ``depthwise``, ``squeeze``, ``project``, ``pointwise``, ``shortcut``, and ``conv``
of a block that is one convolution; ``aspp.point`` and the like in heads for every pixel. More precise kinds come first:
``block3.expand``, ``block3.*`` (all of a block), ``unexpanded.project`` (of an inverted residual without expansion);
``*`` is whatever no other name is given for.

======================  ======================================================================================
``bn{i+1}``             a number: a letter, after a factor and before a term if there are any, ``{3i+1}``
``features.0.(0|1)``    two modules, a convolution's and its batch norm's; a squeeze-and-excitation's two layers; a
                        third is a PReLU's
======================  ======================================================================================

========  ====================================================================================================
``n``     number of the block: 0 of the stem, 1, 2, ...; the head and what follows have the next number
``s p``   stage (from 1) and place in it (from 0), blocks of the same channels being a stage
``d u``   likewise where a stage begins with each stride
``i``     which convolution of its block it is (from 0); ``j``: squeeze-and-excitations counted too
========  ====================================================================================================
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from npmobilenet.architectures import Architecture, get_architecture
from npmobilenet.architectures.blocks import DEPTHWISE_KINDS, POOLINGS, Block, Row
from npmobilenet.graph import WINDOWED, Graph
from npmobilenet.image import Preprocessing

LINEAR_BLOCKS = ("hidden", "classifier")  # after the pooling

FEATURES = "features."

_NUMBER = re.compile(r"\{(\d*)([nspduij])([+-]\d+)?\}")
_SEVERAL = re.compile(r"\((.+\|.+)\)")

LAYOUT_KNOWN = "mobilenet_v2"  # the network that has layouts
LAYOUTS: dict[str, dict[str, str]] = {
    "imagenet": {},
    "cifar": {"stem": "s1", "c24": "s1"},  # for images of 32x32: two strides less at the beginning
}


@dataclass(frozen=True, eq=False)
class Dialect:
    """How a publisher names a network's layers, and what its networks have in common.

    Attributes
    ----------
    name : str
    architectures : tuple of str
    modules : mapping of str to str
        Kind of layer to module names, in the language above.
    rows, squeeze, conventions, activation
        What differs from the paper's network: `Architecture.varied`.
    padding : {"symmetric", "same"}
    bn_eps : float
    layout : {"imagenet", "cifar"}, optional
        The strides, if the names tell them.
    preprocessing : mapping of str to Preprocessing
        By architecture (``"mobilenet_v1@1.25"``: at that width), or ``""`` for all others.
    classes : tuple of str
        Of all its networks that have so many outputs.
    factors : mapping of str to float
        By our names of parameters: what multiplies the file's, where its network has a factor of its own behind an
        activation.
    unread : tuple of str
        Modules that its files have beside the network, which reads none of them.
    doubts : mapping of str to str
        What nothing in a file tells though its networks differ in it ("padding", "preprocessing", "activation"), and
        a sentence about that.
    """

    name: str
    architectures: tuple[str, ...]
    modules: Mapping[str, str]
    rows: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    squeeze: Mapping[str, Any] = field(default_factory=dict)
    conventions: Mapping[str, Any] = field(default_factory=dict)
    activation: str | None = None
    padding: str = "symmetric"
    bn_eps: float = 1e-5
    layout: str | None = None
    preprocessing: Mapping[str, Preprocessing] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    factors: Mapping[str, float] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    doubts: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_features(self) -> bool:
        """Whether all convolutions are inside one module, so that a file may hold it under any name."""
        inside = (names for kind, names in self.modules.items() if kind not in LINEAR_BLOCKS)
        return all(names.startswith(FEATURES) for names in inside)

    def usual_preprocessing(self, architecture: str, width: float) -> Preprocessing | None:
        """How photographs are prepared for the network, where the publisher says so."""
        for key in (f"{architecture}@{width:g}", architecture, ""):
            if key in self.preprocessing:
                return self.preprocessing[key]
        return None


@dataclass(frozen=True)
class Naming:
    """A network in a dialect.

    Attributes
    ----------
    dialect : Dialect
    name : str
        Of the architecture.
    bare : bool
        Without the "features." that all its convolutions' names begin with: of the features alone, or under another
        name.
    """

    dialect: Dialect
    name: str
    bare: bool = False

    @property
    def architecture(self) -> Architecture:
        """The network as the dialect's publisher builds it."""
        return _varied(self)

    @property
    def stem(self) -> str:
        """The module that is found first."""
        first = self.architecture.blocks[0]
        part = "branch1.expand" if first.row.kind == "parallel" else "stem"
        return modules_of(self._template(*_kinds(first, part)), dict.fromkeys("nspduij", 0))[0]

    @property
    def landmark(self) -> str:
        """A module of the backbone that is known without building it: the first depthwise convolution, if any."""
        for block in self.architecture.blocks:
            if block.row.kind in DEPTHWISE_KINDS and len(block.row.kernels) == 1:
                before = int(block.row.kind == "inverted" and block.row.has_expansion)  # convolutions of the block
                numbers = _values(self.architecture)[block.name] | {"i": before, "j": before}
                return modules_of(self._template(*_kinds(block, "depthwise")), numbers)[0]
        return self.stem

    @property
    def backbone(self) -> frozenset[str]:
        """The modules but for linear layers at the end; none depends on the width."""
        return _backbone(self)[0]

    @property
    def norms(self) -> frozenset[str]:
        """Those of them that are batch norms."""
        return _backbone(self)[1]

    @property
    def outputs(self) -> tuple[tuple[Row, str], ...]:
        """The rows before the pooling, and the module that has the channels of the block."""
        return _outputs(self)

    @property
    def classifies(self) -> bool:
        """Whether it ends with linear layers; else all of it is its backbone."""
        return any(block.row.kind == "linear" for block in self.architecture.blocks)

    def linear_module(self, block: str) -> str:
        """The module of the block ``"hidden"`` or ``"classifier"``."""
        return self._module(block, block)

    @property
    def scores(self) -> tuple[str, int, int] | None:
        """Of a network that does not classify: the module of its scores, and where its weight has the classes.

        That is an axis, and how many channels along it each class has. None of one that gives features alone.
        """
        last = self.architecture.blocks[-1]
        if last.name == "attributes":
            return None
        if last.name == "centers":
            return self._module("centers.scores", last.name), 0, 1
        if last.name == "mask":
            return self._module("mask", last.name), 1, 1
        if last.name == "yolo":
            return self._module("yolo.cells", last.name), 0, 5 * last.row.anchors[0]
        if last.row.anchors:
            return self._module(f"{last.name}.scores0", last.name), 0, last.row.anchors[0]
        segments = any(block.name == "segmentation" for block in self.architecture.blocks)
        return (self._module("segmentation.scores", "segmentation"), 0, 1) if segments else None

    def _module(self, kind: str, block: str) -> str:
        template = self._template(kind) if block not in LINEAR_BLOCKS else self.dialect.modules[kind]
        (module,) = modules_of(template, _values(self.architecture)[block])
        return module

    def block_module(self, block: Block) -> str:
        """The module of an inverted residual: as much of its layers' names as says which block it is, "" if nothing."""
        if block.row.kind != "inverted":
            return ""
        template = self._template(*_kinds(block, "project"))
        ends = [number.end() for number in _NUMBER.finditer(template) if number[2] in "nspdu"]
        end = template.find(".", ends[-1]) if ends else -1
        return modules_of(template[:end], _values(self.architecture)[block.name])[0] if end > 0 else ""

    def keys(self, graph: Graph) -> dict[str, str]:
        """Our parameter name to the publisher's key, for every parameter of the graph."""
        values, nodes, keys = _values(self.architecture), {node.name: node for node in graph}, {}
        inside = graph.blocks
        for block in self.architecture.blocks:
            numbers = values[block.name] | {"i": 0, "j": 0}
            for node in inside.get(block.name, ()):
                if not node.parameters or node.operation in ("batch_norm", "prelu"):
                    continue
                part = node.name.partition(".")[2] or (block.name if not block.stage else "conv")
                first, *second = modules_of(self._template(*_kinds(block, part)), numbers)
                if part == "squeeze":
                    for parameter in node.parameters:
                        layer, _, name = parameter.partition(".")
                        keys[f"{node.name}.{parameter}"] = f"{first if layer == 'reduce' else second[0]}.{name}"
                else:
                    keys |= {f"{node.name}.{parameter}": f"{first}.{parameter}" for parameter in node.parameters}
                    numbers["i"] += part != "shortcut"
                for after, module in zip(("norm", "activation"), second, strict=False):
                    follower = nodes.get(f"{node.name}.{after}")
                    for name in follower.parameters if follower and part != "squeeze" else ():
                        keys[f"{follower.name}.{name}"] = f"{module}.{name}"
                numbers["j"] += part != "shortcut"
        return keys

    def _template(self, *kinds: str) -> str:
        """The names of the first of these kinds of layers that has some."""
        template = next(self.dialect.modules[kind] for kind in kinds if kind in self.dialect.modules)
        return template.removeprefix(FEATURES) if self.bare else template


def _kinds(block: Block, part: str) -> tuple[str, ...]:
    """What a layer may be called in `Dialect.modules`, the most precise first."""
    unexpanded = block.row.kind == "inverted" and not block.row.has_expansion
    return f"{block.name}.{part}", f"{block.name}.*", f"unexpanded.{part}" if unexpanded else part, part, "*"


def with_layout(architecture: Architecture, layout: str | None) -> Architecture:
    """Return a network with the strides of this layout.

    Raises
    ------
    ValueError
        If there is no such layout, or not of this network.
    """
    if layout is not None and layout not in tuple(LAYOUTS):
        raise ValueError(f"layout must be {' or '.join(map(repr, LAYOUTS))}, got {layout!r}")
    if not (layout and LAYOUTS[layout]):
        return architecture
    if architecture.name != LAYOUT_KNOWN:
        raise ValueError(f"layout {layout!r} is known of {LAYOUT_KNOWN} only, and this is {architecture.name}")
    return architecture.varied(LAYOUTS[layout])


def modules_of(template: str, numbers: Mapping[str, int]) -> tuple[str, ...]:
    """Return the module that a template names under these numbers, or all of them."""
    return tuple(
        "".join(each if isinstance(each, str) else str(each[0] * numbers[each[1]] + each[2]) for each in parts)
        for parts in _parsed(template)
    )


@cache
def _parsed(template: str) -> tuple[tuple[str | tuple[int, str, int], ...], ...]:
    """The names of a template, in parts: texts, and numbers as factor, letter and term."""
    several = _SEVERAL.search(template)
    if several:
        names = [template[: several.start()] + each + template[several.end() :] for each in several[1].split("|")]
        return tuple(parts for name in names for parts in _parsed(name))
    parts: list[str | tuple[int, str, int]] = []
    end = 0
    for match in _NUMBER.finditer(template):
        factor, letter, term = match.groups()
        parts += [template[end : match.start()], (int(factor or 1), letter, int(term or 0))]
        end = match.end()
    return ((*parts, template[end:]),)


@cache
def _varied(naming: Naming) -> Architecture:
    dialect = naming.dialect
    architecture = with_layout(get_architecture(naming.name), dialect.layout)
    return architecture.varied(dialect.rows, dialect.squeeze, dialect.conventions, dialect.activation)


@cache
def _graph(architecture: Architecture) -> Graph:
    """The network that many dialects name."""
    return architecture.graph()


@cache
def _backbone(naming: Naming) -> tuple[frozenset[str], frozenset[str]]:
    keys = naming.keys(_graph(naming.architecture))
    modules = {key.rpartition(".")[0]: name for name, key in keys.items() if name.split(".")[0] not in LINEAR_BLOCKS}
    return frozenset(modules), frozenset(module for module, name in modules.items() if ".norm." in name)


@cache
def _outputs(naming: Naming) -> tuple[tuple[Row, str], ...]:
    graph, found = _graph(naming.architecture), []
    keys, inside = naming.keys(graph), graph.blocks
    for block in naming.architecture.blocks:
        layers = [node for node in inside[block.name] if node.operation in WINDOWED]
        if block.row.channels and layers and "weight" in layers[-1].parameters:  # not in several parts
            found.append((block.row, keys[f"{layers[-1].name}.weight"].rpartition(".")[0]))
    return tuple(found)


def kernels(architecture: Architecture) -> Counter[int]:
    """How many depthwise convolutions of each kernel size a network has: what tells most networks apart."""
    blocks = (block for block in architecture.blocks if block.row.kind in (*DEPTHWISE_KINDS, "parallel"))
    return Counter(kernel for block in blocks for kernel in block.row.kernels)


def _values(architecture: Architecture) -> dict[str, dict[str, int]]:
    """The numbers of every block that templates can name."""
    values: dict[str, dict[str, int]] = {}
    number, stage, start, place = -1, 0, 1, -1
    for block in architecture.blocks:
        number += block.row.kind not in (*POOLINGS, "pool", "linear")  # which have that of the layers before them
        if block.stage:
            stage = block.stage
            start, place = (start + 1, 0) if block.stride != 1 else (start, place + 1)
        values[block.name] = {"n": number, "s": stage, "p": block.place, "d": start, "u": place}
    return values
