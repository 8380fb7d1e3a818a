"""All that belongs to the weights in a file, from whoever knows it best: `settle`.

An option of `npmobilenet.load` comes first, then what stands in the file or beside it, then what is usual where
tensors are named so (`dialects`). What remains is assumed. `Provenance` notes who decided; what should not be assumed
in silence becomes a note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from npmobilenet.architectures import Architecture
from npmobilenet.checkpoints.dialects import CIFAR_PHOTOS
from npmobilenet.checkpoints.fit import Fitted, Found, find_network
from npmobilenet.checkpoints.info import WeightsInfo
from npmobilenet.checkpoints.key_maps import LAYOUT_KNOWN
from npmobilenet.checkpoints.publisher_config import ACTIVATIONS, PublisherConfig
from npmobilenet.checkpoints.reader import Checkpoint
from npmobilenet.image import IMAGENET, Preprocessing
from npmobilenet.provenance import Provenance
from npmobilenet.text import listed, plural, quote

FEW_CLASSES = 100  # CIFAR's
LAYOUT_SHARED = "torchvision"  # the dialect in which networks for CIFAR are published too
NAMES_SHOWN = 4


class Settled(NamedTuple):
    """A network, its weights, and what belongs to them.

    Attributes
    ----------
    fitted : Fitted
    outputs : int
        Of the classifier; 0 without one.
    classes : sequence of str or None
    preprocessing : Preprocessing
    multi_label : bool
    provenance : Provenance
    notes : tuple of str
        What was assumed or left out, a line for each.
    """

    fitted: Fitted
    outputs: int
    classes: Sequence[str] | None
    preprocessing: Preprocessing
    multi_label: bool
    provenance: Provenance
    notes: tuple[str, ...]


OPTIONS = (
    *("architecture", "width", "num_classes", "padding", "bn_eps", "activation", "layout", "output_stride", "prefix"),
    *("classes", "multi_label", "preprocessing"),
)


def settle(checkpoint: Checkpoint, info: WeightsInfo, where: str, known: str | None = None, **options: Any) -> Settled:
    """Find the network in a checkpoint and settle what belongs to it.

    Parameters
    ----------
    checkpoint : Checkpoint
    info : WeightsInfo
        Its metadata.
    where : str
        What to call it in errors.
    known : str, optional
        The architecture, where there can be no other.
    **options
        All of `OPTIONS`, as `npmobilenet.load` takes them.

    Raises
    ------
    CheckpointError
        If it does not fit a network.
    ValueError
        If an option does not fit the network.
    """
    found = find_network(
        checkpoint.tensors,
        where=where,
        architecture=options["architecture"] or known,
        **{name: options[name] for name in ("width", "num_classes", "prefix")},
    )
    if not isinstance(options["preprocessing"], (Preprocessing, type(None))):
        raise ValueError(f"preprocessing must be a Preprocessing, got {options['preprocessing']!r}")
    dialect, file = found.dialect, checkpoint.path.name
    config = PublisherConfig.read(checkpoint.config, checkpoint.preprocessor, where, file)
    settled, notes = Provenance(), list(checkpoint.notes)
    settled["weights"] = (checkpoint.read_from or "the whole file", "file")
    settled["dialect"] = (dialect.name, "file")
    settled.choose("prefix", option=options["prefix"], file=found.prefix)
    settled.choose("architecture", option=options["architecture"], file=found.naming.name)
    settled.choose("width", option=options["width"], file=found.width)
    settled["classifier"] = (found.head.classifier or "none", "option" if options["num_classes"] == 0 else "file")
    if found.left_out:
        settled["left out"] = (found.left_out, "file")
        notes.append(_left_out(found.left_out))

    hidden = found.head.hidden
    if hidden and not hidden.endswith(found.naming.linear_module("hidden")):
        usual = found.naming.architecture.activation
        notes.append(f"{usual!r} assumed after {quote(hidden, 60)}, as in the network's own head")
    layout = _layout(found, options["layout"], info.layout, settled, notes)
    padding = settled.choose(
        "padding", option=options["padding"], file=_first(info.padding, config.padding), source=dialect.padding
    )
    bn_eps = settled.choose(
        "bn_eps", option=options["bn_eps"], file=_first(info.bn_eps, config.bn_eps), source=dialect.bn_eps
    )
    settled["batch norms"] = ("folded" if found.folded else "separate", "file")
    activation = _activation(
        found, options["activation"], config.activation, bool(checkpoint.quantisation), settled, notes
    )
    num_classes = options["num_classes"] or None
    stride = settled.choose("output stride", option=options["output_stride"], file=config.output_stride)
    fitted = found.fit(padding, bn_eps, num_classes, layout, activation, stride)
    found.check_values(fitted)
    outputs = found.head.outputs

    in_file = _first(info.preprocessing, config.preprocessing)
    usual = dialect.usual_preprocessing(found.naming.name, found.width)
    if layout == "cifar" and not dialect.layout:
        usual = None
    preprocessing = settled.choose(
        "preprocessing",
        option=options["preprocessing"],
        file=in_file,
        source=usual,
        assumed=proportional(fitted.architecture) if settled["layout"][0] == "imagenet" else _of_cifar(outputs),
    )
    usual_classes = dialect.classes if len(dialect.classes) == outputs else None
    names = info.classes, config.classes, usual_classes
    if found.naming.classifies and not outputs:  # those of a head that is left out, or was
        names = None, None, None
    classes = _classes(options["classes"], *names, outputs, settled, notes)
    multi_label = settled.choose(
        "multi_label", option=options["multi_label"], file=_first(info.multi_label, config.multi_label), assumed=False
    )
    for name, text in dialect.doubts.items():
        if settled[name][1] == "source":
            settled[name] = (settled[name][0], "assumed")
            notes.append(f"{_assumption(name, settled)} assumed: {text}")
    return Settled(fitted, outputs, classes, preprocessing, multi_label, settled, tuple(notes))


def _layout(found: Found, option: str | None, in_file: str | None, settled: Provenance, notes: list[str]) -> str | None:
    """The layout to build; None: the dialect's own."""
    own, given = found.dialect.layout, _first(option, in_file)
    if own and given not in (None, own):
        raise ValueError(f"the names are {found.dialect.name}'s, whose networks have the layout {own!r}")
    shared = (
        found.naming.name == LAYOUT_KNOWN
        and found.dialect.name == LAYOUT_SHARED
        and 0 < found.head.outputs <= FEW_CLASSES
    )
    if shared and given is None:
        classes = plural(found.head.outputs, "class", "classes")
        notes.append(
            f"strides of networks for ImageNet assumed; with {classes} it may be one for CIFAR's 32x32 pixels, "
            "which has the same names: layout='cifar'"
        )
    usual = own or (None if shared else "imagenet")
    settled.choose("layout", option=option, file=in_file, source=usual, assumed="imagenet")
    return None if own else given


