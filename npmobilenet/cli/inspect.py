"""``npmobilenet inspect``: the paper's table of a network, counted layer by layer."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from npmobilenet.cli.options import add_network_options, positive, size

if TYPE_CHECKING:
    from npmobilenet.counts import Counts, LayerCount
    from npmobilenet.geometry import Pair
    from npmobilenet.graph import Graph, Shape


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = commands.add_parser("inspect", help="print a network's layers, parameters, MACs and memory")
    parser.add_argument("model", metavar="MODEL", help="an architecture, weights known by name, or a checkpoint")
    parser.add_argument("--resolution", type=size, metavar="HxW", help="input size (default 224, or the weights' own)")
    parser.add_argument("--num-classes", type=positive, metavar="N", help="of an architecture (default 1000)")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    add_network_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Print the table."""
    from npmobilenet.counts import count

    graph, title, resolution = _network(options)
    counts = count(graph, resolution)
    if options.json:
        print(json.dumps({"network": title, "resolution": resolution, **asdict(counts)}, indent=1))
    else:
        print_table(counts, title, resolution)
    return 0


def _network(options: argparse.Namespace) -> tuple[Graph, str, Pair]:
    from npmobilenet.architectures import ARCHITECTURES
    from npmobilenet.model import load

    if options.model not in ARCHITECTURES:
        model = load(
            options.model,
            architecture=options.architecture,
            width=options.width,
            num_classes=options.num_classes,
            padding=options.padding,
            bn_eps=options.bn_eps,
            backend="reference",
        )
        title = f"{model.source}: {model.architecture}, width {model.width:g}"
        return model.graph, title, options.resolution or model.preprocessing.crop
    width = options.width if options.width is not None else 1.0
    architecture = ARCHITECTURES[options.model]
    graph = architecture.graph(
        width,
        options.num_classes or 1000,
        options.padding or "symmetric",
        options.bn_eps if options.bn_eps is not None else 1e-5,
    )
    return (
        graph,
        f"{architecture.name}, width {width:g} ({architecture.paper})",
        options.resolution or (224, 224),
    )


def print_table(counts: Counts, title: str, resolution: Pair) -> None:
    """Print one line per layer, then the totals."""
    print(f"{title}, input {resolution[0]}x{resolution[1]}, one image, float32\n")
    header = ("layer", "output", "kernel", "stride", "parameters", "MACs", "memory")
    total = ("total", "", "", "", f"{counts.parameters:,}", f"{counts.macs:,}", "")
    layers = [_cells(layer) for layer in counts.layers]
    widths = [max(map(len, column)) for column in zip(header, total, *layers, strict=True)]
    for cells in (header, *layers, total):
        print("  ".join(map(_aligned, range(len(cells)), cells, widths)).rstrip())
    print(f"\nparameters      {counts.parameters:,} (convolution and linear kernels alone: {counts.weights:,})")
    print(f"multiply-adds   {counts.macs:,} (convolutions and classifier)")
    print(f"memory          {_megabytes(counts.op_by_op_memory)} peak, each layer's inputs and output at once")
    print(f"                {_megabytes(counts.block_memory)} peak, each block computed as one operation")
    layers, blocks = _megabytes(counts.op_by_op_traffic), _megabytes(counts.block_traffic)
    print(f"memory traffic  {layers} layer by layer, {blocks} block by block, each tensor touched once")


def _cells(layer: LayerCount) -> tuple[str, ...]:
    return (
        layer.name,
        _times(layer.output),
        _times(layer.kernel),
        str(layer.stride[0]) if layer.stride else "",
        f"{layer.parameters:,}" if layer.parameters else "",
        f"{layer.macs:,}" if layer.macs else "",
        _megabytes(layer.memory),
    )


def _aligned(column: int, cell: str, width: int) -> str:
    return cell.ljust(width) if column < 3 else cell.rjust(width)


def _times(shape: Shape | Pair | None) -> str:
    return "x".join(map(str, shape)) if shape else ""


def _megabytes(values: int) -> str:
    """Values of float32 as MB (10^6 bytes)."""
    return f"{4 * values / 1e6:.2f} MB"
