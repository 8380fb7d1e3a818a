"""Options that several subcommands share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from npmobilenet import backends
from npmobilenet.cli import terminal
from npmobilenet.files import read_all
from npmobilenet.streaming.files import not_a_path
from npmobilenet.text import printable, quote

if TYPE_CHECKING:
    import argparse

    from npmobilenet.model import Model

# Options of `add_network_options`.
NETWORK = ("architecture", "width", "padding", "bn_eps", "activation", "layout", "output_stride", "prefix", "pair")
PREPROCESSING = ("resize", "crop", "filter", "mean", "std")  # fields of `Preprocessing` that have an option
LARGEST_CLASSES = 1 << 24  # bytes of a file of class names


def wrong(message: str) -> Exception:
    """Return the error of which a parser makes a line."""
    from argparse import ArgumentTypeError  # few command lines are wrong, and not all have a parser

    return ArgumentTypeError(message)


def positive(text: str) -> int:
    """An integer of at least 1."""
    value = _integer(text)
    if value < 1:
        raise wrong(f"expected an integer >= 1, got {text!r}")
    return value


def _integer(text: str) -> int:
    """An integer, or 0 if it is none."""
    try:
        return int(text)
    except ValueError:
        return 0


def probability(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise wrong(f"expected a number from 0 to 1, got {text!r}")
    return value


def amount(text: str) -> float:
    """A number above 0, such as ``1e9``."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise wrong(f"expected a number > 0 such as 1e9, got {text!r}")
    return value


def natural(text: str) -> int:
    """An integer of at least 0."""
    if not text.isdecimal():
        raise wrong(f"expected an integer >= 0, got {text!r}")
    return int(text)


def size(text: str) -> tuple[int, int]:
    """A height and width: ``224`` or ``193x225``."""
    height, x, width = text.partition("x")
    sides = _integer(height), _integer(width if x else height)
    if min(sides) < 1:
        raise wrong(f"expected a size such as 224 or 193x225, got {text!r}")
    return sides


def kernel_sizes(text: str) -> tuple[int, ...]:
    """Kernel sizes: ``3,5,7,9``."""
    return tuple(map(positive, text.split(",")))


def numbers(text: str) -> tuple[int, ...]:
    """Different integers of at least 1, in order: ``1,2``."""
    return tuple(sorted(set(map(positive, text.split(",")))))


def names(text: str) -> tuple[str, ...]:
    """Names: ``block3,block4``."""
    return tuple(text.split(","))


def tolerance(text: str) -> float:
    """A part of the largest value, such as ``1e-4``."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise wrong(f"expected a number >= 0 such as 1e-4, got {text!r}")
    return value


def resizing(text: str) -> int | tuple[int, int] | None:
    """What a picture is resized to: ``256``, its shorter side; ``224x224``; ``none``."""
    if text.lower() == "none":
        return None
    return size(text) if "x" in text else size(text)[0]


def colour(text: str) -> tuple[float, ...]:
    """Three numbers, of red, green and blue: ``0.485,0.456,0.406``; one is for all three."""
    try:
        values = tuple(map(float, text.split(",")))
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        raise wrong(f"expected three numbers such as 0.485,0.456,0.406, got {text!r}")
    if max(values) > 1:
        raise wrong(f"expected numbers for values from 0 to 1, got {text!r}: divide them by 255")
    return values * (3 // len(values))


def add_model_options(
    parser: argparse.ArgumentParser, default: str = "mobilenet_v2", of: str = "ImageNet", positional: bool = False
) -> None:
    """Add what :func:`load_model` looks at, of a command that has a trained network look at photographs."""
    parser.add_argument(
        "model" if positional else "--model",
        **({"nargs": "?"} if positional else {}),
        default=default,
        metavar="NAME|CHECKPOINT",
        help=f"weights known by name (see npmobilenet weights), or a file (default: {default}, for {of})",
    )
    add_backend_options(parser)
    add_dtype_option(parser)
    add_weights_options(parser)


def add_weights_options(parser: argparse.ArgumentParser) -> None:
    """Add what belongs to weights and is taken from their file else: classes, the network, preparing photographs."""
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="class names, one per line, in the order of the outputs"
    )
    parser.add_argument("--multi-label", action="store_true", help="a probability of its own for every class (sigmoid)")
    add_network_options(parser)
    group = parser.add_argument_group(
        "preparing photographs", "as when the network was trained; what is not given is as the weights say"
    )
    group.add_argument(
        "--preprocessing", type=Path, metavar="FILE", help="timm's config.json, Hugging Face's preprocessor_config.json"
    )
    group.add_argument(
        "--resize", type=resizing, default=..., metavar="N|HxW|none",
        help="the shorter side, or both, before the centre is cut out; none: directly to the crop",
    )  # fmt: skip
    group.add_argument("--crop", type=size, default=..., metavar="N|HxW", help="size of the network's input")
    group.add_argument(
        "--filter", default=..., metavar="NAME", help="of resizing: bilinear, bicubic, nearest, lanczos, box, hamming"
    )
    group.add_argument(
        "--mean", type=colour, default=..., metavar="R,G,B", help="subtracted from values that go from 0 to 1"
    )
    group.add_argument("--std", type=colour, default=..., metavar="R,G,B", help="by which they are divided then")


def add_backend_options(parser: argparse._ActionsContainer) -> None:
    """Add what computes, and on how many threads."""
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all CPUs this process may use")
    parser.add_argument(
        "--backend", default=backends.DEFAULT, choices=backends.BACKENDS, type=backends.current_name,
        help="; ".join(f"{name}: {what}" for name, what in backends.BACKENDS.items()) + "; default: %(default)s",
    )  # fmt: skip


def add_dtype_option(parser: argparse.ArgumentParser) -> None:
    """Add the type in which the network's numbers are stored."""
    parser.add_argument(
        "--dtype", choices=("float32", "float16", "int8"),
        help="int8: a quarter of the memory, quantised when it is loaded (default: as in the file, usually float32)",
    )  # fmt: skip


