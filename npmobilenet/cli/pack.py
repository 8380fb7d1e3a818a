"""``npmobilenet pack``: a network for machines that have nothing but NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from npmobilenet.cli.terminal import on_a_line

if TYPE_CHECKING:
    import argparse

FACES = "faces"  # in place of a model: both that the command `faces` has


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    from npmobilenet.cli.options import add_weights_options

    parser = commands.add_parser(
        "pack",
        help="write a network as a folder, or a file, that needs nothing but NumPy",
        description="Write weights, machine code and the few modules that run them: `python FOLDER PHOTO` prints what "
        "the network makes of a photograph. It is run once and compared with the network before it is put in its "
        "place.",
    )
    parser.add_argument(
        "model", metavar="MODEL", help=f"weights known by name, or a checkpoint; {FACES}: the networks of that command"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER|FILE.pyz", help="what is written")
    parser.add_argument(
        "--dtype", choices=("float32", "int8"), help="int8: a quarter of the size (default: as in the file)"
    )
    parser.add_argument(
        "--targets", default="host", metavar="host|all|LEVEL,...",
        help="CPUs: those like this one, of every level that there is machine code for, or of some by their names "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--expressions", metavar="NAME|CHECKPOINT",
        help="beside a network that finds faces: what classifies their expressions, as the command faces has it",
    )  # fmt: skip
    add_weights_options(parser)
    parser.set_defaults(threads=None, backend="auto")
    return parser


def run(options: argparse.Namespace) -> int:
    """Load, pack, and say what was written."""
    from npmobilenet.cli.options import load_model
    from npmobilenet.face_finder import DETECTOR, EXPRESSIONS, FaceFinder
    from npmobilenet.loading import load
    from npmobilenet.packing.folder import check_place, checked_levels, pack
    from npmobilenet.packing.texts import with_numpy

    check_place(options.out)
    checked_levels(options.targets)
    if options.model == FACES:
        options.model, options.expressions = DETECTOR, options.expressions or EXPRESSIONS
    models = [load_model(options)]
    if options.expressions:
        models.append(load(options.expressions, dtype=options.dtype))
        FaceFinder(*models)
    made = pack(models, options.out, options.targets)
    print(f"{on_a_line(options.out)}: {made.size / 1e6:.1f} MB, for {', '.join(made.levels)}")
    for what, size in with_numpy(made).items():
        print(f"  {size / 1e6:.1f} MB {what}")
    return 0
