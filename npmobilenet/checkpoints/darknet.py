"""Darknet's two files: a configuration (``.cfg``, text) and the weights (``.weights``, numbers without names).

    header     int32 major, minor, revision; how many images it was trained on: uint64 from version 0.2 on, else int32
    numbers    float32, of each convolution in order: biases, or of its batch norm shift, scale, mean and variance; then
               the weight in PyTorch's order

Which number belongs to what, the configuration alone says; so there must be exactly as many as it counts. Source:
pjreddie/darknet, src/parser.c.
"""

from __future__ import annotations

import re
import stat
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from npmobilenet.architectures.yolo import BN_EPS, Head, Section, Yolo
from npmobilenet.checkpoints.fit import problem_of
from npmobilenet.checkpoints.reader import file_errors
from npmobilenet.errors import CheckpointError
from npmobilenet.graph import Graph
from npmobilenet.text import listed, printable, quote

CFG, WEIGHTS, NAMES = ".cfg", ".weights", ".names"
LARGEST_TEXT = 1 << 20  # bytes of a configuration, or of names
MOST_SECTIONS = 2000
VERSION = struct.Struct("<3i")
MOST_VERSION = 1000  # Darknet's own bound of a number in it
NORM = ("bias", "weight", "running_mean", "running_var")  # in the file's order
STEPS = re.compile(r"_(?:final|last|best|\d+)$")  # how Darknet ends the names of weights while it trains


@dataclass(frozen=True)
class DarknetNetwork:
    """A network of Darknet.

    Attributes
    ----------
    name : str
        Of the configuration.
    graph : Graph
    weights : dict of str to float32 array
    heads : tuple of Head
    size : (height, width)
        Of its input.
    classes : tuple of str or None
        Names, if a file beside it has as many as there are classes.
    files : (configuration, weights)
    """

    name: str
    graph: Graph
    weights: dict[str, np.ndarray]
    heads: tuple[Head, ...]
    size: tuple[int, int]
    classes: tuple[str, ...] | None
    files: tuple[Path, Path]


def is_darknet(path: Path) -> bool:
    """Whether a file is one of the two, by its name, and of weights by their first bytes too."""
    if path.suffix.lower() == WEIGHTS:
        try:
            with path.open("rb") as file:
                return _header(file.read(VERSION.size)) is not None
        except (OSError, ValueError):  # whoever reads it says why it cannot be read
            return False
    return path.suffix.lower() == CFG


def read_darknet(path: Path, pair: Path | None = None, bn_eps: float | None = None) -> DarknetNetwork:
    """Read a network from one of its two files and the other one, which is found beside it if it is not given.

    Raises
    ------
    CheckpointError
        If there is no other file, one cannot be read, or they do not belong together. The message is one line that
        begins with a path.
    """
    is_cfg = path.suffix.lower() == CFG
    pair = pair or _beside(path, WEIGHTS if is_cfg else CFG)
    cfg, weights = (path, pair) if is_cfg else (pair, path)
    at = cfg
    try:
        text = _read(cfg, LARGEST_TEXT)
        try:
            network = Yolo(parse(text), BN_EPS if bn_eps is None else bn_eps)
        except ValueError as error:
            raise CheckpointError(printable(str(error), 300)) from None
        at = weights
        return DarknetNetwork(
            cfg.stem,
            network.graph,
            _weights(_read(weights), network, cfg),
            tuple(network.heads),
            network.size,
            _names(cfg, network.heads[0].classes),
            (cfg, weights),
        )
    except CheckpointError as error:
        raise CheckpointError(f"{printable(at)}: {error}") from error.__cause__
    except MemoryError as error:
        raise CheckpointError(f"{printable(at)}: needs more memory than this machine has") from error