def load_models(options: argparse.Namespace, other: str) -> tuple[Model, Model]:
    """Load the network of `add_model_options` and another to compare it with.

    The options are for both; but if one of the two is known by name, and so what belongs to it, for the other alone.
    """
    from npmobilenet.weights import CATALOGUE

    sources = (options.model, other)
    both = len({source in CATALOGUE for source in sources}) == 1
    nothing = dict.fromkeys((*NETWORK, "multi_label", "classes", "preprocessing")) | dict.fromkeys(PREPROCESSING, ...)
    models = []
    for source in sources:
        told = {} if both or source not in CATALOGUE else nothing
        models.append(load_model(SimpleNamespace(**{**vars(options), **told, "model": source})))
    return models[0], models[1]


@terminal.no_garbage()
def load_model(options: argparse.Namespace) -> Model:
    """Load the network of `add_model_options`."""
    source = options.model
    if problem := not_a_path(source):
        raise ValueError(f"{quote(source)}: {problem}")
    if not source.lower().endswith(".onnx"):  # which may have products of matrices between its layers
        terminal.without_blas()
    from npmobilenet.loading import load

    preprocessing = None
    if options.preprocessing:
        from npmobilenet.image import read_preprocessing

        preprocessing = read_preprocessing(options.preprocessing)
    model = load(
        source,
        **{option: getattr(options, option) for option in NETWORK},
        multi_label=options.multi_label or None,
        classes=read_classes(options.classes),
        preprocessing=preprocessing,
        threads=options.threads,
        backend=options.backend,
        dtype=options.dtype,
    )
    changes: dict[str, Any] = {
        name: getattr(options, name) for name in PREPROCESSING if getattr(options, name) is not ...
    }
    if changes.get("resize") is not None:
        changes |= {"crop_fraction": None, "fit": "fill"}  # the whole picture, and exactly this size if it is one
    model.preprocessing = replace(model.preprocessing, **changes)
    return model


def read_classes(path: Path | None) -> list[str] | None:
    """The names of classes in a file, one per line."""
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return read_all(file, LARGEST_CLASSES).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, a zero byte in the name
        problem = f"cannot read class names, one per line: {terminal.reason(error)}"
        raise ValueError(f"{printable(path)}: {problem}") from None


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add what :func:`npmobilenet.load` takes beside the weights."""
    group = parser.add_argument_group("the network", "what a checkpoint does not tell, or tells wrongly")
    group.add_argument("--architecture", metavar="NAME", help="such as mobilenet_v2 (default: as the tensors tell)")
    group.add_argument("--width", type=float, metavar="W", help="width multiplier (default: as the tensors tell)")
    group.add_argument(
        "--prefix", metavar="NAME.", help="with which its tensors' names begin, if the checkpoint has several networks"
    )
    group.add_argument("--activation", metavar="NAME", help="such as relu, where the checkpoint does not tell")
    group.add_argument("--layout", choices=("imagenet", "cifar"), help="strides, which no tensor tells")
    group.add_argument(
        "--output-stride", type=positive, metavar="S",
        help="of the features, such as 16: dilations in place of strides that would make them smaller",
    )  # fmt: skip
    group.add_argument("--pair", metavar="FILE", help="of Darknet's .cfg and .weights the other one")
    group.add_argument(
        "--padding",
        choices=("symmetric", "same"),
        help="of convolutions: symmetric as in PyTorch (the usual default), same as in TensorFlow",
    )
    group.add_argument(
        "--bn-eps",
        type=float,
        metavar="EPS",
        help="epsilon of batch normalisation: 1e-5 as in PyTorch (the usual default), 1e-3 as in TensorFlow",
    )
