"""Where a network's values differ: node by node from another backend's, or from values that PyTorch's modules computed.

The first node that is off by more than rounding is where to look; how much that may be is `rounding`'s to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, prod

import numpy as np

from npmobilenet.engine import Engine
from npmobilenet.graph import INPUT, Graph, Node, Shape
from npmobilenet.model import Model, checked_input
from npmobilenet.plan import lower
from npmobilenet.rounding import Rounding
from npmobilenet.text import dimensions, listed, quote

VALUES_AT_ONCE = 1 << 25  # of all nodes that are computed together, so that large networks do not fill the memory

# Where the activations that convolutions end with have their minimum: what goes below has not been through one.
LOWEST = {"relu": 0.0, "relu6": 0.0, "sigmoid": 0.0, "hard_sigmoid": 0.0, "swish": -0.2785, "hard_swish": -0.3751}

OWN = "npmobilenet"  # the dialect whose modules are called as nodes are


@dataclass(frozen=True)
class Row:
    """One value, compared.

    Attributes
    ----------
    node, operation : str
    module : str
        The name under which the reference has it, or what the weights' file calls the same; empty if unknown.
    shape : shape
        Of one image.
    largest, mean : float
        Absolute errors over all images; infinite where one value is NaN or infinite and the other is not.
    relative : float
        The largest error as part of the largest value of the reference.
    tolerance : float
        What is allowed to it.
    beyond : bool
        Whether it is more.
    note : str
        What was done to the reference before.
    """

    node: str
    operation: str
    module: str
    shape: Shape
    largest: float
    relative: float
    mean: float
    tolerance: float
    beyond: bool
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """All of them, in order of execution.

    Attributes
    ----------
    rows : tuple of Row
    left_out : dict of str to str
        Names of the reference that were not compared, and why.
    without : tuple of str
        Nodes of which the reference has no value.
    """

    rows: tuple[Row, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    @property
    def beyond(self) -> list[Row]:
        """The rows beyond their tolerance; the first of them is where to look."""
        return [row for row in self.rows if row.beyond]


def against_backend(
    model: Model, x: np.ndarray, backend: str, *, limit: float | None = None, threads: int | None = None
) -> Comparison:
    """Compare all nodes of a network with what another backend computes.

    Parameters
    ----------
    model : Model
    x : float array (N, C, H, W)
    backend : str
    limit : float, optional
        What is allowed to the largest error of every node in place of what rounding may do, as part of the largest
        value of the reference.
    threads : int, optional

    Raises
    ------
    ValueError
        If the array is no batch for this network, or the backend cannot compute it.
    MissingDependencyError
        If the backend is "cuda" and there is no GPU.
    """
    own = _Nodes(model, x, threads)
    other = Engine(model.graph, model._weights, backend)
    modules = own.modules
    rows = []
    for names in own.portions():
        theirs = _as_it_runs(other, own.x, names, own.threads)
        for name, values in own.computed(names):
            rows.append(own.row(name, values, theirs.pop(name), modules.get(name, ""), limit))
    return Comparison(tuple(rows))


def against_values(
    model: Model,
    x: np.ndarray,
    values: Mapping[str, np.ndarray],
    *,
    limit: float | None = None,
    threads: int | None = None,
) -> Comparison:
    """Compare a network with values that were computed elsewhere.

    Parameters
    ----------
    model : Model
    x : float array (N, C, H, W)
        From which they were computed.
    values : mapping of str to float array
        By the names of PyTorch's modules, whatever stands before them, or those of nodes and blocks as
        `Model.outputs` takes them. What a module computes that is no value here, since a layer's batch norm and
        activation are computed with it, is taken through these first, with the model's own weights.
    limit, threads
        As for :func:`against_backend`.

    Raises
    ------
    ValueError
        If the array is no batch for this network, or none of the names is known.
    """
    own = _Nodes(model, x, threads)
    names = _Names(model, own.graph)
    found, left_out = names.find(values)
    if not found:
        some = "; ".join(listed([f"{quote(name)}: {reason}" for name, reason in left_out.items()], 3)) or "none given"
        raise ValueError(
            f"no value to compare ({some}); this {model.architecture} has {', '.join(names.examples)}, ..."
        )
    carried = {node.name: _Carried(model, own.graph, node) for node in model.graph}
    order = {node.name: place for place, node in enumerate(model.graph)}
    by_node: dict[str, list[str]] = {}
    for name in sorted(found, key=lambda name: (order[found[name]], name)):
        by_node.setdefault(carried[found[name]].node, []).append(name)
    rows = []
    for names in own.portions():
        needed = {name for node in names for name in own.graph[node].inputs[1:] if node in by_node}
        shortcuts = _as_it_runs(own.engine, own.x, sorted(needed - {INPUT}), own.threads) | {INPUT: own.x}
        for node, computed in own.computed(names):
            for name in by_node.get(node, ()):
                theirs, note = carried[found[name]](np.asarray(values[name], np.float64), computed.shape, shortcuts)
                rows.append(own.row(node, computed, theirs, name, limit, note))
    without = tuple(node.name for node in own.graph if node.name not in by_node)
    return Comparison(tuple(rows), left_out, without)


class _Nodes:
    """The values of all nodes of a model, and what rounding may do to them."""

    def __init__(self, model: Model, x: np.ndarray, threads: int | None) -> None:
        self.model, self.engine = model, model._engine
        self.x = checked_input(x, model.graph.in_channels, model.backend)
        if not len(self.x):
            raise ValueError("x holds no image")
        self.threads = model._thread_count(model.threads if threads is None else threads)
        self.graph: Graph = self.engine.program.graph
        self.shapes = self.graph.shapes(self.x.shape[2:])
        self.rounding = Rounding(model._weights, self.shapes, self.x)

    @cached_property
    def modules(self) -> dict[str, str]:
        """What the file of the weights calls the module that computes what a node does, where there is one."""
        if self.model.names is None:
            return {}
        found: dict[str, tuple[int, int, str]] = {}
        for module, name in self.model.names.outputs(self.model.graph)[0].items():
            carried = _Carried(self.model, self.graph, self.model.graph[name])
            left = len(carried.then), len(module)
            if self.graph[carried.node].parameters and left < found.get(carried.node, (inf,))[:2]:
                found[carried.node] = *left, module
        return {node: module for node, (*_, module) in found.items()}

    def portions(self) -> Iterator[list[str]]:
        """The names of all nodes, as many at a time as there is memory for."""
        portion, held = [], 0
        for node in self.graph:
            values = len(self.x) * prod(self.shapes[node.name])
            if portion and held + values > VALUES_AT_ONCE:
                yield portion
                portion, held = [], 0
            portion.append(node.name)
            held += values
        yield portion

    def computed(self, names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        """The values of nodes, in order."""
        values = _as_it_runs(self.engine, self.x, names, self.threads)
        for name in names:
            self.rounding.follow(self.graph[name], values[name])
            yield name, values.pop(name)

    def row(
        self, name: str, ours: np.ndarray, theirs: np.ndarray, module: str, limit: float | None, note: str = ""
    ) -> Row:
        """Compare a node, just computed, with what it should be."""
        node, shape = self.graph[name], ours.shape[1:]
        if ours.shape != theirs.shape:
            note = f"of shape {dimensions(theirs.shape)}, not {dimensions(ours.shape)}"
            return Row(name, node.operation, module, shape, inf, inf, inf, limit or 0.0, True, note)
        errors = _errors(ours, theirs)
        largest, mean = float(errors.max(initial=0)), float(errors.mean())
        most = float(np.abs(theirs[np.isfinite(theirs)]).max(initial=0))
        allowed = self.rounding.allowed[name] if limit is None else limit * most
        relative, rate = ((value / most if most else inf * (value > 0)) for value in (largest, allowed))
        beyond = largest > 0 and not largest <= allowed  # nor is NaN allowed
        return Row(name, node.operation, module, shape, largest, relative, mean, rate, beyond, note)


class _Carried:
    """The way from what an original node computes to the value that the fused node has which it is part of.

    Attributes
    ----------
    node : str
        The fused node.
    then : list of Node
        What it computes after the original one.
    """

    def __init__(self, model: Model, fused: Graph, node: Node) -> None:
        self.model, self.then = model, []
        kept = {each.name for each in fused}
        ends = fused.merged.keys() | (kept - set(fused.merged.values()))
        while node.name not in ends:
            node = next(each for each in model.graph if each.inputs[0] == node.name and each.name not in kept)
            self.then.append(node)
        self.node = fused.merged.get(node.name, node.name)
        self.inputs = fused[self.node].inputs

    def __call__(self, values: np.ndarray, shape: Shape, shortcuts: Mapping[str, np.ndarray]) -> tuple[np.ndarray, str]:
        """Return what becomes of values, and in words what was done; ``shape`` is that of the fused node's."""
        if len(shape) == 2 and values.shape == (*shape, 1, 1):
            values = values.reshape(shape)
        then = self.then
        if then and then[0].operation == "activation" and not (values < LOWEST[then[0]["function"]]).any():
            then = then[1:]  # the module has an activation of its own, or one in place behind it
        if values.shape != shape or not then:
            return values, ""
        values = _channels_last(values)
        for node in then:
            step = lower(node, self.model._weights, "reference", np.float64)
            tensors = {node.inputs[0]: values, node.name: np.empty_like(values)}
            if len(node.inputs) > 1:
                tensors[node.inputs[1]] = _channels_last(shortcuts[self.inputs[1]].astype(np.float64))
            step.run(tensors, 1)
            values = tensors[node.name]
        done = ", ".join(node.kind.text(node) or node.operation for node in then)
        return np.moveaxis(values, -1, 1), f"through {done}"


