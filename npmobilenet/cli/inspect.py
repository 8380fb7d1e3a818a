"""``npmobilenet inspect``: the paper's table of a network, counted layer by layer; with ``--against`` its values."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from npmobilenet.backends import DEFAULT
from npmobilenet.cli.network import find_network, find_weights
from npmobilenet.cli.options import (
    add_backend_options,
    add_network_options,
    kernel_sizes,
    names,
    positive,
    size,
    tolerance,
)
from npmobilenet.cli.terminal import on_a_line
from npmobilenet.text import columns, dimensions, listed, printable, quote, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from npmobilenet.architectures import Architecture
    from npmobilenet.bench.profile import Profile
    from npmobilenet.cli.network import Network
    from npmobilenet.counts import Counts, LayerCount
    from npmobilenet.graph import Graph
    from npmobilenet.kernels.geometry import Pair
    from npmobilenet.model import Model
    from npmobilenet.onnx.parts import Part
    from npmobilenet.quantisation import Layer as QuantisedLayer

ALL = ("all",)


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = commands.add_parser(
        "inspect",
        help="print a network's layers, parameters, MACs and memory, or where its values differ from others",
        usage="%(prog)s MODEL [--against REFERENCE [PHOTO]] [options]",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="an architecture, known weights, or a checkpoint")
    parser.add_argument("photo", nargs="?", metavar="PHOTO", help="what --against computes (default: random numbers)")
    parser.add_argument("--resolution", type=size, metavar="HxW", help="input size (default: the network's own)")
    parser.add_argument("--num-classes", type=positive, metavar="N", help="of an architecture (default 1000)")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    add_network_options(parser)
    against = parser.add_argument_group(
        "against", "the largest and the mean error of every node; exit code 1 if one is beyond its tolerance"
    )
    against.add_argument(
        "--against", nargs="+", metavar="REFERENCE", help="a backend, or an .npz file of values saved from PyTorch"
    )
    against.add_argument(
        "--tolerance", type=tolerance, metavar="T", help="of each node's largest value (default: what rounding may do)"
    )
    add_backend_options(against)
    parser.set_defaults(wrong_usage=parser.error)
    quantised = parser.add_argument_group(
        "quantised to 8 bits", "what becomes of every layer of trained weights: types, scales, bytes, signal to noise"
    )
    quantised.add_argument(
        "--dtype", choices=("float32", "int8"), default="float32",
        help="int8: with the noise of a photograph, if there is one behind MODEL (default: %(default)s)",
    )  # fmt: skip
    mixed = parser.add_argument_group(
        "mixed depthwise convolutions", "what they would cost in place of the network's own, beside it"
    )
    mixed.add_argument("--mixed", type=kernel_sizes, metavar="K,K,...", help="kernel sizes, such as 3,5,7,9, or 9")
    mixed.add_argument(
        "--layers", type=names, default=ALL, metavar="BLOCK,...", help="in these blocks, such as block3 (default all)"
    )
    mixed.add_argument(
        "--partition", choices=("equal", "exponential"), default="equal", help="of the channels (default equal)"
    )
    mixed.add_argument("--dilated", action="store_true", help="dilated 3x3 kernels for the larger ones at stride 1")
    return parser


def run(options: argparse.Namespace) -> int:
    """Print the table, or the comparison."""
    from npmobilenet.counts import count
    from npmobilenet.onnx_model import OnnxModel

    _sort_out(options)
    if options.against is not None:
        from npmobilenet.cli.against import compare

        return compare(options)
    if options.dtype == "int8":
        return _print_quantised(options)
    network = find_network(options.model, options, of_bytes=True)
    resolution = options.resolution or network.resolution
    if isinstance(network.model, OnnxModel) or (network.model is not None and network.model.dtype == "int8"):
        return _print_parts(network, resolution, options)
    counts = count(network.graph(), resolution)
    report = {"network": network.title, "resolution": resolution, **asdict(counts)}
    if network.provenance:
        report["provenance"] = network.provenance.to_dict()
    report["plain_loops"] = slower = _plain_loops(network.graph())
    if options.mixed:
        mixed_graph = network.graph(_mixed(network.table, options))
        mixed = count(mixed_graph, resolution)
        times = _measured([network.graph(), mixed_graph], resolution)
        choice = {"kernels": options.mixed, "blocks": options.layers}
        choice |= {"partition": options.partition, "dilated": options.dilated}
        report["seconds"], mixed_seconds = [asdict(one) for one in times] if times else (None, None)
        report["mixed"] = {**choice, **asdict(mixed), "seconds": mixed_seconds}
    elif options.layers != ALL or options.partition != "equal" or options.dilated:
        raise ValueError("--layers, --partition and --dilated say how to use the kernel sizes of --mixed K,K,...")
    if options.json:
        print(to_json(report, indent=1))
        return 0
    print(f"{network.title}, input {resolution[0]}x{resolution[1]}, one image, float32\n")
    if network.provenance:
        print("\n".join(columns([("what", "value", "because of"), *network.provenance.shown()], texts=3)) + "\n")
    if options.mixed:
        print_comparison(counts, mixed, times)
    else:
        print_table(counts)
    if slower:
        layers = [f"{name} ({reason})" for name, reason in slower.items()]
        print(f"plain loops     {', '.join(listed(layers, 5))}: the fastest kernels do not compute these")
    return 0


def _print_parts(network: Network, resolution: Pair, options: argparse.Namespace) -> int:
    """Print what computes each layer: of a network of 8 bits, or of an ONNX file that is computed in parts."""
    if options.mixed:
        network.table  # noqa: B018 - raises
    rows = list(_rows(network.model, resolution))
    if options.json:
        print(to_json({"network": network.title, "resolution": resolution, "layers": rows}, indent=1))
        return 0
    kind = ", in parts" if any(row["computed_by"] == "NumPy" for row in rows) else ""
    print(f"{network.title}, input {dimensions(resolution)}, one image, {network.model.dtype}{kind}\n")
    if network.provenance:
        print("\n".join(columns([("what", "value", "because of"), *network.provenance.shown()], texts=3)) + "\n")
    header = ("layer", "output", "kernel", "by", "because", "parameters", "MACs")
    print("\n".join(columns([header, *map(_part_cells, rows)], texts=5)))
    return 0


def _rows(model: Model, resolution: Pair) -> Iterator[dict]:
    """What a table says of each layer or node, in order, as an object of JSON."""
    from npmobilenet.counts import count
    from npmobilenet.onnx.parts import Part
    from npmobilenet.onnx_model import OnnxModel
    from npmobilenet.operations import INT8_OPERATIONS
    from npmobilenet.passes import fuse

    in_parts = isinstance(model, OnnxModel)
    parts, shapes, reasons = model.parts(resolution) if in_parts else ([_whole(model)], {}, {})
    for part in parts:
        if not isinstance(part, Part):
            made = part.outputs[0]
            row = {"name": part.name or made, "text": part.operator, "output": shapes.get(made)}
            yield row | {"computed_by": "NumPy", "because": reasons[made]}
            continue
        plain = _plain_loops(part.graph)
        layers = count(part.graph, shapes[part.source][2:] if in_parts else resolution).layers
        for layer, node in zip(layers, fuse(part.graph), strict=True):
            of_bytes, because = node.operation in INT8_OPERATIONS, part.floats.get(node.name)
            by = "plain loops" if node.name in plain else "8 bits" if of_bytes else "kernels"
            yield {
                **asdict(layer),
                "output": layer.output,
                "text": f"{layer.operation} {layer.text}".rstrip() if of_bytes else layer.text or layer.operation,
                "computed_by": by,
                "because": plain.get(node.name) or because,
            }


def _whole(model: Model) -> Part:
    """The network as one part."""
    from npmobilenet.checkpoints.reader import is_onnx
    from npmobilenet.onnx.loading import TOLD, read_network
    from npmobilenet.onnx.parts import Part

    if is_onnx(model.source):
        return read_network(model.source, **dict.fromkeys(TOLD)).whole.part
    return Part(model.graph, {}, model.input_name, ())


def _part_cells(row: dict) -> tuple[str, ...]:
    output = "known in a call" if row["output"] is None else dimensions(row["output"])
    numbers = (f"{row[name]:,}" if row.get(name) else "" for name in ("parameters", "macs"))
    return printable(row["name"], 100), output, row["text"], row["computed_by"], row.get("because") or "", *numbers


def _plain_loops(graph: Graph) -> dict[str, str]:
    """The layers that the fastest kernels of the CPU leave to plain loops, and why."""
    from npmobilenet.blocked.program import problems
    from npmobilenet.passes import fuse

    return problems(fuse(graph))


def _sort_out(options: argparse.Namespace) -> None:
    """Tell apart what stands behind ``--against``: the reference, and then words as they may stand before it, too."""
    reference, *words = options.against or [None]
    words = [word for word in (options.model, options.photo) if word is not None] + words
    if not words:
        options.wrong_usage("the following arguments are required: MODEL")
    if len(words) > 2:
        options.wrong_usage(f"unrecognized arguments: {' '.join(words[2:])}")
    options.model, options.photo, options.against = words[0], words[1] if words[1:] else None, reference
    if reference is None:
        photo = None if options.dtype == "int8" else options.photo
        how = {"a photograph": photo, "--tolerance": options.tolerance, "--threads": options.threads}
        how["--backend"] = options.backend != DEFAULT or None
        given = [name for name, value in how.items() if value is not None]
        if given:
            options.wrong_usage(f"{given[0]} is for --against REFERENCE")
    elif options.dtype != "float32":
        options.wrong_usage("--dtype is not for --against: give it a file of 8 bits")
    elif options.mixed or options.layers != ALL or options.partition != "equal" or options.dilated:
        options.wrong_usage("--mixed is not for --against: the network is compared as it is")


def _print_quantised(options: argparse.Namespace) -> int:
    """Print what becomes of every layer in 8 bits."""
    from npmobilenet.errors import AssumptionWarning
    from npmobilenet.quantisation import Quantised, layers, made_up_images

    if options.mixed:
        raise ValueError("--mixed compares networks of float32, and --dtype int8 shows one of 8 bits")
    model = find_weights(options.model, options)
    if model.dtype == "int8":
        raise ValueError(f"{quote(options.model)}: is of 8 bits already; inspect the weights that it was made of")
    preprocessing = model.preprocessing
    if options.resolution:
        preprocessing = replace(preprocessing, crop=options.resolution, resize=None, crop_fraction=None)
    if options.photo:
        from npmobilenet.image import preprocess, read_image

        image = preprocess(read_image(options.photo, decode=preprocessing.decode), preprocessing)
    else:
        image = made_up_images(preprocessing, model.graph.in_channels)[0]
    weights = model.stored()[0]
    with warnings.catch_warnings():  # said when the weights were read; what ranges are from is printed
        warnings.simplefilter("ignore", AssumptionWarning)
        quantised = find_weights(options.model, options, "int8")
    made = Quantised(quantised.graph, quantised.stored()[0], quantised.provenance["quantisation"])
    found = layers(model.graph, weights, made, image)
    if options.json:
        report = {"model": options.model, "resolution": image.shape[1:], "quantisation": made.known_from}
        print(to_json(report | {"layers": [asdict(layer) for layer in found]}, indent=1))
        return 0
    source = made.known_from[0]
    known = "scales as in the file" if source == "stored" else f"ranges and means from {source}"
    print(f"{on_a_line(model.source)}: {model.architecture}, width {model.width:g}, in 8 bits, ", end="")
    print(f"input {dimensions(image.shape[1:])}; {known}\n")
    header = ("layer", "operation", "result", "scales", "weights", "bytes", "result bytes", "dB")
    stored, floats = sum(layer.weight_bytes for layer in found), sum(array.nbytes for array in weights.values())
    print("\n".join(columns([header, *map(_quantised_cells, found)], texts=5)))
    print(f"\nweights  {stored / 1e6:.2f} MB, of float32 {floats / 1e6:.2f} MB")
    return 0


def _quantised_cells(layer: QuantisedLayer) -> tuple[str, ...]:
    return (
        layer.name,
        layer.operation,
        layer.dtype,
        "" if layer.scales is None else f"{layer.scales[0]:.2g} .. {layer.scales[1]:.2g}",
        layer.weight_dtype,
        f"{layer.weight_bytes:,}" if layer.weight_bytes else "",
        f"{layer.result_bytes:,}",
        "" if layer.decibels is None else f"{layer.decibels:.1f}",
    )


def _mixed(architecture: Architecture, options: argparse.Namespace) -> Architecture:
    layers = None if options.layers == ALL else options.layers
    return architecture.with_mixed(options.mixed, layers, options.partition, options.dilated)


def _measured(graphs: Sequence[Graph], resolution: Pair) -> list[Profile] | None:
    """Times of both networks, or None where the vector kernels cannot run."""
    from npmobilenet.bench.profile import profile
    from npmobilenet.blocked.program import UnsupportedGraphError

    try:
        return profile(graphs, resolution)
    except UnsupportedGraphError:
        return None


def print_table(counts: Counts) -> None:
    """Print one line per layer, then the totals."""
    header = ("layer", "output", "kernel", "stride", "parameters", "MACs", "memory")
    total = ("total", "", "", "", f"{counts.parameters:,}", f"{counts.macs:,}", "")
    print("\n".join(columns([header, *map(_cells, counts.layers), total], texts=3)))
    print(f"\nparameters      {counts.parameters:,} (convolution and linear kernels alone: {counts.weights:,})")
    print(f"multiply-adds   {counts.macs:,} (convolutions and linear layers)")
    print(f"memory          {_megabytes(counts.op_by_op_memory)} peak, each layer's inputs and output at once")
    print(f"                {_megabytes(counts.block_memory)} peak, each block computed as one operation")
    layers, blocks = _megabytes(counts.op_by_op_traffic), _megabytes(counts.block_traffic)
    print(f"memory traffic  {layers} layer by layer, {blocks} block by block, each tensor touched once")


def print_comparison(plain: Counts, mixed: Counts, times: Sequence[Profile] | None) -> None:
    """Print one line per layer with what it costs in both networks, then the totals and their ratios."""
    header = ("layer", "output", "kernel", "mixed", "parameters", "mixed", "MACs", "mixed", "ratio")
    total = ("total", "", "", "", *_costs(plain, mixed))
    lines = [
        (one.name, dimensions(one.output), one.text, two.text if two != one else "", *_costs(one, two))
        for one, two in zip(plain.layers, mixed.layers, strict=True)
    ]
    table = [header, *lines, total]
    if times:
        layers = [[each.layers[one.name] for each in times] for one in plain.layers]
        seconds = [*layers, [sum(each.layers.values()) for each in times]]
        table = [
            header + ("us", "mixed", "ratio"),
            *(
                line + (f"{1e6 * a:.0f}", f"{1e6 * b:.0f}", f"{b / a:.2f}")
                for line, (a, b) in zip(table[1:], seconds, strict=True)
            ),
        ]
    print("\n".join(columns(table, texts=4)))
    print()
    for title, what in (("parameters", "parameters"), ("multiply-adds", "macs")):
        one, two = getattr(plain, what), getattr(mixed, what)
        print(f"{title:<16}{one:,} -> {two:,} (x {two / one:.3f})")
    if times:
        one, two = (each.network for each in times)
        print(
            f"{'time':<16}{1e3 * one:.2f} ms -> {1e3 * two:.2f} ms (x {two / one:.3f}), as a model runs, blocks fused;"
        )
        print(f"{'':<16}above, each layer by itself; 1 thread, medians of rounds in turns, random weights")


def _costs(one: LayerCount | Counts, two: LayerCount | Counts) -> tuple[str, ...]:
    """Parameters and multiply-adds of a layer in both networks, and the ratio of the latter."""
    ratio = f"{two.macs / one.macs:.2f}" if one.macs else ""
    return f"{one.parameters:,}", f"{two.parameters:,}", f"{one.macs:,}", f"{two.macs:,}", ratio


def _cells(layer: LayerCount) -> tuple[str, ...]:
    return (
        layer.name,
        dimensions(layer.output),
        layer.text,
        str(layer.stride[0]) if layer.stride else "",
        f"{layer.parameters:,}" if layer.parameters else "",
        f"{layer.macs:,}" if layer.macs else "",
        _megabytes(layer.memory),
    )


def _megabytes(values: int) -> str:
    """Values of float32 as MB (10^6 bytes)."""
    return f"{4 * values / 1e6:.2f} MB"
