"""``npmobilenet study``: what the papers claim, computed and measured here, with a picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from npmobilenet.cli import terminal
from npmobilenet.cli.options import amount, kernel_sizes, natural, positive
from npmobilenet.cli.photographs import find_images
from npmobilenet.errors import MissingDependencyError
from npmobilenet.streaming.files import not_a_path
from npmobilenet.text import columns, printable, quote, to_json

if TYPE_CHECKING:
    from npmobilenet.bench.study.study import Study, Table

Parser = argparse.ArgumentParser
NOTE_COLUMNS = 110


@dataclass(frozen=True)
class Topic:
    """One subject: what it shows, where the papers speak of it, and its options.

    Its module below ``npmobilenet.bench.study`` has the topic's name, and a function ``study`` that takes the
    options. Of ``documented`` ones the study's ``documents`` are tables for docs/.
    """

    summary: str
    paper: str
    add_options: Callable[[Parser], None]
    documented: bool = False

    @staticmethod
    def module(name: str) -> str:
        """The module of a topic."""
        return f"npmobilenet.bench.study.{name.replace('-', '_')}"


def _rounds(parser: Parser, default: int) -> None:
    parser.add_argument(
        "--rounds", type=positive, default=default, metavar="N", help="of measuring in turns (default %(default)s)"
    )


def _resolution(parser: Parser) -> None:
    parser.add_argument(
        "--resolution", type=positive, default=224, metavar="SIZE", help="of the images (default %(default)s)"
    )


def _architecture(parser: Parser, default: str) -> None:
    parser.add_argument("--network", default=default, metavar="NAME", help="an architecture (default %(default)s)")
    parser.add_argument("--width", type=float, default=1.0, metavar="W", help="width multiplier (default 1)")
    _resolution(parser)


def _model(parser: Parser) -> None:
    parser.add_argument(
        "--model", default="mobilenet_v2", metavar="NAME|CHECKPOINT", help="trained weights (default %(default)s)"
    )


def _seed(parser: Parser) -> None:
    parser.add_argument(
        "--seed", type=natural, default=0, metavar="N", help="of the random numbers (default %(default)s)"
    )


def _cost(parser: Parser) -> None:
    parser.add_argument("--width", type=float, default=1.0, metavar="W", help="width multiplier (default 1)")
    _resolution(parser)
    _rounds(parser, 5)


def _relu_manifold(parser: Parser) -> None:
    parser.add_argument(
        "--dimensions", type=kernel_sizes, default=(2, 3, 5, 15, 30), metavar="N,N,...", help="default 2,3,5,15,30"
    )
    parser.add_argument(
        "--samples", type=positive, default=10_000, metavar="N", help="of each simulation (default %(default)s)"
    )
    _seed(parser)


def _images(parser: Parser) -> None:
    parser.add_argument(
        "--images", nargs="+", metavar="IMAGE", help="photographs, folders or globs (default: the project's own)"
    )


def _linear_bottleneck(parser: Parser) -> None:
    _model(parser)
    _images(parser)
    parser.add_argument(
        "--views",
        type=positive,
        default=10,
        metavar="N",
        help="of each photograph: 1, the centre; 10, centre and corners and their mirror images (default %(default)s)",
    )


def _memory(parser: Parser) -> None:
    _architecture(parser, "mobilenet_v2")
    parser.add_argument(
        "--splits", type=positive, default=6, metavar="T", help="largest split of the expansion (default %(default)s)"
    )
    _rounds(parser, 15)


def _multipliers(parser: Parser) -> None:
    parser.add_argument(
        "--widths", type=_floats, metavar="W,W,...", help="default: those of the 22 published checkpoints"
    )
    parser.add_argument(
        "--resolutions", type=kernel_sizes, default=(224, 192, 160, 128, 96), metavar="R,R,...",
        help="default 224,192,160,128,96",
    )  # fmt: skip
    _rounds(parser, 10)


def _mixed(parser: Parser) -> None:
    _architecture(parser, "mobilenet_v2")
    parser.add_argument(
        "--kernels", type=kernel_sizes, default=(3, 5, 7, 9, 11), metavar="K,K,...", help="default 3,5,7,9,11"
    )
    _rounds(parser, 10)


def _features(parser: Parser) -> None:
    parser.add_argument("photo", metavar="PHOTO")
    parser.add_argument("--block", default="block3", metavar="NAME", help="a block or layer (default %(default)s)")
    parser.add_argument(
        "--channels", type=positive, default=48, metavar="N", help="how many, the strongest first (default %(default)s)"
    )
    _model(parser)


def _occlusion(parser: Parser) -> None:
    parser.add_argument("photo", metavar="PHOTO")
    parser.add_argument(
        "--patch", type=positive, default=48, metavar="PIXELS", help="side of the grey patch (default %(default)s)"
    )
    parser.add_argument(
        "--step", type=positive, default=8, metavar="PIXELS", help="by which it slides (default %(default)s)"
    )
    parser.add_argument("--label", metavar="NAME|INDEX", help="of the class to look at (default: the most probable)")
    _model(parser)


def _style(parser: Parser) -> None:
    parser.add_argument("photo", metavar="PHOTO")
    parser.add_argument("other", metavar="PHOTO")
    parser.add_argument(
        "--pooling", choices=("max", "average"), default="max", help="of VGG19 (default %(default)s, its own)"
    )
    _model(parser)


def _int8(parser: Parser) -> None:
    _images(parser)
    parser.add_argument(
        "--crops", dest="count", type=positive, default=60, metavar="N", help="how many (default %(default)s)"
    )
    _model(parser)


def _tiles(parser: Parser) -> None:
    _rounds(parser, 15)
    _resolution(parser)
    parser.add_argument(
        "--candidates", type=_sizes, default=(), metavar="PxV,PxV,...",
        help="tiles to try in the layers of a network: pixels x vectors, such as 7x2,14x2 (default: all that fit)",
    )  # fmt: skip


def _timeline(parser: Parser) -> None:
    _architecture(parser, "mobilenet_v2")
    parser.add_argument("--threads", type=positive, metavar="N", help="default: as many as there are CPUs")
    _rounds(parser, 50)


def _asm(parser: Parser) -> None:
    parser.add_argument("kernel", nargs="?", metavar="KERNEL", help="default: list all")
    parser.add_argument(
        "--target", default="host", metavar="CPU", help="host (default), sse2, avx, avx2, avx512 or neon"
    )
    parser.add_argument("--ir", action="store_true", help="LLVM's intermediate code in place of machine code")
    parser.add_argument("--all", dest="whole", action="store_true", help="the whole function, not only its inner loop")


def _scale(parser: Parser) -> None:
    parser.add_argument(
        "--images", dest="number", type=amount, default=1e9, metavar="N", help="how many (default %(default).0e)"
    )
    parser.add_argument("--cores", type=positive, default=64, metavar="N", help="that compute (default %(default)s)")
    parser.add_argument(
        "--milliseconds", type=_floats, metavar="D,R,N",
        help="of decoding, resizing and the network for an image on one core (default: measured here)",
    )  # fmt: skip
    parser.add_argument("--bytes", dest="size", type=positive, metavar="N", help="of a file, with --milliseconds")
    parser.add_argument(
        "--storage", type=amount, default=2000, metavar="MB/S", help="that it gives (default %(default)s)"
    )
    parser.add_argument(
        "--link", type=amount, default=25, metavar="GBIT/S", help="of the network (default %(default)s)"
    )
    parser.add_argument(
        "--requests", type=amount, default=5500, metavar="N", help="that storage answers a second (default %(default)s)"
    )
    _model(parser)


TOPICS = {
    "cost": Topic(
        "dense against depthwise separable convolutions: multiply-adds, parameters, time",
        "MobileNetV1, 1704.04861, section 3.1 and Table 3",
        _cost,
    ),
    "relu-manifold": Topic(
        "what ReLU leaves of a spiral in 2 to 30 dimensions, and how much volume collapses",
        "MobileNetV2, 1801.04381, Figure 1 and appendix A",
        _relu_manifold,
    ),
    "linear-bottleneck": Topic(
        "what ReLU6 behind the projections would destroy in the trained network",
        "MobileNetV2, 1801.04381, section 3.2, Figures 6a and 7",
        _linear_bottleneck,
    ),
    "memory": Topic(
        "activation memory op by op, block by block, planned and measured; the t-way split",
        "MobileNetV2, 1801.04381, section 5.1 and Table 3",
        _memory,
    ),
    "multipliers": Topic(
        "width and resolution: multiply-adds, parameters, time, beside the published accuracy",
        "MobileNetV1, 1704.04861, sections 3.3 and 3.4; MobileNetV2, 1801.04381, section 6.1",
        _multipliers,
    ),
    "mixed": Topic(
        "kernel sizes 3 to 11 and their mixtures: multiply-adds, parameters, time, receptive field",
        "MixNet, 1907.09595, section 3",
        _mixed,
    ),
    "features": Topic(
        "the feature maps of a photograph at any block",
        "MobileNetV2, 1801.04381, section 3",
        _features,
    ),
    "occlusion": Topic(
        "which part of a photograph its label rests on", "Zeiler and Fergus, 1311.2901, section 4.2", _occlusion
    ),
    "style": Topic(
        "how far apart two photographs are in style and in content, layer by layer",
        "Gatys, Ecker and Bethge, CVPR 2016, section 2",
        _style,
    ),
    "int8": Topic(
        "where the noise of 8 bits comes from: layers, one scale or many, biases, bits",
        "Nagel et al., 1906.04721, section 4; Krishnamoorthi, 1806.08342",
        _int8,
    ),
    "tiles": Topic(
        "why a kernel keeps a tile of sums in registers, and how large: every size measured",
        "docs/kernels/README.md",
        _tiles,
        documented=True,
    ),
    "timeline": Topic(
        "what each thread computes when, and how long it waits for the others", "docs/architecture.md", _timeline
    ),
    "scale": Topic(
        "what a billion images cost, and where the bottleneck moves as cores are added", "docs/scale.md", _scale
    ),
    "asm": Topic(
        "machine code of a kernel: its inner loop, vector instructions, loads, spills", "kernels/vector/simd.py", _asm
    ),
}


def add_parser(commands: argparse._SubParsersAction) -> Parser:
    """Add the subcommand."""
    parser = commands.add_parser("study", help="the papers' claims, computed and measured here, with pictures")
    topics = parser.add_subparsers(dest="topic", metavar="TOPIC")
    for name, topic in TOPICS.items():
        one = topics.add_parser(name, help=topic.summary, description=f"{topic.summary} ({topic.paper})")
        topic.add_options(one)
        if topic.documented:
            one.add_argument("--write-docs", action="store_true", help="write the tables of a checkout's docs/")
        one.add_argument("--json", action="store_true", help="print the numbers as JSON")
        one.add_argument("--out", type=Path, metavar="FILE", help=f"the picture: .png, .svg, .pdf (study-{name}.png)")
        one.add_argument("--no-picture", dest="picture", action="store_false", help="print the numbers only")
    return parser


def run(options: argparse.Namespace) -> int:
    """Print what a topic found and save its picture; without a topic, list all."""
    if options.topic is None:
        width = max(map(len, TOPICS))
        for name, topic in TOPICS.items():
            print(f"{name:<{width}}  {topic.summary}\n{'':<{width}}  ({topic.paper})")
        print("\nnpmobilenet study TOPIC --help    says what can be chosen")
        return 0
    from npmobilenet.bench.study import pictures

    out = pictures.checked_path(options.out or Path(f"study-{options.topic}.png")) if options.picture else None
    for photo in (getattr(options, name) for name in ("photo", "other") if name in options):
        if problem := not_a_path(photo):
            raise ValueError(f"{quote(photo)}: {problem}")
    if "images" in options:
        options.images = _photographs(options.images)
    make = import_module(Topic.module(options.topic)).study
    study = make(**{name: getattr(options, name) for name in signature(make).parameters})
    if options.json:
        print(to_json({"topic": options.topic, "paper": TOPICS[options.topic].paper, **study.numbers()}, indent=1))
    else:
        _print_study(study, options.topic)
    if getattr(options, "write_docs", False):
        from npmobilenet.bench import documents

        print("\n".join(f"written: {where}" for where in documents.fill(study.documents())), file=sys.stderr)
    return _save(study, out, options) if out else 0


def _print_study(study: Study, name: str) -> None:
    print(f"{name}: {TOPICS[name].summary}\n{TOPICS[name].paper}")
    for table in study.tables():
        _print_table(table)


def _print_table(table: Table) -> None:
    print(f"\n{printable(table.title)}\n")
    if table.rows:
        rows = [[printable(cell) for cell in row] for row in table.rows]  # there may be names of files and classes
        print("\n".join(columns([table.header, *rows] if table.header else rows, table.texts)))
    if table.notes:
        print()
    for note in table.notes:
        print(fill(printable(note, 10_000), NOTE_COLUMNS))


def _save(study: Study, path: Path, options: argparse.Namespace) -> int:
    """Save the picture; that it cannot be drawn is a failure only if it was asked for by name."""
    from npmobilenet.bench.study import pictures

    try:
        pictures.save(study, path, f"npmobilenet study {options.topic}: {TOPICS[options.topic].paper}")
    except MissingDependencyError as error:
        terminal.warn(str(error))
        return 1 if options.out else 0
    sys.stdout.flush()
    print(f"\npicture: {terminal.on_a_line(path)}", file=sys.stderr)
    return 0


def _photographs(arguments: Sequence[str] | None) -> list[str]:
    """The files that ``--images`` names; without it the project's photographs, where they can be found."""
    import npmobilenet

    if arguments is None:
        roots = (Path(npmobilenet.__file__).parents[1], Path())  # a checkout, or where an installation is used
        root = next((root for root in roots if (root / "examples/coffee.png").is_file()), None)
        if root is None:
            raise ValueError(
                "there are no photographs to look at: the project's own are in its checkout alone; name some of "
                "yours with --images IMAGE ..."
            )
        arguments = [str(folder) for folder in (root / "examples", root / "tests/data/images") if folder.is_dir()]
    found = find_images(arguments)
    for photograph in found:
        if photograph.problem:
            raise ValueError(photograph.failure(photograph.problem))
    return [photograph.name for photograph in found]


def _sizes(text: str) -> tuple[tuple[int, int], ...]:
    try:
        sizes = tuple(tuple(map(int, size.split("x"))) for size in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or any(len(size) != 2 or min(size) < 1 for size in sizes):
        raise argparse.ArgumentTypeError(f"expected pixels x vectors, such as 7x2,14x2, got {text!r}")
    return sizes


def _floats(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers, such as 1.0,0.5, got {text!r}") from None
