"""From the tensors of a checkpoint to a network: which one it is, and its weights under our names.

1. `find_network` compares the names with those of all dialects, under every prefix that one of them can have. Names
   that several dialects share are told apart by shapes.
2. The head is looked for among what is left (`heads`).
3. `Found.fit` builds the graph and takes the weights, or lists what does not fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from math import isfinite
from typing import NamedTuple

import numpy as np

from npmobilenet.architectures import ARCHITECTURES, Architecture, get_architecture
from npmobilenet.architectures.blocks import Row
from npmobilenet.checkpoints.dialects import DIALECTS
from npmobilenet.checkpoints.file_names import FileNames
from npmobilenet.checkpoints.heads import Head, HeadFinder
from npmobilenet.checkpoints.key_maps import LINEAR_BLOCKS, Dialect, Naming, kernels, with_layout
from npmobilenet.errors import CheckpointError
from npmobilenet.graph import Graph, Shape
from npmobilenet.text import NAMES_LISTED, listed, quote

STANDARD_WIDTHS = (1.0, 0.25, 0.35, 0.5, 0.75, 1.3, 1.4, 0.1)
LONGEST_NAME = 8  # parts of a module's name in any dialect
MOST_PREFIXES = 64  # under which a network is looked for
HEAD_MODULES = 4  # so many modules that no dialect knows may still be a head of another name
BIASES = ("hidden.bias", "classifier.bias", "squeeze.reduce.bias", "squeeze.expand.bias")
"""Of linear layers; where none of a kind is in the file, it was made without, and they are 0."""


class Fitted(NamedTuple):
    """A network and its weights.

    Attributes
    ----------
    architecture : Architecture
        As the weights' publisher builds it.
    names : FileNames
        What the checkpoint calls its layers.
    width : float
    graph : Graph
    weights : dict of str to float32 array
        By the graph's parameter names.
    """

    architecture: Architecture
    names: FileNames
    width: float
    graph: Graph
    weights: dict[str, np.ndarray]

    @property
    def source(self) -> str:
        """The dialect of the checkpoint's names."""
        return self.names.naming.dialect.name


