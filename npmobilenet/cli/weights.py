"""``npmobilenet weights``: the weights known by name, their download, and how the shipped ones are made."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from npmobilenet.cli.options import read_classes
from npmobilenet.cli.terminal import on_a_line
from npmobilenet.text import to_json

if TYPE_CHECKING:
    from npmobilenet.weights import CatalogueEntry


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = commands.add_parser("weights", help="list the weights known by name, download or make some")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    actions = parser.add_subparsers(dest="action", metavar="download NAME | convert FILE")
    download = actions.add_parser("download", help="download weights and verify them")
    download.add_argument("name", metavar="NAME")
    convert = actions.add_parser(
        "convert",
        help="make a shipped file from its publisher's checkpoint",
        description="Write a shipped file from the checkpoint of its publisher, as it was made: the numbers as they "
        "are stored there, with preprocessing, class names, origin and licence.",
    )
    convert.add_argument("checkpoint", type=Path, metavar="FILE")
    convert.add_argument("--as", dest="name", required=True, metavar="NAME", help="which of the shipped weights")
    convert.add_argument("--out", type=Path, required=True, metavar="FILE", help="such as weights.safetensors")
    convert.add_argument("--classes", type=Path, metavar="FILE", help="class names, one per line (default: ImageNet's)")
    return parser


def run(options: argparse.Namespace) -> int:
    """List, download or make."""
    from npmobilenet.weights import CATALOGUE, download_weights

    if options.action == "download":
        print(on_a_line(download_weights(options.name)))
        return 0
    if options.action == "convert":
        from npmobilenet.weights.convert import convert

        made = convert(options.checkpoint, options.name, options.out, read_classes(options.classes))
        print(on_a_line(made))
        return 0
    rows = [describe(entry) for entry in CATALOGUE.values()]
    if options.json:
        print(to_json(rows, indent=1))
        return 0
    for row in rows:
        print(f"{row['name']}")
        print(f"  {row['title']}")
        if row["top1"]:
            print(f"  accuracy  {row['top1']} % top-1, {row['top5']} % top-5 (published, ImageNet validation set)")
        print(f"  licence   {row['licence']}")
        print(f"  source    {row['source']}")
        print(f"  sha256    {row['sha256']}{'' if row['verified'] is None else ' (verified)'}")
        print(f"  file      {on_a_line(row['file'])}\n")
    return 0


def describe(entry: CatalogueEntry) -> dict:
    """Return what is known of some weights; the checksum of a file that is present is verified."""
    info = entry.info()
    return {
        "name": entry.name,
        "title": info.title,
        "top1": info.top1,
        "top5": info.top5,
        "licence": info.licence,
        "source": info.source,
        "sha256": entry.sha256 + ("..." if entry.url else ""),
        "verified": entry.verify() if entry.present else None,
        "file": str(entry.path) if entry.present else f"not downloaded; run: npmobilenet weights download {entry.name}",
    }
