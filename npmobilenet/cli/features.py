"""``npmobilenet features``: photographs to vectors, for searching and for classifiers of one's own."""

from __future__ import annotations

import argparse

from npmobilenet.cli.options import add_model_options, load_model
from npmobilenet.cli.out import SOURCES_HELP, add_out_option, add_part_option, write_table
from npmobilenet.cli.photographs import IMAGES_HELP


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = commands.add_parser(
        "features",
        help="write the features of photographs to a file",
        description="Write what the network computes of each photograph before it names a class: as .npz (arrays names "
        "and features), .npy (names beside it, in .names.txt), .parquet, .csv or .jsonl.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help=IMAGES_HELP + SOURCES_HELP)
    add_out_option(parser, ".npz, .npy, .parquet, .csv, .jsonl", required=True)
    parser.add_argument(
        "--block", default="pool", metavar="NAME", help="a block or layer (default: the pooled features)"
    )
    add_part_option(parser)
    add_model_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Write the features of every image that can be read; of none, no file."""
    from npmobilenet.pipelines import Features

    return write_table(options, Features(load_model(options), block=options.block))
