"""``--out FILE``: what a command finds in many photographs, in one table that an interrupted run goes on with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from npmobilenet.cli import terminal
from npmobilenet.cli.options import wrong
from npmobilenet.cli.photographs import STANDARD_INPUT, StandardInput
from npmobilenet.streaming.entries import Entry
from npmobilenet.text import dimensions, plural, printable

if TYPE_CHECKING:
    import argparse

    from npmobilenet.pipelines import Pipeline
    from npmobilenet.streaming.collecting import Collection

SOURCES_HELP = "; with --out also an archive (.tar, .tar.gz, .zip), or @FILE, a list of names"
FAILURES_SHOWN = 20  # of what goes to a file of its own


def add_out_option(
    parser: argparse.ArgumentParser, kinds: str = ".parquet, .csv, .jsonl", required: bool = False
) -> None:
    """Add the option, of a command whose photographs are ``options.images``."""
    parser.add_argument(
        "--out", type=Path, required=required, metavar="FILE",
        help=f"write a table: {kinds}; a run that was interrupted goes on where it was, failures are in "
        "FILE.errors.csv",
    )  # fmt: skip


def add_part_option(parser: argparse.ArgumentParser) -> None:
    """Add the option by which several processes or machines share out the photographs of ``--out``."""
    parser.add_argument(
        "--part", type=_part, default=(1, 1), metavar="K/N",
        help="of --out: every Nth image from the Kth on, for N processes or machines, each with a FILE of its own",
    )  # fmt: skip


def _part(text: str) -> tuple[int, int]:
    which, slash, parts = text.partition("/")
    if not (slash and which.isdecimal() and parts.isdecimal() and 1 <= int(which) <= int(parts)):
        raise wrong(f"expected K/N with 1 <= K <= N, such as 2/8, got {text!r}")
    return int(which), int(parts)


def write_table(options: argparse.Namespace, task: Pipeline) -> int:
    """Have a task look at all images and write its table; one that cannot be read makes the exit code 1."""
    from npmobilenet.streaming.collecting import Collection

    given = [Entry(name, StandardInput, passing=True) if name == STANDARD_INPUT else name for name in options.images]
    table = Collection(given, task, options.out, part=options.part)
    try:
        with table:
            _show(table)
    except KeyboardInterrupt:
        if table.progress.images:
            done = plural(table.progress.images, "image")
            terminal.warn(f"{printable(options.out)}: {done} kept: the same command goes on from there")
        raise
    images, failed, _, shape = table.progress
    if failed and images > 1:
        terminal.warn(f"{failed} of {plural(images, 'image')} failed: {terminal.on_a_line(table.errors)}")
    if not table.written:
        raise ValueError(f"{printable(options.out)}: not written: there are no {task.results}")
    each = f", {dimensions(shape)} features each" if shape else ""
    print(f"written: {terminal.on_a_line(options.out)}: {plural(images - failed, 'image')}{each}")
    return 1 if failed else 0


def _show(table: Collection) -> None:
    """Have it do its work; show how far it is, and the first failures."""
    before = table.progress.images
    if before:
        terminal.warn(f"{printable(table.out)}: going on after {plural(before, 'image')} of an earlier run")
    shown = 0
    for name, error in terminal.progress(table, table.sources.counter, "image", before):
        if error is not None and shown < FAILURES_SHOWN:
            shown += 1
            terminal.warn(f"{printable(name)}: {error}")