class Found(NamedTuple):
    """A network found in a checkpoint.

    Attributes
    ----------
    naming : Naming
    prefix : str
        What its names begin with in the file.
    width : float
    folded : bool
        Whether its batch norms are folded into the convolutions.
    head : Head
    left_out : tuple of str
        Keys of the file outside of the network.
    """

    naming: Naming
    prefix: str
    width: float
    folded: bool
    head: Head
    left_out: tuple[str, ...]
    tensors: Mapping[str, np.ndarray]
    where: str

    @property
    def dialect(self) -> Dialect:
        """How its layers are named."""
        return self.naming.dialect

    @property
    def names(self) -> FileNames:
        """What the file calls them."""
        return FileNames(self.naming, self.prefix, self.head.hidden, self.head.classifier)

    def fit(
        self,
        padding: str | None = None,
        bn_eps: float | None = None,
        num_classes: int | None = None,
        layout: str | None = None,
        activation: str | None = None,
        output_stride: int | None = None,
    ) -> Fitted:
        """Build the graph and take the weights; what is None is as the dialect has it.

        Raises
        ------
        CheckpointError
            If a tensor is missing, left over or misshapen.
        """
        architecture = with_layout(self._architecture(activation), layout)
        if output_stride is not None:
            architecture = architecture.with_output_stride(output_stride)
        graph = architecture.graph(
            self.width,
            num_classes or self.head.outputs or 1,
            self.dialect.padding if padding is None else padding,
            self.dialect.bn_eps if bn_eps is None else bn_eps,
        )
        return Fitted(architecture, self.names, self.width, graph, self._weights(graph))

    def _architecture(self, activation: str | None) -> Architecture:
        absent = {"hidden": self.head.hidden, "classifier": self.head.classifier} if self.naming.classifies else {}
        rows = {block: () for block, module in absent.items() if module is None}
        if not (rows or self.folded or activation):
            return self.naming.architecture
        return self.naming.architecture.varied(rows, {}, {"norms": not self.folded}, activation)

    def _weights(self, graph: Graph) -> dict[str, np.ndarray]:
        keys, shapes, tensors = self.names.keys(graph), graph.tensors, self.tensors
        zero = {name for name in _absent_biases(keys, tensors)}
        expected = set(keys.values())
        outside = set(self.left_out)
        problems = {
            "missing": [
                f"{quote(key)} {shapes[name]}" for name, key in keys.items() if key not in tensors and name not in zero
            ],
            "not part of the network": [
                f"{quote(key)} {tensor.shape}"
                for key, tensor in tensors.items()
                if key not in expected and key not in outside
            ],
            "of another shape": [
                f"{quote(key)}: expected {shapes[name]}, found {tensors[key].shape}"
                for name, key in keys.items()
                if key in tensors and not _is_shape(tensors[key].shape, shapes[name])
            ],
            "not floating-point": [
                f"{quote(key)}: {tensors[key].dtype}"
                for key in keys.values()
                if key in tensors and tensors[key].dtype.kind != "f"
            ],
        }
        problems = {title: items for title, items in problems.items() if items}
        if problems:
            lines = [f"{self.where}: does not fit {self._title(graph)}:"]
            for title, items in problems.items():
                shown = listed(items, NAMES_LISTED // len(problems))
                lines += [f"  {len(items)} {title}:", *(f"    {item}" for item in shown)]
            raise CheckpointError("\n".join(lines))
        weights = {
            name: np.zeros(shapes[name], np.float32)
            if name in zero
            else np.asarray(tensors[key], np.float32).reshape(shapes[name])
            for name, key in keys.items()
        }
        factors = self.dialect.factors
        return weights | {name: weights[name] * np.float32(factor) for name, factor in factors.items()}

    def check_values(self, fitted: Fitted) -> None:
        """Refuse what training that went wrong leaves behind: NaN, infinities, variances below 0.

        Raises
        ------
        CheckpointError
            That names the tensor.
        """
        with np.errstate(all="ignore"):
            for name, values in fitted.weights.items():
                problem = problem_of(values, variances=name.endswith("running_var"))
                if problem:
                    key = quote(self.names.keys(fitted.graph)[name])
                    text = f"{self.where}: {key} has {problem}: its training went wrong, or it is damaged"
                    raise CheckpointError(text)

    def _title(self, graph: Graph) -> str:
        classes = f", {graph['classifier']['channels']} classes" if "classifier" in graph.blocks else ""
        prefix = f" below {quote(self.prefix)}" if self.prefix else ""
        return f"{self.naming.name}, width {self.width:g}{classes}, as {self.dialect.name} names it{prefix}"


def fit(
    tensors: Mapping[str, np.ndarray],
    *,
    architecture: str | None = None,
    width: float | None = None,
    num_classes: int | None = None,
    padding: str | None = None,
    bn_eps: float | None = None,
    where: str = "checkpoint",
) -> Fitted:
    """Find the network that a checkpoint's tensors belong to and give them the graph's names.

    Parameters
    ----------
    tensors : mapping of str to array
        As the checkpoint names them.
    architecture, width, num_classes : optional
        Read off the names and shapes of the tensors where they are None.
    padding, bn_eps : optional
        Of the graph. A checkpoint of tensors alone does not tell them; where they are None, they are what networks
        with its naming have (`key_maps.Dialect`).
    where : str
        What to call the checkpoint in an error.

    Raises
    ------
    CheckpointError
        If no known network has such tensors, or if a tensor is missing, left over or misshapen: they are listed with
        the shapes expected and found.
    """
    found = find_network(tensors, architecture=architecture, width=width, num_classes=num_classes, where=where)
    return found.fit(padding, bn_eps, num_classes)


def find_network(
    tensors: Mapping[str, np.ndarray],
    *,
    architecture: str | None = None,
    width: float | None = None,
    num_classes: int | None = None,
    prefix: str | None = None,
    where: str = "checkpoint",
) -> Found:
    """Find the network that a checkpoint's tensors belong to.

    Parameters
    ----------
    tensors, architecture, width, where
        As for `fit`.
    num_classes : int, optional
        0: without a classifier, whatever the file has.
    prefix : str, optional
        Where in the file the network lies, if there are several; found if None.

    Raises
    ------
    CheckpointError
        If no known network has such tensors, if there are several, or if which layer is the classifier is not clear.
    """
    names = tuple(ARCHITECTURES) if architecture is None else (get_architecture(architecture).name,)
    if not isinstance(prefix, (str, type(None))):
        raise ValueError(f"prefix must be text such as 'encoder.', got {prefix!r}")
    if prefix:
        prefix = prefix.rstrip(".") + "."
    file = _File(tensors, prefix)
    match = _best(file, names, prefix, where)
    if width is None:
        width = infer_width(match.naming, match.prefix, tensors)
    network = match.modules
    rest = [module for module in file.modules if module not in network]
    try:
        head, passed_over = _head(match, tensors, rest, width, num_classes)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None
    unread = tuple(match.prefix + module for module in match.naming.dialect.unread)
    passed_over = {*passed_over, *(module for module in rest if unread and module.startswith(unread))}
    own = {module.partition(".")[0] for module in (*match.naming.backbone, head.hidden, head.classifier) if module}
    left_out = []
    for key in tensors:
        module, inside = key.rpartition(".")[0], key.startswith(match.prefix)
        if prefix == "":  # whoever says so wants nothing that lies beside the network
            inside = key.partition(".")[0] in own
        if module in passed_over or not (inside or module in (head.hidden, head.classifier)):
            left_out.append(key)
    return Found(match.naming, match.prefix, width, match.folded, head, tuple(left_out), tensors, where)


def _head(
    match: _Match, tensors: Mapping[str, np.ndarray], rest: Sequence[str], width: float, num_classes: int | None
) -> tuple[Head, Collection[str]]:
    """The head of a network, and the modules that may be one and are not wanted."""
    naming = match.naming
    if not naming.classifies:
        if num_classes == 0:
            raise ValueError(
                f"num_classes=0 is for networks with a classifier after the pooling, and {naming.name} has none; "
                "model.features(x, 'head') gives what its own head reads"
            )
        if naming.scores is None:  # of features alone: what its source has behind them stands in other modules
            own = {module.partition(".")[0] for module in naming.backbone}
            beside = [module for module in rest if module.removeprefix(match.prefix).partition(".")[0] not in own]
            return Head(None, None), beside
        module, axis, times = naming.scores
        scores = tensors.get(f"{match.prefix}{module}.weight")
        return Head(None, None, 0 if scores is None or scores.ndim <= axis else scores.shape[axis] // times), ()
    channels = naming.architecture.channels(width)
    finder = HeadFinder(tensors, rest, match.prefix, channels["pool"])
    if num_classes == 0:
        return Head(None, None), finder.linears
    hidden = (naming.linear_module("hidden"), channels["hidden"]) if "hidden" in channels else ()
    return finder.find(naming.linear_module("classifier"), *hidden), ()


# --- Names -------------------------------------------------------------------------------------------------


class _File:
    """The modules of a checkpoint, to be looked up by the end of their names.

    ``prefix``: the only one that counts, if there is one.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], prefix: str | None) -> None:
        self.tensors = tensors
        self.modules = list(dict.fromkeys(key.rpartition(".")[0] for key in tensors))
        self.prefixes: dict[str, list[str]] = {}  # end of a module's name to what stands before it
        for module in self.modules:
            end = len(module)
            for _ in range(LONGEST_NAME):
                start = module.rfind(".", 0, end) + 1
                before = self.prefixes.setdefault(module[start:], [])
                if len(before) < MOST_PREFIXES and prefix in (None, module[:start]):
                    before.append(module[:start])
                end = start - 1
                if start == 0:
                    break
        self._below: dict[str, frozenset[str]] = {}

    def below(self, prefix: str) -> frozenset[str]:
        """The modules below a prefix, without it."""
        if prefix not in self._below:
            found = (module[len(prefix) :] for module in self.modules if module.startswith(prefix))
            self._below[prefix] = frozenset(found)
        return self._below[prefix]

    def reads_images(self, module: str) -> bool:
        """Whether it is a convolution of three channels."""
        shape = self.tensors[f"{module}.weight"].shape if f"{module}.weight" in self.tensors else ()
        return len(shape) == 4 and shape[1] == 3

    def kernels(self, prefix: str) -> Counter[int]:
        """How many depthwise convolutions there are of each kernel size."""
        shapes = (tensor.shape for key, tensor in self.tensors.items() if key.startswith(prefix) and tensor.ndim == 4)
        return Counter(shape[2] for shape in shapes if shape[1] == 1 and shape[2] > 1)


class _Match(NamedTuple):
    """A naming that explains modules of a file."""

    naming: Naming
    prefix: str
    expected: frozenset[str]
    found: frozenset[str]
    strangers: int
    """Modules below the prefix that it does not explain."""

    @property
    def missing(self) -> int:
        return len(self.expected) - len(self.found)

    @property
    def wrong(self) -> int:
        return self.missing + self.strangers

    @property
    def folded(self) -> bool:
        return not (self.expected & self.naming.norms)

    @property
    def modules(self) -> frozenset[str]:
        return frozenset(self.prefix + module for module in self.found)

    @classmethod
    def of(cls, naming: Naming, prefix: str, below: frozenset[str]) -> _Match:
        expected = naming.backbone
        if not (naming.norms & below):
            expected = expected - naming.norms
        found = expected & below
        unread = sum(module.startswith(naming.dialect.unread) for module in below) if naming.dialect.unread else 0
        return cls(naming, prefix, expected, found, len(below) - len(found) - unread)


def _best(file: _File, names: Collection[str], prefix: str | None, where: str) -> _Match:
    """The naming and the prefix that explain a file, or explain it best."""
    for bare in (False, True):
        match = _complete(file, namings(names, bare), where)
        if match:
            return _damaged(match, file, names) or match
    return _nearest(file, names, prefix, where)


def _damaged(match: _Match, file: _File, names: Collection[str]) -> _Match | None:
    """The network that scores every pixel which a file is but for a few modules, where all of its backbone is found."""
    others = len(file.modules) - len(match.found)
    if others <= HEAD_MODULES:
        return None
    whole = [naming for naming in namings(names) if not naming.classifies]
    matches = (
        _Match.of(naming, before, file.below(before))
        for naming in whole
        for before in file.prefixes.get(naming.stem, ())
    )
    best = min(matches, key=lambda match: match.wrong, default=match)
    return best if best.wrong < others else None


def _complete(file: _File, choices: Iterator[Naming], where: str) -> _Match | None:
    """The naming of which no module is missing, and that leaves the fewest unexplained."""
    candidates = [(naming, before) for naming in choices for before in file.prefixes.get(naming.stem, ())]
    matches: list[_Match] = []
    likely = [(naming, before) for naming, before in candidates if file.reads_images(before + naming.stem)]
    if len({before + naming.stem for naming, before in likely}) == 1:
        # A file with one stem is most likely one of those networks that have its depthwise convolutions.
        found = {before: file.kernels(before) for before in {before for _, before in likely}}
        matches = _matches(file, [each for each in likely if _kernels(each[0].name) == found[each[1]]])
    if not any(match.strangers <= HEAD_MODULES for match in matches):
        matches = _matches(file, candidates)
    if not matches:
        return None
    first = min(matches, key=lambda match: match.strangers)
    others = [match for match in matches if not (match.modules & first.modules)]
    if others:
        prefixes = listed([quote(each, 60) for each in sorted({match.prefix for match in (first, *others)})], 4)
        raise CheckpointError(
            f"{where}: holds several networks, below {' and '.join(prefixes)}; choose one with prefix="
        )
    best = [match for match in matches if match.strangers == first.strangers]
    return best[0] if len(best) == 1 else max(best, key=lambda match: _agreement(match, file))


def _nearest(file: _File, names: Collection[str], prefix: str | None, where: str) -> _Match:
    """The naming that a damaged or unknown file is most like, among networks with such depthwise convolutions."""
    everywhere = [
        (naming, before)
        for naming in namings(names)
        for before, count in Counter(
            before for module in naming.backbone for before in file.prefixes.get(module, ())
        ).most_common(3)
        if 4 * count > len(naming.backbone)
    ]
    matches = [_Match.of(naming, before, file.below(before)) for naming, before in everywhere]
    found = file.kernels(prefix or "")
    distance = {name: sum(((found - _kernels(name)) + (_kernels(name) - found)).values()) for name in ARCHITECTURES}
    likely = [name for name in ARCHITECTURES if distance[name] == min(distance.values())]
    alike = [match for match in matches if match.naming.name in likely]
    usable = [match for match in alike if 2 * len(match.found) > len(match.found) + match.strangers]
    if usable:
        fewest = min(match.wrong for match in usable)
        return max((m for m in usable if m.wrong == fewest), key=lambda match: _agreement(match, file))
    tensors = file.tensors
    some = ", ".join(quote(key, 60) for key in list(tensors)[:3])
    text = f"{where}: its tensors ({len(tensors)}: {some}, ...) are not those of"
    if prefix is not None:
        text = f"{where}: below {quote(prefix)} it has no tensors of"
    text += f" {_series(names)} in any dialect known here"
    alike_in_shape = [name for name in likely if found and not distance[name]]
    if alike_in_shape:
        text += f"; by its {sum(found.values())} depthwise convolutions it is like {_series(alike_in_shape)}"
    closest = min(alike, key=lambda match: match.wrong, default=None)
    if closest:
        lost = sorted(closest.expected - closest.found)[:3]
        text += f"; nearest: {closest.naming.name} as {closest.naming.dialect.name} names it, which has "
        text += ", ".join(quote(closest.prefix + module, 60) for module in lost)
    else:
        dialects = {naming.dialect.name for naming in namings(likely if found else names)}
        text += f" ({', '.join(sorted(dialects))}; docs/checkpoints.md)"
    raise CheckpointError(text)


def _series(names: Collection[str]) -> str:
    names = list(names)
    return ", ".join(names[:6]) + (f" or {len(names) - 6} others" if len(names) > 6 else "")


def _matches(file: _File, candidates: Sequence[tuple[Naming, str]]) -> list[_Match]:
    """Those of which nothing is missing."""
    there = ((naming, prefix) for naming, prefix in candidates if naming.landmark in file.below(prefix))
    matches = (_Match.of(naming, prefix, file.below(prefix)) for naming, prefix in there)
    return [match for match in matches if not match.missing]


@cache
def _kernels(name: str) -> Counter[int]:
    return kernels(get_architecture(name))


@cache
def _all_namings(bare: bool) -> tuple[Naming, ...]:
    dialects = [dialect for dialect in DIALECTS if dialect.has_features or not bare]
    return tuple(Naming(dialect, name, bare) for dialect in dialects for name in dialect.architectures)


def namings(architectures: Collection[str] = tuple(ARCHITECTURES), bare: bool = False) -> Iterator[Naming]:
    """Every naming of these architectures; ``bare``: those of features under another name, where there are such."""
    return (naming for naming in _all_namings(bare) if naming.name in architectures)


def naming(architecture: str, dialect: str) -> Naming:
    """The naming of an architecture in the first dialect of this name that has it."""
    return next(each for each in namings((architecture,)) if each.dialect.name == dialect)


# --- Shapes ------------------------------------------------------------------------------------------------


def _agreement(match: _Match, file: _File) -> tuple[int, bool, int]:
    """How many tensors have the expected shape, whether the classifier has its name, how usual the width is."""
    naming, tensors = match.naming, file.tensors
    width = infer_width(naming, match.prefix, tensors)
    graph = naming.architecture.graph(width)
    shapes, keys = graph.tensors, naming.keys(graph)
    right = sum(
        (tensor := tensors.get(match.prefix + key)) is not None and _is_shape(tensor.shape, shapes[name])
        for name, key in keys.items()
        if name.partition(".")[0] not in LINEAR_BLOCKS
    )
    last = naming.linear_module("classifier") if naming.classifies else (naming.scores or (naming.stem,))[0]
    named = f"{match.prefix}{last}.weight" in tensors
    return right, named, -STANDARD_WIDTHS.index(width) if width in STANDARD_WIDTHS else -len(STANDARD_WIDTHS)


def _is_shape(found: Shape, expected: Shape) -> bool:
    """Whether a tensor has this shape; the weight of a linear layer may be stored as a 1x1 convolution's."""
    return found == expected or (len(expected) == 2 and found == (*expected, 1, 1))


def infer_width(naming: Naming, prefix: str, tensors: Mapping[str, np.ndarray]) -> float:
    """Return the width multiplier that explains the channels of most blocks, preferring round numbers."""
    architecture, observed = naming.architecture, []
    rounding = architecture.conventions.rounding
    for row, module in naming.outputs:
        tensor = tensors.get(f"{prefix}{module}.weight")
        if tensor is not None and tensor.ndim == 4:
            observed.append((row, tensor.shape[0]))
    best, most = 1.0, -1
    for width in _candidate_widths(observed, architecture.width):
        explained = sum(row.scaled_channels(architecture.width * width, rounding) == found for row, found in observed)
        if explained > most:  # the first of equals
            best, most = width, explained
        if most == len(observed):
            break
    return best


def _candidate_widths(observed: list[tuple[Row, int]], own: float) -> Iterator[float]:
    yield from STANDARD_WIDTHS
    for digits in (1, 2, 3):
        ratios = {round(channels / row.channels / own, digits) for row, channels in observed if row.width_from == 0}
        step = 10.0**-digits
        near = {round(ratio + offset * step, digits) for ratio in ratios for offset in range(-25, 26)}
        yield from sorted(width for width in near if 0 < width <= 100)


# --- Values ------------------------------------------------------------------------------------------------


def _absent_biases(keys: Mapping[str, str], tensors: Mapping[str, np.ndarray]) -> Iterator[str]:
    for kind in BIASES:
        names = [name for name in keys if name.endswith(kind)]
        if not any(keys[name] in tensors for name in names):
            yield from names


def problem_of(values: np.ndarray, variances: bool) -> str | None:
    """What no network can have."""
    # A sum of squares is cheap, and not finite where a value is not; where it overflows, the values are looked at.
    if not isfinite(np.vdot(values, values)) and not np.isfinite(values).all():
        return f"{values.size - int(np.isfinite(values).sum())} of {values.size} values that are NaN or infinite"
    if variances and values.min() < 0:
        return f"variances below 0, such as {values.min():g}"
    return None