def _activation(
    found: Found, option: str | None, in_file: str | None, quantised: bool, settled: Provenance, notes: list[str]
) -> str | None:
    """The activation to build with; None: the network's own."""
    if option not in (None, *ACTIVATIONS.values()):
        known = ", ".join(sorted(set(ACTIVATIONS.values())))
        raise ValueError(f"activation must be one of {known}, got {option!r}")
    usual = found.naming.architecture.activation
    # torchvision's networks to be quantised have ReLU for ReLU6
    quantisable = found.folded and bool(found.naming.norms) and usual == "relu6"
    in_file = _first(in_file, "relu" if quantised and quantisable else None)
    chosen = settled.choose(
        "activation", option=option, file=in_file, source=None if quantisable else usual, assumed=usual
    )
    if settled["activation"][1] == "assumed":
        notes.append(
            f"activation {chosen!r} assumed: batch norms are folded in, and networks made to be quantised have 'relu' "
            "(option activation)"
        )
    return None if chosen == usual else chosen


def _classes(
    option: Sequence[str] | None,
    metadata: Sequence[str] | None,
    beside: Sequence[str] | None,
    usual: Sequence[str] | None,
    outputs: int,
    settled: Provenance,
    notes: list[str],
) -> Sequence[str] | None:
    """Names of the outputs; None: the usual ones."""
    if beside is not None and len(beside) != outputs and option is None and metadata is None:
        if outputs:
            notes.append(
                f"config.json names {plural(len(beside), 'class', 'classes')} and there are {outputs}: not used"
            )
        beside = None
    in_file = _first(metadata, beside)
    known = (("option", option), ("file", in_file), ("source", usual))
    reason, classes = next(((reason, names) for reason, names in known if names is not None), ("assumed", None))
    settled["classes"] = (plural(outputs, "class", "classes"), reason)
    return classes


def _left_out(keys: tuple[str, ...]) -> str:
    names = ", ".join(listed([quote(key, 60) for key in keys], NAMES_SHOWN))
    return f"left out {plural(len(keys), 'tensor')} that {'is' if len(keys) == 1 else 'are'} not the network's: {names}"


def _assumption(name: str, settled: Mapping[str, tuple[Any, str]]) -> str:
    if name == "padding":
        return f"padding {settled['padding'][0]!r} and eps {settled['bn_eps'][0]:g}"
    if name == "preprocessing":
        photo = settled[name][0]
        return f"preprocessing {photo.crop[0]} of {photo.resize}, {photo.filter}, mean {photo.mean[0]:g}"
    return f"{name} {settled[name][0]!r}"


def proportional(architecture: Architecture) -> Preprocessing:
    """Return torchvision's preprocessing for ImageNet, in the proportions of 256 to 224 at the network's resolution."""
    size = architecture.resolution
    grey = architecture.in_channels == 1
    return replace(IMAGENET, resize=round(size * 256 / 224), crop=(size, size), grey=grey)


def _of_cifar(outputs: int) -> Preprocessing:
    return CIFAR_PHOTOS[min(CIFAR_PHOTOS, key=lambda number: abs(number - outputs))]


def _first(*values: Any) -> Any:
    """The first that is known."""
    return next((value for value in values if value is not None), None)