def parse(data: bytes) -> list[Section]:
    """Return the sections of a configuration.

    Raises
    ------
    CheckpointError
        If it is no text of sections.
    """
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise CheckpointError(
            "is no text, expected Darknet's configuration: [net], then a section for each layer"
        ) from None
    sections: list[Section] = []
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("["):
            sections.append(Section(line.strip("[]").strip().lower(), number, {}))
            if len(sections) > MOST_SECTIONS:
                raise CheckpointError(f"has more than {MOST_SECTIONS} sections")
            continue
        name, equals, value = line.partition("=")
        if not equals or not sections:
            expected = "option=value" if sections else "[net]"
            raise CheckpointError(f"line {number} is {quote(line, 40)}, expected {expected}")
        sections[-1].options[name.strip()] = value.strip()  # of two the later counts
    if not sections:
        raise CheckpointError("is empty, expected [net] and a section for each layer")
    return sections


def _read(path: Path, most: int | None = None) -> bytes:
    with file_errors():
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError("is not a regular file")
        if most is not None and status.st_size > most:
            raise CheckpointError(f"has {status.st_size} bytes, and a configuration at most {most}")
        with path.open("rb") as file:
            return file.read() if most is None else file.read(most)


def _header(data: bytes) -> int | None:
    """The length of the header that a file begins with; None if it is none."""
    if len(data) < VERSION.size:
        return None
    major, minor, revision = VERSION.unpack_from(data)
    if not (0 <= major < MOST_VERSION and 0 <= minor < MOST_VERSION and 0 <= revision < MOST_VERSION):
        return None
    return VERSION.size + (8 if 10 * major + minor >= 2 else 4)


def _weights(data: bytes, network: Yolo, cfg: Path) -> dict[str, np.ndarray]:
    start = _header(data)
    if start is None or len(data) < start:
        raise CheckpointError("does not begin with Darknet's version; it is damaged, or no file of weights")
    shapes = network.graph.tensors
    order = [
        key
        for node, norm in network.convolutions
        for key in ([f"{node}.norm.{name}" for name in NORM] if norm else [f"{node}.bias"]) + [f"{node}.weight"]
    ]
    needed = sum(prod(shapes[key]) for key in order)
    if len(data) != start + 4 * needed:
        has = f"{(len(data) - start) / 4:,.2f}".removesuffix(".00")
        raise CheckpointError(
            f"has {has} numbers after its header, and {quote(cfg.name)} takes {needed:,}: it is cut short, or the "
            "weights of another configuration"
        )
    values, weights, at = np.frombuffer(data, "<f4", offset=start), {}, 0
    with np.errstate(all="ignore"):
        for key in order:
            count = prod(shapes[key])
            weights[key] = values[at : at + count].astype(np.float32).reshape(shapes[key])
            at += count
            problem = problem_of(weights[key], variances=key.endswith("running_var"))
            if problem:
                raise CheckpointError(f"{key} has {problem}: its training went wrong, or it is damaged")
    return weights


def _beside(path: Path, suffix: str) -> Path:
    """The other file, in the same folder: of the same name, or the only one."""
    stems = dict.fromkeys((path.stem, STEPS.sub("", path.stem)))
    found = [candidate for stem in stems if (candidate := path.with_name(stem + suffix)).is_file()]
    others = sorted(path.parent.glob(f"*{suffix}")) if path.parent.is_dir() else []
    if not found and len(others) != 1:
        there = f"; there are {', '.join(listed([quote(each.name) for each in others], 4))}" if others else ""
        raise CheckpointError(
            f"{printable(path)}: Darknet's networks have two files, and there is no {quote(path.stem + suffix)} beside "
            f"it{there}: say pair=PATH"
        )
    return (found or others)[0]


def _names(cfg: Path, classes: int) -> tuple[str, ...] | None:
    """The names of the classes, from a file beside the configuration."""
    own = cfg.with_name(cfg.stem + NAMES)
    for path in dict.fromkeys([own, *sorted(cfg.parent.glob(f"*{NAMES}"))]):
        try:
            names = tuple(line.strip() for line in _read(path, LARGEST_TEXT).decode("utf-8-sig").splitlines())
        except (CheckpointError, UnicodeDecodeError):
            continue
        names = names[: -1 if names and not names[-1] else None]
        if len(names) == classes and all(name.isprintable() for name in names):
            return names
    return None
