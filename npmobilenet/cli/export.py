"""``npmobilenet export``: a network as an ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path

from npmobilenet.cli.network import find_model
from npmobilenet.cli.options import add_network_options, positive
from npmobilenet.cli.terminal import on_a_line


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = commands.add_parser("export", help="write a network as an ONNX file, for other runtimes")
    parser.add_argument(
        "model", metavar="MODEL", help="known weights, a checkpoint, or an architecture (random weights)"
    )
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="where it is written")
    parser.add_argument(
        "--dtype", choices=("float32", "int8"), default="float32",
        help="int8: with QuantizeLinear and DequantizeLinear, as any runtime knows them (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--num-classes", type=positive, metavar="N", help="of an architecture (default 1000)")
    add_network_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Write the file."""
    from npmobilenet.onnx.writing import export_onnx

    options.threads, options.backend = 1, "reference"  # nothing is computed with it
    path = export_onnx(find_model(options.model, options), options.onnx, dtype=options.dtype)
    print(on_a_line(path))
    return 0
