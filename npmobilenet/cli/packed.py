"""The command inside a pack: ``python PACK PHOTO...`` prints what the command for its network prints."""

from __future__ import annotations

import sys
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# What the commands of the package take besides photographs; which of these a pack has depends on its task.
DEFAULTS = {"json": False, "threads": None, "top": 5, "threshold": 0.5, "draw": None, "out": None, "overlay": False}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pack that this module is in and return the exit code: as `npmobilenet.cli.main`."""

    try:
        from npmobilenet.cli import terminal

        def command() -> int:
            with terminal.no_garbage():
                from npmobilenet.packed import model

                task = model.describe().task
                options = _options(task, sys.argv[1:] if arguments is None else arguments)
                show, loaded = import_module(f"npmobilenet.cli.{task}").show, model.load(threads=options.threads)
            return show(loaded, options)

        terminal.without_blas()
        return terminal.run(command)
    except KeyboardInterrupt:  # before `terminal` takes care of it
        if sys.stderr is not None:
            print("npmobilenet: interrupted", file=sys.stderr)
        return 130


def _options(task: str, arguments: Sequence[str]) -> SimpleNamespace:
    """Read the command line; where it has photographs alone, without the modules that read more."""
    from npmobilenet.cli.defaults import photographs

    given = SimpleNamespace(images=list(arguments), **DEFAULTS)
    if photographs(arguments):
        return given
    from npmobilenet.cli.options import positive, probability
    from npmobilenet.cli.parsing import Parser
    from npmobilenet.cli.photographs import IMAGES_HELP

    parser = Parser(prog="python PACK", description=f"Print what `npmobilenet {task}` prints.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help=f"{IMAGES_HELP}; or a uint8 array in a .npy file")
    parser.add_argument("--json", action="store_true", help="print a JSON list with one object per image")
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all CPUs this process may use")
    if task == "classify":
        parser.add_argument("--top", type=positive, metavar="K", help="classes per image (default %(default)s)")
    if task in ("detect", "faces"):
        parser.add_argument("--threshold", type=probability, metavar="T", help="lowest score (default %(default)s)")
    parser.set_defaults(**DEFAULTS)
    return parser.parse_args(arguments, given)
