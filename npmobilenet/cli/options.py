"""Options that several subcommands share."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """An integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, got {text!r}")
    return value


def natural(text: str) -> int:
    """An integer of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected an integer >= 0, got {text!r}")
    return int(text)


def size(text: str) -> tuple[int, int]:
    """A height and width: ``224`` or ``193x225``."""
    height, x, width = text.partition("x")
    try:
        return positive(height), positive(width if x else height)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"expected a size such as 224 or 193x225, got {text!r}") from None


def kernel_sizes(text: str) -> tuple[int, ...]:
    """Kernel sizes: ``3,5,7,9``."""
    return tuple(map(positive, text.split(",")))


def numbers(text: str) -> tuple[int, ...]:
    """Different integers of at least 1, in order: ``1,2``."""
    return tuple(sorted(set(map(positive, text.split(",")))))


def names(text: str) -> tuple[str, ...]:
    """Names: ``block3,block4``."""
    return tuple(text.split(","))


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add what :func:`npmobilenet.load` takes beside the weights."""
    parser.add_argument("--architecture", metavar="NAME", help="read off the checkpoint if not given")
    parser.add_argument("--width", type=float, metavar="W", help="width multiplier, likewise")
    parser.add_argument("--prefix", metavar="NAME.", help="of the network's tensors, if the checkpoint has several")
    parser.add_argument("--activation", metavar="NAME", help="such as relu, where the checkpoint does not tell")
    parser.add_argument("--layout", choices=("imagenet", "cifar"), help="strides, where the checkpoint does not tell")
    parser.add_argument(
        "--padding",
        choices=("symmetric", "same"),
        help="'symmetric' for weights trained in PyTorch (the usual default), 'same' for TensorFlow's",
    )
    parser.add_argument(
        "--bn-eps",
        type=float,
        metavar="EPS",
        help="1e-5 for PyTorch's weights (the usual default), 1e-3 for TensorFlow's",
    )