class _Names:
    """What values of a network may be called: as its nodes are, and as the modules in the file of its weights."""

    def __init__(self, model: Model, fused: Graph) -> None:
        last = {node: original for original, node in fused.merged.items()}
        names = [*(node.name for node in fused), *fused.merged, *fused.blocks, *fused.output_names]
        self.nodes = {node.name: node.name for node in model.graph}
        self.nodes |= {name: last.get(node, node) for name in names for node in (fused.node_of(name),)}
        self.modules: dict[str, str] = {}
        self.inside: dict[str, str] = {}
        if model.names is not None and model.names.naming.dialect.name != OWN:
            prefix = model.names.prefix
            for mine, names in zip((self.modules, self.inside), model.names.outputs(model.graph), strict=True):
                mine |= {name.removeprefix(prefix): node for name, node in names.items()} | names
            if fused.main_output == "logits":
                self.modules.setdefault("", model.graph.nodes[-1].name)

    @property
    def examples(self) -> list[str]:
        """Some of the names."""
        return [quote(name) for names in (self.modules, self.nodes) for name in [*filter(None, names)][:2]]

    def find(self, values: Mapping[str, np.ndarray]) -> tuple[dict[str, str], dict[str, str]]:
        """Return which original node each of these is, and of the others why they are none."""
        before = self._before(values)
        modules = {name: self.modules.get(name[len(before) :]) for name in values if f"{name}.".startswith(before)}
        modules = {name: node for name, node in modules.items() if node}
        nodes = {name: self.nodes[name] for name in values if name in self.nodes}
        found = {**nodes, **modules} if len(modules) >= len(nodes) else {**modules, **nodes}
        left_out: dict[str, str] = {}
        for name, array in values.items():
            if array.dtype.kind != "f":
                left_out[name] = f"{array.dtype}, not floating-point"
            elif name not in found and name.startswith(before) and name[len(before) :] in self.inside:
                left_out[name] = "a part of an operation that is one here"
            elif name not in found:
                left_out[name] = "no name of a value here"
        return {name: node for name, node in found.items() if name not in left_out}, left_out

    def _before(self, values: Iterable[str]) -> str:
        """What the names of modules begin with, such as ``"module."``: what explains most of them."""
        counts: Counter[str] = Counter({"": 0})
        for name in values:
            end = -1
            while name:
                if name[end + 1 :] in self.modules:
                    counts[name[: end + 1]] += 1
                end = name.find(".", end + 1)
                if end < 0:
                    break
        return max(counts, key=lambda before: (counts[before], -len(before)))


def _as_it_runs(engine: Engine, x: np.ndarray, names: Sequence[str], threads: int) -> dict[str, np.ndarray]:
    """The values of nodes as a network computes them; what a call of several nodes keeps to itself, by its own call."""
    if engine.on_device:
        return engine.outputs(x, names, threads)
    outputs = engine.program.graph.output_names
    plans = [engine.plan(x.shape[2:], outputs, number) for number in {1, threads}]
    ends = set.intersection(*({group[-1].name for group in plan.groups} for plan in plans))
    kept = [name for name in names if name in ends]
    return engine.outputs(x, kept, threads) | engine.outputs(x, [name for name in names if name not in ends], threads)


def _errors(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Absolute ones; a NaN is right where there should be one, and infinitely wrong elsewhere."""
    with np.errstate(invalid="ignore"):
        errors = np.abs(ours - theirs.astype(np.float64))
    errors[(ours == theirs) | (np.isnan(ours) & np.isnan(theirs))] = 0
    errors[np.isnan(errors)] = inf
    return errors


def _channels_last(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(values, 1, -1))
